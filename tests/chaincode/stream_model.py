"""A chaincode on a stream whose other side is a string of bytes: what must hold whatever they say."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from fabric_protos.peer import chaincode_shim_pb2 as shim

from sovchain.chaincode import Chaincode, Context, Contract, StreamError, transaction
from sovchain.chaincode.handler import Handler, Limits
from sovchain.rpc import wire
from sovchain.rpc.errors import RpcError
from sovchain.rpc.http2 import Connection
from sovchain.rpc.stream import Stream

Kind = shim.ChaincodeMessage
SETTINGS = bytes(3) + bytes([wire.SETTINGS]) + bytes(5)


class Everything(Contract):
    """Makes every kind of request."""

    @transaction
    async def everything(self, ctx: Context) -> int:
        """Ask for all that a peer can answer, and take what it answers."""
        stub, seen = ctx.stub, 0
        await stub.get_state("k")
        await stub.get_multiple(["a", "b"])
        for items in (stub.range("a", "b"), stub.history("k"), stub.private_range("c", "a"), stub.rich_query("{}")):
            seen += len(await items.take(10))
        page = await stub.range_page("a", "b", page_size=5)
        await stub.get_private_data_hash("c", "k")
        await stub.get_validation_parameter("k")
        await stub.put_state("k", b"v")
        await stub.invoke_chaincode("other", [b"x"])
        return seen + len(page.items)


CHAINCODE = Chaincode([Everything()], "everything")
_loop = asyncio.new_event_loop()


def run_http2(data: bytes) -> None:
    """Bytes at a connection: nothing is raised, each stream ends once at most, and the end closes all."""
    if not data:
        return
    serves, polite = bool(data[0] & 1), bool(data[0] & 2)
    ends: Counter[int] = Counter()
    streams: list[Stream] = []

    def opened(stream: Stream) -> None:
        streams.append(stream)
        number = len(streams)

        def ended(error: RpcError | None) -> None:
            ends[number] += 1

        if serves:
            connection.accept(stream)
        stream.open(stream.send, ended)

    connection = Connection(serves=serves, on_stream=opened, on_output=lambda: None)
    if not serves:
        opened(connection.request("/x", "host", secure=True))
    if polite:
        connection.receive((wire.PREFACE if serves else b"") + SETTINGS)
    cut = 1 + data[0] // 4
    connection.receive(data[1:cut])
    connection.receive(data[cut:])
    for stream in streams:
        stream.send(b"hello")
        stream.finish()
    connection.output()
    connection.lost("over")
    assert connection.streams == 0
    assert all(ends[number + 1] == 1 for number in range(len(streams))), ends


class Scripted:
    """A stream on which the peer says what the script holds, one message for each that it could answer."""

    def __init__(self, script: bytes) -> None:
        self._script = script
        self.sent: list[shim.ChaincodeMessage] = []
        self.on_message: Callable[[bytes], None] = lambda message: None

    def open(self, on_message: Callable[[bytes], None], on_end: Callable[[RpcError | None], None]) -> None:
        self.on_message = on_message

    def send(self, message: bytes) -> None:
        said = shim.ChaincodeMessage.FromString(message)
        self.sent.append(said)
        if said.type not in (Kind.COMPLETED, Kind.ERROR, Kind.REGISTER, Kind.KEEPALIVE):
            asyncio.get_running_loop().call_soon(self._answer, said)

    def take(self, size: int) -> bytes:
        """The next bytes of the script."""
        taken, self._script = self._script[:size], self._script[size:]
        return taken

    def _answer(self, request: shim.ChaincodeMessage) -> None:
        head = self.take(2)
        if not head:
            self.on_message(_message(Kind.ERROR, b"over", request.txid))
            return
        payload = self.take(head[-1])
        if head[0] % 8 == 0:  # raw bytes in place of a message
            self.on_message(payload)
            self.on_message(_message(Kind.ERROR, b"after rubbish", request.txid))
        elif head[0] % 8 == 1:  # for another transaction, then the answer
            self.on_message(_message(Kind.RESPONSE, payload, "other"))
            self.on_message(_message(Kind.RESPONSE, payload, request.txid))
        elif head[0] % 8 == 2:
            self.on_message(_message(Kind.ERROR, payload, request.txid))
        else:
            self.on_message(_message(Kind.RESPONSE, payload, request.txid))


def _message(kind: int, payload: bytes, txid: str) -> bytes:
    return Kind(type=kind, payload=payload, txid=txid, channel_id="ch").SerializeToString()  # type: ignore[arg-type]


def run_messages(data: bytes) -> None:
    """Messages at a handler: every transaction that was taken is answered exactly once, or the stream has ended."""
    _loop.run_until_complete(asyncio.wait_for(_run(data), 20))


async def _run(data: bytes) -> None:
    stream = Scripted(data[1:])
    handler = Handler(CHAINCODE, "a:b", Limits(running=4, waiting=4, transaction_s=5))
    running = asyncio.create_task(handler.run(stream))
    await asyncio.sleep(0)
    ready = bytes.fromhex("080110e8071801 20e807") if data[:1] != b"\x00" else b""
    stream.on_message(Kind(type=Kind.REGISTERED).SerializeToString())
    stream.on_message(Kind(type=Kind.READY, payload=ready).SerializeToString())
    call = _payload()
    for number in range(3):
        kind = Kind.TRANSACTION if stream.take(1) != b"i" else Kind.INIT
        stream.on_message(_message(kind, call if number else stream.take(20), str(number)))
    await handler.drain(10)
    ended = running.done() or not handler.ready
    handler.end()
    outcome = await asyncio.gather(running, return_exceptions=True)
    assert outcome[0] is None or isinstance(outcome[0], StreamError), outcome
    answers = Counter(message.txid for message in stream.sent if message.type in (Kind.COMPLETED, Kind.ERROR))
    for number in range(3):
        assert answers[str(number)] == 1 or (ended and answers[str(number)] <= 1), (number, answers, ended)
    assert handler.lost == 0


def _payload() -> bytes:
    from fabric_protos.peer import chaincode_pb2

    return chaincode_pb2.ChaincodeInput(args=[b"Everything:everything"]).SerializeToString()
