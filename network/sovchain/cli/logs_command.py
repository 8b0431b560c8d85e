"""`sovchain network logs`: what the nodes say, merged by time and readable."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from sovchain.cli.app import DEFAULT_DIRECTORY, Directory, command
from sovchain.cli.problems import CommandError

if TYPE_CHECKING:
    from sovchain.network.nodelogs import LogLine

_STYLES: Final = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "fatal": "bold red"}
_LONGEST: Final = 600


@command
async def logs(
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...", help="Beginnings of log names: peer0.finance, orderer, chaincode-Finance, network."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Not before: 30s, 10m, 2h, 1d ago, or a date such as 2026-01-31T08:00:00Z.")
    ] = None,
    level: Annotated[str, typer.Option(help="At least: debug, info, warning, error or fatal.")] = "debug",
    lines: Annotated[
        int | None,
        typer.Option("--lines", "-n", min=0, help="So many of the newest; default 100, or all with --since."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Do not cut long lines.")] = False,
    directory: Directory = DEFAULT_DIRECTORY,
    as_json: Annotated[bool, typer.Option("--json", help="Print each line as a JSON document of its own.")] = False,
) -> None:
    """Print what nodes, chaincode processes and the network itself have logged, the oldest line first. Times are UTC."""
    from sovchain.network import nodelogs

    if level not in nodelogs.LEVELS:
        raise CommandError(
            f"unknown level {level[:40]!r}", "no log has such a level", f"use one of: {', '.join(nodelogs.LEVELS)}"
        )
    start = nodelogs.parse_since(since, datetime.now(UTC)) if since else None
    names = nodelogs.choose_logs(directory, nodes or [])
    keep = nodelogs.wanted_by(level, start) if since or level != nodelogs.LEVELS[0] else None
    printer = _Printer(max(map(len, names)), as_json=as_json, full=full)
    last = lines if lines is not None or since else 100
    following = nodelogs.FollowedLogs(directory, names) if follow else None
    for line in nodelogs.read_logs(directory, names, keep, last, following.offsets if following else None):
        printer.show(line)
    if following is not None:
        async for line in following.lines(keep):
            printer.show(line)


class _Printer:
    """Writes lines for a person, in colours on a terminal, or as JSON."""

    def __init__(self, width: int, *, as_json: bool, full: bool) -> None:
        self._width, self._json, self._full = width, as_json, full
        self._console = Console(highlight=False, soft_wrap=True)

    def show(self, line: LogLine) -> None:
        """Write one line, at once: it may be the last for long."""
        if self._json:
            sys.stdout.write(json.dumps(asdict(line), ensure_ascii=False, default=str) + "\n")
            sys.stdout.flush()
            return
        said = line.text + "".join(f" {name}={value}" for name, value in line.fields.items())
        if not self._full and len(said) > _LONGEST:
            said = f"{said[:_LONGEST]} … ({len(said) - _LONGEST} more characters: --full)"
        said = said.replace("\n", "\n    ")
        text = Text(f"{line.time:%Y-%m-%d %H:%M:%S}.{line.time.microsecond // 1000:03} {line.source:{self._width}} ")
        text.append(f"{line.level:7} ", style=_STYLES[line.level])
        text.append(f"{line.logger}: " if line.logger else "", style="cyan")
        text.append(said, style=_STYLES[line.level])
        self._console.print(text)
        self._console.file.flush()
