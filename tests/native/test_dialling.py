"""Chaincode that a real peer starts by an external builder, and that dials it: `connect --metadata`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaincodelab import ECHO, Lab
from fabricprograms import fabric_programs

from sovchain.network.runtimes import native
from sovchain.protocol.packages import build_package, package_id

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

NAME, PEER = "dialling", "peer0.lab.example"
READY_S = 5.0
"""The promise: called again within this time after its process or its peer was killed."""


def builder(service: Mapping[str, str]) -> dict[str, str]:
    """The builder of the native runtime, which takes packages of the type python too and runs their module."""
    paths = os.pathsep.join([str(ECHO), *(path for path in sys.path if path)])
    connect = f'exec "{sys.executable}" -m sovchain.chaincode connect echo_chaincode --metadata "$2/chaincode.json"'
    python = 'grep -q \'"type": *"python"\''
    return {
        "detect": f'#!/bin/sh\n{python} "$2/metadata.json" || {service["detect"].split("exec ")[1]}',
        "build": f'#!/bin/sh\nif {python} "$2/metadata.json"; then touch "$3/python"; exit; fi\n{service["build"]}',
        "release": f'#!/bin/sh\nif [ -f "$1/python" ]; then exit; fi\n{service["release"]}',
        "run": f"#!/bin/sh\nexport PYTHONPATH='{paths}'\n{connect}\n",
    }


def processes(lab: Lab) -> list[psutil.Process]:
    """The chaincode's processes below the peer."""
    runtime: Any = lab._running.runtime
    below = psutil.Process(runtime.processes[PEER].pid).children(recursive=True)
    return [process for process in below if "sovchain.chaincode" in process.cmdline()]


async def until_called(lab: Lab) -> float:
    """How long it takes until a call succeeds."""
    started = time.monotonic()
    async with asyncio.timeout(30):
        while True:
            try:
                answer = await lab.endorse(lab.proposal(NAME, "empty"), timeout_s=10)
                if answer.response.status == 200:
                    return time.monotonic() - started
            except Exception as error:
                assert "UNAVAILABLE" in str(error)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("version", ["2.5", "3.1"])
async def test_a_peer_starts_it_and_starts_it_again(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(fabric_programs, version)
    monkeypatch.setattr(native, "_BUILDER", builder(native._BUILDER))
    async with Lab.up(tmp_path, version=version) as lab:
        package = build_package(f"{NAME}_1.0", "python", {"echo.py": b""})
        await lab._deploy(NAME, package, package_id(package, f"{NAME}_1.0"))
        await until_called(lab)
        assert len(processes(lab)) == 1
        await lab.submit(NAME, "write", "many", "1100")
        assert await lab.call(NAME, "read", "many", "1200") == b"1100"
        # Each of many calls at once has its own answer.
        proposals = [lab.proposal(NAME, "run", json.dumps([["txid"]])) for _ in range(64)]
        answers = await asyncio.gather(*(lab.endorse(proposal) for proposal in proposals))
        assert [json.loads(answer.response.payload) for answer in answers] == [
            [proposal.transaction_id] for proposal in proposals
        ]
        # Killed with a call in hand: the peer answers for it, and starts the chaincode again when it is called.
        held = asyncio.ensure_future(lab.endorse(lab.proposal(NAME, "write", "k", "20000"), timeout_s=20))
        await asyncio.sleep(0.05)
        (before,) = processes(lab)
        before.kill()
        assert (await held).response.status in (200, 500)
        took_s = await until_called(lab)
        (after,) = processes(lab)
        assert after.pid != before.pid
        # A peer that dies takes its streams with it: the chaincode ends, and the peer's next one is another process.
        faults = lab.network.faults
        assert faults is not None
        await faults.kill(PEER)
        await asyncio.to_thread(after.wait, 10)
        await faults.start(PEER)
        again_s = await until_called(lab)
        print(f"\n{version}: called again {took_s:.1f} s after its kill, {again_s:.1f} s after its peer's start")
        assert max(took_s, again_s) < READY_S
        assert await lab.call(NAME, "read", "many", "1200") == b"1100"
