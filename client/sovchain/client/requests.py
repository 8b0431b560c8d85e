"""Requests to listen, as objects: for signing them elsewhere."""

from __future__ import annotations

from typing import Generic, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2

from sovchain.client._seek import NEXT_COMMIT, from_block, seek_payload
from sovchain.client.checkpoint import Position
from sovchain.client.deliver import BlockKind, BlockStream
from sovchain.client.events import ChaincodeEvents, events_request
from sovchain.client.session import Session
from sovchain.protocol.crypto import sha256

B = TypeVar("B")


class EventsRequest:
    """A request for chaincode events. It does not go stale, and its stream is not taken up again when it breaks."""

    def __init__(self, session: Session, chaincode: str, message: bytes, *, signature: bytes = b"") -> None:
        self._session = session
        self._chaincode = chaincode
        self._message = message
        self._signature = signature

    @classmethod
    def build(cls, session: Session, chaincode: str, start: Position | None) -> EventsRequest:
        """Make a request for the events after a position; None for what commits from the moment it is used."""
        return cls(session, chaincode, events_request(session, chaincode, start))

    @property
    def message(self) -> bytes:
        """What is signed (gateway.ChaincodeEventsRequest)."""
        return self._message

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`, for signers that take digests."""
        return sha256(self._message)

    def to_bytes(self) -> bytes:
        """The request for another process (gateway.SignedChaincodeEventsRequest): `Gateway.load_events_request`."""
        return gateway_pb2.SignedChaincodeEventsRequest(
            request=self._message, signature=self._signature
        ).SerializeToString()

    def with_signature(self, signature: bytes) -> EventsRequest:
        """Return the same request with a signature over `message` that was made elsewhere. Raises SignatureRefused."""
        checked = self._session.identity.checked(self._message, signature)
        return EventsRequest(self._session, self._chaincode, self._message, signature=checked)

    async def listen(self) -> ChaincodeEvents:
        """Return the stream of events, which is opened when it is entered. Raises SignatureMissing, SignatureRefused."""
        if not self._signature:
            self._signature = await self._session.identity.sign_async(self._message)
        return ChaincodeEvents(self._session, self._chaincode, None, None, reconnect=False, signed=self.to_bytes())


class BlocksRequest(Generic[B]):
    """A request for blocks. A peer refuses it once it is older than its time window, 15 minutes by default."""

    def __init__(self, session: Session, kind: BlockKind[B], message: bytes, *, signature: bytes = b"") -> None:
        self._session = session
        self._kind = kind
        self._message = message
        self._signature = signature

    @classmethod
    def build(cls, session: Session, kind: BlockKind[B], start: int | None, stop: int | None) -> BlocksRequest[B]:
        """Make a request for the blocks from `start` to and including `stop`; None: the next one, and for ever."""
        position = NEXT_COMMIT if start is None else from_block(start)
        certificate = session.connection.profile.client_certificate_pem
        return cls(session, kind, seek_payload(session.identity, session.channel_id, position, stop, certificate))

    @property
    def message(self) -> bytes:
        """What is signed (common.Payload with orderer.SeekInfo)."""
        return self._message

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`, for signers that take digests."""
        return sha256(self._message)

    def to_bytes(self) -> bytes:
        """The request for another process (common.Envelope): `Gateway.load_blocks_request`."""
        return common_pb2.Envelope(payload=self._message, signature=self._signature).SerializeToString()

    def with_signature(self, signature: bytes) -> BlocksRequest[B]:
        """Return the same request with a signature over `message` that was made elsewhere. Raises SignatureRefused."""
        checked = self._session.identity.checked(self._message, signature)
        return BlocksRequest(self._session, self._kind, self._message, signature=checked)

    async def listen(self) -> BlockStream[B]:
        """Return the stream of blocks. Raises SignatureMissing, SignatureRefused."""
        if not self._signature:
            self._signature = await self._session.identity.sign_async(self._message)
        return BlockStream(self._session, self._kind, None, None, reconnect=False, signed=self.to_bytes())
