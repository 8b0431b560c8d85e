"""Contracts: classes whose methods are the functions of a chaincode."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from sovchain.chaincode.errors import E_FUNCTION, ContractError, DefinitionError
from sovchain.chaincode.operation import Exposed
from sovchain.chaincode.shapes import read_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sovchain.chaincode.access import Requirement
    from sovchain.chaincode.context import Context
    from sovchain.chaincode.operation import Operation

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Contract:
    """Base of every contract. Derive a class, give it methods with `@transaction` and `@query`.

    An instance may hold settings that are fixed for the life of the chaincode; what changes belongs into state.
    All annotations of exposed methods are read when the class is defined, so their types must exist by then.
    """

    name: ClassVar[str] = "Contract"
    """The name before the colon on the wire; the name of the class unless the class sets it."""
    requires: ClassVar[Requirement | None] = None
    """What the caller of any of its operations must be, besides what the operation itself requires."""
    version: ClassVar[str] = ""
    """Version of the contract for its metadata; that of the chaincode unless the class sets it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__
        if not isinstance(cls.name, str) or _NAME.fullmatch(cls.name) is None:
            raise DefinitionError(
                f"the name of contract {cls.__qualname__} is not a letter followed by at most 63 letters, digits, _ . -"
            )
        _check_names(cls)
        caller = sys._getframe(1)
        for exposed in _exposed(cls).values():
            if exposed.shape is None:
                exposed.shape = read_shape(exposed.method, cls.__qualname__, caller.f_locals)

    @classmethod
    def operations(cls) -> dict[str, Operation[..., Any]]:
        """The operations of this class by method name, in order of definition, inherited ones first."""
        return {name: exposed.operation(cls) for name, exposed in _exposed(cls).items()}

    async def before(self, ctx: Context, operation: Operation[..., Any]) -> None:
        """Called before each operation of this contract; may raise to refuse.

        The caller was found to be what the operation requires, and the arguments to be of their types.
        """

    async def after(self, ctx: Context, operation: Operation[..., Any], result: Any) -> None:
        """Called after each operation of this contract that returned; may raise to refuse."""

    async def unknown(self, ctx: Context, function: str, args: Sequence[bytes]) -> Any:
        """Called for a function that this contract does not have; refuses unless a class overrides it.

        Neither `before` nor `after` is called for it. It may write.

        Args:
            ctx: the call.
            function: what was asked for, without the contract's name. It comes from the client: do not repeat it.
            args: the arguments after it.

        Returns:
            bytes and text travel as they are, any other value as canonical JSON, None as nothing.

        Raises:
            ContractError: E_FUNCTION, with the functions that there are.
        """
        known = ", ".join(operation.name for operation in self.operations().values())
        raise ContractError(E_FUNCTION, f"the contract has no such function; it has {known or 'none'}")


def _exposed(cls: type) -> dict[str, Exposed[Any, Any]]:
    found: dict[str, Exposed[Any, Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in base.__dict__.items():
            if isinstance(value, Exposed):
                found[name] = value
            else:
                found.pop(name, None)
    return found


def _check_names(cls: type[Contract]) -> None:
    names = [exposed.wire_name or exposed.name for exposed in _exposed(cls).values()]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise DefinitionError(f"two operations of {cls.__qualname__} have the name {double}")
