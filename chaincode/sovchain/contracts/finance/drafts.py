"""Promissory notes and commercial drafts: issued, accepted, endorsed, discounted, pledged, presented, paid once, or recovered.

The rules are those of the Negotiable Instruments Law: the chain of endorsements is unbroken (article 31), an endorsement is
of the whole and without condition (33), "not transferable" binds (27, 34), nothing is transferred after refusal or maturity
(36), acceptance is given or refused within three days (41), a claim goes back to drawer and endorsers, in any order, never to
those after the claimant (61 to 70); a note needs no acceptance by another and runs two months at most (73, 78).

A party is `MSP/CODE`: a bank and a code that it gave its customer, which is in the customer's certificate as `party` and says
nothing to others. Names and the trade behind a draft are its terms: they lie in the collections of the banks that are told,
and everybody else has their salted hash.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

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
    record,
    role,
    transaction,
)
from sovchain.contracts.core import store
from sovchain.contracts.core.codes import MSP_ID_PATTERN
from sovchain.contracts.core.records import SALT_BYTES, Hex32, MspId, Page, Record, ShortText, Timestamp
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.store import StubView, implicit_collection
from sovchain.contracts.scenario import Scenario, advance, registered_as
from sovchain.protocol.keys import composite_key

REGULATOR: Final = "SupervisorMSP"
"""Endorses every change of a draft, beside the bank of its holder: neither can move it alone."""
ACCEPTANCE_TERM: Final = timedelta(days=3)
NOTE_TERM_MAX: Final = timedelta(days=62)
DRAFT_TERM_MAX: Final = timedelta(days=184)
PRESENTATION_TERM: Final = timedelta(days=10)
"""From maturity; whoever presents later keeps his claim on acceptor and drawer and loses that on the endorsers."""
ENDORSEMENTS_MAX: Final = 60
TERMS_MAX_BYTES: Final = 65_536
LOCAL_TIME: Final = timezone(timedelta(hours=8))
TERMS: Final = "draft-terms"  # private; draft id

PartyId = Annotated[str, StringConstraints(pattern=rf"^{MSP_ID_PATTERN}/[a-z0-9][a-z0-9-]{{0,39}}$")]
Kind = Literal["draft", "note"]
Purpose = Literal["transfer", "discount", "pledge"]
State = Literal[
    "issued", "held", "offered", "pledged", "locked", "presented", "paid", "unaccepted", "dishonoured", "claimed",
    "discharged", "void",
]  # fmt: skip


class Endorsement(Record):
    """One link of the chain: the giver held the draft, and the taker signed for it."""

    purpose: Purpose
    giver: PartyId
    taker: PartyId
    at: Timestamp
    transaction: Hex32


class Issue(Record):
    """What a drawer states. Money in fen. A drill's times are as short as it likes, and it says so for good."""

    kind: Kind
    face_fen: Annotated[int, Field(ge=1, le=10**15)]
    acceptor: PartyId
    payee: PartyId
    matures_at: Timestamp
    terms: Hex32
    transferable: bool = True
    drill: bool = False


@record(key="id")
class Draft(Record):
    """A draft or note with its chain. `reach` counts the endorsements whose givers answer to the present holder."""

    id: Hex32
    issue: Issue
    drawer: PartyId
    acceptor: PartyId
    holder: PartyId
    state: State
    issued_at: Timestamp
    endorsements: tuple[Endorsement, ...] = ()
    reach: int = 0
    offered_to: PartyId | None = None
    offered_for: Purpose | None = None
    price_fen: int | None = None
    pledgee: PartyId | None = None
    presented_at: Timestamp | None = None
    late: bool = False
    reason: str = ""
    debtor: PartyId | None = None
    paid_fen: int = 0
    reference: str = ""


@record(key="invoice")
class Invoice(Record):
    """An invoice that a discount was given on: the trade behind it is not financed twice."""

    invoice: Hex32
    draft: Hex32


@record(key="party")
class Licence(Record):
    """A party that the regulator lets discount drafts and issue notes."""

    party: PartyId
    granted_at: Timestamp


@guard("E_TERM", "it matures after it is issued, a note within two months and a draft within six")
def lawful_term(ctx: Context, draft: Draft | None, given: Given) -> bool:
    """Articles 73 and 78 for notes; drafts of commerce since 2023."""
    issue: Issue = given["issue"]
    longest = NOTE_TERM_MAX if issue.kind == "note" else DRAFT_TERM_MAX
    return ctx.timestamp < issue.matures_at <= ctx.timestamp + longest


@guard("E_LICENCE", "the regulator has licensed whoever issues a note or gives a discount")
def licensed(ctx: Context, draft: Draft | None, given: Given) -> bool:
    """A note is a bank's own promise, and a discount a bank's business."""
    return not given["needs_licence"] or given["licence"] is not None


@guard("E_TIME", "three days from the issue are not over")
def within_acceptance(ctx: Context, draft: Draft, given: Given) -> bool:
    """Article 41."""
    return ctx.timestamp <= draft.issued_at + ACCEPTANCE_TERM


@guard("E_TIME", "three days from the issue are over")
def acceptance_overdue(ctx: Context, draft: Draft, given: Given) -> bool:
    """No answer is a refusal, and anyone may put it on record."""
    return ctx.timestamp > draft.issued_at + ACCEPTANCE_TERM


@guard("E_NOT_TOLD", "the caller's bank was told the terms that the draft commits to")
def terms_known(ctx: Context, draft: Draft, given: Given) -> bool:
    """By the hash that Fabric keeps of them: nobody signs blind."""
    return given["kept"] is not None and bool(given["kept"].hex() == draft.issue.terms)


@guard("E_NOT_TRANSFERABLE", "the drawer did not write that it is not transferable")
def transferable(ctx: Context, draft: Draft, given: Given) -> bool:
    """Articles 27 and 34."""
    return draft.issue.transferable


@guard("E_MATURITY", "it has not matured")
def before_maturity(ctx: Context, draft: Draft, given: Given) -> bool:
    """Article 36: what is due is presented, not passed on."""
    return ctx.timestamp < draft.issue.matures_at


@guard("E_INPUT", "it is offered to another party than the caller, a discount with a price up to the face")
def sound_offer(ctx: Context, draft: Draft, given: Given) -> bool:
    """An offer always names its taker, so that there is no endorsement in blank, and is always of the whole."""
    price = given["price_fen"]
    priced = price is not None and 0 < price <= draft.issue.face_fen
    return given["to"] != draft.holder and (priced if given["purpose"] == "discount" else price is None)


@guard("E_LIMIT", f"it has fewer than {ENDORSEMENTS_MAX} endorsements")
def room(ctx: Context, draft: Draft, given: Given) -> bool:
    """A chain grows the record, and every change writes it."""
    return len(draft.endorsements) < ENDORSEMENTS_MAX


@guard("E_INPUT", "the invoice behind a discount is named")
def invoiced(ctx: Context, draft: Draft, given: Given) -> bool:
    """There is a real trade behind it."""
    return draft.offered_for != "discount" or given["invoice"] is not None


@guard("E_INVOICE", "no discount was given on that invoice before")
def first_financed(ctx: Context, draft: Draft, given: Given) -> bool:
    """Of this draft or any other."""
    return given["used"] is None


@guard("E_MATURITY", "the day of payment has come")
def due(ctx: Context, draft: Draft, given: Given) -> bool:
    """Maturity, moved past the weekend."""
    return ctx.timestamp >= payment_due(draft.issue)


@guard("E_TIME", "the day on which it was presented is over")
def unanswered(ctx: Context, draft: Draft, given: Given) -> bool:
    """Payment is due on the day itself: silence is a refusal, and anyone may put it on record."""
    assert draft.presented_at is not None
    answer = timedelta(seconds=1) if draft.issue.drill else timedelta(days=1)
    return ctx.timestamp >= draft.presented_at + answer


@guard("E_LIABLE", "whoever is claimed from answers to the holder")
def liable(ctx: Context, draft: Draft, given: Given) -> bool:
    """Drawer, acceptor, and givers before the holder's own link; the drawer as holder claims from the acceptor only."""
    return given["debtor"] in debtors(draft)


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
            ("held", "lock"): To("locked", role("supervisor"), (_REGULATOR,)),
            ("locked", "unlock"): To("held", role("supervisor"), (_REGULATOR,)),
            ("held", "present"): To("presented", _HOLDER, (due,)),
            ("pledged", "present"): To("presented", _PLEDGEE, (due,)),
            ("presented", "pay"): To("paid", _ACCEPTOR),
            ("presented", "dishonour"): To("dishonoured", _ACCEPTOR),
            ("presented", "lapse"): To("dishonoured", guards=(unanswered,)),
            ("unaccepted", "claim"): To("claimed", _HOLDER, (liable,)),
            ("dishonoured", "claim"): To("claimed", _HOLDER, (liable,)),
            ("claimed", "settle"): To("dishonoured", _DEBTOR, endorsers=_BOTH, text="the payer holds it now"),
            ("claimed", "discharge"): To("discharged", _DEBTOR, text="by drawer or acceptor, behind whom is nobody"),
        },
        title="draft",
    )

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

        Raises E_ACCESS, E_TERM, E_LICENCE, E_INPUT, E_NOT_ADMITTED, E_SUSPENDED.
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
        await ctx.stub.put_private_data(implicit_collection(msp_id), terms_key(draft), terms)
        ctx.set_event("TermsTold", {"draft": draft})
        return draft

    @transaction
    async def accept(self, ctx: Context, draft: Hex32) -> Draft:
        """Bind oneself to pay, without condition. Called by the acceptor.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_TIME, E_NOT_TOLD.
        """
        return await self._step(ctx, draft, "accept", given=await self._told(ctx, draft))

    @transaction
    async def refuse(self, ctx: Context, draft: Hex32, reason: ShortText) -> Draft:
        """Refuse acceptance. Called by the acceptor. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, draft, "refuse", {"reason": reason})

    @transaction
    async def lapse(self, ctx: Context, draft: Hex32) -> Draft:
        """Put on record that acceptance or payment was not given in time. Called by anyone. Raises E_STATE, E_TIME."""
        return await self._step(ctx, draft, "lapse", {"reason": "no answer in time"})

    @transaction
    async def void(self, ctx: Context, draft: Hex32) -> Draft:
        """Void a draft that nobody has accepted. Called by the drawer. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, draft, "void")

    @transaction
    async def offer(
        self, ctx: Context, draft: Hex32, to: PartyId, purpose: Purpose, price_fen: int | None = None
    ) -> Draft:
        """Offer the whole draft to a party: to transfer it, to discount it for a price, or as a pledge. Called by the holder.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_NOT_TRANSFERABLE, E_MATURITY, E_INPUT, E_LIMIT.
        """
        given = {"to": to, "purpose": purpose, "price_fen": price_fen}
        return await self._step(
            ctx, draft, "offer", {"offered_to": to, "offered_for": purpose, "price_fen": price_fen}, given
        )

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
            return await self._step(ctx, draft, "take", changes, await self._told(ctx, draft))
        discount = found.offered_for == "discount"
        given = {
            **await self._told(ctx, draft),
            **await self._licence(ctx, found.offered_to or "", needed=discount),
            "invoice": invoice,
            "used": await ctx.records(Invoice).get(invoice) if invoice is not None else None,
        }
        link = None if found.offered_to is None or found.offered_for is None else Endorsement(
            purpose=found.offered_for, giver=found.holder, taker=found.offered_to, at=ctx.timestamp,
            transaction=ctx.transaction_id,
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
        """Ask for payment. Called by the holder or pledgee. Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_MATURITY."""
        found = await self._draft(ctx, draft)
        late = ctx.timestamp > payment_due(found.issue) + PRESENTATION_TERM
        changes = {"presented_at": ctx.timestamp, "late": late, "holder": found.pledgee or found.holder}
        return await self._step(ctx, draft, "present", changes)

    @transaction
    async def pay(self, ctx: Context, draft: Hex32, reference: ShortText) -> Draft:
        """Pay the face, once. Called by the acceptor. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        found = await self._draft(ctx, draft)
        return await self._step(ctx, draft, "pay", {"paid_fen": found.issue.face_fen, "reference": reference})

    @transaction
    async def dishonour(self, ctx: Context, draft: Hex32, reason: ShortText) -> Draft:
        """Refuse payment, with the reason. Called by the acceptor. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, draft, "dishonour", {"reason": reason})

    @transaction
    async def claim(self, ctx: Context, draft: Hex32, debtor: PartyId) -> Draft:
        """Claim the face from somebody who answers for it. Called by the holder. Raises E_ACCESS, E_STATE, E_LIABLE."""
        return await self._step(ctx, draft, "claim", {"debtor": debtor}, {"debtor": debtor})

    @transaction
    async def settle(self, ctx: Context, draft: Hex32, reference: ShortText) -> Draft:
        """Pay what is claimed. An endorser holds the draft then and may claim further back; drawer or acceptor end it.

        Called by the debtor. Raises E_NOT_FOUND, E_ACCESS, E_STATE.
        """
        found = await self._draft(ctx, draft)
        if found.debtor in (found.drawer, found.acceptor):
            paid = {"paid_fen": found.issue.face_fen, "reference": reference}
            return await self._step(ctx, draft, "discharge", paid)
        givers = [link.giver for link in found.endorsements[: found.reach]]
        reach = max((place for place, giver in enumerate(givers) if giver == found.debtor), default=0)
        changes = {"holder": found.debtor or found.holder, "reach": reach, "debtor": None, "reference": reference}
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

    async def _told(self, ctx: Context, draft: str) -> dict[str, Any]:
        collection = implicit_collection(ctx.identity.msp_id)
        return {"kept": await ctx.stub.get_private_data_hash(collection, terms_key(draft))}

    async def _licence(self, ctx: Context, party: str, *, needed: bool) -> dict[str, Any]:
        return {"needs_licence": needed, "licence": await ctx.records(Licence).get(party) if needed else None}

    async def _step(
        self, ctx: Context, draft: str, action: str, changes: Given | None = None, given: Given | None = None
    ) -> Draft:
        return await advance(ctx, self.life, await self._draft(ctx, draft), action, changes, given)


_NO_OFFER: Final[dict[str, Any]] = {"offered_to": None, "offered_for": None}


def payment_due(issue: Issue) -> datetime:
    """From when payment may be asked for: maturity, moved from a weekend of the jurisdiction to Monday."""
    day = issue.matures_at.astimezone(LOCAL_TIME).weekday()
    return issue.matures_at if issue.drill or day < 5 else issue.matures_at + timedelta(days=7 - day)


def debtors(draft: Draft) -> frozenset[str]:
    """Whom the holder of a refused draft may claim from."""
    found = (
        {draft.drawer, *(link.giver for link in draft.endorsements[: draft.reach])}
        if not draft.late
        else {draft.drawer}
    )
    if draft.holder == draft.drawer:
        found = set()
    if draft.state != "unaccepted" and draft.presented_at is not None:
        found.add(draft.acceptor)
    return frozenset(found - {draft.holder})


def caller_party(ctx: Context) -> str:
    """The party that the caller's certificate names. Raises AccessError."""
    attribute("party").check(ctx.identity, "a draft")
    return f"{ctx.identity.msp_id}/{ctx.identity.attributes['party']}"


def terms_key(draft: str) -> str:
    """Key of a draft's salt and terms in a bank's collection."""
    return composite_key(TERMS, [draft])


SCENARIO: Final = Scenario("commercial-drafts", "Promissory notes and commercial drafts", (Drafts(),), (Drafts.life,))
