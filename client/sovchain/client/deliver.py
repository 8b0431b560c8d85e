"""Blocks as a peer delivers them (service protos.Deliver)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2
from google.protobuf.message import DecodeError
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs does not know it

from sovchain.client._rpc import Endpoint, own_task_is_cancelled
from sovchain.client._text import printable
from sovchain.client.errors import (
    DeliverBadRequest,
    DeliverError,
    DeliverForbidden,
    DeliverNotFound,
    DeliverUnavailable,
    UnexpectedReply,
)
from sovchain.client.transaction import Session
from sovchain.protocol.proposals import datetime_to_timestamp

B = TypeVar("B")
Reader = Callable[[events_pb2.DeliverResponse], tuple[int, B]]

RECONNECT_PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to take a broken stream up again; the last one is repeated."""
ATTEMPTS_MAX: Final = 30
"""Attempts in a row without a block after which a stream ends with its error."""
FOREVER: Final = 2**64 - 1

PASSING: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED})
"""Statuses of a broken stream after which it is worth taking it up again."""

_ERRORS: Final[dict[int, type[DeliverError]]] = {
    common_pb2.BAD_REQUEST: DeliverBadRequest,
    common_pb2.FORBIDDEN: DeliverForbidden,
    common_pb2.NOT_FOUND: DeliverNotFound,
}


class BlockStream(Generic[B]):
    """A stream of blocks: an async iterator, and a context manager that ends the stream.

    Without `async with`, call `aclose` when you leave the loop early.
    """

    def __init__(
        self, session: Session, method: str, read: Reader[B], start: int | None, stop: int | None, *, reconnect: bool
    ) -> None:
        self._session = session
        self._path = f"/protos.Deliver/{method}"
        self._kind = "filtered_block" if method == "DeliverFiltered" else "block"
        self._read = read
        self._next = start
        self._stop = FOREVER if stop is None else stop
        self._reconnect = reconnect
        self._call: Any = None
        self._endpoint: Endpoint | None = None
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
            GatewayClosed: the gateway was closed.
            UnexpectedReply: what came is not the next block.
        """
        while True:
            if self._closed or (self._next is not None and self._next > self._stop):
                await self.aclose()
                raise StopAsyncIteration
            try:
                response = await self._receive()
                number, block = self._block(response)
            except DeliverUnavailable:
                self._drop()
                self._failures += 1
                if not self._reconnect or self._failures >= ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(RECONNECT_PAUSES_S[min(self._failures, len(RECONNECT_PAUSES_S)) - 1])
                continue
            except (DeliverError, UnexpectedReply):
                self._drop()
                raise
            self._failures = 0
            self._next = number + 1
            return block

    async def aclose(self) -> None:
        """End the stream. May be called more than once."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _receive(self) -> events_pb2.DeliverResponse:
        """The next block of the stream, opened if it is not. Raises DeliverError, UnexpectedReply."""
        try:
            if self._call is None:
                self._endpoint = self._session.connection.order()[
                    self._failures % len(self._session.connection.endpoints)
                ]
                self._call = self._endpoint.open_stream(self._path, unary_request=False)()
                # Signed anew for each stream: a peer refuses an envelope that is older than its time window.
                await self._call.write(self._envelope(self._endpoint))
            data = await self._call.read()
        except grpc.aio.AioRpcError as error:
            kind = DeliverUnavailable if error.code() in PASSING else DeliverError
            text = f"the stream broke: {error.code().name} {printable(error.details() or '')}"
            raise self._error(kind, text, 0) from None
        except (asyncio.CancelledError, asyncio.InvalidStateError):
            if own_task_is_cancelled():
                self._drop()
                raise
            # The call was ended from outside this task: by `aclose`, or with the gateway.
            self._session.connection.order()
            if self._closed:
                raise StopAsyncIteration from None
            raise self._error(DeliverUnavailable, "the stream was ended", 0) from None
        if data is EOF:
            raise self._error(DeliverUnavailable, "the peer ended the stream", 0)
        try:
            response = events_pb2.DeliverResponse.FromString(data)
        except DecodeError as error:
            raise self._unexpected("it is no DeliverResponse") from error
        if response.WhichOneof("Type") == "status":
            if response.status == common_pb2.SUCCESS:
                raise self._unexpected(f"it ended the stream before block {self._next}")
            kind = _ERRORS.get(response.status, DeliverUnavailable)
            raise self._error(kind, f"the peer ended the stream with status {response.status}", response.status)
        return response

    def _block(self, response: events_pb2.DeliverResponse) -> tuple[int, B]:
        """Number and block of a response. Raises UnexpectedReply unless it is the next block."""
        if response.WhichOneof("Type") != self._kind:
            raise self._unexpected(f"{response.WhichOneof('Type') or 'nothing'} instead of a {self._kind}")
        number, block = self._read(response)
        if self._next is not None and number != self._next:
            raise self._unexpected(f"block {number} instead of block {self._next}")
        return number, block

    def _envelope(self, endpoint: Endpoint) -> bytes:
        session = self._session
        if self._next is None:
            start = ab_pb2.SeekPosition(next_commit=ab_pb2.SeekNextCommit())
        else:
            start = ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=self._next))
        seek = ab_pb2.SeekInfo(
            start=start,
            stop=ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=self._stop)),
            behavior=ab_pb2.SeekInfo.BLOCK_UNTIL_READY,
        )
        header = common_pb2.ChannelHeader(
            type=common_pb2.DELIVER_SEEK_INFO,
            channel_id=session.channel_id,
            timestamp=datetime_to_timestamp(datetime.now(UTC)),
            tls_cert_hash=_certificate_hash(session.connection.profile.client_certificate_pem),
        )
        payload = common_pb2.Payload(
            header=common_pb2.Header(
                channel_header=header.SerializeToString(),
                signature_header=common_pb2.SignatureHeader(creator=session.identity.creator).SerializeToString(),
            ),
            data=seek.SerializeToString(),
        ).SerializeToString()
        return common_pb2.Envelope(payload=payload, signature=session.identity.sign(payload)).SerializeToString()

    def _error(self, kind: type[DeliverError], text: str, status: int) -> DeliverError:
        address = self._endpoint.address if self._endpoint else ""
        return kind(
            f"blocks of channel {self._session.channel_id} from {address}: {text}",
            channel_id=self._session.channel_id,
            status=status,
            endpoint=address,
        )

    def _unexpected(self, text: str) -> UnexpectedReply:
        return UnexpectedReply("deliver", text, endpoint=self._endpoint.address if self._endpoint else "")


def _certificate_hash(client_certificate_pem: bytes | None) -> bytes:
    """What binds a request to a mutual TLS connection (common/deliver/binding.go): SHA-256 of the client certificate."""
    if client_certificate_pem is None:
        return b""
    certificate = x509.load_pem_x509_certificate(client_certificate_pem)
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
