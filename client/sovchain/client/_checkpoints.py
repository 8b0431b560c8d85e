"""Whether a checkpoint still names a place in the ledger.

A peer does not say so: asked for events after a transaction that set none, that was invalid or that is of another
channel, it skips every event for ever (internal/pkg/gateway/chaincodeevents.go chaincodeEventMatcher); asked for a block
beyond its end it waits for it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from fabric_protos.common import ledger_pb2
from fabric_protos.peer import events_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from sovchain.client._endpoint import Endpoint
from sovchain.client._seek import from_block, seek_envelope
from sovchain.client._stream import ATTEMPTS_MAX, StreamBroken, StreamCall, reconnect_pause
from sovchain.client.checkpoint import Position
from sovchain.client.errors import CheckpointGone, DeliverUnavailable, UnexpectedReply
from sovchain.client.proposal import Proposal
from sovchain.client.session import Session
from sovchain.protocol.proposals import Invocation

LAG_S: Final = 4.0
"""How long a peer may lag behind a checkpoint that was made at another one."""
_PAUSE_S: Final = 0.25
_VALID: Final = transaction_pb2.TxValidationCode.VALID


async def chain_info(session: Session) -> ledger_pb2.BlockchainInfo:
    """What a peer says of its chain. Raises EvaluateError, ConnectError, UnexpectedReply."""
    invocation = Invocation(session.channel_id, "qscc", (b"GetChainInfo", session.channel_id.encode()))
    return await Proposal.build(session, invocation, ledger_pb2.BlockchainInfo.FromString).evaluate()


async def check_block(session: Session, block_number: int, *, there: bool = False) -> int:
    """The chain's height, if it reaches a block, which must be `there` or may be the next one.

    Raises CheckpointGone, and the errors of `chain_info`.
    """
    stop = time.monotonic() + LAG_S
    while True:
        height = (await chain_info(session)).height
        if height > block_number or (height == block_number and not there):
            return height
        if time.monotonic() >= stop:
            raise CheckpointGone(
                f"channel {session.channel_id} has {height} blocks and so no block {block_number}",
                block_number=block_number,
                transaction_id="",
                height=height,
            )
        await asyncio.sleep(_PAUSE_S)


async def usable_position(session: Session, position: Position) -> Position:
    """The same place in terms that a peer finds: after the last event that the position has behind it.

    Raises CheckpointGone, DeliverUnavailable, and the errors of `chain_info`.
    """
    if not position.transaction_id:
        await check_block(session, position.block_number)
        return position
    height = await check_block(session, position.block_number, there=True)
    block = await _filtered_block(session, position.block_number)
    last_with_event = ""
    for transaction in block.filtered_transactions:
        actions = transaction.transaction_actions.chaincode_actions
        if transaction.tx_validation_code == _VALID and any(action.chaincode_event.tx_id for action in actions):
            last_with_event = transaction.txid
        if transaction.txid == position.transaction_id:
            return Position(position.block_number, last_with_event)
    raise CheckpointGone(
        f"block {position.block_number} of channel {session.channel_id} has no transaction {position.transaction_id}",
        block_number=position.block_number,
        transaction_id=position.transaction_id,
        height=height,
    )


async def _filtered_block(session: Session, number: int) -> events_pb2.FilteredBlock:
    failures = 0
    while True:
        order = session.connection.order()
        try:
            return await _read_one(session, order[failures % len(order)], number)
        except StreamBroken as broken:
            failures += 1
            if not broken.passing or failures >= ATTEMPTS_MAX:
                raise DeliverUnavailable(
                    f"block {number} of channel {session.channel_id} cannot be read: {broken.failure.message}",
                    channel_id=session.channel_id,
                    status=0,
                    endpoint=broken.failure.endpoint,
                ) from None
        await asyncio.sleep(reconnect_pause(failures))


async def _read_one(session: Session, endpoint: Endpoint, number: int) -> events_pb2.FilteredBlock:
    connection = session.connection
    call = StreamCall(connection, endpoint, "/protos.Deliver/DeliverFiltered", of_gateway=False)
    certificate = connection.profile.client_certificate_pem
    request = await seek_envelope(session.identity, session.channel_id, from_block(number), number, certificate)
    try:
        await call.open(request)
        response = events_pb2.DeliverResponse.FromString(await call.read())
    except DecodeError as error:
        raise UnexpectedReply("deliver", "it is no DeliverResponse", endpoint=endpoint.address) from error
    finally:
        call.close()
    if response.WhichOneof("Type") != "filtered_block" or response.filtered_block.number != number:
        raise UnexpectedReply("deliver", f"it is not the filtered block {number}", endpoint=endpoint.address)
    return response.filtered_block
