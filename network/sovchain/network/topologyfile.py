"""Topologies in YAML: reading them, and saying where in the file a problem is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from sovchain.network.checks import check
from sovchain.network.errors import TopologyError
from sovchain.network.topology import Topology

MAX_BYTES: Final = 1024 * 1024
"""Limit of a topology file."""
MAX_DEPTH: Final = 16
"""Limit of nesting; a topology has five levels."""

Location = tuple[str | int, ...]


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
        raise _from_pydantic(error, root, source) from None
    try:
        check(topology)
    except TopologyError as error:
        location = _parse_key(error.key)
        raise TopologyError(
            error.key, error.problem, allowed=error.allowed, line=_line(root, location), source=source
        ) from None
    return topology


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
    """Refuse keys that appear twice, of which PyYAML would keep the last, and keys that are no text."""
    waiting: list[tuple[yaml.Node, Location]] = [(root, ())]
    while waiting:
        node, location = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting.extend((child, (*location, index)) for index, child in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(_entries(node, location, source))


def _entries(node: yaml.MappingNode, location: Location, source: Path | str) -> list[tuple[yaml.Node, Location]]:
    entries: dict[str, tuple[yaml.Node, Location]] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise TopologyError(format_key(location), "a key is not a text", line=line, source=source)
        name = str(key.value)
        if name in entries:
            place = format_key((*location, name))
            raise TopologyError(place, "the key appears twice", line=line, source=source, remedy="keep one of them")
        entries[name] = (value, (*location, name))
    return list(entries.values())


def _from_pydantic(error: ValidationError, root: yaml.Node, source: Path | str) -> TopologyError:
    """Turn the first problem of a pydantic error into a TopologyError."""
    problem = error.errors(include_url=False)[0]
    location: Location = tuple(part for part in problem["loc"] if part != "[key]")
    context = problem.get("ctx", {})
    kind = problem["type"]
    allowed: Sequence[str] = ()
    if kind == "extra_forbidden":
        text, allowed = "there is no such key", _fields_at(location[:-1])
    elif kind == "missing":
        text, allowed = "the key is missing", ()
    elif kind == "string_pattern_mismatch":
        text = f"{_shown(problem['input'])} is not written as the pattern {context['pattern']} asks"
    elif kind == "literal_error":
        text = f"{_shown(problem['input'])} is not one of the allowed values"
        allowed = [part.strip(" '") for part in str(context["expected"]).replace(" or ", ",").split(",")]
    else:
        message = problem["msg"]
        text = f"{_shown(problem['input'])} does not fit: {message[:1].lower()}{message[1:]}"
    remedy = "add it" if kind == "missing" else None
    return TopologyError(
        format_key(location), text, allowed=allowed, line=_line(root, location), source=source, remedy=remedy
    )


def _shown(value: object) -> str:
    """A scalar, cut to 60 characters; only the type of anything larger."""
    if isinstance(value, str | int | float | bool) or value is None:
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"a {type(value).__name__}"


def _fields_at(location: Location) -> list[str]:
    """Return the keys that the model at this place has."""
    current: Any = Topology
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            current = _model_in(current.model_fields[part].annotation)
    return sorted(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


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
    """The inverse of `format_key` for keys without dots and brackets of their own."""
    location: list[str | int] = []
    for step in key.replace("[", ".[").split("."):
        if step.startswith("["):
            location.append(int(step[1:-1]))
        elif step:
            location.append(step)
    return tuple(location)


def _line(root: yaml.Node, location: Location) -> int:
    """Return the line (from 1) of a place, or of the nearest part above it that the document has."""
    node, line = root, root.start_mark.line + 1
    for part in location:
        if isinstance(part, int) and isinstance(node, yaml.SequenceNode) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == part), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        else:
            break
    return line
