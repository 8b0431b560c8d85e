"""Whether a part of a table that somebody shows is what was granted and delivered, from a channel's own bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from sovchain.audit.receipts import answer
from sovchain.audit.replay import NamespaceView, ReplayedState
from sovchain.audit.report import ChannelReport
from sovchain.audit.verify import Progress, verify_channel
from sovchain.contracts.core import store
from sovchain.contracts.core.projection import (
    Grant,
    Projection,
    ProjectionError,
    check_projection,
    read_projection,
)
from sovchain.contracts.core.receipts import payload_key
from sovchain.contracts.core.records import DataSet, Receipt, Request
from sovchain.contracts.core.store import implicit_collection


@dataclass(frozen=True)
class PartCheck:
    """What a check of a part came to.

    Attributes:
        part: the document, if it leads to the root that it states.
        report: the audit of the channel.
        grantee: MSP id of whoever it was granted to; "" if the channel knows nothing of it.
        delivered: whether this very document lies in the grantee's collection.
        findings: what is wrong, in plain words; none if everything holds.
    """

    part: Projection | None
    report: ChannelReport
    grantee: str
    delivered: bool
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.findings


def check_part(blocks: Iterable[bytes], document: bytes, *, progress: Progress | None = None) -> PartCheck:
    """Audit a channel and look the document up in it: delivered within granted within catalogue.

    What masks made of values is checked by its form; whoever may see the original finds out the rest with
    `contracts.core.projection.check_masks`.
    """
    state = ReplayedState()
    report = verify_channel(blocks, progress=progress, state=state)
    findings = [str(finding) for finding in report.findings]
    try:
        part = read_projection(document)
    except ProjectionError as error:
        return PartCheck(None, report, "", False, (*findings, f"the document is no part of a table: {error}"))
    for namespace in state.namespaces():
        view = NamespaceView(state, namespace)
        request = answer(store.read(view, Request, store.REQUEST, part.request))
        if request is not None:
            break
    else:
        return PartCheck(part, report, "", False, (*findings, "no request on the channel is the one that it names"))
    dataset = answer(store.read(view, DataSet, store.DATASET, request.dataset))
    receipt = answer(store.read(view, Receipt, store.RECEIPT, request.id))
    if dataset is None or receipt is None or receipt.decision != "permit":
        return PartCheck(part, report, request.msp_id, False, (*findings, "the request was never permitted"))
    try:
        grant = Grant.of(receipt, dataset.entry)
        check_projection(part, dataset=dataset.id, request=request.id, entry=dataset.entry, grant=grant)
    except ProjectionError as error:
        findings.append(f"it is not what was granted: {error}")
    key_hash = hashlib.sha256(payload_key(dataset.id, request.id).encode()).digest()
    kept = state.hashed_value(namespace, implicit_collection(request.msp_id), key_hash)
    delivered = kept == hashlib.sha256(document).digest()
    if not delivered:
        findings.append("another document, or none, lies in the grantee's collection")
    return PartCheck(part, report, request.msp_id, delivered, tuple(findings))
