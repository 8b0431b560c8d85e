"""The commit hash: one chain over validation codes, written values and versions, equal on every honest peer.

Mirrors core/ledger/kvledger/kv_ledger.go (addBlockCommitHash) and
core/ledger/kvledger/txmgmt/txmgr/{update_batch_bytes.go,updates.proto}. Encoded by hand: the message is Fabric's
own and in no package of generated code.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import groupby

from sovchain.protocol.rwset import Version
from sovchain.protocol.varint import encode_varint
from sovchain.protocol.worldstate import UpdateBatch

__all__ = ["commit_hash", "next_commit_hash", "update_bytes"]


def update_bytes(updates: UpdateBatch) -> bytes:
    """Return the marshalled txmgr.Updates of a block: what the commit hash covers of its writes.

    Namespaces sorted; in each the public writes first, then the collections sorted; keys sorted. A namespace or a
    collection is named only where it begins. The empty namespace, where the channel configuration is kept, is
    left out. Metadata is not covered.
    """
    entries = [
        (namespace, "", key.encode(), write.value, write.version)
        for (namespace, key), write in updates.public.items()
        if namespace
    ]
    entries += [
        (namespace, collection, key_hash, hashed.value_hash, hashed.version)
        for (namespace, collection, key_hash), hashed in updates.hashed.items()
        if namespace
    ]
    # The bytes of UTF-8 sort as the code points do; names sort as strings, keys as bytes.
    entries.sort(key=lambda entry: entry[:3])
    encoded = bytearray()
    for namespace, in_namespace in groupby(entries, key=lambda entry: entry[0]):
        name: str = namespace
        for collection, in_collection in groupby(in_namespace, key=lambda entry: entry[1]):
            collection_name: str = collection
            for _, _, key, value, version in in_collection:
                _append(encoded, 0x0A, _write_bytes(name, collection_name, key, value, version))
                name = collection_name = ""
    return bytes(encoded)


def commit_hash(codes: bytes, updates: bytes, previous: bytes) -> bytes:
    """Return the SHA-256 of varint(number of codes), codes, update bytes and the previous commit hash."""
    return sha256(encode_varint(len(codes)) + codes + updates + previous).digest()


def next_commit_hash(number: int, codes: bytes, updates: UpdateBatch, previous: bytes | None) -> bytes:
    """Return the commit hash of a block, or nothing where Fabric computes none.

    Block 0 has none; block 1 begins the chain; a later block without a predecessor in the chain (a ledger that was
    reset, or begun before Fabric 2.0) has none.
    """
    if number != 1 and not previous:
        return b""
    return commit_hash(codes, update_bytes(updates), previous or b"")


def _write_bytes(namespace: str, collection: str, key: bytes, value: bytes | None, version: Version) -> bytes:
    encoded = bytearray()
    _append(encoded, 0x0A, namespace.encode())
    _append(encoded, 0x12, collection.encode())
    _append(encoded, 0x1A, key)
    if value is None:
        encoded += b"\x20\x01"
    else:
        _append(encoded, 0x2A, value)
    _append(encoded, 0x32, version.to_bytes())
    return bytes(encoded)


def _append(encoded: bytearray, tag: int, content: bytes) -> None:
    """Append one length-delimited field; proto3 leaves an empty one out."""
    if content:
        encoded.append(tag)
        encoded += encode_varint(len(content))
        encoded += content
