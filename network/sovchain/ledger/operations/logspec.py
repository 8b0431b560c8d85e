"""Fabric's logging specification: which loggers write from which level on.

Mirrors common/flogging/loggerlevels.go and levels.go of fabric-lib-go. The nodes of one process share one, as the
loggers of one peer do; what has effect is what a program that configures structlog with `drop_below_level` logs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import structlog

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "dpanic": logging.CRITICAL,
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
    "notice": logging.INFO,  # as go-logging had it
    "critical": logging.ERROR,
}
_SHOWN: Final[Mapping[str, str]] = {"warning": "warn", "notice": "info", "critical": "error"}
_NAME: Final = re.compile(r"[A-Za-z0-9_#:-]+(\.[A-Za-z0-9_#:-]+)*")
MAX_SPEC_CHARACTERS: Final = 10_000


class LogSpecError(ValueError):
    """A specification cannot be used; the text is Fabric's."""


class LogLevels:
    """Levels of loggers by the beginnings of their names."""

    def __init__(self, spec: str = "info") -> None:
        """Raises LogSpecError."""
        self._default = "info"
        self._levels: dict[str, str] = {}
        self._known: dict[str, int] = {}
        self.activate(spec)

    def activate(self, spec: str) -> None:
        """Take over `[<logger>[,<logger>...]=]<level>[:[<logger>[,<logger>...]=]<level>...]`. Raises LogSpecError."""
        if len(spec) > MAX_SPEC_CHARACTERS:
            raise LogSpecError(f"invalid logging specification: longer than {MAX_SPEC_CHARACTERS} characters")
        default, levels = "info", dict[str, str]()
        for segment in spec.split(":"):
            names, *rest = segment.split("=")
            if len(rest) > 1 or (segment and (rest or [names])[0].lower() not in _LEVELS):
                raise LogSpecError(f"invalid logging specification '{spec}': bad segment '{segment}'")
            if not rest:
                default = names.lower() or "info"
                continue
            if not names:
                raise LogSpecError(
                    f"invalid logging specification '{spec}': no logger specified in segment '{segment}'"
                )
            for name in names.split(","):
                if not _NAME.fullmatch(name.removesuffix(".")):
                    raise LogSpecError(f"invalid logging specification '{spec}': bad logger name '{name}'")
                levels[name] = rest[0].lower()
        self._default, self._levels, self._known = default, levels, {}

    @property
    def spec(self) -> str:
        """The specification in force, normalised."""
        fields = sorted(f"{name}={_SHOWN.get(level, level)}" for name, level in self._levels.items())
        return ":".join([*fields, _SHOWN.get(self._default, self._default)])

    def level(self, name: str) -> int:
        """From which level on (`logging`'s numbers) a logger writes. A name that ends with a dot stands for itself only."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = _LEVELS[self._calculated(name)]
        return known

    def _calculated(self, name: str) -> str:
        candidate = f"{name}."
        while candidate:
            if candidate in self._levels:
                return self._levels[candidate]
            candidate = candidate[: max(candidate.rfind("."), 0)]
        return self._default


LEVELS: Final = LogLevels()
"""Those of this process."""


def drop_below_level(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: drop what the logger, by its attribute `name`, does not write at present."""
    if _LEVELS.get(method, logging.ERROR) < LEVELS.level(getattr(logger, "name", "")):
        raise structlog.DropEvent
    return event
