"""Chaincode packages: reproducible archives for chaincode as a service, their ids, and reading any package.

Mirrors core/chaincode/persistence/chaincode_package.go and core/container/externalbuilder/instance.go (the fields of
connection.json).
"""

from __future__ import annotations

import binascii
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from sovchain.protocol.canonical import CanonicalError, canonical_json, parse_json
from sovchain.protocol.errors import ProtocolError

__all__ = [
    "INDEX_FOLDER",
    "MAX_PACKAGE_BYTES",
    "ChaincodePackage",
    "PackageError",
    "build_ccaas_package",
    "build_package",
    "check_label",
    "index_files",
    "package_id",
    "parse_package",
]

MAX_PACKAGE_BYTES = 100 * 1024 * 1024
"""Limit for a package and for what it unpacks to; a peer's largest message is as large."""
INDEX_FOLDER = "META-INF/statedb/couchdb"
"""Folder of a package for CouchDB's index definitions (core/common/ccprovider/metadata/validators.go)."""

_METADATA_FILE = "metadata.json"
_CODE_FILE = "code.tar.gz"
_CONNECTION_FILE = "connection.json"
_LABEL = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.+-]*")
_INDEX_PATH = re.compile(rf"{INDEX_FOLDER}/(collections/[A-Za-z0-9_-]+/)?indexes/[A-Za-z0-9_.-]+\.json")
_MAX_ENTRIES = 10_000
_TAR_MODE = 0o100644
_STORED_BLOCK = 0xFFFF
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no name, no time, unknown system


class PackageError(ProtocolError):
    """A chaincode package was refused."""


@dataclass(frozen=True)
class ChaincodePackage:
    """A parsed package.

    Attributes:
        label: The label in metadata.json; the first half of the package id.
        type: For example "ccaas", "golang", "node".
        path: Where the source was; may be empty.
        code: code.tar.gz as it is.
        connection: connection.json of a ccaas package, else None. Unchecked JSON: read its fields with care.
    """

    label: str
    type: str
    path: str
    code: bytes
    connection: Mapping[str, object] | None


def check_label(label: str) -> None:
    """Check a package label. Raises PackageError with Fabric's text."""
    if not _LABEL.fullmatch(label):
        raise PackageError(
            f"invalid label '{label}'. Label must be non-empty, can only consist of alphanumerics, "
            "symbols from '.+-_', and can only begin with alphanumerics"
        )


def build_ccaas_package(
    label: str, connection: Mapping[str, object], indexes: Mapping[str, bytes] | None = None
) -> bytes:
    """Return a package of type ccaas; the same arguments give the same bytes, and so the same id, on any machine.

    Args:
        label: See :func:`check_label`.
        connection: Content of connection.json: address, dial_timeout, tls_required, client_auth_required,
            client_key, client_cert, root_cert; without floats.
        indexes: Content of CouchDB's index definitions by their paths, which begin with `INDEX_FOLDER`.

    Raises:
        PackageError: For a bad label, a connection without an address or that is no canonical JSON, or an index
            elsewhere.
    """
    for path in indexes or {}:
        if _INDEX_PATH.fullmatch(path) is None:
            raise PackageError(f"no index definition can be at {path!r}: put it into {INDEX_FOLDER}/indexes")
    if not isinstance(connection.get("address"), str) or not connection["address"]:
        raise PackageError("connection has no address: a peer could not dial the chaincode")
    try:
        content = canonical_json(dict(connection))
    except CanonicalError as fault:
        raise PackageError(f"connection is not canonical JSON: {fault}") from fault
    return build_package(label, "ccaas", {_CONNECTION_FILE: content, **(indexes or {})})


def build_package(label: str, kind: str, files: Mapping[str, bytes], path: str = "") -> bytes:
    """Return a package of any type around source files, reproducibly. Raises PackageError for a bad label.

    Args:
        label: See :func:`check_label`.
        kind: The `type` in metadata.json, which selects the builder.
        files: Content by path within code.tar.gz.
        path: The `path` in metadata.json.
    """
    check_label(label)
    metadata = canonical_json({"label": label, "path": path, "type": kind})
    return _gzip(_tar({_METADATA_FILE: metadata, _CODE_FILE: _gzip(_tar(files))}))


def package_id(package: bytes, label: str) -> str:
    """Return label:hex(SHA-256 of the whole package): what chaincode and peers call it."""
    return f"{label}:{sha256(package).hexdigest()}"


def parse_package(package: bytes) -> ChaincodePackage:
    """Read a package as a peer does at installation.

    Raises:
        PackageError: With Fabric's text where Fabric refuses; also for archives beyond 100 MiB or 10000 entries.
    """
    entries = dict(_entries(package))
    if _CODE_FILE not in entries:
        raise PackageError("did not find a code package inside the package")
    if _METADATA_FILE not in entries:
        raise PackageError(f"did not find any package metadata (missing {_METADATA_FILE})")
    metadata = _parse_metadata(entries[_METADATA_FILE])
    check_label(metadata["label"])
    code = entries[_CODE_FILE]
    connection = _parse_connection(code) if metadata["type"] == "ccaas" else None
    return ChaincodePackage(metadata["label"], metadata["type"], metadata["path"], code, connection)


def index_files(code: bytes) -> dict[str, bytes]:
    """Return the CouchDB index definitions in a code.tar.gz by their paths, which begin with `INDEX_FOLDER`.

    What is not where an index definition can be is left out. Raises PackageError for an archive that cannot be read.
    """
    files = ((name.removeprefix("./"), file) for name, file in _entries(code, skip_folders=True))
    return {name: file for name, file in files if _INDEX_PATH.fullmatch(name)}


def _parse_metadata(content: bytes) -> dict[str, str]:
    try:
        # Not our strict parser: Fabric takes any JSON here, and unknown members with it.
        value = json.loads(content)
    except (ValueError, RecursionError) as fault:
        raise PackageError(f"could not unmarshal {_METADATA_FILE} as json") from fault
    names = ("label", "type", "path")
    if not isinstance(value, dict) or not all(isinstance(value.get(name, ""), str) for name in names):
        raise PackageError(f"could not unmarshal {_METADATA_FILE} as json")
    return {name: value.get(name, "") for name in names}


def _parse_connection(code: bytes) -> Mapping[str, object]:
    files = {name.removeprefix("./"): file for name, file in _entries(code, skip_folders=True)}
    content = files.get(_CONNECTION_FILE)
    if content is None:
        raise PackageError(f"a ccaas package needs {_CONNECTION_FILE} in its {_CODE_FILE}")
    try:
        connection = parse_json(content)
    except CanonicalError as fault:
        raise PackageError(f"{_CONNECTION_FILE} is {fault}") from fault
    if not isinstance(connection, dict):
        raise PackageError(f"{_CONNECTION_FILE} is not a JSON object")
    return connection


# --- archives --------------------------------------------------------------------------------------------------------


def _tar(files: Mapping[str, bytes]) -> bytes:
    """Sorted regular files owned by nobody, at the epoch."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = _TAR_MODE
            archive.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()


def _gzip(content: bytes) -> bytes:
    """Stored, not compressed: compressors differ from one build of zlib to the next, and so would package ids."""
    encoded = bytearray(_GZIP_HEADER)
    for start in range(0, max(len(content), 1), _STORED_BLOCK):
        block = content[start : start + _STORED_BLOCK]
        is_last = start + _STORED_BLOCK >= len(content)
        encoded.append(is_last)
        encoded += len(block).to_bytes(2, "little") + (len(block) ^ 0xFFFF).to_bytes(2, "little") + block
    encoded += binascii.crc32(content).to_bytes(4, "little") + (len(content) & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(encoded)


def _gunzip(content: bytes) -> bytes:
    """Bounded; members may follow one another, as in Go's reader."""
    if len(content) > MAX_PACKAGE_BYTES:
        raise PackageError(f"package of {len(content)} bytes exceeds the limit of {MAX_PACKAGE_BYTES}")
    unpacked = bytearray()
    rest = content
    while True:
        member = zlib.decompressobj(wbits=31)
        try:
            unpacked += member.decompress(rest, MAX_PACKAGE_BYTES + 1 - len(unpacked))
        except zlib.error as fault:
            raise PackageError(f"error reading as gzip stream: {fault}") from fault
        if len(unpacked) > MAX_PACKAGE_BYTES:
            raise PackageError(f"package unpacks to more than the limit of {MAX_PACKAGE_BYTES} bytes")
        if not member.eof:
            raise PackageError("error reading as gzip stream: unexpected EOF")
        rest = member.unused_data
        if not rest:
            return bytes(unpacked)


def _entries(archive: bytes, *, skip_folders: bool = False) -> Iterator[tuple[str, bytes]]:
    content = _gunzip(archive)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:", errors="strict") as reader:
            for count, entry in enumerate(reader):
                if count >= _MAX_ENTRIES:
                    raise PackageError(f"package has more than {_MAX_ENTRIES} entries")
                if not (skip_folders and entry.isdir()):
                    yield entry.name, _read(reader, entry, len(content))
    # Besides its own errors tarfile lets those of its number and text parsing through.
    except (tarfile.TarError, ValueError, OverflowError, EOFError, KeyError, IndexError, TypeError) as fault:
        raise PackageError(f"error inspecting next tar header: {fault}") from fault


def _read(reader: tarfile.TarFile, entry: tarfile.TarInfo, available: int) -> bytes:
    # A sparse file may claim any size and would be filled up with zeros.
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or getattr(entry, "sparse", None) is not None:
        raise PackageError(f"tar entry {entry.name} is not a regular file, type {entry.type[0]}")
    if not 0 <= entry.size <= available:
        raise PackageError(f"could not read {entry.name} from tar: size {entry.size} is beyond the archive")
    file = reader.extractfile(entry)
    content = b"" if file is None else file.read()
    if len(content) != entry.size:
        raise PackageError(f"could not read {entry.name} from tar: unexpected EOF")
    return content
