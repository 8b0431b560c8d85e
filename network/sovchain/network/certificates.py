"""Certificates with the profiles that cryptogen and Fabric CA write.

Every signature on a certificate is brought to low S, as a peer would do on reading it (`msp/mspimpl.go`, sanitizeCert),
so that the stored bytes are the ones that everyone sees.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sovchain.network.seed import EPOCH, VALID_DAYS, current_seed
from sovchain.protocol.crypto import low_s_certificate

ATTRIBUTES_OID: Final = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
"""The extension that carries attributes (`lib/attrmgr/attrmgr.go` in Fabric CA)."""

_HALF_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551 // 2
"""Half of the order of P-256."""
_BACKDATED: Final = timedelta(minutes=5)
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1")
"""What a client that reaches a published port on its own machine compares the server's certificate with."""


@dataclass(frozen=True)
class Credential:
    """A certificate and its private key, both PEM (the key PKCS#8). The key is left out of the repr."""

    certificate_pem: bytes
    private_key_pem: bytes = field(repr=False)


@dataclass(frozen=True)
class Validity:
    """From when to when a certificate is valid (UTC)."""

    not_before: datetime
    not_after: datetime

    @classmethod
    def starting(cls, now: datetime, *, days: int) -> Validity:
        """Valid from five minutes before the minute of `now`, for hosts whose clocks are behind, for `days` days.

        Under a seed (`seed.seeded`) all certificates begin at one moment and end in a hundred years.
        """
        if current_seed() is not None:
            return cls(EPOCH, EPOCH + timedelta(days=VALID_DAYS))
        start = now.replace(second=0, microsecond=0) - _BACKDATED
        return cls(start, start + timedelta(days=days))


class CertificateAuthority:
    """A root that signs certificates; one for enrolment and another one for TLS in each organisation."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        self._authority_key_identifier = x509.AuthorityKeyIdentifier(identifier, None, None)

    @property
    def _name(self) -> str:
        return self._certificate.subject.rfc4514_string()

    @classmethod
    def create(cls, common_name: str, organization: str, country: str, validity: Validity) -> CertificateAuthority:
        """Make a self-signed root with a new P-256 key. `country` is a two-letter code or empty."""
        key = _new_key(organization, common_name)
        subject = _name(
            (NameOID.COUNTRY_NAME, country), (NameOID.ORGANIZATION_NAME, organization), common_name=common_name
        )
        builder = (
            _builder(subject, subject, key.public_key(), validity)
            .add_extension(_key_usage(key_encipherment=True, signs_certificates=True), critical=True)
            .add_extension(_BOTH_ENDS_OF_TLS, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier(_key_identifier(key.public_key())), critical=False)
        )
        return cls(_signed(builder, key), key)

    @classmethod
    def from_credential(cls, credential: Credential) -> CertificateAuthority:
        """Read a root back. Raises ValueError when certificate or key is not what `create` makes."""
        key = _load_key(credential.private_key_pem)
        certificate = x509.load_pem_x509_certificate(credential.certificate_pem)
        if certificate.public_key() != key.public_key():
            raise ValueError("the key does not belong to the certificate")
        return cls(certificate, key)

    @property
    def credential(self) -> Credential:
        """Certificate and key, for storing."""
        return _credential(self._certificate, self._key)

    @property
    def certificate_pem(self) -> bytes:
        """The root certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def enroll(
        self,
        common_name: str,
        role: str,
        country: str,
        validity: Validity,
        attributes: Mapping[str, str],
        *,
        key_pem: bytes | None = None,
    ) -> Credential:
        """Sign an enrolment certificate, which signs proposals, endorsements and blocks.

        Args:
            common_name: host name of a node, or `<user>@<domain>`.
            role: the NodeOU: client, peer, admin or orderer.
            country: two-letter code, or empty.
            validity: cut to the validity of the root.
            attributes: claims; `hf.EnrollmentID`, `hf.Type` and `hf.Affiliation` are added as Fabric CA does.
            key_pem: keep this key; otherwise a new P-256 key is made.
        """
        key = _load_key(key_pem) if key_pem else _new_key(self._name, role, common_name)
        subject = _name(
            (NameOID.COUNTRY_NAME, country), (NameOID.ORGANIZATIONAL_UNIT_NAME, role), common_name=common_name
        )
        enrolment_id = common_name.partition("@")[0]
        claims = {"hf.Affiliation": "", "hf.EnrollmentID": enrolment_id, "hf.Type": role, **attributes}
        text = json.dumps({"attrs": dict(sorted(claims.items()))}, ensure_ascii=False, separators=(",", ":"))
        builder = (
            self._leaf(subject, key, validity)
            .add_extension(_key_usage(), critical=True)
            .add_extension(x509.UnrecognizedExtension(ATTRIBUTES_OID, text.encode()), critical=False)
        )
        return _credential(_signed(builder, self._key), key)

    def tls(
        self,
        common_name: str,
        country: str,
        validity: Validity,
        *,
        names: Sequence[str] = (),
        key_pem: bytes | None = None,
    ) -> Credential:
        """Sign a TLS certificate that serves both ends of a connection.

        `names` are its subject alternative names. A node has its host name and `LOOPBACK_NAMES` there; a user's
        certificate has none, so that it cannot pass for a server.
        """
        key = _load_key(key_pem) if key_pem else _new_key(self._name, "tls", common_name)
        builder = (
            self._leaf(_name((NameOID.COUNTRY_NAME, country), common_name=common_name), key, validity)
            .add_extension(_key_usage(key_encipherment=True), critical=True)
            .add_extension(_BOTH_ENDS_OF_TLS, critical=False)
        )
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names)])
            builder = builder.add_extension(alternatives, critical=False)
        return _credential(_signed(builder, self._key), key)

    def revocation_list(self, revoked: Mapping[int, datetime], validity: Validity, *, number: int) -> bytes:
        """Sign a list of revoked certificates, PEM: their serial numbers, and when each was revoked (UTC).

        Peers compare the list's authority key identifier with the root's subject key identifier
        (`validateCertAgainstChain` in msp/mspimplvalidate.go). `number` grows with each list.
        """
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self._certificate.subject, last_update=validity.not_before, next_update=validity.not_after
        )
        for serial, moment in sorted(revoked.items()):
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(serial, moment.replace(microsecond=0)).build()
            )
        builder = builder.add_extension(self._authority_key_identifier, critical=False)
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        return _low_s_list(builder, self._key)

    def _leaf(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, validity: Validity) -> x509.CertificateBuilder:
        root = self._certificate
        within = Validity(
            max(validity.not_before, root.not_valid_before_utc), min(validity.not_after, root.not_valid_after_utc)
        )
        return (
            _builder(subject, root.subject, key.public_key(), within)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(self._authority_key_identifier, critical=False)
        )


_BOTH_ENDS_OF_TLS: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])


def _name(*parts: tuple[x509.ObjectIdentifier, str], common_name: str) -> x509.Name:
    named = [*parts, (NameOID.COMMON_NAME, common_name)]
    return x509.Name([x509.NameAttribute(identifier, text) for identifier, text in named if text])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Host names and addresses that a TLS certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in found if isinstance(name, x509.DNSName | x509.IPAddress))


def _key_usage(*, key_encipherment: bool = False, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_identifier(key: ec.EllipticCurvePublicKey) -> bytes:
    """SHA-256 of the uncompressed point, as `internal/cryptogen/ca/ca.go` computes it."""
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return hashlib.sha256(point).digest()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, validity: Validity
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=_serial_number(subject, issuer, key),
        not_valid_before=validity.not_before,
        not_valid_after=validity.not_after,
    )


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    deterministic = True if current_seed() is not None else None
    signed = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=deterministic)
    return low_s_certificate(signed.public_bytes(serialization.Encoding.DER))


def _new_key(*label: str) -> ec.EllipticCurvePrivateKey:
    seed = current_seed()
    return ec.generate_private_key(ec.SECP256R1()) if seed is None else seed.key(*label)


def _serial_number(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> int:
    seed = current_seed()
    if seed is None:
        return x509.random_serial_number()
    return seed.serial_number(subject.rfc4514_string(), issuer.rfc4514_string(), _key_identifier(key).hex())


def _low_s_list(builder: x509.CertificateRevocationListBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    # The library has no way to put another signature on a list, and every second one has a low S.
    while True:
        signed = builder.sign(key, hashes.SHA256())
        if decode_dss_signature(signed.signature)[1] <= _HALF_ORDER:
            return signed.public_bytes(serialization.Encoding.PEM)


def _credential(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Credential:
    return Credential(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not an elliptic curve key")
    return key
