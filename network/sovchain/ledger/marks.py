"""What stands beside a SQLite file so that damage to it is noticed: a mark of its last write, and a seal while it rests.

SQLite takes the first frame of a write-ahead log that does not fit its checksum for the end of the log. A flipped bit in
a log that a killed process has left so undoes the commits behind it, and what is left looks whole. `Mark` is a number
that is raised after each commit: a file that ends before it has lost something. It is written after the commit and not
forced to the disk, so that it is never ahead of what a crash of the machine has left.

A file that was closed has a `seal`, its size and SHA-256, which is checked and taken away when it is opened again. That
covers every byte, those that SQLite does not use included.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from pathlib import Path
from typing import Final

from sovchain.ledger.database import storage_errors, write_durably
from sovchain.ledger.errors import StorageCorrupt

_MARK: Final = re.compile(rb"([0-9]{20}) ([0-9a-f]{8})\n")


class Mark:
    """The number of the last write of a SQLite file that was acknowledged."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(f"{database.name}-mark")
        self._database = database
        self._descriptor: int | None = None

    def check(self, reached: int) -> None:
        """Compare with the number that the file has reached. Raises `StorageCorrupt` when writes are missing."""
        with storage_errors(self.path):
            try:
                content = self.path.read_bytes()
            except FileNotFoundError:
                return
        if not content:
            return  # the process died between making the file and writing to it
        found = _MARK.fullmatch(content)
        if found is None or int(found[2], 16) != zlib.crc32(found[1]):
            raise StorageCorrupt(self.path, "the mark of the last write is none that was ever written")
        if reached < int(found[1]):
            raise StorageCorrupt(
                self._database,
                f"it ends at write {reached}, and write {int(found[1])} was acknowledged: its write-ahead log was "
                "damaged or taken away",
            )

    def put(self, number: int) -> None:
        """Note a write that is committed. For one thread at a time."""
        with storage_errors(self.path):
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            digits = b"%020d" % number
            os.pwrite(self._descriptor, b"%s %08x\n" % (digits, zlib.crc32(digits)), 0)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def seal(database: Path) -> None:
    """Seal a SQLite file that is closed. Raises `StorageError`."""
    with storage_errors(database):
        if not database.with_name(f"{database.name}-wal").exists():  # another process has it open, or had
            write_durably(_seal_of(database), _digest(database))


def break_seal(database: Path) -> None:
    """Check the seal of a SQLite file, if it has one, and take it away. Raises `StorageCorrupt`, `StorageError`."""
    path = _seal_of(database)
    with storage_errors(path):
        try:
            sealed = path.read_bytes()
        except FileNotFoundError:
            return
        if sealed != _digest(database):
            raise StorageCorrupt(database, f"its bytes are not those that it was closed with (see {path.name})")
        path.unlink()
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def check_seal(database: Path) -> None:
    """Check the seal of a SQLite file, if it has one, and leave it. Raises `StorageCorrupt`, `StorageError`."""
    path = _seal_of(database)
    with storage_errors(path):
        if path.exists() and path.read_bytes() != _digest(database):
            raise StorageCorrupt(database, f"its bytes are not those that it was closed with (see {path.name})")


def forget(database: Path) -> None:
    """Take away what stands beside a file that is about to become another one."""
    for path in (_seal_of(database), Mark(database).path):
        path.unlink(missing_ok=True)


def _seal_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-seal")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.stat().st_size} {digest}\n".encode()
