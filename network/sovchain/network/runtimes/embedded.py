"""The embedded runtime: every peer and ordering node in this process, chaincode in two child processes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from sovchain.ledger.node import AddressInUseError, EmbeddedLedger
from sovchain.ledger.nodespec import NodeSpec
from sovchain.network.errors import PortInUse, RuntimeUnavailable
from sovchain.network.genesis import loopback_endpoints
from sovchain.network.material import Material, OrganizationMaterial
from sovchain.network.ports import ADDRESS, node_ports, taking_connections
from sovchain.network.runtimes import Endpoint, Packages, Site
from sovchain.network.runtimes.chaincodes import ChaincodeInstances, shared_services
from sovchain.network.runtimes.processes import end_orphans
from sovchain.network.seed import seed_of
from sovchain.network.topology import Node, Topology


class EmbeddedRuntime:
    """A `sovchain.network.runtimes.Runtime` over `sovchain.ledger`."""

    def __init__(self) -> None:
        self._site: Site | None = None
        self._chaincodes: ChaincodeInstances | None = None
        self._ledger: EmbeddedLedger | None = None

    @property
    def ledger(self) -> EmbeddedLedger | None:
        """The ledger in this process; None before `start` and after `stop`."""
        return self._ledger

    @property
    def faults(self) -> EmbeddedFaults:
        """Ends and starts the servers of single nodes, and the processes that serve chaincodes."""
        return EmbeddedFaults(self)

    @property
    def chaincodes(self) -> ChaincodeInstances | None:
        """The processes that serve chaincodes; None before `prepare` and after `stop`."""
        return self._chaincodes

    def services(self, topology: Topology) -> Sequence[str]:
        """The nodes, what their administrators call, then both instances of each chaincode: new chaincodes come last."""
        _supported(topology)
        return [
            *(node.host for node in topology.nodes),
            *(_further_ports(node)[purpose] for node in topology.nodes for purpose in _further_ports(node)),
            *(service for _, names in shared_services(topology) for service in names.values()),
        ]

    def endpoints(self, topology: Topology, ports: Mapping[str, int]) -> Mapping[str, Endpoint]:
        """See `Runtime.endpoints`."""
        return loopback_endpoints(topology, ports)

    async def release(self, site: Site) -> None:
        """See `Runtime.release`."""
        await end_orphans(site.directory)

    async def prepare(self, site: Site) -> Packages:
        """See `Runtime.prepare`. All organisations share the two instances."""
        self._chaincodes = ChaincodeInstances(site.directory)
        return await self._serve(site)

    async def _serve(self, site: Site) -> Packages:
        assert self._chaincodes is not None
        packages = await self._chaincodes.serve(site.topology, site.ports, datetime.now(UTC))
        return {organization.name: packages for organization in site.topology.organizations}

    async def start_authorities(self, site: Site, material: Material) -> None:
        """See `Runtime.start_authorities`. Topologies that ask for one are refused."""

    async def start(self, site: Site, material: Material, genesis_blocks: Sequence[bytes]) -> None:
        """See `Runtime.start`."""
        self._site = site
        peers, orderers = _nodes(site, material, "peer"), _nodes(site, material, "orderer")
        with _ports_named(site):
            self._ledger = await EmbeddedLedger.start(
                site.directory, peers=peers, orderers=orderers, state_database=site.topology.state_database
            )
        # Together: what each one waits for is the disk.
        await asyncio.gather(*(self._ledger.join(block) for block in genesis_blocks))
        if self._chaincodes is not None:
            await self._chaincodes.begin()

    async def ready(self) -> None:
        """See `Runtime.ready`."""
        if self._chaincodes is not None:
            await self._chaincodes.ready()

    async def extend(self, site: Site, material: Material, genesis_blocks: Mapping[str, bytes]) -> Packages:
        """See `Runtime.extend`. Further chaincodes get two instances of their own."""
        assert self._ledger is not None
        packages = await self._serve(site)
        with _ports_named(site):
            await self._ledger.add(peers=_nodes(site, material, "peer"), orderers=_nodes(site, material, "orderer"))
        await self.ready()
        self._site = site
        return packages

    async def shrink(self, site: Site) -> None:
        """See `Runtime.shrink`."""
        assert self._ledger is not None
        assert self._chaincodes is not None
        assert self._site is not None
        before = self._site.topology
        hosts = {node.host for node in site.topology.nodes}
        msp_ids = {part.name: part.msp_id for part in before.everyone}
        for node in before.nodes:
            if node.host not in hosts:
                await self._ledger.remove(msp_ids[node.organization], node.host)
        await self._chaincodes.keep(site.topology)
        self._site = site

    async def serving(self, site: Site, services: Collection[str]) -> frozenset[str]:
        """See `Runtime.serving`."""
        return await taking_connections(site.ports, services)

    async def stop(self) -> None:
        """See `Runtime.stop`."""
        ledger, self._ledger = self._ledger, None
        chaincodes, self._chaincodes = self._chaincodes, None
        try:
            if ledger is not None:
                await ledger.stop()
        finally:
            if chaincodes is not None:
                await chaincodes.stop()


class EmbeddedFaults:
    """A `sovchain.network.runtimes.Faults` over the servers of this process and its chaincode processes."""

    def __init__(self, runtime: EmbeddedRuntime) -> None:
        self._runtime = runtime

    def targets(self) -> Sequence[str]:
        """See `Faults.targets`."""
        ledger, chaincodes = self._runtime.ledger, self._runtime.chaincodes
        return [*(ledger.nodes if ledger else ()), *(chaincodes.processes if chaincodes else ())]

    async def kill(self, target: str) -> None:
        """See `Faults.kill`."""
        ledger, chaincodes = self._runtime.ledger, self._runtime.chaincodes
        assert ledger is not None
        if chaincodes is not None and target in chaincodes.processes:
            await chaincodes.processes[target].kill()
        else:
            await ledger.end(target)

    async def start(self, target: str) -> None:
        """See `Faults.start`."""
        ledger, chaincodes = self._runtime.ledger, self._runtime.chaincodes
        assert ledger is not None
        if chaincodes is not None and target in chaincodes.processes:
            await chaincodes.processes[target].start()
            await chaincodes.processes[target].ready()
        else:
            await ledger.begin(target)


@contextmanager
def _ports_named(site: Site) -> Iterator[None]:
    """Say whose port it is that another program has."""
    try:
        yield
    except AddressInUseError as error:
        port = int(error.address.rpartition(":")[2])
        service = next((name for name, number in site.ports.items() if number == port), error.address)
        raise PortInUse(port, service) from error


def _supported(topology: Topology) -> None:
    """Refuse what this runtime would have to leave out. Raises RuntimeUnavailable."""
    authorities = [part.name for part in topology.everyone if part.certificate_authority != "generated"]
    reasons = [
        f"it starts no Fabric CA, which {authorities[0]} asks for" if authorities else "",
        "one node orders, and blocks of a BFT channel need a quorum" if topology.consensus == "bft" else "",
    ]
    reason = next(filter(None, reasons), None)
    if reason is not None:
        raise RuntimeUnavailable("embedded", f"{reason}; native and docker run such a network", ("native", "docker"))


def _further_ports(node: Node) -> dict[str, str]:
    """What a node listens on for its administrators, and the names of the ports."""
    return {purpose: name for purpose, name in node_ports(node).items() if purpose in ("operations", "admin")}


def _nodes(site: Site, material: Material, kind: str) -> list[NodeSpec]:
    return [
        _node(material.organization(node.organization), node, site) for node in site.topology.nodes if node.kind == kind
    ]


def _node(organization: OrganizationMaterial, part: Node, site: Site) -> NodeSpec:
    node = organization.node(part.host)
    seed = seed_of(site.directory)
    further = {purpose: f"{ADDRESS}:{site.ports[name]}" for purpose, name in _further_ports(part).items()}
    return NodeSpec(
        msp_id=node.msp_id,
        host=node.host,
        listen=f"{ADDRESS}:{site.ports[node.host]}",
        certificate_pem=node.certificate_pem,
        private_key_pem=node.private_key_pem,
        tls_certificate_pem=node.tls_certificate_pem,
        tls_private_key_pem=node.tls_private_key_pem,
        tls_root_pems=node.tls_root_pem,
        msp_config=organization.msp_config.SerializeToString(deterministic=True),
        operations_listen=further["operations"],
        admin_listen=further.get("admin", ""),
        seed=seed.bytes("node", part.host) if seed is not None else b"",
    )
