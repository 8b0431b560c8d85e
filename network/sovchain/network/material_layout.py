"""What the folder of an organisation holds and under which names: cryptogen's layout.

Pure: everything here is names and bytes. Mirrors `internal/cryptogen/msp/msp.go` and `cmd/cryptogen/main.go` in Fabric.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sovchain.network.certificates import LOOPBACK_NAMES, CertificateAuthority, Credential, Validity
from sovchain.network.topology import AnyOrganization, Organization, User

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 365
AUTHORITY_FOLDER: Final = "authority"
"""Where an organisation keeps what its Fabric CA server needs besides the two roots: TLS and the registrar's secret."""
REGISTRAR_FILE: Final = f"{AUTHORITY_FOLDER}/registrar"

_ORDERER_ADMIN: Final = User(name="Admin", role="admin")


@dataclass(frozen=True)
class Holder:
    """A node or user: where its folder is, relative to the organisation's, and what its certificates say.

    Attributes:
        folder: its folder.
        name: host name of a node, `<user>@<domain>` of a user; the certificates' common name.
        role: the NodeOU: client, peer, admin or orderer.
        user: None for a node.
    """

    folder: str
    name: str
    role: str
    user: User | None = None

    @property
    def enrollment_id(self) -> str:
        """What a Fabric CA knows it by: a node's host name, a user's name without the domain."""
        return self.user.name if self.user else self.name

    @property
    def attributes(self) -> Mapping[str, str]:
        """What its certificate claims."""
        return self.user.attributes if self.user else {}

    @property
    def certificate_file(self) -> str:
        """The enrolment certificate."""
        return f"{self.folder}/msp/signcerts/{self.name}-cert.pem"

    @property
    def key_file(self) -> str:
        """Its key."""
        return f"{self.folder}/msp/keystore/priv_sk"

    @property
    def tls_file(self) -> str:
        """The TLS certificate is this with `.crt`, its key with `.key`."""
        return f"{self.folder}/tls/{'client' if self.user else 'server'}"


@dataclass(frozen=True)
class Authorities:
    """The two roots of an organisation: their meanings in an MSP differ, so one is never used for both."""

    enrolment: CertificateAuthority
    tls: CertificateAuthority
    country: str


def folder_of(organization: AnyOrganization) -> str:
    """The folder of an organisation below that of all."""
    kind = "peer" if isinstance(organization, Organization) else "orderer"
    return f"{kind}Organizations/{organization.domain}"


def country(organization: AnyOrganization) -> str:
    """The country in the names of an organisation's certificates; empty where its jurisdiction says none."""
    return organization.jurisdiction[:2] if isinstance(organization, Organization) else ""


def holders(organization: AnyOrganization) -> list[Holder]:
    """The nodes and users of an organisation."""
    users = organization.users if isinstance(organization, Organization) else (_ORDERER_ADMIN,)
    nodes = [Holder(f"{node.kind}s/{node.host}", node.host, node.kind) for node in organization.all_nodes]
    names = [(user, f"{user.name}@{organization.domain}") for user in users]
    return [*nodes, *(Holder(f"users/{name}", name, user.role, user) for user, name in names)]


def organization_tree(
    organization: AnyOrganization, now: datetime, addresses: Mapping[str, Sequence[str]] | None = None
) -> tuple[dict[str, bytes], list[str]]:
    """Make an organisation's keys and certificates; return its files by their names, and its empty folders.

    Where a Fabric CA issues certificates, nodes and users are left to it, and what its server needs is made instead.

    Args:
        now: start of all validities (UTC).
        addresses: by the host of a node, under which further names and addresses others reach it.
    """
    authorities = _new_authorities(organization, now)
    files = dict(_authority_files(organization.domain, authorities))
    folders = ["msp/admincerts"]
    if organization.certificate_authority == "fabric-ca":
        files |= _server_files(organization, authorities, now)
        return files, folders
    leaf = Validity.starting(now, days=LEAF_DAYS)
    public = public_msp(organization.domain, authorities.enrolment.certificate_pem, authorities.tls.certificate_pem)
    for holder in holders(organization):
        files |= {f"{holder.folder}/msp/{name}": content for name, content in public.items()}
        names = server_names(holder, (addresses or {}).get(holder.name, ()))
        files |= holder_files(holder, *issue(holder, authorities, leaf, names), authorities.tls.certificate_pem)
        folders.append(f"{holder.folder}/msp/admincerts")
    return files, folders


def _new_authorities(organization: AnyOrganization, now: datetime) -> Authorities:
    domain, place, validity = (
        organization.domain,
        country(organization),
        Validity.starting(now, days=AUTHORITY_DAYS),
    )
    return Authorities(
        CertificateAuthority.create(f"ca.{domain}", domain, place, validity),
        CertificateAuthority.create(f"tlsca.{domain}", domain, place, validity),
        place,
    )


def _authority_files(domain: str, authorities: Authorities) -> Iterator[tuple[str, bytes]]:
    for kind, authority in (("ca", authorities.enrolment), ("tlsca", authorities.tls)):
        credential = authority.credential
        yield f"{kind}/{kind}.{domain}-cert.pem", credential.certificate_pem
        yield f"{kind}/priv_sk", credential.private_key_pem
    public = public_msp(domain, authorities.enrolment.certificate_pem, authorities.tls.certificate_pem)
    for name, content in public.items():
        yield f"msp/{name}", content


def _server_files(organization: AnyOrganization, authorities: Authorities, now: datetime) -> dict[str, bytes]:
    """TLS of the organisation's Fabric CA server, and the secret of its registrar."""
    host = f"ca.{organization.domain}"
    server = authorities.tls.tls(
        host, authorities.country, Validity.starting(now, days=AUTHORITY_DAYS), names=(host, *LOOPBACK_NAMES)
    )
    return {
        f"{AUTHORITY_FOLDER}/tls/server.crt": server.certificate_pem,
        f"{AUTHORITY_FOLDER}/tls/server.key": server.private_key_pem,
        REGISTRAR_FILE: secrets.token_urlsafe(24).encode(),
    }


def public_msp(domain: str, root_pem: bytes, tls_root_pem: bytes) -> dict[str, bytes]:
    """What every MSP folder of the organisation holds."""
    certificate = f"cacerts/ca.{domain}-cert.pem"
    units = "".join(
        f"  {role.capitalize()}OUIdentifier:\n"
        f"    Certificate: {certificate}\n"
        f"    OrganizationalUnitIdentifier: {role}\n"
        for role in ("client", "peer", "admin", "orderer")
    )
    return {
        certificate: root_pem,
        f"tlscacerts/tlsca.{domain}-cert.pem": tls_root_pem,
        "config.yaml": f"NodeOUs:\n  Enable: true\n{units}".encode(),
    }


def server_names(holder: Holder, addresses: Sequence[str] = ()) -> tuple[str, ...]:
    """What a node's TLS certificate names; nothing for a user, whose certificate is not to pass for a server's."""
    return () if holder.user else (holder.name, *LOOPBACK_NAMES, *addresses)


def issue(
    holder: Holder,
    authorities: Authorities,
    validity: Validity,
    names: Sequence[str],
    keys: tuple[bytes, bytes] | None = None,
) -> tuple[Credential, Credential]:
    """Sign the enrolment and the TLS certificate of a node or user. `keys` are its keys to keep, in this order."""
    own, tls = keys or (None, None)
    place = authorities.country
    return (
        authorities.enrolment.enroll(holder.name, holder.role, place, validity, holder.attributes, key_pem=own),
        authorities.tls.tls(holder.name, place, validity, names=names, key_pem=tls),
    )


def holder_files(holder: Holder, enrolment: Credential, tls: Credential, tls_root_pem: bytes) -> dict[str, bytes]:
    """The files of a node or user that are its own."""
    return {
        holder.certificate_file: enrolment.certificate_pem,
        holder.key_file: enrolment.private_key_pem,
        f"{holder.folder}/tls/ca.crt": tls_root_pem,
        f"{holder.tls_file}.crt": tls.certificate_pem,
        f"{holder.tls_file}.key": tls.private_key_pem,
    }
