"""The world state of one channel in memory, in the shape that the ledger's simulator and Fabric's rules read it.

Public and hashed state are the channel's; private values lie in one store for each organisation, as on real peers.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from sovchain.ledger.collections import Collection
from sovchain.ledger.state import Entry, Snapshot
from sovchain.ledger.storage import decode_metadata, encode_metadata
from sovchain.protocol.crypto import sha256
from sovchain.protocol.proposals import datetime_to_timestamp
from sovchain.protocol.rwset import Version
from sovchain.protocol.worldstate import UpdateBatch

_NO_METADATA: Mapping[str, bytes] = {}


class _Expiry(NamedTuple):
    namespace: str
    collection: str
    key: str
    version: Version


class _Sorted:
    """Entries by key, with the keys in the order of their UTF-8 bytes (which is Python's)."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._keys: list[str] = []

    def put(self, key: str, entry: Entry) -> None:
        if key not in self.entries:
            insort(self._keys, key)
        self.entries[key] = entry

    def remove(self, key: str) -> None:
        if self.entries.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def range(self, start: str, end: str) -> Iterator[tuple[str, bytes, Version]]:
        first = bisect_left(self._keys, start)
        last = bisect_left(self._keys, end) if end else len(self._keys)
        for key in self._keys[first:last]:
            value, _, version = self.entries[key]
            yield key, value, version


class MemoryState(Snapshot):
    """Committed state that is read where it lies; nothing changes it while a transaction is simulated."""

    def __init__(self) -> None:
        """The base class reads a database, so its constructor is not called."""
        self.height = 1
        self.public: defaultdict[str, _Sorted] = defaultdict(_Sorted)
        self.hashed: dict[tuple[str, str, bytes], Entry] = {}
        self.stores: defaultdict[tuple[str, str, str], _Sorted] = defaultdict(_Sorted)
        self._history: defaultdict[tuple[str, str], list[kv_query_result_pb2.KeyModification]] = defaultdict(list)
        self._expiries: defaultdict[int, list[_Expiry]] = defaultdict(list)

    # -- what is read ------------------------------------------------------------------------------------------------

    def entry(self, namespace: str, key: str) -> Entry | None:
        return self.public[namespace].entries.get(key)

    def hashed_entry(self, namespace: str, collection: str, key_hash: bytes) -> Entry | None:
        return self.hashed.get((namespace, collection, key_hash))

    def get(self, namespace: str, key: str) -> bytes | None:
        found = self.entry(namespace, key)
        return found[0] if found else None

    def version(self, namespace: str, key: str) -> Version | None:
        found = self.entry(namespace, key)
        return found[2] if found else None

    def metadata(self, namespace: str, key: str) -> Mapping[str, bytes]:
        found = self.entry(namespace, key)
        return decode_metadata(found[1]) if found else _NO_METADATA

    def hashed_version(self, namespace: str, collection: str, key_hash: bytes) -> Version | None:
        found = self.hashed_entry(namespace, collection, key_hash)
        return found[2] if found else None

    def hashed_value(self, namespace: str, collection: str, key_hash: bytes) -> bytes | None:
        found = self.hashed_entry(namespace, collection, key_hash)
        return found[0] if found else None

    def hashed_metadata(self, namespace: str, collection: str, key_hash: bytes) -> Mapping[str, bytes]:
        found = self.hashed_entry(namespace, collection, key_hash)
        return decode_metadata(found[1]) if found else _NO_METADATA

    def range(self, namespace: str, start: str, end: str) -> Iterator[tuple[str, bytes, Version]]:
        return self.public[namespace].range(start, end)

    def private(self, msp_id: str, namespace: str, collection: str, key: str) -> tuple[bytes, Version] | None:
        found = self.stores[msp_id, namespace, collection].entries.get(key)
        return (found[0], found[2]) if found else None

    def private_range(
        self, msp_id: str, namespace: str, collection: str, start: str, end: str
    ) -> Iterator[tuple[str, bytes, Version]]:
        return self.stores[msp_id, namespace, collection].range(start, end)

    def history(self, namespace: str, key: str) -> Iterator[kv_query_result_pb2.KeyModification]:
        return reversed(self._history.get((namespace, key), []))

    def close(self) -> None:
        """Nothing is held."""

    # -- what a block changes ----------------------------------------------------------------------------------------

    def apply(self, updates: UpdateBatch) -> None:
        """Take over the public and hashed changes of a block."""
        for (namespace, key), public in updates.public.items():
            if public.value is None:
                self.public[namespace].remove(key)
            else:
                self.public[namespace].put(key, (public.value, encode_metadata(public.metadata), public.version))
        for place, hashed in updates.hashed.items():
            if hashed.value_hash is None:
                self.hashed.pop(place, None)
            else:
                self.hashed[place] = (hashed.value_hash, encode_metadata(hashed.metadata), hashed.version)

    def apply_private(
        self,
        private: rwset_pb2.TxPvtReadWriteSet,
        version: Version,
        collections: Mapping[str, Mapping[str, Collection]],
    ) -> None:
        """Give one valid transaction's private writes to the members of their collections."""
        for entry in private.ns_pvt_rwset:
            for part in entry.collection_pvt_rwset:
                collection = collections[entry.namespace][part.collection_name]
                for write in kv_rwset_pb2.KVRWSet.FromString(part.rwset).writes:
                    self._write_private(entry.namespace, collection, write, version)

    def _write_private(
        self, namespace: str, collection: Collection, write: kv_rwset_pb2.KVWrite, version: Version
    ) -> None:
        for msp_id in sorted(collection.members):
            store = self.stores[msp_id, namespace, collection.name]
            if write.is_delete or not write.value:
                store.remove(write.key)
            else:
                store.put(write.key, (write.value, None, version))
        if collection.block_to_live:
            due = version.block + collection.block_to_live + 1
            self._expiries[due].append(_Expiry(namespace, collection.name, write.key, version))

    def note_history(
        self, transaction_id: str, moment: datetime, writes: Iterable[tuple[str, str, bytes, bool]]
    ) -> None:
        """Keep what a valid transaction did to public keys: (namespace, key, value, deleted)."""
        for namespace, key, value, deleted in writes:
            self._history[namespace, key].append(
                kv_query_result_pb2.KeyModification(
                    tx_id=transaction_id,
                    value=b"" if deleted else value,
                    timestamp=datetime_to_timestamp(moment),
                    is_delete=deleted,
                )
            )

    def expire(self, number: int) -> None:
        """Remove the private data, values and hashes, whose time is over with this block."""
        for due in self._expiries.pop(number, ()):
            place = (due.namespace, due.collection, sha256(due.key.encode()))
            hashed = self.hashed.get(place)
            if hashed is None or hashed[2] != due.version:
                continue
            del self.hashed[place]
            for (_, namespace, collection), store in self.stores.items():
                if (namespace, collection) == (due.namespace, due.collection):
                    store.remove(due.key)
