"""The working-day calendar: enacted by ballot, counted in the jurisdiction's own days, and never guessed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scenario_cases import channel, place

from sovchain.chaincode import ContractError
from sovchain.contracts import government
from sovchain.contracts.core import Calendars, Registry, store
from sovchain.contracts.core.calendar import (
    UTC_OFFSETS,
    Calendar,
    EnactedCalendar,
    days_after,
    next_working_moment,
    working_days_after,
)
from sovchain.contracts.core.store import StateView, encode_record
from sovchain.testing import ContractHarness, refused

CITY = "CN-GZ-520100"
EXAMPLE = Path(__file__).parents[2] / "examples" / "calendars" / "cn-2026.yaml"
CN_2026 = Calendar.model_validate(yaml.safe_load(EXAMPLE.read_text()))


def calendar(**changes: Any) -> Calendar:
    return CN_2026.model_copy(update=changes)


def china(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+08:00").astimezone(UTC)


class Books:
    """Committed calendars as a state view; it counts what is read."""

    def __init__(self, *calendars: Calendar) -> None:
        self.reads = 0
        self.state = {
            store.key(store.CALENDAR, one.jurisdiction, str(one.year)): encode_record(
                EnactedCalendar(calendar=one, ballot="0" * 64, enacted_at=china("2026-01-01T00:00"))
            )
            for one in calendars
        }

    async def get(self, key: str) -> bytes | None:
        self.reads += 1
        return self.state.get(key)

    async def range(self, start: str, end: str) -> Any:
        raise AssertionError("a calendar is read by its key")
        yield


def plain(year: int, jurisdiction: str = "CN") -> Calendar:
    return Calendar(jurisdiction=jurisdiction, year=year, source="a plain year", holidays=())


@pytest.mark.parametrize(
    ("start", "days", "end"),
    [
        ("2026-11-25T16:00", 10, "2026-12-10T00:00"),  # a Wednesday: two weekends between
        ("2026-02-13T09:00", 10, "2026-03-06T00:00"),  # nine days of Spring Festival, make-up Saturdays 14 and 28
        ("2026-09-30T09:00", 1, "2026-10-09T00:00"),  # the National Day's week
        ("2026-10-08T09:00", 2, "2026-10-11T00:00"),  # Saturday 10 October is worked
        ("2026-11-25T00:00", 1, "2026-11-27T00:00"),  # the first minute of a day is that day's
        ("2026-11-25T23:59", 1, "2026-11-27T00:00"),  # and the last one: in UTC this is the same day, at 15:59
    ],
)
async def test_working_days_are_counted_in_local_days_after_the_first(start: str, days: int, end: str) -> None:
    assert await working_days_after(Books(CN_2026), CITY, china(start), days) == china(end)


async def test_a_moment_after_local_midnight_belongs_to_the_local_day() -> None:
    """23:30 UTC on Wednesday is Thursday morning in Guiyang."""
    start = datetime(2026, 11, 25, 23, 30, tzinfo=UTC)
    assert await working_days_after(Books(CN_2026), CITY, start, 1) == china("2026-11-28T00:00")


async def test_a_last_day_that_is_a_holiday_moves_and_a_working_one_stays() -> None:
    assert await days_after(Books(CN_2026), CITY, china("2026-09-28T12:00"), 3) == china("2026-10-09T00:00")
    assert await days_after(Books(CN_2026), CITY, china("2026-11-23T12:00"), 3) == china("2026-11-27T00:00")
    books = Books(CN_2026)
    assert await next_working_moment(books, CITY, china("2026-10-01T12:00")) == china("2026-10-08T12:00")
    assert await next_working_moment(books, CITY, china("2026-10-10T12:00")) == china("2026-10-10T12:00")


async def test_a_year_without_calendar_is_a_refusal_that_says_what_to_do() -> None:
    with pytest.raises(
        ContractError, match=r"no calendar of CN for 2027.*have the calendar of that year enacted"
    ) as found:
        await working_days_after(Books(CN_2026), CITY, china("2026-12-25T09:00"), 10)
    assert (found.value.code, found.value.fields["year"]) == ("E_CALENDAR", 2027)
    assert await working_days_after(Books(CN_2026, plain(2027)), CITY, china("2026-12-25T09:00"), 10) == china(
        "2027-01-09T00:00"
    )
    with pytest.raises(ContractError, match="legal time of US is not known"):
        await working_days_after(Books(plain(2026)), "US-CA", china("2026-12-25T09:00"), 10)


async def test_a_region_adds_its_own_days_to_the_nations() -> None:
    festival = Calendar(jurisdiction="CN-GX", year=2026, source="the region's act", holidays=(date(2026, 11, 26),))
    books = Books(CN_2026, festival)
    assert await working_days_after(books, "CN-GX-450100", china("2026-11-25T09:00"), 1) == china("2026-11-28T00:00")
    assert await working_days_after(books, CITY, china("2026-11-25T09:00"), 1) == china("2026-11-27T00:00")
    with pytest.raises(ContractError, match="no calendar of CN"):  # its own list is not a whole calendar
        await working_days_after(Books(festival), "CN-GX", china("2026-11-25T09:00"), 1)


async def test_a_count_is_bounded() -> None:
    books = Books(*map(plain, range(2026, 2031)))
    await working_days_after(books, CITY, china("2026-01-01T00:00"), 400)
    assert books.reads <= 3 * 3  # nation, province and city of the years that it walks through
    with pytest.raises(ValueError, match="1 to 400"):
        await working_days_after(books, CITY, china("2026-01-01T00:00"), 401)


@pytest.mark.parametrize(
    "changes",
    [
        {"year": 2027},
        {"holidays": (date(2026, 1, 1), date(2026, 1, 1))},
        {"holidays": (date(2026, 1, 4),)},
        {"holidays": (date(2026, 1, 2), date(2026, 1, 1))},
        {"jurisdiction": "US"},
        {"source": ""},
        {"holidays": tuple(date(2026, 1, 1) + timedelta(days=n) for n in range(121))},
    ],
)
def test_a_calendar_that_contradicts_itself_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Calendar.model_validate(CN_2026.model_dump() | changes)


def _naive(calendar: Calendar, start: datetime, days: int) -> Iterator[datetime]:
    day = (start + UTC_OFFSETS["CN"]).date()
    while days:
        day += timedelta(days=1)
        weekday = day.strftime("%a") not in ("Sat", "Sun")
        if day in calendar.working_days or (weekday and day not in calendar.holidays):
            days -= 1
    yield datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1) - UTC_OFFSETS["CN"]


@settings(max_examples=200, deadline=None)
@given(
    st.sets(st.dates(date(2026, 1, 1), date(2026, 12, 31)), max_size=60),
    st.sets(st.dates(date(2026, 1, 1), date(2026, 12, 31)), max_size=60),
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 6, 1)),
    st.integers(1, 60),
)
def test_any_calendar_counts_as_a_plain_walk_does(
    holidays: set[date], worked: set[date], start: datetime, days: int
) -> None:
    one = Calendar(
        jurisdiction="CN",
        year=2026,
        source="an act",
        holidays=tuple(sorted(holidays - worked)),
        working_days=tuple(sorted(worked)),
    )
    moment = start.replace(tzinfo=UTC)
    view: StateView = Books(one, plain(2027))
    (expected,) = _naive(one, moment, days)
    assert asyncio.run(working_days_after(view, "CN", moment, days)) == expected


# -- by act ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def capitol() -> ContractHarness:
    return channel(government.chaincode, "Government", "Finance", "Supervisor")


async def enact(harness: ContractHarness, calendar: Calendar) -> str:
    ballot = (await harness.caller("Government", "Admin", unit="admin").submit(Calendars.propose, calendar)).result
    for name in ("Government", "Supervisor", "Finance"):
        await harness.caller(name, "Admin", unit="admin").submit(Calendars.vote, ballot)
    return ballot


async def test_a_calendar_is_enacted_by_all_classes_of_seat_and_changed_by_another_act(
    capitol: ContractHarness,
) -> None:
    reader, start = capitol.caller("Finance"), china("2026-11-25T09:00")
    ballot = (await capitol.caller("Government", "Admin", unit="admin").submit(Calendars.propose, CN_2026)).result
    for name in ("Government", "Supervisor"):
        await capitol.caller(name, "Admin", unit="admin").submit(Calendars.vote, ballot)
    with refused("E_CALENDAR"):
        await reader.evaluate(Calendars.working_days_after, CITY, start, 1)
    with refused("E_INPUT", "Calendars:vote"):
        await capitol.caller("Finance", "Admin", unit="admin").submit(Registry.vote, ballot)
    await capitol.caller("Finance", "Admin", unit="admin").submit(Calendars.vote, ballot)
    assert await reader.evaluate(Calendars.working_days_after, CITY, start, 1) == china("2026-11-27T00:00")
    changed = calendar(holidays=(*CN_2026.holidays, date(2026, 11, 26)), source="a day of mourning")
    second = await enact(capitol, changed)
    assert await reader.evaluate(Calendars.working_days_after, CITY, start, 1) == china("2026-11-28T00:00")
    (found,) = (await reader.evaluate(Calendars.listing)).items
    assert (found.ballot, found.replaces) == (second, ballot)
    assert await reader.evaluate(Calendars.draft, ballot) == CN_2026


async def test_only_a_seats_administrator_proposes_and_votes(capitol: ContractHarness) -> None:
    with refused("E_ROLE"):
        await capitol.caller("Government").submit(Calendars.propose, CN_2026)
    with refused("E_SEAT"):
        await capitol.caller("Stranger", "Admin", unit="admin").submit(Calendars.propose, CN_2026)


def test_placing_helper_is_what_an_act_writes(capitol: ContractHarness) -> None:
    """Other tests put a calendar in place without the votes."""
    entry = EnactedCalendar(calendar=CN_2026, ballot="0" * 64, enacted_at=china("2026-01-01T00:00"))
    place(capitol, entry, store.CALENDAR, "CN", "2026")
    found = asyncio.run(capitol.caller("Finance").evaluate(Calendars.days_after, CITY, china("2026-11-25T09:00"), 1))
    assert found == china("2026-11-27T00:00")
