"""Fabric's own `peer` program, unmodified, against the embedded ledger."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabricprograms import VERSIONS, fabric_programs
from raw_chaincode import RawChaincode, ordinary

from sovchain.ledger.node import EmbeddedLedger
from sovchain.network import ports as ports_module
from sovchain.network.genesis import genesis_blocks
from sovchain.network.material import Material
from sovchain.network.runtimes import Site
from sovchain.network.runtimes.embedded import EmbeddedRuntime, _nodes
from sovchain.network.topology import Channel, OrderingOrganization, Organization, Topology
from sovchain.protocol.blocks import parse_block
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.packages import build_ccaas_package, package_id

CHANNEL = "trade"


@dataclass
class Network:
    """An embedded ledger of two organisations, and the `peer` program to speak to it."""

    program: Path
    folder: Path
    site: Site
    material: Material
    ledger: EmbeddedLedger
    chaincode: RawChaincode

    def _environment(self, organization: str, user: str) -> dict[str, str]:
        part = self.material.organization(organization)
        folder = self.folder / "config"
        folder.mkdir(exist_ok=True)
        (folder / "core.yaml").write_text("peer:\n  BCCSP: {Default: SW, SW: {Hash: SHA2, Security: 256}}\n")
        return {
            "PATH": os.environ["PATH"],
            "FABRIC_CFG_PATH": str(folder),
            "FABRIC_LOGGING_SPEC": "error",
            "CORE_PEER_ID": "cli",
            "CORE_PEER_TLS_ENABLED": "true",
            "CORE_PEER_LOCALMSPID": part.msp_id,
            "CORE_PEER_MSPCONFIGPATH": str(part.user_msp(user)),
            "CORE_PEER_ADDRESS": self.address(organization),
            "CORE_PEER_TLS_ROOTCERT_FILE": str(self.root(organization)),
        }

    def address(self, organization: str) -> str:
        host = self.material.organization(organization).node().host
        return f"localhost:{self.ledger.address_of(host).rpartition(':')[2]}"

    def root(self, organization: str) -> Path:
        part = self.material.organization(organization)
        return next((part.folder / "tlsca").glob("*.pem"))

    @property
    def orderer(self) -> list[str]:
        name = self.site.topology.ordering_organizations[0].name
        return ["-o", self.address(name), "--tls", "--cafile", str(self.root(name))]

    def peers(self, *organizations: str) -> list[str]:
        found = []
        for name in organizations:
            found += ["--peerAddresses", self.address(name), "--tlsRootCertFiles", str(self.root(name))]
        return found

    async def run(self, *arguments: str, organization: str = "One", user: str = "Admin", fails: bool = False) -> str:
        """Run the program; its output, errors included."""
        process = await asyncio.create_subprocess_exec(
            self.program,
            *arguments,
            env=self._environment(organization, user),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.folder,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        text = out.decode()
        assert (process.returncode != 0) == fails, (arguments, text)
        return text


@pytest.fixture(params=VERSIONS)
def program(request: pytest.FixtureRequest) -> Path:
    """The `peer` program of each version that is here."""
    return fabric_programs(request.param)["peer"]


@pytest.fixture
async def network(program: Path, tmp_path: Path) -> AsyncIterator[Network]:
    """Two organisations on one channel; nothing is installed."""
    plan = Topology(
        name="cli",
        domain="cli.example",
        organizations=(Organization(name="One"), Organization(name="Two")),
        ordering_organizations=(OrderingOrganization(operator="One"),),
        channels=(Channel(name=CHANNEL, members=("One", "Two")),),
    )
    runtime = EmbeddedRuntime()
    ports = ports_module.allocate(runtime.services(plan), None, {})
    site = Site(tmp_path, plan, ports, runtime.endpoints(plan, ports))
    material = Material.create(plan, tmp_path / "organizations", datetime.now(UTC))
    blocks = genesis_blocks(plan, material, site.endpoints, tmp_path / "channels", datetime.now(UTC))
    ledger = await EmbeddedLedger.start(
        tmp_path / "ledger", peers=_nodes(site, material, "peer"), orderers=_nodes(site, material, "orderer")
    )
    chaincode = RawChaincode()
    chaincode.functions.update(ordinary())
    try:
        await ledger.join(blocks[CHANNEL])
        await chaincode.start_plain()
        yield Network(program, tmp_path, site, material, ledger, chaincode)
    finally:
        await ledger.stop(grace_s=0)
        await chaincode.stop()


async def test_from_a_package_to_a_committed_transaction(network: Network) -> None:
    """install, approve, check readiness, commit, query what is committed, invoke and wait for the event, query, fetch."""
    package = build_ccaas_package("goods_1", {"address": network.chaincode.address, "tls_required": False})
    identifier = network.chaincode.package_id = package_id(package, "goods_1")
    (network.folder / "goods.tgz").write_bytes(package)
    definition = ["--channelID", CHANNEL, "--name", "goods", "--version", "1", "--sequence", "1"]
    for organization in ("One", "Two"):
        await network.run("lifecycle", "chaincode", "install", "goods.tgz", organization=organization)
        installed = await network.run("lifecycle", "chaincode", "queryinstalled", organization=organization)
        assert identifier in installed
        await network.run(
            "lifecycle", "chaincode", "approveformyorg", *network.orderer, *definition,
            "--package-id", identifier, organization=organization,
        )  # fmt: skip
    ready = await network.run("lifecycle", "chaincode", "checkcommitreadiness", *definition, "--output", "json")
    assert json.loads(ready) == {"approvals": {"OneMSP": True, "TwoMSP": True}}
    await network.run("lifecycle", "chaincode", "commit", *network.orderer, *definition, *network.peers("One", "Two"))
    committed = await network.run("lifecycle", "chaincode", "querycommitted", "--channelID", CHANNEL, "--name", "goods")
    assert "Approvals: [OneMSP: true, TwoMSP: true]" in committed
    approved = await network.run("lifecycle", "chaincode", "queryapproved", "--channelID", CHANNEL, "--name", "goods")
    assert identifier in approved

    call = json.dumps({"Args": ["put", "crate", "full"]})
    invoked = await network.run(
        "chaincode", "invoke", *network.orderer, "-C", CHANNEL, "-n", "goods", *network.peers("One", "Two"),
        "--waitForEvent", "-c", call, user="User1",
    )  # fmt: skip
    assert "status:200" in invoked or invoked == ""
    asked = json.dumps({"Args": ["get", "crate"]})
    assert "full" in await network.run("chaincode", "query", "-C", CHANNEL, "-n", "goods", "-c", asked, user="User1")
    refused = json.dumps({"Args": ["fail", "500", "no such crate"]})
    said = await network.run(
        "chaincode", "query", "-C", CHANNEL, "-n", "goods", "-c", refused, user="User1", fails=True
    )
    assert "no such crate" in said


async def test_channels_are_listed_described_and_fetched(network: Network) -> None:
    """list, getinfo, and fetch of the oldest, the newest, a numbered and the configuration block."""
    assert re.search(rf"^{CHANNEL}$", await network.run("channel", "list"), re.MULTILINE)
    info = await network.run("channel", "getinfo", "-c", CHANNEL)
    assert '"height":1' in info.replace(" ", "")
    for which in ("oldest", "newest", "0", "config"):
        await network.run("channel", "fetch", which, f"{which}.block", "-c", CHANNEL, *network.orderer)
        block = parse_block((network.folder / f"{which}.block").read_bytes())
        assert ChannelBundle.from_block(block).channel_id == CHANNEL
    await network.run("channel", "fetch", "oldest", "own.block", "-c", CHANNEL)
    assert parse_block((network.folder / "own.block").read_bytes()).header.number == 0
    denied = await network.run("channel", "fetch", "config", "x.block", "-c", "elsewhere", *network.orderer, fails=True)
    assert "NOT_FOUND" in denied or "not found" in denied.lower() or "can't read the block" in denied
    assert common_pb2.Block.FromString(network.ledger.channels[CHANNEL].block(0) or b"").header.number == 0


async def osnadmin(network: Network, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run Fabric's program for ordering nodes' channels: the HTTP status that it shows, and the answer."""
    own = network.site.topology.ordering_organizations[0]
    part, host = network.material.organization(own.name), own.orderer_host
    tls = part.folder / "users" / f"Admin@{part.organization.domain}" / "tls"
    address = f"localhost:{network.ledger.admin_address_of(host).rpartition(':')[2]}"
    process = await asyncio.create_subprocess_exec(
        Path(network.program).parent / "osnadmin", "channel", *arguments,
        "-o", address, "--ca-file", tls / "ca.crt", "--client-cert", tls / "client.crt",
        "--client-key", tls / "client.key",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=network.folder,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    text = out.decode()
    assert process.returncode == 0, text
    head, _, body = text.partition("\n")
    return int(head.removeprefix("Status: ")), json.loads(body) if body.strip() else {}


async def test_osnadmin_lists_leaves_and_joins_channels(network: Network) -> None:
    """list, remove, join and, from 3.1 on, fetch and update, with the program's own mutual TLS."""
    (network.folder / "genesis.block").write_bytes(network.ledger.channels[CHANNEL].block(0) or b"")
    join = ["join", "--channelID", CHANNEL, "--config-block", "genesis.block"]
    status, listed = await osnadmin(network, "list")
    assert (status, [entry["name"] for entry in listed["channels"]]) == (200, [CHANNEL])
    status, shown = await osnadmin(network, "list", "--channelID", CHANNEL)
    assert (status, shown["status"], shown["consensusRelation"], shown["height"]) == (200, "active", "consenter", 1)
    assert await osnadmin(network, *join) == (405, {"error": "cannot join: channel already exists"})
    assert await osnadmin(network, "remove", "--channelID", CHANNEL) == (204, {})
    assert await osnadmin(network, "remove", "--channelID", CHANNEL) == (
        404, {"error": "cannot remove: channel does not exist"},
    )  # fmt: skip
    assert (await osnadmin(network, "list"))[1]["channels"] is None
    status, joined = await osnadmin(network, *join)
    assert (status, joined["name"], joined["status"]) == (201, CHANNEL, "active")
    help_text = subprocess.run([Path(network.program).parent / "osnadmin", "--help"], capture_output=True, text=True)
    if "channel fetch" in help_text.stdout + help_text.stderr:
        fetch = ["fetch", "--channelID", CHANNEL, "--blockID", "config", "--outputfile", "fetched.block"]
        await osnadmin(network, *fetch)
        assert parse_block((network.folder / "fetched.block").read_bytes()).header.number == 0
