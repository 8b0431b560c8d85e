"""Reading what the nodes of a network have written into DIR/logs, merged by time.

Fabric's programs write JSON lines with `FABRIC_LOGGING_FORMAT=json` (common/flogging in Fabric), but their first words
and their panics are plain text; the network and the chaincode processes write JSON lines of another form. All of them
become a `LogLine`.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sovchain.network.errors import NetworkError, UnknownName

LEVELS: Final = ("debug", "info", "warning", "error", "fatal")
"""Levels of lines, the lowest first."""

_WORDS: Final = {"warn": "warning", "critical": "fatal", "panic": "fatal", "dpanic": "fatal", "exception": "error"}
_FABRIC: Final = frozenset({"level", "ts", "name", "caller", "msg", "stacktrace"})
_OURS: Final = frozenset({"level", "timestamp", "event", "logger"})
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_TEXT_TIME: Final = re.compile(r"^(\d{4})[-/](\d\d)[-/](\d\d) (\d\d:\d\d:\d\d(?:\.\d{1,6})?)(?: UTC)?\s*")
_TEXT_LEVEL: Final = re.compile(r"^[0-9a-f]{4} (DEBU|INFO|WARN|ERRO|FATA|PANI)\w*\s+")
_TEXT_LEVELS: Final = {"DEBU": "debug", "WARN": "warning", "ERRO": "error", "FATA": "fatal", "PANI": "fatal"}
_DURATION: Final = re.compile(r"(\d{1,9})(s|m|h|d)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MAX_LINE_BYTES: Final = 1024 * 1024
_BLOCK_BYTES: Final = 256 * 1024
_POLL_S: Final = 0.25
_START: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class LogLine:
    """One line of a log.

    Attributes:
        source: name of the log: a node's host, `chaincode-<organisation>`, or `network`.
        time: when it was written (UTC); that of the line before where it does not say, such as in a stack trace.
        level: one of `LEVELS`.
        logger: the part of the program that speaks; empty where it does not say.
        text: what is said.
        fields: what else the line holds.
    """

    source: str
    time: datetime
    level: str
    logger: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def parse_line(source: str, raw: bytes, before: datetime = _START) -> LogLine:
    """Read one line of a log, whatever it holds. `before` is the time of the line before it."""
    text = _COLOUR.sub("", raw.decode(errors="replace")).rstrip()
    if text.startswith("{"):
        try:
            document = json.loads(text)
            return _of_json(source, document, before)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError):
            pass  # it only looks like a line of ours, and is shown as it is
    return _of_text(source, text, before)


def _of_json(source: str, document: Mapping[str, Any], before: datetime) -> LogLine:
    if "msg" in document:
        time = datetime.fromtimestamp(float(document["ts"]), UTC) if "ts" in document else before
        text, logger, known = str(document["msg"]), str(document.get("name", "")), _FABRIC
        if document.get("stacktrace"):
            text += f"\n{document['stacktrace']}"
    else:
        stamp = document.get("timestamp")
        time = datetime.fromisoformat(stamp).astimezone(UTC) if isinstance(stamp, str) else before
        text, logger, known = str(document["event"]), str(document.get("logger", "")), _OURS
    fields = {name: value for name, value in document.items() if name not in known}
    return LogLine(source, time, _level(str(document.get("level", "info"))), logger, text, fields)


def _of_text(source: str, text: str, before: datetime) -> LogLine:
    time, level = before, "info"
    if stamp := _TEXT_TIME.match(text):
        year, month, day, clock = stamp.groups()
        try:
            time = datetime.fromisoformat(f"{year}-{month}-{day}T{clock}").replace(tzinfo=UTC)
        except ValueError:
            time = before
        text = text[stamp.end() :]
        if word := _TEXT_LEVEL.match(text):
            level, text = _TEXT_LEVELS.get(word.group(1), "info"), text[word.end() :]
    if text.startswith(("panic:", "fatal error:")):
        level = "fatal"
    elif text.startswith("Error:") or "Traceback" in text:
        level = "error"
    return LogLine(source, time, level, "", text)


def _level(word: str) -> str:
    lower = word.lower()
    return lower if lower in LEVELS else _WORDS.get(lower, "info")


def log_names(directory: Path) -> list[str]:
    """Names of the logs of a network, sorted: nodes, chaincode processes, and the network's own."""
    return sorted(path.stem for path in (directory / "logs").glob("*.log"))


def choose_logs(directory: Path, wanted: Sequence[str]) -> list[str]:
    """Return the logs whose names begin with one of `wanted`; all without any. Raises UnknownName, NetworkError."""
    names = log_names(directory)
    if not names:
        raise NetworkError(
            f"there are no logs in {directory}",
            "no network has been up there",
            "give the network's directory with --dir",
        )
    for beginning in wanted:
        if not any(name.startswith(beginning) for name in names):
            raise UnknownName("log", beginning, names)
    return [name for name in names if not wanted or name.startswith(tuple(wanted))]


def parse_since(text: str, now: datetime) -> datetime:
    """Read a moment: `30s`, `10m`, `2h` or `1d` before `now`, or a date with or without a time (UTC, RFC 3339).

    Raises NetworkError.
    """
    try:
        if found := _DURATION.fullmatch(text):
            return now - timedelta(**{_UNITS[found.group(2)]: int(found.group(1))})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise NetworkError(
            f"unknown time {text[:40]!r}",
            "it is neither a duration nor a date",
            "write 30s, 10m, 2h or 1d, or a date such as 2026-01-31 or 2026-01-31T08:00:00Z",
        ) from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def wanted_by(level: str, since: datetime | None) -> Callable[[LogLine], bool]:
    """Return a filter for lines of at least this level, not older than `since`."""
    lowest = LEVELS.index(level)
    return lambda line: LEVELS.index(line.level) >= lowest and (since is None or line.time >= since)


def read_logs(
    directory: Path,
    names: Sequence[str],
    keep: Callable[[LogLine], bool] | None = None,
    last: int | None = None,
    until: Mapping[str, int] | None = None,
) -> Iterator[LogLine]:
    """Return the lines of logs, oldest first, with what was put aside when a log was rotated.

    Args:
        keep: which lines; None: all.
        last: only so many of the newest; None: all.
        until: where each log is to end (`FollowedLogs.offsets`); None: at its end.
    """
    ends = until or {}
    enough = last if keep is None else None
    merged = heapq.merge(
        *(_lines(directory, name, enough, ends.get(name)) for name in names), key=lambda line: line.time
    )
    kept = merged if keep is None else filter(keep, merged)
    return iter(deque(kept, maxlen=last)) if last is not None else kept


def _lines(directory: Path, name: str, last: int | None, until: int | None) -> Iterator[LogLine]:
    """The lines of one log in the order in which they were written; `last`: at least so many of the newest."""
    time, current = _START, directory / f"logs/{name}.log"
    for path in (current.with_name(f"{current.name}.old"), current):
        try:
            with path.open("rb") as file:
                if last is not None:
                    file.seek(_start_of_last(path, last))
                while raw := file.readline(_MAX_LINE_BYTES):
                    if path is current and until is not None and file.tell() > until:
                        break
                    line = parse_line(name, raw, time)
                    # Threads of a program take the time and write in two steps; merging needs an order.
                    line = replace(line, time=max(line.time, time))
                    time = line.time
                    if line.text:
                        yield line
        except OSError:
            continue  # rotated away, or never written


def _start_of_last(path: Path, count: int) -> int:
    """Where the last `count` lines of a file begin."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        content = b""
        while end > 0 and content.count(b"\n") <= count:
            size = min(_BLOCK_BYTES, end)
            end = file.seek(end - size)
            content = file.read(size) + content
    parts = content.splitlines(keepends=True)
    return end + len(content) - sum(len(part) for part in parts[len(parts) - count :]) if count < len(parts) else end


class FollowedLogs:
    """What is written into logs from the making of this object on, also after a log was rotated.

    Give `offsets` to `read_logs` to read what was there before: together they have each line once.
    """

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self._tails = [_Tail(directory / f"logs/{name}.log", name) for name in names]
        for tail in self._tails:
            tail.skip()

    @property
    def offsets(self) -> dict[str, int]:
        """Where in its file each log's following begins, by the log's name."""
        return {tail.name: tail.offset for tail in self._tails}

    async def lines(self, keep: Callable[[LogLine], bool] | None = None) -> AsyncIterator[LogLine]:
        """The lines as they are written. Never ends."""
        while True:
            fresh = [line for tail in self._tails for line in tail.new() if keep is None or keep(line)]
            for line in sorted(fresh, key=lambda line: line.time):
                yield line
            if not fresh:
                await asyncio.sleep(_POLL_S)


class _Tail:
    """What is written to one log from now on."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self.name = path, name
        self.offset, self._inode, self._time = 0, 0, _START

    def skip(self) -> None:
        """Leave out what is there already."""
        for _ in self._read(everything=True):
            pass

    def new(self) -> Iterable[LogLine]:
        """The whole lines written since the last call."""
        for raw in self._read():
            line = parse_line(self.name, raw, self._time)
            self._time = line.time
            if line.text:
                yield line

    def _read(self, *, everything: bool = False) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                state = self._path.stat()
                if state.st_ino != self._inode or state.st_size < self.offset:
                    self.offset, self._inode = 0, state.st_ino  # it was rotated: emptied, or put aside and begun anew
                if everything:
                    self.offset = state.st_size
                    return []
                file.seek(self.offset)
                content = file.read(_MAX_LINE_BYTES)
        except OSError:
            return []
        whole = content.rfind(b"\n") + 1 or (len(content) if len(content) == _MAX_LINE_BYTES else 0)
        self.offset += whole
        return content[:whole].splitlines()
