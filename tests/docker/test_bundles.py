"""Two operators, one in containers with a Fabric CA and one on native programs, run a network without each other's keys."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commandline import Sovchain
from dockerimages import authority_image, left_over
from fabricprograms import fabric_programs

from sovchain.network.runtimes.docker_engine import Engine

TOPOLOGY = """
name: pair
domain: pair.example
organizations: [{name: Alpha, certificate_authority: fabric-ca}, {name: Beta}]
ordering_organizations: [{operator: Alpha}, {operator: Beta}]
channels: [{name: logistics, members: [Alpha, Beta]}]
chaincodes:
  - name: logistics
    module: sovchain.contracts.logistics:chaincode
    channels: [logistics]
    endorsement_policy: AND('AlphaMSP.peer', 'BetaMSP.peer')
"""
WAYBILL = {
    "number": "GY-00000001", "consignor": "Guiyang Tea", "consignee": "Zunyi Stores", "origin": "Guiyang",
    "destination": "Zunyi", "goods": "tea", "packages": 1, "weight_kg": 10,
}  # fmt: skip


@pytest.fixture
def address(engine: Engine) -> str:
    """This host's address in the engine's default network: containers and native nodes both reach it."""
    command = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    if not found:
        pytest.skip("the engine's default network has no gateway on this host")
    return found


@pytest.fixture
def pair(engine: Engine, address: str, tmp_path: Path) -> Iterator[dict[str, Sovchain]]:
    fabric_programs("3.1")
    authority_image(engine)
    file = tmp_path / "topology.yaml"
    file.write_text(TOPOLOGY)
    found = {name: Sovchain(tmp_path / name) for name in ("Alpha", "Beta")}
    for (name, operator), runtime, port in zip(found.items(), ("docker", "native"), (22150, 22160), strict=True):
        command(
            operator, "network", "define", "--org", name, "--topology", file, "--address", address, "--first-port",
            str(port), "--runtime", runtime,
        )  # fmt: skip
    blocks = []
    for name, other in (("Alpha", "Beta"), ("Beta", "Alpha")):
        public = found[other].directory / f"definitions/{other}.json"
        blocks.append(command(found[name], "network", "bundle", "--org", name, "--public", public)["blocks"])
    assert blocks[0] == blocks[1]
    try:
        for operator in found.values():
            assert operator.run("up", "--detach", timeout_s=180).code == 0
        yield found
    finally:
        for operator in found.values():
            operator.down()
        assert left_over(found["Alpha"].directory) == []


def command(operator: Sovchain, *arguments: str | Path) -> Any:
    """A command that takes the bundle's directory as its output."""
    done = subprocess.run(
        [sys.executable, "-m", "sovchain.cli", *map(str, arguments), "--output", operator.directory, "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(600)
@pytest.mark.long
def test_an_operator_in_containers_and_a_native_one_transact(pair: dict[str, Sovchain]) -> None:
    deadline = time.monotonic() + 120
    for name, operator in pair.items():
        while operator.run("evaluate", "logistics", "Registry:seats", "--as", name).code:
            assert time.monotonic() < deadline, (operator.directory / "logs/network.log").read_text()[-3000:]
            time.sleep(0.5)
    issued = pair["Alpha"].ok("submit", "logistics", "Waybills:issue", json.dumps(WAYBILL), "--as", "Alpha")
    assert issued["block"] > 0
    read = pair["Beta"].ok("evaluate", "logistics", "Waybills:read", WAYBILL["number"], "--as", "Beta")
    assert read["result"]["custodian"] == "AlphaMSP"
    change_together(pair)


def change_together(pair: dict[str, Sovchain]) -> None:
    """Access rules and batches take both operators' signatures; each gives its own where its keys are."""
    alpha, beta = pair.values()
    folder = alpha.directory.parent
    agreed, file = folder / "agreed.yaml", folder / "logistics.pb"
    channel = "channels: [{name: logistics, members: [Alpha, Beta]"
    assert channel in TOPOLOGY
    wanted = f"{channel}, batch: {{max_message_count: 7}}, acls: {{qscc/GetBlockByNumber: Admins}}"
    agreed.write_text(TOPOLOGY.replace(channel, wanted))
    proposal = ("--channel", "logistics", "--topology", agreed, "--output", file)
    made = alpha.ok("network", "update", "propose", *proposal)
    assert made["signed"] == ["AlphaMSP", "AlphaOrdererMSP"]
    assert {name for names in made["missing"].values() for name in names} == {"BetaMSP", "BetaOrdererMSP"}
    assert beta.run("network", "update", "submit", file).code == 1
    assert beta.ok("network", "update", "sign", file, "--yes")["missing"] == {}
    assert beta.ok("network", "update", "submit", file)["sequence"] == 1
    file.unlink()
    assert alpha.ok("network", "update", "propose", *proposal)["changes"] == []
