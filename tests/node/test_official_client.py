"""The official Node client, unmodified, works against the embedded network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = ("@hyperledger/fabric-gateway@1.12.1", "@grpc/grpc-js@1.14.7")


@pytest.fixture(scope="module")
def node_folder() -> Path:
    """A folder with the official client installed, kept between runs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("missing program: node with npm: install Node.js 20 (Debian: apt-get install nodejs npm)")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sovchain" / "node"
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "node_modules" / "@hyperledger" / "fabric-gateway").exists():
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", cache, *PACKAGES]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    return cache


@pytest.mark.timeout(400)
def test_evaluate_submit_commit_status_and_events(node_folder: Path, sovchain_network: Path, tmp_path: Path) -> None:
    script = node_folder / "gateway.mjs"
    # Node looks packages up from the script's own folder.
    script.write_text(Path(__file__).with_name("gateway.mjs").read_text())
    msp = sovchain_network / (
        "organizations/peerOrganizations/logistics.guiyang.example/users/User1@logistics.guiyang.example/msp"
    )
    (certificate,) = (msp / "signcerts").iterdir()
    (key,) = (msp / "keystore").iterdir()
    profile = sovchain_network / "connections" / "Logistics.json"
    command = ["node", script, profile, certificate, key, "GY-000017"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["status"]["successful"]
    assert seen["status"]["code"] == 0
    assert seen["result"] == {**seen["result"], "number": "GY-000017", "transaction": seen["status"]["id"]}
    assert seen["read"]["custodian"] == "LogisticsMSP"
    assert seen["event"] == {"name": "WaybillIssued", "id": seen["status"]["id"], "payload": {"number": "GY-000017"}}
    assert seen["refusal"]["kind"] == "EndorseError"
    assert any("E_STATE" in text for text in seen["refusal"]["details"])
    assert "E_NOT_FOUND" in seen["missing"]["message"]
