"""Keys and certificates for what a topology has gained: organisations, nodes and users that have none yet.

Each organisation's tree, and each folder of a node or user, appears in one step; what is there is never made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from sovchain.network.certificates import Validity
from sovchain.network.files import clean, make_folder, write_tree
from sovchain.network.material import LEAF_DAYS, Material, OrganizationMaterial, create_organization
from sovchain.network.material_layout import Authorities, Holder, country, holder_files, issue, public_msp, server_names
from sovchain.network.topology import Topology


def lacking(material: Material) -> Iterator[tuple[OrganizationMaterial, list[Holder]]]:
    """The organisations that lack certificates, with the nodes and users concerned: all of them where there is no tree.

    An organisation whose tree here has certificates only is left alone, as it makes its own.
    """
    for part in material.organizations.values():
        if part.folder.exists() and not part.has_keys:
            continue
        missing = [holder for holder in part.holders if not (part.folder / holder.folder).exists()]
        if missing or not part.folder.exists():
            yield part, missing


def grow(topology: Topology, root: Path, now: datetime) -> list[str]:
    """Make what is lacking below `root`; return the names of the organisations, nodes and users.

    Where a Fabric CA issues certificates, nodes and users are left to it (`material_enrolment`). Raises OSError,
    InstanceDamaged.
    """
    made: list[str] = []
    for part, missing in lacking(Material(topology, root)):
        if not part.folder.exists():
            create_organization(part.organization, root, now)
            made.append(part.organization.name)
        elif part.organization.certificate_authority == "generated":
            made += [_make(part, holder, now) for holder in missing]
    return made


def _make(part: OrganizationMaterial, holder: Holder, now: datetime) -> str:
    authorities = Authorities(part.authority("ca"), part.authority("tlsca"), country(part.organization))
    credentials = issue(holder, authorities, Validity.starting(now, days=LEAF_DAYS), server_names(holder))
    public = public_msp(part.organization.domain, part.root_pem, part.tls_root_pem)
    files = {f"msp/{name}": content for name, content in public.items()}
    own = holder_files(holder, *credentials, part.tls_root_pem)
    files |= {name.removeprefix(f"{holder.folder}/"): content for name, content in own.items()}
    folder = part.folder / holder.folder
    make_folder(folder.parent)
    clean(folder.parent)
    write_tree(folder, files, ["msp/admincerts"])
    return holder.name
