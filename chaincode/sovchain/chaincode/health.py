"""The health endpoint: whether the process lives and whether it serves a peer, over plain HTTP.

`GET /healthz` is 200 while the process can serve, and 503 otherwise; `GET /readyz` is 200 once a peer has a ready stream to
each chaincode. The body is that of Fabric's own endpoint (fabric-lib-go/healthz/checker.go). Kubernetes and load balancers
ask this; there is nothing secret in it, and nothing else is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from sovchain.chaincode.errors import ServiceError
from sovchain.rpc.connection import split_address
from sovchain.rpc.errors import AddressError
from sovchain.rpc.log import Log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sovchain.chaincode.handler import Handler
    from sovchain.chaincode.watchdog import Watchdog

MAX_REQUEST_BYTES: Final = 8 * 1024
MAX_CONNECTIONS: Final = 32
REQUEST_TIMEOUT_S: Final = 5.0
BLOCKED_S: Final = 10.0
"""After this time without a turn of the event loop the process counts as unhealthy."""
MAX_LOST: Final = 256
"""More contracts than these that were told to end and have not make the process unhealthy."""

log = Log("sovchain.chaincode.health")


class Served(Protocol):
    """A service or a connection, as the health endpoint sees it."""

    @property
    def chaincode_id(self) -> str: ...
    @property
    def serving(self) -> bool: ...
    @property
    def handlers(self) -> list[Handler]: ...


class Health:
    """Answers for what one process serves.

    Args:
        address: `host:port`; port 0 for a free one.
        served: the services or connections of the process.
        watchdog: says whether the event loop turns, if it is watched.

    Raises:
        ServiceError: `address` is no address.
    """

    def __init__(self, address: str, served: Sequence[Served], watchdog: Watchdog | None = None) -> None:
        try:
            self._host, self._port = split_address(address)
        except AddressError as error:
            raise ServiceError(str(error)) from None
        self._served = served
        self._watchdog = watchdog
        self._server: asyncio.Server | None = None
        self._open = 0

    @property
    def address(self) -> str:
        """Where it listens; with the real port once it was started."""
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises ServiceError."""
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host or None, self._port, limit=MAX_REQUEST_BYTES
            )
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {self.address} for health checks: {error.strerror or error}: choose another address"
            ) from None
        self._port = self._server.sockets[0].getsockname()[1]
        log.info("health endpoint listens", address=self.address)

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def problems(self) -> dict[str, str]:
        """What keeps the process from serving, by what it is about; empty when it can."""
        found = {each.chaincode_id: "it does not listen" for each in self._served if not each.serving}
        if sum(handler.lost for each in self._served for handler in each.handlers) > MAX_LOST:
            found["contracts"] = f"more than {MAX_LOST} hang: restart the chaincode"
        if self._watchdog is not None and self._watchdog.blocked_s > BLOCKED_S:
            found["event loop"] = f"blocked for {self._watchdog.blocked_s:.0f} s"
        return found

    def unready(self) -> dict[str, str]:
        """`problems`, and the chaincodes that no peer has a ready stream to."""
        found = self.problems()
        for each in self._served:
            if not any(handler.ready for handler in each.handlers):
                found.setdefault(each.chaincode_id, "no peer is connected")
        return found

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    async with asyncio.timeout(REQUEST_TIMEOUT_S):
                        request = await reader.readuntil(b"\r\n\r\n")
                        writer.write(self._answer(request))
                        await writer.drain()
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"", head=False)
        if path not in (b"/healthz", b"/readyz"):
            return _response("404 Not Found", b"", head=method == b"HEAD")
        failed = self.problems() if path == b"/healthz" else self.unready()
        document: dict[str, object] = {
            "status": "Service Unavailable" if failed else "OK",
            "time": datetime.now(UTC).isoformat(),
        }
        if failed:
            document["failed_checks"] = [{"component": name, "reason": reason} for name, reason in failed.items()]
        body = json.dumps(document).encode()
        return _response("503 Service Unavailable" if failed else "200 OK", body, head=method == b"HEAD")


def _response(status: str, body: bytes, *, head: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else body)
