"""Government data sharing: one source for each item, an answer in ten working days, and use for what was granted only."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import test_calendar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_ledger import CITY, START, law
from scenario_cases import cases, channel, check, place
from sharing_steps import entry as publication

from sovchain.contracts import government
from sovchain.contracts.core import Laws, Sharing, store
from sovchain.contracts.core.calendar import EnactedCalendar
from sovchain.contracts.core.records import Column, DataSet
from sovchain.contracts.government.catalogue import (
    Catalogue,
    CatalogueEntry,
    Citation,
    Dispute,
    Listing,
    Source,
    Statement,
)
from sovchain.contracts.government.corrections import CorrectionClaim, Corrections
from sovchain.contracts.government.exchange import Asked, Delivery, Exchange, ShareRequest, Terms, brief_key
from sovchain.sovereign.exchange import league
from sovchain.testing import ContractHarness, refused
from sovchain.testing.harness import Caller
from sovchain.testing.machines import NegativeCase

BRIEF = bytes(range(32)) + b"marker: the tax cases 17 and 23"
HASH = hashlib.sha256(BRIEF).hexdigest()
PAYLOAD = bytes(range(1, 33)) + b"household,income\n1,marker-payload\n"
DUTY = Citation(law="GD-1", clause="art. 5")
CLOSED = Citation(law="GD-1", clause="art. 9")
LAW = law(
    """@c("art. 5")
permit (principal in Jurisdiction::"CN-GZ", action in [Action::"read", Action::"derive"], resource) when {
  [Purpose::"statistics", Purpose::"credit-assessment"].contains(context.purpose) };
@c("art. 9")
forbid (principal, action, resource) when { resource.class == Class::"core" };""",
    law_id="GD-1",
)
FIELDS = ("household", "income")
ID, ENTRY, DATASET = "da" * 32, "e0" * 32, "d0" * 32
YEAR = timedelta(days=300)


def statement(dataset: str, share: str = "conditional", **changes: Any) -> Statement:
    listing = {
        "conditional": Listing(share="conditional", condition="for a duty under a law"),
        "unconditional": Listing(share="unconditional"),
        "none": Listing(share="none", citation=CLOSED),
    }[share]
    stated = {"title": "Incomes of households", "dataset": dataset, "items": {"income": "household.income"},
              "keys": ("household",), "listing": listing}  # fmt: skip
    return Statement.model_validate(stated | changes)


def terms(**changes: Any) -> Terms:
    stated = {"fields": FIELDS, "rows_max": 250, "window_days": 30, "until": START + YEAR}
    return Terms.model_validate(stated | changes)


class World:
    """The government channel: Government is bureau and Logistics provides what Finance asks for."""

    def __init__(self) -> None:
        self.harness = channel(government.chaincode, "Government", "Finance", "Logistics", "Supervisor")
        self.harness.now = START
        calendar = EnactedCalendar(calendar=test_calendar.CN_2026, ballot="0" * 64, enacted_at=START)
        place(self.harness, calendar, store.CALENDAR, "CN", "2026")
        self.bureau = self.harness.caller("Government", "keeper", attributes={"office": "bureau"})
        self.provider = self.harness.caller("Logistics", attributes={"role": "operator", "clearance": "important"})
        self.user = self.harness.caller("Finance", attributes={"role": "analyst", "clearance": "important"})
        self.supervisor = self.harness.caller("Supervisor", attributes={"role": "supervisor", "clearance": "core"})
        self.anyone = self.harness.caller("Stranger")

    def pass_time(self, time: timedelta) -> None:
        self.harness.now += time

    async def enact(self) -> None:
        ballot = (await self.admin("Government").submit(Laws.propose, LAW)).result.ballot
        for name in ("Government", "Supervisor", "Finance"):
            await self.admin(name).submit(Laws.vote, ballot)

    def admin(self, name: str) -> Caller:
        return self.harness.caller(name, "Admin", unit="admin")

    async def dataset(self, owner: Caller | None = None, payload: bytes = PAYLOAD, **changes: Any) -> str:
        owner = owner or self.provider
        found = (await owner.submit(Sharing.deposit, payload)).result
        stated = publication(
            name="incomes.csv", rows=100, size_bytes=len(payload) - 32,
            columns=(Column(name="household", type="text"), Column(name="income", type="integer")), **changes,
        )  # fmt: skip
        await owner.submit(Sharing.publish, found, hashlib.sha256(payload).hexdigest(), stated)
        return found

    async def published(self, share: str = "conditional", **changes: Any) -> str:
        entry = (
            await self.provider.submit(Catalogue.propose, statement(await self.dataset(), share, **changes))
        ).result.id
        await self.bureau.submit(Catalogue.review, entry)
        await self.provider.submit(Catalogue.publish, entry)
        return entry

    def asked(self, entry: str, **changes: Any) -> Asked:
        stated = {"entry": entry, "purpose": "credit-assessment", "duty": DUTY, "brief": HASH, "terms": terms()}
        return Asked.model_validate(stated | changes)

    async def filed(self, share: str = "conditional", entry: str | None = None) -> str:
        for msp_id in ("GovernmentMSP", "LogisticsMSP"):
            await self.user.submit(Exchange.tell, msp_id, BRIEF)
        return (await self.user.submit(Exchange.file, self.asked(entry or await self.published(share)))).result.id

    async def agreed(self, **changes: Any) -> str:
        request = await self.filed()
        await self.provider.submit(Exchange.grant, request, terms(**changes))
        await self.user.submit(Exchange.agree, request)
        return request

    async def permit(self, request: str, purpose: str = "credit-assessment", **more: Any) -> str:
        """A request of the core's for the data behind the entry, decided by law."""
        entry = (await self.user.evaluate(Exchange.read, request)).asked.entry
        dataset = (await self.user.evaluate(Catalogue.read, entry)).statement.dataset
        drawn = (await self.user.submit(Sharing.file_request, dataset, purpose, "5a" * 32, **more)).result
        await self.user.submit(Sharing.decide, drawn)
        return drawn

    async def delivered(self, request: str) -> str:
        drawn = await self.permit(request)
        await self.user.submit(Exchange.draw, request, drawn)
        await self.provider.submit(Sharing.deliver, drawn, PAYLOAD)
        await self.user.submit(Exchange.confirm, request)
        return drawn


@pytest.fixture
async def world() -> World:
    world = World()
    await world.enact()
    return world


async def test_the_whole_way_of_a_conditional_request(world: World) -> None:
    request = await world.filed()
    found = await world.user.evaluate(Exchange.read, request)
    assert (found.state, (found.due - found.filed_at).days) == (
        "under-review",
        14,
    )  # from a Monday
    await world.provider.submit(Exchange.grant, request, terms(fields=FIELDS, rows_max=200))
    agreement = (await world.user.submit(Exchange.agree, request)).result
    assert (agreement.grantor.msp_id, agreement.user.msp_id) == ("LogisticsMSP", "FinanceMSP")
    drawn = await world.delivered(request)
    delivery = await world.user.evaluate(Exchange.delivery, drawn)
    assert (delivery.rows, delivery.number, delivery.commitment) == (100, 1, hashlib.sha256(PAYLOAD).hexdigest())
    await world.user.submit(Exchange.report, request, "credit-assessment", "ab" * 32)
    assert (await world.user.evaluate(Exchange.read, request)).state == "in-use"
    await world.delivered(request)


async def test_what_is_shared_without_condition_is_granted_at_once(world: World) -> None:
    request = await world.filed("unconditional")
    found = await world.user.evaluate(Exchange.read, request)
    assert (found.state, found.granted, found.answered_at) == ("granted", terms(), found.filed_at)
    assert (await world.user.submit(Exchange.agree, request)).result.grantor is None


# -- abuse ----------------------------------------------------------------------------------------------------------


async def test_silence_is_put_on_record_by_anyone_but_not_before_its_time(world: World) -> None:
    request = await world.filed()
    due = (await world.user.evaluate(Exchange.read, request)).due
    world.harness.now = due - timedelta(seconds=3)
    with refused("E_TIME", "it ends at"):
        await world.anyone.submit(Exchange.tick, request)
    world.harness.now = due
    await world.anyone.submit(Exchange.tick, request)
    with refused("E_STATE", "overdue"):  # whoever was silent has no refusal left
        await world.provider.submit(Exchange.refuse, request, "too much work")
    await world.user.submit(Exchange.escalate, request, "no answer")
    with refused("E_ROLE"):
        await world.harness.caller("Finance", attributes={"role": "supervisor"}).submit(
            Exchange.order, request, terms(), "granted"
        )
    await world.supervisor.submit(Exchange.order, request, terms(), "the duty is shown")
    agreement = (await world.user.submit(Exchange.agree, request)).result
    assert agreement.grantor.msp_id == "SupervisorMSP"
    answers = (await world.anyone.evaluate(Exchange.answers)).items
    (line,) = league(answers)
    assert (line.provider, line.asked, line.answered, line.late) == ("LogisticsMSP", 1, 0, 1)


async def test_the_providers_peer_cannot_stop_the_clock_by_being_away(world: World) -> None:
    request = await world.filed()
    world.pass_time(timedelta(days=30))
    without = world.harness.caller("Finance", endorsers=["Finance", "Government", "Supervisor"])
    assert (await without.submit(Exchange.tick, request)).result.state == "overdue"


async def test_a_grant_that_is_never_delivered_is_overdue_too(world: World) -> None:
    request = await world.agreed()
    await world.user.submit(Exchange.draw, request, await world.permit(request))
    with refused("E_NOT_DELIVERED"):
        await world.user.submit(Exchange.confirm, request)
    world.pass_time(timedelta(days=30))
    assert (await world.anyone.submit(Exchange.tick, request)).result.state == "overdue"


async def test_a_refusal_without_a_reason_is_none(world: World) -> None:
    request = await world.filed()
    with pytest.raises(Exception, match="reason"):
        await world.provider.submit(Exchange.refuse, request, "")
    await world.provider.submit(Exchange.refuse, request, "the register is being rebuilt")
    (answer,) = (await world.anyone.evaluate(Exchange.answers)).items
    assert (answer.state, answer.reason) == ("refused", "the register is being rebuilt")
    await world.user.submit(Exchange.escalate, request, "it was rebuilt last year")
    assert (await world.anyone.evaluate(Exchange.answers)).items[0].reason == "the register is being rebuilt"


async def test_closing_data_off_takes_a_clause_in_force(world: World) -> None:
    dataset = await world.dataset()
    for listing in (
        Listing(share="none"),
        Listing(share="none", citation=Citation(law="GD-1", clause="art. 99")),
        Listing(share="none", citation=Citation(law="GD-2", clause="art. 9")),
    ):
        with refused("E_CITATION"):
            await world.provider.submit(Catalogue.propose, statement(dataset, listing=listing))
    entry = await world.published("none")
    await world.user.submit(Exchange.tell, "GovernmentMSP", BRIEF)
    with refused("E_NONE", "GD-1, art. 9 closes it: dispute the listing"):
        await world.user.submit(Exchange.file, world.asked(entry))
    with refused("E_OWN"):
        await world.provider.submit(Catalogue.dispute, entry, "listing", "mine")
    dispute = (await world.user.submit(Catalogue.dispute, entry, "listing", "art. 9 is about core data")).result.id
    await world.provider.submit(Catalogue.answer, dispute, "better safe")
    opened = Listing(share="conditional", condition="for a duty under a law")
    await world.supervisor.submit(Catalogue.uphold, dispute, "the data are general", opened)
    assert (await world.user.evaluate(Catalogue.read, entry)).statement.listing == opened
    await world.filed(entry=entry)


async def test_an_item_has_one_source_until_that_one_retires(world: World) -> None:
    entry = await world.published()
    other = world.harness.caller("Finance")
    dataset = await world.dataset(owner=other)
    again = statement(dataset, title="Incomes again")
    with refused("E_DUPLICATE", f"household.income comes from entry {entry[:16]}"):
        await other.submit(Catalogue.propose, again)
    with refused("E_ACCESS"):
        await world.provider.submit(Catalogue.retire, entry, "too much work")
    await world.bureau.submit(Catalogue.retire, entry, "moved to the finance bureau")
    moved = (await other.submit(Catalogue.propose, again)).result
    assert (await world.user.evaluate(Catalogue.source, "household.income")).entry == moved.id


async def test_a_draft_that_is_amended_gives_up_items_that_it_no_longer_has(world: World) -> None:
    dataset = await world.dataset()
    draft = (await world.provider.submit(Catalogue.propose, statement(dataset))).result.id
    await world.bureau.submit(Catalogue.remit, draft, "call it what it is")
    renamed = statement(dataset, items={"income": "household.net-income"})
    await world.provider.submit(Catalogue.amend, draft, renamed)
    with refused("E_NOT_FOUND"):
        await world.user.evaluate(Catalogue.source, "household.income")


async def test_what_was_received_is_not_shared_on(world: World) -> None:
    request = await world.agreed()
    drawn = await world.delivered(request)
    received = (await world.user.evaluate(Exchange.delivery, drawn)).request
    assert received == request
    source = await world.user.evaluate(Catalogue.read, (await world.user.evaluate(Exchange.read, request)).asked.entry)
    await world.permit(request, action="derive")
    derived = await world.dataset(owner=world.user, sources=(source.statement.dataset,))
    onward = statement(derived, items={"income": "household.copied-income"})
    with refused("E_ONWARD"):
        await world.user.submit(Catalogue.propose, onward)
    await world.user.submit(Exchange.report, request, "credit-assessment", "ab" * 32)
    for more in ({"action": "share"}, {"processors": ("CN-GZ",)}):
        with refused("E_ONWARD"):
            await world.user.submit(Exchange.draw, request, await world.permit(request, **more))


async def test_another_purpose_than_was_granted_is_refused_before_and_after(world: World) -> None:
    request = await world.agreed()
    creeping = await world.permit(request, "statistics")  # the law would permit it
    with refused("E_PURPOSE"):
        await world.user.submit(Exchange.draw, request, creeping)
    await world.delivered(request)
    with refused("E_PURPOSE"):
        await world.user.submit(Exchange.report, request, "marketing", "ab" * 32)


async def test_many_small_draws_end_at_the_quota_and_unreported_use_stops_them(world: World) -> None:
    request = await world.agreed()
    await world.delivered(request)
    with refused("E_STATE", "delivered"):
        await world.user.submit(Exchange.draw, request, await world.permit(request))
    for _ in range(1):
        await world.user.submit(Exchange.report, request, "credit-assessment", "ab" * 32)
        await world.delivered(request)
    await world.user.submit(Exchange.report, request, "credit-assessment", "ab" * 32)
    with refused("E_QUOTA", "50 rows are left"):
        await world.user.submit(Exchange.draw, request, await world.permit(request))
    world.pass_time(timedelta(days=30))
    await world.delivered(request)


async def test_columns_time_and_law_bound_every_draw(world: World) -> None:
    request = await world.agreed(fields=("household",), until=START + timedelta(days=5))
    with refused("E_FIELDS"):
        await world.user.submit(Exchange.draw, request, await world.permit(request))
    denied = await world.permit(request, "marketing", fields=("household",))
    with refused("E_PURPOSE"):
        await world.user.submit(Exchange.draw, request, denied)
    world.pass_time(timedelta(days=5))
    with refused("E_TIME"):
        await world.user.submit(Exchange.draw, request, await world.permit(request, fields=("household",)))
    assert (await world.anyone.submit(Exchange.expire, request)).result.state == "expired"


async def test_a_grant_does_not_make_good_what_the_law_denies(world: World) -> None:
    """The purpose is granted, and the law of the ledger forbids it: the core's denial stands."""
    dataset = await world.dataset(data_class="core")
    entry = (await world.provider.submit(Catalogue.propose, statement(dataset))).result.id
    await world.bureau.submit(Catalogue.review, entry)
    await world.provider.submit(Catalogue.publish, entry)
    request = await world.filed(entry=entry)
    await world.provider.submit(Exchange.grant, request, terms())
    await world.user.submit(Exchange.agree, request)
    denied = await world.permit(request)
    with refused("E_NOT_PERMITTED"):
        await world.user.submit(Exchange.draw, request, denied)


async def test_a_permit_is_drawn_once_and_by_its_own_department(world: World) -> None:
    request = await world.agreed()
    drawn = await world.delivered(request)
    await world.user.submit(Exchange.report, request, "credit-assessment", "ab" * 32)
    with refused("E_STATE"):
        await world.user.submit(Exchange.draw, request, drawn)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"fields": (*FIELDS, "name")}, "E_FIELDS"),
        ({"until": START}, "E_TIME"),
        ({"until": START + timedelta(days=800)}, "E_TIME"),
    ],
)
async def test_what_the_catalogue_does_not_have_is_not_asked_for(
    world: World, changes: dict[str, Any], code: str
) -> None:
    entry = await world.published()
    await world.user.submit(Exchange.tell, "GovernmentMSP", BRIEF)
    with refused(code):
        await world.user.submit(Exchange.file, world.asked(entry, terms=terms(**changes)))
    for stated, expected in (
        ({"duty": CLOSED.model_copy(update={"clause": "art. 77"})}, "E_CITATION"),
        ({"purpose": "marketing"}, "E_PURPOSE"),
        ({"brief": "ab" * 32}, "E_NOT_TOLD"),
    ):
        with refused(expected):
            await world.user.submit(Exchange.file, world.asked(entry, **stated))


async def test_a_grant_never_exceeds_what_was_asked(world: World) -> None:
    request = await world.filed()
    for changes in ({"rows_max": 251}, {"window_days": 29}, {"until": START + YEAR + timedelta(days=1)}):
        with refused("E_INPUT"):
            await world.provider.submit(Exchange.grant, request, terms(**changes))


async def test_an_entry_promises_what_is_there_and_is_reviewed_by_somebody_else(world: World) -> None:
    dataset = await world.dataset()
    with refused("E_DATASET", "they differ in household"):
        await world.provider.submit(Catalogue.propose, statement(dataset, keys=()))
    with refused("E_DATASET", "it is LogisticsMSP's"):
        await world.user.submit(Catalogue.propose, statement(dataset))
    own = await world.dataset(owner=world.bureau)
    entry = (await world.bureau.submit(Catalogue.propose, statement(own))).result.id
    with refused("E_SIGNER"):
        await world.bureau.submit(Catalogue.review, entry)


async def test_a_claim_is_answered_in_time_and_ends_at_the_source(world: World) -> None:
    entry = await world.published()
    await world.user.submit(Exchange.tell, "GovernmentMSP", BRIEF)
    claim = (await world.user.submit(Corrections.claim, entry, HASH)).result.id
    with refused("E_DATASET"):
        await world.provider.submit(Corrections.correct, claim)
    await world.provider.submit(Catalogue.supply, entry, await world.dataset(payload=PAYLOAD + b"2,7\n"))
    corrected = (await world.provider.submit(Corrections.correct, claim)).result
    assert corrected.corrected != corrected.wrong
    late = (await world.user.submit(Corrections.claim, entry, HASH)).result.id
    world.pass_time(timedelta(days=30))
    await world.anyone.submit(Corrections.tick, late)
    await world.user.submit(Corrections.escalate, late)
    assert (await world.supervisor.submit(Corrections.order, late, "look again")).result.state == "ordered"


async def test_a_year_without_calendar_stops_no_entry_and_names_itself(world: World) -> None:
    entry = await world.published()
    await world.user.submit(Exchange.tell, "GovernmentMSP", BRIEF)
    world.harness.now = START.replace(month=12, day=28)
    later = terms(until=world.harness.now + timedelta(days=9))
    with refused("E_CALENDAR", "2027"):
        await world.user.submit(Exchange.file, world.asked(entry, terms=later))


async def test_who_sees_what(world: World) -> None:
    """The brief is with bureau and provider, the payload with the two departments, and neither is in public state."""
    await world.delivered(await world.agreed())
    public = [value for value, _, _ in world.harness.state.public["contract"].entries.values()]
    public += [event.payload for event in world.harness.events]
    assert not any(b"marker" in part for part in public)
    for marker, holders in (
        (b"marker: the tax", {"Government", "Logistics"}),
        (b"marker-payload", {"Logistics", "Finance"}),
    ):
        seen = {
            name
            for name in world.harness.organizations
            for owner in world.harness.msp_ids
            if any(marker in value for value in world.harness.held(name, f"_implicit_org_{owner}").values())
        }
        assert seen == holders


async def test_the_public_sees_the_catalogue_and_no_drafts(world: World) -> None:
    await world.provider.submit(Catalogue.propose, statement(await world.dataset(), items={"income": "a.b"}))
    entry = await world.published()
    (shown,) = (await world.anyone.evaluate(Catalogue.public)).items
    assert (shown.id, shown.items, shown.share) == (entry, ("household.income",), "conditional")


# -- properties -----------------------------------------------------------------------------------------------------

ACTS = ("grant", "refuse", "tick", "escalate", "order", "dismiss", "agree", "draw", "release", "confirm", "report",
        "creep", "expire", "revoke", "terminate", "wait", "withdraw")  # fmt: skip
WHO = ("provider", "user", "supervisor", "anyone")


async def invariants(acts: list[tuple[str, str]]) -> None:
    world = World()
    await world.enact()
    request = await world.filed()
    drawn, per_window = "", {}
    for act, name in acts:
        who: Caller = getattr(world, name)
        if act == "wait":
            world.pass_time(timedelta(days=20))
            continue
        if act in ("draw", "creep"):
            drawn = await world.permit(request, "statistics" if act == "creep" else "credit-assessment")
        calls: Mapping[str, tuple[Any, ...]] = {
            "grant": (Exchange.grant, request, terms()), "order": (Exchange.order, request, terms(), "ruled"),
            "refuse": (Exchange.refuse, request, "no"), "revoke": (Exchange.revoke, request, "no"),
            "escalate": (Exchange.escalate, request, "why"), "dismiss": (Exchange.dismiss, request, "no"),
            "terminate": (Exchange.terminate, request, "abuse"), "draw": (Exchange.draw, request, drawn),
            "creep": (Exchange.draw, request, drawn), "release": (Sharing.deliver, drawn, PAYLOAD),
            "report": (Exchange.report, request, "credit-assessment", "ab" * 32),
        }  # fmt: skip
        operation, *arguments = calls.get(act) or (getattr(Exchange, act), request)
        before = await world.user.evaluate(Exchange.read, request)
        try:
            await who.submit(operation, *arguments)
        except Exception as error:
            if act == "release" and not drawn:
                continue
            assert getattr(error, "code", None), error
            continue
        found = await world.user.evaluate(Exchange.read, request)
        assert act != "creep"
        if act == "release":
            # An owner delivers its own data under the core's permit; the procedure counts what was drawn, and nothing else.
            assert found == before
            continue
        if act in ("grant", "refuse", "revoke"):
            assert name == "provider"
        if act in ("order", "dismiss", "terminate"):
            assert name == "supervisor"
        if act == "tick":
            assert world.harness.now >= before.due
        if act == "draw":
            assert before.state in ("agreed", "in-use")
            assert found.granted is not None
            key = (found.granted_at, found.window)
            per_window[key] = per_window.get(key, 0) + 100
            assert per_window[key] <= found.granted.rows_max
            assert world.harness.now < found.granted.until
        assert before.state not in ("terminated", "dismissed", "expired", "withdrawn")
        assert found.granted is None or set(found.granted.fields) <= set(found.asked.terms.fields)


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_tried_nothing_is_drawn_beyond_grant_law_and_quota() -> None:
    _explore(4)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_whatever_is_tried_nothing_is_drawn_beyond_many_times() -> None:
    _explore(300)


def _explore(examples: int) -> None:
    likely = st.sampled_from(
        [("grant", "provider"), ("agree", "user"), ("draw", "user"), ("release", "provider"), ("confirm", "user"),
         ("report", "user"), ("wait", "anyone"), ("tick", "anyone"), ("escalate", "user"), ("order", "supervisor")]
    )  # fmt: skip

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(st.one_of(likely, st.tuples(st.sampled_from(ACTS), st.sampled_from(WHO))), min_size=6, max_size=25))
    def explore(acts: list[tuple[str, str]]) -> None:
        asyncio.run(invariants(acts))

    explore()


# -- made of the tables ---------------------------------------------------------------------------------------------


def put_dataset(harness: ContractHarness, owner: str) -> None:
    columns = (Column(name="household", type="text"), Column(name="income", type="integer"))
    dataset = DataSet(id=DATASET, owner=owner, entry=publication(columns=columns), commitment="ab" * 32,
                      published_at=START, changed_at=START)  # fmt: skip
    place(harness, dataset, store.DATASET, DATASET)


def put_entry(harness: ContractHarness, state: str, provider: str) -> None:
    put_dataset(harness, provider)
    place(
        harness,
        CatalogueEntry(
            id=ENTRY, provider=provider, jurisdiction=CITY, statement=statement(DATASET), state=state,  # type: ignore[arg-type]
            stated_by="00" * 32, stated_at=START, supplied_at=START,
        ),
    )  # fmt: skip
    place(harness, Source(item="household.income", entry=ENTRY))


def put_request(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    fields = {"provider": "LogisticsMSP", "user": "FinanceMSP", **holders}
    put_entry(harness, "published", fields["provider"])
    stated = Asked(entry=ENTRY, purpose="statistics", duty=DUTY, brief=HASH, terms=terms())
    place(
        harness,
        ShareRequest(id=ID, asked=stated, state=state, filed_at=START, due=START, granted=terms(), granted_at=START,  # type: ignore[arg-type]
                     drawn="aa" * 32, **fields),
    )  # fmt: skip
    place(
        harness,
        Delivery(drawn="aa" * 32, request=ID, dataset=DATASET, number=1, rows=1, commitment="ab" * 32, drawn_at=START),
    )


def put_dispute(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    fields = {"provider": "LogisticsMSP", "raised_by": "FinanceMSP", **holders}
    put_entry(harness, "published", fields["provider"])
    place(harness, Dispute(id=ID, entry=ENTRY, about="listing", ground="wrong", state=state, raised_at=START, due=START,  # type: ignore[arg-type]
                           **fields))  # fmt: skip


def put_claim(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    fields = {"provider": "LogisticsMSP", "claimant": "FinanceMSP", **holders}
    put_entry(harness, "published", fields["provider"])
    place(harness, CorrectionClaim(id=ID, entry=ENTRY, brief=HASH, wrong="bb" * 32, state=state, claimed_at=START,  # type: ignore[arg-type]
                                   due=START, **fields))  # fmt: skip


def put_listing(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    put_entry(harness, state, holders.get("provider", "LogisticsMSP"))


async def refuse_case(harness: ContractHarness, machine: str, case: NegativeCase) -> None:
    sample, calls = TABLES[machine]
    await check(harness, case, sample, calls)


TABLES: Mapping[str, tuple[Any, Mapping[str, tuple[Any, ...]]]] = {
    "entry": (put_listing, {
        "amend": (Catalogue.amend, ENTRY, statement(DATASET)), "remit": (Catalogue.remit, ENTRY, "a remark"),
        "review": (Catalogue.review, ENTRY), "publish": (Catalogue.publish, ENTRY),
        "supply": (Catalogue.supply, ENTRY, DATASET), "suspend": (Catalogue.suspend, ENTRY, "a remark"),
        "resume": (Catalogue.resume, ENTRY), "retire": (Catalogue.retire, ENTRY, "a remark"),
    }),
    "request": (put_request, {
        "grant": (Exchange.grant, ID, terms()), "refuse": (Exchange.refuse, ID, "no"),
        "withdraw": (Exchange.withdraw, ID), "tick": (Exchange.tick, ID), "escalate": (Exchange.escalate, ID, "why"),
        "order": (Exchange.order, ID, terms(), "ruled"), "dismiss": (Exchange.dismiss, ID, "ruled"),
        "agree": (Exchange.agree, ID), "confirm": (Exchange.confirm, ID),
        "report": (Exchange.report, ID, "statistics", "ab" * 32), "expire": (Exchange.expire, ID),
        "revoke": (Exchange.revoke, ID, "no"), "terminate": (Exchange.terminate, ID, "abuse"),
    }),
    "dispute": (put_dispute, {
        "answer": (Catalogue.answer, ID, "no"), "tick": (Catalogue.tick, ID), "accept": (Catalogue.accept, ID),
        "uphold": (Catalogue.uphold, ID, "ruled"), "dismiss": (Catalogue.dismiss, ID, "ruled"),
    }),
    "claim": (put_claim, {
        "correct": (Corrections.correct, ID), "reject": (Corrections.reject, ID, "no"),
        "tick": (Corrections.tick, ID), "escalate": (Corrections.escalate, ID), "order": (Corrections.order, ID, "ruled"),
        "dismiss": (Corrections.dismiss, ID, "ruled"),
    }),
}  # fmt: skip
# Each first action makes a record of its own; `draw` reads a request of the core's first, and is tried above.
_OWN = ("propose", "relist", "file", "take", "draw", "dispute", "claim")
CASES = [
    (name, case)
    for name, machine in (
        ("entry", Catalogue.listing),
        ("request", Exchange.life),
        ("dispute", Catalogue.hearing),
        ("claim", Corrections.life),
    )
    for case in cases(machine, without=_OWN)
]
FEW = [one for one in CASES if len(one[1].caller.holds) + len(one[1].caller.attributes) <= 1][::4]


@pytest.fixture(scope="module")
def shared() -> ContractHarness:
    """Nothing that is refused changes it."""
    return World().harness


@pytest.mark.parametrize(("machine", "case"), FEW, ids=str)
async def test_what_the_tables_do_not_have_is_refused(
    shared: ContractHarness, machine: str, case: NegativeCase
) -> None:
    harness = World().harness if case.code == "E_NOT_FOUND" else shared
    await refuse_case(harness, machine, case)


@pytest.mark.long
async def test_all_that_the_tables_do_not_have_is_refused() -> None:
    for machine, case in CASES:
        await refuse_case(World().harness, machine, case)


def test_the_key_of_a_brief_is_its_hash() -> None:
    assert HASH in brief_key(HASH)
