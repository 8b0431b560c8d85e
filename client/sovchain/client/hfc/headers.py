"""Headers and identities as the dictionaries that hfc's callers know."""

from __future__ import annotations

import binascii
from datetime import UTC, datetime
from typing import Any, Final

from fabric_protos.common import common_pb2
from fabric_protos.msp import identities_pb2

TYPES: Final[dict[int, str]] = {number: name for name, number in common_pb2.HeaderType.items()}


def decode_header(header: common_pb2.Header) -> dict[str, Any]:
    """A payload's header. Raises google.protobuf.message.DecodeError."""
    channel = common_pb2.ChannelHeader.FromString(header.channel_header)
    return {
        "channel_header": {
            "type": channel.type,
            "version": channel.version,
            "timestamp": f"{datetime.fromtimestamp(channel.timestamp.seconds, UTC):%Y-%m-%d %H:%M:%S}",
            "channel_id": channel.channel_id,
            "tx_id": channel.tx_id,
            "epoch": channel.epoch,
            "extension": channel.extension,
        },
        "signature_header": decode_signature_header(header.signature_header),
    }


def decode_signature_header(data: bytes) -> dict[str, Any]:
    """Who signed, and the nonce."""
    header = common_pb2.SignatureHeader.FromString(data)
    return {"creator": decode_identity(header.creator), "nonce": binascii.b2a_hex(header.nonce)}


def decode_identity(data: bytes) -> dict[str, Any]:
    """An MSP id with the certificate."""
    identity = identities_pb2.SerializedIdentity.FromString(data)
    return {"mspid": identity.mspid, "id_bytes": identity.id_bytes.decode(errors="replace")}
