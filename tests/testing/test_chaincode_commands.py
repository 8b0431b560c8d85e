"""`sovchain chaincode`: a new project passes its own tests, is clean for linters, and is deployed with one command."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sovchain.cli.chaincode_project import create_project
from sovchain.cli.commands import app
from sovchain.cli.problems import CommandError
from sovchain.protocol.packages import parse_package


def sovchain(*arguments: str | Path, cwd: Path, code: int = 0) -> str:
    """Run the command in this process, as if in a folder."""
    before = Path.cwd()
    os.chdir(cwd)
    try:
        done = CliRunner().invoke(app, [*map(str, arguments)])
    finally:
        os.chdir(before)
    assert done.exit_code == code, done.output
    return done.stdout


def started(*arguments: str | Path, cwd: Path, timeout_s: float = 100) -> str:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "sovchain.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout_s)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projects")
    made = json.loads(sovchain("chaincode", "init", "city-items", "--json", cwd=folder))
    assert made["ok"]
    return folder / "city-items"


def test_a_new_project_passes_its_own_tests(project: Path) -> None:
    out = started("chaincode", "test", "-q", "-p", "no:cacheprovider", cwd=project)
    assert " passed" in out
    assert "failed" not in out


def test_a_new_project_is_clean_for_the_lint_and_for_mypy(project: Path) -> None:
    assert json.loads(sovchain("chaincode", "lint", "--json", cwd=project)) == {"ok": True, "findings": []}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", os.devnull, "city_items", "tests"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(300)
def test_a_new_project_is_deployed_with_one_command(project: Path) -> None:
    try:
        started("up", "--topology", "topology.yaml", "--detach", cwd=project)
        started(
            "submit",
            "main",
            "CityItems:register",
            "AB-1",
            "a crane",
            "--chaincode",
            "city-items",
            "--as",
            "North",
            cwd=project,
        )
        read = ("evaluate", "main", "CityItems:read", "AB-1", "--chaincode", "city-items", "--as", "South")
        assert "NorthMSP" in started(*read, cwd=project)
    finally:
        started("down", cwd=project)


def test_findings_have_an_exit_code_and_a_line_each(project: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import time\nx = time.time()\n")
    out = sovchain("chaincode", "lint", tmp_path / "bad.py", cwd=project, code=1)
    assert "bad.py:2:5: clock: time.time: each peer has its own clock; use ctx.timestamp" in out
    found = json.loads(sovchain("chaincode", "lint", tmp_path, "--json", cwd=project, code=1))["findings"]
    assert (found[0]["line"], found[0]["rule"]) == (2, "clock")
    sovchain("chaincode", "lint", tmp_path / "nothing", cwd=project, code=2)


def test_metadata_and_docs_are_those_of_the_project(project: Path) -> None:
    document = json.loads(started("chaincode", "metadata", cwd=project))
    assert [one["name"] for one in document["contracts"]["CityItems"]["transactions"]][:2] == ["register", "hand_over"]
    docs = started("chaincode", "docs", "city_items:chaincode", cwd=project)
    assert "| registered | retire | retired | `holder(owner)` |  |  |" in docs
    assert "```mermaid\nstateDiagram-v2\n" in docs


def test_a_package_says_how_peers_reach_the_service(project: Path, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    options = ("--label", "items_1.0", "--address", "items.example:9999", "--json")
    made = json.loads(sovchain("chaincode", "package", *options, "--root", tmp_path / "ca.pem", cwd=tmp_path))
    found = parse_package((tmp_path / "items_1.0.tgz").read_bytes())
    assert found.connection is not None
    assert (found.connection["address"], found.connection["tls_required"]) == ("items.example:9999", True)
    again = json.loads(
        sovchain("chaincode", "package", *options, "--root", "ca.pem", "--output", "x.tgz", cwd=tmp_path)
    )
    assert made["id"] == again["id"]
    assert made["id"].startswith("items_1.0:")
    out = sovchain("chaincode", "package", *options, cwd=tmp_path, code=2)
    assert "--insecure" in json.loads(out)["error"]["why"]


def test_serve_listens_with_what_the_environment_says(project: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "CHAINCODE_ID": "items:1",
        "CHAINCODE_SERVER_ADDRESS": address,
        "CHAINCODE_TLS_DISABLED": "1",
    }
    command = [sys.executable, "-m", "sovchain.cli", "chaincode", "serve"]
    process = subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        deadline = time.monotonic() + 5
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=max(deadline - time.monotonic(), 1)):
            pass
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("name", ["City", "1st", "a b", "../x", "a--b", "json", "sovchain", "x" * 41, ""])
def test_a_name_that_cannot_be_a_chaincode_and_a_package_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError):
        create_project(tmp_path / "new", name)
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CommandError, match="not empty"):
        create_project(tmp_path, "items")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_outside_a_project_the_chaincode_must_be_named(tmp_path: Path) -> None:
    for command in (("metadata",), ("docs",), ("serve",)):
        sovchain("chaincode", *command, cwd=tmp_path, code=2)
    sovchain("chaincode", "metadata", "nothing_here:chaincode", cwd=tmp_path, code=2)
