"""Under load, while containers are killed in turn, a client is never told anything that the blocks contradict."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from load import Told, codes, load, more, wrong_outcomes
from smallnetwork import WIDE, small_topology

from sovchain.network import Network


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("engine")
async def test_every_outcome_that_was_told_is_the_one_in_the_blocks(tmp_path: Path) -> None:
    told = Told()
    async with Network.up(small_topology(), "docker", tmp_path / "network") as network:
        faults = network.faults
        assert faults is not None
        targets = faults.targets()
        assert len(targets) == 10, "four peers, three ordering nodes, three chaincodes"
        async with load(network, told):
            await more(told, 10)
            for target in targets:
                await faults.kill(target)
                await asyncio.sleep(1.5)  # what the others do without it
                await faults.start(target)
                await more(told, 10)
    assert wrong_outcomes(told, codes(tmp_path / "network", WIDE)) == {}
    assert told.counts["committed"] >= 10 * (len(targets) + 1)
