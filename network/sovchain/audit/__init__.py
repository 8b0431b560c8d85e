"""Recomputes what a ledger claims, from the ledger's own bytes and nothing else.

General layout: `replay` is the world state that an auditor builds by applying blocks; `receipts` recomputes decisions;
`verify` checks each block of a channel against its predecessor, its signatures and the replayed state, and writes the
report in `report`; `explain` says why one transaction is valid or not; `whatif` decides the ledger's decisions again under
another law; `evidence` shows one decision to a court; `projections` checks a part of a table that somebody shows. Nothing here trusts a ledger, a peer or a network.
"""

from sovchain.audit.evidence import EvidenceError, Judgement, check_evidence, make_evidence
from sovchain.audit.explain import Explanation, explain
from sovchain.audit.projections import PartCheck, check_part
from sovchain.audit.report import ChannelReport, Finding, ReceiptCheck
from sovchain.audit.verify import verify_channel
from sovchain.audit.whatif import Rejudged, judge_again, what_if

__all__ = [
    "ChannelReport",
    "EvidenceError",
    "Explanation",
    "Finding",
    "Judgement",
    "PartCheck",
    "ReceiptCheck",
    "Rejudged",
    "check_evidence",
    "check_part",
    "explain",
    "judge_again",
    "make_evidence",
    "verify_channel",
    "what_if",
]
