"""What a runtime cannot do yet, said in code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest

MARKER: Final = "fabric_not_implemented"

T = TypeVar("T", bound=Callable[..., Any])


def not_implemented(
    *, runtime: str, reason: str, raises: type[Exception] | tuple[type[Exception], ...] = AssertionError
) -> Callable[[T], T]:
    """Say that a test function cannot pass on a runtime yet.

    On that runtime the test runs and must fail with `raises`: it fails the run as soon as it passes, so that a closed
    gap is noticed and this line removed. On every other runtime it is an ordinary test.

    Args:
        runtime: such as "embedded".
        reason: what is missing.
        raises: the error in which the gap shows; any other error is a failure.

    Raises:
        TypeError: it is put on a class, whose marks pytest would give to all tests of a class that inherits from it.
    """

    def decorate(test: T) -> T:
        if isinstance(test, type):
            raise TypeError("not_implemented goes onto single test functions, not onto a class")
        marked: T = mark(test)
        return marked

    mark = pytest.mark.fabric_not_implemented(runtime=runtime, reason=reason, raises=raises)
    return decorate


def gap_marks(node: pytest.Item, runtime: str) -> list[pytest.MarkDecorator]:
    """Return the expected failures of a test on a runtime."""
    return [
        pytest.mark.xfail(reason=mark.kwargs["reason"], raises=mark.kwargs["raises"], strict=True)
        for mark in node.iter_markers(MARKER)
        if mark.kwargs["runtime"] == runtime
    ]
