"""A snapshot is used only when every byte of it is the one that its hash stands for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sovchain.network import RuntimeUnavailable, SnapshotFailed
from sovchain.network.network import Network
from sovchain.network.snapshots import Snapshot, agreeing, copy_snapshot, read_snapshot
from sovchain.network.topology import default_topology

SIGNED = "_snapshot_signable_metadata.json"
ADDITIONAL = "_snapshot_additional_metadata.json"
FILES = {"public_state.data": b"state", "txids.data": b"ids", "txids.metadata": b"\x01\x02"}


def write(folder: Path, **changes: object) -> Path:
    """Write a snapshot as a peer does (core/ledger/kvledger/snapshot.go generateSnapshotMetadataFiles)."""
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    document = {
        "channel_name": "wide",
        "last_block_number": 7,
        "last_block_hash": "aa",
        "previous_block_hash": "bb",
        "snapshot_files_raw_hashes": {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()},
        "state_db_type": "SimpleKeyValueDB",
        **changes,
    }
    signed = json.dumps(document, indent=4).encode()
    (folder / SIGNED).write_bytes(signed)
    additional = {"snapshot_hash": hashlib.sha256(signed).hexdigest(), "last_block_commit_hash": "cc"}
    (folder / ADDITIONAL).write_bytes(json.dumps(additional, indent=4).encode())
    return folder


def test_a_whole_snapshot_is_read(tmp_path: Path) -> None:
    found = read_snapshot(write(tmp_path / "7"))
    assert (found.channel, found.block_number, found.block_hash, found.commit_hash) == ("wide", 7, "aa", "cc")
    assert found.size_bytes == sum(path.stat().st_size for path in (tmp_path / "7").iterdir())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    """All files but the additional metadata, whose commit hash nothing in the folder vouches for."""
    folder = tmp_path / "7"
    if not folder.exists():
        write(folder)
    path = folder / data.draw(st.sampled_from([*FILES, SIGNED]))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    try:
        with pytest.raises(SnapshotFailed, match="the snapshot is damaged"):
            read_snapshot(folder)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", [*FILES, SIGNED, ADDITIONAL])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write(tmp_path / "7") / name).unlink()
    with pytest.raises(SnapshotFailed, match=name):
        read_snapshot(tmp_path / "7")


@pytest.mark.parametrize(
    "changes",
    [
        {"snapshot_files_raw_hashes": {"../outside": hashlib.sha256(b"").hexdigest()}},
        {"snapshot_files_raw_hashes": ["public_state.data"]},
        {"snapshot_files_raw_hashes": None},
        {"last_block_number": "seven"},
        {"channel_name": None, "snapshot_files_raw_hashes": {"a\0b": "00"}},
    ],
)
def test_metadata_that_say_nothing_or_too_much_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    (tmp_path / "outside").touch()
    with pytest.raises(SnapshotFailed):
        read_snapshot(write(tmp_path / "7", **changes))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"null", b"{}"])
def test_metadata_that_are_no_json_object_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in (SIGNED, ADDITIONAL):
        folder = write(tmp_path / name)
        (folder / name).write_bytes(content)
        with pytest.raises(SnapshotFailed):
            read_snapshot(folder)


def test_a_copy_is_whole_or_not_there(tmp_path: Path) -> None:
    snapshot = read_snapshot(write(tmp_path / "7"))
    copied = copy_snapshot(snapshot, tmp_path / "out/copy")
    assert copied.hash == snapshot.hash
    with pytest.raises(SnapshotFailed, match="there is something already"):
        copy_snapshot(snapshot, tmp_path / "out/copy")
    (tmp_path / "7/txids.data").write_bytes(b"spoiled")
    with pytest.raises(SnapshotFailed, match=r"txids\.data"):
        copy_snapshot(snapshot, tmp_path / "out/second")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["copy"]


def test_snapshots_agree_when_their_hashes_do() -> None:
    one, other = (Snapshot(Path("/"), "wide", 7, "aa", digest, "", "", 0) for digest in ("11", "22"))
    assert agreeing([one, one])
    assert not agreeing([one, other])


async def test_the_embedded_ledger_says_that_it_writes_none(tmp_path: Path) -> None:
    topology = default_topology().model_copy(update={"chaincodes": ()})
    async with Network.up(topology, "embedded", tmp_path / "network") as network:
        with pytest.raises(RuntimeUnavailable, match="its peers keep no snapshots"):
            await network.snapshot("finance")
