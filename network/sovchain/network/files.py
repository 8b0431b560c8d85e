"""Writing files that are whole or absent, and readable by their owner only."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

UNFINISHED: Final = ".unfinished-"
"""Start of the names of files and folders that were being written; what is left of them after a kill can be deleted."""


def make_folder(path: Path) -> None:
    """Create a folder and those above it, for their owner only (0700)."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def write_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put `content` in place of the file in one step, mode 0600: a reader sees the old content or the new one.

    With `durable` it also survives a loss of power.
    """
    waiting = path.with_name(f"{UNFINISHED}{secrets.token_hex(4)}-{path.name}")
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    waiting.replace(path)


def write_tree(root: Path, files: Mapping[str, bytes], folders: Iterable[str] = ()) -> None:
    """Create the folder `root` with all these files, by their paths below it, in one step: all of it or nothing.

    Raises FileExistsError when `root` exists.
    """
    if root.exists():
        raise FileExistsError(root)
    make_folder(root.parent)
    waiting = root.with_name(f"{UNFINISHED}{secrets.token_hex(4)}-{root.name}")
    made: set[str] = set()

    def make(folder: str) -> None:
        if folder in made:
            return
        above, _, _ = folder.rpartition("/")
        if folder:
            make(above)
        os.mkdir(f"{waiting}/{folder}", 0o700)
        made.add(folder)

    make("")
    for folder in folders:
        make(folder)
    for name, content in files.items():
        make(name.rpartition("/")[0])
        descriptor = os.open(f"{waiting}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{waiting}/{name}")
        finally:
            os.close(descriptor)
    waiting.replace(root)


def clean(folder: Path) -> None:
    """Delete what an interrupted `write_file` or `write_tree` left directly in `folder`."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
