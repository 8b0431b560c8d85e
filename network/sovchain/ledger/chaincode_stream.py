"""The peer's end of one peer-chaincode stream: handshake, execution of transactions, requests of the chaincode.

Mirrors core/chaincode/handler.go and core/chaincode/transaction_contexts.go. Which side dialled makes no difference
here: the chaincode speaks first with REGISTER either way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim
from google.protobuf.message import DecodeError

from sovchain.ledger.errors import LedgerError
from sovchain.ledger.transaction_context import MAX_KEYS_PER_REQUEST, TransactionContext
from sovchain.protocol.errors import ProtocolError
from sovchain.rpc.errors import RpcError

EXECUTE_TIMEOUT_S: Final = 30.0
"""How long a chaincode may take for one transaction; chaincode.executetimeout of core.yaml."""

ERROR_EXECUTION_TIMEOUT: Final = "timeout expired while executing transaction"
ERROR_STREAM_TERMINATED: Final = "chaincode stream terminated"

_Message = shim.ChaincodeMessage
_REQUESTS: Final = frozenset(
    {
        _Message.GET_STATE,
        _Message.PUT_STATE,
        _Message.DEL_STATE,
        _Message.INVOKE_CHAINCODE,
        _Message.GET_STATE_BY_RANGE,
        _Message.GET_QUERY_RESULT,
        _Message.QUERY_STATE_NEXT,
        _Message.QUERY_STATE_CLOSE,
        _Message.GET_HISTORY_FOR_KEY,
        _Message.GET_STATE_METADATA,
        _Message.PUT_STATE_METADATA,
        _Message.GET_PRIVATE_DATA_HASH,
        _Message.PURGE_PRIVATE_DATA,
        _Message.WRITE_BATCH_STATE,
        _Message.GET_STATE_MULTIPLE,
    }
)
_TYPE_NAMES: Final = {number: name for name, number in _Message.Type.items()}

_log = structlog.get_logger("sovchain.ledger.chaincode")


class ExecutionError(LedgerError):
    """A chaincode did not answer a transaction; Fabric's text tells a timeout, the stream's end or a shim error."""


class StreamRefusedError(LedgerError):
    """A chaincode's registration was refused, or it broke the protocol of the stream."""


class Transport(Protocol):
    """A gRPC stream that a chaincode opened, over raw bytes."""

    async def read(self) -> bytes | None:
        """Return the next frame, None at the end."""
        ...

    async def write(self, message: bytes, /) -> None:
        """Send one frame."""
        ...


class MessageStream(Protocol):
    """A gRPC stream that this side opened (`sovchain.rpc.stream.Stream`)."""

    def open(self, on_message: Callable[[bytes], None], on_end: Callable[[Exception | None], None]) -> None:
        """Say who takes the messages and the end."""
        ...

    def send(self, message: bytes) -> None:
        """Send one message, now or as soon as the other side takes it."""
        ...


@dataclass(frozen=True)
class Invocation:
    """One call of a chaincode.

    Attributes:
        channel_id, transaction_id: key of the transaction on the stream.
        arguments: serialised ChaincodeInput.
        signed_proposal: what the client signed; the chaincode takes creator, transient data and time from it.
        is_init: send INIT instead of TRANSACTION.
    """

    channel_id: str
    transaction_id: str
    arguments: bytes
    signed_proposal: proposal_pb2.SignedProposal
    is_init: bool = False


@dataclass(frozen=True)
class Completion:
    """What a chaincode returned for a transaction."""

    response: proposal_response_pb2.Response
    event: chaincode_event_pb2.ChaincodeEvent | None


class ChaincodeInvoker(Protocol):
    """Runs a chaincode that another chaincode calls."""

    async def invoke(self, context: TransactionContext, specification: chaincode_pb2.ChaincodeSpec) -> bytes:
        """Return the callee's frame, serialised. Raises LedgerError with Fabric's text."""
        ...


class ChaincodeStream:
    """One open stream to one instance of a chaincode. `run` serves it until it ends; `execute` runs transactions."""

    def __init__(self, register: Callable[[str], str | None], execute_timeout_s: float = EXECUTE_TIMEOUT_S) -> None:
        """Make a stream.

        Args:
            register: called with the name (package id) that the chaincode registers; returns the refusal or None.
            execute_timeout_s: limit of one `execute`.
        """
        self.name = ""
        self._register = register
        self._execute_timeout_s = execute_timeout_s
        self._ready = asyncio.Event()
        self._ended = False
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._put: Callable[[bytes], None] = self._outgoing.put_nowait
        self._contexts: dict[tuple[str, str], tuple[TransactionContext, asyncio.Future[shim.ChaincodeMessage]]] = {}
        self._invokers: dict[tuple[str, str], ChaincodeInvoker] = {}
        self._calls: dict[tuple[str, str], asyncio.Task[None]] = {}

    @property
    def is_ready(self) -> bool:
        """Whether the handshake is done and the stream is open."""
        return self._ready.is_set() and not self._ended

    async def wait_ready(self) -> None:
        """Wait for the handshake. Raises ExecutionError if the stream ends first."""
        await self._ready.wait()
        if self._ended:
            raise ExecutionError(ERROR_STREAM_TERMINATED)

    async def run(self, transport: Transport) -> None:
        """Serve the stream until either side ends it; transactions that still run then fail.

        Raises StreamRefusedError when the chaincode breaks the protocol, and what the transport raises.
        """
        writer = asyncio.create_task(self._write(transport))
        try:
            while isinstance(frame := await transport.read(), bytes):
                self._receive(frame)
                if writer.done():
                    break
        finally:
            if self._outgoing.qsize() and not writer.done():
                # A refusal is queued right before the stream ends: let the chaincode read it.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._outgoing.join()
            self._end()
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, RpcError):
                await writer

    async def run_on(self, stream: MessageStream) -> None:
        """Serve a stream that this side opened until either side ends it; transactions that still run then fail.

        Raises StreamRefusedError when the chaincode breaks the protocol, and what the stream ended with.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_message(frame: bytes) -> None:
            if ended.done():
                return
            try:
                self._receive(frame)
            except StreamRefusedError as error:
                ended.set_exception(error)

        def on_end(error: Exception | None) -> None:
            if not ended.done():
                if error is None:
                    ended.set_result(None)
                else:
                    ended.set_exception(error)

        self._put = stream.send
        stream.open(on_message, on_end)
        try:
            await ended
        finally:
            self._end()

    async def execute(
        self, call: Invocation, context: TransactionContext, invoker: ChaincodeInvoker
    ) -> shim.ChaincodeMessage:
        """Run one transaction on the chaincode and return its COMPLETED or ERROR frame (see `completion`).

        Raises:
            ExecutionError: `txid: <id>(<channel>) exists`, a timeout, or the end of the stream.
        """
        if not self.is_ready:
            raise ExecutionError(ERROR_STREAM_TERMINATED)
        key = (call.channel_id, call.transaction_id)
        if key in self._contexts:
            raise ExecutionError(f"txid: {call.transaction_id}({call.channel_id}) exists")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[shim.ChaincodeMessage] = loop.create_future()
        self._contexts[key] = (context, answer)
        self._invokers[key] = invoker
        timer = loop.call_later(self._execute_timeout_s, _expire, answer)
        try:
            self._send(
                _Message(
                    type=_Message.INIT if call.is_init else _Message.TRANSACTION,
                    payload=call.arguments,
                    txid=call.transaction_id,
                    channel_id=call.channel_id,
                    proposal=call.signed_proposal,
                )
            )
            return await answer
        finally:
            timer.cancel()
            nested = self._calls.get(key)
            if nested is not None:
                nested.cancel()
            del self._contexts[key]
            del self._invokers[key]
            context.close()

    # Receiving ----------------------------------------------------------------------------------------------------

    def _receive(self, frame: bytes) -> None:
        try:
            message = _Message.FromString(frame)
        except DecodeError:
            raise StreamRefusedError("received a frame that is no chaincode message, ending chaincode stream") from None
        kind = message.type
        if kind == _Message.KEEPALIVE:
            return
        if not self._ready.is_set():
            self._handshake(message)
        elif kind in (_Message.COMPLETED, _Message.ERROR):
            self._notify(message)
        elif kind in _REQUESTS:
            self._request(message)
        else:
            name = _TYPE_NAMES.get(kind, str(kind))
            raise StreamRefusedError(f"[{message.txid[:8]}] peer cannot handle message ({name}) while in ready state")

    def _handshake(self, message: shim.ChaincodeMessage) -> None:
        if message.type != _Message.REGISTER:
            name = _TYPE_NAMES.get(message.type, str(message.type))
            raise StreamRefusedError(f"[{message.txid[:8]}] peer cannot handle message ({name}) while in created state")
        try:
            name = chaincode_pb2.ChaincodeID.FromString(message.payload).name
        except DecodeError:
            raise StreamRefusedError("the registration of a chaincode cannot be decoded") from None
        refusal = self._register(name) if name else "error in handling register chaincode, chaincodeID name is empty"
        if refusal is not None:
            raise StreamRefusedError(refusal)
        self.name = name
        self._send(_Message(type=_Message.REGISTERED))
        parameters = chaincode_pb2.ChaincodeAdditionalParams(
            use_write_batch=True,
            max_size_write_batch=MAX_KEYS_PER_REQUEST,
            use_get_multiple_keys=True,
            max_size_get_multiple_keys=MAX_KEYS_PER_REQUEST,
        )
        self._send(_Message(type=_Message.READY, payload=parameters.SerializeToString()))
        self._ready.set()

    def _notify(self, message: shim.ChaincodeMessage) -> None:
        entry = self._contexts.get((message.channel_id, message.txid))
        if entry is None or entry[1].done():
            # The transaction was given up before (timeout, client gone): its late answer has no reader.
            _log.debug("late answer of chaincode", chaincode=self.name, transaction_id=message.txid)
            return
        entry[1].set_result(message)

    def _request(self, message: shim.ChaincodeMessage) -> None:
        key = (message.channel_id, message.txid)
        if key in self._calls:
            # As in handler.go registerTxid: one request at a time for each transaction, another gets no answer.
            _log.warning("chaincode sent a second request, dropped", chaincode=self.name, transaction_id=message.txid)
            return
        entry = self._contexts.get(key)
        if entry is not None and entry[1].done():
            entry = None  # the transaction has ended: nothing that comes now may become part of it
        if message.type == _Message.INVOKE_CHAINCODE:
            if entry is None:
                self._refuse(message, "could not get valid transaction")
                return
            work = self._invoke(message, entry[0], self._invokers[key])
            self._calls[key] = asyncio.create_task(work)
            return
        if entry is None:
            self._refuse(message, "no ledger context")
            return
        try:
            payload = entry[0].handle(message.type, message.payload)
        except DecodeError:
            self._refuse(message, "unmarshal failed")
        except (LedgerError, ProtocolError) as error:
            self._refuse(message, str(error))
        except Exception as error:
            # One request must not end the stream, which other transactions use too.
            _log.exception(
                "request of chaincode failed",
                chaincode=self.name,
                transaction_id=message.txid,
                error=type(error).__name__,
            )
            self._refuse(message, "internal error of the ledger")
        else:
            self._respond(message, payload)

    async def _invoke(
        self, message: shim.ChaincodeMessage, context: TransactionContext, invoker: ChaincodeInvoker
    ) -> None:
        key = (message.channel_id, message.txid)
        payload: bytes | None = None
        refusal = ""
        try:
            specification = chaincode_pb2.ChaincodeSpec.FromString(message.payload)
            payload = await invoker.invoke(context, specification)
        except DecodeError:
            refusal = "unmarshal failed"
        except (LedgerError, ProtocolError) as error:
            refusal = str(error)
        except Exception as error:
            _log.exception(
                "call of chaincode failed", chaincode=self.name, transaction_id=message.txid, error=type(error).__name__
            )
            refusal = "internal error of the ledger"
        finally:
            del self._calls[key]
        if payload is None:
            self._refuse(message, refusal)
        else:
            self._respond(message, payload)

    def _respond(self, request: shim.ChaincodeMessage, payload: bytes) -> None:
        self._send(_Message(type=_Message.RESPONSE, payload=payload, txid=request.txid, channel_id=request.channel_id))

    def _refuse(self, request: shim.ChaincodeMessage, cause: str) -> None:
        name = _TYPE_NAMES.get(request.type, str(request.type))
        text = f"{name} failed: transaction ID: {request.txid}: {cause}"
        self._send(
            _Message(type=_Message.ERROR, payload=text.encode(), txid=request.txid, channel_id=request.channel_id)
        )

    # Sending and ending -------------------------------------------------------------------------------------------

    def _send(self, message: shim.ChaincodeMessage) -> None:
        if not self._ended:
            self._put(message.SerializeToString())

    async def _write(self, transport: Transport) -> None:
        # One task writes: gRPC allows one write at a time, and a write must not be cancelled with the transaction
        # that caused it, since that would cancel the whole stream.
        while True:
            frame = await self._outgoing.get()
            try:
                await transport.write(frame)
            except asyncio.InvalidStateError:
                return  # gRPC says so of a call that has ended; what is read from it tells why
            finally:
                self._outgoing.task_done()

    def _end(self) -> None:
        self._ended = True
        self._ready.set()
        for task in tuple(self._calls.values()):
            task.cancel()
        for _, answer in self._contexts.values():
            if not answer.done():
                answer.set_exception(ExecutionError(ERROR_STREAM_TERMINATED))


def _expire(answer: asyncio.Future[shim.ChaincodeMessage]) -> None:
    if not answer.done():
        answer.set_exception(ExecutionError(ERROR_EXECUTION_TIMEOUT))


def completion(message: shim.ChaincodeMessage, transaction_id: str) -> Completion:
    """Read the frame that ended a transaction.

    Mirrors core/chaincode/chaincode_support.go processChaincodeExecutionResult. Raises ExecutionError for an ERROR
    frame (`transaction returned with failure: <text>`) and for a response that cannot be decoded.
    """
    if message.type == _Message.ERROR:
        text = message.payload.decode("utf-8", "replace")
        raise ExecutionError(f"transaction returned with failure: {text}")
    try:
        response = proposal_response_pb2.Response.FromString(message.payload)
    except DecodeError:
        raise ExecutionError(f"failed to unmarshal response for transaction {transaction_id}") from None
    event = message.chaincode_event if message.HasField("chaincode_event") else None
    return Completion(response, event)
