"""The blocking client is the asynchronous one: made from it, the same results and errors, and nothing left behind."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from fakegateway import FakeGateway, LiveAuthority, Stream, block, events, fail, hang, profile_of

from sovchain import client
from sovchain.client import EvaluateError, GatewayClosed, MemoryCheckpointer, OutcomeUnknown, Position, SigningIdentity
from sovchain.client import blocking as blocking_client
from sovchain.client.blocking import Commit, Gateway

ROOT = Path(__file__).parents[2]


class Served:
    """A fake gateway on an event loop in a thread of its own."""

    def __init__(self, authority: LiveAuthority) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.fake = self.run(self._made(authority))

    @staticmethod
    async def _made(authority: LiveAuthority) -> FakeGateway:
        fake = FakeGateway(authority)
        await fake.start()
        return fake

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def close(self) -> None:
        self.run(self.fake.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


@pytest.fixture
def served(authority: LiveAuthority) -> Iterator[Served]:
    one = Served(authority)
    yield one
    one.close()


def test_it_is_what_the_generator_makes() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/make_blocking.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_public_method_has_its_twin() -> None:
    renamed = {"aclose": "close"}
    for name in blocking_client.__all__:
        for method, value in vars(getattr(client, name)).items():
            if method.startswith("_") or method in ("build", "over", "discard", "sign"):
                continue
            twin = inspect.getattr_static(getattr(blocking_client, name), renamed.get(method, method), None)
            assert twin is not None, (name, method)
            assert not inspect.iscoroutinefunction(getattr(twin, "__func__", twin)), (name, method, value)


def test_calls_steps_and_streams_work_without_await(served: Served, user: SigningIdentity) -> None:
    served.fake.script("ChaincodeEvents", Stream((events(3, "a", "b"),), hold=True))
    served.fake.script("Deliver", Stream((block(5), block(6)), hold=True))
    checkpoint = MemoryCheckpointer(Position(3))
    with Gateway.connect(profile_of(served.fake), user) as gateway:
        network = gateway.network("ch")
        contract = network.contract("basic")
        assert contract.evaluate("read", "x") == b"read x"
        assert contract.submit("make").block_number == 7
        transaction = contract.proposal("make").endorse()
        assert transaction.submit().committed().result == b"done"
        assert [found.header.number for found in network.blocks(5, 6)] == [5, 6]
        with contract.events(checkpoint=checkpoint) as source:
            assert [next(source).transaction_id for _ in range(2)] == ["a", "b"]
        with ThreadPoolExecutor(8) as threads:
            got = list(threads.map(lambda n: contract.evaluate("read", str(n)), range(40)))
        assert got == [f"read {n}".encode() for n in range(40)]


def test_errors_are_the_same_and_an_unknown_outcome_can_be_asked_for(served: Served, user: SigningIdentity) -> None:
    served.fake.script("Evaluate", fail(grpc.StatusCode.UNKNOWN, "chaincode response 500, no"))
    served.fake.script("Submit", hang())
    timeouts = client.Timeouts(submit_s=0.3)
    with Gateway.connect(profile_of(served.fake), user, timeouts=timeouts) as gateway:
        contract = gateway.network("ch").contract("basic")
        with pytest.raises(EvaluateError, match="500: no"):
            contract.evaluate("read")
        with pytest.raises(OutcomeUnknown) as caught:
            contract.submit("make")
        commit: Any = caught.value.commit
        assert isinstance(commit, Commit)
        assert commit.status().block_number == 7


def test_after_its_block_it_is_closed_and_its_thread_is_gone(served: Served, user: SigningIdentity) -> None:
    before = threading.active_count()
    with Gateway.connect(profile_of(served.fake), user) as gateway:
        contract = gateway.network("ch").contract("basic")
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with pytest.raises(GatewayClosed):
        contract.evaluate("read")


INTERRUPTED = """
import json, signal, sys, threading, os, time
from sovchain.client import SigningIdentity
from sovchain.client.blocking import Gateway
task = json.loads(sys.argv[1])
identity = SigningIdentity.from_pem("Org1MSP", task["certificate"], task["key"])
with Gateway.connect(task["profile"], identity) as gateway:
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        next(gateway.network("ch").blocks(1))
    except KeyboardInterrupt:
        print("interrupted", gateway.network("ch").contract("basic").evaluate("read").decode())
"""


def test_ctrl_c_ends_a_wait_and_the_gateway_goes_on(served: Served, authority: LiveAuthority) -> None:
    import json

    from fakegateway import key_pem
    from pki import pem

    signer = authority.issue("user", "client")
    task = {
        "profile": profile_of(served.fake),
        "certificate": pem(signer.certificate).decode(),
        "key": key_pem(signer).decode(),
    }
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, json.dumps(task)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.strip() == "interrupted read", done.stderr
