"""One channel's SQLite file: blocks, transaction index, public and hashed state, history.

A block, its index entries, its state changes and the new height and hashes commit in one SQLite transaction, so
that the file is at a block boundary whatever moment the process dies at. Rows of state carry the version (block,
transaction index) of the transaction that wrote them; a deleted key has no row
(`core/ledger/kvledger/txmgmt/statedb`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from sovchain.ledger.database import (
    LEDGER_APPLICATION_ID,
    connect,
    copy_database,
    create_database,
    database_format,
    failpoint,
    open_database,
    restore_database,
    storage_errors,
)
from sovchain.ledger.errors import ChannelExists, ChannelMissing, StorageCorrupt
from sovchain.ledger.marks import Mark
from sovchain.protocol.commit import UpdateBatch

MAX_INDEXED_TRANSACTION_ID = 256
"""Characters. A longer id belongs to no valid transaction (they have 64) and is left out of the index."""

_CACHE_KIB = 32 * 1024
"""Pages that the writer keeps, the branches of a million keys among them. It alone writes, so they stay good."""

RESTART_FRAMES = 2_000
"""Pages in a write-ahead log from which on it begins anew when it can."""

_SCHEMA = """
CREATE TABLE chain (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    channel TEXT NOT NULL,
    height INTEGER NOT NULL,
    last_hash BLOB NOT NULL,
    previous_hash BLOB NOT NULL,
    commit_hash BLOB,
    last_config INTEGER NOT NULL
);
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, private INTEGER NOT NULL, bytes BLOB NOT NULL
);
CREATE INDEX private_blocks ON blocks (number) WHERE private;
CREATE TABLE transactions (
    id TEXT PRIMARY KEY, block INTEGER NOT NULL, tx INTEGER NOT NULL, code INTEGER NOT NULL, reason TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE state (
    ns TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, metadata BLOB,
    block INTEGER NOT NULL, tx INTEGER NOT NULL,
    PRIMARY KEY (ns, key)
);
CREATE TABLE hashed (
    ns TEXT NOT NULL, coll TEXT NOT NULL, key_hash BLOB NOT NULL, value_hash BLOB NOT NULL, metadata BLOB,
    block INTEGER NOT NULL, tx INTEGER NOT NULL,
    PRIMARY KEY (ns, coll, key_hash)
) WITHOUT ROWID;
CREATE TABLE hashed_expiry (
    at INTEGER NOT NULL, ns TEXT NOT NULL, coll TEXT NOT NULL, key_hash BLOB NOT NULL,
    block INTEGER NOT NULL, tx INTEGER NOT NULL,
    PRIMARY KEY (at, ns, coll, key_hash)
) WITHOUT ROWID;
CREATE TABLE history (
    ns TEXT NOT NULL, key BLOB NOT NULL, block INTEGER NOT NULL, tx INTEGER NOT NULL,
    PRIMARY KEY (ns, key, block, tx)
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class ChainState:
    """Where a stored chain ends.

    `last_hash` and `previous_hash` are the header hashes of the last block and of the one before it (empty for
    block 0), `commit_hash` the last block's, None while only the genesis block is there, and `last_config` the
    number of the block that holds the configuration in force.
    """

    channel_id: str
    height: int
    last_hash: bytes
    previous_hash: bytes
    commit_hash: bytes | None
    last_config: int


@dataclass(frozen=True)
class IndexEntry:
    """Index row of one transaction: `position` is its index in the block, `code` its validation code."""

    transaction_id: str
    position: int
    code: int
    reason: str


@dataclass(frozen=True)
class BlockRecord:
    """Everything that the commit of one block writes.

    `chain` is the chain's end after the block. `history` has (namespace, key, transaction index) of the public
    writes of valid transactions, `expiries` maps (namespace, collection) to the number of the block whose commit
    removes what this block writes there, and `private` says whether a valid transaction of the block writes to a
    collection.
    """

    chain: ChainState
    block: bytes
    index: Sequence[IndexEntry]
    updates: UpdateBatch
    history: Sequence[tuple[str, str, int]]
    expiries: Mapping[tuple[str, str], int]
    private: bool

    @property
    def number(self) -> int:
        return self.chain.height - 1


class LedgerStore:
    """Write side of one channel's file. For one thread at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self._mark = Mark(path)
        with storage_errors(path):
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._origin: tuple[Path, int] | None = None
        """The copy that the content is equal to while the connection has changed as many rows as are noted here."""

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Whether `path` holds a channel with its genesis block. Raises `StorageVersionError` for a foreign file."""
        return bool(database_format(path, LEDGER_APPLICATION_ID))

    @classmethod
    def create(cls, path: Path, genesis: BlockRecord) -> Self:
        """Create the file with block 0 in it. What an interrupted creation left is used again."""
        if cls.exists(path):
            raise ChannelExists(path)

        def fill(connection: sqlite3.Connection) -> None:
            cls(path, connection)._write(genesis)

        return cls(path, create_database(path, LEDGER_APPLICATION_ID, _SCHEMA, fill))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file. Raises `ChannelMissing`, `StorageVersionError`, `StorageError`."""
        if database_format(path, LEDGER_APPLICATION_ID) in (None, 0):
            raise ChannelMissing(path)
        store = cls(path, open_database(path, LEDGER_APPLICATION_ID))
        try:
            store._mark.check(store.chain().height)
        except BaseException:
            store.close()
            raise
        return store

    def chain(self) -> ChainState:
        """Where the chain ends."""
        with storage_errors(self.path):
            return read_chain(self.path, self.connection)

    def commit(self, record: BlockRecord) -> None:
        """Write one block with everything that follows from it, or nothing. Returns when it is durable."""
        with storage_errors(self.path):
            failpoint("commit:before-begin")
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                height = self.connection.execute("SELECT height FROM chain").fetchone()[0]
                if height != record.number:
                    raise StorageCorrupt(self.path, f"height is {height} when block {record.number} arrives", height)
                self._write(record)
                failpoint("commit:before-commit")
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
            failpoint("commit:after-commit")
        self._mark.put(record.chain.height)

    def block(self, number: int) -> bytes | None:
        """A stored block."""
        with storage_errors(self.path):
            row = self.connection.execute("SELECT bytes FROM blocks WHERE number = ?", (number,)).fetchone()
        return None if row is None else row[0]

    def read_connection(self) -> sqlite3.Connection:
        """Another connection to the file, for a reader."""
        with storage_errors(self.path):
            return connect(self.path)

    def private_blocks(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Blocks from `start` on in which a valid transaction writes to a collection, as (number, bytes)."""
        with storage_errors(self.path):
            yield from self.connection.execute(
                "SELECT number, bytes FROM blocks WHERE private AND number >= ? ORDER BY number", (start,)
            )

    def copy_to(self, target: Path) -> None:
        """Copy the channel into a new file."""
        copy_database(self.connection, target)
        self._origin = (target, self.connection.total_changes)

    def restore(self, source: Path) -> None:
        """Become what a copy holds."""
        if self._origin != (source, self.connection.total_changes):
            self._mark.put(0)
            restore_database(self.connection, source)
            self._mark.put(self.chain().height)
            self._origin = (source, self.connection.total_changes)

    def restart_log(self) -> bool:
        """Copy the write-ahead log into the file; whether it begins anew once no reader looks into it any more.

        A log that some reader always looks into grows for ever, and there is always one: the newest view.
        """
        with storage_errors(self.path):
            busy, frames, copied = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return not busy and frames == copied and frames >= RESTART_FRAMES

    def close(self) -> None:
        """Empty the write-ahead log into the file and close it."""
        self._mark.close()
        with storage_errors(self.path):
            self.connection.close()

    def _write(self, record: BlockRecord) -> None:
        execute, many = self.connection.execute, self.connection.executemany
        number, chain = record.number, record.chain
        execute("INSERT INTO blocks VALUES (?, ?, ?, ?)", (number, chain.last_hash, record.private, record.block))
        failpoint("commit:after-block")
        # The first transaction with an id keeps it: a later copy is a duplicate and is recorded in its block's filter.
        many(
            "INSERT OR IGNORE INTO transactions VALUES (?, ?, ?, ?, ?)",
            (
                (entry.transaction_id, number, entry.position, entry.code, entry.reason)
                for entry in record.index
                if 0 < len(entry.transaction_id) <= MAX_INDEXED_TRANSACTION_ID
            ),
        )
        failpoint("commit:after-index")
        self._remove_expired(number)
        self._write_public(record.updates)
        self._write_hashed(record.updates, record.expiries)
        many(
            "INSERT OR IGNORE INTO history VALUES (?, ?, ?, ?)",
            ((namespace, key.encode(), number, tx) for namespace, key, tx in record.history),
        )
        failpoint("commit:after-state")
        execute(
            "INSERT OR REPLACE INTO chain VALUES (1, ?, ?, ?, ?, ?, ?)",
            (
                chain.channel_id,
                chain.height,
                chain.last_hash,
                chain.previous_hash,
                chain.commit_hash,
                chain.last_config,
            ),
        )

    def _write_public(self, updates: UpdateBatch) -> None:
        puts, deletes = [], []
        for (namespace, key), write in updates.public.items():
            if write.value is None:
                deletes.append((namespace, key.encode()))
            else:
                metadata = encode_metadata(write.metadata)
                puts.append((namespace, key.encode(), write.value, metadata, write.version.block, write.version.tx))
        self.connection.executemany("DELETE FROM state WHERE ns = ? AND key = ?", deletes)
        self.connection.executemany(
            "INSERT INTO state VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (ns, key) DO UPDATE SET "
            "value = excluded.value, metadata = excluded.metadata, block = excluded.block, tx = excluded.tx",
            puts,
        )

    def _write_hashed(self, updates: UpdateBatch, expiries: Mapping[tuple[str, str], int]) -> None:
        for (namespace, collection, key_hash), write in updates.hashed.items():
            place = (namespace, collection, key_hash)
            if write.value_hash is None:
                self.connection.execute("DELETE FROM hashed WHERE ns = ? AND coll = ? AND key_hash = ?", place)
                continue
            self.connection.execute(
                "INSERT OR REPLACE INTO hashed VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*place, write.value_hash, encode_metadata(write.metadata), write.version.block, write.version.tx),
            )
            at = expiries.get((namespace, collection))
            if at is not None:
                self.connection.execute(
                    "INSERT OR REPLACE INTO hashed_expiry VALUES (?, ?, ?, ?, ?, ?)",
                    (at, *place, write.version.block, write.version.tx),
                )

    def _remove_expired(self, number: int) -> None:
        # Only the version that was scheduled goes: a later write of the key has a schedule of its own.
        self.connection.execute(
            "DELETE FROM hashed WHERE (ns, coll, key_hash, block, tx) IN "
            "(SELECT ns, coll, key_hash, block, tx FROM hashed_expiry WHERE at <= ?)",
            (number,),
        )
        self.connection.execute("DELETE FROM hashed_expiry WHERE at <= ?", (number,))


def read_blocks(path: Path) -> Iterator[bytes]:
    """The blocks of a channel's file in order, read without changing it, whether a process runs the ledger or not.

    All blocks are of one moment. Raises `ChannelMissing`, `StorageVersionError`, `StorageError`.
    """
    if database_format(path, LEDGER_APPLICATION_ID) in (None, 0):
        raise ChannelMissing(path)
    with storage_errors(path):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        with storage_errors(path):
            for (block,) in connection.execute("SELECT bytes FROM blocks ORDER BY number"):
                yield block
    finally:
        connection.close()


def read_chain(path: Path, connection: sqlite3.Connection) -> ChainState:
    """Where the chain ends, in the view of the connection's transaction."""
    row = connection.execute(
        "SELECT channel, height, last_hash, previous_hash, commit_hash, last_config FROM chain"
    ).fetchone()
    if row is None:
        raise StorageCorrupt(path, "the row that says where the chain ends is missing")
    return ChainState(*row)


def encode_metadata(metadata: Mapping[str, bytes] | None) -> bytes | None:
    """Key metadata as it is stored: names sorted, None if there is none."""
    if not metadata:
        return None
    entries = [kv_rwset_pb2.KVMetadataEntry(name=name, value=metadata[name]) for name in sorted(metadata)]
    return kv_rwset_pb2.KVMetadataWrite(entries=entries).SerializeToString(deterministic=True)


def decode_metadata(stored: bytes | None) -> dict[str, bytes]:
    """The mapping that `encode_metadata` stored."""
    if stored is None:
        return {}
    return {entry.name: entry.value for entry in kv_rwset_pb2.KVMetadataWrite.FromString(stored).entries}
