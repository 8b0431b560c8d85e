"""Signatures as Fabric makes and checks them (bccsp/sw/ecdsa.go, msp/identities.go). Pure functions."""

from __future__ import annotations

import hashlib
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sovchain.protocol.errors import MalformedError

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | Ed25519PrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | Ed25519PublicKey

_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for a certificate that it cannot read."""
_PREHASHED: Final = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
_DETERMINISTIC: Final = ec.ECDSA(utils.Prehashed(hashes.SHA256()), deterministic_signing=True)
_ORDER: Final = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 digest, the only hash of the default MSP (msp/identities.go getHashOpt)."""
    return hashlib.sha256(data).digest()


def low_s(signature: bytes, order: int) -> bytes:
    """Return the DER signature with s in the lower half of the curve's order. Raises ValueError for no DER signature."""
    r, s = utils.decode_dss_signature(signature)
    return utils.encode_dss_signature(r, order - s) if s > order // 2 else signature


def _order(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> int:
    try:
        return _ORDER[key.curve.name]
    except KeyError:
        raise MalformedError(f"curve {key.curve.name} is not supported: use P-256 or P-384") from None


def sign(key: PrivateKey, message: bytes, *, deterministic: bool = False) -> bytes:
    """Sign a message: ECDSA over its SHA-256 in DER with low s, or Ed25519 over the message itself.

    With `deterministic` an ECDSA signature has no random part (RFC 6979), so the same bytes are signed the same.

    Raises MalformedError for a curve that Fabric's MSP does not accept."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    return low_s(key.sign(sha256(message), _DETERMINISTIC if deterministic else _PREHASHED), _order(key))


def normalize_signature(key: PublicKey, signature: bytes) -> bytes:
    """Return a foreign signature in the form that `verify` takes: ECDSA as DER with low s, Ed25519 as it is.

    Key services and HSMs give ECDSA signatures as DER or as r and s of the curve's length one after the other, and with
    a high s every other time. Raises MalformedError for anything else.
    """
    if isinstance(key, Ed25519PublicKey):
        return signature
    order = _order(key)
    size = (order.bit_length() + 7) // 8
    if len(signature) == 2 * size and not _is_der(signature):
        numbers = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        signature = utils.encode_dss_signature(*numbers)
    try:
        return low_s(signature, order)
    except ValueError as error:
        raise MalformedError(f"it is neither DER nor {2 * size} bytes of r and s") from error


def _is_der(signature: bytes) -> bool:
    try:
        utils.decode_dss_signature(signature)
    except ValueError:
        return False
    return True


def verify(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether the signature is good. A high s is refused (bccsp/sw/ecdsa.go); malformed bytes are False, never an error."""
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
            return True
        _, s = utils.decode_dss_signature(signature)
        if s > _order(key) // 2:
            return False
        key.verify(signature, sha256(message), _PREHASHED)
    except (InvalidSignature, ValueError, MalformedError):
        return False
    return True


def load_private_key(pem: bytes) -> PrivateKey:
    """Load a PKCS#8 or SEC1 PEM key: ECDSA P-256, P-384 or Ed25519. Raises MalformedError; the key is never echoed."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise MalformedError("the private key is not an unencrypted PEM key") from error
    if isinstance(key, ec.EllipticCurvePrivateKey):
        _order(key)
        return key
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise MalformedError("the private key is neither ECDSA nor Ed25519")


def load_certificate(data: bytes) -> x509.Certificate:
    """Load a PEM or DER certificate of which every field that is read later can be read.

    The library reads names, key, times and extensions only when they are asked for, and raises then. Go's
    `x509.ParseCertificate`, and with it a peer, refuses such a certificate at once. Raises MalformedError.
    """
    try:
        certificate = (
            x509.load_pem_x509_certificate(data)
            if data.lstrip().startswith(b"-----")
            else x509.load_der_x509_certificate(data)
        )
        _ = certificate.subject, certificate.issuer, certificate.signature_algorithm_oid, certificate.serial_number
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.extensions
        _ = certificate.public_key()
        if certificate.serial_number < 0:
            raise ValueError("x509: negative serial number")
    except _UNREADABLE as error:
        raise MalformedError("the bytes are not an X.509 certificate") from error
    return certificate


def low_s_certificate(data: bytes) -> x509.Certificate:
    """Load a PEM or DER certificate and bring its own ECDSA signature to low-S (msp/cert.go sanitizeECDSASignedCert).

    Raises MalformedError.
    """
    certificate = load_certificate(data)
    hash_name = certificate.signature_algorithm_oid.dotted_string
    if not hash_name.startswith("1.2.840.10045.4."):
        return certificate
    # The issuer's curve is not in the certificate; the length of r and s tells P-256 from P-384 well enough,
    # because an s above half of P-256's order but of 32 bytes is low on P-384 with overwhelming probability.
    try:
        _, s = utils.decode_dss_signature(certificate.signature)
    except ValueError as error:
        raise MalformedError("the certificate's signature is not an ECDSA signature") from error
    # What stands around the signature is not covered by it: only its one encoding is taken.
    if _with_signature(certificate, certificate.signature) != certificate.public_bytes(serialization.Encoding.DER):
        raise MalformedError("the certificate's signature is not encoded as DER asks")
    order = _ORDER["secp256r1"] if s.bit_length() <= 256 else _ORDER["secp384r1"]
    fixed = low_s(certificate.signature, order)
    if fixed == certificate.signature:
        return certificate
    return x509.load_der_x509_certificate(_with_signature(certificate, fixed))


def _with_signature(certificate: x509.Certificate, signature: bytes) -> bytes:
    algorithm = _algorithm_bytes(
        certificate.public_bytes(serialization.Encoding.DER), len(certificate.tbs_certificate_bytes)
    )
    bits = b"\x00" + signature
    body = certificate.tbs_certificate_bytes + algorithm + b"\x03" + _der_length(len(bits)) + bits
    return b"\x30" + _der_length(len(body)) + body


def _algorithm_bytes(der: bytes, tbs_length: int) -> bytes:
    start = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0) + tbs_length
    return der[start : start + 2 + der[start + 1]]


def _der_length(length: int) -> bytes:
    if length < 0x80:
        return bytes([length])
    encoded = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(encoded)]) + encoded
