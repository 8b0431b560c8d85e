"""The blocking client. Written by scripts/make_blocking.py from the asynchronous one: change that, not this."""

from __future__ import annotations

from typing import Generic, ParamSpec, TypeVar

from sovchain.client import commit, proposal, transaction
from sovchain.client.blocking._portal import Portal
from sovchain.client.commit import CommitStatus, Submitted

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
B = TypeVar("B")


class Commit:
    """A transaction that was sent for ordering, by this client or another one."""

    def __init__(self, original: commit.Commit, portal: Portal) -> None:
        """Made by the class that returns it."""
        self._original = original
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._original)

    @property
    def transaction_id(self) -> str:
        """The transaction's id."""
        return self._original.transaction_id

    @property
    def channel_id(self) -> str:
        """The channel that it was sent on."""
        return self._original.channel_id

    @property
    def message(self) -> bytes:
        """What is signed to ask for the status (gateway.CommitStatusRequest). It does not go stale."""
        return self._original.message

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`, for signers that take digests."""
        return self._original.digest

    def to_bytes(self) -> bytes:
        """The commit for another process: `Gateway.load_commit`, or an official client (SignedCommitStatusRequest)."""
        return self._original.to_bytes()

    def with_signature(self, signature: bytes) -> Commit:
        """Return the same commit with a signature over `message` that was made elsewhere. Raises SignatureRefused."""
        return Commit(self._portal.call(lambda: self._original.with_signature(signature)), self._portal)

    def status(self, *, timeout_s: float | None = None) -> CommitStatus:
        """Wait until the peer has committed the transaction, valid or not, and return its status.

        A peer cannot tell a transaction that is under way from one that never was: for both this waits for `timeout_s`
        (default: `Timeouts.commit_s`).

        Raises:
            OutcomeUnknown: the status did not come in time, or no gateway can be reached; ask again.
            CommitStatusError: the peer refuses to tell, or its reply is no commit status.
            SignatureMissing, SignatureRefused: the question could not be signed.
        """
        return self._portal.run(self._original.status(timeout_s=timeout_s))


class PendingCommit(Commit, Generic[R_co]):
    """A transaction of this client that was accepted for ordering, with the result that was endorsed."""

    def __init__(self, original: commit.PendingCommit[R_co], portal: Portal) -> None:
        """Made by the class that returns it."""
        super().__init__(original, portal)
        self._original: commit.PendingCommit[R_co] = original
        self._portal = portal

    @property
    def result(self) -> R_co:
        """What the chaincode returned. It counts only once the transaction has committed."""
        return self._original.result

    def status(self, *, timeout_s: float | None = None) -> CommitStatus:
        """As `Commit.status`; where the channel's blocks are listened to anyway, without a call of its own."""
        return self._portal.run(self._original.status(timeout_s=timeout_s))

    def committed(self, *, timeout_s: float | None = None) -> Submitted[R_co]:
        """Wait for the commit and return it.

        Raises:
            CommitRejected: the transaction is marked invalid.
            OutcomeUnknown, CommitStatusError: as for `status`.
        """
        return self._portal.run(self._original.committed(timeout_s=timeout_s))

    def stop_listening(self) -> None:
        """Have the status asked for in place of being listened for: its block may have gone by."""
        return self._original.stop_listening()


class Transaction(Generic[R_co]):
    """An endorsed transaction. It is signed when it is submitted, or before that with `with_signature`."""

    def __init__(self, original: transaction.Transaction[R_co], portal: Portal) -> None:
        """Made by the class that returns it."""
        self._original = original
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._original)

    @property
    def transaction_id(self) -> str:
        """The transaction's id."""
        return self._original.transaction_id

    @property
    def result(self) -> R_co:
        """What the chaincode returned. It counts only once the transaction has committed."""
        return self._original.result

    @property
    def message(self) -> bytes:
        """What is signed: the payload of the envelope (common.Payload)."""
        return self._original.message

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`, for signers that take digests."""
        return self._original.digest

    @property
    def envelope_bytes(self) -> bytes:
        """The transaction as it goes to the ordering service (common.Envelope); signed once it has been submitted."""
        return self._original.envelope_bytes

    def to_bytes(self) -> bytes:
        """The transaction for another process: `Gateway.load_transaction`, or an official client.

        The form is gateway.PreparedTransaction.
        """
        return self._original.to_bytes()

    def with_signature(self, signature: bytes) -> Transaction[R_co]:
        """Return the same transaction with a signature over `message` made elsewhere. Raises SignatureRefused."""
        return Transaction(self._portal.call(lambda: self._original.with_signature(signature)), self._portal)

    def submit(self) -> PendingCommit[R_co]:
        """Hand the transaction to the ordering service. While the gateway is unavailable the same bytes are sent again.

        Raises:
            SubmitError: it was refused and will not commit.
            OutcomeUnknown: no answer came in time.
            SignatureMissing, SignatureRefused: it could not be signed, and was not sent.
            CancelledError: `unfinished` says what was under way.
        """
        return PendingCommit(self._portal.run(self._original.submit()), self._portal)


class Proposal(Generic[R_co]):
    """What is asked of a chaincode. Made by `Contract.proposal`; its transaction id is known before anything is sent.

    It is signed when it is first sent, by the gateway's identity, or before that with `with_signature`.
    """

    def __init__(self, original: proposal.Proposal[R_co], portal: Portal) -> None:
        """Made by the class that returns it."""
        self._original = original
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._original)

    @property
    def transaction_id(self) -> str:
        """The id that the transaction has if it is submitted."""
        return self._original.transaction_id

    @property
    def message(self) -> bytes:
        """What is signed: the serialised proposal (protos.Proposal). It holds arguments and transient data."""
        return self._original.message

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`, for signers that take digests."""
        return self._original.digest

    def to_bytes(self) -> bytes:
        """The proposal for another process: `Gateway.load_proposal`, or an official client (gateway.ProposedTransaction).

        It holds arguments and transient data.
        """
        return self._original.to_bytes()

    def with_signature(self, signature: bytes) -> Proposal[R_co]:
        """Return the same proposal with a signature over `message` that was made elsewhere. Raises SignatureRefused."""
        return Proposal(self._portal.call(lambda: self._original.with_signature(signature)), self._portal)

    def evaluate(self) -> R_co:
        """Have one peer run the proposal; return the result. Nothing is written.

        Raises:
            EvaluateError, ConnectError, UnexpectedReply.
            SignatureMissing, SignatureRefused: it could not be signed.
        """
        return self._portal.run(self._original.evaluate())

    def endorse(self) -> Transaction[R_co]:
        """Have as many organisations endorse as the policy asks for.

        The transaction that the gateway prepares is checked before it is signed: its headers, its input and the
        proposal hash that the endorsers signed must be those of this proposal.

        Raises:
            EndorseError, ConnectError, UnexpectedReply.
            EndorsementsInsufficient: the endorsements were to be checked (`Contract.with_options`), and do not suffice.
            SignatureMissing, SignatureRefused: it could not be signed.
        """
        return Transaction(self._portal.run(self._original.endorse()), self._portal)
