"""The way of one data set, from deposit to acknowledgement."""

from __future__ import annotations

import os

from memory_ledger import MemoryLedger
from sharing_steps import MARKER, PAYLOAD, ask, share

from sovchain.contracts.core import Receipts, Sharing
from sovchain.contracts.core.records import AccessFilter
from sovchain.contracts.core.sealing import unseal


async def test_the_whole_way(governed: MemoryLedger) -> None:
    dataset = await share(governed)
    request = await ask(governed, "Finance", dataset)
    receipt = await governed.submit("Finance", Sharing.decide, request)
    assert receipt.decision == "permit"
    assert [(reason.law, reason.version, reason.clause, reason.effect) for reason in receipt.reasons] == [
        ("GY-DS-2026", 1, "art. 7", "permit")
    ]
    key = os.urandom(32)
    own = unseal(await governed.evaluate("Government", Sharing.read_for_release, request, key, peer="Government"), key)
    assert own == PAYLOAD
    await governed.submit("Government", Sharing.deliver, request, own)
    sealed = await governed.evaluate("Finance", Sharing.open, request, key, peer="Finance")
    assert MARKER not in sealed
    assert unseal(sealed, key) == PAYLOAD
    await governed.submit("Finance", Sharing.acknowledge, request)
    (row,) = (await governed.evaluate("Supervisor", Receipts.who_saw, AccessFilter(dataset=dataset))).items
    assert (row.msp_id, row.purpose, row.decision, row.delivered) == ("FinanceMSP", "credit-assessment", "permit", True)
    assert row.acknowledged_at is not None
