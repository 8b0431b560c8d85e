"""Everything about one channel: ordering, validation, commit, storage and notification.

One task takes accepted envelopes through: cut a batch, build and sign the block, validate it, write it, tell
everyone who waits. Writing happens in a thread of the channel's own, since it waits for the disk. What callers read
is the view that was opened after the last commit and is swapped before anyone is told of the commit.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar

import structlog
from fabric_protos.ledger.rwset import rwset_pb2

from sovchain.ledger.chainview import ChainInfo, ChainView, Follower
from sovchain.ledger.collections import LIFECYCLE_NAMESPACE, collections_of
from sovchain.ledger.committer import Committer, Prepared, check_chain_end, prepare_genesis
from sovchain.ledger.cutting import Cutting
from sovchain.ledger.database import make_directory
from sovchain.ledger.errors import (
    BlockRefused,
    ChannelClosed,
    ChannelMissing,
    ChannelReverted,
    ChannelStopped,
    CollectionMissing,
    LedgerError,
    OrderingRefused,
    StorageCorrupt,
)
from sovchain.ledger.faults import Faults
from sovchain.ledger.marks import break_seal, seal
from sovchain.ledger.operations.metrics import LedgerMetrics
from sovchain.ledger.orderer import (
    SERVICE_UNAVAILABLE,
    OrderedEnvelope,
    OrderingQueue,
    SigningNode,
    check_again,
    check_envelope,
)
from sovchain.ledger.private_store import PrivateStore
from sovchain.ledger.saved import (
    LEDGER_FILE,
    PRIVATE_DIRECTORY,
    complete_restore,
    restoring,
    saved_ledger,
    saved_private,
)
from sovchain.ledger.state import CommittedState, View, ViewPool
from sovchain.ledger.storage import ChainState, LedgerStore
from sovchain.protocol.blocks import parse_block
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.lifecycle import implicit_collection_msp

_LOG_EVERY_BLOCKS = 64
_T = TypeVar("_T")
_log = structlog.get_logger("sovchain.ledger.channel")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Channel(ChainView):
    """One channel of the embedded ledger.

    Make it with `create` or `open`. Methods are called in the thread of the event loop that opened the channel, unless
    they say otherwise.
    """

    def __init__(
        self,
        store: LedgerStore,
        private: Mapping[str, PrivateStore],
        committer: Committer,
        orderer: SigningNode,
        now: Callable[[], datetime],
    ) -> None:
        """For `create` and `open` only."""
        self._store = store
        self._private = dict(private)
        self._committer = committer
        self._orderer = orderer
        self._now = now
        self._pool = ViewPool(store, self._private)
        super().__init__(self._pool.open(committer.chain.height), committer.chain, committer.bundle)
        self._queue = OrderingQueue(committer.bundle.batch)
        self._committing = asyncio.Lock()
        self._defined_at = committer.chain.height
        """Height since which no block has changed a chaincode's definition, an approval of one, or the configuration."""
        self._cutting = Cutting()
        self._followers: list[Follower] = []
        self._begun = self._handled = 0
        """Batches that were taken from the queue, and those of them that are committed or dropped."""
        self.faults = Faults()
        """What is to go wrong with batches; a ledger gives all its channels one."""
        self.metrics = LedgerMetrics()
        """What measures the commits; a ledger gives all its channels one."""
        self._stopped: ChannelStopped | None = None
        self._closed = False
        self._released = False
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"ledger-{self.channel_id}")
        # `store_private` may run in any thread, so it reads definitions through a connection of its own.
        self._lookup_lock = threading.Lock()
        self._lookup = CommittedState(store.path, store.read_connection())
        self._pipeline = asyncio.create_task(self._run(), name=f"ledger-{self.channel_id}")

    @classmethod
    def exists(cls, directory: Path) -> bool:
        """Whether a channel is stored in `directory` (its genesis block is committed).

        Raises `StorageVersionError` if what is there was written in another format.
        """
        return LedgerStore.exists(directory / LEDGER_FILE)

    @classmethod
    async def create(
        cls,
        directory: Path,
        genesis: bytes,
        *,
        peer_msp_ids: Iterable[str],
        orderer: SigningNode,
        now: Callable[[], datetime] = _utc_now,
    ) -> Self:
        """Create a channel from its genesis block, in `directory` (made if missing), and open it.

        `peer_msp_ids` are the organisations whose peers this process runs: each gets a store for its private data.
        `now` is the clock by which certificates of clients expire at ordering. Raises `GenesisRefused`,
        `ChannelExists`, `StorageError`.
        """
        prepared = prepare_genesis(genesis)
        await asyncio.to_thread(_create_files, directory, prepared)
        return await cls.open(directory, peer_msp_ids=peer_msp_ids, orderer=orderer, now=now)

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        peer_msp_ids: Iterable[str],
        orderer: SigningNode,
        now: Callable[[], datetime] = _utc_now,
    ) -> Self:
        """Open a stored channel and bring its private stores up to the height of its blocks.

        Raises `ChannelMissing`, `StorageVersionError`, `StorageCorrupt`, `StorageError`. That one process at a time has
        the directory open is for the caller to see to.
        """
        opened = await asyncio.to_thread(_open_files, directory, sorted(set(peer_msp_ids)), orderer)
        try:
            return cls(opened.store, opened.private, opened.committer, orderer, now)
        except BaseException:
            opened.close()
            raise

    @property
    def peer_msp_ids(self) -> tuple[str, ...]:
        """Organisations whose private data is kept here, sorted."""
        return tuple(self._private)

    @property
    def stopped(self) -> ChannelStopped | None:
        """Why the channel accepts nothing more, or None while it works."""
        return self._stopped

    async def admit(self, msp_id: str) -> None:
        """Keep private data of one more organisation from here on, as its peer does that joins a running channel.

        What earlier blocks wrote to its collections is noted as missing. Nothing happens if it is here already. Raises
        `StorageError`, `ChannelStopped`, `ChannelClosed`.
        """
        self._check_running()
        async with self._committing:
            if msp_id not in self._private:
                view = await asyncio.get_running_loop().run_in_executor(self._worker, self._open_private, msp_id)
                self._show(view)

    def _open_private(self, msp_id: str) -> View:
        """In the channel's thread, so between two commits."""
        store = _open_private(self._store.path.parent, self._chain, msp_id)
        self._private[msp_id] = store
        self._committer.add_private(msp_id, store)
        self._pool.renew()
        return self._pool.open(self._chain.height)

    def follower(self) -> Follower:
        """A further view of the channel, of a peer that may fall behind."""
        follower = Follower(self)
        self._followers.append(follower)
        return follower

    def _show(self, view: View) -> None:
        super()._show(view)
        for follower in self._followers:
            follower.renew()

    def lead(self, orderer: SigningNode) -> None:
        """Have the next blocks made by this ordering node."""
        if orderer is not self._orderer:
            self._orderer = self._committer.orderer = orderer

    # Ordering -----------------------------------------------------------------------------------------------------

    async def order(self, envelope: bytes) -> None:
        """Accept a marshalled `common.Envelope` for ordering; returns when it is queued, not when it is committed.

        Waits while the queue is full. Raises `OrderingRefused` with Fabric's status and text, with status
        SERVICE_UNAVAILABLE (and the reason as its cause) when the channel is stopped or closed.
        """
        self._check_ordering()
        accepted = check_envelope(self._bundle, envelope, self._now, self._orderer)
        if not await self._queue.put(accepted):
            self._check_ordering()

    def _check_ordering(self) -> None:
        try:
            self._check_running()
        except LedgerError as error:
            raise OrderingRefused(SERVICE_UNAVAILABLE, str(error)) from error

    def _check_running(self) -> None:
        if self._stopped is not None:
            raise ChannelStopped(self.channel_id, self._stopped.reason) from self._stopped.__cause__
        if self._closed:
            raise ChannelClosed(self.channel_id)

    @property
    def cutting(self) -> Cutting:
        """What overrides the batch settings of the configuration."""
        return self._cutting

    @cutting.setter
    def cutting(self, cutting: Cutting) -> None:
        self._cutting = cutting
        self._queue.change(cutting.over(self._bundle.batch))

    @property
    def pending(self) -> int:
        """Envelopes that were accepted and wait for their block."""
        return self._queue.pending

    async def cut(self) -> int:
        """Cut a block from what is pending and return the height once it is committed; without anything pending, now.

        Raises `ChannelStopped`, `ChannelClosed`.
        """
        self._check_running()
        target, turn = self._begun + self._queue.cut(), self._turn
        while self._handled < target and turn == self._turn:
            advanced = self._advanced
            await advanced.wait()
            self._check_running()
        return self.height

    async def append(self, block: bytes) -> int:
        """Commit a block that ordering nodes elsewhere made: the blocks of a real network are followed or replayed so.

        Its signatures, hashes and transactions are judged as a peer judges them. A channel that follows others is not
        ordered on: a block of its own would be where the next one belongs. Returns the height. Raises `BlockRefused`
        (nothing is changed), `ChannelStopped`, `ChannelClosed`.
        """
        self._check_running()
        async with self._committing:
            prepared, view = await asyncio.get_running_loop().run_in_executor(
                self._worker, self._commit_received, block
            )
            self._publish(prepared, view)
            if self._committer.scrub_due:
                await self._scrub()
            if self._chain.height % _LOG_EVERY_BLOCKS == 0:
                await self._restart_log()
        return self._chain.height

    async def follow(self, block: bytes) -> int:
        """As `append`, but pass over a block that is committed already; return the height.

        Raises `BlockRefused` also for another block in its place.
        """
        try:
            header = parse_block(block).header
        except ProtocolError as error:
            raise BlockRefused(self.channel_id, self.height, str(error)) from error
        stored = self.block(header.number)
        if stored is None:
            return await self.append(block)
        if parse_block(stored).header != header:
            raise BlockRefused(self.channel_id, header.number, "the channel has another block in its place")
        return self.height

    # Snapshots ----------------------------------------------------------------------------------------------------

    async def save(self, folder: Path) -> ChainInfo:
        """Copy all that is committed, private and transient data included, into a new folder; say where the chain ends.

        Raises `StorageError`, `ChannelStopped`, `ChannelClosed`.
        """
        self._check_running()
        async with self._committing:
            await asyncio.get_running_loop().run_in_executor(self._worker, self._save, folder)
            return self.chain_info()

    def _save(self, folder: Path) -> None:
        make_directory(folder / PRIVATE_DIRECTORY)
        self._store.copy_to(saved_ledger(folder))
        for msp_id, store in self._private.items():
            store.copy_to(saved_private(folder, msp_id))

    async def restore(self, folder: Path) -> None:
        """Go back to what `save` copied. What is pending is dropped, and who waits for what came later is told so.

        A process that dies meanwhile completes it when the channel is opened. Raises `StorageError`, `ChannelStopped`,
        `ChannelClosed`.
        """
        self._check_running()
        async with self._committing:
            self._queue.drop()
            self._turn += 1
            committer, view = await asyncio.get_running_loop().run_in_executor(self._worker, self._restore, folder)
            self._committer, self._chain, self._bundle = committer, committer.chain, committer.bundle
            self._defined_at = self._chain.height
            self._collections.clear()
            self._show(view)
            self._queue.change(self._cutting.over(self._bundle.batch))
            self._release_waiters(lambda: ChannelReverted(self.channel_id))
            for follower in self._followers:
                follower.go_back()

    def _restore(self, folder: Path) -> tuple[Committer, View]:
        directory = self._store.path.parent
        with restoring(directory, folder):
            self._store.restore(saved_ledger(folder))
            chain = self._store.chain()
            for msp_id, store in self._private.items():
                copy = saved_private(folder, msp_id)
                store.restore(copy if copy.exists() else None, chain.height)
        committer = Committer(self._store, self._private, _stored_bundle(self._store, chain), chain, self._orderer)
        committer.recover()
        return committer, self._pool.open(chain.height)

    def store_private(self, transaction_id: str, endorsing_msp_id: str, private: rwset_pb2.TxPvtReadWriteSet) -> None:
        """Give each collection's private writes to the transient stores of its members, durably.

        Call it before the endorsement is returned. As with Fabric's gossip, every member whose peer runs here receives
        the data whichever organisation endorsed, and an endorser that is not a member keeps nothing
        (`gossip/privdata/distributor.go`). Blocks for a disk write (a fraction of a millisecond to a few milliseconds)
        and may be called from any thread: `await asyncio.to_thread(channel.store_private, ...)` keeps the event loop
        free. Raises `TransientRefused`, `CollectionMissing`, `StorageError`.
        """
        self._check_running()
        for_member: dict[str, list[tuple[str, str, bytes]]] = {}
        for namespace in private.ns_pvt_rwset:
            for written in namespace.collection_pvt_rwset:
                place = (namespace.namespace, written.collection_name, written.rwset)
                for msp_id in self._members(namespace.namespace, written.collection_name):
                    for_member.setdefault(msp_id, []).append(place)
        for msp_id, write_sets in sorted(for_member.items()):
            if msp_id in self._private:
                self._private[msp_id].store(transaction_id, self._chain.height, write_sets)

    def _members(self, namespace: str, collection: str) -> frozenset[str]:
        msp_id = implicit_collection_msp(collection)
        if msp_id is not None:
            return frozenset({msp_id})
        with self._lookup_lock:
            defined = collections_of(namespace, lambda key: self._lookup.get(LIFECYCLE_NAMESPACE, key), ())
        if not defined or collection not in defined:
            text = f"collection [{collection}] not defined in the collection config for chaincode [{namespace}]"
            raise CollectionMissing(text, namespace, collection)
        return defined[collection].members

    def same_definitions(self, height: int, other: int) -> bool:
        """Whether chaincodes, their collections and who approved them are the same after `height` and `other` blocks.

        False also where that is not known any more.
        """
        return height == other or min(height, other) >= self._defined_at

    async def close(self) -> None:
        """Commit what was accepted for ordering, then release the files. Waiters get `ChannelClosed`.

        Snapshots that are still open keep their view of the files until they are closed.
        """
        if not self._closed:
            self._closed = True
            self._queue.close()
        await asyncio.wait([self._pipeline])
        for view in (self, *self._followers):
            view._release_waiters(lambda: ChannelClosed(self.channel_id))
        if not self._released:
            self._released = True
            await asyncio.to_thread(self._close_files)

    # Pipeline -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (batch := await self._queue.next_batch()) is not None:
                turn = self._turn
                self._begun += 1
                batch = await self.faults.at_batch(self.channel_id, batch)
                async with self._committing:
                    envelopes = self._judged_again(batch) if turn == self._turn else []
                    if envelopes:
                        prepared, view = await loop.run_in_executor(self._worker, self._commit, envelopes)
                        self._publish(prepared, view)
                        if self._committer.scrub_due:
                            await self._scrub()
                        if self._chain.height % _LOG_EVERY_BLOCKS == 0:
                            await self._restart_log()
                self._handled += 1
                self._advance()
        except Exception as error:
            self._stop(error)

    def _judged_again(self, batch: Sequence[OrderedEnvelope]) -> list[bytes]:
        """The envelopes that the configuration in force still allows: another one may have come since they did."""
        envelopes = []
        for ordered in batch:
            try:
                envelopes.append(check_again(self._bundle, ordered, self._now, self._orderer).envelope)
            except OrderingRefused as error:
                _log.warning("envelope dropped", channel=self.channel_id, status=error.status, reason=error.text)
        return envelopes

    def _commit(self, envelopes: list[bytes]) -> tuple[Prepared, View]:
        """In the channel's thread: one block from envelopes to a view that contains it."""
        return self._written(self._committer.prepare, envelopes)

    def _commit_received(self, block: bytes) -> tuple[Prepared, View]:
        """In the channel's thread: the same for a block that was ordered elsewhere."""
        return self._written(self._committer.prepare_received, block)

    def _written(self, prepare: Callable[[_T], Prepared], content: _T) -> tuple[Prepared, View]:
        begun = time.perf_counter()
        prepared = prepare(content)
        writing = time.perf_counter()
        self._committer.write(prepared)
        written = time.perf_counter()
        self.metrics.committed(self.channel_id, written - begun, written - writing, prepared.kinds)
        return prepared, self._pool.open(prepared.record.chain.height)

    def _publish(self, prepared: Prepared, view: View) -> None:
        """Make a commit visible, then tell those who wait for it."""
        self._chain = prepared.record.chain
        if prepared.changes_definitions:
            self._defined_at = self._chain.height
            self._collections.clear()
        self._show(view)
        if prepared.bundle is not self._bundle:
            self._bundle = prepared.bundle
            self._queue.change(self._cutting.over(prepared.bundle.batch))
        # The first copy of a transaction in a block takes its waiters along, as it takes the index entry.
        self._answer_waiters(
            (entry.transaction_id, entry.code, prepared.record.number) for entry in prepared.record.index
        )
        self._advance()
        for follower in self._followers:
            follower.follow()

    async def _scrub(self) -> None:
        """Erase purged values from the write-ahead logs, which only readers of the main files leave alone.

        Snapshots that are open on an older view stand in the way: then it is tried again after the next block.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._worker, self._committer.checkpoint)
        self._show(await loop.run_in_executor(self._worker, self._pool.open, self._chain.height))
        await loop.run_in_executor(self._worker, self._committer.scrub)

    async def _restart_log(self) -> None:
        """Let a long write-ahead log begin anew: what is read from now on is read from the file.

        Snapshots that are open on an older view stand in the way: then it is tried again some blocks later.
        """
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(self._worker, self._store.restart_log):
            self._show(await loop.run_in_executor(self._worker, self._pool.open, self._chain.height))

    def _stop(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        stopped = ChannelStopped(self.channel_id, f"committing block {self._chain.height} failed: {reason}")
        stopped.__cause__ = error
        self._stopped = stopped
        self._queue.close()
        for view in (self, *self._followers):
            view._release_waiters(lambda: _caused(ChannelStopped(self.channel_id, stopped.reason), error))
            view._advance()

    def _close_files(self) -> None:
        self._worker.shutdown(wait=True)
        self._reader.close()
        for follower in self._followers:
            follower.end()
        self._pool.close()
        self._lookup.connection.close()
        for store in self._private.values():
            store.close()
            seal(store.path)
        self._store.close()
        seal(self._store.path)


@dataclass(frozen=True)
class _Opened:
    """The files of a channel, open for writing and brought to one height."""

    store: LedgerStore
    private: Mapping[str, PrivateStore]
    committer: Committer

    def close(self) -> None:
        for store in self.private.values():
            store.close()
        self.store.close()


def _create_files(directory: Path, prepared: Prepared) -> None:
    make_directory(directory)
    LedgerStore.create(directory / LEDGER_FILE, prepared.record).close()


def _open_files(directory: Path, msp_ids: list[str], orderer: SigningNode) -> _Opened:
    path = directory / LEDGER_FILE
    if not LedgerStore.exists(path):
        raise ChannelMissing(directory)
    complete_restore(directory)
    break_seal(path)
    store = LedgerStore.open(path)
    private: dict[str, PrivateStore] = {}
    try:
        chain = store.chain()
        check_chain_end(store, chain)
        bundle = _stored_bundle(store, chain)
        make_directory(directory / PRIVATE_DIRECTORY)
        for msp_id in msp_ids:
            private[msp_id] = _open_private(directory, chain, msp_id)
        committer = Committer(store, private, bundle, chain, orderer)
        committer.recover()
        return _Opened(store, private, committer)
    except BaseException:
        for opened in private.values():
            opened.close()
        store.close()
        raise


def _open_private(directory: Path, chain: ChainState, msp_id: str) -> PrivateStore:
    path = saved_private(directory, msp_id)
    break_seal(path)
    return PrivateStore.open(path, chain.channel_id, msp_id, chain.height)


def _stored_bundle(store: LedgerStore, chain: ChainState) -> ChannelBundle:
    data = store.block(chain.last_config)
    if data is None:
        raise StorageCorrupt(store.path, "the last configuration block is missing", chain.last_config)
    try:
        return ChannelBundle.from_block(parse_block(data))
    except ProtocolError as error:
        raise StorageCorrupt(store.path, f"its configuration is unusable: {error}", chain.last_config) from error


def _caused(error: ChannelStopped, cause: BaseException) -> ChannelStopped:
    error.__cause__ = cause
    return error
