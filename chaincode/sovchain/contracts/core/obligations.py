"""Obligations that a permitting clause lays upon whoever it permits, and what several of them come to together.

A clause states them in an annotation: `@obligations("mask(name, phone); report(P30D); delete(P90D)")`.

| obligation | when | meaning |
|---|---|---|
| `fields(a, b)` | before | no other columns than these |
| `mask(a, b)` | before | without these columns |
| `cosign(regulator)` | before | the regulator's co-signature on the request |
| `notify(XMSP)` | with the decision | a notice to that organisation on the ledger |
| `report(P30D)` | after | the grantee reports its use within so many days of the decision |
| `delete(P90D)` | after | the grantee deletes what it received within so many days of the decision |

Of several permits the narrowest counts: columns are intersected, everything else is united, the earliest day is due.
An obligation that the engine does not know denies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, get_args

from sovchain.contracts.core.codes import MSP_ID_PATTERN
from sovchain.contracts.core.records import DAYS_MAX, Obligation, ObligationKind

KINDS: Final[tuple[ObligationKind, ...]] = get_args(ObligationKind)
"""The obligations that there are."""
OBLIGATIONS_MAX: Final = 16
"""Most obligations of one clause."""

_CALL = re.compile(r"([a-z]+)\(([^()]*)\)", re.ASCII)
_DAYS = re.compile(r"P([1-9][0-9]{0,4})D", re.ASCII)
_MSP = re.compile(MSP_ID_PATTERN, re.ASCII)
Timed = Literal["report", "delete"]
TIMED: Final = get_args(Timed)
"""Obligations with a day that they are due on."""


class ObligationError(ValueError):
    """An annotation that states no obligation known here."""


@lru_cache(maxsize=4096)
def parse_obligations(text: str) -> tuple[Obligation, ...]:
    """The obligations that an annotation states; none for an empty one. Raises ObligationError."""
    parts = [part.strip() for part in text.split(";")] if text.strip() else []
    if len(parts) > OBLIGATIONS_MAX:
        raise ObligationError(f"a clause has more than {OBLIGATIONS_MAX} obligations")
    return tuple(_parse(part) for part in parts)


def _parse(part: str) -> Obligation:
    called = _CALL.fullmatch(part)
    kind: ObligationKind | None = None
    for known in KINDS:
        if called is not None and called[1] == known:
            kind = known
    if called is None or kind is None:
        raise ObligationError(f"unknown obligation {ascii(part)[:60]}: known are {', '.join(KINDS)}, with arguments")
    arguments = tuple(argument.strip() for argument in called[2].split(","))
    if kind in TIMED:
        days = _DAYS.fullmatch(arguments[0])
        if len(arguments) != 1 or days is None or int(days[1]) > DAYS_MAX:
            raise ObligationError(f"{kind} takes a number of days from P1D to P{DAYS_MAX}D")
        return Obligation(kind=kind, days=int(days[1]))
    if kind == "cosign" and arguments != ("regulator",):
        raise ObligationError("cosign takes `regulator`: nobody else's seat is sure to have a member")
    if kind == "notify" and not (len(arguments) == 1 and _MSP.fullmatch(arguments[0])):
        raise ObligationError("notify takes one MSP id")
    if any(not argument or len(argument) > 200 for argument in arguments):
        raise ObligationError(f"{kind} takes names of columns")
    return Obligation(kind=kind, names=tuple(sorted(set(arguments))))


def united(obligations: Iterable[Obligation]) -> tuple[Obligation, ...]:
    """What several clauses demand together, in a fixed order: names united, the fewest days. `fields` are intersected."""
    names: dict[str, set[str]] = {}
    days: dict[str, int] = {}
    for one in obligations:
        if one.kind in TIMED:
            days[one.kind] = min(one.days, days.get(one.kind, one.days))
        elif one.kind == "fields" and one.kind in names:
            names[one.kind] &= set(one.names)
        else:
            names.setdefault(one.kind, set()).update(one.names)
    found = []
    for kind in KINDS:
        if kind in days:
            found.append(Obligation(kind=kind, days=days[kind]))
        elif kind in names:
            found.append(Obligation(kind=kind, names=tuple(sorted(names[kind]))))
    return tuple(found)


def granted_fields(
    columns: tuple[str, ...], asked: tuple[str, ...] | None, obligations: Iterable[Obligation]
) -> tuple[str, ...] | None:
    """The columns that are granted, in their order; None when nothing narrows them, so that all are."""
    limits = [one for one in obligations if one.kind in {"fields", "mask"}]
    if asked is None and not limits:
        return None
    left = [column for column in columns if asked is None or column in asked]
    for limit in limits:
        left = [column for column in left if (column in limit.names) == (limit.kind == "fields")]
    return tuple(left)
