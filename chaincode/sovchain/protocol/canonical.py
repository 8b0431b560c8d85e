"""Canonical JSON (RFC 8785) for everything that is hashed, signed or kept on the ledger.

Stricter than the RFC: floats are refused, because their arithmetic is where two machines come to differ, and
integers must be exact in every JSON reader (at most 2**53 - 1 in size). Text is neither normalised nor altered.
"""

from __future__ import annotations

import json
from typing import NoReturn

import rfc8785

from sovchain.protocol.errors import ProtocolError

__all__ = ["MAX_DEPTH", "MAX_INTEGER", "CanonicalError", "canonical_json", "parse_json"]

MAX_DEPTH = 64
"""How deep arrays and objects may be nested, in both directions."""

MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""


class CanonicalError(ProtocolError):
    """A value has no canonical form, or bytes are not strict JSON."""


def canonical_json(value: object) -> bytes:
    """Return the one canonical form of a value made of None, bool, int, str, list, tuple and dict.

    Raises CanonicalError for a float, an integer beyond 2**53 - 1, a key that is no string, a lone surrogate,
    nesting deeper than 64, or a value of any other type.
    """
    _check(value, 0)
    return rfc8785.dumps(value)  # type: ignore[arg-type]  # _check has established the type


def parse_json(data: bytes, *, max_bytes: int = 64 * 1024 * 1024) -> object:
    """Parse strictly: UTF-8 without a byte order mark, no duplicate names, no floats, bounded integers and depth.

    The bytes need not be canonical; compare with :func:`canonical_json` where that matters.
    Raises CanonicalError.
    """
    if len(data) > max_bytes:
        raise CanonicalError(f"JSON of {len(data)} bytes exceeds the limit of {max_bytes}")
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as fault:
        if isinstance(fault, CanonicalError):
            raise
        text = "nested too deeply" if isinstance(fault, RecursionError) else str(fault)
        raise CanonicalError(f"not strict JSON: {text}") from fault
    _check(value, 0)
    return value


def _check(value: object, depth: int) -> None:
    kind = type(value)
    if kind is str:
        _check_text(value)  # type: ignore[arg-type]  # kind is str
    elif value is None or kind is bool:
        return
    elif kind is int:
        if not -MAX_INTEGER <= value <= MAX_INTEGER:  # type: ignore[operator]  # kind is int
            raise CanonicalError("integer is beyond 2**53 - 1: write it as a string")
    elif isinstance(value, (dict, list, tuple)):
        if depth >= MAX_DEPTH:
            raise CanonicalError(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for name in value:
                if type(name) is not str:
                    raise CanonicalError(f"name of a member must be a string, not {type(name).__name__}")
                _check_text(name)
            for member in value.values():
                _check(member, depth + 1)
        else:
            for element in value:
                _check(element, depth + 1)
    elif isinstance(value, float):
        raise CanonicalError("floats have no place in canonical JSON: use integers in a smaller unit or a string")
    else:
        raise CanonicalError(f"a value of type {kind.__name__} has no canonical JSON form")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise CanonicalError(f"text holds a lone surrogate at position {fault.start}") from fault


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise CanonicalError(f"member {double!r} occurs twice")
    return members


def _integer(text: str) -> int:
    # Checked by length first: converting a huge literal takes quadratic time.
    if len(text) > 17 or not -MAX_INTEGER <= (value := int(text)) <= MAX_INTEGER:
        raise CanonicalError("integer is beyond 2**53 - 1: write it as a string")
    if text == "-0":
        raise CanonicalError("negative zero has no integer form")
    return value


def _refuse_number(text: str) -> NoReturn:
    raise CanonicalError(f"number {text[:40]} is not an integer: floats have no place in canonical JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=_refuse_number, parse_int=_integer, parse_constant=_refuse_number
)
