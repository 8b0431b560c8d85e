"""Blocks of a real network, judged and replayed by the embedded ledger to the same codes and commit hashes."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2
from fabricprograms import VERSIONS, fabric_programs
from smallnetwork import PROBE, WIDE, small_topology

from sovchain.client import CommitRejected
from sovchain.network import Network
from sovchain.network.runtimes.programs import Programs
from sovchain.protocol.blocks import block_commit_hash, parse_block, transactions_filter
from sovchain.testing.conformance.chaincode import Probe

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture(params=VERSIONS)
def programs(request: pytest.FixtureRequest) -> Programs:
    """Fabric's programs, of each version in turn."""
    return fabric_programs(request.param)


async def test_a_real_channels_blocks_are_replayed_to_the_same_commit_hashes(
    programs: Programs, tmp_path: Path
) -> None:
    """From a peer's Deliver service, in files; the fork of the network goes on, and Fabric reads what it exports."""
    version = ".".join(programs.version.split(".")[:2])
    real, files = tmp_path / "real", tmp_path / "blocks"
    files.mkdir()
    up = Network.up(small_topology(version), "native", real)
    async with up as network, network.connect("Alpha", "User1") as gateway:
        channel = gateway.network(WIDE)
        contract = channel.contract(PROBE)
        for number in range(5):
            await contract.submit(Probe.put, f"key{number}", b"value")
        own = contract.with_options(organizations=["AlphaMSP"])
        await own.submit(Probe.put_private, "_implicit_org_AlphaMSP", "secret", b"value")
        with pytest.raises(CommitRejected):
            await own.submit(Probe.put, "key", b"one endorsement is too few")
        await contract.submit(Probe.announce, "event", "told", b"payload")
        await contract.submit(Probe.put, "key0", b"again")
        height = (await channel.chain_info()).height
        async with channel.blocks(0, height - 1) as blocks:
            theirs = [block async for block in blocks]
    for block in theirs:
        (files / f"{block.header.number}.block").write_bytes(block.SerializeToString())
    codes = {code for block in theirs for code in transactions_filter(block)}
    assert len(codes) > 1, "valid ones and others"

    async with Network.up(None, "embedded", tmp_path / "fork", keys_of=real) as network:
        paths = [files / f"{number}.block" for number in range(height)]
        assert await network.ledger.import_blocks(WIDE, paths) == height
        assert await network.ledger.export_blocks(WIDE, tmp_path / "exported") == height
        topology = small_topology(version)
        again = topology.chaincodes[0].model_copy(update={"version": "fork"})
        await network.apply(topology.model_copy(update={"chaincodes": (again,)}))
        async with network.connect("Beta", "User1") as gateway:
            contract = gateway.network(WIDE).contract(PROBE)
            assert await contract.evaluate(Probe.get, "key0") == b"again"
            assert (await contract.submit(Probe.put, "key0", b"forked")).block_number > height
    for number, expected in enumerate(theirs):
        path = tmp_path / "exported" / f"{number}.block"
        ours = parse_block(path.read_bytes())
        assert ours.header == expected.header
        assert transactions_filter(ours) == transactions_filter(expected), f"codes of block {number}"
        assert block_commit_hash(ours) == block_commit_hash(expected), f"commit hash of block {number}"
        assert ours.SerializeToString() == expected.SerializeToString(), f"block {number} to the byte"
    program = shutil.which("configtxlator", path=str(programs.folder))
    assert program is not None
    for number in (0, height - 1):
        path = tmp_path / "exported" / f"{number}.block"
        command = [program, "proto_decode", "--type", "common.Block", "--input", str(path)]
        decoded = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
        assert int(json.loads(decoded.stdout)["header"].get("number", 0)) == number
    assert common_pb2.Block.FromString((tmp_path / "exported/0.block").read_bytes()).header.number == 0
