"""ODRL in JSON-LD, read strictly: what is not understood is refused with its JSON path, never passed over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sovchain.contracts.core.cedartext import TEXT_MAX_BYTES
from sovchain.sovereign.odrl.terms import PREFIXES, PROFILE, OdrlError

DESCRIPTIVE: Final = ("dc:", "dct:", "dcterms:", "rdfs:", "schema:", "http://purl.org/dc/")
"""Prefixes of properties that describe and bind nobody."""
DEPTH_MAX: Final = 20
_ALIASES: Final = {"@type": "type", "@id": "uid", "id": "uid"}


def read_json(text: str) -> Any:
    """A JSON document. Raises OdrlError for one that is none, too long, too deep, or that has a name twice in one object."""
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_MAX_BYTES * 4:
        raise OdrlError("$", f"the document is longer than {TEXT_MAX_BYTES * 4 // 1024} KiB")
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise OdrlError("$", f"no JSON: {error.msg}, line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise OdrlError("$", f"the document is nested deeper than {DEPTH_MAX} levels") from None
    _check_depth(document, 0)
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise OdrlError("$", f"an object has {next(name for name in names if names.count(name) > 1)!a} twice")
    return found


def _constant(word: str) -> Any:
    raise OdrlError("$", f"{word} is no JSON")


def _check_depth(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise OdrlError("$", f"the document is nested deeper than {DEPTH_MAX} levels")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, depth + 1)


def step(path: str, name: str | int) -> str:
    """A path one step further down."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    return f"{path}.{name}" if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else f"{path}[{json.dumps(name)}]"


def term(value: str) -> str:
    """A term without a prefix or namespace of ODRL; a term of the profile as `sov:...`."""
    for prefix in PREFIXES:
        value = value.removeprefix(prefix)
    return "sov:" + value.removeprefix(f"{PROFILE}#") if value.startswith(f"{PROFILE}#") else value


class Node:
    """An object of the document, every property of which somebody must ask for before `done`."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise OdrlError(path, "an object is expected here")
        self.path = path
        self._names: dict[str, str] = {}
        for name in value:
            plain = _ALIASES.get(name, term(name))
            if plain in self._names:
                raise OdrlError(step(path, name), f"`{plain}` is stated twice")
            self._names[plain] = name
        self._value = value
        self._asked: set[str] = set()

    def at(self, name: str) -> str:
        """The path of a property."""
        return step(self.path, self._names.get(name, name))

    def get(self, name: str) -> Any:
        """A property as it stands, None without it."""
        self._asked.add(name)
        return self._value[self._names[name]] if name in self._names else None

    def word(self, name: str) -> str | None:
        """A property that is one term or string, or an object with nothing but an id; None without it."""
        value = self.get(name)
        return None if value is None else identified(value, self.at(name))

    def each(self, name: str) -> Iterator[tuple[Any, str]]:
        """The members of a property that is a list, or its only value, each with its path; none without it."""
        value = self.get(name)
        if isinstance(value, Mapping) and set(value) == {"@list"}:
            value = value["@list"]
        if isinstance(value, list):
            yield from ((member, step(self.at(name), number)) for number, member in enumerate(value))
        elif value is not None:
            yield value, self.at(name)

    def ignore(self, *names: str) -> None:
        """Take properties as read that bind nobody."""
        self._asked.update(names)

    def done(self, refused: Mapping[str, str]) -> None:
        """Raise OdrlError for a property that nobody asked for; `refused` has the reasons for those that are known."""
        for name in self._names:
            if name not in self._asked and not name.startswith(DESCRIPTIVE):
                raise OdrlError(self.at(name), refused.get(name, "this property has no meaning for a law"))


def identified(value: Any, path: str) -> str:
    """A term or IRI: a string, or an object with nothing but an id."""
    if isinstance(value, Mapping) and set(value) <= {"@id", "uid", "id"} and len(value) == 1:
        value = next(iter(value.values()))
    if not isinstance(value, str):
        raise OdrlError(path, "one term or IRI is expected here")
    return term(value)


def plain(value: Any, path: str) -> str | int:
    """A right operand: a string or whole number, by itself or as a typed value or id."""
    if isinstance(value, Mapping) and "@value" in value and set(value) <= {"@value", "@type"}:
        value = value["@value"]
    elif isinstance(value, Mapping):
        value = identified(value, path)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise OdrlError(path, "a string or a whole number is expected here")
    return value


def listed(value: Any, path: str) -> Sequence[tuple[str | int, str]]:
    """Right operands: one or a list."""
    if isinstance(value, Mapping) and set(value) == {"@list"}:
        value = value["@list"]
    members = value if isinstance(value, list) else [value]
    if not members:
        raise OdrlError(path, "no value is stated")
    one = len(members) == 1 and not isinstance(value, list)
    return [
        (plain(member, where), where)
        for number, member in enumerate(members)
        for where in [path if one else step(path, number)]
    ]
