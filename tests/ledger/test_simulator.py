"""Simulation: what is read, recorded and refused, by Fabric's rules and in Fabric's words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import collection_pb2
from ledger_world import CHAINCODE, World, increment, put

from sovchain.ledger.channel import Channel
from sovchain.ledger.errors import CollectionMissing, PrivateDataUnavailable, SimulationError
from sovchain.ledger.simulator import TxSimulator
from sovchain.ledger.state import Snapshot
from sovchain.protocol.crypto import sha256
from sovchain.protocol.policydsl import parse
from sovchain.protocol.rwset import NamespaceRwSet, Version, parse_rwset

ORG1 = "_implicit_org_Org1MSP"
ORG2 = "_implicit_org_Org2MSP"
SHARED = "shared"


@pytest.fixture(scope="module")
def filled_directory(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored channel with public keys k000..k119, a composite key, and private data."""
    directory = tmp_path_factory.mktemp("simulator") / "testchannel"
    asyncio.run(fill(world, directory))
    return directory


async def fill(world: World, directory: Path) -> None:
    channel = await world.create(directory)
    policy = parse("OR('Org1MSP.member', 'Org2MSP.member')")
    shared = collection_pb2.StaticCollectionConfig(
        name=SHARED, member_orgs_policy=collection_pb2.CollectionPolicyConfig(signature_policy=policy)
    )
    package = collection_pb2.CollectionConfigPackage(
        config=[collection_pb2.CollectionConfig(static_collection_config=shared)]
    )
    await world.define(channel, collections=package)

    def values(simulator: TxSimulator) -> None:
        for number in range(120):
            simulator.put_state(CHAINCODE, f"k{number:03}", b"v%d" % number)
        simulator.put_state(CHAINCODE, "\x00type\x00a\x00", b"composite")
        simulator.put_private(CHAINCODE, ORG1, "p", b"secret")
        simulator.put_private(CHAINCODE, SHARED, "s1", b"one")
        simulator.put_private(CHAINCODE, SHARED, "s2", b"two")

    def guard(simulator: TxSimulator) -> None:
        simulator.put_state_metadata(CHAINCODE, "k000", {"VALIDATION_PARAMETER": b"policy"})

    assert (await world.submit(channel, values, endorsers=["Org1MSP"]))[1] == 0
    assert (await world.submit(channel, guard))[1] == 0
    await channel.close()


@pytest.fixture
async def filled(world: World, filled_directory: Path) -> AsyncIterator[Channel]:
    """The filled channel, open. No test writes to it."""
    channel = await world.open(filled_directory)
    yield channel
    await channel.close()


@pytest.fixture
async def snapshot(filled: Channel) -> AsyncIterator[Snapshot]:
    with await filled.snapshot() as snapshot:
        yield snapshot


@pytest.fixture
def simulator(filled: Channel, snapshot: Snapshot) -> TxSimulator:
    return filled.simulator(snapshot, "Org1MSP", "tx-id")


def recorded(simulator: TxSimulator, namespace: str = CHAINCODE) -> NamespaceRwSet:
    for entry in parse_rwset(simulator.results().public).namespaces:
        if entry.namespace == namespace:
            return entry
    return NamespaceRwSet(namespace)


# Public state -----------------------------------------------------------------------------------------------------


def test_own_writes_are_not_read(simulator: TxSimulator) -> None:
    simulator.put_state(CHAINCODE, "k001", b"new")
    assert simulator.get_state(CHAINCODE, "k001") == b"v1"


def test_read_records_the_committed_version_and_absence(simulator: TxSimulator) -> None:
    assert simulator.get_states(CHAINCODE, ["k001", "absent"]) == [b"v1", None]
    reads = {read.key: read.version for read in recorded(simulator).reads}
    assert reads == {"absent": None, "k001": Version(2, 0)}


@pytest.mark.parametrize("value", [b"", None])
def test_empty_value_is_a_delete(simulator: TxSimulator, value: bytes | None) -> None:
    simulator.put_state(CHAINCODE, "k001", value)
    (write,) = recorded(simulator).writes
    assert write.is_delete


def test_range_gives_committed_keys_in_order_and_leaves_own_writes_out(simulator: TxSimulator) -> None:
    simulator.put_state(CHAINCODE, "k0005", b"mine")
    found = [key for key, _ in simulator.get_range(CHAINCODE, "k000", "k003")]
    assert found == ["k000", "k001", "k002"]


def test_range_that_was_read_to_its_end_is_recorded_with_the_end_that_was_asked_for(simulator: TxSimulator) -> None:
    list(simulator.get_range(CHAINCODE, "k000", "k003"))
    (query,) = recorded(simulator).range_queries
    assert (query.start, query.end, query.exhausted) == ("k000", "k003", True)
    assert [read.key for read in query.reads] == ["k000", "k001", "k002"]


def test_range_that_was_left_early_is_recorded_up_to_the_last_key_read(simulator: TxSimulator) -> None:
    results = simulator.get_range(CHAINCODE, "k000", "")
    results.next_result()
    results.next_result()
    (query,) = recorded(simulator).range_queries
    assert (query.end, query.exhausted, len(query.reads)) == ("k001", False, 2)


def test_range_that_was_opened_and_never_read_is_recorded_too(simulator: TxSimulator) -> None:
    simulator.get_range(CHAINCODE, "k000", "k003")
    (query,) = recorded(simulator).range_queries
    assert (query.end, query.exhausted, query.reads) == ("", False, ())


def test_more_than_fifty_results_are_recorded_as_a_merkle_summary(simulator: TxSimulator) -> None:
    assert len(list(simulator.get_range(CHAINCODE, "k000", "l"))) == 120
    (query,) = recorded(simulator).range_queries
    assert query.merkle is not None
    assert query.merkle.max_degree == 50
    assert query.reads == ()


def test_pages_follow_each_other_by_bookmark(simulator: TxSimulator) -> None:
    start, pages = "", []
    while True:
        page = simulator.get_range(CHAINCODE, start, "", page_size=50)
        keys = []
        while len(keys) < 50 and (row := page.next_result()) is not None:
            keys.append(row[0])
        pages.append(keys)
        start = page.bookmark_and_close()
        if not start:
            break
    assert [len(page) for page in pages] == [50, 50, 21]
    assert [key for page in pages for key in page] == ["\x00type\x00a\x00", *(f"k{number:03}" for number in range(120))]


def test_page_ends_at_its_size(simulator: TxSimulator) -> None:
    assert len(list(simulator.get_range(CHAINCODE, "k000", "", page_size=7))) == 7


def test_metadata_is_read_with_the_key(simulator: TxSimulator) -> None:
    assert simulator.get_state_metadata(CHAINCODE, "k000") == {"VALIDATION_PARAMETER": b"policy"}
    assert simulator.get_state_metadata(CHAINCODE, "k001") == {}
    reads = {read.key: read.version for read in recorded(simulator).reads}
    assert reads == {"k000": Version(3, 0), "k001": Version(2, 0)}


def test_policies_of_written_keys_are_part_of_the_results(simulator: TxSimulator) -> None:
    simulator.put_state(CHAINCODE, "k000", b"x")
    simulator.put_state(CHAINCODE, "k001", b"x")
    assert simulator.results().write_policies == {(CHAINCODE, ""): frozenset({b"policy"})}


async def test_history_is_newest_first_with_deletes_and_without_invalid_transactions(
    world: World, channel: Channel
) -> None:
    ids = [(await world.submit(channel, put("h", value)))[0] for value in (b"1", b"2", b"")]
    stale = await world.endorse(channel, increment("h"))
    ids.append((await world.submit(channel, put("h", b"3")))[0])
    await channel.order(stale.envelope)
    assert (await channel.wait_for_commit(stale.transaction_id))[0] == 11
    with await channel.snapshot() as snapshot:
        found = list(channel.simulator(snapshot, "Org1MSP").history(CHAINCODE, "h"))
    assert [entry.tx_id for entry in found] == ids[::-1]
    assert [entry.value for entry in found] == [b"3", b"", b"2", b"1"]
    assert [entry.is_delete for entry in found] == [False, True, False, False]
    assert all(entry.timestamp.seconds > 0 for entry in found)


# Order rules ------------------------------------------------------------------------------------------------------

WRITES: list[Callable[[TxSimulator], object]] = [
    lambda sim: sim.put_state(CHAINCODE, "k", b"v"),
    lambda sim: sim.delete_state(CHAINCODE, "k"),
    lambda sim: sim.put_state_metadata(CHAINCODE, "k", {"a": b"b"}),
    lambda sim: sim.put_private(CHAINCODE, ORG1, "k", b"v"),
    lambda sim: sim.delete_private(CHAINCODE, ORG1, "k"),
    lambda sim: sim.purge_private(CHAINCODE, ORG1, "k"),
    lambda sim: sim.put_private_metadata(CHAINCODE, ORG1, "k", {"a": b"b"}),
]


@pytest.mark.parametrize("write", WRITES)
def test_write_after_paginated_query_is_refused(simulator: TxSimulator, write: Callable[[TxSimulator], object]) -> None:
    simulator.get_range(CHAINCODE, "", "", page_size=1)
    with pytest.raises(SimulationError) as caught:
        write(simulator)
    assert str(caught.value) == (
        "txid [tx-id]: unsuppored transaction. Transaction has already performed a paginated query. "
        "Writes are not allowed"
    )


@pytest.mark.parametrize("write", WRITES)
def test_write_after_private_query_is_refused(simulator: TxSimulator, write: Callable[[TxSimulator], object]) -> None:
    simulator.get_private_range(CHAINCODE, SHARED, "", "")
    with pytest.raises(SimulationError) as caught:
        write(simulator)
    assert str(caught.value) == (
        "txid [tx-id]: unsuppored transaction. Transaction has already performed queries on pvt data. "
        "Writes are not allowed"
    )


@pytest.mark.parametrize("write", WRITES)
def test_paginated_and_private_queries_after_a_write_are_refused(
    simulator: TxSimulator, write: Callable[[TxSimulator], object]
) -> None:
    write(simulator)
    with pytest.raises(SimulationError) as paginated:
        simulator.get_range(CHAINCODE, "", "", page_size=1)
    assert str(paginated.value) == (
        "txid [tx-id]: unsuppored transaction. Paginated queries are supported only in a read-only transaction"
    )
    with pytest.raises(SimulationError) as private:
        simulator.get_private_range(CHAINCODE, SHARED, "", "")
    assert str(private.value) == (
        "txid [tx-id]: unsuppored transaction. Queries on pvt data is supported only in a read-only transaction"
    )


def test_plain_ranges_and_writes_mix_freely(simulator: TxSimulator) -> None:
    simulator.put_state(CHAINCODE, "k", b"v")
    list(simulator.get_range(CHAINCODE, "k000", "k002"))
    simulator.put_state(CHAINCODE, "l", b"v")
    assert len(recorded(simulator).writes) == 2


def test_rich_queries_are_refused_as_leveldb_does(simulator: TxSimulator) -> None:
    with pytest.raises(SimulationError, match=r"^ExecuteQuery not supported for leveldb$"):
        simulator.get_query(CHAINCODE, "{}")


def test_results_are_given_once_and_nothing_works_after_the_end(simulator: TxSimulator) -> None:
    simulator.results()
    with pytest.raises(SimulationError, match="should only be called once"):
        simulator.results()
    simulator.done()
    with pytest.raises(SimulationError, match=r"should not be used after calling Done\(\)"):
        simulator.get_state(CHAINCODE, "k")


# Private data -----------------------------------------------------------------------------------------------------


def test_private_value_is_read_by_its_owner_with_a_hashed_read(simulator: TxSimulator) -> None:
    assert simulator.get_private(CHAINCODE, ORG1, "p") == b"secret"
    assert simulator.get_private(CHAINCODE, ORG1, "absent") is None
    results = simulator.results()
    assert results.private_reads == {(CHAINCODE, ORG1)}
    assert results.private is None
    (collection,) = next(e for e in parse_rwset(results.public).namespaces if e.namespace == CHAINCODE).collections
    versions = {read.key_hash: read.version for read in collection.reads}
    assert versions == {sha256(b"p"): Version(2, 0), sha256(b"absent"): None}


def test_organisation_without_the_data_is_told_that_it_is_not_available(filled: Channel, snapshot: Snapshot) -> None:
    other = filled.simulator(snapshot, "Org2MSP", "tx-id")
    with pytest.raises(PrivateDataUnavailable) as caught:
        other.get_private(CHAINCODE, ORG1, "p")
    assert str(caught.value) == (
        "private data matching public hash version is not available. "
        "Public hash version = {BlockNum: 2, TxNum: 0}, Private data version = <nil>"
    )


def test_hash_of_private_data_is_there_for_everyone(filled: Channel, snapshot: Snapshot) -> None:
    other = filled.simulator(snapshot, "Org3MSP")
    assert other.get_private_hash(CHAINCODE, ORG1, "p") == sha256(b"secret")
    assert other.get_private_hash(CHAINCODE, ORG1, "absent") is None


def test_explicit_collection_reaches_its_members_only(filled: Channel, snapshot: Snapshot) -> None:
    for msp_id in ("Org1MSP", "Org2MSP"):
        simulator = filled.simulator(snapshot, msp_id)
        assert simulator.get_privates(CHAINCODE, SHARED, ["s1", "s2", "s3"]) == [b"one", b"two", None]
        assert list(simulator.get_private_range(CHAINCODE, SHARED, "s2", "")) == [("s2", b"two")]
    assert list(filled.simulator(snapshot, "Org3MSP").get_private_range(CHAINCODE, SHARED, "", "")) == []


def test_unknown_collection_and_undefined_chaincode_are_refused_in_fabrics_words(simulator: TxSimulator) -> None:
    with pytest.raises(CollectionMissing) as caught:
        simulator.get_private(CHAINCODE, "nowhere", "k")
    assert str(caught.value) == "collection [nowhere] not defined in the collection config for chaincode [cc]"
    with pytest.raises(CollectionMissing):
        simulator.put_private(CHAINCODE, "_implicit_org_StrangerMSP", "k", b"v")
    with pytest.raises(CollectionMissing, match=r"^collection config not defined for chaincode \[undefined\]"):
        simulator.put_private("undefined", ORG1, "k", b"v")


def test_private_access_records_the_definition_as_read(simulator: TxSimulator) -> None:
    """As on a real peer, which looks the collection up through the simulator."""
    simulator.get_private(CHAINCODE, ORG1, "p")
    keys = {read.key for read in recorded(simulator, "_lifecycle").reads}
    fields = ("Sequence", "EndorsementInfo", "ValidationInfo", "Collections")
    assert keys == {"namespaces/metadata/cc", *(f"namespaces/fields/cc/{field}" for field in fields)}


def test_private_write_leaves_only_hashes_in_the_public_part(simulator: TxSimulator) -> None:
    simulator.put_private(CHAINCODE, ORG2, "the-key", b"the-value")
    results = simulator.results()
    assert b"the-key" not in results.public
    assert b"the-value" not in results.public
    assert results.private is not None
    written = results.private.ns_pvt_rwset[0].collection_pvt_rwset[0]
    assert kv_rwset_pb2.KVRWSet.FromString(written.rwset).writes[0].value == b"the-value"
    collections = next(e for e in parse_rwset(results.public).namespaces if e.namespace == CHAINCODE).collections
    assert collections[0].private_hash == sha256(written.rwset)


def test_private_metadata_is_read_and_written(simulator: TxSimulator) -> None:
    assert simulator.get_private_metadata(CHAINCODE, ORG1, "p") == {}
    simulator.put_private_metadata(CHAINCODE, ORG1, "p", {"VALIDATION_PARAMETER": b"x"})
    (collection,) = recorded(simulator).collections
    assert collection.metadata_writes[0].entries == (("VALIDATION_PARAMETER", b"x"),)


def test_purge_is_marked_in_the_hashed_write(simulator: TxSimulator) -> None:
    simulator.purge_private(CHAINCODE, ORG1, "p")
    (write,) = recorded(simulator).collections[0].writes
    assert (write.is_purge, write.is_delete) == (True, True)


async def test_namespaces_of_nested_calls_share_one_read_write_set(filled: Channel, snapshot: Snapshot) -> None:
    simulator = filled.simulator(snapshot, "Org1MSP")
    simulator.put_state(CHAINCODE, "k", b"v")
    simulator.put_state("another", "k", b"w")
    assert [e.namespace for e in parse_rwset(simulator.results().public).namespaces] == ["another", CHAINCODE]


def test_simulator_path_is_never_part_of_an_error(simulator: TxSimulator, tmp_path: Path) -> None:
    with pytest.raises(SimulationError) as caught:
        simulator.get_private(CHAINCODE, "nowhere", "k")
    assert "/" not in str(caught.value)
