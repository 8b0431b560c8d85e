"""Reaching the nodes of a network with the keys of its organisations."""

from __future__ import annotations

from sovchain.network.errors import KeysElsewhere
from sovchain.network.genesis import HOST
from sovchain.network.instance import Status
from sovchain.network.material import Material, OrganizationMaterial
from sovchain.network.nodes import Administrator, NodeAddress, Peer
from sovchain.network.participation import OrderingNodeAdmin
from sovchain.network.ports import node_ports
from sovchain.network.runtimes import Site, create_runtime
from sovchain.network.topology import Organization


def site_of(status: Status) -> Site:
    """The site of a network that stands in a directory. Raises ValueError for a directory without one."""
    if status.topology is None:
        raise ValueError(f"{status.directory} holds no network")
    bundle = status.bundle
    if bundle is not None:
        return Site(status.directory, status.topology, status.ports, bundle.endpoints, bundle.operator)
    endpoints = create_runtime(status.runtime).endpoints(status.topology, status.ports)
    return Site(status.directory, status.topology, status.ports, endpoints)


def node_address(site: Site, material: OrganizationMaterial, host: str | None = None) -> NodeAddress:
    """Where an organisation's peer or ordering node listens and how it proves itself; without a host its first one."""
    name = host or material.organization.all_nodes[0].host
    address, port = site.reached_at(name)
    return NodeAddress(material.msp_id, f"{address}:{port}", material.tls_root_pem, name)


def administered_peer(site: Site, material: Material, organization: Organization, host: str | None = None) -> Peer:
    """The organisation's peer with this host name, or its first, spoken to by the organisation's administrator. Close it after use."""
    own = material.organization(organization.name)
    return Peer(node_address(site, own, host), administrator_of(material, organization))


def administrator_of(material: Material, organization: Organization) -> Administrator:
    """The organisation's administrator. Raises KeysElsewhere where its keys are not in this directory."""
    own = material.organization(organization.name)
    if not own.has_keys:
        here = [part.organization.name for part in material.organizations.values() if part.has_keys]
        raise KeysElsewhere(organization.name, here)
    credential = own.user(organization.administrator.name)
    return Administrator.from_pem(organization.msp_id, credential.certificate_pem, credential.private_key_pem)


def orderer_admin(site: Site, material: OrganizationMaterial, host: str | None = None) -> OrderingNodeAdmin:
    """The administration of an organisation's ordering node with this host name, or its first, with its administrator's TLS certificate."""
    name = f"Admin@{material.organization.domain}"
    tls = material.folder / "users" / name / "tls"
    node = next(node for node in material.organization.all_nodes if host in (None, node.host))
    address = f"{HOST}:{site.ports[node_ports(node)['admin']]}"
    return OrderingNodeAdmin(material.msp_id, address, tls / "ca.crt", tls / "client.crt", tls / "client.key")
