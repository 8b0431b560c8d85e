"""Chaincode as a service: a gRPC server that peers dial.

Mirrors fabric-chaincode-go/shim/chaincodeserver.go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sovchain.chaincode.errors import ServiceError, StreamError
from sovchain.chaincode.handler import Handler, Limits
from sovchain.rpc.connection import GrpcProtocol, Keepalive
from sovchain.rpc.errors import AddressError
from sovchain.rpc.listener import Listener
from sovchain.rpc.log import Log, frames
from sovchain.rpc.wire import UNIMPLEMENTED

if TYPE_CHECKING:
    from sovchain.chaincode.chaincode import Chaincode
    from sovchain.chaincode.peerstub import StubOptions
    from sovchain.chaincode.tls import ServerTls
    from sovchain.rpc.stream import Stream

CONNECT = "/protos.Chaincode/Connect"
_END_S = 1.0

log = Log("sovchain.chaincode.server")


class ChaincodeService:
    """One chaincode on one address, for as many peers as dial it.

    Args:
        chaincode: what answers the calls.
        chaincode_id: the package id under which the peers have installed it: `label:hash`.
        address: `host:port` (port 0 for a free one) or `unix:/path`.
        tls: None for plain text, which only a loopback address or a test should use.
        limits: what each peer may have in hand.
        options: how stubs behave.
        keepalive: when a silent peer is given up.
    """

    def __init__(
        self,
        chaincode: Chaincode,
        chaincode_id: str,
        address: str,
        *,
        tls: ServerTls | None = None,
        limits: Limits | None = None,
        options: StubOptions | None = None,
        keepalive: Keepalive | None = None,
    ) -> None:
        if not chaincode_id:
            raise ServiceError("a chaincode service has a chaincode id: the package id that the peers know")
        self.chaincode = chaincode
        self.chaincode_id = chaincode_id
        self._address = address
        self._tls = tls
        self._limits = limits or Limits()
        self._options = options
        self._keepalive = keepalive or Keepalive()
        self._server: Listener | None = None
        self._streams: dict[Handler, asyncio.Task[None]] = {}

    @property
    def address(self) -> str:
        """Where it listens; with the real port once it was started."""
        return self._address if self._server is None else self._server.address

    @property
    def handlers(self) -> list[Handler]:
        """One for each peer that has a stream."""
        return list(self._streams)

    @property
    def serving(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    async def start(self) -> None:
        """Listen.

        Raises:
            ServiceError: the address cannot be used, or the TLS material is not valid.
        """
        tls = None if self._tls is None else self._tls.context()
        try:
            server = Listener(self._address, self._connected, tls=tls, keepalive=self._keepalive)
            await server.start()
        except AddressError as error:
            raise ServiceError(str(error)) from None
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
        server.refuse_connections()
        streams = dict(self._streams)
        await asyncio.gather(*(handler.drain(grace_s) for handler in streams))
        for handler in streams:
            handler.end()
        await asyncio.gather(*streams.values(), return_exceptions=True)
        await server.stop(_END_S)
        self.chaincode.close()

    def _connected(self, stream: Stream, connection: GrpcProtocol) -> None:
        if stream.path != CONNECT:
            stream.finish(UNIMPLEMENTED, f"this service has only {CONNECT}")
            return
        connection.connection.accept(stream)
        handler = Handler(self.chaincode, self.chaincode_id, self._limits, self._options)
        task = asyncio.get_running_loop().create_task(self._serve(handler, stream, connection.peer))
        self._streams[handler] = task

    async def _serve(self, handler: Handler, stream: Stream, peer: str) -> None:
        log.info("peer connected", chaincode_id=self.chaincode_id, peer=peer)
        try:
            await handler.run(stream)
        except StreamError as error:
            log.warning("stream ended with an error", chaincode_id=self.chaincode_id, peer=peer, error=str(error))
        except Exception as error:
            log.error("stream failed", chaincode_id=self.chaincode_id, peer=peer, trace=frames(error))
        finally:
            stream.finish()
            del self._streams[handler]
            log.info("peer disconnected", chaincode_id=self.chaincode_id, peer=peer)
