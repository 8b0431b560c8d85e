"""Records, access, state machines and the harness as a type checker sees them: checked by test_checkers.py, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, assert_type

from pydantic import BaseModel

from sovchain.chaincode import (
    Chaincode,
    Context,
    Contract,
    Page,
    Requirement,
    StateMachine,
    To,
    Transient,
    holder,
    msp,
    query,
    record,
    role,
    transaction,
)
from sovchain.client import Submitted
from sovchain.testing import ContractHarness, ContractWorld


@record(key="number", indexes={"by_owner": "owner"})
class Item(BaseModel):
    number: str
    owner: str
    state: Literal["new", "gone"] = "new"


@record(key="id")
class Other(BaseModel):
    id: str


class Items(Contract):
    """Typed with options and without."""

    requires = msp("AMSP", "BMSP")
    life = StateMachine(Item, {(None, "add"): To("new"), ("new", "drop"): To("gone", holder("owner"))})

    @transaction(requires=role("clerk") & ~msp("XMSP") | msp("GovMSP"))
    async def add(self, ctx: Context, item: Item, note: Transient[str]) -> int: ...

    @query(name="readItem")
    async def read(self, ctx: Context, number: str) -> Item: ...

    @query(requires=role("clerk"))
    def count(self, ctx: Context) -> int: ...

    @transaction()
    async def drop(self, ctx: Context, number: str) -> None: ...


async def records_right(ctx: Context) -> None:
    items = ctx.records(Item)
    assert_type(await items.get("a"), Item | None)
    assert_type(await items.require("a"), Item)
    assert_type(items.iterate(), AsyncIterator[Item])
    assert_type(items.find("by_owner", "AMSP"), AsyncIterator[Item])
    assert_type(await items.page(size=3), Page[Item])
    assert_type(await items.delete("a"), bool)
    await items.put(Item(number="a", owner="b"))
    secret = ctx.private_records(Item, "drawer")
    await secret.put(Item(number="a", owner="b"), salt=b"")
    assert_type(await secret.hash("a"), bytes | None)
    assert_type(await Items.life.advance(ctx, await items.require("a"), "drop"), Item)


async def records_wrong(ctx: Context) -> tuple[int, str]:
    items = ctx.records(Item)
    await items.put(Other(id="a"))  # WRONG: another model
    await items.put({"number": "a"})  # WRONG: no model
    await items.put(Item(number="a", owner="b"), salt=b"")  # WRONG: public records have no salt
    number: int = await items.require("a")  # WRONG: a record is no number
    ctx.records(str)  # WRONG: text is no model
    await Items.life.advance(ctx, Other(id="a"), "drop")  # WRONG: a machine of another model
    owner = (await items.get("a")).owner  # WRONG: it may be None
    return number, owner


async def calls_right(world: ContractWorld, harness: ContractHarness) -> None:
    one = world.caller("A", attributes={"role": "clerk"})
    assert_type(await one.submit(Items.add, Item(number="a", owner="b"), "note"), Submitted[int])
    assert_type(await one.evaluate(Items.read, "a"), Item)
    assert_type(await one.evaluate(Items.count), int)
    done = await harness.caller("A").submit(Items.drop, "a")
    assert_type(done.result, None)
    assert_type(done.writes(), dict[str, bytes | None])


async def calls_wrong(world: ContractWorld, harness: ContractHarness) -> None:
    one = world.caller("A")
    await one.submit(Items.add, Item(number="a", owner="b"))  # WRONG: the transient parameter is missing
    await one.submit(Items.add, Other(id="a"), "note")  # WRONG: another model
    await one.evaluate(Items.read, 7)  # WRONG: a number for text
    await one.evaluate(Items.count, 1)  # WRONG: one argument too many
    await harness.caller("A").submit(Items.drop)  # WRONG: an argument is missing
    harness.caller("A", attributes={"role": 7})  # WRONG: attributes are text


def access_right() -> list[Requirement]:
    return [role("a") & msp("b"), ~role("a") | holder("owner")]


def access_wrong() -> Any:
    transaction(requires="clerk")  # WRONG: a text is no requirement
    role("clerk") & "GovMSP"  # WRONG: a text is no requirement
    Chaincode([Items()], determinism="sometimes")  # WRONG: no such mode
    To("new", "clerk")  # WRONG: a text is no requirement
