"""What no peer offers: going back, dumps, time, blocks by hand, faults; through the services that clients use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import collection_pb2, proposal_pb2
from hypothesis import given
from hypothesis import strategies as some
from ledger_world import World
from raw_chaincode import Answer, Stub
from service_world import CHANNEL, Services, failure, services

from sovchain.ledger.clock import LONGEST_SHIFT, LedgerClock, TimeRefused
from sovchain.ledger.cutting import Cutting
from sovchain.ledger.database import set_failpoint
from sovchain.ledger.dumps import DumpError
from sovchain.ledger.errors import BlockRefused
from sovchain.ledger.faults import POINTS, Fault, FaultRefused, Faults
from sovchain.ledger.snapshots import SnapshotError
from sovchain.protocol import policydsl
from sovchain.protocol.identity import parse_identity

POLICY = "OR('Org1MSP.peer', 'Org2MSP.peer')"


def pair() -> collection_pb2.StaticCollectionConfig:
    config = collection_pb2.StaticCollectionConfig(name="pair", maximum_peer_count=1)
    config.member_orgs_policy.signature_policy.CopyFrom(policydsl.parse("OR('Org1MSP.member', 'Org2MSP.member')"))
    return config


async def moment(stub: Stub) -> Answer:
    """The time that the chaincode is told."""
    proposal = proposal_pb2.Proposal.FromString(stub.proposal.proposal_bytes)
    header = common_pb2.Header.FromString(proposal.header)
    told = common_pb2.ChannelHeader.FromString(header.channel_header).timestamp
    return Answer(payload=str(told.ToDatetime(UTC).timestamp()).encode())


@pytest_asyncio.fixture
async def net(two_organisations: World, tmp_path: Path) -> AsyncIterator[Services]:
    """Two organisations with `cc` and its collection `pair`."""
    async with services(tmp_path / "net", two_organisations) as running:
        chaincode = await running.deploy("cc", POLICY, collections=[pair()])
        chaincode.functions["moment"] = moment
        yield running


async def value(net: Services, key: str) -> bytes:
    _, signed = net.proposal("get", key)
    return (await net.evaluate(signed)).payload


async def hide(net: Services, secret: bytes) -> None:
    await net.transact("hide", "pair", "p", transient={"value": secret})


async def hidden(net: Services) -> bytes:
    _, signed = net.proposal("reveal", "pair", "p")
    return (await net.evaluate(signed)).payload


# Snapshots ------------------------------------------------------------------------------------------------------------


async def test_a_revert_brings_back_blocks_state_and_private_data(net: Services) -> None:
    await net.transact("put", "a", "before")
    await hide(net, b"secret")
    channel = net.ledger.channels[CHANNEL]
    info, last = channel.chain_info(), channel.block(channel.height - 1)
    taken = await net.ledger.tools.snapshot("clean")
    assert taken.channels[CHANNEL].height == info.height
    later, _, _ = await net.transact("put", "a", "after")
    await hide(net, b"other")
    await net.transact("put", "new", "1")
    assert await value(net, "a") == b"after"

    for _ in range(2):  # as often as one likes
        await net.ledger.tools.revert("clean")
        assert channel.chain_info() == info
        assert channel.block(info.height - 1) == last
        assert channel.status(later) is None
        assert (await value(net, "a"), await hidden(net), await value(net, "new")) == (
            b"before",
            b"secret",
            b"",
        )
        _, code, number = await net.transact("put", "a", "again")
        assert (code, number) == (0, info.height)
    await net.stop()
    await net.start()
    assert net.ledger.channels[CHANNEL].height == info.height + 1
    assert [one.name for one in await net.ledger.tools.snapshots()] == ["clean"]


async def test_what_waits_for_what_is_gone_is_told_so(net: Services) -> None:
    await net.ledger.tools.snapshot("clean")
    await net.ledger.tools.set_cutting(CHANNEL, Cutting(held=True))
    seek = ab_pb2.SeekInfo()
    seek.start.next_commit.SetInParent()
    seek.stop.specified.number = 10_000
    stream = net.deliver()
    await stream.send(net.seek(seek))
    txid, signed = net.proposal("put", "a", "1")
    await net.submit(await net.endorse(signed))
    waiting = asyncio.create_task(failure(net.status(txid)))
    while not net.ledger.channels[CHANNEL]._waiters:
        await asyncio.sleep(0.01)
    await net.ledger.tools.revert("clean")
    told = await waiting
    assert told.code == grpc.StatusCode.ABORTED
    assert "went back to a snapshot" in told.text
    assert (await stream.read()).status == common_pb2.SERVICE_UNAVAILABLE
    assert net.ledger.channels[CHANNEL].pending == 0
    await net.ledger.tools.set_cutting(CHANNEL, Cutting())
    assert (await net.transact("put", "b", "1"))[1] == 0
    assert await value(net, "a") == b""


async def test_a_simulation_that_has_begun_keeps_what_it_saw(net: Services) -> None:
    channel = net.ledger.channels[CHANNEL]
    await net.transact("put", "a", "before")
    await net.ledger.tools.snapshot("clean")
    await net.transact("put", "a", "after")
    with await channel.snapshot() as seen:
        await net.ledger.tools.revert("clean")
        assert seen.get("cc", "a") == b"after"
    assert await value(net, "a") == b"before"


async def test_packages_installed_since_are_not_installed_any_more(net: Services) -> None:
    await net.ledger.tools.snapshot("clean")
    await net.deploy("other", POLICY)
    await net.ledger.tools.revert("clean")
    _, signed = net.proposal("get", "a", chaincode="other")
    assert (await failure(net.evaluate(signed))).code == grpc.StatusCode.FAILED_PRECONDITION
    package = net.package("other", net.chaincodes["other"].address)
    await net.define("other", await net.install(package), POLICY)
    _, signed = net.proposal("get", "a", chaincode="other")
    assert (await net.evaluate(signed)).status == 200


@pytest.mark.parametrize("where", ["restore:before", "restore:before-done"])
async def test_a_revert_that_is_cut_off_is_completed_when_the_ledger_starts(net: Services, where: str) -> None:
    await hide(net, b"secret")
    height = net.ledger.channels[CHANNEL].height
    await net.ledger.tools.snapshot("clean")
    await hide(net, b"other")

    class Cut(BaseException):
        pass

    def cut(name: str) -> None:
        if name == where:
            raise Cut

    set_failpoint(cut)
    try:
        with pytest.raises(Cut):
            await net.ledger.tools.revert("clean")
    finally:
        set_failpoint(None)
    await net.stop()
    await net.start()
    assert net.ledger.channels[CHANNEL].height == height
    with await net.ledger.channels[CHANNEL].snapshot() as state:
        held = state.private("Org1MSP", "cc", "pair", "p")
    assert held is not None
    assert held[0] == b"secret"


async def test_snapshots_that_cannot_be_are_refused(net: Services) -> None:
    tools = net.ledger.tools
    await tools.snapshot("one")
    for name, reason in (
        ("one", "there is one"),
        ("../up", "a name has"),
        ("", "a name has"),
        ("x" * 65, "a name has"),
    ):
        with pytest.raises(SnapshotError, match=reason):
            await tools.snapshot(name)
    with pytest.raises(SnapshotError, match="no such snapshot; there are: one"):
        await tools.revert("two")
    await tools.drop_snapshot("one")
    assert await tools.snapshots() == []


# Dumps ----------------------------------------------------------------------------------------------------------------


async def test_a_dump_is_loaded_by_a_ledger_with_the_same_first_blocks(
    net: Services, two_organisations: World, tmp_path: Path
) -> None:
    await hide(net, b"secret")
    dump = tmp_path / "ledger.dump"
    await net.ledger.tools.dump(dump)
    assert dump.stat().st_mode & 0o777 == 0o600
    assert await net.ledger.tools.snapshots() == []
    genesis = net.ledger.channels[CHANNEL].block(0) or b""
    async with services(tmp_path / "other", two_organisations, join=False) as other:
        with pytest.raises(SnapshotError, match="join it first"):
            await other.ledger.tools.load(dump)
        await other.ledger.join(genesis)
        await other.ledger.tools.load(dump)
        assert other.ledger.channels[CHANNEL].chain_info() == net.ledger.channels[CHANNEL].chain_info()
        assert await hidden(other) == b"secret"  # the chaincode of the package that came with the dump
    async with services(tmp_path / "foreign", two_organisations) as foreign:
        with pytest.raises(SnapshotError, match="other keys"):
            await foreign.ledger.tools.load(dump)


async def test_a_damaged_dump_changes_nothing(net: Services, tmp_path: Path) -> None:
    dump = tmp_path / "ledger.dump"
    await net.ledger.tools.dump(dump)
    await net.transact("put", "a", "1")
    height = net.ledger.channels[CHANNEL].height
    content = dump.read_bytes()
    for damaged in (content[:-20], content[: len(content) // 2], b"", b"no archive", content[:5000] + content[5100:]):
        dump.write_bytes(damaged)
        with pytest.raises(DumpError):
            await net.ledger.tools.load(dump)
    with pytest.raises(DumpError, match="there is a file already"):
        await net.ledger.tools.dump(dump)
    assert net.ledger.channels[CHANNEL].height == height
    assert not list((net.directory / "snapshots").glob("*"))


# Time -----------------------------------------------------------------------------------------------------------------


async def test_chaincode_is_told_the_time_that_the_ledger_was_moved_to(net: Services) -> None:
    """A client with the system's clock, and one that has moved its own as well, both see the later time."""
    tools = net.ledger.tools
    moved = await tools.advance(20 * 86_400)
    assert moved.shift_s == 20 * 86_400
    for told in (datetime.now(UTC), datetime.now(UTC) + timedelta(days=20)):
        _, signed = net.proposal("moment", timestamp=told)
        seen = float((await net.evaluate(signed)).payload)
        assert abs(seen - moved.now.timestamp()) < 60
    assert (await net.transact("put", "a", "1"))[1] == 0  # the deliver and gateway requests are in time as well
    await net.stop()
    await net.start()
    assert (await net.ledger.tools.time()).shift_s == 20 * 86_400
    await net.ledger.tools.snapshot("later")
    ends = parse_identity(net.client().identity).not_after
    await net.ledger.tools.advance((ends - datetime.now(UTC)).total_seconds())
    _, signed = net.proposal("get", "a")
    assert (await failure(net.process(signed))).text == "proposal client identity expired"
    await net.ledger.tools.revert("later")
    assert (await net.ledger.tools.time()).shift_s == 20 * 86_400
    await net.process(signed)


def test_time_moves_forward_only_and_not_without_end() -> None:
    clock = LedgerClock()
    with pytest.raises(TimeRefused, match="does not go back"):
        clock.advance(timedelta(seconds=-1))
    clock.advance(LONGEST_SHIFT)
    with pytest.raises(TimeRefused, match="at most"):
        clock.advance(timedelta(seconds=1))


@given(some.integers(0, 10**9), some.integers(-800, 800), some.booleans())
def test_both_clocks_of_a_client_mean_the_same_time(shift_s: int, off_s: int, moved: bool) -> None:
    """Whether a client goes by the system's time or by the ledger's, off by some: chaincode is told the ledger's."""
    clock = LedgerClock(timedelta(seconds=shift_s))
    own = datetime.now(UTC) + timedelta(seconds=off_s) + (clock.shift if moved else timedelta(0))
    told = clock.ledger_time(own)
    if shift_s > 2_000 or not moved:
        assert abs((told - clock.now()).total_seconds() - off_s) <= 1 or shift_s <= 2_000


# Blocks ---------------------------------------------------------------------------------------------------------------


async def test_blocks_are_cut_by_hand_or_by_other_limits(net: Services) -> None:
    tools, channel = net.ledger.tools, net.ledger.channels[CHANNEL]
    height = channel.height
    await tools.set_cutting(CHANNEL, Cutting(held=True))
    ids = []
    for number in range(3):
        txid, signed = net.proposal("put", f"k{number}", "1")
        await net.submit(await net.endorse(signed))
        ids.append(txid)
    chain = (await tools.chains())[CHANNEL]
    assert (chain.height, chain.pending, chain.cutting.held) == (height, 3, True)
    assert await tools.cut(CHANNEL) == height + 1
    assert [channel.position_of(txid) for txid in ids] == [(height, 0), (height, 1), (height, 2)]
    assert await tools.cut(CHANNEL) == height + 1  # nothing is pending
    await tools.set_cutting(CHANNEL, Cutting(max_message_count=1))
    blocks = [(await net.transact("put", "a", str(number)))[2] for number in range(2)]
    assert blocks == [height + 1, height + 2]


async def test_blocks_of_another_ledger_are_judged_and_lead_to_the_same_state(
    net: Services, two_organisations: World, tmp_path: Path
) -> None:
    await net.transact("put", "a", "1")
    count = await net.ledger.tools.export_blocks(CHANNEL, tmp_path / "blocks")
    paths = [tmp_path / "blocks" / f"{number}.block" for number in range(count)]
    async with services(tmp_path / "other", two_organisations, join=False) as other:
        await other.ledger.join(paths[0].read_bytes())
        tools, there = other.ledger.tools, other.ledger.channels[CHANNEL]
        with pytest.raises(BlockRefused):
            await tools.import_blocks(CHANNEL, [paths[2]])
        assert await tools.import_blocks(CHANNEL, paths) == count
        assert await tools.import_blocks(CHANNEL, paths) == count  # they are there
        assert there.chain_info() == net.ledger.channels[CHANNEL].chain_info()
        with await there.snapshot() as state:
            assert state.get("cc", "a") == b"1"


# Faults ---------------------------------------------------------------------------------------------------------------


async def test_faults_happen_where_and_as_often_as_asked_for(net: Services) -> None:
    tools = net.ledger.tools
    await tools.add_fault(Fault("gateway.submit", "error", code="DEADLINE_EXCEEDED", text="on request", times=2))
    txid, signed = net.proposal("put", "a", "1")
    envelope = await net.endorse(signed)
    for _ in range(2):
        told = await failure(net.submit(envelope))
        assert (told.code, told.text) == (grpc.StatusCode.DEADLINE_EXCEEDED, "on request")
    assert await tools.faults() == []
    await net.submit(envelope)
    assert (await net.status(txid))[0] == 0

    await tools.add_fault(Fault("broadcast.envelope", "error", text="no leader"))
    _, signed = net.proposal("put", "a", "2")
    told = await failure(net.submit(await net.endorse(signed)))
    assert (told.code, told.text) == (
        grpc.StatusCode.UNAVAILABLE,
        "no orderers could successfully process transaction",
    )
    assert "no leader" in told.details[0].message
    await tools.clear_faults()

    await tools.add_fault(Fault("endorser.process_proposal", "error", msp_id="Org2MSP"))
    _, signed = net.proposal("put", "a", "3")
    told = await failure(net.endorse(signed, organizations=["Org1MSP", "Org2MSP"]))
    assert [detail.msp_id for detail in told.details] == ["Org2MSP"]
    assert (await net.process(signed)).response.status == 200  # Org1's peer is well
    await tools.clear_faults()

    await tools.add_fault(Fault("chaincode.execute", "error", text="crashed", times=1))
    assert "crashed" in (await net.process(signed)).response.message


async def test_an_acknowledged_batch_is_lost_late_or_in_another_order(net: Services) -> None:
    tools, channel = net.ledger.tools, net.ledger.channels[CHANNEL]
    await tools.set_cutting(CHANNEL, Cutting(max_message_count=1))
    await tools.add_fault(Fault("ordering.batch", "drop", channel=CHANNEL, times=1))
    txid, signed = net.proposal("put", "lost", "1")
    await net.submit(await net.endorse(signed))
    _, code, _ = await net.transact("put", "kept", "1")
    assert (code, channel.status(txid)) == (0, None)
    await tools.add_fault(Fault("ordering.batch", "drop", times=1))
    await tools.set_cutting(CHANNEL, Cutting(held=True))
    _, signed = net.proposal("put", "lost", "2")
    await net.submit(await net.endorse(signed))
    assert await tools.cut(CHANNEL) == channel.height  # nobody waits for a block that never comes
    await tools.add_fault(Fault("ordering.batch", "reorder"))
    await tools.set_cutting(CHANNEL, Cutting(held=True))
    ids = []
    for number in range(8):
        txid, signed = net.proposal("put", f"k{number}", "1")
        await net.submit(await net.endorse(signed))
        ids.append(txid)
    number = await tools.cut(CHANNEL) - 1
    places = [channel.position_of(txid) for txid in ids]
    assert sorted(places, key=str) == [(number, position) for position in range(8)]
    assert places != sorted(places, key=str)


async def test_a_dropped_request_is_never_answered(net: Services) -> None:
    await net.ledger.tools.add_fault(Fault("endorser.process_proposal", "drop", times=1))
    _, signed = net.proposal("get", "a")
    host, method = "peer0.org1msp.example", "/protos.Endorser/ProcessProposal"
    told = await failure(net.unary(host, method, signed, common_pb2.Envelope, timeout_s=0.3))
    assert told.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await net.process(signed)).response.status == 200


@pytest.mark.parametrize(
    "fault",
    [
        Fault("nowhere", "drop"),
        Fault("gateway.submit", "reorder"),
        Fault("ordering.batch", "error"),
        Fault("gateway.submit", "error", code="OK"),
        Fault("gateway.submit", "error", code="NO_CODE"),
        Fault("gateway.submit", "delay"),
    ],
    ids=lambda fault: f"{fault.point} {fault.action} {fault.code}",
)
def test_faults_that_a_point_does_not_know_are_refused(fault: Fault) -> None:
    with pytest.raises(FaultRefused):
        Faults().add(fault)


async def test_every_point_is_passed_by(net: Services) -> None:
    """A delay of a millisecond at each point is taken by what clients do every day."""
    tools = net.ledger.tools
    for point in POINTS:
        await tools.add_fault(Fault(point, "delay", delay_s=0.001, times=1))
    await net.transact("put", "a", "1")
    await value(net, "a")
    _, signed = net.proposal("get", "a")
    await net.process(signed)
    seek = ab_pb2.SeekInfo()
    seek.start.oldest.SetInParent()
    seek.stop.oldest.SetInParent()
    stream = net.deliver()
    await stream.send(net.seek(seek))
    assert (await stream.range())[1] == common_pb2.SUCCESS
    for method in (
        "/gateway.Gateway/ChaincodeEvents",
        "/discovery.Discovery/Discover",
    ):  # refused once they are past it
        await failure(net.unary("peer0.org1msp.example", method, b"", common_pb2.Envelope))
    assert await tools.faults() == []
