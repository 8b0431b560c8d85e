"""What a scenario declares, and how a channel's chaincode is made of what its scenarios declare.

    SCENARIO = Scenario("waybills", "Waybills", (Waybills(),), (Waybills.custody,))
    chaincode = channel_chaincode("logistics", SEATS, [waybills.SCENARIO, shipments.SCENARIO])

Its name is that of its page, docs/scenarios/NAME.md, and of its demonstration, `sovchain demo --scenario NAME`. A scenario
that works on two channels declares a part on each, under one name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sovchain.chaincode import Chaincode, Context, Contract, Given, Guard, StateMachine, guard
from sovchain.contracts.core import Portable, Receivable, Seats, core_contracts
from sovchain.contracts.core.records import Record
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.store import StubView

M = TypeVar("M", bound=Record)


@dataclass(frozen=True)
class Scenario:
    """A scenario's part on one channel.

    Attributes:
        name: lower case, words joined by hyphens.
        title: for people.
        contracts: its contracts.
        machines: the tables of states of its records, from which its page and its negative tests are made.
        outgoing, incoming: the kinds of record that leave for and come from other channels.
    """

    name: str
    title: str
    contracts: tuple[Contract, ...]
    machines: tuple[StateMachine[Any], ...]
    outgoing: tuple[Portable, ...] = ()
    incoming: tuple[Receivable, ...] = ()


def channel_chaincode(
    name: str,
    seats: Seats,
    scenarios: Sequence[Scenario],
    *,
    outgoing: Sequence[Portable] = (),
    incoming: Sequence[Receivable] = (),
) -> Chaincode:
    """The chaincode of a channel: the sovereign core and the contracts of its scenarios.

    Args:
        name: of the channel and its chaincode.
        seats: who passes ballots on it.
        scenarios: what works on it. A contract that several scenarios name is there once.
        outgoing, incoming: what crosses besides, such as laws.
    """
    core = core_contracts(
        seats,
        outgoing=[*outgoing, *(one for scenario in scenarios for one in scenario.outgoing)],
        incoming=[*incoming, *(one for scenario in scenarios for one in scenario.incoming)],
    )
    own = [one for scenario in scenarios for one in scenario.contracts]
    return Chaincode([*core, *(one for at, one in enumerate(own) if one not in own[:at])], name=name)


async def advance(
    ctx: Context,
    machine: StateMachine[M],
    record: M,
    action: str,
    changes: Mapping[str, Any] | None = None,
    given: Given | None = None,
) -> M:
    """As `machine.advance`, by a caller whom the registry lets act, with an event that names the record.

    Raises ContractError: as `machine.advance`; E_NOT_ADMITTED, E_SUSPENDED.
    """
    changed = await machine.advance(ctx, record, action, changes, given)
    await require_active_caller(ctx, StubView(ctx.stub))
    key = [getattr(changed, name) for name in ctx.records(machine.model).type.key]
    ctx.set_event(f"{machine.model.__name__}{action.title().replace('-', '')}", {"key": [str(part) for part in key]})
    return changed


def registered_as(role: str) -> Guard:
    """That the registry lets the caller's organisation have a role: what a certificate claims is not enough.

    Beside `role(...)` in a table: an organisation's own CA writes the certificate, a ballot the registry.
    """

    @guard("E_ROLE", f"the registry allows the caller's organisation the role {role}")
    async def registered(ctx: Context, record: object, given: Given) -> bool:
        entry = await require_active_caller(ctx, StubView(ctx.stub))
        return role in entry.organisation.roles

    return registered
