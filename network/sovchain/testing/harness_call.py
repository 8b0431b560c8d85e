"""One call in the harness: the runtime's own stub, whose requests are answered by the ledger's own rules.

Nothing is imitated: `PeerStub` encodes each request as for a peer, and `TransactionContext` with `TxSimulator` answers it as
the embedded ledger does; only the stream between them is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim

from sovchain.chaincode import LedgerError
from sovchain.chaincode.exchange import Exchange
from sovchain.chaincode.peerstub import Offers, PeerStub
from sovchain.ledger.collections import Collection
from sovchain.ledger.errors import CollectionMissing, SimulationError
from sovchain.ledger.simulator import SimulationResults, TxSimulator
from sovchain.ledger.transaction_context import MAX_KEYS_PER_REQUEST, TransactionContext

if TYPE_CHECKING:
    from sovchain.chaincode import Chaincode

_Kind = shim.ChaincodeMessage
OFFERS = {
    "3.1": Offers(write_batch=MAX_KEYS_PER_REQUEST, get_multiple=MAX_KEYS_PER_REQUEST),
    "2.5": Offers(),
}
"""What peers of each version say in READY that they can do."""


@dataclass(frozen=True)
class Outcome:
    """What a simulation came to."""

    response: proposal_response_pb2.Response
    event: chaincode_event_pb2.ChaincodeEvent | None
    results: SimulationResults


@dataclass(frozen=True)
class MemberAccess:
    """Member-only rules of collections, for one caller (core/common/privdata/store.go)."""

    caller: str
    collections: Callable[[str], Mapping[str, Collection]]

    def permissions(self, simulator: TxSimulator, namespace: str, collection: str) -> tuple[bool, bool]:
        """Return (may read, may write). Raises CollectionMissing."""
        found = self.collections(namespace).get(collection)
        if found is None:
            text = f"collection {namespace}/{collection} could not be found"
            raise CollectionMissing(text, namespace, collection)
        member = self.caller in found.members
        return member or not found.config.member_only_read, member or not found.config.member_only_write


class Side(Protocol):
    """One channel as the calls of a transaction see it."""

    @property
    def channel(self) -> str:
        """Its name."""
        ...

    @property
    def chaincodes(self) -> Mapping[str, Chaincode]:
        """Its chaincodes by name."""
        ...

    @property
    def msp_ids(self) -> tuple[str, ...]:
        """The MSPs of its members."""
        ...

    def collections(self, namespace: str) -> Mapping[str, Collection]:
        """The collections of a chaincode."""
        ...

    def simulator(self, msp_id: str, transaction_id: str) -> TxSimulator:
        """A new simulation on the peer of an organisation."""
        ...


class DirectExchange(Exchange):
    """The conversation with a peer that is a function call."""

    def __init__(self, context: TransactionContext, call: Call) -> None:
        super().__init__(context.channel_id, context.transaction_id, lambda message: None)
        self._context = context
        self._call = call

    async def ask(self, kind: shim.ChaincodeMessage.Type.ValueType, payload: bytes) -> bytes:
        """See `Exchange.ask`."""
        name = _Kind.Type.Name(kind)
        try:
            if kind == _Kind.INVOKE_CHAINCODE:
                return await self._call.nested(self._context, payload)
            return self._context.handle(kind, payload)
        except SimulationError as error:
            text = f"{name} failed: transaction ID: {self.transaction_id}: {error}"
            raise LedgerError(name, text) from None


class Call:
    """One proposal as one organisation's peer simulates it.

    Args:
        channels: the channels that peers are on, by name.
        caller: the MSP of who made the proposal.
        signed: the proposal.
        offers: what the peer says that it can do.
    """

    def __init__(
        self, channels: Mapping[str, Side], caller: str, signed: proposal_pb2.SignedProposal, offers: Offers
    ) -> None:
        self._channels = channels
        self._caller = caller
        self._signed = signed
        self._offers = offers
        self._running: set[tuple[str, str]] = set()

    async def run(self, channel_id: str, transaction_id: str, name: str, msp_id: str, args: bytes) -> Outcome:
        """Run the chaincode on the peer of an organisation; raise LedgerError for what a peer would answer with an error."""
        side = self._channels[channel_id]
        simulator = side.simulator(msp_id, transaction_id)
        try:
            response, event = await self._run(side, transaction_id, name, simulator, args)
            return Outcome(response, event, simulator.results())
        finally:
            simulator.done()

    async def _run(
        self, side: Side, transaction_id: str, name: str, simulator: TxSimulator, args: bytes
    ) -> tuple[proposal_response_pb2.Response, chaincode_event_pb2.ChaincodeEvent | None]:
        key = (side.channel, name)
        if key in self._running:
            raise SimulationError(f"txid: {transaction_id}({side.channel}) exists")
        self._running.add(key)
        access = MemberAccess(self._caller, side.collections)
        context = TransactionContext(side.channel, transaction_id, name, simulator, access)
        message = shim.ChaincodeMessage(
            type=_Kind.TRANSACTION, payload=args, txid=transaction_id, channel_id=side.channel, proposal=self._signed
        )
        exchange = DirectExchange(context, self)
        stub = PeerStub(message, exchange, self._offers)
        try:
            response = await side.chaincodes[name].invoke(stub)
            if response.status < 400:
                await stub.flush()
        finally:
            self._running.discard(key)
            context.close()
            exchange.close("the transaction is over: all requests of a contract must be awaited before it returns")
        said = proposal_response_pb2.Response(
            status=response.status, message=response.message, payload=response.payload
        )
        event = stub.event if response.status < 400 else None
        if event is not None:
            event.chaincode_id, event.tx_id = name, transaction_id
        return said, event

    async def nested(self, context: TransactionContext, payload: bytes) -> bytes:
        """Run another chaincode for a chaincode.

        On the same channel that is in the caller's transaction; on another one the chaincode reads what is committed there,
        and its writes are thrown away (core/chaincode/handler.go HandleInvokeChaincode).
        """
        specification = chaincode_pb2.ChaincodeSpec.FromString(payload)
        name, _, channel_id = specification.chaincode_id.name.partition("/")
        channel_id = channel_id or context.channel_id
        msp_id = context.simulator.msp_id
        side = self._channels.get(channel_id)
        if side is None or msp_id not in side.msp_ids:
            raise SimulationError(f"Failed to get policy manager for channel [{channel_id}]")
        if self._caller not in side.msp_ids:
            raise SimulationError(
                f"Failed evaluating policy on signed data during check policy on channel [{channel_id}] "
                "with policy [/Channel/Application/Writers]: the caller is no member of the channel"
            )
        if name not in side.chaincodes:
            raise SimulationError(f"execute failed: chaincode {name} not found")
        arguments = specification.input.SerializeToString()
        if channel_id == context.channel_id:
            response, _ = await self._run(side, context.transaction_id, name, context.simulator, arguments)
        else:
            simulator = side.simulator(msp_id, context.transaction_id)
            try:
                response, _ = await self._run(side, context.transaction_id, name, simulator, arguments)
            finally:
                simulator.done()
        return shim.ChaincodeMessage(type=_Kind.COMPLETED, payload=response.SerializeToString()).SerializeToString()
