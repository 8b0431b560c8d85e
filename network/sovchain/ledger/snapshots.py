"""Snapshots of a whole ledger: every channel's files, installed packages and the ledger's time; kept until dropped.

    snapshots/<name>/manifest.json             written last: a folder without it is no snapshot
    snapshots/<name>/channels/<channel>/...    copies of the channel's files (`saved`)

They hold private data and are readable by the ledger's owner only. A dump is a snapshot in one file (`dumps`).
"""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from sovchain.ledger.clock import LedgerClock
from sovchain.ledger.database import make_directory, storage_errors, write_durably
from sovchain.ledger.errors import LedgerError, StorageCorrupt
from sovchain.ledger.registry import Registry

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class SnapshotError(LedgerError):
    """A snapshot cannot be taken, found or gone back to. `name` is the snapshot's, `reason` says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot use snapshot {name!r}: {reason}")
        self.name = name
        self.reason = reason


@dataclass(frozen=True)
class SavedChannel:
    """A channel in a snapshot: the hash of its first block's header, and where its chain ends."""

    genesis_hash: str
    height: int
    last_hash: str


@dataclass(frozen=True)
class LedgerSnapshot:
    """A snapshot of a ledger.

    Attributes:
        name: by which it is gone back to.
        taken_at: the system's time then.
        shift_s: seconds that the ledger's time was ahead of the system's.
        channels: the channels by name.
        packages: ids of the packages that were installed, by organisation.
        format: number of the snapshot's format.
    """

    name: str
    taken_at: datetime
    shift_s: float
    channels: dict[str, SavedChannel]
    packages: dict[str, list[str]]
    format: int = FORMAT


MANIFEST_TYPE: Final = TypeAdapter(LedgerSnapshot)


class Snapshots:
    """The snapshots of one ledger, in a folder of its directory."""

    def __init__(self, folder: Path, registry: Registry, clock: LedgerClock) -> None:
        self._folder = folder
        self._registry = registry
        self._clock = clock
        self._changing = asyncio.Lock()

    def folder_of(self, name: str) -> Path:
        """Where a snapshot's files are. Raises SnapshotError for what can be no name."""
        if not _NAME.fullmatch(name):
            raise SnapshotError(name[:80], "a name has up to 64 letters, digits and . _ -, the first no punctuation")
        return self._folder / name

    def all(self) -> list[LedgerSnapshot]:
        """The snapshots, oldest first. Raises StorageError."""
        found = [self.get(path.parent.name) for path in self._folder.glob(f"*/{MANIFEST}")]
        return sorted(found, key=lambda snapshot: (snapshot.taken_at, snapshot.name))

    def get(self, name: str) -> LedgerSnapshot:
        """A snapshot. Raises SnapshotError, StorageError."""
        path = self.folder_of(name) / MANIFEST
        try:
            snapshot = MANIFEST_TYPE.validate_json(path.read_bytes())
        except FileNotFoundError:
            there = ", ".join(sorted(one.parent.name for one in self._folder.glob(f"*/{MANIFEST}"))) or "none"
            raise SnapshotError(name, f"there is no such snapshot; there are: {there}") from None
        except (OSError, ValidationError) as error:
            raise StorageCorrupt(path, f"it cannot be read ({type(error).__name__})") from error
        if snapshot.format != FORMAT:
            raise SnapshotError(name, f"it has format {snapshot.format} and this version of sovchain reads {FORMAT}")
        return snapshot

    async def take(self, name: str) -> LedgerSnapshot:
        """Copy what is committed on all channels. What is pending is not part of it.

        Raises SnapshotError if there is one with this name, StorageError.
        """
        async with self._changing:
            folder = self.folder_of(name)
            if (folder / MANIFEST).exists():
                raise SnapshotError(name, "there is one with this name; drop it first or take another name")
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)  # what an interrupted one left
            make_directory(folder)
            names = sorted(self._registry.channels)
            saved = await asyncio.gather(*(self._save(folder, channel) for channel in names))
            snapshot = LedgerSnapshot(
                name=name,
                taken_at=datetime.now(UTC),
                shift_s=self._clock.shift.total_seconds(),
                channels=dict(zip(names, saved, strict=True)),
                packages={
                    msp_id: sorted(package.package_id for package in peer.packages)
                    for msp_id, peer in sorted(self._registry.peers.items())
                },
            )
            with storage_errors(folder):
                write_durably(folder / MANIFEST, MANIFEST_TYPE.dump_json(snapshot, indent=2))
            return snapshot

    async def _save(self, folder: Path, name: str) -> SavedChannel:
        channel = self._registry.channels[name]
        info = await channel.save(folder / "channels" / name)
        return SavedChannel(self._registry.genesis_hash(channel), info.height, info.current_block_hash.hex())

    async def revert(self, name: str) -> LedgerSnapshot:
        """Go back to a snapshot: blocks, state, private data, installed packages and the ledger's time.

        Channels that were joined since stay as they are. Raises SnapshotError, StorageError.
        """
        return await self.become(self.folder_of(name), self.get(name))

    async def become(self, folder: Path, snapshot: LedgerSnapshot) -> LedgerSnapshot:
        """Go back, or over, to the snapshot in a folder."""
        async with self._changing:
            for name, saved in snapshot.channels.items():
                self._check(snapshot.name, name, saved)
            await asyncio.gather(
                *(self._registry.channels[name].restore(folder / "channels" / name) for name in snapshot.channels)
            )
            self._registry.forget(snapshot.channels)
            for msp_id, package_ids in snapshot.packages.items():
                peer = self._registry.peers.get(msp_id)
                if peer is not None:
                    peer.packages.keep(package_ids)
            self._clock.shift = timedelta(seconds=snapshot.shift_s)
            return snapshot

    def _check(self, name: str, channel_id: str, saved: SavedChannel) -> None:
        channel = self._registry.channels.get(channel_id)
        if channel is None:
            raise SnapshotError(name, f"it has channel {channel_id}, which no node here has joined; join it first")
        if self._registry.genesis_hash(channel) != saved.genesis_hash:
            raise SnapshotError(
                name,
                f"its channel {channel_id} began with another block: it is of a network with other keys; "
                "bring up a network with the directory's organizations and channels folders of that one",
            )

    async def drop(self, name: str) -> None:
        """Delete a snapshot. Raises SnapshotError, StorageError."""
        async with self._changing:
            self.get(name)
            folder = self.folder_of(name)
            with storage_errors(folder):
                (folder / MANIFEST).unlink()  # first, so that what remains of an interrupted deletion is no snapshot
                await asyncio.to_thread(shutil.rmtree, folder)
