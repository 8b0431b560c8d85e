"""Read-write sets: what a transaction read and wrote, as bytes and as values.

General layout: the frozen dataclasses are the parsed form; :func:`parse_rwset` reads Fabric's bytes.
:class:`RwSetBuilder` makes them, byte for byte as Fabric's simulator does; :class:`RangeResults` condenses the
results of a long scan.
Mirrors core/ledger/kvledger/txmgmt/rwsetutil/{rwset_proto_util,rwset_builder,query_results_helper}.go and
core/ledger/internal/version/version.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from google.protobuf.message import DecodeError

from sovchain.protocol.errors import MalformedError

__all__ = [
    "MERKLE_DEGREE",
    "HashedCollection",
    "KeyHashMetadataWrite",
    "KeyHashRead",
    "KeyHashWrite",
    "KeyRead",
    "KeyWrite",
    "MerkleSummary",
    "MetadataWrite",
    "NamespaceRwSet",
    "RangeQuery",
    "RangeResults",
    "RwSet",
    "RwSetBuilder",
    "Version",
    "parse_rwset",
]

MERKLE_DEGREE = 50
"""Results that a range query may have before they are hashed (core/ledger/ledgerconfig, default of every peer)."""

_HASH_OF_NOTHING = sha256(b"").digest()


class Version(NamedTuple):
    """The place of the transaction that last wrote a key: block number and position in the block."""

    block: int
    tx: int

    def to_bytes(self) -> bytes:
        """Return the order-preserving encoding that Fabric hashes and stores (common/ledger/util/util.go)."""
        encoded = bytearray()
        for number in self:
            size = (number.bit_length() + 7) // 8
            encoded.append(size)
            encoded += number.to_bytes(size, "big")
        return bytes(encoded)

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Version:
        """Read exactly what :meth:`to_bytes` made. Raises MalformedError."""
        numbers: list[int] = []
        position = 0
        while position < len(encoded) and len(numbers) < 2:
            size = encoded[position]
            digits = encoded[position + 1 : position + 1 + size]
            if size > 8 or len(digits) != size:
                raise MalformedError("version has a torn or oversized number")
            numbers.append(int.from_bytes(digits, "big"))
            position += 1 + size
        if len(numbers) != 2 or position != len(encoded):
            raise MalformedError("version is not two order-preserving numbers")
        return cls(numbers[0], numbers[1])


@dataclass(frozen=True, slots=True)
class KeyRead:
    """A public key that was read; version None means that it did not exist."""

    key: str
    version: Version | None


@dataclass(frozen=True, slots=True)
class KeyWrite:
    """A public key that was written or deleted. `is_delete` is also true for an empty value (FAB-18386)."""

    key: str
    value: bytes
    is_delete: bool


@dataclass(frozen=True, slots=True)
class MetadataWrite:
    """New metadata of a public key; no entries means that the metadata is deleted."""

    key: str
    entries: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class MerkleSummary:
    """The hashes that stand for the results of a long range query."""

    max_degree: int
    max_level: int
    max_level_hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RangeQuery:
    """A range that was scanned; start inclusive.

    Attributes:
        start: First key of the range.
        end: The exclusive end that was asked for; if the scan was not exhausted, the last key read, inclusive.
        exhausted: Whether the scan ran to the end of the range.
        reads: The results, unless `merkle` stands for them.
        merkle: The summary of more than 50 results.
    """

    start: str
    end: str
    exhausted: bool
    reads: tuple[KeyRead, ...] = ()
    merkle: MerkleSummary | None = None


@dataclass(frozen=True, slots=True)
class KeyHashRead:
    """A private key that was read, by the SHA-256 of its name; version None means that it did not exist."""

    key_hash: bytes
    version: Version | None


@dataclass(frozen=True, slots=True)
class KeyHashWrite:
    """A private key that was written, deleted or purged, by hashes.

    `is_delete` is also true for a missing value hash or the hash of an empty value (FAB-18386).
    """

    key_hash: bytes
    value_hash: bytes
    is_delete: bool
    is_purge: bool


@dataclass(frozen=True, slots=True)
class KeyHashMetadataWrite:
    """New metadata of a private key; no entries means that the metadata is deleted."""

    key_hash: bytes
    entries: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class HashedCollection:
    """The public part of the accesses to one private data collection.

    `private_hash` is the SHA-256 of the marshalled private KVRWSet; empty if nothing private was written.
    """

    name: str
    reads: tuple[KeyHashRead, ...] = ()
    writes: tuple[KeyHashWrite, ...] = ()
    metadata_writes: tuple[KeyHashMetadataWrite, ...] = ()
    private_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class NamespaceRwSet:
    """All accesses to the namespace of one chaincode."""

    namespace: str
    reads: tuple[KeyRead, ...] = ()
    range_queries: tuple[RangeQuery, ...] = ()
    writes: tuple[KeyWrite, ...] = ()
    metadata_writes: tuple[MetadataWrite, ...] = ()
    collections: tuple[HashedCollection, ...] = ()

    @property
    def has_writes(self) -> bool:
        """Whether anything is written: a key, its metadata, or either in a collection."""
        return bool(
            self.writes
            or self.metadata_writes
            or any(collection.writes or collection.metadata_writes for collection in self.collections)
        )


@dataclass(frozen=True, slots=True)
class RwSet:
    """The read-write set of one transaction, namespaces in the order of its bytes."""

    namespaces: tuple[NamespaceRwSet, ...] = ()

    def namespace(self, name: str) -> NamespaceRwSet | None:
        """Return the accesses to one namespace, or None."""
        return next((entry for entry in self.namespaces if entry.namespace == name), None)


# --- parsing ---------------------------------------------------------------------------------------------------------


def parse_rwset(encoded: bytes) -> RwSet:
    """Read a marshalled TxReadWriteSet, inner messages included. Raises MalformedError."""
    try:
        outer = rwset_pb2.TxReadWriteSet.FromString(encoded)
        return RwSet(tuple(_parse_namespace(entry) for entry in outer.ns_rwset))
    except DecodeError as fault:
        raise MalformedError(f"read-write set cannot be decoded: {fault}") from fault


def _version(message: kv_rwset_pb2.KVRead | kv_rwset_pb2.KVReadHash) -> Version | None:
    if not message.HasField("version"):
        return None
    version = message.version
    return Version(version.block_num, version.tx_num)


def _entries(entries: Iterable[kv_rwset_pb2.KVMetadataEntry]) -> tuple[tuple[str, bytes], ...]:
    return tuple((entry.name, entry.value) for entry in entries)


def _parse_namespace(message: rwset_pb2.NsReadWriteSet) -> NamespaceRwSet:
    inner = kv_rwset_pb2.KVRWSet.FromString(message.rwset)
    return NamespaceRwSet(
        namespace=message.namespace,
        reads=tuple([KeyRead(read.key, _version(read)) for read in inner.reads]),
        range_queries=tuple([_parse_range(query) for query in inner.range_queries_info]),
        writes=tuple([KeyWrite(w.key, w.value, w.is_delete or not w.value) for w in inner.writes]),
        metadata_writes=tuple([MetadataWrite(w.key, _entries(w.entries)) for w in inner.metadata_writes]),
        collections=tuple([_parse_collection(entry) for entry in message.collection_hashed_rwset]),
    )


def _parse_range(message: kv_rwset_pb2.RangeQueryInfo) -> RangeQuery:
    merkle = None
    if message.WhichOneof("reads_info") == "reads_merkle_hashes":
        summary = message.reads_merkle_hashes
        merkle = MerkleSummary(summary.max_degree, summary.max_level, tuple(summary.max_level_hashes))
    return RangeQuery(
        start=message.start_key,
        end=message.end_key,
        exhausted=message.itr_exhausted,
        reads=tuple([KeyRead(read.key, _version(read)) for read in message.raw_reads.kv_reads]),
        merkle=merkle,
    )


def _parse_collection(message: rwset_pb2.CollectionHashedReadWriteSet) -> HashedCollection:
    inner = kv_rwset_pb2.HashedRWSet.FromString(message.hashed_rwset)
    return HashedCollection(
        name=message.collection_name,
        reads=tuple([KeyHashRead(read.key_hash, _version(read)) for read in inner.hashed_reads]),
        writes=tuple([_parse_hashed_write(write) for write in inner.hashed_writes]),
        metadata_writes=tuple([KeyHashMetadataWrite(w.key_hash, _entries(w.entries)) for w in inner.metadata_writes]),
        private_hash=message.pvt_rwset_hash,
    )


def _parse_hashed_write(message: kv_rwset_pb2.KVWriteHash) -> KeyHashWrite:
    value_hash = message.value_hash
    is_delete = message.is_delete or not value_hash or value_hash == _HASH_OF_NOTHING
    return KeyHashWrite(message.key_hash, value_hash, is_delete, message.is_purge)


# --- range query results ---------------------------------------------------------------------------------------------


class RangeResults:
    """Collects the results of one range query: raw up to the degree, above that a Merkle summary.

    The same tree is built when a transaction is simulated and when it is validated.
    """

    def __init__(self, degree: int = MERKLE_DEGREE) -> None:
        if degree < 2:
            raise MalformedError(f"degree {degree} of the Merkle tree is below 2")
        self._degree = degree
        self._pending: list[KeyRead] = []
        self._levels: dict[int, list[bytes]] = {}
        self._max_level = 1

    def add(self, key: str, version: Version) -> bool:
        """Add the next result. Returns whether the tree grew by this."""
        self._pending.append(KeyRead(key, version))
        if len(self._pending) <= self._degree:
            return False
        self._hash_pending()
        return True

    def summary(self) -> MerkleSummary:
        """Return the tree's top level as it stands."""
        return MerkleSummary(self._degree, self._max_level, tuple(self._levels.get(self._max_level, ())))

    def done(self) -> tuple[tuple[KeyRead, ...], MerkleSummary | None]:
        """Finish and return either the raw reads and None, or nothing and the summary."""
        if self._max_level == 1 and not self._levels.get(1):
            return tuple(self._pending), None
        if self._pending:
            self._hash_pending()
        level = 1
        while level < self._max_level:
            hashes = self._levels.pop(level, [])
            level += 1
            if hashes:
                combined = hashes[0] if len(hashes) == 1 else sha256(b"".join(hashes)).digest()
                self._levels.setdefault(level, []).append(combined)
        top = self._levels.get(self._max_level, [])
        if len(top) > self._degree:
            del self._levels[self._max_level]
            self._max_level += 1
            self._levels[self._max_level] = [sha256(b"".join(top)).digest()]
        return (), self.summary()

    def _hash_pending(self) -> None:
        reads = kv_rwset_pb2.QueryReads(kv_reads=[_read_message(read) for read in self._pending])
        self._pending = []
        level, entry = 1, sha256(reads.SerializeToString()).digest()
        while True:
            hashes = self._levels.setdefault(level, [])
            hashes.append(entry)
            self._max_level = max(self._max_level, level)
            if len(hashes) <= self._degree:
                return
            entry = sha256(b"".join(hashes)).digest()
            del self._levels[level]
            level += 1


# --- building --------------------------------------------------------------------------------------------------------


def _version_message(version: Version | None) -> kv_rwset_pb2.Version | None:
    return None if version is None else kv_rwset_pb2.Version(block_num=version.block, tx_num=version.tx)


def _read_message(read: KeyRead) -> kv_rwset_pb2.KVRead:
    return kv_rwset_pb2.KVRead(key=read.key, version=_version_message(read.version))


def _write_message(key: str, value: bytes | None) -> kv_rwset_pb2.KVWrite:
    return kv_rwset_pb2.KVWrite(key=key, is_delete=not value, value=value or b"")


def _entry_messages(metadata: Mapping[str, bytes] | None) -> list[kv_rwset_pb2.KVMetadataEntry]:
    return [kv_rwset_pb2.KVMetadataEntry(name=name, value=value) for name, value in sorted((metadata or {}).items())]


def _range_message(query: RangeQuery) -> kv_rwset_pb2.RangeQueryInfo:
    message = kv_rwset_pb2.RangeQueryInfo(start_key=query.start, end_key=query.end, itr_exhausted=query.exhausted)
    if query.merkle is not None:
        message.reads_merkle_hashes.CopyFrom(
            kv_rwset_pb2.QueryReadsMerkleSummary(
                max_degree=query.merkle.max_degree,
                max_level=query.merkle.max_level,
                max_level_hashes=query.merkle.max_level_hashes,
            )
        )
    elif query.reads:  # without results Fabric leaves the field out
        message.raw_reads.kv_reads.extend(_read_message(read) for read in query.reads)
    return message


@dataclass(slots=True)
class _HashedAccess:
    reads: dict[str, KeyHashRead] = field(default_factory=dict)
    writes: dict[str, KeyHashWrite] = field(default_factory=dict)
    metadata: dict[str, dict[str, bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class _PrivateAccess:
    writes: dict[str, bytes] = field(default_factory=dict)
    metadata: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _NamespaceAccess:
    reads: dict[str, Version | None] = field(default_factory=dict)
    ranges: dict[tuple[str, str, bool], RangeQuery] = field(default_factory=dict)
    writes: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, dict[str, bytes]] = field(default_factory=dict)
    hashed: dict[str, _HashedAccess] = field(default_factory=dict)
    private: dict[str, _PrivateAccess] = field(default_factory=dict)

    def hashed_access(self, collection: str) -> _HashedAccess:
        return self.hashed.setdefault(collection, _HashedAccess())

    def private_access(self, collection: str) -> _PrivateAccess:
        return self.private.setdefault(collection, _PrivateAccess())


class RwSetBuilder:
    """Collects the accesses of one simulation; the last write of a key counts.

    Every recorded access makes its namespace appear in the result, also if it only read.
    """

    def __init__(self) -> None:
        self._namespaces: dict[str, _NamespaceAccess] = {}

    def add_read(self, namespace: str, key: str, version: Version | None) -> None:
        """Record that a public key was read at this version (None: absent)."""
        self._access(namespace).reads[key] = version

    def add_write(self, namespace: str, key: str, value: bytes | None) -> None:
        """Record a public write; None or empty is a delete."""
        self._access(namespace).writes[key] = value or b""

    def add_metadata_write(self, namespace: str, key: str, metadata: Mapping[str, bytes] | None) -> None:
        """Record the whole new metadata of a public key; None or empty deletes it."""
        self._access(namespace).metadata[key] = dict(metadata or {})

    def add_range_query(self, namespace: str, query: RangeQuery) -> None:
        """Record a range scan; one with the same bounds and exhaustion as an earlier one is dropped."""
        self._access(namespace).ranges.setdefault((query.start, query.end, query.exhausted), query)

    def add_hashed_read(self, namespace: str, collection: str, key: str, version: Version | None) -> None:
        """Record that a private key (given by name) was read, or its hash was."""
        read = KeyHashRead(_key_hash(key), version)
        self._access(namespace).hashed_access(collection).reads[key] = read

    def add_private_write(self, namespace: str, collection: str, key: str, value: bytes | None) -> None:
        """Record a private write; None or empty is a delete."""
        value_hash = sha256(value).digest() if value else b""
        access = self._access(namespace)
        access.private_access(collection).writes[key] = value or b""
        access.hashed_access(collection).writes[key] = KeyHashWrite(_key_hash(key), value_hash, not value, False)

    def add_private_purge(self, namespace: str, collection: str, key: str) -> None:
        """Record a purge of a private key: a delete that also asks for erasure of its history."""
        access = self._access(namespace)
        access.private_access(collection).writes[key] = b""
        access.hashed_access(collection).writes[key] = KeyHashWrite(_key_hash(key), b"", True, True)

    def add_private_metadata_write(
        self, namespace: str, collection: str, key: str, metadata: Mapping[str, bytes] | None
    ) -> None:
        """Record the whole new metadata of a private key; None or empty deletes it."""
        access = self._access(namespace)
        access.private_access(collection).metadata.add(key)
        access.hashed_access(collection).metadata[key] = dict(metadata or {})

    def results(self) -> tuple[bytes, rwset_pb2.TxPvtReadWriteSet | None]:
        """Return the marshalled TxReadWriteSet and the private part (None if nothing private was written)."""
        public = rwset_pb2.TxReadWriteSet(data_model=rwset_pb2.TxReadWriteSet.KV)
        private = rwset_pb2.TxPvtReadWriteSet(data_model=rwset_pb2.TxReadWriteSet.KV)
        for namespace in sorted(self._namespaces):
            access = self._namespaces[namespace]
            private_hashes: dict[str, bytes] = {}
            if access.private:
                entry = private.ns_pvt_rwset.add(namespace=namespace)
                for collection in sorted(access.private):
                    encoded = _private_bytes(access.private[collection])
                    entry.collection_pvt_rwset.add(collection_name=collection, rwset=encoded)
                    private_hashes[collection] = sha256(encoded).digest()
            public.ns_rwset.append(_namespace_message(namespace, access, private_hashes))
        return public.SerializeToString(), private if private.ns_pvt_rwset else None

    def _access(self, namespace: str) -> _NamespaceAccess:
        return self._namespaces.setdefault(namespace, _NamespaceAccess())


def _key_hash(key: str) -> bytes:
    return sha256(key.encode()).digest()


def _private_bytes(access: _PrivateAccess) -> bytes:
    inner = kv_rwset_pb2.KVRWSet(
        writes=[_write_message(key, access.writes[key]) for key in sorted(access.writes)],
        # The values of private metadata are public; here Fabric only notes which keys are concerned.
        metadata_writes=[kv_rwset_pb2.KVMetadataWrite(key=key) for key in sorted(access.metadata)],
    )
    return inner.SerializeToString()


def _namespace_message(
    namespace: str, access: _NamespaceAccess, private_hashes: Mapping[str, bytes]
) -> rwset_pb2.NsReadWriteSet:
    inner = kv_rwset_pb2.KVRWSet(
        reads=[_read_message(KeyRead(key, access.reads[key])) for key in sorted(access.reads)],
        range_queries_info=[_range_message(query) for query in access.ranges.values()],
        writes=[_write_message(key, access.writes[key]) for key in sorted(access.writes)],
        metadata_writes=[
            kv_rwset_pb2.KVMetadataWrite(key=key, entries=_entry_messages(access.metadata[key]))
            for key in sorted(access.metadata)
        ],
    )
    message = rwset_pb2.NsReadWriteSet(namespace=namespace, rwset=inner.SerializeToString())
    for collection in sorted(access.hashed):
        message.collection_hashed_rwset.add(
            collection_name=collection,
            hashed_rwset=_hashed_bytes(access.hashed[collection]),
            pvt_rwset_hash=private_hashes.get(collection, b""),
        )
    return message


def _hashed_bytes(access: _HashedAccess) -> bytes:
    inner = kv_rwset_pb2.HashedRWSet(
        # Sorted by the keys' names, not by their hashes, as Fabric does.
        hashed_reads=[
            kv_rwset_pb2.KVReadHash(key_hash=read.key_hash, version=_version_message(read.version))
            for _, read in sorted(access.reads.items(), key=lambda item: item[0])
        ],
        hashed_writes=[
            kv_rwset_pb2.KVWriteHash(
                key_hash=write.key_hash,
                is_delete=write.is_delete,
                value_hash=write.value_hash,
                is_purge=write.is_purge,
            )
            for _, write in sorted(access.writes.items(), key=lambda item: item[0])
        ],
        metadata_writes=[
            kv_rwset_pb2.KVMetadataWriteHash(key_hash=_key_hash(key), entries=_entry_messages(metadata))
            for key, metadata in sorted(access.metadata.items(), key=lambda item: item[0])
        ],
    )
    return inner.SerializeToString()
