"""What a network runs on.

General layout:
    embedded.py    the embedded ledger in this process, chaincode in child processes
    chaincodes.py  the child processes: two instances of every chaincode
    replica.py     start of the second instance, under a shifted clock (a program, not for import)

A runtime starts and stops nodes and chaincode. Everything else (keys, channels, profiles, lifecycle) is the same for
all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from sovchain.network.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from sovchain.network.material import Material
    from sovchain.network.topology import Topology

RUNTIMES: Final = ("embedded",)
"""Names of the runtimes that are available."""

_KNOWN_ELSEWHERE: Final = {
    "native": "this version of sovchain does not start peer and orderer programs",
    "docker": "this version of sovchain does not start containers",
}


@dataclass(frozen=True)
class Site:
    """Where and what a runtime is to start: the network's directory, its topology, and the port of each service."""

    directory: Path
    topology: Topology
    ports: Mapping[str, int]


class Runtime(Protocol):
    """Starts and stops the nodes and the chaincode of a network. Used once: release, prepare, start, ready, stop."""

    def services(self, topology: Topology) -> Sequence[str]:
        """Names of everything that needs a port: the nodes by their host names, then whatever the runtime adds."""
        ...

    async def release(self, site: Site) -> None:
        """Wait until what an earlier, killed run left behind has ended, so that its ports are free."""
        ...

    async def prepare(self, site: Site) -> Mapping[str, bytes]:
        """Begin to start the chaincode and return the package of each chaincode by its name.

        Called first and does not wait for the chaincode, whose start takes the longest. Raises NetworkError, OSError.
        """
        ...

    async def start(self, site: Site, material: Material, genesis_blocks: Sequence[bytes]) -> None:
        """Start the nodes and join them to the channels. Raises PortInUse, NetworkError."""
        ...

    async def ready(self) -> None:
        """Wait until the chaincode answers. Raises ChaincodeFailed."""
        ...

    async def stop(self) -> None:
        """Stop everything that was started, also after a failure. Never raises NetworkError; idempotent."""
        ...


def create_runtime(name: str) -> Runtime:
    """Return a new runtime of this name. Raises RuntimeUnavailable."""
    if name == "embedded":
        from sovchain.network.runtimes.embedded import EmbeddedRuntime

        return EmbeddedRuntime()
    raise RuntimeUnavailable(name, _KNOWN_ELSEWHERE.get(name, "there is no such runtime"), RUNTIMES)


__all__ = ["RUNTIMES", "Runtime", "Site", "create_runtime"]
