"""Several peers of one organisation, peers that lag on request, and nodes that are ended and started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from fabric_protos.common import ledger_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from ledger_world import World
from service_world import CHANNEL, ORDERER, Services, failure, host_of, second_host_of, services

from sovchain.ledger.errors import LedgerError
from sovchain.ledger.tools import ChannelUnknownError, NodeUnknownError

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE, SECOND, TWO = host_of("Org1MSP"), second_host_of("Org1MSP"), host_of("Org2MSP")
NEWEST = ab_pb2.SeekPosition(newest=ab_pb2.SeekNewest())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Two organisations, the first with two peers; the chaincode is installed on all three."""
    world = World(("Org1MSP", "Org2MSP"))
    async with services(tmp_path_factory.mktemp("net"), world, second_peers=["Org1MSP"]) as running:
        chaincode, package = await running.raw_package("cc")
        chaincode.package_id = await running.install(package)
        arguments = lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=package)
        _, signed = running.proposal(
            "InstallChaincode", arguments.SerializeToString(), chaincode="_lifecycle", creator=running.admin(),
            channel_id="",
        )  # fmt: skip
        assert (await running.process(signed, host=SECOND)).response.status == 200
        await running.define("cc", chaincode.package_id, "AND('Org1MSP.peer', 'Org2MSP.peer')")
        await running.transact("put", "a", "1")
        yield running


async def read(net: Services, host: str, key: str = "a") -> bytes:
    """What a peer itself answers."""
    return bytes((await net.process(net.proposal("get", key)[1], host=host)).response.payload)


async def height(net: Services, host: str) -> int:
    """Number of blocks that a peer says that it has."""
    _, signed = net.proposal("GetChainInfo", CHANNEL, chaincode="qscc")
    return int(ledger_pb2.BlockchainInfo.FromString((await net.process(signed, host=host)).response.payload).height)


async def test_both_peers_of_an_organisation_answer_and_have_packages_of_their_own(net: Services) -> None:
    assert await read(net, ONE) == await read(net, SECOND) == b"1"
    assert await height(net, ONE) == await height(net, SECOND) == net.ledger.channels[CHANNEL].height
    stores = {peer.host: peer.packages for peer in net.ledger._registry.peers.values()}
    assert stores[ONE] is not stores[SECOND]
    endorsers = {
        bytes((await net.process(net.proposal("get", "a")[1], host=host)).endorsement.endorser)
        for host in (ONE, SECOND)
    }
    assert len(endorsers) == 2, "each signs for itself"


async def test_a_peer_that_lags_shows_its_state_in_every_service_until_it_catches_up(net: Services) -> None:
    tools, channel = net.ledger.tools, net.ledger.channels[CHANNEL]
    before = channel.height
    state = await tools.lag(ONE)
    assert (state.lagging, state.heights) == ([CHANNEL], {CHANNEL: before})
    txid, signed = net.proposal("put", "a", "2")
    await net.submit(await net.endorse(signed))
    assert (await channel.wait_for_commit(txid))[0] == 0
    assert (await height(net, ONE), await height(net, SECOND)) == (before, before + 1)
    assert (await read(net, ONE), await read(net, SECOND)) == (b"1", b"2")
    answer = await net.evaluate(net.proposal("get", "a")[1])
    assert answer.payload == b"2", "its gateway asks the organisation's peer with more blocks"
    stream = net.deliver()
    await stream.send(net.seek(ab_pb2.SeekInfo(start=NEWEST, stop=NEWEST)))
    assert [block.header.number for block in (await stream.range())[0]] == [before - 1]
    waiting = asyncio.create_task(net.status(txid))
    await stream.send(net.seek(ab_pb2.SeekInfo(
        start=ab_pb2.SeekPosition(next_commit=ab_pb2.SeekNextCommit()),
        stop=ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=before)),
    )))  # fmt: skip
    coming = asyncio.create_task(stream.range())
    done, _ = await asyncio.wait({waiting, coming}, timeout=0.05)
    assert not done
    assert (await tools.catch_up(ONE)).heights == {CHANNEL: before + 1}
    assert await waiting == (0, before)
    assert [block.header.number for block in (await coming)[0]] == [before]
    assert await read(net, ONE) == b"2"
    follower = net.ledger._registry.followers[ONE, CHANNEL]
    await channel._scrub()
    assert follower._view is channel._view, "a peer that has caught up holds on to nothing old"


async def test_a_peer_stays_a_number_of_blocks_behind(net: Services) -> None:
    tools, channel = net.ledger.tools, net.ledger.channels[CHANNEL]
    await tools.lag(TWO, blocks=2)
    start = channel.height
    try:
        seen = []
        for number in range(4):
            await net.transact("put", f"n{number}", "1", organizations=["Org1MSP"])
            seen.append(channel.height - await height(net, TWO))
        assert seen == [1, 2, 2, 2]
        assert await height(net, TWO) == start + 2
        await tools.lag(TWO, blocks=1)
        assert channel.height - await height(net, TWO) == 1
    finally:
        await tools.catch_up(TWO)
    assert await height(net, TWO) == channel.height


async def test_endorsers_that_see_other_states_do_not_agree(net: Services) -> None:
    """The fault that a lagging peer is for: what is read at two versions."""
    await net.ledger.tools.lag(TWO)
    try:
        await net.transact("put", "shared", "1", organizations=["Org1MSP"])

        async def read_and_write(stub: object) -> object:
            await stub.get("a")  # type: ignore[attr-defined]
            return await put(stub)  # type: ignore[arg-type]

        functions = net.chaincodes["cc"].functions
        put = functions["put"]
        functions["touch"] = read_and_write  # type: ignore[assignment]
        await net.transact("put", "a", "3")  # a new version that the second organisation does not see
        refused = await failure(net.endorse(net.proposal("touch", "b", "1")[1]))
        assert refused.code is grpc.StatusCode.ABORTED
        assert any("ProposalResponsePayloads do not match" in detail.message for detail in refused.details)
    finally:
        await net.ledger.tools.catch_up(TWO)
    assert (await net.transact("touch", "b", "1"))[1] == 0


async def test_a_snapshot_that_is_reverted_to_ends_a_lag(net: Services) -> None:
    tools = net.ledger.tools
    await tools.snapshot("before")
    kept = net.ledger.channels[CHANNEL].height
    await net.transact("put", "gone", "1")
    await tools.lag(SECOND)
    await tools.revert("before")
    assert await height(net, SECOND) == kept
    assert await read(net, SECOND, "gone") == b""
    await net.transact("put", "later", "1")
    assert await height(net, SECOND) == kept + 1


async def test_an_ended_peer_is_not_asked_and_goes_on_at_its_address(net: Services) -> None:
    tools = net.ledger.tools
    address = net.ledger.address_of(SECOND)
    await tools.lag(ONE)
    states = await tools.end_node(SECOND)
    assert {state.host: state.running for state in states}[SECOND] is False
    net._channels.pop(SECOND, None)
    refused = await failure(net.process(net.proposal("get", "a")[1], host=SECOND))
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    await tools.catch_up(ONE)
    assert (await net.transact("put", "without", "1"))[1] == 0
    await tools.begin_node(SECOND)
    net._channels.pop(SECOND, None)
    assert net.ledger.address_of(SECOND) == address
    assert await read(net, SECOND, "without") == b"1"
    async with net.http(SECOND) as member:
        assert (await member.get("/healthz")).status_code == 200


async def test_without_a_majority_of_its_nodes_a_channel_is_not_ordered(net: Services) -> None:
    tools = net.ledger.tools
    envelope = await net.endorse(net.proposal("put", "late", "1")[1])
    await tools.end_node(ORDERER)
    refused = await failure(net.submit(envelope))
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert "no Raft leader" in refused.details[0].message
    await tools.begin_node(ORDERER)
    net._channels.pop(ORDERER, None)
    assert (await net.transact("put", "late", "1"))[1] == 0


async def test_names_and_numbers_that_are_wrong_are_refused(net: Services) -> None:
    tools = net.ledger.tools
    with pytest.raises(NodeUnknownError, match="there is no peer 'nobody'"):
        await tools.lag("nobody")
    with pytest.raises(NodeUnknownError, match="there is no node 'nobody'"):
        await tools.end_node("nobody")
    with pytest.raises(ChannelUnknownError):
        await tools.lag(ONE, channel="nowhere")
    with pytest.raises(LedgerError, match="1 to 16 blocks"):
        await tools.lag(ONE, blocks=17)
