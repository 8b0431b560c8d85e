"""Under load, while nodes are killed, a client is never told anything that the blocks contradict."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import transaction_pb2
from fabricprograms import VERSIONS, fabric_programs

from sovchain.client import CommitRejected, FabricError, OutcomeUnknown, Timeouts
from sovchain.contracts.logistics import ConsignmentNote, Waybills
from sovchain.network import Network, default_topology
from sovchain.network.stored import stored_blocks
from sovchain.protocol.blocks import parse_block, transactions_filter

PATIENCE = Timeouts(connect_s=5, evaluate_s=5, endorse_s=5, submit_s=5, commit_s=15)
WORKERS = ("Government", "Logistics", "Supervisor", "OverseasCarrier")


@dataclass
class Told:
    """What clients were told of each transaction, by its id; calls that ended before they had one are only counted."""

    outcomes: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, outcome: str, transaction_id: str = "") -> None:
        self.counts[outcome] += 1
        if transaction_id:
            self.outcomes[transaction_id] = outcome


def note(number: int) -> ConsignmentNote:
    return ConsignmentNote(
        number=f"GY-{number:08}",
        consignor="Guiyang Tea",
        consignee="Zunyi Stores",
        origin="Guiyang",
        destination="Zunyi",
        goods="tea",
        packages=1,
        weight_kg=10,
    )


async def work(network: Network, organization: str, numbers: Iterator[int], told: Told) -> None:
    """Submit one waybill after the other, connecting again whenever the gateway is gone."""
    while True:
        try:
            async with network.connect(organization, timeouts=PATIENCE) as gateway:
                waybills = gateway.network("logistics").contract("logistics")
                while True:
                    try:
                        done = await waybills.submit(Waybills.issue, note(next(numbers)))
                        told.note("committed", done.transaction_id)
                    except CommitRejected as error:
                        told.note("rejected", error.transaction_id)
                    except OutcomeUnknown as error:
                        told.note("unknown", error.transaction_id)
        except FabricError:
            told.note("not sent")
            await asyncio.sleep(0.2)


@asynccontextmanager
async def load(network: Network, told: Told) -> AsyncIterator[None]:
    numbers = itertools.count(1)
    tasks = [asyncio.create_task(work(network, name, numbers, told)) for name in WORKERS]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def more(told: Told, count: int, timeout_s: float = 60) -> None:
    """Wait until that many more transactions have committed: a fault without traffic shows nothing."""
    enough = told.counts["committed"] + count
    async with asyncio.timeout(timeout_s):
        while told.counts["committed"] < enough:
            await asyncio.sleep(0.05)


def codes(directory: Path) -> dict[str, int]:
    """The validation code of every transaction in the blocks; the first one counts."""
    found: dict[str, int] = {}
    for raw in stored_blocks(directory, "logistics"):
        block = parse_block(raw)
        for data, code in zip(block.data.data, transactions_filter(block), strict=True):
            payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(data).payload)
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
            found.setdefault(header.tx_id, code)
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", VERSIONS)
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
        async with load(network, told):
            await more(told, 10)
            for target in targets:
                await faults.kill(target)
                await asyncio.sleep(1.5)  # what the others do without it
                await faults.start(target)
                await more(told, 10)
    there = codes(tmp_path / "network")
    wrong = {
        transaction_id: (outcome, there.get(transaction_id))
        for transaction_id, outcome in told.outcomes.items()
        if (outcome == "committed") != (there.get(transaction_id) == transaction_pb2.VALID) and outcome != "unknown"
    }
    assert wrong == {}
    assert told.counts["committed"] >= 10 * (len(targets) + 1)
