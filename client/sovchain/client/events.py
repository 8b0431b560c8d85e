"""Chaincode events."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType

from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from google.protobuf.message import DecodeError

from sovchain.client._checkpoints import chain_info, usable_position
from sovchain.client._endpoint import GATEWAY
from sovchain.client._seek import NEXT_COMMIT, from_block
from sovchain.client._stream import ATTEMPTS_MAX, StreamBroken, StreamCall, reconnect_pause
from sovchain.client.checkpoint import Checkpointer, Position
from sovchain.client.errors import EventsError, UnexpectedReply
from sovchain.client.session import Session


@dataclass(frozen=True, slots=True)
class ChaincodeEvent:
    """An event that a chaincode set in a valid transaction.

    Attributes:
        block_number: the block of the transaction.
        transaction_id: the transaction. A transaction has one event at most.
        chaincode: name of the chaincode.
        name: name of the event.
        payload: what the chaincode put in it.
    """

    block_number: int
    transaction_id: str
    chaincode: str
    name: str
    payload: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """The same for the same event however often it comes, and for no other one of the channel."""
        return f"{self.block_number}/{self.transaction_id}"

    @property
    def position(self) -> Position:
        """The place after the event, for a checkpoint."""
        return Position(self.block_number, self.transaction_id)


class ChaincodeEvents:
    """A stream of chaincode events: an async iterator, and a context manager that ends the stream.

    Without `async with`, call `aclose` when you leave the loop early. The events of one block are held at a time: a slow
    reader holds the peer back.
    """

    def __init__(
        self,
        session: Session,
        chaincode: str,
        position: Position | None,
        checkpoint: Checkpointer | None,
        *,
        reconnect: bool,
        signed: bytes = b"",
    ) -> None:
        self._session = session
        self._chaincode = chaincode
        self._position = position
        self._checkpoint = checkpoint
        self._reconnect = reconnect and not signed
        self._signed = signed
        self._settled = bool(signed)
        self._call: StreamCall | None = None
        self._ready: deque[ChaincodeEvent] = deque()
        self._given: ChaincodeEvent | None = None
        self._failures = 0
        self._closed = False

    async def __aenter__(self) -> ChaincodeEvents:
        while not self._closed:
            try:
                await self._begin()
                break
            except StreamBroken as broken:
                await self._failed(broken)
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
            CheckpointGone: the ledger has no such place as the checkpoint or the start names.
            CheckpointError: the checkpoint cannot be read or moved.
            EvaluateError, ConnectError, DeliverUnavailable: the channel cannot be asked for its height or the checkpoint.
            GatewayClosed: the gateway was closed.
            UnexpectedReply: what came is no event of the chaincode, or one of a block that is past.
        """
        # The body of the loop has ended for the event that was given last: only now is it done.
        if self._given is not None:
            await self.acknowledge(self._given)
        while not self._ready:
            if self._closed:
                raise StopAsyncIteration
            try:
                await self._begin()
                assert self._call is not None
                data = await self._call.read()
            except StreamBroken as broken:
                await self._failed(broken)
                continue
            except BaseException:
                self._drop()
                raise
            self._ready.extend(self._parse(data, self._call.endpoint.address))
            self._failures = 0
        self._given = self._ready.popleft()
        self._position = self._given.position
        return self._given

    async def acknowledge(self, event: ChaincodeEvent) -> None:
        """Move the checkpoint past an event now, before the next one is asked for."""
        if self._given == event:
            self._given = None
        if self._checkpoint is not None:
            await self._checkpoint.save(event.position)

    async def aclose(self) -> None:
        """End the stream. May be called more than once."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        if self._call is not None:
            self._call.close()
            self._call = None

    async def _begin(self) -> None:
        """Open the stream where it is to go on. Raises StreamBroken."""
        if not self._settled:
            await self._settle()
        if self._call is None:
            connection = self._session.connection
            order = connection.order()
            endpoint = order[self._failures % len(order)]
            self._call = StreamCall(connection, endpoint, GATEWAY + "ChaincodeEvents", of_gateway=True)
            request = self._signed or await self._request()
            await self._call.open(request)

    async def _settle(self) -> None:
        """Find the place to begin at; only a checkpoint or a transaction can name one that is not there."""
        loaded = None if self._checkpoint is None else await self._checkpoint.load()
        position = loaded or self._position
        if position is None:
            # The next block by its number: a stream that breaks before its first event then goes on at the same place.
            position = Position((await chain_info(self._session)).height)
        elif loaded is not None or position.transaction_id:
            position = await usable_position(self._session, position)
        self._position = position
        self._settled = True

    async def _request(self) -> bytes:
        message = events_request(self._session, self._chaincode, self._position)
        signature = await self._session.identity.sign_async(message)
        return gateway_pb2.SignedChaincodeEventsRequest(request=message, signature=signature).SerializeToString()

    def _parse(self, data: bytes, address: str) -> list[ChaincodeEvent]:
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
            raise UnexpectedReply("events", fault, endpoint=address)
        return [
            ChaincodeEvent(response.block_number, event.tx_id, event.chaincode_id, event.event_name, event.payload)
            for event in response.events
        ]

    async def _failed(self, broken: StreamBroken) -> None:
        """Wait before the stream is taken up again, if that can help. Raises EventsError."""
        self._drop()
        if self._closed:
            return
        self._failures += 1
        if not broken.passing or not self._reconnect or self._failures >= ATTEMPTS_MAX:
            raise EventsError("events", broken.failure) from None
        await asyncio.sleep(reconnect_pause(self._failures))


def events_request(session: Session, chaincode: str, position: Position | None) -> bytes:
    """What is signed to listen to a chaincode's events (gateway.ChaincodeEventsRequest)."""
    start: ab_pb2.SeekPosition = NEXT_COMMIT if position is None else from_block(position.block_number)
    return gateway_pb2.ChaincodeEventsRequest(
        channel_id=session.channel_id,
        chaincode_id=chaincode,
        identity=session.identity.creator,
        start_position=start,
        after_transaction_id="" if position is None else position.transaction_id,
    ).SerializeToString()
