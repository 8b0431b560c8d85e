"""gRPC failures as the Gateway reports them: a code, a text and one detail for each endpoint that was tried.

The details travel as `google.rpc.Status{code, message, details: Any[]}` in the trailing metadata
`grpc-status-details-bin`. The message has three fields, so it is encoded here instead of carrying a dependency for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
from fabric_protos.gateway import gateway_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message

from sovchain.protocol.varint import encode_varint
from sovchain.rpc.errors import RpcError

# Clients built on gRPC's C core refuse trailers beyond 8 KiB, at random up to 16 KiB. The text travels percent-encoded,
# three bytes for each that is not printable ASCII, and the details travel in base64 to some clients.
_MAX_TEXT_BYTES = 1536
_MAX_STATUS_BYTES = 4608
_MIN_DETAIL_BYTES = 160
_ELLIPSIS = "…"


class StatusError(Exception):
    """A call ends with this gRPC status.

    Attributes:
        code: gRPC status code.
        message: text of the status.
        details: messages for `grpc-status-details-bin`, as a rule gateway.ErrorDetail.
    """

    def __init__(self, code: grpc.StatusCode, message: str, details: Sequence[Message] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = tuple(details)


def error_detail(address: str, msp_id: str, message: str) -> gateway_pb2.ErrorDetail:
    """Return the detail for one endpoint. Mirrors internal/pkg/gateway/apiutils.go errorDetail."""
    return gateway_pb2.ErrorDetail(address=address, msp_id=msp_id, message=message)


def encode_status(code: int, message: str, details: Sequence[Message]) -> bytes:
    """Encode google.rpc.Status in at most 4.5 KiB: texts of details are cut, then details left out, from the last."""
    encoded = bytearray(b"\x08" + encode_varint(code))
    encoded += _length_delimited(2, message.encode())
    for index, detail in enumerate(details):
        share = (_MAX_STATUS_BYTES - len(encoded)) // (len(details) - index)
        field = _packed(detail)
        if len(field) > share and isinstance(detail, gateway_pb2.ErrorDetail):
            room = max(share, _MIN_DETAIL_BYTES) - (len(field) - len(detail.message.encode()))
            field = _packed(error_detail(detail.address, detail.msp_id, shorten(detail.message, room)))
        if len(encoded) + len(field) > _MAX_STATUS_BYTES:
            break
        encoded += field
    return bytes(encoded)


def rpc_error(error: StatusError) -> RpcError:
    """What ends a call with this status, details included."""
    text = shorten(error.message, _MAX_TEXT_BYTES, _percent_encoded_size)
    code: int = error.code.value[0]
    return RpcError(text, code, encode_status(code, text, error.details) if error.details else b"")


def _percent_encoded_size(character: str) -> int:
    if " " <= character <= "~" and character != "%":
        return 1
    return 3 * _utf8_size(character)


def _utf8_size(character: str) -> int:
    return len(character.encode())


def shorten(text: str, limit: int, size: Callable[[str], int] = _utf8_size) -> str:
    """Return as much of the beginning of `text` as `limit` bytes hold, with an ellipsis if something is left out.

    `size` gives the bytes that one character takes.
    """
    if sum(map(size, text)) <= limit:
        return text
    used, end = size(_ELLIPSIS), 0
    while end < len(text) and used + size(text[end]) <= limit:
        used += size(text[end])
        end += 1
    return text[:end] + _ELLIPSIS


def _packed(detail: Message) -> bytes:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return _length_delimited(3, packed.SerializeToString())


def _length_delimited(field: int, value: bytes) -> bytes:
    return encode_varint(field << 3 | 2) + encode_varint(len(value)) + value
