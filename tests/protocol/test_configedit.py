"""From any set of ordering nodes to any other, each configuration on the way differs by one node at most."""

from __future__ import annotations

import pytest
from fabric_protos.common import configtx_pb2, configuration_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_world import World

from sovchain.protocol.channelconfig import (
    BftSettings,
    ChannelDefinition,
    Consenter,
    OrganizationDefinition,
    RaftSettings,
)
from sovchain.protocol.configdelta import NothingChanges, compute_update
from sovchain.protocol.configedit import keep_equal, next_configuration, read_consenters
from sovchain.protocol.configrules import check_bft
from sovchain.protocol.errors import ConfigError
from sovchain.protocol.genesis import channel_group, msp_config


def consenter(number: int, certificate: int = 0) -> Consenter:
    name = f"node{number}-{certificate}".encode()
    return Consenter("localhost", 7000 + number, name, name, "OrdererMSP", name)


def root(numbers: list[tuple[int, int]], *, bft: bool, extra: bool = False) -> configtx_pb2.ConfigGroup:
    organizations = [OrganizationDefinition("OrdererMSP", msp_config("OrdererMSP", [b"r"]), orderer_endpoints=["h:1"])]
    if extra:
        organizations.append(
            OrganizationDefinition("OtherMSP", msp_config("OtherMSP", [b"o"]), orderer_endpoints=["h:2"])
        )
    definition = ChannelDefinition(
        channel_id="c",
        application=[OrganizationDefinition("AMSP", msp_config("AMSP", [b"a"]))],
        orderers=organizations,
        consenters=[consenter(*entry) for entry in numbers],
        consensus=BftSettings() if bft else RaftSettings(),
    )
    return channel_group(definition)


def places(group: configtx_pb2.ConfigGroup) -> dict[tuple[str, int], bytes]:
    return {(c.host, c.port): c.server_tls_cert for c in read_consenters(group.groups["Orderer"])}


NODES = st.dictionaries(st.integers(1, 7), st.integers(0, 1), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(have=NODES, want=NODES, bft=st.booleans())
def test_each_step_changes_one_ordering_node_and_the_last_changes_nothing(
    have: dict[int, int], want: dict[int, int], bft: bool
) -> None:
    current, wanted = root(sorted(have.items()), bft=bft), root(sorted(want.items()), bft=bft)
    numbers: dict[tuple[str, int], int] = {}
    for _ in range(30):
        following = next_configuration(current, wanted)
        before, after = places(current), places(following)
        changed = {place for place in before.keys() | after.keys() if before.get(place) != after.get(place)}
        assert len(changed) <= 1
        if bft:
            check_bft(following.groups["Orderer"])
            members = configuration_pb2.Orderers.FromString(following.groups["Orderer"].values["Orderers"].value)
            ids = {(c.host, c.port): c.id for c in members.consenter_mapping}
            assert len(set(ids.values())) == len(ids)
            assert all(ids[place] == number for place, number in numbers.items() if place in ids)
            numbers = ids
        try:
            config = [configtx_pb2.Config(channel_group=group) for group in (current, following)]
            compute_update("c", *config)
        except NothingChanges:
            break
        current = following
    assert places(current) == places(wanted)


def test_an_ordering_organisation_stays_until_its_nodes_are_gone() -> None:
    current, wanted = root([(1, 0), (2, 0), (3, 0)], bft=False, extra=True), root([(1, 0)], bft=False)
    seen = []
    for _ in range(3):
        current = next_configuration(current, wanted)
        seen.append((len(places(current)), sorted(current.groups["Orderer"].groups)))
    assert seen == [(2, ["OrdererMSP", "OtherMSP"]), (1, ["OrdererMSP"]), (1, ["OrdererMSP"])]


def test_another_consensus_is_refused() -> None:
    with pytest.raises(ConfigError, match="the consensus is etcdraft and cannot become BFT"):
        next_configuration(root([(1, 0)], bft=False), root([(1, 0)], bft=True))


def test_what_another_program_has_encoded_otherwise_is_no_change(world: World) -> None:
    """Fields of a message may stand in any order; the bytes that are in force are kept."""
    current, wanted = configtx_pb2.ConfigGroup(), configtx_pb2.ConfigGroup()
    current.CopyFrom(world.bundle.config.channel_group)
    wanted.CopyFrom(current)
    value = current.groups["Orderer"].values["BatchSize"]
    size = orderer_configuration_pb2.BatchSize.FromString(value.value)
    parts = [
        orderer_configuration_pb2.BatchSize(**{name: getattr(size, name)}).SerializeToString()
        for name in ("preferred_max_bytes", "max_message_count", "absolute_max_bytes")
    ]
    value.value = b"".join(parts)
    assert value.value != wanted.groups["Orderer"].values["BatchSize"].value
    keep_equal(current, wanted)
    assert wanted == current
