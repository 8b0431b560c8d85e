"""The core's contracts, put together for one channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sovchain.chaincode import Contract
from sovchain.contracts.core.ballots import Seats
from sovchain.contracts.core.calendar import Calendars
from sovchain.contracts.core.crossing import Crossing
from sovchain.contracts.core.duties import Duties
from sovchain.contracts.core.grants import Grants
from sovchain.contracts.core.law import Laws
from sovchain.contracts.core.orders import Orders
from sovchain.contracts.core.personal import PersonalData
from sovchain.contracts.core.portable import Portable, Receivable
from sovchain.contracts.core.receipts import Receipts
from sovchain.contracts.core.registry import Registry
from sovchain.contracts.core.rights import Rights
from sovchain.contracts.core.sharing import Sharing
from sovchain.contracts.core.warrants import Warrants

NETWORK: Final = "guiyang"
"""The network's name as views state it: the same channel name on another network is another channel."""


def core_contracts(
    seats: Seats, *, outgoing: Sequence[Portable] = (), incoming: Sequence[Receivable] = ()
) -> list[Contract]:
    """One of each of the core's contracts.

    Args:
        seats: who passes ballots on this channel.
        outgoing, incoming: the kinds of record that leave for and come from other channels.
    """
    return [
        Registry(seats),
        Laws(seats),
        Calendars(seats),
        Sharing(seats),
        Receipts(),
        Duties(seats),
        Grants(),
        Orders(),
        Warrants(),
        PersonalData(),
        Rights(),
        Crossing(seats, NETWORK, outgoing, incoming),
    ]
