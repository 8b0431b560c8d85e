"""The world state that an auditor builds by applying blocks, in memory."""

from __future__ import annotations

import bisect
from collections.abc import AsyncIterator, Iterator, Mapping

from sovchain.protocol.commit import HashedWrite, PublicWrite, UpdateBatch
from sovchain.protocol.rwset import Version

_NONE: Mapping[str, bytes] = {}


class ReplayedState:
    """The committed public and hashed state after the blocks applied so far.

    It is the `StateReader` that `protocol.commit.validate_block` judges the next block by, the same as a peer's.
    """

    def __init__(self) -> None:
        self._public: dict[tuple[str, str], PublicWrite] = {}
        self._hashed: dict[tuple[str, str, bytes], HashedWrite] = {}
        # Code-point order of Python strings is the byte order of their UTF-8 form, which is the ledger's key order.
        self._keys: dict[str, list[str]] = {}

    def get(self, namespace: str, key: str) -> bytes | None:
        entry = self._public.get((namespace, key))
        return entry.value if entry else None

    def namespaces(self) -> list[str]:
        """The chaincodes that have public state, by name."""
        return sorted(self._keys)

    def version(self, namespace: str, key: str) -> Version | None:
        entry = self._public.get((namespace, key))
        return entry.version if entry else None

    def metadata(self, namespace: str, key: str) -> Mapping[str, bytes]:
        entry = self._public.get((namespace, key))
        return (entry.metadata or _NONE) if entry else _NONE

    def hashed_version(self, namespace: str, collection: str, key_hash: bytes) -> Version | None:
        entry = self._hashed.get((namespace, collection, key_hash))
        return entry.version if entry else None

    def hashed_value(self, namespace: str, collection: str, key_hash: bytes) -> bytes | None:
        entry = self._hashed.get((namespace, collection, key_hash))
        return entry.value_hash if entry else None

    def hashed_metadata(self, namespace: str, collection: str, key_hash: bytes) -> Mapping[str, bytes]:
        entry = self._hashed.get((namespace, collection, key_hash))
        return (entry.metadata or _NONE) if entry else _NONE

    def range(self, namespace: str, start: str, end: str) -> Iterator[tuple[str, bytes, Version]]:
        """Keys from `start` (inclusive) to `end` (exclusive; empty: to the last key), in ledger order."""
        keys = self._keys.get(namespace, [])
        first = bisect.bisect_left(keys, start)
        last = bisect.bisect_left(keys, end) if end else len(keys)
        for key in keys[first:last]:
            entry = self._public[namespace, key]
            assert entry.value is not None  # deleted keys leave the index
            yield key, entry.value, entry.version

    def apply(self, updates: UpdateBatch) -> None:
        """Take over the writes of one validated block."""
        for (namespace, key), write in updates.public.items():
            if write.value is None:
                if self._public.pop((namespace, key), None) is not None:
                    keys = self._keys[namespace]
                    del keys[bisect.bisect_left(keys, key)]
            else:
                if (namespace, key) not in self._public:
                    bisect.insort(self._keys.setdefault(namespace, []), key)
                self._public[namespace, key] = write
        for place, hashed in updates.hashed.items():
            if hashed.value_hash is None:
                self._hashed.pop(place, None)
            else:
                self._hashed[place] = hashed


class NamespaceView:
    """One chaincode's public state and private hashes, as the contracts' decision code reads them."""

    def __init__(self, state: ReplayedState, namespace: str) -> None:
        self._state = state
        self._namespace = namespace

    async def get(self, key: str) -> bytes | None:
        return self._state.get(self._namespace, key)

    async def range(self, start: str, end: str) -> AsyncIterator[tuple[str, bytes]]:
        for key, value, _ in self._state.range(self._namespace, start, end):
            yield key, value
