"""Topologies in YAML: reading them, and saying where in the file a problem is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sovchain.network.checks import problems
from sovchain.network.errors import TopologyError, TopologyProblem
from sovchain.network.topology import Topology

MAX_BYTES: Final = 1024 * 1024
"""Limit of a topology file."""
MAX_DEPTH: Final = 16
"""Limit of nesting; a topology has five levels."""

Location = tuple[str | int, ...]
_MERGE: Final = "tag:yaml.org,2002:merge"


def load_topology(path: Path) -> Topology:
    """Read and check a YAML file of at most `MAX_BYTES` bytes. Raises TopologyError with key and line."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TopologyError(
            "", f"the file cannot be read: {error.strerror}", source=path, remedy="give the path of a YAML file"
        ) from None
    try:
        return parse_topology(content.decode("utf-8"), source=path)
    except UnicodeDecodeError:
        raise TopologyError("", "the file is not UTF-8 text", source=path, remedy="save it as UTF-8") from None


def parse_topology(text: str, *, source: Path | str = "") -> Topology:
    """Read and check a YAML document of at most `MAX_BYTES` characters. Raises TopologyError."""
    if len(text) > MAX_BYTES:
        raise TopologyError(
            "", f"the document is larger than {MAX_BYTES} bytes", source=source, remedy="make it smaller"
        )
    root, data = _read_yaml(text, source)
    try:
        topology = Topology.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        # A list is also called too short when what is in it was refused.
        causes = [one for one in details if not any(_within(other["loc"], one["loc"]) for other in details)]
        raise _located([_problem_of(cause) for cause in causes], root, source) from None
    found = problems(topology)
    if found:
        raise _located(found, root, source)
    return topology


def _within(inner: Location, outer: Location) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _located(found: Sequence[TopologyProblem], root: yaml.Node, source: Path | str) -> TopologyError:
    """Make the error of problems whose lines are looked up, in the order of the file."""
    placed = [replace(problem, line=_line(root, _parse_key(problem.key))) for problem in found]
    return TopologyError.of(sorted(dict.fromkeys(placed), key=lambda problem: problem.line or 0), source)


def _read_yaml(text: str, source: Path | str) -> tuple[yaml.Node, Any]:
    """Return the document as nodes, which know their lines, and as plain data."""
    try:
        _check_events(text, source)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise TopologyError("", "the document is empty", source=source, remedy="describe the network in it")
        _check_keys(root, source)
        return root, yaml.SafeLoader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = f"it is not YAML: {error.problem or 'syntax error'}"
        raise TopologyError("", problem, line=line, source=source, remedy="correct the syntax") from None
    except (yaml.YAMLError, ValueError) as error:  # PyYAML lets the ValueError of a date such as 2026-13-01 through
        problem = f"it is not YAML: {' '.join(str(error).split())[:200]}"
        raise TopologyError("", problem, source=source, remedy="correct the syntax") from None


def _check_events(text: str, source: Path | str) -> None:
    """Refuse aliases, by which a small file can stand for a huge one, and what is nested too deeply to be built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent):
            raise TopologyError("", "an alias (*name) is used", line=line, source=source, remedy="write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise TopologyError("", "it is nested too deeply", line=line, source=source)


def _check_keys(root: yaml.Node, source: Path | str) -> None:
    """Refuse keys that appear twice, of which PyYAML would keep the last, keys that are no text, and merge keys (<<)."""
    found: list[TopologyProblem] = []
    waiting: list[tuple[yaml.Node, Location]] = [(root, ())]
    while waiting:
        node, location = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting.extend((child, (*location, index)) for index, child in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(_entries(node, location, found))
    if found:
        raise TopologyError.of(sorted(found, key=lambda problem: problem.line or 0), source)


def _entries(
    node: yaml.MappingNode, location: Location, found: list[TopologyProblem]
) -> list[tuple[yaml.Node, Location]]:
    entries: dict[str, tuple[yaml.Node, Location]] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            found.append(
                TopologyProblem(format_key(location), "a key is not a text", "write a word before the colon", line=line)
            )
            continue
        name = str(key.value)
        place = format_key((*location, name))
        if key.tag == _MERGE:
            found.append(TopologyProblem(place, "a merge key (<<) is used", "write the keys out", line=line))
        elif name in entries:
            text = f"the key appears twice, in line {lines[name]} and in line {line}"
            found.append(TopologyProblem(place, text, "keep one of them", line=line))
        else:
            entries[name], lines[name] = (value, (*location, name)), line
    return list(entries.values())


def _problem_of(problem: ErrorDetails) -> TopologyProblem:
    """Turn one problem of a pydantic error into ours."""
    location: Location = tuple(part for part in problem["loc"] if part != "[key]")
    context = problem.get("ctx", {})
    kind, given = problem["type"], problem["input"]
    allowed: Sequence[str] = ()
    remedy = ""
    if kind == "extra_forbidden":
        text, allowed = "there is no such key", _fields_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), allowed, 1)
        remedy = f"write {near[0]}" if near else "leave it out"
    elif kind == "missing":
        text, remedy = "the key is missing", "add it"
    elif kind == "string_pattern_mismatch":
        text, remedy = f"{_shown(given)} is not written as it must be", f"follow the pattern {context['pattern']}"
    elif kind == "literal_error":
        text, remedy = f"{_shown(given)} is not one of the allowed values", "use one of them"
        allowed = [part.strip(" '") for part in str(context["expected"]).replace(" or ", ",").split(",")]
    else:
        message = problem["msg"]
        text = f"{_shown(given)} does not fit: {message[:1].lower()}{message[1:]}"
        allowed = _range_at(location)
        if kind == "string_type" and isinstance(given, bool | int | float | date):
            remedy = "put it in quotation marks: YAML takes it for something else than text"
    return TopologyProblem(format_key(location), text, remedy, tuple(allowed))


def _shown(value: object) -> str:
    """A scalar, cut to 60 characters; only the type of anything larger."""
    if isinstance(value, str | int | float | bool) or value is None:
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"a {type(value).__name__}"


def _fields_at(location: Location) -> list[str]:
    """Return the keys that the model at this place has."""
    field = _field_at(location)
    current = _model_in(field.annotation) if field else Topology
    return sorted(current.model_fields) if current else []


def _range_at(location: Location) -> list[str]:
    """Return the limits of the number at this place, as one text, if it has any."""
    field = _field_at(location)
    limits = (
        [getattr(rule, name) for rule in field.metadata for name in ("ge", "le") if hasattr(rule, name)]
        if field
        else []
    )
    return [f"{limits[0]} to {limits[1]}"] if len(limits) == 2 else []


def _field_at(location: Location) -> FieldInfo | None:
    current: Any = Topology
    found: FieldInfo | None = None
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            found = current.model_fields.get(part)
            current = _model_in(found.annotation) if found else None
    return found


def _model_in(annotation: Any) -> Any:
    """Return the model that an annotation such as `tuple[Model, ...]` or `Model | None` holds, or None."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    if get_origin(annotation) in (tuple, Union, UnionType, Annotated):
        return next((found for found in map(_model_in, get_args(annotation)) if found is not None), None)
    return None


def format_key(location: Location) -> str:
    """Write a place in the document as `channels[1].members[0]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _parse_key(key: str) -> Location:
    """The inverse of `format_key`, but that a key with dots of its own comes out in pieces, which `_line` joins."""
    location: list[str | int] = []
    for step in re.split(r"\.|(?=\[\d+\])", key):
        if re.fullmatch(r"\[\d+\]", step):
            location.append(int(step[1:-1]))
        elif step:
            location.append(step)
    return tuple(location)


def _line(root: yaml.Node, location: Location) -> int:
    """Return the line (from 1) of a place, or of the nearest part above it that the document has."""
    node, line = root, root.start_mark.line + 1
    waiting = list(location)
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, int) and isinstance(node, yaml.SequenceNode) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        elif isinstance(part, str) and isinstance(node, yaml.MappingNode):
            entries = {str(key.value): (key, value) for key, value in node.value}
            # Names of services have dots, and are keys in `ports.fixed`.
            while part not in entries and waiting and isinstance(waiting[0], str):
                part = f"{part}.{waiting.pop(0)}"
            if part not in entries:
                break
            key, node = entries[part]
            line = key.start_mark.line + 1
        else:
            break
    return line
