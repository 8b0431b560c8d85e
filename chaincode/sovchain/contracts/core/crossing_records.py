"""What crosses between channels, and what each side keeps of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from sovchain.contracts.core.records import Hex32, MspId, Record, ShortText, Timestamp, Word

VIEW_TAG: Final = "SOVLEDGER-VIEW-v1"
"""First word of everything that one channel says to another, so that no other query's answer can pass for it."""
CONTENT_MAX_CHARACTERS = 128 * 1024
"""Longest content of a record that crosses: both ledgers keep it."""
MSPS_MAX = 32

ChannelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9.-]{0,248}$")]
NetworkName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,62}$")]
ChaincodeName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*$", max_length=100)]
MspConfig = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{4,65532}={0,2}$")]
"""A FabricMSPConfig as the channel's configuration holds it, in base64."""
RecordId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
Epoch = Annotated[int, Field(ge=1, le=9999)]
Action = Literal["share", "move"]


class AnchorStatement(Record):
    """What a ballot pins of a channel: whose peers speak for it, with which chaincode, from when to when.

    `epoch` counts the statements on one channel. `policy` is in Fabric's policy language, over the peers of `msps`.
    """

    network: NetworkName
    channel: ChannelName
    chaincode: ChaincodeName
    epoch: Epoch
    msps: Annotated[tuple[MspConfig, ...], Field(min_length=1, max_length=MSPS_MAX)]
    policy: Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
    valid_from: Timestamp
    valid_to: Timestamp


class Anchor(Record):
    """A statement that a ballot adopted. `statement_hash` is the SHA-256 of its canonical JSON."""

    statement: AnchorStatement
    statement_hash: Hex32
    ballot: Hex32
    adopted_at: Timestamp


class Challenge(Record):
    """What a destination asks of a source, once. Importing and cancelling change this one record, so one of them wins.

    `id` is the transaction that made it; `purpose` a word of the code list; `proof` the SHA-256 of the view that was
    imported.
    """

    id: Hex32
    action: Action
    source: ChannelName
    record_type: Word
    record_id: RecordId
    purpose: Word
    msp_id: MspId
    identity: Hex32
    created_at: Timestamp
    expires_at: Timestamp
    state: Literal["open", "imported", "cancelled"] = "open"
    closed_at: Timestamp | None = None
    reason: str = ""
    proof: Hex32 | None = None


class Outgoing(Record):
    """A record that a source sent towards a challenge.

    `content` is the canonical JSON of what crosses. A shared record stays as it is (`exported`); a moved one is `locked`
    until the destination's view tells that it was imported (`finalised`) or will never be (`released`).
    """

    challenge: Hex32
    action: Action
    destination: ChannelName
    record_type: Word
    record_id: RecordId
    purpose: Word
    content: Annotated[str, StringConstraints(min_length=2, max_length=CONTENT_MAX_CHARACTERS)]
    state: Literal["exported", "locked", "finalised", "released"]
    sent_at: Timestamp
    sent_by: MspId
    transaction: Hex32
    closed_at: Timestamp | None = None


class Arrival(Record):
    """Where an imported record came from. `endorsers` are the organisations whose peers vouched for it."""

    challenge: Hex32
    network: NetworkName
    source: ChannelName
    epoch: Epoch
    record_type: Word
    record_id: RecordId
    content_hash: Hex32
    proof: Hex32
    endorsers: tuple[MspId, ...]
    imported_at: Timestamp
    imported_by: MspId


class ChannelView(Record):
    """Base of what one channel says to another."""

    tag: Literal["SOVLEDGER-VIEW-v1"] = VIEW_TAG
    network: NetworkName
    channel: ChannelName


class ChallengeView(ChannelView):
    """What a destination says of a challenge."""

    challenge: Challenge


class OutgoingView(ChannelView):
    """What a source says of a record that it sent."""

    outgoing: Outgoing


class AnchorView(ChannelView):
    """What a channel says of itself from an epoch on."""

    anchor: Anchor


class AnchorProposal(Record):
    """A statement under vote."""

    ballot: Hex32
    statement: AnchorStatement
    title: ShortText
