"""Changing a network while it runs: traffic meanwhile, and kills."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from commandline import Sovchain
from smallnetwork import PROBE, WIDE

from sovchain.client import FabricError, Timeouts
from sovchain.network import Network, NotUp, Topology
from sovchain.network.control import ApplyRequest, ask
from sovchain.testing.conformance.chaincode import Probe

RATE_PER_S = 20
PATIENCE = Timeouts(connect_s=30, evaluate_s=30, endorse_s=30, submit_s=30, commit_s=60)
"""Machines that run tests are busy; what counts is that nothing fails, not how long it takes."""


def but(topology: Topology, part: str, name: str, **fields: Any) -> Topology:
    """The topology with fields of one of its parts changed."""
    parts = tuple(entry.model_copy(update=fields) if entry.name == name else entry for entry in getattr(topology, part))
    return topology.model_copy(update={part: parts})


@asynccontextmanager
async def load(network: Network, told: Counter[str]) -> AsyncIterator[None]:
    """Submit `RATE_PER_S` transactions a second, each on a key of its own, and count how they end."""
    async with network.connect("Beta", timeouts=PATIENCE) as gateway:
        contract = gateway.network(WIDE).contract(PROBE)
        tasks: set[asyncio.Task[None]] = set()

        async def one(number: int) -> None:
            try:
                await contract.submit(Probe.put, f"load{number:06}", b"x")
                told["committed"] += 1
            except FabricError as error:
                told[f"{type(error).__name__}: {error}"] += 1

        async def many() -> None:
            started = asyncio.get_running_loop().time()
            for number in range(100_000):
                tasks.add(asyncio.create_task(one(number)))
                told["sent"] += 1
                await asyncio.sleep(started + (number + 1) / RATE_PER_S - asyncio.get_running_loop().time())

        sending = asyncio.create_task(many())
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.gather(sending, *tasks, return_exceptions=True)


async def enough(told: Counter[str], count: int) -> None:
    """Wait until that many more transactions have committed: a change without traffic shows nothing."""
    wanted = told["committed"] + count
    async with asyncio.timeout(60):
        while told["committed"] < wanted:
            await asyncio.sleep(0.05)


async def put_and_get(network: Network, organization: str, channel: str = WIDE) -> None:
    async with network.connect(organization, timeouts=PATIENCE) as gateway:
        contract = gateway.network(channel).contract(PROBE)
        await contract.submit(Probe.put, f"key of {organization}", organization.encode())
        assert await contract.evaluate(Probe.get, f"key of {organization}")


async def apply_and_kill(directory: Path, pid: int, wanted: Topology | None, after_s: float | None) -> bool:
    """Ask for a change and kill the network's process (SIGKILL) when the first step has ended, or after some time.

    Return whether it was killed before the change was completed.
    """

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    if after_s is not None:
        asyncio.get_running_loop().call_later(after_s, kill)
    try:
        await ask(directory, ApplyRequest(topology=wanted), lambda *_: kill() if after_s is None else None)
    except NotUp:
        return True
    return False


async def change_through_kills(folder: Path, runtime: str, topology: Topology, wanted: Topology, rounds: int) -> None:
    """Bring a topology up and change it, killing the network's process again and again, until nothing is left to do."""
    sovchain, file = Sovchain(folder / "network"), folder / "old.yaml"
    file.write_text(topology.model_dump_json())

    async def start(*arguments: str | Path) -> None:
        done = await asyncio.to_thread(sovchain.run, "up", "--detach", *arguments, timeout_s=240)
        assert done.code == 0, done.err

    await start("--runtime", runtime, "--topology", file)
    try:
        left = [await steps_left(sovchain.directory, wanted)]
        asked: Topology | None = wanted
        for number in range(rounds):
            pid = Network.status(sovchain.directory).pid
            after_s = None if number % 2 == 0 else 0.1 + 0.17 * (number % 8)
            if not await apply_and_kill(sovchain.directory, pid, asked, after_s):
                break
            asked = None  # from here on the directory's note says what is to come
            await start()
            left.append(await steps_left(sovchain.directory, None))
        assert left[-1] < left[0]
        async with Network.attach(sovchain.directory) as network:
            await network.apply()
            assert (await network.plan(wanted)).steps == ()
            await put_and_get(network, "Delta")
    finally:
        await asyncio.to_thread(sovchain.down)


async def steps_left(directory: Path, wanted: Topology | None) -> int:
    async with Network.attach(directory) as network:
        return len((await network.plan(wanted)).steps)
