"""Reads the annotations of a contract method and refuses, when its class is defined, what cannot travel.

Floats are refused because two machines may round or print them differently, sets because their order follows the hash
seed; either would make endorsements differ. Both are looked for at any depth of models, dataclasses and containers.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, TypeVar, get_args, get_origin

from sovchain.chaincode import values
from sovchain.chaincode.errors import DefinitionError
from sovchain.chaincode.operation import MAX_ARGUMENTS, CallShape, Parameter, TransientMarker

if TYPE_CHECKING:
    from collections.abc import Callable

    from sovchain.chaincode.values import Codec

_SCALARS: Mapping[Any, type[values.Scalar[Any]]] = {
    str: values.TextCodec,
    bytes: values.BytesCodec,
    int: values.IntegerCodec,
    bool: values.BooleanCodec,
    Decimal: values.DecimalCodec,
    datetime: values.DatetimeCodec,
    date: values.DateCodec,
}
_BYTES_AS_TEXT = ("base64", "hex")


class Unfit(Exception):
    """A type cannot travel; the text says why."""


def read_shape(method: Callable[..., Any], owner: str, local_names: Mapping[str, Any]) -> CallShape:
    """Parameters and result of a method.

    Args:
        method: takes self, ctx and annotated parameters, and declares its result.
        owner: name of the class, for error messages.
        local_names: names that annotations may use besides those of the method's module.

    Raises:
        DefinitionError: naming class, method and parameter.
    """
    where = f"{owner}.{method.__name__}"
    signature = inspect.signature(method)
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 2 or any(p.default is not p.empty for p in positional[:2]):
        raise DefinitionError(f"{where} takes self and ctx first")
    own = [p for p in signature.parameters.values() if p not in positional[:2]]
    if len(own) > MAX_ARGUMENTS:
        raise DefinitionError(f"{where} has {len(own)} parameters, at most {MAX_ARGUMENTS} are possible")
    for parameter in own:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DefinitionError(f"{where}: parameter {parameter.name} must have a name and one value")
        if parameter.annotation is parameter.empty:
            raise DefinitionError(f"{where}: parameter {parameter.name} has no type: annotate it")
    if signature.return_annotation is signature.empty:
        raise DefinitionError(f"{where} declares no result: annotate it, with None if there is none")
    hints = _resolve(method, where, [p.name for p in own], local_names)
    parameters = tuple(_parameter(where, parameter, hints[parameter.name]) for parameter in own)
    result, transient = _strip_transient(hints["return"])
    if transient:
        raise DefinitionError(f"{where}: a result cannot be transient")
    return CallShape(
        signature.replace(parameters=own),
        parameters,
        _codec(where, "the result", result, result=True),
        result,
    )


def codec_for(annotation: Any, *, result: bool = False) -> Codec[Any]:
    """The codec of a type.

    Raises:
        Unfit: values of the type cannot travel.
    """
    names: set[str] = set()
    examine(annotation, names, set(), top=True)
    known = frozenset(names)
    base = _base(annotation)
    constraint = None if base is annotation else annotation
    if base is None or base is type(None):
        if result:
            return values.NoneCodec()
        raise Unfit("None carries nothing")
    if base in _SCALARS:
        return _SCALARS[base](constraint, known)
    if get_origin(base) is Literal:
        kinds = {type(value) for value in get_args(base)}
        if len(kinds) == 1 and (kind := kinds.pop()) in (str, int):
            return _SCALARS[kind](annotation, known)
    if isinstance(base, type) and issubclass(base, Enum) and constraint is None:
        return values.EnumCodec(base)
    return values.JsonCodec(annotation, known)


def examine(
    annotation: Any, names: set[str], seen: set[Any], *, top: bool = False, bytes_travel: bool = True, at: str = ""
) -> None:
    """Look through a type for what cannot travel, and collect the names of its fields.

    Args:
        names: receives field names and aliases.
        seen: classes that were looked through already.
        top: whether this is the parameter or result itself.
        bytes_travel: whether the enclosing model says how bytes become text.
        at: path to this type, for the message.

    Raises:
        Unfit: the type, or one inside it, cannot travel.
    """
    base = _base(annotation)
    if not top and any(isinstance(mark, TransientMarker) for mark in _metadata(annotation)):
        raise Unfit(f"{at or 'the type'}: Transient marks a whole parameter, not a part of one")
    if base in (None, type(None), Any, object, str, int, bool, Decimal, datetime, date):
        return
    if base in (float, complex):
        raise Unfit(
            f"{at + ': ' if at else ''}floats differ between machines: use int in the smallest unit, or Decimal"
        )
    if base is bytes:
        if not top and not bytes_travel:
            raise Unfit(f"{at}: say how bytes become text: set ser_json_bytes and val_json_bytes to base64 or hex")
        return
    if isinstance(base, TypeVar):
        raise Unfit(f"{at + ': ' if at else ''}type variable {base.__name__} is not bound to a type")
    origin = get_origin(base)
    if origin is Literal:
        if any(isinstance(value, bytes) for value in get_args(base)):
            raise Unfit("a literal of bytes has no JSON form")
        return
    if _is_set(origin) or _is_set(base):
        raise Unfit(f"{at + ': ' if at else ''}the order of a set differs between peers: use a list or a tuple")
    if origin is not None:
        for argument in get_args(base):
            if argument is not Ellipsis:
                examine(argument, names, seen, bytes_travel=bytes_travel, at=at)
        if isinstance(origin, type) and not origin.__module__.startswith(
            ("builtins", "collections", "typing", "types")
        ):
            _examine_class(origin, names, seen, at)
        return
    if isinstance(base, type):
        _examine_class(base, names, seen, at)
        return
    _buildable(base, at)


def _examine_class(cls: type, names: set[str], seen: set[Any], at: str) -> None:
    if cls in seen:
        return
    seen.add(cls)
    if issubclass(cls, Enum):
        kinds = {type(member.value) for member in cls}
        if kinds not in ({str}, {int}):
            raise Unfit(f"{at + ': ' if at else ''}the values of enum {cls.__name__} are not all text or all integers")
        return
    if issubclass(cls, list | tuple | dict) and not hasattr(cls, "__annotations__"):
        return
    fields, config = _fields(cls, names)
    if fields is None:
        _buildable(cls, at)
        return
    travel = config.get("ser_json_bytes") in _BYTES_AS_TEXT and config.get("ser_json_bytes") == config.get(
        "val_json_bytes"
    )
    for name, annotation in fields.items():
        names.add(name)
        examine(annotation, names, seen, bytes_travel=travel, at=f"{cls.__name__}.{name}")


def _fields(cls: type, names: set[str]) -> tuple[dict[str, Any] | None, Mapping[str, Any]]:
    """The fields of a model, a dataclass, a TypedDict or a NamedTuple with its pydantic configuration."""
    from pydantic import BaseModel

    if issubclass(cls, BaseModel):
        cls.model_rebuild(raise_errors=False)
        for field in cls.model_fields.values():
            names.update(alias for alias in (field.alias, field.validation_alias) if isinstance(alias, str))
        fields = {
            name: Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            for name, field in cls.model_fields.items()
        }
        return fields, cls.model_config
    if (
        dataclasses.is_dataclass(cls)
        or typing.is_typeddict(cls)
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    ):
        try:
            hints = typing.get_type_hints(cls, include_extras=True)
        except NameError as error:
            raise Unfit(f"{cls.__name__} names the type {error.name}, which does not exist yet") from None
        if dataclasses.is_dataclass(cls):
            hints = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
        return hints, getattr(cls, "__pydantic_config__", {})
    return None, {}


def _buildable(annotation: Any, at: str) -> None:
    from pydantic import PydanticUserError

    try:
        values._adapter(annotation)
    except PydanticUserError:
        name = getattr(annotation, "__name__", str(annotation))
        raise Unfit(
            f"{at + ': ' if at else ''}{name} has no JSON form: use a model, a dataclass or a plain type"
        ) from None


def _resolve(
    method: Callable[..., Any], where: str, names: list[str], local_names: Mapping[str, Any]
) -> dict[str, Any]:
    wanted = {name: method.__annotations__[name] for name in [*names, "return"]}
    holder = types.SimpleNamespace(__annotations__=wanted)
    try:
        return typing.get_type_hints(holder, method.__globals__, dict(local_names), include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"{where} names the type {error.name}, which does not exist when the class is defined: "
            "define or import it before the class, outside TYPE_CHECKING"
        ) from None


def _parameter(where: str, parameter: inspect.Parameter, annotation: Any) -> Parameter:
    bare, transient = _strip_transient(annotation)
    required = parameter.default is parameter.empty
    return Parameter(
        name=parameter.name,
        annotation=bare,
        codec=_codec(where, f"parameter {parameter.name}", bare),
        transient=transient,
        required=required,
        default=None if required else parameter.default,
    )


def _codec(where: str, what: str, annotation: Any, *, result: bool = False) -> Codec[Any]:
    try:
        return codec_for(annotation, result=result)
    except Unfit as unfit:
        raise DefinitionError(f"{where}: {what} cannot travel: {unfit}") from None


def _strip_transient(annotation: Any) -> tuple[Any, bool]:
    marks = _metadata(annotation)
    if not any(isinstance(mark, TransientMarker) for mark in marks):
        return annotation, False
    kept = [mark for mark in marks if not isinstance(mark, TransientMarker)]
    base = get_args(annotation)[0]
    return (Annotated[base, *kept] if kept else base), True


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _base(annotation: Any) -> Any:
    """The type below Annotated, NewType and type aliases; optional and union types stay as they are."""
    from pydantic import JsonValue

    while True:
        if annotation is JsonValue:
            return Any  # its own definition allows floats, which the JSON reader refuses
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def _is_set(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, AbstractSet) and kind is not object
