"""What a client of an organisation needs, and nothing more: connection profile, TLS roots, wallets of chosen users.

connection.json     Fabric's common connection profile
tls-roots.pem       roots of the nodes that it names
wallet/<user>.id    the users' identities, as the Node SDK's file-system wallet
README.txt          what is what, and when the certificates end
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sovchain.client.wallet import Password, StoredIdentity, Wallet
from sovchain.network.errors import KeysElsewhere, NetworkError, NotUp
from sovchain.network.files import make_folder, write_file, write_tree
from sovchain.network.instance import Status
from sovchain.network.material import Material
from sovchain.network.profiles import connection_document
from sovchain.network.runtimes.access import site_of

_PROFILE: Final = "connection.json"


@dataclass(frozen=True)
class Exported:
    """What was written: where, for whom, and when the first certificate ends (None without users)."""

    path: Path
    organization: str
    users: tuple[str, ...]
    ends_at: datetime | None


def export(
    status: Status,
    organization: str,
    output: Path,
    *,
    users: Sequence[str] = (),
    password: Password | None = None,
) -> Exported:
    """Write a client bundle of an organisation to a new folder, or to a new file whose name ends in `.zip`.

    Args:
        status: what `read_status` says of the network's directory.
        users: whose identities go along; empty: none, only what is public.
        password: encrypts their keys; the Node SDK reads no encrypted ones.

    Raises:
        UnknownName: there is no such organisation or user.
        KeysElsewhere: its keys are not in this directory.
        NetworkError: `output` exists.
        InstanceDamaged, WalletError.
    """
    if status.topology is None:
        raise NotUp(status.directory, "it holds no network yet")
    site, topology = site_of(status), status.topology
    part = topology.organization(organization)
    chosen = [part.user(name).name for name in users]
    material = Material(topology, status.directory / "organizations")
    own = material.organization(part.name)
    if not own.has_keys:
        raise KeysElsewhere(part.name, [found.name for found in site.organizations])
    if output.exists():
        raise NetworkError(f"cannot export to {output}", "it exists", "give a new folder or file")
    orderers = {orderer.name for channel in topology.channels if part.name in channel.members
                for orderer in topology.orderers(channel.name)}  # fmt: skip
    roots = [own.tls_root_pem, *(material.organization(name).tls_root_pem for name in sorted(orderers))]
    ends = [own.ends(own.holder(name)) for name in chosen]
    files = {_PROFILE: connection_document(site, material, part), "tls-roots.pem": b"".join(dict.fromkeys(roots))}
    with tempfile.TemporaryDirectory(prefix="sovchain-") as place:
        wallet = Wallet.node(Path(place) / "wallet", password=password)
        for name in chosen:
            credential = own.user(name)
            wallet.put(name, StoredIdentity(own.msp_id, credential.certificate_pem, credential.private_key_pem))
        files |= {f"wallet/{name}.id": (Path(place) / f"wallet/{name}.id").read_bytes() for name in chosen}
    files["README.txt"] = _readme(part.name, own.msp_id, chosen, ends, encrypted=password is not None)
    if output.suffix == ".zip":
        make_folder(output.parent)
        write_file(output, _zip(files))
    else:
        write_tree(output, files)
    return Exported(output, part.name, tuple(chosen), min(ends, default=None))


def _readme(
    organization: str, msp_id: str, users: Sequence[str], ends: Sequence[datetime], *, encrypted: bool
) -> bytes:
    lines = [
        f"What a client of {organization} ({msp_id}) needs to use the network.",
        "",
        "connection.json   common connection profile: peers, ordering nodes, channels",
        "tls-roots.pem     roots of the nodes' TLS certificates",
    ]
    for name, end in zip(users, ends, strict=True):
        lines.append(f"wallet/{name}.id   identity of {name}; its certificate ends {end:%Y-%m-%d %H:%M} UTC")
    if users:
        how = "The private keys are encrypted." if encrypted else "The private keys are not encrypted."
        lines += ["", f"{how} Whoever has a file of the wallet acts as its user: keep it as a secret."]
    return "\n".join([*lines, ""]).encode()


def _zip(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100600 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return content.getvalue()
