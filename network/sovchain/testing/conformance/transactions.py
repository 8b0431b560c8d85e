"""Evaluate, submit, arguments, results, duplicate transaction ids."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from sovchain.chaincode import ArgumentError
from sovchain.client import EndorseError, OutcomeUnknown, Timeouts
from sovchain.client import Network as Channel
from sovchain.testing.conformance.blocks import read_blocks, transactions_of
from sovchain.testing.conformance.chaincode import Probe
from sovchain.testing.conformance.world import ConformanceNetwork

MEGABYTE = 1024 * 1024


@pytest.mark.asyncio
class TransactionConformance:
    """What becomes of a transaction that nothing stands in the way of."""

    async def test_what_is_submitted_is_read_back_by_every_organisation(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            done = await world.submit(Probe.put, world.key(), b"value")
            assert done.code == 0
            for member in world.members.values():
                assert await member.contract().evaluate(Probe.get, world.key()) == b"value"

    async def test_an_evaluation_writes_nothing(self, conformance_network: ConformanceNetwork) -> None:
        """A transaction function may be evaluated; what it writes is thrown away."""
        async with conformance_network.open() as world:
            assert await world.alpha.contract().evaluate(Probe.add, world.key(), 5) == 5
            assert await world.alpha.contract().evaluate(Probe.add, world.key(), 7) == 7

    async def test_a_submitted_transaction_returns_its_result(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.add, world.key(), 5)
            done = await world.submit(Probe.add, world.key(), 7)
            assert done.result == 12

    async def test_a_transaction_does_not_read_its_own_writes(self, conformance_network: ConformanceNetwork) -> None:
        """core/ledger/kvledger/txmgmt/txmgr/query_executor.go: reads come from committed state."""
        async with conformance_network.open() as world:
            assert (await world.submit(Probe.write_then_read, world.key(), b"first")).result == b""
            assert (await world.submit(Probe.write_then_read, world.key(), b"second")).result == b"first"

    async def test_a_deleted_key_has_no_value(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"value")
            await world.submit(Probe.delete, world.key())
            assert await world.alpha.contract().evaluate(Probe.scan, world.key(), world.key("~")) == []

    @pytest.mark.parametrize(
        "data", [b"", b"\0", bytes(range(256)), "贵阳".encode()], ids=["empty", "zero", "all", "utf8"]
    )
    async def test_arguments_and_results_are_bytes(self, conformance_network: ConformanceNetwork, data: bytes) -> None:
        async with conformance_network.open() as world:
            assert await world.alpha.contract().evaluate(Probe.echo, data) == data
            assert await world.alpha.contract().evaluate("Probe:echo", data) == data

    @pytest.mark.parametrize("megabytes", [1, 4])
    async def test_a_large_value_is_kept(self, conformance_network: ConformanceNetwork, megabytes: int) -> None:
        """A transaction holds it twice, as an argument and as a write, within the channel's `batch.absolute_max_bytes`."""
        async with conformance_network.open() as world:
            value = hashlib.sha256(b"conformance").digest() * (megabytes * MEGABYTE // 32)
            await world.submit(Probe.put, world.key(), value)
            assert await world.gamma.contract().evaluate(Probe.get, world.key()) == value

    async def test_an_empty_value_is_refused_and_nothing_is_written(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """Fabric records an empty value as a deletion (core/ledger/util/txmgr), so the contract API refuses it."""
        async with conformance_network.open() as world:
            with pytest.raises(EndorseError) as caught:
                await world.alpha.contract().submit(Probe.put, world.key(), b"")
            assert caught.value.code == "E_INTERNAL"
            assert await world.alpha.contract().evaluate(Probe.scan, world.key(), world.key("~")) == []

    async def test_a_missing_argument_never_leaves_the_client(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            with pytest.raises(ArgumentError):
                await world.alpha.contract().evaluate(Probe.get)  # type: ignore[call-overload]  # missing on purpose

    async def test_the_chaincode_sees_the_callers_certificate(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            caller = await world.beta.contract().evaluate(Probe.caller)
            assert (caller.msp_id, caller.role) == ("BetaMSP", "client")
            assert caller.id == world.beta.gateway.identity.client_id
            assert caller.attributes["clearance"] == "general"

    async def test_transient_data_reaches_the_chaincode_and_no_block(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """internal/pkg/gateway/submit.go prepareTransaction leaves the transient map out."""
        secret = b"a secret that no block may hold"
        async with conformance_network.open() as world:
            assert await world.alpha.contract().evaluate(Probe.digest, secret) == hashlib.sha256(secret).hexdigest()
            done = await world.submit(Probe.keep_digest, world.key(), secret)
            kept = await world.gamma.contract().evaluate(Probe.get, world.key())
            assert kept.decode() == hashlib.sha256(secret).hexdigest()
            (block,) = await read_blocks(world.alpha.wide, done.block_number, done.block_number)
            assert done.transaction_id in [transaction.transaction_id for transaction in transactions_of(block)]
            assert secret not in block.SerializeToString()

    async def test_many_transactions_at_once_are_all_committed(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            keys = [world.key(f"{number:02}") for number in range(40)]
            contract = world.alpha.contract()
            done = await asyncio.gather(*(contract.submit(Probe.put, key, key.encode()) for key in keys))
            assert len({submitted.transaction_id for submitted in done}) == len(keys)
            found = await contract.evaluate(Probe.scan, world.key("00"), world.key("~"))
            assert [entry.key for entry in found] == keys

    async def test_every_peer_tells_the_same_status_of_a_transaction(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            done = await world.alpha.contract().submit(Probe.put, world.key(), b"value")
            for member in world.members.values():
                status = await member.wide.commit(done.transaction_id).status()
                assert (status.code_name, status.block_number) == ("VALID", done.block_number)

    async def test_the_status_of_a_transaction_that_never_was_is_unknown(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """internal/pkg/gateway/commit/finder.go waits for the commit until the caller's deadline."""
        async with conformance_network.open() as world:
            with pytest.raises(OutcomeUnknown) as caught:
                await world.alpha.wide.commit("ab" * 32).status(timeout_s=0.5)
            assert caught.value.failure.status == "DEADLINE_EXCEEDED"

    async def test_a_transaction_sent_twice_takes_effect_once(self, conformance_network: ConformanceNetwork) -> None:
        """core/committer/txvalidator/v20/validator.go marks the second DUPLICATE_TXID; the status is the first's."""
        async with conformance_network.open() as world:
            await world.submit(Probe.put, world.key(), b"1")
            transaction = await world.alpha.contract().proposal(Probe.add, world.key(), 1).endorse()
            first = await (await transaction.submit()).committed()
            second = await (await transaction.submit()).committed()
            assert first == second
            if conformance_network.topology.consensus != "bft":  # BFT nodes take the same bytes only once
                codes = await self._codes_of(world.alpha.wide, first.transaction_id, first.block_number)
                assert codes == ["VALID", "DUPLICATE_TXID"]
            await world.settle(first)
            assert await world.gamma.contract().evaluate(Probe.get, world.key()) == b"2"

    @staticmethod
    async def _codes_of(channel: Channel, transaction_id: str, start: int) -> list[str]:
        """The validation codes under which a transaction stands in the blocks, until it has two."""
        codes: list[str] = []
        async with asyncio.timeout(30), channel.blocks(start) as blocks:
            async for block in blocks:
                codes += [tx.code_name for tx in transactions_of(block) if tx.transaction_id == transaction_id]
                if len(codes) >= 2:
                    break
        return codes

    async def test_a_proposal_of_a_committed_transaction_is_not_endorsed_again(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """core/endorser/endorser.go preProcess: "duplicate transaction found"."""
        async with conformance_network.open() as world:
            proposal = world.alpha.contract().proposal(Probe.put, world.key(), b"value")
            await world.settle(await (await (await proposal.endorse()).submit()).committed())
            with pytest.raises(EndorseError) as caught:
                await proposal.endorse()
            assert caught.value.status == "ABORTED"
            assert any("duplicate transaction found" in detail.message for detail in caught.value.details)

    async def test_a_deadline_of_the_whole_call_is_kept(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            hurried = world.alpha.contract().with_options(timeouts=Timeouts(endorse_s=0.0001))
            with pytest.raises(EndorseError) as caught:
                await hurried.submit(Probe.put, world.key(), b"value")
            assert caught.value.timed_out
