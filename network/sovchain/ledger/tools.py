"""What no peer of Fabric offers: snapshots, dumps, time, block cutting by hand, faults, blocks from elsewhere.

`EmbeddedLedger.tools` gives them in the process; `sovchain.network.Network.ledger` and `sovchain ledger` from anywhere.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sovchain.ledger.channel import Channel
from sovchain.ledger.clock import LedgerClock
from sovchain.ledger.cutting import Cutting
from sovchain.ledger.database import storage_errors, write_durably
from sovchain.ledger.dumps import install_packages, read_dump, write_dump
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.faults import Fault, Faults
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


class LedgerTools:
    """The tools of one ledger. Methods are called in the thread of its event loop."""

    def __init__(self, directory: Path, registry: Registry, clock: LedgerClock, faults: Faults) -> None:
        """For `EmbeddedLedger`."""
        self._directory = directory
        self._registry = registry
        self._clock = clock
        self._faults = faults
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
