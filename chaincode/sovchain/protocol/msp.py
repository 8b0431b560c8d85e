"""Membership service providers: which identities an organisation vouches for.

Mirrors msp/mspimplsetup.go (what a configuration must be), msp/mspimplvalidate.go (who is valid) and msp/mspimpl.go
(who is what a principal asks for).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.msp import msp_config_pb2, msp_principal_pb2
from google.protobuf.message import DecodeError

from sovchain.protocol.certification import Chain, is_authority, issued, subject_key, unique_chain
from sovchain.protocol.crypto import low_s_certificate
from sovchain.protocol.errors import ConfigError, InvalidIdentity, MalformedError
from sovchain.protocol.identity import Identity, parse_identity, serialize_identity

Role = Literal["client", "peer", "admin", "orderer"]
CACHE_MAX = 1000
_Principal = msp_principal_pb2.MSPPrincipal
_MspRole = msp_principal_pb2.MSPRole
_ROLES: Mapping[int, Role] = {
    _MspRole.ADMIN: "admin",
    _MspRole.CLIENT: "client",
    _MspRole.PEER: "peer",
    _MspRole.ORDERER: "orderer",
}
_NESTING_MAX = 100
_ECDSA_SIGNATURES = "1.2.840.10045.4."


@dataclass(frozen=True, slots=True)
class _Unit:
    """An organisational unit, and the hash of the chain that must have issued it; an empty hash: any chain."""

    name: str
    certifiers: bytes


class Msp:
    """One organisation's MSP, from its channel configuration."""

    def __init__(self, config: msp_config_pb2.FabricMSPConfig, *, ed25519: bool = True) -> None:
        """For `from_config`, which everybody else uses."""
        self.msp_id = config.name
        self._ed25519 = ed25519
        if not config.root_certs:
            raise ConfigError(f"MSP {config.name} has no root certificate: expected at least one CA certificate")
        self._roots = [low_s_certificate(pem) for pem in config.root_certs]
        self._intermediates = [low_s_certificate(pem) for pem in config.intermediate_certs]
        self._revocations = [self._revocation_list(encoded) for encoded in config.revocation_list]
        self._inner = self._check_authorities()
        self._valid: OrderedDict[bytes, str] = OrderedDict()
        self._units: dict[str, set[bytes]] = {}
        for unit in config.organizational_unit_identifiers:
            certifiers = self._certifiers(unit.certificate)
            self._units.setdefault(unit.organizational_unit_identifier, set()).add(certifiers)
        self._node_units = self._read_node_units(config)
        self._admins = self._read_admins(config)

    @classmethod
    def from_config(cls, config: msp_config_pb2.FabricMSPConfig, *, ed25519: bool = True) -> Msp:
        """Make an MSP from its configuration.

        `ed25519` tells whether keys of that kind are accepted (channels with capability V3_0). Raises ConfigError for
        certificates or lists that cannot be used.
        """
        try:
            return cls(config, ed25519=ed25519)
        except (MalformedError, InvalidIdentity) as error:
            raise ConfigError(f"MSP {config.name}: {error}") from error

    # Setup --------------------------------------------------------------------------------------------------------

    def _check_authorities(self) -> set[x509.Certificate]:
        """Check the authorities and return those that have others below them: they issue no identities."""
        inner: set[x509.Certificate] = set()
        for authority in (*self._roots, *self._intermediates):
            if not is_authority(authority):
                raise ConfigError(f"MSP {self.msp_id}: a CA certificate lacks the CA property")
            if subject_key(authority) is None:
                raise ConfigError(f"MSP {self.msp_id}: a CA certificate lacks the subject key identifier")
            chain = unique_chain(authority, self._roots, self._intermediates)
            if len(chain) > 1 and self._is_revoked(authority, chain[1]):
                raise ConfigError(f"MSP {self.msp_id}: a CA certificate has been revoked")
        for authority in self._intermediates:
            inner.update(unique_chain(authority, self._roots, self._intermediates)[1:])
        return inner

    def _revocation_list(self, encoded: bytes) -> x509.CertificateRevocationList:
        try:
            if encoded.lstrip().startswith(b"-----"):
                return x509.load_pem_x509_crl(encoded)
            return x509.load_der_x509_crl(encoded)
        except ValueError as error:
            raise ConfigError(f"MSP {self.msp_id}: a revocation list cannot be read") from error

    def _certifiers(self, pem: bytes) -> bytes:
        """Return what identities are marked with that an authority issued; it must be one of ours."""
        certificate = low_s_certificate(pem)
        if certificate in self._roots:
            return _chain_hash((certificate,))
        if certificate not in self._intermediates:
            raise ConfigError(f"MSP {self.msp_id}: the certifier of an organisational unit is none of its authorities")
        if certificate in self._inner:
            raise ConfigError(f"MSP {self.msp_id}: the certifier of an organisational unit issues no identities")
        return _chain_hash(unique_chain(certificate, self._roots, self._intermediates))

    def _read_node_units(self, config: msp_config_pb2.FabricMSPConfig) -> Mapping[Role, _Unit] | None:
        """Return the units that tell roles apart; None where they are off."""
        units = config.fabric_node_ous
        found: dict[Role, _Unit] = {}
        for role in _ROLES.values():
            if units.HasField(f"{role}_ou_identifier"):  # type: ignore[arg-type]  # one of four names
                unit: msp_config_pb2.FabricOUIdentifier = getattr(units, f"{role}_ou_identifier")
                certifiers = self._certifiers(unit.certificate) if unit.certificate else b""
                found[role] = _Unit(unit.organizational_unit_identifier, certifiers)
        return found if units.enable and found else None

    def _read_admins(self, config: msp_config_pb2.FabricMSPConfig) -> set[x509.Certificate]:
        admins: set[x509.Certificate] = set()
        for pem in config.admins:
            identity = parse_identity(serialize_identity(self.msp_id, pem))
            self.check_chain(identity)
            if self._node_units is None:
                self._check(identity)
            elif not any(self._has_unit(identity, role) for role in ("client", "admin")):
                raise ConfigError(f"MSP {self.msp_id}: a listed administrator is neither a client nor an admin")
            admins.add(identity.certificate)
        if not admins and (self._node_units is None or "admin" not in self._node_units):
            raise ConfigError(
                f"MSP {self.msp_id}: administrators must be declared when no admin ou classification is set"
            )
        return admins

    # Who is valid -------------------------------------------------------------------------------------------------

    def check_chain(self, identity: Identity) -> None:
        """Check what Fabric needs a chain for before it takes a certificate for an identity at all.

        A certificate with an ECDSA signature is brought to low s, for which its issuer must be known (msp/mspimpl.go
        sanitizeCert). Raises InvalidIdentity.
        """
        certificate = identity.certificate
        if not certificate.signature_algorithm_oid.dotted_string.startswith(_ECDSA_SIGNATURES):
            return
        if is_authority(certificate) and issued(certificate, certificate):
            return
        unique_chain(certificate, self._roots, self._intermediates)

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
        key = identity.certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) and not (self._ed25519 and isinstance(key, Ed25519PublicKey)):
            raise InvalidIdentity("could not validate identity's public key algorithm: it is not supported")
        chain = self._chain(identity)
        if self._is_revoked(identity.certificate, chain[1]):
            raise InvalidIdentity(
                "could not validate identity against certification chain: The certificate has been revoked"
            )
        try:
            self._check_units(identity, _chain_hash(chain[1:]))
        except InvalidIdentity as error:
            raise InvalidIdentity(f"could not validate identity's OUs: {error}") from error

    def _chain(self, identity: Identity) -> Chain:
        """Return the chain of a certificate that may be an identity."""
        prefix = "could not obtain certification chain: "
        if is_authority(identity.certificate):
            raise InvalidIdentity(
                f"{prefix}An X509 certificate with Basic Constraint: "
                "Certificate Authority equals true cannot be used as an identity"
            )
        try:
            chain = unique_chain(identity.certificate, self._roots, self._intermediates)
        except InvalidIdentity as error:
            raise InvalidIdentity(f"{prefix}failed getting validation chain: {error}") from error
        if len(chain) < 2:
            raise InvalidIdentity(f"{prefix}expected a chain of length at least 2, got {len(chain)}")
        if chain[1] in self._inner:
            raise InvalidIdentity(
                f"{prefix}invalid validation chain. Parent certificate should be a leaf of the certification tree"
            )
        return chain

    def _is_revoked(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        """Whether a list that the issuer signed has the certificate; the time of the revocation does not count."""
        for revocations in self._revocations:
            try:
                authority = revocations.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
            except (x509.ExtensionNotFound, ValueError) as error:
                raise InvalidIdentity("could not obtain Authority Key Identifier for crl") from error
            if authority.key_identifier != subject_key(issuer):
                continue
            if revocations.get_revoked_certificate_by_serial_number(certificate.serial_number) is None:
                continue
            key = issuer.public_key()
            if isinstance(key, ec.EllipticCurvePublicKey | Ed25519PublicKey) and revocations.is_signature_valid(key):
                return True
        return False

    def _check_units(self, identity: Identity, certifiers: bytes) -> None:
        units = identity.organizational_units
        if self._units and not any(certifiers in self._units.get(unit, ()) for unit in units):
            if not units:
                raise InvalidIdentity("the identity certificate does not contain an Organizational Unit (OU)")
            raise InvalidIdentity(f"none of the identity's organizational units {list(units)} are in MSP {self.msp_id}")
        if self._node_units is None:
            return
        by_name = {unit.name: unit for unit in self._node_units.values()}
        count = 0
        for name in units:
            unit = by_name.get(name)
            if unit is None:
                continue
            if unit.certifiers and unit.certifiers != certifiers:
                raise InvalidIdentity(f"certifiersIdentifier does not match: [{name}], MSP: [{self.msp_id}]")
            count += 1
            if count > 1:
                raise InvalidIdentity(
                    "the identity must have a client, a peer, an orderer, or an admin OU role to be valid, not a "
                    f"combination of them. OUs: {list(units)}, MSP: [{self.msp_id}]"
                )
        if not count:
            raise InvalidIdentity(
                "the identity does not have an OU that resolves to client, peer, orderer, or admin role. "
                f"OUs: {list(units)}, MSP: [{self.msp_id}]"
            )

    # Who is what --------------------------------------------------------------------------------------------------

    def role(self, identity: Identity) -> Role | None:
        """The role that the identity's node unit gives it, None where units are off. Raises InvalidIdentity."""
        self.validate(identity)
        if self._node_units is None:
            return "admin" if identity.certificate in self._admins else None
        return next((role for role in self._node_units if self._has_unit(identity, role)), None)

    def _has_unit(self, identity: Identity, role: Role) -> bool:
        unit = (self._node_units or {}).get(role)
        return unit is not None and unit.name in identity.organizational_units

    def satisfies(self, identity: Identity, principal: msp_principal_pb2.MSPPrincipal) -> bool:
        """Whether the identity is what the principal asks for; False for anything malformed."""
        try:
            return all(self._satisfies(identity, part) for part in _parts(principal))
        except (InvalidIdentity, DecodeError, MalformedError):
            return False

    def _satisfies(self, identity: Identity, principal: msp_principal_pb2.MSPPrincipal) -> bool:
        match principal.principal_classification:
            case _Principal.ROLE:
                return self._has_role(identity, _MspRole.FromString(principal.principal))
            case _Principal.IDENTITY:
                other = parse_identity(principal.principal)
                if other.msp_id != self.msp_id or other.certificate != identity.certificate:
                    return False
                self.check_chain(other)
                self.validate(other)
                return True
            case _Principal.ORGANIZATION_UNIT:
                unit = msp_principal_pb2.OrganizationUnit.FromString(principal.principal)
                if unit.msp_identifier != self.msp_id:
                    return False
                self.validate(identity)
                certifiers = _chain_hash(self._chain(identity)[1:])
                return (
                    unit.organizational_unit_identifier in identity.organizational_units
                    and unit.certifiers_identifier == certifiers
                )
            case _Principal.ANONYMITY:
                wanted = msp_principal_pb2.MSPIdentityAnonymity.FromString(principal.principal)
                return wanted.anonymity_type == msp_principal_pb2.MSPIdentityAnonymity.NOMINAL
            case _:
                return False

    def _has_role(self, identity: Identity, wanted: msp_principal_pb2.MSPRole) -> bool:
        if wanted.msp_identifier != self.msp_id:
            return False
        if wanted.role == _MspRole.ADMIN and identity.certificate in self._admins:
            return True  # checked when the MSP was set up
        self.validate(identity)
        if wanted.role == _MspRole.MEMBER:
            return True
        role = _ROLES.get(wanted.role)
        return role is not None and self._has_unit(identity, role)


def _chain_hash(chain: Chain) -> bytes:
    """Return what marks the identities that a chain of authorities issued."""
    return hashlib.sha256(b"".join(authority.public_bytes(Encoding.DER) for authority in chain)).digest()


def _parts(principal: msp_principal_pb2.MSPPrincipal, depth: int = 0) -> list[msp_principal_pb2.MSPPrincipal]:
    """Return the principals that a combined one is made of, all of which must hold."""
    if principal.principal_classification != _Principal.COMBINED:
        return [principal]
    parts = msp_principal_pb2.CombinedPrincipal.FromString(principal.principal).principals
    if not parts or depth > _NESTING_MAX:
        raise MalformedError("No principals in CombinedPrincipal")
    return [found for part in parts for found in _parts(part, depth + 1)]


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
            self.msp(identity.msp_id).check_chain(identity)
            self._identities[serialized] = identity
            if len(self._identities) > CACHE_MAX:
                self._identities.popitem(last=False)
        return identity

    def validate(self, identity: Identity) -> None:
        """Check the identity with its organisation's MSP. Raises InvalidIdentity."""
        self.msp(identity.msp_id).validate(identity)

    def satisfies(self, identity: Identity, principal: msp_principal_pb2.MSPPrincipal) -> bool:
        """Whether the identity is what the principal asks for."""
        key = (identity.serialized, principal.SerializeToString())
        found = self._answers.get(key)
        if found is None:
            found = identity.msp_id in self._msps and self._msps[identity.msp_id].satisfies(identity, principal)
            self._answers[key] = found
            if len(self._answers) > 4 * CACHE_MAX:
                self._answers.popitem(last=False)
        return found
