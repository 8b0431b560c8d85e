"""The stream breaks at any message, in either direction: the chaincode is ready again within 5 s and confuses nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from fabric_protos.peer import chaincode_shim_pb2 as shim
from fakepeer import CHAINCODE_ID, Connect, FakePeer, Kind

from sovchain.chaincode import Chaincode, Context, Contract, StreamError, query, transaction
from sovchain.chaincode.connect import PeerConnection
from sovchain.chaincode.errors import ServiceError
from sovchain.chaincode.handler import Limits
from sovchain.chaincode.server import ChaincodeService
from sovchain.chaincode.tls import ClientTls, ServerTls
from sovchain.network.runtimes.chaincodes import ChaincodeTls
from sovchain.rpc.connection import Keepalive

READY_S = 5.0


class Counter(Contract):
    """Reads, scans, writes and sets an event, so that each kind of message is on the stream."""

    @transaction
    async def add(self, ctx: Context, key: str) -> int:
        """Read a number and write the next."""
        value = int(await ctx.stub.get_state(key) or b"0") + 1
        async with ctx.stub.range("a", "z") as items:
            async for _ in items:
                break
        await ctx.stub.put_state(key, str(value).encode())
        ctx.set_event("Added", {"value": value})
        return value

    @query
    async def ping(self, ctx: Context) -> str:
        """Answer."""
        return "pong"


CHAINCODE = Chaincode([Counter()], "counter")
MESSAGES = 11
"""Messages of one stream with one call of `add`: REGISTER to COMPLETED."""


@asynccontextmanager
async def kept(peer: FakePeer, **options: Any) -> AsyncIterator[PeerConnection]:
    """A connection that dials again, to a peer that listens."""
    async with peer.listen() as address:
        connection = PeerConnection(CHAINCODE, CHAINCODE_ID, address, **options)
        running = asyncio.create_task(connection.keep())
        try:
            yield connection
        finally:
            await connection.stop(0.5)
            await asyncio.wait_for(running, 15)


@pytest.mark.parametrize("cut_at", range(1, MESSAGES + 1))
async def test_a_stream_cut_at_this_message_stands_again_when_the_chaincode_dials(cut_at: int) -> None:
    peer = FakePeer()
    peer.cut_at = cut_at
    async with kept(peer):
        if cut_at > 3:
            await asyncio.wait_for(peer.ready.wait(), READY_S)
            with pytest.raises((ConnectionError, TimeoutError)):
                await peer.invoke("Counter:add", "k", timeout_s=0.5)
        peer.cut_at = None
        started = time.monotonic()
        await asyncio.wait_for(peer.ready.wait(), READY_S)
        done = await peer.invoke("Counter:add", "n")
        assert (done.response.payload, done.event) == (b"1", ("Added", b'{"value":1}'))
        assert time.monotonic() - started < READY_S
        assert peer.stray == []


@pytest.mark.parametrize("cut_at", range(1, MESSAGES + 1))
async def test_a_stream_cut_at_this_message_leaves_a_service_that_can_be_dialled_again(cut_at: int) -> None:
    peer = FakePeer()
    peer.cut_at = cut_at
    service = ChaincodeService(CHAINCODE, CHAINCODE_ID, "127.0.0.1:0")
    await service.start()
    try:
        async with peer.dial(service.address):
            with pytest.raises((ConnectionError, TimeoutError)):
                await peer.invoke("Counter:add", "k", timeout_s=0.5)
        peer.cut_at = None
        async with peer.dial(service.address):
            done = await peer.invoke("Counter:add", "n")
            assert (done.response.payload, done.event) == (b"1", ("Added", b'{"value":1}'))
            assert peer.stray == []
    finally:
        await service.stop()
    assert service.handlers == []


async def test_it_dials_a_peer_that_is_away_until_it_is_there() -> None:
    peer = FakePeer()
    async with peer.listen() as address:
        pass
    connection = PeerConnection(CHAINCODE, CHAINCODE_ID, address)
    running = asyncio.create_task(connection.keep())
    await asyncio.sleep(0.5)
    host, _, port = address.rpartition(":")
    async with peer.listen(host=host, port=int(port)):
        await asyncio.wait_for(peer.ready.wait(), READY_S)
        assert (await peer.invoke("Counter:ping")).response.payload == b"pong"
        await connection.stop()
        await asyncio.wait_for(running, 10)


async def test_one_attempt_says_that_nobody_listens() -> None:
    peer = FakePeer()
    async with peer.listen() as address:
        pass
    with pytest.raises(StreamError, match=r"cannot reach 127\.0\.0\.1"):
        await PeerConnection(CHAINCODE, CHAINCODE_ID, address).run(dial_timeout_s=0.2)


async def test_several_peers_use_one_service_at_once() -> None:
    service = ChaincodeService(CHAINCODE, CHAINCODE_ID, "127.0.0.1:0")
    await service.start()
    first, second = FakePeer(), FakePeer(batch=0, multiple=0)
    try:
        async with first.dial(service.address), second.dial(service.address):
            for _ in range(3):
                await asyncio.gather(
                    *(peer.invoke("Counter:add", f"k{n}") for peer in (first, second) for n in range(9))
                )
            assert set(first.state.values()) == set(second.state.values()) == {b"3"}
            assert (first.requests["WRITE_BATCH_STATE"], second.requests["WRITE_BATCH_STATE"]) == (27, 0)
            assert len([handler for handler in service.handlers if handler.ready]) == 2
    finally:
        await service.stop()


async def test_the_same_transaction_id_on_two_channels_is_two_transactions(connect: Connect) -> None:
    async with connect(CHAINCODE) as peer:
        calls = [peer.invoke("Counter:add", channel, channel=channel, txid="c" * 64) for channel in ("one", "two")]
        assert [done.response.payload for done in await asyncio.gather(*calls)] == [b"1", b"1"]


async def test_a_stop_finishes_what_was_taken_and_refuses_what_comes_then() -> None:
    gate, arrived = asyncio.Event(), asyncio.Event()

    async def hold(kind: str, key: str) -> None:
        arrived.set()
        await gate.wait()

    peer = FakePeer()
    peer.hold = hold
    service = ChaincodeService(CHAINCODE, CHAINCODE_ID, "127.0.0.1:0")
    await service.start()
    async with peer.dial(service.address):
        taken = asyncio.create_task(peer.invoke("Counter:add", "k"))
        await arrived.wait()
        stopping = asyncio.create_task(service.stop(5))
        await asyncio.sleep(0)
        refused = (await peer.invoke("Counter:ping")).response
        assert (refused.status, refused.message[:6]) == (503, "E_BUSY")
        gate.set()
        assert (await taken).response.payload == b"1"
        await asyncio.wait_for(stopping, 10)
        await asyncio.wait_for(peer.stream_ended, 5)


async def test_a_stop_without_patience_answers_what_is_in_hand() -> None:
    async def hold(kind: str, key: str) -> None:
        await asyncio.Event().wait()

    peer = FakePeer()
    peer.hold = hold
    service = ChaincodeService(CHAINCODE, CHAINCODE_ID, "127.0.0.1:0")
    await service.start()
    async with peer.dial(service.address):
        taken = asyncio.create_task(peer.invoke("Counter:add", "k"))
        while not peer.requests["GET_STATE"]:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(service.stop(0.05), 10)
        answer = (await taken).message
        assert (answer.type, answer.payload) == (
            Kind.ERROR,
            b"the chaincode is being stopped and ended the transaction",
        )


# What a peer may not send ---------------------------------------------------------------------------------------------


BAD = {
    "no message": b"\xff\xff\xff",
    "a second READY": shim.ChaincodeMessage(type=Kind.READY).SerializeToString(),
    "a second REGISTERED": shim.ChaincodeMessage(type=Kind.REGISTERED).SerializeToString(),
    "REGISTER": shim.ChaincodeMessage(type=Kind.REGISTER).SerializeToString(),
    "an unknown type": shim.ChaincodeMessage(type=99).SerializeToString(),
    "COMPLETED": shim.ChaincodeMessage(type=Kind.COMPLETED).SerializeToString(),
}
HARMLESS = {
    "an answer to nothing": shim.ChaincodeMessage(type=Kind.RESPONSE, txid="x", channel_id="ch").SerializeToString(),
    "an error for nothing": shim.ChaincodeMessage(type=Kind.ERROR, txid="x", payload=b"no").SerializeToString(),
    "a keepalive": shim.ChaincodeMessage(type=Kind.KEEPALIVE).SerializeToString(),
}


@pytest.mark.parametrize("name", [*BAD, *HARMLESS])
async def test_a_frame_that_does_not_belong_ends_the_stream_or_nothing(name: str, connect: Connect) -> None:
    async with connect(CHAINCODE) as peer:
        peer.send_raw((BAD | HARMLESS)[name])
        if name in HARMLESS:
            assert (await peer.invoke("Counter:ping")).response.payload == b"pong"
        else:
            with pytest.raises(ConnectionError):
                await peer.invoke("Counter:ping")


@pytest.mark.parametrize("kind", [Kind.TRANSACTION, Kind.INIT])
async def test_a_transaction_that_cannot_be_read_is_answered_with_an_error(kind: int, connect: Connect) -> None:
    async with connect(CHAINCODE) as peer:
        answered = peer.expect(("ch", "bad"))
        peer.send(kind, b"\xff\xff", ("ch", "bad"))
        message = await asyncio.wait_for(answered, 5)
        assert (message.type, b"ChaincodeInput" in message.payload) == (Kind.ERROR, True)
        assert (await peer.invoke("Counter:ping")).response.payload == b"pong"


# TLS ------------------------------------------------------------------------------------------------------------------


def peer_credentials(tls: ChaincodeTls, *, mutual: bool) -> grpc.ChannelCredentials:
    certificate, key = (path.read_bytes() for path in tls.client)
    return grpc.ssl_channel_credentials(tls.root.read_bytes(), *((key, certificate) if mutual else ()))


def server_tls(tls: ChaincodeTls, *, mutual: bool) -> ServerTls:
    certificate, key = (path.read_bytes() for path in tls.server)
    return ServerTls(certificate, key, tls.root.read_bytes() if mutual else None)


@pytest.mark.parametrize("mutual", [False, True])
async def test_a_service_over_tls_and_mutual_tls(tls: ChaincodeTls, mutual: bool) -> None:
    service = ChaincodeService(CHAINCODE, CHAINCODE_ID, "localhost:0", tls=server_tls(tls, mutual=mutual))
    await service.start()
    try:
        peer = FakePeer()
        async with peer.dial(service.address, peer_credentials(tls, mutual=mutual)):
            assert (await peer.invoke("Counter:ping")).response.payload == b"pong"
    finally:
        await service.stop()


async def test_a_service_lets_no_stranger_in(tls: ChaincodeTls, stranger: ChaincodeTls) -> None:
    service = ChaincodeService(CHAINCODE, CHAINCODE_ID, "localhost:0", tls=server_tls(tls, mutual=True))
    await service.start()
    certificate, key = (path.read_bytes() for path in stranger.client)
    strangers = [
        grpc.ssl_channel_credentials(tls.root.read_bytes()),
        grpc.ssl_channel_credentials(tls.root.read_bytes(), key, certificate),
        None,
    ]
    try:
        for credentials in strangers:
            with pytest.raises(grpc.aio.AioRpcError):
                async with FakePeer().dial(service.address, credentials) as peer:
                    await peer.stream_ended
        assert service.handlers == []
    finally:
        await service.stop()


@pytest.mark.parametrize("mutual", [False, True])
async def test_dialling_a_peer_over_tls_and_mutual_tls(tls: ChaincodeTls, mutual: bool) -> None:
    certificate, key = (path.read_bytes() for path in tls.server)
    root = tls.root.read_bytes()
    credentials = grpc.ssl_server_credentials([(key, certificate)], root if mutual else None, mutual)
    shown = [path.read_bytes() for path in tls.client] if mutual else (None, None)
    peer = FakePeer()
    async with peer.listen(credentials) as address:
        own = ClientTls(root, *shown, server_name="localhost")
        connection = PeerConnection(CHAINCODE, CHAINCODE_ID, address, tls=own)
        running = asyncio.create_task(connection.run())
        await asyncio.wait_for(peer.ready.wait(), 10)
        assert (await peer.invoke("Counter:ping")).response.payload == b"pong"
        await connection.stop()
        await running


async def test_a_peer_that_cannot_prove_itself_is_told_nothing(tls: ChaincodeTls, stranger: ChaincodeTls) -> None:
    certificate, key = (path.read_bytes() for path in tls.server)
    peer = FakePeer()
    async with peer.listen(grpc.ssl_server_credentials([(key, certificate)])) as address:
        for own in (
            ClientTls(stranger.root.read_bytes()),
            ClientTls(tls.root.read_bytes(), server_name="other.example"),
        ):
            with pytest.raises(StreamError, match="is not trusted"):
                await PeerConnection(CHAINCODE, CHAINCODE_ID, address, tls=own).run(dial_timeout_s=0.1)
    assert peer.registered == ""


def test_tls_material_that_cannot_be_used_is_refused(tls: ChaincodeTls, stranger: ChaincodeTls) -> None:
    certificate, key = tls.server[0].read_bytes(), stranger.server[1].read_bytes()
    for made in (
        ServerTls(certificate, key),
        ServerTls(certificate, b"-----BEGIN PRIVATE KEY-----\nno\n-----END PRIVATE KEY-----\n"),
        ServerTls(certificate, tls.server[1].read_bytes(), b"no roots"),
        ClientTls(b"no roots"),
        ClientTls(tls.root.read_bytes(), certificate, key),
    ):
        with pytest.raises(ServiceError):
            made.context()


# Silence --------------------------------------------------------------------------------------------------------------


async def silent(address: str) -> bytes:
    """Connect, say nothing, and return what comes until the other side hangs up."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def test_a_connection_that_says_nothing_is_closed() -> None:
    keepalive = Keepalive(setup_s=0.1)
    service = ChaincodeService(CHAINCODE, CHAINCODE_ID, "127.0.0.1:0", keepalive=keepalive)
    await service.start()
    try:
        await silent(service.address)
    finally:
        await service.stop()


async def test_a_silent_peer_is_pinged_and_one_that_answers_is_kept() -> None:
    """gRPC's library answers pings by itself, so the stream stands although no message passes."""
    service = ChaincodeService(CHAINCODE, CHAINCODE_ID, "127.0.0.1:0", keepalive=Keepalive(idle_s=0.05, timeout_s=0.3))
    await service.start()
    peer = FakePeer()
    try:
        async with peer.dial(service.address):
            await asyncio.sleep(0.6)
            assert (await peer.invoke("Counter:ping")).response.payload == b"pong"
    finally:
        await service.stop()


async def test_a_dead_peer_is_noticed() -> None:
    """The peer's machine is gone: no byte comes any more, not even an answer to the ping."""
    gone = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(3) + b"\x04" + bytes(5))  # empty settings, then nothing
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    connection = PeerConnection(CHAINCODE, CHAINCODE_ID, address, keepalive=Keepalive(idle_s=0.1, timeout_s=0.2))
    with pytest.raises(StreamError, match="no sign of life"):
        await asyncio.wait_for(connection.run(), 5)
    gone.set()
    server.close()


async def test_a_large_message_each_way(connect: Connect) -> None:
    """40 MiB come and go, more than any window."""
    peer = FakePeer()
    async with connect(CHAINCODE, peer, limits=Limits(transaction_s=60)):
        peer.send(Kind.KEEPALIVE, bytes(40 << 20))
        async with asyncio.timeout(30):
            while not peer.requests["KEEPALIVE"]:
                await asyncio.sleep(0.01)
        assert (await peer.invoke("Counter:ping")).response.payload == b"pong"


async def test_a_message_over_100_mib_ends_the_stream_and_not_the_service() -> None:
    service = ChaincodeService(CHAINCODE, CHAINCODE_ID, "127.0.0.1:0")
    await service.start()
    peer = FakePeer(max_message_bytes=200 << 20)
    try:
        async with peer.dial(service.address):
            peer.send(Kind.KEEPALIVE, bytes(101 << 20))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(peer.stream_ended, 30)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        async with peer.dial(service.address):
            assert (await peer.invoke("Counter:ping")).response.payload == b"pong"
    finally:
        await service.stop()


async def test_a_service_and_a_peer_on_unix_sockets(tmp_path: Path) -> None:
    service = ChaincodeService(CHAINCODE, CHAINCODE_ID, f"unix:{tmp_path}/chaincode.sock")
    await service.start()
    try:
        peer = FakePeer()
        async with peer.dial(service.address):
            assert (await peer.invoke("Counter:ping")).response.payload == b"pong"
    finally:
        await service.stop()
