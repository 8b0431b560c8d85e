"""Checkpoints: how far a listener has come, kept in memory or in a file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from sovchain.client.errors import CheckpointError

FILE_MAX_BYTES = 4096
"""Most that is read of a checkpoint file; one holds about 110 bytes."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the ledger: everything up to and including a transaction of a block, or everything before a block.

    Attributes:
        block_number: the block to go on in.
        transaction_id: the last transaction in it that is done; empty if none is.
    """

    block_number: int
    transaction_id: str = ""


@runtime_checkable
class Checkpointer(Protocol):
    """Keeps a position. Implement it to keep positions in a database, in the same transaction as your own data."""

    async def load(self) -> Position | None:
        """Return the position, or None if there is none yet. Raises CheckpointError."""

    async def save(self, position: Position) -> None:
        """Replace the position. Raises CheckpointError."""


class MemoryCheckpointer:
    """Keeps a position for the life of the process."""

    def __init__(self, position: Position | None = None) -> None:
        self._position = position

    async def load(self) -> Position | None:
        """Return the position."""
        return self._position

    async def save(self, position: Position) -> None:
        """Replace the position."""
        self._position = position


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder last: without this a power cut may bring the old file back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileCheckpointer:
    """Keeps a position in a file, replaced as a whole: a crash leaves the old position or the new one.

    The file is JSON, `{"blockNumber": "7", "transactionId": "…"}`, as the official Node client writes it; the number form
    of the Go client is read too.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)

    async def load(self) -> Position | None:
        """Return the position, None if there is no file. Raises CheckpointError for a file that cannot be used."""
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(FILE_MAX_BYTES))
            number = int(document["blockNumber"])
            transaction_id = document.get("transactionId") or ""
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"cannot be read ({error.strerror})", source=str(self._path)) from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise CheckpointError("holds no position: remove it to start anew", source=str(self._path)) from None
        if not 0 <= number < 2**64 or not isinstance(transaction_id, str):
            raise CheckpointError("holds no position: remove it to start anew", source=str(self._path))
        return Position(number, transaction_id)

    async def save(self, position: Position) -> None:
        """Replace the position, durably. Raises CheckpointError."""
        document = {"blockNumber": str(position.block_number), "transactionId": position.transaction_id or None}
        part = self._path.with_name(self._path.name + ".part")
        try:
            with part.open("wb") as file:
                file.write(json.dumps({name: value for name, value in document.items() if value}).encode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise CheckpointError(f"cannot be written ({error.strerror})", source=str(self._path)) from error
