"""Revoking certificates: the list that an organisation's authority signs, and where it takes effect.

    <organisation>/ca/former/*.pem                enrolment certificates that were renewed; a revocation covers them too
    <organisation>/msp/crls/ca.<domain>-crl.pem   the list, also in the MSP folder of each of its nodes and users

The channels' configurations hold a copy of each member's MSP with its list: a peer refuses a proposal once its channel's
copy says so (`put_revocation_lists`). Its own folder counts for what is signed outside channels, such as installing a
chaincode, and is read when the node starts. TLS certificates are not revoked by it: Fabric looks at no list for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from fabric_protos.common import configtx_pb2
from fabric_protos.msp import msp_config_pb2

from sovchain.client.ca import RevocationReason
from sovchain.network.certificates import Validity
from sovchain.network.errors import NetworkError
from sovchain.network.files import make_folder, write_file
from sovchain.network.material import FORMER, OrganizationMaterial
from sovchain.network.material_enrolment import office
from sovchain.network.material_layout import Holder
from sovchain.network.runtimes import Site


@dataclass(frozen=True)
class Revoked:
    """What was revoked.

    Attributes:
        name: the node or user.
        serials: serial numbers of its certificates, all of which are on the list now.
        crl_pem: the list, PEM.
        newly: whether any of them was not on the list before.
    """

    name: str
    serials: tuple[int, ...]
    crl_pem: bytes = field(repr=False)
    newly: bool


async def revoke(
    site: Site, part: OrganizationMaterial, name: str, now: datetime, *, reason: RevocationReason = "unspecified"
) -> Revoked:
    """Revoke all certificates of a node or user, in the organisation's folders; repeating it changes nothing.

    Where a Fabric CA issued them, it is told, and signs the list. Raises UnknownName, CaError, InstanceDamaged,
    NetworkError where the organisation's keys are not in this directory.
    """
    if not part.has_keys:
        raise NetworkError(
            f"cannot revoke {name}",
            f"the authority of {part.organization.name} signs the list, and its key is not in this directory",
            f"revoke it where {part.organization.name} keeps its keys",
        )
    holder = part.holder(name)
    if part.organization.certificate_authority == "fabric-ca":
        return await _revoke_at_authority(site, part, holder, reason)
    authority = part.authority("ca")
    listed = _listed(part)
    serials = tuple(certificate.serial_number for certificate in _issued(part, holder))
    newly = not listed.keys() >= set(serials)
    if not newly:
        return Revoked(holder.name, serials, _file(part).read_bytes(), newly=False)
    listed |= {serial: now for serial in serials if serial not in listed}
    root = part.authority_certificate("ca")
    validity = Validity(Validity.starting(now, days=1).not_before, root.not_valid_after_utc)
    crl = authority.revocation_list(listed, validity, number=_number(part) + 1)
    _store(part, crl)
    return Revoked(holder.name, serials, crl, newly)


async def _revoke_at_authority(
    site: Site, part: OrganizationMaterial, holder: Holder, reason: RevocationReason
) -> Revoked:
    serials = tuple(certificate.serial_number for certificate in _issued(part, holder))
    if _listed(part).keys() >= set(serials):
        # Each list that the authority makes is another one, and the channels have this one.
        return Revoked(holder.name, serials, _file(part).read_bytes(), newly=False)
    async with office(site, part) as registrars:
        await registrars.registrar.revoke(holder.enrollment_id, reason=reason)
        await registrars.transport_registrar.revoke(holder.enrollment_id, reason=reason)
        crl = await registrars.registrar.crl()
    _store(part, crl)
    return Revoked(holder.name, serials, crl, newly=True)


def is_revoked(part: OrganizationMaterial, holder: Holder) -> bool:
    """Whether the certificate that a node or user has now is revoked. Raises InstanceDamaged."""
    return part.certificate(holder.certificate_file).serial_number in _listed(part)


def put_revocation_lists(root: configtx_pb2.ConfigGroup, part: OrganizationMaterial) -> None:
    """Put the organisation's revocation lists into its MSP in a channel's configuration, whichever its part in it.

    An update with this change needs the signature of the organisation's administrator, and of no one else.
    """
    for kind in ("Application", "Orderer"):
        members = root.groups[kind].groups if kind in root.groups else {}
        if part.msp_id not in members:
            continue
        value = members[part.msp_id].values["MSP"]
        outer = msp_config_pb2.MSPConfig.FromString(value.value)
        inner = msp_config_pb2.FabricMSPConfig.FromString(outer.config)
        del inner.revocation_list[:]
        inner.revocation_list.extend(part.revocation_lists)
        outer.config = inner.SerializeToString(deterministic=True)
        value.value = outer.SerializeToString(deterministic=True)


def _file(part: OrganizationMaterial) -> Path:
    return part.folder / f"msp/crls/ca.{part.organization.domain}-crl.pem"


def _issued(part: OrganizationMaterial, holder: Holder) -> Iterator[x509.Certificate]:
    """The enrolment certificates of a node or user: the one it has, and those that were renewed."""
    yield part.certificate(holder.certificate_file)
    for path in sorted((part.folder / FORMER).glob(f"{holder.name}-*.pem")):
        yield part.certificate(path)


def _list(part: OrganizationMaterial) -> x509.CertificateRevocationList | None:
    path = _file(part)
    if not path.exists():
        return None
    try:
        return x509.load_pem_x509_crl(part.read(path))
    except ValueError as error:
        raise part.damaged(path, f"it is no revocation list ({error})") from None


def _listed(part: OrganizationMaterial) -> dict[int, datetime]:
    found = _list(part)
    return {entry.serial_number: entry.revocation_date_utc for entry in found} if found is not None else {}


def _number(part: OrganizationMaterial) -> int:
    found = _list(part)
    if found is None:
        return 0
    try:
        return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def _store(part: OrganizationMaterial, crl: bytes) -> None:
    name = _file(part).name
    folders = [part.folder / "msp", *(part.folder / holder.folder / "msp" for holder in part.holders)]
    for folder in folders:
        make_folder(folder / "crls")
        write_file(folder / "crls" / name, crl)
