"""Ranges, pages with bookmarks, composite keys, history, rich queries."""

from __future__ import annotations

import pytest

from sovchain.client import CommitRejected, EndorseError, EvaluateError
from sovchain.testing.conformance.chaincode import LEDGER, Probe
from sovchain.testing.conformance.world import ConformanceNetwork, World

MANY = 250
"""More keys than a peer sends in one frame (`maxResultLimit` of core/chaincode is 100)."""


@pytest.mark.asyncio
class QueryConformance:
    """What a chaincode finds on LevelDB (core/ledger/kvledger/txmgmt/statedb/stateleveldb)."""

    async def test_a_range_has_its_start_and_not_its_end(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put_many, [world.key(name) for name in "abcd"], b"value")
            assert await _scan(world, "b", "d") == ["b", "c"]
            assert await _scan(world, "b", "b") == []
            assert await _scan(world, "d", "~") == ["d"]

    async def test_keys_are_ordered_by_their_bytes(self, conformance_network: ConformanceNetwork) -> None:
        """UTF-8 bytes, not UTF-16 units: U+FF21 comes before U+1F600."""
        async with conformance_network.open() as world:
            names = ["\U0001f600", "Ａ", "é", "b", "Z", "0"]
            await world.submit(Probe.put_many, [world.key(name) for name in names], b"value")
            found = await _scan(world, "", "\U0001fffd")
            assert found == sorted(names, key=str.encode) == ["0", "Z", "b", "é", "Ａ", "\U0001f600"]

    async def test_a_long_range_comes_whole(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            names = [f"{number:04}" for number in range(MANY)]
            await world.submit(Probe.put_many, [world.key(name) for name in names], b"value")
            assert await _scan(world, "0", "9") == names

    @pytest.mark.parametrize("size", [1, 3, 7, 10])
    async def test_pages_put_together_are_the_range(self, conformance_network: ConformanceNetwork, size: int) -> None:
        """A bookmark is the next key, empty after the last page, also when that is full (stateleveldb.go)."""
        async with conformance_network.open() as world:
            names = [f"{number}" for number in range(7)]
            await world.submit(Probe.put_many, [world.key(name) for name in names], b"value")
            pages: list[list[str]] = []
            bookmark = ""
            while bookmark or not pages:
                page = await world.alpha.contract().evaluate(Probe.page, world.key("0"), world.key("9"), size, bookmark)
                pages.append([entry.key for entry in page.entries])
                bookmark = page.bookmark
                assert bookmark in ("", world.key(str(sum(map(len, pages)))))
            assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
            assert [key for page in pages for key in page] == [world.key(name) for name in names]

    async def test_a_page_of_nothing_is_empty(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            page = await world.alpha.contract().evaluate(Probe.page, world.key("a"), world.key("b"), 5, "")
            assert (page.entries, page.bookmark) == ([], "")

    async def test_a_transaction_that_has_read_a_page_may_not_write(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """core/ledger/kvledger/txmgmt/txmgr/tx_simulator.go checkPaginatedQueryPerformed."""
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key("a"), b"value")
            with pytest.raises(EndorseError) as caught:
                await world.alpha.contract().submit(
                    Probe.page_and_put, world.key("a"), world.key("b"), world.key("total")
                )
            said = " ".join(detail.message for detail in caught.value.details)
            assert "Transaction has already performed a paginated query. Writes are not allowed" in said

    async def test_composite_keys_are_found_by_their_first_attributes(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """A full key finds itself: the range begins with it (fabric-chaincode-go/shim/stub.go)."""
        async with conformance_network.open() as world:
            kind, contract = world.key("kind"), world.alpha.contract()
            for attributes in (["a", "1"], ["a", "2"], ["ab", "1"], ["b", "1"]):
                await world.submit(Probe.put_composite, kind, attributes, b"value")
            assert await contract.evaluate(Probe.scan_composite, kind, ["a"]) == [["a", "1"], ["a", "2"]]
            assert len(await contract.evaluate(Probe.scan_composite, kind, [])) == 4
            assert await contract.evaluate(Probe.scan_composite, kind, ["a", "2"]) == [["a", "2"]]
            assert await contract.evaluate(Probe.scan_composite, kind[:-1], []) == []

    async def test_composite_keys_are_no_part_of_a_range(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put_composite, world.key("kind"), ["a"], b"value")
            await world.submit(Probe.put, world.key("plain"), b"value")
            found = await world.alpha.contract().evaluate(Probe.keys, "", "")
            assert world.key("plain") in found
            assert not [key for key in found if key.startswith("\0")]

    async def test_a_keys_history_is_newest_first_with_deletions(self, conformance_network: ConformanceNetwork) -> None:
        """core/ledger/kvledger/history/query_executer.go."""
        async with conformance_network.open() as world:
            first = await world.submit(Probe.put, world.key(), b"first")
            gone = await world.submit(Probe.delete, world.key())
            last = await world.submit(Probe.put, world.key(), b"last")
            changes = await world.beta.contract().evaluate(Probe.history, world.key())
            assert [(change.transaction_id, change.value, change.deleted) for change in changes] == [
                (last.transaction_id, "last", False),
                (gone.transaction_id, "", True),
                (first.transaction_id, "first", False),
            ]

    async def test_an_invalid_transaction_leaves_no_history(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            done = await world.submit(Probe.put, world.key(), b"valid")
            with pytest.raises(CommitRejected):
                await (
                    world.alpha.contract()
                    .with_options(organizations=["BetaMSP"])
                    .submit(Probe.put, world.key(), b"invalid")
                )
            changes = await world.alpha.contract().evaluate(Probe.history, world.key())
            assert [change.transaction_id for change in changes] == [done.transaction_id]

    async def test_a_rich_query_is_refused_in_leveldbs_words(self, conformance_network: ConformanceNetwork) -> None:
        """core/ledger/kvledger/txmgmt/statedb/stateleveldb/stateleveldb.go ExecuteQuery."""
        async with conformance_network.open() as world:
            with pytest.raises(EvaluateError) as caught:
                await world.alpha.contract().evaluate(Probe.rich, '{"selector":{"owner":"Alpha"}}')
            assert caught.value.code == LEDGER
            assert "ExecuteQuery not supported for leveldb" in str(caught.value)


async def _scan(world: World, start: str, end: str) -> list[str]:
    """The names of the test's own keys in a range, in the order in which they come."""
    found = await world.alpha.contract().evaluate(Probe.scan, world.key(start), world.key(end))
    return [entry.key.removeprefix(world.key("")) for entry in found]
