"""Recomputes the decision receipts that a transaction wrote."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from pydantic import ValidationError

from sovchain.audit.replay import NamespaceView, ReplayedState
from sovchain.audit.report import ReceiptCheck
from sovchain.chaincode import ContractError
from sovchain.contracts.core import Decider, recompute_receipt, request_of_receipt_key
from sovchain.contracts.core.records import Receipt
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.transactions import ParsedTransaction

T = TypeVar("T")


def check_receipts(
    state: ReplayedState, transaction: ParsedTransaction, channel: str, block: int
) -> Iterator[ReceiptCheck]:
    """Recompute every receipt that a valid transaction wrote, from the state before its block.

    The state before the block is the state that the decision read: had an earlier transaction of the same block touched
    what it read, the commit rules would have made it invalid.
    """
    for namespace in transaction.rwset.namespaces:
        for write in namespace.writes:
            request = request_of_receipt_key(write.key)
            if request is not None:
                yield _check(state, transaction, channel, block, namespace.namespace, request, write.value)


def _check(
    state: ReplayedState,
    transaction: ParsedTransaction,
    channel: str,
    block: int,
    namespace: str,
    request: str,
    written: bytes | None,
) -> ReceiptCheck:
    decision, receipt_id = "none", ""
    reasons: tuple[str, ...] = ()
    try:
        receipt = Receipt.model_validate_json(written or b"")
        decision, receipt_id = receipt.decision, receipt.id
        reasons = tuple(reason.text() for reason in receipt.reasons)
        expected = answer(
            recompute_receipt(
                NamespaceView(state, namespace),
                request,
                transaction_id=transaction.transaction_id,
                timestamp=transaction.timestamp,
                channel=channel,
                decider=Decider.of(transaction.creator),
            )
        )
        same = expected == written
        if not same:
            own = Receipt.model_validate_json(expected)
            reasons = (
                *reasons,
                f"recomputed: {own.decision} because of " + ", ".join(reason.text() for reason in own.reasons),
            )
    except (ValidationError, ContractError, ProtocolError) as error:
        same = False
        reasons = (*reasons, f"cannot be recomputed: {error}")
    return ReceiptCheck(channel, block, transaction.transaction_id, receipt_id, request, decision, reasons, same)


def answer(computation: Coroutine[Any, Any, T]) -> T:
    """Run a computation that never waits: replayed state answers at once, so no event loop is needed."""
    try:
        computation.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        computation.close()
    raise AssertionError("the replayed state made the decision code wait")
