"""Copies of a channel's files, and going back to them whole, whenever the process dies.

A copy has the layout of a channel's directory, without write-ahead logs:

    ledger.sqlite            blocks, index, public state, history
    private/<MSP>.sqlite     one organisation's private data
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sovchain.ledger.database import (
    LEDGER_APPLICATION_ID,
    PRIVATE_APPLICATION_ID,
    failpoint,
    open_database,
    restore_database,
    storage_errors,
    write_durably,
)
from sovchain.ledger.marks import forget

LEDGER_FILE: Final = "ledger.sqlite"
PRIVATE_DIRECTORY: Final = "private"
_MARK: Final = "restoring"


def saved_ledger(folder: Path) -> Path:
    """File of the blocks and the public state in a copy or a channel's directory."""
    return folder / LEDGER_FILE


def saved_private(folder: Path, msp_id: str) -> Path:
    """File of an organisation's private data in a copy or a channel's directory."""
    return folder / PRIVATE_DIRECTORY / f"{quote(msp_id, safe='')}.sqlite"


@contextmanager
def restoring(directory: Path, folder: Path) -> Iterator[None]:
    """Note that the channel in `directory` goes back to the copy in `folder`, until the end of the block."""
    mark = directory / _MARK
    with storage_errors(mark):
        write_durably(mark, str(folder.absolute()).encode())
    failpoint("restore:before")
    yield
    failpoint("restore:before-done")
    with storage_errors(mark):
        mark.unlink()


def complete_restore(directory: Path) -> None:
    """Go on where a process died that restored the channel in `directory`. Raises `StorageError`."""
    mark = directory / _MARK
    if not mark.exists():
        return
    with storage_errors(mark):
        folder = Path(mark.read_text())
    with storage_errors(directory):
        for noted in (directory / LEDGER_FILE, *(directory / PRIVATE_DIRECTORY).glob("*.sqlite")):
            forget(noted)
    with closing(open_database(directory / LEDGER_FILE, LEDGER_APPLICATION_ID)) as connection:
        restore_database(connection, folder / LEDGER_FILE)
    for path in sorted((directory / PRIVATE_DIRECTORY).glob("*.sqlite")):
        copy = folder / PRIVATE_DIRECTORY / path.name
        if copy.exists():
            with closing(open_database(path, PRIVATE_APPLICATION_ID)) as connection:
                restore_database(connection, copy)
        else:
            _remove(path)  # of an organisation that came later; it is made anew when the channel is opened
    with storage_errors(mark):
        mark.unlink()


def _remove(path: Path) -> None:
    with storage_errors(path):
        forget(path)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
