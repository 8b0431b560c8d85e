"""Where goods are, as their custodian says. A hop that no lorry makes raises an alert, which an officer explains or not."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sovchain.chaincode import Context, Contract, holder, query, role, transaction
from sovchain.contracts.core.records import ShortText
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.store import StubView
from sovchain.contracts.logistics.consignment_records import Consignment, Number, Trail
from sovchain.contracts.logistics.positions import Position, distance_m
from sovchain.contracts.scenario import registered_as

SPEED_MAX_M_S: Final = 42
"""What a lorry does not exceed, about 150 km/h: a track that does is not that of the goods."""
_CUSTODIAN = holder("custodian", within="party")
_OFFICER = role("supervisor")
_REGISTERED = registered_as("supervisor")


class Tracks(Contract):
    """Where the goods are, as their custodian says; a hop that no lorry makes raises an alert."""

    @transaction
    async def point(self, ctx: Context, number: Number, position: Position) -> Trail:
        """Add a point to the track. Called by the custodian while the goods are under way. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        note = await ctx.records(Consignment).require(number)
        _CUSTODIAN.check(ctx.identity, "a point of the track", note)
        if note.state not in ("in-transit", "offered", "exception", "arrived"):
            raise refusal(
                "E_STATE", f"the goods are {note.state}", "a track is that of goods under way", "leave it out"
            )
        await require_active_caller(ctx, StubView(ctx.stub))
        before = await ctx.records(Trail).get(number)
        trail = Trail(number=number, first=position, latest=position, at=ctx.timestamp, points=1)
        if before is not None:
            seconds = (ctx.timestamp - before.at) // timedelta(seconds=1)
            far = distance_m(before.latest, position)
            alert = ctx.timestamp <= before.at or far > SPEED_MAX_M_S * max(seconds, 1)
            trail = before.model_copy(
                update={
                    "latest": position,
                    "at": ctx.timestamp,
                    "points": before.points + 1,
                    "alerts": before.alerts + alert,
                }
            )
        await ctx.records(Trail).put(trail)
        ctx.set_event(
            "TrackAlert" if before is not None and trail.alerts > before.alerts else "TrackPoint", {"number": number}
        )
        return trail

    @transaction
    async def clear(self, ctx: Context, number: Number, finding: ShortText) -> Trail:
        """As an officer: find that the alerts so far are explained. Raises E_NOT_FOUND, E_ACCESS, E_ROLE."""
        _OFFICER.check(ctx.identity, "a finding on a track")
        await _REGISTERED.require(ctx, "clear", None, {})
        trail = await ctx.records(Trail).require(number)
        cleared = trail.model_copy(update={"cleared": trail.alerts, "finding": finding})
        await ctx.records(Trail).put(cleared)
        ctx.set_event("TrackCleared", {"number": number})
        return cleared

    @query
    async def read(self, ctx: Context, number: Number) -> Trail:
        """The track of a consignment. Raises E_NOT_FOUND."""
        return await ctx.records(Trail).require(number)
