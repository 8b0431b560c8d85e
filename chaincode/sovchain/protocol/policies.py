"""Policies and their evaluation (common/cauthdsl/cauthdsl.go, common/policies/{policy,implicitmeta,manager}.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

from sovchain.protocol.errors import InvalidIdentity, MalformedError, PolicyUnsatisfied
from sovchain.protocol.identity import Identity
from sovchain.protocol.msp import MspManager

UNSATISFIED = "signature set did not satisfy policy"
DEPTH_MAX = 100


@dataclass(frozen=True, slots=True)
class SignedData:
    """One signature: what was signed, who says to have signed it (serialised), and the signature."""

    message: bytes
    identity: bytes
    signature: bytes


class Policy(Protocol):
    """Something that signatures satisfy or not."""

    def evaluate(self, signed: Sequence[SignedData]) -> None:
        """Raise PolicyUnsatisfied, with Fabric's text, unless the signatures satisfy the policy."""
        ...

    def evaluate_identities(self, identities: Sequence[Identity]) -> None:
        """Evaluate for identities whose signatures were verified already. Raises PolicyUnsatisfied."""
        ...

    def satisfying_organisations(self) -> frozenset[frozenset[str]]:
        """The minimal sets of MSP ids whose identities can satisfy the policy."""
        ...


def verified_identities(signed: Iterable[SignedData], msps: MspManager) -> list[Identity]:
    """The distinct identities whose signatures are good, in order; the others are dropped (common/policies/policy.go)."""
    found: dict[tuple[str, str], Identity] = {}
    for entry in signed:
        try:
            identity = msps.deserialize(entry.identity)
        except InvalidIdentity:
            continue
        if identity.unique_id in found:
            continue
        if identity.verify(entry.message, entry.signature):
            found[identity.unique_id] = identity
    return list(found.values())


class SignaturePolicy:
    """A policy over principals. Evaluation is greedy, without backtracking, as in common/cauthdsl/cauthdsl.go.

    Raises MalformedError for a rule that refers to no principal or is nested too deeply.
    """

    def __init__(self, envelope: policies_pb2.SignaturePolicyEnvelope, msps: MspManager) -> None:
        if envelope.version != 0:
            raise MalformedError(
                f"this evaluator only understands messages of version 0, but version was {envelope.version}"
            )
        _check(envelope.rule, len(envelope.identities))
        self.envelope = envelope
        self._principals = list(envelope.identities)
        self._msps = msps

    def evaluate(self, signed: Sequence[SignedData]) -> None:
        self.evaluate_identities(verified_identities(signed, self._msps))

    def evaluate_identities(self, identities: Sequence[Identity]) -> None:
        """Evaluate for identities whose signatures were verified already. Raises PolicyUnsatisfied."""
        if not self._rule(self.envelope.rule, identities, [False] * len(identities)):
            raise PolicyUnsatisfied(UNSATISFIED)

    def _rule(self, rule: policies_pb2.SignaturePolicy, identities: Sequence[Identity], used: list[bool]) -> bool:
        if rule.WhichOneof("Type") == "signed_by":
            principal = self._principals[rule.signed_by]
            for index, identity in enumerate(identities):
                if not used[index] and self._msps.satisfies(identity, principal):
                    used[index] = True
                    return True
            return False
        verified = 0
        attempt = list(used)
        for part in rule.n_out_of.rules:
            if self._rule(part, identities, attempt):
                verified += 1
                used[:] = attempt
            else:
                attempt = list(used)
        return verified >= rule.n_out_of.n

    def satisfying_organisations(self) -> frozenset[frozenset[str]]:
        return satisfying_organisations(self.envelope)


def _check(rule: policies_pb2.SignaturePolicy, identities: int, depth: int = 0) -> None:
    if depth > DEPTH_MAX:
        raise MalformedError(f"the policy has more than {DEPTH_MAX} levels")
    match rule.WhichOneof("Type"):
        case "signed_by":
            if not 0 <= rule.signed_by < identities:
                raise MalformedError(
                    f"identity index out of range, requested {rule.signed_by}, but identities length is {identities}"
                )
        case "n_out_of":
            for part in rule.n_out_of.rules:
                _check(part, identities, depth + 1)
        case _:
            raise MalformedError("Unknown type: <nil>")


class ImplicitMetaPolicy:
    """ANY, ALL or MAJORITY of the sub-policies of the groups below (common/policies/implicitmeta.go).

    A group without the sub-policy (None) counts and is never satisfied. Signatures are verified once for all groups: who
    has signed does not depend on who asks.
    """

    def __init__(
        self, meta: policies_pb2.ImplicitMetaPolicy, children: Sequence[Policy | None], name: str, msps: MspManager
    ) -> None:
        self._children = children
        self._msps = msps
        count = len(children)
        kind = policies_pb2.ImplicitMetaPolicy
        self.threshold = {kind.ANY: 1, kind.ALL: count}.get(meta.rule, count // 2 + 1)
        if not children:
            self.threshold = 0
        self._name = f"{kind.Rule.Name(meta.rule)} {meta.sub_policy}"
        self._sub = meta.sub_policy

    def evaluate(self, signed: Sequence[SignedData]) -> None:
        if self.threshold:
            self.evaluate_identities(verified_identities(signed, self._msps))

    def evaluate_identities(self, identities: Sequence[Identity]) -> None:
        """Evaluate for identities whose signatures were verified already. Raises PolicyUnsatisfied."""
        remaining, satisfied = self.threshold, 0
        for child in self._children:
            if remaining == 0:
                return
            if child is None:
                continue
            try:
                child.evaluate_identities(identities)
            except PolicyUnsatisfied:
                continue
            remaining -= 1
            satisfied += 1
        if remaining:
            raise PolicyUnsatisfied(
                f"implicit policy evaluation failed - {satisfied} sub-policies were satisfied, but this policy requires "
                f"{self.threshold} of the '{self._sub}' sub-policies to be satisfied"
            )

    def satisfying_organisations(self) -> frozenset[frozenset[str]]:
        known = [child.satisfying_organisations() for child in self._children if child is not None]
        return _n_of(self.threshold, known)


def _minimal(sets: Iterable[frozenset[str]]) -> frozenset[frozenset[str]]:
    chosen: list[frozenset[str]] = []
    for candidate in sorted(set(sets), key=len):
        if not any(smaller <= candidate for smaller in chosen):
            chosen.append(candidate)
    return frozenset(chosen)


def _n_of(n: int, parts: Sequence[frozenset[frozenset[str]]]) -> frozenset[frozenset[str]]:
    if n <= 0:
        return frozenset({frozenset()})
    result: set[frozenset[str]] = set()
    for chosen in combinations(parts, n):
        partial: frozenset[frozenset[str]] = frozenset({frozenset()})
        for options in chosen:
            partial = _minimal(a | b for a in partial for b in options)
        result |= partial
    return _minimal(result)


def satisfying_organisations(envelope: policies_pb2.SignaturePolicyEnvelope) -> frozenset[frozenset[str]]:
    """The minimal sets of MSP ids whose identities together can satisfy a policy."""

    def organisation(index: int) -> frozenset[frozenset[str]]:
        principal = envelope.identities[index]
        kind = msp_principal_pb2.MSPPrincipal
        if principal.principal_classification == kind.ROLE:
            return frozenset({frozenset({msp_principal_pb2.MSPRole.FromString(principal.principal).msp_identifier})})
        if principal.principal_classification == kind.ORGANIZATION_UNIT:
            return frozenset(
                {frozenset({msp_principal_pb2.OrganizationUnit.FromString(principal.principal).msp_identifier})}
            )
        from sovchain.protocol.identity import parse_identity

        return frozenset({frozenset({parse_identity(principal.principal).msp_id})})

    def rule(node: policies_pb2.SignaturePolicy) -> frozenset[frozenset[str]]:
        if node.WhichOneof("Type") == "signed_by":
            return organisation(node.signed_by)
        return _n_of(node.n_out_of.n, [rule(part) for part in node.n_out_of.rules])

    return rule(envelope.rule)


class _Rejecting:
    def __init__(self, path: str) -> None:
        self._path = path

    def evaluate(self, signed: Sequence[SignedData]) -> None:
        raise PolicyUnsatisfied(f"policy {self._path} not found")

    def evaluate_identities(self, identities: Sequence[Identity]) -> None:
        raise PolicyUnsatisfied(f"policy {self._path} not found")

    def satisfying_organisations(self) -> frozenset[frozenset[str]]:
        return frozenset()


class PolicyManager:
    """The policies of one channel by path (common/policies/manager.go)."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self._policies = dict(policies)

    def get(self, path: str) -> Policy:
        """The policy at an absolute path such as `/Channel/Application/Writers`; a missing one rejects everything, as in Fabric."""
        return self._policies.get(path) or _Rejecting(path)

    def find(self, path: str) -> Policy | None:
        """The policy at an absolute path, None for a missing one."""
        return self._policies.get(path)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all policies, sorted."""
        return tuple(sorted(self._policies))

    def satisfying_organisations(self, path: str) -> frozenset[frozenset[str]]:
        """The minimal sets of MSP ids that can satisfy the policy at a path."""
        return self.get(path).satisfying_organisations()
