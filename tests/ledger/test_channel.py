"""One channel from envelope to notification: pipeline, waiting, private data, failure and reopening."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import collection_pb2
from ledger_world import CHAINCODE, World, increment, put

from sovchain.ledger import channel as channel_module
from sovchain.ledger.channel import Channel
from sovchain.ledger.database import set_failpoint
from sovchain.ledger.errors import (
    BlockRefused,
    ChannelClosed,
    ChannelExists,
    ChannelMissing,
    ChannelStopped,
    CollectionMissing,
    GenesisRefused,
    OrderingRefused,
    PrivateDataUnavailable,
    StorageCorrupt,
    StorageVersionError,
)
from sovchain.ledger.marks import seal
from sovchain.ledger.saved import LEDGER_FILE
from sovchain.ledger.simulator import TxSimulator
from sovchain.protocol.blocks import block_commit_hash, header_hash, transactions_filter
from sovchain.protocol.channelconfig import BatchSettings, ChannelBundle
from sovchain.protocol.commit import validate_block
from sovchain.protocol.crypto import sha256
from sovchain.protocol.policydsl import parse

VALID, MVCC_READ_CONFLICT, DUPLICATE_TXID = 0, 11, 9
ORG1, ORG2 = "_implicit_org_Org1MSP", "_implicit_org_Org2MSP"
SECONDS = 10


async def value(channel: Channel, key: str, namespace: str = CHAINCODE) -> bytes | None:
    with await channel.snapshot() as snapshot:
        return snapshot.get(namespace, key)


async def private_value(channel: Channel, msp_id: str, collection: str, key: str) -> bytes | None:
    with await channel.snapshot() as snapshot:
        return channel.simulator(snapshot, msp_id).get_private(CHAINCODE, collection, key)


def parsed(channel: Channel, number: int) -> common_pb2.Block:
    data = channel.block(number)
    assert data is not None
    return common_pb2.Block.FromString(data)


# Creation ---------------------------------------------------------------------------------------------------------


async def test_new_channel_has_its_genesis_block_and_configuration(world: World, bare_channel: Channel) -> None:
    assert bare_channel.height == 1
    assert bare_channel.channel_id == "testchannel"
    assert bare_channel.bundle.application_msp_ids == world.msp_ids
    assert bare_channel.last_config_block() == bare_channel.block(0)
    info = bare_channel.chain_info()
    assert info.current_block_hash == header_hash(parsed(bare_channel, 0).header)
    assert bare_channel.block_by_hash(info.current_block_hash) == bare_channel.block(0)
    assert bare_channel.block(1) is None
    assert bare_channel.block(-1) is None


async def test_what_is_no_genesis_block_is_refused(world: World, channel: Channel, tmp_path: Path) -> None:
    later = channel.block(1)
    assert later is not None
    tampered = common_pb2.Block.FromString(world.genesis())
    tampered.data.data[0] += b"\x00"
    for data in (b"", b"\xff\xfe", later, tampered.SerializeToString()):
        with pytest.raises(GenesisRefused):
            await Channel.create(tmp_path / "other", data, peer_msp_ids=[], orderer=world.signing_node)
    assert not Channel.exists(tmp_path / "other")


async def test_channel_is_created_once_and_opened_where_it_is(world: World, tmp_path: Path) -> None:
    with pytest.raises(ChannelMissing):
        await world.open(tmp_path / "ch")
    channel = await world.create(tmp_path / "ch")
    with pytest.raises(ChannelExists):
        await world.create(tmp_path / "ch")
    await channel.close()
    assert Channel.exists(tmp_path / "ch")


# Commit -----------------------------------------------------------------------------------------------------------


async def test_transaction_is_visible_when_its_commit_is_announced(world: World, channel: Channel) -> None:
    transaction_id, code, number = await world.submit(channel, put("k", b"v"))
    assert (code, number) == (VALID, channel.height - 1)
    assert await value(channel, "k") == b"v"
    assert channel.status(transaction_id) == (VALID, number)
    assert channel.block_number_of(transaction_id) == number
    assert channel.position_of(transaction_id) == (number, 0)
    assert channel.reason(transaction_id) == ""
    assert transactions_filter(parsed(channel, number)) == b"\x00"


async def test_stale_read_is_a_conflict_with_a_reason(world: World, channel: Channel) -> None:
    first = await world.endorse(channel, increment("n"))
    second = await world.endorse(channel, increment("n"))
    for endorsed in (first, second):
        await channel.order(endorsed.envelope)
    assert (await channel.wait_for_commit(first.transaction_id))[0] == VALID
    assert (await channel.wait_for_commit(second.transaction_id))[0] == MVCC_READ_CONFLICT
    assert channel.reason(second.transaction_id)
    assert await value(channel, "n") == b"1"


async def test_same_transaction_twice_counts_once(world: World, channel: Channel) -> None:
    endorsed = await world.endorse(channel, put("k", b"v"))
    await channel.order(endorsed.envelope)
    status = await channel.wait_for_commit(endorsed.transaction_id)
    height = channel.height
    await channel.order(endorsed.envelope)
    async for _ in channel.blocks(height, height):
        break
    assert transactions_filter(parsed(channel, height)) == bytes([DUPLICATE_TXID])
    assert channel.status(endorsed.transaction_id) == status


async def test_snapshot_keeps_its_height_while_blocks_are_committed(world: World, channel: Channel) -> None:
    await world.submit(channel, put("k", b"1"))
    with await channel.snapshot() as before:
        await world.submit(channel, put("k", b"2"))
        assert before.get(CHAINCODE, "k") == b"1"
        assert before.height == channel.height - 1
    assert await value(channel, "k") == b"2"


async def test_envelopes_of_one_batch_share_a_block(world: World, tmp_path: Path) -> None:
    channel = await world.create(tmp_path / "ch", batch=BatchSettings(max_message_count=5, timeout_s=0.2))
    await world.define(channel)
    endorsed = [await world.endorse(channel, put(f"k{number}", b"v")) for number in range(5)]
    for one in endorsed:
        await channel.order(one.envelope)
    blocks = {(await channel.wait_for_commit(one.transaction_id))[1] for one in endorsed}
    assert blocks == {2}
    await channel.close()


async def test_replaying_the_blocks_gives_the_same_codes_and_commit_hashes(world: World, channel: Channel) -> None:
    """The ledger's verdicts are those of protocol.commit, for whoever has the blocks."""
    for number in range(4):
        await world.submit(channel, increment(f"n{number % 2}"))
    with await channel.snapshot() as snapshot:
        public = sorted(snapshot.range(CHAINCODE, "", ""))
    from sovchain.audit.replay import ReplayedState

    state, previous, seen = ReplayedState(), None, set[str]()
    bundle = ChannelBundle.from_block(parsed(channel, 0))
    for number in range(channel.height):
        block = parsed(channel, number)
        commit = validate_block(
            block, bundle, state, transaction_exists=seen.__contains__, previous_commit_hash=previous
        )
        assert commit.filter == transactions_filter(block)
        assert commit.commit_hash == block_commit_hash(block)
        state.apply(commit.updates)
        seen.update(tx.transaction_id for tx in commit.transactions if tx is not None)
        previous = commit.commit_hash or None
    assert sorted(state.range(CHAINCODE, "", "")) == public


# Waiting ----------------------------------------------------------------------------------------------------------


async def test_any_number_of_waiters_are_told_and_a_cancelled_one_disturbs_nobody(
    world: World, channel: Channel
) -> None:
    endorsed = await world.endorse(channel, put("k", b"v"))
    waiters = [asyncio.create_task(channel.wait_for_commit(endorsed.transaction_id)) for _ in range(5)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await channel.order(endorsed.envelope)
    results = await asyncio.wait_for(asyncio.gather(*waiters[1:]), SECONDS)
    assert set(results) == {(VALID, channel.height - 1)}
    assert channel._waiters == {}


async def test_cancelled_waiters_leave_nothing_behind(channel: Channel) -> None:
    waiters = [asyncio.create_task(channel.wait_for_commit("never")) for _ in range(3)]
    await asyncio.sleep(0)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert channel._waiters == {}


async def test_block_readers_follow_at_their_own_pace(world: World, channel: Channel) -> None:
    async def read(count: int) -> list[bytes]:
        found = []
        async for block in channel.blocks(0):
            found.append(block)
            if len(found) == count:
                break
        return found

    readers = [asyncio.create_task(read(6)) for _ in range(4)]
    for number in range(4):
        await world.submit(channel, put("k", b"%d" % number))
    results = await asyncio.wait_for(asyncio.gather(*readers), SECONDS)
    assert all(result == results[0] for result in results)
    assert [common_pb2.Block.FromString(block).header.number for block in results[0]] == [0, 1, 2, 3, 4, 5]


async def test_block_range_ends_at_its_last_block(channel: Channel) -> None:
    assert [block async for block in channel.blocks(0, 1)] == [channel.block(0), channel.block(1)]


async def test_closing_releases_everyone_who_waits(world: World, tmp_path: Path) -> None:
    channel = await world.create(tmp_path / "ch")
    waiter = asyncio.create_task(channel.wait_for_commit("never"))
    reader = asyncio.create_task(anext(aiter(channel.blocks(5))))
    await asyncio.sleep(0)
    await channel.close()
    for task in (waiter, reader):
        with pytest.raises(ChannelClosed):
            await asyncio.wait_for(task, SECONDS)
    with pytest.raises(ChannelClosed):
        await channel.snapshot()
    await channel.close()


async def test_closing_commits_what_was_accepted(world: World, tmp_path: Path) -> None:
    channel = await world.create(tmp_path / "ch", batch=BatchSettings(timeout_s=0.1))
    await world.define(channel)
    slow = await world.endorse(channel, put("k", b"v"))
    await channel.order(slow.envelope)
    await channel.close()
    again = await world.open(tmp_path / "ch")
    assert again.status(slow.transaction_id) == (VALID, 2)
    await again.close()


# Private data -----------------------------------------------------------------------------------------------------


def write_private(collection: str, key: str, data: bytes) -> object:
    return lambda simulator: simulator.put_private(CHAINCODE, collection, key, data)


async def test_private_data_reaches_the_member_whoever_endorsed(world: World, channel: Channel) -> None:
    """Both peers endorse a write into B's implicit collection: B holds the value, A's files hold nothing of it."""
    secret = b"only-for-organisation-two"
    _, code, _ = await world.submit(channel, write_private(ORG2, "k", secret), endorsers=["Org1MSP", "Org2MSP"])  # type: ignore[arg-type]
    assert code == VALID
    assert await private_value(channel, "Org2MSP", ORG2, "k") == secret
    with pytest.raises(PrivateDataUnavailable):
        await private_value(channel, "Org1MSP", ORG2, "k")
    directory = channel._store.path.parent
    holders = {path.name for path in directory.rglob("*") if path.is_file() and secret in path.read_bytes()}
    assert {name.split(".")[0] for name in holders} == {"Org2MSP"}


async def test_missing_private_data_does_not_invalidate_and_is_recorded(world: World, channel: Channel) -> None:
    transaction_id, code, number = await world.submit(
        channel,
        write_private(ORG1, "k", b"lost"),  # type: ignore[arg-type]
        distribute=False,
    )
    assert code == VALID
    with await channel.snapshot() as snapshot:
        assert snapshot.hashed_value(CHAINCODE, ORG1, sha256(b"k")) == sha256(b"lost")
    with pytest.raises(PrivateDataUnavailable):
        await private_value(channel, "Org1MSP", ORG1, "k")
    (gap,) = channel._private["Org1MSP"].missing()
    assert (gap.block, gap.position, gap.collection) == (number, 0, ORG1)
    assert transaction_id


async def test_private_data_of_an_unknown_collection_is_refused(world: World, channel: Channel) -> None:
    endorsed = await world.endorse(channel, write_private(ORG1, "k", b"v"))  # type: ignore[arg-type]
    private = endorsed.results.private
    assert private is not None
    private.ns_pvt_rwset[0].collection_pvt_rwset[0].collection_name = "nowhere"
    with pytest.raises(CollectionMissing):
        channel.store_private("tx", "Org1MSP", private)


async def test_metadata_of_a_private_key_keeps_its_value_readable(world: World, channel: Channel) -> None:
    await world.submit(channel, write_private(ORG1, "k", b"v"))  # type: ignore[arg-type]

    def guard(simulator: TxSimulator) -> None:
        simulator.put_private_metadata(CHAINCODE, ORG1, "k", {"note": b"x"})

    assert (await world.submit(channel, guard))[1] == VALID
    assert await private_value(channel, "Org1MSP", ORG1, "k") == b"v"


async def test_purge_through_the_channel_erases_the_bytes(world: World, channel: Channel) -> None:
    secret = b"to-be-purged-and-never-seen-again"
    await world.submit(channel, write_private(ORG1, "k", secret))  # type: ignore[arg-type]
    assert await private_value(channel, "Org1MSP", ORG1, "k") == secret
    await world.submit(channel, lambda simulator: simulator.purge_private(CHAINCODE, ORG1, "k"))
    assert await private_value(channel, "Org1MSP", ORG1, "k") is None
    for _ in range(100):
        if not channel._committer.scrub_due:
            break
        await asyncio.sleep(0.01)
    directory = channel._store.path.parent
    assert [path for path in directory.rglob("*") if path.is_file() and secret in path.read_bytes()] == []


async def test_data_of_a_collection_with_a_life_goes_with_its_last_block(world: World, bare_channel: Channel) -> None:
    """Written by block N with a life of 2 blocks: there until N+2, gone with N+3, value and hash alike."""
    channel = bare_channel
    policy = collection_pb2.CollectionPolicyConfig(signature_policy=parse("OR('Org1MSP.member')"))
    short = collection_pb2.StaticCollectionConfig(name="short", member_orgs_policy=policy, block_to_live=2)
    package = collection_pb2.CollectionConfigPackage(
        config=[collection_pb2.CollectionConfig(static_collection_config=short)]
    )
    await world.define(channel, collections=package)
    assert [config.name for config in channel.collections(CHAINCODE) or ()] == [
        "short",
        *(f"_implicit_org_{msp_id}" for msp_id in world.msp_ids),
    ]
    await world.submit(channel, write_private("short", "k", b"v"))  # type: ignore[arg-type]
    for _ in range(2):
        await world.submit(channel, put("other", b"x"))
        assert await private_value(channel, "Org1MSP", "short", "k") == b"v"
    await world.submit(channel, put("other", b"x"))
    assert await private_value(channel, "Org1MSP", "short", "k") is None
    with await channel.snapshot() as snapshot:
        assert snapshot.hashed_value(CHAINCODE, "short", sha256(b"k")) is None
        assert snapshot.private("Org1MSP", CHAINCODE, "short", "k") is None


async def test_undefined_chaincode_has_no_collections(channel: Channel) -> None:
    assert channel.collections("undefined") is None


# Reopening and damage ---------------------------------------------------------------------------------------------


@pytest.fixture
async def closed(world: World, tmp_path: Path) -> Path:
    """Directory of a closed channel with a few blocks."""
    directory = tmp_path / "ch"
    channel = await world.create(directory)
    await world.define(channel)
    await world.submit(channel, put("k", b"v"))
    await world.submit(channel, write_private(ORG1, "p", b"secret"))  # type: ignore[arg-type]
    await channel.close()
    return directory


def damage(directory: Path, statement: str, values: tuple[object, ...] = ()) -> None:
    with sqlite3.connect(directory / LEDGER_FILE) as connection:
        connection.execute(statement, values)
    connection.close()
    seal(directory / LEDGER_FILE)  # so that the seal is not what tells


async def test_reopened_channel_goes_on_where_it_ended(world: World, closed: Path) -> None:
    channel = await world.open(closed)
    assert channel.height == 4
    assert await value(channel, "k") == b"v"
    assert await private_value(channel, "Org1MSP", ORG1, "p") == b"secret"
    assert (await world.submit(channel, put("k", b"w")))[1] == VALID
    assert parsed(channel, 4).header.previous_hash == header_hash(parsed(channel, 3).header)
    await channel.close()


async def test_private_store_that_was_lost_is_made_again_with_its_gaps(world: World, closed: Path) -> None:
    for path in (closed / "private").glob("Org1MSP.sqlite*"):
        path.unlink()
    channel = await world.open(closed)
    assert [gap.block for gap in channel._private["Org1MSP"].missing()] == [3]
    with pytest.raises(PrivateDataUnavailable):
        await private_value(channel, "Org1MSP", ORG1, "p")
    assert await value(channel, "k") == b"v"
    await channel.close()


async def test_other_format_version_is_refused_at_opening(world: World, closed: Path) -> None:
    damage(closed, "PRAGMA user_version = 99")
    with pytest.raises(StorageVersionError) as caught:
        await world.open(closed)
    assert caught.value.found == 99


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE blocks SET bytes = substr(bytes, 1, 100) WHERE number = 3",
        "UPDATE blocks SET bytes = (SELECT bytes FROM blocks WHERE number = 2) WHERE number = 3",
        "UPDATE blocks SET hash = x'00' WHERE number = 2",
        "DELETE FROM blocks WHERE number = 3",
        "UPDATE chain SET height = 3",
        "UPDATE chain SET commit_hash = x'00'",
        "UPDATE chain SET last_config = 2",
        "DELETE FROM chain",
    ],
)
async def test_damaged_end_of_the_chain_is_noticed_at_opening(world: World, closed: Path, statement: str) -> None:
    damage(closed, statement)
    with pytest.raises(StorageCorrupt):
        await world.open(closed)


# Failure ----------------------------------------------------------------------------------------------------------


async def expect_stop(world: World, channel: Channel, reason: str) -> None:
    """Everything that waits, and everything asked for later, gets the reason."""
    endorsed = await world.endorse(channel, put("k", b"v"))
    waiter = asyncio.create_task(channel.wait_for_commit(endorsed.transaction_id))
    other = asyncio.create_task(channel.wait_for_commit("another"))
    reader = asyncio.create_task(anext(aiter(channel.blocks(channel.height))))
    await asyncio.sleep(0)
    await channel.order(endorsed.envelope)
    for task in (waiter, other, reader):
        with pytest.raises(ChannelStopped, match=reason):
            await asyncio.wait_for(task, SECONDS)
    with pytest.raises(OrderingRefused, match=reason) as refused:
        await channel.order(endorsed.envelope)
    assert refused.value.status == common_pb2.SERVICE_UNAVAILABLE
    assert isinstance(refused.value.__cause__, ChannelStopped)
    with pytest.raises(ChannelStopped, match=reason):
        await channel.snapshot()
    with pytest.raises(ChannelStopped, match=reason):
        await channel.wait_for_commit("later")
    assert channel.stopped is not None


async def test_failing_disk_stops_the_channel_and_tells_everyone(
    world: World, channel: Channel, tmp_path: Path
) -> None:
    def fail(name: str) -> None:
        if name == "commit:before-commit":
            raise OSError(28, "no space left on device")

    set_failpoint(fail)
    height = channel.height
    await expect_stop(world, channel, "no space left on device")
    set_failpoint(None)
    await channel.close()
    again = await world.open(tmp_path / "testchannel")
    assert again.height == height
    assert (await world.submit(again, put("k", b"after")))[1] == VALID
    await again.close()


async def test_fault_in_validation_stops_the_channel_and_tells_everyone(
    world: World, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault in validation")

    monkeypatch.setattr("sovchain.ledger.committer.validate_block", broken)
    await expect_stop(world, channel, "a fault in validation")


async def test_private_store_that_fails_after_the_block_is_caught_up_at_opening(
    world: World, channel: Channel, tmp_path: Path
) -> None:
    def fail(name: str) -> None:
        if name == "private:before-commit":
            raise OSError("gone")

    endorsed = await world.endorse(channel, write_private(ORG1, "k", b"v"))  # type: ignore[arg-type]
    set_failpoint(fail)
    await channel.order(endorsed.envelope)
    with pytest.raises(ChannelStopped):
        await channel.wait_for_commit(endorsed.transaction_id)
    set_failpoint(None)
    await channel.close()
    again = await world.open(tmp_path / "testchannel")
    assert again.status(endorsed.transaction_id) == (VALID, 2)
    assert await private_value(again, "Org1MSP", ORG1, "k") == b"v"
    await again.close()


# Resources --------------------------------------------------------------------------------------------------------


async def test_commits_leave_no_objects_behind(world: World, channel: Channel) -> None:
    async def commit(times: int) -> None:
        for _ in range(times):
            await world.submit(channel, increment("n"))

    await commit(60)
    gc.collect()
    before = len(gc.get_objects())
    await commit(30)
    gc.collect()
    assert len(gc.get_objects()) - before < 300
    assert len(channel._pool._idle) <= 4


async def test_event_loop_stays_live_while_the_disk_is_slow(
    world: World, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    set_failpoint(lambda name: time.sleep(0.3) if name == "commit:before-commit" else None)
    endorsed = await world.endorse(channel, put("k", b"v"))
    await channel.order(endorsed.envelope)
    longest, task = 0.0, asyncio.create_task(channel.wait_for_commit(endorsed.transaction_id))
    while not task.done():
        started = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - started)
    assert longest < 0.2
    assert channel_module is not None


async def test_blocks_that_were_ordered_elsewhere_are_judged_and_committed(
    world: World, channel: Channel, tmp_path: Path
) -> None:
    """A channel follows another one's blocks to the same commit hashes, and takes none that is not its next."""
    for number in range(3):
        await world.submit(channel, put(f"k{number}", b"v"))
    genesis = channel.block(0)
    assert genesis is not None
    follower = await Channel.create(
        tmp_path / "follower", genesis, peer_msp_ids=world.msp_ids, orderer=world.signing_node
    )
    try:
        with pytest.raises(BlockRefused, match="the next block is 1"):
            await follower.append(parsed(channel, 2).SerializeToString())
        for number in range(1, channel.height):
            for spoil, why in (
                (lambda block: block.data.data.append(b"more"), "does not have the hash"),
                (lambda block: block.metadata.metadata.__setitem__(common_pb2.SIGNATURES, b""), "not signed"),
                (lambda block: setattr(block.header, "previous_hash", b"other"), "does not continue"),
            ):
                spoilt = parsed(channel, number)
                spoil(spoilt)
                with pytest.raises(BlockRefused, match=why):
                    await follower.append(spoilt.SerializeToString())
            assert await follower.append(parsed(channel, number).SerializeToString()) == number + 1
            assert follower.block(number) == channel.block(number)
        assert await value(follower, "k2") == b"v"
    finally:
        await follower.close()
