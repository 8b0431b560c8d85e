"""Parameters and results travel by their annotations: checked before the method runs, named in errors, canonical out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from namedcalls import Named
from pydantic import BaseModel, Field, PlainSerializer

from sovchain.chaincode import (
    ArgumentError,
    Chaincode,
    Context,
    Contract,
    DefinitionError,
    Operation,
    ResultError,
    Transient,
    query,
    transaction,
)
from sovchain.chaincode.exacttext import model_concerns
from sovchain.chaincode.values import encode_value
from sovchain.client import EndorseError
from sovchain.protocol.canonical import MAX_DEPTH, canonical_json
from sovchain.testing import ContractHarness, refused


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Part(BaseModel):
    name: str
    parts: list[Part] = []
    price: Decimal | None = None


class Stamp(BaseModel):
    """Times and numbers wherever they can be."""

    at: datetime
    amount: Decimal = Decimal(1)
    many: list[datetime | None] = []
    numbers: tuple[Decimal, ...] = ()
    named: dict[str, datetime] = {}
    text: str = ""
    told: Annotated[datetime | None, PlainSerializer(lambda moment: "told", when_used="json-unless-none")] = None


@dataclass
class Pair:
    left: Part
    at: datetime


class Echo(Contract):
    """Gives back what it gets."""

    @query
    async def text(self, ctx: Context, value: str) -> str:
        return value

    @query
    async def integer(self, ctx: Context, value: int) -> int:
        return value

    @query
    async def boolean(self, ctx: Context, value: bool) -> bool:
        return value

    @query
    async def data(self, ctx: Context, value: bytes) -> bytes:
        return value

    @query
    async def decimal(self, ctx: Context, value: Decimal) -> Decimal:
        return value

    @query
    async def moment(self, ctx: Context, value: datetime) -> datetime:
        return value

    @query
    async def day(self, ctx: Context, value: date) -> date:
        return value

    @query
    async def color(self, ctx: Context, value: Color) -> Color:
        return value

    @query
    async def size(self, ctx: Context, value: Size) -> Size:
        return value

    @query
    async def literal(self, ctx: Context, value: Literal["a", "b"]) -> Literal["a", "b"]:
        return value

    @query
    async def model(self, ctx: Context, value: Part) -> Part:
        return value

    @query
    async def pair(self, ctx: Context, value: Pair) -> Pair:
        return value

    @query
    async def stamp(self, ctx: Context, value: Stamp) -> Stamp:
        return value

    @query
    async def unzoned(self, ctx: Context) -> Stamp:
        return Stamp(at=datetime(2026, 1, 2))

    @query
    async def optional(self, ctx: Context, value: Part | None = None) -> Part | None:
        return value

    @query
    async def mapping(self, ctx: Context, value: dict[str, list[int]]) -> dict[str, list[int]]:
        return value

    @query
    async def bounded(self, ctx: Context, value: Annotated[int, Field(ge=1, le=9)], more: str = "x") -> int:
        return value

    @transaction
    async def secret(self, ctx: Context, value: Transient[Part]) -> str:
        return value.name

    @transaction
    async def write_first(self, ctx: Context, key: str, value: Any) -> None:
        await ctx.stub.put_state("before", b"1")
        await ctx.stub.put_state(ctx.stub.composite_key("kind", [key]), b"1")
        ctx.set_event("Written", value)

    @transaction
    async def empty_key(self, ctx: Context) -> None:
        await ctx.stub.put_state("", b"1")


@pytest.fixture(scope="module")
def harness() -> ContractHarness:
    return ContractHarness(Chaincode([Echo()]))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)) | st.datetimes(
    datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(timezone(timedelta(hours=8)))
)
parts = st.recursive(
    st.builds(Part, name=texts),
    lambda inner: st.builds(
        Part, name=texts, parts=st.lists(inner, max_size=2), price=st.none() | st.just(Decimal("1.50"))
    ),
    max_leaves=6,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": texts,
    "integer": st.integers(-(2**53) + 1, 2**53 - 1),
    "boolean": st.booleans(),
    "data": st.binary(max_size=40),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=4),
    "moment": moments,
    "day": st.dates(),
    "color": st.sampled_from(Color),
    "size": st.sampled_from(Size),
    "literal": st.sampled_from(["a", "b"]),
    "model": parts,
    "pair": st.builds(Pair, left=parts, at=moments),
    "optional": st.none() | parts,
    "mapping": st.dictionaries(texts, st.lists(st.integers(-5, 5), max_size=3), max_size=3),
}


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
async def test_a_value_comes_back_as_it_went(harness: ContractHarness, name: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[name])
    operation: Operation[..., Any] = Echo.operations()[name]
    assert await harness.caller("Org1").evaluate(operation, value) == value


async def test_times_and_numbers_inside_json_have_one_text_each(harness: ContractHarness) -> None:
    """Two clients who mean the same must not make two states of it."""
    east, utc = "2026-01-02T08:00:00.5+08:00", "2026-01-02T00:00:00.500000Z"
    written = {
        "at": east,
        "amount": "1.50",
        "many": [east, None],
        "numbers": ["-2"],
        "named": {"k": east},
        "text": east,
        "told": east,
    }
    payload = await harness.caller("Org1").evaluate(Named("Echo:stamp"), json.dumps(written).encode())
    expected = {
        "at": utc,
        "amount": "1.50",
        "many": [utc, None],
        "numbers": ["-2"],
        "named": {"k": utc},
        "text": east,
        "told": "told",
    }
    assert json.loads(payload) == expected
    moment = datetime.fromisoformat(east)
    found = await harness.caller("Org1").evaluate(Echo.stamp, Stamp(at=moment, named={"k": moment}))
    assert (found.at.isoformat(), found.named["k"].tzinfo) == ("2026-01-02T00:00:00.500000+00:00", UTC)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ('{"at":"2026-01-02T00:00:00"}', "at: is not an RFC 3339 time"),
        ('{"at":"1700000000"}', "at: is not an RFC 3339 time"),
        ('{"at":"2026-01-02 00:00:00Z"}', "at: is not an RFC 3339 time"),
        ('{"at":"9999-12-31T23:59:59-01:00"}', "at: is not an existing time"),
        ('{"at":"2026-01-02T00:00:00Z","amount":"1E+3"}', "amount: is not a decimal number without exponent"),
        ('{"at":"2026-01-02T00:00:00Z","amount":"1_0"}', "amount: is not a decimal number without exponent"),
        ('{"at":"2026-01-02T00:00:00Z","many":[null,"2026-01-02T00:00:00"]}', "many.1: is not an RFC 3339 time"),
        ('{"at":"2026-01-02T00:00:00Z","named":{"SECRET":"2026-01-02T00:00:00"}}', "named.*: is not an RFC 3339 time"),
    ],
)
async def test_what_has_another_text_inside_json_is_refused_by_its_place(
    harness: ContractHarness, sent: str, text: str
) -> None:
    with refused("E_ARGUMENT", text) as refusal:
        await harness.caller("Org1").evaluate(Named("Echo:stamp"), sent.encode())
    assert "SECRET" not in str(refusal.error)


async def test_a_time_without_a_zone_leaves_no_contract(
    harness: ContractHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    with refused("E_INTERNAL"):
        await harness.caller("Org1").evaluate(Echo.unzoned)
    assert "has no time zone" in capsys.readouterr().out
    with pytest.raises(ArgumentError, match="has no time zone"):
        Echo.stamp.encode(Stamp(at=datetime(2026, 1, 2)))


@pytest.mark.parametrize("value", [{"at": datetime(2026, 1, 2)}, [Stamp(at=datetime(2026, 1, 2))]])
def test_events_have_the_same_texts(value: Any) -> None:
    east = datetime.fromisoformat("2026-01-02T08:00:00+08:00")
    assert encode_value({"b": [east], "a": Decimal("1E+2")}) == b'{"a":"100","b":["2026-01-02T00:00:00Z"]}'
    with pytest.raises(ResultError, match="has no time zone"):
        encode_value(value)


@given(parts)
async def test_json_goes_out_in_its_one_canonical_form(harness: ContractHarness, part: Part) -> None:
    spaced = json.dumps(json.loads(part.model_dump_json()), indent=3, ensure_ascii=True).encode()
    payload = await harness.caller("Org1").evaluate(Named("Echo:model"), spaced)
    assert payload == canonical_json(json.loads(payload))
    assert Part.model_validate_json(payload) == part


DEEP = b'{"name":"a","parts":[' * (MAX_DEPTH // 2 + 1) + b"]}" * (MAX_DEPTH // 2 + 1)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("text", b"\xff"),
        ("integer", b"1.0"),
        ("integer", b"NaN"),
        ("integer", b"01"),
        ("integer", b"-0"),
        ("integer", b"9007199254740993"),
        ("integer", b""),
        ("boolean", b"True"),
        ("boolean", b"1"),
        ("decimal", b"1e5"),
        ("decimal", b"NaN"),
        ("decimal", b"Infinity"),
        ("moment", b"2026-01-02T03:04:05"),
        ("moment", b"2026-13-02T03:04:05Z"),
        ("day", b"2026-02-30"),
        ("color", b"green"),
        ("size", b"3"),
        ("literal", b"c"),
        ("model", b"{}"),
        ("model", b'{"name":"a","name":"b"}'),
        ("model", b'{"name":1}'),
        ("model", b'{"name":"a","price":1.5}'),
        ("model", b'{"name":"a","price":NaN}'),
        ("model", b'{"name":"\xed\xa0\x80"}'),
        ("model", b'{"name":"a","parts":"SECRET"}'),
        ("model", DEEP),
        ("model", b"[" * 100_000),
        ("mapping", b'{"a":[true]}'),
        ("mapping", b'{"a":["1"]}'),
        ("bounded", b"10"),
        ("bounded", b"0"),
    ],
)
async def test_what_is_not_of_the_type_is_refused_by_the_parameters_name(
    harness: ContractHarness, name: str, data: bytes
) -> None:
    with refused("E_ARGUMENT", "parameter value: ") as refusal:
        await harness.caller("Org1").evaluate(Named(f"Echo:{name}"), data)
    assert refusal.fields == {"parameter": "value"}
    assert "SECRET" not in str(refusal.error)


@pytest.mark.parametrize("args", [(), (b"1", b"x", b"surplus")])
async def test_a_call_of_the_wrong_arity_is_refused(harness: ContractHarness, args: tuple[bytes, ...]) -> None:
    with refused("E_ARGUMENT"):
        await harness.caller("Org1").evaluate(Named("Echo:bounded"), *args)
    with refused("E_ARGUMENT", "send it in the transient map"):
        await harness.caller("Org1").submit(Named("Echo:secret"))


@given(st.sampled_from(sorted(VALUES)), st.binary(max_size=60))
async def test_no_bytes_break_a_codec(harness: ContractHarness, name: str, data: bytes) -> None:
    codec = Echo.operations()[name].parameters[0].codec
    try:
        value = codec.decode_argument("value", data)
    except ArgumentError:
        return
    assert codec.decode_argument("value", codec.encode_argument("value", value)) == value


@pytest.mark.parametrize("value", ["5", True, None, 1.0, 2**53])
def test_the_client_is_told_before_anything_is_sent(value: Any) -> None:
    with pytest.raises(ArgumentError, match="parameter value"):
        Echo.integer.encode(value)


async def test_transient_values_are_in_no_argument(harness: ContractHarness) -> None:
    call = Echo.secret.encode(Part(name="SECRET"))
    assert b"SECRET" not in b"".join(call.args)
    done = await harness.caller("Org1").submit(Echo.secret, Part(name="name"))
    assert done.result == "name"


@pytest.mark.parametrize(
    ("key", "value"),
    [("a\x00b", 1), ("a\U0010ffff", 1), ("\x00", 1), ("a", {"price": 1.5})],
    ids=["NUL", "maximum rune", "only NUL", "a float"],
)
async def test_what_cannot_be_in_state_or_events_leaves_nothing_written(
    harness: ContractHarness, key: str, value: Any
) -> None:
    if isinstance(value, dict):
        with refused("E_ARGUMENT"):
            await harness.caller("Org1").submit(Named("Echo:write_first"), key.encode(), json.dumps(value).encode())
    else:
        with pytest.raises(EndorseError):
            await harness.caller("Org1").submit(Echo.write_first, key, value)
    assert harness.state.get("contract", "before") is None


async def test_an_empty_key_is_refused(harness: ContractHarness) -> None:
    with refused("E_INTERNAL"):
        await harness.caller("Org1").submit(Echo.empty_key)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (float, "floats differ"),
        (set[str], "order of a set"),
        (list[float], "floats differ"),
        (dict[str, set[int]], "order of a set"),
        (object(), "parameter value"),
        (Transient[int] | None, "Transient marks a whole parameter"),
    ],
)
def test_what_cannot_travel_is_refused_when_the_class_is_defined(annotation: Any, text: str) -> None:
    async def method(self: Any, ctx: Context, value: Any) -> None: ...

    method.__annotations__["value"] = annotation
    with pytest.raises(DefinitionError, match=text):
        type("Bad", (Contract,), {"method": transaction(method)})


def test_a_model_may_have_a_field_that_is_called_type() -> None:
    class Entry(BaseModel):
        type: str
        at: datetime

    class Plain(BaseModel):
        type: str

    assert (model_concerns(Entry), model_concerns(Plain)) == (True, False)
