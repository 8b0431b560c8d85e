"""Simple and composite keys: how they are made, taken apart and scanned.

Mirrors fabric-chaincode-go/shim/stub.go (CreateCompositeKey, splitCompositeKey, GetStateByRange,
GetStateByPartialCompositeKey). The order of keys is that of their UTF-8 bytes, which is also the order in which
Python compares strings.
"""

from __future__ import annotations

from collections.abc import Sequence

from sovchain.protocol.errors import ProtocolError

__all__ = [
    "EMPTY_KEY_SUBSTITUTE",
    "MAX_UNICODE",
    "MIN_UNICODE",
    "KeyFormatError",
    "check_simple_key",
    "composite_key",
    "partial_composite_range",
    "simple_range",
    "split_composite_key",
]

MIN_UNICODE = "\x00"
"""Separates the components of a composite key and starts it; no simple key begins with it."""

MAX_UNICODE = "\U0010ffff"
"""The greatest code point: ends the range of a prefix."""

EMPTY_KEY_SUBSTITUTE = "\x01"
"""The start of a scan that should see all simple keys and no composite ones."""


class KeyFormatError(ProtocolError):
    """A key, or a component of one, is not allowed on the ledger."""


def composite_key(object_type: str, attributes: Sequence[str]) -> str:
    """Return U+0000 object_type U+0000 (attribute U+0000)*.

    Components may be empty but must be valid Unicode without U+0000 and U+10FFFF. Raises KeyFormatError.
    """
    parts = [object_type, *attributes]
    for part in parts:
        _check_component(part)
    return MIN_UNICODE + MIN_UNICODE.join(parts) + MIN_UNICODE


def split_composite_key(key: str) -> tuple[str, list[str]]:
    """Return object type and attributes of a composite key. Raises KeyFormatError if it is not one."""
    if len(key) < 2 or key[0] != MIN_UNICODE or key[-1] != MIN_UNICODE:
        raise KeyFormatError("not a composite key: it must begin and end with U+0000")
    object_type, *attributes = key[1:-1].split(MIN_UNICODE)
    return object_type, attributes


def partial_composite_range(object_type: str, attributes: Sequence[str]) -> tuple[str, str]:
    """Return [start, end) of all composite keys with this prefix, the one equal to it included.

    Raises KeyFormatError as :func:`composite_key`.
    """
    prefix = composite_key(object_type, attributes)
    return prefix, prefix + MAX_UNICODE


def check_simple_key(key: str) -> None:
    """Check a key for a read or write. Raises KeyFormatError if it is empty or not valid Unicode."""
    if not key:
        raise KeyFormatError("key must not be an empty string")
    _check_unicode(key)


def simple_range(start: str, end: str) -> tuple[str, str]:
    """Return the bounds for a scan of simple keys: an empty start becomes U+0001, which skips composite keys.

    Raises KeyFormatError if a bound begins with U+0000.
    """
    start = start or EMPTY_KEY_SUBSTITUTE
    for bound in (start, end):
        _check_unicode(bound)
        if bound.startswith(MIN_UNICODE):
            raise KeyFormatError(
                f"first character of the key [{bound.encode()!r}] contains a null character which is not allowed"
            )
    return start, end


def _check_component(part: str) -> None:
    _check_unicode(part)
    for position, character in enumerate(part):
        if character in (MIN_UNICODE, MAX_UNICODE):
            raise KeyFormatError(
                f"input contains unicode U+{ord(character):04X} starting at position [{position}]. "
                "U+0000 and U+10FFFF are not allowed in the input attribute of a composite key"
            )


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise KeyFormatError(f"not a valid utf8 string: lone surrogate at position [{fault.start}]") from fault
