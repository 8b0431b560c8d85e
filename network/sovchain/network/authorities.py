"""Fabric CA servers: what an organisation's server is configured with, and running it on this machine.

One server for each organisation that asks for it (`certificate_authority: fabric-ca`) has two authorities: its default
one signs enrolment certificates, `tlsca.<domain>` signs TLS certificates. Their roots and keys are the organisation's
own (`ca/` and `tlsca/` of its folder), made like those of an organisation without a server.

    DIR/authorities/<name>/         home of the server: configuration, databases, its own copy of the keys
    DIR/authorities/<name>/tlsca/   the same of the TLS authority
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from sovchain.client.ca import CaError, CaNotTrusted, CertificateAuthority
from sovchain.network.errors import NodeFailed
from sovchain.network.files import clean, make_folder, write_file
from sovchain.network.genesis import HOST
from sovchain.network.material import LEAF_DAYS, Material, OrganizationMaterial
from sovchain.network.material_layout import AUTHORITY_FOLDER, REGISTRAR_FILE
from sovchain.network.ports import ADDRESS, authority_ports
from sovchain.network.runtimes import Site
from sovchain.network.runtimes.processes import Supervised, last_line
from sovchain.network.runtimes.programs import Programs, find_programs
from sovchain.network.topology import AnyOrganization, Topology

PROGRAM: Final = "fabric-ca-server"
VERSION: Final = "1.5"
"""Version of Fabric CA that serves Fabric 2.5 and 3.1."""
REGISTRAR: Final = "registrar"
"""Enrolment id of the identity that registers all others."""
ANSWER_TIMEOUT_S: Final = 20.0

_CONFIG: Final = "fabric-ca-server-config.yaml"
_POLL_S: Final = 0.03
_REVOCATION_LIST_HOURS: Final = 24 * 365


@dataclass(frozen=True)
class AuthorityPlace:
    """Where a server finds its things and is found, in its own view: a container's paths are not the host's.

    Attributes:
        listen: address that it binds.
        port: port of its service.
        operations_port: port of health and metrics.
        organization: the organisation's folder.
        home: folder of what it keeps.
    """

    listen: str
    port: int
    operations_port: int
    organization: str
    home: str


def authority_files(domain: str, secret: str, place: AuthorityPlace) -> dict[str, bytes]:
    """Return the server's configuration files by their names below its home (`lib/serverconfig.go` in Fabric CA).

    `secret` is the registrar's. Start the server with `fabric-ca-server start` and FABRIC_CA_SERVER_HOME.
    """
    tls = {
        "certfile": f"{place.organization}/{AUTHORITY_FOLDER}/tls/server.crt",
        "keyfile": f"{place.organization}/{AUTHORITY_FOLDER}/tls/server.key",
    }
    server = {
        **_authority("ca", domain, secret, place, place.home),
        "port": place.port,
        "address": place.listen,
        "cafiles": [f"{place.home}/tlsca/{_CONFIG}"],
        "crlsizelimit": 16 * 1024 * 1024,
        "tls": {"enabled": True, **tls, "clientauth": {"type": "noclientcert"}},
        "operations": {
            "listenAddress": f"{place.listen}:{place.operations_port}",
            "tls": {"enabled": True, "cert": {"file": tls["certfile"]}, "key": {"file": tls["keyfile"]}},
        },
        "metrics": {"provider": "prometheus"},
    }
    authority = _authority("tlsca", domain, secret, place, f"{place.home}/tlsca")
    return {
        _CONFIG: yaml.safe_dump(server, sort_keys=False).encode(),
        f"tlsca/{_CONFIG}": yaml.safe_dump(authority, sort_keys=False).encode(),
    }


def _authority(kind: str, domain: str, secret: str, place: AuthorityPlace, home: str) -> dict[str, object]:
    folder = f"{place.organization}/{kind}"
    certificate = f"{folder}/{kind}.{domain}-cert.pem"
    may = {
        "hf.Registrar.Roles": "*",
        "hf.Registrar.DelegateRoles": "*",
        "hf.Registrar.Attributes": "*",
        "hf.Revoker": True,
        "hf.GenCRL": True,
        "hf.AffiliationMgr": True,
    }
    registrar = {"name": REGISTRAR, "pass": secret, "type": "client", "affiliation": "", "attrs": may}
    usages = ["digital signature"] if kind == "ca" else ["digital signature", "key encipherment", *_BOTH_ENDS]
    profile = {"usage": usages, "expiry": f"{LEAF_DAYS * 24}h"}
    return {
        "ca": {
            "name": f"{kind}.{domain}",
            "keyfile": f"{folder}/priv_sk",
            "certfile": certificate,
            "chainfile": certificate,
        },
        "crl": {"expiry": f"{_REVOCATION_LIST_HOURS}h"},
        "registry": {"maxenrollments": -1, "identities": [registrar]},
        "db": {"type": "sqlite3", "datasource": f"{home}/fabric-ca-server.db"},
        "affiliations": {},
        "signing": {"default": profile, "profiles": {"tls": profile} if kind == "tlsca" else {}},
        "cfg": {"identities": {"passwordattempts": 10, "allowremove": True}, "affiliations": {"allowremove": True}},
        "bccsp": {
            "default": "SW",
            "sw": {"hash": "SHA2", "security": 256, "filekeystore": {"keystore": f"{home}/keystore"}},
        },
    }


_BOTH_ENDS: Final = ("server auth", "client auth")


def organizations_with_authority(material: Material) -> list[OrganizationMaterial]:
    """The organisations whose certificates come from a Fabric CA that runs here."""
    return [
        part
        for part in material.organizations.values()
        if part.organization.certificate_authority == "fabric-ca" and part.has_keys
    ]


def authority_name(organization: AnyOrganization, kind: str) -> str:
    """Name of an organisation's enrolment (`ca`) or TLS (`tlsca`) authority on its server."""
    return f"{kind}.{organization.domain}"


def connect_authority(
    site: Site, part: OrganizationMaterial, kind: str = "ca"
) -> AbstractAsyncContextManager[CertificateAuthority]:
    """Use an organisation's enrolment (`ca`) or TLS (`tlsca`) authority."""
    port = site.ports[authority_ports(part.organization)["main"]]
    return CertificateAuthority.connect(
        f"https://{HOST}:{port}", name=authority_name(part.organization, kind), tls_roots=part.tls_root_pem
    )


@asynccontextmanager
async def answering_authority(site: Site, part: OrganizationMaterial, log: Path) -> AsyncIterator[CertificateAuthority]:
    """The same for its enrolment authority, once it answers. Raises NodeFailed after `ANSWER_TIMEOUT_S`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ANSWER_TIMEOUT_S
    async with connect_authority(site, part) as authority:
        while True:
            try:
                await authority.info()
                break
            except CaError as error:
                if loop.time() > deadline or isinstance(error, CaNotTrusted):
                    raise NodeFailed(_server_name(part), "does not answer", error.why, log) from None
            await asyncio.sleep(_POLL_S)
        yield authority


def _server_name(part: OrganizationMaterial) -> str:
    return f"ca.{part.organization.domain}"


class AuthorityServers:
    """The Fabric CA servers of a network's organisations, as processes of this machine."""

    def __init__(self) -> None:
        self._processes: dict[str, Supervised] = {}

    @property
    def processes(self) -> Mapping[str, Supervised]:
        """Each server by its host name."""
        return dict(self._processes)

    async def start(self, site: Site, material: Material) -> None:
        """Start the servers and wait until they answer. Raises ProgramsMissing, NodeFailed, InstanceDamaged."""
        parts = organizations_with_authority(material)
        if not parts:
            return
        programs = await find_programs(VERSION, (PROGRAM,), product="Fabric CA", any_folder=True)
        absent = [part for part in parts if _server_name(part) not in self._processes]
        await asyncio.gather(*(self._launch(site, part, programs) for part in absent))

    async def _launch(self, site: Site, part: OrganizationMaterial, programs: Programs) -> None:
        home, name = site.directory / "authorities" / part.organization.name, _server_name(part)
        ports = authority_ports(part.organization)
        make_folder(home / "tlsca")
        for folder in (home, home / "tlsca"):
            clean(folder)
        place = AuthorityPlace(
            ADDRESS, site.ports[ports["main"]], site.ports[ports["operations"]], str(part.folder), str(home)
        )
        for file, content in authority_files(part.organization.domain, registrar_secret(part), place).items():
            write_file(home / file, content, durable=False)
        process = Supervised(
            name=name,
            command=[programs[PROGRAM], "start"],
            environment={
                **{key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "LANG") if key in os.environ},
                "FABRIC_CA_SERVER_HOME": str(home),
            },
            log_path=site.directory / f"logs/{name}.log",
            pid_path=site.directory / f"run/{name}.pid",
        )
        self._processes[name] = process
        await process.start()
        await self._answers(site, part, process)

    async def _answers(self, site: Site, part: OrganizationMaterial, process: Supervised) -> None:
        async def ended() -> None:
            while process.exit_code is None:  # noqa: ASYNC110  the watcher starts another process at once
                await asyncio.sleep(_POLL_S)

        async def answers() -> None:
            async with answering_authority(site, part, process.log_path):
                pass

        waits: Sequence[asyncio.Task[None]] = [asyncio.create_task(ended()), asyncio.create_task(answers())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not waits[1].done():
                why = f"its process ended: {_cause(process.log_path)}"
                raise NodeFailed(process.name, "does not start", why, process.log_path)
            await waits[1]
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def keep(self, topology: Topology) -> None:
        """Stop the servers of organisations that the topology does not have."""
        hosts = {f"ca.{part.domain}" for part in topology.everyone if part.certificate_authority == "fabric-ca"}
        gone = [name for name in self._processes if name not in hosts]
        await asyncio.gather(*(self._processes.pop(name).stop() for name in gone))

    async def stop(self) -> None:
        """Stop the servers."""
        processes, self._processes = self._processes, {}
        await asyncio.gather(*(process.stop() for process in processes.values()))


def _cause(log: Path) -> str:
    line = last_line(log)
    return line.partition("Error: ")[2] or line


def registrar_secret(part: OrganizationMaterial) -> str:
    """The secret of an organisation's registrar. Raises InstanceDamaged."""
    return part.read(REGISTRAR_FILE).decode("ascii", errors="replace")
