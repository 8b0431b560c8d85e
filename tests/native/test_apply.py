"""A network is changed while it runs, under load, and through kills at any point: embedded, and of real Fabric programs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from changes import but, change_through_kills, enough, load, put_and_get
from commandline import Sovchain
from fabric_protos.common import configtx_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from fabricprograms import VERSIONS, fabric_programs
from smallnetwork import PROBE, WIDE, small_topology

from sovchain.network import Network, SignaturesMissing, Topology, load_topology
from sovchain.network.configuration import ChannelConfiguration
from sovchain.network.material import Material
from sovchain.network.members import with_organization
from sovchain.network.runtimes import Site
from sovchain.network.runtimes.access import administered_peer
from sovchain.network.startup import ordering_nodes
from sovchain.network.topologyparts import Batch, Channel, OrderingOrganization
from sovchain.protocol.blocks import parse_block
from sovchain.protocol.channelconfig import ChannelBundle

pytestmark = pytest.mark.timeout(280)
OLDER = [pytest.param(version, marks=pytest.mark.long) for version in VERSIONS if version != "3.1"]
EVERYWHERE = ["embedded", "3.1", *OLDER]
REAL = ["3.1", pytest.param("embedded", marks=pytest.mark.long)]


async def runs_on(version: str) -> tuple[str, Topology]:
    """The runtime for a version of Fabric's programs, or of none, and a network that it can run."""
    if version != "embedded":
        await asyncio.to_thread(fabric_programs, version)
        return "native", small_topology(version)
    return "embedded", small_topology(organizations=[{"name": name} for name in ("Alpha", "Beta", "Gamma")])


@pytest.mark.parametrize("version", EVERYWHERE)
async def test_an_organisation_joins_a_running_channel_under_load_and_leaves_it(version: str, tmp_path: Path) -> None:
    """Twenty transactions a second, none of which fails, while a further organisation comes and goes."""
    runtime, topology = await runs_on(version)
    more = with_organization(topology, "Delta", [WIDE], jurisdiction="CN-GZ-520100")
    told: Counter[str] = Counter()
    async with Network.up(topology, runtime, tmp_path / "network") as network:
        assert (await network.plan()).steps == ()
        async with load(network, told):
            await enough(told, 20)
            actions = [step.action for step in (await network.apply(more)).steps]
            # On the embedded ledger all organisations share what serves the chaincodes.
            assert [action for action in actions if action != "serve"] == [
                "keys", "start", "configure", "join", "deploy", "record",
            ]  # fmt: skip
            assert (await network.apply(more)).steps == ()
            await put_and_get(network, "Delta")
            await enough(told, 20)
            gone = await network.apply(topology)
            assert [step.action for step in gone.steps] == ["configure", "expel", "stop", "record"]
            await enough(told, 20)
        assert (await network.plan()).steps == ()
    assert told == Counter({"sent": told["sent"], "committed": told["sent"]})
    assert told["sent"] >= 60


async def test_ordering_nodes_come_and_go_and_the_channel_goes_on(tmp_path: Path) -> None:
    """Raft: another organisation's node joins, then the first one's leaves; transactions commit all the time."""
    await runs_on("3.1")
    topology = small_topology()
    four = topology.model_copy(
        update={
            "organizations": with_organization(topology, "Delta", []).organizations,
            "ordering_organizations": (
                *topology.ordering_organizations,
                OrderingOrganization(operator="Delta", domain="orderer.delta.small.example"),
            ),
        }
    )
    others = four.model_copy(update={"ordering_organizations": four.ordering_organizations[1:]})
    async with Network.up(topology, "native", tmp_path / "network") as network:
        added = await network.apply(four)
        assert [step.action for step in added.steps if step.channel] == ["configure", "admit", "join"]
        await put_and_get(network, "Alpha")
        removed = await network.apply(others)
        assert [step.action for step in removed.steps] == [
            "configure", "dismiss", "expel", "leave", "stop", "record",
        ]  # fmt: skip
        await put_and_get(network, "Gamma")
        assert (await network.plan()).steps == ()


@pytest.mark.long
async def test_a_bft_node_comes_and_goes_with_its_block_policy(tmp_path: Path) -> None:
    await runs_on("3.1")
    ordering = [{"operator": name} for name in ("Alpha", "Beta", "Gamma", "Delta")]
    names = ("Alpha", "Beta", "Gamma", "Delta")
    base = small_topology(
        consensus="bft",
        organizations=[{"name": name} for name in names],
        ordering_organizations=ordering,
        channels=[{"name": WIDE, "members": names}],
    )
    five = base.model_copy(
        update={
            "organizations": with_organization(base, "Epsilon", []).organizations,
            "ordering_organizations": (
                *base.ordering_organizations,
                OrderingOrganization(operator="Epsilon", domain="orderer.epsilon.small.example"),
            ),
        }
    )
    async with Network.up(base, "native", tmp_path / "network") as network:
        await network.apply(five)
        await put_and_get(network, "Alpha")
        await network.apply(base)
        await put_and_get(network, "Beta")
        assert (await network.plan()).steps == ()


@pytest.mark.parametrize("version", REAL)
async def test_channels_nodes_settings_and_chaincodes_change_together(version: str, tmp_path: Path) -> None:
    """A new channel, a second peer, other batches, access rules and anchors, and a chaincode's next version in one go."""
    runtime, topology = await runs_on(version)
    wanted = topology if version == "embedded" else but(topology, "organizations", "Beta", peers=2)
    wanted = but(
        wanted, "channels", WIDE,
        batch=Batch(max_message_count=7), acls={"qscc/GetBlockByNumber": "Admins"}, anchor_peers={"Gamma": ()},
    )  # fmt: skip
    wanted = but(wanted, "chaincodes", PROBE, version="2.0", channels=(WIDE, "second"))
    wanted = wanted.model_copy(
        update={"channels": (*wanted.channels, Channel(name="second", members=("Alpha", "Beta", "Gamma")))}
    )
    async with Network.up(topology, runtime, tmp_path / "network") as network:
        await network.apply(wanted)
        await put_and_get(network, "Beta", "second")
        await put_and_get(network, "Gamma")
        assert (await network.plan()).steps == ()
        async with network.connect("Alpha", "Admin") as gateway:
            block = await gateway.network(WIDE).contract("cscc").evaluate("GetConfigBlock", WIDE)
            bundle = ChannelBundle.from_block(parse_block(block))
        assert bundle.batch.max_message_count == 7
        assert bundle.policy_for_acl("qscc/GetBlockByNumber") == "/Channel/Application/Admins"
    async with Network.up(directory=tmp_path / "network") as network:
        await put_and_get(network, "Alpha")
        assert (await network.plan()).steps == ()


@pytest.mark.parametrize("version", REAL)
async def test_a_change_is_signed_by_no_more_than_it_takes_and_names_who_is_missing(
    version: str, tmp_path: Path
) -> None:
    runtime, topology = await runs_on(version)

    def restrict(root: configtx_pb2.ConfigGroup) -> None:
        acls = peer_configuration_pb2.ACLs()
        acls.acls["qscc/GetBlockByNumber"].policy_ref = "/Channel/Application/Admins"
        root.groups["Application"].values["ACLs"].value = acls.SerializeToString()
        root.groups["Application"].values["ACLs"].mod_policy = "Admins"

    async with Network.up(topology, runtime, tmp_path / "network") as network, AsyncExitStack() as stack:
        site = Site(network.directory, topology, Network.status(network.directory).ports, {})
        material = Material(topology, network.directory / "organizations")
        peers = [administered_peer(site, material, part) for part in topology.members(WIDE)]
        orderers = ordering_nodes(site, material, WIDE)
        for closing in (*peers, orderers):
            stack.push_async_callback(closing.close)
        administrators = [peer.administrator for peer in peers]
        alone = ChannelConfiguration(WIDE, peers, orderers, administrators[:1])
        with pytest.raises(SignaturesMissing) as raised:
            await alone.change(restrict)
        assert raised.value.policy == "/Channel/Application/Admins"
        assert (raised.value.signed, raised.value.missing) == (("AlphaMSP",), ("BetaMSP",))
        everyone = ChannelConfiguration(WIDE, peers, orderers, administrators)
        changed = await everyone.change(restrict)
        assert (changed.sequence, changed.signers) == (1, ("AlphaMSP", "BetaMSP"))
        assert (await everyone.change(restrict)).signers == ()
        # Two changes at once: both come into force, the second computed again from the first.
        results = await asyncio.gather(everyone.change(anchors_of("Alpha")), everyone.change(anchors_of("Beta")))
        assert sorted(result.sequence for result in results) in ([2, 3], [3, 3])
        bundle, _ = await everyone.current()
        assert bundle.sequence == 3


def anchors_of(name: str) -> Callable[[configtx_pb2.ConfigGroup], None]:
    def edit(root: configtx_pb2.ConfigGroup) -> None:
        root.groups["Application"].groups[f"{name}MSP"].values.pop("AnchorPeers", None)

    return edit


@pytest.mark.parametrize(
    ("version", "rounds"),
    [("3.1", 1), *(pytest.param(version, 40, marks=pytest.mark.long) for version in ("embedded", "3.1"))],
)
@pytest.mark.timeout(900)
async def test_an_apply_that_is_killed_goes_on_where_it_stopped(version: str, rounds: int, tmp_path: Path) -> None:
    """The process that runs the network is killed after a step, then at some moment, until nothing is left to do."""
    runtime, topology = await runs_on(version)
    wanted = with_organization(topology, "Delta", [WIDE])
    wanted = but(but(wanted, "channels", WIDE, batch=Batch(max_message_count=9)), "chaincodes", PROBE, version="2.0")
    await change_through_kills(tmp_path, runtime, topology, wanted, rounds)


def test_the_commands_say_what_they_do_and_refuse_what_is_not_asked_for(tmp_path: Path) -> None:
    runtime, topology = asyncio.run(runs_on("embedded"))
    sovchain = Sovchain(tmp_path / "network")
    file, saved = tmp_path / "small.yaml", tmp_path / "saved.yaml"
    file.write_text(topology.model_dump_json())
    sovchain.ok("up", "--detach", "--runtime", runtime, "--topology", file)
    try:
        assert "nothing differs" in sovchain.run("plan").out
        added = sovchain.ok(
            "network", "add-org", "Delta", "--channel", WIDE, "--attribute", "role=clerk", "--save", saved
        )
        assert added["steps"][-1]["action"] == "record"
        assert load_topology(saved).organization("Delta").users[0].attributes == {"role": "clerk"}
        assert sovchain.run("plan", "--topology", file, "--check").code == 5
        refused = sovchain.run("apply", "--topology", file, "--json")
        assert (refused.code, refused.json["error"]["what"]) == (2, "nothing was changed")
        other = tmp_path / "other.yaml"
        other.write_text(topology.model_copy(update={"name": "other"}).model_dump_json())
        named = sovchain.run("apply", "--topology", other, "--json")
        assert named.code == 2
        assert [entry["key"] for entry in named.json["error"]["refusals"]] == ["name"]
        assert sovchain.ok("network", "remove-org", "Delta")["steps"]
        sovchain.down()
        changed = sovchain.run("up", "--topology", saved, "--json")
        assert "sovchain apply" in changed.json["error"]["do"]
    finally:
        sovchain.down()
