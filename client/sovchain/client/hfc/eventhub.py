"""hfc's event hub: callbacks for blocks, transactions and chaincode events of a channel."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from fabric_protos.common import common_pb2
from fabric_protos.peer import events_pb2

from sovchain.client.commit import code_name
from sovchain.client.hfc.decode import decode_filtered, decoded
from sovchain.client.hfc.errors import HfcError

if TYPE_CHECKING:
    from sovchain.client.hfc.client import Client
    from sovchain.client.hfc.objects import Peer, User

OnEvent = Callable[..., Any]


@dataclass(eq=False)
class _Registration:
    on_event: OnEvent | None
    unregister: bool
    disconnect: bool
    chaincode: str = ""
    pattern: re.Pattern[str] | None = None


class ChannelEventHub:
    """Calls back for what commits. `connect` returns an awaitable that ends with `disconnect` or with the last block.

    Where hfc ends silently when the stream breaks, this goes on at the next block, and raises what cannot be mended.
    """

    def __init__(self, client: Client, channel: str, peer: Peer, requestor: User) -> None:
        """Made by `Channel.newChannelEventHub`."""
        self._client = client
        self._channel = channel
        self._peer = peer
        self._requestor = requestor
        self._numbers = count(1)
        self._blocks: dict[int, _Registration] = {}
        self._transactions: dict[str, _Registration] = {}
        self._chaincodes: list[_Registration] = []
        self._task: asyncio.Task[None] | None = None
        self.connected: bool = False

    def connect(
        self,
        filtered: bool = True,
        start: int | None = None,
        stop: int | None = None,
        as_array: bool = False,
        target: Any = None,
        signed_event: Any = None,
    ) -> asyncio.Task[None]:
        """Begin to listen; return what can be awaited. Raises HfcError for options that the gateway has no place for."""
        if as_array or target is not None or signed_event is not None:
            raise HfcError("as_array, target and signed_event are not offered: see docs/client/hfc.md")
        self._task = asyncio.create_task(self._listen(filtered, start, stop))
        self.connected = True
        return self._task

    def disconnect(self) -> None:
        """Stop listening. May be called more than once."""
        self.connected = False
        if self._task is not None:
            self._task.cancel()

    def have_registrations(self) -> bool:
        """Whether anything is registered."""
        return bool(self._blocks or self._transactions or self._chaincodes)

    def registerBlockEvent(  # noqa: N802 - hfc's name
        self,
        unregister: bool = True,
        start: int | None = None,
        stop: int | None = None,
        disconnect: bool = False,
        onEvent: OnEvent | None = None,  # noqa: N803 - hfc's name
    ) -> int:
        """Call `onEvent(block)` for each block, or for the next one with `unregister`; return the registration."""
        number = next(self._numbers)
        self._blocks[number] = _Registration(onEvent, unregister, disconnect)
        return number

    def unregisterBlockEvent(self, reg_num: int) -> None:  # noqa: N802 - hfc's name
        """Stop calling back."""
        self._blocks.pop(reg_num, None)

    def registerTxEvent(  # noqa: N802 - hfc's name
        self,
        tx_id: str,
        unregister: bool | None = None,
        start: int | None = None,
        stop: int | None = None,
        disconnect: bool = False,
        onEvent: OnEvent | None = None,  # noqa: N803 - hfc's name
    ) -> str:
        """Call `onEvent(tx_id, status, block_number)` when the transaction is in a block; `all` is every transaction."""
        once = tx_id != "all" if unregister is None else unregister
        self._transactions[tx_id] = _Registration(onEvent, once, disconnect)
        return tx_id

    def unregisterTxEvent(self, tx_id: str) -> None:  # noqa: N802 - hfc's name
        """Stop calling back."""
        self._transactions.pop(tx_id, None)

    def registerChaincodeEvent(  # noqa: N802 - hfc's name
        self,
        ccid: str,
        pattern: str,
        unregister: bool = False,
        start: int | None = None,
        stop: int | None = None,
        as_array: bool | None = None,
        disconnect: bool = False,
        onEvent: OnEvent | None = None,  # noqa: N803 - hfc's name
    ) -> object:
        """Call `onEvent(event, block_number, tx_id, status)` for events of a chaincode whose names match a pattern."""
        registration = _Registration(onEvent, unregister, disconnect, ccid, re.compile(pattern))
        self._chaincodes.append(registration)
        return registration

    def unregisterChaincodeEvent(self, cr: object) -> None:  # noqa: N802 - hfc's name
        """Stop calling back."""
        self._chaincodes = [one for one in self._chaincodes if one is not cr]

    async def _listen(self, filtered: bool, start: int | None, stop: int | None) -> None:
        network = await self._client.network(self._requestor, self._channel, [self._peer])
        source: Any = network.filtered_blocks(start, stop) if filtered else network.blocks(start, stop)
        try:
            async with source:
                async for block in source:
                    if filtered:
                        self._filtered(block)
                    else:
                        self._full(block)
        except asyncio.CancelledError:
            if self.connected:
                raise
        finally:
            self.connected = False

    def _filtered(self, block: events_pb2.FilteredBlock) -> None:
        self._call_blocks(decode_filtered(block))
        for transaction in block.filtered_transactions:
            code = code_name(transaction.tx_validation_code)
            self._call_transaction(transaction.txid, code, block.number)
            for action in transaction.transaction_actions.chaincode_actions:
                event = action.chaincode_event
                found = {
                    "chaincode_id": event.chaincode_id,
                    "tx_id": event.tx_id,
                    "event_name": event.event_name,
                    "payload": event.payload,
                }
                self._call_chaincode(found, block.number, transaction.txid, code)

    def _full(self, block: common_pb2.Block) -> None:
        found = decoded(block)
        self._call_blocks(found)
        codes = block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER]
        for place, envelope in enumerate(found["data"]["data"]):
            tx_id = envelope["payload"]["header"]["channel_header"]["tx_id"]
            code = code_name(codes[place])
            self._call_transaction(tx_id, code, block.header.number)
            data = envelope["payload"]["data"]
            for action in data["actions"] if isinstance(data, dict) else ():
                event = action["payload"]["action"]["proposal_response_payload"]["extension"]["events"]
                self._call_chaincode(event, block.header.number, tx_id, code)

    def _call_blocks(self, block: dict[str, Any]) -> None:
        for number, registration in list(self._blocks.items()):
            if registration.unregister:
                self._blocks.pop(number, None)
            self._call(registration, block)

    def _call_transaction(self, tx_id: str, code: str, block_number: int) -> None:
        for key in (tx_id, "all"):
            registration = self._transactions.get(key)
            if registration is not None:
                if registration.unregister:
                    self._transactions.pop(key, None)
                self._call(registration, tx_id, code, block_number)

    def _call_chaincode(self, event: dict[str, Any], block_number: int, tx_id: str, code: str) -> None:
        for registration in list(self._chaincodes):
            assert registration.pattern is not None
            if event["chaincode_id"] != registration.chaincode or not registration.pattern.match(event["event_name"]):
                continue
            if registration.unregister:
                self.unregisterChaincodeEvent(registration)
            self._call(registration, event, block_number, tx_id, code)

    def _call(self, registration: _Registration, *arguments: Any) -> None:
        if registration.on_event is not None:
            registration.on_event(*arguments)
        if registration.disconnect:
            self.disconnect()
