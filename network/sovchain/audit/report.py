"""What an audit found, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Check = Literal[
    "encoding",
    "number",
    "previous hash",
    "data hash",
    "block signature",
    "block metadata",
    "genesis",
    "validation code",
    "commit hash",
    "receipt",
    "end",
]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it must be, and where.

    `transaction` is the index within the block, `None` when the whole block is meant. `offset` is the position of the
    block's first byte in the audited file or stream, so that the place can be found with any tool.
    """

    channel: str
    block: int
    check: Check
    detail: str
    transaction: int | None = None
    transaction_id: str = ""
    offset: int = 0

    def __str__(self) -> str:
        where = f"channel {self.channel or '?'} block {self.block}"
        if self.transaction is not None:
            where += f" transaction {self.transaction}"
            if self.transaction_id:
                where += f" ({self.transaction_id[:12]}…)"
        return f"{where}: {self.check}: {self.detail}"


@dataclass(frozen=True)
class ReceiptCheck:
    """One decision receipt and whether the auditor's own computation gave the same bytes."""

    channel: str
    block: int
    transaction_id: str
    receipt: str
    request: str
    decision: str
    reasons: tuple[str, ...]
    recomputed: bool


@dataclass
class ChannelReport:
    """The outcome for one channel. `head_hash` and `commit_hash` may be compared with another auditor's."""

    channel: str = ""
    blocks: int = 0
    transactions: int = 0
    valid_transactions: int = 0
    endorsements: int = 0
    genesis_hash: str = ""
    head_hash: str = ""
    commit_hash: str = ""
    receipts: list[ReceiptCheck] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found. A channel without a single block is not in order."""
        return self.blocks > 0 and not self.findings

    def to_json(self) -> dict[str, Any]:
        """The report as plain data for `--json`."""
        return {
            "channel": self.channel,
            "ok": self.ok,
            "blocks": self.blocks,
            "transactions": self.transactions,
            "valid_transactions": self.valid_transactions,
            "endorsements": self.endorsements,
            "genesis_hash": self.genesis_hash,
            "head_hash": self.head_hash,
            "commit_hash": self.commit_hash,
            "receipts": [vars(check) | {"reasons": list(check.reasons)} for check in self.receipts],
            "findings": [vars(finding) | {"text": str(finding)} for finding in self.findings],
        }
