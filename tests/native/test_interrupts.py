"""A start that is interrupted at any step leaves nothing running, and the next one goes on to the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commandline import Sovchain
from fabricprograms import fabric_programs
from leftovers import left_over, ports_in_use
from smallnetwork import PROBE, WIDE, small_topology

from sovchain.network.startup import step_count

pytestmark = pytest.mark.timeout(300)
DEADLINE_S = 60


@pytest.fixture
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sovchain]:
    """A directory for the small network; nothing of it runs afterwards."""
    (tmp_path / "topology.yaml").write_text(small_topology(request.param).model_dump_json())
    sovchain = Sovchain(tmp_path / "network")
    yield sovchain
    sovchain.down()
    assert left_over(sovchain.directory) == []
    assert ports_in_use(sovchain.directory) == []


def starting(network: Sovchain, *options: str) -> subprocess.Popen[str]:
    topology = network.directory.with_name("topology.yaml")
    return subprocess.Popen(
        [sys.executable, "-m", "sovchain.cli", "up", "--runtime", "native", "--dir", str(network.directory),
         "--topology", str(topology), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def steps(network: Sovchain) -> int:
    """How many steps the start under way has ended, from the network's own log."""
    log = network.directory / "logs/network.log"
    text = log.read_text() if log.exists() else ""
    return sum(json.loads(line)["event"] == "started" for line in text.splitlines(keepends=True) if line.endswith("\n"))


def begun(network: Sovchain) -> bool:
    """Whether a start has taken the directory: before, an interrupt ends a program that has done nothing."""
    return (network.directory / "run/state.json").exists()


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.long
@pytest.mark.parametrize("network", ["2.5", "3.1"], indirect=True)
def test_an_interrupt_after_each_step_leaves_nothing_and_the_next_start_goes_on(network: Sovchain) -> None:
    topology = small_topology()
    fabric_programs(json.loads(network.directory.with_name("topology.yaml").read_text())["fabric_version"])
    for step in range(step_count(topology, "")):
        before = steps(network)
        process = starting(network)
        until(lambda wanted=before + step: begun(network) and steps(network) >= wanted, process)  # type: ignore[misc]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
        # In the last step the network can be up before the signal comes: then it has come up and gone down in order.
        assert process.returncode == 130 or "up:" in out, (step, out, err)
        assert process.returncode == 0 or "the start was interrupted" in err
        assert left_over(network.directory) == []
        assert ports_in_use(network.directory) == []
    network.ok("up", "--detach")
    network.ok("submit", WIDE, "Probe:put", "key", "value", "--chaincode", PROBE, "--as", "Alpha")
    seen = network.ok("status")
    assert seen["channels"][WIDE]["agreement"] == "same"
    assert {entry["sequence"] for entry in seen["chaincodes"]} == {1}, "what was done before was not done again"


@pytest.mark.parametrize("network", ["3.1"], indirect=True)
@pytest.mark.parametrize("means", ["interrupt", "down"])
def test_a_start_in_the_background_ends_when_it_is_told_to(network: Sovchain, means: str) -> None:
    fabric_programs("3.1")
    process = starting(network, "--detach")
    until(lambda: steps(network) >= 3, process)
    if means == "interrupt":
        process.send_signal(signal.SIGINT)
    else:
        assert network.run("down").code == 0
    _, err = process.communicate(timeout=DEADLINE_S)
    # The start may have ended by itself before `down` got there.
    assert (process.returncode == 130 and "interrupted" in err) or (means == "down" and process.returncode == 0)
    assert network.run("status").code == 3
    assert left_over(network.directory) == []
