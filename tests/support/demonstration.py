"""The demonstration, run as a user would, and what of its outcome does not depend on the run or the runtime."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

IDENTIFIER = re.compile(r"[0-9a-f]{16,}")


def shown(*options: str) -> dict[str, Any]:
    """What the demonstration shows, with these options."""
    command = [sys.executable, "-m", "sovchain.cli", "demo", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def essence(document: dict[str, Any]) -> dict[str, Any]:
    """What was shown, without ids, hashes, block numbers and times."""
    steps = [(step["step"], step["channel"], IDENTIFIER.sub("…", step["outcome"])) for step in document["steps"]]
    accesses = [
        {name: access[name] for name in ("channel", "msp_id", "dataset_name", "purpose", "decision", "reasons")}
        for access in document["accesses"]
    ]
    audit = [(channel["channel"], channel["ok"], len(channel["receipts"])) for channel in document["audit"]["channels"]]
    return {"steps": sorted(steps), "accesses": accesses, "audit": audit, "ok": document["ok"]}
