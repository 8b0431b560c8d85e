"""Fixtures of the contracts' tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from memory_ledger import LAW, MemoryLedger, admit_everyone, enact


@pytest.fixture
def ledger() -> MemoryLedger:
    """An empty finance channel with Finance, Government, Supervisor and an organisation from abroad on it."""
    from sovchain.contracts.finance import chaincode

    return MemoryLedger(chaincode, "finance")


@pytest.fixture
async def governed(ledger: MemoryLedger) -> MemoryLedger:
    """The same with everybody but Outsider admitted and the sample law in force."""
    await admit_everyone(ledger)
    await enact(ledger, LAW)
    return ledger
