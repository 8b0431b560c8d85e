"""A fork: another network's keys and first blocks, its blocks replayed, and the chaincode deployed anew to go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from smallnetwork import PROBE, WIDE, small_topology

from sovchain.network import Network, OriginRefused, default_topology
from sovchain.testing.conformance.chaincode import Probe


async def test_a_fork_goes_on_from_the_blocks_of_another_network(tmp_path: Path) -> None:
    topology = small_topology()
    async with Network.up(topology, "embedded", tmp_path / "origin") as network:
        async with network.connect("Alpha", "User1") as gateway:
            await gateway.network(WIDE).contract(PROBE).submit(Probe.put, "key", b"1")
        height = await network.ledger.export_blocks(WIDE, tmp_path / "blocks")
    files = [tmp_path / "blocks" / f"{number}.block" for number in range(height)]
    async with Network.up(None, "embedded", tmp_path / "fork", keys_of=tmp_path / "origin") as network:
        assert network.topology.chaincodes == ()
        assert await network.ledger.import_blocks(WIDE, files) == height
        again = topology.chaincodes[0].model_copy(update={"version": "fork"})
        await network.apply(topology.model_copy(update={"chaincodes": (again,)}))
        async with network.connect("Beta", "User1") as gateway:
            contract = gateway.network(WIDE).contract(PROBE)
            assert await contract.evaluate(Probe.get, "key") == b"1", "the state came with the blocks"
            assert (await contract.submit(Probe.put, "key", b"2")).block_number > height
    with pytest.raises(OriginRefused, match="holds a network already"):
        async with Network.up(None, "embedded", tmp_path / "fork", keys_of=tmp_path / "origin"):
            pass


async def test_what_is_no_network_and_another_runtime_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for runtime, origin, why in (
        ("native", tmp_path / "empty", "native runtime would run a second network"),
        ("embedded", tmp_path / "empty", "holds no network that was up"),
    ):
        with pytest.raises(OriginRefused, match=why):
            async with Network.up(default_topology(), runtime, tmp_path / "fork", keys_of=origin):
                pass
    assert not (tmp_path / "fork" / "organizations").exists()
