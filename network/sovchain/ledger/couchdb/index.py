"""Index definitions, and which index serves a query: that decides the order of its results.

Mirrors src/mango/src/mango_idx.erl, mango_idx_view.erl and mango_cursor_view.erl of CouchDB. Nothing is kept sorted:
an index here is a rule by which the documents of one query are chosen and ordered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sovchain.ledger.couchdb import selector as selectors
from sovchain.ledger.couchdb.document import Document, json_object
from sovchain.ledger.couchdb.errors import FindError, term
from sovchain.protocol.packages import INDEX_FOLDER

Sort = tuple[tuple[str, ...], bool]
"""Fields to sort by, and whether from high to low."""


@dataclass(frozen=True)
class Index:
    """One JSON index.

    Attributes:
        ddoc: its design document, with `_design/` in front.
        name: its name in the design document.
        columns: the fields that it sorts by.
        partial: the normal form of its `partial_filter_selector`; {} for an index of all documents.
    """

    ddoc: str
    name: str
    columns: tuple[str, ...]
    partial: Mapping[str, Any] = field(default_factory=dict)
    _paths: tuple[list[str], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Raises FindError for a column that is no field name."""
        object.__setattr__(self, "_paths", tuple(map(selectors.split_field, self.columns)))

    def values(self, document: Document) -> list[Any] | None:
        """Return the document's entry in the index, None if it has none."""
        found = [selectors.field_of(document.fields, path) for path in self._paths]
        if not all(map(selectors.present, found)):
            return None
        if self.partial and not selectors.Matcher(dict(self.partial)).matches(document.fields):
            return None
        return found

    def serves(self, selector: selectors.Node, sort: Sequence[str]) -> bool:
        """Whether it has all documents that the selector can match, in the order that the sort wants."""
        needed = frozenset(self.columns) - frozenset(sort) - {"_id", "_rev"}
        return not selectors.missing_fields(selector, needed) and self._sorts(selector, sort)

    def _sorts(self, selector: selectors.Node, sort: Sequence[str]) -> bool:
        columns = list(self.columns)
        while sort and columns and columns[0] != sort[0]:
            if not selectors.is_constant(selector, columns.pop(0)):
                return False
        return columns[: len(sort)] == list(sort)


def read_index(content: bytes) -> Index:
    """Read the body of a request for an index, as it lies in a chaincode's package. Raises FindError."""
    body = json_object(content)
    if body is None:
        raise FindError("bad_request", "invalid UTF-8 JSON")
    definition = body.get("index")
    kind = body.get("type", "json")
    if not isinstance(definition, dict):
        raise FindError("invalid_index", "Index is missing its definition.")
    if kind != "json":
        raise FindError("invalid_index", f"Invalid type for index: {kind}")
    unknown = sorted(set(definition) - {"fields", "partial_filter_selector"})
    if unknown:
        raise FindError("invalid_key", f"Invalid key {unknown[0]} for this request.")
    if "fields" not in definition:
        raise FindError("missing_required_key", "Missing required key: fields")
    columns, _ = read_sort(definition["fields"])
    partial = definition.get("partial_filter_selector", {})
    if not isinstance(partial, dict):
        raise FindError("invalid_selector_json", f"Selector must be a JSON object, not: {term(partial)}")
    generated = hashlib.sha1(json.dumps(body, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
    ddoc, name = body.get("ddoc", generated), body.get("name", generated)
    if not isinstance(ddoc, str) or not isinstance(name, str) or not ddoc or not name:
        raise FindError("invalid_empty_string", "Index name or ddoc cannot be empty string")
    return Index(f"_design/{ddoc.removeprefix('_design/')}", name, columns, selectors.normalize(partial))


def package_indexes(files: Mapping[str, bytes]) -> tuple[dict[str, tuple[Index, ...]], list[tuple[str, str]]]:
    """Return the indexes in a package's `META-INF/statedb/couchdb`, and what is wrong with those that cannot be used.

    The indexes are by collection ("" for public state), in the order of their files' names, the later of one name wins,
    as a peer makes them (statecouchdb.go ProcessIndexesForChaincodeDeploy). A wrong one is left out, as there.
    """
    found: dict[str, dict[tuple[str, str], Index]] = {}
    wrong = []
    for path, content in sorted(files.items()):
        inner = path.removeprefix(f"{INDEX_FOLDER}/").split("/")
        collection = inner[1] if inner[0] == "collections" else ""
        try:
            index = read_index(content)
        except FindError as error:
            wrong.append((path, error.reason))
        else:
            found.setdefault(collection, {})[index.ddoc, index.name] = index
    return {collection: tuple(indexes.values()) for collection, indexes in found.items()}, wrong


def read_sort(value: Any) -> Sort:
    """Read a list of fields with directions. Raises FindError."""
    if not isinstance(value, list):
        raise FindError("invalid_sort_json", f"Sort must be an array of sort specs, not: {term(value, readable=True)}")
    columns, directions = [], set()
    for entry in value:
        pairs = [(entry, "asc")] if isinstance(entry, str) else list(entry.items()) if isinstance(entry, dict) else []
        if len(pairs) != 1 or not pairs[0][0] or pairs[0][1] not in ("asc", "desc"):
            raise FindError("invalid_sort_field", f"Invalid sort field: {term(entry, readable=True)}")
        columns.append(pairs[0][0])
        directions.add(pairs[0][1])
    if len(directions) > 1:
        raise FindError("unsupported_mixed_sort", "Sorts currently only support a single direction for all fields.")
    return tuple(columns), directions == {"desc"}


def choose(
    indexes: Sequence[Index], selector: selectors.Node, sort: Sequence[str], wanted: Sequence[str], *, fallback: bool
) -> Index | None:
    """Return the index for a query, None for the order of the keys.

    `wanted` is what `use_index` names: a design document, and the name of an index in it. Raises FindError when the
    sort needs an index that is not there.
    """
    named = [index for index in indexes if _is_named(index, wanted)]
    candidates = [index for index in indexes if not index.partial or index in named]
    if candidates:
        selectors.check_text_search(selector)
    usable = [index for index in candidates if index.serves(selector, sort)]
    ranges = selectors.ranges(selector)
    by_key = not sort or ("_id" in ranges and list(sort) == ["_id"])
    if not usable and not by_key:
        raise FindError("no_usable_index", "No index exists for this sort, try indexing by the sort fields.")
    chosen = [index for index in usable if index in named]
    if not chosen and wanted and not fallback:
        place = ", ".join(("_design/" + wanted[0].removeprefix("_design/"), *wanted[1:]))
        raise FindError("invalid_index", f"{place} specified by `use_index` could not be found or it is not suitable.")
    if not wanted and not fallback and len(usable) + by_key <= 1:
        raise FindError("invalid_index", "You must specify an index with the `use_index` parameter.")

    def rank(index: Index) -> tuple[int, int, str, str]:
        prefix = 0
        while prefix < len(index.columns) and index.columns[prefix] in ranges:
            prefix += 1
        return len(ranges) - prefix, len(index.columns), index.ddoc, index.name

    return min(chosen or usable, key=rank, default=None)


def _is_named(index: Index, wanted: Sequence[str]) -> bool:
    if not wanted:
        return False
    return index.ddoc == f"_design/{wanted[0].removeprefix('_design/')}" and wanted[1:] in ((), (index.name,))
