"""Validation, pass 2: read conflicts and phantoms in block order, and what the valid transactions change.

Mirrors core/ledger/kvledger/txmgmt/validation/{validator,rangequery_validator,combined_iterator,tx_ops,types}.go.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fabric_protos.peer import transaction_pb2

from sovchain.protocol.errors import MalformedError
from sovchain.protocol.rwset import (
    HashedCollection,
    MerkleSummary,
    NamespaceRwSet,
    RangeQuery,
    RangeResults,
    RwSet,
    Version,
)
from sovchain.protocol.worldstate import HashedWrite, PublicWrite, StateReader, UpdateBatch

__all__ = ["CHANNEL_CONFIG_KEY", "Conflict", "MvccValidator"]

CHANNEL_CONFIG_KEY = "CHANNEL_CONFIG_ENV_BYTES"
"""Where the configuration of the channel is kept, in the empty namespace (core/peer/configtx_processor.go)."""

_CODES = transaction_pb2.TxValidationCode

# Fabric adds these up for every write of a key in one transaction, in eight bits.
_UPSERT, _METADATA_UPDATE, _METADATA_DELETE, _DELETE = 1, 2, 4, 8

_NO_METADATA: Mapping[str, bytes] = {}


class Conflict(NamedTuple):
    """Why a transaction is invalid: a TxValidationCode and plain words."""

    code: int
    reason: str


@dataclass(slots=True)
class _KeyOps:
    """What one transaction does to one key, public or private."""

    flags: int = 0
    value: bytes = b""
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    is_purge: bool = False

    def write(self, value: bytes, is_delete: bool) -> None:
        if is_delete:
            self.flags = self.flags + _DELETE & 0xFF
        else:
            self.flags = self.flags + _UPSERT & 0xFF
            self.value = value

    def write_metadata(self, entries: tuple[tuple[str, bytes], ...]) -> None:
        if entries:
            self.flags = self.flags + _METADATA_UPDATE & 0xFF
            self.metadata = dict(entries)
        else:
            self.flags = self.flags + _METADATA_DELETE & 0xFF

    @property
    def only_value(self) -> bool:
        """Whether the key keeps the metadata that it has."""
        return self.flags | _UPSERT == _UPSERT

    @property
    def only_metadata(self) -> bool:
        """Whether the key keeps the value that it has; also what Fabric makes of a key that is written twice."""
        return not (self.flags & _UPSERT and self.flags & (_METADATA_UPDATE | _METADATA_DELETE))


class MvccValidator:
    """Judges the transactions of one block in their order and collects what the valid ones change.

    Args:
        state: The committed state before the block.
        block_number: Number of the block.
        transaction_ids: Ids of all transactions of the block, to name them in reasons.
    """

    def __init__(self, state: StateReader, block_number: int, transaction_ids: Sequence[str]) -> None:
        self.updates = UpdateBatch()
        self._state = state
        self._block_number = block_number
        self._transaction_ids = transaction_ids
        self._sorted_keys: dict[str, list[str]] = {}

    def validate(self, position: int, rwset: RwSet) -> Conflict | None:
        """Judge one transaction; if it is valid, add its writes to `updates` and return None."""
        conflict = self._check_writeset(rwset) or self._check_reads(rwset)
        if conflict is None:
            self._apply(rwset, Version(self._block_number, position))
        return conflict

    def apply_config(self, position: int, config_envelope: bytes) -> None:
        """Add a channel configuration to `updates`."""
        version = Version(self._block_number, position)
        self.updates.public["", CHANNEL_CONFIG_KEY] = PublicWrite(config_envelope, _NO_METADATA, version)

    # --- reads ---

    def _check_writeset(self, rwset: RwSet) -> Conflict | None:
        for entry in rwset.namespaces:
            for collection in entry.collections:
                # Fabric takes such writes for public ones whose keys are hashes; honest endorsers sign none.
                if not collection.name and (collection.writes or collection.metadata_writes):
                    reason = f"a collection of namespace '{entry.namespace}' that is written to has no name"
                    return Conflict(_CODES.INVALID_WRITESET, reason)
        return None

    def _check_reads(self, rwset: RwSet) -> Conflict | None:
        for entry in rwset.namespaces:
            conflict = self._check_public_reads(entry) or self._check_ranges(entry)
            if conflict is not None:
                return conflict
            for collection in entry.collections:
                conflict = self._check_hashed_reads(entry.namespace, collection)
                if conflict is not None:
                    return conflict
        return None

    def _check_public_reads(self, entry: NamespaceRwSet) -> Conflict | None:
        namespace = entry.namespace
        for read in entry.reads:
            written = self.updates.public.get((namespace, read.key))
            found = None if written else self._state.version(namespace, read.key)
            if written or found != read.version:
                name = f"key {read.key!r} of '{namespace}'"
                return self._read_conflict(name, read.version, written.version if written else None, found)
        return None

    def _check_hashed_reads(self, namespace: str, collection: HashedCollection) -> Conflict | None:
        for read in collection.reads:
            written = self.updates.hashed.get((namespace, collection.name, read.key_hash))
            found = None if written else self._state.hashed_version(namespace, collection.name, read.key_hash)
            if written or found != read.version:
                name = f"private key with hash {read.key_hash.hex()} of '{namespace}', collection '{collection.name}'"
                return self._read_conflict(name, read.version, written.version if written else None, found)
        return None

    def _read_conflict(
        self, name: str, read: Version | None, written: Version | None, found: Version | None
    ) -> Conflict:
        if written is not None:
            reason = f"{name} was written by {self._transaction(written)}, earlier in this block"
        else:
            reason = f"{name} was read at {_place(read)} but is at {_place(found)}"
        return Conflict(_CODES.MVCC_READ_CONFLICT, reason)

    def _transaction(self, version: Version) -> str:
        return f"transaction {version.tx} ({self._transaction_ids[version.tx]})"

    # --- ranges ---

    def _check_ranges(self, entry: NamespaceRwSet) -> Conflict | None:
        for query in entry.range_queries:
            difference = (
                self._compare_raw(entry.namespace, query)
                if query.merkle is None
                else self._compare_merkle(entry.namespace, query, query.merkle)
            )
            if difference:
                bounds = f"range [{query.start!r}, {query.end!r}) of '{entry.namespace}'"
                return Conflict(_CODES.PHANTOM_READ_CONFLICT, f"{bounds} has changed: {difference}")
        return None

    def _compare_raw(self, namespace: str, query: RangeQuery) -> str:
        """Return how the range differs from the recorded reads; "" if it does not."""
        results = self._scan(namespace, query)
        for read in query.reads:
            result = next(results, None)
            if result is None or result[0] > read.key:
                return f"key {read.key!r} is gone"
            key, version = result
            if key != read.key:
                return f"key {key!r} {self._arrival(version)}"
            if read.version is None or version != read.version:
                return f"key {key!r} {self._arrival(version)}, but was read at {_place(read.version)}"
        extra = next(results, None)
        return f"key {extra[0]!r} {self._arrival(extra[1])}" if extra else ""

    def _arrival(self, version: Version) -> str:
        if version.block == self._block_number:
            return f"was written by {self._transaction(version)}, earlier in this block"
        return f"is at {_place(version)}"

    def _compare_merkle(self, namespace: str, query: RangeQuery, recorded: MerkleSummary) -> str:
        """The tree is compared while it grows, so that a difference is found without scanning to the end."""
        try:
            tree = RangeResults(recorded.max_degree)
        except MalformedError as fault:
            return str(fault)
        matched = 0
        for key, version in self._scan(namespace, query):
            if not tree.add(key, version):
                continue
            current = tree.summary()
            if current.max_level < recorded.max_level:
                continue
            hashes = current.max_level_hashes
            if len(hashes) == matched:
                continue
            if current.max_level > recorded.max_level or len(hashes) > len(recorded.max_level_hashes):
                return "there are more results than were read"
            if hashes[matched] != recorded.max_level_hashes[matched]:
                return f"the results up to key {key!r} are others than were read"
            matched += 1
        _, final = tree.done()
        return "" if final == recorded else "the results are others than were read"

    def _scan(self, namespace: str, query: RangeQuery) -> Iterator[tuple[str, Version]]:
        """Yield what the range holds now: the committed state overlaid with this block's writes."""
        committed = ((key, version) for key, _, version in self._state.range(namespace, query.start, query.end))
        stored = next(committed, None)
        for key in self._written_keys(namespace, query.start, query.end):
            while stored is not None and stored[0] < key:
                yield stored
                stored = next(committed, None)
            if stored is not None and stored[0] == key:
                stored = next(committed, None)
            write = self.updates.public[namespace, key]
            if write.value is not None:
                yield key, write.version
        while stored is not None:
            yield stored
            stored = next(committed, None)
        if not query.exhausted:
            yield from self._end_key(namespace, query.end)

    def _end_key(self, namespace: str, key: str) -> Iterator[tuple[str, Version]]:
        """The last key that was read belongs to a range that was left before its end."""
        write = self.updates.public.get((namespace, key))
        if write is None:
            version = self._state.version(namespace, key)
        else:
            version = None if write.value is None else write.version
        if version is not None:
            yield key, version

    def _written_keys(self, namespace: str, start: str, end: str) -> list[str]:
        keys = self._sorted_keys.get(namespace)
        if keys is None:
            keys = sorted(key for owner, key in self.updates.public if owner == namespace)
            self._sorted_keys[namespace] = keys
        last = bisect_left(keys, end) if end else len(keys)
        return keys[bisect_left(keys, start) : last]

    # --- writes ---

    def _apply(self, rwset: RwSet, version: Version) -> None:
        for entry in rwset.namespaces:
            if entry.writes or entry.metadata_writes:
                self._apply_public(entry, version)
                self._sorted_keys.pop(entry.namespace, None)
            if entry.collections:
                self._apply_hashed(entry, version)

    def _apply_public(self, entry: NamespaceRwSet, version: Version) -> None:
        all_ops: dict[str, _KeyOps] = {}
        for write in entry.writes:
            all_ops.setdefault(write.key, _KeyOps()).write(write.value, write.is_delete)
        for metadata_write in entry.metadata_writes:
            all_ops.setdefault(metadata_write.key, _KeyOps()).write_metadata(metadata_write.entries)
        updates, namespace = self.updates.public, entry.namespace
        for key, ops in all_ops.items():
            place = (namespace, key)
            if ops.flags & _DELETE:
                updates[place] = PublicWrite(None, _NO_METADATA, version)
                continue
            earlier = updates.get(place)
            value: bytes | None = ops.value
            metadata = ops.metadata
            if ops.only_value:
                metadata = self._state.metadata(namespace, key) if earlier is None else earlier.metadata
            elif ops.only_metadata:
                value = self._state.get(namespace, key) if earlier is None else earlier.value
            if value is not None:  # metadata of a key that does not exist is no change
                updates[place] = PublicWrite(value, metadata, version)

    def _apply_hashed(self, entry: NamespaceRwSet, version: Version) -> None:
        namespace = entry.namespace
        all_ops: dict[tuple[str, str, bytes], _KeyOps] = {}
        for collection in entry.collections:
            for write in collection.writes:
                place = (namespace, collection.name, write.key_hash)
                ops = all_ops.setdefault(place, _KeyOps())
                ops.write(write.value_hash, write.is_delete)
                ops.is_purge = write.is_purge
                if write.is_purge:
                    self.updates.purges[place] = version
            for metadata_write in collection.metadata_writes:
                place = (namespace, collection.name, metadata_write.key_hash)
                all_ops.setdefault(place, _KeyOps()).write_metadata(metadata_write.entries)
        updates = self.updates.hashed
        for place, ops in all_ops.items():
            if ops.flags & _DELETE:
                updates[place] = HashedWrite(None, _NO_METADATA, version, ops.is_purge)
                continue
            earlier = updates.get(place)
            value: bytes | None = ops.value
            metadata = ops.metadata
            if ops.only_value:
                metadata = self._state.hashed_metadata(*place) if earlier is None else earlier.metadata
            elif ops.only_metadata:
                value = self._state.hashed_value(*place) if earlier is None else earlier.value_hash
            if value is not None:
                updates[place] = HashedWrite(value, metadata, version)


def _place(version: Version | None) -> str:
    return "no version" if version is None else f"version {version.block}:{version.tx}"
