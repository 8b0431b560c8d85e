"""A small HTTPS server for the nodes' administration: one request after the other on each connection, bounded in all.

Mirrors common/fabhttp of Fabric: TLS 1.2 or later, client certificates checked where one is shown or always, ten seconds
for a request to arrive and two minutes for its answer. HTTP itself is h11's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import h11
import structlog

from sovchain.rpc import tls

MAX_HEADER_BYTES: Final = 32 * 1024
MAX_BODY_BYTES: Final = 10 * 1024 * 1024
"""Largest request: a block of a large channel configuration (`MaxRequestBodySize` of an ordering node)."""
MAX_CONNECTIONS: Final = 200
READ_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 120.0
_CHUNK_BYTES: Final = 64 * 1024
_LAST: Final = {"Connection": "close"}
_log = structlog.get_logger("sovchain.ledger.operations")


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        method: such as "GET".
        path: without its query.
        headers: by their names in lower case; of those that come twice the last.
        body: all of it.
        certified: whether the client has shown a certificate that the node's roots have issued.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    certified: bool = False


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


def server_context(
    certificate_pem: bytes, private_key_pem: bytes, client_root_pems: bytes, *, demand_certificate: bool
) -> ssl.SSLContext:
    """TLS of such a server. Raises TlsError for material that cannot be used."""
    context = tls.context(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = ssl.CERT_REQUIRED if demand_certificate else ssl.CERT_OPTIONAL
    tls.trust(context, client_root_pems)
    tls.load_pair(context, certificate_pem, private_key_pem)
    return context


class HttpsServer:
    """Serves one handler on one address. Start it, and stop it."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0
        """The port that it listens on."""

    async def start(self, listen: str, context: ssl.SSLContext) -> None:
        """Listen on "address:port"; port 0 lets the system choose. Raises OSError when it cannot."""
        address, _, port = listen.rpartition(":")
        self._server = await asyncio.start_server(
            self._accept, address, int(port), ssl=context, ssl_handshake_timeout=READ_TIMEOUT_S, limit=_CHUNK_BYTES
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the address and all connections. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            if len(self._serving) <= MAX_CONNECTIONS:
                await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, h11.LocalProtocolError):
            pass  # the client has gone, or is too slow
        except asyncio.CancelledError:
            pass  # the server stops; asyncio would log a cancelled handler as a failure
        finally:
            self._serving.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        certified = bool(writer.get_extra_info("peercert"))
        wait_s = READ_TIMEOUT_S
        while True:
            try:
                request = await _read(connection, reader, writer, certified, wait_s)
            except h11.RemoteProtocolError as error:
                await _write(connection, writer, Response(error.error_status_hint, headers=_LAST))
                return
            if request is None:
                return
            if isinstance(request, Response):
                await _write(connection, writer, request)
                return
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await _write(connection, writer, await self._answer(request))
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()
            wait_s = IDLE_TIMEOUT_S

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except Exception as error:
            # The text of an unexpected error may hold data, so the client gets none of it.
            _log.exception("request failed", method=request.method, path=request.path, error=type(error).__name__)
            return Response(500)


async def _read(
    connection: h11.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    certified: bool,
    first_wait_s: float,
) -> Request | Response | None:
    """The next request, None at the end of the connection, a response where the request is refused unread."""
    head: h11.Request | None = None
    body = bytearray()
    wait_s = first_wait_s
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            async with asyncio.timeout(wait_s):
                connection.receive_data(await reader.read(_CHUNK_BYTES))
            wait_s = READ_TIMEOUT_S
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                return Response(413, headers=_LAST)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
            path = head.target.decode("latin-1").partition("?")[0]
            return Request(head.method.decode("latin-1"), path, headers, bytes(body), certified)
        else:
            return None


async def _write(connection: h11.Connection, writer: asyncio.StreamWriter, response: Response) -> None:
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    headers = [(name, value) for name, value in response.headers.items()]
    if response.status != 204:
        headers.append(("Content-Length", str(len(response.body))))
    for event in (
        h11.Response(status_code=response.status, headers=headers),
        *([h11.Data(data=response.body)] if response.body else []),
        h11.EndOfMessage(),
    ):
        writer.write(connection.send(event) or b"")
    with contextlib.suppress(ConnectionError):
        await writer.drain()
