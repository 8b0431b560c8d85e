"""What the comparison with real peers found, one case each: these hold on a machine without Fabric's programs too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2
from ledger_world import CHAINCODE, World, put, sign_envelope
from service_world import Services, failure, services, signed_proposal

from sovchain.ledger.channel import Channel
from sovchain.ledger.history import key_modification
from sovchain.protocol.rwset import RwSet, Version, parse_rwset
from sovchain.protocol.transactions import indexed_transaction_id

CODES = transaction_pb2.TxValidationCode
POLICY = "OR('Org1MSP.peer', 'Org2MSP.peer')"


@pytest_asyncio.fixture
async def net(two_organisations: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Two organisations with `cc`."""
    async with services(tmp_path_factory.mktemp("net"), two_organisations) as running:
        await running.deploy("cc", POLICY)
        yield running


def rwset_of(response: proposal_response_pb2.ProposalResponse) -> RwSet:
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(response.payload)
    return parse_rwset(proposal_pb2.ChaincodeAction.FromString(payload.extension).results)


async def test_the_definition_of_the_called_chaincode_counts_as_read(net: Services) -> None:
    """core/chaincode/lifecycle/endorsement_info.go reads the sequence through the transaction's simulator."""
    _, signed = net.proposal("put", "a", "1")
    found = rwset_of(await net.process(signed)).namespace("_lifecycle")
    assert found is not None
    assert [read.key for read in found.reads] == ["namespaces/fields/cc/Sequence"]
    assert isinstance(found.reads[0].version, Version)


async def test_a_transaction_endorsed_before_an_upgrade_conflicts_with_it(net: Services) -> None:
    txid, signed = net.proposal("put", "a", "1")
    envelope = await net.endorse(signed)
    await net.deploy("cc", POLICY, sequence=2)
    await net.submit(envelope)
    assert (await net.status(txid))[0] == CODES.MVCC_READ_CONFLICT


async def test_the_interest_names_no_system_chaincode(net: Services) -> None:
    _, signed = net.proposal("put", "a", "1")
    interest = (await net.process(signed)).interest
    assert [call.name for call in interest.chaincodes] == ["cc"]


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("header", "failed parsing header: error unmarshalling Header: proto: cannot parse invalid wire-format data"),
        (
            "signature_header",
            "failed parsing signature header: error unmarshalling SignatureHeader: "
            "proto: cannot parse invalid wire-format data",
        ),
        (
            "channel_header",
            "failed parsing channel header: error unmarshalling ChannelHeader: "
            "proto: cannot parse invalid wire-format data",
        ),
    ],
)
async def test_the_filters_say_what_they_cannot_parse(net: Services, part: str, text: str) -> None:
    """core/handlers/auth/filter/expiration.go and timewindow.go."""
    _, signed = net.proposal("put", "a", "1")
    proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
    header = common_pb2.Header.FromString(proposal.header)
    if part == "header":
        proposal.header = b"\x0a\xff\x01"
    else:
        setattr(header, part, b"\x0a\xff\x01")
        proposal.header = header.SerializeToString()
    assert (await failure(net.process(signed_proposal(proposal, net.client())))).text == text


async def test_odd_nanoseconds_are_no_fault(net: Services) -> None:
    _, signed = net.proposal("put", "a", "1")
    proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
    header = common_pb2.Header.FromString(proposal.header)
    channel_header = common_pb2.ChannelHeader.FromString(header.channel_header)
    channel_header.timestamp.nanos = -1
    header.channel_header = channel_header.SerializeToString()
    proposal.header = header.SerializeToString()
    assert (await net.process(signed_proposal(proposal, net.client()))).response.status == 200


def renamed(envelope: bytes, world: World, transaction_id: str) -> bytes:
    """The same transaction with another id in its header."""
    outer = common_pb2.Envelope.FromString(envelope)
    payload = common_pb2.Payload.FromString(outer.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    header.tx_id = transaction_id
    payload.header.channel_header = header.SerializeToString()
    outer.payload = payload.SerializeToString()
    return sign_envelope(outer, next(iter(world.organisations.values())).client)


async def test_a_transaction_without_an_id_takes_the_one_that_it_should_have(world: World, channel: Channel) -> None:
    """protoutil/txutils.go GetOrComputeTxIDFromEnvelope: the index computes it, and the right one comes too late."""
    endorsed = await world.endorse(channel, put("k", b"v"))
    nameless = renamed(endorsed.envelope, world, "")
    assert indexed_transaction_id(nameless) == endorsed.transaction_id
    await channel.order(nameless)
    assert (await channel.wait_for_commit(endorsed.transaction_id))[0] == CODES.BAD_PROPOSAL_TXID
    height = channel.height
    await channel.order(endorsed.envelope)
    async for block in channel.blocks(height, height):
        filter_slot = common_pb2.Block.FromString(block).metadata.metadata[common_pb2.TRANSACTIONS_FILTER]
        assert list(filter_slot) == [CODES.DUPLICATE_TXID]


async def test_a_hash_may_be_asked_for_in_the_collection_without_a_name(world: World, channel: Channel) -> None:
    """txmgr/collection_val.go counts the empty name among a chaincode's collections; the transaction is valid."""

    def script(simulator: Any) -> None:
        assert simulator.get_private_hash(CHAINCODE, "", "p") is None
        simulator.put_state(CHAINCODE, "k", b"v")

    txid, code, _ = await world.submit(channel, script)
    assert code == CODES.VALID, channel.reason(txid)


async def test_every_written_key_s_policy_is_in_the_interest_as_often_as_there_are_keys(
    world: World, channel: Channel
) -> None:
    """core/endorser/endorser.go parseWritesetMetadata adds a policy for each key, equal ones too."""
    from sovchain.ledger.interest import chaincode_interest
    from sovchain.protocol.policydsl import parse

    policy = parse("OR('Org1MSP.peer')").SerializeToString(deterministic=True)

    def guard(simulator: Any) -> None:
        for key in ("one", "two"):
            simulator.put_state(CHAINCODE, key, b"v")
            simulator.put_state_metadata(CHAINCODE, key, {"VALIDATION_PARAMETER": policy})

    assert (await world.submit(channel, guard))[1] == CODES.VALID
    with await channel.snapshot() as snapshot:
        simulator = channel.simulator(snapshot, "Org1MSP")
        for key in ("one", "two"):
            simulator.put_state(CHAINCODE, key, b"w")
        results = simulator.results()
        assert rwset_pb2.TxReadWriteSet.FromString(results.public).ns_rwset
        (call,) = chaincode_interest(results, snapshot).chaincodes
    assert len(call.key_policies) == 2
    assert call.disregard_namespace_policy


def test_the_history_tells_no_time_of_a_transaction_that_has_none() -> None:
    """The field is absent, not empty: the bytes of the answer go into the chaincode's response."""
    written = kv_rwset_pb2.KVRWSet(writes=[kv_rwset_pb2.KVWrite(key="k", value=b"1")]).SerializeToString()
    sets = rwset_pb2.TxReadWriteSet(ns_rwset=[rwset_pb2.NsReadWriteSet(namespace="cc", rwset=written)])
    result = proposal_pb2.ChaincodeAction(results=sets.SerializeToString()).SerializeToString()
    endorsed = proposal_response_pb2.ProposalResponsePayload(extension=result).SerializeToString()
    action = transaction_pb2.ChaincodeActionPayload(
        action=transaction_pb2.ChaincodeEndorsedAction(proposal_response_payload=endorsed)
    ).SerializeToString()
    transaction = transaction_pb2.Transaction(actions=[transaction_pb2.TransactionAction(payload=action)])
    header = common_pb2.ChannelHeader(tx_id="t")
    for timed in (False, True):
        if timed:
            header.timestamp.seconds = 1
        payload = common_pb2.Payload(
            header=common_pb2.Header(channel_header=header.SerializeToString()), data=transaction.SerializeToString()
        ).SerializeToString()
        found = key_modification(common_pb2.Envelope(payload=payload).SerializeToString(), "cc", "k")
        assert found.HasField("timestamp") is timed
