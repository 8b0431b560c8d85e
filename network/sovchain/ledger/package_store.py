"""Chaincode packages installed on one peer, as files below `peers/<MSP>/packages`.

Mirrors core/chaincode/persistence/persistence.go: one file per package, named by label and hash.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from sovchain.ledger.connection import ChaincodeConnection
from sovchain.ledger.couchdb import Index, package_indexes
from sovchain.ledger.errors import LedgerError, StorageCorrupt
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.packages import index_files, package_id, parse_package

_SUFFIX: Final = ".tar.gz"
_CCAAS: Final = "ccaas"
_log = structlog.get_logger("sovchain.ledger.package_store")


class PackageInstalledError(LedgerError):
    """The same package is installed already; the text is Fabric's."""

    def __init__(self, package_id: str) -> None:
        super().__init__(f"chaincode already successfully installed (package ID '{package_id}')")
        self.package_id = package_id


class PackageMissingError(LedgerError):
    """No package with this id is installed; the text is Fabric's."""

    def __init__(self, package_id: str) -> None:
        super().__init__(f"chaincode install package '{package_id}' not found")
        self.package_id = package_id


@dataclass(frozen=True)
class InstalledPackage:
    """One installed package: its id (`label:hash`), its label, how its chaincode is reached, and its indexes by collection."""

    package_id: str
    label: str
    connection: ChaincodeConnection
    indexes: Mapping[str, tuple[Index, ...]] = field(default_factory=dict, compare=False, repr=False)


class PackageStore:
    """The packages of one peer. They survive a restart; nobody but the owner of the process may read the files."""

    def __init__(self, directory: Path) -> None:
        """Open the store, making the directory. Raises StorageCorrupt if a stored package is damaged."""
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._packages: dict[str, InstalledPackage] = {}
        for path in sorted(directory.glob(f"*{_SUFFIX}")):
            package = _read(path)
            self._packages[package.package_id] = package

    def __iter__(self) -> Iterator[InstalledPackage]:
        return iter(tuple(self._packages.values()))

    def get(self, package_id: str) -> InstalledPackage | None:
        """Return an installed package, None if there is none with this id."""
        return self._packages.get(package_id)

    def connection(self, package_id: str) -> ChaincodeConnection | None:
        """Return how the chaincode of a package is reached, None if the package is not installed."""
        package = self._packages.get(package_id)
        return package.connection if package is not None else None

    def install(self, package: bytes) -> InstalledPackage:
        """Store a package durably and return it.

        Raises:
            PackageError: it is no chaincode package.
            ConnectionFileError: its connection.json cannot be used.
            PackageInstalledError: it is installed already.
        """
        installed = _describe(package)
        if installed.package_id in self._packages:
            raise PackageInstalledError(installed.package_id)
        self._write(self._path(installed.package_id), package)
        self._packages[installed.package_id] = installed
        return installed

    def keep(self, package_ids: Iterable[str]) -> None:
        """Remove all packages but these, as if the others had not been installed yet."""
        for unwanted in self._packages.keys() - set(package_ids):
            self._path(unwanted).unlink(missing_ok=True)
            del self._packages[unwanted]

    def read(self, package_id: str) -> bytes:
        """Return the bytes of an installed package. Raises PackageMissingError."""
        if package_id not in self._packages:
            raise PackageMissingError(package_id)
        return self._path(package_id).read_bytes()

    def _path(self, package_id: str) -> Path:
        label, _, digest = package_id.rpartition(":")
        return self._directory / f"{label}.{digest}{_SUFFIX}"

    def _write(self, path: Path, content: bytes) -> None:
        # A name without the suffix, so that a file left by a crash is no package.
        descriptor, temporary = tempfile.mkstemp(dir=self._directory, prefix=".installing-")
        try:
            with os.fdopen(descriptor, "wb") as file:  # mkstemp makes it 0600
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _describe(package: bytes) -> InstalledPackage:
    parsed = parse_package(package)
    connection = ChaincodeConnection.from_json(parsed.connection if parsed.type == _CCAAS else None)
    identifier = package_id(package, parsed.label)
    indexes, wrong = package_indexes(index_files(parsed.code))
    for path, reason in wrong:  # as a peer: installed all the same (statecouchdb.go ProcessIndexesForChaincodeDeploy)
        _log.warning("index definition left out", package=identifier, file=path, reason=reason)
    return InstalledPackage(identifier, parsed.label, connection, indexes)


def _read(path: Path) -> InstalledPackage:
    content = path.read_bytes()
    if not path.name.endswith(f".{hashlib.sha256(content).hexdigest()}{_SUFFIX}"):
        raise StorageCorrupt(path, "its content does not have the hash in its name")
    try:
        return _describe(content)
    except (ProtocolError, LedgerError) as error:
        raise StorageCorrupt(path, str(error)) from error
