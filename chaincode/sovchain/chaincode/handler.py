"""The chaincode's side of one stream to one peer.

Either side may have opened the stream; the frames are the same. The chaincode speaks first (REGISTER), the peer answers
REGISTERED and READY, and from then on sends transactions, which run side by side: each is a task with an `Exchange`
of its own, found again by channel and transaction id. Every transaction that was taken is answered with exactly one
COMPLETED or ERROR, whatever the contract does, unless the stream is gone. All frames leave through one queue.

Mirrors fabric-chaincode-go/shim/handler.go; the peer's side is fabric/core/chaincode/handler.go.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fabric_protos.peer import chaincode_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim

from sovchain.chaincode.errors import E_BUSY, LedgerError, StreamError
from sovchain.chaincode.exchange import MAX_PAYLOAD_BYTES, Exchange
from sovchain.chaincode.log import Log, frames
from sovchain.chaincode.peerstub import Offers, PeerStub
from sovchain.chaincode.stub import Response

if TYPE_CHECKING:
    from sovchain.chaincode.chaincode import Chaincode

Kind = shim.ChaincodeMessage
E_TIMEOUT = "E_TIMEOUT"
"""The contract did not end in time; the peer has given up on it before, unless its own limit is longer."""
STATUS_BUSY = 503

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
    """A stream of messages to and from a peer."""

    async def read(self) -> shim.ChaincodeMessage | None:
        """The next message, or None when the peer has ended the stream."""

    async def write(self, message: shim.ChaincodeMessage) -> None:
        """Send a message. Only one call at a time."""


Key = tuple[str, str]


class Handler:
    """Serves one peer until the stream ends.

    Args:
        chaincode: what answers the calls.
        chaincode_id: the name to register under: the package id `label:hash`.
        limits: what the stream may have in hand.
    """

    def __init__(self, chaincode: Chaincode, chaincode_id: str, limits: Limits | None = None) -> None:
        self._chaincode = chaincode
        self._chaincode_id = chaincode_id
        self._limits = limits or Limits()
        self._offers = Offers()
        self._state = "created"
        self._outgoing: asyncio.Queue[shim.ChaincodeMessage | None] = asyncio.Queue()
        self._exchanges: dict[Key, Exchange] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._waiting: dict[Key, shim.ChaincodeMessage] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._ended = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether the peer has said READY."""
        return self._state == "ready"

    @property
    def in_hand(self) -> int:
        """Transactions that run or wait."""
        return len(self._tasks) + len(self._waiting)

    async def run(self, stream: PeerStream) -> None:
        """Register, then serve until the peer ends the stream or `end` is called.

        Raises:
            StreamError: the peer broke the protocol or the stream broke.
        """
        writer = asyncio.create_task(self._write_all(stream), name="chaincode stream writer")
        reader = asyncio.create_task(self._read_all(stream), name="chaincode stream reader")
        ended = asyncio.create_task(self._ended.wait())
        name = chaincode_pb2.ChaincodeID(name=self._chaincode_id)
        self._send(shim.ChaincodeMessage(type=Kind.REGISTER, payload=name.SerializeToString()))
        try:
            await asyncio.wait({writer, reader, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            reader.cancel()
            await self._abandon("the stream to the peer has ended")
            self._outgoing.put_nowait(None)
            # What was decided last, such as the ERROR that explains the end, should still leave.
            await asyncio.wait({writer}, timeout=5.0)
            writer.cancel()
            outcomes = await asyncio.gather(reader, writer, ended, return_exceptions=True)
        for outcome in outcomes[:2]:
            if isinstance(outcome, Exception):
                raise outcome if isinstance(outcome, StreamError) else StreamError(_describe(outcome)) from outcome

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
        self._outgoing.put_nowait(message)

    async def _write_all(self, stream: PeerStream) -> None:
        while (message := await self._outgoing.get()) is not None:
            await stream.write(message)

    async def _read_all(self, stream: PeerStream) -> None:
        while (message := await stream.read()) is not None:
            try:
                self._take(message)
            except StreamError as error:
                if message.type != Kind.ERROR:
                    self._send(_error(message, str(error)))
                raise

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
        exchange = self._exchanges.get((message.channel_id, message.txid))
        if exchange is not None:
            exchange.answer(message)
        elif log.debugs:
            # The peer may answer after the transaction has ended here, for instance after a timeout.
            log.debug("late answer ignored", channel=message.channel_id, transaction_id=message.txid)

    # -- transactions ------------------------------------------------------------------------------------------------

    def _admit(self, message: shim.ChaincodeMessage) -> None:
        key = (message.channel_id, message.txid)
        earlier = self._exchanges.get(key)
        if self._draining:
            self._refuse(message, "the chaincode is being stopped: send the call again to another peer or later")
        elif earlier is not None:
            # A peer repeats a key only after it has given up on the first run, so an answer to that would now be
            # taken for the answer to this one.
            earlier.superseded = True
            self._tasks[key].cancel()
            self._waiting[key] = message
        elif len(self._tasks) < self._limits.running:
            self._start(message)
        elif len(self._waiting) < self._limits.waiting:
            self._waiting[key] = message
        else:
            self._refuse(message, f"{self.in_hand} transactions are in hand already: send the call again later")

    def _refuse(self, message: shim.ChaincodeMessage, text: str) -> None:
        self._send(_completed(message, Response(STATUS_BUSY, f"{E_BUSY}: {text}")))

    def _start(self, message: shim.ChaincodeMessage, *, awaited: bool = False) -> None:
        key = (message.channel_id, message.txid)
        exchange = Exchange(*key, self._send, awaited=awaited)
        self._exchanges[key] = exchange
        self._idle.clear()
        task = asyncio.create_task(self._serve(message, exchange), name=f"transaction {message.txid[:8]}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._finished(key, exchange, done))

    async def _serve(self, message: shim.ChaincodeMessage, exchange: Exchange) -> None:
        """Run one transaction and answer it once."""
        seconds = self._limits.transaction_s
        try:
            async with asyncio.timeout(seconds):
                answer = await self._call(message, exchange)
        except TimeoutError:
            text = f"{E_TIMEOUT}: the contract did not end within {seconds:g} seconds"
            log.error("transaction timed out", channel=message.channel_id, transaction_id=message.txid)
            answer = _completed(message, Response(500, text))
        except (LedgerError, StreamError) as error:
            answer = _error(message, str(error))
        except Exception as error:  # the peer must get its answer
            log.error(
                "transaction failed", channel=message.channel_id, trace=frames(error), transaction_id=message.txid
            )
            answer = _error(message, "the chaincode runtime failed: its log says where")
        except asyncio.CancelledError:
            if not exchange.superseded:
                self._send(_error(message, "the chaincode is being stopped and ended the transaction"))
            raise
        exchange.close("the transaction is over: all requests of a contract must be awaited before it returns")
        if not exchange.superseded:
            self._send(answer)

    async def _call(self, message: shim.ChaincodeMessage, exchange: Exchange) -> shim.ChaincodeMessage:
        stub = PeerStub(message, exchange, self._offers)
        if stub.is_init and not stub.args:
            return _completed(message, Response(200))
        response = await self._chaincode.invoke(stub)
        answer = _completed(message, response)
        if response.status < 400:
            await stub.flush()
            if stub.event is not None:
                answer.chaincode_event.CopyFrom(stub.event)
        if answer.ByteSize() > MAX_PAYLOAD_BYTES:
            raise StreamError(f"the answer has {answer.ByteSize()} bytes, the stream takes {MAX_PAYLOAD_BYTES}")
        return answer

    def _finished(self, key: Key, exchange: Exchange, task: asyncio.Task[None]) -> None:
        exchange.close("the transaction is over")
        if self._tasks.get(key) is task:
            del self._tasks[key]
            del self._exchanges[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("transaction task failed", channel=key[0], transaction_id=key[1], trace=frames(error))
        self._start_waiting(key, exchange)
        if not self._tasks and not self._waiting:
            self._idle.set()

    def _start_waiting(self, ended: Key, exchange: Exchange) -> None:
        """Start what waits for the end of this transaction, or else what waits longest."""
        repeated = self._waiting.pop(ended, None)
        if repeated is not None:
            self._start(repeated, awaited=exchange.outstanding)
            return
        key = next((key for key in self._waiting if key not in self._tasks), None)
        if key is not None:
            self._start(self._waiting.pop(key))

    async def _abandon(self, reason: str) -> None:
        self._waiting.clear()
        for exchange in self._exchanges.values():
            exchange.close(reason, lost=True)
        tasks = list(self._tasks.values())
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


def _describe(error: Exception) -> str:
    details = getattr(error, "details", None)
    text = details() if callable(details) else None
    return f"the stream to the peer broke: {text or type(error).__name__}"
