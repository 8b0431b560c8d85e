"""Builds the first block of a channel (internal/configtxgen/encoder/encoder.go, common/genesis/genesis.go)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as etcdraft_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sovchain.protocol import policydsl
from sovchain.protocol.errors import ConfigError

MIB = 1024 * 1024


@dataclass(frozen=True)
class OrganizationDefinition:
    """An organisation of a channel. `orderer_endpoints` ("host:port") are for ordering organisations."""

    msp_id: str
    msp_config: msp_config_pb2.FabricMSPConfig
    anchor_peers: Sequence[tuple[str, int]] = ()
    orderer_endpoints: Sequence[str] = ()


@dataclass(frozen=True)
class Consenter:
    """An ordering node of the Raft cluster; certificates are PEM."""

    host: str
    port: int
    client_tls_cert: bytes
    server_tls_cert: bytes


@dataclass(frozen=True)
class BatchSettings:
    """When a block is cut: transactions, bytes of one transaction at most, bytes of a block preferred, seconds."""

    max_message_count: int = 500
    absolute_max_bytes: int = 10 * MIB
    preferred_max_bytes: int = 2 * MIB
    timeout_s: float = 2.0


@dataclass(frozen=True)
class ChannelDefinition:
    """What a channel's first block says. Policies are in Fabric's policy language; None takes configtxgen's default."""

    channel_id: str
    application: Sequence[OrganizationDefinition]
    orderers: Sequence[OrganizationDefinition]
    consenters: Sequence[Consenter] = ()
    batch: BatchSettings = BatchSettings()
    fabric_version: Literal["2.5", "3.1"] = "3.1"
    lifecycle_endorsement: str | None = None
    endorsement: str | None = None
    application_admins: str | None = None
    orderer_admins: str | None = None


def msp_config(
    msp_id: str,
    root_certs: Sequence[bytes],
    admins: Sequence[bytes] = (),
    intermediates: Sequence[bytes] = (),
    tls_roots: Sequence[bytes] = (),
    crls: Sequence[bytes] = (),
    node_ous: bool = True,
) -> msp_config_pb2.FabricMSPConfig:
    """Return the configuration of an MSP from PEM certificates, with the four node units unless `node_ous` is False."""
    config = msp_config_pb2.FabricMSPConfig(
        name=msp_id,
        root_certs=root_certs,
        admins=admins,
        intermediate_certs=intermediates,
        tls_root_certs=tls_roots,
        revocation_list=crls,
        crypto_config=msp_config_pb2.FabricCryptoConfig(
            signature_hash_family="SHA2", identity_identifier_hash_function="SHA256"
        ),
    )
    if node_ous:
        certifier = (intermediates or root_certs)[0]
        ous = config.fabric_node_ous
        ous.enable = True
        for identifier, name in (
            (ous.client_ou_identifier, "client"),
            (ous.peer_ou_identifier, "peer"),
            (ous.admin_ou_identifier, "admin"),
            (ous.orderer_ou_identifier, "orderer"),
        ):
            identifier.certificate = certifier
            identifier.organizational_unit_identifier = name
    return config


def _put(group: configtx_pb2.ConfigGroup, key: str, value: Message, mod_policy: str = "Admins") -> None:
    group.values[key].value = value.SerializeToString(deterministic=True)
    group.values[key].mod_policy = mod_policy


def _meta(
    group: configtx_pb2.ConfigGroup, name: str, rule: policies_pb2.ImplicitMetaPolicy.Rule.ValueType, sub: str
) -> None:
    entry = group.policies[name]
    entry.mod_policy = "Admins"
    entry.policy.type = policies_pb2.Policy.IMPLICIT_META
    entry.policy.value = policies_pb2.ImplicitMetaPolicy(rule=rule, sub_policy=sub).SerializeToString()


def _signature(group: configtx_pb2.ConfigGroup, name: str, text: str) -> None:
    entry = group.policies[name]
    entry.mod_policy = "Admins"
    entry.policy.type = policies_pb2.Policy.SIGNATURE
    entry.policy.value = policydsl.parse(text).SerializeToString(deterministic=True)


def _standard(group: configtx_pb2.ConfigGroup, admins: str | None = None) -> None:
    rules = policies_pb2.ImplicitMetaPolicy
    _meta(group, "Readers", rules.ANY, "Readers")
    _meta(group, "Writers", rules.ANY, "Writers")
    if admins is None:
        _meta(group, "Admins", rules.MAJORITY, "Admins")
    else:
        _signature(group, "Admins", admins)


def _capabilities(group: configtx_pb2.ConfigGroup, name: str) -> None:
    _put(group, "Capabilities", configuration_pb2.Capabilities(capabilities={name: configuration_pb2.Capability()}))


def _organization(definition: OrganizationDefinition, *, ordering: bool) -> configtx_pb2.ConfigGroup:
    group = configtx_pb2.ConfigGroup(mod_policy="Admins")
    msp = definition.msp_id
    config = msp_config_pb2.MSPConfig(type=0, config=definition.msp_config.SerializeToString(deterministic=True))
    _put(group, "MSP", config)
    _signature(group, "Readers", f"OR('{msp}.member')")
    _signature(group, "Writers", f"OR('{msp}.member')")
    _signature(group, "Admins", f"OR('{msp}.admin')")
    if ordering:
        if definition.orderer_endpoints:
            _put(group, "Endpoints", configuration_pb2.OrdererAddresses(addresses=definition.orderer_endpoints))
        return group
    _signature(group, "Endorsement", f"OR('{msp}.peer')")
    if definition.anchor_peers:
        anchors = [peer_configuration_pb2.AnchorPeer(host=host, port=port) for host, port in definition.anchor_peers]
        _put(group, "AnchorPeers", peer_configuration_pb2.AnchorPeers(anchor_peers=anchors))
    return group


def _orderer_group(definition: ChannelDefinition) -> configtx_pb2.ConfigGroup:
    group = configtx_pb2.ConfigGroup(mod_policy="Admins")
    _standard(group, definition.orderer_admins)
    _meta(group, "BlockValidation", policies_pb2.ImplicitMetaPolicy.ANY, "Writers")
    metadata = etcdraft_pb2.ConfigMetadata(
        consenters=[
            etcdraft_pb2.Consenter(
                host=c.host, port=c.port, client_tls_cert=c.client_tls_cert, server_tls_cert=c.server_tls_cert
            )
            for c in definition.consenters
        ],
        options=etcdraft_pb2.Options(
            tick_interval="100ms",
            election_tick=10,
            heartbeat_tick=1,
            max_inflight_blocks=5,
            snapshot_interval_size=16 * MIB,
        ),
    )
    _put(
        group,
        "ConsensusType",
        orderer_configuration_pb2.ConsensusType(
            type="etcdraft", metadata=metadata.SerializeToString(deterministic=True)
        ),
    )
    batch = definition.batch
    _put(
        group,
        "BatchSize",
        orderer_configuration_pb2.BatchSize(
            max_message_count=batch.max_message_count,
            absolute_max_bytes=batch.absolute_max_bytes,
            preferred_max_bytes=batch.preferred_max_bytes,
        ),
    )
    _put(group, "BatchTimeout", orderer_configuration_pb2.BatchTimeout(timeout=f"{round(batch.timeout_s * 1000)}ms"))
    _put(group, "ChannelRestrictions", orderer_configuration_pb2.ChannelRestrictions())
    _capabilities(group, "V2_0")
    for organization in definition.orderers:
        group.groups[organization.msp_id].CopyFrom(_organization(organization, ordering=True))
    return group


def _application_group(definition: ChannelDefinition) -> configtx_pb2.ConfigGroup:
    group = configtx_pb2.ConfigGroup(mod_policy="Admins")
    _standard(group, definition.application_admins)
    for name, text in (
        ("LifecycleEndorsement", definition.lifecycle_endorsement),
        ("Endorsement", definition.endorsement),
    ):
        if text is None:
            _meta(group, name, policies_pb2.ImplicitMetaPolicy.MAJORITY, "Endorsement")
        else:
            _signature(group, name, text)
    _capabilities(group, "V2_5")
    for organization in definition.application:
        group.groups[organization.msp_id].CopyFrom(_organization(organization, ordering=False))
    return group


def genesis_block(definition: ChannelDefinition, *, timestamp: datetime, nonce: bytes) -> common_pb2.Block:
    """Return block 0 of a channel: unsigned, deterministic for equal arguments.

    `timestamp` must carry a zone; `nonce` is 24 random bytes that make the channel unlike any other. Raises ConfigError."""
    if not definition.application or not definition.orderers:
        raise ConfigError(f"channel {definition.channel_id} needs an application and an ordering organisation")
    root = configtx_pb2.ConfigGroup(mod_policy="Admins")
    _standard(root)
    _put(root, "HashingAlgorithm", configuration_pb2.HashingAlgorithm(name="SHA256"))
    _put(root, "BlockDataHashingStructure", configuration_pb2.BlockDataHashingStructure(width=0xFFFFFFFF))
    _capabilities(root, "V3_0" if definition.fabric_version == "3.1" else "V2_0")
    root.groups["Orderer"].CopyFrom(_orderer_group(definition))
    root.groups["Application"].CopyFrom(_application_group(definition))
    stamp = Timestamp()
    stamp.FromDatetime(timestamp.astimezone(UTC).replace(tzinfo=None))
    header = common_pb2.ChannelHeader(
        type=common_pb2.CONFIG,
        version=0,
        timestamp=stamp,
        channel_id=definition.channel_id,
        tx_id=hashlib.sha256(nonce).hexdigest(),
    )
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=header.SerializeToString(),
            signature_header=common_pb2.SignatureHeader(nonce=nonce).SerializeToString(),
        ),
        data=configtx_pb2.ConfigEnvelope(config=configtx_pb2.Config(channel_group=root)).SerializeToString(
            deterministic=True
        ),
    )
    data = common_pb2.Envelope(payload=payload.SerializeToString()).SerializeToString()
    block = common_pb2.Block(
        header=common_pb2.BlockHeader(number=0, data_hash=hashlib.sha256(data).digest()),
        data=common_pb2.BlockData(data=[data]),
    )
    last = common_pb2.LastConfig(index=0)
    value = common_pb2.OrdererBlockMetadata(last_config=last).SerializeToString()
    block.metadata.metadata.extend(
        [
            common_pb2.Metadata(value=value).SerializeToString(),
            common_pb2.Metadata(value=last.SerializeToString()).SerializeToString(),
            b"",
            b"",
            b"",
        ]
    )
    return block
