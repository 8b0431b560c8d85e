"""The pytest plugin as a user meets it: real pytest runs in processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sovchain.network import Network, UnknownName, default_topology
from sovchain.testing import HostedNetwork, HostFailed, NotOffered
from sovchain.testing.host import _answer
from sovchain.testing.isolation import with_channels_like

EXAMPLE = Path(__file__).parents[2] / "examples" / "testing-project"

GAPS = """
from types import SimpleNamespace
import pytest
from sovchain.testing.conformance import not_implemented

@pytest.fixture(scope="session")
def conformance_network():
    return SimpleNamespace(runtime="embedded")

gap = not_implemented(runtime="embedded", reason="the gap", raises=KeyError)

@gap
def test_open(conformance_network):
    raise KeyError

@gap
def test_closed(conformance_network):
    pass

@gap
def test_changed(conformance_network):
    raise ValueError

@not_implemented(runtime="native", reason="a gap of another runtime", raises=KeyError)
def test_other(conformance_network):
    raise KeyError

def test_class(conformance_network):
    with pytest.raises(TypeError, match="onto single test functions"):
        gap(type("TestIt", (), {}))
"""


def run_pytest(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment = kept | environment
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


def project(folder: Path, test: str) -> Path:
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = ['--strict-markers']\n")
    (folder / "test_it.py").write_text(test)
    return folder


def processes_of(directory: Path) -> list[str]:
    """Command lines of the processes that run a network below a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command and ("sovchain.testing.host" in command or "sovchain.chaincode" in command):
            found.append(command)
    return found


def until(condition: object, timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    assert callable(condition)
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_the_example_project_passes_with_a_network_for_each_worker(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    done = run_pytest(folder, "-n", "2", "--basetemp", str(tmp_path / "base"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
    networks = {path.parents[2].name for path in (tmp_path / "base").glob("*/fabric*/network/network.json")}
    assert networks == {"popen-gw0", "popen-gw1"}
    assert processes_of(tmp_path) == []


def test_a_gap_is_expected_to_fail_in_its_own_way_on_its_own_runtime(tmp_path: Path) -> None:
    """Only the gap as described passes; one that closed, changed or is of another runtime fails the run."""
    done = run_pytest(project(tmp_path, GAPS), "-rA")
    outcomes = {
        line.split("::")[1].split()[0]: line.split()[0]
        for line in done.stdout.splitlines()
        if line.startswith(("PASSED", "FAILED", "XFAIL", "XPASS"))
    }
    expected = {"test_open": "XFAIL", "test_closed": "FAILED", "test_changed": "FAILED", "test_other": "FAILED"}
    assert outcomes == {**expected, "test_class": "PASSED"}
    assert "[XPASS(strict)] the gap" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_options_given_several_times_run_each_test_on_each(tmp_path: Path) -> None:
    options = [f"--fabric-runtime={runtime}" for runtime in ("embedded", "native")]
    options += ["--fabric-version=2.5", "--fabric-version=3.1", "--fabric-consensus=raft", "--fabric-consensus=bft"]
    test = "def test_a(fabric):\n    pass\n\ndef test_b(conformance_network):\n    pass\n"
    done = run_pytest(project(tmp_path, test), "--collect-only", *options)
    found = {line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line}
    assert found == {
        *(f"test_a[{runtime}-{version}]" for runtime in ("embedded", "native") for version in ("2.5", "3.1")),
        *(
            f"test_b[{runtime}-{version}-{consensus}]"
            for runtime in ("embedded", "native")
            for version in ("2.5", "3.1")
            for consensus in ("raft", "bft")
        ),
    }


def test_a_channel_marker_without_a_name_is_a_usage_error(tmp_path: Path) -> None:
    test = "import pytest\n@pytest.mark.fabric_channel\ndef test_it(fabric):\n    pass\n"
    done = run_pytest(project(tmp_path, test))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert "takes the name of the channel to be like" in done.stdout + done.stderr


def test_a_runtime_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    """With no programs on PATH nor in the cache, no runtime but the embedded one can come up."""
    test = "def test_it(fabric):\n    pass\n"
    done = run_pytest(
        project(tmp_path, test), "--fabric-runtime=native", PATH="", SOVCHAIN_FABRIC_BIN="", HOME=str(tmp_path)
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "the network did not come up on the native runtime: " in done.stdout
    assert "Traceback" not in done.stdout


def test_channels_like_another_have_its_members_and_chaincodes() -> None:
    topology = with_channels_like(default_topology(), {"logistics": 2})
    for name in ("logistics-test-1", "logistics-test-2"):
        assert topology.channel(name).members == topology.channel("logistics").members
        assert name in topology.chaincode("logistics").channels
        assert name not in topology.chaincode("finance").channels
    with pytest.raises(UnknownName):
        with_channels_like(default_topology(), {"nothing": 1})


def test_a_network_ends_when_its_holder_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from sovchain.testing import HostedNetwork\n"
        "HostedNetwork(Path(sys.argv[1])).start(); print('up', flush=True); time.sleep(100)\n"
    )
    directory = tmp_path / "network"
    holder = subprocess.Popen([sys.executable, "-c", code, directory], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "up\n"
    assert processes_of(directory)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert until(lambda: Network.status(directory).state == "down")
    assert until(lambda: processes_of(directory) == [])


def test_a_start_that_fails_says_what_why_and_what_to_do(tmp_path: Path) -> None:
    directory = tmp_path / "network"
    directory.mkdir()
    (directory / "thesis.txt").write_text("mine")
    with pytest.raises(HostFailed, match=r"thesis\.txt") as caught:
        HostedNetwork(directory).start()
    assert caught.value.kind == "DirectoryRefused"
    assert [path.name for path in directory.iterdir()] == ["thesis.txt"]


def test_a_network_of_another_process_is_neither_restarted_nor_killed(tmp_path: Path) -> None:
    network = HostedNetwork(tmp_path / "network")
    for refused in (network.restart, network.kill, lambda: network.kill_node("peer0.north.example")):
        with pytest.raises(NotOffered):
            refused()
    assert not network.directory.exists()


async def test_the_program_passes_faults_on_and_reports_what_fails() -> None:
    class Broken:
        """A network that offers faults, one of which fails."""

        def __init__(self) -> None:
            self.done: list[str] = []
            self.faults = self

        def targets(self) -> list[str]:
            return ["peer0.north.example"]

        async def kill(self, target: str) -> None:
            self.done.append(f"kill {target}")

        async def start(self, target: str) -> None:
            raise OSError(f"{target} does not start")

    network = Broken()
    command = {"do": "kill", "target": "peer0.north.example"}
    assert await _answer(network, command) == {"done": "kill"}  # type: ignore[arg-type]
    assert network.done == ["kill peer0.north.example"]
    failed = await _answer(network, {**command, "do": "start"})  # type: ignore[arg-type]
    assert failed["error"]["kind"] == "OSError"
    assert "peer0.north.example does not start" in failed["error"]["why"]


def test_a_chaincode_process_loads_no_test_tools() -> None:
    code = "import sys, sovchain.testing.conformance.chaincode; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


CLEAN = """
import pytest
from sovchain.network import default_topology

@pytest.fixture(scope="session")
def fabric_topology():
    return default_topology().model_copy(update={"chaincodes": ()})

@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_clean(fabric_clean, turn):
    async with fabric_clean.network.attach() as network:
        assert (await network.ledger.time()).shift_s == 0  # what the test before has done is undone
        await network.ledger.advance(3600)
"""


@pytest.mark.long  # a network of its own
def test_fabric_clean_undoes_what_each_test_has_done(tmp_path: Path) -> None:
    done = run_pytest(project(tmp_path, CLEAN), "-o", "asyncio_mode=auto")
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
