"""The last step of a transaction: waiting for its commit, and what became of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import transaction_pb2
from google.protobuf.message import DecodeError

from sovchain.client._endpoint import CallFailed
from sovchain.client.errors import CommitRejected, CommitStatusError, OutcomeUnknown, RpcFailure
from sovchain.client.session import Session, seconds_left
from sovchain.protocol.crypto import sha256
from sovchain.protocol.reasons import reason_in

if TYPE_CHECKING:
    from sovchain.client._commitfeed import Notice

R_co = TypeVar("R_co", covariant=True)

RESEND_PAUSE_S: Final = 0.2
"""How long to wait before an unavailable gateway is asked again."""
_CODE_NAMES: Final = {number: name for name, number in transaction_pb2.TxValidationCode.items()}
_LEFT: Final = "_sovchain_unfinished"
_CHAIN_MOST: Final = 16
"""How far the causes of an error are followed."""
_REASON_TIMEOUT_S: Final = 5.0
"""How long to ask for more about a transaction that is known not to be valid."""
_DUPLICATE: Final = transaction_pb2.TxValidationCode.DUPLICATE_TXID


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """What became of a transaction on the peer that was asked.

    Attributes:
        transaction_id: the transaction.
        code: validation code (protos.TxValidationCode); 0 is VALID.
        code_name: its name.
        block_number: the block that holds it.
        reason: why it is not valid, where the peer says so, as the embedded ledger does; else "".
    """

    transaction_id: str
    code: int
    code_name: str
    block_number: int
    reason: str = ""

    @property
    def successful(self) -> bool:
        """Whether the transaction is valid, so that its writes are in the ledger's state."""
        return self.code == 0


@dataclass(frozen=True, slots=True)
class Submitted(Generic[R_co]):
    """A transaction that is committed and valid.

    Attributes:
        result: what the chaincode returned.
        transaction_id: the transaction.
        block_number: the block that holds it.
        code: validation code, 0 (VALID).
    """

    result: R_co = field(repr=False)
    transaction_id: str
    block_number: int
    code: int = 0


class Commit:
    """A transaction that was sent for ordering, by this client or another one."""

    def __init__(self, session: Session, transaction_id: str, *, request: bytes = b"", signature: bytes = b"") -> None:
        self._session = session
        self._id = transaction_id
        self._message = request
        self._signature = signature

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._id!r})"

    @property
    def transaction_id(self) -> str:
        """The transaction's id."""
        return self._id

    @property
    def channel_id(self) -> str:
        """The channel that it was sent on."""
        return self._session.channel_id

    @property
    def message(self) -> bytes:
        """What is signed to ask for the status (gateway.CommitStatusRequest). It does not go stale."""
        if not self._message:
            self._message = gateway_pb2.CommitStatusRequest(
                transaction_id=self._id,
                channel_id=self._session.channel_id,
                identity=self._session.identity.creator,
            ).SerializeToString()
        return self._message

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`, for signers that take digests."""
        return sha256(self.message)

    def to_bytes(self) -> bytes:
        """The commit for another process: `Gateway.load_commit`, or an official client (SignedCommitStatusRequest)."""
        return gateway_pb2.SignedCommitStatusRequest(
            request=self.message, signature=self._signature
        ).SerializeToString()

    def with_signature(self, signature: bytes) -> Commit:
        """Return the same commit with a signature over `message` that was made elsewhere. Raises SignatureRefused."""
        checked = self._session.identity.checked(self.message, signature)
        return Commit(self._session, self._id, request=self.message, signature=checked)

    async def status(self, *, timeout_s: float | None = None) -> CommitStatus:
        """Wait until the peer has committed the transaction, valid or not, and return its status.

        A peer cannot tell a transaction that is under way from one that never was: for both this waits for `timeout_s`
        (default: `Timeouts.commit_s`).

        Raises:
            OutcomeUnknown: the status did not come in time, or no gateway can be reached; ask again.
            CommitStatusError: the peer refuses to tell, or its reply is no commit status.
            SignatureMissing, SignatureRefused: the question could not be signed.
        """
        session = self._session
        started = time.monotonic()
        stop = started + (session.timeouts.commit_s if timeout_s is None else timeout_s)
        if not self._signature:
            self._signature = await session.identity.sign_async(self.message)
        request = self.to_bytes()
        while True:
            try:
                data, endpoint = await session.call("CommitStatus", request, max(stop - time.monotonic(), 0.001))
            except CallFailed as failed:
                failure = failed.failure
                # Asking changes nothing, so a gateway that went away is asked again until the time is up.
                if failure.status == "UNAVAILABLE" and time.monotonic() + RESEND_PAUSE_S < stop:
                    await asyncio.sleep(RESEND_PAUSE_S)
                    continue
                raise self._unknown(failure) from None
            answer = _commit_status(self._id, data)
            if answer is None:
                text = "the reply is not a commit status"
                raise self._unknown(RpcFailure("UNKNOWN", text, (), endpoint.address, time.monotonic() - started))
            session.committed(answer.block_number, endpoint)
            return answer

    def _unknown(self, failure: RpcFailure) -> OutcomeUnknown:
        passing = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED")
        kind = OutcomeUnknown if failure.status in passing else CommitStatusError
        return kind(self._id, self.channel_id, phase="commit", failure=failure, commit=self)


def leave(error: BaseException, commit: Commit) -> None:
    """Have a cancellation say which transaction was under way, for `unfinished` and in its traceback."""
    # It stays the very object: asyncio tells its own cancellations by their type.
    if not hasattr(error, _LEFT):
        setattr(error, _LEFT, commit)
        error.add_note(f"transaction {commit.transaction_id} was sent for ordering; whether it commits is not known")


def unfinished(error: BaseException) -> Commit | None:
    """The transaction that a cancelled or timed-out `submit` has sent, None if nothing was sent for ordering.

    Without it a caller that gives up (`task.cancel()`, `asyncio.timeout`) would not know what to ask for:

        try:
            async with asyncio.timeout(2):
                await contract.submit(...)
        except TimeoutError as error:
            if (commit := unfinished(error)) is not None:
                status = await commit.status()

    Args:
        error: the `CancelledError`, or what was raised from it.
    """
    seen: BaseException | None = error
    for _ in range(_CHAIN_MOST):
        if seen is None:
            return None
        found = getattr(seen, _LEFT, None)
        if isinstance(found, Commit):
            return found
        seen = seen.__cause__ or seen.__context__
    return None


def _commit_status(transaction_id: str, data: bytes) -> CommitStatus | None:
    """The status in a reply, None if it holds none.

    An empty message would read as VALID in block 0. That block holds the channel's first configuration alone, which has
    no transaction id, so no transaction that can be asked for is in it.
    """
    try:
        answer = gateway_pb2.CommitStatusResponse.FromString(data)
    except DecodeError:
        return None
    if answer.block_number == 0:
        return None
    reason = reason_in(answer)
    return CommitStatus(transaction_id, answer.result, code_name(answer.result), answer.block_number, reason)


class PendingCommit(Commit, Generic[R_co]):
    """A transaction of this client that was accepted for ordering, with the result that was endorsed."""

    def __init__(
        self, session: Session, transaction_id: str, result: R_co, end: float | None, notice: Notice | None = None
    ) -> None:
        super().__init__(session, transaction_id)
        self._result = result
        self._end = end
        self._notice = notice

    @property
    def result(self) -> R_co:
        """What the chaincode returned. It counts only once the transaction has committed."""
        return self._result

    async def status(self, *, timeout_s: float | None = None) -> CommitStatus:
        """As `Commit.status`; where the channel's blocks are listened to anyway, without a call of its own."""
        notice, session = self._notice, self._session
        wait_s = seconds_left(session.timeouts.commit_s, self._end) if timeout_s is None else timeout_s
        started = time.monotonic()
        if notice is not None:
            try:
                told = await notice.wait(wait_s)
            except TimeoutError:
                waited = time.monotonic() - started
                text = "its block has not come"
                raise self._unknown(RpcFailure("DEADLINE_EXCEEDED", text, (), notice.address, waited)) from None
            # Of a transaction id that comes again only the ledger knows what became of the first one.
            if told is not None and told.code != _DUPLICATE:
                status = CommitStatus(self._id, told.code, code_name(told.code), told.block_number)
                return await self._with_reason(status) if told.has_reason and not status.successful else status
        return await super().status(timeout_s=max(wait_s - (time.monotonic() - started), 0.001))

    async def _with_reason(self, status: CommitStatus) -> CommitStatus:
        """The status of a transaction that is not valid, with what the peer says of it beyond the code, if anything."""
        try:
            asked = await super().status(timeout_s=_REASON_TIMEOUT_S)
        except (OutcomeUnknown, CommitStatusError):
            return status
        return replace(status, reason=asked.reason) if asked.code == status.code else status

    async def committed(self, *, timeout_s: float | None = None) -> Submitted[R_co]:
        """Wait for the commit and return it.

        Raises:
            CommitRejected: the transaction is marked invalid.
            OutcomeUnknown, CommitStatusError: as for `status`.
        """
        status = await self.status(timeout_s=timeout_s)
        if not status.successful:
            raise CommitRejected(
                status.code,
                status.code_name,
                transaction_id=self._id,
                block_number=status.block_number,
                reason=status.reason,
            )
        return Submitted(self._result, self._id, status.block_number, status.code)

    def stop_listening(self) -> None:
        """Have the status asked for in place of being listened for: its block may have gone by."""
        self.discard()
        self._notice = None

    def discard(self) -> None:
        """Stop listening for the commit: the transaction was not sent after all, or nobody waits for it."""
        if self._notice is not None:
            self._notice.discard()


def code_name(code: int) -> str:
    """Fabric's name of a validation code (protos.TxValidationCode); the number as text for one it does not know."""
    return _CODE_NAMES.get(code) or str(code)  # type: ignore[call-overload]  # the table's keys are enum numbers
