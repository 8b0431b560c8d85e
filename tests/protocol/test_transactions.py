"""Transactions: assembled, parsed, and refused with Fabric's codes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_event_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_world import CHAINCODE, CHANNEL, NOW, World, put

from sovchain.protocol.errors import MalformedError
from sovchain.protocol.proposals import proposal_hash
from sovchain.protocol.transactions import (
    TransactionError,
    assemble_envelope,
    parse_envelope_header,
    parse_transaction,
)

CODES = transaction_pb2.TxValidationCode


class Parts:
    """An envelope taken apart, to be changed and put together again with a fitting proposal hash."""

    def __init__(self, encoded: bytes) -> None:
        self.envelope = common_pb2.Envelope.FromString(encoded)
        self.payload = common_pb2.Payload.FromString(self.envelope.payload)
        self.channel = common_pb2.ChannelHeader.FromString(self.payload.header.channel_header)
        self.signer = common_pb2.SignatureHeader.FromString(self.payload.header.signature_header)
        self.transaction = transaction_pb2.Transaction.FromString(self.payload.data)
        self.action_payload = transaction_pb2.ChaincodeActionPayload.FromString(self.transaction.actions[0].payload)
        self.response = proposal_response_pb2.ProposalResponsePayload.FromString(
            self.action_payload.action.proposal_response_payload
        )
        self.action = proposal_pb2.ChaincodeAction.FromString(self.response.extension)
        self.keep_hash = False
        self.keep_payload = False

    def join(self) -> bytes:
        header = self.payload.header
        header.channel_header = self.channel.SerializeToString()
        header.signature_header = self.signer.SerializeToString()
        if not self.keep_payload:
            self.response.extension = self.action.SerializeToString()
            for action in self.transaction.actions:
                action.header = header.signature_header
            if not self.keep_hash:
                visible = self.action_payload.chaincode_proposal_payload
                self.response.proposal_hash = proposal_hash(header.channel_header, header.signature_header, visible)
            self.action_payload.action.proposal_response_payload = self.response.SerializeToString()
            for action in self.transaction.actions:
                action.payload = self.action_payload.SerializeToString()
            self.payload.data = self.transaction.SerializeToString()
        self.envelope.payload = self.payload.SerializeToString()
        return self.envelope.SerializeToString()


@pytest.fixture(scope="module")
def good(world: World) -> bytes:
    event = chaincode_event_pb2.ChaincodeEvent(chaincode_id=CHAINCODE, event_name="sold", payload=b"e")
    return world.transaction(put("k"), event=event, args=(b"fn", b"arg"))


def test_what_is_assembled_parses(world: World, good: bytes) -> None:
    transaction = parse_transaction(good)
    assert (transaction.channel_id, transaction.chaincode, transaction.chaincode_version) == (CHANNEL, CHAINCODE, "1.0")
    assert transaction.args == (b"fn", b"arg")
    assert transaction.creator == world.client.identity
    assert transaction.timestamp == NOW
    assert transaction.response.payload == b"fine"
    assert transaction.event is not None
    assert transaction.event.event_name == "sold"
    assert [write.key for write in transaction.rwset.namespaces[0].writes] == ["k"]
    assert [entry.endorser for entry in transaction.endorsements] == [
        peer.identity for peer in world.peers("AMSP", "BMSP")
    ]
    assert transaction.transaction_id == parse_envelope_header(good).transaction_id
    assert not transaction.is_config


def test_transient_data_does_not_reach_the_envelope_and_the_header_is_kept(world: World) -> None:
    signed = world.proposal(transient={"salt": b"very secret"})
    envelope = assemble_envelope(signed.proposal_bytes, b"payload", world.endorse(b"payload", world.peers("AMSP")))
    header = common_pb2.Payload.FromString(envelope.payload).header
    proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
    assert b"very secret" in proposal.payload
    assert b"very secret" not in envelope.SerializeToString()
    assert header.SerializeToString() == proposal.header
    assert not envelope.signature


def test_an_endorser_counts_once_and_at_least_one_is_needed(world: World) -> None:
    signed = world.proposal()
    twice = world.endorse(b"p", [*world.peers("BMSP", "AMSP", "BMSP")])
    envelope = assemble_envelope(signed.proposal_bytes, b"p", twice)
    data = common_pb2.Payload.FromString(envelope.payload).data
    action = transaction_pb2.Transaction.FromString(data).actions[0]
    found = transaction_pb2.ChaincodeActionPayload.FromString(action.payload).action.endorsements
    assert [entry.endorser for entry in found] == [entry.endorser for entry in twice[:2]]
    with pytest.raises(MalformedError, match="no endorsements"):
        assemble_envelope(signed.proposal_bytes, b"p", [])
    with pytest.raises(MalformedError, match="cannot be decoded"):
        assemble_envelope(b"\xff", b"p", twice)


def repeat_namespace(parts: Parts) -> None:
    parts.action.results += parts.action.results


def other_event(parts: Parts) -> None:
    parts.action.events = chaincode_event_pb2.ChaincodeEvent(chaincode_id="other").SerializeToString()


def no_chaincode_in_header(parts: Parts) -> None:
    parts.channel.extension = b""


def double_action(parts: Parts) -> None:
    parts.transaction.actions.append(parts.transaction.actions[0])


def setter(path: str, value: object) -> Callable[[Parts], None]:
    """Set a field, for example "channel.epoch"."""

    def change(parts: Parts) -> None:
        *way, name = path.split(".")
        target: object = parts
        for step in way:
            target = getattr(target, step)
        setattr(target, name, value)

    change.__name__ = f"{path}={value!r}"
    return change


def whole(path: str, value: bytes) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts.keep_payload = True
        setter(path, value)(parts)

    change.__name__ = f"{path}={value!r}"
    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (setter("channel.type", 5), CODES.BAD_COMMON_HEADER),
        (setter("channel.epoch", 1), CODES.BAD_COMMON_HEADER),
        (setter("signer.nonce", b""), CODES.BAD_COMMON_HEADER),
        (setter("signer.creator", b""), CODES.BAD_COMMON_HEADER),
        (setter("channel.tx_id", "00"), CODES.BAD_PROPOSAL_TXID),
        (setter("signer.nonce", b"other"), CODES.BAD_PROPOSAL_TXID),
        (setter("channel.type", common_pb2.CONFIG_UPDATE), CODES.UNSUPPORTED_TX_PAYLOAD),
        (whole("payload.data", b"\xff"), CODES.INVALID_ENDORSER_TRANSACTION),
        (whole("payload.data", b""), CODES.INVALID_ENDORSER_TRANSACTION),
        (double_action, CODES.INVALID_ENDORSER_TRANSACTION),
        (setter("keep_hash", True), 0),
        (setter("response.extension", b""), 0),
        (no_chaincode_in_header, CODES.INVALID_OTHER_REASON),
        (setter("channel.extension", b"\xff"), CODES.BAD_HEADER_EXTENSION),
        (setter("action.results", b"\xff"), CODES.BAD_RWSET),
        (lambda parts: parts.action.ClearField("chaincode_id"), CODES.INVALID_OTHER_REASON),
        (setter("action.chaincode_id.name", "other"), CODES.INVALID_CHAINCODE),
        (setter("action.chaincode_id.version", ""), CODES.INVALID_CHAINCODE),
        (setter("action.events", b"\xff"), CODES.INVALID_OTHER_REASON),
        (other_event, CODES.INVALID_OTHER_REASON),
        (repeat_namespace, CODES.ILLEGAL_WRITESET),
    ],
)
def test_each_fault_has_fabrics_code(good: bytes, change: Callable[[Parts], None], code: int) -> None:
    parts = Parts(good)
    change(parts)
    if code == 0:
        parse_transaction(parts.join())
        return
    with pytest.raises(TransactionError) as refusal:
        parse_transaction(parts.join())
    assert refusal.value.code == code, refusal.value.reason
    assert refusal.value.reason


def test_the_action_belongs_to_this_proposal(good: bytes) -> None:
    parts = Parts(good)
    parts.keep_hash = True
    parts.channel.channel_id = "another"
    with pytest.raises(TransactionError, match="proposal hash does not match") as refusal:
        parse_transaction(parts.join())
    assert refusal.value.code == CODES.INVALID_ENDORSER_TRANSACTION


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (b"\xff", CODES.INVALID_OTHER_REASON),
        (b"", CODES.BAD_COMMON_HEADER),
        (common_pb2.Envelope(payload=b"\xff").SerializeToString(), CODES.BAD_PAYLOAD),
        (common_pb2.Envelope(payload=b"\x12\x01x").SerializeToString(), CODES.BAD_COMMON_HEADER),
    ],
)
def test_each_layer_that_cannot_be_decoded_has_its_code(envelope: bytes, code: int) -> None:
    with pytest.raises(TransactionError) as refusal:
        parse_envelope_header(envelope)
    assert refusal.value.code == code


def test_a_time_out_of_range_does_not_invalidate_what_fabric_accepts(good: bytes) -> None:
    parts = Parts(good)
    parts.channel.timestamp.seconds = 2**60
    assert parse_transaction(parts.join()).timestamp.year == 1970


def test_a_configuration_parses_without_endorsements(world: World) -> None:
    header = parse_envelope_header(world.genesis.data.data[0])
    assert header.type == common_pb2.CONFIG
    assert header.channel_id == CHANNEL


@settings(max_examples=200)
@given(st.data())
def test_hostile_bytes_raise_nothing_else(good: bytes, data: st.DataObject) -> None:
    """Random bytes, and a valid envelope with bytes changed at any depth."""
    noise = st.binary(max_size=20)
    position = data.draw(st.integers(0, len(good)))
    spoiled = good[:position] + data.draw(noise) + good[position + data.draw(st.integers(0, 8)) :]
    parts = Parts(good)
    parts.action.results = data.draw(noise)
    parts.channel.extension = data.draw(noise | st.just(parts.channel.extension))
    parts.action_payload.chaincode_proposal_payload = data.draw(noise)
    for encoded in (data.draw(noise), spoiled, parts.join()):
        try:
            parse_transaction(encoded)
        except TransactionError as refusal:
            assert refusal.code in CODES.values()
