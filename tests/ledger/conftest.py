"""Fixtures of the ledger's tests: organisations with certificates, and channels on a temporary disk."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ledger_world import World

from sovchain.ledger.channel import Channel
from sovchain.ledger.database import set_failpoint


@pytest.fixture(scope="session")
def world() -> World:
    """Three organisations (Org1MSP, Org2MSP, Org3MSP) and an ordering one, with keys and certificates."""
    return World()


@pytest.fixture(scope="session")
def two_organisations() -> World:
    """Org1MSP and Org2MSP, and an ordering organisation."""
    return World(("Org1MSP", "Org2MSP"))


@pytest.fixture
async def bare_channel(world: World, tmp_path: Path) -> AsyncIterator[Channel]:
    """A channel of three organisations that has its genesis block only."""
    channel = await world.create(tmp_path / "testchannel")
    yield channel
    await channel.close()


@pytest.fixture
async def channel(world: World, bare_channel: Channel) -> Channel:
    """A channel of three organisations with the chaincode `cc`, which any one peer may endorse."""
    await world.define(bare_channel)
    return bare_channel


@pytest.fixture(autouse=True)
def no_failpoint() -> object:
    """No test leaves a failpoint behind."""
    yield
    set_failpoint(None)
