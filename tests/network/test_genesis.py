"""The channels' first blocks hold what the topology says, and no organisation rules a channel alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2

from sovchain.network import default_topology
from sovchain.network.genesis import genesis_blocks, loopback_endpoints
from sovchain.network.material import Material
from sovchain.network.ports import allocate, service_names
from sovchain.network.topology import Topology
from sovchain.protocol.channelconfig import (
    BftSettings,
    ChannelBundle,
    ChannelDefinition,
    Consenter,
    OrganizationDefinition,
    genesis_block,
    msp_config,
)
from sovchain.protocol.errors import ConfigError
from sovchain.protocol.genesis import bft_block_validation, bft_consenters
from sovchain.protocol.identity import parse_identity, serialize_identity

TOPOLOGY = default_topology()
NOW = datetime.now(UTC)
CHANNELS = [channel.name for channel in TOPOLOGY.channels]

# Policies that a single organisation satisfies, and why that is as it must be.
EXCEPTIONS = {
    "/Channel/Readers": "every member reads its channel",
    "/Channel/Writers": "every member may propose and send transactions; endorsement decides whether they are valid",
    "/Channel/Application/Readers": "every member reads its channel",
    "/Channel/Application/Writers": "every member may propose and send transactions; endorsement decides whether they are valid",
    "/Channel/Orderer/Readers": "every ordering organisation reads the channel that it orders",
    "/Channel/Orderer/Writers": "every ordering organisation may send transactions; endorsement decides whether they are valid",
    "/Channel/Orderer/BlockValidation": "with Raft one node signs each block; a block that is not the majority's is not followed",
}  # fmt: skip
# Below an organisation's own group: its reading, writing, administration and endorsement are its own. Among other things its
# endorsement guards its implicit collection, whose data concern nobody else and whose hashes all members check.
OWN = {"Readers", "Writers", "Admins", "Endorsement"}


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    hosts = [part.peer_host for part in TOPOLOGY.organizations]
    hosts += [part.orderer_host for part in TOPOLOGY.ordering_organizations]
    return {host: 20000 + index for index, host in enumerate(hosts)}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material.create(TOPOLOGY, tmp_path_factory.mktemp("genesis") / "organizations", NOW)


@pytest.fixture(scope="module")
def blocks(
    material: Material, ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, common_pb2.Block]:
    made = genesis_blocks(
        TOPOLOGY, material, loopback_endpoints(TOPOLOGY, ports), tmp_path_factory.mktemp("channels"), NOW
    )
    return {name: common_pb2.Block.FromString(content) for name, content in made.items()}


def policy_paths(group: configtx_pb2.ConfigGroup, path: str = "/Channel") -> list[str]:
    found = [f"{path}/{name}" for name in group.policies]
    for name in group.groups:
        found += policy_paths(group.groups[name], f"{path}/{name}")
    return found


@pytest.mark.parametrize("channel", CHANNELS)
def test_no_organisation_alone_satisfies_a_policy_that_is_not_a_listed_exception(
    blocks: dict[str, common_pb2.Block], channel: str
) -> None:
    bundle = ChannelBundle.from_block(blocks[channel])
    paths = policy_paths(bundle.config.channel_group)
    assert len(paths) > 20
    operators = {part.msp_id: part.operator for part in TOPOLOGY.ordering_organizations}
    operators |= {part.msp_id: part.name for part in TOPOLOGY.organizations}
    single, judged = set(), 0
    for path in paths:
        group, _, name = path.rpartition("/")
        owner = group.rpartition("/")[2]
        minimal = bundle.policies.satisfying_organisations(path)
        assert minimal, path
        if owner in operators:
            assert name in OWN, path
            assert minimal == {frozenset({owner})}, path
            continue
        judged += 1
        # An organisation's peers and its ordering node are in the same hands.
        if any(len({operators[msp_id] for msp_id in group_}) < 2 for group_ in minimal):
            single.add(path)
    assert judged >= 11
    assert single <= EXCEPTIONS.keys()
    assert {"/Channel/Application/Admins", "/Channel/Application/LifecycleEndorsement", "/Channel/Admins"} <= set(paths)


@pytest.mark.parametrize("channel", CHANNELS)
def test_nothing_about_a_channel_changes_without_the_regulator(
    blocks: dict[str, common_pb2.Block], channel: str
) -> None:
    policies = ChannelBundle.from_block(blocks[channel]).policies
    regulator = {"SupervisorMSP", "SupervisorOrdererMSP"}
    for path in (
        "/Channel/Admins",
        "/Channel/Application/Admins",
        "/Channel/Application/LifecycleEndorsement",
        "/Channel/Application/Endorsement",
        "/Channel/Orderer/Admins",
    ):
        assert all(regulator & group for group in policies.satisfying_organisations(path)), path


@pytest.mark.parametrize("channel", CHANNELS)
def test_members_orderers_and_batches_are_those_of_the_topology(
    blocks: dict[str, common_pb2.Block], channel: str
) -> None:
    bundle = ChannelBundle.from_block(blocks[channel])
    assert bundle.channel_id == channel
    assert set(bundle.application_msp_ids) == {part.msp_id for part in TOPOLOGY.members(channel)}
    assert set(bundle.orderer_msp_ids) == {part.msp_id for part in TOPOLOGY.ordering_organizations}
    assert (bundle.batch.max_message_count, bundle.batch.timeout_s) == (500, 0.02)
    assert bundle.capabilities["Channel"] == {"V3_0"}


def test_the_channel_knows_the_identities_of_its_members_and_no_others(
    blocks: dict[str, common_pb2.Block], material: Material
) -> None:
    bundle = ChannelBundle.from_block(blocks["finance"])
    for name in ("Finance", "Supervisor"):
        part = material.organization(name)
        bundle.msps.validate(parse_identity(serialize_identity(part.msp_id, part.user("User1").certificate_pem)))
    assert "LogisticsMSP" not in bundle.msps.msp_ids


def test_a_stored_block_is_used_again(material: Material, ports: dict[str, int], tmp_path: Path) -> None:
    first = genesis_blocks(TOPOLOGY, material, loopback_endpoints(TOPOLOGY, ports), tmp_path, NOW)
    assert genesis_blocks(TOPOLOGY, material, loopback_endpoints(TOPOLOGY, ports), tmp_path, datetime.now(UTC)) == first
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.block" for name in CHANNELS}
    (tmp_path / "finance.block").unlink()
    again = genesis_blocks(TOPOLOGY, material, loopback_endpoints(TOPOLOGY, ports), tmp_path, NOW)
    assert again["finance"] != first["finance"]
    assert again["logistics"] == first["logistics"]


def test_a_bft_block_names_its_nodes_and_asks_for_a_quorum_of_them(tmp_path: Path) -> None:
    """As configtxgen writes it: options, numbered nodes, and a policy over their identities in the same order."""
    document = TOPOLOGY.model_dump(mode="json") | {"consensus": "bft", "bft": {"complain_ms": 4000}}
    document["ordering_organizations"][0]["nodes"] = 2
    network = Topology.model_validate(document)
    material = Material.create(network, tmp_path / "organizations", NOW)
    ports = allocate(service_names(network), 20000, {})
    block = common_pb2.Block.FromString(
        genesis_blocks(network, material, loopback_endpoints(network, ports), tmp_path / "channels", NOW)["finance"]
    )
    orderer = ChannelBundle.from_block(block).config.channel_group.groups["Orderer"]
    kind = orderer_configuration_pb2.ConsensusType.FromString(orderer.values["ConsensusType"].value)
    options = smartbft_pb2.Options.FromString(kind.metadata)
    assert kind.type == "BFT"
    assert (options.request_complain_timeout, options.request_batch_max_interval) == ("4000ms", "20ms")
    assert options.leader_rotation == smartbft_pb2.Options.ROTATION_OFF
    nodes = configuration_pb2.Orderers.FromString(orderer.values["Orderers"].value).consenter_mapping
    assert [node.id for node in nodes] == [1, 2, 3, 4]
    assert [node.port for node in nodes] == [ports[node.host] for node in network.nodes if node.kind == "orderer"]
    assert [node.msp_id for node in nodes].count("GovernmentOrdererMSP") == 2
    policy = policies_pb2.SignaturePolicyEnvelope.FromString(orderer.policies["BlockValidation"].policy.value)
    assert policy.rule.n_out_of.n == 3
    assert [rule.signed_by for rule in policy.rule.n_out_of.rules] == [0, 1, 2, 3]
    assert [principal.principal for principal in policy.identities] == [
        serialize_identity(node.msp_id, node.identity) for node in nodes
    ]


@pytest.mark.parametrize(("nodes", "quorum"), [(4, 3), (5, 4), (6, 4), (7, 5), (10, 7)])
def test_the_quorum_is_fabrics(nodes: int, quorum: int) -> None:
    """ceil((n + f + 1) / 2) with f = (n - 1) // 3 (ComputeBFTQuorum in common/policies/bft.go)."""
    consenters = [configuration_pb2.Consenter(msp_id="MSP", identity=b"x") for _ in range(nodes)]
    assert bft_block_validation(consenters).rule.n_out_of.n == quorum


def test_bft_without_its_capability_or_identities_is_refused() -> None:
    node = Consenter("host", 1, b"", b"")
    with pytest.raises(ConfigError, match="identity"):
        bft_consenters([node])
    part = OrganizationDefinition("MSP", msp_config("MSP", [b"root"]))
    definition = ChannelDefinition("c", [part], [part], [node], fabric_version="2.5", consensus=BftSettings())
    with pytest.raises(ConfigError, match="V3_0"):
        genesis_block(definition, timestamp=NOW, nonce=bytes(24))
