"""Channel configuration: reading the tree that a config block holds, and what follows from it.

Mirrors common/channelconfig, common/policies/manager.go and core/aclmgmt/defaultaclprovider.go. `genesis` builds the tree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from google.protobuf.message import DecodeError, Message

from sovchain.protocol.errors import ConfigError
from sovchain.protocol.genesis import (
    BatchSettings,
    BftSettings,
    CapabilitySettings,
    ChannelDefinition,
    Consenter,
    OrganizationDefinition,
    RaftSettings,
    genesis_block,
    msp_config,
)
from sovchain.protocol.msp import Msp, MspManager
from sovchain.protocol.policies import ImplicitMetaPolicy, Policy, PolicyManager, SignaturePolicy

__all__ = [
    "BatchSettings",
    "BftSettings",
    "CapabilitySettings",
    "ChannelBundle",
    "ChannelDefinition",
    "Consenter",
    "OrganizationDefinition",
    "RaftSettings",
    "genesis_block",
    "msp_config",
]

READERS: Final = "/Channel/Application/Readers"
WRITERS: Final = "/Channel/Application/Writers"
ADMINS: Final = "/Channel/Application/Admins"
DEFAULT_ACLS: Final[Mapping[str, str]] = {
    "_lifecycle/CheckCommitReadiness": WRITERS,
    "_lifecycle/CommitChaincodeDefinition": WRITERS,
    "_lifecycle/QueryChaincodeDefinition": WRITERS,
    "_lifecycle/QueryChaincodeDefinitions": WRITERS,
    "lscc/ChaincodeExists": READERS,
    "lscc/GetDeploymentSpec": READERS,
    "lscc/GetChaincodeData": READERS,
    "lscc/GetInstantiatedChaincodes": READERS,
    "qscc/GetChainInfo": READERS,
    "qscc/GetBlockByNumber": READERS,
    "qscc/GetBlockByHash": READERS,
    "qscc/GetTransactionByID": READERS,
    "qscc/GetBlockByTxID": READERS,
    "cscc/GetConfigBlock": READERS,
    "cscc/GetChannelConfig": READERS,
    "peer/Propose": WRITERS,
    "peer/ChaincodeToChaincode": WRITERS,
    "event/Block": READERS,
    "event/FilteredBlock": READERS,
    "gateway/CommitStatus": READERS,
    "gateway/ChaincodeEvents": READERS,
}
"""Channel resources and the policy of each (core/aclmgmt/defaultaclprovider.go)."""
M = TypeVar("M", bound=Message)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNIT_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str) -> float:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigError(f"batch timeout {text!r} is not a duration")
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


class ChannelBundle:
    """The configuration of a channel, ready to be used."""

    def __init__(self, channel_id: str, config: configtx_pb2.Config) -> None:
        self.channel_id = channel_id
        self.config = config
        self.sequence = config.sequence
        root = config.channel_group
        for name in ("Orderer", "Application"):
            if name not in root.groups:
                raise ConfigError(f"the configuration of channel {channel_id} has no {name} group")
        application, orderer = root.groups["Application"], root.groups["Orderer"]
        self.application_msp_ids = _msp_ids(application)
        self.orderer_msp_ids = _msp_ids(orderer)
        channel_capabilities = _value(root, "Capabilities", configuration_pb2.Capabilities).capabilities
        ed25519 = any(name.startswith("V3") for name in channel_capabilities)
        msps: dict[str, Msp] = {}
        for group in (orderer, application):
            for name in sorted(group.groups):
                fabric = organization_msp(group.groups[name], name)
                msps[fabric.name] = Msp.from_config(fabric, ed25519=ed25519)
        self.msps = MspManager(msps.values())
        self.policies = PolicyManager(self._policies(root, "/Channel"))
        size = _value(orderer, "BatchSize", orderer_configuration_pb2.BatchSize)
        timeout = _value(orderer, "BatchTimeout", orderer_configuration_pb2.BatchTimeout)
        self.batch = BatchSettings(
            size.max_message_count, size.absolute_max_bytes, size.preferred_max_bytes, _seconds(timeout.timeout)
        )
        self.capabilities: Mapping[str, frozenset[str]] = {
            name: frozenset(_value(group, "Capabilities", configuration_pb2.Capabilities).capabilities)
            for name, group in (("Channel", root), ("Orderer", orderer), ("Application", application))
        }
        self.consensus_type = _value(orderer, "ConsensusType", orderer_configuration_pb2.ConsensusType).type
        acls = _value(application, "ACLs", peer_configuration_pb2.ACLs).acls
        self._acls = {resource: acl.policy_ref for resource, acl in acls.items()}

    @classmethod
    def from_config(cls, channel_id: str, config: configtx_pb2.Config) -> ChannelBundle:
        """Read a configuration. Raises ConfigError."""
        try:
            return cls(channel_id, config)
        except DecodeError as error:
            raise ConfigError(f"the configuration of channel {channel_id} cannot be read: {error}") from error

    @classmethod
    def from_block(cls, block: common_pb2.Block) -> ChannelBundle:
        """Read the configuration that a config block carries. Raises ConfigError."""
        try:
            envelope = common_pb2.Envelope.FromString(block.data.data[0])
            payload = common_pb2.Payload.FromString(envelope.payload)
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
            if header.type != common_pb2.CONFIG:
                raise ConfigError(f"block {block.header.number} is not a config block")
            config = configtx_pb2.ConfigEnvelope.FromString(payload.data).config
        except (DecodeError, IndexError) as error:
            raise ConfigError(f"block {block.header.number} is not a config block") from error
        return cls.from_config(header.channel_id, config)

    def policy_for_acl(self, resource: str) -> str:
        """The path of the policy that guards a resource: the channel's ACL, else Fabric's default. Raises ConfigError if unknown."""
        found = self._acls.get(resource) or DEFAULT_ACLS.get(resource)
        if found is None:
            raise ConfigError(f"no policy is known for the resource {resource}")
        return found if found.startswith("/") else f"/Channel/Application/{found}"

    def _policies(self, group: configtx_pb2.ConfigGroup, path: str) -> dict[str, Policy]:
        found: dict[str, Policy] = {}
        for name in group.groups:
            found |= self._policies(group.groups[name], f"{path}/{name}")
        for name, entry in group.policies.items():
            policy = entry.policy
            if policy.type == policies_pb2.Policy.SIGNATURE:
                found[f"{path}/{name}"] = SignaturePolicy(
                    policies_pb2.SignaturePolicyEnvelope.FromString(policy.value), self.msps
                )
            elif policy.type == policies_pb2.Policy.IMPLICIT_META:
                meta = policies_pb2.ImplicitMetaPolicy.FromString(policy.value)
                children = [found.get(f"{path}/{child}/{meta.sub_policy}") for child in sorted(group.groups)]
                found[f"{path}/{name}"] = ImplicitMetaPolicy(meta, children, name, self.msps)
            else:
                raise ConfigError(f"policy {path}/{name} has an unknown type {policy.type}")
        return found


def organization_msp(group: configtx_pb2.ConfigGroup, name: str) -> msp_config_pb2.FabricMSPConfig:
    """Return the MSP in an organisation's group. Raises ConfigError if there is none, DecodeError if it cannot be read."""
    value = _value(group, "MSP", msp_config_pb2.MSPConfig)
    if value.type != 0 or not value.config:
        raise ConfigError(f"organisation {name} has no X.509 MSP")
    return msp_config_pb2.FabricMSPConfig.FromString(value.config)


def _msp_ids(group: configtx_pb2.ConfigGroup) -> tuple[str, ...]:
    return tuple(sorted(organization_msp(group.groups[name], name).name for name in group.groups))


def _value(group: configtx_pb2.ConfigGroup, key: str, kind: type[M]) -> M:
    return kind.FromString(group.values[key].value if key in group.values else b"")
