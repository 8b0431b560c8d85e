"""Bringing a running network to another topology: plan, take each step, look again until nothing differs.

The process that runs the network does this; others ask it to (`control`). Each step looks before it acts and does nothing
where all is done, so that after an interruption, at whatever point, the next `apply` goes on from what the network says.
From the first step on the directory's note has the topology that was asked for and the one before: `up` starts the nodes
of both until an `apply` has come to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from sovchain.network import ports as ports_module
from sovchain.network.checks import check
from sovchain.network.configuration import ChannelConfiguration
from sovchain.network.errors import ChangesRefused, LifecycleError, NetworkError, Refusal
from sovchain.network.genesis import genesis_blocks
from sovchain.network.instance import Description, Instance
from sovchain.network.material import Material
from sovchain.network.nodes import Administrator, Peer
from sovchain.network.participation import OrderingNodeAdmin
from sovchain.network.plan import (
    Ground,
    Group,
    Plan,
    Step,
    first_group,
    make_plan,
    node_of,
    wanted_group,
    with_consenter,
    without_consenter,
)
from sovchain.network.plan_look import look
from sovchain.network.ports import node_ports
from sovchain.network.profiles import profile_path, write_profiles
from sovchain.network.runtimes import Runtime, Site, create_runtime
from sovchain.network.runtimes.access import administered_peer, orderer_admin
from sovchain.network.runtimes.chaincodes import settled_ports
from sovchain.network.startup import Progress, Running, deploy_chaincodes, ordering_nodes, provide_material
from sovchain.network.topology import AnyOrganization, Node, Organization, Topology
from sovchain.network.transition import check_changes, union
from sovchain.protocol.configedit import next_configuration, read_consenters

JOIN_TIMEOUT_S: Final = 60.0
"""How long an ordering node may take to catch up with a channel, and a peer to reach its newest block."""
_ROUNDS: Final = 3
_POLL_S: Final = 0.05

_log = structlog.get_logger("sovchain.network.apply")


@dataclass(frozen=True)
class Applied:
    """What `apply` has done: the steps that it took, in order; none when the network was as asked for."""

    steps: tuple[Step, ...]


async def plan(directory: Path, description: Description, target: Topology) -> Plan:
    """Look at the network in a directory, whoever runs it, and compute the steps to a topology.

    Raises TopologyError, ChangesRefused (also where one operator's part alone is here), LifecycleError, ConfigError,
    NoFreePorts.
    """
    target = _whole(target)
    _check_whole_network(description.bundle.operator if description.bundle else "")
    runtime = create_runtime(description.runtime)
    was = description.topology
    before = union(description.previous, was) if description.previous else was
    check_changes(before, target)
    site = Site(directory, before, description.ports, runtime.endpoints(before, description.ports))
    ground, services = _ground(runtime, site, before, target, description)
    return make_plan(ground, await look(ground.site, ground.material, target, runtime, services))


def _whole(target: Topology) -> Topology:
    """The topology as it is when it is read again, so that one made in parts compares equal. Raises TopologyError."""
    return check(Topology.model_validate_json(target.model_dump_json()))


def _check_whole_network(operator: str) -> None:
    """Refuse to change a network of which one operator's part is here. Raises ChangesRefused."""
    if operator:
        why = f"the nodes and keys of {operator} alone are in this directory"
        raise ChangesRefused([Refusal("operator", why, "change it where the keys of all organisations are")])


def _ground(
    runtime: Runtime, site: Site, before: Topology, target: Topology, description: Description
) -> tuple[Ground, frozenset[str]]:
    """What to stand on between two topologies, and the services that there should be at its end."""
    both = union(before, target)
    services = runtime.services(both)
    ports = {**site.ports, **ports_module.allocate(services, target.ports.base, site.ports, target.ports.fixed)}
    wide = Site(site.directory, both, ports, runtime.endpoints(both, ports))
    material = Material(both, site.directory / "organizations")
    recorded = description.topology == target and description.previous is None
    wanted = frozenset(services) - (frozenset(runtime.services(before)) - frozenset(runtime.services(target)))
    return Ground(wide, material, target, recorded), wanted


class Apply:
    """One `apply` in the process that runs the network."""

    def __init__(self, instance: Instance, running: Running, target: Topology, progress: Progress | None) -> None:
        """Raises TopologyError, ChangesRefused, NoFreePorts; nothing is touched yet."""
        assert instance.description is not None
        target = _whole(target)
        _check_whole_network(running.site.operator)
        self._before = running.site.topology
        check_changes(self._before, target)
        self._instance = instance
        self._runtime = running.runtime
        self.running = running
        """What runs now; another one after each change."""
        self._target = target
        self._progress = progress
        # Ports that an interrupted change has given out are in packages and configurations already.
        known = replace(running.site, ports={**instance.description.ports, **running.site.ports})
        self._ground, self._services = _ground(running.runtime, known, self._before, target, instance.description)
        self._taken: list[Step] = []
        self._blocks: Mapping[str, bytes] = {}

    async def run(self) -> Applied:
        """Take the steps, and return them. Raises NetworkError, ConfigError, CaError, OSError."""
        steps = (await self._plan()).steps
        for _ in range(_ROUNDS):
            if not steps:
                return Applied(tuple(self._taken))
            if not self._taken:
                await self._prepare()
            total = len(self._taken) + len(steps)
            for step in steps:
                await self._take(step)
                self._taken.append(step)
                _log.info("changed", step=step.text, details=list(step.details))
                if self._progress is not None:
                    self._progress(step.text, len(self._taken), total)
            steps = (await self._plan()).steps
        if not steps:
            return Applied(tuple(self._taken))
        raise NetworkError(
            "the network still differs from the topology",
            "; ".join(step.text for step in steps),
            "look again (sovchain plan), and read the logs of the nodes that are named",
            steps=[step.text for step in steps],
        )

    async def _plan(self) -> Plan:
        present = await look(self._ground.site, self._ground.material, self._target, self._runtime, self._services)
        return make_plan(self._ground, present)

    async def _prepare(self) -> None:
        """Note what is to come, make the keys, and start everything that comes; nothing that works is touched."""
        site, description = self._ground.site, self._instance.description
        assert description is not None
        new = [service for service in self._runtime.services(site.topology) if service not in self.running.site.ports]
        ports_module.check_free(site.ports, new)
        before = self._before if description.previous is None else union(self._before, description.topology)
        self._instance.change(self._target, before, site.ports)
        now = datetime.now(UTC)
        material = await provide_material(site, self._runtime, now)
        blocks = genesis_blocks(self._target, material, site.endpoints, site.directory / "channels", now)
        try:
            packages = await self._runtime.extend(site, material, blocks)
        except ChangesRefused:
            self._instance.change(description.topology, description.previous, description.ports)
            raise
        write_profiles(site, material, site.directory / "connections")
        self._ground = replace(self._ground, material=material, recorded=False)
        self._blocks = blocks
        self.running = Running(site, material, packages, self._runtime)

    async def _take(self, step: Step) -> None:
        match step.action:
            case "keys" | "start" | "serve":
                pass  # `_prepare` has done so for all at once
            case "create":
                await self._create(step.channel)
            case "configure":
                await self._configure(step.channel, first_group)
            case "admit":
                await self._configure(step.channel, lambda root, wanted: self._admitted(root, wanted, step.subject))
            case "join":
                await self._join(step.subject, step.channel)
            case "deploy":
                await self._deploy(step.subject, step.channel)
            case "dismiss":
                await self._configure(step.channel, lambda root, _: without_consenter(root, self._place(step.subject)))
            case "expel":
                await self._configure(step.channel, next_configuration)
            case "leave":
                await self._leave(step.subject, step.channel)
            case "stop":
                await self._runtime.shrink(self._final_site())
            case "record":
                await self._finish()

    # Channels --------------------------------------------------------------------------------------------------------

    async def _create(self, channel: str) -> None:
        """Join the ordering nodes of a new channel to it, by its first block; on the embedded ledger its peers do so."""
        nodes = [
            node
            for part in self._target.orderers(channel)
            for node in part.all_nodes
            if node_ports(node)["admin"] in self._ground.site.ports
        ]
        await asyncio.gather(*(self._join_orderer(node, channel, self._blocks[channel]) for node in nodes))

    async def _configure(self, channel: str, next_group: Callable[[Group, Group], Group]) -> None:
        """Change a channel's configuration until `next_group` of the current and the wanted root changes nothing."""
        wanted = wanted_group(self._ground, channel)
        async with self._configuration(channel) as configuration:
            while (await configuration.change(lambda root: next_group(root, wanted))).signers:
                pass

    def _admitted(self, root: Group, wanted: Group, host: str) -> Group:
        place = self._place(host)
        there = {(c.host, c.port) for c in read_consenters(root.groups["Orderer"])}
        known = {(c.host, c.port): c for c in read_consenters(wanted.groups["Orderer"])}
        return root if place in there else with_consenter(root, known[place])

    def _place(self, host: str) -> tuple[str, int]:
        """Where others reach a node; for one that the topology does not know its name says so ("host:port")."""
        if host in self._ground.site.endpoints:
            return self._ground.site.endpoints[host]
        name, _, port = host.rpartition(":")
        return name, int(port)

    @asynccontextmanager
    async def _configuration(self, channel: str) -> AsyncIterator[ChannelConfiguration]:
        """The configuration of a channel, with everybody whose keys are here to sign its changes."""
        site, material = self._ground.site, self._ground.material
        async with AsyncExitStack() as stack:
            orderers = ordering_nodes(self._target_site(), material, channel)
            stack.push_async_callback(orderers.close)
            peers = []
            for part in site.topology.members(channel):
                for node in part.all_nodes:
                    peer = await self._peer(stack, node)
                    if channel in await _channels(peer):
                        peers.append(peer)
            yield ChannelConfiguration(channel, peers, orderers, list(self._administrators(channel)))

    def _administrators(self, channel: str) -> Iterator[Administrator]:
        """Those who can sign for a channel here, those who stay on it first."""
        topology = self._ground.site.topology
        parts: list[AnyOrganization] = [*topology.members(channel), *topology.orderers(channel)]
        for part in parts:
            own = self._ground.material.organization(part.name)
            if own.has_keys:
                name = part.administrator.name if isinstance(part, Organization) else "Admin"
                credential = own.user(name)
                yield Administrator.from_pem(part.msp_id, credential.certificate_pem, credential.private_key_pem)

    # Nodes -----------------------------------------------------------------------------------------------------------

    async def _peer(self, stack: AsyncExitStack, node: Node) -> Peer:
        site, material = self._ground.site, self._ground.material
        peer = administered_peer(site, material, site.topology.organization(node.organization), node.host)
        stack.push_async_callback(peer.close)
        return peer

    async def _join(self, host: str, channel: str) -> None:
        """Join a node to a channel and wait until it has what the others have."""
        node = node_of(self._ground.site.topology, host)
        async with self._configuration(channel) as configuration, AsyncExitStack() as stack:
            if node.kind == "orderer":
                _, block = await configuration.current()
                await self._join_orderer(node, channel, block.SerializeToString())
                return
            peer = await self._peer(stack, node)
            if channel not in await peer.channels():
                await peer.join(channel, self._blocks[channel])
            if configuration.has_peers:
                bundle, _ = await configuration.current()
                await configuration.reaches(peer, bundle.sequence)

    async def _join_orderer(self, node: Node, channel: str, block: bytes) -> None:
        admin = orderer_admin(self._ground.site, self._ground.material.organization(node.organization), node.host)
        try:
            if channel not in await admin.channels():
                await admin.join(channel, block)
            await _active(admin, node.host, channel)
        finally:
            await admin.close()

    async def _leave(self, host: str, channel: str) -> None:
        node = node_of(self._ground.site.topology, host)
        admin = orderer_admin(self._ground.site, self._ground.material.organization(node.organization), host)
        try:
            if channel in await admin.channels():
                await admin.remove(channel)
        finally:
            await admin.close()

    # Chaincodes, and the end -----------------------------------------------------------------------------------------

    async def _deploy(self, label: str, channel: str) -> None:
        spec = next(spec for spec in self._target.chaincodes if spec.label == label)
        here = replace(self.running, site=self._target_site())
        await deploy_chaincodes(here, [spec.model_copy(update={"channels": (channel,)})])

    async def _finish(self) -> None:
        """Stop what is there for nothing, wait until all chaincodes can be used, and note that the change is completed."""
        site = self._final_site()
        await self._runtime.shrink(site)
        write_profiles(site, self._ground.material, site.directory / "connections")
        for part in self._ground.site.topology.organizations:
            if part.name not in {other.name for other in self._target.organizations}:
                profile_path(site.directory / "connections", part.name).unlink(missing_ok=True)
        await self._runtime.ready()
        self._instance.change(self._target, None, site.ports)
        material = Material(self._target, site.directory / "organizations")
        self.running = Running(site, material, self.running.packages, self._runtime)
        self._ground = Ground(site, material, self._target, recorded=True)
        self._services = frozenset(self._runtime.services(self._target))

    def _target_site(self) -> Site:
        """The target on the ports of now."""
        return replace(self._ground.site, topology=self._target)

    def _final_site(self) -> Site:
        """The target on the ports that stay: a chaincode's newest version has the port that is called by its name alone."""
        ports = settled_ports(self._ground.site.ports, self._target)
        kept = {service: ports[service] for service in self._runtime.services(self._target)}
        return Site(self._ground.site.directory, self._target, kept, self._runtime.endpoints(self._target, kept))


async def _channels(peer: Peer) -> frozenset[str]:
    """The channels that a peer has joined; none when it cannot be reached."""
    try:
        return await peer.channels()
    except LifecycleError:
        return frozenset()


async def _active(admin: OrderingNodeAdmin, host: str, channel: str) -> None:
    """Wait until an ordering node takes part in a channel. Raises NetworkError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + JOIN_TIMEOUT_S
    while True:
        state = await admin.channel(channel)
        if state is not None and state.status == "active":
            return
        if loop.time() > deadline:
            raise NetworkError(
                f"{host} does not take part in channel {channel}",
                f"within {JOIN_TIMEOUT_S:.0f} s it was {state.status if state else 'absent'}",
                "read its log",
                host=host,
                channel=channel,
            )
        await asyncio.sleep(_POLL_S)
