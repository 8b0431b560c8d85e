"""Validation, pass 1: form, identities, signatures, duplicate ids and endorsement policies.

Mirrors core/committer/txvalidator/v20/validator.go and core/common/validation/msgvalidation.go. What Fabric does for
all transactions of a block in parallel is done here in their order; the codes come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.peer import transaction_pb2
from google.protobuf.message import DecodeError

from sovchain.protocol import channelconfig
from sovchain.protocol.configupdate import validate_config
from sovchain.protocol.endorsement import EndorsementError, EndorsementValidator, usable_identity
from sovchain.protocol.errors import InvalidIdentity, ProtocolError
from sovchain.protocol.transactions import (
    EnvelopeHeader,
    ParsedTransaction,
    TransactionError,
    check_header,
    parse_body,
    parse_envelope_header,
)
from sovchain.protocol.worldstate import StateReader

if TYPE_CHECKING:
    from sovchain.protocol.channelconfig import ChannelBundle

__all__ = ["Judgement", "validate_transactions"]

_CODES = transaction_pb2.TxValidationCode
_BEFORE_DUPLICATES = frozenset(
    {
        _CODES.BAD_PROPOSAL_TXID,
        _CODES.INVALID_ENDORSER_TRANSACTION,
        _CODES.INVALID_CONFIG_TRANSACTION,
        _CODES.UNSUPPORTED_TX_PAYLOAD,
    }
)


@dataclass(slots=True)
class Judgement:
    """What pass 1 finds about one transaction.

    Attributes:
        code: The TxValidationCode.
        reason: Why it is invalid, in plain words; "" if it is valid.
        header: The outer layer; None if it cannot be parsed.
        transaction: All of it; None if it is not well formed.
        bundle: The new channel configuration, if this is a valid configuration transaction.
    """

    code: int = _CODES.VALID
    reason: str = ""
    header: EnvelopeHeader | None = None
    transaction: ParsedTransaction | None = None
    bundle: ChannelBundle | None = None

    def refuse(self, code: int, reason: str) -> None:
        """Note why the transaction is invalid; the first reason stands."""
        if self.code == _CODES.VALID:
            self.code, self.reason = code, reason


def validate_transactions(
    envelopes: Sequence[bytes],
    bundle: ChannelBundle,
    state: StateReader,
    *,
    transaction_exists: Callable[[str], bool],
    is_genesis: bool = False,
) -> list[Judgement]:
    """Judge the transactions of a block one by one, before any conflict between them is looked at.

    Args:
        envelopes: The block's data.
        bundle: The channel configuration before the block (for block 0: the one it carries).
        state: The committed state before the block.
        transaction_exists: Whether a transaction id is on the ledger, valid or not.
        is_genesis: Whether this is block 0, whose configuration nobody signs.
    """
    endorsements = EndorsementValidator(bundle, state)
    judgements = [
        _judge(position, encoded, bundle, endorsements, transaction_exists, is_genesis)
        for position, encoded in enumerate(envelopes)
    ]
    _mark_duplicates(judgements)
    return judgements


def _judge(
    position: int,
    encoded: bytes,
    bundle: ChannelBundle,
    endorsements: EndorsementValidator,
    transaction_exists: Callable[[str], bool],
    is_genesis: bool,
) -> Judgement:
    judgement = Judgement()
    try:
        header = judgement.header = parse_envelope_header(encoded)
        check_header(header, is_genesis=is_genesis)
        if not is_genesis:
            fault = _creator_fault(header, bundle)
            if fault:
                judgement.refuse(_CODES.BAD_CREATOR_SIGNATURE, fault)
        _parse(judgement, header, transaction_exists)
        if judgement.code != _CODES.VALID or judgement.transaction is None:
            return judgement
        if judgement.transaction.is_config:
            _judge_config(judgement, judgement.transaction, bundle, is_genesis)
        elif is_genesis:
            judgement.refuse(_CODES.UNSUPPORTED_TX_PAYLOAD, "block 0 may carry only the channel configuration")
        else:
            endorsements.validate(position, judgement.transaction)
    except (TransactionError, EndorsementError) as failure:
        judgement.refuse(failure.code, failure.reason)
    return judgement


def _parse(judgement: Judgement, header: EnvelopeHeader, transaction_exists: Callable[[str], bool]) -> None:
    """Parse the body even if the signature is bad already, so that readers see what was refused."""
    failure: TransactionError | None = None
    try:
        judgement.transaction = parse_body(header)
    except TransactionError as fault:
        failure = fault
        if fault.code in _BEFORE_DUPLICATES:
            judgement.refuse(fault.code, fault.reason)
    is_endorser = header.type == common_pb2.ENDORSER_TRANSACTION
    if judgement.code == _CODES.VALID and is_endorser and transaction_exists(header.transaction_id):
        judgement.refuse(_CODES.DUPLICATE_TXID, "a transaction with this id is already on the ledger")
    if failure is not None:
        judgement.refuse(failure.code, failure.reason)


def _creator_fault(header: EnvelopeHeader, bundle: ChannelBundle) -> str:
    """Return why the creator's signature does not count; "" if it does (checkSignatureFromCreator)."""
    if header.channel_id != bundle.channel_id:
        # A peer looks the creator up in the MSPs of the channel that the header names; those are not ours.
        return f"the transaction is for channel '{header.channel_id}', not '{bundle.channel_id}'"
    if not header.signature:
        return "the envelope is not signed"
    try:
        identity = usable_identity(header.creator, bundle.msps)
        bundle.msps.validate(identity)
        is_good = identity.verify(header.payload, header.signature)
    except InvalidIdentity as fault:
        return f"the creator is not a valid identity of this channel: {fault}"
    return "" if is_good else f"the creator's signature ({identity.msp_id}) is not good"


def _judge_config(
    judgement: Judgement, transaction: ParsedTransaction, bundle: ChannelBundle, is_genesis: bool
) -> None:
    code = _CODES.INVALID_CONFIG_TRANSACTION
    try:
        envelope = configtx_pb2.ConfigEnvelope.FromString(transaction.data)
        if is_genesis:
            judgement.bundle = channelconfig.ChannelBundle.from_config(transaction.channel_id, envelope.config)
        else:
            judgement.bundle = validate_config(envelope, bundle)
    except DecodeError:
        judgement.refuse(code, "the configuration cannot be decoded")
    except ProtocolError as fault:
        judgement.refuse(code, f"the configuration cannot be used: {fault}")


def _mark_duplicates(judgements: Sequence[Judgement]) -> None:
    """Only the first valid one of several with the same id stands; an invalid one does not take the id away."""
    first: dict[str, int] = {}
    for position, judgement in enumerate(judgements):
        transaction = judgement.transaction
        if judgement.code != _CODES.VALID or transaction is None or transaction.is_config:
            continue
        earlier = first.setdefault(transaction.transaction_id, position)
        if earlier != position:
            judgement.refuse(_CODES.DUPLICATE_TXID, f"transaction {earlier} of this block has the same id")
