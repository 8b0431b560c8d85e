"""Proposals and proposal responses: building, parsing, hashing.

Mirrors core/endorser/msgvalidation.go (checks, their order and texts), protoutil/proputils.go (hashes, response
payload) and fabric-gateway/pkg/client/proposalbuilder.go (what a client sends).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    proposal_pb2,
    proposal_response_pb2,
)
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from sovchain.protocol.errors import MalformedError, ProtocolError

__all__ = [
    "Invocation",
    "ParsedProposal",
    "ProposalError",
    "build_proposal",
    "datetime_to_timestamp",
    "parse_signed_proposal",
    "proposal_hash",
    "response_payload",
    "strip_transient",
    "timestamp_to_datetime",
    "transaction_id",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_SECONDS = -62_135_596_800  # 0001-01-01, the earliest that a protobuf Timestamp and a datetime may hold
_MAX_SECONDS = 253_402_300_799  # 9999-12-31T23:59:59Z

_M = TypeVar("_M", bound=Message)


class ProposalError(ProtocolError):
    """A proposal was refused; the text is Fabric's."""


@dataclass(frozen=True)
class Invocation:
    """What a client asks of a chaincode.

    Attributes:
        channel_id: The channel; empty for calls to system chaincodes that concern no channel.
        chaincode: Name of the chaincode.
        args: The arguments; args[0] is by custom the function's name in UTF-8.
        transient: Data for the endorsers that is kept out of the proposal hash and of the transaction.
        is_init: Whether this is the one call that initialises a chaincode defined with `init_required`.
    """

    channel_id: str
    chaincode: str
    args: tuple[bytes, ...]
    transient: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    is_init: bool = False


@dataclass(frozen=True)
class ParsedProposal:
    """A structurally valid signed proposal. Its signature and creator are still to be checked against the MSPs.

    Attributes:
        proposal_bytes: The bytes that the signature covers.
        signature: The creator's signature over them.
        channel_header: The parsed channel header.
        signature_header: The parsed signature header.
        transaction_id: Equal to the hash of nonce and creator.
        channel_id: From the channel header; may be empty.
        chaincode: Name from the header extension; never empty.
        creator: The serialised identity of the client.
        nonce: Its random bytes.
        timestamp: The client's clock, in UTC; the epoch if it sent none.
        input: Arguments and decorations for the chaincode.
        transient: The transient map.
        proposal_hash: What the endorsers' response payload must carry.
    """

    proposal_bytes: bytes = field(repr=False)  # carries the transient map
    signature: bytes
    channel_header: common_pb2.ChannelHeader
    signature_header: common_pb2.SignatureHeader
    transaction_id: str
    channel_id: str
    chaincode: str
    creator: bytes
    nonce: bytes
    timestamp: datetime
    input: chaincode_pb2.ChaincodeInput
    transient: dict[str, bytes] = field(repr=False)
    proposal_hash: bytes


def transaction_id(nonce: bytes, creator: bytes) -> str:
    """Return the lower-case hex SHA-256 of nonce and creator (protoutil/proputils.go ComputeTxID)."""
    return sha256(nonce + creator).hexdigest()


def timestamp_to_datetime(timestamp: Timestamp) -> datetime:
    """Return a protobuf timestamp as an aware UTC datetime, truncated to microseconds.

    Raises MalformedError for a time outside the years 1 to 9999 or nanoseconds outside a second.
    """
    seconds, nanos = timestamp.seconds, timestamp.nanos
    if not (_MIN_SECONDS <= seconds <= _MAX_SECONDS and 0 <= nanos < 1_000_000_000):
        raise MalformedError(f"timestamp of {seconds} s and {nanos} ns is out of range")
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)


def datetime_to_timestamp(moment: datetime) -> Timestamp:
    """Return an aware datetime as a protobuf timestamp. Raises ValueError for one without a time zone."""
    if moment.tzinfo is None:
        raise ValueError("the timestamp needs a time zone: pass an aware datetime")
    elapsed = moment - _EPOCH
    return Timestamp(seconds=elapsed.days * 86_400 + elapsed.seconds, nanos=elapsed.microseconds * 1000)


def strip_transient(proposal_payload: proposal_pb2.ChaincodeProposalPayload) -> bytes:
    """Return the part of a ChaincodeProposalPayload that goes into the transaction."""
    return proposal_pb2.ChaincodeProposalPayload(input=proposal_payload.input).SerializeToString()


def proposal_hash(channel_header: bytes, signature_header: bytes, visible_payload: bytes) -> bytes:
    """Return the SHA-256 of both headers and the payload without transient data (protoutil GetProposalHash2)."""
    return sha256(channel_header + signature_header + visible_payload).digest()


def build_proposal(
    invocation: Invocation, *, creator: bytes, nonce: bytes, timestamp: datetime
) -> tuple[str, proposal_pb2.Proposal]:
    """Return the transaction id and the unsigned proposal.

    Args:
        invocation: What is asked.
        creator: The client's serialised identity.
        nonce: 24 random bytes by custom; must not be empty.
        timestamp: The client's time; must carry a time zone.

    Raises:
        ValueError: For an empty creator or nonce, or a timestamp without a time zone.
    """
    if not creator or not nonce:
        raise ValueError("creator and nonce must not be empty")
    txid = transaction_id(nonce, creator)
    chaincode_id = chaincode_pb2.ChaincodeID(name=invocation.chaincode)
    channel_header = common_pb2.ChannelHeader(
        type=common_pb2.ENDORSER_TRANSACTION,
        timestamp=datetime_to_timestamp(timestamp),
        channel_id=invocation.channel_id,
        tx_id=txid,
        extension=proposal_pb2.ChaincodeHeaderExtension(chaincode_id=chaincode_id).SerializeToString(),
    )
    header = common_pb2.Header(
        channel_header=channel_header.SerializeToString(),
        signature_header=common_pb2.SignatureHeader(creator=creator, nonce=nonce).SerializeToString(),
    )
    spec = chaincode_pb2.ChaincodeInvocationSpec(
        chaincode_spec=chaincode_pb2.ChaincodeSpec(
            chaincode_id=chaincode_id,
            input=chaincode_pb2.ChaincodeInput(args=invocation.args, is_init=invocation.is_init),
        )
    )
    payload = proposal_pb2.ChaincodeProposalPayload(
        input=spec.SerializeToString(), TransientMap=dict(invocation.transient)
    )
    return txid, proposal_pb2.Proposal(
        header=header.SerializeToString(), payload=payload.SerializeToString(deterministic=True)
    )


def parse_signed_proposal(signed: proposal_pb2.SignedProposal) -> ParsedProposal:
    """Check everything about a proposal except identity and signature, in the order of the endorser.

    Raises:
        ProposalError: With Fabric's text. (After this Fabric checks, with texts that are the caller's to give, that
            the creator deserialises, is valid, and signed `proposal_bytes`.)
    """
    proposal = _decode(proposal_pb2.Proposal, signed.proposal_bytes)
    header = _decode(common_pb2.Header, proposal.header)
    channel_header = _decode(common_pb2.ChannelHeader, header.channel_header)
    signature_header = _decode(common_pb2.SignatureHeader, header.signature_header)
    extension = _decode(proposal_pb2.ChaincodeHeaderExtension, channel_header.extension)
    if not extension.HasField("chaincode_id"):
        raise ProposalError("ChaincodeHeaderExtension.ChaincodeId is nil")
    if not extension.chaincode_id.name:
        raise ProposalError("ChaincodeHeaderExtension.ChaincodeId.Name is empty")
    payload = _decode(proposal_pb2.ChaincodeProposalPayload, proposal.payload)
    spec = _decode(chaincode_pb2.ChaincodeInvocationSpec, payload.input)
    if not spec.HasField("chaincode_spec"):
        raise ProposalError("chaincode invocation spec did not contain chaincode spec")
    if not spec.chaincode_spec.HasField("input"):
        raise ProposalError("chaincode input did not contain any input")
    _check_headers(channel_header, signature_header)
    if not signed.proposal_bytes:
        raise ProposalError("empty proposal bytes")
    if not signed.signature:
        raise ProposalError("empty signature bytes")
    try:
        # Fabric does not mind nanoseconds outside a second.
        carried, nanos = divmod(channel_header.timestamp.nanos, 1_000_000_000)
        timestamp = timestamp_to_datetime(Timestamp(seconds=channel_header.timestamp.seconds + carried, nanos=nanos))
    except (MalformedError, ValueError) as fault:
        raise ProposalError(str(fault)) from fault
    return ParsedProposal(
        proposal_bytes=signed.proposal_bytes,
        signature=signed.signature,
        channel_header=channel_header,
        signature_header=signature_header,
        transaction_id=channel_header.tx_id,
        channel_id=channel_header.channel_id,
        chaincode=extension.chaincode_id.name,
        creator=signature_header.creator,
        nonce=signature_header.nonce,
        timestamp=timestamp,
        input=spec.chaincode_spec.input,
        transient=dict(payload.TransientMap),
        proposal_hash=proposal_hash(header.channel_header, header.signature_header, strip_transient(payload)),
    )


def response_payload(
    proposal_hash: bytes,
    results: bytes,
    event: chaincode_event_pb2.ChaincodeEvent | None,
    response: proposal_response_pb2.Response,
    chaincode_name: str,
    chaincode_version: str,
) -> bytes:
    """Return the marshalled ProposalResponsePayload; endorsers sign it followed by their serialised identity.

    Args:
        proposal_hash: From :class:`ParsedProposal`.
        results: The marshalled public read-write set.
        event: The chaincode event, with chaincode and transaction id filled in, or None.
        response: What the chaincode returned.
        chaincode_name: Name of the invoked chaincode.
        chaincode_version: Version of its committed definition.
    """
    action = proposal_pb2.ChaincodeAction(
        results=results,
        events=b"" if event is None else event.SerializeToString(),
        response=response,
        chaincode_id=chaincode_pb2.ChaincodeID(name=chaincode_name, version=chaincode_version),
    )
    payload = proposal_response_pb2.ProposalResponsePayload(
        proposal_hash=proposal_hash, extension=action.SerializeToString()
    )
    return payload.SerializeToString()


def _check_headers(channel_header: common_pb2.ChannelHeader, signature_header: common_pb2.SignatureHeader) -> None:
    if channel_header.type not in (common_pb2.ENDORSER_TRANSACTION, common_pb2.CONFIG):
        raise ProposalError(f"invalid header type {_header_type_name(channel_header.type)}")
    if channel_header.epoch != 0:
        raise ProposalError("epoch is non-zero")
    if not signature_header.nonce:
        raise ProposalError("nonce is empty")
    if not signature_header.creator:
        raise ProposalError("creator is empty")
    expected = transaction_id(signature_header.nonce, signature_header.creator)
    if channel_header.tx_id != expected:
        raise ProposalError(f"incorrectly computed txid '{channel_header.tx_id}' -- expected '{expected}'")


def _header_type_name(number: int) -> str:
    known = common_pb2.HeaderType.DESCRIPTOR.values_by_number.get(number)
    return known.name if known is not None else str(number)


def _decode(kind: type[_M], encoded: bytes) -> _M:
    try:
        return kind.FromString(encoded)
    except DecodeError as fault:
        name = kind.DESCRIPTOR.name
        raise ProposalError(f"error unmarshalling {name}: proto: cannot parse invalid wire-format data") from fault
