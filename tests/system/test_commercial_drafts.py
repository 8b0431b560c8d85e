"""The scenario commercial-drafts plays to its end, and what must be refused on stage is refused for its reason."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from dockerimages import chaincode_image, docker_engine
from fabricprograms import VERSIONS, fabric_programs

REFUSALS = [
    "E_ACCESS", "E_NOT_TOLD", "E_COMMITMENT", "E_ACCESS", "E_ACCESS", "E_MATURITY", "E_INPUT", "E_LIABLE", "E_INPUT", "E_STATE",
    "E_STATE", "E_MATURITY", "E_STATE", "E_LIABLE", "E_LIABLE", "E_LIABLE",
]  # fmt: skip


def check(*options: str) -> None:
    command = [sys.executable, "-m", "sovchain.cli", "demo", "--scenario", "commercial-drafts", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["ok"]
    assert [code for _, code in document["refusals"]] == REFUSALS
    assert all(channel["ok"] for channel in document["audit"]["channels"])
    assert [(draft["state"], draft["paid_fen"]) for draft in document["drafts"]] == [
        ("paid", 5_000_000),
        ("discharged", 3_000_000),
    ]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_it_plays_on_the_embedded_ledger() -> None:
    """In the long run, since drafts take their time to mature."""
    check()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", VERSIONS)
def test_it_plays_on_real_fabric(version: str) -> None:
    fabric_programs(version)
    check("--runtime", "native", "--fabric-version", version)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_it_plays_in_containers() -> None:
    docker_engine("3.1")
    chaincode_image()
    check("--runtime", "docker")
