"""The peer's side of a rich query: how Fabric rewrites it, fetches it in pieces, and what it refuses to store.

Mirrors core/ledger/kvledger/txmgmt/statedb/statecouchdb/statecouchdb.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sovchain.ledger.couchdb.document import ATTACHMENTS, ID, VERSION, Document, json_object, read_query, written
from sovchain.ledger.couchdb.errors import FindRefused
from sovchain.ledger.couchdb.find import Request, find
from sovchain.ledger.couchdb.index import Index
from sovchain.ledger.errors import SimulationError
from sovchain.protocol.rwset import Version

INTERNAL_QUERY_LIMIT: Final = 1000
"""Results of one request to CouchDB; `ledger.state.couchDBConfig.internalQueryLimit` of core.yaml."""

Rows = Iterable[tuple[str, bytes, Version]]


@dataclass(frozen=True)
class CouchState:
    """How a peer with CouchDB keeps one channel's state.

    Attributes:
        indexes: gives the indexes of a chaincode's namespace and collection ("" for public state).
        internal_query_limit: see `INTERNAL_QUERY_LIMIT`.
    """

    indexes: Callable[[str, str], Sequence[Index]] = lambda _namespace, _collection: ()
    internal_query_limit: int = INTERNAL_QUERY_LIMIT


class QueryScanner:
    """The results of one rich query, fetched piece by piece as a peer does (statecouchdb.go queryScanner).

    The first piece is fetched at once, so that a refused query fails here. `page_size` 0 has no limit; `bookmark` is that
    of the page before. Raises SimulationError with the peer's text.
    """

    def __init__(
        self, rows: Callable[[], Rows], indexes: Sequence[Index], query: str, *, settings: CouchState,
        page_size: int = 0, bookmark: str = "",
    ) -> None:  # fmt: skip
        self._rows = rows
        self._indexes = indexes
        self._query = _rewritten(read_query(query))
        self._internal = settings.internal_query_limit
        self._page_size = page_size
        self._returned = 0
        self.bookmark = bookmark
        self._piece: list[tuple[str, bytes, Version]] = []
        self._next = 0
        self._fetch()

    def _fetch(self) -> None:
        limit = self._internal
        if self._page_size > 0:
            limit = min(limit, self._page_size - self._returned)
        query = {**self._query, "limit": limit}
        if self.bookmark:
            query["bookmark"] = self.bookmark
        documents = (Document.of(key, value, version) for key, value, version in self._rows() if key[:1] != "_")
        found, self.bookmark = find(documents, self._indexes, Request.read(query))
        self._piece = [(document.key, _value(document, fields), document.version) for document, fields in found]
        self._next = 0

    def __iter__(self) -> QueryScanner:
        return self

    def __next__(self) -> tuple[str, bytes, Version]:
        if self._next >= self._internal and self._piece:
            self._fetch()
        if self._next >= len(self._piece):
            raise StopIteration
        result = self._piece[self._next]
        self._next += 1
        self._returned += 1
        return result


def _rewritten(query: dict[str, Any]) -> Mapping[str, Any]:
    fields = query.get("fields", [])
    if not isinstance(fields, list):
        raise FindRefused("fields definition must be an array")
    return {**query, "fields": [*fields, ID, VERSION]} if "fields" in query else query


def _value(document: Document, fields: dict[str, Any]) -> bytes:
    # A peer fetches the attachment when the answer says that there is one.
    return document.value if document.binary and ATTACHMENTS in fields else written(fields)


def check_key(key: str) -> None:
    """Refuse a key that CouchDB cannot hold (couchdoc_conv.go validateKey). Raises SimulationError."""
    if key.startswith("_"):
        raise SimulationError(f'invalid key [{key}], cannot begin with "_"')
    if not key:
        raise SimulationError("invalid key. Empty string is not supported as a key by couchdb")


def check_key_value(key: str, value: bytes | None) -> None:
    """Refuse a write that CouchDB cannot hold (couchdoc_conv.go validateKey, validateValue). Raises SimulationError."""
    check_key(key)
    for name in (json_object(value) or {}) if value else ():
        if name == VERSION or name.startswith("_"):
            raise SimulationError(f"field [{name}] is not valid for the CouchDB state database")
