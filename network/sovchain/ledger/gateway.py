"""The Gateway service: Evaluate, Endorse, Submit, CommitStatus, ChaincodeEvents.

Mirrors internal/pkg/gateway. The other peers and the ordering nodes are in the same process, so what a peer's gateway
does over the network is a call here; codes, texts and details are the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, TypeVar

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2
from google.protobuf.message import DecodeError, Message

from sovchain.ledger.access import AccessDeniedError
from sovchain.ledger.broadcast import Broadcaster, status_name
from sovchain.ledger.chainview import ChainView
from sovchain.ledger.difference import NonDeterminismError
from sovchain.ledger.endorsement_plan import EndorsementPlanner, undefined_chaincode_text
from sovchain.ledger.endorsing import TRANSIENT_PROTECTED, EndorsementCollector, no_peers_text, refusal_of
from sovchain.ledger.errors import LedgerError, OrderingRefused
from sovchain.ledger.peer import Peer
from sovchain.ledger.proposal_checks import ChannelNotFoundError, CheckedProposal, ProposalRefusedError, check_proposal
from sovchain.ledger.rpcstatus import StatusError, error_detail
from sovchain.ledger.service import Context, Service
from sovchain.ledger.simulation import ProposalRun, Simulation, SimulationFailedError
from sovchain.protocol.policies import SignedData
from sovchain.protocol.reasons import encoded_reason
from sovchain.protocol.transactions import assemble_envelope

GATEWAY_CONCURRENCY: Final = 500
"""peer.limits.concurrency.gatewayService of core.yaml."""
_EVALUATE_FAILED: Final = "failed to evaluate transaction, see attached details for more info"
_ENDORSE_FAILED: Final = "failed to endorse transaction, see attached details for more info"
_ENDORSE_FROM_FAILED: Final = "failed to collect enough transaction endorsements, see attached details for more info"

_Code = grpc.StatusCode
_M = TypeVar("_M", bound=Message)


class Gateway:
    """The Gateway service of one peer."""

    def __init__(self, peer: Peer, broadcaster: Broadcaster) -> None:
        """Make the service; `service` is what a server registers.

        Args:
            peer: the peer whose gateway it is; its organisation is asked first.
            broadcaster: the way to the ordering nodes.
        """
        self._peer = peer
        self._registry = peer.registry
        self._broadcaster = broadcaster
        self._events = peer.registry.events
        self.service = Service("gateway.Gateway", GATEWAY_CONCURRENCY, peer.pass_by("gateway"))
        self.service.unary("Evaluate", self._evaluate)
        self.service.unary("Endorse", self._endorse)
        self.service.unary("Submit", self._submit)
        self.service.unary("CommitStatus", self._commit_status)
        self.service.stream("ChaincodeEvents", self._chaincode_events)

    # Evaluate -----------------------------------------------------------------------------------------------------

    async def _evaluate(self, data: bytes, _context: Context) -> bytes:
        request = _decode(gateway_pb2.EvaluateRequest, data, "an evaluate request is required")
        if not request.proposed_transaction.proposal_bytes:
            raise _invalid("failed to unpack transaction proposal: a signed proposal is required")
        try:
            proposal = self._check(request.proposed_transaction, "failed to unpack transaction proposal: ")
        except ProposalRefusedError as error:
            detail = error_detail(self._peer.address, self._peer.msp_id, str(error))
            if error.filtered:
                raise StatusError(_Code.UNAVAILABLE, _EVALUATE_FAILED, [detail]) from error
            text = f"evaluate call to endorser returned error: {error}"
            raise StatusError(_Code.FAILED_PRECONDITION, text, [detail]) from error
        except ChannelNotFoundError as error:
            raise StatusError(_Code.UNAVAILABLE, _no_config(error.channel_id)) from error
        run = ProposalRun(proposal)
        try:
            simulation = await self._evaluate_on_peers(run, await self._evaluators(run, request))
        finally:
            run.close()
        return gateway_pb2.EvaluateResponse(result=simulation.response).SerializeToString()

    async def _evaluators(self, run: ProposalRun, request: gateway_pb2.EvaluateRequest) -> list[Peer]:
        """Return the peers to ask, own organisation first. Mirrors registry.go evaluator."""
        parsed, channel = run.proposal.parsed, _channel(run.proposal)
        targets = list(request.target_organizations)
        protected = bool(parsed.transient) and not targets
        if protected:
            targets = [self._peer.msp_id]
        planner = EndorsementPlanner(self._registry, channel, await run.snapshot(channel), self._peer)
        able = planner.all_with(parsed.chaincode)
        peers = [peer for peer in able if not targets or peer.msp_id in targets]
        if not peers:
            text = f"no peers available to evaluate chaincode {parsed.chaincode} in channel {channel.channel_id}"
            if protected:
                text = (
                    "no endorsers found in the gateway's organization; retry specifying target organization(s) to "
                    f"protect transient data: {text}"
                )
            raise StatusError(_Code.FAILED_PRECONDITION, text)
        return sorted(peers, key=lambda peer: peer.msp_id != self._peer.msp_id)

    async def _evaluate_on_peers(self, run: ProposalRun, peers: list[Peer]) -> Simulation:
        twice = self._registry.simulate_twice == "always"
        details = []
        for peer in peers:
            try:
                parsed = run.proposal.parsed
                with peer.metrics.proposal(parsed.channel_id, parsed.chaincode) as counted:
                    simulation = await (peer.simulate_twice(run) if twice else peer.simulate(run))
                    counted.is_success = refusal_of(simulation) is None
            except SimulationFailedError as error:
                # The peer failed, not the chaincode: another peer may do better.
                details.append(error_detail(peer.address, peer.msp_id, str(error)))
                continue
            except NonDeterminismError as error:
                details.append(error_detail(peer.address, peer.msp_id, str(error)))
                text = f"evaluate call to endorser returned error: {error}"
                raise StatusError(_Code.ABORTED, text, details) from error
            refusal = refusal_of(simulation)
            if refusal is None:
                return simulation
            details.append(error_detail(peer.address, peer.msp_id, refusal))
            raise StatusError(_Code.UNKNOWN, f"evaluate call to endorser returned error: {refusal}", details)
        raise StatusError(_Code.ABORTED, _EVALUATE_FAILED, details)

    # Endorse and submit -------------------------------------------------------------------------------------------

    async def _endorse(self, data: bytes, _context: Context) -> bytes:
        request = _decode(gateway_pb2.EndorseRequest, data, "an endorse request is required")
        if not request.proposed_transaction.proposal_bytes:
            raise _invalid("the proposed transaction must contain a signed proposal")
        try:
            proposal = self._check(request.proposed_transaction, "")
        except ProposalRefusedError as error:
            detail = error_detail(self._peer.address, self._peer.msp_id, str(error))
            text = _ENDORSE_FROM_FAILED if request.endorsing_organizations else _ENDORSE_FAILED
            raise StatusError(_Code.ABORTED, text, [detail]) from error
        except ChannelNotFoundError as error:
            raise _no_endorsers(request, error.channel_id) from error
        run = ProposalRun(proposal)
        try:
            channel = _channel(proposal)
            planner = EndorsementPlanner(self._registry, channel, await run.snapshot(channel), self._peer)
            collector = EndorsementCollector(self._peer, channel, run, planner)
            if request.endorsing_organizations:
                endorsed = await collector.from_organizations(request.endorsing_organizations)
            else:
                endorsed = await collector.by_policy()
        finally:
            run.close()
        envelope = assemble_envelope(proposal.parsed.proposal_bytes, endorsed.payload, endorsed.endorsements)
        return gateway_pb2.EndorseResponse(prepared_transaction=envelope).SerializeToString()

    async def _submit(self, data: bytes, _context: Context) -> bytes:
        request = _decode(gateway_pb2.SubmitRequest, data, "a submit request is required")
        if not request.HasField("prepared_transaction"):
            raise _invalid("a prepared transaction is required")
        if not request.prepared_transaction.signature:
            raise _invalid("prepared transaction must be signed")
        if self._registry.channel_of(self._peer, request.channel_id) is None:
            raise StatusError(_Code.FAILED_PRECONDITION, _no_config(request.channel_id))
        try:
            await self._broadcaster.order(request.prepared_transaction.SerializeToString())
        except OrderingRefused as error:
            name = status_name(error.status)
            text = f"received unsuccessful response from orderer: status={name}, info={error.text}"
            if 400 <= error.status < 500:
                raise StatusError(_Code.ABORTED, text) from error
            details = [error_detail(address, msp_id, text) for address, msp_id in self._broadcaster.nodes]
            text = "no orderers could successfully process transaction"
            raise StatusError(_Code.UNAVAILABLE, text, details) from error
        return b""  # an empty SubmitResponse

    def _check(self, signed: proposal_pb2.SignedProposal, prefix: str) -> CheckedProposal:
        """Check a proposal for a channel.

        Raises ProposalRefusedError, ChannelNotFoundError, and StatusError INVALID_ARGUMENT for what is no proposal.
        """
        try:
            proposal = check_proposal(signed, self._registry, self._peer)
        except ProposalRefusedError as error:
            if not error.filtered:
                self._peer.metrics.refused(error.rule, *error.call)
            _require_decodable(signed, prefix)
            raise
        if proposal.channel is None:
            raise _invalid(f"{prefix}no channel id provided")
        return proposal

    # Status and events --------------------------------------------------------------------------------------------

    async def _commit_status(self, data: bytes, _context: Context) -> bytes:
        signed = _decode(gateway_pb2.SignedCommitStatusRequest, data, "a commit status request is required")
        if not signed.request:
            raise _invalid("a commit status request is required")
        request = _decode(gateway_pb2.CommitStatusRequest, signed.request, "invalid status request")
        for present, missing in (
            (request.identity, "no identity provided"),
            (request.channel_id, "no channel ID provided"),
            (request.transaction_id, "transaction ID should not be empty"),
        ):
            if not present:
                raise _invalid(missing)
        signed_data = SignedData(signed.request, request.identity, signed.signature)
        channel = self._authorized(request.channel_id, "gateway/CommitStatus", signed_data)
        try:
            # An id that nobody has seen is no error: it may come. The client's deadline ends the wait.
            code, block_number = await channel.wait_for_commit(request.transaction_id)
        except LedgerError as error:
            raise StatusError(_Code.ABORTED, str(error)) from error
        response = gateway_pb2.CommitStatusResponse(block_number=block_number)
        response.result = code  # type: ignore[assignment]  # a number on the wire, open in proto3
        return response.SerializeToString() + encoded_reason(self._reason(channel, request.transaction_id, signed_data))

    def _reason(self, channel: ChainView, transaction_id: str, signed: SignedData) -> str:
        """Why a transaction is not valid. It names keys and policies, so it is for those who may read whole blocks."""
        reason = channel.reason(transaction_id)
        if reason:
            try:
                self._registry.access(channel).authorize("event/Block", signed, signature_checked=True)
            except AccessDeniedError:
                return ""
        return reason

    async def _chaincode_events(self, data: bytes, _context: Context) -> AsyncIterator[bytes]:
        signed = _decode(gateway_pb2.SignedChaincodeEventsRequest, data, "a chaincode events request is required")
        if not signed.request:
            raise _invalid("a chaincode events request is required")
        request = _decode(gateway_pb2.ChaincodeEventsRequest, signed.request, "invalid chaincode events request")
        signed_data = SignedData(signed.request, request.identity, signed.signature)
        channel = self._authorized(request.channel_id, "gateway/ChaincodeEvents", signed_data)
        after = request.after_transaction_id
        after_block = channel.block_number_of(after) if after else None
        number = after_block if after_block is not None else _start_block(channel, request.start_position)
        try:
            async for block in channel.blocks(number):
                events = self._events.events(channel.channel_id, number, block)
                if after:
                    position = next((i for i, event in enumerate(events) if event.tx_id == after), None)
                    if position is not None or number == after_block:
                        events = events[position + 1 :] if position is not None else ()
                        after = ""
                    else:
                        events = ()
                wanted = [event for event in events if event.chaincode_id == request.chaincode_id]
                if wanted:
                    response = gateway_pb2.ChaincodeEventsResponse(events=wanted, block_number=number)
                    yield response.SerializeToString()
                number += 1
        except LedgerError as error:
            raise StatusError(_Code.ABORTED, str(error)) from error

    def _authorized(self, channel_id: str, resource: str, signed: SignedData) -> ChainView:
        channel = self._registry.channel_of(self._peer, channel_id)
        try:
            if channel is None:
                raise AccessDeniedError(f"Failed to get policy manager for channel [{channel_id}]")
            self._registry.access(channel).authorize(resource, signed)
        except AccessDeniedError as error:
            raise StatusError(_Code.PERMISSION_DENIED, str(error)) from error
        return channel


def _start_block(channel: ChainView, position: ab_pb2.SeekPosition) -> int:
    kind = position.WhichOneof("Type")
    if kind is None or kind == "next_commit":
        return channel.height
    if kind == "specified":
        return position.specified.number
    raise _invalid(f"invalid start position type: {kind}")


def _channel(proposal: CheckedProposal) -> ChainView:
    assert proposal.channel is not None, "the gateway refuses proposals without a channel"
    return proposal.channel


def _no_config(channel_id: str) -> str:
    return f"failed to get config for channel [{channel_id}]: could not get last config for channel {channel_id}"


def _no_endorsers(request: gateway_pb2.EndorseRequest, channel_id: str) -> StatusError:
    """Return how a gateway refuses to endorse on a channel that it is not on: it finds no peers there.

    Mirrors internal/pkg/gateway/endorse.go planFromFirstEndorser.
    """
    if request.endorsing_organizations:
        return StatusError(_Code.UNAVAILABLE, no_peers_text(request.endorsing_organizations))
    proposal = proposal_pb2.Proposal.FromString(request.proposed_transaction.proposal_bytes)
    payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
    if payload.TransientMap:
        return StatusError(_Code.FAILED_PRECONDITION, TRANSIENT_PROTECTED)
    specification = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
    text = undefined_chaincode_text(specification.chaincode_id.name, channel_id)
    return StatusError(_Code.FAILED_PRECONDITION, text)


def _invalid(message: str) -> StatusError:
    return StatusError(_Code.INVALID_ARGUMENT, message)


def _require_decodable(signed: proposal_pb2.SignedProposal, prefix: str) -> None:
    """Refuse what the gateway itself cannot read as a call of a chaincode on a channel. Raises StatusError."""
    try:
        proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
        header = common_pb2.Header.FromString(proposal.header)
        channel_header = common_pb2.ChannelHeader.FromString(header.channel_header)
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
        specification = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
    except DecodeError:
        raise _invalid(f"{prefix}error unmarshalling the proposal") from None
    if not prefix:
        return  # Endorse leaves the rest to the endorser
    channel_id = channel_header.channel_id
    if not channel_id:
        raise _invalid(f"{prefix}no channel id provided")
    if not specification.chaincode_id.name:
        raise _invalid(f"{prefix}no chaincode name is provided, channel id [{channel_id}]")


def _decode(kind: type[_M], data: bytes, refusal: str) -> _M:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise _invalid(refusal) from None
