"""The steps of a data set's way that tests begin with."""

from __future__ import annotations

import hashlib

from memory_ledger import CITY, MemoryLedger

from sovchain.contracts.core import Sharing
from sovchain.contracts.core.records import Column, Publication

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
    """The id of a data set of Government's that is deposited and published."""
    dataset = await ledger.submit("Government", Sharing.deposit, PAYLOAD)
    await ledger.submit("Government", Sharing.publish, dataset, hashlib.sha256(PAYLOAD).hexdigest(), entry(**changes))
    return str(dataset)


async def ask(
    ledger: MemoryLedger, who: str | bytes, dataset: str, purpose: str = "credit-assessment", **more: str
) -> str:
    """The id of a request on file."""
    return str(await ledger.submit(who, Sharing.file_request, dataset, purpose, more.pop("salt", SALT), **more))


async def permitted(ledger: MemoryLedger, dataset: str | None = None) -> tuple[str, str]:
    """A data set and a request of Finance's on it that a committed receipt permits."""
    dataset = dataset or await share(ledger)
    request = await ask(ledger, "Finance", dataset)
    assert (await ledger.submit("Finance", Sharing.decide, request)).decision == "permit"
    return dataset, request


async def delivered(ledger: MemoryLedger) -> tuple[str, str]:
    """The same, delivered."""
    dataset, request = await permitted(ledger)
    await ledger.submit("Government", Sharing.deliver, request, PAYLOAD)
    return dataset, request
