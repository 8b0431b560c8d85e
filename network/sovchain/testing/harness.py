"""Contracts under test in the process, in microseconds, with Fabric's real rules for state.

    harness = ContractHarness(chaincode, organizations=["North", "South"])
    clerk = harness.caller("North", attributes={"role": "clerk"})
    booked = await clerk.submit(Bookings.book, "hall", "09:00")
    assert booked.result.holder == "NorthMSP"
    with refused("E_TAKEN"):
        await harness.caller("South").submit(Bookings.book, "hall", "09:00")

Reads never see the transaction's own writes; conflicting and phantom reads are found at commit; pages and private queries
are refused together with writes; private values lie with the members of their collection only; keys with an endorsement
policy of their own take the endorsers that it names. Callers raise the client's errors, so that the same test runs on a
network (`sovchain.testing.contract_world`, docs/contracts/testing.md).
"""

from __future__ import annotations

from collections.abc import Collection as CollectionOf
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, cast

from fabric_protos.peer import chaincode_pb2, collection_pb2, proposal_pb2, transaction_pb2

from sovchain.chaincode import Chaincode, LedgerError, Operation
from sovchain.client import CommitRejected, EndorseError, EvaluateError, FabricError, GatewayError, Submitted
from sovchain.client.errors import RpcFailure
from sovchain.ledger.collections import LIFECYCLE_NAMESPACE, Collection, collections_of
from sovchain.ledger.couchdb import CouchState, package_indexes
from sovchain.ledger.registry import StateDatabase
from sovchain.ledger.simulator import TxSimulator
from sovchain.protocol import policydsl
from sovchain.protocol.lifecycle import ChaincodeDefinition, definition_writes, signature_application_policy
from sovchain.protocol.mvcc import MvccValidator
from sovchain.protocol.proposals import Invocation, build_proposal
from sovchain.protocol.rwset import RwSet, Version, parse_rwset
from sovchain.testing.harness_call import OFFERS, Call, Outcome
from sovchain.testing.harness_identity import identity
from sovchain.testing.harness_policies import EndorsementFault, Endorsers
from sovchain.testing.harness_state import MemoryState

if TYPE_CHECKING:
    from sovchain.network.topology import Collection as CollectionSpec

P = ParamSpec("P")
R = TypeVar("R")

START: Final = datetime(2026, 1, 2, 8, 0, tzinfo=UTC)
"""When the harness's clock starts; each transaction takes place one second after the one before."""
_CODES = transaction_pb2.TxValidationCode


@dataclass(frozen=True)
class Event:
    """The chaincode event of a committed transaction."""

    name: str
    payload: bytes
    transaction_id: str
    block_number: int


@dataclass(frozen=True)
class Committed(Submitted[R]):
    """A committed transaction, with what a test may look at besides.

    Attributes:
        event: its event, or None.
        rwset: what it read and wrote.
    """

    event: Event | None = None
    rwset: RwSet = field(default_factory=lambda: RwSet(()), repr=False)

    def writes(self, namespace: str | None = None) -> dict[str, bytes | None]:
        """The public keys that it wrote, with their values; None for a deletion."""
        return {
            write.key: None if write.is_delete else write.value
            for entry in self.rwset.namespaces
            if namespace in (None, entry.namespace)
            for write in entry.writes
        }


@dataclass(frozen=True)
class Endorsed(Generic[R]):
    """A transaction that is endorsed and not committed yet: commit it later, or together with others."""

    harness: ContractHarness
    transaction_id: str
    moment: datetime
    endorsers: frozenset[str]
    outcome: Outcome
    operation: Operation[..., R]
    chaincode: str

    @property
    def result(self) -> R:
        """What the chaincode returned."""
        return self.operation.decode(self.outcome.response.payload)

    def commit(self) -> Committed[R]:
        """Commit it in a block of its own.

        Raises:
            CommitRejected: it conflicts with what was committed since, or its endorsers are not those it takes.
        """
        done = self.harness.commit([self])[0]
        if isinstance(done, CommitRejected):
            raise done
        return done


class ContractHarness:
    """A channel with one or more chaincodes, in memory.

    Attributes:
        name: name of the chaincode under test, and its namespace.
        now: the time of the last transaction; set it to let time pass.
        events: the events of all committed transactions.
        state: committed state.
        chaincodes: the channel's chaincodes by name.
    """

    def __init__(
        self,
        chaincode: Chaincode,
        *,
        name: str = "contract",
        channel: str = "channel",
        organizations: Sequence[str] = ("Org1", "Org2"),
        collections: Sequence[CollectionSpec] = (),
        endorsement_policy: str | None = None,
        fabric_version: str = "3.1",
        state_database: StateDatabase = "leveldb",
        indexes: Mapping[str, bytes] | None = None,
        now: datetime = START,
    ) -> None:
        """Args:
        chaincode: what is tested.
        name: its name on the channel.
        channel: the channel's name.
        organizations: names of the members; the MSP of `North` is `NorthMSP`.
        collections: its private data collections, besides the implicit one of each organisation.
        endorsement_policy: in Fabric's policy language; a majority of the peers' organisations if not given.
        fabric_version: "3.1", or "2.5" for a peer without write batches and multi-key reads.
        state_database: "couchdb" for peers that answer rich queries, and refuse the keys that CouchDB does.
        indexes: CouchDB's index definitions of the chaincode under test by their paths in its package.
        now: when the clock starts.

        Raises:
            ValueError: an index definition is wrong. (A peer leaves it out and says so in its log only.)
        """
        self._couchdb = _couchdb(state_database, name, indexes or {})
        self.name = name
        self.channel = channel
        self.organizations = tuple(organizations)
        self.now = now
        self.events: list[Event] = []
        self.state = MemoryState()
        self._offers = OFFERS[fabric_version]
        self.chaincodes: dict[str, Chaincode] = {}
        self._channels: dict[str, ContractHarness] = {channel: self}
        self._collections: dict[str, Mapping[str, Collection]] = {}
        self._count = 0
        self.add(name, chaincode, collections=collections, endorsement_policy=endorsement_policy)

    @property
    def msp_ids(self) -> tuple[str, ...]:
        """The MSPs of the members."""
        return tuple(map(msp_of, self.organizations))

    def add(
        self,
        name: str,
        chaincode: Chaincode,
        *,
        collections: Sequence[CollectionSpec] = (),
        endorsement_policy: str | None = None,
    ) -> None:
        """Define a further chaincode on the channel, for calls between chaincodes."""
        definition = ChaincodeDefinition(
            name,
            "1.0",
            1,
            endorsement_policy=signature_application_policy(endorsement_policy or majority(self.msp_ids)),
            collections=_collection_package(collections),
            endorsement_plugin="escc",
            validation_plugin="vscc",
        )
        for key, value in definition_writes(definition).items():
            self.state.public[LIFECYCLE_NAMESPACE].put(key, (value, None, Version(0, 0)))
        self.chaincodes[name] = chaincode
        found = collections_of(name, lambda key: self.state.get(LIFECYCLE_NAMESPACE, key), self.msp_ids)
        assert found is not None  # it was defined just now
        self._collections[name] = found

    def join(self, other: ContractHarness) -> None:
        """Have the peers of organisations that are members of both be on another harness's channel too.

        Contracts of the two can then call each other with `channel=`: such a call reads what is committed on the other
        channel, and nothing that it writes there is kept.

        Raises:
            ValueError: the other one's channel has the same name as one that is joined already.
        """
        together = {**self._channels, **other._channels}
        if len(set(together.values())) != len({*self._channels.values(), *other._channels.values()}):
            raise ValueError(f"give the harnesses channels of different names; there is {', '.join(sorted(together))}")
        for one in together.values():
            one._channels = together

    def caller(
        self,
        organization: str,
        user: str = "User1",
        *,
        attributes: Mapping[str, str] | None = None,
        unit: str = "client",
        endorsers: Sequence[str] | None = None,
        chaincode: str | None = None,
    ) -> Caller:
        """Somebody who calls the contract.

        Args:
            organization: name of the caller's organisation.
            user: the user's name in the certificate.
            attributes: what the certificate claims, such as `{"role": "clerk"}`.
            unit: the NodeOU: client, admin, peer or orderer.
            endorsers: organisations whose peers endorse, each of which runs the contract; None: all of them, and the
                caller's own peer runs it for all.
            chaincode: another chaincode that was added.

        Raises:
            ValueError: the harness has no such organisation.
        """
        for one in (organization, *(endorsers or ())):
            if one not in self.organizations:
                raise ValueError(f"the harness has no organisation {one}; it has {', '.join(self.organizations)}")
        creator = identity(msp_of(organization), user, unit, tuple(sorted((attributes or {}).items())))
        chosen = None if endorsers is None else tuple(map(msp_of, endorsers))
        return Caller(self, chaincode or self.name, msp_of(organization), creator, chosen)

    def commit(self, transactions: Sequence[Endorsed[Any]]) -> list[Committed[Any] | CommitRejected]:
        """Commit transactions together in one block, in this order; say what became of each."""
        number = self.state.height
        mvcc = MvccValidator(self.state, number, [one.transaction_id for one in transactions])
        policies = Endorsers(self.state)
        done: list[Committed[Any] | CommitRejected] = []
        valid: list[tuple[int, Endorsed[Any], RwSet]] = []
        for position, one in enumerate(transactions):
            rwset = parse_rwset(one.outcome.results.public)
            code = self._fault(position, one, rwset, policies, mvcc)
            if code is not None:
                code_name = _CODES.Name(cast("_CODES.ValueType", code))
                rejected = CommitRejected(code, code_name, transaction_id=one.transaction_id, block_number=number)
                done.append(rejected)
                continue
            event = _event(one, number)
            if event is not None:
                self.events.append(event)
            valid.append((position, one, rwset))
            done.append(Committed(one.result, one.transaction_id, number, event=event, rwset=rwset))
        self.state.apply(mvcc.updates)
        for position, one, rwset in valid:
            self._apply_rest(one, rwset, Version(number, position))
        self.state.expire(number)
        self.state.height = number + 1
        return done

    def pass_blocks(self, count: int) -> None:
        """Let blocks of other chaincodes go by, so that private data expires."""
        for _ in range(count):
            self.commit([])

    def held(self, organization: str, collection: str, *, chaincode: str | None = None) -> dict[str, bytes]:
        """The private values that an organisation's peer holds."""
        store = self.state.stores.get((msp_of(organization), chaincode or self.name, collection))
        return {} if store is None else {key: entry[0] for key, entry in store.entries.items()}

    def collections(self, namespace: str) -> Mapping[str, Collection]:
        """The private data collections of a chaincode by name."""
        return self._collections.get(namespace, {})

    def simulator(self, msp_id: str, transaction_id: str) -> TxSimulator:
        """The beginning of a simulation on the peer of an organisation."""
        return TxSimulator(self.state, msp_id, self.msp_ids, transaction_id, self._couchdb)

    # -- one call ------------------------------------------------------------------------------------------------------

    async def _simulate(
        self, chaincode: str, creator: bytes, caller: str, operation: Operation[..., Any], args: Any, kwargs: Any
    ) -> _Run:
        call = operation.encode(*args, **kwargs)
        self._count += 1
        self.now += timedelta(seconds=1)
        invocation = Invocation(self.channel, chaincode, call.args, call.transient)
        nonce = self._count.to_bytes(24, "big")
        transaction_id, proposal = build_proposal(invocation, creator=creator, nonce=nonce, timestamp=self.now)
        signed = proposal_pb2.SignedProposal(proposal_bytes=proposal.SerializeToString())
        run = Call(self._channels, caller, signed, self._offers)
        arguments = chaincode_pb2.ChaincodeInput(args=call.args).SerializeToString()
        return _Run(self, chaincode, transaction_id, run, arguments)

    def _fault(
        self, position: int, one: Endorsed[Any], rwset: RwSet, policies: Endorsers, mvcc: MvccValidator
    ) -> int | None:
        try:
            policies.check(position, one.chaincode, rwset, one.endorsers)
        except EndorsementFault as fault:
            return fault.code
        conflict = mvcc.validate(position, rwset)
        return None if conflict is None else conflict.code

    def _apply_rest(self, one: Endorsed[Any], rwset: RwSet, version: Version) -> None:
        private = one.outcome.results.private
        if private is not None:
            self.state.apply_private(private, version, self._collections)
        writes = (
            (entry.namespace, write.key, write.value, write.is_delete)
            for entry in rwset.namespaces
            for write in entry.writes
        )
        self.state.note_history(one.transaction_id, one.moment, writes)


class Caller:
    """Somebody who calls the contract under test, with the calls of `sovchain.client.Contract`."""

    def __init__(
        self,
        harness: ContractHarness,
        chaincode: str,
        msp_id: str,
        creator: bytes,
        endorsers: CollectionOf[str] | None,
    ) -> None:
        """Made by `ContractHarness.caller`."""
        self.msp_id = msp_id
        self._harness = harness
        self._chaincode = chaincode
        self._creator = creator
        self._endorsers = endorsers

    async def evaluate(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function without committing anything. Raises EvaluateError, ArgumentError."""
        run = await self._run(operation, args, kwargs)
        outcome = await run.on(self.msp_id, EvaluateError)
        return operation.decode(outcome.response.payload)

    async def endorse(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Endorsed[R]:
        """Have a function endorsed, to be committed later. Raises EndorseError, ArgumentError."""
        run = await self._run(operation, args, kwargs)
        peers = [self.msp_id] if self._endorsers is None else list(self._endorsers)
        outcomes = [await run.on(peer, EndorseError) for peer in peers]
        if any(_differs(outcomes[0], other) for other in outcomes[1:]):
            raise _failure(EndorseError, "ProposalResponsePayloads do not match", run.transaction_id)
        endorsers = frozenset(self._harness.msp_ids if self._endorsers is None else self._endorsers)
        return Endorsed(
            self._harness, run.transaction_id, self._harness.now, endorsers, outcomes[0], operation, self._chaincode
        )

    async def submit(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Committed[R]:
        """Have a function endorsed and committed. Raises EndorseError, CommitRejected, ArgumentError."""
        return (await self.endorse(operation, *args, **kwargs)).commit()

    async def _run(self, operation: Operation[..., Any], args: Any, kwargs: Any) -> _Run:
        return await self._harness._simulate(self._chaincode, self._creator, self.msp_id, operation, args, kwargs)


class _Run:
    """One proposal, to be simulated by one or more peers."""

    def __init__(
        self, harness: ContractHarness, chaincode: str, transaction_id: str, call: Call, arguments: bytes
    ) -> None:
        self.transaction_id = transaction_id
        self._harness = harness
        self._chaincode = chaincode
        self._call = call
        self._arguments = arguments

    async def on(self, msp_id: str, error: type[GatewayError]) -> Outcome:
        """Simulate on the peer of an organisation. Raises `error`."""
        harness = self._harness
        try:
            outcome = await self._call.run(
                harness.channel, self.transaction_id, self._chaincode, msp_id, self._arguments
            )
        except LedgerError as fault:
            raise _failure(error, f"error in simulation: {fault.text}", self.transaction_id) from fault
        response = outcome.response
        if response.status >= 400:
            text = f"chaincode response {response.status}, {response.message}"
            raise _failure(error, text, self.transaction_id)
        return outcome


@contextmanager
def refused(code: str, text: str = "") -> Iterator[Refusal]:
    """Expect that a contract refuses with this code, and with this text if one is given; on whatever it runs.

    Raises:
        AssertionError: it does not refuse, or with another code or text.
    """
    refusal = Refusal()
    try:
        yield refusal
    except GatewayError as error:
        refusal.error = error
        assert error.code == code, f"refused with {error.code}, not {code}: {error}"
        assert text in str(error), f"{text!r} is not in: {error}"
    except FabricError as error:
        raise AssertionError(f"not refused by the contract: {error}") from error
    else:
        raise AssertionError(f"not refused, {code} was expected")


class Refusal:
    """What `refused` caught."""

    error: GatewayError | None = None

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of the refusal."""
        return {} if self.error is None else self.error.fields


def msp_of(organization: str) -> str:
    """The MSP id of an organisation: as topologies make it."""
    return f"{organization}MSP"


def _differs(one: Outcome, other: Outcome) -> bool:
    return (one.results.public, one.response, one.event) != (other.results.public, other.response, other.event)


def _failure(kind: type[GatewayError], text: str, transaction_id: str) -> GatewayError:
    call = "evaluate" if kind is EvaluateError else "endorse"
    failure = RpcFailure("ABORTED" if kind is EndorseError else "UNKNOWN", text, endpoint="the harness")
    return kind(call, failure, transaction_id=transaction_id)


def _event(one: Endorsed[Any], number: int) -> Event | None:
    found = one.outcome.event
    return None if found is None else Event(found.event_name, found.payload, one.transaction_id, number)


def majority(msp_ids: Sequence[str]) -> str:
    """The policy that takes peers of more than half of these MSPs."""
    principals = ", ".join(f"'{msp_id}.peer'" for msp_id in msp_ids)
    return f"OutOf({len(msp_ids) // 2 + 1}, {principals})"


def _collection_package(specs: Sequence[CollectionSpec]) -> collection_pb2.CollectionConfigPackage | None:
    if not specs:
        return None
    package = collection_pb2.CollectionConfigPackage()
    for spec in specs:
        config = package.config.add().static_collection_config
        config.name, config.block_to_live = spec.name, spec.block_to_live
        config.member_only_read, config.member_only_write = spec.member_only_read, spec.member_only_write
        principals = ", ".join(f"'{msp_of(name)}.member'" for name in spec.members)
        members = spec.policy or f"OR({principals})"
        config.member_orgs_policy.signature_policy.CopyFrom(policydsl.parse(members))
        if spec.endorsement_policy:
            config.endorsement_policy.signature_policy.CopyFrom(policydsl.parse(spec.endorsement_policy))
    return package


def _couchdb(database: StateDatabase, name: str, files: Mapping[str, bytes]) -> CouchState | None:
    found, wrong = package_indexes(files)
    if wrong:
        raise ValueError("; ".join(f"{path}: {reason}" for path, reason in wrong))
    if database == "leveldb":
        return None
    return CouchState(lambda namespace, collection: found.get(collection, ()) if namespace == name else ())
