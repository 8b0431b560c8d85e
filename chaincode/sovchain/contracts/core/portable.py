"""What a scenario implements so that its records can cross channels. `crossing` does all the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from sovchain.chaincode import Context
from sovchain.contracts.core.crossing_records import Arrival, Challenge
from sovchain.contracts.core.records import Record
from sovchain.contracts.core.refusal import refusal


class Portable(ABC):
    """A kind of record that may leave its channel."""

    record_type: ClassVar[str]
    """Word that challenges name it by."""
    movable: ClassVar[bool] = False
    """Whether it can be moved, not only shared."""

    @abstractmethod
    async def send(self, ctx: Context, challenge: Challenge, destination: str) -> Record:
        """The content that crosses, if the caller may send it there for this purpose; a moved record is locked.

        Everyone on both channels can read the content. Raises ContractError.
        """

    async def settle(
        self, ctx: Context, record_id: str, outcome: Literal["finalised", "released"], destination: str
    ) -> None:
        """End the lock of a moved record: it lives at the destination now, or again here. Raises ContractError."""
        raise refusal(
            "E_ACTION", f"{self.record_type} does not move", "it is only shared", "ask for a share", record=record_id
        )


class Receivable(ABC):
    """A kind of record that may come from another channel."""

    record_type: ClassVar[str]
    """Word that challenges name it by."""
    sources: ClassVar[tuple[str, ...]]
    """Channels that it may come from."""

    @abstractmethod
    async def receive(self, ctx: Context, arrival: Arrival, content: str) -> None:
        """Take in what crossed, if this channel's own rules allow it, and write it. Raises ContractError."""
