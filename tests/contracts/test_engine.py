"""The decision engine against a small specification of its own, and the properties that must always hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sovchain.contracts.core.engine import (
    Decision,
    DecisionInput,
    LawVersion,
    OrganisationFacts,
    Resource,
    Subject,
    decide,
)
from sovchain.contracts.core.lawtext import text_hash

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PLACES = ("CN", "CN-GZ", "CN-GZ-520100", "SG")
ACTIONS = ("read", "export")
PURPOSES = ("statistics", "marketing")
CLASSES = ("general", "important", "core")
ENDLESS = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Rule:
    """One policy, in words that both Cedar and the specification can be made of."""

    effect: str
    action: str | None = None
    purpose: str | None = None
    fails: bool = False

    def cedar(self, law: str, number: int) -> str:
        action = f'action == Action::"{self.action}"' if self.action else "action"
        conditions = [f'context.purpose == Purpose::"{self.purpose}"'] if self.purpose else []
        conditions += ["resource.nosuch == 1"] if self.fails else []
        when = f" when {{ {' && '.join(conditions)} }}" if conditions else ""
        return f'@law("{law}") @version("1") @clause("art. {number}")\n{self.effect} (principal, {action}, resource){when};\n'


def law(name: str, place: str, *rules: Rule) -> LawVersion:
    text = "".join(rule.cedar(name, number) for number, rule in enumerate(rules, start=1))
    return LawVersion(name, 1, place, NOW - timedelta(days=1), None, text, text_hash(text))


def request(laws: list[LawVersion], **changes: object) -> DecisionInput:
    base = DecisionInput(
        subject=Subject(
            "OrgMSP",
            "1" * 64,
            OrganisationFacts("OrgMSP", "CN-GZ-520100", frozenset({"analyst"}), "important", True),
            "analyst",
            "important",
        ),
        resource=Resource(
            "2" * 64, "OwnerMSP", "CN-GZ-520100", "general", frozenset({"CN"}), frozenset(PURPOSES), 10, True
        ),
        action="read",
        purpose="statistics",
        legal_basis="unstated",
        destination="CN-GZ-520100",
        time=NOW,
        channel="finance",
        laws=laws,
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # names of fields come from the tests


rules = st.builds(
    Rule,
    st.sampled_from(("permit", "forbid")),
    st.sampled_from((None, *ACTIONS)),
    st.sampled_from((None, *PURPOSES)),
    st.sampled_from((False, False, False, True)),
)
law_sets = st.lists(st.tuples(st.sampled_from(PLACES), st.lists(rules, min_size=1, max_size=3)), max_size=4)


@st.composite
def cases(draw: st.DrawFn) -> tuple[DecisionInput, list[tuple[str, list[Rule]]]]:
    abstract = draw(law_sets)
    laws = [law(f"L-{number}", place, *found) for number, (place, found) in enumerate(abstract)]
    base = request(laws)
    organisation = draw(
        st.one_of(
            st.none(),
            st.builds(
                OrganisationFacts,
                st.just("OrgMSP"),
                st.sampled_from((*PLACES, None, "CN-GΖ")),
                st.sampled_from((frozenset({"analyst"}), frozenset())),
                st.sampled_from((*CLASSES, None)),
                st.sampled_from((True, True, True, False)),
            ),
            *[st.just(base.subject.organisation)] * 3,
        )
    )
    subject = replace(
        base.subject,
        organisation=organisation,
        role=draw(st.sampled_from(("analyst", "analyst", "analyst", None, "carrier"))),
        clearance=draw(st.sampled_from((*CLASSES, None))),
        identity_suspended=draw(st.sampled_from((False, False, False, True))),
    )
    assert base.resource is not None
    resource = replace(
        base.resource,
        jurisdiction=draw(st.sampled_from((*PLACES, "CN-GZ-520100", None))),
        data_class=draw(st.sampled_from((*CLASSES, "general", None))),
        residency=draw(st.sampled_from((frozenset({"CN"}), frozenset({"CN", "SG"}), frozenset(), frozenset({"CN-G"})))),
        purposes=draw(st.sampled_from((frozenset(PURPOSES), frozenset({"statistics"}), frozenset()))),
        published=draw(st.sampled_from((True, True, True, False))),
    )
    made = replace(
        base,
        subject=subject,
        resource=draw(st.sampled_from((resource, resource, resource, None))),
        action=draw(st.sampled_from((*ACTIONS, "steal", None))),
        purpose=draw(st.sampled_from((*PURPOSES, "gossip", None))),
        destination=draw(st.sampled_from((*PLACES, "CN-GZ-520100", None, "cn"))),
        legal_basis=draw(st.sampled_from(("unstated", "unstated", "because"))),
    )
    return made, abstract


def specification(case: DecisionInput, abstract: list[tuple[str, list[Rule]]]) -> str:
    """What must come out, said a second time without Cedar, problems or reasons: permit needs everything at once."""
    organisation, resource = case.subject.organisation, case.resource
    if organisation is None or resource is None:
        return "deny"
    paths = []
    for place in (resource.jurisdiction, organisation.jurisdiction, case.destination):
        if place not in PLACES:
            return "deny"
        parts = place.split("-")
        paths.append(["-".join(parts[:n]) for n in range(1, len(parts) + 1)])
    asked = {place for path in paths for place in path}
    applies = [
        (place, rule)
        for place, found in abstract
        if place in asked
        for rule in found
        if rule.action in (None, case.action) and rule.purpose in (None, case.purpose)
    ]
    speaks = {p for p, found in abstract for r in found if r.effect == "permit" and r.action in (None, case.action)}
    permits = {place for place, rule in applies if rule.effect == "permit" and not rule.fails}
    ranks = {name: rank for rank, name in enumerate(CLASSES)}
    everything = (
        organisation.active,
        not case.subject.identity_suspended,
        case.subject.role in organisation.roles,
        case.subject.clearance in ranks,
        organisation.clearance in ranks,
        resource.data_class in ranks,
        resource.published,
        case.action in ACTIONS,
        case.purpose in PURPOSES,
        case.legal_basis == "unstated",
        case.purpose in resource.purposes,
        all(set(path) & resource.residency for path in paths[1:]),
        not any(rule.fails or rule.effect == "forbid" for _, rule in applies),
        all(set(path) & speaks and set(path) & speaks <= permits for path in paths),
    )
    if not all(everything):
        return "deny"
    held = min(ranks[str(case.subject.clearance)], ranks[str(organisation.clearance)])
    return "permit" if held >= ranks[str(resource.data_class)] else "deny"


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_the_engine_decides_as_the_specification_says(made: tuple[DecisionInput, list[tuple[str, list[Rule]]]]) -> None:
    case, abstract = made
    decision = decide(case)
    assert decision.decision == specification(case, abstract), decision
    assert decision.reasons
    assert (decision.code == "") == (decision.decision == "permit")


favourable = st.lists(
    st.tuples(
        st.sampled_from(PLACES[:3]), st.lists(rules.map(lambda r: replace(r, fails=False)), min_size=1, max_size=2)
    ),
    min_size=1,
    max_size=3,
)


@ENDLESS
@given(favourable, st.sampled_from(PLACES), rules)
def test_adding_a_forbid_never_permits(found: list[tuple[str, list[Rule]]], place: str, rule: Rule) -> None:
    laws = [law(f"L-{number}", at, *some) for number, (at, some) in enumerate(found)]
    before = decide(request(laws))
    after = decide(request([*laws, law("L-NEW", place, replace(rule, effect="forbid"))]))
    assert (before.decision, after.decision) != ("deny", "permit")


@ENDLESS
@given(favourable, st.sampled_from(("role", "clearance", "organisation", "purpose", "action", "destination", "class")))
def test_removing_a_fact_never_permits(found: list[tuple[str, list[Rule]]], fact: str) -> None:
    whole = request([law(f"L-{number}", at, *some) for number, (at, some) in enumerate(found)])
    assert whole.resource is not None
    less = {
        "role": replace(whole, subject=replace(whole.subject, role=None)),
        "clearance": replace(whole, subject=replace(whole.subject, clearance=None)),
        "organisation": replace(whole, subject=replace(whole.subject, organisation=None)),
        "purpose": replace(whole, purpose=None),
        "action": replace(whole, action=None),
        "destination": replace(whole, destination=None),
        "class": replace(whole, resource=replace(whole.resource, data_class=None)),
    }[fact]
    assert decide(less).decision == "deny"


@ENDLESS
@given(favourable, st.randoms())
def test_the_order_of_laws_and_rules_does_not_matter(found: list[tuple[str, list[Rule]]], random: object) -> None:
    laws = [law(f"L-{number}", at, *some) for number, (at, some) in enumerate(found)]
    mixed = list(laws)
    random.shuffle(mixed)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert decide(request(laws)) == decide(request(mixed))


@ENDLESS
@given(favourable, st.lists(rules.map(lambda r: replace(r, fails=False)), min_size=1, max_size=3))
def test_a_lower_law_never_widens(found: list[tuple[str, list[Rule]]], lower: list[Rule]) -> None:
    """Where the nation's law permits an action at all, no law of the city turns its denial into a permit."""
    nation = law("L-NATION", "CN", *(rule for _, some in found for rule in some))
    without = decide(request([nation]))
    speaks = any(r.effect == "permit" and r.action in (None, "read") for _, some in found for r in some)
    if speaks and without.decision == "deny":
        assert decide(request([nation, law("L-CITY", "CN-GZ-520100", *lower)])).decision == "deny"


PERMIT = Rule("permit")


def only(decision: Decision) -> str:
    (reason,) = {reason.rule for reason in decision.reasons if reason.rule}
    return str(reason)


def test_one_permit_in_the_city_is_enough_there() -> None:
    decision = decide(request([law("L", "CN-GZ-520100", PERMIT)]))
    assert decision.decision == "permit"
    assert [(reason.law, reason.version, reason.clause) for reason in decision.reasons] == [("L", 1, "art. 1")]


def test_a_policy_that_cannot_be_evaluated_denies_though_another_permits() -> None:
    """Cedar itself skips a policy that errs, a forbid too."""
    decision = decide(request([law("L", "CN-GZ-520100", PERMIT, Rule("forbid", fails=True))]))
    assert (decision.decision, decision.code) == ("deny", "E_INDETERMINATE")
    assert decision.reasons[0].clause == "art. 2"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"purpose": "gossip"}, "engine:unknown-purpose"),
        ({"action": "steal"}, "engine:unknown-action"),
        ({"legal_basis": "because"}, "engine:unknown-legal-basis"),
        ({"resource": None}, "engine:no-data-set"),
    ],
)
def test_an_unknown_word_denies_with_the_engines_rule(changes: dict[str, object], rule: str) -> None:
    decision = decide(request([law("L", "CN-GZ-520100", PERMIT)], **changes))
    assert decision.decision == "deny"
    assert rule in {reason.rule for reason in decision.reasons}


def test_no_law_is_a_denial_by_default() -> None:
    assert only(decide(request([]))) == "engine:default-deny"


@pytest.mark.parametrize(
    ("residency", "allowed"), [({"CN"}, True), ({"CN-G"}, False), (set(), False), ({"CN-GZ"}, True)]
)
def test_residency_compares_whole_components_and_an_empty_set_is_nowhere(residency: set[str], allowed: bool) -> None:
    base = request([law("L", "CN-GZ-520100", PERMIT)])
    assert base.resource is not None
    decision = decide(replace(base, resource=replace(base.resource, residency=frozenset(residency))))
    assert (decision.decision == "permit") is allowed


@pytest.mark.parametrize(("offset_s", "expected"), [(-1, "deny"), (0, "permit"), (1, "permit")])
def test_a_law_is_in_force_from_its_very_moment(offset_s: int, expected: str) -> None:
    begun = replace(law("L", "CN-GZ-520100", PERMIT), in_force_from=NOW)
    assert decide(request([begun], time=NOW + timedelta(seconds=offset_s))).decision == expected


@pytest.mark.parametrize(("offset_s", "expected"), [(-1, "permit"), (0, "deny")])
def test_a_repealed_law_ends_at_its_very_moment(offset_s: int, expected: str) -> None:
    ended = replace(law("L", "CN-GZ-520100", PERMIT), repealed_from=NOW)
    assert decide(request([ended], time=NOW + timedelta(seconds=offset_s))).decision == expected
