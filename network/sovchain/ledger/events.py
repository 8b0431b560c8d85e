"""Chaincode events of committed blocks, and blocks without what only members may see.

Mirrors internal/pkg/gateway/event and the filtered blocks of core/peer/deliverevents.go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from fabric_protos.common import common_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    events_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from google.protobuf.message import DecodeError

from sovchain.ledger.errors import LedgerError
from sovchain.protocol.reasons import REASONS_TOLD

_CACHED_BLOCKS: Final = 64


class BlockUnreadableError(LedgerError):
    """A committed block has a transaction that cannot be shown in a filtered block."""


class EventCache:
    """Chaincode events of the blocks that were read last: many streams follow the end of one channel."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[str, int], tuple[chaincode_event_pb2.ChaincodeEvent, ...]] = OrderedDict()

    def events(self, channel_id: str, number: int, block: bytes) -> tuple[chaincode_event_pb2.ChaincodeEvent, ...]:
        """Return the events of a block's valid transactions, in the order of the transactions."""
        key = (channel_id, number)
        found = self._blocks.get(key)
        if found is None:
            found = tuple(valid_events(common_pb2.Block.FromString(block)))
            self._blocks[key] = found
            if len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return found

    def forget(self, channel_id: str) -> None:
        """Forget the blocks of a channel."""
        for key in [key for key in self._blocks if key[0] == channel_id]:
            del self._blocks[key]


def valid_events(block: common_pb2.Block) -> Iterator[chaincode_event_pb2.ChaincodeEvent]:
    """Yield the events of a block's valid transactions."""
    codes = block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER]
    for index, envelope in enumerate(block.data.data):
        if index >= len(codes) or codes[index] != transaction_pb2.VALID:
            continue
        try:
            payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
            if header.type != common_pb2.ENDORSER_TRANSACTION:
                continue
            yield from (event for event in _events(payload.data) if event.event_name and event.tx_id)
        except DecodeError:
            continue  # a valid transaction can be decoded; nothing to tell about one that cannot


def filtered_block(block: common_pb2.Block, channel_id: str) -> events_pb2.FilteredBlock:
    """Return a block's transactions with id, type, validation code, and events without their payload.

    Events of invalid transactions are included, as a peer does. Raises BlockUnreadableError.
    """
    codes = block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER]
    filtered = events_pb2.FilteredBlock(channel_id=channel_id, number=block.header.number)
    for index, envelope in enumerate(block.data.data):
        try:
            payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
            if not payload.HasField("header"):
                continue
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
            entry = filtered.filtered_transactions.add(txid=header.tx_id)
            entry.type = header.type  # type: ignore[assignment]  # a number on the wire, open in proto3
            entry.tx_validation_code = _code(codes, index)  # type: ignore[assignment]  # as above
            if header.type == common_pb2.ENDORSER_TRANSACTION:
                entry.transaction_actions.SetInParent()
                for event in _events(payload.data):
                    shown = entry.transaction_actions.chaincode_actions.add().chaincode_event
                    shown.tx_id, shown.chaincode_id, shown.event_name = (
                        event.tx_id,
                        event.chaincode_id,
                        event.event_name,
                    )
        except DecodeError as error:
            raise BlockUnreadableError(
                f"block {block.header.number} of channel {channel_id}: transaction {index} cannot be decoded"
            ) from error
    if any(codes):
        filtered.MergeFromString(REASONS_TOLD)
    return filtered


def _code(codes: bytes, index: int) -> int:
    return codes[index] if index < len(codes) else transaction_pb2.NOT_VALIDATED


def _events(data: bytes) -> Iterator[chaincode_event_pb2.ChaincodeEvent]:
    for action in transaction_pb2.Transaction.FromString(data).actions:
        payload = transaction_pb2.ChaincodeActionPayload.FromString(action.payload)
        response = proposal_response_pb2.ProposalResponsePayload.FromString(payload.action.proposal_response_payload)
        events = proposal_pb2.ChaincodeAction.FromString(response.extension).events
        if events:
            event = chaincode_event_pb2.ChaincodeEvent.FromString(events)
            if event.chaincode_id:
                yield event
