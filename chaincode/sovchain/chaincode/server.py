"""Chaincode as a service: a gRPC server that peers dial.

Mirrors fabric-chaincode-go/shim/chaincodeserver.go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from fabric_protos.peer import chaincode_shim_pb2 as shim

from sovchain.chaincode.errors import ServiceError, StreamError
from sovchain.chaincode.exchange import MAX_FRAME_BYTES
from sovchain.chaincode.handler import Handler, Limits
from sovchain.chaincode.log import Log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sovchain.chaincode.chaincode import Chaincode
    from sovchain.chaincode.tls import ServerTls

log = Log("sovchain.chaincode.server")

_OPTIONS = [
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    # Without this a second service could listen on the same port, and peers would reach either.
    ("grpc.so_reuseport", 0),
    # Peers ping every 60 s whether or not a transaction runs; by default gRPC takes that for abuse and hangs up.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


class ServerStream:
    """The stream that a peer opened, as the handler wants it."""

    def __init__(
        self,
        requests: AsyncIterator[shim.ChaincodeMessage],
        context: grpc.aio.ServicerContext[shim.ChaincodeMessage, shim.ChaincodeMessage],
    ) -> None:
        self._requests = requests
        self._context = context

    async def read(self) -> shim.ChaincodeMessage | None:
        """The next message, or None at the end."""
        return await anext(self._requests, None)

    async def write(self, message: shim.ChaincodeMessage) -> None:
        """Send a message."""
        await self._context.write(message)


class ChaincodeService:
    """One chaincode on one address, for as many peers as dial it.

    Args:
        chaincode: what answers the calls.
        chaincode_id: the package id under which the peers have installed it: `label:hash`.
        address: `host:port` (port 0 for a free one) or `unix:/path`.
        tls: None for plain text, which only a loopback address or a test should use.
        limits: what each peer may have in hand.
    """

    def __init__(
        self,
        chaincode: Chaincode,
        chaincode_id: str,
        address: str,
        *,
        tls: ServerTls | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not chaincode_id:
            raise ServiceError("a chaincode service has a chaincode id: the package id that the peers know")
        self.chaincode = chaincode
        self.chaincode_id = chaincode_id
        self._address = address
        self._tls = tls
        self._limits = limits or Limits()
        self._server: grpc.aio.Server | None = None
        self._port = 0
        self._handlers: set[Handler] = set()

    @property
    def address(self) -> str:
        """Where it listens; with the real port once it was started."""
        if self._port and not self._address.startswith("unix:"):
            return f"{self._address.rpartition(':')[0]}:{self._port}"
        return self._address

    async def start(self) -> None:
        """Listen.

        Raises:
            ServiceError: the address cannot be used, or the TLS material is not valid.
        """
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((_method(self._connect),))
        try:
            if self._tls is None:
                self._port = server.add_insecure_port(self._address)
            else:
                self._port = server.add_secure_port(self._address, self._tls.credentials())
        except (RuntimeError, ValueError):
            self._port = 0
        if not self._port:
            await server.stop(None)
            raise ServiceError(
                f"cannot listen on {self._address}: the address is in use or not of this machine, or the certificate "
                "and its key do not belong together: choose another address or check the files"
            )
        await server.start()
        self._server = server
        log.info("listening", address=self.address, chaincode_id=self.chaincode_id, tls=self._tls is not None)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Refuse new transactions, answer those in hand, end the streams.

        Args:
            grace_s: longest time for what is in hand, in seconds; what is not done then is cancelled and answered
                with ERROR.
        """
        server, self._server = self._server, None
        if server is None:
            return
        handlers = list(self._handlers)
        await asyncio.gather(*(handler.drain(grace_s) for handler in handlers))
        for handler in handlers:
            handler.end()
        await server.stop(grace=6.0)
        self.chaincode.close()

    async def _connect(
        self,
        requests: AsyncIterator[shim.ChaincodeMessage],
        context: grpc.aio.ServicerContext[shim.ChaincodeMessage, shim.ChaincodeMessage],
    ) -> None:
        handler = Handler(self.chaincode, self.chaincode_id, self._limits)
        self._handlers.add(handler)
        peer = context.peer()
        log.info("peer connected", chaincode_id=self.chaincode_id, peer=peer)
        try:
            await handler.run(ServerStream(requests, context))
        except StreamError as error:
            log.warning("stream ended with an error", chaincode_id=self.chaincode_id, peer=peer, error=str(error))
        finally:
            self._handlers.discard(handler)
            log.info("peer disconnected", chaincode_id=self.chaincode_id, peer=peer)


def _method(connect: Callable[..., Awaitable[None]]) -> grpc.GenericRpcHandler[Any, Any]:
    handler = grpc.stream_stream_rpc_method_handler(
        connect,
        request_deserializer=shim.ChaincodeMessage.FromString,
        response_serializer=shim.ChaincodeMessage.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("protos.Chaincode", {"Connect": handler})
