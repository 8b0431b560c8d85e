"""Every step that the table of custody does not have is refused: the cases are made of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from test_waybills import NUMBER, note, proof

from sovchain.contracts import logistics
from sovchain.contracts.logistics import Waybills
from sovchain.testing import ContractHarness
from sovchain.testing.machines import NegativeCase, check_refused, negative_cases

CALLS: Mapping[str, tuple[Any, ...]] = {
    "issue": (Waybills.issue, note()),
    "offer": (Waybills.offer, NUMBER, "CarrierMSP"),
    "accept": (Waybills.accept, NUMBER),
    "retract": (Waybills.retract, NUMBER),
    "deliver": (Waybills.deliver, NUMBER, proof()),
}


async def prepare(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    custodian = harness.caller(holders.get("custodian", "LogisticsMSP").removesuffix("MSP"))
    await custodian.submit(Waybills.issue, note())
    if state == "offered":
        # A stranger that is both custodian and offered to cannot be: nobody is offered what is theirs.
        to = "CarrierMSP" if "custodian" in holders else holders.get("offered_to", "CarrierMSP")
        await custodian.submit(Waybills.offer, NUMBER, to)
    elif state == "delivered":
        await custodian.submit(Waybills.deliver, NUMBER, proof())


def possible(case: NegativeCase) -> bool:
    """Only an offered note names somebody that it is offered to, and never its custodian."""
    return "offered_to" not in case.caller.holds or (case.state == "offered" and "custodian" not in case.caller.holds)


@pytest.mark.parametrize("case", [*filter(possible, negative_cases(Waybills.custody))], ids=str)
async def test_what_the_table_does_not_have_is_refused(case: NegativeCase) -> None:
    harness = ContractHarness(logistics.chaincode, organizations=["Logistics", "Carrier", "Stranger"])
    await check_refused(harness, case, prepare, CALLS)
