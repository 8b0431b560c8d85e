"""Cedar as the engine uses it: a schema that laws are checked against, compiled law sets, and evaluation without skips.

Cedar's own authorizer passes over a policy whose condition fails to evaluate, so that a `forbid` which trips over a
missing attribute forbids nothing (authorizer.rs). Here every policy is evaluated as a `permit` in one set: the library
then names each policy whose condition holds and each that failed, and the engine combines them by its own rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, Final, Literal, NamedTuple

import cedarpy

from sovchain.contracts.core.cedartext import CedarTextError, PolicyText, parse_policies, place_named
from sovchain.contracts.core.codes import ACTIONS, DATA_CLASSES, LEGAL_BASES, PERSONAL_KINDS, PURPOSES, ROLES
from sovchain.contracts.core.records import Reason

COMPILED_SETS_MAX: Final = 32
"""Law sets that stay compiled in memory."""
PARSED_ENTITIES_MAX: Final = 1024
"""Data sets whose entities stay parsed in memory, a few KiB each."""

_POLICY_ID = re.compile(r"`policy(\d+)`")


def _enum(name: str, words: Sequence[str]) -> str:
    listed = ", ".join('"' + word + '"' for word in words)
    return f"entity {name} enum [{listed}];"


SCHEMA: Final = "\n".join(
    [
        "entity Jurisdiction in [Jurisdiction];",
        "entity Organisation in [Jurisdiction];",
        "entity Identity in [Organisation] { organisation: Organisation, role: Role, clearance: Class };",
        "entity DataSet in [Jurisdiction] {",
        "  owner: Organisation, jurisdiction: Jurisdiction, class: Class, personal: Personal,",
        "  rows: Long, residency: Set<Jurisdiction>, purposes: Set<Purpose>",
        "};",
        _enum("Role", tuple(ROLES)),
        _enum("Class", DATA_CLASSES),
        _enum("Personal", PERSONAL_KINDS),
        _enum("Purpose", tuple(PURPOSES)),
        _enum("LegalBasis", tuple(LEGAL_BASES)),
        f"action {', '.join(ACTIONS)} appliesTo {{",
        "  principal: Identity, resource: DataSet,",
        "  context: {",
        "    purpose: Purpose, legalBasis: LegalBasis, destination: Jurisdiction, channel: String, time: datetime",
        "  }",
        "};",
    ]
)
"""What a law may speak of. Every attribute is required: a request that lacks one cannot be judged and is denied."""


@dataclass(frozen=True)
class PolicyRef:
    """Where a policy comes from and when it applies. `actions` is None for a policy on every action; `obligations` is
    the text of its annotation."""

    law: str
    version: int
    jurisdiction: str
    clause: str
    effect: Literal["permit", "forbid"]
    actions: frozenset[str] | None
    obligations: str = ""

    @cached_property
    def citation(self) -> Reason:
        """How a decision cites the policy."""
        return Reason(law=self.law, version=self.version, clause=self.clause, effect=self.effect)

    def governs(self, action: str) -> bool:
        """Whether the policy's scope takes in the action."""
        return self.actions is None or action in self.actions


class LawSource(NamedTuple):
    """A law's text with what its policies are cited by."""

    law: str
    version: int
    jurisdiction: str
    text: str


@dataclass(frozen=True)
class CedarRequest:
    """One question to the policies, with ready-made entities.

    `lasting` are the entities that many questions share, such as a data set's: they stay parsed. `passing` are the others.
    """

    principal: str
    action: str
    resource: str
    context: dict[str, Any]
    lasting: list[dict[str, Any]]
    passing: list[dict[str, Any]]


@dataclass(frozen=True)
class Evaluation:
    """The policies whose conditions hold, and those that could not be evaluated.

    `complete` is False when the library could not even begin, so that nothing is known of any policy.
    """

    satisfied: tuple[PolicyRef, ...]
    failed: tuple[PolicyRef, ...]
    complete: bool = True


class CompiledLaws:
    """A law set, parsed once. Make it with `compile_laws`."""

    def __init__(self, policies: Sequence[PolicyRef], handle: cedarpy.PolicySet) -> None:
        self.policies = tuple(policies)
        self._handle = handle
        self._speaking: dict[str, frozenset[str]] = {}

    def speaking(self, action: str) -> frozenset[str]:
        """The jurisdictions whose law permits an action in some cases."""
        found = self._speaking.get(action)
        if found is None:
            permits = (policy for policy in self.policies if policy.effect == "permit" and policy.governs(action))
            found = self._speaking[action] = frozenset(policy.jurisdiction for policy in permits)
        return found

    def evaluate(self, request: CedarRequest) -> Evaluation:
        """Evaluate every policy. Nothing in the request makes it raise: what cannot be judged is reported as failed."""
        question = {
            "principal": {"type": "Identity", "id": request.principal},
            "action": {"type": "Action", "id": request.action},
            "resource": {"type": "DataSet", "id": request.resource},
            "context": request.context,
        }
        try:
            lasting = _parsed(json.dumps(request.lasting, sort_keys=True))
            entities = lasting.with_added_json_str(json.dumps(request.passing, sort_keys=True))
            answer = cedarpy.is_authorized(question, self._handle, entities)
        except (ValueError, TypeError, OverflowError):  # UnicodeError is a ValueError; the engine denies on it
            return Evaluation((), self.policies, complete=False)
        if answer.decision not in {cedarpy.Decision.Allow, cedarpy.Decision.Deny}:
            return Evaluation((), self.policies, complete=False)
        failed = set()
        for message in answer.diagnostics.errors:
            named = _POLICY_ID.search(message)
            if named is None or int(named[1]) >= len(self.policies):
                return Evaluation((), self.policies, complete=False)
            failed.add(int(named[1]))
        satisfied = {int(reason.removeprefix("policy")) for reason in answer.diagnostics.reasons}
        return Evaluation(
            tuple(self.policies[index] for index in sorted(satisfied)),
            tuple(self.policies[index] for index in sorted(failed)),
        )


@lru_cache(maxsize=PARSED_ENTITIES_MAX)
def _parsed(entities: str) -> cedarpy.Entities:
    """Entities from JSON. Most of a small decision's time would go into reading the data set's attributes again."""
    return cedarpy.Entities.from_json_str(entities)


def compile_laws(laws: Sequence[LawSource]) -> CompiledLaws:
    """Parse a law set; the result is cached. Raises CedarTextError for a text that does not parse."""
    return _compile(tuple(laws))


@lru_cache(maxsize=COMPILED_SETS_MAX)
def _compile(laws: tuple[LawSource, ...]) -> CompiledLaws:
    references: list[PolicyRef] = []
    texts: list[str] = []
    for law in laws:
        policies = parse_policies(law.text)
        references.extend(
            PolicyRef(
                law.law,
                law.version,
                law.jurisdiction,
                policy.clause,
                policy.effect,
                policy.actions,
                policy.annotations.get("obligations", ""),
            )
            for policy in policies
        )
        texts.append(_as_permits(law.text, policies))
    try:
        # Cedar numbers the policies of one text in their order: policy0, policy1, and so on.
        handle = cedarpy.PolicySet.from_str("\n".join(texts))
    except ValueError as error:
        raise CedarTextError(f"the laws in force do not parse together: {error}", 1, 1) from None
    return CompiledLaws(references, handle)


def _as_permits(text: str, policies: Sequence[PolicyText]) -> str:
    parts, at = [], 0
    for policy in policies:
        parts += [text[at : policy.effect_token.start], "permit"]
        at = policy.effect_token.end
    return "".join([*parts, text[at:]])


@cache
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(SCHEMA)


def _check_actions(text: str, policy: PolicyText) -> None:
    """Refuse an unknown action by name: the library says only that no action applies."""
    unknown = sorted((policy.actions or frozenset()) - set(ACTIONS))
    if unknown:
        message = f"unknown action `{unknown[0]}`: known are {', '.join(ACTIONS)}"
        raise CedarTextError(message, *place_named(text, policy, message), clause=policy.clause)


def check_against_schema(text: str, policies: Sequence[PolicyText]) -> None:
    """Refuse unknown actions, entities and attributes, and conditions of wrong types.

    Raises CedarTextError with the clause of the first policy at fault and the place of the word that is, as far as it is known.
    """
    for policy in policies:
        _check_actions(text, policy)
    result = cedarpy.validate_policies(text, _schema())
    if result.validation_passed:
        return
    faults: list[tuple[int, str]] = []
    for error in result.errors:
        named = re.fullmatch(r"policy(\d+)", error.policy_id)
        message = re.sub(r"^for policy `policy\d+`[,:] ", "", error.error)
        faults.append((int(named[1]) if named else len(policies), message))
    index, message = min(faults, default=(len(policies), "the text does not fit the schema"))
    if index >= len(policies):
        raise CedarTextError(message, 1, 1)
    policy = policies[index]
    raise CedarTextError(message, *place_named(text, policy, message), clause=policy.clause)
