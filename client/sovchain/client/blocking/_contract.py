"""The blocking client. Written by scripts/make_blocking.py from the asynchronous one: change that, not this."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ParamSpec, TypeVar, overload

from sovchain.chaincode.operation import Operation
from sovchain.client import contract
from sovchain.client.blocking._portal import Portal
from sovchain.client.blocking._steps import PendingCommit, Proposal
from sovchain.client.blocking._streams import ChaincodeEvents, EventsRequest
from sovchain.client.checkpoint import Checkpointer, Position
from sovchain.client.commit import Submitted
from sovchain.client.contract import TransientData
from sovchain.client.events import ChaincodeEvent
from sovchain.client.options import Timeouts
from sovchain.client.retry import RetryPolicy
from sovchain.client.session import EndorsementCheck

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
B = TypeVar("B")


def _untyped(method: Any) -> Any:
    """A method whose overloads stand above: its own signature is none of them."""
    return method


class Contract:
    """A chaincode on a channel, or one contract in it. Made by `Network.contract`.

    Each call takes either an operation of a contract class, with its typed parameters, or the name of a function with
    text or bytes as arguments and, where needed, `transient=`:

        note = contract.evaluate(Waybills.read, "GY-000017")
        data = contract.evaluate("Waybills:read", "GY-000017")

    Options that are not part of a function's parameters are set on a view of the contract:

        contract.with_options(organizations=["FinanceMSP"]).submit(Sharing.deliver, request, payload)
    """

    def __init__(self, original: contract.Contract, portal: Portal) -> None:
        """Made by the class that returns it."""
        self._original = original
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._original)

    @property
    def chaincode(self) -> str:
        """Name of the chaincode."""
        return self._original.chaincode

    @property
    def name(self) -> str | None:
        """Name of the contract that is put before the names of functions, if any."""
        return self._original.name

    @property
    def channel_id(self) -> str:
        """The channel."""
        return self._original.channel_id

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
        return Contract(
            self._portal.call(
                lambda: self._original.with_options(
                    organizations=organizations,
                    timeouts=timeouts,
                    timeout_s=timeout_s,
                    retry=retry,
                    endorsement_check=endorsement_check,
                    read_own_writes=read_own_writes,
                )
            ),
            self._portal,
        )

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
        return Proposal(
            self._portal.call(lambda: _untyped(self._original.proposal)(operation, *args, **kwargs)), self._portal
        )

    @overload
    def evaluate(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def evaluate(self, function: str, /, *args: str | bytes, transient: TransientData | None = None) -> bytes: ...

    def evaluate(self, operation: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a function on one peer and return its result. Nothing is written to the ledger.

        Raises:
            EvaluateError: a peer or the contract refused, or did not answer in time.
            ConnectError: no gateway can be reached.
            UnexpectedReply: the reply is malformed or not of the operation's type.
            SignatureMissing, SignatureRefused: it could not be signed.
        """
        return self._portal.run(_untyped(self._original.evaluate)(operation, *args, **kwargs))

    @overload
    def submit(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Submitted[R]: ...

    @overload
    def submit(
        self, function: str, /, *args: str | bytes, transient: TransientData | None = None
    ) -> Submitted[bytes]: ...

    def submit(self, operation: Any, /, *args: Any, **kwargs: Any) -> Submitted[Any]:
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
        return self._portal.run(_untyped(self._original.submit)(operation, *args, **kwargs))

    @overload
    def submit_once(
        self, idempotency_key: str, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Submitted[R]: ...

    @overload
    def submit_once(
        self, idempotency_key: str, function: str, /, *args: str | bytes, transient: TransientData | None = None
    ) -> Submitted[bytes]: ...

    def submit_once(self, idempotency_key: str, operation: Any, /, *args: Any, **kwargs: Any) -> Submitted[Any]:
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
        return self._portal.run(_untyped(self._original.submit_once)(idempotency_key, operation, *args, **kwargs))

    @overload
    def submit_async(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> PendingCommit[R]: ...

    @overload
    def submit_async(
        self, function: str, /, *args: str | bytes, transient: TransientData | None = None
    ) -> PendingCommit[bytes]: ...

    def submit_async(self, operation: Any, /, *args: Any, **kwargs: Any) -> PendingCommit[Any]:
        """Have a function endorsed and accepted for ordering; return without waiting for the commit.

        Raises:
            EndorseError, ConnectError, UnexpectedReply, SubmitError, OutcomeUnknown: as for `submit`.
        """
        return PendingCommit(
            self._portal.run(_untyped(self._original.submit_async)(operation, *args, **kwargs)), self._portal
        )

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
                what commits from now on (from entering `with`, else from the first step of the loop).
            checkpoint: where to go on after a stop. A position in it takes precedence over `start`. It is moved past an
                event when the body of the loop has ended and the next event is asked for: no event is lost, and one may
                come twice after a crash.
            reconnect: whether to go on, at any gateway of the profile, when the stream breaks.
        """
        return ChaincodeEvents(
            self._portal.call(lambda: self._original.events(start, checkpoint=checkpoint, reconnect=reconnect)),
            self._portal,
        )

    def events_request(self, start: int | Position | ChaincodeEvent | None = None) -> EventsRequest:
        """Make a request for events that is signed elsewhere (`EventsRequest.with_signature`); `start` as for `events`."""
        return EventsRequest(self._portal.call(lambda: self._original.events_request(start)), self._portal)
