"""Rules of a topology's policies: who can satisfy them, and that nobody does so alone."""

from __future__ import annotations

from collections.abc import Collection as AnyCollection
from collections.abc import Iterator, Mapping

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

from sovchain.network.errors import TopologyProblem
from sovchain.network.topology import ChaincodeSpec, Collection, Topology
from sovchain.protocol import policydsl
from sovchain.protocol.errors import ProtocolError

Problems = Iterator[TopologyProblem]


def policy_problems(topology: Topology) -> Problems:
    """Return the problems of the policies of channels, chaincodes and collections, all names being known."""
    for index, channel in enumerate(topology.channels):
        key, members = f"channels[{index}]", _members(topology, channel.name)
        yield from _decides(f"{key}.lifecycle_endorsement", topology.lifecycle_endorsement(channel.name), members)
        yield from _decides(f"{key}.admins", topology.admins(channel.name), members)
        operators = {part.msp_id: part.operator for part in topology.orderers(channel.name)}
        yield from _decides(f"{key}.orderer_admins", topology.orderer_admins(channel.name), operators)
    for index, chaincode in enumerate(topology.chaincodes):
        key = f"chaincodes[{index}]"
        members = _common_members(topology, chaincode)
        yield from _decides(f"{key}.endorsement_policy", chaincode.endorsement_policy, members)
        for number, collection in enumerate(chaincode.collections):
            yield from _collection(topology, collection, members, f"{key}.collections[{number}]")


def _members(topology: Topology, channel: str) -> dict[str, str]:
    return {part.msp_id: part.name for part in topology.members(channel)}


def _common_members(topology: Topology, chaincode: ChaincodeSpec) -> dict[str, str]:
    """The organisations that are on every channel of a chaincode: its policies are the same on each."""
    first, *others = [_members(topology, name) for name in chaincode.channels]
    return {msp_id: name for msp_id, name in first.items() if all(msp_id in other for other in others)}


def _decides(key: str, text: str, owners: Mapping[str, str], *, alone: bool = False) -> Problems:
    """Refuse a policy that is malformed, speaks of strangers, cannot be satisfied, or, unless `alone`, can by one owner.

    `owners` has the organisation behind each MSP id that the policy may name.
    """
    try:
        envelope = policydsl.parse(text)
    except ProtocolError as error:
        yield TopologyProblem(key, f"the policy cannot be read: {error}", "correct the policy", rule="policy")
        return
    strangers = sorted(_named_in(envelope) - owners.keys())
    for msp_id in strangers:
        yield TopologyProblem(
            key, f"there is no MSP on the channel called {msp_id!r}", "use one of the channel", tuple(sorted(owners)),
            rule="policy",
        )  # fmt: skip
    if strangers:
        return
    if not satisfied_by(envelope, owners):
        yield TopologyProblem(key, "nobody can satisfy the policy", "ask for fewer signatures", rule="policy")
    elif satisfied_by(envelope, ()):
        yield TopologyProblem(key, "the policy asks for no signature", "ask for two or more", rule="sole-policy")
    elif not alone:
        for owner in dict.fromkeys(owners.values()):
            if satisfied_by(envelope, [msp_id for msp_id, behind in owners.items() if behind == owner]):
                yield TopologyProblem(
                    key, f"one organisation alone satisfies the policy: {owner}", "ask for two or more organisations",
                    rule="sole-policy",
                )  # fmt: skip


def satisfied_by(envelope: policies_pb2.SignaturePolicyEnvelope, msp_ids: AnyCollection[str]) -> bool:
    """Whether identities of these organisations, as many and of such roles as it takes, satisfy a policy.

    Asked for each organisation this is quick, where listing all groups that satisfy a policy of many members is not
    (`protocol.policies.satisfying_organisations`, which it agrees with).
    """

    def holds(rule: policies_pb2.SignaturePolicy) -> bool:
        if rule.WhichOneof("Type") == "signed_by":
            return _msp_of(envelope.identities[rule.signed_by]) in msp_ids
        return sum(map(holds, rule.n_out_of.rules)) >= rule.n_out_of.n

    return holds(envelope.rule)


def _named_in(envelope: policies_pb2.SignaturePolicyEnvelope) -> set[str]:
    return {_msp_of(principal) for principal in envelope.identities}


def _msp_of(principal: msp_principal_pb2.MSPPrincipal) -> str:
    # The policy language writes no other principals than roles.
    return msp_principal_pb2.MSPRole.FromString(principal.principal).msp_identifier


def _collection(topology: Topology, spec: Collection, owners: Mapping[str, str], key: str) -> Problems:
    """What `core/chaincode/lifecycle/scc.go` (validateCollectionConfig) refuses, and what could never be written."""
    if bool(spec.members) == bool(spec.policy):
        yield TopologyProblem(
            f"{key}.members", "a collection has either members or a policy", "give one of the two", rule="collection"
        )
        return
    at = f"{key}.members" if spec.members else f"{key}.policy"
    text = topology.collection_policy(spec)
    wrong = list(_decides(at, text, owners, alone=True))
    yield from wrong
    if wrong:
        return
    envelope = policydsl.parse(text)
    holders = _named_in(envelope)
    if not _any_of(envelope.rule):
        yield TopologyProblem(
            at, "the policy of a collection lists who holds its data, and is no other rule", "write it with OR",
            rule="collection",
        )  # fmt: skip
    if spec.required_peer_count > spec.max_peer_count:
        yield TopologyProblem(
            f"{key}.required_peer_count", "it is larger than max_peer_count", f"make it at most {spec.max_peer_count}",
            rule="collection",
        )  # fmt: skip
    others = sum(part.peers for part in topology.organizations if part.msp_id in holders) - 1
    if spec.required_peer_count > others:
        yield TopologyProblem(
            f"{key}.required_peer_count", f"besides the endorser only {others} peers hold the collection",
            f"make it at most {others}", rule="collection",
        )  # fmt: skip
    if spec.endorsement_policy:
        # What one organisation keeps for itself it may also write alone; the others see the hashes.
        yield from _decides(f"{key}.endorsement_policy", spec.endorsement_policy, owners, alone=len(holders) == 1)


def _any_of(rule: policies_pb2.SignaturePolicy) -> bool:
    if rule.WhichOneof("Type") == "signed_by":
        return True
    return rule.n_out_of.n == 1 and all(map(_any_of, rule.n_out_of.rules))
