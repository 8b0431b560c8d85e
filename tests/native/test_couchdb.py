"""Real peers keep their state in CouchDB, or what answers like it here, and run rich queries there.

No release of CouchDB can be had on this machine: the servers are PouchDB's (`tests/support/couchdb.mjs`). That shows that
addresses, accounts, packages with index definitions and rich queries are right; CouchDB itself stays to be tried.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fabricprograms import fabric_programs
from smallnetwork import PROBE, WIDE, small_topology

from sovchain.network import Network
from sovchain.network.ports import allocate
from sovchain.network.runtimes import couchdb
from sovchain.testing.conformance.chaincode import Probe

PACKAGES = (
    "express@4", "express-pouchdb@4.2.0", "pouchdb-core@7", "pouchdb-adapter-memory@7", "pouchdb-mapreduce@7",
    "pouchdb-replication@7", "pouchdb-find@7",
)  # fmt: skip


@pytest.fixture(scope="module")
def node_folder() -> Path:
    """A folder with PouchDB's server installed, kept between runs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("missing program: node with npm: install Node.js 20 (Debian: apt-get install nodejs npm)")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sovchain/node-pouchdb"
    if not (cache / "node_modules/express-pouchdb").exists():
        cache.mkdir(parents=True, exist_ok=True)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(cache)]
        subprocess.run(["npm", "install", *options, *PACKAGES], check=True, capture_output=True, timeout=300)
    return cache


@pytest.fixture
def password(node_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The password of running servers, one for each peer, which the environment names."""
    word = secrets.token_hex(12)
    hosts = [node.host for node in small_topology().nodes if node.kind == "peer"]
    ports = allocate(hosts, None, {})
    script = node_folder / "couchdb.mjs"
    script.write_text((Path(__file__).parents[1] / "support/couchdb.mjs").read_text())
    servers = subprocess.Popen(
        ["node", script, "fabric", word, *map(str, ports.values())], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert servers.stdout is not None
    assert servers.stdin is not None
    try:
        assert servers.stdout.readline() == b"ready\n"
        peers = "".join(f"  {host}: 127.0.0.1:{port}\n" for host, port in ports.items())
        path = tmp_path / "couchdb.yaml"
        path.touch(mode=0o600)
        path.write_text(f"user: fabric\npassword: {word}\npeers:\n{peers}")
        monkeypatch.setenv(couchdb.VARIABLE, str(path))
        yield word
    finally:
        servers.stdin.close()
        servers.wait(20)


@pytest.mark.timeout(300)
@pytest.mark.long
@pytest.mark.parametrize("version", ["2.5", "3.1"])
def test_rich_queries_run_on_real_peers_and_the_password_is_nowhere(
    version: str, node_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fabric_programs(version)
    word = request.getfixturevalue("password")
    directory = tmp_path / "network"

    async def use() -> None:
        topology = small_topology(version, state_database="couchdb")
        async with Network.up(topology, "native", directory) as network, network.connect("Alpha") as gateway:
            contract = gateway.network(WIDE).contract(PROBE)
            await contract.submit(Probe.put, "car1", b'{"owner":"ann","doors":3}')
            await contract.submit(Probe.put, "car2", b'{"owner":"bob","doors":5}')
            found = await contract.evaluate(Probe.rich, '{"selector":{"owner":"bob"}}')
            assert [entry.key for entry in found] == ["car2"]
            assert (await network.observe()).problems() == []

    asyncio.run(use())
    holding = [path for path in directory.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]
    assert holding == []
