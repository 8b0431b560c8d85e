"""Rich queries on the embedded ledger's engine: stored cases that CouchDB 3.4.3 answered so, and laws that hold for all.

The stored cases were found by `test_against_couchdb.py`; their sources are CouchDB's src/mango/src/*.erl.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from richqueries import Generator

from sovchain.ledger.couchdb import CouchState, FindError, FindRefused, QueryScanner, check_key_value, package_indexes
from sovchain.ledger.couchdb.collation import compare
from sovchain.ledger.couchdb.document import Document, json_object, read_query, written
from sovchain.ledger.couchdb.find import Request, find
from sovchain.ledger.couchdb.selector import Matcher, normalize
from sovchain.ledger.errors import SimulationError
from sovchain.protocol.packages import INDEX_FOLDER
from sovchain.protocol.rwset import Version

ONE = Version(1, 0)
CARS = {
    "car1": {"owner": "ann", "doors": 3},
    "car2": {"owner": "bob", "doors": 5},
    "car3": {"owner": "Ann", "doors": 4},
}
BY_DOORS = {
    f"{INDEX_FOLDER}/indexes/doors.json": b'{"index":{"fields":["doors"]},"ddoc":"d","name":"doors","type":"json"}'
}


def rows(documents: dict[str, Any]) -> list[tuple[str, bytes, Version]]:
    return [(key, json.dumps(documents[key]).encode(), ONE) for key in sorted(documents)]


def keys(query: dict[str, Any], files: dict[str, bytes] | None = None, **options: Any) -> list[str]:
    indexes, _ = package_indexes(files or {})
    settings_ = options.pop("settings", CouchState())
    scanner = QueryScanner(lambda: rows(CARS), indexes.get("", ()), json.dumps(query), settings=settings_, **options)
    return [key for key, _, _ in scanner]


def matches(selector: dict[str, Any], document: dict[str, Any]) -> bool:
    return Matcher(normalize(selector)).matches(document)


@pytest.mark.parametrize(
    ("selector", "document", "expected"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, True),
        ({"a.b": {"$gt": 0, "$lt": 2}}, {"a": {"b": 1}}, True),
        ({"a": {"$ne": 1}}, {}, False),  # a field that is not there meets no condition but $exists: false
        ({"a": {"$exists": False}}, {}, True),
        ({"$not": {"a": {"$exists": True}}}, {}, True),
        ({"$or": []}, {"a": 1}, True),
        ({"a": {"$in": [1, "x"]}}, {"a": [0, "x"]}, True),
        ({"a": {"$nin": []}}, {"a": 1}, True),
        ({"a": {"$all": []}}, {"a": [1]}, False),
        ({"a": {"$all": [[1, 2]]}}, {"a": [1, 2]}, True),
        ({"a": {"$elemMatch": {"$gte": 80, "$lt": 85}}}, {"a": [70, 82]}, True),
        ({"a": {"$elemMatch": {"$nor": [{"x": 1}]}}}, {"a": [{"x": 2}]}, False),  # CouchDB does not know it there
        ({"a": {"$allMatch": {"$gt": 0}}}, {"a": []}, False),
        ({"a": {"$keyMapMatch": {"$eq": "k"}}}, {"a": {"k": 1}}, True),
        ({"a": {"$mod": [3, -1]}}, {"a": -4}, True),
        ({"a": {"$regex": "^.{2}$"}}, {"a": "é"}, True),  # bytes, not characters
        ({"a": {"$regex": "^\\w+$"}}, {"a": "é"}, False),
        ({"a": {"$size": 2}}, {"a": [1, 2]}, True),
        ({"a": {"$type": "null"}}, {"a": None}, True),
        ({"a": "ab"}, {"a": "a\u0001b"}, True),  # ICU leaves control characters out
        ({"a": {"$gt": "a"}}, {"a": "B"}, True),
        ({"a": {"$lt": {}}}, {"a": ["x"]}, True),  # null, booleans, numbers, strings, arrays, objects
        ({"c.1": 5}, {"c": [4, 5]}, True),
        ({r"a\.b": 1}, {"a.b": 1}, True),
    ],
)
def test_a_selector_matches_as_in_couchdb(selector: dict[str, Any], document: dict[str, Any], expected: bool) -> None:
    assert matches(selector, document) is expected


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, "Error:missing_required_key,  Status Code:400,  Reason:Missing required key: selector"),
        ({"selector": {"a": {"$bad": 1}}}, "Error:invalid_operator,  Status Code:400,  Reason:Invalid operator: $bad"),
        ({"selector": {"a": {"$in": 5}}}, "Error:bad_arg,  Status Code:400,  Reason:Bad argument for operator $in: 5"),
        ({"selector": {"$eq": 1}}, "One or more conditions is missing a field name."),
        ({"selector": {"a": 1}, "sort": ["a"]}, "Error:no_usable_index,  Status Code:400,  Reason:No index exists for this sort"),
        ({"selector": {}, "sort": [{"a": "asc"}, {"b": "desc"}]}, "Error:unsupported_mixed_sort"),
        ({"selector": {}, "what": 1}, "Invalid key what for this request."),
        ({"selector": {}, "bookmark": "?"}, 'Error:invalid_bookmark,  Status Code:400,  Reason:Invalid bookmark value: "?"'),
        ({"selector": {}, "fields": "a"}, "fields definition must be an array"),
        ({"selector": {"a": 1}, "use_index": "no", "allow_fallback": False}, "_design/no specified by `use_index` could not"),
    ],
)  # fmt: skip
def test_a_wrong_query_is_refused_in_a_peers_words(query: dict[str, Any], text: str) -> None:
    with pytest.raises(SimulationError) as caught:
        keys(query)
    assert text in str(caught.value)


def test_a_sort_needs_an_index_and_has_its_order() -> None:
    query = {"selector": {"doors": {"$gt": 0}}, "sort": [{"doors": "desc"}]}
    assert keys(query, BY_DOORS) == ["car2", "car3", "car1"]
    with pytest.raises(FindError, match="no_usable_index"):
        keys(query)


def test_a_wrong_index_definition_is_left_out_and_named() -> None:
    found, wrong = package_indexes({**BY_DOORS, f"{INDEX_FOLDER}/indexes/no.json": b'{"index":{}}'})
    assert [index.name for index in found[""]] == ["doors"]
    assert wrong == [(f"{INDEX_FOLDER}/indexes/no.json", "Missing required key: fields")]


def test_pages_follow_each_other_by_bookmark() -> None:
    first = QueryScanner(lambda: rows(CARS), (), '{"selector":{}}', settings=CouchState(), page_size=2)
    assert [key for key, _, _ in first] == ["car1", "car2"]
    assert keys({"selector": {}}, page_size=2, bookmark=first.bookmark) == ["car3"]


def test_a_query_goes_on_beyond_the_internal_limit() -> None:
    assert keys({"selector": {}}, settings=CouchState(internal_query_limit=1)) == ["car1", "car2", "car3"]


def test_values_come_back_as_go_and_couchdb_write_them() -> None:
    found = json_object(b'{"b": 1.0, "a": "<x>", "n": 12345678901234567890, "e": 1e21, "s": 0.5}')
    assert found is not None
    assert written(found) == b'{"a":"\\u003cx\\u003e","b":1,"e":1e+21,"n":12345678901234567000,"s":0.5}'


def test_a_value_that_is_no_object_is_found_by_its_key_only() -> None:
    scanner = QueryScanner(
        lambda: [("k", b"\x00raw", ONE)], (), '{"selector":{"_id":{"$gt":null}}}', settings=CouchState()
    )
    assert [(key, value) for key, value, _ in scanner] == [("k", b"\x00raw")]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("_k", b"v", 'invalid key [_k], cannot begin with "_"'),
        ("", b"v", "Empty string is not supported as a key by couchdb"),
        ("k", b'{"_a":1}', "field [_a] is not valid for the CouchDB state database"),
        ("k", b'{"~version":1}', "field [~version] is not valid for the CouchDB state database"),
    ],
)
def test_what_couchdb_cannot_hold_is_refused(key: str, value: bytes, text: str) -> None:
    with pytest.raises(SimulationError) as caught:
        check_key_value(key, value)
    assert text in str(caught.value)


def test_a_pattern_that_would_not_end_is_given_up() -> None:
    with pytest.raises(FindRefused, match="regular expressions took more than 1 s"):
        matches({"a": {"$regex": "^(a|aa)+$"}}, {"a": "a" * 60 + "!"})


def test_a_query_is_bounded_in_depth_and_length() -> None:
    with pytest.raises(FindRefused, match="nests deeper"):
        read_query('{"selector":' + '{"$not":' * 500 + "{}" + "}" * 501)
    with pytest.raises(FindRefused, match="bytes, at most"):
        read_query(json.dumps({"selector": {"a": "x" * 2**20}}))
    with pytest.raises(FindRefused, match="conditions and values"):
        normalize({"a": {"$in": list(range(20_000))}})


@given(st.integers(0, 10**9))
@settings(max_examples=100, deadline=None)
def test_pages_joined_are_the_whole_and_each_match_is_in_it(seed: int) -> None:
    """Whatever the selector: pages join to the answer, and without an index it is what matches, in the order of keys."""
    generator = Generator(seed)
    documents = [Document.of(*row) for row in rows(generator.documents(12))]
    query = {"selector": generator.selector()}
    try:
        whole, _ = find(documents, (), Request.read(read_query(json.dumps({**query, "limit": 1000}))))
        matcher = Matcher(normalize(read_query(json.dumps(query))["selector"]))
        expected = [document.key for document in documents if matcher.matches(document.fields)]
    except FindError as error:
        assert error.reason
        return
    found = [document.key for document, _ in whole]
    assert found == expected or found == []  # bounds that exclude each other, an empty list of alternatives
    pages: list[str] = []
    bookmark = ""
    for _ in range(20):
        request = Request.read(read_query(json.dumps({**query, "limit": 5, "bookmark": bookmark})))
        page, bookmark = find(documents, (), request)
        pages += [document.key for document, _ in page]
        if len(page) < 5:
            break
    assert pages == found


@given(st.integers(0, 10**9))
def test_the_collation_is_an_order(seed: int) -> None:
    generator = Generator(seed)
    one, two, three = (generator.value() for _ in range(3))
    assert compare(one, two) == -compare(two, one)
    assert compare(one, one) == 0
    if compare(one, two) <= 0 and compare(two, three) <= 0:
        assert compare(one, three) <= 0


@given(st.text(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["selector", "$and", "$not", "a", "sort", "limit"]), inner)).map(json.dumps))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_text_as_a_query_is_answered_or_refused(text: str) -> None:
    try:
        QueryScanner(lambda: rows(CARS), (), text, settings=CouchState())
    except SimulationError as error:
        assert "\n" not in str(error)
