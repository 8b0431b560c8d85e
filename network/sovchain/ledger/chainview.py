"""What a peer sees of a channel: its blocks, its state, and who waits for more of them.

The channel itself is the view of all peers that keep up. A peer that lags on request has one of its own, a `Follower`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.peer import collection_pb2

from sovchain.ledger.collections import LIFECYCLE_NAMESPACE, Collection, collections_of
from sovchain.ledger.couchdb import CouchState
from sovchain.ledger.errors import ChannelReverted, ChannelStopped, StorageCorrupt
from sovchain.ledger.simulator import TxSimulator
from sovchain.ledger.state import PrivateWriteSet, Snapshot, View
from sovchain.ledger.storage import ChainState
from sovchain.protocol.channelconfig import ChannelBundle

if TYPE_CHECKING:
    from sovchain.ledger.channel import Channel

MAX_BLOCKS_BEHIND: Final = 16
"""How many blocks a peer can stay behind: the state after each of them is kept open."""


@dataclass(frozen=True)
class ChainInfo:
    """Height and header hashes at the end of the chain, as `qscc` GetChainInfo gives them."""

    height: int
    current_block_hash: bytes
    previous_block_hash: bytes


class ChainView:
    """A channel as it is after some block. Methods are called in the thread of the channel's event loop."""

    def __init__(self, view: View, chain: ChainState, bundle: ChannelBundle) -> None:
        """For `Channel` and `Follower` only."""
        self.channel_id = chain.channel_id
        self._view = view
        self._reader = Snapshot(view)
        self._chain = chain
        self._bundle = bundle
        self._advanced = asyncio.Event()
        self._waiters: dict[str, set[asyncio.Future[tuple[int, int]]]] = {}
        self._collections: dict[str, Mapping[str, Collection]] = {}
        self._turn = 0
        """How often the channel went back to a snapshot."""

    @property
    def bundle(self) -> ChannelBundle:
        """The configuration in force."""
        return self._bundle

    @property
    def height(self) -> int:
        """Number of committed blocks."""
        return self._chain.height

    @property
    def peer_msp_ids(self) -> tuple[str, ...]:
        """Organisations whose private data is kept here, sorted."""
        raise NotImplementedError

    @property
    def stopped(self) -> ChannelStopped | None:
        """Why the channel accepts nothing more, or None while it works."""
        raise NotImplementedError

    def same_definitions(self, height: int, other: int) -> bool:
        """See `Channel.same_definitions`."""
        raise NotImplementedError

    def store_private(self, transaction_id: str, endorsing_msp_id: str, private: rwset_pb2.TxPvtReadWriteSet) -> None:
        """See `Channel.store_private`."""
        raise NotImplementedError

    def _check_running(self) -> None:
        """Raises ChannelStopped, ChannelClosed."""
        raise NotImplementedError

    # Simulation -----------------------------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """The state after the last committed block; close it. Raises `ChannelStopped`, `ChannelClosed`."""
        self._check_running()
        return Snapshot(self._view)

    def simulator(
        self, snapshot: Snapshot, msp_id: str, transaction_id: str = "", couchdb: CouchState | None = None
    ) -> TxSimulator:
        """A simulator on `snapshot` as the peer of `msp_id` sees it; the transaction id appears in error texts."""
        return TxSimulator(snapshot, msp_id, self._bundle.application_msp_ids, transaction_id, couchdb)

    def collections(self, namespace: str) -> tuple[collection_pb2.StaticCollectionConfig, ...] | None:
        """Collections that are in force for a chaincode, implicit ones last; None if it is not defined."""
        found = self._collections.get(namespace)
        if found is None:
            found = collections_of(
                namespace, lambda key: self._reader.get(LIFECYCLE_NAMESPACE, key), self._bundle.application_msp_ids
            )
            if found is None:
                return None
            self._collections[namespace] = found
        return tuple(collection.config for collection in found.values())

    def collections_before(self, namespace: str, number: int) -> Mapping[str, Collection]:
        """Collections that were in force for a chaincode before block `number`; those of today's members for the rest.

        Mirrors `core/ledger/confighistory/mgr.go` MostRecentCollectionConfigBelow with kv_ledger.go's implicit ones.
        """

        def get(key: str) -> bytes | None:
            return self._reader.value_before(LIFECYCLE_NAMESPACE, key, number)

        return collections_of(namespace, get, self._bundle.application_msp_ids) or {}

    def private_written(self, msp_id: str, number: int) -> list[PrivateWriteSet]:
        """What a committed block wrote to the collections that `msp_id` holds (`Snapshot.private_written`)."""
        return self._reader.private_written(msp_id, number)

    # What is committed ----------------------------------------------------------------------------------------------

    def block(self, number: int) -> bytes | None:
        """A committed block with its peer metadata (transaction filter and commit hash), None beyond the end."""
        return self._reader.block(number)

    def block_by_hash(self, header_hash: bytes) -> bytes | None:
        """The block whose header has this hash."""
        return self._reader.block_by_hash(header_hash)

    def last_config_block(self) -> bytes:
        """The block that holds the configuration in force."""
        block = self._reader.block(self._chain.last_config)
        if block is None:
            raise StorageCorrupt(self._view.path, "the last configuration block is missing", self._chain.last_config)
        return block

    def chain_info(self) -> ChainInfo:
        """Height and hashes at the end of the chain."""
        return ChainInfo(self._chain.height, self._chain.last_hash, self._chain.previous_hash)

    def block_number_of(self, transaction_id: str) -> int | None:
        """Number of the block that has the transaction, valid or not."""
        position = self.position_of(transaction_id)
        return None if position is None else position[0]

    def position_of(self, transaction_id: str) -> tuple[int, int] | None:
        """(block number, index in the block) of the transaction."""
        row = self._reader.transaction(transaction_id)
        return None if row is None else (row.block, row.position)

    def status(self, transaction_id: str) -> tuple[int, int] | None:
        """(validation code, block number) of a committed transaction."""
        row = self._reader.transaction(transaction_id)
        return None if row is None else (row.code, row.block)

    def reason(self, transaction_id: str) -> str:
        """Why a committed transaction is invalid, in plain words; "" if it is valid or not there."""
        row = self._reader.transaction(transaction_id)
        return "" if row is None else row.reason

    async def wait_for_commit(self, transaction_id: str) -> tuple[int, int]:
        """(validation code, block number), at once if the transaction is committed, else when it is.

        A snapshot taken after this returns contains the transaction's block. Raises `ChannelStopped`, `ChannelClosed`.
        """
        committed = self.status(transaction_id)
        if committed is not None:
            return committed
        self._check_running()
        waiter: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        waiting = self._waiters.setdefault(transaction_id, set())
        waiting.add(waiter)
        try:
            return await waiter
        finally:
            waiting.discard(waiter)
            if not waiting and self._waiters.get(transaction_id) is waiting:
                del self._waiters[transaction_id]

    async def blocks(self, start: int, stop: int | None = None) -> AsyncIterator[bytes]:
        """Blocks from `start` to `stop`, both inclusive, waiting for those that are not there yet; no end without
        `stop`.

        Any number of readers: each holds one block at a time. Raises `ChannelStopped`, `ChannelClosed` when there is
        nothing left to wait for, `ChannelReverted` when the channel went back to a snapshot.
        """
        number, turn = max(start, 0), self._turn
        while stop is None or number <= stop:
            if turn != self._turn:
                raise ChannelReverted(self.channel_id)
            advanced = self._advanced
            block = self._reader.block(number) if number < self._chain.height else None
            if block is None:
                self._check_running()
                await advanced.wait()
                continue
            yield block
            number += 1

    def _show(self, view: View) -> None:
        previous, self._reader, self._view = self._reader, Snapshot(view), view
        previous.close()

    def _advance(self) -> None:
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()

    def _answer_waiters(self, committed: Iterable[tuple[str, int, int]]) -> None:
        """Tell those who wait for these transactions: id, validation code and block number of each."""
        for transaction_id, code, number in committed:
            for waiter in self._waiters.pop(transaction_id, ()):
                if not waiter.done():
                    waiter.set_result((code, number))

    def _release_waiters(self, error: Callable[[], Exception]) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiting in waiters.values():
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_exception(error())
        self._advance()


class Follower(ChainView):
    """A view that may stay behind its channel. `hold` keeps it behind, `release` has it catch up.

    It holds on to the state after the block that it stands at, so the write-ahead logs of the channel grow meanwhile and
    purged values stay in them.
    """

    def __init__(self, head: Channel) -> None:
        """For `Channel.follower`."""
        super().__init__(head._view, head._chain, head._bundle)
        self._head = head
        self._blocks_behind: int | None = 0
        self._next: deque[tuple[ChainState, ChannelBundle, View, Snapshot]] = deque()

    @property
    def peer_msp_ids(self) -> tuple[str, ...]:
        """See `ChainView.peer_msp_ids`."""
        return self._head.peer_msp_ids

    @property
    def stopped(self) -> ChannelStopped | None:
        """See `ChainView.stopped`."""
        return self._head.stopped

    def same_definitions(self, height: int, other: int) -> bool:
        """See `ChainView.same_definitions`."""
        return self._head.same_definitions(height, other)

    def store_private(self, transaction_id: str, endorsing_msp_id: str, private: rwset_pb2.TxPvtReadWriteSet) -> None:
        """See `ChainView.store_private`."""
        self._head.store_private(transaction_id, endorsing_msp_id, private)

    def _check_running(self) -> None:
        self._head._check_running()

    @property
    def blocks_behind(self) -> int | None:
        """How many blocks it stays behind, None: it stands still."""
        return self._blocks_behind

    def hold(self, blocks: int | None = None) -> None:
        """Stay that many blocks (at most `MAX_BLOCKS_BEHIND`) behind from now on; None: stay at this block."""
        self._blocks_behind = blocks
        if blocks is None:
            self._drop_next()
        else:
            self.follow()

    def release(self) -> None:
        """Catch up."""
        self.hold(0)

    def follow(self) -> None:
        """Note where the channel is, and go on as far as this view may."""
        behind = self._blocks_behind
        if behind is None:
            return
        head = self._head
        last = self._next[-1][0] if self._next else self._chain
        if head._chain is not last:
            self._next.append((head._chain, head._bundle, head._view, Snapshot(head._view)))
        while self._next and head.height - self._next[0][0].height >= behind:
            self._take(*self._next.popleft())

    def renew(self) -> None:
        """Read what the channel reads, if this view stands where the channel is: nothing older is held on to for it."""
        if self._chain is self._head._chain:
            self._show(self._head._view)

    def go_back(self) -> None:
        """The channel went back to a snapshot: what this view stood at is no more."""
        self._drop_next()
        self._blocks_behind = 0
        self._turn += 1
        self._take(self._head._chain, self._head._bundle, self._head._view, Snapshot(self._head._view))
        self._release_waiters(lambda: ChannelReverted(self.channel_id))

    def end(self) -> None:
        """Give the states back."""
        self._drop_next()
        self._reader.close()

    def _take(self, chain: ChainState, bundle: ChannelBundle, view: View, reader: Snapshot) -> None:
        previous, self._reader = self._reader, reader
        previous.close()
        self._chain, self._bundle, self._view = chain, bundle, view
        self._collections.clear()
        found = ((waited, self.status(waited)) for waited in tuple(self._waiters))
        self._answer_waiters((waited, *status) for waited, status in found if status is not None)
        self._advance()

    def _drop_next(self) -> None:
        while self._next:
            self._next.popleft()[-1].close()
