"""Client mode: the chaincode dials the peer's chaincode listener, as chaincode that a peer has started does.

Mirrors fabric-chaincode-go/shim/shim.go and internal/client.go, but for `keep`: it dials again.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from sovchain.chaincode.errors import ServiceError, StreamError
from sovchain.chaincode.handler import Handler, Limits
from sovchain.rpc.connection import Keepalive, dial
from sovchain.rpc.errors import AddressError, RpcError
from sovchain.rpc.log import Log

if TYPE_CHECKING:
    from sovchain.chaincode.chaincode import Chaincode
    from sovchain.chaincode.peerstub import StubOptions
    from sovchain.chaincode.tls import ClientTls

REGISTER: Final = "/protos.ChaincodeSupport/Register"
FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 2.0
_ATTEMPT_S: Final = 3.0
_CLOSE_S: Final = 0.5
"""A peer that is gone answers no farewell, and the next attempt should not wait for one."""

log = Log("sovchain.chaincode.connect")


class PeerConnection:
    """One chaincode on a stream to one peer.

    Args:
        chaincode: what answers the calls.
        chaincode_id: the name to register under: the package id `label:hash`.
        peer_address: `host:port` of the peer's chaincode listener.
        tls: None for plain text.
        limits: what the peer may have in hand.
        options: how stubs behave.
        keepalive: when a silent peer is given up.
    """

    def __init__(
        self,
        chaincode: Chaincode,
        chaincode_id: str,
        peer_address: str,
        *,
        tls: ClientTls | None = None,
        limits: Limits | None = None,
        options: StubOptions | None = None,
        keepalive: Keepalive | None = None,
    ) -> None:
        if not chaincode_id:
            raise ServiceError("a chaincode that dials a peer has a chaincode id: set CORE_CHAINCODE_ID_NAME")
        self.chaincode = chaincode
        self.chaincode_id = chaincode_id
        self._peer_address = peer_address
        self._tls = tls
        self._limits = limits
        self._options = options
        self._keepalive = keepalive or Keepalive()
        self._handler: Handler | None = None
        self._was_ready = False
        self._stopping = asyncio.Event()

    @property
    def handlers(self) -> list[Handler]:
        """The one that serves the peer now, or none."""
        return [] if self._handler is None else [self._handler]

    @property
    def serving(self) -> bool:
        """Whether it is there for the peer: until it is stopped."""
        return not self._stopping.is_set()

    async def run(self, dial_timeout_s: float = 30.0) -> None:
        """Dial, register, and serve until the peer ends the stream or `stop` was called.

        Raises:
            StreamError: the peer cannot be reached within `dial_timeout_s` seconds, refuses, or the stream breaks.
            ServiceError: the TLS material is not valid.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + dial_timeout_s, FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                await self._serve_once(max(deadline - loop.time(), 0.1))
                return
            except _NotReachedError as error:
                if loop.time() + pause > deadline:
                    raise StreamError(
                        f"{error}; tried for {dial_timeout_s:g} seconds: check the address, that the peer's chaincode "
                        "listener is up, and the TLS roots and certificates of both sides"
                    ) from None
            await self._pause(pause)
            pause = min(pause * 2, LAST_PAUSE_S)

    async def keep(self) -> None:
        """Serve the peer until `stop` is called: when it cannot be reached, refuses, or the stream ends, dial again.

        The first pause is 0.1 s, each further one twice as long up to 2 s, a fifth more or less by chance; after a stream
        that was ready it begins anew.

        Raises:
            ServiceError: the TLS material is not valid.
        """
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            reason = "the peer ended the stream"
            self._was_ready = False
            try:
                await self._serve_once(_ATTEMPT_S)
            except StreamError as error:
                reason = str(error)
            if self._stopping.is_set():
                return
            pause = FIRST_PAUSE_S if self._was_ready else pause
            wait_s = pause * random.uniform(0.8, 1.2)  # noqa: S311 - spreads the load, guards no secret
            log.warning("not connected", peer=self._peer_address, reason=reason, again_in_s=round(wait_s, 2))
            await self._pause(wait_s)
            pause = min(pause * 2, LAST_PAUSE_S)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Refuse new transactions, answer those in hand within `grace_s` seconds, and end the stream."""
        self._stopping.set()
        if self._handler is not None:
            await self._handler.drain(grace_s)
            if self._handler is not None:
                self._handler.end()
        self.chaincode.close()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _serve_once(self, timeout_s: float) -> None:
        tls = None if self._tls is None else self._tls.context()
        name = None if self._tls is None else self._tls.server_name
        try:
            async with asyncio.timeout(timeout_s):
                made = await dial(self._peer_address, tls=tls, server_name=name, keepalive=self._keepalive)
        except TimeoutError:
            raise _NotReachedError(f"cannot reach {self._peer_address}: no answer") from None
        except (RpcError, AddressError) as error:
            raise _NotReachedError(str(error)) from None
        self._handler = handler = Handler(self.chaincode, self.chaincode_id, self._limits, self._options)
        try:
            authority = name or self._peer_address
            stream = made.connection.request(REGISTER, authority, secure=tls is not None)
            log.info("connected to peer", peer=self._peer_address)
            try:
                await handler.run(stream)
            finally:
                self._was_ready = handler.was_ready
                stream.finish()
        finally:
            self._handler = None
            await made.close(_CLOSE_S)


class _NotReachedError(StreamError):
    """There is no connection yet."""
