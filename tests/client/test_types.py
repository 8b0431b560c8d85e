"""What integrators' type checkers see: every public name of the client is typed and documented."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sovchain.client

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_pyright_finds_every_type_complete_and_every_name_documented() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--verifytypes", "sovchain.client", "--ignoreexternal", "--outputjson"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)["typeCompleteness"]
    assert report["completenessScore"] == 1
    assert report["missingFunctionDocStringCount"] == report["missingClassDocStringCount"] == 0


def test_what_the_package_exports_is_listed_and_sorted() -> None:
    listed = sovchain.client.__all__
    constants = [name for name in listed if name.isupper()]
    assert listed == sorted(constants) + sorted(set(listed) - set(constants))
    assert all(hasattr(sovchain.client, name) for name in listed)
