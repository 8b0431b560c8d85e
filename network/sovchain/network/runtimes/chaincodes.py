"""Two instances of every chaincode, in two child processes that differ in hash seed and clock.

Instance A runs with hash seed 0 and the real clock, instance B with another seed and a clock that is more than a year
ahead. Each serves all chaincodes of the network over loopback TCP with mutual TLS, under roots that exist for nothing
else. They end with this process, whose end closes their standard input, and are started again when they die.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from sovchain.network.certificates import LOOPBACK_NAMES, CertificateAuthority, Validity
from sovchain.network.errors import ChaincodeFailed, InstanceDamaged
from sovchain.network.files import clean, make_folder, write_file, write_tree
from sovchain.network.logs import open_log
from sovchain.network.ports import ADDRESS
from sovchain.network.topology import ChaincodeSpec, Topology
from sovchain.protocol.packages import build_ccaas_package, package_id

INSTANCES: Final = ("A", "B")
READY_TIMEOUT_S: Final = 60.0
"""How long an instance may take to import its chaincodes and listen."""
STOP_TIMEOUT_S: Final = 5.0
"""How long an instance may take to end before it is killed."""
SHIFT: Final = timedelta(days=400, hours=7, minutes=13, seconds=37)
"""How far ahead the clock of instance B is: another year, month, weekday, hour and minute."""

_HASH_SEEDS: Final = {"A": "0", "B": "20170601"}
_VALID_DAYS: Final = 3650
_BACK_OFF_FIRST_S: Final = 0.1
_BACK_OFF_LAST_S: Final = 10.0
_STABLE_S: Final = 30.0
"""An instance that ran this long starts its back-off from the beginning when it dies."""
_MAX_LINE_BYTES: Final = 64 * 1024

_log = structlog.get_logger("sovchain.network.chaincodes")


def service_name(chaincode: str, instance: str) -> str:
    """Name under which the port of a chaincode's instance is kept."""
    return f"chaincode {chaincode}, instance {instance}"


@dataclass(frozen=True)
class ChaincodeTls:
    """Files of the TLS between peers and chaincode instances."""

    folder: Path

    @property
    def root(self) -> Path:
        """The root that both sides trust."""
        return self.folder / "ca.crt"

    @property
    def server(self) -> tuple[Path, Path]:
        """Certificate and key of the instances."""
        return self.folder / "server.crt", self.folder / "server.key"

    @property
    def client(self) -> tuple[Path, Path]:
        """Certificate and key of the peers."""
        return self.folder / "client.crt", self.folder / "client.key"

    @classmethod
    def create(cls, folder: Path, now: datetime) -> ChaincodeTls:
        """Make the files, or return those that are there. The root's key is not kept: it signs nothing more."""
        if not folder.exists():
            validity = Validity.starting(now, days=_VALID_DAYS)
            authority = CertificateAuthority.create("chaincode-ca", "chaincode", "", validity)
            server = authority.tls("chaincode", "", validity, names=LOOPBACK_NAMES)
            client = authority.tls("peer", "", validity)
            write_tree(
                folder,
                {
                    "ca.crt": authority.certificate_pem,
                    "server.crt": server.certificate_pem,
                    "server.key": server.private_key_pem,
                    "client.crt": client.certificate_pem,
                    "client.key": client.private_key_pem,
                },
            )
        return cls(folder)


def build_package(chaincode: ChaincodeSpec, ports: Mapping[str, int], tls: ChaincodeTls) -> bytes:
    """Return the package of a chaincode: how a peer reaches its two instances. Same arguments, same bytes.

    Raises InstanceDamaged when a TLS file cannot be read.
    """
    certificate, key = tls.client
    addresses = [f"{ADDRESS}:{ports[service_name(chaincode.name, instance)]}" for instance in INSTANCES]
    connection = {
        "address": addresses[0],
        "replica_address": addresses[1],
        "dial_timeout": "10s",
        "tls_required": True,
        "client_auth_required": True,
        "root_cert": _text(tls.root),
        "client_cert": _text(certificate),
        "client_key": _text(key),
    }
    return build_ccaas_package(chaincode.label, connection)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InstanceDamaged(path.parent.parent.parent, path, f"it cannot be read ({error})") from None


@dataclass
class ChaincodeInstance:
    """One child process that serves all chaincodes, started again when it dies."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log_path: Path
    pid_path: Path
    _stopping: bool = field(default=False, init=False)
    _ready: asyncio.Future[None] | None = field(default=None, init=False)
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Start the process and the task that watches it, without waiting until it listens. Raises OSError."""
        self._ready = asyncio.get_running_loop().create_future()
        process = await self._spawn()
        self._task = asyncio.create_task(self._watch(process), name=f"chaincode instance {self.name}")

    async def ready(self) -> None:
        """Wait until the process listens. Raises ChaincodeFailed when it ends before, or after `READY_TIMEOUT_S`."""
        assert self._ready is not None
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await asyncio.shield(self._ready)
        except TimeoutError:
            raise ChaincodeFailed(
                self.name, f"it did not listen within {READY_TIMEOUT_S:.0f} s", self.log_path
            ) from None

    async def stop(self) -> None:
        """End the process: first by closing its input, then by signals."""
        self._stopping = True
        if self._process is not None:
            await _end(self._process)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._process is not None:  # the task may have been starting another one
            await _end(self._process)
        self.pid_path.unlink(missing_ok=True)
        if self._ready is not None and self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # marks it as seen

    async def _spawn(self) -> asyncio.subprocess.Process:
        with open_log(self.log_path) as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self.environment,
                # A Ctrl-C on the terminal is for this process, which ends the instances in order.
                start_new_session=True,
                limit=_MAX_LINE_BYTES,
            )
        write_file(self.pid_path, str(self._process.pid).encode(), durable=False)
        return self._process

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Read the process's words, and start it again, later each time, when it dies."""
        loop = asyncio.get_running_loop()
        pause = _BACK_OFF_FIRST_S
        while True:
            started = loop.time()
            await self._listen(process)
            code = await process.wait()
            if self._stopping:
                return
            _log.error("chaincode instance ended", instance=self.name, exit_code=code, log=str(self.log_path))
            assert self._ready is not None
            if not self._ready.done():
                why = f"it ended with exit code {code}: {_last_line(self.log_path)}"
                self._ready.set_exception(ChaincodeFailed(self.name, why, self.log_path))
                return
            pause = _BACK_OFF_FIRST_S if loop.time() - started > _STABLE_S else min(pause * 2, _BACK_OFF_LAST_S)
            process = await self._respawn(pause)

    async def _respawn(self, pause: float) -> asyncio.subprocess.Process:
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._spawn()
            except OSError as error:
                _log.error("chaincode instance cannot be started", instance=self.name, reason=str(error))
                pause = _BACK_OFF_LAST_S

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Take the word "ready", and put everything else into the log, until the process closes its output."""
        assert process.stdout is not None
        assert self._ready is not None
        with open_log(self.log_path) as log:
            while line := await _line(process.stdout):
                if line.strip() != b"ready":
                    log.write(line)
                else:
                    _log.info("chaincode instance listens", instance=self.name, pid=process.pid)
                    if not self._ready.done():
                        self._ready.set_result(None)


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line, or what fits into the buffer of a longer one; nothing at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask a process to end by closing its input, insist after `STOP_TIMEOUT_S`."""
    if process.stdin is not None:
        process.stdin.close()
    for insist in (process.terminate, process.kill):
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
                return
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                insist()
    await process.wait()


def _last_line(log: Path) -> str:
    """The last line of a log that says something, cut to 300 characters."""
    try:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - 4096, 0))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "its log cannot be read"
    return lines[-1][:300] if lines else "it wrote nothing"


class ChaincodeInstances:
    """The two processes that serve all chaincodes of a network; none when it has no chaincode."""

    def __init__(self, directory: Path, topology: Topology, ports: Mapping[str, int]) -> None:
        self._directory = directory
        self._topology = topology
        self._ports = ports
        self._instances: list[ChaincodeInstance] = []

    async def start(self, now: datetime) -> dict[str, bytes]:
        """Start both processes without waiting until they listen; return the package of each chaincode by its name.

        `now` (UTC) is when new TLS certificates begin. Raises InstanceDamaged, OSError.
        """
        if not self._topology.chaincodes:
            return {}
        folder = self._directory / "chaincode"
        make_folder(folder)
        clean(folder)
        tls = ChaincodeTls.create(folder / "tls", now)
        packages = {spec.name: build_package(spec, self._ports, tls) for spec in self._topology.chaincodes}
        for name in INSTANCES:
            config = folder / f"{name}.json"
            write_file(config, json.dumps(self._configuration(name, packages, tls), indent=2).encode(), durable=False)
            instance = ChaincodeInstance(
                name=name,
                command=_command(name, config),
                environment=_environment(name),
                log_path=self._directory / f"logs/chaincode-{name}.log",
                pid_path=pid_path(self._directory, name),
            )
            self._instances.append(instance)
            await instance.start()
        return packages

    async def ready(self) -> None:
        """Wait until both processes listen. Raises ChaincodeFailed."""
        await asyncio.gather(*(instance.ready() for instance in self._instances))

    async def stop(self) -> None:
        """End both processes."""
        await asyncio.gather(*(instance.stop() for instance in self._instances))

    def _configuration(self, instance: str, packages: Mapping[str, bytes], tls: ChaincodeTls) -> dict[str, object]:
        certificate, key = tls.server
        files = {"certificate": str(certificate), "key": str(key), "client_roots": str(tls.root)}
        services = [
            {
                "chaincode": spec.module,
                "id": package_id(packages[spec.name], spec.label),
                "address": f"{ADDRESS}:{self._ports[service_name(spec.name, instance)]}",
                "tls": files,
            }
            for spec in self._topology.chaincodes
        ]
        return {"services": services}


def pid_path(directory: Path, instance: str) -> Path:
    """File that holds the process number of an instance."""
    return directory / f"run/chaincode-{instance}.pid"


def _command(instance: str, config: Path) -> list[str]:
    serve = ["sovchain.chaincode", "serve", "--config", str(config), "--exit-with-parent"]
    if instance == "A":
        return [sys.executable, "-P", "-m", *serve]
    replica = Path(__file__).with_name("replica.py")
    return [sys.executable, "-P", str(replica), str(int(SHIFT.total_seconds())), *serve]


def _environment(instance: str) -> dict[str, str]:
    """Environment of an instance. What can be imported here can be imported there."""
    paths = dict.fromkeys([*(path for path in sys.path if path), os.getcwd()])
    return {
        **os.environ,
        "PYTHONHASHSEED": _HASH_SEEDS[instance],
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }


async def end_orphans(directory: Path, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Wait for instances that outlived a killed network, and kill those that do not end by themselves.

    The network's end closes their input, so normally they are ending already. A process counts as an instance only when
    its command line names this directory's configuration, because process numbers are used again.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    for instance in INSTANCES:
        path = pid_path(directory, instance)
        config = str(directory / f"chaincode/{instance}.json")
        while (pid := _orphan(path, config)) is not None:
            if loop.time() > deadline:
                _log.warning("killing a chaincode instance that outlived its network", instance=instance, pid=pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                deadline = loop.time() + timeout_s
            await asyncio.sleep(0.02)
        path.unlink(missing_ok=True)


def _orphan(path: Path, config: str) -> int | None:
    try:
        pid = int(path.read_bytes())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(config) in arguments and state != b"Z" else None


__all__ = [
    "INSTANCES",
    "SHIFT",
    "ChaincodeInstance",
    "ChaincodeInstances",
    "ChaincodeTls",
    "build_package",
    "end_orphans",
    "service_name",
]
