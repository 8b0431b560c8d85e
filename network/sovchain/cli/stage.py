"""What demonstrations have in common: a network, what was said and done on it, and how bodies vote."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sovchain.cli.law_commands import load_calendar, load_organisations
from sovchain.cli.output import Output
from sovchain.cli.problems import CommandError

if TYPE_CHECKING:
    from sovchain.client import Network as Channel
    from sovchain.contracts.core.calendar import Calendar
    from sovchain.contracts.core.crossing_records import AnchorStatement
    from sovchain.network import Network
    from sovchain.sovereign import Answer, Committed, Proposed, Sovereign

VOTERS = {
    "government": ("Government", "Supervisor", "Finance"),
    "finance": ("Government", "Supervisor", "Finance"),
    "logistics": ("Government", "Supervisor", "Logistics"),
}
"""Who votes on a channel: legislator, regulator, sector."""


@dataclass(frozen=True)
class Row:
    """One line of the closing table."""

    step: str
    channel: str
    transaction_id: str
    block: int
    outcome: str


@dataclass
class Stage:
    """The running demonstration: its network, what it says, and what it has done."""

    network: Network
    out: Output
    examples: Path
    rows: list[Row] = field(default_factory=list)
    latest: dict[str, Committed] = field(default_factory=dict)
    refusals: list[tuple[str, str]] = field(default_factory=list)

    @asynccontextmanager
    async def seen(self, organization: str, channel: str, user: str = "User1") -> AsyncIterator[Channel]:
        """A channel as a user sees it, once every member's peer has what was done on the stage.

        Peers commit a block at different moments, and one that is behind would endorse or refuse by what it knows.
        """
        if channel in self.latest:
            members = self.network.topology.channel(channel).members
            await asyncio.gather(*(self._reached(member, channel) for member in members))
        async with self.network.connect(organization, user) as gateway:
            yield gateway.network(channel)

    async def _reached(self, organization: str, channel: str) -> None:
        async with self.network.connect(organization) as gateway:
            await gateway.network(channel).reached(self.latest[channel].block_number)

    @asynccontextmanager
    async def office(self, organization: str, channel: str, user: str = "User1") -> AsyncIterator[Sovereign]:
        """The sovereign core of a channel, likewise."""
        from sovchain.sovereign import Sovereign

        async with self.seen(organization, channel, user) as found:
            yield Sovereign(found)

    def title(self, text: str) -> None:
        """Say what comes next."""
        self.out.say(f"\n{text}")

    def done(self, step: str, channel: str, committed: Committed, outcome: str) -> None:
        """Record and say what was committed."""
        self.latest[channel] = committed
        self.rows.append(Row(step, channel, committed.transaction_id, committed.block_number, outcome))
        self.out.say(f"  {step}: {outcome} (block {committed.block_number})")

    async def refused(self, step: str, code: str, attempt: Awaitable[object]) -> None:
        """Try what must be refused, and say why it was. The demonstration stops when it is not, or for another reason."""
        from sovchain.sovereign import ContractRefusal

        try:
            await attempt
        except ContractRefusal as refusal:
            self.refusals.append((step, refusal.code))
            self.out.say(f"  {step}: refused, {refusal.code}: {refusal.what}: {refusal.why}")
            if refusal.code == code:
                return
            found = refusal.code
        else:
            found = "no refusal"
        raise CommandError(
            f"the demonstration stops: {step} ended in {found}",
            f"{code} was due",
            "report this as an error of sovchain",
            1,
        )

    def answered(self, step: str, channel: str, answer: Answer, wanted: str) -> None:
        """Record a decision. The demonstration stops when it is not the one that the law demands."""
        because = "; ".join(reason.text() for reason in answer.reasons)
        self.done(step, channel, answer.decided, f"{answer.decision}: {because}")
        if answer.decision != wanted:
            raise CommandError(
                f"the demonstration stops: {step} ended in {answer.decision}",
                because,
                "report this as an error of sovchain",
                1,
            )


async def passed(stage: Stage, channel: str, propose: Callable[[Sovereign], Awaitable[Proposed]]) -> Committed:
    """Propose something and have every class of seat vote for it; return the vote that completed the quorum."""
    first, *others = VOTERS[channel]
    async with stage.office(first, channel, "Admin") as office:
        proposed = await propose(office)
        voted = await office.vote(proposed.ballot)
    for voter in others:
        stage.latest[channel] = voted.committed
        async with stage.office(voter, channel, "Admin") as office:
            voted = await office.vote(proposed.ballot)
    return voted.committed


async def admit(stage: Stage, channel: str, file: str, step: str) -> None:
    """Have the organisations of a file admitted to a channel's registry."""
    organisations = load_organisations(stage.examples / "registry" / file)
    committed = await passed(stage, channel, lambda office: office.propose_admission(organisations))
    names = ", ".join(organisation.name for organisation in organisations)
    stage.done(step, channel, committed, f"admitted {names}")


async def pin(stage: Stage, *channels: str) -> None:
    """Have each of two channels pin whose peers speak for the other."""
    from sovchain.sovereign import anchor_statement

    for here, there in (channels, channels[::-1]):
        policy = stage.network.topology.chaincode(there).endorsement_policy
        async with stage.seen("Government", there) as channel:
            statement = await anchor_statement(channel, policy=policy)
        committed = await passed(stage, here, partial(_propose_anchor, statement))
        stage.done(f"{here} pins {there}", here, committed, f"epoch 1: {policy}")


async def _propose_anchor(statement: AnchorStatement, office: Sovereign) -> Proposed:
    return await office.propose_anchor(statement)


async def enact_calendars(stage: Stage, channel: str) -> None:
    """Have the working-day calendars of this year and the next one enacted: the examples', and else a plain year."""
    from sovchain.contracts.core.calendar import Calendar, local_day

    year = local_day("CN", datetime.now(UTC)).year
    for one in (year, year + 1):
        file = stage.examples / "calendars" / f"cn-{one}.yaml"
        plain = Calendar(jurisdiction="CN", year=one, source="a drill: a year without holidays", holidays=())
        calendar = load_calendar(file) if file.exists() else plain
        voted = await passed(stage, channel, partial(_propose_calendar, calendar))
        days = f"{len(calendar.holidays)} holidays, {len(calendar.working_days)} make-up working days"
        stage.done(f"enact the calendar of {one}", channel, voted, days)


async def _propose_calendar(calendar: Calendar, office: Sovereign) -> Proposed:
    return await office.propose_calendar(calendar)


async def enact(stage: Stage, channel: str) -> None:
    """Have the sample law enacted on a channel, with every vote shown."""
    first, *others = VOTERS[channel]
    async with stage.office(first, channel, "Admin") as office:
        proposed = await office.propose_law(stage.examples / "laws" / "guiyang-data-sharing.cedar")
        voted = await office.vote(proposed.ballot)
    header = proposed.draft.header
    name = f"{header.law} version {header.version}"
    stage.done(
        "propose the law", channel, proposed.committed, f"{name}, {len(proposed.draft.clauses)} clauses, under vote"
    )
    stage.latest[channel] = voted.committed
    for voter in others:
        async with stage.office(voter, channel, "Admin") as office:
            voted = await office.vote(proposed.ballot)
            (view,) = [law for law in await office.laws() if law.ballot == proposed.ballot]
        missing = (
            f"the vote of the {', '.join(view.missing)} is missing" if view.missing else "every class of seat has voted"
        )
        stage.done(f"{voter} votes", channel, voted.committed, f"{name} is {view.state}: {missing}")


def audit(stage: Stage) -> tuple[dict[str, Any], bool]:
    """Recompute everything from the stored blocks, then alter one byte of a copy and find it."""
    from sovchain.audit import verify_channel
    from sovchain.network.stored import stored_blocks
    from sovchain.protocol.blocks import iter_block_file, write_block_file

    reports = [verify_channel(stored_blocks(stage.network.directory, channel)) for channel in stage.network.channels]
    for report in reports:
        stage.out.say(
            f"  {report.channel}: {report.blocks} blocks, {report.endorsements} endorsements, "
            f"{sum(check.recomputed for check in report.receipts)} of {len(report.receipts)} receipts recomputed: "
            + ("in order" if report.ok else "; ".join(map(str, report.findings)))
        )
    channels = [*stage.network.channels]
    chosen = "finance" if "finance" in channels else channels[0]
    copy = bytearray(write_block_file(stored_blocks(stage.network.directory, chosen)))
    position = secrets.randbelow(len(copy))
    copy[position] ^= 1 << secrets.randbelow(8)
    altered = verify_channel(iter_block_file(bytes(copy)))
    stage.out.say(f"  one bit flipped in a copy of {chosen}, byte {position} of {len(copy)}:")
    for finding in altered.findings[:3]:
        stage.out.say(f"    found: {finding}")
    good = all(report.ok for report in reports) and not altered.ok
    data = {
        "channels": [report.to_json() for report in reports],
        "flipped": {"byte": position, "of": len(copy), "findings": [str(finding) for finding in altered.findings]},
    }
    return data, good
