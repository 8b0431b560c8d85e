"""Notices when a contract blocks the event loop, and ends that when it lasts.

A contract method with `async` runs on the event loop, beside all others; if it computes without end or waits without
`await`, nobody else is served. Nothing in asyncio can stop it. So a thread looks on: it names the place where the loop
stands still, and after the time that a transaction may take it raises `BlockedLoopError` there.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from sovchain.chaincode.errors import ChaincodeError
from sovchain.rpc.log import MAX_FRAMES, Log

if TYPE_CHECKING:
    from types import FrameType

PERIOD_S: Final = 0.5
WARN_S: Final = 1.0
"""After this time without a turn of the event loop a line in the log says where it stands."""
TASK_PREFIX: Final = "transaction "

log = Log("sovchain.chaincode.watchdog")


class BlockedLoopError(ChaincodeError):
    """Raised in a contract that has kept the event loop from all others for as long as a transaction may take."""


class Watchdog:
    """Watches the event loop of the thread that makes it, from `start` to `stop`.

    Args:
        limit_s: after this time the transaction that blocks the loop is ended, in seconds.
        period_s: how often to look, in seconds.
    """

    def __init__(self, limit_s: float, period_s: float = PERIOD_S) -> None:
        self._limit_s = limit_s
        self._period_s = period_s
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._stopped = threading.Event()
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="event loop watchdog", daemon=True)

    @property
    def blocked_s(self) -> float:
        """How long the loop has not turned, in seconds."""
        return max(time.monotonic() - self._beat - self._period_s, 0.0)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()

    def _mark(self) -> None:
        self._beat = time.monotonic()

    def _watch(self) -> None:
        warned = False
        while not self._stopped.wait(self._period_s):
            try:
                self._loop.call_soon_threadsafe(self._mark)
            except RuntimeError:  # the loop is closed
                return
            blocked_s = self.blocked_s
            if blocked_s < WARN_S:
                warned = False
            elif not warned:
                warned = True
                log.error("event loop blocked", seconds=round(blocked_s, 1), task=self._task(), at=self._where())
            if blocked_s > self._limit_s and self._task().startswith(TASK_PREFIX):
                log.error("blocking transaction ended", task=self._task(), at=self._where())
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread_id), ctypes.py_object(BlockedLoopError)
                )
                self._beat = time.monotonic()  # it may take a moment; do not raise it twice meanwhile

    def _task(self) -> str:
        task = asyncio.current_task(self._loop)
        return "" if task is None else task.get_name()

    def _where(self) -> list[str]:
        """Where the loop's thread is: files, lines and functions, and no value."""
        frame: FrameType | None = sys._current_frames().get(self._thread_id)
        lines: list[str] = []
        while frame is not None and len(lines) < MAX_FRAMES:
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
            frame = frame.f_back
        return lines[:10]
