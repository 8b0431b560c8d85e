"""Channel configurations as the dictionaries that hfc's callers know (its decode_config_envelope and what is below it).

What hfc leaves empty is empty here too: values that it has no decoder for (capabilities, ACLs), roles newer than ADMIN.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.msp import msp_config_pb2, msp_principal_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.peer import configuration_pb2 as peer_pb2

from sovchain.client.hfc.headers import decode_header, decode_identity, decode_signature_header

_ROLES: Final = {msp_principal_pb2.MSPRole.MEMBER: "MEMBER", msp_principal_pb2.MSPRole.ADMIN: "ADMIN"}


def decode_config_envelope(data: bytes) -> dict[str, Any]:
    """The configuration of a channel, and the update that made it. Raises google.protobuf.message.DecodeError."""
    envelope = configtx_pb2.ConfigEnvelope.FromString(data)
    update = common_pb2.Payload.FromString(envelope.last_update.payload)
    return {
        "config": {
            "sequence": str(envelope.config.sequence),
            "channel_group": _group(envelope.config.channel_group),
        },
        "last_update": {
            "payload": {"header": decode_header(update.header), "data": decode_config_update_envelope(update.data)},
            "signature": envelope.last_update.signature,
        },
    }


def decode_config_update_envelope(data: bytes) -> dict[str, Any]:
    """An update of a configuration, and who signed it. Raises google.protobuf.message.DecodeError."""
    envelope = configtx_pb2.ConfigUpdateEnvelope.FromString(data)
    update = configtx_pb2.ConfigUpdate.FromString(envelope.config_update)
    return {
        "config_update": {
            "channel_id": update.channel_id,
            "read_set": _group(update.read_set),
            "write_set": _group(update.write_set),
        },
        "signatures": [
            {"signature_header": decode_signature_header(one.signature_header), "signature": one.signature}
            for one in envelope.signatures
        ],
    }


def _group(group: configtx_pb2.ConfigGroup) -> dict[str, Any]:
    return {
        "version": group.version,
        "groups": {name: _group(below) for name, below in group.groups.items()},
        "values": {name: _value(name, value) for name, value in group.values.items()},
        "policies": {
            name: {"version": one.version, "mod_policy": one.mod_policy, "policy": _policy(one.policy)}
            for name, one in group.policies.items()
        },
        "mod_policy": group.mod_policy,
    }


def _value(name: str, value: configtx_pb2.ConfigValue) -> dict[str, Any]:
    decoder = _VALUES.get(name)
    return {
        "version": value.version,
        "mod_policy": value.mod_policy,
        "value": {} if decoder is None else decoder(value.value),
    }


# -- policies --------------------------------------------------------------------------------------------------------


def _policy(policy: policies_pb2.Policy) -> dict[str, Any]:
    decoder = _POLICIES.get(policy.type)
    return {"type": policy.type} if decoder is None else {"type": policy.type, "value": decoder(policy.value)}


def _implicit_meta(data: bytes) -> dict[str, Any]:
    policy = policies_pb2.ImplicitMetaPolicy.FromString(data)
    return {"sub_policy": policy.sub_policy, "rule": policies_pb2.ImplicitMetaPolicy.Rule.Name(policy.rule)}


def _signature_policy(data: bytes) -> dict[str, Any]:
    envelope = policies_pb2.SignaturePolicyEnvelope.FromString(data)
    return {
        "version": envelope.version,
        "rule": _rule(envelope.rule),
        "identities": [_principal(one) for one in envelope.identities],
    }


def _rule(rule: policies_pb2.SignaturePolicy) -> dict[str, Any]:
    if rule.HasField("n_out_of"):
        return {"n_out_of": {"n": rule.n_out_of.n, "rules": [_rule(one) for one in rule.n_out_of.rules]}}
    return {"signed_by": rule.signed_by}


def _principal(principal: msp_principal_pb2.MSPPrincipal) -> dict[str, Any]:
    kind = principal.principal_classification
    if kind == msp_principal_pb2.MSPPrincipal.ROLE:
        role = msp_principal_pb2.MSPRole.FromString(principal.principal)
        found: dict[str, Any] = {"msp_identifier": role.msp_identifier}
        if role.role in _ROLES:
            found["role"] = _ROLES[role.role]
        return {"principal_classification": "ROLE", "principal": found}
    if kind == msp_principal_pb2.MSPPrincipal.ORGANIZATION_UNIT:
        unit = msp_principal_pb2.OrganizationUnit.FromString(principal.principal)
        found = {
            "msp_identifier": unit.msp_identifier,
            "organizational_unit_identifier": unit.organizational_unit_identifier,
            "certifiers_identifier": unit.certifiers_identifier,
        }
        return {"principal_classification": "ORGANIZATION_UNIT", "principal": found}
    return decode_identity(principal.principal)


_POLICIES: Final[Mapping[int, Callable[[bytes], Any]]] = {
    policies_pb2.Policy.UNKNOWN: lambda data: "Unknown",
    policies_pb2.Policy.SIGNATURE: _signature_policy,
    policies_pb2.Policy.IMPLICIT_META: _implicit_meta,
}

# -- values ----------------------------------------------------------------------------------------------------------


def _msp(data: bytes) -> dict[str, Any]:
    config = msp_config_pb2.MSPConfig.FromString(data)
    return {"type": config.type, "config": _fabric_msp(config.config) if config.type == 0 else {}}


def _fabric_msp(data: bytes) -> dict[str, Any]:
    config = msp_config_pb2.FabricMSPConfig.FromString(data)
    units = config.fabric_node_ous
    crypto = config.crypto_config
    return {
        "name": config.name,
        "root_certs": _encoded(config.root_certs),
        "intermediate_certs": _encoded(config.intermediate_certs),
        "admins": _encoded(config.admins),
        "revocation_list": _encoded(config.revocation_list),
        # A signing identity has no place in a channel: hfc shows its key's name, this nothing at all.
        "signing_identity": None,
        "crypto_config": {
            "signature_hash_family": crypto.signature_hash_family,
            "identity_identifier_hash_function": crypto.identity_identifier_hash_function,
        }
        if crypto.ByteSize()
        else {},
        "organizational_unit_identifiers": [_unit(one) for one in config.organizational_unit_identifiers],
        "tls_root_certs": _encoded(config.tls_root_certs),
        "tls_intermediate_certs": _encoded(config.tls_intermediate_certs),
        "fabric_node_ous": {
            "enable": units.enable,
            "client_ou_identifier": _unit(units.client_ou_identifier),
            "peer_ou_identifier": _unit(units.peer_ou_identifier),
        },
    }


def _encoded(certificates: Iterable[bytes]) -> list[str]:
    return [b64encode(one).decode() for one in certificates]


def _unit(unit: msp_config_pb2.FabricOUIdentifier) -> dict[str, Any]:
    return {
        "certificate": unit.certificate.decode(errors="replace"),
        "organizational_unit_identifier": unit.organizational_unit_identifier,
    }


def _anchor_peers(data: bytes) -> dict[str, Any]:
    peers = peer_pb2.AnchorPeers.FromString(data).anchor_peers
    return {"anchor_peers": [{"host": one.host, "port": one.port} for one in peers]} if peers else {}


def _batch_size(data: bytes) -> dict[str, Any]:
    size = orderer_pb2.BatchSize.FromString(data)
    return {
        "max_message_count": size.max_message_count,
        "absolute_max_bytes": size.absolute_max_bytes,
        "preferred_max_bytes": size.preferred_max_bytes,
    }


def _addresses(data: bytes) -> dict[str, Any]:
    addresses = configuration_pb2.OrdererAddresses.FromString(data).addresses
    return {"addresses": list(addresses)} if addresses else {}


_VALUES: Final[Mapping[str, Callable[[bytes], dict[str, Any]]]] = {
    "AnchorPeers": _anchor_peers,
    "MSP": _msp,
    "ConsensusType": lambda data: {"type": orderer_pb2.ConsensusType.FromString(data).type},
    "BatchSize": _batch_size,
    "BatchTimeout": lambda data: {"timeout": orderer_pb2.BatchTimeout.FromString(data).timeout},
    "ChannelRestrictions": lambda data: {"max_count": str(orderer_pb2.ChannelRestrictions.FromString(data).max_count)},
    "Consortium": lambda data: {"name": configuration_pb2.Consortium.FromString(data).name},
    "HashingAlgorithm": lambda data: {"name": configuration_pb2.HashingAlgorithm.FromString(data).name},
    "BlockDataHashingStructure": lambda data: {
        "width": configuration_pb2.BlockDataHashingStructure.FromString(data).width
    },
    "OrdererAddresses": _addresses,
}
