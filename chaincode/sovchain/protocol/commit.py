"""Committing a block: both validation passes, what they change, and the commit hash.

One function for the ledger that commits and for the auditor who replays, so that they cannot come to differ.
Mirrors core/ledger/kvledger/kv_ledger.go (commit) and its callees; see `validation`, `endorsement`, `mvcc` and
`commithash` for the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fabric_protos.common import common_pb2
from fabric_protos.peer import transaction_pb2

from sovchain.protocol.commithash import next_commit_hash
from sovchain.protocol.mvcc import MvccValidator
from sovchain.protocol.rwset import Version
from sovchain.protocol.transactions import ParsedTransaction, indexed_transaction_id
from sovchain.protocol.validation import validate_transactions
from sovchain.protocol.worldstate import HashedWrite, PublicWrite, StateReader, UpdateBatch

if TYPE_CHECKING:
    from sovchain.protocol.channelconfig import ChannelBundle

__all__ = ["BlockCommit", "HashedWrite", "PublicWrite", "StateReader", "UpdateBatch", "Version", "validate_block"]

_VALID = transaction_pb2.TxValidationCode.VALID


@dataclass(slots=True)
class BlockCommit:
    """What a block does to a channel.

    Attributes:
        number: The block's number.
        codes: One TxValidationCode per transaction.
        transactions: One per transaction; None where it is not well formed.
        transaction_ids: As a block's index has them, also of transactions that are None above
            (`transactions.indexed_transaction_id`).
        updates: What the valid transactions change.
        commit_hash: The new link of the commit hash chain; empty where Fabric computes none (block 0, or a chain
            that began without).
        filter: The codes as bytes, for the TRANSACTIONS_FILTER slot.
        reasons: In plain words why each transaction is invalid; "" if it is valid.
        next_bundle: The new channel configuration if the block carries a valid one, else None.
    """

    number: int
    codes: list[int]
    transactions: list[ParsedTransaction | None]
    transaction_ids: list[str]
    updates: UpdateBatch
    commit_hash: bytes
    filter: bytes
    reasons: list[str]
    next_bundle: ChannelBundle | None


def validate_block(
    block: common_pb2.Block,
    bundle: ChannelBundle,
    state: StateReader,
    *,
    transaction_exists: Callable[[str], bool],
    previous_commit_hash: bytes | None,
) -> BlockCommit:
    """Validate all transactions of a block and prepare what it changes. Nothing is written, neither to the block.

    The block's own hashes and orderer signatures are the caller's to check first (`blocks`).

    Args:
        block: The block, of any content.
        bundle: The channel configuration in force before the block; for block 0 the one that it carries.
        state: The committed state before the block.
        transaction_exists: Whether a transaction id is on the ledger before the block, valid or not.
        previous_commit_hash: The commit hash of the block before; None or empty if it has none.
    """
    number = block.header.number
    reader = _RememberingState(state)
    judgements = validate_transactions(
        block.data.data, bundle, reader, transaction_exists=transaction_exists, is_genesis=number == 0
    )
    transaction_ids = [indexed_transaction_id(envelope) for envelope in block.data.data]
    mvcc = MvccValidator(reader, number, transaction_ids)
    next_bundle: ChannelBundle | None = None
    for position, judgement in enumerate(judgements):
        transaction = judgement.transaction
        if judgement.code != _VALID or transaction is None:
            continue
        if transaction.is_config:
            mvcc.apply_config(position, transaction.data)
            next_bundle = judgement.bundle
            continue
        conflict = mvcc.validate(position, transaction.rwset)
        if conflict is not None:
            judgement.refuse(conflict.code, conflict.reason)
    codes = [judgement.code for judgement in judgements]
    encoded = bytes(codes)
    return BlockCommit(
        number=number,
        codes=codes,
        transactions=[judgement.transaction for judgement in judgements],
        transaction_ids=transaction_ids,
        updates=mvcc.updates,
        commit_hash=next_commit_hash(number, encoded, mvcc.updates, previous_commit_hash),
        filter=encoded,
        reasons=[judgement.reason for judgement in judgements],
        next_bundle=next_bundle,
    )


class _RememberingState:
    """Reads the metadata of a key once, which both passes need for every key that is written."""

    def __init__(self, state: StateReader) -> None:
        self._state = state
        self._metadata: dict[tuple[str, str], Mapping[str, bytes]] = {}
        self._hashed_metadata: dict[tuple[str, str, bytes], Mapping[str, bytes]] = {}
        self.get = state.get
        self.version = state.version
        self.hashed_version = state.hashed_version
        self.hashed_value = state.hashed_value

    def metadata(self, namespace: str, key: str) -> Mapping[str, bytes]:
        place = (namespace, key)
        found = self._metadata.get(place)
        if found is None:
            found = self._metadata[place] = self._state.metadata(namespace, key)
        return found

    def hashed_metadata(self, namespace: str, collection: str, key_hash: bytes) -> Mapping[str, bytes]:
        place = (namespace, collection, key_hash)
        found = self._hashed_metadata.get(place)
        if found is None:
            found = self._hashed_metadata[place] = self._state.hashed_metadata(namespace, collection, key_hash)
        return found

    def range(self, namespace: str, start: str, end: str) -> Iterator[tuple[str, bytes, Version]]:
        return self._state.range(namespace, start, end)
