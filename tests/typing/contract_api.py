"""The contract API and the typed client as a type checker sees them: checked by tests/typing/test_checkers.py, never run."""

from __future__ import annotations

from typing import assert_type

from sovchain.chaincode import Context, Contract, Transient, query, transaction
from sovchain.client import Gateway, Submitted
from sovchain.contracts.logistics import ConsignmentNote, DeliveryProof


class Notes(Contract):
    """A contract as docs/architecture.md and the README write it."""

    @transaction
    async def issue(self, ctx: Context, note: ConsignmentNote) -> int: ...

    @transaction
    async def deliver(self, ctx: Context, number: str, proof: Transient[DeliveryProof]) -> str: ...

    @query
    async def read(self, ctx: Context, number: str) -> ConsignmentNote: ...


async def right(gateway: Gateway, note: ConsignmentNote, proof: DeliveryProof) -> None:
    notes = gateway.network("logistics").contract("logistics")
    assert_type(await notes.evaluate(Notes.read, "GY-000017"), ConsignmentNote)
    assert_type(await notes.submit(Notes.issue, note), Submitted[int])
    assert_type(await notes.submit(Notes.deliver, "GY-000017", proof), Submitted[str])
    assert_type(await notes.submit("Notes:issue", "text", b"bytes", transient={"key": b""}), Submitted[bytes])


async def wrong(gateway: Gateway, note: ConsignmentNote) -> None:
    notes = gateway.network("logistics").contract("logistics")
    await notes.evaluate(Notes.read, 17)  # WRONG: a number for text
    await notes.evaluate(Notes.read)  # WRONG: an argument is missing
    await notes.submit(Notes.issue, note, "more")  # WRONG: one argument too many
    await notes.submit(Notes.issue, "GY-000017")  # WRONG: text for a note
    await notes.submit(Notes.deliver, "GY-000017", note)  # WRONG: a note for a proof
