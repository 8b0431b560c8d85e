"""The scenario poverty-relief on stage: from a household's application to its payment, on two channels.

The household, its account and the programme are inventions; the programme is a drill, so that its publicity is short.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

from sovchain.cli.problems import CommandError
from sovchain.cli.scenarios import Demonstration, with_users
from sovchain.cli.stage import Stage, admit, audit, enact, pin
from sovchain.contracts.core import Crossing
from sovchain.contracts.government.relief import PURPOSE, Office, Programme
from sovchain.network.stored import stored_blocks

if TYPE_CHECKING:
    from sovchain.network import Topology
    from sovchain.sovereign import Passage, PayoutDesk, ReliefOffice

PROGRAMME: Final = Programme(
    id="nanming-2026",
    title="relief of the Nanming district, a drill",
    authority="GovernmentMSP",
    bank="FinanceMSP",
    budget_fen=1_000_000,
    grant_fen=285_500,
    publicity_s=1,
    drill=True,
)
_PUBLICITY_S: Final = PROGRAMME.publicity_s + 0.2
_RESIDENTS: Final = {
    "Shuitang": ("520102190001010011", "6217000012345678"),
    "Yuanjing": ("520102190001010022", "6217000087654321"),
}

_OFFICES: Final = get_args(Office)


def topology(default: Topology) -> Topology:
    """The same network with the government's offices as persons: a case needs a signer at each level."""
    officers = [{"name": office.capitalize(), "attributes": {"office": office}} for office in _OFFICES]
    return with_users(default, {"Government": officers})


@dataclass(frozen=True)
class Household:
    """What the village knows of a household; none of it goes on a ledger."""

    village: str
    number: str
    pseudonym: str
    payee: bytes


async def play(stage: Stage) -> tuple[dict[str, Any], bool]:
    """Play the scenario. Returns what was done, and whether everything ended as it must."""
    stage.title("1. Two channels admit their organisations, and each pins whose peers speak for the other")
    for channel in ("government", "finance"):
        await admit(stage, channel, "finance.yaml", f"admit the organisations of {channel}")
    await pin(stage, "government", "finance")
    stage.title(
        "2. The law is enacted once, on the government channel, and promulgated to the finance channel by proof"
    )
    await enact(stage, "government")
    await _promulgate(stage)
    stage.title("3. A household applies; each level decides by another person, and an objection is heard")
    await _open_programme(stage)
    homes = [_household(village) for village in _RESIDENTS]
    first = await _approved(stage, homes[0], contested=True)
    stage.title("4. The approval crosses to the finance channel, and the bank pays exactly once")
    await _paid(stage, first, homes[0])
    stage.title("5. Cancelling and importing in one block: one of them wins, and the other changes nothing")
    second = await _approved(stage, homes[1], contested=False)
    winner = await _raced(stage, second)
    stage.title("6. The public sees the money's way, and no person")
    flow = await _public(stage, homes)
    stage.title("7. An auditor recomputes it all from the ledgers' own bytes")
    report, good = await asyncio.to_thread(audit, stage)
    result = {
        "steps": [asdict(row) for row in stage.rows],
        "refusals": stage.refusals,
        "winner": winner,
        "flow": flow,
        "audit": report,
        "ok": good,
    }
    return result, good


@asynccontextmanager
async def _relief(stage: Stage, organization: str, user: str = "User1") -> AsyncIterator[ReliefOffice]:
    from sovchain.sovereign import ReliefOffice

    async with stage.seen(organization, "government", user) as channel:
        yield ReliefOffice(channel)


@asynccontextmanager
async def _desk(stage: Stage, organization: str) -> AsyncIterator[PayoutDesk]:
    from sovchain.sovereign import PayoutDesk

    async with stage.seen(organization, "finance") as channel:
        yield PayoutDesk(channel)


@asynccontextmanager
async def _passage(stage: Stage, organization: str, user: str = "User1") -> AsyncIterator[Passage]:
    """The way from the government channel to the finance channel, for a user who acts on both."""
    from sovchain.sovereign import Passage

    async with (
        stage.seen(organization, "government", user) as government,
        stage.seen(organization, "finance", user) as finance,
    ):
        yield Passage(government, finance)


async def _promulgate(stage: Stage) -> None:
    async with _passage(stage, "Finance") as passage:
        asked = await passage.ask("law", "GY-DS-2026/1", "supervision")
        await passage.send(asked.record.id)
        arrived = await passage.accept(asked.record.id)
    endorsers = ", ".join(arrived.record.endorsers)
    stage.done("promulgate the law", "finance", arrived.committed, f"in force on finance, vouched for by {endorsers}")


async def _open_programme(stage: Stage) -> None:
    async with _relief(stage, "Government", "Admin") as office:
        opened = await office.open_programme(PROGRAMME)
    money = f"{PROGRAMME.budget_fen / 100:,.2f} yuan, {PROGRAMME.grant_fen / 100:,.2f} for a household"
    stage.done("open the programme", "government", opened.committed, money)


def _household(village: str) -> Household:
    from sovchain.sovereign.relief import salted

    number, account = _RESIDENTS[village]
    # The key stays with the authority: 18-digit numbers can be enumerated, so a bare hash would disclose them.
    pseudonym = hmac.new(secrets.token_bytes(32), number.encode(), hashlib.sha256).hexdigest()
    return Household(village, number, pseudonym, salted(account))


async def _approved(stage: Stage, home: Household, *, contested: bool) -> str:
    """A case's way to its approval; with an objection on the way, and with attempts that are refused."""
    from sovchain.sovereign.relief import payee_hash

    async with _relief(stage, "Government", "Clerk") as clerk:
        applied = await clerk.apply(PROGRAMME.id, home.pseudonym, home.village, payee_hash(home.payee))
    case = applied.record.id
    stage.done("a household applies", "government", applied.committed, f"case {case[:16]}… in {home.village}")
    async with _relief(stage, "Government", "Village") as village:
        reviewed = await village.review(case, votes_for=31, votes_against=4, eligible=60)
    stage.done("the villagers' assembly reviews", "government", reviewed.committed, "31 for, 4 against, of 60")
    async with _relief(stage, "Government", "Notice") as notice:
        published = await notice.publish(case)
    stage.done("village publicity begins", "government", published.committed, f"{PROGRAMME.publicity_s} s, as a drill")
    if contested:
        await _contested(stage, case)
    await asyncio.sleep(_PUBLICITY_S)  # a period on the ledger's own time has to pass
    async with _relief(stage, "Government", "Township") as township:
        audited = await township.audit(case, "income and housing checked on site")
    stage.done("the township audits", "government", audited.committed, "in order")
    async with _relief(stage, "Government", "Notice") as notice:
        published = await notice.publish(case)
    stage.done("the second publicity begins", "government", published.committed, f"{PROGRAMME.publicity_s} s")
    await asyncio.sleep(_PUBLICITY_S)
    async with _relief(stage, "Government", "County") as county:
        approved = await county.approve(case)
    stage.done("the county approves", "government", approved.committed, f"{PROGRAMME.grant_fen / 100:,.2f} yuan")
    return case


async def _contested(stage: Stage, case: str) -> None:
    async with _relief(stage, "Government", "Township") as township:
        await stage.refused("the township audits before the publicity ends", "E_PUBLICITY", township.audit(case, "-"))
    async with _relief(stage, "Government", "Village") as village:
        await stage.refused("the village audits in the township's place", "E_OFFICE", village.audit(case, "-"))
    async with _relief(stage, "Supervisor") as supervisor:
        raised = await supervisor.object(case, "a car is registered for the household")
    stage.done("the supervisor objects", "government", raised.committed, raised.record.ground)
    await asyncio.sleep(_PUBLICITY_S)
    async with _relief(stage, "Government", "Township") as township:
        await stage.refused("the township audits over the objection", "E_OBJECTION", township.audit(case, "-"))
        resolved = await township.resolve(case, raised.record.id, "dismissed", "the car was sold in 2024, deed seen")
    stage.done("the objection is resolved", "government", resolved.committed, resolved.record.finding)


async def _paid(stage: Stage, case: str, home: Household) -> None:
    async with _passage(stage, "Finance") as bank:
        asked = await bank.ask("relief-approval", case, PURPOSE, action="move")
        stage.done("the bank asks for the approval", "finance", asked.committed, "a challenge, to be answered once")
    async with _passage(stage, "Government", "County") as county:
        sent = await county.send(asked.record.id)
        stage.done("the county sends it", "government", sent.committed, "locked here, against the bank channel's word")
    async with _passage(stage, "Finance") as bank:
        proof = await bank.outgoing_view(asked.record.id)
        altered = bytearray(proof)
        altered[len(proof) // 2] ^= 1
        await stage.refused(
            "the bank alters one bit of the proof", "E_VIEW", bank.accept(asked.record.id, bytes(altered))
        )
        arrived = await bank.accept(asked.record.id, proof)
        stage.done("the bank presents the proof", "finance", arrived.committed,
                   f"{len(proof)} bytes, signed by peers of {', '.join(arrived.record.endorsers)}")  # fmt: skip
        await stage.refused("the bank presents it again", "E_STATE", bank.accept(asked.record.id, proof))
        await stage.refused(
            "the bank cancels after the import", "E_STATE", bank.cancel(asked.record.id, "for a refund")
        )
        again = await bank.ask("relief-approval", case, PURPOSE, action="move")
        await stage.refused(
            "the bank presents it for another challenge", "E_MISMATCH", bank.accept(again.record.id, proof)
        )
    async with _passage(stage, "Government", "County") as county:
        await stage.refused("the county sends it a second time", "E_STATE", county.send(again.record.id))
        finalised = await county.finalise(asked.record.id)
        stage.done("the county ends the lock", "government", finalised.committed, "the approval lives on finance now")
    await _pay(stage, case, home)


async def _pay(stage: Stage, case: str, home: Household) -> None:
    from sovchain.sovereign.relief import salted

    async with _desk(stage, "Finance") as bank, _desk(stage, "Government") as authority:
        await stage.refused("the bank pays without the account", "E_NO_PAYEE", bank.pay(case, "NM-0001"))
        other = salted("6217000099999999")
        await stage.refused("somebody names another account", "E_COMMITMENT", authority.tell_payee(case, other))
        told = await authority.tell_payee(case, home.payee)
        stage.done("the authority tells the account", "finance", told, "in the bank's private collection only")
        await bank.reached(told)
        paid = await bank.pay(case, "NM-0001")
        stage.done("the bank pays", "finance", paid.committed, f"{paid.record.amount_fen / 100:,.2f} yuan")
        await stage.refused("the bank pays a second time", "E_STATE", bank.pay(case, "NM-0002"))
        await authority.reached(paid.committed)
        confirmed = await authority.confirm(case)
        stage.done("the household confirms", "finance", confirmed.committed, "the money came")


async def _raced(stage: Stage, case: str) -> str:
    """Import and cancellation of one challenge, both endorsed before either is ordered."""
    from sovchain.client import CommitRejected

    async with _passage(stage, "Finance") as bank:
        asked = await bank.ask("relief-approval", case, PURPOSE, action="move")
        stage.latest["finance"] = asked.committed
    async with _passage(stage, "Government", "County") as county:
        sent = await county.send(asked.record.id)
        stage.latest["government"] = sent.committed
    async with _passage(stage, "Finance") as bank, stage.seen("Finance", "finance") as finance:
        proof = await bank.outgoing_view(asked.record.id)
        contract = finance.contract("finance")
        both = {
            "import": await contract.proposal(Crossing.accept, asked.record.id, proof).endorse(),
            "cancellation": await contract.proposal(Crossing.cancel, asked.record.id, "at the same moment").endorse(),
        }
        pending = {name: await endorsed.submit() for name, endorsed in both.items()}
        won = []
        for name, commit in pending.items():
            try:
                done = await commit.committed()
            except CommitRejected as rejected:
                stage.out.say(f"  the {name} loses: {rejected.code_name}")
                stage.refusals.append((f"the {name} in the race", rejected.code_name))
            else:
                won.append(name)
                stage.out.say(f"  the {name} wins (block {done.block_number})")
    if len(won) != 1:
        raise CommandError("the demonstration stops: the race had no single winner", f"won: {won}", "report this", 1)
    async with _passage(stage, "Government", "County") as county:
        settle = county.finalise if won == ["import"] else county.release
        settled = await settle(asked.record.id)
    stage.done("the county settles by the winner's proof", "government", settled.committed, settled.record.state)
    return won[0]


async def _public(stage: Stage, homes: list[Household]) -> list[dict[str, Any]]:
    async with _relief(stage, "Logistics") as public:
        flow = await public.flow(PROGRAMME.id)
    async with _desk(stage, "Supervisor") as supervisor:
        paid = {payout.case: payout.state for payout in await supervisor.payouts()}
    shown = [{**one.model_dump(), "payment": paid.get(one.case, "not ordered")} for one in flow]
    for row in shown:
        stage.out.say(f"  {row['village']}: {row['amount_fen'] / 100:,.2f} yuan approved, payment {row['payment']}")
    secret = [text.encode() for home in homes for text in (home.number, home.payee[32:].decode())]
    for channel in stage.network.channels:
        for block in stored_blocks(stage.network.directory, channel):
            if any(text in block for text in secret):
                raise CommandError("the demonstration stops: a block holds a secret", channel, "report this", 1)
    stage.out.say("  no block of any channel holds a household's number or account")
    return shown


DEMO = Demonstration(topology, play)
