"""The directory that a network lives in: format, lock, process number, stored topology and ports.

    DIR/network.json        format version, topology, ports, runtime
    DIR/organizations/      keys and certificates (`material`)
    DIR/channels/           the first block of each channel
    DIR/connections/        a connection profile for each organisation
    DIR/chaincode/          TLS of the chaincode instances and their configuration
    DIR/ledger/, DIR/peers/ what the nodes keep
    DIR/logs/               logs
    DIR/run/                lock, process number, state

A process that runs the network holds an exclusive lock on DIR/run/lock. The system releases it however the process
ends, so what a killed process left in DIR/run is never mistaken for a running network.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sovchain.network.errors import (
    AlreadyUp,
    DirectoryRefused,
    InstanceDamaged,
    NotUp,
    TopologyChanged,
    VersionMismatch,
)
from sovchain.network.files import UNFINISHED, clean, make_folder, write_file
from sovchain.network.topology import Topology

FORMAT: Final = 1
"""Version of what a directory holds. A directory of another version is refused."""

_LASTING: Final = (
    "name",
    "fabric_version",
    "consensus",
    "raft",
    "bft",
    "state_database",
    "organizations",
    "ordering_organizations",
    "channels",
)
"""Fields of a topology that are part of the channels, the certificates or the stored state."""
_DESCRIPTION: Final = "network.json"
_LOCK_ATTEMPTS: Final = 5
_LOCK_PAUSE_S: Final = 0.02
_MAX_DESCRIPTION_BYTES: Final = 4 * 1024 * 1024


class BundlePart(BaseModel):
    """What one operator's part of a network that spans hosts adds to network.json (see `bundle`).

    Attributes:
        operator: whose part it is.
        endpoints: address and port under which nodes reach each other, by host name; complete when all definitions are
            there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    operator: str
    endpoints: Mapping[str, tuple[str, int]]


class Description(BaseModel):
    """Content of network.json.

    Attributes:
        topology: what the network is to be.
        previous: what it was before a change that is not completed (`Network.apply`); None when there is none.
        ports: port of each service; those of services that are yet to come are kept too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    runtime: str
    topology: Topology
    previous: Topology | None = None
    ports: Mapping[str, int] = Field(default_factory=dict)
    created_at: datetime
    bundle: BundlePart | None = None


@dataclass(frozen=True)
class Status:
    """State of the network in a directory.

    Attributes:
        directory: where it lives.
        state: "down", "starting", "up" or "stopping".
        pid: number of the process that runs it; 0 when down.
        started_at: when that process started it (RFC 3339, UTC); empty when down.
        runtime: name of the runtime.
        topology: the stored topology; None when the directory holds none yet.
        changing: whether a change towards that topology is not completed (`Network.apply`).
        ports: port of each service, by its name.
        bundle: whose part of a network that spans hosts it is; None when all of the network is here.
    """

    directory: Path
    state: str
    pid: int = 0
    started_at: str = ""
    runtime: str = ""
    topology: Topology | None = field(default=None, repr=False)
    ports: Mapping[str, int] = field(default_factory=dict, repr=False)
    bundle: BundlePart | None = field(default=None, repr=False)
    changing: bool = False


class Instance:
    """A network's directory, locked by this process. Build it with `open_instance`."""

    def __init__(self, directory: Path, started_at: datetime) -> None:
        self.directory = directory
        self.started_at = started_at
        self.description = read_description(directory)

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.directory / "logs"

    def compare(self, topology: Topology, runtime: str) -> None:
        """Compare a topology with the stored one, if any.

        Chaincodes may be added and changed (a new version is a new definition on the ledger). Raises TopologyChanged
        when organisations or channels differ, or the runtime.
        """
        difference = _difference(self.description, topology, runtime) if self.description else ""
        if difference:
            raise TopologyChanged(self.directory, difference)

    def describe(self, topology: Topology, runtime: str, ports: Mapping[str, int]) -> Description:
        """Store what the network consists of. Raises TopologyChanged as `compare` does."""
        self.compare(topology, runtime)
        stored = self.description
        return self._store(
            Description(
                format=FORMAT,
                runtime=runtime,
                topology=topology,
                previous=stored.previous if stored else None,
                ports={**(stored.ports if stored else {}), **ports},
                created_at=stored.created_at if stored else self.started_at,
                bundle=stored.bundle if stored else None,
            )
        )

    def change(self, topology: Topology, previous: Topology | None, ports: Mapping[str, int]) -> Description:
        """Store what the network is to become, and what it was as long as that is not completed."""
        assert self.description is not None
        update = {"topology": topology, "previous": previous, "ports": dict(ports)}
        return self._store(self.description.model_copy(update=update))

    def _store(self, description: Description) -> Description:
        if description != self.description:
            write_description(self.directory, description)
            self.description = description
        return description

    def mark(self, state: str) -> None:
        """Tell other processes the state: "starting", "up" or "stopping"."""
        content = {"pid": os.getpid(), "state": state, "started_at": self.started_at.isoformat()}
        write_file(self.directory / "run/state.json", json.dumps(content).encode() + b"\n", durable=False)


@contextlib.contextmanager
def open_instance(directory: Path) -> Iterator[Instance]:
    """Create or open a directory and hold its lock for the length of the block.

    Raises:
        DirectoryRefused: it holds something else, is no directory, or cannot be written.
        VersionMismatch: it has another format version.
        AlreadyUp: another process holds the lock.
        InstanceDamaged: its description cannot be read.
    """
    check_directory(directory)
    read_description(directory)  # before the lock, so that nothing is touched in a directory of another version
    try:
        make_folder(directory / "run")
        directory.chmod(0o700)
        descriptor = os.open(directory / "run/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DirectoryRefused(directory, f"it cannot be written ({error.strerror})") from None
    try:
        _lock(directory, descriptor)
        for folder in (directory, directory / "run", directory / "channels", directory / "connections"):
            clean(folder)
        make_folder(directory / "logs")
        instance = Instance(directory, datetime.now(UTC))
        instance.mark("starting")
        try:
            yield instance
        finally:
            (directory / "run/state.json").unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(directory: Path, descriptor: int) -> None:
    for attempt in reversed(range(_LOCK_ATTEMPTS)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not attempt:
                raise AlreadyUp(directory, _read_state(directory)[1]) from None
            time.sleep(
                _LOCK_PAUSE_S
            )  # it may only be somebody asking for the status, which takes the lock for a moment
        else:
            return


def read_status(directory: Path) -> Status:
    """Say in which state the network in a directory is, without changing anything there.

    Raises DirectoryRefused, VersionMismatch, InstanceDamaged.
    """
    check_directory(directory)
    description = read_description(directory)
    known = Status(directory, "down")
    if description:
        known = Status(
            directory,
            "down",
            runtime=description.runtime,
            topology=description.topology,
            ports=description.ports,
            bundle=description.bundle,
            changing=description.previous is not None,
        )
    if not _is_locked(directory):
        return known
    state, pid, started_at = _read_state(directory)
    return replace(known, state=state, pid=pid, started_at=started_at)


def _is_locked(directory: Path) -> bool:
    try:
        descriptor = os.open(directory / "run/lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # A shared lock: several processes that ask at the same time do not take each other for the network.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read_state(directory: Path) -> tuple[str, int, str]:
    """State, process number and start time that the holder of the lock has written."""
    try:
        content = json.loads((directory / "run/state.json").read_bytes())
        return str(content["state"]), int(content["pid"]), str(content["started_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return "starting", 0, ""  # the holder is between taking the lock and writing


def running(directory: Path) -> Status:
    """Return the status of a network that is up. Raises NotUp, and what `read_status` raises."""
    if not directory.is_dir():
        raise NotUp(directory, "there is no such directory")
    status = read_status(directory)
    if status.state in ("starting", "stopping"):
        raise NotUp(directory, f"it is still {status.state}")
    if status.state != "up" or status.topology is None:
        raise NotUp(directory)
    return status


def check_directory(directory: Path) -> None:
    """Refuse a directory that holds something else than a network. Raises DirectoryRefused."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise DirectoryRefused(directory, "it is not a directory")
    try:
        names = {path.name for path in directory.iterdir()}
    except OSError as error:
        raise DirectoryRefused(directory, f"it cannot be read ({error.strerror})") from None
    # A start that was interrupted before the description was written leaves only these.
    strangers = sorted(name for name in names - {"run", "logs"} if not name.startswith(UNFINISHED))
    if _DESCRIPTION not in names and strangers:
        raise DirectoryRefused(directory, f"it is not empty and holds no network (it has {strangers[0]})")


def read_description(directory: Path) -> Description | None:
    """Read network.json; None when there is none. Raises VersionMismatch, InstanceDamaged."""
    path = directory / _DESCRIPTION
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_DESCRIPTION_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstanceDamaged(directory, path, f"it cannot be read ({error.strerror})") from None
    try:
        document = json.loads(content)
    except ValueError:
        raise InstanceDamaged(directory, path, "it is not JSON") from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise VersionMismatch(directory, found, FORMAT)
    try:
        return Description.model_validate_json(content)
    except ValidationError as error:
        raise InstanceDamaged(directory, path, f"it has {error.error_count()} wrong entries") from None


def write_description(directory: Path, description: Description) -> None:
    """Write network.json."""
    write_file(directory / _DESCRIPTION, description.model_dump_json(indent=2, exclude_none=True).encode() + b"\n")


def _difference(stored: Description, topology: Topology, runtime: str) -> str:
    """Name the first difference that a directory cannot take in; empty when there is none."""
    if stored.runtime != runtime:
        return f"the runtime was {stored.runtime}"
    old, new = stored.topology, topology
    for name in _LASTING:
        if getattr(old, name) != getattr(new, name):
            return f"{name} differ" if name.endswith("s") and name != "consensus" else f"{name} differs"
    gone = sorted({chaincode.name for chaincode in old.chaincodes} - {chaincode.name for chaincode in new.chaincodes})
    if gone:
        return f"chaincode {gone[0]} is missing, and a ledger keeps its chaincodes"
    if new.ports == old.ports:
        return ""
    return "the fixed ports differ" if new.ports.base == old.ports.base else f"the port base was {old.ports.base}"
