"""From the configuration that a channel has to the one that it should have, by steps that ordering nodes accept.

Pure: `genesis` says what a channel should be, this module what of it to ask for next. Ordering nodes accept one node more or
less at a time (orderer/consensus/etcdraft/membership.go), under BFT with the quorum policy of the new set in the same
update, and a node keeps the number that it was given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fabric_protos.common import configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as etcdraft_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from google.protobuf.message import DecodeError, Message

from sovchain.protocol.errors import ConfigError
from sovchain.protocol.genesis import Consenter, bft_block_validation

_Group = configtx_pb2.ConfigGroup

VALUE_TYPES: Final[Mapping[str, type[Message]]] = {
    "HashingAlgorithm": configuration_pb2.HashingAlgorithm,
    "BlockDataHashingStructure": configuration_pb2.BlockDataHashingStructure,
    "OrdererAddresses": configuration_pb2.OrdererAddresses,
    "Endpoints": configuration_pb2.OrdererAddresses,
    "Capabilities": configuration_pb2.Capabilities,
    "Orderers": configuration_pb2.Orderers,
    "ConsensusType": orderer_configuration_pb2.ConsensusType,
    "BatchSize": orderer_configuration_pb2.BatchSize,
    "BatchTimeout": orderer_configuration_pb2.BatchTimeout,
    "ChannelRestrictions": orderer_configuration_pb2.ChannelRestrictions,
    "MSP": msp_config_pb2.MSPConfig,
    "AnchorPeers": peer_configuration_pb2.AnchorPeers,
    "ACLs": peer_configuration_pb2.ACLs,
}
"""What each value of a configuration is (common/channelconfig/util.go)."""


def meaning(key: str, value: bytes) -> object:
    """Return something that is equal for two encodings of the same value; the bytes themselves where the key is unknown."""
    kind = VALUE_TYPES.get(key)
    if kind is None:
        return value
    try:
        message = kind.FromString(value)
        if isinstance(message, msp_config_pb2.MSPConfig):
            return message.type, msp_config_pb2.FabricMSPConfig.FromString(message.config)
        if isinstance(message, orderer_configuration_pb2.ConsensusType):
            options = etcdraft_pb2.ConfigMetadata if message.type == "etcdraft" else smartbft_pb2.Options
            return message.type, message.state, options.FromString(message.metadata)
    except DecodeError:
        return value
    return message


def keep_equal(current: _Group, wanted: _Group) -> None:
    """Take over into `wanted` the bytes of everything that means the same in `current`.

    Another program, or another version of this one, may have encoded it otherwise; that is no change.
    """
    for key in current.values.keys() & wanted.values.keys():
        old, new = current.values[key], wanted.values[key]
        if meaning(key, old.value) == meaning(key, new.value):
            new.value = old.value
    for key in current.policies.keys() & wanted.policies.keys():
        before, after = current.policies[key].policy, wanted.policies[key].policy
        if before.type == after.type and _rule(before) == _rule(after):
            after.CopyFrom(before)
    for key in current.groups.keys() & wanted.groups.keys():
        keep_equal(current.groups[key], wanted.groups[key])


def _rule(policy: policies_pb2.Policy) -> object:
    kinds: dict[int, type[Message]] = {
        policies_pb2.Policy.SIGNATURE: policies_pb2.SignaturePolicyEnvelope,
        policies_pb2.Policy.IMPLICIT_META: policies_pb2.ImplicitMetaPolicy,
    }
    kind = kinds.get(policy.type)
    try:
        return policy.value if kind is None else kind.FromString(policy.value)
    except DecodeError:
        return policy.value


def _consensus(orderer: _Group) -> orderer_configuration_pb2.ConsensusType:
    return orderer_configuration_pb2.ConsensusType.FromString(orderer.values["ConsensusType"].value)


def read_consenters(orderer: _Group) -> list[Consenter]:
    """Return the ordering nodes that an Orderer group names, in its order. Raises ConfigError."""
    try:
        consensus = _consensus(orderer)
        if consensus.type == "etcdraft":
            found = etcdraft_pb2.ConfigMetadata.FromString(consensus.metadata).consenters
            return [Consenter(c.host, c.port, c.client_tls_cert, c.server_tls_cert) for c in found]
        members = configuration_pb2.Orderers.FromString(orderer.values["Orderers"].value).consenter_mapping
    except DecodeError as error:
        raise ConfigError("the consenters of the configuration cannot be decoded") from error
    return [Consenter(c.host, c.port, c.client_tls_cert, c.server_tls_cert, c.msp_id, c.identity) for c in members]


def write_consenters(orderer: _Group, consenters: Sequence[Consenter], numbers: Mapping[tuple[str, int], int]) -> None:
    """Put the ordering nodes into an Orderer group, under BFT with their block policy.

    `numbers` are those that BFT nodes have already, by host and port; the others get the next ones.
    """
    consensus = _consensus(orderer)
    if consensus.type == "etcdraft":
        metadata = etcdraft_pb2.ConfigMetadata.FromString(consensus.metadata)
        del metadata.consenters[:]
        for c in consenters:
            metadata.consenters.add(
                host=c.host, port=c.port, client_tls_cert=c.client_tls_cert, server_tls_cert=c.server_tls_cert
            )
        consensus.metadata = metadata.SerializeToString(deterministic=True)
        orderer.values["ConsensusType"].value = consensus.SerializeToString(deterministic=True)
        return
    members = configuration_pb2.Orderers()
    following = max(numbers.values(), default=0)
    for c in consenters:
        number = numbers.get((c.host, c.port))
        if number is None:
            following += 1
            number = following
        members.consenter_mapping.add(
            id=number,
            host=c.host,
            port=c.port,
            msp_id=c.msp_id,
            identity=c.identity,
            client_tls_cert=c.client_tls_cert,
            server_tls_cert=c.server_tls_cert,
        )
    orderer.values["Orderers"].value = members.SerializeToString(deterministic=True)
    policy = orderer.policies["BlockValidation"].policy
    policy.type = policies_pb2.Policy.SIGNATURE
    policy.value = bft_block_validation(members.consenter_mapping).SerializeToString(deterministic=True)


def _numbers(orderer: _Group) -> dict[tuple[str, int], int]:
    members = (
        configuration_pb2.Orderers.FromString(orderer.values["Orderers"].value)
        if "Orderers" in orderer.values
        else None
    )
    return {(c.host, c.port): c.id for c in members.consenter_mapping} if members else {}


def next_configuration(current: _Group, wanted: _Group) -> _Group:
    """Return the root group to ask for next on the way from one to the other; equal to `current` in meaning at the end.

    All changes come at once except of ordering nodes, of which one is added, replaced or, when all are added, removed at a
    time. Organisations keep their places among the ordering ones until their nodes are gone. Raises ConfigError when
    `wanted` has another consensus, which this does not migrate.
    """
    following = _Group()
    following.CopyFrom(wanted)
    old, new = current.groups["Orderer"], following.groups["Orderer"]
    if _consensus(old).type != _consensus(new).type:
        raise ConfigError(f"the consensus is {_consensus(old).type} and cannot become {_consensus(new).type}")
    have, want = read_consenters(old), read_consenters(new)
    chosen = _one_step(have, want)
    write_consenters(new, chosen, _numbers(old))
    if {(c.host, c.port) for c in chosen} != {(c.host, c.port) for c in want}:
        for name in old.groups.keys() - new.groups.keys():
            new.groups[name].CopyFrom(old.groups[name])
    keep_equal(current, following)
    return following


def _one_step(have: Sequence[Consenter], want: Sequence[Consenter]) -> list[Consenter]:
    """The nodes of the next configuration: those of this one in their order, with one difference."""
    wanted = {(c.host, c.port): c for c in want}
    present = {(c.host, c.port) for c in have}
    for position, consenter in enumerate(have):
        replacement = wanted.get((consenter.host, consenter.port), consenter)
        if not _is_same(consenter, replacement):
            return [*have[:position], replacement, *have[position + 1 :]]
    added = [c for place, c in wanted.items() if place not in present]
    if added:
        return [*have, added[0]]
    gone = [c for c in have if (c.host, c.port) not in wanted]
    return [c for c in have if not gone or c is not gone[0]]


def _is_same(one: Consenter, other: Consenter) -> bool:
    # What Raft's configuration does not hold is empty there.
    certificates = (one.client_tls_cert, one.server_tls_cert) == (other.client_tls_cert, other.server_tls_cert)
    return certificates and (not one.msp_id or (one.msp_id, one.identity) == (other.msp_id, other.identity))
