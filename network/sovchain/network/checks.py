"""Rules of a topology that span several of its parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

from sovchain.network.errors import TopologyError
from sovchain.network.topology import Channel, Topology
from sovchain.protocol import policies, policydsl
from sovchain.protocol.errors import ProtocolError


def check(topology: Topology) -> Topology:
    """Return the topology if its parts agree with each other.

    Raises:
        TopologyError: a name or host is used twice, a channel names an unknown organisation, an organisation has no
            administrator, a policy is malformed, names an organisation that is not on the channel, cannot be satisfied,
            or is satisfied by one organisation alone.
    """
    _unique(topology)
    for index, organization in enumerate(topology.organizations):
        if not any(user.role == "admin" for user in organization.users):
            raise TopologyError(f"organizations[{index}].users", "no user has the role admin, who installs chaincode")
    names = [organization.name for organization in topology.organizations]
    for index, ordering in enumerate(topology.ordering_organizations):
        if ordering.operator not in names:
            _unknown(f"ordering_organizations[{index}].operator", "organization", ordering.operator, names)
    for index, channel in enumerate(topology.channels):
        _check_channel(topology, channel, f"channels[{index}]")
    for index in range(len(topology.chaincodes)):
        _check_chaincode(topology, index)
    return topology


def _unique(topology: Topology) -> None:
    everyone = topology.everyone
    places = [
        *(f"organizations[{index}]" for index in range(len(topology.organizations))),
        *(f"ordering_organizations[{index}]" for index in range(len(topology.ordering_organizations))),
    ]
    hosts = [
        *(organization.peer_host for organization in topology.organizations),
        *(ordering.orderer_host for ordering in topology.ordering_organizations),
    ]
    _no_repetition([f"{place}.name" for place in places], [part.name for part in everyone])
    _no_repetition([f"{place}.msp_id" for place in places], [part.msp_id for part in everyone])
    _no_repetition([f"{place}.domain" for place in places], [part.domain for part in everyone])
    _no_repetition([f"{place}.host" for place in places], hosts)
    for place, organization in zip(places, topology.organizations, strict=False):
        # Folders of users are named after them, and some file systems do not tell capitals from small letters.
        names = [user.name.lower() for user in organization.users]
        _no_repetition([f"{place}.users[{index}].name" for index in range(len(names))], names)
    channels, chaincodes = [part.name for part in topology.channels], [part.name for part in topology.chaincodes]
    for kind, names in (("channels", channels), ("chaincodes", chaincodes)):
        _no_repetition([f"{kind}[{index}].name" for index in range(len(names))], names)


def _no_repetition(keys: Sequence[str], values: Iterable[str]) -> None:
    first: dict[str, str] = {}
    for key, value in zip(keys, values, strict=True):
        if value in first:
            raise TopologyError(key, f"{value!r} is used already at {first[value]}", remedy="give each its own")
        first[value] = key


def _unknown(key: str, kind: str, name: str, known: Sequence[str]) -> None:
    raise TopologyError(key, f"there is no {kind} {name!r}", allowed=sorted(known))


def _check_channel(topology: Topology, channel: Channel, key: str) -> None:
    organizations = [organization.name for organization in topology.organizations]
    orderers = [ordering.name for ordering in topology.ordering_organizations]
    for kind, names, known in (("members", channel.members, organizations), ("orderers", channel.orderers, orderers)):
        keys = [f"{key}.{kind}[{index}]" for index in range(len(names))]
        for place, name in zip(keys, names, strict=True):
            if name not in known:
                _unknown(place, "organization" if kind == "members" else "ordering organization", name, known)
        _no_repetition(keys, names)
    if channel.regulator and channel.regulator not in channel.members:
        _unknown(f"{key}.regulator", "member", channel.regulator, channel.members)
    if channel.batch.preferred_max_bytes > channel.batch.absolute_max_bytes:
        raise TopologyError(f"{key}.batch.preferred_max_bytes", "it is larger than absolute_max_bytes")
    members = [organization.msp_id for organization in topology.members(channel.name)]
    _check_policy(f"{key}.lifecycle_endorsement", topology.lifecycle_endorsement(channel.name), members)
    _check_policy(f"{key}.admins", topology.admins(channel.name), members)
    ordering = topology.orderers(channel.name)
    operators = {orderer.msp_id: orderer.operator for orderer in ordering}
    _check_policy(f"{key}.orderer_admins", topology.orderer_admins(channel.name), list(operators), operators)


def _check_chaincode(topology: Topology, index: int) -> None:
    key, chaincode = f"chaincodes[{index}]", topology.chaincodes[index]
    known = [channel.name for channel in topology.channels]
    keys = [f"{key}.channels[{place}]" for place in range(len(chaincode.channels))]
    for place, name in zip(keys, chaincode.channels, strict=True):
        if name not in known:
            _unknown(place, "channel", name, known)
    _no_repetition(keys, chaincode.channels)
    for name in chaincode.channels:
        members = [organization.msp_id for organization in topology.members(name)]
        _check_policy(f"{key}.endorsement_policy", chaincode.endorsement_policy, members)


def _check_policy(key: str, text: str, members: Sequence[str], owners: dict[str, str] | None = None) -> None:
    """Refuse a policy that is malformed, speaks of others than the members, or that one owner satisfies alone.

    `owners` maps an MSP id to the organisation behind it where that is not the MSP itself.
    """
    try:
        envelope = policydsl.parse(text)
    except ProtocolError as error:
        raise TopologyError(key, f"the policy cannot be read: {error}", remedy="correct the policy") from None
    for msp_id in _named_in(envelope):
        if msp_id not in members:
            _unknown(key, "MSP on the channel called", msp_id, members)
    minimal = policies.satisfying_organisations(envelope)
    if not minimal:
        raise TopologyError(key, "nobody can satisfy the policy", remedy="ask for fewer signatures")
    for group in minimal:
        behind = {(owners or {}).get(msp_id, msp_id) for msp_id in group}
        if len(behind) < 2:
            who = next(iter(behind), "nobody")
            raise TopologyError(
                key, f"one organisation alone satisfies the policy: {who}", remedy="ask for two or more organisations"
            )


def _named_in(envelope: policies_pb2.SignaturePolicyEnvelope) -> list[str]:
    """Return the MSP ids that a policy's principals name."""
    found = []
    for principal in envelope.identities:
        if principal.principal_classification == msp_principal_pb2.MSPPrincipal.ROLE:
            found.append(msp_principal_pb2.MSPRole.FromString(principal.principal).msp_identifier)
    return found
