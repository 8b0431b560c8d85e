"""The engine against the specification beside it, the properties that must hold of any law, and planted faults that must show."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from law_specification import PLACES, AbstractLaw, Fuzz, Rule, in_cedar, specified

from sovchain.contracts.core.engine import Decision, decide
from sovchain.contracts.core.facts import DecisionInput

CASES: Final = 500
PIECES: Final = 10
CASES_PER_PIECE: Final = 100_000
PER_LAW_SET: Final = 400
Decide = Callable[[DecisionInput], Decision]


def seen(decision: Decision) -> tuple[Any, ...] | None:
    """A decision as the specification says it."""
    assert (decision.decision == "permit") == (decision.code == "")
    assert decision.reasons
    if decision.decision == "deny":
        assert (decision.obligations, decision.fields) == ((), None)
        return None
    return decision.fields, next((one.days for one in decision.obligations if one.kind == "report"), 0)


def differing(decide: Decide, cases: int, seed: int) -> tuple[DecisionInput, Any, Any] | None:
    """The first request on which engine and specification differ."""
    fuzz = Fuzz(seed)
    for number in range(cases):
        if number % 100 == 0:
            abstract = fuzz.laws()
            laws = in_cedar(abstract)
        case = fuzz.case(laws)
        found, wanted = seen(decide(case)), specified(case, abstract)
        if found != wanted:
            return case, found, wanted
    return None


def hold(cases: int, seed: int) -> dict[str, int]:
    """Check the specification on so many requests and a property on each, in turn; how many of them were permitted."""
    fuzz, permitted = Fuzz(seed), 0
    for number in range(cases):
        if number % PER_LAW_SET == 0:
            abstract = fuzz.laws()
            variants = _variants(fuzz, abstract)
        drawn = fuzz.case(variants["laws"])
        before = decide(drawn)
        assert seen(before) == specified(drawn, abstract), drawn
        permits = before.decision == "permit"
        permitted += permits
        match number % 4:
            case 0:
                forbidden = decide(replace(drawn, laws=variants["forbid"]))
                assert permits or forbidden.decision == "deny", ("a forbid permits", drawn)
            case 1:
                assert decide(replace(drawn, laws=variants["mixed"])) == before, ("order matters", drawn)
            case 2:
                assert permits or decide(fuzz.weaker(drawn)).decision == "deny", ("a missing fact permits", drawn)
            case _ if _spoken(variants["above"], drawn.action):
                higher = decide(replace(drawn, laws=variants["higher"]))
                lower = decide(replace(drawn, laws=variants["lower"]))
                assert higher.decision == "permit" or lower.decision == "deny", ("a lower law widens", drawn)
            case _:
                pass
    return {"cases": cases, "permitted": permitted}


def _variants(fuzz: Fuzz, abstract: list[AbstractLaw]) -> dict[str, Any]:
    forbid = (fuzz.random.choice(PLACES), (fuzz.rule("forbid"),))
    laws = in_cedar(abstract)
    mixed = list(laws)
    fuzz.random.shuffle(mixed)
    above = [(place, rules) for place, rules in abstract if "-" not in place]
    below = [("CN-GZ-520100", (replace(fuzz.rule("permit"), fails=False), Rule("permit")))]
    return {
        "laws": laws,
        "forbid": [*laws, *in_cedar([forbid], first=90)],
        "mixed": mixed,
        "above": above,
        "higher": in_cedar(above),
        "lower": [*in_cedar(above), *in_cedar(below, first=90)],
    }


def _spoken(laws: list[AbstractLaw], action: str | None) -> bool:
    """Whether every nation's law speaks of an action: only then has a lower law nothing to say for the first time."""
    speaking = {p for p, rules in laws for r in rules if r.effect == "permit" and r.action in (None, action)}
    return speaking == {"CN", "SG"}


def test_the_engine_decides_as_specified_and_every_property_holds() -> None:
    counted = hold(CASES, seed=20260601)
    assert counted["permitted"] > CASES // 20


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("piece", range(1, PIECES + 1))
def test_a_million_cases(piece: int, capsys: pytest.CaptureFixture[str]) -> None:
    """In pieces, each with law sets and requests of its own, so that a machine can take them one after the other."""
    counted = hold(CASES_PER_PIECE, seed=piece)
    with capsys.disabled():
        print(f"\npiece {piece} of {PIECES}: {counted}")
    assert counted["permitted"] > CASES_PER_PIECE // 20


def test_whatever_stands_in_a_request_it_is_decided() -> None:
    """Total on junk of every kind that the facts can hold."""
    fuzz = Fuzz(7)
    junk = ("", "\x00", "é" * 300, "CN-", "-", "🜚", "read\n", "\ud800", "'\"`", "x" * 10_000)
    for _ in range(400):
        case = fuzz.case(in_cedar([("CN", (Rule("permit"),))]))
        part = fuzz.random.choice(junk)
        numbers = fuzz.random.choice((-1, 0, 2**53, 2**63 - 1, 2**63, 2**200))
        case = replace(
            case,
            action=fuzz.pick(case.action, part, often=2),
            purpose=fuzz.pick(case.purpose, part, often=2),
            destination=fuzz.pick(case.destination, part, often=2),
            fields=fuzz.pick(case.fields, (part,), often=2),
            processors=fuzz.pick(case.processors, (part,), often=2),
            channel=part,
        )
        if case.resource is not None:
            case = replace(case, resource=replace(case.resource, rows=numbers, data_class=fuzz.pick("core", part)))
        assert decide(case).decision in {"permit", "deny"}


ENGINE, GATES, OBLIGATIONS = "engine", "gates", "obligations"
MUTATIONS: Final = [
    (ENGINE, "if not organisation.active:", "if False:"),
    (ENGINE, "if subject.identity_suspended:", "if False:"),
    (ENGINE, "if not resource.published:", "if False:"),
    (ENGINE, "        if word not in known:", "        if False:"),
    (ENGINE, 'if policy.effect == "forbid"\n', 'if policy.effect == "forbid" and len(evaluation.satisfied) < 2\n'),
    (ENGINE, "        for policy in evaluation.failed\n", "        for policy in evaluation.failed[:0]\n"),
    (ENGINE, "            if level not in permitting:", "            if level not in permitting and level == place:"),
    (ENGINE, "        if not levels:", "        if False:"),
    (ENGINE, "    if fields is not None and not fields:", "    if False:"),
    (ENGINE, "        except ObligationError as error:", "        except ObligationError as error:\n            continue"),
    (GATES, "for order in request.evidence.holds:", "for order in request.evidence.holds[1:]:"),
    (GATES, "    if held < class_rank(data_class):", "    if held + 1 < class_rank(data_class):"),
    (GATES, "total > AGGREGATE_ROWS_MAX", "total > AGGREGATE_ROWS_MAX + 1_000_000"),
    (GATES, "before + adds > limit", "before + adds > limit + 1"),
    (GATES, "(any(link.revoked for link in chain)", "(chain[-1].revoked"),
    (GATES, "(any(at >= link.expires_at for link in chain)", "(any(at > link.expires_at for link in chain)"),
    (GATES, "any(link.depth < len(chain) - step for", "any(link.depth + 1 < len(chain) - step for"),
    (GATES, "        and not consent.revoked\n", ""),
    (GATES, "consent.valid_from <= request.time < consent.valid_until", "consent.valid_from <= request.time"),
    (GATES, "asked <= consent.fields", "asked & consent.fields"),
    (GATES, "for subject in sorted(resource.subjects):", "for subject in sorted(resource.subjects)[:1]:"),
    (GATES, "(warrant.uses_left < 1,", "(warrant.uses_left < 0,"),
    (GATES, "None in persons or persons[0] == persons[1]", "None in persons"),
    (GATES, "emergency.review is None and request.time >= emergency.review_by", "False"),
    (GATES, "wanted = {*wanted_by_law, *resource.joint_owners}", "wanted = {*wanted_by_law}"),
    (GATES, 'class_rank("important")', 'class_rank("core")'),
    (GATES, "return not foreign and leaves_the_nation", "return leaves_the_nation"),
    (OBLIGATIONS, "min(one.days, days.get(one.kind, one.days))", "max(one.days, days.get(one.kind, 0))"),
    (OBLIGATIONS, "names[one.kind] &= set(one.names)", "names[one.kind] |= set(one.names)"),
]  # fmt: skip
PACKAGE: Final = "sovchain.contracts.core"


def mutated(module: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> Decide:
    """The engine with one piece of its own text replaced; nothing but this test sees it."""
    made: dict[str, types.ModuleType] = {}
    for name in (OBLIGATIONS, GATES, ENGINE):
        full = f"{PACKAGE}.{name}"
        original = importlib.import_module(full)
        assert original.__file__ is not None
        with open(original.__file__, encoding="utf-8") as file:
            text = file.read()
        if name == module:
            assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {name}"
            text = text.replace(old, new)
        made[full] = types.ModuleType(full)
        with monkeypatch.context() as patch:
            for known, other in made.items():
                patch.setitem(sys.modules, known, other)
            exec(compile(text, f"{name}.py", "exec"), made[full].__dict__)
    engine: Any = made[f"{PACKAGE}.{ENGINE}"]
    return engine.decide  # type: ignore[no-any-return]  # the module was made just now


IN_SHORT: Final = {0, 5, 10, 11, 25}
"""Faults that show within some hundred requests; the others take up to a minute each and run with --long."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        pytest.param(*one, id=f"{one[0]}-{number}", marks=() if number in IN_SHORT else pytest.mark.long)
        for number, one in enumerate(MUTATIONS)
    ],
)
def test_a_planted_fault_is_caught(module: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault shows as another answer than the specification's, or as an engine that is not total any more."""
    altered = mutated(module, old, new, monkeypatch)
    try:
        assert differing(altered, 60_000, seed=5) is not None
    except AssertionError as error:
        assert error.__traceback__ is not None
        if any("engine.py" in str(frame.filename) for frame in inspect.getinnerframes(error.__traceback__)):
            return
        raise
