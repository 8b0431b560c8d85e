"""What `observe` has seen of a network: nodes, channels, chaincodes and certificates, and what is wrong with them.

Whatever could not be asked is there too, with `problem` saying why. All times are UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

EXPIRES_WITHIN: Final = timedelta(days=30)
"""A certificate that ends within this time is listed."""


@dataclass(frozen=True)
class NodeSeen:
    """A peer, an ordering node, or a Fabric CA server (kind `authority`).

    Attributes:
        host, kind, organization, address: what it is and where it listens.
        answers: whether it answers on its main port.
        pid: number of its process on this machine; 0 where it has none of its own.
        memory_mib: resident memory of that process; 0 where unknown.
        health: what `/healthz` of its operations endpoint says, `OK` when all is well; empty where it has no such
            endpoint.
        version: the release of Fabric that it says it is.
        metrics: address of its Prometheus metrics, which ask for a client certificate; empty where it has none.
        problem: why it could not be asked.
    """

    host: str
    kind: str
    organization: str
    address: str
    answers: bool = False
    pid: int = 0
    memory_mib: int = 0
    health: str = ""
    version: str = ""
    metrics: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Chain:
    """The end of a channel's chain on one node.

    Attributes:
        host: the node.
        height: number of blocks; 0 when it could not be asked.
        head: hash of the last block's header in hexadecimal digits; empty where a node does not tell it.
        part: an ordering node's part in the channel and its state, such as `consenter, active`.
        leads: whether the node says that it leads the channel.
        problem: why it could not be asked.
    """

    host: str
    height: int = 0
    head: str = ""
    part: str = ""
    leads: bool = False
    problem: str = ""


@dataclass(frozen=True)
class ChannelSeen:
    """A channel as its peers and ordering nodes have it.

    Attributes:
        name, members: the channel and its organisations.
        peers, orderers: the chain on each node.
        agreement: `same` when all peers that answered have the same chain up to the lowest of their heights, `forked`
            when two differ, `unknown` when fewer than two could be compared.
        leader: host of the ordering node that leads; empty when none says so; `embedded` where one process orders.
    """

    name: str
    members: tuple[str, ...]
    peers: tuple[Chain, ...]
    orderers: tuple[Chain, ...]
    agreement: str
    leader: str

    @property
    def height(self) -> int:
        """The height of the peer that is furthest."""
        return max((chain.height for chain in self.peers), default=0)

    @property
    def head(self) -> str:
        """Hash of the last block of the peer that is furthest; empty when no peer answered."""
        return max(self.peers, key=lambda chain: chain.height, default=Chain("")).head


@dataclass(frozen=True)
class ChaincodeSeen:
    """A chaincode's committed definition on a channel.

    Attributes:
        channel, name: which.
        version, sequence: what is committed; empty and 0 when nothing is.
        approvals: for each MSP id of the channel whether it has approved the committed definition.
        collections: names of the private data collections that the definition declares.
        problem: why it could not be asked.
    """

    channel: str
    name: str
    version: str = ""
    sequence: int = 0
    approvals: Mapping[str, bool] = field(default_factory=dict)
    collections: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class ServiceSeen:
    """A chaincode that runs as a service: who serves it, where, and whether it takes connections."""

    name: str
    address: str
    answers: bool
    pid: int = 0
    problem: str = ""


@dataclass(frozen=True)
class CertificateSeen:
    """A certificate that ends within `EXPIRES_WITHIN`, or has ended.

    Attributes:
        subject: its common name.
        place: the file that holds it, relative to the network's directory, or the endpoint that shows it.
        ends_at: until when it is valid.
        days_left: whole days until then; negative when it has ended.
    """

    subject: str
    place: str
    ends_at: datetime
    days_left: int


@dataclass(frozen=True)
class Observation:
    """A network as it was seen at one moment.

    Attributes:
        seen_at: when.
        directory, state, pid, started_at, runtime: as in `Status`.
        certificates: those that end soon, the first to end first.
        certificates_checked: how many certificates were looked at, in files and on endpoints.
    """

    seen_at: datetime
    directory: str
    state: str
    pid: int
    started_at: str
    runtime: str
    nodes: tuple[NodeSeen, ...]
    channels: tuple[ChannelSeen, ...]
    chaincodes: tuple[ChaincodeSeen, ...]
    services: tuple[ServiceSeen, ...]
    certificates: tuple[CertificateSeen, ...]
    certificates_checked: int

    def problems(self) -> list[str]:
        """What is wrong, one sentence each; empty when all is well. A network that is down has certificates only."""
        found = [] if self.state == "down" else [*self._of_nodes(), *self._of_channels(), *self._of_chaincodes()]
        return [*found, *(f"{c.place}: the certificate has expired" for c in self.certificates if c.days_left < 0)]

    def _of_nodes(self) -> Iterator[str]:
        for node in self.nodes:
            if not node.answers:
                yield f"{node.host} does not answer: {node.problem}"
            elif node.problem or node.health not in ("", "OK"):
                yield f"{node.host} is not well: {node.problem or node.health}"
        for service in self.services:
            if not service.answers:
                yield f"{service.name} does not answer: {service.problem}"

    def _of_channels(self) -> Iterator[str]:
        silent = {node.host for node in self.nodes if not node.answers}
        for channel in self.channels:
            for chain in (*channel.peers, *channel.orderers):
                if chain.problem and chain.host not in silent:
                    yield f"{chain.host} on channel {channel.name}: {chain.problem}"
            if channel.agreement == "forked":
                yield f"the peers of channel {channel.name} have different blocks"
            if not channel.leader:
                yield f"no ordering node leads channel {channel.name}"

    def _of_chaincodes(self) -> Iterator[str]:
        for chaincode in self.chaincodes:
            if chaincode.problem:
                yield f"chaincode {chaincode.name} on channel {chaincode.channel}: {chaincode.problem}"

    def as_document(self) -> dict[str, Any]:
        """The observation for JSON; channels by their names."""
        document = asdict(self)
        document["channels"] = {
            channel.name: {**asdict(channel), "height": channel.height, "head": channel.head}
            for channel in self.channels
        }
        return {**document, "problems": self.problems()}


def agreement(hashes: Sequence[str]) -> str:
    """Whether the peers' hashes of the same block agree (`ChannelSeen.agreement`); empty ones are unknown."""
    known = {value for value in hashes if value}
    if len(known) > 1:
        return "forked"
    return "same" if len(hashes) > 1 and all(hashes) else "unknown"
