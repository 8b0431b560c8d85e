"""A slow reader holds the peer back; what waits in between is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psutil
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import chaincode_event_pb2, events_pb2
from fakegateway import FakeGateway, Stream

from sovchain.client import Contract, Gateway

COUNT, SIZE = 10_000, 40_000
GROWTH_MOST = 64 * 2**20
"""For 400 MB that are on offer."""


class Offered(Stream):
    """Messages that are made when they are sent, and counted."""

    def __init__(self, make: Any) -> None:
        super().__init__((), hold=True)
        self.sent = 0
        self._make = make

    def from_request(self, request: bytes) -> Any:
        return self._all()

    def _all(self) -> Iterator[bytes]:
        for number in range(1, COUNT + 1):
            self.sent += 1
            yield self._make(number)


def block(number: int) -> bytes:
    found = common_pb2.Block(
        header=common_pb2.BlockHeader(number=number), data=common_pb2.BlockData(data=[bytes(SIZE)])
    )
    return events_pb2.DeliverResponse(block=found).SerializeToString()


def event(number: int) -> bytes:
    found = chaincode_event_pb2.ChaincodeEvent(
        chaincode_id="basic", tx_id=str(number), event_name="made", payload=bytes(SIZE)
    )
    return gateway_pb2.ChaincodeEventsResponse(block_number=number, events=[found]).SerializeToString()


async def _slowly(source: Any, offered: Offered) -> None:
    process = psutil.Process()
    async with source:
        await anext(source)
        before = process.memory_info().rss
        for _ in range(20):
            await asyncio.sleep(0.03)
            await anext(source)
        growth = process.memory_info().rss - before
    assert 20 <= offered.sent < COUNT / 4, "the peer was not held back"
    assert growth < GROWTH_MOST


async def test_a_slow_reader_of_blocks_holds_the_peer_back(gateway: Gateway, fake: FakeGateway) -> None:
    offered = Offered(block)
    fake.script("Deliver", offered)
    await _slowly(gateway.network("ch").blocks(1), offered)


async def test_a_slow_reader_of_events_holds_the_peer_back(contract: Contract, fake: FakeGateway) -> None:
    offered = Offered(event)
    fake.script("ChaincodeEvents", offered)
    await _slowly(contract.events(start=1), offered)
