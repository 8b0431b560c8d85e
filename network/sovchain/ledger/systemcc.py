"""The system chaincodes of a peer: `qscc` (the ledger), `cscc` (channels) and `_lifecycle` (chaincode definitions).

Mirrors core/scc/qscc/query.go and core/scc/cscc/configure.go. They run inside the ledger's process and are called like
any chaincode, through the endorser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fabric_protos.common import common_pb2, configtx_pb2, ledger_pb2
from fabric_protos.peer import proposal_response_pb2, query_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger import lifecycle
from sovchain.ledger.access import AccessDeniedError
from sovchain.ledger.chainview import ChainView
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.system_call import SystemCall, SystemChaincode, failure, success
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.errors import ProtocolError

_Response = proposal_response_pb2.Response
_MAX_UINT64: Final = 2**64 - 1
_MAX_UINT64_DIGITS: Final = 20


class _QueryFailedError(LedgerError):
    """A query of the ledger has no answer; the text is Fabric's."""


# qscc -----------------------------------------------------------------------------------------------------------------


async def query_ledger(call: SystemCall) -> _Response:
    """`qscc`: GetChainInfo, GetBlockByNumber, GetBlockByHash, GetTransactionByID, GetBlockByTxID."""
    if len(call.arguments) < 2:
        return failure(f"Incorrect number of arguments, {len(call.arguments)}")
    function = call.arguments[0].decode("utf-8", "replace")
    channel_id = call.arguments[1].decode("utf-8", "replace")
    if call.invoked != "qscc":
        return failure(
            "Rejecting invoke of QSCC from another chaincode because of potential for deadlocks, original invocation "
            f"for '{call.invoked}'"
        )
    if function != "GetChainInfo" and len(call.arguments) < 3:
        return failure(f"missing 3rd argument for {function}")
    channel = call.registry.channel_of(call.peer, channel_id)
    if channel is None:
        return failure(f"Invalid chain ID, {channel_id}")
    query = _QUERIES.get(function)
    try:
        if query is None:
            raise AccessDeniedError(f"Unmapped policy for qscc/{function}")
        call.registry.access(channel).authorize(f"qscc/{function}", call.signed, signature_checked=True)
    except AccessDeniedError as error:
        return failure(f"access denied for [{function}][{channel_id}]: [{error}]")
    try:
        return success(query(channel, call.arguments[2] if len(call.arguments) > 2 else b""))
    except _QueryFailedError as error:
        return failure(str(error))


def _chain_info(channel: ChainView, _argument: bytes) -> bytes:
    info = channel.chain_info()
    return ledger_pb2.BlockchainInfo(
        height=info.height,
        currentBlockHash=info.current_block_hash,
        previousBlockHash=info.previous_block_hash,
    ).SerializeToString()


def _block_by_number(channel: ChainView, argument: bytes) -> bytes:
    text = argument.decode("utf-8", "replace")
    number = _parse_uint(text)
    # The largest number stands for the newest block (common/ledger/blkstorage).
    block = channel.block(channel.height - 1 if number == _MAX_UINT64 else number)
    if block is None:
        raise _QueryFailedError(f"Failed to get block number {number}, error no such block number [{number}] in index")
    return block


def _parse_uint(text: str) -> int:
    """Read a number as Go's strconv.ParseUint does. Raises _QueryFailedError."""
    reason = "invalid syntax"
    if text.isascii() and text.isdigit():
        digits = text.lstrip("0") or "0"
        # Python refuses to read thousands of digits, so their number is looked at first.
        if len(digits) <= _MAX_UINT64_DIGITS and int(digits) <= _MAX_UINT64:
            return int(digits)
        reason = "value out of range"
    raise _QueryFailedError(
        f'Failed to parse block number with error strconv.ParseUint: parsing "{text[:40]}": {reason}'
    )


def _block_by_hash(channel: ChainView, argument: bytes) -> bytes:
    block = channel.block_by_hash(argument)
    if block is None:
        raise _QueryFailedError(
            f"Failed to get block hash {argument.hex()}, error no such block hash [{argument.hex()}] in index"
        )
    return block


def _transaction_by_id(channel: ChainView, argument: bytes) -> bytes:
    transaction_id = argument.decode("utf-8", "replace")
    position, status = channel.position_of(transaction_id), channel.status(transaction_id)
    block = channel.block(position[0]) if position is not None else None
    if position is None or status is None or block is None:
        raise _QueryFailedError(
            f"Failed to get transaction with id {transaction_id}, error no such transaction ID "
            f"[{transaction_id}] in index"
        )
    envelope = common_pb2.Envelope.FromString(common_pb2.Block.FromString(block).data.data[position[1]])
    return transaction_pb2.ProcessedTransaction(
        transactionEnvelope=envelope, validationCode=status[0]
    ).SerializeToString()


def _block_by_transaction(channel: ChainView, argument: bytes) -> bytes:
    transaction_id = argument.decode("utf-8", "replace")
    number = channel.block_number_of(transaction_id)
    block = channel.block(number) if number is not None else None
    if block is None:
        raise _QueryFailedError(
            f"Failed to get block for txID {transaction_id}, error no such transaction ID [{transaction_id}] in index"
        )
    return block


_QUERIES: Final[Mapping[str, Callable[[ChainView, bytes], bytes]]] = {
    "GetChainInfo": _chain_info,
    "GetBlockByNumber": _block_by_number,
    "GetBlockByHash": _block_by_hash,
    "GetTransactionByID": _transaction_by_id,
    "GetBlockByTxID": _block_by_transaction,
}


# cscc -----------------------------------------------------------------------------------------------------------------


async def configure(call: SystemCall) -> _Response:
    """`cscc`: JoinChain, GetConfigBlock, GetChannelConfig, GetChannels."""
    function = call.arguments[0].decode("utf-8", "replace") if call.arguments else ""
    if not call.arguments or (function != "GetChannels" and len(call.arguments) < 2):
        return failure(f"Incorrect number of arguments, {len(call.arguments)}")
    if call.invoked != "cscc":
        return failure(f"Rejecting invoke of CSCC from another chaincode, original invocation for '{call.invoked}'")
    if function == "GetChannels":
        return _channels(call)
    if function == "JoinChain":
        return await _join(call)
    if function in ("GetConfigBlock", "GetChannelConfig"):
        return _configuration(call, function)
    return failure(f"Requested function {function} not found.")


def _channels(call: SystemCall) -> _Response:
    try:
        call.peer.local.authorize("Members", call.signed)
    except AccessDeniedError as error:
        return failure(f"access denied for [GetChannels]: {error}")
    names = [name for name in call.registry.channels if call.registry.channel_of(call.peer, name) is not None]
    answer = query_pb2.ChannelQueryResponse(channels=[query_pb2.ChannelInfo(channel_id=name) for name in sorted(names)])
    return success(answer.SerializeToString())


async def _join(call: SystemCall) -> _Response:
    try:
        block = common_pb2.Block.FromString(call.arguments[1])
    except DecodeError as error:
        return failure(f"Failed to reconstruct the genesis block, {error}")
    try:
        channel_id = ChannelBundle.from_block(block).channel_id
    except ProtocolError as error:
        return failure(f'"JoinChain" request failed because of validation of configuration block, because of {error}')
    try:
        call.peer.local.authorize("Admins", call.signed)
    except AccessDeniedError as error:
        return failure(f"access denied for [JoinChain][{channel_id}]: [{error}]")
    try:
        await call.registry.join(call.arguments[1], call.peer.msp_id)
    except LedgerError as error:
        return failure(str(error))
    return success(b"")


def _configuration(call: SystemCall, function: str) -> _Response:
    channel_id = call.arguments[1].decode("utf-8", "replace")
    if function == "GetChannelConfig" and not channel_id:
        return failure("empty channel name provided")
    channel = call.registry.channel_of(call.peer, channel_id)
    try:
        if channel is None:
            raise AccessDeniedError(f"Failed to get policy manager for channel [{channel_id}]")
        call.registry.access(channel).authorize(f"cscc/{function}", call.signed, signature_checked=True)
    except AccessDeniedError as error:
        return failure(f"access denied for [{function}][{channel_id}]: {error}")
    if function == "GetConfigBlock":
        return success(channel.last_config_block())
    config: configtx_pb2.Config = channel.bundle.config
    return success(config.SerializeToString())


SYSTEM_CHAINCODE_TABLE: Final[Mapping[str, SystemChaincode]] = {
    "_lifecycle": lifecycle.invoke,
    "cscc": configure,
    "qscc": query_ledger,
}
