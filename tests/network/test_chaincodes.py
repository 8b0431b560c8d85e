"""Chaincode instances listen, are started again when they die, and never outlive their network."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sovchain.network import ChaincodeFailed, default_topology
from sovchain.network.runtimes import chaincodes, processes
from sovchain.network.runtimes.chaincodes import (
    INSTANCES,
    SHIFT,
    ChaincodeInstance,
    ChaincodeTls,
    build_package,
    serve_command,
    serve_environment,
    service_name,
)
from sovchain.network.runtimes.processes import end_orphans
from sovchain.protocol.packages import parse_package

TOPOLOGY = default_topology()
PORTS = {
    service_name(spec.name, instance): 21000 + 2 * index + INSTANCES.index(instance)
    for index, spec in enumerate(TOPOLOGY.chaincodes)
    for instance in INSTANCES
}
LISTENS = "import sys; print('starting', file=sys.stderr); print('hello'); print('ready', flush=True); sys.stdin.read()"
FAILS = "raise SystemExit('no module named notes')"
DEAF = "import sys, time; print('ready', flush=True)\nwhile True: time.sleep(1)"
OWNER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_chaincodes import instance
async def main():
    child = instance(Path(sys.argv[1]), sys.argv[2])
    await child.start()
    await child.ready()
    print('number', child.pid_path.read_text(), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def instance(directory: Path, code: str) -> ChaincodeInstance:
    for folder in ("run", "logs", "chaincode"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    config = directory / "chaincode/A.json"
    return ChaincodeInstance(
        name="A",
        command=[sys.executable, "-c", code, str(config)],
        environment=dict(os.environ),
        log_path=directory / "logs/chaincode-A.log",
        pid_path=directory / "run/chaincode-A.pid",
    )


@asynccontextmanager
async def started(directory: Path, code: str) -> AsyncIterator[ChaincodeInstance]:
    child = instance(directory, code)
    await child.start()
    try:
        yield child
    finally:
        await child.stop()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(condition: object, timeout_s: float = 10) -> None:
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_instance_is_ready_when_it_says_so_and_its_other_words_go_to_its_log(tmp_path: Path) -> None:
    async with started(tmp_path, LISTENS) as child:
        await child.ready()
        pid = int(child.pid_path.read_text())
        assert alive(pid)
    assert not alive(pid)
    assert not child.pid_path.exists()
    assert sorted(child.log_path.read_text().split()) == ["hello", "starting"]


async def test_an_instance_that_dies_is_started_again(tmp_path: Path) -> None:
    async with started(tmp_path, LISTENS) as child:
        await child.ready()
        first = int(child.pid_path.read_text())
        os.kill(first, signal.SIGKILL)
        await until(lambda: int(child.pid_path.read_text()) != first)
        await until(lambda: child.log_path.read_text().count("hello") == 2)
        second = int(child.pid_path.read_text())
    assert not alive(second)


async def test_an_instance_that_cannot_start_says_why(tmp_path: Path) -> None:
    async with started(tmp_path, FAILS) as child:
        with pytest.raises(ChaincodeFailed, match="no module named notes") as caught:
            await child.ready()
        assert caught.value.log == child.log_path


async def test_an_instance_that_never_listens_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaincodes, "READY_TIMEOUT_S", 0.2)
    async with started(tmp_path, "import sys; sys.stdin.read()") as child:
        with pytest.raises(ChaincodeFailed, match="did not listen"):
            await child.ready()


async def test_an_instance_that_does_not_end_by_itself_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (chaincodes, processes):
        monkeypatch.setattr(module, "STOP_TIMEOUT_S", 0.2)
    async with started(tmp_path, DEAF) as child:
        await child.ready()
        pid = int(child.pid_path.read_text())
    assert not alive(pid)


async def test_a_very_long_line_does_not_stop_the_reading(tmp_path: Path) -> None:
    code = "import sys; print('x' * 300_000, flush=True); print('ready', flush=True); sys.stdin.read()"
    async with started(tmp_path, code) as child:
        await child.ready()
    assert child.log_path.stat().st_size >= 300_000


def owned(directory: Path, code: str) -> tuple[subprocess.Popen[str], int]:
    """A process of its own that runs an instance, and the instance's number."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(tests=str(Path(__file__).parent)), directory, code],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    number = next(line for line in owner.stdout if line.startswith("number"))
    return owner, int(number.split()[1])


async def test_an_instance_ends_when_its_network_is_killed(tmp_path: Path) -> None:
    owner, pid = owned(tmp_path, LISTENS)
    owner.kill()
    owner.wait()
    await end_orphans(tmp_path)
    assert not alive(pid)


async def test_an_instance_that_outlives_a_killed_network_is_killed_before_the_next_start(tmp_path: Path) -> None:
    owner, pid = owned(tmp_path, DEAF)
    owner.kill()
    owner.wait()
    assert alive(pid)
    await end_orphans(tmp_path, timeout_s=0.2)
    assert not alive(pid)


async def test_another_process_with_the_number_of_an_instance_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    other = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        (tmp_path / "run/chaincode-A.pid").write_text(str(other.pid))
        (tmp_path / "run/chaincode-B.pid").write_text("not a number")
        await end_orphans(tmp_path, timeout_s=0.2)
        assert other.poll() is None
    finally:
        other.communicate()


def test_a_package_names_both_instances_and_is_the_same_every_time(tmp_path: Path) -> None:
    tls = ChaincodeTls.create(tmp_path / "tls", datetime.now(UTC))
    spec = TOPOLOGY.chaincode("finance")
    addresses = [f"127.0.0.1:{PORTS[service_name('finance', instance)]}" for instance in INSTANCES]
    package = build_package(spec, addresses, tls)
    assert build_package(spec, addresses, ChaincodeTls.create(tmp_path / "tls", datetime.now(UTC))) == package
    parsed = parse_package(package)
    assert (parsed.type, parsed.label) == ("ccaas", "finance_1.0")
    assert parsed.connection is not None
    assert parsed.connection["address"] == f"127.0.0.1:{PORTS[service_name('finance', 'A')]}"
    assert parsed.connection["replica_address"] == f"127.0.0.1:{PORTS[service_name('finance', 'B')]}"
    assert parsed.connection["tls_required"] is True
    assert parsed.connection["client_auth_required"] is True
    assert parsed.connection["root_cert"] == (tmp_path / "tls/ca.crt").read_text()
    assert not list((tmp_path / "tls").glob("ca.key"))


def test_the_second_instance_has_another_clock_and_hash_seed(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(
        "import json, sys, time, datetime\n"
        "print(json.dumps([time.time(), datetime.datetime.now().timestamp(), hash('sovchain'), sys.argv[1:], __name__]))\n"
    )
    seen = {}
    for name in INSTANCES:
        command = serve_command(Path("config.json"), shift=SHIFT if name == "B" else None)
        assert command.count("sovchain.chaincode") == 1
        command[command.index("sovchain.chaincode")] = "probe"
        own = serve_environment({"A": "0", "B": "1"}[name])
        environment = own | {"PYTHONPATH": str(tmp_path) + os.pathsep + own["PYTHONPATH"]}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        seen[name] = json.loads(done.stdout)
    now = time.time()
    for clock in (0, 1):
        assert abs(seen["A"][clock] - now) < 30
        assert abs(seen["B"][clock] - now - SHIFT.total_seconds()) < 30
    assert seen["A"][2] != seen["B"][2]
    assert seen["A"][3:] == seen["B"][3:] == [["serve", "--config", "config.json", "--exit-with-parent"], "__main__"]
    assert timedelta(days=366) < SHIFT
