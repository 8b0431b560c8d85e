"""State machines: what may happen to a record, as one table that the contract, its docs and its tests are made of.

    custody = StateMachine(
        Waybill,
        {
            (None, "issue"): To("issued", role("shipper")),
            ("issued", "offer"): To("offered", holder("custodian")),
            ("offered", "accept"): To("issued", holder("offered_to"), endorsers=("SupervisorMSP", holder("custodian"))),
            ("issued", "deliver"): To("delivered", holder("custodian"), guards=(nothing_missing,)),
        },
    )

In the contract, `await custody.advance(ctx, waybill, "offer", {"offered_to": to})` checks caller, state and guards, writes the
record in its next state, and sets the record's endorsers. What is not in the table is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar, get_args, get_origin

from sovchain.chaincode.access import Holder, Requirement
from sovchain.chaincode.errors import E_ACCESS, E_STATE, ContractError, DefinitionError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sovchain.chaincode.context import Context

M = TypeVar("M", bound="BaseModel")
Given: TypeAlias = Mapping[str, Any]
"""What the action brings: the arguments that guards look at."""
Check: TypeAlias = "Callable[[Context, Any, Given], bool | str | Awaitable[bool | str]]"
"""Whether it holds; or, as text, why it does not."""

ABSENT: Final = "(none)"
"""How the state before the first action is written in docs and diagrams."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition on a step. Made by `guard`.

    Attributes:
        code: code of the refusal.
        text: what must hold, in lower case: it ends the refusal's text and stands in the docs.
        check: tells whether it holds; a text says why it does not, with the figures of this case.
    """

    code: str
    text: str
    check: Check

    async def require(self, ctx: Context, action: str, record: Any, given: Given) -> None:
        """Raise ContractError with the guard's code unless it holds."""
        found = self.check(ctx, record, given)
        found = await found if inspect.isawaitable(found) else found
        if isinstance(found, str) or not found:
            why = f"{self.text}, and {found}" if found else self.text
            raise ContractError(
                self.code, f"{action} is not possible: it takes that {why}; change the call", action=action
            )


def guard(code: str, text: str) -> Callable[[Check], Guard]:
    """Make a guard of a function of context, record and what the action brings; `async` or not.

    @guard("E_QUANTITY", "no more packages are delivered than were issued")
    def nothing_added(ctx: Context, note: Note, given: Given) -> bool:
        return given["packages"] <= note.packages
    """
    return lambda check: Guard(code, text, check)


@dataclass(frozen=True, slots=True)
class To:
    """One row of the table: where an action leads.

    Attributes:
        state: the next state.
        requires: what the caller must be; None for everybody.
        guards: conditions, checked in order.
        endorsers: MSP ids, or `holder(field)` for the MSP in a field of the new record, a peer of each of which must
            endorse the next change of the record; empty leaves the record's endorsement policy as it is.
        code: code of the refusal of a caller that is not what is required.
        text: what happens, for the docs.
    """

    state: str
    requires: Requirement | None = None
    guards: tuple[Guard, ...] = ()
    endorsers: tuple[str | Requirement, ...] = ()
    code: str = E_ACCESS
    text: str = ""


Table: TypeAlias = Mapping[tuple[str | None, str], To]


class StateMachine(Generic[M]):
    """What may happen to the records of one model.

    Args:
        model: the model; `advance` takes one with `@record`.
        table: (state, action) to where it leads; the state is None for a record that does not exist yet.
        field: the model's field that holds the state.
        title: for docs and diagrams; the model's name if not given.

    Raises:
        DefinitionError: the table cannot work: no first action, a state that nothing leads to, or that the model's field
            cannot hold.
    """

    def __init__(self, model: type[M], table: Table, *, field: str = "state", title: str = "") -> None:
        self.model = model
        self.field = field
        self.title = title or model.__name__
        self.table: Table = {(_text(state), action): row for (state, action), row in table.items()}
        self.states: tuple[str, ...] = tuple(dict.fromkeys(row.state for row in table.values()))
        self.actions: tuple[str, ...] = tuple(dict.fromkeys(action for _, action in table))
        self._check()

    @property
    def final_states(self) -> tuple[str, ...]:
        """The states that nothing leads out of."""
        left = {state for state, _ in self.table}
        return tuple(state for state in self.states if state not in left)

    def allowed(self, state: str | None) -> tuple[str, ...]:
        """The actions that the table has for a state."""
        return tuple(action for found, action in self.table if found == state)

    def state_of(self, record: M | None) -> str | None:
        """The state that a record is in; None without a record."""
        return None if record is None else _text(getattr(record, self.field))

    async def step(self, ctx: Context, record: M | None, action: str, given: Given | None = None) -> To:
        """Check that the caller may do this to the record now; return where it leads. Nothing is written.

        Args:
            ctx: the call.
            record: the record, as committed; None if there is none.
            action: one of the table's actions.
            given: what guards look at.

        Raises:
            AccessError: the caller is not what the action requires.
            ContractError: E_STATE, or the code of the guard that does not hold.
        """
        rows = [row for (_, name), row in self.table.items() if name == action]
        if not rows:
            raise ContractError(E_STATE, f"a {self.title} has no action of this name; it has {', '.join(self.actions)}")
        state = self.state_of(record)
        row = self.table.get((state, action))
        if not any(_may(one, ctx, record) for one in rows):
            # Whoever may never do this is not told in which state the record is.
            self._refuse_caller(row or rows[0], ctx, action, record)
        if row is None:
            possible = ", ".join(self.allowed(state)) or "nothing"
            text = f"the {self.title} does not exist" if state is None else f"the {self.title} is {state}"
            if state is not None and (None, action) in self.table:
                text = f"the {self.title} exists already and is {state}"
            raise ContractError(
                E_STATE, f"{action} is not possible: {text}; possible is {possible}", state=state, action=action
            )
        self._refuse_caller(row, ctx, action, record)
        for condition in row.guards:
            await condition.require(ctx, action, record, given or {})
        return row

    async def apply(
        self, ctx: Context, record: M, action: str, changes: Mapping[str, Any] | None = None, given: Given | None = None
    ) -> M:
        """As `step`, and return the record in its next state, with changes. Nothing is written.

        A record whose action starts from None is taken as new: its own state is not looked at.
        """
        before = None if (None, action) in self.table else record
        row = await self.step(ctx, before, action, given)
        return self._changed(record, row, changes)

    async def advance(
        self, ctx: Context, record: M, action: str, changes: Mapping[str, Any] | None = None, given: Given | None = None
    ) -> M:
        """As `apply`, and write the record and its endorsers.

        Raises:
            ContractError: as `step`; for a first action also E_STATE if the record exists already.
        """
        records = ctx.records(self.model)
        before: M | None = record
        if (None, action) in self.table:
            before = await records.get(*(getattr(record, name) for name in records.type.key))
        row = await self.step(ctx, before, action, given)
        changed = self._changed(record, row, changes)
        await records.put(changed)
        if row.endorsers:
            from sovchain.chaincode.records import endorsed_by

            key = [getattr(changed, name) for name in records.type.key]
            await records.set_endorsers(*key, policy=endorsed_by(*_endorsers(row, changed)))
        return changed

    # -- docs --------------------------------------------------------------------------------------------------------

    def markdown(self) -> str:
        """The table for the docs."""
        lines = [
            "| state | action | next | who | takes that | endorsers of the next change |",
            "|---|---|---|---|---|---|",
        ]
        for (state, action), row in self.table.items():
            who = "everybody" if row.requires is None else f"`{row.requires}`".replace("|", "\\|")
            guards = "; ".join(condition.text for condition in row.guards)
            endorsers = ", ".join(map(str, row.endorsers))
            cells = (state or ABSENT, action, row.state, who, guards, endorsers)
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def mermaid(self) -> str:
        """The diagram for Mermaid, which GitHub and most wikis draw."""
        lines = ["stateDiagram-v2"]
        lines += [f"    {state or '[*]'} --> {row.state}: {action}" for (state, action), row in self.table.items()]
        lines += [f"    {state} --> [*]" for state in self.final_states]
        return "\n".join(lines) + "\n"

    def dot(self) -> str:
        """The diagram for Graphviz."""
        lines = [f'digraph "{self.title}" {{', "    rankdir=LR;", "    start [shape=point];"]
        lines += [f'    "{state}" [shape=doublecircle];' for state in self.final_states]
        for (state, action), row in self.table.items():
            start = "start" if state is None else f'"{state}"'
            lines.append(f'    {start} -> "{row.state}" [label="{action}"];')
        return "\n".join([*lines, "}"]) + "\n"

    # -- inside ------------------------------------------------------------------------------------------------------

    def _refuse_caller(self, row: To, ctx: Context, action: str, record: M | None) -> None:
        if row.requires is not None:
            row.requires.check(ctx.identity, f"{action} of a {self.title}", record, code=row.code)

    def _changed(self, record: M, row: To, changes: Mapping[str, Any] | None) -> M:
        values = {name: getattr(record, name) for name in self.model.model_fields}
        values.update(changes or {})
        values[self.field] = row.state
        return self.model.model_validate(values)

    def _check(self) -> None:
        if self.field not in self.model.model_fields:
            raise DefinitionError(f"{self.model.__name__} has no field {self.field} for its state")
        if not any(state is None for state, _ in self.table):
            raise DefinitionError(f"the states of {self.title} have no beginning: give an action from None")
        for state, action in self.table:
            if state is not None and state not in self.states:
                raise DefinitionError(f"nothing leads to the state {state} of {self.title}, from which {action} starts")
        possible = _values(self.model.model_fields[self.field].annotation)
        for state in self.states:
            if possible is not None and state not in possible:
                raise DefinitionError(f"the field {self.field} of {self.model.__name__} cannot be {state}")


def _may(row: To, ctx: Context, record: object) -> bool:
    return row.requires is None or row.requires.met_by(ctx.identity, record)


def _endorsers(row: To, record: BaseModel) -> Sequence[str]:
    found = []
    for endorser in row.endorsers:
        name = getattr(record, endorser.field, None) if isinstance(endorser, Holder) else endorser
        if isinstance(endorser, Holder) and endorser.within and isinstance(name, str):
            name = name.partition("/")[0]
        if not isinstance(name, str) or not name:
            raise DefinitionError(f"an endorser is an MSP id or the holder of a field that has one, not {endorser}")
        found.append(name)
    return found


def _text(state: Any) -> str | None:
    """A state as text; that of an enum is its value."""
    return None if state is None else str(getattr(state, "value", state))


def _values(annotation: Any) -> set[str] | None:
    """What a field of a literal or enum type can be; None for any other type."""
    if get_origin(annotation) is Literal:
        return {str(value) for value in get_args(annotation)}
    members = getattr(annotation, "__members__", None)
    return None if members is None else {str(member.value) for member in members.values()}
