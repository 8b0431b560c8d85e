"""Client mode: the chaincode dials the peer's chaincode listener, as chaincode that a peer has started does.

Mirrors fabric-chaincode-go/shim/shim.go and internal/client.go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio
from fabric_protos.peer import chaincode_shim_pb2 as shim

from sovchain.chaincode.errors import ServiceError, StreamError
from sovchain.chaincode.exchange import MAX_FRAME_BYTES
from sovchain.chaincode.handler import Handler, Limits
from sovchain.chaincode.log import Log

if TYPE_CHECKING:
    from sovchain.chaincode.chaincode import Chaincode
    from sovchain.chaincode.tls import ClientTls

log = Log("sovchain.chaincode.connect")

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


class ClientStream:
    """The stream that this side opened, as the handler wants it."""

    def __init__(self, call: grpc.aio.StreamStreamCall[shim.ChaincodeMessage, shim.ChaincodeMessage]) -> None:
        self._call = call

    async def read(self) -> shim.ChaincodeMessage | None:
        """The next message, or None at the end."""
        message = await self._call.read()
        return message if isinstance(message, shim.ChaincodeMessage) else None

    async def write(self, message: shim.ChaincodeMessage) -> None:
        """Send a message."""
        await self._call.write(message)


class PeerConnection:
    """One chaincode on a stream to one peer.

    Args:
        chaincode: what answers the calls.
        chaincode_id: the name to register under: the package id `label:hash`.
        peer_address: `host:port` of the peer's chaincode listener.
        tls: None for plain text.
        limits: what the peer may have in hand.
    """

    def __init__(
        self,
        chaincode: Chaincode,
        chaincode_id: str,
        peer_address: str,
        *,
        tls: ClientTls | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not chaincode_id:
            raise ServiceError("a chaincode that dials a peer has a chaincode id: set CORE_CHAINCODE_ID_NAME")
        self.chaincode = chaincode
        self._peer_address = peer_address
        self._tls = tls
        self._handler = Handler(chaincode, chaincode_id, limits)

    async def run(self, dial_timeout_s: float = 30.0) -> None:
        """Dial, register, and serve until the peer ends the stream or `stop` was called. May be used once.

        Raises:
            StreamError: the peer cannot be reached within `dial_timeout_s` seconds, refuses, or the stream breaks.
        """
        async with self._channel() as channel:
            try:
                async with asyncio.timeout(dial_timeout_s):
                    await channel.channel_ready()
            except TimeoutError:
                raise StreamError(
                    f"cannot reach the peer at {self._peer_address} within {dial_timeout_s:g} seconds: check the "
                    "address, that its chaincode listener is up, and the TLS roots and certificates of both sides"
                ) from None
            register = channel.stream_stream(
                "/protos.ChaincodeSupport/Register",
                request_serializer=shim.ChaincodeMessage.SerializeToString,
                response_deserializer=shim.ChaincodeMessage.FromString,
            )
            call = register()  # type: ignore[call-arg] # the stubs miss that the iterator may be left out
            log.info("connected to peer", peer=self._peer_address)
            try:
                await self._handler.run(ClientStream(call))
            finally:
                if not call.done():
                    await call.done_writing()
                call.cancel()

    async def stop(self, grace_s: float = 5.0) -> None:
        """Refuse new transactions, answer those in hand within `grace_s` seconds, and end the stream."""
        await self._handler.drain(grace_s)
        self._handler.end()
        self.chaincode.close()

    def _channel(self) -> grpc.aio.Channel:
        options = list(_OPTIONS)
        if self._tls is None:
            return grpc.aio.insecure_channel(self._peer_address, options=options)
        if self._tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self._tls.server_name))
        return grpc.aio.secure_channel(self._peer_address, self._tls.credentials(), options=options)
