"""What watches calls: one hook for logs, metrics and traces. It never sees a payload."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol


class Observation(Protocol):
    """One thing that is being watched."""

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """What is to be sent along with a call, such as `traceparent`."""
        ...

    def end(self, status: str, elapsed_s: float) -> None:
        """It has ended: `OK`, the name of a gRPC status, or the name of an error."""


class Observer(Protocol):
    """Is told of every call to a gateway, and of every evaluation and submit as a whole.

    An observer must be quick and must not raise: it is called between the steps of a transaction.
    """

    def begin(self, name: str, attributes: Mapping[str, str]) -> Observation:
        """Something begins.

        Args:
            name: `Evaluate`, `Endorse`, `Submit` or `CommitStatus` for a call; `evaluate` or `submit` for the whole.
            attributes: `endpoint` for a call; `channel`, `chaincode` and `function` for the whole.
        """
        ...


class Seen:
    """The observations of one thing; set `status` to tell how it ended, where no exception does."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self.status = ""
        self.metadata: list[tuple[str, str]] = [pair for observation in observations for pair in observation.metadata]


@contextlib.contextmanager
def observing(observers: Sequence[Observer], name: str, attributes: Mapping[str, str]) -> Iterator[Seen]:
    """Tell all observers of what happens in the block."""
    started = time.monotonic()
    observations = [observer.begin(name, attributes) for observer in observers]
    seen = Seen(observations)
    status = "OK"
    try:
        yield seen
    except BaseException as error:
        status = type(error).__name__
        raise
    finally:
        for observation in reversed(observations):
            observation.end(seen.status or status, time.monotonic() - started)
