"""The discovery service: which peers a channel has, what its configuration is, and who can endorse a chaincode together.

Mirrors discovery/service.go, discovery/support/config/support.go and discovery/endorsement/endorsement.go. A real peer
learns of the others by gossip; here all peers are in one process, so what they would have told of themselves is made
when it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import grpc
import structlog
from fabric_protos.common import configuration_pb2
from fabric_protos.discovery import protocol_pb2
from fabric_protos.gossip import message_pb2
from fabric_protos.peer import proposal_response_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.access import AccessDeniedError
from sovchain.ledger.chainview import ChainView
from sovchain.ledger.endorsement_plan import EndorsementPlanner
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.peer import Peer
from sovchain.ledger.rpcstatus import StatusError
from sovchain.ledger.service import Context, Service
from sovchain.ledger.state import Snapshot
from sovchain.protocol.channelconfig import WRITERS, organization_msp
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.lifecycle import LIFECYCLE_NAMESPACE
from sovchain.protocol.policies import SignedData

DISCOVERY_CONCURRENCY: Final = 2_500
_MAX_QUERIES: Final = 100
_MAX_LAYOUTS: Final = 1_000
_METADATA_PREFIX: Final = "namespaces/metadata/"
_QueryResult = protocol_pb2.QueryResult
_Interest = proposal_response_pb2.ChaincodeInterest
_log = structlog.get_logger("sovchain.ledger.discovery")


class _QueryError(LedgerError):
    """One query cannot be answered; the text goes to the client."""


class Discovery:
    """The discovery service of one peer."""

    def __init__(self, peer: Peer, *, mutual_tls: bool = False) -> None:
        """Make the service; `service` is what a server registers.

        With `mutual_tls`, clients show a TLS certificate, and each request must carry its hash.
        """
        self._peer = peer
        self._mutual_tls = mutual_tls
        self.service = Service("discovery.Discovery", DISCOVERY_CONCURRENCY, peer.pass_by("discovery"))
        self.service.unary("Discover", self._discover)

    async def _discover(self, data: bytes, context: Context) -> bytes:
        signed, request = self._parse(data, context)
        identity = request.authentication.client_identity
        whole = SignedData(signed.payload, identity, signed.signature)
        response = protocol_pb2.Response()
        for query in request.queries[:_MAX_QUERIES]:
            try:
                response.results.append(await self._answer(query, whole))
            except (_QueryError, AccessDeniedError) as error:
                _log.info("query not answered", channel=query.channel, reason=str(error))
                text = str(error) if isinstance(error, _QueryError) else "access denied"
                response.results.append(_QueryResult(error=protocol_pb2.Error(content=text)))
        return response.SerializeToString()

    def _parse(self, data: bytes, context: Context) -> tuple[protocol_pb2.SignedRequest, protocol_pb2.Request]:
        try:
            signed = protocol_pb2.SignedRequest.FromString(data)
            request = protocol_pb2.Request.FromString(signed.payload)
        except DecodeError:
            raise StatusError(grpc.StatusCode.UNKNOWN, "failed parsing request") from None
        if not request.HasField("authentication"):
            raise StatusError(grpc.StatusCode.UNKNOWN, "access denied, no authentication info in request")
        if not request.authentication.client_identity:
            raise StatusError(grpc.StatusCode.UNKNOWN, "access denied, client identity wasn't supplied")
        if self._mutual_tls:
            _check_binding(request.authentication.client_tls_cert_hash, context)
        return signed, request

    async def _answer(self, query: protocol_pb2.Query, signed: SignedData) -> protocol_pb2.QueryResult:
        registry, kind = self._peer.registry, query.WhichOneof("query")
        if not query.channel:
            self._peer.local.authorize("Admins", signed)
            if kind != "local_peers":
                raise _QueryError("unknown or missing request type")
            running = [peer for peer in registry.peers.values() if peer.is_running]
            return self._members(running, lambda _: None)
        channel = registry.channel_of(self._peer, query.channel)
        if channel is None:
            raise AccessDeniedError(f"the peer is not on channel {query.channel}")
        registry.access(channel).authorize_by_policy(WRITERS, signed)
        with await channel.snapshot() as snapshot:
            if kind == "config_query":
                return _QueryResult(config_result=_config(channel))
            if kind == "peer_query":
                return self._channel_members(channel, snapshot, query.peer_query.filter)
            if kind == "cc_query":
                return self._endorsers(channel, snapshot, query.cc_query.interests)
        raise _QueryError("unknown or missing request type")

    # Peers --------------------------------------------------------------------------------------------------------

    def _channel_members(self, channel: ChainView, snapshot: Snapshot, wanted: _Interest) -> protocol_pb2.QueryResult:
        peers = self._peer.registry.peers_of(channel)
        planner = EndorsementPlanner(self._peer.registry, channel, snapshot, self._peer)
        for call in wanted.chaincodes:
            able = planner.all_with(call.name)
            peers = [peer for peer in peers if peer in able]
        return self._members(peers, self._state_info(channel, snapshot))

    def _state_info(self, channel: ChainView, snapshot: Snapshot) -> Callable[[Peer], message_pb2.Envelope]:
        definitions = self._peer.registry.definitions
        names = [
            key.removeprefix(_METADATA_PREFIX)
            for key, _, _ in snapshot.range(LIFECYCLE_NAMESPACE, _METADATA_PREFIX, _METADATA_PREFIX + "\U0010ffff")
        ]
        committed = {name: definitions.committed(channel, snapshot, name) for name in names}

        def state_info(peer: Peer) -> message_pb2.Envelope:
            properties = message_pb2.Properties(ledger_height=self._peer.registry.height_of(peer, channel.channel_id))
            properties.chaincodes.add(name=LIFECYCLE_NAMESPACE, version="1")
            for name, definition in committed.items():
                if definition and definitions.is_callable(channel, snapshot, name, peer.msp_id, peer.packages):
                    # Gossip knows a definition by its sequence (core/chaincode/lifecycle/metadata_provider.go).
                    properties.chaincodes.add(name=name, version=str(definition.sequence))
            said = message_pb2.StateInfo(pki_id=_pki_id(peer.identity), properties=properties)
            return _envelope(message_pb2.GossipMessage(state_info=said))

        return state_info

    @staticmethod
    def _members(
        peers: Iterable[Peer], state_info: Callable[[Peer], message_pb2.Envelope | None]
    ) -> protocol_pb2.QueryResult:
        result = protocol_pb2.PeerMembershipResult()
        for peer in peers:
            result.peers_by_org[peer.msp_id].peers.append(_peer(peer, state_info(peer)))
        return _QueryResult(members=result)

    # Endorsers ----------------------------------------------------------------------------------------------------

    def _endorsers(
        self, channel: ChainView, snapshot: Snapshot, interests: Iterable[_Interest]
    ) -> protocol_pb2.QueryResult:
        wanted = list(interests)
        if not wanted:
            raise _QueryError("chaincode query must have at least one chaincode interest")
        for interest in wanted:
            if not interest.chaincodes:
                raise _QueryError("chaincode interest must contain at least one chaincode")
            if not all(call.name for call in interest.chaincodes):
                raise _QueryError("chaincode name in interest cannot be empty")
        state_info = self._state_info(channel, snapshot)
        descriptors = [self._descriptor(channel, snapshot, interest, state_info) for interest in wanted]
        return _QueryResult(cc_query_res=protocol_pb2.ChaincodeQueryResult(content=descriptors))

    def _descriptor(
        self,
        channel: ChainView,
        snapshot: Snapshot,
        interest: _Interest,
        state_info: Callable[[Peer], message_pb2.Envelope],
    ) -> protocol_pb2.EndorsementDescriptor:
        planner = EndorsementPlanner(self._peer.registry, channel, snapshot, self._peer)
        try:
            layouts = planner.layouts(interest, self._peer.msp_id)[:_MAX_LAYOUTS]
        except (LedgerError, ProtocolError) as error:
            raise _QueryError(f"failed constructing descriptor for {' '.join(str(interest).split())}") from error
        groups = {msp_id: f"G{number}" for number, msp_id in enumerate(sorted(frozenset().union(*layouts)))}
        able = planner.all_with(interest.chaincodes[0].name)
        descriptor = protocol_pb2.EndorsementDescriptor(chaincode=interest.chaincodes[0].name)
        for msp_id, group in groups.items():
            for peer in able:
                if peer.msp_id == msp_id:
                    descriptor.endorsers_by_groups[group].peers.append(_peer(peer, state_info(peer)))
        for layout in layouts:
            quantities = {groups[msp_id]: 1 for msp_id in layout}
            descriptor.layouts.add(quantities_by_group=quantities)
        return descriptor


def _peer(peer: Peer, state_info: message_pb2.Envelope | None) -> protocol_pb2.Peer:
    member = message_pb2.Member(endpoint=peer.address, pki_id=_pki_id(peer.identity))
    alive = message_pb2.GossipMessage(alive_msg=message_pb2.AliveMessage(membership=member))
    return protocol_pb2.Peer(identity=peer.identity, membership_info=_envelope(alive), state_info=state_info)


def _envelope(message: message_pb2.GossipMessage) -> message_pb2.Envelope:
    """What a peer says of itself. Nobody signs it: the client has it from the peer that it trusts to answer."""
    return message_pb2.Envelope(payload=message.SerializeToString())


def _pki_id(identity: bytes) -> bytes:
    """How gossip names a peer (internal/pkg/peer/gossip/mcs.go GetPKIidOfCert: a digest of its identity)."""
    return hashlib.sha256(identity).digest()


def _config(channel: ChainView) -> protocol_pb2.ConfigResult:
    """The organisations' MSPs, and where the ordering nodes of each are."""
    root = channel.bundle.config.channel_group
    result = protocol_pb2.ConfigResult()
    for kind in ("Orderer", "Application"):
        for name, group in root.groups[kind].groups.items():
            config = organization_msp(group, name)
            result.msps[config.name].CopyFrom(config)
    everywhere = _addresses(root.values["OrdererAddresses"].value if "OrdererAddresses" in root.values else b"")
    own: Mapping[str, list[str]] = {
        organization_msp(group, name).name: _addresses(
            group.values["Endpoints"].value if "Endpoints" in group.values else b""
        )
        for name, group in root.groups["Orderer"].groups.items()
    }
    is_own = any(own.values())
    for msp_id, addresses in own.items():
        for address in addresses if is_own else everywhere:
            host, _, port = address.rpartition(":")
            if port.isdigit() and len(port) < 6:
                result.orderers[msp_id].endpoint.add(host=host, port=int(port))
    return result


def _addresses(encoded: bytes) -> list[str]:
    try:
        return list(configuration_pb2.OrdererAddresses.FromString(encoded).addresses)
    except DecodeError as error:
        raise _QueryError("failed unmarshalling orderer addresses") from error


def _check_binding(claimed: bytes, context: Context) -> None:
    shown = context.client_certificate
    if not shown:
        raise StatusError(grpc.StatusCode.UNKNOWN, "client didn't send a TLS certificate")
    actual = hashlib.sha256(shown).digest()
    if actual != claimed:
        raise StatusError(
            grpc.StatusCode.UNKNOWN, "client claimed TLS hash doesn't match computed TLS hash from gRPC stream"
        )
