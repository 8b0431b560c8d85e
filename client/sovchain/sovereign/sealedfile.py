"""Files of any size, sealed in chunks: AES-256-GCM in the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, 2015).

    nonce of chunk i   7 random bytes of the file | i in 4 bytes | 1 for the last chunk, else 0
    associated data    "sovchain/sealed/1" | length of a chunk in 4 bytes

so that a chunk that is altered, left out, doubled, moved, taken from another file or followed by another one does not open. A
file is sealed with a key of its own. Each chunk is a blob of a store; the *manifest*, a blob too, names them in order, and its
address stands in the catalogue. The *opener* has the key and the plaintext's hash: it is what goes through the private
collections.

Sealing can be interrupted and taken up again. A journal beside the file keeps key and nonce, and for every chunk a keyed hash of its
plaintext, written before the chunk is sealed: nothing is ever sealed a second time under one nonce unless it is the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field, StringConstraints, ValidationError

from sovchain.contracts.core.records import Hex32, Record
from sovchain.protocol.canonical import canonical_json
from sovchain.sovereign.blobstores import BlobStore
from sovchain.sovereign.errors import FileEmpty, FileMissing, InvalidInput, SealBroken, SourceChanged

CHUNK_BYTES: Final = 8 * 1024 * 1024
"""Length of a chunk, the last one excepted: a transfer holds `WINDOW` of them at most."""
CHUNK_MAX_BYTES: Final = 32 * 1024 * 1024
CHUNKS_MAX: Final = 400_000
"""Most chunks of one file: 3 TiB in chunks of the usual length, and a manifest within a blob."""
WINDOW: Final = 4
"""How many chunks are under way to or from the store at once."""
TAG_BYTES: Final = 16
_CONTEXT: Final = b"sovchain/sealed/1"

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""
Prefix = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{14}$")]


class Manifest(Record):
    """What a sealed file consists of: the addresses of its chunks in order. `size_bytes` is the plaintext's."""

    format: Literal["sovchain-sealed/1"] = "sovchain-sealed/1"
    size_bytes: Annotated[int, Field(ge=1, le=2**53 - 1)]
    chunk_bytes: Annotated[int, Field(ge=1, le=CHUNK_MAX_BYTES)]
    prefix: Prefix
    chunks: Annotated[tuple[Hex32, ...], Field(min_length=1, max_length=CHUNKS_MAX)]


class Opener(Record):
    """What it takes to open a sealed file. Never print one: `repr` leaves out what is secret."""

    format: Literal["sovchain-opener/1"] = "sovchain-opener/1"
    manifest: Hex32
    key: Hex32 = Field(repr=False)
    plaintext: Hex32 = Field(repr=False)

    def encode(self) -> bytes:
        """As canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes) -> Opener:
        """Read one. Raises SealBroken."""
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            raise SealBroken(
                "what was delivered opens no sealed file", "it has another form", "tell the owner"
            ) from None


def chunk_count(size_bytes: int, chunk_bytes: int) -> int:
    """How many chunks a plaintext has."""
    return max(1, -(-size_bytes // chunk_bytes))


class ChunkCipher:
    """Seals and opens the chunks of one file."""

    def __init__(self, key: bytes, prefix: bytes, chunk_bytes: int) -> None:
        self._cipher, self._prefix = AESGCM(key), prefix
        self._context = _CONTEXT + chunk_bytes.to_bytes(4, "big")

    def _nonce(self, index: int, last: bool) -> bytes:
        return self._prefix + index.to_bytes(4, "big") + bytes([last])

    def seal(self, index: int, last: bool, data: bytes) -> bytes:
        """Seal the chunk at a place. Never call it with two plaintexts for one place."""
        return self._cipher.encrypt(self._nonce(index, last), data, self._context)

    def open(self, index: int, last: bool, sealed: bytes) -> bytes:
        """Open the chunk at a place. Raises SealBroken."""
        try:
            return self._cipher.decrypt(self._nonce(index, last), sealed, self._context)
        except (InvalidTag, ValueError):
            raise SealBroken(
                f"chunk {index} does not open",
                "it was altered, moved, cut off, or sealed with another key",
                "do not use what was opened before it, and tell the owner",
                index=index,
            ) from None


# Sealing -------------------------------------------------------------------------------------------------------------


def seal_file(
    source: Path,
    store: BlobStore,
    *,
    journal: Path | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress | None = None,
) -> Opener:
    """Seal a file into a store. Interrupted, it goes on where it stopped when it is called again.

    The journal (by default the file's name with `.sealing`) holds the key and is readable by its owner only; `discard_journal`
    removes it, once the opener is in safety. Memory stays within a few chunks. Raises FileMissing, FileEmpty, SourceChanged,
    InvalidInput, StoreError.
    """
    if not source.is_file():
        raise FileMissing(
            f"there is no file {source}", "nothing of that name is one", "check the path", source=str(source)
        )
    size = source.stat().st_size
    if size == 0:
        raise FileEmpty(f"{source} is empty", "it has no bytes", "choose a file with data", source=str(source))
    count = chunk_count(size, chunk_bytes)
    if not 1 <= chunk_bytes <= CHUNK_MAX_BYTES or count > CHUNKS_MAX:
        raise InvalidInput(
            "the file cannot be sealed in such chunks",
            f"{count} chunks of {chunk_bytes} bytes; at most {CHUNKS_MAX} of {CHUNK_MAX_BYTES}",
            "choose another length of chunks",
        )
    with _Journal(journal or journal_of(source), size, chunk_bytes) as kept, source.open("rb") as file:
        cipher = ChunkCipher(kept.key, kept.prefix, chunk_bytes)
        whole, chunks = hashlib.sha256(), []
        for address, done in _uploaded(file, size, chunk_bytes, cipher, kept, store, whole.update):
            chunks.append(address)
            if progress is not None:
                progress(done, size)
        manifest = Manifest(size_bytes=size, chunk_bytes=chunk_bytes, prefix=kept.prefix.hex(), chunks=tuple(chunks))
        address = store.put(canonical_json(manifest.model_dump(mode="json")))
        return Opener(manifest=address, key=kept.key.hex(), plaintext=whole.hexdigest())


def journal_of(source: Path) -> Path:
    """Where the journal of a file lies."""
    return source.with_name(source.name + ".sealing")


def discard_journal(source: Path) -> None:
    """Remove a file's journal, with the key that is in it."""
    journal_of(source).unlink(missing_ok=True)


def _uploaded(
    file: BinaryIO,
    size: int,
    chunk_bytes: int,
    cipher: ChunkCipher,
    kept: _Journal,
    store: BlobStore,
    note: Callable[[bytes], None],
) -> Iterator[tuple[str, int]]:
    """The address of each chunk and the bytes done with it, in order, with at most `WINDOW` chunks under way."""
    count, done = chunk_count(size, chunk_bytes), 0
    with ThreadPoolExecutor(WINDOW) as pool:
        waiting: deque[tuple[Future[str], int]] = deque()
        for index in range(count):
            data = file.read(chunk_bytes)
            if len(data) != min(chunk_bytes, size - index * chunk_bytes):
                raise _changed("it has become shorter")
            note(data)
            kept.note(index, data)
            sealed = cipher.seal(index, index == count - 1, data)
            waiting.append((pool.submit(store.put, sealed), len(data)))
            if len(waiting) == WINDOW:
                future, length = waiting.popleft()
                done += length
                yield future.result(), done
        if file.read(1):
            raise _changed("it has become longer")
        for future, length in waiting:
            done += length
            yield future.result(), done


class _Journal:
    """Key, nonce and the keyed hash of each chunk's plaintext, on disk before anything is sealed with them."""

    def __init__(self, path: Path, size: int, chunk_bytes: int) -> None:
        self._path, self._stated = path, {"size_bytes": size, "chunk_bytes": chunk_bytes}
        self._known: list[str] = []

    def __enter__(self) -> _Journal:
        self._file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError:
            self._file.close()
            raise InvalidInput(
                "the file is being sealed already", f"another process holds {self._path}", "wait for it"
            ) from None
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> None:
        lines = self._file.read().split("\n")
        if len(lines) < 2:  # empty, or torn in its first line: nothing was sealed with that key
            self.key, self.prefix = secrets.token_bytes(32), secrets.token_bytes(7)
            self._file.seek(0)
            self._file.truncate()
            self._line(json.dumps({**self._stated, "key": self.key.hex(), "prefix": self.prefix.hex()}))
            return
        try:
            head = json.loads(lines[0])
            self.key, self.prefix = bytes.fromhex(head.pop("key")), bytes.fromhex(head.pop("prefix"))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InvalidInput(
                f"the journal {self._path} is malformed", "it is none of sealing", "remove it and seal anew"
            ) from None
        if head != self._stated:
            raise _changed("it has another length, or other chunks are asked for")
        self._known = lines[1:-1]
        whole = sum(len(line) + 1 for line in lines[:-1])
        self._file.seek(whole)
        self._file.truncate()  # a torn last line: its chunk was not sealed yet

    def note(self, index: int, data: bytes) -> None:
        """Put a chunk's plaintext on record before it is sealed. Raises SourceChanged when another one is on record."""
        digest = hmac.new(self.key, b"sovchain/journal/1" + index.to_bytes(4, "big"), hashlib.sha256)
        digest.update(data)
        if index < len(self._known):
            if not hmac.compare_digest(self._known[index], digest.hexdigest()):
                raise _changed(f"its chunk {index} is another one")
            return
        self._line(digest.hexdigest())

    def _line(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _changed(why: str) -> SourceChanged:
    return SourceChanged(
        "the file changed since its sealing began", why, "remove its .sealing journal and seal it anew"
    )


# Opening -------------------------------------------------------------------------------------------------------------


def read_manifest(store: BlobStore, address: str) -> Manifest:
    """The manifest at an address. Raises BlobMissing, BlobAltered, SealBroken, StoreError."""
    try:
        found = Manifest.model_validate_json(store.get(address))
    except ValidationError:
        raise SealBroken("the manifest is malformed", "it has another form", "tell the owner") from None
    if len(found.chunks) != chunk_count(found.size_bytes, found.chunk_bytes):
        raise SealBroken("the manifest is malformed", "its chunks do not add up to its size", "tell the owner")
    return found


def check_stored(store: BlobStore, address: str, *, progress: Progress | None = None) -> Manifest:
    """Whether a store has every chunk of a sealed file, unaltered: it takes no key. Raises as `read_manifest`."""
    manifest = read_manifest(store, address)
    for index, chunk in enumerate(manifest.chunks):
        expected = _chunk_length(manifest, index) + TAG_BYTES
        if len(store.get(chunk)) != expected:
            raise SealBroken(
                f"chunk {index} has another length", f"not {expected} bytes", "tell the owner", index=index
            )
        if progress is not None:
            progress(min((index + 1) * manifest.chunk_bytes, manifest.size_bytes), manifest.size_bytes)
    return manifest


def open_file(opener: Opener, store: BlobStore, target: Path, *, progress: Progress | None = None) -> int:
    """Open a sealed file into `target`, which appears whole or not at all, and is readable by its owner only.

    What was opened before an interruption lies in `target` with `.part` and is taken up again. Returns the length. Raises
    InvalidInput when `target` exists, SealBroken, BlobMissing, BlobAltered, StoreError.
    """
    if target.exists():
        raise InvalidInput(f"{target} exists", "it would be overwritten", "give another path")
    manifest = read_manifest(store, opener.manifest)
    part = target.with_name(target.name + ".part")
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        whole = hashlib.sha256()
        begin = _taken_up(file, manifest, whole.update)
        for index, data in _downloaded(opener, manifest, store, begin):
            whole.update(data)
            file.write(data)
            if progress is not None:
                progress(index * manifest.chunk_bytes + len(data), manifest.size_bytes)
        file.flush()
        os.fsync(file.fileno())
    if not hmac.compare_digest(whole.hexdigest(), opener.plaintext):
        part.unlink()
        raise SealBroken(
            "the opened file is not what was sealed",
            "its hash is another one: the part from before an interruption was altered, or the owner sealed wrongly",
            "fetch it again; if that does not help, tell the owner",
        )
    part.rename(target)
    return manifest.size_bytes


def _taken_up(file: BinaryIO, manifest: Manifest, note: Callable[[bytes], None]) -> int:
    """How many chunks are there already; whatever follows them is cut off."""
    there = min(file.seek(0, os.SEEK_END) // manifest.chunk_bytes, len(manifest.chunks) - 1)
    file.seek(0)
    for _ in range(there):
        note(file.read(manifest.chunk_bytes))
    file.truncate()
    return there


def _downloaded(opener: Opener, manifest: Manifest, store: BlobStore, begin: int) -> Iterator[tuple[int, bytes]]:
    cipher = ChunkCipher(bytes.fromhex(opener.key), bytes.fromhex(manifest.prefix), manifest.chunk_bytes)
    count = len(manifest.chunks)
    with ThreadPoolExecutor(WINDOW) as pool:
        waiting: deque[Future[bytes]] = deque()
        for index in range(begin, count):
            while len(waiting) < WINDOW and index + len(waiting) < count:
                waiting.append(pool.submit(store.get, manifest.chunks[index + len(waiting)]))
            data = cipher.open(index, index == count - 1, waiting.popleft().result())
            if len(data) != _chunk_length(manifest, index):
                raise SealBroken(
                    f"chunk {index} has another length", "the manifest says so", "tell the owner", index=index
                )
            yield index, data


def _chunk_length(manifest: Manifest, index: int) -> int:
    return min(manifest.chunk_bytes, manifest.size_bytes - index * manifest.chunk_bytes)
