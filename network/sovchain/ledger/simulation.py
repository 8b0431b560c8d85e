"""Simulation of a proposal on one peer: the chaincode runs, its reads and writes are collected, nothing is committed.

Mirrors core/endorser/endorser.go (simulateProposal), core/chaincode/chaincode_support.go
(CheckInvocation) and the chaincode-to-chaincode calls of core/chaincode/handler.go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import structlog
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim

from sovchain.ledger.access import AccessDeniedError
from sovchain.ledger.chaincode_stream import ExecutionError, Invocation, completion
from sovchain.ledger.chainview import ChainView
from sovchain.ledger.collection_access import CreatorCollectionAccess
from sovchain.ledger.definitions import SYSTEM_CHAINCODE_VERSION, SYSTEM_CHAINCODES, DefinitionError, EndorsementInfo
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.interest import chaincode_interest
from sovchain.ledger.proposal_checks import CheckedProposal
from sovchain.ledger.rpcstatus import StatusError
from sovchain.ledger.simulator import SimulationResults, TxSimulator
from sovchain.ledger.state import Snapshot
from sovchain.ledger.system_call import SystemCall, failure
from sovchain.ledger.systemcc import SYSTEM_CHAINCODE_TABLE
from sovchain.ledger.transaction_context import TransactionContext
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.lifecycle import LEGACY_NAMESPACE, LIFECYCLE_NAMESPACE, NAMESPACES, field_key
from sovchain.protocol.proposals import response_payload

if TYPE_CHECKING:
    from sovchain.ledger.peer import Peer
    from sovchain.ledger.registry import Registry

INITIALIZED_KEY: Final = "\x00\U0010ffffinitialized"
"""Key of a chaincode's namespace that holds the version for which its Init ran."""
ERROR_THRESHOLD: Final = 400
_log = structlog.get_logger("sovchain.ledger.simulation")
_WITHOUT_SIMULATOR: Final = frozenset({"cscc", "qscc"})


class SimulationFailedError(LedgerError):
    """A proposal could not be simulated; the endorser answers with status 500 and this text, which is Fabric's."""


@dataclass
class ProposalRun:
    """What all simulations of one proposal share: one snapshot of each view of a channel that they read. Close it at the end.

    `private_stored` tells that the private writes are with the members of the collections: once is enough, since
    all who endorse have the same ones.
    """

    proposal: CheckedProposal
    snapshots: dict[ChainView, Snapshot] = field(default_factory=dict)
    private_stored: bool = False

    async def snapshot(self, channel: ChainView) -> Snapshot:
        """Return the proposal's snapshot of a channel as a peer sees it."""
        snapshot = self.snapshots.get(channel)
        if snapshot is None:
            taken = await channel.snapshot()
            snapshot = self.snapshots.setdefault(channel, taken)
            if snapshot is not taken:
                taken.close()
        return snapshot

    def close(self) -> None:
        """Give the snapshots back."""
        for snapshot in self.snapshots.values():
            snapshot.close()
        self.snapshots.clear()


@dataclass(frozen=True)
class Simulation:
    """The outcome of one simulation.

    Attributes:
        proposal: what was simulated.
        msp_id: organisation of the peer that simulated it.
        version: version of the chaincode's definition.
        response: what the chaincode returned.
        event: its event, None if there is none or the response is an error.
        results: reads and writes; None for a proposal without a simulator.
        snapshot: what it was simulated on.
    """

    proposal: CheckedProposal
    msp_id: str
    version: str
    response: proposal_response_pb2.Response
    event: chaincode_event_pb2.ChaincodeEvent | None
    results: SimulationResults | None
    snapshot: Snapshot | None = field(default=None, repr=False)

    @cached_property
    def payload(self) -> bytes:
        """The ProposalResponsePayload that an endorser signs."""
        return response_payload(
            self.proposal.parsed.proposal_hash,
            self.results.public if self.results is not None else b"",
            self.event,
            self.response,
            self.proposal.parsed.chaincode,
            self.version,
        )

    def same_as(self, other: Simulation) -> bool:
        """Whether both simulations have the same reads, writes (private ones by their hash), response and event."""
        if (self.results is None) != (other.results is None):
            return False
        if self.results is not None and other.results is not None and self.results.public != other.results.public:
            return False
        return self.response == other.response and self.event == other.event

    @cached_property
    def interest(self) -> proposal_response_pb2.ChaincodeInterest:
        """Whose endorsement the simulated transaction needs, as input for an endorsement plan."""
        if self.results is None or self.snapshot is None:
            return proposal_response_pb2.ChaincodeInterest()
        return chaincode_interest(self.results, self.snapshot)


class PeerSimulation:
    """Simulates one proposal on one peer, with one instance of each chaincode. Runs nested calls too."""

    def __init__(self, registry: Registry, peer: Peer, run: ProposalRun, instance: int) -> None:
        """`instance` chooses among the instances of a chaincode: 0 primary, 1 replica."""
        self._registry = registry
        self._peer = peer
        self._run = run
        self._instance = instance

    async def simulate(self) -> Simulation:
        """Run the proposal.

        Raises:
            SimulationFailedError: the chaincode is not callable here, did not answer, or broke a rule of the ledger.
        """
        proposal, parsed = self._run.proposal, self._run.proposal.parsed
        # The proposal was checked by the peer that was asked; this one may see another state of the channel.
        channel = proposal.channel and self._registry.channel_of(self._peer, parsed.channel_id)
        if channel is None or parsed.chaincode in _WITHOUT_SIMULATOR:
            response = await self._call_system(parsed.chaincode, channel, tuple(parsed.input.args), None)
            return Simulation(proposal, self._peer.msp_id, SYSTEM_CHAINCODE_VERSION, response, None, None)
        snapshot = await self._run.snapshot(channel)
        couchdb = self._peer.couchdb(channel, snapshot)
        simulator = channel.simulator(snapshot, self._peer.msp_id, parsed.transaction_id, couchdb)
        try:
            version = self._version(channel, simulator)
            response, event = await self._execute(channel, simulator)
            try:
                results = simulator.results()
            except (LedgerError, ProtocolError) as error:
                raise SimulationFailedError(f"error in simulation: {error}") from error
        finally:
            simulator.done()
        for what in sorted(simulator.unprotected):
            _log.warning(
                f"{what} in a transaction that writes: nothing checks at commit that it still holds",
                channel=channel.channel_id,
                chaincode=parsed.chaincode,
                transaction_id=parsed.transaction_id,
                read=what,
            )
        return Simulation(proposal, self._peer.msp_id, version, response, event, results, snapshot)

    def _version(self, channel: ChainView, simulator: TxSimulator) -> str:
        name = self._run.proposal.parsed.chaincode
        if name in SYSTEM_CHAINCODES:
            return SYSTEM_CHAINCODE_VERSION
        try:
            return self._endorsement_info(channel, simulator, name).definition.version
        except (DefinitionError, ProtocolError) as error:
            raise SimulationFailedError(
                f"make sure the chaincode {name} has been successfully defined on channel {channel.channel_id} "
                f"and try again: {error}"
            ) from error

    def _endorsement_info(self, channel: ChainView, simulator: TxSimulator, name: str) -> EndorsementInfo:
        """Look a chaincode up; what is looked up counts as read, so that a transaction and an upgrade conflict.

        Mirrors core/chaincode/lifecycle/endorsement_info.go, which asks the lifecycle of Fabric 1.4 for what it does not
        find.
        """
        if simulator.get_state(LIFECYCLE_NAMESPACE, field_key(NAMESPACES, name, "Sequence")) is None:
            simulator.get_state(LEGACY_NAMESPACE, name)
        return self._registry.definitions.endorsement_info(
            channel, simulator.snapshot, name, self._peer.msp_id, self._peer.packages
        )

    async def _execute(
        self, channel: ChainView, simulator: TxSimulator
    ) -> tuple[proposal_response_pb2.Response, chaincode_event_pb2.ChaincodeEvent | None]:
        proposal, parsed = self._run.proposal, self._run.proposal.parsed
        if parsed.chaincode in SYSTEM_CHAINCODES:
            arguments = tuple(parsed.input.args)
            return await self._call_system(parsed.chaincode, channel, arguments, simulator), None
        try:
            message = await self._call(
                channel, simulator, parsed.chaincode, proposal.arguments, is_init=parsed.input.is_init
            )
        except (LedgerError, ProtocolError) as error:
            text = f"error in simulation: failed to execute transaction {parsed.transaction_id}: {error}"
            raise SimulationFailedError(text) from error
        try:
            completed = completion(message, parsed.transaction_id)
        except ExecutionError as error:
            raise SimulationFailedError(f"error in simulation: {error}") from error
        event = completed.event
        if completed.response.status >= ERROR_THRESHOLD:
            event = None
        if event is not None:
            event.chaincode_id = parsed.chaincode
            event.tx_id = parsed.transaction_id
        return completed.response, event

    async def _call(
        self, channel: ChainView, simulator: TxSimulator, name: str, arguments: bytes, *, is_init: bool
    ) -> shim.ChaincodeMessage:
        """Run an application chaincode on a channel. Raises LedgerError or ProtocolError with Fabric's text."""
        try:
            info = self._endorsement_info(channel, simulator, name)
        except (DefinitionError, ProtocolError) as error:
            raise ExecutionError(
                f"invalid invocation: [channel {channel.channel_id}] failed to get chaincode container info for "
                f"{name}: {error}"
            ) from error
        _check_init(info, simulator, is_init=is_init)
        stream = await self._peer.chaincodes.launch(info.package_id, self._instance)
        parsed = self._run.proposal.parsed
        context = TransactionContext(
            channel.channel_id,
            parsed.transaction_id,
            name,
            simulator,
            CreatorCollectionAccess(channel, self._run.proposal.signed_data),
            is_init,
        )
        call = Invocation(channel.channel_id, parsed.transaction_id, arguments, self._run.proposal.shown, is_init)
        try:
            await self._registry.faults.at("chaincode.execute", msp_id=self._peer.msp_id, channel=channel.channel_id)
            return await stream.execute(call, context, self)
        except StatusError as fault:
            raise ExecutionError(f"error sending: {fault.message}") from fault
        except ExecutionError as error:
            raise ExecutionError(f"error sending: {error}") from error

    async def invoke(self, context: TransactionContext, specification: chaincode_pb2.ChaincodeSpec) -> bytes:
        """Run a chaincode for another chaincode and return its frame.

        On the same channel it shares the caller's simulator; on another one it reads a snapshot of that channel and its
        writes are thrown away. Raises LedgerError or ProtocolError with Fabric's text.
        """
        name, _, channel_id = specification.chaincode_id.name.partition("/")
        name = name.partition(":")[0]
        channel_id = channel_id or context.channel_id
        channel = self._registry.channel_of(self._peer, channel_id)
        if name not in SYSTEM_CHAINCODES:
            self._check_caller(channel, channel_id)
        if channel is None:
            raise ExecutionError(f"failed to find ledger for channel: {channel_id}")
        if channel_id == context.channel_id:
            return await self._invoke_on(channel, context.simulator, name, specification)
        snapshot = await self._run.snapshot(channel)
        couchdb = self._peer.couchdb(channel, snapshot)
        simulator = channel.simulator(snapshot, self._peer.msp_id, context.transaction_id, couchdb)
        try:
            return await self._invoke_on(channel, simulator, name, specification)
        finally:
            simulator.done()

    def _check_caller(self, channel: ChainView | None, channel_id: str) -> None:
        if channel is None:
            raise AccessDeniedError(f"Failed to get policy manager for channel [{channel_id}]")
        # The proposal's signature was checked when it came in; the policy of the other channel is what counts here.
        access = self._registry.access(channel)
        access.authorize("peer/ChaincodeToChaincode", self._run.proposal.signed_data, signature_checked=True)

    async def _invoke_on(
        self, channel: ChainView, simulator: TxSimulator, name: str, specification: chaincode_pb2.ChaincodeSpec
    ) -> bytes:
        if name in SYSTEM_CHAINCODES:
            response = await self._call_system(name, channel, tuple(specification.input.args), simulator)
            frame = shim.ChaincodeMessage(
                type=shim.ChaincodeMessage.COMPLETED,
                payload=response.SerializeToString(),
                txid=self._run.proposal.parsed.transaction_id,
                channel_id=channel.channel_id,
            )
            return frame.SerializeToString()
        arguments = chaincode_pb2.ChaincodeInput(
            args=specification.input.args, is_init=specification.input.is_init
        ).SerializeToString()
        try:
            message = await self._call(channel, simulator, name, arguments, is_init=specification.input.is_init)
        except (LedgerError, ProtocolError) as error:
            raise ExecutionError(f"execute failed: {error}") from error
        return message.SerializeToString()

    async def _call_system(
        self, name: str, channel: ChainView | None, arguments: tuple[bytes, ...], simulator: TxSimulator | None
    ) -> proposal_response_pb2.Response:
        chaincode = SYSTEM_CHAINCODE_TABLE.get(name)
        if chaincode is None:
            raise SimulationFailedError(
                f"make sure the chaincode {name} has been successfully defined on channel  and try again: "
                "could not get channel config for channel ''"
            )
        proposal = self._run.proposal
        call = SystemCall(
            self._registry,
            self._peer,
            channel,
            arguments,
            proposal.signed_data,
            proposal.parsed.chaincode,
            simulator,
        )
        try:
            return await chaincode(call)
        except (LedgerError, ProtocolError) as error:
            return failure(str(error))


def _check_init(info: EndorsementInfo, simulator: TxSimulator, *, is_init: bool) -> None:
    """Let Init run exactly once for each version of a chaincode that demands it. Raises ExecutionError."""
    definition = info.definition
    name, version = definition.name, definition.version.encode()
    required = definition.init_required and simulator.get_state(name, INITIALIZED_KEY) != version
    if is_init:
        if not definition.init_required:
            raise ExecutionError(
                f"invalid invocation: chaincode '{name}' does not require initialization but called as init"
            )
        if not required:
            raise ExecutionError(f"invalid invocation: chaincode '{name}' is already initialized but called as init")
        simulator.put_state(name, INITIALIZED_KEY, version)
    elif required:
        raise ExecutionError(
            f"invalid invocation: chaincode '{name}' has not been initialized for this version, must call as init first"
        )
