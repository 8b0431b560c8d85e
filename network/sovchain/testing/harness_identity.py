"""Identities for the harness: real certificates with the attributes that a test wants, made once for each combination."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sovchain.protocol.identity import ATTRIBUTES_OID, serialize_identity

_FROM = datetime(2020, 1, 1, tzinfo=UTC)
_UNTIL = datetime(2120, 1, 1, tzinfo=UTC)


@cache
def _key() -> ec.EllipticCurvePrivateKey:
    # One key for all: nothing in the harness is signed with it but these certificates.
    return ec.generate_private_key(ec.SECP256R1())


@cache
def identity(msp_id: str, user: str, unit: str, attributes: tuple[tuple[str, str], ...]) -> bytes:
    """A marshalled `SerializedIdentity`."""
    domain = f"{msp_id.removesuffix('MSP').lower()}.example"
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{user}@{domain}"),
        ]
    )
    claims = json.dumps({"attrs": dict(attributes)}).encode()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ca.{domain}")]))
        .public_key(_key().public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.UnrecognizedExtension(ATTRIBUTES_OID, claims), critical=False)
        .sign(_key(), hashes.SHA256())
    )
    return serialize_identity(msp_id, certificate.public_bytes(serialization.Encoding.PEM))
