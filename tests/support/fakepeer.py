"""A peer as the chaincode sees it: drives the stream over real gRPC, dialling or being dialled.

It keeps the rules of fabric/core/chaincode/handler.go that a runtime can trip over: one outstanding request for each
channel and transaction (a second one is dropped without a reply), reads of committed state only, frames of 100 results.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import grpc.aio
from fabric_protos.common import common_pb2
from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim

Kind = shim.ChaincodeMessage
CHAINCODE_ID = "test_1.0:abc"
FRAME = 100
Store = dict[tuple[str, str], bytes]


class Cut(Exception):
    """The stream ends here, without a word."""


class Refused(Exception):
    """The peer answers this request with ERROR."""


@dataclass
class Outcome:
    """What the chaincode answered to one transaction."""

    message: shim.ChaincodeMessage
    writes: dict[tuple[str, str], bytes | None]

    @property
    def response(self) -> proposal_response_pb2.Response:
        assert self.message.type == Kind.COMPLETED, self.message.payload
        return proposal_response_pb2.Response.FromString(self.message.payload)

    @property
    def event(self) -> tuple[str, bytes] | None:
        if not self.message.HasField("chaincode_event"):
            return None
        return self.message.chaincode_event.event_name, self.message.chaincode_event.payload


@dataclass
class _Transaction:
    done: asyncio.Future[shim.ChaincodeMessage]
    writes: dict[tuple[str, str], bytes | None] = field(default_factory=dict)
    queries: dict[str, list[bytes]] = field(default_factory=dict)


def proposal(
    channel: str, txid: str, args: list[bytes], transient: Mapping[str, bytes], creator: bytes, seconds: int
) -> proposal_pb2.SignedProposal:
    header = common_pb2.Header()
    channel_header = common_pb2.ChannelHeader(type=3, channel_id=channel, tx_id=txid)
    channel_header.timestamp.seconds = seconds
    channel_header.timestamp.nanos = 123_456_789
    header.channel_header = channel_header.SerializeToString()
    header.signature_header = common_pb2.SignatureHeader(creator=creator, nonce=b"n" * 24).SerializeToString()
    payload = proposal_pb2.ChaincodeProposalPayload(TransientMap=transient)
    inner = proposal_pb2.Proposal(header=header.SerializeToString(), payload=payload.SerializeToString())
    return proposal_pb2.SignedProposal(proposal_bytes=inner.SerializeToString(), signature=b"s")


def _bytes_of(message: shim.ChaincodeMessage | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


class FakePeer:
    """One peer with a little ledger."""

    def __init__(
        self, *, batch: int = 1000, multiple: int = 1000, delay_s: float = 0.0, max_message_bytes: int = 100 << 20
    ) -> None:
        self._options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
        ]
        self.params = chaincode_pb2.ChaincodeAdditionalParams(
            use_write_batch=batch > 0,
            max_size_write_batch=batch,
            use_get_multiple_keys=multiple > 0,
            max_size_get_multiple_keys=multiple,
        )
        self.batch_limit = batch
        self.delay_s = delay_s
        self.state: Store = {}
        """(collection, key) -> value; collection "" is public state."""
        self.history: dict[str, list[kv_query_result_pb2.KeyModification]] = {}
        self.policies: Store = {}
        self.creator = b""
        self.registered = ""
        self.requests: Counter[str] = Counter()
        self.dropped: list[str] = []
        self.stray: list[shim.ChaincodeMessage] = []
        """Frames that answer nothing: a second COMPLETED, a request outside a transaction."""
        self.refuse: Callable[[str, str], str | None] = lambda kind, key: None
        self.hold: Callable[[str, str], Awaitable[None]] | None = None
        self.called: Callable[[str, list[bytes]], proposal_response_pb2.Response] | None = None
        self.ready = asyncio.Event()
        self.cut_at: int | None = None
        """The stream is cut in place of the message with this number, both directions counted; None for never."""
        self.messages = 0
        self._transactions: dict[tuple[str, str], _Transaction] = {}
        self._active: set[tuple[str, str]] = set()
        self._outgoing: asyncio.Queue[shim.ChaincodeMessage | bytes] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = 0
        self._ended = False

    # -- driving -----------------------------------------------------------------------------------------------------

    async def invoke(
        self,
        *args: str | bytes,
        transient: Mapping[str, bytes] | None = None,
        channel: str = "ch",
        txid: str | None = None,
        seconds: int = 1_700_000_000,
        timeout_s: float = 10.0,
        init: bool = False,
    ) -> Outcome:
        """Send one transaction and wait for its answer; its writes are committed if the status is below 400."""
        self._ids += 1
        txid = txid or hashlib.sha256(str(self._ids).encode()).hexdigest()
        raw = [a.encode() if isinstance(a, str) else a for a in args]
        key = (channel, txid)
        transaction = _Transaction(asyncio.get_running_loop().create_future())
        self._transactions[key] = transaction
        if self._ended:
            raise ConnectionError("there is no stream")
        self.send(
            Kind.INIT if init else Kind.TRANSACTION,
            chaincode_pb2.ChaincodeInput(args=raw).SerializeToString(),
            key,
            proposal(channel, txid, raw, transient or {}, self.creator, seconds),
        )
        try:
            async with asyncio.timeout(timeout_s):
                message = await transaction.done
        finally:
            if self._transactions.get(key) is transaction:
                del self._transactions[key]
        outcome = Outcome(message, transaction.writes)
        if message.type == Kind.COMPLETED and outcome.response.status < 400:
            for at, value in transaction.writes.items():
                if value:
                    self.state[at] = value
                else:
                    self.state.pop(at, None)
        return outcome

    def send(
        self,
        kind: Any,
        payload: bytes = b"",
        key: tuple[str, str] = ("", ""),
        signed: proposal_pb2.SignedProposal | None = None,
    ) -> None:
        self._outgoing.put_nowait(
            shim.ChaincodeMessage(type=kind, payload=payload, channel_id=key[0], txid=key[1], proposal=signed)
        )

    def send_raw(self, data: bytes) -> None:
        """Send bytes in place of a message."""
        self._outgoing.put_nowait(data)

    def expect(self, key: tuple[str, str]) -> asyncio.Future[shim.ChaincodeMessage]:
        """The COMPLETED or ERROR for a transaction whose frame the test sends itself."""
        self._transactions[key] = _Transaction(asyncio.get_running_loop().create_future())
        return self._transactions[key].done

    # -- the stream --------------------------------------------------------------------------------------------------

    async def serve(
        self,
        read: Callable[[], Awaitable[shim.ChaincodeMessage | None]],
        write: Callable[[shim.ChaincodeMessage | bytes], Awaitable[Any]],
    ) -> None:
        self._outgoing, self.messages, self._ended = asyncio.Queue(), 0, False
        self._active.clear()

        async def write_all() -> None:
            while True:
                message = await self._outgoing.get()
                self._count()
                await write(message)

        async def read_all() -> None:
            while (message := await read()) is not None:
                self._count()
                self._take(message)

        ends = {asyncio.create_task(write_all()), asyncio.create_task(read_all())}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.ready.clear()
            self._ended = True
            for transaction in self._transactions.values():
                if not transaction.done.done():
                    transaction.done.set_exception(ConnectionError("chaincode stream terminated"))
                    transaction.done.exception()  # nobody may be waiting
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    def _count(self) -> None:
        self.messages += 1
        if self.cut_at is not None and self.messages >= self.cut_at:
            raise Cut

    @asynccontextmanager
    async def dial(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[FakePeer]:
        """Connect to a chaincode service."""
        options = self._options
        channel = (
            grpc.aio.insecure_channel(address, options=options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=options)
        )
        async with channel:
            call: Any = channel.stream_stream(
                "/protos.Chaincode/Connect",
                request_serializer=_bytes_of,
                response_deserializer=shim.ChaincodeMessage.FromString,
            )()

            async def read() -> shim.ChaincodeMessage | None:
                message = await call.read()
                return message if isinstance(message, shim.ChaincodeMessage) else None

            async def serve() -> None:
                try:
                    await self.serve(read, call.write)
                except Cut:
                    call.cancel()

            served = asyncio.create_task(serve())
            waited = asyncio.create_task(self.ready.wait())
            try:
                async with asyncio.timeout(10):
                    await asyncio.wait({served, waited}, return_when=asyncio.FIRST_COMPLETED)
                if served.done():
                    served.result()
                self.stream_ended = served
                yield self
            finally:
                waited.cancel()
                call.cancel()
                served.cancel()
                await asyncio.gather(served, return_exceptions=True)

    @asynccontextmanager
    async def listen(
        self, credentials: grpc.ServerCredentials | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> AsyncIterator[str]:
        """Serve ChaincodeSupport.Register; gives the address."""

        async def register(requests: AsyncIterator[shim.ChaincodeMessage], context: Any) -> None:
            async def read() -> shim.ChaincodeMessage | None:
                return await anext(requests, None)

            try:
                await self.serve(read, context.write)
            except Cut:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

        server = grpc.aio.server(options=[*self._options, ("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(
            register,
            request_deserializer=shim.ChaincodeMessage.FromString,
            response_serializer=_bytes_of,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("protos.ChaincodeSupport", {"Register": handler}),)
        )
        port = (
            server.add_insecure_port(f"{host}:{port}")
            if credentials is None
            else server.add_secure_port(f"{host}:{port}", credentials)
        )
        await server.start()
        try:
            yield f"{host}:{port}"
        finally:
            await server.stop(0)

    # -- frames ------------------------------------------------------------------------------------------------------

    def _take(self, message: shim.ChaincodeMessage) -> None:
        kind = Kind.Type.Name(message.type)
        self.requests[kind] += 1
        key = (message.channel_id, message.txid)
        if message.type == Kind.REGISTER:
            self.registered = chaincode_pb2.ChaincodeID.FromString(message.payload).name
            self.send(Kind.REGISTERED)
            self.send(Kind.READY, self.params.SerializeToString())
            self.ready.set()
        elif message.type in (Kind.COMPLETED, Kind.ERROR):
            transaction = self._transactions.get(key)
            if transaction is None or transaction.done.done():
                self.stray.append(message)
            else:
                transaction.done.set_result(message)
        elif message.type == Kind.KEEPALIVE:
            pass
        elif key in self._active:
            self.dropped.append(kind)
        else:
            self._active.add(key)
            task = asyncio.create_task(self._handle(kind, message, key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _handle(self, kind: str, message: shim.ChaincodeMessage, key: tuple[str, str]) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.hold is not None:
            await self.hold(kind, key[1])
        try:
            transaction = self._transactions.get(key)
            if transaction is None:
                self.stray.append(message)
                raise Refused("no ledger context")
            payload = self._answer(kind, message.payload, transaction)
            answer = Kind.RESPONSE
        except Refused as error:
            payload = f"{kind} failed: transaction ID: {key[1]}: {error}".encode()
            answer = Kind.ERROR
        self._active.discard(key)
        self.send(answer, payload, key)

    def _answer(self, kind: str, payload: bytes, transaction: _Transaction) -> bytes:
        handler = getattr(self, f"_{kind.lower()}", None)
        if handler is None:
            raise Refused(f"unknown request {kind}")
        result: bytes = handler(payload, transaction)
        return result

    def _check(self, kind: str, key: str) -> None:
        reason = self.refuse(kind, key)
        if reason is not None:
            raise Refused(reason)

    def _get_state(self, payload: bytes, transaction: _Transaction) -> bytes:
        request = shim.GetState.FromString(payload)
        self._check("GET_STATE", request.key)
        return self.state.get((request.collection, request.key), b"")

    def _get_state_multiple(self, payload: bytes, transaction: _Transaction) -> bytes:
        request = shim.GetStateMultiple.FromString(payload)
        assert len(request.keys) <= self.params.max_size_get_multiple_keys
        values = [self.state.get((request.collection, key), b"") for key in request.keys]
        if self.refuse("GET_STATE_MULTIPLE", "") is not None:
            values = []
        return shim.GetStateMultipleResult(values=values).SerializeToString()

    def _get_private_data_hash(self, payload: bytes, transaction: _Transaction) -> bytes:
        request = shim.GetState.FromString(payload)
        value = self.state.get((request.collection, request.key))
        return hashlib.sha256(value).digest() if value else b""

    def _put_state(self, payload: bytes, transaction: _Transaction) -> bytes:
        request = shim.PutState.FromString(payload)
        self._check("PUT_STATE", request.key)
        transaction.writes[(request.collection, request.key)] = request.value
        return b""

    def _del_state(self, payload: bytes, transaction: _Transaction) -> bytes:
        request = shim.DelState.FromString(payload)
        transaction.writes[(request.collection, request.key)] = None
        return b""

    _purge_private_data = _del_state

    def _put_state_metadata(self, payload: bytes, transaction: _Transaction) -> bytes:
        request = shim.PutStateMetadata.FromString(payload)
        assert request.metadata.metakey == "VALIDATION_PARAMETER"
        self.policies[(request.collection, request.key)] = request.metadata.value
        return b""

    def _get_state_metadata(self, payload: bytes, transaction: _Transaction) -> bytes:
        request = shim.GetStateMetadata.FromString(payload)
        found = self.policies.get((request.collection, request.key))
        entries = [] if found is None else [shim.StateMetadata(metakey="VALIDATION_PARAMETER", value=found)]
        return shim.StateMetadataResult(entries=entries).SerializeToString()

    def _write_batch_state(self, payload: bytes, transaction: _Transaction) -> bytes:
        batch = shim.WriteBatchState.FromString(payload)
        assert 0 < len(batch.rec) <= self.batch_limit
        for record in batch.rec:
            self._check("PUT_STATE", record.key)
            at = (record.collection, record.key)
            if record.type == shim.WriteRecord.PUT_STATE:
                transaction.writes[at] = record.value
            elif record.type == shim.WriteRecord.PUT_STATE_METADATA:
                self.policies[at] = record.metadata.value
            else:
                transaction.writes[at] = None
        return b""

    def _get_state_by_range(self, payload: bytes, transaction: _Transaction) -> bytes:
        request = shim.GetStateByRange.FromString(payload)
        start = request.startKey
        paging = shim.QueryMetadata.FromString(request.metadata)
        if request.collection and transaction.writes:
            raise Refused("unsuppored transaction. Queries on pvt data is supported only in a read-only transaction")
        if paging.bookmark:
            start = paging.bookmark
        keys = sorted(
            key
            for collection, key in self.state
            if collection == request.collection and key >= start and (not request.endKey or key < request.endKey)
        )
        packed = [
            kv_query_result_pb2.KV(key=key, value=self.state[(request.collection, key)]).SerializeToString()
            for key in keys
        ]
        if paging.pageSize:
            bookmark = keys[paging.pageSize] if len(keys) > paging.pageSize else ""
            metadata = shim.QueryResponseMetadata(
                fetched_records_count=len(packed[: paging.pageSize]), bookmark=bookmark
            )
            return shim.QueryResponse(
                results=[shim.QueryResultBytes(resultBytes=raw) for raw in packed[: paging.pageSize]],
                metadata=metadata.SerializeToString(),
            ).SerializeToString()
        return self._open(packed, transaction)

    def _get_history_for_key(self, payload: bytes, transaction: _Transaction) -> bytes:
        request = shim.GetHistoryForKey.FromString(payload)
        return self._open([entry.SerializeToString() for entry in self.history.get(request.key, [])], transaction)

    def _get_query_result(self, payload: bytes, transaction: _Transaction) -> bytes:
        raise Refused("ExecuteQuery not supported for leveldb")

    def _open(self, packed: list[bytes], transaction: _Transaction) -> bytes:
        self._ids += 1
        name = f"query {self._ids}"
        transaction.queries[name] = packed
        return self._frame(name, transaction)

    def _frame(self, name: str, transaction: _Transaction) -> bytes:
        packed = transaction.queries.get(name)
        if packed is None:
            raise Refused("query iterator not found")
        first, rest = packed[:FRAME], packed[FRAME:]
        if rest:
            transaction.queries[name] = rest
        else:
            del transaction.queries[name]
        results = [shim.QueryResultBytes(resultBytes=raw) for raw in first]
        return shim.QueryResponse(results=results, has_more=bool(rest), id=name).SerializeToString()

    def _query_state_next(self, payload: bytes, transaction: _Transaction) -> bytes:
        return self._frame(shim.QueryStateNext.FromString(payload).id, transaction)

    def _query_state_close(self, payload: bytes, transaction: _Transaction) -> bytes:
        name = shim.QueryStateClose.FromString(payload).id
        transaction.queries.pop(name, None)
        return shim.QueryResponse(id=name).SerializeToString()

    def _invoke_chaincode(self, payload: bytes, transaction: _Transaction) -> bytes:
        spec = chaincode_pb2.ChaincodeSpec.FromString(payload)
        if self.called is None:
            raise Refused("execute failed: chaincode definition for that name does not exist")
        response = self.called(spec.chaincode_id.name, list(spec.input.args))
        inner = shim.ChaincodeMessage(type=Kind.COMPLETED, payload=response.SerializeToString())
        return inner.SerializeToString()


Connect: TypeAlias = Callable[..., AbstractAsyncContextManager[FakePeer]]
"""The fixture `connect`: `connect(chaincode, peer, **options)` gives a peer with the chaincode on its stream."""
