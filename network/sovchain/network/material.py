"""Keys and certificates of a network, in the folders and under the names that cryptogen uses.

    <root>/peerOrganizations/<domain>/{ca,tlsca,msp,peers/peer<n>.<domain>/{msp,tls},users/<User>@<domain>/{msp,tls}}
    <root>/ordererOrganizations/<domain>/{ca,tlsca,msp,orderers/<host>/{msp,tls},users/Admin@<domain>/{msp,tls}}

Each organisation has two roots, one for enrolment and one for TLS: the two have different meanings in an MSP. Folders
have mode 0700 and files 0600. The whole tree appears in one step, so an interrupted start leaves all of it or nothing.
Mirrors `internal/cryptogen/msp/msp.go` and `cmd/cryptogen/main.go` in Fabric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography import x509
from fabric_protos.msp import msp_config_pb2

from sovchain.network.certificates import LOOPBACK_NAMES, CertificateAuthority, Credential, Validity
from sovchain.network.errors import InstanceDamaged, UnknownName
from sovchain.network.files import write_file, write_tree
from sovchain.network.topology import AnyOrganization, Organization, Topology, User
from sovchain.protocol.channelconfig import msp_config

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 365
RENEW_WITHIN: Final = timedelta(days=30)
"""A node's or user's certificate that ends within this time is renewed when the network starts."""

_ORDERER_ADMIN: Final = User(name="Admin", role="admin")


@dataclass(frozen=True)
class NodeMaterial:
    """What one peer or ordering node needs. All PEM; keys are left out of the repr."""

    msp_id: str
    host: str
    certificate_pem: bytes
    private_key_pem: bytes = field(repr=False)
    tls_certificate_pem: bytes
    tls_private_key_pem: bytes = field(repr=False)
    tls_root_pem: bytes


@dataclass(frozen=True)
class _Holder:
    """A node or user: where its folder is, relative to the organisation's, and what its certificates say."""

    folder: str
    common_name: str
    role: str
    tls_file: str
    user: User | None = None


class OrganizationMaterial:
    """The folder of one organisation."""

    def __init__(self, folder: Path, organization: AnyOrganization) -> None:
        self.folder = folder
        self.organization = organization

    @property
    def msp_id(self) -> str:
        """MSP id of the organisation."""
        return self.organization.msp_id

    @cached_property
    def root_pem(self) -> bytes:
        """Root of the enrolment certificates. Raises InstanceDamaged, as all that reads here does."""
        return self._read(f"ca/ca.{self.organization.domain}-cert.pem")

    @cached_property
    def tls_root_pem(self) -> bytes:
        """Root of the TLS certificates."""
        return self._read(f"tlsca/tlsca.{self.organization.domain}-cert.pem")

    @cached_property
    def msp_config(self) -> msp_config_pb2.FabricMSPConfig:
        """The MSP as it stands in a channel's configuration."""
        return msp_config(self.msp_id, [self.root_pem], tls_roots=[self.tls_root_pem])

    def node_folder(self, host: str) -> Path:
        """The folder of a node, which has `msp` and `tls` (`ca.crt`, `server.crt`, `server.key`) in it.

        Raises UnknownName.
        """
        return self.folder / self._node_holder(host).folder

    def node(self, host: str | None = None) -> NodeMaterial:
        """The peer or ordering node with this host name; None: the organisation's first. Raises UnknownName."""
        holder = self._node_holder(host or self.organization.all_nodes[0].host)
        return NodeMaterial(
            msp_id=self.msp_id,
            host=holder.common_name,
            certificate_pem=self._read(_certificate_file(holder)),
            private_key_pem=self._read(f"{holder.folder}/msp/keystore/priv_sk"),
            tls_certificate_pem=self._read(f"{holder.folder}/tls/server.crt"),
            tls_private_key_pem=self._read(f"{holder.folder}/tls/server.key"),
            tls_root_pem=self.tls_root_pem,
        )

    def nodes(self) -> list[NodeMaterial]:
        """All of the organisation's peers or ordering nodes."""
        return [self.node(node.host) for node in self.organization.all_nodes]

    def _node_holder(self, host: str) -> _Holder:
        holders = {holder.common_name: holder for holder in _holders(self.organization) if holder.user is None}
        if host not in holders:
            raise UnknownName("node", host, sorted(holders))
        return holders[host]

    def user_msp(self, user: str) -> Path:
        """The MSP folder of a user: `signcerts`, `keystore`, `cacerts`, `config.yaml`."""
        return self.folder / "users" / f"{user}@{self.organization.domain}" / "msp"

    def user(self, user: str) -> Credential:
        """Enrolment certificate and key of a user."""
        folder, name = self.user_msp(user), f"{user}@{self.organization.domain}"
        return Credential(self._read(folder / f"signcerts/{name}-cert.pem"), self._read(folder / "keystore/priv_sk"))

    def renew(self, now: datetime) -> list[str]:
        """Renew what ends within `RENEW_WITHIN`, keeping keys, and return the names on the renewed certificates.

        The keys stay, so that a channel configuration that names a node's TLS certificate still recognises it.
        """
        renewed: list[str] = []
        for holder in _holders(self.organization):
            enrolment, tls = _certificate_file(holder), f"{holder.folder}/tls/{holder.tls_file}"
            if min(self._end_of(enrolment), self._end_of(f"{tls}.crt")) - now > RENEW_WITHIN:
                continue
            country = _country(self.organization)
            files = _holder_files(
                holder,
                _Authorities(self._authority("ca"), self._authority("tlsca"), country),
                Validity.starting(now, days=LEAF_DAYS),
                keys=(self._read(f"{holder.folder}/msp/keystore/priv_sk"), self._read(f"{tls}.key")),
            )
            for name in (enrolment, f"{tls}.crt"):
                write_file(self.folder / name, files[name])
            renewed.append(holder.common_name)
        return renewed

    def _authority(self, kind: str) -> CertificateAuthority:
        certificate = self._read(f"{kind}/{kind}.{self.organization.domain}-cert.pem")
        return CertificateAuthority.from_credential(Credential(certificate, self._read(f"{kind}/priv_sk")))

    def _end_of(self, name: str) -> datetime:
        try:
            return x509.load_pem_x509_certificate(self._read(name)).not_valid_after_utc
        except ValueError as error:
            raise self._damaged(self.folder / name, f"it is no certificate ({error})") from None

    def _read(self, name: str | Path) -> bytes:
        path = self.folder / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise self._damaged(path, f"it cannot be read ({error.strerror})") from None

    def _damaged(self, path: Path, why: str) -> InstanceDamaged:
        return InstanceDamaged(self.folder.parent.parent.parent, path, why)


class Material:
    """The keys and certificates of a network under `root`."""

    def __init__(self, topology: Topology, root: Path) -> None:
        self.root = root
        self.organizations = {
            organization.name: OrganizationMaterial(root / _folder_of(organization), organization)
            for organization in topology.everyone
        }

    @classmethod
    def create(cls, topology: Topology, root: Path, now: datetime) -> Material:
        """Make the tree, or return the one that is there.

        `now` (UTC) is the start of all validities. Raises OSError when the tree cannot be written.
        """
        if not root.exists():
            files: dict[str, bytes] = {}
            folders: list[str] = []
            for organization in topology.everyone:
                folder = _folder_of(organization)
                files.update((f"{folder}/{name}", content) for name, content in _organization_files(organization, now))
                folders.extend(f"{folder}/{holder.folder}/msp/admincerts" for holder in _holders(organization))
                folders.append(f"{folder}/msp/admincerts")
            write_tree(root, files, folders)
        return cls(topology, root)

    def organization(self, name: str) -> OrganizationMaterial:
        """Return the material of an organisation or ordering organisation."""
        return self.organizations[name]

    def renew(self, now: datetime) -> list[str]:
        """Renew the certificates that end soon; return the names on them. Raises InstanceDamaged."""
        return [name for organization in self.organizations.values() for name in organization.renew(now)]


@dataclass(frozen=True)
class _Authorities:
    enrolment: CertificateAuthority
    tls: CertificateAuthority
    country: str


def _folder_of(organization: AnyOrganization) -> str:
    kind = "peer" if isinstance(organization, Organization) else "orderer"
    return f"{kind}Organizations/{organization.domain}"


def _country(organization: AnyOrganization) -> str:
    return organization.jurisdiction[:2] if isinstance(organization, Organization) else ""


def _holders(organization: AnyOrganization) -> list[_Holder]:
    """The nodes and users of an organisation."""
    users = organization.users if isinstance(organization, Organization) else (_ORDERER_ADMIN,)
    nodes = [_Holder(f"{node.kind}s/{node.host}", node.host, node.kind, "server") for node in organization.all_nodes]
    names = [(user, f"{user.name}@{organization.domain}") for user in users]
    return [*nodes, *(_Holder(f"users/{name}", name, user.role, "client", user) for user, name in names)]


def _certificate_file(holder: _Holder) -> str:
    return f"{holder.folder}/msp/signcerts/{holder.common_name}-cert.pem"


def _organization_files(organization: AnyOrganization, now: datetime) -> Iterator[tuple[str, bytes]]:
    domain, country = organization.domain, _country(organization)
    validity = Validity.starting(now, days=AUTHORITY_DAYS)
    authorities = _Authorities(
        CertificateAuthority.create(f"ca.{domain}", domain, country, validity),
        CertificateAuthority.create(f"tlsca.{domain}", domain, country, validity),
        country,
    )
    public = _public_msp(domain, authorities)
    for kind, authority in (("ca", authorities.enrolment), ("tlsca", authorities.tls)):
        credential = authority.credential
        yield f"{kind}/{kind}.{domain}-cert.pem", credential.certificate_pem
        yield f"{kind}/priv_sk", credential.private_key_pem
    for name, content in public.items():
        yield f"msp/{name}", content
    leaf = Validity.starting(now, days=LEAF_DAYS)
    for holder in _holders(organization):
        for name, content in public.items():
            yield f"{holder.folder}/msp/{name}", content
        yield from _holder_files(holder, authorities, leaf).items()


def _public_msp(domain: str, authorities: _Authorities) -> dict[str, bytes]:
    """What every MSP folder of the organisation holds."""
    certificate = f"cacerts/ca.{domain}-cert.pem"
    units = "".join(
        f"  {role.capitalize()}OUIdentifier:\n"
        f"    Certificate: {certificate}\n"
        f"    OrganizationalUnitIdentifier: {role}\n"
        for role in ("client", "peer", "admin", "orderer")
    )
    return {
        certificate: authorities.enrolment.certificate_pem,
        f"tlscacerts/tlsca.{domain}-cert.pem": authorities.tls.certificate_pem,
        "config.yaml": f"NodeOUs:\n  Enable: true\n{units}".encode(),
    }


def _holder_files(
    holder: _Holder, authorities: _Authorities, validity: Validity, keys: tuple[bytes, bytes] | None = None
) -> dict[str, bytes]:
    """Certificates and keys of a node or user. `keys` are the enrolment and TLS keys to keep."""
    own, tls = keys or (None, None)
    name, country = holder.common_name, authorities.country
    attributes = holder.user.attributes if holder.user else {}
    enrolment = authorities.enrolment.enroll(name, holder.role, country, validity, attributes, key_pem=own)
    server_names = () if holder.user else (name, *LOOPBACK_NAMES)
    transport = authorities.tls.tls(name, country, validity, names=server_names, key_pem=tls)
    return {
        _certificate_file(holder): enrolment.certificate_pem,
        f"{holder.folder}/msp/keystore/priv_sk": enrolment.private_key_pem,
        f"{holder.folder}/tls/ca.crt": authorities.tls.certificate_pem,
        f"{holder.folder}/tls/{holder.tls_file}.crt": transport.certificate_pem,
        f"{holder.folder}/tls/{holder.tls_file}.key": transport.private_key_pem,
    }
