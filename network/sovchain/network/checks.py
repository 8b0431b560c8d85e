"""Rules of a topology that span several of its parts, and what no operator wants.

Each rule has a name, which a `TopologyProblem` carries:

    unknown-name       a name that no part of the topology has
    twice              a name, MSP id, domain, host or user that is used twice
    look-alike         two names that people take for one another (may be set aside)
    missing            no domain, no administrator
    too-long           a common name beyond what a certificate can hold
    policy             a policy that cannot be read, that nobody can satisfy, or that names somebody who is not there
    sole-policy        a policy that decides about a channel and that one organisation satisfies alone
    ordering-majority  one organisation holds so many ordering nodes of a channel that it rules them (may be set aside)
    bft-nodes          BFT with fewer than four ordering nodes
    version            a capability or consensus that the Fabric version does not have
    timing             times that contradict each other
    batch              sizes of blocks that contradict each other
    ports              two services on one port, or ports beyond the last one
    acl                an access rule for an unknown resource or policy
    collection         a private data collection that Fabric refuses or that can never be written

A topology sets a rule aside by naming it in `accept`; only those marked so can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, get_args

from sovchain.network.errors import TopologyError, TopologyProblem
from sovchain.network.policychecks import policy_problems
from sovchain.network.ports import service_names
from sovchain.network.topology import AnyOrganization, Channel, Organization, Overridable, Topology
from sovchain.protocol.channelconfig import DEFAULT_ACLS

OVERRIDABLE: Final[frozenset[str]] = frozenset(get_args(Overridable))
"""Rules that a topology may set aside with `accept`."""
COMMON_NAME_MAX: Final = 64
"""Limit of a common name in a certificate (X.520, ub-common-name)."""
BFT_NODES_MIN: Final = 4

_APPLICATION_POLICIES: Final = ("Admins", "Endorsement", "LifecycleEndorsement", "Readers", "Writers")
_ALIKE: Final = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "-": None, "_": None, ".": None})

Problems = Iterator[TopologyProblem]


def check(topology: Topology) -> Topology:
    """Return the topology if its parts agree with each other and no rule is broken that is not set aside.

    Raises TopologyError with all problems.
    """
    found = problems(topology)
    if found:
        raise TopologyError.of(found)
    return topology


def problems(topology: Topology) -> list[TopologyProblem]:
    """Return all problems of a topology but those that it accepts.

    What names that are unknown or used twice lead to cannot be judged; so other rules apply once the names are right.
    """
    basic = [*_names(topology), *_references(topology)]
    further = () if any(problem.rule not in OVERRIDABLE for problem in basic) else _judged(topology)
    return [problem for problem in (*basic, *further) if problem.rule not in topology.accept]


def _judged(topology: Topology) -> Problems:
    yield from _timing(topology)
    yield from _ports(topology)
    for index, channel in enumerate(topology.channels):
        key = f"channels[{index}]"
        yield from _versions(topology, channel, key)
        yield from _ordering(topology, channel, key)
        yield from _acls(channel, key)
        if channel.regulator in channel.read_only or set(channel.members) <= set(channel.read_only):
            yield TopologyProblem(
                f"{key}.read_only", "a channel's regulator, and one member at least, send transactions", "leave it out",
                rule="read-only",
            )  # fmt: skip
        if channel.batch.preferred_max_bytes > channel.batch.absolute_max_bytes:
            yield TopologyProblem(
                f"{key}.batch.preferred_max_bytes", "it is larger than absolute_max_bytes", "make it smaller",
                rule="batch",
            )  # fmt: skip
    yield from policy_problems(topology)


# Names ---------------------------------------------------------------------------------------------------------------


def _places(topology: Topology) -> list[tuple[str, AnyOrganization]]:
    return [
        *((f"organizations[{index}]", part) for index, part in enumerate(topology.organizations)),
        *((f"ordering_organizations[{index}]", part) for index, part in enumerate(topology.ordering_organizations)),
    ]


def _names(topology: Topology) -> Problems:
    places = _places(topology)
    for place, part in places:
        yield from _own_names(place, part)
    complete = [(place, part) for place, part in places if part.domain]
    for field, chosen in (("name", places), ("msp_id", places), ("domain", complete)):
        values = [(f"{place}.{field}", str(getattr(part, field))) for place, part in chosen]
        yield from _repeated(values)
        yield from _alike(values)
    domains = Counter(part.domain for _, part in complete)
    single = [(place, part) for place, part in complete if domains[part.domain] == 1]
    yield from _repeated(
        [
            (f"{place}.domain" if isinstance(part, Organization) else f"{place}.host", node.host)
            for place, part in single
            for node in part.all_nodes
        ]
    )
    for kind, names in (
        ("channels", [channel.name for channel in topology.channels]),
        ("chaincodes", [chaincode.name for chaincode in topology.chaincodes]),
    ):
        values = [(f"{kind}[{index}].name", name) for index, name in enumerate(names)]
        yield from _repeated(values)
        yield from _alike(values)


def _own_names(place: str, part: AnyOrganization) -> Problems:
    if not part.domain:
        yield TopologyProblem(
            f"{place}.domain",
            "there is no domain",
            "give it one here, or give the network one (domain)",
            rule="missing",
        )
        return
    users = [user.name for user in part.users] if isinstance(part, Organization) else ["Admin"]
    if isinstance(part, Organization):
        if not any(user.role == "admin" for user in part.users):
            yield TopologyProblem(
                f"{place}.users", "no user has the role admin, who installs chaincode", "add one", rule="missing"
            )
        # Folders of users are named after them, and some file systems do not tell capitals from small letters.
        yield from _repeated([(f"{place}.users[{index}].name", name.lower()) for index, name in enumerate(users)])
    common = [(f"{place}.users[{index}].name", f"{name}@{part.domain}") for index, name in enumerate(users)]
    hosts = [(f"{place}.domain", node.host) for node in part.all_nodes]
    for key, name in (*common, *hosts):
        if len(name) > COMMON_NAME_MAX:
            yield TopologyProblem(
                key, f"{name} has {len(name)} characters, and a certificate's name has at most {COMMON_NAME_MAX}",
                "choose a shorter name or domain", rule="too-long",
            )  # fmt: skip


def _repeated(values: Sequence[tuple[str, str]], rule: str = "twice") -> Problems:
    first: dict[str, str] = {}
    for key, value in values:
        if value in first:
            yield TopologyProblem(key, f"{value!r} is used already at {first[value]}", "give each its own", rule=rule)
        first.setdefault(value, key)


def _alike(values: Sequence[tuple[str, str]]) -> Problems:
    """Names that differ only in what people overlook: capitals, hyphens and dots, 0 and o, 1 and l and i, rn and m."""
    first: dict[str, tuple[str, str]] = {}
    for key, value in values:
        skeleton = value.lower().translate(_ALIKE).replace("rn", "m").replace("vv", "w")
        other, name = first.setdefault(skeleton, (key, value))
        if name != value:
            yield TopologyProblem(
                key, f"{value!r} is easily taken for {name!r} at {other}",
                "choose another name, or name the rule look-alike in accept", rule="look-alike",
            )  # fmt: skip


# References ----------------------------------------------------------------------------------------------------------


def _unknown(key: str, kind: str, name: str, known: Iterable[str]) -> TopologyProblem:
    return TopologyProblem(
        key, f"there is no {kind} {name!r}", "use a known name", tuple(sorted(known)), rule="unknown-name"
    )


def _each_known(key: str, kind: str, names: Sequence[str], known: Sequence[str]) -> Problems:
    for index, name in enumerate(names):
        if name not in known:
            yield _unknown(f"{key}[{index}]", kind, name, known)
    yield from _repeated([(f"{key}[{index}]", name) for index, name in enumerate(names)])


def _references(topology: Topology) -> Problems:
    organizations = [part.name for part in topology.organizations]
    orderers = [part.name for part in topology.ordering_organizations]
    for index, ordering in enumerate(topology.ordering_organizations):
        if ordering.operator not in organizations:
            yield _unknown(
                f"ordering_organizations[{index}].operator", "organization", ordering.operator, organizations
            )
    for index, channel in enumerate(topology.channels):
        key = f"channels[{index}]"
        yield from _each_known(f"{key}.members", "organization", channel.members, organizations)
        yield from _each_known(f"{key}.orderers", "ordering organization", channel.orderers, orderers)
        if channel.regulator and channel.regulator not in channel.members:
            yield _unknown(f"{key}.regulator", "member", channel.regulator, channel.members)
        yield from _each_known(f"{key}.read_only", "member", channel.read_only, channel.members)
        yield from _anchors(topology, channel, f"{key}.anchor_peers")
    channels = [channel.name for channel in topology.channels]
    for index, chaincode in enumerate(topology.chaincodes):
        key = f"chaincodes[{index}]"
        yield from _each_known(f"{key}.channels", "channel", chaincode.channels, channels)
        for number, collection in enumerate(chaincode.collections):
            place = f"{key}.collections[{number}].members"
            yield from _each_known(place, "organization", collection.members, organizations)
        names = [(f"{key}.collections[{number}].name", part.name) for number, part in enumerate(chaincode.collections)]
        yield from _repeated(names)


def _anchors(topology: Topology, channel: Channel, key: str) -> Problems:
    for name, hosts in channel.anchor_peers.items():
        if name not in channel.members:
            yield _unknown(f"{key}.{name}", "member", name, channel.members)
            continue
        known = [node.host for part in topology.organizations if part.name == name for node in part.all_nodes]
        if known:
            yield from _each_known(f"{key}.{name}", f"peer of {name} called", hosts, known)


# Consensus, versions, ports ------------------------------------------------------------------------------------------


def _timing(topology: Topology) -> Problems:
    """What etcdraft (orderer/consensus/etcdraft/util.go) and SmartBFT (pkg/types/config.go) refuse to start with."""
    raft, bft = topology.raft, topology.bft
    pairs = (
        ("raft.heartbeat_ticks", raft.heartbeat_ticks, "raft.election_ticks", raft.election_ticks - 1),
        ("bft.forward_ms", bft.forward_ms, "bft.complain_ms", bft.complain_ms),
        ("bft.complain_ms", bft.complain_ms, "bft.auto_remove_ms", bft.auto_remove_ms),
        ("bft.view_change_resend_ms", bft.view_change_resend_ms, "bft.view_change_ms", bft.view_change_ms),
    )
    for key, value, other, limit in pairs:
        if key.startswith(topology.consensus) and value > limit:
            yield TopologyProblem(
                key, f"{value} is too large for {other}", f"make it at most {limit}, or {other} larger", rule="timing"
            )


def _versions(topology: Topology, channel: Channel, key: str) -> Problems:
    capability = topology.capabilities(channel.name).channel
    if topology.fabric_version == "2.5" and capability == "V3_0":
        yield TopologyProblem(
            f"{key}.capabilities.channel", "Fabric 2.5 does not have V3_0", "leave it out", ("V2_0",), rule="version"
        )
    elif topology.consensus == "bft" and capability != "V3_0":
        at = f"{key}.capabilities.channel" if channel.capabilities else "consensus"
        yield TopologyProblem(
            at, f"channel {channel.name} has the capability {capability}, and BFT needs V3_0",
            "use Fabric 3.1 with its own capabilities, or raft", rule="version",
        )  # fmt: skip


def _ordering(topology: Topology, channel: Channel, key: str) -> Problems:
    shares: Counter[str] = Counter()
    for part in topology.orderers(channel.name):
        shares[part.operator] += part.nodes
    total, bft = shares.total(), topology.consensus == "bft"
    at = f"{key}.orderers" if channel.orderers else "ordering_organizations"
    if bft and total < BFT_NODES_MIN:
        yield TopologyProblem(
            at, f"channel {channel.name} has {total} ordering nodes, and BFT tolerates no liar with fewer than 4",
            "add ordering nodes (nodes) or organisations, or use raft", rule="bft-nodes",
        )  # fmt: skip
        return
    # A majority decides in Raft; in BFT whoever holds a third breaks what the others rely on.
    tolerated = (total - 1) // 3 if bft else total // 2
    for operator, count in shares.items():
        if count > tolerated:
            yield TopologyProblem(
                at,
                f"{operator} runs {count} of the {total} ordering nodes of channel {channel.name}, and rules them with "
                f"more than {tolerated}",
                "let others run ordering nodes, or name the rule ordering-majority in accept",
                rule="ordering-majority",
            )


def _ports(topology: Topology) -> Problems:
    known = service_names(topology)
    for service in topology.ports.fixed:
        # What chaincode services are called is the runtime's.
        if service not in known and not service.startswith("chaincode "):
            yield _unknown(f"ports.fixed.{service}", "service", service, known)
    numbers: Mapping[str, int] = topology.ports.fixed
    yield from _repeated([(f"ports.fixed.{service}", str(number)) for service, number in numbers.items()], "ports")
    base, count = topology.ports.base, len(set(known) - numbers.keys())
    if base is not None and base + count - 1 > 65535:
        yield TopologyProblem(
            "ports.base", f"{count} services from {base} on go beyond the last port, 65535", f"use {65536 - count} or less",
            rule="ports",
        )  # fmt: skip


def _acls(channel: Channel, key: str) -> Problems:
    for resource, policy in channel.acls.items():
        if resource not in DEFAULT_ACLS:
            yield TopologyProblem(
                f"{key}.acls.{resource}", f"there is no resource {resource!r}", "use a known one",
                tuple(sorted(DEFAULT_ACLS)), rule="acl",
            )  # fmt: skip
        if policy not in _APPLICATION_POLICIES and not policy.startswith("/Channel/"):
            yield TopologyProblem(
                f"{key}.acls.{resource}", f"there is no policy {policy!r}", "use a known one, or a path below /Channel",
                _APPLICATION_POLICIES, rule="acl",
            )  # fmt: skip
