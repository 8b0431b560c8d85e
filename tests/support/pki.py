"""Small certificate authorities for tests of the protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sovchain.protocol.crypto import sign
from sovchain.protocol.identity import serialize_identity

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def name(common_name: str, *units: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class Signer:
    """A certificate with its key, as a member of an MSP."""

    msp_id: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def creator(self) -> bytes:
        return serialize_identity(self.msp_id, pem(self.certificate))

    def sign(self, message: bytes) -> bytes:
        return sign(self.key, message)


@dataclass
class Authority:
    """A certificate authority; `parent` makes it an intermediate one."""

    msp_id: str
    parent: Authority | None = None
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        issuer = self.parent or self
        subject = name(f"ca{'2' if self.parent else ''}.{self.msp_id}")
        builder = (
            self._builder(subject, self.key.public_key(), subject if issuer is self else issuer.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
        )
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    def _builder(self, subject: x509.Name, key: Any, issuer: x509.Name) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW)
            .not_valid_after(NOW + timedelta(days=30))
        )

    def issue(self, common_name: str, *units: str, extension: x509.ExtensionType | None = None) -> Signer:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name(common_name, *units), key.public_key(), self.certificate.subject).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(authority_key, critical=False)
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
        return Signer(self.msp_id, builder.sign(self.key, hashes.SHA256()), key)

    def revoke(self, *signers: Signer) -> bytes:
        """A revocation list, PEM."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(NOW).next_update(NOW + timedelta(days=30))
        for signer in signers:
            entry = (
                x509.RevokedCertificateBuilder().serial_number(signer.certificate.serial_number).revocation_date(NOW)
            )
            builder = builder.add_revoked_certificate(entry.build())
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
