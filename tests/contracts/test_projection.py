"""Delivered within granted within catalogue: a part of a table proves itself, and any other part is refused."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_world import SPEC, LawWorld

from sovchain.contracts.core import Sharing
from sovchain.contracts.core.masks import is_masked, masked, united_masks
from sovchain.contracts.core.obligations import parse_obligations, united
from sovchain.contracts.core.projection import (
    Grant,
    ProjectionError,
    Table,
    check_masks,
    check_projection,
    encode_projection,
    project,
    read_projection,
    table_root,
)
from sovchain.contracts.core.records import Column, Mask, MaskFunction, Publication, Receipt, RowRule
from sovchain.contracts.core.sealing import unseal
from sovchain.protocol.canonical import canonical_json
from sovchain.testing import refused

SEED, SALT, KEY = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))
TABLE = Table(
    ("id", "district", "age", "phone"),
    (
        ["e-1", "e-2", "e-3", "e-4", "e-5"],
        ["Nanming", "Yunyan", "Nanming", "Huaxi", "Yunyan"],
        ["23", "41", "-7", "", "19.5"],
        ["13985100001", "13985100002", "13985100003", "1", ""],
    ),
)
ID, OTHER = "ab" * 32, "cd" * 32
MASKS = {
    "age": Mask(column="age", function="generalise", argument=10),
    "phone": Mask(column="phone", function="truncate", argument=3),
    "id": Mask(column="id", function="hash"),
}


def entry(table: Table = TABLE, root: str | None = None) -> Publication:
    return Publication(
        name="people.csv",
        data_class="general",
        jurisdiction="CN-GZ-520100",
        residency=("CN",),
        purposes=("statistics",),
        columns=tuple(Column(name=name, type="text") for name in table.names),
        rows=table.rows,
        size_bytes=100,
        table_root=root or table_root(SEED, table),
    )


def grant(*fields: str, masks: dict[str, Mask] | None = None, rules: tuple[RowRule, ...] = ()) -> Grant:
    return Grant(fields or TABLE.names, masks or {}, rules, whole=False)


def made(granted: Grant, table: Table = TABLE) -> bytes:
    return encode_projection(project(table, SEED, granted, dataset=ID, request=OTHER, salt=SALT))


def check(document: bytes, granted: Grant, **changes: Any) -> None:
    stated = {"dataset": ID, "request": OTHER, "entry": entry(), "grant": granted}
    check_projection(read_projection(document), **(stated | changes))


IN_TOWN = (RowRule(column="district", values=("Nanming", "Yunyan")),)
GRANTS = {
    "two columns": grant("id", "age"),
    "some rows": grant("id", "district", rules=IN_TOWN),
    "no row": grant("district", rules=(RowRule(column="district", values=("Baiyun",)),)),
    "masks": grant("id", "age", "phone", masks=MASKS),
    "rows and masks": grant("district", "age", masks=MASKS, rules=IN_TOWN),
}


@pytest.mark.parametrize("name", GRANTS)
def test_a_part_leads_to_the_catalogues_root_and_shows_nothing_else(name: str) -> None:
    granted = GRANTS[name]
    document = made(granted)
    check(document, granted)
    part = read_projection(document)
    assert [column.name for column in part.columns] == [one for one in TABLE.names if one in granted.fields]
    hidden = [one for one in ("e-4", "Huaxi", "13985100001", "-7") if one.encode() in document]
    allowed = {"two columns": ["e-4", "-7"], "masks": [], "some rows": [], "no row": [], "rows and masks": []}
    assert hidden == allowed[name]
    assert SEED.hex().encode() not in document
    check_masks(part, SEED, TABLE)


def test_masks_leave_what_they_say() -> None:
    part = read_projection(made(GRANTS["masks"]))
    shown = {column.name: column.values for column in part.columns}
    assert shown["age"] == ("20..29", "40..49", "-10..-1", "", "10..19")
    assert shown["phone"] == ("139", "139", "139", "1", "")
    assert len(set(shown["id"])) == 5
    assert all(len(value) == 32 for value in shown["id"])
    other = project(TABLE, SEED, GRANTS["masks"], dataset=ID, request="ef" * 32, salt=SALT)
    assert not set(shown["id"]) & set(other.columns[0].values), "two deliveries could be joined"


def altered(document: bytes) -> list[Any]:
    """The document with each of its values changed in turn, once each."""
    found = []

    def visit(path: list[Any], value: Any) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                visit([*path, key], one)
        elif isinstance(value, list):
            for place, one in enumerate(value):
                visit([*path, place], one)
        else:
            changed = copy.deepcopy(json.loads(document))
            target = changed
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value + 1 if isinstance(value, int) else other(value)
            found.append(changed)

    visit([], json.loads(document))
    return found


def other(text: str) -> str:
    last = text[-1:]
    return text[:-1] + ("1" if last != "1" else "2") if text else "1"


@pytest.mark.parametrize("name", GRANTS)
def test_whatever_is_altered_in_a_part_is_found(name: str) -> None:
    granted, unbound = GRANTS[name], 0
    for changed in altered(made(granted)):
        document = canonical_json(changed)
        try:
            check(document, granted)
        except ProjectionError:
            continue
        # Only the salt of the document itself and masked values of the right form are bound by nothing public: the
        # former says nothing, the latter are found by whoever may see the original.
        part = read_projection(document)
        if part.salt == SALT.hex():
            with pytest.raises(ProjectionError, match="than its mask makes"):
                check_masks(part, SEED, TABLE)
        unbound += 1
    assert unbound <= (1 if "masks" not in name else 16)


def test_more_than_was_granted_is_refused() -> None:
    granted = GRANTS["some rows"]
    for wider, word in (
        (grant("id", "district", "age", rules=IN_TOWN), "'age' is not granted"),
        (grant("id", "district"), "not granted by column 'district'"),
        (grant("id", rules=IN_TOWN), "not granted by column 'district'"),
    ):
        with pytest.raises(ProjectionError, match=word):
            check(made(wider), granted)
    with pytest.raises(ProjectionError, match="not masked as granted"):
        check(made(grant("age")), grant("age", masks=MASKS))
    with pytest.raises(ProjectionError, match="another request"):
        check(made(granted), granted, request=ID)
    with pytest.raises(ProjectionError, match="another table"):
        check(made(granted), granted, entry=entry(root="00" * 32))
    check(made(grant("district", rules=IN_TOWN)), granted)


def test_a_row_that_is_claimed_twice_or_of_absurd_number_is_refused_at_once() -> None:
    document = json.loads(made(GRANTS["some rows"]))
    for chosen in ([[0, 2**53 - 1]], [[1, 1]], [[2, 3], [0, 1]], [[0, 2], [2, 4]]):
        with pytest.raises(ProjectionError):
            read_projection(canonical_json(document | {"chosen": chosen, "rows": 2**53 - 1}))


def test_more_cells_than_a_peer_can_check_in_time_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sovchain.contracts.core.projection.CELLS_MAX", 9)
    with pytest.raises(ProjectionError, match="10 cells, at most 9"):
        read_projection(made(GRANTS["two columns"]))


def test_an_unmasked_value_under_a_mask_is_refused() -> None:
    document = json.loads(made(GRANTS["masks"]))
    for place, value in ((0, "e-1"), (1, "23"), (2, "13985100001")):
        changed = copy.deepcopy(document)
        changed["columns"][place]["values"][0] = value
        with pytest.raises(ProjectionError, match="is not masked"):
            check(canonical_json(changed), GRANTS["masks"])


CELLS = st.lists(st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=6)] * 3), min_size=1, max_size=12)


@settings(max_examples=60)
@given(CELLS, st.sets(st.sampled_from("abc"), min_size=1), st.data())
def test_any_part_of_any_table_proves_itself(rows: list[tuple[str, ...]], fields: set[str], data: Any) -> None:
    table = Table(("a", "b", "c"), tuple(zip(*rows, strict=True)))
    by = data.draw(st.sampled_from(sorted(fields)))
    values = data.draw(st.sets(st.sampled_from([row["abc".index(by)] for row in rows])))
    granted = grant(*sorted(fields), rules=(RowRule(column=by, values=tuple(sorted(values))),))
    document = encode_projection(project(table, SEED, granted, dataset=ID, request=OTHER, salt=SALT))
    part = read_projection(document)
    check_projection(part, dataset=ID, request=OTHER, entry=entry(table), grant=granted)
    assert len(part.columns[0].values) == sum(row["abc".index(by)] in values for row in rows)


@given(st.text(st.characters(codec="utf-8"), max_size=12), st.integers(1, 50))
def test_what_a_mask_leaves_has_its_form(value: str, argument: int) -> None:
    functions: tuple[MaskFunction, ...] = ("truncate", "hash", "generalise")
    for function in functions:
        mask = Mask(column="x", function=function, argument=argument if function != "hash" else 0)
        assert is_masked(mask, masked(mask, value, KEY))


def test_the_stronger_of_two_masks_is_applied() -> None:
    def stated(*texts: str) -> Any:
        (one,) = united(parse_obligations("; ".join(texts)))
        return one.names, [(mask.column, mask.function, mask.argument) for mask in one.masks or ()]

    assert stated("mask(a, b: hash)", "mask(b: hash)") == (("a",), [("b", "hash", 0)])
    assert stated("mask(a: truncate 3)", "mask(a: truncate 2)") == ((), [("a", "truncate", 2)])
    assert stated("mask(a: generalise 4)", "mask(a: generalise 6)") == ((), [("a", "generalise", 12)])
    assert stated("mask(a: generalise 4)", "mask(a: hash)") == (("a",), [])
    assert stated("mask(a: hash)", "mask(a)") == (("a",), [])
    assert united_masks([]) == ()


# On a ledger ---------------------------------------------------------------------------------------------------------

LAW = '@c("1") @obligations("{}") permit (principal, action, resource);'
PEOPLE = Table(("id", "name", "score"), (["1", "2", "3"], ["Li", "Wu", "Li"], ["9", "12", "31"]))


@pytest.fixture
async def world() -> LawWorld:
    return await LawWorld(SPEC.harness()).found()


async def part_of(world: LawWorld, obligations: str = "", **asked: Any) -> tuple[Receipt, Publication]:
    dataset = await world.share(table_root=table_root(SEED, PEOPLE), rows=3)
    if obligations:
        await world.enact(LAW.format(obligations), version=2)
    receipt = await world.ask("Finance", dataset, **asked)
    return receipt, (await world.evaluate("Finance", Sharing.dataset, dataset)).entry


async def test_a_permit_for_a_part_delivers_just_that_part(world: LawWorld) -> None:
    receipt, described = await part_of(
        world, "mask(score: generalise 10)", rows=(RowRule(column="name", values=("Li",)),)
    )
    assert receipt.decision == "permit"
    granted = Grant.of(receipt, described)
    (dataset,) = (await world.evaluate("Finance", Sharing.datasets)).items
    part = project(PEOPLE, SEED, granted, dataset=dataset.id, request=receipt.request, salt=SALT)
    document = encode_projection(part)
    more = project(PEOPLE, SEED, grant(*PEOPLE.names), dataset=dataset.id, request=receipt.request, salt=SALT)
    for wrong, word in ((encode_projection(more), "not masked as granted"), (b"{}", "malformed")):
        with refused("E_PROJECTION", word):
            await world.submit("Government", Sharing.deliver, receipt.request, wrong, endorsers=["Finance"])
    await world.submit("Government", Sharing.deliver, receipt.request, document, endorsers=["Finance"])
    opened = unseal(await world.evaluate("Finance", Sharing.open, receipt.request, KEY), KEY)
    assert opened == document
    assert [column.values for column in part.columns] == [("1", "3"), ("Li", "Li"), ("0..9", "30..39")]
    done = await world.submit("Finance", Sharing.acknowledge, receipt.request)
    assert done.commitment == hashlib.sha256(document).hexdigest()


@pytest.mark.parametrize(
    ("obligations", "asked", "word"),
    [
        ("rows(name, Li)", ("Wu",), "no row is left"),
        ("mask(name: hash)", ("Li",), "'name', which is not granted unmasked"),
        ("fields(id, score)", ("Li",), "'name', which is not granted unmasked"),
        ("rows(street, x)", ("Li",), "'street', which is not granted"),
    ],
)
async def test_rows_that_nobody_could_check_are_denied(
    world: LawWorld, obligations: str, asked: tuple[str, ...], word: str
) -> None:
    receipt, _ = await part_of(world, obligations, rows=(RowRule(column="name", values=asked),))
    assert (receipt.code, word in receipt.reasons[0].text()) == ("E_OBLIGATION", True), receipt.reasons


@pytest.mark.parametrize(
    "stated", ["mask(a: erase)", "mask(a: truncate)", "mask(a: hash 3)", "rows(a)", "mask(a: truncate 0)"]
)
def test_a_mask_that_nobody_knows_is_no_obligation(stated: str) -> None:
    with pytest.raises(ValueError, match=r"mask|rows"):
        parse_obligations(stated)
