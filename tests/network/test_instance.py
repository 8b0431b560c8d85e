"""A directory is taken by one process at a time, and only if it is empty or a network's of this version."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sovchain.network import (
    AlreadyUp,
    DirectoryRefused,
    InstanceDamaged,
    Network,
    NotUp,
    TopologyChanged,
    VersionMismatch,
    default_topology,
)
from sovchain.network.instance import FORMAT, open_instance, read_status, running
from sovchain.network.topology import ChaincodeSpec

TOPOLOGY = default_topology()
HOLDER = """
import sys
from pathlib import Path
from sovchain.network.instance import open_instance
with open_instance(Path(sys.argv[1])) as instance:
    instance.mark("up")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "network"


def hold(directory: Path) -> subprocess.Popen[str]:
    """Start a process that holds the directory until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def described(directory: Path) -> None:
    with open_instance(directory) as instance:
        instance.describe(TOPOLOGY, "embedded", {"peer0.finance.guiyang.example": 20001})


def test_a_new_directory_is_made_for_its_owner_only(directory: Path) -> None:
    described(directory)
    for path in [directory, *directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_is_described_is_read_back(directory: Path) -> None:
    described(directory)
    with open_instance(directory) as instance:
        assert instance.description is not None
        assert instance.description.topology == TOPOLOGY
        assert instance.description.ports == {"peer0.finance.guiyang.example": 20001}
        assert instance.description.format == FORMAT


def test_another_process_is_refused_with_the_number_of_the_first(directory: Path) -> None:
    described(directory)
    holder = hold(directory)
    try:
        with pytest.raises(AlreadyUp) as caught, open_instance(directory):
            pass
        assert caught.value.pid == holder.pid
        assert str(holder.pid) in str(caught.value)
        status = read_status(directory)
        assert (status.state, status.pid, status.runtime) == ("up", holder.pid, "embedded")
        assert running(directory).topology == TOPOLOGY
    finally:
        holder.communicate()
    assert read_status(directory).state == "down"


def test_what_a_killed_process_left_is_not_taken_for_a_running_network(directory: Path) -> None:
    described(directory)
    holder = hold(directory)
    holder.kill()
    holder.wait()
    assert (directory / "run/state.json").exists()
    assert (read_status(directory).state, read_status(directory).pid) == ("down", 0)
    with pytest.raises(NotUp):
        running(directory)
    with open_instance(directory) as instance:
        assert read_status(directory).pid == os.getpid()
        assert instance.description is not None


def test_many_who_ask_for_the_status_do_not_keep_a_network_from_starting(directory: Path) -> None:
    described(directory)
    code = "import sys; from pathlib import Path; from sovchain.network.instance import read_status\n"
    code += "[read_status(Path(sys.argv[1])) for _ in range(300)]"
    asking = subprocess.Popen([sys.executable, "-c", code, directory])
    for _ in range(100):
        with open_instance(directory):
            pass
    assert asking.wait() == 0


@pytest.mark.parametrize("found", [0, FORMAT + 1, "1", None])
def test_another_format_version_is_refused_and_nothing_touched(directory: Path, found: object) -> None:
    directory.mkdir()
    file = directory / "network.json"
    file.write_text(json.dumps({"format": found}))
    with pytest.raises(VersionMismatch) as caught, open_instance(directory):
        pass
    assert (caught.value.found, caught.value.supported) == (found, FORMAT)
    assert list(directory.iterdir()) == [file]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}'])
def test_a_damaged_description_is_named(directory: Path, content: str) -> None:
    directory.mkdir()
    (directory / "network.json").write_text(content)
    with pytest.raises((InstanceDamaged, VersionMismatch)), open_instance(directory):
        pass


def test_a_directory_with_something_else_is_refused_and_nothing_touched(directory: Path) -> None:
    directory.mkdir()
    (directory / "thesis.txt").write_text("mine")
    with pytest.raises(DirectoryRefused, match=r"thesis\.txt"), open_instance(directory):
        pass
    assert [path.name for path in directory.iterdir()] == ["thesis.txt"]
    with pytest.raises(DirectoryRefused, match="not a directory"), open_instance(directory / "thesis.txt"):
        pass


def test_a_start_that_was_interrupted_before_the_description_can_be_repeated(directory: Path) -> None:
    with open_instance(directory):
        (directory / ".unfinished-12345678-network.json").write_text("{")
        (directory / ".unfinished-12345678-organizations").mkdir()
    with open_instance(directory) as instance:
        assert instance.description is None
        assert sorted(path.name for path in directory.iterdir()) == ["logs", "run"]


def test_organisations_and_channels_cannot_change_and_chaincodes_can(directory: Path) -> None:
    described(directory)
    more = ChaincodeSpec(
        name="notes",
        module="notes:chaincode",
        channels=("finance",),
        endorsement_policy="AND('SupervisorMSP.peer', 'FinanceMSP.peer')",
    )
    with open_instance(directory) as instance:
        for change in (
            {"channels": TOPOLOGY.channels[:2]},
            {"organizations": TOPOLOGY.organizations[:4]},
            {"chaincodes": TOPOLOGY.chaincodes[:2]},
        ):
            with pytest.raises(TopologyChanged):
                instance.describe(TOPOLOGY.model_copy(update=change), "embedded", {})
        with pytest.raises(TopologyChanged):
            instance.describe(TOPOLOGY, "native", {})
        instance.describe(TOPOLOGY.model_copy(update={"chaincodes": (*TOPOLOGY.chaincodes, more)}), "embedded", {})


def test_a_network_that_is_not_up_cannot_be_used(directory: Path) -> None:
    with pytest.raises(NotUp):
        running(directory)
    described(directory)
    with pytest.raises(NotUp):
        running(directory)
    with open_instance(directory), pytest.raises(NotUp, match="starting"):
        running(directory)


async def test_down_and_attach_refuse_a_network_that_is_not_up(directory: Path) -> None:
    described(directory)
    with pytest.raises(NotUp):
        await Network.down(directory)
    with pytest.raises(NotUp):
        async with Network.attach(directory):
            pass
    assert Network.status(directory).state == "down"
