"""The harness keeps Fabric's rules for state, private data, identity, events and endorsement; the embedded ledger agrees."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from namedcalls import Named

from sovchain.chaincode import Chaincode, Context, Contract, ContractError, Transient, query, transaction
from sovchain.chaincode.records import endorsed_by
from sovchain.client import CommitRejected, EndorseError, EvaluateError
from sovchain.network.topology import Collection
from sovchain.testing import ContractHarness, refused
from sovchain.testing.harness import Caller


class Bank(Contract):
    """Uses every request of the stub."""

    @transaction
    async def put(self, ctx: Context, key: str, value: str) -> str | None:
        await ctx.stub.put_state(key, value.encode())
        found = await ctx.stub.get_state(key)
        ctx.set_event("Put", {"key": key})
        return None if found is None else found.decode()

    @transaction
    async def delete(self, ctx: Context, key: str) -> None:
        await ctx.stub.delete_state(key)

    @transaction
    async def add(self, ctx: Context, key: str, amount: int) -> int:
        total = int(await ctx.stub.get_state(key) or b"0") + amount
        await ctx.stub.put_state(key, str(total).encode())
        return total

    @transaction
    async def count_into(self, ctx: Context, start: str, end: str, key: str) -> int:
        found = [item.key async for item in ctx.stub.range(start, end)]
        await ctx.stub.put_state(key, str(len(found)).encode())
        return len(found)

    @transaction
    async def many(self, ctx: Context, count: int) -> None:
        for number in range(count):
            await ctx.stub.put_state(f"m{number:04d}", b"1")

    @query
    async def keys(self, ctx: Context, start: str, end: str) -> list[str]:
        return [item.key async for item in ctx.stub.range(start, end)]

    @query
    async def page(self, ctx: Context, size: int, bookmark: str) -> tuple[list[str], str]:
        page = await ctx.stub.range_page("m", "n", page_size=size, bookmark=bookmark)
        return [item.key for item in page.items], page.bookmark

    @transaction
    async def page_then_write(self, ctx: Context) -> None:
        await ctx.stub.range_page("a", "z")
        await ctx.stub.put_state("k", b"1")

    @query
    async def write_in_query(self, ctx: Context) -> None:
        await ctx.stub.put_state("k", b"1")

    @query
    async def history(self, ctx: Context, key: str) -> list[str | None]:
        return [None if one.deleted else (one.value or b"").decode() async for one in ctx.stub.history(key)]

    @transaction
    async def hide(self, ctx: Context, collection: str, key: str, value: Transient[bytes]) -> None:
        await ctx.stub.put_private_data(collection, key, value)

    @transaction
    async def purge(self, ctx: Context, collection: str, key: str) -> None:
        await ctx.stub.purge_private_data(collection, key)

    @query
    async def reveal(self, ctx: Context, collection: str, key: str) -> bytes | None:
        return await ctx.stub.get_private_data(collection, key)

    @query
    async def private_keys(self, ctx: Context, collection: str) -> list[str]:
        return [item.key async for item in ctx.stub.private_range(collection)]

    @query
    async def private_hash(self, ctx: Context, collection: str, key: str) -> str:
        return (await ctx.stub.get_private_data_hash(collection, key) or b"").hex()

    @transaction
    async def range_then_hide(self, ctx: Context) -> None:
        await ctx.stub.put_private_data("both", "k", b"1")
        _ = [item async for item in ctx.stub.private_range("both")]

    @transaction
    async def lock(self, ctx: Context, key: str, msp_id: str) -> None:
        await ctx.stub.set_validation_parameter(key, endorsed_by(msp_id))

    @query
    async def locked(self, ctx: Context, key: str) -> bool:
        return await ctx.stub.get_validation_parameter(key) is not None

    @query
    async def who(self, ctx: Context) -> list[str]:
        me = ctx.identity
        return [me.msp_id, me.role or "", me.attributes.get("role", ""), ctx.channel_id, ctx.timestamp.isoformat()]

    @transaction
    async def refuse(self, ctx: Context) -> None:
        await ctx.stub.put_state("refused", b"1")
        ctx.set_event("Never", {})
        raise ContractError("E_NO", "refused", why="test")

    @transaction
    async def fail(self, ctx: Context) -> None:
        raise RuntimeError("SECRET")

    @transaction
    async def call(self, ctx: Context, other: str, function: str, key: str, channel: str = "") -> str:
        answer = await ctx.stub.invoke_chaincode(other, [function.encode(), key.encode(), b"1"], channel=channel)
        return answer.payload.decode()

    @transaction
    async def and_back(self, ctx: Context, key: str, there: str, home: str) -> str:
        """Have the bank of another channel call the bank of the channel `home`."""
        args = [b"Bank:call", b"bank", b"Bank:put", key.encode(), home.encode()]
        return (await ctx.stub.invoke_chaincode("bank", args, channel=there)).payload.decode()


COLLECTIONS = [
    Collection(name="north", members=("North",), block_to_live=2),
    Collection(name="both", members=("North", "South"), member_only_read=False, member_only_write=False),
]


@pytest.fixture(params=["3.1", "2.5"])
def harness(request: pytest.FixtureRequest) -> ContractHarness:
    return ContractHarness(
        Chaincode([Bank()]),
        name="bank",
        organizations=["North", "South", "East"],
        collections=COLLECTIONS,
        fabric_version=request.param,
    )


async def test_a_transaction_does_not_read_its_own_writes(harness: ContractHarness) -> None:
    one = harness.caller("North")
    assert (await one.submit(Bank.put, "k", "1")).result is None
    assert (await one.submit(Bank.put, "k", "2")).result == "1"


async def test_a_second_change_on_an_old_read_is_a_conflict(harness: ContractHarness) -> None:
    one = harness.caller("North")
    first, second = await one.endorse(Bank.add, "k", 1), await one.endorse(Bank.add, "k", 2)
    assert first.commit().result == 1
    with pytest.raises(CommitRejected) as rejected:
        second.commit()
    assert rejected.value.code_name == "MVCC_READ_CONFLICT"
    assert harness.state.get("bank", "k") == b"1"


async def test_two_of_one_block_conflict_too_and_blind_writes_never_do(harness: ContractHarness) -> None:
    one = harness.caller("North")
    adds = [await one.endorse(Bank.add, "k", amount) for amount in (1, 2)]
    puts = [await one.endorse(Bank.many, count) for count in (2, 3)]
    done = harness.commit([*adds, *puts])
    assert [getattr(result, "code_name", "VALID") for result in done] == [
        "VALID",
        "MVCC_READ_CONFLICT",
        "VALID",
        "VALID",
    ]


async def test_a_key_that_appears_in_a_scanned_range_is_a_phantom(harness: ContractHarness) -> None:
    one = harness.caller("North")
    await one.submit(Bank.put, "a1", "1")
    counting = await one.endorse(Bank.count_into, "a", "b", "total")
    outside = await one.endorse(Bank.count_into, "c", "d", "other")
    await one.submit(Bank.put, "a2", "1")
    with pytest.raises(CommitRejected, match="PHANTOM_READ_CONFLICT"):
        counting.commit()
    outside.commit()


async def test_ranges_cross_frames_and_leave_composite_keys_out(harness: ContractHarness) -> None:
    one = harness.caller("North")
    await one.submit(Bank.many, 250)
    assert len(await one.evaluate(Bank.keys, "", "")) == 250
    assert await one.evaluate(Bank.keys, "m0003", "m0005") == ["m0003", "m0004"]


async def test_pages_have_bookmarks_and_do_not_go_with_writes(harness: ContractHarness) -> None:
    one = harness.caller("North")
    await one.submit(Bank.many, 5)
    first, mark = await one.evaluate(Bank.page, 3, "")
    rest, end = await one.evaluate(Bank.page, 3, mark)
    assert (first + rest, end) == ([f"m{number:04d}" for number in range(5)], "")
    with pytest.raises(EndorseError):
        await one.submit(Bank.page_then_write)


async def test_a_query_writes_nothing(harness: ContractHarness) -> None:
    with pytest.raises(EvaluateError):
        await harness.caller("North").evaluate(Bank.write_in_query)


async def test_history_is_newest_first_and_has_deletions(harness: ContractHarness) -> None:
    one = harness.caller("North")
    for value in "12":
        await one.submit(Bank.put, "k", value)
    await one.submit(Bank.delete, "k")
    assert await one.evaluate(Bank.history, "k") == [None, "2", "1"]


async def test_private_values_lie_with_members_and_hashes_with_everybody(harness: ContractHarness) -> None:
    north, south = harness.caller("North"), harness.caller("South")
    done = await north.submit(Bank.hide, "north", "k", b"secret")
    assert b"secret" not in done.rwset.__repr__().encode()
    assert harness.held("North", "north") == {"k": b"secret"}
    assert harness.held("South", "north") == {}
    assert await north.evaluate(Bank.reveal, "north", "k") == b"secret"
    assert await north.evaluate(Bank.private_keys, "north") == ["k"]
    digest = hashlib.sha256(b"secret").hexdigest()
    assert await south.evaluate(Bank.private_hash, "north", "k") == digest
    for operation in (Bank.reveal, Bank.private_keys):
        with pytest.raises(EvaluateError):
            await south.evaluate(Named(operation.name), b"north", *([b"k"] if operation is Bank.reveal else []))
    with pytest.raises(EndorseError):
        await south.submit(Bank.hide, "north", "k", b"other")


async def test_a_peer_without_the_value_does_not_answer_for_it(harness: ContractHarness) -> None:
    """East is no member: its client may ask by the collection's rules, and its peer cannot tell."""
    await harness.caller("North").submit(Bank.hide, "both", "k", b"secret")
    assert harness.held("South", "both") == {"k": b"secret"}
    with pytest.raises(EvaluateError):
        await harness.caller("East").evaluate(Bank.reveal, "both", "k")


async def test_private_data_expires_with_its_blocks_and_a_purge_takes_it_at_once(harness: ContractHarness) -> None:
    one = harness.caller("North")
    await one.submit(Bank.hide, "north", "k", b"secret")
    harness.pass_blocks(2)
    assert await one.evaluate(Bank.reveal, "north", "k") == b"secret"
    harness.pass_blocks(1)
    assert await one.evaluate(Bank.reveal, "north", "k") is None
    assert await one.evaluate(Bank.private_hash, "north", "k") == ""
    await one.submit(Bank.hide, "both", "k", b"secret")
    await one.submit(Bank.purge, "both", "k")
    assert harness.held("South", "both") == {}
    assert await one.evaluate(Bank.private_hash, "both", "k") == ""


async def test_private_ranges_do_not_go_with_writes(harness: ContractHarness) -> None:
    with pytest.raises(EndorseError):
        await harness.caller("North").submit(Bank.range_then_hide)


async def test_the_policy_of_a_key_counts_from_the_next_transaction(harness: ContractHarness) -> None:
    south = harness.caller("North", endorsers=["North", "South"])
    await south.submit(Bank.put, "k", "1")
    await south.submit(Bank.lock, "k", "EastMSP")
    assert await south.evaluate(Bank.locked, "k")
    with pytest.raises(CommitRejected, match="ENDORSEMENT_POLICY_FAILURE"):
        await south.submit(Bank.put, "k", "2")
    await harness.caller("East", endorsers=["East"]).submit(Bank.put, "k", "3")
    with pytest.raises(CommitRejected, match="ENDORSEMENT_POLICY_FAILURE"):
        await harness.caller("East", endorsers=["East"]).submit(Bank.put, "other", "1")
    assert harness.state.get("bank", "k") == b"3"


async def test_the_contract_learns_who_calls_and_when(harness: ContractHarness) -> None:
    clerk = harness.caller("South", attributes={"role": "clerk"})
    harness.now += timedelta(days=1)
    assert await clerk.evaluate(Bank.who) == ["SouthMSP", "client", "clerk", "channel", "2026-01-03T08:00:01+00:00"]
    assert (await harness.caller("South", unit="admin").evaluate(Bank.who))[1:3] == ["admin", ""]


async def test_committed_transactions_have_events_and_refused_ones_leave_nothing(harness: ContractHarness) -> None:
    one = harness.caller("North")
    done = await one.submit(Bank.put, "k", "1")
    assert done.event is not None
    assert (done.event.name, done.event.payload) == ("Put", b'{"key":"k"}')
    with refused("E_NO") as refusal:
        await one.submit(Bank.refuse)
    assert refusal.fields == {"why": "test"}
    with refused("E_INTERNAL") as refusal:
        await one.submit(Bank.fail)
    assert "SECRET" not in str(refusal.error)
    assert [event.name for event in harness.events] == ["Put"]
    assert harness.state.get("bank", "refused") is None


async def test_chaincodes_call_each_other_in_one_transaction(harness: ContractHarness) -> None:
    harness.add("other", Chaincode([Bank()]))
    done = await harness.caller("North").submit(Bank.call, "other", "Bank:put", "k")
    assert done.result == ""
    assert harness.state.get("other", "k") == b"1"
    assert harness.state.get("bank", "k") is None
    for name in ("missing", "bank"):
        with pytest.raises(EndorseError):
            await harness.caller("North").submit(Bank.call, name, "Bank:put", "k")


async def test_a_call_to_another_channel_reads_there_and_writes_nothing(harness: ContractHarness) -> None:
    annex = ContractHarness(Chaincode([Bank()]), name="bank", channel="annex", organizations=["North", "South"])
    harness.join(annex)
    north, there = harness.caller("North"), annex.caller("North")
    await there.submit(Bank.add, "k", 41)
    done = await north.submit(Bank.call, "bank", "Bank:add", "k", "annex")
    assert done.result == "42"
    assert (annex.state.get("bank", "k"), annex.state.height) == (b"41", 2)
    assert harness.state.get("bank", "k") is None
    assert [entry.namespace for entry in done.rwset.namespaces] == []
    # The other way round, and the caller is known there under its own name.
    assert (await there.submit(Bank.call, "bank", "Bank:add", "k", "channel")).result == "1"


async def test_a_call_to_another_channel_is_refused_as_by_a_peer(
    harness: ContractHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    """The contract that does not catch it fails; its log has the peer's words."""
    annex = ContractHarness(Chaincode([Bank()]), name="bank", channel="annex", organizations=["North", "South"])

    async def is_refused(caller: Caller, operation: Any, *arguments: str) -> str:
        with refused("E_INTERNAL"):
            await caller.submit(operation, *arguments)
        return capsys.readouterr().out

    north, east = harness.caller("North"), harness.caller("East")
    call = (Bank.call, "bank", "Bank:put", "k", "annex")
    assert "policy manager for channel [annex]" in await is_refused(north, *call)
    harness.join(annex)
    assert "policy manager for channel [annex]" in await is_refused(east, *call), "its peer is not on the channel"
    elsewhere = harness.caller("East", endorsers=["North"])
    assert "no member of the channel" in await is_refused(elsewhere, *call)
    assert "chaincode other not found" in await is_refused(north, Bank.call, "other", "Bank:put", "k", "annex")
    # A chaincode has one transaction of an id on each channel, so there is no way back to it.
    assert "(channel) exists" in await is_refused(north, Bank.and_back, "k", "annex", "channel")
    with pytest.raises(ValueError, match="different names"):
        harness.join(ContractHarness(Chaincode([Bank()]), channel="annex"))


async def test_unknown_organisations_and_what_was_not_expected_are_told(harness: ContractHarness) -> None:
    with pytest.raises(ValueError, match="it has North, South, East"):
        harness.caller("West")
    one = harness.caller("North")
    with pytest.raises(AssertionError, match="not refused, E_X"), refused("E_X"):
        await one.submit(Bank.put, "k", "1")
    with pytest.raises(AssertionError, match="refused with E_NO, not E_X"), refused("E_X"):
        await one.submit(Bank.refuse)


async def test_a_call_costs_microseconds(harness: ContractHarness, record_property: Any) -> None:
    """The bound is wide, for a machine under load; the figure stands in docs/contracts/testing.md."""
    import time

    one = harness.caller("North")
    await one.submit(Bank.add, "k", 1)
    best = 1.0
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(50):
            await one.submit(Bank.add, "k", 1)
        best = min(best, (time.perf_counter() - begun) / 50)
    record_property("submit_us", round(best * 1e6))
    assert best < 0.005
