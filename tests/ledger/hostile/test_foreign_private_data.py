"""Nobody reads private data of another organisation, whatever service is asked, at whichever node.

An implicit collection is for members only at the peers of others, which do not have it. At its owner's peer Fabric gives it to
whoever may read the channel: to a chaincode that asks for it, and on DeliverWithPrivateData (`MemberOnlyRead` is not set in
core/chaincode/lifecycle/deployedcc_infoprovider.go). So does the ledger, and so the tests look for it at the others only.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from fabric_protos.discovery import protocol_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_pb2, collection_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim
from fabric_protos.peer.lifecycle import lifecycle_pb2
from ledger_world import Signer, World
from raw_chaincode import Answer, Kind, Stub
from service_world import CHANNEL, ORDERER, Services, host_of, services

from sovchain.protocol.crypto import sign
from sovchain.protocol.policydsl import parse

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET, IMPLICIT = os.urandom(24).hex().encode(), os.urandom(24).hex().encode()
OWNER, OTHER = "Org1MSP", "Org2MSP"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """A collection of Org1 alone with a secret in it, and an organisation that would like to know."""
    collection = collection_pb2.StaticCollectionConfig(name="own", maximum_peer_count=1, member_only_read=True)
    collection.member_orgs_policy.signature_policy.CopyFrom(parse("OR('Org1MSP.member')"))
    async with services(tmp_path_factory.mktemp("net"), World((OWNER, OTHER))) as running:
        policy = "OR('Org1MSP.peer', 'Org2MSP.peer')"
        owned = await running.deploy("cc", policy, collections=[collection])
        spy = await running.deploy("spy", policy)
        for chaincode in (owned, spy):
            chaincode.functions |= {"range": _range, "query": _query, "digest": _digest, "call": _call}
        for name, secret in (("own", SECRET), ("_implicit_org_Org1MSP", IMPLICIT)):
            told = await running.transact("hide", name, "s", transient={"value": secret}, organizations=[OWNER])
            assert told[1] == 0
        # Some that waits in the transient store and is never committed.
        await running.endorse(running.proposal("hide", "own", "w", transient={"value": SECRET})[1])
        yield running


async def _range(stub: Stub) -> Answer:
    request = shim.GetStateByRange(collection=stub.args[0].decode())
    return Answer(await stub.ask(Kind.GET_STATE_BY_RANGE, request.SerializeToString()))


async def _query(stub: Stub) -> Answer:
    request = shim.GetQueryResult(query='{"selector": {}}', collection=stub.args[0].decode())
    return Answer(await stub.ask(Kind.GET_QUERY_RESULT, request.SerializeToString()))


async def _digest(stub: Stub) -> Answer:
    request = shim.GetState(key="s", collection=stub.args[0].decode())
    return Answer(await stub.ask(Kind.GET_PRIVATE_DATA_HASH, request.SerializeToString()))


async def _call(stub: Stub) -> Answer:
    specification = chaincode_pb2.ChaincodeSpec(chaincode_id=chaincode_pb2.ChaincodeID(name="cc"))
    specification.input.args.extend([b"reveal", stub.args[0], b"s"])
    return Answer(await stub.ask(Kind.INVOKE_CHAINCODE, specification.SerializeToString()))


async def answered(call: Any) -> bytes:
    """What a call gives, or everything that its failure tells."""
    try:
        given = await call
    except grpc.aio.AioRpcError as error:
        metadata = [
            value if isinstance(value, bytes) else value.encode() for _, value in error.trailing_metadata() or ()
        ]
        return (error.details() or "").encode() + b"".join(metadata)
    return given if isinstance(given, bytes) else given.SerializeToString()


def told_nothing(answer: bytes, msp_id: str) -> bool:
    """Whether what a node of this organisation answered has none of the secrets that it may not tell."""
    return SECRET not in answer and (msp_id == OWNER or IMPLICIT not in answer)


def curious(net: Services) -> list[Signer]:
    return [net.client(OTHER), net.admin(OTHER), net.world.organisations[OTHER].peer]


async def test_its_members_read_it(net: Services) -> None:
    """Without this the other tests would mean nothing."""
    for collection, secret in (("own", SECRET), ("_implicit_org_Org1MSP", IMPLICIT)):
        assert (await net.evaluate(net.proposal("reveal", collection, "s")[1])).payload == secret


async def test_no_proposal_gives_it(net: Services) -> None:
    """Chaincode at every peer, over the gateway and the endorser, by key, range, query and through another chaincode."""
    asked = 0
    for creator in curious(net):
        for function in ("reveal", "range", "query", "digest", "call"):
            for collection in ("own", "_implicit_org_Org1MSP"):
                for chaincode in ("cc", "spy"):
                    _, signed = net.proposal(function, collection, "s", chaincode=chaincode, creator=creator)
                    for msp_id in (OWNER, OTHER):
                        evaluate = gateway_pb2.EvaluateRequest(channel_id=CHANNEL, proposed_transaction=signed)
                        evaluate.target_organizations.append(msp_id)
                        endorse = gateway_pb2.EndorseRequest(channel_id=CHANNEL, proposed_transaction=signed)
                        for call in (
                            net.gateway("Evaluate", evaluate, gateway_pb2.EvaluateResponse, msp_id),
                            net.gateway("Endorse", endorse, gateway_pb2.EndorseResponse, msp_id),
                            net.process(signed, msp_id),
                        ):
                            assert told_nothing(await answered(call), msp_id), (function, collection, chaincode, msp_id)
                            asked += 1
    assert asked > 200


async def test_no_block_or_event_gives_it(net: Services) -> None:
    seek = ab_pb2.SeekInfo()
    seek.start.oldest.SetInParent()
    seek.stop.newest.SetInParent()
    for creator in curious(net):
        request = net.seek(seek, creator=creator).SerializeToString()
        for host in (host_of(OWNER), host_of(OTHER), ORDERER):
            service = "/orderer.AtomicBroadcast/" if host == ORDERER else "/protos.Deliver/"
            for method in ("Deliver", "DeliverFiltered", "DeliverWithPrivateData"):
                call: Any = net.connect(host).stream_stream(service + method)()
                seen = b""
                try:
                    await call.write(request)
                    await call.done_writing()
                    while isinstance(frame := await asyncio.wait_for(call.read(), 10), bytes):
                        seen += frame
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    assert method != "Deliver" or not seen
                assert told_nothing(seen, OWNER if host == host_of(OWNER) else OTHER), (host, method)
        events = gateway_pb2.ChaincodeEventsRequest(channel_id=CHANNEL, chaincode_id="cc", identity=creator.identity)
        events.start_position.oldest.SetInParent()
        content = events.SerializeToString()
        signed = gateway_pb2.SignedChaincodeEventsRequest(request=content, signature=sign(creator.key, content))
        stream: Any = net.connect(host_of(OWNER)).unary_stream("/gateway.Gateway/ChaincodeEvents")
        assert SECRET not in await answered(_first(stream(signed.SerializeToString(), timeout=0.3)))


async def _first(call: Any) -> bytes:
    frame = await call.read()
    return frame if isinstance(frame, bytes) else b""


async def test_no_system_chaincode_gives_it(net: Services) -> None:
    channel = net.ledger.channels[CHANNEL]
    for creator in curious(net):
        for msp_id in (OWNER, OTHER):
            for number in range(channel.height):
                told = await net.system(
                    "qscc", "GetBlockByNumber", CHANNEL, str(number), creator=creator, msp_id=msp_id
                )
                assert SECRET not in told.SerializeToString()
            for function in ("GetConfigBlock", "GetChannelConfig"):
                told = await net.system("cscc", function, CHANNEL, creator=creator, msp_id=msp_id)
                assert SECRET not in told.SerializeToString()
    # What the owner approved, its package included, is its own affair too.
    query = lifecycle_pb2.QueryApprovedChaincodeDefinitionArgs(name="cc", sequence=1).SerializeToString()
    told = await net.system(
        "_lifecycle", "QueryApprovedChaincodeDefinition", query, creator=net.admin(OTHER), msp_id=OTHER
    )
    assert net.chaincodes["cc"].package_id.encode() in told.payload
    refused = net.system(
        "_lifecycle", "QueryApprovedChaincodeDefinition", query, creator=net.admin(OTHER), msp_id=OWNER
    )
    assert net.chaincodes["cc"].package_id.encode() not in await answered(refused)


async def test_neither_discovery_nor_the_chaincode_stream_gives_it(net: Services) -> None:
    creator = net.client(OTHER)
    request = protocol_pb2.Request(authentication=protocol_pb2.AuthInfo(client_identity=creator.identity))
    request.queries.add(channel=CHANNEL).config_query.SetInParent()
    request.queries.add(channel=CHANNEL).peer_query.SetInParent()
    content = request.SerializeToString()
    signed = protocol_pb2.SignedRequest(payload=content, signature=sign(creator.key, content))
    call = net.unary(host_of(OWNER), "/discovery.Discovery/Discover", signed, protocol_pb2.Response)
    assert SECRET not in await answered(call)
    register = chaincode_pb2.ChaincodeID(name=net.chaincodes["cc"].package_id).SerializeToString()
    stream: Any = net.connect(host_of(OWNER)).stream_stream("/protos.ChaincodeSupport/Register")()
    seen = b""
    try:
        await stream.write(Kind(type=Kind.REGISTER, payload=register).SerializeToString())
        get = shim.GetState(key="s", collection="own").SerializeToString()
        await stream.write(Kind(type=Kind.GET_STATE, payload=get, txid="t", channel_id=CHANNEL).SerializeToString())
        await stream.done_writing()
        while isinstance(frame := await asyncio.wait_for(stream.read(), 10), bytes):
            seen += frame
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass  # it is refused
    assert SECRET not in seen
