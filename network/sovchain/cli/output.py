"""How the command line speaks: tables and progress for people, JSON for programs, three lines for a problem."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

ProgressCallback = Callable[[str, int, int | None], None]


class Output:
    """Writes results to standard output and everything else to standard error.

    With `as_json` the result is one JSON document on standard output and nothing else is written there.
    A progress bar appears only when standard error is a terminal.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out = Console(highlight=False)
        self._err = Console(stderr=True, highlight=False)

    def result(self, data: Any, *lines: str) -> None:
        """Print `data` as JSON, or `lines` for a person."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=2, default=str) + "\n")
        else:
            for line in lines:
                self._out.print(line, markup=False, soft_wrap=True)

    def table(self, data: Any, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print `data` as JSON, or `rows` as a table for a person."""
        if self.as_json:
            self.result(data)
            return
        table = Table(title=title, title_justify="left", header_style="bold", show_edge=False, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        # Without a terminal rich would cut a table to 80 columns; a file or a pipe has no edge.
        console = self._out if self._out.is_terminal else Console(highlight=False, width=200)
        console.print(table)

    def say(self, text: str) -> None:
        """Tell a person something that is not the result."""
        if not self.as_json:
            self._err.print(text, markup=False, soft_wrap=True)

    def problem(
        self, what: str, why: str, remedy: str, details: Mapping[str, Any] | None = None, code: int = 1
    ) -> None:
        """Say a problem in three lines: what happened, why, what to do."""
        if self.as_json:
            document = {"error": {"what": what, "why": why, "do": remedy, "exit_code": code, **(details or {})}}
            sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2, default=str) + "\n")
            return
        for label, text in (("error", what), ("  why", why), ("   do", remedy)):
            self._err.print(f"{label}: {' '.join(text.split())}", markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[ProgressCallback]:
        """A callback `(step, done, total)` that moves a bar on a terminal and does nothing elsewhere."""
        if self.as_json or not self._err.is_terminal:
            yield lambda step, done, total: None
            return
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._err,
            transient=True,
        )
        with bar:
            task = bar.add_task(title, total=None)
            yield lambda step, done, total: bar.update(
                task, description=f"{title}: {step}", completed=done, total=total
            )

    @contextmanager
    def transfer(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """A callback `(bytes done, bytes in all)` that moves a bar with rate and time left on a terminal, and nothing elsewhere."""
        if self.as_json or not self._err.is_terminal:
            yield lambda done, total: None
            return
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._err,
            transient=True,
        )
        with bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
