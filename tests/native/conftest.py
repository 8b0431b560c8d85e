"""The default network on Fabric's own programs, for each version that this machine has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import Sovchain
from fabricprograms import VERSIONS, fabric_programs, topology_file

from sovchain.network.runtimes.programs import Programs


@pytest.fixture(scope="module", params=VERSIONS)
def programs(request: pytest.FixtureRequest) -> Programs:
    """Fabric's programs, of each version in turn."""
    return fabric_programs(request.param)


@pytest.fixture(scope="module")
def native(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sovchain]:
    """A running network on those programs, whose finance channel is founded."""
    folder = tmp_path_factory.mktemp("native")
    sovchain = Sovchain(folder / "network")
    version = ".".join(programs.version.split(".")[:2])
    sovchain.ok("up", "--detach", "--runtime", "native", "--topology", topology_file(folder, version))
    try:
        sovchain.found()
        yield sovchain
    finally:
        sovchain.down()
        assert left_over(sovchain.directory) == []


def left_over(directory: Path) -> list[str]:
    """Command lines of processes that still use a network's directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (path / "environ").read_bytes(), (path / "cmdline").read_bytes()
        except OSError:
            continue
        if f"={directory}/".encode() in environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found
