"""The parts of a topology: names, organisations, channels, chaincodes, and the nodes that follow from them.

A topology is plain data. `topology` puts the parts together, `topologyfile` reads them from YAML and `checks` holds the
rules that span several parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sovchain.network.errors import UnknownName

Role = Literal["admin", "client"]
FabricVersion = Annotated[Literal["2.5", "3.1"], BeforeValidator(lambda value: _version(value))]
"""Without quotation marks YAML takes 3.1 for a number; no other number is meant by it."""
Consensus = Literal["raft", "bft"]
StateDatabase = Literal["leveldb", "couchdb"]
CertificateAuthority = Literal["generated", "fabric-ca"]

DOMAIN_MAX: Final = 54
"""Limit of a domain: `orderer15.<domain>` is a common name, which X.509 limits to 64 characters."""
NODES_MAX: Final = 16
"""Limit of the peers or ordering nodes of one organisation."""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")

# An organisation's name becomes a file name, an MSP id a group of the channel configuration
# (common/configtx/validator.go in Fabric), a domain part of host names and of folder names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,62}$")]
DerivedName = Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9-]{0,62})?$")]
MspId = Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9.-]{0,63})?$")]
Domain = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+)?$", max_length=DOMAIN_MAX
    ),
]
HostName = Annotated[str, Field(pattern=r"^[a-z0-9.-]{0,64}$")]
ChannelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]{0,248}$")]
ChaincodeName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*$", max_length=100)]
CollectionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+([A-Za-z0-9_-]+)*$", max_length=100)]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,64}$")]
ModuleObject = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=256)]
UserName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")]
AttributeName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")]
AttributeValue = Annotated[str, Field(max_length=256, pattern="^[^\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]*$")]
"""Without control characters and line separators: it is shown in logs and on terminals, and written in YAML."""
Attributes = Annotated[Mapping[AttributeName, AttributeValue], Field(max_length=32)]
PolicyText = Annotated[str, Field(min_length=1, max_length=10_000)]
PolicyReference = Annotated[str, Field(pattern=r"^[A-Za-z0-9./_-]{1,300}$")]
NodeCount = Annotated[int, Field(ge=1, le=NODES_MAX)]
Milliseconds = Annotated[int, Field(ge=10, le=3_600_000)]


class Part(BaseModel):
    """What all parts have in common: unknown keys are refused, and nothing changes once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Node:
    """A peer or an ordering node.

    Attributes:
        organization: name of the organisation that runs it.
        kind: what it is.
        index: its place among the organisation's nodes, from 0.
        host: its host name, which no other node of the network has.
    """

    organization: str
    kind: Literal["peer", "orderer"]
    index: int
    host: str


class User(Part):
    """A person or program of an organisation.

    Attributes:
        name: name within the organisation; the certificate's common name is `<name>@<domain>`.
        role: the certificate's NodeOU. An admin may install and approve chaincode and vote for the organisation.
        attributes: what the certificate claims (Fabric CA's extension), for example role and clearance. The registry on
            the ledger sets the ceiling of each.
    """

    name: UserName
    role: Role = "client"
    attributes: Attributes = Field(default_factory=dict)


DEFAULT_USERS: Final = (User(name="Admin", role="admin"), User(name="User1"))


class Organization(Part):
    """An organisation with its peers and its users.

    Attributes:
        name: what everything else in the topology calls it.
        msp_id: identifier of its MSP; empty: `<name>MSP`.
        domain: what its host names end in; empty: the name in small letters under the topology's domain.
        jurisdiction: what the organisation is proposed to the registry with (such as CN-GZ-520100); it is no part of the
            certificates but for the country.
        peers: how many peers it runs: `peer0.<domain>`, `peer1.<domain>`, and so on.
        certificate_authority: where users' and nodes' certificates come from: made with the network's own material, or
            enrolled at a Fabric CA that runs with the network.
        attributes: what the certificates of all its users claim, unless a user says otherwise.
        users: people and programs; one at least is an admin.
    """

    name: Name
    msp_id: MspId = ""
    domain: Domain = ""
    jurisdiction: Annotated[str, Field(pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,8}){0,2})?$")] = ""
    peers: NodeCount = 1
    certificate_authority: CertificateAuthority = "generated"
    attributes: Attributes = Field(default_factory=dict)
    users: Annotated[tuple[User, ...], Field(min_length=1, max_length=256)] = DEFAULT_USERS

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        derived = dict(data)
        if not data.get("msp_id") and _is_name(data.get("name")):
            derived["msp_id"] = f"{data['name']}MSP"
        claims = data.get("attributes")
        users = data.get("users", DEFAULT_USERS)
        if isinstance(claims, Mapping) and isinstance(users, list | tuple):
            derived["users"] = tuple(_with_claims(user, claims) for user in users)
        return derived

    @property
    def all_nodes(self) -> tuple[Node, ...]:
        """The organisation's peers."""
        return tuple(Node(self.name, "peer", index, f"peer{index}.{self.domain}") for index in range(self.peers))

    @property
    def peer_host(self) -> str:
        """Host name of the organisation's first peer."""
        return self.all_nodes[0].host

    @property
    def administrator(self) -> User:
        """The first user with the role admin; `checks` sees to it that there is one."""
        return next(user for user in self.users if user.role == "admin")

    def user(self, name: str) -> User:
        """Return the user of this name. Raises UnknownName, which lists the known ones."""
        return named("user", name, self.users)


class OrderingOrganization(Part):
    """An organisation that runs ordering nodes.

    Attributes:
        operator: name of the organisation that stands behind it. No organisation may rule the ordering nodes of a
            channel alone, and the regulator's cannot be outvoted.
        name: what everything else in the topology calls it; empty: `<operator>Orderer`.
        msp_id: identifier of its MSP; empty: `<name>MSP`.
        domain: what its host names end in; empty: `orderer.<domain of the operator>`.
        host: host name of its first node; empty: the domain itself.
        nodes: how many nodes it runs; the further ones are `orderer1.<domain>`, `orderer2.<domain>`, and so on, so that
            the first keeps its name when others join it.
        certificate_authority: as for an organisation.
    """

    operator: Name
    name: DerivedName = ""
    msp_id: MspId = ""
    domain: Domain = ""
    host: HostName = ""
    nodes: NodeCount = 1
    certificate_authority: CertificateAuthority = "generated"

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        derived = dict(data)
        if not data.get("name") and _is_name(data.get("operator")):
            derived["name"] = f"{data['operator']}Orderer"
        if not data.get("msp_id") and _is_name(derived.get("name")):
            derived["msp_id"] = f"{derived['name']}MSP"
        return derived

    @property
    def all_nodes(self) -> tuple[Node, ...]:
        """The organisation's ordering nodes."""
        hosts = [self.orderer_host, *(f"orderer{index}.{self.domain}" for index in range(1, self.nodes))]
        return tuple(Node(self.name, "orderer", index, host) for index, host in enumerate(hosts))

    @property
    def orderer_host(self) -> str:
        """Host name of the organisation's first ordering node."""
        return self.host or self.domain


AnyOrganization = Organization | OrderingOrganization


class Raft(Part):
    """Timing of Raft, as `orderer/etcdraft/configuration.proto` has it.

    A follower that hears nothing for `election_ticks` times `tick_ms` stands for election: with the defaults 1 s, which
    suits nodes of one machine or one site; 500 ms suits nodes that are far from each other.
    """

    tick_ms: Milliseconds = 100
    election_ticks: Annotated[int, Field(ge=2, le=1000)] = 10
    heartbeat_ticks: Annotated[int, Field(ge=1, le=1000)] = 1
    max_inflight_blocks: Annotated[int, Field(ge=1, le=1000)] = 5
    snapshot_interval_bytes: Annotated[int, Field(ge=1024, le=2**31)] = 16 * 1024 * 1024


class Bft(Part):
    """Timing of SmartBFT, as `orderer/smartbft/configuration.proto` has it.

    A transaction that the leader has not ordered is forwarded to it after `forward_ms`, and complained about after
    `complain_ms`, upon which another node takes the lead; a leader from which nothing is heard for
    `heartbeat_timeout_ms` is replaced too. How long a block waits for transactions is the channel's `batch.timeout_s`.
    """

    forward_ms: Milliseconds = 500
    complain_ms: Milliseconds = 5_000
    auto_remove_ms: Milliseconds = 180_000
    view_change_resend_ms: Milliseconds = 1_000
    view_change_ms: Milliseconds = 10_000
    heartbeat_timeout_ms: Milliseconds = 10_000
    heartbeat_count: Annotated[int, Field(ge=1, le=1000)] = 10
    collect_ms: Milliseconds = 1_000
    incoming_messages: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    pool_size: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000


class Batch(Part):
    """When a block is cut: after `max_message_count` transactions, `preferred_max_bytes` bytes or `timeout_s` seconds.

    `absolute_max_bytes` limits a single transaction. The default timeout is short because an embedded network waits for
    no other machine.
    """

    max_message_count: Annotated[int, Field(ge=1, le=100_000)] = 500
    absolute_max_bytes: Annotated[int, Field(ge=1024, le=100 * 1024 * 1024)] = 10 * 1024 * 1024
    preferred_max_bytes: Annotated[int, Field(ge=1024, le=100 * 1024 * 1024)] = 2 * 1024 * 1024
    timeout_s: Annotated[float, Field(ge=0.001, le=60, allow_inf_nan=False)] = 0.02


class Capabilities(Part):
    """What every node of a channel must understand (`sampleconfig/configtx.yaml`). The lowest version present decides."""

    channel: Literal["V2_0", "V3_0"]
    orderer: Literal["V2_0"] = "V2_0"
    application: Literal["V2_0", "V2_5"] = "V2_5"


class Channel(Part):
    """A channel: its members, who orders for it, and who may change it.

    Attributes:
        members: names of organisations with a peer.
        orderers: names of ordering organisations; empty: all of the topology.
        regulator: the member without which no policy of the channel is satisfied.
        read_only: members whose users, admins apart, may ask and listen but send no transactions.
        capabilities: None: those of the topology's Fabric version.
        batch: when a block is cut.
        anchor_peers: hosts of the peers, by organisation, through which other organisations find it; an organisation
            that is not named has its first peer there, and one with an empty list has none.
        acls: policies by resource, such as `qscc/GetBlockByNumber: Admins`, instead of Fabric's defaults.
        lifecycle_endorsement: policy for committing chaincode definitions; None: the majority, the regulator among it.
        admins: policy for changing the application part of the configuration; None: likewise.
        orderer_admins: policy for changing the ordering part; None: likewise, over the ordering organisations.
    """

    name: ChannelName
    members: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    orderers: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    regulator: Name | None = None
    read_only: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    capabilities: Capabilities | None = None
    batch: Batch = Field(default_factory=Batch)
    anchor_peers: Annotated[
        Mapping[Name, Annotated[tuple[HostName, ...], Field(max_length=NODES_MAX)]], Field(max_length=64)
    ] = Field(default_factory=dict)
    acls: Annotated[
        Mapping[Annotated[str, Field(pattern=r"^[A-Za-z_]{1,40}/[A-Za-z]{1,60}$")], PolicyReference],
        Field(max_length=100),
    ] = Field(default_factory=dict)
    lifecycle_endorsement: PolicyText | None = None
    admins: PolicyText | None = None
    orderer_admins: PolicyText | None = None


class Collection(Part):
    """A private data collection of a chaincode.

    Attributes:
        members: names of the organisations whose peers hold the data.
        policy: who holds the data, in Fabric's policy language (OR of members), instead of `members`.
        required_peer_count: peers that must have received the data before the endorser signs; 1 or more makes every
            endorsement wait for another peer.
        max_peer_count: peers that the endorser sends the data to; the others fetch it.
        block_to_live: after how many blocks the data is purged; 0: never.
        member_only_read: only clients of members may read.
        member_only_write: only clients of members may write.
        endorsement_policy: who must endorse what is written here; None: the chaincode's policy.
    """

    name: CollectionName
    members: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    policy: PolicyText | None = None
    required_peer_count: Annotated[int, Field(ge=0, le=1000)] = 0
    max_peer_count: Annotated[int, Field(ge=0, le=1000)] = 3
    block_to_live: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    member_only_read: bool = True
    member_only_write: bool = True
    endorsement_policy: PolicyText | None = None


class ChaincodeSpec(Part):
    """A chaincode and the channels that it is deployed on.

    Attributes:
        module: where the code is, "package.module:object"; the object is a `sovchain.chaincode.Chaincode`.
        endorsement_policy: who must endorse a transaction, in Fabric's policy language. No organisation may satisfy it
            alone.
        collections: its private data collections, besides the implicit one of each organisation.
        runs: how it runs: as a service that peers connect to, in a process or container of its own.
    """

    name: ChaincodeName
    module: ModuleObject
    channels: Annotated[tuple[ChannelName, ...], Field(min_length=1, max_length=64)]
    version: Version = "1.0"
    endorsement_policy: PolicyText
    collections: Annotated[tuple[Collection, ...], Field(max_length=64)] = ()
    runs: Literal["service"] = "service"

    @property
    def label(self) -> str:
        """Label of the chaincode's package."""
        return f"{self.name}_{self.version}"


class Ports(Part):
    """Ports of the nodes on the loopback address.

    They are neighbours from `base` on; without a base a free block is found once and kept for the directory. `fixed`
    gives single ports by the name of their service (`ports.service_names`), for example `peer0.finance.example` or
    `peer0.finance.example/operations`.
    """

    base: Annotated[int, Field(ge=1024, le=65000)] | None = None
    fixed: Annotated[Mapping[str, Annotated[int, Field(ge=1024, le=65535)]], Field(max_length=1000)] = Field(
        default_factory=dict
    )


Named = TypeVar("Named", User, Organization, OrderingOrganization, Channel, ChaincodeSpec)


def named(kind: str, name: str, parts: Iterable[Named]) -> Named:
    """Return the part of this name. Raises UnknownName, which lists the known ones; `kind` says what was looked for."""
    known = {part.name: part for part in parts}
    try:
        return known[name]
    except KeyError:
        raise UnknownName(kind, name, sorted(known)) from None


def _version(value: Any) -> Any:
    return str(value) if isinstance(value, float) else value


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _with_claims(user: Any, claims: Mapping[Any, Any]) -> Any:
    """Give a user, as a part or as read from a file, the claims that all users of the organisation have."""
    if isinstance(user, User):
        return user.model_copy(update={"attributes": {**claims, **user.attributes}})
    if isinstance(user, Mapping) and isinstance(user.get("attributes", {}), Mapping):
        return {**user, "attributes": {**claims, **user.get("attributes", {})}}
    return user
