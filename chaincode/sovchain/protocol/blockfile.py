"""The block files of a real peer (`ledgersData/chains/chains/<channel>/blockfile_NNNNNN`).

A file is a row of blocks, each behind its length as a varint. A block there is not a protobuf message: header fields,
transactions and metadata follow one another, each behind its length. Mirrors
common/ledger/blkstorage/block_serialization.go and blockfile_rw.go in Fabric.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from fabric_protos.common import common_pb2

from sovchain.protocol.errors import MalformedError
from sovchain.protocol.varint import encode_varint

__all__ = ["deserialize_block", "read_peer_blocks", "serialize_block"]

BLOCK_MAX_BYTES: Final = 128 * 1024 * 1024
_VARINT_MAX_BYTES: Final = 10


def read_peer_blocks(file: BinaryIO) -> Iterator[common_pb2.Block]:
    """Yield the blocks of one file, in order.

    A last block that is not whole is left out, as a peer leaves it out when it starts again
    (blockfile_helper.go constructCheckpointInfoFromBlockFiles): a peer that runs may be writing it.

    Raises:
        MalformedError: a block that is whole cannot be read, or is larger than `BLOCK_MAX_BYTES`.
    """
    while (length := _read_length(file)) is not None:
        if length > BLOCK_MAX_BYTES:
            raise MalformedError(f"a block of {length} bytes exceeds the limit of {BLOCK_MAX_BYTES}")
        data = file.read(length)
        if len(data) < length:
            return
        yield deserialize_block(data)


def deserialize_block(data: bytes) -> common_pb2.Block:
    """Return the block of its form in a block file. Raises MalformedError."""
    reader = _Reader(data)
    number = reader.varint()
    header = common_pb2.BlockHeader(number=number, data_hash=reader.chunk(), previous_hash=reader.chunk())
    content = [reader.chunk() for _ in range(reader.count())]
    metadata = [reader.chunk() for _ in range(reader.count())]
    if not reader.at_end:
        raise MalformedError(f"block {number} has bytes after its metadata")
    return common_pb2.Block(
        header=header, data=common_pb2.BlockData(data=content), metadata=common_pb2.BlockMetadata(metadata=metadata)
    )


def serialize_block(block: common_pb2.Block) -> bytes:
    """Return a block in the form that it has in a block file, without the length before it."""
    header = block.header
    parts = [encode_varint(header.number), _chunk(header.data_hash), _chunk(header.previous_hash)]
    for items in (block.data.data, block.metadata.metadata):
        parts += [encode_varint(len(items)), *map(_chunk, items)]
    return b"".join(parts)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)

    def varint(self) -> int:
        value = 0
        for shift in range(0, 7 * _VARINT_MAX_BYTES, 7):
            if self._at >= len(self._data):
                break
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64:
                    break
                return value
        raise MalformedError("a number in a block file is torn or too long")

    def count(self) -> int:
        """A number of items, each of which takes a byte at least."""
        count = self.varint()
        if count > len(self._data) - self._at:
            raise MalformedError("a block has fewer items than it says")
        return count

    def chunk(self) -> bytes:
        length = self.varint()
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise MalformedError("a part of a block is torn")
        return self._data[start : self._at]


def _read_length(file: BinaryIO) -> int | None:
    """The length before a block, None at the end of the file or for a length that is not whole."""
    value = 0
    for shift in range(0, 7 * _VARINT_MAX_BYTES, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise MalformedError("a length in a block file is too long")


def _chunk(data: bytes) -> bytes:
    return encode_varint(len(data)) + data
