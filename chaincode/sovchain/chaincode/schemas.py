"""JSON Schema as pydantic writes it (2020-12), said in the words of Fabric's contract schema (a subset of draft 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_KEPT: Final = frozenset(
    {
        "$ref",
        "format",
        "title",
        "description",
        "default",
        "multipleOf",
        "maximum",
        "minimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "maxProperties",
        "minProperties",
        "required",
        "enum",
        "type",
    }
)
"""Words that mean the same in both."""


def draft4(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema in draft 4 that admits at least what the given one admits."""
    found = {word: value for word, value in schema.items() if word in _KEPT}
    if "$ref" in found:
        return {"$ref": found["$ref"]}  # draft 4 looks at nothing beside a reference
    if "const" in schema:
        found["enum"] = [schema["const"]]
    for word, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if word in schema:
            found[bound], found[word] = schema[word], True
    for word in ("maxLength", "maxItems", "maxProperties"):
        if found.get(word) == 0:
            del found[word]  # the schema takes positive numbers only
    if not found.get("required", True):
        del found["required"]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        found.update(_union(options))
    if "allOf" in schema:
        found["allOf"] = [draft4(part) for part in schema["allOf"]]
    if "properties" in schema:
        found["properties"] = {name: draft4(part) for name, part in schema["properties"].items()}
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        found["additionalProperties"] = draft4(extra)
    elif isinstance(extra, bool):
        found["additionalProperties"] = extra
    found.update(_items(schema))
    return found


def object_type(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema among `components.schemas`, where each has an `$id`."""
    return {"$id": name, **draft4(schema)}


def _items(schema: Mapping[str, Any]) -> dict[str, Any]:
    if schema.get("prefixItems"):
        return {"items": [draft4(part) for part in schema["prefixItems"]]}
    items = schema.get("items")
    return {"items": draft4(items)} if isinstance(items, Mapping) else {}


def _union(options: list[Mapping[str, Any]]) -> dict[str, Any]:
    """One value or null keeps its schema; unlike types are told in words."""
    parts = [draft4(option) for option in options]
    values = [part for part in parts if part.get("type") != "null"]
    if len(values) == 1 and isinstance(values[0].get("type"), str):
        only = dict(values[0])
        only["type"] = [only["type"], "null"]
        if "enum" in only:
            only["enum"] = [*only["enum"], None]
        return only
    words = {str(part.get("$ref", part.get("type", "any"))).rpartition("/")[2] for part in parts}
    return {"description": f"one of: {', '.join(sorted(words))}"}
