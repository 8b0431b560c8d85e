"""The network's own log: JSON lines in DIR/logs/network.log."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import structlog

from sovchain.ledger.operations.logspec import LEVELS, drop_below_level
from sovchain.network.errors import NetworkError

LEVEL_VARIABLE: Final = "SOVCHAIN_LOG_LEVEL"
"""Environment variable that holds the lowest level to write: debug, info (default), warning or error."""
MAX_BYTES: Final = 16 * 1024 * 1024
"""A log that is larger when it is opened is put aside as `<name>.old`, in place of an older one."""

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending, mode 0600; put it aside first when it has grown beyond `MAX_BYTES`."""
    if path.exists() and path.stat().st_size > MAX_BYTES:
        path.replace(path.with_name(f"{path.name}.old"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "ab", buffering=0)


def log_level() -> int:
    """Return the level that `LEVEL_VARIABLE` asks for. Raises NetworkError for an unknown word."""
    word = os.environ.get(LEVEL_VARIABLE, "info").lower()
    if word not in _LEVELS:
        raise NetworkError(
            f"unknown log level {word[:40]!r}",
            f"the environment variable {LEVEL_VARIABLE} holds it",
            f"use one of: {', '.join(_LEVELS)}",
        )
    return _LEVELS[word]


def rotate_log(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Copy a log that has grown beyond `max_bytes` to `<name>.old` and empty it.

    For a log that another process holds open for appending: it goes on at the start of the emptied file. What that
    process writes between copying and emptying is lost.
    """
    try:
        if path.stat().st_size > max_bytes:
            shutil.copyfile(path, path.with_name(f"{path.name}.old"))
            os.truncate(path, 0)
    except FileNotFoundError:
        return


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write what the network and its ledger log to a file, for the length of the block.

    A program that has configured structlog itself keeps its configuration, and the file stays empty.
    """
    if structlog.is_configured():
        yield
        return
    LEVELS.activate(logging.getLevelName(log_level()).lower())
    with open_log(path) as file:
        structlog.configure(
            processors=[
                drop_below_level,
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                _json_line,
            ],
            logger_factory=lambda name="": _Logger(file, name),
        )
        try:
            yield
        finally:
            structlog.reset_defaults()


class _Logger(structlog.BytesLogger):
    """Writes lines to a file, and has the name by which a logging specification knows it."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        super().__init__(file)  # type: ignore[arg-type]  # asks for the name of a BinaryIO
        self.name = name


def _json_line(_: object, __: str, event: MutableMapping[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, default=str).encode()
