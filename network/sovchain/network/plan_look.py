"""Asking a network what it is: which nodes answer, what they have joined, what is configured and agreed on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
from fabric_protos.peer.lifecycle import lifecycle_pb2

from sovchain.network.configuration import config_block
from sovchain.network.errors import LifecycleError, NetworkError
from sovchain.network.lifecycle import Administration
from sovchain.network.material import Material
from sovchain.network.nodes import Peer
from sovchain.network.ports import node_ports, taking_connections
from sovchain.network.runtimes import Runtime, Site
from sovchain.network.runtimes.access import administered_peer, orderer_admin
from sovchain.network.topology import Node, Topology
from sovchain.protocol.channelconfig import ChannelBundle

Definition = lifecycle_pb2.QueryChaincodeDefinitionResult


@dataclass(frozen=True)
class Present:
    """A network as it says it is.

    Attributes:
        answers: hosts of the nodes that answer.
        joined: the channels of each of these, by host.
        administered: hosts of the ordering nodes that can be asked for their channels; on the embedded ledger none can.
        configurations: what is in force on each channel, as the peer says that is furthest.
        definitions: the chaincode definition that is committed, by channel and chaincode; None where there is none.
        serving: services of chaincodes that take connections.
        wanted_services: services of chaincodes that there should be.
    """

    answers: frozenset[str]
    joined: Mapping[str, frozenset[str]]
    administered: frozenset[str]
    configurations: Mapping[str, ChannelBundle]
    definitions: Mapping[tuple[str, str], Definition | None]
    serving: frozenset[str] = frozenset()
    wanted_services: frozenset[str] = frozenset()

    def has_joined(self, node: Node, channel: str) -> bool:
        """Whether a node is on a channel; where an ordering node cannot be asked, it is."""
        if node.kind == "orderer" and node.host in self.answers and node.host not in self.administered:
            return True
        return channel in self.joined.get(node.host, frozenset())


async def look(site: Site, material: Material, target: Topology, runtime: Runtime, services: Iterable[str]) -> Present:
    """Ask all nodes of a site at once. A node that does not answer, or has no keys yet, is one that is not there.

    `services` of chaincodes are those that there should be. Raises LifecycleError when a node that answers refuses to tell, ConfigError.
    """
    async with AsyncExitStack() as stack:
        return await _Look(site, material, target, stack).ask(runtime, frozenset(services))


class _Look:
    def __init__(self, site: Site, material: Material, target: Topology, stack: AsyncExitStack) -> None:
        self._site = site
        self._material = material
        self._target = target
        self._stack = stack
        self._peers: dict[str, Peer] = {}

    async def ask(self, runtime: Runtime, services: frozenset[str]) -> Present:
        nodes = self._site.topology.nodes
        open_ones = await taking_connections(self._site.ports, [node.host for node in nodes])
        listening = [node for node in nodes if node.host in open_ones and self._has_keys(node)]
        told = await asyncio.gather(*(self._channels(node) for node in listening))
        joined = {node.host: channels for node, channels in zip(listening, told, strict=True) if channels is not None}
        names = [channel.name for channel in self._target.channels]
        bundles = await asyncio.gather(*(self._configuration(name, joined) for name in names))
        pairs = [(channel, spec.name) for spec in self._target.chaincodes for channel in spec.channels]
        definitions = await asyncio.gather(*(self._definition(*pair, joined) for pair in pairs))
        known = [service for service in services if service.startswith("chaincode ")]
        serving = await runtime.serving(self._site, known)
        return Present(
            answers=frozenset(joined),
            joined=joined,
            administered=frozenset(node.host for node in nodes if self._is_administered(node)),
            configurations={name: bundle for name, bundle in zip(names, bundles, strict=True) if bundle is not None},
            definitions=dict(zip(pairs, definitions, strict=True)),
            serving=serving,
            wanted_services=frozenset(known),
        )

    def _has_keys(self, node: Node) -> bool:
        part = self._material.organization(node.organization)
        return part.folder.exists() and (part.folder / part.holder(node.host).key_file).exists()

    def _is_administered(self, node: Node) -> bool:
        return node.kind == "orderer" and node_ports(node)["admin"] in self._site.ports

    async def _channels(self, node: Node) -> frozenset[str] | None:
        try:
            if node.kind == "orderer":
                return await self._of_orderer(node) if self._is_administered(node) else frozenset()
            organization = self._site.topology.organization(node.organization)
            peer = administered_peer(self._site, self._material, organization, node.host)
            self._stack.push_async_callback(peer.close)
            self._peers[node.host] = peer
            return await peer.channels()
        except (NetworkError, httpx.TransportError) as error:
            if isinstance(error, LifecycleError) and error.status >= 400:
                raise  # it answers, and refuses
            return None

    async def _of_orderer(self, node: Node) -> frozenset[str]:
        admin = orderer_admin(self._site, self._material.organization(node.organization), node.host)
        try:
            return await admin.channels()
        finally:
            await admin.close()

    async def _configuration(self, channel: str, joined: Mapping[str, frozenset[str]]) -> ChannelBundle | None:
        peers = [peer for host, peer in self._peers.items() if channel in joined.get(host, frozenset())]
        blocks = await asyncio.gather(*(config_block(peer, channel) for peer in peers), return_exceptions=True)
        failures = [block for block in blocks if isinstance(block, BaseException)]
        found = [ChannelBundle.from_block(block) for block in blocks if not isinstance(block, BaseException)]
        if failures and not found:
            raise failures[0]  # one who was removed may not ask any more, but some member may
        return max(found, key=lambda bundle: bundle.sequence, default=None)

    async def _definition(
        self, channel: str, chaincode: str, joined: Mapping[str, frozenset[str]]
    ) -> Definition | None:
        if channel not in {known.name for known in self._site.topology.channels}:
            return None
        members = {node.host for part in self._target.members(channel) for node in part.all_nodes}
        refused: LifecycleError | None = None
        for host, peer in self._peers.items():
            if host in members and channel in joined.get(host, frozenset()):
                try:
                    return await Administration(peer).committed(channel, chaincode)
                except LifecycleError as error:
                    refused = error  # a member that is yet to come may not ask
        if refused is not None:
            raise refused
        return None
