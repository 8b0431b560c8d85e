"""The first block of each channel: made once, stored, and used for every join."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from sovchain.network.errors import InstanceDamaged
from sovchain.network.files import make_folder, write_file
from sovchain.network.material import Material
from sovchain.network.topology import Topology
from sovchain.protocol.channelconfig import (
    BatchSettings,
    ChannelDefinition,
    Consenter,
    OrganizationDefinition,
    genesis_block,
)

HOST = "localhost"
"""Host under which the nodes of a network on one machine name each other; every node's certificate has it."""


def genesis_blocks(
    topology: Topology, material: Material, ports: Mapping[str, int], folder: Path, now: datetime
) -> dict[str, bytes]:
    """Return the first block of each channel, in the topology's order; make and store those that are not there.

    Two runs give different bytes, and different bytes are different channels; so a stored block is never made again.

    Args:
        ports: port of each node by its host name.
        folder: where the blocks are stored, as `<channel>.block`.
        now: time stamp of new blocks (UTC).

    Raises:
        InstanceDamaged: a stored block or the material cannot be read.
        ConfigError: the channel's configuration cannot be made.
    """
    make_folder(folder)
    return {
        channel.name: _stored(folder / f"{channel.name}.block")
        or _make(channel_definition(topology, material, ports, channel.name), folder, now)
        for channel in topology.channels
    }


def channel_definition(
    topology: Topology, material: Material, ports: Mapping[str, int], channel: str
) -> ChannelDefinition:
    """Describe a channel for `protocol.channelconfig`. Raises UnknownName, InstanceDamaged."""
    spec = topology.channel(channel)
    members, orderers = topology.members(channel), topology.orderers(channel)
    nodes = [(orderer, material.organization(orderer.name).node()) for orderer in orderers]
    return ChannelDefinition(
        channel_id=channel,
        application=[
            OrganizationDefinition(
                msp_id=member.msp_id,
                msp_config=material.organization(member.name).msp_config,
                anchor_peers=[(HOST, ports[member.peer_host])],
            )
            for member in members
        ],
        orderers=[
            OrganizationDefinition(
                msp_id=orderer.msp_id,
                msp_config=material.organization(orderer.name).msp_config,
                orderer_endpoints=[f"{HOST}:{ports[orderer.orderer_host]}"],
            )
            for orderer in orderers
        ],
        consenters=[
            Consenter(HOST, ports[orderer.orderer_host], node.tls_certificate_pem, node.tls_certificate_pem)
            for orderer, node in nodes
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
    )


def _make(definition: ChannelDefinition, folder: Path, now: datetime) -> bytes:
    block = genesis_block(definition, timestamp=now, nonce=secrets.token_bytes(24)).SerializeToString(
        deterministic=True
    )
    write_file(folder / f"{definition.channel_id}.block", block)
    return block


def _stored(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstanceDamaged(path.parent.parent, path, f"it cannot be read ({error.strerror})") from None
