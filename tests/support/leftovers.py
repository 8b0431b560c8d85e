"""What a network has left behind on this machine."""

from __future__ import annotations

import json
from pathlib import Path

from sovchain.network.ports import is_free


def left_over(directory: Path) -> list[str]:
    """Command lines of processes that still use a network's directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (path / "environ").read_bytes(), (path / "cmdline").read_bytes()
        except OSError:
            continue
        if f"={directory}/".encode() in environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def ports_in_use(directory: Path) -> list[str]:
    """Services of a network on whose ports something still listens."""
    description = directory / "network.json"
    ports = json.loads(description.read_text())["ports"] if description.exists() else {}
    return [service for service, port in ports.items() if not is_free(port)]
