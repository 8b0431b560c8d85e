"""How long a network takes: from an empty folder to the first transactions on every channel, to come up again, to go down.

Method: the default network (three channels, five organisations, three chaincodes), or a topology file, is brought up in
this process from an empty folder; each step's time is that between two calls of the progress callback. The first
transactions are a waybill on the last channel and a proposed admission on each of the others, all at once, until their
commit statuses, through connections that are made for them.
Then the network is taken down, brought up on what it left, and taken down again. Each figure is the median of `--runs`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sovchain.cli.law_commands import load_organisations
from sovchain.contracts.logistics import ConsignmentNote, Waybills
from sovchain.network import Network, NetworkError, Topology, default_topology, load_topology
from sovchain.network.runtimes import RUNTIMES
from sovchain.network.runtimes.programs import find_programs
from sovchain.sovereign import Sovereign

REGISTRY = Path(__file__).parent.parent / "examples/registry/finance.yaml"
NOTE = ConsignmentNote(
    number="GY-0000000001", consignor="Guiyang Tea Works", consignee="Zunyi Stores", origin="Guiyang",
    destination="Zunyi", goods="tea", packages=12, weight_kg=240,
)  # fmt: skip


class Clock:
    """Time since the last look, in seconds."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.steps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.steps[name] = self.steps.get(name, 0.0) + round(now - self._last, 3)
        self._last = now

    @property
    def total(self) -> float:
        return round(sum(self.steps.values()), 3)


async def waybill(network: Network) -> None:
    """Have a waybill committed on the logistics channel."""
    async with network.connect("Logistics") as gateway:
        await gateway.network("logistics").contract("logistics").submit(Waybills.issue, NOTE)


async def admission(network: Network, channel: str) -> None:
    """Have a proposal to admit the organisations committed on a channel."""
    async with network.connect("Government", "Admin") as gateway:
        await Sovereign(gateway.network(channel)).propose_admission(load_organisations(REGISTRY))


async def measured(topology: Topology, runtime: str, directory: Path, *, first: bool) -> dict[str, Any]:
    """Bring the network up and take it down, with the first transaction in between if `first`."""
    clock = Clock()
    context = Network.up(topology, runtime, directory, progress=lambda step, done, total: clock.lap(step))
    network = await context.__aenter__()
    try:
        if first and topology == default_topology().model_copy(update={"fabric_version": topology.fabric_version}):
            await asyncio.gather(waybill(network), admission(network, "government"), admission(network, "finance"))
            clock.lap("first transaction on every channel")
        up = {"steps_s": clock.steps, "total_s": clock.total}
        memory = sum(node.memory_mib for node in (await network.observe()).nodes)
    finally:
        clock = Clock()
        await context.__aexit__(None, None, None)
        clock.lap("down")
    return {**up, "down_s": clock.total, "nodes_memory_mib": memory}


def median(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure of several runs."""
    return {
        "steps_s": {
            step: round(statistics.median(run["steps_s"].get(step, 0.0) for run in runs), 3)
            for step in runs[0]["steps_s"]
        },
        **{
            name: round(statistics.median(run[name] for run in runs), 3)
            for name in ("total_s", "down_s", "nodes_memory_mib")
        },
        "totals_s": [run["total_s"] for run in runs],
    }


async def figures(topology: Topology, runtime: str, runs: int) -> dict[str, Any]:
    """Fresh and repeated starts of one topology."""
    fresh, again = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="sovchain-bench-") as folder:
            directory = Path(folder) / "network"
            fresh.append(await measured(topology, runtime, directory, first=True))
            again.append(await measured(topology, runtime, directory, first=False))
    release = (await find_programs(topology.fabric_version)).version if runtime == "native" else topology.fabric_version
    return {"fabric": release, "consensus": topology.consensus, "fresh": median(fresh), "again": median(again)}


def show(found: dict[str, Any]) -> None:
    """Print the figures of one topology."""
    print(f"\nFabric {found['fabric']}, {found['consensus']}")
    for kind in ("fresh", "again"):
        part = found[kind]
        print(f"  {kind + ' start':40}{part['total_s']:8.2f} s   of {part['totals_s']}")
        for step, seconds in part["steps_s"].items():
            print(f"    {step:38}{seconds:8.2f} s")
        print(f"    {'down':38}{part['down_s']:8.2f} s")
        print(f"    {'memory of the nodes':38}{part['nodes_memory_mib']:8.0f} MiB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=RUNTIMES, default="native")
    parser.add_argument("--fabric-version", action="append", choices=("2.5", "3.1"), help="default: each that is here")
    parser.add_argument(
        "--topology", type=Path, help="instead of the default network; its chaincodes get no transaction"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    document: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "runtime": options.runtime,
        "runs": options.runs,
        "networks": [],
    }
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.platform()}, {options.runtime}")
    versions = options.fabric_version or (["3.1"] if options.runtime == "embedded" else ["2.5", "3.1"])
    given = load_topology(options.topology) if options.topology else None
    topologies = [given] if given else [default_topology().model_copy(update={"fabric_version": v}) for v in versions]
    for topology in topologies:
        try:
            found = asyncio.run(figures(topology, options.runtime, options.runs))
        except NetworkError as error:
            print(f"\nFabric {topology.fabric_version}: {error}", file=sys.stderr)
            return 1
        document["networks"].append(found)
        show(found)
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
