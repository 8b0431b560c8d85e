"""Certificate signing requests, and checking what comes back for them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sovchain.client.ca.errors import CaRequestError
from sovchain.protocol.crypto import PrivateKey, PublicKey, load_certificate
from sovchain.protocol.errors import MalformedError

COMMON_NAME_MAX: Final = 64
"""X.509's limit, which Fabric CA applies to enrolment ids (`csrInputLengthCheck` in lib/serverenroll.go)."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key, which is what Fabric uses by default."""
    return ec.generate_private_key(ec.SECP256R1())


def signing_request(enrollment_id: str, key: PrivateKey, hosts: Sequence[str] = ()) -> str:
    """Return a request, PEM, for a certificate with this common name and these subject alternative names.

    The authority sets the organisational units itself. Raises CaRequestError.
    """
    if not 0 < len(enrollment_id) <= COMMON_NAME_MAX:
        raise CaRequestError(
            "enrollment_id", f"it has {len(enrollment_id)} characters", f"give 1 to {COMMON_NAME_MAX} characters"
        )
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CaRequestError("key", "Fabric CA certifies ECDSA keys", "give a P-256 or P-384 key")
    builder = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, enrollment_id)]))
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in hosts]), False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise CaRequestError("hosts", f"{name!r} is neither a host name nor an address", "correct it") from None


def read_request(request_pem: bytes) -> tuple[str, PublicKey]:
    """Return the common name and the public key of a request that was signed elsewhere. Raises CaRequestError."""
    try:
        request = x509.load_pem_x509_csr(request_pem)
        if not request.is_signature_valid:
            raise CaRequestError("request", "its signature is wrong", "sign it with the key that it names")
        key = request.public_key()
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        raise CaRequestError("request", "it is no certificate signing request", "give a PEM request") from None
    names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not isinstance(key, ec.EllipticCurvePublicKey):
        raise CaRequestError("request", "it lacks a common name or an ECDSA key", "give it the enrolment id and a key")
    return str(names[0].value), key


def mismatch(certificate_pem: bytes, enrollment_id: str, key: PublicKey) -> str:
    """Say why a certificate is not what was asked for; empty when it is."""
    try:
        certificate = load_certificate(certificate_pem)
    except MalformedError:
        return "there is no certificate in the reply"
    if certificate.public_key() != key:
        return "the certificate is for another key"
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [enrollment_id]:
        return "the certificate is for another name"
    return ""
