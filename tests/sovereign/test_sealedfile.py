"""A sealed file opens as it was, and whatever is altered, cut, moved, swapped or resumed wrongly is refused by name."""

from __future__ import annotations

import hashlib
import logging
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sovchain.protocol.canonical import canonical_json
from sovchain.sovereign import BlobAltered, BlobMissing, FileEmpty, FileMissing, FolderStore, InvalidInput, SealBroken
from sovchain.sovereign.errors import SourceChanged, StoreError
from sovchain.sovereign.sealedfile import (
    ChunkCipher,
    Manifest,
    Opener,
    check_stored,
    discard_journal,
    journal_of,
    open_file,
    read_manifest,
    seal_file,
)

CHUNK = 64
PAYLOAD = os.urandom(CHUNK * 5 + 17)


class Flaky(FolderStore):
    """A store whose line breaks after some blobs."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder)
        self.left, self.written = after, 0

    def _write(self, address: str, data: bytes) -> None:
        self._count()
        self.written += 1
        super()._write(address, data)

    def _read(self, address: str) -> bytes:
        self._count()
        return super()._read(address)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreError("the store cannot be used", "the line broke", "go on where this stopped")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "payload.bin"
    path.write_bytes(PAYLOAD)
    return path


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def blobs(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * 4, CHUNK * 9 + 5])
def test_a_file_of_any_length_opens_as_it_was(size: int, tmp_path: Path, store: FolderStore) -> None:
    source, target = tmp_path / "file", tmp_path / "opened"
    data = os.urandom(size)
    source.write_bytes(data)
    done: list[tuple[int, int]] = []
    opener = seal_file(source, store, chunk_bytes=CHUNK, progress=lambda now, total: done.append((now, total)))
    assert done[-1] == (size, size)
    assert [now for now, _ in done] == sorted(now for now, _ in done)
    assert open_file(opener, store, target, progress=lambda now, total: done.append((now, total))) == size
    assert target.read_bytes() == data
    assert target.stat().st_mode & 0o777 == 0o600
    assert check_stored(store, opener.manifest).size_bytes == size


def test_the_store_sees_neither_key_nor_plaintext_and_nothing_is_said_of_them(
    source: Path, store: FolderStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    source.write_bytes(b"marker-91c4 " * 40)
    opener = seal_file(source, store, chunk_bytes=CHUNK)
    kept = b"".join(path.read_bytes() for path in blobs(tmp_path / "store"))
    for secret in (b"marker-91c4", bytes.fromhex(opener.key), opener.key.encode(), opener.plaintext.encode()):
        assert secret not in kept
    assert journal_of(source).stat().st_mode & 0o777 == 0o600
    for text in (repr(opener), str(opener), repr(store), caplog.text):
        assert opener.key not in text
        assert opener.plaintext not in text
    discard_journal(source)
    assert not journal_of(source).exists()


def test_an_altered_or_missing_blob_is_told_by_its_address(source: Path, store: FolderStore, tmp_path: Path) -> None:
    opener = seal_file(source, store, chunk_bytes=CHUNK)
    for path in blobs(tmp_path / "store"):
        kept = path.read_bytes()
        for broken, error in (
            (kept[:-1] + bytes([kept[-1] ^ 1]), BlobAltered),
            (kept[:-1], BlobAltered),
            (None, BlobMissing),
        ):
            path.unlink() if broken is None else path.write_bytes(broken)
            with pytest.raises(error) as caught:
                open_file(opener, store, tmp_path / "opened")
            assert caught.value.address == path.name  # type: ignore[attr-defined]  # both errors have it
            with pytest.raises(error):
                check_stored(store, opener.manifest)
            assert not (tmp_path / "opened").exists()
            (tmp_path / "opened.part").unlink(missing_ok=True)
        path.write_bytes(kept)
    open_file(opener, store, tmp_path / "opened")


def with_chunks(store: FolderStore, opener: Opener, manifest: Manifest, **changes: object) -> Opener:
    """An opener of a manifest that somebody rewrote."""
    stated = manifest.model_copy(update=changes).model_dump(mode="json")
    return opener.model_copy(update={"manifest": store.put(canonical_json(stated))})


def test_chunks_that_are_moved_cut_doubled_or_swapped_do_not_open(
    source: Path, store: FolderStore, tmp_path: Path
) -> None:
    """Even by somebody who can rewrite the manifest: the construction says where a chunk belongs and which is the last."""
    opener = seal_file(source, store, chunk_bytes=CHUNK)
    manifest = read_manifest(store, opener.manifest)
    chunks, size = manifest.chunks, manifest.size_bytes
    other = tmp_path / "other"
    other.write_bytes(PAYLOAD[::-1])
    foreign = read_manifest(store, seal_file(other, store, chunk_bytes=CHUNK).manifest)
    cases: dict[str, dict[str, object]] = {
        "two places exchanged": {"chunks": (chunks[1], chunks[0], *chunks[2:])},
        "the end cut off": {"chunks": chunks[:-1], "size_bytes": CHUNK * (len(chunks) - 1)},
        "only the beginning": {"chunks": chunks[:1], "size_bytes": CHUNK},
        "the last one doubled": {"chunks": (*chunks, chunks[-1]), "size_bytes": CHUNK * len(chunks) + 17},
        "one from another file": {"chunks": (chunks[0], foreign.chunks[1], *chunks[2:])},
        "all from another file": {"chunks": foreign.chunks},
        "the whole of another file": {"chunks": foreign.chunks, "prefix": foreign.prefix},
        "another nonce": {"prefix": "00" * 7},
        "another length of chunks": {"chunk_bytes": CHUNK * 2, "chunks": chunks[:3]},
    }
    for name, changes in cases.items():
        with pytest.raises(SealBroken) as caught:
            open_file(with_chunks(store, opener, manifest, **changes), store, tmp_path / name)
        assert caught.value.index is not None, name
        assert not (tmp_path / name).exists(), name
        (tmp_path / f"{name}.part").unlink(missing_ok=True)
    with pytest.raises(SealBroken, match="do not add up"):
        open_file(with_chunks(store, opener, manifest, size_bytes=size + CHUNK), store, tmp_path / "x")
    with pytest.raises(SealBroken, match="chunk 0"):
        open_file(opener.model_copy(update={"key": "11" * 32}), store, tmp_path / "wrong-key")
    with pytest.raises(SealBroken, match="not what was sealed"):
        open_file(opener.model_copy(update={"plaintext": "11" * 32}), store, tmp_path / "wrong-hash")
    with pytest.raises(SealBroken, match="opens no sealed file") as said:
        Opener.decode(b'{"key":"1717"}')
    assert "1717" not in str(said.value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 5), st.booleans(), st.integers(0, 5), st.booleans(), st.binary(max_size=40))
def test_a_chunk_opens_at_its_own_place_only(at: int, last: bool, then: int, ended: bool, data: bytes) -> None:
    cipher = ChunkCipher(bytes(range(32)), bytes(7), CHUNK)
    sealed = cipher.seal(at, last, data)
    if (at, last) == (then, ended):
        assert cipher.open(then, ended, sealed) == data
    else:
        with pytest.raises(SealBroken):
            cipher.open(then, ended, sealed)


def test_sealing_that_broke_off_goes_on_with_the_same_key_and_writes_nothing_twice(
    source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    first = Flaky(folder, after=3)
    with pytest.raises(StoreError, match="the line broke"):
        seal_file(source, first, chunk_bytes=CHUNK)
    there = {path.name for path in blobs(folder)}
    assert 0 < len(there) < 6
    second = Flaky(folder, after=100)
    opener = seal_file(source, second, chunk_bytes=CHUNK)
    assert there <= {*read_manifest(second, opener.manifest).chunks}
    assert second.written == 7 - len(there)  # six chunks and the manifest
    open_file(opener, FolderStore(folder), tmp_path / "opened")
    assert (tmp_path / "opened").read_bytes() == PAYLOAD


def test_two_texts_are_never_sealed_under_one_nonce(source: Path, tmp_path: Path) -> None:
    """A file that changed between two attempts is told, even when its length and time are the same."""
    with pytest.raises(StoreError):
        seal_file(source, Flaky(tmp_path / "store", after=2), chunk_bytes=CHUNK)
    times = source.stat()
    changed = bytearray(PAYLOAD)
    changed[CHUNK + 3] ^= 1
    source.write_bytes(changed)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    before = {path.name for path in blobs(tmp_path / "store")}
    with pytest.raises(SourceChanged, match="chunk 1 is another one"):
        seal_file(source, FolderStore(tmp_path / "store"), chunk_bytes=CHUNK)
    assert {path.name for path in blobs(tmp_path / "store")} == before
    source.write_bytes(PAYLOAD + b"x")
    with pytest.raises(SourceChanged, match="another length"):
        seal_file(source, FolderStore(tmp_path / "store"), chunk_bytes=CHUNK)
    discard_journal(source)
    seal_file(source, FolderStore(tmp_path / "store"), chunk_bytes=CHUNK)


def test_a_journal_that_is_torn_malformed_or_in_use(source: Path, store: FolderStore, tmp_path: Path) -> None:
    journal = journal_of(source)
    opener = seal_file(source, store, chunk_bytes=CHUNK)
    whole = journal.read_bytes()
    for length in (len(whole) - 1, len(whole) - 70, len(whole.split(b"\n")[0]) + 1):
        journal.write_bytes(whole[:length])
        assert seal_file(source, store, chunk_bytes=CHUNK) == opener, length
        assert journal.read_bytes() == whole
    journal.write_bytes(whole[:20])  # torn before anything was sealed: a new key
    assert seal_file(source, store, chunk_bytes=CHUNK).key != opener.key
    journal.write_bytes(b"[]\nx\n")
    with pytest.raises(InvalidInput, match="malformed"):
        seal_file(source, store, chunk_bytes=CHUNK)
    journal.unlink()

    class Nested(FolderStore):
        def _write(self, address: str, data: bytes) -> None:
            with pytest.raises(InvalidInput, match="being sealed already"):
                seal_file(source, store, chunk_bytes=CHUNK)
            super()._write(address, data)

    seal_file(source, Nested(tmp_path / "nested"), chunk_bytes=CHUNK)


def test_opening_that_broke_off_goes_on_and_finds_an_altered_beginning(source: Path, tmp_path: Path) -> None:
    store, target = FolderStore(tmp_path / "store"), tmp_path / "opened"
    opener = seal_file(source, store, chunk_bytes=CHUNK)
    part = tmp_path / "opened.part"
    for alter in (False, True):
        with pytest.raises(StoreError, match="the line broke"):
            open_file(opener, Flaky(tmp_path / "store", after=6), target)  # the window reads ahead
        assert 0 < part.stat().st_size < len(PAYLOAD)
        assert part.stat().st_mode & 0o777 == 0o600
        if alter:
            part.write_bytes(b"\0" + part.read_bytes()[1:])
            with pytest.raises(SealBroken, match="before an interruption"):
                open_file(opener, store, target)
            assert not part.exists()
        else:
            counted = Flaky(tmp_path / "store", after=100)
            open_file(opener, counted, target)
            assert 100 - counted.left < 7, "what was there is not read again"
            assert target.read_bytes() == PAYLOAD
            target.unlink()
    target.write_bytes(b"mine")
    with pytest.raises(InvalidInput, match="exists"):
        open_file(opener, store, target)
    assert target.read_bytes() == b"mine"


def test_what_cannot_be_sealed_is_refused(tmp_path: Path, store: FolderStore) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(FileEmpty):
        seal_file(empty, store)
    with pytest.raises(FileMissing):
        seal_file(tmp_path, store)
    empty.write_bytes(b"x")
    with pytest.raises(InvalidInput):
        seal_file(empty, store, chunk_bytes=2**30)


def sealed_in_little_memory(tmp_path: Path, size: int, chunk: int) -> int:
    """Seal and open a file of `size` bytes; the most memory that Python held meanwhile."""
    source, target, store = tmp_path / "big", tmp_path / "opened", FolderStore(tmp_path / "store")
    with source.open("wb") as file:
        for _ in range(size // 2**20):
            file.write(os.urandom(2**10) * 2**10)
        file.write(b"the end")
    tracemalloc.start()
    try:
        opener = seal_file(source, store, chunk_bytes=chunk)
        open_file(opener, store, target)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    with source.open("rb") as one, target.open("rb") as other:
        assert hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(other, "sha256").digest()
    return most


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    assert sealed_in_little_memory(tmp_path, 24 * 2**20, 2**19) < 10 * 2**20


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_file_of_two_gibibytes(tmp_path: Path) -> None:
    try:
        assert sealed_in_little_memory(tmp_path, 2 * 2**30, 8 * 2**20) < 160 * 2**20
    finally:
        for path in (*blobs(tmp_path / "store"), tmp_path / "big", tmp_path / "opened"):
            path.unlink(missing_ok=True)
