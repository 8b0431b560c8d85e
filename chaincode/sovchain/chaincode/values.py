"""How parameters and results travel: one codec for each type, the same for arguments and results.

| type | on the wire |
|---|---|
| `str` | the text itself, UTF-8 |
| `int` | decimal text, at most 2**53-1 either way, as in JSON |
| `bool` | `true` or `false` |
| `Decimal` | decimal text without exponent |
| `datetime` | RFC 3339 in UTC: `2026-01-02T03:04:05Z`; another offset is converted, a missing one refused |
| `date` | `2026-01-02` |
| an enum of texts or integers, `Literal` | the text of the value |
| `bytes` | the bytes themselves, also as `Transient[bytes]` |
| anything else | canonical JSON (RFC 8785): models, dataclasses, lists, mappings, unions, `X | None` |
| `None` as a result | an empty payload |

Inside JSON, `bytes` are base64 or hex as the model's configuration says, and `Decimal` and `datetime` are the same texts
as outside (`exacttext`). Incoming JSON need not be canonical, but names may not repeat, and floats are refused. Reading is
strict: `"5"` is no integer.
Sets and floats are refused when the class is defined: their order or their rounding may differ between peers.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from sovchain.chaincode import exacttext
from sovchain.chaincode.errors import ArgumentError, ResultError
from sovchain.chaincode.exacttext import Mismatch

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=Enum)

MAX_INTEGER = 2**53 - 1
"""Largest integer that JSON carries exactly everywhere."""

_INTEGER = re.compile(rb"-?(0|[1-9][0-9]{0,15})")
_DATE = re.compile(rb"\d{4}-\d\d-\d\d")

# Messages of these kinds come from the schema alone. Others (value_error, union_tag_invalid, uuid_parsing, ...) may
# repeat what was sent, so that only their kind is told.
_TELLING = frozenset(
    {
        "missing",
        "extra_forbidden",
        "frozen_field",
        "none_required",
        "enum",
        "literal_error",
        "model_type",
        "model_attributes_type",
        "dict_type",
        "list_type",
        "tuple_type",
        "mapping_type",
        "string_type",
        "string_too_short",
        "string_too_long",
        "string_pattern_mismatch",
        "int_type",
        "bool_type",
        "decimal_type",
        "bytes_type",
        "date_type",
        "datetime_type",
        "time_type",
        "uuid_type",
        "is_instance_of",
        "dataclass_type",
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "multiple_of",
        "too_short",
        "too_long",
        "bytes_too_short",
        "bytes_too_long",
        "timezone_aware",
        "timezone_naive",
        "datetime_past",
        "datetime_future",
        "decimal_max_digits",
        "decimal_max_places",
        "decimal_whole_digits",
        "finite_number",
    }
)
_MAX_PROBLEMS = 3


class Codec(ABC, Generic[T_co]):
    """How values of one type travel."""

    @abstractmethod
    def pack(self, value: Any) -> bytes:
        """The bytes of a value. Raises Mismatch."""

    @abstractmethod
    def unpack(self, data: bytes) -> T_co:
        """The value of the bytes. Raises Mismatch."""

    @abstractmethod
    def schema(self) -> dict[str, Any] | TypeAdapter[Any]:
        """JSON schema of the value as it travels, or the adapter that knows it."""

    def encode_argument(self, name: str, value: Any) -> bytes:
        """The argument `name` on the wire.

        Raises:
            ArgumentError: the value is not of the type.
        """
        try:
            return self.pack(value)
        except Mismatch as mismatch:
            raise ArgumentError(name, str(mismatch)) from None

    def decode_argument(self, name: str, data: bytes) -> T_co:
        """The argument `name` from the wire.

        Raises:
            ArgumentError: the bytes do not stand for a value of the type.
        """
        try:
            return self.unpack(data)
        except Mismatch as mismatch:
            raise ArgumentError(name, str(mismatch)) from None

    def encode_result(self, value: Any) -> bytes:
        """A result on the wire.

        Raises:
            ResultError: the value is not of the type.
        """
        try:
            return self.pack(value)
        except Mismatch as mismatch:
            raise ResultError(f"the result {mismatch}") from None

    def decode_result(self, payload: bytes) -> T_co:
        """A result from the wire.

        Raises:
            ResultError: the payload does not stand for a value of the type.
        """
        try:
            return self.unpack(payload)
        except Mismatch as mismatch:
            raise ResultError(f"the result {mismatch}") from None


class Scalar(Codec[T]):
    """Base of the codecs whose values are text or bytes by themselves."""

    kind: ClassVar[str]
    json_schema: ClassVar[dict[str, Any]]

    def __init__(self, constraint: Any = None, names: frozenset[str] = frozenset()) -> None:
        self._constraint = constraint
        self._names = names

    @abstractmethod
    def to_wire(self, value: Any) -> bytes: ...

    @abstractmethod
    def from_wire(self, data: bytes) -> T: ...

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return _adapter(self._constraint)

    def _check(self, value: T) -> T:
        if self._constraint is None:
            return value
        from pydantic import ValidationError

        try:
            return self._adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise Mismatch(describe(error, self._names)) from None

    def pack(self, value: Any) -> bytes:
        return self.to_wire(self._check(value) if self._constraint is not None else value)

    def unpack(self, data: bytes) -> T:
        return self._check(self.from_wire(data))

    def schema(self) -> dict[str, Any] | TypeAdapter[Any]:
        return dict(self.json_schema) if self._constraint is None else self._adapter


class TextCodec(Scalar[str]):
    """`str`: the text itself."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "string"}

    def to_wire(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise Mismatch(f"is {_kind(value)}, not text")
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise Mismatch("holds a lone surrogate, which UTF-8 cannot carry") from None

    def from_wire(self, data: bytes) -> str:
        return _text(data)


class BytesCodec(Scalar[bytes]):
    """`bytes`: the bytes themselves."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "binary"}

    def to_wire(self, value: Any) -> bytes:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise Mismatch(f"is {_kind(value)}, not bytes")
        return bytes(value)

    def from_wire(self, data: bytes) -> bytes:
        return data


class IntegerCodec(Scalar[int]):
    """`int`: decimal text."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "integer"}

    def to_wire(self, value: Any) -> bytes:
        if not isinstance(value, int) or isinstance(value, bool):
            raise Mismatch(f"is {_kind(value)}, not an integer")
        if abs(value) > MAX_INTEGER:
            raise Mismatch("is beyond 2**53-1")
        return b"%d" % value

    def from_wire(self, data: bytes) -> int:
        if _INTEGER.fullmatch(data) is None or data == b"-0":
            raise Mismatch("is not an integer in decimal digits")
        value = int(data)
        if abs(value) > MAX_INTEGER:
            raise Mismatch("is beyond 2**53-1")
        return value


class BooleanCodec(Scalar[bool]):
    """`bool`: `true` or `false`."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "boolean"}

    def to_wire(self, value: Any) -> bytes:
        if not isinstance(value, bool):
            raise Mismatch(f"is {_kind(value)}, not true or false")
        return b"true" if value else b"false"

    def from_wire(self, data: bytes) -> bool:
        if data == b"true":
            return True
        if data == b"false":
            return False
        raise Mismatch("is not true or false")


class DecimalCodec(Scalar[Decimal]):
    """`Decimal`: decimal text without exponent, at most 64 digits before and after the point."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"}

    def to_wire(self, value: Any) -> bytes:
        if not isinstance(value, Decimal):
            raise Mismatch(f"is {_kind(value)}, not a Decimal")
        return exacttext.decimal_text(value).encode()

    def from_wire(self, data: bytes) -> Decimal:
        return exacttext.parse_decimal(_text(data))


class DatetimeCodec(Scalar[datetime]):
    """`datetime`: RFC 3339 in UTC."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "date-time"}

    def to_wire(self, value: Any) -> bytes:
        if not isinstance(value, datetime):
            raise Mismatch(f"is {_kind(value)}, not a datetime")
        return exacttext.time_text(value).encode()

    def from_wire(self, data: bytes) -> datetime:
        return exacttext.parse_time(_text(data))


class DateCodec(Scalar[date]):
    """`date`: year, month, day."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "date"}

    def to_wire(self, value: Any) -> bytes:
        if not isinstance(value, date) or isinstance(value, datetime):
            raise Mismatch(f"is {_kind(value)}, not a date")
        return value.isoformat().encode()

    def from_wire(self, data: bytes) -> date:
        if _DATE.fullmatch(data) is None:
            raise Mismatch("is not a date such as 2026-01-02")
        try:
            return date.fromisoformat(data.decode())
        except ValueError:
            raise Mismatch("is not an existing date") from None


class EnumCodec(Codec[E]):
    """An enum whose values are texts or integers: the text of the value."""

    def __init__(self, enum: type[E]) -> None:
        self._enum = enum
        self._by_wire = {str(member.value).encode(): member for member in enum}

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, self._enum):
            raise Mismatch(f"is {_kind(value)}, not a member of {self._enum.__name__}")
        return str(value.value).encode()

    def unpack(self, data: bytes) -> E:
        found = self._by_wire.get(data)
        if found is None:
            raise Mismatch(f"is not one of {', '.join(key.decode() for key in self._by_wire)}")
        return found

    def schema(self) -> dict[str, Any]:
        values = [member.value for member in self._enum]
        return {"type": "string" if isinstance(values[0], str) else "integer", "enum": values}


class NoneCodec(Codec[None]):
    """The result `None`: an empty payload."""

    def pack(self, value: Any) -> bytes:
        if value is not None:
            raise Mismatch(f"is {_kind(value)}, not None")
        return b""

    def unpack(self, data: bytes) -> None:
        if data not in (b"", b"null"):
            raise Mismatch("is not empty")

    def schema(self) -> dict[str, Any]:
        return {"type": "null"}


class JsonCodec(Codec[T]):
    """Everything that pydantic understands: canonical JSON out, strict JSON in."""

    def __init__(self, annotation: Any, names: frozenset[str] = frozenset()) -> None:
        self._annotation = annotation
        self._names = names

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return _adapter(self._annotation)

    @cached_property
    def _optional(self) -> bool:
        from pydantic import ValidationError

        try:
            return self._adapter.validate_python(None, strict=True) is None
        except ValidationError:
            return False

    @cached_property
    def _exact(self) -> bool:
        """Whether there may be a time or a decimal number in the value."""
        return exacttext.concerns(self._adapter.core_schema)

    def pack(self, value: Any) -> bytes:
        from pydantic_core import PydanticSerializationError

        from sovchain.protocol.canonical import canonical_json
        from sovchain.protocol.errors import ProtocolError

        try:
            plain = self._adapter.dump_python(value, mode="json", by_alias=True, warnings="error")
            if self._exact:
                plain = exacttext.outgoing(self._adapter.dump_python(value, by_alias=True, warnings="error"), plain)
        except (PydanticSerializationError, UnicodeEncodeError):
            raise Mismatch(f"is {_kind(value)}, not of the declared type") from None
        try:
            return canonical_json(plain)
        except ProtocolError as error:
            raise Mismatch(f"is not canonical JSON: {error}") from None

    def unpack(self, data: bytes) -> T:
        from pydantic import ValidationError

        from sovchain.protocol.canonical import canonical_json, parse_json
        from sovchain.protocol.errors import ProtocolError

        if not data:
            if self._optional:
                return cast("T", None)
            raise Mismatch("is empty, not JSON")
        try:
            sent = parse_json(data)
        except ProtocolError:
            # Its text may quote what was sent.
            raise Mismatch(
                "is not strict JSON: UTF-8, no name twice, no floats, integers of at most 2**53-1, at most 64 levels"
            ) from None
        try:
            found = self._adapter.validate_json(data, strict=True)
            if not self._exact:
                return found
            exact = exacttext.incoming(
                self._adapter.dump_python(found, by_alias=True, warnings=False), sent, self._names
            )
            return found if exact == sent else self._adapter.validate_json(canonical_json(exact), strict=True)
        except ValidationError as error:
            raise Mismatch(describe(error, self._names)) from None

    def encode_result(self, value: Any) -> bytes:
        if value is None and self._optional:
            return b""
        return super().encode_result(value)

    def schema(self) -> TypeAdapter[Any]:
        return self._adapter


def describe(error: ValidationError, names: frozenset[str]) -> str:
    """What pydantic found, without anything that was sent.

    Args:
        names: the field names of the type; other parts of a location may have come from the sender.
    """
    problems = []
    found = error.errors(include_url=False, include_context=False, include_input=False)
    for problem in found[:_MAX_PROBLEMS]:
        where = ".".join(str(part) if isinstance(part, int) or part in names else "*" for part in problem["loc"])
        what = problem["msg"] if problem["type"] in _TELLING else problem["type"]
        what = what[:1].lower() + what[1:]
        problems.append(f"{where}: {what}" if where else what)
    if len(found) > _MAX_PROBLEMS:
        problems.append(f"and {len(found) - _MAX_PROBLEMS} more")
    return "is not valid: " + "; ".join(problems)


def encode_value(value: Any) -> bytes:
    """A value outside a declared type: bytes and text as they are, anything else as canonical JSON.

    Raises:
        ResultError: the value is no JSON value (a float, a set, an object of an unknown kind).
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return TextCodec().encode_result(value)
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    from sovchain.protocol.canonical import canonical_json
    from sovchain.protocol.errors import ProtocolError

    if isinstance(value, set | frozenset):
        raise ResultError("the value is a set, whose order differs between peers: use a sorted list")
    try:
        plain = to_jsonable_python(value, by_alias=True, bytes_mode="base64")
        return canonical_json(exacttext.outgoing(_plain(value), plain))
    except Mismatch as error:
        raise ResultError(f"a part of the value {error}") from None
    except (PydanticSerializationError, ProtocolError):
        raise ResultError(f"the value is {_kind(value)}, not a JSON value without floats") from None


def _plain(value: Any) -> Any:
    """A value with its models and dataclasses as mappings."""
    from pydantic_core import SchemaSerializer, core_schema

    return SchemaSerializer(core_schema.any_schema()).to_python(value, by_alias=True)


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    try:
        # Bytes inside a list or a union have no model that could say how they travel.
        return TypeAdapter(annotation, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
    except PydanticUserError:
        return TypeAdapter(annotation)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Mismatch("is not UTF-8 text") from None


def _kind(value: Any) -> str:
    return f"of type {type(value).__name__}"
