"""The native runtime: Fabric's own `peer` and `orderer` programs, and a chaincode process for each organisation.

    DIR/nodes/<host>/         configuration and data of one node
    DIR/nodes/builder/bin/    the external builder by which a peer takes chaincode that runs as a service
    DIR/chaincode/<Org>/      TLS and configuration of an organisation's chaincode process
    DIR/logs/<host>.log       what the node says

Each organisation runs its own chaincode: an endorsement means something only when the endorser ran the code.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sovchain.network.authorities import AuthorityServers
from sovchain.network.files import clean, make_folder, write_file
from sovchain.network.genesis import loopback_endpoints
from sovchain.network.material import Material, OrganizationMaterial
from sovchain.network.ports import ADDRESS, EVERY_ADDRESS, node_ports, service_names, taking_connections
from sovchain.network.runtimes import Endpoint, Packages, Site, couchdb
from sovchain.network.runtimes.chaincodes import (
    ChaincodeInstance,
    ChaincodeTls,
    build_package,
    serve_command,
    serve_configuration,
    serve_environment,
    served_by,
)
from sovchain.network.runtimes.databases import remove_unfinished_databases
from sovchain.network.runtimes.joining import Joining
from sovchain.network.runtimes.processes import Supervised, cause, end_orphans
from sovchain.network.runtimes.programs import Programs, find_programs
from sovchain.network.runtimes.settings import CouchDb, NodePlace, Settings, as_yaml, orderer_settings, peer_settings
from sovchain.network.runtimes.space import check_space
from sovchain.network.topology import ChaincodeSpec, Node, Organization, Topology

LOG_VARIABLE: Final = "FABRIC_LOGGING_SPEC"
"""Environment variable with what the nodes log (default info), as Fabric reads it."""

_BUILDER: Final = {
    # A peer calls these with its own PATH and nothing else (core/container/externalbuilder/externalbuilder.go).
    "detect": '#!/bin/sh\nexec grep -q \'"type": *"ccaas"\' "$2/metadata.json"\n',
    "build": '#!/bin/sh\nset -e\ncp "$1/connection.json" "$3/"\n'
    'if [ -d "$1/META-INF" ]; then cp -R "$1/META-INF" "$3/"; fi\n',
    "release": '#!/bin/sh\nset -e\nmkdir -p "$2/chaincode/server"\ncp "$1/connection.json" "$2/chaincode/server/"\n'
    'if [ -d "$1/META-INF/statedb" ]; then cp -R "$1/META-INF/statedb" "$2/"; fi\n',
}


@dataclass(kw_only=True)
class _FabricNode(Supervised):
    """A `peer` or an `orderer`, which a kill in its first moments does not keep from starting again.

    Attributes:
        data: where it keeps its databases.
    """

    data: Path

    async def _spawn(self) -> asyncio.subprocess.Process:
        remove_unfinished_databases(self.data)
        return await super()._spawn()


class NativeRuntime:
    """A `sovchain.network.runtimes.Runtime` over Fabric's own programs."""

    def __init__(self) -> None:
        self._site: Site | None = None
        self._joining: Joining | None = None
        self._programs: Programs | None = None
        self._serving: dict[tuple[str, str], ChaincodeInstance] = {}
        """The process that serves a chaincode, by organisation and label of the package."""
        self._orderers: dict[str, Supervised] = {}
        self._peers: dict[str, Supervised] = {}
        self._authorities = AuthorityServers()
        self._couchdb: Mapping[str, CouchDb] = {}

    @property
    def faults(self) -> NativeFaults:
        """See `Runtime.faults`."""
        return NativeFaults(self)

    @property
    def processes(self) -> Mapping[str, Supervised]:
        """Everything that was started, by its name: nodes by their host names, `chaincode of <organisation>`."""
        chaincodes = {f"chaincode {instance.name}": instance for instance in self._serving.values()}
        return {**self._peers, **self._orderers, **chaincodes}

    async def answers(self, target: str) -> None:
        """Wait until a node or chaincode process answers. Raises NodeFailed, ChaincodeFailed."""
        process = self.processes[target]
        if isinstance(process, ChaincodeInstance):
            await process.ready()
            return
        assert self._joining is not None
        await self._joining.node(target)

    def services(self, topology: Topology) -> Sequence[str]:
        """Three ports for each node, then one for each chaincode of each organisation."""
        return [
            # A peer's CouchDB is there already, wherever it is (`couchdb`).
            *(name for name in service_names(topology) if not name.endswith("/couchdb")),
            *(service for organization in topology.organizations for _, service in served_by(topology, organization)),
        ]

    def endpoints(self, topology: Topology, ports: Mapping[str, int]) -> Mapping[str, Endpoint]:
        """See `Runtime.endpoints`. All nodes are on this machine."""
        return loopback_endpoints(topology, ports)

    async def release(self, site: Site) -> None:
        """See `Runtime.release`."""
        self._programs = await find_programs(site.topology.fabric_version)
        self._couchdb = couchdb.read_servers(site)
        await couchdb.check_servers(self._couchdb)
        await end_orphans(site.directory)

    async def prepare(self, site: Site) -> Packages:
        """See `Runtime.prepare`."""
        return await self._serve(site)

    async def _serve(self, site: Site) -> Packages:
        """Start the chaincodes of each organisation that are not served yet, in one process; return all packages."""
        now = datetime.now(UTC)
        packages: dict[str, dict[str, bytes]] = {}
        for organization in site.organizations:
            served = served_by(site.topology, organization)
            if not served:
                continue
            folder = site.directory / "chaincode" / organization.name
            make_folder(folder)
            clean(folder)
            tls = ChaincodeTls.create(folder / "tls", now)
            services = []
            for spec, service in served:
                address = f"{ADDRESS}:{site.ports[service]}"
                package = build_package(spec, [address], tls)
                packages.setdefault(organization.name, {})[spec.name] = package
                if (organization.name, spec.label) not in self._serving:
                    services.append((spec, package, address))
            if services:
                await self._start_chaincodes(site, organization, services, tls)
        return packages

    async def _start_chaincodes(
        self,
        site: Site,
        organization: Organization,
        services: Sequence[tuple[ChaincodeSpec, bytes, str]],
        tls: ChaincodeTls,
    ) -> None:
        """Start one process for some chaincodes of an organisation; the first one is called by the organisation alone."""
        labels = [spec.label for spec, _, _ in services]
        is_first = not any(owner == organization.name for owner, _ in self._serving)
        name = organization.name if is_first else f"{organization.name}-{labels[0]}"
        config = site.directory / "chaincode" / organization.name / ("serve.json" if is_first else f"{labels[0]}.json")
        write_file(config, json.dumps(serve_configuration(services, tls), indent=2).encode(), durable=False)
        instance = ChaincodeInstance(
            name=f"of {name}",
            command=serve_command(config),
            environment=serve_environment("random"),
            log_path=site.directory / f"logs/chaincode-{name}.log",
            pid_path=site.directory / f"run/chaincode-{name}.pid",
        )
        self._serving |= {(organization.name, label): instance for label in labels}
        await instance.start()

    async def start_authorities(self, site: Site, material: Material) -> None:
        """See `Runtime.start_authorities`."""
        await self._authorities.start(site, material)

    async def start(self, site: Site, material: Material, genesis_blocks: Sequence[bytes]) -> None:
        """See `Runtime.start`."""
        blocks = dict(zip(site.channels, genesis_blocks, strict=True))
        await self._start_nodes(site, material, blocks)
        assert self._joining is not None
        await self._joining.everyone()

    async def _start_nodes(self, site: Site, material: Material, blocks: Mapping[str, bytes]) -> list[str]:
        """Start the nodes that do not run yet, without waiting for them; return their hosts."""
        self._site = site
        self._joining = Joining(site, material, blocks, self._ended)
        check_space(site)
        self._write_builder(site)
        started = [node for node in site.nodes if node.host not in self.processes]
        for node in started:
            own = material.organization(node.organization)
            own.node(node.host)  # names a file that is missing, before the node fails on it in words of its own
            place = _place(site, own, node)
            if node.kind == "orderer":
                settings = orderer_settings(own.msp_id, place)
                self._orderers[node.host] = await self._launch("orderer", [], settings, node.host)
                continue
            builder = str(site.directory / "nodes/builder")
            first, port = site.endpoints[own.organization.all_nodes[0].host]
            bootstrap = f"{first}:{port}"
            server = self._couchdb.get(node.host)
            settings = peer_settings(
                node.host, site.topology, own.msp_id, place, builder=builder, bootstrap=bootstrap,
                couchdb=CouchDb(server.address, "", "") if server else None,
            )  # fmt: skip
            self._peers[node.host] = await self._launch("peer", ["node", "start"], settings, node.host)
        return [node.host for node in started]

    async def extend(self, site: Site, material: Material, genesis_blocks: Mapping[str, bytes]) -> Packages:
        """See `Runtime.extend`. Chaincodes that are new are served by a further process of the organisation."""
        self._couchdb = couchdb.read_servers(site)
        packages = await self._serve(site)
        started = await self._start_nodes(site, material, genesis_blocks)
        assert self._joining is not None
        await asyncio.gather(*(self._joining.answers(host) for host in started))
        await asyncio.gather(*(instance.ready() for instance in self._instances()))
        return packages

    async def shrink(self, site: Site) -> None:
        """See `Runtime.shrink`. A process ends when it serves nothing that the site has."""
        self._site = site
        assert self._joining is not None
        self._joining = self._joining.at(site)
        hosts = {node.host for node in site.nodes}
        for group in (self._peers, self._orderers):
            gone = [host for host in group if host not in hosts]
            await asyncio.gather(*(group.pop(host).stop() for host in gone))
            if group is self._orderers:
                # Others have its blocks, and its own write-ahead log would end it if it came back.
                for host in gone:
                    await asyncio.to_thread(shutil.rmtree, site.directory / "nodes" / host / "data", ignore_errors=True)
        kept = {
            (organization.name, spec.label)
            for organization in site.organizations
            for spec, _ in served_by(site.topology, organization)
        }
        needed = {id(instance) for key, instance in self._serving.items() if key in kept}
        idle = [instance for instance in self._instances() if id(instance) not in needed]
        self._serving = {key: instance for key, instance in self._serving.items() if id(instance) in needed}
        await asyncio.gather(*(instance.stop() for instance in idle))
        await self._authorities.keep(site.topology)

    async def _ended(self, host: str) -> str | None:
        process = self.processes[host]
        if process.exit_code is None:
            return None
        return f"its process ended with {process.exit_code}: {cause(process.log_path)}"

    @staticmethod
    def _write_builder(site: Site) -> None:
        folder = site.directory / "nodes/builder/bin"
        make_folder(folder)
        for name, text in _BUILDER.items():
            write_file(folder / name, text.encode(), durable=False)
            (folder / name).chmod(0o700)

    async def _launch(self, program: str, arguments: Sequence[str], settings: Settings, host: str) -> Supervised:
        assert self._site is not None
        assert self._programs is not None
        directory = self._site.directory
        folder = directory / "nodes" / host
        make_folder(folder / "data")
        clean(folder)
        name = {"peer": "core.yaml", "orderer": "orderer.yaml"}[program]
        write_file(folder / name, as_yaml(settings), durable=False)
        process = _FabricNode(
            name=host,
            data=folder / "data",
            command=[self._programs[program], *arguments],
            environment={
                **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ},
                "FABRIC_CFG_PATH": str(folder),
                "FABRIC_LOGGING_FORMAT": "json",
                LOG_VARIABLE: couchdb.logging_spec(os.environ.get(LOG_VARIABLE, "info"), account=host in self._couchdb),
                **couchdb.environment(self._couchdb.get(host)),
            },
            log_path=directory / f"logs/{host}.log",
            pid_path=directory / f"run/{host}.pid",
        )
        await process.start()
        return process

    async def ready(self) -> None:
        """See `Runtime.ready`. A chaincode can be used when every member's gateway has found endorsers that ran it."""
        assert self._joining is not None
        await asyncio.gather(*(instance.ready() for instance in self._instances()))
        await self._joining.usable()

    def _instances(self) -> list[ChaincodeInstance]:
        """The chaincode processes, each once."""
        return list({id(instance): instance for instance in self._serving.values()}.values())

    async def serving(self, site: Site, services: Collection[str]) -> frozenset[str]:
        """See `Runtime.serving`."""
        return await taking_connections(site.ports, services)

    async def stop(self) -> None:
        """See `Runtime.stop`. Peers end first, then ordering nodes, then chaincodes."""
        peers, self._peers = self._peers, {}
        orderers, self._orderers = self._orderers, {}
        chaincodes, self._serving = self._instances(), {}
        await asyncio.gather(*(process.stop() for process in peers.values()))
        await asyncio.gather(*(process.stop() for process in orderers.values()))
        await asyncio.gather(*(instance.stop() for instance in chaincodes))
        await self._authorities.stop()


class NativeFaults:
    """A `sovchain.network.runtimes.Faults` over the processes of a native network."""

    def __init__(self, runtime: NativeRuntime) -> None:
        self._runtime = runtime

    def targets(self) -> Sequence[str]:
        """See `Faults.targets`."""
        return list(self._runtime.processes)

    async def kill(self, target: str) -> None:
        """See `Faults.kill`."""
        await self._runtime.processes[target].kill()

    async def start(self, target: str) -> None:
        """See `Faults.start`."""
        await self._runtime.processes[target].start()
        await self._runtime.answers(target)


def _place(site: Site, material: OrganizationMaterial, node: Node) -> NodePlace:
    folder, ports = material.node_folder(node.host), node_ports(node)
    return NodePlace(
        host=site.endpoints[node.host][0],
        listen=ADDRESS,
        main_listen=EVERY_ADDRESS if site.operator else ADDRESS,
        port=site.ports[ports["main"]],
        operations_port=site.ports[ports["operations"]],
        second_port=site.ports[ports["chaincode" if node.kind == "peer" else "admin"]],
        msp=str(folder / "msp"),
        tls=str(folder / "tls"),
        data=str(site.directory / "nodes" / node.host / "data"),
    )
