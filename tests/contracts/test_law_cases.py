"""The edge cases D-1 to D-52 on the chaincode: on the contract harness, and on the embedded ledger where time need not pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from fabricprograms import fabric_programs
from law_world import BYTES, OPEN, SPEC, SUBJECT, LawWorld, organisation

from sovchain.chaincode import ArgumentError
from sovchain.client import CommitRejected
from sovchain.contracts.core import Duties, Laws, Orders, PersonalData, Registry, Sharing, Warrants
from sovchain.contracts.core.order_records import Cosignature, WarrantScope
from sovchain.contracts.core.records import Receipt
from sovchain.testing import ContractHarness, refused
from sovchain.testing.worlds import WorldPool

EMBEDDED = [
    "harness",
    pytest.param("embedded", marks=pytest.mark.long),
]
STARRED = ["harness", "embedded", pytest.param("native", marks=[pytest.mark.long, pytest.mark.timeout(300)])]
NATIVE_TESTS = 14
DAY = timedelta(days=1)
CONFLICTS = {"MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT"}  # a consent is read by its key and in its range


@pytest.fixture(scope="module")
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorldPool]:
    """Networks on the embedded ledger, with a chaincode of its own for each test that asks."""
    count = 50 if request.config.getoption("--long") else 10
    worlds = WorldPool(tmp_path_factory.mktemp("law"), "embedded", None, tests=count)
    yield worlds
    worlds.close()


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorldPool]:
    """Networks of real peers, with a chaincode of its own for each starred case."""
    with ThreadPoolExecutor(1) as aside:  # it runs a loop of its own, and `world` asks from within one
        aside.submit(fabric_programs, "3.1").result()
    worlds = WorldPool(tmp_path_factory.mktemp("native"), "native", "3.1", tests=NATIVE_TESTS, per_network=3)
    yield worlds
    worlds.close()


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> LawWorld:
    kind = getattr(request, "param", "harness")
    if kind == "harness":
        return await LawWorld(SPEC.harness()).found()
    name = "native" if kind == "native" else "pool"
    return await LawWorld(request.getfixturevalue(name).take(SPEC), apart=kind == "native").found()


both = pytest.mark.parametrize("world", EMBEDDED, indirect=True)
starred = pytest.mark.parametrize("world", STARRED, indirect=True)
raced = pytest.mark.parametrize("world", [STARRED[0], STARRED[-1]], indirect=True)
"""Two transactions that have not seen each other: on the harness in one block, on real peers one after the other."""
IMPORTANT = {"data_class": "important"}
PERSONAL = {"personal": "personal", "subject": SUBJECT}


def outcome(receipt: Receipt) -> str:
    assert (receipt.decision == "permit") == (receipt.code == "")
    return receipt.code


@both
async def test_d01_without_law_nothing_is_permitted(world: LawWorld) -> None:
    dataset = await world.share()
    repeal = await world.submit("Government/admin", Laws.propose_repeal, "OPEN-1", world.now - DAY)
    assert outcome(await world.ask("Finance", dataset)) == ""
    for name in ("Government", "Supervisor", "Finance"):
        await world.submit(f"{name}/admin", Laws.vote, repeal)
    assert outcome(await world.ask("Finance", dataset)) == "E_DEFAULT_DENY"


@both
async def test_d02_permit_and_forbid_of_one_level_deny(world: LawWorld) -> None:
    dataset = await world.share()
    await world.enact(OPEN.replace("permit", "forbid"), law_id="SHUT-1")
    assert outcome(await world.ask("Finance", dataset)) == "E_FORBIDDEN"


@both
async def test_d03_the_city_permits_and_the_province_forbids(world: LawWorld) -> None:
    dataset = await world.share()
    await world.enact(jurisdiction="CN-GZ-520100", law_id="CITY-1")
    await world.enact(OPEN.replace("permit", "forbid"), "CN-GZ", "SHUT-1")
    assert outcome(await world.ask("Finance", dataset)) == "E_FORBIDDEN"


@both
async def test_d04_the_nation_permits_and_the_city_forbids(world: LawWorld) -> None:
    dataset = await world.share()
    await world.enact(OPEN.replace("permit", "forbid"), "CN-GZ-520100", "SHUT-1")
    assert outcome(await world.ask("Finance", dataset)) == "E_FORBIDDEN"


@both
async def test_d05_the_requesters_law_is_asked_besides_the_resources(world: LawWorld) -> None:
    dataset = await world.share()
    assert outcome(await world.ask("Overseas", dataset)) == "E_DEFAULT_DENY"
    await world.enact(jurisdiction="SG", law_id="SG-1")
    assert outcome(await world.ask("Overseas", dataset)) == ""


@both
async def test_d06_a_joint_owner_must_sign(world: LawWorld) -> None:
    dataset = await world.share(joint_owners=("LogisticsMSP",))
    request = await world.file("Finance", dataset)
    with refused("E_PENDING", "LogisticsMSP"):
        await world.decide(request)
    await world.bind("Finance", "f1" * 32)
    await world.bind("Logistics", "10" * 32)
    await world.submit("Logistics", Duties.cosign, request, True)
    assert outcome(await world.decide(request)) == ""


async def test_d07_a_law_counts_from_its_very_moment(world: LawWorld) -> None:
    dataset = await world.share()
    begins = world.now + timedelta(hours=1)
    text = OPEN.replace("permit", "forbid")
    from memory_ledger import law as law_text

    draft = await world.submit(
        "Government/admin",
        Laws.propose,
        law_text(text, law_id="LATER", jurisdiction="CN", effective_from=begins.isoformat()),
    )
    for name in ("Government", "Supervisor", "Finance"):
        await world.submit(f"{name}/admin", Laws.vote, draft.ballot)
    one, other = await world.file("Finance", dataset), await world.file("Finance", dataset)
    world.harness.now = begins - timedelta(seconds=2)
    assert outcome(await world.decide(one)) == ""
    assert outcome(await world.decide(other)) == "E_FORBIDDEN"


@starred
async def test_d08_a_law_repealed_between_request_and_decision_does_not_decide(world: LawWorld) -> None:
    request = await world.file("Finance", await world.share())
    repeal = await world.submit("Government/admin", Laws.propose_repeal, "OPEN-1", world.now - DAY)
    for name in ("Government", "Supervisor", "Finance"):
        await world.submit(f"{name}/admin", Laws.vote, repeal)
    assert outcome(await world.decide(request)) == "E_DEFAULT_DENY"


@both
async def test_d09_a_draft_never_applies(world: LawWorld) -> None:
    from memory_ledger import law as law_text

    dataset = await world.share()
    draft = await world.submit(
        "Government/admin", Laws.propose, law_text(OPEN.replace("permit", "forbid"), law_id="DRAFT", jurisdiction="CN")
    )
    for name in ("Government", "Supervisor"):
        await world.submit(f"{name}/admin", Laws.vote, draft.ballot)
    assert outcome(await world.ask("Finance", dataset)) == ""


@both
async def test_d10_an_amendment_does_not_touch_receipts_of_the_past(world: LawWorld) -> None:
    from sovchain.contracts.core import Receipts

    dataset = await world.share()
    before = await world.ask("Finance", dataset)
    await world.enact(OPEN.replace("permit", "forbid"), version=2)
    assert outcome(await world.ask("Finance", dataset)) == "E_FORBIDDEN"
    assert await world.evaluate("Finance", Receipts.read, before.request) == before


@both
async def test_d11_roles_are_not_lent_in_a_circle(world: LawWorld) -> None:
    until = world.now + DAY
    await world.submit("Logistics/admin", Registry.delegate, "FinanceMSP", "operator", 1, until)
    await world.submit("Finance/admin", Registry.delegate, "GovernmentMSP", "operator", 0, until)
    with refused("E_DELEGATION"):
        await world.submit("Government/admin", Registry.delegate, "FinanceMSP", "operator", 0, until)
    dataset = await world.share("Logistics")
    assert outcome(await world.ask("Government", dataset, claims={"role": "operator"})) == ""


@starred
async def test_d12_a_delegation_has_a_depth_and_ends_with_its_revocation(world: LawWorld) -> None:
    dataset, until = await world.share(), world.now + DAY
    as_carrier = {"claims": {"role": "carrier"}}
    assert outcome(await world.ask("Finance", dataset, **as_carrier)) == "E_ATTRIBUTE"
    await world.submit("Overseas/admin", Registry.delegate, "LogisticsMSP", "carrier", 1, until)
    with refused("E_DELEGATION"):
        await world.submit("Logistics/admin", Registry.delegate, "FinanceMSP", "carrier", 1, until)
    await world.submit("Logistics/admin", Registry.delegate, "FinanceMSP", "carrier", 0, until)
    with refused("E_DELEGATION"):
        await world.submit("Finance/admin", Registry.delegate, "GovernmentMSP", "carrier", 0, until)
    assert outcome(await world.ask("Finance", dataset, **as_carrier)) == ""
    await world.submit("Supervisor/admin", Registry.suspend, "OverseasMSP", "an investigation")
    assert outcome(await world.ask("Finance", dataset, **as_carrier)) == "E_ATTRIBUTE"
    await world.admit(organisation("Overseas"))
    assert outcome(await world.ask("Finance", dataset, **as_carrier)) == ""
    await world.submit("Overseas/admin", Registry.revoke_delegation, "LogisticsMSP", "carrier")
    assert outcome(await world.ask("Finance", dataset, **as_carrier)) == "E_ATTRIBUTE"


@both
@pytest.mark.parametrize("missing", ["role", "clearance"])
async def test_d13_a_missing_attribute_denies(world: LawWorld, missing: str) -> None:
    assert outcome(await world.ask("Finance", await world.share(), claims={missing: None})) == "E_ATTRIBUTE"


async def test_d14_a_law_with_a_wrong_type_is_not_even_put_to_the_vote(world: LawWorld) -> None:
    with refused("E_LAW"):
        await world.enact('@c("1") forbid (principal, action, resource) when { resource.owner > 3 };', law_id="WRONG")


@both
async def test_d15_an_attribute_too_many_changes_nothing(world: LawWorld) -> None:
    assert outcome(await world.ask("Finance", await world.share(), claims={"colour": "red"})) == ""


async def test_d16_a_look_alike_jurisdiction_is_refused_everywhere(world: LawWorld) -> None:
    for alike in ("CN-ԌZ", "CΝ", "cn-gz", "ZZ-1"):
        with pytest.raises((ValueError, ArgumentError)):
            await world.admit(organisation("Overseas", jurisdiction=alike))
        with pytest.raises((ValueError, ArgumentError)):
            await world.share(residency=(alike,))
    assert outcome(await world.ask("Finance", await world.share(), destination="CN-ԌZ")) == "E_ATTRIBUTE"


@both
async def test_d17_a_prefix_is_no_place(world: LawWorld) -> None:
    for prefix in ("CN-G", "CN-GZ-52010", "*"):
        with pytest.raises((ValueError, ArgumentError)):
            await world.share(residency=(prefix,))
    here = await world.share(residency=("CN-GD",))
    assert outcome(await world.ask("Finance", here)) == "E_RESIDENCY"


@starred
async def test_d18_what_a_members_own_ca_wrote_counts_up_to_the_registrys_ceiling_only(world: LawWorld) -> None:
    dataset = await world.share()
    for role in ("judge", "supervisor", "official"):
        assert outcome(await world.ask("Finance", dataset, claims={"role": role})) == "E_ATTRIBUTE"
    with refused("E_ROLE"):
        await world.submit("Finance", Orders.hold, dataset, "a forged order", claims={"role": "judge"})
    with refused("E_INPUT", "FinanceMSP cannot have the role judge"):
        await world.admit(organisation("Finance", roles=("analyst", "judge")))


@starred
async def test_d19_one_person_with_identities_of_two_organisations_does_not_co_sign(world: LawWorld) -> None:
    request = await world.file("Finance", await world.share(**IMPORTANT))
    with refused("E_FOUR_EYES", "bound to no person"):
        await world.submit("Supervisor", Duties.cosign, request, True)
    await world.bind("Finance", "aa" * 32)
    await world.bind("Supervisor", "aa" * 32)
    with refused("E_FOUR_EYES", "one person"):
        await world.submit("Supervisor", Duties.cosign, request, True)
    await world.bind("Supervisor/client/Other", "bb" * 32)
    with refused("E_STATE"):
        await world.bind("Supervisor/client/Other", "cc" * 32)
    assert isinstance(await world.submit("Supervisor/client/Other", Duties.cosign, request, True), Cosignature)
    assert outcome(await world.decide(request)) == ""


@starred
async def test_d20_a_suspended_identity_with_a_valid_certificate_is_denied(world: LawWorld) -> None:
    dataset = await world.share()
    assert outcome(await world.ask("Finance", dataset)) == ""
    mine = await world.identity("Finance")
    await world.submit("Supervisor/admin", Registry.suspend_identity, "FinanceMSP", mine, "lost key")
    assert outcome(await world.ask("Finance", dataset)) == "E_SUSPENDED"
    assert outcome(await world.ask("Finance/client/Other", dataset)) == ""


@both
async def test_d22_clearance_below_is_not_enough(world: LawWorld) -> None:
    await world.bind_two()
    dataset = await world.share(**IMPORTANT)
    for clearance, code in (("general", "E_CLEARANCE"), ("important", "")):
        request = await world.file("Finance", dataset, claims={"clearance": clearance})
        await world.submit("Supervisor", Duties.cosign, request, True)
        assert outcome(await world.decide(request)) == code


@raced
async def test_d23_a_consent_revoked_in_the_block_of_its_use_stops_the_use(world: LawWorld) -> None:
    subject = await world.wallet()
    dataset = await world.share(**PERSONAL)
    given = await world.submit("Logistics", PersonalData.consent, subject, world.terms())
    request = await world.file("Finance", dataset, legal_basis="consent")
    revoke = ("Logistics", PersonalData.revoke, (subject, given.id))
    done, lost = await world.together(revoke, ("Finance", Sharing.decide, (request,)))
    assert (done, lost in CONFLICTS) == ("", True)
    assert outcome(await world.decide(request)) == "E_CONSENT"


@raced
async def test_d23_a_consent_revoked_in_the_block_of_a_delivery_stops_the_delivery(world: LawWorld) -> None:
    subject = await world.wallet()
    dataset = await world.share(**PERSONAL)
    given = await world.submit("Logistics", PersonalData.consent, subject, world.terms())
    receipt = await world.ask("Finance", dataset, legal_basis="consent")
    assert outcome(receipt) == ""
    revoke = ("Logistics", PersonalData.revoke, (subject, given.id))
    deliver = ("Government", Sharing.deliver, (receipt.request, BYTES))
    done, lost = await world.together(revoke, deliver)
    assert (done, lost in CONFLICTS) == ("", True)
    with refused("E_NOT_PERMITTED", "has ended"):
        await world.deliver(receipt.request, "Finance")


@starred
async def test_d23_a_revoked_consent_ends_what_rests_on_it(world: LawWorld) -> None:
    subject = await world.wallet()
    dataset = await world.share(**PERSONAL)
    given = await world.submit("Logistics", PersonalData.consent, subject, world.terms())
    receipt = await world.ask("Finance", dataset, legal_basis="consent")
    assert outcome(receipt) == ""
    with refused("E_NOT_SUBJECT"):
        await world.submit("Finance", PersonalData.revoke, subject, given.id)
    await world.submit("Logistics", PersonalData.revoke, subject, given.id)
    with refused("E_NOT_PERMITTED", "has ended"):
        await world.deliver(receipt.request, "Finance")
    assert outcome(await world.ask("Finance", dataset, legal_basis="consent")) == "E_CONSENT"


@both
async def test_d24_a_consent_covers_its_grantee_purpose_fields_and_period_only(world: LawWorld) -> None:
    subject = await world.wallet()
    dataset = await world.share(**PERSONAL)
    await world.submit("Logistics", PersonalData.consent, subject, world.terms(fields=("id", "score")))
    basis = {"legal_basis": "consent"}
    assert outcome(await world.ask("Finance", dataset, **basis)) == "E_CONSENT"
    assert outcome(await world.ask("Finance", dataset, "marketing", fields=("id",), **basis)) == "E_CONSENT"
    assert outcome(await world.ask("Overseas", dataset, fields=("id",), **basis)) != ""
    receipt = await world.ask("Finance", dataset, fields=("id",), **basis)
    assert (outcome(receipt), receipt.fields) == ("", ("id",))
    with refused("E_FIELDS"):
        await world.deliver(receipt.request, "Finance")


async def test_d25_a_guardian_consents_until_the_majority(world: LawWorld) -> None:
    subject = await world.wallet("Logistics/client/Child")
    dataset = await world.share(**PERSONAL)
    majority = world.now + 2 * DAY
    parent = await world.identity("Logistics/client/Parent")
    with refused("E_NOT_SUBJECT"):
        await world.submit("Logistics/client/Parent", PersonalData.consent, subject, world.terms())
    await world.submit("Government", PersonalData.appoint, subject, "LogisticsMSP", parent, "guardian", majority)
    await world.submit("Logistics/client/Parent", PersonalData.consent, subject, world.terms())
    assert outcome(await world.ask("Finance", dataset, legal_basis="consent")) == ""
    world.harness.now = majority
    assert outcome(await world.ask("Finance", dataset, legal_basis="consent")) == "E_CONSENT"
    with refused("E_NOT_SUBJECT"):
        await world.submit("Logistics/client/Parent", PersonalData.consent, subject, world.terms())
    await world.submit("Logistics/client/Child", PersonalData.consent, subject, world.terms())
    assert outcome(await world.ask("Finance", dataset, legal_basis="consent")) == ""


@both
async def test_d26_a_subject_asks_for_its_own_data_without_a_basis(world: LawWorld) -> None:
    await world.wallet("Logistics")
    dataset = await world.share(**PERSONAL)
    assert outcome(await world.ask("Finance", dataset)) == "E_BASIS"
    assert outcome(await world.ask("Logistics", dataset)) == ""
    assert outcome(await world.ask("Logistics/client/Other", dataset)) == "E_BASIS"


@both
async def test_d27_an_heir_acts_after_a_death_on_record(world: LawWorld) -> None:
    subject = await world.wallet()
    dataset = await world.share(**PERSONAL)
    await world.submit("Logistics", PersonalData.consent, subject, world.terms())
    heir = await world.identity("Finance/client/Heir")
    appoint = (PersonalData.appoint, subject, "FinanceMSP", heir, "heir", world.now + 30 * DAY)
    with refused("E_STATE"):
        await world.submit("Government", *appoint)
    await world.submit("Government", PersonalData.record_death, subject)
    assert outcome(await world.ask("Finance", dataset, legal_basis="consent")) == "E_CONSENT"
    with refused("E_NOT_SUBJECT"):
        await world.submit("Logistics", PersonalData.consent, subject, world.terms())
    await world.submit("Government", *appoint)
    await world.submit("Finance/client/Heir", PersonalData.consent, subject, world.terms())
    assert outcome(await world.ask("Finance", dataset, legal_basis="consent")) == ""


@both
async def test_d28_a_withdrawn_consent_reaches_the_products(world: LawWorld) -> None:
    subject = await world.wallet()
    source = await world.share(**PERSONAL)
    given = await world.submit("Logistics", PersonalData.consent, subject, world.terms())
    with refused("E_INPUT", "is personal"):
        await world.share(sources=(source,))
    product = await world.share(sources=(source,), personal="personal")
    assert outcome(await world.ask("Finance", product, legal_basis="consent")) == ""
    await world.submit("Logistics", PersonalData.revoke, subject, given.id)
    assert outcome(await world.ask("Finance", product, legal_basis="consent")) == "E_CONSENT"


@both
async def test_d29_a_warrant_is_for_its_scope_its_count_and_from_another_person(world: LawWorld) -> None:
    dataset, other = await world.share(), await world.share()
    scope = WarrantScope(dataset=dataset, purpose="supervision", actions=("read",))
    with refused("E_FOUR_EYES"):
        await world.submit("Finance", Warrants.request, scope, "case 7")
    await world.bind_two()
    asked = await world.submit("Finance", Warrants.request, scope, "case 7")
    on_it = {"purpose": "supervision", "legal_basis": "warrant", "reference": asked.id}
    assert outcome(await world.ask("Finance", dataset, **on_it)) == "E_WARRANT"
    await world.bind("Supervisor/client/Twin", "f1" * 32)
    with refused("E_FOUR_EYES"):
        await world.submit("Supervisor/client/Twin", Warrants.issue, asked.id, 1, world.now + DAY)
    with refused("E_ROLE"):
        await world.submit("Finance", Warrants.issue, asked.id, 1, world.now + DAY)
    await world.submit("Supervisor", Warrants.issue, asked.id, 1, world.now + DAY)
    assert outcome(await world.ask("Finance", other, **on_it)) == "E_WARRANT"
    assert outcome(await world.ask("Finance", dataset, **on_it | {"purpose": "statistics"})) == "E_WARRANT"
    assert outcome(await world.ask("Finance", dataset, **on_it)) == ""
    assert outcome(await world.ask("Finance", dataset, **on_it)) == "E_WARRANT"


async def test_d29_a_warrant_expires_and_is_hidden_from_the_subject_until_its_date(world: LawWorld) -> None:
    await world.bind_two()
    subject = await world.wallet()
    dataset = await world.share(**PERSONAL)
    sealed_until = world.now + 3 * DAY
    warrant = await world.warrant(dataset, uses=5, expires_at=world.now + DAY, sealed_until=sealed_until)
    on_it = {"purpose": "supervision", "legal_basis": "warrant", "reference": warrant}
    assert outcome(await world.ask("Finance", dataset, **on_it)) == ""
    assert await world.evaluate("Logistics", PersonalData.accesses, subject) == []
    seen = await world.evaluate("Supervisor", PersonalData.accesses, subject)
    assert [(one.legal_basis, one.decision) for one in seen] == [("warrant", "permit")]
    world.harness.now += 2 * DAY
    assert outcome(await world.ask("Finance", dataset, **on_it)) == "E_WARRANT"
    world.harness.now = sealed_until
    shown = await world.evaluate("Logistics", PersonalData.accesses, subject)
    assert [one.decision for one in shown] == ["permit", "deny"]


async def test_d29_of_two_uses_of_the_last_leave_in_one_block_one_counts(world: LawWorld) -> None:
    await world.bind_two()
    dataset = await world.share()
    warrant = await world.warrant(dataset)
    on_it = {"purpose": "supervision", "legal_basis": "warrant", "reference": warrant}
    one, other = [await world.file("Finance", dataset, **on_it) for _ in range(2)]
    calls = [("Finance", Sharing.decide, (request,)) for request in (one, other)]
    assert await world.together(*calls) == ["", "MVCC_READ_CONFLICT"]
    assert outcome(await world.decide(other)) == "E_WARRANT"


async def test_d30_an_emergency_without_a_review_suspends_whoever_declared_it(world: LawWorld) -> None:
    await world.bind_two()
    dataset = await world.share()
    declared = await world.submit("Finance", Warrants.break_glass, dataset, "flood")
    on_it = {"purpose": "emergency-response", "legal_basis": "vital-interest", "reference": declared.id}
    receipt = await world.ask("Finance", dataset, **on_it)
    assert outcome(receipt) == ""
    with refused("E_STATE", "not reviewed"):
        await world.submit("Finance", Warrants.break_glass, dataset, "flood again")
    world.harness.now = declared.review_by
    assert outcome(await world.ask("Finance", dataset)) == "E_SUSPENDED"
    assert outcome(await world.ask("Finance/client/Other", dataset)) == ""
    with refused("E_NOT_PERMITTED"):
        await world.deliver(receipt.request, "Finance")
    await world.submit("Supervisor", Warrants.review, declared.id, "justified")
    assert outcome(await world.ask("Finance", dataset)) == ""


@starred
async def test_d30_an_emergency_is_reviewed_by_another_person_and_abuse_suspends(world: LawWorld) -> None:
    dataset = await world.share()
    declared = await world.submit("Finance", Warrants.break_glass, dataset, "curiosity")
    with refused("E_ROLE"):
        await world.submit("Finance/client/Other", Warrants.review, declared.id, "justified")
    await world.bind_two()
    await world.submit("Supervisor", Warrants.review, declared.id, "abuse")
    assert outcome(await world.ask("Finance", dataset)) == "E_SUSPENDED"


@starred
async def test_d31_a_hold_stops_an_open_transfer(world: LawWorld) -> None:
    receipt = await world.ask("Finance", await world.share())
    request = await world.evaluate("Finance", Sharing.request, receipt.request)
    held = await world.submit("Supervisor", Orders.hold, request.dataset, "case 12")
    with refused("E_HELD"):
        await world.deliver(receipt.request, "Finance")
    assert outcome(await world.ask("Finance", request.dataset)) == "E_HELD"
    await world.submit("Supervisor", Orders.lift, request.dataset, held.id, "case closed")
    await world.deliver(receipt.request, "Finance")


@raced
async def test_d31_a_hold_in_the_block_of_a_delivery_stops_it(world: LawWorld) -> None:
    dataset = await world.share()
    receipt = await world.ask("Finance", dataset)
    hold = ("Supervisor", Orders.hold, (dataset, "case 12"))
    deliver = ("Government", Sharing.deliver, (receipt.request, BYTES))
    assert await world.together(hold, deliver) == ["", "PHANTOM_READ_CONFLICT"]


async def test_d31_a_hold_on_a_person_holds_everything_about_it(world: LawWorld) -> None:
    await world.wallet()
    dataset = await world.share(**PERSONAL)
    await world.submit("Supervisor", Orders.hold, SUBJECT, "case 12")
    assert outcome(await world.ask("Finance", dataset, legal_basis="contract")) == "E_HELD"


@both
async def test_d32_another_court_does_not_lift_a_hold(world: LawWorld) -> None:
    await world.admit(organisation("Government", roles=("official", "judge")))
    dataset = await world.share()
    held = await world.submit("Supervisor", Orders.hold, dataset, "case 12")
    with refused("E_NOT_ISSUER", "SupervisorMSP"):
        await world.submit("Government", Orders.lift, dataset, held.id, "no reason", claims={"role": "judge"})


@raced
async def test_d33_the_export_counter_holds_over_a_block_and_starts_anew_with_the_year(world: LawWorld) -> None:
    await world.enact(jurisdiction="SG", law_id="SG-1")
    dataset = await world.share(personal="sensitive", rows=6_000)
    out = {"legal_basis": "contract", "destination": "SG"}
    one, other = [await world.file("Finance", dataset, **out) for _ in range(2)]
    calls = [("Finance", Sharing.decide, (request,)) for request in (one, other)]
    assert await world.together(*calls) == ["", "MVCC_READ_CONFLICT"]
    assert outcome(await world.decide(other)) == "E_EXPORT"
    exact = await world.share(personal="sensitive", rows=4_000)
    assert outcome(await world.ask("Finance", exact, **out)) == ""
    more = await world.share(personal="sensitive", rows=1)
    assert outcome(await world.ask("Finance", more, **out)) == "E_EXPORT"
    if not isinstance(world.world, ContractHarness):
        return  # no new year comes on real peers
    world.harness.now = world.now.replace(year=world.now.year + 1, month=1, day=1, hour=0, minute=0, second=0)
    assert outcome(await world.ask("Finance", dataset, **out)) == ""


@both
async def test_d34_many_small_permits_become_important(world: LawWorld) -> None:
    dataset = await world.share(personal="personal", rows=600_000)
    assert outcome(await world.ask("Finance", dataset, legal_basis="contract")) == ""
    with refused("E_PENDING"):
        await world.ask("Finance", dataset, legal_basis="contract")


@both
async def test_d35_foreign_data_that_leave_again_do_not_count(world: LawWorld) -> None:
    await world.enact(jurisdiction="SG", law_id="SG-1")
    out = {"legal_basis": "contract", "destination": "SG"}
    foreign = await world.share(personal="sensitive", rows=10_001, origin="SG")
    assert outcome(await world.ask("Finance", foreign, **out)) == ""
    own = await world.share(personal="sensitive", rows=10_001)
    assert outcome(await world.ask("Finance", own, **out)) == "E_EXPORT"


@both
async def test_d36_a_processor_abroad_is_judged(world: LawWorld) -> None:
    dataset = await world.share(residency=("CN",))
    await world.enact(jurisdiction="SG", law_id="SG-1")
    assert outcome(await world.ask("Finance", dataset)) == ""
    assert outcome(await world.ask("Finance", dataset, processors=("SG",))) == "E_RESIDENCY"


@both
async def test_d37_an_empty_residency_is_nowhere(world: LawWorld) -> None:
    assert outcome(await world.ask("Finance", await world.share(residency=()))) == "E_RESIDENCY"


@both
async def test_d38_a_class_is_raised_at_once_and_lowered_by_two(world: LawWorld) -> None:
    await world.bind_two()
    dataset = await world.share()
    receipt = await world.ask("Finance", dataset)
    await world.submit("Supervisor", Orders.raise_class, dataset, "important", "order 3")
    with refused("E_STATE", "was raised after this permit"):
        await world.deliver(receipt.request, "Finance")
    with refused("E_NOT_FOUND"):
        await world.submit("Supervisor", Orders.confirm_lower_class, dataset, "alone")
    with refused("E_NOT_OWNER"):
        await world.submit("Finance", Orders.propose_lower_class, dataset, "general")
    await world.submit("Government", Orders.propose_lower_class, dataset, "general")
    with refused("E_ROLE"):
        await world.submit("Government", Orders.confirm_lower_class, dataset, "alone")
    lowered = await world.submit("Supervisor", Orders.confirm_lower_class, dataset, "order 4")
    assert lowered.entry.data_class == "general"
    assert outcome(await world.ask("Finance", dataset)) == ""


MASKED = '@c("1") @obligations("{}") permit (principal, action, resource);'


@both
async def test_d39_a_mask_that_leaves_no_column_denies(world: LawWorld) -> None:
    dataset = await world.share()
    await world.enact(MASKED.format("mask(name, score)"), version=2)
    receipt = await world.ask("Finance", dataset)
    assert (outcome(receipt), receipt.fields) == ("", ("id",))
    with refused("E_FIELDS", "it grants id"):
        await world.deliver(receipt.request, "Finance")
    assert outcome(await world.ask("Finance", dataset, fields=("name",))) == "E_OBLIGATION"


async def test_d40_an_unknown_obligation_is_not_even_put_to_the_vote(world: LawWorld) -> None:
    with refused("E_LAW", "unknown obligation") as caught:
        await world.enact(MASKED.format("forget(P1D)"), version=2)
    assert caught.fields["line"] == 8


async def test_d41_an_overdue_duty_suspends_the_grant_until_it_is_fulfilled(world: LawWorld) -> None:
    await world.enact(MASKED.format("report(P10D); notify(GovernmentMSP)"), version=2)
    dataset = await world.share()
    receipt = await world.ask("Finance", dataset)
    await world.deliver(receipt.request, "Finance")
    assert [one.request for one in await world.evaluate("Finance", Duties.notices, "GovernmentMSP")] == [
        receipt.request
    ]
    with refused("E_STATE"):
        await world.submit("Overseas", Duties.tick, receipt.request, "report")
    (duty,) = await world.evaluate("Finance", Duties.listing, receipt.request)
    world.harness.now = duty.due
    await world.submit("Overseas", Duties.tick, receipt.request, "report")
    with refused("E_OVERDUE"):
        await world.evaluate("Finance", Sharing.open, receipt.request, bytes(range(32)))
    with refused("E_NOT_GRANTEE"):
        await world.submit("Government", Duties.fulfil, receipt.request, "report", "ab" * 32)
    late = await world.submit("Finance", Duties.fulfil, receipt.request, "report", "ab" * 32)
    assert late.alerted_at is not None
    assert await world.evaluate("Finance", Sharing.open, receipt.request, bytes(range(32)))


@both
async def test_d42_a_purge_under_a_hold_is_refused(world: LawWorld) -> None:
    dataset = await world.share()
    held = await world.submit("Supervisor", Orders.hold, dataset, "case 12")
    with refused("E_HELD"):
        await world.submit("Government", Orders.order_purge, dataset, "retention ended")
    await world.submit("Supervisor", Orders.lift, dataset, held.id, "case closed")
    await world.submit("Government", Orders.order_purge, dataset, "retention ended")
    await world.submit("Supervisor", Orders.hold, dataset, "case 13")
    with refused("E_HELD"):
        await world.submit("Government", Orders.purge, dataset, endorsers=["Government"])


@both
async def test_d43_a_purge_is_idempotent_and_closes_with_the_last_holders_word(world: LawWorld) -> None:
    dataset = await world.share()
    receipt = await world.ask("Finance", dataset)
    await world.deliver(receipt.request, "Finance")
    purge = await world.submit("Government", Orders.order_purge, dataset, "retention ended")
    assert purge.holders == ("FinanceMSP", "GovernmentMSP")
    with refused("E_STATE", "still there"):
        await world.submit("Finance", Orders.confirm_purge, dataset)
    with refused("E_NOT_GRANTEE"):
        await world.submit("Logistics", Orders.confirm_purge, dataset)
    for holder in ("Finance", "Government"):
        for _ in range(2):
            await world.submit(holder, Orders.purge, dataset, endorsers=[holder])
        for _ in range(2):
            purge = await world.submit(holder, Orders.confirm_purge, dataset)
    assert purge.closed_at is not None
    tombstone = await world.evaluate("Finance", Sharing.dataset, dataset)
    assert (tombstone.state, tombstone.commitment) == ("purged", hashlib.sha256(BYTES).hexdigest())
    assert outcome(await world.ask("Finance", dataset)) == "E_WITHDRAWN"


async def test_d45_a_law_beyond_its_limits_is_refused_with_its_place(world: LawWorld) -> None:
    deep = f'@c("1") permit (principal, action, resource) when {{ {"(" * 40}true{")" * 40} }};'
    with refused("E_LAW", "nested deeper") as caught:
        await world.enact(deep, law_id="DEEP")
    assert caught.fields["line"] == 8


async def test_d46_a_number_beyond_the_limit_is_no_entry(world: LawWorld) -> None:
    with pytest.raises((ValueError, ArgumentError)):
        await world.share(rows=2**53)


@both
async def test_d48_a_decision_is_not_dated_before_what_it_rests_on(world: LawWorld) -> None:
    if not hasattr(world.world, "now"):
        pytest.skip("no client of this kind chooses its time: tests/ledger/test_endorser_service.py shifts clocks")
    request = await world.file("Finance", await world.share())
    world.harness.now -= timedelta(minutes=10)
    with refused("E_TIME", "back-dated"):
        await world.decide(request)


@both
async def test_d49_a_receipt_is_computed_again_from_state_to_the_same_bytes(world: LawWorld) -> None:
    from sovchain.contracts.core import Receipts

    receipt = await world.ask("Finance", await world.share())
    read = await world.evaluate("Supervisor", Receipts.read, receipt.request)
    assert read.model_dump_json() == receipt.model_dump_json()


@starred
async def test_d51_a_member_that_is_not_in_the_registry_is_denied_with_a_receipt(world: LawWorld) -> None:
    fresh = LawWorld(world.world)
    dataset = await world.share()
    await fresh.submit("Supervisor/admin", Registry.suspend, "OverseasMSP", "an investigation")
    assert outcome(await fresh.ask("Overseas", dataset)) == "E_SUSPENDED"


async def test_d51_before_its_admission_a_member_is_a_stranger() -> None:
    world = LawWorld(SPEC.harness())
    await world.admit(*(organisation(name) for name in ("Government", "Finance", "Supervisor")))
    await world.enact()
    receipt = await world.ask("Logistics", await world.share())
    assert outcome(receipt) == "E_NOT_REGISTERED"
    with refused("E_NOT_ADMITTED"):
        await world.submit("Logistics", Sharing.deposit, BYTES, endorsers=["Logistics"])


@starred
async def test_d52_neither_the_regulator_nor_the_owner_alone_changes_an_entry(world: LawWorld) -> None:
    dataset = await world.share()
    for alone in (["Supervisor"], ["Government"], ["Government", "Finance"], ["Supervisor", "Finance"]):
        caller: Any = world.caller("Government", alone)
        with pytest.raises(CommitRejected, match="ENDORSEMENT_POLICY_FAILURE"):
            await caller.submit(Sharing.withdraw, dataset, "alone")
    await world.submit("Government", Sharing.withdraw, dataset, "together")


async def test_a_suspended_province_takes_its_cities_with_it_until_the_other_guardian_reinstates_it(
    world: LawWorld,
) -> None:
    dataset = await world.share()
    await world.submit("Government/admin", Registry.suspend_place, "CN-GZ", "flood")
    assert outcome(await world.ask("Finance", dataset)) == "E_SUSPENDED"
    with refused("E_SUSPENDED", "with CN-GZ"):
        await world.submit("Logistics", Sharing.deposit, BYTES, endorsers=["Logistics"])
    with refused("E_FOUR_EYES"):
        await world.submit("Government/admin", Registry.reinstate_place, "CN-GZ", "over")
    with refused("E_SEAT"):
        await world.submit("Finance/admin", Registry.reinstate_place, "CN-GZ", "over")
    await world.submit("Supervisor/admin", Registry.reinstate_place, "CN-GZ", "over")
    assert outcome(await world.ask("Finance", dataset)) == ""


async def test_a_subject_takes_everything_along(world: LawWorld) -> None:
    subject = await world.wallet()
    dataset = await world.share(**PERSONAL)
    await world.submit("Logistics", PersonalData.consent, subject, world.terms())
    await world.ask("Finance", dataset, legal_basis="consent")
    await world.ask("Finance", dataset, "marketing", legal_basis="consent")
    file = await world.evaluate("Logistics", PersonalData.file, subject)
    assert (len(file.consents), file.datasets) == (1, (dataset,))
    assert [one.decision for one in file.accesses] == ["permit", "deny"]
    with refused("E_NOT_SUBJECT"):
        await world.evaluate("Finance", PersonalData.file, subject)


async def test_orders_stay_on_record(world: LawWorld) -> None:
    dataset = await world.share()
    held = await world.submit("Supervisor", Orders.hold, dataset, "case 12")
    lifted = await world.submit("Supervisor", Orders.lift, dataset, held.id, "case closed")
    corrected = await world.submit("Supervisor", Orders.correct, dataset, "wrong year", held.id)
    found = await world.evaluate("Finance", Orders.listing)
    assert {(one.id, one.kind) for one in found.items} == {
        (held.id, "hold"),
        (lifted.id, "lift"),
        (corrected.id, "correct"),
    }
    (note,) = await world.evaluate("Finance", Orders.corrections, dataset)
    assert note.replacement == held.id
    assert await world.evaluate("Finance", Orders.holds, dataset) == []


async def test_a_co_signature_that_is_refused_or_never_comes_ends_in_a_denial(world: LawWorld) -> None:
    await world.bind_two()
    dataset = await world.share(**IMPORTANT)
    refusal, silence = await world.file("Finance", dataset), await world.file("Finance", dataset)
    await world.submit("Supervisor", Duties.cosign, refusal, False)
    assert outcome(await world.decide(refusal)) == "E_COSIGN"
    world.harness.now += 10 * DAY
    assert outcome(await world.decide(silence)) == "E_COSIGN"
