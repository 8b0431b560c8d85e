"""The HTTPS addresses of the nodes of a ledger: what each serves, and their start and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from sovchain.ledger.chainview import ChainView
from sovchain.ledger.channel import Channel
from sovchain.ledger.consenters import Consenters
from sovchain.ledger.operations.https import Handler, HttpsServer, server_context
from sovchain.ledger.operations.metrics import (
    Gauge,
    Labels,
    LedgerMetrics,
    Metric,
    NodeMetrics,
    exposition,
    process_metrics,
)
from sovchain.ledger.operations.system import VERSION, OperationsSystem
from sovchain.ledger.registry import Registry

_CHANNEL: Labels = ("channel",)
Channels = Callable[[], Sequence[ChainView]]


async def serve_https(
    handler: Handler,
    listen: str,
    *,
    certificate_pem: bytes,
    private_key_pem: bytes,
    client_root_pems: bytes,
    demand_certificate: bool = False,
) -> HttpsServer:
    """Start a server. Raises OSError when it cannot listen, TlsError for material that cannot be used."""
    context = server_context(certificate_pem, private_key_pem, client_root_pems, demand_certificate=demand_certificate)
    server = HttpsServer(handler)
    await server.start(listen, context)
    return server


def peer_operations(metrics: NodeMetrics, shared: LedgerMetrics, channels: Channels, registry: Registry) -> Handler:
    """The operations endpoint of a peer that is on these channels."""

    def written() -> bytes:
        there = channels()
        peers = {channel.channel_id: len(registry.peers_of(channel)) for channel in there}
        gauges = (
            _heights("ledger_blockchain_height", "Height of the chain in blocks.", there),
            _heights("gossip_state_height", "Current ledger height", there),
            _gauge(
                "gossip_membership_total_peers_known", "Total known peers", {name: n - 1 for name, n in peers.items()}
            ),
        )
        return _exposed((*metrics.all(), *gauges), shared.of_peers(), there)

    return OperationsSystem(lambda: _failures(channels()), written)


def orderer_operations(
    metrics: NodeMetrics,
    shared: LedgerMetrics,
    channels: Callable[[], Sequence[Channel]],
    consenters: Consenters,
    host: str,
) -> Handler:
    """The operations endpoint of an ordering node that is on these channels."""

    def written() -> bytes:
        there = channels()

        def of(read: Callable[[Channel], float]) -> dict[str, float]:
            return {channel.channel_id: read(channel) for channel in there}

        raft = "consensus_etcdraft"
        gauges = (
            _heights("ledger_blockchain_height", "Height of the chain in blocks.", there),
            _gauge(
                f"{raft}_is_leader", "The leadership status of the current node: 1 if it is the leader else 0.",
                of(lambda channel: consenters.leader(channel) == host),
            ),
            _gauge(
                f"{raft}_cluster_size", "Number of nodes in this channel.",
                of(lambda channel: len(consenters.hosts(channel))),
            ),
            _gauge(f"{raft}_active_nodes", "Number of active nodes in this channel.", of(consenters.active)),
            _gauge(
                f"{raft}_committed_block_number", "The block number of the latest block committed.",
                of(lambda channel: channel.height - 1),
            ),
            _gauge(
                "participation_consensus_relation", "The channel participation consensus relation of the node: "
                "0 if other, 1 if consenter, 2 if follower, 3 if config-tracker.", of(lambda _: 1),
            ),
            _gauge(
                "participation_status", "The channel participation status of the node: "
                "0 if inactive, 1 if active, 2 if onboarding, 3 if failed.", of(lambda _: 1),
            ),
        )  # fmt: skip
        return _exposed((*metrics.all(), *gauges), shared.of_orderers(), there)

    return OperationsSystem(lambda: _failures(channels()), written)


def _failures(channels: Iterable[ChainView]) -> Iterator[tuple[str, str]]:
    for channel in channels:
        if channel.stopped is not None:
            yield f"channel {channel.channel_id}", channel.stopped.reason


def _exposed(own: Iterable[Metric], shared: Iterable[Metric], channels: Sequence[ChainView]) -> bytes:
    """Write what the node counts, and of what is counted for all nodes that which is about its channels."""
    names = {channel.channel_id for channel in channels}
    version = Gauge("fabric_version", "The active version of Fabric.", ("version",), lambda: [((VERSION,), 1.0)])
    theirs = exposition(shared, lambda _, values: values[0] in names)
    return exposition((*own, *process_metrics(), version)) + theirs


def _gauge(name: str, help_text: str, values: dict[str, float]) -> Gauge:
    return Gauge(name, help_text, _CHANNEL, lambda: [((channel,), float(value)) for channel, value in values.items()])


def _heights(name: str, help_text: str, channels: Sequence[ChainView]) -> Gauge:
    return _gauge(name, help_text, {channel.channel_id: channel.height for channel in channels})
