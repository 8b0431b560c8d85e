"""gRPC failures as the Gateway reports them: a code, a text and one detail for each endpoint that was tried.

The details travel as `google.rpc.Status{code, message, details: Any[]}` in the trailing metadata
`grpc-status-details-bin`. The message has three fields, so it is encoded here instead of carrying a dependency for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio
from fabric_protos.gateway import gateway_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message

DETAILS_METADATA_KEY = "grpc-status-details-bin"
_MAX_DETAILS_BYTES = 6 * 1024
"""Trailing metadata beyond 8 KiB is refused by gRPC peers with default settings; the rest is room for the text."""
_MAX_TEXT_CHARACTERS = 4096


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
    return gateway_pb2.ErrorDetail(address=address, msp_id=msp_id, message=_shorten(message))


def encode_status(code: int, message: str, details: Sequence[Message]) -> bytes:
    """Encode google.rpc.Status; details beyond 6 KiB in total are left out."""
    encoded = bytearray(b"\x08" + _varint(code))
    encoded += _length_delimited(2, message.encode())
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        field = _length_delimited(3, packed.SerializeToString())
        if len(encoded) + len(field) > _MAX_DETAILS_BYTES:
            break
        encoded += field
    return bytes(encoded)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: StatusError) -> NoReturn:
    """End the call with `error`, details included."""
    text = _shorten(error.message)
    if not error.details:
        await context.abort(error.code, text)
    status = encode_status(error.code.value[0], text, error.details)
    await context.abort(error.code, text, trailing_metadata=((DETAILS_METADATA_KEY, status),))
    raise AssertionError("abort returned")  # grpc raises; this line tells so to the type checker


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_TEXT_CHARACTERS else text[: _MAX_TEXT_CHARACTERS - 1] + "…"


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _length_delimited(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
