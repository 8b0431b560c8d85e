"""The block files of real peers are read as a peer reads them."""

from __future__ import annotations

import io

import pytest
from fabric_protos.common import common_pb2
from hypothesis import given
from hypothesis import strategies as st

from sovchain.protocol.blockfile import BLOCK_MAX_BYTES, deserialize_block, read_peer_blocks, serialize_block
from sovchain.protocol.errors import MalformedError
from sovchain.protocol.varint import encode_varint

chunks = st.lists(st.binary(max_size=300), max_size=5)


@st.composite
def blocks(draw: st.DrawFn) -> common_pb2.Block:
    digest = st.binary(max_size=32)
    return common_pb2.Block(
        header=common_pb2.BlockHeader(
            number=draw(st.integers(0, 2**64 - 1)), data_hash=draw(digest), previous_hash=draw(digest)
        ),
        data=common_pb2.BlockData(data=draw(chunks)),
        metadata=common_pb2.BlockMetadata(metadata=draw(chunks)),
    )


def file_of(*found: common_pb2.Block) -> bytes:
    frames = [serialize_block(block) for block in found]
    return b"".join(encode_varint(len(frame)) + frame for frame in frames)


def test_a_block_has_the_bytes_that_a_peer_gives_it() -> None:
    """common/ledger/blkstorage/block_serialization.go: varint number, hashes, transactions and metadata with lengths."""
    block = common_pb2.Block(
        header=common_pb2.BlockHeader(number=300, data_hash=b"dd", previous_hash=b"p"),
        data=common_pb2.BlockData(data=[b"one", b""]),
        metadata=common_pb2.BlockMetadata(metadata=[b"m"]),
    )
    assert serialize_block(block) == b"\xac\x02\x02dd\x01p\x02\x03one\x00\x01\x01m"


@given(st.lists(blocks(), max_size=4))
def test_what_was_written_is_read(written: list[common_pb2.Block]) -> None:
    assert list(read_peer_blocks(io.BytesIO(file_of(*written)))) == written


@given(st.lists(blocks(), min_size=1, max_size=3), st.data())
def test_a_last_block_that_is_not_whole_is_left_out(written: list[common_pb2.Block], data: st.DataObject) -> None:
    whole, last = file_of(*written[:-1]), file_of(written[-1])
    cut = data.draw(st.integers(0, len(last) - 1))
    assert list(read_peer_blocks(io.BytesIO(whole + last[:cut]))) == written[:-1]


@given(st.binary(max_size=400))
def test_any_bytes_are_a_block_or_malformed(data: bytes) -> None:
    try:
        block = deserialize_block(data)
    except MalformedError:
        return
    # A number may have been written longer than need be; what was read is what is written.
    assert deserialize_block(serialize_block(block)) == block


def test_a_count_beyond_the_bytes_is_refused_at_once() -> None:
    with pytest.raises(MalformedError, match="fewer items"):
        deserialize_block(b"\x01\x00\x00" + encode_varint(2**40))


def test_a_block_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(MalformedError, match="exceeds the limit"):
        list(read_peer_blocks(io.BytesIO(encode_varint(BLOCK_MAX_BYTES + 1))))
