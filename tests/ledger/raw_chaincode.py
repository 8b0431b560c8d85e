"""A chaincode server whose every frame a test decides: what a broken, slow or hostile chaincode sends a peer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim

Kind = shim.ChaincodeMessage
OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 100 << 20),
    ("grpc.max_send_message_length", 100 << 20),
]


class Refused(Exception):
    """The peer answered a request with ERROR; the text is the peer's."""


@dataclass
class Answer:
    """What a function returns: the parts of COMPLETED."""

    payload: bytes = b""
    status: int = 200
    message: str = ""
    event: tuple[str, bytes] | None = None


@dataclass
class Stub:
    """One transaction at the chaincode's side."""

    stream: Stream
    channel_id: str
    txid: str
    args: list[bytes]
    transient: dict[str, bytes]
    proposal: proposal_pb2.SignedProposal
    responses: asyncio.Queue[shim.ChaincodeMessage] = field(default_factory=asyncio.Queue)

    def send(self, kind: Any, payload: bytes = b"", txid: str | None = None) -> None:
        """Send a frame without waiting for its answer."""
        self.stream.send(Kind(type=kind, payload=payload, txid=txid or self.txid, channel_id=self.channel_id))

    async def ask(self, kind: Any, payload: bytes = b"") -> bytes:
        """Send a request and wait for its answer. Raises Refused."""
        self.send(kind, payload)
        message = await self.responses.get()
        if message.type == Kind.ERROR:
            raise Refused(message.payload.decode())
        return message.payload

    async def get(self, key: str, collection: str = "") -> bytes:
        request = shim.GetState(key=key, collection=collection)
        return await self.ask(Kind.GET_STATE, request.SerializeToString())

    async def put(self, key: str, value: bytes, collection: str = "") -> None:
        request = shim.PutState(key=key, value=value, collection=collection)
        await self.ask(Kind.PUT_STATE, request.SerializeToString())

    def complete(self, answer: Answer) -> None:
        response = proposal_response_pb2.Response(status=answer.status, message=answer.message, payload=answer.payload)
        message = Kind(
            type=Kind.COMPLETED,
            payload=response.SerializeToString(),
            txid=self.txid,
            channel_id=self.channel_id,
        )
        if answer.event is not None:
            event = chaincode_event_pb2.ChaincodeEvent(event_name=answer.event[0], payload=answer.event[1])
            message.chaincode_event.CopyFrom(event)
        self.stream.send(message)


Function = Callable[[Stub], Awaitable[Answer | None]]


class Stream:
    """One stream that a peer opened. `drop` ends it as a dying process does."""

    def __init__(self, package_id: str, functions: dict[str, Function]) -> None:
        self._package_id = package_id
        self._functions = functions
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._stubs: dict[tuple[str, str], Stub] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.errors: list[BaseException] = []

    def send(self, message: shim.ChaincodeMessage) -> None:
        self._outgoing.put_nowait(message.SerializeToString())

    def send_bytes(self, frame: bytes) -> None:
        self._outgoing.put_nowait(frame)

    def drop(self) -> None:
        self._outgoing.put_nowait(None)

    async def serve(self, requests: AsyncIterator[bytes], write: Callable[[bytes], Awaitable[Any]]) -> None:
        identifier = chaincode_pb2.ChaincodeID(name=self._package_id)
        self.send(Kind(type=Kind.REGISTER, payload=identifier.SerializeToString()))
        reader = asyncio.create_task(self._read(requests))
        try:
            while (frame := await self._outgoing.get()) is not None:
                await write(frame)
        finally:
            reader.cancel()
            for task in self._tasks:
                task.cancel()

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        async for frame in requests:
            message = Kind.FromString(frame)
            key = (message.channel_id, message.txid)
            if message.type in (Kind.TRANSACTION, Kind.INIT):  # a stub stays until its function has an answer
                task = asyncio.create_task(self._run(key, message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif message.type in (Kind.RESPONSE, Kind.ERROR) and key in self._stubs:
                self._stubs[key].responses.put_nowait(message)
        self.drop()

    async def _run(self, key: tuple[str, str], message: shim.ChaincodeMessage) -> None:
        proposal = proposal_pb2.Proposal.FromString(message.proposal.proposal_bytes)
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
        args = list(chaincode_pb2.ChaincodeInput.FromString(message.payload).args) or [b""]
        stub = Stub(self, *key, args[1:], dict(payload.TransientMap), message.proposal)
        self._stubs[key] = stub
        try:
            function = self._functions.get(args[0].decode())
            answer = Answer(status=500, message="no such function") if function is None else await function(stub)
        except Refused as error:
            answer = Answer(status=500, message=str(error))
        if answer is not None:
            del self._stubs[key]
            stub.complete(answer)


class RawChaincode:
    """A chaincode as a service; `functions` run by the name in the first argument, None answers nothing."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.package_id = ""
        self.streams: list[Stream] = []
        self.address = ""
        self._server: grpc.aio.Server | None = None

    async def start(self, credentials: grpc.ServerCredentials) -> str:
        """Listen with TLS; return the address."""
        return await self._start(credentials)

    async def start_plain(self) -> str:
        """Listen without TLS; return the address."""
        return await self._start(None)

    async def _start(self, credentials: grpc.ServerCredentials | None) -> str:
        async def connect(requests: AsyncIterator[bytes], context: Any) -> None:
            stream = Stream(self.package_id, self.functions)
            self.streams.append(stream)
            await stream.serve(requests, context.write)

        server = grpc.aio.server(options=OPTIONS)
        handler = grpc.method_handlers_generic_handler(
            "protos.Chaincode", {"Connect": grpc.stream_stream_rpc_method_handler(connect)}
        )
        server.add_generic_rpc_handlers((handler,))
        port = (
            server.add_secure_port("localhost:0", credentials)
            if credentials is not None
            else server.add_insecure_port("localhost:0")
        )
        self.address = f"localhost:{port}"
        await server.start()
        self._server = server
        return self.address

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)


async def _put(stub: Stub) -> Answer:
    key, value = stub.args
    await stub.put(key.decode(), value)
    return Answer(value, event=("Put", key))


async def _get(stub: Stub) -> Answer:
    return Answer(await stub.get(stub.args[0].decode()))


async def _fail(stub: Stub) -> Answer:
    return Answer(status=int(stub.args[0]), message=stub.args[1].decode(), payload=b"left")


async def _hide(stub: Stub) -> Answer:
    collection, key = stub.args
    await stub.put(key.decode(), stub.transient["value"], collection.decode())
    return Answer()


async def _reveal(stub: Stub) -> Answer:
    collection, key = stub.args
    return Answer(await stub.get(key.decode(), collection.decode()))


def ordinary() -> dict[str, Function]:
    """put KEY VALUE (with event "Put"), get KEY, fail STATUS TEXT, hide COLLECTION KEY, reveal COLLECTION KEY."""
    return {"put": _put, "get": _get, "fail": _fail, "hide": _hide, "reveal": _reveal}
