"""Gateways that go away: noticed in time, left for others, and never mistaken for an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest
from fakegateway import FakeGateway, LiveAuthority, Stream, block, fail, hang, profile_of
from tcpproxy import TcpProxy

from sovchain.client import (
    ConnectError,
    EvaluateError,
    Gateway,
    OutcomeUnknown,
    RetryPolicy,
    SigningIdentity,
    Timeouts,
)
from sovchain.client import _endpoint as endpoints

NOTICED_S = 20.0
"""The promise: a silent partition is noticed within this time."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    """The same watch at a twentieth of its times; gives the time within which it must notice."""
    for name in ("SILENCE_S", "PROBE_S"):
        monkeypatch.setattr(endpoints, name, getattr(endpoints, name) / 20)
    monkeypatch.setattr("sovchain.client._connection.WATCH_PACE_S", 0.05)
    return NOTICED_S / 20 + 4.0  # what a busy machine takes besides


def test_the_times_of_the_watch_keep_the_promise() -> None:
    from sovchain.client._connection import WATCH_PACE_S

    assert endpoints.SILENCE_S + WATCH_PACE_S + endpoints.PROBE_S < NOTICED_S
    assert endpoints.KEEPALIVE.idle_s >= 60, "a peer ends connections that ping more often than once a minute"


@pytest.fixture
async def second(authority: LiveAuthority) -> AsyncIterator[FakeGateway]:
    async with FakeGateway(authority) as gateway:
        yield gateway


def behind(profile: Mapping[str, Any], proxy: TcpProxy) -> Mapping[str, Any]:
    """The profile with its first gateway behind a proxy."""
    profile["peers"]["peer0"]["url"] = f"grpcs://{proxy.address}"
    return profile


async def test_a_silent_partition_is_noticed_and_calls_go_on_elsewhere(
    fake: FakeGateway, second: FakeGateway, user: SigningIdentity, quick: float
) -> None:
    """A call that is under way, a stream that is open, and a wait for a commit."""
    async with TcpProxy(fake.port) as proxy:  # noqa: SIM117 - the profile needs its port
        async with Gateway.connect(behind(profile_of(fake, second), proxy), user, commit_stream=False) as gateway:
            gateway._connection.prefer(gateway._connection.endpoints[0])
            network = gateway.network("ch")
            fake.script("Deliver", Stream((block(1),), hold=True))
            second.script("Deliver", Stream((block(2),), hold=True))
            fake.script("CommitStatus", hang())
            blocks = network.blocks(1)
            assert (await anext(blocks)).header.number == 1
            pending = await network.contract("basic").submit_async("make")
            waiting = asyncio.create_task(pending.committed())
            await fake.until("CommitStatus", 1)
            proxy.partition()
            started = time.monotonic()
            assert await network.contract("basic").evaluate("read") == b"read"
            assert (await anext(blocks)).header.number == 2
            assert (await waiting).block_number == 7
            assert time.monotonic() - started < quick
            assert proxy.bytes_down > 1000
            assert second.requests["Evaluate"]
            assert second.requests["CommitStatus"]


async def test_a_gateway_that_is_quiet_but_there_is_not_left(
    fake: FakeGateway, user: SigningIdentity, quick: float
) -> None:
    """Nothing happens on the channel for ten times as long as silence is suspicious."""
    async with Gateway.connect(profile_of(fake), user) as gateway:
        fake.script("Deliver", Stream((block(1),), hold=True))
        blocks = gateway.network("ch").blocks(1)
        await anext(blocks)
        waiting = asyncio.ensure_future(anext(blocks))
        await asyncio.sleep(endpoints.SILENCE_S * 10)
        assert not waiting.done()
        assert len(fake.requests["Deliver"]) == 1
        await blocks.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting


async def test_a_partition_of_the_only_gateway_ends_calls_and_heals(
    fake: FakeGateway, user: SigningIdentity, quick: float
) -> None:
    async with TcpProxy(fake.port) as proxy, Gateway.connect(behind(profile_of(fake), proxy), user) as gateway:
        contract = gateway.network("ch").contract("basic")
        await contract.evaluate("read")
        proxy.partition()
        started = time.monotonic()
        with pytest.raises((EvaluateError, ConnectError)):
            await contract.with_options(timeouts=Timeouts(evaluate_s=20)).evaluate("read")
        assert time.monotonic() - started < quick
        proxy.heal()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await contract.evaluate("read") == b"read"
                    break
                except (EvaluateError, ConnectError):
                    await asyncio.sleep(0.05)


async def test_a_gateway_that_fails_comes_last_until_its_time_is_over(
    fake: FakeGateway, second: FakeGateway, user: SigningIdentity
) -> None:
    async with Gateway.connect(profile_of(fake, second), user) as gateway:
        gateway._connection.prefer(gateway._connection.endpoints[0])
        contract = gateway.network("ch").contract("basic")
        fake.script("Evaluate", *[fail(grpc.StatusCode.UNAVAILABLE, "away")] * 50)
        for _ in range(5):
            await contract.evaluate("read")
        assert len(fake.requests["Evaluate"]) == 1
        assert len(second.requests["Evaluate"]) == 5


OVERLOAD = "too many requests for /gateway.Gateway, exceeding concurrency limit (500)"


async def test_a_peer_with_too_many_calls_is_asked_again_after_a_pause(
    fake: FakeGateway, user: SigningIdentity
) -> None:
    """Fabric says UNKNOWN; the handler never ran, so that even a submit may be sent again."""
    for method in ("Evaluate", "Endorse", "Submit"):
        fake.script(method, *[fail(grpc.StatusCode.UNKNOWN, OVERLOAD)] * 2)
    retry = RetryPolicy(overload_pause_s=0.01)
    async with Gateway.connect(profile_of(fake), user, retry=retry) as gateway:
        contract = gateway.network("ch").contract("basic")
        assert await contract.evaluate("read") == b"read"
        await contract.submit("make")
    assert [len(fake.requests[method]) for method in ("Evaluate", "Endorse", "Submit")] == [3, 3, 3]


async def test_an_overload_that_lasts_is_an_error_of_its_own(fake: FakeGateway, user: SigningIdentity) -> None:
    fake.script("Evaluate", *[fail(grpc.StatusCode.UNKNOWN, OVERLOAD)] * 100)
    timeouts = Timeouts(evaluate_s=0.3)
    async with Gateway.connect(profile_of(fake), user, timeouts=timeouts) as gateway:
        with pytest.raises(EvaluateError) as caught:
            await gateway.network("ch").contract("basic").evaluate("read")
    assert caught.value.status in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
    assert 2 <= len(fake.requests["Evaluate"]) <= 8, "neither given up at once nor a storm"


async def test_a_connection_cut_at_every_point_of_a_submit_never_lies(fake: FakeGateway, user: SigningIdentity) -> None:
    """Cut after each number of bytes that the gateway sends: committed, not sent, or unknown with its id."""
    async with TcpProxy(fake.port) as proxy:
        profile = behind(profile_of(fake), proxy)
        timeouts = Timeouts(endorse_s=2, submit_s=2, commit_s=2)
        async with Gateway.connect(profile, user, timeouts=timeouts, commit_stream=False) as gateway:
            contract = gateway.network("ch").contract("basic")
            await contract.submit("make", "warm")
            before = proxy.bytes_down
            await contract.submit("make", "measure")
            length = proxy.bytes_down - before
            outcomes: dict[str, int] = {}
            # Nearly all of it is the endorsement; what answers the sent transaction is in the last bytes.
            for at in (*range(1, length - 200, length // 20), *range(length - 200, length + 100, 6)):
                await gateway._connection.endpoints[0].ready()
                proxy.cut_after_down = at
                sent = len(fake.requests["Submit"])
                try:
                    await contract.submit("make", str(at))
                    outcome = "committed"
                except OutcomeUnknown as unknown:
                    assert unknown.commit is not None
                    assert (await unknown.commit.status()).successful
                    outcome = "unknown"
                except Exception as error:
                    outcome = type(error).__name__
                    assert len(fake.requests["Submit"]) == sent, (at, error)
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                proxy.cut_after_down = None
    assert proxy.cuts > 30, "the cuts did not happen"
    assert outcomes["EndorseError"] > 10, outcomes
    assert outcomes["committed"] + outcomes.get("unknown", 0) > 20, outcomes


async def test_a_unix_socket_and_a_channel_of_ones_own(
    authority: LiveAuthority, user: SigningIdentity, tmp_path: Any
) -> None:
    from sovchain.client import Profile

    path = tmp_path / "peer.sock"
    async with FakeGateway(authority, tls=False, socket=f"unix:{path}") as fake:
        async with Gateway.connect(Profile.from_addresses("Org1MSP", [f"unix:{path}"]), user) as gateway:
            assert await gateway.network("ch").contract("basic").evaluate("read") == b"read"
        channel = grpc.aio.insecure_channel(f"unix:{path}")
        async with Gateway.over(channel, user) as gateway:
            assert (await gateway.network("ch").contract("basic").submit("make")).block_number == 7
        assert channel.get_state() is not grpc.ChannelConnectivity.SHUTDOWN
        await channel.close()
        with pytest.raises(ConnectError) as caught:
            async with Gateway.connect(
                Profile.from_addresses("Org1MSP", [f"unix:{tmp_path}/nobody"]), user, timeouts=Timeouts(connect_s=0.3)
            ):
                pass
        assert caught.value.reason == "unresolved"
        assert len(fake.requests["Evaluate"]) == 1


async def test_an_address_list_is_a_profile(fake: FakeGateway, user: SigningIdentity) -> None:
    from pki import pem

    from sovchain.client import Profile, ProfileContentError

    root = pem(fake.authority.certificate)
    profile = Profile.from_addresses("Org1MSP", [fake.address], tls_root_pem=root)
    async with Gateway.connect(profile, user) as gateway:
        assert await gateway.network("ch").contract("basic").evaluate("read") == b"read"
    for wrong in ([], ["host"], ["host:0"], ["a/b:7"], ["unix:relative"]):
        with pytest.raises(ProfileContentError):
            Profile.from_addresses("Org1MSP", wrong, tls_root_pem=root)
    with pytest.raises(ProfileContentError, match="tls_root_pem"):
        Profile.from_addresses("Org1MSP", ["h:1"], tls_root_pem=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END")
