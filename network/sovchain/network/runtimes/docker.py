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
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import structlog

from sovchain.network.authorities import answering_authority, organizations_with_authority
from sovchain.network.errors import (
    ChaincodeFailed,
    ChangesRefused,
    EngineFailed,
    EngineUnavailable,
    ImagesMissing,
    NetworkError,
    PortInUse,
    Refusal,
)
from sovchain.network.files import make_folder, write_file
from sovchain.network.genesis import HOST
from sovchain.network.material import Material
from sovchain.network.material_layout import AUTHORITY_FOLDER
from sovchain.network.ports import node_ports, service_names
from sovchain.network.runtimes import Endpoint, Packages, Site
from sovchain.network.runtimes.chaincodes import READY_TIMEOUT_S, chaincodes_of
from sovchain.network.runtimes.compose import ComposeFile, project_name
from sovchain.network.runtimes.docker_code import further_code
from sovchain.network.runtimes.docker_engine import Engine
from sovchain.network.runtimes.docker_images import Images
from sovchain.network.runtimes.docker_logs import Follower
from sovchain.network.runtimes.docker_monitoring import PROFILE, SERVICES, add_monitoring, metrics_root
from sovchain.network.runtimes.docker_services import (
    Containers,
    authority_service,
    chaincode_packages,
    chaincode_service,
    listens,
    node_service,
)
from sovchain.network.runtimes.joining import Joining
from sovchain.network.runtimes.processes import cause, end_orphans, last_line
from sovchain.network.runtimes.programs import matches
from sovchain.network.runtimes.space import check_space
from sovchain.network.topology import Node, Topology

FILE: Final = "compose.yaml"
PROFILES_VARIABLE: Final = "COMPOSE_PROFILES"
"""Environment variable with further profiles to start, as Compose reads it; `monitoring` is the one to choose."""

_UNPRIVILEGED: Final = 10001
_FIXED: Final = Refusal(
    "runtime",
    "containers are not yet added to a running network or taken from it",
    "change it on the native runtime, or bring the new topology up in another directory",
)
"""User and group of the containers when the network is brought up by root, who no container is."""
_LOOK_EVERY_S: Final = 1.0
_PAUSE_S: Final = 0.2
_TAKEN: Final = re.compile(
    r"127\.0\.0\.1:(\d+)[^\n]*(?:already in use|already allocated)|:(\d+) failed: port is already"
)

_log = structlog.get_logger("sovchain.network.docker")


class DockerRuntime:
    """A `sovchain.network.runtimes.Runtime` over Compose."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._site: Site | None = None
        self._images: Images | None = None
        self._joining: Joining | None = None
        self._code: Mapping[str, Path] = {}
        self._containers: dict[str, str] = {}
        self._followers: dict[str, Follower] = {}
        self._looked: dict[str, float] = {}

    @property
    def faults(self) -> DockerFaults:
        """See `Runtime.faults`."""
        return DockerFaults(self)

    def services(self, topology: Topology) -> Sequence[str]:
        """The ports of nodes and authorities, then those of the two services that watch them."""
        return [*service_names(topology), *SERVICES]

    def endpoints(self, topology: Topology, ports: Mapping[str, int]) -> Mapping[str, Endpoint]:
        """See `Runtime.endpoints`. Containers have host names of their own, and the ports of this machine."""
        return {node.host: (node.host, ports[node.host]) for node in topology.nodes}

    async def release(self, site: Site) -> None:
        """See `Runtime.release`. Finds the engine and the images first."""
        self._code = further_code(site.topology.chaincodes)
        self._images = Images.choose(site.topology.fabric_version)
        self._engine = await Engine.find()
        needed = self._images.needed(site.topology)
        if PROFILE in _profiles(site.topology):
            needed |= self._images.monitoring()
        await self._engine.check_images(needed)
        await end_orphans(site.directory)
        if await self._engine.remove(project_name(site.directory)):
            _log.warning("removed containers that outlived their network", project=project_name(site.directory))

    async def prepare(self, site: Site) -> Packages:
        """See `Runtime.prepare`. The containers start together with the nodes."""
        self._site = site
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
        file = self._compose(site)
        containers = self._filler(site, file)
        for part in parts:
            containers.add_authority(part)
        names = {authority_service(part.organization): f"ca.{part.organization.domain}" for part in parts}
        await self._up(site, file, material, list(names))
        await self._follow(site, names)

        async def answers(name: str) -> None:
            part = next(part for part in parts if f"ca.{part.organization.domain}" == name)
            async with answering_authority(site, part, site.directory / f"logs/{name}.log"):
                pass

        await asyncio.gather(*(answers(name) for name in names.values()))

    async def start(self, site: Site, material: Material, genesis_blocks: Sequence[bytes]) -> None:
        """See `Runtime.start`."""
        blocks = dict(zip(site.channels, genesis_blocks, strict=True))
        self._joining = Joining(site, material, blocks, self._ended)
        check_space(site)
        file = self._compose(site)
        containers = self._filler(site, file)
        for part in organizations_with_authority(material):
            containers.add_authority(part)
        logs: dict[str, str] = {}
        for node in site.nodes:
            containers.add_node(material.organization(node.organization), node)
            logs[node_service(node.host)] = node.host
        for organization in site.organizations:
            if chaincodes_of(site.topology, organization):
                containers.add_chaincodes(organization, self._code)
                logs[chaincode_service(organization)] = f"chaincode-{organization.name}"
        add_monitoring(file, site, material, containers.images)
        await self._up(site, file, material)
        await self._follow(site, logs)
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

    def _compose(self, site: Site) -> ComposeFile:
        assert self._engine is not None
        if self._engine.rootless:
            return ComposeFile("0:0")  # which is this user, without any right beyond its own
        return ComposeFile(f"{os.getuid() or _UNPRIVILEGED}:{os.getgid() or _UNPRIVILEGED}")

    def _filler(self, site: Site, file: ComposeFile) -> Containers:
        assert self._images is not None
        return Containers(site, self._images, file, metrics_root(site, datetime.now(UTC)))

    async def _up(self, site: Site, file: ComposeFile, material: Material, services: Sequence[str] = ()) -> None:
        """Write the file, hand over what the containers read and write, and start them. Raises PortInUse, EngineFailed."""
        assert self._engine is not None
        project = project_name(site.directory)
        for folder in file.folders:
            make_folder(folder)
        if os.getuid() == 0 and not self._engine.rootless:
            await asyncio.to_thread(_hand_over, site, material)
        head = (
            f"The network {site.topology.name}, written at each start: change the topology instead.\nProject: {project}"
        )
        write_file(site.directory / FILE, file.text(head), durable=False)
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

    async def _follow(self, site: Site, names: Mapping[str, str]) -> None:
        assert self._engine is not None
        for service, name in names.items():
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
        """See `Runtime.extend`."""
        raise ChangesRefused([_FIXED])

    async def shrink(self, site: Site) -> None:
        """See `Runtime.shrink`."""
        raise ChangesRefused([_FIXED])

    async def ready(self) -> None:
        """See `Runtime.ready`."""
        assert self._joining is not None
        assert self._site is not None
        parts = [part for part in self._site.organizations if chaincode_service(part) in self._containers]
        await asyncio.gather(*(self.chaincode_listens(chaincode_service(part)) for part in parts))
        await self._joining.usable()

    async def chaincode_listens(self, service: str) -> None:
        """Wait until the chaincodes of a container listen. Raises ChaincodeFailed."""
        assert self._engine is not None
        assert self._site is not None
        organization = service.partition(".")[2]
        log = self._site.directory / f"logs/chaincode-{organization}.log"
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                await self._engine.run("exec", self._containers[service], *listens())
                return
            except EngineFailed as error:
                form = "{{.RestartCount}}"
                restarts = await self._engine.run("inspect", "--format", form, self._containers[service])
                if int(restarts) > 1 or time.monotonic() > deadline:
                    why = f"its container does not listen: {last_line(log) or error.why}"
                    raise ChaincodeFailed(f"of {organization}", why, log) from None
            await asyncio.sleep(_PAUSE_S)

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
        parts = [part for part in self._site.organizations if chaincode_service(part) in self._containers]
        return nodes | {f"chaincode of {part.name}": chaincode_service(part) for part in parts}

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
