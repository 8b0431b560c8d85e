"""The side that answers calls: each call is a task of its own, which ends when its client does."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from sovchain.rpc.connection import GrpcProtocol, Keepalive
from sovchain.rpc.errors import RpcError
from sovchain.rpc.http2 import Limits
from sovchain.rpc.listener import Listener
from sovchain.rpc.log import Log, frames
from sovchain.rpc.stream import Stream
from sovchain.rpc.wire import CANCELLED, DEADLINE_EXCEEDED, INTERNAL, UNIMPLEMENTED

_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

log = Log("sovchain.rpc.server")


class Call:
    """One call, as the method sees that answers it.

    Attributes:
        path: what the client asked for, such as `/gateway.Gateway/Evaluate`.
    """

    def __init__(self, stream: Stream, connection: GrpcProtocol) -> None:
        self.path = stream.path
        self._stream = stream
        self._connection = connection
        self._requests: deque[bytes] = deque()
        self._complete = False
        self._waiter: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._expired = False
        stream.held = True

    @property
    def peer(self) -> str:
        """Where the client is: `host:port`, or `unix`."""
        return self._connection.peer

    @property
    def client_certificate(self) -> bytes | None:
        """The TLS certificate that the client showed, as DER."""
        return self._connection.client_certificate

    async def read(self) -> bytes | None:
        """The next request; None when the client sends no more."""
        while not self._requests:
            if self._complete:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        request = self._requests.popleft()
        self._stream.release(len(request))
        return request

    async def write(self, message: bytes) -> None:
        """Send a reply; waits while the client does not take what it was sent before."""
        if not self._stream.answered:
            self._connection.connection.accept(self._stream)
        self._stream.send(message)
        while self._stream.unsent_bytes and not self._stream.local_done:
            self._writer = asyncio.get_running_loop().create_future()
            self._stream.on_sent = self._sent
            await self._writer
        await self._connection.drain()

    # -- for the server ----------------------------------------------------------------------------------------------

    def begin(self, method: Method, on_done: Callable[[], None]) -> None:
        """Run the method; what it raises ends the call. `on_done` is called at the end of it."""
        loop = asyncio.get_running_loop()
        timeout = self._stream.metadata.get(b"grpc-timeout")
        timer = None if timeout is None else loop.call_later(_seconds(timeout), self._expire)
        self._task = task = loop.create_task(self._run(method))

        def done(_: asyncio.Task[None]) -> None:
            if timer is not None:
                timer.cancel()
            on_done()

        task.add_done_callback(done)
        self._stream.on_broken = self.end
        self._stream.open(self._take, self._client_ended)

    def end(self) -> None:
        """Cancel the call, if it still runs."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait for the end."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _run(self, method: Method) -> None:
        stream = self._stream
        try:
            await method(self)
        except RpcError as error:
            stream.finish(error.code, error.message, error.details)
        except asyncio.CancelledError:
            if self._expired:
                stream.finish(DEADLINE_EXCEEDED, "the time for the call is over")
            else:
                stream.finish(CANCELLED, "the server is stopping")
            raise
        except Exception as error:
            log.error("call failed", path=self.path, trace=frames(error))
            stream.finish(INTERNAL, "internal error")
        else:
            stream.finish()

    def _take(self, request: bytes) -> None:
        self._requests.append(request)
        _settle(self._waiter)

    def _client_ended(self, error: RpcError | None) -> None:
        self._complete = True
        _settle(self._waiter)
        _settle(self._writer)

    def _sent(self) -> None:
        _settle(self._writer)

    def _expire(self) -> None:
        self._expired = True
        self.end()


Method = Callable[[Call], Awaitable[None]]


class Server:
    """Serves methods on one address.

    Args:
        address: `host:port` (port 0 for a free one) or `unix:/path`.
        methods: by their path, such as `/gateway.Gateway/Evaluate`. A method ends its call by returning, or with the status
            of the RpcError that it raises; anything else that it raises is logged, without its text, and told as INTERNAL.
        tls: None for plain text.
        keepalive: when to give a silent connection up.
        limits: what each connection takes.
        max_connections: connections at a time; further ones are closed at once.
    """

    def __init__(
        self,
        address: str,
        methods: Mapping[str, Method],
        *,
        tls: ssl.SSLContext | None,
        keepalive: Keepalive | None = None,
        limits: Limits | None = None,
        max_connections: int = 256,
    ) -> None:
        self._methods = dict(methods)
        self._calls: set[Call] = set()
        self._listener = Listener(
            address,
            self._called,
            tls=tls,
            keepalive=keepalive or Keepalive(),
            limits=limits,
            max_connections=max_connections,
        )

    @property
    def address(self) -> str:
        """Where it listens; with the real port once it was started."""
        return self._listener.address

    async def start(self) -> None:
        """Listen. Raises AddressError."""
        await self._listener.start()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, let those that run end within `grace_s` seconds, cancel the others, and close."""
        self._listener.refuse_connections()
        if grace_s > 0 and self._calls:
            await asyncio.wait({asyncio.ensure_future(call.ended()) for call in self._calls}, timeout=grace_s)
        left = list(self._calls)
        for call in left:
            call.end()
        await asyncio.gather(*(call.ended() for call in left))
        await self._listener.stop(0)

    def _called(self, stream: Stream, connection: GrpcProtocol) -> None:
        method = self._methods.get(stream.path)
        if method is None:
            # As gRPC in Go says it, so that clients which look for it find it.
            service, _, name = stream.path.lstrip("/").rpartition("/")
            known = any(path.startswith(f"/{service}/") for path in self._methods)
            text = f"unknown method {name} for service {service}" if known else f"unknown service {service}"
            stream.finish(UNIMPLEMENTED, text)
            return
        call = Call(stream, connection)
        self._calls.add(call)
        call.begin(method, lambda: self._calls.discard(call))


def _seconds(timeout: bytes) -> float:
    """The value of a grpc-timeout header (PROTOCOL-HTTP2.md, Requests); a malformed one ends the call at once."""
    digits, unit = timeout[:-1], timeout[-1:]
    if not digits.isdigit() or len(digits) > 8 or unit not in _UNITS:
        return 0.0
    return int(digits) * _UNITS[unit]


def _settle(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
