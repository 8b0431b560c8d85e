"""What a policy speaks of, as far as it can be told without a request: enough to see that one contains or excludes another.

A policy's scope and conditions are read as one conjunction. What is said of one attribute is put together: which words of its
code list, which numbers, which jurisdictions. Anything else stays as it is written and is comparable with itself only. So
`covers` and `empty` are True only where it is certain, whatever the request.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import cedarpy

from sovchain.contracts.core.codes import (
    ACTIONS,
    DATA_CLASSES,
    LEGAL_BASES,
    PERSONAL_KINDS,
    PURPOSES,
    ROLES,
    is_within,
)

Words = frozenset[str]
Tree = Mapping[str, Any]

LISTS: Final[Mapping[str, Words]] = {
    "action": frozenset(ACTIONS),
    "context.purpose": frozenset(PURPOSES),
    "context.legalBasis": frozenset(LEGAL_BASES),
    "principal.role": frozenset(ROLES),
    "principal.clearance": frozenset(DATA_CLASSES),
    "resource.class": frozenset(DATA_CLASSES),
    "resource.personal": frozenset(PERSONAL_KINDS),
}
"""Attributes whose values come from a code list."""

_SAME_PLACE: Final = {"principal.organisation": "principal", "resource.jurisdiction": "resource"}
"""What lies in a jurisdiction exactly when something else does."""
_OPPOSITE: Final = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_FLIPPED: Final = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Scope:
    """A conjunction.

    Attributes:
        words: the values that an attribute may have: of its code list, or of names that are written out.
        numbers: the range that an attribute must be in, both ends included.
        regions: the jurisdictions of which one must contain the place.
        outside: the jurisdictions of which none may contain it.
        others: what else must hold, as canonical JSON of Cedar's expressions.
        never: a condition is false as it is written.
    """

    words: Mapping[str, Words] = field(default_factory=dict)
    numbers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    regions: Mapping[str, Words] = field(default_factory=dict)
    outside: Mapping[str, Words] = field(default_factory=dict)
    others: Words = frozenset()
    never: bool = False

    @property
    def actions(self) -> Words:
        """The actions that the scope takes in."""
        return self.words.get("action", LISTS["action"])

    @property
    def attributes(self) -> Words:
        """What the scope says something about; a piece that is comparable with itself only counts by its text."""
        return frozenset([*self.words, *self.numbers, *self.regions, *self.outside, *self.others])

    def both(self, other: Scope) -> Scope:
        """What both take in."""
        words = dict(self.words)
        for name, allowed in other.words.items():
            words[name] = allowed & words.get(name, allowed)
        numbers = dict(self.numbers)
        for name, (low, high) in other.numbers.items():
            before = numbers.get(name, (low, high))
            numbers[name] = (max(low, before[0]), min(high, before[1]))
        regions = dict(self.regions)
        for name, places in other.regions.items():
            regions[name] = _within_both(regions[name], places) if name in regions else places
        outside = dict(self.outside)
        for name, places in other.outside.items():
            outside[name] = places | outside.get(name, frozenset())
        return Scope(words, numbers, regions, outside, self.others | other.others, self.never or other.never)

    @property
    def contradiction(self) -> str | None:
        """Why certainly no request is in the scope, in words; None where that is not certain."""
        impossible = [name for name, allowed in self.words.items() if not allowed]
        impossible += [name for name, (low, high) in self.numbers.items() if low > high]
        for name, places in self.regions.items():
            out = self.outside.get(name, frozenset())
            if all(any(is_within(place, one) for one in out) for place in places):
                impossible.append(name)
        if impossible:
            return f"nothing can be what it says of {', '.join(sorted(impossible))}"
        if any(_canonical({"!": {"arg": json.loads(text)}}) in self.others for text in self.others):
            return "a condition stands beside its opposite"
        return "a condition is false as it is written" if self.never else None

    @property
    def empty(self) -> bool:
        """Whether it is certain that no request is in the scope."""
        return self.contradiction is not None

    def meets(self, other: Scope) -> bool:
        """Whether a request may be in both; False only when certainly none is."""
        return not self.both(other).empty

    def covers(self, other: Scope) -> bool:
        """Whether it is certain that every request in `other` is in this one."""
        if other.empty:
            return True
        return (
            not self.never
            and self.others <= other.others
            and all(name in other.words and other.words[name] <= allowed for name, allowed in self._limiting())
            and all(
                name in other.numbers and low <= other.numbers[name][0] and other.numbers[name][1] <= high
                for name, (low, high) in self.numbers.items()
            )
            and all(
                name in other.regions
                and all(any(is_within(one, place) for place in places) for one in other.regions[name])
                for name, places in self.regions.items()
            )
            and all(other._stays_outside(name, place) for name, places in self.outside.items() for place in places)
        )

    def _limiting(self) -> Iterable[tuple[str, Words]]:
        return ((name, allowed) for name, allowed in self.words.items() if allowed != LISTS.get(name))

    def _stays_outside(self, name: str, place: str) -> bool:
        if any(is_within(place, out) for out in self.outside.get(name, frozenset())):
            return True
        places = self.regions.get(name, frozenset())
        return bool(places) and not any(is_within(one, place) or is_within(place, one) for one in places)


def _within_both(some: Words, others: Words) -> Words:
    return frozenset(
        [one for one in some if any(is_within(one, other) for other in others)]
        + [other for other in others if any(is_within(other, one) for one in some)]
    )


@lru_cache(maxsize=512)
def scopes(text: str) -> tuple[Scope, ...]:
    """The scope of each policy of a text that parses, in order. Raises ValueError for one that does not."""
    found = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    return tuple(_scope(found[name]) for name in sorted(found, key=lambda name: int(name.removeprefix("policy"))))


def _scope(policy: Tree) -> Scope:
    scope = Scope()
    for variable in ("principal", "action", "resource"):
        scope = scope.both(_head(variable, policy[variable]))
    for condition in policy["conditions"]:
        scope = scope.both(_condition(condition["body"], holds=condition["kind"] == "when"))
    return scope


def _head(variable: str, constraint: Tree) -> Scope:
    """The constraint in a policy's head as a condition. `is` says nothing here: the schema has one type for each variable."""
    named = constraint["in"] if constraint["op"] == "is" and "in" in constraint else constraint
    entities = named.get("entities") or ([named["entity"]] if "entity" in named else [])
    if not entities:
        return Scope()
    operator = "==" if named.get("op") == "==" else "in"
    right = {"Set": [{"Value": {"__entity": entity}} for entity in entities]}
    return _compared(operator, {"Var": variable}, right if len(entities) > 1 else right["Set"][0])


def _condition(tree: Tree, *, holds: bool) -> Scope:
    """A condition that must hold, or must not, as a scope."""
    ((operator, parts),) = tree.items()
    if operator == "Value" and isinstance(parts, bool):
        return Scope(never=parts is not holds)
    if operator == "!":
        return _condition(parts["arg"], holds=not holds)
    if operator == ("&&" if holds else "||"):
        return _condition(parts["left"], holds=holds).both(_condition(parts["right"], holds=holds))
    if operator in {"&&", "||"}:
        united = _united(_condition(parts["left"], holds=holds), _condition(parts["right"], holds=holds))
        return united if united is not None else _opaque(tree, holds=holds)
    if operator == "contains" and "Set" in parts["left"]:
        return _compared("contains", parts["right"], parts["left"], holds=holds)
    if operator in _OPPOSITE or operator == "in":
        return _compared(operator, parts["left"], parts["right"], holds=holds)
    return _opaque(tree, holds=holds)


def _united(one: Scope, other: Scope) -> Scope | None:
    """Either of two scopes that each speak of the same code list alone, or of places in the same regions; None for any others."""
    if one.empty or other.empty:
        return other if one.empty else one
    if one.attributes == other.attributes and len(one.attributes) == 1:
        (name,) = one.attributes
        if name in one.words and name in other.words:
            return Scope(words={name: one.words[name] | other.words[name]})
        if name in one.regions and name in other.regions and not (one.outside or other.outside):
            return Scope(regions={name: one.regions[name] | other.regions[name]})
    return None


def _compared(operator: str, left: Tree, right: Tree, *, holds: bool = True) -> Scope:
    """`left operator right`; `contains` stands for a set on the right of which the left is one."""
    tree = {operator: {"left": right, "right": left} if operator == "contains" else {"left": left, "right": right}}
    path, entities, number = _path(left), _entities(right), right.get("Value")
    if path is None and _path(right) is not None and operator in _FLIPPED:
        return _compared(_FLIPPED[operator], right, left, holds=holds)
    if path is not None and isinstance(number, int) and not isinstance(number, bool):
        return _ranged(operator if holds else _OPPOSITE.get(operator, ""), path, number) or _opaque(tree, holds=holds)
    positive = holds == (operator != "!=")
    if path is not None and entities and operator in {"==", "!=", "in", "contains"}:
        kinds, names = {kind for kind, _ in entities}, frozenset(name for _, name in entities)
        if path in LISTS:
            return Scope(words={path: names if positive else LISTS[path] - names})
        if kinds == {"Jurisdiction"} and operator == "in":
            place = _SAME_PLACE.get(path, path)
            return Scope(regions={place: names}) if positive else Scope(outside={place: names})
        if kinds == {"Organisation"} and path in {"principal", "principal.organisation"} and positive:
            return Scope(words={"principal.organisation": names})
        if len(kinds) == 1 and operator != "in" and positive:
            return Scope(words={path: names})
    return _opaque(tree, holds=holds)


def _ranged(operator: str, path: str, number: int) -> Scope | None:
    ends = {
        "==": (number, number),
        "<": (_LOWEST, number - 1),
        "<=": (_LOWEST, number),
        ">": (number + 1, _HIGHEST),
        ">=": (number, _HIGHEST),
    }.get(operator)
    return None if ends is None else Scope(numbers={path: ends})


def _path(tree: Tree) -> str | None:
    """`context.purpose` and the like, None for any other expression."""
    if "Var" in tree:
        return str(tree["Var"])
    inner = tree.get(".")
    before = _path(inner["left"]) if inner else None
    return f"{before}.{inner['attr']}" if before is not None and inner else None


def _entities(tree: Tree) -> list[tuple[str, str]]:
    """The entities that are written out, one or a set of them; none for anything else."""
    members = tree["Set"] if isinstance(tree.get("Set"), list) else [tree]
    found = []
    for member in members:
        value = member.get("Value")
        entity = value.get("__entity") if isinstance(value, dict) else None
        if entity is None:
            return []
        found.append((str(entity["type"]), str(entity["id"])))
    return found


def _opaque(tree: Tree, *, holds: bool) -> Scope:
    return Scope(others=frozenset({_canonical(tree if holds else {"!": {"arg": tree}})}))


def _canonical(tree: Tree) -> str:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"))
