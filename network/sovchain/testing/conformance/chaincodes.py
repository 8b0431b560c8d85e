"""Chaincode that calls chaincode, and chaincode that is upgraded."""

from __future__ import annotations

import asyncio

import pytest
from fabric_protos.peer.lifecycle import lifecycle_pb2

from sovchain.client import CommitRejected, EndorseError
from sovchain.network.topology import Collection
from sovchain.testing.conformance.chaincode import Probe
from sovchain.testing.conformance.topology import ALL, INNER, RENEWED, STRICT, with_chaincode
from sovchain.testing.conformance.world import ConformanceNetwork, Member

PAIR = ["AlphaMSP", "BetaMSP"]
PAIR_POLICY = "AND('AlphaMSP.peer', 'BetaMSP.peer')"
ADDED = "added"


@pytest.mark.asyncio
class ChaincodeConformance:
    """Chaincode calling chaincode (core/chaincode/handler.go HandleInvokeChaincode), and the lifecycle."""

    async def test_a_called_chaincode_on_the_same_channel_writes_into_its_own_namespace(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            done = await world.submit(Probe.call, STRICT, "Probe:add", [world.key(), "5"], "")
            assert done.result == b"5"
            assert await world.beta.contract(STRICT).evaluate(Probe.get, world.key()) == b"5"
            assert await world.beta.contract().evaluate(Probe.scan, world.key(), world.key("~")) == []

    async def test_reads_of_a_called_chaincode_are_protected(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            late = (
                await world.alpha.contract().proposal(Probe.call, STRICT, "Probe:add", [world.key(), "1"], "").endorse()
            )
            await world.settle(await world.alpha.contract(STRICT).submit(Probe.add, world.key(), 10))
            with pytest.raises(CommitRejected) as caught:
                await (await late.submit()).committed()
            assert caught.value.code_name == "MVCC_READ_CONFLICT"

    async def test_a_called_chaincode_that_refuses_ends_the_transaction(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            with pytest.raises(EndorseError) as caught:
                await world.alpha.contract().submit(Probe.call, STRICT, "Probe:fail", [world.key()], "")
            assert caught.value.status == "ABORTED"
            assert await world.alpha.contract(STRICT).evaluate(Probe.scan, world.key(), world.key("~")) == []

    async def test_a_chaincode_on_another_channel_is_read(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            done = await world.alpha.contract(INNER).submit(Probe.put, world.key(), b"on narrow")
            await world.beta.narrow.commit(done.transaction_id).status()
            pair = world.alpha.contract().with_options(organizations=PAIR)
            found = await pair.submit(Probe.call, INNER, "Probe:get", [world.key()], "narrow")
            assert found.result == b"on narrow"

    async def test_writes_on_another_channel_are_thrown_away(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            pair = world.alpha.contract().with_options(organizations=PAIR)
            await pair.submit(Probe.call, INNER, "Probe:put", [world.key(), "value"], "narrow")
            found = await world.alpha.contract(INNER).evaluate(Probe.scan, world.key(), world.key("~"))
            assert found == []

    async def test_an_upgrade_brings_another_sequence_and_policy_and_keeps_the_data(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """The next sequence with the policy of all three, of whom two do not suffice from then on, and a collection."""
        async with conformance_network.open() as world:
            before = await _definition(world.alpha, RENEWED)
            pair = world.alpha.contract(RENEWED).with_options(organizations=PAIR)
            await world.settle(await pair.submit(Probe.put, world.key(), b"kept"))
            key = world.key()
        topology = with_chaincode(
            conformance_network.topology,
            RENEWED,
            version=f"2.{before.sequence}",
            endorsement_policy=ALL,
            collections=(Collection(name=ADDED, members=("Alpha", "Beta"), endorsement_policy=PAIR_POLICY),),
        )
        await asyncio.to_thread(conformance_network.restart, topology)
        async with conformance_network.open() as world:
            after = await _definition(world.gamma, RENEWED)
            assert (after.sequence, after.version) == (before.sequence + 1, f"2.{before.sequence}")
            assert await world.gamma.contract(RENEWED).evaluate(Probe.get, key) == b"kept"
            with pytest.raises(CommitRejected) as caught:
                await world.alpha.contract(RENEWED).with_options(organizations=PAIR).submit(Probe.put, key, b"no")
            assert caught.value.code_name == "ENDORSEMENT_POLICY_FAILURE"
            done = await world.alpha.contract(RENEWED).submit(Probe.put, key, b"new")
            await world.settle(done)
            assert await world.gamma.contract(RENEWED).evaluate(Probe.get, key) == b"new"
            assert [entry.static_collection_config.name for entry in after.collections.config] == [ADDED]
            shared = world.alpha.contract(RENEWED).with_options(organizations=PAIR)
            await world.settle(await shared.submit(Probe.put_private, ADDED, key, b"private"))
            own = world.beta.contract(RENEWED).with_options(organizations=["BetaMSP"])
            assert await own.evaluate(Probe.get_private, ADDED, key) == b"private"


async def _definition(member: Member, chaincode: str) -> lifecycle_pb2.QueryChaincodeDefinitionResult:
    """The committed definition of a chaincode (core/chaincode/lifecycle/scc.go)."""
    arguments = lifecycle_pb2.QueryChaincodeDefinitionArgs(name=chaincode).SerializeToString()
    data = await member.wide.contract("_lifecycle").evaluate("QueryChaincodeDefinition", arguments)
    return lifecycle_pb2.QueryChaincodeDefinitionResult.FromString(data)
