"""The core's contracts, put together for one channel."""

from __future__ import annotations

from sovchain.chaincode import Contract
from sovchain.contracts.core.ballots import Seats
from sovchain.contracts.core.law import Laws
from sovchain.contracts.core.receipts import Receipts
from sovchain.contracts.core.registry import Registry
from sovchain.contracts.core.sharing import Sharing


def core_contracts(seats: Seats) -> list[Contract]:
    """One of each of the core's contracts; ballots on this channel are passed by `seats`."""
    return [Registry(seats), Laws(seats), Sharing(), Receipts()]
