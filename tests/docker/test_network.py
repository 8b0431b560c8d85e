"""What a network in containers is allowed to do, says, keeps to itself and survives."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commandline import Sovchain
from dockerimages import containers_of, docker, left_over
from leaksearch import search

from sovchain.network import Network
from sovchain.network.runtimes.compose import project_name

pytestmark = pytest.mark.timeout(240)

PEER = "peer0_finance_guiyang_example"
CHAINCODE = "chaincode.Finance"
KILL_PYTHON = (
    "import os, pathlib, signal\n"
    "for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
    "    if b'sovchain.chaincode' in path.read_bytes() and path.parent.name not in ('1', str(os.getpid())):\n"
    "        os.kill(int(path.parent.name), signal.SIGKILL)\n"
)


@pytest.fixture
def inspected(network: Sovchain) -> dict[str, dict[str, Any]]:
    """What the engine says of each container, by its service."""
    found = containers_of(network.directory)
    documents = json.loads(docker("inspect", *found.values()))
    return dict(zip(found, documents, strict=True))


def until(condition: Callable[[], bool], timeout_s: float = 30) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_every_container_is_confined(network: Sovchain, inspected: dict[str, dict[str, Any]]) -> None:
    topology = Network.status(network.directory).topology
    assert topology is not None
    assert len(inspected) == len(topology.nodes) + len(topology.organizations)
    for service, found in inspected.items():
        rights, user = found["HostConfig"], found["Config"]["User"]
        assert user.partition(":")[0] not in ("", "0", "root"), service
        assert rights["ReadonlyRootfs"], service
        assert rights["CapDrop"] == ["ALL"], service
        assert rights["SecurityOpt"] == ["no-new-privileges:true"], service
        assert not rights["Privileged"], service
        assert 0 < rights["Memory"] <= 2**30, service
        assert 0 < rights["PidsLimit"] <= 512, service
        for mounted in found["Mounts"]:
            assert "docker.sock" not in mounted["Source"], service
            assert mounted["RW"] == (mounted["Type"] == "volume"), (service, mounted)
        assert all(mounted.get("Name", "").startswith("sovchain-") for mounted in _volumes(found)), service


def _volumes(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [mounted for mounted in found["Mounts"] if mounted["Type"] == "volume"]


def test_ports_are_published_on_the_loopback_address_only(
    network: Sovchain, inspected: dict[str, dict[str, Any]]
) -> None:
    """And the chaincodes, which hold no port, are on the network without a way out alone."""
    ports = set(Network.status(network.directory).ports.values())
    for service, found in inspected.items():
        published = [entry for entries in found["HostConfig"]["PortBindings"].values() for entry in entries]
        assert all(entry["HostIp"] == "127.0.0.1" for entry in published), service
        assert {int(entry["HostPort"]) for entry in published} <= ports
        networks = {name.rpartition("_")[2] for name in found["NetworkSettings"]["Networks"]}
        assert networks == ({"nodes"} if service.startswith("chaincode") else {"nodes", "access"})
        assert bool(published) == (not service.startswith("chaincode"))
    assert (
        docker("network", "inspect", "--format", "{{.Internal}}", f"{project_name(network.directory)}_nodes") == "true"
    )


def test_a_container_holds_the_keys_of_its_own_node_only(
    network: Sovchain, inspected: dict[str, dict[str, Any]]
) -> None:
    for service, found in inspected.items():
        folders = [Path(mounted["Source"]) for mounted in found["Mounts"] if mounted["Type"] == "bind"]
        for folder in folders:
            assert folder.is_relative_to(network.directory), (service, folder)
            keys = list(folder.rglob("*_sk")) + list(folder.rglob("*.key")) if folder.is_dir() else []
            if service.startswith("chaincode"):
                assert keys == [], service
            assert all(service in str(key).replace(".", "_") for key in keys), (service, keys)


def test_nodes_reach_each_other_by_name_and_their_networks_lead_nowhere_else(network: Sovchain) -> None:
    found = containers_of(network.directory)
    orderer = "orderer.government.guiyang.example"
    port = Network.status(network.directory).ports[orderer]
    docker("exec", found[PEER], "bash", "-c", f"exec 3<>/dev/tcp/{orderer}/{port}")
    form = "{{json .Options}}"
    options = json.loads(docker("network", "inspect", "--format", form, f"{project_name(network.directory)}_access"))
    assert options["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert options["com.docker.network.bridge.enable_icc"] == "false"


def test_the_health_checks_pass_and_fail(inspected: dict[str, dict[str, Any]]) -> None:
    for service in (PEER, "orderer_finance_guiyang_example", CHAINCODE):
        found = inspected[service]
        test = found["Config"]["Healthcheck"]["Test"]
        assert test[0] == "CMD"
        docker("exec", found["Id"], *test[1:])
    shell = inspected[PEER]["Config"]["Healthcheck"]["Test"][1:]
    nobody = [*shell[:2], shell[2].replace("/tcp/127.0.0.1/", "/tcp/127.0.0.1/1")]
    with pytest.raises(AssertionError):
        docker("exec", inspected[PEER]["Id"], *nobody)


def test_what_nodes_say_is_in_the_logs_folder(network: Sovchain) -> None:
    for host in ("peer0.finance.guiyang.example", "orderer.finance.guiyang.example"):
        lines = (network.directory / f"logs/{host}.log").read_text().splitlines()
        said = [json.loads(line)["msg"] for line in lines if line.startswith("{")]
        assert len(said) > len(lines) / 2, "a node's first words are no JSON; all others are"
        assert any("finance" in text for text in said)
    assert "listening" in (network.directory / "logs/chaincode-Finance.log").read_text()


def test_a_chaincode_that_dies_is_started_again(network: Sovchain) -> None:
    container = containers_of(network.directory)[CHAINCODE]
    # The container may have ended before the program that killed it could say so.
    kill = ["docker", "exec", container, "/usr/local/bin/python3", "-c", KILL_PYTHON]
    assert subprocess.run(kill, capture_output=True, timeout=60, check=False).returncode in (0, 137)
    form = "{{.RestartCount}} {{.State.Running}}"
    assert until(lambda: docker("inspect", "--format", form, container) == "1 true")
    arguments = ("evaluate", "finance", "Registry:seats", "--as", "Finance", "--endorser", "FinanceMSP")
    assert until(lambda: network.run(*arguments).code == 0)


def test_a_planted_marker_is_in_the_parties_private_stores_only(network: Sovchain, tmp_path: Path) -> None:
    """Block files, logs and state databases of all peers and ordering nodes are searched."""
    search(network, tmp_path)


@pytest.mark.long
def test_a_killed_supervisor_leaves_what_the_next_start_takes_up(network: Sovchain) -> None:
    before = network.ok("status")
    network.kill()
    assert len(containers_of(network.directory)) == 13, "containers go on"
    done = network.run("up", "--detach", timeout_s=120)
    assert done.code == 0, done.err
    after = network.ok("status")
    assert after["runtime"] == "docker"
    for name, channel in before["channels"].items():
        assert after["channels"][name]["height"] >= channel["height"]
    assert network.run("audit", "verify").code == 0


def test_down_after_a_kill_removes_what_was_left(network: Sovchain) -> None:
    """The last test of this module: what is committed is still there at the next start."""
    network.kill()
    assert network.run("down").code == 3, "no process runs it"
    assert left_over(network.directory) == []
    assert network.run("audit", "verify").code == 0
