"""Ordering: which envelopes are accepted, in Fabric's words, and how batches are cut."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2
from hypothesis import given
from hypothesis import strategies as st
from ledger_world import NOW, Organisation, World, put, sign_envelope

from sovchain.ledger import orderer
from sovchain.ledger.channel import Channel
from sovchain.ledger.errors import OrderingRefused
from sovchain.ledger.orderer import BlockCutter, OrderedEnvelope, OrderingQueue
from sovchain.protocol.blocks import header_hash, last_config_index, verify_block_signature
from sovchain.protocol.channelconfig import BatchSettings

BAD_REQUEST, FORBIDDEN, SERVICE_UNAVAILABLE = 400, 403, 503


def envelope(
    world: World,
    *,
    channel_id: str = "testchannel",
    type_: int = common_pb2.MESSAGE,
    creator: Organisation | None = None,
    data: bytes = b"data",
) -> bytes:
    signer = (creator or world.organisations["Org1MSP"]).client
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=common_pb2.ChannelHeader(type=type_, channel_id=channel_id).SerializeToString(),
            signature_header=common_pb2.SignatureHeader(creator=signer.identity, nonce=b"n").SerializeToString(),
        ),
        data=data,
    )
    return sign_envelope(common_pb2.Envelope(payload=payload.SerializeToString()), signer)


async def refusal(channel: Channel, data: bytes) -> tuple[int, str]:
    with pytest.raises(OrderingRefused) as caught:
        await channel.order(data)
    assert channel.height == 1
    return caught.value.status, caught.value.text


# Checks ---------------------------------------------------------------------------------------------------------------


async def test_garbage_empty_and_headerless_envelopes_are_refused(bare_channel: Channel) -> None:
    assert (await refusal(bare_channel, b"\xff\xff"))[0] == BAD_REQUEST
    assert await refusal(bare_channel, b"") == (BAD_REQUEST, "could not determine channel ID: header not set")
    empty = common_pb2.Envelope(payload=b"").SerializeToString()
    assert await refusal(bare_channel, empty) == (BAD_REQUEST, "could not determine channel ID: header not set")
    headless = common_pb2.Envelope(payload=common_pb2.Payload(data=b"x").SerializeToString()).SerializeToString()
    assert await refusal(bare_channel, headless) == (BAD_REQUEST, "could not determine channel ID: header not set")
    bodiless = common_pb2.Payload(header=common_pb2.Header(signature_header=b""))
    data = common_pb2.Envelope(payload=bodiless.SerializeToString()).SerializeToString()
    assert await refusal(bare_channel, data) == (BAD_REQUEST, "could not determine channel ID: channel header not set")


async def test_envelope_of_another_channel_is_refused(world: World, bare_channel: Channel) -> None:
    data = envelope(world, channel_id="elsewhere")
    assert await refusal(bare_channel, data) == (BAD_REQUEST, "channel does not exist")


async def test_config_and_old_message_types_are_refused(world: World, bare_channel: Channel) -> None:
    assert await refusal(bare_channel, envelope(world, type_=common_pb2.CONFIG)) == (
        BAD_REQUEST,
        "message is of type that cannot be processed directly",
    )
    assert await refusal(bare_channel, envelope(world, type_=common_pb2.ORDERER_TRANSACTION)) == (
        BAD_REQUEST,
        "message is of type that is no longer supported",
    )


async def test_config_updates_are_filtered_and_then_judged(world: World, bare_channel: Channel) -> None:
    status, text = await refusal(bare_channel, envelope(world, type_=common_pb2.CONFIG_UPDATE))
    assert status == BAD_REQUEST
    assert text.startswith("error applying config update to existing channel 'testchannel': ")
    stranger = envelope(world, type_=common_pb2.CONFIG_UPDATE, creator=Organisation("StrangerMSP"))
    status, text = await refusal(bare_channel, stranger)
    assert status == FORBIDDEN
    assert text.startswith("config update for existing channel did not pass initial checks: ")


async def test_oversized_envelope_is_refused_with_both_sizes(world: World, tmp_path: Path) -> None:
    batch = BatchSettings(absolute_max_bytes=3000, preferred_max_bytes=2000, timeout_s=0.02)
    channel = await world.create(tmp_path / "ch", batch=batch)
    for extra in (2600, 5000):
        status, text = await refusal(channel, envelope(world, data=b"x" * extra))
        assert status == BAD_REQUEST
        assert text.startswith("message payload is ")
        assert text.endswith(" bytes and exceeds maximum allowed 3000 bytes")
    await channel.close()


async def test_expired_creator_is_refused_before_its_signature_is_looked_at(world: World, tmp_path: Path) -> None:
    late = NOW + timedelta(days=400)
    channel = await Channel.create(
        tmp_path / "ch", world.genesis(), peer_msp_ids=[], orderer=world.signing_node, now=lambda: late
    )
    broken = common_pb2.Envelope.FromString(envelope(world))
    broken.signature = b"broken"
    assert await refusal(channel, broken.SerializeToString()) == (BAD_REQUEST, "broadcast client identity expired")
    await channel.close()


async def test_strangers_and_broken_signatures_are_forbidden(world: World, bare_channel: Channel) -> None:
    denied = "sub-policies to be satisfied: permission denied"
    status, text = await refusal(bare_channel, envelope(world, creator=Organisation("StrangerMSP")))
    assert (status, text.endswith(denied)) == (FORBIDDEN, True)
    pretender = Organisation("Org1MSP")
    status, text = await refusal(bare_channel, envelope(world, creator=pretender))
    assert (status, text.endswith(denied)) == (FORBIDDEN, True)
    broken = common_pb2.Envelope.FromString(envelope(world))
    broken.signature = broken.signature[:-1] + bytes([broken.signature[-1] ^ 1])
    status, text = await refusal(bare_channel, broken.SerializeToString())
    assert (status, text.endswith(denied)) == (FORBIDDEN, True)


async def test_closed_channel_answers_service_unavailable(world: World, tmp_path: Path) -> None:
    channel = await world.create(tmp_path / "ch")
    await channel.close()
    assert (await refusal(channel, envelope(world)))[0] == SERVICE_UNAVAILABLE


async def test_orderer_looks_at_neither_endorsements_nor_writes(world: World, bare_channel: Channel) -> None:
    """What is not a transaction at all is ordered, and marked invalid by the peers."""
    await bare_channel.order(envelope(world))
    blocks = [block async for block in bare_channel.blocks(1, 1)]
    block = common_pb2.Block.FromString(blocks[0])
    assert block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER] != b"\x00"


# Blocks -----------------------------------------------------------------------------------------------------------


async def test_blocks_are_chained_and_signed_by_the_ordering_node(world: World, channel: Channel) -> None:
    await world.submit(channel, put("k", b"v"))
    previous = None
    for number in range(channel.height):
        data = channel.block(number)
        assert data is not None
        block = common_pb2.Block.FromString(data)
        if previous is not None:
            assert block.header.previous_hash == header_hash(previous.header)
            verify_block_signature(block, channel.bundle, strict=True)
            assert last_config_index(block) == 0
        previous = block


# Cutting ----------------------------------------------------------------------------------------------------------


def item(size: int, name: str = "") -> OrderedEnvelope:
    return OrderedEnvelope(name.encode(), size)


def test_batch_is_cut_at_its_count() -> None:
    cutter = BlockCutter(BatchSettings(max_message_count=3, preferred_max_bytes=1000, timeout_s=1.0))
    assert [len(cutter.ordered(item(1), 0.0)) for _ in range(3)] == [0, 0, 1]
    assert cutter.pending == 0


def test_message_that_would_overflow_the_batch_cuts_it_first() -> None:
    cutter = BlockCutter(BatchSettings(max_message_count=10, preferred_max_bytes=10, timeout_s=1.0))
    assert cutter.ordered(item(6, "a"), 0.0) == []
    assert cutter.ordered(item(6, "b"), 5.0) == [[item(6, "a")]]
    assert (cutter.pending, cutter.started_at) == (1, 5.0)


def test_message_above_the_preferred_size_is_alone() -> None:
    cutter = BlockCutter(BatchSettings(max_message_count=10, preferred_max_bytes=10, timeout_s=1.0))
    cutter.ordered(item(3, "a"), 0.0)
    assert cutter.ordered(item(11, "big"), 0.0) == [[item(3, "a")], [item(11, "big")]]
    assert cutter.pending == 0


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 8), st.integers(5, 30))
def test_cutting_keeps_order_and_limits_and_loses_nothing(sizes: list[int], count: int, preferred: int) -> None:
    cutter = BlockCutter(BatchSettings(max_message_count=count, preferred_max_bytes=preferred, timeout_s=1.0))
    given_in = [item(size, str(number)) for number, size in enumerate(sizes)]
    batches = [batch for envelope in given_in for batch in cutter.ordered(envelope, 0.0)]
    rest = cutter.cut()
    assert [envelope for batch in [*batches, rest] for envelope in batch] == given_in
    for batch in batches:
        assert 0 < len(batch) <= count
        assert len(batch) == 1 or sum(envelope.size for envelope in batch) <= preferred


async def test_lonely_envelope_waits_for_the_timeout_and_a_full_batch_does_not() -> None:
    queue = OrderingQueue(BatchSettings(max_message_count=2, timeout_s=0.1))
    loop = asyncio.get_running_loop()
    started = loop.time()
    await queue.put(item(1, "a"))
    assert await queue.next_batch() == [item(1, "a")]
    assert loop.time() - started >= 0.1
    started = loop.time()
    await queue.put(item(1, "b"))
    await queue.put(item(1, "c"))
    assert await queue.next_batch() == [item(1, "b"), item(1, "c")]
    assert loop.time() - started < 0.1


async def test_envelopes_that_waited_for_a_commit_do_not_wait_for_the_timeout_again() -> None:
    queue = OrderingQueue(BatchSettings(max_message_count=100, timeout_s=0.05))
    for name in "abc":
        await queue.put(item(1, name))
    await asyncio.sleep(0.08)
    loop = asyncio.get_running_loop()
    started = loop.time()
    batch = await queue.next_batch()
    assert batch is not None
    assert len(batch) == 3
    assert loop.time() - started < 0.04


async def test_full_queue_makes_senders_wait_and_a_cancelled_one_gives_its_place_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orderer, "MAX_QUEUED_ENVELOPES", 2)
    queue = OrderingQueue(BatchSettings(max_message_count=2, timeout_s=10.0))
    await queue.put(item(1, "a"))
    await queue.put(item(1, "b"))
    cancelled = asyncio.create_task(queue.put(item(1, "never")))
    waiting = asyncio.create_task(queue.put(item(1, "c")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert await queue.next_batch() == [item(1, "a"), item(1, "b")]
    assert await asyncio.wait_for(waiting, 1) is True
    queue.close()
    assert await queue.next_batch() == [item(1, "c")]
    assert await queue.next_batch() is None


async def test_sender_that_was_cancelled_after_it_was_admitted_passes_its_room_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orderer, "MAX_QUEUED_ENVELOPES", 1)
    queue = OrderingQueue(BatchSettings(max_message_count=1, timeout_s=10.0))
    await queue.put(item(1, "a"))
    first = asyncio.create_task(queue.put(item(1, "b")))
    second = asyncio.create_task(queue.put(item(1, "c")))
    await asyncio.sleep(0)
    await queue.next_batch()
    first.cancel()
    assert await asyncio.wait_for(second, 1) is True
    assert await queue.next_batch() == [item(1, "c")]


async def test_closed_queue_refuses_and_releases_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orderer, "MAX_QUEUED_ENVELOPES", 1)
    queue = OrderingQueue(BatchSettings(max_message_count=5, timeout_s=10.0))
    await queue.put(item(1, "a"))
    waiting = [asyncio.create_task(queue.put(item(1, "b"))) for _ in range(3)]
    await asyncio.sleep(0)
    queue.close()
    assert await asyncio.gather(*waiting) == [False, False, False]
    assert await queue.put(item(1, "c")) is False
