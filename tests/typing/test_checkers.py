"""mypy and pyright accept every right call of the contract API and report every wrong one, on its line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [Path(__file__).with_name(name) for name in ("contract_api.py", "contract_records.py")]


def wrong_lines() -> set[tuple[str, int]]:
    return {
        (file.name, number)
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if "# WRONG:" in line
    }


@pytest.mark.timeout(180)
def test_mypy_reports_the_wrong_calls_and_no_other() -> None:
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *map(str, FILES)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    names = {file.name for file in FILES}
    found = [line.split(":") for line in done.stdout.splitlines() if ": error:" in line]
    own = [(Path(path).name, int(line), rest) for path, line, *rest in found if Path(path).name in names]
    # A body of `...` in a contract that is never run returns nothing; that is not what is looked at here.
    reported = {(name, line) for name, line, rest in own if "[empty-body]" not in rest[-1]}
    assert wrong_lines()
    assert reported == wrong_lines(), done.stdout


@pytest.mark.timeout(180)
def test_pyright_reports_the_wrong_calls_and_no_other() -> None:
    command = [sys.executable, "-m", "pyright", "--outputjson", *map(str, FILES)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    report = json.loads(re.sub(r"^[^{]*", "", done.stdout, count=1))
    errors = [entry for entry in report["generalDiagnostics"] if entry["severity"] == "error"]
    reported = {
        (Path(entry["file"]).name, entry["range"]["start"]["line"] + 1)
        for entry in errors
        if entry.get("rule") != "reportReturnType"
    }
    assert reported == wrong_lines(), errors
