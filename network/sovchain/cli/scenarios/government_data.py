"""The scenario government-data on stage: an entry of the catalogue, a request that is refused and then ordered, one delivery.

The departments, their brief and the rulings are inventions; the ten working days are real, so that nobody is late on stage.
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
from sovchain.cli.stage import Stage, admit, audit, enact, enact_calendars
from sovchain.contracts.government.catalogue import Citation, Listing, Statement
from sovchain.contracts.government.exchange import Asked, Terms
from sovchain.network.stored import stored_blocks

if TYPE_CHECKING:
    from sovchain.network import Topology
    from sovchain.sovereign.exchange import ExchangeDesk

CHANNEL: Final = "government"
BRIEF: Final = "the inspection of three forwarders, by name"
DUTY: Final = Citation(law="GY-DS-2026", clause="art. 7")
CONDITIONAL: Final = Listing(share="conditional", condition="for a duty under a law")


def topology(default: Topology) -> Topology:
    """The government channel alone, with an officer of the bureau that keeps the catalogue."""
    keeper = {"name": "Keeper", "attributes": {"office": "bureau"}}
    return with_users(on_channels(default, CHANNEL), {"Government": [keeper]})


@asynccontextmanager
async def _desk(stage: Stage, organization: str, user: str = "User1") -> AsyncIterator[ExchangeDesk]:
    from sovchain.sovereign.exchange import ExchangeDesk

    async with stage.seen(organization, CHANNEL, user) as channel:
        yield ExchangeDesk(channel)


async def play(stage: Stage) -> tuple[dict[str, Any], bool]:
    """Play the scenario. Returns what was done, and whether everything ended as it must."""
    stage.title("1. The departments are admitted; the law and the working-day calendar are enacted")
    await admit(stage, CHANNEL, "government.yaml", "admit the departments")
    await enact(stage, CHANNEL)
    await enact_calendars(stage, CHANNEL)
    stage.title("2. Transport lists its data: one source for each item, and closed only by a law")
    entry = await _listed(stage)
    stage.title("3. Finance asks; the clock runs; a refusal has a reason, and goes to the supervisor")
    request = await _granted(stage, entry)
    stage.title("4. One delivery, by law and within what was granted")
    await _delivered(stage, request)
    stage.title("5. An error is corrected at its source")
    await _corrected(stage, entry)
    stage.title("6. What everybody sees")
    shown = await _public(stage)
    if any(BRIEF.encode() in block for block in stored_blocks(stage.network.directory, CHANNEL)):
        raise CommandError("the demonstration stops: a block holds the brief", CHANNEL, "report this", 1)
    stage.out.say("  the brief is in three private collections, and in no block")
    stage.title("7. An auditor recomputes it all from the ledger's own bytes")
    report, good = await asyncio.to_thread(audit, stage)
    result = {
        "steps": [asdict(row) for row in stage.rows],
        "refusals": stage.refusals,
        **shown,
        "audit": report,
        "ok": good,
    }
    return result, good


async def _share(stage: Stage, organization: str, extra: bytes = b"") -> str:
    data = await asyncio.to_thread((stage.examples / "data" / "waybills.csv").read_bytes)
    async with stage.office(organization, CHANNEL) as office:
        shared = await office.share(data + extra, name="waybills.csv", purposes=["credit-assessment", "statistics"])
    stage.latest[CHANNEL] = shared.published
    return shared.id


async def _statement(stage: Stage, dataset: str, listing: Listing) -> Statement:
    async with stage.office("Logistics", CHANNEL) as office:
        columns = [column.name for column in (await office.dataset(dataset)).entry.columns]
    items = {column: f"waybill.{column.replace('_', '-')}" for column in columns[1:]}
    return Statement(title="Waybills", dataset=dataset, items=items, keys=tuple(columns[:1]), listing=listing)


async def _listed(stage: Stage) -> str:
    dataset = await _share(stage, "Logistics")
    closed = await _statement(stage, dataset, Listing(share="none"))
    stated = closed.model_copy(update={"listing": CONDITIONAL})
    async with _desk(stage, "Logistics") as transport:
        await stage.refused("transport closes its data by a word", "E_CITATION", transport.propose(closed))
        proposed = await transport.propose(stated)
        entry = proposed.record.id
        stage.done("transport states an entry", CHANNEL, proposed.committed, f"{len(stated.items)} data items")
    async with _desk(stage, "Government", "Keeper") as bureau:
        reviewed = await bureau.review(entry)
        stage.done("the bureau reviews it", CHANNEL, reviewed.committed, reviewed.record.state)
    async with _desk(stage, "Logistics") as transport:
        published = await transport.publish(entry)
        stage.done("transport publishes it", CHANNEL, published.committed, CONDITIONAL.condition or "")
    again = stated.model_copy(update={"dataset": await _share(stage, "Finance")})
    async with _desk(stage, "Finance") as finance:
        await stage.refused("finance collects the same again", "E_DUPLICATE", finance.propose(again))
    return entry


async def _granted(stage: Stage, entry: str) -> str:
    from sovchain.sovereign.exchange import salted_brief

    async with _desk(stage, "Finance") as finance:
        found = await finance.entry(entry)
    rows = 1_000
    fields = (*found.statement.items, *found.statement.keys)
    terms = Terms(fields=fields, rows_max=rows, window_days=30, until=datetime.now(UTC) + timedelta(days=30))
    brief, commitment = salted_brief(BRIEF.encode())
    asked = Asked(entry=entry, purpose="credit-assessment", duty=DUTY, brief=commitment, terms=terms)
    async with _desk(stage, "Finance") as finance:
        await stage.refused("finance asks before anybody was told why", "E_NOT_TOLD", finance.file(asked))
        for msp_id in ("GovernmentMSP", "LogisticsMSP", "FinanceMSP"):
            stage.latest[CHANNEL] = await finance.tell(msp_id, brief)
    async with _desk(stage, "Finance") as finance:
        filed = await finance.file(asked)
        request = filed.record.id
        due = filed.record.due.isoformat(timespec="minutes")
        stage.done("finance asks", CHANNEL, filed.committed, f"an answer is due by {due}")
    async with _desk(stage, "Government") as anyone:
        await stage.refused("somebody calls it overdue today", "E_TIME", anyone.tick(request))
    async with _desk(stage, "Logistics") as transport:
        more = terms.model_copy(update={"rows_max": 10**6})
        await stage.refused("transport grants more than was asked", "E_INPUT", transport.grant(request, more))
        refused = await transport.refuse(request, "the register is being rebuilt")
        stage.done("transport refuses", CHANNEL, refused.committed, refused.record.reason)
    async with _desk(stage, "Finance") as finance:
        await stage.refused("finance rules for itself", "E_ACCESS", finance.order(request, terms, "we need it"))
        escalated = await finance.escalate(request, "a register is readable while it is rebuilt")
        stage.done("finance escalates", CHANNEL, escalated.committed, escalated.record.ground)
    narrowed = terms.model_copy(update={"rows_max": await _rows(stage, entry)})
    async with _desk(stage, "Supervisor") as supervisor:
        ordered = await supervisor.order(request, narrowed, "the duty is shown")
        stage.done("the supervisor orders it", CHANNEL, ordered.committed, f"{narrowed.rows_max} rows in 30 days")
    async with _desk(stage, "Finance") as finance:
        agreed = await finance.agree(request)
        stage.done("finance signs the agreement", CHANNEL, agreed.committed, "both signatures on record")
    return request


async def _rows(stage: Stage, entry: str) -> int:
    async with _desk(stage, "Supervisor") as desk, stage.office("Supervisor", CHANNEL) as office:
        return (await office.dataset((await desk.entry(entry)).statement.dataset)).entry.rows


async def _permit(stage: Stage, request: str, purpose: str) -> str:
    async with _desk(stage, "Finance") as desk:
        dataset = (await desk.entry((await desk.request(request)).asked.entry)).statement.dataset
    async with stage.office("Finance", CHANNEL) as finance:
        answer = await finance.request(dataset, purpose)
        stage.latest[CHANNEL] = answer.decided
        return answer.request


async def _delivered(stage: Stage, request: str) -> None:
    creeping = await _permit(stage, request, "statistics")
    async with _desk(stage, "Finance") as finance:
        await stage.refused("finance draws for another purpose", "E_PURPOSE", finance.draw(request, creeping))
    drawn = await _permit(stage, request, "credit-assessment")
    async with _desk(stage, "Finance") as finance:
        done = await finance.draw(request, drawn)
        stage.done("finance draws a delivery", CHANNEL, done.committed, f"{done.record.rows} rows, permitted by law")
        await stage.refused("finance confirms what has not come", "E_NOT_DELIVERED", finance.confirm(request))
    async with stage.office("Logistics", CHANNEL) as transport:
        released = await transport.release(drawn)
        stage.done("transport releases it", CHANNEL, released.committed, "into finance's private collection only")
    async with stage.office("Finance", CHANNEL) as office:
        received = await office.open(drawn)
    async with _desk(stage, "Finance") as finance:
        confirmed = await finance.confirm(request)
        stage.done("finance confirms it", CHANNEL, confirmed.committed, f"{len(received)} bytes, hash checked")
        misused = finance.report(request, "marketing", b"sold")
        await stage.refused("finance reports another use", "E_PURPOSE", misused)
        reported = await finance.report(request, "credit-assessment", b"three forwarders were assessed")
        stage.done("finance reports its use", CHANNEL, reported.committed, reported.record.state)
    second = await _permit(stage, request, "credit-assessment")
    async with _desk(stage, "Finance") as finance:
        await stage.refused("finance draws beyond the quota", "E_QUOTA", finance.draw(request, second))


async def _corrected(stage: Stage, entry: str) -> None:
    from sovchain.sovereign.exchange import salted_brief

    particulars, commitment = salted_brief(b"the weight of one waybill is wrong")
    async with _desk(stage, "Finance") as finance:
        for msp_id in ("GovernmentMSP", "LogisticsMSP"):
            stage.latest[CHANNEL] = await finance.tell(msp_id, particulars)
    async with _desk(stage, "Finance") as finance:
        claimed = await finance.claim(entry, commitment)
        stage.done("finance claims an error", CHANNEL, claimed.committed, "ten working days for an answer")
    async with _desk(stage, "Logistics") as transport:
        unsaid = transport.correct(claimed.record.id)
        await stage.refused("transport calls the same data corrected", "E_DATASET", unsaid)
    dataset = await _share(stage, "Logistics", b"\n")
    async with _desk(stage, "Logistics") as transport:
        stage.latest[CHANNEL] = (await transport.supply(entry, dataset)).committed
    async with _desk(stage, "Logistics") as transport:
        corrected = await transport.correct(claimed.record.id)
        stage.done("transport corrects its data", CHANNEL, corrected.committed, "everybody gets them from there")


async def _public(stage: Stage) -> dict[str, Any]:
    async with _desk(stage, "Government") as anyone:
        catalogue, table = await anyone.public_catalogue(), await anyone.league()
    for entry in catalogue:
        stage.out.say(f"  {entry.title} of {entry.provider}: {entry.share}, {len(entry.items)} items, {entry.state}")
    for line in table:
        stage.out.say(
            f"  {line.provider}: {line.answered} of {line.asked} answered, {line.late} late, {line.refused} refused, "
            f"within {line.answer_hours} hours"
        )
    return {
        "catalogue": [one.model_dump(mode="json") for one in catalogue],
        "league": [one.model_dump(mode="json") for one in table],
    }


DEMO = Demonstration(topology, play)
