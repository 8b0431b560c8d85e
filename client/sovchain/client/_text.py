"""Text that came from elsewhere, made fit for an error message: one line, printable, bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MAX_FOREIGN_TEXT: Final = 2048
"""Most characters of a peer's or contract's text that are kept."""

_CHAINCODE_RESPONSE: Final = re.compile(r"chaincode response (\d{1,9}), (.*)", re.DOTALL)
_CONTRACT_MESSAGE: Final = re.compile(r"([A-Z][A-Z0-9_]{0,63}): (.*)", re.DOTALL)
_MOST_FIELD_STARTS: Final = 16


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a chaincode answered instead of a result.

    Attributes:
        status: status of its response, 400 or more.
        message: the whole message.
        code: the contract's code, or None if the message has another form.
        reason: the contract's text without code and fields, or None.
        fields: the contract's fields.
    """

    status: int
    message: str
    code: str | None = None
    reason: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def bounded(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """`text`, or its beginning with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def printable(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """`text` on one line, without control characters, and bounded."""
    return "".join(character if character.isprintable() else " " for character in bounded(text, limit)).strip()


def chaincode_refusal(text: str) -> Refusal | None:
    """The chaincode's answer in a text of the gateway (internal/pkg/gateway/apiutils.go responseStatus), or None.

    The gateway writes `chaincode response STATUS, MESSAGE`; a contract of `sovchain.chaincode` makes the message
    `CODE: text {fields}`.
    """
    matched = _CHAINCODE_RESPONSE.search(text)
    if matched is None:
        return None
    status, message = int(matched[1]), matched[2]
    worded = _CONTRACT_MESSAGE.fullmatch(message)
    if worded is None:
        return Refusal(status, message)
    reason, fields = _split_fields(worded[2])
    return Refusal(status, message, worded[1], reason, fields)


def _split_fields(text: str) -> tuple[str, dict[str, Any]]:
    """Take the JSON object from the end of a contract's text, if there is one."""
    at = text.find(" {") if text.endswith("}") else -1
    for _ in range(_MOST_FIELD_STARTS):
        if at < 0:
            break
        try:
            value = json.loads(text[at + 1 :])
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return text[:at], value
        at = text.find(" {", at + 1)
    return text, {}
