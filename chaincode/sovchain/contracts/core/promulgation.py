"""Promulgation: a law that the government channel enacted, taken into force on another channel by proof."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import StringConstraints, ValidationError

from sovchain.chaincode import Context
from sovchain.contracts.core import store
from sovchain.contracts.core.cedartext import TEXT_MAX_BYTES
from sovchain.contracts.core.crossing_records import Arrival, Challenge
from sovchain.contracts.core.law import checked_law, law_key, require_free_version
from sovchain.contracts.core.portable import Portable, Receivable
from sovchain.contracts.core.records import (
    EnactedLaw,
    Hex32,
    LawBody,
    LawDraft,
    LawHeader,
    LawTitle,
    Record,
    Timestamp,
)
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StubView

LAW: str = "law"


class PromulgatedLaw(Record):
    """What crosses of a law: its text, the ballot that enacted it, and its end if it was repealed."""

    header: LawHeader
    text: Annotated[str, StringConstraints(max_length=TEXT_MAX_BYTES)]
    ballot: Hex32
    repealed_from: Timestamp | None = None


class LawsOut(Portable):
    """Laws that leave the channel that enacted them. Everybody may ask for one: law is public."""

    record_type: ClassVar[str] = LAW

    async def send(self, ctx: Context, challenge: Challenge, destination: str) -> PromulgatedLaw:
        """The law that `record_id` names as LAW/VERSION. Raises E_NOT_FOUND."""
        view = StubView(ctx.stub)
        law, _, version = challenge.record_id.partition("/")
        title = await store.require(view, LawTitle, store.LAW_TITLE, law)
        enacted = await store.require(view, EnactedLaw, store.ENACTED, title.jurisdiction, law, version.rjust(6, "0"))
        body = await store.require(view, LawBody, store.LAW_TEXT, enacted.text_hash)
        return PromulgatedLaw(
            header=enacted.header, text=body.text, ballot=enacted.ballot, repealed_from=enacted.repealed_from
        )


class LawsIn(Receivable):
    """Laws that come from the government channel. They bind here from their import on, never from before."""

    record_type: ClassVar[str] = LAW
    sources: ClassVar[tuple[str, ...]] = ("government",)

    async def receive(self, ctx: Context, arrival: Arrival, content: str) -> None:
        """Put a law into force, or its end. Raises E_LAW, E_STATE."""
        try:
            came = PromulgatedLaw.model_validate_json(content)
        except ValidationError:
            raise refusal(
                "E_LAW",
                "the law that came has another form",
                "its source speaks another version",
                "upgrade this channel",
            ) from None
        law = checked_law(came.text)
        header = law.header
        if header != came.header or arrival.record_id != f"{header.law}/{header.version}":
            raise refusal(
                "E_LAW", "the law's header is not that of its text", "its source is in error", "ask for it again"
            )
        view = StubView(ctx.stub)
        title = await store.read(view, LawTitle, store.LAW_TITLE, header.law)
        here = await store.read(view, EnactedLaw, *law_key(header))
        if here is not None and here.text_hash == law.text_hash and here.ballot == came.ballot:
            await self._end(ctx, here, came)
            return
        await require_free_version(view, header, title)
        enacted = EnactedLaw(
            header=header,
            text_hash=law.text_hash,
            ballot=came.ballot,
            enacted_at=ctx.timestamp,
            repealed_from=came.repealed_from,
        )
        draft = LawDraft(ballot=came.ballot, header=header, text_hash=law.text_hash, clauses=law.clauses)
        await store.write(ctx, LawBody(text=came.text), store.LAW_TEXT, law.text_hash)
        await store.write(ctx, draft, store.LAW_DRAFT, came.ballot)
        await store.write(ctx, enacted, *law_key(header))
        await store.write(
            ctx, LawTitle(jurisdiction=header.jurisdiction, newest=header.version), store.LAW_TITLE, header.law
        )

    @staticmethod
    async def _end(ctx: Context, here: EnactedLaw, came: PromulgatedLaw) -> None:
        if came.repealed_from is None or here.repealed_from is not None:
            raise refusal(
                "E_STATE",
                f"{here.header.law} version {here.header.version} is here already",
                "an earlier transaction brought it",
                "nothing is left to do",
                law=here.header.law,
            )
        ends = max(came.repealed_from, ctx.timestamp)
        await store.write(ctx, here.model_copy(update={"repealed_from": ends}), *law_key(here.header))
