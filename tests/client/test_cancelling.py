"""Cancelling, closing and limits: nothing leaks, and the gateway stays usable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from fakegateway import FakeGateway, Stream, fail, hang, profile_of

from sovchain.client import (
    Contract,
    EndorseError,
    EvaluateError,
    Gateway,
    GatewayClosed,
    OutcomeUnknown,
    SigningIdentity,
)

Use = Callable[[Contract], Awaitable[Any]]


@pytest.mark.parametrize("method", ["Evaluate", "Endorse", "Submit", "CommitStatus"])
async def test_a_cancelled_call_ends_at_the_peer_too_and_frees_its_slot(
    fake: FakeGateway, user: SigningIdentity, method: str
) -> None:
    async with Gateway.connect(profile_of(fake), user, max_in_flight=1) as gateway:
        contract = gateway.network("ch").contract("basic")
        before = asyncio.all_tasks()
        fake.script(method, hang())
        task = asyncio.create_task(contract.evaluate("read") if method == "Evaluate" else contract.submit("make"))
        await fake.until(method, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await fake.until_idle()
        assert {other for other in asyncio.all_tasks() - before if "client" in repr(other.get_coro())} == set()
        assert await contract.evaluate("read", "a") == b"read a"
        assert (await contract.submit("make")).result == b"done"


@pytest.mark.parametrize(
    "use",
    [
        lambda contract: contract.evaluate("read"),
        lambda contract: contract.submit("make"),
        lambda contract: anext(contract.events(start=3)),
        lambda contract: anext(contract.events()),
    ],
    ids=["evaluate", "submit", "events", "events from now"],
)
async def test_a_closed_gateway_says_so(fake: FakeGateway, user: SigningIdentity, use: Use) -> None:
    async with Gateway.connect(profile_of(fake), user) as gateway:
        network = gateway.network("ch")
        contract = network.contract("basic")
    with pytest.raises(GatewayClosed):
        await use(contract)
    with pytest.raises(GatewayClosed):
        await anext(network.blocks(0))
    assert not any(fake.requests.values())


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("Evaluate", EvaluateError),
        ("Endorse", EndorseError),
        ("Submit", OutcomeUnknown),
        ("CommitStatus", OutcomeUnknown),
    ],
)
async def test_closing_under_a_call_ends_it_with_an_error_and_not_with_a_cancellation(
    fake: FakeGateway, user: SigningIdentity, method: str, kind: type[EvaluateError | EndorseError | OutcomeUnknown]
) -> None:
    fake.script(method, hang())
    async with Gateway.connect(profile_of(fake), user) as gateway:
        contract = gateway.network("ch").contract("basic")
        call: Any = contract.evaluate("read") if method == "Evaluate" else contract.submit("make")
        task = asyncio.create_task(call)
        await fake.until(method, 1)
    with pytest.raises(kind) as caught:
        await task
    assert caught.value.failure.status == "CANCELLED"


async def test_closing_between_two_attempts_of_a_submit_leaves_the_outcome_unknown(
    fake: FakeGateway, user: SigningIdentity
) -> None:
    fake.script("Submit", *[fail(grpc.StatusCode.UNAVAILABLE, "no orderers")] * 20)
    async with Gateway.connect(profile_of(fake), user) as gateway:
        task = asyncio.create_task(gateway.network("ch").contract("basic").submit("make"))
        await fake.until("Submit", 1)
        await fake.until_idle()
    with pytest.raises(OutcomeUnknown) as caught:
        await task
    assert caught.value.phase == "submit"


@pytest.mark.parametrize("stream", ["events", "blocks"])
async def test_closing_under_a_stream_ends_it_with_gateway_closed(
    fake: FakeGateway, user: SigningIdentity, stream: str
) -> None:
    method = "ChaincodeEvents" if stream == "events" else "Deliver"
    fake.script(method, Stream(hold=True))
    async with Gateway.connect(profile_of(fake), user) as gateway:
        network = gateway.network("ch")
        source: Any = network.contract("basic").events(start=1) if stream == "events" else network.blocks(1)
        task = asyncio.ensure_future(anext(source))
        await fake.until(method, 1)
    with pytest.raises(GatewayClosed):
        await task


async def test_no_more_calls_than_allowed_are_under_way(fake: FakeGateway, user: SigningIdentity) -> None:
    gate = asyncio.Event()

    async def wait(request: bytes, context: object) -> bytes:
        await gate.wait()
        return fake.healthy("Evaluate", request)

    fake.script("Evaluate", *[wait] * 12)
    async with Gateway.connect(profile_of(fake), user, max_in_flight=4) as gateway:
        contract = gateway.network("ch").contract("basic")
        calls = [asyncio.create_task(contract.evaluate("read", str(n))) for n in range(12)]
        await fake.until("Evaluate", 4)
        assert fake.most_running == 4
        gate.set()
        assert await asyncio.gather(*calls) == [f"read {n}".encode() for n in range(12)]
    assert fake.most_running == 4


@pytest.mark.parametrize("most", [0, -1])
async def test_a_limit_that_would_let_nothing_through_is_refused(
    fake: FakeGateway, user: SigningIdentity, most: int
) -> None:
    with pytest.raises(ValueError, match="max_in_flight"):
        async with Gateway.connect(profile_of(fake), user, max_in_flight=most):
            pass


async def test_a_message_over_100_mib_is_refused_here_and_the_gateway_goes_on(
    contract: Contract, fake: FakeGateway
) -> None:
    with pytest.raises(EvaluateError) as caught:
        await contract.evaluate("read", bytes(100 * 1024 * 1024))
    assert caught.value.status == "RESOURCE_EXHAUSTED"
    assert "send less" in str(caught.value)
    assert not fake.requests["Evaluate"]
    assert await contract.evaluate("read") == b"read"


async def test_a_reply_over_the_limit_is_an_error(fake: FakeGateway, user: SigningIdentity) -> None:
    async with Gateway.connect(profile_of(fake), user, max_message_bytes=10_000) as gateway:
        contract = gateway.network("ch").contract("basic")
        fake.script("Evaluate", bytes(20_000))
        with pytest.raises(EvaluateError) as caught:
            await contract.evaluate("read")
        assert caught.value.status == "RESOURCE_EXHAUSTED"
        with pytest.raises(EndorseError):
            await contract.submit("make", bytes(20_000))
