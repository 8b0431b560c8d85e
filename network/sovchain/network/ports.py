"""Ports on the loopback address: finding free ones and testing that they are free."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sovchain.network.errors import NoFreePorts, PortInUse

ADDRESS: Final = "127.0.0.1"
# Below the range from which systems take the local ports of outgoing connections (32768 on Linux).
_LOWEST: Final = 20_000
_HIGHEST: Final = 32_000
_ATTEMPTS: Final = 50


def allocate(services: Sequence[str], base: int | None, kept: Mapping[str, int]) -> dict[str, int]:
    """Give each service a port: the one it has in `kept`, or else neighbours from `base`, or a free block.

    Raises PortInUse when the block from `base` goes beyond the last port number, NoFreePorts when no free block was
    found.
    """
    ports = {service: kept[service] for service in services if service in kept}
    missing = [service for service in services if service not in kept]
    if not missing:
        return ports
    if base is not None:
        first = max([base - 1, *kept.values()]) + 1
        if first + len(missing) > 65536:
            raise PortInUse(65536, missing[-1], "there are no port numbers beyond 65535")
    else:
        first = _free_block(len(missing), set(kept.values()))
    return ports | {service: first + offset for offset, service in enumerate(missing)}


def _free_block(count: int, taken: set[int]) -> int:
    for _ in range(_ATTEMPTS):
        first = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST - count)
        block = range(first, first + count)
        if taken.isdisjoint(block) and all(is_free(port) for port in block):
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


def check_free(ports: Mapping[str, int], services: Iterable[str] | None = None) -> None:
    """Raise PortInUse for the first of the services (default: all) whose port another program listens on."""
    for service in ports if services is None else services:
        if not is_free(ports[service]):
            raise PortInUse(ports[service], service)
