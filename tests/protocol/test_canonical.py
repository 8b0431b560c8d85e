"""Canonical JSON: one form, strictly read."""

from __future__ import annotations

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from sovchain.protocol.canonical import MAX_DEPTH, MAX_INTEGER, CanonicalError, canonical_json, parse_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_reading_undoes_writing_and_the_form_is_that_of_the_rfc(value: object) -> None:
    encoded = canonical_json(value)
    assert parse_json(encoded) == value
    assert canonical_json(parse_json(encoded)) == encoded
    assert encoded == rfc8785.dumps(value)  # type: ignore[arg-type]  # the strategy makes JSON only


def test_members_are_sorted_by_utf16_and_text_is_left_alone() -> None:
    value = {"\U0001f600": 1, "\uffee": 2, "e\u0301": "\u00e9"}
    assert canonical_json(value) == '{"e\u0301":"\u00e9","\U0001f600":1,"\uffee":2}'.encode()


@pytest.mark.parametrize(
    "value",
    [1.0, float("nan"), 2**53, -(2**53), {1: 2}, {"a": b"x"}, "\ud800", {"\ud800": 1}, object(), {1, 2}, [[1.5]]],
)
def test_a_value_that_two_machines_could_write_differently_is_refused(value: object) -> None:
    with pytest.raises(CanonicalError):
        canonical_json(value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b"1.0",
        b"1e2",
        b"NaN",
        b"-Infinity",
        b"-0",
        b"9007199254740992",
        b"1" * 5000,
        b'"\\ud800"',
        b'\xef\xbb\xbf{"a":1}',
        b"\xff",
        b"",
        b"{} x",
        b"[" * 100 + b"]" * 100,
        b"[" * 100_000,
    ],
)
def test_json_with_two_readings_is_refused(text: bytes) -> None:
    with pytest.raises(CanonicalError):
        parse_json(text)


def test_depth_and_size_have_limits() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert parse_json(canonical_json(value)) == value
    with pytest.raises(CanonicalError):
        canonical_json([value])
    with pytest.raises(CanonicalError, match="limit of 3"):
        parse_json(b"[1,2]", max_bytes=3)


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        value = parse_json(data)
    except CanonicalError:
        return
    assert json.loads(data) == value
