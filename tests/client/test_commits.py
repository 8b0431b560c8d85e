"""Learning of commits from one stream of blocks: cheaper than asking, and never less certain."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

import grpc
import pytest
from fabric_protos.peer import events_pb2
from fakegateway import FakeGateway, Stream, commit, fail, filtered, hang, profile_of

from sovchain.client import CommitRejected, Contract, Gateway, OutcomeUnknown, SigningIdentity, Timeouts

BROKEN = grpc.StatusCode.UNAVAILABLE


def told(number: int, *transactions: tuple[str, int]) -> bytes:
    """A filtered block with these transactions and their codes."""
    return events_pb2.DeliverResponse(
        filtered_block=events_pb2.FilteredBlock(
            channel_id="ch",
            number=number,
            filtered_transactions=[
                events_pb2.FilteredTransaction(txid=txid, tx_validation_code=code)  # type: ignore[arg-type]
                for txid, code in transactions
            ],
        )
    ).SerializeToString()


async def warmed(contract: Contract, fake: FakeGateway) -> None:
    """Have the stream opened by a first submit, and wait until it has told of the newest block."""
    await contract.submit("make", "first")
    await fake.until("feed", 1)
    await asyncio.sleep(0.05)


async def test_pending_submits_share_one_stream_and_ask_nothing(contract: Contract, fake: FakeGateway) -> None:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    fake.script("feed", Stream((told(7),), more=queue))
    await warmed(contract, fake)
    asked = len(fake.requests["CommitStatus"])
    pending = [await contract.submit_async("make", str(n)) for n in range(20)]
    await queue.put(told(8, *((one.transaction_id, 0) for one in pending[:19]), (pending[19].transaction_id, 11)))
    done = await asyncio.gather(*(one.committed() for one in pending[:19]))
    assert {one.block_number for one in done} == {8}
    with pytest.raises(CommitRejected) as caught:
        await pending[19].committed()
    assert (caught.value.code_name, caught.value.block_number) == ("MVCC_READ_CONFLICT", 8)
    assert len(fake.requests["CommitStatus"]) == asked
    assert len(fake.requests["feed"]) == 1


@pytest.mark.parametrize("end", ["broken", "refused", "garbage"])
async def test_when_the_stream_ends_those_who_wait_ask(contract: Contract, fake: FakeGateway, end: str) -> None:
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()
    fake.script("feed", Stream((told(7),), BROKEN if end == "broken" else None, more=queue))
    await warmed(contract, fake)
    asked = len(fake.requests["CommitStatus"])
    pending = await contract.submit_async("make", "a")
    waiting = asyncio.create_task(pending.committed())
    await asyncio.sleep(0)
    await queue.put({"broken": None, "refused": None, "garbage": b"\xff\xff"}[end])
    assert (await waiting).block_number == 7
    assert len(fake.requests["CommitStatus"]) == asked + 1


async def test_of_a_transaction_id_that_comes_twice_the_ledger_is_asked(contract: Contract, fake: FakeGateway) -> None:
    """A copy that is sent again is marked DUPLICATE_TXID: that is not what became of the first one."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    fake.script("feed", Stream((told(7),), more=queue))
    await warmed(contract, fake)
    pending = await contract.submit_async("make", "a")
    await queue.put(told(9, (pending.transaction_id, 9)))
    fake.script("CommitStatus", commit(0, 8))
    assert (await pending.committed()).block_number == 8


@pytest.mark.parametrize("refused", [False, True])
async def test_what_is_sent_again_after_its_block_is_asked_for(
    gateway: Gateway, contract: Contract, fake: FakeGateway, refused: bool
) -> None:
    """BFT nodes take the same bytes only once (SmartBFT's request pool), so that no further block has them."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    fake.script("feed", Stream((told(7),), more=queue))
    await warmed(contract, fake)
    transaction = await contract.proposal("make", "a").endorse()
    pending = await transaction.submit()
    await queue.put(told(8, (pending.transaction_id, 0)))
    first = await pending.committed()
    fake.script("CommitStatus", commit(0, 8))
    if refused:  # and the copy that another process holds does not know that it was sent
        transaction = gateway.load_transaction(transaction.to_bytes())
        fake.script("Submit", fail(BROKEN, "no quorum", ("o1:7050", "O1MSP", "request already processed")))
    again = await transaction.submit()
    assert (await again.committed(timeout_s=2)).block_number == first.block_number == 8


async def test_a_block_that_does_not_come_leaves_the_outcome_unknown_and_can_be_asked_for(
    fake: FakeGateway, user: SigningIdentity
) -> None:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    fake.script("feed", Stream((told(7),), more=queue))
    async with Gateway.connect(profile_of(fake), user, timeouts=Timeouts(commit_s=0.3)) as gateway:
        contract = gateway.network("ch").contract("basic")
        await warmed(contract, fake)
        with pytest.raises(OutcomeUnknown) as caught:
            await contract.submit("make", "a")
        assert caught.value.commit is not None
        await queue.put(told(8, (caught.value.transaction_id, 0)))
        assert (await caught.value.commit.status(timeout_s=5)).block_number == 8


async def test_without_the_stream_each_transaction_is_asked_for(fake: FakeGateway, user: SigningIdentity) -> None:
    async with Gateway.connect(profile_of(fake), user, commit_stream=False) as gateway:
        await gateway.network("ch").contract("basic").submit("make")
    assert len(fake.requests["CommitStatus"]) == 1
    assert not fake.requests["feed"]


async def test_a_client_on_a_channel_full_of_others_stops_reading_their_blocks(
    contract: Contract, fake: FakeGateway
) -> None:
    foreign = [told(8 + n, *((f"{n}-{k}", 0) for k in range(500))) for n in range(6)]
    fake.script("feed", Stream((told(7), *foreign), hold=True))
    await contract.submit("make", "a")
    async with asyncio.timeout(5):
        while fake.running["feed"]:
            await asyncio.sleep(0.01)
    assert (await contract.submit("make", "b")).block_number == 7


async def test_own_writes_are_read_only_from_a_peer_that_has_them(fake: FakeGateway, user: SigningIdentity) -> None:
    """The peer that reported the commit is asked at once; another one only when its blocks have come so far."""
    async with FakeGateway(fake.authority) as second:  # noqa: SIM117 - the profile needs its port
        async with Gateway.connect(profile_of(fake, second), user, commit_stream=False) as gateway:
            gateway._connection.prefer(gateway._connection.endpoints[0])
            contract = gateway.network("ch").contract("basic").with_options(read_own_writes=True)
            fake.script("CommitStatus", commit(0, 12))
            await contract.submit("make", "a")
            assert await contract.evaluate("read") == b"read"
            assert not fake.requests["DeliverFiltered"]
            fake.script("Evaluate", fail(grpc.StatusCode.UNAVAILABLE, "away"))
            queue: asyncio.Queue[bytes] = asyncio.Queue()
            second.script("DeliverFiltered", Stream(more=queue))
            reading = asyncio.create_task(contract.evaluate("read"))
            await second.until("DeliverFiltered", 1)
            await asyncio.sleep(0.05)
            assert not second.requests["Evaluate"]
            await queue.put(filtered(12))
            assert await reading == b"read"
            assert len(second.requests["Evaluate"]) == 1


async def test_cancelled_waits_leave_nothing_behind(contract: Contract, fake: FakeGateway) -> None:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    fake.script("feed", Stream((told(7),), more=queue))
    await warmed(contract, fake)
    fake.script("Submit", hang())
    task = asyncio.create_task(contract.submit("make", "a"))
    await fake.until("Submit", 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def cancelled_wait() -> None:
        pending = await contract.submit_async("make", "b")
        async with asyncio.timeout(0):
            await pending.committed()

    with suppress(TimeoutError):
        await cancelled_wait()
    feed = contract._session.state.feed
    assert feed is not None
    await asyncio.sleep(0)
    gc.collect()
    assert not len(feed._waiting)
