"""Membership service providers: which identities an organisation vouches for (msp/mspimpl.go, mspimplvalidate.go)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.msp import msp_config_pb2, msp_principal_pb2
from google.protobuf.message import DecodeError

from sovchain.protocol.crypto import low_s_certificate
from sovchain.protocol.errors import ConfigError, InvalidIdentity, MalformedError
from sovchain.protocol.identity import Identity, parse_identity

Role = Literal["client", "peer", "admin", "orderer"]
CACHE_MAX = 1000
_Principal = msp_principal_pb2.MSPPrincipal
_MspRole = msp_principal_pb2.MSPRole


def _issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    if child.issuer != parent.subject:
        return False
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _subject_key(certificate: x509.Certificate) -> bytes | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, ValueError):
        return None


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


class Msp:
    """One organisation's MSP, from its channel configuration."""

    def __init__(self, config: msp_config_pb2.FabricMSPConfig) -> None:
        self.msp_id = config.name
        self._roots = [self._authority(pem) for pem in config.root_certs]
        self._intermediates = [self._authority(pem) for pem in config.intermediate_certs]
        if not self._roots:
            raise ConfigError(f"MSP {config.name} has no root certificate")
        self._authorities = [*self._roots, *self._intermediates]
        parents = {id(p) for c in self._intermediates for p in self._authorities if p is not c and _issued(c, p)}
        self._issuers = [a for a in self._authorities if id(a) not in parents]
        self._admins = {low_s_certificate(pem) for pem in config.admins}
        self._revoked = self._revocations(config.revocation_list)
        self._ous = config.fabric_node_ous if config.fabric_node_ous.enable else None
        self._valid: OrderedDict[bytes, str] = OrderedDict()

    @classmethod
    def from_config(cls, config: msp_config_pb2.FabricMSPConfig) -> Msp:
        """Make an MSP from its configuration. Raises ConfigError for certificates or lists that cannot be used."""
        try:
            return cls(config)
        except MalformedError as error:
            raise ConfigError(f"MSP {config.name}: {error}") from error

    def _authority(self, pem: bytes) -> x509.Certificate:
        certificate = low_s_certificate(pem)
        if not _is_ca(certificate):
            raise ConfigError(f"MSP {self.msp_id}: a CA certificate lacks the CA property")
        if _subject_key(certificate) is None:
            raise ConfigError(f"MSP {self.msp_id}: a CA certificate lacks the subject key identifier")
        return certificate

    def _revocations(self, lists: Iterable[bytes]) -> set[tuple[bytes, int]]:
        revoked: set[tuple[bytes, int]] = set()
        for encoded in lists:
            try:
                crl = (
                    x509.load_pem_x509_crl(encoded)
                    if encoded.lstrip().startswith(b"-----")
                    else x509.load_der_x509_crl(encoded)
                )
                aki = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
            except (ValueError, x509.ExtensionNotFound) as error:
                raise ConfigError(f"MSP {self.msp_id}: a revocation list cannot be read") from error
            for authority in self._authorities:
                key = authority.public_key()
                if not isinstance(key, ec.EllipticCurvePublicKey | Ed25519PublicKey):
                    continue
                if aki == _subject_key(authority) and crl.is_signature_valid(key):
                    revoked.update((aki or b"", entry.serial_number) for entry in crl)
        return revoked

    def _chain(self, certificate: x509.Certificate) -> list[x509.Certificate]:
        for issuer in self._issuers:
            if _issued(certificate, issuer):
                chain = [issuer]
                while (
                    parent := next((p for p in self._authorities if p not in chain and _issued(chain[-1], p)), None)
                ) is not None:
                    chain.append(parent)
                if chain[-1] in self._roots:
                    return chain
        raise InvalidIdentity("could not obtain certification chain: x509: certificate signed by unknown authority")

    def validate(self, identity: Identity) -> None:
        """Raises InvalidIdentity. Expiry is not judged here, as in Fabric."""
        found = self._valid.get(identity.serialized)
        if found is None:
            try:
                self._check(identity)
                found = ""
            except InvalidIdentity as error:
                found = str(error)
            self._valid[identity.serialized] = found
            if len(self._valid) > CACHE_MAX:
                self._valid.popitem(last=False)
        if found:
            raise InvalidIdentity(found)

    def _check(self, identity: Identity) -> None:
        if identity.msp_id != self.msp_id:
            raise InvalidIdentity(f"expected MSP ID {self.msp_id}, received {identity.msp_id}")
        if _is_ca(identity.certificate):
            raise InvalidIdentity(
                "An X509 certificate with Basic Constraint: Certificate Authority equals true cannot be used as an identity"
            )
        chain = [identity.certificate, *self._chain(identity.certificate)]
        for child, parent in pairwise(chain):
            if (_subject_key(parent) or b"", child.serial_number) in self._revoked:
                raise InvalidIdentity("The certificate has been revoked")
        if self._ous is not None:
            self._role(identity, chain)

    def _role(self, identity: Identity, chain: list[x509.Certificate]) -> Role:
        assert self._ous is not None
        names: dict[str, tuple[Role, bytes]] = {}
        pairs: tuple[tuple[Role, msp_config_pb2.FabricOUIdentifier], ...] = (
            ("client", self._ous.client_ou_identifier),
            ("peer", self._ous.peer_ou_identifier),
            ("admin", self._ous.admin_ou_identifier),
            ("orderer", self._ous.orderer_ou_identifier),
        )
        for role, ou in pairs:
            if ou.organizational_unit_identifier:
                names[ou.organizational_unit_identifier] = (role, ou.certificate)
        roles = []
        for unit in identity.organizational_units:
            if unit in names:
                role, certifier = names[unit]
                if certifier and low_s_certificate(certifier) not in chain[1:]:
                    raise InvalidIdentity(f"certifiersIdentifier does not match: [{unit}], MSP: [{self.msp_id}]")
                roles.append(role)
        if not roles:
            raise InvalidIdentity(
                "the identity does not have an OU that resolves to client, peer, orderer, or admin role. "
                f"OUs: {list(identity.organizational_units)}, MSP: [{self.msp_id}]"
            )
        if len(roles) > 1:
            raise InvalidIdentity(
                "the identity must be a client, a peer, an orderer, or an admin identity to be valid, not a combination of them. "
                f"OUs: {list(identity.organizational_units)}, MSP: [{self.msp_id}]"
            )
        return roles[0]

    def role(self, identity: Identity) -> Role | None:
        """The role that the identity's node unit gives it, None where units are off. Raises InvalidIdentity."""
        self.validate(identity)
        if self._ous is None:
            return "admin" if identity.certificate in self._admins else None
        return self._role(identity, [identity.certificate, *self._chain(identity.certificate)])

    def satisfies(self, identity: Identity, principal: msp_principal_pb2.MSPPrincipal) -> bool:
        """Whether the identity is what the principal asks for; False for anything malformed (msp/mspimpl.go SatisfiesPrincipal)."""
        try:
            return self._satisfies(identity, principal)
        except (InvalidIdentity, DecodeError, MalformedError):
            return False

    def _satisfies(self, identity: Identity, principal: msp_principal_pb2.MSPPrincipal) -> bool:
        kind = principal.principal_classification
        if kind == _Principal.ROLE:
            role = _MspRole.FromString(principal.principal)
            if role.msp_identifier != self.msp_id or identity.msp_id != self.msp_id:
                return False
            self.validate(identity)
            if role.role == _MspRole.MEMBER:
                return True
            if role.role == _MspRole.ADMIN and identity.certificate in self._admins:
                return True
            wanted = {
                _MspRole.ADMIN: "admin",
                _MspRole.CLIENT: "client",
                _MspRole.PEER: "peer",
                _MspRole.ORDERER: "orderer",
            }
            return self._ous is not None and self.role(identity) == wanted.get(role.role)
        if kind == _Principal.IDENTITY:
            other = parse_identity(principal.principal)
            self.validate(identity)
            return other.msp_id == identity.msp_id and other.certificate == identity.certificate
        if kind == _Principal.ORGANIZATION_UNIT:
            ou = msp_principal_pb2.OrganizationUnit.FromString(principal.principal)
            if ou.msp_identifier != self.msp_id:
                return False
            self.validate(identity)
            if ou.organizational_unit_identifier not in identity.organizational_units:
                return False
            chain = self._chain(identity.certificate)
            digest = hashlib.sha256(b"".join(c.public_bytes(Encoding.DER) for c in chain)).digest()
            return not ou.certifiers_identifier or ou.certifiers_identifier == digest
        if kind == _Principal.COMBINED:
            parts = msp_principal_pb2.CombinedPrincipal.FromString(principal.principal).principals
            return bool(parts) and all(self._satisfies(identity, part) for part in parts)
        return False


class MspManager:
    """The MSPs of one channel (msp/mspmgrimpl.go). Parsed identities and answers are kept, so that repeats are cheap."""

    def __init__(self, msps: Iterable[Msp]) -> None:
        self._msps = {msp.msp_id: msp for msp in msps}
        self._identities: OrderedDict[bytes, Identity] = OrderedDict()
        self._answers: OrderedDict[tuple[bytes, bytes], bool] = OrderedDict()

    @property
    def msp_ids(self) -> tuple[str, ...]:
        """The organisations' MSP ids, sorted."""
        return tuple(sorted(self._msps))

    def msp(self, msp_id: str) -> Msp:
        """The MSP of an organisation. Raises InvalidIdentity for an unknown one."""
        try:
            return self._msps[msp_id]
        except KeyError:
            raise InvalidIdentity(f"MSP {msp_id} is unknown") from None

    def deserialize(self, serialized: bytes) -> Identity:
        """Parse an identity of a known organisation; it is not validated yet. Raises InvalidIdentity."""
        identity = self._identities.get(serialized)
        if identity is None:
            try:
                identity = parse_identity(serialized)
            except MalformedError as error:
                raise InvalidIdentity(str(error)) from error
            self.msp(identity.msp_id)
            self._identities[serialized] = identity
            if len(self._identities) > CACHE_MAX:
                self._identities.popitem(last=False)
        return identity

    def validate(self, identity: Identity) -> None:
        """Check the identity with its organisation's MSP. Raises InvalidIdentity."""
        self.msp(identity.msp_id).validate(identity)

    def satisfies(self, identity: Identity, principal: msp_principal_pb2.MSPPrincipal) -> bool:
        key = (identity.serialized, principal.SerializeToString())
        found = self._answers.get(key)
        if found is None:
            found = identity.msp_id in self._msps and self._msps[identity.msp_id].satisfies(identity, principal)
            self._answers[key] = found
            if len(self._answers) > 4 * CACHE_MAX:
                self._answers.popitem(last=False)
        return found
