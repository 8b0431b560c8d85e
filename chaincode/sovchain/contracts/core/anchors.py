"""Trust anchors: what this channel has pinned of others, by ballot, epoch after epoch."""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime
from functools import lru_cache
from typing import NoReturn

from fabric_protos.msp import msp_config_pb2, msp_principal_pb2
from google.protobuf.message import DecodeError

from sovchain.chaincode import Context
from sovchain.contracts.core import store
from sovchain.contracts.core.crossing_records import Anchor, AnchorStatement
from sovchain.contracts.core.records import format_time
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StateView, encode_record
from sovchain.protocol import policydsl
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.strict import has_unknown_fields
from sovchain.protocol.views import TrustAnchor

_ROLE = msp_principal_pb2.MSPPrincipal.ROLE


def epoch_key(epoch: int) -> str:
    """The component of a key that stands for an epoch: text order is number order."""
    return f"{epoch:04d}"


async def newest(view: StateView, channel: str) -> Anchor | None:
    """The anchor of a channel's newest epoch, None when there is none."""
    found = await store.scan(view, Anchor, store.ANCHOR, channel)
    return found[-1] if found else None


async def require_newest(view: StateView, channel: str) -> Anchor:
    """The same. Raises E_NO_ANCHOR."""
    found = await newest(view, channel)
    if found is None:
        raise refusal(
            "E_NO_ANCHOR",
            f"nothing is pinned of channel {channel}",
            "no ballot has adopted an anchor",
            "propose one",
            channel=channel,
        )
    return found


async def in_force(view: StateView, channel: str, at: datetime) -> Anchor:
    """The newest anchor of a channel, if `at` lies in its time. An older epoch never counts again. Raises E_NO_ANCHOR."""
    found = await require_newest(view, channel)
    statement = found.statement
    if not statement.valid_from <= at < statement.valid_to:
        raise refusal(
            "E_NO_ANCHOR",
            f"the anchor of channel {channel} is not in force",
            f"epoch {statement.epoch} counts from {format_time(statement.valid_from)} to {format_time(statement.valid_to)}",
            "adopt the next epoch",
            channel=channel,
        )
    return found


async def adopt(ctx: Context, statement: AnchorStatement, ballot: str) -> None:
    """Put a statement that a ballot passed into force."""
    adopted = Anchor(
        statement=statement,
        statement_hash=hashlib.sha256(encode_record(statement)).hexdigest(),
        ballot=ballot,
        adopted_at=ctx.timestamp,
    )
    await store.write(ctx, adopted, store.ANCHOR, statement.channel, epoch_key(statement.epoch))


def check(statement: AnchorStatement, before: Anchor | None, at: datetime) -> None:
    """Refuse a statement that cannot be relied on. Raises E_ANCHOR.

    Each principal of its policy is the peers of one of its organisations, and no organisation satisfies it alone.
    """
    expected = before.statement.epoch + 1 if before else 1
    if statement.epoch != expected:
        _refuse(f"its epoch is {statement.epoch}, the next is {expected}")
    if not statement.valid_from < statement.valid_to or statement.valid_to <= at:
        _refuse("it counts at no time to come")
    try:
        anchor = trust(statement)
    except ProtocolError as fault:
        _refuse(str(fault))
    for principal in anchor.policy.envelope.identities:
        role = msp_principal_pb2.MSPRole.FromString(principal.principal)
        if principal.principal_classification != _ROLE or role.role != msp_principal_pb2.MSPRole.PEER:
            _refuse("its policy counts others than peers")
        if role.msp_identifier not in anchor.msps.msp_ids:
            _refuse(f"its policy names {role.msp_identifier}, of which nothing is pinned")
    alone = sorted(name for names in anchor.policy.satisfying_organisations() if len(names) < 2 for name in names)
    if alone or not anchor.policy.satisfying_organisations():
        _refuse(f"{alone[0]} alone would satisfy its policy" if alone else "nobody could satisfy its policy")


def trust(statement: AnchorStatement) -> TrustAnchor:
    """What a view is checked against. Raises ProtocolError."""
    return _trust(encode_record(statement))


@lru_cache(maxsize=32)
def _trust(encoded: bytes) -> TrustAnchor:
    # Equal statements give equal answers, so that it is enough to parse their certificates once.
    statement = AnchorStatement.model_validate_json(encoded)
    configs = [_config(encoded) for encoded in statement.msps]
    names = [config.name for config in configs]
    if len(set(names)) != len(names):
        raise ProtocolError("it pins an organisation twice")
    return TrustAnchor(statement.channel, statement.chaincode, configs, policydsl.parse(statement.policy))


def _config(encoded: str) -> msp_config_pb2.FabricMSPConfig:
    try:
        config = msp_config_pb2.FabricMSPConfig.FromString(base64.b64decode(encoded, validate=True))
    except (binascii.Error, DecodeError):
        raise ProtocolError("an organisation's MSP cannot be decoded") from None
    if has_unknown_fields(config):
        raise ProtocolError("an organisation's MSP has unknown fields")
    if not config.fabric_node_ous.enable:
        raise ProtocolError(f"the MSP of {config.name} does not tell peers from others")
    return config


def _refuse(why: str) -> NoReturn:
    raise refusal("E_ANCHOR", "the statement cannot be relied on", why, "correct it and propose it again")
