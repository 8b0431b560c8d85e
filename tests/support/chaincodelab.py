"""One small network with chaincodes of any language on it, called through the peer's own Endorser service.

Each chaincode is a service in a process of its own that the peer dials with mutual TLS: ours in Python, `fabric-shim` in
Node and `fabric-chaincode-go` in Go run the echo contract of `tests/chaincode/shim_conformance`. Proposals are made and
signed before they are sent, so that the caller costs the same whatever it calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fabric_protos.peer import collection_pb2, proposal_response_pb2

from sovchain.network import Network, Topology
from sovchain.network.checks import check
from sovchain.network.lifecycle import Administration, deploy
from sovchain.network.nodes import NodeAddress, OrderingNodes, Peer, SignedInvocation
from sovchain.network.runtimes.access import administered_peer, node_address
from sovchain.network.runtimes.chaincodes import ChaincodeTls
from sovchain.protocol import policydsl
from sovchain.protocol.lifecycle import ChaincodeDefinition, signature_application_policy
from sovchain.protocol.packages import build_ccaas_package, package_id
from sovchain.protocol.proposals import Invocation

ECHO = Path(__file__).resolve().parents[1] / "chaincode/shim_conformance"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sovchain"
NODE_PACKAGE = "fabric-shim@2.5.8"
GO_SOURCE = "SOVCHAIN_FABRIC_SOURCE"
"""Environment variable: a source tree of Fabric 3 with its `vendor` folder, which holds the Go shim."""
CHANNEL, OTHER_CHANNEL = "lab", "annex"
COLLECTION = "own"
ORGANIZATIONS = ("Lab", "Second")
READY_TIMEOUT_S = 90.0


class Missing(Exception):
    """A language cannot be used on this machine; the text says why and how to get it."""


def topology(version: str = "3.1", state_database: str = "leveldb") -> Topology:
    """Two organisations with a peer and an ordering node each, two channels and no chaincode."""
    document: dict[str, Any] = {
        "name": "lab",
        "fabric_version": version,
        "state_database": state_database,
        "organizations": [
            {"name": name, "msp_id": f"{name}MSP", "domain": f"{name.lower()}.example"} for name in ORGANIZATIONS
        ],
        "ordering_organizations": [
            {
                "name": f"{name}Orderer",
                "msp_id": f"{name}OrdererMSP",
                "domain": f"orderer.{name.lower()}.example",
                "operator": name,
            }
            for name in ORGANIZATIONS
        ],
        "channels": [{"name": name, "members": ORGANIZATIONS} for name in (CHANNEL, OTHER_CHANNEL)],
        "chaincodes": [],
        "accept": ["ordering-majority"],
    }
    return check(Topology.model_validate(document))


def node_command() -> list[str]:
    """The command that runs `echo.js`, with `fabric-shim` from npm in a cache folder. Raises Missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("missing program: node with npm: install Node.js 20 (Debian: apt-get install nodejs npm)")
    folder = CACHE / "node-chaincode"
    if not (folder / "node_modules/fabric-shim").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        command = [npm, "install", "--silent", "--ignore-scripts", NODE_PACKAGE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=180)
        if done.returncode != 0:
            raise Missing(f"missing program: {NODE_PACKAGE}: npm could not install it")
    script = folder / "echo.js"
    script.write_bytes((ECHO / "echo.js").read_bytes())
    return [node, str(script)]


def go_command(folder: Path) -> list[str]:
    """The command that runs `echo.go`, built into `folder` against the shim in Fabric's vendor folder. Raises Missing."""
    go, source = os.environ.get("SOVCHAIN_GO") or shutil.which("go"), os.environ.get(GO_SOURCE)
    if go is None or source is None:
        raise Missing(
            "missing program: go with the shim's source: install Go, and name a source tree of Fabric 3 with its vendor"
            f" folder in {GO_SOURCE}"
        )
    (folder / "main.go").write_bytes((ECHO / "echo.go").read_bytes())
    overlay, program = folder / "overlay.json", folder / "echo"
    overlay.write_text(json.dumps({"Replace": {f"{source}/sovchain_echo/main.go": str(folder / "main.go")}}))
    flags = {"GOFLAGS": "-mod=vendor", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        [go, "build", "-overlay", str(overlay), "-o", str(program), "./sovchain_echo"],
        cwd=source, env={**os.environ, **flags}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode != 0:
        raise Missing(f"missing program: the Go shim: go build failed: {done.stderr.strip()[-300:]}")
    return [str(program)]


@dataclass
class Service:
    """A chaincode's process."""

    name: str
    address: str
    chaincode_id: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Start the process and wait until it listens."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        host, _, port = self.address.rpartition(":")
        async with asyncio.timeout(READY_TIMEOUT_S):
            while True:
                if self.process.poll() is not None:
                    raise RuntimeError(f"chaincode {self.name} has ended: {self.log_path.read_text()[-2000:]}")
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(host, int(port))
                    writer.close()
                    return
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """End the process at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """End the process with SIGTERM, or after 10 s with SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class Lab:
    """A network that is up, with the chaincodes that `add` brings."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.services: dict[str, Service] = {}
        self._folder = folder
        self._tls = ChaincodeTls.create(folder / "tls", datetime.now(UTC))
        running = network._nodes
        assert running is not None
        self._running = running
        self.peer, self.second = (
            administered_peer(running.site, running.material, organization)
            for organization in running.site.topology.organizations
        )
        self.administrator = self.peer.administrator
        self.raw_endorser = _endorser(self.peer)
        """Takes and gives bytes: a marshalled `SignedProposal` and `ProposalResponse`."""

    @classmethod
    @contextlib.asynccontextmanager
    async def up(cls, folder: Path, *, runtime: str = "native", version: str = "3.1") -> AsyncIterator[Lab]:
        """Bring the network up in `folder`, take everything down at the end."""
        folder.mkdir(parents=True, exist_ok=True)
        async with Network.up(topology(version), runtime, folder / "network") as network:
            lab = cls(network, folder)
            try:
                yield lab
            finally:
                await asyncio.gather(lab.peer.close(), lab.second.close())
                for service in lab.services.values():
                    service.stop()

    # -- chaincodes --------------------------------------------------------------------------------------------------

    async def add_python(self, name: str, reference: str = "echo_chaincode", **environment: str) -> Service:
        """Deploy a chaincode that runs on our runtime; `reference` is looked for beside the echo contract too."""
        key, certificate = self._tls.server[1], self._tls.server[0]
        variables = {
            "CHAINCODE_TLS_KEY": str(key),
            "CHAINCODE_TLS_CERT": str(certificate),
            "CHAINCODE_CLIENT_CA_CERT": str(self._tls.root),
            "PYTHONPATH": os.pathsep.join([str(ECHO), *(path for path in sys.path if path)]),
            **environment,
        }
        return await self._add(name, [sys.executable, "-m", "sovchain.chaincode", "serve", reference], variables)

    async def add_node(self, name: str) -> Service:
        """Deploy the echo contract on `fabric-shim`. Raises Missing."""
        return await self._add(name, await asyncio.to_thread(node_command), {}, arguments=True)

    async def add_go(self, name: str) -> Service:
        """Deploy the echo contract on `fabric-chaincode-go`. Raises Missing."""
        return await self._add(name, await asyncio.to_thread(go_command, self._folder), {}, arguments=True)

    async def _add(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, arguments: bool = False
    ) -> Service:
        address = f"127.0.0.1:{_free_port()}"
        certificate, key = self._tls.client
        connection = {
            "address": address,
            "dial_timeout": "10s",
            "tls_required": True,
            "client_auth_required": True,
            "root_cert": self._tls.root.read_text(),
            "client_cert": certificate.read_text(),
            "client_key": key.read_text(),
        }
        package = build_ccaas_package(f"{name}_1.0", connection)
        chaincode_id = package_id(package, f"{name}_1.0")
        if arguments:
            files = (self._tls.server[1], self._tls.server[0], self._tls.root)
            command = [*command, chaincode_id, address, *map(str, files)]
        variables = {**environment, "CHAINCODE_ID": chaincode_id, "CHAINCODE_SERVER_ADDRESS": address}
        service = Service(name, address, chaincode_id, command, variables, self._folder / f"{name}.log")
        self.services[name] = service
        await service.start()
        await self._deploy(name, package, chaincode_id)
        return service

    async def _deploy(self, name: str, package: bytes, chaincode_id: str) -> None:
        members = [Administration(self.peer), Administration(self.second)]
        await asyncio.gather(*(member.install(package, name) for member in members))
        policy = signature_application_policy("OR('LabMSP.peer')")
        definition = ChaincodeDefinition(name, "1.0", 0, policy, _collections())
        for channel in (CHANNEL, OTHER_CHANNEL):
            orderers = OrderingNodes(self._orderers())
            try:
                await deploy(channel, definition, dict.fromkeys(members, chaincode_id), orderers)
            finally:
                await orderers.close()

    def _orderers(self) -> list[NodeAddress]:
        return [
            node_address(self._running.site, part, node.host)
            for part in (self._running.material.organization(f"{name}Orderer") for name in ORGANIZATIONS)
            for node in part.organization.all_nodes
        ]

    # -- calls -------------------------------------------------------------------------------------------------------

    def proposal(
        self,
        chaincode: str,
        *args: str,
        transient: Mapping[str, bytes] | None = None,
        channel: str = CHANNEL,
    ) -> SignedInvocation:
        """A signed proposal."""
        encoded = tuple(arg.encode() for arg in args)
        return self.administrator.proposal(Invocation(channel, chaincode, encoded, transient or {}))

    async def endorse(
        self, proposal: SignedInvocation, timeout_s: float = 60.0, peer: Peer | None = None
    ) -> proposal_response_pb2.ProposalResponse:
        """What the peer answers to a proposal, refusals included. Raises grpc.aio.AioRpcError."""
        endorser = self.raw_endorser if peer is None else _endorser(peer)
        answer = await endorser(proposal.signed.SerializeToString(), timeout=timeout_s)
        return proposal_response_pb2.ProposalResponse.FromString(answer)

    async def commit(
        self, proposal: SignedInvocation, answer: proposal_response_pb2.ProposalResponse, channel: str = CHANNEL
    ) -> int:
        """Order an endorsed transaction and wait until the peer has committed it as valid; return the block."""
        orderers = OrderingNodes(self._orderers())
        try:
            envelope = self.administrator.transaction(proposal, [answer])
            await orderers.broadcast("lab", "echo", channel, envelope)
        finally:
            await orderers.close()
        return await self.peer.committed("lab", "echo", channel, proposal.transaction_id)

    async def call(self, chaincode: str, *args: str, **options: Any) -> bytes:
        """The payload that a call returns. Raises RuntimeError when it is refused."""
        answer = await self.endorse(self.proposal(chaincode, *args, **options))
        if answer.response.status >= 400:
            raise RuntimeError(answer.response.message)
        return answer.response.payload

    async def submit(self, chaincode: str, *args: str, **options: Any) -> bytes:
        """Call, commit, and return the payload."""
        proposal = self.proposal(chaincode, *args, **options)
        answer = await self.endorse(proposal)
        if answer.response.status >= 400:
            raise RuntimeError(answer.response.message)
        await self.commit(proposal, answer, options.get("channel", CHANNEL))
        return answer.response.payload


def _endorser(peer: Peer) -> Any:
    return peer._channel.unary_unary("/protos.Endorser/ProcessProposal")


def _collections() -> collection_pb2.CollectionConfigPackage:
    policy = collection_pb2.CollectionPolicyConfig(
        signature_policy=policydsl.parse("OR('LabMSP.member', 'SecondMSP.member')")
    )
    own = collection_pb2.StaticCollectionConfig(name=COLLECTION, member_orgs_policy=policy, maximum_peer_count=1)
    return collection_pb2.CollectionConfigPackage(
        config=[collection_pb2.CollectionConfig(static_collection_config=own)]
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
