"""Our chaincode runtime beside `fabric-shim` (Node) and `fabric-chaincode-go`, on one real peer, driven by one client.

Method: a native network of two organisations runs on this machine; each runtime serves the echo contract of
`tests/chaincode/shim_conformance` in a process of its own, which the peer dials with mutual TLS. The client sends proposals
to the peer's Endorser service that were made and signed beforehand, so that its cost is small and the same for all; each
answer is checked after the clock has stopped. The runtimes take short turns, round after round; the figure of each is the
median of its rounds, and a ratio is the median of the ratios within the rounds, so that what else the machine does meanwhile
meets both sides. CPU is user + system time of the chaincode's, the peer's and the client's process for each call.

A language whose toolchain or source is missing is left out in one line. Go takes `go` on PATH (or SOVCHAIN_GO) and a source
tree of Fabric 3 with its vendor folder in SOVCHAIN_FABRIC_SOURCE; Node takes node and npm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from fabric_protos.peer import proposal_response_pb2

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))
from chaincodelab import Lab, Missing

KEYS = 1000
PREFIX = "bench"
WARM_UP_CALLS = 200


class Runtimes:
    """The chaincodes that take part, and the processes to watch."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.names: list[str] = []
        self.processes: dict[str, psutil.Process] = {}
        self.skipped: list[str] = []

    async def add(self) -> None:
        for name, add in (("sovchain", self.lab.add_python), ("node", self.lab.add_node), ("go", self.lab.add_go)):
            try:
                service = await add(name)
            except Missing as error:
                self.skipped.append(f"{name} skipped: {error}")
                continue
            assert service.process is not None
            self.names.append(name)
            self.processes[name] = psutil.Process(service.process.pid)
        peers = self.lab.network._nodes.runtime.processes
        pid = next(process.pid for host, process in peers.items() if host.startswith("peer0.lab."))
        self.processes["peer"] = psutil.Process(pid)
        self.processes["client"] = psutil.Process()

    def cpu_s(self, name: str) -> float:
        return sum(self.processes[name].cpu_times()[:2])


async def run(
    runtimes: Runtimes, name: str, function: str, args: Callable[[int], Sequence[str]], calls: int, in_flight: int
) -> dict[str, float]:
    """Make `calls` calls with `in_flight` at a time, check every answer, and say what they took."""
    lab = runtimes.lab
    proposals = [lab.proposal(name, function, *args(number)).signed.SerializeToString() for number in range(calls)]
    answers: list[Any] = []
    latencies: list[float] = []
    waiting = iter(proposals)
    endorse = lab.raw_endorser

    async def worker() -> None:
        for proposal in waiting:
            started = time.perf_counter()
            answers.append(await endorse(proposal, timeout=60))
            latencies.append(time.perf_counter() - started)

    before = {each: runtimes.cpu_s(each) for each in (name, "peer", "client")}
    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    elapsed = time.perf_counter() - started
    cpu = {each: runtimes.cpu_s(each) - value for each, value in before.items()}
    for answer in answers:
        response = proposal_response_pb2.ProposalResponse.FromString(answer).response
        if response.status != 200:
            raise SystemExit(f"{name} {function}: {response.status} {response.message}")
        if function == "read" and response.payload != str(KEYS).encode():
            raise SystemExit(f"{name} read: {response.payload!r} keys instead of {KEYS}")
    return {
        "per_second": calls / elapsed,
        "latency_ms": 1000 * statistics.median(latencies),
        "chaincode_cpu_ms": 1000 * cpu[name] / calls,
        "peer_cpu_ms": 1000 * cpu["peer"] / calls,
        "client_cpu_ms": 1000 * cpu["client"] / calls,
    }


async def measure(folder: Path, rounds: int, calls: int, only: str | None) -> dict[str, Any]:
    async with Lab.up(folder) as lab:
        runtimes = Runtimes(lab)
        await runtimes.add()
        for line in runtimes.skipped:
            print(line, file=sys.stderr)
        for name in runtimes.names:
            await lab.submit(name, "write", PREFIX, str(KEYS))
        plan: dict[str, tuple[Callable[[int], Sequence[str]], int, int]] = {
            "empty": (lambda number: (), calls, 32),
            "add": (lambda number: (f"counter {number}",), calls, 32),
            "write": (lambda number: (f"w{number} ", str(KEYS)), 3, 1),
            "write_batch": (lambda number: (f"w{number} ", str(KEYS)), 3, 1),
            "read": (lambda number: (PREFIX, str(KEYS)), 5, 1),
        }
        found: Rounds = defaultdict(lambda: defaultdict(list))
        for function, (args, count, in_flight) in plan.items():
            if only is not None and function != only:
                continue
            print(f"measuring {function}", file=sys.stderr)
            names = ["go"] if function == "write_batch" else runtimes.names
            for name in names:
                if name not in runtimes.names:
                    continue
                await run(runtimes, name, function, args, WARM_UP_CALLS if in_flight > 1 else count, in_flight)
            for number in range(rounds):
                # The order turns, so that no runtime always follows the same one.
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    if name in runtimes.names:
                        found[function][name].append(await run(runtimes, name, function, args, count, in_flight))
        return {
            "skipped": runtimes.skipped,
            "ratios": ratios(found),
            "calls": {
                function: {
                    name: {key: round(statistics.median(each[key] for each in measured), 3) for key in measured[0]}
                    for name, measured in of_function.items()
                }
                for function, of_function in found.items()
            },
        }


Rounds = dict[str, dict[str, list[dict[str, float]]]]


def ratios(rounds: Rounds) -> list[dict[str, Any]]:
    """What is held to, as far as both sides were measured: the median of the ratios within the rounds."""
    rows = []

    def row(
        what: str, call: str, against: tuple[str, str], key: str, target: float | None = None, at_least: bool = False
    ) -> None:
        ours, theirs = rounds.get(call, {}).get("sovchain"), rounds.get(against[1], {}).get(against[0])
        if not ours or not theirs:
            return
        ratio = statistics.median(mine[key] / other[key] for mine, other in zip(ours, theirs, strict=True))
        met = None if target is None else ratio >= target if at_least else ratio <= target
        rows.append({"what": what, "ratio": round(ratio, 3), "target": target, "at_least": at_least, "met": met})

    row("empty call, calls/s against Go", "empty", ("go", "empty"), "per_second", 0.9, True)
    row("empty call, calls/s against Node", "empty", ("node", "empty"), "per_second", 1.0, True)
    row("read-modify-write, calls/s against Go", "add", ("go", "add"), "per_second")
    row("read-modify-write, calls/s against Node", "add", ("node", "add"), "per_second", 1.0, True)
    row("1,000 writes, time against Go PutState", "write", ("go", "write"), "latency_ms", 0.5)
    row("1,000 writes, time against Go StartWriteBatch", "write", ("go", "write_batch"), "latency_ms")
    row("1,000 writes, time against Node", "write", ("node", "write"), "latency_ms")
    row("1,000 reads, time against Go GetMultipleStates", "read", ("go", "read"), "latency_ms", 1.3)
    row("1,000 reads, time against Node", "read", ("node", "read"), "latency_ms")
    return rows


def show(figures: dict[str, Any]) -> None:
    machine = figures["machine"]
    print(f"{machine['cores']} cores, Python {machine['python']}, {machine['system']}")
    for line in figures["skipped"]:
        print(line)
    head = ("per s", "median ms", "chaincode CPU ms", "peer CPU ms", "client CPU ms")
    print(f"{'call':14}{'runtime':10}" + "".join(f"{title:>18}" for title in head))
    for function, of_function in figures["calls"].items():
        for name, values in of_function.items():
            print(f"{function:14}{name:10}" + "".join(f"{value:>18}" for value in values.values()))
    for row in figures["ratios"]:
        target = ""
        if row["target"] is not None:
            sign = ">=" if row["at_least"] else "<="
            target = f"  (target {sign} {row['target']}: {'met' if row['met'] else 'NOT met'})"
        print(f"{row['what']}: {row['ratio']}{target}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each runtime")
    parser.add_argument("--calls", type=int, default=400, help="calls of a turn of short calls")
    parser.add_argument("--only", help="only this call: empty, add, write, write_batch, read")
    options = parser.parse_args()
    # So that nodes and chaincodes are taken down when a time limit ends the run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        measured = asyncio.run(measure(Path(folder), options.rounds, options.calls, options.only))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    figures = {"machine": machine, **measured}
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
