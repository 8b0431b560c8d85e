"""The thread in which the asynchronous client runs for the blocking one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sovchain.client.errors import GatewayClosed, OutcomeUnknown

T = TypeVar("T")


class Portal:
    """An event loop in a thread of its own. Any thread may use it; it ends with `close`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sovchain-client", daemon=True)
        self._thread.start()
        self.wrap_commit: Callable[[Any], Any] = lambda commit: commit

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it. An interrupted wait (Ctrl-C) cancels it. Raises what it raises."""
        if self._loop.is_closed():
            coroutine.close()
            raise GatewayClosed
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except OutcomeUnknown as unknown:
            if unknown.commit is not None:
                unknown.commit = self.wrap_commit(unknown.commit)
            raise
        except BaseException:
            if not future.done():
                future.cancel()
                # What was cancelled ends before its caller goes on, and its errors are nobody's.
                concurrent.futures.wait([future], timeout=5.0)
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Run a function there, for what must be made on the loop that uses it."""

        async def called() -> T:
            return function()

        return self.run(called())

    def close(self) -> None:
        """End the thread. May be called more than once."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
