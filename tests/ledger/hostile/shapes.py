"""Requests taken apart: which bytes hold which message, so that a spoilt request can be signed and reach what is behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from fabric_protos.common import common_pb2, configtx_pb2, policies_pb2
from fabric_protos.discovery import protocol_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.msp import identities_pb2, msp_principal_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    chaincode_shim_pb2,
    policy_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from fabric_protos.peer.lifecycle import lifecycle_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

INNER: Final[dict[tuple[str, str], tuple[type[Message], ...]]] = {
    ("SignedProposal", "proposal_bytes"): (proposal_pb2.Proposal,),
    ("Proposal", "header"): (common_pb2.Header,),
    ("Proposal", "payload"): (proposal_pb2.ChaincodeProposalPayload,),
    ("Header", "channel_header"): (common_pb2.ChannelHeader,),
    ("Header", "signature_header"): (common_pb2.SignatureHeader,),
    ("ChannelHeader", "extension"): (proposal_pb2.ChaincodeHeaderExtension,),
    ("SignatureHeader", "creator"): (identities_pb2.SerializedIdentity,),
    ("ChaincodeProposalPayload", "input"): (chaincode_pb2.ChaincodeInvocationSpec,),
    ("ChaincodeInput", "args"): (
        lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs,
        lifecycle_pb2.CommitChaincodeDefinitionArgs,
        lifecycle_pb2.CheckCommitReadinessArgs,
        lifecycle_pb2.InstallChaincodeArgs,
        common_pb2.Block,
    ),
    ("ApproveChaincodeDefinitionForMyOrgArgs", "validation_parameter"): (policy_pb2.ApplicationPolicy,),
    ("CommitChaincodeDefinitionArgs", "validation_parameter"): (policy_pb2.ApplicationPolicy,),
    ("MSPPrincipal", "principal"): (
        msp_principal_pb2.MSPRole,
        msp_principal_pb2.CombinedPrincipal,
        msp_principal_pb2.OrganizationUnit,
    ),
    ("Envelope", "payload"): (common_pb2.Payload,),
    ("Payload", "data"): (
        transaction_pb2.Transaction,
        configtx_pb2.ConfigUpdateEnvelope,
        configtx_pb2.ConfigEnvelope,
        ab_pb2.SeekInfo,
    ),
    ("TransactionAction", "header"): (common_pb2.SignatureHeader,),
    ("TransactionAction", "payload"): (transaction_pb2.ChaincodeActionPayload,),
    ("ChaincodeActionPayload", "chaincode_proposal_payload"): (proposal_pb2.ChaincodeProposalPayload,),
    ("ChaincodeEndorsedAction", "proposal_response_payload"): (proposal_response_pb2.ProposalResponsePayload,),
    ("Endorsement", "endorser"): (identities_pb2.SerializedIdentity,),
    ("ProposalResponsePayload", "extension"): (proposal_pb2.ChaincodeAction,),
    ("ChaincodeAction", "results"): (rwset_pb2.TxReadWriteSet,),
    ("ChaincodeAction", "events"): (chaincode_event_pb2.ChaincodeEvent,),
    ("NsReadWriteSet", "rwset"): (kv_rwset_pb2.KVRWSet,),
    ("CollectionHashedReadWriteSet", "hashed_rwset"): (kv_rwset_pb2.HashedRWSet,),
    ("ConfigUpdateEnvelope", "config_update"): (configtx_pb2.ConfigUpdate,),
    ("ConfigSignature", "signature_header"): (common_pb2.SignatureHeader,),
    ("ConfigPolicy", "value"): (policies_pb2.SignaturePolicyEnvelope, policies_pb2.ImplicitMetaPolicy),
    ("SignedCommitStatusRequest", "request"): (gateway_pb2.CommitStatusRequest,),
    ("SignedChaincodeEventsRequest", "request"): (gateway_pb2.ChaincodeEventsRequest,),
    ("SignedRequest", "payload"): (protocol_pb2.Request,),
    ("ChaincodeMessage", "payload"): (
        chaincode_shim_pb2.GetState,
        chaincode_shim_pb2.PutState,
        chaincode_shim_pb2.PutStateMetadata,
        chaincode_shim_pb2.GetStateByRange,
        chaincode_shim_pb2.QueryStateNext,
        chaincode_shim_pb2.WriteBatchState,
        chaincode_shim_pb2.GetStateMultiple,
        chaincode_pb2.ChaincodeSpec,
        proposal_response_pb2.Response,
    ),
}
"""Type of the message in a field of bytes, by the message and the field; where there are several, the first that fits."""

NUMBERS: Final = (0, 1, -1, 2, 7, 99, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
TEXTS: Final = (
    "",
    "x",
    "\x00",
    "cc",
    "_lifecycle",
    "lscc",
    "testchannel",
    "nowhere",
    "\U0010ffff",
    "a/b",
    "../x",
    "ü" * 300,
)
DEPTH_MAX: Final = 3_000
_INTEGERS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def spoil(message: Message, chance: random.Random) -> None:
    """Change one thing somewhere in a message, or in a message that its bytes hold."""
    fields = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    present = [field for field, _ in message.ListFields()]
    field = chance.choice(present if present and chance.random() < 0.85 else fields)
    if _is_repeated(field) and chance.random() < 0.25:
        _spoil_length(message, field, chance)
    elif field.message_type is not None:
        _spoil_message(message, field, chance)
    elif chance.random() < 0.15:
        message.ClearField(field.name)
    else:
        _set(message, field, lambda value: _scalar(message, field, value, chance))


def bomb(depth: int) -> bytes:
    """A SignaturePolicyEnvelope that is nested this deep, encoded by hand: libraries refuse to make it."""
    rule = b"\x08\x00"
    for _ in range(depth):
        rule = b"\x12" + _varint(len(rule) + len(_varint(len(rule))) + 3) + b"\x08\x01\x12" + _varint(len(rule)) + rule
    return b"\x12" + _varint(len(rule)) + rule


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _spoil_length(message: Message, field: FieldDescriptor, chance: random.Random) -> None:
    several: Any = getattr(message, field.name)
    if _is_map(field):
        keys = list(several)
        if keys:
            del several[chance.choice(keys)]
        return
    if not several or chance.random() < 0.4:
        if field.message_type is not None:
            several.add()
        elif field.type == FieldDescriptor.TYPE_BYTES:
            several.append(chance.choice([b"", b"x", b"\xff" * 40]))
        return
    kept = list(several)
    if chance.random() < 0.5:
        del several[chance.randrange(len(kept))]
    else:
        several.extend([chance.choice(kept)] * chance.choice([1, 2, 60]))


def _spoil_message(message: Message, field: FieldDescriptor, chance: random.Random) -> None:
    if _is_map(field):
        several: Any = getattr(message, field.name)
        keys = list(several)
        if keys and field.message_type.fields_by_name["value"].message_type is not None:
            spoil(several[chance.choice(keys)], chance)
        return
    if _is_repeated(field):
        parts: Any = getattr(message, field.name)
        if parts:
            spoil(chance.choice(list(parts)), chance)
        return
    if chance.random() < 0.15:
        message.ClearField(field.name)
        if chance.random() < 0.5:
            getattr(message, field.name).SetInParent()
        return
    spoil(getattr(message, field.name), chance)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _set(message: Message, field: FieldDescriptor, change: Callable[[Any], Any]) -> None:
    value: Any = getattr(message, field.name)
    if not _is_repeated(field):
        setattr(message, field.name, change(value))
    elif value:
        place = random.Random(len(value)).randrange(len(value))
        value[place] = change(value[place])


def _scalar(message: Message, field: FieldDescriptor, value: Any, chance: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _spoilt_bytes(message.DESCRIPTOR.name, field.name, value, chance)
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(TEXTS)
    if field.cpp_type in _INTEGERS:
        low, high = _INTEGERS[field.cpp_type]
        return chance.choice([number for number in NUMBERS if low <= number <= high])
    if field.type == FieldDescriptor.TYPE_ENUM:
        return chance.choice([0, 1, 2, 3, 17, 99, -1])
    return not value if field.type == FieldDescriptor.TYPE_BOOL else value


def _spoilt_bytes(name: str, field: str, value: bytes, chance: random.Random) -> bytes:
    if value and chance.random() < 0.8:
        for kind in INNER.get((name, field), ()):
            try:
                inner = kind.FromString(value)
            except DecodeError:
                continue
            if inner.ByteSize() == len(value):
                spoil(inner, chance)
                return inner.SerializeToString()
    return torn(value, chance)


def torn(value: bytes, chance: random.Random) -> bytes:
    """Bytes with a few of them changed, lost or added, or other ones altogether."""
    kind = chance.randrange(8)
    if kind == 0 or not value:
        return chance.choice(
            [b"", b"\x00", b"\xff" * 11, b"\x0a\x05abc", bomb(chance.choice([50, 99, 101, DEPTH_MAX]))]
        )
    if kind == 1:
        return value[: chance.randrange(len(value))]
    if kind == 2:
        return value + value[: chance.randrange(len(value)) + 1]
    changed = bytearray(value)
    for _ in range(chance.choice([1, 1, 2, 8])):
        place = chance.randrange(len(changed))
        if kind < 5:
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == 5:
            changed[place] = chance.choice([0, 0x7F, 0x80, 0xFF])
        elif kind == 6:
            changed[place:place] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 9)))
        elif len(changed) > 1:
            del changed[place]
    return bytes(changed)


def _is_repeated(field: FieldDescriptor) -> bool:
    return field.label == FieldDescriptor.LABEL_REPEATED
