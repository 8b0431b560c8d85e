"""Topologies as YAML and as JSON Schema: short for people, whole for those who want every default, described for editors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from sovchain.network.topology import OrderingOrganization, Organization, Topology
from sovchain.network.topologyparts import DEFAULT_USERS, Part

_LINE: Final = 120
"""Longest line of what is written."""
_SCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"


def to_yaml(topology: Topology, *, full: bool = False) -> str:
    """Write a topology so that reading it gives an equal one; without `full` what is understood by itself is left out."""
    document = as_document(topology, full=full)
    return "\n".join(_lines(document)) + "\n"


def as_document(topology: Topology, *, full: bool = False) -> dict[str, Any]:
    """Return a topology as plain data; without `full` what is understood by itself is left out."""
    if full:
        return topology.model_dump(mode="json")
    document = topology.model_dump(mode="json", exclude_defaults=True)
    document["organizations"] = [_organization(part, topology) for part in topology.organizations]
    document["ordering_organizations"] = [_ordering(part, topology) for part in topology.ordering_organizations]
    first = {"name": topology.name, **({"domain": topology.domain} if topology.domain else {})}
    return {**first, **document}


def _organization(part: Organization, topology: Topology) -> dict[str, Any]:
    document = part.model_dump(mode="json", exclude_defaults=True)
    derived = {"msp_id": f"{part.name}MSP", "domain": f"{part.name.lower()}.{topology.domain}"}
    _leave_out(document, derived)
    claims = part.attributes
    if part.users == tuple(user.model_copy(update={"attributes": dict(claims)}) for user in DEFAULT_USERS):
        document.pop("users", None)
    for user in document.get("users", ()):
        attributes = {name: value for name, value in user.pop("attributes", {}).items() if claims.get(name) != value}
        user.update({"attributes": attributes} if attributes else {})
    return document


def _ordering(part: OrderingOrganization, topology: Topology) -> dict[str, Any]:
    document = part.model_dump(mode="json", exclude_defaults=True)
    above = [one.domain for one in topology.organizations if one.name == part.operator]
    derived = {"msp_id": f"{part.name}MSP", "name": f"{part.operator}Orderer"}
    _leave_out(document, derived | ({"domain": f"orderer.{above[-1]}"} if above else {}))
    return document


def _leave_out(document: dict[str, Any], derived: Mapping[str, str]) -> None:
    for name, value in derived.items():
        if document.get(name) == value:
            del document[name]


# YAML ----------------------------------------------------------------------------------------------------------------


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    """The lines of a mapping: what fits goes into one line, what does not is spread over several."""
    for key, part in value.items():
        name = _flow(key)
        line = f"{indent}{name}: {_flow(part)}"
        parts_of_network = not indent and isinstance(part, list) and part and isinstance(part[0], dict)
        if (len(line) <= _LINE and not parts_of_network) or not isinstance(part, dict | list) or not part:
            yield line
        elif isinstance(part, dict):
            yield f"{indent}{name}:"
            yield from _lines(part, f"{indent}  ")
        else:
            yield f"{indent}{name}:"
            for item in part:
                yield from _item(item, f"{indent}  ")


def _item(item: Any, indent: str) -> Iterator[str]:
    line = f"{indent}- {_flow(item)}"
    if len(line) <= _LINE or not isinstance(item, dict):
        yield line
        return
    first, *others = _lines(item, f"{indent}  ")
    yield f"{indent}- {first.lstrip()}"
    yield from others


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


# JSON Schema ---------------------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """Return the schema of topology files for editors; descriptions are those of the model."""
    schema = Topology.model_json_schema()
    parts: dict[str, type[Part]] = {part.__name__: part for part in _parts(Part)}
    for name, definition in (("Topology", schema), *schema.get("$defs", {}).items()):
        _describe(definition, parts.get(name))
    # Without quotation marks YAML reads 2.5 as a number, which the reader takes too.
    version = schema["properties"]["fabric_version"]
    version["enum"] = [*version["enum"], *(float(text) for text in version["enum"])]
    version.pop("type", None)
    return {"$schema": _SCHEMA, **schema, "title": "sovchain topology"}


def _parts(part: type[Part]) -> Iterator[type[Part]]:
    for kind in part.__subclasses__():
        yield kind
        yield from _parts(kind)


def _describe(definition: dict[str, Any], part: type[Part] | None) -> None:
    """Turn the docstring of a part into the descriptions of it and of its fields."""
    text = (part.__doc__ or "") if part else ""
    summary, _, attributes = text.partition("Attributes:")
    definition["description"] = _one_line(summary)
    entries = re.findall(r"^ {8}([a-z_, ]+): (.*(?:\n {12}.*)*)", attributes, re.MULTILINE)
    described = {name.strip(): _one_line(words) for names, words in entries for name in names.split(",")}
    for name, field in definition.get("properties", {}).items():
        field.pop("title", None)
        if name in described:
            field["description"] = described[name]


def _one_line(text: str) -> str:
    return " ".join(text.split())
