"""Views of a channel's world state: what a committer reads, and what a block changes.

Kept apart from the rules that use it, so that the ledger, the auditor and the tests can each bring a state of
their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sovchain.protocol.rwset import Version

__all__ = ["HashedWrite", "PublicWrite", "StateReader", "UpdateBatch"]


class StateReader(Protocol):
    """The committed state of one channel before a block is applied. All reads are synchronous and see one height."""

    def get(self, namespace: str, key: str) -> bytes | None:
        """Return the public value of a key, or None if there is none."""
        ...

    def version(self, namespace: str, key: str) -> Version | None:
        """Return the version of a public key, or None if there is none."""
        ...

    def metadata(self, namespace: str, key: str) -> Mapping[str, bytes]:
        """Return the metadata entries of a public key; empty if there are none."""
        ...

    def hashed_version(self, namespace: str, collection: str, key_hash: bytes) -> Version | None:
        """Return the version of a private key by the hash of its name, or None if there is none."""
        ...

    def hashed_value(self, namespace: str, collection: str, key_hash: bytes) -> bytes | None:
        """Return the hash of a private value by the hash of its key, or None if there is none."""
        ...

    def hashed_metadata(self, namespace: str, collection: str, key_hash: bytes) -> Mapping[str, bytes]:
        """Return the metadata entries of a private key; empty if there are none."""
        ...

    def range(self, namespace: str, start: str, end: str) -> Iterator[tuple[str, bytes, Version]]:
        """Yield (key, value, version) with start <= key < end in order of the keys' UTF-8 bytes.

        An empty start means from the first key and an empty end means to the last one.
        """
        ...


@dataclass(frozen=True, slots=True)
class PublicWrite:
    """The final state of one public key after a block.

    Attributes:
        value: The new value, or None if the key is deleted.
        metadata: The metadata that the key now has (not only what changed); empty for a deleted key.
        version: Block and transaction that wrote last.
    """

    value: bytes | None
    metadata: Mapping[str, bytes]
    version: Version


@dataclass(frozen=True, slots=True)
class HashedWrite:
    """The final state of one private key after a block, as every peer of the channel sees it.

    Attributes:
        value_hash: SHA-256 of the private value, or None if the key is deleted or purged.
        metadata: The metadata that the key now has; empty for a deleted key.
        version: Block and transaction that wrote last.
        is_purge: Whether that last write was a purge.
    """

    value_hash: bytes | None
    metadata: Mapping[str, bytes]
    version: Version
    is_purge: bool = False


@dataclass(slots=True)
class UpdateBatch:
    """All changes that one block makes.

    Attributes:
        public: By (namespace, key). The channel's configuration is at ("", "CHANNEL_CONFIG_ENV_BYTES").
        hashed: By (namespace, collection, SHA-256 of the key).
        purges: The last valid purge of each private key in this block, by (namespace, collection, SHA-256 of the
            key). It holds even if a later transaction of the block wrote the key again: private values written at
            or before that version are to be erased.
    """

    public: dict[tuple[str, str], PublicWrite] = field(default_factory=dict)
    hashed: dict[tuple[str, str, bytes], HashedWrite] = field(default_factory=dict)
    purges: dict[tuple[str, str, bytes], Version] = field(default_factory=dict)
