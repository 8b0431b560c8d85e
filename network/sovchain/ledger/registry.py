"""What the services of one embedded ledger share: its channels, its peers, and how it was set up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sovchain.ledger.access import ChannelAccess
from sovchain.ledger.chainview import ChainView, Follower
from sovchain.ledger.channel import Channel
from sovchain.ledger.clock import LedgerClock
from sovchain.ledger.definitions import Definitions
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.events import EventCache
from sovchain.ledger.faults import Faults
from sovchain.protocol.blocks import header_hash, parse_block

if TYPE_CHECKING:
    from sovchain.ledger.endorsement_plan import KnownPlan
    from sovchain.ledger.peer import Peer

SimulateTwice = Literal["always", "endorse", "never"]
"""When a proposal is simulated a second time to catch non-determinism: for every call, when an endorsement is asked for
(a Gateway evaluation then runs once), or never."""

StateDatabase = Literal["leveldb", "couchdb"]
"""As which state database the ledger behaves: without rich queries, or with them and with CouchDB's rules for keys."""


async def _no_join(_genesis_block: bytes, _msp_id: str | None = None) -> None:
    raise LedgerError("this ledger joins no channels while it starts; send the request again")


@dataclass
class Registry:
    """The nodes and channels of one embedded ledger, for the services that work on them.

    Attributes:
        channels: joined channels by name.
        peers: peers by MSP id; further ones of an organisation by their host name.
        followers: views of peers that lag or have lagged, by host name of the peer and channel.
        definitions: committed chaincode definitions and approvals.
        simulate_twice: see `SimulateTwice`.
        state_database: see `StateDatabase`.
        clock: the ledger's time, that certificates expire by and that requests are compared with.
        faults: what is to go wrong on request.
        events: events of recent blocks.
        plans: endorsement plans by channel, preferred organisation and interest.
        join: joins the peer of an organisation to the channel of a genesis block.
    """

    channels: dict[str, Channel] = field(default_factory=dict)
    peers: dict[str, Peer] = field(default_factory=dict)
    followers: dict[tuple[str, str], Follower] = field(default_factory=dict)
    definitions: Definitions = field(default_factory=Definitions)
    simulate_twice: SimulateTwice = "always"
    state_database: StateDatabase = "leveldb"
    clock: LedgerClock = field(default_factory=LedgerClock)
    faults: Faults = field(default_factory=Faults)
    events: EventCache = field(default_factory=EventCache)
    plans: dict[tuple[str, str, bytes], KnownPlan] = field(default_factory=dict)
    join: Callable[[bytes, str | None], Awaitable[None]] = _no_join
    _access: dict[ChainView, ChannelAccess] = field(default_factory=dict, repr=False)

    def channel_of(self, peer: Peer, channel_id: str) -> ChainView | None:
        """Return the channel as a peer sees it, None if the peer is not on it."""
        channel = self.channels.get(channel_id)
        if channel is None or peer.msp_id not in channel.peer_msp_ids:
            return None
        return self.followers.get((peer.host, channel_id), channel)

    def drop(self, channel: Channel) -> None:
        """Forget what is remembered of a channel that is no more."""
        self._access = {view: access for view, access in self._access.items() if view.channel_id != channel.channel_id}
        self.followers = {key: view for key, view in self.followers.items() if key[1] != channel.channel_id}

    def genesis_hash(self, channel: ChainView) -> str:
        """Hash of the header of a channel's first block, in hexadecimal digits: it tells channels of one name apart."""
        block = channel.block(0)
        assert block is not None  # a channel has its first block
        return header_hash(parse_block(block).header).hex()

    def forget(self, channel_ids: Iterable[str]) -> None:
        """Forget what is remembered of blocks, after channels went back to earlier ones."""
        self.definitions.forget()
        self.plans.clear()
        for channel_id in channel_ids:
            self.events.forget(channel_id)

    def access(self, channel: ChainView) -> ChannelAccess:
        """Return the checks against a channel's policies."""
        access = self._access.get(channel)
        if access is None:
            access = self._access[channel] = ChannelAccess(lambda: channel.bundle)
        return access

    def peers_of(self, channel: ChainView) -> list[Peer]:
        """Return the running peers of a channel's members on it, in the order of their MSP ids.

        An organisation that was removed still has the channel, and no part in it any more.
        """
        members = set(channel.bundle.application_msp_ids) & set(channel.peer_msp_ids)
        running = [peer for peer in self.peers.values() if peer.is_running and peer.msp_id in members]
        return sorted(running, key=lambda peer: peer.msp_id)

    def height_of(self, peer: Peer, channel_id: str) -> int:
        """Number of blocks that a peer has of a channel."""
        channel = self.channel_of(peer, channel_id)
        return 0 if channel is None else channel.height
