"""Promissory notes and commercial drafts: issued, accepted, endorsed, discounted, pledged, presented, paid once, or recovered.

The rules are those of the Negotiable Instruments Law: the chain of endorsements is unbroken (article 31), an endorsement is
of the whole and without condition (33), "not transferable" binds (27, 34), nothing is transferred after refusal or maturity
(36), acceptance is given or refused within three days (41), a claim goes back to drawer and endorsers, in any order, never to
those after the claimant (61 to 70) and not for good (17); a guarantor answers like whom he guarantees (50); a note needs no acceptance by another and runs two months at most (73, 78).

A party is `MSP/CODE`: a bank and a code that it gave its customer, which is in the customer's certificate as `party` and says
nothing to others. Names and the trade behind a draft are its terms: they lie in the collections of the banks that are told,
and everybody else has their salted hash.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final

from sovchain.chaincode import (
    Context,
    Contract,
    Given,
    StateMachine,
    To,
    Transient,
    attribute,
    holder,
    query,
    role,
    transaction,
)
from sovchain.contracts.core import store
from sovchain.contracts.core.records import SALT_BYTES, Hex32, MspId, Page, RegisteredOrganisation, ShortText
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.store import StubView, implicit_collection
from sovchain.contracts.finance.draft_rules import (
    ACCEPTANCE_DAYS,
    NOTICE_DAYS,
    PRESENTATION_DAYS,
    Aval,
    Draft,
    Endorsement,
    Invoice,
    Issue,
    Licence,
    PartyId,
    Purpose,
    Told,
    acceptance_overdue,
    aval_room,
    barred,
    before_maturity,
    discounted_fen,
    due,
    first_financed,
    in_time,
    invoiced,
    lawful_term,
    liable,
    licensed,
    notice_room,
    payment_due,
    period_end,
    room,
    sound_aval,
    sound_notice,
    sound_offer,
    stop_over,
    terms_known,
    transferable,
    unanswered,
    within,
    within_acceptance,
)
from sovchain.contracts.scenario import Scenario, advance, registered_as
from sovchain.protocol.keys import composite_key

TERMS: Final = "draft-terms"  # private; draft id
TERMS_MAX_BYTES: Final = 65_536
REGULATOR: Final = "SupervisorMSP"
"""Endorses every change of a draft, beside the bank of its holder: neither can move it alone."""
_DRAWER = holder("drawer", within="party")
_ACCEPTOR = holder("acceptor", within="party")
_HOLDER = holder("holder", within="party")
_TAKER = holder("offered_to", within="party")
_PLEDGEE = holder("pledgee", within="party")
_DEBTOR = holder("debtor", within="party")
_BOTH = (REGULATOR, _HOLDER)
_REGULATOR = registered_as("supervisor")


class Drafts(Contract):
    """Drafts and notes with exactly one holder each, of which the acceptor pays the face exactly once."""

    life = StateMachine(
        Draft,
        {
            (None, "issue"): To("issued", attribute("party"), (lawful_term, licensed), _BOTH),
            ("issued", "accept"): To("held", _ACCEPTOR, (within_acceptance, terms_known), _BOTH),
            ("issued", "refuse"): To("unaccepted", _ACCEPTOR),
            ("issued", "lapse"): To("unaccepted", guards=(acceptance_overdue,)),
            ("issued", "void"): To("void", _DRAWER),
            ("held", "offer"): To("offered", _HOLDER, (transferable, before_maturity, sound_offer, room)),
            ("offered", "withdraw"): To("held", _HOLDER),
            ("offered", "decline"): To("held", _TAKER),
            ("offered", "sign"): To(
                "held", _TAKER, (before_maturity, terms_known, licensed, invoiced, first_financed), _BOTH
            ),
            ("offered", "take"): To("pledged", _TAKER, (before_maturity, terms_known), text="as a pledge"),
            ("pledged", "free"): To("held", _PLEDGEE),
            (None, "cut"): To("held", endorsers=_BOTH, text="a part of what is split"),
            ("held", "split"): To("split", _HOLDER, (before_maturity, within)),
            ("held", "guarantee"): To(
                "held", attribute("party"), (before_maturity, sound_aval, aval_room, terms_known)
            ),
            ("held", "stop"): To("stopped", _HOLDER, text="reported lost"),
            ("stopped", "resume"): To("held", _HOLDER, text="found"),
            ("stopped", "lapse"): To("held", guards=(stop_over,)),
            ("stopped", "lock"): To("locked", role("supervisor"), (_REGULATOR,)),
            ("held", "lock"): To("locked", role("supervisor"), (_REGULATOR,)),
            ("locked", "unlock"): To("held", role("supervisor"), (_REGULATOR,)),
            ("held", "present"): To("presented", _HOLDER, (due,)),
            ("pledged", "present"): To("presented", _PLEDGEE, (due,)),
            ("presented", "pay"): To("paid", _ACCEPTOR),
            ("presented", "dishonour"): To("dishonoured", _ACCEPTOR),
            ("presented", "lapse"): To("dishonoured", guards=(unanswered,)),
            ("unaccepted", "claim"): To("claimed", _HOLDER, (liable, in_time)),
            ("dishonoured", "claim"): To("claimed", _HOLDER, (liable, in_time)),
            **{(state, "notify"): To(state, attribute("party"), (sound_notice, notice_room)) for state in (
                "unaccepted", "dishonoured")},
            **{(state, "expire"): To("barred", guards=(barred,)) for state in ("held", "unaccepted", "dishonoured")},
            ("claimed", "settle"): To("dishonoured", _DEBTOR, endorsers=_BOTH, text="the payer holds it now"),
            ("claimed", "discharge"): To("discharged", _DEBTOR, text="by drawer or acceptor, behind whom is nobody"),
        },
        title="draft",
    )  # fmt: skip

    @transaction
    async def license(self, ctx: Context, party: PartyId) -> Licence:
        """As the regulator: let a party discount drafts and issue notes. Raises E_ACCESS, E_ROLE."""
        role("supervisor").check(ctx.identity, "a licence")
        await _REGULATOR.require(ctx, "license", None, {})
        licence = Licence(party=party, granted_at=ctx.timestamp)
        await ctx.records(Licence).put(licence)
        ctx.set_event("LicenceGranted", {"party": party})
        return licence

    @transaction
    async def issue(self, ctx: Context, issue: Issue) -> Draft:
        """Draw a draft on its acceptor, or make a note, whose maker is its acceptor. Called by the drawer.

        Raises E_ACCESS, E_TERM, E_LICENCE, E_INPUT, E_CALENDAR, E_NOT_ADMITTED, E_SUSPENDED.
        """
        drawer = caller_party(ctx)
        if (issue.kind == "note") != (issue.acceptor == drawer):
            raise refusal(
                "E_INPUT", "drawer and acceptor do not fit", "a note's maker pays it, a draft's drawer asks another to",
                "name the other party, or choose the other kind",
            )  # fmt: skip
        draft = Draft(
            id=ctx.transaction_id, issue=issue, drawer=drawer, acceptor=issue.acceptor, holder=issue.payee, state="issued",
            issued_at=ctx.timestamp,
            accept_until=await self._period(ctx, issue, ctx.timestamp, ACCEPTANCE_DAYS),
        )  # fmt: skip
        given = {"issue": issue, **await self._licence(ctx, drawer, needed=issue.kind == "note")}
        return await advance(ctx, self.life, draft, "issue", given=given)

    @transaction
    async def tell(self, ctx: Context, draft: Hex32, msp_id: MspId, terms: Transient[bytes]) -> str:
        """Put salt and terms into a bank's collection; endorsed by that bank only. Called by the bank of a party to it.

        Raises E_NOT_FOUND, E_PARTY, E_COMMITMENT, E_NOT_ADMITTED, E_SUSPENDED.
        """
        found = await self._draft(ctx, draft)
        await require_active_caller(ctx, StubView(ctx.stub))
        parties = (found.drawer, found.acceptor, found.holder)
        if ctx.identity.msp_id not in {party.partition("/")[0] for party in parties}:
            raise refusal(
                "E_PARTY", "the caller is no party's bank", "terms are told by those who have them", "ask one"
            )
        if not SALT_BYTES < len(terms) <= TERMS_MAX_BYTES or store.sha256_hex(terms) != found.issue.terms:
            raise refusal(
                "E_COMMITMENT", "these are not the terms of the draft", "their hash differs", "tell the original ones"
            )
        await ctx.stub.put_private_data(implicit_collection(msp_id), terms_key(found.root), terms)
        ctx.set_event("TermsTold", {"draft": draft})
        return draft

    @transaction
    async def accept(self, ctx: Context, draft: Hex32) -> Draft:
        """Bind oneself to pay, without condition. Called by the acceptor.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_TIME, E_NOT_TOLD.
        """
        return await self._step(ctx, draft, "accept", given=await self._told(ctx, await self._draft(ctx, draft)))

    @transaction
    async def refuse(self, ctx: Context, draft: Hex32, reason: ShortText) -> Draft:
        """Refuse acceptance. Called by the acceptor. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, draft, "refuse", {"reason": reason, "refused_at": ctx.timestamp})

    @transaction
    async def lapse(self, ctx: Context, draft: Hex32) -> Draft:
        """Put on record that acceptance, payment or a court's order was not given in time. Called by anyone.

        Raises E_NOT_FOUND, E_STATE, E_TIME.
        """
        if (await self._draft(ctx, draft)).state == "stopped":
            return await self._step(ctx, draft, "lapse", {"reason": "no court's order in time", "stopped_at": None})
        silent = {"reason": "no answer in time", "refused_at": ctx.timestamp}
        return await self._step(ctx, draft, "lapse", silent)

    @transaction
    async def stop(self, ctx: Context, draft: Hex32, reason: ShortText) -> Draft:
        """Report it lost, so that nothing is paid for twelve days; then a court orders or it lapses. Called by the holder.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE.
        """
        return await self._step(ctx, draft, "stop", {"reason": reason, "stopped_at": ctx.timestamp})

    @transaction
    async def resume(self, ctx: Context, draft: Hex32) -> Draft:
        """Take a report of loss back. Called by the holder. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, draft, "resume", {"stopped_at": None})

    @transaction
    async def split(self, ctx: Context, draft: Hex32, fen: int) -> list[Draft]:
        """Cut it in two: the first `fen` of it and the rest. Both have its chain. Called by the holder.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_MATURITY, E_INPUT.
        """
        found = await self._draft(ctx, draft)
        await advance(ctx, self.life, found, "split", given={"fen": fen})
        first = found.first or 1
        parts = []
        for low, high in ((first, first + fen - 1), (first + fen, first + found.amount_fen - 1)):
            number = hashlib.sha256(f"{ctx.transaction_id}/{low}".encode()).hexdigest()
            part = found.model_copy(update={"id": number, "package": found.root, "first": low, "last": high})
            parts.append(await self.life.advance(ctx, part, "cut"))
        return parts

    @transaction
    async def guarantee(self, ctx: Context, draft: Hex32, debtor: PartyId) -> Draft:
        """Guarantee, jointly and without condition, that a debtor pays (aval). Called by the guarantor.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_MATURITY, E_LIABLE, E_LIMIT, E_NOT_TOLD.
        """
        found = await self._draft(ctx, draft)
        guarantor = caller_party(ctx)
        aval = Aval(guarantor=guarantor, debtor=debtor, at=ctx.timestamp)
        given = {"guarantor": guarantor, "debtor": debtor, **await self._told(ctx, found)}
        return await self._step(ctx, draft, "guarantee", {"avals": (*found.avals, aval)}, given)

    @transaction
    async def notify(self, ctx: Context, draft: Hex32, to: PartyId) -> Draft:
        """Tell somebody who answers for it that it was refused. Called by the holder, or by one who was told himself.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_LIABLE, E_LIMIT, E_CALENDAR.
        """
        found = await self._draft(ctx, draft)
        by = caller_party(ctx)
        heard = min((one.at for one in found.notices if one.to == by), default=found.refused_at or ctx.timestamp)
        late = ctx.timestamp >= await self._period(ctx, found.issue, heard, NOTICE_DAYS)
        notice = Told(by=by, to=to, at=ctx.timestamp, late=late)
        given = {"by": by, "to": to}
        return await self._step(ctx, draft, "notify", {"notices": (*found.notices, notice)}, given)

    @transaction
    async def expire(self, ctx: Context, draft: Hex32) -> Draft:
        """Put on record that all claims are barred by time. Called by anyone. Raises E_NOT_FOUND, E_STATE, E_TIME."""
        return await self._step(ctx, draft, "expire")

    @transaction
    async def void(self, ctx: Context, draft: Hex32) -> Draft:
        """Void a draft that nobody has accepted. Called by the drawer. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, draft, "void")

    @transaction
    async def offer(
        self,
        ctx: Context,
        draft: Hex32,
        to: PartyId,
        purpose: Purpose,
        price_fen: int | None = None,
        rate_bp: int | None = None,
    ) -> Draft:
        """Offer the whole draft to a party: to transfer it, to discount it, or as a pledge. Called by the holder.

        A discount is for a price, or at a yearly rate in hundredths of a percent, from the day of the signature to that of payment.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_NOT_TRANSFERABLE, E_MATURITY, E_INPUT, E_LIMIT.
        """
        given = {"to": to, "purpose": purpose, "price_fen": price_fen, "rate_bp": rate_bp}
        changes = {"offered_to": to, "offered_for": purpose, "price_fen": price_fen, "rate_bp": rate_bp}
        return await self._step(ctx, draft, "offer", changes, given)

    @transaction
    async def withdraw(self, ctx: Context, draft: Hex32) -> Draft:
        """Take an offer back. Called by the holder. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, draft, "withdraw", _NO_OFFER)

    @transaction
    async def decline(self, ctx: Context, draft: Hex32) -> Draft:
        """Decline an offer. Called by whom it was made to. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, draft, "decline", _NO_OFFER)

    @transaction
    async def sign(self, ctx: Context, draft: Hex32, invoice: Hex32 | None = None) -> Draft:
        """Take what was offered: become its holder, or its pledgee. Called by whom it was offered to.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_MATURITY, E_NOT_TOLD, E_LICENCE, E_INPUT, E_INVOICE.
        """
        found = await self._draft(ctx, draft)
        if found.offered_for == "pledge":
            changes = {**_NO_OFFER, "pledgee": found.offered_to}
            return await self._step(ctx, draft, "take", changes, await self._told(ctx, found))
        discount = found.offered_for == "discount"
        given = {
            **await self._told(ctx, found),
            **await self._licence(ctx, found.offered_to or "", needed=discount),
            "invoice": invoice,
            "used": await ctx.records(Invoice).get(invoice) if invoice is not None else None,
        }
        price = found.price_fen if discount else None
        if discount and found.rate_bp is not None:
            price = discounted_fen(found.amount_fen, found.rate_bp, ctx.timestamp, await self._due(ctx, found.issue))
        link = None if found.offered_to is None or found.offered_for is None else Endorsement(
            purpose=found.offered_for, giver=found.holder, taker=found.offered_to, at=ctx.timestamp,
            transaction=ctx.transaction_id, price_fen=price,
        )  # fmt: skip
        chain = (*found.endorsements, *([link] if link else []))
        changes = {**_NO_OFFER, "holder": found.offered_to or found.holder, "endorsements": chain, "reach": len(chain)}
        signed = await self._step(ctx, draft, "sign", changes, given)
        if invoice is not None:
            await ctx.records(Invoice).put(Invoice(invoice=invoice, draft=draft))
        return signed

    @transaction
    async def free(self, ctx: Context, draft: Hex32) -> Draft:
        """Give a pledge back. Called by the pledgee. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, draft, "free", {"pledgee": None})

    @transaction
    async def lock(self, ctx: Context, draft: Hex32, order: ShortText) -> Draft:
        """Stop a draft by an order, after a loss. Called by the regulator. Raises E_ACCESS, E_ROLE, E_STATE."""
        return await self._step(ctx, draft, "lock", {"reason": order})

    @transaction
    async def unlock(self, ctx: Context, draft: Hex32, order: ShortText) -> Draft:
        """Lift that by an order. Called by the regulator. Raises E_ACCESS, E_ROLE, E_STATE."""
        return await self._step(ctx, draft, "unlock", {"reason": order})

    @transaction
    async def present(self, ctx: Context, draft: Hex32) -> Draft:
        """Ask for payment. Called by the holder or pledgee.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_MATURITY, E_CALENDAR.
        """
        found = await self._draft(ctx, draft)
        day = await self._due(ctx, found.issue)
        late = ctx.timestamp >= await self._period(ctx, found.issue, day, PRESENTATION_DAYS)
        changes = {"presented_at": ctx.timestamp, "late": late, "holder": found.pledgee or found.holder}
        return await self._step(ctx, draft, "present", changes, {"due": day})

    @transaction
    async def pay(self, ctx: Context, draft: Hex32, reference: ShortText) -> Draft:
        """Pay the face, once. Called by the acceptor. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        found = await self._draft(ctx, draft)
        return await self._step(ctx, draft, "pay", {"paid_fen": found.amount_fen, "reference": reference})

    @transaction
    async def dishonour(self, ctx: Context, draft: Hex32, reason: ShortText) -> Draft:
        """Refuse payment, with the reason. Called by the acceptor. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, draft, "dishonour", {"reason": reason, "refused_at": ctx.timestamp})

    @transaction
    async def claim(self, ctx: Context, draft: Hex32, debtor: PartyId) -> Draft:
        """Claim from somebody who answers for it. Called by the holder. Raises E_ACCESS, E_STATE, E_LIABLE, E_LIMITATION."""
        return await self._step(ctx, draft, "claim", {"debtor": debtor}, {"debtor": debtor})

    @transaction
    async def settle(self, ctx: Context, draft: Hex32, reference: ShortText) -> Draft:
        """Pay what is claimed. An endorser or guarantor holds the draft then and may claim further back; drawer or acceptor
        end it.

        Called by the debtor. Raises E_NOT_FOUND, E_ACCESS, E_STATE.
        """
        found = await self._draft(ctx, draft)
        if found.debtor in (found.drawer, found.acceptor):
            paid = {"paid_fen": found.amount_fen, "reference": reference}
            return await self._step(ctx, draft, "discharge", paid)
        givers = [link.giver for link in found.endorsements[: found.reach]]
        guaranteed = next((one.debtor for one in found.avals if one.guarantor == found.debtor), None)
        # A guarantor stands behind whom he guaranteed, who therefore answers to him (article 52).
        answers = guaranteed or found.debtor
        reach = max((place + bool(guaranteed) for place, giver in enumerate(givers) if giver == answers), default=0)
        changes = {
            "holder": found.debtor or found.holder, "reach": reach, "debtor": None, "reference": reference,
            "recovered_at": ctx.timestamp,
        }  # fmt: skip
        return await self._step(ctx, draft, "settle", changes)

    @query
    async def read(self, ctx: Context, draft: Hex32) -> Draft:
        """A draft with its chain. Raises E_NOT_FOUND."""
        return await self._draft(ctx, draft)

    @query
    async def listing(self, ctx: Context, bookmark: str = "") -> Page[Draft]:
        """All drafts, by id."""
        found = await ctx.records(Draft).page(bookmark=bookmark)
        return Page(items=tuple(found.items), bookmark=found.bookmark)

    async def _draft(self, ctx: Context, draft: str) -> Draft:
        return await ctx.records(Draft).require(draft)

    async def _told(self, ctx: Context, draft: Draft) -> dict[str, Any]:
        collection = implicit_collection(ctx.identity.msp_id)
        return {"kept": await ctx.stub.get_private_data_hash(collection, terms_key(draft.root))}

    async def _place(self, ctx: Context, issue: Issue) -> str:
        """The place of payment: where the acceptor's bank is registered."""
        bank = issue.acceptor.partition("/")[0]
        found = await store.read(StubView(ctx.stub), RegisteredOrganisation, store.ORGANISATION, bank)
        return "CN" if found is None else found.organisation.jurisdiction

    async def _due(self, ctx: Context, issue: Issue) -> datetime:
        return await payment_due(StubView(ctx.stub), await self._place(ctx, issue), issue)

    async def _period(self, ctx: Context, issue: Issue, start: datetime, days: int) -> datetime:
        return await period_end(StubView(ctx.stub), await self._place(ctx, issue), issue, start, days)

    async def _licence(self, ctx: Context, party: str, *, needed: bool) -> dict[str, Any]:
        return {"needs_licence": needed, "licence": await ctx.records(Licence).get(party) if needed else None}

    async def _step(
        self, ctx: Context, draft: str, action: str, changes: Given | None = None, given: Given | None = None
    ) -> Draft:
        return await advance(ctx, self.life, await self._draft(ctx, draft), action, changes, given)


_NO_OFFER: Final[dict[str, Any]] = {"offered_to": None, "offered_for": None}


def caller_party(ctx: Context) -> str:
    """The party that the caller's certificate names. Raises AccessError."""
    attribute("party").check(ctx.identity, "a draft")
    return f"{ctx.identity.msp_id}/{ctx.identity.attributes['party']}"


def terms_key(draft: str) -> str:
    """Key of a draft's salt and terms in a bank's collection."""
    return composite_key(TERMS, [draft])


SCENARIO: Final = Scenario("commercial-drafts", "Promissory notes and commercial drafts", (Drafts(),), (Drafts.life,))
