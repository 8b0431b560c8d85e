"""This project's client beside the official ones, in turns, on the same network: rates, latencies, CPU for each call.

`evaluate` calls the peer's own qscc: nothing but peer and client is measured. `echo` evaluates a chaincode.

Method: the network of the conformance tests (three organisations, Raft, the same chaincode for all) runs in processes of
its own; every client runs in a process of its own, one at a time, on one connection to one gateway. Each figure is taken
over `--seconds` of steady load after a warm-up. A submit is a whole one, to its committed status, on a fresh key. CPU is
user and system time of the client's process, with everything that it does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sovchain.client import Gateway, SigningIdentity
from sovchain.network import Network
from sovchain.testing.conformance.topology import conformance_topology
from sovchain.testing.hosted import HostedNetwork, HostFailed

HERE = Path(__file__).parent
PACKAGES = ("@hyperledger/fabric-gateway@1.12.1", "@grpc/grpc-js@1.14.7")
REACH = {("submit", "rate"): 1.5, ("evaluate", "rate"): 3.0, ("submit", "cpu_ms"): 1.2}


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def load(call: Callable[[], Awaitable[object]], in_flight: int, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    started, before = time.perf_counter(), cpu_s()
    end = started + seconds

    async def worker() -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    elapsed, used = time.perf_counter() - started, cpu_s() - before
    latencies.sort()
    return {
        "calls": len(latencies),
        "per_second": len(latencies) / elapsed,
        "median_ms": 1000 * statistics.median(latencies),
        "p99_ms": 1000 * latencies[int(0.99 * (len(latencies) - 1))],
        "cpu_ms": 1000 * used / len(latencies),
    }


def task_identity(task: dict[str, Any]) -> SigningIdentity:
    certificate, key = Path(task["certificate"]).read_bytes(), Path(task["key"]).read_bytes()
    return SigningIdentity.from_pem(task["msp_id"], certificate, key)


async def measure(task: dict[str, Any]) -> dict[str, float]:
    """One measurement with this project's client, in this process."""
    identity = task_identity(task)
    number = 0
    async with Gateway.connect(task["profile"], identity, commit_stream=task["commit_stream"]) as gateway:
        contract = gateway.network(task["channel"]).contract(task["chaincode"])

        system = gateway.network(task["channel"]).contract("qscc")

        async def evaluate() -> object:
            return await system.evaluate("GetChainInfo", task["channel"])

        async def echo() -> object:
            return await contract.evaluate("Probe:echo", task["value"])

        async def submit() -> object:
            nonlocal number
            number += 1
            return await contract.submit("Probe:put", f"{task['prefix']}-{number}", task["value"])

        call = {"evaluate": evaluate, "echo": echo, "submit": submit}[task["call"]]
        await load(call, task["in_flight"], task["warm_s"])
        return await load(call, task["in_flight"], task["seconds"])


def worker(task: dict[str, Any]) -> None:
    """The process of one measurement; under SOVCHAIN_PROFILE it prints where the time goes instead of the figures."""
    run = asyncio.run
    if task["uvloop"]:
        import uvloop

        run = uvloop.run
    if os.environ.get("SOVCHAIN_PROFILE"):
        import cProfile
        import pstats

        profile = cProfile.Profile()
        profile.runcall(run, measure(task))
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(45)
    else:
        print(json.dumps(run(measure(task))))


def node_folder() -> Path | None:
    """A folder with the official Node client, kept between runs; None where there is no Node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sovchain" / "node"
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "node_modules" / "@hyperledger" / "fabric-gateway").exists():
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(cache), *PACKAGES]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    return cache


def run_task(client: str, task: dict[str, Any], node: Path | None) -> dict[str, float]:
    if client == "node":
        assert node is not None
        script = node / "bench_client.mjs"
        script.write_text((HERE / "bench_client.mjs").read_text())
        command = ["node", str(script), json.dumps(task)]
    elif client == "go":
        command = [os.environ["SOVCHAIN_BENCH_GO"], json.dumps(task)]
    else:
        command = [sys.executable, __file__, "--task", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{client}: {done.stderr[-3000:]}")
    sys.stderr.write(done.stderr if os.environ.get("SOVCHAIN_PROFILE") and client == "sovchain" else "")
    figures: dict[str, float] = json.loads(done.stdout or "{}")
    return figures


def clients(options: argparse.Namespace) -> tuple[list[str], Path | None]:
    """The clients of this machine, and the folder of Node's; says in one line each which are left out."""
    found, node = ["sovchain"], node_folder()
    if node is None:
        print("node: left out: install Node.js 20 with npm (Debian: apt-get install nodejs npm)")
    else:
        found.append("node")
    if os.environ.get("SOVCHAIN_BENCH_GO"):
        found.append("go")
    else:
        print("go: left out: name a program that takes scripts/bench_client.mjs's argument in SOVCHAIN_BENCH_GO")
    return [one for one in found if one in options.clients.split(",")], node


def bench(runtime: str, options: argparse.Namespace, names: list[str], node: Path | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        kind, _, version = runtime.partition("-")
        network = HostedNetwork(Path(folder) / "network", kind, conformance_topology(version or "3.1"))
        try:
            network.start()
        except HostFailed as error:
            print(f"{runtime}: left out: {error}")
            return rows
        try:
            status = Network.status(network.directory)
            assert status.topology is not None
            domain = status.topology.organization("Alpha").domain
            msp = network.directory / f"organizations/peerOrganizations/{domain}/users/User1@{domain}/msp"
            (certificate,), (key,) = (msp / "signcerts").iterdir(), (msp / "keystore").iterdir()
            for call in options.calls.split(","):
                for in_flight in options.in_flight:
                    for client in names:
                        task = {
                            "call": call,
                            "in_flight": in_flight,
                            "seconds": options.seconds,
                            "warm_s": options.warm,
                            "profile": str(network.directory / "connections/Alpha.json"),
                            "certificate": str(certificate),
                            "key": str(key),
                            "msp_id": "AlphaMSP",
                            "channel": "wide",
                            "chaincode": "probe",
                            "value": "v" * 100,
                            "prefix": secrets.token_hex(6),
                            "commit_stream": not options.no_commit_stream,
                            "uvloop": options.uvloop,
                        }
                        figures = run_task(client, task, node)
                        rows.append(
                            {"runtime": runtime, "client": client, "call": call, "in_flight": in_flight, **figures}
                        )
                        show_row(rows[-1])
        finally:
            network.stop()
    return rows


def show_row(row: dict[str, Any]) -> None:
    if "calls" in row:
        print(
            f"{row['runtime']:12}{row['call']:10}{row['in_flight']:>4} in flight  {row['client']:10}"
            f"{row['per_second']:>9.1f}/s  median {row['median_ms']:>7.1f} ms  p99 {row['p99_ms']:>7.1f} ms"
            f"  CPU {row['cpu_ms']:>6.3f} ms",
            flush=True,
        )


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each figure of this client against each official one in the same run."""
    by = {(row["runtime"], row["call"], row["in_flight"], row["client"]): row for row in rows if "calls" in row}
    found = []
    for (runtime, call, in_flight, client), other in by.items():
        own = by.get((runtime, call, in_flight, "sovchain"))
        if client == "sovchain" or own is None:
            continue
        found.append(
            {
                "runtime": runtime,
                "call": call,
                "in_flight": in_flight,
                "against": client,
                "rate": round(own["per_second"] / other["per_second"], 2),
                "cpu": round(own["cpu_ms"] / other["cpu_ms"], 3),
                "cpu_ms": round(own["cpu_ms"], 3),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", default="embedded,native-3.1", help="embedded, native-2.5, native-3.1")
    parser.add_argument("--clients", default="sovchain,node,go")
    parser.add_argument("--calls", default="evaluate,echo,submit")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--warm", type=float, default=1.0)
    parser.add_argument("--uvloop", action="store_true", help="run this client on uvloop (extra sovchain[speed])")
    parser.add_argument(
        "--no-commit-stream", action="store_true", help="ask for each commit, as the official clients do"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        worker(json.loads(options.task))
        return
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.platform()}")
    names, node = clients(options)
    rows = [row for runtime in options.runtimes.split(",") for row in bench(runtime, options, names, node)]
    found = ratios(rows)
    for one in found:
        reach = REACH.get((one["call"], "rate"))
        text = "" if one["against"] != "node" or reach is None else f" (to reach: {reach}x)"
        print(
            f"{one['runtime']:12}{one['call']:10}{one['in_flight']:>4} in flight  {one['rate']:.2f}x the rate of"
            f" {one['against']}{text}, {one['cpu']:.2f}x its CPU ({one['cpu_ms']:.3f} ms)"
        )
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "ratios": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
