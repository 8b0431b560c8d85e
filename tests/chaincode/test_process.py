"""`python -m sovchain.chaincode`: variables, flags, health, stopping, exit codes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from fakepeer import FakePeer

from sovchain.chaincode import ServiceError, serve
from sovchain.chaincode.__main__ import main
from sovchain.chaincode.serve import load_chaincode
from sovchain.network.runtimes.chaincodes import ChaincodeTls

HERE = Path(__file__).parent
MODULE = "process_contract"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def serving(port: int, **variables: str) -> dict[str, str]:
    return {
        "CHAINCODE_ID": "process_1.0:abc",
        "CHAINCODE_SERVER_ADDRESS": f"127.0.0.1:{port}",
        "CHAINCODE_TLS_DISABLED": "true",
        **variables,
    }


@asynccontextmanager
async def process(
    *arguments: str, environment: Mapping[str, str], wait_ready: bool = True
) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sovchain.chaincode", *arguments,
        env={**os.environ, "PYTHONPATH": str(HERE), "SOVCHAIN_LOG_LEVEL": "warning", **environment},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        if wait_ready:
            assert started.stdout is not None
            async with asyncio.timeout(20):
                assert await started.stdout.readline() == b"ready\n"
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def get(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, object]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    data = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else {}


async def test_a_service_from_variables_is_healthy_then_ready_and_stops_as_told() -> None:
    port, health = free_port(), free_port()
    environment = serving(port, CHAINCODE_HEALTH_ADDRESS=f"127.0.0.1:{health}")
    async with process("serve", MODULE, environment=environment) as started:
        assert (await get(health, "/healthz"))[0] == 200
        status, document = await get(health, "/readyz?verbose=1")
        assert (status, document["failed_checks"]) == (
            503,
            [{"component": "process_1.0:abc", "reason": "no peer is connected"}],
        )
        peer = FakePeer()
        async with peer.dial(f"127.0.0.1:{port}"):
            assert (await peer.invoke("Process:ping")).response.payload == b"pong"
            assert (await get(health, "/readyz"))[0] == 200
            assert await get(health, "/healthz", "HEAD") == (200, {})
            assert (await get(health, "/secrets"))[0] == 404
            assert (await get(health, "/healthz", "POST"))[0] == 405
            started.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(started.wait(), 10) == 0


async def test_sigterm_finishes_what_was_taken() -> None:
    port, gate, arrived = free_port(), asyncio.Event(), asyncio.Event()

    async def hold(kind: str, key: str) -> None:
        arrived.set()
        await gate.wait()

    peer = FakePeer()
    peer.hold = hold
    async with process("serve", MODULE, environment=serving(port)) as started, peer.dial(f"127.0.0.1:{port}"):
        waiting = asyncio.create_task(peer.invoke("Process:wait"))
        await arrived.wait()
        started.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            while (await peer.invoke("Process:ping")).response.status != 503:
                await asyncio.sleep(0.01)
        gate.set()
        assert (await waiting).response.payload == b"done"
        assert await asyncio.wait_for(started.wait(), 10) == 0


async def test_a_contract_that_sleeps_in_a_thread_does_not_keep_the_process() -> None:
    port = free_port()
    arguments = ("serve", MODULE, "--grace", "0.1", "--exit-with-parent")
    async with process(*arguments, environment=serving(port)) as started:
        peer = FakePeer()
        async with peer.dial(f"127.0.0.1:{port}"):
            sleeping = asyncio.create_task(peer.invoke("Process:sleep"))
            assert (await peer.invoke("Process:ping")).response.payload == b"pong"
            assert started.stdin is not None
            started.stdin.close()
            assert await asyncio.wait_for(started.wait(), 15) == 0
            await asyncio.gather(sleeping, return_exceptions=True)


@pytest.mark.parametrize(("mode", "status"), [("warn", 200), ("refuse", 500)])
async def test_own_reads_are_told_of_or_refused(mode: str, status: int) -> None:
    port = free_port()
    async with process("serve", MODULE, "--own-reads", mode, environment=serving(port)) as started:
        peer = FakePeer()
        async with peer.dial(f"127.0.0.1:{port}"):
            assert (await peer.invoke("Process:own")).response.status == status
        started.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(started.communicate(), 10)
        assert (b"own write read" in errors) is (mode == "warn")
        assert started.returncode == 0


async def test_connect_over_mutual_tls_with_files_as_peers_write_them_comes_back(
    tls: ChaincodeTls, tmp_path: Path
) -> None:
    """Base64 of PEM in files, as fabric/core/container/dockercontroller writes them; the stream is cut and stands again."""
    for name, path in zip(("cert", "key"), tls.client, strict=True):
        (tmp_path / name).write_bytes(base64.b64encode(path.read_bytes()))
    certificate, key = (path.read_bytes() for path in tls.server)
    credentials = grpc.ssl_server_credentials([(key, certificate)], tls.root.read_bytes(), True)
    peer = FakePeer()
    async with peer.listen(credentials) as address:
        environment = {
            "CORE_CHAINCODE_ID_NAME": "process_1.0:abc",
            "CORE_PEER_TLS_ENABLED": "true",
            "CORE_PEER_TLS_ROOTCERT_FILE": str(tls.root),
            "CORE_TLS_CLIENT_CERT_PATH": str(tmp_path / "cert"),
            "CORE_TLS_CLIENT_KEY_PATH": str(tmp_path / "key"),
            "CORE_PEER_TLS_SERVERHOSTOVERRIDE": "localhost",
        }
        arguments = ("connect", MODULE, "-peer.address", address)
        async with process(*arguments, environment=environment, wait_ready=False) as started:
            await asyncio.wait_for(peer.ready.wait(), 20)
            peer.cut_at = 1
            with pytest.raises(ConnectionError):
                await peer.invoke("Process:ping")
            peer.cut_at = None
            await asyncio.wait_for(peer.ready.wait(), 5)
            assert (await peer.invoke("Process:ping")).response.payload == b"pong"
            started.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(started.wait(), 10) == 0


async def test_connect_with_an_external_builders_metadata_ends_with_its_stream(
    tls: ChaincodeTls, tmp_path: Path
) -> None:
    certificate, key = (path.read_text() for path in tls.client)
    server_certificate, server_key = (path.read_bytes() for path in tls.server)
    credentials = grpc.ssl_server_credentials([(server_key, server_certificate)], tls.root.read_bytes(), True)
    peer = FakePeer()
    async with peer.listen(credentials, host="localhost") as address:
        metadata = {
            "chaincode_id": "process_1.0:abc", "peer_address": address, "client_cert": certificate, "client_key": key,
            "root_cert": tls.root.read_text(), "mspid": "Org1MSP",
        }  # fmt: skip
        (tmp_path / "chaincode.json").write_text(json.dumps(metadata))
        arguments = ("connect", MODULE, "--metadata", str(tmp_path / "chaincode.json"))
        async with process(*arguments, environment={}, wait_ready=False) as started:
            await asyncio.wait_for(peer.ready.wait(), 20)
            assert peer.registered == "process_1.0:abc"
            peer.cut_at = 1
            with pytest.raises(ConnectionError):
                await peer.invoke("Process:ping")
            assert await asyncio.wait_for(started.wait(), 10) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        (("serve", MODULE), {}, "the environment variable CHAINCODE_TLS_CERT is not set"),
        (("serve", MODULE), {"CHAINCODE_TLS_DISABLED": "1"}, "the environment variable CHAINCODE_ID is not set"),
        (("serve",), {"CHAINCODE_TLS_DISABLED": "1"}, "name the chaincode as module:attribute"),
        (("serve", "no.such.module"), serving(0), "cannot import no.such.module"),
        (("serve", "../contract.py"), serving(0), "'../contract.py' is no name of a module"),
        (("serve", "json"), serving(0), "json is no Chaincode"),
        (("serve", MODULE), serving(0, CHAINCODE_SERVER_ADDRESS="nonsense"), "nonsense is no address: write host:port"),
        (("serve", MODULE), serving(0, CHAINCODE_SERVER_ADDRESS="127.0.0.1:99999"), "is no address"),
        (("serve", MODULE), serving(0, CHAINCODE_SERVER_ADDRESS="192.0.2.1:7"), "cannot listen on 192.0.2.1:7"),
        (("serve", MODULE), serving(0, CHAINCODE_HEALTH_ADDRESS="x"), "x is no address"),
        (("serve", MODULE), serving(0, SOVCHAIN_OWN_READS="loud"), "SOVCHAIN_OWN_READS is silent, warn or refuse"),
        (
            ("serve", MODULE),
            serving(0, SOVCHAIN_DETERMINISM="yes"),
            "SOVCHAIN_DETERMINISM is off, warn or refuse",
        ),
        (("serve", MODULE, "--max-running", "0"), serving(0), "--max-running is a positive number"),
        (("connect", MODULE), {}, "the environment variable CORE_CHAINCODE_ID_NAME is not set"),
        (("connect", MODULE), {"CORE_CHAINCODE_ID_NAME": "x"}, "the environment variable CORE_PEER_ADDRESS is not set"),
        (("connect", MODULE, "--metadata", "/nonexistent"), {}, "cannot read /nonexistent"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in list(os.environ):
        if name.startswith(("CHAINCODE_", "CORE_", "SOVCHAIN_OWN", "SOVCHAIN_DET")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(HERE))
    assert main(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert text in errors[0]


def test_half_of_a_client_pair_is_refused(tls: ChaincodeTls) -> None:
    environment = {
        "CORE_CHAINCODE_ID_NAME": "x",
        "CORE_PEER_ADDRESS": "x:1",
        "CORE_PEER_TLS_ENABLED": "true",
        "CORE_PEER_TLS_ROOTCERT_FILE": str(tls.root),
        "CORE_TLS_CLIENT_CERT_FILE": str(tls.client[0]),
    }
    with pytest.raises(ServiceError, match="one of the two is not set"):
        serve.connect_from_environment(environment)


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for name, value in serving(taken.getsockname()[1]).items():
            monkeypatch.setenv(name, value)
        assert main(("serve", MODULE)) == 2
    assert "in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero (FILE, line 1)"),
        ("\ndef (", "SyntaxError: invalid syntax (faulty.py, line 2)"),
        (
            "from sovchain.chaincode import Contract, query\n\n\nclass Half(Contract):\n    @query\n"
            "    async def of(self, ctx, number: float) -> str:\n        return ''\n",
            "Half.of: parameter number cannot travel: floats differ between machines: "
            "use int in the smallest unit, or Decimal (FILE, line 4)",
        ),
    ],
)
def test_a_module_that_fails_when_it_is_imported_is_told_by_its_line(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    with pytest.raises(ServiceError) as caught:
        load_chaincode("faulty")
    assert str(caught.value).endswith(words.replace("FILE", str(tmp_path / "faulty.py")))
