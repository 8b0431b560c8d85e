"""A program that runs one network until its input ends; `hosted.HostedNetwork` starts it.

    python -m sovchain.testing.host DIRECTORY RUNTIME [TOPOLOGY]

It writes one JSON object for each thing that it has done, and reads one for each thing to do. When the process that
started it ends, however it does, its input ends, and so does the network.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from sovchain.network import Network, NetworkError
from sovchain.testing.faults import faults_of


async def run(directory: Path, runtime: str, topology: Path | None, out: TextIO) -> int:
    """Run the network; return the exit code of the program."""
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    try:
        async with Network.up(topology, runtime, directory) as network:
            offered = faults_of(network)
            _tell(out, {"up": str(network.directory), "targets": list(offered.targets()) if offered else []})
            while line := await commands.readline():
                _tell(out, await _answer(network, json.loads(line)))
    except Exception as error:  # whatever it is belongs to the test that asked, not to this program's log
        _tell(out, _described(error))
        return 1
    return 0


async def _answer(network: Network, command: dict[str, str]) -> dict[str, Any]:
    offered = faults_of(network)
    try:
        if command["do"] == "snapshot":
            await network.ledger.snapshot(command["target"])
            return {"done": command["do"]}
        if command["do"] == "revert":
            await network.ledger.revert(command["target"])
            return {"done": command["do"]}
        assert offered is not None  # the other side asks only for what was told
        if command["do"] == "kill":
            await offered.kill(command["target"])
        else:
            await offered.start(command["target"])
    except Exception as error:
        return _described(error)
    return {"done": command["do"]}


def _described(error: Exception) -> dict[str, Any]:
    if isinstance(error, NetworkError):
        described = {"what": error.what, "why": error.why, "remedy": error.remedy}
    else:
        described = {"what": "it failed", "why": repr(error), "remedy": "see the network's logs"}
    return {"error": {"kind": type(error).__name__, **described}}


def _tell(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def main(arguments: list[str]) -> int:
    """Take the program's own output out of the way of the messages, then run the network."""
    directory, runtime, *topology = arguments
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        return asyncio.run(run(Path(directory), runtime, Path(topology[0]) if topology else None, out))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
