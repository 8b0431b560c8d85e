"""Masks: what a value becomes before it is released. Functions as data, so that everyone entitled comes to the same bytes.

| mask | argument | what is left |
|---|---|---|
| `suppress` | | nothing: the column is not delivered at all |
| `truncate` | characters | the first characters: of 2026-03-02 the first 7 are its month |
| `hash` | | 32 hex digits that are the same for the same value within one delivery, and tell nothing else |
| `generalise` | width | the band that a number lies in: 23 with width 10 is `20..29`; of what is no number, nothing |

`hash` is HMAC-SHA-256 under a key that the owner derives for one delivery, so that two deliveries cannot be joined and nobody
who has one can try out values.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from decimal import ROUND_FLOOR, Decimal
from math import lcm
from typing import Final

from sovchain.contracts.core.records import MASK_MAX, Mask

HASHED_DIGITS: Final = 32
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?", re.ASCII)
_BAND = re.compile(r"(-?[0-9]{1,40})\.\.(-?[0-9]{1,40})", re.ASCII)
_HASHED = re.compile(rf"[0-9a-f]{{{HASHED_DIGITS}}}", re.ASCII)


def masked(mask: Mask, value: str, key: bytes) -> str:
    """What is released of a value. `key` is that of `hash`, made for one delivery."""
    if mask.function == "truncate":
        return value[: mask.argument]
    if mask.function == "hash":
        said = mask.column.encode() + b"\x00" + value.encode()
        return hmac.digest(key, said, "sha256").hex()[:HASHED_DIGITS]
    if mask.function == "generalise" and _NUMBER.fullmatch(value):
        floor = int((Decimal(value) / 1).to_integral_value(rounding=ROUND_FLOOR))
        start = floor - floor % mask.argument
        return f"{start}..{start + mask.argument - 1}"
    return ""


def is_masked(mask: Mask, shown: str) -> bool:
    """Whether a released value has the form that the mask gives: all that can be told without the original."""
    if mask.function == "truncate":
        return len(shown) <= mask.argument
    if mask.function == "hash":
        return _HASHED.fullmatch(shown) is not None
    if mask.function == "generalise":
        band = _BAND.fullmatch(shown)
        if band is None:
            return shown == ""
        start = int(band[1])
        return start % mask.argument == 0 and int(band[2]) == start + mask.argument - 1
    return False


def united_masks(masks: Iterable[Mask]) -> tuple[Mask, ...]:
    """One mask for each column, by column: at least as strong as each of those stated. Two that differ in kind leave nothing."""
    found: dict[str, Mask] = {}
    for mask in masks:
        other = found.get(mask.column, mask)
        argument = 0
        same = mask.function == other.function
        if same and mask.function == "truncate":
            argument = min(mask.argument, other.argument)
        elif same and mask.function == "generalise":
            argument = lcm(mask.argument, other.argument)
        kept = mask.function if same and argument <= MASK_MAX else "suppress"
        found[mask.column] = Mask(column=mask.column, function=kept, argument=argument if kept != "suppress" else 0)
    return tuple(mask for _, mask in sorted(found.items()))
