"""A small contract for tests that run on the harness and on networks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from sovchain.chaincode import (
    Chaincode,
    Context,
    Contract,
    StateMachine,
    To,
    Transient,
    holder,
    query,
    record,
    role,
    transaction,
)


@record(key="title", indexes={"by_holder": "holder"})
class Book(BaseModel):
    title: str
    owner: str
    holder: str
    state: Literal["in", "out"] = "in"


@record(key="title")
class Note(BaseModel):
    title: str
    text: str


class Lending(Contract):
    """Books that are lent and brought back."""

    shelf = StateMachine(
        Book,
        {
            (None, "add"): To("in", role("librarian")),
            ("in", "lend"): To("out"),
            ("out", "bring"): To("in", holder("holder"), endorsers=(holder("owner"),)),
        },
    )

    @transaction
    async def add(self, ctx: Context, title: str) -> Book:
        me = ctx.identity.msp_id
        return await self.shelf.advance(ctx, Book(title=title, owner=me, holder=me), "add")

    @transaction
    async def lend(self, ctx: Context, title: str) -> Book:
        book = await ctx.records(Book).require(title)
        return await self.shelf.advance(ctx, book, "lend", {"holder": ctx.identity.msp_id})

    @transaction
    async def bring(self, ctx: Context, title: str) -> Book:
        book = await ctx.records(Book).require(title)
        return await self.shelf.advance(ctx, book, "bring", {"holder": book.owner})

    @query
    async def held_by(self, ctx: Context, msp_id: str) -> list[str]:
        return [book.title async for book in ctx.records(Book).find("by_holder", msp_id)]

    @query
    async def page(self, ctx: Context, bookmark: str = "") -> tuple[list[str], str]:
        page = await ctx.records(Book).page(size=2, bookmark=bookmark)
        return [book.title for book in page.items], page.bookmark

    @transaction
    async def remark(self, ctx: Context, note: Transient[Note], salt: Transient[bytes]) -> None:
        await ctx.private_records(Note, "remarks").put(note, salt=salt)

    @query
    async def remarks(self, ctx: Context) -> list[str]:
        return [note.text async for note in ctx.private_records(Note, "remarks").iterate()]


chaincode = Chaincode([Lending()], name="lending")
