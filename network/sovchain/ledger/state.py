"""Committed state for reading: one consistent view of public, hashed and private data.

A view is a set of read connections (the channel's file and every organisation's private file) whose read
transactions were begun between two commits. All snapshots that are taken between the same two commits share one
view, so taking one costs next to nothing and never waits for a commit.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Protocol, Self

from fabric_protos.common import common_pb2
from fabric_protos.ledger.queryresult import kv_query_result_pb2

from sovchain.ledger.database import storage_errors
from sovchain.ledger.errors import LedgerError, StorageCorrupt, StorageError
from sovchain.ledger.history import key_modification
from sovchain.ledger.storage import decode_metadata, read_chain
from sovchain.protocol.rwset import Version

_IDLE_VIEWS = 4
_KEPT_ENTRIES = 1_024
_KEPT_VALUE_BYTES = 1_024
_NO_METADATA: Mapping[str, bytes] = {}

_ENTRY = "SELECT value, metadata, block, tx FROM state WHERE ns = ? AND key = ?"
_HASHED = "SELECT value_hash, metadata, block, tx FROM hashed WHERE ns = ? AND coll = ? AND key_hash = ?"
_RANGE = "SELECT key, value, block, tx FROM state WHERE ns = ? AND key >= ? ORDER BY key"
_RANGE_TO = "SELECT key, value, block, tx FROM state WHERE ns = ? AND key >= ? AND key < ? ORDER BY key"
_HISTORY = "SELECT block, tx FROM history WHERE ns = ? AND key = ? ORDER BY block DESC, tx DESC"
_LAST_WRITE = (
    "SELECT block, tx FROM history WHERE ns = ? AND key = ? AND block < ? ORDER BY block DESC, tx DESC LIMIT 1"
)
_PRIVATE_WRITTEN = "SELECT tx, ns, coll, rwset FROM written WHERE block = ? ORDER BY tx, ns, coll"
_PRIVATE = "SELECT value, block, tx FROM private_state WHERE ns = ? AND coll = ? AND key = ?"
_PRIVATE_RANGE = "SELECT key, value, block, tx FROM private_state WHERE ns = ? AND coll = ? AND key >= ? ORDER BY key"
_PRIVATE_RANGE_TO = (
    "SELECT key, value, block, tx FROM private_state WHERE ns = ? AND coll = ? AND key >= ? AND key < ? ORDER BY key"
)

_TRANSACTION = "SELECT block, tx, code, reason FROM transactions WHERE id = ?"
_BLOCK = "SELECT bytes FROM blocks WHERE number = ?"
_BLOCK_BY_HASH = "SELECT bytes FROM blocks WHERE hash = ?"

Entry = tuple[bytes, bytes | None, Version]
"""Value, stored metadata and version of a public key; or value hash, metadata and version of a private one."""


class TransactionRow(NamedTuple):
    """Index entry of a committed transaction: where it is, its validation code, and why it is invalid ("" if valid)."""

    block: int
    position: int
    code: int
    reason: str


class PrivateWriteSet(NamedTuple):
    """What the transaction at `position` of a block wrote to a collection: a marshalled kvrwset.KVRWSet."""

    position: int
    namespace: str
    collection: str
    write_set: bytes


class CommittedState:
    """Public and hashed state as one connection sees it; a `protocol.commit.StateReader`.

    Keys are stored as their UTF-8 bytes and compared as such, which is LevelDB's order
    (`core/ledger/kvledger/txmgmt/statedb/stateleveldb`).
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection that is read through."""
        return self._connection

    def entry(self, namespace: str, key: str) -> Entry | None:
        """Value, stored metadata and version of a public key, in one read."""
        return self._one(_ENTRY, (namespace, key.encode()))

    def hashed_entry(self, namespace: str, collection: str, key_hash: bytes) -> Entry | None:
        """Value hash, stored metadata and version of a private key, in one read."""
        return self._one(_HASHED, (namespace, collection, key_hash))

    def get(self, namespace: str, key: str) -> bytes | None:
        """Value of a public key, None if absent."""
        entry = self._one(_ENTRY, (namespace, key.encode()))
        return entry[0] if entry else None

    def version(self, namespace: str, key: str) -> Version | None:
        """Version of a public key, None if absent."""
        entry = self._one(_ENTRY, (namespace, key.encode()))
        return entry[2] if entry else None

    def metadata(self, namespace: str, key: str) -> Mapping[str, bytes]:
        """Metadata of a public key, empty if there is none."""
        entry = self._one(_ENTRY, (namespace, key.encode()))
        return decode_metadata(entry[1]) if entry else _NO_METADATA

    def hashed_version(self, namespace: str, collection: str, key_hash: bytes) -> Version | None:
        """Version of a private key, None if absent."""
        entry = self._one(_HASHED, (namespace, collection, key_hash))
        return entry[2] if entry else None

    def hashed_value(self, namespace: str, collection: str, key_hash: bytes) -> bytes | None:
        """SHA-256 of a private key's value, None if absent."""
        entry = self._one(_HASHED, (namespace, collection, key_hash))
        return entry[0] if entry else None

    def hashed_metadata(self, namespace: str, collection: str, key_hash: bytes) -> Mapping[str, bytes]:
        """Metadata of a private key, empty if there is none."""
        entry = self._one(_HASHED, (namespace, collection, key_hash))
        return decode_metadata(entry[1]) if entry else _NO_METADATA

    def range(self, namespace: str, start: str, end: str) -> Iterator[tuple[str, bytes, Version]]:
        """Keys from `start` (inclusive) to `end` (exclusive; empty: to the last key) in byte order of their UTF-8."""
        if end:
            return self._rows(self._connection, _RANGE_TO, (namespace, start.encode(), end.encode()))
        return self._rows(self._connection, _RANGE, (namespace, start.encode()))

    def transaction(self, transaction_id: str) -> TransactionRow | None:
        """Where a committed transaction is and how it was judged; None if no block has it."""
        row = self._first(_TRANSACTION, (transaction_id,))
        return None if row is None else TransactionRow(*row)

    def transaction_exists(self, transaction_id: str) -> bool:
        """Whether a committed block has a transaction with this id, valid or not."""
        return self._first(_TRANSACTION, (transaction_id,)) is not None

    def _first(self, statement: str, values: tuple[str | bytes | int, ...]) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            self._failed(error)
        return row

    def _one(self, statement: str, values: tuple[str | bytes, ...]) -> Entry | None:
        row = self._first(statement, values)
        return None if row is None else (row[0], row[1], Version(row[2], row[3]))

    def _rows(
        self, connection: sqlite3.Connection, statement: str, values: tuple[str | bytes, ...]
    ) -> Iterator[tuple[str, bytes, Version]]:
        try:
            cursor = connection.execute(statement, values)
            self._opened(cursor)
            try:
                for key, value, block, tx in cursor:
                    yield key.decode(), value, Version(block, tx)
            finally:
                self._finished(cursor)
        except sqlite3.Error as error:
            self._failed(error)

    def _opened(self, cursor: sqlite3.Cursor) -> None:
        """A range query began."""

    def _finished(self, cursor: sqlite3.Cursor) -> None:
        """A range query was read to its end, or given up."""
        cursor.close()

    def _failed(self, error: sqlite3.Error) -> NoReturn:
        raise StorageError(self._path, f"{type(error).__name__}: {error}".lower()) from error


class Snapshot(CommittedState):
    """One committed view of a channel: the state after block `height - 1`, for as long as it is open.

    Implements `protocol.commit.StateReader`. Reads are synchronous and take microseconds; use it in the thread of the
    event loop only, share it between the simulators of one proposal, and close it (it is a context manager): an open
    snapshot keeps the write-ahead logs of the channel from being emptied. Reading after `close` raises `LedgerError`.
    """

    def __init__(self, view: View) -> None:
        super().__init__(view.path, view.connection)
        self.height = view.height
        """Number of blocks that this view contains."""
        self._view: View | None = view
        self._cursors: set[sqlite3.Cursor] = set()
        view.references += 1

    def entry(self, namespace: str, key: str) -> Entry | None:
        """As `CommittedState.entry`. What was read before in the same view is not read again: it cannot have changed."""
        view, place = self._view, (namespace, key)
        if view is None:
            return super().entry(namespace, key)
        if place in view.entries:
            return view.entries[place]
        found = super().entry(namespace, key)
        if len(view.entries) < _KEPT_ENTRIES and (found is None or len(found[0]) <= _KEPT_VALUE_BYTES):
            view.entries[place] = found
        return found

    def private(self, msp_id: str, namespace: str, collection: str, key: str) -> tuple[bytes, Version] | None:
        """The private value that the store of `msp_id` holds, with its version; None if it holds none."""
        connection = self._private_connection(msp_id)
        try:
            row = connection.execute(_PRIVATE, (namespace, collection, key.encode())).fetchone()
        except sqlite3.Error as error:
            self._failed(error)
        return None if row is None else (row[0], Version(row[1], row[2]))

    def private_range(
        self, msp_id: str, namespace: str, collection: str, start: str, end: str
    ) -> Iterator[tuple[str, bytes, Version]]:
        """Private keys of one organisation's store in a range, as `range`."""
        connection = self._private_connection(msp_id)
        if end:
            values = (namespace, collection, start.encode(), end.encode())
            return self._rows(connection, _PRIVATE_RANGE_TO, values)
        return self._rows(connection, _PRIVATE_RANGE, (namespace, collection, start.encode()))

    def history(self, namespace: str, key: str) -> Iterator[kv_query_result_pb2.KeyModification]:
        """What valid transactions did to a public key, newest first (`core/ledger/kvledger/history`)."""
        try:
            places = self._connection.execute(_HISTORY, (namespace, key.encode())).fetchall()
        except sqlite3.Error as error:
            self._failed(error)
        number, block = -1, common_pb2.Block()
        for at, tx in places:
            if at != number:
                stored = self.block(at)
                if stored is None:
                    raise StorageCorrupt(self._path, "the history names a block that is missing", at)
                number, block = at, common_pb2.Block.FromString(stored)
            yield key_modification(block.data.data[tx], namespace, key)

    def value_before(self, namespace: str, key: str, number: int) -> bytes | None:
        """Value that a public key had before block `number`, None if it was absent."""
        place = self._first(_LAST_WRITE, (namespace, key.encode(), number))
        if place is None:
            return None
        stored = self.block(place[0])
        if stored is None:
            raise StorageCorrupt(self._path, "the history names a block that is missing", place[0])
        written = key_modification(common_pb2.Block.FromString(stored).data.data[place[1]], namespace, key)
        return None if written.is_delete else written.value

    def private_written(self, msp_id: str, number: int) -> list[PrivateWriteSet]:
        """What the transactions of a block wrote to the collections that `msp_id` holds, in their order.

        Nothing of what has expired, and without the keys that were purged later
        (`core/ledger/pvtdatastorage/store.go` GetPvtDataByBlockNum).
        """
        connection = self._private_connection(msp_id)
        try:
            return [PrivateWriteSet(*row) for row in connection.execute(_PRIVATE_WRITTEN, (number,))]
        except sqlite3.Error as error:
            self._failed(error)

    def block(self, number: int) -> bytes | None:
        """A block of this view, None beyond its end."""
        if not 0 <= number < self.height:
            return None
        row = self._first(_BLOCK, (number,))
        return row[0] if row else None

    def block_by_hash(self, header_hash: bytes) -> bytes | None:
        """The block of this view whose header has this hash."""
        row = self._first(_BLOCK_BY_HASH, (header_hash,))
        return row[0] if row else None

    def close(self) -> None:
        """Give the view back. May be called more than once."""
        view, self._view = self._view, None
        if view is None:
            return
        # A statement that is still stepping would keep the old view alive on a connection that is used again.
        for cursor in tuple(self._cursors):
            cursor.close()
        self._cursors.clear()
        self._connection = _CLOSED
        view.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _private_connection(self, msp_id: str) -> sqlite3.Connection:
        if self._view is None:
            return _CLOSED
        try:
            return self._view.private[msp_id]
        except KeyError:
            raise LedgerError(
                f"no private data of {msp_id} is kept on this channel: none of its peers run here; ask one of "
                f"{', '.join(self._view.private) or 'no organisation'}"
            ) from None

    def _opened(self, cursor: sqlite3.Cursor) -> None:
        self._cursors.add(cursor)

    def _finished(self, cursor: sqlite3.Cursor) -> None:
        # After `close` the cursor is closed already, and its connection perhaps too.
        if cursor in self._cursors:
            self._cursors.discard(cursor)
            cursor.close()


class _ClosedConnection:
    """Stands in for the connection of a closed snapshot."""

    def execute(self, *_: object) -> NoReturn:
        raise LedgerError("the snapshot is closed; take a new one with Channel.snapshot()")


_CLOSED: sqlite3.Connection = _ClosedConnection()  # type: ignore[assignment]  # only `execute` is ever called on it


class Readable(Protocol):
    """A store that gives further connections for readers."""

    path: Path

    def read_connection(self) -> sqlite3.Connection: ...


class View:
    """Read connections with open transactions that all stand between the same two commits. Counted references."""

    def __init__(self, pool: ViewPool, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self.private: dict[str, sqlite3.Connection] = {}
        self.height = 0
        self.references = 0
        self.entries: dict[tuple[str, str], Entry | None] = {}
        self._pool = pool

    def begin(self) -> None:
        """Begin the read transactions. No commit may be under way."""
        self.entries.clear()
        with storage_errors(self.path):
            self.connection.execute("BEGIN")
            self.height = read_chain(self.path, self.connection).height
            for connection in self.private.values():
                connection.execute("BEGIN")
                connection.execute("SELECT height FROM savepoint").fetchone()

    def release(self) -> None:
        """Drop one reference; the last one ends the read transactions."""
        self.references -= 1
        if self.references == 0:
            self._pool.recycle(self)

    def end(self) -> None:
        """End the read transactions."""
        for connection in (self.connection, *self.private.values()):
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connections."""
        for connection in (self.connection, *self.private.values()):
            connection.close()


class ViewPool:
    """Opens views on a channel's stores and keeps a few idle ones, so that a commit costs no new connections."""

    def __init__(self, store: Readable, private: Mapping[str, Readable]) -> None:
        self._store = store
        self._private = private
        self._idle: deque[View] = deque()
        self._closed = False

    def open(self, height: int) -> View:
        """A view of the state at `height` blocks. Call it between two commits, in the thread that commits."""
        view = self._idle.popleft() if self._idle else self._connect()
        try:
            view.begin()
            if view.height != height:
                raise StorageCorrupt(view.path, f"a reader sees {view.height} blocks after {height} were written")
        except BaseException:
            view.close()
            raise
        return view

    def renew(self) -> None:
        """Open the next views anew: there is one more store."""
        while self._idle:
            self._idle.popleft().close()

    def recycle(self, view: View) -> None:
        """Take back a view that nobody reads any more."""
        view.end()
        if self._closed or len(view.private) != len(self._private) or len(self._idle) >= _IDLE_VIEWS:
            view.close()
        else:
            self._idle.append(view)

    def close(self) -> None:
        """Close the idle views now, and the others as they are given back."""
        self._closed = True
        while self._idle:
            self._idle.popleft().close()

    def _connect(self) -> View:
        view = View(self, self._store.path, self._store.read_connection())
        try:
            for msp_id, store in self._private.items():
                view.private[msp_id] = store.read_connection()
        except BaseException:
            view.close()
            raise
        return view
