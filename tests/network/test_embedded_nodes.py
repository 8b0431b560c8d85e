"""A network on the embedded ledger whose organisation has two peers, through the network's own doors."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from smallnetwork import PROBE, SECOND_PEER, WIDE, small_topology

from sovchain.client import CommitRejected, Contract, Gateway, Profile
from sovchain.network import Network
from sovchain.network.material import Material
from sovchain.network.observe import observe
from sovchain.network.profiles import profile_path
from sovchain.network.runtimes.access import orderer_admin, site_of
from sovchain.testing.conformance.chaincode import Probe


async def test_two_peers_of_an_organisation_one_of_which_lags(tmp_path: Path) -> None:
    """Deployed on both, reached by the profile, seen by `status`; administration at the addresses of the profile.

    And a rejected transaction, whose error says which clause was not met and whose signature was missing.
    """
    async with Network.up(small_topology(), "embedded", tmp_path / "network") as network:
        path = profile_path(network.directory / "connections", "Alpha")
        document = json.loads(path.read_text())
        assert SECOND_PEER in document["peers"]
        async with httpx.AsyncClient(verify=False, trust_env=False) as client:
            for node in document["peers"].values():
                assert (await client.get(f"{node['operationsUrl']}/healthz")).json()["status"] == "OK"
        assert all(node["adminUrl"] and node["operationsUrl"] for node in document["orderers"].values())
        async with Gateway.connect(Profile.load(path), network.identity("Alpha")) as gateway:
            contract = gateway.network(WIDE).contract(PROBE)
            await contract.submit(Probe.put, "key", b"1")
            await network.ledger.lag(SECOND_PEER)
            done = await contract.submit(Probe.put, "key", b"2")
            states = {state.host: state for state in await network.ledger.nodes()}
            assert states[SECOND_PEER].heights[WIDE] == done.block_number
            seen = await observe(Network.status(network.directory))
            (channel,) = seen.channels
            heights = {chain.host: chain.height for chain in channel.peers}
            assert heights[SECOND_PEER] < max(heights.values())
            assert channel.leader, "an ordering node leads"
            await network.ledger.catch_up(SECOND_PEER)
            with pytest.raises(CommitRejected) as caught:
                await contract.with_options(organizations=["AlphaMSP"]).submit(Probe.put, "key", b"3")
            assert "was not met: OutOf(2, 'AlphaMSP.peer', 'BetaMSP.peer', 'GammaMSP.peer')" in caught.value.reason
            assert "signed by: AlphaMSP (peer); missing:" in caught.value.reason
            assert caught.value.reason in str(caught.value)
            assert await contract.evaluate(Probe.get, "key") == b"2"
            heights = {
                chain.host: chain.height
                for chain in (await observe(Network.status(network.directory))).channels[0].peers
            }
            assert len(set(heights.values())) == 1
            await _one_ordering_node_leaves(network, contract)


async def _one_ordering_node_leaves(network: Network, contract: Contract) -> None:
    """The others go on, and `status` names it; by its first block it is on the channel again."""
    site = site_of(Network.status(network.directory))
    organization = network.topology.ordering_organizations[0]
    material = Material(network.topology, network.directory / "organizations").organization(organization.name)
    admin = orderer_admin(site, material)
    try:
        assert await admin.channels() == {WIDE}
        await admin.remove(WIDE)
        assert await admin.channel(WIDE) is None
        await contract.submit(Probe.put, "key", b"without it")
        (channel,) = (await observe(Network.status(network.directory))).channels
        away = next(chain for chain in channel.orderers if chain.host == organization.orderer_host)
        assert away.problem == "it has not joined the channel"
        assert channel.leader not in ("", away.host)
        await admin.join(WIDE, (network.directory / "channels" / f"{WIDE}.block").read_bytes())
        state = await admin.channel(WIDE)
        assert state is not None
        assert (state.relation, state.status) == ("consenter", "active")
    finally:
        await admin.close()
