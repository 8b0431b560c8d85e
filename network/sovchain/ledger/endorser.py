"""The Endorser service: ProcessProposal.

Mirrors core/endorser/endorser.go.
"""

from __future__ import annotations

from typing import Final

import grpc
import structlog
from fabric_protos.peer import proposal_pb2, proposal_response_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.difference import NonDeterminismError
from sovchain.ledger.peer import Peer
from sovchain.ledger.proposal_checks import ChannelNotFoundError, CheckedProposal, ProposalRefusedError, check_proposal
from sovchain.ledger.rpcstatus import StatusError
from sovchain.ledger.service import Context, Service
from sovchain.ledger.simulation import ERROR_THRESHOLD, ProposalRun, SimulationFailedError

ENDORSER_CONCURRENCY: Final = 2_500
"""peer.limits.concurrency.endorserService of core.yaml."""
_ERROR: Final = 500

_log = structlog.get_logger("sovchain.ledger.endorser")
_ProposalResponse = proposal_response_pb2.ProposalResponse


class Endorser:
    """The Endorser service of one peer."""

    def __init__(self, peer: Peer) -> None:
        """Make the service; `service` is what a server registers."""
        self._peer = peer
        self.service = Service("protos.Endorser", ENDORSER_CONCURRENCY, peer.pass_by("endorser"))
        self.service.unary("ProcessProposal", self._handle)

    async def _handle(self, request: bytes, _context: Context) -> bytes:
        try:
            signed = proposal_pb2.SignedProposal.FromString(request)
        except DecodeError:
            raise StatusError(grpc.StatusCode.INTERNAL, "the signed proposal cannot be decoded") from None
        return (await self.process_proposal(signed)).SerializeToString()

    async def process_proposal(self, signed: proposal_pb2.SignedProposal) -> proposal_response_pb2.ProposalResponse:
        """Check, simulate and endorse a proposal.

        A chaincode's refusal and a failed simulation are responses (status 400 and above, no endorsement).

        Raises:
            StatusError: the proposal itself is refused (UNKNOWN, as a peer's plain errors), or its two simulations
                differ (ABORTED).
        """
        metrics = self._peer.metrics
        try:
            proposal = check_proposal(signed, self._peer.registry, self._peer)
        except ChannelNotFoundError as error:
            metrics.proposals_received.add()
            return _failed(str(error))
        except ProposalRefusedError as error:
            if not error.filtered:
                metrics.refused(error.rule, *error.call)
            _log.info("proposal refused", msp_id=self._peer.msp_id, filtered=error.filtered)
            raise StatusError(grpc.StatusCode.UNKNOWN, str(error)) from error
        run = ProposalRun(proposal)
        try:
            with metrics.proposal(proposal.parsed.channel_id, proposal.parsed.chaincode) as counted:
                response = await self._process(proposal, run)
                counted.is_success = response.HasField("endorsement") or not proposal.parsed.channel_id
                return response
        except SimulationFailedError as error:
            _log.info("simulation failed", msp_id=self._peer.msp_id, transaction_id=proposal.parsed.transaction_id)
            return _failed(str(error))
        except NonDeterminismError as error:
            raise StatusError(grpc.StatusCode.ABORTED, str(error)) from error
        finally:
            run.close()

    async def _process(self, proposal: CheckedProposal, run: ProposalRun) -> proposal_response_pb2.ProposalResponse:
        twice = self._peer.registry.simulate_twice != "never"
        simulation = await (self._peer.simulate_twice(run) if twice else self._peer.simulate(run))
        endorsement = await self._peer.endorse(run, simulation)
        response = simulation.response
        if response.status >= _ERROR:
            return _ProposalResponse(response=response, payload=simulation.payload, interest=simulation.interest)
        if proposal.channel is None or response.status >= ERROR_THRESHOLD:
            return _ProposalResponse(response=response)
        return _ProposalResponse(
            version=1,
            endorsement=endorsement,
            payload=simulation.payload,
            response=response,
            interest=simulation.interest,
        )


def _failed(message: str) -> proposal_response_pb2.ProposalResponse:
    return _ProposalResponse(response=proposal_response_pb2.Response(status=_ERROR, message=message))
