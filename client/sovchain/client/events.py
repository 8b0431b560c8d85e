"""Chaincode events."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from fabric_protos.common import ledger_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from google.protobuf.message import DecodeError
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs does not know it

from sovchain.client._rpc import GATEWAY, Endpoint, own_task_is_cancelled
from sovchain.client._status import failure_of
from sovchain.client.checkpoint import Checkpointer, Position
from sovchain.client.deliver import ATTEMPTS_MAX, PASSING, RECONNECT_PAUSES_S
from sovchain.client.errors import EventsError, RpcFailure, UnexpectedReply
from sovchain.client.transaction import Proposal, Session
from sovchain.protocol.proposals import Invocation


@dataclass(frozen=True, slots=True)
class ChaincodeEvent:
    """An event that a chaincode set in a valid transaction.

    Attributes:
        block_number: the block of the transaction.
        transaction_id: the transaction.
        chaincode: name of the chaincode.
        name: name of the event.
        payload: what the chaincode put in it.
    """

    block_number: int
    transaction_id: str
    chaincode: str
    name: str
    payload: bytes = field(repr=False)


class ChaincodeEvents:
    """A stream of chaincode events: an async iterator, and a context manager that ends the stream.

    Without `async with`, call `aclose` when you leave the loop early.
    """

    def __init__(
        self,
        session: Session,
        chaincode: str,
        position: Position | None,
        checkpoint: Checkpointer | None,
        *,
        reconnect: bool,
    ) -> None:
        self._session = session
        self._chaincode = chaincode
        self._position = position
        self._checkpoint = checkpoint
        self._reconnect = reconnect
        self._loaded = checkpoint is None
        self._call: Any = None
        self._endpoint: Endpoint | None = None
        self._opened = 0.0
        self._ready: deque[ChaincodeEvent] = deque()
        self._given: ChaincodeEvent | None = None
        self._failures = 0
        self._closed = False

    async def __aenter__(self) -> ChaincodeEvents:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> ChaincodeEvents:
        return self

    async def __anext__(self) -> ChaincodeEvent:
        """Wait for the next event.

        Raises:
            EventsError: the stream was refused or broke, and is not to be or cannot be taken up again.
            EvaluateError, ConnectError: the channel's height cannot be asked for, where no start was given.
            GatewayClosed: the gateway was closed.
            UnexpectedReply: what came is no event of the chaincode, or one of a block that is past.
            CheckpointError: the checkpoint cannot be moved.
        """
        # The body of the loop has ended for the event that was given last: only now is it done.
        if self._given is not None:
            await self.acknowledge(self._given)
        while not self._ready:
            if self._closed:
                raise StopAsyncIteration
            try:
                await self._begin()
                data = await self._call.read()
            except grpc.aio.AioRpcError as error:
                await self._failed(self._failure_of(error), passing=error.code() in PASSING)
                continue
            except (asyncio.CancelledError, asyncio.InvalidStateError):
                if own_task_is_cancelled():
                    self._drop()
                    raise
                # The call was ended from outside this task: by `aclose`, or with the gateway.
                self._session.connection.order()
                await self._failed(self._failure("CANCELLED", "the stream was ended"), passing=True)
                continue
            if data is EOF:
                await self._failed(self._failure("UNAVAILABLE", "the peer ended the stream"), passing=True)
                continue
            self._ready.extend(self._parse(data))
            self._failures = 0
        self._given = self._ready.popleft()
        self._position = Position(self._given.block_number, self._given.transaction_id)
        return self._given

    async def acknowledge(self, event: ChaincodeEvent) -> None:
        """Move the checkpoint past an event now, before the next one is asked for."""
        if self._given == event:
            self._given = None
        if self._checkpoint is not None:
            await self._checkpoint.save(Position(event.block_number, event.transaction_id))

    async def aclose(self) -> None:
        """End the stream. May be called more than once."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _begin(self) -> None:
        """Open the stream where it is to go on, and wait until the peer has taken it."""
        if not self._loaded:
            assert self._checkpoint is not None
            self._position = await self._checkpoint.load() or self._position
            self._loaded = True
        if self._position is None:
            # The next block by its number: a stream that breaks before its first event then goes on at the same place.
            self._position = Position(await self._height())
        if self._call is None:
            connection = self._session.connection
            self._endpoint = connection.order()[self._failures % len(connection.endpoints)]
            self._opened = time.monotonic()
            self._call = self._endpoint.open_stream(GATEWAY + "ChaincodeEvents", unary_request=True)(
                self._request(self._position)
            )

    async def _height(self) -> int:
        invocation = Invocation(self._session.channel_id, "qscc", (b"GetChainInfo", self._session.channel_id.encode()))
        proposal = Proposal(self._session, invocation, ledger_pb2.BlockchainInfo.FromString)
        return (await proposal.evaluate()).height

    def _request(self, position: Position) -> bytes:
        session = self._session
        start = ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=position.block_number))
        inner = gateway_pb2.ChaincodeEventsRequest(
            channel_id=session.channel_id,
            chaincode_id=self._chaincode,
            identity=session.identity.creator,
            start_position=start,
            after_transaction_id=position.transaction_id,
        ).SerializeToString()
        return gateway_pb2.SignedChaincodeEventsRequest(
            request=inner, signature=session.identity.sign(inner)
        ).SerializeToString()

    def _parse(self, data: bytes) -> list[ChaincodeEvent]:
        """The events of a reply. Raises UnexpectedReply, and ends the call, for anything but what was asked for."""
        fault = None
        response = gateway_pb2.ChaincodeEventsResponse()
        try:
            response.ParseFromString(data)
        except DecodeError:
            fault = "it is no ChaincodeEventsResponse"
        else:
            if self._position is not None and response.block_number < self._position.block_number:
                fault = f"events of block {response.block_number} after block {self._position.block_number} was reached"
            elif any(event.chaincode_id != self._chaincode for event in response.events):
                fault = "events of another chaincode"
        if fault is not None:
            self._drop()
            raise UnexpectedReply("events", fault, endpoint=self._endpoint.address if self._endpoint else "")
        return [
            ChaincodeEvent(response.block_number, event.tx_id, event.chaincode_id, event.event_name, event.payload)
            for event in response.events
        ]

    def _failure_of(self, error: grpc.aio.AioRpcError) -> RpcFailure:
        return failure_of(error, self._endpoint.address if self._endpoint else "", time.monotonic() - self._opened)

    def _failure(self, status: str, text: str) -> RpcFailure:
        address = self._endpoint.address if self._endpoint else ""
        return RpcFailure(status, text, (), address, time.monotonic() - self._opened)

    async def _failed(self, failure: RpcFailure, *, passing: bool) -> None:
        """Wait before the stream is taken up again, if that can help. Raises EventsError."""
        self._drop()
        if self._closed:
            return
        self._failures += 1
        if not passing or not self._reconnect or self._failures >= ATTEMPTS_MAX:
            raise EventsError("events", failure) from None
        await asyncio.sleep(RECONNECT_PAUSES_S[min(self._failures, len(RECONNECT_PAUSES_S)) - 1])
