"""Nodes and users whose certificates an organisation's Fabric CA issues: registered, enrolled, renewed, revoked."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from sovchain.client.ca import Attribute, CaAlreadyThere, CertificateAuthority, Enrollment, Registrar
from sovchain.network.authorities import REGISTRAR, connect_authority, organizations_with_authority, registrar_secret
from sovchain.network.certificates import Credential, names_of
from sovchain.network.files import make_folder, write_tree
from sovchain.network.material import Material, OrganizationMaterial
from sovchain.network.material_layout import Holder, holder_files, public_msp, server_names
from sovchain.network.runtimes import Site
from sovchain.protocol.crypto import load_private_key

_AT_ONCE: Final = 4
"""Nodes and users under way at one server, which hashes a password for each."""


@dataclass(frozen=True)
class Office:
    """An organisation's two authorities with their registrars, for as long as the connection is open.

    `addresses` are those under which other hosts reach its nodes, by host name.
    """

    part: OrganizationMaterial
    addresses: Mapping[str, str]
    enrolment: CertificateAuthority
    transport: CertificateAuthority
    registrar: Registrar
    transport_registrar: Registrar

    async def issue(
        self, holder: Holder, names: Sequence[str], keys: tuple[bytes, bytes] | None = None
    ) -> tuple[Credential, Credential]:
        """Register a node or user where it is not yet, and enrol it at both authorities with a secret of the moment.

        `names` are for its TLS certificate; `keys` its enrolment and TLS keys to keep. Raises CaError: a revoked node or
        user is refused.
        """
        claims = [Attribute(name, value, in_certificate=True) for name, value in holder.attributes.items()]
        own, tls = (load_private_key(pem) for pem in keys) if keys else (None, None)
        secret = await _secret(self.registrar, holder, claims)
        enrolment = await self.enrolment.enroll(holder.enrollment_id, secret, key=own)
        secret = await _secret(self.transport_registrar, holder, [])
        transport = await self.transport.enroll(
            holder.enrollment_id, secret, key=tls, profile="tls", hosts=names, attributes=[]
        )
        return _credential(enrolment), _credential(transport)


@asynccontextmanager
async def office(site: Site, part: OrganizationMaterial) -> AsyncIterator[Office]:
    """Act as the registrar of an organisation's authorities. Raises CaError, InstanceDamaged."""
    secret = registrar_secret(part)
    async with connect_authority(site, part) as enrolment, connect_authority(site, part, "tlsca") as transport:
        yield Office(
            part,
            {host: address for host, (address, _) in site.endpoints.items()} if site.operator else {},
            enrolment,
            transport,
            enrolment.registrar(await enrolment.enroll(REGISTRAR, secret)),
            transport.registrar(await transport.enroll(REGISTRAR, secret)),
        )


async def complete(site: Site, material: Material) -> list[str]:
    """Enrol every node and user of the organisations with a Fabric CA that has no folder yet; return their names.

    Each folder appears in one step, so an interrupted start leaves whole ones, and the next start goes on. Raises
    CaError, InstanceDamaged, OSError.
    """
    done: list[str] = []
    for part in organizations_with_authority(material):
        missing = [holder for holder in part.holders if not (part.folder / holder.folder).exists()]
        done += await _each(site, part, missing, _create)
    return done


async def renew(site: Site, material: Material, now: datetime) -> list[str]:
    """Renew, with their keys, the certificates that end soon (see `OrganizationMaterial.renew`); return the names.

    Raises CaError, InstanceDamaged.
    """
    done: list[str] = []
    for part in organizations_with_authority(material):
        done += await renew_of(site, part, now)
    return done


async def renew_of(
    site: Site, part: OrganizationMaterial, now: datetime, *, only: Iterable[str] | None = None
) -> list[str]:
    """The same for one organisation, or for those of its nodes and users that are named.

    Raises UnknownName too, and NetworkError for one that is revoked.
    """
    return await _each(site, part, part.due(now, only), _replace)


async def _each(site: Site, part: OrganizationMaterial, holders: Sequence[Holder], act: _Act) -> list[str]:
    if not holders:
        return []
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(open_office: Office, holder: Holder) -> str:
        async with turns:
            await act(open_office, holder)
        return holder.name

    async with office(site, part) as open_office:
        tasks = [asyncio.create_task(one(open_office, holder)) for holder in holders]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _create(open_office: Office, holder: Holder) -> None:
    part = open_office.part
    further = open_office.addresses.get(holder.name)
    enrolment, transport = await open_office.issue(holder, server_names(holder, [further] if further else ()))
    files = holder_files(holder, enrolment, transport, part.tls_root_pem)
    public = public_msp(part.organization.domain, part.root_pem, part.tls_root_pem)
    files |= {f"{holder.folder}/msp/{name}": content for name, content in public.items()}
    folder = part.folder / holder.folder
    make_folder(folder.parent)
    prefix = f"{holder.folder}/"
    write_tree(folder, {name.removeprefix(prefix): content for name, content in files.items()}, ["msp/admincerts"])


async def _replace(open_office: Office, holder: Holder) -> None:
    part = open_office.part
    names = names_of(part.certificate(f"{holder.tls_file}.crt"))
    keys = (part.read(holder.key_file), part.read(f"{holder.tls_file}.key"))
    part.store(holder, *await open_office.issue(holder, names, keys))


_Act: TypeAlias = Callable[[Office, Holder], Awaitable[None]]


async def _secret(registrar: Registrar, holder: Holder, claims: Sequence[Attribute]) -> str:
    """Give an identity a secret that is forgotten after its use; register it first where it is not known."""
    secret = secrets.token_urlsafe(24)
    try:
        await registrar.register(holder.enrollment_id, type=holder.role, secret=secret, attributes=claims)
    except CaAlreadyThere:
        await registrar.modify_identity(holder.enrollment_id, secret=secret, attributes=claims)
    return secret


def _credential(enrollment: Enrollment) -> Credential:
    return Credential(enrollment.certificate_pem, enrollment.private_key_pem)
