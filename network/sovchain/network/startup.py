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
from sovchain.network.material_growth import grow
from sovchain.network.nodes import OrderingNodes
from sovchain.network.profiles import write_profiles
from sovchain.network.runtimes import Packages, Runtime, Site, own_part
from sovchain.network.runtimes.access import administered_peer, node_address
from sovchain.network.seed import MARK, seeded, take_seed
from sovchain.network.topology import ChaincodeSpec, Topology
from sovchain.network.transition import resting
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


async def bring_up(
    instance: Instance, topology: Topology, name: str, runtime: Runtime, steps: Steps, seed: str | None = None
) -> Running:
    """Start everything in a directory whose lock is held. After a failure the caller stops the runtime.

    Where a change was interrupted (`Network.apply`), the nodes of before and after are started on the channels as they
    were, and everything else is left to the next `apply`. Raises what `Network.up` documents.
    """
    taken = take_seed(instance.directory, seed, name, is_new=instance.description is None)
    if taken is not None:
        _log.warning("every key of this network comes from a seed: for tests only", mark=MARK)
    with seeded(taken):
        return await _bring_up(instance, topology, name, runtime, steps)


async def _bring_up(instance: Instance, topology: Topology, name: str, runtime: Runtime, steps: Steps) -> Running:
    now = datetime.now(UTC)
    previous = instance.description.previous if instance.description else None
    runs = topology if previous is None else resting(previous, topology)
    site = await _site(instance, topology, runs, name, runtime)
    packages = await runtime.prepare(site)
    steps.ended("chaincode instances launched")
    material = await provide_material(site, runtime, now)
    steps.ended("keys and certificates")
    blocks = (
        stored_blocks(site)
        if site.operator
        else genesis_blocks(runs, material, site.endpoints, site.directory / "channels", now)
    )
    write_profiles(site, material, site.directory / "connections")
    steps.ended("channel configurations")
    await runtime.start(site, material, list(blocks.values()))
    steps.ended("peers and ordering nodes")
    running = Running(site, material, packages, runtime)
    if site.operator:
        # The others may come later, or be down: what takes them goes on meanwhile (`agreement`).
        return running
    if previous is not None:
        _log.warning("a change of the network is not completed: sovchain apply goes on with it")
        return running
    await deploy_chaincodes(running, topology.chaincodes, steps)
    await runtime.ready()
    steps.ended("chaincode instances")
    return running


async def provide_material(site: Site, runtime: Runtime, now: datetime) -> Material:
    """Make the keys and certificates that are lacking, renew those that end soon, and return all.

    An operator's part of a network holds its own and makes none for others. Raises NetworkError,
    sovchain.client.ca.CaError, OSError.
    """
    root = site.directory / "organizations"
    if site.operator:
        material = Material(site.topology, root)
    else:
        material = Material.create(site.topology, root, now)
        for made in grow(site.topology, root, now):
            _log.info("keys made", name=made)
    await runtime.start_authorities(site, material)
    for enrolled in await material_enrolment.complete(site, material):
        _log.info("enrolled", name=enrolled)
    for renewed in [*material.renew(now), *await material_enrolment.renew(site, material, now)]:
        _log.info("certificate renewed", name=renewed)
    return material


def step_count(topology: Topology, operator: str) -> int:
    """How many steps `bring_up` takes."""
    return 4 if operator else 5 + sum(len(chaincode.channels) for chaincode in topology.chaincodes)


async def _site(instance: Instance, topology: Topology, runs: Topology, name: str, runtime: Runtime) -> Site:
    """Find the network's ports, make sure that they are free, and store what the network consists of."""
    stored = instance.description
    kept = stored.ports if stored else {}
    bundle = stored.bundle if stored else None
    operator = bundle.operator if bundle else ""
    services = runtime.services(own_part(runs, operator))
    if not set(services) <= kept.keys():
        # A directory that cannot take the topology in says so before ports are looked for.
        instance.compare(topology, name)
    ports = ports_module.allocate(services, topology.ports.base, kept, topology.ports.fixed)
    endpoints = bundle.endpoints if bundle else runtime.endpoints(runs, ports)
    site = Site(instance.directory, runs, ports, endpoints, operator)
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
    async with _administrations(running, chaincodes) as members:
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
            orderers = ordering_nodes(running.site, running.material, channel)
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


def ordering_nodes(site: Site, material: Material, channel: str) -> OrderingNodes:
    """The ordering nodes of a channel. Close them after use."""
    addresses = [
        node_address(site, material.organization(part.name), node.host)
        for part in site.topology.orderers(channel)
        for node in part.all_nodes
    ]
    return OrderingNodes(addresses, bft=site.topology.consensus == "bft")


@asynccontextmanager
async def _administrations(
    running: Running, chaincodes: Sequence[ChaincodeSpec]
) -> AsyncIterator[dict[str, list[Administration]]]:
    """A conversation with each peer of the organisations that these chaincodes concern, by the organisation's name."""
    topology = running.site.topology
    names = {name for spec in chaincodes for channel in spec.channels for name in topology.channel(channel).members}
    peers = {
        organization.name: [
            administered_peer(running.site, running.material, organization, node.host)
            for node in organization.all_nodes
        ]
        for organization in topology.organizations
        if organization.name in names
    }
    try:
        yield {name: [Administration(peer) for peer in several] for name, several in peers.items()}
    finally:
        await asyncio.gather(*(peer.close() for several in peers.values() for peer in several))
