"""A real CouchDB for tests, where the machine has one.

`SOVCHAIN_COUCHDB_BIN` names a program that is called `PROGRAM PORT PASSWORD DIR` and serves CouchDB 3 on 127.0.0.1:PORT with
the administrator `fabric`, its data below DIR, until it is stopped.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

VARIABLE = "SOVCHAIN_COUCHDB_BIN"
START_S = 60.0


@dataclass(frozen=True)
class CouchServer:
    """A running server."""

    port: int
    password: str = field(repr=False)

    def client(self) -> httpx.Client:
        """An HTTP client with the administrator's account."""
        url = f"http://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, auth=("fabric", self.password), timeout=60, trust_env=False)


def couchdb_program() -> Path:
    """The program that serves CouchDB; skips the test where there is none."""
    program = os.environ.get(VARIABLE)
    if not program or not Path(program).exists():
        pytest.skip(f"missing program: CouchDB 3: name one that serves PORT PASSWORD DIR in {VARIABLE}")
    return Path(program)


@contextmanager
def couchdb(directory: Path, port: int, password: str | None = None) -> Iterator[CouchServer]:
    """Run one server."""
    server = CouchServer(port, password or secrets.token_hex(12))
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "output.log").open("wb") as log:
        process = subprocess.Popen(
            [couchdb_program(), str(port), server.password, str(directory)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            _wait(server, process, directory)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: CouchServer, process: subprocess.Popen[bytes], directory: Path) -> None:
    limit = time.monotonic() + START_S
    with server.client() as client:
        while True:
            try:
                if client.get("/_users").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > limit:
                raise AssertionError(f"CouchDB does not start: {(directory / 'output.log').read_text()[-2000:]}")
            time.sleep(0.1)  # it tells nobody when it is ready
