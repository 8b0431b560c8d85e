"""64 callers at once for 8 s, or for 10 minutes with --long, who change their minds at random: nothing stalls, is lost or mixed up.

On Fabric 3.1 where this machine has it, on the embedded ledger otherwise.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from chaincodelab import CHANNEL, Lab

from sovchain.client import EndorseError, Gateway
from sovchain.network import ProgramsMissing
from sovchain.network.runtimes.programs import find_programs

CALLERS = 64
STALL_S = 15.0
"""A call that takes longer counts as a stall: a commit takes a fraction of a second even on a busy machine."""
SETTLE_S = 20.0
GROWTH_BYTES = 24 * 2**20


class Soak:
    """What the callers did and what came of it."""

    def __init__(self, gateway: Gateway, seconds: float) -> None:
        self.contract = gateway.network(CHANNEL).contract("soak")
        self.end = time.monotonic() + seconds
        self.committed: dict[str, str] = {}
        """Transaction id -> token."""
        self.cancelled: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.events: dict[str, str] = {}
        self.slowest = 0.0
        self.problems: list[str] = []

    async def listen(self) -> None:
        async with self.contract.events(start=0) as events:
            async for event in events:
                if event.transaction_id in self.events:
                    self.problems.append("an event came twice")
                self.events[event.transaction_id] = json.loads(event.payload)["token"]
                if event.name != "Worked":
                    self.problems.append(f"an event {event.name} of a refused transaction")

    async def caller(self, number: int) -> None:
        chance, turn = random.Random(number), 0
        while time.monotonic() < self.end:
            turn += 1
            token = f"{number}-{turn}"
            function = chance.choices(("work", "work_in_thread", "refuse", "fail"), (60, 20, 15, 5))[0]
            call = asyncio.ensure_future(self.call(function, token, chance.randrange(40)))
            if chance.random() < 0.15:
                self.cancelled.add(token)
                await asyncio.sleep(chance.random() * 0.3)
                call.cancel()
            started = time.monotonic()
            await asyncio.gather(call, return_exceptions=True)
            self.slowest = max(self.slowest, time.monotonic() - started)
            if call.cancelled():
                self.counts["cancelled"] += 1
            elif (error := call.exception()) is not None:
                self.problems.append(f"{function}: {error!r}")

    async def call(self, function: str, token: str, wait_ms: int) -> None:
        try:
            done = await self.contract.submit(f"Soak:{function}", token, str(wait_ms))
        except EndorseError as error:
            self.counts[function] += 1
            if function == "refuse":
                assert (error.code, error.fields) == ("E_TOLD", {"token": token})
            else:
                assert function == "fail", error
                assert error.code == "E_INTERNAL"
            return
        assert function.startswith("work")
        assert done.result.decode() == f"{token} {done.transaction_id}"
        self.counts[function] += 1
        self.committed[done.transaction_id] = token


async def soak(lab: Lab, seconds: float, memory: list[int]) -> Soak:
    service = await lab.add_python("soak", "soak_contract", SOVCHAIN_LOG_LEVEL="warning")
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    async with lab.network.connect("Lab", "User1") as gateway:
        running = Soak(gateway, seconds)
        listening = asyncio.create_task(running.listen())
        callers = [asyncio.create_task(running.caller(number)) for number in range(CALLERS)]
        while time.monotonic() < running.end:
            await asyncio.sleep(seconds / 20)
            memory.append(process.memory_info().rss)
        await asyncio.wait_for(asyncio.gather(*callers), STALL_S * 2)
        try:
            async with asyncio.timeout(SETTLE_S):
                while not running.committed.keys() <= running.events.keys():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            running.problems.append("events are missing")
        assert not listening.done() or listening.result()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    return running


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [8, pytest.param(600, marks=pytest.mark.long)])
async def test_many_callers_who_change_their_minds(seconds: float, tmp_path: Path) -> None:
    try:
        await find_programs("3.1")
        runtime = "native"
    except ProgramsMissing:
        runtime = "embedded"
    memory: list[int] = []
    async with Lab.up(tmp_path, runtime=runtime) as lab:
        done = await soak(lab, seconds, memory)
    print(f"{runtime}, {seconds} s: {dict(done.counts)}, slowest {done.slowest:.2f} s, memory {memory}")
    assert done.problems == []
    assert done.slowest < STALL_S
    assert len(done.committed) > 5 * seconds
    assert all(done.counts[kind] for kind in ("work", "work_in_thread", "refuse", "fail", "cancelled"))
    # Each committed transaction has its own event; a further event belongs to a call that its caller gave up.
    assert {txid: done.events[txid] for txid in done.committed} == done.committed
    extra = {token for txid, token in done.events.items() if txid not in done.committed}
    assert extra <= done.cancelled
    settled = memory[len(memory) // 4 :]
    assert max(settled[-3:]) - min(settled[:3]) < GROWTH_BYTES, memory
