"""Checkpoints: how far a listener has come, kept in memory or in a file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from sovchain.client.errors import CheckpointError


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
            document = json.loads(self._path.read_bytes())
            number = int(document["blockNumber"])
            transaction_id = document.get("transactionId") or ""
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"cannot be read ({error.strerror})", source=str(self._path)) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError("holds no position: remove it to start anew", source=str(self._path)) from error
        if number < 0 or not isinstance(transaction_id, str):
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
        except OSError as error:
            raise CheckpointError(f"cannot be written ({error.strerror})", source=str(self._path)) from error
