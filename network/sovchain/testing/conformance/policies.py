"""Endorsement policies of chaincodes and of keys, met and not met."""

from __future__ import annotations

from itertools import combinations

import pytest

from sovchain.client import CommitRejected, Contract
from sovchain.protocol.transactions import parse_transaction
from sovchain.testing.conformance.blocks import read_blocks
from sovchain.testing.conformance.chaincode import Probe
from sovchain.testing.conformance.topology import ALL, STRICT
from sovchain.testing.conformance.world import ConformanceNetwork, World

MSP_IDS = ("AlphaMSP", "BetaMSP", "GammaMSP")
PAIRS = list(combinations(MSP_IDS, 2))
FAILURE = (10, "ENDORSEMENT_POLICY_FAILURE")


def _by(contract: Contract, *organizations: str) -> Contract:
    return contract.with_options(organizations=organizations)


async def _refused(contract: Contract, key: str, value: bytes = b"other") -> CommitRejected:
    """Submit a write that must be ordered and marked invalid for its endorsements."""
    with pytest.raises(CommitRejected) as caught:
        await contract.submit(Probe.put, key, value)
    assert (caught.value.code, caught.value.code_name) == FAILURE
    return caught.value


@pytest.mark.asyncio
class PolicyConformance:
    """Who must endorse what (core/handlers/validation/builtin/v20, core/common/validation/statebased)."""

    @pytest.mark.parametrize("pair", PAIRS, ids="+".join)
    async def test_any_two_of_three_satisfy_a_policy_of_two(
        self, conformance_network: ConformanceNetwork, pair: tuple[str, str]
    ) -> None:
        async with conformance_network.open() as world:
            done = await _by(world.alpha.contract(), *pair).submit(Probe.put, world.key(), b"value")
            assert done.code == 0

    @pytest.mark.parametrize("alone", MSP_IDS)
    async def test_one_organisation_alone_is_committed_as_a_policy_failure(
        self, conformance_network: ConformanceNetwork, alone: str
    ) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"value")
            rejected = await _refused(_by(world.alpha.contract(), alone), world.key())
            status = await world.beta.wide.commit(rejected.transaction_id).status()
            assert (status.code, status.block_number) == (10, rejected.block_number)
            assert await world.beta.contract().evaluate(Probe.get, world.key()) == b"value"

    async def test_an_organisation_named_twice_counts_once(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await _refused(_by(world.alpha.contract(), "BetaMSP", "BetaMSP"), world.key())

    async def test_the_gateway_collects_what_the_policy_asks_for(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            done = await world.alpha.contract(STRICT).submit(Probe.put, world.key(), b"value")
            assert await _endorsers(world, done.transaction_id, done.block_number) == set(MSP_IDS)

    @pytest.mark.parametrize("pair", PAIRS, ids="+".join)
    async def test_two_of_three_do_not_satisfy_a_policy_of_all(
        self, conformance_network: ConformanceNetwork, pair: tuple[str, str]
    ) -> None:
        async with conformance_network.open() as world:
            await _refused(_by(world.alpha.contract(STRICT), *pair), world.key())

    async def test_a_chaincode_called_by_another_brings_its_own_policy(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """core/committer/txvalidator/v20/plugindispatcher: each namespace that is written is judged by its policy."""
        async with conformance_network.open() as world:
            arguments = (STRICT, "Probe:put", [world.key(), "value"], "")
            with pytest.raises(CommitRejected) as caught:
                await _by(world.alpha.contract(), "AlphaMSP", "BetaMSP").submit(Probe.call, *arguments)
            assert (caught.value.code, caught.value.code_name) == FAILURE
            done = await world.submit(Probe.call, *arguments)
            assert await _endorsers(world, done.transaction_id, done.block_number) == set(MSP_IDS)


@pytest.mark.asyncio
class KeyPolicyConformance:
    """State-based endorsement: policies of single keys (core/common/validation/statebased/vpmanagerimpl.go)."""

    async def test_a_keys_policy_is_read_back(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"value")
            assert await world.alpha.contract().evaluate(Probe.protection, world.key()) == b""
            await world.submit(Probe.protect, world.key(), ALL)
            policy = await world.gamma.contract().evaluate(Probe.protection, world.key())
            assert all(msp_id.encode() in policy for msp_id in MSP_IDS)

    async def test_a_stricter_policy_of_a_key_is_enforced(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"value")
            await world.submit(Probe.protect, world.key(), ALL)
            await _refused(_by(world.alpha.contract(), "AlphaMSP", "BetaMSP"), world.key())
            await _by(world.alpha.contract(), *MSP_IDS).submit(Probe.put, world.key(), b"new")

    async def test_the_gateway_collects_what_a_keys_policy_asks_for(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """The first endorser's ChaincodeInterest names the keys' policies (core/chaincode/chaincode_support.go)."""
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"value")
            await world.submit(Probe.protect, world.key(), ALL)
            done = await world.submit(Probe.put, world.key(), b"new")
            assert await _endorsers(world, done.transaction_id, done.block_number) == set(MSP_IDS)

    async def test_a_keys_policy_stands_in_for_the_chaincodes(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"value")
            await world.submit(Probe.protect, world.key(), "OR('BetaMSP.peer')")
            await _refused(_by(world.alpha.contract(), "AlphaMSP", "GammaMSP"), world.key())
            await _by(world.alpha.contract(), "BetaMSP").submit(Probe.put, world.key(), b"new")

    async def test_another_key_in_the_same_transaction_needs_the_chaincodes_policy(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key("a"), b"value")
            await world.submit(Probe.protect, world.key("a"), "OR('BetaMSP.peer')")
            with pytest.raises(CommitRejected) as caught:
                await _by(world.alpha.contract(), "BetaMSP").submit(
                    Probe.put_many, [world.key("a"), world.key("b")], b"new"
                )
            assert (caught.value.code, caught.value.code_name) == FAILURE

    async def test_a_keys_policy_is_changed_only_under_itself(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"value")
            await world.submit(Probe.protect, world.key(), ALL)
            with pytest.raises(CommitRejected) as caught:
                await _by(world.alpha.contract(), "AlphaMSP", "BetaMSP").submit(
                    Probe.protect, world.key(), "OR('AlphaMSP.peer')"
                )
            assert (caught.value.code, caught.value.code_name) == FAILURE
            await _refused(_by(world.alpha.contract(), "AlphaMSP"), world.key())


async def _endorsers(world: World, transaction_id: str, block_number: int) -> set[str]:
    """The organisations whose endorsements stand in the block."""
    (block,) = await read_blocks(world.alpha.wide, block_number, block_number)
    for envelope in block.data.data:
        transaction = parse_transaction(envelope)
        if transaction.transaction_id == transaction_id:
            return {
                msp_id
                for endorsement in transaction.endorsements
                for msp_id in MSP_IDS
                if msp_id.encode() in endorsement.endorser
            }
    raise AssertionError(f"transaction {transaction_id} is not in block {block_number}")
