"""Mango selectors: read once into CouchDB's normal form, then matched against documents.

Mirrors src/mango/src/mango_selector.erl of CouchDB 3.4, with the quirks that programs come to rely on. The normal form
is a tree of one-entry nodes, `{"$and": [...]}`, `{"a.b": {"$gt": 5}}`: fields are pushed down to conditions, negations
too. An empty selector matches everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import regex

from sovchain.ledger.couchdb.collation import compare, value_key
from sovchain.ledger.couchdb.errors import FindError, FindRefused, term

Node = dict[str, Any]

REGEX_BUDGET_S: Final = 1.0
"""Time that the regular expressions of one query may take altogether."""
MAX_REGEX_LENGTH: Final = 10_000
MAX_CONDITIONS: Final = 10_000
"""Conditions, values and operators of one selector."""

_LISTS: Final = frozenset({"$and", "$or", "$nor"})
_OBJECTS: Final = frozenset({"$not", "$elemMatch", "$allMatch", "$keyMapMatch"})
_ANY_VALUE: Final = frozenset({"$lt", "$lte", "$eq", "$ne", "$gte", "$gt"})
_UNSUPPORTED: Final = frozenset({"$where", "$geoWithin", "$geoIntersects", "$near", "$nearSphere"})
_NEGATED: Final = {
    "$lt": "$gte", "$lte": "$gt", "$eq": "$ne", "$ne": "$eq", "$gte": "$lt", "$gt": "$lte", "$in": "$nin", "$nin": "$in",
}  # fmt: skip
MISSING: Final = object()
"""A field that a document does not have."""


class _Unmatchable(Exception):
    """A condition that CouchDB fails on; inside `$elemMatch` and the like it counts as no match."""


def normalize(selector: Node) -> Node:
    """Return the normal form of a selector. Raises FindError as CouchDB refuses it, FindRefused when it is too large."""
    if not selector:
        return {}
    _check_size(selector)
    normal = _negations(_fields(_operators(selector), ""))
    if "" in normal:
        raise FindError("invalid_selector", "One or more conditions is missing a field name.")
    return normal


def _check_size(selector: Node) -> None:
    left: list[Any] = [selector]
    count = 0
    while left:
        value = left.pop()
        count += 1
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
    if count > MAX_CONDITIONS:
        raise FindRefused(f"the selector has {count} conditions and values, at most {MAX_CONDITIONS} are allowed")


def _operators(value: Any) -> Node:
    if not isinstance(value, dict) or not value:
        return {"$eq": value}
    if len(value) > 1:
        return {"$and": [_operators({name: entry}) for name, entry in value.items()]}
    ((name, argument),) = value.items()
    if not name.startswith("$"):
        return {name: _operators(argument)}
    if name in _LISTS and isinstance(argument, list):
        return {name: [_operators(entry) for entry in argument]}
    if name in _OBJECTS and isinstance(argument, dict):
        return {name: _operators(argument)}
    if name in _ANY_VALUE or (name in _ACCEPTED and _ACCEPTED[name](argument)):
        return value
    # CouchDB has no sentence for a prefix or a pattern that is no string.
    known = name in _ACCEPTED and (name not in {"$beginsWith", "$regex"} or isinstance(argument, str))
    if name in _LISTS or name in _OBJECTS or known:
        raise FindError("bad_arg", f"Bad argument for operator {name}: {term(argument)}")
    if name in _UNSUPPORTED:
        raise FindError("not_supported", f"Unsupported operator: {name}")
    raise FindError("invalid_operator", f"Invalid operator: {name}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_regex(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > MAX_REGEX_LENGTH:
        return False
    try:
        _compiled(value)
    except regex.error:
        return False
    return True


def _compiled(text: str) -> regex.Pattern[str]:
    return regex.compile(_latin(text), regex.VERSION0)


def _latin(text: str) -> str:
    """Return UTF-8 as CouchDB's PCRE sees it, which knows no Unicode: each byte is a character of Latin-1."""
    return text.encode(errors="replace").decode("latin-1")


_ACCEPTED: Final[dict[str, Callable[[Any], bool]]] = {
    "$in": lambda value: isinstance(value, list),
    "$nin": lambda value: isinstance(value, list),
    "$all": lambda value: isinstance(value, list),
    "$exists": lambda value: isinstance(value, bool),
    "$type": lambda value: isinstance(value, str),
    "$size": lambda value: _is_integer(value) and value >= 0,
    "$mod": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_integer, value)),
    "$regex": _is_regex,
    "$beginsWith": lambda value: isinstance(value, str),
}


def _fields(node: Node, path: str) -> Node:
    ((name, argument),) = node.items()
    if name in _LISTS:
        return {name: [_fields(entry, path) for entry in argument]}
    if name == "$not":
        return {name: _fields(argument, path)}
    if name in _OBJECTS:
        return {path: {name: _fields(argument, "")}}
    if name.startswith("$"):
        return {path: node}
    return _fields(argument, f"{path}.{name}" if path else name)


def _negations(node: Node) -> Node:
    ((name, argument),) = node.items()
    if name == "$not":
        return _negate(argument)
    if name == "$nor":
        return {"$and": [_negate(entry) for entry in argument]}
    if name in {"$and", "$or"}:
        return {name: [_negations(entry) for entry in argument]}
    return node


def _negate(node: Node) -> Node:
    ((name, argument),) = node.items()
    if name == "$not":
        return _negations(argument)
    if name == "$nor":
        return {"$or": [_negations(entry) for entry in argument]}
    if name in {"$and", "$or"}:
        return {"$or" if name == "$and" else "$and": [_negate(entry) for entry in argument]}
    if name in _NEGATED:
        return {_NEGATED[name]: argument}
    if name == "$exists":
        return {name: not argument}
    if name.startswith("$"):
        return {"$not": node}
    return {name: _negate(argument)}


def split_field(field: str) -> list[str]:
    r"""Return a field's path; `\.` is a dot in a name. Raises FindError."""
    if "\\" not in field:
        parts = field.split(".")
    else:
        parts = [part.replace("\\", "") for part in regex.split(r"(?<!\\)\.", field)]
    if "" in parts:
        raise FindError("invalid_field_name", f"Invalid field name: {field}")
    return parts


def field_of(value: Any, path: list[str]) -> Any:
    """Return what lies at a path; see `present`. A number names an element of an array."""
    for name in path:
        if isinstance(value, dict):
            if name not in value:
                return MISSING
            value = value[name]
        elif isinstance(value, list):
            position = position_in(value, name)
            if position is None:
                return _BAD_PATH
            value = value[position]
        else:
            return _BAD_PATH
    return value


def position_in(values: list[Any], name: str) -> int | None:
    """Return the element that a name is for, None if there is none."""
    if not _POSITION.fullmatch(name):
        return None
    position = int(name)
    return position if 0 <= position < len(values) else None


_POSITION: Final = regex.compile(r"[+-]?[0-9]{1,18}")
_BAD_PATH: Final = object()


def present(value: Any) -> bool:
    """Whether `field_of` found something."""
    return value is not MISSING and value is not _BAD_PATH


class Matcher:
    """Matches documents against one normalised selector; its regular expressions share one budget of time."""

    def __init__(self, selector: Node) -> None:
        """Takes the result of `normalize`."""
        self._selector = selector
        self._left_s = REGEX_BUDGET_S
        self._patterns: dict[str, regex.Pattern[str]] = {}
        self._paths: dict[str, list[str]] = {}

    def matches(self, fields: dict[str, Any]) -> bool:
        """Whether a document matches. Raises FindError where CouchDB fails, FindRefused when the time is used up."""
        if not self._selector:
            return True
        try:
            return self._match(self._selector, fields)
        except _Unmatchable as error:
            raise FindError("unknown_error", str(error), 500) from None

    def _match(self, node: Node, value: Any, *, raw: bool = False) -> bool:
        ((name, argument),) = node.items()
        if name == "$and":
            return all(self._match(entry, value, raw=raw) for entry in argument)
        if name == "$or":
            return not argument or any(self._match(entry, value, raw=raw) for entry in argument)
        if name == "$not":
            return not self._match(argument, value, raw=raw)
        if name in {"$elemMatch", "$allMatch", "$keyMapMatch"}:
            return self._match_parts(name, argument, value)
        if name in _ANY_VALUE:
            return _ordered(name, _compare(value, argument, raw=raw))
        if name == "$regex":
            return isinstance(value, str) and self._search(argument, value)
        if name.startswith("$"):
            if name not in _SIMPLE:
                raise _Unmatchable(f"Invalid operator: {name}")
            return _SIMPLE[name](argument, value, raw)
        return self._match(argument, value, raw=raw) if name == "" else self._match_field(name, argument, value)

    def _match_field(self, field: str, condition: Node, value: Any) -> bool:
        path = self._paths.get(field)
        if path is None:
            path = self._paths[field] = split_field(field)
        found = field_of(value, path)
        if found is MISSING:
            return condition == {"$exists": False}
        if found is _BAD_PATH:
            return False
        return self._match(condition, found, raw=field == "_id")

    def _match_parts(self, name: str, condition: Node, value: Any) -> bool:
        if name == "$keyMapMatch":
            parts = list(value) if isinstance(value, dict) else []
        else:
            parts = value if isinstance(value, list) else []
        try:
            if name == "$allMatch":
                return bool(parts) and all(self._match(condition, part) for part in parts)
            return any(self._match(condition, part) for part in parts)
        except (_Unmatchable, FindError):
            return False

    def _search(self, pattern: str, value: str) -> bool:
        compiled = self._patterns.get(pattern)
        if compiled is None:
            compiled = self._patterns[pattern] = _compiled(pattern)
        started = time.monotonic()
        try:
            return compiled.search(_latin(value), timeout=max(self._left_s, 0.001)) is not None
        except TimeoutError:
            raise FindRefused(
                f"the query's regular expressions took more than {REGEX_BUDGET_S:g} s; make them simpler, or narrow "
                "the query by other conditions"
            ) from None
        finally:
            self._left_s -= time.monotonic() - started


def _compare(value: Any, argument: Any, *, raw: bool) -> int:
    if raw and isinstance(value, str) and isinstance(argument, str):
        return (value > argument) - (value < argument)  # code points, which is the order of the UTF-8 bytes
    if raw:
        return 1 if argument is None or isinstance(argument, (bool, int, float)) or not isinstance(argument, str) else 0
    return compare(value, argument)


def _ordered(name: str, order: int) -> bool:
    return {
        "$lt": order < 0, "$lte": order <= 0, "$eq": order == 0, "$ne": order != 0, "$gte": order >= 0, "$gt": order > 0,
    }[name]  # fmt: skip


def _in(arguments: list[Any], value: Any, raw: bool) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(_compare(entry, argument, raw=raw) == 0 for argument in arguments for entry in values)


def _all(arguments: list[Any], value: Any, _raw: bool) -> bool:
    if not arguments or not isinstance(value, list):
        return False
    if all(any(_same(argument, entry) for entry in value) for argument in arguments):
        return True
    return len(arguments) == 1 and isinstance(arguments[0], list) and arguments[0] == value


def _same(one: Any, other: Any) -> bool:
    """Whether Erlang finds two terms identical: 1 and 1.0 are not."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(map(_same, one.values(), other.values()))
    return type(one) is type(other) and bool(one == other)


def _mod(argument: list[int], value: Any, _raw: bool) -> bool:
    divisor, remainder = argument
    if not _is_integer(value):
        return False
    if divisor == 0:
        raise _Unmatchable("badarith")
    found = abs(value) % abs(divisor)  # the sign of a remainder is the dividend's
    return bool((-found if value < 0 else found) == remainder)


def _type_of(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    kinds: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "number")


_SIMPLE: Final[dict[str, Callable[[Any, Any, bool], bool]]] = {
    "$in": _in,
    "$nin": lambda argument, value, raw: not _in(argument, value, raw),
    "$all": _all,
    "$exists": lambda argument, _value, _raw: argument,
    "$type": lambda argument, value, _raw: argument == _type_of(value),
    "$size": lambda argument, value, _raw: isinstance(value, list) and len(value) == argument,
    "$mod": _mod,
    "$beginsWith": lambda argument, value, _raw: isinstance(value, str) and value.startswith(argument),
}


# What indexes ask of a selector -----------------------------------------------------------------------------------------


def missing_fields(selector: Node, fields: frozenset[str]) -> frozenset[str]:
    """Return those `fields` that a matching document may lack: an index of them would leave documents out."""
    if not selector or not fields:
        return fields
    ((name, argument),) = selector.items()
    if name == "$and":
        for entry in argument:
            fields = missing_fields(entry, fields)
        return fields
    if name == "$or":
        return frozenset().union(*(missing_fields(entry, fields) for entry in argument))
    return fields if argument == {"$exists": False} else fields - {name}


def check_text_search(value: Any) -> None:
    """Fail where CouchDB does when it looks for a text search (mango_idx_view.erl is_text_search).

    It has no answer for null, a list or an object of several fields within a list, nor for the latter as a condition.
    Raises FindError.
    """
    if isinstance(value, dict) and len(value) <= 1:
        for argument in value.values():
            if isinstance(argument, dict):
                check_text_search(argument)
            elif isinstance(argument, list):
                for entry in argument:
                    check_text_search(entry)
    elif value is None or isinstance(value, (dict, list)):
        raise FindError("unknown_error", "function_clause", 500)


def is_constant(selector: Node, field: str) -> bool:
    """Whether all matches have the same value in a field."""
    if not selector:
        return False
    ((name, argument),) = selector.items()
    if name == "$and":
        return any(is_constant(entry, field) for entry in argument)
    return name == field and list(argument) == ["$eq"]


def ranges(selector: Node) -> dict[str, bool]:
    """Return the fields that have bounds an index can serve, with whether some value can lie within them.

    The first field without such a value is the only one, as in mango_idx_view.erl field_ranges. Raises FindError where
    CouchDB fails: `$beginsWith` after bounds that already exclude it.
    """
    bounds: dict[str, list[tuple[str, Any]]] = {}
    _collect(selector, bounds)
    found: dict[str, bool] = {}
    for field in sorted(bounds, key=lambda name: name.encode(errors="replace")):
        found[field] = _satisfiable(bounds[field])
        if not found[field]:
            return {field: False}
    return found


def _collect(node: Node, bounds: dict[str, list[tuple[str, Any]]]) -> None:
    for name, argument in node.items():
        if name == "$and":
            for entry in argument:
                _collect(entry, bounds)
        elif not name.startswith("$"):
            ((operator, value),) = argument.items()
            if operator in {"$lt", "$lte", "$eq", "$gte", "$gt", "$beginsWith", "$exists"}:
                bounds.setdefault(name, []).append((operator, value))


def _satisfiable(bounds: list[tuple[str, Any]]) -> bool:
    low: tuple[Any, bool] | None = None  # key, and whether the bound itself is within
    high: tuple[Any, bool] | None = None
    for operator, value in bounds:
        if operator in {"$gt", "$gte", "$eq", "$beginsWith"}:
            low = _tighter(low, (value_key(value), operator != "$gt"), 1)
            if operator == "$beginsWith" and _excludes(low, high):
                raise FindError("badmatch", "empty", 500)
        if operator in {"$lt", "$lte", "$eq"}:
            high = _tighter(high, (value_key(value), operator != "$lt"), -1)
        if operator == "$beginsWith":
            high = _tighter(high, (value_key(value + "\uffff"), True), -1)
        if _excludes(low, high):
            return False
    return True


def _tighter(bound: tuple[Any, bool] | None, new: tuple[Any, bool], direction: int) -> tuple[Any, bool]:
    if bound is None or new[0] == bound[0]:
        return new if bound is None or not new[1] else bound
    return new if (new[0] > bound[0]) == (direction > 0) else bound


def _excludes(low: tuple[Any, bool] | None, high: tuple[Any, bool] | None) -> bool:
    if low is None or high is None:
        return False
    return bool(low[0] > high[0] or (low[0] == high[0] and not (low[1] and high[1])))
