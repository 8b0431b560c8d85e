"""Streams of blocks and of filtered blocks, and what stands in a block."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

import pytest
from fabric_protos.common import common_pb2, ledger_pb2
from fabric_protos.peer import events_pb2, transaction_pb2

from sovchain.client import DeliverForbidden, DeliverNotFound, Gateway
from sovchain.client import Network as Channel
from sovchain.client.commit import code_name
from sovchain.protocol.blocks import check_data_hash, header_hash, transactions_filter
from sovchain.protocol.transactions import parse_envelope_header
from sovchain.testing.conformance.chaincode import Probe
from sovchain.testing.conformance.topology import NARROW, WIDE
from sovchain.testing.conformance.world import CATCH_UP_S, ConformanceNetwork, foreign_profile


@dataclass(frozen=True)
class BlockTransaction:
    """A transaction as it stands in a block: its id and the name of its validation code."""

    transaction_id: str
    code_name: str


def transactions_of(block: common_pb2.Block) -> list[BlockTransaction]:
    """Return the transactions of a block with their validation codes."""
    return [
        BlockTransaction(parse_envelope_header(envelope).transaction_id, code_name(code))
        for envelope, code in zip(block.data.data, transactions_filter(block), strict=True)
    ]


async def read_blocks(channel: Channel, start: int, stop: int) -> list[common_pb2.Block]:
    """Read blocks from `start` to and including `stop`, waiting for those that are not there yet."""
    async with asyncio.timeout(CATCH_UP_S), channel.blocks(start, stop) as blocks:
        return [block async for block in blocks]


@pytest.mark.asyncio
class BlockConformance:
    """What a peer delivers of its chain."""

    async def test_blocks_from_the_first_are_a_chain(self, conformance_network: ConformanceNetwork) -> None:
        """protoutil/blockutils.go: each header holds the hash of the one before, and the hash of its data."""
        async with conformance_network.open() as world:
            done = await world.submit(Probe.put, world.key(), b"value")
            blocks = await read_blocks(world.alpha.wide, 0, done.block_number)
            assert [block.header.number for block in blocks] == list(range(done.block_number + 1))
            assert blocks[0].header.previous_hash == b""
            for before, block in itertools.pairwise(blocks):
                assert block.header.previous_hash == header_hash(before.header)
                check_data_hash(block)
            assert blocks[-1].header.previous_hash == header_hash(blocks[-2].header)

    async def test_every_peer_delivers_the_same_blocks(self, conformance_network: ConformanceNetwork) -> None:
        """Header, data and validation codes; ordering nodes sign each for itself, so signatures may differ."""
        async with conformance_network.open() as world:
            done = await world.submit(Probe.put, world.key(), b"value")
            chains = [
                [
                    (block.header.SerializeToString(), tuple(block.data.data), transactions_filter(block))
                    for block in await read_blocks(member.wide, 0, done.block_number)
                ]
                for member in world.members.values()
            ]
            assert chains[0] == chains[1] == chains[2]

    async def test_the_head_of_the_chain_is_the_last_block(self, conformance_network: ConformanceNetwork) -> None:
        async with conformance_network.open() as world:
            info = await world.alpha.wide.chain_info()
            (last,) = await read_blocks(world.alpha.wide, info.height - 1, info.height - 1)
            assert header_hash(last.header) == info.current_block_hash
            assert last.header.previous_hash == info.previous_block_hash

    async def test_a_stream_waits_for_blocks_that_are_not_there_yet(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            height = (await world.alpha.wide.chain_info()).height
            reading = asyncio.create_task(read_blocks(world.alpha.wide, height, height))
            done = await world.submit(Probe.put, world.key(), b"value")
            (block,) = await reading
            assert block.header.number == done.block_number == height
            assert [tx.transaction_id for tx in transactions_of(block)] == [done.transaction_id]

    async def test_filtered_blocks_hold_ids_and_codes_and_no_payload(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """core/peer/deliverevents.go toFilteredActions: names of events without payloads."""
        async with conformance_network.open() as world:
            payload = b"a payload that is not for filtered blocks"
            done = await world.submit(Probe.announce, world.key(), "announced", payload)
            block = await _filtered(world.alpha.wide, done.block_number)
            assert block.channel_id == WIDE
            (transaction,) = [tx for tx in block.filtered_transactions if tx.txid == done.transaction_id]
            assert transaction.type == common_pb2.ENDORSER_TRANSACTION
            assert transaction.tx_validation_code == transaction_pb2.VALID
            (action,) = transaction.transaction_actions.chaincode_actions
            assert action.chaincode_event.event_name == "announced"
            assert action.chaincode_event.tx_id == done.transaction_id
            assert action.chaincode_event.payload == b""
            assert payload not in block.SerializeToString()

    async def test_a_transaction_is_found_by_its_id(self, conformance_network: ConformanceNetwork) -> None:
        """core/scc/qscc/query.go GetTransactionByID, GetBlockByTxID."""
        async with conformance_network.open() as world:
            done = await world.submit(Probe.put, world.key(), b"value")
            qscc = world.beta.wide.contract("qscc")
            found = transaction_pb2.ProcessedTransaction.FromString(
                await qscc.evaluate("GetTransactionByID", WIDE, done.transaction_id)
            )
            assert found.validationCode == transaction_pb2.VALID
            header = parse_envelope_header(found.transactionEnvelope.SerializeToString())
            assert header.transaction_id == done.transaction_id
            block = common_pb2.Block.FromString(await qscc.evaluate("GetBlockByTxID", WIDE, done.transaction_id))
            assert block.header.number == done.block_number
            info = ledger_pb2.BlockchainInfo.FromString(await qscc.evaluate("GetChainInfo", WIDE))
            assert info.height > done.block_number

    async def test_a_peer_outside_a_channel_has_none_of_its_blocks(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """common/deliver/deliver.go: a channel that the peer has not joined is NOT_FOUND."""
        async with conformance_network.open() as world:
            with pytest.raises(DeliverNotFound) as caught:
                async with asyncio.timeout(CATCH_UP_S), world.gamma.narrow.blocks(0, 0, reconnect=False) as blocks:
                    await anext(blocks)
            assert caught.value.status == common_pb2.NOT_FOUND

    async def test_an_organisation_outside_a_channel_may_not_read_its_blocks(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """common/deliver/acl.go: Gamma's client at Alpha's peer does not satisfy the channel's Readers."""
        async with conformance_network.open(), conformance_network.attach() as network:
            foreign, stranger = foreign_profile(network, "Alpha", "Gamma"), network.identity("Gamma")
            async with Gateway.connect(foreign, stranger) as gateway:
                stream = gateway.network(NARROW).blocks(0, 0, reconnect=False)
                with pytest.raises(DeliverForbidden) as caught:
                    async with asyncio.timeout(CATCH_UP_S), stream as blocks:
                        await anext(blocks)
                assert caught.value.status == common_pb2.FORBIDDEN


async def _filtered(channel: Channel, number: int) -> events_pb2.FilteredBlock:
    async with asyncio.timeout(CATCH_UP_S), channel.filtered_blocks(number, number) as blocks:
        return await anext(blocks)
