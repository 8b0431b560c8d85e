"""The scenario commercial-drafts on stage: a draft from its issue to its payment, and one that is refused and recovered.

The parties, their trade and the court's order are inventions; the drafts are drills, so that they mature in seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sovchain.cli.problems import CommandError
from sovchain.cli.scenarios import Demonstration, on_channels, with_users
from sovchain.cli.stage import Stage, admit, audit
from sovchain.contracts.finance.draft_rules import Draft, Issue
from sovchain.network.stored import stored_blocks

if TYPE_CHECKING:
    from sovchain.network import Topology
    from sovchain.sovereign.drafts import DraftDesk

CHANNEL: Final = "finance"
BANK: Final = "FinanceMSP"
PARTIES: Final = ("tea", "foods", "mill", "farm", "surety", "discounter")
FACE_FEN: Final = 5_000_000
TRADE: Final = "Qianhe Tea sells four tonnes of tea to Nanming Foods"
TERM: Final = timedelta(seconds=20)
"""How long the first draft runs: time for what happens before maturity, on the slowest of the runtimes."""


def topology(default: Topology) -> Topology:
    """The finance channel alone, with the bank's customers as users of the bank."""
    users = [{"name": name.capitalize(), "attributes": {"party": name}} for name in PARTIES]
    return with_users(on_channels(default, CHANNEL), {"Finance": users})


def party(name: str) -> str:
    """A customer of the bank, as drafts name it."""
    return f"{BANK}/{name}"


@asynccontextmanager
async def _desk(stage: Stage, name: str, organization: str = "Finance") -> AsyncIterator[DraftDesk]:
    from sovchain.sovereign.drafts import DraftDesk

    async with stage.seen(organization, CHANNEL, name.capitalize()) as channel:
        yield DraftDesk(channel)


async def play(stage: Stage) -> tuple[dict[str, Any], bool]:
    """Play the scenario. Returns what was done, and whether everything ended as it must."""
    stage.title("1. The channel admits its organisations, and the regulator licenses who may discount")
    await admit(stage, CHANNEL, "finance.yaml", "admit the organisations")
    await _license(stage)
    stage.title("2. A draft is issued and accepted; the trade behind it stays with the bank")
    first = await _accepted(stage, TERM, tried=True)
    stage.title("3. It is endorsed and discounted; each link is signed by its taker")
    await _endorsed(stage, first)
    second = await _split(stage, await _accepted(stage, 2 * TERM, tried=False))
    await _pass_on(stage, second, "mill", "farm")
    stage.title("4. It is presented at maturity, and paid exactly once")
    await _paid(stage, first)
    stage.title("5. Another one is refused, and the claim goes back along the chain")
    await _recovered(stage, second)
    stage.title("6. No block holds the trade")
    if any(TRADE.encode() in block for block in stored_blocks(stage.network.directory, CHANNEL)):
        raise CommandError("the demonstration stops: a block holds the trade", CHANNEL, "report this", 1)
    stage.out.say("  four tonnes of tea are in the bank's private collection, and in no block")
    stage.title("7. An auditor recomputes it all from the ledger's own bytes")
    report, good = await asyncio.to_thread(audit, stage)
    drafts = [await _read(stage, draft) for draft in (first, second)]
    result = {
        "steps": [asdict(row) for row in stage.rows],
        "refusals": stage.refusals,
        "drafts": [draft.model_dump(mode="json") for draft in drafts],
        "audit": report,
        "ok": good,
    }
    return result, good


async def _read(stage: Stage, draft: str) -> Draft:
    async with _desk(stage, "User1", "Supervisor") as supervisor:
        return await supervisor.read(draft)


async def _license(stage: Stage) -> None:
    async with _desk(stage, "Discounter") as discounter:
        await stage.refused("a customer licenses itself", "E_ACCESS", discounter.license(party("discounter")))
    async with _desk(stage, "User1", "Supervisor") as supervisor:
        licensed = await supervisor.license(party("discounter"))
    stage.done("the regulator licenses the discounter", CHANNEL, licensed.committed, licensed.record.party)


async def _accepted(stage: Stage, term: timedelta, *, tried: bool) -> str:
    from sovchain.sovereign.drafts import salted_terms

    terms, commitment = salted_terms(TRADE.encode())
    issue = Issue(
        kind="draft", face_fen=FACE_FEN, acceptor=party("foods"), payee=party("tea"), terms=commitment, drill=True,
        matures_at=datetime.now(UTC) + term,
    )  # fmt: skip
    async with _desk(stage, "Tea") as tea:
        issued = await tea.issue(issue)
        draft = issued.record.id
        stage.done("tea draws on foods", CHANNEL, issued.committed, f"{FACE_FEN / 100:,.2f} yuan, as a drill")
    if tried:
        async with _desk(stage, "Foods") as foods:
            await stage.refused("foods accepts terms that its bank does not know", "E_NOT_TOLD", foods.accept(draft))
    async with _desk(stage, "Tea") as tea:
        if tried:
            await stage.refused("tea tells other terms", "E_COMMITMENT", tea.tell(draft, BANK, terms + b"!"))
            await stage.refused("tea accepts for foods", "E_ACCESS", tea.accept(draft))
        told = await tea.tell(draft, BANK, terms)
        stage.done("tea tells the bank the terms", CHANNEL, told, "in the bank's private collection only")
    async with _desk(stage, "Foods") as foods:
        accepted = await foods.accept(draft)
        stage.done("foods accepts", CHANNEL, accepted.committed, "bound to pay, without condition")
    return draft


async def _pass_on(stage: Stage, draft: str, giver: str, taker: str) -> None:
    async with _desk(stage, giver) as desk:
        offered = await desk.offer(draft, party(taker), "transfer")
    stage.latest[CHANNEL] = offered.committed
    async with _desk(stage, taker) as desk:
        signed = await desk.sign(draft)
    stage.done(f"{giver} endorses to {taker}", CHANNEL, signed.committed, f"link {len(signed.record.endorsements)}")


async def _split(stage: Stage, draft: str) -> str:
    """A draft that goes from tea to mill, is guaranteed for mill, and split: the second part, which mill endorses."""
    await _pass_on(stage, draft, "tea", "mill")
    async with _desk(stage, "Surety") as surety:
        await stage.refused("surety guarantees for nobody", "E_LIABLE", surety.guarantee(draft, party("farm")))
        guaranteed = await surety.guarantee(draft, party("tea"))
        stage.done("surety guarantees for tea", CHANNEL, guaranteed.committed, "jointly and without condition")
    async with _desk(stage, "Mill") as mill:
        await stage.refused("mill cuts off more than there is", "E_INPUT", mill.split(draft, FACE_FEN))
        parts = await mill.split(draft, 2_000_000)
        amounts = " and ".join(f"{part.amount_fen / 100:,.2f}" for part in parts.record)
        stage.done("mill splits it", CHANNEL, parts.committed, f"{amounts} yuan")
        await stage.refused("mill endorses the whole again", "E_STATE", mill.offer(draft, party("farm"), "transfer"))
        lost = parts.record[0].id
        stopped = await mill.stop(lost, "the office was broken into")
        stage.done("mill reports the first part lost", CHANNEL, stopped.committed, "stopped for twelve days")
        await stage.refused("mill endorses what is stopped", "E_STATE", mill.offer(lost, party("farm"), "transfer"))
        stage.latest[CHANNEL] = (await mill.resume(lost)).committed
    return parts.record[1].id


async def _endorsed(stage: Stage, draft: str) -> None:
    await _pass_on(stage, draft, "tea", "mill")
    async with _desk(stage, "Tea") as tea:
        offer = tea.offer(draft, party("farm"), "transfer")
        await stage.refused("tea passes it on a second time", "E_ACCESS", offer)
    async with _desk(stage, "Mill") as mill:
        await stage.refused("mill presents it too early", "E_MATURITY", mill.present(draft))
        offered = await mill.offer(draft, party("discounter"), "discount", rate_bp=360)
    stage.latest[CHANNEL] = offered.committed
    async with _desk(stage, "Discounter") as discounter:
        await stage.refused("it is discounted without an invoice", "E_INPUT", discounter.sign(draft))
        signed = await discounter.sign(draft, hashlib.sha256(b"invoice 2026-117").hexdigest())
    paid_fen = signed.record.endorsements[-1].price_fen or 0
    price = f"at 3.6 % a year: {paid_fen / 100:,.2f} yuan for the seconds that are left"
    stage.done("mill discounts it", CHANNEL, signed.committed, price)


async def _matured(stage: Stage, draft: str) -> None:
    """Wait until the draft's own day of payment: a time on the ledger has to pass."""
    due = (await _read(stage, draft)).issue.matures_at
    await asyncio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()) + 0.2)


async def _paid(stage: Stage, draft: str) -> None:
    await _matured(stage, draft)
    async with _desk(stage, "Discounter") as discounter:
        offer = discounter.offer(draft, party("farm"), "transfer")
        await stage.refused("the discounter passes on what is due", "E_MATURITY", offer)
        presented = await discounter.present(draft)
        stage.done("the discounter presents it", CHANNEL, presented.committed, "on the day of payment")
    async with _desk(stage, "Foods") as foods:
        paid = await foods.pay(draft, "NM-0001")
        stage.done("foods pays", CHANNEL, paid.committed, f"{paid.record.paid_fen / 100:,.2f} yuan")
        await stage.refused("foods pays a second time", "E_STATE", foods.pay(draft, "NM-0002"))


async def _recovered(stage: Stage, draft: str) -> None:
    await _matured(stage, draft)
    async with _desk(stage, "Farm") as farm:
        presented = await farm.present(draft)
    stage.done("farm presents it", CHANNEL, presented.committed, "on the day of payment")
    async with _desk(stage, "Foods") as foods:
        dishonoured = await foods.dishonour(draft, "no cover on the account")
    stage.done("foods refuses", CHANNEL, dishonoured.committed, dishonoured.record.reason)
    async with _desk(stage, "Farm") as farm:
        notified = await farm.notify(draft, party("mill"))
        stage.done("farm tells mill of it", CHANNEL, notified.committed, "within three days")
        await stage.refused("farm claims from a stranger", "E_LIABLE", farm.claim(draft, party("discounter")))
        claimed = await farm.claim(draft, party("mill"))
    stage.done("farm claims from mill", CHANNEL, claimed.committed, "its own predecessor")
    async with _desk(stage, "Mill") as mill:
        settled = await mill.settle(draft, "NM-0003")
        stage.done("mill pays and holds it", CHANNEL, settled.committed, "with the claim further back")
        await stage.refused("mill claims from farm", "E_LIABLE", mill.claim(draft, party("farm")))
        claimed = await mill.claim(draft, party("surety"))
        stage.done("mill claims from surety", CHANNEL, claimed.committed, "tea's guarantor")
    async with _desk(stage, "Surety") as surety:
        settled = await surety.settle(draft, "NM-0005")
        stage.done("surety pays and holds it", CHANNEL, settled.committed, "with the claim on whom it guaranteed")
        await stage.refused("surety claims from mill", "E_LIABLE", surety.claim(draft, party("mill")))
        claimed = await surety.claim(draft, party("tea"))
        stage.done("surety claims from tea", CHANNEL, claimed.committed, "the drawer")
    async with _desk(stage, "Tea") as tea:
        ended = await tea.settle(draft, "NM-0004")
    stage.done("tea pays", CHANNEL, ended.committed, ended.record.state)


DEMO = Demonstration(topology, play)
