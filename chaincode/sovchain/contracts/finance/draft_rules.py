"""What is on record of drafts and notes, and the rules on them: each a guard with the article that it comes from."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from sovchain.chaincode import Context, Given, guard, record
from sovchain.contracts.core.calendar import days_after, next_working_moment
from sovchain.contracts.core.codes import MSP_ID_PATTERN
from sovchain.contracts.core.records import Hex32, Record, Timestamp, format_time
from sovchain.contracts.core.store import StateView

ACCEPTANCE_DAYS: Final = 3
NOTE_TERM_MAX: Final = timedelta(days=62)
DRAFT_TERM_MAX: Final = timedelta(days=184)
PRESENTATION_DAYS: Final = 10
"""From maturity; whoever presents later keeps his claim on acceptor and drawer and loses that on the endorsers."""
NOTICE_DAYS: Final = 3
"""From the refusal, or from the notice that one got oneself (article 66)."""
STOP_TERM: Final = timedelta(days=12)
"""How long a report of loss stops a payment without a court's order (article 15; payment regulation, article 50)."""
AVALS_MAX: Final = 10
NOTICES_MAX: Final = 100
YEAR_DAYS: Final = 360
"""Of interest on a discount."""
ENDORSEMENTS_MAX: Final = 60
LOCAL_TIME: Final = timezone(timedelta(hours=8))

PartyId = Annotated[str, StringConstraints(pattern=rf"^{MSP_ID_PATTERN}/[a-z0-9][a-z0-9-]{{0,39}}$")]
Kind = Literal["draft", "note"]
Purpose = Literal["transfer", "discount", "pledge"]
State = Literal[
    "issued", "held", "offered", "pledged", "locked", "presented", "paid", "unaccepted", "dishonoured", "claimed",
    "discharged", "void", "split", "stopped", "barred",
]  # fmt: skip


class Endorsement(Record):
    """One link of the chain: the giver held the draft, and the taker signed for it."""

    purpose: Purpose
    giver: PartyId
    taker: PartyId
    at: Timestamp
    transaction: Hex32
    price_fen: int | None = None


class Aval(Record):
    """A guarantee, joint and unconditional, that `debtor` pays (articles 45 to 52)."""

    guarantor: PartyId
    debtor: PartyId
    at: Timestamp


class Told(Record):
    """A notice of refusal. A late one is one too; whoever gave it late answers for the damage (article 66)."""

    by: PartyId
    to: PartyId
    at: Timestamp
    late: bool


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
    """A draft or note with its chain, or a part of one.

    `reach` counts the endorsements whose givers answer to the present holder. `first` and `last` are the fen of the face that
    this part is, None for all of it; `package` the draft that it was split from.
    """

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
    package: Hex32 | None = None
    first: int | None = None
    last: int | None = None
    accept_until: Timestamp | None = None
    rate_bp: int | None = None
    avals: tuple[Aval, ...] = ()
    refused_at: Timestamp | None = None
    recovered_at: Timestamp | None = None
    stopped_at: Timestamp | None = None
    notices: tuple[Told, ...] = ()

    @property
    def amount_fen(self) -> int:
        """What this part is worth at maturity."""
        if self.first is None or self.last is None:
            return self.issue.face_fen
        return self.last - self.first + 1

    @property
    def root(self) -> str:
        """The draft as it was issued: its terms are those of every part."""
        return self.package or self.id


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
    return ctx.timestamp < acceptance_over(draft)


@guard("E_TIME", "three days from the issue are over")
def acceptance_overdue(ctx: Context, draft: Draft, given: Given) -> bool:
    """No answer is a refusal, and anyone may put it on record."""
    return ctx.timestamp >= acceptance_over(draft)


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


@guard(
    "E_INPUT", "it is offered to another party than the caller, a discount with a price up to the face or a yearly rate"
)
def sound_offer(ctx: Context, draft: Draft, given: Given) -> bool:
    """An offer always names its taker, so that there is no endorsement in blank, and is always of the whole."""
    price, rate = given["price_fen"], given["rate_bp"]
    priced = (price is None) != (rate is None) and 0 < (price or 1) <= draft.amount_fen and 0 <= (rate or 0) < 10_000
    plain = price is None and rate is None
    return given["to"] != draft.holder and (priced if given["purpose"] == "discount" else plain)


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
def due(ctx: Context, draft: Draft, given: Given) -> bool | str:
    """Maturity, moved past the holidays of the acceptor's place."""
    day: datetime = given["due"]
    return ctx.timestamp >= day or f"it is {format_time(day)}"


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


@guard("E_LIMITATION", "the claim is not barred by time")
def in_time(ctx: Context, draft: Draft, given: Given) -> bool | str:
    """Article 17: two years against drawer and acceptor, six months in the first recourse, three in those that follow."""
    ends = barred_from(draft, given["debtor"])
    return ctx.timestamp < ends or f"it is since {format_time(ends)}"


@guard("E_TIME", "two years from maturity are over")
def barred(ctx: Context, draft: Draft, given: Given) -> bool:
    """After it nobody answers any more, and anyone may put that on record."""
    return ctx.timestamp >= plus_months(draft.issue.matures_at, 24)


@guard("E_INPUT", "it is cut within it")
def within(ctx: Context, draft: Draft, given: Given) -> bool:
    """Each part has at least one fen."""
    return bool(0 < given["fen"] < draft.amount_fen)


@guard("E_LIABLE", "a guarantee is for somebody who answers for it, by somebody who does not yet")
def sound_aval(ctx: Context, draft: Draft, given: Given) -> bool:
    """A guarantor without a debtor guarantees nothing, and the liable are liable already."""
    signed = {draft.drawer, draft.acceptor, *(link.giver for link in draft.endorsements)}
    guarantors = {one.guarantor for one in draft.avals}
    return given["debtor"] in signed and given["guarantor"] not in signed | guarantors | {draft.holder}


@guard("E_LIMIT", f"it has fewer than {AVALS_MAX} guarantees")
def aval_room(ctx: Context, draft: Draft, given: Given) -> bool:
    """Every change writes the record."""
    return len(draft.avals) < AVALS_MAX


@guard("E_LIABLE", "the holder, or one who was told himself, tells somebody who answers for it")
def sound_notice(ctx: Context, draft: Draft, given: Given) -> bool:
    """Article 66: along the chain, each to whom he took it from, or to any before him; once."""
    heard = {draft.holder, *(one.to for one in draft.notices)}
    told = {(one.by, one.to) for one in draft.notices}
    return given["by"] in heard and given["to"] in debtors(draft) and (given["by"], given["to"]) not in told


@guard("E_LIMIT", f"it has fewer than {NOTICES_MAX} notices")
def notice_room(ctx: Context, draft: Draft, given: Given) -> bool:
    """Every change writes the record."""
    return len(draft.notices) < NOTICES_MAX


@guard("E_TIME", "twelve days from the report of loss are over")
def stop_over(ctx: Context, draft: Draft, given: Given) -> bool:
    """Without a court's order payment goes on."""
    assert draft.stopped_at is not None
    return ctx.timestamp >= draft.stopped_at + STOP_TERM


def acceptance_over(draft: Draft) -> datetime:
    """The first moment at which acceptance is too late."""
    return draft.accept_until or draft.issued_at + timedelta(days=ACCEPTANCE_DAYS)


async def period_end(view: StateView, place: str, issue: Issue, start: datetime, days: int) -> datetime:
    """The end of a period of days by the calendar of a place; a drill's is counted plainly."""
    return start + timedelta(days=days) if issue.drill else await days_after(view, place, start, days)


async def payment_due(view: StateView, place: str, issue: Issue) -> datetime:
    """From when payment may be asked for: maturity, moved from a holiday of the place of payment to its next working day."""
    return issue.matures_at if issue.drill else await next_working_moment(view, place, issue.matures_at)


def discounted_fen(amount_fen: int, rate_bp: int, start: datetime, end: datetime) -> int:
    """What a discount at a yearly rate pays: the amount less interest for the days to the day of payment, rounded down."""
    days = max(0, (end.astimezone(LOCAL_TIME).date() - start.astimezone(LOCAL_TIME).date()).days)
    interest = -(-amount_fen * rate_bp * days // (10_000 * YEAR_DAYS))
    return amount_fen - interest


def plus_months(moment: datetime, months: int) -> datetime:
    """The same day some months later, or that month's last one, at the same time (Civil Code, article 202)."""
    local = moment.astimezone(LOCAL_TIME)
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    next_month = date(year + (month == 11), (month + 1) % 12 + 1, 1)
    last = (next_month - timedelta(days=1)).day
    return local.replace(year=year, month=month + 1, day=min(local.day, last)).astimezone(moment.tzinfo)


def barred_from(draft: Draft, debtor: str) -> datetime:
    """When the holder's claim on a debtor ends."""
    guaranteed = {one.guarantor: one.debtor for one in draft.avals}
    if guaranteed.get(debtor, debtor) in (draft.drawer, draft.acceptor):
        return plus_months(draft.issue.matures_at, 24)
    if draft.recovered_at is not None:
        return plus_months(draft.recovered_at, 3)
    return plus_months(draft.refused_at or draft.issue.matures_at, 6)


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
    found |= {one.guarantor for one in draft.avals if one.debtor in found}
    return frozenset(found - {draft.holder})
