"""Transactions that were endorsed on a state that has changed since."""

from __future__ import annotations

import asyncio

import pytest

from sovchain.client import CommitRejected, Transaction
from sovchain.testing.conformance.chaincode import Probe
from sovchain.testing.conformance.world import ConformanceNetwork

MVCC = (11, "MVCC_READ_CONFLICT")
PHANTOM = (12, "PHANTOM_READ_CONFLICT")


async def _conflict(transaction: Transaction[object], expected: tuple[int, str]) -> None:
    """Submit an endorsed transaction that must be marked invalid."""
    with pytest.raises(CommitRejected) as caught:
        await (await transaction.submit()).committed()
    assert (caught.value.code, caught.value.code_name) == expected


@pytest.mark.asyncio
class ConflictConformance:
    """MVCC and phantom checks (core/ledger/kvledger/txmgmt/validation/validator.go)."""

    async def test_a_key_that_was_changed_since_it_was_read_is_a_conflict(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"1")
            late = await world.alpha.contract().proposal(Probe.add, world.key(), 1).endorse()
            await world.submit(Probe.add, world.key(), 10)
            await _conflict(late, MVCC)
            assert await world.alpha.contract().evaluate(Probe.get, world.key()) == b"11"

    async def test_a_key_that_was_created_since_it_was_found_missing_is_a_conflict(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            late = await world.alpha.contract().proposal(Probe.add, world.key(), 1).endorse()
            await world.submit(Probe.put, world.key(), b"5")
            await _conflict(late, MVCC)

    async def test_a_key_that_was_deleted_since_it_was_read_is_a_conflict(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"1")
            late = await world.alpha.contract().proposal(Probe.add, world.key(), 1).endorse()
            await world.submit(Probe.delete, world.key())
            await _conflict(late, MVCC)

    async def test_of_transactions_that_read_the_same_version_one_is_valid(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """In one block or in several: the first in order wins."""
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"0")
            contract = world.alpha.contract()
            endorsed = await asyncio.gather(
                *(contract.proposal(Probe.add, world.key(), amount).endorse() for amount in range(1, 6))
            )
            pending = await asyncio.gather(*(transaction.submit() for transaction in endorsed))
            statuses = await asyncio.gather(*(commit.status() for commit in pending))
            assert sorted(status.code_name for status in statuses) == ["MVCC_READ_CONFLICT"] * 4 + ["VALID"]
            (winner,) = [commit for commit, status in zip(pending, statuses, strict=True) if status.successful]
            assert await contract.evaluate(Probe.get, world.key()) == str(winner.result).encode()

    async def test_writes_that_read_nothing_do_not_conflict(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"first")
            late = await world.alpha.contract().proposal(Probe.put, world.key(), b"third").endorse()
            await world.submit(Probe.put, world.key(), b"second")
            await (await late.submit()).committed()
            assert await world.alpha.contract().evaluate(Probe.get, world.key()) == b"third"

    @pytest.mark.parametrize("change", ["insert", "update", "delete"])
    async def test_a_range_that_changed_since_it_was_read_is_a_phantom(
        self, conformance_network: ConformanceNetwork, change: str
    ) -> None:
        """core/ledger/kvledger/txmgmt/validation/rangequery_validator.go compares keys and versions."""
        async with conformance_network.open() as world:
            await world.submit(Probe.put_many, [world.key("in-1"), world.key("in-3")], b"value")
            counting = world.alpha.contract().proposal(
                Probe.count, world.key("in-"), world.key("in-~"), world.key("total")
            )
            late = await counting.endorse()
            assert late.result == 2
            if change == "delete":
                await world.submit(Probe.delete, world.key("in-3"))
            else:
                await world.submit(Probe.put, world.key("in-2" if change == "insert" else "in-3"), b"changed")
            await _conflict(late, PHANTOM)

    async def test_a_change_outside_a_range_is_no_phantom(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key("in-1"), b"value")
            counting = world.alpha.contract().proposal(
                Probe.count, world.key("in-"), world.key("in-~"), world.key("total")
            )
            late = await counting.endorse()
            await world.submit(Probe.put, world.key("out-1"), b"value")
            await (await late.submit()).committed()
            assert await world.alpha.contract().evaluate(Probe.get, world.key("total")) == b"1"
