"""The runtime on the peer's stream, in both directions, against a peer that keeps Fabric's rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakepeer import FakePeer, Kind
from pydantic import BaseModel

from sovchain.chaincode import Chaincode, Context, Contract, ContractError, Transient, query, transaction
from sovchain.chaincode.chaincode import log as chaincode_log
from sovchain.chaincode.connect import PeerConnection
from sovchain.chaincode.server import ChaincodeService

SECRET = "PLANTED-MARKER"


class Note(BaseModel):
    """What the contract stores."""

    text: str
    count: int = 0


class Notes(Contract):
    """Exercises the stub."""

    @transaction
    async def put(self, ctx: Context, key: str, note: Note) -> int:
        """Store a note."""
        await ctx.stub.put_state(key, note.model_dump_json().encode())
        ctx.set_event("Put", {"key": key})
        return note.count

    @query
    async def get(self, ctx: Context, key: str) -> Note | None:
        """Read a note."""
        found = await ctx.stub.get_state(key)
        return None if found is None else Note.model_validate_json(found)

    @query
    async def many(self, ctx: Context, keys: list[str]) -> list[str]:
        """Read several keys at the same time: the peer takes one request of a transaction at a time."""
        found = await asyncio.gather(*(ctx.stub.get_state(key) for key in keys))
        return ["" if value is None else value.decode() for value in found]

    @query
    async def keys(self, ctx: Context, start: str, end: str) -> list[str]:
        """The keys of a range."""
        return [item.key async for item in ctx.stub.range(start, end)]

    @transaction
    async def hide(self, ctx: Context, key: str, value: Transient[bytes]) -> str:
        """Put transient data into a private collection."""
        await ctx.stub.put_private_data("secrets", key, value)
        return (await ctx.stub.get_private_data_hash("secrets", key) or b"").hex()

    @transaction
    async def refuse(self, ctx: Context) -> None:
        """Refuse with a code."""
        raise ContractError("E_STATE", "this is not possible: it was done; do nothing", key="k")

    @transaction
    async def fail(self, ctx: Context) -> None:
        """Fail with a text that nobody may see."""
        raise RuntimeError(SECRET)

    @transaction
    async def empty(self, ctx: Context) -> None:
        """Write nothing under a key, which Fabric would take for a delete."""
        await ctx.stub.put_state("k", b"")

    @query
    async def slow(self, ctx: Context, key: str) -> str:
        """Wait for the peer, then answer with the transaction's time."""
        await ctx.stub.get_state(key)
        return ctx.timestamp.isoformat()


CHAINCODE = Chaincode([Notes()], name="notes")


@pytest.fixture(params=["the peer dials", "the chaincode dials"])
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[FakePeer]:
    """A peer with the chaincode on its stream."""
    fake = FakePeer()
    if request.param == "the peer dials":
        service = ChaincodeService(CHAINCODE, "notes_1.0:abc", "127.0.0.1:0")
        await service.start()
        try:
            async with fake.dial(service.address):
                yield fake
        finally:
            await service.stop()
        return
    async with fake.listen() as address:
        connection = PeerConnection(CHAINCODE, "notes_1.0:abc", address)
        running = asyncio.create_task(connection.run())
        await asyncio.wait_for(fake.ready.wait(), 10)
        yield fake
        await connection.stop()
        await asyncio.wait_for(running, 10)


async def test_register_names_the_package(peer: FakePeer) -> None:
    assert peer.registered == "notes_1.0:abc"


async def test_write_event_and_read_back(peer: FakePeer) -> None:
    done = await peer.invoke("Notes:put", "a", '{"text":"x","count":3}')
    assert (done.response.status, done.response.payload) == (200, b"3")
    assert done.event == ("Put", b'{"key":"a"}')
    found = await peer.invoke("Notes:get", "a")
    assert found.response.payload == b'{"count":3,"text":"x"}'
    assert (await peer.invoke("Notes:get", "b")).response.payload == b""


async def test_requests_of_one_transaction_queue_up(peer: FakePeer) -> None:
    """The peer drops a second request of a transaction without a word; the stub must never send one."""
    for number in range(20):
        peer.state["", f"k{number}"] = str(number).encode()
    done = await peer.invoke("Notes:many", str([f"k{n}" for n in range(20)]).replace("'", '"'))
    assert done.response.status == 200, done.response.message
    assert peer.dropped == []


async def test_sixty_four_transactions_at_once(peer: FakePeer) -> None:
    calls = (peer.invoke("Notes:put", f"k{n}", f'{{"text":"t","count":{n}}}') for n in range(64))
    done = await asyncio.gather(*calls)
    assert [outcome.response.payload for outcome in done] == [str(n).encode() for n in range(64)]
    assert len(peer.state) == 64
    assert (peer.dropped, peer.stray) == ([], [])


async def test_a_long_range_comes_in_frames_and_in_order(peer: FakePeer) -> None:
    for number in range(250):
        peer.state["", f"k{number:03}"] = b"v"
    done = await peer.invoke("Notes:keys", "k010", "k240")
    assert done.response.payload.count(b"k") == 230
    assert peer.requests["QUERY_STATE_NEXT"] >= 2


async def test_private_data_from_the_transient_map(peer: FakePeer) -> None:
    done = await peer.invoke("Notes:hide", "k", transient={"value": b"\x00raw"})
    assert done.response.status == 200, done.response.message
    assert peer.state["secrets", "k"] == b"\x00raw"


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (("Notes:refuse",), 400, 'E_STATE: this is not possible: it was done; do nothing {"key":"k"}'),
        (("Notes:nothing",), 400, "E_FUNCTION"),
        (("Notes:get",), 400, "E_ARGUMENT"),
        (("Notes:get", "a", "b"), 400, "E_ARGUMENT"),
        (("Notes:put", "a", f'{{"text":"{SECRET}","count":"{SECRET}"}}'), 400, "count"),
        (("Notes:hide", "k"), 400, "value"),
        (("Notes:fail",), 500, "E_INTERNAL"),
        (("Notes:empty",), 500, "E_INTERNAL"),
    ],
)
async def test_what_goes_wrong_is_answered_once_and_says_no_secret(
    peer: FakePeer, args: tuple[str, ...], status: int, text: str
) -> None:
    done = await peer.invoke(*args)
    assert done.response.status == status
    assert text in done.response.message
    assert SECRET not in done.response.message
    assert peer.state == {}
    assert (await peer.invoke("Notes:get", "a")).response.status == 200
    assert peer.stray == []


async def test_a_failure_is_logged_under_the_reference_that_the_client_gets(
    peer: FakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it happened is in the log; what the exception says is nowhere, because it may hold what is private."""
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(chaincode_log, "error", lambda event, **fields: lines.append((event, fields)))
    done, again = await peer.invoke("Notes:fail"), await peer.invoke("Notes:fail")
    assert [event for event, _ in lines] == ["call failed", "call failed"]
    for outcome, (_, fields) in zip((done, again), lines, strict=True):
        assert outcome.response.message == f"E_INTERNAL: internal error, reference {fields['reference']}"
        assert fields["trace"][-1] == "raised RuntimeError"
        assert "test_runtime.py" in fields["trace"][-2]
        assert SECRET not in str(fields)
    assert lines[0][1]["reference"] != lines[1][1]["reference"]


async def test_an_error_of_the_peer_reaches_the_contract_and_ends_the_call(peer: FakePeer) -> None:
    peer.refuse = lambda kind, key: "the ledger is away" if kind == "GET_STATE" else None
    done = await peer.invoke("Notes:get", "a")
    assert done.message.type == Kind.ERROR or done.response.status == 500


async def test_the_time_is_the_proposals(peer: FakePeer) -> None:
    done = await peer.invoke("Notes:slow", "a", seconds=1_700_000_000)
    assert done.response.payload.startswith(b"2023-11-14T22:13:20.123456")


async def test_one_that_waits_holds_up_no_other(peer: FakePeer) -> None:
    gate = asyncio.Event()

    async def hold(kind: str, key: str) -> None:
        if key == "held":
            await gate.wait()

    peer.hold = hold
    waiting = asyncio.create_task(peer.invoke("Notes:slow", "held"))
    assert (await peer.invoke("Notes:get", "a", timeout_s=5)).response.status == 200
    assert not waiting.done()
    gate.set()
    assert (await waiting).response.status == 200


async def test_metadata_names_every_function(peer: FakePeer) -> None:
    done = await peer.invoke("org.hyperledger.fabric:GetMetadata")
    assert b'"put"' in done.response.payload
    assert b'"Notes"' in done.response.payload


async def test_a_keepalive_is_echoed(peer: FakePeer) -> None:
    peer.send(Kind.KEEPALIVE)
    for _ in range(100):
        if peer.requests["KEEPALIVE"]:
            break
        await asyncio.sleep(0.01)
    assert peer.requests["KEEPALIVE"] == 1
