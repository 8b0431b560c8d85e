"""A streaming call to one gateway: opened, read, and ended without a trace. Deliver and ChaincodeEvents rest on it."""

from __future__ import annotations

import time
from typing import Final

from sovchain.client._calls import Replies
from sovchain.client._connection import Connection
from sovchain.client._endpoint import CallFailed, Endpoint, is_overload
from sovchain.client._status import failure_of
from sovchain.client.errors import RpcFailure
from sovchain.rpc.errors import RpcError

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
        self._call: Replies | None = None
        self._began = False
        self._opened = time.monotonic()

    async def open(self, request: bytes) -> None:
        """Send the request. Raises StreamBroken, GatewayClosed."""
        try:
            await self.endpoint.stream_begins(slot=self._of_gateway, timeout_s=OPEN_S)
        except CallFailed as failed:
            raise StreamBroken(failed.failure) from None
        self._began = True
        # Deliver would take further requests on the same stream, which nobody needs: this side ends with the first.
        try:
            self._call = await self.endpoint.open_stream(self._path, request)
        except RpcError as error:
            raise self._broken(error) from None

    async def read(self) -> bytes:
        """The next message. Raises StreamBroken, GatewayClosed."""
        if self._call is None:
            raise self._ended("CANCELLED", "the stream is not open")
        try:
            data = await self._call.read()
        except RpcError as error:
            raise self._broken(error) from None
        if data is None:
            raise self._ended("UNAVAILABLE", "the peer ended the stream")
        self.endpoint.hear()
        return data

    def close(self) -> None:
        """End the call. May be called more than once."""
        if self._call is not None:
            self._call.cancel()
        if self._began:
            self._began = False
            self.endpoint.stream_ends(slot=self._of_gateway)

    def _broken(self, error: RpcError) -> Exception:
        """What to raise for an error of the channel. Raises GatewayClosed when it was closed with the gateway."""
        if not error.told and error.status == "CANCELLED":
            # The call was ended from this side: with the gateway, by `close`, or with a connection that was left.
            self._connection.order()
            return self._ended("CANCELLED", "the stream was ended")
        failure = failure_of(error, self.endpoint.address, time.monotonic() - self._opened)
        if failure.status == "UNAVAILABLE":
            self.endpoint.away()
        return StreamBroken(failure)

    def _ended(self, status: str, text: str) -> StreamBroken:
        return StreamBroken(RpcFailure(status, text, (), self.endpoint.address, time.monotonic() - self._opened))


def reconnect_pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row, from 1."""
    return RECONNECT_PAUSES_S[min(failures, len(RECONNECT_PAUSES_S)) - 1]
