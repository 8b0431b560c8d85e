"""A peer's CouchDB is named outside of the topology, in a file that nobody else may read, and asked before a peer tries."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from smallnetwork import small_topology

from sovchain.network import CouchDbUnusable
from sovchain.network.runtimes import Site, couchdb
from sovchain.network.runtimes.settings import CouchDb

SECRET = "a-password-of-nobody"
HOSTS = [f"{peer}.small.example" for peer in ("peer0.alpha", "peer1.alpha", "peer0.beta", "peer0.gamma")]
PEERS = "".join(f"  {host}: 127.0.0.1:{5984 + number}\n" for number, host in enumerate(HOSTS))


def site(folder: Path, database: str = "couchdb") -> Site:
    return Site(folder, small_topology(state_database=database), {}, {})


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the environment names; a test writes it."""
    path = tmp_path / "couchdb.yaml"
    path.touch(mode=0o600)
    monkeypatch.setenv(couchdb.VARIABLE, str(path))
    return path


def test_leveldb_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(couchdb.VARIABLE, raising=False)
    assert couchdb.read_servers(site(tmp_path, "leveldb")) == {}


def test_without_a_file_the_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(couchdb.VARIABLE, raising=False)
    with pytest.raises(CouchDbUnusable, match=couchdb.VARIABLE):
        couchdb.read_servers(site(tmp_path))


def test_each_peer_has_its_server_and_an_account_of_its_own_or_of_all(named: Path) -> None:
    (named.parent / "word").write_text(f"{SECRET}\n")
    (named.parent / "word").chmod(0o600)
    own = "  {address: 127.0.0.1:9999, user: gamma, password: other}\n"
    named.write_text("user: fabric\npassword_file: word\npeers:\n" + PEERS.replace(" 127.0.0.1:5987\n", own))
    servers = couchdb.read_servers(site(named.parent))
    assert servers[HOSTS[0]] == CouchDb("127.0.0.1:5984", "fabric", SECRET)
    assert servers[HOSTS[3]] == CouchDb("127.0.0.1:9999", "gamma", "other")
    assert SECRET not in repr(servers)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"user: fabric\npassword: {SECRET}\npeers:\n" + PEERS.replace(HOSTS[2], "peer9"), f"no server for {HOSTS[2]}"),
        (
            f"user: fabric\npassword: {SECRET}\npeers:\n" + PEERS.replace("5985", "5984"),
            "several peers have the server",
        ),
        (f"password: {SECRET}\npeers:\n{PEERS}", "no user or no password"),
        (f"user: fabric\npeers:\n{PEERS}", "no user or no password"),
        (f"user: fabric\npassword_file: absent\npeers:\n{PEERS}", "absent"),
        (f"user: fabric\npassword: [{SECRET}]\npeers:\n{PEERS}", "wrong entries: password"),
        (f"user: fabric\npassword: {SECRET}\npeers: {{{HOSTS[0]}: '://'}}", "wrong entries"),
        (f"usr: fabric\npassword: {SECRET}\npeers: {{}}", "usr"),
        ("{", "it is not YAML"),
        ("", "wrong entries"),
        ("&a [*a]", "wrong entries"),
    ],
)
def test_what_is_wrong_is_told_and_no_password(named: Path, content: str, words: str) -> None:
    named.write_text(content)
    with pytest.raises(CouchDbUnusable) as caught:
        couchdb.read_servers(site(named.parent))
    assert words in str(caught.value)
    assert SECRET not in str(caught.value) + str(caught.value.details)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_read_is_refused(named: Path, mode: int) -> None:
    named.write_text(f"user: fabric\npassword: {SECRET}\npeers:\n{PEERS}")
    named.chmod(mode)
    with pytest.raises(CouchDbUnusable, match="others may read it"):
        couchdb.read_servers(site(named.parent))


@asynccontextmanager
async def server(welcome: object, password: str = SECRET) -> AsyncIterator[CouchDb]:
    """An HTTP server that greets with `welcome` and takes one account."""
    expected = base64.b64encode(f"fabric:{password}".encode()).decode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            text = head.decode()
            greeting = text.startswith("GET / ")
            status = "200 OK" if greeting or f"Basic {expected}" in text else "401 Unauthorized"
            body = json.dumps(welcome if greeting else []).encode()
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    listening = await asyncio.start_server(quiet, "127.0.0.1", 0)
    async with listening:
        yield CouchDb(f"127.0.0.1:{listening.sockets[0].getsockname()[1]}", "fabric", SECRET)


async def test_a_server_that_fits_passes() -> None:
    async with server({"couchdb": "Welcome", "version": "3.4.2"}) as found:
        await couchdb.check_servers({HOSTS[0]: found})


@pytest.mark.parametrize(
    ("welcome", "password", "words"),
    [
        ({"couchdb": "Welcome", "version": "3.4.2"}, "another", "answers 401 to the account fabric"),
        ({"couchdb": "Welcome", "version": "2.3.1"}, SECRET, "it is version 2.3.1"),
        ({"couchdb": "Welcome"}, SECRET, "it is version unknown"),
        ({"hello": "world"}, SECRET, "what answers there is no CouchDB"),
        ([], SECRET, "what answers there is no CouchDB"),
    ],
)
async def test_a_server_that_does_not_fit_is_named(welcome: object, password: str, words: str) -> None:
    async with server(welcome, password) as found:
        with pytest.raises(CouchDbUnusable, match=f"{HOSTS[0]} cannot use the CouchDB at") as caught:
            await couchdb.check_servers({HOSTS[0]: found})
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


async def test_a_server_that_is_not_there_is_named() -> None:
    async with server({}) as found:
        pass
    with pytest.raises(CouchDbUnusable, match="start it, or correct its address"):
        await couchdb.check_servers({HOSTS[0]: found})


def test_the_account_is_in_the_environment_alone_and_the_list_of_all_settings_is_not_logged() -> None:
    found = CouchDb("127.0.0.1:5984", "fabric", SECRET)
    assert couchdb.environment(found)["CORE_LEDGER_STATE_COUCHDBCONFIG_PASSWORD"] == SECRET
    assert couchdb.logging_spec("debug", account=True) == "debug:nodeCmd=warning"
    assert couchdb.logging_spec("debug", account=False) == "debug"


def test_index_definitions_beside_the_module_go_into_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "indexed/META-INF/statedb/couchdb/indexes"
    folder.mkdir(parents=True)
    (folder / "owner.json").write_text("{}")
    (tmp_path / "indexed/contract.py").write_text("raise AssertionError('it is found, not run')")
    (tmp_path / "indexed/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert couchdb.index_files("indexed.contract:chaincode") == {"META-INF/statedb/couchdb/indexes/owner.json": b"{}"}
    assert couchdb.index_files("nothing.there:chaincode") == {}
