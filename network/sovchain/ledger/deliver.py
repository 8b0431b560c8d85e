"""The Deliver services: blocks, filtered blocks and blocks with private data of a peer, blocks of an ordering node.

Mirrors common/deliver/deliver.go, acl.go, binding.go and core/peer/deliverevents.go. Refusals are statuses within the
stream, after which it ends; after a complete range the client may ask for another one on the same stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.access import AccessDeniedError, check_timestamp
from sovchain.ledger.broadcast import status_name
from sovchain.ledger.chainview import ChainView
from sovchain.ledger.collection_access import readable_private_data
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.events import BlockUnreadableError, filtered_block
from sovchain.ledger.operations.metrics import NodeMetrics
from sovchain.ledger.registry import Registry
from sovchain.ledger.service import Context
from sovchain.protocol.blocks import is_config_block
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.identity import parse_identity
from sovchain.protocol.policies import SignedData

DELIVER_CONCURRENCY: Final = 2_500
"""peer.limits.concurrency.deliverService of core.yaml."""

_log = structlog.get_logger("sovchain.ledger.deliver")
_SeekInfo = ab_pb2.SeekInfo


class _Refused(Exception):
    """The request is answered with this status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Reader:
    """Who reads blocks, of which channel, at the node of which organisation, and what they asked for."""

    channel: ChainView
    msp_id: str
    signed: SignedData
    seek: ab_pb2.SeekInfo


@dataclass(frozen=True)
class DeliverKind:
    """What one deliver method sends, and who may ask for it.

    Attributes:
        name: for logs.
        data_type: as metrics name it.
        policy: path of the policy on a channel that a client must satisfy.
        block: makes the response for one block to one reader. May raise BlockUnreadableError.
        status: makes the response for a status.
    """

    name: str
    data_type: str
    policy: Callable[[ChainView], str]
    block: Callable[[Reader, bytes], bytes]
    status: Callable[[int], bytes]

    @property
    def filtered(self) -> str:
        """Whether filtered blocks are sent, as metrics say it."""
        return str(self.data_type == "filtered_block").lower()


class DeliverHandler:
    """Serves deliver streams of one node."""

    def __init__(
        self,
        registry: Registry,
        channel_of: Callable[[str], ChainView | None],
        kind: DeliverKind,
        *,
        msp_id: str = "",
        mutual_tls: bool = False,
        metrics: NodeMetrics | None = None,
    ) -> None:
        """Make a handler.

        Args:
            registry: for the clock and the checks of policies.
            channel_of: returns the channel of this name if the node has it.
            kind: what the method sends.
            msp_id: organisation of the node.
            mutual_tls: clients show a TLS certificate, and each request must carry its hash.
            metrics: what counts the streams, requests and blocks.
        """
        self._metrics = metrics or NodeMetrics()
        self._registry = registry
        self._channel_of = channel_of
        self._kind = kind
        self._msp_id = msp_id
        self._mutual_tls = mutual_tls

    async def serve(self, context: Context) -> None:
        """Answer the requests of one stream, one after the other."""
        self._metrics.streams_opened.add()
        try:
            while isinstance(frame := await context.read(), bytes):
                try:
                    await self._deliver(frame, context)
                    status: int = common_pb2.SUCCESS
                except _Refused as refusal:
                    status = refusal.status
                    _log.info("deliver refused", kind=self._kind.name, status=status_name(status), reason=str(refusal))
                await context.write(self._kind.status(status))
                if status != common_pb2.SUCCESS:
                    return
        finally:
            self._metrics.streams_closed.add()

    async def _deliver(self, frame: bytes, context: Context) -> None:
        envelope, payload, header, creator = self._parse(frame, context)
        channel = self._channel_of(header.channel_id)
        if channel is None:
            raise _Refused(common_pb2.NOT_FOUND, "the node does not have the channel")
        try:
            seek = _SeekInfo.FromString(payload.data)
        except DecodeError:
            raise _Refused(common_pb2.BAD_REQUEST, "malformed seek info") from None
        signed = SignedData(envelope.payload, creator, envelope.signature)
        session = _Session(self._registry, channel, self._kind, signed)
        session.check()
        labels = (channel.channel_id, self._kind.filtered, self._kind.data_type)
        self._metrics.deliver_received.add(*labels)
        success = "false"
        try:
            if not seek.HasField("start") or not seek.HasField("stop"):
                raise _Refused(common_pb2.BAD_REQUEST, "missing start or stop")
            start, stop = _range(channel, seek)
            await self._send(Reader(channel, self._msp_id, signed, seek), start, stop, session, context)
            success = "true"
        finally:
            self._metrics.deliver_completed.add(*labels, success)

    def _parse(
        self, frame: bytes, context: Context
    ) -> tuple[common_pb2.Envelope, common_pb2.Payload, common_pb2.ChannelHeader, bytes]:
        try:
            envelope = common_pb2.Envelope.FromString(frame)
            payload = common_pb2.Payload.FromString(envelope.payload)
            if not payload.HasField("header"):
                raise _Refused(common_pb2.BAD_REQUEST, "envelope has no header")
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
            creator = common_pb2.SignatureHeader.FromString(payload.header.signature_header).creator
        except DecodeError:
            raise _Refused(common_pb2.BAD_REQUEST, "the envelope cannot be decoded") from None
        if not header.HasField("timestamp"):
            raise _Refused(common_pb2.BAD_REQUEST, "channel header in envelope must contain timestamp")
        try:
            clock = self._registry.clock
            check_timestamp(clock.ledger_time(header.timestamp.ToDatetime(UTC)), clock.now())
        except (AccessDeniedError, ValueError, OverflowError):
            raise _Refused(common_pb2.BAD_REQUEST, "the envelope's timestamp is out of the time window") from None
        if self._mutual_tls:
            _check_binding(header.tls_cert_hash, context)
        return envelope, payload, header, creator

    async def _send(self, reader: Reader, start: int, stop: int | None, session: _Session, context: Context) -> None:
        channel, seek, number = reader.channel, reader.seek, start
        last = stop
        if seek.behavior == _SeekInfo.FAIL_IF_NOT_READY:
            # Blocks that are there are sent; the first one that is not ends the stream.
            last = channel.height - 1 if stop is None else min(stop, channel.height - 1)
        if last is None or number <= last:
            try:
                async for block in channel.blocks(number, last):
                    session.check()
                    await self._registry.faults.at("deliver.block", msp_id=self._msp_id, channel=channel.channel_id)
                    await context.write(self._response(reader, block))
                    self._metrics.blocks_sent.add(channel.channel_id, self._kind.filtered, self._kind.data_type)
                    number += 1
            except LedgerError as error:
                raise _Refused(common_pb2.SERVICE_UNAVAILABLE, str(error)) from error
        if stop is None or number <= stop:
            raise _Refused(common_pb2.NOT_FOUND, f"block {number} is not there")

    def _response(self, reader: Reader, block: bytes) -> bytes:
        try:
            return self._kind.block(reader, block)
        except BlockUnreadableError as error:
            # As deliverevents.go has it, this status takes the block's place and the range goes on.
            _log.info("block not shown", kind=self._kind.name, reason=str(error))
            return self._kind.status(common_pb2.BAD_REQUEST)


class _Session:
    """Whether the client may go on reading: judged again when the configuration changes or its certificate expires."""

    def __init__(self, registry: Registry, channel: ChainView, kind: DeliverKind, signed: SignedData) -> None:
        self._registry = registry
        self._channel = channel
        self._kind = kind
        self._signed = signed
        self._checked_at = -1
        self._ends = _expiry(signed.identity)

    def check(self) -> None:
        """Raises _Refused FORBIDDEN."""
        if self._ends is not None and self._registry.clock.now() > self._ends:
            raise _Refused(common_pb2.FORBIDDEN, "deliver client identity expired")
        sequence = self._channel.bundle.sequence
        if sequence == self._checked_at:
            return
        try:
            access = self._registry.access(self._channel)
            access.authorize_by_policy(self._kind.policy(self._channel), self._signed)
        except (AccessDeniedError, ProtocolError) as error:
            raise _Refused(common_pb2.FORBIDDEN, "the policy is not satisfied") from error
        self._checked_at = sequence


def _expiry(identity: bytes) -> datetime | None:
    try:
        return parse_identity(identity).not_after
    except ProtocolError:
        return None  # the policy refuses what cannot be read


def _check_binding(claimed: bytes, context: Context) -> None:
    """Check that the request names the TLS certificate of its connection. Mirrors common/deliver/binding.go."""
    shown = context.client_certificate
    if not claimed or not shown:
        raise _Refused(common_pb2.BAD_REQUEST, "the request or the connection has no TLS client certificate")
    actual = hashlib.sha256(shown).digest()
    if actual != claimed:
        raise _Refused(common_pb2.BAD_REQUEST, "the request names another TLS client certificate")


def _range(channel: ChainView, seek: ab_pb2.SeekInfo) -> tuple[int, int | None]:
    """Return the first and the last block to send; the last is None for a range without end."""
    start = _position(channel, seek.start)
    if start is None or start > channel.height:
        raise _Refused(common_pb2.NOT_FOUND, "the start is not on the ledger")
    kind = seek.stop.WhichOneof("Type")
    if kind == "oldest":
        return start, start
    if kind == "newest":
        newest = channel.height - 1
        if seek.start == seek.stop:
            return start, start
        return start, newest if start <= newest else None
    if kind == "specified":
        if seek.stop.specified.number < start:
            raise _Refused(common_pb2.BAD_REQUEST, "the start is after the stop")
        return start, seek.stop.specified.number
    # As deliver.go has it, another stop stands for block 0: what starts later never reaches it.
    return start, 0 if start == 0 else None


def _position(channel: ChainView, position: ab_pb2.SeekPosition) -> int | None:
    """Mirrors common/ledger/blockledger/fileledger/impl.go Iterator."""
    kind = position.WhichOneof("Type")
    if kind == "oldest":
        return 0
    if kind == "newest":
        return channel.height - 1
    if kind == "specified":
        return position.specified.number
    return channel.height if kind == "next_commit" else None


# What is sent ---------------------------------------------------------------------------------------------------------


def _peer_block(reader: Reader, block: bytes) -> bytes:
    response = events_pb2.DeliverResponse()
    response.block.ParseFromString(block)
    _strip_data(response.block, reader.seek)
    return response.SerializeToString()


def _peer_filtered_block(reader: Reader, block: bytes) -> bytes:
    shown = filtered_block(common_pb2.Block.FromString(block), reader.channel.channel_id)
    return events_pb2.DeliverResponse(filtered_block=shown).SerializeToString()


def _peer_block_with_private_data(reader: Reader, block: bytes) -> bytes:
    response = events_pb2.DeliverResponse()
    shown = response.block_and_private_data
    shown.block.ParseFromString(block)
    readable = readable_private_data(reader.channel, reader.msp_id, shown.block.header.number, reader.signed)
    for position, private in readable.items():
        shown.private_data_map[position].CopyFrom(private)
    _strip_data(shown.block, reader.seek)
    return response.SerializeToString()


def _peer_status(status: int) -> bytes:
    response = events_pb2.DeliverResponse()
    response.status = status  # type: ignore[assignment]  # a number on the wire, open in proto3
    return response.SerializeToString()


def _orderer_block(reader: Reader, block: bytes) -> bytes:
    response = ab_pb2.DeliverResponse()
    response.block.ParseFromString(block)
    leave_out_commit(response.block)
    _strip_data(response.block, reader.seek)
    return response.SerializeToString()


def leave_out_commit(block: common_pb2.Block) -> None:
    """Take out what peers add to a block: an ordering node knows no validation codes and no commit hash."""
    for slot in (common_pb2.TRANSACTIONS_FILTER, common_pb2.COMMIT_HASH):
        if slot < len(block.metadata.metadata):
            block.metadata.metadata[slot] = b""


def _orderer_status(status: int) -> bytes:
    response = ab_pb2.DeliverResponse()
    response.status = status  # type: ignore[assignment]  # a number on the wire, open in proto3
    return response.SerializeToString()


def _strip_data(block: common_pb2.Block, seek: ab_pb2.SeekInfo) -> None:
    if seek.content_type == _SeekInfo.HEADER_WITH_SIG and not is_config_block(block):
        block.ClearField("data")


PEER_BLOCKS: Final = DeliverKind(
    "blocks", "block", lambda channel: channel.bundle.policy_for_acl("event/Block"), _peer_block, _peer_status
)
PEER_FILTERED_BLOCKS: Final = DeliverKind(
    "filtered blocks",
    "filtered_block",
    lambda channel: channel.bundle.policy_for_acl("event/FilteredBlock"),
    _peer_filtered_block,
    _peer_status,
)
PEER_BLOCKS_WITH_PRIVATE_DATA: Final = DeliverKind(
    "blocks with private data",
    "block_and_pvtdata",
    lambda channel: channel.bundle.policy_for_acl("event/Block"),
    _peer_block_with_private_data,
    _peer_status,
)
ORDERER_BLOCKS: Final = DeliverKind(
    "orderer blocks", "block", lambda _: "/Channel/Readers", _orderer_block, _orderer_status
)
