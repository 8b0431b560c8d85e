"""Bringing a network up in a locked directory, step by step, each of which is whole or not done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from sovchain.network import material_enrolment
from sovchain.network import ports as ports_module
from sovchain.network.bundle import check_complete, stored_blocks
from sovchain.network.genesis import genesis_blocks
from sovchain.network.instance import Instance
from sovchain.network.lifecycle import Administration, Deployed, deploy, install
from sovchain.network.material import Material
from sovchain.network.nodes import NodeAddress, OrderingNodes
from sovchain.network.profiles import write_profiles
from sovchain.network.runtimes import Packages, Runtime, Site, own_part
from sovchain.network.runtimes.access import administered_peer, node_address
from sovchain.network.topology import ChaincodeSpec, Topology
from sovchain.protocol.lifecycle import ChaincodeDefinition, signature_application_policy
from sovchain.protocol.packages import package_id

Progress = Callable[[str, int, int], None]
"""Called as `progress(step, done, total)` when a step of the start has ended; `step` is plain text."""

_log = structlog.get_logger("sovchain.network")


class Steps:
    """Counts the steps of a start for a progress callback and for the log."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def ended(self, step: str) -> None:
        """Count a step that has ended."""
        self._done += 1
        _log.info("started", step=step, done=self._done, total=self._total)
        if self._progress is not None:
            self._progress(step, self._done, self._total)


@dataclass(frozen=True)
class Running:
    """A network whose nodes run: where it is, its keys, the chaincode packages, and what runs it."""

    site: Site
    material: Material
    packages: Packages
    runtime: Runtime

    def package_id(self, organization: str, spec: ChaincodeSpec) -> str:
        """Id of the package with which an organisation runs a chaincode."""
        return package_id(self.packages[organization][spec.name], spec.label)


async def bring_up(instance: Instance, topology: Topology, name: str, runtime: Runtime, steps: Steps) -> Running:
    """Start everything in a directory whose lock is held. After a failure the caller stops the runtime.

    Raises what `Network.up` documents.
    """
    now = datetime.now(UTC)
    site = await _site(instance, topology, name, runtime)
    packages = await runtime.prepare(site)
    steps.ended("chaincode instances launched")
    material = (
        Material(topology, site.directory / "organizations")
        if site.operator
        else Material.create(topology, site.directory / "organizations", now)
    )
    await runtime.start_authorities(site, material)
    for enrolled in await material_enrolment.complete(site, material):
        _log.info("enrolled", name=enrolled)
    for renewed in [*material.renew(now), *await material_enrolment.renew(site, material, now)]:
        _log.info("certificate renewed", name=renewed)
    steps.ended("keys and certificates")
    blocks = (
        stored_blocks(site)
        if site.operator
        else genesis_blocks(topology, material, site.endpoints, site.directory / "channels", now)
    )
    write_profiles(site, material, site.directory / "connections")
    steps.ended("channel configurations")
    await runtime.start(site, material, list(blocks.values()))
    steps.ended("peers and ordering nodes")
    running = Running(site, material, packages, runtime)
    if site.operator:
        # The others may come later, or be down: what takes them goes on meanwhile (`agreement`).
        return running
    await deploy_chaincodes(running, topology.chaincodes, steps)
    await runtime.ready()
    steps.ended("chaincode instances")
    return running


def step_count(topology: Topology, operator: str) -> int:
    """How many steps `bring_up` takes."""
    return 4 if operator else 5 + sum(len(chaincode.channels) for chaincode in topology.chaincodes)


async def _site(instance: Instance, topology: Topology, name: str, runtime: Runtime) -> Site:
    """Find the network's ports, make sure that they are free, and store what the network consists of."""
    stored = instance.description
    kept = stored.ports if stored else {}
    bundle = stored.bundle if stored else None
    operator = bundle.operator if bundle else ""
    services = runtime.services(own_part(topology, operator))
    if not set(services) <= kept.keys():
        # A directory that cannot take the topology in says so before ports are looked for.
        instance.compare(topology, name)
    ports = ports_module.allocate(services, topology.ports.base, kept, topology.ports.fixed)
    endpoints = bundle.endpoints if bundle else runtime.endpoints(topology, ports)
    site = Site(instance.directory, topology, ports, endpoints, operator)
    if bundle:
        check_complete(site)
    await runtime.release(site)
    ports_module.check_free(ports)
    instance.describe(topology, name, ports)
    return site


async def deploy_chaincodes(
    running: Running, chaincodes: Sequence[ChaincodeSpec], steps: Steps | None = None
) -> list[Deployed]:
    """Install, approve and commit chaincodes on their channels where that is not done yet, all channels at once.

    Raises LifecycleError.
    """
    topology = running.site.topology
    async with _administrations(running) as members:
        await asyncio.gather(*(
            install(peer, {
                running.package_id(name, spec): running.packages[name][spec.name]
                for spec in chaincodes
                if any(name in topology.channel(channel).members for channel in spec.channels)
            })
            for name, peers in members.items() for peer in peers
        ))  # fmt: skip

        async def on_channel(spec: ChaincodeSpec, channel: str) -> Deployed:
            policy = signature_application_policy(spec.endorsement_policy)
            definition = ChaincodeDefinition(spec.name, spec.version, 0, policy, topology.collections(spec.name))
            of_channel = {
                members[name][0]: running.package_id(name, spec) for name in topology.channel(channel).members
            }
            of_orderers = _addresses(running, [part.name for part in topology.orderers(channel)])
            orderers = OrderingNodes(of_orderers, bft=topology.consensus == "bft")
            try:
                deployed = await deploy(channel, definition, of_channel, orderers)
            finally:
                await orderers.close()
            _log.info("chaincode deployed", channel=channel, chaincode=spec.name, sequence=deployed.sequence)
            if steps is not None:
                steps.ended(f"chaincode {spec.name} on channel {channel}")
            return deployed

        return list(
            await asyncio.gather(*(on_channel(spec, channel) for spec in chaincodes for channel in spec.channels))
        )


def _addresses(running: Running, names: Sequence[str]) -> list[NodeAddress]:
    """Addresses of the nodes of these organisations or ordering organisations."""
    return [
        node_address(running.site, running.material.organization(name), node.host)
        for name in names
        for node in running.material.organization(name).organization.all_nodes
    ]


@asynccontextmanager
async def _administrations(running: Running) -> AsyncIterator[dict[str, list[Administration]]]:
    """A conversation of each organisation's administrator with each of its peers, by the organisation's name."""
    peers = {
        organization.name: [
            administered_peer(running.site, running.material, organization, node.host)
            for node in organization.all_nodes
        ]
        for organization in running.site.topology.organizations
    }
    try:
        yield {name: [Administration(peer) for peer in several] for name, several in peers.items()}
    finally:
        await asyncio.gather(*(peer.close() for several in peers.values() for peer in several))
