"""What a network consists of: the model of a topology, and the default one.

`topologyparts` holds the parts, `topologyfile` reads and writes YAML and `checks` holds the rules that span several parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, Literal

from fabric_protos.peer import collection_pb2
from pydantic import Field, model_validator

from sovchain.network.topologyparts import (
    AnyOrganization,
    Batch,
    Bft,
    Capabilities,
    ChaincodeSpec,
    Channel,
    Collection,
    Consensus,
    Domain,
    FabricVersion,
    Name,
    Node,
    OrderingOrganization,
    Organization,
    Part,
    Ports,
    Raft,
    StateDatabase,
    User,
    named,
)
from sovchain.protocol import policydsl

__all__ = [
    "AnyOrganization",
    "Batch",
    "Bft",
    "Capabilities",
    "ChaincodeSpec",
    "Channel",
    "Collection",
    "Node",
    "OrderingOrganization",
    "Organization",
    "Overridable",
    "Ports",
    "Raft",
    "Topology",
    "User",
    "default_topology",
    "majority_policy",
]

Overridable = Literal["ordering-majority", "look-alike"]
"""Rules of `checks` that a topology may set aside with `accept`."""


class Topology(Part):
    """A whole network. `load_topology`, `parse_topology` and `checks.check` apply the rules that span several parts.

    Attributes:
        name: name of the network.
        domain: what the domains of organisations end in that have none of their own.
        fabric_version: release of Fabric that the nodes run.
        consensus: how ordering nodes agree: raft tolerates nodes that fail, bft (Fabric 3.1, four nodes or more) also
            nodes that lie.
        raft, bft: timing; only that of `consensus` counts.
        state_database: where peers keep the current state.
        organizations, ordering_organizations, channels, chaincodes: what the network consists of.
        ports: ports of the nodes.
        accept: rules of `checks` that are set aside, by name.
    """

    name: Name = "guiyang"
    domain: Domain = ""
    fabric_version: FabricVersion = "3.1"
    consensus: Consensus = "raft"
    raft: Raft = Field(default_factory=Raft)
    bft: Bft = Field(default_factory=Bft)
    state_database: StateDatabase = "leveldb"
    organizations: Annotated[tuple[Organization, ...], Field(min_length=1, max_length=64)]
    ordering_organizations: Annotated[tuple[OrderingOrganization, ...], Field(min_length=1, max_length=64)]
    channels: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=64)]
    chaincodes: Annotated[tuple[ChaincodeSpec, ...], Field(max_length=64)] = ()
    ports: Ports = Field(default_factory=Ports)
    accept: Annotated[tuple[Overridable, ...], Field(max_length=16)] = ()

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        """Give organisations without a domain one below the network's, and ordering ones one below their operator's."""
        if not isinstance(data, Mapping):
            return data
        derived = dict(data)
        suffix = data.get("domain")
        domains: dict[Any, str] = {}
        for kind in ("organizations", "ordering_organizations"):
            parts = data.get(kind)
            if not isinstance(parts, list | tuple):
                continue
            filled = []
            for part in parts:
                name, domain = _text(part, "name"), _text(part, "domain")
                if kind == "organizations":
                    wanted = f"{name.lower()}.{suffix}" if name and isinstance(suffix, str) and suffix else ""
                    domains[name] = domain or wanted
                else:
                    above = domains.get(_text(part, "operator"), "")
                    wanted = f"orderer.{above}" if above else ""
                filled.append(_with_domain(part, wanted) if not domain and wanted else part)
            derived[kind] = tuple(filled)
        return derived

    @property
    def everyone(self) -> tuple[AnyOrganization, ...]:
        """The organisations with a peer, then the ordering organisations."""
        return (*self.organizations, *self.ordering_organizations)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The peers, then the ordering nodes, in the order of their organisations."""
        return tuple(node for part in self.everyone for node in part.all_nodes)

    def organization(self, name: str) -> Organization:
        """Return the organisation of this name. Raises UnknownName."""
        return named("organization", name, self.organizations)

    def ordering_organization(self, name: str) -> OrderingOrganization:
        """Return the ordering organisation of this name. Raises UnknownName."""
        return named("ordering organization", name, self.ordering_organizations)

    def channel(self, name: str) -> Channel:
        """Return the channel of this name. Raises UnknownName."""
        return named("channel", name, self.channels)

    def chaincode(self, name: str) -> ChaincodeSpec:
        """Return the chaincode of this name. Raises UnknownName."""
        return named("chaincode", name, self.chaincodes)

    def members(self, channel: str) -> tuple[Organization, ...]:
        """Return the organisations on a channel. Raises UnknownName."""
        return tuple(self.organization(name) for name in self.channel(channel).members)

    def orderers(self, channel: str) -> tuple[OrderingOrganization, ...]:
        """Return the ordering organisations of a channel. Raises UnknownName."""
        names = self.channel(channel).orderers
        return tuple(self.ordering_organization(name) for name in names) if names else self.ordering_organizations

    def operators(self, channel: str) -> frozenset[str]:
        """Return the organisations that are members of a channel, or whose nodes order for it. Raises UnknownName."""
        return frozenset((*self.channel(channel).members, *(part.operator for part in self.orderers(channel))))

    def capabilities(self, channel: str) -> Capabilities:
        """Return a channel's capabilities: its own, or those of the Fabric version. Raises UnknownName."""
        own = self.channel(channel).capabilities
        return own or Capabilities(channel="V3_0" if self.fabric_version == "3.1" else "V2_0")

    def anchor_peers(self, channel: str) -> dict[str, tuple[str, ...]]:
        """Return the hosts of the anchor peers of each member of a channel, by the member's name. Raises UnknownName."""
        chosen = self.channel(channel).anchor_peers
        return {part.name: chosen.get(part.name, (part.peer_host,)) for part in self.members(channel)}

    def collections(self, chaincode: str) -> collection_pb2.CollectionConfigPackage | None:
        """Return the private data collections of a chaincode as its definition holds them; None when it has none.

        Raises UnknownName, and ProtocolError for a policy that cannot be read (`checks` finds both earlier).
        """
        specs = self.chaincode(chaincode).collections
        if not specs:
            return None
        return collection_pb2.CollectionConfigPackage(
            config=[collection_pb2.CollectionConfig(static_collection_config=self._collection(spec)) for spec in specs]
        )

    def collection_policy(self, spec: Collection) -> str:
        """Return the policy that says whose peers hold a collection. Raises UnknownName."""
        if spec.policy:
            return spec.policy
        members = ", ".join(f"'{self.organization(name).msp_id}.member'" for name in spec.members)
        return f"OR({members})"

    def _collection(self, spec: Collection) -> collection_pb2.StaticCollectionConfig:
        config = collection_pb2.StaticCollectionConfig(
            name=spec.name,
            required_peer_count=spec.required_peer_count,
            maximum_peer_count=spec.max_peer_count,
            block_to_live=spec.block_to_live,
            member_only_read=spec.member_only_read,
            member_only_write=spec.member_only_write,
        )
        config.member_orgs_policy.signature_policy.CopyFrom(policydsl.parse(self.collection_policy(spec)))
        if spec.endorsement_policy:
            config.endorsement_policy.signature_policy.CopyFrom(policydsl.parse(spec.endorsement_policy))
        return config

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


def _text(part: Any, field: str) -> str:
    """A text field of a part, be it made already or as read from a file; empty when it has none."""
    value = part.get(field) if isinstance(part, Mapping) else getattr(part, field, "")
    return value if isinstance(value, str) else ""


def _with_domain(part: Any, domain: str) -> Any:
    return {**part, "domain": domain} if isinstance(part, Mapping) else part.model_copy(update={"domain": domain})


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


def _organization(name: str, jurisdiction: str, role: str, clearance: str, domain: str = "") -> Organization:
    claims = {"role": role, "clearance": clearance}
    return Organization(name=name, domain=domain, jurisdiction=jurisdiction, attributes=claims)


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
        domain="guiyang.example",
        organizations=(
            _organization("Government", _CITY, "official", "core"),
            _organization("Finance", _CITY, "analyst", "important"),
            _organization("Logistics", _CITY, "operator", "important"),
            _organization(_REGULATOR, "CN-GZ", "supervisor", "core"),
            _organization("OverseasCarrier", "SG", "carrier", "general", "carrier.singapore.example"),
        ),
        ordering_organizations=tuple(
            OrderingOrganization(operator=operator) for operator in ("Government", "Finance", _REGULATOR)
        ),
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
