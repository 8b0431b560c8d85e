"""What a law that is proposed, or a repeal, does to the laws in force, seen before anybody votes. Pure.

An *error* is a clause that can never do what it says. A *warning* is what its author may not have meant: a clause that says
nothing new, has no effect in part, or takes the effect from another law. Only what is certain for every request is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from sovchain.contracts.core.cedartext import parse_policies
from sovchain.contracts.core.codes import is_within, jurisdiction_path
from sovchain.contracts.core.facts import LawVersion
from sovchain.contracts.core.lawtext import LawText
from sovchain.contracts.core.obligations import parse_obligations
from sovchain.contracts.core.records import LawFinding, LawFindingKind, Obligation
from sovchain.contracts.core.scopes import Scope, scopes

Severity = Literal["error", "warning"]

SEVERITIES: Final[dict[LawFindingKind, Severity]] = {
    "contradiction": "error",
    "forbidden": "error",
    "unsupported": "error",
    "partly-forbidden": "warning",
    "partly-unsupported": "warning",
    "duplicate": "warning",
    "shadowed": "warning",
    "disables": "warning",
    "orphaned": "warning",
    "idle": "warning",
    "released": "warning",
    "unlegislated": "warning",
}
"""Kinds of finding. `docs/law-findings.md` says what each means and what to do."""


@dataclass(frozen=True)
class Clause:
    """A policy of a law with what it speaks of."""

    law: str
    version: int
    jurisdiction: str
    clause: str
    effect: Literal["permit", "forbid"]
    line: int
    column: int
    scope: Scope
    obligations: frozenset[Obligation]

    @property
    def cited(self) -> str:
        """How a person would cite it."""
        return f"{self.law} version {self.version}, {self.clause}"


class _Laws:
    """Clauses that are in force together, found by what they are asked for."""

    def __init__(self, clauses: Iterable[Clause]) -> None:
        self.clauses = tuple(clauses)
        self.forbids = [one for one in self.clauses if one.effect == "forbid"]
        self._permits: dict[tuple[str, str], list[Clause]] = {}
        for one in self.clauses:
            for action in one.scope.actions if one.effect == "permit" else ():
                self._permits.setdefault((one.jurisdiction, action), []).append(one)

    def permits(self, place: str, action: str) -> list[Clause]:
        """The permits of one place's law for an action."""
        return self._permits.get((place, action), [])


def errors(draft: LawText, in_force: Iterable[LawVersion]) -> tuple[LawFinding, ...]:
    """The clauses of a draft that could never do what they say. `in_force` as for `conflicts`; lower laws play no part."""
    own = _draft(draft)
    around = _Laws([*own, *_others(draft, in_force)])
    return _ordered(found for clause in own if (found := _error(clause, around)) is not None)


def conflicts(draft: LawText, in_force: Iterable[LawVersion]) -> tuple[LawFinding, ...]:
    """What stands against a draft or follows from it, errors first, then by place.

    `in_force` are the laws in force when it takes effect: of its jurisdiction, above it and, to see what it does to them, below
    it. The version that it replaces may be among them.
    """
    in_force = tuple(in_force)
    own, others = _draft(draft), _others(draft, in_force)
    around = _Laws([*own, *others])
    findings: list[LawFinding] = []
    for number, clause in enumerate(own):
        error = _error(clause, around)
        findings += [error] if error is not None else _warnings(clause, own[:number], others, around)
    before = _Laws(clause for law in in_force for clause in _of(law))
    return _ordered([*findings, *_disabled(own, others, before, around)])


def repeal_effects(law: str, in_force: Iterable[LawVersion]) -> tuple[LawFinding, ...]:
    """What is left when a law ends: clauses that depended on it, places and actions that nothing permits any more."""
    before = _Laws([clause for one in in_force for clause in _of(one)])
    ended = [clause for clause in before.clauses if clause.law == law]
    after = _Laws([clause for clause in before.clauses if clause.law != law])
    findings = []
    for clause in after.clauses:
        if clause.effect == "permit":
            why = _dead(clause, after)
            if why is not None and _dead(clause, before) is None:
                detail = f"it rests on {law}: without that, {why[1]}"
                findings.append(_finding("orphaned", clause, detail, law))
            findings += _released(clause, ended, after.clauses)
        elif any(_permits_within(clause, one) for one in ended) and not any(
            _permits_within(clause, one) for one in after.clauses
        ):
            findings.append(_finding("idle", clause, f"nothing permits any more what it forbids once {law} ends", law))
    findings += _unlegislated(law, ended, after.clauses)
    return _ordered(findings)


def _others(draft: LawText, in_force: Iterable[LawVersion]) -> list[Clause]:
    return [clause for law in in_force if law.law != draft.header.law for clause in _of(law)]


def _draft(draft: LawText) -> tuple[Clause, ...]:
    header = draft.header
    return _clauses(header.law, header.version, header.jurisdiction, draft.text)


def _of(law: LawVersion) -> tuple[Clause, ...]:
    return _clauses(law.law, law.version, law.jurisdiction, law.text)


@lru_cache(maxsize=256)
def _clauses(law: str, version: int, jurisdiction: str, text: str) -> tuple[Clause, ...]:
    return tuple(
        Clause(
            law,
            version,
            jurisdiction,
            policy.clause,
            policy.effect,
            policy.line,
            policy.column,
            scope,
            frozenset(parse_obligations(policy.annotations.get("obligations", ""))),
        )
        for policy, scope in zip(parse_policies(text), scopes(text), strict=True)
    )


def _finding(kind: LawFindingKind, at: Clause, detail: str, other: str | None = None) -> LawFinding:
    return LawFinding(
        severity=SEVERITIES[kind],
        kind=kind,
        law=at.law,
        version=at.version,
        clause=at.clause,
        line=at.line,
        column=at.column,
        detail=detail,
        other=other,
    )


def _ordered(findings: Iterable[LawFinding]) -> tuple[LawFinding, ...]:
    unique = {
        (one.severity, one.law, one.line, one.column, one.kind, one.other or "", one.detail): one for one in findings
    }
    return tuple(one for _, one in sorted(unique.items(), key=lambda item: item[0]))


def _above(one: Clause, other: Clause) -> bool:
    """Whether `one` is law of a place that contains the other's."""
    return one.jurisdiction != other.jurisdiction and is_within(other.jurisdiction, one.jurisdiction)


def _binds(one: Clause, other: Clause) -> bool:
    """Whether `one` is asked wherever the other is: of the same place or one that contains it."""
    return is_within(other.jurisdiction, one.jurisdiction)


def _dead(permit: Clause, laws: _Laws) -> tuple[LawFindingKind, str, str] | None:
    """Why a permit can never take effect among `laws`: the kind, the reason, and the clause or place that stands against it."""
    for forbid in laws.forbids:
        if _binds(forbid, permit) and forbid.scope.covers(permit.scope):
            whose = "the law of " + forbid.jurisdiction if _above(forbid, permit) else "another clause"
            return "forbidden", f"{whose} forbids all of what it permits: {forbid.cited}", forbid.cited
    unsupported = {action: _unsupporting(action, permit, laws) for action in sorted(permit.scope.actions)}
    if unsupported and all(unsupported.values()):
        place = str(next(iter(unsupported.values())))
        return "unsupported", _narrower(place, [one for one in unsupported if unsupported[one] == place]), place
    return None


def _narrower(place: str, actions: Sequence[str]) -> str:
    return f"the law of {place} permits {', '.join(actions)} in other cases only, and a lower law never widens it"


def _unsupporting(action: str, permit: Clause, laws: _Laws) -> str | None:
    """The highest place above whose law permits an action, but nothing of what this permits of it."""
    asked = permit.scope.both(Scope(words={"action": frozenset({action})}))
    for place in jurisdiction_path(permit.jurisdiction)[:-1]:
        there = laws.permits(place, action)
        if there and not any(one.scope.meets(asked) for one in there):
            return place
    return None


def _error(clause: Clause, around: _Laws) -> LawFinding | None:
    """Why a clause of a draft can never do what it says, None when it may."""
    contradiction = clause.scope.contradiction
    if contradiction is not None:
        return _finding("contradiction", clause, f"its conditions contradict each other: {contradiction}")
    dead = _dead(clause, around) if clause.effect == "permit" else None
    return None if dead is None else _finding(dead[0], clause, f"it can never take effect: {dead[1]}", dead[2])


def _warnings(
    clause: Clause, earlier: Sequence[Clause], others: Sequence[Clause], around: _Laws
) -> Iterable[LawFinding]:
    """What the author of a clause may not have meant."""
    if clause.effect == "permit":
        yield from _partly(clause, around)
    for other in (*earlier, *others):
        if _says_as_much(other, clause):
            same = clause.scope.covers(other.scope) and clause.obligations == other.obligations
            detail = f"{other.cited} says the same" if same else f"{other.cited} says this and more"
            yield _finding("duplicate" if same else "shadowed", clause, f"it adds nothing: {detail}", other.cited)
            return


def _says_as_much(one: Clause, other: Clause) -> bool:
    """Whether the other clause would change no decision beside this one.

    A permit counts at its own level, and narrows with its obligations; a forbid counts from above too.
    """
    if one.effect != other.effect or not one.scope.covers(other.scope):
        return False
    if one.effect == "forbid":
        return _binds(one, other)
    return one.jurisdiction == other.jurisdiction and other.obligations <= one.obligations


def _partly(permit: Clause, laws: _Laws) -> Iterable[LawFinding]:
    """Where a permit reaches into what others forbid or do not permit, in a matter that its own words settle."""
    reached = [
        forbid
        for forbid in laws.forbids
        if _above(forbid, permit)
        and forbid.scope.attributes <= permit.scope.attributes | {"action"}
        and forbid.scope.meets(permit.scope)
    ]
    if reached:
        first, more = reached[0], len(reached) - 1
        also = f" and {more} more" if more else ""
        detail = f"a part of what it permits is forbidden by the law of {first.jurisdiction}: {first.cited}{also}"
        yield _finding("partly-forbidden", permit, detail, first.cited)
    places: dict[str, list[str]] = {}
    for action in sorted(permit.scope.actions):
        place = _unsupporting(action, permit, laws)
        if place is not None:
            places.setdefault(place, []).append(action)
    for place, actions in places.items():
        yield _finding("partly-unsupported", permit, f"a part of it has no effect: {_narrower(place, actions)}", place)


def _disabled(own: Sequence[Clause], others: Sequence[Clause], before: _Laws, after: _Laws) -> Iterable[LawFinding]:
    """Permits of other laws that a draft leaves without any effect, told at the draft's clause that does it."""
    for permit in others:
        if permit.effect != "permit":
            continue
        why = _dead(permit, after)
        if why is None or _dead(permit, before) is not None:
            continue
        speaking = (one for one in own if one.effect == "permit" and one.scope.actions & permit.scope.actions)
        cause = next((one for one in own if one.cited == why[2]), None) or next(speaking, own[0])
        yield _finding("disables", cause, f"it leaves {permit.cited} without effect: {why[1]}", permit.cited)


def _permits_within(forbid: Clause, permit: Clause) -> bool:
    related = _binds(forbid, permit) or _binds(permit, forbid)
    return permit.effect == "permit" and related and permit.scope.meets(forbid.scope)


def _released(permit: Clause, ended: Sequence[Clause], after: Sequence[Clause]) -> Iterable[LawFinding]:
    """Actions that a higher law narrowed for this permit, and of which no higher law says anything any more."""

    def speaking(laws: Sequence[Clause]) -> set[str]:
        above = [one for one in laws if one.effect == "permit" and _above(one, permit)]
        return {action for one in above for action in one.scope.actions & permit.scope.actions}

    released = speaking(ended) - speaking(after)
    if released:
        detail = f"it alone decides on {', '.join(sorted(released))} from then on: no higher law narrows it any more"
        yield _finding("released", permit, detail, ended[0].law)


def _unlegislated(law: str, ended: Sequence[Clause], after: Sequence[Clause]) -> Iterable[LawFinding]:
    """Actions that nothing permits any more in the place of a law that ends."""
    for clause in ended:
        if clause.effect != "permit":
            continue
        near = [one for one in after if one.effect == "permit" and (_binds(one, clause) or _binds(clause, one))]
        gone = sorted(clause.scope.actions - {action for one in near for action in one.scope.actions})
        if gone:
            detail = f"once {law} ends no law permits {', '.join(gone)} in {clause.jurisdiction}: all of it is denied"
            yield _finding("unlegislated", clause, detail, law)
