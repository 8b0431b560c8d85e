"""Whatever makes a requester, a data set or a registry entry weaker never turns a denial into a permit."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engine import CLASSES, PLACES, PURPOSES, Rule, favourable, law, request

from sovchain.contracts.core.engine import DecisionInput, LawVersion, decide

MANY = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
subsets_of_places = st.frozensets(st.sampled_from(PLACES))
subsets_of_purposes = st.frozensets(st.sampled_from(PURPOSES))


def laws_of(found: list[tuple[str, list[Rule]]]) -> list[LawVersion]:
    return [law(f"L-{number}", at, *some) for number, (at, some) in enumerate(found)]


@st.composite
def weaker(draw: st.DrawFn) -> tuple[DecisionInput, DecisionInput]:
    """A request, and the same with some facts weaker and none stronger."""
    strong = request(laws_of(draw(favourable)))
    assert strong.resource is not None
    assert strong.subject.organisation is not None
    data_class = draw(st.sampled_from(CLASSES))
    strong = replace(strong, resource=replace(strong.resource, data_class=data_class))
    assert strong.resource is not None
    organisation = strong.subject.organisation
    assert organisation is not None
    rank = CLASSES.index
    resource = replace(
        strong.resource,
        residency=strong.resource.residency & draw(subsets_of_places),
        purposes=strong.resource.purposes & draw(subsets_of_purposes),
        data_class=draw(st.sampled_from(CLASSES[rank(data_class) :])),
        published=draw(st.booleans()),
    )
    subject = replace(
        strong.subject,
        clearance=draw(st.sampled_from(("general", "important"))),
        identity_suspended=draw(st.booleans()),
        organisation=replace(
            organisation,
            roles=organisation.roles & draw(st.frozensets(st.sampled_from(("analyst", "official")))),
            clearance=draw(st.sampled_from(("general", "important"))),
            active=draw(st.booleans()),
        ),
    )
    changed = draw(st.sampled_from(("resource", "subject", "both")))
    weak = strong
    if changed != "subject":
        weak = replace(weak, resource=resource)
    if changed != "resource":
        weak = replace(weak, subject=subject)
    return strong, weak


@MANY
@given(weaker())
def test_weaker_facts_never_permit_what_stronger_ones_did_not(pair: tuple[DecisionInput, DecisionInput]) -> None:
    strong, weak = pair
    assert (decide(strong).decision, decide(weak).decision) != ("deny", "permit")


@MANY
@given(favourable, st.sampled_from(PLACES))
def test_another_destination_never_permits_what_home_did_not(found: list[tuple[str, list[Rule]]], place: str) -> None:
    """A stated destination is judged besides the place of registration, never instead of it."""
    home = request(laws_of(found))
    assert (decide(home).decision, decide(replace(home, destination=place)).decision) != ("deny", "permit")


@MANY
@given(favourable, st.sampled_from(("CN", "CN-GZ")), st.data())
def test_a_law_above_that_permits_less_never_permits_more(
    found: list[tuple[str, list[Rule]]], level: str, data: st.DataObject
) -> None:
    """Where a level speaks already, taking one of its permits away or naming a purpose in it only narrows."""
    laws = laws_of([(at, some) for at, some in found if at != level])
    wide = [Rule("permit"), Rule("permit", purpose=data.draw(st.sampled_from(PURPOSES)))]
    narrow = [Rule("permit", purpose=data.draw(st.sampled_from(PURPOSES)))]
    before = decide(request([*laws, law("L-ABOVE", level, *wide)]))
    after = decide(request([*laws, law("L-ABOVE", level, *narrow)]))
    assert (before.decision, after.decision) != ("deny", "permit")
