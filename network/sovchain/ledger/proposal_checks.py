"""The checks of a proposal before it is simulated, in the order and with the texts of a peer.

Mirrors core/handlers/auth/filter, core/endorser/msgvalidation.go and endorser.go preProcess.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2
from google.protobuf.message import DecodeError, Message

from sovchain.ledger.access import AccessDeniedError, LocalAccess, check_expiry, check_timestamp, moment_of
from sovchain.ledger.chainview import ChainView
from sovchain.ledger.clock import LedgerClock, with_time
from sovchain.ledger.definitions import SYSTEM_CHAINCODES
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.registry import Registry
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.identity import Identity, parse_identity
from sovchain.protocol.policies import SignedData
from sovchain.protocol.proposals import ParsedProposal, ProposalError, parse_signed_proposal

if TYPE_CHECKING:
    from sovchain.ledger.peer import Peer

_M = TypeVar("_M", bound=Message)
_VALIDATION = "error validating proposal: "
_VALIDATION_TEXTS = (
    "invalid header type",
    "epoch is non-zero",
    "nonce is empty",
    "creator is empty",
    "incorrectly computed txid",
    "empty proposal bytes",
    "empty signature bytes",
)
"""Beginnings of the texts of a proposal that could be unpacked (msgvalidation.go Validate); they carry a prefix."""


Rule = Literal["validation", "duplicate", "access"]


class ProposalRefusedError(LedgerError):
    """A proposal is refused before simulation; the text is Fabric's.

    Attributes:
        filtered: refused by a filter in front of the endorser (expiry, clock), which a gateway cannot tell from a
            peer that does not answer.
        rule: by which rule: of its form and creator, against duplicates, or of access.
        call: the channel and the chaincode, where they were known.
    """

    def __init__(
        self, text: str, *, filtered: bool = False, rule: Rule = "validation", call: tuple[str, str] = ("", "")
    ) -> None:
        super().__init__(text)
        self.filtered = filtered
        self.rule: Rule = rule
        self.call = call


class ChannelNotFoundError(LedgerError):
    """The peer is not on the proposal's channel; the endorser answers with status 500, not with an error."""

    def __init__(self, channel_id: str) -> None:
        super().__init__(f"channel '{channel_id}' not found")
        self.channel_id = channel_id


@dataclass(frozen=True)
class CheckedProposal:
    """A proposal that may be simulated.

    Attributes:
        parsed: its content.
        signed: as the client sent it; chaincode gets it as it is.
        signed_data: what its signature covers, for policies.
        creator: who signed it.
        channel: None for a proposal without a channel.
        arguments: serialised ChaincodeInput, without decorations of the client's making.
        told: the time that chaincode is told, where it is not that of the proposal.
    """

    parsed: ParsedProposal
    signed: proposal_pb2.SignedProposal
    signed_data: SignedData
    creator: Identity
    channel: ChainView | None
    arguments: bytes
    told: datetime | None = None

    @cached_property
    def shown(self) -> proposal_pb2.SignedProposal:
        """What chaincode is shown: the proposal as it is signed, unless the ledger's time was moved."""
        return self.signed if self.told is None else with_time(self.signed, self.told)

    @property
    def is_system(self) -> bool:
        """Whether it calls a system chaincode."""
        return self.parsed.chaincode in SYSTEM_CHAINCODES


def check_proposal(signed: proposal_pb2.SignedProposal, registry: Registry, peer: Peer) -> CheckedProposal:
    """Check a proposal that a peer received.

    Raises:
        ProposalRefusedError: it is malformed, late, not signed by a valid creator, sent before, or not allowed.
        ChannelNotFoundError: the peer is not on its channel.
    """
    told = _filter(signed, registry.clock)
    try:
        parsed = parse_signed_proposal(signed)
    except ProposalError as error:
        raise _malformed(str(error), signed, registry, peer) from error
    channel = None
    if parsed.channel_id:
        channel = registry.channel_of(peer, parsed.channel_id)
        if channel is None:
            raise ChannelNotFoundError(parsed.channel_id)
    creator = _check_creator(parsed, channel, peer.local)
    checked = CheckedProposal(
        parsed,
        signed,
        SignedData(parsed.proposal_bytes, parsed.creator, parsed.signature),
        creator,
        channel,
        _arguments(parsed),
        told,
    )
    if channel is not None:
        _check_channel_rules(checked, channel, registry)
    return checked


def _malformed(text: str, signed: proposal_pb2.SignedProposal, registry: Registry, peer: Peer) -> LedgerError:
    """Return what a peer says of a malformed proposal: unpacking comes first, then the channel, then the other checks."""
    if not text.startswith(_VALIDATION_TEXTS):
        return ProposalRefusedError(text)
    channel_id = _channel_id(signed)
    if channel_id and registry.channel_of(peer, channel_id) is None:
        return ChannelNotFoundError(channel_id)
    return ProposalRefusedError(_VALIDATION + text)


def _channel_id(signed: proposal_pb2.SignedProposal) -> str:
    header = common_pb2.Header.FromString(proposal_pb2.Proposal.FromString(signed.proposal_bytes).header)
    return common_pb2.ChannelHeader.FromString(header.channel_header).channel_id


def _filter(signed: proposal_pb2.SignedProposal, clock: LedgerClock) -> datetime | None:
    """Apply the filters in front of the endorser: the creator's certificate, then the client's clock.

    Gives the time for chaincode where the ledger's was moved. Mirrors core/handlers/auth/filter/expiration.go and
    timewindow.go. Raises ProposalRefusedError.
    """
    now = clock.now()
    proposal = _parsed(proposal_pb2.Proposal, signed.proposal_bytes, "proposal")
    header = _parsed(common_pb2.Header, proposal.header, "header")
    creator = _parsed(common_pb2.SignatureHeader, header.signature_header, "signature header").creator
    try:
        check_expiry(parse_identity(creator), now)
    except ProtocolError:
        pass  # what cannot be read has no expiry; the identity is refused further on
    except AccessDeniedError as error:
        raise ProposalRefusedError(str(error), filtered=True) from error
    channel_header = _parsed(common_pb2.ChannelHeader, header.channel_header, "channel header")
    signed_at = moment_of(channel_header.timestamp)
    told = clock.ledger_time(signed_at)
    try:
        check_timestamp(told, now)
    except AccessDeniedError as error:
        raise ProposalRefusedError(str(error), filtered=True) from error
    return told if told != signed_at else None


def _parsed(kind: type[_M], encoded: bytes, what: str) -> _M:
    try:
        return kind.FromString(encoded)
    except DecodeError as error:
        raise ProposalRefusedError(
            f"failed parsing {what}: error unmarshalling {kind.DESCRIPTOR.name}: "
            "proto: cannot parse invalid wire-format data",
            filtered=True,
        ) from error


def _check_creator(parsed: ParsedProposal, channel: ChainView | None, local: LocalAccess) -> Identity:
    try:
        creator = (
            channel.bundle.msps.deserialize(parsed.creator)
            if channel is not None
            else local.deserialize(parsed.creator)
        )
    except (ProtocolError, AccessDeniedError) as error:
        raise ProposalRefusedError(
            f"{_VALIDATION}access denied: channel [{parsed.channel_id}] creator org unknown, creator is malformed"
        ) from error
    refusal = f"{_VALIDATION}access denied: channel [{parsed.channel_id}] creator org [{creator.msp_id}]"
    try:
        if channel is not None:
            channel.bundle.msps.validate(creator)
        else:
            local.validate(creator)
    except ProtocolError as error:
        raise ProposalRefusedError(refusal) from error
    if not creator.verify(parsed.proposal_bytes, parsed.signature):
        raise ProposalRefusedError(refusal)
    return creator


def _check_channel_rules(checked: CheckedProposal, channel: ChainView, registry: Registry) -> None:
    parsed = checked.parsed
    if channel.position_of(parsed.transaction_id) is not None:
        raise ProposalRefusedError(
            f"duplicate transaction found [{parsed.transaction_id}]. Creator [{parsed.creator.hex()}]",
            rule="duplicate",
            call=(parsed.channel_id, parsed.chaincode),
        )
    if checked.is_system:
        return  # a system chaincode checks access to each of its functions itself
    try:
        registry.access(channel).authorize("peer/Propose", checked.signed_data, signature_checked=True)
    except AccessDeniedError as error:
        raise ProposalRefusedError(str(error), rule="access", call=(parsed.channel_id, parsed.chaincode)) from error


def _arguments(parsed: ParsedProposal) -> bytes:
    if not parsed.input.decorations:
        return parsed.input.SerializeToString()
    arguments = chaincode_pb2.ChaincodeInput(args=parsed.input.args, is_init=parsed.input.is_init)
    return arguments.SerializeToString()
