"""Digital logistics: a consignment from its number to its closing, with one custodian at a time and one right of disposal.

The model is the e-CMR protocol's: consignor and carrier sign the note; the carrier checks what is loaded and states
reservations, which the consignor accepts; custody passes by an offer of the one and the acceptance of the other; whoever holds
the right of disposal, and nobody else, diverts the goods or says what becomes of them; the consignee takes them, with
reservations or not at all. Authorities read on duty, and each reading is on record.

A party is `MSP/CODE`, as in commercial drafts. Goods, names and addresses are the *particulars*: 32 random bytes and text in the
collections of the parties' organisations, their hash in the record. No record has an endorsement policy of its own: a hold must
not wait for the peer of the one who is held.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sovchain.chaincode import (
    Context,
    Contract,
    Given,
    StateMachine,
    To,
    Transient,
    attribute,
    guard,
    holder,
    query,
    role,
    transaction,
)
from sovchain.contracts.core import store
from sovchain.contracts.core.calendar import working_days_after
from sovchain.contracts.core.records import (
    SALT_BYTES,
    Hex32,
    MspId,
    Page,
    ShortText,
    format_time,
)
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.sealing import seal
from sovchain.contracts.core.store import StubView, identity_hash, implicit_collection
from sovchain.contracts.logistics.consignment_records import (
    Consignment,
    Count,
    Fen,
    Inspection,
    Load,
    Number,
    Order,
    PartyId,
    Place,
    PublicNote,
    Reservation,
    Series,
    SeriesName,
    Status,
    Trail,
)
from sovchain.contracts.logistics.licences import LicenceHere, Licences, LicencesIn
from sovchain.contracts.logistics.positions import distance_m
from sovchain.contracts.logistics.tracks import Tracks
from sovchain.contracts.scenario import Scenario, advance, registered_as
from sovchain.protocol.keys import composite_key

PARTICULARS: Final = "consignment-particulars"  # private; their hash
PARTICULARS_MAX_BYTES: Final = 65_536
CLAIM_DAYS: Final = 7
"""Working days in which damage that nobody could see is claimed (CMR, article 30: Sundays and holidays do not count)."""
INSPECTION_TERM: Final = timedelta(hours=24)
NEAR_M: Final = 20_000
RESERVATIONS_MAX: Final = 100
CARRIERS_MAX: Final = 30


@guard("E_LICENCE", "the carrier holds a licence, imported by proof, that has not ended")
def licensed(ctx: Context, note: Consignment | None, given: Given) -> bool | str:
    """As the transport office on the government channel granted it."""
    found: LicenceHere | None = given["licence"]
    if found is None:
        return "none was imported"
    if found.state != "granted" or ctx.timestamp >= found.valid_until:
        return f"it is {found.state} and valid until {format_time(found.valid_until)}"
    return True


@guard("E_DUPLICATE", "the contract of carriage has no note yet")
def first_note(ctx: Context, note: Consignment | None, given: Given) -> bool | str:
    """One load is not carried twice on paper."""
    return given["load"] is None or f"it is {given['load'].number}"


@guard("E_DUPLICATE", "the tracking code is no other note's")
def own_code(ctx: Context, note: Consignment | None, given: Given) -> bool:
    """Its hash is public: whoever copied it would answer for somebody else's goods."""
    return not given["traced"]


@guard("E_NOT_TOLD", "the carrier's organisation was told the particulars")
def carrier_told(ctx: Context, note: Consignment, given: Given) -> bool:
    """Nobody signs for goods that he does not know."""
    return bool(given["told"] == note.order.particulars)


@guard("E_QUANTITY", "no more is loaded than was ordered")
def loaded_within(ctx: Context, note: Consignment, given: Given) -> bool:
    """Less is, with a reservation."""
    return bool(given["count"] <= note.order.packages)


@guard("E_QUANTITY", "no more is delivered than was loaded")
def delivered_within(ctx: Context, note: Consignment, given: Given) -> bool:
    """What was never loaded was never under way."""
    return bool(given["count"] <= (note.loaded or 0))


@guard("E_QUANTITY", "all that was loaded is tendered; what is missing takes a reservation")
def complete(ctx: Context, note: Consignment, given: Given) -> bool:
    """A clean receipt says that nothing is missing."""
    return note.tendered == note.loaded


@guard("E_QUANTITY", "no more is received than was tendered")
def received_within(ctx: Context, note: Consignment, given: Given) -> bool:
    """What is missing is told by the reservation."""
    return bool(given["count"] <= (note.tendered or 0))


@guard("E_BROKERING", "the taker is in the chain of carriers that the consignor declared")
def declared(ctx: Context, note: Consignment, given: Given) -> bool:
    """A carrier that the consignor does not know of is a second broker's."""
    return given["to"] in note.carriers


@guard("E_LIMIT", f"it is a further one, of {CARRIERS_MAX} at most")
def chain_room(ctx: Context, note: Consignment, given: Given) -> bool:
    """Every change writes the record."""
    return given["carrier"] not in note.carriers and len(note.carriers) < CARRIERS_MAX


@guard("E_INPUT", "custody is offered to another party than the custodian")
def to_another(ctx: Context, note: Consignment, given: Given) -> bool:
    """An offer to oneself would hide who has the goods."""
    return bool(given["to"] != note.custodian)


@guard("E_INPUT", "the temperature is outside the bounds of the order")
def breached(ctx: Context, note: Consignment, given: Given) -> bool:
    """Within them there is nothing to put on record."""
    bounds = note.order.temperature_milli
    return bounds is not None and not bounds[0] <= given["value"] <= bounds[1]


@guard("E_LIMIT", f"it has fewer than {RESERVATIONS_MAX} reservations")
def room(ctx: Context, note: Consignment, given: Given) -> bool:
    """Every change writes the record."""
    return len(note.reservations) < RESERVATIONS_MAX


@guard("E_TIME", "the time for claims is not over")
def claims_open(ctx: Context, note: Consignment, given: Given) -> bool:
    """From the delivery on, by the calendar of the destination."""
    return note.claims_until is not None and ctx.timestamp < note.claims_until


@guard("E_INPUT", "the claim is paid")
def claim_paid(ctx: Context, note: Consignment, given: Given) -> bool:
    """Up to what was claimed; what the two agreed on."""
    return bool(0 < given["fen"] <= (note.claim_fen or 0))


@guard("E_INPUT", "the freight is paid as ordered")
def whole_freight(ctx: Context, note: Consignment, given: Given) -> bool:
    """Once."""
    return note.paid_fen is None and bool(given["fen"] == note.order.freight_fen)


@guard("E_GHOST", "note, contract, funds and track agree")
def four_agree(ctx: Context, note: Consignment, given: Given) -> bool | str:
    """What a subsidy or a tax rests on: a note alone carries no goods."""
    trail: Trail | None = given["trail"]
    if note.paid_fen is None:
        return "the freight was not paid"
    if trail is None or trail.points < 2:
        return "there is no track"
    if trail.alerts > trail.cleared:
        return f"{trail.alerts - trail.cleared} alerts of the track are open"
    if distance_m(trail.first, note.order.origin.position) > NEAR_M:
        return "the track does not begin at the origin"
    if distance_m(trail.latest, note.destination.position) > NEAR_M:
        return "the track does not end at the destination"
    return True


_CONSIGNOR = holder("consignor", within="party")
_CONSIGNEE = holder("consignee", within="party")
_CARRIER = holder("carrier", within="party")
_CUSTODIAN = holder("custodian", within="party")
_DISPOSER = holder("disposer", within="party")
_TAKER = holder("offered_to", within="party")
_OFFICER = role("supervisor")
_REGISTERED = registered_as("supervisor")


class Consignments(Contract):
    """Consignments with exactly one custodian and exactly one right of disposal."""

    life = StateMachine(
        Consignment,
        {
            (None, "draft"): To("draft", attribute("party"), (first_note, own_code)),
            ("draft", "sign"): To("issued", _CARRIER, (licensed, carrier_told)),
            ("draft", "void"): To("void", _CONSIGNOR),
            ("issued", "void"): To("void", _CONSIGNOR),
            ("issued", "pick-up"): To("checked", _CARRIER, (licensed, loaded_within), text="with reservations"),
            ("checked", "contest"): To("issued", _CONSIGNOR, text="the reservations"),
            ("checked", "depart"): To("in-transit", _CONSIGNOR, text="accepting the reservations"),
            ("in-transit", "declare"): To("in-transit", _CONSIGNOR, (chain_room,), text="a further carrier"),
            ("in-transit", "offer"): To("offered", _CUSTODIAN, (to_another, declared)),
            ("offered", "accept"): To("in-transit", _TAKER, (licensed, room)),
            ("offered", "decline"): To("in-transit", _TAKER),
            ("offered", "retract"): To("in-transit", _CUSTODIAN),
            ("in-transit", "breach"): To("in-transit", _CUSTODIAN, (breached, room), text="a reservation by itself"),
            ("in-transit", "divert"): To("in-transit", _DISPOSER),
            ("in-transit", "pass-right"): To("in-transit", _DISPOSER, text="the right of disposal"),
            ("in-transit", "hold"): To("held", _OFFICER, (_REGISTERED,)),
            **{(state, "hold"): To("held", _OFFICER, (_REGISTERED,)) for state in ("offered", "arrived", "tendered")},
            ("held", "lift"): To("in-transit", _OFFICER, (_REGISTERED,)),
            ("in-transit", "except"): To("exception", _CUSTODIAN),
            ("exception", "instruct"): To("in-transit", _DISPOSER),
            ("refused", "instruct"): To("in-transit", _DISPOSER),
            ("in-transit", "arrive"): To("arrived", _CUSTODIAN),
            ("arrived", "tender"): To("tendered", _CUSTODIAN, (delivered_within,)),
            ("tendered", "take"): To("delivered", _CONSIGNEE, (complete,), text="clean"),
            ("tendered", "reserve"): To("delivered-reserved", _CONSIGNEE, (received_within, room)),
            ("tendered", "refuse"): To("refused", _CONSIGNEE),
            ("delivered", "claim"): To("claimed", _CONSIGNEE, (claims_open,), text="what nobody could see"),
            ("delivered-reserved", "claim"): To("claimed", _CONSIGNEE, (claims_open,)),
            ("claimed", "settle"): To("settled", _CARRIER, (claim_paid,)),
            ("claimed", "drop"): To("settled", _CONSIGNEE),
            **{(state, "pay"): To(state, _CONSIGNOR, (whole_freight,)) for state in (
                "delivered", "delivered-reserved", "settled")},
            **{(state, "close"): To("closed", _CARRIER, (four_agree,)) for state in (
                "delivered", "delivered-reserved", "settled")},
        },
        title="consignment",
    )  # fmt: skip

    @transaction
    async def open_series(self, ctx: Context, series: SeriesName) -> Series:
        """Begin a series of numbers for the caller's organisation. Raises E_STATE, E_NOT_ADMITTED, E_SUSPENDED."""
        await require_active_caller(ctx, StubView(ctx.stub))
        if await ctx.records(Series).get(series) is not None:
            raise refusal("E_STATE", f"series {series} is in use", "a number is one note's", "choose other letters")
        opened = Series(series=series, owner=ctx.identity.msp_id, last=0)
        await ctx.records(Series).put(opened)
        return opened

    @transaction
    async def tell(self, ctx: Context, msp_id: MspId, particulars: Transient[bytes]) -> str:
        """Put salt and particulars into an organisation's collection; endorsed by that organisation only. Returns their hash.

        Raises E_INPUT, E_NOT_ADMITTED, E_SUSPENDED.
        """
        await require_active_caller(ctx, StubView(ctx.stub))
        if not SALT_BYTES < len(particulars) <= PARTICULARS_MAX_BYTES:
            raise refusal(
                "E_INPUT", "these are no particulars", f"{SALT_BYTES} bytes of salt and text, "
                f"{PARTICULARS_MAX_BYTES} at most", "correct them",
            )  # fmt: skip
        commitment = store.sha256_hex(particulars)
        await ctx.stub.put_private_data(implicit_collection(msp_id), particulars_key(commitment), particulars)
        ctx.set_event("ParticularsTold", {"particulars": commitment})
        return commitment

    @transaction
    async def draft(self, ctx: Context, series: SeriesName, order: Order) -> Consignment:
        """Draw up a note under the series' next number. Called by the consignor.

        Raises E_NOT_FOUND, E_ACCESS, E_DUPLICATE, E_NOT_ADMITTED, E_SUSPENDED.
        """
        numbers = await ctx.records(Series).require(series)
        if numbers.owner != ctx.identity.msp_id:
            raise refusal(
                "E_ACCESS", f"series {series} is {numbers.owner}'s", "each issuer numbers its own", "use yours"
            )
        attribute("party").check(ctx.identity, "a consignment")
        consignor = f"{ctx.identity.msp_id}/{ctx.identity.attributes['party']}"
        number = f"{series}-{numbers.last + 1:08}"
        note = Consignment(
            number=number, order=order, tracking=order.tracking, consignor=consignor, consignee=order.consignee,
            carrier=order.carrier, custodian=consignor, disposer=consignor, destination=order.destination, state="draft",
            sequence=1, changed_at=ctx.timestamp, carriers=(order.carrier, *order.carriers),
        )  # fmt: skip
        traced = [one async for one in ctx.records(Consignment).find("by_tracking", order.tracking)]
        given = {
            "load": await ctx.records(Load).get(order.contract),
            "traced": [one for one in traced if one.state != "void"],
        }
        drafted = await advance(ctx, self.life, note, "draft", given=given)
        await ctx.records(Series).put(numbers.model_copy(update={"last": numbers.last + 1}))
        await ctx.records(Load).put(Load(contract=order.contract, number=number))
        return drafted

    @transaction
    async def sign(self, ctx: Context, number: Number) -> Consignment:
        """Sign the note. Called by the carrier. Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_LICENCE, E_NOT_TOLD."""
        note = await self._note(ctx, number)
        msp_id = note.carrier.partition("/")[0]
        kept = await ctx.stub.get_private_data_hash(
            implicit_collection(msp_id), particulars_key(note.order.particulars)
        )
        given = {**await self._licence(ctx, note.carrier), "told": kept.hex() if kept else None}
        return await self._advance(ctx, note, "sign", given=given)

    @transaction
    async def void(self, ctx: Context, number: Number, reason: ShortText) -> Consignment:
        """Void a note before the goods are picked up; its number stays listed, its contract may have another note.

        Called by the consignor. Raises E_NOT_FOUND, E_ACCESS, E_STATE.
        """
        voided = await self._step(ctx, number, "void", {"reason": reason})
        await ctx.records(Load).delete(voided.order.contract)
        return voided

    @transaction
    async def pick_up(
        self, ctx: Context, number: Number, loaded: Count, reservation: ShortText | None = None
    ) -> Consignment:
        """Check what is loaded, and state a reservation. Called by the carrier. Raises E_ACCESS, E_STATE, E_LICENCE, E_QUANTITY."""
        note = await self._note(ctx, number)
        given = {**await self._licence(ctx, note.carrier), "count": loaded}
        changes = {"loaded": loaded, **self._reserved(ctx, note, note.carrier, reservation)}
        return await self._advance(ctx, note, "pick-up", changes, given)

    @transaction
    async def contest(self, ctx: Context, number: Number) -> Consignment:
        """Reject the carrier's reservations: the goods are checked again. Called by the consignor. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, number, "contest", {"reservations": (), "loaded": None})

    @transaction
    async def depart(self, ctx: Context, number: Number) -> Consignment:
        """Accept the reservations and hand the goods over. Called by the consignor. Raises E_ACCESS, E_STATE."""
        note = await self._note(ctx, number)
        return await self._advance(ctx, note, "depart", {"custodian": note.carrier})

    @transaction
    async def declare(self, ctx: Context, number: Number, carrier: PartyId) -> Consignment:
        """Let a further carrier have the goods in hand. Called by the consignor.

        Raises E_ACCESS, E_STATE, E_LIMIT.
        """
        note = await self._note(ctx, number)
        return await self._advance(ctx, note, "declare", {"carriers": (*note.carriers, carrier)}, {"carrier": carrier})

    @transaction
    async def offer(self, ctx: Context, number: Number, to: PartyId) -> Consignment:
        """Offer custody. Called by the custodian. Raises E_ACCESS, E_STATE, E_INPUT, E_BROKERING."""
        return await self._step(ctx, number, "offer", {"offered_to": to}, {"to": to})

    @transaction
    async def accept(self, ctx: Context, number: Number, reservation: ShortText | None = None) -> Consignment:
        """Take custody over, with a reservation if the goods are not as they were. Called by whom it was offered to.

        Raises E_ACCESS, E_STATE, E_LICENCE, E_LIMIT.
        """
        note = await self._note(ctx, number)
        taker = note.offered_to or note.custodian
        changes = {"custodian": taker, "offered_to": None, **self._reserved(ctx, note, taker, reservation)}
        return await self._advance(ctx, note, "accept", changes, await self._licence(ctx, taker))

    @transaction
    async def decline(self, ctx: Context, number: Number) -> Consignment:
        """Decline custody. Called by whom it was offered to. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, number, "decline", {"offered_to": None})

    @transaction
    async def retract(self, ctx: Context, number: Number) -> Consignment:
        """Take an offer of custody back. Called by the custodian. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, number, "retract", {"offered_to": None})

    @transaction
    async def breach(self, ctx: Context, number: Number, temperature_milli: int) -> Consignment:
        """Put a sensor's reading outside the bounds on record: a reservation is made of it. Called by the custodian.

        Raises E_ACCESS, E_STATE, E_INPUT, E_LIMIT.
        """
        note = await self._note(ctx, number)
        text = f"sensor: {temperature_milli} thousandths of a degree"
        changes = self._reserved(ctx, note, note.custodian, text)
        return await self._advance(ctx, note, "breach", changes, {"value": temperature_milli})

    @transaction
    async def divert(self, ctx: Context, number: Number, destination: Place, consignee: PartyId) -> Consignment:
        """Send the goods elsewhere. Called by the holder of the right of disposal. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, number, "divert", {"destination": destination, "consignee": consignee})

    @transaction
    async def pass_right(self, ctx: Context, number: Number, to: PartyId) -> Consignment:
        """Pass the right of disposal on. Called by its holder. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, number, "pass-right", {"disposer": to})

    @transaction
    async def hold(self, ctx: Context, number: Number, order: ShortText) -> Consignment:
        """Hold the goods by an order. Called by an officer. Raises E_ACCESS, E_ROLE, E_STATE."""
        return await self._step(ctx, number, "hold", {"reason": order, "offered_to": None, "tendered": None})

    @transaction
    async def lift(self, ctx: Context, number: Number, order: ShortText) -> Consignment:
        """Lift that by an order. Called by an officer. Raises E_ACCESS, E_ROLE, E_STATE."""
        return await self._step(ctx, number, "lift", {"reason": order})

    @transaction
    async def report_exception(self, ctx: Context, number: Number, reason: ShortText) -> Consignment:
        """Say that the carriage cannot go on as ordered. Called by the custodian. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, number, "except", {"reason": reason})

    @transaction
    async def instruct(self, ctx: Context, number: Number, destination: Place, consignee: PartyId) -> Consignment:
        """Say what becomes of goods that cannot go on or were refused. Called by the holder of the right of disposal.

        Raises E_ACCESS, E_STATE.
        """
        changes = {"destination": destination, "consignee": consignee, "tendered": None}
        return await self._step(ctx, number, "instruct", changes)

    @transaction
    async def arrive(self, ctx: Context, number: Number) -> Consignment:
        """Arrive. Called by the custodian. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, number, "arrive")

    @transaction
    async def tender(self, ctx: Context, number: Number, packages: Count) -> Consignment:
        """Offer the goods to the consignee. Called by the custodian. Raises E_ACCESS, E_STATE, E_QUANTITY."""
        return await self._step(ctx, number, "tender", {"tendered": packages}, {"count": packages})

    @transaction
    async def take(self, ctx: Context, number: Number, proof: Hex32) -> Consignment:
        """Take the goods without reservation; `proof` is the salted hash of the signed receipt. Called by the consignee.

        Raises E_ACCESS, E_STATE, E_QUANTITY, E_CALENDAR.
        """
        note = await self._note(ctx, number)
        changes = {"custodian": note.consignee, "received": note.tendered, "proof": proof}
        return await self._advance(ctx, note, "take", {**changes, **await self._claims(ctx, note, "tendered")})

    @transaction
    async def reserve(
        self, ctx: Context, number: Number, packages: Count, reservation: ShortText, proof: Hex32
    ) -> Consignment:
        """Take the goods with a reservation. Called by the consignee. Raises as `take`, E_LIMIT."""
        note = await self._note(ctx, number)
        changes = {
            "custodian": note.consignee, "received": packages, "proof": proof,
            **self._reserved(ctx, note, note.consignee, reservation), **await self._claims(ctx, note, "tendered"),
        }  # fmt: skip
        return await self._advance(ctx, note, "reserve", changes, {"count": packages})

    @transaction
    async def refuse(self, ctx: Context, number: Number, reason: ShortText) -> Consignment:
        """Refuse the goods, which stay with the custodian. Called by the consignee. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, number, "refuse", {"reason": reason})

    @transaction
    async def claim(self, ctx: Context, number: Number, claim_fen: Fen, reason: ShortText) -> Consignment:
        """Claim damage. Called by the consignee. Raises E_ACCESS, E_STATE, E_TIME."""
        return await self._step(ctx, number, "claim", {"claim_fen": claim_fen, "reason": reason})

    @transaction
    async def settle(self, ctx: Context, number: Number, paid_fen: Fen) -> Consignment:
        """Pay a claim, in whole or as agreed. Called by the carrier, who answers for the chain. Raises E_ACCESS, E_STATE, E_INPUT."""
        return await self._step(ctx, number, "settle", {"settled_fen": paid_fen}, {"fen": paid_fen})

    @transaction
    async def drop(self, ctx: Context, number: Number) -> Consignment:
        """Drop a claim. Called by the consignee. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, number, "drop", {"settled_fen": 0})

    @transaction
    async def pay(self, ctx: Context, number: Number, fen: Fen, reference: ShortText) -> Consignment:
        """Put the payment of the freight on record. Called by the consignor. Raises E_ACCESS, E_STATE, E_INPUT."""
        return await self._step(ctx, number, "pay", {"paid_fen": fen, "reference": reference}, {"fen": fen})

    @transaction
    async def close(self, ctx: Context, number: Number) -> Consignment:
        """Close a note of which contract, funds and track agree. Called by the carrier, who so confirms the money.

        Raises E_ACCESS, E_STATE, E_GHOST.
        """
        return await self._step(ctx, number, "close", given={"trail": await ctx.records(Trail).get(number)})

    @transaction
    async def inspect(self, ctx: Context, number: Number, duty: ShortText, reason: ShortText) -> Inspection:
        """As an officer: put on record that the particulars are read, and why. `particulars` answers then.

        Raises E_NOT_FOUND, E_ACCESS, E_ROLE.
        """
        _OFFICER.check(ctx.identity, "an inspection")
        await _REGISTERED.require(ctx, "inspect", None, {})
        await self._note(ctx, number)
        inspection = Inspection(
            id=ctx.transaction_id, number=number, msp_id=ctx.identity.msp_id, identity=identity_hash(ctx.identity.id),
            duty=duty, reason=reason, at=ctx.timestamp,
        )  # fmt: skip
        await ctx.records(Inspection).put(inspection)
        ctx.set_event("ConsignmentInspected", {"inspection": inspection.id, "number": number})
        return inspection

    @query
    async def particulars(
        self, ctx: Context, number: Number, msp_id: MspId, key: Transient[bytes], inspection: Hex32 | None = None
    ) -> bytes:
        """Salt and particulars, sealed with `key`: for a party, or for the officer of a committed inspection, for a day.

        Asked of a peer of `msp_id`, from whose collection they come. Raises E_NOT_FOUND, E_ACCESS, E_TIME, E_KEY.
        """
        note = await self._note(ctx, number)
        await self._require_reader(ctx, note, inspection)
        kept = await ctx.stub.get_private_data(implicit_collection(msp_id), particulars_key(note.order.particulars))
        if kept is None:
            raise refusal("E_NOT_FOUND", f"{msp_id} has no particulars", "it was not told them", "ask a party that was")
        try:
            return seal(kept, key)
        except ValueError as error:
            raise refusal("E_KEY", "the bytes cannot be sealed", str(error), "send a fresh key") from None

    @query
    async def read(self, ctx: Context, number: Number) -> Consignment:
        """A note. Raises E_NOT_FOUND."""
        return await self._note(ctx, number)

    @query
    async def status(self, ctx: Context, code: Transient[bytes]) -> Status:
        """The status alone, for whoever has the tracking code. Raises E_NOT_FOUND."""
        found = [note async for note in ctx.records(Consignment).find("by_tracking", store.sha256_hex(code))]
        if found:  # at most one of them is not void
            shown = next((one for one in found if one.state != "void"), found[-1])
            return Status(state=shown.state, changed_at=shown.changed_at)
        raise refusal("E_NOT_FOUND", "no consignment has this code", "it was mistyped or never given out", "check it")

    @query
    async def public(self, ctx: Context, bookmark: str = "") -> Page[PublicNote]:
        """All numbers with their states, void ones too."""
        found = await ctx.records(Consignment).page(bookmark=bookmark)
        shown = (
            PublicNote(number=one.number, state=one.state, jurisdiction=one.order.origin.jurisdiction)
            for one in found.items
        )
        return Page(items=tuple(shown), bookmark=found.bookmark)

    @query
    async def inspections(self, ctx: Context, bookmark: str = "") -> Page[Inspection]:
        """Who read what on which duty."""
        found = await ctx.records(Inspection).page(bookmark=bookmark)
        return Page(items=tuple(found.items), bookmark=found.bookmark)

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _note(self, ctx: Context, number: str) -> Consignment:
        return await ctx.records(Consignment).require(number)

    async def _licence(self, ctx: Context, carrier: str) -> dict[str, Any]:
        return {"licence": await ctx.records(LicenceHere).get(carrier)}

    async def _require_reader(self, ctx: Context, note: Consignment, inspection: str | None) -> None:
        if inspection is None:
            (_CONSIGNOR | _CONSIGNEE | _CUSTODIAN | _CARRIER).check(ctx.identity, "reading particulars", note)
            return
        found = await ctx.records(Inspection).require(inspection)
        if found.number != note.number or found.identity != identity_hash(ctx.identity.id):
            raise refusal(
                "E_ACCESS", "this inspection is another", "it names its number and its officer", "file your own"
            )
        if ctx.timestamp >= found.at + INSPECTION_TERM:
            raise refusal("E_TIME", "the inspection is over", "it lasts a day", "file another one")

    async def _claims(self, ctx: Context, note: Consignment, state: str) -> dict[str, Any]:
        if note.state != state:
            return {}
        until = await working_days_after(StubView(ctx.stub), note.destination.jurisdiction, ctx.timestamp, CLAIM_DAYS)
        return {"claims_until": until}

    def _reserved(self, ctx: Context, note: Consignment, by: str, text: str | None) -> dict[str, Any]:
        if text is None:
            return {}
        return {"reservations": (*note.reservations, Reservation(by=by, at=ctx.timestamp, text=text))}

    async def _step(
        self, ctx: Context, number: str, action: str, changes: Given | None = None, given: Given | None = None
    ) -> Consignment:
        return await self._advance(ctx, await self._note(ctx, number), action, changes, given)

    async def _advance(
        self, ctx: Context, note: Consignment, action: str, changes: Given | None = None, given: Given | None = None
    ) -> Consignment:
        counted = {"sequence": note.sequence + 1, "changed_at": ctx.timestamp, **(changes or {})}
        return await advance(ctx, self.life, note, action, counted, given)


def particulars_key(commitment: str) -> str:
    """Key of particulars in a private collection."""
    return composite_key(PARTICULARS, [commitment])


SCENARIO: Final = Scenario(
    "digital-logistics",
    "Digital logistics",
    (Consignments(), Tracks(), Licences()),
    (Consignments.life,),
    incoming=(LicencesIn(),),
)
