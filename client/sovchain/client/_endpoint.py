"""One gateway: its channel, its calls, how many of them are under way, and whether it still answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import grpc
import grpc.aio

from sovchain.client._status import failure_of
from sovchain.client.errors import GatewayClosed, RpcFailure
from sovchain.client.observe import Observer, observing
from sovchain.client.profile import GatewayAddress, Profile

KEEPALIVE_MS: Final = 120_000
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
_AWAY_FIRST_S, _AWAY_MOST_S = 0.2, 5.0


class CallFailed(Exception):
    """A call failed; each caller makes its own public error of it."""

    def __init__(self, failure: RpcFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _identity(data: bytes) -> bytes:
    return data


def own_task_is_cancelled() -> bool:
    """Whether somebody cancelled the running task, as opposed to a gRPC call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_overload(failure: RpcFailure) -> bool:
    """Whether a peer refused a call because it has too many (internal/peer/node/grpc_limiters.go).

    It says so with status UNKNOWN, as of a chaincode that refuses, and before any handler ran.
    """
    return not failure.details and "exceeding concurrency limit" in failure.message


class Endpoint:
    """One gateway. `channel` is one of the user's, which is neither replaced nor closed."""

    def __init__(
        self,
        address: GatewayAddress,
        profile: Profile,
        *,
        max_in_flight: int,
        max_message_bytes: int,
        channel: grpc.aio.Channel | None = None,
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
        self.channel: grpc.aio.Channel = channel or self._make_channel()
        self._unary: dict[str, Callable[..., Any]] = {}
        self._streams: dict[str, Callable[..., Any]] = {}

    def _make_channel(self) -> grpc.aio.Channel:
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", self._max_message_bytes),
            ("grpc.max_receive_message_length", self._max_message_bytes),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # A failed attempt is tried again soon: a gateway that restarts is back within a second or two.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self.gateway.tls_root_pem is None:
            return grpc.aio.insecure_channel(self.address, options)
        if self.gateway.server_name:
            options.append(("grpc.ssl_target_name_override", self.gateway.server_name))
        credentials = grpc.ssl_channel_credentials(
            self.gateway.tls_root_pem, self._profile.client_key_pem, self._profile.client_certificate_pem
        )
        return grpc.aio.secure_channel(self.address, credentials, options)

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
            stub = self._unary.get(method) or self._make_unary(method)
            left = timeout_s if not self._slots.locked() else max(timeout_s - (time.monotonic() - started), 0.001)
            reply: bytes = await stub(request, timeout=left, metadata=metadata or None)
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error, self.address, time.monotonic() - started)
            if lost != self._lost:
                raise self._silent(started) from None
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
        except asyncio.CancelledError:
            if own_task_is_cancelled() or not (self.closed or lost != self._lost):
                raise
            # gRPC ends the calls of a channel that is closed as if their tasks had been cancelled.
            if not self.closed:
                raise self._silent(started) from None
            raise self._failed("CANCELLED", "the gateway was closed during the call", started) from None
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

    def _make_unary(self, method: str) -> Callable[..., Any]:
        stub: Callable[..., Any] = self.channel.unary_unary(
            GATEWAY + method, request_serializer=_identity, response_deserializer=_identity
        )
        self._unary[method] = stub
        return stub

    def _failed(self, status: str, text: str, started: float) -> CallFailed:
        return CallFailed(RpcFailure(status, text, (), self.address, time.monotonic() - started))

    def _silent(self, started: float) -> CallFailed:
        return self._failed("UNAVAILABLE", "the gateway does not answer any more", started)

    def open_stream(self, path: str) -> Any:
        """The multicallable of a stream with one request, and serialised messages."""
        stub = self._streams.get(path)
        if stub is None:
            stub = self._streams[path] = self.channel.unary_stream(
                path, request_serializer=_identity, response_deserializer=_identity
            )
        return stub

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
        probe: Callable[..., Any] = self.channel.unary_unary(
            _HEALTH, request_serializer=_identity, response_deserializer=_identity
        )
        lost = self._lost
        try:
            await probe(b"", timeout=PROBE_S, wait_for_ready=False)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                self._heard = time.monotonic()
            elif error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and lost == self._lost and not self.closed:
                await self._leave()
        except asyncio.CancelledError:
            if own_task_is_cancelled():
                raise
        else:
            self._heard = time.monotonic()

    async def _leave(self) -> None:
        """Give the connection up: its calls end as unavailable, its streams are taken up elsewhere."""
        old, self.channel = self.channel, self._make_channel()
        self._lost += 1
        self._unary.clear()
        self._streams.clear()
        self._heard = time.monotonic()
        self.away()
        await old.close(None)

    async def ready(self) -> None:
        """Wait until the connection stands."""
        await self.channel.channel_ready()

    async def close(self) -> None:
        """End the calls that are under way, and the connection."""
        self.closed = True
        if self._given is None:
            await self.channel.close(None)
