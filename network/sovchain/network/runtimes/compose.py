"""A Compose file, in what docker-compose 1.28 and Compose v2 both understand, and the rights of its containers.

Nothing runs as root, may gain rights, writes outside its volumes, or sees the engine's socket. Two networks: on `nodes`,
which has no way out, containers reach each other by host name; over `access` come those who use the ports that are
published on 127.0.0.1, and nothing goes out there either. Nodes that other hosts are to reach, where a network spans hosts,
are on `hosts` in its place: their main ports are published on every address, and they go out to the other hosts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from sovchain.network.ports import ADDRESS

Service = dict[str, Any]

KIND_LABEL: Final = "org.sovchain.kind"
STOP_S: Final = 10
"""How long a container has to end before it is killed."""


@dataclass(frozen=True)
class Container:
    """What differs from one container to the next.

    Attributes:
        kind: peer, orderer, chaincode, ca, couchdb, prometheus or grafana.
        image: the image.
        host: host name under which the others reach it; empty: none does.
        aliases: further host names.
        memory_mib: limit of its memory.
        mounts: what it may read, and the volumes that it may write.
        ports: published on the loopback address under the same numbers.
        public_ports: published on every address of this host, for other hosts.
        scratch: folders in memory that it may write.
        labels: further labels of the container.
        more: further keys of the service.
    """

    kind: str
    image: str
    host: str
    memory_mib: int
    mounts: Sequence[Mapping[str, Any]]
    aliases: Sequence[str] = ()
    ports: Sequence[int] = ()
    public_ports: Sequence[int] = ()
    scratch: Sequence[str] = ("/tmp",)  # noqa: S108  a path in the container
    labels: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


_HOSTS: Final = {"driver": "bridge", "driver_opts": {"com.docker.network.bridge.enable_icc": "false"}}


class ComposeFile:
    """The services and volumes of one project."""

    def __init__(self, user: str) -> None:
        """`user` is the user and group that everything runs as, "10001:10001" for example."""
        self.user = user
        self.services: dict[str, Service] = {}
        self._volumes: dict[str, Path] = {}

    def add(self, service: str, container: Container) -> None:
        """Add a container under the name of its service."""
        user, _, group = self.user.partition(":")
        names = [name for name in (container.host, *container.aliases) if name]
        inner = {"aliases": names} if names else {}
        outer = "hosts" if container.public_ports else "access"
        published = [f"{ADDRESS}:{port}:{port}" for port in container.ports]
        published += [f"{port}:{port}" for port in container.public_ports]
        self.services[service] = {
            "image": container.image,
            "user": self.user,
            # Not after a restart of the engine: the network's own process starts and ends it.
            "restart": "on-failure",
            "init": True,
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "mem_limit": f"{container.memory_mib}m",
            "memswap_limit": f"{container.memory_mib}m",
            "pids_limit": 512,
            "stop_grace_period": f"{STOP_S}s",
            "tmpfs": [f"{path}:size=64m,mode=0700,uid={user},gid={group}" for path in container.scratch],
            "volumes": list(container.mounts),
            "networks": {"nodes": inner, outer: {}} if published else {"nodes": inner},
            "logging": {"driver": "json-file", "options": {"max-size": "16m", "max-file": "2"}},
            "labels": {KIND_LABEL: container.kind, **container.labels},
            **({"ports": published} if published else {}),
            **container.more,
        }

    def volume(self, name: str, folder: Path, target: str) -> dict[str, Any]:
        """A named volume that a container may write. It stands for a folder, so that data outlives the project."""
        self._volumes[name] = folder
        # Without a copy of what the image has there, with which the engine would also change the folder's owner.
        return {"type": "volume", "source": name, "target": target, "volume": {"nocopy": True}}

    def remove(self, service: str) -> list[str]:
        """Take a service out with its volumes, which no other one has, and return their names."""
        mounted = self.services.pop(service)["volumes"]
        names = [entry["source"] for entry in mounted if entry["type"] == "volume"]
        for name in names:
            del self._volumes[name]
        return names

    @property
    def folders(self) -> Sequence[Path]:
        """The folders that volumes stand for; they must exist before the project comes up."""
        return list(self._volumes.values())

    def text(self, head: str) -> bytes:
        """The file. `head` is a comment of one or more lines; a dollar sign in a service stands for itself."""
        written = {
            "services": self.services,
            "networks": {
                "nodes": {"internal": True},
                "access": {
                    "driver": "bridge",
                    "driver_opts": {
                        "com.docker.network.bridge.enable_icc": "false",
                        "com.docker.network.bridge.enable_ip_masquerade": "false",
                    },
                },
                **({"hosts": _HOSTS} if any("hosts" in found["networks"] for found in self.services.values()) else {}),
            },
            "volumes": {
                name: {"driver": "local", "driver_opts": {"type": "none", "o": "bind", "device": str(folder)}}
                for name, folder in self._volumes.items()
            },
        }
        comment = "".join(f"# {line}\n" for line in head.splitlines())
        return comment.encode() + yaml.dump(_escaped(written), Dumper=_Plain, sort_keys=False, width=1000).encode()


class _Plain(yaml.SafeDumper):
    """Without anchors: the file is for people too."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def mount(source: Path, target: str) -> dict[str, Any]:
    """A file or folder of this machine that a container may read."""
    return {"type": "bind", "source": str(source), "target": target, "read_only": True}


def health(*test: str) -> dict[str, Any]:
    """A check of Docker's own; a start waits for none of them but asks the services itself."""
    return {"test": ["CMD", *test], "interval": "30s", "timeout": "5s", "retries": 3, "start_period": "10s"}


def answers_http(port: int) -> dict[str, Any]:
    """The check of a server that answers HTTP, be it only that it wants TLS. Fabric's images have bash and no curl."""
    # Go's server says "400 Bad Request" to plain HTTP on a TLS port; one that hangs says nothing.
    ask = (
        f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 "
        "&& read -r -t 4 line <&3 && [[ $line == HTTP/* ]]"
    )
    return health("bash", "-c", ask)


def project_name(directory: Path) -> str:
    """Return the project of a network's directory: a readable part, and one that no other directory has."""
    readable = re.sub(r"[^a-z0-9]+", "-", directory.name.lower()).strip("-")[:24]
    digest = hashlib.sha256(str(directory).encode()).hexdigest()[:10]
    return f"sovchain-{readable}-{digest}" if readable else f"sovchain-{digest}"


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return value.replace("$", "$$")
        case Mapping():
            return {key: _escaped(entry) for key, entry in value.items()}
        case list():
            return [_escaped(entry) for entry in value]
        case _:
            return value
