"""Rights requests and complaints: filed by who may, answered by who must, on clocks that anyone can tick, with private texts."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import test_calendar
from law_world import SPEC, SUBJECT, LawWorld
from scenario_cases import place

from sovchain.chaincode import ArgumentError
from sovchain.contracts.core import Orders, PersonalData, Rights, Sharing, store
from sovchain.contracts.core.calendar import EnactedCalendar
from sovchain.contracts.core.rights_records import RightsAnswer, RightsFiling, RightsRequest
from sovchain.contracts.core.sealing import unseal
from sovchain.testing import refused

KEY = bytes(range(32))
SALT = bytes(range(1, 33))
TEXT = SALT + b"marker-name Zhang San complains"
REPLY = SALT + b"marker-reply we looked into it"
PERSONAL = {"personal": "personal", "subject": SUBJECT}
WHO = "Logistics"  # the organisation that the subject's identity belongs to


def digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


@pytest.fixture
async def world() -> LawWorld:
    """Everybody is admitted, the calendar of 2026 is in force, and Logistics' client acts for SUBJECT."""
    found = await LawWorld(SPEC.harness()).found()
    enacted = EnactedCalendar(calendar=test_calendar.CN_2026, ballot="0" * 64, enacted_at=found.now)
    place(found.harness, enacted, store.CALENDAR, "CN", "2026")
    await found.wallet()
    return found


async def filed(world: LawWorld, kind: str, dataset: str | None = None, **more: Any) -> RightsRequest:
    """A request of the subject's on file with Government."""
    request = await world.submit(WHO, Rights.send_text, SUBJECT, "GovernmentMSP", TEXT, endorsers=["Government"])
    filing = RightsFiling.model_validate({"kind": kind, "handler": "GovernmentMSP", "dataset": dataset} | more)
    return await world.submit(WHO, Rights.file, SUBJECT, request, digest(TEXT), filing)


async def answered(world: LawWorld, request: str, outcome: str = "fulfilled", **more: Any) -> RightsRequest:
    await world.submit("Government", Rights.send_answer, SUBJECT, request, REPLY, endorsers=[WHO])
    given = RightsAnswer.model_validate({"outcome": outcome, "text": digest(REPLY)} | more)
    return await world.submit("Government", Rights.answer, SUBJECT, request, given)


REFUSAL = {"outcome": "refused", "ground": "kept for five years", "law": "OPEN-1"}


async def test_the_clock_counts_on_the_calendar_and_anyone_ticks_it(world: LawWorld) -> None:
    right, complaint = await filed(world, "access"), await filed(world, "complaint")
    start = right.filed_at
    assert start + timedelta(days=29) < right.due < start + timedelta(days=45)
    assert start + timedelta(days=19) < complaint.due < start + timedelta(days=40)
    assert right.due.astimezone(UTC).hour == 16, "a day ends at midnight of Beijing"
    with refused("E_STATE", "not newly overdue"):
        await world.submit("Overseas", Rights.tick, SUBJECT, right.id)
    world.harness.now = right.due
    ticked = await world.submit("Overseas", Rights.tick, SUBJECT, right.id)
    assert (ticked.state, ticked.late) == ("overdue", True)
    with refused("E_STATE"):
        await world.submit("Overseas", Rights.tick, SUBJECT, right.id)
    record = await world.evaluate("Overseas", Rights.handler, "GovernmentMSP")
    assert (record.filed, record.late, record.defaulted) == (2, 1, 0)
    late = await answered(world, right.id)
    assert (late.state, late.late) == ("fulfilled", True), "a late answer is taken and stays late"
    assert (await world.evaluate("Overseas", Rights.handler, "GovernmentMSP")).late == 1, "counted once"


async def test_a_year_without_calendar_is_a_refusal_and_no_guess(world: LawWorld) -> None:
    world.harness.now = datetime(2026, 12, 20, tzinfo=UTC)
    with refused("E_CALENDAR", "2027"):
        await filed(world, "access")


async def test_texts_are_read_by_those_they_are_for_and_found_nowhere_else(world: LawWorld) -> None:
    request = (await filed(world, "complaint")).id
    await answered(world, request)
    assert unseal(await world.evaluate("Government", Rights.read_text, SUBJECT, request, KEY), KEY) == TEXT
    assert unseal(await world.evaluate(WHO, Rights.read_answer, SUBJECT, request, KEY), KEY) == REPLY
    with refused("E_NOT_HANDLER"):
        await world.evaluate("Finance", Rights.read_text, SUBJECT, request, KEY)
    with refused("E_NOT_SUBJECT"):
        await world.evaluate("Finance", Rights.read_answer, SUBJECT, request, KEY)
    with refused("E_KEY"):
        await world.evaluate("Government", Rights.read_text, SUBJECT, request, b"x")
    harness = world.harness
    public = b"".join(entry[0] or b"" for one in harness.state.public.values() for entry in one.entries.values())
    public += b"".join(event.payload for event in harness.events)
    holders = {
        (marker, name)
        for name in ("Government", "Finance", "Supervisor", "Logistics", "Overseas")
        for marker in (b"marker-name", b"marker-reply")
        for collection in ("Government", "Logistics")
        if marker in b"".join(harness.held(name, f"_implicit_org_{collection}MSP").values())
    }
    assert holders == {(b"marker-name", "Government"), (b"marker-reply", "Logistics")}
    assert b"marker-" not in public


async def test_only_the_subject_files_and_only_the_handler_answers(world: LawWorld) -> None:
    with refused("E_NOT_SUBJECT"):
        await world.submit("Finance", Rights.send_text, SUBJECT, "GovernmentMSP", TEXT, endorsers=["Government"])
    with refused("E_PAYLOAD"):
        await world.submit(WHO, Rights.send_text, SUBJECT, "GovernmentMSP", bytes(40), endorsers=["Government"])
    filing = RightsFiling(kind="access", handler="GovernmentMSP")
    with refused("E_COMMITMENT", "nothing was sent"):
        await world.submit(WHO, Rights.file, SUBJECT, "ab" * 32, digest(TEXT), filing)
    with refused("E_NOT_ADMITTED"):
        await world.submit(
            WHO, Rights.file, SUBJECT, "ab" * 32, digest(TEXT), RightsFiling(kind="access", handler="XMSP")
        )
    request = (await filed(world, "access")).id
    with refused("E_STATE", "on file already"):
        await world.submit(WHO, Rights.file, SUBJECT, request, digest(TEXT), filing)
    with refused("E_NOT_HANDLER"):
        await world.submit("Finance", Rights.send_answer, SUBJECT, request, REPLY, endorsers=[WHO])
    given = RightsAnswer(outcome="fulfilled", text=digest(REPLY))
    with refused("E_COMMITMENT"):
        await world.submit("Government", Rights.answer, SUBJECT, request, given)
    await answered(world, request)
    with refused("E_STATE", "given once"):
        await answered(world, request)


async def test_nobody_files_the_text_of_another_person(world: LawWorld) -> None:
    request = await world.submit(WHO, Rights.send_text, SUBJECT, "GovernmentMSP", TEXT, endorsers=["Government"])
    other = "6f" * 32
    await world.submit("Government", PersonalData.open_wallet, other, "FinanceMSP", await world.identity("Finance"))
    with refused("E_COMMITMENT", "nothing was sent"):
        filing = RightsFiling(kind="access", handler="GovernmentMSP")
        await world.submit("Finance", Rights.file, other, request, digest(TEXT), filing)


async def test_a_data_set_must_be_the_handlers_and_about_the_person(world: LawWorld) -> None:
    for dataset, word in ((await world.share("Finance", **PERSONAL), "FinanceMSP"), (await world.share(), "not say")):
        with refused("E_INPUT", word):
            await filed(world, "erase", dataset)
    with pytest.raises(ValueError, match="takes a data set"):
        RightsFiling(kind="erase", handler="GovernmentMSP")


async def test_a_refusal_states_ground_and_law_and_goes_before_another_organisation(world: LawWorld) -> None:
    request = (await filed(world, "erase", await world.share(**PERSONAL))).id
    with pytest.raises(ValueError, match="ground"):
        RightsAnswer(outcome="refused", text=digest(REPLY))
    with refused("E_NOT_FOUND", "law-title"):
        await answered(world, request, **(REFUSAL | {"law": "NO-SUCH-LAW"}))
    with refused("E_STATE", "refused or is overdue"):
        await world.submit(WHO, Rights.appeal, SUBJECT, request)
    assert (await answered(world, request, **REFUSAL)).law == "OPEN-1"
    with refused("E_NOT_SUBJECT"):
        await world.submit("Government", Rights.appeal, SUBJECT, request)
    await world.submit(WHO, Rights.appeal, SUBJECT, request)
    with refused("E_ROLE"):
        await world.submit("Government", Rights.rule, SUBJECT, request, "uphold", "we were right")
    ordered = await world.submit("Supervisor", Rights.rule, SUBJECT, request, "order", "five years are over")
    assert (ordered.state, ordered.ruled_by) == ("ordered", "SupervisorMSP")
    assert ordered.due > world.now + timedelta(days=10)
    with refused("E_STATE", "cannot be refused"):
        await answered(world, request, **REFUSAL)
    world.harness.now = ordered.due
    defaulted = await world.submit("Finance", Rights.tick, SUBJECT, request)
    assert (defaulted.state, defaulted.late) == ("defaulted", True)
    assert (await world.evaluate("Finance", Rights.handler, "GovernmentMSP")).defaulted == 1
    upheld = (await filed(world, "access")).id
    await answered(world, upheld, **REFUSAL)
    await world.submit(WHO, Rights.appeal, SUBJECT, upheld)
    assert (await world.submit("Supervisor", Rights.rule, SUBJECT, upheld, "uphold", "kept")).state == "upheld"


async def test_the_handler_does_not_rule_on_itself(world: LawWorld) -> None:
    request = await world.submit(WHO, Rights.send_text, SUBJECT, "SupervisorMSP", TEXT, endorsers=["Supervisor"])
    filing = RightsFiling(kind="complaint", handler="SupervisorMSP")
    await world.submit(WHO, Rights.file, SUBJECT, request, digest(TEXT), filing)
    world.harness.now += timedelta(days=60)
    await world.submit("Finance", Rights.tick, SUBJECT, request)
    await world.submit(WHO, Rights.appeal, SUBJECT, request)
    with refused("E_FOUR_EYES"):
        await world.submit("Supervisor", Rights.rule, SUBJECT, request, "uphold", "we were right")


async def test_deletion_is_fulfilled_once_every_holder_has_purged(world: LawWorld) -> None:
    dataset = await world.share(**PERSONAL)
    request = (await filed(world, "erase", dataset)).id
    with refused("E_STATE", "not purged yet"):
        await answered(world, request)
    await world.submit("Government", Orders.order_purge, dataset, "asked for by the person")
    await world.submit("Government", Orders.purge, dataset, endorsers=["Government"])
    await world.submit("Government", Orders.confirm_purge, dataset)
    assert (await answered(world, request)).state == "fulfilled"


async def test_a_correction_names_what_replaces_the_wrong_data_set(world: LawWorld) -> None:
    wrong = await world.share(**PERSONAL)
    request = (await filed(world, "correct", wrong)).id
    right = await world.share(**PERSONAL)
    for replacement in (None, right, "ab" * 32):  # the wrong one is still in circulation
        with refused("E_STATE", "nothing replaces"):
            await answered(world, request, replacement=replacement)
    await world.submit("Government", Sharing.withdraw, wrong, "it was wrong")
    with refused("E_STATE", "nothing replaces"):
        await answered(world, request, replacement=await world.share("Finance", **PERSONAL))
    assert (await answered(world, request, replacement=right)).replacement == right


@pytest.mark.parametrize("kind", ["restrict", "object"])
async def test_a_restriction_stops_every_use_until_the_person_frees_it(world: LawWorld, kind: str) -> None:
    dataset = await world.share(**PERSONAL)
    request = (await filed(world, kind, dataset)).id
    assert (await world.ask("Finance", dataset, legal_basis="public-task")).decision == "permit"
    await answered(world, request)
    assert (await world.ask("Finance", dataset, legal_basis="public-task")).code == "E_HELD"
    with refused("E_NOT_SUBJECT"):
        await world.submit("Government", Rights.free, SUBJECT, request)
    await world.submit(WHO, Rights.free, SUBJECT, request)
    assert (await world.ask("Finance", dataset, legal_basis="public-task")).decision == "permit"


async def test_a_guardian_asks_for_a_child(world: LawWorld) -> None:
    parent = await world.identity("Finance/client/Parent")
    until = world.now + timedelta(days=300)
    await world.submit("Government", PersonalData.appoint, SUBJECT, "FinanceMSP", parent, "guardian", until)
    request = await world.submit(
        "Finance/client/Parent", Rights.send_text, SUBJECT, "GovernmentMSP", TEXT, endorsers=["Government"]
    )
    filing = RightsFiling(kind="access", handler="GovernmentMSP")
    found = await world.submit("Finance/client/Parent", Rights.file, SUBJECT, request, digest(TEXT), filing)
    assert found.filed_by == "guardian"
    assert [one.id for one in await world.evaluate("Overseas", Rights.listing, SUBJECT)] == [request]
    with pytest.raises(ArgumentError):
        await world.submit(WHO, Rights.file, SUBJECT, request, digest(TEXT), {"kind": "steal", "handler": "XMSP"})
