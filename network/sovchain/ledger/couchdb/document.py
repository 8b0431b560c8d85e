"""A key's value as the document that Fabric stores in CouchDB, and the value that comes back.

Mirrors core/ledger/kvledger/txmgmt/statedb/statecouchdb/couchdoc_conv.go. A JSON object becomes a document of its fields;
anything else an attachment, so that only queries on `_id` find it. Go and CouchDB write the JSON anew: fields in order, no
blanks, numbers as 64-bit floats.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NoReturn

import rfc8785

from sovchain.ledger.couchdb.errors import FindRefused
from sovchain.protocol.rwset import Version

ID: Final = "_id"
VERSION: Final = "~version"
ATTACHMENTS: Final = "_attachments"
MAX_DEPTH: Final = 200
"""Nesting of a query or a document; Go allows 10,000, CouchDB's own limits are lower."""
MAX_QUERY_BYTES: Final = 1024 * 1024
"""Length of one query."""

_OPENING = re.compile(rb'["\[{\]}]|\\.')
_ESCAPES: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_GO_EXPONENT_FROM: Final = 1e21
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """One key: `fields` is what CouchDB sees, `value` what the ledger holds, `binary` that the value is no JSON object."""

    key: str
    value: bytes = field(repr=False)
    version: Version
    fields: dict[str, Any] = field(repr=False)
    binary: bool

    @classmethod
    def of(cls, key: str, value: bytes, version: Version) -> Document:
        """Return the document of a key's committed value."""
        found = json_object(value)
        fields = {} if found is None else found
        if found is None:
            kind = {"content_type": "application/octet-stream", "length": len(value), "revpos": 1, "stub": True}
            fields[ATTACHMENTS] = {"valueBytes": kind}
        # CouchDB keeps the revisions of its clustered nodes there; only that the fields exist is promised.
        fields |= {ID: key, "_rev": "1-0", VERSION: f"{version.block}:{version.tx}"}
        return cls(key, value, version, fields, found is None)


def json_object(value: bytes) -> dict[str, Any] | None:
    """Return a JSON object as Go's `encoding/json` reads it into a map, fields in order; None for anything else."""
    if not value.lstrip(b" \t\r\n").startswith(b"{") or too_deep(value):
        return None
    try:
        found = json.loads(
            value.decode(errors="replace"), parse_int=_number, parse_float=_number, parse_constant=_refused
        )
    except ValueError:
        return None
    return _in_order(found) if isinstance(found, dict) else None


def too_deep(text: bytes) -> bool:
    """Whether JSON text nests deeper than `MAX_DEPTH`; seen before it is parsed."""
    depth, quoted = 0, False
    for match in _OPENING.finditer(text):
        mark = match[0]
        if mark == b'"':
            quoted = not quoted
        elif not quoted and mark in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif not quoted and mark in b"]}":
            depth -= 1
    return False


def _number(text: str) -> int | float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    # Go writes a float without point or exponent when it can, and CouchDB reads that as an integer.
    return int(Decimal(repr(number))) if number.is_integer() and abs(number) < _GO_EXPONENT_FROM else number


def _refused(constant: str) -> NoReturn:
    raise ValueError(constant)


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {_text(key): _in_order(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_in_order(entry) for entry in value]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)  # as Go reads half a surrogate pair


def read_query(text: str) -> dict[str, Any]:
    """Return a query as Fabric hands it on (statecouchdb.go applyAdditionalQueryOptions); numbers as they are written.

    Raises FindRefused.
    """
    content = text.encode(errors="surrogatepass")
    if len(content) > MAX_QUERY_BYTES:
        raise FindRefused(f"the query has {len(content)} bytes, at most {MAX_QUERY_BYTES} are allowed")
    if too_deep(content):
        raise FindRefused(f"the query nests deeper than {MAX_DEPTH} levels; make it simpler")
    try:
        # Go's decoder reads the first value and leaves what follows.
        query, _ = json.JSONDecoder(parse_float=_query_float, parse_constant=_refused).raw_decode(
            text.lstrip(" \t\r\n")
        )
    except ValueError as error:
        raise FindRefused(_go_text(text, error)) from None
    if not isinstance(query, dict):
        kind = {str: "string", bool: "bool", list: "array"}.get(type(query), "number")
        raise FindRefused(f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
    return _in_order(query)  # type: ignore[no-any-return]  # a dict stays one


def _query_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number


def _go_text(text: str, error: ValueError) -> str:
    rest = text.lstrip(" \t\r\n")
    if not rest:
        return "EOF"
    position = getattr(error, "pos", 0)
    if position >= len(rest):
        return "unexpected EOF"
    return f"invalid character {rest[position]!r} looking for beginning of value"


def written(fields: dict[str, Any]) -> bytes:
    """Return the value of a JSON document as a peer returns it: Go's marshalling of what CouchDB wrote."""
    return _marshal({name: entry for name, entry in fields.items() if name not in {ID, "_rev", VERSION}}).encode()


def _marshal(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quoted(key)}:{_marshal(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_marshal, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        return rfc8785.dumps(value).decode()  # CouchDB writes floats as ECMAScript does
    return json.dumps(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_ESCAPES)
