"""CouchDB's order of JSON values: null, false, true, numbers, strings, arrays, objects.

Strings are in the order of ICU's root collation (src/couch/src/couch_ejson_compare.erl), of which this is an
approximation without ICU's tables: exact for ASCII, Latin-1 and letters that decompose into base and marks; Greek and
Cyrillic; other scripts in the order of their code points, which is ICU's for Han, kana and Hangul in the main. Two
strings are equal when ICU finds no difference of letter, accent or case: control characters count for nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

# What comes before the digits, in ICU's order (root collation of CLDR 42, ICU 72).
_FIRST: Final = (
    "\t\n\x0b\x0c\r\x85\u2028\u2029 _‾-‐–—,;:!¡?¿.…·'‘’\"“”«»()[]{}§¶@*/\\&#%‰†‡•`´˜^¯¨¸°©®+±÷×<=>¬|¦~¤¢$£¥€"
)
_RANK: Final = {character: rank for rank, character in enumerate(_FIRST)}
_OTHER_MARKS: Final = 200
_DIGITS: Final = 300
_LETTERS: Final = 400
_LIKE: Final = {"æ": ("a", 1), "ð": ("d", 1), "ø": ("o", 0), "þ": ("z", 1), "đ": ("d", 0), "ł": ("l", 0), "ı": ("i", 1)}

_Key = tuple[tuple[tuple[int, int, int], ...], tuple[int, ...], tuple[int, ...]]


@lru_cache(maxsize=16_384)
def string_key(text: str) -> _Key:
    """Return a key of a string: letters first, then accents, then case, as in a dictionary."""
    primary: list[tuple[int, int, int]] = []
    accents: list[int] = []
    cases: list[int] = []
    for character in unicodedata.normalize("NFD", text):
        category = unicodedata.category(character)
        if character not in _RANK:
            if category in {"Cc", "Cf"}:
                continue
            if category[0] == "M":
                accents.append(_accent(character))
                continue
        for part, variant in _parts(character):
            weight, accent = _weight(part)
            primary.append(weight)
            accents.append(accent)
            cases.append((1 if part != part.lower() else 0) + variant)
    return tuple(primary), tuple(accents), tuple(cases)


def _accent(character: str) -> int:
    return _ACCENTS.get(character, 100 + ord(character))


# acute, grave, circumflex, ring, diaeresis, tilde, cedilla in ICU's order; 0 is a letter's own place
_ACCENTS: Final = {
    mark: 2 + rank
    for rank, mark in enumerate("\u0306\u0301\u0300\u0302\u030c\u030a\u0308\u030b\u0303\u0307\u0328\u0327\u0304")
}


def _parts(character: str) -> list[tuple[str, int]]:
    if character in _RANK:
        return [(character, 0)]
    if character in "ßẞ":
        return [("s", 2), ("s", 2)]
    wide = unicodedata.normalize("NFKD", character)
    return [(part, 0 if wide == character else 2) for part in wide]


def _weight(character: str) -> tuple[tuple[int, int, int], int]:
    rank = _RANK.get(character)
    if rank is not None:
        return (rank, 0, 0), 0
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return (_DIGITS, digit, 0), 0
    category = unicodedata.category(character)
    if category[0] in "PSZ":
        return (_OTHER_MARKS, ord(character), 0), 0
    lower = character.lower()[:1]
    base, place = _LIKE.get(lower, (lower, 0))
    return (_LETTERS, ord(base), place), int(base != lower and place == 0)


def value_key(value: Any) -> tuple[Any, ...]:
    """Return a key of a JSON value: keys are in the order of CouchDB's values, and equal when those are."""
    if value is None:
        return (1,)
    if isinstance(value, bool):
        return (3,) if value else (2,)
    if isinstance(value, (int, float)):
        return (4, value)
    if isinstance(value, str):
        return (5, string_key(value))
    if isinstance(value, list):
        return (6, tuple(map(value_key, value)))
    return (7, tuple((string_key(key), value_key(entry)) for key, entry in value.items()))


def list_key(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the key of an index entry: its values one after another."""
    return tuple(map(value_key, values))


def compare(one: Any, other: Any) -> int:
    """Return -1, 0 or 1."""
    if type(one) is type(other) and one == other and not isinstance(one, (list, dict)):
        return 0
    first, second = value_key(one), value_key(other)
    return (first > second) - (first < second)
