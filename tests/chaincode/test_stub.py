"""The stub against a peer that keeps Fabric's rules: what it asks, in how many messages, and what it refuses before it asks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import proposal_response_pb2
from fakepeer import Connect, FakePeer

from sovchain.chaincode import (
    CalledChaincodeError,
    Chaincode,
    Context,
    Contract,
    LedgerError,
    Stub,
    StubUseError,
    transaction,
)
from sovchain.chaincode.blocking import BlockingStub
from sovchain.chaincode.ownreads import OwnReadWarning
from sovchain.chaincode.peerstub import StubOptions
from sovchain.protocol.errors import ProtocolError

Body = Callable[[Stub], Coroutine[Any, Any, Any]]


class Runs(Contract):
    """Runs what the test has put in."""

    body: Body

    @transaction
    async def run(self, ctx: Context) -> None:
        """Run it."""
        await Runs.body(ctx.stub)


CHAINCODE = Chaincode([Runs()], "runs")


async def run(peer: FakePeer, body: Body) -> None:
    """Run `body` as a transaction, and raise what it raised."""
    caught: list[BaseException] = []

    async def guarded(stub: Stub) -> None:
        try:
            await body(stub)
        except BaseException as error:
            caught.append(error)
            raise

    Runs.body = staticmethod(guarded)  # type: ignore[assignment]
    done = await peer.invoke("Runs:run")
    if caught:
        assert done.response.status == 500
        raise caught[0]
    assert done.response.status == 200, done.response.message


@pytest.mark.parametrize(("batch", "messages"), [(1000, 3), (100, 25), (1, 25), (0, 0)])
async def test_many_writes_are_one_message_for_as_many_as_the_peer_takes(
    connect: Connect, batch: int, messages: int
) -> None:
    """A limit below 100 counts as 100 (fabric-chaincode-go/shim/handler.go)."""

    async def body(stub: Stub) -> None:
        for number in range(2500):
            await stub.put_state(f"k{number}", b"v")

    peer = FakePeer(batch=batch)
    if batch == 1:
        peer.params.max_size_write_batch = 1
        peer.batch_limit = 100
    async with connect(CHAINCODE, peer):
        await run(peer, body)
        assert peer.requests["WRITE_BATCH_STATE"] == messages
        assert peer.requests["PUT_STATE"] == (0 if batch else 2500)
        assert len(peer.state) == 2500


async def test_writes_of_many_bytes_leave_before_the_end(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        for number in range(5):
            await stub.put_state(f"k{number}", bytes([1]) * 6_000_000)

    async with connect(CHAINCODE) as peer:
        await run(peer, body)
        assert peer.requests["WRITE_BATCH_STATE"] == 2
        assert len(peer.state) == 5


@pytest.mark.parametrize(("multiple", "messages"), [(1000, 3), (0, 0)])
async def test_many_reads_are_one_message_for_as_many_as_the_peer_takes(
    connect: Connect, multiple: int, messages: int
) -> None:
    async def body(stub: Stub) -> None:
        found = await stub.get_multiple([f"k{number}" for number in range(2500)])
        assert [value for value in found if value is not None] == [b"v"] * 5
        assert found[3] == b"v"

    peer = FakePeer(multiple=multiple)
    peer.state |= {("", f"k{number}"): b"v" for number in range(5)}
    async with connect(CHAINCODE, peer):
        await run(peer, body)
        assert peer.requests["GET_STATE_MULTIPLE"] == messages
        assert peer.requests["GET_STATE"] == (0 if multiple else 2500)


async def test_a_state_database_that_fails_in_a_reading_of_many_keys_is_noticed(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        await stub.get_multiple(["a", "b"])

    async with connect(CHAINCODE) as peer:
        peer.refuse = lambda kind, key: "away" if kind == "GET_STATE_MULTIPLE" else None
        with pytest.raises(LedgerError, match="2 keys asked for, 0 values answered"):
            await run(peer, body)


async def test_private_values_are_read_one_by_one_unless_told_otherwise(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        assert await stub.get_multiple_private("c", ["a", "b"]) == [b"v", None]
        assert await stub.get_multiple_private("c", ["a", "b"], checked=False) == [b"v", None]

    async with connect(CHAINCODE) as peer:
        peer.state["c", "a"] = b"v"
        await run(peer, body)
        assert (peer.requests["GET_STATE"], peer.requests["GET_STATE_MULTIPLE"]) == (2, 1)


async def test_a_batch_that_the_peer_refuses_fails_the_transaction(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        await stub.put_state("bad", b"v")

    async with connect(CHAINCODE) as peer:
        peer.refuse = lambda kind, key: "no such thing" if key == "bad" else None
        Runs.body = staticmethod(body)  # type: ignore[assignment]
        done = await peer.invoke("Runs:run")
        assert b"no such thing" in done.message.payload
        assert peer.state == {}


async def test_a_private_scan_lets_the_peer_see_the_writes_before_it(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        await stub.put_state("k", b"v")
        await stub.private_range("c").take(1)

    async with connect(CHAINCODE) as peer:
        with pytest.raises(LedgerError, match="read-only transaction"):
            await run(peer, body)


async def test_a_scan_that_is_left_early_closes_its_query(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        async with stub.range() as items:
            async for _ in items:
                break
        with pytest.raises(StopAsyncIteration):
            await anext(items)

    async with connect(CHAINCODE) as peer:
        peer.state |= {("", f"k{number:03}"): b"v" for number in range(150)}
        await run(peer, body)
        assert (peer.requests["QUERY_STATE_CLOSE"], peer.requests["QUERY_STATE_NEXT"]) == (1, 0)


async def test_all_composite_keys_by_pages(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        page = await stub.composite_page(page_size=2)
        assert ([item.key for item in page.items], page.fetched) == (["\x00a\x001\x00", "\x00a\x002\x00"], 2)
        page = await stub.composite_page(page_size=2, bookmark=page.bookmark)
        assert ([item.key for item in page.items], page.bookmark) == (["\x00b\x001\x00"], "")

    async with connect(CHAINCODE) as peer:
        peer.state |= {("", key): b"v" for key in ("\x00a\x001\x00", "\x00a\x002\x00", "\x00b\x001\x00", "plain")}
        await run(peer, body)


async def test_history_of_a_key(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        async with stub.history("k") as changes:
            found = [change async for change in changes]
        assert [(change.value, change.deleted) for change in found] == [(None, True), (b"1", False)]
        assert found[0].timestamp.tzinfo is not None

    async with connect(CHAINCODE) as peer:
        entry = kv_query_result_pb2.KeyModification
        peer.history["k"] = [entry(tx_id="b", is_delete=True), entry(tx_id="a", value=b"1")]
        await run(peer, body)


async def test_a_called_chaincode_that_refuses_raises_unless_told_otherwise(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        answer = await stub.invoke_chaincode("other", [b"f"], channel="far", check=False)
        assert (answer.status, answer.message) == (404, "not here")
        with pytest.raises(CalledChaincodeError) as caught:
            await stub.invoke_chaincode("other", [b"f"])
        assert (caught.value.status, caught.value.chaincode) == (404, "other")

    names: list[str] = []

    def called(name: str, args: list[bytes]) -> proposal_response_pb2.Response:
        names.append(name)
        return proposal_response_pb2.Response(status=404, message="not here")

    async with connect(CHAINCODE) as peer:
        peer.called = called
        await run(peer, body)
        assert names == ["other/far", "other"]


SURROGATE = "\ud800"
REFUSED: dict[str, Body] = {
    "an empty key": lambda stub: stub.put_state("", b"v"),
    "an empty key to read": lambda stub: stub.get_state(""),
    "an empty key among many": lambda stub: stub.get_multiple(["a", ""]),
    "an empty key to delete": lambda stub: stub.delete_state(""),
    "an empty private key": lambda stub: stub.put_private_data("c", "", b"v"),
    "an empty collection": lambda stub: stub.put_private_data("", "k", b"v"),
    "an empty collection to purge": lambda stub: stub.purge_private_data("", "k"),
    "an empty value": lambda stub: stub.put_state("k", b""),
    "a value that is text": lambda stub: stub.put_state("k", "v"),  # type: ignore[arg-type]
    "a key that is bytes": lambda stub: stub.get_state(b"k"),  # type: ignore[arg-type]
    "a lone surrogate": lambda stub: stub.put_state(SURROGATE, b"v"),
    "a value over 100 MiB": lambda stub: stub.put_state("k", bytes(101 << 20)),
    "a range from U+0000": lambda stub: stub.range("\x00").take(1),
    "a composite range with U+0000": lambda stub: stub.partial_composite_range("t", ["\x00"]).take(1),
    "a composite range with U+10FFFF": lambda stub: stub.partial_composite_range("\U0010ffff").take(1),
    "a private composite range with U+0000": lambda stub: stub.private_partial_composite_range("c", "\x00").take(1),
    "a page of nothing": lambda stub: stub.range_page(page_size=0),
    "a page of too much": lambda stub: stub.range_page(page_size=10_001),
    "a policy of no key": lambda stub: stub.set_validation_parameter("", b"p"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_right_is_refused_before_anything_is_written(connect: Connect, name: str) -> None:
    async def body(stub: Stub) -> None:
        with pytest.raises(StubUseError):
            await REFUSED[name](stub)
        raise StubUseError("seen")

    async with connect(CHAINCODE) as peer:
        with pytest.raises(StubUseError, match="seen"):
            await run(peer, body)
        assert peer.state == {}
        assert not {"PUT_STATE", "WRITE_BATCH_STATE", "DEL_STATE", "GET_STATE"} & peer.requests.keys()


@pytest.mark.parametrize(
    ("object_type", "attributes"),
    [("a\x00", []), ("a", ["\x00"]), ("\U0010ffff", []), ("a", ["b\U0010ffff"]), (SURROGATE, [])],
)
def test_composite_keys_that_could_not_be_taken_apart_are_refused(object_type: str, attributes: list[str]) -> None:
    with pytest.raises(ProtocolError):
        Stub.composite_key(object_type, attributes)


async def test_reads_of_own_writes_are_told_of(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        await stub.put_state("k", b"new")
        await stub.put_private_data("c", "p", b"new")
        await stub.get_state("other")
        await stub.get_state("p")
        reads: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: stub.get_state("k"),
            lambda: stub.get_multiple(["a", "k"]),
            lambda: stub.range("a", "z").take(1),
            lambda: stub.get_private_data("c", "p"),
        ]
        for read in reads:
            with pytest.warns(OwnReadWarning, match="fabric answers with what was committed"):
                await read()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await stub.range("l", "z").take(1)

    async with connect(CHAINCODE, options=StubOptions(own_reads="warn")) as peer:
        await run(peer, body)


async def test_reads_of_own_writes_are_refused_where_that_is_asked_for(connect: Connect) -> None:
    async def body(stub: Stub) -> None:
        await stub.delete_state("k")
        await stub.get_state("k")

    async with connect(CHAINCODE, options=StubOptions(own_reads="refuse")) as peer:
        with pytest.raises(StubUseError, match="keep the new value in a variable"):
            await run(peer, body)
        assert peer.requests["GET_STATE"] == 0


def test_the_blocking_stub_has_every_request_of_the_stub() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    missing = public(Stub) - public(BlockingStub) - {"read_only", "composite_key", "split_composite_key"}
    assert missing == set()
