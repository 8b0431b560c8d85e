"""What a network runs on.

General layout:
    embedded.py    the embedded ledger in this process, chaincode in two child processes
    native.py      real `peer` and `orderer` programs, a chaincode process for each organisation
    docker.py      the official images, a chaincode container for each organisation; with it:
                   docker_services (the containers), docker_images, docker_code (contracts that are in no image),
                   docker_monitoring, docker_engine (the programs docker and docker-compose), docker_logs, compose
    programs.py    finding those programs
    settings.py    what the programs are configured with
    joining.py     nodes of real Fabric: asked until they answer, joined to their channels
    access.py      reaching nodes with the keys of their organisations
    space.py       room on the disk
    couchdb.py     the CouchDB servers in which native peers keep their state
    chaincodes.py  processes that serve chaincodes
    processes.py   child processes: watched, started again, found after a kill
    replica.py     start of the embedded runtime's second instance, under a shifted clock (a program, not for import)

A runtime starts and stops nodes and chaincode. Everything else (keys, channels, profiles, lifecycle) is the same for
all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from sovchain.network.errors import RuntimeUnavailable
from sovchain.network.genesis import HOST

if TYPE_CHECKING:
    from sovchain.network.material import Material
    from sovchain.network.topology import Node, Organization, Topology

RUNTIMES: Final = ("embedded", "native", "docker")
"""Names of the runtimes that are available."""

Packages: TypeAlias = Mapping[str, Mapping[str, bytes]]
"""For each organisation, by its name: the package of each of its chaincodes, by the chaincode's name."""


Endpoint: TypeAlias = tuple[str, int]
"""Host and port under which the nodes of a network reach one of them."""


@dataclass(frozen=True)
class Site:
    """Where and what a runtime is to start.

    Attributes:
        directory: the network's directory.
        topology: what it consists of.
        ports: port of each service on this machine's loopback address, where clients and administrators reach it.
        endpoints: where nodes reach each other, by host name: what stands in the channels' configuration.
        operator: whose nodes run here, with those of the ordering organisations that it operates; empty: everyone's.
    """

    directory: Path
    topology: Topology
    ports: Mapping[str, int]
    endpoints: Mapping[str, Endpoint]
    operator: str = ""

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes that run here, peers first."""
        return own_part(self.topology, self.operator).nodes

    @property
    def organizations(self) -> Sequence[Organization]:
        """The organisations with a peer here."""
        return own_part(self.topology, self.operator).organizations

    @property
    def channels(self) -> Sequence[str]:
        """The channels that nodes here have a part in, in the topology's order."""
        names = [channel.name for channel in self.topology.channels]
        return [name for name in names if not self.operator or self.operator in self.topology.operators(name)]

    def reached_at(self, host: str) -> Endpoint:
        """Where clients and administrators on this machine reach a node.

        Its port on the loopback address where the whole network is here; else the node may be elsewhere.
        """
        return self.endpoints[host] if self.operator else (HOST, self.ports[host])


def own_part(topology: Topology, operator: str) -> Topology:
    """What an operator runs of a topology, whose channels still name all members; with no name all of it."""
    if not operator:
        return topology
    return topology.model_copy(
        update={
            "organizations": tuple(part for part in topology.organizations if part.name == operator),
            "ordering_organizations": tuple(
                part for part in topology.ordering_organizations if part.operator == operator
            ),
        }
    )


class Faults(Protocol):
    """Ends and starts single nodes and chaincode processes, for tests of what a network survives."""

    def targets(self) -> Sequence[str]:
        """Names: a node's is its host name, those of chaincode processes begin with `chaincode`."""
        ...

    async def kill(self, target: str) -> None:
        """End one at once (SIGKILL) and keep it down. Raises KeyError for an unknown name."""
        ...

    async def start(self, target: str) -> None:
        """Start a killed one on what it left, and wait until it answers. Raises KeyError, NetworkError."""
        ...


class Runtime(Protocol):
    """Starts and stops the nodes and the chaincode of a network. Used once: release, prepare, start_authorities, start, ready, stop.

    While it runs, `extend` and `shrink` change what runs.
    """

    @property
    def faults(self) -> Faults | None:
        """What single nodes can be ended and started with; None where they are no processes of their own."""
        ...

    def services(self, topology: Topology) -> Sequence[str]:
        """Names of everything that needs a port: the nodes by their host names, then whatever the runtime adds."""
        ...

    def endpoints(self, topology: Topology, ports: Mapping[str, int]) -> Mapping[str, Endpoint]:
        """Where nodes reach each other, by host name; `ports` are those of this machine."""
        ...

    async def release(self, site: Site) -> None:
        """Wait until what an earlier, killed run left behind has ended, so that its ports are free."""
        ...

    async def prepare(self, site: Site) -> Packages:
        """Begin to start the chaincode and return the packages that each organisation is to install.

        Called first and does not wait for the chaincode, whose start takes the longest. Raises NetworkError, OSError.
        """
        ...

    async def start_authorities(self, site: Site, material: Material) -> None:
        """Start the Fabric CA servers of the organisations that have one, and wait until they answer on this host.

        Called before their nodes and users have certificates. Raises NetworkError.
        """
        ...

    async def start(self, site: Site, material: Material, genesis_blocks: Sequence[bytes]) -> None:
        """Start the nodes and join them to the channels. Raises PortInUse, NetworkError."""
        ...

    async def ready(self) -> None:
        """Wait until a client can use every chaincode. Raises NetworkError."""
        ...

    async def extend(self, site: Site, material: Material, genesis_blocks: Mapping[str, bytes]) -> Packages:
        """Start what `site` has and does not run yet, and wait until it answers; nothing else is touched or joined.

        `site` holds what there was and what comes (`transition.union`): of a chaincode that changes its version both, the
        old one first. `genesis_blocks` are by channel. Return the packages of all chaincodes, of the newest versions;
        the runtime goes on with `site`. May be repeated. Raises PortInUse, NetworkError, ChangesRefused for what the
        runtime cannot add.
        """
        ...

    async def shrink(self, site: Site) -> None:
        """Stop what runs and `site` does not have, and go on with `site`. May be repeated. Raises NetworkError."""
        ...

    async def serving(self, site: Site, services: Collection[str]) -> frozenset[str]:
        """Which of these services of chaincodes take connections, whoever runs the network. Raises NetworkError."""
        ...

    async def stop(self) -> None:
        """Stop everything that was started, also after a failure. Never raises NetworkError; idempotent."""
        ...


def create_runtime(name: str) -> Runtime:
    """Return a new runtime of this name. Raises RuntimeUnavailable."""
    if name == "embedded":
        from sovchain.network.runtimes.embedded import EmbeddedRuntime

        return EmbeddedRuntime()
    if name == "native":
        from sovchain.network.runtimes.native import NativeRuntime

        return NativeRuntime()
    if name == "docker":
        from sovchain.network.runtimes.docker import DockerRuntime

        return DockerRuntime()
    raise RuntimeUnavailable(name, "there is no such runtime", RUNTIMES)


__all__ = ["RUNTIMES", "Faults", "Packages", "Runtime", "Site", "create_runtime"]
