"""Reaching the nodes of a network with the keys of its organisations."""

from __future__ import annotations

from sovchain.network.genesis import HOST
from sovchain.network.material import Material, OrganizationMaterial
from sovchain.network.nodes import Administrator, NodeAddress, Peer
from sovchain.network.participation import OrderingNodeAdmin
from sovchain.network.ports import node_ports
from sovchain.network.runtimes import Site
from sovchain.network.topology import Organization


def node_address(site: Site, material: OrganizationMaterial, host: str | None = None) -> NodeAddress:
    """Where an organisation's peer or ordering node listens and how it proves itself; without a host its first one."""
    host = material.node(host).host
    return NodeAddress(material.msp_id, f"{HOST}:{site.ports[host]}", material.tls_root_pem, host)


def administered_peer(site: Site, material: Material, organization: Organization, host: str | None = None) -> Peer:
    """The organisation's peer with this host name, or its first, spoken to by the organisation's administrator. Close it after use."""
    own = material.organization(organization.name)
    credential = own.user(organization.administrator.name)
    administrator = Administrator.from_pem(organization.msp_id, credential.certificate_pem, credential.private_key_pem)
    return Peer(node_address(site, own, host), administrator)


def orderer_admin(site: Site, material: OrganizationMaterial, host: str | None = None) -> OrderingNodeAdmin:
    """The administration of an organisation's ordering node with this host name, or its first, with its administrator's TLS certificate."""
    name = f"Admin@{material.organization.domain}"
    tls = material.folder / "users" / name / "tls"
    node = next(node for node in material.organization.all_nodes if host in (None, node.host))
    address = f"{HOST}:{site.ports[node_ports(node)['admin']]}"
    return OrderingNodeAdmin(material.msp_id, address, tls / "ca.crt", tls / "client.crt", tls / "client.key")
