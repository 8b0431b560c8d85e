"""The log of the runtime.

Nothing here may be given payloads, arguments, transient values or texts of foreign exceptions: they can hold what is
private. structlog is loaded with the first line that is written, which keeps it out of the start-up time.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

LEVEL_VARIABLE = "SOVCHAIN_LOG_LEVEL"
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
MAX_FRAMES = 50


class Log:
    """A lazily made structlog logger with a threshold of its own (`SOVCHAIN_LOG_LEVEL`, default `info`)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: Any = None
        self.threshold = LEVELS.get(os.environ.get(LEVEL_VARIABLE, "info").lower(), LEVELS["info"])

    @property
    def debugs(self) -> bool:
        """Whether debug lines are written; ask before collecting what only they need."""
        return self.threshold <= LEVELS["debug"]

    def debug(self, event: str, **fields: Any) -> None:
        """What only a developer of the runtime wants to see."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """What an operator wants to see once: a service listens, a peer comes and goes."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What an operator should look into."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """What failed."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if LEVELS[level] < self.threshold:
            return
        if self._logger is None:
            import structlog

            if _command_line:
                _configure()
            self._logger = structlog.get_logger(self._name)
        getattr(self._logger, level)(event, **fields)


_command_line = False


def configure_lazily() -> None:
    """Write JSON lines to standard error from the first line on. A library leaves structlog to its host instead."""
    global _command_line
    _command_line = True


def _configure() -> None:
    import structlog

    if structlog.is_configured():
        return  # by another logger of this module, or by the chaincode's own code
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def frames(error: BaseException) -> list[str]:
    """Where an exception came from: types, files, lines and functions, causes first, and no text or value."""
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(lines) < MAX_FRAMES:
        seen.add(id(current))
        lines[:0] = [*_walk(current.__traceback__), f"raised {type(current).__qualname__}"]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return lines[-MAX_FRAMES:]


def _walk(trace: TracebackType | None) -> list[str]:
    found = []
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_qualname}")
        trace = trace.tb_next
    return found
