"""The command starts quickly: what a command needs is imported when it runs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("grpc", "cryptography", "pydantic", "sovchain.network", "sovchain.contracts", "sovchain.client")


def test_the_command_tree_imports_nothing_that_only_commands_need() -> None:
    code = f"import sys, sovchain.cli.commands; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
