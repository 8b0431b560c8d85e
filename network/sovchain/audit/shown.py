"""What evidence shows besides the blocks: the request, the receipt and the laws that were in force, taken out of them to be read.

None of it vouches for anything: whoever checks takes them out again and compares.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sovchain.audit.receipts import answer
from sovchain.audit.replay import NamespaceView, ReplayedState
from sovchain.chaincode import ContractError
from sovchain.contracts.core import request_of_receipt_key, store
from sovchain.contracts.core.gathering import gather
from sovchain.contracts.core.records import Request
from sovchain.protocol.transactions import ParsedTransaction


@dataclass
class DecisionShown:
    """Watches an audit for the decision on one request, and keeps what a reader wants to see of it.

    Attributes:
        request: the request's id.
        members: names of the archive's members and their bytes, once the decision was seen.
    """

    request: str
    members: dict[str, bytes] = field(default_factory=dict)

    def witness(self, state: ReplayedState, transaction: ParsedTransaction, channel: str, block: int) -> None:
        """Called for each valid transaction with the state before its block."""
        for namespace in transaction.rwset.namespaces:
            for write in namespace.writes:
                if write.value is not None and request_of_receipt_key(write.key) == self.request:
                    view = NamespaceView(state, namespace.namespace)
                    self._take(view, write.value, transaction, channel)

    def _take(self, view: NamespaceView, receipt: bytes, transaction: ParsedTransaction, channel: str) -> None:
        try:
            request = answer(store.require(view, Request, store.REQUEST, self.request))
            facts = answer(gather(view, request, timestamp=transaction.timestamp, channel=channel))
        except ContractError:
            return  # the audit has found the receipt that cannot be recomputed
        self.members = {"request.json": store.encode_record(request), "receipt.json": receipt}
        for law in facts.laws:
            self.members[f"laws/{law.law}@{law.version}.cedar"] = law.text.encode()
