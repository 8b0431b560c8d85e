"""One organisation's private data on one channel: current values, and the transient store that feeds them.

Private write sets arrive before endorsement and wait in the transient store. When the block with their transaction
commits, those whose hash the block carries become state; what is missing is recorded as a gap and invalidates
nothing (`core/ledger/kvledger/txmgmt/validation/batch_preparer.go`, `gossip/privdata/coordinator.go`). The store
follows the blocks with a savepoint height of its own and is brought up to them when the channel is opened. Deleted
values are overwritten with zeros, and the write-ahead log is emptied after a purge.

What each block wrote is kept too, for those who follow blocks with their private data (`pvtdatastorage/store.go`):
until it expires, and without the keys that a later transaction purged.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.database import (
    BUSY_TIMEOUT_MS,
    PRIVATE_APPLICATION_ID,
    connect,
    copy_database,
    create_database,
    database_format,
    failpoint,
    open_database,
    restore_database,
    storage_errors,
)
from sovchain.ledger.errors import StorageCorrupt, TransientRefused
from sovchain.ledger.marks import Mark
from sovchain.protocol.crypto import sha256
from sovchain.protocol.rwset import Version

TRANSIENT_RETENTION_BLOCKS = 1000
"""Private data of a proposal that was never committed is dropped this many blocks after it came
(`peer.gossip.pvtData.transientstoreMaxBlockRetention` of core.yaml)."""

MAX_TRANSIENT_WRITE_SET_BYTES = 100 * 1024 * 1024
"""Private writes of one transaction to one collection: what fits in one message of a peer."""

MAX_TRANSIENT_STORE_BYTES = 2 * 1024 * 1024 * 1024
"""Private data that may wait in one organisation's transient store."""

_SCHEMA = """
CREATE TABLE savepoint (
    id INTEGER PRIMARY KEY CHECK (id = 1), channel TEXT NOT NULL, msp_id TEXT NOT NULL, height INTEGER NOT NULL,
    writes INTEGER NOT NULL
);
CREATE TABLE private_state (
    ns TEXT NOT NULL, coll TEXT NOT NULL, key BLOB NOT NULL, key_hash BLOB NOT NULL, value BLOB NOT NULL,
    block INTEGER NOT NULL, tx INTEGER NOT NULL,
    PRIMARY KEY (ns, coll, key)
);
CREATE UNIQUE INDEX private_state_hash ON private_state (ns, coll, key_hash);
CREATE TABLE private_expiry (
    at INTEGER NOT NULL, ns TEXT NOT NULL, coll TEXT NOT NULL, key_hash BLOB NOT NULL,
    block INTEGER NOT NULL, tx INTEGER NOT NULL,
    PRIMARY KEY (at, ns, coll, key_hash)
) WITHOUT ROWID;
CREATE TABLE written (
    block INTEGER NOT NULL, tx INTEGER NOT NULL, ns TEXT NOT NULL, coll TEXT NOT NULL, expires INTEGER,
    rwset BLOB NOT NULL,
    PRIMARY KEY (block, tx, ns, coll)
);
CREATE INDEX written_expires ON written (expires) WHERE expires IS NOT NULL;
CREATE TABLE written_keys (
    ns TEXT NOT NULL, coll TEXT NOT NULL, key_hash BLOB NOT NULL, block INTEGER NOT NULL, tx INTEGER NOT NULL,
    PRIMARY KEY (ns, coll, key_hash, block, tx)
) WITHOUT ROWID;
CREATE TABLE transient (
    id TEXT NOT NULL, ns TEXT NOT NULL, coll TEXT NOT NULL, hash BLOB NOT NULL, received INTEGER NOT NULL,
    rwset BLOB NOT NULL,
    PRIMARY KEY (id, ns, coll, hash)
);
CREATE INDEX transient_received ON transient (received);
CREATE TABLE missing (
    block INTEGER NOT NULL, tx INTEGER NOT NULL, ns TEXT NOT NULL, coll TEXT NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (block, tx, ns, coll)
) WITHOUT ROWID
"""

_PUT = (
    "INSERT INTO private_state VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (ns, coll, key) DO UPDATE SET "
    "value = excluded.value, block = excluded.block, tx = excluded.tx"
)
_KEEP_TRANSIENT = "INSERT OR IGNORE INTO transient VALUES (?, ?, ?, ?, ?, ?)"
_DELETE_BY_HASH = "DELETE FROM private_state WHERE ns = ? AND coll = ? AND key_hash = ?"
_KEEP_WRITTEN = "INSERT OR REPLACE INTO written VALUES (?, ?, ?, ?, ?, ?)"
_WRITES_OF_KEY = (
    "SELECT block, tx FROM written_keys WHERE ns = ? AND coll = ? AND key_hash = ? AND (block, tx) <= (?, ?)"
)
_FORGET_KEY = "DELETE FROM written_keys WHERE ns = ? AND coll = ? AND key_hash = ? AND block = ? AND tx = ?"
_WRITTEN = "SELECT rwset FROM written WHERE block = ? AND tx = ? AND ns = ? AND coll = ?"
_REWRITE = "UPDATE written SET rwset = ? WHERE block = ? AND tx = ? AND ns = ? AND coll = ?"
_FORGET = (
    "DELETE FROM private_state",
    "DELETE FROM private_expiry",
    "DELETE FROM written",
    "DELETE FROM written_keys",
    "DELETE FROM transient",
    "DELETE FROM missing",
)
_SAVEPOINT_EVERY_BLOCKS = 1000
_PRUNE_EVERY_BLOCKS = 100


@dataclass(frozen=True)
class CollectionChange:
    """What one valid transaction did to one collection, as its block says.

    `write_set_hash` is the SHA-256 of the private write set (empty if it only reads), `members` the organisations
    that may hold it, `purges` and `renewals` the hashes of keys that are purged and of keys whose metadata is
    written, and `expires_at` the number of the block whose commit removes what is written here (None: never).
    """

    namespace: str
    collection: str
    write_set_hash: bytes
    members: frozenset[str]
    purges: tuple[bytes, ...] = ()
    renewals: tuple[bytes, ...] = ()
    expires_at: int | None = None


@dataclass(frozen=True)
class PrivateTransaction:
    """One valid transaction of a block with what it did to collections."""

    position: int
    transaction_id: str
    changes: tuple[CollectionChange, ...]


@dataclass(frozen=True)
class PrivateBlock:
    """What a block means for private data. `transaction_ids` are all of its ids, valid or not."""

    number: int
    transactions: tuple[PrivateTransaction, ...]
    transaction_ids: tuple[str, ...]


@dataclass(frozen=True)
class Gap:
    """A private write set that a committed transaction carried the hash of and that this organisation never got."""

    block: int
    position: int
    namespace: str
    collection: str
    write_set_hash: bytes


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


HashedEntry = Callable[[str, str, bytes], tuple[bytes, bytes | None, Version] | None]
"""Reads (value hash, metadata, version) of a private key from committed public state."""


class PrivateStore:
    """One organisation's file. `store` may be called from any thread, the rest from the thread that commits."""

    def __init__(self, path: Path, connection: sqlite3.Connection, msp_id: str, height: int) -> None:
        self.path = path
        self.msp_id = msp_id
        self.height = height
        """Number of blocks whose private data is applied."""
        self._connection = connection
        self._lock = threading.Lock()
        self._mark = Mark(path)
        self._saved_height = height
        self._origin: tuple[Path, int] | None = None
        """The copy that the content is equal to while the connection has changed as many rows as are noted here."""
        self.scrub_due = False
        """Whether values that were purged or have expired may still be in the write-ahead log."""
        with storage_errors(path):
            connection.execute("PRAGMA secure_delete = ON")
            self._writes: int = connection.execute("SELECT writes FROM savepoint").fetchone()[0]
            self._mark.check(self._writes)
            self._count_transient()
            self._next_expiry = self._first_expiry()

    @classmethod
    def open(cls, path: Path, channel_id: str, msp_id: str, ledger_height: int) -> Self:
        """Open the file, or make it. Raises `StorageVersionError`, `StorageCorrupt`, `StorageError`."""
        if not database_format(path, PRIVATE_APPLICATION_ID):

            def fill(connection: sqlite3.Connection) -> None:
                connection.execute("INSERT INTO savepoint VALUES (1, ?, ?, 0, 0)", (channel_id, msp_id))

            return cls(path, create_database(path, PRIVATE_APPLICATION_ID, _SCHEMA, fill), msp_id, 0)
        connection = open_database(path, PRIVATE_APPLICATION_ID)
        try:
            with storage_errors(path):
                row = connection.execute("SELECT channel, msp_id, height FROM savepoint").fetchone()
            if row is None or row[:2] != (channel_id, msp_id):
                raise StorageCorrupt(path, f"it is not the private data of {msp_id} on channel {channel_id}")
            if row[2] > ledger_height:
                raise StorageCorrupt(path, f"it is at height {row[2]} and the blocks end at height {ledger_height}")
            return cls(path, connection, msp_id, row[2])
        except BaseException:
            connection.close()
            raise

    # Transient store ------------------------------------------------------------------------------------------------

    def store(self, transaction_id: str, height: int, write_sets: Sequence[tuple[str, str, bytes]]) -> None:
        """Keep (namespace, collection, marshalled private write set) until the transaction commits, durably.

        `height` is the ledger's height now. Raises `TransientRefused` beyond the limits. Any thread.
        """
        for namespace, collection, write_set in write_sets:
            if len(write_set) > MAX_TRANSIENT_WRITE_SET_BYTES:
                what = f"a write set of {namespace}/{collection}"
                raise TransientRefused(self.msp_id, what, MAX_TRANSIENT_WRITE_SET_BYTES, len(write_set))
        size = sum(len(write_set) for *_, write_set in write_sets)
        rows = [(transaction_id, ns, coll, sha256(data), height, data) for ns, coll, data in write_sets]
        with self._lock, storage_errors(self.path):
            if self._transient_bytes + size > MAX_TRANSIENT_STORE_BYTES:
                total = self._transient_bytes + size
                raise TransientRefused(self.msp_id, "what waits there", MAX_TRANSIENT_STORE_BYTES, total)
            failpoint("transient:before-commit")
            kept = []
            with _transaction(self._connection):
                for row in rows:
                    if self._connection.execute(_KEEP_TRANSIENT, row).rowcount:
                        kept.append(len(row[5]))
                self._count_write()
            self._mark.put(self._writes)
            self._transient_rows += len(kept)
            self._transient_bytes += sum(kept)
            failpoint("transient:after-commit")

    # Following the blocks -----------------------------------------------------------------------------------------

    def apply(self, block: PrivateBlock, hashed: HashedEntry) -> None:
        """Take over one block, which must be the next or a later one: those between had nothing private.

        `hashed` reads public state as it is after the block.
        """
        if block.number < self.height:
            return
        with self._lock, storage_errors(self.path):
            if self._has_work(block):
                failpoint("private:before-begin")
                with _transaction(self._connection):
                    self._apply(block, hashed)
                    self._connection.execute("UPDATE savepoint SET height = ?", (block.number + 1,))
                    self._count_write()
                    failpoint("private:before-commit")
                self._mark.put(self._writes)
                self._saved_height = block.number + 1
                failpoint("private:after-commit")
            self.height = block.number + 1

    def follow(self, height: int) -> None:
        """Note that blocks up to `height` had nothing private left to apply."""
        self.height = max(self.height, height)

    def missing(self) -> list[Gap]:
        """Write sets that this organisation was entitled to and never got, oldest first."""
        with self._lock, storage_errors(self.path):
            rows = self._connection.execute(
                "SELECT block, tx, ns, coll, hash FROM missing ORDER BY block, tx, ns, coll"
            )
            return [Gap(*row) for row in rows]

    def checkpoint(self) -> None:
        """Copy a log that may hold purged values into the file, so that readers which begin now leave it alone."""
        if self.scrub_due:
            self._checkpoint("PASSIVE")

    def scrub(self) -> None:
        """Empty a log that may hold purged values; it stays due while a reader stands in the way."""
        if self.scrub_due:
            self.scrub_due = self._checkpoint("TRUNCATE")

    def _checkpoint(self, mode: str) -> bool:
        with self._lock, storage_errors(self.path):
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                return bool(self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0])
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")

    def read_connection(self) -> sqlite3.Connection:
        """Another connection to the file, for a reader."""
        with storage_errors(self.path):
            return connect(self.path)

    def copy_to(self, target: Path) -> None:
        """Copy the store into a new file."""
        with self._lock, storage_errors(self.path):
            self._save_height()
            copy_database(self._connection, target)
            self._origin = (target, self._connection.total_changes)

    def restore(self, source: Path | None, height: int) -> None:
        """Become what a copy holds; without one, what a store is that knows nothing of blocks before `height`."""
        with self._lock, storage_errors(self.path):
            self._mark.put(0)
            if source is None:
                with _transaction(self._connection):
                    for statement in _FORGET:
                        self._connection.execute(statement)
                    self._connection.execute("UPDATE savepoint SET height = ?", (height,))
            elif self._origin != (source, self._connection.total_changes):
                restore_database(self._connection, source)
                self._origin = (source, self._connection.total_changes)
            self.height = self._saved_height = self._connection.execute("SELECT height FROM savepoint").fetchone()[0]
            self._next_expiry = self._first_expiry()
            self._writes = self._connection.execute("SELECT writes FROM savepoint").fetchone()[0]
            self._mark.put(self._writes)
            self._count_transient()
            self.scrub_due = True

    def close(self) -> None:
        """Save the height, empty the write-ahead log into the file and close it."""
        with self._lock, storage_errors(self.path):
            self._save_height()
            self._mark.close()
            self._connection.close()

    def _count_write(self) -> None:
        """Within a transaction: what is committed next has another number than what was."""
        self._connection.execute("UPDATE savepoint SET writes = ?", (self._writes + 1,))
        self._writes += 1

    def _save_height(self) -> None:
        if self.height > self._saved_height:
            self._connection.execute("UPDATE savepoint SET height = ?", (self.height,))
            self._saved_height = self.height

    def _has_work(self, block: PrivateBlock) -> bool:
        return (
            any(self.msp_id in change.members for tx in block.transactions for change in tx.changes)
            or (self._next_expiry is not None and self._next_expiry <= block.number)
            or block.number - self._saved_height >= _SAVEPOINT_EVERY_BLOCKS
            or (self._transient_rows > 0 and self._waits_for(block))
        )

    def _waits_for(self, block: PrivateBlock) -> bool:
        if block.number % _PRUNE_EVERY_BLOCKS == 0:
            return True
        return any(
            self._connection.execute("SELECT 1 FROM transient WHERE id = ? LIMIT 1", (transaction_id,)).fetchone()
            for transaction_id in block.transaction_ids
        )

    def _apply(self, block: PrivateBlock, hashed: HashedEntry) -> None:
        self._remove_expired(block.number)
        mine = [(tx, change) for tx in block.transactions for change in tx.changes if self.msp_id in change.members]
        for tx, change in mine:
            self._apply_change(Version(block.number, tx.position), tx.transaction_id, change)
        for _, change in mine:
            self._renew(change, hashed)
        if self._transient_rows:
            self._drop_transient(block)

    def _apply_change(self, version: Version, transaction_id: str, change: CollectionChange) -> None:
        place = (change.namespace, change.collection)
        if change.write_set_hash:
            row = self._connection.execute(
                "SELECT rwset FROM transient WHERE id = ? AND ns = ? AND coll = ? AND hash = ?",
                (transaction_id, *place, change.write_set_hash),
            ).fetchone()
            if row is None:
                self._connection.execute(
                    "INSERT OR IGNORE INTO missing VALUES (?, ?, ?, ?, ?)",
                    (version.block, version.tx, *place, change.write_set_hash),
                )
            else:
                writes = list(self._parse(version, row[0]))
                self._write(version, change, writes)
                self._keep_written(version, change, row[0], writes)
        for key_hash in change.purges:
            self._connection.execute(_DELETE_BY_HASH, (*place, key_hash))
            self._purge_written(version, change, key_hash)
            self.scrub_due = True

    def _keep_written(
        self, version: Version, change: CollectionChange, write_set: bytes, writes: Iterable[kv_rwset_pb2.KVWrite]
    ) -> None:
        place = (change.namespace, change.collection)
        self._connection.execute(_KEEP_WRITTEN, (version.block, version.tx, *place, change.expires_at, write_set))
        self._connection.executemany(
            "INSERT OR IGNORE INTO written_keys VALUES (?, ?, ?, ?, ?)",
            ((*place, sha256(write.key.encode()), version.block, version.tx) for write in writes),
        )
        if change.expires_at is not None:
            self._next_expiry = min(self._next_expiry or change.expires_at, change.expires_at)

    def _purge_written(self, version: Version, change: CollectionChange, key_hash: bytes) -> None:
        """Take a key out of what was written up to a purge, that of the purging transaction included.

        As in `removePurgedDataFromCollPvtRWset`, a write set that has nothing left stays, empty.
        """
        key = (change.namespace, change.collection, key_hash)
        for block, tx in self._connection.execute(_WRITES_OF_KEY, (*key, version.block, version.tx)).fetchall():
            place = (block, tx, change.namespace, change.collection)
            row = self._connection.execute(_WRITTEN, place).fetchone()
            if row is not None:
                kept = [w for w in self._parse(version, row[0]) if sha256(w.key.encode()) != key_hash]
                left = kv_rwset_pb2.KVRWSet(writes=kept).SerializeToString(deterministic=True)
                self._connection.execute(_REWRITE, (left, *place))
            self._connection.execute(_FORGET_KEY, (*key, block, tx))

    def _parse(self, version: Version, write_set: bytes) -> Iterable[kv_rwset_pb2.KVWrite]:
        try:
            return kv_rwset_pb2.KVRWSet.FromString(write_set).writes
        except DecodeError as error:
            raise StorageCorrupt(self.path, "a private write set cannot be decoded", version.block) from error

    def _write(self, version: Version, change: CollectionChange, writes: Iterable[kv_rwset_pb2.KVWrite]) -> None:
        place = (change.namespace, change.collection)
        for write in writes:
            key, key_hash = write.key.encode(), sha256(write.key.encode())
            if write.is_delete or not write.value:
                self._connection.execute(_DELETE_BY_HASH, (*place, key_hash))
                continue
            self._connection.execute(_PUT, (*place, key, key_hash, write.value, version.block, version.tx))
            self._schedule(change, key_hash, version)

    def _schedule(self, change: CollectionChange, key_hash: bytes, version: Version) -> None:
        if change.expires_at is None:
            return
        self._connection.execute(
            "INSERT OR REPLACE INTO private_expiry VALUES (?, ?, ?, ?, ?, ?)",
            (change.expires_at, change.namespace, change.collection, key_hash, version.block, version.tx),
        )
        self._next_expiry = min(self._next_expiry or change.expires_at, change.expires_at)

    def _renew(self, change: CollectionChange, hashed: HashedEntry) -> None:
        # A metadata write gives the public hash a new version; the value that matches it must follow, or reads fail.
        place = (change.namespace, change.collection)
        for key_hash in change.renewals:
            entry = hashed(*place, key_hash)
            row = self._connection.execute(
                "SELECT value FROM private_state WHERE ns = ? AND coll = ? AND key_hash = ?", (*place, key_hash)
            ).fetchone()
            if entry is None or row is None or sha256(row[0]) != entry[0]:
                continue
            version = entry[2]
            self._connection.execute(
                "UPDATE private_state SET block = ?, tx = ? WHERE ns = ? AND coll = ? AND key_hash = ?",
                (version.block, version.tx, *place, key_hash),
            )
            self._schedule(change, key_hash, version)

    def _remove_expired(self, number: int) -> None:
        if self._next_expiry is None or self._next_expiry > number:
            return
        removed = self._connection.execute(
            "DELETE FROM private_state WHERE (ns, coll, key_hash, block, tx) IN "
            "(SELECT ns, coll, key_hash, block, tx FROM private_expiry WHERE at <= ?)",
            (number,),
        )
        self.scrub_due = self.scrub_due or removed.rowcount > 0
        self._connection.execute("DELETE FROM private_expiry WHERE at <= ?", (number,))
        for block, tx, ns, coll, rwset in self._connection.execute(
            "SELECT block, tx, ns, coll, rwset FROM written WHERE expires <= ?", (number,)
        ).fetchall():
            for write in self._parse(Version(block, tx), rwset):
                self._connection.execute(_FORGET_KEY, (ns, coll, sha256(write.key.encode()), block, tx))
            self.scrub_due = True
        self._connection.execute("DELETE FROM written WHERE expires <= ?", (number,))
        self._next_expiry = self._first_expiry()

    def _first_expiry(self) -> int | None:
        """Number of the first block whose commit removes something."""
        row = self._connection.execute(
            "SELECT min(at) FROM (SELECT min(at) AS at FROM private_expiry UNION ALL "
            "SELECT min(expires) FROM written WHERE expires IS NOT NULL)"
        ).fetchone()
        found: int | None = row[0]
        return found

    def _drop_transient(self, block: PrivateBlock) -> None:
        dropped = self._connection.executemany(
            "DELETE FROM transient WHERE id = ?", ((transaction_id,) for transaction_id in block.transaction_ids)
        ).rowcount
        if block.number % _PRUNE_EVERY_BLOCKS == 0:
            oldest = block.number - TRANSIENT_RETENTION_BLOCKS
            dropped += self._connection.execute("DELETE FROM transient WHERE received < ?", (oldest,)).rowcount
        if dropped:
            self._count_transient()

    def _count_transient(self) -> None:
        row = self._connection.execute("SELECT count(*), coalesce(sum(length(rwset)), 0) FROM transient").fetchone()
        self._transient_rows, self._transient_bytes = int(row[0]), int(row[1])
