"""From one topology to another while the network runs: what cannot be changed so, and what exists in between. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from sovchain.network.errors import ChangesRefused, Refusal
from sovchain.network.topology import (
    AnyOrganization,
    ChaincodeSpec,
    Channel,
    OrderingOrganization,
    Organization,
    Topology,
)

_Part = TypeVar("_Part", bound=Organization | OrderingOrganization)

_NEW_NETWORK: Final = "bring up another network in an empty directory"
_LASTING: Final = {
    "name": ("a network keeps its name", _NEW_NETWORK),
    "fabric_version": (
        "the nodes run programs of one release",
        "take the network down, and bring it up in an empty directory with the other release",
    ),
    "consensus": (
        "moving a channel to another consensus takes maintenance mode and a restart of all ordering nodes",
        _NEW_NETWORK,
    ),
    "state_database": ("peers keep their state in the database that they were made with", _NEW_NETWORK),
}
"""Fields of a topology that a running network keeps: why, and what to do."""
_OF_ORGANIZATION: Final = {
    "msp_id": "every signature on the ledger names it",
    "domain": "its certificates and the hosts of its nodes have it",
    "certificate_authority": "its certificates come from there",
}
_OTHER_NAME: Final = "add an organisation with another name, then remove this one"


def check_changes(old: Topology, new: Topology) -> None:
    """Raise ChangesRefused for what a running network does not take, with what to do instead."""
    refusals = list(_refusals(old, new))
    if refusals:
        raise ChangesRefused(refusals)


def _refusals(old: Topology, new: Topology) -> Iterator[Refusal]:
    for field, (why, remedy) in _LASTING.items():
        if getattr(old, field) != getattr(new, field):
            yield Refusal(field, f"it is {getattr(old, field)}, and {why}", remedy)
    yield from _organizations(old, new)
    for channel in old.channels:
        if channel.name not in {other.name for other in new.channels}:
            yield Refusal(
                f"channels.{channel.name}", "a channel is a ledger, and a ledger is not taken back",
                "leave the channel in the topology",
            )  # fmt: skip
    yield from _chaincodes(old, new)
    if new.ports.base != old.ports.base:
        yield Refusal("ports.base", f"it is {old.ports.base}, and the nodes listen already", "leave it as it is")
    for service, port in old.ports.fixed.items():
        if new.ports.fixed.get(service, port) != port:
            yield Refusal(f"ports.fixed.{service}", f"it is {port}, and the node listens already", "leave it as it is")


def _organizations(old: Topology, new: Topology) -> Iterator[Refusal]:
    known: dict[str, AnyOrganization] = {part.name: part for part in new.everyone}
    for part in old.everyone:
        other = known.get(part.name)
        if other is None:
            continue
        key = f"organizations.{part.name}" if isinstance(part, Organization) else f"ordering_organizations.{part.name}"
        for field, why in _OF_ORGANIZATION.items():
            if getattr(part, field) != getattr(other, field):
                yield Refusal(f"{key}.{field}", f"it is {getattr(part, field)}, and {why}", _OTHER_NAME)
        if isinstance(part, Organization) and isinstance(other, Organization):
            yield from _users(key, part, other)
        elif part.all_nodes[0].host != other.all_nodes[0].host:
            yield Refusal(f"{key}.host", f"it is {part.all_nodes[0].host}, and its certificates name it", _OTHER_NAME)


def _users(key: str, old: Organization, new: Organization) -> Iterator[Refusal]:
    known = {user.name: user for user in new.users}
    for user in old.users:
        other = known.get(user.name, user)
        if (user.role, dict(user.attributes)) != (other.role, dict(other.attributes)):
            yield Refusal(
                f"{key}.users.{user.name}", "role and attributes stand in the certificate that the user has",
                "add a user of another name, and revoke this one's certificate",
            )  # fmt: skip


def _chaincodes(old: Topology, new: Topology) -> Iterator[Refusal]:
    known = {spec.name: spec for spec in new.chaincodes}
    for spec in old.chaincodes:
        key, other = f"chaincodes.{spec.name}", known.get(spec.name)
        if other is None:
            yield Refusal(key, "a ledger keeps its chaincodes", "leave the chaincode in the topology")
            continue
        gone = sorted(set(spec.channels) - set(other.channels))
        if gone:
            yield Refusal(f"{key}.channels", f"channel {gone[0]} keeps its chaincode", "leave the channel in the list")
        if spec.version == other.version and (spec.module, spec.runs) != (other.module, other.runs):
            yield Refusal(
                f"{key}.module", f"the organisations have agreed on {spec.module} as version {spec.version}",
                "give the chaincode a new version",
            )  # fmt: skip
        collections = {collection.name: collection for collection in other.collections}
        for collection in spec.collections:
            following = collections.get(collection.name)
            if following is None:
                why, remedy = "Fabric keeps the collections of a definition", "leave the collection in the list"
                yield Refusal(f"{key}.collections.{collection.name}", why, remedy)
            elif following.block_to_live != collection.block_to_live:
                why = f"it is {collection.block_to_live}, and Fabric does not change it"
                yield Refusal(f"{key}.collections.{collection.name}.block_to_live", why, "add another collection")


def union(old: Topology, new: Topology) -> Topology:
    """Everything that exists while `old` becomes `new`: the nodes, members and chaincode versions of both.

    Where both have a part, it is the new one, with the nodes and users of both. A chaincode that changes its version
    stands there twice, the old one first; so this is no topology that `checks` would take.
    """
    return new.model_copy(
        update={
            "organizations": _merged(old.organizations, new.organizations),
            "ordering_organizations": _merged(old.ordering_organizations, new.ordering_organizations),
            "channels": _channels(old, new),
            "chaincodes": _versions(old.chaincodes, new.chaincodes),
        }
    )


def resting(old: Topology, new: Topology) -> Topology:
    """What to run when the way from `old` to `new` was interrupted: all nodes, on the channels as they were.

    Nodes that have joined more channels already keep those by themselves.
    """
    channels = tuple(
        channel.model_copy(update={"orderers": tuple(part.name for part in old.orderers(channel.name))})
        for channel in old.channels
    )
    names = {channel.name for channel in channels}
    changed = [
        spec.model_copy(update={"channels": tuple(name for name in spec.channels if name in names)})
        for spec in new.chaincodes
    ]
    return union(old, new).model_copy(
        update={
            "channels": channels,
            "chaincodes": _versions(old.chaincodes, [spec for spec in changed if spec.channels]),
        }
    )


def _merged(old: Sequence[_Part], new: Sequence[_Part]) -> tuple[_Part, ...]:
    before = {part.name: part for part in old}
    kept = [_both(before[part.name], part) if part.name in before else part for part in new]
    names = {part.name for part in new}
    return (*kept, *(part for part in old if part.name not in names))


def _both(old: _Part, new: _Part) -> _Part:
    if isinstance(old, Organization) and isinstance(new, Organization):
        names = {user.name for user in new.users}
        users = (*new.users, *(user for user in old.users if user.name not in names))
        return new.model_copy(update={"peers": max(old.peers, new.peers), "users": users})
    if isinstance(old, OrderingOrganization) and isinstance(new, OrderingOrganization):
        return new.model_copy(update={"nodes": max(old.nodes, new.nodes)})
    return new


def _channels(old: Topology, new: Topology) -> tuple[Channel, ...]:
    before = {channel.name: channel for channel in old.channels}
    found = []
    for channel in new.channels:
        orderers = [part.name for part in new.orderers(channel.name)]
        members = list(channel.members)
        if channel.name in before:
            members += before[channel.name].members
            orderers += [part.name for part in old.orderers(channel.name)]
        update = {"members": tuple(dict.fromkeys(members)), "orderers": tuple(dict.fromkeys(orderers))}
        found.append(channel.model_copy(update=update))
    return tuple(found)


def _versions(old: Sequence[ChaincodeSpec], new: Sequence[ChaincodeSpec]) -> tuple[ChaincodeSpec, ...]:
    """The chaincodes of both; one of the same version as it is in `new`."""
    current = {spec.label: spec for spec in new}
    before = [current.get(spec.label, spec) for spec in old]
    labels = {spec.label for spec in before}
    return (*before, *(spec for spec in new if spec.label not in labels))
