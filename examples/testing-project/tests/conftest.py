"""Tells sovchain's fixture `fabric` which network to bring up."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fabric_topology() -> Path:
    return Path(__file__).parents[1] / "topology.yaml"
