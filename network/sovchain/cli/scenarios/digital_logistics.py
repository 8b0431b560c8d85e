"""The scenario digital-logistics on stage: a consignment from its number to its closing, with what is tried on the way.

Parties, goods and orders are inventions. On stage the goods move in seconds, so their track raises an alert.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sovchain.cli.problems import CommandError
from sovchain.cli.scenarios import Demonstration, on_channels, with_users
from sovchain.cli.stage import Stage, admit, audit, enact_calendars, pin
from sovchain.contracts.logistics.consignment_records import Order, Place
from sovchain.contracts.logistics.positions import Position
from sovchain.network.stored import stored_blocks

if TYPE_CHECKING:
    from sovchain.network import Topology
    from sovchain.sovereign.logistics import LogisticsDesk

CHANNEL: Final = "logistics"
ORG: Final = "LogisticsMSP"
PARTIES: Final = ("mill", "lorry", "barge", "cousin", "port", "yard")
GOODS: Final = "twelve pallets of aluminium ingots for 5 Harbour Road"
FREIGHT_FEN: Final = 480_000
ORIGIN: Final = Place(jurisdiction="CN-GZ-520100", position=Position(latitude=26_647_000, longitude=106_630_000))
PORT: Final = Place(jurisdiction="CN-GX", position=Position(latitude=21_957_000, longitude=108_624_000))
YARD: Final = Place(jurisdiction="CN-GX", position=Position(latitude=22_817_000, longitude=108_366_000))


def topology(default: Topology) -> Topology:
    """The government and the logistics channel, with the platform's customers and the transport office as users."""
    users = [{"name": name.capitalize(), "attributes": {"party": name}} for name in PARTIES]
    office = {"name": "Transport", "attributes": {"office": "transport"}}
    return with_users(on_channels(default, "government", CHANNEL), {"Logistics": users, "Government": [office]})


def party(name: str) -> str:
    """A customer of the platform, as notes name it."""
    return f"{ORG}/{name}"


@asynccontextmanager
async def _desk(stage: Stage, name: str, organization: str = "Logistics") -> AsyncIterator[LogisticsDesk]:
    from sovchain.sovereign.logistics import LogisticsDesk

    async with stage.seen(organization, CHANNEL, name.capitalize()) as channel:
        yield LogisticsDesk(channel)


async def play(stage: Stage) -> tuple[dict[str, Any], bool]:
    """Play the scenario. Returns what was done, and whether everything ended as it must."""
    from sovchain.sovereign.logistics import tracking_code

    stage.title("1. Two channels admit their organisations, pin each other, and logistics has its calendar")
    for channel, file in (("government", "government.yaml"), (CHANNEL, "logistics.yaml")):
        await admit(stage, channel, file, f"admit the organisations of {channel}")
    await pin(stage, "government", CHANNEL)
    await enact_calendars(stage, CHANNEL)
    stage.title("2. A note is drawn up; nobody carries without a licence that was proved")
    code, tracking = tracking_code()
    number = await _issued(stage, tracking)
    stage.title("3. Under way: custody, the right of disposal, a hold, a reading on duty")
    await _carried(stage, number)
    stage.title("4. Delivered with a reservation, claimed, paid, closed")
    await _delivered(stage, number)
    stage.title("5. What the holder of a tracking code, and everybody, sees")
    shown = await _seen(stage, code)
    held = [GOODS.encode(), code]
    if any(secret in block for block in stored_blocks(stage.network.directory, CHANNEL) for secret in held):
        raise CommandError("the demonstration stops: a block holds the goods or the code", CHANNEL, "report this", 1)
    stage.out.say("  goods and address are in the platform's private collection, and in no block")
    stage.title("6. An auditor recomputes it all from the ledgers' own bytes")
    report, good = await asyncio.to_thread(audit, stage)
    result = {
        "steps": [asdict(row) for row in stage.rows],
        "refusals": stage.refusals,
        **shown,
        "audit": report,
        "ok": good,
    }
    return result, good


async def _licensed(stage: Stage, carrier: str) -> None:
    """A licence from the transport office, and its way to the logistics channel."""
    from sovchain.sovereign import Passage
    from sovchain.sovereign.logistics import LicenceOffice

    async with stage.seen("Government", "government", "Transport") as channel:
        until = datetime.now(UTC) + timedelta(days=365)
        granted = await LicenceOffice(channel).grant(party(carrier), f"520100-{carrier}", until)
        stage.latest["government"] = granted.committed
    async with stage.seen("Logistics", "government") as source, stage.seen("Logistics", CHANNEL) as destination:
        passage = Passage(source, destination)
        asked = await passage.ask("carrier-licence", party(carrier), "supervision")
        await passage.send(asked.record.id)
        arrived = await passage.accept(asked.record.id)
    endorsers = ", ".join(arrived.record.endorsers)
    stage.done(f"{carrier}'s licence crosses", CHANNEL, arrived.committed, f"vouched for by {endorsers}")


async def _issued(stage: Stage, tracking: str) -> str:
    from sovchain.sovereign.logistics import salted

    particulars, commitment = salted(GOODS.encode())
    _, contract = salted(b"contract of carriage 2026-44")
    order = Order(
        consignee=party("port"), carrier=party("lorry"), carriers=(party("barge"),), origin=ORIGIN, destination=PORT,
        packages=12, weight_kg=24_000, freight_fen=FREIGHT_FEN, contract=contract, particulars=commitment,
        tracking=tracking, temperature_milli=(-2_000, 40_000),
    )  # fmt: skip
    async with _desk(stage, "Mill") as mill:
        stage.latest[CHANNEL] = (await mill.open_series("GY")).committed
    async with _desk(stage, "Mill") as mill:
        first = await mill.draft("GY", order)
        stage.done("mill draws up a note", CHANNEL, first.committed, first.record.number)
        await stage.refused("mill draws up a second for one contract", "E_DUPLICATE", mill.draft("GY", order))
        voided = await mill.void(first.record.number, "the weight was wrong")
        stage.done("mill voids it", CHANNEL, voided.committed, "its number stays listed")
        drafted = await mill.draft("GY", order)
        number = drafted.record.number
        stage.done("mill draws it up again", CHANNEL, drafted.committed, number)
        stage.latest[CHANNEL] = await mill.tell(ORG, particulars)
    async with _desk(stage, "Lorry") as lorry:
        await stage.refused("lorry signs without a licence", "E_LICENCE", lorry.sign(number))
    for carrier in ("lorry", "barge", "cousin"):
        await _licensed(stage, carrier)
    async with _desk(stage, "Lorry") as lorry:
        signed = await lorry.sign(number)
        stage.done("lorry signs", CHANNEL, signed.committed, signed.record.state)
        await stage.refused("lorry loads more than was ordered", "E_QUANTITY", lorry.pick_up(number, 13))
        checked = await lorry.pick_up(number, 12, "one crate is dented")
        stage.done("lorry checks the load", CHANNEL, checked.committed, checked.record.reservations[0].text)
    async with _desk(stage, "Mill") as mill:
        await stage.refused("mill voids what is picked up", "E_STATE", mill.void(number, "a slip"))
        departed = await mill.depart(number)
        stage.done("mill accepts the reservation", CHANNEL, departed.committed, departed.record.state)
    return number


async def _carried(stage: Stage, number: str) -> None:
    async with _desk(stage, "Lorry") as lorry:
        stage.latest[CHANNEL] = (await lorry.point(number, ORIGIN.position)).committed
        undeclared = lorry.offer(number, party("cousin"))
        await stage.refused("lorry sells the load on to a cousin", "E_BROKERING", undeclared)
        await stage.refused("lorry diverts the goods", "E_ACCESS", lorry.divert(number, YARD, party("yard")))
        offered = await lorry.offer(number, party("barge"))
    stage.latest[CHANNEL] = offered.committed
    async with _desk(stage, "Barge") as barge:
        accepted = await barge.accept(number)
        stage.done("barge takes custody", CHANNEL, accepted.committed, accepted.record.custodian)
        breached = await barge.breach(number, 46_500)
        stage.done("a sensor reads 46.5 degrees", CHANNEL, breached.committed, breached.record.reservations[-1].text)
    async with _desk(stage, "Mill") as mill:
        diverted = await mill.divert(number, YARD, party("yard"))
        stage.done("mill diverts the goods", CHANNEL, diverted.committed, diverted.record.consignee)
    async with _desk(stage, "User1", "Supervisor") as officer:
        held = await officer.hold(number, "customs order 7")
        stage.done("an officer holds them", CHANNEL, held.committed, held.record.reason)
        await stage.refused("the officer reads without a record", "E_ACCESS", officer.particulars(number, ORG))
        inspection = await officer.inspect(number, "Customs Law, article 6", "a random check")
        stage.done("the officer states a duty", CHANNEL, inspection.committed, inspection.record.duty)
    async with _desk(stage, "User1", "Supervisor") as officer:
        read = await officer.particulars(number, ORG, inspection.record.id)
        stage.out.say(f"  the officer reads {len(read)} bytes of particulars, hash checked")
    if read.decode() != GOODS:
        raise CommandError("the demonstration stops: the particulars differ", CHANNEL, "report this", 1)
    async with _desk(stage, "Barge") as barge:
        await stage.refused("barge moves what is held", "E_STATE", barge.arrive(number))
    async with _desk(stage, "User1", "Supervisor") as officer:
        lifted = await officer.lift(number, "customs order 8")
        stage.done("the officer lifts the hold", CHANNEL, lifted.committed, lifted.record.state)


async def _delivered(stage: Stage, number: str) -> None:
    from sovchain.sovereign.logistics import salted

    _, proof = salted(b"signed for by the yard's clerk")
    async with _desk(stage, "Barge") as barge:
        jumped = await barge.point(number, YARD.position)
        stage.done("the track jumps 437 km in seconds", CHANNEL, jumped.committed, f"{jumped.record.alerts} alert")
        stage.latest[CHANNEL] = (await barge.arrive(number)).committed
    async with _desk(stage, "Barge") as barge:
        tendered = await barge.tender(number, 12)
        stage.done("barge tenders the goods", CHANNEL, tendered.committed, f"{tendered.record.tendered} packages")
        await stage.refused("barge signs the receipt itself", "E_ACCESS", barge.take(number, proof))
    async with _desk(stage, "Yard") as yard:
        reserved = await yard.reserve(number, 11, "one package is missing", proof)
        stage.done("yard takes eleven", CHANNEL, reserved.committed, reserved.record.state)
        claimed = await yard.claim(number, 90_000, "one package is missing")
        stage.done("yard claims", CHANNEL, claimed.committed, "900.00 yuan")
    async with _desk(stage, "Lorry") as lorry:
        await stage.refused("lorry pays more than was claimed", "E_INPUT", lorry.settle(number, 90_001))
        settled = await lorry.settle(number, 90_000)
        stage.done("lorry settles, for its chain", CHANNEL, settled.committed, "900.00 yuan")
    async with _desk(stage, "Mill") as mill:
        paid = await mill.pay(number, FREIGHT_FEN, "TX-0017")
        stage.done("mill pays the freight", CHANNEL, paid.committed, f"{FREIGHT_FEN / 100:,.2f} yuan")
    async with _desk(stage, "Lorry") as lorry:
        await stage.refused("lorry closes with an alert open", "E_GHOST", lorry.close(number))
    async with _desk(stage, "User1", "Supervisor") as officer:
        cleared = await officer.clear(number, "a stage moves faster than a barge")
        stage.done("an officer clears the alert", CHANNEL, cleared.committed, cleared.record.finding)
    async with _desk(stage, "Lorry") as lorry:
        closed = await lorry.close(number)
        stage.done("lorry closes the note", CHANNEL, closed.committed, "note, contract, funds and track agree")


async def _seen(stage: Stage, code: bytes) -> dict[str, Any]:
    async with _desk(stage, "User1", "Government") as anyone:
        public, inspections, status = await anyone.public(), await anyone.inspections(), await anyone.status(code)
    stage.out.say(f"  by the tracking code: {status.state}")
    stage.out.say(f"  numbers without a gap: {', '.join(f'{one.number} {one.state}' for one in public)}")
    stage.out.say(f"  readings on duty: {', '.join(f'{one.duty}: {one.reason}' for one in inspections)}")
    return {
        "status": status.state,
        "public": [one.model_dump(mode="json") for one in public],
        "inspections": [one.model_dump(mode="json") for one in inspections],
    }


DEMO = Demonstration(topology, play)
