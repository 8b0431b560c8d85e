"""A default network that runs in a process of its own, driven through the `sovchain` command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import Sovchain


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Sovchain]:
    """A directory without a network; whatever is brought up in it is taken down again."""
    sovchain = Sovchain(tmp_path / "network")
    yield sovchain
    if sovchain.directory.exists():
        sovchain.down()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sovchain]:
    """A running network whose finance channel is founded, shared by the tests of one module."""
    sovchain = Sovchain(tmp_path_factory.mktemp("system") / "network")
    sovchain.up()
    try:
        sovchain.found()
        yield sovchain
    finally:
        sovchain.down()
