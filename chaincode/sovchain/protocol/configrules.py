"""Which configuration may follow on another one, whoever signs it.

Mirrors what nodes check of a new configuration besides its update: common/channelconfig/{bundle,orderer}.go (for peers and
ordering nodes), orderer/consensus/etcdraft/{util,membership}.go and orderer/consensus/smartbft/configverifier.go (for
ordering nodes). How many nodes are alive is not in a configuration, so that the loss of a quorum is not judged here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fabric_protos.common import configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as etcdraft_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2
from google.protobuf.message import DecodeError

from sovchain.protocol import channelconfig
from sovchain.protocol.errors import ConfigError
from sovchain.protocol.genesis import bft_block_validation

if TYPE_CHECKING:
    from sovchain.protocol.channelconfig import ChannelBundle

RAFT: Final = "etcdraft"
BFT: Final = "BFT"
_Group = configtx_pb2.ConfigGroup


def next_bundle(current: ChannelBundle, config: configtx_pb2.Config) -> ChannelBundle:
    """Return the configuration that follows on the current one, as peers and ordering nodes judge it.

    Raises ConfigError, with Fabric's text where it has one, if it cannot be used or may not follow.
    """
    following = channelconfig.ChannelBundle.from_config(current.channel_id, config)
    old, new = current.config.channel_group, config.channel_group
    for name in sorted(new.groups):
        if name not in ("Orderer", "Application"):
            raise ConfigError(f"Disallowed channel group: {name}")
    _check_batch(following)
    _check_one_msp_each(new)
    for name, kind in (("Orderer", "orderer"), ("Application", "application")):
        _check_msp_ids(old.groups[name], new.groups[name], kind)
    _check_endpoints(following, new)
    return following


def check_consensus(current: ChannelBundle, following: ChannelBundle) -> None:
    """Check what ordering nodes alone check: that the consensus may change as it does. Raises ConfigError."""
    try:
        _check_consensus(current, following)
    except DecodeError as error:
        raise ConfigError("the consensus metadata cannot be decoded") from error


def _check_batch(bundle: ChannelBundle) -> None:
    batch = bundle.batch
    for name, value in (
        ("max message count", batch.max_message_count),
        ("absolute max bytes", batch.absolute_max_bytes),
        ("preferred max bytes", batch.preferred_max_bytes),
    ):
        if value == 0:
            raise ConfigError(f"Attempted to set the batch size {name} to an invalid value: 0")
    if batch.preferred_max_bytes > batch.absolute_max_bytes:
        raise ConfigError(
            f"Attempted to set the batch size preferred max bytes ({batch.preferred_max_bytes}) greater than the absolute max "
            f"bytes ({batch.absolute_max_bytes})."
        )
    if batch.timeout_s <= 0:
        raise ConfigError(f"Attempted to set the batch timeout to a non-positive value: {batch.timeout_s:g}s")


def _check_one_msp_each(root: _Group) -> None:
    """An organisation that is a member and orders has the same MSP in both groups (common/channelconfig/msp.go)."""
    found: dict[str, bytes] = {}
    for kind in ("Orderer", "Application"):
        groups = root.groups[kind].groups
        for name in sorted(groups):
            msp_id = channelconfig.organization_msp(groups[name], name).name
            value = groups[name].values["MSP"].value
            if found.setdefault(msp_id, value) != value:
                raise ConfigError(f"Attempted to define two different versions of MSP: {msp_id}")


def _check_msp_ids(old: _Group, new: _Group, kind: str) -> None:
    for name in sorted(old.groups.keys() & new.groups.keys()):
        before, after = (channelconfig.organization_msp(group.groups[name], name).name for group in (old, new))
        if before != after:
            raise ConfigError(f"{kind} org {name} attempted to change MSP ID from {before} to {after}")


def _check_endpoints(bundle: ChannelBundle, root: _Group) -> None:
    if "V3_0" not in bundle.capabilities["Channel"]:
        return
    if "OrdererAddresses" in root.values:
        raise ConfigError(
            "global OrdererAddresses are not allowed with V3_0 capability, use org specific addresses only"
        )
    orderer = root.groups["Orderer"]
    missing = [name for name in sorted(orderer.groups) if not _endpoints(orderer.groups[name])]
    if missing:
        raise ConfigError(f"some orderer organizations endpoints are empty: [{' '.join(missing)}]")


def _endpoints(group: _Group) -> Sequence[str]:
    if "Endpoints" not in group.values:
        return ()
    return configuration_pb2.OrdererAddresses.FromString(group.values["Endpoints"].value).addresses


def _consensus(bundle: ChannelBundle) -> orderer_configuration_pb2.ConsensusType:
    value = bundle.config.channel_group.groups["Orderer"].values["ConsensusType"].value
    return orderer_configuration_pb2.ConsensusType.FromString(value)


def _check_consensus(current: ChannelBundle, following: ChannelBundle) -> None:
    old, new = _consensus(current), _consensus(following)
    if old.type != new.type and old.state == orderer_configuration_pb2.ConsensusType.STATE_NORMAL:
        raise ConfigError(
            f"attempted to change consensus type from {old.type} to {new.type}, but current config ConsensusType.State "
            "is not in maintenance mode"
        )
    fault = "consensus metadata update for channel config update is invalid: "
    if new.type == RAFT and old.type == RAFT:
        metadata = etcdraft_pb2.ConfigMetadata.FromString(new.metadata)
        _check_raft(metadata, fault)
        _check_raft_members(etcdraft_pb2.ConfigMetadata.FromString(old.metadata), metadata, fault)
    elif new.type == BFT:
        check_bft(following.config.channel_group.groups["Orderer"])


def _check_raft(metadata: etcdraft_pb2.ConfigMetadata, fault: str) -> None:
    options = metadata.options
    if 0 in (options.heartbeat_tick, options.election_tick, options.max_inflight_blocks):
        raise ConfigError(
            f"{fault}invalid new config metadata: none of HeartbeatTick ({options.heartbeat_tick}), ElectionTick "
            f"({options.election_tick}) and MaxInflightBlocks ({options.max_inflight_blocks}) can be zero"
        )
    if options.election_tick <= options.heartbeat_tick:
        raise ConfigError(
            f"{fault}invalid new config metadata: ElectionTick ({options.election_tick}) must be greater than "
            f"HeartbeatTick ({options.heartbeat_tick})"
        )
    if not metadata.consenters:
        raise ConfigError(f"{fault}invalid new config metadata: empty consenter set")
    seen: set[bytes] = set()
    for consenter in metadata.consenters:
        if {consenter.server_tls_cert, consenter.client_tls_cert} & seen:
            raise ConfigError(
                f"{fault}invalid new config metadata: duplicate consenter: {consenter.host}:{consenter.port}"
            )
        seen |= {consenter.server_tls_cert, consenter.client_tls_cert}


def _check_raft_members(old: etcdraft_pb2.ConfigMetadata, new: etcdraft_pb2.ConfigMetadata, fault: str) -> None:
    """One node may come, go, or both at once, by which its certificate is replaced (ComputeMembershipChanges)."""
    before = {consenter.client_tls_cert for consenter in old.consenters}
    added = [c for c in new.consenters if c.client_tls_cert not in before]
    kept = {(c.client_tls_cert, c.server_tls_cert) for c in new.consenters}
    removed = [c for c in old.consenters if (c.client_tls_cert, c.server_tls_cert) not in kept]
    if len(added) > 1 or len(removed) > 1:
        raise ConfigError(
            f"{fault}update of more than one consenter at a time is not supported, requested changes: "
            f"add {len(added)} node(s), remove {len(removed)} node(s)"
        )


def check_bft(orderer: _Group) -> None:
    """Check that the block policy of a BFT channel is the quorum of its consenters. Raises ConfigError, DecodeError."""
    if "Orderers" not in orderer.values:
        raise ConfigError("no values in 'Orderer' group")
    members = configuration_pb2.Orderers.FromString(orderer.values["Orderers"].value).consenter_mapping
    if "BlockValidation" not in orderer.policies:
        raise ConfigError("block validation policy is not found in the policies of 'Orderer' group")
    expected = policies_pb2.Policy(
        type=policies_pb2.Policy.SIGNATURE, value=bft_block_validation(members).SerializeToString(deterministic=True)
    )
    if orderer.policies["BlockValidation"].policy != expected:
        raise ConfigError(
            f"block validation policy should be the quorum of the {len(members)} consenters in their order, but it is another"
        )
    metadata = orderer_configuration_pb2.ConsensusType.FromString(orderer.values["ConsensusType"].value).metadata
    if smartbft_pb2.Options.FromString(metadata).leader_rotation == smartbft_pb2.Options.ROTATION_ON:
        raise ConfigError("leader rotation must be turned off for this version or be unspecified")
