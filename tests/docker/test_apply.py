"""A network in containers is changed while it runs: what works is not touched, and nothing of what goes is left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from changes import but, change_through_kills, enough, load, put_and_get
from dockerimages import containers_of, docker, left_over
from smallnetwork import PROBE, TWO_OF_THREE, WIDE, small_topology

from sovchain.network import Network, Topology
from sovchain.network.lifecycle import Administration
from sovchain.network.material import Material
from sovchain.network.members import with_organization
from sovchain.network.runtimes import Site
from sovchain.network.runtimes.access import administered_peer
from sovchain.network.runtimes.compose import project_name
from sovchain.network.topology import ChaincodeSpec
from sovchain.network.topologyparts import Batch

pytestmark = [pytest.mark.timeout(600), pytest.mark.long, pytest.mark.usefixtures("engine")]
SECOND = "second"


def volumes_of(directory: Path) -> set[str]:
    label = f"label=com.docker.compose.project={project_name(directory)}"
    return set(docker("volume", "ls", "--quiet", "--filter", label).split())


async def packages_of(network: Network) -> frozenset[str]:
    """The packages on Beta's first peer."""
    topology = network.topology
    site = Site(network.directory, topology, Network.status(network.directory).ports, {})
    material = Material(topology, network.directory / "organizations")
    peer = administered_peer(site, material, topology.organization("Beta"))
    try:
        return await Administration(peer).installed()
    finally:
        await peer.close()


async def test_an_organisation_comes_and_goes_under_load(tmp_path: Path) -> None:
    """Twenty transactions a second, none of which fails; no container that worked is made anew, started or stopped."""
    directory, topology = tmp_path / "network", small_topology()
    more = with_organization(topology, "Delta", [WIDE], jurisdiction="CN-GZ-520100")
    told: Counter[str] = Counter()
    async with Network.up(topology, "docker", directory) as network:
        assert (await network.plan()).steps == ()
        containers, volumes = containers_of(directory), volumes_of(directory)
        started = docker("inspect", "--format", "{{.State.StartedAt}}", *containers.values())
        async with load(network, told):
            await enough(told, 20)
            actions = [step.action for step in (await network.apply(more)).steps]
            assert actions == ["keys", "start", "serve", "configure", "join", "deploy", "record"]
            assert (await network.apply(more)).steps == ()
            grown = containers_of(directory)
            assert grown.keys() - containers.keys() == {"peer0_delta_small_example", "chaincode.Delta"}
            assert containers.items() <= grown.items()
            await put_and_get(network, "Delta")
            await enough(told, 20)
            gone = await network.apply(topology)
            assert [step.action for step in gone.steps] == ["configure", "expel", "stop", "record"]
            await enough(told, 20)
        assert (await network.plan()).steps == ()
        assert (containers_of(directory), volumes_of(directory)) == (containers, volumes)
        assert docker("inspect", "--format", "{{.State.StartedAt}}", *containers.values()) == started
    assert told == Counter({"sent": told["sent"], "committed": told["sent"]})
    assert told["sent"] >= 60
    assert left_over(directory) == []


def grown(topology: Topology) -> Topology:
    """A further peer, the next version of a chaincode, and another chaincode."""
    wanted = but(but(topology, "organizations", "Beta", peers=2), "chaincodes", PROBE, version="2.0")
    module = "sovchain.testing.conformance.chaincode:chaincode"
    another = ChaincodeSpec(name=SECOND, module=module, channels=(WIDE,), endorsement_policy=TWO_OF_THREE)
    return wanted.model_copy(update={"chaincodes": (*wanted.chaincodes, another)})


async def test_chaincodes_come_in_containers_of_their_own_and_stay_what_they_are(tmp_path: Path) -> None:
    """The old version's container ends with it; after a restart one container serves all, and no package is another one."""
    directory, topology = tmp_path / "network", small_topology()
    wanted = grown(topology)
    async with Network.up(topology, "docker", directory) as network:
        await network.apply(wanted)
        there = {name for name in containers_of(directory) if name.startswith("chaincode.Beta")}
        assert there == {"chaincode.Beta.probe_2.0"}
        await put_and_get(network, "Beta")
        assert all(service.answers for service in (await network.observe()).services)
        docker("kill", containers_of(directory)["chaincode.Beta.probe_2.0"])
        assert [step.text for step in (await network.plan()).steps][:2] == [
            "start the chaincode probe of Beta", "start the chaincode second of Beta",
        ]  # fmt: skip
        await network.apply()
        await put_and_get(network, "Beta")
        packages = await packages_of(network)
        assert {package.partition(":")[0] for package in packages} == {"probe_1.0", "probe_2.0", "second_1.0"}
    async with Network.up(directory=directory) as network:
        await put_and_get(network, "Beta")
        assert {name for name in containers_of(directory) if name.startswith("chaincode.Beta")} == {"chaincode.Beta"}
        assert await packages_of(network) == packages
        assert (await network.plan()).steps == ()


async def test_an_apply_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The network's process is killed after a step, then at some moments; its containers go on, `up` finds them."""
    topology = small_topology()
    wanted = with_organization(topology, "Delta", [WIDE])
    wanted = but(but(wanted, "channels", WIDE, batch=Batch(max_message_count=9)), "chaincodes", PROBE, version="2.0")
    await change_through_kills(tmp_path, "docker", topology, wanted, 6)
    assert left_over(tmp_path / "network") == []
