"""A read-only member asks and listens, and sends nothing: T-25, on the embedded ledger and, with `--long`, on Fabric's own programs.

Fabric lets writers alone propose, and a query is a proposal: whoever is to read would have to be a writer. A channel with read-only members
lets readers propose, and keeps who may send transactions narrow.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from changes import but
from fabricprograms import fabric_programs
from smallnetwork import PROBE, WIDE, small_topology

from sovchain.client import FabricError, SubmitError
from sovchain.network import Network
from sovchain.protocol.blocks import parse_block
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.testing.conformance.chaincode import Probe

pytestmark = pytest.mark.timeout(280)


@pytest.mark.parametrize("runtime", ["embedded", pytest.param("native", marks=pytest.mark.long)])
async def test_t25_a_read_only_member_asks_and_listens_and_sends_nothing(runtime: str, tmp_path: Path) -> None:
    if runtime == "native":
        await asyncio.to_thread(fabric_programs, "3.1")
    small = small_topology(organizations=[{"name": name} for name in ("Alpha", "Beta", "Gamma")])
    topology = but(small, "channels", WIDE, read_only=("Gamma",))
    async with Network.up(topology, runtime, tmp_path / "network") as network:
        async with network.connect("Alpha") as gateway:
            done = await gateway.network(WIDE).contract(PROBE).submit(Probe.put, "key", b"value")
        async with network.connect("Gamma") as gateway:
            channel = gateway.network(WIDE)
            await channel.reached(done.block_number)
            probe = channel.contract(PROBE)
            assert await probe.evaluate(Probe.get, "key") == b"value"
            block = await channel.contract("cscc").evaluate("GetConfigBlock", WIDE)
            with pytest.raises(FabricError, match="implicit policy evaluation failed") as caught:
                await probe.submit(Probe.put, "key", b"other")
            assert isinstance(caught.value, SubmitError)
            assert await probe.evaluate(Probe.get, "key") == b"value"
        async with network.connect("Gamma", "Admin") as gateway:
            # Its admin still keeps its own entry in the configuration, for which an admin's transaction is needed.
            await gateway.network(WIDE).contract(PROBE).submit(Probe.put, "other", b"value")
        bundle = ChannelBundle.from_block(parse_block(block))
    assert bundle.policy_for_acl("peer/Propose") == "/Channel/Application/Readers"
    assert bundle.policy_for_acl("peer/ChaincodeToChaincode") == "/Channel/Application/Writers"
