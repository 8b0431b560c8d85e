"""What another law would have decided: every decision of a ledger again, under a draft or under the law of a later day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sovchain.audit.receipts import answer
from sovchain.audit.replay import NamespaceView, ReplayedState
from sovchain.audit.report import ChannelReport
from sovchain.audit.verify import Progress, verify_channel
from sovchain.contracts.core import request_of_receipt_key, store
from sovchain.contracts.core.engine import decide, laws_in_force
from sovchain.contracts.core.facts import DecisionInput, LawVersion
from sovchain.contracts.core.gathering import gather
from sovchain.contracts.core.lawreview import law_version
from sovchain.contracts.core.lawtext import LawText
from sovchain.contracts.core.records import EnactedLaw, LawBody, Receipt, Request
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


def judge_again(
    blocks: Iterable[bytes], texts: Sequence[LawText] = (), *, progress: Progress | None = None
) -> tuple[ChannelReport, list[Rejudged]]:
    """Decide every decision of a channel again under later law: `texts`, or without any the laws in force at the ledger's end.

    Texts take the place of all versions of their laws; the other laws are then those of each decision's day. Without texts no law of
    that day counts any more. Everything else is as it was at each decision. Nothing changes on the ledger: a later law does
    not reach back, and this says only what it would have said. Raises nothing for bad blocks; see `verify_channel`.
    """
    state, seen = ReplayedState(), list[tuple[DecisionInput, Receipt, str, int]]()

    def witness(state: ReplayedState, transaction: ParsedTransaction, channel: str, block: int) -> None:
        for namespace in transaction.rwset.namespaces:
            for write in namespace.writes:
                request_id = request_of_receipt_key(write.key)
                if request_id is not None and write.value is not None:
                    view = NamespaceView(state, namespace.namespace)
                    request = answer(store.require(view, Request, store.REQUEST, request_id))
                    facts = answer(gather(view, request, timestamp=transaction.timestamp, channel=channel))
                    receipt = Receipt.model_validate_json(write.value)
                    seen.append((facts, receipt, namespace.namespace, block))

    report = verify_channel(blocks, progress=progress, witness=witness, state=state)
    last = max((facts.time for facts, *_ in seen), default=datetime.now(UTC))
    found, ends = [], dict[str, tuple[LawVersion, ...]]()
    for facts, receipt, namespace, block in seen:
        for text in texts:
            facts = _under(facts, text)
        if not texts:
            if namespace not in ends:
                ends[namespace] = _laws_at_end(NamespaceView(state, namespace), last)
            facts = replace(facts, laws=tuple(replace(law, in_force_from=facts.time) for law in ends[namespace]))
        request = answer(store.require(NamespaceView(state, namespace), Request, store.REQUEST, receipt.request))
        decision = decide(facts)
        found.append(
            Rejudged(
                block=block,
                request=receipt.request,
                msp_id=request.msp_id,
                purpose=request.purpose,
                before=receipt.decision,
                before_code=receipt.code,
                after=decision.decision,
                after_code=decision.code,
                reasons=tuple(reason.text() for reason in decision.reasons),
            )
        )
    return report, found


def _laws_at_end(view: NamespaceView, last: datetime) -> tuple[LawVersion, ...]:
    """The laws in force at the last decision or enactment, whichever is later, with their texts."""
    enacted = answer(store.scan(view, EnactedLaw, store.ENACTED))
    end = max([last, *(law.enacted_at for law in enacted), *(law.header.effective_from for law in enacted)])
    laws = []
    for law in laws_in_force([law_version(one) for one in enacted], end):
        body = answer(store.read(view, LawBody, store.LAW_TEXT, law.text_hash))
        laws.append(replace(law, text=body.text if body is not None else "", repealed_from=None))
    return tuple(laws)
