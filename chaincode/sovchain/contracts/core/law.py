"""Laws: proposed as text, checked, put to the vote, in force from their date, superseded and repealed; never erased."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Final

from pydantic import StringConstraints

from sovchain.chaincode import Context, Contract, query, transaction
from sovchain.contracts.core import ballots, store
from sovchain.contracts.core.ballots import Seats
from sovchain.contracts.core.cedartext import TEXT_MAX_BYTES, CedarTextError
from sovchain.contracts.core.codes import jurisdiction_path
from sovchain.contracts.core.engine import laws_in_force
from sovchain.contracts.core.lawreview import law_version, require_no_conflict, review, review_repeal
from sovchain.contracts.core.lawtext import LawText, read_law
from sovchain.contracts.core.records import (
    BallotView,
    EnactedLaw,
    Hex32,
    JurisdictionCode,
    LawBody,
    LawDraft,
    LawFinding,
    LawHeader,
    LawId,
    LawState,
    LawTitle,
    LawView,
    Page,
    Repeal,
    Timestamp,
)
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StateView, StubView

LAWS_MAX: Final = 64
"""Most laws of one jurisdiction: every decision on its path reads them."""

LawTextArgument = Annotated[str, StringConstraints(max_length=TEXT_MAX_BYTES)]


class Laws(Contract):
    """The lifecycle of law on this channel."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats

    @transaction
    async def propose(self, ctx: Context, text: LawTextArgument) -> LawDraft:
        """Put a law to the vote.

        Called by an admin of a seat. Raises E_ROLE, E_SEAT, E_STATE, and E_LAW with `line`, `column` and `clause`, also for a clause
        that could never take effect beside the laws in force.
        """
        law = checked_law(text)
        view = StubView(ctx.stub)
        _check_title(law.header, await store.read(view, LawTitle, store.LAW_TITLE, law.header.law))
        await require_no_conflict(view, law, ctx.timestamp)
        title = f"{law.header.law} version {law.header.version}"
        ballot = await ballots.open_ballot(ctx, self._seats, "law", title)
        draft = LawDraft(ballot=ballot.id, header=law.header, text_hash=law.text_hash, clauses=law.clauses)
        await store.write(ctx, draft, store.LAW_DRAFT, ballot.id)
        await store.write(ctx, LawBody(text=text), store.LAW_TEXT, law.text_hash)
        ctx.set_event("LawProposed", {"ballot": ballot.id, "law": law.header.law, "version": law.header.version})
        return draft

    @transaction
    async def propose_repeal(self, ctx: Context, law: LawId, effective_from: Timestamp) -> str:
        """Put the end of a law to the vote, from a time on but never from before the ballot passes.

        Called by an admin of a seat. Returns the ballot's id. Raises E_ROLE, E_SEAT, E_NOT_FOUND.
        """
        title = await store.require(StubView(ctx.stub), LawTitle, store.LAW_TITLE, law)
        ballot = await ballots.open_ballot(ctx, self._seats, "repeal", f"repeal of {law}")
        repeal = Repeal(law=law, jurisdiction=title.jurisdiction, newest=title.newest, effective_from=effective_from)
        await store.write(ctx, repeal, store.REPEAL, ballot.id)
        ctx.set_event("RepealProposed", {"ballot": ballot.id, "law": law})
        return ballot.id

    @transaction
    async def vote(self, ctx: Context, ballot: Hex32) -> BallotView:
        """Cast the vote of the caller's class of seat. The vote that completes the quorum enacts or repeals.

        Called by an admin of a seat. Raises E_ROLE, E_SEAT, E_NOT_FOUND, E_STATE, E_TIME, and E_LAW as `propose` does: other laws may
        have come into force since.
        """
        cast = await ballots.cast_vote(ctx, self._seats, ballot, ("law", "repeal"))
        event = "Voted"
        if cast.ballot.state == "passed" and cast.ballot.subject == "law":
            await self._enact(ctx, ballot)
            event = "LawEnacted"
        elif cast.ballot.state == "passed":
            await self._repeal(ctx, ballot)
            event = "LawRepealed"
        ctx.set_event(event, {"ballot": ballot})
        return cast

    async def _enact(self, ctx: Context, ballot: str) -> None:
        view = StubView(ctx.stub)
        draft = await store.require(view, LawDraft, store.LAW_DRAFT, ballot)
        header = draft.header
        await require_free_version(view, header, await store.read(view, LawTitle, store.LAW_TITLE, header.law))
        # Other laws may have come into force since this one was proposed.
        text = (await store.require(view, LawBody, store.LAW_TEXT, draft.text_hash)).text
        await require_no_conflict(view, checked_law(text), ctx.timestamp)
        enacted = EnactedLaw(header=header, text_hash=draft.text_hash, ballot=ballot, enacted_at=ctx.timestamp)
        await store.write(ctx, enacted, *law_key(header))
        now = LawTitle(jurisdiction=header.jurisdiction, newest=header.version)
        await store.write(ctx, now, store.LAW_TITLE, header.law)

    async def _repeal(self, ctx: Context, ballot: str) -> None:
        view = StubView(ctx.stub)
        repeal = await store.require(view, Repeal, store.REPEAL, ballot)
        title = await store.require(view, LawTitle, store.LAW_TITLE, repeal.law)
        if title.newest != repeal.newest:
            raise refusal(
                "E_STATE",
                f"{repeal.law} was amended to version {title.newest} since this was proposed",
                "a repeal ends what its voters saw",
                "propose the repeal again",
                law=repeal.law,
            )
        ends = max(repeal.effective_from, ctx.timestamp)
        for law in await store.scan(view, EnactedLaw, store.ENACTED, repeal.jurisdiction, repeal.law):
            if law.repealed_from is None or law.repealed_from > ends:
                ended = law.model_copy(update={"repealed_from": ends})
                await store.write(ctx, ended, *law_key(law.header))

    @query
    async def text(self, ctx: Context, text_hash: Hex32) -> str:
        """The text of a proposed or enacted law by its hash. Raises E_NOT_FOUND."""
        return (await store.require(StubView(ctx.stub), LawBody, store.LAW_TEXT, text_hash)).text

    @query
    async def review(self, ctx: Context, text: LawTextArgument) -> list[LawFinding]:
        """What a law would conflict with or change if it were enacted now, on every level. Raises E_LAW for an invalid text."""
        return list(await review(StubView(ctx.stub), checked_law(text), ctx.timestamp))

    @query
    async def review_repeal(self, ctx: Context, law: LawId, effective_from: Timestamp) -> list[LawFinding]:
        """What the end of a law would leave without effect or without a law. Raises E_NOT_FOUND."""
        view = StubView(ctx.stub)
        await store.require(view, LawTitle, store.LAW_TITLE, law)
        return list(await review_repeal(view, law, effective_from, ctx.timestamp))

    @query
    async def listing(self, ctx: Context, bookmark: str = "") -> Page[LawView]:
        """All laws and drafts, by ballot, with their states at the time of this query's proposal."""
        drafts = await store.page(ctx.stub, LawDraft, store.LAW_DRAFT, bookmark=bookmark)
        view = StubView(ctx.stub)
        shown = [await self._shown(view, draft, ctx.timestamp) for draft in drafts.items]
        return Page(items=tuple(shown), bookmark=drafts.bookmark)

    async def _shown(self, view: StateView, draft: LawDraft, at: datetime) -> LawView:
        header = draft.header
        versions = await store.scan(view, EnactedLaw, store.ENACTED, header.jurisdiction, header.law)
        enacted = next((law for law in versions if law.ballot == draft.ballot), None)
        if enacted is not None:
            return law_view(enacted, versions, at)
        missing = (await ballots.read_ballot(view, draft.ballot)).missing
        return LawView(header=header, text_hash=draft.text_hash, ballot=draft.ballot, state="proposed", missing=missing)

    @query
    async def in_force(
        self, ctx: Context, jurisdiction: JurisdictionCode, at: Timestamp | None = None
    ) -> list[LawView]:
        """Laws in force on the path of a jurisdiction, highest level first, at a time (default: the proposal's)."""
        moment = at or ctx.timestamp
        view = StubView(ctx.stub)
        found = []
        for node in jurisdiction_path(jurisdiction):
            versions = await store.scan(view, EnactedLaw, store.ENACTED, node)
            found += [law for law in (law_view(one, versions, moment) for one in versions) if law.state == "in force"]
        return found


def law_view(enacted: EnactedLaw, versions: Iterable[EnactedLaw], at: datetime) -> LawView:
    """An enacted law with its state at a time, judged among all versions of it."""
    this = law_version(enacted)
    in_force = {(law.law, law.version) for law in laws_in_force([law_version(one) for one in versions], at)}
    state: LawState
    if (this.law, this.version) in in_force:
        state = "in force"
    elif this.repealed_from is not None and this.repealed_from <= at:
        state = "repealed"
    elif at < this.in_force_from:
        state = "enacted"
    else:
        state = "superseded"
    return LawView(
        header=enacted.header,
        text_hash=enacted.text_hash,
        ballot=enacted.ballot,
        state=state,
        enacted_at=enacted.enacted_at,
        repealed_from=enacted.repealed_from,
    )


def checked_law(text: str) -> LawText:
    """A law's text, parsed. Raises E_LAW with `line`, `column` and `clause`."""
    try:
        return read_law(text)
    except CedarTextError as error:
        where = f"line {error.line}, column {error.column}" + (f", {error.clause}" if error.clause else "")
        raise refusal(
            "E_LAW",
            "the law is not valid",
            f"{where}: {error.message}",
            "correct the text and propose it again",
            line=error.line,
            column=error.column,
            clause=error.clause,
        ) from None


async def require_free_version(view: StateView, header: LawHeader, title: LawTitle | None) -> None:
    """Raise E_STATE unless a law's version is new here, and E_LIMIT when its jurisdiction has no room for another law."""
    _check_title(header, title)
    if title is None:
        others = {law.header.law for law in await store.scan(view, EnactedLaw, store.ENACTED, header.jurisdiction)}
        if len(others) >= LAWS_MAX:
            raise refusal(
                "E_LIMIT",
                f"{header.jurisdiction} can have no further law",
                f"it has {LAWS_MAX}, the most there may be",
                "amend one of them instead",
            )


def _check_title(header: LawHeader, title: LawTitle | None) -> None:
    if title is None:
        return
    if title.jurisdiction != header.jurisdiction:
        raise refusal(
            "E_STATE",
            f"{header.law} is a law of {title.jurisdiction}, not of {header.jurisdiction}",
            "a law's id is taken once",
            "use another",
            law=header.law,
        )
    if header.version <= title.newest:
        raise refusal(
            "E_STATE",
            f"{header.law} has version {title.newest} already",
            "versions only rise",
            f"use {title.newest + 1}",
            law=header.law,
            newest=title.newest,
        )


def law_key(header: LawHeader) -> tuple[str, str, str, str]:
    """Where an enacted law lies."""
    return store.ENACTED, header.jurisdiction, header.law, f"{header.version:06d}"
