"""One `_find` request on the documents of one database: which come, in which order, and where the next page begins.

Mirrors src/mango/src/mango_cursor_view.erl and mango_opts.erl of CouchDB 3.4.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sovchain.ledger.couchdb import index as indexing
from sovchain.ledger.couchdb import selector as selectors
from sovchain.ledger.couchdb.collation import list_key
from sovchain.ledger.couchdb.document import Document
from sovchain.ledger.couchdb.errors import FindError, term

NO_BOOKMARK: Final = "nil"
"""What CouchDB gives as bookmark when nothing was found and none was given."""
_MAX_BOOKMARK: Final = 1024 * 1024
_EMPTY: Final = frozenset({"$all", "$and", "$or", "$in"})
_IGNORED: Final = frozenset({"partition", "r", "conflicts", "stale", "update", "stable", "execution_stats"})
_KNOWN: Final = frozenset({"selector", "use_index", "bookmark", "limit", "skip", "sort", "fields", "allow_fallback"})


@dataclass(frozen=True)
class Request:
    """One checked request; see CouchDB's `POST /{db}/_find`.

    Attributes:
        selector: in normal form.
        fields: what to return of each document; empty for all.
        sort: fields and direction.
        use_index: design document and name; empty for any.
        fallback: whether another index may serve when that one cannot.
    """

    selector: selectors.Node
    fields: tuple[str, ...]
    sort: indexing.Sort
    use_index: tuple[str, ...]
    fallback: bool
    limit: int
    skip: int
    bookmark: str

    @classmethod
    def read(cls, query: Mapping[str, Any]) -> Request:
        """Check a query. Raises FindError."""
        if "selector" not in query:
            raise FindError("missing_required_key", "Missing required key: selector")
        if not isinstance(query["selector"], dict):
            raise FindError("invalid_selector_json", f"Selector must be a JSON object, not: {term(query['selector'])}")
        request = cls(
            selector=selectors.normalize(query["selector"]),
            use_index=_use_index(query.get("use_index")),
            bookmark=_bookmark(query.get("bookmark")),
            limit=_count(query.get("limit", 25)),
            skip=_count(query.get("skip", 0)),
            sort=indexing.read_sort(query.get("sort", [])),
            fields=_fields(query.get("fields", [])),
            fallback=query.get("allow_fallback", True),
        )
        unknown = [name for name in query if name not in _KNOWN | _IGNORED]
        if unknown:
            raise FindError("invalid_key", f"Invalid key {unknown[0]} for this request.")
        if not isinstance(request.fallback, bool):
            raise FindError("invalid_boolean", f"Invalid boolean value: {term(request.fallback)}")
        return request


def _use_index(value: Any) -> tuple[str, ...]:
    parts = [] if value is None else value
    if isinstance(value, str):
        parts = value.split("/")
        if parts[0] == "_design" and len(parts) > 1:
            parts = parts[1:]
    if not isinstance(parts, list) or len(parts) > 2 or not all(isinstance(part, str) for part in parts):
        raise FindError("invalid_index_name", f"Invalid index name: {term(value)}")
    return tuple(parts)


def _bookmark(value: Any) -> str:
    if value is None or value == "":
        return NO_BOOKMARK
    if not isinstance(value, str):
        raise FindError("unknown_error", f"Unknown Error: mango_opts :: {{invalid_bookmark,{term(value)}}}", 500)
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FindError("invalid_non_neg_integer", f"{term(value)} is not an integer greater than or equal to zero")
    return value


def _fields(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise FindError("invalid_fields", f"Fields must be an array of strings, not: {term(value)}")
    for field in value:
        if not isinstance(field, str):
            raise FindError("invalid_field", f"Invalid JSON for field spec: {term(field)}")
    return tuple(value)


def find(
    documents: Iterable[Document], indexes: Sequence[indexing.Index], request: Request
) -> tuple[list[tuple[Document, dict[str, Any]]], str]:
    """Return the documents of one page with the fields asked for, and the bookmark of the next page.

    `documents` come in the order of their keys. Raises FindError, FindRefused.
    """
    columns, descending = request.sort
    chosen = indexing.choose(indexes, request.selector, columns, request.use_index, fallback=request.fallback)
    after = read_bookmark(request.bookmark) if request.bookmark != NO_BOOKMARK else None
    if request.limit == 0 or _is_void(request.selector):
        return [], request.bookmark
    found: list[tuple[Document, dict[str, Any]]] = []
    bookmark, skipped = request.bookmark, 0
    paths = [selectors.split_field(field) for field in request.fields]
    matcher = selectors.Matcher(request.selector)
    for document, values in _ordered(documents, chosen, after, descending=descending):
        if not matcher.matches(document.fields):
            continue
        bookmark = _written_bookmark(values, document.key)
        if skipped < request.skip:
            skipped += 1
            continue
        found.append((document, _extracted(document.fields, paths) if request.fields else document.fields))
        if len(found) == request.limit:
            break
    return found, bookmark


def _is_void(selector: selectors.Node) -> bool:
    """Whether CouchDB does not even look: an empty list of alternatives alone, or bounds that exclude each other."""
    if len(selector) == 1 and next(iter(selector)) in _EMPTY and next(iter(selector.values())) == []:
        return True
    return not all(selectors.ranges(selector).values()) if selector else False


def _ordered(
    documents: Iterable[Document],
    chosen: indexing.Index | None,
    after: tuple[Any, str] | None,
    *,
    descending: bool,
) -> Iterator[tuple[Document, Any]]:
    """The documents behind a bookmark, in the order of an index (of the keys without one), with their entries in it."""
    if chosen is None:
        ordered = sorted(documents, key=lambda document: document.key, reverse=True) if descending else documents
        for document in ordered:
            if after is None or (document.key < after[1] if descending else document.key > after[1]):
                yield document, document.key
        return
    entries = []
    for document in documents:
        values = chosen.values(document)
        if values is not None:
            entries.append(((list_key(values), document.key), document, values))
    entries.sort(key=lambda entry: entry[0], reverse=descending)
    last = None
    if after is not None:
        last = (list_key(after[0] if isinstance(after[0], list) else [after[0]]), after[1])
    for place, document, values in entries:
        if last is None or (place < last if descending else place > last):
            yield document, values


def _extracted(fields: dict[str, Any], paths: list[list[str]]) -> dict[str, Any]:
    extracted: dict[str, Any] = {}
    for path in paths:
        value = selectors.field_of(fields, path)
        if selectors.present(value):
            extracted = _set(extracted, path, value)
    return extracted


def _set(target: Any, path: list[str], value: Any) -> Any:
    """Return `target` with a value at a path (mango_doc.erl set_field), which counts the elements of an array from 1."""
    if not path:
        return value
    if isinstance(target, dict):
        inner = target[path[0]] if path[0] in target else {} if len(path) > 1 else None
        return {**target, path[0]: _set(inner, path[1:], value)}
    if not isinstance(target, list):
        return target
    position = selectors.position_in(target, path[0])
    if position is None:
        return target
    if position == 0:
        raise FindError("unknown_error", "function_clause", 500)
    changed = list(target)
    changed[position - 1] = _set(target[position], path[1:], value)
    return changed


def _written_bookmark(values: Any, key: str) -> str:
    text = json.dumps({"startkey": values, "startkey_docid": key}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_bookmark(text: str) -> tuple[Any, str]:
    """Return the entry and the key behind which a page begins. Raises FindError."""
    try:
        if len(text) > _MAX_BOOKMARK:
            raise ValueError
        content = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        start, key = content["startkey"], content["startkey_docid"]
        if not isinstance(key, str):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise FindError("invalid_bookmark", f"Invalid bookmark value: {json.dumps(text)}") from None
    return start, key
