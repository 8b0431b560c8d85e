"""A ledger in one file: a snapshot with its installed packages, to be loaded on another machine or after a change.

The file is a gzip-compressed tar with `manifest.json`, `dump.json` (the SHA-256 of each further file), `channels/...` and
`packages/<MSP>/...`. It holds private data: it is written with mode 0600. What is loaded is checked against its hashes
and against the first blocks of the channels that are here.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import secrets
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import ValidationError

from sovchain.ledger.database import copied_faultlessly
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.package_store import PackageInstalledError
from sovchain.ledger.registry import Registry
from sovchain.ledger.snapshots import FORMAT, MANIFEST, MANIFEST_TYPE, LedgerSnapshot

HASHES: Final = "dump.json"
MAX_DUMP_BYTES: Final = 64 * 1024**3
"""What a dump may hold unpacked."""
_MAX_LIST_BYTES: Final = 16 * 1024 * 1024
_MAX_FILES: Final = 100_000
_MAX_PACKAGE_BYTES: Final = 100 * 1024 * 1024


class DumpError(LedgerError):
    """A dump cannot be written or loaded. `path` is the file, `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot use the dump {path}: {reason}")
        self.path = path
        self.reason = reason


def write_dump(target: Path, folder: Path, registry: Registry) -> None:
    """Write the snapshot in `folder` with the packages of the peers into a new file, whole or not at all.

    Raises DumpError.
    """
    if target.exists():
        raise DumpError(target, "there is a file already; give a name that is not taken")
    waiting = target.with_name(f".{target.name}.{secrets.token_hex(4)}.unfinished")
    try:
        descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
                archive.add(folder / MANIFEST, MANIFEST, recursive=False)
                _add_all(archive, folder, registry)
            file.flush()
            os.fsync(file.fileno())
        waiting.replace(target)
    except OSError as error:
        raise DumpError(target, f"it cannot be written ({error.strerror or error})") from error
    finally:
        waiting.unlink(missing_ok=True)


def _add_all(archive: tarfile.TarFile, folder: Path, registry: Registry) -> None:
    hashes: dict[str, str] = {}
    for path in sorted((folder / "channels").rglob("*.sqlite")):
        name = path.relative_to(folder).as_posix()
        with path.open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
        archive.add(path, name, recursive=False)
    for msp_id, peer in sorted(registry.peers.items()):
        for package in peer.packages:
            content = peer.packages.read(package.package_id)
            name = f"packages/{msp_id}/{package.package_id.replace(':', '.')}.tar.gz"
            hashes[name] = hashlib.sha256(content).hexdigest()
            _add_bytes(archive, name, content)
    _add_bytes(archive, HASHES, json.dumps({"format": FORMAT, "sha256": hashes}, indent=2).encode())


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    archive.addfile(entry, io.BytesIO(content))


def read_dump(source: Path, folder: Path) -> LedgerSnapshot:
    """Unpack a dump into a new folder, compare every file with its hash, and return what it holds.

    Raises DumpError; then nothing is left of the folder.
    """
    folder.mkdir(mode=0o700, parents=True)
    try:
        with gzip.open(source) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                found = _unpack(source, archive, folder)
            while stream.read(1024 * 1024):
                continue  # to the checksum at the end
        return _checked(source, folder, found)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError | EOFError | tarfile.TarError | ValueError | zlib.error):
            raise DumpError(source, f"it cannot be read ({error})") from error
        raise


def _unpack(source: Path, archive: tarfile.TarFile, folder: Path) -> dict[str, str]:
    """Write the files of an archive below a folder; return their hashes."""
    found: dict[str, str] = {}
    size = 0
    for entry in archive:
        place = PurePosixPath(entry.name)
        size += entry.size
        if not entry.isreg() or place.is_absolute() or ".." in place.parts or entry.name in found:
            raise DumpError(source, f"its entry {entry.name[:80]!r} is no file of a dump")
        if size > MAX_DUMP_BYTES or len(found) >= _MAX_FILES:
            raise DumpError(source, f"it holds more than {MAX_DUMP_BYTES} bytes or {_MAX_FILES} files")
        content = archive.extractfile(entry)
        assert content is not None  # it is a file
        target = folder / place
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            while part := content.read(1024 * 1024):
                digest.update(part)
                file.write(part)
        found[entry.name] = digest.hexdigest()
    return found


def _checked(source: Path, folder: Path, found: dict[str, str]) -> LedgerSnapshot:
    for name in (MANIFEST, HASHES):
        if name not in found or (folder / name).stat().st_size > _MAX_LIST_BYTES:
            raise DumpError(source, f"it has no usable {name}; it is no dump of a ledger")
    told = json.loads((folder / HASHES).read_bytes())
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise DumpError(source, f"it is of another format; this version of sovchain reads format {FORMAT}")
    expected = {**told.get("sha256", {}), MANIFEST: found[MANIFEST], HASHES: found[HASHES]}
    if found != expected:
        differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise DumpError(source, f"{differing[0]} is missing or differs from its hash; copy the file again")
    try:
        snapshot = MANIFEST_TYPE.validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as error:
        raise DumpError(source, f"its manifest is unusable ({error.error_count()} wrong entries)") from error
    for name in snapshot.channels:
        for path in sorted((folder / "channels" / name).rglob("*.sqlite")):
            if not copied_faultlessly(path):
                raise DumpError(source, f"{path.name} of channel {name} is damaged")
    return snapshot


def install_packages(folder: Path, registry: Registry) -> None:
    """Install the packages of an unpacked dump on the peers that lack them. Raises LedgerError."""
    for msp_id, peer in registry.peers.items():
        for path in sorted((folder / "packages" / msp_id).glob("*.tar.gz")):
            if path.stat().st_size > _MAX_PACKAGE_BYTES:
                raise LedgerError(f"a package of {msp_id} in the dump has more than {_MAX_PACKAGE_BYTES} bytes")
            try:
                peer.packages.install(path.read_bytes())
            except PackageInstalledError:
                continue
