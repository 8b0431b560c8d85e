"""The chaincode's side of one stream to one peer.

Either side may have opened the stream; the frames are the same. The chaincode speaks first (REGISTER), the peer answers
REGISTERED and READY, and from then on sends transactions, which run side by side: each is a task with an `Exchange`
of its own, found again by channel and transaction id. Every transaction that was taken is answered with exactly one
COMPLETED or ERROR, whatever the contract does, unless the stream is gone. A contract that does not end in time is answered
for and told to end; if it does not even that, it holds up nobody.

Mirrors fabric-chaincode-go/shim/handler.go; the peer's side is fabric/core/chaincode/handler.go.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fabric_protos.peer import chaincode_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim
from google.protobuf.message import DecodeError

from sovchain.chaincode.errors import E_BUSY, LedgerError, StreamError
from sovchain.chaincode.exchange import MAX_PAYLOAD_BYTES, Exchange
from sovchain.chaincode.peerstub import Offers, PeerStub, StubOptions
from sovchain.chaincode.stub import Response
from sovchain.rpc.errors import RpcError
from sovchain.rpc.log import Log, frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from sovchain.chaincode.chaincode import Chaincode

Kind = shim.ChaincodeMessage
E_TIMEOUT = "E_TIMEOUT"
"""The contract did not end in time; the peer has given up on it before, unless its own limit is longer."""
STATUS_BUSY = 503
MAX_LATE = 1000
"""Most answers that are still to come for transactions that were given up, for a peer that repeats one."""

log = Log("sovchain.chaincode.handler")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one stream may have in hand.

    Attributes:
        running: most transactions that run at the same time.
        waiting: most transactions that wait for their turn; further ones are refused with `E_BUSY`.
        transaction_s: longest time a contract may take, in seconds. Peers wait 30 s unless configured otherwise.
    """

    running: int = 256
    waiting: int = 4096
    transaction_s: float = 120.0


class PeerStream(Protocol):
    """A stream of marshalled messages to and from a peer; `http2.Stream` is one."""

    def open(self, on_message: Callable[[bytes], None], on_end: Callable[[RpcError | None], None]) -> None:
        """Say who takes the messages and the end."""

    def send(self, message: bytes) -> None:
        """Send a message; nothing happens on a stream that has ended."""


Key = tuple[str, str]


class Handler:
    """Serves one peer until the stream ends. May be used once.

    Args:
        chaincode: what answers the calls.
        chaincode_id: the name to register under: the package id `label:hash`.
        limits: what the stream may have in hand.
        options: how stubs behave.
    """

    def __init__(
        self,
        chaincode: Chaincode,
        chaincode_id: str,
        limits: Limits | None = None,
        options: StubOptions | None = None,
    ) -> None:
        self._chaincode = chaincode
        self._chaincode_id = chaincode_id
        self._limits = limits or Limits()
        self._options = options or StubOptions()
        self._offers = Offers()
        self._state = "created"
        self._stream: PeerStream | None = None
        self._failure: StreamError | None = None
        self._loop = asyncio.get_running_loop()
        self._exchanges: dict[Key, Exchange] = {}  # in the order of their deadlines
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._waiting: dict[Key, shim.ChaincodeMessage] = {}
        self._lost: set[asyncio.Task[None]] = set()
        self._late: dict[Key, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._ended = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether the peer has said READY and the stream stands."""
        return self._state == "ready" and not self._ended.is_set()

    @property
    def was_ready(self) -> bool:
        """Whether the peer has said READY, even if the stream has ended since."""
        return self._state == "ready"

    @property
    def in_hand(self) -> int:
        """Transactions that run or wait."""
        return len(self._tasks) + len(self._waiting)

    @property
    def lost(self) -> int:
        """Contracts that were told to end, because their time was over, and have not."""
        return len(self._lost)

    async def run(self, stream: PeerStream) -> None:
        """Register, then serve until the peer ends the stream or `end` is called.

        Raises:
            StreamError: the peer broke the protocol or the stream broke.
        """
        self._stream = stream
        name = chaincode_pb2.ChaincodeID(name=self._chaincode_id)
        self._send(shim.ChaincodeMessage(type=Kind.REGISTER, payload=name.SerializeToString()))
        stream.open(self._receive, self._stream_ended)
        try:
            await self._ended.wait()
        finally:
            await self._abandon("the stream to the peer has ended")
        if self._failure is not None:
            raise self._failure

    async def drain(self, grace_s: float) -> bool:
        """Refuse new transactions and wait until those in hand are answered.

        Returns:
            whether all were answered within `grace_s` seconds.
        """
        self._draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def end(self) -> None:
        """Let `run` return. Transactions still in hand are cancelled."""
        self._ended.set()

    # -- the stream --------------------------------------------------------------------------------------------------

    def _send(self, message: shim.ChaincodeMessage) -> None:
        if self._stream is not None:
            self._stream.send(message.SerializeToString())

    def _stream_ended(self, error: RpcError | None) -> None:
        self._over(None if error is None else StreamError(str(error)))

    def _over(self, error: StreamError | None) -> None:
        if not self._ended.is_set():
            self._failure = error
            self._ended.set()

    def _receive(self, data: bytes) -> None:
        if self._ended.is_set():
            return
        try:
            message = shim.ChaincodeMessage.FromString(data)
        except DecodeError:
            self._over(StreamError("the peer sent bytes that are no ChaincodeMessage"))
            return
        try:
            self._take(message)
        except StreamError as error:
            if message.type != Kind.ERROR:
                self._send(_error(message, str(error)))
            self._over(error)

    def _take(self, message: shim.ChaincodeMessage) -> None:
        kind = message.type
        if self._state == "ready" and kind in (Kind.RESPONSE, Kind.ERROR):
            self._answer(message)
        elif self._state == "ready" and kind in (Kind.TRANSACTION, Kind.INIT):
            self._admit(message)
        elif kind == Kind.KEEPALIVE:
            self._send(message)
        elif self._state == "created" and kind == Kind.REGISTERED:
            self._state = "established"
        elif self._state == "established" and kind == Kind.READY:
            self._offers = Offers.parse(message.payload)
            self._state = "ready"
            log.info("peer is ready", chaincode_id=self._chaincode_id, batch=self._offers.write_batch)
        elif kind == Kind.ERROR:
            raise StreamError(f"the peer refused the chaincode: {message.payload.decode('utf-8', 'replace')[:1000]}")
        else:
            raise StreamError(f"cannot handle message type {kind} while in state {self._state}")

    def _answer(self, message: shim.ChaincodeMessage) -> None:
        key = (message.channel_id, message.txid)
        exchange = self._exchanges.get(key)
        if exchange is not None:
            exchange.answer(message)
            return
        self._late.pop(key, None)
        if log.debugs:
            # The peer may answer after the transaction has ended here, for instance after a timeout.
            log.debug("late answer ignored", channel=message.channel_id, transaction_id=message.txid)

    # -- transactions ------------------------------------------------------------------------------------------------

    def _admit(self, message: shim.ChaincodeMessage) -> None:
        key = (message.channel_id, message.txid)
        if self._draining:
            self._refuse(message, "the chaincode is being stopped: send the call again to another peer or later")
        elif key in self._exchanges:
            # A peer repeats a key only after it has given up on the first run, so an answer to that would now be
            # taken for the answer to this one.
            self._give_up(key)
            self._start(message)
        elif len(self._lost) >= self._limits.running:
            self._refuse(message, f"{len(self._lost)} contracts hang: restart the chaincode")
        elif len(self._tasks) < self._limits.running:
            self._start(message)
        elif len(self._waiting) < self._limits.waiting:
            self._waiting[key] = message
        else:
            self._refuse(message, f"{self.in_hand} transactions are in hand already: send the call again later")

    def _refuse(self, message: shim.ChaincodeMessage, text: str) -> None:
        self._send(_completed(message, Response(STATUS_BUSY, f"{E_BUSY}: {text}")))

    def _start(self, message: shim.ChaincodeMessage) -> None:
        key = (message.channel_id, message.txid)
        deadline = self._loop.time() + self._limits.transaction_s
        awaited = bool(self._late) and self._late.pop(key, self) is None
        exchange = Exchange(*key, self._send, deadline=deadline, awaited=awaited)
        self._exchanges[key] = exchange
        self._idle.clear()
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._expire)
        task = self._loop.create_task(self._serve(message, exchange), name=f"transaction {message.txid[:8]}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._finished(key, done))

    async def _serve(self, message: shim.ChaincodeMessage, exchange: Exchange) -> None:
        """Run one transaction and answer it once."""
        try:
            answer = await self._call(message, exchange)
        except (LedgerError, StreamError) as error:
            answer = _error(message, str(error))
        except Exception as error:  # the peer must get its answer
            log.error(
                "transaction failed", channel=message.channel_id, trace=frames(error), transaction_id=message.txid
            )
            answer = _error(message, "the chaincode runtime failed: its log says where")
        except asyncio.CancelledError:
            if not exchange.given_up:
                self._send(_error(message, "the chaincode is being stopped and ended the transaction"))
            raise
        if not exchange.given_up:
            exchange.close("the transaction is over: all requests of a contract must be awaited before it returns")
            self._send(answer)

    async def _call(self, message: shim.ChaincodeMessage, exchange: Exchange) -> shim.ChaincodeMessage:
        stub = PeerStub(message, exchange, self._offers, self._options)
        if stub.is_init and not stub.args:
            return _completed(message, Response(200))
        response = await self._chaincode.invoke(stub)
        answer = _completed(message, response)
        if response.status < 400:
            await stub.flush()
            if stub.event is not None:
                answer.chaincode_event.CopyFrom(stub.event)
        if len(answer.payload) > MAX_PAYLOAD_BYTES - len(answer.chaincode_event.payload):
            raise StreamError(f"the answer has {answer.ByteSize()} bytes, the stream takes {MAX_PAYLOAD_BYTES}")
        return answer

    def _expire(self) -> None:
        """Answer the transactions whose time is over, whatever their contracts do."""
        self._timer, now = None, self._loop.time()
        for key, exchange in list(self._exchanges.items()):
            if exchange.deadline > now:
                self._timer = self._loop.call_at(exchange.deadline, self._expire)
                break
            log.error("transaction timed out", channel=key[0], transaction_id=key[1])
            text = f"{E_TIMEOUT}: the contract did not end within {self._limits.transaction_s:g} seconds"
            self._give_up(key)
            self._send(_completed(shim.ChaincodeMessage(channel_id=key[0], txid=key[1]), Response(500, text)))
        self._start_waiting()

    def _give_up(self, key: Key) -> None:
        """Tell a run to end and wait for it no more; what it still sends or returns is dropped."""
        exchange, task = self._exchanges.pop(key), self._tasks.pop(key)
        exchange.given_up = True
        if exchange.outstanding:
            # The answer to its last request may come after the peer has sent the same transaction again.
            self._late[key] = None
            if len(self._late) > MAX_LATE:
                del self._late[next(iter(self._late))]
        exchange.close("the transaction is over: the peer has given up on it")
        self._lost.add(task)
        task.cancel()

    def _finished(self, key: Key, task: asyncio.Task[None]) -> None:
        self._lost.discard(task)
        if self._tasks.get(key) is task:
            del self._tasks[key]
            self._exchanges.pop(key).close("the transaction is over")
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("transaction task failed", channel=key[0], transaction_id=key[1], trace=frames(error))
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._tasks) < self._limits.running:
            self._start(self._waiting.pop(next(iter(self._waiting))))
        if not self._tasks:
            self._idle.set()

    async def _abandon(self, reason: str) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        for exchange in self._exchanges.values():
            exchange.close(reason, lost=True)
        tasks = [*self._tasks.values(), *self._lost]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)


def _completed(message: shim.ChaincodeMessage, response: Response) -> shim.ChaincodeMessage:
    said = proposal_response_pb2.Response(status=response.status, message=response.message, payload=response.payload)
    return shim.ChaincodeMessage(
        type=Kind.COMPLETED, payload=said.SerializeToString(), txid=message.txid, channel_id=message.channel_id
    )


def _error(message: shim.ChaincodeMessage, text: str) -> shim.ChaincodeMessage:
    return shim.ChaincodeMessage(
        type=Kind.ERROR, payload=text.encode(), txid=message.txid, channel_id=message.channel_id
    )
