"""The signed request that a stream of blocks begins with (common.Envelope with orderer.SeekInfo)."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2

from sovchain.client.identity import Identity
from sovchain.protocol.proposals import datetime_to_timestamp

FOREVER: Final = 2**64 - 1
NEXT_COMMIT: Final = ab_pb2.SeekPosition(next_commit=ab_pb2.SeekNextCommit())
NEWEST: Final = ab_pb2.SeekPosition(newest=ab_pb2.SeekNewest())


def from_block(number: int) -> ab_pb2.SeekPosition:
    """The place before a block."""
    return ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=number))


def seek_payload(
    identity: Identity,
    channel_id: str,
    start: ab_pb2.SeekPosition,
    stop: int | None,
    client_certificate_pem: bytes | None,
) -> bytes:
    """What is signed. A peer refuses it once it is older than its time window, 15 minutes by default."""
    seek = ab_pb2.SeekInfo(
        start=start,
        stop=from_block(FOREVER if stop is None else stop),
        behavior=ab_pb2.SeekInfo.BLOCK_UNTIL_READY,
    )
    header = common_pb2.ChannelHeader(
        type=common_pb2.DELIVER_SEEK_INFO,
        channel_id=channel_id,
        timestamp=datetime_to_timestamp(datetime.now(UTC)),
        tls_cert_hash=certificate_hash(client_certificate_pem),
    )
    return common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=header.SerializeToString(),
            signature_header=common_pb2.SignatureHeader(creator=identity.creator).SerializeToString(),
        ),
        data=seek.SerializeToString(),
    ).SerializeToString()


async def seek_envelope(
    identity: Identity,
    channel_id: str,
    start: ab_pb2.SeekPosition,
    stop: int | None,
    client_certificate_pem: bytes | None,
) -> bytes:
    """The same, signed. Raises SignatureMissing, SignatureRefused."""
    payload = seek_payload(identity, channel_id, start, stop, client_certificate_pem)
    signature = await identity.sign_async(payload)
    return common_pb2.Envelope(payload=payload, signature=signature).SerializeToString()


def certificate_hash(client_certificate_pem: bytes | None) -> bytes:
    """What binds a request to a mutual TLS connection (common/deliver/binding.go): SHA-256 of the client certificate."""
    if client_certificate_pem is None:
        return b""
    certificate = x509.load_pem_x509_certificate(client_certificate_pem)
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
