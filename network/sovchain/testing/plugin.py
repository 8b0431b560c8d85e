"""The pytest plugin that comes with sovchain.

`sovchain_network` is a running default network on the embedded ledger, one for the whole run:

    async def test_waybill(sovchain_network):
        async with Network.attach(sovchain_network) as network, network.connect("Logistics") as gateway:
            ...
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sovchain_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a running default network on the embedded ledger, in a process of its own."""
    directory = tmp_path_factory.mktemp("sovchain") / "network"
    command = [sys.executable, "-m", "sovchain.cli"]
    done = subprocess.run(  # noqa: S603  our own command
        [*command, "up", "--detach", "--json", "--dir", str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        problem = json.loads(done.stdout)["error"]
        pytest.fail(f"the network did not come up: {problem['what']}: {problem['why']}", pytrace=False)
    try:
        yield directory
    finally:
        subprocess.run([*command, "down", "--dir", str(directory)], capture_output=True, check=False)  # noqa: S603
