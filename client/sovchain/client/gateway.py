"""The way into a network: the gateway service of an organisation's peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from fabric_protos.common import common_pb2
from fabric_protos.peer import events_pb2

from sovchain.chaincode.operation import Operation
from sovchain.client import offline
from sovchain.client._commitfeed import CommitFeed
from sovchain.client._connection import Connection
from sovchain.client.commit import Commit
from sovchain.client.deliver import FILTERED, FULL, WITH_PRIVATE_DATA, BlockAndPrivateData
from sovchain.client.errors import MalformedStep, ProfileContentError
from sovchain.client.identity import Identity
from sovchain.client.journal import Journal
from sovchain.client.network import Network
from sovchain.client.observe import Observer
from sovchain.client.options import MAX_IN_FLIGHT, MAX_MESSAGE_BYTES, Timeouts
from sovchain.client.profile import GatewayAddress, Profile
from sovchain.client.proposal import Proposal
from sovchain.client.requests import BlocksRequest, EventsRequest
from sovchain.client.retry import RetryPolicy
from sovchain.client.session import ChannelState, Session
from sovchain.client.transaction import Transaction

if TYPE_CHECKING:
    import grpc.aio

R = TypeVar("R")


class Gateway:
    """An identity's connection to the gateways of its organisation. Made by `connect`.

    It belongs to the event loop that it was made in and does not survive a fork.
    """

    @classmethod
    @asynccontextmanager
    async def connect(
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
    ) -> AsyncIterator[Gateway]:
        """Connect for the length of an `async with` block, and check that a gateway can be reached and trusted.

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
        loaded = _profile(profile)
        identity.check_validity()
        if identity.msp_id != loaded.msp_id:
            raise ProfileContentError(
                f"organizations.{loaded.organization}.mspid",
                f"is {loaded.msp_id}, the identity is of {identity.msp_id}: use the profile of its organisation",
                source=loaded.source,
            )
        connection = Connection(
            loaded,
            insecure=insecure,
            max_in_flight=max_in_flight,
            max_message_bytes=max_message_bytes,
            observers=observers,
        )
        gateway = cls(connection, identity, timeouts or Timeouts(), retry, journal, commit_stream=commit_stream)
        try:
            await connection.connect(gateway._timeouts.connect_s)
            yield gateway
        finally:
            await gateway._close()

    @classmethod
    @asynccontextmanager
    async def over(
        cls,
        channel: grpc.aio.Channel,
        identity: Identity,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        journal: Journal | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        client_certificate_pem: bytes | None = None,
        commit_stream: bool = True,
        observers: Sequence[Observer] = (),
    ) -> AsyncIterator[Gateway]:
        """As `connect`, over a gRPC channel of your own, which is neither checked nor closed.

        Args:
            channel: the channel to a peer. Give it room for messages of 100 MiB, which gRPC by itself does not.
            identity, timeouts, retry, journal, max_in_flight, commit_stream, observers: as for `connect`.
            client_certificate_pem: the channel's TLS client certificate, if the peer asks for one: requests for blocks are
                bound to it.

        Raises:
            CertificateExpired: the identity's certificate is not valid now.
            ValueError: `max_in_flight` is below 1.
        """
        from sovchain.client._given import GivenChannel

        identity.check_validity()
        address = GatewayAddress("channel", "channel", None)
        profile = Profile(identity.msp_id, identity.msp_id, (address,), client_certificate_pem, None, "<channel>")
        connection = Connection(
            profile,
            insecure=True,
            max_in_flight=max_in_flight,
            max_message_bytes=MAX_MESSAGE_BYTES,
            channel=GivenChannel(channel),
            observers=observers,
        )
        gateway = cls(connection, identity, timeouts or Timeouts(), retry, journal, commit_stream=commit_stream)
        try:
            yield gateway
        finally:
            await gateway._close()

    def __init__(
        self,
        connection: Connection,
        identity: Identity,
        timeouts: Timeouts,
        retry: RetryPolicy | None = None,
        journal: Journal | None = None,
        *,
        commit_stream: bool = True,
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._timeouts = timeouts
        self._retry = retry or RetryPolicy()
        self._journal = journal
        self._commit_stream = commit_stream and identity.can_sign
        self._channels: dict[str, ChannelState] = {}

    def __repr__(self) -> str:
        return f"Gateway({self._identity!r})"

    @property
    def identity(self) -> Identity:
        """The identity that signs."""
        return self._identity

    @property
    def profile(self) -> Profile:
        """The profile that it was connected with."""
        return self._connection.profile

    def network(self, channel: str) -> Network:
        """Return a channel. Nothing is sent. Raises ValueError for an empty name."""
        if not channel:
            raise ValueError("the channel's name is empty")
        return Network(self._session(channel))

    # -- steps from bytes --------------------------------------------------------------------------------------------

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
        return offline.load_proposal(self._session_of, data, bytes if operation is None else operation.decode)

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
        return offline.load_transaction(self._session_of, data, bytes if operation is None else operation.decode)

    def load_commit(self, data: bytes) -> Commit:
        """Return the commit that `Commit.to_bytes`, or an official client, has written. Raises MalformedStep."""
        return offline.load_commit(self._session_of, data)

    def load_events_request(self, data: bytes) -> EventsRequest:
        """Return the request for chaincode events that `EventsRequest.to_bytes` has written. Raises MalformedStep."""
        return offline.load_events_request(self._session_of, data)

    def load_blocks_request(self, data: bytes) -> BlocksRequest[common_pb2.Block]:
        """Return the request for blocks that `BlocksRequest.to_bytes` has written. Raises MalformedStep."""
        return offline.load_blocks_request(self._session_of, data, FULL)

    def load_filtered_blocks_request(self, data: bytes) -> BlocksRequest[events_pb2.FilteredBlock]:
        """As `load_blocks_request`, for filtered blocks."""
        return offline.load_blocks_request(self._session_of, data, FILTERED)

    def load_blocks_and_private_data_request(self, data: bytes) -> BlocksRequest[BlockAndPrivateData]:
        """As `load_blocks_request`, for blocks with private data."""
        return offline.load_blocks_request(self._session_of, data, WITH_PRIVATE_DATA)

    # ----------------------------------------------------------------------------------------------------------------

    def _session(self, channel: str, organizations: tuple[str, ...] = ()) -> Session:
        state = self._channels.get(channel)
        if state is None:
            feed = CommitFeed(self._connection, self._identity, channel) if self._commit_stream else None
            state = self._channels[channel] = ChannelState(feed)
        return Session(
            self._connection,
            self._identity,
            channel,
            self._timeouts,
            state,
            organizations,
            retry=self._retry,
            journal=self._journal,
        )

    def _session_of(self, channel: str, organizations: tuple[str, ...], creator: bytes) -> Session:
        """The session for a step that was loaded. A signature can be checked, and be made, only for one's own identity."""
        if creator != self._identity.creator:
            raise MalformedStep("loaded", "it is of another identity than the gateway's")
        return self._session(channel, organizations)

    async def _close(self) -> None:
        feeds = [state.feed for state in self._channels.values() if state.feed is not None]
        await asyncio.gather(*(feed.close() for feed in feeds))
        await self._connection.close()


def _profile(source: Profile | Path | str | Mapping[str, Any]) -> Profile:
    if isinstance(source, Profile):
        return source
    return Profile.from_mapping(source) if isinstance(source, Mapping) else Profile.load(source)
