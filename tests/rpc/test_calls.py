"""Calls: what a client of ours and a server of ours say to each other, and to gRPC's own library, either way round."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from fakegateway import LiveAuthority, key_pem
from pki import pem

from sovchain.rpc.channel import Channel, Replies
from sovchain.rpc.connection import Keepalive
from sovchain.rpc.errors import AddressError, RpcError
from sovchain.rpc.http2 import Limits
from sovchain.rpc.server import Call, Method, Server
from sovchain.rpc.tls import client_context, server_context

QUICK = Keepalive(idle_s=0.2, timeout_s=0.2)
ABORTED, CANCELLED, DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE = 10, 1, 4, 13, 8, 14


class World:
    """Methods that do what tests ask for, and what was seen of them."""

    def __init__(self) -> None:
        self.running = 0
        self.cancelled = 0
        self.release = asyncio.Event()
        self.sent = 0

    def methods(self) -> dict[str, Method]:
        return {
            "/test.Test/Echo": self.echo,
            "/test.Test/Fail": self.fail,
            "/test.Test/Defect": self.defect,
            "/test.Test/Hang": self.hang,
            "/test.Test/Count": self.count,
            "/test.Test/Flood": self.flood,
            "/test.Test/Chat": self.chat,
            "/test.Test/Silent": self.silent,
            "/test.Test/Twice": self.twice,
        }

    async def echo(self, call: Call) -> None:
        await call.write(await call.read() or b"")

    async def fail(self, call: Call) -> None:
        text = await call.read() or b""
        raise RpcError(text.decode(), ABORTED, b"\x08\x0a\x12\x03why")

    async def defect(self, call: Call) -> None:
        raise ValueError("a secret of the server")

    async def hang(self, call: Call) -> None:
        self.running += 1
        try:
            await self.release.wait()
            await call.write(b"released")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def count(self, call: Call) -> None:
        for number in range(int(await call.read() or b"0")):
            await call.write(b"%d" % number)

    async def flood(self, call: Call) -> None:
        size = int(await call.read() or b"0")
        while True:
            await call.write(bytes(size))
            self.sent += size

    async def chat(self, call: Call) -> None:
        while (message := await call.read()) is not None:
            await call.write(message.upper())

    async def silent(self, call: Call) -> None:
        return

    async def twice(self, call: Call) -> None:
        await call.write(b"1")
        await call.write(b"2")


@asynccontextmanager
async def served(world: World, **options: Any) -> AsyncIterator[Server]:
    server = Server("127.0.0.1:0", world.methods(), tls=options.pop("tls", None), **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def connected(server: Server, **options: Any) -> AsyncIterator[Channel]:
    channel = Channel(server.address, **options)
    try:
        yield channel
    finally:
        await channel.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def failure(call: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await call
    return caught.value


async def test_a_call_has_one_reply_whatever_its_size() -> None:
    async with served(World()) as server, connected(server) as channel:
        for size in (0, 1, 16_379, 16_380, 70_000, 3_000_000):
            message = os.urandom(size)
            assert await channel.unary("/test.Test/Echo", message, 5) == message


async def test_many_calls_at_a_time_get_each_their_own_reply() -> None:
    async with served(World(), limits=Limits(streams=10)) as server, connected(server) as channel:
        sent = [b"%d" % number * (number % 50) for number in range(300)]
        assert await asyncio.gather(*(channel.unary("/test.Test/Echo", one, 10) for one in sent)) == sent


async def test_a_status_comes_whole() -> None:
    async with served(World()) as server, connected(server) as channel:
        error = await failure(channel.unary("/test.Test/Fail", "no: 100 % of α\nand β".encode(), 5))
        assert (error.code, error.message, error.details) == (ABORTED, "no: 100 % of α\nand β", b"\x08\x0a\x12\x03why")
        assert error.told
        assert error.status == "ABORTED"
        unknown = await failure(channel.unary("/test.Test/Nothing", b"", 5))
        assert (unknown.status, unknown.message) == ("UNIMPLEMENTED", "unknown method Nothing for service test.Test")


async def test_an_error_of_the_server_is_told_without_its_text() -> None:
    async with served(World()) as server, connected(server) as channel:
        error = await failure(channel.unary("/test.Test/Defect", b"", 5))
        assert (error.code, "secret" in str(error)) == (INTERNAL, False)
        assert await channel.unary("/test.Test/Echo", b"still", 5) == b"still"


@pytest.mark.parametrize(("method", "text"), [("Silent", "without a reply"), ("Twice", "more than one reply")])
async def test_a_call_without_exactly_one_reply_is_an_error(method: str, text: str) -> None:
    async with served(World()) as server, connected(server) as channel:
        error = await failure(channel.unary(f"/test.Test/{method}", b"", 5))
        assert error.code == INTERNAL
        assert text in error.message


async def test_a_deadline_ends_the_call_on_both_sides() -> None:
    world = World()
    async with served(world) as server, connected(server) as channel:
        error = await failure(channel.unary("/test.Test/Hang", b"", 0.1))
        assert error.code == DEADLINE_EXCEEDED
        await until(lambda: (world.running, world.cancelled) == (0, 1))


async def test_a_cancelled_call_ends_at_the_server() -> None:
    world = World()
    async with served(world) as server, connected(server) as channel:
        task = asyncio.create_task(channel.unary("/test.Test/Hang", b"", 5))
        await until(lambda: world.running == 1)
        began = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: (world.running, world.cancelled) == (0, 1))
        assert asyncio.get_running_loop().time() - began < 3, "by its deadline, not by its cancellation"
        assert await channel.unary("/test.Test/Echo", b"still", 5) == b"still"


async def test_replies_come_in_order_and_the_end_is_told() -> None:
    async with served(World()) as server, connected(server) as channel:
        replies = await channel.stream("/test.Test/Count", b"500")
        assert [await replies.read() for _ in range(501)] == [*(b"%d" % number for number in range(500)), None]
        assert await replies.read() is None
        broken = await channel.stream("/test.Test/Fail", b"over")
        assert (await failure(broken.read())).message == "over"


@pytest.mark.parametrize("size", [1_000, 3_000_000])
async def test_a_slow_reader_slows_the_server_down(size: int) -> None:
    world = World()
    limits = Limits(stream_window=1_000_000)
    async with served(world) as server, connected(server, limits=limits) as channel:
        replies = await channel.stream("/test.Test/Flood", b"%d" % size)
        first = await replies.read()
        assert first is not None
        last = -1
        while last != world.sent:
            last = world.sent
            await asyncio.sleep(0.1)
        assert world.sent <= 3 * max(size, 1_000_000)
        before = world.sent
        for _ in range(2 * (3_000_000 // size)):
            assert len(await replies.read() or b"") == size
        await until(lambda: world.sent > before)
        replies.cancel()
        assert (await failure(replies.read())).code == CANCELLED


async def test_a_client_that_does_not_read_leaves_no_mountain_of_replies() -> None:
    """Short calls have no flow control of their own: the server reads no more requests meanwhile."""
    world = World()
    async with served(world, limits=Limits(streams=100_000)) as server:
        reader, writer = await asyncio.open_connection(*server.address.split(":"))
        channel = Channel(server.address)
        from sovchain.rpc.http2 import Connection

        client = Connection(serves=False, on_output=lambda: None)
        message = bytes(10_000)
        asked = 0
        taken = True
        while taken and asked < 20_000:
            stream = client.request("/test.Test/Echo", "x", secure=False)
            client.send_window = stream._send_window = 10**9
            stream.send_last(message)
            writer.write(client.output())
            asked += 1
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                taken = False
        assert not taken
        writer.close()
        assert await channel.unary("/test.Test/Echo", b"others are served", 5) == b"others are served"
        await channel.close()
        del reader


async def test_too_large_a_message_is_refused_on_its_way_out_and_in() -> None:
    async with served(World(), limits=Limits(message_bytes=5_000)) as server:
        async with connected(server, limits=Limits(message_bytes=1_000)) as channel:
            assert (await failure(channel.unary("/test.Test/Echo", bytes(1_001), 5))).code == RESOURCE_EXHAUSTED
        async with connected(server) as channel:
            assert (await failure(channel.unary("/test.Test/Echo", bytes(5_001), 5))).code == RESOURCE_EXHAUSTED
            assert await channel.unary("/test.Test/Echo", bytes(5_000), 5) == bytes(5_000)
    async with served(World()) as server, connected(server, limits=Limits(message_bytes=1_000)) as channel:
        replies = await channel.stream("/test.Test/Flood", b"1001")
        assert (await failure(replies.read())).code == RESOURCE_EXHAUSTED


async def test_a_server_that_stops_lets_calls_end_and_cancels_the_rest() -> None:
    world = World()
    server = Server("127.0.0.1:0", world.methods(), tls=None)
    await server.start()
    async with connected(server) as channel:
        hanging = asyncio.create_task(channel.unary("/test.Test/Hang", b"", 5))
        await until(lambda: world.running == 1)
        stopping = asyncio.create_task(server.stop(5))
        await asyncio.sleep(0.05)
        assert (await failure(channel.unary("/test.Test/Echo", b"", 5))).code == UNAVAILABLE
        world.release.set()
        assert await hanging == b"released"
        await stopping


async def test_a_server_that_is_back_is_used_again_and_one_that_is_gone_fails_at_once() -> None:
    world = World()
    server = Server("127.0.0.1:0", world.methods(), tls=None)
    await server.start()
    address = server.address
    async with connected(server) as channel:
        assert await channel.unary("/test.Test/Echo", b"1", 5) == b"1"
        hanging = asyncio.create_task(channel.unary("/test.Test/Hang", b"", 5))
        await until(lambda: world.running == 1)
        await server.stop(0)
        assert (await failure(hanging)).code in (UNAVAILABLE, CANCELLED)
        error = await failure(channel.unary("/test.Test/Echo", b"2", 5))
        assert (error.code, error.unprocessed) == (UNAVAILABLE, True)
        server = Server(address, world.methods(), tls=None)
        await server.start()
        await channel.ready()
        assert await channel.unary("/test.Test/Echo", b"3", 5) == b"3"
        await server.stop(0)


async def test_closing_a_channel_ends_its_calls() -> None:
    world = World()
    async with served(world) as server:
        channel = Channel(server.address)
        hanging = asyncio.create_task(channel.unary("/test.Test/Hang", b"", 5))
        replies = await channel.stream("/test.Test/Hang", b"")
        reading = asyncio.create_task(replies.read())
        await until(lambda: world.running == 2)
        await channel.close()
        assert (await failure(hanging)).code == CANCELLED
        assert (await failure(reading)).code == CANCELLED
        assert (await failure(channel.unary("/test.Test/Echo", b"", 5))).code == CANCELLED
        await until(lambda: world.running == 0)


async def test_a_silent_connection_is_given_up() -> None:
    """Bytes go out and none comes back: no reset, no end."""
    accepted: list[asyncio.StreamWriter] = []
    settings = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(settings)
        accepted.append(writer)

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    channel = Channel(f"127.0.0.1:{port}", keepalive=QUICK)
    error = await failure(channel.unary("/test.Test/Echo", b"", 5))
    assert error.code == UNAVAILABLE
    assert "no sign of life" in error.message
    await channel.close()
    for writer in accepted:
        writer.close()
    listener.close()


async def test_who_gives_up_waiting_for_room_leaves_it_to_the_next() -> None:
    world = World()
    async with served(world, limits=Limits(streams=1)) as server, connected(server) as channel:
        hanging = asyncio.create_task(channel.unary("/test.Test/Hang", b"", 10))
        await until(lambda: world.running == 1)
        first, second = (asyncio.create_task(channel.unary("/test.Test/Echo", one, 10)) for one in (b"1", b"2"))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.wait((first,))
        world.release.set()
        assert await hanging == b"released"
        assert await asyncio.wait_for(second, 3) == b"2"


async def test_a_channel_that_is_closed_while_it_connects_leaves_no_connection() -> None:
    """The other side accepts and says nothing."""
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1000):
                pass
        except ConnectionResetError:
            pass
        gone.set()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    channel = Channel(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    calling = asyncio.create_task(channel.unary("/test.Test/Echo", b"", 10))
    await asyncio.sleep(0.1)
    await channel.close()
    assert (await failure(calling)).code == CANCELLED
    await asyncio.wait_for(gone.wait(), 3)
    listener.close()


async def test_an_address_that_is_taken_is_an_error() -> None:
    async with served(World()) as server:
        second = Server(server.address, {}, tls=None)
        with pytest.raises(AddressError, match="cannot listen on"):
            await second.start()


# -- gRPC's own library on the other side -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes, bytes]:
    return localhost()


def localhost() -> tuple[bytes, bytes, bytes]:
    """(root, certificate, key) of a server called localhost, PEM."""
    authority = LiveAuthority("tls")
    signer = authority.issue("localhost", extension=x509.SubjectAlternativeName([x509.DNSName("localhost")]))
    return pem(authority.certificate), pem(signer.certificate), key_pem(signer)


@pytest.mark.parametrize("secure", [False, True])
async def test_grpcs_own_client_calls_our_server(pair: tuple[bytes, bytes, bytes], secure: bool) -> None:
    root, certificate, key = pair
    world = World()
    tls: ssl.SSLContext | None = server_context(certificate, key) if secure else None
    async with served(world, tls=tls) as server:
        port = server.address.rpartition(":")[2]
        options = [("grpc.max_receive_message_length", -1)]
        made = (
            grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(root), options)
            if secure
            else grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
        )
        async with made as channel:
            echo: Any = channel.unary_unary("/test.Test/Echo")
            for size in (0, 20_000, 6_000_000):
                message = os.urandom(size)
                assert await echo(message) == message
            sent = [b"%d" % number for number in range(200)]
            assert await asyncio.gather(*(echo(one) for one in sent)) == sent
            fail: Any = channel.unary_unary("/test.Test/Fail")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await fail("no: 100 % of α".encode())
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ABORTED, "no: 100 % of α")
            assert dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"] == b"\x08\x0a\x12\x03why"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/test.Test/Hang")(b"", timeout=0.1)  # type: ignore[call-arg]
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: world.running == 0)
            count: Any = channel.unary_stream("/test.Test/Count")
            assert [one async for one in count(b"300")] == [b"%d" % number for number in range(300)]
            chat: Any = channel.stream_stream("/test.Test/Chat")()
            for word in (b"hello", b"again"):
                await chat.write(word)
                assert await chat.read() == word.upper()
            await chat.done_writing()
            assert await chat.read() is grpc.aio.EOF  # type: ignore[attr-defined]


@pytest.mark.parametrize("secure", [False, True])
async def test_our_client_calls_grpcs_own_server(pair: tuple[bytes, bytes, bytes], secure: bool) -> None:
    root, certificate, key = pair
    cancelled = asyncio.Event()

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    async def fail(request: bytes, context: Any) -> bytes:
        trailing = (("grpc-status-details-bin", b"\x00\x01\xff"),)
        await context.abort(grpc.StatusCode.ABORTED, request.decode(), trailing_metadata=trailing)
        raise AssertionError

    async def hang(request: bytes, context: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number * 1_000

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_concurrent_streams", 20)])
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Hang": grpc.unary_unary_rpc_method_handler(hang),
        "Count": grpc.unary_stream_rpc_method_handler(count),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", handlers),))
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials) if secure else server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tls = client_context(root) if secure else None
    channel = Channel(f"127.0.0.1:{port}", tls=tls, server_name="localhost")
    try:
        for size in (0, 20_000, 6_000_000):
            message = os.urandom(size)
            assert await channel.unary("/test.Test/Echo", message, 10) == message
        sent = [b"%d" % number for number in range(200)]
        assert await asyncio.gather(*(channel.unary("/test.Test/Echo", one, 10) for one in sent)) == sent
        error = await failure(channel.unary("/test.Test/Fail", "no: 100 % of α".encode(), 5))
        assert (error.code, error.message, error.details) == (ABORTED, "no: 100 % of α", b"\x00\x01\xff")
        assert (await failure(channel.unary("/test.Test/Hang", b"", 0.2))).code == DEADLINE_EXCEEDED
        await asyncio.wait_for(cancelled.wait(), 5)
        replies: Replies = await channel.stream("/test.Test/Count", b"3000")
        for number in range(3000):
            assert await replies.read() == b"%d" % number * 1_000
        assert await replies.read() is None
        unknown = await failure(channel.unary("/test.Test/Nothing", b"", 5))
        assert unknown.status == "UNIMPLEMENTED"
    finally:
        await channel.close()
        await server.stop(0)


async def test_a_server_that_is_not_trusted_or_has_another_name_is_not_called(pair: tuple[bytes, bytes, bytes]) -> None:
    root, certificate, key = pair
    other, _, _ = localhost()
    async with served(World(), tls=server_context(certificate, key)) as server:
        for trusted, name in ((other, "localhost"), (root, "elsewhere")):
            channel = Channel(server.address, tls=client_context(trusted), server_name=name)
            error = await failure(channel.unary("/test.Test/Echo", b"", 5))
            assert (error.code, error.unprocessed) == (UNAVAILABLE, True)
            assert "is not trusted" in error.message
            await channel.close()


async def test_the_certificate_of_a_client_is_seen(pair: tuple[bytes, bytes, bytes]) -> None:
    root, certificate, key = pair
    seen: list[bytes | None] = []

    async def look(call: Call) -> None:
        seen.append(call.client_certificate)
        await call.write(b"")

    server = Server("127.0.0.1:0", {"/t/Look": look}, tls=server_context(certificate, key, root))
    await server.start()
    channel = Channel(server.address, tls=client_context(root, certificate, key), server_name="localhost")
    await channel.unary("/t/Look", b"", 5)
    await channel.close()
    without = Channel(server.address, tls=client_context(root), server_name="localhost")
    assert (await failure(without.unary("/t/Look", b"", 5))).code == UNAVAILABLE
    await without.close()
    await server.stop(0)
    assert seen == [ssl.PEM_cert_to_DER_cert(certificate.decode())]
