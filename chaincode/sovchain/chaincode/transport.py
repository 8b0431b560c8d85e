"""gRPC streams over asyncio: connections that listen or dial, TLS, keepalive, and the end of a connection.

`http2` knows the bytes; here they meet a socket. What a connection has to say is collected until the event loop turns, so
that messages of several transactions leave in one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sovchain.chaincode.errors import ServiceError, StreamError
from sovchain.chaincode.grpcstream import Stream
from sovchain.chaincode.http2 import Connection
from sovchain.chaincode.log import Log, frames
from sovchain.chaincode.wire import UNIMPLEMENTED

MAX_CONNECTIONS = 256
"""Connections that one service takes at a time; further ones are closed at once."""
FAREWELL_S = 5.0
"""Longest time to send what is left on a connection that has failed, and for the end of TLS."""
MAX_QUEUED_ANSWERS = 10_000
"""Answers to PING and SETTINGS that may wait for a peer that does not read."""

log = Log("sovchain.chaincode.transport")


@dataclass(frozen=True, slots=True)
class Keepalive:
    """When a silent connection is given up.

    Attributes:
        idle_s: after this time without a byte from the other side it is asked for a sign of life, in seconds. Peers take
            no more than one such ping a minute (fabric, `peer.keepalive.minInterval`).
        timeout_s: and after this time without an answer the connection is closed, in seconds.
        setup_s: longest time for the TLS handshake, and for the first frame after it, in seconds.
    """

    idle_s: float = 60.0
    timeout_s: float = 20.0
    setup_s: float = 10.0


class GrpcProtocol(asyncio.Protocol):
    """One connection.

    Args:
        serves: whether this side takes streams, or opens one.
        keepalive: when to give a silent connection up.
        on_stream: called with each stream that the other side opens.
        on_lost: called once when the connection is gone.
    """

    def __init__(
        self,
        *,
        serves: bool,
        keepalive: Keepalive,
        on_stream: Callable[[Stream, GrpcProtocol], None] | None = None,
        on_lost: Callable[[GrpcProtocol], None] | None = None,
    ) -> None:
        self._keepalive = keepalive
        self._on_stream = on_stream
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._receiving = False
        self._paused = False
        self._heard = True
        self._timer: asyncio.TimerHandle | None = None
        self._setup_timer: asyncio.TimerHandle | None = None
        self._reason = "the connection to the peer was lost"
        self.closed = asyncio.Event()
        self._empty = asyncio.Event()
        self.connection = Connection(
            serves=serves, on_stream=self._open, on_output=self._wanted, on_empty=self._empty.set
        )

    # -- for the owner -----------------------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """Address of the other side."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"

    async def close(self, timeout_s: float = 5.0) -> None:
        """Send what is still to be sent within `timeout_s` seconds, then close."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.closed.wait()
            if not self.closed.is_set():
                self._transport.abort()

    async def drained(self, timeout_s: float) -> None:
        """Wait until all streams have ended, at most `timeout_s` seconds."""
        if self.connection.streams:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()

    # -- asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        # The transports of uvloop are none of asyncio's classes, though they do the same.
        self._transport = cast("asyncio.Transport", transport)
        self._setup_timer = self._loop.call_later(self._keepalive.setup_s, self._check_setup)
        self._timer = self._loop.call_later(self._keepalive.idle_s, self._check_idle)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._heard = True
        self._receiving = True
        try:
            self.connection.receive(data)
        except Exception as error:
            log.error("connection failed", trace=frames(error))
            self._abort("the chaincode runtime failed: its log says where")
        finally:
            self._receiving = False
            self._flush()

    def eof_received(self) -> None:
        """See `asyncio.Protocol`: the other side sends nothing more, so the connection is closed."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        for timer in (self._timer, self._setup_timer):
            if timer is not None:
                timer.cancel()
        if exc is not None and not self.connection.closed:
            self._reason = f"{self._reason}: {getattr(exc, 'strerror', None) or type(exc).__name__}"
        self.connection.lost(self._reason)
        self.closed.set()
        self._empty.set()
        if self._on_lost is not None:
            self._on_lost(self)

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`: the flow control of HTTP/2 bounds what may wait."""
        self._paused = True

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._paused = False
        self.connection.answers = 0

    # -- inside ------------------------------------------------------------------------------------------------------

    def _open(self, stream: Stream) -> None:
        self._empty.clear()
        if self._on_stream is not None:
            self._on_stream(stream, self)

    def _wanted(self) -> None:
        """The connection has something to say."""
        if not self._receiving and self._transport is not None:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._transport is None:
            return
        data = self.connection.output()
        if data:
            self._transport.write(data)
        if not self._paused:
            self.connection.answers = 0
        elif self.connection.answers > MAX_QUEUED_ANSWERS:
            self._abort("the peer asks and does not read the answers")
        if self.connection.closed and not self._transport.is_closing():
            self._transport.close()
            # A peer that does not read what is left must not keep the connection.
            self._loop.call_later(FAREWELL_S, self._transport.abort)

    def _abort(self, reason: str) -> None:
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def _check_setup(self) -> None:
        if not self.connection.settled:
            self._abort("the other side did not begin to speak HTTP/2 in time")

    def _check_idle(self) -> None:
        if self._heard:
            self._heard = False
            self._timer = self._loop.call_later(self._keepalive.idle_s, self._check_idle)
            return
        self.connection.ping()
        self._timer = self._loop.call_later(self._keepalive.timeout_s, self._check_alive)

    def _check_alive(self) -> None:
        if not self._heard:
            self._abort(f"the peer gave no sign of life for {self._keepalive.timeout_s:g} seconds")
            return
        self._heard = False
        self._timer = self._loop.call_later(self._keepalive.idle_s, self._check_idle)


class GrpcServer:
    """Listens, and hands each stream for `path` to `on_stream`.

    Args:
        address: `host:port` (port 0 for a free one, no host for all addresses) or `unix:/path`.
        path: the method that is served, such as `/protos.Chaincode/Connect`.
        on_stream: called with each accepted stream and its connection.
        tls: None for plain text.
        keepalive: when to give a silent connection up.
    """

    def __init__(
        self,
        address: str,
        path: str,
        on_stream: Callable[[Stream, GrpcProtocol], None],
        *,
        tls: ssl.SSLContext | None,
        keepalive: Keepalive,
    ) -> None:
        self._address = address
        self._path = path
        self._on_stream = on_stream
        self._tls = tls
        self._keepalive = keepalive
        self._server: asyncio.Server | None = None
        self._connections: set[GrpcProtocol] = set()

    @property
    def address(self) -> str:
        """Where it listens; with the real port once it was started."""
        if self._server is None or self._address.startswith("unix:"):
            return self._address
        return f"{self._address.rpartition(':')[0]}:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        """Listen. Raises ServiceError."""
        loop = asyncio.get_running_loop()
        setup_s, farewell_s = (None, None) if self._tls is None else (self._keepalive.setup_s, FAREWELL_S)
        try:
            if self._address.startswith("unix:"):
                self._server = await loop.create_unix_server(
                    self._protocol,
                    self._address[5:],
                    ssl=self._tls,
                    ssl_handshake_timeout=setup_s,
                    ssl_shutdown_timeout=farewell_s,
                )
            else:
                host, port = split_address(self._address)
                self._server = await loop.create_server(
                    self._protocol,
                    host or None,
                    port,
                    ssl=self._tls,
                    ssl_handshake_timeout=setup_s,
                    ssl_shutdown_timeout=farewell_s,
                )
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {self._address}: {error.strerror or error}: choose an address that is free and of "
                "this machine"
            ) from None

    def refuse_connections(self) -> None:
        """Listen no more, and take no more streams; those that are open go on."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.connection.go_away()

    async def stop(self, grace_s: float) -> None:
        """Wait `grace_s` seconds for open streams to end, then close all connections."""
        self.refuse_connections()
        connections = list(self._connections)
        await asyncio.gather(*(connection.drained(grace_s) for connection in connections))
        await asyncio.gather(*(connection.close() for connection in connections))

    def _protocol(self) -> GrpcProtocol:
        return _Accepted(self)

    def accept(self, stream: Stream, connection: GrpcProtocol) -> None:
        """Take a stream that a client has opened."""
        if stream.path != self._path:
            stream.finish(UNIMPLEMENTED, f"this service has only {self._path}")
            return
        connection.connection.accept(stream)
        self._on_stream(stream, connection)


class _Accepted(GrpcProtocol):
    """A connection that was accepted."""

    def __init__(self, server: GrpcServer) -> None:
        super().__init__(serves=True, keepalive=server._keepalive, on_stream=server.accept)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self._server._connections) >= MAX_CONNECTIONS:
            log.warning("connection refused", reason=f"{MAX_CONNECTIONS} are open")
            cast("asyncio.Transport", transport).abort()
            return
        self._server._connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._connections.discard(self)
        super().connection_lost(exc)


async def dial(
    address: str, *, tls: ssl.SSLContext | None, server_name: str | None, keepalive: Keepalive
) -> GrpcProtocol:
    """Connect to `host:port` or `unix:/path`.

    Raises:
        StreamError: nobody listens there, or the two sides do not trust each other.
    """
    loop = asyncio.get_running_loop()

    def protocol() -> GrpcProtocol:
        return GrpcProtocol(serves=False, keepalive=keepalive)

    try:
        if address.startswith("unix:"):
            name = (server_name or "localhost") if tls is not None else None
            _, made = await loop.create_unix_connection(protocol, address[5:], ssl=tls, server_hostname=name)
            return made
        host, port = split_address(address)
        name = (server_name or host) if tls is not None else None
        _, made = await loop.create_connection(protocol, host, port, ssl=tls, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raise StreamError(
            f"the certificate of the peer at {address} is not trusted: {error.verify_message}: check the tls roots and "
            "the host name"
        ) from None
    except (OSError, ServiceError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
        raise StreamError(f"cannot reach the peer at {address}: {reason}") from None
    return made


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, where an IPv6 address stands in brackets. Raises ServiceError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ServiceError(f"{address} is no address: write host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
