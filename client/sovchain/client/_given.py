"""A gRPC channel of the user's own, as an endpoint uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs does not know it

from sovchain.client._calls import Replies
from sovchain.rpc.errors import RpcError
from sovchain.rpc.wire import CANCELLED, Headers

_UNSENT = "failed to connect to all addresses"
"""What gRPC's C core says of a call for which it has no connection."""


def own_task_is_cancelled() -> bool:
    """Whether somebody cancelled the running task, as opposed to a gRPC call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _identity(data: bytes) -> bytes:
    return data


def rpc_error_of(error: grpc.aio.AioRpcError) -> RpcError:
    """The same failure of a call."""
    details = b""
    for key, value in cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()):
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            details = value
    text = error.details() or ""
    return RpcError(text, error.code().value[0], details, unprocessed=text.startswith(_UNSENT))


class GivenChannel:
    """Calls over a gRPC channel of the user's, which is neither replaced nor closed."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._unary: dict[str, Any] = {}

    async def unary(self, path: str, request: bytes, timeout_s: float, metadata: Headers | None = None) -> bytes:
        """See `Calls.unary`."""
        method = self._unary.get(path)
        if method is None:
            method = self._unary[path] = self._channel.unary_unary(path, _identity, _identity)
        said = [(name.decode(), value.decode()) for name, value in metadata or ()]
        try:
            reply: bytes = await method(request, timeout=timeout_s, metadata=said or None)
        except grpc.aio.AioRpcError as error:
            raise rpc_error_of(error) from None
        except asyncio.CancelledError:
            if own_task_is_cancelled():
                raise
            # gRPC ends the calls of a channel that is closed as if their tasks had been cancelled.
            raise RpcError("the channel was closed", CANCELLED) from None
        return reply

    async def stream(self, path: str, request: bytes) -> Replies:
        """See `Calls.stream`."""
        return _GivenReplies(self._channel.unary_stream(path, _identity, _identity)(request))

    async def ready(self) -> None:
        """See `Calls.ready`."""
        await self._channel.channel_ready()

    async def close(self) -> None:
        """Nothing: the channel is its maker's."""


class _GivenReplies:
    def __init__(self, call: Any) -> None:
        self._call = call

    async def read(self) -> bytes | None:
        try:
            data = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise rpc_error_of(error) from None
        except (asyncio.CancelledError, asyncio.InvalidStateError):
            if own_task_is_cancelled():
                raise asyncio.CancelledError from None
            raise RpcError("the call was ended", CANCELLED) from None
        return None if data is EOF else data

    def cancel(self) -> None:
        self._call.cancel()
