"""Snapshots of real peers: taken under load, the same at every organisation, and enough for a new peer to join from."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fabricprograms import fabric_programs
from smallnetwork import PROBE, SECOND_PEER, WIDE, small_topology

from sovchain.network import Network, NetworkError, SnapshotFailed
from sovchain.network.snapshots import agreeing, copy_snapshot, read_snapshot
from sovchain.protocol.proposals import Invocation
from sovchain.testing.conformance.chaincode import Probe


async def ask(network: Network, host: str, key: str) -> bytes:
    """What the chaincode says on one peer."""
    async with AsyncExitStack() as stack:
        peer = network._administered(host, stack)
        call = Invocation(WIDE, PROBE, (b"Probe:get", key.encode()))
        return (await peer.propose("query", PROBE, peer.administrator.proposal(call))).response.payload


async def emptied(network: Network, host: str) -> None:
    """Start a peer on an empty folder, as a new one that has joined nothing."""
    assert network.faults is not None
    await network.faults.kill(host)
    shutil.rmtree(network.directory / "nodes" / host / "data")
    (network.directory / "nodes" / host / "data").mkdir()
    assert network._nodes is not None
    await network._nodes.runtime.processes[host].start()  # type: ignore[attr-defined]  # of the native runtime
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        peer = network._administered(host, stack)
        while True:
            try:
                assert await peer.channels() == frozenset()
                return
            except NetworkError:
                await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("version", [pytest.param("2.5", marks=pytest.mark.long), "3.1"])
async def test_a_snapshot_under_load_is_the_same_everywhere_and_a_new_peer_joins_from_it(
    version: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(fabric_programs, version)
    async with Network.up(small_topology(version), "native", tmp_path / "network") as network:
        async with network.connect("Alpha") as gateway:
            contract = gateway.network(WIDE).contract(PROBE)
            await contract.submit(Probe.put, "before", b"1")
            written, over = 0, False

            async def load() -> None:
                nonlocal written
                while not over:
                    await contract.submit(Probe.put, f"key{written}", b"value")
                    written += 1

            loading = asyncio.create_task(load())
            taken = await network.snapshot(WIDE)
            over = True
            await loading
            assert written > 0
        assert set(taken) == {f"peer0.{name}.small.example" for name in ("alpha", "beta", "gamma")}
        assert agreeing(list(taken.values()))
        snapshot = copy_snapshot(taken["peer0.beta.small.example"], tmp_path / "copy")

        with pytest.raises(SnapshotFailed, match="cannot be less than the last committed block"):
            await network.snapshot(WIDE, ["Alpha"], 1)
        with pytest.raises(SnapshotFailed, match="it has joined the channel already"):
            await network.join_by_snapshot(SECOND_PEER, snapshot.folder)
        again = await network.snapshot(WIDE, ["Alpha"])
        (number,) = {found.block_number for found in again.values()}
        assert await network.snapshot(WIDE, ["Alpha"], number) == again, "one that is there is taken as it is"

        await emptied(network, SECOND_PEER)
        height = await network.join_by_snapshot(SECOND_PEER, snapshot.folder)
        assert height > snapshot.block_number
        await network.deploy(PROBE)  # the new peer has no chaincode yet
        assert network._nodes is not None
        await network._nodes.runtime.ready()
        async with network.connect("Alpha") as gateway:
            await gateway.network(WIDE).contract(PROBE).submit(Probe.put, "after", b"2")
        async with asyncio.timeout(30):
            while len({chain.height for chain in (await network.observe()).channels[0].peers}) > 1:
                await asyncio.sleep(0.1)
        seen = await network.observe()
        assert seen.channels[0].agreement == "same"
        assert seen.problems() == []
        assert await ask(network, SECOND_PEER, "before") == b"1"
        assert await ask(network, SECOND_PEER, "after") == b"2"
        assert read_snapshot(snapshot.folder) == snapshot
