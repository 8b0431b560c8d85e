"""Benchmarks of the embedded network, driven through the public client from another process; native Fabric beside it.

Method: the network runs in processes of its own (`sovchain up --detach`), the client in this one, both on this machine.
Each rate is taken over `--seconds` of steady load after a warm-up, with a fixed number of calls in flight; every submit is
a full one, from signed proposal to committed status. CPU is user + system time of the client process, and of the ledger
with its chaincode instances, for each call. `--beside 3.1` (or 2.5) measures a network of Fabric's own programs in the same
run, with the same topology, contract and client.

Start, from the moment at which a Python process begins, imports included, on an empty folder with five organisations and
three channels: `serving` when all peers and ordering nodes answer and have their channels; `up` when the chaincodes of all
channels are committed and their instances listen too; `first transaction` when a waybill is committed. And a whole
`sovchain up --detach` from its first to its last instruction, fresh and again on what it left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from sovchain.contracts.logistics import ConsignmentNote, Waybills
from sovchain.network import Network, default_topology
from sovchain.network.topologywriter import to_yaml

SOVCHAIN = [sys.executable, "-m", "sovchain.cli"]


class Server:
    """The processes of one running network, for their CPU time and memory."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def _all(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._all())

    def memory_mib(self) -> dict[str, float]:
        """Resident memory of the ledger process and of its chaincode instances, each."""
        ledger, *instances = (process.memory_info().rss / 2**20 for process in self._all())
        return {"ledger": round(ledger, 1), "chaincode": round(sum(instances), 1)}


def sovchain(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([*SOVCHAIN, *arguments, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"sovchain {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout) if done.stdout.strip() else {}


def client_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def note(number: str) -> ConsignmentNote:
    return ConsignmentNote(
        number=number,
        consignor="Guiyang Tea Works",
        consignee="Zunyi Stores",
        origin="Guiyang",
        destination="Zunyi",
        goods="tea",
        packages=12,
        weight_kg=240,
    )


async def load(call: Callable[[], Awaitable[object]], in_flight: int, seconds: float, server: Server) -> dict[str, Any]:
    """Keep `in_flight` calls going for `seconds` and say what came of them."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def worker() -> None:
        while time.perf_counter() < end:
            started = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - started)

    cpu, server_cpu, started = client_cpu_s(), server.cpu_s(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    elapsed = time.perf_counter() - started
    done = len(latencies)
    latencies.sort()
    return {
        "in_flight": in_flight,
        "calls": done,
        "per_second": round(done / elapsed, 1),
        "latency_ms_median": round(1000 * statistics.median(latencies), 2),
        "latency_ms_p99": round(1000 * latencies[int(0.99 * (done - 1))], 2),
        "client_cpu_ms": round(1000 * (client_cpu_s() - cpu) / done, 3),
        "network_cpu_ms": round(1000 * (server.cpu_s() - server_cpu) / done, 3),
    }


def numbers(start: int) -> Iterator[str]:
    """Waybill numbers that nobody has used."""
    return (f"GY-{number:010d}" for number in count(start))


async def rates(directory: Path, server: Server, seconds: float) -> dict[str, Any]:
    result: dict[str, Any] = {"evaluate": [], "submit": []}
    async with Network.attach(directory) as network, network.connect("Logistics", "User1") as gateway:
        waybills = gateway.network("logistics").contract("logistics")
        fresh = numbers(1)
        known = next(fresh)
        await waybills.submit(Waybills.issue, note(known))

        async def evaluate() -> object:
            return await waybills.evaluate(Waybills.read, known)

        async def submit() -> object:
            return await waybills.submit(Waybills.issue, note(next(fresh)))

        for in_flight in (1, 32, 64):
            for name, call in (("evaluate", evaluate), ("submit", submit)):
                await load(call, in_flight, 0.5, server)
                result[name].append(await load(call, in_flight, seconds, server))
    return result


START = """
import asyncio, json, sys, time
began = float(sys.argv[1])
stamps = {}
async def main():
    from sovchain.network import Network
    def progress(step, done, total):
        if step == "peers and ordering nodes":
            stamps["serving"] = time.time() - began
    async with Network.up(runtime=sys.argv[3], directory=sys.argv[2], progress=progress) as network:
        stamps["up"] = time.time() - began
        from sovchain.contracts.logistics import ConsignmentNote, Waybills
        note = ConsignmentNote(**json.loads(sys.argv[4]))
        async with network.connect("Logistics", "User1") as gateway:
            await gateway.network("logistics").contract("logistics").submit(Waybills.issue, note)
        stamps["first transaction"] = time.time() - began
asyncio.run(main())
print(json.dumps(stamps))
"""


def starts(runtime: str, turns: int) -> dict[str, list[float]]:
    """How long a network takes until it serves, until all of it is up, and until its first transaction."""
    found: dict[str, list[float]] = {}
    first = json.dumps(note("GY-0000000001").model_dump(mode="json"))
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", START, str(time.time()), f"{folder}/network", runtime, first]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        for name, seconds in json.loads(done.stdout).items():
            found.setdefault(name, []).append(round(seconds, 3))
    return found


async def latency(directory: Path, calls: int = 200) -> dict[str, Any]:
    """One submit after the other, each cut into a block at once."""
    async with Network.attach(directory) as network, network.connect("Logistics", "User1") as gateway:
        await network.ledger.set_cutting("logistics", max_message_count=1)
        waybills, fresh, found = gateway.network("logistics").contract("logistics"), numbers(9_000_000_000), []
        for _ in range(calls):
            started = time.perf_counter()
            await waybills.submit(Waybills.issue, note(next(fresh)))
            found.append(1000 * (time.perf_counter() - started))
        await network.ledger.set_cutting("logistics")
    found.sort()
    return {
        "calls": calls,
        "latency_ms_median": round(statistics.median(found), 2),
        "latency_ms_p99": round(found[int(0.99 * (calls - 1))], 2),
    }


async def clean(directory: Path, turns: int = 30) -> dict[str, Any]:
    """What going back to a snapshot costs, as the pytest fixture `fabric_clean` does it after a test that has written."""
    async with Network.attach(directory) as network, network.connect("Logistics", "User1") as gateway:
        waybills = gateway.network("logistics").contract("logistics")
        started = time.perf_counter()
        await network.ledger.snapshot("bench")
        taken_ms = 1000 * (time.perf_counter() - started)
        fresh = numbers(7_000_000_000)
        costs = []
        for _ in range(turns):
            await waybills.submit(Waybills.issue, note(next(fresh)))
            started = time.perf_counter()
            await network.ledger.revert("bench")
            costs.append(1000 * (time.perf_counter() - started))
        await network.ledger.drop_snapshot("bench")
    costs.sort()
    return {
        "snapshot_ms": round(taken_ms, 1),
        "revert_ms_median": round(statistics.median(costs), 1),
        "revert_ms_p90": round(costs[int(0.9 * (turns - 1))], 1),
        "turns": turns,
    }


async def memory(directory: Path, server: Server, commits: int) -> list[dict[str, Any]]:
    """Resident memory and ledger size while `commits` transactions commit."""
    samples = []
    async with Network.attach(directory) as network, network.connect("Logistics", "User1") as gateway:
        waybills = gateway.network("logistics").contract("logistics")
        fresh, step = numbers(5_000_000_000), max(commits // 10, 1)

        async def worker(shares: int) -> None:
            for _ in range(shares):
                await waybills.submit(Waybills.issue, note(next(fresh)))

        for done in range(step, commits + 1, step):
            await asyncio.gather(*(worker(step // 32 + (index < step % 32)) for index in range(32)))
            size = sum(path.stat().st_size for path in (directory / "ledger").rglob("*") if path.is_file())
            samples.append({"commits": done, **server.memory_mib(), "ledger_files_mib": round(size / 2**20, 1)})
            print(f"  {samples[-1]}", file=sys.stderr)
    return samples


def beside(version: str, seconds: float, turns: int) -> dict[str, Any]:
    """The same of a network of Fabric's own programs."""
    with tempfile.TemporaryDirectory() as folder:
        directory, topology = Path(folder) / "network", Path(folder) / "topology.yaml"
        topology.write_text(to_yaml(default_topology().model_copy(update={"fabric_version": version})))
        began = time.perf_counter()
        sovchain("up", "--detach", "--dir", str(directory), "--runtime", "native", "--topology", str(topology))
        found: dict[str, Any] = {"fabric": version, "detached_s": round(time.perf_counter() - began, 3)}
        try:
            found |= asyncio.run(
                rates(directory, Server(int(sovchain("status", "--dir", str(directory))["pid"])), seconds)
            )
        finally:
            sovchain("down", "--dir", str(directory))
    return found | {"start_s": starts("native", turns) if version == default_topology().fabric_version else {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("ledger", "memory", "clean", "all"), default="all")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--commits", type=int, default=10_000, help="transactions of the memory run")
    parser.add_argument("--turns", type=int, default=3, help="starts of each kind")
    parser.add_argument("--beside", choices=("2.5", "3.1"), help="a native network of this version, measured beside it")
    options = parser.parse_args()
    figures: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "seconds": options.seconds,
    }
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "network"
        detached: dict[str, list[float]] = {"fresh": [], "restart": []}
        for turn in range(options.turns):
            directory = Path(folder) / f"network{turn}"
            for kind in ("fresh", "restart"):
                started = time.perf_counter()
                sovchain("up", "--detach", "--dir", str(directory))
                detached[kind].append(round(time.perf_counter() - started, 3))
                if (turn, kind) != (options.turns - 1, "restart"):
                    sovchain("down", "--dir", str(directory))
        figures["detached_s"] = detached
        try:
            server = Server(int(sovchain("status", "--dir", str(directory))["pid"]))
            if options.what in ("clean", "all"):
                figures["clean"] = asyncio.run(clean(directory))
            if options.what in ("ledger", "all"):
                figures |= asyncio.run(rates(directory, server, options.seconds))
                figures["cut at once"] = asyncio.run(latency(directory))
            if options.what in ("memory", "all"):
                figures["memory"] = asyncio.run(memory(directory, server, options.commits))
        finally:
            sovchain("down", "--dir", str(directory))
    figures["start_s"] = starts("embedded", options.turns)
    if options.beside:
        figures["beside"] = beside(options.beside, options.seconds, 1)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def show(figures: dict[str, Any]) -> None:
    """Print the figures, and their ratio to what was measured beside them."""
    machine = figures["machine"]
    print(f"{machine['cores']} cores, Python {machine['python']}, {machine['system']}")
    for kind, values in figures["detached_s"].items():
        print(f"sovchain up --detach, {kind}: median {statistics.median(values):.2f} s of {values}")
    for kind, values in figures["start_s"].items():
        print(f"start, {kind}: median {statistics.median(values):.2f} s of {values}")
    if "clean" in figures:
        cost = figures["clean"]
        print(
            f"a test on a clean network: revert after a write, median {cost['revert_ms_median']} ms, "
            f"p90 {cost['revert_ms_p90']} ms of {cost['turns']}; the snapshot took {cost['snapshot_ms']} ms"
        )
    show_rates(figures)
    if "cut at once" in figures:
        cost = figures["cut at once"]
        print(
            f"one submit, its block cut at once: median {cost['latency_ms_median']} ms, p99 {cost['latency_ms_p99']} ms "
            f"of {cost['calls']}"
        )
    for sample in figures.get("memory", []):
        print(
            f"after {sample['commits']:>6} commits: ledger {sample['ledger']} MiB, chaincode {sample['chaincode']} MiB, "
            f"files {sample['ledger_files_mib']} MiB"
        )
    if "beside" in figures:
        native = figures["beside"]
        print(f"\nFabric {native['fabric']}, its own programs; sovchain up --detach took {native['detached_s']} s")
        for kind, values in native["start_s"].items():
            print(f"start, {kind}: {values} s")
        show_rates(native)
        for call in ("evaluate", "submit"):
            for ours, theirs in zip(figures.get(call, []), native[call], strict=True):
                ratio = ours["per_second"] / theirs["per_second"]
                print(f"{call}, {ours['in_flight']} in flight: {ratio:.2f} times native")


def show_rates(figures: dict[str, Any]) -> None:
    """Print the table of rates."""
    print(
        f"{'call':10}{'in flight':>10}{'per s':>10}{'median ms':>11}{'p99 ms':>9}{'client CPU ms':>15}{'network CPU ms':>16}"
    )
    for call in ("evaluate", "submit"):
        for row in figures.get(call, []):
            print(
                f"{call:10}{row['in_flight']:>10}{row['per_second']:>10}{row['latency_ms_median']:>11}"
                f"{row['latency_ms_p99']:>9}{row['client_cpu_ms']:>15}{row['network_cpu_ms']:>16}"
            )


if __name__ == "__main__":
    main()
