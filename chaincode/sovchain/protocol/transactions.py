"""Transactions: assembling envelopes from endorsements, and parsing what a block carries.

General layout: :func:`assemble_envelope` is the client's side; :func:`parse_envelope_header` reads the outer layer of
any envelope; :func:`parse_transaction` checks everything but identities and signatures, in Fabric's order.
Mirrors internal/pkg/gateway/submit.go (assembly), core/common/validation/msgvalidation.go and
core/committer/txvalidator/v20/plugindispatcher/dispatcher.go (checks and their codes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fabric_protos.common import common_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from google.protobuf.message import DecodeError

from sovchain.protocol.errors import MalformedError, ProtocolError
from sovchain.protocol.proposals import proposal_hash, strip_transient, timestamp_to_datetime, transaction_id
from sovchain.protocol.rwset import RwSet, parse_rwset

__all__ = [
    "EnvelopeHeader",
    "ParsedTransaction",
    "TransactionError",
    "assemble_envelope",
    "check_header",
    "indexed_transaction_id",
    "parse_body",
    "parse_envelope_header",
    "parse_transaction",
]

_CODES = transaction_pb2.TxValidationCode
_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_NO_RESPONSE = proposal_response_pb2.Response()
_NO_RWSET = RwSet()


class TransactionError(ProtocolError):
    """A transaction is not well formed.

    Attributes:
        code: The TxValidationCode that Fabric gives it.
        reason: Why, in plain words.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class EnvelopeHeader:
    """The outer layer of an envelope, parsed: enough for filtered blocks, indexes and signature checks.

    Attributes:
        channel_id: As written in the channel header; not checked.
        transaction_id: As written in the channel header; not checked.
        type: The HeaderType number.
        epoch: Always 0 in a valid transaction.
        creator: Serialised identity of the signer.
        nonce: Its random bytes.
        timestamp: The client's clock in UTC; the epoch if missing or out of range (Fabric does not look at it here).
        extension: Marshalled ChaincodeHeaderExtension of an endorser transaction.
        channel_header: The bytes of the channel header.
        signature_header: The bytes of the signature header.
        payload: The bytes that `signature` covers.
        data: The payload's data: a marshalled Transaction or ConfigEnvelope.
        signature: The creator's signature.
    """

    channel_id: str
    transaction_id: str
    type: int
    epoch: int
    creator: bytes
    nonce: bytes
    timestamp: datetime
    extension: bytes
    channel_header: bytes
    signature_header: bytes
    payload: bytes
    data: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class ParsedTransaction:
    """A well-formed transaction; whether it is valid is another question.

    For a CONFIG transaction only the header fields, `payload`, `data` and `signature` are filled.

    Attributes:
        channel_id: The channel that it was made for.
        transaction_id: The hash of nonce and creator (for CONFIG: whatever the orderer wrote).
        type: HeaderType number: ENDORSER_TRANSACTION or CONFIG.
        creator: Serialised identity of the client that signed.
        nonce: Its random bytes.
        timestamp: The client's clock in UTC.
        chaincode: Name of the invoked chaincode.
        chaincode_version: Version of the definition under which it was endorsed.
        args: The arguments, as the client sent them; empty if the recorded input cannot be decoded.
        response: What the chaincode answered.
        event: The chaincode event, if any.
        rwset: What was read and written.
        endorsements: Endorsers and their signatures over `response_payload` + endorser.
        response_payload: The bytes that the endorsers signed.
        payload: The bytes that the creator signed.
        signature: The creator's signature.
        data: The marshalled Transaction or ConfigEnvelope.
    """

    channel_id: str
    transaction_id: str
    type: int
    creator: bytes
    nonce: bytes
    timestamp: datetime
    chaincode: str
    chaincode_version: str
    args: tuple[bytes, ...]
    response: proposal_response_pb2.Response
    event: chaincode_event_pb2.ChaincodeEvent | None
    rwset: RwSet
    endorsements: tuple[proposal_response_pb2.Endorsement, ...]
    response_payload: bytes
    payload: bytes
    signature: bytes
    data: bytes

    @property
    def is_config(self) -> bool:
        """Whether this carries a channel configuration."""
        return self.type == common_pb2.CONFIG


def assemble_envelope(
    proposal_bytes: bytes, payload: bytes, endorsements: Sequence[proposal_response_pb2.Endorsement]
) -> common_pb2.Envelope:
    """Return the unsigned envelope of a transaction: the proposal's header byte for byte, transient map removed.

    Args:
        proposal_bytes: The proposal that was endorsed.
        payload: The ProposalResponsePayload that all endorsers signed.
        endorsements: At least one; a second one of the same endorser is dropped.

    Raises:
        MalformedError: If the proposal cannot be decoded or there is no endorsement.
    """
    unique: dict[bytes, proposal_response_pb2.Endorsement] = {}
    for endorsement in endorsements:
        unique.setdefault(endorsement.endorser, endorsement)
    if not unique:
        raise MalformedError("no endorsements: a transaction needs at least one")
    try:
        proposal = proposal_pb2.Proposal.FromString(proposal_bytes)
        header = common_pb2.Header.FromString(proposal.header)
        proposal_payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
    except DecodeError as fault:
        raise MalformedError(f"the endorsed proposal cannot be decoded: {fault}") from fault
    action_payload = transaction_pb2.ChaincodeActionPayload(
        chaincode_proposal_payload=strip_transient(proposal_payload),
        action=transaction_pb2.ChaincodeEndorsedAction(proposal_response_payload=payload, endorsements=unique.values()),
    )
    action = transaction_pb2.TransactionAction(
        header=header.signature_header, payload=action_payload.SerializeToString()
    )
    transaction = transaction_pb2.Transaction(actions=[action])
    outer = common_pb2.Payload(header=header, data=transaction.SerializeToString())
    return common_pb2.Envelope(payload=outer.SerializeToString())


def parse_envelope_header(envelope_bytes: bytes) -> EnvelopeHeader:
    """Parse the outer layer of an envelope without judging its content.

    Raises:
        TransactionError: INVALID_OTHER_REASON, BAD_PAYLOAD or BAD_COMMON_HEADER if a layer cannot be decoded.
    """
    code = _CODES.INVALID_OTHER_REASON
    try:
        envelope = common_pb2.Envelope.FromString(envelope_bytes)
        code = _CODES.BAD_PAYLOAD
        payload = common_pb2.Payload.FromString(envelope.payload)
        code = _CODES.BAD_COMMON_HEADER
        if not payload.HasField("header"):
            raise TransactionError(code, "the payload has no header")
        header = payload.header
        channel_header = common_pb2.ChannelHeader.FromString(header.channel_header)
        signature_header = common_pb2.SignatureHeader.FromString(header.signature_header)
    except DecodeError as fault:
        layer = {_CODES.INVALID_OTHER_REASON: "envelope", _CODES.BAD_PAYLOAD: "payload"}.get(code, "header")
        raise TransactionError(code, f"the {layer} cannot be decoded") from fault
    try:
        timestamp = timestamp_to_datetime(channel_header.timestamp)
    except MalformedError:
        timestamp = _UNKNOWN_TIME  # Fabric's committer does not look at it, so neither may we refuse it
    return EnvelopeHeader(
        channel_id=channel_header.channel_id,
        transaction_id=channel_header.tx_id,
        type=channel_header.type,
        epoch=channel_header.epoch,
        creator=signature_header.creator,
        nonce=signature_header.nonce,
        timestamp=timestamp,
        extension=channel_header.extension,
        channel_header=header.channel_header,
        signature_header=header.signature_header,
        payload=envelope.payload,
        data=payload.data,
        signature=envelope.signature,
    )


def indexed_transaction_id(envelope_bytes: bytes) -> str:
    """Return the id under which a block's index has a transaction, well formed or not; "" if it has none.

    Where the header carries no id, it is computed (protoutil/txutils.go GetOrComputeTxIDFromEnvelope).
    """
    try:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope_bytes).payload)
        if not payload.HasField("header"):
            return ""
        written = common_pb2.ChannelHeader.FromString(payload.header.channel_header).tx_id
        if written:
            return written
        signature_header = common_pb2.SignatureHeader.FromString(payload.header.signature_header)
    except DecodeError:
        return ""
    return transaction_id(signature_header.nonce, signature_header.creator)


def check_header(header: EnvelopeHeader, *, is_genesis: bool = False) -> None:
    """Check type, epoch, nonce and creator. Raises TransactionError with BAD_COMMON_HEADER.

    Nobody creates the configuration in block 0, so it has no creator (common/genesis/genesis.go).
    """
    code = _CODES.BAD_COMMON_HEADER
    if header.type not in (common_pb2.ENDORSER_TRANSACTION, common_pb2.CONFIG_UPDATE, common_pb2.CONFIG):
        raise TransactionError(code, f"header type {header.type} does not belong in a block")
    if header.epoch != 0:
        raise TransactionError(code, f"epoch is {header.epoch}, expected 0")
    if not header.nonce:
        raise TransactionError(code, "the signature header has no nonce")
    if not header.creator and not is_genesis:
        raise TransactionError(code, "the signature header has no creator")


def parse_transaction(envelope_bytes: bytes) -> ParsedTransaction:
    """Parse and check a transaction completely, except for identities, signatures and policies.

    Raises:
        TransactionError: With the code of the first check that failed, in Fabric's order.
    """
    header = parse_envelope_header(envelope_bytes)
    check_header(header)
    return parse_body(header)


def parse_body(header: EnvelopeHeader) -> ParsedTransaction:
    """Parse and check what follows the checks of the header and of the creator's signature.

    Raises:
        TransactionError: BAD_PROPOSAL_TXID, INVALID_ENDORSER_TRANSACTION, INVALID_CONFIG_TRANSACTION or
            UNSUPPORTED_TX_PAYLOAD, which come before Fabric's check for a duplicate id; then BAD_HEADER_EXTENSION,
            BAD_RESPONSE_PAYLOAD, BAD_RWSET, INVALID_CHAINCODE, ILLEGAL_WRITESET or INVALID_OTHER_REASON after it.
    """
    if header.type == common_pb2.ENDORSER_TRANSACTION:
        return _parse_endorser(header)
    if header.type != common_pb2.CONFIG:
        raise TransactionError(_CODES.UNSUPPORTED_TX_PAYLOAD, "a configuration update has no place in a block")
    if not header.data:
        raise TransactionError(_CODES.INVALID_CONFIG_TRANSACTION, "the configuration transaction is empty")
    return ParsedTransaction(
        channel_id=header.channel_id,
        transaction_id=header.transaction_id,
        type=header.type,
        creator=header.creator,
        nonce=header.nonce,
        timestamp=header.timestamp,
        chaincode="",
        chaincode_version="",
        args=(),
        response=_NO_RESPONSE,
        event=None,
        rwset=_NO_RWSET,
        endorsements=(),
        response_payload=b"",
        payload=header.payload,
        signature=header.signature,
        data=header.data,
    )


def _parse_endorser(header: EnvelopeHeader) -> ParsedTransaction:
    expected = transaction_id(header.nonce, header.creator)
    if header.transaction_id != expected:
        raise TransactionError(
            _CODES.BAD_PROPOSAL_TXID, f"transaction id is not the hash of nonce and creator, which is {expected}"
        )
    action_payload, response = _parse_action(header)
    code = _CODES.BAD_HEADER_EXTENSION
    try:
        extension = proposal_pb2.ChaincodeHeaderExtension.FromString(header.extension)
        code = _CODES.BAD_RESPONSE_PAYLOAD
        if not response.extension:
            raise TransactionError(code, "the response payload carries no chaincode action")
        action = proposal_pb2.ChaincodeAction.FromString(response.extension)
        code = _CODES.BAD_RWSET
        rwset = parse_rwset(action.results)
    except (DecodeError, MalformedError) as fault:
        raise TransactionError(code, f"cannot be decoded: {fault}") from fault
    _check_chaincode(extension, action)
    event = _parse_event(action.events, extension.chaincode_id.name)
    seen: set[str] = set()
    for entry in rwset.namespaces:
        if entry.namespace in seen:
            raise TransactionError(
                _CODES.ILLEGAL_WRITESET, f"namespace '{entry.namespace}' occurs twice in the read-write set"
            )
        seen.add(entry.namespace)
    return ParsedTransaction(
        channel_id=header.channel_id,
        transaction_id=header.transaction_id,
        type=header.type,
        creator=header.creator,
        nonce=header.nonce,
        timestamp=header.timestamp,
        chaincode=action.chaincode_id.name,
        chaincode_version=action.chaincode_id.version,
        args=_parse_args(action_payload.chaincode_proposal_payload),
        response=action.response,
        event=event,
        rwset=rwset,
        endorsements=tuple(action_payload.action.endorsements),
        response_payload=action_payload.action.proposal_response_payload,
        payload=header.payload,
        signature=header.signature,
        data=header.data,
    )


def _parse_action(
    header: EnvelopeHeader,
) -> tuple[transaction_pb2.ChaincodeActionPayload, proposal_response_pb2.ProposalResponsePayload]:
    """Check the one action and that it belongs to this proposal (validateEndorserTransaction)."""
    code = _CODES.INVALID_ENDORSER_TRANSACTION
    try:
        actions = transaction_pb2.Transaction.FromString(header.data).actions
        if len(actions) != 1:
            raise TransactionError(code, f"only one action per transaction is supported, tx contains {len(actions)}")
        action_header = common_pb2.SignatureHeader.FromString(actions[0].header)
        if not action_header.nonce or not action_header.creator:
            raise TransactionError(code, "the action's signature header has no nonce or no creator")
        action_payload = transaction_pb2.ChaincodeActionPayload.FromString(actions[0].payload)
        response = proposal_response_pb2.ProposalResponsePayload.FromString(
            action_payload.action.proposal_response_payload
        )
    except DecodeError as fault:
        raise TransactionError(code, f"the action cannot be decoded: {fault}") from fault
    visible = action_payload.chaincode_proposal_payload
    if not visible:
        raise TransactionError(code, "the action carries no chaincode proposal payload")
    if response.proposal_hash != proposal_hash(header.channel_header, actions[0].header, visible):
        raise TransactionError(code, "proposal hash does not match")
    return action_payload, response


def _check_chaincode(extension: proposal_pb2.ChaincodeHeaderExtension, action: proposal_pb2.ChaincodeAction) -> None:
    if not extension.HasField("chaincode_id"):
        raise TransactionError(_CODES.INVALID_OTHER_REASON, "nil ChaincodeId in header extension")
    if not action.HasField("chaincode_id"):
        raise TransactionError(_CODES.INVALID_OTHER_REASON, "nil ChaincodeId in ChaincodeAction")
    invoked, endorsed = extension.chaincode_id.name, action.chaincode_id.name
    if not invoked:
        raise TransactionError(_CODES.INVALID_CHAINCODE, "the header names no chaincode")
    if invoked != endorsed:
        raise TransactionError(_CODES.INVALID_CHAINCODE, f"inconsistent ccid info ({invoked}/{endorsed})")
    if not action.chaincode_id.version:
        raise TransactionError(_CODES.INVALID_CHAINCODE, "the action names no chaincode version")


def _parse_event(encoded: bytes, chaincode: str) -> chaincode_event_pb2.ChaincodeEvent | None:
    if not encoded:
        return None
    try:
        event = chaincode_event_pb2.ChaincodeEvent.FromString(encoded)
    except DecodeError as fault:
        raise TransactionError(_CODES.INVALID_OTHER_REASON, "the chaincode event cannot be decoded") from fault
    if event.chaincode_id != chaincode:
        raise TransactionError(
            _CODES.INVALID_OTHER_REASON, f"the event is of chaincode '{event.chaincode_id}', not '{chaincode}'"
        )
    return event


def _parse_args(visible_payload: bytes) -> tuple[bytes, ...]:
    try:
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(visible_payload)
        spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input)
    except DecodeError:
        return ()  # Fabric's committer does not read the input, so that an undecodable one does not invalidate
    return tuple(spec.chaincode_spec.input.args)
