"""What all gRPC services of the embedded ledger have in common: raw-bytes handlers, limits, errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import grpc
import structlog

from sovchain.ledger.operations.metrics import NodeMetrics
from sovchain.ledger.rpcstatus import StatusError, rpc_error
from sovchain.rpc.errors import RpcError
from sovchain.rpc.server import Call, Method

Context = Call
UnaryMethod = Callable[[bytes, Context], Awaitable[bytes]]
StreamMethod = Callable[[bytes, Context], AsyncIterator[bytes]]
DuplexMethod = Callable[[Context], Coroutine[Any, Any, None]]
PassBy = Callable[[str], Awaitable[None]]

_log = structlog.get_logger("sovchain.ledger.service")


class ConcurrencyLimit:
    """How many calls of one service may run at a time; further ones are refused, not queued.

    Mirrors internal/peer/node/grpc_limiters.go; the limits are those of core.yaml.
    """

    def __init__(self, service: str, limit: int) -> None:
        """`service` as in the path of its methods, without the slash, for example "gateway.Gateway"."""
        self._service = service
        self._limit = limit
        self._running = 0

    @property
    def running(self) -> int:
        """How many calls run now."""
        return self._running

    def enter(self) -> None:
        """Count a call that begins. Raises StatusError UNKNOWN, as a peer does, when the limit is reached."""
        if self._running >= self._limit:
            raise StatusError(
                grpc.StatusCode.UNKNOWN,
                f"too many requests for /{self._service}, exceeding concurrency limit ({self._limit})",
            )
        self._running += 1

    def leave(self) -> None:
        """Count a call that ended."""
        self._running -= 1


class Service:
    """One gRPC service: methods over raw bytes under one concurrency limit."""

    def __init__(self, name: str, limit: int, pass_by: PassBy | None = None) -> None:
        """Make a service.

        Args:
            name: with its package, for example "protos.Endorser".
            limit: as in `ConcurrencyLimit`.
            pass_by: awaited with the name of the method before each call of one that is not a stream both ways; may raise
                StatusError.
        """
        self.name = name
        self._pass_by = pass_by
        self.limit = ConcurrencyLimit(name, limit)
        self.metrics = NodeMetrics()
        """What counts the calls; a node gives all its services one."""
        self.methods: dict[str, Method] = {}
        """What a server serves, by path."""

    def unary(self, name: str, method: UnaryMethod) -> None:
        """Add a method with one request and one response."""

        async def handler(context: Context) -> None:
            with self.metrics.call(self.name, name, is_stream=False) as call:
                try:
                    self.limit.enter()
                    try:
                        if self._pass_by is not None:
                            await self._pass_by(name)
                        await context.write(await method(await _only_request(context), context))
                        call.ended("OK")
                    finally:
                        self.limit.leave()
                except StatusError as error:
                    call.ended(error.code.name)
                    raise rpc_error(error) from None
                except Exception as error:
                    call.ended("INTERNAL")
                    raise self._defect(name, error) from None

        self.methods[f"/{self.name}/{name}"] = handler

    def stream(self, name: str, method: StreamMethod) -> None:
        """Add a method with one request and a stream of responses."""

        async def answer(context: Context) -> None:
            request = await _only_request(context)
            if self._pass_by is not None:
                await self._pass_by(name)
            async for response in method(request, context):
                await context.write(response)

        async def handler(context: Context) -> None:
            await self._streamed(name, answer(context))

        self.methods[f"/{self.name}/{name}"] = handler

    def duplex(self, name: str, method: DuplexMethod) -> None:
        """Add a method with a stream in both directions; the method uses the context's read and write."""

        async def handler(context: Context) -> None:
            await self._streamed(name, method(context))

        self.methods[f"/{self.name}/{name}"] = handler

    async def _streamed(self, name: str, answer: Coroutine[Any, Any, None]) -> None:
        with self.metrics.call(self.name, name, is_stream=True) as call:
            try:
                try:
                    self.limit.enter()
                except StatusError:
                    answer.close()
                    raise
                try:
                    await answer
                    call.ended("OK")
                finally:
                    self.limit.leave()
            except StatusError as error:
                call.ended(error.code.name)
                raise rpc_error(error) from None
            except Exception as error:
                call.ended("INTERNAL")
                raise self._defect(name, error) from None

    def _defect(self, method: str, error: Exception) -> RpcError:
        # The text of an unexpected error may hold data of the call, so the client gets none of it.
        _log.exception("call failed", service=self.name, method=method, error=type(error).__name__)
        return rpc_error(StatusError(grpc.StatusCode.INTERNAL, "internal error of the ledger, see its log"))


async def _only_request(context: Context) -> bytes:
    request = await context.read()
    if request is None:
        # As gRPC in Go says it (server.go processUnaryRPC reads until io.EOF).
        raise StatusError(grpc.StatusCode.INTERNAL, "the call has no request")
    return request
