"""The default network in containers, and the engine that runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from commandline import Sovchain
from dockerimages import chaincode_image, docker_engine, left_over

from sovchain.network.runtimes.docker_engine import Engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The engine of this machine, with the images of Fabric 3.1 and the chaincode image of this checkout."""
    found = docker_engine()
    chaincode_image()
    return found


@pytest.fixture(scope="session")
def network(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sovchain]:
    """A running network whose finance channel is founded."""
    sovchain = Sovchain(tmp_path_factory.mktemp("docker") / "network")
    done = sovchain.run("up", "--detach", "--runtime", "docker", "--json", timeout_s=120)
    assert done.code == 0, done.out + done.err
    try:
        sovchain.found()
        yield sovchain
    finally:
        sovchain.down()
        assert left_over(sovchain.directory) == []
