"""The catalogue of government data: who is the one source of which data item, how it is shared, and disputes about that.

The rules are those of the government data sharing regulation (State Council decree 809): one catalogue for all, each data item
with one authoritative source, no collecting anew of what sharing supplies, three kinds of sharing of which "not shared" needs
a law that says so, and a procedure for disputes.

What is shared lies in the core as a data set (`Sharing.deposit`, `Sharing.publish`): an entry says how to come by it.

No record here has an endorsement policy of its own. A provider's peer that falls silent would otherwise stop the clocks
that run against the provider; the channel's policy takes the regulator's peer and any other.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, model_validator

from sovchain.chaincode import (
    Context,
    Contract,
    Given,
    StateMachine,
    To,
    attribute,
    guard,
    holder,
    msp,
    query,
    record,
    role,
    transaction,
)
from sovchain.contracts.core import store
from sovchain.contracts.core.calendar import working_days_after
from sovchain.contracts.core.codes import jurisdiction_path
from sovchain.contracts.core.engine import laws_in_force
from sovchain.contracts.core.lawreview import law_version
from sovchain.contracts.core.records import (
    DataSet,
    EnactedLaw,
    Hex32,
    JurisdictionCode,
    LawDraft,
    LawId,
    MspId,
    Page,
    Record,
    ShortText,
    Timestamp,
    format_time,
)
from sovchain.contracts.core.store import StateView, StubView, identity_hash
from sovchain.contracts.scenario import advance, registered_as

BUREAU: Final = "GovernmentMSP"
"""Keeps the catalogue: its officers have `office=bureau` in their certificates."""
ANSWER_DAYS: Final = 10
"""Working days in which a provider answers."""

Item = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}(\.[a-z][a-z0-9_-]{0,39}){1,3}$")]
"""A data item by its code, such as `household.income`: the same thing has one code, whatever a department calls its column."""
Column = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Share = Literal["unconditional", "conditional", "none"]
EntryState = Literal["draft", "reviewed", "published", "suspended", "retired"]


class Citation(Record):
    """A clause of a law on this ledger."""

    law: LawId
    clause: ShortText


class Listing(Record):
    """How an entry is shared: with a condition in plain words, or not at all by a law that says so."""

    share: Share
    condition: ShortText | None = None
    citation: Citation | None = None

    @model_validator(mode="after")
    def _check(self) -> Listing:
        if (self.share == "conditional") != (self.condition is not None):
            raise ValueError("a condition belongs to what is shared conditionally, and to nothing else")
        return self


class Statement(Record):
    """What a provider states of an entry.

    `dataset` is the core's data set. `items` are the data items that its columns are, by column; `keys` the columns by which
    rows are found, of which somebody else is the source.
    """

    title: ShortText
    dataset: Hex32
    items: Annotated[dict[Column, Item], Field(min_length=1, max_length=200)]
    keys: Annotated[tuple[Column, ...], Field(max_length=20)] = ()
    listing: Listing
    update_days: Annotated[int, Field(ge=1, le=366)] = 366

    @model_validator(mode="after")
    def _check(self) -> Statement:
        if len(set(self.items.values())) != len(self.items):
            raise ValueError("two columns are the same data item")
        return self


@record(key="id")
class CatalogueEntry(Record):
    """An entry of the catalogue."""

    id: Hex32
    provider: MspId
    jurisdiction: JurisdictionCode
    statement: Statement
    state: EntryState
    stated_by: Hex32
    stated_at: Timestamp
    supplied_at: Timestamp
    reviewed_by: Hex32 | None = None
    remark: str = ""


@record(key="item")
class Source(Record):
    """The one entry that a data item comes from."""

    item: Item
    entry: Hex32


@record(key="id")
class Dispute(Record):
    """A dispute about an entry: that its listing is wrong, or that another department is the right source."""

    id: Hex32
    entry: Hex32
    provider: MspId
    raised_by: MspId
    about: Literal["listing", "source", "quality"]
    ground: ShortText
    state: Literal["raised", "answered", "overdue", "upheld", "dismissed", "settled"]
    raised_at: Timestamp
    due: Timestamp
    answer: str = ""
    ruling: str = ""


class PublicEntry(Record):
    """What everybody may see of an entry."""

    id: Hex32
    title: ShortText
    provider: MspId
    items: tuple[Item, ...]
    share: Share
    condition: str | None
    citation: Citation | None
    state: EntryState
    supplied_at: Timestamp
    remark: str


@guard(
    "E_DATASET", "the core's data set is the provider's own, published, and its columns are the items and keys stated"
)
def supplied(ctx: Context, entry: CatalogueEntry | None, given: Given) -> bool | str:
    """An entry promises nothing that is not there."""
    found: DataSet = given["dataset"]
    stated: Statement = given["statement"]
    if found.owner != given["provider"] or found.state != "published":
        return f"it is {found.owner}'s and {found.state}"
    named, columns = {*stated.items, *stated.keys}, {column.name for column in found.entry.columns}
    odd = sorted(named ^ columns)
    return not odd or f"they differ in {odd[0]}"


@guard("E_ONWARD", "it is made of the provider's own data only")
def own_sources(ctx: Context, entry: CatalogueEntry | None, given: Given) -> bool | str:
    """Data received from another department are shared by that one."""
    foreign = [one.owner for one in given["sources"] if one.owner != given["provider"]]
    return not foreign or f"one source is {foreign[0]}'s"


@guard("E_DUPLICATE", "no other entry is the source of one of its items")
def unclaimed(ctx: Context, entry: CatalogueEntry | None, given: Given) -> bool | str:
    """One source for each item: what sharing supplies is not collected again."""
    taken = [one for one in given["claims"] if entry is None or one.entry != entry.id]
    return not taken or f"{taken[0].item} comes from entry {taken[0].entry[:16]}"


@guard("E_CITATION", "a law in force that says so is cited for what is not shared")
async def lawful_listing(ctx: Context, entry: CatalogueEntry | None, given: Given) -> bool | str:
    """Closing data off takes a clause of a law on this ledger, and no words of the provider's."""
    listing: Listing = given["listing"]
    if listing.share != "none":
        return True
    if listing.citation is None:
        return "none is cited"
    clause = await in_force(StubView(ctx.stub), given["jurisdiction"], listing.citation, ctx)
    return clause or f"{listing.citation.law}, {listing.citation.clause} is none in {given['jurisdiction']}"


@guard("E_SIGNER", "somebody else reviews an entry than stated it")
def another_officer(ctx: Context, entry: CatalogueEntry, given: Given) -> bool:
    """The bureau may be a provider itself."""
    return entry.stated_by != identity_hash(ctx.identity.id)


@guard("E_INPUT", "the columns, items and keys are those that were published")
def same_shape(ctx: Context, entry: CatalogueEntry, given: Given) -> bool:
    """What was reviewed; another shape is another entry."""
    return bool(given["statement"].items == entry.statement.items and given["statement"].keys == entry.statement.keys)


@guard("E_TIME", "the time for an answer is over")
def clock_over(ctx: Context, found: Any, given: Given) -> bool | str:
    """Whoever calls, the ledger's clock says it."""
    return ctx.timestamp >= found.due or f"it ends at {format_time(found.due)}"


@guard("E_OWN", "the caller is not the provider")
def not_own(ctx: Context, found: Dispute | None, given: Given) -> bool:
    """Nobody disputes with himself."""
    return bool(given["provider"] != ctx.identity.msp_id)


PROVIDER: Final = holder("provider")
_BUREAU: Final = msp(BUREAU) & attribute("office", "bureau")
SUPERVISOR: Final = registered_as("supervisor")


class Catalogue(Contract):
    """Entries and the disputes about them."""

    listing = StateMachine(
        CatalogueEntry,
        {
            (None, "propose"): To("draft", guards=(supplied, own_sources, unclaimed, lawful_listing)),
            ("draft", "amend"): To("draft", PROVIDER, (supplied, own_sources, unclaimed, lawful_listing)),
            ("draft", "remit"): To("draft", _BUREAU, text="back to the provider with a remark"),
            ("draft", "review"): To("reviewed", _BUREAU, (another_officer, lawful_listing)),
            ("draft", "retire"): To("retired", PROVIDER),
            ("reviewed", "publish"): To("published", PROVIDER),
            ("published", "supply"): To("published", PROVIDER, (supplied, own_sources, same_shape), text="newer data"),
            ("published", "suspend"): To("suspended", _BUREAU),
            ("suspended", "resume"): To("published", _BUREAU),
            ("published", "retire"): To("retired", _BUREAU),
            ("suspended", "retire"): To("retired", _BUREAU),
            ("published", "relist"): To("published", role("supervisor"), (SUPERVISOR, lawful_listing), text="by a ruling"),
        },
        title="catalogue entry",
    )  # fmt: skip
    hearing = StateMachine(
        Dispute,
        {
            (None, "dispute"): To("raised", guards=(not_own,)),
            ("raised", "answer"): To("answered", PROVIDER),
            ("raised", "tick"): To("overdue", guards=(clock_over,)),
            ("answered", "accept"): To("settled", holder("raised_by")),
            ("answered", "uphold"): To("upheld", role("supervisor"), (SUPERVISOR,)),
            ("overdue", "uphold"): To("upheld", role("supervisor"), (SUPERVISOR,)),
            ("answered", "dismiss"): To("dismissed", role("supervisor"), (SUPERVISOR,)),
            ("overdue", "dismiss"): To("dismissed", role("supervisor"), (SUPERVISOR,)),
        },
        title="dispute",
    )

    @transaction
    async def propose(self, ctx: Context, statement: Statement) -> CatalogueEntry:
        """State an entry. Called by its provider.

        Raises E_NOT_FOUND, E_DATASET, E_ONWARD, E_DUPLICATE, E_CITATION, E_NOT_ADMITTED, E_SUSPENDED.
        """
        given = await self._stated(ctx, ctx.identity.msp_id, statement)
        entry = CatalogueEntry(
            id=ctx.transaction_id, provider=ctx.identity.msp_id, jurisdiction=given["jurisdiction"], statement=statement,
            state="draft", stated_by=identity_hash(ctx.identity.id), stated_at=ctx.timestamp, supplied_at=ctx.timestamp,
        )  # fmt: skip
        stated = await advance(ctx, self.listing, entry, "propose", given=given)
        await self._claim(ctx, stated, ())
        return stated

    @transaction
    async def amend(self, ctx: Context, entry: Hex32, statement: Statement) -> CatalogueEntry:
        """State a draft anew. Called by the provider. Raises as `propose`, E_ACCESS, E_STATE."""
        found = await self._entry(ctx, entry)
        given = await self._stated(ctx, found.provider, statement)
        changes = {"statement": statement, "stated_by": identity_hash(ctx.identity.id), "stated_at": ctx.timestamp,
                   "jurisdiction": given["jurisdiction"], "remark": ""}  # fmt: skip
        amended = await advance(ctx, self.listing, found, "amend", changes, given)
        await self._claim(ctx, amended, tuple(found.statement.items.values()))
        return amended

    @transaction
    async def remit(self, ctx: Context, entry: Hex32, remark: ShortText) -> CatalogueEntry:
        """Send a draft back with a remark. Called by the bureau. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, entry, "remit", {"remark": remark})

    @transaction
    async def review(self, ctx: Context, entry: Hex32) -> CatalogueEntry:
        """Find a draft in order. Called by the bureau. Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_SIGNER, E_CITATION."""
        found = await self._entry(ctx, entry)
        given = {"listing": found.statement.listing, "jurisdiction": found.jurisdiction}
        return await advance(ctx, self.listing, found, "review", {"reviewed_by": identity_hash(ctx.identity.id)}, given)

    @transaction
    async def publish(self, ctx: Context, entry: Hex32) -> CatalogueEntry:
        """Open an entry for requests. Called by the provider. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, entry, "publish")

    @transaction
    async def supply(self, ctx: Context, entry: Hex32, dataset: Hex32) -> CatalogueEntry:
        """Put newer data of the same shape behind an entry. Called by the provider.

        Raises E_NOT_FOUND, E_ACCESS, E_STATE, E_DATASET, E_ONWARD, E_INPUT.
        """
        found = await self._entry(ctx, entry)
        statement = found.statement.model_copy(update={"dataset": dataset})
        given = await self._stated(ctx, found.provider, statement)
        return await advance(
            ctx, self.listing, found, "supply", {"statement": statement, "supplied_at": ctx.timestamp}, given
        )

    @transaction
    async def suspend(self, ctx: Context, entry: Hex32, remark: ShortText) -> CatalogueEntry:
        """Stop requests on an entry. Called by the bureau. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, entry, "suspend", {"remark": remark})

    @transaction
    async def resume(self, ctx: Context, entry: Hex32) -> CatalogueEntry:
        """Let them go on. Called by the bureau. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, entry, "resume", {"remark": ""})

    @transaction
    async def retire(self, ctx: Context, entry: Hex32, remark: ShortText) -> CatalogueEntry:
        """End an entry, so that another one may be the source of its items.

        A draft is ended by its provider; what is published by the bureau, so that nobody leaves the catalogue at will.
        Raises E_NOT_FOUND, E_ACCESS, E_STATE.
        """
        ended = await self._step(ctx, entry, "retire", {"remark": remark})
        for item in ended.statement.items.values():
            await ctx.records(Source).delete(item)
        return ended

    @transaction
    async def dispute(
        self, ctx: Context, entry: Hex32, about: Literal["listing", "source", "quality"], ground: ShortText
    ) -> Dispute:
        """Dispute an entry. Called by any other department. Raises E_NOT_FOUND, E_OWN, E_CALENDAR."""
        found = await self._entry(ctx, entry)
        due = await working_days_after(StubView(ctx.stub), found.jurisdiction, ctx.timestamp, ANSWER_DAYS)
        dispute = Dispute(
            id=ctx.transaction_id, entry=entry, provider=found.provider, raised_by=ctx.identity.msp_id, about=about,
            ground=ground, state="raised", raised_at=ctx.timestamp, due=due,
        )  # fmt: skip
        return await advance(ctx, self.hearing, dispute, "dispute", given={"provider": found.provider})

    @transaction
    async def answer(self, ctx: Context, dispute: Hex32, answer: ShortText) -> Dispute:
        """Answer a dispute. Called by the provider. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._hear(ctx, dispute, "answer", {"answer": answer})

    @transaction
    async def tick(self, ctx: Context, dispute: Hex32) -> Dispute:
        """Put on record that no answer came in time. Called by anyone. Raises E_NOT_FOUND, E_STATE, E_TIME."""
        return await self._hear(ctx, dispute, "tick")

    @transaction
    async def accept(self, ctx: Context, dispute: Hex32) -> Dispute:
        """Be content with the answer. Called by whoever raised it. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._hear(ctx, dispute, "accept")

    @transaction
    async def uphold(self, ctx: Context, dispute: Hex32, ruling: ShortText, listing: Listing | None = None) -> Dispute:
        """Rule for whoever raised it; a dispute about the listing sets the listing with it. Called by the supervisor.

        Raises E_NOT_FOUND, E_ACCESS, E_ROLE, E_STATE, E_CITATION.
        """
        ruled = await self._hear(ctx, dispute, "uphold", {"ruling": ruling})
        if listing is not None:
            entry = await self._entry(ctx, ruled.entry)
            statement = entry.statement.model_copy(update={"listing": listing})
            given = {"listing": listing, "jurisdiction": entry.jurisdiction}
            await self.listing.advance(ctx, entry, "relist", {"statement": statement, "remark": ruling}, given)
        return ruled

    @transaction
    async def dismiss(self, ctx: Context, dispute: Hex32, ruling: ShortText) -> Dispute:
        """Rule against whoever raised it. Called by the supervisor. Raises E_NOT_FOUND, E_ACCESS, E_ROLE, E_STATE."""
        return await self._hear(ctx, dispute, "dismiss", {"ruling": ruling})

    @query
    async def read(self, ctx: Context, entry: Hex32) -> CatalogueEntry:
        """An entry. Raises E_NOT_FOUND."""
        return await self._entry(ctx, entry)

    @query
    async def source(self, ctx: Context, item: Item) -> Source:
        """Where a data item comes from. Raises E_NOT_FOUND."""
        return await ctx.records(Source).require(item)

    @query
    async def read_dispute(self, ctx: Context, dispute: Hex32) -> Dispute:
        """A dispute. Raises E_NOT_FOUND."""
        return await ctx.records(Dispute).require(dispute)

    @query
    async def public(self, ctx: Context, bookmark: str = "") -> Page[PublicEntry]:
        """The catalogue as everybody may see it, by id. Drafts are not shown."""
        found = await ctx.records(CatalogueEntry).page(bookmark=bookmark)
        shown = tuple(_public(one) for one in found.items if one.state not in ("draft", "reviewed"))
        return Page(items=shown, bookmark=found.bookmark)

    async def _entry(self, ctx: Context, entry: str) -> CatalogueEntry:
        return await ctx.records(CatalogueEntry).require(entry)

    async def _stated(self, ctx: Context, provider: str, statement: Statement) -> dict[str, Any]:
        view = StubView(ctx.stub)
        dataset = await store.require(view, DataSet, store.DATASET, statement.dataset)
        claims = [await ctx.records(Source).get(item) for item in statement.items.values()]
        return {
            "provider": provider,
            "statement": statement,
            "listing": statement.listing,
            "dataset": dataset,
            "jurisdiction": dataset.entry.jurisdiction,
            "sources": [await store.require(view, DataSet, store.DATASET, one) for one in dataset.entry.sources],
            "claims": [one for one in claims if one is not None],
        }

    async def _claim(self, ctx: Context, entry: CatalogueEntry, before: tuple[str, ...]) -> None:
        items = tuple(entry.statement.items.values())
        for item in before:
            if item not in items:
                await ctx.records(Source).delete(item)
        for item in items:
            await ctx.records(Source).put(Source(item=item, entry=entry.id))

    async def _step(self, ctx: Context, entry: str, action: str, changes: Given | None = None) -> CatalogueEntry:
        return await advance(ctx, self.listing, await self._entry(ctx, entry), action, changes)

    async def _hear(self, ctx: Context, dispute: str, action: str, changes: Given | None = None) -> Dispute:
        return await advance(ctx, self.hearing, await ctx.records(Dispute).require(dispute), action, changes)


async def in_force(view: StateView, jurisdiction: str, citation: Citation, ctx: Context) -> bool:
    """Whether a law with this clause is in force on the path of a jurisdiction at the transaction's time."""
    for node in jurisdiction_path(jurisdiction):
        enacted = await store.scan(view, EnactedLaw, store.ENACTED, node, citation.law)
        current = {law.version for law in laws_in_force(map(law_version, enacted), ctx.timestamp)}
        for law in enacted:
            if law.header.version in current:
                draft = await store.require(view, LawDraft, store.LAW_DRAFT, law.ballot)
                return any(one.clause == citation.clause for one in draft.clauses)
    return False


def _public(entry: CatalogueEntry) -> PublicEntry:
    stated = entry.statement
    return PublicEntry(
        id=entry.id, title=stated.title, provider=entry.provider, items=tuple(stated.items.values()),
        share=stated.listing.share, condition=stated.listing.condition, citation=stated.listing.citation,
        state=entry.state, supplied_at=entry.supplied_at, remark=entry.remark,
    )  # fmt: skip
