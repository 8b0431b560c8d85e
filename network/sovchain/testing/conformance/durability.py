"""What is kept when a network, or a part of it, ends and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from sovchain.client import ConnectError, GatewayError, OutcomeUnknown
from sovchain.testing.conformance.chaincode import Probe
from sovchain.testing.conformance.world import ConformanceNetwork, World
from sovchain.testing.faults import NotOffered

AGAIN_S = 60.0
"""How long the rest of a network may take to work again."""


@asynccontextmanager
async def _down(network: ConformanceNetwork, *targets: str) -> AsyncIterator[None]:
    """Kill nodes for the length of the block, then start them again."""
    killed = []
    try:
        for target in targets:
            await asyncio.to_thread(network.kill_node, target)
            killed.append(target)
        yield
    finally:
        for target in killed:
            await asyncio.to_thread(network.start_node, target)


@pytest.mark.asyncio
class DurabilityConformance:
    """Committed is committed."""

    async def test_a_network_that_was_stopped_goes_on_where_it_was(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            done = await world.submit(Probe.put, world.key(), b"kept")
            announced = await world.submit(Probe.announce, world.key("event"), "announced", b"payload")
            key, before = world.key(), await world.alpha.wide.chain_info()
        await asyncio.to_thread(conformance_network.restart)
        async with conformance_network.open() as world:
            events = world.beta.contract().events(start=announced.block_number)
            async with asyncio.timeout(AGAIN_S), events as told:
                event = await anext(told)
            assert (event.transaction_id, event.payload) == (announced.transaction_id, b"payload"), "replayed as it was"
            assert await world.alpha.wide.chain_info() == before
            for member in world.members.values():
                assert await member.contract().evaluate(Probe.get, key) == b"kept"
                assert (await member.wide.commit(done.transaction_id).status()).successful
            await world.submit(Probe.put, key, b"new")

    async def test_a_network_whose_process_was_killed_goes_on_where_it_was(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            done = await world.submit(Probe.put, world.key(), b"kept")
            key = world.key()
        await asyncio.to_thread(conformance_network.kill)
        await asyncio.to_thread(conformance_network.start)
        async with conformance_network.open() as world:
            for member in world.members.values():
                assert await member.contract().evaluate(Probe.get, key) == b"kept"
                assert (await member.wide.commit(done.transaction_id).status()).block_number == done.block_number
            await world.submit(Probe.put, key, b"new")


@pytest.mark.asyncio
class FaultConformance:
    """What the others do while one part is away, and how it catches up."""

    async def test_the_others_commit_without_a_peer_and_it_catches_up(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        peer = conformance_network.topology.organization("Gamma").peer_host
        async with conformance_network.open() as world:
            pair = world.alpha.contract().with_options(organizations=["AlphaMSP", "BetaMSP"])
            async with _down(conformance_network, peer):
                with pytest.raises((ConnectError, GatewayError)):
                    await world.gamma.contract().evaluate(Probe.echo, b"is anybody there")
                done = await pair.submit(Probe.put, world.key(), b"value")
            key = world.key()
        async with conformance_network.open() as world:
            assert (await world.gamma.wide.commit(done.transaction_id).status(timeout_s=AGAIN_S)).successful
            assert await world.gamma.contract().evaluate(Probe.get, key) == b"value"

    async def test_each_ordering_node_in_turn_may_be_away(self, conformance_network: ConformanceNetwork) -> None:
        """The leader is among them: with it away, another is elected and the same envelope is sent again."""
        topology = conformance_network.topology
        for node in topology.ordering_organizations:
            async with conformance_network.open() as world, _down(conformance_network, node.orderer_host):
                await world.eventually(partial(_committed, world, world.key()), "a commit", AGAIN_S)
        async with conformance_network.open() as world:
            await world.eventually(partial(_committed, world, world.key()), "a commit", AGAIN_S)

    async def test_a_chaincode_that_was_killed_works_again(self, conformance_network: ConformanceNetwork) -> None:
        chaincodes = [target for target in conformance_network.targets if target.startswith("chaincode")]
        if not chaincodes:
            raise NotOffered("to kill chaincodes", conformance_network.runtime)
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"kept")
            async with _down(conformance_network, *chaincodes):
                with pytest.raises(GatewayError):
                    await world.alpha.contract().evaluate(Probe.get, world.key())
            await world.eventually(partial(_answers, world, world.key()), "an answer of the chaincode", AGAIN_S)
            await world.submit(Probe.put, world.key(), b"new")


async def _committed(world: World, key: str) -> bool:
    """Whether a write goes through now. One whose outcome is unknown may be repeated: it writes the same."""
    try:
        await world.alpha.contract().submit(Probe.put, key, b"value")
    except (ConnectError, GatewayError, OutcomeUnknown):
        return False
    return True


async def _answers(world: World, key: str) -> bool:
    """Whether the chaincode answers now."""
    try:
        await world.alpha.contract().evaluate(Probe.get, key)
    except (ConnectError, GatewayError):
        return False
    return True
