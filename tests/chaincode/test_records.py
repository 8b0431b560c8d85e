"""Records in state: keys in order, indexes in step, versions migrated, pages that go on, in public and private state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sovchain.chaincode import (
    Chaincode,
    Context,
    Contract,
    DefinitionError,
    Page,
    RecordError,
    Transient,
    query,
    record,
    transaction,
)
from sovchain.chaincode.recordtypes import _part, record_type
from sovchain.client import CommitRejected, EndorseError
from sovchain.network.topology import Collection
from sovchain.protocol.keys import composite_key
from sovchain.testing import ContractHarness, refused


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


@record(key=("shelf", "number"), indexes={"by_color": "color", "by_owner": ("owner", "since")})
class Box(BaseModel):
    shelf: str
    number: int
    color: Color = Color.RED
    owner: str | None = None
    since: datetime | None = None


class Boxes(Contract):
    """What a contract does with records."""

    @transaction
    async def put(self, ctx: Context, boxes: list[Box]) -> None:
        for box in boxes:
            await ctx.records(Box).put(box)

    @transaction
    async def insert(self, ctx: Context, box: Box) -> None:
        await ctx.records(Box).insert(box)

    @transaction
    async def delete(self, ctx: Context, shelf: str, number: int) -> bool:
        return await ctx.records(Box).delete(shelf, number)

    @transaction
    async def put_and_delete(self, ctx: Context, box: Box, again: Box) -> None:
        boxes = ctx.records(Box)
        await boxes.put(box)
        await boxes.delete(box.shelf, box.number)
        await boxes.put(again)

    @transaction
    def put_blocking(self, ctx: Context, box: Box) -> list[str]:
        boxes = ctx.blocking_records(Box)
        boxes.put(box)
        found = [f"{one.shelf}{one.number}" for one in boxes.iterate()]
        ctx.blocking_private_records(Box, "attic").put(box, salt=b"0" * 16)
        return [*found, str(boxes.get(box.shelf, box.number) is None), str(len(boxes.find("by_color", Color.RED)))]

    @transaction
    async def stamp(self, ctx: Context, offset_h: int | None) -> None:
        zone = None if offset_h is None else timezone(timedelta(hours=offset_h))
        await ctx.records(Box).put(Box(shelf="A", number=1, since=datetime(2026, 1, 2, 8, tzinfo=zone)))

    @query
    async def get(self, ctx: Context, shelf: str, number: int) -> Box | None:
        return await ctx.records(Box).get(shelf, number)

    @query
    async def require(self, ctx: Context, shelf: str, number: int) -> Box:
        return await ctx.records(Box).require(shelf, number)

    @query
    async def on_shelf(self, ctx: Context, shelf: str) -> list[Box]:
        return [box async for box in ctx.records(Box).iterate(shelf)]

    @query
    async def of_color(self, ctx: Context, color: Color) -> list[Box]:
        return [box async for box in ctx.records(Box).find("by_color", color)]

    @query
    async def of_owner(self, ctx: Context, owner: str | None) -> list[Box]:
        return [box async for box in ctx.records(Box).find("by_owner", owner)]

    @query
    async def page(self, ctx: Context, size: int, bookmark: str) -> tuple[list[Box], str]:
        page = await ctx.records(Box).page(size=size, bookmark=bookmark)
        return list(page.items), page.bookmark

    @query
    async def color_page(self, ctx: Context, color: Color, size: int, bookmark: str) -> tuple[list[Box], str]:
        page = await ctx.records(Box).find_page("by_color", color, size=size, bookmark=bookmark)
        return list(page.items), page.bookmark

    @transaction
    async def hide(self, ctx: Context, box: Transient[Box], salt: Transient[bytes]) -> None:
        await ctx.private_records(Box, "attic").insert(box) if salt == b"-" else await ctx.private_records(
            Box, "attic"
        ).put(box, salt=salt)

    @transaction
    async def purge(self, ctx: Context, shelf: str, number: int) -> None:
        await ctx.private_records(Box, "attic").purge(shelf, number)

    @query
    async def hidden(self, ctx: Context, size: int, bookmark: str) -> tuple[list[Box], str]:
        page = await ctx.private_records(Box, "attic").page(size=size, bookmark=bookmark)
        return list(page.items), page.bookmark

    @query
    async def hidden_hash(self, ctx: Context, shelf: str, number: int) -> str:
        return (await ctx.private_records(Box, "attic").hash(shelf, number) or b"").hex()

    @query
    async def hidden_require(self, ctx: Context, shelf: str, number: int) -> Box:
        return await ctx.private_records(Box, "attic").require(shelf, number)


@pytest.fixture
def harness() -> ContractHarness:
    return ContractHarness(Chaincode([Boxes()]), collections=[Collection(name="attic", members=("Org1",))])


def box(shelf: str, number: int, **more: Any) -> Box:
    return Box.model_validate({"shelf": shelf, "number": number} | more)


async def test_a_record_is_read_back_and_lies_under_the_key_of_its_fields(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    done = await one.submit(Boxes.put, [box("a", 7, color="blue")])
    key = composite_key("Box", ["a", "0000000000000007"])
    assert done.writes()[key] == b'{"color":"blue","number":7,"owner":null,"shelf":"a","since":null}'
    assert await one.evaluate(Boxes.get, "a", 7) == box("a", 7, color="blue")
    assert await one.evaluate(Boxes.get, "a", 8) is None
    with refused("E_NOT_FOUND") as refusal:
        await one.evaluate(Boxes.require, "a", 8)
    assert refusal.fields == {"record": "Box", "key": ["a", "0000000000000008"]}


async def test_a_time_is_kept_in_utc_whatever_zone_the_contract_gave_it(
    harness: ContractHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    done = await harness.caller("Org1").submit(Boxes.stamp, 8)
    stored = done.writes()[composite_key("Box", ["A", f"{1:016d}"])]
    assert stored is not None
    assert json.loads(stored)["since"] == "2026-01-02T00:00:00Z"
    with refused("E_INTERNAL"):
        await harness.caller("Org1").submit(Boxes.stamp, None)
    assert "has no time zone" in capsys.readouterr().out


async def test_methods_without_async_have_the_same_records(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    assert (await one.submit(Boxes.put_blocking, box("a", 1))).result == ["True", "0"]
    assert (await one.submit(Boxes.put_blocking, box("a", 2))).result == ["a1", "True", "1"]
    assert sum(key.startswith("\x00Box\x00") for key in harness.held("Org1", "attic")) == 2


async def test_a_record_is_inserted_once(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    await one.submit(Boxes.insert, box("a", 1))
    with refused("E_EXISTS"):
        await one.submit(Boxes.insert, box("a", 1, color="blue"))


async def test_records_come_in_the_order_of_their_keys(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    await one.submit(Boxes.put, [box("b", 1), box("a", 10), box("a", 9), box("a", -2), box("a", -11)])
    assert [found.number for found in await one.evaluate(Boxes.on_shelf, "a")] == [-11, -2, 9, 10]


async def test_an_index_follows_the_record_and_none_is_no_text(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    await one.submit(Boxes.put, [box("a", 1), box("a", 2, color="blue"), box("a", 3, owner=""), box("a", 4, owner="-")])
    assert [found.number for found in await one.evaluate(Boxes.of_color, Color.RED)] == [1, 3, 4]
    assert [found.number for found in await one.evaluate(Boxes.of_owner, None)] == [1, 2]
    assert [found.number for found in await one.evaluate(Boxes.of_owner, "")] == [3]
    await one.submit(Boxes.put, [box("a", 1, color="blue")])
    assert [found.number for found in await one.evaluate(Boxes.of_color, Color.RED)] == [3, 4]
    assert [found.number for found in await one.evaluate(Boxes.of_color, Color.BLUE)] == [1, 2]
    assert await one.submit(Boxes.delete, "a", 1)
    assert [found.number for found in await one.evaluate(Boxes.of_color, Color.BLUE)] == [2]


numbers = st.integers(1, 3)
boxes = st.builds(
    Box,
    shelf=st.sampled_from(["a", "b"]),
    number=numbers,
    color=st.sampled_from(Color),
    owner=st.none() | st.sampled_from(["", "x"]),
)


@given(st.lists(st.lists(boxes, max_size=4) | boxes, max_size=8))
async def test_whatever_is_written_twice_or_deleted_the_indexes_are_those_of_the_records(
    steps: list[list[Box] | Box],
) -> None:
    """A list is one transaction that puts all of it; a single box is deleted."""
    harness = ContractHarness(Chaincode([Boxes()]))
    one = harness.caller("Org1")
    expected: dict[tuple[str, int], Box] = {}
    for step in steps:
        if isinstance(step, Box):
            was_there = (await one.submit(Boxes.delete, step.shelf, step.number)).result
            assert was_there == (expected.pop((step.shelf, step.number), None) is not None)
        else:
            await one.submit(Boxes.put, step)
            expected.update(((found.shelf, found.number), found) for found in step)
    kind = record_type(Box)
    entries = {composite_key(name, parts) for found in expected.values() for name, parts in kind.index_entries(found)}
    records = {composite_key("Box", kind.key_of(found)) for found in expected.values()}
    assert set(harness.state.public["contract"].entries) == entries | records


async def test_put_delete_and_put_in_one_transaction_leave_the_last(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    await one.submit(Boxes.put, [box("a", 1, color="blue")])
    await one.submit(Boxes.put_and_delete, box("a", 1), box("a", 1, color="blue"))
    assert await one.evaluate(Boxes.of_color, Color.RED) == []
    assert [found.number for found in await one.evaluate(Boxes.of_color, Color.BLUE)] == [1]


async def test_two_changes_of_one_indexed_record_at_a_time_conflict(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    await one.submit(Boxes.put, [box("a", 1)])
    first = await one.endorse(Boxes.put, [box("a", 1, color="blue")])
    second = await one.endorse(Boxes.put, [box("a", 1, owner="x")])
    done = harness.commit([first, second])
    assert isinstance(done[1], CommitRejected)
    assert done[1].code_name == "MVCC_READ_CONFLICT"
    assert [found.number for found in await one.evaluate(Boxes.of_color, Color.BLUE)] == [1]


async def test_pages_go_on_where_the_one_before_ended_after_inserts_and_deletes_too(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    await one.submit(Boxes.put, [box("a", number) for number in range(10)])
    seen, mark = await one.evaluate(Boxes.page, 4, "")
    await one.submit(Boxes.put, [box("a", -1), box("a", 99)])
    await one.submit(Boxes.delete, "a", 4)
    while mark:
        more, mark = await one.evaluate(Boxes.page, 3, mark)
        seen += more
    assert [found.number for found in seen] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 99]


async def test_an_index_has_pages(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    await one.submit(Boxes.put, [box("a", number, color="blue" if number % 2 else "red") for number in range(10)])
    first, mark = await one.evaluate(Boxes.color_page, Color.BLUE, 3, "")
    rest, end = await one.evaluate(Boxes.color_page, Color.BLUE, 3, mark)
    assert [found.number for found in first + rest] == [1, 3, 5, 7, 9]
    assert end == ""
    with refused("E_BOOKMARK"):
        await one.evaluate(Boxes.color_page, Color.RED, 3, mark)
    with refused("E_BOOKMARK"):
        await one.evaluate(Boxes.page, 3, mark)


@given(st.text(max_size=60))
async def test_no_text_is_a_bookmark_by_chance(text: str) -> None:
    one = ContractHarness(Chaincode([Boxes()])).caller("Org1")
    if text:
        with refused("E_BOOKMARK"):
            await one.evaluate(Boxes.page, 3, text)


async def test_private_records_stay_with_members_and_have_pages(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    for number in range(5):
        await one.submit(Boxes.hide, box("a", number), bytes([number]) * 16)
    first, mark = await one.evaluate(Boxes.hidden, 3, "")
    rest, end = await one.evaluate(Boxes.hidden, 3, mark)
    assert [found.number for found in first + rest] == [0, 1, 2, 3, 4]
    assert end == ""
    assert harness.state.public["contract"].entries == {}
    assert harness.held("Org2", "attic") == {}
    with refused("E_NOT_FOUND") as refusal:
        await one.evaluate(Boxes.hidden_require, "secret-shelf", 1)
    assert "secret" not in str(refusal.error)
    with refused("E_EXISTS"):
        await one.submit(Boxes.hide, box("a", 1), b"-")


async def test_the_same_private_record_with_another_salt_has_another_hash(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    await one.submit(Boxes.hide, box("a", 1), b"1" * 16)
    before = await one.evaluate(Boxes.hidden_hash, "a", 1)
    await one.submit(Boxes.hide, box("a", 1), b"2" * 16)
    assert await one.evaluate(Boxes.hidden_hash, "a", 1) != before
    await one.submit(Boxes.purge, "a", 1)
    assert await one.evaluate(Boxes.hidden_hash, "a", 1) == ""
    assert harness.held("Org1", "attic") == {}
    with pytest.raises(EndorseError):  # a short salt is the contract's mistake
        await one.submit(Boxes.hide, box("a", 1), b"short")


# -- versions ------------------------------------------------------------------------------------------------------------


@record(name="Lamp", key="id", indexes={"by_room": "room"})
class LampV1(BaseModel):
    id: str
    room: str


def _with_power(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "power_w": 5}


@record(
    name="Lamp", key="id", indexes={"by_room": "room", "by_power": "power_w"}, version=2, migrations={1: _with_power}
)
class LampV2(BaseModel):
    id: str
    room: str
    power_w: int


class Lamps(Contract):
    @transaction
    async def old(self, ctx: Context, lamp: LampV1) -> None:
        await ctx.records(LampV1).put(lamp)

    @query
    async def old_page(self, ctx: Context, bookmark: str) -> tuple[list[str], str]:
        page = await ctx.records(LampV1).page(size=2, bookmark=bookmark)
        return [lamp.id for lamp in page.items], page.bookmark

    @query
    async def new_page(self, ctx: Context, bookmark: str) -> tuple[list[str], str]:
        page = await ctx.records(LampV2).page(size=2, bookmark=bookmark)
        return [lamp.id for lamp in page.items], page.bookmark

    @transaction
    async def new(self, ctx: Context, lamp: LampV2) -> None:
        await ctx.records(LampV2).put(lamp)

    @query
    async def get(self, ctx: Context, lamp: str) -> LampV2 | None:
        return await ctx.records(LampV2).get(lamp)

    @query
    async def in_room(self, ctx: Context, room: str) -> list[LampV2]:
        return [lamp async for lamp in ctx.records(LampV2).find("by_room", room)]

    @query
    async def of_power(self, ctx: Context, power_w: int) -> list[LampV2]:
        return [lamp async for lamp in ctx.records(LampV2).find("by_power", power_w)]

    @query
    async def outdated(self, ctx: Context, bookmark: str) -> tuple[list[list[str]], str]:
        page: Page[tuple[str, ...]] = await ctx.records(LampV2).outdated(size=2, bookmark=bookmark)
        return [list(one) for one in page.items], page.bookmark

    @transaction
    async def refresh(self, ctx: Context, keys: Sequence[list[str]]) -> int:
        return await ctx.records(LampV2).refresh(keys)

    @query
    async def read_old(self, ctx: Context, lamp: str) -> LampV1 | None:
        return await ctx.records(LampV1).get(lamp)


@pytest.fixture
async def lamps() -> ContractHarness:
    harness = ContractHarness(Chaincode([Lamps()]))
    for number in range(5):
        await harness.caller("Org1").submit(Lamps.old, LampV1(id=f"l{number}", room="hall"))
    return harness


async def test_an_older_record_is_read_in_the_new_version_and_its_index_entries_move(lamps: ContractHarness) -> None:
    one = lamps.caller("Org1")
    assert await one.evaluate(Lamps.get, "l1") == LampV2(id="l1", room="hall", power_w=5)
    await one.submit(Lamps.new, LampV2(id="l1", room="attic", power_w=9))
    assert [lamp.id for lamp in await one.evaluate(Lamps.in_room, "hall")] == ["l0", "l2", "l3", "l4"]
    assert [lamp.id for lamp in await one.evaluate(Lamps.of_power, 9)] == ["l1"]


async def test_a_new_index_is_filled_by_pages(lamps: ContractHarness) -> None:
    one = lamps.caller("Org1")
    assert await one.evaluate(Lamps.of_power, 5) == []
    mark, counts = "", []
    while True:
        keys, mark = await one.evaluate(Lamps.outdated, mark)
        counts.append((await one.submit(Lamps.refresh, keys)).result)
        if not mark:
            break
    assert counts == [2, 2, 1]
    assert len(await one.evaluate(Lamps.of_power, 5)) == 5
    assert (await one.evaluate(Lamps.outdated, ""))[0] == []


async def test_a_bookmark_survives_the_upgrade(lamps: ContractHarness) -> None:
    one = lamps.caller("Org1")
    first, mark = await one.evaluate(Lamps.old_page, "")
    second, _ = await one.evaluate(Lamps.new_page, mark)
    assert (first, second) == (["l0", "l1"], ["l2", "l3"])


async def test_an_older_contract_does_not_read_what_a_newer_one_wrote(lamps: ContractHarness) -> None:
    one = lamps.caller("Org1")
    await one.submit(Lamps.new, LampV2(id="l1", room="attic", power_w=9))
    with refused("E_INTERNAL"):
        await one.evaluate(Lamps.read_old, "l1")


# -- declarations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"key": "missing"}, "has no field missing"),
        ({"key": ()}, "at least one field"),
        ({"key": "parts"}, "has no place in a key"),
        ({"key": "price"}, "has no place in a key"),
        ({"key": "note"}, "may be None"),
        ({"key": "id", "indexes": {"x": "parts"}}, "has no place in a key"),
        ({"key": "id", "version": 3, "migrations": {1: dict}}, "takes migrations from: 1, 2"),
        ({"key": "id", "version": 0}, "from 1"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(options: dict[str, Any], text: str) -> None:
    class Thing(BaseModel):
        id: str
        note: str | None = None
        parts: list[str]
        price: float

    with pytest.raises(DefinitionError, match=text):
        record(**options)(Thing)


def test_a_model_without_a_declaration_is_no_record() -> None:
    class Derived(Box):
        more: str

    with pytest.raises(DefinitionError, match="put @record"):
        record_type(Derived)


times = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9998, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=timezone(timedelta(hours=moment.hour - 12)))
)


@given(
    st.tuples(st.integers(-(10**16) + 1, 10**16 - 1), st.integers(-(10**16) + 1, 10**16 - 1)) | st.tuples(times, times)
)
def test_parts_of_keys_keep_the_order_of_their_values(pair: tuple[Any, Any]) -> None:
    one, other = pair
    assert (_part(one) < _part(other)) == (one < other)
    assert (_part(one) == _part(other)) == (one == other)


def test_what_cannot_be_part_of_a_key_is_refused() -> None:
    kind = record_type(Box)
    for values in (("a", 10**16), ("a", 1.5), ("a", 1, 2)):
        with pytest.raises(RecordError):
            kind.key_parts(values)
    with pytest.raises(RecordError, match="time zone"):
        kind.index_parts("by_owner", ["x", datetime(2026, 1, 1)])
    assert kind.index_parts("by_owner", ["x", datetime(2026, 1, 1, tzinfo=UTC)])[1] == "=2026-01-01T00:00:00.000000Z"
