"""Every step that the tables of poverty relief do not have is refused: the cases are made of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from memory_ledger import START
from scenario_cases import cases, channel, check, place
from test_relief import HOUSEHOLD, PAYEE_HASH, programme

from sovchain.contracts import finance, government
from sovchain.contracts.finance.payouts import PAYOUT, Payout, Payouts
from sovchain.contracts.government.relief import CASE, OBJECTION, PROGRAMME, Case, Objection, Relief
from sovchain.testing import ContractHarness
from sovchain.testing.machines import NegativeCase

ID, OTHER = "ca" * 32, "0b" * 32


def relief() -> ContractHarness:
    # The case's authority is the stranger's: whoever the table does not let act is refused for that alone.
    harness = channel(government.chaincode, "Government", "Finance")
    place(harness, programme(authority="StrangerMSP"), PROGRAMME, "relief-2026")
    return harness


def place_case(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    stated: dict[str, Any] = {"household": HOUSEHOLD, "village": "Shuitang", "payee": PAYEE_HASH}
    case = Case(id=ID, programme="relief-2026", state=state, publicity_ends=START, **stated)  # type: ignore[arg-type]
    place(harness, case, CASE, ID)


def place_objection(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    place_case(harness, "publicity-1", {})
    objection = Objection(id=OTHER, case=ID, ground="a car", raised_by="StrangerMSP", raised_at=START, state=state)  # type: ignore[arg-type]
    place(harness, objection, OBJECTION, ID, OTHER)


CALLS: Mapping[str, tuple[Any, ...]] = {
    "apply": (Relief.apply, "relief-2026", HOUSEHOLD, "Shuitang", PAYEE_HASH),
    "review": (Relief.review, ID, 31, 4, 60),
    "publish": (Relief.publish, ID),
    "audit": (Relief.audit, ID, "in order"),
    "approve": (Relief.approve, ID),
    "reject": (Relief.reject, ID, "not entitled"),
    "dismiss": (Relief.resolve, ID, OTHER, "dismissed", "no"),
    "uphold": (Relief.resolve, ID, OTHER, "upheld", "yes"),
    "pay": (Payouts.pay, ID, "TX-1"),
    "confirm": (Payouts.confirm, ID),
}


def application(case: NegativeCase) -> bool:
    """An application makes a case of its own: there is none before it to be in a wrong state."""
    return case.action == "apply" and case.state is not None


@pytest.mark.parametrize(
    "case",
    [one for one in cases(Relief.life, without=("send", "finalise", "release")) if not application(one)],
    ids=str,
)
async def test_what_the_table_of_a_case_does_not_have_is_refused(case: NegativeCase) -> None:
    await check(relief(), case, place_case, CALLS)


@pytest.mark.parametrize("case", cases(Relief.hearing, without=("object",)), ids=str)
async def test_what_the_table_of_an_objection_does_not_have_is_refused(case: NegativeCase) -> None:
    harness = relief()
    place_case(harness, "publicity-1", {})
    await check(harness, case, place_objection, CALLS)


@pytest.mark.parametrize("case", cases(Payouts.life, without=("order",)), ids=str)
async def test_what_the_table_of_an_order_does_not_have_is_refused(case: NegativeCase) -> None:
    def place_order(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
        stated: dict[str, Any] = {"village": "Shuitang", "payee": PAYEE_HASH, "challenge": OTHER, "proof": OTHER}
        bank = holders.get("bank", "FinanceMSP")
        order = Payout(
            case=ID, programme="relief-2026", bank=bank, amount_fen=5, drill=False, state=state, ordered_at=START, **stated
        )  # type: ignore[arg-type]  # fmt: skip
        place(harness, order, PAYOUT, ID)

    await check(channel(finance.chaincode, "Government", "Finance"), case, place_order, CALLS)
