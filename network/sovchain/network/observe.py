"""Looking at a network: every node, channel, chaincode and certificate, asked at the same time.

Nothing here changes anything, and nothing that cannot be reached is an error: it is a row of the `Observation` that says
so. What is asked needs the administrators' keys; where an organisation's are not in the directory, its rows say that.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from cryptography import x509
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2, ledger_pb2
from google.protobuf.message import DecodeError

from sovchain.network.errors import NetworkError
from sovchain.network.genesis import HOST
from sovchain.network.instance import Status
from sovchain.network.lifecycle import Administration
from sovchain.network.material import Material, OrganizationMaterial
from sovchain.network.nodes import Peer
from sovchain.network.observation import (
    EXPIRES_WITHIN,
    CertificateSeen,
    Chain,
    ChaincodeSeen,
    ChannelSeen,
    NodeSeen,
    Observation,
    ServiceSeen,
    agreement,
)
from sovchain.network.participation import OrderingNodeAdmin
from sovchain.network.ports import authority_ports, node_ports
from sovchain.network.runtimes import create_runtime, own_part
from sovchain.network.runtimes.access import administrator_of, node_address, orderer_admin, site_of
from sovchain.network.runtimes.processes import orphan
from sovchain.network.topology import Node, Topology
from sovchain.protocol.blocks import header_hash
from sovchain.protocol.proposals import Invocation

ASK_TIMEOUT_S: Final = 5.0
"""How long each single question may take."""

_ELSEWHERE: Final = "elsewhere"
"""What is known of the part of another operator's ordering node in a channel: only its own administrator may ask."""
_MAX_PROBLEM: Final = 200
_LEADER: Final = re.compile(r'^consensus_(?:etcdraft|BFT)_is_leader\{channel="([^"]+)"\} 1$', re.MULTILINE)
_CERTIFICATE_FILES: Final = ("organizations/**/*.pem", "organizations/**/*.crt", "chaincode/**/*.crt")

T = TypeVar("T")


@dataclass(frozen=True)
class _Server:
    """A program of the network: its main port's name, what it is, whose it is, and the name of its operations port."""

    host: str
    kind: str
    organization: str
    operations: str


@dataclass(frozen=True)
class _Asked:
    """An ordering node's answers: its channels, and those that it leads."""

    parts: dict[str, Chain] = field(default_factory=dict)
    leads: frozenset[str] = frozenset()
    problem: str = ""


async def observe(status: Status) -> Observation:
    """Look at the network in a directory, whatever it runs on. A network that is down shows its certificates alone."""
    seen_at = datetime.now(UTC)
    found = Observation(
        seen_at,
        str(status.directory),
        status.state,
        status.pid,
        status.started_at,
        status.runtime,
        (),
        (),
        (),
        (),
        (),
        0,
    )
    if status.topology is None:
        return found
    certificates = await asyncio.to_thread(lambda: list(_files(status.directory)))
    if status.state != "down":
        async with _Observer(status) as observer:
            found = await observer.look(found)
        certificates += observer.shown
    soon = sorted(_soon(certificates, seen_at), key=lambda certificate: certificate.ends_at)
    return replace(found, certificates=tuple(soon), certificates_checked=len(certificates))


class _Observer:
    """The conversations with the nodes of one network, open for the length of the block."""

    def __init__(self, status: Status) -> None:
        assert status.topology is not None
        self.topology: Topology = status.topology
        self.runtime = status.runtime
        self.site = site_of(status)
        self.material = Material(self.topology, status.directory / "organizations")
        self.shown: list[tuple[str, bytes]] = []
        """Certificates that endpoints have shown, each with the endpoint's name."""
        self._serving = _serving(status.directory)
        self._open = AsyncExitStack()
        self._peers: dict[str, Peer | str] = {}

    async def __aenter__(self) -> _Observer:
        await self._open.__aenter__()
        for node in self._nodes("peer"):
            self._peers[node.host] = self._peer(node)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._open.__aexit__(*error)

    async def look(self, found: Observation) -> Observation:
        """Ask everything."""
        orderers = self._nodes("orderer")
        asked = dict(zip((n.host for n in orderers), await _all(self._orderer(node) for node in orderers), strict=True))
        nodes, channels, chaincodes, services = await asyncio.gather(
            _all(self._node(service, asked.get(service.host)) for service in self._servers()),
            _all(self._channel(name, asked) for name in self.site.channels),
            _all(self._definitions(name) for name in self.site.channels if self._reads(name)),
            self._services(),
        )
        return replace(
            found,
            nodes=tuple(nodes),
            channels=tuple(channels),
            chaincodes=tuple(chaincode for several in chaincodes for chaincode in several),
            services=tuple(services),
        )

    def _nodes(self, kind: str) -> list[Node]:
        """The nodes of a kind; where the network spans hosts, those whose addresses are known."""
        nodes = [node for node in self.topology.nodes if node.kind == kind]
        return [node for node in nodes if not self.site.operator or node.host in self.site.endpoints]

    def _is_here(self, node: Node) -> bool:
        return node in self.site.nodes

    def _reads(self, channel: str) -> bool:
        """Whether one who is asked here may read a channel: an operator reads those that it is a member of."""
        return not self.site.operator or self.site.operator in self.topology.channel(channel).members

    def _address(self, host: str) -> str:
        if self.site.operator and host in self.site.endpoints:
            address, port = self.site.endpoints[host]
            return f"{address}:{port}"
        return f"{HOST}:{self.site.ports.get(host, 0)}"

    def _peer(self, node: Node) -> Peer | str:
        """A conversation with a peer, or why there can be none. One of another operator is asked as any reader may."""
        try:
            asker = self.topology.organization(node.organization if self._is_here(node) else self.site.operator)
            own = self.material.organization(node.organization)
            peer = Peer(node_address(self.site, own, node.host), administrator_of(self.material, asker))
        except (NetworkError, KeyError, ValueError) as error:
            return _words(error)
        self._open.push_async_callback(peer.close)
        return peer

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _servers(self) -> Iterator[_Server]:
        for node in (*self._nodes("peer"), *self._nodes("orderer")):
            yield _Server(node.host, node.kind, node.organization, node_ports(node)["operations"])
        for part in own_part(self.topology, self.site.operator).everyone:
            if ports := authority_ports(part):
                yield _Server(ports["main"], "authority", part.name, ports["operations"])

    async def _node(self, server: _Server, asked: _Asked | None) -> NodeSeen:
        address = self._address(server.host)
        certificate, problem = await _attempt(lambda: _shown(address))
        if certificate is not None:
            self.shown.append((address, certificate))
        pid = orphan(self.site.directory / f"run/{server.host}.pid") or 0
        seen = NodeSeen(
            server.host, server.kind, server.organization, address, answers=certificate is not None, pid=pid,
            memory_mib=_memory_mib(pid), problem=problem or (asked.problem if asked else ""),
        )  # fmt: skip
        port = self.site.ports.get(server.operations)
        if port is None or not seen.answers:
            return seen
        health, problem = await _attempt(lambda: self._health(server, port))
        state, version = health or ("", "")
        return replace(
            seen, health=state, version=version, metrics=f"https://{HOST}:{port}/metrics",
            problem=seen.problem or problem,
        )  # fmt: skip

    async def _health(self, server: _Server, port: int) -> tuple[str, str]:
        """Health and release of a node (github.com/hyperledger/fabric-lib-go/healthz, core/operations/system.go)."""
        material = self.material.organization(server.organization)
        async with _client(material, port, with_certificate=False) as client:
            health = (await client.get("/healthz")).json()
            version = (await client.get("/version")).json()
        failed = ", ".join(f"{part['component']}: {part['reason']}" for part in health.get("failed_checks") or ())
        return failed or str(health.get("status", "")), str(version.get("Version", "")).removeprefix("v")

    async def _orderer(self, node: Node) -> _Asked:
        """The channels of an ordering node, by its administration and its metrics."""
        ports = node_ports(node)
        parts, problem = await _attempt(lambda: self._participation(node))
        leads, unmeasured = await _attempt(lambda: self._leads(node, self.site.ports[ports["operations"]]))
        return _Asked(parts or {}, leads or frozenset(), problem or unmeasured)

    async def _participation(self, node: Node) -> dict[str, Chain]:
        material = self.material.organization(node.organization)
        admin: OrderingNodeAdmin = orderer_admin(self.site, material, node.host)
        try:
            states = await _all(admin.channel(name) for name in await admin.channels())
        finally:
            await admin.close()
        return {
            state.name: Chain(node.host, state.height, part=f"{state.relation}, {state.status}")
            for state in states
            if state is not None
        }

    async def _leads(self, node: Node, port: int) -> frozenset[str]:
        async with _client(self.material.organization(node.organization), port, with_certificate=True) as client:
            answer = await client.get("/metrics")
            answer.raise_for_status()
        return frozenset(_LEADER.findall(answer.text))

    # -- channels ----------------------------------------------------------------------------------------------------

    async def _channel(self, name: str, asked: dict[str, _Asked]) -> ChannelSeen:
        members = self.topology.members(name) if self._reads(name) else ()
        hosts = [node.host for part in members for node in part.all_nodes]
        peers = await _all(self._chain(host, name) for host in hosts)
        orderers = [
            self._ordered(node, name, asked[node.host]) for o in self.topology.orderers(name) for node in o.all_nodes
        ]
        leader = next((chain.host for chain in orderers if chain.leads), "")
        if not leader and any(chain.part == _ELSEWHERE for chain in orderers):
            leader = _ELSEWHERE
        return ChannelSeen(
            name, self.topology.channel(name).members, tuple(peers), tuple(orderers),
            await self._agreement(name, peers), leader,
        )  # fmt: skip

    def _ordered(self, node: Node, channel: str, asked: _Asked) -> Chain:
        if not self._is_here(node):
            return Chain(node.host, part=_ELSEWHERE)
        chain = asked.parts.get(channel)
        if chain is None:
            return Chain(node.host, problem=asked.problem or "it has not joined the channel")
        return replace(chain, leads=channel in asked.leads)

    async def _chain(self, host: str, channel: str) -> Chain:
        info, problem = await _attempt(lambda: self._info(host, channel))
        if info is None:
            return Chain(host, problem=problem)
        return Chain(host, info.height, info.currentBlockHash.hex())

    async def _info(self, host: str, channel: str) -> ledger_pb2.BlockchainInfo:
        return ledger_pb2.BlockchainInfo.FromString(await self._ledger(host, channel, "GetChainInfo"))

    async def _ledger(self, host: str, channel: str, function: str, *arguments: str) -> bytes:
        """Ask a peer's ledger (core/scc/qscc/query.go)."""
        peer = self._peers[host]
        if isinstance(peer, str):
            raise NetworkError(f"{host} cannot be asked", peer, "ask where its administrator's key is")
        sent = tuple(text.encode() for text in (function, channel, *arguments))
        answer = await peer.propose("query", "qscc", peer.administrator.proposal(Invocation(channel, "qscc", sent)))
        return answer.response.payload

    async def _agreement(self, channel: str, peers: Sequence[Chain]) -> str:
        """Compare the block that all peers have, at the lowest of their heights."""
        answered = [chain for chain in peers if chain.height]
        lowest = min((chain.height for chain in answered), default=0)

        async def at_lowest(chain: Chain) -> str:
            if chain.height == lowest:
                return chain.head
            found, _ = await _attempt(
                lambda: self._ledger(chain.host, channel, "GetBlockByNumber", str(lowest - 1))
            )  # a peer that joined by a snapshot does not have the blocks before it
            return header_hash(common_pb2.Block.FromString(found).header).hex() if found else ""

        return agreement(await _all(at_lowest(chain) for chain in answered))

    # -- chaincodes --------------------------------------------------------------------------------------------------

    async def _definitions(self, channel: str) -> list[ChaincodeSeen]:
        """The definitions of a channel as the first member's peer that answers knows them."""
        wanted = [spec.name for spec in self.topology.chaincodes if channel in spec.channels]
        problem = "no peer of the channel answers"
        for organization in self.topology.members(channel):
            peer = self._peers[organization.peer_host]
            if isinstance(peer, str):
                problem = peer
                continue
            administration = Administration(peer)
            names, problem = await _attempt(lambda: administration.definitions(channel))  # noqa: B023  # awaited at once
            if names is not None:
                wanted = list(dict.fromkeys([*wanted, *names]))
                return await _all(self._definition(administration, channel, name) for name in wanted)
        return [ChaincodeSeen(channel, name, problem=problem) for name in wanted]

    @staticmethod
    async def _definition(administration: Administration, channel: str, name: str) -> ChaincodeSeen:
        found, problem = await _attempt(lambda: administration.committed(channel, name))
        if found is None:
            return ChaincodeSeen(channel, name, problem=problem or "no definition is committed")
        collections = tuple(entry.static_collection_config.name for entry in found.collections.config)
        return ChaincodeSeen(
            channel, name, found.version, found.sequence, dict(sorted(found.approvals.items())), collections
        )

    async def _services(self) -> list[ServiceSeen]:
        """The chaincodes that run as services: on ports of this machine, or in containers."""
        runtime = create_runtime(self.runtime)
        wanted = runtime.services(own_part(self.topology, self.site.operator))
        names = [name for name in wanted if name.startswith("chaincode ") and name in self.site.ports]
        if self.runtime != "docker":
            return await _all(self._service(name) for name in names)
        serving, problem = await _attempt(lambda: runtime.serving(self.site, names))
        problem = problem or "no container that runs serves it"
        return [
            ServiceSeen(name, "container", name in (serving or ()), problem="" if name in (serving or ()) else problem)
            for name in names
        ]

    async def _service(self, name: str) -> ServiceSeen:
        port = self.site.ports[name]
        certificate, problem = await _attempt(lambda: _shown(f"{HOST}:{port}"))
        if certificate is not None:
            self.shown.append((f"{HOST}:{port}", certificate))
        return ServiceSeen(name, f"{HOST}:{port}", certificate is not None, self._serving.get(port, 0), problem)


def _serving(directory: Path) -> dict[int, int]:
    """Number of the process that serves chaincode at a port, by the port: each has its configuration in its command."""
    found: dict[int, int] = {}
    for path in (directory / "run").glob("chaincode-*.pid"):
        pid = orphan(path)
        with suppress(OSError, ValueError, KeyError, TypeError):
            command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            services = json.loads(Path(command[command.index("--config") + 1]).read_bytes())["services"]
            found |= {int(service["address"].rpartition(":")[2]): pid for service in services if pid}
    return found


def _client(material: OrganizationMaterial, port: int, *, with_certificate: bool) -> httpx.AsyncClient:
    """A client of a node's operations endpoint; metrics and log levels ask for a certificate of the organisation."""
    tls = material.folder / f"users/Admin@{material.organization.domain}/tls"
    context = ssl.create_default_context(cadata=material.tls_root_pem.decode())
    if with_certificate:
        context.load_cert_chain(tls / "client.crt", tls / "client.key")
    return httpx.AsyncClient(base_url=f"https://{HOST}:{port}", verify=context, timeout=ASK_TIMEOUT_S, trust_env=False)


async def _shown(address: str) -> bytes:
    """The certificate (DER) that an endpoint shows, whoever it is: it is looked at, not trusted."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        certificate: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    if certificate is None:
        raise NetworkError("no certificate", "the endpoint shows none", "look at what listens there")
    return certificate


def _files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every certificate in the network's files, once, with the shortest path that holds it."""
    paths = {path for pattern in _CERTIFICATE_FILES for path in directory.glob(pattern)}
    seen: set[bytes] = set()
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        with suppress(OSError, ValueError):  # what cannot be read is found by whoever needs it
            content = path.read_bytes()
            if content not in seen and b"BEGIN CERTIFICATE" in content:
                seen.add(content)
                yield str(path.relative_to(directory)), content


def _soon(certificates: Iterable[tuple[str, bytes]], now: datetime) -> Iterator[CertificateSeen]:
    for place, content in certificates:
        with suppress(ValueError):
            pem = content.startswith(b"-----") or b"BEGIN CERTIFICATE" in content
            parsed = x509.load_pem_x509_certificates(content) if pem else [x509.load_der_x509_certificate(content)]
            for certificate in parsed:
                left = certificate.not_valid_after_utc - now
                if left <= EXPIRES_WITHIN:
                    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
                    subject = str(names[0].value) if names else ""
                    yield CertificateSeen(subject, place, certificate.not_valid_after_utc, left.days)


def _memory_mib(pid: int) -> int:
    """Resident memory of a process; 0 where the system does not tell."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) // 1024
    return 0


async def _attempt(ask: Callable[[], Awaitable[T]]) -> tuple[T | None, str]:
    """Ask, and return the answer, or None and why there is none."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return await ask(), ""
    except TimeoutError:
        return None, f"no answer within {ASK_TIMEOUT_S:g} s"
    except (NetworkError, httpx.HTTPError, OSError, KeyError, ValueError, DecodeError) as error:
        return None, _words(error)


def _words(error: Exception) -> str:
    """One line about why something cannot be asked."""
    words = error.why if isinstance(error, NetworkError) else str(error)
    return " ".join((words or type(error).__name__).split())[:_MAX_PROBLEM]


async def _all(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*awaitables))
