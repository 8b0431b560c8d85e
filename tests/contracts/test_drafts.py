"""Promissory notes and commercial drafts: one holder, an unbroken chain, the face paid once, and nobody claimed from wrongly."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenario_cases import cases, channel, check, place

from sovchain.contracts import finance
from sovchain.contracts.finance.drafts import (
    ACCEPTANCE_TERM,
    PRESENTATION_TERM,
    Draft,
    Drafts,
    Issue,
    Licence,
    debtors,
    payment_due,
)
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


class World:
    """A finance channel with parties; every one's bank has been told the terms unless said otherwise."""

    def __init__(self) -> None:
        self.harness = channel(finance.chaincode, "Government", "Finance", "Supervisor")
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
    world.pass_time(ACCEPTANCE_TERM)
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
    world.pass_time(MATURITY + PRESENTATION_TERM + timedelta(days=1))
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


def test_a_day_of_payment_is_no_weekend() -> None:
    for days in range(14):
        due = payment_due(issue(matures_at=START + timedelta(days=days)))
        assert due.weekday() < 5
        assert timedelta() <= due - (START + timedelta(days=days)) < timedelta(days=3)


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
            "claim": (Drafts.claim, party(other)), "settle": (Drafts.settle, "TX"),
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


# -- made of the table ----------------------------------------------------------------------------------------------


def sample(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    others = {name: party("other") for name in ("drawer", "acceptor", "holder", "offered_to", "pledgee", "debtor")}
    fields: dict[str, Any] = {**others, **holders}
    stated = issue(acceptor=fields["acceptor"], matures_at=START + timedelta(days=1))
    settling = {} if state == "claimed" else {"debtor": fields["debtor"]}
    draft = Draft(id=ID, issue=stated, state=state, issued_at=START, presented_at=START, **fields | settling)  # type: ignore[arg-type]
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
}
# `sign` also takes a pledge and `settle` also discharges: the draft decides which. An issue makes a draft of its own.
CASES = [
    case
    for case in cases(Drafts.life, without=("take", "discharge"))
    if not (case.action == "issue" and case.state is not None)
]
FEW = [case for case in CASES if len(case.caller.holds) + len(case.caller.attributes) <= 2][::3]


@pytest.fixture(scope="module")
def shared() -> ContractHarness:
    """Nothing that is refused changes it."""
    return channel(finance.chaincode, "Government", "Finance", "Supervisor")


@pytest.mark.parametrize("case", FEW, ids=str)
async def test_what_the_table_does_not_have_is_refused(shared: ContractHarness, case: NegativeCase) -> None:
    await _refused(shared, case)


@pytest.mark.long
async def test_all_that_the_table_does_not_have_is_refused() -> None:
    for case in CASES:
        await _refused(channel(finance.chaincode, "Government", "Finance", "Supervisor"), case)


async def _refused(harness: ContractHarness, case: NegativeCase) -> None:
    if case.state is None and case.code == "E_NOT_FOUND":
        harness = channel(finance.chaincode, "Government", "Finance", "Supervisor")
    await check(harness, case, sample, CALLS)
