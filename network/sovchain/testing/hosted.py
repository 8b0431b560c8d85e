"""A network in a process of its own, held by a test session.

Tests may run on any event loop, or on none: they share no loop with the network. The network ends with the process
that holds it, however that ends.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from sovchain.network import Network, Topology
from sovchain.testing.faults import NotOffered

START_TIMEOUT_S: Final = 180.0
"""How long a network may take to come up."""
ANSWER_TIMEOUT_S: Final = 60.0
"""How long a node may take to be ended or started."""
STOP_TIMEOUT_S: Final = 60.0
"""How long a network may take to go down before its process is killed."""
_ATTEMPTS: Final = 3


class HostFailed(Exception):
    """The network did not come up, or could not do what it was asked to.

    `kind` is the name of the error class, such as `RuntimeUnavailable`; `what`, `why` and `remedy` are those of
    `sovchain.network.NetworkError`.
    """

    def __init__(self, kind: str, what: str, why: str, remedy: str) -> None:
        super().__init__(f"{what}: {why}; {remedy}")
        self.kind = kind
        self.what = what
        self.why = why
        self.remedy = remedy


class HostedNetwork:
    """A network in a process of its own. `start` brings it up; use it as a context manager to have it taken down.

    Attributes:
        directory: where it lives.
        runtime: what it runs on.
    """

    def __init__(
        self, directory: Path, runtime: str = "embedded", topology: Topology | Path | str | None = None
    ) -> None:
        """Args: as for `Network.up`; `directory` should be one that this object may create."""
        self.directory = directory
        self.runtime = runtime
        self._wanted = topology
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._started = False
        self._targets: tuple[str, ...] = ()

    def __enter__(self) -> HostedNetwork:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def topology(self) -> Topology:
        """The topology that the network in the directory was brought up with. Raises NotUp."""
        stored = Network.status(self.directory).topology
        if stored is None:
            raise HostFailed("NotUp", "there is no network yet", f"{self.directory} holds none", "start it first")
        return stored

    def attach(self) -> AbstractAsyncContextManager[Network]:
        """Use the network from this process, on the event loop that runs. Raises NotUp."""
        return Network.attach(self.directory)

    def start(self) -> None:
        """Bring the network up, on what the directory holds.

        A new directory is tried again when another program took one of its ports meanwhile, as other workers of
        pytest-xdist may.

        Raises HostFailed.
        """
        new = not self.directory.exists()
        for attempt in reversed(range(_ATTEMPTS)):
            try:
                return self._start()
            except HostFailed as error:
                if error.kind != "PortInUse" or not new or not attempt:
                    raise
                shutil.rmtree(self.directory)
        return None

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "sovchain.testing.host", str(self.directory), self.runtime]
        if isinstance(self._wanted, Topology):
            # YAML is a superset of JSON.
            path = self.directory.with_name(f"{self.directory.name}.topology.yaml")
            path.write_text(self._wanted.model_dump_json(indent=2))
            command.append(str(path))
        elif self._wanted is not None:
            command.append(str(self._wanted))
        with self.directory.with_name(f"{self.directory.name}.host.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own program
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                start_new_session=True,  # a Ctrl-C is for the tests; the network ends with its input
            )
        self._rest, self._started = b"", True
        try:
            self._targets = tuple(self._read(START_TIMEOUT_S)["targets"])
        except HostFailed:
            self.stop()
            raise

    def stop(self) -> None:
        """Take the network down and wait until its process has ended. What is committed stays. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def kill(self) -> None:
        """End the process that runs the network at once (SIGKILL), as a crash would. `start` brings it up again."""
        if self._process is None:
            raise NotOffered("the end of a network that another process runs", self.runtime)
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.stop()

    def restart(self, topology: Topology | None = None) -> None:
        """Take the network down and bring it up again, with another topology if one is given.

        Raises HostFailed, and NotOffered for a network that another process runs.
        """
        if self._process is None:
            raise NotOffered("a restart of a network that another process runs", self.runtime)
        self.stop()
        self._wanted = topology or self._wanted
        self.start()

    @property
    def left_down(self) -> bool:
        """Whether this object has brought the network up before, and it does not run now."""
        return self._started and self._process is None

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the nodes and chaincodes that can be killed and started (`Faults.targets`)."""
        return self._targets

    def kill_node(self, target: str) -> None:
        """End one node or chaincode. Raises NotOffered, HostFailed."""
        self._ask("kill", target)

    def start_node(self, target: str) -> None:
        """Start a killed node or chaincode and wait until it answers. Raises NotOffered, HostFailed."""
        self._ask("start", target)

    def snapshot(self, name: str) -> None:
        """Keep all that is committed under a name (`NetworkLedger.snapshot`). Raises NotOffered, HostFailed."""
        self._ask_ledger("snapshot", name)

    def revert(self, name: str) -> None:
        """Go back to a snapshot (`NetworkLedger.revert`). Raises NotOffered, HostFailed."""
        self._ask_ledger("revert", name)

    def _ask_ledger(self, do: str, name: str) -> None:
        if self.runtime != "embedded" or self._process is None:
            raise NotOffered(f"{do} of a ledger", self.runtime)
        self._send(do, name)

    def _ask(self, do: str, target: str) -> None:
        if target not in self._targets or self._process is None:
            raise NotOffered(f"to {do} {target}", self.runtime)
        self._send(do, target)

    def _send(self, do: str, target: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "target": target}).encode() + b"\n")
        self._process.stdin.flush()
        self._read(ANSWER_TIMEOUT_S)

    def _read(self, timeout_s: float) -> dict[str, Any]:
        """The next message of the process. Raises HostFailed."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))
            data = os.read(descriptor, 65536) if ready else b""
            if not data:
                why = "its process ended without a word" if ready else f"no answer within {timeout_s:g} s"
                log = self.directory.with_name(f"{self.directory.name}.host.log")
                raise HostFailed("NoAnswer", "the network's process failed", why, f"see {log}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise HostFailed(**message["error"])
        return message


def _environment() -> dict[str, str]:
    """What can be imported here can be imported there, and in the chaincode that it starts."""
    paths = dict.fromkeys([*(path for path in sys.path if path), os.getcwd()])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
