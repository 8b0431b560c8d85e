"""Every error of the contract API and of the runtime.

`ContractError` is what a contract raises to refuse: the client sees its code, its text and its fields. Everything
else here tells the contract's author, or whoever runs the chaincode, what went wrong. No message of these classes
holds a value that came from a client, from state or from the transient map.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

E_ARGUMENT = "E_ARGUMENT"
"""A parameter is missing, surplus, too large or not of its type."""
E_FUNCTION = "E_FUNCTION"
"""The chaincode has no such function."""
E_INTERNAL = "E_INTERNAL"
"""Something failed that the contract did not foresee; the log of the chaincode has the reference."""
E_ACCESS = "E_ACCESS"
"""The caller's certificate does not say what the operation requires."""
E_DETERMINISM = "E_DETERMINISM"
"""The contract used a clock, randomness or the like, and the chaincode is told to refuse that."""
E_BOOKMARK = "E_BOOKMARK"
"""A bookmark does not belong to the listing."""
E_EXISTS = "E_EXISTS"
"""There is a record with this key already."""
E_NOT_FOUND = "E_NOT_FOUND"
"""There is no record with this key."""
E_STATE = "E_STATE"
"""The record's state does not allow the action."""
E_BUSY = "E_BUSY"
"""The chaincode has as many transactions in hand as it takes, or is being stopped; the call may be repeated."""

STATUS_OK = 200
STATUS_REFUSED = 400
"""Fabric endorses nothing with a status from 400 (core/endorser/endorser.go), so a refusal writes nothing."""
STATUS_FAILED = 500

MAX_MESSAGE_BYTES = 2048
"""Longest response message: it travels in gRPC trailers, once for each endorser, and these end at 8 KiB."""

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_MESSAGE = re.compile(r"([A-Z][A-Z0-9_]{0,63}): (.*)", re.DOTALL)


class ChaincodeError(Exception):
    """Base of all errors of `sovchain.chaincode`."""


class ContractError(ChaincodeError):
    """A contract refuses: nothing is endorsed and the client receives code, text and fields.

    The response has status 400 and the message `CODE: text`, followed by a space and the canonical JSON of the
    fields if there are any.

    Args:
        code: upper-case word such as `E_NOT_CUSTODIAN`, at most 64 characters.
        message: lower-case text without a final full stop: what happened, why, what to do. It reaches the client and
            the logs of peers, so it must hold no secret.
        fields: JSON values (no floats) that a program may act on.

    Raises:
        ValueError: the code is not an upper-case word.
    """

    def __init__(self, code: str, message: str, **fields: Any) -> None:
        if _CODE.fullmatch(code) is None:
            raise ValueError("the code of a contract error is an upper-case word of at most 64 characters: E_NAME")
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.fields: Mapping[str, Any] = fields

    @classmethod
    def from_message(cls, message: str) -> ContractError | None:
        """The error that a response message stands for, or None if the message has another form."""
        matched = _MESSAGE.fullmatch(message)
        if matched is None:
            return None
        code, text = matched.groups()
        at = text.find(" {") if text.endswith("}") else -1
        while at >= 0:
            fields = _json_object(text[at + 1 :])
            if fields is not None:
                error = cls(code, text[:at])
                error.fields = fields
                return error
            at = text.find(" {", at + 1)
        return cls(code, text)

    def response_message(self) -> str:
        """The message of the response, at most `MAX_MESSAGE_BYTES` of UTF-8.

        Fields that do not fit are left out; a text that does not fit is cut.

        Raises:
            ProtocolError: a field is not canonical JSON (a float, an object of another kind).
        """
        text = f"{self.code}: {self.message}"
        if self.fields:
            from sovchain.protocol.canonical import canonical_json

            whole = f"{text} {canonical_json(dict(self.fields)).decode()}"
            if len(whole.encode()) <= MAX_MESSAGE_BYTES:
                return whole
        return cut(text, MAX_MESSAGE_BYTES)


class ArgumentError(ContractError):
    """A parameter is missing, surplus, too large or not of its type (code `E_ARGUMENT`).

    Raised by `Operation.encode` before anything is sent, and by the chaincode before the method runs. It names the
    parameter and never repeats the value.
    """

    def __init__(self, parameter: str | None, reason: str) -> None:
        text = reason if parameter is None else f"parameter {parameter}: {reason}"
        fields = {} if parameter is None else {"parameter": parameter}
        super().__init__(E_ARGUMENT, text, **fields)
        self.parameter = parameter
        self.reason = reason


class AccessError(ContractError):
    """The caller may not do this (code `E_ACCESS` unless the contract names another).

    It names what is required, which the contract's metadata says too, and nothing of the caller or of the state.
    """

    def __init__(self, what: str, required: str, *, code: str = E_ACCESS) -> None:
        super().__init__(
            code,
            f"the caller may not do {what}: it requires {required}; use an identity that has it",
            requires=required,
        )
        self.what = what
        self.required = required


class DeterminismError(ContractError):
    """The contract used what differs between peers while a transaction ran (code `E_DETERMINISM`)."""

    def __init__(self, rule: str, used: str, instead: str) -> None:
        super().__init__(E_DETERMINISM, f"the contract used {used}, which differs between peers: {instead}", rule=rule)
        self.rule = rule
        self.used = used
        self.instead = instead


class RecordError(ChaincodeError):
    """State under a record's key is no such record, or was written by a newer version of the contract."""


class ResultError(ChaincodeError):
    """A result is not of the type that the operation declares."""


class DefinitionError(ChaincodeError, TypeError):
    """A contract class or a chaincode is declared in a way that cannot work; raised when the class is defined."""


class StubUseError(ChaincodeError):
    """The stub refuses a request: an empty key or value, a write in a query, a transaction that is over."""


class NotSupportedError(StubUseError):
    """This stub, or the peer behind it, does not offer the request."""


class LedgerError(ChaincodeError):
    """The peer answered a request of the stub with ERROR.

    Attributes:
        request: the kind of request, such as `GET_STATE`.
        text: the peer's own words.
    """

    def __init__(self, request: str, text: str) -> None:
        super().__init__(f"the peer refused {request}: {text}")
        self.request = request
        self.text = text


class CalledChaincodeError(ChaincodeError):
    """A chaincode called with `invoke_chaincode` answered with a status of 400 or more.

    Fabric does not undo what the callee has written: end the transaction with an error unless that is intended.
    """

    def __init__(self, chaincode: str, status: int, message: str) -> None:
        super().__init__(f"chaincode {chaincode} answered {status}: {message}")
        self.chaincode = chaincode
        self.status = status
        self.message = message


class StreamError(ChaincodeError):
    """The stream to the peer ended or carried a frame that the protocol does not allow there."""


class ServiceError(ChaincodeError):
    """A chaincode service cannot start: its configuration, its module, its address or its TLS material is wrong."""


def cut(text: str, max_bytes: int) -> str:
    """`text`, or its longest beginning that fits into `max_bytes` of UTF-8 with an ellipsis."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes:
        return raw.decode()
    return raw[: max_bytes - 3].decode("utf-8", "ignore") + "…"


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
