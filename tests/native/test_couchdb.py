"""Real peers keep their state in CouchDB and run rich queries there, with the answers of the embedded ledger.

The servers are CouchDB's own, where `SOVCHAIN_COUCHDB_BIN` names some (tests/support/couchdbserver.py).
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import couchdbserver
import pytest
from fabricprograms import fabric_programs
from smallnetwork import PROBE, WIDE, small_topology

from sovchain.client import EndorseError, EvaluateError
from sovchain.network import Network
from sovchain.network.ports import allocate
from sovchain.network.runtimes import couchdb
from sovchain.testing.conformance.chaincode import Probe


def _hosts() -> list[str]:
    return [node.host for node in small_topology().nodes if node.kind == "peer"]


def _name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, word: str, ports: Mapping[str, int]) -> None:
    """Write the file of the servers and name it in the environment."""
    peers = "".join(f"  {host}: 127.0.0.1:{port}\n" for host, port in ports.items())
    path = tmp_path / "couchdb.yaml"
    path.touch(mode=0o600)
    path.write_text(f"user: fabric\npassword: {word}\npeers:\n{peers}")
    monkeypatch.setenv(couchdb.VARIABLE, str(path))


@pytest.fixture
def password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The password of running CouchDB servers, one for each peer, which the environment names."""
    couchdbserver.couchdb_program()
    word = secrets.token_hex(12)
    ports = allocate(_hosts(), None, {})
    with ExitStack() as servers:
        for host, port in ports.items():
            servers.enter_context(couchdbserver.couchdb(tmp_path / "couchdb" / host, port, word))
        _name(monkeypatch, tmp_path, word, ports)
        yield word


@pytest.mark.timeout(300)
@pytest.mark.long
@pytest.mark.parametrize("version", ["2.5", "3.1"])
def test_rich_queries_run_on_real_peers_and_the_password_is_nowhere(
    version: str, tmp_path: Path, request: pytest.FixtureRequest
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


CARS = {
    "car1": b'{"owner":"ann","doors":3,"price":1e21}',
    "car2": b'{"owner":"bob","doors":5,"tags":["<b>","c"]}',
    "car3": b'{"owner":"Ann", "doors":4.0}',
    "\u00e9": b'{"owner":"zo\xc3\xab","doors":null}',
    "raw": b"not json",
}
QUERIES = (
    '{"selector":{"owner":"bob"}}',
    '{"selector":{"owner":{"$gte":"ann"}}}',
    '{"selector":{"_id":{"$gt":null}}}',
    '{"selector":{"doors":{"$gt":3}},"fields":["owner"]}',
    '{"selector":{"$or":[{"doors":4},{"tags":{"$elemMatch":{"$regex":"^<"}}}]},"limit":1}',
    '{"selector":{"owner":{"$exists":true}},"use_index":"none"}',
    '{"selector":{"_id":{"$gt":"car1"}},"sort":[{"_id":"desc"}]}',
    '{"selector":{"owner":{"$gt":null}},"sort":["owner"]}',
    '{"selector":{"owner":{"$bad":1}}}',
    '{"selector":{"owner":{"$in":{"b":1.5,"a":[2]}}}}',
    '{"selector":[]}',
    '{"sort":["owner"]}',
    '{"selector":{},"fields":5}',
    '{"selector":{},"fields":[]}',
    "{",
    "",
    "[]",
)


async def _answers(network: Network) -> list[object]:
    """What the peers answer to each query: the entries, or the error's text."""
    async with network.connect("Alpha") as gateway:
        contract = gateway.network(WIDE).contract(PROBE)
        for key, value in CARS.items():
            await contract.submit(Probe.put, key, value)
        # A peer of 2.5 refuses the single write, whose error stays in the contract's log; one of 3.1 the batch of them.
        with pytest.raises(EndorseError, match=r"field \[_id\] is not valid for the CouchDB state database|E_INTERNAL"):
            await contract.submit(Probe.put, "car4", b'{"_id":"x"}')
        with pytest.raises(EndorseError, match=r'cannot begin with "_"|E_INTERNAL'):
            await contract.submit(Probe.put, "_car", b"{}")
        answers: list[object] = []
        for query in QUERIES:
            try:
                found = await contract.evaluate(Probe.rich, query)
                answers.append([(entry.key, entry.value) for entry in found])
            except EvaluateError as error:
                answers.append(
                    re.sub("[0-9a-f]{64}", "TXID", str(error.details[0].message if error.details else error))
                )
        return answers


@pytest.mark.timeout(600)
@pytest.mark.long
@pytest.mark.parametrize("version", ["2.5", "3.1"])
def test_rich_queries_have_the_same_answers_from_real_peers_with_couchdb_and_embedded(
    version: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fabric_programs(version)
    request.getfixturevalue("password")

    async def use(runtime: Literal["native", "embedded"]) -> list[object]:
        names = ("Alpha", "Beta", "Gamma")
        organizations = [{"name": name, "peers": 2 if (name, runtime) == ("Alpha", "native") else 1} for name in names]
        topology = small_topology(version, state_database="couchdb", organizations=organizations)
        async with Network.up(topology, runtime, tmp_path / runtime) as network:
            return await _answers(network)

    theirs, ours = asyncio.run(use("native")), asyncio.run(use("embedded"))
    assert dict(zip(QUERIES, ours, strict=True)) == dict(zip(QUERIES, theirs, strict=True))


def test_the_embedded_ledger_answers_rich_queries_when_the_topology_says_couchdb(tmp_path: Path) -> None:
    async def use() -> None:
        organizations = [{"name": name} for name in ("Alpha", "Beta", "Gamma")]
        topology = small_topology(state_database="couchdb", organizations=organizations)
        async with Network.up(topology, "embedded", tmp_path) as network:
            answers = dict(zip(QUERIES, await _answers(network), strict=True))
        assert answers[QUERIES[0]] == [("car2", '{"doors":5,"owner":"bob","tags":["\\u003cb\\u003e","c"]}')]
        assert "No index exists for this sort" in str(answers['{"selector":{"owner":{"$gt":null}},"sort":["owner"]}'])

    asyncio.run(use())
