"""Hosts of a test: network namespaces of its own, wired to each other and to nothing else."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Host:
    """A namespace with an address that the others reach."""

    namespace: str
    address: str

    def command(self, *arguments: str) -> list[str]:
        """A command that runs there."""
        return ["ip", "netns", "exec", self.namespace, *arguments]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def hosts(names: Sequence[str]) -> Iterator[dict[str, Host]]:
    """A host for each name, on one bridge; the test is skipped where namespaces cannot be made."""
    if shutil.which("ip") is None:
        pytest.skip("missing program: ip: apt-get install iproute2")
    tag = f"sv{secrets.token_hex(2)}"
    made = [f"{tag}hub"]
    try:
        _ip("netns", "add", made[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip() or 'not permitted'}; run as root")
    try:
        _ip("-n", made[0], "link", "add", "bridge", "type", "bridge")
        _ip("-n", made[0], "link", "set", "bridge", "up")
        found = {}
        for index, name in enumerate(names, 1):
            host = Host(f"{tag}n{index}", f"10.77.{int(tag[2:4], 16)}.{index}")
            _ip("netns", "add", host.namespace)
            made.append(host.namespace)
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            _ip(
                "-n", host.namespace, "link", "add", "eth0", "type", "veth",
                "peer", "name", f"port{index}", "netns", made[0],
            )  # fmt: skip
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.namespace, "link", "set", "eth0", "up")
            _ip("-n", made[0], "link", "set", f"port{index}", "master", "bridge")
            _ip("-n", made[0], "link", "set", f"port{index}", "up")
            found[name] = host
        yield found
    finally:
        for namespace in reversed(made):
            _ip("netns", "delete", namespace)
