"""Appointments: each hour of a room is given away once."""

from __future__ import annotations

from pydantic import BaseModel

from sovchain.chaincode import Chaincode, Context, Contract, ContractError, query, transaction


class Booking(BaseModel):
    """An hour of a room, and the organisation that has it."""

    room: str
    hour: str
    holder: str


class Bookings(Contract):
    """Who has which room when."""

    @transaction
    async def book(self, ctx: Context, room: str, hour: str) -> Booking:
        """Take an hour for the caller's organisation; refuse with E_TAKEN if somebody has it."""
        key = ctx.stub.composite_key("booking", [room, hour])
        taken = await ctx.stub.get_state(key)
        if taken is not None:
            raise ContractError("E_TAKEN", "the hour is taken: choose another", holder=taken.decode())
        booking = Booking(room=room, hour=hour, holder=ctx.identity.msp_id)
        await ctx.stub.put_state(key, booking.holder.encode())
        ctx.set_event("Booked", {"room": room, "hour": hour})
        return booking

    @query
    async def of_room(self, ctx: Context, room: str) -> list[Booking]:
        """The bookings of a room in the order of their hours."""
        return [
            Booking(room=room, hour=ctx.stub.split_composite_key(item.key)[1][1], holder=item.value.decode())
            async for item in ctx.stub.partial_composite_range("booking", [room])
        ]

    @query
    async def total(self, ctx: Context) -> int:
        """The number of bookings on the channel."""
        count = 0
        async for _ in ctx.stub.partial_composite_range("booking"):
            count += 1
        return count


chaincode = Chaincode([Bookings()])
