"""Nothing accumulates: thousands of transactions leave as many objects, tasks and files as a few did."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import weakref
from collections import Counter
from pathlib import Path

import psutil
import pytest
from ledger_world import World
from service_world import Services, failure, services

PER_ROUND = 160
AT_ONCE = 20


async def work(net: Services, round_number: int) -> None:
    """Transactions that are valid and invalid, refusals, queries, and clients that leave while they wait."""
    for start in range(0, PER_ROUND, AT_ONCE):
        keys = [f"{round_number}-{start + offset}" for offset in range(AT_ONCE)]
        done = await asyncio.gather(*(net.transact("put", key, "1") for key in keys))
        assert all(code == 0 for _, code, _ in done)
        await net.transact("put", "same", "1", organizations=["Org1MSP"])
        await net.evaluate(net.proposal("get", keys[0])[1])
        await failure(net.endorse(net.proposal("get", "a", chaincode=f"none{keys[0]}")[1]))
        await failure(net.evaluate(net.proposal("get", "a", channel_id=f"none{keys[0]}")[1]))
        await failure(net.endorse(net.proposal("fail", "500", "no")[1]))
        leaving = asyncio.ensure_future(net.status("0" * 63 + str(start % 10)))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


async def settled(net: Services) -> tuple[Counter[str], int, int]:
    """(objects by type, tasks, open files) once calls that ended have gone."""
    channel = next(iter(net.ledger.channels.values()))
    async with asyncio.timeout(10):
        while channel._waiters:
            await net.transact("put", "settle", "1")
    gc.collect()
    counted = Counter(type(found).__qualname__ for found in gc.get_objects())
    # A connection to SQLite keeps up to 200 weak references to cursors that are gone, until it looks through them.
    connections = sum(isinstance(found, sqlite3.Connection) for found in gc.get_objects())
    dead = sum(isinstance(found, weakref.ref) and found() is None for found in gc.get_objects())
    assert dead <= 201 * connections, (dead, connections)
    del counted["ReferenceType"]
    return counted, len(asyncio.all_tasks()), psutil.Process().num_fds()


async def grow(directory: Path, rounds: int) -> None:
    async with services(directory, World(("Org1MSP", "Org2MSP"))) as net:
        await net.deploy("cc", "AND('Org1MSP.peer', 'Org2MSP.peer')")
        await work(net, 0)
        await work(net, 1)
        before, tasks, files = await settled(net)
        for round_number in range(rounds):
            await work(net, 2 + round_number)
        after, tasks_after, files_after = await settled(net)
    grown = {kind: count for kind, count in (after - before).items() if count > PER_ROUND * rounds / 10}
    assert grown == {}, "objects of these types grow with the number of transactions"
    assert sum(after.values()) - sum(before.values()) < PER_ROUND * rounds / 2
    assert tasks_after - tasks < 20
    assert files_after - files < 10


async def test_hundreds_of_transactions_leave_nothing_behind(tmp_path: Path) -> None:
    await grow(tmp_path, 2)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_thousands_of_transactions_leave_nothing_behind(tmp_path: Path) -> None:
    await grow(tmp_path, 40)
