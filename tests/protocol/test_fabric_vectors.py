"""The bytes that Fabric v3.1.5 itself made for these inputs (fabric_vectors.json) are the bytes that we make."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import collection_pb2
from protocol_world import MemoryState

from sovchain.protocol import lifecycle
from sovchain.protocol.blocks import header_bytes, header_hash
from sovchain.protocol.commithash import commit_hash, update_bytes
from sovchain.protocol.mvcc import MvccValidator
from sovchain.protocol.rwset import RangeQuery, RangeResults, RwSetBuilder, Version, parse_rwset

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "fabric_vectors.json").read_text())


def unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def version(pair: list[int] | None) -> Version | None:
    return None if pair is None else Version(*pair)


def metadata(entries: dict[str, str] | None) -> dict[str, bytes] | None:
    return None if entries is None else {name: bytes.fromhex(value) for name, value in entries.items()}


@pytest.mark.parametrize("case", VECTORS["headers"])
def test_block_header(case: dict[str, Any]) -> None:
    header = common_pb2.BlockHeader(
        number=case["number"], previous_hash=unhex(case["previous"]), data_hash=unhex(case["data"])
    )
    assert header_bytes(header).hex() == case["der"]
    assert header_hash(header).hex() == case["hash"]


@pytest.mark.parametrize(("block", "tx", "encoded"), VECTORS["versions"])
def test_version(block: int, tx: int, encoded: str) -> None:
    assert Version(block, tx).to_bytes().hex() == encoded
    assert Version.from_bytes(bytes.fromhex(encoded)) == (block, tx)


def run(builder: RwSetBuilder, operation: list[Any]) -> None:
    kind, namespace, *rest = operation
    match kind:
        case "read":
            builder.add_read(namespace, rest[0], version(rest[1]))
        case "write":
            builder.add_write(namespace, rest[0], unhex(rest[1]))
        case "meta":
            builder.add_metadata_write(namespace, rest[0], metadata(rest[1]))
        case "range":
            start, end, exhausted, found, degree = rest
            results = RangeResults(degree)
            for key, place in found:
                results.add(key, Version(*place))
            builder.add_range_query(namespace, RangeQuery(start, end, exhausted, *results.done()))
        case "hread":
            builder.add_hashed_read(namespace, rest[0], rest[1], version(rest[2]))
        case "pwrite":
            builder.add_private_write(namespace, rest[0], rest[1], unhex(rest[2]))
        case "purge":
            builder.add_private_purge(namespace, rest[0], rest[1])
        case "pmeta":
            builder.add_private_metadata_write(namespace, rest[0], rest[1], metadata(rest[2]))
        case _:
            raise AssertionError(kind)


@pytest.mark.parametrize("case", VECTORS["rwsets"])
def test_read_write_set(case: dict[str, Any]) -> None:
    builder = RwSetBuilder()
    for operation in case["ops"]:
        run(builder, operation)
    public, private = builder.results()
    assert public.hex() == case["public"]
    assert (None if private is None else private.SerializeToString().hex()) == case.get("private")


@pytest.mark.parametrize(("count", "digest"), VECTORS["merkle"])
def test_merkle_summary_of_a_long_scan(count: int, digest: str) -> None:
    results = RangeResults()
    for position in range(count):
        results.add(f"k{position:06d}", Version(position % 7, position % 3))
    builder = RwSetBuilder()
    builder.add_range_query("cc", RangeQuery("", "", True, *results.done()))
    assert sha256(builder.results()[0]).hexdigest() == digest


def memory_state(dump: dict[str, Any]) -> MemoryState:
    state = MemoryState()
    for namespace, key, value, entries, place in dump["public"]:
        state.public[namespace, key] = (bytes.fromhex(value), metadata(entries) or {}, Version(*place))
    for namespace, collection, key_hash, value, entries, place in dump["hashed"]:
        place_of_key = (namespace, collection, bytes.fromhex(key_hash))
        state.hashed[place_of_key] = (bytes.fromhex(value), metadata(entries) or {}, Version(*place))
    return state


@pytest.mark.parametrize("case", VECTORS["blocks"])
def test_conflicts_updates_and_commit_hash(case: dict[str, Any]) -> None:
    rwsets = [parse_rwset(bytes.fromhex(encoded)) for encoded in case["rwsets"]]
    mvcc = MvccValidator(memory_state(case["state"]), 5, [str(position) for position in range(len(rwsets))])
    conflicts = [mvcc.validate(position, rwset) for position, rwset in enumerate(rwsets)]
    codes = bytes(0 if conflict is None else conflict.code for conflict in conflicts)
    expected = case["expected"]
    updates = mvcc.updates
    assert codes.hex() == expected["codes"]
    assert update_bytes(updates).hex() == expected["updates"]
    assert commit_hash(codes, update_bytes(updates), bytes.fromhex(case["previous"])).hex() == expected["hash"]
    assert sorted(
        f"{namespace}|{collection}|{key_hash.hex()}|{place.block}:{place.tx}"
        for (namespace, collection, key_hash), place in updates.purges.items()
    ) == sorted(expected["purges"] or [])
    public = {f"{ns}|{key}": write.metadata for (ns, key), write in updates.public.items() if write.metadata}
    private = {f"{ns}|{c}|{key.hex()}": write.metadata for (ns, c, key), write in updates.hashed.items()}
    assert public | {place: entries for place, entries in private.items() if entries} == {
        place: metadata(entries) for place, entries in expected["metadata"].items()
    }


@pytest.mark.parametrize("case", VECTORS["lifecycle"])
def test_definitions_and_approvals(case: dict[str, Any]) -> None:
    public: dict[str, bytes] = {}
    private: dict[str, bytes] = {}
    for given, expected in zip(case["given"], case["expected"], strict=True):
        assert step(given, public, private) == expected


def step(given: dict[str, Any], public: dict[str, bytes], private: dict[str, bytes]) -> dict[str, Any]:
    definition = lifecycle.with_defaults(
        lifecycle.ChaincodeDefinition(
            name=given["name"],
            version=given["version"],
            sequence=given["sequence"],
            endorsement_policy=bytes.fromhex(given["policy"]),
            collections=collection_pb2.CollectionConfigPackage.FromString(bytes.fromhex(given["collections"])),
            init_required=given["init"],
        )
    )

    def private_hash(key: str) -> bytes | None:
        return sha256(private[key]).digest() if key in private else None

    outcome: dict[str, Any] = {"public": {}, "private": {}}
    try:
        match given["what"]:
            case "approve":
                lifecycle.check_approval(public.get, private.get, definition, given["package"])
                changes = lifecycle.approval_changes(private.get, definition, given["package"])
                outcome["private"] = apply(private, changes)
            case "ready":
                readiness = lifecycle.commit_readiness(public.get, {"X": private_hash}, definition)
                outcome |= {"approved": not readiness["X"], "mismatches": readiness["X"] or None}
            case "commit":
                outcome["public"] = apply(public, lifecycle.definition_changes(public.get, definition))
    except lifecycle.LifecycleError as refusal:
        outcome["error"] = str(refusal)
    return outcome


def apply(state: dict[str, bytes], changes: dict[str, bytes | None]) -> dict[str, str | None]:
    for key, value in changes.items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
    return {key: None if value is None else value.hex() for key, value in changes.items()}
