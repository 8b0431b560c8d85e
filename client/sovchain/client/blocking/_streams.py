"""The blocking client. Written by scripts/make_blocking.py from the asynchronous one: change that, not this."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

from sovchain.client import deliver, events, requests
from sovchain.client.blocking._portal import Portal
from sovchain.client.events import ChaincodeEvent

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
B = TypeVar("B")


class ChaincodeEvents:
    """A stream of chaincode events: an iterator, and a context manager that ends the stream.

    Without `with`, call `close` when you leave the loop early. The events of one block are held at a time: a slow
    reader holds the peer back.
    """

    def __init__(self, original: events.ChaincodeEvents, portal: Portal) -> None:
        """Made by the class that returns it."""
        self._original = original
        self._portal = portal

    def __enter__(self) -> ChaincodeEvents:
        self._portal.run(self._original.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return self._portal.run(self._original.__aexit__(kind, error, traceback))

    def __iter__(self) -> ChaincodeEvents:
        return self

    def __next__(self) -> ChaincodeEvent:
        """Wait for the next event.

        Raises:
            EventsError: the stream was refused or broke, and is not to be or cannot be taken up again.
            CheckpointGone: the ledger has no such place as the checkpoint or the start names.
            CheckpointError: the checkpoint cannot be read or moved.
            EvaluateError, ConnectError, DeliverUnavailable: the channel cannot be asked for its height or the checkpoint.
            GatewayClosed: the gateway was closed.
            UnexpectedReply: what came is no event of the chaincode, or one of a block that is past.
        """
        try:
            return self._portal.run(self._original.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def acknowledge(self, event: ChaincodeEvent) -> None:
        """Move the checkpoint past an event now, before the next one is asked for."""
        return self._portal.run(self._original.acknowledge(event))

    def close(self) -> None:
        """End the stream. May be called more than once."""
        return self._portal.run(self._original.aclose())


class BlockStream(Generic[B]):
    """A stream of blocks: an iterator, and a context manager that ends the stream.

    Without `with`, call `close` when you leave the loop early. A block is fetched when it is asked for: a slow
    reader holds the peer back, and the memory that waits is bounded by gRPC's flow control.
    """

    def __init__(self, original: deliver.BlockStream[B], portal: Portal) -> None:
        """Made by the class that returns it."""
        self._original = original
        self._portal = portal

    def __enter__(self) -> BlockStream[B]:
        self._portal.run(self._original.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return self._portal.run(self._original.__aexit__(kind, error, traceback))

    def __iter__(self) -> BlockStream[B]:
        return self

    def __next__(self) -> B:
        """Wait for the next block.

        Raises:
            DeliverError: the peer refused or ended the stream; one of its subclasses.
            CheckpointGone: the checkpoint is beyond the end of the ledger.
            CheckpointError: the checkpoint cannot be read or moved.
            GatewayClosed: the gateway was closed.
            UnexpectedReply: what came is not the next block.
        """
        try:
            return self._portal.run(self._original.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the stream. May be called more than once."""
        return self._portal.run(self._original.aclose())


class EventsRequest:
    """A request for chaincode events. It does not go stale, and its stream is not taken up again when it breaks."""

    def __init__(self, original: requests.EventsRequest, portal: Portal) -> None:
        """Made by the class that returns it."""
        self._original = original
        self._portal = portal

    @property
    def message(self) -> bytes:
        """What is signed (gateway.ChaincodeEventsRequest)."""
        return self._original.message

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`, for signers that take digests."""
        return self._original.digest

    def to_bytes(self) -> bytes:
        """The request for another process (gateway.SignedChaincodeEventsRequest): `Gateway.load_events_request`."""
        return self._original.to_bytes()

    def with_signature(self, signature: bytes) -> EventsRequest:
        """Return the same request with a signature over `message` that was made elsewhere. Raises SignatureRefused."""
        return EventsRequest(self._portal.call(lambda: self._original.with_signature(signature)), self._portal)

    def listen(self) -> ChaincodeEvents:
        """Return the stream of events, which is opened when it is entered. Raises SignatureMissing, SignatureRefused."""
        return ChaincodeEvents(self._portal.run(self._original.listen()), self._portal)


class BlocksRequest(Generic[B]):
    """A request for blocks. A peer refuses it once it is older than its time window, 15 minutes by default."""

    def __init__(self, original: requests.BlocksRequest[B], portal: Portal) -> None:
        """Made by the class that returns it."""
        self._original = original
        self._portal = portal

    @property
    def message(self) -> bytes:
        """What is signed (common.Payload with orderer.SeekInfo)."""
        return self._original.message

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`, for signers that take digests."""
        return self._original.digest

    def to_bytes(self) -> bytes:
        """The request for another process (common.Envelope): `Gateway.load_blocks_request`."""
        return self._original.to_bytes()

    def with_signature(self, signature: bytes) -> BlocksRequest[B]:
        """Return the same request with a signature over `message` that was made elsewhere. Raises SignatureRefused."""
        return BlocksRequest(self._portal.call(lambda: self._original.with_signature(signature)), self._portal)

    def listen(self) -> BlockStream[B]:
        """Return the stream of blocks. Raises SignatureMissing, SignatureRefused."""
        return BlockStream(self._portal.run(self._original.listen()), self._portal)
