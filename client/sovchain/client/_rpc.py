"""Connections to the gateways of one organisation: channels, deadlines, failover, and errors as data."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import grpc
import grpc.aio

from sovchain.client._status import failure_of
from sovchain.client.errors import ConnectError, GatewayClosed, RpcFailure
from sovchain.client.profile import GatewayAddress, Profile

DIAGNOSIS_S: Final = 3.0
"""How long a gateway that cannot be used is examined for the reason."""
KEEPALIVE_MS: Final = 120_000
"""A peer closes connections that ping more often than once a minute (core.yaml, peer.keepalive.minInterval)."""
_DEADLINE_SHARE: Final = 0.95
"""A call that the gateway ended after this share of its time has run out of it."""
GATEWAY: Final = "/gateway.Gateway/"


class CallFailed(Exception):
    """A call failed; each caller makes its own public error of it."""

    def __init__(self, failure: RpcFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _identity(data: bytes) -> bytes:
    return data


class Endpoint:
    """One gateway: its channel, its calls, and how many of them are under way."""

    def __init__(
        self, address: GatewayAddress, profile: Profile, *, max_in_flight: int, max_message_bytes: int
    ) -> None:
        self.address = address.address
        self.gateway = address
        self.slots = asyncio.Semaphore(max_in_flight)
        self.closed = False
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # A failed attempt is tried again soon: a gateway that restarts is back within a second or two.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if address.tls_root_pem is None:
            self.channel = grpc.aio.insecure_channel(address.address, options)
        else:
            if address.server_name:
                options.append(("grpc.ssl_target_name_override", address.server_name))
            credentials = grpc.ssl_channel_credentials(
                address.tls_root_pem, profile.client_key_pem, profile.client_certificate_pem
            )
            self.channel = grpc.aio.secure_channel(address.address, credentials, options)
        self._unary: dict[str, Callable[..., Any]] = {}
        self._streams: dict[str, Callable[..., Any]] = {}

    async def call(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """One unary call with serialised messages. Raises CallFailed."""
        stub = self._unary.get(method)
        if stub is None:
            stub = self._unary[method] = self.channel.unary_unary(
                GATEWAY + method, request_serializer=_identity, response_deserializer=_identity
            )
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self.slots.acquire()
        except TimeoutError:
            raise self._failed("DEADLINE_EXCEEDED", "too many calls were under way", started) from None
        try:
            if self.closed:
                raise GatewayClosed
            reply: bytes = await stub(request, timeout=max(timeout_s - (time.monotonic() - started), 0.001))
            return reply
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error, self.address, time.monotonic() - started)
            if failure.status == "CANCELLED" and failure.elapsed_s >= timeout_s * _DEADLINE_SHARE:
                # The gateway keeps the same deadline, and its end of the call can come before our own.
                failure = replace(failure, status="DEADLINE_EXCEEDED")
            raise CallFailed(failure) from None
        except asyncio.CancelledError:
            if not self.closed or own_task_is_cancelled():
                raise
            # gRPC ends the calls of a channel that is closed as if their tasks had been cancelled.
            raise self._failed("CANCELLED", "the gateway was closed during the call", started) from None
        finally:
            self.slots.release()

    def _failed(self, status: str, text: str, started: float) -> CallFailed:
        return CallFailed(RpcFailure(status, text, (), self.address, time.monotonic() - started))

    def open_stream(self, path: str, *, unary_request: bool) -> Any:
        """The multicallable of a stream with serialised messages."""
        stub = self._streams.get(path)
        if stub is None:
            make = self.channel.unary_stream if unary_request else self.channel.stream_stream
            stub = self._streams[path] = make(path, request_serializer=_identity, response_deserializer=_identity)
        return stub

    async def ready(self) -> None:
        """Wait until the connection stands."""
        await self.channel.channel_ready()

    async def close(self) -> None:
        """End the calls that are under way, and the connection."""
        self.closed = True
        await self.channel.close(None)


def own_task_is_cancelled() -> bool:
    """Whether somebody cancelled the running task, as opposed to a gRPC call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Connection:
    """All gateways of a profile; calls go to one of them, and to the next when it is not available."""

    def __init__(self, profile: Profile, *, insecure: bool, max_in_flight: int, max_message_bytes: int) -> None:
        if max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1")
        for address in profile.gateways:
            if address.tls_root_pem is None and not insecure:
                raise ConnectError(
                    f"{address.address} is to be used without TLS: write a grpcs:// address, or pass insecure=True",
                    endpoint=address.address,
                    reason="not-tls",
                )
        self.profile = profile
        self.endpoints = [
            Endpoint(address, profile, max_in_flight=max_in_flight, max_message_bytes=max_message_bytes)
            for address in profile.gateways
        ]
        self._first = 0
        self.closed = False

    def order(self) -> Sequence[Endpoint]:
        """The gateways in the order in which they are to be tried: the one that worked last comes first."""
        if self.closed:
            raise GatewayClosed
        return [*self.endpoints[self._first :], *self.endpoints[: self._first]]

    def prefer(self, endpoint: Endpoint) -> None:
        """Start with this gateway from now on."""
        self._first = self.endpoints.index(endpoint)

    async def call(self, method: str, request: bytes, timeout_s: float) -> tuple[bytes, Endpoint]:
        """Call the first gateway that is available, within one deadline. Raises CallFailed, GatewayClosed."""
        end = time.monotonic() + timeout_s
        last: CallFailed | None = None
        for endpoint in self.order():
            left = end - time.monotonic()
            if last is not None and left <= 0:
                break
            try:
                reply = await endpoint.call(method, request, left)
            except CallFailed as failed:
                # With details it is the gateway that answers: another one would hear the same from the same nodes.
                if failed.failure.status != "UNAVAILABLE" or failed.failure.details:
                    raise
                last = failed
                continue
            self.prefer(endpoint)
            return reply, endpoint
        assert last is not None
        raise last

    async def connect(self, timeout_s: float) -> None:
        """Wait until one gateway can be reached and trusted. Raises ConnectError."""
        waiting = {asyncio.create_task(endpoint.ready()): endpoint for endpoint in self.endpoints}
        try:
            done, _ = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    self.prefer(waiting[task])
                    return
        finally:
            for task in waiting:
                task.cancel()
        words = await asyncio.gather(*(_diagnose(endpoint.gateway) for endpoint in self.endpoints))
        reasons = {endpoint.address: word for endpoint, word in zip(self.endpoints, words, strict=True)}
        raise _connect_error(reasons, timeout_s)

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        self.closed = True
        await asyncio.gather(*(endpoint.close() for endpoint in self.endpoints))


_REMEDIES: Final = {
    "refused": "nothing listens there: check that the network is up and the address is right",
    "unresolved": "its host name is not known: check the profile's url",
    "timeout": "it does not answer: check the address and the network between",
    "unreachable": "it cannot be reached: check the address and the network between",
    "untrusted": "its TLS certificate does not lead to the profile's TLS root: check tlsCACerts",
    "wrong-name": "its TLS certificate is for another host: check ssl-target-name-override in the profile",
    "expired": "its TLS certificate has expired: have it renewed",
    "not-tls": "it does not speak TLS: check the profile's url",
    "client-certificate": "it asks for a TLS client certificate that it trusts: put one in the profile (tlsCerts)",
    "failed": "the connection fails for a reason that gRPC does not tell",
}


def _connect_error(reasons: dict[str, str], timeout_s: float) -> ConnectError:
    endpoint, reason = next(iter(reasons.items()))
    text = "; ".join(f"{address} ({word}): {_REMEDIES[word]}" for address, word in reasons.items())
    return ConnectError(
        f"no gateway can be used within {timeout_s:g} s: {text}", endpoint=endpoint, reason=reason, reasons=reasons
    )


async def _diagnose(gateway: GatewayAddress) -> str:
    """Why a gateway cannot be used, found by a TLS connection of our own: gRPC itself says only `unavailable`."""
    host, _, port = gateway.address.rpartition(":")
    context = None
    if gateway.tls_root_pem is not None:
        context = ssl.create_default_context(cadata=gateway.tls_root_pem.decode("ascii", "replace"))
        context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(DIAGNOSIS_S):
            reader, writer = await asyncio.open_connection(
                host.strip("[]"),
                int(port),
                ssl=context,
                server_hostname=(gateway.server_name or host.strip("[]")) if context is not None else None,
            )
            try:
                first = await reader.read(1)
            except ConnectionResetError:
                first = b""
            finally:
                writer.close()
    except ssl.SSLCertVerificationError as error:
        return {10: "expired", 62: "wrong-name", 64: "wrong-name"}.get(error.verify_code, "untrusted")
    except ssl.SSLError as error:
        asks = "CERTIFICATE_REQUIRED" in str(error) or "ALERT_BAD_CERTIFICATE" in str(error)
        return "client-certificate" if asks else "not-tls"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return "unresolved" if isinstance(error, socket.gaierror) else "unreachable"
    # With TLS 1.3 a server refuses a missing client certificate only after the handshake. Go says so in an alert; gRPC's
    # C core just ends the connection, where a server that is content sends its HTTP/2 settings.
    return "client-certificate" if context is not None and not first else "failed"
