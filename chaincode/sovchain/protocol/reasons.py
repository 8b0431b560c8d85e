"""Why a transaction is not valid, in a message that has no place for it.

Fabric's CommitStatusResponse has a code and a block. The embedded ledger puts the reason into a field of a number that
Protocol Buffers leaves to those who use it within their own house (50000 to 99999), where other clients pass over it. Its
filtered blocks say in the same way that there is a reason to ask for, and not which: they hold no keys.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-not-found]  # types-protobuf lacks it

from sovchain.protocol.varint import encode_varint

REASON_FIELD: Final = 50_017
_TOLD_FIELD: Final = 50_018
REASONS_TOLD: Final = encode_varint(_TOLD_FIELD << 3) + b"\x01"
"""The field that says of a serialised message that reasons can be asked for."""
MAX_REASON_CHARACTERS: Final = 2_000
_LENGTH_DELIMITED: Final = 2


def encoded_reason(reason: str) -> bytes:
    """The field, to be put behind a serialised message; nothing for no reason."""
    if not reason:
        return b""
    text = reason[:MAX_REASON_CHARACTERS].encode()
    return encode_varint(REASON_FIELD << 3 | _LENGTH_DELIMITED) + encode_varint(len(text)) + text


def tells_reasons(message: Message) -> bool:
    """Whether a parsed message has the field `REASONS_TOLD`."""
    return any(field.field_number == _TOLD_FIELD for field in UnknownFieldSet(message))


def reason_in(message: Message) -> str:
    """The reason in a parsed message, "" if it holds none."""
    for field in UnknownFieldSet(message):
        if field.field_number == REASON_FIELD and isinstance(field.data, bytes):
            return field.data.decode("utf-8", "replace")[:MAX_REASON_CHARACTERS]
    return ""
