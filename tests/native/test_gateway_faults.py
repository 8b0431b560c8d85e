"""A real peer's gateway that dies, freezes, falls silent, slows down or is cut off, under traffic.

Whatever happens, no caller hangs, none is told anything that the blocks contradict, who asks after an unknown outcome learns
it, and a reader of events gets each event once and in order. What the traffic came to is printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fabricprograms import fabric_programs
from load import PATIENCE, Told, codes, more, wrong_outcomes
from smallnetwork import PROBE, SECOND_PEER, WIDE, small_topology
from tcpproxy import TcpProxy

from sovchain.client import CommitRejected, FabricError, FileCheckpointer, Gateway, OutcomeUnknown
from sovchain.client import _endpoint as endpoints
from sovchain.network import Network
from sovchain.testing.conformance.chaincode import Probe

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PEER = "peer0.alpha.small.example"
CALLERS = 8
CALL_MOST_S = PATIENCE.connect_s + PATIENCE.endorse_s + PATIENCE.submit_s + PATIENCE.commit_s + 5
NOTICED_S = 20.0
"""The promise for a silent partition."""
FAULT_S = 10.0


@dataclass
class Scene:
    """A native network whose first peer of Alpha is reached through a proxy."""

    network: Network
    directory: Path
    proxy: TcpProxy
    profile: Mapping[str, Any]
    told: Told = field(default_factory=Told)
    unknown: list[OutcomeUnknown] = field(default_factory=list)
    slowest_s: float = 0.0
    events: list[tuple[int, str]] = field(default_factory=list)

    def alone(self) -> Mapping[str, Any]:
        """The profile without the second peer."""
        profile = json.loads(json.dumps(self.profile))
        profile["organizations"]["Alpha"]["peers"].remove(SECOND_PEER)
        return dict(profile)

    @property
    def pid(self) -> int:
        """The process of the peer."""
        assert self.network._nodes is not None
        runtime: Any = self.network._nodes.runtime
        return int(runtime.processes[PEER].pid)


@asynccontextmanager
async def scene(version: str, folder: Path) -> AsyncIterator[Scene]:
    await asyncio.to_thread(fabric_programs, version)
    directory = folder / "network"
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(Network.up(small_topology(version), "native", directory))
        profile = json.loads(network.profile("Alpha").read_bytes())
        proxy = await stack.enter_async_context(TcpProxy(int(profile["peers"][PEER]["url"].rpartition(":")[2])))
        profile["peers"][PEER]["url"] = f"grpcs://{proxy.address}"
        yield Scene(network, directory, proxy, profile)


@asynccontextmanager
async def traffic(scene: Scene, profile: Mapping[str, Any], checkpoint: Path) -> AsyncIterator[Gateway]:
    """Callers who submit one transaction after the other through one gateway, and a reader of their events."""
    identity = scene.network.identity("Alpha")
    async with Gateway.connect(profile, identity, timeouts=PATIENCE) as gateway:
        gateway._connection.prefer(gateway._connection.endpoints[0])
        contract = gateway.network(WIDE).contract(PROBE)

        async def call(caller: int) -> None:
            turn = 0
            while True:
                turn += 1
                started = time.monotonic()
                try:
                    done = await contract.submit(Probe.announce, f"{caller}-{turn}", "Called", b"x")
                    scene.told.note("committed", done.transaction_id)
                except CommitRejected as error:
                    scene.told.note("rejected", error.transaction_id)
                except OutcomeUnknown as error:
                    scene.told.note("unknown", error.transaction_id)
                    scene.unknown.append(error)
                except FabricError as error:
                    scene.told.note(f"not sent: {type(error).__name__}")
                    await asyncio.sleep(0.1)
                scene.slowest_s = max(scene.slowest_s, time.monotonic() - started)

        async def read() -> None:
            while True:
                try:
                    async with contract.events(start=0, checkpoint=FileCheckpointer(checkpoint)) as events:
                        async for event in events:
                            scene.events.append((event.block_number, event.transaction_id))
                except FabricError as error:
                    scene.told.note(f"events: {type(error).__name__}")
                    await asyncio.sleep(0.2)

        tasks = [asyncio.create_task(call(number)) for number in range(CALLERS)]
        reading = asyncio.create_task(read())
        try:
            yield gateway
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await settle(scene, gateway)
        finally:
            for task in (*tasks, reading):
                task.cancel()
            await asyncio.gather(*tasks, reading, return_exceptions=True)


async def settle(scene: Scene, gateway: Gateway) -> None:
    """Ask after what is unknown, and wait until the reader has every event of what is known to have committed."""
    for unknown in scene.unknown:
        try:
            status = await gateway.network(WIDE).commit(unknown.transaction_id).status(timeout_s=3)
            scene.told.outcomes[unknown.transaction_id] = "committed" if status.successful else "rejected"
            scene.told.note("asked after")
        except OutcomeUnknown:
            scene.told.note("still unknown")
    committed = {txid for txid, outcome in scene.told.outcomes.items() if outcome == "committed"}
    async with asyncio.timeout(30):
        while not committed <= {txid for _, txid in scene.events}:
            await asyncio.sleep(0.1)


def check(scene: Scene, label: str) -> None:
    """After the network is down: what was told is what the blocks say, and the events are theirs, each once, in order."""
    there = codes(scene.directory, WIDE)
    print(f"\n{label}: {dict(scene.told.counts)}, slowest call {scene.slowest_s:.1f} s, {len(scene.events)} events")
    assert wrong_outcomes(scene.told, there) == {}
    # What nobody could tell after all was well again has never reached the ordering service.
    assert {txid for txid, outcome in scene.told.outcomes.items() if outcome == "unknown"} & there.keys() == set()
    found = [txid for _, txid in scene.events]
    assert len(found) == len(set(found)), "an event came twice"
    assert [number for number, _ in scene.events] == sorted(number for number, _ in scene.events)
    order = {txid: place for place, txid in enumerate(there)}
    assert [order[txid] for txid in found] == sorted(order[txid] for txid in found), "out of order"
    assert scene.slowest_s < CALL_MOST_S


async def kill_and_start(scene: Scene) -> None:
    faults = scene.network.faults
    assert faults is not None
    await faults.kill(PEER)
    await asyncio.sleep(3)
    await faults.start(PEER)


async def freeze(scene: Scene) -> None:
    os.kill(scene.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(FAULT_S)
    finally:
        os.kill(scene.pid, signal.SIGCONT)


async def partition(scene: Scene) -> None:
    scene.proxy.partition()
    await asyncio.sleep(FAULT_S)
    scene.proxy.heal()


async def slow_down(scene: Scene) -> None:
    scene.proxy.delay_s = 0.3
    await asyncio.sleep(FAULT_S)
    scene.proxy.delay_s = 0.0


FAULTS = {"killed": kill_and_start, "frozen": freeze, "partitioned": partition, "slow": slow_down}


@pytest.mark.parametrize("version", ["2.5", "3.1"])
async def test_the_only_gateway_fails_in_every_way_and_comes_back(version: str, tmp_path: Path) -> None:
    async with scene(version, tmp_path) as on:
        async with traffic(on, on.alone(), tmp_path / "place"):
            for name, fault in FAULTS.items():
                await more(on.told, 20)
                before, failed = on.told.counts["committed"], sum(on.told.counts.values())
                await fault(on)
                during = sum(on.told.counts.values()) - failed
                started = time.monotonic()
                await more(on.told, 20, timeout_s=60)
                back_s = time.monotonic() - started
                print(f"{name}: {during} calls ended during it, 20 more committed {back_s:.1f} s after it")
                assert on.told.counts["committed"] > before
        assert on.proxy.bytes_down > 200_000, "the traffic went past the proxy"
    check(on, f"{version}, one gateway")
    assert on.told.counts["committed"] >= 160


@pytest.mark.parametrize("fault", ["frozen", "partitioned"])
async def test_a_silent_gateway_is_left_for_the_second_one_in_time(fault: str, tmp_path: Path) -> None:
    """Without help from TCP: the process is stopped, or its packets go nowhere. It stays so until the end."""
    async with scene("3.1", tmp_path) as on, traffic(on, on.profile, tmp_path / "place") as gateway:
        await more(on.told, 30)
        assert on.proxy.bytes_up > 10_000, "the traffic went past the proxy"
        try:
            if fault == "frozen":
                os.kill(on.pid, signal.SIGSTOP)
            else:
                on.proxy.partition()
            started = time.monotonic()
            await more(on.told, 30, timeout_s=NOTICED_S + 15)
            took_s = time.monotonic() - started
            assert gateway._connection.order()[0].address != on.proxy.address
            await asyncio.sleep(2)
        finally:
            os.kill(on.pid, signal.SIGCONT)
            on.proxy.heal()
        print(f"{fault}: 30 more committed {took_s:.1f} s after it")
        assert took_s < NOTICED_S + 5
    check(on, fault)
    assert endpoints.SILENCE_S + endpoints.PROBE_S < NOTICED_S


@pytest.mark.parametrize("version", ["2.5", "3.1"])
async def test_a_connection_cut_at_every_point_of_a_submit_never_lies(version: str, tmp_path: Path) -> None:
    """Cut after each share of the bytes that a submit takes, in each direction."""
    outcomes: Counter[str] = Counter()
    async with scene(version, tmp_path) as on:
        # gRPC's own pause before it dials again would be most of the time.
        async with Gateway.connect(on.alone(), on.network.identity("Alpha"), timeouts=PATIENCE) as gateway:
            contract = gateway.network(WIDE).contract(PROBE)
            await contract.submit(Probe.announce, "warm", "Called", b"x")
            before = on.proxy.bytes_up, on.proxy.bytes_down
            for number in range(3):
                await contract.submit(Probe.announce, f"measure {number}", "Called", b"x")
            lengths = (on.proxy.bytes_up - before[0]) // 3, (on.proxy.bytes_down - before[1]) // 3
            for down in (False, True):
                length = lengths[down]
                for at in range(1, length + 1, max(length // 60, 1)):
                    await gateway._connection.endpoints[0].ready()
                    on.proxy._allow(down, at)
                    try:
                        done = await contract.submit(Probe.announce, f"{down} {at}", "Called", b"x")
                        on.told.note("committed", done.transaction_id)
                    except OutcomeUnknown as unknown:
                        on.proxy._allow(down, None)
                        assert unknown.commit is not None
                        status = await unknown.commit.status(timeout_s=20)
                        on.told.outcomes[unknown.transaction_id] = "committed" if status.successful else "rejected"
                        on.told.note("unknown, then known")
                    except FabricError as error:
                        on.told.note(f"not sent: {type(error).__name__}")
                    on.proxy._allow(down, None)
        cuts = on.proxy.cuts
    outcomes.update(on.told.counts)
    print(f"\n{version}: {cuts} cuts, {dict(outcomes)}")
    assert cuts > 100, "the cuts did not happen"
    assert wrong_outcomes(on.told, codes(on.directory, WIDE)) == {}


@pytest.mark.parametrize("cuts", [1000])
async def test_a_stream_of_events_that_is_cut_a_thousand_times_gives_each_event_once_and_in_order(
    cuts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after a random number of bytes, in the middle of handshakes, requests and events, while others go on committing."""
    monkeypatch.setattr("sovchain.client._stream.RECONNECT_PAUSES_S", (0.0,))
    monkeypatch.setattr("sovchain.client.events.ATTEMPTS_MAX", 100_000)
    chance = random.Random(5)
    async with scene("3.1", tmp_path) as on:
        stop = asyncio.Event()

        async def write(number: int) -> None:
            async with on.network.connect("Beta", timeouts=PATIENCE) as gateway:
                contract, turn = gateway.network(WIDE).contract(PROBE), 0
                while not stop.is_set():
                    turn += 1
                    done = await contract.submit(Probe.announce, f"{number}-{turn}", "Called", b"x" * 1000)
                    on.told.note("committed", done.transaction_id)

        async def cut() -> None:
            while on.proxy.cuts < cuts:
                if on.proxy.cut_after_down is None:
                    on.proxy.cut_after_down = chance.randrange(1, 12_000)
                await asyncio.sleep(0.005)
            on.proxy.cut_after_down = None
            stop.set()

        async def read(gateway: Gateway) -> None:
            contract = gateway.network(WIDE).contract(PROBE)
            async with contract.events(start=0, checkpoint=FileCheckpointer(tmp_path / "place")) as events:
                async for event in events:
                    on.events.append((event.block_number, event.transaction_id))

        identity = on.network.identity("Alpha")
        async with Gateway.connect(on.alone(), identity, commit_stream=False) as gateway, asyncio.timeout(840):
            reading = asyncio.create_task(read(gateway))
            await asyncio.gather(cut(), *(write(number) for number in range(2)))
            async with asyncio.timeout(30):
                while not on.told.outcomes.keys() <= {txid for _, txid in on.events}:
                    assert not reading.done() or reading.result()
                    await asyncio.sleep(0.1)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        on.told.counts["cuts"] = on.proxy.cuts
    check(on, "events")
    assert on.proxy.cuts >= cuts
    assert {txid for _, txid in on.events} == on.told.outcomes.keys()
    assert len(on.events) > 200
