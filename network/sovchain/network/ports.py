"""Ports on the loopback address: finding free ones and testing that they are free."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from sovchain.network.errors import NoFreePorts, PortInUse
from sovchain.network.portclaims import claim
from sovchain.network.topology import AnyOrganization, Node, Topology

ADDRESS: Final = "127.0.0.1"
EVERY_ADDRESS: Final = "0.0.0.0"  # noqa: S104  where other hosts are to reach a node
"""What a node binds that nodes on other hosts call."""
# Below the range from which systems take the local ports of outgoing connections (32768 on Linux).
_LOWEST: Final = 20_000
_HIGHEST: Final = 32_000
_ATTEMPTS: Final = 50
_CONNECT_TIMEOUT_S: Final = 2.0


def node_ports(node: Node, state_database: str = "leveldb") -> dict[str, str]:
    """Return what a node needs ports for, and under which name each port is kept.

    The main port has the node's host name. A peer also has `chaincode`, where chaincode would register that the peer
    starts itself, `operations` (health and metrics), and `couchdb` with that state database; an ordering node has
    `admin` (channel participation) and `operations`. Nodes of a cluster speak to each other on the main port. A
    chaincode that runs as a service has a port of its own, which its runtime names.
    """
    further = ["chaincode", "operations"] if node.kind == "peer" else ["admin", "operations"]
    if node.kind == "peer" and state_database == "couchdb":
        further.append("couchdb")
    return {"main": node.host, **{purpose: f"{node.host}/{purpose}" for purpose in further}}


def authority_ports(organization: AnyOrganization) -> dict[str, str]:
    """Return what an organisation's Fabric CA needs ports for, and their names; nothing where it has none."""
    if organization.certificate_authority != "fabric-ca":
        return {}
    host = f"ca.{organization.domain}"
    return {"main": host, "operations": f"{host}/operations"}


def service_names(topology: Topology) -> list[str]:
    """Return the names of all ports of a network's nodes and authorities, main ports of the nodes first."""
    ports = [node_ports(node, topology.state_database) for node in topology.nodes]
    main = [names["main"] for names in ports]
    further = [name for names in ports for purpose, name in names.items() if purpose != "main"]
    return [*main, *further, *(name for part in topology.everyone for name in authority_ports(part).values())]


def allocate(
    services: Sequence[str], base: int | None, kept: Mapping[str, int], fixed: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Give each service a port: the one it has in `kept` or `fixed`, or else neighbours from `base`, or a free block.

    Raises PortInUse when the ports from `base` go beyond the last port number, NoFreePorts when no free block was
    found.
    """
    known = {**(fixed or {}), **kept}
    ports = {service: known[service] for service in services if service in known}
    missing = [service for service in services if service not in known]
    if not missing:
        return ports
    if base is not None:
        block = _after(base, kept, set(known.values()), missing)
    else:
        first = _free_block(len(missing), set(known.values()))
        block = list(range(first, first + len(missing)))
    return ports | dict(zip(missing, block, strict=True))


def _after(base: int, kept: Mapping[str, int], taken: set[int], missing: Sequence[str]) -> list[int]:
    """Return the first ports from `base` on that are beyond all kept ones and not fixed for another service."""
    block: list[int] = []
    number = max([base - 1, *kept.values()])
    for service in missing:
        number += 1
        while number in taken:
            number += 1
        if number > 65535:
            raise PortInUse(65536, service, "there are no port numbers beyond 65535")
        block.append(number)
    return block


def _free_block(count: int, taken: set[int]) -> int:
    for _ in range(_ATTEMPTS):
        first = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST - count)
        block = range(first, first + count)
        if taken.isdisjoint(block) and claim(first, count) and all(is_free(port) for port in block):
            return first
    raise NoFreePorts(count)


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of an earlier run that are still closing do not count; a listening program does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


async def takes_connections(port: int | None) -> bool:
    """Whether somebody takes connections at a port of the loopback address; there is nobody where there is no port."""
    if port is None:
        return False
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(ADDRESS, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def taking_connections(ports: Mapping[str, int], services: Collection[str]) -> frozenset[str]:
    """The services at whose ports somebody takes connections."""
    names = list(services)
    found = await asyncio.gather(*(takes_connections(ports.get(name)) for name in names))
    return frozenset(name for name, is_open in zip(names, found, strict=True) if is_open)


def check_free(ports: Mapping[str, int], services: Iterable[str] | None = None) -> None:
    """Raise PortInUse for the first of the services (default: all) whose port another program listens on."""
    for service in ports if services is None else services:
        if not is_free(ports[service]):
            raise PortInUse(ports[service], service)
