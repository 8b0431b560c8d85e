"""One peer of the embedded ledger: its identity, packages, chaincode connections, and what it can simulate and sign."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from fabric_protos.peer import proposal_response_pb2

from sovchain.ledger.access import LocalAccess
from sovchain.ledger.chaincode import ChaincodeSupport
from sovchain.ledger.chaincode_stream import ERROR_EXECUTION_TIMEOUT, EXECUTE_TIMEOUT_S
from sovchain.ledger.chainview import ChainView
from sovchain.ledger.couchdb import CouchState, Index
from sovchain.ledger.definitions import DefinitionError
from sovchain.ledger.difference import NonDeterminismError, first_difference
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.operations.metrics import PeerMetrics
from sovchain.ledger.package_store import PackageStore
from sovchain.ledger.registry import Registry
from sovchain.ledger.service import PassBy
from sovchain.ledger.simulation import ERROR_THRESHOLD, PeerSimulation, ProposalRun, Simulation, SimulationFailedError
from sovchain.ledger.state import Snapshot
from sovchain.protocol.crypto import PrivateKey, sign
from sovchain.protocol.msp import Msp


class Peer:
    """A peer of one organisation. Its services (`endorser`, `gateway`, `deliver`) are thin layers over it."""

    def __init__(
        self,
        registry: Registry,
        *,
        msp_id: str,
        host: str,
        address: str,
        identity: bytes,
        key: PrivateKey,
        packages: Path,
        msp: Msp | None = None,
        execute_timeout_s: float = EXECUTE_TIMEOUT_S,
        deterministic: bool = False,
    ) -> None:
        """Make a peer.

        Args:
            registry: the ledger that it belongs to.
            msp_id: its organisation.
            host: host name in its TLS certificate.
            address: "host:port" by which clients know it; appears in error details.
            identity: its serialised identity.
            key: signs endorsements.
            packages: directory of its installed packages.
            msp: its organisation's MSP; without it that of the first joined channel is used.
            execute_timeout_s: limit of one transaction in a chaincode.
            deterministic: sign without a random part, for golden tests.
        """
        self.registry = registry
        self.msp_id = msp_id
        self.host = host
        self.is_running = True
        """Whether its servers run: others do not ask one that was ended."""
        self.address = address
        self.identity = identity
        self.packages = PackageStore(packages)
        self.chaincodes = ChaincodeSupport(self.packages.connection, execute_timeout_s=execute_timeout_s)
        self.local = LocalAccess(self._local_msp)
        self.metrics = PeerMetrics()
        self._key = key
        self._deterministic = deterministic
        self._msp = msp

    def couchdb(self, channel: ChainView, snapshot: Snapshot) -> CouchState | None:
        """How its state on a channel behaves as CouchDB's, None with LevelDB.

        The indexes of a chaincode are those in the package that its organisation approved. (A real peer also keeps the
        ones of earlier packages.)
        """
        if self.registry.state_database != "couchdb":
            return None

        def indexes(namespace: str, collection: str) -> Sequence[Index]:
            definitions = self.registry.definitions
            try:
                info = definitions.endorsement_info(channel, snapshot, namespace, self.msp_id, self.packages)
            except DefinitionError:
                return ()
            package = self.packages.get(info.package_id)
            return package.indexes.get(collection, ()) if package is not None else ()

        return CouchState(indexes)

    def _local_msp(self) -> Msp | None:
        if self._msp is None:
            for name in sorted(self.registry.channels):
                channel = self.registry.channel_of(self, name)
                if channel is not None:
                    return channel.bundle.msps.msp(self.msp_id)
        return self._msp

    def pass_by(self, service: str) -> PassBy:
        """Return what takes a service's calls past the faults that are asked for (`faults.POINTS`)."""

        async def pass_by(method: str) -> None:
            point = "_".join(re.findall("[A-Z][a-z]*", method)).lower()
            await self.registry.faults.at(f"{service}.{point}", msp_id=self.msp_id)

        return pass_by

    async def simulate(self, run: ProposalRun, instance: int = 0) -> Simulation:
        """Simulate a proposal once, on one instance of its chaincode. Raises SimulationFailedError."""
        try:
            return await PeerSimulation(self.registry, self, run, instance).simulate()
        except SimulationFailedError as error:
            parsed = run.proposal.parsed
            self.metrics.simulation_failures.add(parsed.channel_id, parsed.chaincode)
            if ERROR_EXECUTION_TIMEOUT in str(error):
                self.metrics.execute_timeouts.add(parsed.chaincode)
            raise

    async def simulate_twice(self, run: ProposalRun) -> Simulation:
        """Simulate a proposal on both instances of its chaincode (twice on the only one) and compare the outcomes.

        Raises:
            SimulationFailedError: one of the simulations failed.
            NonDeterminismError: their outcomes differ.
        """
        if run.proposal.is_system:
            return await self.simulate(run)
        if await self._instances(run) > 1:
            outcomes = await asyncio.gather(self.simulate(run, 0), self.simulate(run, 1), return_exceptions=True)
            # Both have ended here: a snapshot must not be closed under a simulation that still reads it.
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            one, other = (outcome for outcome in outcomes if isinstance(outcome, Simulation))
        else:
            one = await self.simulate(run, 0)
            other = await self.simulate(run, 0)
        require_same(one, other)
        return one

    async def simulate_again(self, run: ProposalRun, simulation: Simulation, instance: int) -> None:
        """Simulate a proposal another time and compare. Raises as `simulate_twice`."""
        if not run.proposal.is_system:
            require_same(simulation, await self.simulate(run, instance))

    async def _instances(self, run: ProposalRun) -> int:
        channel = run.proposal.channel
        if channel is None:
            return 1
        name = run.proposal.parsed.chaincode
        snapshot = await run.snapshot(channel)
        try:
            info = self.registry.definitions.endorsement_info(channel, snapshot, name, self.msp_id, self.packages)
        except LedgerError:
            return 1  # the simulation fails with the right text
        return self.chaincodes.instances(info.package_id)

    async def endorse(self, run: ProposalRun, simulation: Simulation) -> proposal_response_pb2.Endorsement | None:
        """Sign the outcome of a simulation, once its private writes are stored; None if its status forbids that.

        Mirrors core/endorser/endorser.go ProcessProposalSuccessfullyOrError: below 400 is endorsed. Raises
        SimulationFailedError if the private writes cannot be stored.
        """
        channel, results = simulation.proposal.channel, simulation.results
        if channel is None or simulation.response.status >= ERROR_THRESHOLD:
            return None
        if results is not None and results.private is not None and not run.private_stored:
            transaction_id = simulation.proposal.parsed.transaction_id
            try:
                await asyncio.to_thread(channel.store_private, transaction_id, self.msp_id, results.private)
            except LedgerError as error:
                raise SimulationFailedError(f"error in simulation: {error}") from error
            run.private_stored = True
        # core/handlers/endorsement/builtin/default_endorsement.go: payload, then the endorser's identity.
        signature = sign(self._key, simulation.payload + self.identity, deterministic=self._deterministic)
        return proposal_response_pb2.Endorsement(endorser=self.identity, signature=signature)

    async def close(self) -> None:
        """End the connections to chaincodes."""
        await self.chaincodes.close()


def require_same(one: Simulation, other: Simulation) -> None:
    """Compare two simulations of one proposal. Raises NonDeterminismError."""
    difference = first_difference(one, other)
    if difference is not None:
        raise NonDeterminismError(one.proposal.parsed.chaincode, difference)
