"""Drives the `sovchain` command as a user would, from tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
LAW = EXAMPLES / "laws" / "guiyang-data-sharing.cedar"


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Sovchain:
    """The command line on one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *arguments: str | Path, timeout_s: float = 150) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "sovchain.cli", *map(str, arguments), "--dir", str(self.directory)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str | Path) -> Any:
        """Run with --json, expect success, give the document."""
        done = self.run(*arguments, "--json")
        assert done.code == 0, (arguments, done.out, done.err)
        return done.json

    def up(self) -> Any:
        return self.ok("up", "--detach")

    def down(self) -> None:
        self.run("down")

    def kill(self) -> None:
        """End the network's process as a power cut would."""
        os.kill(self.ok("status")["pid"], signal.SIGKILL)

    def found(self, channel: str = "finance") -> None:
        """Admit the organisations and enact the sample law."""
        sector = {"finance": "Finance", "logistics": "Logistics"}[channel]
        seats = f"Government,Supervisor,{sector}"
        admitted = self.ok(
            "registry", "admit", EXAMPLES / "registry" / f"{channel}.yaml", "--channel", channel, "--as", seats
        )
        assert admitted["state"] == "passed", admitted
        assert self.ok("law", "enact", LAW, "--channel", channel, "--as", seats)["state"] == "passed"

    def share(self, file: Path, purpose: str = "credit-assessment") -> Any:
        return self.ok("share", file, "--channel", "finance", "--as", "Government", "--purpose", purpose)
