"""A channel, seen through a gateway."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from fabric_protos.common import common_pb2
from fabric_protos.peer import events_pb2
from google.protobuf.message import DecodeError

from sovchain.client._checkpoints import chain_info
from sovchain.client.checkpoint import Checkpointer
from sovchain.client.commit import Commit
from sovchain.client.contract import Contract
from sovchain.client.deliver import FILTERED, FULL, WITH_PRIVATE_DATA, BlockAndPrivateData, BlockStream
from sovchain.client.errors import DeliverNotFound, UnexpectedReply
from sovchain.client.identity import Identity
from sovchain.client.requests import BlocksRequest
from sovchain.client.session import Session

_TRANSACTION_ID = re.compile(r"[0-9a-f]{64}")
_BEHIND_FIRST_S, _BEHIND_LAST_S = 0.02, 0.5


@dataclass(frozen=True, slots=True)
class ChainInfo:
    """The end of a channel's chain on one peer.

    Attributes:
        height: number of blocks; the next one has this number.
        current_block_hash: hash of the last block's header.
        previous_block_hash: hash of the header before it.
    """

    height: int
    current_block_hash: bytes
    previous_block_hash: bytes


class Network:
    """A channel. Made by `Gateway.network`, which sends nothing: a wrong name shows at the first call."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"Network({self._session.channel_id!r})"

    @property
    def name(self) -> str:
        """Name of the channel."""
        return self._session.channel_id

    @property
    def identity(self) -> Identity:
        """The identity that signs."""
        return self._session.identity

    def contract(self, chaincode: str, name: str | None = None) -> Contract:
        """Return a chaincode of the channel, or the contract `name` in it.

        With `name`, functions called by their names are prefixed with it: `issue` becomes `Waybills:issue`. Operations
        bring their own contract's name.
        """
        return Contract(self._session, chaincode, name)

    def commit(self, transaction_id: str) -> Commit:
        """Return a transaction of the channel by its id, to ask for its status. Raises ValueError for no such id."""
        if _TRANSACTION_ID.fullmatch(transaction_id) is None:
            raise ValueError("a transaction id has 64 hexadecimal digits in lower case")
        return Commit(self._session, transaction_id)

    async def chain_info(self) -> ChainInfo:
        """Ask a peer how long its chain is. Raises EvaluateError, ConnectError, UnexpectedReply."""
        info = await chain_info(self._session)
        return ChainInfo(info.height, info.currentBlockHash, info.previousBlockHash)

    async def config_block(self) -> common_pb2.Block:
        """Ask a peer for the channel's last config block, as `ChannelTrust` takes it: it is only as true as that peer.

        Raises EvaluateError, ConnectError, UnexpectedReply.
        """
        data = await self.contract("cscc").evaluate("GetConfigBlock", self.name)
        try:
            return common_pb2.Block.FromString(data)
        except DecodeError as error:
            raise UnexpectedReply("config block", "it is no Block") from error

    async def reached(self, block_number: int, *, timeout_s: float = 30.0) -> None:
        """Wait until the gateway's peer has committed a block, so that what is evaluated then sees it.

        A transaction that another organisation's peer has reported as committed may come later to this one's peer.

        Raises:
            TimeoutError: it has not within `timeout_s` seconds.
            DeliverError, ConnectError: the peer's blocks cannot be read.
        """
        async with asyncio.timeout(timeout_s):
            pause = _BEHIND_FIRST_S
            while not await self._has(block_number):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _BEHIND_LAST_S)

    async def _has(self, block_number: int) -> bool:
        """Wait for a block; False when the peer is further behind than that: a peer waits for the next block, and says of
        any later one that it is not there (common/ledger/blockledger/fileledger/impl.go)."""
        async with self.filtered_blocks(block_number, block_number) as blocks:
            try:
                await anext(blocks)
            except DeliverNotFound:
                return False
        return True

    def blocks(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        checkpoint: Checkpointer | None = None,
        reconnect: bool = True,
    ) -> BlockStream[common_pb2.Block]:
        """Read blocks in order, from `start` to and including `stop`.

        Args:
            start: number of the first block; None for the next one that commits.
            stop: number of the last block; None to go on for ever.
            checkpoint: where to go on after a stop; a position in it takes precedence over `start`. It is moved past a
                block when the body of the loop has ended and the next one is asked for.
            reconnect: whether to go on, at any gateway of the profile, when the stream breaks.
        """
        return BlockStream(self._session, FULL, start, stop, reconnect=reconnect, checkpoint=checkpoint)

    def filtered_blocks(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        checkpoint: Checkpointer | None = None,
        reconnect: bool = True,
    ) -> BlockStream[events_pb2.FilteredBlock]:
        """Read blocks reduced to transaction ids, validation codes and names of events; otherwise as `blocks`."""
        return BlockStream(self._session, FILTERED, start, stop, reconnect=reconnect, checkpoint=checkpoint)

    def blocks_and_private_data(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        checkpoint: Checkpointer | None = None,
        reconnect: bool = True,
    ) -> BlockStream[BlockAndPrivateData]:
        """Read blocks with the private data that the peer holds and the caller's organisation may see; as `blocks`."""
        return BlockStream(self._session, WITH_PRIVATE_DATA, start, stop, reconnect=reconnect, checkpoint=checkpoint)

    def blocks_request(self, start: int | None = None, stop: int | None = None) -> BlocksRequest[common_pb2.Block]:
        """Make a request for blocks that is signed elsewhere (`BlocksRequest.with_signature`)."""
        return BlocksRequest.build(self._session, FULL, start, stop)

    def filtered_blocks_request(
        self, start: int | None = None, stop: int | None = None
    ) -> BlocksRequest[events_pb2.FilteredBlock]:
        """As `blocks_request`, for filtered blocks."""
        return BlocksRequest.build(self._session, FILTERED, start, stop)

    def blocks_and_private_data_request(
        self, start: int | None = None, stop: int | None = None
    ) -> BlocksRequest[BlockAndPrivateData]:
        """As `blocks_request`, for blocks with private data."""
        return BlocksRequest.build(self._session, WITH_PRIVATE_DATA, start, stop)
