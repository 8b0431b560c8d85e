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
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar, Final

import structlog

from sovchain.network.certificates import LOOPBACK_NAMES, CertificateAuthority, Validity
from sovchain.network.errors import ChaincodeFailed, InstanceDamaged
from sovchain.network.files import clean, make_folder, write_file, write_tree
from sovchain.network.logs import open_log
from sovchain.network.ports import ADDRESS
from sovchain.network.runtimes.couchdb import index_files
from sovchain.network.runtimes.processes import STOP_TIMEOUT_S, Supervised, last_line
from sovchain.network.topology import ChaincodeSpec, Organization, Topology
from sovchain.protocol.packages import build_ccaas_package, package_id

INSTANCES: Final = ("A", "B")
READY_TIMEOUT_S: Final = 60.0
"""How long an instance may take to import its chaincodes and listen."""
SHIFT: Final = timedelta(days=400, hours=7, minutes=13, seconds=37)
"""How far ahead the clock of instance B is: another year, month, weekday, hour and minute."""

_HASH_SEEDS: Final = {"A": "0", "B": "20170601"}
_VALID_DAYS: Final = 3650

_log = structlog.get_logger("sovchain.network.chaincodes")


def service_name(chaincode: str, instance: str) -> str:
    """Name under which the port of a chaincode's instance is kept."""
    return f"chaincode {chaincode}, instance {instance}"


def shared_services(topology: Topology) -> list[tuple[ChaincodeSpec, dict[str, str]]]:
    """The chaincodes that the two shared instances serve, each with the name of its port by instance.

    Of a chaincode that is there in two versions (`transition.union`) the second has ports of its own.
    """
    seen: set[str] = set()
    found = []
    for spec in topology.chaincodes:
        names = {instance: service_name(spec.name, instance) for instance in INSTANCES}
        if spec.name in seen:
            names = {instance: f"{name}, version {spec.version}" for instance, name in names.items()}
        seen.add(spec.name)
        found.append((spec, names))
    return found


def settled_ports(ports: Mapping[str, int], topology: Topology) -> dict[str, int]:
    """The ports when the versions of a topology are the only ones: each has the port that is called by its name alone."""
    settled = dict(ports)
    for spec in topology.chaincodes:
        suffix = f", version {spec.version}"
        for service, port in ports.items():
            if service.startswith(f"chaincode {spec.name}") and service.endswith(suffix):
                base = service.removesuffix(suffix)
                if base in (*_own_services(spec, topology), *(service_name(spec.name, name) for name in INSTANCES)):
                    settled[base] = port
    return settled


def _own_services(spec: ChaincodeSpec, topology: Topology) -> list[str]:
    return [chaincode_service(part.name, spec.name) for part in topology.organizations]


def chaincode_service(organization: str, chaincode: str) -> str:
    """Name of the port on which an organisation's own process serves a chaincode."""
    return f"chaincode {chaincode} of {organization}"


def served_by(topology: Topology, organization: Organization) -> list[tuple[ChaincodeSpec, str]]:
    """The chaincodes that an organisation's own processes serve, each with the name of its port.

    Of a chaincode that is there in two versions (`transition.union`) the second has a port of its own.
    """
    found: dict[str, ChaincodeSpec] = {}
    for spec in chaincodes_of(topology, organization):
        service = chaincode_service(organization.name, spec.name)
        found.setdefault(service if service not in found else further_service(organization.name, spec), spec)
    return [(spec, service) for service, spec in found.items()]


def further_service(organization: str, spec: ChaincodeSpec) -> str:
    """Name of the port of a version that is served besides another one."""
    return f"{chaincode_service(organization, spec.name)}, version {spec.version}"


def chaincodes_of(topology: Topology, organization: Organization) -> list[ChaincodeSpec]:
    """The chaincodes on the channels of an organisation."""
    return [
        spec
        for spec in topology.chaincodes
        if any(organization.name in topology.channel(channel).members for channel in spec.channels)
    ]


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
    def create(cls, folder: Path, now: datetime, names: Sequence[str] = LOOPBACK_NAMES) -> ChaincodeTls:
        """Make the files, or return those that are there. The root's key is not kept: it signs nothing more.

        `names` are the hosts under which peers reach the instances.
        """
        if not folder.exists():
            validity = Validity.starting(now, days=_VALID_DAYS)
            authority = CertificateAuthority.create("chaincode-ca", "chaincode", "", validity)
            server = authority.tls("chaincode", "", validity, names=names)
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


def build_package(chaincode: ChaincodeSpec, addresses: Sequence[str], tls: ChaincodeTls) -> bytes:
    """Return the package of a chaincode: how a peer reaches it, and what CouchDB indexes. Same arguments, same bytes.

    `addresses` has the chaincode's address and, for the embedded ledger, that of its second instance. Raises
    InstanceDamaged when a TLS file cannot be read.
    """
    certificate, key = tls.client
    connection = {
        "address": addresses[0],
        **({"replica_address": addresses[1]} if len(addresses) > 1 else {}),
        "dial_timeout": "10s",
        "tls_required": True,
        "client_auth_required": True,
        "root_cert": _text(tls.root),
        "client_cert": _text(certificate),
        "client_key": _text(key),
    }
    return build_ccaas_package(chaincode.label, connection, index_files(chaincode.module))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InstanceDamaged(path.parent.parent.parent, path, f"it cannot be read ({error})") from None


@dataclass
class ChaincodeInstance(Supervised):
    """A child process that serves chaincodes. It says "ready" when it listens, and ends when its input is closed."""

    _piped: ClassVar[bool] = True
    _ready: asyncio.Future[None] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Start the process and the task that watches it, without waiting until it listens. Raises OSError."""
        self._ready = asyncio.get_running_loop().create_future()
        await super().start()

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
        await super().stop()
        if self._ready is not None and self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # marks it as seen

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
                return
        await super()._end(process)

    def _ended_early(self, code: int) -> bool:
        assert self._ready is not None
        if self._ready.done():
            return False
        why = f"it ended with exit code {code}: {last_line(self.log_path)}"
        self._ready.set_exception(ChaincodeFailed(self.name, why, self.log_path))
        return True

    async def _attend(self, process: asyncio.subprocess.Process) -> None:
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


class ChaincodeInstances:
    """The processes that serve all chaincodes of a network, two for each set of chaincodes that came at the same time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._serving: dict[str, list[ChaincodeInstance]] = {}
        self._held: list[ChaincodeInstance] = []

    async def serve(self, topology: Topology, ports: Mapping[str, int], now: datetime) -> dict[str, bytes]:
        """Start what serves the chaincodes that are not served yet, without waiting until it listens.

        The second instance waits for `begin`: until the nodes serve there is work enough for two cores. Return the package of each chaincode by its name, of the newest version. `now` (UTC) is when new TLS certificates
        begin. Raises InstanceDamaged, OSError.
        """
        shared = shared_services(topology)
        if not shared:
            return {}
        folder = self._directory / "chaincode"
        make_folder(folder)
        clean(folder)
        tls = ChaincodeTls.create(folder / "tls", now)
        addresses = {
            spec.label: {instance: f"{ADDRESS}:{ports[service]}" for instance, service in names.items()}
            for spec, names in shared
        }
        packages = {spec.label: build_package(spec, list(addresses[spec.label].values()), tls) for spec, _ in shared}
        new = [spec for spec, _ in shared if spec.label not in self._serving]
        if new:
            further = f"-{new[0].label}" if self._serving else ""
            started = []
            for instance in INSTANCES:
                services = [(spec, packages[spec.label], addresses[spec.label][instance]) for spec in new]
                started.append(await self._start(instance, f"{instance}{further}", services, tls))
            self._serving |= {spec.label: started for spec in new}
        return {spec.name: packages[spec.label] for spec, _ in shared}

    async def _start(
        self, instance: str, name: str, services: Sequence[tuple[ChaincodeSpec, bytes, str]], tls: ChaincodeTls
    ) -> ChaincodeInstance:
        config = self._directory / f"chaincode/{name}.json"
        write_file(config, json.dumps(serve_configuration(services, tls), indent=2).encode(), durable=False)
        process = ChaincodeInstance(
            name=name,
            command=serve_command(config, shift=SHIFT if instance == "B" else None),
            environment=serve_environment(_HASH_SEEDS[instance]),
            log_path=self._directory / f"logs/chaincode-{name}.log",
            pid_path=self._directory / f"run/chaincode-{name}.pid",
        )
        if instance == "B":
            self._held.append(process)
        else:
            await process.start()
        return process

    @property
    def processes(self) -> Mapping[str, ChaincodeInstance]:
        """The processes by name: "chaincode instance A", and further ones with what they serve."""
        return {f"chaincode instance {process.name}": process for process in self._processes(self._serving)}

    async def begin(self) -> None:
        """Start the instances that were held back. Raises OSError."""
        held, self._held = self._held, []
        for process in held:
            await process.start()

    def _processes(self, serving: Mapping[str, list[ChaincodeInstance]]) -> list[ChaincodeInstance]:
        return list({id(process): process for several in serving.values() for process in several}.values())

    async def ready(self) -> None:
        """Wait until all processes listen. Raises ChaincodeFailed, OSError."""
        await self.begin()
        await asyncio.gather(*(process.ready() for process in self._processes(self._serving)))

    async def keep(self, topology: Topology) -> None:
        """End the processes that serve nothing of a topology."""
        labels = {spec.label for spec in topology.chaincodes}
        kept = {label: several for label, several in self._serving.items() if label in labels}
        needed = {id(process) for process in self._processes(kept)}
        idle = [process for process in self._processes(self._serving) if id(process) not in needed]
        self._serving = kept
        await asyncio.gather(*(process.stop() for process in idle))

    async def stop(self) -> None:
        """End all processes."""
        serving, self._serving = self._serving, {}
        self._held.clear()
        await asyncio.gather(*(process.stop() for process in self._processes(serving)))


def serve_configuration(services: Iterable[tuple[ChaincodeSpec, bytes, str]], tls: ChaincodeTls) -> dict[str, object]:
    """What `sovchain.chaincode serve --config` reads: each chaincode with its package and the address to listen on."""
    certificate, key = tls.server
    files = {"certificate": str(certificate), "key": str(key), "client_roots": str(tls.root)}
    return {
        "services": [
            {"chaincode": spec.module, "id": package_id(package, spec.label), "address": address, "tls": files}
            for spec, package, address in services
        ]
    }


def serve_command(config: Path, *, shift: timedelta | None = None) -> list[str]:
    """Command of a process that serves the chaincodes of a configuration, under a clock that is `shift` ahead."""
    serve = ["sovchain.chaincode", "serve", "--config", str(config), "--exit-with-parent"]
    if shift is None:
        return [sys.executable, "-P", "-m", *serve]
    replica = Path(__file__).with_name("replica.py")
    return [sys.executable, "-P", str(replica), str(int(shift.total_seconds())), *serve]


def serve_environment(hash_seed: str) -> dict[str, str]:
    """Environment of such a process. What can be imported here can be imported there."""
    paths = dict.fromkeys([*(path for path in sys.path if path), os.getcwd()])
    return {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }
