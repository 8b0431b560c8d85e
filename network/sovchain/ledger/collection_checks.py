"""Rules for the private data collections of a proposed chaincode definition.

Mirrors validateCollectionConfigs and its siblings in core/chaincode/lifecycle/scc.go. Names are checked by
`sovchain.protocol.lifecycle.check_names`.
"""

from __future__ import annotations

from collections.abc import Mapping

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2
from fabric_protos.peer import collection_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.errors import LedgerError
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.lifecycle import ChaincodeDefinition

_MAX_POLICY_DEPTH = 32
_Kind = msp_principal_pb2.MSPPrincipal


class CollectionRefusedError(LedgerError):
    """A collection cannot be defined like this; the text is Fabric's."""


def check_collections(
    package: collection_pb2.CollectionConfigPackage | None,
    bundle: ChannelBundle,
    committed: ChaincodeDefinition | None,
) -> None:
    """Check the collections of a definition against the channel and against the definition that it replaces.

    Raises CollectionRefusedError.
    """
    proposed: dict[str, collection_pb2.StaticCollectionConfig] = {}
    for entry in package.config if package is not None else ():
        if not entry.HasField("static_collection_config"):
            raise CollectionRefusedError("collection configuration is empty")
        config = entry.static_collection_config
        if config.name in proposed:
            raise CollectionRefusedError(
                f"collection-name: {config.name} -- found duplicate in collection configuration"
            )
        proposed[config.name] = config
        _check_counts(config)
        _check_members(config, bundle)
    if committed is not None and committed.collections is not None:
        _check_against_committed(proposed, committed.collections)


def _check_counts(config: collection_pb2.StaticCollectionConfig) -> None:
    if config.maximum_peer_count < config.required_peer_count:
        raise CollectionRefusedError(
            f"collection-name: {config.name} -- maximum peer count ({config.maximum_peer_count}) cannot be less than "
            f"the required peer count ({config.required_peer_count})"
        )
    if config.required_peer_count < 0:
        raise CollectionRefusedError(
            f"collection-name: {config.name} -- requiredPeerCount ({config.required_peer_count}) cannot be less than "
            "zero"
        )


def _check_members(config: collection_pb2.StaticCollectionConfig, bundle: ChannelBundle) -> None:
    if not config.HasField("member_orgs_policy"):
        raise CollectionRefusedError(f"collection member policy is not set for collection '{config.name}'")
    policy = config.member_orgs_policy.signature_policy
    if not policy.HasField("rule"):
        raise CollectionRefusedError(f"collection member org policy is empty for collection '{config.name}'")
    _check_disjunction(config.name, policy.rule, len(policy.identities), 0)
    for principal in policy.identities:
        _check_principal(config.name, principal, bundle)


def _check_disjunction(name: str, rule: policies_pb2.SignaturePolicy, identities: int, depth: int) -> None:
    if depth > _MAX_POLICY_DEPTH:
        raise CollectionRefusedError(f"collection-name: {name} -- error in member org policy: it is nested too deeply")
    if not rule.HasField("n_out_of"):
        if not 0 <= rule.signed_by < identities:
            raise CollectionRefusedError(
                f"invalid member org policy for collection '{name}': identity index out of range, requested "
                f"{rule.signed_by}, but identities length is {identities}"
            )
        return
    if rule.n_out_of.n != 1:
        raise CollectionRefusedError(
            f"collection-name: {name} -- error in member org policy: signature policy is not an OR concatenation, "
            f"NOutOf {rule.n_out_of.n}"
        )
    for child in rule.n_out_of.rules:
        _check_disjunction(name, child, identities, depth + 1)


def _check_principal(name: str, principal: msp_principal_pb2.MSPPrincipal, bundle: ChannelBundle) -> None:
    kind = principal.principal_classification
    if kind == _Kind.IDENTITY:
        try:
            bundle.msps.deserialize(principal.principal)
        except ProtocolError:
            raise CollectionRefusedError(
                f"collection-name: {name} -- contains an identity that is not part of the channel"
            ) from None
        return
    try:
        if kind == _Kind.ROLE:
            member = msp_principal_pb2.MSPRole.FromString(principal.principal).msp_identifier
        elif kind == _Kind.ORGANIZATION_UNIT:
            member = msp_principal_pb2.OrganizationUnit.FromString(principal.principal).msp_identifier
        else:
            raise CollectionRefusedError(f"collection-name: {name} -- principal type {kind} is not supported")
    except DecodeError:
        raise CollectionRefusedError(f"collection-name: {name} -- cannot unmarshal a principal") from None
    if member not in bundle.msps.msp_ids:
        raise CollectionRefusedError(
            f"collection-name: {name} -- collection member '{member}' is not part of the channel"
        )


def _check_against_committed(
    proposed: Mapping[str, collection_pb2.StaticCollectionConfig], committed: collection_pb2.CollectionConfigPackage
) -> None:
    if not committed.config:
        return
    if not proposed:
        raise CollectionRefusedError("the proposed collection config does not contain previously defined collections")
    for entry in committed.config:
        old = entry.static_collection_config
        new = proposed.get(old.name)
        if new is None:
            raise CollectionRefusedError(
                f"existing collection [{old.name}] missing in the proposed collection configuration"
            )
        if new.block_to_live != old.block_to_live:
            raise CollectionRefusedError(
                f"the BlockToLive in an existing collection [{old.name}] modified. Existing value [{old.block_to_live}]"
            )
