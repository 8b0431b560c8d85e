"""The second step of a transaction: endorsed, ready to be signed and handed to the ordering service."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Generic, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2

from sovchain.client._endpoint import CallFailed
from sovchain.client.commit import RESEND_PAUSE_S, Commit, CommitStatus, PendingCommit, Submitted, code_name, leave
from sovchain.client.errors import GatewayClosed, OutcomeUnknown, RpcFailure, SubmitError
from sovchain.client.session import Session, seconds_left
from sovchain.protocol.crypto import sha256

__all__ = ["Commit", "CommitStatus", "PendingCommit", "Submitted", "Transaction", "code_name"]

R_co = TypeVar("R_co", covariant=True)

_ALREADY_THERE: Final = ("request already processed", "request already exists")
_NO_ANSWER: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN"})


class Transaction(Generic[R_co]):
    """An endorsed transaction. It is signed when it is submitted, or before that with `with_signature`."""

    def __init__(
        self,
        session: Session,
        transaction_id: str,
        payload: bytes,
        result: R_co,
        *,
        signature: bytes = b"",
        end: float | None = None,
    ) -> None:
        self._session = session
        self._id = transaction_id
        self._payload = payload
        self._result = result
        self._signature = signature
        self._end = end
        self._was_sent = False

    def __repr__(self) -> str:
        return f"Transaction({self._id!r})"

    @property
    def transaction_id(self) -> str:
        """The transaction's id."""
        return self._id

    @property
    def result(self) -> R_co:
        """What the chaincode returned. It counts only once the transaction has committed."""
        return self._result

    @property
    def message(self) -> bytes:
        """What is signed: the payload of the envelope (common.Payload)."""
        return self._payload

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`, for signers that take digests."""
        return sha256(self._payload)

    @property
    def envelope_bytes(self) -> bytes:
        """The transaction as it goes to the ordering service (common.Envelope); signed once it has been submitted."""
        return self._envelope().SerializeToString()

    def to_bytes(self) -> bytes:
        """The transaction for another process: `Gateway.load_transaction`, or an official client.

        The form is gateway.PreparedTransaction.
        """
        return gateway_pb2.PreparedTransaction(transaction_id=self._id, envelope=self._envelope()).SerializeToString()

    def with_signature(self, signature: bytes) -> Transaction[R_co]:
        """Return the same transaction with a signature over `message` made elsewhere. Raises SignatureRefused."""
        checked = self._session.identity.checked(self._payload, signature)
        return Transaction(self._session, self._id, self._payload, self._result, signature=checked, end=self._end)

    def _envelope(self) -> common_pb2.Envelope:
        return common_pb2.Envelope(payload=self._payload, signature=self._signature)

    async def sign(self) -> None:
        """Sign it, if it is not. Raises SignatureMissing, SignatureRefused."""
        if not self._signature:
            self._signature = await self._session.identity.sign_async(self._payload)

    async def submit(self) -> PendingCommit[R_co]:
        """Hand the transaction to the ordering service. While the gateway is unavailable the same bytes are sent again.

        Raises:
            SubmitError: it was refused and will not commit.
            OutcomeUnknown: no answer came in time.
            SignatureMissing, SignatureRefused: it could not be signed, and was not sent.
            CancelledError: `unfinished` says what was under way.
        """
        session = self._session
        await self.sign()
        request = gateway_pb2.SubmitRequest(
            transaction_id=self._id, channel_id=session.channel_id, prepared_transaction=self._envelope()
        ).SerializeToString()
        # One that was sent before may be in a block that has gone by.
        feed = session.state.feed if session.identity.can_sign and not self._was_sent else None
        self._was_sent = True
        notice = None if feed is None else feed.expect(self._id)
        pending = PendingCommit(session, self._id, self._result, self._end, notice)
        try:
            await self._send(request, pending)
        except OutcomeUnknown:
            raise  # It may commit yet, and its `commit` is asked for that.
        except asyncio.CancelledError as cancelled:
            leave(cancelled, Commit(session, self._id))
            pending.discard()
            raise
        except BaseException:
            pending.discard()
            raise
        return pending

    async def _send(self, request: bytes, pending: PendingCommit[R_co]) -> None:
        session = self._session
        stop = time.monotonic() + seconds_left(session.timeouts.submit_s, self._end)
        failure: RpcFailure | None = None
        while True:
            try:
                await session.call("Submit", request, max(stop - time.monotonic(), 0.001))
                return
            except GatewayClosed:
                if failure is None:
                    raise
                # Closed between two attempts: the first one may have come through.
                raise self._unknown(failure, pending) from None
            except CallFailed as failed:
                # Running out of time after a refusal says less than the refusal.
                sent_before = failure is not None
                if failure is None or failed.failure.status != "DEADLINE_EXCEEDED":
                    failure = failed.failure
                if _has_it_already(failure):
                    pending.stop_listening()
                    return
                # The same bytes have the same transaction id: a second copy in a block is void, so sending again is safe.
                if failed.failure.status == "UNAVAILABLE" and time.monotonic() + RESEND_PAUSE_S < stop:
                    await asyncio.sleep(RESEND_PAUSE_S)
                    continue
                # A refusal is final only if no earlier attempt can have come through.
                if failure.status in _NO_ANSWER or sent_before:
                    raise self._unknown(failure, pending) from None
                raise SubmitError("submit", failure, transaction_id=self._id) from None

    def _unknown(self, failure: RpcFailure, pending: PendingCommit[R_co]) -> OutcomeUnknown:
        return OutcomeUnknown(self._id, self._session.channel_id, phase="submit", failure=failure, commit=pending)


def _has_it_already(failure: RpcFailure) -> bool:
    """Whether ordering nodes refused a transaction because they have it.

    Under BFT a node takes the same bytes only once (Submit of SmartBFT's request pool), and the gateway, which asks for a
    quorum, reports UNAVAILABLE (internal/pkg/gateway/submit.go submitBFT).
    """
    return failure.status == "UNAVAILABLE" and any(
        text in detail.message for detail in failure.details for text in _ALREADY_THERE
    )
