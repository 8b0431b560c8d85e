"""The scenario poverty-relief plays to its end, and what must be refused on stage is refused for its reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from dockerimages import chaincode_image, docker_engine
from fabricprograms import fabric_programs

VARIES = re.compile(r"[0-9a-f]{16,}|[0-9]+ bytes")
"""Identifiers, and the size of a proof: a signature is a byte longer or shorter each time."""
REFUSALS = [
    "E_PUBLICITY",
    "E_OFFICE",
    "E_OBJECTION",
    "E_VIEW",
    "E_STATE",
    "E_STATE",
    "E_MISMATCH",
    "E_STATE",
    "E_NO_PAYEE",
    "E_COMMITMENT",
    "E_STATE",
    "MVCC_READ_CONFLICT",
]


def shown(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "sovchain.cli", "demo", "--scenario", "poverty-relief", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def check(document: dict[str, Any]) -> None:
    assert document["ok"]
    assert [code for _, code in document["refusals"]] == REFUSALS
    assert all(channel["ok"] for channel in document["audit"]["channels"])
    payments = {row["village"]: row["payment"] for row in document["flow"]}
    second = "ordered" if document["winner"] == "import" else "not ordered"
    assert payments == {"Shuitang": "confirmed", "Yuanjing": second}


def test_it_plays_on_the_embedded_ledger() -> None:
    check(shown())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["2.5", "3.1"])
@pytest.mark.long
def test_it_plays_on_real_fabric(version: str) -> None:
    fabric_programs(version)
    check(shown("--runtime", "native", "--fabric-version", version))


@pytest.mark.long
@pytest.mark.timeout(300)
def test_it_plays_in_containers_and_shows_the_same() -> None:
    docker_engine()
    chaincode_image()
    contained, embedded = shown("--runtime", "docker"), shown()
    check(contained)
    outcomes = [
        sorted((step["step"], step["channel"], VARIES.sub("…", step["outcome"])) for step in document["steps"])
        for document in (contained, embedded)
    ]
    # Which of two transactions in one block comes first is for the ordering nodes to say.
    race = "the county settles by the winner's proof"
    first, second = ([step for step in steps if step[0] != race] for steps in outcomes)
    assert first == second
