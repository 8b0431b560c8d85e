"""The native runtime: Fabric's own `peer` and `orderer` programs, and a chaincode process for each organisation.

    DIR/nodes/<host>/         configuration and data of one node
    DIR/nodes/builder/bin/    the external builder by which a peer takes chaincode that runs as a service
    DIR/chaincode/<Org>/      TLS and configuration of an organisation's chaincode process
    DIR/logs/<host>.log       what the node says

Each organisation runs its own chaincode: an endorsement means something only when the endorser ran the code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import structlog

from sovchain.client import EndorseError, Gateway, SigningIdentity
from sovchain.network.authorities import AuthorityServers
from sovchain.network.errors import LifecycleError, NetworkError, NodeFailed, NotEnoughSpace, RuntimeUnavailable
from sovchain.network.files import clean, make_folder, write_file
from sovchain.network.genesis import HOST
from sovchain.network.material import Material, OrganizationMaterial
from sovchain.network.participation import OrderingNodeAdmin
from sovchain.network.ports import ADDRESS, node_ports, service_names
from sovchain.network.profiles import profile_path
from sovchain.network.runtimes import RUNTIMES, Packages, Site
from sovchain.network.runtimes.access import administered_peer
from sovchain.network.runtimes.chaincodes import (
    ChaincodeInstance,
    ChaincodeTls,
    build_package,
    serve_command,
    serve_configuration,
    serve_environment,
)
from sovchain.network.runtimes.processes import Supervised, end_orphans, last_line, tail
from sovchain.network.runtimes.programs import Programs, find_programs
from sovchain.network.runtimes.settings import NodePlace, Settings, as_yaml, orderer_settings, peer_settings
from sovchain.network.topology import ChaincodeSpec, Node, Organization, Topology

ANSWER_TIMEOUT_S: Final = 30.0
"""How long a node may take from its start to its first answer, and a channel until a client can use its chaincode."""
LOG_VARIABLE: Final = "FABRIC_LOGGING_SPEC"
"""Environment variable with what the nodes log (default info), as Fabric reads it."""

_POLL_S: Final = 0.03
_WAL_BYTES: Final = 2 * 64 * 1024 * 1024
"""What an ordering node reserves for the write-ahead log of each Raft channel (etcd's `wal.SegmentSizeBytes`)."""
_SPARE_BYTES: Final = 256 * 1024 * 1024
_METADATA: Final = "org.hyperledger.fabric:GetMetadata"
_BUILDER: Final = {
    # A peer calls these with its own PATH and nothing else (core/container/externalbuilder/externalbuilder.go).
    "detect": '#!/bin/sh\nexec grep -q \'"type": *"ccaas"\' "$2/metadata.json"\n',
    "build": '#!/bin/sh\nset -e\ncp "$1/connection.json" "$3/"\n'
    'if [ -d "$1/META-INF" ]; then cp -R "$1/META-INF" "$3/"; fi\n',
    "release": '#!/bin/sh\nset -e\nmkdir -p "$2/chaincode/server"\ncp "$1/connection.json" "$2/chaincode/server/"\n'
    'if [ -d "$1/META-INF/statedb" ]; then cp -R "$1/META-INF/statedb" "$2/"; fi\n',
}

_log = structlog.get_logger("sovchain.network.native")


def chaincode_service(organization: str, chaincode: str) -> str:
    """Name of the port on which an organisation's process serves a chaincode."""
    return f"chaincode {chaincode} of {organization}"


def chaincodes_of(topology: Topology, organization: Organization) -> list[ChaincodeSpec]:
    """The chaincodes on the channels of an organisation."""
    return [
        spec
        for spec in topology.chaincodes
        if any(organization.name in topology.channel(channel).members for channel in spec.channels)
    ]


@dataclass(frozen=True)
class _Node:
    """A node's process and what it belongs to."""

    process: Supervised
    material: OrganizationMaterial


class NativeRuntime:
    """A `sovchain.network.runtimes.Runtime` over Fabric's own programs."""

    def __init__(self) -> None:
        self._site: Site | None = None
        self._material: Material | None = None
        self._programs: Programs | None = None
        self._chaincodes: list[ChaincodeInstance] = []
        self._orderers: dict[str, _Node] = {}
        self._peers: dict[str, _Node] = {}
        self._blocks: Mapping[str, bytes] = {}
        self._authorities = AuthorityServers()

    @property
    def faults(self) -> NativeFaults:
        """See `Runtime.faults`."""
        return NativeFaults(self)

    @property
    def processes(self) -> Mapping[str, Supervised]:
        """Everything that was started, by its name: nodes by their host names, `chaincode of <organisation>`."""
        nodes = [node.process for node in (*self._peers.values(), *self._orderers.values())]
        chaincodes = {f"chaincode {instance.name}": instance for instance in self._chaincodes}
        return {process.name: process for process in nodes} | chaincodes

    async def answers(self, target: str) -> None:
        """Wait until a node or chaincode process answers. Raises NodeFailed, ChaincodeFailed."""
        process = self.processes[target]
        if isinstance(process, ChaincodeInstance):
            await process.ready()
            return
        if target in self._orderers:
            await self._join_orderer(target, self._blocks)
        else:
            await self._join_peer(target, self._blocks)

    def services(self, topology: Topology) -> Sequence[str]:
        """Three ports for each node, then one for each chaincode of each organisation."""
        _supported(topology)
        return [
            *service_names(topology),
            *(
                chaincode_service(organization.name, spec.name)
                for organization in topology.organizations
                for spec in chaincodes_of(topology, organization)
            ),
        ]

    async def release(self, site: Site) -> None:
        """See `Runtime.release`."""
        self._programs = await find_programs(site.topology.fabric_version)
        await end_orphans(site.directory)

    async def prepare(self, site: Site) -> Packages:
        """See `Runtime.prepare`."""
        now = datetime.now(UTC)
        packages = {}
        for organization in site.topology.organizations:
            specs = chaincodes_of(site.topology, organization)
            if specs:
                packages[organization.name] = await self._start_chaincodes(site, organization, specs, now)
        return packages

    async def _start_chaincodes(
        self, site: Site, organization: Organization, specs: Sequence[ChaincodeSpec], now: datetime
    ) -> dict[str, bytes]:
        folder = site.directory / "chaincode" / organization.name
        make_folder(folder)
        clean(folder)
        tls = ChaincodeTls.create(folder / "tls", now)
        addresses = {
            spec.name: f"{ADDRESS}:{site.ports[chaincode_service(organization.name, spec.name)]}" for spec in specs
        }
        packages = {spec.name: build_package(spec, [addresses[spec.name]], tls) for spec in specs}
        services = [(spec, packages[spec.name], addresses[spec.name]) for spec in specs]
        config = folder / "serve.json"
        write_file(config, json.dumps(serve_configuration(services, tls), indent=2).encode(), durable=False)
        instance = ChaincodeInstance(
            name=f"of {organization.name}",
            command=serve_command(config),
            environment=serve_environment("random"),
            log_path=site.directory / f"logs/chaincode-{organization.name}.log",
            pid_path=site.directory / f"run/chaincode-{organization.name}.pid",
        )
        self._chaincodes.append(instance)
        await instance.start()
        return packages

    async def start_authorities(self, site: Site, material: Material) -> None:
        """See `Runtime.start_authorities`."""
        await self._authorities.start(site, material)

    async def start(self, site: Site, material: Material, genesis_blocks: Sequence[bytes]) -> None:
        """See `Runtime.start`."""
        self._site, self._material = site, material
        topology = site.topology
        self._blocks = blocks = dict(zip((channel.name for channel in topology.channels), genesis_blocks, strict=True))
        _check_space(site)
        self._write_builder(site)
        for node in topology.nodes:
            own = material.organization(node.organization)
            place = _place(site, own, node)
            if node.kind == "orderer":
                settings = orderer_settings(own.msp_id, place)
                self._orderers[node.host] = await self._launch("orderer", [], settings, own, node.host)
                continue
            builder = str(site.directory / "nodes/builder")
            bootstrap = f"{place.host}:{site.ports[own.organization.all_nodes[0].host]}"
            settings = peer_settings(node.host, topology, own.msp_id, place, builder=builder, bootstrap=bootstrap)
            self._peers[node.host] = await self._launch("peer", ["node", "start"], settings, own, node.host)
        # A peer that joins a channel calls the anchor peers at once, and waits long before it calls an absent one again.
        await asyncio.gather(*(self._join_peer(host, {}) for host in self._peers))
        await asyncio.gather(
            *(self._join_orderer(host, blocks) for host in self._orderers),
            *(self._join_peer(host, blocks) for host in self._peers),
        )

    @staticmethod
    def _write_builder(site: Site) -> None:
        folder = site.directory / "nodes/builder/bin"
        make_folder(folder)
        for name, text in _BUILDER.items():
            write_file(folder / name, text.encode(), durable=False)
            (folder / name).chmod(0o700)

    async def _launch(
        self, program: str, arguments: Sequence[str], settings: Settings, material: OrganizationMaterial, host: str
    ) -> _Node:
        assert self._site is not None
        assert self._programs is not None
        directory = self._site.directory
        folder = directory / "nodes" / host
        make_folder(folder / "data")
        clean(folder)
        name = {"peer": "core.yaml", "orderer": "orderer.yaml"}[program]
        write_file(folder / name, as_yaml(settings), durable=False)
        process = Supervised(
            name=host,
            command=[self._programs[program], *arguments],
            environment={
                **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ},
                "FABRIC_CFG_PATH": str(folder),
                "FABRIC_LOGGING_FORMAT": "json",
                LOG_VARIABLE: os.environ.get(LOG_VARIABLE, "info"),
            },
            log_path=directory / f"logs/{host}.log",
            pid_path=directory / f"run/{host}.pid",
        )
        await process.start()
        return _Node(process, material)

    async def _join_orderer(self, host: str, blocks: Mapping[str, bytes]) -> None:
        """Wait until an ordering node answers, and join it to those of its channels that it does not know.

        `blocks` holds the first blocks of the channels to join.
        """
        assert self._site is not None
        node, topology = self._orderers[host], self._site.topology
        name = node.material.organization.name
        own = {
            channel.name for channel in topology.channels if name in {o.name for o in topology.orderers(channel.name)}
        }
        admin = orderer_admin(self._site, node.material, host)
        try:
            joined = await self._answer(node, admin.channels)
            await asyncio.gather(
                *(admin.join(channel, blocks[channel]) for channel in sorted((own & blocks.keys()) - joined))
            )
        finally:
            await admin.close()

    async def _join_peer(self, host: str, blocks: Mapping[str, bytes]) -> None:
        """The same for a peer."""
        assert self._site is not None
        assert self._material is not None
        organization = self._site.topology.organization(self._peers[host].material.organization.name)
        own = {channel.name for channel in self._site.topology.channels if organization.name in channel.members}
        peer = administered_peer(self._site, self._material, organization, host)
        try:
            joined = await self._answer(self._peers[host], peer.channels)
            await asyncio.gather(
                *(peer.join(channel, blocks[channel]) for channel in sorted((own & blocks.keys()) - joined))
            )
        finally:
            await peer.close()

    async def _answer(self, node: _Node, ask: Callable[[], Awaitable[frozenset[str]]]) -> frozenset[str]:
        """Ask a node until it answers. Raises NodeFailed when it ends before, or not within `ANSWER_TIMEOUT_S`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ANSWER_TIMEOUT_S
        while True:
            try:
                return await ask()
            except (httpx.TransportError, LifecycleError) as error:
                process = node.process
                if isinstance(error, LifecycleError) and error.status not in (_UNAVAILABLE, _DEADLINE_EXCEEDED):
                    raise
                if process.exit_code is not None:
                    why = f"its process ended with {process.exit_code}: {_cause(process.log_path)}"
                    raise NodeFailed(process.name, "does not start", why, process.log_path) from None
                if loop.time() > deadline:
                    why = f"not within {ANSWER_TIMEOUT_S:.0f} s: {error or type(error).__name__}"
                    raise NodeFailed(process.name, "does not answer", why, process.log_path) from None
            await asyncio.sleep(_POLL_S)

    async def ready(self) -> None:
        """See `Runtime.ready`. A chaincode can be used when every member's gateway has found endorsers that ran it."""
        assert self._site is not None
        topology = self._site.topology
        await asyncio.gather(*(instance.ready() for instance in self._chaincodes))
        await asyncio.gather(*(self._usable(organization) for organization in topology.organizations))

    async def _usable(self, organization: Organization) -> None:
        assert self._site is not None
        assert self._material is not None
        credential = self._material.organization(organization.name).user(organization.administrator.name)
        identity = SigningIdentity.from_pem(organization.msp_id, credential.certificate_pem, credential.private_key_pem)
        profile = profile_path(self._site.directory / "connections", organization.name)
        async with Gateway.connect(profile, identity) as gateway:
            await asyncio.gather(
                *(
                    self._endorsed(gateway, organization, channel, spec.name)
                    for spec in self._site.topology.chaincodes
                    for channel in spec.channels
                    if organization.name in self._site.topology.channel(channel).members
                )
            )

    async def _endorsed(self, gateway: Gateway, organization: Organization, channel: str, chaincode: str) -> None:
        """Have a query endorsed by all members, which is not sent for ordering, again and again until they can."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ANSWER_TIMEOUT_S
        assert self._site is not None
        members = [member.msp_id for member in self._site.topology.members(channel)]
        # Whichever member a client names as endorser, this gateway must know its peer and the peer must reach its chaincode.
        contract = gateway.network(channel).contract(chaincode).with_options(organizations=members)
        while True:
            try:
                await contract.proposal(_METADATA).endorse()
                return
            except EndorseError as error:
                # An answer of the chaincode, even a refusal, shows that it can be reached.
                if error.chaincode_status is not None:
                    return
                if error.status not in ("UNAVAILABLE", "FAILED_PRECONDITION", "ABORTED") or loop.time() > deadline:
                    raise NetworkError(
                        f"chaincode {chaincode} on channel {channel} cannot be used by {organization.name}",
                        str(error),
                        "read the logs of the peers and of the chaincode processes",
                        channel=channel,
                        chaincode=chaincode,
                        organization=organization.name,
                    ) from None
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """See `Runtime.stop`. Peers end first, then ordering nodes, then chaincodes."""
        peers, self._peers = self._peers, {}
        orderers, self._orderers = self._orderers, {}
        chaincodes, self._chaincodes = self._chaincodes, []
        await asyncio.gather(*(node.process.stop() for node in peers.values()))
        await asyncio.gather(*(node.process.stop() for node in orderers.values()))
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


_UNAVAILABLE: Final = 14
_DEADLINE_EXCEEDED: Final = 4


def orderer_admin(site: Site, material: OrganizationMaterial, host: str | None = None) -> OrderingNodeAdmin:
    """The administration of an organisation's ordering node with this host name, or its first, with its administrator's TLS certificate."""
    name = f"Admin@{material.organization.domain}"
    tls = material.folder / "users" / name / "tls"
    node = next(node for node in material.organization.all_nodes if host in (None, node.host))
    address = f"{HOST}:{site.ports[node_ports(node)['admin']]}"
    return OrderingNodeAdmin(material.msp_id, address, tls / "ca.crt", tls / "client.crt", tls / "client.key")


def _supported(topology: Topology) -> None:
    """Refuse what this runtime would have to leave out. Raises RuntimeUnavailable."""
    if topology.state_database == "couchdb":
        raise RuntimeUnavailable(
            "native", "it starts no CouchDB; change the topology, or use another runtime", RUNTIMES
        )


def _place(site: Site, material: OrganizationMaterial, node: Node) -> NodePlace:
    folder, ports = material.node_folder(node.host), node_ports(node)
    return NodePlace(
        host=HOST,
        listen=ADDRESS,
        port=site.ports[ports["main"]],
        operations_port=site.ports[ports["operations"]],
        second_port=site.ports[ports["chaincode" if node.kind == "peer" else "admin"]],
        msp=str(folder / "msp"),
        tls=str(folder / "tls"),
        data=str(site.directory / "nodes" / node.host / "data"),
    )


def _check_space(site: Site) -> None:
    """Raise NotEnoughSpace when the ordering nodes could not reserve their logs: they would end in the middle of it."""
    needed = 0
    for channel in site.topology.channels:
        for orderer in site.topology.orderers(channel.name):
            for node in orderer.all_nodes if site.topology.consensus == "raft" else ():
                wal = site.directory / "nodes" / node.host / "data/wal" / channel.name
                needed += 0 if wal.exists() else _WAL_BYTES
    free = shutil.disk_usage(site.directory).free
    if free < needed + _SPARE_BYTES:
        raise NotEnoughSpace(site.directory, needed + _SPARE_BYTES, free)


def _cause(log: Path) -> str:
    """Why a node ended: the first line of its last words that is a panic or a fatal error."""
    for line in tail(log):
        said = _said(line)
        if said is not None:
            return said[:300]
    return last_line(log)


def _said(line: str) -> str | None:
    with contextlib.suppress(ValueError, AttributeError):
        document: dict[str, Any] = json.loads(line)
        return str(document.get("msg", "")) if document.get("level") in ("panic", "fatal") else None
    return line if line.startswith(("panic:", "fatal error:", "Error:")) else None
