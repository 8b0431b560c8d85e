"""The plugin's network in containers, for testers who know pytest-docker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sovchain.network.runtimes.docker_engine import Engine

TEST = """
from sovchain.network import Network

async def test_a_transaction_and_the_containers_behind_it(fabric, fabric_services):
    async with fabric.connect("Finance") as gateway:
        seats = await gateway.network("finance").contract("finance").evaluate("Registry:seats")
        assert b"regulator" in seats
    port = Network.status(fabric.directory).ports["peer0.finance.guiyang.example"]
    assert fabric_services.port_for("peer0_finance_guiyang_example", port) == port
"""


@pytest.mark.long  # the conformance suite on docker is the short form
@pytest.mark.timeout(240)
def test_a_network_in_containers_and_its_services_are_fixtures(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    done = subprocess.run(
        [
            *command,
            "--fabric-runtime",
            "docker",
            "--fabric-runtime",
            "embedded",
            "--basetemp",
            tmp_path / "base",
            tmp_path,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
