"""The decision: a pure, total function from committed facts to permit or denial. It fails closed.

Steps, all of which are always reported as far as their facts are known:

1. *Admission*: the requester's organisation is registered, active and not suspended; its certificate claims a role and
   a clearance, and the registry's ceilings allow the role.
2. *Vocabulary*: action, purpose and legal basis are in the code lists.
3. *Law*: the laws in force at the transaction's time on the path nation, province, city of the resource's, the
   requester's and the destination's jurisdiction, of each processor's and joint owner's too. Any policy that cannot be evaluated denies. Any forbid denies. On the
   path of each of these jurisdictions every level whose law permits the action in some cases must permit it in this
   one, and at least one level must: a lower level narrows, it never widens.
4. *Gates* that no law can open: see `gates`.
5. *Obligations* of the clauses that permitted: see `obligations`. Columns that are left after them must be some.

Only integers, strings and sets take part; there is no clock, no randomness and no input or output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal

from sovchain.contracts.core.cedar import LawSource, PolicyRef, compile_laws
from sovchain.contracts.core.cedartext import CedarTextError
from sovchain.contracts.core.codes import (
    ACTIONS,
    DATA_CLASSES,
    LEGAL_BASES,
    PURPOSES,
    is_jurisdiction,
    jurisdiction_path,
)
from sovchain.contracts.core.facts import DecisionInput, LawVersion, OrganisationFacts, Resource, Subject
from sovchain.contracts.core.gates import Fault, cosign_faults, delegation_fault, gate_faults, may_act_as
from sovchain.contracts.core.obligations import (
    ObligationError,
    granted_fields,
    granted_masks,
    granted_rows,
    parse_obligations,
    united,
)
from sovchain.contracts.core.question import question
from sovchain.contracts.core.records import Mask, Obligation, Reason, RowRule
from sovchain.protocol.canonical import canonical_json

__all__ = [
    "DENIAL_CODES",
    "Decision",
    "DecisionInput",
    "LawVersion",
    "OrganisationFacts",
    "Resource",
    "Subject",
    "decide",
    "decision_places",
    "law_set_hash",
    "laws_in_force",
]

DENIAL_CODES: Final = (
    "E_NOT_REGISTERED",
    "E_SUSPENDED",
    "E_HELD",
    "E_ATTRIBUTE",
    "E_UNKNOWN_WORD",
    "E_NO_DATA_SET",
    "E_INDETERMINATE",
    "E_FORBIDDEN",
    "E_DEFAULT_DENY",
    "E_RESIDENCY",
    "E_PURPOSE",
    "E_CLEARANCE",
    "E_WITHDRAWN",
    "E_EXPORT",
    "E_BASIS",
    "E_CONSENT",
    "E_WARRANT",
    "E_EMERGENCY",
    "E_OBLIGATION",
    "E_QUOTA",
    "E_COSIGN",
)
"""Codes of denials. A decision with several problems carries the first of them here, and all of their reasons.
E_COSIGN is the last: such a denial has no other reason, so that a co-signature would mend it."""

_INDETERMINATE: Final = "engine:indeterminate"
_UNREADABLE: Final = "the law cannot be read"


@dataclass(frozen=True)
class Decision:
    """The outcome. `reasons` is sorted; for a permit it names every clause that permitted.

    `obligations` are those of all of these clauses together; `fields` the columns that are granted, None for all; `masks` what is
    done to them, and `rows` the rules for the rows that are granted, None for all. A denial has none of them.
    """

    decision: Literal["permit", "deny"]
    code: str
    reasons: tuple[Reason, ...]
    law_set_hash: str
    obligations: tuple[Obligation, ...] = ()
    fields: tuple[str, ...] | None = None
    masks: tuple[Mask, ...] | None = None
    rows: tuple[RowRule, ...] | None = None


@dataclass(frozen=True)
class _Problem:
    code: str
    reason: Reason


def _problem(code: str, rule: str, detail: str, policy: PolicyRef | None = None) -> _Problem:
    if policy is None:
        return _Problem(code, Reason(rule=f"engine:{rule}", detail=detail))
    cited = Reason(law=policy.law, version=policy.version, clause=policy.clause, rule=f"engine:{rule}", detail=detail)
    return _Problem(code, cited)


def decide(request: DecisionInput) -> Decision:
    """Decide one request. Total: every input gives a decision, and whatever is wrong with it gives a denial."""
    places = decision_places(request)
    laws = _laws_on_paths(request, places.values())
    problems = [*_admission(request), *_vocabulary(request), *_facts(request, places)]
    permits: list[PolicyRef] = []
    # Law is judged once there is something to judge: known words and known places.
    if not any(problem.code in {"E_NOT_REGISTERED", "E_UNKNOWN_WORD", "E_NO_DATA_SET"} for problem in problems) and all(
        places.values()
    ):
        permits, law_problems = _judge(request, {place for place in places.values() if place}, laws)
        problems += law_problems
    problems += _from(gate_faults(request, places))
    if not problems and not permits:
        problems.append(_problem("E_DEFAULT_DENY", "default-deny", "no law permits it"))
    obligations, obligation_problems = _obligations(permits)
    problems += obligation_problems
    columns = request.resource.columns if request.resource else ()
    fields = granted_fields(columns, request.fields, obligations)
    masks = granted_masks(columns if fields is None else fields, obligations)
    rows = granted_rows(request.rows, obligations)
    problems += _grant_problems(columns if fields is None else fields, fields, masks or (), rows or ())
    problems += _quota_problems(request, obligations)
    wanted = {name for one in obligations if one.kind == "cosign" for name in one.names}
    problems += _from(cosign_faults(request, wanted))
    if problems:
        code = min((problem.code for problem in problems), key=DENIAL_CODES.index)
        return Decision("deny", code, _sorted(problem.reason for problem in problems), law_set_hash(laws))
    cited = _sorted(policy.citation for policy in permits)
    return Decision("permit", "", cited, law_set_hash(laws), obligations, fields, masks, rows)


def _quota_problems(request: DecisionInput, obligations: Iterable[Obligation]) -> Iterable[_Problem]:
    """A data set counts with all of its rows, whatever part is granted; one without rows as one."""
    rows = counted_rows(request.resource)
    for one in obligations:
        if one.kind == "quota" and one.period is not None:
            used = request.evidence.used_rows.get(one.period, 0)
            if used + rows > (one.rows_max or 0):
                detail = f"{used} rows of at most {one.rows_max} were permitted this {one.period}, these are {rows}"
                yield _problem("E_QUOTA", "quota", detail)


def counted_rows(resource: Resource | None) -> int:
    """The rows that a permit counts in a quota."""
    return max(resource.rows, 1) if resource is not None else 0


def _grant_problems(
    shown: Sequence[str], fields: Sequence[str] | None, masks: Sequence[Mask], rows: Sequence[RowRule]
) -> Iterable[_Problem]:
    """What makes a grant one of nothing, or one that nobody could check."""
    if fields is not None and not fields:
        yield _problem("E_OBLIGATION", "no-fields", "no column is left of what was asked for")
    for rule in rows:
        if not rule.values:
            yield _problem("E_OBLIGATION", "no-rows", "no row is left of what was asked for")
        elif rule.column not in shown or any(mask.column == rule.column for mask in masks):
            named = ascii(rule.column)[:60]
            yield _problem("E_OBLIGATION", "rows-column", f"rows are chosen by {named}, which is not granted unmasked")


def _from(faults: Iterable[Fault]) -> list[_Problem]:
    return [_problem(code, rule, detail) for code, rule, detail in faults]


def _obligations(permits: Sequence[PolicyRef]) -> tuple[tuple[Obligation, ...], list[_Problem]]:
    found: list[Obligation] = []
    problems = []
    for policy in permits:
        try:
            found += parse_obligations(policy.obligations)
        except ObligationError as error:
            problems.append(_problem("E_OBLIGATION", "unknown-obligation", str(error), policy))
    return united(found), problems


def laws_in_force(laws: Iterable[LawVersion], at: datetime) -> tuple[LawVersion, ...]:
    """The one version of each law that is in force at `at`, in the order of the laws' ids.

    Of the versions that have begun by then (inclusive) the newest counts. Once that one is repealed (from
    `repealed_from` on) none does: a repeal does not bring an older version back.
    """
    moment = _aware(at)
    newest: dict[str, LawVersion] = {}
    for law in laws:
        other = newest.get(law.law)
        if _aware(law.in_force_from) <= moment and (
            other is None or (law.version, law.text_hash) > (other.version, other.text_hash)
        ):
            newest[law.law] = law
    return tuple(
        law for _, law in sorted(newest.items()) if law.repealed_from is None or moment < _aware(law.repealed_from)
    )


def law_set_hash(laws: Sequence[LawVersion]) -> str:
    """Hex SHA-256 over the canonical list of law, version, jurisdiction and text hash. Order does not matter."""
    return _hash_of(tuple(sorted((law.law, law.version, law.jurisdiction, law.text_hash) for law in laws)))


@lru_cache(maxsize=256)
def _hash_of(listed: tuple[tuple[str, int, str, str], ...]) -> str:
    return hashlib.sha256(canonical_json([list(one) for one in listed])).hexdigest()


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _sorted(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Each reason once, clauses of laws before rules of the engine."""
    keyed = {
        (
            reason.law is None,
            reason.law or "",
            reason.version or 0,
            reason.clause or "",
            reason.effect or "",
            reason.rule or "",
            reason.detail or "",
        ): reason
        for reason in reasons
    }
    return tuple(reason for _, reason in sorted(keyed.items(), key=lambda item: item[0]))


def _quoted(word: str | None) -> str:
    return "none" if word is None else ascii(word)[:60]


def decision_places(request: DecisionInput) -> dict[str, str | None]:
    """The jurisdictions whose law is asked, by whose they are; None where the facts give none that is well formed."""
    organisation, resource = request.subject.organisation, request.resource
    stated = {
        "data set": resource.jurisdiction if resource else None,
        "requester": organisation.jurisdiction if organisation else None,
        "destination": request.destination,
    }
    stated |= {f"processor {number}": place for number, place in enumerate(request.processors, 1)}
    if resource is not None:
        stated |= {f"joint owner {number}": place for number, place in enumerate(resource.joint_places, 1)}
    return {role: place if place is not None and is_jurisdiction(place) else None for role, place in stated.items()}


def _laws_on_paths(request: DecisionInput, places: Iterable[str | None]) -> tuple[LawVersion, ...]:
    nodes = {node for place in places if place for node in jurisdiction_path(place)}
    return tuple(law for law in laws_in_force(request.laws, request.time) if law.jurisdiction in nodes)


def _admission(request: DecisionInput) -> Iterable[_Problem]:
    subject = request.subject
    organisation = subject.organisation
    if organisation is None or organisation.msp_id != subject.msp_id:
        yield _problem("E_NOT_REGISTERED", "not-registered", f"{_quoted(subject.msp_id)} is not in the registry")
        return
    if not organisation.active:
        yield _problem("E_SUSPENDED", "suspended", f"{_quoted(subject.msp_id)} is suspended")
    if subject.identity_suspended:
        yield _problem("E_SUSPENDED", "identity-suspended", "the requester's identity is suspended")
    if subject.role is None:
        yield _problem("E_ATTRIBUTE", "role", "the requester's certificate states no role")
    elif not may_act_as(subject, request.time):
        why = delegation_fault(subject, request.time)
        detail = f"the registry does not allow its organisation {_quoted(subject.role)}, and {why}"
        yield _problem("E_ATTRIBUTE", "role", detail)
    for whose, clearance in (("certificate", subject.clearance), ("registry entry", organisation.clearance)):
        if clearance not in DATA_CLASSES:
            yield _problem("E_ATTRIBUTE", "clearance-claim", f"the requester's {whose} states no known clearance")


def _vocabulary(request: DecisionInput) -> Iterable[_Problem]:
    for kind, word, known in (
        ("action", request.action, ACTIONS),
        ("purpose", request.purpose, PURPOSES),
        ("legal-basis", request.legal_basis, LEGAL_BASES),
    ):
        if word not in known:
            yield _problem("E_UNKNOWN_WORD", f"unknown-{kind}", f"{_quoted(word)} is not in the code list")


def _facts(request: DecisionInput, places: Mapping[str, str | None]) -> Iterable[_Problem]:
    resource = request.resource
    if resource is None:
        yield _problem("E_NO_DATA_SET", "no-data-set", "there is no catalogue entry")
        return
    if resource.data_class not in DATA_CLASSES:
        yield _problem("E_ATTRIBUTE", "data-class", "the catalogue entry states no known class")
    if not resource.published:
        yield _problem("E_WITHDRAWN", "withdrawn", "the data set was withdrawn")
    if resource.withdrawn_source is not None:
        detail = f"it was made from data set {resource.withdrawn_source[:16]}, which was withdrawn"
        yield _problem("E_WITHDRAWN", "source-withdrawn", detail)
    known = places if request.subject.organisation is not None else {"data set": places["data set"]}
    for role, place in known.items():
        if place is None:
            yield _problem("E_ATTRIBUTE", "jurisdiction", f"the {role} has no well-formed jurisdiction")


def _judge(
    request: DecisionInput, places: set[str], laws: Sequence[LawVersion]
) -> tuple[list[PolicyRef], list[_Problem]]:
    """What the laws say: the clauses that permit, and what stands against it."""
    assert request.action is not None  # the vocabulary was checked
    try:
        compiled = compile_laws([_source(law) for law in laws])
    except CedarTextError:
        return [], [
            _Problem(
                "E_INDETERMINATE", Reason(law=law.law, version=law.version, rule=_INDETERMINATE, detail=_UNREADABLE)
            )
            for law in _unreadable(laws)
        ]
    evaluation = compiled.evaluate(question(request))
    problems = [
        _problem("E_INDETERMINATE", "indeterminate", "the clause could not be evaluated", policy)
        for policy in evaluation.failed
    ]
    if not evaluation.complete:
        problems.append(_problem("E_INDETERMINATE", "indeterminate", "the request could not be put to the laws"))
    problems += [
        _Problem("E_FORBIDDEN", policy.citation) for policy in evaluation.satisfied if policy.effect == "forbid"
    ]
    permits = [policy for policy in evaluation.satisfied if policy.effect == "permit"]
    problems += _unpermitted(request.action, places, compiled.speaking(request.action), permits)
    return permits, problems


def _source(law: LawVersion) -> LawSource:
    return LawSource(law.law, law.version, law.jurisdiction, law.text)


def _unreadable(laws: Sequence[LawVersion]) -> list[LawVersion]:
    """The laws that do not parse by themselves; all of them if only their union does not."""
    found = []
    for law in laws:
        try:
            compile_laws([_source(law)])
        except CedarTextError:
            found.append(law)
    return found or list(laws)


def _unpermitted(
    action: str, places: set[str], speaking: frozenset[str], permits: Sequence[PolicyRef]
) -> Iterable[_Problem]:
    """Default denial: every level that permits the action at all must permit it here, and one level must exist."""
    permitting = {policy.jurisdiction for policy in permits}
    for place in sorted(places):
        levels = [node for node in jurisdiction_path(place) if node in speaking]
        if not levels:
            yield _problem("E_DEFAULT_DENY", "default-deny", f"no law in force for {place} permits {action}")
        for level in levels:
            if level not in permitting:
                detail = f"the law of {level} permits {action} in other cases only"
                yield _problem("E_DEFAULT_DENY", "default-deny", detail)
