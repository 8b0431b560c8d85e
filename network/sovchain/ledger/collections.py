"""Which private data collections a chaincode has, who may hold their data, and for how long.

Explicit collections come from the chaincode's definition in `_lifecycle`; besides them every defined chaincode has one
implicit collection for each organisation of the channel, whose only member is that organisation
(`core/chaincode/lifecycle/deployedcc_infoprovider.go`, `core/chaincode/implicitcollection/name.go`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from fabric_protos.common import policies_pb2
from fabric_protos.msp import identities_pb2, msp_principal_pb2
from fabric_protos.peer import collection_pb2
from google.protobuf.message import DecodeError

from sovchain.protocol.lifecycle import LIFECYCLE_NAMESPACE, implicit_collection, read_definition

__all__ = ["LIFECYCLE_NAMESPACE", "Collection", "collections_of"]


@dataclass(frozen=True)
class Collection:
    """One collection: its members' MSP ids, and for how many blocks its data lives (0: for ever)."""

    name: str
    members: frozenset[str]
    block_to_live: int
    config: collection_pb2.StaticCollectionConfig


def collections_of(
    namespace: str, get: Callable[[str], bytes | None], application_msp_ids: Iterable[str]
) -> Mapping[str, Collection] | None:
    """Collections of a chaincode by name, explicit ones first; None if the chaincode is not defined.

    `get` reads a key of `_lifecycle`; a simulator gives a recording one, as Fabric's does. `_lifecycle` itself has the
    implicit collections only. Raises `ProtocolError` if the stored definition cannot be decoded.
    """
    found: dict[str, Collection] = {}
    if namespace != LIFECYCLE_NAMESPACE:
        definition = read_definition(get, namespace)
        if definition is None:
            return None
        for config in _static_configs(definition.collections):
            members = _members(config.member_orgs_policy.signature_policy)
            found[config.name] = Collection(config.name, members, config.block_to_live, config)
    for msp_id in application_msp_ids:
        implicit = _implicit(msp_id)
        found.setdefault(implicit.name, implicit)
    return found


@lru_cache(maxsize=256)
def _implicit(msp_id: str) -> Collection:
    policy = policies_pb2.SignaturePolicyEnvelope(
        rule=policies_pb2.SignaturePolicy(
            n_out_of=policies_pb2.SignaturePolicy.NOutOf(n=1, rules=[policies_pb2.SignaturePolicy(signed_by=0)])
        ),
        identities=[
            msp_principal_pb2.MSPPrincipal(
                principal_classification=msp_principal_pb2.MSPPrincipal.ROLE,
                principal=msp_principal_pb2.MSPRole(
                    msp_identifier=msp_id, role=msp_principal_pb2.MSPRole.MEMBER
                ).SerializeToString(),
            )
        ],
    )
    name = implicit_collection(msp_id)
    config = collection_pb2.StaticCollectionConfig(
        name=name, member_orgs_policy=collection_pb2.CollectionPolicyConfig(signature_policy=policy)
    )
    return Collection(name, frozenset({msp_id}), 0, config)


def _static_configs(
    package: collection_pb2.CollectionConfigPackage | None,
) -> list[collection_pb2.StaticCollectionConfig]:
    if package is None:
        return []
    return [entry.static_collection_config for entry in package.config if entry.HasField("static_collection_config")]


def _members(policy: policies_pb2.SignaturePolicyEnvelope) -> frozenset[str]:
    # Lifecycle admits only disjunctions here, so every organisation that is named is a member on its own
    # (core/common/privdata/util.go getMemberOrgs).
    kinds = msp_principal_pb2.MSPPrincipal
    members = set()
    for identity in policy.identities:
        try:
            if identity.principal_classification == kinds.ROLE:
                members.add(msp_principal_pb2.MSPRole.FromString(identity.principal).msp_identifier)
            elif identity.principal_classification == kinds.ORGANIZATION_UNIT:
                members.add(msp_principal_pb2.OrganizationUnit.FromString(identity.principal).msp_identifier)
            elif identity.principal_classification == kinds.IDENTITY:
                members.add(identities_pb2.SerializedIdentity.FromString(identity.principal).mspid)
        except DecodeError:
            continue  # as in Fabric, a principal that cannot be read names no member
    return frozenset(members)
