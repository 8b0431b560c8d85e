"""Chaincode events: live, from a block, after a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from sovchain.client import ChaincodeEvent, ChaincodeEvents, CommitRejected, MemoryCheckpointer, Position
from sovchain.testing.conformance.chaincode import Probe
from sovchain.testing.conformance.topology import STRICT
from sovchain.testing.conformance.world import CATCH_UP_S, ConformanceNetwork, World

T = TypeVar("T")


async def _soon(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(CATCH_UP_S):
        return await awaitable


async def _take(stream: ChaincodeEvents, number: int) -> list[ChaincodeEvent]:
    """The next events of a stream, which is ended afterwards."""
    async with stream as events:
        return [await _soon(anext(events)) for _ in range(number)]


async def _announce(world: World, *payloads: bytes) -> list[tuple[int, str, bytes]]:
    """Submit one event for each payload; return block number, transaction id and payload of each."""
    done = [await world.submit(Probe.announce, world.key(), "announced", payload) for payload in payloads]
    return [(s.block_number, s.transaction_id, payload) for s, payload in zip(done, payloads, strict=True)]


def _seen(events: list[ChaincodeEvent]) -> list[tuple[int, str, bytes]]:
    return [(event.block_number, event.transaction_id, event.payload) for event in events]


@pytest.mark.asyncio
class EventConformance:
    """What a listener is told (internal/pkg/gateway/chaincodeevents.go)."""

    async def test_a_listener_is_told_of_what_commits_from_now_on(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            await _announce(world, b"before")
            async with world.beta.contract().events() as events:
                ((number, transaction_id, _),) = await _announce(world, b"after")
                event = await _soon(anext(events))
            assert event == ChaincodeEvent(number, transaction_id, "probe", "announced", b"after")

    async def test_events_are_replayed_from_a_block(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            announced = await _announce(world, b"1", b"2", b"3")
            found = await _take(world.gamma.contract().events(start=announced[1][0]), 2)
            assert _seen(found) == announced[1:]

    async def test_events_go_on_after_a_transaction(self, conformance_network: ConformanceNetwork) -> None:
        """`after_transaction_id`: what stands before it in its block, and itself, is left out."""
        async with conformance_network.open() as world:
            announced = await _announce(world, b"1", b"2", b"3")
            number, transaction_id, _ = announced[0]
            found = await _take(world.alpha.contract().events(start=Position(number, transaction_id)), 2)
            assert _seen(found) == announced[1:]

    async def test_a_checkpoint_goes_on_where_the_last_listener_was(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            announced = await _announce(world, b"1", b"2", b"3")
            checkpoint = MemoryCheckpointer(Position(announced[0][0]))
            async with world.alpha.contract().events(checkpoint=checkpoint) as events:
                first = await _soon(anext(events))
                await events.acknowledge(first)
            found = await _take(world.beta.contract().events(checkpoint=checkpoint), 2)
            assert _seen([first, *found]) == announced

    async def test_an_invalid_transaction_has_no_event(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            late = await world.alpha.contract().proposal(Probe.announce_sum, world.key("sum"), 1).endorse()
            done = await world.submit(Probe.announce_sum, world.key("sum"), 10)
            with pytest.raises(CommitRejected) as caught:
                await (await late.submit()).committed()
            (after,) = await _announce(world, b"after")
            found = await _take(world.alpha.contract().events(start=done.block_number), 2)
            assert caught.value.block_number <= after[0]
            assert [event.transaction_id for event in found] == [done.transaction_id, after[1]]

    async def test_a_listener_is_told_of_its_own_chaincode_alone(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            strict = world.alpha.contract(STRICT)
            other = await strict.submit(Probe.announce, world.key(), "announced", b"of strict")
            (own,) = await _announce(world, b"of probe")
            assert _seen(await _take(world.alpha.contract().events(start=other.block_number), 1)) == [own]
            (found,) = await _take(strict.events(start=other.block_number), 1)
            assert (found.transaction_id, found.payload) == (other.transaction_id, b"of strict")

    async def test_a_called_chaincode_announces_nothing(self, conformance_network: ConformanceNetwork) -> None:
        """The event of a transaction is that of the chaincode that the client called (core/chaincode/handler.go)."""
        async with conformance_network.open() as world:
            done = await world.submit(
                Probe.call, STRICT, "Probe:announce", [world.key(), "announced", "of the called one"], ""
            )
            own = await world.alpha.contract(STRICT).submit(Probe.announce, world.key(), "announced", b"own")
            (found,) = await _take(world.alpha.contract(STRICT).events(start=done.block_number), 1)
            assert found.transaction_id == own.transaction_id
