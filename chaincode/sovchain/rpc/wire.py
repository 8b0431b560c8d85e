"""The constants and the smallest parts of HTTP/2 and gRPC, for `http2` and `stream`.

Sources: RFC 9113 (HTTP/2), grpc/doc/PROTOCOL-HTTP2.md and statuscodes.md.
"""

from __future__ import annotations

import struct
from typing import Final

MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
"""Largest gRPC message, either way (fabric-chaincode-go/shim/internal/client.go)."""
MAX_STREAMS: Final = 16
"""Streams at a time that a server takes on one connection, unless it says otherwise."""
MAX_HEADER_BYTES: Final = 64 * 1024
MAX_ABANDONED_STREAMS: Final = 1000
"""Streams that the other side may cancel on one connection (rapid reset, CVE-2023-44487)."""
MAX_EMPTY_FRAMES: Final = 1000
"""Frames in a row that may carry nothing."""
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Frame types and flags (RFC 9113, section 6).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20

# Error codes (section 7).
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x2, 0x3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 0x5, 0x6, 0x7, 0x8, 0x9
ENHANCE_YOUR_CALM, INADEQUATE_SECURITY = 0xB, 0xC

STATUS_NAMES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC status codes, by their number."""
OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 0, 1, 2, 4, 7, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16

SET_HEADER_TABLE_SIZE, SET_ENABLE_PUSH, SET_MAX_CONCURRENT, SET_INITIAL_WINDOW, SET_MAX_FRAME, SET_MAX_HEADER_LIST = (
    range(1, 7)
)
FRAME_BYTES = 16_384
MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
STREAM_WINDOW = 8 * 1024 * 1024
CONNECTION_WINDOW = 16 * 1024 * 1024
HEAD = struct.Struct(">HBBBL")
SETTING = struct.Struct(">HL")
PREFIX = struct.Struct(">BL")

Headers = list[tuple[bytes, bytes]]
ANSWER: Final[Headers] = [(b":status", b"200"), (b"content-type", b"application/grpc")]


def status_name(code: int) -> str:
    """The name of a gRPC status code; one that gRPC does not know is UNKNOWN (statuscodes.md)."""
    return STATUS_NAMES[code] if 0 <= code < len(STATUS_NAMES) else "UNKNOWN"


def header_block(headers: Headers) -> bytes:
    """HPACK of headers as literals that enter no table (RFC 7541, 6.2.2): the same bytes whenever they are sent."""
    block = bytearray()
    for name, value in headers:
        block.append(0)
        block += _length(len(name))
        block += name
        block += _length(len(value))
        block += value
    return bytes(block)


def _length(size: int) -> bytes:
    """An integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if size < 127:
        return bytes((size,))
    encoded, size = bytearray((127,)), size - 127
    while size >= 128:
        encoded.append(size % 128 | 128)
        size //= 128
    encoded.append(size)
    return bytes(encoded)


class Fault(Exception):
    """The other side broke HTTP/2: the connection ends with this error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
