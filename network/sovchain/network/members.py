"""A topology with one organisation more or less: the short forms of a change. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sovchain.network.errors import TopologyError, UnknownName
from sovchain.network.topology import Channel, Organization, Topology


def with_organization(
    topology: Topology,
    name: str,
    channels: Sequence[str],
    *,
    jurisdiction: str = "",
    domain: str = "",
    peers: int = 1,
    attributes: Mapping[str, str] | None = None,
) -> Topology:
    """Return the topology with an organisation on channels; one that it has already joins the further channels.

    Raises UnknownName for a channel that it does not have, TopologyError for a name that cannot be one.
    """
    for channel in channels:
        topology.channel(channel)
    known = {part.name for part in topology.organizations}
    document = topology.model_dump(mode="json")
    if name not in known:
        part = {"name": name, "jurisdiction": jurisdiction, "domain": domain, "peers": peers}
        document["organizations"] = [*document["organizations"], {**part, "attributes": dict(attributes or {})}]
    for channel in document["channels"]:
        if channel["name"] in channels and name not in channel["members"]:
            channel["members"] = [*channel["members"], name]
    return _read(document)


def without_organization(topology: Topology, name: str, channels: Collection[str] = ()) -> Topology:
    """Return the topology without an organisation: on some channels, or without `channels` altogether.

    Raises UnknownName. Policies that name the organisation are the topology's to change first; `checks` says which.
    """
    topology.organization(name)
    for channel in channels:
        if name not in topology.channel(channel).members:
            raise UnknownName("member", name, topology.channel(channel).members)
    altogether = not channels

    def reduced(channel: Channel) -> Channel:
        if not altogether and channel.name not in channels:
            return channel
        members = tuple(member for member in channel.members if member != name)
        anchors = {member: hosts for member, hosts in channel.anchor_peers.items() if member != name}
        return channel.model_copy(update={"members": members, "anchor_peers": anchors})

    update: dict[str, object] = {"channels": tuple(reduced(channel) for channel in topology.channels)}
    if altogether:
        kept: tuple[Organization, ...] = tuple(part for part in topology.organizations if part.name != name)
        update["organizations"] = kept
    return topology.model_copy(update=update)


def _read(document: Mapping[str, object]) -> Topology:
    from pydantic import ValidationError

    try:
        return Topology.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TopologyError(key, str(first["msg"]).lower(), remedy="give another value") from None
