"""Identities: who signed something, as Fabric serialises and reads them (msp/identities.go, core/chaincode cid)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID
from fabric_protos.msp import identities_pb2
from google.protobuf.message import DecodeError

from sovchain.protocol import crypto
from sovchain.protocol.errors import MalformedError

ATTRIBUTES_OID = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
"""Extension that Fabric CA puts attributes in (fabric-ca lib/attrmgr/attrmgr.go)."""
IDENTITY_MAX_BYTES = 64 * 1024
_CACHE_MAX = 256


@dataclass(frozen=True, eq=False)
class Identity:
    """A parsed identity. Whether its MSP accepts it is for `Msp.validate` to say."""

    msp_id: str
    certificate: x509.Certificate
    serialized: bytes = field(repr=False)

    @cached_property
    def public_key(self) -> crypto.PublicKey:
        """The certificate's key. Raises MalformedError for a kind that Fabric does not accept."""
        key = self.certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | Ed25519PublicKey):
            raise MalformedError("the certificate's key is neither ECDSA nor Ed25519")
        return key

    @cached_property
    def der(self) -> bytes:
        """The certificate in DER, its own signature with low s."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @cached_property
    def unique_id(self) -> tuple[str, str]:
        """MSP id and hash of the sanitised certificate: equal for two forms of one identity (msp/identities.go)."""
        return self.msp_id, hashlib.sha256(self.der).hexdigest()

    @cached_property
    def organizational_units(self) -> tuple[str, ...]:
        """The OU values of the subject, in order."""
        return tuple(
            str(a.value) for a in self.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        )

    @cached_property
    def attributes(self) -> Mapping[str, str]:
        """What Fabric CA's extension claims; empty when it is missing or malformed."""
        try:
            extension = self.certificate.extensions.get_extension_for_oid(ATTRIBUTES_OID).value
        except (x509.ExtensionNotFound, ValueError):
            return {}
        assert isinstance(extension, x509.UnrecognizedExtension)
        try:
            found = json.loads(extension.value)["attrs"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    @property
    def not_before(self) -> datetime:
        """Start of the validity, UTC."""
        return self.certificate.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """End of the validity, UTC. An MSP does not judge it; filters of peers and ordering nodes do."""
        return self.certificate.not_valid_after_utc

    @cached_property
    def client_id(self) -> str:
        """The id that chaincode sees, `x509::subject::issuer` with RFC 4514 names (pkg/cid/cid.go of the chaincode shim)."""
        return f"x509::{_name(self.certificate.subject)}::{_name(self.certificate.issuer)}"

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether this identity signed the message."""
        try:
            return crypto.verify(self.public_key, message, signature)
        except MalformedError:
            return False


def _name(name: x509.Name) -> str:
    return name.rfc4514_string()


def serialize_identity(msp_id: str, certificate_pem: bytes) -> bytes:
    """Return msp.SerializedIdentity bytes: the creator or endorser field of everything that is signed."""
    return identities_pb2.SerializedIdentity(mspid=msp_id, id_bytes=certificate_pem).SerializeToString()


@lru_cache(maxsize=_CACHE_MAX)
def parse_identity(serialized: bytes) -> Identity:
    """Parse a serialised identity; those of late are remembered, since few sign much. Raises MalformedError."""
    if len(serialized) > IDENTITY_MAX_BYTES:
        raise MalformedError(f"the identity has {len(serialized)} bytes, the limit is {IDENTITY_MAX_BYTES}")
    try:
        parsed = identities_pb2.SerializedIdentity.FromString(serialized)
    except DecodeError as error:
        raise MalformedError("the identity is not a SerializedIdentity") from error
    if not parsed.id_bytes.lstrip().startswith(b"-----"):
        raise MalformedError("the identity holds no PEM certificate")
    return Identity(parsed.mspid, crypto.low_s_certificate(parsed.id_bytes), serialized)
