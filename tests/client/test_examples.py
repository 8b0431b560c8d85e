"""The examples run as they are written, and keep what they promise."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fakegateway import FakeGateway, LiveAuthority, Stream, block_of, events, key_pem, profile_of
from pki import Signer, pem

from sovchain.client import ChaincodeEvent, Gateway, Identity

EXAMPLES = Path(__file__).parents[2] / "examples/client"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


A, B, C = "a" * 64, "b" * 64, "c" * 64


class PowerCut(BaseException):
    """Stands for the end of the process."""


async def consumed(gateway: Gateway, fake: FakeGateway, module: ModuleType, store: Any, *, cut_at: str) -> None:
    """Consume until the power is cut at a transaction, before or after it is stored."""
    apply = store.apply
    when, _, at = cut_at.partition(" ")

    def cutting(event: ChaincodeEvent) -> Any:
        if event.transaction_id == at and when == "before":
            raise PowerCut
        done = apply(event)
        if event.transaction_id != at:
            return done

        async def and_then_the_power_is_cut() -> None:
            if done is not None:
                await done
            raise PowerCut

        if asyncio.iscoroutine(done):
            return and_then_the_power_is_cut()
        raise PowerCut

    store.apply = cutting
    with pytest.raises(PowerCut):
        async with asyncio.timeout(30):
            await module.consume(gateway, "ch", "basic", store)


def script(fake: FakeGateway) -> None:
    """Three events in blocks 4 and 5, from the start, after the first, and after the second."""
    fake.script("DeliverFiltered", Stream((block_of(4, (A, 0, True), (B, 0, True)),), hold=True))
    everything = [(4, A), (4, B), (5, C)]
    for after in (0, 1):
        fake.script("ChaincodeEvents", Stream(tuple(events(*one) for one in everything[after:]), hold=True))


@pytest.mark.parametrize("cut_at", [f"before {B}", f"after {A}"])
async def test_the_sqlite_consumer_applies_each_event_once_over_a_power_cut(
    gateway: Gateway, fake: FakeGateway, tmp_path: Path, cut_at: str
) -> None:
    module = example("consumer_sqlite")
    script(fake)
    await consumed(gateway, fake, module, module.Store(str(tmp_path / "out.db")), cut_at=cut_at)
    store = module.Store(str(tmp_path / "out.db"))
    assert store.database.execute("SELECT count(*) FROM waybills").fetchone() == (1,)
    await consumed(gateway, fake, module, store, cut_at=f"after {C}")
    rows = store.database.execute("SELECT transaction_id FROM waybills ORDER BY transaction_id").fetchall()
    assert rows == [(A,), (B,), (C,)]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of its own on a socket; gives what connects to it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("missing program: PostgreSQL: apt-get install postgresql")
    binaries = found[-1].parent
    # Not below pytest's own folder, which is closed to others: the server refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    runuser = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if runuser:
        shutil.chown(folder, "postgres")

    def run(*command: str) -> None:
        done = subprocess.run([*runuser, *command], capture_output=True, text=True, timeout=60, check=False, cwd="/")
        assert done.returncode == 0, done.stderr + done.stdout

    run(str(binaries / "initdb"), "-D", f"{folder}/data", "-U", "city", "--auth=trust")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    run(str(binaries / "pg_ctl"), "-D", f"{folder}/data", "-w", "-o", options, "-l", f"{folder}/log", "start")
    yield f"host={folder} user=city dbname=postgres"
    run(str(binaries / "pg_ctl"), "-D", f"{folder}/data", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.mark.parametrize("cut_at", [f"before {B}", f"after {A}"])
async def test_the_postgresql_consumer_applies_each_event_once_over_a_power_cut(
    gateway: Gateway, fake: FakeGateway, postgresql: str, cut_at: str
) -> None:
    module = example("consumer_postgresql")
    script(fake)
    first = await module.Store.open(postgresql)
    await first.connection.execute("TRUNCATE events, position")
    await consumed(gateway, fake, module, first, cut_at=cut_at)
    await first.connection.close()
    store = await module.Store.open(postgresql)
    await consumed(gateway, fake, module, store, cut_at=f"after {C}")
    cursor = await store.connection.execute("SELECT id FROM events ORDER BY id")
    assert [row[0] for row in await cursor.fetchall()] == [f"4/{A}", f"4/{B}", f"5/{C}"]
    await store.connection.close()


async def test_the_offline_signer_takes_every_step_without_a_key(
    fake: FakeGateway, authority: LiveAuthority, tmp_path: Path
) -> None:
    module = example("offline_signer")
    signer: Signer = authority.issue("user", "client")
    key = tmp_path / "user.key"
    key.write_bytes(key_pem(signer))
    asked: list[bytes] = []

    def sign(message: bytes) -> bytes:
        asked.append(message)
        return module.sign_here(str(key), message)  # type: ignore[no-any-return]

    async with Gateway.connect(profile_of(fake), Identity("Org1MSP", pem(signer.certificate))) as gateway:
        result, status = await module.submit(gateway, sign, "ch", "basic", "make", "a")
    assert (result, status.successful, len(asked)) == (b"done", True, 3)


async def test_the_service_answers_each_outcome_with_its_own_status(
    fake: FakeGateway, authority: LiveAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="missing program: fastapi: pip install fastapi")
    import httpx

    signer = authority.issue("user", "client")
    for folder, data in (("signcerts", pem(signer.certificate)), ("keystore", key_pem(signer))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one").write_bytes(data)
    (tmp_path / "profile.json").write_text(json.dumps(profile_of(fake)))
    for name, value in (
        ("PROFILE", tmp_path / "profile.json"), ("MSP", tmp_path), ("MSP_ID", "Org1MSP"),
        ("JOURNAL", tmp_path / "journal"), ("CHANNEL", "ch"), ("CHAINCODE", "basic"),
    ):  # fmt: skip
        monkeypatch.setenv(f"SOVCHAIN_{name}", str(value))
    app = example("service").app
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            assert (await client.get("/read", params={"argument": "x"})).json() == {"result": "read x"}
            first = await client.post("/make", json=["a"], headers={"Idempotency-Key": "order-1"})
            again = await client.post("/make", json=["a"], headers={"Idempotency-Key": "order-1"})
            other = await client.post("/make", json=["b"], headers={"Idempotency-Key": "order-1"})
    assert (first.status_code, again.json()) == (200, first.json())
    assert other.status_code == 422
    assert len(fake.requests["Submit"]) == 1


def test_the_notebook_runs(sovchain_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOVCHAIN_DIR", str(sovchain_network))
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert set(json.loads(names["seats"])) == {"legislator", "regulator", "sector"}
