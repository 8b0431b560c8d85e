"""Cancels a coroutine at a chosen one of its awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class CancelAt:
    """Runs a coroutine in the task that awaits this, and cancels the task when it waits for the nth time (from 1).

    Attributes:
        waits: how often it has waited.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: int) -> None:
        self._coroutine = coroutine
        self._at = at
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        try:
            waited_for = next(steps)
            while True:
                self.waits += 1
                if self.waits == self._at:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                try:
                    answer = yield waited_for
                except BaseException as error:
                    waited_for = steps.throw(error)
                else:
                    waited_for = steps.send(answer)
        except StopIteration as done:
            return done.value


async def run(waiting: CancelAt) -> Any:
    """Await it, as the coroutine of a task."""
    return await waiting
