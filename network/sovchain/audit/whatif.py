"""What another law would have decided: every decision of a ledger again, under a draft."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sovchain.audit.receipts import answer
from sovchain.audit.replay import NamespaceView, ReplayedState
from sovchain.audit.report import ChannelReport
from sovchain.audit.verify import Progress, verify_channel
from sovchain.contracts.core import request_of_receipt_key, store
from sovchain.contracts.core.engine import decide
from sovchain.contracts.core.facts import DecisionInput, LawVersion
from sovchain.contracts.core.gathering import gather
from sovchain.contracts.core.lawtext import LawText
from sovchain.contracts.core.records import Receipt, Request
from sovchain.protocol.transactions import ParsedTransaction


@dataclass(frozen=True)
class Rejudged:
    """One decision on the ledger, and what it would have been under the draft.

    Attributes:
        block, request, msp_id, purpose: which decision.
        before, after: "permit" or "deny", as on the ledger and under the draft.
        before_code, after_code: codes of denials, empty for permits.
        reasons: why under the draft.
    """

    block: int
    request: str
    msp_id: str
    purpose: str
    before: str
    before_code: str
    after: str
    after_code: str
    reasons: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether the draft decides otherwise."""
        return self.before != self.after


def what_if(
    blocks: Iterable[bytes], draft: LawText, *, progress: Progress | None = None
) -> tuple[ChannelReport, list[Rejudged]]:
    """Decide every decision of a channel again as if `draft` had been in force, instead of other versions of that law.

    Everything else is as it was at each decision: registry, catalogue, the other laws in force. The blocks are audited on
    the way: what a ledger that is not in order says of its decisions is worth nothing, and the report tells.

    Raises nothing for bad blocks; see `verify_channel`.
    """
    found: list[Rejudged] = []

    def witness(state: ReplayedState, transaction: ParsedTransaction, channel: str, block: int) -> None:
        for namespace in transaction.rwset.namespaces:
            for write in namespace.writes:
                request = request_of_receipt_key(write.key)
                if request is not None and write.value is not None:
                    view = NamespaceView(state, namespace.namespace)
                    found.append(_rejudged(view, request, write.value, transaction, channel, block, draft))

    return verify_channel(blocks, progress=progress, witness=witness), found


def _rejudged(
    view: NamespaceView,
    request_id: str,
    written: bytes,
    transaction: ParsedTransaction,
    channel: str,
    block: int,
    draft: LawText,
) -> Rejudged:
    receipt = Receipt.model_validate_json(written)
    request = answer(store.require(view, Request, store.REQUEST, request_id))
    facts = answer(gather(view, request, timestamp=transaction.timestamp, channel=channel))
    decision = decide(_under(facts, draft))
    return Rejudged(
        block=block,
        request=request_id,
        msp_id=request.msp_id,
        purpose=request.purpose,
        before=receipt.decision,
        before_code=receipt.code,
        after=decision.decision,
        after_code=decision.code,
        reasons=tuple(reason.text() for reason in decision.reasons),
    )


def _under(facts: DecisionInput, draft: LawText) -> DecisionInput:
    header = draft.header
    others = [law for law in facts.laws if law.law != header.law]
    # In force at each decision, whenever it is to begin: the question is what it says, not when.
    drafted = LawVersion(header.law, header.version, header.jurisdiction, facts.time, None, draft.text, draft.text_hash)
    return replace(facts, laws=(*others, drafted))
