"""Obligations that a permitting clause lays upon whoever it permits, and what several of them come to together.

A clause states them in an annotation: `@obligations("mask(name, phone: truncate 3); report(P30D); delete(P90D)")`.

| obligation | when | meaning |
|---|---|---|
| `fields(a, b)` | before | no other columns than these |
| `mask(a, b: hash)` | before | without a, and b as its mask leaves it: `suppress`, `truncate N`, `hash` or `generalise N` |
| `rows(a, x, y)` | before | no other rows than those where a is x or y |
| `quota(1000, month)` | before | no more than so many rows of the data set for one grantee in a calendar day, month or year (UTC) |
| `cosign(regulator)` | before | the regulator's co-signature on the request |
| `notify(XMSP)` | with the decision | a notice to that organisation on the ledger |
| `report(P30D)` | after | the grantee reports its use within so many days of the decision |
| `expires(P90D)` | after | nothing is released or opened on the permit after so many days |
| `delete(P90D)` | after | the grantee deletes what it received within so many days of the decision |

Of several permits the narrowest counts: columns and rows are intersected, everything else is united, the stronger mask is
applied, the smallest quota counts, the earliest day is due. Rows are granted by a column that is granted itself and unmasked: otherwise nobody could check
them. An obligation that the engine does not know denies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, get_args

from sovchain.contracts.core.codes import MSP_ID_PATTERN
from sovchain.contracts.core.masks import united_masks
from sovchain.contracts.core.records import (
    DAYS_MAX,
    MASK_MAX,
    ROW_VALUES_MAX,
    Mask,
    MaskFunction,
    Obligation,
    ObligationKind,
    Period,
    RowRule,
)

KINDS: Final[tuple[ObligationKind, ...]] = get_args(ObligationKind)
"""The obligations that there are."""
OBLIGATIONS_MAX: Final = 16
"""Most obligations of one clause."""

_CALL = re.compile(r"([a-z]+)\(([^()]*)\)", re.ASCII)
_DAYS = re.compile(r"P([1-9][0-9]{0,4})D", re.ASCII)
_MSP = re.compile(MSP_ID_PATTERN, re.ASCII)
_MASK = re.compile(r"(.+): *([a-z]+)(?: ([1-9][0-9]{0,9}))?")
_MASKS: Final[dict[str, MaskFunction]] = {name: name for name in get_args(MaskFunction)}
_WITH_ARGUMENT: Final = {"truncate", "generalise"}
Timed = Literal["report", "delete"]
TIMED: Final = get_args(Timed)
"""Obligations with a day that they are due on."""
_WITH_DAYS: Final = {*TIMED, "expires"}
_PERIODS: Final[dict[str, Period]] = {name: name for name in get_args(Period)}
_COUNT = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)


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
    if kind in _WITH_DAYS:
        days = _DAYS.fullmatch(arguments[0])
        if len(arguments) != 1 or days is None or int(days[1]) > DAYS_MAX:
            raise ObligationError(f"{kind} takes a number of days from P1D to P{DAYS_MAX}D")
        return Obligation(kind=kind, days=int(days[1]))
    if kind == "quota":
        return _parse_quota(arguments)
    if kind == "cosign" and arguments != ("regulator",):
        raise ObligationError("cosign takes `regulator`: nobody else's seat is sure to have a member")
    if kind == "notify" and not (len(arguments) == 1 and _MSP.fullmatch(arguments[0])):
        raise ObligationError("notify takes one MSP id")
    if any(not argument or len(argument) > 200 for argument in arguments):
        raise ObligationError(f"{kind} takes names of columns")
    if kind == "mask":
        return _parse_mask(arguments)
    if kind == "rows":
        column, *values = arguments
        if not values or len(set(values)) > ROW_VALUES_MAX:
            raise ObligationError(f"rows takes a column and 1 to {ROW_VALUES_MAX} values")
        return Obligation(kind=kind, rows=(RowRule(column=column, values=tuple(sorted(set(values)))),))
    return Obligation(kind=kind, names=tuple(sorted(set(arguments))))


def _parse_quota(arguments: tuple[str, ...]) -> Obligation:
    rows, *periods = arguments
    period = _PERIODS.get(periods[0]) if len(periods) == 1 else None
    if period is None or _COUNT.fullmatch(rows) is None:
        raise ObligationError(f"quota takes a number of rows and {', '.join(_PERIODS)}")
    return Obligation(kind="quota", rows_max=int(rows), period=period)


def _parse_mask(arguments: tuple[str, ...]) -> Obligation:
    masks = []
    for argument in arguments:
        stated = _MASK.fullmatch(argument if ":" in argument else f"{argument}: suppress")
        column, function, number = (stated[1], stated[2], stated[3]) if stated else ("", "", None)
        known = _MASKS.get(function)
        if known is None or (number is not None) != (known in _WITH_ARGUMENT) or int(number or 0) > MASK_MAX:
            raise ObligationError(
                f"unknown mask {ascii(argument)[:60]}: known are suppress, truncate N, hash and generalise N"
            )
        masks.append(Mask(column=column, function=known, argument=int(number or 0)))
    return _mask(masks)


def _mask(masks: Iterable[Mask]) -> Obligation:
    """One obligation for several masks: `names` are the columns that nothing is left of."""
    resolved = united_masks(masks)
    left = tuple(mask for mask in resolved if mask.function != "suppress")
    gone = tuple(mask.column for mask in resolved if mask.function == "suppress")
    return Obligation(kind="mask", names=gone, masks=left or None)


def _all_masks(one: Obligation) -> list[Mask]:
    return [*(Mask(column=name, function="suppress") for name in one.names), *(one.masks or ())]


def united_rows(rules: Iterable[RowRule]) -> tuple[RowRule, ...]:
    """One rule for each column, by column, with the values that all of its rules allow; maybe none."""
    found: dict[str, set[str]] = {}
    for rule in rules:
        found[rule.column] = found.get(rule.column, set(rule.values)) & set(rule.values)
    return tuple(RowRule(column=column, values=tuple(sorted(values))) for column, values in sorted(found.items()))


def united(obligations: Iterable[Obligation]) -> tuple[Obligation, ...]:
    """What several clauses demand together, in a fixed order: names united, the fewest days. `fields` are intersected."""
    names: dict[str, set[str]] = {}
    days: dict[str, int] = {}
    masks: list[Mask] = []
    rules: list[RowRule] = []
    quotas: dict[Period, int] = {}
    for one in obligations:
        if one.kind == "mask":
            masks += _all_masks(one)
        elif one.kind == "rows":
            rules += one.rows or ()
        elif one.kind == "quota" and one.period is not None:
            quotas[one.period] = min(one.rows_max or 0, quotas.get(one.period, one.rows_max or 0))
        elif one.kind in _WITH_DAYS:
            days[one.kind] = min(one.days, days.get(one.kind, one.days))
        elif one.kind == "fields" and one.kind in names:
            names[one.kind] &= set(one.names)
        else:
            names.setdefault(one.kind, set()).update(one.names)
    found = []
    for kind in KINDS:
        if kind == "mask" and masks:
            found.append(_mask(masks))
        elif kind == "quota":
            found += [Obligation(kind=kind, rows_max=quotas[one], period=one) for one in _PERIODS if one in quotas]
        elif kind == "rows" and rules:
            found.append(Obligation(kind=kind, rows=united_rows(rules)))
        elif kind in days:
            found.append(Obligation(kind=kind, days=days[kind]))
        elif kind in names:
            found.append(Obligation(kind=kind, names=tuple(sorted(names[kind]))))
    return tuple(found)


def granted_fields(
    columns: tuple[str, ...], asked: tuple[str, ...] | None, obligations: Iterable[Obligation]
) -> tuple[str, ...] | None:
    """The columns that are granted, in their order; None when nothing narrows them, so that all are."""
    limits = [one for one in obligations if one.kind == "fields" or (one.kind == "mask" and one.names)]
    if asked is None and not limits:
        return None
    left = [column for column in columns if asked is None or column in asked]
    for limit in limits:
        left = [column for column in left if (column in limit.names) == (limit.kind == "fields")]
    return tuple(left)


def granted_masks(fields: Iterable[str], obligations: Iterable[Obligation]) -> tuple[Mask, ...] | None:
    """The masks of the columns that are granted; None for none."""
    kept = set(fields)
    return tuple(mask for one in obligations for mask in one.masks or () if mask.column in kept) or None


def granted_rows(asked: tuple[RowRule, ...] | None, obligations: Iterable[Obligation]) -> tuple[RowRule, ...] | None:
    """The rules for the rows that are granted: asked and allowed; None when nothing narrows them."""
    return united_rows([*(asked or ()), *(rule for one in obligations for rule in one.rows or ())]) or None
