"""The client's side: a connection that is made when it is needed, calls with one reply, and calls with many.

A channel has one connection at a time. While none can be made, calls fail at once and the pause between attempts grows; a
connection whose server says that it goes away carries its calls to their end beside a new one.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from typing import Final, TypeVar

from sovchain.rpc.connection import GrpcProtocol, Keepalive, dial
from sovchain.rpc.errors import RpcError
from sovchain.rpc.http2 import Limits
from sovchain.rpc.stream import Stream
from sovchain.rpc.wire import CANCELLED, DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, Headers

CONNECT_S: Final = 20.0
"""Longest time for one attempt to connect (grpc/doc/connection-backoff.md, MIN_CONNECT_TIMEOUT)."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
"""The pause after the first attempt that failed, in seconds, and the longest one, to which it grows."""
_FAREWELL_S: Final = 0.5
_ATTEMPTS: Final = 3
"""How often a call is begun that no server has seen: a connection may end just when it is used."""
_T = TypeVar("_T")


class Channel:
    """Calls to one address.

    Args:
        address: `host:port` or `unix:/path`.
        tls: None for plain text.
        server_name: the name to expect in the server's certificate instead of the host of `address`.
        keepalive: when to give a silent connection up.
        limits: the largest message that is taken, and sent; how much one stream may hold.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        keepalive: Keepalive | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.address = address
        self._tls = tls
        self._server_name = server_name
        self._authority = server_name or ("localhost" if address.startswith("unix:") else address)
        self._keepalive = keepalive or Keepalive()
        self._limits = limits or Limits()
        self._protocol: GrpcProtocol | None = None
        self._open: set[GrpcProtocol] = set()
        self._connecting: asyncio.Task[GrpcProtocol] | None = None
        self._failure: RpcError | None = None
        self._next_attempt = 0.0
        self._failures = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    # -- calls -------------------------------------------------------------------------------------------------------

    async def unary(self, path: str, request: bytes, timeout_s: float, metadata: Headers | None = None) -> bytes:
        """One request, one reply.

        Args:
            path: the method, such as `/gateway.Gateway/Evaluate`.
            request: the message, serialised.
            timeout_s: longest time in all, in seconds; told to the server.
            metadata: further headers, with names in lower case.

        Raises:
            RpcError: the server ended the call with a status, or could not be reached, or the time is over.
        """
        self._check_size(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        for attempt in range(1, _ATTEMPTS + 1):
            protocol = self._protocol
            if protocol is None or not protocol.usable or protocol.connection.streams >= protocol.connection.max_open:
                protocol = await self._usable(deadline)
                timeout_s = max(deadline - loop.time(), 0.0)
            call = _Reply(loop.create_future())
            try:
                stream = protocol.connection.request(
                    path, self._authority, secure=self._tls is not None, timeout_s=timeout_s, metadata=metadata
                )
                stream.open(call.on_message, call.on_end)
                stream.send_last(request)
                timer = loop.call_at(deadline, call.expire, stream)
                try:
                    return await call.reply
                except asyncio.CancelledError:
                    stream.cancel()
                    raise
                finally:
                    timer.cancel()
                    if not stream.local_done:
                        stream.cancel()
            except RpcError as error:
                if not error.unprocessed or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def stream(self, path: str, request: bytes, metadata: Headers | None = None) -> Replies:
        """One request, many replies: read them from what is returned. Raises RpcError."""
        self._check_size(request)
        for attempt in range(1, _ATTEMPTS + 1):
            protocol = await self._usable(None)
            try:
                stream = protocol.connection.request(
                    path, self._authority, secure=self._tls is not None, metadata=metadata
                )
            except RpcError:
                if attempt == _ATTEMPTS:
                    raise
                continue
            replies = Replies(stream)
            stream.send_last(request)
            return replies
        raise AssertionError("the last attempt returns or raises")

    async def ready(self) -> None:
        """Wait until a connection stands, however many attempts that takes."""
        while True:
            try:
                await self._usable(None)
                return
            except RpcError:
                if self._closed:
                    raise
                await asyncio.sleep(max(self._next_attempt - asyncio.get_running_loop().time(), 0.01))

    async def close(self) -> None:
        """End all calls with the status CANCELLED, and the connection."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        while self._waiting:
            _settle(self._waiting.popleft())
        gone = list(self._open)
        for protocol in gone:
            protocol.connection.lost("the channel was closed", CANCELLED)
        await asyncio.gather(*(protocol.close(_FAREWELL_S) for protocol in gone))

    def _check_size(self, request: bytes) -> None:
        most = self._limits.message_bytes
        if len(request) > most:
            raise RpcError(f"the request has {len(request)} bytes, at most {most} are sent", RESOURCE_EXHAUSTED)

    # -- the connection ----------------------------------------------------------------------------------------------

    async def _usable(self, deadline: float | None) -> GrpcProtocol:
        """The connection, made if need be, with room for one more stream. Raises RpcError."""
        while True:
            protocol = self._protocol
            if protocol is None or not protocol.usable:
                protocol = await self._connected(deadline)
            if protocol.connection.streams < protocol.connection.max_open:
                return protocol
            room = asyncio.get_running_loop().create_future()
            self._waiting.append(room)
            await _within(room, deadline, "no stream ended that would have made room for this one")

    async def _connected(self, deadline: float | None) -> GrpcProtocol:
        if self._closed:
            raise RpcError("the channel was closed", CANCELLED)
        loop = asyncio.get_running_loop()
        if self._connecting is None:
            if self._failure is not None and loop.time() < self._next_attempt:
                raise self._unreachable(self._failure)
            self._connecting = loop.create_task(self._connect())
            self._connecting.add_done_callback(_retrieve)
        connecting = self._connecting
        try:
            return await _within(asyncio.shield(connecting), deadline, "no connection was made in time")
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if not connecting.cancelled() or (own is not None and own.cancelling()):
                raise
            raise RpcError("the channel was closed", CANCELLED) from None

    async def _connect(self) -> GrpcProtocol:
        try:
            async with asyncio.timeout(CONNECT_S):
                made = await dial(
                    self.address,
                    tls=self._tls,
                    server_name=self._server_name or None,
                    keepalive=self._keepalive,
                    limits=self._limits,
                    on_ended=self._stream_ended,
                    on_lost=self._lost,
                )
                try:
                    await made.begun()
                except BaseException:
                    made.abort("the other side did not begin to speak HTTP/2")
                    raise
        except (RpcError, TimeoutError, ValueError) as error:
            self._failure = (
                error if isinstance(error, RpcError) else RpcError(f"cannot reach {self.address}: no answer")
            )
            pause_s = min(FIRST_PAUSE_S * 2**self._failures, LONGEST_PAUSE_S)
            self._failures = min(self._failures + 1, 16)
            jitter = random.uniform(0.8, 1.2)  # noqa: S311 - spreads attempts, guards no secret
            self._next_attempt = asyncio.get_running_loop().time() + pause_s * jitter
            raise self._unreachable(self._failure) from None
        finally:
            self._connecting = None
        self._failure, self._failures = None, 0
        self._protocol = made
        self._open.add(made)
        return made

    @staticmethod
    def _unreachable(failure: RpcError) -> RpcError:
        """The failure of an attempt, anew for each call that it concerns."""
        return RpcError(failure.message, failure.code, unprocessed=True)

    def _lost(self, protocol: GrpcProtocol) -> None:
        self._open.discard(protocol)
        if self._protocol is protocol:
            self._protocol = None
        while self._waiting:
            _settle(self._waiting.popleft())

    def _stream_ended(self, stream: Stream) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # those that are have given up
                waiter.set_result(None)
                break
        if len(self._open) == 1 and self._protocol is not None and self._protocol.usable:
            return
        for protocol in [each for each in self._open if not each.usable and not each.connection.streams]:
            protocol.abort("the server went away", UNAVAILABLE)


class _Reply:
    """What comes for a call with one reply."""

    def __init__(self, reply: asyncio.Future[bytes]) -> None:
        self.reply = reply
        self._message: bytes | None = None

    def on_message(self, message: bytes) -> None:
        if self._message is None:
            self._message = message
        else:
            self._fail(RpcError("the server sent more than one reply", INTERNAL))

    def on_end(self, error: RpcError | None) -> None:
        if self.reply.done():
            return
        if error is not None:
            self._fail(error)
        elif self._message is None:
            self._fail(RpcError("the server ended the call without a reply", INTERNAL))
        else:
            self.reply.set_result(self._message)

    def expire(self, stream: Stream) -> None:
        self._fail(RpcError("the time for the call is over", DEADLINE_EXCEEDED))
        stream.cancel()

    def _fail(self, error: RpcError) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


class Replies:
    """The replies of one call, in order; the server is slowed down to the pace at which they are read."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._messages: deque[bytes] = deque()
        self._over: tuple[RpcError | None] | None = None
        self._reader: asyncio.Future[None] | None = None
        stream.held = True
        stream.open(self._take, self._end)

    async def read(self) -> bytes | None:
        """The next reply; None when the server has ended the call well. Raises RpcError."""
        while not self._messages:
            if self._over is not None:
                (error,) = self._over
                if error is not None:
                    raise error
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        message = self._messages.popleft()
        self._stream.release(len(message))
        return message

    def cancel(self) -> None:
        """End the call; what has come is dropped. May be called more than once."""
        self._messages.clear()
        self._stream.cancel()
        self._end(RpcError("the call was cancelled", CANCELLED))

    def _take(self, message: bytes) -> None:
        self._messages.append(message)
        self._wake()

    def _end(self, error: RpcError | None) -> None:
        if self._over is None:
            self._over = (error,)
            if not self._stream.local_done:
                self._stream.cancel()
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None:
            _settle(self._reader)


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _retrieve(task: asyncio.Task[GrpcProtocol]) -> None:
    """An attempt to connect that nobody waits for any more fails in silence: the next call hears of it."""
    if not task.cancelled():
        task.exception()


async def _within(waiter: asyncio.Future[_T], deadline: float | None, text: str) -> _T:
    try:
        async with asyncio.timeout_at(deadline):
            return await waiter
    except TimeoutError:
        raise RpcError(text, DEADLINE_EXCEEDED) from None
