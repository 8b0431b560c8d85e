"""Fabric's programs are found by what they say of themselves, and their absence is told with where was looked."""

from __future__ import annotations

from pathlib import Path

import pytest

from sovchain.network import ProgramsMissing
from sovchain.network.runtimes import programs
from sovchain.network.runtimes.programs import find_programs, main, matches


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any Fabric."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv(programs.FOLDER_VARIABLE, raising=False)


def release(folder: Path, version: str, *, peer: str = "", names: tuple[str, ...] = ("peer", "orderer")) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        says = peer if name == "peer" and peer else version
        (folder / name).write_text(f"#!/bin/sh\necho '{name}:'; echo ' Version: v{says}'\n")
        (folder / name).chmod(0o755)
    return folder


async def test_the_named_folder_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = release(tmp_path / "named", "3.1.2")
    release(tmp_path / "home/.cache/sovchain/fabric/3.1.9/bin", "3.1.9")
    monkeypatch.setenv(programs.FOLDER_VARIABLE, str(named))
    found = await find_programs("3.1")
    assert (found.version, found["peer"]) == ("3.1.2", str(named / "peer"))


async def test_a_named_folder_of_another_version_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(programs.FOLDER_VARIABLE, str(release(tmp_path / "named", "2.5.1")))
    release(tmp_path / "home/.cache/sovchain/fabric/3.1.9/bin", "3.1.9")
    release(tmp_path / "home/.cache/sovchain/fabric/3.1.10/bin", "3.1.10")
    assert (await find_programs("3.1")).version == "3.1.10"


async def test_what_was_found_where_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = release(tmp_path / "named", "2.5.1", names=("peer",))
    monkeypatch.setenv(programs.FOLDER_VARIABLE, str(named))
    mixed = release(tmp_path / "home/.cache/sovchain/fabric/3.1.9/bin", "3.1.9", peer="3.0.0")
    with pytest.raises(ProgramsMissing) as caught:
        await find_programs("3.1")
    looked = caught.value.looked
    assert looked[f"SOVCHAIN_FABRIC_BIN ({named})"] == "no orderer"
    assert looked[str(mixed)] == "peer 3.0.0, orderer 3.1.9"
    assert looked["PATH"] == "no peer and no orderer"
    assert "SOVCHAIN_FABRIC_BIN" in caught.value.remedy


async def test_a_program_that_is_none_is_of_an_unknown_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = release(tmp_path / "named", "3.1.5")
    (folder / "peer").write_bytes(b"\x7fELF not really")
    (folder / "orderer").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setenv(programs.FOLDER_VARIABLE, str(folder))
    with pytest.raises(ProgramsMissing, match=r"peer cannot be started .*, orderer of an unknown version"):
        await find_programs("3.1")


def test_a_release_belongs_to_its_version_only() -> None:
    assert matches("3.1.5", "3.1")
    assert matches("3.1.0-rc1", "3.1")
    assert not matches("3.10.1", "3.1")
    assert not matches("2.5.16", "3.1")


def test_the_program_answers_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("3.1") == 1
    assert capsys.readouterr().out.count("\n") == 1
