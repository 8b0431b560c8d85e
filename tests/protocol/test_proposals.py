"""Proposals: what is built parses, and what is refused is refused with Fabric's text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2, proposal_response_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from protocol_world import NOW, World

from sovchain.protocol.errors import MalformedError
from sovchain.protocol.proposals import (
    Invocation,
    ProposalError,
    build_proposal,
    datetime_to_timestamp,
    parse_signed_proposal,
    response_payload,
    timestamp_to_datetime,
    transaction_id,
)

INVOCATION = Invocation("ch", "cc", (b"fn", b"\x00\xff"), {"secret": b"s", "other": b""})


def signed(proposal: proposal_pb2.Proposal, signature: bytes = b"s") -> proposal_pb2.SignedProposal:
    return proposal_pb2.SignedProposal(proposal_bytes=proposal.SerializeToString(), signature=signature)


def build(invocation: Invocation = INVOCATION) -> proposal_pb2.Proposal:
    return build_proposal(invocation, creator=b"creator", nonce=b"n" * 24, timestamp=NOW)[1]


def test_what_is_built_parses() -> None:
    txid, proposal = build_proposal(INVOCATION, creator=b"creator", nonce=b"n" * 24, timestamp=NOW)
    parsed = parse_signed_proposal(signed(proposal))
    assert txid == parsed.transaction_id == sha256(b"n" * 24 + b"creator").hexdigest()
    assert (parsed.channel_id, parsed.chaincode, parsed.creator, parsed.nonce) == ("ch", "cc", b"creator", b"n" * 24)
    assert tuple(parsed.input.args) == INVOCATION.args
    assert parsed.transient == dict(INVOCATION.transient)
    assert parsed.timestamp == NOW


def test_the_hash_does_not_cover_transient_data_and_covers_all_else() -> None:
    def hash_of(invocation: Invocation) -> bytes:
        return parse_signed_proposal(signed(build(invocation))).proposal_hash

    assert hash_of(INVOCATION) == hash_of(Invocation("ch", "cc", INVOCATION.args))
    others = [
        Invocation("x", "cc", INVOCATION.args),
        Invocation("ch", "x", INVOCATION.args),
        Invocation("ch", "cc", ()),
    ]
    assert all(hash_of(other) != hash_of(INVOCATION) for other in others)


def test_transient_data_is_not_shown() -> None:
    assert "secret" not in repr(parse_signed_proposal(signed(build())))
    assert "secret" not in repr(INVOCATION)


def test_building_is_deterministic_whatever_the_order_of_the_transient_map() -> None:
    turned = Invocation("ch", "cc", INVOCATION.args, dict(reversed(list(INVOCATION.transient.items()))))
    assert build().SerializeToString() == build(turned).SerializeToString()


def change_header(
    change: Callable[[common_pb2.ChannelHeader, common_pb2.SignatureHeader], None],
) -> proposal_pb2.Proposal:
    proposal = build()
    header = common_pb2.Header.FromString(proposal.header)
    channel = common_pb2.ChannelHeader.FromString(header.channel_header)
    signature = common_pb2.SignatureHeader.FromString(header.signature_header)
    change(channel, signature)
    header.channel_header, header.signature_header = channel.SerializeToString(), signature.SerializeToString()
    proposal.header = header.SerializeToString()
    return proposal


def change_payload(content: bytes) -> proposal_pb2.Proposal:
    proposal = build()
    proposal.payload = proposal_pb2.ChaincodeProposalPayload(input=content).SerializeToString()
    return proposal


def set_fields(**fields: object) -> Callable[[common_pb2.ChannelHeader, common_pb2.SignatureHeader], None]:
    def change(channel: common_pb2.ChannelHeader, signature: common_pb2.SignatureHeader) -> None:
        for name, value in fields.items():
            setattr(signature if name in ("nonce", "creator") else channel, name, value)

    return change


NO_NAME = proposal_pb2.ChaincodeHeaderExtension(chaincode_id=chaincode_pb2.ChaincodeID()).SerializeToString()
NO_INPUT = chaincode_pb2.ChaincodeInvocationSpec(chaincode_spec=chaincode_pb2.ChaincodeSpec()).SerializeToString()


@pytest.mark.parametrize(
    ("proposal", "text"),
    [
        (proposal_pb2.Proposal(), "ChaincodeHeaderExtension.ChaincodeId is nil"),
        (proposal_pb2.Proposal(header=b"\xff"), "error unmarshalling Header"),
        (change_header(set_fields(extension=b"")), "ChaincodeHeaderExtension.ChaincodeId is nil"),
        (change_header(set_fields(extension=NO_NAME)), "ChaincodeHeaderExtension.ChaincodeId.Name is empty"),
        (change_header(set_fields(extension=b"\xff")), "error unmarshalling ChaincodeHeaderExtension"),
        (change_payload(b""), "chaincode invocation spec did not contain chaincode spec"),
        (change_payload(NO_INPUT), "chaincode input did not contain any input"),
        (change_payload(b"\xff"), "error unmarshalling ChaincodeInvocationSpec"),
        (change_header(set_fields(type=2)), "invalid header type CONFIG_UPDATE"),
        (change_header(set_fields(type=99)), "invalid header type 99"),
        (change_header(set_fields(epoch=1)), "epoch is non-zero"),
        (change_header(set_fields(nonce=b"")), "nonce is empty"),
        (change_header(set_fields(creator=b"")), "creator is empty"),
        (change_header(set_fields(tx_id="00")), "incorrectly computed txid '00' -- expected '"),
        (change_header(lambda channel, _: channel.timestamp.FromJsonString("9999-12-31T23:59:59Z")), ""),
    ],
)
def test_a_bad_proposal_is_refused_with_fabrics_text(proposal: proposal_pb2.Proposal, text: str) -> None:
    if not text:
        parse_signed_proposal(signed(proposal))
        return
    with pytest.raises(ProposalError) as refusal:
        parse_signed_proposal(signed(proposal))
    assert str(refusal.value).startswith(text)


def test_an_unsigned_proposal_is_refused_after_all_else() -> None:
    with pytest.raises(ProposalError, match="empty signature bytes"):
        parse_signed_proposal(signed(build(), b""))


def test_the_response_payload_carries_what_the_chaincode_did() -> None:
    event = chaincode_event_pb2.ChaincodeEvent(chaincode_id="cc", event_name="e")
    response = proposal_response_pb2.Response(status=200, message="m", payload=b"p")
    encoded = response_payload(b"h", b"rw", event, response, "cc", "1.0")
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(encoded)
    action = proposal_pb2.ChaincodeAction.FromString(payload.extension)
    assert payload.proposal_hash == b"h"
    assert (action.results, action.events, action.response) == (b"rw", event.SerializeToString(), response)
    assert (action.chaincode_id.name, action.chaincode_id.version) == ("cc", "1.0")


@given(st.datetimes(timezones=st.just(UTC)))
def test_time_survives_the_wire(moment: datetime) -> None:
    assert timestamp_to_datetime(datetime_to_timestamp(moment)) == moment


def test_time_zones_are_required_and_respected() -> None:
    with pytest.raises(ValueError, match="time zone"):
        build_proposal(INVOCATION, creator=b"c", nonce=b"n", timestamp=datetime(2026, 1, 1))
    ahead = datetime(2026, 1, 1, 8, tzinfo=timezone(timedelta(hours=8)))
    assert datetime_to_timestamp(ahead) == datetime_to_timestamp(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("moment", [Timestamp(seconds=2**60), Timestamp(seconds=-(2**60)), Timestamp(nanos=-1)])
def test_a_time_that_is_none_is_refused(moment: Timestamp) -> None:
    with pytest.raises(MalformedError):
        timestamp_to_datetime(moment)


@pytest.mark.parametrize("part", ["creator", "nonce"])
def test_nothing_is_built_without_creator_or_nonce(part: str) -> None:
    arguments = {"creator": b"c", "nonce": b"n"} | {part: b""}
    with pytest.raises(ValueError, match="must not be empty"):
        build_proposal(INVOCATION, timestamp=NOW, **arguments)


def test_the_transaction_id_depends_on_nonce_and_creator() -> None:
    assert len({transaction_id(b"a", b"b"), transaction_id(b"b", b"b"), transaction_id(b"a", b"c")}) == 3


@given(st.data())
def test_hostile_bytes_raise_nothing_else(world: World, data: st.DataObject) -> None:
    """Random bytes, and a valid proposal with some bytes changed."""
    valid = world.proposal(nonce=b"n" * 24).proposal_bytes
    noise = st.binary(max_size=40)
    position = data.draw(st.integers(0, len(valid)))
    spoiled = valid[:position] + data.draw(noise) + valid[position + data.draw(st.integers(0, 5)) :]
    for encoded in (data.draw(noise), spoiled):
        try:
            parse_signed_proposal(proposal_pb2.SignedProposal(proposal_bytes=encoded, signature=b"s"))
        except ProposalError:
            continue
