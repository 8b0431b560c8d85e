"""The one text of a time and of a decimal number, on its own and inside JSON.

Pydantic reads and writes times with any offset or none, and decimal numbers with exponents: the same value would have several
texts, so that state, results and hashes of it differ. Inside JSON this module goes through what pydantic made of a value and
puts the exact texts in their places. Texts that a model's own serializers made are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import BaseModel

_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,63})(\.[0-9]{1,64})?", re.ASCII)
_DATETIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_CONCERNED: Final = frozenset({"datetime", "decimal", "any"})


class Mismatch(Exception):
    """A value is not of its type; the text never repeats the value."""


def time_text(moment: datetime) -> str:
    """A time as RFC 3339 in UTC, with microseconds only if there are any. Raises Mismatch."""
    if moment.utcoffset() is None:
        raise Mismatch("has no time zone: give it one, such as datetime.UTC")
    try:
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    except OverflowError:
        raise Mismatch("is not an existing time") from None


def parse_time(text: str) -> datetime:
    """The time of an RFC 3339 text, in UTC. Raises Mismatch."""
    if _DATETIME.fullmatch(text) is None:
        raise Mismatch("is not an RFC 3339 time such as 2026-01-02T03:04:05Z")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Mismatch("is not an existing time") from None


def decimal_text(value: Decimal) -> str:
    """A decimal number without exponent, of at most 64 digits before and after the point. Raises Mismatch."""
    # The exponent is looked at first: writing out 1E+1000000 would take a megabyte.
    if value.is_finite() and abs(value.adjusted()) <= 64:
        text = format(value, "f")
        if _DECIMAL.fullmatch(text) is not None:
            return text
    raise Mismatch("is not a finite decimal number of at most 64 digits before and after the point")


def parse_decimal(text: str) -> Decimal:
    """The number of a decimal text. Raises Mismatch."""
    if _DECIMAL.fullmatch(text) is None:
        raise Mismatch("is not a decimal number without exponent of at most 64 digits before and after the point")
    return Decimal(text)


def concerns(schema: Any) -> bool:
    """Whether a value of a pydantic core schema may have a time or a decimal number in it."""
    if isinstance(schema, Mapping):
        kind = schema.get("type")  # a table of fields has an entry of any name, which is no text
        return (isinstance(kind, str) and kind in _CONCERNED) or any(concerns(part) for part in schema.values())
    return isinstance(schema, list | tuple) and any(concerns(part) for part in schema)


@lru_cache(maxsize=4096)
def model_concerns(model: type[BaseModel]) -> bool:
    """`concerns` for a model."""
    return concerns(model.__pydantic_core_schema__)


def outgoing(value: Any, plain: Any) -> Any:
    """What pydantic made for JSON, with the exact texts.

    Args:
        value: the value with its models as mappings.
        plain: the same as pydantic writes it in JSON.

    Raises:
        Mismatch: a time has no zone, or a number has too many digits.
    """
    if isinstance(value, datetime | Decimal):
        return _text(value) if plain == _pydantics_text(value) else plain
    if isinstance(value, dict) and isinstance(plain, dict) and len(value) == len(plain):
        pairs = zip(value.items(), plain.items(), strict=True)
        return {outgoing(key, name): outgoing(part, written) for (key, part), (name, written) in pairs}
    if isinstance(value, list | tuple) and isinstance(plain, list) and len(value) == len(plain):
        return [outgoing(part, written) for part, written in zip(value, plain, strict=True)]
    return plain


def incoming(value: Any, sent: Any, names: frozenset[str], where: str = "") -> Any:
    """What was sent as JSON, with the exact texts where a time or a decimal number was read.

    Args:
        value: what pydantic read, with its models as mappings.
        sent: the JSON.
        names: the field names of the type; other names came from the sender and are not repeated.
        where: the place in the value, for the message.

    Raises:
        Mismatch: a time is not RFC 3339 with a zone, or a number has an exponent or too many digits.
    """
    if isinstance(value, datetime | Decimal):
        try:
            if not isinstance(sent, str):
                _text(value)
                return sent
            return _text(parse_time(sent) if isinstance(value, datetime) else parse_decimal(sent))
        except Mismatch as error:
            raise Mismatch(f"is not valid: {where}: {error}" if where else str(error)) from None
    if isinstance(value, dict):
        known = sent if isinstance(sent, dict) else {}
        read = {name: incoming(part, known.get(name), names, _at(where, name, names)) for name, part in value.items()}
        return {name: read.get(name, part) for name, part in sent.items()} if isinstance(sent, dict) else sent
    if isinstance(value, list | tuple):
        known_parts = sent if isinstance(sent, list) and len(sent) == len(value) else [None] * len(value)
        parts = [
            incoming(part, from_sender, names, _at(where, number, names))
            for number, (part, from_sender) in enumerate(zip(value, known_parts, strict=True))
        ]
        return parts if known_parts is sent else sent
    return sent


def _at(where: str, part: Any, names: frozenset[str]) -> str:
    said = str(part) if isinstance(part, int) or part in names else "*"
    return f"{where}.{said}" if where else said


def _text(value: datetime | Decimal) -> str:
    return time_text(value) if isinstance(value, datetime) else decimal_text(value)


def _pydantics_text(value: datetime | Decimal) -> Any:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)
