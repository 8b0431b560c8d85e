"""The side of a channel that writes: builds and signs blocks, validates them, and makes them durable.

Every validity rule is `protocol.commit.validate_block`'s. This module turns its verdict into rows: first the
channel's file in one transaction, then the private data of each organisation, which follows with a savepoint of its
own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fabric_protos.common import common_pb2
from fabric_protos.peer import transaction_pb2
from google.protobuf.descriptor import EnumDescriptor

from sovchain.ledger.collections import LIFECYCLE_NAMESPACE, Collection, collections_of
from sovchain.ledger.database import failpoint
from sovchain.ledger.errors import BlockRefused, GenesisRefused, StorageCorrupt
from sovchain.ledger.orderer import SigningNode
from sovchain.ledger.private_store import CollectionChange, PrivateBlock, PrivateStore, PrivateTransaction
from sovchain.ledger.state import CommittedState
from sovchain.ledger.storage import BlockRecord, ChainState, IndexEntry, LedgerStore
from sovchain.protocol.blocks import (
    block_commit_hash,
    check_data_hash,
    header_hash,
    is_config_block,
    new_block,
    parse_block,
    set_commit_hash,
    set_transactions_filter,
    sign_block,
    transactions_filter,
    verify_block_signature,
)
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.commit import BlockCommit, StateReader, validate_block
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.rwset import HashedCollection, Version
from sovchain.protocol.transactions import ParsedTransaction, indexed_transaction_id, parse_transaction

VALID = transaction_pb2.VALID


@dataclass(frozen=True)
class Prepared:
    """A block that is validated and not yet written, with the configuration that is in force after it.

    `kinds` has what metrics tell transactions apart by: (type, chaincode with version, validation code) of each.
    """

    record: BlockRecord
    private: PrivateBlock
    bundle: ChannelBundle
    changes_definitions: bool
    """Whether it changes the configuration, or the definition or an approval of a chaincode."""
    kinds: tuple[tuple[str, str, str], ...]


class _EmptyState:
    """State before the genesis block; a `protocol.commit.StateReader`."""

    def get(self, namespace: str, key: str) -> None:
        return None

    def version(self, namespace: str, key: str) -> None:
        return None

    def metadata(self, namespace: str, key: str) -> Mapping[str, bytes]:
        return {}

    def hashed_version(self, namespace: str, collection: str, key_hash: bytes) -> None:
        return None

    def hashed_value(self, namespace: str, collection: str, key_hash: bytes) -> None:
        return None

    def hashed_metadata(self, namespace: str, collection: str, key_hash: bytes) -> Mapping[str, bytes]:
        return {}

    def range(self, namespace: str, start: str, end: str) -> Iterator[tuple[str, bytes, Version]]:
        return iter(())


def prepare_genesis(genesis: bytes) -> Prepared:
    """Validate a channel's first block. Raises `GenesisRefused`."""
    try:
        block = parse_block(genesis)
        check_data_hash(block)
        if block.header.number != 0:
            raise GenesisRefused(f"its number is {block.header.number}")
        if not is_config_block(block):
            raise GenesisRefused("it holds no channel configuration")
        bundle = ChannelBundle.from_block(block)
        start = ChainState(bundle.channel_id, 0, b"", b"", None, 0)
        prepared = _validated(block, bundle, start, _EmptyState(), lambda _: False)
    except ProtocolError as error:
        raise GenesisRefused(str(error)) from error
    rejected = [entry for entry in prepared.record.index if entry.code != VALID]
    if rejected:
        raise GenesisRefused(rejected[0].reason)
    return prepared


def check_chain_end(store: LedgerStore, chain: ChainState) -> None:
    """Check that the last block is whole and continues the one before it. Raises `StorageCorrupt`."""
    number = chain.height - 1
    rows = store.connection.execute(
        "SELECT number, hash, bytes FROM blocks WHERE number >= ? ORDER BY number DESC LIMIT 2", (number - 1,)
    ).fetchall()
    if not rows or rows[0][0] != number:
        raise StorageCorrupt(store.path, "the last block is missing, or there are blocks beyond it", number)
    try:
        block = parse_block(rows[0][2])
        check_data_hash(block)
        faults = [
            (block.header.number != number, "it has another number"),
            (header_hash(block.header) != chain.last_hash, "its hash is not the one recorded"),
            (block.header.previous_hash != chain.previous_hash, "it does not continue the recorded chain"),
            (number > 0 and rows[-1][1] != chain.previous_hash, "the block before it has another hash"),
            (block_commit_hash(block) != (chain.commit_hash or b""), "its commit hash is not the one recorded"),
            (len(transactions_filter(block)) != len(block.data.data), "it lacks validation codes"),
        ]
    except ProtocolError as error:
        raise StorageCorrupt(store.path, str(error), number) from error
    for broken, reason in faults:
        if broken:
            raise StorageCorrupt(store.path, reason, number)


class Committer:
    """Builds, validates and writes blocks on one channel, one after the other. For one thread at a time."""

    def __init__(
        self,
        store: LedgerStore,
        private: Mapping[str, PrivateStore],
        bundle: ChannelBundle,
        chain: ChainState,
        orderer: SigningNode | None = None,
    ) -> None:
        """`orderer` signs the blocks of `prepare`; blocks that others ordered need none."""
        self.chain = chain
        self.bundle = bundle
        self._store = store
        self._private = dict(private)
        self.orderer = orderer
        """The node that signs what is built next."""
        self._state = CommittedState(store.path, store.connection)

    def prepare(self, envelopes: Sequence[bytes]) -> Prepared:
        """Build, sign and validate the next block. Writes nothing."""
        chain, orderer = self.chain, self.orderer
        assert orderer is not None, "who orders has a signing node"
        block = new_block(chain.height, chain.last_hash, envelopes)
        sign_block(
            block,
            # A block with a configuration names itself (orderer/common/multichannel/blockwriter.go).
            last_config=chain.height if is_config_block(block) else chain.last_config,
            creator=orderer.identity,
            nonce=orderer.nonce(header_hash(block.header)),
            sign=orderer.sign,
        )
        return _validated(block, self.bundle, chain, self._state, self._state.transaction_exists)

    def prepare_received(self, data: bytes) -> Prepared:
        """Check and validate a block that was ordered elsewhere. Writes nothing.

        What a peer of Fabric added to it (validation codes, commit hash) is not looked at but decided anew. Raises
        `BlockRefused`.
        """
        chain = self.chain
        try:
            block = parse_block(data)
            if block.header.number != chain.height:
                raise BlockRefused(chain.channel_id, block.header.number, f"the next block is {chain.height}")
            if block.header.previous_hash != chain.last_hash:
                raise BlockRefused(chain.channel_id, block.header.number, "it does not continue the chain")
            check_data_hash(block)
            verify_block_signature(block, self.bundle)
        except ProtocolError as error:
            raise BlockRefused(chain.channel_id, chain.height, str(error)) from error
        return _validated(block, self.bundle, chain, self._state, self._state.transaction_exists)

    def write(self, prepared: Prepared) -> None:
        """Make a prepared block and what follows from it durable."""
        self._store.commit(prepared.record)
        self.chain, self.bundle = prepared.record.chain, prepared.bundle
        self._apply_private(prepared.private, self._private)

    def add_private(self, msp_id: str, store: PrivateStore) -> None:
        """Keep private data of one more organisation, whose store is brought up to the blocks first."""
        self._catch_up({msp_id: store})
        self._private[msp_id] = store

    def recover(self) -> None:
        """Bring private stores that are behind the blocks up to them."""
        self._catch_up(self._private)

    def _catch_up(self, stores: Mapping[str, PrivateStore]) -> None:
        behind = min((store.height for store in stores.values()), default=self.chain.height)
        for number, data in self._store.private_blocks(behind):
            block = common_pb2.Block.FromString(data)
            codes = transactions_filter(block)
            transactions = [
                parse_transaction(envelope) if code == VALID else None
                for envelope, code in zip(block.data.data, codes, strict=True)
            ]
            ids = [indexed_transaction_id(envelope) for envelope in block.data.data]
            lookup = _CollectionLookup(self._state, self.bundle)
            self._apply_private(_private_block(number, transactions, codes, ids, lookup), stores)
        for store in stores.values():
            store.follow(self.chain.height)

    @property
    def scrub_due(self) -> bool:
        """Whether purged or expired values may still be in a write-ahead log."""
        return any(store.scrub_due for store in self._private.values())

    def checkpoint(self) -> None:
        """Copy the logs that may hold purged values into their files, as far as readers allow."""
        for store in self._private.values():
            store.checkpoint()

    def scrub(self) -> None:
        """Empty the logs that may hold purged values, unless readers stand in the way."""
        for store in self._private.values():
            store.scrub()

    def _apply_private(self, block: PrivateBlock, stores: Mapping[str, PrivateStore]) -> None:
        for store in stores.values():
            failpoint(f"private:before:{store.msp_id}")
            store.apply(block, self._state.hashed_entry)


class _CollectionLookup:
    """Collections of the namespaces that one block writes to, each read once."""

    def __init__(self, state: StateReader, bundle: ChannelBundle) -> None:
        self._state = state
        self._bundle = bundle
        self._known: dict[str, Mapping[str, Collection]] = {}

    def find(self, namespace: str, collection: str) -> Collection | None:
        if namespace not in self._known:
            found = collections_of(
                namespace, lambda key: self._state.get(LIFECYCLE_NAMESPACE, key), self._bundle.application_msp_ids
            )
            self._known[namespace] = found or {}
        return self._known[namespace].get(collection)


def _validated(
    block: common_pb2.Block,
    bundle: ChannelBundle,
    chain: ChainState,
    state: StateReader,
    transaction_exists: Callable[[str], bool],
) -> Prepared:
    commit = validate_block(
        block, bundle, state, transaction_exists=transaction_exists, previous_commit_hash=chain.commit_hash
    )
    set_transactions_filter(block, commit.filter)
    set_commit_hash(block, commit.commit_hash)
    ids = commit.transaction_ids
    lookup = _CollectionLookup(state, bundle)
    private = _private_block(commit.number, commit.transactions, commit.codes, ids, lookup)
    after = ChainState(
        channel_id=chain.channel_id,
        height=commit.number + 1,
        last_hash=header_hash(block.header),
        previous_hash=block.header.previous_hash,
        commit_hash=commit.commit_hash or None,
        last_config=commit.number if commit.next_bundle is not None else chain.last_config,
    )
    record = BlockRecord(
        chain=after,
        block=block.SerializeToString(deterministic=True),
        index=[
            IndexEntry(transaction_id, position, commit.codes[position], commit.reasons[position])
            for position, transaction_id in enumerate(ids)
        ],
        updates=commit.updates,
        history=_history(commit),
        expiries=_expiries(private),
        private=bool(private.transactions),
    )
    return Prepared(record, private, commit.next_bundle or bundle, _changes_definitions(commit), _kinds(commit))


def _kinds(commit: BlockCommit) -> tuple[tuple[str, str, str], ...]:
    """Mirrors core/ledger/kvledger/metrics.go updateTransactionsStats."""
    return tuple(
        (
            "unknown" if transaction is None else _name(common_pb2.HeaderType.DESCRIPTOR, transaction.type),
            "unknown"
            if transaction is None or not transaction.chaincode
            else f"{transaction.chaincode}:{transaction.chaincode_version}",
            _name(transaction_pb2.TxValidationCode.DESCRIPTOR, code),
        )
        for transaction, code in zip(commit.transactions, commit.codes, strict=True)
    )


def _name(kinds: EnumDescriptor, number: int) -> str:
    value = kinds.values_by_number.get(number)
    return value.name if value is not None else str(number)


def _changes_definitions(commit: BlockCommit) -> bool:
    written = itertools.chain(commit.updates.public, commit.updates.hashed)
    return commit.next_bundle is not None or any(place[0] == LIFECYCLE_NAMESPACE for place in written)


def _history(commit: BlockCommit) -> list[tuple[str, str, int]]:
    return [
        (entry.namespace, write.key, position)
        for position, transaction in enumerate(commit.transactions)
        if transaction is not None
        and commit.codes[position] == VALID
        and transaction.type == common_pb2.ENDORSER_TRANSACTION
        for entry in transaction.rwset.namespaces
        for write in entry.writes
    ]


def _expiries(private: PrivateBlock) -> dict[tuple[str, str], int]:
    return {
        (change.namespace, change.collection): change.expires_at
        for transaction in private.transactions
        for change in transaction.changes
        if change.expires_at is not None
    }


def _private_block(
    number: int,
    transactions: Sequence[ParsedTransaction | None],
    codes: Sequence[int],
    transaction_ids: Sequence[str],
    lookup: _CollectionLookup,
) -> PrivateBlock:
    found = []
    for position, transaction in enumerate(transactions):
        if transaction is None or codes[position] != VALID or transaction.type != common_pb2.ENDORSER_TRANSACTION:
            continue
        changes = tuple(
            _change(number, entry.namespace, collection, lookup.find(entry.namespace, collection.name))
            for entry in transaction.rwset.namespaces
            for collection in entry.collections
            if collection.writes or collection.metadata_writes
        )
        if changes:
            found.append(PrivateTransaction(position, transaction.transaction_id, changes))
    return PrivateBlock(number, tuple(found), tuple(filter(None, transaction_ids)))


def _change(number: int, namespace: str, written: HashedCollection, collection: Collection | None) -> CollectionChange:
    # Data that a block N writes to a collection with a life of L blocks goes with the commit of block N + L + 1
    # (core/ledger/pvtdatapolicy/btlpolicy.go).
    life = collection.block_to_live if collection else 0
    return CollectionChange(
        namespace=namespace,
        collection=written.name,
        write_set_hash=written.private_hash,
        members=collection.members if collection else frozenset(),
        purges=tuple(write.key_hash for write in written.writes if write.is_purge),
        renewals=tuple(write.key_hash for write in written.metadata_writes),
        expires_at=number + life + 1 if life else None,
    )
