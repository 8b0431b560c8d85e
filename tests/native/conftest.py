"""The default network on Fabric's own programs, for each version that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from commandline import Sovchain
from fabricprograms import fabric_programs, topology_file
from leftovers import left_over, ports_in_use

from sovchain.network.runtimes.programs import Programs


@pytest.fixture(scope="module", params=[pytest.param("2.5", marks=pytest.mark.long), "3.1"])
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
        assert ports_in_use(sovchain.directory) == []
