"""Options and closing lines of the whole suite."""

from __future__ import annotations

from collections import Counter

import pytest

MISSING = "missing program: "


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run what takes longer than CI allows")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    kept, left = [], []
    for item in items:
        (left if item.get_closest_marker("long") else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was skipped because a program is missing, and how to get it.

    A test skips with the reason `missing program: NAME: how to get it`.
    """
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        text = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if MISSING in text:
            reasons[text.split(MISSING, 1)[1]] += 1
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped for a missing program: {reason}")
