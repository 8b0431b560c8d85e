"""A chaincode's documentation in Markdown: its contracts, their operations, and the tables and diagrams of their states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sovchain.chaincode.machine import StateMachine

if TYPE_CHECKING:
    from sovchain.chaincode.chaincode import Chaincode
    from sovchain.chaincode.contract import Contract
    from sovchain.chaincode.operation import Operation


def markdown(chaincode: Chaincode) -> str:
    """The documentation of a chaincode."""
    return f"# {chaincode.name}\n\n" + "\n".join(map(_contract, chaincode.contracts.values()))


def _contract(contract: Contract) -> str:
    lines = [f"## {contract.name}", "", *_text(type(contract)), ""]
    lines += ["| operation | parameters | result | who | what it does |", "|---|---|---|---|---|"]
    lines += [_row(operation) for operation in type(contract).operations().values()]
    for machine in _machines(type(contract)):
        lines += ["", f"### States of {machine.title}", "", machine.markdown()]
        lines += ["```mermaid", machine.mermaid().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _row(operation: Operation[..., Any]) -> str:
    parameters = [
        f"{one.name}: {_type(one.annotation)}{' (transient)' if one.transient else ''}{'' if one.required else ' (optional)'}"
        for one in operation.parameters
    ]
    kind = "evaluate" if operation.readonly else "submit"
    who = "everybody" if operation.requires is None else f"`{operation.requires}`"
    cells = [
        f"`{operation.name}` ({kind})",
        ", ".join(parameters),
        _type(operation.result_annotation),
        who,
        operation.description,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _machines(cls: type[Contract]) -> list[StateMachine[Any]]:
    found: dict[str, StateMachine[Any]] = {}
    for base in reversed(cls.__mro__):
        found.update((name, value) for name, value in vars(base).items() if isinstance(value, StateMachine))
    return list(found.values())


def _text(cls: type) -> list[str]:
    return [line.strip() for line in (cls.__doc__ or "").strip().splitlines()]


def _type(annotation: Any) -> str:
    if annotation is None or annotation is type(None):
        return "nothing"
    arguments = getattr(annotation, "__metadata__", None)
    if arguments is not None:
        return _type(annotation.__origin__)
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("datetime.datetime", "datetime")
