"""The first block of each channel: made once, stored, and used for every join."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from sovchain.network.errors import InstanceDamaged
from sovchain.network.files import make_folder, write_file
from sovchain.network.material import Material
from sovchain.network.seed import EPOCH, current_seed
from sovchain.network.topology import Topology
from sovchain.protocol.blocks import check_data_hash, parse_block
from sovchain.protocol.channelconfig import (
    BatchSettings,
    BftSettings,
    CapabilitySettings,
    ChannelDefinition,
    Consenter,
    OrganizationDefinition,
    RaftSettings,
    genesis_block,
)
from sovchain.protocol.errors import ProtocolError

HOST = "localhost"
"""Host under which nodes on this machine are reached from it; every node's certificate has it."""


def loopback_endpoints(topology: Topology, ports: Mapping[str, int]) -> dict[str, tuple[str, int]]:
    """Where the nodes of a network reach each other when all of them run on this machine, by host name."""
    return {node.host: (HOST, ports[node.host]) for node in topology.nodes}


def genesis_blocks(
    topology: Topology, material: Material, endpoints: Mapping[str, tuple[str, int]], folder: Path, now: datetime
) -> dict[str, bytes]:
    """Return the first block of each channel, in the topology's order; make and store those that are not there.

    Two runs give different bytes, and different bytes are different channels; so a stored block is never made again.
    (Under a seed they give the same, as long as the nodes have the same ports.)

    Args:
        endpoints: host and port under which the other nodes reach each node, by its host name.
        folder: where the blocks are stored, as `<channel>.block`.
        now: time stamp of new blocks (UTC).

    Raises:
        InstanceDamaged: a stored block or the material cannot be read.
        ConfigError: the channel's configuration cannot be made.
    """
    make_folder(folder)
    return {
        channel.name: _stored(folder / f"{channel.name}.block")
        or _make(channel_definition(topology, material, endpoints, channel.name), folder, now)
        for channel in topology.channels
    }


def channel_definition(
    topology: Topology, material: Material, endpoints: Mapping[str, tuple[str, int]], channel: str
) -> ChannelDefinition:
    """Describe a channel for `protocol.channelconfig`. Raises UnknownName, InstanceDamaged."""
    spec = topology.channel(channel)
    members, orderers = topology.members(channel), topology.orderers(channel)
    anchors = topology.anchor_peers(channel)
    nodes = [node for orderer in orderers for node in material.organization(orderer.name).public_nodes()]
    capabilities = topology.capabilities(channel)
    return ChannelDefinition(
        channel_id=channel,
        application=[
            OrganizationDefinition(
                msp_id=member.msp_id,
                msp_config=material.organization(member.name).msp_config,
                anchor_peers=[endpoints[host] for host in anchors[member.name]],
                read_only=member.name in spec.read_only,
            )
            for member in members
        ],
        orderers=[
            OrganizationDefinition(
                msp_id=orderer.msp_id,
                msp_config=material.organization(orderer.name).msp_config,
                orderer_endpoints=[
                    f"{host}:{port}" for host, port in (endpoints[node.host] for node in orderer.all_nodes)
                ],
            )
            for orderer in orderers
        ],
        consenters=[
            Consenter(
                *endpoints[node.host],
                node.tls_certificate_pem,
                node.tls_certificate_pem,
                node.msp_id,
                node.certificate_pem,
            )
            for node in nodes
        ],
        batch=BatchSettings(
            max_message_count=spec.batch.max_message_count,
            absolute_max_bytes=spec.batch.absolute_max_bytes,
            preferred_max_bytes=spec.batch.preferred_max_bytes,
            timeout_s=spec.batch.timeout_s,
        ),
        fabric_version=topology.fabric_version,
        lifecycle_endorsement=topology.lifecycle_endorsement(channel),
        # What a chaincode without a policy of its own is endorsed by.
        endorsement=topology.lifecycle_endorsement(channel),
        application_admins=topology.admins(channel),
        orderer_admins=topology.orderer_admins(channel),
        consensus=_consensus(topology),
        capabilities=CapabilitySettings(capabilities.channel, capabilities.orderer, capabilities.application),
        # Fabric lets nobody but writers propose, and a query is a proposal (core/aclmgmt/defaultaclprovider.go).
        acls={**({"peer/Propose": "Readers"} if spec.read_only else {}), **spec.acls},
    )


def _consensus(topology: Topology) -> RaftSettings | BftSettings:
    if topology.consensus == "raft":
        raft = topology.raft
        return RaftSettings(
            tick_interval_ms=raft.tick_ms,
            election_tick=raft.election_ticks,
            heartbeat_tick=raft.heartbeat_ticks,
            max_inflight_blocks=raft.max_inflight_blocks,
            snapshot_interval_size=raft.snapshot_interval_bytes,
        )
    bft = topology.bft
    return BftSettings(
        request_forward_timeout_ms=bft.forward_ms,
        request_complain_timeout_ms=bft.complain_ms,
        request_auto_remove_timeout_ms=bft.auto_remove_ms,
        view_change_resend_interval_ms=bft.view_change_resend_ms,
        view_change_timeout_ms=bft.view_change_ms,
        leader_heartbeat_timeout_ms=bft.heartbeat_timeout_ms,
        leader_heartbeat_count=bft.heartbeat_count,
        collect_timeout_ms=bft.collect_ms,
        incoming_message_buffer_size=bft.incoming_messages,
        request_pool_size=bft.pool_size,
    )


def _make(definition: ChannelDefinition, folder: Path, now: datetime) -> bytes:
    seed, nonce = current_seed(), secrets.token_bytes(24)
    if seed is not None:
        now, nonce = EPOCH, seed.bytes("genesis block", definition.channel_id, size=24)
    block = genesis_block(definition, timestamp=now, nonce=nonce).SerializeToString(deterministic=True)
    write_file(folder / f"{definition.channel_id}.block", block)
    return block


def _stored(path: Path) -> bytes | None:
    """A stored block, whole. Another one would be another channel, so it is not made again."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstanceDamaged(path.parent.parent, path, f"it cannot be read ({error.strerror})") from None
    try:
        check_data_hash(parse_block(content))
    except ProtocolError as error:
        raise InstanceDamaged(path.parent.parent, path, f"it is not the block that was written ({error})") from None
    return content
