"""The constants and the smallest parts of HTTP/2 and gRPC, for `http2` and `grpcstream`.

Sources: RFC 9113 (HTTP/2), grpc/doc/PROTOCOL-HTTP2.md and statuscodes.md.
"""

from __future__ import annotations

import struct
from typing import Final

MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
"""Largest gRPC message, either way (fabric-chaincode-go/shim/internal/client.go)."""
MAX_STREAMS: Final = 16
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
ENHANCE_YOUR_CALM = 0xB

# gRPC status codes.
OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 8, 12, 13

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


class Fault(Exception):
    """The other side broke HTTP/2: the connection ends with this error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
