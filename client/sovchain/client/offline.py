"""Steps from the bytes that another process, perhaps in another language, has written or signed.

The forms are those of the official clients: gateway.ProposedTransaction, gateway.PreparedTransaction,
gateway.SignedCommitStatusRequest, gateway.SignedChaincodeEventsRequest and common.Envelope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_pb2
from google.protobuf.message import DecodeError, Message

from sovchain.chaincode.errors import ResultError
from sovchain.client.commit import Commit
from sovchain.client.deliver import BlockKind
from sovchain.client.errors import MalformedStep
from sovchain.client.proposal import Proposal
from sovchain.client.requests import BlocksRequest, EventsRequest
from sovchain.client.session import Session
from sovchain.client.transaction import Transaction
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.proposals import parse_signed_proposal
from sovchain.protocol.transactions import parse_transaction

M = TypeVar("M", bound=Message)
SessionFor = Callable[..., Session]


def _decoded(kind: type[M], data: bytes, what: str) -> M:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedStep(what, f"the bytes are no {kind.DESCRIPTOR.full_name}") from error


def load_proposal(session_for: SessionFor, data: bytes, decode: Callable[[bytes], Any]) -> Proposal[Any]:
    """A proposal from a ProposedTransaction. Raises MalformedStep."""
    proposed = _decoded(gateway_pb2.ProposedTransaction, data, "proposal")
    signed = proposed.proposal
    try:
        # Whether it is signed is another question than whether it is well formed.
        parsed = parse_signed_proposal(
            proposal_pb2.SignedProposal(proposal_bytes=signed.proposal_bytes, signature=signed.signature or b"none")
        )
    except ProtocolError as error:
        raise MalformedStep("proposal", str(error)) from error
    if parsed.transaction_id != proposed.transaction_id:
        raise MalformedStep("proposal", "it names another transaction than it holds")
    session = session_for(parsed.channel_id, tuple(proposed.endorsing_organizations), parsed.creator)
    return Proposal(session, parsed.transaction_id, signed.proposal_bytes, decode, signature=signed.signature)


def load_transaction(session_for: SessionFor, data: bytes, decode: Callable[[bytes], Any]) -> Transaction[Any]:
    """A transaction from a PreparedTransaction. Raises MalformedStep."""
    prepared = _decoded(gateway_pb2.PreparedTransaction, data, "transaction")
    try:
        parsed = parse_transaction(prepared.envelope.SerializeToString())
        result = decode(parsed.response.payload)
    except (ProtocolError, ResultError, DecodeError, ValueError) as error:
        raise MalformedStep("transaction", str(error)) from error
    if parsed.is_config or parsed.transaction_id != prepared.transaction_id:
        raise MalformedStep("transaction", "it names another transaction than it holds")
    session = session_for(parsed.channel_id, (), parsed.creator)
    return Transaction(
        session,
        parsed.transaction_id,
        prepared.envelope.payload,
        result,
        signature=prepared.envelope.signature,
        end=session.end(),
    )


def load_commit(session_for: SessionFor, data: bytes) -> Commit:
    """A commit from a SignedCommitStatusRequest. Raises MalformedStep."""
    signed = _decoded(gateway_pb2.SignedCommitStatusRequest, data, "commit")
    request = _decoded(gateway_pb2.CommitStatusRequest, signed.request, "commit")
    if not request.channel_id or not request.transaction_id:
        raise MalformedStep("commit", "it names no channel or no transaction")
    session = session_for(request.channel_id, (), request.identity)
    return Commit(session, request.transaction_id, request=signed.request, signature=signed.signature)


def load_events_request(session_for: SessionFor, data: bytes) -> EventsRequest:
    """A request for events from a SignedChaincodeEventsRequest. Raises MalformedStep."""
    signed = _decoded(gateway_pb2.SignedChaincodeEventsRequest, data, "events request")
    request = _decoded(gateway_pb2.ChaincodeEventsRequest, signed.request, "events request")
    if not request.channel_id or not request.chaincode_id:
        raise MalformedStep("events request", "it names no channel or no chaincode")
    session = session_for(request.channel_id, (), request.identity)
    return EventsRequest(session, request.chaincode_id, signed.request, signature=signed.signature)


def load_blocks_request(session_for: SessionFor, data: bytes, kind: BlockKind[Any]) -> BlocksRequest[Any]:
    """A request for blocks from an Envelope. Raises MalformedStep."""
    envelope = _decoded(common_pb2.Envelope, data, "blocks request")
    header = _decoded(common_pb2.Payload, envelope.payload, "blocks request").header
    channel = _decoded(common_pb2.ChannelHeader, header.channel_header, "blocks request")
    creator = _decoded(common_pb2.SignatureHeader, header.signature_header, "blocks request").creator
    if channel.type != common_pb2.DELIVER_SEEK_INFO or not channel.channel_id:
        raise MalformedStep("blocks request", "it is no request for the blocks of a channel")
    session = session_for(channel.channel_id, (), creator)
    return BlocksRequest(session, kind, envelope.payload, signature=envelope.signature)
