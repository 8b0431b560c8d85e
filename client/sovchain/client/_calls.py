"""What an endpoint needs of a channel: `sovchain.rpc.channel.Channel`, or one of the user's made to offer it (`_given`)."""

from __future__ import annotations

from typing import Protocol

from sovchain.rpc.wire import Headers


class Replies(Protocol):
    """The replies of one call: `sovchain.rpc.channel.Replies`."""

    async def read(self) -> bytes | None:
        """The next reply; None when the server has ended the call well. Raises RpcError."""
        ...

    def cancel(self) -> None:
        """End the call. May be called more than once."""
        ...


class Calls(Protocol):
    """Calls to one address: `sovchain.rpc.channel.Channel`."""

    async def unary(self, path: str, request: bytes, timeout_s: float, metadata: Headers | None = None) -> bytes:
        """One request, one reply. Raises RpcError."""
        ...

    async def stream(self, path: str, request: bytes) -> Replies:
        """One request, many replies. Raises RpcError."""
        ...

    async def ready(self) -> None:
        """Wait until a connection stands."""
        ...

    async def close(self) -> None:
        """End all calls and the connection."""
        ...
