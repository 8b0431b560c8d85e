"""Files of a channel: format, atomic commits, key order, private data that follows the blocks."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from sovchain.ledger import private_store
from sovchain.ledger.database import FORMAT_VERSION, set_failpoint
from sovchain.ledger.errors import (
    ChannelExists,
    ChannelMissing,
    StorageCorrupt,
    StorageError,
    StorageVersionError,
    TransientRefused,
)
from sovchain.ledger.private_store import CollectionChange, Gap, PrivateBlock, PrivateStore, PrivateTransaction
from sovchain.ledger.state import CommittedState, Snapshot, ViewPool
from sovchain.ledger.storage import BlockRecord, ChainState, IndexEntry, LedgerStore, decode_metadata, encode_metadata
from sovchain.protocol.commit import HashedWrite, PublicWrite, UpdateBatch
from sovchain.protocol.crypto import sha256
from sovchain.protocol.rwset import Version

ORG = "Org1MSP"
COLLECTION = "_implicit_org_Org1MSP"


class Killed(Exception):
    """Raised at a failpoint, in place of the end of the process."""


def record(number: int, updates: UpdateBatch | None = None, **changes: object) -> BlockRecord:
    chain = ChainState("ch", number + 1, sha256(b"%d" % number), sha256(b"%d" % (number - 1)), b"c", 0)
    base = BlockRecord(
        chain=chain,
        block=b"block %d" % number,
        index=[IndexEntry(f"tx{number}", 0, 0, "")],
        updates=updates or UpdateBatch(),
        history=[],
        expiries={},
        private=False,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def public(number: int, **values: str | None) -> UpdateBatch:
    return UpdateBatch(
        public={
            ("cc", key): PublicWrite(None if value is None else value.encode(), {}, Version(number, 0))
            for key, value in values.items()
        }
    )


def hashed(number: int, key: str, value: bytes | None, **options: bool) -> UpdateBatch:
    write = HashedWrite(sha256(value) if value is not None else None, {}, Version(number, 0), **options)
    return UpdateBatch(hashed={("cc", COLLECTION, sha256(key.encode())): write})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LedgerStore]:
    store = LedgerStore.create(tmp_path / "ledger.sqlite", record(0))
    yield store
    store.close()


def state_of(store: LedgerStore) -> CommittedState:
    return CommittedState(store.path, store.connection)


# Format and creation --------------------------------------------------------------------------------------------------


def test_file_of_another_format_version_is_refused_with_both_versions(store: LedgerStore) -> None:
    store.connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    with pytest.raises(StorageVersionError) as caught:
        LedgerStore.open(store.path)
    assert (caught.value.found, caught.value.supported) == (FORMAT_VERSION + 1, FORMAT_VERSION)
    assert "open it with the version that wrote it" in str(caught.value)


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"x"])
def test_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(StorageError):
        LedgerStore.open(path)


def test_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StorageVersionError):
        LedgerStore.create(path, record(0))
    assert sqlite3.connect(path).execute("SELECT count(*) FROM theirs").fetchone() == (0,)


def test_missing_and_existing_channels_are_told_apart(store: LedgerStore, tmp_path: Path) -> None:
    with pytest.raises(ChannelMissing):
        LedgerStore.open(tmp_path / "nothing.sqlite")
    with pytest.raises(ChannelExists):
        LedgerStore.create(store.path, record(0))


@pytest.mark.parametrize("point", ["create:before-begin", "commit:after-block", "create:before-commit"])
def test_interrupted_creation_leaves_nothing_that_counts(tmp_path: Path, point: str) -> None:
    path = tmp_path / "ledger.sqlite"
    die_at(point)
    with pytest.raises(Killed):
        LedgerStore.create(path, record(0))
    set_failpoint(None)
    assert not LedgerStore.exists(path)
    LedgerStore.create(path, record(0)).close()
    assert LedgerStore.exists(path)


def test_files_are_for_their_owner_only(store: LedgerStore) -> None:
    store.commit(record(1))
    for path in store.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


# Commits -----------------------------------------------------------------------------------------------------------


def die_at(point: str) -> None:
    def hook(name: str) -> None:
        if name == point:
            raise Killed(name)

    set_failpoint(hook)


@pytest.mark.parametrize("point", ["before-begin", "after-block", "after-index", "after-state", "before-commit"])
def test_commit_interrupted_anywhere_before_its_end_changes_nothing(store: LedgerStore, point: str) -> None:
    die_at(f"commit:{point}")
    with pytest.raises(Killed):
        store.commit(record(1, public(1, a="1")))
    set_failpoint(None)
    assert store.chain().height == 1
    assert state_of(store).get("cc", "a") is None
    store.commit(record(1, public(1, a="2")))
    assert state_of(store).get("cc", "a") == b"2"


def test_block_out_of_turn_is_refused(store: LedgerStore) -> None:
    with pytest.raises(StorageCorrupt) as caught:
        store.commit(record(2))
    assert caught.value.block == 1


def test_first_transaction_with_an_id_keeps_the_index_entry(store: LedgerStore) -> None:
    store.commit(record(1, index=[IndexEntry("same", 0, 11, "read conflict"), IndexEntry("same", 1, 0, "")]))
    store.commit(record(2, index=[IndexEntry("same", 0, 9, "duplicate")]))
    row = state_of(store).transaction("same")
    assert row is not None
    assert tuple(row) == (1, 0, 11, "read conflict")


def test_empty_and_oversized_transaction_ids_are_not_indexed(store: LedgerStore) -> None:
    store.commit(record(1, index=[IndexEntry("", 0, 255, "bad"), IndexEntry("x" * 300, 1, 8, "bad")]))
    assert not state_of(store).transaction_exists("")
    assert not state_of(store).transaction_exists("x" * 300)


def test_deleted_key_has_neither_value_nor_version(store: LedgerStore) -> None:
    store.commit(record(1, public(1, a="1")))
    store.commit(record(2, public(2, a=None)))
    state = state_of(store)
    assert state.get("cc", "a") is None
    assert state.version("cc", "a") is None


@given(st.dictionaries(st.text(min_size=1), st.binary()))
def test_metadata_is_read_back_as_it_was_written(metadata: dict[str, bytes]) -> None:
    assert decode_metadata(encode_metadata(metadata)) == metadata


KEYS = st.text(st.characters(codec="utf-8"), max_size=6)


@settings(max_examples=60, deadline=None)
@given(keys=st.sets(KEYS, max_size=12), start=KEYS, end=KEYS)
def test_ranges_are_in_byte_order_of_utf8_start_inclusive_end_exclusive(
    keys: set[str], start: str, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    updates = UpdateBatch(public={("cc", key): PublicWrite(b"v", {}, Version(1, 0)) for key in keys})
    updates.public["other", "m"] = PublicWrite(b"v", {}, Version(1, 0))
    store = LedgerStore.create(tmp_path_factory.mktemp("order") / "ledger.sqlite", record(0))
    store.commit(record(1, updates))
    found = [key for key, _, _ in state_of(store).range("cc", start, end)]
    store.close()
    expected = sorted(key.encode() for key in keys)
    expected = [key for key in expected if key >= start.encode() and (not end or key < end.encode())]
    assert [key.encode() for key in found] == expected


@settings(max_examples=25, deadline=None)
@given(
    blocks=st.lists(st.dictionaries(st.sampled_from("abcde"), st.none() | st.text(min_size=1, max_size=3)), max_size=8)
)
def test_state_after_any_blocks_is_what_the_last_writes_say(
    blocks: list[dict[str, str | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = LedgerStore.create(tmp_path_factory.mktemp("model") / "ledger.sqlite", record(0))
    model: dict[str, tuple[bytes, Version]] = {}
    for number, writes in enumerate(blocks, start=1):
        store.commit(record(number, public(number, **writes)))
        for key, value in writes.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = (value.encode(), Version(number, 0))
    found = {key: (value, version) for key, value, version in state_of(store).range("cc", "", "")}
    store.close()
    assert found == model


def test_hashed_state_expires_with_the_scheduled_block_and_only_in_that_version(store: LedgerStore) -> None:
    place = ("cc", COLLECTION)
    store.commit(record(1, hashed(1, "k", b"old"), expiries={place: 4}))
    store.commit(record(2, hashed(2, "renewed", b"1"), expiries={place: 4}))
    store.commit(record(3, hashed(3, "renewed", b"2"), expiries={place: 6}))
    state = state_of(store)
    assert state.hashed_value(*place, sha256(b"k")) == sha256(b"old")
    store.commit(record(4))
    assert state.hashed_value(*place, sha256(b"k")) is None
    assert state.hashed_version(*place, sha256(b"renewed")) == Version(3, 0)
    store.commit(record(5))
    store.commit(record(6))
    assert state.hashed_version(*place, sha256(b"renewed")) is None


# Views ----------------------------------------------------------------------------------------------------------------


def test_snapshot_does_not_see_later_commits(store: LedgerStore) -> None:
    pool = ViewPool(store, {})
    with Snapshot(pool.open(1)) as before:
        store.commit(record(1, public(1, a="1")))
        with Snapshot(pool.open(2)) as after:
            assert before.get("cc", "a") is None
            assert after.get("cc", "a") == b"1"
            assert (before.height, after.height) == (1, 2)
            assert before.block(1) is None
            assert after.block(1) == b"block 1"
    pool.close()


def test_view_that_is_used_again_is_fresh_even_if_a_query_was_left_open(store: LedgerStore) -> None:
    store.commit(record(1, public(1, **{f"k{i}": "1" for i in range(200)})))
    pool = ViewPool(store, {})
    snapshot = Snapshot(pool.open(2))
    rows = snapshot.range("cc", "", "")
    next(rows)
    snapshot.close()
    store.commit(record(2, public(2, k0="2")))
    with Snapshot(pool.open(3)) as again:
        assert again.get("cc", "k0") == b"2"
    del rows
    pool.close()


def test_closed_snapshot_refuses_to_read(store: LedgerStore) -> None:
    pool = ViewPool(store, {})
    snapshot = Snapshot(pool.open(1))
    snapshot.close()
    snapshot.close()
    with pytest.raises(Exception, match="the snapshot is closed"):
        snapshot.get("cc", "a")
    pool.close()


def test_idle_views_are_bounded(store: LedgerStore) -> None:
    pool = ViewPool(store, {})
    snapshots = [Snapshot(pool.open(1)) for _ in range(20)]
    for snapshot in snapshots:
        snapshot.close()
    assert len(pool._idle) <= 4
    pool.close()


# Private stores -------------------------------------------------------------------------------------------------------


def write_set(**values: bytes | None) -> bytes:
    writes = [
        kv_rwset_pb2.KVWrite(key=key, value=value or b"", is_delete=value is None) for key, value in values.items()
    ]
    return kv_rwset_pb2.KVRWSet(writes=writes).SerializeToString()


def change(data: bytes = b"", **options: object) -> CollectionChange:
    base = CollectionChange("cc", COLLECTION, sha256(data) if data else b"", frozenset({ORG}))
    return replace(base, **options)  # type: ignore[arg-type]


def private_block(number: int, *changes: CollectionChange, transaction_id: str | None = None) -> PrivateBlock:
    transaction_id = transaction_id or f"tx{number}"
    return PrivateBlock(number, (PrivateTransaction(0, transaction_id, changes),), (transaction_id,))


@pytest.fixture
def private(tmp_path: Path) -> Iterator[PrivateStore]:
    store = PrivateStore.open(tmp_path / "Org1MSP.sqlite", "ch", ORG, 0)
    yield store
    store.close()


def nothing_public(*_: object) -> None:
    return None


def value(store: PrivateStore, key: str) -> tuple[bytes, int] | None:
    with_connection = store.read_connection()
    row = with_connection.execute("SELECT value, block FROM private_state WHERE key = ?", (key.encode(),)).fetchone()
    with_connection.close()
    return row


def transient_rows(store: PrivateStore) -> int:
    connection = store.read_connection()
    count = connection.execute("SELECT count(*) FROM transient").fetchone()[0]
    connection.close()
    return int(count)


def test_private_data_becomes_state_when_its_hash_is_committed(private: PrivateStore) -> None:
    data = write_set(k=b"secret")
    private.store("tx1", 1, [("cc", COLLECTION, data)])
    assert value(private, "k") is None
    private.apply(private_block(1, change(data)), nothing_public)
    assert value(private, "k") == (b"secret", 1)
    assert transient_rows(private) == 0
    assert private.missing() == []


def test_data_with_another_hash_than_the_block_says_is_not_taken(private: PrivateStore) -> None:
    private.store("tx1", 1, [("cc", COLLECTION, write_set(k=b"forged"))])
    real = write_set(k=b"real")
    private.apply(private_block(1, change(real)), nothing_public)
    assert value(private, "k") is None
    assert private.missing() == [Gap(1, 0, "cc", COLLECTION, sha256(real))]


def test_missing_data_is_recorded_only_for_members(private: PrivateStore) -> None:
    data = write_set(k=b"v")
    private.apply(private_block(1, change(data, members=frozenset({"Org2MSP"}))), nothing_public)
    assert private.missing() == []
    private.apply(private_block(2, change(data)), nothing_public)
    assert [gap.block for gap in private.missing()] == [2]


def test_deletes_and_empty_values_remove_the_private_value(private: PrivateStore) -> None:
    for number, data in enumerate([write_set(a=b"1", b=b"2"), write_set(a=None), write_set(b=b"")], start=1):
        private.store(f"tx{number}", number, [("cc", COLLECTION, data)])
        private.apply(private_block(number, change(data)), nothing_public)
    assert value(private, "a") is None
    assert value(private, "b") is None


def test_purged_value_leaves_no_byte_in_any_file(private: PrivateStore) -> None:
    """Purge erases: neither the database nor its write-ahead log contain the value afterwards."""
    secret = b"a-value-that-must-not-survive-its-purge" * 40
    data, purge = write_set(k=secret), write_set(k=None)
    private.store("tx1", 1, [("cc", COLLECTION, data)])
    private.apply(private_block(1, change(data)), nothing_public)
    private.store("tx2", 2, [("cc", COLLECTION, purge)])
    private.apply(private_block(2, change(purge, purges=(sha256(b"k"),))), nothing_public)
    assert private.scrub_due
    private.scrub()
    assert not private.scrub_due
    for path in private.path.parent.iterdir():
        assert secret[:39] not in path.read_bytes(), path


def test_purge_erases_a_value_even_without_the_private_write_set(private: PrivateStore) -> None:
    data = write_set(k=b"v")
    private.store("tx1", 1, [("cc", COLLECTION, data)])
    private.apply(private_block(1, change(data)), nothing_public)
    private.apply(private_block(2, change(b"never delivered", purges=(sha256(b"k"),))), nothing_public)
    assert value(private, "k") is None


def test_metadata_write_renews_the_version_of_the_value_that_matches_the_public_hash(private: PrivateStore) -> None:
    data = write_set(k=b"v")
    private.store("tx1", 1, [("cc", COLLECTION, data)])
    private.apply(private_block(1, change(data)), nothing_public)
    renewal = change(renewals=(sha256(b"k"),))
    private.apply(private_block(2, renewal), lambda *_: (sha256(b"another value"), None, Version(2, 0)))
    assert value(private, "k") == (b"v", 1)
    private.apply(private_block(3, renewal), lambda *_: (sha256(b"v"), None, Version(3, 0)))
    assert value(private, "k") == (b"v", 3)


def test_private_value_expires_with_its_block(private: PrivateStore) -> None:
    data = write_set(k=b"v")
    private.store("tx1", 1, [("cc", COLLECTION, data)])
    private.apply(private_block(1, change(data, expires_at=4)), nothing_public)
    private.apply(PrivateBlock(3, (), ("tx3",)), nothing_public)
    assert value(private, "k") == (b"v", 1)
    private.apply(PrivateBlock(4, (), ("tx4",)), nothing_public)
    assert value(private, "k") is None


def test_transient_data_of_an_invalid_transaction_is_dropped(private: PrivateStore) -> None:
    private.store("tx1", 1, [("cc", COLLECTION, write_set(k=b"v"))])
    private.apply(PrivateBlock(1, (), ("tx1",)), nothing_public)
    assert transient_rows(private) == 0
    assert value(private, "k") is None


def test_transient_data_that_is_never_committed_expires(private: PrivateStore) -> None:
    private.store("never", 1, [("cc", COLLECTION, write_set(k=b"v"))])
    private.apply(PrivateBlock(1000, (), ("tx",)), nothing_public)
    assert transient_rows(private) == 1
    private.apply(PrivateBlock(1100, (), ("tx",)), nothing_public)
    assert transient_rows(private) == 0


def test_same_private_data_from_several_endorsers_is_kept_once(private: PrivateStore) -> None:
    data = write_set(k=b"v")
    private.store("tx1", 1, [("cc", COLLECTION, data)])
    private.store("tx1", 1, [("cc", COLLECTION, data)])
    assert transient_rows(private) == 1


def test_transient_store_has_limits(private: PrivateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_store, "MAX_TRANSIENT_WRITE_SET_BYTES", 50)
    with pytest.raises(TransientRefused) as caught:
        private.store("tx1", 1, [("cc", COLLECTION, b"x" * 51)])
    assert (caught.value.limit, caught.value.actual) == (50, 51)
    monkeypatch.setattr(private_store, "MAX_TRANSIENT_STORE_BYTES", 80)
    private.store("tx1", 1, [("cc", COLLECTION, b"x" * 50)])
    with pytest.raises(TransientRefused):
        private.store("tx2", 1, [("cc", COLLECTION, b"y" * 50)])
    assert transient_rows(private) == 1


def test_private_file_of_another_organisation_or_ahead_of_the_blocks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "private.sqlite"
    store = PrivateStore.open(path, "ch", ORG, 0)
    store.follow(5)
    store.close()
    with pytest.raises(StorageCorrupt, match="not the private data of Org2MSP"):
        PrivateStore.open(path, "ch", "Org2MSP", 9)
    with pytest.raises(StorageCorrupt, match="it is at height 5"):
        PrivateStore.open(path, "ch", ORG, 4)
    PrivateStore.open(path, "ch", ORG, 5).close()


@pytest.mark.parametrize("point", ["private:before-begin", "private:before-commit"])
def test_interrupted_application_of_a_block_can_be_repeated(private: PrivateStore, point: str) -> None:
    data = write_set(k=b"v")
    private.store("tx1", 1, [("cc", COLLECTION, data)])
    die_at(point)
    with pytest.raises(Killed):
        private.apply(private_block(1, change(data)), nothing_public)
    set_failpoint(None)
    assert private.height == 0
    private.apply(private_block(1, change(data)), nothing_public)
    assert value(private, "k") == (b"v", 1)


def test_block_that_was_applied_already_is_skipped(private: PrivateStore) -> None:
    data = write_set(k=b"v")
    private.store("tx1", 1, [("cc", COLLECTION, data)])
    private.apply(private_block(1, change(data)), nothing_public)
    private.apply(private_block(1, change(data)), nothing_public)
    assert private.missing() == []
