"""How a process asks the one that runs a network to change it: a Unix socket in the network's directory.

    DIR/run/control.sock    mode 0600; only processes of the same user are heard

One request for each connection, as one line of JSON; then events, one line each, until the last: `result` or `error`. When
the one who asked goes away, the change ends where it is; the next `apply` goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sovchain.ledger.errors import LedgerError
from sovchain.network.errors import NetworkError, NotUp
from sovchain.network.topology import Topology

PROTOCOL: Final = 1
_SOCKET: Final = "control.sock"
_LINE_MAX_BYTES: Final = 4 * 1024 * 1024
_REQUEST_TIMEOUT_S: Final = 10.0
_log = structlog.get_logger("sovchain.network.control")

Progress = Callable[[str, int, int], None]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ApplyRequest(_Message):
    """Bring the network to `topology`, or to what it is noted to become if that is None."""

    protocol: Literal[1] = PROTOCOL
    ask: Literal["apply"] = "apply"
    topology: Topology | None = None


class LedgerRequest(_Message):
    """Do with the embedded ledger what `sovchain.ledger.tools.LedgerTools` offers; `do` is the method."""

    protocol: Literal[1] = PROTOCOL
    ask: Literal["ledger"] = "ledger"
    do: str
    arguments: dict[str, Any] = Field(default_factory=dict)


Request = ApplyRequest | LedgerRequest


class ProgressEvent(_Message):
    """A step has ended."""

    event: Literal["progress"] = "progress"
    step: str
    done: int
    total: int


class ResultEvent(_Message):
    """All has ended; `result` is what was asked for."""

    event: Literal["result"] = "result"
    result: dict[str, Any]


class ErrorEvent(_Message):
    """It has ended with an error."""

    event: Literal["error"] = "error"
    kind: str
    what: str
    why: str
    remedy: str
    details: dict[str, Any] = Field(default_factory=dict)


_EVENT: Final[TypeAdapter[ProgressEvent | ResultEvent | ErrorEvent]] = TypeAdapter(
    Annotated[ProgressEvent | ResultEvent | ErrorEvent, Field(discriminator="event")]
)
_REQUEST: Final[TypeAdapter[Request]] = TypeAdapter(Annotated[Request, Field(discriminator="ask")])
Handler = Callable[[Request, Progress], Awaitable[dict[str, Any]]]


class RemoteError(NetworkError):
    """The process that runs the network has refused; `kind` is the name of its error, whose fields this one has."""

    def __init__(self, event: ErrorEvent) -> None:
        super().__init__(event.what, event.why, event.remedy, **event.details)
        self.kind = event.kind


@contextlib.contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """A path of the socket that fits into an address, however long the directory's is (108 bytes on Linux)."""
    path = directory / "run" / _SOCKET
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    descriptor = os.open(directory / "run", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)


@asynccontextmanager
async def listening(directory: Path, handler: Handler) -> AsyncIterator[None]:
    """Answer requests for the length of the block. Whoever holds the directory's lock may call this."""
    path = directory / "run" / _SOCKET
    path.unlink(missing_ok=True)  # of a process that was killed; the lock says that none runs
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _serve(reader, writer, handler)
        finally:
            tasks.discard(task)
            writer.close()

    with listener, _short_path(directory) as address:
        previous = os.umask(0o177)
        try:
            listener.bind(address)
        finally:
            os.umask(previous)
        server = await asyncio.start_unix_server(serve, sock=listener, limit=_LINE_MAX_BYTES)
        try:
            yield
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            path.unlink(missing_ok=True)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    def send(event: ProgressEvent | ResultEvent | ErrorEvent) -> None:
        if not writer.is_closing():
            writer.write(event.model_dump_json().encode() + b"\n")

    if not _is_same_user(writer):
        _log.warning("a request of another user was refused")
        return
    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            request = _REQUEST.validate_json(await reader.readuntil(b"\n"))
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValidationError) as error:
        send(_error(_unreadable(error)))
        return
    work = asyncio.ensure_future(handler(request, lambda step, done, total: send(_progress(step, done, total))))
    gone = asyncio.ensure_future(reader.read(1))  # nothing more is said, so this ends when the other side closes
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            _log.warning("the one who asked has gone; the change ends here")
            return
        send(ResultEvent(result=await work))
    except Exception as error:  # whatever it is goes to the one who asked
        _log.error("request failed", ask=request.ask, error=f"{type(error).__name__}: {error}")
        send(_error(error))
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
        with contextlib.suppress(OSError):
            await writer.drain()


def _progress(step: str, done: int, total: int) -> ProgressEvent:
    return ProgressEvent(step=step, done=done, total=total)


def _is_same_user(writer: asyncio.StreamWriter) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the file's mode is what there is
    connection = writer.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return bool(uid == os.getuid())


def _unreadable(error: BaseException) -> NetworkError:
    why = f"{error.error_count()} wrong entries" if isinstance(error, ValidationError) else type(error).__name__
    return NetworkError(
        "the request cannot be understood", why, "ask with the version of sovchain that brought the network up"
    )


def _error(error: Exception) -> ErrorEvent:
    if isinstance(error, NetworkError):
        details = json.loads(json.dumps(dict(error.details), default=str))
        return ErrorEvent(
            kind=type(error).__name__, what=error.what, why=error.why, remedy=error.remedy, details=details
        )
    if isinstance(error, LedgerError):
        what, _, why = str(error).partition(": ")
        why, _, remedy = why.partition("; ")
        remedy = remedy or "correct what it names"
        return ErrorEvent(kind=type(error).__name__, what=what, why=why or type(error).__name__, remedy=remedy)
    what, _, why = str(error).partition(": ")
    return ErrorEvent(
        kind=type(error).__name__,
        what=what or type(error).__name__,
        why=why or type(error).__name__,
        remedy="correct the cause and apply again: what is done already is kept",
    )


async def ask(directory: Path, request: Request, progress: Progress | None = None) -> dict[str, Any]:
    """Ask the process that runs the network in a directory, and return its answer.

    Raises NotUp when no process listens there, RemoteError with what it refuses.
    """
    try:
        with _short_path(directory) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=_LINE_MAX_BYTES)
    except OSError as error:
        raise NotUp(directory, f"its process takes no requests ({error.strerror or error})") from None
    try:
        writer.write(request.model_dump_json().encode() + b"\n")
        await writer.drain()
        while line := await reader.readline():
            event = _EVENT.validate_json(line)
            if isinstance(event, ResultEvent):
                return event.result
            if isinstance(event, ErrorEvent):
                raise RemoteError(event)
            if progress is not None:
                progress(event.step, event.done, event.total)
    except ConnectionError:
        pass
    finally:
        writer.close()
    raise NotUp(directory, "its process ended before the change was completed")
