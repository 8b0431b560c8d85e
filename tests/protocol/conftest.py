"""Fixtures of the protocol's tests: one small network for the whole session."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from protocol_world import MemoryState, World


@pytest.fixture(scope="session")
def world() -> World:
    """AMSP, BMSP and CMSP on `testchannel`, with chaincode `cc` that AMSP and BMSP must both endorse."""
    return World()


@pytest.fixture
def state(world: World) -> MemoryState:
    """A state of one's own in which only the chaincode is defined."""
    return world.state.copy()
