"""Checks a whole channel, block by block, from its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fabric_protos.common import common_pb2
from fabric_protos.peer import transaction_pb2

from sovchain.audit.receipts import check_receipts
from sovchain.audit.replay import ReplayedState
from sovchain.audit.report import ChannelReport, Check, Finding
from sovchain.protocol import blocks as block_format
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.commit import BlockCommit, validate_block
from sovchain.protocol.errors import MalformedError, ProtocolError
from sovchain.protocol.transactions import ParsedTransaction

Progress = Callable[[int], None]
Witness = Callable[[ReplayedState, ParsedTransaction, str, int], None]
"""Called for each valid transaction with the state before its block, the transaction, the channel and the block."""

FINDINGS_MAX = 1000
"""An audit of a ledger that is wrong everywhere stops collecting here, so that its report stays readable."""


def verify_channel(
    blocks: Iterable[bytes],
    *,
    genesis_hash: str | None = None,
    progress: Progress | None = None,
    witness: Witness | None = None,
    state: ReplayedState | None = None,
) -> ChannelReport:
    """Recompute everything that one channel's blocks claim.

    For each block: canonical encoding, number, hash chain, data hash, the orderers' signature against the channel's
    BlockValidation policy, unsigned metadata, the validation code of every transaction (signatures, identities,
    endorsement policies, read conflicts) and the commit hash; for each decision receipt: its bytes, recomputed from the
    law, the registry and the request that were committed before it.

    `genesis_hash` is the hex header hash of block 0 that the auditor trusts from elsewhere; without it the chain is only
    consistent in itself, and the report names the hash to compare. `progress` is called with the number of blocks done,
    `witness` with each valid transaction; an empty `state` holds the world state after the last block afterwards.
    Nothing is raised for bad blocks: each is a finding. After a block that cannot be applied the audit stops there, because
    later state would be guesswork, and says so.
    """
    audit = _ChannelAudit(genesis_hash, witness, state)
    index = -1
    try:
        for index, raw in enumerate(blocks):
            if not audit.block(index, raw) or len(audit.report.findings) >= FINDINGS_MAX:
                break
            if progress is not None:
                progress(index + 1)
    except MalformedError as error:  # the source itself is torn: a frame of a block file
        audit.found(index + 1, "encoding", f"the blocks end in bytes that are none: {error}")
    if audit.report.blocks == 0 and not audit.report.findings:
        audit.found(0, "end", "there is no block at all: the ledger is empty or was not found")
    return audit.report


class _ChannelAudit:
    def __init__(
        self, genesis_hash: str | None, witness: Witness | None = None, state: ReplayedState | None = None
    ) -> None:
        self.report = ChannelReport()
        self._witness = witness
        self._trusted_genesis = genesis_hash
        self._state = ReplayedState() if state is None else state
        self._seen: set[str] = set()
        self._bundle: ChannelBundle | None = None
        self._previous_hash = b""
        self._commit_hash: bytes | None = None
        self._last_config = 0
        self._offset = 0

    def found(
        self, block: int, check: Check, detail: str, transaction: int | None = None, transaction_id: str = ""
    ) -> None:
        self.report.findings.append(
            Finding(self.report.channel, block, check, detail, transaction, transaction_id, self._offset)
        )

    def block(self, index: int, raw: bytes) -> bool:
        """Check the next block; False when nothing after it can be judged."""
        try:
            block = block_format.parse_block(raw)
        except MalformedError as error:
            self.found(index, "encoding", f"the bytes are not a block: {error}")
            return False
        for fault in block_format.canonical_faults(raw):
            self.found(index, "encoding", fault)
        if not self._header(index, block) or not self._configuration(index, block):
            return False
        self._signature(index, block)
        applied = self._transactions(index, block)
        self._offset += len(raw)
        return applied

    def _header(self, index: int, block: common_pb2.Block) -> bool:
        header = block.header
        if header.number != index:
            self.found(index, "number", f"the header says block {header.number}: a block is missing, moved or altered")
            return False
        if header.previous_hash != self._previous_hash:
            self.found(
                index,
                "previous hash",
                f"the header names {header.previous_hash.hex() or 'none'}, the block before hashes to "
                f"{self._previous_hash.hex() or 'none'}",
            )
        computed = block_format.data_hash(block.data.data)
        if computed != header.data_hash:
            self.found(
                index, "data hash", f"the header names {header.data_hash.hex()}, the data hash to {computed.hex()}"
            )
        self._previous_hash = block_format.header_hash(header)
        self.report.head_hash = self._previous_hash.hex()
        if index == 0:
            self.report.genesis_hash = self.report.head_hash
            if self._trusted_genesis is not None and self._trusted_genesis != self.report.genesis_hash:
                self.found(
                    0,
                    "genesis",
                    f"the trusted hash is {self._trusted_genesis}, this block's is {self.report.genesis_hash}",
                )
        self.report.blocks = index + 1
        return True

    def _configuration(self, index: int, block: common_pb2.Block) -> bool:
        if index > 0:
            return True
        try:
            self._bundle = ChannelBundle.from_block(block)
        except ProtocolError as error:
            self.found(0, "genesis", f"the channel configuration cannot be read: {error}")
            return False
        self.report.channel = self._bundle.channel_id
        return True

    def _signature(self, index: int, block: common_pb2.Block) -> None:
        assert self._bundle is not None  # set by block 0, without which no later block is reached
        try:
            if index > 0:  # a genesis block is unsigned; its hash is what is trusted
                block_format.verify_block_signature(block, self._bundle, strict=True)
            named = block_format.last_config_index(block)
        except ProtocolError as error:
            self.found(index, "block signature", str(error))
            return
        if block_format.is_config_block(block):
            self._last_config = index
        if named != self._last_config:
            self.found(
                index, "block metadata", f"names block {named} as the last configuration, it is {self._last_config}"
            )

    def _transactions(self, index: int, block: common_pb2.Block) -> bool:
        assert self._bundle is not None
        try:
            commit = validate_block(
                block,
                self._bundle,
                self._state,
                transaction_exists=self._seen.__contains__,
                previous_commit_hash=self._commit_hash,
            )
        except ProtocolError as error:
            self.found(index, "validation code", f"the block cannot be validated: {error}")
            return False
        self._codes(index, block, commit)
        claimed = block_format.block_commit_hash(block)
        if claimed != commit.commit_hash:
            self.found(
                index,
                "commit hash",
                f"the block names {claimed.hex() or 'none'}, the replay gives {commit.commit_hash.hex()}",
            )
        self._receipts(index, commit)
        self._state.apply(commit.updates)
        # An id is taken by whatever carried it, well formed or not.
        self._seen.update(filter(None, commit.transaction_ids))
        self._commit_hash = commit.commit_hash or None
        self._bundle = commit.next_bundle or self._bundle
        self.report.commit_hash = commit.commit_hash.hex()
        return True

    def _codes(self, index: int, block: common_pb2.Block, commit: BlockCommit) -> None:
        claimed = block_format.transactions_filter(block)
        if len(claimed) != len(commit.codes):
            self.found(index, "validation code", f"{len(claimed)} codes for {len(commit.codes)} transactions")
        for position, (parsed, code) in enumerate(zip(commit.transactions, commit.codes, strict=True)):
            self.report.transactions += 1
            self.report.valid_transactions += code == 0
            self.report.endorsements += len(parsed.endorsements) if parsed is not None else 0
            if position < len(claimed) and claimed[position] != code:
                because = f" ({commit.reasons[position]})" if commit.reasons[position] else ""
                self.found(
                    index,
                    "validation code",
                    f"the block says {_code_name(claimed[position])}, the replay gives {_code_name(code)}{because}",
                    position,
                    parsed.transaction_id if parsed is not None else "",
                )

    def _receipts(self, index: int, commit: BlockCommit) -> None:
        for position, (parsed, code) in enumerate(zip(commit.transactions, commit.codes, strict=True)):
            if parsed is None or code != 0:
                continue
            if self._witness is not None:
                self._witness(self._state, parsed, self.report.channel, index)
            for check in check_receipts(self._state, parsed, self.report.channel, index):
                self.report.receipts.append(check)
                if not check.recomputed:
                    self.found(
                        index,
                        "receipt",
                        f"receipt {check.receipt} says {check.decision}, the auditor's own decision differs: "
                        + "; ".join(check.reasons),
                        position,
                        parsed.transaction_id,
                    )


def _code_name(code: int) -> str:
    """Fabric's name of a validation code; the number itself for one that Fabric does not know."""
    try:
        return transaction_pb2.TxValidationCode.Name(code)  # type: ignore[arg-type]  # any byte may stand in a damaged block
    except ValueError:
        return str(code)
