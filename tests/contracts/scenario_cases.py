"""What the scenarios' tests share: a channel in memory with its organisations admitted, and records put where a case wants them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from memory_ledger import ORGANISATIONS, START, organisation
from pydantic import BaseModel

from sovchain.chaincode import Chaincode, StateMachine
from sovchain.chaincode.recordtypes import record_type
from sovchain.contracts.core import store
from sovchain.contracts.core.records import RegisteredOrganisation
from sovchain.contracts.core.store import encode_record
from sovchain.protocol.canonical import canonical_json
from sovchain.protocol.keys import composite_key
from sovchain.protocol.rwset import Version
from sovchain.testing import ContractHarness
from sovchain.testing.machines import NegativeCase, check_refused, negative_cases

STRANGER = "Stranger"


def channel(chaincode: Chaincode, *names: str) -> ContractHarness:
    """A channel whose organisations are admitted; the stranger is a member, and the registry knows it as an analyst."""
    harness = ContractHarness(chaincode, organizations=[*names, STRANGER])
    for name in (*names, STRANGER):
        entry = RegisteredOrganisation(
            organisation=ORGANISATIONS.get(name) or organisation(name, "CN-GZ-520100", "analyst", "general"),
            status="active",
            admitted_at=START,
            changed_at=START,
            ballot="0" * 64,
        )
        place(harness, entry, store.ORGANISATION, f"{name}MSP")
    return harness


def place(harness: ContractHarness, record: BaseModel, kind: str = "", *components: str) -> None:
    """Put a record into committed state: under `kind` and components, or where its own `@record` says."""
    if kind:
        key, value = composite_key(kind, components), encode_record(record)
    else:
        found = record_type(type(record))
        parts = found.key_parts([getattr(record, field) for field in found.key])
        key, value = composite_key(found.name, parts), canonical_json(record.model_dump(mode="json"))
    harness.state.public[harness.name].put(key, (value, None, Version(0, 0)))


Sample = Callable[[ContractHarness, str, Mapping[str, str]], None]
"""Places a record in a state, its holders as the mapping says."""


def cases(machine: StateMachine[Any], *, without: tuple[str, ...] = ()) -> list[NegativeCase]:
    """What the table must refuse, but for actions that are no operation of the contract's own."""
    return [case for case in negative_cases(machine) if case.action not in without]


async def check(harness: ContractHarness, case: NegativeCase, sample: Sample, calls: Mapping[str, Any]) -> None:
    """Check that a case is refused with its code, and that nothing is written."""

    async def prepare(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
        sample(harness, state, holders)

    await check_refused(harness, case, prepare, calls)
