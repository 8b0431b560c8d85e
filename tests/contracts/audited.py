"""The transactions of a ledger in memory, as the auditor takes them from blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_response_pb2
from memory_ledger import Committed, MemoryLedger

from sovchain.audit import ReceiptCheck
from sovchain.audit.receipts import check_receipts
from sovchain.audit.replay import ReplayedState
from sovchain.contracts.core.receipts import request_of_receipt_key
from sovchain.protocol.canonical import canonical_json
from sovchain.protocol.rwset import KeyWrite, NamespaceRwSet, RwSet, Version
from sovchain.protocol.transactions import ParsedTransaction
from sovchain.protocol.worldstate import PublicWrite, UpdateBatch

Alter = Callable[[Committed], Committed]


def audit(ledger: MemoryLedger, alter: Alter | None = None, *, without: str = "") -> list[ReceiptCheck]:
    """What the auditor finds about all receipts. `without` leaves keys that begin so out of the state before."""
    found: list[ReceiptCheck] = []
    for number, original in enumerate(ledger.transactions):
        committed = alter(original) if alter else original
        state = ReplayedState()
        before = {
            key: value for key, value in committed.state_before.items() if not (without and key.startswith(without))
        }
        version = Version(number, 0)
        state.apply(
            UpdateBatch(
                public={(ledger.channel, key): PublicWrite(value, {}, version) for key, value in before.items()}
            )
        )
        found += check_receipts(state, _parsed(ledger.channel, committed), ledger.channel, number)
    return found


def altered(
    committed: Committed,
    change: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    written: bytes | None = None,
) -> Committed:
    """The transaction with the receipt that it wrote changed, or replaced by `written`."""
    writes = dict(committed.writes)
    for key, value in committed.writes.items():
        if request_of_receipt_key(key) is not None:
            assert value is not None
            writes[key] = canonical_json(change(json.loads(value))) if change else written
    return replace(committed, writes=writes)


def _parsed(channel: str, committed: Committed) -> ParsedTransaction:
    writes = tuple(KeyWrite(key, value or b"", value is None) for key, value in sorted(committed.writes.items()))
    return ParsedTransaction(
        channel_id=channel,
        transaction_id=committed.transaction_id,
        type=common_pb2.ENDORSER_TRANSACTION,
        creator=committed.creator,
        nonce=b"",
        timestamp=committed.timestamp,
        chaincode=channel,
        chaincode_version="1",
        args=committed.args,
        response=proposal_response_pb2.Response(status=200),
        event=None,
        rwset=RwSet((NamespaceRwSet(channel, writes=writes),)),
        endorsements=(),
        response_payload=b"",
        payload=b"",
        signature=b"",
        data=b"",
    )
