"""What a kill leaves of a database that was being made is removed; whatever may hold data stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from sovchain.network.runtimes.databases import remove_unfinished_databases


def database(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize("written", [("LOCK",), ("LOCK", "LOG"), ("LOCK", "LOG", "MANIFEST-000000")])
def test_a_database_that_was_never_opened_is_made_again(tmp_path: Path, written: tuple[str, ...]) -> None:
    """In an empty folder, the only one that Fabric takes for a new database."""
    unfinished = database(tmp_path / "data/transientstore", *written)
    assert remove_unfinished_databases(tmp_path) == [unfinished]
    assert list(unfinished.iterdir()) == []
    assert remove_unfinished_databases(tmp_path) == []


@pytest.mark.parametrize(
    "further", ["CURRENT", "CURRENT.0", "CURRENT.bak", "000001.log", "000004.ldb", "MANIFEST-000003"]
)
def test_a_database_that_may_hold_data_stays(tmp_path: Path, further: str) -> None:
    folder = database(tmp_path / "data/index", "LOCK", "LOG", "MANIFEST-000000", further)
    before = sorted(folder.iterdir())
    assert remove_unfinished_databases(tmp_path) == []
    assert sorted(folder.iterdir()) == before
