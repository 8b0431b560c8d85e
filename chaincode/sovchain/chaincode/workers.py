"""Threads for contract methods without `async`.

`concurrent.futures` has a fixed number of threads, so as many calls that hang would stop all others. Here a call that its
transaction has given up no longer counts: its thread ends when the call does, and another takes its place.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_THREADS = 32
"""Most contract methods without `async` that run at the same time."""

_Outcome: TypeAlias = "tuple[Any, BaseException | None]"


class Workers:
    """Threads that come as they are needed and are used again.

    Args:
        name: beginning of the threads' names.
        limit: most calls at the same time; further ones wait for their turn.
    """

    def __init__(self, name: str, limit: int = MAX_THREADS) -> None:
        self._name = name
        self._limit = limit
        self._running = 0
        self._idle: list[queue.SimpleQueue[_Job | None]] = []
        self._turns: deque[asyncio.Future[None]] = deque()
        self._made = 0

    async def run(self, call: Callable[[], Any]) -> Any:
        """The result of `call`, run in a thread with the context variables of the caller.

        When the caller is cancelled the call goes on alone, and what it returns or raises is dropped.
        """
        await self._turn()
        loop = asyncio.get_running_loop()
        job = _Job(contextvars.copy_context(), call, loop)
        self._give(job)
        try:
            result, error = await job.done
        finally:
            self._leave()
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the idle threads; the others end with their calls."""
        while self._idle:
            self._idle.pop().put(None)

    async def _turn(self) -> None:
        if self._running < self._limit:
            self._running += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1

    def _give(self, job: _Job) -> None:
        if self._idle:
            self._idle.pop().put(job)
            return
        jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        jobs.put(job)
        self._made += 1
        threading.Thread(target=self._work, args=(jobs,), name=f"{self._name} {self._made}", daemon=True).start()

    def _work(self, jobs: queue.SimpleQueue[_Job | None]) -> None:
        while (job := jobs.get()) is not None:
            if not job.run() or len(self._idle) >= self._limit:
                return  # the call was given up, so another thread has taken this one's place
            self._idle.append(jobs)


class _Job:
    """One call and the way back to its event loop."""

    def __init__(
        self, variables: contextvars.Context, call: Callable[[], Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.done: asyncio.Future[_Outcome] = loop.create_future()
        self._variables = variables
        self._call = call
        self._loop = loop

    def run(self) -> bool:
        """Run the call; whether somebody still waits for it."""
        outcome: _Outcome
        try:
            outcome = self._variables.run(self._call), None
        except BaseException as error:  # a future cannot carry StopIteration, nor a thread SystemExit
            outcome = None, error
        try:
            self._loop.call_soon_threadsafe(self._tell, outcome)
        except RuntimeError:  # the loop is closed
            return False
        return not self.done.cancelled()

    def _tell(self, outcome: _Outcome) -> None:
        if not self.done.done():
            self.done.set_result(outcome)
