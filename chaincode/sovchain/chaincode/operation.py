"""Operations: what `@transaction` and `@query` make of a method.

The one definition serves three readers. On the class it is an `Operation` whose parameters are those of the method
after `ctx`, so that a type checker checks a client's call; on an instance it is the method itself, so that a test can
call it; and the runtime reads from it how to decode arguments and to encode the result.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from sovchain.chaincode.context import Context
from sovchain.chaincode.errors import ArgumentError, DefinitionError

if TYPE_CHECKING:
    from sovchain.chaincode.access import Requirement
    from sovchain.chaincode.values import Codec

P = ParamSpec("P")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)
Op_co = TypeVar("Op_co", bound="Operation[..., Any]", covariant=True)
Bound_co = TypeVar("Bound_co", covariant=True)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")

MAX_ARGUMENTS = 64
"""Most arguments of one call, the function's name not counted."""


class TransientMarker:
    """Marks a parameter that travels in the transient map; `TRANSIENT` is the only instance."""

    def __repr__(self) -> str:
        return "TRANSIENT"


TRANSIENT = TransientMarker()

Transient: TypeAlias = Annotated[T, TRANSIENT]
"""A parameter that the peers see and the ledger never does: it travels in the transient map under its own name."""


@dataclass(frozen=True, slots=True)
class EncodedCall:
    """A call as it goes into a proposal. `args[0]` is the function's name."""

    args: tuple[bytes, ...]
    transient: Mapping[str, bytes] = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"EncodedCall({self.args[0].decode()!r}, {len(self.args) - 1} arguments, {len(self.transient)} transient)"
        )


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation after `ctx`."""

    name: str
    annotation: Any
    codec: Codec[Any]
    transient: bool
    required: bool
    default: Any = None


@dataclass(frozen=True, slots=True)
class CallShape:
    """Parameters and result of a method, read from its annotations once, when its class is defined."""

    signature: inspect.Signature
    parameters: tuple[Parameter, ...]
    result: Codec[Any]
    result_annotation: Any = None


class Operation(Generic[P, R_co]):
    """A function of a contract as clients and the runtime see it.

    Attributes:
        contract: name of the contract.
        method: name of the function within the contract, as it is called on the wire.
        readonly: True for a query.
        description: first paragraph of the method's docstring.
        requires: what the caller must be; None if everybody who may write to the channel may call it.
    """

    readonly: bool = False

    def __init__(
        self,
        contract: str,
        method: str,
        shape: CallShape,
        description: str = "",
        *,
        requires: Requirement | None = None,
        attribute: str | None = None,
    ) -> None:
        self.contract = contract
        self.method = method
        self.description = description
        self.requires = requires
        self.attribute: str = attribute or method
        self._shape = shape

    @property
    def name(self) -> str:
        """The name on the wire, `Contract:function`."""
        return f"{self.contract}:{self.method}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters after `ctx`."""
        return self._shape.parameters

    @property
    def result(self) -> Codec[Any]:
        """How the result travels."""
        return self._shape.result

    @property
    def result_annotation(self) -> Any:
        """The type of the result as the method declares it."""
        return self._shape.result_annotation

    def encode(self, *args: P.args, **kwargs: P.kwargs) -> EncodedCall:
        """The call as it goes into a proposal.

        Raises:
            ArgumentError: a parameter is missing, surplus or not of its type.
        """
        try:
            bound = self._shape.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(None, f"{self.name}: {error}") from None
        bound.apply_defaults()
        plain, transient = [self.name.encode()], {}
        for parameter in self._shape.parameters:
            encoded = parameter.codec.encode_argument(parameter.name, bound.arguments[parameter.name])
            if parameter.transient:
                transient[parameter.name] = encoded
            else:
                plain.append(encoded)
        return EncodedCall(tuple(plain), transient)

    def decode(self, payload: bytes) -> R_co:
        """The result from the payload of a response.

        Raises:
            ResultError: the payload is not of the declared type.
        """
        return cast("R_co", self._shape.result.decode_result(payload))

    def decode_call(self, args: Sequence[bytes], transient: Mapping[str, bytes]) -> dict[str, Any]:
        """The parameters by name, from the arguments after the function's name and the transient map.

        Raises:
            ArgumentError: a parameter is missing, surplus or not of its type.
        """
        plain = [parameter for parameter in self._shape.parameters if not parameter.transient]
        if len(args) > len(plain):
            raise ArgumentError(None, f"{self.name} takes {len(plain)} arguments, {len(args)} were sent")
        sent = {parameter.name: data for parameter, data in zip(plain, args, strict=False)}
        values: dict[str, Any] = {}
        for parameter in self._shape.parameters:
            data = transient.get(parameter.name) if parameter.transient else sent.get(parameter.name)
            if data is not None:
                values[parameter.name] = parameter.codec.decode_argument(parameter.name, data)
            elif parameter.required:
                where = "in the transient map" if parameter.transient else "as an argument"
                raise ArgumentError(parameter.name, f"is missing: send it {where}")
            else:
                values[parameter.name] = parameter.default
        return values

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Transaction(Operation[P, R_co]):
    """An operation that may write: it is submitted, ordered and committed."""


class Query(Operation[P, R_co]):
    """An operation that only reads: it is evaluated on one peer, and its stub refuses writes."""

    readonly = True


class Exposed(Generic[Op_co, Bound_co]):
    """The descriptor that stands in for a method decorated with `@transaction` or `@query`."""

    def __init__(
        self,
        method: Callable[..., Any],
        kind: type[Operation[..., Any]],
        requires: Requirement | None = None,
        name: str | None = None,
    ) -> None:
        if name is not None and _NAME.fullmatch(name) is None:
            raise DefinitionError("the name of an operation is a letter followed by at most 63 letters, digits, _ . -")
        if not inspect.isfunction(method):
            raise DefinitionError("@transaction and @query go directly onto a method, below any other decorator")
        self.method = method
        self.kind = kind
        self.requires = requires
        self.name = method.__name__
        self.wire_name = name
        self.description = inspect.cleandoc(method.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        self.shape: CallShape | None = None
        self.__doc__ = method.__doc__
        self.__wrapped__ = method
        self._operations: dict[type[Any], Op_co] = {}

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def operation(self, owner: type[Any]) -> Op_co:
        """The operation as `owner` has it; one object for each class."""
        contract = owner.name
        found = self._operations.get(owner)
        if found is None:
            if self.shape is None:
                raise DefinitionError(f"{self.method.__qualname__} is not a method of a class derived from Contract")
            both = [part for part in (owner.requires, self.requires) if part is not None]
            made = self.kind(
                contract,
                self.wire_name or self.name,
                self.shape,
                self.description,
                requires=both[0] & both[1] if len(both) == 2 else both[0] if both else None,
                attribute=self.name,
            )
            found = self._operations[owner] = cast("Op_co", made)
        return found

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Op_co: ...
    @overload
    def __get__(self, instance: object, owner: type[Any]) -> Bound_co: ...
    def __get__(self, instance: object | None, owner: type[Any]) -> Any:
        if instance is None:
            return self.operation(owner)
        return self.method.__get__(instance, owner)


class TransactionDecorator(Protocol):
    """What `@transaction(...)` with options puts onto a method."""

    @overload
    def __call__(
        self, method: Callable[Concatenate[Any, Context, P], Coroutine[Any, Any, T]], /
    ) -> Exposed[Transaction[P, T], Callable[Concatenate[Context, P], Coroutine[Any, Any, T]]]: ...
    @overload
    def __call__(
        self, method: Callable[Concatenate[Any, Context, P], T], /
    ) -> Exposed[Transaction[P, T], Callable[Concatenate[Context, P], T]]: ...


class QueryDecorator(Protocol):
    """What `@query(...)` with options puts onto a method."""

    @overload
    def __call__(
        self, method: Callable[Concatenate[Any, Context, P], Coroutine[Any, Any, T]], /
    ) -> Exposed[Query[P, T], Callable[Concatenate[Context, P], Coroutine[Any, Any, T]]]: ...
    @overload
    def __call__(
        self, method: Callable[Concatenate[Any, Context, P], T], /
    ) -> Exposed[Query[P, T], Callable[Concatenate[Context, P], T]]: ...


@overload
def transaction(
    method: Callable[Concatenate[Any, Context, P], Coroutine[Any, Any, T]], /
) -> Exposed[Transaction[P, T], Callable[Concatenate[Context, P], Coroutine[Any, Any, T]]]: ...
@overload
def transaction(
    method: Callable[Concatenate[Any, Context, P], T], /
) -> Exposed[Transaction[P, T], Callable[Concatenate[Context, P], T]]: ...
@overload
def transaction(*, requires: Requirement | None = None, name: str | None = None) -> TransactionDecorator: ...
def transaction(
    method: Callable[..., Any] | None = None, /, *, requires: Requirement | None = None, name: str | None = None
) -> Any:
    """Expose a method as a transaction: it may write, and clients submit it.

    The method takes `self`, `ctx: Context` and typed parameters, and declares its result. With `async` it runs on the
    event loop; without, in a thread, where `ctx.blocking` is its stub.

    Args:
        method: the method, when used without parentheses.
        requires: what the caller must be (`sovchain.chaincode.access`), besides what the contract requires.
        name: the name on the wire, if it is not that of the method.

    Raises:
        DefinitionError: when the class is defined, for a parameter or a result whose type cannot travel.
    """
    if method is None:
        return lambda found: Exposed(found, Transaction, requires, name)
    return Exposed(method, Transaction)


@overload
def query(
    method: Callable[Concatenate[Any, Context, P], Coroutine[Any, Any, T]], /
) -> Exposed[Query[P, T], Callable[Concatenate[Context, P], Coroutine[Any, Any, T]]]: ...
@overload
def query(
    method: Callable[Concatenate[Any, Context, P], T], /
) -> Exposed[Query[P, T], Callable[Concatenate[Context, P], T]]: ...
@overload
def query(*, requires: Requirement | None = None, name: str | None = None) -> QueryDecorator: ...
def query(
    method: Callable[..., Any] | None = None, /, *, requires: Requirement | None = None, name: str | None = None
) -> Any:
    """Expose a method as a query: it only reads, and clients evaluate it. Otherwise as `transaction`.

    Raises:
        DefinitionError: when the class is defined, for a parameter or a result whose type cannot travel.
    """
    if method is None:
        return lambda found: Exposed(found, Query, requires, name)
    return Exposed(method, Query)
