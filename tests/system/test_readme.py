"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from commandline import ROOT

README = (ROOT / "README.md").read_text()


def test_the_code_gives_the_output_below_it(sovchain_network: Path) -> None:
    code, output = re.findall(r"```python\n(.*?)```\n+```\n(.*?)```", README, re.DOTALL)[0]
    assert "sovchain-network" in code
    program = code.replace("sovchain-network", str(sovchain_network))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, output), done.stderr


def test_every_command_of_the_tour_exists() -> None:
    commands = set(re.findall(r"^\$ sovchain (\w+(?: (?:admit|enact|verify))?)", README, re.MULTILINE))
    assert len(commands) == 10
    for command in commands:
        shown = subprocess.run(
            [sys.executable, "-m", "sovchain.cli", *command.split(), "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 0, command
        assert "--json" in shown.stdout, command
