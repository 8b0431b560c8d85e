"""What containers say, in DIR/logs as of native nodes: followed by a process for each, which outlives this one if need be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sovchain.network.runtimes.processes import Supervised

_DRAIN_S: Final = 2.0
_KEPT: Final = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR")


@dataclass
class Follower(Supervised):
    """Writes what a container says into a file. When the container ends, it goes on once that runs again."""

    container: str = ""
    _since: float = field(default=0.0, init=False)

    @classmethod
    def of(cls, docker: str, directory: Path, name: str, container: str) -> Follower:
        """Follow a container into DIR/logs/<name>.log."""
        return cls(
            name=f"log of {name}",
            command=[docker],
            environment={key: os.environ[key] for key in _KEPT if key in os.environ},
            log_path=directory / f"logs/{name}.log",
            pid_path=directory / f"run/log-{name}.pid",
            container=container,
        )

    async def drain(self) -> None:
        """Let it write what a container that has ended said last, then end it."""
        self._stopping = True
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    await self._process.wait()
        await self.stop()

    async def _spawn(self) -> asyncio.subprocess.Process:
        self.command = [self.command[0], "logs", "--follow", "--since", f"{self._since:.6f}", self.container]
        return await super()._spawn()

    def _report_end(self, code: int) -> None:
        self._since = time.time()
