"""Precise poverty relief: each step by another person, publicity and objections heard, the approval paid exactly once."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any, get_args

import pytest
from memory_ledger import MemoryLedger, creator
from refusals import refused
from views import Crossings

from sovchain.chaincode import ContractError
from sovchain.chaincode.access import Attribute
from sovchain.contracts.core import Crossing
from sovchain.contracts.finance import chaincode as finance
from sovchain.contracts.finance.payouts import Payouts
from sovchain.contracts.government import chaincode as government
from sovchain.contracts.government.relief import Office, Programme, Relief, State

HOUSEHOLD = "ab" * 32
PAYEE = bytes(range(32)) + b"marker-6217-0000-1234"
PAYEE_HASH = hashlib.sha256(PAYEE).hexdigest()
PUBLICITY = timedelta(days=7)


def office(name: str, user: str = "") -> bytes:
    return creator("Government", office=name, user=user or name)


OFFICES = {name: office(name) for name in get_args(Office)}


def programme(**changes: Any) -> Programme:
    stated = {
        "id": "relief-2026",
        "title": "Relief of the Nanming district",
        "authority": "GovernmentMSP",
        "bank": "FinanceMSP",
        "budget_fen": 1_000_000,
        "grant_fen": 285_500,
        "publicity_s": 7 * 86_400,
    }
    return Programme.model_validate(stated | changes)


class World(Crossings):
    def __init__(self) -> None:
        super().__init__(MemoryLedger(government, "government"), MemoryLedger(finance, "finance"))

    async def submit(self, who: bytes | str, operation: Any, *args: Any) -> Any:
        return await self.source.submit(who, operation, *args)

    async def case_in(self, state: State, household: str = HOUSEHOLD) -> str:
        """A case that has come to a state the shortest way."""
        case = (await self.submit(OFFICES["clerk"], Relief.apply, "relief-2026", household, "Shuitang", PAYEE_HASH)).id
        for reached, who, operation, args in (
            ("reviewed", "village", Relief.review, (31, 4, 60)),
            ("publicity-1", "notice", Relief.publish, ()),
            ("audited", "township", Relief.audit, ("in order",)),
            ("publicity-2", "notice", Relief.publish, ()),
            ("approved", "county", Relief.approve, ()),
        ):
            if (await self.source.evaluate("Government", Relief.case, case)).state == state:
                return str(case)
            if reached in ("audited", "approved"):
                self.pass_time(PUBLICITY)
            await self.submit(OFFICES[who], operation, case, *args)
        if state in ("sent", "ordered"):
            challenge = await self.sent_to_finance(case)
            if state == "ordered":
                await self.destination.submit("Finance", Crossing.accept, challenge, await self.sent(challenge))
                await self.submit("Government", Crossing.finalise, challenge, await self.asked(challenge))
        elif state == "rejected":
            raise AssertionError("rejected is no state on the way")
        return str(case)

    def pass_time(self, time: timedelta) -> None:
        for ledger in (self.source, self.destination):
            ledger.now += time

    async def sent_to_finance(self, case: str) -> str:
        challenge = await self.ask("Finance", "relief-approval", case, "poverty-relief")
        await self.submit(office("county", "another"), Crossing.send, "finance", await self.asked(challenge))
        return challenge

    async def ordered(self) -> str:
        case = await self.case_in("approved")
        challenge = await self.sent_to_finance(case)
        await self.destination.submit("Finance", Crossing.accept, challenge, await self.sent(challenge))
        return case


@pytest.fixture
async def world() -> World:
    world = World()
    await world.pin()
    await world.submit("Government/admin", Relief.open_programme, programme())
    return world


STEPS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "review": (Relief.review, (31, 4, 60)),
    "publish": (Relief.publish, ()),
    "audit": (Relief.audit, ("in order",)),
    "approve": (Relief.approve, ()),
    "reject": (Relief.reject, ("not entitled",)),
}


@pytest.mark.parametrize(("state", "step"), [pair for pair in Relief.life.table if pair[1] in STEPS])
async def test_a_step_is_its_offices_and_no_others(world: World, state: State, step: str) -> None:
    case = await world.case_in(state)
    world.pass_time(PUBLICITY)
    row = Relief.life.table[state, step]
    (due,) = row.requires.values if isinstance(row.requires, Attribute) else ()
    operation, args = STEPS[step]
    for name in OFFICES.keys() - {due}:
        with refused("E_OFFICE"):
            await world.submit(office(name, "somebody else"), operation, case, *args)
    for outsider in ("Supervisor", "Finance"):
        with refused("E_AUTHORITY"):
            await world.submit(creator(outsider, office=due), operation, case, *args)
    assert (await world.submit(OFFICES[due], operation, case, *args)).state == row.state


async def test_each_level_is_another_person(world: World) -> None:
    """One person with two offices, by two certificates of one name, does not sign twice."""
    both = office("village", "clerk")
    case = (await world.submit(OFFICES["clerk"], Relief.apply, "relief-2026", HOUSEHOLD, "Shuitang", PAYEE_HASH)).id
    with refused("E_SIGNER"):
        await world.submit(both, Relief.review, case, 31, 4, 60)


@pytest.mark.parametrize("votes", [(0, 0, 60), (31, 30, 60), (-1, 0, 60), (4, 31, 60), (5, 5, 60)])
async def test_a_count_that_cannot_be_or_does_not_carry_is_refused(world: World, votes: tuple[int, int, int]) -> None:
    case = await world.case_in("applied")
    with refused("E_VOTES"):
        await world.submit(OFFICES["village"], Relief.review, case, *votes)


@pytest.mark.parametrize(
    ("state", "step", "who"), [("publicity-1", Relief.audit, "township"), ("publicity-2", Relief.approve, "county")]
)
async def test_a_publicity_lasts_to_its_end(world: World, state: State, step: Any, who: str) -> None:
    case = await world.case_in(state)
    args = ("in order",) if step is Relief.audit else ()
    world.pass_time(PUBLICITY - timedelta(seconds=5))
    with refused("E_PUBLICITY"):
        await world.submit(OFFICES[who], step, case, *args)
    world.pass_time(timedelta(seconds=5))
    await world.submit(OFFICES[who], step, case, *args)


async def test_an_objection_stops_the_case_until_it_is_resolved(world: World) -> None:
    case = await world.case_in("publicity-1")
    raised = await world.submit("Supervisor", Relief.object, case, "owns a car")
    world.pass_time(PUBLICITY)
    with refused("E_OBJECTION", "open"):
        await world.submit(OFFICES["township"], Relief.audit, case, "in order")
    with refused("E_OFFICE"):
        await world.submit(office("county", "x"), Relief.resolve, case, raised.id, "dismissed", "sold in 2024")
    await world.submit(office("township", "x"), Relief.resolve, case, raised.id, "dismissed", "sold in 2024")
    with refused("E_STATE"):
        await world.submit(office("township", "y"), Relief.resolve, case, raised.id, "upheld", "no")
    await world.submit(OFFICES["township"], Relief.audit, case, "in order")
    with refused("E_STATE", "publicity"):
        await world.submit("Supervisor", Relief.object, case, "too late")


async def test_an_upheld_objection_leaves_rejection_only_and_the_household_may_apply_again(world: World) -> None:
    case = await world.case_in("publicity-2")
    raised = await world.submit("Logistics", Relief.object, case, "on the public payroll")
    await world.submit(office("county", "x"), Relief.resolve, case, raised.id, "upheld", "confirmed by the payroll")
    world.pass_time(PUBLICITY)
    with refused("E_OBJECTION", "upheld"):
        await world.submit(OFFICES["county"], Relief.approve, case)
    with refused("E_STATE", "already"):
        await world.case_in("applied")
    await world.submit(OFFICES["county"], Relief.reject, case, "on the public payroll")
    await world.case_in("applied")


async def test_approvals_never_exceed_the_budget(world: World) -> None:
    for number in range(3):
        await world.case_in("approved", f"{number:064x}")
    with refused("E_BUDGET", "143500 fen"):
        await world.case_in("approved", "f" * 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"publicity_s": 7 * 86_400 - 1},
        {"grant_fen": 1_000_001},
        {"opened_at": "2026-01-01T00:00:00Z"},
    ],
)
async def test_a_programme_that_cannot_be_is_not_opened(world: World, changes: dict[str, Any]) -> None:
    with refused("E_INPUT"):
        await world.submit("Government/admin", Relief.open_programme, programme(id="other", **changes))
    with refused("E_AUTHORITY"):
        await world.submit("Finance/admin", Relief.open_programme, programme(id="other"))
    with refused("E_STATE"):
        await world.submit("Government/admin", Relief.open_programme, programme())


async def test_an_approval_is_paid_exactly_once(world: World) -> None:
    case = await world.ordered()
    with refused("E_NO_PAYEE"):
        await world.destination.submit("Finance", Payouts.pay, case, "TX-1")
    with refused("E_COMMITMENT"):
        await world.destination.submit("Government", Payouts.tell_payee, case, PAYEE[:-1] + b"5")
    await world.destination.submit("Government", Payouts.tell_payee, case, PAYEE)
    with refused("E_BANK"):
        await world.destination.submit("Logistics", Payouts.pay, case, "TX-1")
    with refused("E_STATE", "ordered"):
        await world.destination.submit("Government", Payouts.confirm, case)
    paid = await world.destination.submit("Finance", Payouts.pay, case, "TX-1")
    assert (paid.state, paid.amount_fen) == ("paid", 285_500)
    with refused("E_STATE", "paid"):
        await world.destination.submit("Finance", Payouts.pay, case, "TX-2")
    with refused("E_BANK"):
        await world.destination.submit("Finance", Payouts.confirm, case)
    await world.destination.submit("Government", Payouts.confirm, case)
    with refused("E_STATE", "confirmed"):
        await world.destination.submit("Finance", Payouts.pay, case, "TX-3")


async def test_an_approval_is_on_its_way_once(world: World) -> None:
    case = await world.case_in("approved")
    await world.sent_to_finance(case)
    with refused("E_STATE", "sent"):
        await world.sent_to_finance(case)


async def test_a_cancelled_order_can_be_asked_for_again_and_is_still_paid_once(world: World) -> None:
    case = await world.case_in("approved")
    first = await world.sent_to_finance(case)
    stale = await world.sent(first)
    await world.destination.submit("Finance", Crossing.cancel, first, "wrong day")
    await world.submit("Government", Crossing.release, first, await world.asked(first))
    second = await world.sent_to_finance(case)
    await world.destination.submit("Finance", Crossing.accept, second, await world.sent(second))
    with refused("E_STATE", "cancelled"):
        await world.destination.submit("Finance", Crossing.accept, first, stale)


@pytest.mark.parametrize(
    ("who", "purpose", "action", "code"),
    [
        ("Logistics", "poverty-relief", "move", "E_BANK"),
        ("Finance", "marketing", "move", "E_PURPOSE"),
        ("Finance", "poverty-relief", "share", "E_ACTION"),
    ],
)
async def test_an_approval_goes_to_its_bank_for_its_purpose_only(
    world: World, who: str, purpose: str, action: str, code: str
) -> None:
    case = await world.case_in("approved")
    challenge = await world.ask(who, "relief-approval", case, purpose, action)
    with refused(code):
        await world.submit(office("county", "x"), Crossing.send, "finance", await world.asked(challenge))


async def test_an_unapproved_case_does_not_cross(world: World) -> None:
    case = await world.case_in("publicity-2")
    challenge = await world.ask("Finance", "relief-approval", case, "poverty-relief")
    with refused("E_STATE"):
        await world.submit(office("county", "x"), Crossing.send, "finance", await world.asked(challenge))


async def test_the_account_is_in_no_public_state_argument_or_event(world: World) -> None:
    case = await world.ordered()
    await world.destination.submit("Government", Payouts.tell_payee, case, PAYEE)
    await world.destination.submit("Finance", Payouts.pay, case, "TX-1")
    for ledger in (world.source, world.destination):
        for one in ledger.transactions:
            public = [
                *one.args,
                one.payload,
                *(value or b"" for value in one.writes.values()),
                (one.event or ("", b""))[1],
            ]
            assert not any(b"marker" in part for part in public)


async def test_everybody_sees_the_moneys_way(world: World) -> None:
    case = await world.ordered()
    (flow,) = (await world.source.evaluate("Logistics", Relief.flow, "relief-2026")).items
    (payout,) = (await world.destination.evaluate("Supervisor", Payouts.payouts)).items
    assert (flow.case, flow.amount_fen) == (payout.case, payout.amount_fen) == (case, 285_500)
    with pytest.raises(ContractError):
        await world.destination.evaluate("Supervisor", Payouts.payout, "0" * 64)
