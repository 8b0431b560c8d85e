"""Waybills: consignment notes with exactly one custodian at a time, by the table `Waybills.custody`.

The model is a plain e-CMR note: whoever issues it is the first custodian; custody passes only by an offer of the one
and the acceptance of the other; the custodian delivers against a proof, of which the ledger keeps a salted hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from sovchain.chaincode import Context, Contract, Given, StateMachine, To, Transient, guard, holder, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.records import (
    Hex32,
    MspId,
    Page,
    Record,
    RegisteredOrganisation,
    ShortText,
    Timestamp,
)
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StubView, encode_record
from sovchain.contracts.scenario import Scenario

WAYBILL = "waybill"  # number

Number = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,4}-[0-9]{6,10}$")]


class ConsignmentNote(Record):
    """A consignment note. Everybody on the channel may read it: name no persons in it.

    The contract sets everything from `state` on; a new note leaves it out. `sequence` counts the note's events.
    """

    number: Number
    consignor: ShortText
    consignee: ShortText
    origin: ShortText
    destination: ShortText
    goods: ShortText
    packages: Annotated[int, Field(ge=1, le=1_000_000)]
    weight_kg: Annotated[int, Field(ge=1, le=100_000_000)]
    state: Literal["issued", "offered", "delivered"] = "issued"
    custodian: MspId | None = None
    offered_to: MspId | None = None
    issued_at: Timestamp | None = None
    delivered_at: Timestamp | None = None
    proof_hash: Hex32 | None = None
    sequence: Annotated[int, Field(ge=0)] = 0


class DeliveryProof(Record):
    """What proves a delivery. It names a person, so it travels in transient data and only its salted hash is kept.

    `salt` is 32 random bytes in hex; both parties keep the proof to open the hash later.
    """

    received_by: ShortText
    signature: Annotated[str, StringConstraints(min_length=1, max_length=65_536)]
    packages: Annotated[int, Field(ge=0, le=1_000_000)]
    salt: Hex32

    def hash(self) -> str:
        """Hex SHA-256 of the proof's canonical JSON, as the ledger keeps it."""
        return hashlib.sha256(encode_record(self)).hexdigest()


class WaybillReceipt(Record):
    """What a change of a waybill answers."""

    number: str
    state: Literal["issued", "offered", "delivered"]
    custodian: str
    sequence: int
    transaction: Hex32


@guard("E_INPUT", "custody is offered to another organisation than the custodian")
def to_another(ctx: Context, note: ConsignmentNote, given: Given) -> bool:
    """Custody that is offered to its holder would hide who has it."""
    return bool(given["to"] != note.custodian)


@guard("E_QUANTITY", "no more packages are delivered than were issued")
def nothing_added(ctx: Context, note: ConsignmentNote, given: Given) -> bool:
    """What was never issued was never under way."""
    return bool(given["packages"] <= note.packages)


_CUSTODIAN = holder("custodian")
_NOT_CUSTODIAN = "E_NOT_CUSTODIAN"


class Waybills(Contract):
    """Consignment notes with exactly one custodian at a time. A suspended organisation changes none."""

    custody = StateMachine(
        ConsignmentNote,
        {
            (None, "issue"): To("issued"),
            ("issued", "offer"): To("offered", _CUSTODIAN, (to_another,), code=_NOT_CUSTODIAN),
            ("offered", "accept"): To("issued", holder("offered_to"), code="E_STATE"),
            ("offered", "retract"): To("issued", _CUSTODIAN, code=_NOT_CUSTODIAN),
            ("issued", "deliver"): To("delivered", _CUSTODIAN, (nothing_added,), code=_NOT_CUSTODIAN),
        },
        title="waybill",
    )

    @transaction
    async def issue(self, ctx: Context, note: ConsignmentNote) -> WaybillReceipt:
        """Issue a note; the caller's organisation is its first custodian. Raises E_STATE, E_INPUT, E_SUSPENDED."""
        await self.custody.step(
            ctx, await store.read(StubView(ctx.stub), ConsignmentNote, WAYBILL, note.number), "issue"
        )
        if note != ConsignmentNote(**{name: getattr(note, name) for name in _STATED}):
            raise refusal(
                "E_INPUT",
                "the note is not a new one",
                "it has a state, custodian or proof",
                "leave these to the contract",
                number=note.number,
            )
        changes = {"custodian": ctx.identity.msp_id, "issued_at": ctx.timestamp}
        return await self._advance(ctx, note, "issue", "WaybillIssued", changes)

    @transaction
    async def offer(self, ctx: Context, number: Number, to: MspId) -> WaybillReceipt:
        """Offer custody to another organisation.

        Called by the custodian. Raises E_NOT_FOUND, E_NOT_CUSTODIAN, E_STATE, E_INPUT.
        """
        note = await self._note(ctx, number)
        return await self._advance(ctx, note, "offer", "WaybillOffered", {"offered_to": to}, {"to": to})

    @transaction
    async def accept(self, ctx: Context, number: Number) -> WaybillReceipt:
        """Take over custody that was offered.

        Called by the organisation that it was offered to. Raises E_NOT_FOUND, E_STATE.
        """
        changes = {"custodian": ctx.identity.msp_id, "offered_to": None}
        return await self._advance(ctx, await self._note(ctx, number), "accept", "WaybillHandedOver", changes)

    @transaction
    async def retract(self, ctx: Context, number: Number) -> WaybillReceipt:
        """Take back an offer of custody. Called by the custodian. Raises E_NOT_FOUND, E_NOT_CUSTODIAN, E_STATE."""
        note = await self._note(ctx, number)
        return await self._advance(ctx, note, "retract", "WaybillRetracted", {"offered_to": None})

    @transaction
    async def deliver(self, ctx: Context, number: Number, proof: Transient[DeliveryProof]) -> WaybillReceipt:
        """Deliver against a proof. Called by the custodian.

        Raises E_NOT_FOUND, E_NOT_CUSTODIAN, E_STATE, E_QUANTITY for more packages than were issued.
        """
        changes = {"delivered_at": ctx.timestamp, "proof_hash": proof.hash()}
        note = await self._note(ctx, number)
        return await self._advance(ctx, note, "deliver", "WaybillDelivered", changes, {"packages": proof.packages})

    @query
    async def read(self, ctx: Context, number: Number) -> ConsignmentNote:
        """A note. Raises E_NOT_FOUND."""
        return await self._note(ctx, number)

    @query
    async def listing(self, ctx: Context, bookmark: str = "") -> Page[ConsignmentNote]:
        """All notes, by number."""
        return await store.page(ctx.stub, ConsignmentNote, WAYBILL, bookmark=bookmark)

    async def _note(self, ctx: Context, number: str) -> ConsignmentNote:
        return await store.require(StubView(ctx.stub), ConsignmentNote, WAYBILL, number)

    async def _advance(
        self,
        ctx: Context,
        note: ConsignmentNote,
        action: str,
        event: str,
        changes: Mapping[str, object],
        given: Given | None = None,
    ) -> WaybillReceipt:
        changes = {**changes, "sequence": note.sequence + 1}
        changed = await self.custody.apply(ctx, note, action, changes, given)
        caller = ctx.identity.msp_id
        entry = await store.read(StubView(ctx.stub), RegisteredOrganisation, store.ORGANISATION, caller)
        if entry is not None and entry.status != "active":
            raise refusal(
                "E_SUSPENDED",
                f"{caller} is suspended",
                f"{entry.reason}",
                "a new admission reinstates it",
                msp_id=caller,
            )
        await store.write(ctx, changed, WAYBILL, note.number)
        ctx.set_event(event, {"number": note.number})
        assert changed.custodian is not None  # set when the note was issued
        return WaybillReceipt(
            number=changed.number,
            state=changed.state,
            custodian=changed.custodian,
            sequence=changed.sequence,
            transaction=ctx.transaction_id,
        )


_STATED = ("number", "consignor", "consignee", "origin", "destination", "goods", "packages", "weight_kg")

SCENARIO: Final = Scenario("logistics", "Waybills", (Waybills(),), (Waybills.custody,))
