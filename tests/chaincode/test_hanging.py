"""A transaction that hangs, dies, is repeated or comes too late holds up no other and is answered exactly once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from fakepeer import Connect, FakePeer, Kind

from sovchain.chaincode import Chaincode, Context, Contract, query, transaction
from sovchain.chaincode.handler import Limits
from sovchain.chaincode.watchdog import Watchdog
from sovchain.chaincode.workers import MAX_THREADS

RELEASE = threading.Event()
SHORT = Limits(transaction_s=0.5)


class Trouble(Contract):
    """Hangs and dies in every way."""

    @query
    async def ping(self, ctx: Context) -> str:
        """Answer."""
        return "pong"

    @query
    def ping_thread(self, ctx: Context) -> str:
        """Answer from a thread."""
        return "pong"

    @transaction
    async def hang(self, ctx: Context) -> None:
        """Wait for nothing."""
        await asyncio.Event().wait()

    @transaction
    async def stubborn(self, ctx: Context) -> None:
        """Wait, and do not even end when told to."""
        while not RELEASE.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    @transaction
    def hang_thread(self, ctx: Context) -> None:
        """Wait in a thread."""
        RELEASE.wait(30)

    @transaction
    async def hang_peer(self, ctx: Context) -> None:
        """Wait for the peer."""
        await ctx.stub.get_state("held")

    @transaction
    async def late(self, ctx: Context) -> str:
        """Go on after being told to end, and ask the peer again."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await ctx.stub.put_state("late", b"1")
        return "late"

    @transaction
    async def leave(self, ctx: Context) -> None:
        """End the process."""
        raise SystemExit(3)

    @transaction
    async def interrupt(self, ctx: Context) -> None:
        """Interrupt the process."""
        raise KeyboardInterrupt

    @transaction
    async def cancel_itself(self, ctx: Context) -> None:
        """Raise what only a loop should raise."""
        raise asyncio.CancelledError

    @transaction
    async def spin(self, ctx: Context) -> None:
        """Block the event loop."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            pass

    @transaction
    async def forget(self, ctx: Context) -> str:
        """Return while a request is still on its way."""
        task = asyncio.create_task(ctx.stub.get_state("held"))
        await asyncio.sleep(0)
        self.kept = task
        return "done"


CHAINCODE = Chaincode([Trouble()], "trouble")


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    RELEASE.clear()
    yield
    RELEASE.set()


@pytest.mark.parametrize("name", ["hang", "stubborn", "hang_thread", "hang_peer", "late"])
async def test_a_contract_that_does_not_end_is_answered_for_and_holds_up_nobody(connect: Connect, name: str) -> None:
    async def hold(kind: str, key: str) -> None:
        if key == "0" * 64:
            await asyncio.sleep(1)

    peer = FakePeer()
    peer.hold = hold
    async with connect(CHAINCODE, peer, limits=SHORT):
        hanging = asyncio.create_task(peer.invoke(f"Trouble:{name}", txid="0" * 64))
        assert (await peer.invoke("Trouble:ping")).response.payload == b"pong"
        done = (await hanging).response
        assert (done.status, done.message) == (500, "E_TIMEOUT: the contract did not end within 0.5 seconds")
        assert (await peer.invoke("Trouble:ping_thread")).response.payload == b"pong"
        assert "late" not in {key for _, key in peer.state}
        assert [message for message in peer.stray if message.type != Kind.GET_STATE] == []
        RELEASE.set()


async def test_more_hanging_threads_than_there_are_threads_stop_nobody(connect: Connect) -> None:
    async with connect(CHAINCODE, limits=SHORT) as peer:
        done = await asyncio.gather(*(peer.invoke("Trouble:hang_thread") for _ in range(MAX_THREADS * 2 + 1)))
        assert {outcome.response.status for outcome in done} == {500}
        assert (await peer.invoke("Trouble:ping_thread")).response.payload == b"pong"


async def test_contracts_that_never_end_are_counted_and_a_stream_full_of_them_takes_no_more(connect: Connect) -> None:
    async with connect(CHAINCODE, limits=Limits(running=3, transaction_s=0.1)) as peer:
        await asyncio.gather(*(peer.invoke("Trouble:stubborn") for _ in range(3)))
        refused = (await peer.invoke("Trouble:ping")).response
        assert (refused.status, refused.message[:19]) == (503, "E_BUSY: 3 contracts")
        RELEASE.set()
        async with asyncio.timeout(5):
            while (await peer.invoke("Trouble:ping")).response.status != 200:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", ["leave", "interrupt", "cancel_itself"])
async def test_a_contract_that_ends_the_process_ends_its_call_alone(connect: Connect, name: str) -> None:
    async with connect(CHAINCODE) as peer:
        done = (await peer.invoke(f"Trouble:{name}")).response
        assert done.status == 500
        assert done.message.startswith("E_INTERNAL: internal error, reference ")
        assert (await peer.invoke("Trouble:ping")).response.payload == b"pong"
        assert peer.stray == []


async def test_calls_beyond_the_limit_wait_and_beyond_that_are_refused(connect: Connect) -> None:
    async with connect(CHAINCODE, limits=Limits(running=2, waiting=3, transaction_s=0.2)) as peer:
        done = await asyncio.gather(*(peer.invoke("Trouble:hang") for _ in range(8)))
        statuses = sorted(outcome.response.status for outcome in done)
        assert statuses == [500] * 5 + [503] * 3
        assert (await peer.invoke("Trouble:ping")).response.payload == b"pong"


async def test_a_transaction_that_the_peer_sends_again_runs_again_and_is_answered_once(connect: Connect) -> None:
    """The peer has given up on the first run, whose late answer must not be taken for the second's."""
    async with connect(CHAINCODE, limits=Limits(transaction_s=5)) as peer:
        for first in ("hang", "stubborn"):
            with pytest.raises(TimeoutError):
                await peer.invoke(f"Trouble:{first}", txid="a" * 64, timeout_s=0.1)
            assert (await peer.invoke("Trouble:ping", txid="a" * 64)).response.payload == b"pong"
        assert peer.stray == []
        RELEASE.set()


async def test_a_request_that_nobody_awaits_does_not_confuse_the_next_run(connect: Connect) -> None:
    gate = asyncio.Event()

    async def hold(kind: str, key: str) -> None:
        await gate.wait()

    peer = FakePeer()
    peer.hold = hold
    async with connect(CHAINCODE, peer):
        assert (await peer.invoke("Trouble:forget", txid="b" * 64)).response.payload == b"done"
        gate.set()
        assert (await peer.invoke("Trouble:ping")).response.payload == b"pong"


async def test_an_event_loop_that_a_contract_blocks_is_freed(
    connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    """The contract computes for 20 s without awaiting; the watchdog ends it after 0.3 s and says where it was."""
    watchdog = Watchdog(0.3, period_s=0.05)
    watchdog.start()
    try:
        async with connect(CHAINCODE, limits=Limits(transaction_s=10)) as peer:
            started = time.monotonic()
            spinning = asyncio.create_task(peer.invoke("Trouble:spin", timeout_s=30))
            await asyncio.sleep(0)
            done = (await spinning).response
            assert done.status == 500
            assert (await peer.invoke("Trouble:ping")).response.payload == b"pong"
            assert time.monotonic() - started < 10
    finally:
        watchdog.stop()
