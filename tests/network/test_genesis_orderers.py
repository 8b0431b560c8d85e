"""Real ordering nodes of Fabric take our first blocks, elect a leader, and sign blocks that our own rules accept."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from fabricprograms import fabric_programs
from google.protobuf.timestamp_pb2 import Timestamp
from orderers import Orderer, start_orderer

from sovchain.network.checks import check
from sovchain.network.genesis import genesis_blocks, loopback_endpoints
from sovchain.network.material import Material
from sovchain.network.nodes import Administrator, NodeAddress, OrderingNodes
from sovchain.network.ports import allocate, service_names
from sovchain.network.topology import Channel, OrderingOrganization, Topology, default_topology
from sovchain.protocol.blocks import verify_block_signature
from sovchain.protocol.channelconfig import ChannelBundle

CHANNEL = "finance"
ACLS = {"qscc/GetBlockByNumber": "Admins"}


def topology(version: str, consensus: str) -> Topology:
    """The default network with one channel; a BFT one has four ordering nodes, two of them of one organisation."""
    default = default_topology()
    operators = ("Government", "Finance", "Supervisor")
    return check(
        Topology.model_validate({
            **dict(default),
            "fabric_version": version,
            "consensus": consensus,
            "accept": ["ordering-majority"] if consensus == "bft" else [],
            "ordering_organizations": [
                OrderingOrganization(operator=name, nodes=2 if consensus == "bft" and name == "Finance" else 1)
                for name in operators
            ],
            "channels": [
                Channel(name=CHANNEL, members=default.channel(CHANNEL).members, regulator="Supervisor", acls=ACLS)
            ],
            "chaincodes": (),
        })
    )  # fmt: skip


@contextmanager
def cluster(
    program: Path, network: Topology, material: Material, ports: dict[str, int], folder: Path
) -> Iterator[list[Orderer]]:
    running: list[Orderer] = []
    try:
        for node in network.nodes:
            if node.kind == "orderer":
                running.append(start_orderer(program, network, material, ports, node, folder / node.host))
        yield running
    finally:
        for orderer in running:
            orderer.stop()


def leader_known(orderer: Orderer, consensus: str) -> bool:
    metrics = orderer.metrics()
    if consensus == "bft":
        return any(name.startswith("consensus_BFT_leader_id") and value > 0 for name, value in metrics.items())
    active = f'consensus_etcdraft_active_nodes{{channel="{CHANNEL}"}}'
    leader = f'consensus_etcdraft_is_leader{{channel="{CHANNEL}"}}'
    return metrics.get(leader) == 1 or metrics.get(active, 0) >= 2


def envelope(signer: Administrator, kind: common_pb2.HeaderType.ValueType, data: bytes) -> common_pb2.Envelope:
    """A signed message on the channel, as ordering nodes take it: they do not look into the data."""
    stamp, nonce = Timestamp(), secrets.token_bytes(24)
    stamp.FromDatetime(datetime.now(UTC).replace(tzinfo=None))
    header = common_pb2.ChannelHeader(
        type=kind, timestamp=stamp, channel_id=CHANNEL, tx_id=sha256(nonce + signer.creator).hexdigest()
    )
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=header.SerializeToString(),
            signature_header=common_pb2.SignatureHeader(creator=signer.creator, nonce=nonce).SerializeToString(),
        ),
        data=data,
    ).SerializeToString()
    return common_pb2.Envelope(payload=payload, signature=signer.sign(payload))


async def deliver(address: NodeAddress, signer: Administrator, number: int) -> common_pb2.Block:
    """Return a block of the channel from an ordering node, waiting until there is one of this number."""
    position = ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=number))
    seek = ab_pb2.SeekInfo(start=position, stop=position, behavior=ab_pb2.SeekInfo.BLOCK_UNTIL_READY)
    async with address.channel() as channel:
        call = channel.stream_stream(
            "/orderer.AtomicBroadcast/Deliver",
            request_serializer=common_pb2.Envelope.SerializeToString,
            response_deserializer=ab_pb2.DeliverResponse.FromString,
        )(None, timeout=60)
        await call.write(envelope(signer, common_pb2.DELIVER_SEEK_INFO, seek.SerializeToString()))
        answer = await call.read()
        assert isinstance(answer, ab_pb2.DeliverResponse)
        assert answer.WhichOneof("Type") == "block", answer
        call.cancel()
        return answer.block


async def order(network: Topology, material: Material, ports: dict[str, int]) -> list[common_pb2.Block]:
    """Have one message ordered; return block 1 as each ordering node has it."""
    part = material.organization("Finance")
    credential = part.user("User1")
    signer = Administrator.from_pem(part.msp_id, credential.certificate_pem, credential.private_key_pem)
    addresses = [
        NodeAddress(
            material.organization(node.organization).msp_id,
            f"localhost:{ports[node.host]}",
            material.organization(node.organization).tls_root_pem,
            node.host,
        )
        for node in network.nodes
        if node.kind == "orderer"
    ]
    nodes = OrderingNodes(addresses, bft=network.consensus == "bft")
    try:
        message = envelope(signer, common_pb2.ENDORSER_TRANSACTION, b"anything").SerializeToString()
        await nodes.broadcast("order", "", CHANNEL, message)
    finally:
        await nodes.close()
    return list(await asyncio.gather(*(deliver(address, signer, 1) for address in addresses)))


@pytest.mark.parametrize(("version", "consensus"), [("2.5", "raft"), ("3.1", "raft"), ("3.1", "bft")])
async def test_ordering_nodes_join_agree_on_a_leader_and_sign_blocks(
    tmp_path: Path, version: str, consensus: str
) -> None:
    program = (await asyncio.to_thread(fabric_programs, version)).paths["orderer"]
    network = topology(version, consensus)
    now = datetime.now(UTC)
    material = Material.create(network, tmp_path / "organizations", now)
    ports = allocate(service_names(network), None, {})
    block = genesis_blocks(network, material, loopback_endpoints(network, ports), tmp_path / "channels", now)[CHANNEL]
    with cluster(program, network, material, ports, tmp_path / "nodes") as running:
        assert len(running) == (4 if consensus == "bft" else 3)
        for orderer in running:
            orderer.wait(lambda one=orderer: one.request("GET", "/participation/v1/channels")[0] == 200, "admin API")
            joined = orderer.join(block)
            assert (joined["name"], joined["consensusRelation"]) == (CHANNEL, "consenter"), orderer.tail()
        for orderer in running:
            orderer.wait(lambda one=orderer: one.channel(CHANNEL)["status"] == "active", "status active")
            orderer.wait(lambda one=orderer: leader_known(one, consensus), "leader")
        blocks = await order(network, material, ports)
    bundle = ChannelBundle.from_block(common_pb2.Block.FromString(block))
    assert bundle.policy_for_acl("qscc/GetBlockByNumber") == "/Channel/Application/Admins"
    for found in blocks:
        assert found.header.number == 1
        assert found.header.previous_hash == blocks[0].header.previous_hash
        verify_block_signature(found, bundle, strict=True)
