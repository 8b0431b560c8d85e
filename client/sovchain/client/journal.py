"""A durable record of what was submitted under which idempotency key.

With it `submit(..., idempotency_key="order-17")` has at most one effect, whatever dies in between: the transaction is
recorded before it is sent, and whoever asks again under the same key hears what became of it, or has the very same
bytes sent again. A peer commits a transaction id once.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

from sovchain.client.errors import JournalError

T = TypeVar("T")

SENT: Final = "sent"
COMMITTED: Final = "committed"
REJECTED: Final = "rejected"
KEY_MOST: Final = 200
"""Longest idempotency key, in characters."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What is recorded for one key.

    Attributes:
        key: the idempotency key, unique in the journal.
        channel_id: the channel.
        fingerprint: SHA-256 of chaincode, arguments and transient data, in hexadecimal.
        transaction_id: the transaction that was sent last under the key.
        envelope: its signed bytes (common.Envelope). They hold the arguments, as the ledger does.
        state: `sent`, `committed` or `rejected`.
        code: validation code, once it is known.
        block_number: the block that holds it, once it is known; else 0.
    """

    key: str
    channel_id: str
    fingerprint: str
    transaction_id: str
    envelope: bytes = field(repr=False)
    state: str = SENT
    code: int = 0
    block_number: int = 0


class Journal(Protocol):
    """Keeps entries durably. Several processes may share one."""

    async def get(self, key: str) -> JournalEntry | None:
        """Return the entry of a key, None if there is none. Raises JournalError."""

    async def record(self, entry: JournalEntry, *, instead_of: str = "") -> JournalEntry:
        """Record an entry durably before its transaction is sent, and return what stands under its key then.

        It is recorded if the key is new, or if its entry is `rejected` and has the transaction id `instead_of`;
        otherwise somebody else was first, and their entry is returned. Raises JournalError.
        """
        ...

    async def settle(self, key: str, transaction_id: str, code: int, block_number: int) -> None:
        """Note what became of a transaction: `committed` for code 0, else `rejected`. Raises JournalError."""


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS submits (
    key TEXT PRIMARY KEY, channel_id TEXT NOT NULL, fingerprint TEXT NOT NULL, transaction_id TEXT NOT NULL,
    envelope BLOB NOT NULL, state TEXT NOT NULL, code INTEGER NOT NULL, block_number INTEGER NOT NULL,
    recorded_at REAL NOT NULL
) STRICT
"""
_COLUMNS: Final = "key, channel_id, fingerprint, transaction_id, envelope, state, code, block_number"


class SqliteJournal:
    """A journal in an SQLite file, readable by its owner alone. Several processes of a machine may use it at once."""

    def __init__(self, path: Path | str) -> None:
        """Open the journal, made if it is not there. Raises JournalError."""
        self._path = Path(path)
        self._lock = threading.Lock()
        try:
            # Made with its mode before SQLite opens it: there is no moment at which others can read it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(self._path, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"cannot be opened ({error})", source=str(path)) from error

    async def get(self, key: str) -> JournalEntry | None:
        """Return the entry of a key, None if there is none. Raises JournalError."""
        return await self._run(lambda: self._get(key))

    async def record(self, entry: JournalEntry, *, instead_of: str = "") -> JournalEntry:
        """Record an entry durably, unless somebody else was first. Raises JournalError."""
        return await self._run(lambda: self._record(entry, instead_of))

    async def settle(self, key: str, transaction_id: str, code: int, block_number: int) -> None:
        """Note what became of a transaction. Raises JournalError."""
        state = REJECTED if code else COMMITTED
        change = "UPDATE submits SET state = ?, code = ?, block_number = ? WHERE key = ? AND transaction_id = ?"
        await self._run(lambda: self._database.execute(change, (state, code, block_number, key, transaction_id)))

    async def unsettled(self) -> list[JournalEntry]:
        """Return what was sent and whose outcome is not recorded, oldest first. Raises JournalError."""
        ask = f"SELECT {_COLUMNS} FROM submits WHERE state = ? ORDER BY recorded_at"  # noqa: S608 - constants
        rows = await self._run(lambda: self._database.execute(ask, (SENT,)).fetchall())
        return [JournalEntry(*row) for row in rows]

    async def forget(self, older_than_s: float) -> int:
        """Remove settled entries that were recorded before so many seconds; return their number.

        A key that is forgotten counts as new. Raises JournalError.
        """
        change = "DELETE FROM submits WHERE state <> ? AND recorded_at < ?"
        before = time.time() - older_than_s
        return await self._run(lambda: self._database.execute(change, (SENT, before)).rowcount)

    def close(self) -> None:
        """Close the file. May be called more than once."""
        self._database.close()

    def _get(self, key: str) -> JournalEntry | None:
        ask = f"SELECT {_COLUMNS} FROM submits WHERE key = ?"  # noqa: S608 - constants
        row = self._database.execute(ask, (key,)).fetchone()
        return None if row is None else JournalEntry(*row)

    def _record(self, entry: JournalEntry, instead_of: str) -> JournalEntry:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            there = self._get(entry.key)
            if there is None or (there.state == REJECTED and there.transaction_id == instead_of):
                self._database.execute(
                    f"INSERT OR REPLACE INTO submits ({_COLUMNS}, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                    (
                        entry.key, entry.channel_id, entry.fingerprint, entry.transaction_id, entry.envelope,
                        entry.state, entry.code, entry.block_number, time.time(),
                    ),
                )  # fmt: skip
                there = entry
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        return there

    async def _run(self, work: Callable[[], T]) -> T:
        def locked() -> T:
            with self._lock:
                return work()

        try:
            return await asyncio.to_thread(locked)
        except sqlite3.Error as error:
            raise JournalError(f"cannot be used ({error})", source=str(self._path)) from error
