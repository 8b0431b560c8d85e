"""Operating a network of real peers through the command: killed parts come back, upgrades, wrong input, no traces."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from commandline import Result, Sovchain
from fabricprograms import fabric_programs
from leftovers import left_over, ports_in_use
from load import Told, codes, load, more, wrong_outcomes
from smallnetwork import ALL, PROBE, WIDE, small_topology

from sovchain.network import Network
from sovchain.network.runtimes.processes import Supervised

pytestmark = pytest.mark.timeout(300)
DEADLINE_S = 120


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sovchain]:
    """The small network on Fabric 3.1, which the tests of this module share."""
    fabric_programs("3.1")
    folder = tmp_path_factory.mktemp("operating")
    (folder / "topology.yaml").write_text(small_topology("3.1").model_dump_json())
    sovchain = Sovchain(folder / "network")
    try:
        sovchain.ok("up", "--detach", "--runtime", "native", "--topology", folder / "topology.yaml")
        yield sovchain
    finally:
        sovchain.down()
        assert left_over(sovchain.directory) == []
        assert ports_in_use(sovchain.directory) == []


def eventually(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.2)
    return found


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own for a folder, which takes only so much."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def refused(done: Result, code: int, *words: str) -> None:
    """A command said in three lines what, why and what to do."""
    assert done.code == code, (done.code, done.out, done.err)
    assert [line.strip().split(":")[0] for line in done.err.strip().splitlines()] == ["error", "why", "do"], done.err
    for word in words:
        assert word in done.err


# -- what dies comes back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["peer0.beta", "orderer.alpha", "chaincode"])
def test_a_process_that_dies_is_started_again_and_serves(small: Sovchain, kind: str) -> None:
    def numbers() -> dict[str, int]:
        seen = small.run("status", "--json").json
        return {part.get("host") or part["name"]: part["pid"] for part in (*seen["nodes"], *seen["services"])}

    before = numbers()
    name = next(name for name in before if name.startswith(kind))
    os.kill(before[name], signal.SIGKILL)
    eventually(lambda: numbers()[name] not in (0, before[name]), f"{name} runs again")
    eventually(lambda: small.run("status").code == 0, "the network is well")
    call = ("Probe:put", f"after-{kind}", "value", "--chaincode", PROBE, "--as", "Beta")
    eventually(lambda: small.run("submit", WIDE, *call).code == 0, "a commit")


def test_a_killed_supervisor_under_load_loses_nothing(small: Sovchain) -> None:
    """Peers and ordering nodes go on, chaincode ends; the next `up` takes all of it over."""
    before = small.ok("status")

    async def disturbed() -> Told:
        told = Told()
        async with Network.attach(small.directory) as network, load(network, told):
            await more(told, 20)
            os.kill(before["pid"], signal.SIGKILL)
            await asyncio.to_thread(small.ok, "up", "--detach")
            await more(told, 20)
        return told

    told = asyncio.run(disturbed())
    after = small.ok("status")
    assert after["pid"] != before["pid"]
    assert after["channels"][WIDE]["height"] > before["channels"][WIDE]["height"]
    assert wrong_outcomes(told, codes(small.directory, WIDE)) == {}
    assert told.counts["committed"] >= 40


# -- upgrades ----------------------------------------------------------------------------------------------------------


def definition(small: Sovchain) -> dict[str, Any]:
    (found,) = [entry for entry in small.ok("status")["chaincodes"] if entry["name"] == PROBE]
    return found


def test_an_upgrade_from_another_process_keeps_the_data_and_changes_policy_and_collections(
    small: Sovchain, tmp_path: Path
) -> None:
    call = ("--chaincode", PROBE, "--as", "Alpha")
    small.ok("submit", WIDE, "Probe:put", "kept", "value", *call)
    before = definition(small)
    refused(small.run("network", "upgrade", PROBE), 2, "nothing to change")
    refused(small.run("network", "upgrade", "prob", "--version", "2.0"), 2, "unknown chaincode 'prob'")
    refused(small.run("network", "upgrade", PROBE, "--policy", "AND("), 2, "chaincodes")
    (tmp_path / "wrong.yaml").write_text("- {nam: shared}")
    refused(small.run("network", "upgrade", PROBE, "--collections", tmp_path / "wrong.yaml"), 2, "wrong.yaml")
    assert definition(small) == before

    both = "endorsement_policy: \"AND('AlphaMSP.peer', 'BetaMSP.peer')\""
    (tmp_path / "collections.yaml").write_text(f"- {{name: shared, members: [Alpha, Beta], {both}}}")
    version = f"{before['sequence'] + 1}.0"
    options = ("--version", version, "--policy", ALL, "--collections", tmp_path / "collections.yaml")
    assert small.ok("network", "upgrade", PROBE, *options)["steps"]
    after = definition(small)
    assert (after["sequence"], after["version"], after["collections"]) == (before["sequence"] + 1, version, ["shared"])
    assert set(after["approvals"].values()) == {True}
    assert small.ok("evaluate", WIDE, "Probe:get", "kept", *call)["result"] == "value"
    pair = ("--endorser", "AlphaMSP", "--endorser", "BetaMSP")
    small.ok("submit", WIDE, "Probe:put_private", "shared", "key", "--transient", "value=secret", *call, *pair)
    done = small.run("submit", WIDE, "Probe:put", "kept", "other", *call, *pair)
    assert done.code == 1
    assert "ENDORSEMENT_POLICY_FAILURE" in done.err, "two of three suffice no more"
    assert small.ok("network", "upgrade", PROBE, *options)["steps"] == [], "what is done is left"
    assert definition(small) == after


# -- wrong input -------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Sovchain:
    (tmp_path / "topology.yaml").write_text(small_topology("3.1").model_dump_json())
    return Sovchain(tmp_path / "network")


def up(network: Sovchain, *options: str) -> Result:
    topology = network.directory.with_name("topology.yaml")
    return network.run("up", "--detach", "--runtime", "native", "--topology", topology, *options)


def test_missing_programs_are_named_with_the_places_that_were_looked_in(
    directory: Sovchain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("SOVCHAIN_FABRIC_BIN", str(tmp_path / "nowhere"))
    done = up(directory)
    refused(
        done, 3, "peer and orderer of Fabric 3.1", "nowhere", "PATH", ".cache/sovchain/fabric", "SOVCHAIN_FABRIC_BIN"
    )
    assert left_over(directory.directory) == []


def test_programs_of_another_version_are_told_with_theirs(
    directory: Sovchain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = fabric_programs("2.5")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("SOVCHAIN_FABRIC_BIN", str(old.folder))
    refused(up(directory), 3, "of Fabric 3.1", f"peer {old.version}, orderer {old.version}")


def test_a_port_that_is_taken_is_named_with_its_service_and_nothing_starts(directory: Sovchain) -> None:
    fabric_programs("3.1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        topology = small_topology("3.1", ports={"fixed": {"peer0.beta.small.example/operations": port}})
        directory.directory.with_name("topology.yaml").write_text(topology.model_dump_json())
        refused(up(directory), 3, f"port {port} is in use", "peer0.beta.small.example/operations")
    assert left_over(directory.directory) == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param("channels/wide.block", "wide.block", marks=pytest.mark.long),
        pytest.param(
            "organizations/peerOrganizations/beta.small.example/peers/peer0.beta.small.example/msp/keystore/priv_sk",
            "priv_sk",
            marks=pytest.mark.long,
        ),
        ("network.json", "network.json is damaged"),
    ],
)
def test_a_half_written_directory_names_the_file(small: Sovchain, spoil: str, words: str) -> None:
    """The shared network is taken down for it, spoiled, mended, and comes up again."""
    small.down()
    path = small.directory / spoil
    content = path.read_bytes()
    path.unlink() if spoil.endswith("priv_sk") else path.write_bytes(content[: len(content) // 2])
    try:
        done = small.run("up", "--detach")
        assert done.code in (1, 3), (done.code, done.err)
        assert words in done.err
        assert "Traceback" not in done.err
        assert left_over(small.directory) == []
    finally:
        path.write_bytes(content)
        path.chmod(0o600)
    small.ok("up", "--detach")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("organizations: &a [*a]\n", "topology"),
        ("name: small\nchannels: [{name: wide, members: [Nobody]}]\n", "topology"),
    ],
)
def test_a_topology_with_a_cycle_or_an_unknown_reference_touches_nothing(
    directory: Sovchain, text: str, words: str
) -> None:
    directory.directory.with_name("topology.yaml").write_text(text)
    done = up(directory)
    assert done.code == 2
    assert words in done.err
    assert not directory.directory.exists()


@pytest.mark.parametrize(
    "command",
    [
        ("down",),
        ("plan",),
        ("network", "snapshot", "--channel", "wide"),
        ("network", "join", "--peer", "Alpha", "--snapshot", "/tmp"),
        ("network", "upgrade", "probe", "--version", "2.0"),
        ("submit", "wide", "Probe:put", "a", "b", "--as", "Alpha"),
    ],
)
def test_on_a_network_that_is_down_each_operation_says_so(directory: Sovchain, command: tuple[str, ...]) -> None:
    for _ in range(2):
        refused(directory.run(*command), 3, "is not up", "sovchain up")
        directory.directory.mkdir(exist_ok=True)  # an empty one, then


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system takes root to mount")
def test_a_disk_that_is_too_small_is_told_before_anything_starts(directory: Sovchain) -> None:
    fabric_programs("3.1")
    directory.directory.mkdir()
    with small_disk(directory.directory, "64m"):
        refused(up(directory), 3, "is too full", "MiB are free")
        assert left_over(directory.directory) == []


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system takes root to mount")
def test_a_disk_that_fills_up_loses_nothing_that_was_told(directory: Sovchain) -> None:
    """Nodes that cannot write end, and come back when there is room; no outcome that was told was wrong."""
    fabric_programs("3.1")
    directory.directory.mkdir()
    with small_disk(directory.directory, "900m"):
        assert up(directory).code == 0
        try:
            told = asyncio.run(filled(directory.directory))
        finally:
            directory.down()
        assert told.counts["committed"] >= 40
        assert wrong_outcomes(told, codes(directory.directory, WIDE)) == {}


async def filled(folder: Path) -> Told:
    """Fill the disk under load, and make room again."""
    told = Told()
    async with Network.attach(folder) as network, load(network, told):
        await more(told, 20)
        with (folder / "filling").open("wb", buffering=0) as file, suppress(OSError):
            for _ in itertools.repeat(None):
                file.write(bytes(1024 * 1024))
        await asyncio.sleep(5)  # what the nodes do without room
        (folder / "filling").unlink()
        await more(told, 20)
    return told


async def test_peers_stop_before_ordering_nodes_and_those_before_chaincodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer in the middle of a call still has its chaincode, and a transaction on its way its ordering nodes."""
    await asyncio.to_thread(fabric_programs, "3.1")
    ended: list[str] = []
    stop = Supervised.stop

    async def recorded(self: Supervised) -> None:
        await stop(self)
        ended.append(self.name)

    async with Network.up(small_topology("3.1"), "native", tmp_path / "network"):
        monkeypatch.setattr(Supervised, "stop", recorded)
    order = ["peer", "orderer", "chaincode"]
    kinds = [next((kind for kind in order[:2] if name.startswith(kind)), "chaincode") for name in ended]
    assert set(kinds) == set(order), ended
    assert kinds == sorted(kinds, key=order.index), ended
