"""The embedded ledger: every peer and every ordering node of a network as gRPC servers in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import grpc
import structlog
from fabric_protos.common import common_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.broadcast import Broadcaster
from sovchain.ledger.chaincode_stream import EXECUTE_TIMEOUT_S, StreamRefusedError
from sovchain.ledger.chainview import ChainView
from sovchain.ledger.channel import Channel
from sovchain.ledger.clock import LedgerClock
from sovchain.ledger.consenters import Consenters
from sovchain.ledger.deliver import (
    DELIVER_CONCURRENCY,
    ORDERER_BLOCKS,
    PEER_BLOCKS,
    PEER_BLOCKS_WITH_PRIVATE_DATA,
    PEER_FILTERED_BLOCKS,
    DeliverHandler,
    DeliverKind,
)
from sovchain.ledger.discovery import Discovery
from sovchain.ledger.endorser import Endorser
from sovchain.ledger.errors import GenesisRefused, LedgerError, StorageCorrupt
from sovchain.ledger.gateway import Gateway
from sovchain.ledger.nodespec import NodeConfigurationError, NodeSpec, check_specs, make_peer, signing_node
from sovchain.ledger.operations.endpoints import orderer_operations, peer_operations, serve_https
from sovchain.ledger.operations.https import Handler, HttpsServer
from sovchain.ledger.operations.metrics import LedgerMetrics, NodeMetrics, OrdererMetrics
from sovchain.ledger.operations.participation import Participation
from sovchain.ledger.orderer import SigningNode
from sovchain.ledger.peer import Peer
from sovchain.ledger.registry import Registry, SimulateTwice, StateDatabase
from sovchain.ledger.rpcstatus import StatusError
from sovchain.ledger.saved import LEDGER_FILE
from sovchain.ledger.service import Context, Service
from sovchain.ledger.storage import LedgerStore
from sovchain.ledger.tls import MAX_CONNECTIONS, SERVER_KEEPALIVE, SERVER_LIMITS, check_server_tls
from sovchain.ledger.tools import LedgerTools, stored_shift
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.errors import ProtocolError
from sovchain.rpc.errors import AddressError, TlsError
from sovchain.rpc.server import Server
from sovchain.rpc.tls import server_context

BROADCAST_CONCURRENCY: Final = 2_500
CHAINCODE_STREAMS: Final = 1_000
_log = structlog.get_logger("sovchain.ledger.node")


class AddressInUseError(LedgerError):
    """A node cannot listen on its address.

    Attributes:
        address: "host:port" as in the node's description.
        node: host name of the node.
    """

    def __init__(self, address: str, node: str) -> None:
        super().__init__(
            f"{node} cannot listen on {address}: another process uses the port or the address is not of this machine; "
            "stop the other process or choose another port"
        )
        self.address = address
        self.node = node


class DirectoryInUseError(LedgerError):
    """Another process has the ledger's directory open. `directory` is its path."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"cannot open the ledger in {directory}: another process has it open; stop that process first")
        self.directory = directory


class EmbeddedLedger:
    """All nodes of one network in this process, over one directory. Build it with `start`, end it with `stop`."""

    def __init__(self, directory: Path, registry: Registry, signers: Sequence[tuple[str, SigningNode]]) -> None:
        """For `start`, which everybody else uses."""
        self._directory = directory
        self._registry = registry
        self._signers = signers
        self._servers: dict[str, Server] = {}
        self._consenters = Consenters(directory, signers)
        self._broadcaster = Broadcaster(registry, self._consenters)
        self._addresses: dict[str, str] = {}
        self._https: dict[str, list[HttpsServer]] = {}
        self._specs: dict[str, NodeSpec] = {}
        self._orderer_hosts: set[str] = set()
        self._execute_timeout_s = EXECUTE_TIMEOUT_S
        self._metrics = LedgerMetrics()
        self._joining: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._lock: int | None = None
        self._stopped = False
        registry.join = self.join
        self.tools = LedgerTools(directory, registry, registry.clock, registry.faults, self)
        """What no peer of Fabric offers: snapshots, time, faults and more."""

    @classmethod
    async def start(
        cls,
        directory: Path,
        *,
        peers: Sequence[NodeSpec],
        orderers: Sequence[NodeSpec],
        simulate_twice: SimulateTwice = "always",
        state_database: StateDatabase = "leveldb",
        execute_timeout_s: float = EXECUTE_TIMEOUT_S,
    ) -> EmbeddedLedger:
        """Start the servers of all nodes and reopen the channels that the directory holds.

        Args:
            directory: where state lives: `ledger/<channel>/` and `peers/<MSP>/packages` below it.
            peers: the peers; of several of one organisation the first is who is asked for it.
            orderers: the ordering nodes. A channel's blocks are signed by the first one whose organisation orders it.
            simulate_twice: see `SimulateTwice`.
            state_database: see `StateDatabase`.
            execute_timeout_s: how long a chaincode may take for one transaction.

        Raises:
            AddressInUseError: another process listens on a node's address.
            NodeConfigurationError: a certificate, key or address of a node cannot be used.
            DirectoryInUseError: another process has the directory open.
            LedgerError: a stored channel cannot be opened (other format version, damaged).
        """
        check_specs(peers, orderers)
        registry = Registry(
            simulate_twice=simulate_twice,
            state_database=state_database,
            clock=LedgerClock(stored_shift(directory)),
        )
        signers = [(spec.host, signing_node(spec)) for spec in orderers]
        ledger = cls(directory, registry, signers)
        try:
            ledger._lock_directory()
            await ledger._open_channels(tuple(spec.msp_id for spec in peers))
            await ledger.add(peers=peers, orderers=orderers, execute_timeout_s=execute_timeout_s)
        except BaseException:
            await ledger.stop(grace_s=0)
            raise
        _log.info("ledger started", peers=len(peers), orderers=len(orderers), channels=sorted(registry.channels))
        return ledger

    @property
    def channels(self) -> Mapping[str, Channel]:
        """The joined channels by name."""
        return MappingProxyType(self._registry.channels)

    def address_of(self, host: str) -> str:
        """Return "address:port" on which the node with this host name listens. Raises KeyError for an unknown host."""
        return self._addresses[host]

    def operations_address_of(self, host: str) -> str:
        """Return "address:port" of a node's operations endpoint. Raises KeyError for a node without one."""
        return self._addresses[f"{host}/operations"]

    def admin_address_of(self, host: str) -> str:
        """Return "address:port" of an ordering node's administration. Raises KeyError for a node without one."""
        return self._addresses[f"{host}/admin"]

    async def join(self, genesis_block: bytes, msp_id: str | None = None) -> None:
        """Create the channel of this genesis block on every node that is a member. Idempotent.

        On a channel that is there already, peers of organisations that have become members since are joined, or only
        that of `msp_id`.

        Raises:
            GenesisRefused: the block is no channel configuration, or the channel exists with another genesis block.
            LedgerError: no node of this ledger orders the channel, or its directory cannot be written.
        """
        try:
            block = common_pb2.Block.FromString(genesis_block)
            bundle = ChannelBundle.from_block(block)
        except (DecodeError, ProtocolError) as error:
            raise GenesisRefused(str(error)) from error
        async with self._joining[bundle.channel_id]:
            existing = self._registry.channels.get(bundle.channel_id)
            if existing is not None:
                _check_same_genesis(existing, block)
                for member in existing.bundle.application_msp_ids:
                    if member in self._registry.peers and msp_id in (None, member):
                        await existing.admit(member)
                return
            await self._create(genesis_block, bundle, [peer.msp_id for peer in self._registry.peers.values()])

    async def _create(self, genesis_block: bytes, bundle: ChannelBundle, peer_msp_ids: Sequence[str]) -> Channel:
        members = [msp_id for msp_id in bundle.application_msp_ids if msp_id in peer_msp_ids]
        channel = await Channel.create(
            self._channel_directory(bundle.channel_id),
            genesis_block,
            peer_msp_ids=members,
            orderer=self._signer_of(bundle),
            now=self._registry.clock.now,
        )
        self._add_channel(channel)
        _log.info("channel joined", channel=channel.channel_id, peers=members)
        return channel

    def orders(self, host: str, channel: Channel) -> bool:
        """Whether an ordering node is on a channel."""
        return self._consenters.joined(host, channel)

    async def join_orderer(self, host: str, block: bytes) -> None:
        """Put one ordering node onto the channel of this block, as its administration does; other nodes stay as they are.

        A channel that is new is made by its genesis block, with this node alone and without peers.

        Raises GenesisRefused, and LedgerError where the node's organisation does not order the channel.
        """
        try:
            parsed = common_pb2.Block.FromString(block)
            bundle = ChannelBundle.from_block(parsed)
        except (DecodeError, ProtocolError) as error:
            raise GenesisRefused(str(error)) from error
        async with self._joining[bundle.channel_id]:
            channel = self._registry.channels.get(bundle.channel_id)
            if channel is None:
                if parsed.header.number != 0:
                    raise GenesisRefused("no node here has the channel, so it starts with block 0")
                self._consenters.begin(bundle.channel_id, host)
                channel = await self._create(block, bundle, ())
            else:
                _check_on_channel(channel, parsed)
                self._consenters.join(host, channel)
            if not self._consenters.joined(host, channel):
                raise LedgerError(f"{host} belongs to no ordering organisation of channel {channel.channel_id}")

    async def remove_orderer(self, host: str, channel_id: str) -> None:
        """Take one ordering node off a channel. A channel without nodes and peers is deleted."""
        async with self._joining[channel_id]:
            channel = self._registry.channels[channel_id]
            self._consenters.leave(host, channel)
            if self._consenters.hosts(channel) or channel.peer_msp_ids:
                return
            del self._registry.channels[channel_id]
            self._registry.drop(channel)
            await channel.close()
            await asyncio.to_thread(shutil.rmtree, self._channel_directory(channel_id))
            self._consenters.forget(channel_id)
            self._registry.forget([channel_id])

    async def add(
        self,
        *,
        peers: Sequence[NodeSpec] = (),
        orderers: Sequence[NodeSpec] = (),
        execute_timeout_s: float = EXECUTE_TIMEOUT_S,
    ) -> None:
        """Start the servers of further nodes. Those whose host has a server already are left as they are.

        Raises AddressInUseError, NodeConfigurationError.
        """
        self._execute_timeout_s = execute_timeout_s
        for spec in peers:
            if spec.host not in self._specs:
                await self._start_peer(spec, execute_timeout_s)
        for spec in orderers:
            if spec.host not in self._specs:
                await self._start_orderer(spec)

    async def remove(self, msp_id: str, host: str, *, grace_s: float = 2.0) -> None:
        """Stop the servers of a node; running requests end within `grace_s` seconds. What is stored stays. Idempotent."""
        spec = self._specs.pop(host, None)
        if spec is None:
            return
        await self.end(host, grace_s=grace_s)
        endpoint = self._addresses_gone(host)
        self._consenters.discard(host)
        if (endpoint, msp_id) in self._broadcaster.nodes:
            self._broadcaster.nodes.remove((endpoint, msp_id))
        for key, peer in tuple(self._registry.peers.items()):
            if peer.host == host:
                del self._registry.peers[key]
                await peer.close()

    @property
    def nodes(self) -> Mapping[str, str]:
        """MSP ids of the nodes by host name, peers and ordering nodes, ended ones too."""
        return {host: spec.msp_id for host, spec in self._specs.items()}

    def is_running(self, host: str) -> bool:
        """Whether a node's servers run."""
        return host in self._servers

    async def end(self, host: str, *, grace_s: float = 0.0) -> None:
        """End the servers of a node, as when its process dies; `begin` starts them again on the same addresses.

        The others take it for dead: nobody asks an ended peer to endorse, and a channel with less than a majority of its
        ordering nodes is not ordered. Raises KeyError for an unknown host. Idempotent.
        """
        spec = self._specs.get(host)
        if spec is None and host not in self._servers:
            raise KeyError(host)
        self._consenters.set_running(host, False)
        self._elect()
        for peer in self._registry.peers.values():
            if peer.host == host:
                peer.is_running = False
        for https in self._https.pop(host, ()):
            await https.stop()
        server = self._servers.pop(host, None)
        if server is not None:
            await server.stop(grace_s)

    def _elect(self) -> None:
        """Have the next blocks of each channel made by a node that runs."""
        for channel in self._registry.channels.values():
            signer = self._consenters.signer(channel)
            if signer is not None:
                channel.lead(signer)

    async def begin(self, host: str) -> None:
        """Start the servers of a node that was ended. Raises KeyError for an unknown host, AddressInUseError."""
        spec = self._specs[host]
        if host in self._servers:
            return
        spec = replace(
            spec,
            listen=self._addresses[host],
            operations_listen=self._addresses.get(f"{host}/operations", ""),
            admin_listen=self._addresses.get(f"{host}/admin", ""),
        )
        if spec.host in self._orderer_hosts:
            await self._start_orderer(spec)
        else:
            await self._start_peer(spec, self._execute_timeout_s)

    async def stop(self, *, grace_s: float = 2.0) -> None:
        """Stop taking requests, let running ones end within `grace_s` seconds, close all channels. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        await asyncio.gather(*(https.stop() for servers in self._https.values() for https in servers))
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers.values()))
        await asyncio.gather(*(peer.close() for peer in self._registry.peers.values()))
        for channel in self._registry.channels.values():
            await channel.close()
        _log.info("ledger stopped", channels=sorted(self._registry.channels))
        self._registry.channels.clear()
        if self._lock is not None:
            os.close(self._lock)

    # Channels -----------------------------------------------------------------------------------------------------

    def _lock_directory(self) -> None:
        """Make sure that no other process works on the directory; the lock ends with the process."""
        stored = self._directory / "ledger"
        stored.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(stored / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise DirectoryInUseError(self._directory) from error
        self._lock = descriptor

    def _channel_directory(self, channel_id: str) -> Path:
        return self._directory / "ledger" / channel_id

    async def _open_channels(self, peer_msp_ids: Iterable[str]) -> None:
        stored = self._directory / "ledger"
        for directory in sorted(path for path in stored.iterdir() if path.is_dir()):
            if not Channel.exists(directory):
                continue  # a channel that was being created when the process ended; joining it creates it anew
            bundle = await asyncio.to_thread(_stored_bundle, directory / LEDGER_FILE)
            members = [msp_id for msp_id in peer_msp_ids if msp_id in bundle.application_msp_ids]
            channel = await Channel.open(
                directory, peer_msp_ids=members, orderer=self._signer_of(bundle), now=self._registry.clock.now
            )
            self._add_channel(channel)

    def _add_channel(self, channel: Channel) -> None:
        channel.faults = self._registry.faults
        channel.metrics = self._metrics
        self._registry.channels[channel.channel_id] = channel

    def _signer_of(self, bundle: ChannelBundle) -> SigningNode:
        for _, signer in self._signers:
            if signer.msp_id in bundle.orderer_msp_ids:
                return signer
        raise LedgerError(
            f"cannot join channel {bundle.channel_id}: none of its ordering organisations "
            f"({', '.join(bundle.orderer_msp_ids)}) has a node here; start the ledger with one of their ordering nodes"
        )

    # Nodes --------------------------------------------------------------------------------------------------------

    async def _start_peer(self, spec: NodeSpec, execute_timeout_s: float) -> None:
        own = self._directory / "peers" / spec.msp_id
        if (first := self._registry.peers.get(spec.msp_id)) is not None and first.host != spec.host:
            own, key = own / spec.host, spec.host
        else:
            key = spec.msp_id
        peer = self._registry.peers.get(key)
        if peer is None:
            peer = make_peer(spec, self._registry, own / "packages", execute_timeout_s)
            self._registry.peers[key] = peer
        peer.is_running = True
        deliver = Service("protos.Deliver", DELIVER_CONCURRENCY)
        for name, kind in (
            ("Deliver", PEER_BLOCKS),
            ("DeliverFiltered", PEER_FILTERED_BLOCKS),
            ("DeliverWithPrivateData", PEER_BLOCKS_WITH_PRIVATE_DATA),
        ):
            deliver.duplex(
                name, self._deliver(kind, spec, peer.metrics, partial(self._registry.channel_of, peer)).serve
            )
        chaincode = Service("protos.ChaincodeSupport", CHAINCODE_STREAMS)
        chaincode.duplex("Register", _registration(peer))
        services = [
            Gateway(peer, self._broadcaster).service,
            Endorser(peer).service,
            Discovery(peer, mutual_tls=spec.client_auth).service,
            deliver,
            chaincode,
        ]
        await self._serve(spec, services, peer.metrics)
        peer.address = self._endpoint(spec)

        def channels() -> list[ChainView]:
            found = (self._registry.channel_of(peer, name) for name in sorted(self._registry.channels))
            return [channel for channel in found if channel is not None]

        await self._administer(spec, peer_operations(peer.metrics, self._metrics, channels, self._registry))

    async def _start_orderer(self, spec: NodeSpec) -> None:
        self._orderer_hosts.add(spec.host)
        self._consenters.add(spec.host, signing_node(spec))
        self._consenters.set_running(spec.host, True)
        metrics, node = OrdererMetrics(), _OrderingNode(self, spec.host)
        service = Service("orderer.AtomicBroadcast", BROADCAST_CONCURRENCY)
        service.duplex("Broadcast", self._broadcaster.at(spec.host, metrics))
        service.duplex("Deliver", self._deliver(ORDERER_BLOCKS, spec, metrics, node.channel).serve)
        await self._serve(spec, [service], metrics)
        if (self._endpoint(spec), spec.msp_id) not in self._broadcaster.nodes:
            self._broadcaster.nodes.append((self._endpoint(spec), spec.msp_id))
        operations = orderer_operations(metrics, self._metrics, node.all, self._consenters, spec.host)
        await self._administer(spec, operations, Participation(node))

    async def _administer(self, spec: NodeSpec, operations: Handler, participation: Handler | None = None) -> None:
        """Start what a node serves over HTTPS."""
        servers = self._https.setdefault(spec.host, [])
        for name, listen, handler in (
            ("operations", spec.operations_listen, operations),
            ("admin", spec.admin_listen, participation),
        ):
            if not listen or handler is None:
                continue
            try:
                server = await serve_https(
                    handler,
                    listen,
                    certificate_pem=spec.tls_certificate_pem,
                    private_key_pem=spec.tls_private_key_pem,
                    client_root_pems=spec.tls_root_pems,
                    demand_certificate=name == "admin",
                )
            except TlsError as error:
                raise NodeConfigurationError(spec.host, f"its TLS material cannot be used: {error}") from error
            except OSError as error:
                raise AddressInUseError(listen, spec.host) from error
            servers.append(server)
            self._addresses[f"{spec.host}/{name}"] = f"{listen.rpartition(':')[0]}:{server.port}"

    def _addresses_gone(self, host: str) -> str:
        """Forget the addresses of a node; return the one by which clients know it."""
        endpoint = f"{host}:{self._addresses.pop(host).rpartition(':')[2]}"
        for name in ("operations", "admin"):
            self._addresses.pop(f"{host}/{name}", None)
        return endpoint

    def _endpoint(self, spec: NodeSpec) -> str:
        """Return the address by which clients know a node: the host name of its certificate, and its port."""
        return f"{spec.host}:{self._addresses[spec.host].rpartition(':')[2]}"

    def _deliver(
        self, kind: DeliverKind, spec: NodeSpec, metrics: NodeMetrics, channel_of: Callable[[str], ChainView | None]
    ) -> DeliverHandler:
        return DeliverHandler(
            self._registry, channel_of, kind, msp_id=spec.msp_id, mutual_tls=spec.client_auth, metrics=metrics
        )

    async def _serve(self, spec: NodeSpec, services: Sequence[Service], metrics: NodeMetrics) -> None:
        self._specs[spec.host] = spec
        for service in services:
            service.metrics = metrics
        client_roots = spec.tls_root_pems if spec.client_auth else None
        try:
            check_server_tls(spec.tls_certificate_pem, spec.tls_private_key_pem, client_root_pems=client_roots)
        except ValueError as error:
            raise NodeConfigurationError(spec.host, str(error)) from error
        server = Server(
            spec.listen,
            {path: method for service in services for path, method in service.methods.items()},
            tls=server_context(spec.tls_certificate_pem, spec.tls_private_key_pem, client_roots),
            keepalive=SERVER_KEEPALIVE,
            limits=SERVER_LIMITS,
            max_connections=MAX_CONNECTIONS,
        )
        try:
            await server.start()
        except AddressError as error:
            raise AddressInUseError(spec.listen, spec.host) from error
        self._servers[spec.host] = server
        self._addresses[spec.host] = server.address


class _OrderingNode:
    """The channels of one ordering node, for its administration (`participation.OrderingNodeChannels`)."""

    def __init__(self, ledger: EmbeddedLedger, host: str) -> None:
        self._ledger = ledger
        self._host = host

    def all(self) -> list[Channel]:
        """The channels that the node is on."""
        found = [channel for _, channel in sorted(self._ledger.channels.items())]
        return [channel for channel in found if self._ledger.orders(self._host, channel)]

    def channels(self) -> list[str]:
        """Their names."""
        return [channel.channel_id for channel in self.all()]

    def channel(self, name: str) -> Channel | None:
        """One of them."""
        channel = self._ledger.channels.get(name)
        return channel if channel is not None and self._ledger.orders(self._host, channel) else None

    async def join(self, block: bytes, channel_id: str) -> Channel:
        """See `EmbeddedLedger.join_orderer`."""
        await self._ledger.join_orderer(self._host, block)
        return self._ledger.channels[channel_id]

    async def remove(self, channel: Channel) -> None:
        """See `EmbeddedLedger.remove_orderer`."""
        await self._ledger.remove_orderer(self._host, channel.channel_id)


def _registration(peer: Peer) -> Any:
    async def register(context: Context) -> None:
        # A chaincode sees transient data, and this listener asks for no client certificate: the connection must come
        # from this machine, and the package must say that its chaincode dials the peer.
        if not _is_local(context.peer):
            raise StatusError(grpc.StatusCode.PERMISSION_DENIED, "chaincode connects from this machine only")
        try:
            await peer.chaincodes.serve(context)
        except StreamRefusedError as error:
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, str(error)) from error

    return register


def _is_local(address: str) -> bool:
    """Whether "host:port" or "unix" is of this machine."""
    if address == "unix":
        return True
    host = address.rpartition(":")[0]
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _check_on_channel(channel: Channel, block: common_pb2.Block) -> None:
    """Check that a configuration block is one of the channel's."""
    stored = channel.block(block.header.number)
    if stored is None or common_pb2.Block.FromString(stored).header != block.header:
        raise GenesisRefused(f"channel {channel.channel_id} has another block {block.header.number}")


def _check_same_genesis(channel: Channel, block: common_pb2.Block) -> None:
    stored = channel.block(0)
    if stored is None or common_pb2.Block.FromString(stored).header != block.header:
        raise GenesisRefused(f"channel {channel.channel_id} exists with another genesis block")


def _stored_bundle(path: Path) -> ChannelBundle:
    """Read which configuration a stored channel has, to know its members before it is opened."""
    store = LedgerStore.open(path)
    try:
        number = store.chain().last_config
        block = store.block(number)
    finally:
        store.close()
    if block is None:
        raise StorageCorrupt(path, "the last configuration block is missing", number)
    try:
        return ChannelBundle.from_block(common_pb2.Block.FromString(block))
    except (DecodeError, ProtocolError) as error:
        raise StorageCorrupt(path, f"its configuration is unusable: {error}", number) from error
