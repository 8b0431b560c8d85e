"""What all gRPC services of the embedded ledger have in common: raw-bytes handlers, limits, errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
import structlog

from sovchain.ledger.operations.metrics import NodeMetrics
from sovchain.ledger.rpcstatus import StatusError, abort

Context = grpc.aio.ServicerContext[Any, Any]
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
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def unary(self, name: str, method: UnaryMethod) -> None:
        """Add a method with one request and one response."""

        async def handler(request: bytes, context: Context) -> bytes:
            with self.metrics.call(self.name, name, is_stream=False) as call:
                try:
                    self.limit.enter()
                    try:
                        if self._pass_by is not None:
                            await self._pass_by(name)
                        response = await method(request, context)
                        call.ended("OK")
                        return response
                    finally:
                        self.limit.leave()
                except StatusError as error:
                    call.ended(error.code.name)
                    await abort(context, error)
                except Exception as error:
                    call.ended("INTERNAL")
                    await self._defect(name, context, error)
            return b""  # the client has left

        self._methods[name] = grpc.unary_unary_rpc_method_handler(handler)

    def stream(self, name: str, method: StreamMethod) -> None:
        """Add a method with one request and a stream of responses."""

        async def answer(request: bytes, context: Context) -> None:
            if self._pass_by is not None:
                await self._pass_by(name)
            async for response in method(request, context):
                await context.write(response)

        async def handler(request: bytes, context: Context) -> None:
            await self._streamed(name, context, answer(request, context))

        self._methods[name] = grpc.unary_stream_rpc_method_handler(handler)

    def duplex(self, name: str, method: DuplexMethod) -> None:
        """Add a method with a stream in both directions; the method uses the context's read and write."""

        async def handler(_requests: object, context: Context) -> None:
            await self._streamed(name, context, method(context))

        self._methods[name] = grpc.stream_stream_rpc_method_handler(handler)

    async def _streamed(self, name: str, context: Context, answer: Coroutine[Any, Any, None]) -> None:
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
                await abort(context, error)
            except Exception as error:
                call.ended("INTERNAL")
                await self._defect(name, context, error)

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """Return what a gRPC server registers."""
        return grpc.method_handlers_generic_handler(self.name, self._methods)

    async def _defect(self, method: str, context: Context, error: Exception) -> None:
        """End a call after an error that nobody foresaw. Returns when it was only that the client has left."""
        if isinstance(error, grpc.aio.AbortError | grpc.aio.UsageError):
            raise error  # the call has ended already: aborted here, or left by the client
        if isinstance(error, grpc.aio.InternalError):
            _log.debug("client left", service=self.name, method=method)
            return
        # The text of an unexpected error may hold data of the call, so the client gets none of it.
        _log.exception("call failed", service=self.name, method=method, error=type(error).__name__)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error of the ledger, see its log")
