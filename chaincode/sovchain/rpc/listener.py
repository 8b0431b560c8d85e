"""What listens: connections that clients open, and an orderly end of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, cast

from sovchain.rpc.connection import FAREWELL_S, GrpcProtocol, Keepalive, split_address
from sovchain.rpc.errors import AddressError
from sovchain.rpc.http2 import Limits
from sovchain.rpc.log import Log
from sovchain.rpc.stream import Stream

_CLOSE_S: Final = 0.5
"""Longest wait for the other side's farewell when everything ends."""

log = Log("sovchain.rpc.listener")


class Listener:
    """Listens, and hands each stream that a client opens to `on_stream`.

    Args:
        address: `host:port` (port 0 for a free one, no host for all addresses) or `unix:/path`.
        on_stream: called with each stream, which it accepts or ends, and its connection.
        tls: None for plain text.
        keepalive: when to give a silent connection up.
        limits: what each connection takes.
        max_connections: connections at a time; further ones are closed at once.
    """

    def __init__(
        self,
        address: str,
        on_stream: Callable[[Stream, GrpcProtocol], None],
        *,
        tls: ssl.SSLContext | None,
        keepalive: Keepalive,
        limits: Limits | None = None,
        max_connections: int = 256,
    ) -> None:
        self.max_connections = max_connections
        self._address = address
        self.on_stream = on_stream
        self._tls = tls
        self.keepalive = keepalive
        self.limits = limits
        self._server: asyncio.Server | None = None
        self.connections: set[GrpcProtocol] = set()

    @property
    def address(self) -> str:
        """Where it listens; with the real port once it was started."""
        if self._server is None or self._address.startswith("unix:"):
            return self._address
        return f"{self._address.rpartition(':')[0]}:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        """Listen. Raises AddressError."""
        loop = asyncio.get_running_loop()
        setup_s, farewell_s = (None, None) if self._tls is None else (self.keepalive.setup_s, FAREWELL_S)
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
            raise AddressError(
                f"cannot listen on {self._address}: {error.strerror or error}: choose an address that is free and of "
                "this machine"
            ) from None

    def refuse_connections(self) -> None:
        """Listen no more, and take no more streams; those that are open go on."""
        if self._server is not None:
            self._server.close()
        for connection in self.connections:
            connection.connection.go_away()

    async def stop(self, grace_s: float) -> None:
        """Wait `grace_s` seconds for open streams to end, then close all connections."""
        self.refuse_connections()
        connections = list(self.connections)
        await asyncio.gather(*(connection.drained(grace_s) for connection in connections))
        await asyncio.gather(*(connection.close(_CLOSE_S) for connection in connections))

    def _protocol(self) -> GrpcProtocol:
        return _Accepted(self)


class _Accepted(GrpcProtocol):
    """A connection that was accepted."""

    def __init__(self, server: Listener) -> None:
        super().__init__(serves=True, keepalive=server.keepalive, limits=server.limits, on_stream=server.on_stream)
        self._listener = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        most = self._listener.max_connections
        if len(self._listener.connections) >= most:
            log.warning("connection refused", reason=f"{most} are open")
            cast("asyncio.Transport", transport).abort()
            return
        self._listener.connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.connections.discard(self)
        super().connection_lost(exc)
