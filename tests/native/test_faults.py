"""Under load, while nodes are killed, a client is never told anything that the blocks contradict."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fabricprograms import fabric_programs
from load import Told, codes, load, more, wrong_outcomes

from sovchain.client import Gateway, Submitted
from sovchain.contracts.logistics import ConsignmentNote, Waybills
from sovchain.network import Network, default_topology

WORKERS = ("Government", "Logistics", "Supervisor", "OverseasCarrier")


async def issue(gateway: Gateway, number: int) -> Submitted[Any]:
    note = ConsignmentNote(
        number=f"GY-{number:08}",
        consignor="Guiyang Tea",
        consignee="Zunyi Stores",
        origin="Guiyang",
        destination="Zunyi",
        goods="tea",
        packages=1,
        weight_kg=10,
    )
    return await gateway.network("logistics").contract("logistics").submit(Waybills.issue, note)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", [pytest.param("2.5", marks=pytest.mark.long), "3.1"])
@pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_every_outcome_that_was_told_is_the_one_in_the_blocks(
    version: str, everything: bool, tmp_path: Path
) -> None:
    await asyncio.to_thread(fabric_programs, version)
    topology = default_topology().model_copy(update={"fabric_version": version})
    told = Told()
    async with Network.up(topology, "native", tmp_path / "network") as network:
        faults = network.faults
        assert faults is not None
        some = ("orderer.government", "peer0.logistics", "chaincode of Supervisor")
        targets = [target for target in faults.targets() if everything or target.startswith(some)]
        assert len(targets) >= 3
        async with load(network, told, WORKERS, issue):
            await more(told, 10)
            for target in targets:
                await faults.kill(target)
                await asyncio.sleep(1.5)  # what the others do without it
                await faults.start(target)
                await more(told, 10)
    assert wrong_outcomes(told, codes(tmp_path / "network", "logistics")) == {}
    assert told.counts["committed"] >= 10 * (len(targets) + 1)
