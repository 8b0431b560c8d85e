"""Views: what the peers of one channel said about its committed state, checked on another channel or by a court.

A view is a query that peers endorsed and nobody submitted. It travels as the payload of the transaction that would have
been made of it, so that every byte that matters is bound: the response is signed by the endorsers, and holds the hash of
the proposal with its channel, chaincode and arguments (protoutil/proputils.go GetProposalHash1). Nothing is serialised
anew before it is checked.

`verify_view` trusts nobody on the way: only the roots, the policy and the chaincode that a `TrustAnchor` pins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final, TypeVar

from fabric_protos.common import common_pb2, policies_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import DecodeError, Message

from sovchain.protocol.endorsement import endorsement_data, usable_identity
from sovchain.protocol.errors import InvalidIdentity, PolicyUnsatisfied, ProtocolError
from sovchain.protocol.identity import Identity
from sovchain.protocol.msp import Msp, MspManager
from sovchain.protocol.policies import SignaturePolicy, SignedData
from sovchain.protocol.rwset import RwSet
from sovchain.protocol.strict import has_unknown_fields
from sovchain.protocol.transactions import ParsedTransaction, TransactionError, parse_transaction

__all__ = ["ENDORSEMENTS_MAX", "VIEW_MAX_BYTES", "TrustAnchor", "VerifiedView", "ViewError", "verify_view"]

VIEW_MAX_BYTES: Final = 512 * 1024
"""Largest view that is looked at."""
ENDORSEMENTS_MAX: Final = 32
"""Most endorsements of one view: each costs a signature check."""
_OK: Final = 200
_M = TypeVar("_M", bound=Message)


class ViewError(ProtocolError):
    """A view proves nothing.

    Attributes:
        code: `E_VIEW_SIZE`, `E_VIEW_FORM`, `E_VIEW_CHANNEL`, `E_VIEW_CHAINCODE`, `E_VIEW_FUNCTION`, `E_VIEW_STATUS`,
            `E_VIEW_WRITES`, `E_VIEW_IDENTITY`, `E_VIEW_SIGNATURE` or `E_VIEW_POLICY`.
        reason: why, in plain words.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class TrustAnchor:
    """What a verifier pins of a source channel.

    Args:
        channel_id: the source channel.
        chaincode: name of the chaincode whose views count.
        msps: the organisations of the source channel: roots, intermediates, node units, revoked serials.
        policy: which organisations' peers must have signed.

    Raises:
        ConfigError, MalformedError: an MSP or the policy cannot be used.
    """

    def __init__(
        self,
        channel_id: str,
        chaincode: str,
        msps: Sequence[msp_config_pb2.FabricMSPConfig],
        policy: policies_pb2.SignaturePolicyEnvelope,
    ) -> None:
        self.channel_id = channel_id
        self.chaincode = chaincode
        self.msps = MspManager([Msp.from_config(config) for config in msps])
        self.policy = SignaturePolicy(policy, self.msps)


@dataclass(frozen=True)
class VerifiedView:
    """What a view that was checked says.

    Attributes:
        arguments: of the query after the function's name.
        payload: what the chaincode answered.
        endorsers: MSP ids of the peers that signed, sorted, each once.
        transaction_id: of the query, which is in no block.
        timestamp: the clock of the client that asked, UTC. It proves nothing.
        reads: what the query read, with versions.
        digest: hex SHA-256 of the view's bytes.
    """

    arguments: tuple[bytes, ...]
    payload: bytes
    endorsers: tuple[str, ...]
    transaction_id: str
    timestamp: datetime
    reads: RwSet
    digest: str


def verify_view(view: bytes, anchor: TrustAnchor, *, function: str, at: datetime) -> VerifiedView:
    """Check that enough peers of the anchor's channel answered `function` with what the view holds.

    Each endorsement must be good: one that is not spoils the view, since whoever collected it would have left it out.

    Args:
        view: the payload of the transaction that was never submitted.
        anchor: what is pinned of the source.
        function: the function that must have been called, exactly as it was written.
        at: the time (UTC) at which the endorsers' certificates must be valid: a transaction's, never a clock's.

    Raises:
        ViewError: with the first thing that is wrong.
    """
    if len(view) > VIEW_MAX_BYTES:
        raise ViewError("E_VIEW_SIZE", f"it has {len(view)} bytes, the most is {VIEW_MAX_BYTES}")
    parsed = _parse(view)
    if parsed.channel_id != anchor.channel_id:
        raise ViewError("E_VIEW_CHANNEL", "it comes from another channel")
    if parsed.chaincode != anchor.chaincode:
        raise ViewError("E_VIEW_CHAINCODE", "another chaincode answered")
    if not parsed.args or parsed.args[0] != function.encode():
        raise ViewError("E_VIEW_FUNCTION", "another function was called")
    if parsed.response.status != _OK:
        raise ViewError("E_VIEW_STATUS", f"the answer has status {parsed.response.status}")
    if any(entry.has_writes for entry in parsed.rwset.namespaces) or parsed.event is not None:
        raise ViewError("E_VIEW_WRITES", "what was endorsed is no query: it writes")
    endorsers = _endorsers(parsed, anchor, at)
    try:
        anchor.policy.evaluate_identities(endorsers)
    except PolicyUnsatisfied as fault:
        signed = ", ".join(sorted({identity.msp_id for identity in endorsers}))
        raise ViewError("E_VIEW_POLICY", f"peers of {signed} do not suffice") from fault
    return VerifiedView(
        arguments=parsed.args[1:],
        payload=parsed.response.payload,
        endorsers=tuple(sorted({identity.msp_id for identity in endorsers})),
        transaction_id=parsed.transaction_id,
        timestamp=parsed.timestamp,
        reads=parsed.rwset,
        digest=sha256(view).hexdigest(),
    )


def _parse(view: bytes) -> ParsedTransaction:
    try:
        _strict(view)
        parsed = parse_transaction(common_pb2.Envelope(payload=view).SerializeToString())
    except (DecodeError, TransactionError) as fault:
        raise ViewError("E_VIEW_FORM", f"it is not well formed: {fault}") from fault
    if parsed.type != common_pb2.ENDORSER_TRANSACTION:
        raise ViewError("E_VIEW_FORM", "it is no endorsed query")
    if not 1 <= len(parsed.endorsements) <= ENDORSEMENTS_MAX:
        raise ViewError(
            "E_VIEW_FORM", f"it has {len(parsed.endorsements)} endorsements, 1 to {ENDORSEMENTS_MAX} are looked at"
        )
    return parsed


def _strict(view: bytes) -> None:
    """Refuse what a later or another reader could understand otherwise: fields that are not known here.

    Raises DecodeError, ViewError.
    """
    payload = _known(common_pb2.Payload, view)
    channel_header = _known(common_pb2.ChannelHeader, payload.header.channel_header)
    _known(common_pb2.SignatureHeader, payload.header.signature_header)
    _known(proposal_pb2.ChaincodeHeaderExtension, channel_header.extension)
    for action in _known(transaction_pb2.Transaction, payload.data).actions:
        if action.header != payload.header.signature_header:
            raise ViewError("E_VIEW_FORM", "its headers differ")
        body = _known(transaction_pb2.ChaincodeActionPayload, action.payload)
        question = _known(proposal_pb2.ChaincodeProposalPayload, body.chaincode_proposal_payload)
        spec = _known(chaincode_pb2.ChaincodeInvocationSpec, question.input)
        if question.TransientMap:
            raise ViewError("E_VIEW_FORM", "it carries transient data")
        answer = _known(proposal_response_pb2.ProposalResponsePayload, body.action.proposal_response_payload)
        result = _known(proposal_pb2.ChaincodeAction, answer.extension)
        if spec.chaincode_spec.chaincode_id.name != result.chaincode_id.name:
            raise ViewError("E_VIEW_CHAINCODE", "the chaincode that was asked is not the one that answered")


def _known(kind: type[_M], encoded: bytes) -> _M:
    message = kind.FromString(encoded)
    if has_unknown_fields(message):
        raise ViewError("E_VIEW_FORM", f"its {kind.DESCRIPTOR.name} has unknown fields")
    return message


def _endorsers(parsed: ParsedTransaction, anchor: TrustAnchor, at: datetime) -> list[Identity]:
    """The peers that signed. Raises ViewError unless each is one of the anchor's, valid at the time, and signed once."""
    found: list[Identity] = []
    for entry in endorsement_data(parsed):
        identity = _peer(entry, anchor, at)
        if any(identity.unique_id == other.unique_id for other in found):
            raise ViewError("E_VIEW_IDENTITY", f"a peer of {identity.msp_id} signed twice")
        if not identity.verify(entry.message, entry.signature):
            raise ViewError("E_VIEW_SIGNATURE", f"a signature of {identity.msp_id} is not good")
        found.append(identity)
    return found


def _peer(entry: SignedData, anchor: TrustAnchor, at: datetime) -> Identity:
    try:
        identity = usable_identity(entry.identity, anchor.msps)
        role = anchor.msps.msp(identity.msp_id).role(identity)
    except InvalidIdentity as fault:
        raise ViewError("E_VIEW_IDENTITY", f"an endorser is not one of the anchor's: {fault}") from fault
    if role != "peer":
        raise ViewError(
            "E_VIEW_IDENTITY", f"an endorser of {identity.msp_id} is no peer but {role or 'without a role'}"
        )
    if not identity.not_before <= at <= identity.not_after:
        raise ViewError("E_VIEW_IDENTITY", f"the certificate of a peer of {identity.msp_id} is not valid at this time")
    return identity
