"""What the check of a law against the laws in force tells: errors and warnings, each with its place, and none without a ground."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest
from engine_facts import CITY, NATION, NOW, PROVINCE, facts
from hypothesis import given, settings
from hypothesis import strategies as st
from law_world import OPEN, SPEC, LawWorld
from memory_ledger import law as law_text

from sovchain.contracts.core import Laws
from sovchain.contracts.core.cedar import LawSource, compile_laws
from sovchain.contracts.core.codes import DATA_CLASSES
from sovchain.contracts.core.conflicts import SEVERITIES, conflicts, repeal_effects
from sovchain.contracts.core.facts import LawVersion
from sovchain.contracts.core.lawtext import read_law, text_hash
from sovchain.contracts.core.question import question
from sovchain.contracts.core.records import LawFinding
from sovchain.contracts.core.scopes import scopes
from sovchain.testing import refused

STATISTICS = 'context.purpose == Purpose::"statistics"'
READ = 'action == Action::"read"'


def rule(
    effect: str, when: str = "", head: str = "principal, action, resource", clause: str = "1", more: str = ""
) -> str:
    """A policy."""
    return f'@c("{clause}"){more} {effect} ({head}){f" when {{ {when} }}" if when else ""};\n'


def in_force(policies: str, place: str = NATION, name: str = "N-1") -> LawVersion:
    """A law in force."""
    text = law_text(policies, law_id=name, jurisdiction=place)
    return LawVersion(name, 1, place, NOW - timedelta(days=9), None, text, text_hash(text))


def found(
    policies: str, *others: LawVersion, place: str = CITY, version: int = 1, name: str = "C-1"
) -> list[LawFinding]:
    """What a draft of the city meets."""
    draft = read_law(law_text(policies, law_id=name, version=version, jurisdiction=place))
    return list(conflicts(draft, others))


def kinds(policies: str, *others: LawVersion, place: str = CITY) -> list[str]:
    return [one.kind for one in found(policies, *others, place=place)]


ALL, NONE = rule("permit"), rule("forbid")
BELOW_NINE, BELOW_TEN = rule("permit", "resource.rows < 9"), rule("forbid", "10 > resource.rows")


@pytest.mark.parametrize(
    ("draft", "above", "expected"),
    [
        (rule("permit", STATISTICS), rule("forbid", STATISTICS), ["forbidden"]),
        (rule("permit", STATISTICS, f"principal, {READ}, resource"), rule("forbid", STATISTICS), ["forbidden"]),
        (rule("permit", STATISTICS), rule("forbid", STATISTICS, f"principal, {READ}, resource"), ["partly-forbidden"]),
        (BELOW_NINE, BELOW_TEN, ["forbidden"]),
        (BELOW_TEN.replace("forbid", "permit"), rule("forbid", "resource.rows <= 8"), ["partly-forbidden"]),
        (rule("permit", 'principal in Jurisdiction::"CN-GZ"'), rule("forbid", 'principal in Jurisdiction::"CN"'), ["forbidden"]),
        (rule("permit", 'principal in Jurisdiction::"CN"'), rule("forbid", 'principal in Jurisdiction::"CN-GZ"'), ["partly-forbidden"]),
        (rule("permit", '!(principal in Jurisdiction::"CN")'), rule("forbid", 'principal in Jurisdiction::"CN-GZ"'), []),
        (rule("permit", 'resource.jurisdiction in Jurisdiction::"CN"'), rule("forbid", head='principal, action, resource in Jurisdiction::"CN"'), ["forbidden"]),
        (rule("permit", '[Purpose::"statistics"].contains(context.purpose)'), rule("forbid", 'context.purpose != Purpose::"marketing"'), ["forbidden"]),
        (rule("permit", 'context.purpose == Purpose::"marketing"'), rule("forbid", 'context.purpose != Purpose::"marketing"'), []),
        (rule("permit", f"{STATISTICS} && resource.rows < 5"), rule("forbid", "resource.rows < 4 || resource.rows > 7"), []),
        (ALL, NONE, ["forbidden"]),
        (NONE, ALL, []),
        (ALL, rule("permit", STATISTICS, f"principal, {READ}, resource"), []),
        (rule("permit", 'context.purpose == Purpose::"marketing"', f"principal, {READ}, resource"), rule("permit", STATISTICS), ["unsupported"]),
        (rule("permit", 'context.purpose == Purpose::"marketing"'), rule("permit", STATISTICS, f"principal, {READ}, resource"), ["partly-unsupported"]),
        (rule("forbid", STATISTICS), NONE, ["shadowed"]),
        (NONE, NONE, ["duplicate"]),
    ],
)  # fmt: skip
def test_a_city_law_meets_a_national_one(draft: str, above: str, expected: list[str]) -> None:
    assert kinds(draft, in_force(above)) == expected


def test_conditions_that_contradict_each_other_are_an_error_and_are_named() -> None:
    for when, word in (
        (f'{STATISTICS} && context.purpose == Purpose::"marketing"', "context.purpose"),
        ("resource.rows > 5 && resource.rows < 6", "resource.rows"),
        ('principal in Jurisdiction::"CN" && principal in Jurisdiction::"SG"', "principal"),
        ('principal in Jurisdiction::"CN-GZ" && !(principal in Jurisdiction::"CN")', "principal"),
        ('resource.residency.contains(Jurisdiction::"CN") && !(resource.residency.contains(Jurisdiction::"CN"))', "opposite"),
    ):  # fmt: skip
        (only,) = found(rule("permit", when))
        assert (only.severity, only.kind, only.line) == ("error", "contradiction", 8), when
        assert word in only.detail


def test_a_finding_points_to_the_clause_and_says_why_in_words() -> None:
    policies = rule("permit", STATISTICS, clause="art. 1") + "\n  " + rule("permit", clause="art. 2")
    last = found(policies, in_force(rule("forbid", 'context.purpose != Purpose::"statistics"', clause="art. 9")))
    assert [(one.severity, one.kind, one.line, one.column, one.clause) for one in last] == []
    (error,) = found(policies, in_force(rule("forbid", STATISTICS, clause="art. 9")))
    assert (error.line, error.column, error.clause, error.other) == (8, 1, "art. 1", "N-1 version 1, art. 9")
    assert error.text() == (
        "line 8, column 1: error, art. 1: it can never take effect: the law of CN forbids all of what it permits: "
        "N-1 version 1, art. 9"
    )


def test_within_one_law_a_forbid_of_the_same_scope_and_a_repeated_rule_are_told() -> None:
    (one,) = found(rule("permit", STATISTICS) + rule("forbid", STATISTICS, clause="2"))
    assert (one.severity, one.kind, one.line) == ("error", "forbidden", 8)
    (two,) = found(rule("permit", STATISTICS) + rule("permit", STATISTICS, clause="2"))
    assert (two.severity, two.kind, two.line, two.other) == ("warning", "duplicate", 9, "C-1 version 1, 1")
    (three,) = found(rule("permit") + rule("permit", STATISTICS, clause="2"))
    assert three.kind == "shadowed"
    obliged = rule("permit", STATISTICS, clause="2", more=' @obligations("mask(name)")')
    assert found(rule("permit") + obliged) == [], "a permit with an obligation narrows"


def test_a_higher_law_tells_whom_it_leaves_without_effect() -> None:
    city = in_force(rule("permit", STATISTICS), CITY, "C-9")
    (one,) = found(rule("forbid", STATISTICS), city, place=NATION, name="N-2")
    assert (one.severity, one.kind, one.other) == ("warning", "disables", "C-9 version 1, 1")
    (two,) = found(rule("permit", 'context.purpose == Purpose::"marketing"'), city, place=PROVINCE, name="P-2")
    assert (two.kind, two.other) == ("disables", "C-9 version 1, 1")
    assert found(rule("forbid", STATISTICS), in_force(ALL, "CN-GD", "D-1"), place=CITY) == []


def test_an_amendment_is_compared_with_the_law_without_its_older_version() -> None:
    old = in_force(rule("permit", STATISTICS), CITY, "C-1")
    assert found(rule("permit", STATISTICS), old, version=2) == []
    assert [one.kind for one in found(rule("permit", STATISTICS), old, name="C-2")] == ["duplicate"]


def test_a_repeal_tells_what_depended_on_the_law() -> None:
    marketing = rule("permit", 'context.purpose == Purpose::"marketing"')
    city = in_force(marketing, CITY, "C-1")
    wide, narrow = in_force(marketing, NATION, "N-1"), in_force(rule("permit", STATISTICS), NATION, "N-2")
    shut = in_force(rule("forbid", 'context.purpose == Purpose::"marketing" && resource.rows > 3'), NATION, "N-3")
    after = repeal_effects("N-1", [city, wide, narrow, shut])
    assert [(one.kind, one.law) for one in after] == [("orphaned", "C-1")]
    after = repeal_effects("N-1", [city, wide])
    assert [(one.kind, one.law) for one in after] == [("released", "C-1")]
    after = repeal_effects("N-1", [wide, shut])
    assert [(one.kind, one.law) for one in after] == [("unlegislated", "N-1"), ("idle", "N-3")]
    assert repeal_effects("N-2", [city, wide, narrow]) == ()
    assert {one.severity for one in after} == {"warning"}


def test_every_kind_of_finding_is_documented() -> None:
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "law-findings.md").read_text()
    for kind, severity in SEVERITIES.items():
        assert f"| `{kind}` | {severity} |" in page


# Soundness: what the check says for certain, Cedar never contradicts. --------------------------------------------------

PIECES = (
    STATISTICS,
    'context.purpose != Purpose::"statistics"',
    '[Purpose::"statistics", Purpose::"marketing"].contains(context.purpose)',
    'context.purpose == Purpose::"marketing" || context.purpose == Purpose::"supervision"',
    "resource.rows < 5",
    "4 <= resource.rows",
    "resource.rows == 5",
    "resource.rows != 5",
    'principal in Jurisdiction::"CN"',
    'principal in [Jurisdiction::"CN-GZ", Jurisdiction::"SG"]',
    'resource in Jurisdiction::"CN-GZ"',
    'resource.jurisdiction == Jurisdiction::"CN-GZ"',
    '[Jurisdiction::"CN", Jurisdiction::"SG"].contains(context.destination)',
    'context.destination in Jurisdiction::"CN"',
    'context.destination in Jurisdiction::"CN" || context.destination in Jurisdiction::"SG"',
    'principal in Organisation::"OrgMSP"',
    'principal.organisation == Organisation::"OrgMSP"',
    'resource.owner == Organisation::"OrgMSP"',
    'principal.role == Role::"analyst" && resource.class == Class::"general"',
    'resource.class in [Class::"general", Class::"core"]',
    'resource.residency.contains(Jurisdiction::"CN")',
    "if resource.rows > 4 then true else false",
    "true",
    "false",
)
condition = st.recursive(
    st.sampled_from(PIECES),
    lambda inner: st.one_of(
        inner.map(lambda one: f"!({one})"),
        st.tuples(inner, st.sampled_from(("&&", "||")), inner).map(lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"),
    ),
    max_leaves=4,
)  # fmt: skip
policy = st.tuples(
    st.sampled_from(("principal", 'principal in Jurisdiction::"CN-GZ"', "principal is Identity")),
    st.sampled_from(("action", READ, 'action in [Action::"read", Action::"export"]')),
    st.sampled_from(("resource", 'resource is DataSet in Jurisdiction::"CN"')),
    condition,
    st.sampled_from(("when", "unless")),
).map(lambda parts: f'@clause("1") permit ({parts[0]}, {parts[1]}, {parts[2]}) {parts[4]} {{ {parts[3]} }};')


def request(random: Random) -> object:
    """A request whose every fact that a piece speaks of is drawn."""
    place = random.choice(("CN", "CN-GZ", CITY, "SG"))
    return question(
        facts(
            [],
            action=random.choice(("read", "export", "share")),
            purpose=random.choice(("statistics", "marketing", "supervision")),
            destination=random.choice(("CN", CITY, "SG")),
            organisation={"jurisdiction": place, "clearance": "core"},
            resource={
                "jurisdiction": random.choice(("CN", "CN-GZ", CITY, "SG")),
                "rows": random.randint(3, 6),
                "data_class": random.choice(DATA_CLASSES),
                "owner": random.choice(("OrgMSP", "OwnerMSP")),
                "residency": frozenset(random.choice((("CN",), ("SG",), ()))),
            },
        )
    )


@settings(max_examples=60, deadline=None)
@given(policy, policy, st.integers())
def test_what_is_told_for_certain_holds_for_every_request(one: str, other: str, seed: int) -> None:
    compiled = compile_laws([LawSource("L", 1, NATION, f"{one}\n{other}".replace('"1") permit', '"2") permit', 1))])
    first, second = scopes(f"{one}\n{other}")
    random = Random(seed)
    for _ in range(20):
        answer = compiled.evaluate(request(random))  # type: ignore[arg-type]  # question gives no other
        holds = {compiled.policies.index(one) for one in answer.satisfied}
        assert not answer.failed
        assert not (first.empty and 0 in holds)
        if first.covers(second) and 1 in holds:
            assert 0 in holds
        if holds == {0, 1}:
            assert first.meets(second)


# On the ledger. ---------------------------------------------------------------------------------------------------------


async def test_the_contract_refuses_a_law_that_can_never_take_effect_when_proposed_and_when_enacted() -> None:
    world = await LawWorld(SPEC.harness()).found()
    text = law_text(rule("permit", STATISTICS), law_id="CITY-1")
    draft = await world.submit("Government/admin", Laws.propose, text)
    await world.enact(rule("forbid", STATISTICS), "CN-GZ", "PROV-1")
    for name in ("Government", "Supervisor"):
        await world.submit(f"{name}/admin", Laws.vote, draft.ballot)
    for operation, argument in ((Laws.vote, draft.ballot), (Laws.propose, text.replace("CITY-1", "CITY-2"))):
        with refused("E_LAW", "the law of CN-GZ forbids all of what it permits") as caught:
            await world.submit("Finance/admin" if operation is Laws.vote else "Government/admin", operation, argument)
        fields = caught.fields
        assert (fields["line"], fields["column"], fields["clause"], fields["kind"]) == (8, 1, "1", "forbidden")
    (told,) = await world.evaluate("Government", Laws.review, text)
    assert told.kind == "forbidden"
    left = await world.evaluate("Government", Laws.review_repeal, "OPEN-1", world.now)
    assert [(one.kind, one.law) for one in left] == [("unlegislated", "OPEN-1"), ("idle", "PROV-1")]
    assert (
        await world.evaluate("Government", Laws.review, law_text(OPEN, law_id="OPEN-1", version=2, jurisdiction="CN"))
        == []
    )
