"""Which organisations must endorse a transaction: sets of peers that satisfy every policy that will judge it.

Mirrors discovery/endorsement/endorsement.go and internal/pkg/gateway/registry.go, for one peer per organisation. A
layout is a set of organisations; layouts are tried from the best to the worst until one is complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2
from fabric_protos.peer import policy_pb2, proposal_response_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.chainview import ChainView
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.registry import Registry
from sovchain.ledger.state import Snapshot
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.lifecycle import ChaincodeDefinition, collection_policy, with_defaults

if TYPE_CHECKING:
    from sovchain.ledger.peer import Peer

MAX_LAYOUTS: Final = 10_000
"""Combinations of organisations that are looked at for one policy; inquire.go combinationsUpperBound."""
_MAX_POLICY_DEPTH: Final = 64
_MAX_KNOWN: Final = 1_024

Layout = frozenset[str]
"""MSP ids whose peers endorse together."""

_NO_PLAN: Final = "no combination of peers can be derived which satisfy the endorsement policy: "


def undefined_chaincode_text(name: str, channel_id: str) -> str:
    """Return Fabric's text for a chaincode that a channel does not have, or a channel that the peer is not on."""
    return f"{_NO_PLAN}No metadata was found for chaincode {name} in channel {channel_id}"


class NoPlanError(LedgerError):
    """No set of peers satisfies the policies; the text is Fabric's."""


@dataclass(frozen=True)
class Candidate:
    """A peer that may endorse: its organisation and its identity, by which principals are judged."""

    msp_id: str
    satisfies: Callable[[msp_principal_pb2.MSPPrincipal], bool]


@dataclass(frozen=True)
class KnownPlan:
    """Layouts that were worked out before, and what they rest on."""

    bundle: ChannelBundle
    height: int
    peers: tuple[str, ...]
    able: Mapping[str, Layout]
    layouts: tuple[Layout, ...]

    def holds(self, channel: ChainView, height: int, peers: tuple[str, ...], able: Mapping[str, Layout]) -> bool:
        """Whether working them out anew for a snapshot of this height would give the same."""
        return (
            channel.bundle is self.bundle
            and channel.same_definitions(self.height, height)
            and peers == self.peers
            and able == self.able
        )


class EndorsementPlanner:
    """Makes layouts for transactions on one channel, as one snapshot shows its chaincodes."""

    def __init__(self, registry: Registry, channel: ChainView, snapshot: Snapshot, asked: Peer) -> None:
        """`asked` is the peer that plans."""
        self._registry = registry
        self._channel = channel
        self._snapshot = snapshot
        self._asked = asked

    def peers_with(self, chaincode: str) -> dict[str, Peer]:
        """Return one peer of each organisation that can run a chaincode, by MSP id: the best of `all_with`."""
        found: dict[str, Peer] = {}
        for peer in self.all_with(chaincode):
            found.setdefault(peer.msp_id, peer)
        return found

    def all_with(self, chaincode: str) -> list[Peer]:
        """Return the peers of the channel that can run a chaincode.

        By organisation; in each those with more blocks come first, then the peer that plans
        (internal/pkg/gateway/registry.go sorter).
        """
        able = [
            peer
            for peer in self._registry.peers_of(self._channel)
            if self._registry.definitions.is_callable(
                self._channel, self._snapshot, chaincode, peer.msp_id, peer.packages
            )
        ]
        name = self._channel.channel_id
        return sorted(
            able, key=lambda peer: (peer.msp_id, -self._registry.height_of(peer, name), peer is not self._asked)
        )

    def layouts(self, interest: proposal_response_pb2.ChaincodeInterest, preferred: str) -> list[Layout]:
        """Return the sets of organisations that satisfy the policies of everything in the interest.

        Sets with the preferred organisation come first, then smaller ones.

        Raises:
            NoPlanError: a chaincode is not defined, or no set of available peers satisfies the policies.
        """
        registry, channel, height = self._registry, self._channel, self._snapshot.height
        able = {call.name: frozenset(self.peers_with(call.name)) for call in interest.chaincodes}
        peers = tuple(peer.msp_id for peer in registry.peers_of(channel))
        key = (channel.channel_id, preferred, interest.SerializeToString(deterministic=True))
        known = registry.plans.get(key)
        if known is not None and known.holds(channel, height, peers, able):
            return list(known.layouts)
        layouts = self._layouts(interest, preferred, able)
        if len(registry.plans) >= _MAX_KNOWN:
            registry.plans.clear()  # interests come from clients
        registry.plans[key] = KnownPlan(channel.bundle, height, peers, able, tuple(layouts))
        return layouts

    def _layouts(
        self, interest: proposal_response_pb2.ChaincodeInterest, preferred: str, able: Mapping[str, Layout]
    ) -> list[Layout]:
        calls = interest.chaincodes
        definitions = {call.name: self._definition(call.name) for call in calls}
        candidates = [self._candidate(peer) for peer in self._eligible(calls)]
        layouts: list[Layout] = [frozenset()]
        for policy in self._policies(calls, definitions):
            satisfying = self._satisfying(policy, candidates)
            if not satisfying:
                raise NoPlanError(f"{_NO_PLAN}no peer combination can satisfy the endorsement policy")
            layouts = _minimal(one | other for one, other in itertools.product(layouts, satisfying))
        layouts = [layout for layout in layouts if layout]
        if not layouts:
            raise NoPlanError(f"{_NO_PLAN}no principal sets remained after filtering")
        everywhere = frozenset.intersection(*(able[call.name] for call in calls))
        layouts = [layout for layout in layouts if layout <= everywhere]
        if not layouts:
            raise NoPlanError(f"{_NO_PLAN}required chaincodes are not installed on sufficient peers")
        return sorted(layouts, key=lambda layout: (preferred not in layout, len(layout), sorted(layout)))

    def _definition(self, name: str) -> ChaincodeDefinition:
        definition = self._registry.definitions.committed(self._channel, self._snapshot, name)
        if definition is None:
            raise NoPlanError(undefined_chaincode_text(name, self._channel.channel_id))
        return definition

    def _eligible(self, calls: Iterable[proposal_response_pb2.ChaincodeCall]) -> list[Peer]:
        """Return the peers of the channel that are members of all collections that are read."""
        members = [
            self._members(call.name, collection)
            for call in calls
            if not call.no_private_reads
            for collection in call.collection_names
        ]
        peers = self._registry.peers_of(self._channel)
        return [peer for peer in peers if all(member(self._candidate(peer)) for member in members)]

    def _members(self, chaincode: str, collection: str) -> Callable[[Candidate], bool]:
        for config in self._channel.collections(chaincode) or ():
            if config.name == collection:
                principals = config.member_orgs_policy.signature_policy.identities
                return lambda candidate: any(candidate.satisfies(principal) for principal in principals)
        raise NoPlanError(
            f"{_NO_PLAN}collection {collection} doesn't exist in collection config for chaincode {chaincode}"
        )

    def _candidate(self, peer: Peer) -> Candidate:
        msps = self._channel.bundle.msps
        identity = msps.deserialize(peer.identity)
        return Candidate(peer.msp_id, lambda principal: msps.satisfies(identity, principal))

    def _policies(
        self,
        calls: Iterable[proposal_response_pb2.ChaincodeCall],
        definitions: dict[str, ChaincodeDefinition],
    ) -> list[bytes]:
        """Return the ApplicationPolicy bytes of everything that will judge the transaction, without repetition."""
        policies: list[bytes] = []
        for call in calls:
            definition = with_defaults(definitions[call.name])
            policies += [
                collection_policy(definition, collection, self._channel.bundle) for collection in call.collection_names
            ]
            if not call.collection_names and not call.disregard_namespace_policy:
                policies.append(definition.endorsement_policy)
            policies += [
                policy_pb2.ApplicationPolicy(signature_policy=policy).SerializeToString()
                for policy in call.key_policies
            ]
        return list(dict.fromkeys(policies))

    def _satisfying(self, policy: bytes, candidates: Sequence[Candidate]) -> list[Layout]:
        try:
            decoded = policy_pb2.ApplicationPolicy.FromString(policy)
        except DecodeError:
            raise NoPlanError(f"{_NO_PLAN}failed to unmarshal ApplicationPolicy bytes") from None
        if decoded.HasField("signature_policy"):
            return satisfying_layouts(decoded.signature_policy, candidates)
        try:
            sets = self._channel.bundle.policies.satisfying_organisations(decoded.channel_config_policy_reference)
        except ProtocolError as error:
            raise NoPlanError(f"{_NO_PLAN}{error}") from error
        available = {candidate.msp_id for candidate in candidates}
        return _minimal(layout for layout in sets if layout <= available)


def satisfying_layouts(envelope: policies_pb2.SignaturePolicyEnvelope, candidates: Sequence[Candidate]) -> list[Layout]:
    """Return the minimal sets of candidates' organisations whose signatures satisfy a signature policy.

    As in the policy's evaluation each signature counts once: a rule that names one organisation twice needs two peers
    of it, so it has no layout here. Mirrors common/policies/inquire/inquire.go. Raises NoPlanError for a malformed or
    too large policy.
    """
    leaves = [
        [frozenset({candidate.msp_id}) for candidate in candidates if candidate.satisfies(principal)]
        for principal in envelope.identities
    ]
    return _minimal(_rule_layouts(envelope.rule, leaves, 0))


def _rule_layouts(rule: policies_pb2.SignaturePolicy, leaves: list[list[Layout]], depth: int) -> list[Layout]:
    if depth > _MAX_POLICY_DEPTH:
        raise NoPlanError(f"{_NO_PLAN}the policy is nested too deeply")
    if not rule.HasField("n_out_of"):
        if not 0 <= rule.signed_by < len(leaves):
            raise NoPlanError(f"{_NO_PLAN}the policy refers to an identity that it does not have")
        return leaves[rule.signed_by]
    children = [_rule_layouts(child, leaves, depth + 1) for child in rule.n_out_of.rules]
    found: set[Layout] = set()
    for chosen in itertools.combinations(children, max(0, rule.n_out_of.n)):
        partial: set[Layout] = {frozenset()}
        for layouts in chosen:
            partial = {one | other for one in partial for other in layouts if not one & other}
            if len(partial) > MAX_LAYOUTS:
                raise NoPlanError(f"{_NO_PLAN}the policy has too many combinations")
        found |= partial
        if len(found) > MAX_LAYOUTS:
            raise NoPlanError(f"{_NO_PLAN}the policy has too many combinations")
    return list(found)


def _minimal(layouts: Iterable[Layout]) -> list[Layout]:
    """Return the layouts without those that contain another one."""
    kept: list[Layout] = []
    for layout in sorted(set(layouts), key=lambda layout: (len(layout), sorted(layout))):
        if not any(smaller <= layout for smaller in kept):
            kept.append(layout)
        if len(kept) > MAX_LAYOUTS:
            raise NoPlanError(f"{_NO_PLAN}the policies have too many combinations")
    return kept
