"""A ledger that has grown large commits a block at the cost of a small one."""

from __future__ import annotations

import hashlib
import resource
import statistics
import time
from pathlib import Path

import pytest
from ledger_world import CHAINCODE, World

from sovchain.ledger.simulator import TxSimulator

KEYS_OF_BLOCK = 10
MOST_GROWTH = 1.20


def key(number: int) -> str:
    """Keys in no order, so that each block writes all over the state."""
    return hashlib.sha256(b"%d" % number).hexdigest()[:24]


async def costs(directory: Path, world: World, blocks: int, window: int) -> list[tuple[int, float, float]]:
    """Commit `blocks` blocks that write new keys and read old ones: (height, CPU ms, wall ms), medians of a window each."""
    channel = await world.create(directory)
    await world.define(channel)
    found, cpus, walls = [], [], []
    for number in range(blocks):
        first = number * KEYS_OF_BLOCK

        def script(simulator: TxSimulator, first: int = first, number: int = number) -> None:
            simulator.get_state(CHAINCODE, key(first // 2))
            for offset in range(KEYS_OF_BLOCK):
                simulator.put_state(CHAINCODE, key(first + offset), b"a value of forty bytes, as many values are")

        endorsed = await world.endorse(channel, script, endorsers=["Org1MSP"])
        # By hand, so that nothing but the commit is measured.
        used, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        await channel.order(endorsed.envelope)
        await channel.cut()
        walls.append(1000 * (time.perf_counter() - started))
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpus.append(1000 * (after.ru_utime - used.ru_utime + after.ru_stime - used.ru_stime))
        code = channel.status(endorsed.transaction_id)
        assert code is not None
        assert code[0] == 0
        if len(cpus) == window:
            found.append((channel.height, statistics.fmean(cpus), statistics.median(walls)))
            cpus.clear()
            walls.clear()
    assert channel.height >= blocks
    await channel.close()
    return found


async def test_a_commit_costs_the_same_after_hundreds_of_blocks(tmp_path: Path, world: World) -> None:
    found = await costs(tmp_path / "ch", world, 120, 40)
    assert found[-1][1] < 2 * found[0][1]  # windows this short say little; the long form says more


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
async def test_a_million_keys_and_a_hundred_thousand_blocks(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean processor time of a commit, checkpoints included, at the end against that of the third thousand."""
    found = await costs(tmp_path / "ch", world, 100_000, 1_000)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    with capsys.disabled():
        for height, cpu, wall in found[::9] + found[-1:]:
            print(f"\n{height} blocks, {height * KEYS_OF_BLOCK} keys: {cpu:.2f} ms CPU, {wall:.2f} ms", end="")
        print(f"\n{size / 2**20:.0f} MiB")
    early, late = statistics.median(cpu for _, cpu, _ in found[2:7]), statistics.median(cpu for _, cpu, _ in found[-5:])
    assert late < MOST_GROWTH * early, (early, late)
