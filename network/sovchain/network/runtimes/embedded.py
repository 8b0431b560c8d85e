"""The embedded runtime: every peer and ordering node in this process, chaincode in two child processes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sovchain.ledger.node import AddressInUseError, EmbeddedLedger, NodeSpec
from sovchain.network.errors import PortInUse
from sovchain.network.material import Material, OrganizationMaterial
from sovchain.network.ports import ADDRESS
from sovchain.network.runtimes import Packages, Site
from sovchain.network.runtimes.chaincodes import INSTANCES, ChaincodeInstances, service_name
from sovchain.network.runtimes.processes import end_orphans
from sovchain.network.topology import Topology


class EmbeddedRuntime:
    """A `sovchain.network.runtimes.Runtime` over `sovchain.ledger`."""

    def __init__(self) -> None:
        self._chaincodes: ChaincodeInstances | None = None
        self._ledger: EmbeddedLedger | None = None

    @property
    def ledger(self) -> EmbeddedLedger | None:
        """The ledger in this process; None before `start` and after `stop`."""
        return self._ledger

    @property
    def faults(self) -> None:
        """Peers and ordering nodes live in this process."""
        return None

    def services(self, topology: Topology) -> Sequence[str]:
        """The peers, the ordering nodes, then both instances of each chaincode, so that new chaincodes come last."""
        return [
            *(organization.peer_host for organization in topology.organizations),
            *(orderer.orderer_host for orderer in topology.ordering_organizations),
            *(service_name(spec.name, instance) for spec in topology.chaincodes for instance in INSTANCES),
        ]

    async def release(self, site: Site) -> None:
        """See `Runtime.release`."""
        await end_orphans(site.directory)

    async def prepare(self, site: Site) -> Packages:
        """See `Runtime.prepare`. All organisations share the two instances."""
        self._chaincodes = ChaincodeInstances(site.directory, site.topology, site.ports)
        packages = await self._chaincodes.start(datetime.now(UTC))
        return {organization.name: packages for organization in site.topology.organizations}

    async def start(self, site: Site, material: Material, genesis_blocks: Sequence[bytes]) -> None:
        """See `Runtime.start`."""
        topology = site.topology
        try:
            self._ledger = await EmbeddedLedger.start(
                site.directory,
                peers=[_node(material.organization(part.name), site) for part in topology.organizations],
                orderers=[_node(material.organization(part.name), site) for part in topology.ordering_organizations],
            )
        except AddressInUseError as error:
            port = int(error.address.rpartition(":")[2])
            service = next((name for name, number in site.ports.items() if number == port), error.address)
            raise PortInUse(port, service) from error
        for block in genesis_blocks:
            await self._ledger.join(block)

    async def ready(self) -> None:
        """See `Runtime.ready`."""
        if self._chaincodes is not None:
            await self._chaincodes.ready()

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


def _node(organization: OrganizationMaterial, site: Site) -> NodeSpec:
    node = organization.node()
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
    )
