"""Why one transaction is valid or not, from the blocks of its channel.

Peers tell a client a code and nothing more. The same rules that gave the code, applied to the same blocks again, say
which policy was not met and whose signature was missing, or which key was read at which version and who wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fabric_protos.peer import transaction_pb2

from sovchain.audit.replay import ReplayedState
from sovchain.protocol.blocks import parse_block, transactions_filter
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.commit import BlockCommit, validate_block
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.identity import parse_identity
from sovchain.protocol.transactions import indexed_transaction_id

_VALID = transaction_pb2.TxValidationCode.VALID


@dataclass(frozen=True)
class Explanation:
    """What became of a transaction, and why.

    Attributes:
        channel, block, position: where it is.
        transaction_id: its id.
        code: name of the validation code that the rules give it, such as MVCC_READ_CONFLICT.
        recorded: name of the code in the block; another one means that the block was altered.
        reason: why it is not valid, in plain words; "" if it is.
        chaincode: what it called; "" if it is not well formed, or a configuration.
        creator: MSP id of who sent it; "" if that cannot be read.
        endorsers: MSP ids of those who signed it, in order.
        writes: keys that it wrote or would have written, as "chaincode key" or "chaincode/collection hash".
    """

    channel: str
    block: int
    position: int
    transaction_id: str
    code: str
    recorded: str
    reason: str
    chaincode: str
    creator: str
    endorsers: tuple[str, ...]
    writes: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        """Whether the transaction took effect."""
        return self.code == "VALID"


def explain(blocks: Iterable[bytes], transaction_id: str) -> Explanation | None:
    """Find a transaction in a channel's blocks, from block 0 on, and say what became of it; None if it is not there.

    Of several with one id the first is explained, as peers answer for the first. Raises ProtocolError for blocks that
    cannot be read.
    """
    try:
        return _find(blocks, transaction_id)
    finally:
        close = getattr(blocks, "close", None)  # a reader of a file is ended in the thread that reads
        if close is not None:
            close()


def _find(blocks: Iterable[bytes], transaction_id: str) -> Explanation | None:
    state, seen = ReplayedState(), set[str]()
    bundle: ChannelBundle | None = None
    commit_hash: bytes | None = None
    for raw in blocks:
        block = parse_block(raw)
        bundle = bundle or ChannelBundle.from_block(block)
        commit = validate_block(
            block, bundle, state, transaction_exists=seen.__contains__, previous_commit_hash=commit_hash
        )
        ids = [indexed_transaction_id(envelope) for envelope in block.data.data]
        if transaction_id in ids:
            recorded = transactions_filter(block)
            return _explained(bundle, commit, ids.index(transaction_id), recorded)
        state.apply(commit.updates)
        seen.update(filter(None, ids))
        commit_hash = commit.commit_hash or None
        bundle = commit.next_bundle or bundle
    return None


def _explained(bundle: ChannelBundle, commit: BlockCommit, position: int, recorded: bytes) -> Explanation:
    transaction = commit.transactions[position]
    writes: list[str] = []
    for entry in transaction.rwset.namespaces if transaction is not None else ():
        writes += [f"{entry.namespace} {write.key}" for write in entry.writes]
        writes += [
            f"{entry.namespace}/{collection.name} {write.key_hash.hex()}"
            for collection in entry.collections
            for write in collection.writes
        ]
    return Explanation(
        channel=bundle.channel_id,
        block=commit.number,
        position=position,
        transaction_id=commit.transaction_ids[position],
        code=_name(commit.codes[position]),
        recorded=_name(recorded[position]) if position < len(recorded) else "none",
        reason=commit.reasons[position],
        chaincode="" if transaction is None else transaction.chaincode,
        creator="" if transaction is None else _msp_id(transaction.creator),
        endorsers=() if transaction is None else tuple(_msp_id(entry.endorser) for entry in transaction.endorsements),
        writes=tuple(writes),
    )


def _msp_id(identity: bytes) -> str:
    try:
        return parse_identity(identity).msp_id
    except ProtocolError:
        return ""


def _name(code: int) -> str:
    try:
        return transaction_pb2.TxValidationCode.Name(code)  # type: ignore[arg-type]  # a byte of the block
    except ValueError:
        return str(code)
