"""Digital logistics: one custodian, one right of disposal, numbers without gaps, and no paper without goods."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import test_calendar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_ledger import START, MemoryLedger, admit_everyone, creator
from refusals import refused as refused_in_memory
from scenario_cases import cases, channel, check, place
from views import Crossings

from sovchain.contracts import government, logistics
from sovchain.contracts.core import Crossing, store
from sovchain.contracts.core.calendar import EnactedCalendar
from sovchain.contracts.core.sealing import unseal
from sovchain.contracts.government.licences import TransportLicences
from sovchain.contracts.logistics.consignment_records import Consignment, Order, Place, Trail
from sovchain.contracts.logistics.consignments import INSPECTION_TERM, Consignments
from sovchain.contracts.logistics.licences import LicenceHere, Licences
from sovchain.contracts.logistics.positions import Position, distance_m
from sovchain.contracts.logistics.tracks import Tracks
from sovchain.sovereign.logistics import statistics
from sovchain.testing import ContractHarness, refused
from sovchain.testing.harness import Caller
from sovchain.testing.machines import NegativeCase

ORG = "LogisticsMSP"
PARTICULARS = bytes(range(32)) + b"marker: 12 pallets of ingots to 5 Harbour Road"
HASH = hashlib.sha256(PARTICULARS).hexdigest()
CODE = bytes(range(64, 96))
PROOF = "9f" * 32
NUMBER = "GY-00000001"
GUIYANG = Position(latitude=26_647_000, longitude=106_630_000)
QINZHOU = Position(latitude=21_957_000, longitude=108_624_000)
NANNING = Position(latitude=22_817_000, longitude=108_366_000)
ORIGIN = Place(jurisdiction="CN-GZ-520100", position=GUIYANG)
DESTINATION = Place(jurisdiction="CN-GX", position=QINZHOU)
ELSEWHERE = Place(jurisdiction="CN-GX", position=NANNING)


def party(name: str) -> str:
    return f"{ORG}/{name}"


def order(**changes: Any) -> Order:
    stated = {
        "consignee": party("port"), "carrier": party("lorry"), "carriers": (party("barge"),), "origin": ORIGIN,
        "destination": DESTINATION, "packages": 12, "weight_kg": 24_000, "freight_fen": 480_000, "contract": "c0" * 32,
        "particulars": HASH, "tracking": hashlib.sha256(CODE).hexdigest(), "temperature_milli": (-2_000, 8_000),
    }  # fmt: skip
    return Order.model_validate(stated | changes)


def another(contract: str) -> dict[str, str]:
    """Another contract with a tracking code of its own."""
    return {"contract": contract * 32, "tracking": contract * 32}


def licence(carrier: str, **changes: Any) -> LicenceHere:
    stated = {"carrier": carrier, "state": "granted", "valid_until": START + timedelta(days=200), "version": 1,
              "challenge": "00" * 32, "proof": "00" * 32, "imported_at": START}  # fmt: skip
    return LicenceHere.model_validate(stated | changes)


class World:
    def __init__(self) -> None:
        self.harness = channel(logistics.chaincode, "Government", "Logistics", "Supervisor")
        self.harness.now = START
        calendar = EnactedCalendar(calendar=test_calendar.CN_2026, ballot="0" * 64, enacted_at=START)
        place(self.harness, calendar, store.CALENDAR, "CN", "2026")
        for name in ("lorry", "barge"):
            place(self.harness, licence(party(name)))
        self.officer = self.harness.caller("Supervisor", "officer", attributes={"role": "supervisor"})

    def one(self, name: str, organization: str = "Logistics") -> Caller:
        return self.harness.caller(organization, name, attributes={"party": name})

    def pass_time(self, time: timedelta) -> None:
        self.harness.now += time

    async def drafted(self, **changes: Any) -> str:
        try:
            await self.one("mill").submit(Consignments.open_series, "GY")
        except Exception as error:
            assert getattr(error, "code", "") == "E_STATE", error
        return (await self.one("mill").submit(Consignments.draft, "GY", order(**changes))).result.number

    async def under_way(self, **changes: Any) -> str:
        number = await self.drafted(**changes)
        await self.one("mill").submit(Consignments.tell, ORG, PARTICULARS)
        await self.one("lorry").submit(Consignments.sign, number)
        await self.one("lorry").submit(Consignments.pick_up, number, 12)
        await self.one("mill").submit(Consignments.depart, number)
        return number

    async def tendered(self, packages: int = 12) -> str:
        number = await self.under_way()
        await self.one("lorry").submit(Tracks.point, number, GUIYANG)
        self.pass_time(timedelta(hours=8))
        await self.one("lorry").submit(Tracks.point, number, QINZHOU)
        await self.one("lorry").submit(Consignments.arrive, number)
        await self.one("lorry").submit(Consignments.tender, number, packages)
        return number

    async def read(self, number: str) -> Consignment:
        return await self.one("mill").evaluate(Consignments.read, number)


@pytest.fixture
def world() -> World:
    return World()


async def test_the_whole_way_of_a_consignment(world: World) -> None:
    number = await world.tendered()
    taken = (await world.one("port").submit(Consignments.take, number, PROOF)).result
    assert (taken.state, taken.custodian, taken.received, taken.proof) == ("delivered", party("port"), 12, PROOF)
    with refused("E_GHOST", "the freight was not paid"):
        await world.one("lorry").submit(Consignments.close, number)
    await world.one("mill").submit(Consignments.pay, number, 480_000, "TX-1")
    with refused("E_INPUT"):
        await world.one("mill").submit(Consignments.pay, number, 480_000, "TX-2")
    closed = (await world.one("lorry").submit(Consignments.close, number)).result
    assert (closed.state, closed.sequence) == ("closed", 9)


async def test_custody_passes_by_offer_and_acceptance_of_two(world: World) -> None:
    number = await world.under_way()
    with refused("E_ACCESS"):
        await world.one("barge").submit(Consignments.offer, number, party("barge"))
    with refused("E_INPUT"):
        await world.one("lorry").submit(Consignments.offer, number, party("lorry"))
    await world.one("lorry").submit(Consignments.offer, number, party("barge"))
    with refused("E_STATE"):  # it is not under way to anybody while two disagree on who has it
        await world.one("lorry").submit(Consignments.arrive, number)
    assert (await world.read(number)).custodian == party("lorry")
    done = (await world.one("barge").submit(Consignments.accept, number, "two crates dented")).result
    assert (done.custodian, [one.by for one in done.reservations]) == (party("barge"), [party("barge")])


# -- abuse ----------------------------------------------------------------------------------------------------------


async def test_a_carrier_that_was_not_declared_gets_no_custody(world: World) -> None:
    """Double brokering: the load is sold on to somebody whom the consignor never heard of."""
    number = await world.under_way()
    place(world.harness, licence(party("cousin")))
    with refused("E_BROKERING"):
        await world.one("lorry").submit(Consignments.offer, number, party("cousin"))
    with refused("E_ACCESS"):
        await world.one("lorry").submit(Consignments.declare, number, party("cousin"))
    await world.one("mill").submit(Consignments.declare, number, party("cousin"))
    with refused("E_LIMIT"):
        await world.one("mill").submit(Consignments.declare, number, party("cousin"))
    await world.one("lorry").submit(Consignments.offer, number, party("cousin"))


async def test_a_contract_has_one_note(world: World) -> None:
    number = await world.drafted()
    with refused("E_DUPLICATE", number):
        await world.drafted()
    with refused("E_DUPLICATE", "tracking code"):
        await world.drafted(contract="c1" * 32)
    await world.one("mill").submit(Consignments.void, number, "wrong weight")
    assert await world.drafted() == "GY-00000002"


async def test_a_note_without_track_or_with_one_elsewhere_certifies_nothing(world: World) -> None:
    """Ghost waybills, made for a subsidy: note, contract, funds and track must agree."""
    number = await world.under_way()
    await world.one("lorry").submit(Consignments.arrive, number)
    await world.one("lorry").submit(Consignments.tender, number, 12)
    await world.one("port").submit(Consignments.take, number, PROOF)
    await world.one("mill").submit(Consignments.pay, number, 480_000, "TX-1")
    with refused("E_GHOST", "there is no track"):
        await world.one("lorry").submit(Consignments.close, number)
    for first, latest, why in (
        (NANNING, QINZHOU, "does not begin at the origin"),
        (GUIYANG, NANNING, "does not end at the destination"),
    ):
        place(world.harness, Trail(number=number, first=first, latest=latest, at=START, points=9))
        with refused("E_GHOST", why):
            await world.one("lorry").submit(Consignments.close, number)


async def test_a_hop_that_no_lorry_makes_raises_an_alert_that_an_officer_must_clear(world: World) -> None:
    number = await world.under_way()
    await world.one("lorry").submit(Tracks.point, number, GUIYANG)
    world.pass_time(timedelta(hours=1))
    jumped = await world.one("lorry").submit(Tracks.point, number, QINZHOU)
    assert jumped.result.alerts == 1
    assert jumped.event is not None
    assert jumped.event.name == "TrackAlert"
    await world.one("lorry").submit(Consignments.arrive, number)
    await world.one("lorry").submit(Consignments.tender, number, 12)
    await world.one("port").submit(Consignments.take, number, PROOF)
    await world.one("mill").submit(Consignments.pay, number, 480_000, "TX-1")
    with refused("E_GHOST", "1 alerts"):
        await world.one("lorry").submit(Consignments.close, number)
    with refused("E_ROLE"):
        forged = world.harness.caller("Logistics", "clerk", attributes={"role": "supervisor"})
        await forged.submit(Tracks.clear, number, "all well")
    await world.officer.submit(Tracks.clear, number, "carried by rail, with the station's papers")
    await world.one("lorry").submit(Consignments.close, number)


async def test_a_receipt_is_the_consignees_and_nobody_elses(world: World) -> None:
    """A forged proof of delivery: the carrier writes it himself."""
    number = await world.tendered()
    with refused("E_ACCESS"):
        await world.one("lorry").submit(Consignments.take, number, PROOF)
    with refused("E_ACCESS"):  # the same code at another organisation
        await world.one("port", "Government").submit(Consignments.take, number, PROOF)
    await world.one("port").submit(Consignments.take, number, PROOF)


async def test_no_more_is_delivered_than_loaded_and_what_is_missing_is_reserved(world: World) -> None:
    number = await world.tendered(11)
    with refused("E_QUANTITY"):
        await world.one("port").submit(Consignments.take, number, PROOF)
    with refused("E_QUANTITY"):
        await world.one("port").submit(Consignments.reserve, number, 12, "one missing", PROOF)
    reserved = (await world.one("port").submit(Consignments.reserve, number, 11, "one missing", PROOF)).result
    assert (reserved.state, reserved.received) == ("delivered-reserved", 11)
    other = await world.under_way(**another("c1"))
    await world.one("lorry").submit(Consignments.arrive, other)
    with refused("E_QUANTITY"):
        await world.one("lorry").submit(Consignments.tender, other, 13)


async def test_only_the_right_of_disposal_diverts(world: World) -> None:
    number = await world.under_way()
    for name in ("lorry", "port"):
        with refused("E_ACCESS"):
            await world.one(name).submit(Consignments.divert, number, ELSEWHERE, party("yard"))
    await world.one("mill").submit(Consignments.pass_right, number, party("port"))
    with refused("E_ACCESS"):  # the consignor gave it away
        await world.one("mill").submit(Consignments.divert, number, ELSEWHERE, party("yard"))
    diverted = (await world.one("port").submit(Consignments.divert, number, ELSEWHERE, party("yard"))).result
    assert (diverted.destination, diverted.consignee, diverted.custodian) == (ELSEWHERE, party("yard"), party("lorry"))


async def test_goods_that_are_held_do_not_move_and_the_holders_peer_cannot_prevent_it(world: World) -> None:
    number = await world.under_way()
    without = world.harness.caller(
        "Supervisor", "officer", attributes={"role": "supervisor"}, endorsers=["Supervisor", "Government", "Stranger"]
    )
    await without.submit(Consignments.hold, number, "customs order 7")
    for step in (Consignments.arrive, Consignments.retract):
        with refused("E_STATE", "held"):
            await world.one("lorry").submit(step, number)
    with refused("E_STATE", "held"):
        await world.one("mill").submit(Consignments.divert, number, ELSEWHERE, party("yard"))
    with refused("E_ACCESS"):
        await world.one("lorry").submit(Consignments.lift, number, "please")
    await world.officer.submit(Consignments.lift, number, "customs order 8")
    await world.one("lorry").submit(Consignments.arrive, number)
    await world.one("lorry").submit(Consignments.tender, number, 12)
    await world.officer.submit(Consignments.hold, number, "customs order 9")
    with refused("E_STATE", "held"):
        await world.one("port").submit(Consignments.take, number, PROOF)


async def test_an_exception_and_refused_goods_wait_for_the_disposer(world: World) -> None:
    number = await world.tendered()
    await world.one("port").submit(Consignments.refuse, number, "wrong goods")
    assert (await world.read(number)).custodian == party("lorry")
    with refused("E_ACCESS"):
        await world.one("lorry").submit(Consignments.instruct, number, ORIGIN, party("mill"))
    await world.one("mill").submit(Consignments.instruct, number, ORIGIN, party("mill"))
    await world.one("lorry").submit(Consignments.report_exception, number, "the road is flooded")
    with refused("E_STATE", "exception"):
        await world.one("lorry").submit(Consignments.arrive, number)
    await world.one("mill").submit(Consignments.instruct, number, ELSEWHERE, party("yard"))


async def test_a_sensor_makes_its_own_reservation(world: World) -> None:
    number = await world.under_way()
    with refused("E_INPUT"):
        await world.one("lorry").submit(Consignments.breach, number, 7_900)
    found = (await world.one("lorry").submit(Consignments.breach, number, 11_250)).result
    assert [one.text for one in found.reservations] == ["sensor: 11250 thousandths of a degree"]


async def test_hidden_damage_is_claimed_within_seven_working_days(world: World) -> None:
    number = await world.tendered()
    taken = (await world.one("port").submit(Consignments.take, number, PROOF)).result
    assert taken.claims_until is not None
    await world.one("port").submit(Consignments.claim, number, 90_000, "rust inside")
    with refused("E_INPUT"):
        await world.one("lorry").submit(Consignments.settle, number, 90_001)
    settled = (await world.one("lorry").submit(Consignments.settle, number, 60_000)).result
    assert (settled.state, settled.settled_fen) == ("settled", 60_000)


async def test_a_late_claim_is_refused(world: World) -> None:
    number = await world.tendered()
    taken = (await world.one("port").submit(Consignments.take, number, PROOF)).result
    assert taken.claims_until is not None
    world.harness.now = taken.claims_until
    with refused("E_TIME"):
        await world.one("port").submit(Consignments.claim, number, 90_000, "rust inside")


async def test_reservations_at_loading_are_accepted_or_checked_again(world: World) -> None:
    number = await world.drafted()
    with refused("E_NOT_TOLD"):
        await world.one("lorry").submit(Consignments.sign, number)
    await world.one("mill").submit(Consignments.tell, ORG, PARTICULARS)
    await world.one("lorry").submit(Consignments.sign, number)
    with refused("E_QUANTITY"):
        await world.one("lorry").submit(Consignments.pick_up, number, 13)
    await world.one("lorry").submit(Consignments.pick_up, number, 11, "one pallet is missing")
    contested = (await world.one("mill").submit(Consignments.contest, number)).result
    assert (contested.state, contested.loaded, contested.reservations) == ("issued", None, ())
    await world.one("lorry").submit(Consignments.pick_up, number, 12)
    with refused("E_STATE", "checked"):
        await world.one("mill").submit(Consignments.void, number, "too late")


@pytest.mark.parametrize(
    "changes", [{"state": "revoked", "version": 2}, {"valid_until": START}], ids=["revoked", "expired"]
)
async def test_without_a_valid_licence_nobody_signs_or_takes_over(world: World, changes: dict[str, Any]) -> None:
    number = await world.under_way()
    await world.one("lorry").submit(Consignments.offer, number, party("barge"))
    place(world.harness, licence(party("barge"), **changes))
    with refused("E_LICENCE"):
        await world.one("barge").submit(Consignments.accept, number)
    other = await world.drafted(**another("c1"), carrier=party("nobody"))
    with refused("E_LICENCE", "none was imported"):
        await world.one("nobody").submit(Consignments.sign, other)


class LicencesCross(Crossings):
    async def pin(self) -> None:
        for ledger, other, sector in (
            (self.source, self.destination, "Logistics"),
            (self.destination, self.source, "Logistics"),
        ):
            await admit_everyone(ledger, sector)
            statement = self.peers.statement(other.channel, ledger.now)
            ballot = await ledger.submit("Government/admin", Crossing.propose_anchor, statement)
            for name in ("Government", "Supervisor", sector):
                await ledger.submit(f"{name}/admin", Crossing.vote, ballot)

    async def imported(self, carrier: str) -> None:
        challenge = await self.ask("Logistics", "carrier-licence", carrier, "supervision", "share")
        await self.source.submit("Government", Crossing.send, "logistics", await self.asked(challenge))
        await self.destination.submit("Logistics", Crossing.accept, challenge, await self.sent(challenge))


async def test_a_licence_comes_by_proof_and_an_older_one_does_not_undo_a_revocation() -> None:
    world = LicencesCross(
        MemoryLedger(government.chaincode, "government"), MemoryLedger(logistics.chaincode, "logistics")
    )
    await world.pin()
    office, until = creator("Government", office="transport"), world.source.now + timedelta(days=100)
    with refused_in_memory("E_ACCESS"):
        await world.source.submit("Logistics", TransportLicences.grant, party("lorry"), "520100-1", until)
    await world.source.submit(office, TransportLicences.grant, party("lorry"), "520100-1", until)
    stale = await world.ask("Logistics", "carrier-licence", party("lorry"), "supervision", "share")
    await world.source.submit("Government", Crossing.send, "logistics", await world.asked(stale))
    old = await world.sent(stale)
    await world.source.submit(office, TransportLicences.revoke, party("lorry"), "tampered tachograph")
    await world.imported(party("lorry"))
    assert (await world.destination.evaluate("Logistics", Licences.read, party("lorry"))).state == "revoked"
    with refused_in_memory("E_STATE"):
        await world.destination.submit("Logistics", Crossing.accept, stale, old)


# -- who sees what --------------------------------------------------------------------------------------------------


async def test_particulars_are_with_those_who_were_told_and_nowhere_else(world: World) -> None:
    await world.tendered()
    public = [value for value, _, _ in world.harness.state.public["contract"].entries.values()]
    public += [event.payload for event in world.harness.events]
    assert not any(b"marker" in part or CODE in part or CODE.hex().encode() in part for part in public)
    seen = {
        name
        for name in world.harness.organizations
        for owner in world.harness.msp_ids
        if any(b"marker" in value for value in world.harness.held(name, f"_implicit_org_{owner}").values())
    }
    assert seen == {"Logistics"}


async def test_an_officer_reads_on_duty_and_on_record_for_a_day(world: World) -> None:
    number, key = await world.under_way(), bytes(range(32))
    at_logistics = world.harness.caller(
        "Supervisor", "officer", attributes={"role": "supervisor"}, endorsers=["Logistics"]
    )
    with refused("E_ACCESS"):
        await at_logistics.evaluate(Consignments.particulars, number, ORG, key)
    with refused("E_ACCESS"):
        await world.one("lorry").submit(Consignments.inspect, number, "curiosity", "none")
    done = (await world.officer.submit(Consignments.inspect, number, "Customs Law, art. 6", "random check")).result
    (logged,) = (await world.one("mill").evaluate(Consignments.inspections)).items
    assert (logged.number, logged.duty, logged.identity) == (number, "Customs Law, art. 6", done.identity)
    with refused("E_ACCESS"):
        await world.one("mill").evaluate(Consignments.particulars, number, ORG, key, done.id)
    world.pass_time(INSPECTION_TERM)
    with refused("E_TIME"):
        await world.officer.evaluate(Consignments.particulars, number, ORG, key, done.id)


async def test_a_party_reads_the_particulars_sealed(world: World) -> None:
    number, key = await world.under_way(), bytes(range(32))
    sealed = await world.one("port").evaluate(Consignments.particulars, number, ORG, key)
    assert b"marker" not in sealed
    assert unseal(sealed, key) == PARTICULARS
    with refused("E_ACCESS"):
        await world.one("cousin").evaluate(Consignments.particulars, number, ORG, key)


async def test_a_tracking_code_shows_the_status_and_no_more(world: World) -> None:
    await world.under_way()
    shown = await world.harness.caller("Stranger").evaluate(Consignments.status, CODE)
    assert set(type(shown).model_fields) == {"state", "changed_at"}
    assert shown.state == "in-transit"
    with refused("E_NOT_FOUND"):
        await world.harness.caller("Stranger").evaluate(Consignments.status, bytes(32))


# -- properties -----------------------------------------------------------------------------------------------------


async def test_two_drafts_in_one_block_never_share_or_skip_a_number(world: World) -> None:
    await world.drafted()
    mill = world.one("mill")
    first = await mill.endorse(Consignments.draft, "GY", order(**another("c1")))
    second = await mill.endorse(Consignments.draft, "GY", order(**another("c2")))
    codes = [getattr(done, "code_name", "VALID") for done in world.harness.commit([first, second])]
    assert codes == ["VALID", "MVCC_READ_CONFLICT"]
    assert await world.drafted(**another("c2")) == "GY-00000003"
    await mill.submit(Consignments.void, "GY-00000002", "a slip")
    shown = (await world.harness.caller("Stranger").evaluate(Consignments.public)).items
    assert [(one.number, one.state) for one in shown] == [
        ("GY-00000001", "draft"),
        ("GY-00000002", "void"),
        ("GY-00000003", "draft"),
    ]
    assert statistics(shown) == {"CN-GZ-520100": {"draft": 2, "void": 1}}


@settings(max_examples=200, deadline=None)
@given(st.integers(-75_000_000, 75_000_000), st.integers(-170_000_000, 170_000_000),
       st.integers(-3_000_000, 3_000_000), st.integers(-3_000_000, 3_000_000))  # fmt: skip
def test_distances_agree_with_the_great_circle(latitude: int, longitude: int, north: int, east: int) -> None:
    one = Position(latitude=latitude, longitude=longitude)
    other = Position(latitude=latitude + north, longitude=longitude + east)
    a, b, c, d = (math.radians(x / 1e6) for x in (one.latitude, one.longitude, other.latitude, other.longitude))
    half = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
    exact = 2 * 6_371_009 * math.asin(math.sqrt(half))
    assert abs(distance_m(one, other) - exact) <= 0.035 * exact + 2
    assert distance_m(one, other) == distance_m(other, one)


NAMES = ("mill", "lorry", "barge", "port", "yard")
ACTS = ("sign", "pick_up", "contest", "depart", "offer", "accept", "decline", "retract", "divert", "pass_right", "arrive",
        "tender", "take", "reserve", "refuse", "instruct", "claim", "settle", "drop", "pay", "void", "hold", "lift")  # fmt: skip


async def invariants(acts: list[tuple[str, str, str, int]]) -> None:
    world = World()
    number = await world.drafted()
    await world.one("mill").submit(Consignments.tell, ORG, PARTICULARS)
    before = await world.read(number)
    for act, who, other, count in acts:
        arguments: Mapping[str, tuple[Any, ...]] = {
            "pick_up": (count,), "tender": (count,), "reserve": (count, "missing", PROOF), "take": (PROOF,),
            "offer": (party(other),), "divert": (ELSEWHERE, party(other)), "instruct": (ELSEWHERE, party(other)),
            "pass_right": (party(other),), "refuse": ("wrong",), "claim": (count, "damage"), "settle": (count,),
            "pay": (480_000, "TX"), "void": ("a slip",), "hold": ("order",), "lift": ("order",),
        }  # fmt: skip
        caller = world.officer if act in ("hold", "lift") else world.one(who)
        try:
            await caller.submit(getattr(Consignments, act), number, *arguments.get(act, ()))
        except Exception as error:
            assert getattr(error, "code", None), error
            continue
        found = await world.read(number)
        assert found.sequence == before.sequence + 1
        assert found.custodian  # there is one, and it changes by two parties' acts only
        if found.custodian != before.custodian:
            assert act in ("depart", "accept", "take", "reserve")
            assert act != "accept" or party(who) == before.offered_to
        if (found.destination, found.consignee) != (before.destination, before.consignee):
            assert party(who) == before.disposer
        if found.disposer != before.disposer:
            assert party(who) == before.disposer
        assert (found.loaded or 0) <= found.order.packages
        assert (found.received or 0) <= (found.loaded or 0)
        assert found.custodian in {found.consignor, found.consignee, *found.carriers}
        assert before.state not in ("void", "closed")
        assert act != "void" or before.state in ("draft", "issued")
        before = found


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_tried_one_has_the_goods_and_one_disposes() -> None:
    _explore(6)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_whatever_is_tried_one_has_the_goods_many_times() -> None:
    _explore(500)


def _explore(examples: int) -> None:
    start = [("sign", "lorry"), ("pick_up", "lorry"), ("depart", "mill")]
    act = st.tuples(st.sampled_from(ACTS), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 13))
    likely = st.sampled_from([(*one, "barge", 12) for one in (
        ("offer", "lorry"), ("accept", "barge"), ("arrive", "lorry"), ("tender", "lorry"), ("take", "port"), ("arrive", "barge"),
        ("divert", "mill"), ("tender", "barge"), ("claim", "port"))])  # fmt: skip

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.booleans(), st.lists(st.one_of(act, likely), min_size=5, max_size=25))
    def explore(started: bool, acts: list[tuple[str, str, str, int]]) -> None:
        asyncio.run(invariants([*((*one, "barge", 12) for one in start), *acts] if started else acts))

    explore()


# -- made of the table ----------------------------------------------------------------------------------------------


def sample(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    names = ("consignor", "consignee", "carrier", "custodian", "disposer", "offered_to")
    fields: dict[str, Any] = dict.fromkeys(names, party("other")) | dict(holders)
    note = Consignment(
        number=NUMBER, order=order(), tracking="00" * 32, destination=DESTINATION, state=state, sequence=1,  # type: ignore[arg-type]
        changed_at=START, carriers=(party("other"),), loaded=12, tendered=12, claims_until=START, claim_fen=1, **fields,
    )  # fmt: skip
    place(harness, note)


CALLS: Mapping[str, tuple[Any, ...]] = {
    "sign": (Consignments.sign, NUMBER), "void": (Consignments.void, NUMBER, "a slip"),
    "pick-up": (Consignments.pick_up, NUMBER, 12), "contest": (Consignments.contest, NUMBER),
    "depart": (Consignments.depart, NUMBER), "declare": (Consignments.declare, NUMBER, party("x")),
    "offer": (Consignments.offer, NUMBER, party("x")), "accept": (Consignments.accept, NUMBER),
    "decline": (Consignments.decline, NUMBER), "retract": (Consignments.retract, NUMBER),
    "breach": (Consignments.breach, NUMBER, 9_000), "divert": (Consignments.divert, NUMBER, ELSEWHERE, party("x")),
    "pass-right": (Consignments.pass_right, NUMBER, party("x")), "hold": (Consignments.hold, NUMBER, "order"),
    "lift": (Consignments.lift, NUMBER, "order"), "except": (Consignments.report_exception, NUMBER, "flood"),
    "instruct": (Consignments.instruct, NUMBER, ELSEWHERE, party("x")), "arrive": (Consignments.arrive, NUMBER),
    "tender": (Consignments.tender, NUMBER, 12), "take": (Consignments.take, NUMBER, PROOF),
    "reserve": (Consignments.reserve, NUMBER, 12, "dented", PROOF), "refuse": (Consignments.refuse, NUMBER, "wrong"),
    "claim": (Consignments.claim, NUMBER, 1, "rust"), "settle": (Consignments.settle, NUMBER, 1),
    "drop": (Consignments.drop, NUMBER), "pay": (Consignments.pay, NUMBER, 480_000, "TX"),
    "close": (Consignments.close, NUMBER),
}  # fmt: skip
# A draft makes a note of its own number. Profiles of three and more things add callers, not rules.
CASES = [one for one in cases(Consignments.life, without=("draft",)) if len(one.caller.holds) <= 2]
FEW = [one for one in CASES if len(one.caller.holds) + len(one.caller.attributes) <= 2][::12]


@pytest.fixture(scope="module")
def shared() -> ContractHarness:
    """Nothing that is refused changes it."""
    return World().harness


@pytest.mark.parametrize("case", FEW, ids=str)
async def test_what_the_table_does_not_have_is_refused(shared: ContractHarness, case: NegativeCase) -> None:
    await check(World().harness if case.code == "E_NOT_FOUND" else shared, case, sample, CALLS)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_all_that_the_table_does_not_have_is_refused() -> None:
    harness = World().harness
    for case in CASES:
        await check(World().harness if case.code == "E_NOT_FOUND" else harness, case, sample, CALLS)
