"""The way of one data set, from deposit to acknowledgement."""

from __future__ import annotations

import hashlib
import os

import pytest
from memory_ledger import CITY, MemoryLedger

from sovchain.chaincode import ContractError
from sovchain.contracts.core import Receipts, Sharing
from sovchain.contracts.core.records import AccessFilter, Column, Publication
from sovchain.contracts.core.sealing import unseal

MARKER = b"marker-7f3a"
PAYLOAD = bytes(range(32)) + b"id,score\n1," + MARKER + b"\n"
SALT = "5a" * 32


def entry(**changes: object) -> Publication:
    stated = {
        "name": "sme.csv",
        "data_class": "general",
        "jurisdiction": CITY,
        "residency": ("CN-GZ",),
        "purposes": ("credit-assessment", "statistics"),
        "columns": (Column(name="id", type="integer"), Column(name="score", type="text")),
        "rows": 1,
        "size_bytes": len(PAYLOAD) - 32,
    }
    return Publication.model_validate(stated | changes)


async def share(ledger: MemoryLedger, **changes: object) -> str:
    dataset = await ledger.submit("Government", Sharing.deposit, PAYLOAD)
    await ledger.submit("Government", Sharing.publish, dataset, hashlib.sha256(PAYLOAD).hexdigest(), entry(**changes))
    return str(dataset)


async def ask(
    ledger: MemoryLedger, who: str | bytes, dataset: str, purpose: str = "credit-assessment", **more: str
) -> str:
    return str(await ledger.submit(who, Sharing.file_request, dataset, purpose, SALT, **more))


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


def test_placeholder() -> None:
    with pytest.raises(ContractError):
        raise ContractError("E_X", "x")
