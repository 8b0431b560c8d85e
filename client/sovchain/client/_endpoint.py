"""One gateway: its channel, its calls, how many of them are under way, and whether it still answers."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sovchain.client._calls import Calls, Replies
from sovchain.client._status import failure_of
from sovchain.client.errors import ConnectError, GatewayClosed, RpcFailure
from sovchain.client.observe import Observer, observing
from sovchain.client.profile import GatewayAddress, Profile
from sovchain.rpc.channel import Channel
from sovchain.rpc.connection import Keepalive
from sovchain.rpc.errors import RpcError, TlsError
from sovchain.rpc.http2 import Limits
from sovchain.rpc.tls import client_context

KEEPALIVE: Final = Keepalive(idle_s=120.0, timeout_s=20.0)
"""A peer closes connections that ping more often than once a minute (core.yaml, peer.keepalive.minInterval)."""
SILENCE_S: Final = 5.0
"""Silence of a gateway that has calls or streams open after which it is asked whether it is there."""
PROBE_S: Final = 8.0
"""How long it may take to answer that. With SILENCE_S and the watch's pace a partition is noticed within 15 s."""
GATEWAY: Final = "/gateway.Gateway/"
_HEALTH: Final = "/grpc.health.v1.Health/Check"
"""A peer does not offer it, and says so from gRPC's own layer: no handler, no signature, no place among its 500 calls."""
_DEADLINE_SHARE: Final = 0.95
"""A call that the gateway ended after this share of its time has run out of it."""
STREAM_WINDOW: Final = 1024 * 1024
"""Bytes of events or blocks that a reader which falls behind leaves waiting, beside one message of any size."""
_AWAY_FIRST_S, _AWAY_MOST_S = 0.2, 5.0


class CallFailed(Exception):
    """A call failed; each caller makes its own public error of it."""

    def __init__(self, failure: RpcFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def is_overload(failure: RpcFailure) -> bool:
    """Whether a peer refused a call because it has too many (internal/peer/node/grpc_limiters.go).

    It says so with status UNKNOWN, as of a chaincode that refuses, and before any handler ran.
    """
    return not failure.details and "exceeding concurrency limit" in failure.message


class Endpoint:
    """One gateway. `channel` is one of the user's, which is neither replaced nor closed. Raises ConnectError."""

    def __init__(
        self,
        address: GatewayAddress,
        profile: Profile,
        *,
        max_in_flight: int,
        max_message_bytes: int,
        channel: Calls | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.address: str = address.address
        self.gateway = address
        self.closed: bool = False
        self.away_until: float = 0.0
        self.heights: dict[str, int] = {}
        """The highest block of each channel that this peer is known to have committed."""
        self._profile = profile
        self._max_message_bytes = max_message_bytes
        self._given = channel
        self._observers = observers
        self._slots = asyncio.Semaphore(max_in_flight)
        self._open = 0
        self._heard = time.monotonic()
        self._away_times = 0
        self._lost = 0
        self._tls = self._context()
        self.channel: Calls = channel or self._make_channel()

    def _context(self) -> ssl.SSLContext | None:
        roots = self.gateway.tls_root_pem
        if roots is None:
            return None
        try:
            return client_context(roots, self._profile.client_certificate_pem, self._profile.client_key_pem)
        except TlsError as error:
            raise ConnectError(
                f"{self.address} cannot be used: {error}", endpoint=self.address, reason="untrusted"
            ) from None

    def _make_channel(self) -> Channel:
        return Channel(
            self.address,
            tls=self._tls,
            server_name=self.gateway.server_name,
            keepalive=KEEPALIVE,
            limits=Limits(message_bytes=self._max_message_bytes, stream_window=STREAM_WINDOW),
        )

    # -- calls -------------------------------------------------------------------------------------------------------

    async def call(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """One unary call with serialised messages. Raises CallFailed, GatewayClosed."""
        if not self._observers:
            return await self._call(method, request, timeout_s, ())
        with observing(self._observers, method, {"endpoint": self.address}) as seen:
            try:
                return await self._call(method, request, timeout_s, seen.metadata)
            except CallFailed as failed:
                seen.status = failed.failure.status
                raise

    async def _call(self, method: str, request: bytes, timeout_s: float, metadata: Sequence[tuple[str, str]]) -> bytes:
        started = time.monotonic()
        await self._acquire(timeout_s, started)
        self._open += 1
        lost = self._lost
        try:
            if self.closed:
                raise GatewayClosed
            left = timeout_s if not self._slots.locked() else max(timeout_s - (time.monotonic() - started), 0.001)
            headers = [(name.encode(), value.encode()) for name, value in metadata] if metadata else None
            reply = await self.channel.unary(GATEWAY + method, request, left, headers)
        except RpcError as error:
            if self.closed:
                raise self._failed("CANCELLED", "the gateway was closed during the call", started) from None
            if lost != self._lost:
                raise self._silent(started) from None
            failure = failure_of(error, self.address, time.monotonic() - started)
            if failure.status == "CANCELLED" and failure.elapsed_s >= timeout_s * _DEADLINE_SHARE:
                # The gateway keeps the same deadline, and its end of the call can come before our own.
                failure = replace(failure, status="DEADLINE_EXCEEDED")
            elif is_overload(failure):
                failure = replace(failure, status="RESOURCE_EXHAUSTED")
            if failure.status == "UNAVAILABLE" and not failure.details:
                self.away()
            elif failure.status != "DEADLINE_EXCEEDED":
                self.hear()
            raise CallFailed(failure) from None
        finally:
            self._open -= 1
            self._slots.release()
        self._heard = time.monotonic()
        self._away_times = 0
        return reply

    async def _acquire(self, timeout_s: float, started: float) -> None:
        if not self._slots.locked():
            await self._slots.acquire()  # does not wait
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            raise self._failed("DEADLINE_EXCEEDED", "too many calls were under way", started) from None

    def _failed(self, status: str, text: str, started: float) -> CallFailed:
        return CallFailed(RpcFailure(status, text, (), self.address, time.monotonic() - started))

    def _silent(self, started: float) -> CallFailed:
        return self._failed("UNAVAILABLE", "the gateway does not answer any more", started)

    async def open_stream(self, path: str, request: bytes) -> Replies:
        """A call with one request and many replies, as serialised messages. Raises RpcError."""
        return await self.channel.stream(path, request)

    async def stream_begins(self, *, slot: bool, timeout_s: float) -> None:
        """A stream is being opened: it is watched, and one of the gateway service counts among its calls.

        Raises CallFailed when there are too many of these.
        """
        if slot:
            await self._acquire(timeout_s, time.monotonic())
        self._open += 1

    def stream_ends(self, *, slot: bool) -> None:
        """A stream has ended."""
        self._open -= 1
        if slot:
            self._slots.release()

    # -- health ------------------------------------------------------------------------------------------------------

    def hear(self) -> None:
        """Something came from the gateway."""
        self._heard = time.monotonic()
        self._away_times = 0
        self.away_until = 0.0

    def away(self) -> None:
        """It cannot be used: others come first for a while, which grows, with jitter."""
        pause_s = min(_AWAY_FIRST_S * 2**self._away_times, _AWAY_MOST_S)
        self._away_times = min(self._away_times + 1, 16)
        self.away_until = time.monotonic() + pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    async def watch(self) -> None:
        """Ask a gateway that is silent although calls or streams are open whether it is there; leave it if not."""
        if not self._open or time.monotonic() - self._heard < SILENCE_S or self._given is not None:
            return
        lost = self._lost
        try:
            await self.channel.unary(_HEALTH, b"", PROBE_S)
        except RpcError as error:
            if self.closed or lost != self._lost or error.status == "UNAVAILABLE":
                return
            if error.status == "DEADLINE_EXCEEDED":
                await self._leave()
                return
        self._heard = time.monotonic()

    async def _leave(self) -> None:
        """Give the connection up: its calls end as unavailable, its streams are taken up elsewhere."""
        old, self.channel = self.channel, self._make_channel()
        self._lost += 1
        self._heard = time.monotonic()
        self.away()
        await old.close()

    async def ready(self) -> None:
        """Wait until the connection stands."""
        await self.channel.ready()

    async def close(self) -> None:
        """End the calls that are under way, and the connection."""
        self.closed = True
        await self.channel.close()
