"""Starting, stopping and reopening a whole ledger, and clients that leave or are left."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from ledger_world import World
from raw_chaincode import Answer, Stub
from service_world import CHANNEL, ORDERER, Services, Tls, failure, host_of, services

from sovchain.ledger import AddressInUseError, EmbeddedLedger, LedgerError, NodeConfigurationError, NodeSpec
from sovchain.ledger.errors import GenesisRefused
from sovchain.ledger.node import DirectoryInUseError

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def net(two_organisations: World, tmp_path: Path) -> Services:
    """Two organisations, not started."""
    return Services(tmp_path / "net", two_organisations, Tls.create())


def specs(net: Services, **changes: Any) -> tuple[list[NodeSpec], list[NodeSpec]]:
    """(peers, ordering nodes) with `changes` to the first peer."""
    peers = [net._spec(msp_id, host_of(msp_id), part.peer, b"", ()) for msp_id, part in net.world.organisations.items()]
    return [dataclasses.replace(peers[0], **changes), *peers[1:]], [
        net._spec("OrdererMSP", ORDERER, net.world.orderer, b"", ())
    ]


async def start(net: Services, peers: Sequence[NodeSpec], orderers: Sequence[NodeSpec]) -> EmbeddedLedger:
    return await EmbeddedLedger.start(net.directory, peers=peers, orderers=orderers)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"listen": "nowhere"}, "listen address 'nowhere' is not address:port"),
        ({"listen": "127.0.0.1:70000"}, "is not address:port"),
        ({"listen": "127.0.0.1:²"}, "is not address:port"),
        ({"listen": "127.0.0.1:" + "1" * 5000}, "is not address:port"),
        ({"host": host_of("Org2MSP")}, "two nodes have this host name"),
        ({"certificate_pem": b"no certificate"}, "cannot start peer0.org1msp"),
        ({"private_key_pem": b"no key"}, "cannot start peer0.org1msp"),
        ({"msp_config": b"\xff\xff"}, "not a serialised FabricMSPConfig"),
    ],
)
async def test_a_node_that_cannot_be_used_is_named(net: Services, changes: dict[str, Any], reason: str) -> None:
    peers, orderers = specs(net, **changes)
    with pytest.raises(NodeConfigurationError, match=reason) as caught:
        await start(net, peers, orderers)
    assert caught.value.node in (host_of("Org1MSP"), host_of("Org2MSP"))
    peers, orderers = specs(net)
    await (await start(net, peers, orderers)).stop(grace_s=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"tls_certificate_pem": b"no certificate"},
        {"tls_private_key_pem": b"no key"},
        {"tls_private_key_pem": Tls.create().issue("other")[1]},
        {"tls_root_pems": b"no root", "client_auth": True},
    ],
    ids=["certificate", "key", "another key", "roots"],
)
async def test_tls_material_that_cannot_be_used_is_not_taken_for_a_busy_port(
    net: Services, changes: dict[str, Any]
) -> None:
    peers, orderers = specs(net, **changes)
    with pytest.raises(NodeConfigurationError, match="TLS"):
        await start(net, peers, orderers)


async def test_a_ledger_without_ordering_nodes_or_for_others_channels_is_refused(net: Services) -> None:
    peers, orderers = specs(net)
    with pytest.raises(NodeConfigurationError, match="there is no ordering node"):
        await start(net, peers, [])
    other = World(("Org1MSP",))
    other_orderer = dataclasses.replace(orderers[0], msp_id="ElsewhereMSP")
    ledger = await start(net, peers, [other_orderer])
    try:
        with pytest.raises(LedgerError, match="none of its ordering organisations"):
            await ledger.join(other.genesis())
        for block in (b"", b"\xff\xff"):
            with pytest.raises(GenesisRefused):
                await ledger.join(block)
        assert dict(ledger.channels) == {}
    finally:
        await ledger.stop(grace_s=0)


async def test_an_address_and_a_directory_belong_to_one_ledger_at_a_time(net: Services, tmp_path: Path) -> None:
    await net.start()
    try:
        peers, orderers = specs(net)
        with pytest.raises(DirectoryInUseError, match="another process has it open"):
            await start(net, peers, orderers)
        taken = net.ledger.address_of(host_of("Org1MSP"))
        peers, orderers = specs(net, listen=taken)
        net.directory = tmp_path / "second"
        with pytest.raises(AddressInUseError) as caught:
            await start(net, peers, orderers)
        assert (caught.value.address, caught.value.node) == (taken, host_of("Org1MSP"))
    finally:
        await net.stop()


async def test_channels_packages_and_state_are_there_after_a_restart(two_organisations: World, tmp_path: Path) -> None:
    async with services(tmp_path, two_organisations) as first:
        chaincode = await first.deploy("cc", "OR('Org1MSP.peer')")
        txid, _, number = await first.transact("put", "kept", "1")
        package = first.ledger._registry.peers["Org1MSP"].packages.read(chaincode.package_id)
        address = chaincode.address
        await first.ledger.stop(grace_s=0)
        again = Services(tmp_path, two_organisations, Tls.create())
        await again.start()
        try:
            assert list(again.ledger.channels) == [CHANNEL]
            assert await again.status(txid) == (0, number)
            assert again.ledger._registry.peers["Org1MSP"].packages.read(chaincode.package_id) == package
            assert chaincode.address == address
            assert (await again.evaluate(again.proposal("get", "kept")[1])).payload == b"1"
            await again.transact("put", "more", "1")
        finally:
            await again.stop()
            await again.ledger.stop()  # a second time changes nothing


async def test_clients_that_wait_are_let_go_when_the_ledger_stops(two_organisations: World, tmp_path: Path) -> None:
    async with services(tmp_path, two_organisations) as net:
        waiting = asyncio.ensure_future(failure(net.status("0" * 64, timeout_s=60)))
        await failure(net.status("t", channel_id="nowhere"))
        await net.ledger.stop(grace_s=0)
        refused = await asyncio.wait_for(waiting, 10)
        assert refused.code in (UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_client_that_leaves_during_endorsement_leaves_no_snapshot_and_no_transaction(
    two_organisations: World, tmp_path: Path
) -> None:
    async with services(tmp_path, two_organisations) as net:
        chaincode = await net.deploy("cc", "AND('Org1MSP.peer', 'Org2MSP.peer')")
        stubs: list[Stub] = []
        arrived = asyncio.Event()

        async def hold(stub: Stub) -> Answer | None:
            await stub.get("a")
            stubs.append(stub)
            arrived.set()
            return None

        chaincode.functions["hold"] = hold
        leaving = asyncio.ensure_future(net.endorse(net.proposal("hold")[1]))
        await arrived.wait()
        peer = net.ledger._registry.peers["Org1MSP"]
        (stream,) = (instance._stream for instance in peer.chaincodes._dialled.values())
        assert stream is not None
        assert len(stream._contexts) == 1
        leaving.cancel()
        async with asyncio.timeout(10):
            while stream._contexts:
                await net.transact("put", "a", "1")
        with pytest.raises(Exception, match="no ledger context"):
            await stubs[0].put("late", b"1")
        assert (await net.evaluate(net.proposal("get", "late")[1])).payload == b""


async def test_more_calls_than_a_service_takes_are_refused_and_not_queued(
    two_organisations: World, tmp_path: Path
) -> None:
    """The Gateway takes 500 calls at a time, as peer.limits.concurrency.gatewayService of core.yaml."""
    async with services(tmp_path, two_organisations) as net:
        waiting = [asyncio.ensure_future(net.status(f"{number:064}", timeout_s=60)) for number in range(500)]
        async with asyncio.timeout(20):
            while len(net.ledger.channels[CHANNEL]._waiters) < 500:
                await net.process(net.proposal("x", chaincode="none")[1])
        refused = await failure(net.status("t"))
        assert refused.code is grpc.StatusCode.UNKNOWN
        assert refused.text == "too many requests for /gateway.Gateway, exceeding concurrency limit (500)"
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with asyncio.timeout(20):
            while net.ledger.channels[CHANNEL]._waiters:
                await net.process(net.proposal("x", chaincode="none")[1])
        refused = await failure(net.evaluate(net.proposal("x", chaincode="none")[1]))
        assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
