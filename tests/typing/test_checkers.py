"""mypy and pyright accept every right call of the contract API and report every wrong one, on its line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("contract_api.py")


def wrong_lines() -> set[int]:
    lines = FILE.read_text().splitlines()
    return {number for number, line in enumerate(lines, start=1) if "# WRONG:" in line}


@pytest.mark.timeout(180)
def test_mypy_reports_the_wrong_calls_and_no_other() -> None:
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    own = [line for line in done.stdout.splitlines() if FILE.name in line and ": error:" in line]
    # A body of `...` in a contract that is never run returns nothing; that is not what is looked at here.
    reported = {int(line.split(":")[1]) for line in own if "[empty-body]" not in line}
    assert wrong_lines()
    assert reported == wrong_lines(), done.stdout


@pytest.mark.timeout(180)
def test_pyright_reports_the_wrong_calls_and_no_other() -> None:
    command = [sys.executable, "-m", "pyright", "--outputjson", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    report = json.loads(re.sub(r"^[^{]*", "", done.stdout, count=1))
    errors = [entry for entry in report["generalDiagnostics"] if entry["severity"] == "error"]
    reported = {entry["range"]["start"]["line"] + 1 for entry in errors if entry.get("rule") != "reportReturnType"}
    assert reported == wrong_lines(), errors
