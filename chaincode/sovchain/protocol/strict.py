"""Strict reading of protobuf messages: nothing that another reader could understand otherwise."""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-not-found]  # no stub in protobuf 5

__all__ = ["has_unknown_fields"]


def has_unknown_fields(message: Message) -> bool:
    """Whether a message, or one inside it, has fields that its definition here does not know."""
    if len(UnknownFieldSet(message)):
        return True
    for descriptor, value in message.ListFields():
        if descriptor.type != descriptor.TYPE_MESSAGE:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            parts = [part for part in value.values() if isinstance(part, Message)]
        else:
            parts = value if descriptor.label == descriptor.LABEL_REPEATED else [value]
        if any(has_unknown_fields(part) for part in parts):
            return True
    return False
