"""Whatever topology passes the checks can be written, read back, and turned into blocks that Fabric's rules read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fabric_protos.common import common_pb2, policies_pb2
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sovchain.network.checks import problems
from sovchain.network.genesis import genesis_blocks, loopback_endpoints
from sovchain.network.material import Material
from sovchain.network.ports import allocate, service_names
from sovchain.network.topology import Topology
from sovchain.network.topologyfile import parse_topology
from sovchain.network.topologywriter import to_yaml
from sovchain.protocol.channelconfig import ChannelBundle

NAMES = ("Alpha", "Beta", "Gamma", "Delta", "Yes", "No", "Null")
NOW = datetime.now(UTC)

texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff"), max_size=12)
attributes = st.dictionaries(st.sampled_from(["role", "clearance", "on", "x.y"]), texts, max_size=3)


@st.composite
def users(draw: st.DrawFn) -> list[dict[str, Any]]:
    further = draw(st.lists(st.sampled_from(["User1", "clerk", "1e3", "0x1f"]), unique=True, max_size=2))
    names = [{"name": "Admin", "role": "admin"}, *({"name": name} for name in further)]
    return [user | {"attributes": draw(attributes)} for user in names]


@st.composite
def organizations(draw: st.DrawFn, name: str) -> dict[str, Any]:
    part: dict[str, Any] = {"name": name, "peers": draw(st.integers(1, 2))}
    optional: list[tuple[str, Callable[[], Any]]] = [
        ("users", lambda: draw(users())),
        ("attributes", lambda: draw(attributes)),
        ("jurisdiction", lambda: draw(st.sampled_from(["NO", "CN-GZ-520100"]))),
        ("msp_id", lambda: f"{name}.1"),
        ("domain", lambda: f"{name.lower()}.elsewhere.example"),
    ]
    return part | {key: value() for key, value in optional if draw(st.booleans())}


@st.composite
def channels(draw: st.DrawFn, name: str, members: list[str], orderers: list[str], bft: bool) -> dict[str, Any]:
    chosen = draw(st.lists(st.sampled_from(members), unique=True, min_size=2))
    return {
        "name": name,
        "members": chosen,
        "orderers": [] if bft or draw(st.booleans()) else draw(st.permutations(orderers))[:2],
        "regulator": draw(st.sampled_from([None, *chosen[1:]])),
        "read_only": draw(st.sampled_from([[], chosen[:1]])),
        "batch": {"timeout_s": draw(st.floats(0.001, 60)), "max_message_count": draw(st.integers(1, 1000))},
        "anchor_peers": {one: [] for one in draw(st.lists(st.sampled_from(chosen), unique=True))},
        "acls": draw(st.sampled_from([{}, {"qscc/GetChainInfo": "Writers", "event/Block": "/Channel/Readers"}])),
        "capabilities": None if bft else draw(st.sampled_from([None, {"channel": "V2_0", "application": "V2_0"}])),
    }


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=2, max_size=4))
    operators = draw(st.lists(st.sampled_from(names), unique=True, min_size=2))
    orderers = [f"{name}Orderer" for name in operators]
    nodes = [draw(st.integers(1, 2)) for _ in operators]
    # What the lint refuses is not drawn; a share that is too large remains, and `assume` leaves it out.
    bft = sum(nodes) >= 4 and draw(st.booleans())
    document: dict[str, Any] = {
        "name": draw(st.sampled_from(["net", "No", "y"])),
        "domain": "net.example",
        "fabric_version": "3.1" if bft else draw(st.sampled_from(["2.5", "3.1", 3.1])),
        "consensus": "bft" if bft else "raft",
        "organizations": [draw(organizations(name)) for name in names],
        "ordering_organizations": [
            {"operator": name, "nodes": count} for name, count in zip(operators, nodes, strict=True)
        ],
        "channels": [
            draw(channels(name, names, orderers, bft)) for name in ("one", "n0", "yes")[: draw(st.integers(1, 3))]
        ],
        "ports": draw(st.sampled_from([{}, {"base": 20_000}, {"fixed": {"chaincode a, instance A": 20_000}}])),
        "accept": draw(st.sampled_from([["ordering-majority"], []])),
    }
    found = Topology.model_validate(document)
    assume(problems(found) == [])
    return found


@settings(max_examples=60, deadline=None)
@given(topologies(), st.booleans())
def test_a_topology_that_passes_survives_being_written_and_read(topology: Topology, full: bool) -> None:
    assert parse_topology(to_yaml(topology, full=full)) == topology
    assert Topology.model_validate_json(topology.model_dump_json()) == topology


@settings(max_examples=15, deadline=None)
@given(topologies())
def test_a_topology_that_passes_yields_blocks_that_the_reader_accepts(topology: Topology) -> None:
    with tempfile.TemporaryDirectory() as folder:
        material = Material.create(topology, Path(folder) / "organizations", NOW)
        ports = allocate(service_names(topology), 20_000, {}, topology.ports.fixed)
        assert len(set(ports.values())) == len(ports)
        blocks = genesis_blocks(topology, material, loopback_endpoints(topology, ports), Path(folder) / "channels", NOW)
    assert list(blocks) == [channel.name for channel in topology.channels]
    for name, content in blocks.items():
        bundle = ChannelBundle.from_block(common_pb2.Block.FromString(content))
        assert bundle.channel_id == name
        assert set(bundle.application_msp_ids) == {part.msp_id for part in topology.members(name)}
        assert set(bundle.orderer_msp_ids) == {part.msp_id for part in topology.orderers(name)}
        assert bundle.consensus_type == {"raft": "etcdraft", "bft": "BFT"}[topology.consensus]
        assert bundle.capabilities["Channel"] == {topology.capabilities(name).channel}
        nodes = [node for part in topology.orderers(name) for node in part.all_nodes]
        policy = bundle.config.channel_group.groups["Orderer"].policies["BlockValidation"].policy
        if topology.consensus == "bft":
            envelope = policies_pb2.SignaturePolicyEnvelope.FromString(policy.value)
            assert len(envelope.identities) == len(nodes)
            # Two such groups have more than the liars in common.
            assert 2 * envelope.rule.n_out_of.n > len(nodes) + (len(nodes) - 1) // 3
        else:
            assert policy.type == policies_pb2.Policy.IMPLICIT_META
