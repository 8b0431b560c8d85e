"""The working-day calendar for those who enact it and those who count by it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sovchain.contracts.core import Calendars
from sovchain.contracts.core.calendar import Calendar, EnactedCalendar
from sovchain.sovereign.calls import all_pages
from sovchain.sovereign.desk import Desk


class CalendarDesk(Desk):
    """The calendars of one channel, to read and to count by. They are enacted with `Sovereign.propose_calendar` and `vote`.

    Each method may raise `ContractRefusal`, `InvalidInput`, and the client's `FabricError`s.
    """

    async def draft(self, ballot: str) -> Calendar:
        """What a ballot on a calendar is about."""
        return await self._calls.evaluate(Calendars.draft, ballot)

    async def listing(self) -> Sequence[EnactedCalendar]:
        """The calendars in force."""
        return await all_pages(lambda bookmark: self._calls.evaluate(Calendars.listing, bookmark))

    async def working_days_after(self, jurisdiction: str, start: datetime, days: int) -> datetime:
        """When a period of working days is over."""
        return await self._calls.evaluate(Calendars.working_days_after, jurisdiction, start, days)

    async def days_after(self, jurisdiction: str, start: datetime, days: int) -> datetime:
        """When a period of days is over; a last day that is a holiday is moved to the next working day."""
        return await self._calls.evaluate(Calendars.days_after, jurisdiction, start, days)
