"""LevelDB databases of a node whose creation was cut: the next start would end at them, and nothing is in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import structlog

_FIRST_MANIFEST: Final = "MANIFEST-000000"
_EMPTY: Final = frozenset({_FIRST_MANIFEST, "LOG", "LOG.old", "LOCK"})

_log = structlog.get_logger("sovchain.network.databases")


def remove_unfinished_databases(folder: Path) -> list[Path]:
    """Remove what is left below `folder` of databases that were never opened, and return their folders.

    A new database takes its lock, writes its manifest and then names it in CURRENT, before it takes any data. One with a
    manifest and no CURRENT does not open ("database entry point either missing or corrupted", `session.recover` in
    syndtr/goleveldb, session.go), and Fabric makes one in an empty folder only: beside a lock it panics, "file does not
    exist" (`ErrorIfMissing` in common/ledger/util/leveldbhelper/leveldb_helper.go). So the folder is emptied. One that has
    a table, a journal or a later manifest is left for its owner to look at. Nothing may run on `folder`.
    """
    found = []
    for path, _, files in os.walk(folder):
        if "LOCK" in files and _EMPTY.issuperset(files):
            database = Path(path)
            for name in files:
                (database / name).unlink()
            _log.warning("unfinished database removed", folder=path)
            found.append(database)
    return found
