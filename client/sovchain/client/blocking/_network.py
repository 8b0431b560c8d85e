"""The blocking client. Written by scripts/make_blocking.py from the asynchronous one: change that, not this."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, overload

from fabric_protos.common import common_pb2
from fabric_protos.peer import events_pb2

from sovchain.chaincode.operation import Operation
from sovchain.client import gateway, network
from sovchain.client.blocking._contract import Contract
from sovchain.client.blocking._portal import Portal
from sovchain.client.blocking._steps import Commit, Proposal, Transaction
from sovchain.client.blocking._streams import BlocksRequest, BlockStream, EventsRequest
from sovchain.client.checkpoint import Checkpointer
from sovchain.client.deliver import BlockAndPrivateData
from sovchain.client.identity import Identity
from sovchain.client.journal import Journal
from sovchain.client.network import ChainInfo
from sovchain.client.observe import Observer
from sovchain.client.options import MAX_IN_FLIGHT, MAX_MESSAGE_BYTES, Timeouts
from sovchain.client.profile import Profile
from sovchain.client.retry import RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
B = TypeVar("B")


def _untyped(method: Any) -> Any:
    """A method whose overloads stand above: its own signature is none of them."""
    return method


class Network:
    """A channel. Made by `Gateway.network`, which sends nothing: a wrong name shows at the first call."""

    def __init__(self, original: network.Network, portal: Portal) -> None:
        """Made by the class that returns it."""
        self._original = original
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._original)

    @property
    def name(self) -> str:
        """Name of the channel."""
        return self._original.name

    @property
    def identity(self) -> Identity:
        """The identity that signs."""
        return self._original.identity

    def contract(self, chaincode: str, name: str | None = None) -> Contract:
        """Return a chaincode of the channel, or the contract `name` in it.

        With `name`, functions called by their names are prefixed with it: `issue` becomes `Waybills:issue`. Operations
        bring their own contract's name.
        """
        return Contract(self._portal.call(lambda: self._original.contract(chaincode, name)), self._portal)

    def commit(self, transaction_id: str) -> Commit:
        """Return a transaction of the channel by its id, to ask for its status. Raises ValueError for no such id."""
        return Commit(self._portal.call(lambda: self._original.commit(transaction_id)), self._portal)

    def chain_info(self) -> ChainInfo:
        """Ask a peer how long its chain is. Raises EvaluateError, ConnectError, UnexpectedReply."""
        return self._portal.run(self._original.chain_info())

    def config_block(self) -> common_pb2.Block:
        """Ask a peer for the channel's last config block, as `ChannelTrust` takes it: it is only as true as that peer.

        Raises EvaluateError, ConnectError, UnexpectedReply.
        """
        return self._portal.run(self._original.config_block())

    def reached(self, block_number: int, *, timeout_s: float = 30.0) -> None:
        """Wait until the gateway's peer has committed a block, so that what is evaluated then sees it.

        A transaction that another organisation's peer has reported as committed may come later to this one's peer.

        Raises:
            TimeoutError: it has not within `timeout_s` seconds.
            DeliverError, ConnectError: the peer's blocks cannot be read.
        """
        return self._portal.run(self._original.reached(block_number, timeout_s=timeout_s))

    def blocks(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        checkpoint: Checkpointer | None = None,
        reconnect: bool = True,
    ) -> BlockStream[common_pb2.Block]:
        """Read blocks in order, from `start` to and including `stop`.

        Args:
            start: number of the first block; None for the next one that commits.
            stop: number of the last block; None to go on for ever.
            checkpoint: where to go on after a stop; a position in it takes precedence over `start`. It is moved past a
                block when the body of the loop has ended and the next one is asked for.
            reconnect: whether to go on, at any gateway of the profile, when the stream breaks.
        """
        return BlockStream(
            self._portal.call(lambda: self._original.blocks(start, stop, checkpoint=checkpoint, reconnect=reconnect)),
            self._portal,
        )

    def filtered_blocks(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        checkpoint: Checkpointer | None = None,
        reconnect: bool = True,
    ) -> BlockStream[events_pb2.FilteredBlock]:
        """Read blocks reduced to transaction ids, validation codes and names of events; otherwise as `blocks`."""
        return BlockStream(
            self._portal.call(
                lambda: self._original.filtered_blocks(start, stop, checkpoint=checkpoint, reconnect=reconnect)
            ),
            self._portal,
        )

    def blocks_and_private_data(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        checkpoint: Checkpointer | None = None,
        reconnect: bool = True,
    ) -> BlockStream[BlockAndPrivateData]:
        """Read blocks with the private data that the peer holds and the caller's organisation may see; as `blocks`."""
        return BlockStream(
            self._portal.call(
                lambda: self._original.blocks_and_private_data(start, stop, checkpoint=checkpoint, reconnect=reconnect)
            ),
            self._portal,
        )

    def blocks_request(self, start: int | None = None, stop: int | None = None) -> BlocksRequest[common_pb2.Block]:
        """Make a request for blocks that is signed elsewhere (`BlocksRequest.with_signature`)."""
        return BlocksRequest(self._portal.call(lambda: self._original.blocks_request(start, stop)), self._portal)

    def filtered_blocks_request(
        self, start: int | None = None, stop: int | None = None
    ) -> BlocksRequest[events_pb2.FilteredBlock]:
        """As `blocks_request`, for filtered blocks."""
        return BlocksRequest(
            self._portal.call(lambda: self._original.filtered_blocks_request(start, stop)), self._portal
        )

    def blocks_and_private_data_request(
        self, start: int | None = None, stop: int | None = None
    ) -> BlocksRequest[BlockAndPrivateData]:
        """As `blocks_request`, for blocks with private data."""
        return BlocksRequest(
            self._portal.call(lambda: self._original.blocks_and_private_data_request(start, stop)), self._portal
        )


class Gateway:
    """An identity's connection to the gateways of its organisation. Made by `connect`.

    It may be used from any thread and does not survive a fork.
    """

    def __init__(self, original: gateway.Gateway, portal: Portal) -> None:
        """Made by the class that returns it."""
        self._original = original
        self._portal = portal

    @classmethod
    @contextlib.contextmanager
    def connect(
        cls,
        profile: Profile | Path | str | Mapping[str, Any],
        identity: Identity,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        journal: Journal | None = None,
        insecure: bool = False,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        commit_stream: bool = True,
        observers: Sequence[Observer] = (),
    ) -> Iterator[Gateway]:
        """Connect for the length of an `with` block, and check that a gateway can be reached and trusted.

        Args:
            profile: a profile, the path of one, or a parsed one; `Profile.from_addresses` makes one of addresses.
            identity: who signs; a bare `Identity` where all is signed elsewhere.
            timeouts: deadlines; by default those of `Timeouts`.
            retry: what is tried again; by default that of `RetryPolicy`.
            journal: where submits with an idempotency key are recorded.
            insecure: allow addresses without TLS (`grpc://`), which anybody on the way can read and change.
            max_in_flight: most calls at the same time to one gateway, waits for commits and streams of chaincode events
                included; further ones wait.
            max_message_bytes: largest message in both directions.
            commit_stream: learn of commits from one stream of filtered blocks for each channel; otherwise, and whenever
                the stream cannot be used, by one call for each transaction.
            observers: are told of every call (`telemetry` has some for OpenTelemetry, Prometheus and structlog).

        Raises:
            ProfileError: the profile cannot be used.
            CertificateExpired: the identity's certificate is not valid now.
            ConnectError: no gateway can be reached in time, or one cannot be trusted.
            ValueError: `max_in_flight` is below 1.
        """
        portal = Portal()
        portal.wrap_commit = lambda one: Commit(one, portal)
        try:
            entered = gateway.Gateway.connect(
                profile,
                identity,
                timeouts=timeouts,
                retry=retry,
                journal=journal,
                insecure=insecure,
                max_in_flight=max_in_flight,
                max_message_bytes=max_message_bytes,
                commit_stream=commit_stream,
                observers=observers,
            )
            original = portal.run(entered.__aenter__())
            try:
                yield cls(original, portal)
            finally:
                portal.run(entered.__aexit__(None, None, None))
        finally:
            portal.close()

    def __repr__(self) -> str:
        return repr(self._original)

    @property
    def identity(self) -> Identity:
        """The identity that signs."""
        return self._original.identity

    @property
    def profile(self) -> Profile:
        """The profile that it was connected with."""
        return self._original.profile

    def network(self, channel: str) -> Network:
        """Return a channel. Nothing is sent. Raises ValueError for an empty name."""
        return Network(self._portal.call(lambda: self._original.network(channel)), self._portal)

    @overload
    def load_proposal(self, data: bytes, operation: Operation[..., R]) -> Proposal[R]: ...

    @overload
    def load_proposal(self, data: bytes) -> Proposal[bytes]: ...

    def load_proposal(self, data: bytes, operation: Operation[..., Any] | None = None) -> Proposal[Any]:
        """Return the proposal that `Proposal.to_bytes`, or an official client, has written.

        Args:
            data: a serialised gateway.ProposedTransaction, signed or not.
            operation: the operation that it calls, if its result is to be decoded as that one's.

        Raises:
            MalformedStep: the bytes are no well-formed proposal, or one of another identity.
        """
        return Proposal(
            self._portal.call(lambda: _untyped(self._original.load_proposal)(data, operation)), self._portal
        )

    @overload
    def load_transaction(self, data: bytes, operation: Operation[..., R]) -> Transaction[R]: ...

    @overload
    def load_transaction(self, data: bytes) -> Transaction[bytes]: ...

    def load_transaction(self, data: bytes, operation: Operation[..., Any] | None = None) -> Transaction[Any]:
        """Return the endorsed transaction that `Transaction.to_bytes`, or an official client, has written.

        That it is what was proposed was checked when it was endorsed, not again here: keep the bytes where nobody else
        can change them until they are signed.

        Args:
            data: a serialised gateway.PreparedTransaction, signed or not.
            operation: as for `load_proposal`.

        Raises:
            MalformedStep: the bytes are no well-formed transaction, or one of another identity.
        """
        return Transaction(
            self._portal.call(lambda: _untyped(self._original.load_transaction)(data, operation)), self._portal
        )

    def load_commit(self, data: bytes) -> Commit:
        """Return the commit that `Commit.to_bytes`, or an official client, has written. Raises MalformedStep."""
        return Commit(self._portal.call(lambda: self._original.load_commit(data)), self._portal)

    def load_events_request(self, data: bytes) -> EventsRequest:
        """Return the request for chaincode events that `EventsRequest.to_bytes` has written. Raises MalformedStep."""
        return EventsRequest(self._portal.call(lambda: self._original.load_events_request(data)), self._portal)

    def load_blocks_request(self, data: bytes) -> BlocksRequest[common_pb2.Block]:
        """Return the request for blocks that `BlocksRequest.to_bytes` has written. Raises MalformedStep."""
        return BlocksRequest(self._portal.call(lambda: self._original.load_blocks_request(data)), self._portal)

    def load_filtered_blocks_request(self, data: bytes) -> BlocksRequest[events_pb2.FilteredBlock]:
        """As `load_blocks_request`, for filtered blocks."""
        return BlocksRequest(self._portal.call(lambda: self._original.load_filtered_blocks_request(data)), self._portal)

    def load_blocks_and_private_data_request(self, data: bytes) -> BlocksRequest[BlockAndPrivateData]:
        """As `load_blocks_request`, for blocks with private data."""
        return BlocksRequest(
            self._portal.call(lambda: self._original.load_blocks_and_private_data_request(data)), self._portal
        )
