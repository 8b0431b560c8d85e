"""What differs between a topology and the network that runs, as steps in the order in which `apply` takes them.

    keys, authorities   organisations, nodes and users that have none
    start, serve        nodes and chaincode processes that do not run
    create              a new channel
    configure           everything in a channel's configuration that comes or changes
    admit, join         ordering nodes and peers of a channel
    deploy              chaincode definitions
    dismiss, expel      ordering nodes and organisations that go
    leave, stop         what runs for nothing any more
    record              the directory's own note of what the network is

Everything is computed from what the network says (`plan_look`), and nothing from what an earlier `apply` did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from fabric_protos.common import configtx_pb2
from fabric_protos.msp import msp_config_pb2

from sovchain.network.differences import consenter_changes, differences
from sovchain.network.genesis import channel_definition
from sovchain.network.lifecycle import agrees
from sovchain.network.material import Material, NodeCertificates, OrganizationMaterial
from sovchain.network.material_growth import lacking
from sovchain.network.plan_look import Present
from sovchain.network.runtimes import Site
from sovchain.network.topology import ChaincodeSpec, Node, Topology
from sovchain.protocol.configedit import next_configuration, read_consenters, write_consenters
from sovchain.protocol.genesis import Consenter, channel_group
from sovchain.protocol.lifecycle import ChaincodeDefinition, signature_application_policy, with_defaults

Action = Literal[
    "keys", "start", "serve", "create", "configure", "admit", "join", "deploy", "dismiss", "expel", "leave", "stop",
    "record",
]  # fmt: skip
Group = configtx_pb2.ConfigGroup

_WORDS: Final[Mapping[str, str]] = {
    "keys": "make keys and certificates of {subject}",
    "start": "start {subject}",
    "serve": "start the {subject}",
    "create": "create channel {channel}",
    "configure": "change the configuration of channel {channel}",
    "admit": "let {subject} order for channel {channel}",
    "join": "join {subject} to channel {channel}",
    "deploy": "deploy {subject} on channel {channel}",
    "dismiss": "let {subject} no longer order for channel {channel}",
    "expel": "remove {subject} from channel {channel}",
    "leave": "take channel {channel} from {subject}",
    "stop": "stop {subject}",
    "record": "note the topology in the network's directory",
}


@dataclass(frozen=True)
class Step:
    """One step: what is done, to what, on which channel ("": none), and the details of it."""

    action: Action
    subject: str = ""
    channel: str = ""
    details: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The step in words."""
        return _WORDS[self.action].format(subject=self.subject, channel=self.channel)


@dataclass(frozen=True)
class Plan:
    """The steps from the network as it is to a topology; none when it is that already."""

    steps: tuple[Step, ...]

    def as_document(self) -> list[dict[str, Any]]:
        """The steps for JSON."""
        return [{**asdict(step), "text": step.text} for step in self.steps]


@dataclass(frozen=True)
class Ground:
    """What a plan stands on: the network with all that exists and comes (`transition.union`), and where it shall go.

    `recorded` says whether the directory's note has the target and no unfinished change.
    """

    site: Site
    material: Material
    target: Topology
    recorded: bool


def make_plan(ground: Ground, present: Present) -> Plan:
    """Compute the steps. Raises ConfigError for a configuration that cannot be used."""
    steps = [*_running(ground, present)]
    middle: list[Step] = []
    end: list[Step] = []
    for channel in ground.target.channels:
        first, last = _channel(ground, present, channel.name)
        middle += first
        end += last
    steps += middle
    steps += _deployments(ground, present)
    steps += end
    steps += _leaving(ground, present)
    if steps or not ground.recorded:
        steps.append(Step("record"))
    return Plan(tuple(steps))


def _running(ground: Ground, present: Present) -> Iterator[Step]:
    target = {part.name for part in ground.target.everyone}
    for part, missing in lacking(ground.material):
        if part.organization.name in target:
            names = [holder.name for holder in missing]
            yield Step("keys", part.organization.name, details=tuple(names))
    for node in ground.target.nodes:
        if node.host not in present.answers:
            yield Step("start", node.host)
    for service in sorted(present.wanted_services - present.serving):
        yield Step("serve", service)


# Channels ------------------------------------------------------------------------------------------------------------


def wanted_group(ground: Ground, channel: str) -> Group:
    """The configuration that a channel is to have; of keys that are yet to be made only the owners' names."""
    material = _Foreseen(ground.material)
    return channel_group(channel_definition(ground.target, material, ground.site.endpoints, channel))


def first_group(current: Group, wanted: Group) -> Group:
    """The configuration in between: all that comes and changes, but those who go are still there, and the same nodes order."""
    root = Group()
    root.CopyFrom(wanted)
    for kind in ("Application", "Orderer"):
        old, new = current.groups[kind], root.groups[kind]
        for name in old.groups.keys() - new.groups.keys():
            new.groups[name].CopyFrom(old.groups[name])
    want = {(c.host, c.port): c for c in read_consenters(wanted.groups["Orderer"])}
    same = [want.get((c.host, c.port), c) for c in read_consenters(current.groups["Orderer"])]
    write_consenters(root.groups["Orderer"], same, {})
    return next_configuration(current, root)


def with_consenter(current: Group, consenter: Consenter) -> Group:
    """The current configuration with one more ordering node."""
    return _reordered(current, [*read_consenters(current.groups["Orderer"]), consenter])


def without_consenter(current: Group, place: tuple[str, int]) -> Group:
    """The current configuration without an ordering node."""
    kept = [c for c in read_consenters(current.groups["Orderer"]) if (c.host, c.port) != place]
    return _reordered(current, kept)


def _reordered(current: Group, consenters: Sequence[Consenter]) -> Group:
    root = Group()
    root.CopyFrom(current)
    write_consenters(root.groups["Orderer"], consenters, {})
    return next_configuration(current, root)


def _channel(ground: Ground, present: Present, channel: str) -> tuple[list[Step], list[Step]]:
    """The steps of a channel before chaincodes are deployed, and those after."""
    hosts = {endpoint: host for host, endpoint in ground.site.endpoints.items()}
    members = [node for part in ground.target.members(channel) for node in part.all_nodes]
    orderers = [node for part in ground.target.orderers(channel) for node in part.all_nodes]
    bundle = present.configurations.get(channel)
    if bundle is None:
        # Either there is no such channel yet, or no peer of it answers, in which case the next look tells more.
        is_made = (ground.site.directory / f"channels/{channel}.block").exists() and all(
            present.has_joined(node, channel) for node in orderers if node.host in present.answers
        )
        joins = [Step("join", node.host, channel) for node in members if not present.has_joined(node, channel)]
        return [*([] if is_made else [Step("create", channel=channel)]), *joins], []
    current, wanted = bundle.config.channel_group, wanted_group(ground, channel)
    first, last = [], []
    changes = differences(current, first_group(current, wanted))
    if changes:
        first.append(Step("configure", channel=channel, details=tuple(changes)))
    come, go = consenter_changes(current, wanted)
    for consenter in come:
        host = hosts.get((consenter.host, consenter.port), f"{consenter.host}:{consenter.port}")
        first.append(Step("admit", host, channel))
    for node in (*orderers, *members):
        if not present.has_joined(node, channel):
            first.append(Step("join", node.host, channel))
    for consenter in go:
        host = hosts.get((consenter.host, consenter.port), f"{consenter.host}:{consenter.port}")
        last.append(Step("dismiss", host, channel))
    for kind in ("Orderer", "Application"):
        for name in sorted(current.groups[kind].groups.keys() - wanted.groups[kind].groups.keys()):
            words = "ordering organisation" if kind == "Orderer" else "organisation"
            last.append(Step("expel", f"{words} {name}", channel))
    return first, last


# Chaincodes ----------------------------------------------------------------------------------------------------------


def definition_of(topology: Topology, spec: ChaincodeSpec) -> ChaincodeDefinition:
    """What a channel is to agree on for a chaincode; its sequence is found out."""
    policy = signature_application_policy(spec.endorsement_policy)
    return ChaincodeDefinition(spec.name, spec.version, 0, policy, topology.collections(spec.name))


def _deployments(ground: Ground, present: Present) -> Iterator[Step]:
    for spec in ground.target.chaincodes:
        wanted = with_defaults(definition_of(ground.target, spec))
        for channel in spec.channels:
            found = present.definitions.get((channel, spec.name))
            if found is None:
                yield Step("deploy", spec.label, channel, ("sequence 1",))
                continue
            if not agrees(found, wanted, sequence=found.sequence):
                yield Step("deploy", spec.label, channel, (f"sequence {found.sequence} becomes {found.sequence + 1}",))
                continue
            lagging = [part.msp_id for part in ground.target.members(channel) if not found.approvals.get(part.msp_id)]
            if lagging:
                yield Step("deploy", spec.label, channel, tuple(f"approval of {msp_id}" for msp_id in lagging))


# What goes -----------------------------------------------------------------------------------------------------------


def _leaving(ground: Ground, present: Present) -> Iterator[Step]:
    staying = {node.host for node in ground.target.nodes}
    known = {channel.name for channel in ground.target.channels}
    for node in ground.site.topology.nodes:
        if node.host not in present.answers or node.kind != "orderer":
            continue
        for channel in sorted(present.joined.get(node.host, frozenset()) & known):
            if (
                node.organization not in {part.name for part in ground.target.orderers(channel)}
                or node.host not in staying
            ):
                yield Step("leave", node.host, channel)
    for node in ground.site.topology.nodes:
        if node.host in present.answers and node.host not in staying:
            yield Step("stop", node.host)


class _Foreseen(Material):
    """Material in which certificates that are yet to be made are empty."""

    def __init__(self, material: Material) -> None:
        self.root = material.root
        self.organizations = {
            name: _ForeseenOrganization(part.folder, part.organization) for name, part in material.organizations.items()
        }


class _ForeseenOrganization(OrganizationMaterial):
    @property
    def msp_config(self) -> msp_config_pb2.FabricMSPConfig:
        if self.folder.exists():
            return super().msp_config
        return msp_config_pb2.FabricMSPConfig(name=self.msp_id)

    def public_node(self, host: str) -> NodeCertificates:
        if (self.folder / self.holder(host).certificate_file).exists():
            return super().public_node(host)
        # BFT asks for something here; it is never sent.
        return NodeCertificates(self.msp_id, host, b"to be made", b"to be made")


def node_of(topology: Topology, host: str) -> Node:
    """The node with a host name. Raises StopIteration for an unknown one."""
    return next(node for node in topology.nodes if node.host == host)
