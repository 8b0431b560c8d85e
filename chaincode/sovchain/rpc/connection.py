"""A connection on a socket: TLS, keepalive, and the end of it; and how one is dialled.

`http2` knows the bytes; here they meet asyncio. What a connection has to say is collected until the event loop turns, so
that messages of several calls leave in one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sovchain.rpc.errors import AddressError, RpcError
from sovchain.rpc.http2 import Connection, Limits
from sovchain.rpc.log import Log, frames
from sovchain.rpc.stream import Stream
from sovchain.rpc.wire import CANCELLED

FAREWELL_S = 5.0
"""Longest time to send what is left on a connection that has failed, and for the end of TLS."""
MAX_QUEUED_ANSWERS = 10_000
"""Answers to PING and SETTINGS that may wait for a peer that does not read."""

log = Log("sovchain.rpc.connection")


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
        limits: what this side takes.
        on_stream: called with each stream that the other side opens.
        on_ended: called with each stream that has ended on both sides.
        on_lost: called once when the connection is gone.
    """

    def __init__(
        self,
        *,
        serves: bool,
        keepalive: Keepalive,
        limits: Limits | None = None,
        on_stream: Callable[[Stream, GrpcProtocol], None] | None = None,
        on_ended: Callable[[Stream], None] | None = None,
        on_lost: Callable[[GrpcProtocol], None] | None = None,
    ) -> None:
        self._keepalive = keepalive
        self._on_stream = on_stream
        self._on_ended = on_ended
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._receiving = False
        self._paused = False
        self._draining: list[asyncio.Future[None]] = []
        self._heard = True
        self._timer: asyncio.TimerHandle | None = None
        self._setup_timer: asyncio.TimerHandle | None = None
        self._reason = "the connection was lost"
        self.closed = asyncio.Event()
        self._begun = asyncio.Event()
        self._empty = asyncio.Event()
        self.connection = Connection(
            serves=serves, on_stream=self._open, on_output=self._wanted, on_ended=self._stream_ended, limits=limits
        )

    # -- for the owner -----------------------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """Address of the other side."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"

    @property
    def client_certificate(self) -> bytes | None:
        """The certificate that the other side showed, as DER; None without one."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return cast("bytes | None", tls.getpeercert(binary_form=True)) if tls is not None else None

    async def begun(self) -> None:
        """Wait until the other side speaks HTTP/2. Raises RpcError when it ends the connection instead."""
        await self._begun.wait()
        if not self.connection.settled or self.connection.closed:
            raise RpcError(self._reason)

    @property
    def alpn_protocol(self) -> str | None:
        """What both sides have agreed on in the TLS handshake."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return cast("str | None", tls.selected_alpn_protocol()) if tls is not None else None

    @property
    def usable(self) -> bool:
        """Whether a new stream may be opened on it."""
        return not (self.connection.closed or self.connection.going_away)

    def abort(self, reason: str, code: int = CANCELLED) -> None:
        """End the connection at once; its streams end with this reason."""
        self.connection.lost(reason, code)
        self._abort(reason)

    async def drain(self) -> None:
        """Wait while the other side does not read what it was sent."""
        while self._paused and not self.closed.is_set():
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._draining.append(waiter)
            await waiter

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
            if self.connection.settled and not self._begun.is_set():
                self._begun.set()
        except Exception as error:
            log.error("connection failed", trace=frames(error))
            self._abort("this side failed: its log says where")
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
        self._begun.set()
        self._empty.set()
        self._release_writers()
        if self._on_lost is not None:
            self._on_lost(self)

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`: the flow control of HTTP/2 bounds what may wait for one stream."""
        self._paused = True
        if self.connection.serves and self._transport is not None:
            # Who does not read the answers asks no more: short calls have no flow control that would bound them.
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._paused = False
        self.connection.answers = 0
        if self.connection.serves and self._transport is not None:
            self._transport.resume_reading()
        self._release_writers()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _open(self, stream: Stream) -> None:
        self._empty.clear()
        if self._on_stream is not None:
            self._on_stream(stream, self)

    def _release_writers(self) -> None:
        while self._draining:
            waiter = self._draining.pop()
            if not waiter.done():
                waiter.set_result(None)

    def _stream_ended(self, stream: Stream) -> None:
        if not self.connection.streams:
            self._empty.set()
        if self._on_ended is not None:
            self._on_ended(stream)

    def _wanted(self) -> None:
        """The connection has something to say."""
        if self._transport is None:
            return
        if self.connection.much:
            self._flush()
        elif not self._receiving:
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
            self._abort("the other side asks and does not read the answers")
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
            self._abort(f"the other side gave no sign of life for {self._keepalive.timeout_s:g} seconds")
            return
        self._heard = False
        self._timer = self._loop.call_later(self._keepalive.idle_s, self._check_idle)


async def dial(
    address: str,
    *,
    tls: ssl.SSLContext | None,
    server_name: str | None,
    keepalive: Keepalive,
    limits: Limits | None = None,
    on_ended: Callable[[Stream], None] | None = None,
    on_lost: Callable[[GrpcProtocol], None] | None = None,
) -> GrpcProtocol:
    """Connect to `host:port` or `unix:/path`.

    Raises:
        RpcError: nobody listens there, or the two sides do not trust each other.
        AddressError: `address` is neither.
    """
    loop = asyncio.get_running_loop()

    def protocol() -> GrpcProtocol:
        return GrpcProtocol(serves=False, keepalive=keepalive, limits=limits, on_ended=on_ended, on_lost=on_lost)

    try:
        if address.startswith("unix:"):
            name = (server_name or "localhost") if tls is not None else None
            _, made = await loop.create_unix_connection(protocol, address[5:], ssl=tls, server_hostname=name)
            return made
        host, port = split_address(address)
        name = (server_name or host) if tls is not None else None
        # Of a host with several addresses the next one is tried while the first does not answer (RFC 8305).
        _, made = await loop.create_connection(
            protocol, host, port, ssl=tls, server_hostname=name, happy_eyeballs_delay=0.25
        )
    except ssl.SSLCertVerificationError as error:
        raise RpcError(
            f"the certificate of {address} is not trusted: {error.verify_message}: check the tls roots and "
            "the host name"
        ) from None
    except OSError as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
        raise RpcError(f"cannot reach {address}: {reason}") from None
    if tls is not None and made.alpn_protocol != "h2":
        made.abort("")
        raise RpcError(f"cannot use {address}: it does not offer HTTP/2")
    return made


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, where an IPv6 address stands in brackets. Raises AddressError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise AddressError(f"{address} is no address: write host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
