"""What no peer of Fabric offers: snapshots, dumps, time, blocks by hand and from elsewhere, peers that lag, faults.

`EmbeddedLedger.tools` gives them in the process; `sovchain.network.Network.ledger` and `sovchain ledger` from anywhere.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from sovchain.ledger.chainview import MAX_BLOCKS_BEHIND
from sovchain.ledger.channel import Channel
from sovchain.ledger.clock import LedgerClock
from sovchain.ledger.cutting import Cutting
from sovchain.ledger.database import storage_errors, write_durably
from sovchain.ledger.dumps import install_packages, read_dump, write_dump
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.faults import Fault, Faults
from sovchain.ledger.peer import Peer
from sovchain.ledger.registry import Registry
from sovchain.ledger.snapshots import LedgerSnapshot, Snapshots


class ChannelUnknownError(LedgerError):
    """The ledger has no channel with this name. `channel` is the name."""

    def __init__(self, channel: str, there: list[str]) -> None:
        super().__init__(f"there is no channel {channel[:80]!r}; there are: {', '.join(there) or 'none'}")
        self.channel = channel


@dataclass(frozen=True)
class LedgerTime:
    """The ledger's time, and how many seconds it is ahead of the system's."""

    now: datetime
    shift_s: float


@dataclass(frozen=True)
class Chain:
    """A channel: its height, what waits for its next block, and what overrides its batch settings."""

    height: int
    pending: int
    cutting: Cutting


@dataclass(frozen=True)
class NodeState:
    """A node as it is now.

    Attributes:
        host: its host name.
        msp_id: its organisation.
        kind: "peer" or "orderer".
        running: whether its servers run.
        heights: number of blocks that a peer has of each of its channels; empty for an ordering node.
        lagging: channels on which a peer lags on request.
    """

    host: str
    msp_id: str
    kind: str
    running: bool
    heights: dict[str, int]
    lagging: list[str]


class Nodes(Protocol):
    """Ends and starts the servers of single nodes (`EmbeddedLedger`)."""

    @property
    def nodes(self) -> Mapping[str, str]:
        """MSP ids by host name."""
        ...

    def is_running(self, host: str) -> bool:
        """Whether a node's servers run."""
        ...

    async def end(self, host: str) -> None:
        """End a node."""
        ...

    async def begin(self, host: str) -> None:
        """Start an ended node."""
        ...


class NodeUnknownError(LedgerError):
    """The ledger has no such node, or none of that kind. `host` is the name that was given."""

    def __init__(self, host: str, kind: str, there: Iterable[str]) -> None:
        super().__init__(f"there is no {kind} {host[:80]!r}; there are: {', '.join(there) or 'none'}")
        self.host = host


class LedgerTools:
    """The tools of one ledger. Methods are called in the thread of its event loop."""

    def __init__(self, directory: Path, registry: Registry, clock: LedgerClock, faults: Faults, nodes: Nodes) -> None:
        """For `EmbeddedLedger`."""
        self._directory = directory
        self._registry = registry
        self._clock = clock
        self._faults = faults
        self._nodes = nodes
        self._snapshots = Snapshots(directory / "snapshots", registry, clock)

    # Snapshots ----------------------------------------------------------------------------------------------------

    async def snapshot(self, name: str) -> LedgerSnapshot:
        """Keep all that is committed now under a name. Raises SnapshotError, StorageError."""
        return await self._snapshots.take(name)

    async def revert(self, name: str) -> LedgerSnapshot:
        """Go back to a snapshot, which stays. See `Snapshots.revert`. Raises SnapshotError, StorageError."""
        snapshot = await self._snapshots.revert(name)
        self._keep_time()
        return snapshot

    async def snapshots(self) -> list[LedgerSnapshot]:
        """The snapshots, oldest first."""
        return await asyncio.to_thread(self._snapshots.all)

    async def drop_snapshot(self, name: str) -> None:
        """Delete a snapshot. Raises SnapshotError, StorageError."""
        await self._snapshots.drop(name)

    async def dump(self, path: Path) -> LedgerSnapshot:
        """Write all that is committed now, and the installed packages, into a new file (mode 0600).

        Raises DumpError, StorageError.
        """
        name = f"dump-{secrets.token_hex(8)}"
        snapshot = await self._snapshots.take(name)
        try:
            await asyncio.to_thread(write_dump, path, self._snapshots.folder_of(name), self._registry)
        finally:
            await self._snapshots.drop(name)
        return snapshot

    async def load(self, path: Path) -> LedgerSnapshot:
        """Take over what a dump holds, instead of what is here, which is lost.

        The channels of the dump must have been joined here and begin with the same blocks. Raises DumpError,
        SnapshotError, StorageError.
        """
        folder = self._snapshots.folder_of(f"load-{secrets.token_hex(8)}")
        try:
            snapshot = await asyncio.to_thread(read_dump, path, folder)
            loaded = await self._snapshots.become(folder, snapshot)
            install_packages(folder, self._registry)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self._keep_time()
        return loaded

    # Time ---------------------------------------------------------------------------------------------------------

    async def time(self) -> LedgerTime:
        """The ledger's time."""
        return LedgerTime(self._clock.now(), self._clock.shift.total_seconds())

    async def advance(self, seconds: float) -> LedgerTime:
        """Move the ledger's time forward: for certificates, and for what contracts are told. Raises TimeRefused."""
        self._clock.advance(timedelta(seconds=seconds))
        self._keep_time()
        return await self.time()

    def _keep_time(self) -> None:
        path = time_file(self._directory)
        with storage_errors(path):
            write_durably(path, str(self._clock.shift.total_seconds()).encode())

    # Blocks -------------------------------------------------------------------------------------------------------

    async def chains(self) -> dict[str, Chain]:
        """The channels by name."""
        return {
            name: Chain(channel.height, channel.pending, channel.cutting)
            for name, channel in sorted(self._registry.channels.items())
        }

    async def cut(self, channel: str) -> int:
        """Cut a block from what is pending and return the height once it is committed. Raises ChannelUnknownError."""
        return await self._channel(channel).cut()

    async def set_cutting(self, channel: str, cutting: Cutting) -> Chain:
        """Override a channel's batch settings until the process ends; `Cutting()` ends that.

        Raises ChannelUnknownError.
        """
        found = self._channel(channel)
        found.cutting = cutting
        return Chain(found.height, found.pending, found.cutting)

    async def export_blocks(self, channel: str, folder: Path, start: int = 0, stop: int | None = None) -> int:
        """Write blocks, with the metadata of a peer, as `<number>.block` into a new folder; return how many.

        Raises ChannelUnknownError, StorageError.
        """
        found = self._channel(channel)
        last = found.height - 1 if stop is None else min(stop, found.height - 1)

        def write() -> int:
            with storage_errors(folder):
                folder.mkdir(mode=0o700, parents=True)
            return max(last - start + 1, 0)

        count = await asyncio.to_thread(write)
        for number in range(start, last + 1):
            block = found.block(number)
            assert block is not None  # below the height
            path = folder / f"{number}.block"
            with storage_errors(path):
                await asyncio.to_thread(path.write_bytes, block)
        return count

    async def import_blocks(self, channel: str, paths: list[Path]) -> int:
        """Append blocks that ordering nodes elsewhere made, such as `peer channel fetch` writes; return the height.

        Each is judged as a peer judges it and committed. Those that the channel has already are passed over if they are
        the same. Raises BlockRefused at the first that does not fit (those before it stay), ChannelUnknownError,
        StorageError.
        """
        found = self._channel(channel)
        for path in paths:
            with storage_errors(path):
                block = await asyncio.to_thread(path.read_bytes)
            await found.follow(block)
        return found.height

    def _channel(self, name: str) -> Channel:
        found = self._registry.channels.get(name)
        if found is None:
            raise ChannelUnknownError(name, sorted(self._registry.channels))
        return found

    # Nodes --------------------------------------------------------------------------------------------------------

    async def nodes(self) -> list[NodeState]:
        """The peers, then the ordering nodes."""
        peers = {peer.host: peer for peer in self._registry.peers.values()}
        found = [self._state(peer) for peer in peers.values()]
        return found + [
            NodeState(host, msp_id, "orderer", self._nodes.is_running(host), {}, [])
            for host, msp_id in self._nodes.nodes.items()
            if host not in peers
        ]

    async def lag(self, peer: str, blocks: int | None = None, channel: str = "") -> NodeState:
        """Have a peer fall behind on a channel, or on all of its channels, until `catch_up` or the end of the process.

        It stays `blocks` (1 to `MAX_BLOCKS_BEHIND`) blocks behind, or without that at the block that it has now: what
        it answers, endorses and delivers is of that state. A snapshot that is reverted to ends it too.

        Raises NodeUnknownError, ChannelUnknownError, and LedgerError for another number of blocks.
        """
        if blocks is not None and not 1 <= blocks <= MAX_BLOCKS_BEHIND:
            raise LedgerError(f"a peer can stay 1 to {MAX_BLOCKS_BEHIND} blocks behind, or stand still; not {blocks}")
        found = self._peer(peer)
        for name in self._channels_of(found, channel):
            key = (found.host, name)
            if key not in self._registry.followers:
                self._registry.followers[key] = self._channel(name).follower()
            self._registry.followers[key].hold(blocks)
        return self._state(found)

    async def catch_up(self, peer: str, channel: str = "") -> NodeState:
        """Have a peer that lags catch up, on a channel or on all. Raises NodeUnknownError, ChannelUnknownError."""
        found = self._peer(peer)
        for name in self._channels_of(found, channel):
            follower = self._registry.followers.get((found.host, name))
            if follower is not None:
                follower.release()
        return self._state(found)

    async def end_node(self, host: str) -> list[NodeState]:
        """End a node's servers at once, as when its process dies. Raises NodeUnknownError."""
        self._check_node(host)
        await self._nodes.end(host)
        return await self.nodes()

    async def begin_node(self, host: str) -> list[NodeState]:
        """Start the servers of a node that was ended, on the same addresses. Raises NodeUnknownError, AddressInUseError."""
        self._check_node(host)
        await self._nodes.begin(host)
        return await self.nodes()

    def _check_node(self, host: str) -> None:
        if host not in self._nodes.nodes:
            raise NodeUnknownError(host, "node", self._nodes.nodes)

    def _peer(self, host: str) -> Peer:
        for peer in self._registry.peers.values():
            if peer.host == host:
                return peer
        raise NodeUnknownError(host, "peer", (peer.host for peer in self._registry.peers.values()))

    def _channels_of(self, peer: Peer, channel: str = "") -> list[str]:
        names = [name for name in sorted(self._registry.channels) if self._registry.channel_of(peer, name) is not None]
        if channel and channel not in names:
            raise ChannelUnknownError(channel, names)
        return [channel] if channel else names

    def _state(self, peer: Peer) -> NodeState:
        names = self._channels_of(peer)
        followers = {name: self._registry.followers.get((peer.host, name)) for name in names}
        return NodeState(
            host=peer.host,
            msp_id=peer.msp_id,
            kind="peer",
            running=peer.is_running,
            heights={name: self._registry.height_of(peer, name) for name in names},
            lagging=[name for name, follower in followers.items() if follower and follower.blocks_behind != 0],
        )

    # Faults -------------------------------------------------------------------------------------------------------

    async def add_fault(self, fault: Fault) -> list[Fault]:
        """Ask for a fault; return all that are asked for. Raises FaultRefused."""
        self._faults.add(fault)
        return list(self._faults)

    async def faults(self) -> list[Fault]:
        """The faults that are asked for."""
        return list(self._faults)

    async def clear_faults(self, point: str = "") -> int:
        """Take back the faults at a point, or all; return how many."""
        return self._faults.clear(point)


OPERATIONS: frozenset[str] = frozenset(
    name for name, found in vars(LedgerTools).items() if not name.startswith("_") and callable(found)
)
"""Names of the methods, for who asks from another process."""


def operation(tools: LedgerTools, name: str) -> Callable[..., Any]:
    """A method by its name. Raises LedgerError for one that there is not."""
    if name not in OPERATIONS:
        raise LedgerError(f"there is no operation {name[:80]!r}; there are: {', '.join(sorted(OPERATIONS))}")
    found: Callable[..., Any] = getattr(tools, name)
    return found


def time_file(directory: Path) -> Path:
    """Where a ledger notes how many seconds its time is ahead."""
    return directory / "ledger" / "time-shift"


def stored_shift(directory: Path) -> timedelta:
    """How far the time of the ledger in a directory is ahead. Raises StorageError."""
    path = time_file(directory)
    with storage_errors(path):
        try:
            return timedelta(seconds=float(path.read_text()))
        except FileNotFoundError:
            return timedelta(0)
        except (ValueError, OverflowError) as error:
            raise LedgerError(f"{path} holds no number of seconds; delete it to go by the system's time") from error
