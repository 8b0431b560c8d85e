"""Laws to ODRL and back: what maps keeps its meaning, what does not is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovchain.contracts.core.codes import PURPOSES, ROLES
from sovchain.contracts.core.lawtext import LawText, read_law
from sovchain.contracts.core.obligations import KINDS
from sovchain.contracts.core.records import LawHeader
from sovchain.contracts.core.scopes import scopes
from sovchain.sovereign.odrl import OdrlError, export_odrl, import_odrl
from sovchain.sovereign.odrl.terms import ATTRIBUTES, DUTIES, MASKS, OPERATORS, Attribute

LAW = Path(__file__).parents[2] / "examples" / "laws" / "guiyang-data-sharing.cedar"
HEADER = """// law: T-1
// version: 1
// title: a law
// level: city
// jurisdiction: CN-GZ-520100
// effective-from: 2026-01-01T00:00:00+08:00

"""


def law(*policies: str) -> LawText:
    """A law of policies without annotations but obligations."""
    cited = (f'@law("T-1") @version("1") @clause("art. {number}") {one}\n' for number, one in enumerate(policies, 1))
    return read_law(HEADER + "".join(cited))


def test_the_sample_law_comes_back_with_its_meaning() -> None:
    """Article 12 has two cases, each of which is a rule in ODRL."""
    sample = read_law(LAW.read_text())
    document = export_odrl(sample)
    assert (document["@type"], document["conflict"]) == ("Set", "prohibit")
    again = read_law(import_odrl(json.dumps(document)))
    assert again.header == sample.header
    assert [one.clause for one in again.clauses] == [
        "art. 7", "art. 8", "art. 9", "art. 12, case 1", "art. 12, case 2", "art. 13", "art. 15",
    ]  # fmt: skip
    assert export_odrl(again) == document
    own, back = scopes(sample.text), scopes(again.text)
    assert [*back[:3], *back[5:]] == [*own[:3], *own[4:]]


# -- the property --------------------------------------------------------------------------------------------------------

VALUES: dict[str, st.SearchStrategy[str | int]] = {
    "Purpose": st.sampled_from(sorted(PURPOSES)),
    "Role": st.sampled_from(sorted(ROLES)),
    "LegalBasis": st.sampled_from(("consent", "contract", "warrant")),
    "Class": st.sampled_from(("general", "important", "core")),
    "Personal": st.sampled_from(("none", "personal", "sensitive")),
    "Jurisdiction": st.sampled_from(("CN", "CN-GZ", "CN-GZ-520100", "SG")),
    "Organisation": st.sampled_from(("FinanceMSP", "Org-1.MSP")),
}
TIMES = st.datetimes().map(lambda one: one.replace(microsecond=one.microsecond // 1000 * 1000).isoformat(timespec="milliseconds") + "Z")  # fmt: skip
PLAIN: dict[str, st.SearchStrategy[str | int]] = {
    "number": st.integers(-(2**63) + 1, 2**63 - 1),
    "time": TIMES,
    "text": st.sampled_from(("finance", "a channel", "数据")),
}


@st.composite
def constraints(draw: st.DrawFn) -> tuple[Attribute, dict[str, Any]]:
    """A constraint of the profile, and what it is about."""
    attribute = draw(st.sampled_from(ATTRIBUTES))
    operators = [
        one
        for one in OPERATORS[attribute.kind]
        if attribute.exact or attribute.kind != "place" or one not in {"eq", "neq"}
    ]
    operator = draw(st.sampled_from(operators))
    values = VALUES[attribute.entity] if attribute.entity else PLAIN[attribute.kind]
    several = operator in {"isAnyOf", "isNoneOf"}
    value: Any = draw(st.lists(values, min_size=1, max_size=3, unique=True) if several else values)
    if attribute.kind == "time":
        value = {"@value": value.replace(".000Z", "Z"), "@type": "xsd:dateTime"}
    return attribute, {"leftOperand": attribute.operand, "operator": operator, "rightOperand": value}


NAMES = st.lists(st.sampled_from(("id", "name", "税额")), min_size=1, max_size=3, unique=True).map(sorted)


def refined(action: str, **said: Any) -> dict[str, Any]:
    refinement = [
        {
            "leftOperand": f"sov:{name}",
            "operator": "isAnyOf" if isinstance(value, list) else "eq",
            "rightOperand": value,
        }
        for name, value in said.items()
    ]
    return {"action": {"rdf:value": {"@id": action}, "refinement": refinement}}


def due(action: str, days: int) -> dict[str, Any]:
    value = {"@value": f"P{days}D", "@type": "xsd:duration"}
    return {"action": action, "constraint": [{"leftOperand": "elapsedTime", "operator": "lteq", "rightOperand": value}]}


duties = st.one_of(
    st.builds(
        lambda action, names: refined(action, column=names), st.sampled_from(("sov:suppress", "sov:fields")), NAMES
    ),
    st.builds(
        lambda action, n: refined(action, column="name", argument=n),
        st.sampled_from(("sov:truncate", "sov:generalise")),
        st.integers(1, 99),
    ),
    st.just(refined("sov:hash", column="税额")),
    st.builds(lambda values: refined("sov:rows", column="id", value=values), NAMES),
    st.builds(due, st.sampled_from(("sov:report", "delete", "sov:expires")), st.integers(1, 3650)),
    st.just(
        {
            "action": {
                "rdf:value": {"@id": "sov:quota"},
                "refinement": [
                    {"leftOperand": "count", "operator": "eq", "rightOperand": 1000},
                    {"leftOperand": "sov:period", "operator": "eq", "rightOperand": "month"},
                ],
            }
        }
    ),
    st.just({"action": "inform", "informedParty": "urn:sovchain:msp:SupervisorMSP"}),
    st.just({"action": "obtainConsent", "consentingParty": "urn:sovchain:seat:regulator"}),
)
actions = st.sampled_from(
    ("use", "read", "distribute", "sov:export", ["read", "derive"], ["derive", "distribute", "sov:export"])
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A policy of the profile, in the form that export writes."""
    uid = "urn:sovchain:law:T-1:1"
    rules: dict[str, list[dict[str, Any]]] = {"permission": [], "prohibition": []}
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(("permission", "prohibition")))
        rule: dict[str, Any] = {"uid": f"{uid}#art.%20{number}", "action": draw(actions)}
        found = draw(st.lists(constraints(), max_size=4))
        for place, type_, source in (
            ("target", "AssetCollection", "urn:sovchain:datasets"),
            ("assignee", "PartyCollection", "urn:sovchain:organisations"),
        ):
            own = [one for attribute, one in found if attribute.place == place]
            if own or place == "target":
                rule[place] = {"@type": type_, "source": source, **({"refinement": own} if own else {})}
        plain = [one for attribute, one in found if attribute.place == "rule"]
        if plain:
            rule["constraint"] = plain
        owed = draw(st.lists(duties, max_size=3)) if kind == "permission" else []
        if owed:
            rule["duty"] = owed
        rules[kind].append(rule)
    return {
        "@context": ["http://www.w3.org/ns/odrl.jsonld", {"sov": "urn:sovchain:odrl:1#", "dc": "http://purl.org/dc/terms/"}],
        "@type": "Set",
        "uid": uid,
        "profile": "urn:sovchain:odrl:1",
        "conflict": "prohibit",
        "dc:title": "a law",
        "sov:jurisdiction": "CN-GZ-520100",
        "sov:effectiveFrom": "2025-12-31T16:00:00+00:00",
        **{kind: listed for kind, listed in rules.items() if listed},
    }  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(documents())
def test_a_policy_of_the_profile_is_a_valid_law_and_comes_back_as_it_was(document: dict[str, Any]) -> None:
    text = import_odrl(json.dumps(document))
    found = read_law(text)
    assert [one.effect for one in found.clauses] == ["permit"] * len(document.get("permission", [])) + ["forbid"] * len(
        document.get("prohibition", [])
    )
    assert export_odrl(found) == document


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from(("Set", "read", "purpose", "eq"))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(("@type", "uid", "permission", "action", "target", "constraint", "leftOperand", "@id", "and", "x")),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(documents(), st.data(), junk)
def test_whatever_a_document_holds_it_is_a_valid_law_or_refused_with_a_path_in_it(
    document: dict[str, Any], data: st.DataObject, planted: Any
) -> None:
    place: Any = document
    while isinstance(place, (dict, list)) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not data.draw(st.booleans()):
            place[key] = planted
            break
        place = place[key]
    try:
        read_law(import_odrl(json.dumps(document)))
    except OdrlError as error:
        assert error.path.startswith("$")
        assert "\n" not in str(error)


# -- what does not map ---------------------------------------------------------------------------------------------------

PERMISSION: dict[str, Any] = {"action": "read"}


def policy(**changes: Any) -> dict[str, Any]:
    """A small policy with other members."""
    return {"type": "Set", "uid": "urn:x", "permission": [PERMISSION], **changes}


def permission(**changes: Any) -> dict[str, Any]:
    return policy(permission=[PERMISSION, {**PERMISSION, **changes}])


def constraint(**changes: Any) -> dict[str, Any]:
    return permission(
        constraint=[{"leftOperand": "purpose", "operator": "eq", "rightOperand": "statistics", **changes}]
    )


GIVEN = LawHeader.model_validate(
    {"law": "T-1", "version": 1, "title": "t", "level": "nation", "jurisdiction": "CN", "effective_from": "2026-01-01T00:00:00Z"}
)  # fmt: skip


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        (policy(type="Offer"), "$.type", "between parties"),
        (policy(profile="https://w3id.org/other"), "$.profile", "not known"),
        (policy(conflict="perm"), "$.conflict", "prohibition always wins"),
        (policy(prohibition=[PERMISSION]), "$.conflict", "`invalid`"),
        (policy(obligation=[{"action": "delete"}]), "$.obligation", "duty of the permission"),
        (policy(inheritFrom="urn:y"), "$.inheritFrom", "stands by itself"),
        (policy(permission=[]), "$", "no permission"),
        (policy(colour="red"), "$.colour", "no meaning"),
        (permission(action="play"), "$.permission[1].action", "known are use, read, derive, distribute, sov:export"),
        (permission(action=[]), "$.permission[1].action", "has an action"),
        (permission(target="urn:x:1"), "$.permission[1].target", "all data sets"),
        (permission(assignee={"@type": "Party", "uid": "urn:me"}), "$.permission[1].assignee", "all organisations"),
        (permission(assigner="urn:me"), "$.permission[1].assigner", "by ballot"),
        (constraint(leftOperand="count", operator="lteq", rightOperand=3), "$.permission[1].constraint[0].leftOperand", "number of uses"),
        (constraint(leftOperand="payAmount"), "$.permission[1].constraint[0].leftOperand", "known are purpose, spatial, dateTime"),
        (constraint(operator="isA"), "$.permission[1].constraint[0].operator", "known are eq, neq, isAnyOf, isNoneOf"),
        (constraint(rightOperand="advertising"), "$.permission[1].constraint[0].rightOperand", "code list"),
        (constraint(rightOperand=["statistics", "marketing"]), "$.permission[1].constraint[0].rightOperand", "one value"),
        (constraint(operator="isAnyOf", rightOperand=["statistics", 4]), "$.permission[1].constraint[0].rightOperand[1]", "a string"),
        (constraint(leftOperand="spatial", operator="isPartOf", rightOperand="CN-G"), "$.permission[1].constraint[0].rightOperand", "no jurisdiction"),
        (constraint(leftOperand="dateTime", operator="lt", rightOperand="2026-01-01"), "$.permission[1].constraint[0].rightOperand", "zone"),
        (constraint(leftOperand="dateTime", operator="lt", rightOperand="2026-02-30T00:00:00Z"), "$.permission[1].constraint[0].rightOperand", "no moment"),
        (constraint(unit="urn:kg"), "$.permission[1].constraint[0].unit", "follow from the left operand"),
        (permission(constraint=[{"or": []}]), '$.permission[1].constraint[0]["or"]', "a rule for each"),
        (permission(duty=[{"action": "compensate"}]), "$.permission[1].duty[0].action", "no duty of laws"),
        (permission(duty=[refined("sov:suppress")]), "$.permission[1].duty[0].action", "sov:column"),
        (permission(duty=[refined("sov:hash", column="a", argument=3)]), "$.permission[1].duty[0]", "unknown mask"),
        (permission(duty=[refined("sov:fields", column="a", colour="b")]), "$.permission[1].duty[0].action", "not refined by sov:colour"),
        (permission(duty=[refined("sov:quota", period="month")]), "$.permission[1].duty[0]", "quota takes"),
        (permission(duty=[due("delete", 99999)]), "$.permission[1].duty[0]", "number of days"),
        (permission(duty=[{"action": "delete"}]), "$.permission[1].duty[0].constraint", "elapsedTime"),
        (policy(permission=None, prohibition=[{**PERMISSION, "duty": [{"action": "inform", "informedParty": "urn:sovchain:msp:AMSP"}]}]), "$.prohibition[0].duty", "obliges to nothing"),
        (policy(permission=None, prohibition=[{**PERMISSION, "remedy": [{"action": "delete"}]}]), "$.prohibition[0].remedy", "is denied"),
        ({"@type": "Set", "type": "Set"}, "$.type", "twice"),
    ],
)  # fmt: skip
def test_what_does_not_map_is_refused_with_its_path_and_the_reason(
    document: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(OdrlError) as caught:
        import_odrl(document, GIVEN)
    assert caught.value.path == path.replace('["or"]', ".or")
    assert words in caught.value.reason


def test_a_policy_that_is_no_exported_law_takes_a_header_and_numbers_its_rules() -> None:
    with pytest.raises(OdrlError, match="give them beside the document"):
        import_odrl(json.dumps(policy()))
    document = policy(permission=[{"action": "http://www.w3.org/ns/odrl/2/read", "constraint": {"and": {"@list": [
        {"leftOperand": {"@id": "odrl:purpose"}, "operator": "odrl:eq", "rightOperand": {"@value": "statistics"}}]}}}])  # fmt: skip
    found = read_law(import_odrl(json.dumps(document), GIVEN))
    assert [one.clause for one in found.clauses] == ["rule 1"]
    assert scopes(found.text) == scopes(
        law(f'permit (principal, action == Action::"read", resource) when {{ {PURPOSE} }};').text
    )


PURPOSE = 'context.purpose == Purpose::"statistics"'


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("if resource.rows > 3 then true else false", "nothing for the expression `if-then-else`"),
        ('principal in [Jurisdiction::"CN", Jurisdiction::"SG"]', "no operator"),
        ('!(resource.residency.contains(Jurisdiction::"CN"))', "no operator"),
        ("resource.rows + 1 > 3", "no operand"),
        ("resource.owner == principal.organisation", "no operand"),
    ],
)
def test_a_clause_that_odrl_cannot_say_is_refused_with_its_place(when: str, words: str) -> None:
    with pytest.raises(OdrlError) as caught:
        export_odrl(
            law("permit (principal, action, resource);", f"permit (principal, action, resource) when {{ {when} }};")
        )
    assert caught.value.path == "line 9, column 1, art. 2"
    assert words in caught.value.reason


def test_no_json_and_hostile_json_are_refused() -> None:
    for text, words in (
        ("{", "line 1, column 2"),
        ("[]", "an object is expected"),
        ('{"uid": 1, "uid": 2}', "twice"),
        ('{"uid": NaN}', "no JSON"),
        ("[" * 500 + "]" * 500, "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        (json.dumps("x" * 2_000_000), "longer than"),
    ):
        with pytest.raises(OdrlError, match=words):
            import_odrl(text)


def test_the_page_has_every_term() -> None:
    page = (Path(__file__).parents[2] / "docs" / "odrl.md").read_text()
    for attribute in ATTRIBUTES:
        assert f"| `{attribute.operand}` |" in page, attribute
        assert f"`{attribute.path}`" in page, attribute
    assert set(DUTIES) == set(KINDS), "an obligation that has no duty would be lost"
    for ours, odrl in DUTIES.items():
        assert f"`{ours}(" in page
        assert f"`{odrl}`" in page
    assert all(f"`{odrl}`" in page for odrl in MASKS.values())
