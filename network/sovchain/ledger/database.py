"""SQLite files of the ledger: durable settings, a format version in each file, and places to fail at.

Every file is in write-ahead mode with `synchronous=FULL`: what a transaction committed survives the process and the
machine, and readers never wait for the writer.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sovchain.ledger.errors import StorageError, StorageVersionError

FORMAT_VERSION = 2
"""Storage format that this version writes and reads (`PRAGMA user_version` of every file)."""

LEDGER_APPLICATION_ID = 0x53764C64
"""`PRAGMA application_id` of a file with blocks and public state ("SvLd")."""

PRIVATE_APPLICATION_ID = 0x53765076
"""`PRAGMA application_id` of a file with one organisation's private data ("SvPv")."""

_WAL_SIZE_LIMIT = 32 * 1024 * 1024
BUSY_TIMEOUT_MS = 10_000
"""How long a writer waits for another writer of the same file."""

_failpoint: Callable[[str], None] | None = None


def set_failpoint(hook: Callable[[str], None] | None) -> None:
    """Have `hook` called with a name before and after each write of the ledger; None takes it away.

    Fault tests end the process or raise in it. The names are those given to `failpoint` in this package.
    """
    global _failpoint
    _failpoint = hook


def failpoint(name: str) -> None:
    """A place where a fault test may interrupt a write."""
    if _failpoint is not None:
        _failpoint(name)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into `StorageError`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageError(path, f"{type(error).__name__}: {error}".lower()) from error


def connect(path: Path) -> sqlite3.Connection:
    """A connection to an existing file, with this package's settings; transactions are begun by hand.

    May be handed from thread to thread, but is for one thread at a time.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE_LIMIT}")
    except BaseException:
        connection.close()
        raise
    return connection


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, that only its owner may read."""
    with storage_errors(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def create_database(
    path: Path, application_id: int, schema: str, fill: Callable[[sqlite3.Connection], None]
) -> sqlite3.Connection:
    """Create a file whose schema, format version and first content (`fill`) come into being in one transaction.

    A process that dies in here leaves a file that counts as not created (`database_format` gives 0).
    """
    with storage_errors(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = connect(path)
        try:
            _use_write_ahead_log(path, connection)
            failpoint("create:before-begin")
            connection.execute("BEGIN IMMEDIATE")
            for statement in schema.split(";"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {application_id}")
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            fill(connection)
            failpoint("create:before-commit")
            connection.execute("COMMIT")
            _sync_directory(path.parent)
            failpoint("create:after-commit")
        except BaseException:
            connection.close()
            raise
    return connection


def open_database(path: Path, application_id: int) -> sqlite3.Connection:
    """Open an existing file for writing. Raises `StorageVersionError` if it has another format."""
    with storage_errors(path):
        connection = connect(path)
        try:
            found = _format_of(path, connection, application_id)
            if found != FORMAT_VERSION:
                raise StorageVersionError(path, found, FORMAT_VERSION)
            _use_write_ahead_log(path, connection)
        except BaseException:
            connection.close()
            raise
    return connection


def database_format(path: Path, application_id: int) -> int | None:
    """Format version of a file; 0 if it is a database without content, None if there is no file.

    A file that is no database of this kind at all raises `StorageVersionError`.
    """
    if not path.exists():
        return None
    with storage_errors(path):
        connection = connect(path)
        try:
            found = _format_of(path, connection, application_id)
            if found == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise StorageVersionError(path, found, FORMAT_VERSION)
            return found
        finally:
            connection.close()


def copy_database(connection: sqlite3.Connection, target: Path) -> None:
    """Copy what is committed into a new file, durably. No transaction may be open on the connection."""
    with storage_errors(target):
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        copy = sqlite3.connect(target)
        try:
            copy.execute("PRAGMA synchronous = OFF")  # the file is written out once, below
            connection.backup(copy)
        finally:
            copy.close()
        for suffix in ("-wal", "-shm"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        _sync_file(target)
        _sync_directory(target.parent)


def restore_database(connection: sqlite3.Connection, source: Path) -> None:
    """Replace all content by that of a copy, in one transaction: readers that have begun go on with what they saw."""
    with storage_errors(source):
        copy = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            copy.backup(connection)
        finally:
            copy.close()


def copied_faultlessly(path: Path) -> bool:
    """Whether SQLite finds no fault in a copy's structure."""
    try:
        copy = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            return bool(copy.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        finally:
            copy.close()
    except sqlite3.Error:
        return False


def write_durably(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all; only its owner may read it."""
    waiting = path.with_name(f".{path.name}.new")
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    waiting.replace(path)
    _sync_directory(path.parent)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _format_of(path: Path, connection: sqlite3.Connection, application_id: int) -> int:
    try:
        if connection.execute("PRAGMA application_id").fetchone()[0] != application_id:
            return 0
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise StorageVersionError(path, 0, FORMAT_VERSION) from error
        raise


def _use_write_ahead_log(path: Path, connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StorageError(path, f"its file system has no write-ahead log (mode {mode}); use a local disk")


def _sync_directory(path: Path) -> None:
    _sync_file(path)
