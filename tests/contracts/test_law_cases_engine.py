"""The edge cases D-1 to D-52 on the engine, one test each; those that concern no decision are told in docs/law-cases.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from engine_facts import (
    ANALYST,
    DAY,
    FORBID,
    NATION,
    NOW,
    PERMIT,
    PROVINCE,
    SUBJECT,
    answer,
    by_consent,
    by_delegation,
    by_emergency,
    by_warrant,
    code,
    consent,
    facts,
    law,
    link,
    rules,
)

from sovchain.contracts.core.cedartext import CedarTextError, parse_policies
from sovchain.contracts.core.engine import decide
from sovchain.contracts.core.facts import Resource
from sovchain.contracts.core.gates import (
    AGGREGATE_ROWS_MAX,
    EXPORT_PERSONS_MAX,
    EXPORT_SENSITIVE_MAX,
    effective_class,
)
from sovchain.contracts.core.obligations import ObligationError, parse_obligations
from sovchain.protocol.canonical import canonical_json


def test_d01_an_empty_law_set_denies() -> None:
    assert code([]) == "E_DEFAULT_DENY"
    assert code() == ""


def test_d02_permit_and_deny_of_one_level_deny() -> None:
    assert code([law(PERMIT), law(FORBID, name="OTHER")]) == "E_FORBIDDEN"


def test_d03_the_city_permits_and_the_province_forbids() -> None:
    assert code([law(PERMIT), law(FORBID, PROVINCE)]) == "E_FORBIDDEN"


def test_d04_the_nation_permits_and_the_city_forbids() -> None:
    assert code([law(PERMIT, NATION), law(FORBID)]) == "E_FORBIDDEN"


def test_d05_the_requesters_jurisdiction_disagrees_with_the_resources() -> None:
    abroad = {"organisation": {"jurisdiction": "SG"}, "resource": {"residency": frozenset({"CN", "SG"})}}
    assert code([law(PERMIT)], **abroad) == "E_DEFAULT_DENY"
    assert code([law(PERMIT), law(FORBID, "SG")], **abroad) == "E_FORBIDDEN"
    assert code([law(PERMIT), law(PERMIT, "SG")], **abroad) == ""


def test_d06_of_two_owners_both_agree_and_both_laws_are_asked() -> None:
    joint = {"joint_owners": frozenset({"PartnerMSP"}), "joint_places": ("SG",)}
    both = [law(PERMIT), law(PERMIT, "SG")]
    assert code(both, resource=joint) == "E_COSIGN"
    assert code(both, resource=joint, evidence={"cosigned": frozenset({"PartnerMSP"})}) == ""
    assert code(resource=joint, evidence={"cosigned": frozenset({"PartnerMSP"})}) == "E_DEFAULT_DENY"
    assert code(both, resource=joint | {"joint_places": (None,)}) == "E_ATTRIBUTE"


def test_d07_a_law_takes_effect_at_its_very_moment_and_ends_at_it() -> None:
    tick = timedelta(microseconds=1)
    begins, ends = law(PERMIT, in_force_from=NOW), law(PERMIT, repealed_from=NOW)
    assert [code([begins], time=NOW + step) for step in (-tick, 0 * tick, tick)] == ["E_DEFAULT_DENY", "", ""]
    assert [code([ends], time=NOW + step) for step in (-tick, 0 * tick)] == ["", "E_DEFAULT_DENY"]


def test_d08_a_law_repealed_before_the_decision_does_not_decide() -> None:
    assert code([law(PERMIT, repealed_from=NOW - DAY)]) == "E_DEFAULT_DENY"


def test_d09_a_law_that_is_not_in_force_yet_never_applies() -> None:
    assert code([law(PERMIT, in_force_from=NOW + DAY)]) == "E_DEFAULT_DENY"
    assert code([law(PERMIT), law(FORBID, name="DRAFT", in_force_from=NOW + DAY)]) == ""


def test_d10_an_amendment_decides_from_its_beginning_only() -> None:
    old, new = law(PERMIT), law(FORBID, version=2, in_force_from=NOW)
    assert code([old, new], time=NOW - DAY) == ""
    assert code([old, new]) == "E_FORBIDDEN"


def test_d11_delegations_in_a_circle_carry_no_role() -> None:
    circle = (link("OrgMSP", "BMSP", 2), link("BMSP", "OrgMSP", 1))
    assert by_delegation(*circle) == "E_ATTRIBUTE"
    assert by_delegation(link("AMSP", "OrgMSP")) == ""


def test_d12_a_delegation_too_deep_expired_or_of_a_revoked_delegator_carries_no_role() -> None:
    assert by_delegation(link("AMSP", "BMSP", 1), link("BMSP", "OrgMSP")) == ""
    deep = (link("AMSP", "BMSP", 2), link("BMSP", "CMSP", 2), link("CMSP", "DMSP", 2), link("DMSP", "OrgMSP", 2))
    for chain in (
        (link("AMSP", "BMSP", 0), link("BMSP", "OrgMSP")),
        deep,
        (link("AMSP", "OrgMSP", revoked=True),),
        (link("AMSP", "OrgMSP", expires_at=NOW),),
        (link("AMSP", "OrgMSP", delegator_active=False),),
        (link("AMSP", "OrgMSP", delegator_roles=frozenset()),),
        (link("AMSP", "OrgMSP", role="operator"),),
        (link("AMSP", "BMSP", 1), link("CMSP", "OrgMSP")),
        (link("AMSP", "BMSP"),),
    ):
        assert by_delegation(*chain) == "E_ATTRIBUTE", chain
    assert by_delegation(link("AMSP", "BMSP", 1, revoked=True), link("BMSP", "OrgMSP")) == "E_ATTRIBUTE"


def test_d13_a_missing_attribute_of_a_rule_that_applies_denies() -> None:
    needs = '@c("2") forbid (principal, action, resource) when { resource.nosuch == 1 };'
    assert code([law(PERMIT + needs)]) == "E_INDETERMINATE"
    for missing in ({"subject": {"role": None}}, {"subject": {"clearance": None}}, {"resource": {"data_class": None}}):
        assert code(**missing) == "E_ATTRIBUTE"


def test_d14_an_attribute_of_another_type_denies() -> None:
    wrong = '@c("2") forbid (principal, action, resource) when { resource.owner > 3 };'
    assert code([law(PERMIT + wrong)]) == "E_INDETERMINATE"


def test_d15_an_attribute_too_many_changes_nothing() -> None:
    assert code(resource={"columns": ("id", "name", "score", "further")}) == ""
    assert code(evidence={"cosigned": frozenset({"regulator", "AnyMSP"}), "consents": (consent(),)}) == ""


@pytest.mark.parametrize("alike", ["CΝ-GZ", "CN-ԌZ", "cn-gz", "CN-GZ ", "CN‑GZ", "ＣＮ"])
def test_d16_a_look_alike_jurisdiction_is_none(alike: str) -> None:
    assert code(organisation={"jurisdiction": alike}) == "E_ATTRIBUTE"
    assert code(destination=alike) == "E_ATTRIBUTE"
    assert code(resource={"residency": frozenset({alike})}) == "E_RESIDENCY"


@pytest.mark.parametrize("region", ["CN-G", "CN-GZ-52010", "*", "CN-*", "C", ""])
def test_d17_a_prefix_or_wildcard_contains_nothing(region: str) -> None:
    assert code(resource={"residency": frozenset({region})}) == "E_RESIDENCY"


def test_d18_a_claim_above_the_registrys_ceiling_is_worth_nothing() -> None:
    assert code(subject={"role": "judge"}) == "E_ATTRIBUTE"
    low = {"organisation": {"clearance": "general"}, "resource": {"data_class": "core"}}
    assert code(**low, evidence={"cosigned": frozenset({"regulator"})}) == "E_CLEARANCE"


def test_d19_one_person_with_two_identities_is_not_four_eyes() -> None:
    assert by_warrant().decision == "permit"
    assert by_warrant(issuer_person="a" * 64).code == "E_WARRANT"
    assert by_warrant(issuer_person=None).code == "E_WARRANT"


def test_d20_a_suspended_identity_is_denied() -> None:
    assert code(subject={"identity_suspended": True}) == "E_SUSPENDED"
    assert code(organisation={"active": False}) == "E_SUSPENDED"


@pytest.mark.parametrize(
    ("claimed", "ceiling", "wanted", "expected"),
    [
        ("important", "core", "important", ""),
        ("core", "important", "important", ""),
        ("general", "core", "important", "E_CLEARANCE"),
        ("core", "general", "important", "E_CLEARANCE"),
        ("core", "core", "core", ""),
        ("important", "important", "core", "E_CLEARANCE"),
    ],
)
def test_d22_clearance_equal_or_above_is_enough_and_below_is_not(
    claimed: str, ceiling: str, wanted: str, expected: str
) -> None:
    signed = {"cosigned": frozenset({"regulator"})}
    found = code(
        subject={"clearance": claimed},
        organisation={"clearance": ceiling},
        resource={"data_class": wanted},
        evidence=signed,
    )
    assert found == expected


def test_d23_a_revoked_consent_covers_nothing() -> None:
    assert by_consent(consent()).decision == "permit"
    assert by_consent(consent(revoked=True)).code == "E_CONSENT"
    assert by_consent().code == "E_CONSENT"


def test_d24_a_consent_for_another_purpose_field_period_or_grantee_covers_nothing() -> None:
    for other in (
        {"purposes": frozenset({"marketing"})},
        {"fields": frozenset({"id"})},
        {"valid_until": NOW},
        {"valid_from": NOW + timedelta(microseconds=1)},
        {"grantee": "OtherMSP"},
        {"subject": "6" * 64},
    ):
        assert by_consent(consent(**other)).code == "E_CONSENT", other
    some = by_consent(consent(fields=frozenset({"id", "score"})), fields=("id",))
    assert (some.decision, some.fields) == ("permit", ("id",))
    assert by_consent(consent(valid_from=NOW)).decision == "permit"


def test_d25_a_guardians_consent_ends_at_the_majority() -> None:
    assert by_consent(consent(authority_until=NOW + DAY)).decision == "permit"
    assert by_consent(consent(authority_until=NOW)).code == "E_CONSENT"


def test_d26_a_data_subject_needs_no_basis_for_its_own_data() -> None:
    own = {"personal": "sensitive", "subjects": frozenset({SUBJECT})}
    assert code(resource=own) == "E_BASIS"
    assert code(resource=own, evidence={"own_data": True}) == ""
    assert code([], resource=own, evidence={"own_data": True}) == "E_DEFAULT_DENY"


def test_d27_what_the_dead_allowed_ends_with_the_death_and_an_heir_may_allow_anew() -> None:
    dead = consent(authority_until=NOW - DAY)
    assert by_consent(dead).code == "E_CONSENT"
    assert by_consent(dead, consent(authority_until=NOW + DAY)).decision == "permit"


def test_d28_a_withdrawn_consent_ends_the_products_made_from_the_data() -> None:
    """A product carries the subjects of its sources; each must consent."""
    product = {"subjects": frozenset({SUBJECT, "6" * 64})}
    assert by_consent(consent(), consent(subject="6" * 64), resource=product).decision == "permit"
    assert by_consent(consent(), consent(subject="6" * 64, revoked=True), resource=product).code == "E_CONSENT"


def test_d29_a_warrant_expired_exhausted_of_another_scope_or_by_its_requester_covers_nothing() -> None:
    for wrong in (
        {"expires_at": NOW},
        {"uses_left": 0},
        {"dataset": "3" * 64},
        {"grantee": "OtherMSP"},
        {"purpose": "marketing"},
        {"actions": frozenset({"derive"})},
        {"issued": False},
        {"requester_person": "b" * 64},
    ):
        assert by_warrant(**wrong).code == "E_WARRANT", wrong
    assert code(legal_basis="warrant") == "E_WARRANT"


def test_d30_an_emergency_that_nobody_reviewed_in_time_carries_nothing() -> None:
    assert by_emergency().decision == "permit"
    assert by_emergency(review_by=NOW).code == "E_EMERGENCY"
    assert by_emergency(review_by=NOW, review="justified").decision == "permit"
    assert by_emergency(review="abuse").code == "E_EMERGENCY"
    assert by_emergency(identity="9" * 64).code == "E_EMERGENCY"
    assert code(purpose="emergency-response") == "E_EMERGENCY"


def test_d31_a_hold_denies_whatever_the_law_says() -> None:
    assert code(evidence={"holds": ("7" * 64,)}) == "E_HELD"


def test_d32_of_two_holds_one_is_enough() -> None:
    assert code(evidence={"holds": ("7" * 64, "8" * 64)}) == "E_HELD"


def abroad(rows: int, personal: str = "personal", evidence: dict[str, int] | None = None, **more: object) -> str:
    return code(
        [law(PERMIT), law(PERMIT, "SG")],
        destination="SG",
        legal_basis="contract",
        resource={"residency": frozenset({"CN", "SG"}), "rows": rows, "personal": personal} | more,
        evidence=evidence or {},
    )


@pytest.mark.parametrize(
    ("personal", "counter", "limit"),
    [("personal", "exported_persons", EXPORT_PERSONS_MAX), ("sensitive", "exported_sensitive", EXPORT_SENSITIVE_MAX)],
)
def test_d33_an_export_counter_at_its_limit_and_one_above(personal: str, counter: str, limit: int) -> None:
    assert [abroad(10, personal, {counter: limit - 10 + step}) for step in (-1, 0, 1)] == ["", "", "E_EXPORT"]


def test_d34_many_small_permits_add_up_to_important_data() -> None:
    small = {"resource": {"personal": "personal"}, "legal_basis": "contract"}
    assert code(**small, evidence={"received_rows": AGGREGATE_ROWS_MAX - 10}) == ""
    assert code(**small, evidence={"received_rows": AGGREGATE_ROWS_MAX - 9}) == "E_COSIGN"
    assert effective_class(facts(**small, evidence={"received_rows": AGGREGATE_ROWS_MAX})) == "important"
    weak = {"organisation": {"clearance": "general"}}
    assert code(**small, **weak, evidence={"received_rows": AGGREGATE_ROWS_MAX}) == "E_CLEARANCE"


def test_d35_foreign_data_that_leave_again_do_not_count() -> None:
    full = {"exported_persons": EXPORT_PERSONS_MAX}
    assert abroad(10, evidence=full) == "E_EXPORT"
    assert abroad(10, evidence=full, origin="SG") == ""
    assert abroad(10, evidence=full, origin="CN-GZ") == "E_EXPORT"


def test_d36_a_processor_abroad_is_judged_as_a_destination_is() -> None:
    assert code(processors=("SG",)) == "E_DEFAULT_DENY"
    residency = {"residency": frozenset({"CN", "SG"})}
    assert code([law(PERMIT), law(PERMIT, "SG")], processors=("SG",)) == "E_RESIDENCY"
    assert code([law(PERMIT), law(PERMIT, "SG")], processors=("SG",), resource=residency) == ""
    assert code(processors=("sg",), resource=residency) == "E_ATTRIBUTE"


def test_d37_an_empty_residency_is_nowhere() -> None:
    assert code(resource={"residency": frozenset()}) == "E_RESIDENCY"


def test_d38_a_raised_class_takes_the_clearance_and_signature_of_that_class() -> None:
    low = {"organisation": {"clearance": "general"}}
    assert code(**low) == ""
    assert code(**low, resource={"data_class": "important"}) == "E_CLEARANCE"
    assert code(resource={"data_class": "important"}) == "E_COSIGN"


def test_d39_a_mask_that_leaves_no_column_denies() -> None:
    masked = '@c("1") @obligations("mask(name, score)") permit (principal, action, resource);'
    assert answer([law(masked)]).fields == ("id",)
    assert code([law(masked)], fields=("name",)) == "E_OBLIGATION"
    assert code([law(masked.replace("(name, score)", "(id, name, score)"))]) == "E_OBLIGATION"
    both = masked + '@c("2") @obligations("fields(name)") permit (principal, action, resource);'
    assert code([law(both)]) == "E_OBLIGATION"


@pytest.mark.parametrize("stated", ["erase(P1D)", "mask", "report(P0D)", "report(soon)", "cosign(owner)", "mask(a);;"])
def test_d40_an_unknown_obligation_denies(stated: str) -> None:
    assert code([law(f'@c("1") @obligations("{stated}") permit (principal, action, resource);')]) == "E_OBLIGATION"
    with pytest.raises(ObligationError):
        parse_obligations(stated)


def test_d41_of_several_permits_the_earliest_day_is_due() -> None:
    two = (
        '@c("1") @obligations("report(P30D); notify(AuditMSP)") permit (principal, action, resource);'
        '@c("2") @obligations("report(P10D); delete(P90D)") permit (principal, action, resource);'
    )
    found = answer([law(two)]).obligations
    assert [(one.kind, one.names, one.days) for one in found] == [
        ("notify", ("AuditMSP",), 0),
        ("report", (), 10),
        ("delete", (), 90),
    ]


def test_d42_a_held_data_set_is_denied_also_when_it_is_withdrawn() -> None:
    assert code(resource={"published": False}, evidence={"holds": ("7" * 64,)}) == "E_HELD"


def test_d43_a_withdrawn_data_set_stays_denied() -> None:
    assert code(resource={"published": False}) == "E_WITHDRAWN"


def test_d45_a_law_beyond_its_limits_is_refused_before_anything_evaluates_it() -> None:
    deep = f'@c("1") permit (principal, action, resource) when {{ {"(" * 40}true{")" * 40} }};'
    with pytest.raises(CedarTextError, match="nested deeper"):
        parse_policies(deep)
    assert code([law(deep)]) == "E_INDETERMINATE"
    assert code([law(PERMIT * 600)]) == "E_INDETERMINATE"


def test_d46_a_number_beyond_64_bits_denies() -> None:
    grows = '@c("2") forbid (principal, action, resource) when { resource.rows * 4 < 0 };'
    assert code([law(PERMIT + grows)], resource={"rows": 2**62}) == "E_INDETERMINATE"
    assert code(resource={"rows": 2**63}) == "E_INDETERMINATE"
    assert abroad(2**80) == "E_INDETERMINATE"


def test_d47_a_law_counts_by_the_transactions_time_to_the_microsecond() -> None:
    hour = '@c("1") permit (principal, action, resource) when { context.time < datetime("2026-06-01T00:15:00Z") };'
    skew = timedelta(minutes=15)
    assert [code([law(hour)], time=NOW + step) for step in (-skew, skew - timedelta(seconds=1), skew)] == [
        "",
        "",
        "E_DEFAULT_DENY",
    ]


def test_d49_equal_facts_give_equal_bytes_in_whatever_order_they_come() -> None:
    laws = [law(PERMIT, NATION), law(PERMIT, PROVINCE), law(PERMIT)]
    one, other = answer(laws), answer(list(reversed(laws)))
    shown = [[reason.model_dump() for reason in decision.reasons] for decision in (one, other)]
    assert canonical_json(shown[0]) == canonical_json(shown[1])
    assert one.law_set_hash == other.law_set_hash


def test_d51_an_organisation_outside_the_registry_is_denied() -> None:
    assert code(subject={"organisation": None}) == "E_NOT_REGISTERED"
    assert code(subject={"organisation": replace(ANALYST, msp_id="OtherMSP")}) == "E_NOT_REGISTERED"


def test_every_denial_keeps_all_of_its_reasons() -> None:
    decision = answer([], resource={"residency": frozenset(), "data_class": "core"}, purpose="fraud-prevention")
    assert {"residency", "purpose-limit", "default-deny", "cosign"} <= rules(decision)
    assert decision.code == "E_DEFAULT_DENY"


def test_a_request_without_a_data_set_is_denied() -> None:
    assert decide(replace(facts(), resource=None)).code == "E_NO_DATA_SET"
    assert isinstance(facts().resource, Resource)
