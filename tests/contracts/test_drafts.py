"""Promissory notes and commercial drafts: one holder, an unbroken chain, the face paid once, and nobody claimed from wrongly."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import test_calendar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenario_cases import cases, channel, check, place

from sovchain.contracts import finance
from sovchain.contracts.core import Registry, store
from sovchain.contracts.core.calendar import Calendar, EnactedCalendar
from sovchain.contracts.finance.draft_rules import (
    ACCEPTANCE_DAYS,
    PRESENTATION_DAYS,
    STOP_TERM,
    Draft,
    Issue,
    Licence,
    debtors,
    discounted_fen,
    plus_months,
)
from sovchain.contracts.finance.drafts import Drafts
from sovchain.sovereign.drafts import standings
from sovchain.testing import ContractHarness, refused
from sovchain.testing.harness import START, Caller
from sovchain.testing.machines import NegativeCase

BANK = "FinanceMSP"
TERMS = bytes(range(32)) + b"marker: Qianhe Tea sells 4 t of tea to Nanming Foods"
HASH = hashlib.sha256(TERMS).hexdigest()
FACE = 5_000_000
MATURITY = timedelta(days=90)  # from START, a Friday, to a Thursday
ID = "da" * 32
INVOICE = "1f" * 32
PARTIES = ("tea", "foods", "mill", "farm", "discounter")


def party(name: str) -> str:
    return f"{BANK}/{name}"


def issue(**changes: Any) -> Issue:
    stated = {"kind": "draft", "face_fen": FACE, "acceptor": party("foods"), "payee": party("tea"),
              "matures_at": START + MATURITY, "terms": HASH}  # fmt: skip
    return Issue.model_validate(stated | changes)


def plain_year(year: int) -> Calendar:
    return Calendar(jurisdiction="CN", year=year, source="a plain year", holidays=())


class World:
    """A finance channel with parties; every one's bank has been told the terms unless said otherwise."""

    def __init__(self) -> None:
        self.harness = channel(finance.chaincode, "Government", "Finance", "Supervisor")
        for calendar in (test_calendar.CN_2026, *map(plain_year, (2027, 2028, 2029))):
            enacted = EnactedCalendar(calendar=calendar, ballot="0" * 64, enacted_at=START)
            place(self.harness, enacted, store.CALENDAR, "CN", str(calendar.year))
        self.supervisor = self.harness.caller("Supervisor", attributes={"role": "supervisor"})

    def one(self, name: str, organization: str = "Finance") -> Caller:
        return self.harness.caller(organization, name, attributes={"party": name})

    async def issued(self, told: bool = True, drawer: str = "tea", **changes: Any) -> str:
        draft = (await self.one(drawer).submit(Drafts.issue, issue(**changes))).result
        if told:
            await self.one("tea").submit(Drafts.tell, draft.id, BANK, TERMS)
        return draft.id

    async def held(self, **changes: Any) -> str:
        draft = await self.issued(**changes)
        await self.one("foods").submit(Drafts.accept, draft)
        return draft

    async def endorsed(self, draft: str, giver: str, taker: str) -> Draft:
        await self.one(giver).submit(Drafts.offer, draft, party(taker), "transfer")
        return (await self.one(taker).submit(Drafts.sign, draft)).result

    def pass_time(self, time: timedelta) -> None:
        self.harness.now += time

    async def dishonoured(self, *chain: str) -> str:
        draft = await self.held()
        for giver, taker in itertools.pairwise(chain):
            await self.endorsed(draft, giver, taker)
        self.pass_time(MATURITY)
        await self.one(chain[-1]).submit(Drafts.present, draft)
        await self.one("foods").submit(Drafts.dishonour, draft, "no cover")
        return draft


@pytest.fixture
def world() -> World:
    return World()


async def test_a_draft_goes_by_an_unbroken_chain_and_is_paid_exactly_once(world: World) -> None:
    draft = await world.held()
    await world.endorsed(draft, "tea", "mill")
    found = await world.endorsed(draft, "mill", "farm")
    assert [(link.giver, link.taker) for link in found.endorsements] == [
        (party("tea"), party("mill")),
        (party("mill"), party("farm")),
    ]
    with refused("E_ACCESS"):
        await world.one("tea").submit(Drafts.offer, draft, party("mill"), "transfer")
    with refused("E_MATURITY"):
        await world.one("farm").submit(Drafts.present, draft)
    world.pass_time(MATURITY)
    await world.one("farm").submit(Drafts.present, draft)
    paid = (await world.one("foods").submit(Drafts.pay, draft, "TX-1")).result
    assert (paid.state, paid.paid_fen) == ("paid", FACE)
    with refused("E_STATE", "paid"):
        await world.one("foods").submit(Drafts.pay, draft, "TX-2")


async def test_one_endorser_beside_the_holders_bank_is_not_enough(world: World) -> None:
    """The key takes the regulator's peer and that of the holder's bank."""
    draft = await world.held()
    alone = world.harness.caller("Finance", "tea", attributes={"party": "tea"}, endorsers=["Finance", "Government"])
    with pytest.raises(Exception, match="ENDORSEMENT_POLICY_FAILURE"):
        await alone.submit(Drafts.offer, draft, party("mill"), "transfer")
    both = world.harness.caller(
        "Finance", "tea", attributes={"party": "tea"}, endorsers=["Finance", "Government", "Supervisor"]
    )
    await both.submit(Drafts.offer, draft, party("mill"), "transfer")


async def test_a_party_of_another_bank_with_the_same_code_is_somebody_else(world: World) -> None:
    draft = await world.held()
    with refused("E_ACCESS"):
        await world.one("tea", "Government").submit(Drafts.offer, draft, party("mill"), "transfer")


async def test_two_transfers_in_one_block_leave_one_holder(world: World) -> None:
    draft = await world.held()
    first = await world.one("tea").endorse(Drafts.offer, draft, party("mill"), "transfer")
    second = await world.one("tea").endorse(Drafts.offer, draft, party("farm"), "pledge")
    codes = [getattr(done, "code_name", "VALID") for done in world.harness.commit([first, second])]
    assert codes == ["VALID", "MVCC_READ_CONFLICT"]


async def test_acceptance_is_given_within_three_days_or_lapses(world: World) -> None:
    draft = await world.issued()
    with refused("E_TIME"):
        await world.one("farm").submit(Drafts.lapse, draft)
    world.pass_time(timedelta(days=ACCEPTANCE_DAYS + 1))
    with refused("E_TIME"):
        await world.one("foods").submit(Drafts.accept, draft)
    await world.one("farm").submit(Drafts.lapse, draft)
    with refused("E_LIABLE"):  # the acceptor never bound itself; the payee is the drawer here
        await world.one("tea").submit(Drafts.claim, draft, party("foods"))


async def test_nobody_signs_terms_that_his_bank_was_not_told(world: World) -> None:
    draft = await world.issued(told=False)
    with refused("E_NOT_TOLD"):
        await world.one("foods").submit(Drafts.accept, draft)
    with refused("E_COMMITMENT"):
        await world.one("tea").submit(Drafts.tell, draft, BANK, TERMS + b"!")
    with refused("E_PARTY"):
        await world.supervisor.submit(Drafts.tell, draft, "SupervisorMSP", TERMS)


async def test_what_matured_or_is_not_transferable_is_not_endorsed(world: World) -> None:
    draft = await world.held()
    bound = await world.held(transferable=False)
    with refused("E_NOT_TRANSFERABLE"):
        await world.one("tea").submit(Drafts.offer, bound, party("mill"), "transfer")
    await world.one("tea").submit(Drafts.offer, draft, party("mill"), "transfer")
    world.pass_time(MATURITY)
    with refused("E_MATURITY"):
        await world.one("mill").submit(Drafts.sign, draft)
    await world.one("tea").submit(Drafts.withdraw, draft)
    with refused("E_MATURITY"):
        await world.one("tea").submit(Drafts.offer, draft, party("mill"), "transfer")


async def test_an_endorsement_is_not_in_blank_and_not_to_oneself(world: World) -> None:
    draft = await world.held()
    with refused("E_INPUT"):
        await world.one("tea").submit(Drafts.offer, draft, party("tea"), "transfer")
    with pytest.raises(Exception, match="to"):
        await world.one("tea").submit(Drafts.offer, draft, "", "transfer")


async def test_a_discount_takes_a_licensed_bank_and_an_invoice_that_was_not_financed(world: World) -> None:
    first, second = await world.held(), await world.held()
    with refused("E_INPUT"):
        await world.one("tea").submit(Drafts.offer, first, party("discounter"), "discount", FACE + 1)
    for draft in (first, second):
        await world.one("tea").submit(Drafts.offer, draft, party("discounter"), "discount", FACE - 100)
    with refused("E_LICENCE"):
        await world.one("discounter").submit(Drafts.sign, first, INVOICE)
    with refused("E_ACCESS"):
        await world.one("discounter").submit(Drafts.license, party("discounter"))
    forged = world.harness.caller("Finance", "clerk", attributes={"role": "supervisor"})
    with refused("E_ROLE"):  # its own CA wrote that into the certificate; no ballot allowed it
        await forged.submit(Drafts.license, party("discounter"))
    await world.supervisor.submit(Drafts.license, party("discounter"))
    with refused("E_INPUT"):
        await world.one("discounter").submit(Drafts.sign, first)
    await world.one("discounter").submit(Drafts.sign, first, INVOICE)
    with refused("E_INVOICE"):
        await world.one("discounter").submit(Drafts.sign, second, INVOICE)


async def test_a_pledged_or_locked_draft_does_not_move(world: World) -> None:
    draft = await world.held()
    await world.one("tea").submit(Drafts.offer, draft, party("mill"), "pledge")
    pledged = (await world.one("mill").submit(Drafts.sign, draft)).result
    assert (pledged.holder, pledged.pledgee) == (party("tea"), party("mill"))
    with refused("E_STATE", "pledged"):
        await world.one("tea").submit(Drafts.offer, draft, party("farm"), "transfer")
    with refused("E_ACCESS"):
        await world.one("tea").submit(Drafts.free, draft)
    await world.one("mill").submit(Drafts.free, draft)
    await world.supervisor.submit(Drafts.lock, draft, "court order 17, reported lost")
    with refused("E_STATE", "locked"):
        await world.one("tea").submit(Drafts.offer, draft, party("farm"), "transfer")
    await world.supervisor.submit(Drafts.unlock, draft, "court order 18")


async def test_a_pledgee_is_paid_at_maturity(world: World) -> None:
    draft = await world.held()
    await world.one("tea").submit(Drafts.offer, draft, party("mill"), "pledge")
    await world.one("mill").submit(Drafts.sign, draft)
    world.pass_time(MATURITY)
    with refused("E_ACCESS"):
        await world.one("tea").submit(Drafts.present, draft)
    presented = (await world.one("mill").submit(Drafts.present, draft)).result
    assert presented.holder == party("mill")


async def test_a_claim_goes_back_along_the_chain_and_never_forward(world: World) -> None:
    draft = await world.dishonoured("tea", "mill", "farm")
    for stranger in ("discounter", "farm"):
        with refused("E_LIABLE"):
            await world.one("farm").submit(Drafts.claim, draft, party(stranger))
    await world.one("farm").submit(Drafts.claim, draft, party("mill"))
    with refused("E_ACCESS"):
        await world.one("tea").submit(Drafts.settle, draft, "TX-1")
    settled = (await world.one("mill").submit(Drafts.settle, draft, "TX-1")).result
    assert (settled.state, settled.holder, settled.paid_fen) == ("dishonoured", party("mill"), 0)
    with refused("E_LIABLE"):  # the one who was paid answers to nobody behind
        await world.one("mill").submit(Drafts.claim, draft, party("farm"))
    await world.one("mill").submit(Drafts.claim, draft, party("tea"))
    ended = (await world.one("tea").submit(Drafts.settle, draft, "TX-2")).result
    assert (ended.state, ended.paid_fen) == ("discharged", FACE)


async def test_whoever_presents_late_has_drawer_and_acceptor_only(world: World) -> None:
    draft = await world.held()
    await world.endorsed(draft, "tea", "mill")
    await world.endorsed(draft, "mill", "farm")
    world.pass_time(MATURITY + timedelta(days=PRESENTATION_DAYS + 2))
    await world.one("farm").submit(Drafts.present, draft)
    world.pass_time(timedelta(days=1))
    await world.one("discounter").submit(Drafts.lapse, draft)
    found = await world.one("farm").evaluate(Drafts.read, draft)
    assert debtors(found) == {party("tea"), party("foods")}


async def test_a_draft_that_comes_back_to_its_drawer_leaves_the_acceptor_only(world: World) -> None:
    draft = await world.dishonoured("tea", "mill", "tea")
    assert debtors(await world.one("tea").evaluate(Drafts.read, draft)) == {party("foods")}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"matures_at": START}, "E_TERM"),
        ({"matures_at": START + timedelta(days=200)}, "E_TERM"),
        ({"acceptor": party("tea")}, "E_INPUT"),
        ({"kind": "note"}, "E_INPUT"),
        ({"kind": "note", "acceptor": party("tea")}, "E_TERM"),
        ({"kind": "note", "acceptor": party("tea"), "matures_at": START + timedelta(days=60)}, "E_LICENCE"),
    ],
)
async def test_what_the_law_does_not_know_is_not_issued(world: World, changes: dict[str, Any], code: str) -> None:
    with refused(code):
        await world.issued(**changes)


async def test_a_holiday_is_no_day_of_payment(world: World) -> None:
    """Matured on the first day of the Labour Day holidays, 1 to 5 May: paid on the sixth, at the same time."""
    draft = await world.held(matures_at=START + timedelta(days=119))
    for days in range(5):
        world.harness.now = START + timedelta(days=119 + days)
        with refused("E_MATURITY", "it is 2026-05-06T08:00"):
            await world.one("tea").submit(Drafts.present, draft)
    world.harness.now = START + timedelta(days=124)
    await world.one("tea").submit(Drafts.present, draft)


async def test_a_year_without_calendar_refuses_what_rests_on_it(world: World) -> None:
    world.harness.now = START.replace(year=2029, month=12, day=30)
    with refused("E_CALENDAR", "2030"):
        await world.issued(matures_at=world.harness.now + timedelta(days=30))


# -- parts, guarantees, loss, limitation -----------------------------------------------------------------------------


async def test_parts_are_disjoint_and_add_up_and_each_has_one_holder(world: World) -> None:
    draft = await world.held()
    await world.endorsed(draft, "tea", "mill")
    with refused("E_ACCESS"):
        await world.one("tea").submit(Drafts.split, draft, 1)
    for fen in (0, FACE, -1):
        with refused("E_INPUT"):
            await world.one("mill").submit(Drafts.split, draft, fen)
    first, rest = (await world.one("mill").submit(Drafts.split, draft, 2_000_000)).result
    assert ((first.first, first.last), (rest.first, rest.last)) == ((1, 2_000_000), (2_000_001, FACE))
    with refused("E_STATE", "split"):
        await world.one("mill").submit(Drafts.offer, draft, party("farm"), "transfer")
    await world.endorsed(first.id, "mill", "farm")
    second, third = (await world.one("mill").submit(Drafts.split, rest.id, 1)).result
    assert (second.amount_fen, third.first, third.last) == (1, 2_000_002, FACE)
    world.pass_time(MATURITY)
    for part, holder in ((first, "farm"), (second, "mill"), (third, "mill")):
        await world.one(holder).submit(Drafts.present, part.id)
        paid = (await world.one("foods").submit(Drafts.pay, part.id, "TX")).result
        assert paid.paid_fen == part.amount_fen
    assert first.amount_fen + second.amount_fen + third.amount_fen == FACE


async def test_a_part_is_endorsed_by_regulator_and_holders_bank_like_the_whole(world: World) -> None:
    first, _ = (await world.one("tea").submit(Drafts.split, await world.held(), 100)).result
    alone = world.harness.caller("Finance", "tea", attributes={"party": "tea"}, endorsers=["Finance", "Government"])
    with pytest.raises(Exception, match="ENDORSEMENT_POLICY_FAILURE"):
        await alone.submit(Drafts.offer, first.id, party("mill"), "transfer")


async def test_recourse_on_a_part_is_for_the_part(world: World) -> None:
    draft = await world.held()
    await world.endorsed(draft, "tea", "mill")
    first, _ = (await world.one("mill").submit(Drafts.split, draft, 700)).result
    await world.endorsed(first.id, "mill", "farm")
    world.pass_time(MATURITY)
    await world.one("farm").submit(Drafts.present, first.id)
    await world.one("foods").submit(Drafts.dishonour, first.id, "no cover")
    await world.one("farm").submit(Drafts.claim, first.id, party("tea"))
    ended = (await world.one("tea").submit(Drafts.settle, first.id, "TX")).result
    assert (ended.state, ended.paid_fen) == ("discharged", 700)


async def test_a_guarantor_answers_like_whom_he_guarantees_and_claims_from_him(world: World) -> None:
    draft = await world.held()
    await world.endorsed(draft, "tea", "mill")
    await world.endorsed(draft, "mill", "farm")
    with refused("E_LIABLE"):
        await world.one("surety").submit(Drafts.guarantee, draft, party("farm"))  # the holder answers for nothing
    with refused("E_LIABLE"):
        await world.one("tea").submit(Drafts.guarantee, draft, party("mill"))  # liable already
    await world.one("surety").submit(Drafts.guarantee, draft, party("mill"))
    world.pass_time(MATURITY)
    await world.one("farm").submit(Drafts.present, draft)
    await world.one("foods").submit(Drafts.dishonour, draft, "no cover")
    await world.one("farm").submit(Drafts.claim, draft, party("surety"))
    settled = (await world.one("surety").submit(Drafts.settle, draft, "TX-1")).result
    assert settled.holder == party("surety")
    assert debtors(settled) == {party("mill"), party("tea"), party("foods")}
    await world.one("surety").submit(Drafts.claim, draft, party("mill"))
    await world.one("mill").submit(Drafts.settle, draft, "TX-2")
    found = await world.one("mill").evaluate(Drafts.read, draft)
    assert debtors(found) == {party("tea"), party("foods")}


async def test_a_discount_at_a_rate_pays_the_amount_less_interest_to_the_day_of_payment(world: World) -> None:
    draft = await world.held()
    await world.supervisor.submit(Drafts.license, party("discounter"))
    for price, rate in ((None, None), (100, 100), (None, 10_000), (None, -1)):
        with refused("E_INPUT"):
            await world.one("tea").submit(Drafts.offer, draft, party("discounter"), "discount", price, rate)
    await world.one("tea").submit(Drafts.offer, draft, party("discounter"), "discount", None, 360)
    signed = (await world.one("discounter").submit(Drafts.sign, draft, INVOICE)).result
    assert signed.endorsements[-1].price_fen == FACE - FACE * 36 * 90 // 360 // 1000  # 3.6 % a year for 90 days
    assert signed.endorsements[-1].price_fen == discounted_fen(FACE, 360, START, START + MATURITY)


async def test_notices_go_back_along_the_chain_and_late_ones_say_so(world: World) -> None:
    draft = await world.dishonoured("tea", "mill", "farm")
    with refused("E_LIABLE"):  # mill was not told yet
        await world.one("mill").submit(Drafts.notify, draft, party("tea"))
    await world.one("farm").submit(Drafts.notify, draft, party("mill"))
    with refused("E_LIABLE"):
        await world.one("farm").submit(Drafts.notify, draft, party("mill"))
    world.pass_time(timedelta(days=30))
    told = (await world.one("mill").submit(Drafts.notify, draft, party("tea"))).result
    assert [(one.by, one.to, one.late) for one in told.notices] == [
        (party("farm"), party("mill"), False),
        (party("mill"), party("tea"), True),
    ]


async def test_claims_end_after_six_months_three_months_and_two_years(world: World) -> None:
    draft = await world.dishonoured("tea", "mill", "yard", "farm")
    refused_at = world.harness.now
    await world.one("farm").submit(Drafts.claim, draft, party("yard"))
    await world.one("yard").submit(Drafts.settle, draft, "TX-1")
    world.harness.now = plus_months(world.harness.now, 3)
    with refused("E_LIMITATION"):  # the recourse that follows a recourse
        await world.one("yard").submit(Drafts.claim, draft, party("mill"))
    with refused("E_TIME"):
        await world.one("mill").submit(Drafts.expire, draft)
    world.harness.now = plus_months(START + MATURITY, 24)
    for debtor in ("foods", "tea"):
        with refused("E_LIMITATION"):
            await world.one("yard").submit(Drafts.claim, draft, party(debtor))
    assert (await world.one("mill").submit(Drafts.expire, draft)).result.state == "barred"
    assert refused_at < world.harness.now


async def test_the_first_recourse_ends_after_six_months(world: World) -> None:
    draft = await world.dishonoured("tea", "mill", "farm")
    world.harness.now = plus_months(world.harness.now, 6)
    with refused("E_LIMITATION"):
        await world.one("farm").submit(Drafts.claim, draft, party("mill"))
    await world.one("farm").submit(Drafts.claim, draft, party("tea"))  # the drawer answers for two years


async def test_everybody_sees_who_pays_what_he_accepted(world: World) -> None:
    first = await world.held(matures_at=START + timedelta(days=5))
    parts = []
    for fen in (4_000_000, 500_000, 250_000):
        part, rest = (await world.one("tea").submit(Drafts.split, first, fen)).result
        parts.append(part.id)
        first = rest.id
    world.pass_time(timedelta(days=6))
    for number, part in enumerate([*parts, first]):
        await world.one("tea").submit(Drafts.present, part)
        if number == 0:
            await world.one("foods").submit(Drafts.pay, part, "TX")
        else:
            await world.one("foods").submit(Drafts.dishonour, part, "no cover")
    drafts = (await world.supervisor.evaluate(Drafts.listing)).items
    (line,) = standings(drafts, world.harness.now)
    assert (line.acceptor, line.paid_fen, line.refused_fen) == (party("foods"), 4_000_000, 1_000_000)
    assert (line.discharged_percent, line.chronic) == (80, True)
    (later,) = standings(drafts, plus_months(world.harness.now, 6))
    assert not later.chronic


def test_months_end_with_the_month() -> None:
    assert plus_months(datetime(2026, 8, 31, 4, tzinfo=UTC), 6) == datetime(2027, 2, 28, 4, tzinfo=UTC)
    assert plus_months(datetime(2026, 12, 15, 4, tzinfo=UTC), 24) == datetime(2028, 12, 15, 4, tzinfo=UTC)
    assert plus_months(datetime(2026, 11, 30, 4, tzinfo=UTC), 3) == datetime(2027, 2, 28, 4, tzinfo=UTC)


async def test_what_was_reported_lost_is_not_paid_until_a_court_or_time_decides(world: World) -> None:
    draft = await world.held(matures_at=START + timedelta(days=3))
    with refused("E_ACCESS"):
        await world.one("mill").submit(Drafts.stop, draft, "lost")
    await world.one("tea").submit(Drafts.stop, draft, "stolen from the office")
    world.pass_time(timedelta(days=4))
    with refused("E_STATE", "stopped"):
        await world.one("tea").submit(Drafts.present, draft)
    with refused("E_TIME"):
        await world.one("foods").submit(Drafts.lapse, draft)
    world.pass_time(STOP_TERM)
    assert (await world.one("foods").submit(Drafts.lapse, draft)).result.state == "held"
    await world.one("tea").submit(Drafts.stop, draft, "stolen again")
    await world.supervisor.submit(Drafts.lock, draft, "court order 19")
    with refused("E_STATE", "locked"):
        await world.one("tea").submit(Drafts.resume, draft)


async def test_a_suspended_officer_signs_nothing(world: World) -> None:
    draft = await world.held()
    await world.one("tea").submit(Drafts.offer, draft, party("mill"), "transfer")
    mill = world.one("mill")
    identity = (await mill.evaluate(Registry.whoami)).identity
    admin = world.harness.caller("Finance", "Admin", unit="admin")
    await admin.submit(Registry.suspend_identity, BANK, identity, "left the company")
    with refused("E_SUSPENDED"):
        await mill.submit(Drafts.sign, draft)


async def test_terms_are_with_the_bank_that_was_told_and_nowhere_else(world: World) -> None:
    draft = await world.held()
    await world.endorsed(draft, "tea", "mill")
    public = [value for key, (value, _, _) in world.harness.state.public["contract"].entries.items()]
    public += [event.payload for event in world.harness.events]
    assert not any(b"marker" in part for part in public)
    held = {name: world.harness.held(name, f"_implicit_org_{BANK}") for name in ("Finance", "Government", "Supervisor")}
    assert {name for name, values in held.items() if any(b"marker" in value for value in values.values())} == {
        "Finance"
    }


ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "offer",
                "pledge",
                "sign",
                "withdraw",
                "decline",
                "free",
                "present",
                "pay",
                "dishonour",
                "claim",
                "settle",
                "guarantee",
                "notify",
                "stop",
                "resume",
                "wait",
            ]
        ),
        st.sampled_from(PARTIES),
        st.sampled_from(PARTIES),
    ),
    min_size=5,
    max_size=25,
)


async def invariants(acts: list[tuple[str, str, str]]) -> None:
    world = World()
    draft = await world.held()
    payments, before = 0, (await world.one("tea").evaluate(Drafts.read, draft))
    for act, who, other in acts:
        me = world.one(who)
        calls: dict[str, tuple[Any, ...]] = {
            "offer": (Drafts.offer, party(other), "transfer"), "pledge": (Drafts.offer, party(other), "pledge"),
            "sign": (Drafts.sign,), "withdraw": (Drafts.withdraw,), "decline": (Drafts.decline,), "free": (Drafts.free,),
            "present": (Drafts.present,), "pay": (Drafts.pay, "TX"), "dishonour": (Drafts.dishonour, "no cover"),
            "claim": (Drafts.claim, party(other)), "settle": (Drafts.settle, "TX"), "notify": (Drafts.notify, party(other)),
            "guarantee": (Drafts.guarantee, party(other)), "stop": (Drafts.stop, "lost"), "resume": (Drafts.resume,),
        }  # fmt: skip
        if act == "wait":
            world.pass_time(MATURITY)
            continue
        operation, *arguments = calls[act]
        try:
            await me.submit(operation, draft, *arguments)
        except Exception as error:
            assert getattr(error, "code", None), error
            continue
        found = await me.evaluate(Drafts.read, draft)
        payments += found.paid_fen - before.paid_fen
        chain = found.endorsements
        assert all(one.taker == two.giver for one, two in itertools.pairwise(chain))
        assert all(link.taker and link.at < found.issue.matures_at for link in chain)
        assert not chain or chain[0].giver == found.issue.payee
        assert payments == found.paid_fen <= FACE
        assert before.state not in ("paid", "discharged", "void")
        assert found.reach <= len(chain)
        assert found.holder not in debtors(found)
        before = found


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_tried_the_chain_holds_and_the_face_is_paid_once_at_most() -> None:
    _explore(6)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_whatever_is_tried_the_chain_holds_many_times() -> None:
    _explore(600)


def _explore(examples: int) -> None:
    import asyncio

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(ACTS)
    def explore(acts: list[tuple[str, str, str]]) -> None:
        asyncio.run(invariants(acts))

    explore()


async def parts_invariants(acts: list[tuple[int, int, str]]) -> None:
    """Parts of one draft that are cut and passed on at will: a model of ranges and holders agrees."""
    world = World()
    model = {await world.held(): (1, FACE, "tea")}
    for chosen, cut, taker in acts:
        draft = sorted(model)[chosen % len(model)]
        low, high, holder = model[draft]
        fen = cut * (high - low + 1) // 100
        if cut and 0 < fen < high - low + 1:
            first, rest = (await world.one(holder).submit(Drafts.split, draft, fen)).result
            del model[draft]
            model |= {first.id: (low, low + fen - 1, holder), rest.id: (low + fen, high, holder)}
        elif taker != holder:
            await world.endorsed(draft, holder, taker)
            model[draft] = (low, high, taker)
    drafts = {one.id: one for one in (await world.supervisor.evaluate(Drafts.listing)).items}
    live = {name: one for name, one in drafts.items() if one.state != "split"}
    assert {name: (one.first or 1, one.last or FACE, one.holder) for name, one in live.items()} == {
        name: (low, high, party(holder)) for name, (low, high, holder) in model.items()
    }
    ranges = sorted((one.first or 1, one.last or FACE) for one in live.values())
    assert [low for low, _ in ranges] == [1, *(high + 1 for _, high in ranges[:-1])]
    assert sum(one.amount_fen for one in live.values()) == FACE
    assert all(one.endorsements[-1].taker == one.holder for one in live.values() if one.endorsements)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("examples", [4, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_whatever_is_cut_and_passed_on_the_parts_cover_the_face_once(examples: int) -> None:
    import asyncio

    acts = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 99), st.sampled_from(PARTIES)), max_size=12)

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(acts)
    def explore(acts: list[tuple[int, int, str]]) -> None:
        asyncio.run(parts_invariants(acts))

    explore()


# -- made of the table ----------------------------------------------------------------------------------------------


def sample(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    others = {name: party("other") for name in ("drawer", "acceptor", "holder", "offered_to", "pledgee", "debtor")}
    fields: dict[str, Any] = {**others, **holders}
    stated = issue(acceptor=fields["acceptor"], matures_at=START + timedelta(days=1))
    settling = {} if state == "claimed" else {"debtor": fields["debtor"]}
    draft = Draft(
        id=ID,
        issue=stated,
        state=state,
        issued_at=START,
        presented_at=START,
        stopped_at=START,
        refused_at=START,
        **fields | settling,
    )  # type: ignore[arg-type]
    place(harness, draft)
    place(harness, Licence(party=fields["holder"], granted_at=START))


CALLS: Mapping[str, tuple[Any, ...]] = {
    "issue": (Drafts.issue, issue(acceptor="StrangerMSP/x")),
    "accept": (Drafts.accept, ID),
    "refuse": (Drafts.refuse, ID, "no"),
    "lapse": (Drafts.lapse, ID),
    "void": (Drafts.void, ID),
    "offer": (Drafts.offer, ID, party("mill"), "transfer"),
    "withdraw": (Drafts.withdraw, ID),
    "decline": (Drafts.decline, ID),
    "sign": (Drafts.sign, ID),
    "free": (Drafts.free, ID),
    "lock": (Drafts.lock, ID, "order 1"),
    "unlock": (Drafts.unlock, ID, "order 2"),
    "present": (Drafts.present, ID),
    "pay": (Drafts.pay, ID, "TX"),
    "dishonour": (Drafts.dishonour, ID, "no cover"),
    "claim": (Drafts.claim, ID, party("other")),
    "settle": (Drafts.settle, ID, "TX"),
    "split": (Drafts.split, ID, 1),
    "guarantee": (Drafts.guarantee, ID, party("other")),
    "stop": (Drafts.stop, ID, "lost"),
    "resume": (Drafts.resume, ID),
    "notify": (Drafts.notify, ID, party("other")),
    "expire": (Drafts.expire, ID),
}
# `sign` also takes a pledge, `settle` also discharges and `split` cuts: the draft decides which. An issue makes a draft of its own.
CASES = [
    case
    for case in cases(Drafts.life, without=("take", "discharge", "cut"))
    if not (case.action == "issue" and case.state is not None)
]
FEW = [case for case in CASES if len(case.caller.holds) + len(case.caller.attributes) <= 2][::3]


@pytest.fixture(scope="module")
def shared() -> ContractHarness:
    """Nothing that is refused changes it."""
    return World().harness


@pytest.mark.parametrize("case", FEW, ids=str)
async def test_what_the_table_does_not_have_is_refused(shared: ContractHarness, case: NegativeCase) -> None:
    await _refused(shared, case)


@pytest.mark.long
async def test_all_that_the_table_does_not_have_is_refused() -> None:
    for case in CASES:
        await _refused(World().harness, case)


async def _refused(harness: ContractHarness, case: NegativeCase) -> None:
    if case.state is None and case.code == "E_NOT_FOUND":
        harness = World().harness
    await check(harness, case, sample, CALLS)
