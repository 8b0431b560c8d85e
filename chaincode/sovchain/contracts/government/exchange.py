"""Requests for government data: asked for a duty, answered within ten working days, used for what was granted and nothing else.

The core decides by law and releases (`Sharing`): each delivery is a request of the core's with its own receipt, and what the
law denies no grant makes good. The procedure is here: the provider's answer and its clock, the agreement, how many rows in
which time, reports of use, revocation, and what a supervisor rules. `Exchange.life` is the whole of it.

What a request is about in detail, such as the cases that a department works on, is its *brief*: 32 random bytes and text in
the collections of the bureau and the two departments, its hash in the record.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from sovchain.chaincode import (
    Context,
    Contract,
    Given,
    StateMachine,
    To,
    Transient,
    guard,
    holder,
    query,
    record,
    role,
    transaction,
)
from sovchain.contracts.core import store
from sovchain.contracts.core.calendar import working_days_after
from sovchain.contracts.core.effects import require_permit
from sovchain.contracts.core.receipts import payload_key
from sovchain.contracts.core.records import (
    SALT_BYTES,
    DataSet,
    Fields,
    Hex32,
    MspId,
    Page,
    Record,
    Request,
    ShortText,
    Timestamp,
    Word,
)
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.store import StubView, identity_hash, implicit_collection
from sovchain.contracts.government.catalogue import (
    ANSWER_DAYS,
    BUREAU,
    PROVIDER,
    SUPERVISOR,
    CatalogueEntry,
    Citation,
    clock_over,
    in_force,
)
from sovchain.contracts.scenario import advance
from sovchain.protocol.keys import composite_key

BRIEF: Final = "share-brief"  # private; hash of the brief
BRIEF_MAX_BYTES: Final = 65_536
DELIVERIES_MAX: Final = 1_000

State = Literal[
    "under-review", "granted", "refused", "overdue", "escalated", "agreed", "drawn", "delivered", "in-use", "dismissed",
    "withdrawn", "expired", "revoked", "terminated",
]  # fmt: skip


class Terms(Record):
    """What is asked for, and what is granted of it: no more columns, rows or time. `rows_max` is for each `window_days`."""

    fields: Fields
    rows_max: Annotated[int, Field(ge=1, le=2**53 - 1)]
    window_days: Annotated[int, Field(ge=1, le=366)]
    until: Timestamp


class Asked(Record):
    """A request as a department states it: for which duty under which clause, and the brief's hash."""

    entry: Hex32
    purpose: Word
    duty: Citation
    brief: Hex32
    terms: Terms


class Signature(Record):
    """Who answers for a step."""

    msp_id: MspId
    identity: Hex32
    at: Timestamp
    transaction: Hex32


@record(key="id")
class ShareRequest(Record):
    """A request with its answer. `due` is when the answer, or a delivery that was drawn, is overdue."""

    id: Hex32
    asked: Asked
    provider: MspId
    user: MspId
    state: State
    filed_at: Timestamp
    due: Timestamp
    answered_at: Timestamp | None = None
    late: bool = False
    granted: Terms | None = None
    granted_at: Timestamp | None = None
    granted_by: Signature | None = None
    reason: str = ""
    ground: str = ""
    ruling: str = ""
    drawn: Hex32 | None = None
    deliveries: int = 0
    window: int = 0
    window_rows: int = 0


@record(key="request")
class Agreement(Record):
    """The terms that both departments signed. `grantor` is the provider or a supervisor who ruled; None for what is shared
    without condition, where the entry itself is the provider's word."""

    request: Hex32
    terms: Terms
    grantor: Signature | None
    user: Signature


@record(key="drawn")
class Delivery(Record):
    """One delivery, by the core's request: its rows, its commitment, and the report of its use."""

    drawn: Hex32
    request: Hex32
    dataset: Hex32
    number: int
    rows: int
    commitment: Hex32
    drawn_at: Timestamp
    delivered_at: Timestamp | None = None
    report: Hex32 | None = None
    reported_at: Timestamp | None = None


class PublicAnswer(Record):
    """What everybody may see of a request: who asked whom, what became of it and how fast; a refusal with its reason."""

    request: Hex32
    entry: Hex32
    provider: MspId
    user: MspId
    state: State
    filed_at: Timestamp
    due: Timestamp
    answered_at: Timestamp | None
    late: bool
    reason: str


@guard("E_STATE", "the entry is published")
def open_entry(ctx: Context, request: ShareRequest | None, given: Given) -> bool:
    """Drafts and suspended entries take no requests."""
    return bool(given["entry"].state == "published")


@guard("E_OWN", "a department asks another one")
def of_another(ctx: Context, request: ShareRequest | None, given: Given) -> bool:
    """Its own data it has."""
    return bool(given["entry"].provider != ctx.identity.msp_id)


@guard("E_FIELDS", "the columns are columns of the entry")
def within_catalogue(ctx: Context, request: ShareRequest | None, given: Given) -> bool | str:
    """Granted is within what is in the catalogue."""
    stated = given["entry"].statement
    odd = sorted(set(given["terms"].fields) - {*stated.items, *stated.keys})
    return not odd or f"{odd[0]} is none"


@guard("E_CITATION", "the duty is a clause of a law in force")
async def lawful_duty(ctx: Context, request: ShareRequest | None, given: Given) -> bool | str:
    """A department asks for what its tasks need."""
    duty: Citation = given["asked"].duty
    found = await in_force(StubView(ctx.stub), given["entry"].jurisdiction, duty, ctx)
    return found or f"{duty.law}, {duty.clause} is none"


@guard("E_PURPOSE", "the purpose is one that the data set is shared for")
def shared_for(ctx: Context, request: ShareRequest | None, given: Given) -> bool:
    """As its owner published it."""
    return bool(given["asked"].purpose in given["dataset"].entry.purposes)


@guard("E_TIME", "the period ends later than now and within two years")
def sound_period(ctx: Context, request: ShareRequest | None, given: Given) -> bool:
    """No grant is for good."""
    return bool(ctx.timestamp < given["terms"].until <= ctx.timestamp + timedelta(days=731))


@guard("E_NOT_TOLD", "the bureau was told the brief")
def bureau_told(ctx: Context, request: ShareRequest | None, given: Given) -> bool:
    """By the hash that Fabric keeps of it. The provider's own peer could stop the request by being away."""
    return bool(given["told"] == given["asked"].brief)


@guard("E_CONDITIONAL", "the entry is shared conditionally")
def conditional(ctx: Context, request: ShareRequest | None, given: Given) -> bool:
    """Otherwise there is nothing to review."""
    return bool(given["entry"].statement.listing.share == "conditional")


@guard("E_NONE", "the entry is shared without condition")
def unconditional(ctx: Context, request: ShareRequest | None, given: Given) -> bool | str:
    """What a law closes is opened by a dispute, not by a request."""
    listing = given["entry"].statement.listing
    if listing.share == "none":
        return f"{listing.citation.law}, {listing.citation.clause} closes it: dispute the listing"
    return bool(listing.share == "unconditional")


@guard("E_INPUT", "what is granted is within what was asked")
def narrowed(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """Columns, rows and time."""
    granted, asked = given["terms"], request.asked.terms
    return bool(
        set(granted.fields) <= set(asked.fields)
        and granted.until <= asked.until
        and granted.rows_max * asked.window_days <= asked.rows_max * granted.window_days
    )


@guard("E_NOT_TOLD", "the provider was told the brief")
def provider_told(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """Nobody grants what he has not read."""
    return bool(given["told"] == request.asked.brief)


@guard("E_TIME", "the period that was granted is not over")
def within_period(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """After it nothing more is delivered."""
    return request.granted is not None and ctx.timestamp < request.granted.until


@guard("E_TIME", "the period that was granted is over")
def period_over(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """Anyone may put it on record."""
    return request.granted is not None and ctx.timestamp >= request.granted.until


@guard("E_ACCESS", "the core's request is the caller's own and for the data behind the entry")
def own_draw(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """Each delivery is a request of the core's, which the law decided."""
    drawn: Request = given["drawn"]
    return bool(drawn.msp_id == request.user and drawn.dataset == given["entry"].statement.dataset)


@guard("E_PURPOSE", "it is for the purpose that was granted")
def same_purpose(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """Function creep begins with a second purpose."""
    return bool(given["purpose"] == request.asked.purpose)


@guard("E_ONWARD", "it is to read the data and for nobody else")
def not_onward(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """Whoever else needs them asks their source."""
    return bool(given["drawn"].action == "read" and not given["drawn"].processors)


@guard("E_FIELDS", "its columns are among those granted")
def within_grant(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """Delivered is within granted; None asks for every column of the data set."""
    assert request.granted is not None
    asked = given["drawn"].fields or [column.name for column in given["dataset"].entry.columns]
    return set(asked) <= set(request.granted.fields)


@guard("E_QUOTA", "the rows are within what the period allows")
def within_quota(ctx: Context, request: ShareRequest, given: Given) -> bool | str:
    """Many small draws add up."""
    assert request.granted is not None
    left = request.granted.rows_max - (request.window_rows if given["window"] == request.window else 0)
    return bool(given["rows"] <= left) or f"{left} rows are left of it"


@guard("E_LIMIT", f"there were fewer than {DELIVERIES_MAX} deliveries")
def room(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """A request goes on for two years at most."""
    return request.deliveries < DELIVERIES_MAX


@guard("E_STATE", "it was not drawn before")
def drawn_once(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """One permit, one delivery."""
    return given["before"] is None


@guard("E_NOT_DELIVERED", "the delivery is in the caller's collection, with the hash that was published")
def received(ctx: Context, request: ShareRequest, given: Given) -> bool:
    """Every peer compares the hashes."""
    return bool(given["received"] == given["delivery"].commitment)


_USER = holder("user")
_RULES = role("supervisor")


class Exchange(Contract):
    """Requests and what comes of them."""

    life = StateMachine(
        ShareRequest,
        {
            (None, "file"): To("under-review", guards=(
                open_entry, of_another, conditional, within_catalogue, lawful_duty, shared_for, sound_period, bureau_told)),
            (None, "take"): To("granted", guards=(
                open_entry, of_another, unconditional, within_catalogue, lawful_duty, shared_for, sound_period, bureau_told),
                text="at once"),
            ("under-review", "grant"): To("granted", PROVIDER, (narrowed, provider_told)),
            ("under-review", "refuse"): To("refused", PROVIDER, text="with the reason"),
            ("under-review", "withdraw"): To("withdrawn", _USER),
            ("under-review", "tick"): To("overdue", guards=(clock_over,)),
            ("overdue", "grant"): To("granted", PROVIDER, (narrowed, provider_told), text="late; a refusal is forfeited"),
            ("overdue", "escalate"): To("escalated", _USER),
            ("refused", "escalate"): To("escalated", _USER),
            ("revoked", "escalate"): To("escalated", _USER),
            ("escalated", "order"): To("granted", _RULES, (SUPERVISOR, narrowed), text="ruled for the user"),
            ("escalated", "dismiss"): To("dismissed", _RULES, (SUPERVISOR,), text="ruled for the provider"),
            ("granted", "agree"): To("agreed", _USER, (within_period,)),
            ("agreed", "draw"): To("drawn", _USER, (
                within_period, own_draw, same_purpose, not_onward, within_grant, within_quota, room, drawn_once)),
            ("in-use", "draw"): To("drawn", _USER, (
                within_period, own_draw, same_purpose, not_onward, within_grant, within_quota, room, drawn_once)),
            ("drawn", "confirm"): To("delivered", _USER, (received,)),
            ("drawn", "tick"): To("overdue", guards=(clock_over,), text="granted and never delivered"),
            ("delivered", "report"): To("in-use", _USER, (same_purpose,)),
            **{(state, "expire"): To("expired", guards=(period_over,)) for state in (
                "granted", "agreed", "drawn", "delivered", "in-use")},
            **{(state, "revoke"): To("revoked", PROVIDER, text="with the reason") for state in (
                "granted", "agreed", "drawn", "delivered", "in-use")},
            **{(state, "terminate"): To("terminated", _RULES, (SUPERVISOR,), text="for abuse") for state in (
                "granted", "agreed", "drawn", "delivered", "in-use")},
        },
        title="request",
    )  # fmt: skip

    @transaction
    async def tell(self, ctx: Context, msp_id: MspId, brief: Transient[bytes]) -> str:
        """Put salt and brief into an organisation's collection; endorsed by that organisation only. Returns its hash.

        Raises E_INPUT, E_NOT_ADMITTED, E_SUSPENDED.
        """
        await require_active_caller(ctx, StubView(ctx.stub))
        if not SALT_BYTES < len(brief) <= BRIEF_MAX_BYTES:
            raise refusal(
                "E_INPUT", "the brief cannot be", f"it has {SALT_BYTES} bytes of salt and text, {BRIEF_MAX_BYTES} at most",
                "correct it",
            )  # fmt: skip
        commitment = store.sha256_hex(brief)
        await ctx.stub.put_private_data(implicit_collection(msp_id), brief_key(commitment), brief)
        ctx.set_event("BriefTold", {"brief": commitment})
        return commitment

    @transaction
    async def file(self, ctx: Context, asked: Asked) -> ShareRequest:
        """Ask for data. What is shared without condition is granted at once; of the rest the provider's clock starts.

        Called by a department. Raises E_NOT_FOUND, E_STATE, E_OWN, E_NONE, E_FIELDS, E_CITATION, E_PURPOSE, E_TIME,
        E_NOT_TOLD, E_CALENDAR, E_NOT_ADMITTED, E_SUSPENDED.
        """
        view = StubView(ctx.stub)
        entry = await ctx.records(CatalogueEntry).require(asked.entry)
        given = {
            "asked": asked,
            "terms": asked.terms,
            "entry": entry,
            "dataset": await store.require(view, DataSet, store.DATASET, entry.statement.dataset),
            "told": await self._told(ctx, BUREAU, asked.brief),
        }
        due = await working_days_after(view, entry.jurisdiction, ctx.timestamp, ANSWER_DAYS)
        request = ShareRequest(
            id=ctx.transaction_id, asked=asked, provider=entry.provider, user=ctx.identity.msp_id, state="under-review",
            filed_at=ctx.timestamp, due=due,
        )  # fmt: skip
        if entry.statement.listing.share == "conditional":
            return await advance(ctx, self.life, request, "file", given=given)
        answered = {"granted": asked.terms, "granted_at": ctx.timestamp, "answered_at": ctx.timestamp}
        return await advance(ctx, self.life, request, "take", answered, given)

    @transaction
    async def grant(self, ctx: Context, request: Hex32, terms: Terms) -> ShareRequest:
        """Grant what was asked or part of it. Called by the provider. Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_INPUT, E_NOT_TOLD."""
        found = await self._request(ctx, request)
        given = {"terms": terms, "told": await self._told(ctx, found.provider, found.asked.brief)}
        changes = {**_granted(ctx, terms), **_answered(ctx, found)}
        return await advance(ctx, self.life, found, "grant", changes, given)

    @transaction
    async def refuse(self, ctx: Context, request: Hex32, reason: ShortText) -> ShareRequest:
        """Refuse, with the reason, which is public. Called by the provider. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        found = await self._request(ctx, request)
        return await advance(ctx, self.life, found, "refuse", {"reason": reason, **_answered(ctx, found)})

    @transaction
    async def withdraw(self, ctx: Context, request: Hex32) -> ShareRequest:
        """Take a request back. Called by the user. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, request, "withdraw")

    @transaction
    async def tick(self, ctx: Context, request: Hex32) -> ShareRequest:
        """Put on record that an answer, or a delivery, did not come in time. Called by anyone. Raises E_STATE, E_TIME."""
        return await self._step(ctx, request, "tick", {"late": True})

    @transaction
    async def escalate(self, ctx: Context, request: Hex32, ground: ShortText) -> ShareRequest:
        """Take silence, a refusal or a revocation to the supervisor. Called by the user. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, request, "escalate", {"ground": ground})

    @transaction
    async def order(self, ctx: Context, request: Hex32, terms: Terms, ruling: ShortText) -> ShareRequest:
        """Rule that the request is granted, on terms. Called by the supervisor. Raises E_ACCESS, E_ROLE, E_STATE, E_INPUT."""
        changes = {**_granted(ctx, terms), "ruling": ruling, "drawn": None}
        return await self._step(ctx, request, "order", changes, {"terms": terms})

    @transaction
    async def dismiss(self, ctx: Context, request: Hex32, ruling: ShortText) -> ShareRequest:
        """Rule that it is not. Called by the supervisor. Raises E_ACCESS, E_ROLE, E_STATE."""
        return await self._step(ctx, request, "dismiss", {"ruling": ruling})

    @transaction
    async def agree(self, ctx: Context, request: Hex32) -> Agreement:
        """Sign what was granted: the agreement is both departments'. Called by the user. Raises E_ACCESS, E_STATE, E_TIME."""
        found = await self._request(ctx, request)
        await self._step(ctx, request, "agree")
        assert found.granted is not None  # without a grant it would not be in this state
        agreement = Agreement(request=request, terms=found.granted, grantor=found.granted_by, user=_signature(ctx))
        await ctx.records(Agreement).put(agreement)
        return agreement

    @transaction
    async def draw(self, ctx: Context, request: Hex32, drawn: Hex32) -> Delivery:
        """Draw one delivery with a request of the core's that the law permits. Called by the user, before the release.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_TIME, E_PURPOSE, E_ONWARD, E_FIELDS, E_QUOTA, E_LIMIT, E_NOT_PERMITTED, E_HELD,
        E_CALENDAR.
        """
        view = StubView(ctx.stub)
        found = await self._request(ctx, request)
        entry = await ctx.records(CatalogueEntry).require(found.asked.entry)
        dataset = await store.require(view, DataSet, store.DATASET, entry.statement.dataset)
        asked = await store.require(view, Request, store.REQUEST, drawn)
        window = _window(found, ctx)
        given = {
            "entry": entry, "dataset": dataset, "drawn": asked, "purpose": asked.purpose, "rows": dataset.entry.rows,
            "window": window, "before": await ctx.records(Delivery).get(drawn),
        }  # fmt: skip
        rows = dataset.entry.rows + (found.window_rows if window == found.window else 0)
        changes = {
            "drawn": drawn, "window": window, "window_rows": rows, "deliveries": found.deliveries + 1,
            "due": await working_days_after(view, entry.jurisdiction, ctx.timestamp, ANSWER_DAYS),
        }  # fmt: skip
        changed = await advance(ctx, self.life, found, "draw", changes, given)
        await require_permit(ctx, view, asked, dataset)
        delivery = Delivery(
            drawn=drawn, request=request, dataset=dataset.id, number=changed.deliveries, rows=dataset.entry.rows,
            commitment=dataset.commitment, drawn_at=ctx.timestamp,
        )  # fmt: skip
        await ctx.records(Delivery).put(delivery)
        return delivery

    @transaction
    async def confirm(self, ctx: Context, request: Hex32) -> ShareRequest:
        """Confirm that what was drawn has come. Called by the user. Raises E_ACCESS, E_STATE, E_NOT_DELIVERED."""
        found, delivery = await self._drawn(ctx, request)
        kept = await ctx.stub.get_private_data_hash(
            implicit_collection(found.user), payload_key(delivery.dataset, delivery.drawn)
        )
        given = {"delivery": delivery, "received": kept.hex() if kept else None}
        changed = await advance(ctx, self.life, found, "confirm", given=given)
        await ctx.records(Delivery).put(delivery.model_copy(update={"delivered_at": ctx.timestamp}))
        return changed

    @transaction
    async def report(self, ctx: Context, request: Hex32, purpose: Word, report: Hex32) -> ShareRequest:
        """Report what a delivery was used for, with the report's hash; before that nothing more is drawn. Called by the user.

        Raises E_ACCESS, E_STATE, E_PURPOSE.
        """
        found, delivery = await self._drawn(ctx, request)
        changed = await advance(ctx, self.life, found, "report", given={"purpose": purpose})
        reported = {"report": report, "reported_at": ctx.timestamp}
        await ctx.records(Delivery).put(delivery.model_copy(update=reported))
        return changed

    @transaction
    async def expire(self, ctx: Context, request: Hex32) -> ShareRequest:
        """Put on record that the period is over. Called by anyone. Raises E_STATE, E_TIME."""
        return await self._step(ctx, request, "expire")

    @transaction
    async def revoke(self, ctx: Context, request: Hex32, reason: ShortText) -> ShareRequest:
        """Take a grant back, with the reason. Called by the provider. Raises E_ACCESS, E_STATE."""
        return await self._step(ctx, request, "revoke", {"reason": reason})

    @transaction
    async def terminate(self, ctx: Context, request: Hex32, ruling: ShortText) -> ShareRequest:
        """End a grant that is abused. Called by the supervisor. Raises E_ACCESS, E_ROLE, E_STATE."""
        return await self._step(ctx, request, "terminate", {"ruling": ruling})

    @query
    async def read(self, ctx: Context, request: Hex32) -> ShareRequest:
        """A request. Raises E_NOT_FOUND."""
        return await self._request(ctx, request)

    @query
    async def delivery(self, ctx: Context, drawn: Hex32) -> Delivery:
        """A delivery by the core's request. Raises E_NOT_FOUND."""
        return await ctx.records(Delivery).require(drawn)

    @query
    async def agreement(self, ctx: Context, request: Hex32) -> Agreement:
        """The agreement on a request. Raises E_NOT_FOUND."""
        return await ctx.records(Agreement).require(request)

    @query
    async def answers(self, ctx: Context, bookmark: str = "") -> Page[PublicAnswer]:
        """All requests as everybody may see them, by id: what the league table is made of."""
        found = await ctx.records(ShareRequest).page(bookmark=bookmark)
        return Page(items=tuple(map(_public, found.items)), bookmark=found.bookmark)

    async def _request(self, ctx: Context, request: str) -> ShareRequest:
        return await ctx.records(ShareRequest).require(request)

    async def _drawn(self, ctx: Context, request: str) -> tuple[ShareRequest, Delivery]:
        found = await self._request(ctx, request)
        if found.drawn is None:
            await self.life.step(ctx, found, "confirm")  # refuses by the table, for the caller or the state
            raise refusal("E_STATE", "nothing was drawn", "there is no delivery to speak of", "draw first")
        return found, await ctx.records(Delivery).require(found.drawn)

    async def _told(self, ctx: Context, msp_id: str, brief: str) -> str | None:
        kept = await ctx.stub.get_private_data_hash(implicit_collection(msp_id), brief_key(brief))
        return kept.hex() if kept else None

    async def _step(
        self, ctx: Context, request: str, action: str, changes: Given | None = None, given: Given | None = None
    ) -> ShareRequest:
        return await advance(ctx, self.life, await self._request(ctx, request), action, changes, given)


def brief_key(commitment: str) -> str:
    """Key of a brief in a private collection."""
    return composite_key(BRIEF, [commitment])


def _signature(ctx: Context) -> Signature:
    identity = identity_hash(ctx.identity.id)
    return Signature(msp_id=ctx.identity.msp_id, identity=identity, at=ctx.timestamp, transaction=ctx.transaction_id)


def _granted(ctx: Context, terms: Terms) -> dict[str, Any]:
    return {"granted": terms, "granted_at": ctx.timestamp, "granted_by": _signature(ctx)}


def _answered(ctx: Context, request: ShareRequest) -> dict[str, Any]:
    return {"answered_at": ctx.timestamp, "late": request.late or ctx.timestamp >= request.due}


def _window(request: ShareRequest, ctx: Context) -> int:
    """The number of the quota's window that the transaction lies in, counted from the grant."""
    if request.granted is None or request.granted_at is None:
        return 0
    return (ctx.timestamp - request.granted_at) // timedelta(days=request.granted.window_days)


def _public(request: ShareRequest) -> PublicAnswer:
    return PublicAnswer(
        request=request.id, entry=request.asked.entry, provider=request.provider, user=request.user, state=request.state,
        filed_at=request.filed_at, due=request.due, answered_at=request.answered_at, late=request.late,
        reason=request.reason,
    )  # fmt: skip
