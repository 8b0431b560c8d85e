"""Spoilt, oversized, endless and too many requests: each call ends with a status, and honest clients are served."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
import pytest_asyncio
from campaign import run
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import transaction_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from ledger_world import World
from service_world import CHANNEL, ORDERER, Services, failure, host_of, services
from shapes import bomb

from sovchain.ledger.deliver import DELIVER_CONCURRENCY
from sovchain.ledger.gateway import GATEWAY_CONCURRENCY
from sovchain.ledger.tls import MAX_MESSAGE_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")

PEER = host_of("Org1MSP")
UNARY = (
    "/protos.Endorser/ProcessProposal",
    "/gateway.Gateway/Evaluate",
    "/gateway.Gateway/Endorse",
    "/gateway.Gateway/Submit",
    "/gateway.Gateway/CommitStatus",
    "/discovery.Discovery/Discover",
)
STREAMS = (
    (PEER, "/protos.Deliver/Deliver"),
    (PEER, "/protos.Deliver/DeliverFiltered"),
    (PEER, "/protos.ChaincodeSupport/Register"),
    (ORDERER, "/orderer.AtomicBroadcast/Broadcast"),
    (ORDERER, "/orderer.AtomicBroadcast/Deliver"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    async with services(tmp_path_factory.mktemp("net"), World(("Org1MSP",))) as running:
        await running.deploy("cc")
        yield running


def memory_mib() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss / 2**20)


async def test_spoilt_requests_end_with_a_status_and_harm_nobody(tmp_path: Path) -> None:
    tally = await run(tmp_path, count=160, seed=3)
    assert tally.finds == []
    assert len(tally.answers) > 5, tally.answers


async def test_messages_beyond_the_limit_are_refused_at_every_service(net: Services) -> None:
    """100 MiB and a little more, of which nothing is kept."""
    before, large = memory_mib(), b"\x0a" + b"\x80" * (MAX_MESSAGE_BYTES + 8)
    for method in (UNARY[2],):
        refused = await failure(net.connect(PEER).unary_unary(method)(large, timeout=60))
        assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    call: Any = net.connect(ORDERER).stream_stream(STREAMS[3][1])()
    with contextlib.suppress(asyncio.InvalidStateError):
        await call.write(large)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    del large
    await net.transact("put", "after", "large")
    assert memory_mib() - before < 150


@pytest.mark.long
async def test_the_largest_messages_end_with_a_status_at_every_service(net: Services) -> None:
    """Just below the limit: what no limit of gRPC stops, each service has to refuse by itself."""
    large, kept = b"\x0a" + b"\x80" * (MAX_MESSAGE_BYTES - 8), []
    for _ in range(4):
        for method in UNARY:
            refused = await failure(net.connect(PEER).unary_unary(method)(large, timeout=60))
            assert "internal error" not in refused.text, (method, refused)
        for host, method in STREAMS:
            call: Any = net.connect(host).stream_stream(method)()
            await call.write(large)
            await call.done_writing()
            answers = 0
            with contextlib.suppress(grpc.aio.AioRpcError):
                while isinstance(await asyncio.wait_for(call.read(), 60), bytes):
                    answers += 1
            code = await call.code()
            expected = grpc.StatusCode.OK if answers else grpc.StatusCode.FAILED_PRECONDITION
            assert code == expected, (method, code)
        await net.transact("put", "after", "larger")
        kept.append(memory_mib())
    # The allocator keeps some of what a round took, and gives it to the next one.
    assert max(kept[1:]) - kept[0] < 150, kept


@pytest.mark.parametrize("depth", [90, 101, 10_000])
async def test_policies_that_are_nested_too_deeply_satisfy_nobody(net: Services, depth: int) -> None:
    """As a chaincode's policy, which a peer takes unread, and in a request."""
    policy = b"\x0a" + _varint(len(bomb(depth))) + bomb(depth)
    name = f"deep{depth}"
    definition: dict[str, Any] = {"name": name, "version": "1", "sequence": 1, "validation_parameter": policy}
    approval = lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs(**definition)
    approval.source.local_package.package_id = net.chaincodes["cc"].package_id
    commit = lifecycle_pb2.CommitChaincodeDefinitionArgs(**definition)
    assert await net.lifecycle_transaction("ApproveChaincodeDefinitionForMyOrg", approval, ["Org1MSP"]) == 0
    assert await net.lifecycle_transaction("CommitChaincodeDefinition", commit, ["Org1MSP"]) == 0
    told = await net.transact("put", "a", "b", chaincode=name, organizations=["Org1MSP"])
    assert told[1] == transaction_pb2.ENDORSEMENT_POLICY_FAILURE
    _, signed = net.proposal("put", "a", "b", chaincode=name)
    refused = await failure(net.endorse(signed))
    assert refused.code == grpc.StatusCode.FAILED_PRECONDITION, refused
    request = gateway_pb2.EndorseRequest(channel_id=CHANNEL, proposed_transaction=signed)
    nested = request.SerializeToString() + b"\x12" + _varint(len(bomb(depth))) + bomb(depth)
    refused = await failure(net.gateway("Endorse", nested, gateway_pb2.EndorseResponse))
    assert "internal error" not in refused.text


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


async def test_calls_beyond_the_limit_of_a_service_are_refused_and_the_others_go_on(net: Services) -> None:
    """Clients that wait for commits which never come take all of the gateway; the endorser beside it is not theirs."""
    waiting = [asyncio.ensure_future(net.status("f" * 64, timeout_s=60)) for _ in range(GATEWAY_CONCURRENCY + 40)]
    try:
        done: set[asyncio.Future[Any]] = set()
        async with asyncio.timeout(60):
            while len(done) < 40:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=1)
        refused = [await failure(one) for one in done]
        assert Counter(one.code for one in refused) == {grpc.StatusCode.UNKNOWN: 40}
        assert all("exceeding concurrency limit" in one.text for one in refused)
        assert (await net.process(net.proposal("get", "a")[1])).response.status == 200
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(30):
        while (await asyncio.gather(net.evaluate(net.proposal("get", "a")[1]), return_exceptions=True))[0] is None:
            await asyncio.sleep(0)  # the server learns of the cancelled calls one by one


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_flood_of_streams_is_bounded(net: Services) -> None:
    """More deliver streams than the limit, each waiting for a block: the rest is refused, and the memory comes back."""
    before, seek = memory_mib(), ab_pb2.SeekInfo()
    seek.start.next_commit.SetInParent()
    seek.stop.specified.number = 2**63
    calls: list[Any] = []
    request = net.seek(seek).SerializeToString()
    # On a connection of their own: one on which this many are cancelled is closed.
    flood = grpc.aio.secure_channel(
        net.ledger.address_of(PEER),
        grpc.ssl_channel_credentials(net.tls.root_pem),
        options=[("grpc.ssl_target_name_override", PEER), ("grpc.use_local_subchannel_pool", 1)],
    )
    try:
        for _ in range(DELIVER_CONCURRENCY + 100):
            call: Any = flood.stream_stream("/protos.Deliver/Deliver")()
            calls.append(call)
            with contextlib.suppress(grpc.aio.AioRpcError):  # one that is refused at once
                await call.write(request)
        async with asyncio.timeout(120):
            while sum(call.done() for call in calls) < 100:
                await asyncio.sleep(0.2)
        texts = Counter([await call.details() for call in calls if call.done()])
        # What the client's library says of a write that meets the end of its call.
        del texts["Internal error from Core"]
        assert list(texts) == [
            f"too many requests for /protos.Deliver, exceeding concurrency limit ({DELIVER_CONCURRENCY})"
        ]
        await net.transact("put", "during", "flood")
    finally:
        for call in calls:
            call.cancel()
        await flood.close()
    await net.transact("put", "after", "streams")
    assert memory_mib() - before < 400


DEAF = """
import asyncio, grpc.aio, json, sys
async def main():
    told = json.loads(sys.stdin.readline())
    credentials = grpc.ssl_channel_credentials(told["root"].encode())
    options = [("grpc.ssl_target_name_override", told["host"])]
    calls = []
    async with grpc.aio.secure_channel(told["address"], credentials, options=options) as channel:
        for _ in range(told["streams"]):
            call = channel.stream_stream("/protos.Deliver/Deliver")()
            await call.write(bytes.fromhex(told["request"]))
            calls.append(call)
        print("asked", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_clients_that_do_not_read_cost_no_memory(net: Services) -> None:
    """Sixty streams of another process ask for all blocks, 60 MB of them, and read none."""
    for number in range(60):
        await net.transact("put", f"large {number}", b"v" * 1_000_000)
    before, seek = memory_mib(), ab_pb2.SeekInfo()
    seek.start.oldest.SetInParent()
    seek.stop.specified.number = 2**63
    told = {
        "root": net.tls.root_pem.decode(), "host": PEER, "address": net.ledger.address_of(PEER), "streams": 60,
        "request": net.seek(seek).SerializeToString().hex(),
    }  # fmt: skip
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", DEAF, stdin=pipe, stdout=pipe)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(told).encode() + b"\n")
        assert await asyncio.wait_for(child.stdout.readline(), 60) == b"asked\n"
        for number in range(20):
            await net.transact("put", f"more {number}", b"v" * 1_000_000)
        grown = memory_mib() - before
    finally:
        child.kill()
        await child.wait()
    assert grown < 60 * 12, f"{grown:.0f} MiB: copies of one block for each stream, and not of all eighty"
    await net.transact("put", "after", "the deaf")
