"""How a model is kept in state: its key fields, its indexes, its version, and the migrations from older versions.

    @record(key="number", indexes={"by_custodian": ("custodian", "state")}, version=2, migrations={1: add_origin})
    class Waybill(BaseModel): ...

A record lies under the composite key of its type and key fields; an index entry under the composite key of the type, `~`,
the index, the indexed fields and the key fields. Parts of keys keep the order of their values: text as it is, integers
padded, times with microseconds in UTC. A part that may be None is marked, so that None is no text.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, get_args, get_origin

from sovchain.chaincode.errors import DefinitionError, RecordError

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")
Document = dict[str, Any]
Migration = Callable[[Document], Document]
"""Makes the document of the next version from that of one version; it must come to the same result everywhere."""

VERSION_FIELD: Final = "$version"
"""Where a stored document says its version; version 1 says nothing."""
SALT_FIELD: Final = "$salt"
"""Where a private document keeps its salt."""
MAX_VERSION: Final = 1_000

_ATTRIBUTE: Final = "__sovchain_record__"
_INTEGER_DIGITS: Final = 16
_ABSENT: Final = "-"
_PRESENT: Final = "="


@dataclass(frozen=True, slots=True)
class RecordType:
    """What `record` says of a model."""

    name: str
    key: tuple[str, ...]
    indexes: Mapping[str, tuple[str, ...]]
    version: int
    migrations: Mapping[int, Migration]
    optional: frozenset[str]

    def key_parts(self, values: Sequence[Any]) -> list[str]:
        """Parts of a key from the first values of the key fields.

        Raises:
            RecordError: more values than fields, or one that cannot be part of a key.
        """
        return self._parts(self.key, values)

    def index_parts(self, index: str, values: Sequence[Any]) -> list[str]:
        """Parts of an index entry from the first values of the indexed fields.

        Raises:
            RecordError: there is no such index, or as for `key_parts`.
        """
        fields = self.indexes.get(index)
        if fields is None:
            raise RecordError(f"record {self.name} has no index {index}; it has {', '.join(self.indexes) or 'none'}")
        return self._parts(fields, values)

    def index_name(self, index: str) -> str:
        """Object type of an index's entries."""
        return f"{self.name}~{index}"

    def key_of(self, record: BaseModel) -> list[str]:
        """Parts of the key of a record."""
        return self.key_parts([getattr(record, field) for field in self.key])

    def index_entries(self, record: BaseModel) -> list[tuple[str, list[str]]]:
        """Object type and parts of every index entry of a record."""
        own = self.key_of(record)
        return [
            (self.index_name(index), [*self.index_parts(index, [getattr(record, name) for name in fields]), *own])
            for index, fields in self.indexes.items()
        ]

    def current(self, document: Document, stored_version: int) -> Document:
        """The document in the version of this contract.

        Raises:
            RecordError: a newer contract wrote it.
        """
        if stored_version > self.version:
            raise RecordError(
                f"a record {self.name} has version {stored_version}, this contract knows {self.version}: upgrade it"
            )
        for version in range(stored_version, self.version):
            document = self.migrations[version](document)
        return document

    def _parts(self, fields: tuple[str, ...], values: Sequence[Any]) -> list[str]:
        if len(values) > len(fields):
            raise RecordError(f"record {self.name}: {len(values)} values for the fields {', '.join(fields)}")
        return [
            _optional_part(value) if field in self.optional else _part(value)
            for field, value in zip(fields, values, strict=False)
        ]


def record(
    *,
    key: str | Sequence[str],
    name: str | None = None,
    indexes: Mapping[str, str | Sequence[str]] | None = None,
    version: int = 1,
    migrations: Mapping[int, Migration] | None = None,
) -> Callable[[type[M]], type[M]]:
    """Say how a pydantic model is kept in state; then `ctx.records(Model)` reads and writes it.

    Args:
        key: the field, or fields, that name a record; text, integers, booleans, enums, dates or times.
        name: first part of the keys in state; the name of the class if not given. It stays the same for ever.
        indexes: by name, the field or fields that records are found by.
        version: version of the model; raise it by one when stored documents would no longer be read as they are.
        migrations: for each earlier version, what makes the next one's document of it.

    Raises:
        DefinitionError: a field does not exist or cannot be part of a key, or a migration is missing.
    """

    def declare(model: type[M]) -> type[M]:
        fields = _names(key)
        indexed = {index: _names(names) for index, names in (indexes or {}).items()}
        _check_fields(model, fields, indexed)
        if not 1 <= version <= MAX_VERSION:
            raise DefinitionError(f"the version of record {model.__name__} is a number from 1 to {MAX_VERSION}")
        given = dict(migrations or {})
        if sorted(given) != list(range(1, version)):
            wanted = ", ".join(map(str, range(1, version))) or "none"
            raise DefinitionError(f"record {model.__name__} of version {version} takes migrations from: {wanted}")
        optional = frozenset(field for field in model.model_fields if _is_optional(model, field))
        if optional.intersection(fields):
            raise DefinitionError(f"a key field of record {model.__name__} may be None: only indexed fields may")
        setattr(model, _ATTRIBUTE, RecordType(name or model.__name__, fields, indexed, version, given, optional))
        return model

    return declare


def record_type(model: type[BaseModel]) -> RecordType:
    """What `record` said of a model. A model derived from it has to say it itself.

    Raises:
        DefinitionError: nothing.
    """
    found = model.__dict__.get(_ATTRIBUTE)
    if found is None:
        raise DefinitionError(f"{model.__name__} is no record: put @record(key=...) above the class")
    return cast("RecordType", found)


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _check_fields(model: type[BaseModel], key: tuple[str, ...], indexes: Mapping[str, tuple[str, ...]]) -> None:
    if not key or not all(indexes.values()):
        raise DefinitionError(f"record {model.__name__}: a key and an index have at least one field")
    for field in (*key, *(name for fields in indexes.values() for name in fields)):
        if field not in model.model_fields:
            raise DefinitionError(f"record {model.__name__} has no field {field}")
        for kind in _kinds(model.model_fields[field].annotation):
            if not (isinstance(kind, type) and issubclass(kind, str | int | date | Enum)):
                name = getattr(kind, "__name__", str(kind))
                raise DefinitionError(
                    f"record {model.__name__}: field {field} of type {name} has no place in a key; "
                    "use text, an integer, a boolean, an enum, a date or a time"
                )


def _kinds(annotation: Any) -> list[Any]:
    """The plain types of an annotation, without None."""
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    if origin is typing.Literal:
        return [type(value) for value in get_args(annotation)]
    if annotation is type(None) or annotation is None:
        return []
    if isinstance(annotation, typing.NewType):
        return _kinds(annotation.__supertype__)
    return [annotation]


def _is_optional(model: type[BaseModel], field: str) -> bool:
    annotation = model.model_fields[field].annotation
    return get_origin(annotation) in (typing.Union, types.UnionType) and type(None) in get_args(annotation)


def _optional_part(value: Any) -> str:
    return _ABSENT if value is None else _PRESENT + _part(value)


def _part(value: Any) -> str:
    """Text of a value whose order is that of the values of its type."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise RecordError("a time in a key has no time zone: give it one, such as datetime.UTC")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    if isinstance(value, date):
        return value.isoformat()
    raise RecordError(f"a value of type {type(value).__name__} has no place in a key")


def _integer(value: int) -> str:
    if abs(value) >= 10**_INTEGER_DIGITS:
        raise RecordError(f"an integer in a key has at most {_INTEGER_DIGITS} digits")
    if value < 0:  # "-" comes before the digits, and the complement turns the order of the negative ones round
        return f"-{10**_INTEGER_DIGITS - 1 + value:0{_INTEGER_DIGITS}d}"
    return f"{value:0{_INTEGER_DIGITS}d}"
