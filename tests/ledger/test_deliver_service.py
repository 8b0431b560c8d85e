"""The Deliver services and chaincode events over real gRPC: which blocks come, which status ends the stream."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import transaction_pb2
from ledger_world import World, sign_envelope
from service_world import CHANNEL, DeliverStream, Services, Tls, failure, host_of, services

from sovchain.protocol.crypto import sign

pytestmark = pytest.mark.asyncio(loop_scope="module")

Status = common_pb2.Status
OK, BAD, FORBIDDEN, NOT_FOUND = Status.SUCCESS, Status.BAD_REQUEST, Status.FORBIDDEN, Status.NOT_FOUND
OLDEST = ab_pb2.SeekPosition(oldest=ab_pb2.SeekOldest())
NEWEST = ab_pb2.SeekPosition(newest=ab_pb2.SeekNewest())
NEXT = ab_pb2.SeekPosition(next_commit=ab_pb2.SeekNextCommit())
FAIL = ab_pb2.SeekInfo.FAIL_IF_NOT_READY
SOURCES = [
    ("Deliver", "Org1MSP"),
    ("DeliverFiltered", "Org1MSP"),
    ("DeliverWithPrivateData", "Org1MSP"),
    ("Deliver", "OrdererMSP"),
]


def at(number: int) -> ab_pb2.SeekPosition:
    return ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=number))


def between(start: ab_pb2.SeekPosition, stop: ab_pb2.SeekPosition, **options: Any) -> ab_pb2.SeekInfo:
    return ab_pb2.SeekInfo(start=start, stop=stop, **options)


def number_of(block: Any) -> int:
    block = getattr(block, "block", block)  # one that comes with private data
    return int(block.header.number if hasattr(block, "header") else block.number)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Two organisations with `cc` and `other`, some transactions and one that is invalid."""
    async with services(tmp_path_factory.mktemp("net"), World(("Org1MSP", "Org2MSP"))) as running:
        await running.deploy("cc", "AND('Org1MSP.peer', 'Org2MSP.peer')")
        await running.deploy("other", "OR('Org1MSP.peer', 'Org2MSP.peer')")
        await running.transact("put", "a", "1")
        await running.transact("put", "b", "1", organizations=["Org1MSP"])
        yield running


@pytest.fixture(params=SOURCES, ids=[f"{msp_id}-{method}" for method, msp_id in SOURCES])
def stream(net: Services, request: pytest.FixtureRequest) -> DeliverStream:
    return net.deliver(*request.param)


async def numbers(net: Services, stream: DeliverStream, info: ab_pb2.SeekInfo) -> tuple[list[int], int]:
    await stream.send(net.seek(info))
    blocks, status = await stream.range()
    return [number_of(block) for block in blocks], status


async def test_every_form_of_range_and_several_on_one_stream(net: Services, stream: DeliverStream) -> None:
    last = net.ledger.channels[CHANNEL].height - 1
    assert last > 4
    for start, stop, expected in (
        (OLDEST, OLDEST, [0]),
        (OLDEST, NEWEST, list(range(last + 1))),
        (NEWEST, NEWEST, [last]),
        (at(2), at(4), [2, 3, 4]),
        (at(2), at(2), [2]),
        (at(3), OLDEST, [3]),
        (at(last), NEWEST, [last]),
        (NEWEST, at(last), [last]),
        (OLDEST, NEXT, [0]),  # as in Fabric: a stop that is no end stands for block 0
    ):
        assert await numbers(net, stream, between(start, stop)) == (expected, OK), (start, stop)


async def test_what_is_not_there_yet_fails_or_is_waited_for(net: Services, stream: DeliverStream) -> None:
    last = net.ledger.channels[CHANNEL].height - 1
    assert await numbers(net, stream, between(at(last), at(last + 3), behavior=FAIL)) == ([last], NOT_FOUND)
    assert await stream.read() is None, "the stream ends after a refusal"


@pytest.mark.parametrize("behavior", [ab_pb2.SeekInfo.BLOCK_UNTIL_READY, FAIL])
async def test_a_start_beyond_the_end_is_not_found(net: Services, stream: DeliverStream, behavior: Any) -> None:
    height = net.ledger.channels[CHANNEL].height
    far = between(at(height + 1), at(height + 5), behavior=behavior)
    assert await numbers(net, stream, far) == ([], NOT_FOUND)


@pytest.mark.parametrize(
    ("start", "stop"), [(OLDEST, at(2**64 - 1)), (NEXT, NEXT), (NEXT, NEWEST), (NEXT, at(2**64 - 1)), (at(1), NEXT)]
)
async def test_a_stop_past_the_end_waits_for_blocks_to_come(
    net: Services, stream: DeliverStream, start: ab_pb2.SeekPosition, stop: ab_pb2.SeekPosition
) -> None:
    height = net.ledger.channels[CHANNEL].height
    await stream.send(net.seek(between(start, stop)))
    first = {"oldest": 0, "next_commit": height}.get(start.WhichOneof("Type") or "", 1)
    for number in range(first, height):
        assert number_of_response(await stream.read()) == number
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reading := asyncio.ensure_future(stream.read())), 0.05)
    await net.transact("put", "more", "1")
    assert number_of_response(await reading) == height
    stream.call.cancel()


def number_of_response(response: Any) -> int:
    kind = response.WhichOneof("Type")
    assert kind != "status", response
    return number_of(getattr(response, kind))


async def test_next_commit_that_is_not_there_is_not_found_for_the_impatient(net: Services) -> None:
    for stop in (NEXT, NEWEST, at(2**64 - 1)):
        assert await numbers(net, net.deliver(), between(NEXT, stop, behavior=FAIL)) == ([], NOT_FOUND)


async def test_faults_of_a_request(net: Services) -> None:
    client, good = net.client(), between(OLDEST, OLDEST)
    stranger = World(("StrangerMSP",)).organisations["StrangerMSP"].client
    authority = net.world.organisations["Org1MSP"].authority
    old = authority.enrol("old", "client", expires=datetime.now(UTC) - timedelta(hours=1))
    forged = net.seek(good)
    forged.signature = sign(net.admin().key, forged.payload)
    no_header = common_pb2.Envelope(payload=common_pb2.Payload(data=b"x").SerializeToString())
    late = datetime.now(UTC) - timedelta(minutes=16)
    early = datetime.now(UTC) + timedelta(minutes=16)
    for method, msp_id in SOURCES:
        for envelope, expected in (
            (net.seek(good, channel_id="nowhere"), NOT_FOUND),
            (net.seek(good, channel_id=""), NOT_FOUND),
            (net.seek(b"\xff\xff"), BAD),
            (net.seek(ab_pb2.SeekInfo(start=OLDEST)), BAD),
            (net.seek(ab_pb2.SeekInfo(stop=OLDEST)), BAD),
            (net.seek(between(at(3), at(2))), BAD),
            (net.seek(between(ab_pb2.SeekPosition(), at(2))), NOT_FOUND),
            (net.seek(good, timestamp=late), BAD),
            (net.seek(good, timestamp=early), BAD),
            (net.seek(good, with_timestamp=False), BAD),
            (no_header, BAD),
            (b"\xff\xff", BAD),
            (common_pb2.Envelope(payload=b"\xff"), BAD),
            (net.seek(good, creator=stranger), FORBIDDEN),
            (net.seek(good, creator=old), FORBIDDEN),
            (forged, FORBIDDEN),
            (net.seek(good, creator=client), OK),
        ):
            stream = net.deliver(method, msp_id)
            await stream.send(envelope)
            _, status = await stream.range()
            assert status == expected, (method, envelope)
            if status != OK:
                assert await stream.read() is None
            stream.call.cancel()


async def test_a_full_block_is_the_stored_one_and_an_orderers_has_no_peer_metadata(net: Services) -> None:
    channel = net.ledger.channels[CHANNEL]
    everything = between(OLDEST, NEWEST)
    peer, orderer = net.deliver(), net.deliver("Deliver", "OrdererMSP")
    await peer.send(net.seek(everything))
    await orderer.send(net.seek(everything))
    (full, _), (ordered, _) = await peer.range(), await orderer.range()
    for number, (block, other) in enumerate(zip(full, ordered, strict=True)):
        assert block.SerializeToString() == channel.block(number)
        assert (other.header, other.data) == (block.header, block.data)
        assert other.metadata.metadata[common_pb2.SIGNATURES] == block.metadata.metadata[common_pb2.SIGNATURES]
        assert other.metadata.metadata[common_pb2.TRANSACTIONS_FILTER] == b""


async def test_headers_with_signatures_come_without_data_except_configuration(net: Services) -> None:
    stream = net.deliver()
    await stream.send(net.seek(between(OLDEST, at(2), content_type=ab_pb2.SeekInfo.HEADER_WITH_SIG)))
    blocks, status = await stream.range()
    assert status == OK
    assert [block.HasField("data") for block in blocks] == [True, False, False]
    assert all(block.metadata.metadata[common_pb2.SIGNATURES] for block in blocks[1:])


async def test_a_filtered_block_tells_codes_and_events_without_payload(net: Services) -> None:
    good, _, first = await net.transact("put", "filtered", "secret value")
    bad, code, second = await net.transact("put", "filtered", "secret value", organizations=["Org2MSP"])
    assert code == transaction_pb2.ENDORSEMENT_POLICY_FAILURE
    stream = net.deliver("DeliverFiltered")
    await stream.send(net.seek(between(at(first), at(second))))
    blocks, _ = await stream.range()
    assert [block.channel_id for block in blocks] == [CHANNEL] * len(blocks)
    found = {entry.txid: entry for block in blocks for entry in block.filtered_transactions}
    assert {txid: entry.tx_validation_code for txid, entry in found.items()} == {good: 0, bad: code}
    for entry in found.values():
        (action,) = entry.transaction_actions.chaincode_actions
        event = action.chaincode_event
        assert (event.chaincode_id, event.event_name, event.payload) == ("cc", "Put", b"")
        assert b"secret value" not in entry.SerializeToString()


async def test_a_block_that_cannot_be_filtered_is_a_status_in_its_place(net: Services) -> None:
    """Anybody who may write can have a transaction ordered that is none; readers of filtered blocks get past it."""
    creator = net.client()
    header = common_pb2.ChannelHeader(type=common_pb2.ENDORSER_TRANSACTION, channel_id=CHANNEL, tx_id="odd")
    signature_header = common_pb2.SignatureHeader(creator=creator.identity, nonce=b"n" * 24)
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=header.SerializeToString(), signature_header=signature_header.SerializeToString()
        ),
        data=b"\xff\xff",
    )
    odd = common_pb2.Envelope(payload=payload.SerializeToString())
    sign_envelope(odd, creator)
    channel = net.ledger.channels[CHANNEL]
    first = channel.height
    assert (await net.broadcast(odd)).status == OK
    code, number = await channel.wait_for_commit("odd")
    assert (code != transaction_pb2.VALID, number) == (True, first)
    _, _, last = await net.transact("put", "after", "1")
    stream = net.deliver("DeliverFiltered")
    await stream.send(net.seek(between(at(first), at(last))))
    assert (await stream.read()).status == BAD
    blocks, status = await stream.range()
    assert ([block.number for block in blocks], status) == ([last], OK)
    full = net.deliver()
    assert await numbers(net, full, between(at(first), at(last))) == ([first, last], OK)


async def test_the_tls_certificate_hash_binds_a_request_to_its_connection(tmp_path: Path) -> None:
    async with services_with_mutual_tls(tmp_path) as net:
        host = host_of("Org1MSP")
        certificate, _ = net.client_tls[host]
        digest = hashlib.sha256(x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)).digest()
        for claimed, expected in ((b"", BAD), (b"x" * 32, BAD), (digest, OK)):
            stream = net.deliver()
            await stream.send(net.seek(between(OLDEST, OLDEST), tls_hash=claimed))
            assert (await stream.range())[1] == expected, claimed
            stream.call.cancel()
        net.client_tls.clear()
        await net.connect(host).close()
        net._channels.clear()
        refused = await failure(net.status("t"))
        assert refused.code is grpc.StatusCode.UNAVAILABLE, "without a client certificate there is no connection"


@asynccontextmanager
async def services_with_mutual_tls(directory: Path) -> AsyncIterator[Services]:
    world = World(("Org1MSP",))
    net = Services(directory, world, Tls.create())
    net.client_tls[host_of("Org1MSP")] = net.tls.issue("client")
    await net.start(mutual_tls=["Org1MSP"])
    try:
        await net.ledger.join(world.genesis(CHANNEL))
        yield net
    finally:
        await net.stop()


# Chaincode events -----------------------------------------------------------------------------------------------------


class Events:
    """A stream of chaincode events of one client."""

    def __init__(self, net: Services, **fields: Any) -> None:
        client = fields.pop("creator", None) or net.client()
        fields = {"channel_id": CHANNEL, "chaincode_id": "cc", "identity": client.identity} | fields
        request = gateway_pb2.ChaincodeEventsRequest(**fields).SerializeToString()
        signed = gateway_pb2.SignedChaincodeEventsRequest(request=request, signature=sign(client.key, request))
        method = net.connect(host_of("Org1MSP")).unary_stream("/gateway.Gateway/ChaincodeEvents")
        self.call: Any = method(signed.SerializeToString())

    async def started(self, net: Services) -> None:
        """Wait until the server has this request: it takes requests in order, and a later one is answered."""
        await failure(net.status("t", creator=World(("StrangerMSP",)).organisations["StrangerMSP"].client))

    async def read(self, count: int) -> list[tuple[int, str, str, bytes]]:
        """(block, transaction id, name, payload) of at least `count` events."""
        found: list[tuple[int, str, str, bytes]] = []
        while len(found) < count:
            frame = await asyncio.wait_for(self.call.read(), 10)
            response = gateway_pb2.ChaincodeEventsResponse.FromString(frame)
            found += [(response.block_number, e.tx_id, e.event_name, e.payload) for e in response.events]
        return found


async def test_events_from_a_block_after_a_transaction_and_of_what_comes(net: Services) -> None:
    live = Events(net)
    await live.started(net)
    sent = [await net.transact("put", f"e{number}", "1") for number in range(3)]
    await net.transact("put", "x", "1", chaincode="other")
    _, code, _ = await net.transact("put", "x", "1", organizations=["Org1MSP"])
    assert code != 0
    sent.append(await net.transact("put", "e3", "1"))
    expected = [(number, txid, "Put", b"e%d" % index) for index, (txid, _, number) in enumerate(sent)]
    assert await live.read(4) == expected
    assert await Events(net, start_position=at(sent[0][2])).read(4) == expected
    assert await Events(net, after_transaction_id=sent[1][0]).read(2) == expected[2:]
    assert await Events(net, after_transaction_id=sent[1][0], start_position=at(0)).read(2) == expected[2:]
    live.call.cancel()


async def test_events_after_a_transaction_that_is_not_committed_yet(net: Services) -> None:
    txid, signed = net.proposal("put", "future", "1")
    envelope = await net.endorse(signed)
    after = Events(net, after_transaction_id=txid)
    await after.started(net)
    await net.transact("put", "before", "1")
    await net.submit(envelope)
    await net.status(txid)
    later, _, number = await net.transact("put", "later", "1")
    assert await after.read(1) == [(number, later, "Put", b"later")]
    after.call.cancel()


async def test_a_client_that_leaves_takes_its_stream_along(net: Services) -> None:
    """A cancelled client leaves nothing that runs on: its place among the concurrent calls is free again."""
    streams = [Events(net, start_position=at(0)) for _ in range(20)]
    for stream in streams:
        await stream.read(1)
    before = len(asyncio.all_tasks())
    for stream in streams:
        stream.call.cancel()
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > before - 20:
            await net.transact("put", "tick", "1")


async def test_refusals_of_events(net: Services) -> None:
    stranger = World(("StrangerMSP",)).organisations["StrangerMSP"].client
    for fields, code, text in (
        ({"creator": stranger}, grpc.StatusCode.PERMISSION_DENIED, ""),
        ({"channel_id": "nowhere"}, grpc.StatusCode.PERMISSION_DENIED, ""),
        ({"start_position": OLDEST}, grpc.StatusCode.INVALID_ARGUMENT, "invalid start position type: "),
        ({"start_position": NEWEST}, grpc.StatusCode.INVALID_ARGUMENT, "invalid start position type: "),
    ):
        refused = await failure(Events(net, **fields).call.read())
        assert refused.code is code, fields
        assert refused.text.startswith(text)
    method = net.connect(host_of("Org1MSP")).unary_stream("/gateway.Gateway/ChaincodeEvents")
    empty: Any = method(b"")
    refused = await failure(empty.read())
    assert (refused.code, refused.text) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "a chaincode events request is required",
    )
