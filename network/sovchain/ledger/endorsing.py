"""Collecting endorsements for one proposal: who endorses, in which order, and what to do when one fails.

Mirrors internal/pkg/gateway/endorse.go and endorsement.go. On top of what a peer's gateway does, every proposal is
simulated at least twice, on alternating instances of its chaincode, so that no transaction rests on one lucky run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import grpc
import structlog
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_response_pb2

from sovchain.ledger.chainview import ChainView
from sovchain.ledger.difference import NonDeterminismError
from sovchain.ledger.endorsement_plan import EndorsementPlanner, Layout, NoPlanError
from sovchain.ledger.peer import Peer
from sovchain.ledger.rpcstatus import StatusError, error_detail
from sovchain.ledger.simulation import ProposalRun, Simulation, SimulationFailedError

_FIRST_FAILED = "failed to endorse transaction, see attached details for more info"
_NOT_ENOUGH = "failed to collect enough transaction endorsements, see attached details for more info"
_MISMATCH = "ProposalResponsePayloads do not match"
TRANSIENT_PROTECTED = (
    "no endorsers found in the gateway's organization; retry specifying endorsing organization(s) to protect "
    "transient data"
)

_log = structlog.get_logger("sovchain.ledger.gateway")


@dataclass(frozen=True)
class Endorsed:
    """An endorsed proposal: the payload that all endorsers signed, and their signatures."""

    payload: bytes
    endorsements: list[proposal_response_pb2.Endorsement]


def refusal_of(simulation: Simulation) -> str | None:
    """Return why a gateway takes no result from a response, None if it does (status 200 to 399).

    Mirrors internal/pkg/gateway/apiutils.go responseStatus.
    """
    response = simulation.response
    if 200 <= response.status < 400:
        return None
    return f"chaincode response {response.status}, {response.message}"


def no_peers_text(msp_ids: Iterable[str]) -> str:
    """Return Fabric's text for organisations that have no peer with the chaincode (registry.go planForOrgs)."""
    return f"failed to find any endorsing peers for org(s): {', '.join(msp_ids)}"


@dataclass
class EndorsementCollector:
    """Collects the endorsements of one proposal at the gateway of one peer."""

    gateway: Peer
    channel: ChainView
    run: ProposalRun
    planner: EndorsementPlanner
    _simulations: dict[str, Simulation] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)
    _details: list[gateway_pb2.ErrorDetail] = field(default_factory=list)

    async def from_organizations(self, msp_ids: Sequence[str]) -> Endorsed:
        """Collect from exactly these organisations; the client answers for the policy.

        Raises StatusError UNAVAILABLE if one has no peer with the chaincode, ABORTED if one does not endorse.
        """
        able = self.planner.peers_with(self.run.proposal.parsed.chaincode)
        wanted = list(dict.fromkeys(msp_ids))
        missing = [msp_id for msp_id in wanted if msp_id not in able]
        if missing:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, no_peers_text(missing))
        if not await self._complete(wanted, able):
            raise StatusError(grpc.StatusCode.ABORTED, _NOT_ENOUGH, self._details)
        return await self._endorse(wanted, able)

    async def by_policy(self) -> Endorsed:
        """Collect from organisations that satisfy the policies of what the transaction reads and writes.

        Raises StatusError FAILED_PRECONDITION if no set of organisations does, ABORTED if none of them endorses.
        """
        parsed = self.run.proposal.parsed
        able = self.planner.peers_with(parsed.chaincode)
        await self._first(able, bool(parsed.transient))
        layouts = self._layouts()
        for layout in layouts:
            wanted = sorted(layout, key=lambda msp_id: (msp_id not in self._simulations, msp_id))
            if not layout & self._failed and await self._complete(wanted, able):
                return await self._endorse(wanted, able)
        raise StatusError(grpc.StatusCode.ABORTED, _NOT_ENOUGH, self._details)

    async def _first(self, able: dict[str, Peer], has_transient: bool) -> None:
        """Simulate on one peer, of the gateway's own organisation if it can, to learn what the transaction touches."""
        candidates = [self.gateway.msp_id]
        if self.gateway.msp_id not in able:
            if has_transient:
                raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, TRANSIENT_PROTECTED)
            layouts = self._plan(_default_interest(self.run.proposal.parsed.chaincode))
            candidates = list(dict.fromkeys(msp_id for layout in layouts for msp_id in sorted(layout)))
        for msp_id in candidates:
            simulation = await self._simulate(able[msp_id], 0)
            if simulation is not None:
                self._simulations[msp_id] = simulation
                return
        raise StatusError(grpc.StatusCode.ABORTED, _FIRST_FAILED, self._details)

    def _layouts(self) -> list[Layout]:
        parsed = self.run.proposal.parsed
        (first,) = self._simulations.values()
        interest = first.interest if first.interest.chaincodes else _default_interest(parsed.chaincode)
        if not parsed.transient:
            return self._plan(interest)
        # Transient data goes to members of the collections only: treat every collection as one that is read.
        protected = proposal_response_pb2.ChaincodeInterest()
        protected.CopyFrom(interest)
        collections: list[str] = []
        for call in protected.chaincodes:
            if call.no_private_reads:
                call.no_private_reads = False
                collections += call.collection_names
        try:
            return self._plan(protected)
        except StatusError:
            if collections:
                self._plan(interest)  # raises the reason if there is no plan for anybody
                raise StatusError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "requires endorsement from organisation(s) that are not in the distribution policy of the private "
                    f"data collection(s): [{' '.join(collections)}]; retry specifying trusted endorsing organizations "
                    "to protect transient data",
                ) from None
            raise

    def _plan(self, interest: proposal_response_pb2.ChaincodeInterest) -> list[Layout]:
        try:
            return self.planner.layouts(interest, self.gateway.msp_id)
        except NoPlanError as error:
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, str(error)) from error

    async def _complete(self, wanted: Sequence[str], able: dict[str, Peer]) -> bool:
        """Simulate on the peers of a layout that have not yet done so; tells whether all agree."""
        missing = [msp_id for msp_id in wanted if msp_id not in self._simulations]
        offset = len(self._simulations)
        outcomes = await asyncio.gather(
            *(self._simulate(able[msp_id], offset + index) for index, msp_id in enumerate(missing)),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        for msp_id, outcome in zip(missing, outcomes, strict=True):
            if not isinstance(outcome, Simulation) or not await self._agrees(outcome, able):
                self._failed.add(msp_id)
            else:
                self._simulations[msp_id] = outcome
        return not self._failed & set(wanted)

    async def _simulate(self, peer: Peer, instance: int) -> Simulation | None:
        """Simulate on one peer; a failure becomes a detail and None."""
        try:
            if peer is not self.gateway:
                await peer.registry.faults.at("endorser.process_proposal", msp_id=peer.msp_id)
            parsed = self.run.proposal.parsed
            with peer.metrics.proposal(parsed.channel_id, parsed.chaincode) as counted:
                simulation = await peer.simulate(self.run, instance)
                counted.is_success = refusal_of(simulation) is None
        except (SimulationFailedError, StatusError) as error:
            refusal = str(error)
        else:
            refused = refusal_of(simulation)
            if refused is None:
                return simulation
            refusal = refused
        _log.info("endorser refused", msp_id=peer.msp_id, transaction_id=self.run.proposal.parsed.transaction_id)
        self._details.append(error_detail(peer.address, peer.msp_id, refusal))
        return None

    async def _agrees(self, simulation: Simulation, able: dict[str, Peer]) -> bool:
        if not self._simulations:
            return True
        msp_id, reference = next(iter(self._simulations.items()))
        if reference.payload == simulation.payload:
            return True
        peer = able[simulation.msp_id]
        self._details.append(error_detail(peer.address, peer.msp_id, _MISMATCH))
        # Do the organisations see different data, or does the chaincode not repeat itself? One peer alone tells.
        if self.gateway.registry.simulate_twice != "never":
            await self._repeat(able[msp_id], reference, 1)
        return False

    async def _repeat(self, peer: Peer, simulation: Simulation, instance: int) -> None:
        """Simulate on a peer once more. Raises StatusError ABORTED if the outcome is another one."""
        try:
            await peer.simulate_again(self.run, simulation, instance)
        except NonDeterminismError as error:
            self._details.append(error_detail(peer.address, peer.msp_id, str(error)))
            raise StatusError(grpc.StatusCode.ABORTED, f"{_NOT_ENOUGH}: {error}", self._details) from error
        except SimulationFailedError as error:
            self._details.append(error_detail(peer.address, peer.msp_id, str(error)))
            raise StatusError(grpc.StatusCode.ABORTED, _NOT_ENOUGH, self._details) from error

    async def _endorse(self, wanted: Sequence[str], able: dict[str, Peer]) -> Endorsed:
        if len(self._simulations) == 1 and self.gateway.registry.simulate_twice != "never":
            ((msp_id, only),) = self._simulations.items()
            await self._repeat(able[msp_id], only, 1)
        endorsements = []
        for msp_id in wanted:
            peer = able[msp_id]
            try:
                endorsement = await peer.endorse(self.run, self._simulations[msp_id])
            except SimulationFailedError as error:
                self._details.append(error_detail(peer.address, msp_id, str(error)))
                raise StatusError(grpc.StatusCode.ABORTED, _NOT_ENOUGH, self._details) from error
            if endorsement is not None:
                endorsements.append(endorsement)
        return Endorsed(self._simulations[wanted[0]].payload, endorsements)


def _default_interest(chaincode: str) -> proposal_response_pb2.ChaincodeInterest:
    return proposal_response_pb2.ChaincodeInterest(chaincodes=[proposal_response_pb2.ChaincodeCall(name=chaincode)])
