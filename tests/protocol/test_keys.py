"""Simple and composite keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sovchain.protocol.keys import (
    KeyFormatError,
    check_simple_key,
    composite_key,
    partial_composite_range,
    simple_range,
    split_composite_key,
)

COMPONENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\U0010ffff"), max_size=8)


def test_the_form_is_fabrics() -> None:
    assert composite_key("type", ["a", ""]) == "\x00type\x00a\x00\x00"
    assert composite_key("type", []) == "\x00type\x00"


@given(COMPONENT, st.lists(COMPONENT, max_size=5))
def test_splitting_undoes_joining(object_type: str, attributes: list[str]) -> None:
    assert split_composite_key(composite_key(object_type, attributes)) == (object_type, attributes)


@given(COMPONENT, st.lists(COMPONENT, max_size=3), st.lists(COMPONENT, max_size=3))
def test_a_partial_range_holds_exactly_the_keys_with_the_prefix(kind: str, one: list[str], other: list[str]) -> None:
    start, end = partial_composite_range(kind, one)
    key = composite_key(kind, other)
    assert (start <= key < end) == (other[: len(one)] == one)


@pytest.mark.parametrize("part", ["a\x00", "\U0010ffff", "\ud800"])
def test_a_component_that_would_break_the_form_is_refused(part: str) -> None:
    with pytest.raises(KeyFormatError):
        composite_key(part, [])
    with pytest.raises(KeyFormatError):
        composite_key("type", [part])


@pytest.mark.parametrize("key", ["", "\x00", "plain", "\x00open", "open\x00"])
def test_what_is_no_composite_key_is_not_split(key: str) -> None:
    with pytest.raises(KeyFormatError):
        split_composite_key(key)


def test_a_scan_from_the_beginning_skips_composite_keys() -> None:
    start, end = simple_range("", "")
    assert not start <= composite_key("a", ["b"])
    assert (start, end) == ("\x01", "")


@pytest.mark.parametrize("bounds", [("\x00a", ""), ("", "\x00a"), ("\ud800", "")])
def test_a_scan_does_not_reach_into_composite_keys(bounds: tuple[str, str]) -> None:
    with pytest.raises(KeyFormatError):
        simple_range(*bounds)


@pytest.mark.parametrize("key", ["", "\ud800"])
def test_an_empty_or_undecodable_key_is_refused(key: str) -> None:
    check_simple_key("fine")
    with pytest.raises(KeyFormatError):
        check_simple_key(key)
