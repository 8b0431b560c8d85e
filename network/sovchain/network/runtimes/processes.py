"""Child processes that are watched, started again when they die, and found again after this process was killed.

Each child carries `PID_VARIABLE` in its environment, with the path of the file that holds its process number. A process
found by such a file after a kill counts as ours only when it carries the same path: process numbers are used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import structlog

from sovchain.network.files import write_file
from sovchain.network.logs import open_log, rotate_log

PID_VARIABLE: Final = "SOVCHAIN_PID_FILE"
STOP_TIMEOUT_S: Final = 5.0
"""How long a child may take to end before the next, harder, means."""
ROTATE_EVERY_S: Final = 15.0
"""How often the size of a child's log is looked at."""

_BACK_OFF_FIRST_S: Final = 0.1
_BACK_OFF_LAST_S: Final = 10.0
_STABLE_S: Final = 30.0
"""A child that ran this long starts its back-off from the beginning when it dies."""
_POLL_S: Final = 0.02

_log = structlog.get_logger("sovchain.network.processes")


@dataclass
class Supervised:
    """A child process, started again when it dies.

    Attributes:
        name: what it is called in logs and errors.
        command: program and arguments.
        environment: its whole environment; `PID_VARIABLE` is added.
        log_path: where its output goes, rotated when it has grown.
        pid_path: file that holds its process number while it runs.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log_path: Path
    pid_path: Path
    _piped: ClassVar[bool] = False
    """Whether standard input and output of the process are pipes to this one, else nothing and the log."""
    _stopping: bool = field(default=False, init=False)
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Start the process and the task that watches it, without waiting until it serves. Raises OSError."""
        self._stopping = False
        process = await self._spawn()
        self._task = asyncio.create_task(self._watch(process), name=f"watch {self.name}")

    async def stop(self) -> None:
        """End the process and wait for its end."""
        self._stopping = True
        if self._process is not None:
            await self._end(self._process)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._process is not None:  # the task may have been starting another one
            await self._end(self._process)
        self.pid_path.unlink(missing_ok=True)

    async def kill(self) -> None:
        """End the process at once (SIGKILL), and keep it down until the next `start`."""
        self._stopping = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self.stop()

    @property
    def exit_code(self) -> int | None:
        """How the process that was started last has ended; None while it runs."""
        return self._process.returncode if self._process is not None else None

    @property
    def pid(self) -> int:
        """Number of the process that was started last; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    async def _spawn(self) -> asyncio.subprocess.Process:
        with open_log(self.log_path) as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stderr=log,
                env={**self.environment, PID_VARIABLE: str(self.pid_path)},
                # A Ctrl-C on the terminal is for this process, which ends its children in order.
                start_new_session=True,
                stdin=subprocess.PIPE if self._piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._piped else log,
            )
        write_file(self.pid_path, str(self._process.pid).encode(), durable=False)
        return self._process

    async def _attend(self, process: asyncio.subprocess.Process) -> None:
        """What there is to do while the process runs: keep its log small."""
        while True:
            await asyncio.sleep(ROTATE_EVERY_S)
            try:
                rotate_log(self.log_path)
            except OSError as error:
                _log.error("log cannot be rotated", name=self.name, log=str(self.log_path), reason=str(error))

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Ask the process to end (SIGTERM), and kill it when it has not after `STOP_TIMEOUT_S`."""
        for ask in (process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                ask()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
                    return
        await process.wait()

    def _report_end(self, code: int) -> None:
        """Put the end of the process into the network's log."""
        _log.error("process ended", name=self.name, exit_code=code, log=str(self.log_path))

    def _ended_early(self, code: int) -> bool:
        """Whether the end of the process is final. By default it is started again."""
        return False

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        pause = _BACK_OFF_FIRST_S
        while True:
            started = loop.time()
            attending = asyncio.create_task(self._attend(process))
            try:
                code = await process.wait()
            finally:
                await _settled(attending)
            if self._stopping:
                return
            self._report_end(code)
            if self._ended_early(code):
                return
            pause = _BACK_OFF_FIRST_S if loop.time() - started > _STABLE_S else min(pause * 2, _BACK_OFF_LAST_S)
            process = await self._respawn(pause)

    async def _respawn(self, pause: float) -> asyncio.subprocess.Process:
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._spawn()
            except OSError as error:
                _log.error("process cannot be started", name=self.name, reason=str(error))
                pause = _BACK_OFF_LAST_S


async def _settled(task: asyncio.Task[None]) -> None:
    """Give a task that reads what a dead process left behind a moment to finish, then end it."""
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        async with asyncio.timeout(_POLL_S):
            await asyncio.shield(task)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def last_line(log: Path) -> str:
    """The last line of a log that says something, cut to 300 characters."""
    lines = tail(log)
    return lines[-1][:300] if lines else "it wrote nothing"


def tail(log: Path, size: int = 16 * 1024) -> list[str]:
    """The lines in the last `size` bytes of a log that say something."""
    try:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - size, 0))
            return [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def cause(log: Path) -> str:
    """Why a node ended: the first line of its last words that is a panic or a fatal error, else its last error."""
    lines = tail(log)
    for levels in (("panic", "fatal"), ("error",)):
        said = [words for line in lines if (words := _said(line, levels)) is not None]
        if said:
            return " ".join(said[0 if "panic" in levels else -1].split())[:300]
    return last_line(log)


def _said(line: str, levels: Sequence[str]) -> str | None:
    """What a line of one of these levels says; a panic of Go's runtime is plain text."""
    with contextlib.suppress(ValueError, AttributeError):
        document: dict[str, Any] = json.loads(line)
        return str(document.get("msg", "")) if document.get("level") in levels else None
    return line if line.startswith(("panic:", "fatal error:", "Error:")) and "panic" in levels else None


async def end_orphans(directory: Path, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """End what outlived a killed network in `directory`: wait, then SIGTERM, then SIGKILL, `timeout_s` seconds each.

    Children whose input is closed by the network's end are ending already, so waiting comes first for them; a peer or
    an ordering node is asked at once.
    """
    await asyncio.gather(*(_end_orphan(path, timeout_s) for path in sorted((directory / "run").glob("*.pid"))))


async def _end_orphan(path: Path, timeout_s: float) -> None:
    for means in _means(path):
        pid = orphan(path)
        if pid is None:
            break
        if means:
            _log.warning("ending a process that outlived its network", name=path.stem, pid=pid, signal=means)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, means)
        with contextlib.suppress(TimeoutError):
            # A killed process ends when the system gets to it, however short the patience before was.
            async with asyncio.timeout(timeout_s if means != signal.SIGKILL else STOP_TIMEOUT_S):
                await _gone(path)
                break
    path.unlink(missing_ok=True)  # noqa: ASYNC240  # one small file


async def _gone(path: Path) -> None:
    # The process is not a child of this one, so its end can only be looked for.
    while orphan(path) is not None:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)


def _means(path: Path) -> Iterator[int]:
    if path.stem.startswith("chaincode"):
        yield 0
    yield from (signal.SIGTERM, signal.SIGKILL)


def orphan(path: Path) -> int | None:
    """The number of the process that the file `path` was written for, if it still runs."""
    try:
        pid = int(path.read_bytes())
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (OSError, ValueError):
        return None
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except ProcessLookupError:
        environment = b""
    except OSError:
        return None
    # A process that is ending has lost its environment before it closes its ports.
    ours = not environment or f"{PID_VARIABLE}={path}".encode() in environment.split(b"\0")
    # Its first thread can be gone while others still hold its ports.
    ended = state == b"Z" and threads <= 1
    return pid if ours and not ended else None
