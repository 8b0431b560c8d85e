"""Claims on port numbers among the processes of one user, until somebody listens on them.

Between the moment when a port is found free and the one when a node listens on it lie the making of keys and the start of
other nodes. A second network that starts meanwhile would find the same port free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

GRAIN: Final = 32
"""Ports that are claimed together: a file for each so many, locked by whoever has the claim."""
HELD_S: Final = 180.0
"""How long a claim lasts, unless its process ends before: longer than a network takes to start."""

_held: list[tuple[float, int]] = []


def claim(first: int, count: int) -> bool:
    """Whether the ports from `first` on are this caller's for `HELD_S` seconds. Others are told False meanwhile."""
    _release(time.monotonic() - HELD_S)
    folder = _folder()
    if folder is None:
        return True
    taken: list[int] = []
    for grain in range(first // GRAIN, (first + count - 1) // GRAIN + 1):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(folder / str(grain), flags, 0o600)
        except OSError:  # a full disk: what cannot be claimed is still tested
            continue
        taken.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            for one in taken:
                os.close(one)
            return False
    _held.extend((time.monotonic(), descriptor) for descriptor in taken)
    return True


def _release(before: float) -> None:
    while _held and _held[0][0] <= before:
        os.close(_held.pop(0)[1])


def _folder() -> Path | None:
    """Where the files are; None where somebody else has taken its name: then nothing is claimed, only tested."""
    folder = Path(tempfile.gettempdir()) / f"sovchain-ports-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    return folder if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() else None
