"""What a gateway attaches to a failed call: google.rpc.Status with gateway.ErrorDetail in grpc-status-details-bin."""

from __future__ import annotations

from collections.abc import Iterator

from fabric_protos.gateway import gateway_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from sovchain.client._text import bounded
from sovchain.client.errors import ErrorDetail, RpcFailure
from sovchain.rpc.errors import RpcError

DETAILS_MAX = 64
_TYPE_NAME = "gateway.ErrorDetail"


def failure_of(error: RpcError, endpoint: str, elapsed_s: float) -> RpcFailure:
    """How a call failed, from the error that the channel raised."""
    details = _details(error.details)
    return RpcFailure(error.status, bounded(error.message), details, endpoint, elapsed_s, error.unprocessed)


def _details(status: bytes) -> tuple[ErrorDetail, ...]:
    found: list[ErrorDetail] = []
    try:
        for number, value in _delimited_fields(status):
            if number != 3:  # google.rpc.Status.details
                continue
            item = AnyMessage.FromString(value)
            if item.type_url.rpartition("/")[2] == _TYPE_NAME and len(found) < DETAILS_MAX:
                detail = gateway_pb2.ErrorDetail.FromString(item.value)
                found.append(ErrorDetail(bounded(detail.address), bounded(detail.msp_id), bounded(detail.message)))
    except (DecodeError, ValueError, IndexError):
        pass  # What was well formed up to here is still worth telling; the status itself came another way.
    return tuple(found)


def _delimited_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message. google.rpc.Status has three fields, too few for a dependency."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            _, at = _varint(data, at)
        elif tag & 7 == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field is torn")
            yield tag >> 3, data[at : at + length]
            at += length
        else:
            raise ValueError("a field has a type that the message does not use")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")
