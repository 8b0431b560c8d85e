"""The default network, brought up by its five operators, each on a host of its own with nobody else's keys."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commandline import EXAMPLES, LAW
from fabric_protos.common import common_pb2
from fabric_protos.peer import transaction_pb2
from fabricprograms import fabric_programs
from namespaces import Host, hosts

from sovchain.network import default_topology
from sovchain.network.stored import stored_blocks
from sovchain.protocol.blocks import parse_block, transactions_filter

OPERATORS = [part.name for part in default_topology().organizations]
WAYBILL = {
    "number": "GY-00000001",
    "consignor": "Guiyang Tea",
    "consignee": "Zunyi Stores",
    "origin": "Guiyang",
    "destination": "Zunyi",
    "goods": "tea",
    "packages": 1,
    "weight_kg": 10,
}


@dataclass(frozen=True)
class Operator:
    """One operator at its host, with the command line and a directory of its own."""

    name: str
    host: Host
    directory: Path

    def run(self, *arguments: str | Path, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        command = self.host.command(sys.executable, "-m", "sovchain.cli", *map(str, arguments))
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)

    def ok(self, *arguments: str | Path, timeout_s: float = 240) -> Any:
        done = self.run(*arguments, "--json", timeout_s=timeout_s)
        assert done.returncode == 0, (self.name, arguments, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def act(self, *arguments: str | Path) -> Any:
        """A command as this operator on its own part of the network."""
        return self.ok(*arguments, "--as", self.name, "--dir", self.directory)

    def until(self, *arguments: str, timeout_s: float = 240) -> Any:
        """The same, again and again until it succeeds: the others come up when they do."""
        deadline = time.monotonic() + timeout_s
        while True:
            done = self.run(*arguments, "--json", "--as", self.name, "--dir", self.directory)
            if done.returncode == 0:
                return json.loads(done.stdout)
            assert time.monotonic() < deadline, (self.name, arguments, done.stdout, self.log())
            time.sleep(0.5)

    def log(self) -> str:
        path = self.directory / "logs/network.log"
        return path.read_text()[-3000:] if path.exists() else ""


def keys(directory: Path) -> set[str]:
    """Every private key in a directory, by its content, whatever file it is in."""
    found = set()
    for path in directory.rglob("*"):
        text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
        for part in text.split("-----BEGIN ")[1:]:
            if part.split("-----")[0].endswith("PRIVATE KEY"):
                found.add("".join(part.split("-----")[1].split()))
    return found


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Operator]]:
    """All operators with their bundles, exchanged by hand and up."""
    fabric_programs("3.1")
    root = tmp_path_factory.mktemp("hosts")
    with hosts(OPERATORS) as wired:
        found = {name: Operator(name, wired[name], root / name / "bundle") for name in OPERATORS}
        exchange(found, root / "post")
        try:
            with ThreadPoolExecutor(len(found)) as pool:
                list(
                    pool.map(
                        lambda operator: operator.ok("up", "--detach", "--dir", operator.directory), found.values()
                    )
                )
            yield found
        finally:
            for operator in found.values():
                operator.run("down", "--dir", operator.directory)
            assert [name for name, operator in found.items() if left_over(operator.directory)] == []


def exchange(operators: Mapping[str, Operator], post: Path) -> None:
    """Each defines itself and sends its definition; with all of them each has its bundle, and compares hashes."""
    post.mkdir()
    for name, operator in operators.items():
        operator.directory.parent.mkdir()
        defined = operator.ok(
            "network", "define", "--org", name, "--address", operator.host.address, "--output", operator.directory
        )
        shutil.copy(defined["definition"], post / f"{name}.json")
    hashes: dict[str, set[str]] = {}
    for name, operator in operators.items():
        others = [item for other in OPERATORS if other != name for item in ("--public", post / f"{other}.json")]
        made = operator.ok("network", "bundle", "--org", name, *others, "--output", operator.directory)
        for channel, digest in made["blocks"].items():
            hashes.setdefault(channel, set()).add(digest)
    assert {channel: len(digests) for channel, digests in hashes.items()} == {
        "government": 1,
        "finance": 1,
        "logistics": 1,
    }


def left_over(directory: Path) -> list[str]:
    """Processes that still use a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"={directory}/".encode() in (path / "environ").read_bytes():
                found.append(path.name)
        except OSError:
            continue
    return found


def endorsers(directory: Path, channel: str) -> set[str]:
    """MSP ids of those who endorsed valid transactions of a channel after the first blocks."""
    found: set[str] = set()
    for raw in stored_blocks(directory, channel):
        block = parse_block(raw)
        for data, code in zip(block.data.data, transactions_filter(block), strict=True):
            payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(data).payload)
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
            if code or header.type != common_pb2.ENDORSER_TRANSACTION:
                continue
            for action in transaction_pb2.Transaction.FromString(payload.data).actions:
                content = transaction_pb2.ChaincodeActionPayload.FromString(action.payload)
                for endorsement in content.action.endorsements:
                    found.add(endorsement.endorser.partition(b"\n")[2].partition(b"\x12")[0][1:].decode())
    return found


@pytest.mark.long
@pytest.mark.timeout(900)
def test_five_operators_with_nobody_else_s_keys_run_the_first_transactions(
    operators: dict[str, Operator], tmp_path: Path
) -> None:
    government, finance, logistics, supervisor, carrier = (operators[name] for name in OPERATORS)
    # Each has approved for itself, and one of them has committed.
    seats = carrier.until("evaluate", "logistics", "Registry:seats")
    assert seats
    finance.until("evaluate", "finance", "Registry:seats")

    issued = logistics.act("submit", "logistics", "Waybills:issue", json.dumps(WAYBILL))
    assert issued["block"] > 0
    # The carrier's own peer has it, at another host.
    read = carrier.until("evaluate", "logistics", "Waybills:read", WAYBILL["number"])
    assert read["result"]["custodian"] == "LogisticsMSP"

    # What a look at the network tells: its own nodes, and the others' as far as anyone may ask.
    seen = supervisor.ok("status", "--dir", supervisor.directory)
    assert seen["problems"] == []
    assert {node["host"] for node in seen["nodes"]} == {node.host for node in default_topology().nodes}
    assert all(node["answers"] for node in seen["nodes"])
    assert seen["channels"]["logistics"]["agreement"] == "same"

    # Law and sharing, every vote and every step given where its key is.
    for proposal in (("registry", "admit", EXAMPLES / "registry/finance.yaml"), ("law", "enact", LAW)):
        ballot = government.act(*proposal, "--channel", "finance")["ballot"]
        for voter in (supervisor, finance):
            voted = voter.act("law", "vote", ballot, "--channel", "finance")
        assert voted["view"]["ballot"]["state"] == "passed"
    file = tmp_path / "mine.csv"
    file.write_text("enterprise,note\nNanming Noodles,paid in time\n")
    shared = government.act("share", file, "--channel", "finance", "--purpose", "credit-assessment")
    asked = finance.act("request", shared["dataset"]["id"], "--channel", "finance", "--purpose", "credit-assessment")
    government.act("release", asked["request"], "--channel", "finance")
    target = finance.directory.parent / "received.csv"
    finance.act("open", asked["request"], "--channel", "finance", "--output", target)
    assert target.read_bytes() == file.read_bytes()

    # Nobody acts for another, and no key is in two places.
    refused = finance.run("evaluate", "finance", "Registry:seats", "--as", "Government", "--dir", finance.directory)
    assert refused.returncode != 0
    assert "its keys are not in this directory" in refused.stderr
    held = {name: keys(operator.directory.parent) for name, operator in operators.items()}
    assert all(len(found) >= 8 for found in held.values()), {name: len(found) for name, found in held.items()}
    assert len(set().union(*held.values())) == sum(map(len, held.values()))

    # One goes down and comes up again while the others go on.
    finance.ok("down", "--dir", finance.directory)
    logistics.act("submit", "logistics", "Waybills:issue", json.dumps({**WAYBILL, "number": "GY-00000002"}))
    finance.ok("up", "--detach", "--dir", finance.directory)
    finance.until("evaluate", "finance", "Registry:seats")
    assert "SupervisorMSP" in endorsers(logistics.directory, "logistics")


PAIR = """
name: pair
domain: pair.example
organizations: [{name: Alpha}, {name: Beta}]
ordering_organizations: [{operator: Alpha}, {operator: Beta}]
channels: [{name: logistics, members: [Alpha, Beta]}]
chaincodes:
  - name: logistics
    module: sovchain.contracts.logistics:chaincode
    channels: [logistics]
    endorsement_policy: AND('AlphaMSP.peer', 'BetaMSP.peer')
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_third_operator_joins_with_the_others_signatures(tmp_path: Path) -> None:
    """An update goes from folder to folder, each signs where its own keys are, and the newcomer catches up."""
    fabric_programs("3.1")
    old, new, post = tmp_path / "old.yaml", tmp_path / "new.yaml", tmp_path / "post"
    old.write_text(PAIR)
    new.write_text(
        PAIR.replace("{name: Beta}]", "{name: Beta}, {name: Gamma}]").replace("[Alpha, Beta]}", "[Alpha, Beta, Gamma]}")
    )
    post.mkdir()
    names = ("Alpha", "Beta", "Gamma")
    with hosts(names) as wired:
        found = {name: Operator(name, wired[name], tmp_path / name) for name in names}
        alpha, beta, gamma = found.values()

        def define(operator: Operator, topology: Path) -> None:
            arguments = ("--address", operator.host.address, "--output", operator.directory, "--topology", topology)
            made = operator.ok("network", "define", "--org", operator.name, *arguments)
            shutil.copy(made["definition"], post / f"{operator.name}.json")

        def bundle(operator: Operator, others: tuple[Operator, ...], *more: str | Path) -> Any:
            public = [item for other in others for item in ("--public", post / f"{other.name}.json")]
            arguments = (*public, "--output", operator.directory, *more)
            return operator.ok("network", "bundle", "--org", operator.name, *arguments)

        try:
            define(alpha, old)
            define(beta, old)
            assert bundle(alpha, (beta,))["blocks"] == bundle(beta, (alpha,))["blocks"]
            for operator in (alpha, beta):
                operator.ok("up", "--detach", "--dir", operator.directory)
            alpha.until("evaluate", "logistics", "Registry:seats")
            alpha.act("submit", "logistics", "Waybills:issue", json.dumps(WAYBILL))

            define(gamma, new)
            file = post / "logistics.pb"
            proposal = ("--channel", "logistics", "--topology", new, "--public", post / "Gamma.json", "--output", file)
            made = alpha.ok("network", "update", "propose", *proposal, "--dir", alpha.directory)
            assert "organisation GammaMSP comes" in made["changes"]
            assert made["missing"] == {"/Channel/Application/Admins": ["BetaMSP"]}
            refused = alpha.run("network", "update", "submit", file, "--json", "--dir", alpha.directory)
            assert "BetaMSP" in json.loads(refused.stdout)["error"]["why"]
            assert beta.ok("network", "update", "sign", file, "--yes", "--dir", beta.directory)["missing"] == {}
            assert alpha.ok("network", "update", "submit", file, "--dir", alpha.directory)["sequence"] == 1

            bundle(gamma, (alpha, beta), "--founded", alpha.directory / "channels")
            gamma.ok("up", "--detach", "--dir", gamma.directory)
            assert gamma.until("evaluate", "logistics", "Waybills:read", WAYBILL["number"])["result"]
            issued = gamma.act(
                "submit", "logistics", "Waybills:issue", json.dumps({**WAYBILL, "number": "GY-00000002"})
            )
            assert (
                beta.until("evaluate", "logistics", "Waybills:read", "GY-00000002")["result"]["custodian"] == "GammaMSP"
            )
            assert issued["block"] > made["sequence"]
            held = [keys(operator.directory) for operator in found.values()]
            assert len(set().union(*held)) == sum(map(len, held))
        finally:
            for operator in found.values():
                operator.run("down", "--dir", operator.directory)
