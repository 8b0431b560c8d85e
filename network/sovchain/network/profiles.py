"""Fabric's common connection profiles: how a client of an organisation finds its peers and trusts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sovchain.network.files import make_folder, write_file
from sovchain.network.genesis import HOST
from sovchain.network.material import Material
from sovchain.network.runtimes import Site
from sovchain.network.topology import Organization


def profile_path(folder: Path, organization: str) -> Path:
    """Return where the profile of an organisation is."""
    return folder / f"{organization}.json"


def write_profiles(site: Site, material: Material, folder: Path) -> None:
    """Write `<organisation>.json` for every organisation with a peer here; leave those alone that are the same already."""
    make_folder(folder)
    for organization in site.organizations:
        content = connection_document(site, material, organization)
        path = profile_path(folder, organization.name)
        if not path.exists() or path.read_bytes() != content:
            write_file(path, content, durable=False)


def connection_document(site: Site, material: Material, organization: Organization) -> bytes:
    """Return the profile of an organisation as a file has it."""
    return json.dumps(connection_profile(site, material, organization), indent=2, ensure_ascii=False).encode() + b"\n"


def connection_profile(site: Site, material: Material, organization: Organization) -> dict[str, Any]:
    """Return the profile of an organisation: its own peers, its channels, and their ordering nodes.

    The layout is that of `fabric-samples` (test-network/organizations/ccp-template.json) with `channels` and `orderers`
    as the classic SDKs read them; besides, where health and metrics of a node are found, and an ordering node's
    administration (on the loopback address).
    """
    topology = site.topology
    channels = [channel for channel in topology.channels if organization.name in channel.members]
    orderers = {
        node.host: material.organization(orderer.name).tls_root_pem
        for channel in channels
        for orderer in topology.orderers(channel.name)
        for node in orderer.all_nodes
    }
    hosts = [node.host for node in organization.all_nodes]
    tls_root_pem = material.organization(organization.name).tls_root_pem
    roles = {"endorsingPeer": True, "chaincodeQuery": True, "ledgerQuery": True, "eventSource": True}
    return {
        "name": f"{topology.name}-{organization.name}",
        "version": "1.0.0",
        "client": {
            "organization": organization.name,
            "connection": {"timeout": {"peer": {"endorser": "300"}, "orderer": "300"}},
        },
        "organizations": {organization.name: {"mspid": organization.msp_id, "peers": hosts}},
        "peers": {host: _node(host, site, tls_root_pem) for host in hosts},
        "orderers": {host: _node(host, site, root) for host, root in orderers.items()},
        "channels": {
            channel.name: {
                "orderers": [node.host for orderer in topology.orderers(channel.name) for node in orderer.all_nodes],
                "peers": dict.fromkeys(hosts, roles),
            }
            for channel in channels
        },
    }


def _node(host: str, site: Site, tls_root_pem: bytes) -> dict[str, Any]:
    address, port = site.reached_at(host)
    further = {
        key: f"https://{HOST}:{site.ports[name]}"
        for key, name in (("operationsUrl", f"{host}/operations"), ("adminUrl", f"{host}/admin"))
        if name in site.ports
    }
    return {
        "url": f"grpcs://{address}:{port}",
        **further,
        "tlsCACerts": {"pem": tls_root_pem.decode()},
        "grpcOptions": {"ssl-target-name-override": host, "hostnameOverride": host},
    }
