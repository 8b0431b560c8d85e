"""The working-day calendar: holidays and make-up working days, enacted as data, from which statutory periods are counted.

    due = await working_days_after(view, "CN-GZ-520100", ctx.timestamp, 10)

A period in days is counted as the Civil Code has it: the day on which it starts does not count (article 201), it ends with the
last day in local time, and a last day that is a holiday is followed by the next working day (203). The moments come from the
transaction's time and from enacted calendars alone, so that every endorser and every auditor counts the same. A year that
nobody has enacted is a refusal, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field, model_validator

from sovchain.chaincode import Context, Contract, query, transaction
from sovchain.contracts.core import ballots, store
from sovchain.contracts.core.ballots import Seats
from sovchain.contracts.core.codes import jurisdiction_path
from sovchain.contracts.core.records import BallotView, Hex32, JurisdictionCode, Page, Record, ShortText, Timestamp
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StateView, StubView

UTC_OFFSETS: Final[Mapping[str, timedelta]] = MappingProxyType(
    {nation: timedelta(hours=hours) for nation, hours in (
        ("CN", 8), ("HK", 8), ("MO", 8), ("SG", 8), ("JP", 9), ("KR", 9), ("TH", 7), ("VN", 7),
    )}
)  # fmt: skip
"""Legal time of the nations that have one, the year round, with Saturday and Sunday as their weekend."""
PERIOD_MAX_DAYS: Final = 400
"""Longest period that is counted, in days of either kind: it bounds what one transaction reads and walks."""
_WALK_MAX_DAYS: Final = 3 * 366
EXCEPTIONS_MAX: Final = 120

Days = Annotated[int, Field(ge=0, le=PERIOD_MAX_DAYS)]
WorkingDays = Annotated[int, Field(ge=1, le=PERIOD_MAX_DAYS)]
CalendarYear = Annotated[int, Field(ge=2000, le=9998)]


class Calendar(Record):
    """One year's exceptions from the plain week, as an act states them.

    A nation's calendar is the base. That of a province or city lists only the days that differ there, such as a region's own
    holiday. `source` names the act.
    """

    jurisdiction: JurisdictionCode
    year: CalendarYear
    source: ShortText
    holidays: Annotated[tuple[date, ...], Field(max_length=EXCEPTIONS_MAX)]
    working_days: Annotated[tuple[date, ...], Field(max_length=EXCEPTIONS_MAX)] = ()

    @model_validator(mode="after")
    def _check(self) -> Calendar:
        days = [*self.holidays, *self.working_days]
        wrong = [day for day in days if day.year != self.year]
        if wrong:
            raise ValueError(f"{wrong[0]} is no day of {self.year}")
        if len(set(days)) != len(days):
            raise ValueError("a day is there twice, or is both a holiday and a working day")
        if self.holidays != tuple(sorted(self.holidays)) or self.working_days != tuple(sorted(self.working_days)):
            raise ValueError("the days are not in order")
        if self.jurisdiction[:2] not in UTC_OFFSETS:
            raise ValueError(
                f"the legal time of {self.jurisdiction[:2]} is not known here: {', '.join(UTC_OFFSETS)} are"
            )
        return self


class EnactedCalendar(Record):
    """A calendar that a ballot passed. A later one for the same year takes its place from then on; what was counted by the
    earlier one stands, and the earlier draft stays under its own ballot."""

    calendar: Calendar
    ballot: Hex32
    enacted_at: Timestamp
    replaces: Hex32 | None = None


class Calendars(Contract):
    """Calendars by jurisdiction and year."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats

    @transaction
    async def propose(self, ctx: Context, calendar: Calendar) -> str:
        """Put a year's calendar to the vote, a first or a changed one. Returns the ballot's id.

        Called by an admin of a seat. Raises E_ROLE, E_SEAT.
        """
        title = f"calendar of {calendar.jurisdiction} for {calendar.year}"
        ballot = await ballots.open_ballot(ctx, self._seats, "calendar", title)
        await store.write(ctx, calendar, store.CALENDAR_DRAFT, ballot.id)
        ctx.set_event("CalendarProposed", {"ballot": ballot.id})
        return ballot.id

    @transaction
    async def vote(self, ctx: Context, ballot: Hex32) -> BallotView:
        """Cast the vote of the caller's class of seat. The vote that completes the quorum enacts the calendar.

        Called by an admin of a seat. Raises E_ROLE, E_SEAT, E_NOT_FOUND, E_STATE, E_TIME.
        """
        cast = await ballots.cast_vote(ctx, self._seats, ballot, ("calendar",))
        if cast.ballot.state == "passed":
            view = StubView(ctx.stub)
            calendar = await store.require(view, Calendar, store.CALENDAR_DRAFT, ballot)
            place = (store.CALENDAR, calendar.jurisdiction, str(calendar.year))
            before = await store.read(view, EnactedCalendar, *place)
            enacted = EnactedCalendar(
                calendar=calendar, ballot=ballot, enacted_at=ctx.timestamp, replaces=before.ballot if before else None
            )
            await store.write(ctx, enacted, *place)
        ctx.set_event("CalendarEnacted" if cast.ballot.state == "passed" else "Voted", {"ballot": ballot})
        return cast

    @query
    async def draft(self, ctx: Context, ballot: Hex32) -> Calendar:
        """What a ballot on a calendar is or was about. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Calendar, store.CALENDAR_DRAFT, ballot)

    @query
    async def listing(self, ctx: Context, bookmark: str = "") -> Page[EnactedCalendar]:
        """The calendars in force, by jurisdiction and year."""
        return await store.page(ctx.stub, EnactedCalendar, store.CALENDAR, bookmark=bookmark)

    @query
    async def working_days_after(
        self, ctx: Context, jurisdiction: JurisdictionCode, start: Timestamp, days: WorkingDays
    ) -> Timestamp:
        """When a period of working days that starts at a moment is over. Raises E_CALENDAR."""
        return await working_days_after(StubView(ctx.stub), jurisdiction, start, days)

    @query
    async def days_after(self, ctx: Context, jurisdiction: JurisdictionCode, start: Timestamp, days: Days) -> Timestamp:
        """When a period of days that starts at a moment is over. Raises E_CALENDAR."""
        return await days_after(StubView(ctx.stub), jurisdiction, start, days)


async def working_days_after(view: StateView, jurisdiction: str, start: datetime, days: int) -> datetime:
    """The end of the `days`-th working day after the day of `start`, in local time: the first moment that is too late.

    Raises ContractError E_CALENDAR for a year that is not enacted or a place whose legal time is not known; ValueError for
    `days` outside 1 to `PERIOD_MAX_DAYS`.
    """
    if not 1 <= days <= PERIOD_MAX_DAYS:
        raise ValueError(f"a period has 1 to {PERIOD_MAX_DAYS} working days, not {days}")
    years = _Years(view, jurisdiction)
    for day in _following(local_day(jurisdiction, start)):
        days -= await years.works(day)
        if days == 0:
            return _end(jurisdiction, day)
    raise _no_working_day(jurisdiction, start)


async def days_after(view: StateView, jurisdiction: str, start: datetime, days: int) -> datetime:
    """The end of the `days`-th day after the day of `start`, or of the next working day if that one is none.

    The first moment that is too late. Raises as `working_days_after`, for `days` from 0.
    """
    if not 0 <= days <= PERIOD_MAX_DAYS:
        raise ValueError(f"a period has 0 to {PERIOD_MAX_DAYS} days, not {days}")
    last = local_day(jurisdiction, start) + timedelta(days=days)
    return _end(jurisdiction, await _first_working(view, jurisdiction, last, start))


async def next_working_moment(view: StateView, jurisdiction: str, moment: datetime) -> datetime:
    """The moment itself on a working day, otherwise the same time of the next working day. Raises ContractError E_CALENDAR."""
    day = local_day(jurisdiction, moment)
    return moment + (await _first_working(view, jurisdiction, day, moment) - day)


def local_day(jurisdiction: str, moment: datetime) -> date:
    """The day that a moment lies on in a jurisdiction. Raises ContractError E_CALENDAR for unknown legal time."""
    return moment.astimezone(_zone(jurisdiction)).date()


class _Years:
    """The calendars of one jurisdiction, each read when the walk comes to its year."""

    def __init__(self, view: StateView, jurisdiction: str) -> None:
        self._view, self._jurisdiction = view, jurisdiction
        self._read: dict[int, dict[date, bool]] = {}

    async def works(self, day: date) -> bool:
        if day.year not in self._read:
            self._read[day.year] = await self._exceptions(day.year)
        return self._read[day.year].get(day, day.isoweekday() <= 5)

    async def _exceptions(self, year: int) -> dict[date, bool]:
        nation, *lower = jurisdiction_path(self._jurisdiction)
        base = await store.read(self._view, EnactedCalendar, store.CALENDAR, nation, str(year))
        if base is None:
            raise refusal(
                "E_CALENDAR",
                f"there is no calendar of {nation} for {year}",
                "a period in working days cannot be counted without it",
                "have the calendar of that year enacted and try again",
                jurisdiction=nation,
                year=year,
            )
        found = _days(base.calendar)
        for place in lower:
            own = await store.read(self._view, EnactedCalendar, store.CALENDAR, place, str(year))
            found |= _days(own.calendar) if own is not None else {}
        return found


def _days(calendar: Calendar) -> dict[date, bool]:
    return dict.fromkeys(calendar.holidays, False) | dict.fromkeys(calendar.working_days, True)


async def _first_working(view: StateView, jurisdiction: str, day: date, start: datetime) -> date:
    years = _Years(view, jurisdiction)
    for candidate in _following(day - timedelta(days=1)):
        if await years.works(candidate):
            return candidate
    raise _no_working_day(jurisdiction, start)


def _following(day: date) -> Iterator[date]:
    return (day + timedelta(days=count) for count in range(1, _WALK_MAX_DAYS + 1))


def _zone(jurisdiction: str) -> timezone:
    offset = UTC_OFFSETS.get(jurisdiction[:2])
    if offset is None:
        raise refusal(
            "E_CALENDAR",
            f"the legal time of {jurisdiction[:2]} is not known here",
            f"periods are counted in {', '.join(UTC_OFFSETS)}",
            "count it for one of these places",
            jurisdiction=jurisdiction,
        )
    return timezone(offset)


def _end(jurisdiction: str, day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), _zone(jurisdiction)).astimezone(UTC)


def _no_working_day(jurisdiction: str, start: datetime) -> Exception:
    return refusal(
        "E_CALENDAR",
        f"the calendars of {jurisdiction} leave no such day after {start.date()}",
        f"{_WALK_MAX_DAYS} days were looked at",
        "have the calendar corrected by an act",
        jurisdiction=jurisdiction,
    )
