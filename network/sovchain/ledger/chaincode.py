"""Connections of one peer to its chaincodes: the peer dials the instances of a package, or a chaincode dials the peer.

Mirrors core/chaincode/handler_registry.go, core/chaincode/chaincode_support.go and core/container/externalbuilder.
A package may name two instances of one chaincode (`connection.ChaincodeConnection.addresses`), which run under
different hash seeds and clocks, so that two simulations of one proposal show what is not deterministic.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from sovchain.ledger.chaincode_stream import (
    ERROR_STREAM_TERMINATED,
    EXECUTE_TIMEOUT_S,
    ChaincodeStream,
    ExecutionError,
    StreamRefusedError,
    Transport,
)
from sovchain.ledger.connection import ChaincodeConnection
from sovchain.ledger.dialling import DialError, RpcError, client_context, dialled
from sovchain.ledger.errors import LedgerError

_FIRST_BACKOFF_S: Final = 0.05
_MAX_BACKOFF_S: Final = 5.0
_BACKOFF_WHILE_WAITED_FOR_S: Final = 0.25
_END_TIMEOUT_S: Final = 2.0
_REASON_CHARACTERS: Final = 300

_log = structlog.get_logger("sovchain.ledger.chaincode")


class ChaincodeUnreachableError(LedgerError):
    """No instance of a chaincode could be reached in time.

    Attributes:
        package_id: package id of the chaincode.
        address: the instance that was dialled, "" if the chaincode is to dial the peer.
        reason: what the last attempt met.
    """

    def __init__(self, package_id: str, address: str, reason: str) -> None:
        where = f"connection to {address} failed: {reason}" if address else reason
        super().__init__(
            f"could not launch chaincode {package_id}: {where}; start the chaincode and send the proposal again"
        )
        self.package_id = package_id
        self.address = address
        self.reason = reason


class ChaincodeSupport:
    """The streams of one peer, by package id and instance. They open at first use and are kept open."""

    def __init__(
        self,
        connection_of: Callable[[str], ChaincodeConnection | None],
        *,
        execute_timeout_s: float = EXECUTE_TIMEOUT_S,
    ) -> None:
        """Make the registry.

        Args:
            connection_of: returns how an installed package's chaincode is reached, None if it is not installed.
            execute_timeout_s: limit of one transaction.
        """
        self._connection_of = connection_of
        self._execute_timeout_s = execute_timeout_s
        self._dialled: dict[tuple[str, str], _Instance] = {}
        self._registered: dict[str, ChaincodeStream] = {}

    def instances(self, package_id: str) -> int:
        """Return how many instances of the chaincode there are: 2 with a replica, else 1."""
        connection = self._connection_of(package_id)
        return max(1, len(connection.addresses)) if connection is not None else 1

    async def launch(self, package_id: str, instance: int) -> ChaincodeStream:
        """Return an open stream to an instance (counted modulo `instances`), dialling it if need be.

        Raises:
            ChaincodeUnreachableError: it cannot be reached within the package's dial_timeout.
        """
        connection = self._connection_of(package_id)
        if connection is None:
            raise ChaincodeUnreachableError(package_id, "", "the package is not installed")
        if not connection.addresses:
            stream = self._registered.get(package_id)
            if stream is None or not stream.is_ready:
                raise ChaincodeUnreachableError(package_id, "", "the chaincode has not connected to this peer")
            return stream
        address = connection.addresses[instance % len(connection.addresses)]
        dialled = self._dialled.get((package_id, address))
        if dialled is None:
            dialled = _Instance(package_id, address, connection, self._execute_timeout_s)
            self._dialled[package_id, address] = dialled
        return await dialled.stream()

    async def serve(self, transport: Transport) -> None:
        """Serve a chaincode that dialled the peer, until the stream ends.

        Raises:
            StreamRefusedError: the package is not installed, its connection.json names an address to dial, or a
                chaincode is connected under this name already.
        """
        stream = ChaincodeStream(lambda name: self._accept(name, stream), self._execute_timeout_s)
        try:
            await stream.run(transport)
        finally:
            if self._registered.get(stream.name) is stream:
                del self._registered[stream.name]
                _log.info("chaincode disconnected", chaincode=stream.name)

    def _accept(self, name: str, stream: ChaincodeStream) -> str | None:
        connection = self._connection_of(name)
        if connection is None or connection.addresses:
            return f"peer will not accept external chaincode connection {name} (except in dev mode)"
        if name in self._registered:
            return f"duplicate chaincodeID: {name}"
        self._registered[name] = stream
        _log.info("chaincode connected", chaincode=name)
        return None

    async def close(self) -> None:
        """End all streams that the peer dialled. Transactions that still run fail."""
        await asyncio.gather(*(instance.close() for instance in self._dialled.values()))
        self._dialled.clear()


class _Instance:
    """One dialled instance: a task that dials, serves the stream, and dials again after a pause."""

    def __init__(
        self, package_id: str, address: str, connection: ChaincodeConnection, execute_timeout_s: float
    ) -> None:
        self._package_id = package_id
        self._address = address
        self._connection = connection
        self._execute_timeout_s = execute_timeout_s
        self._stream: ChaincodeStream | None = None
        self._failure = "no attempt has ended yet"
        self._refused = False
        self._waiting = 0
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._keep_open())

    async def stream(self) -> ChaincodeStream:
        if self._stream is not None and self._stream.is_ready:
            return self._stream
        self._refused = False
        self._waiting += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(self._connection.dial_timeout_s):
                while not self._refused:
                    await self._changed.wait()
                    if self._stream is not None and self._stream.is_ready:
                        return self._stream
        except TimeoutError:
            pass  # the error below says what the last attempt met
        finally:
            self._waiting -= 1
        raise ChaincodeUnreachableError(self._package_id, self._address, self._failure)

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _keep_open(self) -> None:
        pause_s = _FIRST_BACKOFF_S
        while True:
            was_ready = await self._serve_once()
            pause_s = _FIRST_BACKOFF_S if was_ready else min(pause_s * 2, _MAX_BACKOFF_S)
            self._announce()
            self._wanted.clear()
            if self._waiting:
                await asyncio.sleep(min(pause_s, _BACKOFF_WHILE_WAITED_FOR_S))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()

    def _announce(self) -> None:
        """Wake those who wait for a stream, and make the next ones wait for the next change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _serve_once(self) -> bool:
        """Dial once and serve the stream to its end. Returns whether the handshake succeeded."""
        stream = ChaincodeStream(self._accept, self._execute_timeout_s)
        runner = asyncio.create_task(self._run(stream))
        ready = False
        try:
            async with asyncio.timeout(self._connection.dial_timeout_s):
                await self._shaken_hands(stream, runner)
            ready = True
            self._stream = stream
            self._announce()
            _log.info("connected to chaincode", chaincode=self._package_id, address=self._address)
            await asyncio.shield(runner)
            self._failure = "the chaincode ended the stream"
        except (ExecutionError, TimeoutError, StreamRefusedError, DialError, RpcError) as error:
            if isinstance(error, ExecutionError):
                # The stream has ended; why, its task says once it is done.
                await asyncio.wait([runner], timeout=_END_TIMEOUT_S)
            self._note_failure(runner, error)
        finally:
            self._stream = None
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
            if ready:
                _log.warning("chaincode stream ended", chaincode=self._package_id, reason=self._failure)
        return ready

    async def _run(self, stream: ChaincodeStream) -> None:
        async with dialled(self._address, client_context(self._connection.tls)) as opened:
            await stream.run_on(opened)

    async def _shaken_hands(self, stream: ChaincodeStream, runner: asyncio.Task[None]) -> None:
        """Wait for the handshake, or for the end of the attempt. Raises what it ended with."""
        ready = asyncio.create_task(stream.wait_ready())
        try:
            await asyncio.wait((ready, runner), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                await runner
                raise ExecutionError(ERROR_STREAM_TERMINATED)
            await ready
        finally:
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)

    def _note_failure(self, runner: asyncio.Task[None], error: Exception) -> None:
        cause: BaseException = error
        if runner.done() and not runner.cancelled() and (failure := runner.exception()) is not None:
            cause = failure
        if isinstance(cause, StreamRefusedError):
            self._refused = True
            reason = str(cause)
        elif isinstance(cause, TimeoutError):
            reason = f"no answer within {self._connection.dial_timeout_s:g} s"
        else:
            reason = str(cause)
        self._failure = reason[:_REASON_CHARACTERS]

    def _accept(self, name: str) -> str | None:
        if name != self._package_id:
            return f"the chaincode there registers as {name[:200]}"
        return None
