"""Contracts: classes whose methods are the functions of a chaincode."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from sovchain.chaincode.errors import DefinitionError
from sovchain.chaincode.operation import Exposed
from sovchain.chaincode.shapes import read_shape

if TYPE_CHECKING:
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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__
        if not isinstance(cls.name, str) or _NAME.fullmatch(cls.name) is None:
            raise DefinitionError(
                f"the name of contract {cls.__qualname__} is not a letter followed by at most 63 letters, digits, _ . -"
            )
        caller = sys._getframe(1)
        for exposed in _exposed(cls).values():
            if exposed.shape is None:
                exposed.shape = read_shape(exposed.method, cls.__qualname__, caller.f_locals)

    @classmethod
    def operations(cls) -> dict[str, Operation[..., Any]]:
        """The operations of this class by method name, in order of definition, inherited ones first."""
        return {name: exposed.operation(cls.name) for name, exposed in _exposed(cls).items()}

    async def before(self, ctx: Context, operation: Operation[..., Any]) -> None:
        """Called before each operation of this contract, after its arguments were found valid; may raise to refuse."""

    async def after(self, ctx: Context, operation: Operation[..., Any], result: Any) -> None:
        """Called after each operation of this contract that returned; may raise to refuse."""


def _exposed(cls: type) -> dict[str, Exposed[Any, Any]]:
    found: dict[str, Exposed[Any, Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in base.__dict__.items():
            if isinstance(value, Exposed):
                found[name] = value
            else:
                found.pop(name, None)
    return found
