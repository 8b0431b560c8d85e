"""Two channels that have pinned each other, and the smallest record that can move between them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from memory_ledger import MemoryLedger, admit_everyone
from views import Forgery, Peers, forge, view

from sovchain.chaincode import Chaincode, Context, Contract, query, transaction
from sovchain.contracts.core import Crossing, Seats, core_contracts, store
from sovchain.contracts.core.crossing_records import Arrival, Challenge
from sovchain.contracts.core.portable import Portable, Receivable
from sovchain.contracts.core.records import Record
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StubView

SEATS = Seats({"legislator": ("GovernmentMSP",), "regulator": ("SupervisorMSP",), "sector": ("FinanceMSP",)})
PARCEL = "parcel"


class Parcel(Record):
    id: str
    weight: int
    place: str = "here"


class Parcels(Contract):
    """The smallest records that can move."""

    @transaction
    async def put(self, ctx: Context, id: str, weight: int) -> Parcel:  # noqa: A002
        parcel = Parcel(id=id, weight=weight)
        await store.write(ctx, parcel, PARCEL, id)
        return parcel

    @query
    async def read(self, ctx: Context, id: str) -> Parcel:  # noqa: A002
        return await store.require(StubView(ctx.stub), Parcel, PARCEL, id)

    @query
    async def echo(self, ctx: Context, words: str) -> str:
        """What an attacker would like to pass for a view: bytes of his choice, endorsed by everybody's peers."""
        return words


class ParcelsOut(Portable):
    record_type = "parcel"
    movable = True

    async def send(self, ctx: Context, challenge: Challenge, destination: str) -> Record:
        parcel = await store.require(StubView(ctx.stub), Parcel, PARCEL, challenge.record_id)
        if parcel.place != "here":
            raise refusal("E_STATE", f"the parcel is {parcel.place}", "it is on its way", "wait", id=parcel.id)
        if challenge.action == "move":
            await store.write(ctx, parcel.model_copy(update={"place": f"locked for {destination}"}), PARCEL, parcel.id)
        return parcel

    async def settle(
        self, ctx: Context, record_id: str, outcome: Literal["finalised", "released"], destination: str
    ) -> None:
        parcel = await store.require(StubView(ctx.stub), Parcel, PARCEL, record_id)
        place = destination if outcome == "finalised" else "here"
        await store.write(ctx, parcel.model_copy(update={"place": place}), PARCEL, record_id)


class ParcelsIn(Receivable):
    record_type = "parcel"
    sources = ("government",)

    async def receive(self, ctx: Context, arrival: Arrival, content: str) -> None:
        parcel = Parcel.model_validate_json(content)
        if parcel.weight > 100:
            raise refusal("E_WEIGHT", "the parcel is too heavy", "100 is the most here", "send a lighter one")
        await store.write(ctx, parcel, PARCEL, parcel.id)


class World:
    """Two channels that have pinned each other, and a parcel on the one."""

    def __init__(self) -> None:
        contracts = {
            "government": [*core_contracts(SEATS, outgoing=[ParcelsOut()]), Parcels()],
            "finance": [*core_contracts(SEATS, incoming=[ParcelsIn()]), Parcels()],
        }
        self.source, self.destination = (
            MemoryLedger(Chaincode(found, name=name), name) for name, found in contracts.items()
        )
        self.peers = Peers()

    async def pin(self, on: MemoryLedger, channel: str, **changes: Any) -> None:
        statement = self.peers.statement(channel, on.now, **changes)
        ballot = await on.submit("Government/admin", Crossing.propose_anchor, statement)
        for name in ("Government", "Supervisor", "Finance"):
            await on.submit(f"{name}/admin", Crossing.vote, ballot)

    async def asked(self, action: str = "move", record_id: str = "p1", who: str = "Finance") -> str:
        expires = self.destination.now + timedelta(days=2)
        made = await self.destination.submit(
            who, Crossing.challenge, "government", action, "parcel", record_id, "statistics", expires
        )
        return str(made.id)

    async def challenge_view(self, challenge: str) -> bytes:
        return await view(self.destination, self.peers, Crossing.view_challenge, challenge)

    async def sent(self, action: str = "move", record_id: str = "p1") -> str:
        challenge = await self.asked(action, record_id)
        await self.source.submit("Government", Crossing.send, "finance", await self.challenge_view(challenge))
        return challenge

    async def outgoing(self, challenge: str) -> Forgery:
        return await forge(self.source, self.peers, Crossing.view_outgoing, challenge)

    async def place(self) -> str:
        return str((await self.source.evaluate("Government", Parcels.read, "p1")).place)


async def pinned_world() -> World:
    """Everybody is admitted, both channels have adopted each other's anchor, and the parcel p1 is at the source."""
    world = World()
    for ledger in (world.source, world.destination):
        await admit_everyone(ledger)
    await world.pin(world.source, "finance")
    await world.pin(world.destination, "government")
    await world.source.submit("Government", Parcels.put, "p1", 7)
    return world
