"""What an ordering node does with envelopes: checks them and cuts them into batches.

The checks, their order and their texts are those of `orderer/common/broadcast/broadcast.go` and
`orderer/common/msgprocessor`; batches are cut as in `orderer/common/blockcutter`. An ordering node looks at neither
endorsements nor read-write sets.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from fabric_protos.common import common_pb2, configtx_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.errors import OrderingRefused
from sovchain.protocol.channelconfig import BatchSettings, ChannelBundle
from sovchain.protocol.configupdate import propose_config_update, signed_envelope
from sovchain.protocol.crypto import PrivateKey, load_private_key, sign
from sovchain.protocol.errors import ConfigError, PolicyUnsatisfied, ProtocolError
from sovchain.protocol.identity import parse_identity, serialize_identity
from sovchain.protocol.policies import SignedData

CHANNEL_WRITERS = "/Channel/Writers"

BAD_REQUEST = common_pb2.BAD_REQUEST
FORBIDDEN = common_pb2.FORBIDDEN
SERVICE_UNAVAILABLE = common_pb2.SERVICE_UNAVAILABLE

MAX_QUEUED_ENVELOPES = 10_000
"""Envelopes of one channel that may wait for their block; `OrderingQueue.put` waits beyond it."""

MAX_QUEUED_BYTES = 128 * 1024 * 1024
"""Bytes of envelopes of one channel that may wait for their block."""

_NONCE_BYTES = 24
_ENVELOPE_OVERHEAD_BYTES = 64
"""Field tags and lengths around payload and signature, generously."""


@dataclass(frozen=True)
class SigningNode:
    """Identity that signs a channel's blocks: `identity` is the serialized identity of an ordering node.

    With a `seed` the node's nonces and signatures have nothing random in them, for golden tests.
    """

    msp_id: str
    identity: bytes
    key: PrivateKey = field(repr=False)
    seed: bytes = field(default=b"", repr=False)

    @classmethod
    def from_pem(cls, msp_id: str, certificate_pem: bytes, private_key_pem: bytes, seed: bytes = b"") -> Self:
        """From the node's signing certificate and its unencrypted key. Raises `MalformedError`."""
        identity = serialize_identity(msp_id, certificate_pem)
        parse_identity(identity)
        return cls(msp_id, identity, load_private_key(private_key_pem), seed)

    def sign(self, message: bytes) -> bytes:
        """Sign as this node."""
        return sign(self.key, message, deterministic=bool(self.seed))

    def nonce(self, what: bytes) -> bytes:
        """A nonce for a signature on `what`."""
        if not self.seed:
            return os.urandom(_NONCE_BYTES)
        return hmac.digest(self.seed, what, hashlib.sha256)[:_NONCE_BYTES]


@dataclass(frozen=True)
class OrderedEnvelope:
    """An envelope that was accepted.

    Attributes:
        envelope: its bytes as they go into a block.
        size: by which batches are cut.
        sequence: of the configuration by which it was judged; after a change it is judged again.
        is_config: whether it is a new configuration, which has a block of its own.
    """

    envelope: bytes
    size: int
    sequence: int = 0
    is_config: bool = False


def check_envelope(
    bundle: ChannelBundle, data: bytes, now: Callable[[], datetime], signer: SigningNode | None = None
) -> OrderedEnvelope:
    """Judge a marshalled envelope as an ordering node of the channel does.

    An update of the configuration becomes the transaction that carries the next one, signed by `signer`; nothing else
    needs it. `now` tells the time that certificates expire by. Raises `OrderingRefused` with the status and text of
    Fabric.
    """
    if len(data) > bundle.batch.absolute_max_bytes + _ENVELOPE_OVERHEAD_BYTES:
        raise _too_large(len(data), bundle.batch.absolute_max_bytes)
    try:
        envelope = common_pb2.Envelope.FromString(data)
    except DecodeError as error:
        raise OrderingRefused(BAD_REQUEST, f"could not determine channel ID: {error}") from error
    payload, header = _headers(envelope)
    if header.channel_id != bundle.channel_id:
        raise OrderingRefused(BAD_REQUEST, "channel does not exist")
    if header.type == common_pb2.CONFIG:
        raise OrderingRefused(BAD_REQUEST, "message is of type that cannot be processed directly")
    if header.type == common_pb2.ORDERER_TRANSACTION:
        raise OrderingRefused(BAD_REQUEST, "message is of type that is no longer supported")
    if header.type == common_pb2.CONFIG_UPDATE:
        return _configure(bundle, envelope, payload, now, signer)
    size = _filter(bundle, envelope, payload, now)
    # As in Fabric, what goes into a block is the message encoded anew, not the bytes that the client happened to send.
    return OrderedEnvelope(envelope.SerializeToString(deterministic=True), size, bundle.sequence)


def check_again(
    bundle: ChannelBundle, ordered: OrderedEnvelope, now: Callable[[], datetime], signer: SigningNode
) -> OrderedEnvelope:
    """Judge an accepted envelope by a configuration that came after it was accepted (etcdraft/chain.go ordered).

    Raises `OrderingRefused` if it is to be dropped.
    """
    if ordered.sequence == bundle.sequence:
        return ordered
    if not ordered.is_config:
        return check_envelope(bundle, ordered.envelope, now)
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(ordered.envelope).payload)
    update = configtx_pb2.ConfigEnvelope.FromString(payload.data).last_update
    return check_envelope(bundle, update.SerializeToString(), now, signer)


def _headers(envelope: common_pb2.Envelope) -> tuple[common_pb2.Payload, common_pb2.ChannelHeader]:
    what = "error unmarshalling Payload"
    try:
        payload = common_pb2.Payload.FromString(envelope.payload)
        if not payload.HasField("header"):
            raise OrderingRefused(BAD_REQUEST, "could not determine channel ID: header not set")
        if not payload.header.channel_header:
            raise OrderingRefused(BAD_REQUEST, "could not determine channel ID: channel header not set")
        what = "error unmarshalling channel header: error unmarshalling ChannelHeader"
        return payload, common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    except DecodeError as error:
        raise OrderingRefused(BAD_REQUEST, f"could not determine channel ID: {what}: {error}") from error


def _configure(
    bundle: ChannelBundle,
    envelope: common_pb2.Envelope,
    payload: common_pb2.Payload,
    now: Callable[[], datetime],
    signer: SigningNode | None,
) -> OrderedEnvelope:
    """Make the next configuration of an update (msgprocessor/standardchannel.go ProcessConfigUpdateMsg)."""
    try:
        _filter(bundle, envelope, payload, now)
    except OrderingRefused as error:
        text = f"config update for existing channel did not pass initial checks: {error.text}"
        raise OrderingRefused(error.status, text) from error
    try:
        proposed = propose_config_update(envelope, bundle)
    except ConfigError as error:
        text = f"error applying config update to existing channel '{bundle.channel_id}': {error}"
        raise OrderingRefused(BAD_REQUEST, text) from error
    if signer is None:
        raise OrderingRefused(SERVICE_UNAVAILABLE, "this node signs no configurations")
    configured = signed_envelope(
        common_pb2.CONFIG,
        bundle.channel_id,
        proposed,
        creator=signer.identity,
        nonce=signer.nonce(envelope.payload),
        timestamp=now(),
        sign=signer.sign,
    )
    size = len(configured.payload) + len(configured.signature)
    if size > bundle.batch.absolute_max_bytes:
        text = _too_large(size, bundle.batch.absolute_max_bytes).text
        raise OrderingRefused(BAD_REQUEST, f"config update for existing channel did not pass final checks: {text}")
    return OrderedEnvelope(configured.SerializeToString(deterministic=True), size, bundle.sequence, is_config=True)


def _filter(
    bundle: ChannelBundle, envelope: common_pb2.Envelope, payload: common_pb2.Payload, now: Callable[[], datetime]
) -> int:
    """Size, expiry and signature rules, in this order; gives the size.

    The rule against empty messages needs no line here: without a payload there is no header to get this far with.
    """
    size = len(envelope.payload) + len(envelope.signature)
    if size > bundle.batch.absolute_max_bytes:
        raise _too_large(size, bundle.batch.absolute_max_bytes)
    try:
        creator = common_pb2.SignatureHeader.FromString(payload.header.signature_header).creator
    except DecodeError as error:
        text = f"could not convert message to signedData: GetSignatureHeaderFromBytes failed, err {error}"
        raise OrderingRefused(BAD_REQUEST, text) from error
    expires_at = _expiry(creator)
    if expires_at is not None and now() >= expires_at:
        raise OrderingRefused(BAD_REQUEST, "broadcast client identity expired")
    signed = SignedData(message=envelope.payload, identity=creator, signature=envelope.signature)
    try:
        bundle.policies.get(CHANNEL_WRITERS).evaluate([signed])
    except PolicyUnsatisfied as error:
        raise OrderingRefused(FORBIDDEN, f"{error}: permission denied") from error
    return size


def _expiry(creator: bytes) -> datetime | None:
    # An identity whose certificate cannot be read has no expiry (common/crypto/expiration.go); the policy refuses it.
    try:
        return parse_identity(creator).not_after
    except ProtocolError:
        return None


def _too_large(size: int, limit: int) -> OrderingRefused:
    text = f"message payload is {size} bytes and exceeds maximum allowed {limit} bytes"
    return OrderingRefused(BAD_REQUEST, text)


class BlockCutter:
    """Collects envelopes into batches, by count and by bytes (`orderer/common/blockcutter/blockcutter.go`).

    The caller cuts by time: `started_at` is when the oldest pending envelope came.
    """

    def __init__(self, settings: BatchSettings) -> None:
        self.settings = settings
        self.started_at = 0.0
        self._pending: list[OrderedEnvelope] = []
        self._pending_bytes = 0

    @property
    def pending(self) -> int:
        """Envelopes that wait for their batch to be cut."""
        return len(self._pending)

    def ordered(self, envelope: OrderedEnvelope, arrived_at: float) -> list[list[OrderedEnvelope]]:
        """Take one envelope; gives the batches (none, one or two) that are complete now."""
        batches = []
        if envelope.is_config or envelope.size > self.settings.preferred_max_bytes:
            if self._pending:
                batches.append(self.cut())
            batches.append([envelope])
            return batches
        if self._pending_bytes + envelope.size > self.settings.preferred_max_bytes and self._pending:
            batches.append(self.cut())
        if not self._pending:
            self.started_at = arrived_at
        self._pending.append(envelope)
        self._pending_bytes += envelope.size
        if len(self._pending) >= self.settings.max_message_count:
            batches.append(self.cut())
        return batches

    def cut(self) -> list[OrderedEnvelope]:
        """The pending envelopes as one batch (empty if there are none); a new one begins."""
        batch, self._pending, self._pending_bytes = self._pending, [], 0
        return batch


class OrderingQueue:
    """Accepted envelopes on their way into blocks; bounded in number and bytes. For the event loop's thread.

    `next_batch` cuts by count, by bytes, and when the oldest envelope has waited for the batch timeout. Envelopes that
    came while a block was being committed have waited already, so under load nothing waits for the timeout.
    """

    def __init__(self, settings: BatchSettings) -> None:
        self.settings = settings
        self._cutter = BlockCutter(settings)
        self._inbox: deque[tuple[OrderedEnvelope, float]] = deque()
        self._ready: deque[list[OrderedEnvelope]] = deque()
        self._blocked: deque[asyncio.Future[None]] = deque()
        self._wake = asyncio.Event()
        self._count = 0
        self._bytes = 0
        self._closed = False

    async def put(self, envelope: OrderedEnvelope) -> bool:
        """Queue one envelope, waiting while the queue is full; False if the queue was closed meanwhile."""
        loop = asyncio.get_running_loop()
        while self._full() and not self._closed:
            room = loop.create_future()
            self._blocked.append(room)
            try:
                await room
            except asyncio.CancelledError:
                # The room that this one was given goes to the next in line.
                if room.done() and not room.cancelled():
                    self._admit()
                raise
        if self._closed:
            return False
        self._count += 1
        self._bytes += envelope.size
        self._inbox.append((envelope, loop.time()))
        self._wake.set()
        return True

    async def next_batch(self) -> list[OrderedEnvelope] | None:
        """The next batch, never empty; None when the queue is closed and everything in it was given out."""
        loop = asyncio.get_running_loop()
        while True:
            self._feed()
            if self._ready:
                return self._taken(self._ready.popleft())
            if self._closed:
                rest = self._cutter.cut()
                return self._taken(rest) if rest else None
            timer = None
            if self._cutter.pending:
                due = self._cutter.started_at + self.settings.timeout_s
                if loop.time() >= due:
                    return self._taken(self._cutter.cut())
                timer = loop.call_at(due, self._wake.set)
            self._wake.clear()
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def cut(self) -> int:
        """Cut what is pending now; return how many batches are to be given out."""
        while self._inbox:
            self._ready.extend(self._cutter.ordered(*self._inbox.popleft()))
        if self._cutter.pending:
            self._ready.append(self._cutter.cut())
        self._wake.set()
        return len(self._ready)

    @property
    def pending(self) -> int:
        """Envelopes that were accepted and are in no batch that was given out."""
        return self._count

    def drop(self) -> int:
        """Forget all that is pending; return how many envelopes."""
        dropped = self._count
        self._inbox.clear()
        self._ready.clear()
        self._taken(self._cutter.cut())
        self._count = self._bytes = 0
        while self._blocked and not self._full():
            self._admit()
        return dropped

    def close(self) -> None:
        """Take nothing more. What is queued is still given out, without waiting for the batch timeout."""
        self._closed = True
        self._wake.set()
        while self._blocked:
            self._admit()

    def change(self, settings: BatchSettings) -> None:
        """Cut by other settings from now on, what is pending included."""
        self.settings = settings
        self._wake.set()

    def _feed(self) -> None:
        self._cutter.settings = self.settings
        while self._inbox and not self._ready:
            envelope, arrived_at = self._inbox.popleft()
            self._ready.extend(self._cutter.ordered(envelope, arrived_at))

    def _full(self) -> bool:
        return self._count >= MAX_QUEUED_ENVELOPES or self._bytes >= MAX_QUEUED_BYTES

    def _taken(self, batch: list[OrderedEnvelope]) -> list[OrderedEnvelope]:
        self._count -= len(batch)
        self._bytes -= sum(envelope.size for envelope in batch)
        for _ in batch:
            self._admit()
        return batch

    def _admit(self) -> None:
        while self._blocked:
            room = self._blocked.popleft()
            if not room.done():
                room.set_result(None)
                return
