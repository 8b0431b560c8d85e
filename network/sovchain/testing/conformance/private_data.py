"""Private data: the organisations' implicit collections, and collections that a chaincode declares."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable

import pytest
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from sovchain.client import CommitRejected, Contract, EndorseError, EvaluateError, Gateway, Submitted
from sovchain.client import Network as Channel
from sovchain.testing.conformance.blocks import read_blocks
from sovchain.testing.conformance.chaincode import LEDGER, MISSING, Probe
from sovchain.testing.conformance.topology import BRIEF, BRIEF_BLOCKS, COMMON, PROBE, SHARED, WIDE
from sovchain.testing.conformance.world import CATCH_UP_S, ConformanceNetwork, World, foreign_profile
from sovchain.testing.faults import NotOffered

SECRET = b"a secret of Alpha alone"
PULL_S = 90.0
"""Longer than a peer looks for missing private data before it commits a block without them (60 s)."""


async def _keep(world: World, name: str = "key", value: bytes = SECRET) -> Submitted[None]:
    """Alpha writes into its own collection, endorsed by itself."""
    own = world.alpha.contract().with_options(organizations=["AlphaMSP"])
    return await world.settle(await own.submit(Probe.put_private, world.alpha.collection, world.key(name), value))


async def _missing(reading: Awaitable[object]) -> None:
    with pytest.raises(EvaluateError) as caught:
        await reading
    assert caught.value.code == MISSING


@pytest.mark.asyncio
class PrivateDataConformance:
    """Values go to the peers of the collection's members, hashes onto the ledger.

    An implicit collection's members are those of its organisation, whose peers alone endorse writes to it
    (core/chaincode/lifecycle/deployedcc_infoprovider.go GenerateImplicitCollectionForOrg, metadata_provider.go).
    """

    async def test_the_owner_reads_its_private_value(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await _keep(world)
            found = await world.alpha.contract().evaluate(Probe.get_private, world.alpha.collection, world.key())
            assert found == SECRET

    async def test_a_large_private_value_is_kept(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            large = SECRET * (1024 * 1024 // len(SECRET))
            await _keep(world, value=large)
            found = await world.alpha.contract().evaluate(Probe.get_private, world.alpha.collection, world.key())
            assert found == large

    async def test_the_gateway_has_the_owner_alone_endorse(self, conformance_network: ConformanceNetwork) -> None:
        """Transient data goes to no organisation that is not a member (internal/pkg/gateway/endorse.go, step 4)."""
        async with conformance_network.open() as world:
            await world.submit(Probe.put_private, world.alpha.collection, world.key(), SECRET)
            found = await world.alpha.contract().evaluate(Probe.get_private, world.alpha.collection, world.key())
            assert found == SECRET

    async def test_every_organisation_reads_the_hash(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await _keep(world)
            for member in world.members.values():
                found = await member.contract().evaluate(Probe.private_hash, world.alpha.collection, world.key())
                assert found == hashlib.sha256(SECRET).digest()

    async def test_a_peer_of_another_organisation_does_not_have_the_value(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """core/ledger/kvledger/txmgmt/txmgr/query_executor.go GetPrivateData."""
        async with conformance_network.open() as world:
            await _keep(world)
            own = world.beta.contract().with_options(organizations=["BetaMSP"])
            with pytest.raises(EvaluateError) as caught:
                await own.evaluate(Probe.get_private, world.alpha.collection, world.key())
            assert caught.value.code == LEDGER
            assert "private data matching public hash version is not available" in str(caught.value)

    async def test_no_block_holds_the_value(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            canary = b"canary " + world.key().encode()
            done = await _keep(world, value=canary)
            for member in world.members.values():
                (block,) = await read_blocks(member.wide, done.block_number, done.block_number)
                content = block.SerializeToString()
                assert done.transaction_id.encode() in content
                assert canary not in content
                assert hashlib.sha256(canary).digest() in content

    async def test_another_organisation_delivers_into_the_collection(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """Beta's client may write where Alpha's peer endorses: who may do so is for the contract to say."""
        async with conformance_network.open() as world:
            sent = world.beta.contract().with_options(organizations=["AlphaMSP"])
            await world.settle(await sent.submit(Probe.put_private, world.alpha.collection, world.key(), b"from Beta"))
            found = await world.alpha.contract().evaluate(Probe.get_private, world.alpha.collection, world.key())
            assert found == b"from Beta"

    async def test_a_write_that_the_owner_did_not_endorse_is_a_policy_failure(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """core/common/validation/statebased/v20.go CheckCCEPIfNotChecked: the collection's own policy.

        The owner's peer may take a minute over the block: with Fabric's own settings it looks everywhere for the private
        data of invalid transactions too (sampleconfig/core.yaml, pullRetryThreshold and
        skipPullingInvalidTransactionsDuringCommit).
        """
        async with conformance_network.open() as world:
            await _keep(world)
            others = world.beta.contract().with_options(organizations=["BetaMSP", "GammaMSP"])
            with pytest.raises(CommitRejected) as caught:
                await others.submit(Probe.delete_private, world.alpha.collection, world.key())
            assert caught.value.code_name == "ENDORSEMENT_POLICY_FAILURE"
            status = await world.alpha.wide.commit(caught.value.transaction_id).status(timeout_s=PULL_S)
            assert status.code_name == "ENDORSEMENT_POLICY_FAILURE"
            found = await world.alpha.contract().evaluate(Probe.get_private, world.alpha.collection, world.key())
            assert found == SECRET

    async def test_a_deleted_private_value_is_gone_with_its_hash(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await _keep(world)
            own = world.alpha.contract().with_options(organizations=["AlphaMSP"])
            await world.settle(await own.submit(Probe.delete_private, world.alpha.collection, world.key()))
            await _missing(own.evaluate(Probe.get_private, world.alpha.collection, world.key()))
            await _missing(world.beta.contract().evaluate(Probe.private_hash, world.alpha.collection, world.key()))

    async def test_a_purged_private_value_is_gone_with_its_hash(self, conformance_network: ConformanceNetwork) -> None:
        """Needs the application capability V2_5 (core/chaincode/handler.go HandlePurgePrivateData)."""
        async with conformance_network.open() as world:
            await _keep(world)
            own = world.alpha.contract().with_options(organizations=["AlphaMSP"])
            await world.settle(await own.submit(Probe.purge_private, world.alpha.collection, world.key()))
            await _missing(own.evaluate(Probe.get_private, world.alpha.collection, world.key()))
            await _missing(world.beta.contract().evaluate(Probe.private_hash, world.alpha.collection, world.key()))
            await _keep(world, value=b"a new value")
            found = await own.evaluate(Probe.get_private, world.alpha.collection, world.key())
            assert found == b"a new value"

    async def test_private_keys_are_scanned_in_order(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            for name in ("c", "a", "b"):
                await _keep(world, name, name.encode())
            found = await world.alpha.contract().evaluate(
                Probe.scan_private, world.alpha.collection, world.key("a"), world.key("c")
            )
            assert [(entry.key, entry.value) for entry in found] == [(world.key("a"), "a"), (world.key("b"), "b")]

    async def test_a_transaction_that_has_scanned_private_keys_may_not_write(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """core/ledger/kvledger/txmgmt/txmgr/tx_simulator.go checkPvtdataQueryPerformed."""
        async with conformance_network.open() as world:
            await _keep(world)
            own = world.alpha.contract().with_options(organizations=["AlphaMSP"])
            with pytest.raises(EndorseError) as caught:
                await own.submit(
                    Probe.scan_private_and_put, world.alpha.collection, world.key(), world.key("~"), world.key("new")
                )
            said = " ".join(detail.message for detail in caught.value.details)
            assert "Transaction has already performed queries on pvt data. Writes are not allowed" in said

    async def test_a_collection_that_there_is_not_is_refused(self, conformance_network: ConformanceNetwork) -> None:
        """core/ledger/kvledger/txmgmt/txmgr/collection_val.go."""
        async with conformance_network.open() as world:
            with pytest.raises(EvaluateError) as caught:
                await world.alpha.contract().evaluate(Probe.get_private, "nothing", world.key())
            assert caught.value.code == LEDGER
            assert "nothing" in str(caught.value)


def _declared(network: ConformanceNetwork) -> None:
    """Raise NotOffered unless the chaincode declares the collections that these tests are about."""
    if not getattr(network.topology.chaincode(PROBE), "collections", ()):
        raise NotOffered("collections that a chaincode declares", network.runtime)


@pytest.mark.asyncio
class CollectionConformance:
    """Collections in the definition: `shared` by Alpha and Beta, and `brief`, whose data live for a few blocks.

    core/chaincode/handler.go errorIfCreatorHasNoReadPermission, errorIfCreatorHasNoWritePermission;
    core/ledger/pvtdatapolicy/btlpolicy.go.
    """

    async def test_the_members_read_what_they_share_and_the_others_its_hash(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        _declared(conformance_network)
        async with conformance_network.open() as world:
            await world.submit(Probe.put_private, SHARED, world.key(), SECRET)
            for member in (world.alpha, world.beta):
                own = member.contract().with_options(organizations=[member.msp_id])
                assert await own.evaluate(Probe.get_private, SHARED, world.key()) == SECRET
            found = await world.gamma.contract().evaluate(Probe.private_hash, SHARED, world.key())
            assert found == hashlib.sha256(SECRET).digest()

    async def test_only_clients_of_members_read(self, conformance_network: ConformanceNetwork) -> None:
        _declared(conformance_network)
        async with conformance_network.open() as world:
            await world.submit(Probe.put_private, SHARED, world.key(), SECRET)
            with pytest.raises(EvaluateError) as caught:
                await _at_alpha(world.gamma.contract()).evaluate(Probe.get_private, SHARED, world.key())
            assert "tx creator does not have read access permission on privatedata" in str(caught.value)

    async def test_only_clients_of_members_write(self, conformance_network: ConformanceNetwork) -> None:
        _declared(conformance_network)
        async with conformance_network.open() as world:
            with pytest.raises(EndorseError) as caught:
                await _at_alpha(world.gamma.contract()).submit(Probe.put_private, SHARED, world.key(), SECRET)
            said = " ".join(detail.message for detail in caught.value.details)
            assert "tx creator does not have write access permission on privatedata" in said

    async def test_data_are_gone_with_their_hash_when_their_blocks_are_over(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        _declared(conformance_network)
        async with conformance_network.open() as world:
            done = await world.submit(Probe.put_private, BRIEF, world.key(), SECRET)
            assert await world.alpha.contract().evaluate(Probe.get_private, BRIEF, world.key()) == SECRET
            number = done.block_number
            while number <= done.block_number + BRIEF_BLOCKS:
                number = (await world.submit(Probe.put, world.key("other"), b"value")).block_number
            await _missing(_at_alpha(world.alpha.contract()).evaluate(Probe.get_private, BRIEF, world.key()))
            await _missing(world.beta.contract().evaluate(Probe.private_hash, BRIEF, world.key()))


@pytest.mark.asyncio
class PrivateBlockConformance:
    """Blocks with the private data that the peer has of them and the reader may see (core/peer/deliverevents.go)."""

    async def test_a_block_brings_what_the_peers_organisation_holds(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            done = await _keep(world)
            assert await _writes(world.alpha.wide, done.block_number) == {
                (PROBE, world.alpha.collection, world.key(), SECRET)
            }
            assert await _writes(world.beta.wide, done.block_number) == set()

    async def test_what_is_for_members_only_is_left_out_for_the_others(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """collPolicyChecker: who may read blocks sees other collections of the peer, members or not."""
        _declared(conformance_network)
        async with conformance_network.open() as world, conformance_network.attach() as network:
            hidden = (await world.submit(Probe.put_private, SHARED, world.key(), SECRET)).block_number
            shown = (await world.submit(Probe.put_private, COMMON, world.key(), SECRET)).block_number
            assert {entry[1] for entry in await _writes(world.beta.wide, hidden)} == {SHARED}
            foreign, stranger = foreign_profile(network, "Alpha", "Gamma"), network.identity("Gamma")
            async with Gateway.connect(foreign, stranger) as gateway:
                assert await _writes(gateway.network(WIDE), hidden) == set()
                assert {entry[1] for entry in await _writes(gateway.network(WIDE), shown)} == {COMMON}

    async def test_a_purged_key_is_gone_from_the_blocks_before(self, conformance_network: ConformanceNetwork) -> None:
        """core/ledger/pvtdatastorage/store.go removePurgedDataFromCollPvtRWset."""
        async with conformance_network.open() as world:
            first, other = await _keep(world), await _keep(world, "other")
            own = _at_alpha(world.alpha.contract())
            purge = await world.settle(await own.submit(Probe.purge_private, world.alpha.collection, world.key()))
            again = await _keep(world, value=b"a new value")
            assert await _writes(world.alpha.wide, first.block_number) == set()
            assert await _writes(world.alpha.wide, purge.block_number) == set()
            assert {entry[2] for entry in await _writes(world.alpha.wide, other.block_number)} == {world.key("other")}
            assert {entry[3] for entry in await _writes(world.alpha.wide, again.block_number)} == {b"a new value"}

    async def test_data_are_gone_from_their_block_when_their_blocks_are_over(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """core/ledger/pvtdatastorage/helper.go isExpired."""
        _declared(conformance_network)
        async with conformance_network.open() as world:
            done = await world.submit(Probe.put_private, BRIEF, world.key(), SECRET)
            number = done.block_number
            while number < done.block_number + BRIEF_BLOCKS:
                assert await _writes(world.beta.wide, done.block_number), f"still there after block {number}"
                number = (await world.submit(Probe.put, world.key("other"), b"value")).block_number
            while number <= done.block_number + BRIEF_BLOCKS:
                number = (await world.submit(Probe.put, world.key("other"), b"value")).block_number
            assert await _writes(world.beta.wide, done.block_number) == set()


async def _writes(channel: Channel, number: int) -> set[tuple[str, str, str, bytes]]:
    """What comes with a block: (chaincode, collection, key, value) of each write."""
    async with asyncio.timeout(CATCH_UP_S), channel.blocks_and_private_data(number, number) as blocks:
        found = await anext(blocks)
    return {
        (namespace.namespace, written.collection_name, write.key, write.value)
        for private in found.private_data.values()
        for namespace in private.ns_pvt_rwset
        for written in namespace.collection_pvt_rwset
        for write in kv_rwset_pb2.KVRWSet.FromString(written.rwset).writes
    }


def _at_alpha(contract: Contract) -> Contract:
    return contract.with_options(organizations=["AlphaMSP"])
