"""The docker runtime: the official images of Fabric, and a container of chaincode for each organisation.

    DIR/compose.yaml          the whole network, as it was last started
    DIR/nodes/, chaincode/, authorities/, monitoring/   see docker_services.py and docker_monitoring.py
    DIR/logs/<host>.log       what the containers say

What nodes keep lies in the network's directory, behind named volumes: taking a network down removes its containers,
networks and volumes, and what is committed stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import ssl
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import structlog

from sovchain.network.authorities import answering_authority, organizations_with_authority
from sovchain.network.errors import (
    ChaincodeFailed,
    EngineFailed,
    EngineUnavailable,
    ImagesMissing,
    NetworkError,
    PortInUse,
)
from sovchain.network.files import make_folder, write_file
from sovchain.network.genesis import HOST
from sovchain.network.material import Material
from sovchain.network.material_layout import AUTHORITY_FOLDER
from sovchain.network.ports import node_ports, service_names
from sovchain.network.runtimes import Endpoint, Packages, Site
from sovchain.network.runtimes.chaincodes import READY_TIMEOUT_S, chaincodes_of, served_by
from sovchain.network.runtimes.compose import ComposeFile, project_name
from sovchain.network.runtimes.databases import remove_unfinished_databases
from sovchain.network.runtimes.docker_code import further_code
from sovchain.network.runtimes.docker_engine import Engine
from sovchain.network.runtimes.docker_images import Images
from sovchain.network.runtimes.docker_logs import Follower
from sovchain.network.runtimes.docker_monitoring import (
    PROFILE,
    PROMETHEUS,
    SERVICES,
    add_monitoring,
    metrics_root,
    watch,
)
from sovchain.network.runtimes.docker_services import (
    CHAINCODES_LABEL,
    Containers,
    authority_service,
    chaincode_packages,
    listens,
    node_service,
)
from sovchain.network.runtimes.joining import Joining
from sovchain.network.runtimes.processes import cause, end_orphans, last_line
from sovchain.network.runtimes.programs import matches
from sovchain.network.runtimes.space import check_space
from sovchain.network.topology import Node, Organization, Topology

FILE: Final = "compose.yaml"
PROFILES_VARIABLE: Final = "COMPOSE_PROFILES"
"""Environment variable with further profiles to start, as Compose reads it; `monitoring` is the one to choose."""

_UNPRIVILEGED: Final = 10001
"""User and group of the containers when the network is brought up by root, who no container is."""
_LOOK_EVERY_S: Final = 1.0
_PAUSE_S: Final = 0.2
_TAKEN: Final = re.compile(
    r"127\.0\.0\.1:(\d+)[^\n]*(?:already in use|already allocated)|:(\d+) failed: port is already"
)

_log = structlog.get_logger("sovchain.network.docker")


@dataclass(frozen=True)
class _Served:
    """A container of chaincodes: what it is called, whose it is, and the ports that it listens on."""

    name: str
    organization: str
    ports: tuple[int, ...]


class DockerRuntime:
    """A `sovchain.network.runtimes.Runtime` over Compose."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._site: Site | None = None
        self._images: Images | None = None
        self._joining: Joining | None = None
        self._material: Material | None = None
        self._file: ComposeFile | None = None
        """What runs, and what is about to."""
        self._code: Mapping[str, Path] = {}
        self._serving: dict[str, _Served] = {}
        """The containers of chaincodes, by service."""
        self._containers: dict[str, str] = {}
        self._followers: dict[str, Follower] = {}
        self._looked: dict[str, float] = {}

    @property
    def faults(self) -> DockerFaults:
        """See `Runtime.faults`."""
        return DockerFaults(self)

    def services(self, topology: Topology) -> Sequence[str]:
        """The ports of nodes and authorities, of the two services that watch them, and of chaincodes in their containers."""
        chaincodes = (name for part in topology.organizations for _, name in served_by(topology, part))
        return [*service_names(topology), *SERVICES, *chaincodes]

    def endpoints(self, topology: Topology, ports: Mapping[str, int]) -> Mapping[str, Endpoint]:
        """See `Runtime.endpoints`. Containers have host names of their own, and the ports of this machine."""
        return {node.host: (node.host, ports[node.host]) for node in topology.nodes}

    async def release(self, site: Site) -> None:
        """See `Runtime.release`. Finds the engine and the images first."""
        self._code = further_code(site.topology.chaincodes)
        self._images = Images.choose(site.topology.fabric_version)
        self._engine = await Engine.find()
        await self._check_images(site)
        self._site, self._file = site, self._compose()
        await end_orphans(site.directory)
        if await self._engine.remove(project_name(site.directory)):
            _log.warning("removed containers that outlived their network", project=project_name(site.directory))

    async def _check_images(self, site: Site) -> None:
        assert self._engine is not None
        assert self._images is not None
        needed = self._images.needed(site.topology)
        if PROFILE in _profiles(site.topology):
            needed |= self._images.monitoring()
        await self._engine.check_images(needed)

    async def prepare(self, site: Site) -> Packages:
        """See `Runtime.prepare`. The containers start together with the nodes."""
        return self._packages(site)

    @staticmethod
    def _packages(site: Site) -> Packages:
        now = datetime.now(UTC)
        return {
            organization.name: chaincode_packages(site, organization, now)
            for organization in site.organizations
            if chaincodes_of(site.topology, organization)
        }

    async def start_authorities(self, site: Site, material: Material) -> None:
        """See `Runtime.start_authorities`."""
        parts = organizations_with_authority(material)
        if not parts:
            return
        names = {authority_service(part.organization): f"ca.{part.organization.domain}" for part in parts}
        if not names.keys() <= self._containers.keys():
            await self._check_images(site)
            containers = self._filler(site)
            for part in parts:
                containers.add_authority(part)
            await self._up(site, material, list(names))
        await self._follow(site, names)

        async def answers(name: str) -> None:
            part = next(part for part in parts if f"ca.{part.organization.domain}" == name)
            async with answering_authority(site, part, site.directory / f"logs/{name}.log"):
                pass

        await asyncio.gather(*(answers(name) for name in names.values()))

    async def start(self, site: Site, material: Material, genesis_blocks: Sequence[bytes]) -> None:
        """See `Runtime.start`."""
        await self._run(site, material, dict(zip(site.channels, genesis_blocks, strict=True)))
        assert self._joining is not None
        await self._joining.everyone()
        first = {node.kind: node for node in reversed(site.nodes)}
        await asyncio.gather(*(self._check_release(site, material, node) for node in first.values()))

    async def _check_release(self, site: Site, material: Material, node: Node) -> None:
        """Ask a node for its release. Raises NetworkError: an image may hold another one than its name says."""
        roots = ssl.create_default_context(cadata=material.organization(node.organization).tls_root_pem.decode())
        address = f"https://{HOST}:{site.ports[node_ports(node)['operations']]}"
        async with httpx.AsyncClient(base_url=address, verify=roots, trust_env=False) as client:
            found = str((await client.get("/version")).json()["Version"]).removeprefix("v")
        if not matches(found, site.topology.fabric_version):
            image = getattr(self._images, node.kind)
            raise NetworkError(
                f"image {image} is of another version",
                f"it holds Fabric {found} and the topology says {site.topology.fabric_version}",
                f"correct SOVCHAIN_IMAGE_{node.kind.upper()}, or fabric_version in the topology",
                image=image,
                found=found,
            )

    async def _run(self, site: Site, material: Material, blocks: Mapping[str, bytes]) -> list[str]:
        """Start the containers of a site that do not run yet, without waiting for them; return the hosts of its nodes among them."""
        assert self._engine is not None
        assert self._file is not None
        self._site, self._material = site, material
        self._joining = Joining(site, material, blocks, self._ended)
        check_space(site)
        known = await self._engine.containers(project_name(site.directory), running=True)
        containers = self._filler(site)
        logs: dict[str, str] = {}
        hosts = []
        for node in site.nodes:
            if node_service(node.host) not in known:
                own = material.organization(node.organization)
                own.node(node.host)  # names a file that is missing, before the node fails on it in words of its own
                containers.add_node(own, node)
                remove_unfinished_databases(site.directory / "nodes" / node.host / "data")
                logs[node_service(node.host)] = node.host
                hosts.append(node.host)
        for organization in site.organizations:
            service = self._serve(site, containers, organization)
            if service:
                logs[service] = f"chaincode-{self._serving[service].name}"
        add_monitoring(self._file, site, material, containers.images)
        # Those of a profile that was not asked for have been chosen by somebody besides, or are not to run.
        profiles = _profiles(site.topology)
        new = [
            name
            for name in self._file.services.keys() - known.keys()
            if _is_wanted(self._file.services[name], profiles)
        ]
        if new:
            await self._up(site, material, sorted(new))
        await self._follow(site, logs)
        return hosts

    def _serve(self, site: Site, containers: Containers, organization: Organization) -> str:
        """Add a container for the chaincodes of an organisation that are not served yet; return its service, if it takes one."""
        there = [entry for entry in self._serving.values() if entry.organization == organization.name]
        taken = {port for entry in there for port in entry.ports}
        new = [(spec, port) for spec, port in served_by(site.topology, organization) if site.ports[port] not in taken]
        if not new:
            return ""
        service = containers.add_chaincodes(organization, self._code, new, further=bool(there))
        name = f"{organization.name}-{new[0][0].label}" if there else organization.name
        self._serving[service] = _Served(name, organization.name, tuple(site.ports[port] for _, port in new))
        return service

    def _compose(self) -> ComposeFile:
        assert self._engine is not None
        if self._engine.rootless:
            return ComposeFile("0:0")  # which is this user, without any right beyond its own
        return ComposeFile(f"{os.getuid() or _UNPRIVILEGED}:{os.getgid() or _UNPRIVILEGED}")

    def _filler(self, site: Site) -> Containers:
        assert self._images is not None
        assert self._file is not None
        return Containers(site, self._images, self._file, metrics_root(site, datetime.now(UTC)))

    async def _up(self, site: Site, material: Material, services: Sequence[str]) -> None:
        """Write the file, hand over what the containers read and write, and start some. Raises PortInUse, EngineFailed."""
        assert self._engine is not None
        assert self._file is not None
        project, file = project_name(site.directory), self._file
        for folder in file.folders:
            make_folder(folder)
        if os.getuid() == 0 and not self._engine.rootless:
            await asyncio.to_thread(_hand_over, site, material)
        self._write(site)
        try:
            await self._engine.up(project, site.directory / FILE, _profiles(site.topology), services)
        except EngineFailed as error:
            taken = _TAKEN.search(error.output)
            if taken is None:
                raise
            port = int(taken.group(1) or taken.group(2))
            service = next((name for name, number in site.ports.items() if number == port), "a container")
            raise PortInUse(port, service) from None
        self._containers = await self._engine.containers(project)

    def _write(self, site: Site) -> None:
        assert self._file is not None
        head = (
            f"The network {site.topology.name}, written at each start and change: change the topology instead.\n"
            f"Project: {project_name(site.directory)}"
        )
        write_file(site.directory / FILE, self._file.text(head), durable=False)

    async def _follow(self, site: Site, names: Mapping[str, str]) -> None:
        assert self._engine is not None
        for service, name in names.items():
            if service in self._followers:
                continue
            follower = Follower.of(self._engine.docker, site.directory, name, self._containers[service])
            self._followers[service] = follower
            await follower.start()

    async def _ended(self, host: str) -> str | None:
        """See `joining.Ended`. Looks once in a while only: each look is a process."""
        assert self._engine is not None
        assert self._site is not None
        now = time.monotonic()
        if now - self._looked.setdefault(host, now) < _LOOK_EVERY_S:
            return None
        self._looked[host] = now
        container = self._containers[node_service(host)]
        form = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"
        status, code, restarts = (await self._engine.run("inspect", "--format", form, container)).split()
        if status == "running" and int(restarts) == 0:
            return None
        log = self._site.directory / f"logs/{host}.log"
        return f"its container {'starts again and again' if int(restarts) else f'ended with {code}'}: {cause(log)}"

    async def extend(self, site: Site, material: Material, genesis_blocks: Mapping[str, bytes]) -> Packages:
        """See `Runtime.extend`. Chaincodes that are new are served by a further container of the organisation."""
        await self._check_images(site)
        self._code = {**self._code, **further_code(site.topology.chaincodes)}
        packages = self._packages(site)
        started = await self._run(site, material, genesis_blocks)
        joining = self._joining
        assert joining is not None
        await asyncio.gather(*(joining.answers(host) for host in started))
        await asyncio.gather(*(self.chaincode_listens(service) for service in self._serving))
        await self._watch_anew()
        return packages

    async def shrink(self, site: Site) -> None:
        """See `Runtime.shrink`. A container of chaincodes ends when it serves nothing that the site has."""
        assert self._joining is not None
        assert self._site is not None
        before, self._site = self._site, site
        self._joining = self._joining.at(site)
        staying = {node.host for node in site.nodes}
        gone = [node for node in before.nodes if node.host not in staying]
        kept = {site.ports[port] for part in site.organizations for _, port in served_by(site.topology, part)}
        idle = [service for service, entry in self._serving.items() if kept.isdisjoint(entry.ports)]
        authorities = {authority_service(part): part for part in before.topology.everyone}
        for part in site.topology.everyone:
            authorities.pop(authority_service(part), None)
        await self._take_away([node_service(node.host) for node in gone if node.kind == "peer"])
        await self._take_away([node_service(node.host) for node in gone if node.kind == "orderer"])
        await self._take_away([f"couchdb.{node_service(node.host)}" for node in gone])
        await self._take_away([*idle, *authorities])
        for service in idle:
            del self._serving[service]
        for node in gone:
            if node.kind == "orderer":
                # Others have its blocks, and its own write-ahead log would end it if it came back.
                data = site.directory / "nodes" / node.host / "data"
                await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
        if gone or idle:
            await self._watch_anew()

    async def _take_away(self, services: Iterable[str]) -> None:
        """Stop and remove containers with their volumes, and take them out of the file. Raises EngineFailed."""
        assert self._engine is not None
        assert self._file is not None
        assert self._site is not None
        present = [service for service in services if service in self._file.services]
        if not present:
            return
        containers = [self._containers[service] for service in present if service in self._containers]
        await self._engine.stop(containers)
        followers = [self._followers.pop(service) for service in present if service in self._followers]
        await asyncio.gather(*(follower.drain() for follower in followers))
        volumes = [name for service in present for name in self._file.remove(service)]
        await self._engine.remove_some(project_name(self._site.directory), containers, volumes)
        for service in present:
            self._containers.pop(service, None)
        self._write(self._site)

    async def _watch_anew(self) -> None:
        """Have those who watch the network, if they run, read whom they watch now."""
        assert self._engine is not None
        assert self._site is not None
        assert self._material is not None
        if PROMETHEUS in self._containers:
            watch(self._site, self._material)
            await self._engine.run("restart", self._containers[PROMETHEUS])

    async def ready(self) -> None:
        """See `Runtime.ready`."""
        assert self._joining is not None
        await asyncio.gather(*(self.chaincode_listens(service) for service in self._serving))
        await self._joining.usable()

    async def chaincode_listens(self, service: str) -> None:
        """Wait until the chaincodes of a container listen. Raises ChaincodeFailed."""
        assert self._engine is not None
        assert self._site is not None
        served = self._serving[service]
        log = self._site.directory / f"logs/chaincode-{served.name}.log"
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                await self._engine.run("exec", self._containers[service], *listens(served.ports[0]))
                return
            except EngineFailed as error:
                form = "{{.RestartCount}}"
                restarts = await self._engine.run("inspect", "--format", form, self._containers[service])
                if int(restarts) > 1 or time.monotonic() > deadline:
                    why = f"its container does not listen: {last_line(log) or error.why}"
                    raise ChaincodeFailed(f"of {served.name}", why, log) from None
            await asyncio.sleep(_PAUSE_S)

    async def serving(self, site: Site, services: Collection[str]) -> frozenset[str]:
        """See `Runtime.serving`. Chaincodes take connections in their containers alone, so the engine is asked for these."""
        engine = self._engine or await Engine.find()
        found = await engine.labels(project_name(site.directory), CHAINCODES_LABEL)
        ports = {int(port) for label in found for port in label.split(",")}
        return frozenset(name for name in services if site.ports.get(name) in ports)

    async def stop(self) -> None:
        """See `Runtime.stop`. Peers end first, then ordering nodes, then the rest."""
        if self._engine is None or self._site is None:
            return
        engine, nodes = self._engine, self._site.nodes
        self._engine = None
        followers, self._followers = self._followers, {}
        try:
            for kind in ("peer", "orderer"):
                services = [node_service(node.host) for node in nodes if node.kind == kind]
                await engine.stop([self._containers[name] for name in services if name in self._containers])
            await engine.stop(self._containers.values())
            await asyncio.gather(*(follower.drain() for follower in followers.values()))
            # An interrupted start may have let the engine create one more meanwhile.
            while await engine.remove(project_name(self._site.directory)):
                pass
        except EngineFailed as error:
            _log.error("the containers cannot be removed", command=error.command, reason=error.why)
        finally:
            await asyncio.gather(*(follower.stop() for follower in followers.values()))

    @property
    def targets(self) -> Mapping[str, str]:
        """The services that can be ended and started, by the names that faults have for them."""
        assert self._site is not None
        nodes = {node.host: node_service(node.host) for node in self._site.nodes}
        return nodes | {f"chaincode of {served.name}": service for service, served in self._serving.items()}

    async def signal(self, action: str, target: str) -> None:
        """Kill or start a container. Raises KeyError for an unknown name, EngineFailed."""
        assert self._engine is not None
        await self._engine.run(action, self._containers[self.targets[target]])

    async def answers(self, target: str) -> None:
        """Wait until a node or the chaincodes of a container answer. Raises NodeFailed, ChaincodeFailed."""
        assert self._joining is not None
        service = self.targets[target]
        if target.startswith("chaincode"):
            await self.chaincode_listens(service)
        else:
            await self._joining.node(target)


class DockerFaults:
    """A `sovchain.network.runtimes.Faults` over the containers of a network."""

    def __init__(self, runtime: DockerRuntime) -> None:
        self._runtime = runtime

    def targets(self) -> Sequence[str]:
        """See `Faults.targets`."""
        return list(self._runtime.targets)

    async def kill(self, target: str) -> None:
        """See `Faults.kill`. What is killed on purpose is not restarted by the engine."""
        await self._runtime.signal("kill", target)

    async def start(self, target: str) -> None:
        """See `Faults.start`."""
        await self._runtime.signal("start", target)
        await self._runtime.answers(target)


def _profiles(topology: Topology) -> set[str]:
    """The profiles of a network: what its topology needs, and what the environment asks for besides."""
    chosen = {name.strip() for name in os.environ.get(PROFILES_VARIABLE, "").split(",")} - {""}
    if topology.state_database == "couchdb":
        chosen.add("couchdb")
    if any(part.certificate_authority == "fabric-ca" for part in topology.everyone):
        chosen.add("ca")
    return chosen


def _is_wanted(service: Mapping[str, Any], profiles: set[str]) -> bool:
    """Whether a service of a Compose file is to run with these profiles."""
    return not service.get("profiles") or not profiles.isdisjoint(service["profiles"])


def _hand_over(site: Site, material: Material) -> None:
    """Give what containers read and write to the user that they run as, where root brings the network up."""
    folders = [site.directory / name for name in ("nodes", "chaincode", "authorities", "monitoring")]
    folders += [material.organization(node.organization).node_folder(node.host) for node in site.nodes]
    for part in organizations_with_authority(material):
        folders += [part.folder / name for name in ("ca", "tlsca", AUTHORITY_FOLDER)]
    for top in folders:
        for folder, _, files in os.walk(top):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                with contextlib.suppress(FileNotFoundError):
                    if os.lstat(path).st_uid == 0:
                        os.lchown(path, _UNPRIVILEGED, _UNPRIVILEGED)


async def end_containers(directory: Path) -> None:
    """Remove what a killed network in `directory` has left running. Raises EngineUnavailable, EngineFailed."""
    if (directory / FILE).exists():
        engine = await Engine.find()
        await engine.remove(project_name(directory))


def main(version: str) -> int:
    """Print what would run a version of Fabric in containers, or in one line why nothing can; 0 or 1."""

    async def look() -> str:
        engine, images = await Engine.find(), Images.choose(version)
        ways = {name: f"docker pull {name}" for name in (images.peer, images.orderer)}
        await engine.check_images({**ways, images.chaincode: f"scripts/chaincode-image {images.chaincode}"})
        return f"Docker {engine.version}, Compose {engine.compose_version}, {images.peer}"

    try:
        print(asyncio.run(look()))  # noqa: T201  # this is a program's answer
    except (EngineUnavailable, ImagesMissing) as error:
        print(f"{error.why}; {error.remedy}")  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
