"""Blocks as a peer delivers them (service protos.Deliver)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Generic, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.peer import events_pb2
from google.protobuf.message import DecodeError

from sovchain.client._checkpoints import check_block
from sovchain.client._seek import FOREVER, NEXT_COMMIT, from_block, seek_envelope
from sovchain.client._stream import ATTEMPTS_MAX, StreamBroken, StreamCall, reconnect_pause
from sovchain.client._text import printable
from sovchain.client.checkpoint import Checkpointer, Position
from sovchain.client.errors import (
    DeliverBadRequest,
    DeliverError,
    DeliverForbidden,
    DeliverNotFound,
    DeliverUnavailable,
    UnexpectedReply,
)
from sovchain.client.session import Session

B = TypeVar("B")

_ERRORS: Final[dict[int, type[DeliverError]]] = {
    common_pb2.BAD_REQUEST: DeliverBadRequest,
    common_pb2.FORBIDDEN: DeliverForbidden,
    common_pb2.NOT_FOUND: DeliverNotFound,
}


@dataclass(frozen=True, slots=True)
class BlockAndPrivateData:
    """A block with the private data in it that the peer holds and the caller's organisation may see.

    Attributes:
        block: the block.
        private_data: the private writes of each transaction that has some, by its place in the block.
    """

    block: common_pb2.Block
    private_data: Mapping[int, rwset_pb2.TxPvtReadWriteSet] = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlockKind(Generic[B]):
    """One of the forms in which a peer delivers blocks: the method, the field of its reply, and how it is read."""

    method: str
    reply: str
    read: Callable[[events_pb2.DeliverResponse], tuple[int, B]]


def _full(response: events_pb2.DeliverResponse) -> tuple[int, common_pb2.Block]:
    return response.block.header.number, response.block


def _filtered(response: events_pb2.DeliverResponse) -> tuple[int, events_pb2.FilteredBlock]:
    return response.filtered_block.number, response.filtered_block


def _private(response: events_pb2.DeliverResponse) -> tuple[int, BlockAndPrivateData]:
    found = response.block_and_private_data
    return found.block.header.number, BlockAndPrivateData(found.block, dict(found.private_data_map))


FULL: Final = BlockKind("Deliver", "block", _full)
FILTERED: Final = BlockKind("DeliverFiltered", "filtered_block", _filtered)
WITH_PRIVATE_DATA: Final = BlockKind("DeliverWithPrivateData", "block_and_private_data", _private)


class BlockStream(Generic[B]):
    """A stream of blocks: an async iterator, and a context manager that ends the stream.

    Without `async with`, call `aclose` when you leave the loop early. A block is fetched when it is asked for: a slow
    reader holds the peer back, and the memory that waits is bounded by gRPC's flow control.
    """

    def __init__(
        self,
        session: Session,
        kind: BlockKind[B],
        start: int | None,
        stop: int | None,
        *,
        reconnect: bool,
        checkpoint: Checkpointer | None = None,
        signed: bytes = b"",
    ) -> None:
        self._session = session
        self._kind = kind
        self._next = start
        self._stop = FOREVER if stop is None else stop
        self._reconnect = reconnect and not signed
        self._checkpoint = checkpoint
        self._loaded = checkpoint is None
        self._signed = signed
        self._call: StreamCall | None = None
        self._address = ""
        self._given: int | None = None
        self._failures = 0
        self._closed = False

    async def __aenter__(self) -> BlockStream[B]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> BlockStream[B]:
        return self

    async def __anext__(self) -> B:
        """Wait for the next block.

        Raises:
            DeliverError: the peer refused or ended the stream; one of its subclasses.
            CheckpointGone: the checkpoint is beyond the end of the ledger.
            CheckpointError: the checkpoint cannot be read or moved.
            GatewayClosed: the gateway was closed.
            UnexpectedReply: what came is not the next block.
        """
        # The body of the loop has ended for the block that was given last: only now is it done.
        await self._acknowledge()
        if not self._loaded:
            await self._load()
        while True:
            if self._closed or (self._next is not None and self._next > self._stop):
                await self.aclose()
                raise StopAsyncIteration
            try:
                number, block = self._block(await self._receive())
            except DeliverUnavailable:
                self._drop()
                if self._closed:
                    continue
                self._failures += 1
                if not self._reconnect or self._failures >= ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(reconnect_pause(self._failures))
                continue
            except BaseException:
                self._drop()
                raise
            self._failures = 0
            self._next = number + 1
            self._given = number
            return block

    async def aclose(self) -> None:
        """End the stream. May be called more than once."""
        self._closed = True
        self._drop()

    async def _load(self) -> None:
        assert self._checkpoint is not None
        position = await self._checkpoint.load()
        if position is not None:
            await check_block(self._session, position.block_number)
            self._next = position.block_number
        self._loaded = True

    async def _acknowledge(self) -> None:
        if self._given is not None and self._checkpoint is not None:
            await self._checkpoint.save(Position(self._given + 1))
        self._given = None

    def _drop(self) -> None:
        if self._call is not None:
            self._call.close()
            self._call = None

    async def _receive(self) -> events_pb2.DeliverResponse:
        """The next block of the stream, opened if it is not. Raises DeliverError, UnexpectedReply."""
        try:
            if self._call is None:
                connection = self._session.connection
                order = connection.order()
                endpoint = order[self._failures % len(order)]
                self._address = endpoint.address
                self._call = StreamCall(connection, endpoint, f"/protos.Deliver/{self._kind.method}", of_gateway=False)
                await self._call.open(await self._envelope())
            data = await self._call.read()
        except StreamBroken as broken:
            kind = DeliverUnavailable if broken.passing else DeliverError
            text = f"the stream broke: {broken.failure.status} {printable(broken.failure.message)}"
            raise self._error(kind, text, 0) from None
        try:
            response = events_pb2.DeliverResponse.FromString(data)
        except DecodeError as error:
            raise self._unexpected("it is no DeliverResponse") from error
        if response.WhichOneof("Type") == "status":
            if response.status == common_pb2.SUCCESS:
                raise self._unexpected(f"it ended the stream before block {self._next}")
            error_kind = _ERRORS.get(response.status, DeliverUnavailable)
            raise self._error(error_kind, f"the peer ended the stream with status {response.status}", response.status)
        return response

    def _block(self, response: events_pb2.DeliverResponse) -> tuple[int, B]:
        """Number and block of a response. Raises UnexpectedReply unless it is the next block."""
        if response.WhichOneof("Type") != self._kind.reply:
            raise self._unexpected(f"{response.WhichOneof('Type') or 'nothing'} instead of a {self._kind.reply}")
        number, block = self._kind.read(response)
        if self._next is not None and number != self._next:
            raise self._unexpected(f"block {number} instead of block {self._next}")
        return number, block

    async def _envelope(self) -> bytes:
        """The request, signed anew for each stream: a peer refuses one that is older than its time window."""
        session = self._session
        start = NEXT_COMMIT if self._next is None else from_block(self._next)
        certificate = session.connection.profile.client_certificate_pem
        return self._signed or await seek_envelope(session.identity, session.channel_id, start, self._stop, certificate)

    def _error(self, kind: type[DeliverError], text: str, status: int) -> DeliverError:
        return kind(
            f"blocks of channel {self._session.channel_id} from {self._address}: {text}",
            channel_id=self._session.channel_id,
            status=status,
            endpoint=self._address,
        )

    def _unexpected(self, text: str) -> UnexpectedReply:
        return UnexpectedReply("deliver", text, endpoint=self._address)
