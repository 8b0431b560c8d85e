"""The engine against a real CouchDB: the same documents, indexes and queries, the same answers or refusals."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from couchdbserver import couchdb, couchdb_program
from richqueries import Generator

from sovchain.ledger.couchdb.document import Document, json_object, read_query
from sovchain.ledger.couchdb.errors import FindError
from sovchain.ledger.couchdb.find import Request, find
from sovchain.ledger.couchdb.index import package_indexes
from sovchain.network.ports import allocate
from sovchain.protocol.packages import INDEX_FOLDER
from sovchain.protocol.rwset import Version

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
WORLDS = int(os.environ.get("SOVCHAIN_COUCHDB_WORLDS", "60"))
QUERIES = 100


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a real server."""
    couchdb_program()
    port = allocate(["couchdb"], None, {})["couchdb"]
    with couchdb(tmp_path_factory.mktemp("couchdb"), port) as server, server.client() as client:
        yield client


class World:
    """The same documents and indexes in a database of CouchDB and in the engine."""

    def __init__(self, client: httpx.Client, name: str, generator: Generator) -> None:
        self._client = client
        self._url = f"/{name}"
        client.put(self._url).raise_for_status()
        values = {key: json.dumps(body).encode() for key, body in generator.documents(25).items()}
        self.documents = [Document.of(key, values[key], Version(1, 0)) for key in sorted(values)]
        bodies = [{**(json_object(values[key]) or {}), "_id": key, "~version": "1:0"} for key in sorted(values)]
        client.post(f"{self._url}/_bulk_docs", json={"docs": bodies}).raise_for_status()
        definitions = generator.indexes()
        for body in definitions:
            client.post(f"{self._url}/_index", json=body).raise_for_status()
        files = {f"{INDEX_FOLDER}/indexes/{n}.json": json.dumps(body).encode() for n, body in enumerate(definitions)}
        indexes, wrong = package_indexes(files)
        assert wrong == []
        self.indexes = indexes.get("", ())

    def close(self) -> None:
        """Remove the database."""
        self._client.delete(self._url).raise_for_status()

    def theirs(self, query: dict[str, Any]) -> tuple[Any, str]:
        """CouchDB's answer without revisions, and its bookmark."""
        answer = self._client.post(f"{self._url}/_find", json=read_query(json.dumps(query)))
        body = answer.json()
        if answer.is_error:
            return (answer.status_code, body["error"], body["reason"]), ""
        return [_seen(document) for document in body["docs"]], body.get("bookmark", "")

    def ours(self, query: dict[str, Any]) -> tuple[Any, str]:
        """The engine's answer in the same form."""
        try:
            found, bookmark = find(self.documents, self.indexes, Request.read(read_query(json.dumps(query))))
        except FindError as error:
            return (error.status, error.error, error.reason), ""
        return [_seen(fields) for _, fields in found], bookmark


def _seen(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "_rev"}


@pytest.mark.parametrize("seed", range(WORLDS))
def test_generated_queries_have_couchdbs_answers(client: httpx.Client, seed: int) -> None:
    """Documents and order, or status, error and reason, for each query and its next page."""
    generator = Generator(seed)
    world = World(client, f"w{seed}", generator)
    differences = []
    found = 0
    for _ in range(QUERIES):
        query = generator.query()
        theirs, their_bookmark = world.theirs(query)
        ours, our_bookmark = world.ours(query)
        found += isinstance(theirs, list) and bool(theirs)
        if theirs != ours:
            differences.append((query, theirs, ours))
            continue
        if isinstance(theirs, list) and len(theirs) == query["limit"]:
            second, _ = world.theirs({**query, "bookmark": their_bookmark})
            again, _ = world.ours({**query, "bookmark": our_bookmark})
            if second != again:
                differences.append(({**query, "bookmark": "of the first page"}, second, again))
    world.close()
    assert differences == []
    assert found > QUERIES // 10, "queries that find nothing compare nothing"
