"""Every error of the client.

    FabricError
    ├── ProfileError                a connection profile cannot be used
    │   ├── ProfileNotFound
    │   ├── ProfileSyntaxError      with line and column
    │   └── ProfileContentError     with the field that is missing or wrong
    ├── IdentityError               a certificate or key cannot be used
    │   ├── IdentityNotFound
    │   ├── KeyMismatch
    │   ├── CertificateExpired      or not valid yet
    │   ├── SignatureMissing        nothing signs: sign elsewhere
    │   ├── SignatureRefused        a signer gave no good signature
    │   └── HsmError                an HSM, its token or its key cannot be used
    ├── ConnectError                no gateway can be reached, or none can be trusted
    ├── GatewayClosed               used after the end of its `async with` block
    ├── GatewayError                a peer answered a call with an error, or not in time
    │   ├── EvaluateError           nothing was written
    │   ├── EndorseError            nothing was sent for ordering
    │   ├── SubmitError             the ordering service refused; the transaction will not commit
    │   └── EventsError             a stream of chaincode events ended
    ├── DeliverError                a stream of blocks ended with a status
    │   ├── DeliverForbidden
    │   ├── DeliverNotFound
    │   ├── DeliverBadRequest
    │   └── DeliverUnavailable
    ├── UnexpectedReply             a peer's reply is malformed, or not an answer to what was asked
    ├── MalformedStep               bytes of another process are no proposal, transaction or request
    ├── MetadataError               a chaincode's description of itself cannot be used
    ├── TrustError                  what a client knows of a channel by itself cannot be used
    ├── EndorsementsInsufficient    endorsed by others than the channel's policies ask for; it was not signed
    ├── CommitRejected              ordered, and marked invalid by the peers
    ├── OutcomeUnknown              sent for ordering; whether it committed is not known
    │   └── CommitStatusError       the peer refused to say, or its answer is none
    ├── JournalError                the journal of submits cannot be used
    ├── IdempotencyKeyReused        the key stands for another request
    └── CheckpointError             a checkpoint cannot be read or written
        └── CheckpointGone          the ledger has no such place, or not any more

A submit ends in one of three ways: it returns (committed), it raises something under which nothing was or will be
committed, or it raises `OutcomeUnknown`, whose `commit` asks again. Every error can be pickled. None holds a payload,
an argument, transient data or a key; the texts of peers and contracts are repeated with their length bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sovchain.client._text import chaincode_refusal, printable

if TYPE_CHECKING:
    from sovchain.client.transaction import Commit

_DETAILS_IN_TEXT: Final = 4
_DETAIL_LENGTH: Final = 400


class FabricError(Exception):
    """Base of every error of `sovchain.client`."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructors take more than the text, and a connection cannot be pickled.
        state = {name: value for name, value in self.__dict__.items() if name != "commit"}
        return _restore, (type(self), self.args, state)


def _restore(kind: type[FabricError], arguments: tuple[Any, ...], state: Mapping[str, Any]) -> FabricError:
    error = kind.__new__(kind, *arguments)
    if issubclass(kind, OutcomeUnknown):
        error.__dict__["commit"] = None
    error.__dict__.update(state)
    return error


class ProfileError(FabricError):
    """A connection profile cannot be used. `source` is its path, or `<mapping>`."""

    def __init__(self, text: str, *, source: str) -> None:
        super().__init__(f"connection profile {source}: {text}")
        self.source = source


class ProfileNotFound(ProfileError):
    """There is no file of that name, or it cannot be read."""


class ProfileSyntaxError(ProfileError):
    """The file is neither JSON nor YAML. `line` and `column` count from 1; 0 where the whole file is meant."""

    def __init__(self, text: str, *, source: str, line: int = 0, column: int = 0) -> None:
        place = f"line {line}, column {column}: " if line else ""
        super().__init__(f"{place}{text}", source=source)
        self.line = line
        self.column = column


class ProfileContentError(ProfileError):
    """A field is missing or wrong. `field` is its path, such as `client.organization`."""

    def __init__(self, field: str, text: str, *, source: str) -> None:
        super().__init__(f"{field} {text}", source=source)
        self.field = field


class IdentityError(FabricError):
    """A certificate or a key cannot be used. `source` says where it was read, empty for bytes."""

    def __init__(self, text: str, *, source: str = "") -> None:
        super().__init__(f"{source}: {text}" if source else text)
        self.source = source


class IdentityNotFound(IdentityError):
    """A file or folder of the identity is missing or cannot be read."""


class KeyMismatch(IdentityError):
    """The private key does not belong to the certificate."""


class CertificateExpired(IdentityError):
    """The certificate is not valid now: it has expired, or its time has not come. The times are in UTC."""

    def __init__(self, subject: str, not_before: datetime, not_after: datetime, now: datetime) -> None:
        if now > not_after:
            what, do = f"expired at {not_after:%Y-%m-%d %H:%M:%S} UTC", "enroll again and use the new certificate"
        else:
            what, do = f"is not valid before {not_before:%Y-%m-%d %H:%M:%S} UTC", "check this machine's clock"
        super().__init__(f"the certificate of {printable(subject, 200)} {what}: {do}")
        self.not_before = not_before
        self.not_after = not_after


class SignatureMissing(IdentityError):
    """A step was taken without a signature by an identity that has no key. Nothing was sent."""

    def __init__(self) -> None:
        super().__init__("the identity cannot sign: sign `message` elsewhere and go on with `with_signature`")


class SignatureRefused(IdentityError):
    """A signer failed, took too long, or its signature is not good under the certificate. Nothing was sent."""


class HsmError(IdentityError):
    """An HSM's library, token or key cannot be used. The PIN is never part of the text."""


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """What one node said when a call failed (gateway.ErrorDetail).

    Attributes:
        address: the node's address as the gateway knows it.
        msp_id: the organisation of the node.
        message: its text.
    """

    address: str
    msp_id: str
    message: str


@dataclass(frozen=True, slots=True)
class RpcFailure:
    """How a call to a gateway failed.

    Attributes:
        status: name of the gRPC status code, such as `FAILED_PRECONDITION`.
        message: the text of the gRPC status.
        details: what each endorser or ordering node said, if the gateway passed it on.
        endpoint: "host:port" of the gateway that was asked last.
        elapsed_s: seconds from the start of the call to its end.
        unsent: whether no gateway can have seen the call: there was no connection.
    """

    status: str
    message: str
    details: tuple[ErrorDetail, ...] = ()
    endpoint: str = ""
    elapsed_s: float = 0.0
    unsent: bool = False


class ConnectError(FabricError):
    """No gateway can be reached, or none can be trusted.

    Attributes:
        endpoint: "host:port" of the gateway, of the first one where there are several.
        reason: one word: `refused`, `unresolved`, `timeout`, `unreachable`, `untrusted`, `wrong-name`, `expired`,
            `not-tls`, `client-certificate` or `failed`.
        reasons: the same for each endpoint.
    """

    def __init__(self, text: str, *, endpoint: str, reason: str, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.endpoint = endpoint
        self.reason = reason
        self.reasons: Mapping[str, str] = dict(reasons or {endpoint: reason})


class GatewayClosed(FabricError):
    """The gateway was used after it had been closed."""

    def __init__(self) -> None:
        super().__init__("the gateway is closed: use it inside its `async with` block")


class GatewayError(FabricError):
    """A peer answered a call with an error, or not in time.

    Attributes:
        failure: status, text and details as they came.
        transaction_id: the transaction that the call was about, else empty.
        chaincode_status: status of the chaincode's response, if a chaincode refused; else None.
        chaincode_message: its message, if a chaincode refused; else None.
        code: the code of a contract's refusal (`CODE: text {fields}`), such as `E_NOT_CUSTODIAN`; else None.
        reason: the text of a contract's refusal without code and fields; else None.
        fields: the fields of a contract's refusal.
    """

    def __init__(self, call: str, failure: RpcFailure, *, transaction_id: str = "") -> None:
        refusal = next(filter(None, map(chaincode_refusal, _texts(failure))), None)
        if refusal is None:
            super().__init__(f"{call}: {describe_failure(failure)}")
        elif refusal.code is None:
            super().__init__(f"{call}: the chaincode answered {refusal.status}: {printable(refusal.message)}")
        else:
            super().__init__(f"{call}: the contract refused: {printable(refusal.message)}")
        self.failure = failure
        self.transaction_id = transaction_id
        self.chaincode_status: int | None = None if refusal is None else refusal.status
        self.chaincode_message: str | None = None if refusal is None else refusal.message
        self.code: str | None = None if refusal is None else refusal.code
        self.reason: str | None = None if refusal is None else refusal.reason
        self.fields: Mapping[str, Any] = {} if refusal is None else refusal.fields

    @property
    def status(self) -> str:
        """Name of the gRPC status code."""
        return self.failure.status

    @property
    def details(self) -> tuple[ErrorDetail, ...]:
        """What each endorser or ordering node said."""
        return self.failure.details

    @property
    def timed_out(self) -> bool:
        """Whether the call's deadline passed."""
        return self.failure.status == "DEADLINE_EXCEEDED"


class EvaluateError(GatewayError):
    """An evaluation failed. Nothing was written."""


class EndorseError(GatewayError):
    """A proposal was not endorsed. Nothing was sent for ordering, so it may be repeated."""


class SubmitError(GatewayError):
    """The transaction was refused before or by the ordering service, and will not commit."""


class EventsError(GatewayError):
    """A stream of chaincode events was refused or ended, and was not to be taken up again."""


class DeliverError(FabricError):
    """A stream of blocks was refused or ended.

    Attributes:
        channel_id: the channel.
        status: the number that the peer sent (common.Status), 0 if the stream broke without one.
        endpoint: "host:port" of the peer.
    """

    def __init__(self, text: str, *, channel_id: str, status: int, endpoint: str) -> None:
        super().__init__(text)
        self.channel_id = channel_id
        self.status = status
        self.endpoint = endpoint


class DeliverForbidden(DeliverError):
    """The identity may not read the channel's blocks, or its certificate expired during the stream (status 403)."""


class DeliverNotFound(DeliverError):
    """The peer has not joined the channel, or has no such block (status 404)."""


class DeliverBadRequest(DeliverError):
    """The peer could not use the request (status 400): clocks apart, wrong TLS binding, or an impossible range."""


class DeliverUnavailable(DeliverError):
    """The peer cannot deliver at present (status 503), or the stream broke."""


class UnexpectedReply(FabricError):
    """A peer's reply is malformed, or is no answer to what was asked. Nothing was signed because of it.

    Attributes:
        call: the call that it was the reply to, such as `endorse`.
        endpoint: "host:port" of the gateway.
        transaction_id: the transaction that the call was about, else empty.
    """

    def __init__(self, call: str, text: str, *, endpoint: str = "", transaction_id: str = "") -> None:
        super().__init__(f"{call}: {endpoint or 'the gateway'} sent a reply that cannot be used: {text}")
        self.call = call
        self.endpoint = endpoint
        self.transaction_id = transaction_id


class MalformedStep(FabricError):
    """The bytes of a step that another process took cannot be used. Nothing was sent.

    Attributes:
        step: `proposal`, `transaction`, `commit`, `events request` or `blocks request`.
        reason: what is wrong with them.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {printable(reason)}")
        self.step = step
        self.reason = reason


class MetadataError(FabricError):
    """What a chaincode says of itself (`org.hyperledger.fabric:GetMetadata`) cannot be made a client of."""

    def __init__(self, text: str) -> None:
        super().__init__(f"contract metadata: {printable(text)}")


class TrustError(FabricError):
    """A channel configuration, a definition or a policy that endorsements are to be judged by cannot be used."""

    def __init__(self, text: str) -> None:
        super().__init__(f"endorsements cannot be judged: {printable(text)}")


class EndorsementsInsufficient(FabricError):
    """The endorsements that a gateway collected do not satisfy the channel's policies. The transaction was not signed.

    Attributes:
        transaction_id: the transaction.
        reason: which policy was not met, and who endorsed.
    """

    def __init__(self, reason: str, *, transaction_id: str) -> None:
        super().__init__(f"transaction {transaction_id} was not signed: {printable(reason)}")
        self.transaction_id = transaction_id
        self.reason = reason


class CommitRejected(FabricError):
    """The transaction is on the ledger, marked invalid: it changed nothing and never will.

    Attributes:
        code: validation code (protos.TxValidationCode), such as 11.
        code_name: its name, such as `MVCC_READ_CONFLICT`.
        transaction_id: the transaction.
        block_number: the block that holds it.
        reason: which clause of which policy was not met, or which key another transaction wrote; only the embedded
            ledger says so, else it is "".
    """

    def __init__(self, code: int, code_name: str, *, transaction_id: str, block_number: int, reason: str = "") -> None:
        hint = _REMEDIES.get(code_name, "see the peers' logs for the reason")
        because = f" because {reason}" if reason else ""
        super().__init__(
            f"transaction {transaction_id} is in block {block_number} and marked {code_name} ({code}){because},"
            f" so that it changed nothing: {hint}"
        )
        self.reason = reason
        self.code = code
        self.code_name = code_name
        self.transaction_id = transaction_id
        self.block_number = block_number


class OutcomeUnknown(FabricError):
    """The transaction was sent for ordering; whether it was or will be committed is not known.

    Do not send its content again under a new transaction id before `commit` has told.

    Attributes:
        transaction_id: the transaction.
        channel_id: its channel.
        phase: `submit` if the answer to Submit is missing, `commit` if the commit status is.
        failure: what went wrong with the last call.
        commit: asks again (`await error.commit.status()`); None after pickling: use `network.commit(transaction_id)`.
    """

    def __init__(
        self, transaction_id: str, channel_id: str, *, phase: str, failure: RpcFailure, commit: Commit | None = None
    ) -> None:
        doing = "it was sent for ordering" if phase == "submit" else "its commit status was asked for"
        super().__init__(
            f"the outcome of transaction {transaction_id} on channel {channel_id} is unknown: {doing},"
            f" and {describe_failure(failure)}; ask for its status before sending anything like it again"
        )
        self.transaction_id = transaction_id
        self.channel_id = channel_id
        self.phase = phase
        self.failure = failure
        self.commit = commit


class CommitStatusError(OutcomeUnknown):
    """The peer refused to tell the commit status, or sent none, so that the outcome is unknown. `failure` says why."""


class CheckpointError(FabricError):
    """A checkpoint cannot be read or written. `source` is its path."""

    def __init__(self, text: str, *, source: str) -> None:
        super().__init__(f"checkpoint {source}: {text}")
        self.source = source


class CheckpointGone(CheckpointError):
    """The ledger has no such place: its channel was founded anew, or the position is of another channel.

    Attributes:
        block_number: the block of the position.
        transaction_id: the transaction of the position, else empty.
        height: number of blocks of the peer that was asked.
    """

    def __init__(self, text: str, *, block_number: int, transaction_id: str, height: int) -> None:
        super().__init__(f"{text}: remove the checkpoint to start anew", source=f"block {block_number}")
        self.block_number = block_number
        self.transaction_id = transaction_id
        self.height = height


class JournalError(FabricError):
    """The journal of submits cannot be opened, read or written. `source` is its path. Nothing was sent because of it."""

    def __init__(self, text: str, *, source: str) -> None:
        super().__init__(f"journal {source}: {text}")
        self.source = source


class IdempotencyKeyReused(FabricError):
    """The idempotency key was used for another request: other chaincode, arguments, transient data or channel.

    Attributes:
        key: the key.
        transaction_id: the transaction that it stands for.
    """

    def __init__(self, key: str, transaction_id: str) -> None:
        super().__init__(
            f"idempotency key {printable(key, 200)!r} stands for another request (transaction {transaction_id}):"
            " use a new key for a new request"
        )
        self.key = key
        self.transaction_id = transaction_id


def describe_failure(failure: RpcFailure) -> str:
    """Say in one line what went wrong with a call and, where that is known, what to do."""
    if failure.status == "DEADLINE_EXCEEDED":
        text = printable(failure.message)
        more = f" ({text})" if text and text.lower() != "deadline exceeded" else ""
        return f"{failure.endpoint} gave no answer within {failure.elapsed_s:.1f} s{more}"
    parts = [f"{failure.status} from {failure.endpoint or 'the gateway'}: {printable(failure.message)}"]
    parts += [
        f"{printable(detail.address, 100)} ({printable(detail.msp_id, 100)}): {printable(detail.message, _DETAIL_LENGTH)}"
        for detail in failure.details[:_DETAILS_IN_TEXT]
    ]
    if len(failure.details) > _DETAILS_IN_TEXT:
        parts.append(f"{len(failure.details) - _DETAILS_IN_TEXT} more")
    remedy = _STATUS_REMEDIES.get(failure.status)
    return "; ".join(parts if remedy is None else [*parts, remedy])


def _texts(failure: RpcFailure) -> list[str]:
    return [*(detail.message for detail in failure.details), failure.message]


_STATUS_REMEDIES: Final[Mapping[str, str]] = {
    "PERMISSION_DENIED": "use an identity that the channel's policies accept",
    "RESOURCE_EXHAUSTED": "send less in one message, or fewer calls at a time",
    "UNIMPLEMENTED": "check that the address is that of a Fabric peer of version 2.4 or later",
}

_REMEDIES: Final[Mapping[str, str]] = {
    "MVCC_READ_CONFLICT": "another transaction changed a key that it had read; submit it again",
    "PHANTOM_READ_CONFLICT": "another transaction changed a range that it had read; submit it again",
    "ENDORSEMENT_POLICY_FAILURE": "its endorsers do not satisfy the endorsement policy; name others, or let the gateway choose",
    "BAD_CREATOR_SIGNATURE": "the channel does not accept the identity; check its certificate and its organisation",
    "EXPIRED_CHAINCODE": "the chaincode has no definition on the channel any more",
    "CHAINCODE_VERSION_CONFLICT": "the chaincode was upgraded meanwhile; submit it again",
    "DUPLICATE_TXID": "a transaction with this id was committed before",
}
