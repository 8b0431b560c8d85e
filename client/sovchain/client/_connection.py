"""Connections to the gateways of one organisation: which of them a call goes to, and when to the next."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sovchain.client._calls import Calls
from sovchain.client._diagnosis import connect_error, diagnose
from sovchain.client._endpoint import CallFailed, Endpoint, is_overload
from sovchain.client.errors import ConnectError, GatewayClosed
from sovchain.client.observe import Observer
from sovchain.client.profile import Profile

WATCH_PACE_S: Final = 1.0
"""How often silent gateways are looked for."""
Before = Callable[[Endpoint, float], Awaitable[None]]


class Connection:
    """All gateways of a profile; calls go to one of them, and to the next when it is not available."""

    def __init__(
        self,
        profile: Profile,
        *,
        insecure: bool,
        max_in_flight: int,
        max_message_bytes: int,
        channel: Calls | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        if max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1")
        for address in profile.gateways:
            if address.tls_root_pem is None and not (insecure or address.is_unix_socket or channel is not None):
                raise ConnectError(
                    f"{address.address} is to be used without TLS: write a grpcs:// address, or pass insecure=True",
                    endpoint=address.address,
                    reason="not-tls",
                )
        self.profile = profile
        self.observers = observers
        self.endpoints: list[Endpoint] = [
            Endpoint(
                address,
                profile,
                max_in_flight=max_in_flight,
                max_message_bytes=max_message_bytes,
                channel=channel,
                observers=observers,
            )
            for address in profile.gateways
        ]
        self._first = 0
        self._watching: asyncio.Task[None] | None = None
        self.closed: bool = False

    def order(self) -> Sequence[Endpoint]:
        """The gateways in the order in which they are to be tried: the one that worked last, those that fail last."""
        if self.closed:
            raise GatewayClosed
        if len(self.endpoints) == 1:
            return self.endpoints
        now = time.monotonic()
        turned = [*self.endpoints[self._first :], *self.endpoints[: self._first]]
        return sorted(turned, key=lambda endpoint: max(endpoint.away_until, now))

    def prefer(self, endpoint: Endpoint) -> None:
        """Start with this gateway from now on."""
        self._first = self.endpoints.index(endpoint)

    async def call(
        self,
        method: str,
        request: bytes,
        timeout_s: float,
        *,
        overload_pause_s: float = 0.0,
        before: Before | None = None,
    ) -> tuple[bytes, Endpoint]:
        """Call the first gateway that is available, within one deadline. Raises CallFailed, GatewayClosed.

        `overload_pause_s` is the longest pause before a peer that has too many calls is asked once more, at first; it
        doubles from time to time. With 0 its refusal is final. `before` is awaited before each attempt, with the gateway
        and the seconds that are left; it may raise CallFailed.
        """
        end = time.monotonic() + timeout_s
        while True:
            try:
                return await self._call_any(method, request, end, before)
            except CallFailed as failed:
                # The peer refused before it looked at the call, so that it may be sent again, whatever it is.
                pause_s = random.uniform(0.5, 1.0) * overload_pause_s  # noqa: S311 - jitter, no secret
                if not pause_s or not is_overload(failed.failure) or time.monotonic() + pause_s >= end:
                    raise
                overload_pause_s *= 2
            await asyncio.sleep(pause_s)

    async def _call_any(self, method: str, request: bytes, end: float, before: Before | None) -> tuple[bytes, Endpoint]:
        last: CallFailed | None = None
        for endpoint in self.order():
            left = end - time.monotonic()
            if last is not None and left <= 0:
                break
            try:
                if before is not None:
                    await before(endpoint, left)
                    left = max(end - time.monotonic(), 0.001)
                reply = await endpoint.call(method, request, left)
            except CallFailed as failed:
                # With details it is the gateway that answers: another one would hear the same from the same nodes.
                if failed.failure.status != "UNAVAILABLE" or failed.failure.details:
                    raise
                last = failed
                continue
            if endpoint is not self.endpoints[self._first]:
                self.prefer(endpoint)
            return reply, endpoint
        assert last is not None
        raise last

    async def connect(self, timeout_s: float) -> None:
        """Wait until one gateway can be reached and trusted, and begin to watch them all. Raises ConnectError."""
        waiting = {asyncio.create_task(endpoint.ready()): endpoint for endpoint in self.endpoints}
        try:
            done, _ = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    self.prefer(waiting[task])
                    self._watching = asyncio.create_task(self._watch())
                    return
        finally:
            for task in waiting:
                task.cancel()
        words = await asyncio.gather(*(diagnose(endpoint.gateway) for endpoint in self.endpoints))
        reasons = {endpoint.address: word for endpoint, word in zip(self.endpoints, words, strict=True)}
        raise connect_error(reasons, timeout_s)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_PACE_S)
            await asyncio.gather(*(endpoint.watch() for endpoint in self.endpoints))

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        self.closed = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await asyncio.gather(*(endpoint.close() for endpoint in self.endpoints))
