"""What a network consists of: the model of a topology, and the default one.

A topology is plain data. `topologyfile` reads it from YAML and `checks` holds the rules that span several parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from sovchain.network.errors import UnknownName

Role = Literal["admin", "client"]

# An organisation's name becomes a file name, an MSP id a group of the channel configuration
# (common/configtx/validator.go in Fabric), a domain part of host names and of folder names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,62}$")]
MspId = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9.-]{0,63}$")]
Domain = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$", max_length=56)
]
"""A host name is `peer0.<domain>`, and X.509 limits a common name to 64 characters."""
ChannelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]{0,248}$")]
ChaincodeName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*$", max_length=100)]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,64}$")]
ModuleObject = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=256)]
UserName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")]
AttributeName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")]
PolicyText = Annotated[str, Field(min_length=1, max_length=10_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class User(_Part):
    """A person or program of an organisation.

    Attributes:
        name: name within the organisation; the certificate's common name is `<name>@<domain>`.
        role: the certificate's NodeOU. An admin may install and approve chaincode and vote for the organisation.
        attributes: what the certificate claims (Fabric CA's extension), for example role and clearance. The registry on
            the ledger sets the ceiling of each.
    """

    name: UserName
    role: Role = "client"
    attributes: Annotated[Mapping[AttributeName, Annotated[str, Field(max_length=256)]], Field(max_length=32)] = Field(
        default_factory=dict
    )


class Organization(_Part):
    """An organisation with one peer, `peer0.<domain>`, and its users.

    `jurisdiction` (such as CN-GZ-520100) is what the organisation is proposed to the registry with; it is no part of
    the certificates.
    """

    name: Name
    msp_id: MspId
    domain: Domain
    jurisdiction: Annotated[str, Field(pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,8}){0,2})?$")] = ""
    users: Annotated[tuple[User, ...], Field(min_length=1, max_length=256)] = (
        User(name="Admin", role="admin"),
        User(name="User1"),
    )

    @property
    def peer_host(self) -> str:
        """Host name of the organisation's peer."""
        return f"peer0.{self.domain}"

    @property
    def administrator(self) -> User:
        """The first user with the role admin; `checks` sees to it that there is one."""
        return next(user for user in self.users if user.role == "admin")

    def user(self, name: str) -> User:
        """Return the user of this name. Raises UnknownName, which lists the known ones."""
        return _named("user", name, self.users)


class OrderingOrganization(_Part):
    """An organisation that runs one ordering node.

    Attributes:
        operator: name of the organisation that stands behind it. No organisation may rule the ordering nodes of a
            channel alone, and the regulator's cannot be outvoted.
        host: host name of the node; empty: the domain itself.
    """

    name: Name
    msp_id: MspId
    domain: Domain
    operator: Name
    host: Annotated[str, Field(pattern=r"^[a-z0-9.-]{0,64}$")] = ""

    @property
    def orderer_host(self) -> str:
        """Host name of the ordering node."""
        return self.host or self.domain


AnyOrganization = Organization | OrderingOrganization


class Batch(_Part):
    """When a block is cut: after `max_message_count` transactions, `preferred_max_bytes` bytes or `timeout_s` seconds.

    `absolute_max_bytes` limits a single transaction. The default timeout is short because an embedded network waits for
    no other machine.
    """

    max_message_count: Annotated[int, Field(ge=1, le=100_000)] = 500
    absolute_max_bytes: Annotated[int, Field(ge=1024, le=100 * 1024 * 1024)] = 10 * 1024 * 1024
    preferred_max_bytes: Annotated[int, Field(ge=1024, le=100 * 1024 * 1024)] = 2 * 1024 * 1024
    timeout_s: Annotated[float, Field(ge=0.001, le=60)] = 0.02


class Channel(_Part):
    """A channel: its members, who orders for it, and who may change it.

    Attributes:
        members: names of organisations with a peer.
        orderers: names of ordering organisations; empty: all of the topology.
        regulator: the member without which no policy of the channel is satisfied.
        lifecycle_endorsement: policy for committing chaincode definitions; None: the majority, the regulator among it.
        admins: policy for changing the application part of the configuration; None: likewise.
        orderer_admins: policy for changing the ordering part; None: likewise, over the ordering organisations.
    """

    name: ChannelName
    members: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    orderers: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    regulator: Name | None = None
    batch: Batch = Field(default_factory=Batch)
    lifecycle_endorsement: PolicyText | None = None
    admins: PolicyText | None = None
    orderer_admins: PolicyText | None = None


class ChaincodeSpec(_Part):
    """A chaincode and the channels that it is deployed on.

    Attributes:
        module: where the code is, "package.module:object"; the object is a `sovchain.chaincode.Chaincode`.
        endorsement_policy: who must endorse a transaction, in Fabric's policy language. No organisation may satisfy it
            alone.
    """

    name: ChaincodeName
    module: ModuleObject
    channels: Annotated[tuple[ChannelName, ...], Field(min_length=1, max_length=64)]
    version: Version = "1.0"
    endorsement_policy: PolicyText

    @property
    def label(self) -> str:
        """Label of the chaincode's package."""
        return f"{self.name}_{self.version}"


class Ports(_Part):
    """Ports of the nodes on the loopback address.

    They are neighbours from `base` on; without a base a free block is found once and kept for the directory.
    """

    base: Annotated[int, Field(ge=1024, le=65000)] | None = None


class Topology(_Part):
    """A whole network. `load_topology`, `parse_topology` and `checks.check` apply the rules that span several parts."""

    name: Name = "guiyang"
    fabric_version: Literal["2.5", "3.1"] = "3.1"
    organizations: Annotated[tuple[Organization, ...], Field(min_length=1, max_length=64)]
    ordering_organizations: Annotated[tuple[OrderingOrganization, ...], Field(min_length=1, max_length=64)]
    channels: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=64)]
    chaincodes: Annotated[tuple[ChaincodeSpec, ...], Field(max_length=64)] = ()
    ports: Ports = Field(default_factory=Ports)

    @property
    def everyone(self) -> tuple[AnyOrganization, ...]:
        """The organisations with a peer, then the ordering organisations."""
        return (*self.organizations, *self.ordering_organizations)

    def organization(self, name: str) -> Organization:
        """Return the organisation of this name. Raises UnknownName."""
        return _named("organization", name, self.organizations)

    def ordering_organization(self, name: str) -> OrderingOrganization:
        """Return the ordering organisation of this name. Raises UnknownName."""
        return _named("ordering organization", name, self.ordering_organizations)

    def channel(self, name: str) -> Channel:
        """Return the channel of this name. Raises UnknownName."""
        return _named("channel", name, self.channels)

    def chaincode(self, name: str) -> ChaincodeSpec:
        """Return the chaincode of this name. Raises UnknownName."""
        return _named("chaincode", name, self.chaincodes)

    def members(self, channel: str) -> tuple[Organization, ...]:
        """Return the organisations on a channel. Raises UnknownName."""
        return tuple(self.organization(name) for name in self.channel(channel).members)

    def orderers(self, channel: str) -> tuple[OrderingOrganization, ...]:
        """Return the ordering organisations of a channel. Raises UnknownName."""
        names = self.channel(channel).orderers
        return tuple(self.ordering_organization(name) for name in names) if names else self.ordering_organizations

    def lifecycle_endorsement(self, channel: str) -> str:
        """Return the policy for committing chaincode definitions on a channel. Raises UnknownName."""
        spec = self.channel(channel)
        return spec.lifecycle_endorsement or self._majority(spec, "peer")

    def admins(self, channel: str) -> str:
        """Return the policy for changing the application part of a channel's configuration. Raises UnknownName."""
        spec = self.channel(channel)
        return spec.admins or self._majority(spec, "admin")

    def orderer_admins(self, channel: str) -> str:
        """Return the policy for changing the ordering part of a channel's configuration. Raises UnknownName."""
        spec = self.channel(channel)
        if spec.orderer_admins:
            return spec.orderer_admins
        orderers = self.orderers(channel)
        leading = [orderer.msp_id for orderer in orderers if orderer.operator == spec.regulator]
        return majority_policy([orderer.msp_id for orderer in orderers], "admin", leading[0] if leading else None)

    def _majority(self, spec: Channel, role: str) -> str:
        members = [organization.msp_id for organization in self.members(spec.name)]
        leading = self.organization(spec.regulator).msp_id if spec.regulator else None
        return majority_policy(members, role, leading)


_Named = TypeVar("_Named", User, Organization, OrderingOrganization, Channel, ChaincodeSpec)


def _named(kind: str, name: str, parts: Iterable[_Named]) -> _Named:
    known = {part.name: part for part in parts}
    try:
        return known[name]
    except KeyError:
        raise UnknownName(kind, name, sorted(known)) from None


def majority_policy(msp_ids: Sequence[str], role: str, regulator: str | None) -> str:
    """Return a policy that more than half of the organisations satisfy together, the regulator always among them.

    Fabric's own defaults are plain majorities, by which the others can outvote a regulator.
    """
    majority = len(msp_ids) // 2 + 1
    if regulator is None:
        return _out_of(majority, msp_ids, role)
    others = [msp_id for msp_id in msp_ids if msp_id != regulator]
    if not others:
        return f"OR('{regulator}.{role}')"
    return f"AND('{regulator}.{role}', {_out_of(max(majority - 1, 1), others, role)})"


def _out_of(count: int, msp_ids: Sequence[str], role: str) -> str:
    principals = ", ".join(f"'{msp_id}.{role}'" for msp_id in msp_ids)
    return f"OutOf({count}, {principals})"


_CITY: Final = "CN-GZ-520100"
_REGULATOR: Final = "Supervisor"


def _organization(name: str, domain: str, jurisdiction: str, role: str, clearance: str) -> Organization:
    claims = {"role": role, "clearance": clearance}
    return Organization(
        name=name,
        msp_id=f"{name}MSP",
        domain=domain,
        jurisdiction=jurisdiction,
        users=(User(name="Admin", role="admin", attributes=claims), User(name="User1", attributes=claims)),
    )


def _ordering(operator: str) -> OrderingOrganization:
    return OrderingOrganization(
        name=f"{operator}Orderer",
        msp_id=f"{operator}OrdererMSP",
        domain=f"orderer.{operator.lower()}.guiyang.example",
        operator=operator,
    )


def _with_regulator(*others: str) -> str:
    """The regulator endorses everything, never alone."""
    principals = ", ".join(f"'{name}MSP.peer'" for name in others)
    return f"AND('{_REGULATOR}MSP.peer', OR({principals}))"


@cache
def default_topology() -> Topology:
    """The default network: four organisations of the city and an overseas carrier, on three channels."""
    endorsers = {
        "government": ("Government", "Finance", "Logistics"),
        "finance": ("Government", "Finance"),
        "logistics": ("Government", "Logistics"),
    }
    members = {name: (*others, _REGULATOR) for name, others in endorsers.items()}
    members["logistics"] += ("OverseasCarrier",)
    return Topology(
        organizations=(
            _organization("Government", "government.guiyang.example", _CITY, "official", "core"),
            _organization("Finance", "finance.guiyang.example", _CITY, "analyst", "important"),
            _organization("Logistics", "logistics.guiyang.example", _CITY, "operator", "important"),
            _organization(_REGULATOR, "supervisor.guiyang.example", "CN-GZ", "supervisor", "core"),
            _organization("OverseasCarrier", "carrier.singapore.example", "SG", "carrier", "general"),
        ),
        ordering_organizations=tuple(_ordering(operator) for operator in ("Government", "Finance", _REGULATOR)),
        channels=tuple(Channel(name=name, members=names, regulator=_REGULATOR) for name, names in members.items()),
        chaincodes=tuple(
            ChaincodeSpec(
                name=name,
                module=f"sovchain.contracts.{name}:chaincode",
                channels=(name,),
                endorsement_policy=_with_regulator(*others),
            )
            for name, others in endorsers.items()
        ),
    )
