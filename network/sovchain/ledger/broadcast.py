"""AtomicBroadcast.Broadcast: envelopes for ordering.

Mirrors orderer/common/broadcast/broadcast.go. The checks of an envelope are those of `sovchain.ledger.orderer`.
"""

from __future__ import annotations

import time
from typing import Final

import structlog
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.consenters import NO_LEADER, Consenters
from sovchain.ledger.errors import OrderingRefused
from sovchain.ledger.operations.metrics import OrdererMetrics
from sovchain.ledger.registry import Registry
from sovchain.ledger.rpcstatus import StatusError
from sovchain.ledger.service import Context, DuplexMethod

_LABEL_CHARACTERS: Final = 249
_log = structlog.get_logger("sovchain.ledger.broadcast")


class Broadcaster:
    """Hands envelopes to the ordering of the channel that they name."""

    def __init__(self, registry: Registry, consenters: Consenters) -> None:
        """`nodes`, the ordering nodes as (address, MSP id), are for error details; fill it as they start."""
        self._registry = registry
        self._consenters = consenters
        self.nodes: list[tuple[str, str]] = []

    async def order(self, envelope: bytes, host: str = "") -> None:
        """Accept a serialised envelope for ordering at one node, or at any (a gateway's).

        Raises OrderingRefused with Fabric's status and text.
        """
        channel = self._registry.channels.get(_channel_id(envelope))
        if channel is None or (host and not self._consenters.joined(host, channel)):
            raise OrderingRefused(common_pb2.BAD_REQUEST, "channel does not exist")
        signer = self._consenters.signer(channel)
        if signer is None:
            raise OrderingRefused(common_pb2.SERVICE_UNAVAILABLE, NO_LEADER)
        channel.lead(signer)
        try:
            await self._registry.faults.at("broadcast.envelope", channel=channel.channel_id)
        except StatusError as fault:
            raise OrderingRefused(common_pb2.SERVICE_UNAVAILABLE, fault.message) from fault
        await channel.order(envelope)

    def at(self, host: str, metrics: OrdererMetrics) -> DuplexMethod:
        """The Broadcast method of one node."""

        async def serve(context: Context) -> None:
            # The stream ends after the first refusal, as an orderer's does.
            while isinstance(envelope := await context.read(), bytes):
                response = ab_pb2.BroadcastResponse(status=common_pb2.SUCCESS)
                started = time.perf_counter()
                try:
                    await self.order(envelope, host)
                except OrderingRefused as error:
                    _log.info("envelope refused", status=error.status)
                    response.status = error.status  # type: ignore[assignment]  # a number on the wire, open in proto3
                    response.info = error.text
                metrics.broadcast(*_labels(envelope), status_name(response.status), time.perf_counter() - started)
                await context.write(response.SerializeToString())
                if response.status != common_pb2.SUCCESS:
                    return

        return serve


def _labels(envelope: bytes) -> tuple[str, str]:
    """Channel and type of an envelope as the metrics of broadcast.go name them."""
    try:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
        header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    except DecodeError:
        return "unknown", "unknown"
    kind = common_pb2.HeaderType.DESCRIPTOR.values_by_number.get(header.type)
    return header.channel_id[:_LABEL_CHARACTERS], kind.name if kind is not None else str(header.type)


def status_name(status: int) -> str:
    """Return the name of a common.Status such as "FORBIDDEN", or its number if it has none."""
    value = common_pb2.Status.DESCRIPTOR.values_by_number.get(status)
    return value.name if value is not None else str(status)


def _channel_id(envelope: bytes) -> str:
    prefix = "could not determine channel ID: "
    try:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
        if not payload.HasField("header"):
            raise OrderingRefused(common_pb2.BAD_REQUEST, f"{prefix}header not set")
        if not payload.header.channel_header:
            raise OrderingRefused(common_pb2.BAD_REQUEST, f"{prefix}channel header not set")
        return common_pb2.ChannelHeader.FromString(payload.header.channel_header).channel_id
    except DecodeError:
        raise OrderingRefused(common_pb2.BAD_REQUEST, f"{prefix}error unmarshalling the envelope") from None
