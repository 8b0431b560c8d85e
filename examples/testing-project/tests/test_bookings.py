"""What the clinics agreed on, tested on a network that all tests of the run share."""

from __future__ import annotations

import asyncio

import pytest
from bookings import Booking, Bookings

from sovchain.client import CommitRejected, EndorseError
from sovchain.testing import Fabric


async def test_a_booking_is_seen_by_every_clinic(fabric: Fabric) -> None:
    room = fabric.key("room")  # no other test has this room
    async with fabric.connect("North") as north, fabric.connect("South") as south:
        done = await north.network("rooms").contract("bookings").submit(Bookings.book, room, "09:00")
        assert done.result == Booking(room=room, hour="09:00", holder="NorthMSP")
        await south.network("rooms").commit(done.transaction_id).status()  # South's peer has it too
        assert await south.network("rooms").contract("bookings").evaluate(Bookings.of_room, room) == [done.result]


async def test_an_hour_is_given_away_once(fabric: Fabric) -> None:
    room = fabric.key("room")
    async with fabric.connect("North") as north:
        bookings = north.network("rooms").contract("bookings")
        await bookings.submit(Bookings.book, room, "09:00")
        with pytest.raises(EndorseError) as caught:
            await bookings.submit(Bookings.book, room, "09:00")
        assert (caught.value.code, caught.value.fields) == ("E_TAKEN", {"holder": "NorthMSP"})


async def test_of_two_clinics_that_book_at_once_one_is_rejected(fabric: Fabric) -> None:
    room = fabric.key("room")
    async with fabric.connect("North") as north, fabric.connect("East") as east:
        clinics = [gateway.network("rooms").contract("bookings") for gateway in (north, east)]
        endorsed = [await clinic.proposal(Bookings.book, room, "09:00").endorse() for clinic in clinics]
        pending = [await transaction.submit() for transaction in endorsed]
        outcomes = await asyncio.gather(*(commit.committed() for commit in pending), return_exceptions=True)
        (rejected,) = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert isinstance(rejected, CommitRejected)
        assert rejected.code_name == "MVCC_READ_CONFLICT"


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.fabric_channel("rooms")
async def test_a_new_channel_has_no_bookings(fabric: Fabric, number: int) -> None:
    """Both runs count the whole channel, so each needs one of its own."""
    assert fabric.channel is not None
    async with fabric.connect("South") as south:
        bookings = south.network(fabric.channel).contract("bookings")
        for hour in range(number):
            assert await bookings.evaluate(Bookings.total) == hour
            await bookings.submit(Bookings.book, fabric.key("room"), f"{hour:02}:00")
        assert await bookings.evaluate(Bookings.total) == number
