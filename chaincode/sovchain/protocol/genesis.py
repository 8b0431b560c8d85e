"""Builds the first block of a channel (internal/configtxgen/encoder/encoder.go, common/genesis/genesis.go)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.msp import identities_pb2, msp_config_pb2, msp_principal_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as etcdraft_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sovchain.protocol import policydsl
from sovchain.protocol.errors import ConfigError

MIB = 1024 * 1024


@dataclass(frozen=True)
class OrganizationDefinition:
    """An organisation of a channel. `orderer_endpoints` ("host:port") are for ordering organisations.

    Of a `read_only` one only the admins are writers: ordering nodes refuse what its other identities send.
    """

    msp_id: str
    msp_config: msp_config_pb2.FabricMSPConfig
    anchor_peers: Sequence[tuple[str, int]] = ()
    orderer_endpoints: Sequence[str] = ()
    read_only: bool = False


@dataclass(frozen=True)
class Consenter:
    """An ordering node of the cluster; certificates are PEM. BFT also needs its MSP id and enrolment certificate."""

    host: str
    port: int
    client_tls_cert: bytes
    server_tls_cert: bytes
    msp_id: str = ""
    identity: bytes = b""


@dataclass(frozen=True)
class RaftSettings:
    """Options of Raft (orderer/etcdraft/configuration.proto); an election comes after `election_tick` silent ticks."""

    tick_interval_ms: int = 100
    election_tick: int = 10
    heartbeat_tick: int = 1
    max_inflight_blocks: int = 5
    snapshot_interval_size: int = 16 * MIB


@dataclass(frozen=True)
class BftSettings:
    """Options of SmartBFT (orderer/smartbft/configuration.proto); times in milliseconds.

    The batch's count, bytes and interval come from the channel's batch settings: the orderer overwrites the first two
    with them (orderer/consensus/smartbft/util.go) and does not read the channel's batch timeout.
    """

    request_forward_timeout_ms: int = 500
    request_complain_timeout_ms: int = 5_000
    request_auto_remove_timeout_ms: int = 180_000
    view_change_resend_interval_ms: int = 1_000
    view_change_timeout_ms: int = 10_000
    leader_heartbeat_timeout_ms: int = 10_000
    leader_heartbeat_count: int = 10
    collect_timeout_ms: int = 1_000
    incoming_message_buffer_size: int = 200
    request_pool_size: int = 100_000


@dataclass(frozen=True)
class CapabilitySettings:
    """Capability of each group of a channel's configuration."""

    channel: str
    orderer: str = "V2_0"
    application: str = "V2_5"


@dataclass(frozen=True)
class BatchSettings:
    """When a block is cut: transactions, bytes of one transaction at most, bytes of a block preferred, seconds."""

    max_message_count: int = 500
    absolute_max_bytes: int = 10 * MIB
    preferred_max_bytes: int = 2 * MIB
    timeout_s: float = 2.0


@dataclass(frozen=True)
class ChannelDefinition:
    """What a channel's first block says. Policies are in Fabric's policy language; None takes configtxgen's default.

    `consensus` is what the consenters run: Raft options for "etcdraft", BFT options for "BFT". `capabilities` are by
    default those of the Fabric version (sampleconfig/configtx.yaml). `acls` has a policy for each resource that is
    not guarded by Fabric's default one.
    """

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
    consensus: RaftSettings | BftSettings = RaftSettings()
    capabilities: CapabilitySettings | None = None
    acls: Mapping[str, str] = field(default_factory=dict)


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
    _signature(group, "Writers", f"OR('{msp}.{'admin' if definition.read_only else 'member'}')")
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


def _capability(definition: ChannelDefinition) -> CapabilitySettings:
    return definition.capabilities or CapabilitySettings("V3_0" if definition.fabric_version == "3.1" else "V2_0")


def _interval_ms(batch: BatchSettings) -> int:
    return max(round(batch.timeout_s * 1000), 1)


def _duration(milliseconds: int) -> str:
    return f"{milliseconds}ms"


def _consensus(group: configtx_pb2.ConfigGroup, definition: ChannelDefinition) -> tuple[str, Message]:
    """Return name and options of the consensus; for BFT put its members and its block policy into the group."""
    if isinstance(definition.consensus, RaftSettings):
        return "etcdraft", _raft(definition.consensus, definition.consenters)
    consenters = bft_consenters(definition.consenters)
    _put(group, "Orderers", configuration_pb2.Orderers(consenter_mapping=consenters))
    policy = group.policies["BlockValidation"].policy
    policy.type = policies_pb2.Policy.SIGNATURE
    policy.value = bft_block_validation(consenters).SerializeToString(deterministic=True)
    return "BFT", _bft(definition.consensus, definition.batch)


def _raft(settings: RaftSettings, consenters: Sequence[Consenter]) -> etcdraft_pb2.ConfigMetadata:
    return etcdraft_pb2.ConfigMetadata(
        consenters=[
            etcdraft_pb2.Consenter(
                host=c.host, port=c.port, client_tls_cert=c.client_tls_cert, server_tls_cert=c.server_tls_cert
            )
            for c in consenters
        ],
        options=etcdraft_pb2.Options(
            tick_interval=_duration(settings.tick_interval_ms),
            election_tick=settings.election_tick,
            heartbeat_tick=settings.heartbeat_tick,
            max_inflight_blocks=settings.max_inflight_blocks,
            snapshot_interval_size=settings.snapshot_interval_size,
        ),
    )


def _bft(settings: BftSettings, batch: BatchSettings) -> smartbft_pb2.Options:
    return smartbft_pb2.Options(
        request_batch_max_count=batch.max_message_count,
        request_batch_max_bytes=batch.absolute_max_bytes,
        request_batch_max_interval=_duration(_interval_ms(batch)),
        request_max_bytes=batch.absolute_max_bytes,
        incoming_message_buffer_size=settings.incoming_message_buffer_size,
        request_pool_size=settings.request_pool_size,
        request_forward_timeout=_duration(settings.request_forward_timeout_ms),
        request_complain_timeout=_duration(settings.request_complain_timeout_ms),
        request_auto_remove_timeout=_duration(settings.request_auto_remove_timeout_ms),
        view_change_resend_interval=_duration(settings.view_change_resend_interval_ms),
        view_change_timeout=_duration(settings.view_change_timeout_ms),
        leader_heartbeat_timeout=_duration(settings.leader_heartbeat_timeout_ms),
        leader_heartbeat_count=settings.leader_heartbeat_count,
        collect_timeout=_duration(settings.collect_timeout_ms),
        # Fabric's verifier refuses rotation (orderer/consensus/smartbft/configverifier.go).
        leader_rotation=smartbft_pb2.Options.ROTATION_OFF,
    )


def bft_consenters(consenters: Sequence[Consenter]) -> list[configuration_pb2.Consenter]:
    """Return the members of a BFT cluster as the configuration holds them, numbered from 1. Raises ConfigError."""
    for consenter in consenters:
        if not consenter.msp_id or not consenter.identity:
            raise ConfigError(f"consenter {consenter.host}:{consenter.port} needs an MSP id and an identity for BFT")
    return [
        configuration_pb2.Consenter(
            id=number,
            host=c.host,
            port=c.port,
            msp_id=c.msp_id,
            identity=c.identity,
            client_tls_cert=c.client_tls_cert,
            server_tls_cert=c.server_tls_cert,
        )
        for number, c in enumerate(consenters, 1)
    ]


def bft_block_validation(consenters: Sequence[configuration_pb2.Consenter]) -> policies_pb2.SignaturePolicyEnvelope:
    """Return the policy that a BFT channel's blocks satisfy: a quorum of the consenters, in their order.

    Orderers compare it byte for byte with their own (`EncodeBFTBlockVerificationPolicy` in common/policies/bft.go).
    """
    count = len(consenters)
    quorum = -(-(count + (count - 1) // 3 + 1) // 2)
    return policies_pb2.SignaturePolicyEnvelope(
        rule=policies_pb2.SignaturePolicy(
            n_out_of=policies_pb2.SignaturePolicy.NOutOf(
                n=quorum, rules=[policies_pb2.SignaturePolicy(signed_by=index) for index in range(count)]
            )
        ),
        identities=[
            msp_principal_pb2.MSPPrincipal(
                principal_classification=msp_principal_pb2.MSPPrincipal.IDENTITY,
                principal=identities_pb2.SerializedIdentity(mspid=c.msp_id, id_bytes=c.identity).SerializeToString(),
            )
            for c in consenters
        ],
    )


def _orderer_group(definition: ChannelDefinition) -> configtx_pb2.ConfigGroup:
    group = configtx_pb2.ConfigGroup(mod_policy="Admins")
    _standard(group, definition.orderer_admins)
    _meta(group, "BlockValidation", policies_pb2.ImplicitMetaPolicy.ANY, "Writers")
    kind, metadata = _consensus(group, definition)
    _put(
        group,
        "ConsensusType",
        orderer_configuration_pb2.ConsensusType(type=kind, metadata=metadata.SerializeToString(deterministic=True)),
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
    _put(group, "BatchTimeout", orderer_configuration_pb2.BatchTimeout(timeout=_duration(_interval_ms(batch))))
    _put(group, "ChannelRestrictions", orderer_configuration_pb2.ChannelRestrictions())
    _capabilities(group, _capability(definition).orderer)
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
    _capabilities(group, _capability(definition).application)
    if definition.acls:
        acls = {name: peer_configuration_pb2.APIResource(policy_ref=policy) for name, policy in definition.acls.items()}
        _put(group, "ACLs", peer_configuration_pb2.ACLs(acls=acls))
    for organization in definition.application:
        group.groups[organization.msp_id].CopyFrom(_organization(organization, ordering=False))
    return group


def channel_group(definition: ChannelDefinition) -> configtx_pb2.ConfigGroup:
    """Return the root group of a channel's configuration, all versions 0; deterministic. Raises ConfigError."""
    if not definition.application or not definition.orderers:
        raise ConfigError(f"channel {definition.channel_id} needs an application and an ordering organisation")
    if isinstance(definition.consensus, BftSettings) and _capability(definition).channel != "V3_0":
        raise ConfigError(f"channel {definition.channel_id} needs the capability V3_0 for BFT")
    root = configtx_pb2.ConfigGroup(mod_policy="Admins")
    _standard(root)
    _put(root, "HashingAlgorithm", configuration_pb2.HashingAlgorithm(name="SHA256"))
    _put(root, "BlockDataHashingStructure", configuration_pb2.BlockDataHashingStructure(width=0xFFFFFFFF))
    _capabilities(root, _capability(definition).channel)
    root.groups["Orderer"].CopyFrom(_orderer_group(definition))
    root.groups["Application"].CopyFrom(_application_group(definition))
    return root


def genesis_block(definition: ChannelDefinition, *, timestamp: datetime, nonce: bytes) -> common_pb2.Block:
    """Return block 0 of a channel: unsigned, deterministic for equal arguments.

    `timestamp` must carry a zone; `nonce` is 24 random bytes that make the channel unlike any other. Raises ConfigError."""
    root = channel_group(definition)
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
