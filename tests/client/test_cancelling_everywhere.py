"""A submit, a step and a stream that are cancelled at each of their awaits in turn: nothing leaks, the id stays known."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from cancelat import CancelAt, run
from fabric_protos.gateway import gateway_pb2
from fakegateway import FakeGateway, Stream, block, commit, events, fail, profile_of

from sovchain.client import (
    Contract,
    FileCheckpointer,
    Gateway,
    RetryPolicy,
    SigningIdentity,
    SqliteJournal,
    unfinished,
)

IN_FLIGHT = 2
WAITS_MOST = 200
OVERLOAD = "too many requests for /gateway.Gateway, exceeding concurrency limit (500)"


@pytest.fixture
def journal(tmp_path: Path) -> SqliteJournal:
    return SqliteJournal(tmp_path / "journal")


@pytest.fixture(params=["commit stream", "commit status"])
async def gateway(
    request: pytest.FixtureRequest,
    fake: FakeGateway,
    user: SigningIdentity,
    journal: SqliteJournal,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Gateway]:
    """A gateway with few slots, so that a lost one is noticed at once, and something to try again at each step."""
    monkeypatch.setattr("sovchain.client.transaction.RESEND_PAUSE_S", 0.001)
    monkeypatch.setattr("sovchain.client._stream.RECONNECT_PAUSES_S", (0.001,))
    retry = RetryPolicy(overload_pause_s=0.001, unknown_resends=1)
    stream = request.param == "commit stream"
    async with Gateway.connect(
        profile_of(fake), user, max_in_flight=IN_FLIGHT, retry=retry, commit_stream=stream, journal=journal
    ) as connected:
        yield connected


def own_tasks() -> set[asyncio.Task[Any]]:
    """Tasks of the client, but for the two that belong to a gateway that is open."""
    kept = ("CommitFeed", "Connection._watch", "Connection.watch")
    found = set()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        name = repr(task.get_coro())
        if "sovchain" in name and not any(one in name for one in kept):
            found.add(task)
    return found


def sent(fake: FakeGateway) -> set[str]:
    """The ids of the transactions that were handed to the ordering service."""
    return {gateway_pb2.SubmitRequest.FromString(request).transaction_id for request in fake.requests["Submit"]}


async def settle(gateway: Gateway, fake: FakeGateway) -> None:
    """After a cancellation nothing is under way, here or at the peer, and every slot is free."""
    await fake.until_idle()
    await asyncio.sleep(0)
    assert own_tasks() == set()
    endpoint, feed = gateway._connection.endpoints[0], gateway.network("ch").contract("basic")._session.state.feed
    assert endpoint._open == int(feed is not None and feed._task is not None), "a call is counted that has ended"
    assert endpoint._slots._value == IN_FLIGHT


async def at_each_await(
    start: Callable[[], Coroutine[Any, Any, Any]], check: Callable[[BaseException], Any]
) -> Counter[str]:
    """Cancel at the first await, then at the second, ... until it comes to its end uncancelled."""
    seen: Counter[str] = Counter()
    for at in range(1, WAITS_MOST):
        waiting = CancelAt(start(), at)
        try:
            await asyncio.create_task(run(waiting))
        except asyncio.CancelledError as cancelled:
            seen["cancelled"] += 1
            await check(cancelled)
        else:
            seen["ended"] += 1
            if waiting.waits < at:
                return seen
            await check(asyncio.CancelledError())
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("kind", ["submit", "submit_once", "steps"])
async def test_a_submit(gateway: Gateway, fake: FakeGateway, journal: SqliteJournal, kind: str) -> None:
    """Endorse, Submit and CommitStatus are each refused once as for now, so that the pauses between attempts are awaits too."""
    contract = gateway.network("ch").contract("basic")
    known: set[str] = set()
    keys = iter(range(WAITS_MOST))

    async def submit() -> None:
        for method in ("Endorse", "Submit"):
            fake.script(method, fail(grpc.StatusCode.UNKNOWN, OVERLOAD))
        fake.script("Submit", fail(grpc.StatusCode.UNAVAILABLE, "no orderers"))
        fake.script("CommitStatus", commit())
        if kind == "submit":
            await contract.submit("make")
        elif kind == "submit_once":
            await contract.submit_once(f"key {next(keys)}", "make")
        else:
            proposal = contract.proposal("make")
            known.add(proposal.transaction_id)
            await (await (await proposal.endorse()).submit()).committed()

    async def check(error: BaseException) -> None:
        for method in fake._scripts.values():
            method.clear()
        left = unfinished(error)
        if left is not None:
            known.add(left.transaction_id)
            assert left.transaction_id in str(error.__notes__)
            assert (await left.status()).successful
        await settle(gateway, fake)
        if kind == "submit_once":
            known.update(entry.transaction_id for entry in await journal.unsettled())
        assert sent(fake) - ended <= known, "something was sent of which nobody knows"
        before = sent(fake)
        await contract.submit("make")
        ended.update(sent(fake) - before)

    ended: set[str] = set()
    seen = await at_each_await(submit, check)
    assert seen["cancelled"] >= 4
    assert len(sent(fake)) > 5


@pytest.mark.parametrize("kind", ["events", "blocks"])
async def test_a_stream(gateway: Gateway, fake: FakeGateway, kind: str, tmp_path: Path) -> None:
    """The stream breaks once and is opened again; wherever the reader is cancelled, its place in the ledger stays right."""
    network = gateway.network("ch")
    method = "ChaincodeEvents" if kind == "events" else "Deliver"
    numbers = iter(range(WAITS_MOST))

    async def read() -> list[int]:
        checkpoint = FileCheckpointer(tmp_path / f"place {next(numbers)}")
        if kind == "events":
            fake.script(
                method, Stream((events(5, "a"),), grpc.StatusCode.UNAVAILABLE), Stream((events(6, "b"),), hold=True)
            )
            source: Any = network.contract("basic").events(start=5, checkpoint=checkpoint)
        else:
            fake.script(method, Stream((block(5),), grpc.StatusCode.UNAVAILABLE), Stream((block(6),), hold=True))
            source = network.blocks(5, checkpoint=checkpoint)
        found = []
        try:
            async for one in source:
                found.append(one.block_number if kind == "events" else one.header.number)
                if len(found) == 2:
                    break
        finally:
            await source.aclose()
            place = await checkpoint.load()
            # The place of a reader of blocks is the block that comes next.
            done = 0 if place is None else place.block_number - (kind == "blocks")
            assert done <= (found[-1] if found else 5), "beyond what was read"
        return found

    async def check(error: BaseException) -> None:
        fake._scripts[method].clear()
        await settle(gateway, fake)

    seen = await at_each_await(read, check)
    assert seen["cancelled"] >= 4
    assert len(fake.requests[method]) > seen["cancelled"] / 2


@pytest.mark.parametrize("how", ["timeout", "wait_for", "cancel"])
async def test_whoever_gives_up_learns_what_was_under_way(contract: Contract, fake: FakeGateway, how: str) -> None:
    hanging = asyncio.Event()

    async def hang(request: bytes, context: object) -> bytes:
        hanging.set()
        await asyncio.Event().wait()
        return b""

    await contract.submit("warm")
    fake.script("Submit", hang)
    before = sent(fake)
    error: BaseException
    try:
        if how == "timeout":
            async with asyncio.timeout(0.3):
                await contract.submit("make")
        elif how == "wait_for":
            await asyncio.wait_for(contract.submit("make"), 0.3)
        else:
            task = asyncio.create_task(contract.submit("make"))
            await hanging.wait()
            task.cancel()
            await task
    except (TimeoutError, asyncio.CancelledError) as caught:
        error = caught
    left = unfinished(error)
    assert left is not None
    assert {left.transaction_id} == sent(fake) - before
    assert (await left.status()).successful
    assert unfinished(TimeoutError()) is None
    del left, error
    gc.collect()
