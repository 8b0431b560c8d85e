"""TLS and transport settings of the embedded nodes' servers, and the TLS material of connections to chaincode."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from sovchain.rpc.connection import Keepalive
from sovchain.rpc.http2 import Limits

MAX_MESSAGE_BYTES = 100 * 1024 * 1024
"""Largest gRPC message in either direction, as in internal/pkg/comm/config.go."""

SERVER_KEEPALIVE = Keepalive(idle_s=7200.0, timeout_s=20.0)
"""As sampleconfig/core.yaml peer.keepalive: the server pings after two idle hours."""
SERVER_LIMITS = Limits(message_bytes=MAX_MESSAGE_BYTES, streams=4096, stream_window=1024 * 1024)
"""What a node takes on one connection. Peers have no limit of streams but those of each service."""
MAX_CONNECTIONS = 1000


@dataclass(frozen=True)
class ClientTls:
    """TLS of a client connection: the roots to trust and, for mutual TLS, the own certificate and key (PEM)."""

    root_pem: bytes
    certificate_pem: bytes | None = None
    private_key_pem: bytes | None = field(default=None, repr=False)


def check_server_tls(certificate_pem: bytes, private_key_pem: bytes, *, client_root_pems: bytes | None = None) -> None:
    """Check the material of a TLS server, which gRPC would refuse without telling it from an address in use.

    Raises ValueError, which says what cannot be used.
    """
    try:
        certificate_key = _public_bytes(x509.load_pem_x509_certificates(certificate_pem)[0].public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("the TLS certificate is no PEM certificate that can be used") from None
    try:
        key = serialization.load_pem_private_key(private_key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("the private key of the TLS certificate is no unencrypted PEM key that can be used") from None
    if _public_bytes(key.public_key()) != certificate_key:
        raise ValueError("the TLS certificate and its private key do not belong together")
    if client_root_pems is not None:
        try:
            x509.load_pem_x509_certificates(client_root_pems)
        except ValueError:
            raise ValueError("the TLS roots of clients hold no PEM certificate that can be used") from None


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
