"""One call in the harness: the runtime's own stub, whose requests are answered by the ledger's own rules.

Nothing is imitated: `PeerStub` encodes each request as for a peer, and `TransactionContext` with `TxSimulator` answers it as
the embedded ledger does; only the stream between them is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """One proposal as one organisation's peer simulates it."""

    def __init__(
        self,
        chaincodes: Mapping[str, Chaincode],
        access: MemberAccess,
        signed: proposal_pb2.SignedProposal,
        offers: Offers,
    ) -> None:
        self._chaincodes = chaincodes
        self._access = access
        self._signed = signed
        self._offers = offers

    async def run(
        self, channel_id: str, transaction_id: str, name: str, simulator: TxSimulator, args: bytes
    ) -> Outcome:
        """Run the chaincode; raise LedgerError for what a peer would answer with an error."""
        try:
            response, event = await self._run(channel_id, transaction_id, name, simulator, args)
            return Outcome(response, event, simulator.results())
        finally:
            simulator.done()

    async def _run(
        self, channel_id: str, transaction_id: str, name: str, simulator: TxSimulator, args: bytes
    ) -> tuple[proposal_response_pb2.Response, chaincode_event_pb2.ChaincodeEvent | None]:
        context = TransactionContext(channel_id, transaction_id, name, simulator, self._access)
        message = shim.ChaincodeMessage(
            type=_Kind.TRANSACTION, payload=args, txid=transaction_id, channel_id=channel_id, proposal=self._signed
        )
        exchange = DirectExchange(context, self)
        stub = PeerStub(message, exchange, self._offers)
        try:
            response = await self._chaincodes[name].invoke(stub)
            if response.status < 400:
                await stub.flush()
        finally:
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
        """Run another chaincode of the channel in the caller's transaction."""
        specification = chaincode_pb2.ChaincodeSpec.FromString(payload)
        name, _, channel = specification.chaincode_id.name.partition("/")
        if channel and channel != context.channel_id:
            raise SimulationError("the harness has one channel: test calls across channels on a network")
        if name not in self._chaincodes:
            raise SimulationError(f"execute failed: chaincode {name} not found")
        if name == context.namespace:
            raise SimulationError(f"txid: {context.transaction_id}({context.channel_id}) exists")
        response, _ = await self._run(
            context.channel_id,
            context.transaction_id,
            name,
            context.simulator,
            specification.input.SerializeToString(),
        )
        return shim.ChaincodeMessage(type=_Kind.COMPLETED, payload=response.SerializeToString()).SerializeToString()
