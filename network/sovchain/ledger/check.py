"""Whether what a channel's directory holds is what its blocks say, row by row: for `sovchain audit verify`.

The blocks are committed anew into a directory for nothing else, by the same code, and every table is compared with what
comes of that. Private data is compared with its public hashes. What it does not look at: bytes that SQLite does not use,
and for how long waiting private data has waited.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.committer import Committer, prepare_genesis
from sovchain.ledger.database import FORMAT_VERSION, storage_errors
from sovchain.ledger.errors import BlockRefused, GenesisRefused, LedgerError, StorageError, StorageVersionError
from sovchain.ledger.marks import Mark, check_seal
from sovchain.ledger.saved import LEDGER_FILE, PRIVATE_DIRECTORY
from sovchain.ledger.state import CommittedState
from sovchain.ledger.storage import LedgerStore
from sovchain.protocol.blocks import parse_block
from sovchain.protocol.crypto import sha256
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.rwset import HashedCollection
from sovchain.protocol.transactions import parse_transaction

FAULTS_MAX: Final = 100
"""Faults of one file after which no more are looked for."""
_TABLES: Final = ("chain", "blocks", "transactions", "state", "hashed", "hashed_expiry", "history")


@dataclass(frozen=True)
class StoreFault:
    """Something stored that is not as it should be: in which file, and what."""

    path: Path
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


def check_channel(directory: Path, *, in_use: bool = False) -> list[StoreFault]:
    """Compare everything in a channel's directory with its blocks. Nothing in it is changed.

    `in_use` says that a process runs the ledger: its private data may then be a block ahead of what is read here.
    """
    path = directory / LEDGER_FILE
    faults: list[StoreFault] = []
    private = sorted((directory / PRIVATE_DIRECTORY).glob("*.sqlite"))
    for file in (path, *private):
        faults += _gather(file, _at_rest(file, in_use=in_use))
    try:
        with closing(_open(path)) as stored, tempfile.TemporaryDirectory() as scratch:
            faults += _gather(path, _public(stored, Path(scratch)))
            for file in private:
                with closing(_open(file)) as connection:
                    faults += _gather(file, _private(connection, CommittedState(path, stored), in_use=in_use))
    except (StorageError, sqlite3.Error) as error:
        faults.append(StoreFault(path, str(error)))
    return faults


def _gather(path: Path, details: Iterator[str]) -> list[StoreFault]:
    """The first faults of a file; one that cannot be read any further is the last of them."""
    found: list[StoreFault] = []
    try:
        found.extend(StoreFault(path, detail) for detail in itertools.islice(details, FAULTS_MAX))
    except (LedgerError, ProtocolError, DecodeError, sqlite3.Error, ValueError) as error:
        found.append(StoreFault(path, f"it cannot be read: {error}"))
    return found


def _open(path: Path) -> sqlite3.Connection:
    with storage_errors(path):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if found != FORMAT_VERSION:
            connection.close()
            raise StorageVersionError(path, found, FORMAT_VERSION)
        connection.execute("BEGIN")
        return connection


def _at_rest(path: Path, *, in_use: bool) -> Iterator[str]:
    """What SQLite says of a file's structure, and what stands beside it says of its bytes and of its last write."""
    if not in_use:
        check_seal(path)
    with closing(_open(path)) as connection:
        for (found,) in connection.execute(f"PRAGMA integrity_check({FAULTS_MAX})"):
            if found != "ok":
                yield str(found)
        if not in_use:
            column, table = ("height", "chain") if path.name == LEDGER_FILE else ("writes", "savepoint")
            Mark(path).check(int(connection.execute(f"SELECT {column} FROM {table}").fetchone()[0]))  # noqa: S608  constants


def _public(stored: sqlite3.Connection, scratch: Path) -> Iterator[str]:
    replayed = _replay(stored, scratch)
    if isinstance(replayed, str):
        yield replayed
        return
    with closing(replayed):
        for table in _TABLES:
            yield from _differences(table, stored, replayed.connection)


def _replay(stored: sqlite3.Connection, scratch: Path) -> LedgerStore | str:
    """Return a store that the same blocks were committed to, or why one of them cannot be."""
    blocks = stored.execute("SELECT bytes FROM blocks ORDER BY number")
    first = blocks.fetchone()
    if first is None:
        return "there is no block"
    try:
        prepared = prepare_genesis(first[0])
    except GenesisRefused as error:
        return f"the first block is not one of a channel: {error}"
    store = LedgerStore.create(scratch / LEDGER_FILE, prepared.record)
    store.connection.execute("PRAGMA synchronous = OFF")
    committer = Committer(store, {}, prepared.bundle, prepared.record.chain)
    try:
        for (data,) in blocks:
            committer.write(committer.prepare_received(data))
    except (BlockRefused, ProtocolError) as error:
        store.close()
        return f"block {committer.chain.height} cannot be committed: {error}"
    return store


def _differences(table: str, stored: sqlite3.Connection, replayed: sqlite3.Connection) -> Iterator[str]:
    """Rows that one of the two has and the other has not; tables are ordered by all of their columns."""
    columns = [row[1] for row in replayed.execute(f"PRAGMA table_info({table})")]
    order = ", ".join(str(place + 1) for place in range(len(columns)))
    statement = f"SELECT * FROM {table} ORDER BY {order}"  # noqa: S608  a constant
    pairs = itertools.zip_longest(stored.execute(statement), replayed.execute(statement))
    for one, other in pairs:
        if one != other:
            yield f"table {table}: {_row(one)} is stored, the blocks say {_row(other)}"


def _row(row: Iterable[Any] | None) -> str:
    """A row without its contents, which may be private: numbers and short names, and a hash of what is longer."""
    if row is None:
        return "nothing"
    return "(" + ", ".join(_shown(value) for value in row) + ")"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes {hashlib.sha256(value).hexdigest()[:16]}"
    return repr(value)[:80]


def _private(connection: sqlite3.Connection, public: CommittedState, *, in_use: bool) -> Iterator[str]:
    height = public.connection.execute("SELECT height FROM chain").fetchone()[0]
    channel = public.connection.execute("SELECT channel FROM chain").fetchone()[0]
    found = connection.execute("SELECT channel, height FROM savepoint").fetchall()
    if len(found) != 1 or found[0][0] != channel or (found[0][1] > height and not in_use):
        yield f"the savepoint is {_row(found[0] if found else None)}, the blocks of {channel} end at height {height}"
    if not in_use:
        yield from _values(connection, public)
        yield from _expiries(connection, public)
    yield from _waiting(connection)
    yield from _written(connection, public, height)
    yield from _gaps(connection, public, height)


def _values(connection: sqlite3.Connection, public: CommittedState) -> Iterator[str]:
    rows = connection.execute("SELECT ns, coll, key, key_hash, value, block, tx FROM private_state")
    for namespace, collection, key, key_hash, value, block, tx in rows:
        entry = public.hashed_entry(namespace, collection, key_hash)
        if sha256(key) != key_hash or entry is None or entry[0] != sha256(value) or tuple(entry[2]) != (block, tx):
            place = f"{_shown(namespace)}, collection {_shown(collection)}, key hash {key_hash.hex()[:16]}"
            yield f"a private value of {place} is not the one whose hash the blocks carry"


def _expiries(connection: sqlite3.Connection, public: CommittedState) -> Iterator[str]:
    statement = "SELECT 1 FROM hashed_expiry WHERE (at, ns, coll, key_hash, block, tx) = (?, ?, ?, ?, ?, ?)"
    for row in connection.execute("SELECT at, ns, coll, key_hash, block, tx FROM private_expiry"):
        if public.connection.execute(statement, row).fetchone() is None:
            yield f"the expiry {_row(row)} of a private value is none that follows from the blocks"


def _waiting(connection: sqlite3.Connection) -> Iterator[str]:
    for identifier, digest, rwset in connection.execute("SELECT id, hash, rwset FROM transient"):
        if sha256(rwset) != digest:
            yield f"the private data that waits for transaction {_shown(identifier)} does not have its hash"


def _gaps(connection: sqlite3.Connection, public: CommittedState, height: int) -> Iterator[str]:
    for block, tx, namespace, collection, digest in connection.execute("SELECT block, tx, ns, coll, hash FROM missing"):
        if block < height and digest not in _carried(public, block, tx, namespace, collection):
            yield f"private data that is noted as missing, {_row((block, tx, namespace, collection))}, is in no block"


def _written(connection: sqlite3.Connection, public: CommittedState, height: int) -> Iterator[str]:
    """What blocks wrote, as it is kept for who follows them: purges take keys out of it, nothing may come in."""
    rows = connection.execute("SELECT block, tx, ns, coll, rwset FROM written")
    for block, tx, namespace, collection, rwset in rows:
        if block >= height:
            continue
        carried = {
            (write.key_hash, write.value_hash)
            for part in _collections(public, block, tx, namespace, collection)
            for write in part.writes
        }
        for write in kv_rwset_pb2.KVRWSet.FromString(rwset).writes:
            value_hash = b"" if write.is_delete else sha256(write.value)
            if (sha256(write.key.encode()), value_hash) not in carried:
                yield f"a private write that is kept of {_row((block, tx, namespace, collection))} is not in that block"


def _carried(public: CommittedState, block: int, tx: int, namespace: str, collection: str) -> list[bytes]:
    return [part.private_hash for part in _collections(public, block, tx, namespace, collection)]


def _collections(
    public: CommittedState, block: int, tx: int, namespace: str, collection: str
) -> list[HashedCollection]:
    row = public.connection.execute("SELECT bytes FROM blocks WHERE number = ?", (block,)).fetchone()
    envelopes = parse_block(row[0]).data.data if row is not None else ()
    if not 0 <= tx < len(envelopes):
        return []
    return [
        part
        for entry in parse_transaction(envelopes[tx]).rwset.namespaces
        if entry.namespace == namespace
        for part in entry.collections
        if part.name == collection
    ]
