"""Numbers as protobuf writes them: seven bits a byte, the lowest first, the last byte below 0x80."""

from __future__ import annotations

__all__ = ["encode_varint"]


def encode_varint(number: int) -> bytes:
    """Return the shortest encoding of a number that is not negative."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
