"""A real Fabric CA server for tests, where this machine has the program."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sovchain.network import ProgramsMissing
from sovchain.network.authorities import PROGRAM, VERSION, AuthorityPlace, authority_files
from sovchain.network.material import OrganizationMaterial, create_organization
from sovchain.network.material_layout import REGISTRAR_FILE
from sovchain.network.runtimes.programs import find_programs
from sovchain.network.topology import Organization

ORGANIZATION = Organization(
    name="Finance", domain="finance.example", jurisdiction="CN-GZ", certificate_authority="fabric-ca"
)


def server_program() -> str:
    """The program; the test is skipped when it is not on this machine."""
    try:
        return asyncio.run(find_programs(VERSION, (PROGRAM,), product="Fabric CA", any_folder=True))[PROGRAM]
    except ProgramsMissing:
        pytest.skip(
            f"missing program: {PROGRAM} {VERSION}: build or unpack the release of hyperledger/fabric-ca and name its bin"
            " folder in SOVCHAIN_FABRIC_BIN, or put it into ~/.cache/sovchain/fabric/VERSION/bin"
        )


@dataclass
class Server:
    """A server that runs."""

    url: str
    part: OrganizationMaterial
    secret: str
    home: Path
    process: subprocess.Popen[bytes]

    @property
    def tls_roots(self) -> bytes:
        return self.part.tls_root_pem


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(found.getsockname()[1]) for found in sockets]
    finally:
        for found in sockets:
            found.close()


def launch(folder: Path, now: datetime | None = None, **environment: str) -> Server:
    """Start a server on an organisation's new material; `now` is when that begins to be valid."""
    program = server_program()
    part = create_organization(ORGANIZATION, folder / "organizations", now or datetime.now(UTC))
    home = folder / "authority"
    (home / "tlsca").mkdir(parents=True)
    port, operations = free_ports(2)
    secret = part.read(REGISTRAR_FILE).decode()
    place = AuthorityPlace("127.0.0.1", port, operations, str(part.folder), str(home))
    for name, content in authority_files(ORGANIZATION.domain, secret, place).items():
        (home / name).write_bytes(content)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "start"],
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "FABRIC_CA_SERVER_HOME": str(home), **environment},
        )
    return Server(f"https://localhost:{port}", part, secret, home, process)


@contextmanager
def fabric_ca(folder: Path, **environment: str) -> Iterator[Server]:
    """A server that answers, for the length of the block."""
    server = launch(folder, **environment)
    try:
        port = int(server.url.rpartition(":")[2])
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert server.process.poll() is None, (server.home / "log").read_text()
                assert time.monotonic() < deadline, (server.home / "log").read_text()
                time.sleep(0.02)
        yield server
    finally:
        server.process.terminate()
        server.process.wait(10)
