"""Consignment notes: one custodian at a time, and no step that the note's state or its custodian does not allow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_ledger import MemoryLedger, admit_everyone
from pydantic import ValidationError
from refusals import refused

from sovchain.chaincode import ContractError
from sovchain.contracts import logistics
from sovchain.contracts.core import Registry
from sovchain.contracts.core.records import PAGE_MAX
from sovchain.contracts.logistics import ConsignmentNote, DeliveryProof, Waybills

NUMBER = "GY-000017"


def note(**changes: Any) -> ConsignmentNote:
    stated = {
        "number": NUMBER,
        "consignor": "Guiyang Aluminium",
        "consignee": "Port of Qinzhou",
        "origin": "Guiyang",
        "destination": "Qinzhou",
        "goods": "ingots",
        "packages": 12,
        "weight_kg": 24_000,
    }
    return ConsignmentNote.model_validate(stated | changes)


def proof(packages: int = 12, salt: str = "5a" * 32) -> DeliveryProof:
    return DeliveryProof(received_by="Wang Fang", signature="c2lnbmVk", packages=packages, salt=salt)


@pytest.fixture
def docks() -> MemoryLedger:
    return MemoryLedger(logistics.chaincode, "logistics")


async def read(ledger: MemoryLedger) -> ConsignmentNote:
    found = await ledger.evaluate("Government", Waybills.read, NUMBER)
    assert isinstance(found, ConsignmentNote)
    return found


async def test_the_whole_way_of_a_note(docks: MemoryLedger) -> None:
    issued = await docks.submit("Logistics", Waybills.issue, note())
    assert (issued.state, issued.custodian, issued.sequence) == ("issued", "LogisticsMSP", 1)
    await docks.submit("Logistics", Waybills.offer, NUMBER, "OverseasCarrierMSP")
    await docks.submit("Logistics", Waybills.retract, NUMBER)
    await docks.submit("Logistics", Waybills.offer, NUMBER, "OverseasCarrierMSP")
    assert (await read(docks)).custodian == "LogisticsMSP"
    await docks.submit("OverseasCarrier", Waybills.accept, NUMBER)
    done = await docks.submit("OverseasCarrier", Waybills.deliver, NUMBER, proof())
    assert (done.state, done.custodian, done.sequence) == ("delivered", "OverseasCarrierMSP", 6)
    final = await read(docks)
    assert (final.proof_hash, final.delivered_at, final.offered_to) == (proof().hash(), docks.now, None)
    assert [transaction.event[0] for transaction in docks.transactions if transaction.event] == [
        "WaybillIssued",
        "WaybillOffered",
        "WaybillRetracted",
        "WaybillOffered",
        "WaybillHandedOver",
        "WaybillDelivered",
    ]


async def test_who_received_the_goods_stays_private(docks: MemoryLedger) -> None:
    await docks.submit("Logistics", Waybills.issue, note())
    await docks.submit("Logistics", Waybills.deliver, NUMBER, proof())
    public = docks.transactions[-1]
    for piece in (*public.args, *public.writes.values(), public.payload):
        assert b"Wang" not in (piece or b"")
    assert proof(salt="5b" * 32).hash() != proof().hash()


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "delivered"},
        {"custodian": "FinanceMSP"},
        {"offered_to": "FinanceMSP"},
        {"sequence": 4},
        {"proof_hash": "ab" * 32},
        {"issued_at": "2026-01-01T00:00:00Z"},
        {"delivered_at": "2026-01-01T00:00:00Z"},
    ],
)
async def test_a_new_note_says_nothing_that_is_the_contracts_to_say(
    docks: MemoryLedger, changes: dict[str, Any]
) -> None:
    with refused("E_INPUT"):
        await docks.submit("Logistics", Waybills.issue, note(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"number": "gy-000017"},
        {"number": "GY-00001"},
        {"number": "GY-０００００１"},
        {"packages": 0},
        {"packages": 1_000_001},
        {"packages": "many"},
        {"weight_kg": 1.5},
        {"goods": ""},
        {"goods": "x" * 201},
        {"consignee": "a\nb"},
        {"surplus": 1},
    ],
)
def test_a_note_beyond_its_limits_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        note(**changes)


async def test_a_number_is_used_once_and_an_unknown_one_leads_nowhere(docks: MemoryLedger) -> None:
    with refused("E_NOT_FOUND"):
        await docks.evaluate("Logistics", Waybills.read, NUMBER)
    for operation, arguments in (
        (Waybills.offer, ("FinanceMSP",)),
        (Waybills.accept, ()),
        (Waybills.retract, ()),
        (Waybills.deliver, (proof(),)),
    ):
        with refused("E_NOT_FOUND"):
            await docks.submit("Logistics", operation, NUMBER, *arguments)
    await docks.submit("Logistics", Waybills.issue, note())
    with refused("E_STATE", "exists already"):
        await docks.submit("OverseasCarrier", Waybills.issue, note())


async def test_only_the_custodian_acts_and_only_in_the_right_state(docks: MemoryLedger) -> None:
    await docks.submit("Logistics", Waybills.issue, note())
    for operation, arguments in (
        (Waybills.offer, ("FinanceMSP",)),
        (Waybills.retract, ()),
        (Waybills.deliver, (proof(),)),
    ):
        with refused("E_NOT_CUSTODIAN", "holder(custodian)"):
            await docks.submit("OverseasCarrier", operation, NUMBER, *arguments)
    with refused("E_STATE", "is issued"):
        await docks.submit("Logistics", Waybills.retract, NUMBER)
    with refused("E_STATE", "holder(offered_to)"):
        await docks.submit("OverseasCarrier", Waybills.accept, NUMBER)
    with refused("E_INPUT", "another organisation than the custodian"):
        await docks.submit("Logistics", Waybills.offer, NUMBER, "LogisticsMSP")
    with refused("E_QUANTITY", "than were issued"):
        await docks.submit("Logistics", Waybills.deliver, NUMBER, proof(13))
    await docks.submit("Logistics", Waybills.offer, NUMBER, "OverseasCarrierMSP")
    with refused("E_STATE", "holder(offered_to)"):
        await docks.submit("Finance", Waybills.accept, NUMBER)
    for operation, arguments in ((Waybills.offer, ("FinanceMSP",)), (Waybills.deliver, (proof(),))):
        with refused("E_STATE", "is offered"):
            await docks.submit("Logistics", operation, NUMBER, *arguments)
    await docks.submit("OverseasCarrier", Waybills.accept, NUMBER)
    await docks.submit("OverseasCarrier", Waybills.deliver, NUMBER, proof(11))
    for operation, arguments in (
        (Waybills.offer, ("FinanceMSP",)),
        (Waybills.retract, ()),
        (Waybills.deliver, (proof(),)),
    ):
        with refused("E_STATE", "is delivered"):
            await docks.submit("OverseasCarrier", operation, NUMBER, *arguments)


async def test_a_suspended_organisation_changes_no_note(docks: MemoryLedger) -> None:
    await admit_everyone(docks, "Logistics")
    await docks.submit("Logistics", Waybills.issue, note())
    await docks.submit("Supervisor/admin", Registry.suspend, "LogisticsMSP", "an investigation")
    for operation, arguments in ((Waybills.offer, ("FinanceMSP",)), (Waybills.deliver, (proof(),))):
        with refused("E_SUSPENDED", "an investigation"):
            await docks.submit("Logistics", operation, NUMBER, *arguments)
    with refused("E_SUSPENDED"):
        await docks.submit("Logistics", Waybills.issue, note(number="GY-000018"))


async def test_the_listing_goes_on_over_pages(docks: MemoryLedger) -> None:
    for number in range(PAGE_MAX + 1):
        await docks.submit("Logistics", Waybills.issue, note(number=f"GY-{number:06d}"))
    first = await docks.evaluate("Finance", Waybills.listing)
    last = await docks.evaluate("Finance", Waybills.listing, first.bookmark)
    assert [one.number for one in (*first.items, *last.items)] == [f"GY-{n:06d}" for n in range(PAGE_MAX + 1)]
    assert last.bookmark == ""


WHO = ("Logistics", "OverseasCarrier", "Finance")
STEPS = ("offer", "accept", "retract", "deliver")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WHO), st.sampled_from(STEPS), st.sampled_from(WHO)), max_size=12))
async def test_whatever_is_tried_custody_follows_the_model(tried: list[tuple[str, str, str]]) -> None:
    """A model of three variables and the contract agree on every step, and delivery is the end."""
    docks = MemoryLedger(logistics.chaincode, "logistics")
    await docks.submit("Logistics", Waybills.issue, note())
    custodian, offered, ended = "Logistics", "", False
    for who, step, to in tried:
        allowed = (
            not ended
            and {
                "offer": who == custodian and not offered and to != who,
                "accept": offered == who,
                "retract": who == custodian and bool(offered),
                "deliver": who == custodian and not offered,
            }[step]
        )
        arguments: tuple[Any, ...] = {"offer": (f"{to}MSP",), "deliver": (proof(),)}.get(step, ())
        try:
            await docks.submit(who, getattr(Waybills, step), NUMBER, *arguments)
        except ContractError:
            assert not allowed
            continue
        assert allowed
        if step == "accept":
            custodian = who
        offered = to if step == "offer" else ""
        ended = step == "deliver"
        final = await read(docks)
        assert (final.custodian, final.offered_to) == (f"{custodian}MSP", f"{offered}MSP" if offered else None)
