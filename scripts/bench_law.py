"""Speed of the law: `scripts/bench law [--json FILE] [--receipts N] [--seconds S] [--network embedded|native]`.

A decision in the process against cedarpy alone on the same policies, request and entities, in alternating rounds of one run; views from
another channel verified per second; receipts computed again per second with the memory that takes; whole releases on networks.
"""

# ruff: noqa: E402  the tests' own worlds are what is measured, and their folders must be on the path first

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import cedarpy
import psutil

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / part) for part in ("contracts", "support")]

from attackers import CHANNEL, attacked
from crossing_world import pinned_world
from engine_facts import CITY, NATION, PROVINCE, facts, law
from law_world import SPEC, LawWorld
from rich.console import Console
from rich.progress import track

from sovchain.contracts.core import Crossing, recompute_receipt
from sovchain.contracts.core.engine import DecisionInput, decide
from sovchain.contracts.core.question import question
from sovchain.contracts.core.receipts import Decider
from sovchain.contracts.core.store import encode_record
from sovchain.network import Network, default_topology
from sovchain.sovereign import Sovereign
from sovchain.testing.conformance.chaincode import Probe

ROUNDS = 15
IN_FLIGHT = 8
PROBE = "sovchain.testing.conformance.chaincode:chaincode"
_CONSOLE = Console(stderr=True)


def policies(count: int) -> list[Any]:
    """So many policies in laws of three levels: each level permits what is asked, one policy in ten forbids something else."""
    places, per_law = (NATION, PROVINCE, CITY), 250
    clauses = []
    for number in range(count):
        effect = "forbid" if number % 10 == 9 else "permit"
        purpose = "statistics" if number < 3 else "marketing"
        condition = f'context.purpose == Purpose::"{purpose}" && resource.rows < {number + 1000}'
        clauses.append(f'@c("art. {number}") {effect} (principal, action, resource) when {{ {condition} }};\n')
    spread = [clauses[start :: len(places)] for start in range(len(places))]
    return [
        law("".join(part[at : at + per_law]), place, f"L{place}-{at}")
        for place, part in zip(places, spread, strict=True)
        for at in range(0, len(part), per_law)
    ]


def each_us(calls: Iterable[Callable[[], object]], seconds: float) -> float:
    """Microseconds of one call, going through `calls`."""
    done, started = 0, time.perf_counter()
    for call in calls:
        call()
        done += 1
        if time.perf_counter() - started >= seconds:
            break
    return (time.perf_counter() - started) / done * 1e6


def requests(laws: list[Any], *, known: bool) -> Iterator[DecisionInput]:
    """Requests without end: of 50 identities in turn for 200 data sets in turn, or each for a data set never seen before."""
    for number in itertools.count():
        name = number % 200 if known else number
        yield facts(
            laws,
            subject={"identity": f"{number % 50:064x}"},
            resource={"id": f"{'a' if known else 'b'}{name:063x}", "rows": 10 + name % 7},
        )


def prepared(case: DecisionInput, alone: cedarpy.PolicySet) -> Callable[[], object]:
    """Cedar's own answer to a request, in which nothing is left to do but to ask for it."""
    asked = question(case)
    request = {
        "principal": {"type": "Identity", "id": asked.principal},
        "action": {"type": "Action", "id": asked.action},
        "resource": {"type": "DataSet", "id": asked.resource},
        "context": asked.context,
    }
    entities = [*asked.lasting, *asked.passing]
    assert cedarpy.is_authorized(request, alone, entities).allowed
    return lambda: cedarpy.is_authorized(request, alone, entities)


def decisions(seconds: float) -> list[dict[str, Any]]:
    """Our decision against cedarpy's authorizer with everything prepared for it."""
    rows = []
    for count, known in itertools.product((10, 200, 2000), (True, False)):
        laws = policies(count)
        alone = cedarpy.PolicySet.from_str("\n".join(one.text for one in laws))
        drawn = requests(laws, known=known)
        pairs = []
        for _ in range(ROUNDS):
            cases = list(itertools.islice(drawn, 400))
            assert decide(cases[0]).decision == "permit"
            theirs = [prepared(case, alone) for case in cases]
            ours = [partial(decide, case) for case in cases]
            # Each case once a round: what is new to the engine must be new in every call.
            pairs.append((each_us(ours, seconds / ROUNDS), each_us(theirs, seconds / ROUNDS)))
        rows.append(
            {
                "policies": count,
                "data_sets": "known" if known else "new",
                "decision_us": round(statistics.median(one for one, _ in pairs), 1),
                "cedarpy_us": round(statistics.median(other for _, other in pairs), 1),
                "ratio": round(statistics.median(one / other for one, other in pairs), 2),
            }
        )
    return rows


async def proofs(seconds: float) -> dict[str, Any]:
    """Views that the destination's chaincode verifies and imports."""
    world = await pinned_world()
    challenge = await world.sent("share")
    proof = (await world.outgoing(challenge)).bytes()
    destination, done, started = world.destination, 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        await destination._run("Finance", None, Crossing.accept, (challenge, proof), {})
        done += 1
    return {"bytes": len(proof), "per_second": round(done / (time.perf_counter() - started), 1)}


async def releases(runtime: str, seconds: float) -> dict[str, Any]:
    """Request, decision and release, end to end, against plain read-modify-write on the same network.

    Both with the same endorsers, from this process, `IN_FLIGHT` at a time, and until the commit status of each transaction. A
    release is three transactions (file, decide, deliver) and the owner's sealed reading in between.
    """
    default = default_topology()
    probe = default.chaincodes[1].model_copy(update={"name": "probe", "module": PROBE})
    assert probe.channels == (CHANNEL,)
    topology = default.model_copy(update={"chaincodes": (*default.chaincodes, probe)})
    with tempfile.TemporaryDirectory(prefix="sovchain-bench-") as folder:
        async with Network.up(topology, runtime, Path(folder) / "network") as network, AsyncExitStack() as stack:
            net = await attacked(network, stack)
            user = (await stack.enter_async_context(network.connect("Finance"))).network(CHANNEL)
            owner = (await stack.enter_async_context(network.connect("Government"))).network(CHANNEL)
            asking, giving, counter = Sovereign(user), Sovereign(owner), user.contract("probe")

            keys = itertools.count()

            async def plain(worker: int) -> None:
                # 500 keys in turn: the endorsers of the next change of a key have committed its last one.
                await counter.submit(Probe.add, f"key-{next(keys) % 500}", 1)

            async def released(worker: int) -> None:
                answer = await asking.request(net.dataset, "credit-assessment")
                assert answer.decision == "permit"
                await giving.reached(answer.decided)
                await giving.release(answer.request)

            rates = {}
            for name, once in (("read_modify_write", plain), ("release", released)):
                await rate(once, seconds / 4)
                rates[name] = round(await rate(once, seconds), 1)
    return {
        "runtime": runtime,
        "in_flight": IN_FLIGHT,
        **rates,
        "ratio": round(rates["release"] / rates["read_modify_write"], 2),
    }


async def rate(once: Callable[[int], Awaitable[None]], seconds: float) -> float:
    """How often a second something is done, `IN_FLIGHT` at a time."""
    started, done = time.perf_counter(), 0

    async def worker(number: int) -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            await once(number)
            done += 1

    async with asyncio.TaskGroup() as group:
        for number in range(IN_FLIGHT):
            group.create_task(worker(number))
    return done / (time.perf_counter() - started)


class _View:
    """Committed state of the harness as an auditor replays it."""

    def __init__(self, world: LawWorld) -> None:
        self._state, self._namespace = world.harness.state, world.harness.name

    async def get(self, key: str) -> bytes | None:
        return self._state.get(self._namespace, key)

    async def range(self, start: str, end: str) -> AsyncIterator[tuple[str, bytes]]:
        for key, value, _ in self._state.range(self._namespace, start, end):
            yield key, value


async def receipts(count: int) -> dict[str, Any]:
    """Receipts computed again from state, as the auditor does it, and compared byte by byte."""
    world = await LawWorld(SPEC.harness()).found()
    dataset = await world.share()
    receipt = await world.ask("Finance", dataset)
    view, process = _View(world), psutil.Process()
    world.harness.now += timedelta(days=1)
    expected = encode_record(receipt)
    decider = Decider(receipt.decided_by, receipt.decider)
    memory, started = [process.memory_info().rss], time.perf_counter()
    for number in track(range(count), "receipts", console=_CONSOLE):
        again = await recompute_receipt(
            view,
            receipt.request,
            transaction_id=receipt.id,
            timestamp=receipt.decided_at,
            channel=world.harness.channel,
            decider=decider,
        )
        assert again == expected
        if number % 1000 == 0:
            memory.append(process.memory_info().rss)
    return {
        "receipts": count,
        "per_second": round(count / (time.perf_counter() - started), 1),
        "memory_growth_mib": round((max(memory) - memory[0]) / 2**20, 1),
    }


def main() -> None:
    """Measure, and print text and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--receipts", type=int, default=100_000, help="how many receipts are computed again")
    parser.add_argument(
        "--network",
        action="append",
        choices=("embedded", "native", "docker"),
        help="also whole releases on it; repeatable",
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds for each figure")
    parser.add_argument("--only", choices=("decision", "proofs", "audit", "releases"), help="one part instead of all")
    chosen = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "decision": lambda: decisions(chosen.seconds),
        "proofs": lambda: asyncio.run(proofs(chosen.seconds)),
        "audit": lambda: asyncio.run(receipts(chosen.receipts)),
        "releases": lambda: [asyncio.run(releases(runtime, chosen.seconds)) for runtime in chosen.network or ()],
    }
    result = {name: part() for name, part in parts.items() if chosen.only in (None, name)}
    for line in said(result):
        _CONSOLE.print(line)
    text = json.dumps(result, indent=2)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")


def said(result: dict[str, Any]) -> Iterator[str]:
    """The figures in words."""
    for row in result.get("decision", ()):
        yield (
            f"decision, {row['policies']} policies, {row['data_sets']} data sets: {row['decision_us']} us,"
            f" cedarpy alone {row['cedarpy_us']} us, {row['ratio']}x"
        )
    if proof := result.get("proofs"):
        yield f"views verified and imported: {proof['per_second']}/s of {proof['bytes']} bytes"
    if audit := result.get("audit"):
        yield (
            f"receipts computed again: {audit['receipts']} at {audit['per_second']}/s,"
            f" memory grew by {audit['memory_growth_mib']} MiB"
        )
    for row in result.get("releases", ()):
        yield (
            f"request, decision, release on {row['runtime']}: {row['release']}/s, plain read-modify-write"
            f" {row['read_modify_write']}/s, {row['ratio']}x, {row['in_flight']} in flight"
        )


if __name__ == "__main__":
    main()
