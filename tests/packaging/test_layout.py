"""The layout holds together: three roots, one namespace, two distributions."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOTS = ("chaincode", "client", "network")
SLIM = {"protocol", "rpc", "chaincode", "contracts"}


def rooms(root: str) -> set[str]:
    return {path.name for path in (ROOT / root / "sovchain").iterdir() if path.is_dir() and path.name != "__pycache__"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The full and the slim wheel, each built from a copy of the tracked files."""
    target = tmp_path_factory.mktemp("wheels")
    built = {}
    for name, folder in (("full", ROOT), ("slim", ROOT / "chaincode")):
        out = target / name
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, folder],
            check=True,
            capture_output=True,
        )
        (built[name],) = out.glob("*.whl")
    return built


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("sovchain/")}


def test_no_init_module_closes_the_namespace() -> None:
    """A `sovchain/__init__.py` would hide the rooms of the other two roots while mypy still succeeds."""
    assert [str(path) for root in ROOTS for path in (ROOT / root).glob("sovchain/__init__.py")] == []


def test_every_room_is_typed_and_says_what_it_is() -> None:
    for root in ROOTS:
        for room in rooms(root):
            folder = ROOT / root / "sovchain" / room
            assert (folder / "py.typed").exists(), folder
            assert (folder / "__init__.py").read_text().lstrip().startswith('"""'), folder


def test_the_editable_install_sees_every_room() -> None:
    wanted = [f"sovchain.{room}" for root in ROOTS for room in sorted(rooms(root))]
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    subprocess.run([sys.executable, "-c", code, *wanted], check=True, cwd="/")


def test_the_full_wheel_holds_every_room(wheels: dict[str, Path]) -> None:
    held = {name.split("/")[1] for name in names(wheels["full"])}
    assert held == set().union(*(rooms(root) for root in ROOTS))


def test_the_slim_wheel_is_a_part_of_the_full_one_without_client_or_network(wheels: dict[str, Path]) -> None:
    slim = names(wheels["slim"])
    assert {name.split("/")[1] for name in slim} == SLIM
    assert slim < names(wheels["full"])


def test_the_slim_wheel_runs_alone(wheels: dict[str, Path], tmp_path: Path) -> None:
    """Its contracts import without the client; the client is not there. Third-party packages come from this environment."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env/bin/python"
    (packages,) = (tmp_path / "env/lib").glob("python3*/site-packages")
    with zipfile.ZipFile(wheels["slim"]) as archive:
        archive.extractall(packages)
    third_party = next(path for path in sys.path if path.endswith("site-packages"))
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import sovchain.contracts.finance\n"
        "try:\n    import sovchain.client\nexcept ModuleNotFoundError:\n    print('no client')\n"
    )
    # -S would lose the copy; the third-party folder is appended without its .pth files, so the checkout stays out.
    done = subprocess.run([python, "-c", code, third_party], capture_output=True, text=True, cwd="/", check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "no client"), done.stderr


def test_both_distributions_take_one_version_and_the_same_pins() -> None:
    full = tomllib.loads((ROOT / "pyproject.toml").read_text())
    slim = tomllib.loads((ROOT / "chaincode/pyproject.toml").read_text())
    assert full["tool"]["hatch"]["version"]["path"] == "chaincode/" + slim["tool"]["hatch"]["version"]["path"]
    assert set(slim["project"]["dependencies"]) <= set(full["project"]["dependencies"])


def test_lock_files_carry_hashes_and_no_index_address() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert "--index" not in text
