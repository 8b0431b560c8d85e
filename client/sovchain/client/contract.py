"""Calling the functions of a chaincode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, overload

from sovchain.chaincode.operation import Operation
from sovchain.client._submitting import Submitting
from sovchain.client.checkpoint import Checkpointer, Position
from sovchain.client.commit import PendingCommit, Submitted
from sovchain.client.events import ChaincodeEvent, ChaincodeEvents
from sovchain.client.observe import observing
from sovchain.client.options import Timeouts
from sovchain.client.proposal import Proposal
from sovchain.client.requests import EventsRequest
from sovchain.client.retry import RetryPolicy
from sovchain.client.session import EndorsementCheck, Session
from sovchain.protocol.proposals import Invocation

P = ParamSpec("P")
R = TypeVar("R")

TransientData = Mapping[str, bytes | str]


class Contract:
    """A chaincode on a channel, or one contract in it. Made by `Network.contract`.

    Each call takes either an operation of a contract class, with its typed parameters, or the name of a function with
    text or bytes as arguments and, where needed, `transient=`:

        note = await contract.evaluate(Waybills.read, "GY-000017")
        data = await contract.evaluate("Waybills:read", "GY-000017")

    Options that are not part of a function's parameters are set on a view of the contract:

        await contract.with_options(organizations=["FinanceMSP"]).submit(Sharing.deliver, request, payload)
    """

    def __init__(self, session: Session, chaincode: str, name: str | None = None) -> None:
        self._session = session
        self._chaincode = chaincode
        self._name = name

    def __repr__(self) -> str:
        return f"Contract({self._chaincode!r} on {self._session.channel_id!r})"

    @property
    def chaincode(self) -> str:
        """Name of the chaincode."""
        return self._chaincode

    @property
    def name(self) -> str | None:
        """Name of the contract that is put before the names of functions, if any."""
        return self._name

    @property
    def channel_id(self) -> str:
        """The channel."""
        return self._session.channel_id

    def with_options(
        self,
        *,
        organizations: Collection[str] | None = None,
        timeouts: Timeouts | None = None,
        timeout_s: float | None = None,
        retry: RetryPolicy | None = None,
        endorsement_check: EndorsementCheck | None = None,
        read_own_writes: bool | None = None,
    ) -> Contract:
        """Return the same contract with other options. What is None stays as it is.

        Args:
            organizations: MSP ids of those that shall endorse, or evaluate. They bypass the gateway's own choice, so they
                must satisfy the endorsement policy. Empty: the gateway chooses.
            timeouts: deadlines of the single steps.
            timeout_s: one deadline in seconds over all steps of a call, besides those of the steps.
            retry: what is tried again.
            endorsement_check: judges the endorsements of each transaction before it is signed (`ChannelTrust`).
            read_own_writes: whether an evaluation waits, within its deadline, until the gateway's peer has the block of
                the last transaction that this client saw committed on the channel.
        """
        session = replace(
            self._session,
            organizations=self._session.organizations if organizations is None else tuple(organizations),
            timeouts=timeouts or self._session.timeouts,
            timeout_s=self._session.timeout_s if timeout_s is None else timeout_s,
            retry=retry or self._session.retry,
            check=endorsement_check or self._session.check,
            read_own_writes=self._session.read_own_writes if read_own_writes is None else read_own_writes,
        )
        return Contract(session, self._chaincode, self._name)

    @overload
    def proposal(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Proposal[R]: ...
    @overload
    def proposal(
        self, function: str, /, *args: str | bytes, transient: TransientData | None = None
    ) -> Proposal[bytes]: ...
    def proposal(self, operation: Any, /, *args: Any, **kwargs: Any) -> Proposal[Any]:
        """Make a proposal, for the step-by-step flow. Nothing is sent.

        Raises:
            ArgumentError: a parameter of the operation is missing, surplus or not of its type.
            TypeError: an argument of a named function is neither text nor bytes.
        """
        return Proposal.build(self._session, *self._invocation(operation, args, kwargs))

    def _invocation(
        self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Invocation, Callable[[bytes], Any]]:
        """What is asked of the chaincode, and how its result is read."""
        session = self._session
        if isinstance(operation, Operation):
            call = operation.encode(*args, **kwargs)
            return Invocation(session.channel_id, self._chaincode, call.args, call.transient), operation.decode
        transient = kwargs.pop("transient", None) or {}
        if kwargs:
            raise TypeError(f"a function called by its name takes no {', '.join(sorted(kwargs))}")
        name = f"{self._name}:{operation}" if self._name else str(operation)
        parts = (name.encode(), *(_bytes(argument) for argument in args))
        hidden = {key: _bytes(value) for key, value in transient.items()}
        return Invocation(session.channel_id, self._chaincode, parts, hidden), bytes

    @overload
    async def evaluate(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def evaluate(self, function: str, /, *args: str | bytes, transient: TransientData | None = None) -> bytes: ...
    async def evaluate(self, operation: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a function on one peer and return its result. Nothing is written to the ledger.

        Raises:
            EvaluateError: a peer or the contract refused, or did not answer in time.
            ConnectError: no gateway can be reached.
            UnexpectedReply: the reply is malformed or not of the operation's type.
            SignatureMissing, SignatureRefused: it could not be signed.
        """
        proposal = self.proposal(operation, *args, **kwargs)
        if not self._session.connection.observers:
            return await proposal.evaluate()
        with self._observing("evaluate", operation):
            return await proposal.evaluate()

    @overload
    async def submit(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Submitted[R]: ...
    @overload
    async def submit(
        self, function: str, /, *args: str | bytes, transient: TransientData | None = None
    ) -> Submitted[bytes]: ...
    async def submit(self, operation: Any, /, *args: Any, **kwargs: Any) -> Submitted[Any]:
        """Have a function endorsed, ordered and committed; return once it is committed and valid.

        What is tried again is for the retry policy to say (`with_options`).

        Raises:
            EndorseError, ConnectError, UnexpectedReply: nothing was sent for ordering.
            EndorsementsInsufficient, SignatureMissing, SignatureRefused: nothing was sent for ordering.
            SubmitError: the ordering service refused.
            CommitRejected: the peers marked the transaction invalid.
            OutcomeUnknown: it was sent, and what became of it is not known.
            CancelledError: whoever cancelled it learns from `unfinished` which transaction was under way.
        """
        return await self._submit(None, operation, args, kwargs)

    @overload
    async def submit_once(
        self, idempotency_key: str, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Submitted[R]: ...
    @overload
    async def submit_once(
        self, idempotency_key: str, function: str, /, *args: str | bytes, transient: TransientData | None = None
    ) -> Submitted[bytes]: ...
    async def submit_once(self, idempotency_key: str, operation: Any, /, *args: Any, **kwargs: Any) -> Submitted[Any]:
        """Submit with at most one effect for each key, whoever asks how often, also after a crash.

        The gateway must have a journal (`Gateway.connect(journal=...)`). The transaction is recorded before it is sent.
        Asked again under the same key, this returns what was committed; or finds out what became of what was sent, sends
        the very same bytes again if nobody knows; or, if that was rejected and so had no effect, starts anew.

        Raises:
            IdempotencyKeyReused: the key stands for another request.
            JournalError: there is no journal, or it cannot be used.
            OutcomeUnknown: still unknown: ask again with the same key.
            as `submit` otherwise.
        """
        return await self._submit(idempotency_key, operation, args, kwargs)

    async def _submit(
        self, key: str | None, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Submitted[Any]:
        submitting = Submitting(self._session, *self._invocation(operation, args, kwargs), key)
        if not self._session.connection.observers:
            return await submitting.run()
        with self._observing("submit", operation):
            return await submitting.run()

    def _observing(self, name: str, operation: Any) -> AbstractContextManager[Any]:
        function = operation.name if isinstance(operation, Operation) else str(operation)
        attributes = {"channel": self.channel_id, "chaincode": self._chaincode, "function": function}
        return observing(self._session.connection.observers, name, attributes)

    @overload
    async def submit_async(
        self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> PendingCommit[R]: ...
    @overload
    async def submit_async(
        self, function: str, /, *args: str | bytes, transient: TransientData | None = None
    ) -> PendingCommit[bytes]: ...
    async def submit_async(self, operation: Any, /, *args: Any, **kwargs: Any) -> PendingCommit[Any]:
        """Have a function endorsed and accepted for ordering; return without waiting for the commit.

        Raises:
            EndorseError, ConnectError, UnexpectedReply, SubmitError, OutcomeUnknown: as for `submit`.
        """
        transaction = await self.proposal(operation, *args, **kwargs).endorse()
        return await transaction.submit()

    def events(
        self,
        start: int | Position | ChaincodeEvent | Checkpointer | None = None,
        *,
        checkpoint: Checkpointer | None = None,
        reconnect: bool = True,
    ) -> ChaincodeEvents:
        """Listen to the events of the chaincode's valid transactions, in the order of the ledger.

        Args:
            start: a block number; a position or an event, to go on after it; a checkpointer, as for `checkpoint`; None for
                what commits from now on (from entering `async with`, else from the first step of the loop).
            checkpoint: where to go on after a stop. A position in it takes precedence over `start`. It is moved past an
                event when the body of the loop has ended and the next event is asked for: no event is lost, and one may
                come twice after a crash.
            reconnect: whether to go on, at any gateway of the profile, when the stream breaks.
        """
        if isinstance(start, Checkpointer) and checkpoint is None:
            start, checkpoint = None, start
        assert not isinstance(start, Checkpointer)
        return ChaincodeEvents(self._session, self._chaincode, _position(start), checkpoint, reconnect=reconnect)

    def events_request(self, start: int | Position | ChaincodeEvent | None = None) -> EventsRequest:
        """Make a request for events that is signed elsewhere (`EventsRequest.with_signature`); `start` as for `events`."""
        return EventsRequest.build(self._session, self._chaincode, _position(start))


def _position(start: int | Position | ChaincodeEvent | None) -> Position | None:
    if isinstance(start, ChaincodeEvent):
        return start.position
    return Position(start) if isinstance(start, int) else start


def _bytes(value: str | bytes) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise TypeError(f"an argument of a function called by its name is text or bytes, not {type(value).__name__}")
