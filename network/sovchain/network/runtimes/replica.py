"""Starts a program under a shifted wall clock: the second instance of every chaincode.

Run by path, so that nothing else is imported before the clock is shifted:

    python replica.py SHIFT_S MODULE [ARGUMENT...]

A chaincode that reads the clock instead of the transaction's time gives another result here, and the ledger names the
key.
"""

from __future__ import annotations

import datetime
import importlib
import runpy
import sys
from types import ModuleType


def main(arguments: list[str]) -> None:
    """Shift the clock by the first argument (seconds, may be negative) and run the module with the remaining ones."""
    shift_s, module, *remaining = arguments
    now = datetime.datetime.now(datetime.UTC)
    travel = _time_machine().travel(now + datetime.timedelta(seconds=int(shift_s)), tick=True)
    travel.start()
    sys.argv = [module, *remaining]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _time_machine() -> ModuleType:
    """Import time_machine without pytest, which it looks for and which takes longer to import than all the rest."""
    hidden = sys.modules.get("pytest")
    sys.modules["pytest"] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        return importlib.import_module("time_machine")
    finally:
        if hidden is None:
            del sys.modules["pytest"]
        else:
            sys.modules["pytest"] = hidden


if __name__ == "__main__":
    main(sys.argv[1:])
