"""The steps of a transaction, one object for each: proposal, endorsed transaction, commit.

`Contract.evaluate` and `Contract.submit` take these steps in one go.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from sovchain.chaincode.errors import ResultError
from sovchain.client._rpc import CallFailed, Connection, Endpoint
from sovchain.client.errors import (
    CommitRejected,
    CommitStatusError,
    ConnectError,
    EndorseError,
    EvaluateError,
    GatewayClosed,
    GatewayError,
    OutcomeUnknown,
    RpcFailure,
    SubmitError,
    UnexpectedReply,
)
from sovchain.client.identity import SigningIdentity
from sovchain.client.options import Timeouts
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.proposals import Invocation, build_proposal, parse_signed_proposal
from sovchain.protocol.transactions import ParsedTransaction, parse_transaction

R_co = TypeVar("R_co", covariant=True)

RESEND_PAUSE_S = 0.2
"""How long to wait before the same transaction is sent to an unavailable gateway again."""
_ALREADY_THERE = ("request already processed", "request already exists")
NONCE_BYTES = 24
"""Length of the nonce that the official clients use."""


@dataclass(frozen=True, slots=True)
class Session:
    """What all steps of a call need: who signs, over which connection, how long, and who shall endorse.

    `deadline` is the end of the whole call on the clock of `time.monotonic`, None for the steps' own deadlines alone.
    """

    connection: Connection
    identity: SigningIdentity
    channel_id: str
    timeouts: Timeouts
    organizations: tuple[str, ...] = ()
    timeout_s: float | None = None

    def end(self) -> float | None:
        """When a call that starts now must have ended."""
        return None if self.timeout_s is None else time.monotonic() + self.timeout_s


def _left(step_s: float, end: float | None) -> float:
    """Seconds for a step: its own deadline, or what is left of the call's."""
    return step_s if end is None else max(min(step_s, end - time.monotonic()), 0.001)


def _public_error(
    kind: type[GatewayError], call: str, failed: CallFailed, transaction_id: str
) -> GatewayError | ConnectError:
    """The public error for a failed call: a gateway that cannot be reached is another matter than one that refuses."""
    failure = failed.failure
    if failure.status == "UNAVAILABLE" and not failure.details and "failed to connect" in failure.message:
        return ConnectError(
            f"{failure.endpoint} cannot be reached any more: check that the network is up",
            endpoint=failure.endpoint,
            reason="unreachable",
        )
    return kind(call, failure, transaction_id=transaction_id)


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """What became of a transaction on the peer that was asked.

    Attributes:
        transaction_id: the transaction.
        code: validation code (protos.TxValidationCode); 0 is VALID.
        code_name: its name.
        block_number: the block that holds it.
    """

    transaction_id: str
    code: int
    code_name: str
    block_number: int

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


class Proposal(Generic[R_co]):
    """A signed proposal. Made by `Contract.proposal`; its transaction id is known before anything is sent."""

    def __init__(self, session: Session, invocation: Invocation, decode: Callable[[bytes], R_co]) -> None:
        self._session = session
        self._decode = decode
        self._end = session.end()
        self._id, proposal = build_proposal(
            invocation,
            creator=session.identity.creator,
            nonce=secrets.token_bytes(NONCE_BYTES),
            timestamp=datetime.now(UTC),
        )
        self._bytes = proposal.SerializeToString()
        self._signed = proposal_pb2.SignedProposal(
            proposal_bytes=self._bytes, signature=session.identity.sign(self._bytes)
        )

    def __repr__(self) -> str:
        return f"Proposal({self._id!r})"

    @property
    def transaction_id(self) -> str:
        """The id that the transaction has if it is submitted."""
        return self._id

    @property
    def proposal_bytes(self) -> bytes:
        """The serialised proposal (protos.Proposal) that is signed. It holds arguments and transient data."""
        return self._bytes

    async def evaluate(self) -> R_co:
        """Have one peer run the proposal; return the result. Nothing is written.

        Raises:
            EvaluateError, ConnectError, UnexpectedReply.
        """
        session = self._session
        request = gateway_pb2.EvaluateRequest(
            transaction_id=self._id,
            channel_id=session.channel_id,
            proposed_transaction=self._signed,
            target_organizations=session.organizations,
        ).SerializeToString()
        try:
            data, endpoint = await session.connection.call(
                "Evaluate", request, _left(session.timeouts.evaluate_s, self._end)
            )
        except CallFailed as failed:
            raise _public_error(EvaluateError, "evaluate", failed, self._id) from None
        try:
            reply = gateway_pb2.EvaluateResponse.FromString(data)
            if not reply.HasField("result"):
                raise self._unexpected("evaluate", "it holds no result", endpoint)
            return self._decode(reply.result.payload)
        except (DecodeError, ResultError, ValueError) as error:
            raise self._unexpected("evaluate", f"the result is not of the declared type ({error})", endpoint) from error

    async def endorse(self) -> Transaction[R_co]:
        """Have as many organisations endorse as the policy asks for.

        The transaction that the gateway prepares is checked before it is signed: its headers, its input and the
        proposal hash that the endorsers signed must be those of this proposal.

        Raises:
            EndorseError, ConnectError, UnexpectedReply.
        """
        session = self._session
        request = gateway_pb2.EndorseRequest(
            transaction_id=self._id,
            channel_id=session.channel_id,
            proposed_transaction=self._signed,
            endorsing_organizations=session.organizations,
        ).SerializeToString()
        try:
            data, endpoint = await session.connection.call(
                "Endorse", request, _left(session.timeouts.endorse_s, self._end)
            )
        except CallFailed as failed:
            raise _public_error(EndorseError, "endorse", failed, self._id) from None
        try:
            envelope = gateway_pb2.EndorseResponse.FromString(data).prepared_transaction
            parsed = parse_transaction(envelope.SerializeToString())
        except (DecodeError, ProtocolError) as error:
            raise self._unexpected("endorse", f"the prepared transaction cannot be used ({error})", endpoint) from error
        self._check(envelope, parsed, endpoint)
        try:
            result = self._decode(parsed.response.payload)
        except (DecodeError, ResultError, ValueError) as error:
            raise self._unexpected("endorse", f"the result is not of the declared type ({error})", endpoint) from error
        envelope.signature = session.identity.sign(envelope.payload)
        return Transaction(session, self._id, envelope, result, self._end)

    def _check(self, envelope: common_pb2.Envelope, parsed: ParsedTransaction, endpoint: Endpoint) -> None:
        """A gateway is not trusted: what it prepared must be what was proposed (internal/pkg/gateway/endorse.go)."""
        own = parse_signed_proposal(self._signed)
        header = common_pb2.Payload.FromString(envelope.payload).header
        proposal = proposal_pb2.Proposal.FromString(self._bytes)
        if parsed.is_config:
            raise self._unexpected("endorse", "it prepared a configuration; it was not signed", endpoint)
        hashed = proposal_response_pb2.ProposalResponsePayload.FromString(parsed.response_payload).proposal_hash
        differs = [
            what
            for what, same in (
                ("header", header.SerializeToString() == proposal.header),
                ("transaction id", parsed.transaction_id == self._id),
                ("channel", parsed.channel_id == self._session.channel_id),
                ("chaincode", parsed.chaincode == own.chaincode),
                ("input", parsed.args == tuple(own.input.args)),
                ("proposal hash", hashed == own.proposal_hash),
            )
            if not same
        ]
        if not parsed.endorsements:
            raise self._unexpected("endorse", "nobody endorsed the transaction; it was not signed", endpoint)
        if differs:
            text = f"it prepared another transaction than was proposed ({', '.join(differs)}); it was not signed"
            raise self._unexpected("endorse", text, endpoint)

    def _unexpected(self, call: str, text: str, endpoint: Endpoint) -> UnexpectedReply:
        return UnexpectedReply(call, text, endpoint=endpoint.address, transaction_id=self._id)


class Transaction(Generic[R_co]):
    """An endorsed transaction, signed and ready to be submitted."""

    def __init__(
        self, session: Session, transaction_id: str, envelope: common_pb2.Envelope, result: R_co, end: float | None
    ) -> None:
        self._session = session
        self._id = transaction_id
        self._envelope = envelope
        self._result = result
        self._end = end

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
    def envelope_bytes(self) -> bytes:
        """The signed transaction (common.Envelope)."""
        return self._envelope.SerializeToString()

    async def submit(self) -> PendingCommit[R_co]:
        """Hand the transaction to the ordering service. While the gateway is unavailable the same bytes are sent again.

        Raises:
            SubmitError: it was refused and will not commit.
            OutcomeUnknown: no answer came in time.
        """
        session = self._session
        request = gateway_pb2.SubmitRequest(
            transaction_id=self._id, channel_id=session.channel_id, prepared_transaction=self._envelope
        ).SerializeToString()
        pending = PendingCommit(session, self._id, self._result, self._end)
        stop = time.monotonic() + _left(session.timeouts.submit_s, self._end)
        failure: RpcFailure | None = None
        while True:
            try:
                await session.connection.call("Submit", request, max(stop - time.monotonic(), 0.001))
            except GatewayClosed:
                if failure is None:
                    raise
                # Closed between two attempts: the first one may have come through.
                raise OutcomeUnknown(
                    self._id, session.channel_id, phase="submit", failure=failure, commit=pending
                ) from None
            except CallFailed as failed:
                # Running out of time after a refusal says less than the refusal.
                if failure is None or failed.failure.status != "DEADLINE_EXCEEDED":
                    failure = failed.failure
                if _has_it_already(failure):
                    return pending
                # The same bytes have the same transaction id: a second copy in a block is void, so sending again is safe.
                if failed.failure.status == "UNAVAILABLE" and time.monotonic() + RESEND_PAUSE_S < stop:
                    await asyncio.sleep(RESEND_PAUSE_S)
                    continue
                if failure.status in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN"):
                    raise OutcomeUnknown(
                        self._id, session.channel_id, phase="submit", failure=failure, commit=pending
                    ) from None
                raise SubmitError("submit", failure, transaction_id=self._id) from None
            return pending


def _has_it_already(failure: RpcFailure) -> bool:
    """Whether ordering nodes refused a transaction because they have it.

    Under BFT a node takes the same bytes only once (Submit of SmartBFT's request pool), and the gateway, which asks for a
    quorum, reports UNAVAILABLE (internal/pkg/gateway/submit.go submitBFT).
    """
    return failure.status == "UNAVAILABLE" and any(
        text in detail.message for detail in failure.details for text in _ALREADY_THERE
    )


class Commit:
    """A transaction that was sent for ordering, by this client or another one."""

    def __init__(self, session: Session, transaction_id: str) -> None:
        self._session = session
        self._id = transaction_id

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

    async def status(self, *, timeout_s: float | None = None) -> CommitStatus:
        """Wait until the peer has committed the transaction, valid or not, and return its status.

        A peer cannot tell a transaction that is under way from one that never was: for both this waits for `timeout_s`
        (default: `Timeouts.commit_s`).

        Raises:
            OutcomeUnknown: the status did not come in time, or no gateway can be reached; ask again.
            CommitStatusError: the peer refuses to tell, or its reply is no commit status.
        """
        session = self._session
        inner = gateway_pb2.CommitStatusRequest(
            transaction_id=self._id, channel_id=session.channel_id, identity=session.identity.creator
        ).SerializeToString()
        request = gateway_pb2.SignedCommitStatusRequest(
            request=inner, signature=session.identity.sign(inner)
        ).SerializeToString()
        started = time.monotonic()
        stop = started + (session.timeouts.commit_s if timeout_s is None else timeout_s)
        while True:
            try:
                data, endpoint = await session.connection.call(
                    "CommitStatus", request, max(stop - time.monotonic(), 0.001)
                )
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
            return answer

    def _unknown(self, failure: RpcFailure) -> OutcomeUnknown:
        kind = (
            OutcomeUnknown if failure.status in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED") else CommitStatusError
        )
        return kind(self._id, self.channel_id, phase="commit", failure=failure, commit=self)


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
    return CommitStatus(transaction_id, answer.result, code_name(answer.result), answer.block_number)


class PendingCommit(Commit, Generic[R_co]):
    """A transaction of this client that was accepted for ordering, with the result that was endorsed."""

    def __init__(self, session: Session, transaction_id: str, result: R_co, end: float | None) -> None:
        super().__init__(session, transaction_id)
        self._result = result
        self._end = end

    @property
    def result(self) -> R_co:
        """What the chaincode returned. It counts only once the transaction has committed."""
        return self._result

    async def committed(self, *, timeout_s: float | None = None) -> Submitted[R_co]:
        """Wait for the commit and return it.

        Raises:
            CommitRejected: the transaction is marked invalid.
            OutcomeUnknown, CommitStatusError: as for `status`.
        """
        wait_s = _left(self._session.timeouts.commit_s, self._end) if timeout_s is None else timeout_s
        status = await self.status(timeout_s=wait_s)
        if not status.successful:
            raise CommitRejected(
                status.code, status.code_name, transaction_id=self._id, block_number=status.block_number
            )
        return Submitted(self._result, self._id, status.block_number, status.code)


def code_name(code: int) -> str:
    """Fabric's name of a validation code (protos.TxValidationCode); the number as text for one it does not know."""
    names: Sequence[tuple[str, int]] = transaction_pb2.TxValidationCode.items()
    return next((name for name, number in names if number == code), str(code))
