"""Certificates that a test needs spoiled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def expire(organization: Path, user: str) -> None:
    """Replace a user's certificate by one from the same authority whose validity has ended."""
    (authority_file,) = (organization / "ca").glob("*-cert.pem")
    authority = x509.load_pem_x509_certificate(authority_file.read_bytes())
    key = serialization.load_pem_private_key((organization / "ca" / "priv_sk").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    (file,) = (organization / "users" / user / "msp" / "signcerts").glob("*.pem")
    old = x509.load_pem_x509_certificate(file.read_bytes())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(authority.subject)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now - timedelta(days=1))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
