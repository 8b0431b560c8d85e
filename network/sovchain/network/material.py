"""Keys and certificates of a network, in the folders and under the names that cryptogen uses.

    <root>/peerOrganizations/<domain>/{ca,tlsca,msp,peers/peer<n>.<domain>/{msp,tls},users/<User>@<domain>/{msp,tls}}
    <root>/ordererOrganizations/<domain>/{ca,tlsca,msp,orderers/<host>/{msp,tls},users/Admin@<domain>/{msp,tls}}

Each organisation has two roots, one for enrolment and one for TLS: the two have different meanings in an MSP. Folders
have mode 0700 and files 0600. A tree appears in one step, so an interrupted start leaves all of it or nothing.

An organisation makes its own tree (`create_organization`) and knows of others what is public: their folder then holds
the certificates under the same names, and no key. `Material.create` makes the trees of all, for a network that one
person runs. Where an organisation's certificates come from a Fabric CA, `material_enrolment` completes its tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.msp import msp_config_pb2

from sovchain.network.certificates import CertificateAuthority, Credential, Validity, names_of
from sovchain.network.errors import AuthorityExpired, InstanceDamaged, NetworkError, UnknownName
from sovchain.network.files import make_folder, write_file, write_tree
from sovchain.network.material_layout import (
    AUTHORITY_DAYS,
    LEAF_DAYS,
    Authorities,
    Holder,
    country,
    folder_of,
    holder_files,
    holders,
    issue,
    organization_tree,
)
from sovchain.network.topology import AnyOrganization, Topology
from sovchain.protocol.channelconfig import msp_config

__all__ = [
    "AUTHORITY_DAYS",
    "LEAF_DAYS",
    "RENEW_WITHIN",
    "Material",
    "NodeCertificates",
    "NodeMaterial",
    "OrganizationMaterial",
    "create_organization",
]

RENEW_WITHIN: Final = timedelta(days=30)
"""A node's or user's certificate that ends within this time is renewed when the network starts."""

AUTHORITIES: Final = ("ca", "tlsca")
"""The two roots of an organisation, by the names of their folders."""
FORMER: Final = "ca/former"
"""Where the enrolment certificates are that were renewed, in the organisation's folder."""


@dataclass(frozen=True)
class NodeCertificates:
    """What others know of a peer or ordering node. All PEM."""

    msp_id: str
    host: str
    certificate_pem: bytes
    tls_certificate_pem: bytes


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


class OrganizationMaterial:
    """The folder of one organisation; what reads here raises InstanceDamaged."""

    def __init__(self, folder: Path, organization: AnyOrganization, *, bft: bool = False) -> None:
        """`bft` says that channels name the enrolment certificates of ordering nodes, which must stay the same then."""
        self.folder = folder
        self.organization = organization
        self._bft = bft

    @property
    def msp_id(self) -> str:
        """MSP id of the organisation."""
        return self.organization.msp_id

    @property
    def has_keys(self) -> bool:
        """Whether this is the organisation's own folder; others have its certificates only."""
        return (self.folder / "tlsca/priv_sk").exists()

    @property
    def holders(self) -> list[Holder]:
        """The organisation's nodes and users."""
        return holders(self.organization)

    @cached_property
    def root_pem(self) -> bytes:
        """Root of the enrolment certificates."""
        return self.read(f"ca/ca.{self.organization.domain}-cert.pem")

    @cached_property
    def tls_root_pem(self) -> bytes:
        """Root of the TLS certificates."""
        return self.read(f"tlsca/tlsca.{self.organization.domain}-cert.pem")

    @property
    def revocation_lists(self) -> list[bytes]:
        """What the organisation has revoked (`material_revocation`), PEM."""
        folder = self.folder / "msp/crls"
        return [self.read(path) for path in sorted(folder.glob("*.pem"))]

    @property
    def msp_config(self) -> msp_config_pb2.FabricMSPConfig:
        """The MSP as it stands in a channel's configuration."""
        return msp_config(self.msp_id, [self.root_pem], tls_roots=[self.tls_root_pem], crls=self.revocation_lists)

    def node_folder(self, host: str) -> Path:
        """The folder of a node, which has `msp` and `tls` (`ca.crt`, `server.crt`, `server.key`) in it.

        Raises UnknownName.
        """
        return self.folder / self._node_holder(host).folder

    def node(self, host: str | None = None) -> NodeMaterial:
        """The peer or ordering node with this host name; None: the organisation's first. Raises UnknownName."""
        holder = self._node_holder(host or self.organization.all_nodes[0].host)
        public = self.public_node(holder.name)
        return NodeMaterial(
            msp_id=self.msp_id,
            host=holder.name,
            certificate_pem=public.certificate_pem,
            private_key_pem=self.read(holder.key_file),
            tls_certificate_pem=public.tls_certificate_pem,
            tls_private_key_pem=self.read(f"{holder.tls_file}.key"),
            tls_root_pem=self.tls_root_pem,
        )

    def nodes(self) -> list[NodeMaterial]:
        """All of the organisation's peers or ordering nodes."""
        return [self.node(node.host) for node in self.organization.all_nodes]

    def public_node(self, host: str) -> NodeCertificates:
        """The certificates of a peer or ordering node, which others have too. Raises UnknownName."""
        holder = self._node_holder(host)
        return NodeCertificates(
            self.msp_id, holder.name, self.read(holder.certificate_file), self.read(f"{holder.tls_file}.crt")
        )

    def public_nodes(self) -> list[NodeCertificates]:
        """The certificates of all of the organisation's peers or ordering nodes."""
        return [self.public_node(node.host) for node in self.organization.all_nodes]

    def _node_holder(self, host: str) -> Holder:
        known = {holder.name: holder for holder in self.holders if holder.user is None}
        if host not in known:
            raise UnknownName("node", host, sorted(known))
        return known[host]

    def holder(self, name: str) -> Holder:
        """The node with this host name, or the user with this name or `<name>@<domain>`. Raises UnknownName."""
        known = {holder.enrollment_id: holder for holder in self.holders}
        found = known.get(name.removesuffix(f"@{self.organization.domain}"))
        if found is None:
            raise UnknownName("node or user", name, sorted(known))
        return found

    def user_msp(self, user: str) -> Path:
        """The MSP folder of a user: `signcerts`, `keystore`, `cacerts`, `config.yaml`."""
        return self.folder / "users" / f"{user}@{self.organization.domain}" / "msp"

    def user(self, user: str) -> Credential:
        """Enrolment certificate and key of a user."""
        folder, name = self.user_msp(user), f"{user}@{self.organization.domain}"
        return Credential(self.read(folder / f"signcerts/{name}-cert.pem"), self.read(folder / "keystore/priv_sk"))

    def user_tls(self, user: str) -> Credential:
        """TLS client certificate and key of a user."""
        tls = f"users/{user}@{self.organization.domain}/tls/client"
        return Credential(self.read(f"{tls}.crt"), self.read(f"{tls}.key"))

    def ends(self, holder: Holder) -> datetime:
        """When the first of a node's or user's certificates ends that is renewed here (UTC)."""
        return min(self.certificate(name).not_valid_after_utc for name in self._renewed(holder))

    def _renewed(self, holder: Holder) -> list[str]:
        """The certificates of a node or user that are renewed.

        A block of a BFT channel is signed by the very certificates that the channel's configuration names
        (common/policies/bft.go in Fabric), and their end does not matter to it: they stay.
        """
        stays = self._bft and holder.role == "orderer"
        return [*([] if stays else [holder.certificate_file]), f"{holder.tls_file}.crt"]

    def renew(self, now: datetime, *, only: Iterable[str] | None = None) -> list[str]:
        """Renew what ends within `RENEW_WITHIN`, keeping keys, and return the names on the renewed certificates.

        The keys stay, so that a channel configuration that names a node's TLS certificate still recognises it; under BFT
        the enrolment certificates of ordering nodes stay too. `only`
        are names of nodes and users to renew now, whenever their certificates end. Certificates from a Fabric CA are
        renewed there (`material_enrolment`). Raises UnknownName.
        """
        if not self.has_keys or self.organization.certificate_authority == "fabric-ca":
            return []
        return [holder.name for holder in self.due(now, only) if self._renew(holder, now)]

    def due(self, now: datetime, only: Iterable[str] | None = None) -> list[Holder]:
        """Nodes and users whose certificates are to be renewed (see `renew`).

        One that was revoked is left as it is; to name it in `only` is an error, a NetworkError.
        """
        revoked = self._revoked_serials()
        found = [
            holder
            for holder in ([self.holder(name) for name in only] if only is not None else self.holders)
            if only is not None or self.ends(holder) - now <= RENEW_WITHIN
        ]
        for holder in list(found):
            if self.certificate(holder.certificate_file).serial_number not in revoked:
                continue
            if only is not None:
                raise NetworkError(
                    f"cannot renew {holder.name}",
                    "its certificate is revoked, and a renewed one would be for the same key",
                    "add another user to the topology",
                    name=holder.name,
                )
            found.remove(holder)
        return found

    def _revoked_serials(self) -> frozenset[int]:
        lists = (x509.load_pem_x509_crl(pem) for pem in self.revocation_lists)
        return frozenset(entry.serial_number for found in lists for entry in found)

    def _renew(self, holder: Holder, now: datetime) -> bool:
        for kind in AUTHORITIES:
            ended = self.authority_certificate(kind).not_valid_after_utc
            if ended <= now:
                raise AuthorityExpired(self.organization.name, kind, ended)
        authorities = Authorities(self.authority("ca"), self.authority("tlsca"), country(self.organization))
        names = names_of(self.certificate(f"{holder.tls_file}.crt"))
        keys = (self.read(holder.key_file), self.read(f"{holder.tls_file}.key"))
        self.store(holder, *issue(holder, authorities, Validity.starting(now, days=LEAF_DAYS), names, keys))
        return True

    def store(self, holder: Holder, enrolment: Credential, tls: Credential) -> None:
        """Put other certificates in place of a node's or user's, and keep the old enrolment certificate: it is valid
        until it ends, so a revocation has to cover it.
        """
        files = holder_files(holder, enrolment, tls, self.tls_root_pem)
        names = self._renewed(holder)
        if holder.certificate_file in names:
            former = self.certificate(holder.certificate_file)
            make_folder(self.folder / FORMER)
            kept = self.folder / FORMER / f"{holder.name}-{former.serial_number:x}.pem"
            write_file(kept, former.public_bytes(Encoding.PEM))
        for name in names:
            write_file(self.folder / name, files[name])

    def authority_certificate(self, kind: str) -> x509.Certificate:
        """The root of the enrolment (`ca`) or TLS (`tlsca`) certificates."""
        return self.certificate(f"{kind}/{kind}.{self.organization.domain}-cert.pem")

    def authority(self, kind: str) -> CertificateAuthority:
        """The root of the enrolment (`ca`) or TLS (`tlsca`) certificates, with its key."""
        path = f"{kind}/{kind}.{self.organization.domain}-cert.pem"
        certificate, key = self.read(path), self.read(f"{kind}/priv_sk")
        try:
            return CertificateAuthority.from_credential(Credential(certificate, key))
        except (ValueError, TypeError, x509.ExtensionNotFound):
            raise self.damaged(self.folder / f"{kind}/priv_sk", f"it is not the key of {path}") from None

    def certificate(self, name: str | Path) -> x509.Certificate:
        """A certificate of the folder, parsed."""
        try:
            return x509.load_pem_x509_certificate(self.read(name))
        except ValueError as error:
            raise self.damaged(self.folder / name, f"it is no certificate ({error})") from None

    def read(self, name: str | Path) -> bytes:
        """A file of the folder."""
        path = self.folder / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise self.damaged(path, f"it cannot be read ({error.strerror})") from None

    def damaged(self, path: Path, why: str) -> InstanceDamaged:
        """The error for a file that the network wrote and that cannot be used."""
        return InstanceDamaged(self.folder.parent.parent.parent, path, why)


class Material:
    """The keys and certificates of a network under `root`."""

    def __init__(self, topology: Topology, root: Path) -> None:
        self.root = root
        self.organizations = {
            organization.name: OrganizationMaterial(
                root / folder_of(organization), organization, bft=topology.consensus == "bft"
            )
            for organization in topology.everyone
        }

    @classmethod
    def create(cls, topology: Topology, root: Path, now: datetime) -> Material:
        """Make the trees of all organisations, or return those that are there.

        `now` (UTC) is the start of all validities. Raises OSError when they cannot be written.
        """
        if not root.exists():
            _write(root, topology.everyone, now, {})
        return cls(topology, root)

    def organization(self, name: str) -> OrganizationMaterial:
        """Return the material of an organisation or ordering organisation."""
        return self.organizations[name]

    def renew(self, now: datetime) -> list[str]:
        """Renew the certificates that end soon; return the names on them. Raises InstanceDamaged."""
        return [name for organization in self.organizations.values() for name in organization.renew(now)]


def create_organization(
    organization: AnyOrganization,
    root: Path,
    now: datetime,
    addresses: Mapping[str, Sequence[str]] | None = None,
) -> OrganizationMaterial:
    """Make the tree of one organisation below `root`, or return the one that is there.

    `addresses` are, by the host of a node, further names and addresses for its TLS certificate. Raises OSError.
    """
    folder = root / folder_of(organization)
    if not folder.exists():
        write_tree(folder, *organization_tree(organization, now, addresses))
    return OrganizationMaterial(folder, organization)


def _write(
    root: Path, organizations: Iterable[AnyOrganization], now: datetime, addresses: Mapping[str, Sequence[str]]
) -> None:
    files: dict[str, bytes] = {}
    folders: list[str] = []
    for organization in organizations:
        own, empty = organization_tree(organization, now, addresses)
        files |= {f"{folder_of(organization)}/{name}": content for name, content in own.items()}
        folders += [f"{folder_of(organization)}/{name}" for name in empty]
    write_tree(root, files, folders)
