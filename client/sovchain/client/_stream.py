"""A streaming call to one gateway: opened, read, and ended without a trace. Deliver and ChaincodeEvents rest on it."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import grpc
import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs does not know it

from sovchain.client._connection import Connection
from sovchain.client._endpoint import CallFailed, Endpoint, is_overload, own_task_is_cancelled
from sovchain.client._status import failure_of
from sovchain.client.errors import RpcFailure

OPEN_S: Final = 5.0
"""How long a stream waits for a place among the calls to a gateway."""
RECONNECT_PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to take a broken stream up again; the last one is repeated."""
ATTEMPTS_MAX: Final = 30
"""Attempts in a row without a message after which a stream ends with its error."""
_PASSING: Final = frozenset({"UNAVAILABLE", "ABORTED", "CANCELLED"})


class StreamBroken(Exception):
    """The stream is over. `passing` tells whether it is worth taking it up again."""

    def __init__(self, failure: RpcFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.passing = failure.status in _PASSING or is_overload(failure)


class StreamCall:
    """One call with one request and many replies, as serialised messages."""

    def __init__(self, connection: Connection, endpoint: Endpoint, path: str, *, of_gateway: bool) -> None:
        self.endpoint = endpoint
        self._connection = connection
        self._path = path
        self._of_gateway = of_gateway
        self._call: Any = None
        self._began = False
        self._opened = time.monotonic()

    async def open(self, request: bytes) -> None:
        """Send the request. Raises StreamBroken, GatewayClosed."""
        try:
            await self.endpoint.stream_begins(slot=self._of_gateway, timeout_s=OPEN_S)
        except CallFailed as failed:
            raise StreamBroken(failed.failure) from None
        self._began = True
        # Deliver would take further requests on the same stream, which nobody needs: this side ends with the first. (A
        # stream that stays open on both sides also waits for ever in `write` when grpc.aio loses its connection there.)
        self._call = self.endpoint.open_stream(self._path)(request)

    async def read(self) -> bytes:
        """The next message. Raises StreamBroken, GatewayClosed."""
        try:
            data = await self._call.read()
        except (grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError) as error:
            raise self._broken(error) from None
        if data is EOF:
            raise self._ended("UNAVAILABLE", "the peer ended the stream")
        self.endpoint.hear()
        message: bytes = data
        return message

    def close(self) -> None:
        """End the call. May be called more than once."""
        if self._call is not None:
            self._call.cancel()
        if self._began:
            self._began = False
            self.endpoint.stream_ends(slot=self._of_gateway)

    def _broken(self, error: BaseException) -> BaseException:
        """What to raise for an error of gRPC: its own task's cancellation stays what it is."""
        if isinstance(error, grpc.aio.AioRpcError):
            failure = failure_of(error, self.endpoint.address, time.monotonic() - self._opened)
            if failure.status == "UNAVAILABLE":
                self.endpoint.away()
            return StreamBroken(failure)
        if own_task_is_cancelled():
            return asyncio.CancelledError()
        # The call was ended from outside this task: with the gateway, by `close`, or with a connection that was left.
        self._connection.order()
        return self._ended("CANCELLED", "the stream was ended")

    def _ended(self, status: str, text: str) -> StreamBroken:
        return StreamBroken(RpcFailure(status, text, (), self.endpoint.address, time.monotonic() - self._opened))


def reconnect_pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row, from 1."""
    return RECONNECT_PAUSES_S[min(failures, len(RECONNECT_PAUSES_S)) - 1]
