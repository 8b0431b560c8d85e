"""Events and blocks: in order, without loss or repetition over broken streams, ended with a typed error or on request."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from fabric_protos.gateway import gateway_pb2
from fakegateway import FakeGateway, Stream, block, deliver_status, events, filtered, seek_of

from sovchain.client import (
    Contract,
    DeliverBadRequest,
    DeliverError,
    DeliverForbidden,
    DeliverNotFound,
    DeliverUnavailable,
    EventsError,
    Gateway,
    MemoryCheckpointer,
    Position,
    UnexpectedReply,
)

BROKEN = grpc.StatusCode.UNAVAILABLE


def asked(request: bytes) -> tuple[int, str]:
    """Block and transaction after which events were asked for."""
    signed = gateway_pb2.SignedChaincodeEventsRequest.FromString(request)
    inner = gateway_pb2.ChaincodeEventsRequest.FromString(signed.request)
    return inner.start_position.specified.number, inner.after_transaction_id


async def take(source: Any, count: int) -> list[Any]:
    async with source:
        return [await anext(source) for _ in range(count)]


async def test_events_come_in_order_and_a_broken_stream_goes_on_after_the_last_one(
    contract: Contract, fake: FakeGateway
) -> None:
    """The stream breaks in the middle of block 4, then ends without an error, then goes on."""
    fake.script(
        "ChaincodeEvents",
        Stream((events(3, "a"), events(4, "b")), BROKEN),
        Stream((events(4, "c"),)),
        Stream((events(5, "d"),), hold=True),
    )
    got = await take(contract.events(start=3), 4)
    assert [(e.block_number, e.transaction_id) for e in got] == [(3, "a"), (4, "b"), (4, "c"), (5, "d")]
    assert [asked(request) for request in fake.requests["ChaincodeEvents"]] == [(3, ""), (4, "b"), (4, "c")]


async def test_a_checkpoint_moves_only_after_the_body_of_the_loop(contract: Contract, fake: FakeGateway) -> None:
    fake.script("ChaincodeEvents", Stream((events(3, "a", "b"),), hold=True))
    checkpoint = MemoryCheckpointer(Position(3))
    seen = []

    async def listen() -> None:
        async with contract.events(checkpoint) as source:
            async for event in source:
                seen.append((event.transaction_id, await checkpoint.load()))
                if event.transaction_id == "b":
                    raise RuntimeError("the body fails")

    with pytest.raises(RuntimeError):
        await listen()
    assert seen == [("a", Position(3)), ("b", Position(3, "a"))]
    assert await checkpoint.load() == Position(3, "a")


@pytest.mark.parametrize("end", [Stream(code=BROKEN), Stream()], ids=["broken", "ended"])
async def test_without_reconnect_the_end_of_a_stream_is_raised(
    contract: Contract, gateway: Gateway, fake: FakeGateway, end: Stream
) -> None:
    fake.script("ChaincodeEvents", end)
    with pytest.raises(EventsError) as caught:
        await anext(contract.events(start=1, reconnect=False))
    assert caught.value.status == "UNAVAILABLE"
    fake.script("Deliver", end)
    with pytest.raises(DeliverUnavailable):
        await anext(gateway.network("ch").blocks(1, reconnect=False))


async def test_a_refused_stream_is_not_asked_for_again(contract: Contract, gateway: Gateway, fake: FakeGateway) -> None:
    refusal = Stream(code=grpc.StatusCode.PERMISSION_DENIED, text="no")
    fake.script("ChaincodeEvents", refusal)
    fake.script("Deliver", refusal)
    with pytest.raises(EventsError):
        await anext(contract.events(start=1))
    with pytest.raises(DeliverError, match="PERMISSION_DENIED"):
        await anext(gateway.network("ch").blocks(1))
    assert (len(fake.requests["ChaincodeEvents"]), len(fake.requests["Deliver"])) == (1, 1)


@pytest.mark.parametrize(
    "data", [b"\xff\xff", events(2, "old"), events(4, "other", chaincode="other")], ids=["random", "past", "other"]
)
async def test_a_reply_that_is_no_event_of_the_chaincode_is_refused(
    contract: Contract, fake: FakeGateway, data: bytes
) -> None:
    fake.script("ChaincodeEvents", Stream((data,), hold=True))
    with pytest.raises(UnexpectedReply):
        await anext(contract.events(start=3))
    await fake.until_idle()


@pytest.mark.parametrize("kind", ["events", "blocks"])
async def test_cancelling_or_closing_ends_the_stream_at_the_peer(
    contract: Contract, gateway: Gateway, fake: FakeGateway, kind: str
) -> None:
    method = "ChaincodeEvents" if kind == "events" else "Deliver"
    for count, stop in enumerate(("cancel", "close"), 1):
        source: Any = contract.events(start=1) if kind == "events" else gateway.network("ch").blocks(1)
        waiting = asyncio.ensure_future(anext(source))
        await fake.until(method, count)
        if stop == "cancel":
            waiting.cancel()
        else:
            await source.aclose()
        with pytest.raises(asyncio.CancelledError if stop == "cancel" else StopAsyncIteration):
            await waiting
        await fake.until_idle()
        await source.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(source)


async def test_blocks_go_on_at_the_next_one_when_the_stream_breaks(gateway: Gateway, fake: FakeGateway) -> None:
    fake.script("Deliver", Stream((block(5), block(6)), BROKEN), Stream((block(7), block(8)), hold=True))
    got = [b.header.number async for b in gateway.network("ch").blocks(5, 8)]
    assert got == [5, 6, 7, 8]
    assert [seek_of(request).start.specified.number for request in fake.requests["Deliver"]] == [5, 7]


async def test_a_peer_that_is_several_blocks_behind_is_waited_for(gateway: Gateway, fake: FakeGateway) -> None:
    """It says of a block beyond its next one that it is not there."""
    behind = Stream((deliver_status(404),))
    fake.script("DeliverFiltered", behind, behind, Stream((filtered(7),), hold=True))
    await gateway.network("ch").reached(7)
    assert len(fake.requests["DeliverFiltered"]) == 3
    fake.script("DeliverFiltered", *[behind] * 100)
    with pytest.raises(TimeoutError):
        await gateway.network("ch").reached(8, timeout_s=0.1)


async def test_filtered_blocks_are_read_by_their_own_method(gateway: Gateway, fake: FakeGateway) -> None:
    fake.script("DeliverFiltered", Stream((filtered(0), filtered(1)), hold=True))
    assert [b.number async for b in gateway.network("ch").filtered_blocks(0, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, DeliverForbidden), (404, DeliverNotFound), (400, DeliverBadRequest), (503, DeliverUnavailable)],
)
async def test_a_status_of_the_peer_is_an_error_of_its_own_type(
    gateway: Gateway, fake: FakeGateway, status: int, kind: type[DeliverError]
) -> None:
    fake.script("Deliver", Stream((deliver_status(status),)))
    with pytest.raises(kind) as caught:
        await anext(gateway.network("ch").blocks(0, reconnect=False))
    assert (type(caught.value), caught.value.status, caught.value.channel_id) == (kind, status, "ch")
    assert caught.value.endpoint == fake.address


@pytest.mark.parametrize(
    "second",
    [block(3), block(1), block(0), filtered(2), b"", b"\xff", deliver_status(200)],
    ids=["gap", "twice", "backwards", "of another kind", "empty", "random", "success too early"],
)
async def test_anything_but_the_next_block_is_an_error(gateway: Gateway, fake: FakeGateway, second: bytes) -> None:
    fake.script("Deliver", Stream((block(1), second), hold=True))
    source = gateway.network("ch").blocks(1, 9)
    assert (await anext(source)).header.number == 1
    with pytest.raises(UnexpectedReply):
        await anext(source)
    await fake.until_idle()


async def test_an_empty_first_reply_is_not_taken_for_a_block(gateway: Gateway, fake: FakeGateway) -> None:
    fake.script("Deliver", Stream((b"",), hold=True))
    with pytest.raises(UnexpectedReply):
        await anext(gateway.network("ch").blocks())
