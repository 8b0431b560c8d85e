"""Crossing: one record's way to another channel, proven to the chaincode there. No relay is trusted.

    destination                                   source
    challenge ── view: open ────────────────────► send       (shared: exported; moved: locked)
    accept    ◄───────────── view: outgoing ─────
    accept or cancel, never both: one key
              ── view: imported ────────────────► finalise   (moved: lives there now)
              ── view: cancelled ───────────────► release    (moved: lives here again)

Each arrow is a view (`sovchain.protocol.views`): a query that peers of enough organisations endorsed after the commit,
collected by whoever likes, checked in the receiving chaincode against a `TrustAnchor` that a ballot pinned. A lock ends by
such a view only: a time-out would let a slow clock spend a record twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Literal, TypeVar

from pydantic import ValidationError

from sovchain.chaincode import Context, Contract, ContractError, query, transaction
from sovchain.contracts.core import anchors, ballots, store
from sovchain.contracts.core.ballots import Seats
from sovchain.contracts.core.codes import PURPOSES
from sovchain.contracts.core.crossing_records import (
    Action,
    Anchor,
    AnchorProposal,
    AnchorStatement,
    AnchorView,
    Arrival,
    Challenge,
    ChallengeView,
    ChannelName,
    ChannelView,
    Epoch,
    Outgoing,
    OutgoingView,
    RecordId,
)
from sovchain.contracts.core.portable import Portable, Receivable
from sovchain.contracts.core.records import BallotView, Hex32, Page, ShortText, Timestamp, Word, format_time
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.store import StubView, encode_record, identity_hash
from sovchain.protocol.views import VerifiedView, ViewError, verify_view

CHALLENGE_OPEN: Final = timedelta(days=30)
"""Longest time that a challenge stays open."""

V = TypeVar("V", bound=ChannelView)


class Crossing(Contract):
    """Records that go to and come from other channels.

    Args of the constructor: the channel's seats, the network's name, and the kinds of record that go and come.
    """

    def __init__(
        self, seats: Seats, network: str, outgoing: Sequence[Portable] = (), incoming: Sequence[Receivable] = ()
    ) -> None:
        self._seats = seats
        self._network = network
        self._outgoing = {kind.record_type: kind for kind in outgoing}
        self._incoming = {kind.record_type: kind for kind in incoming}

    # Anchors ---------------------------------------------------------------------------------------------------------

    @transaction
    async def propose_anchor(self, ctx: Context, statement: AnchorStatement, view: bytes = b"") -> str:
        """Put a statement on a channel to the vote: another channel, or this one for others to follow.

        From the second epoch on, `view` is what the other channel says of itself (`view_anchor`), checked against the
        epoch before. Called by an admin of a seat. Returns the ballot's id. Raises E_ROLE, E_SEAT, E_ANCHOR, and what
        `accept` raises for a view.
        """
        newest = await anchors.newest(StubView(ctx.stub), statement.channel)
        anchors.check(statement, newest, ctx.timestamp)
        if newest is not None and statement.channel != ctx.channel_id:
            told = await self._told(ctx, view, statement.channel, "view_anchor", AnchorView)
            if told[0].anchor.statement != statement:
                raise _refused("E_ANCHOR", "this is not what the channel says of itself", "the statements differ")
        title = f"anchor {statement.channel} epoch {statement.epoch}"[:200]
        ballot = await ballots.open_ballot(ctx, self._seats, "anchor", title)
        proposal = AnchorProposal(ballot=ballot.id, statement=statement, title=title)
        await store.write(ctx, proposal, store.ANCHOR_PROPOSAL, ballot.id)
        ctx.set_event("AnchorProposed", {"ballot": ballot.id, "channel": statement.channel})
        return ballot.id

    @transaction
    async def vote(self, ctx: Context, ballot: Hex32) -> BallotView:
        """Cast the vote of the caller's class of seat. The vote that completes the quorum adopts the anchor.

        Called by an admin of a seat. Raises E_ROLE, E_SEAT, E_NOT_FOUND, E_STATE, E_TIME, E_ANCHOR.
        """
        cast = await ballots.cast_vote(ctx, self._seats, ballot, ("anchor",))
        if cast.ballot.state == "passed":
            view = StubView(ctx.stub)
            statement = (await store.require(view, AnchorProposal, store.ANCHOR_PROPOSAL, ballot)).statement
            anchors.check(statement, await anchors.newest(view, statement.channel), ctx.timestamp)
            await anchors.adopt(ctx, statement, ballot)
        ctx.set_event("AnchorAdopted" if cast.ballot.state == "passed" else "Voted", {"ballot": ballot})
        return cast

    @query
    async def anchor(self, ctx: Context, channel: ChannelName) -> Anchor:
        """The newest anchor of a channel. Raises E_NO_ANCHOR."""
        return await anchors.require_newest(StubView(ctx.stub), channel)

    # Destination -----------------------------------------------------------------------------------------------------

    @transaction
    async def challenge(
        self,
        ctx: Context,
        source: ChannelName,
        action: Action,
        record_type: Word,
        record_id: RecordId,
        purpose: Word,
        expires_at: Timestamp,
    ) -> Challenge:
        """Ask another channel for a record, once. The source sends it towards this challenge or not at all.

        Called by any organisation that the registry admits. Raises E_NOT_ADMITTED, E_SUSPENDED, E_NO_ANCHOR, E_KIND,
        E_UNKNOWN_WORD, E_TIME.
        """
        view = StubView(ctx.stub)
        await require_active_caller(ctx, view)
        self._receivable(record_type, source)
        if purpose not in PURPOSES:
            raise _refused("E_UNKNOWN_WORD", "the purpose is unknown", "it is not in the code list", purpose=purpose)
        await anchors.in_force(view, source, ctx.timestamp)
        if not ctx.timestamp < expires_at <= ctx.timestamp + CHALLENGE_OPEN:
            raise _refused(
                "E_TIME", "the challenge ends at no possible time", f"it may stay open {CHALLENGE_OPEN.days} days"
            )
        made = Challenge(
            id=ctx.transaction_id,
            action=action,
            source=source,
            record_type=record_type,
            record_id=record_id,
            purpose=purpose,
            msp_id=ctx.identity.msp_id,
            identity=identity_hash(ctx.identity.id),
            created_at=ctx.timestamp,
            expires_at=expires_at,
        )
        await store.write(ctx, made, store.CHALLENGE, made.id)
        ctx.set_event("ChallengeMade", {"challenge": made.id, "source": source})
        return made

    @transaction
    async def accept(self, ctx: Context, challenge: Hex32, view: bytes) -> Arrival:
        """Import the record that the source sent towards a challenge, against the source's view of it.

        Called by the organisation that made the challenge. Raises E_NOT_FOUND, E_NOT_REQUESTER, E_STATE for a challenge
        that is closed, E_TIME for one that has expired, E_NO_ANCHOR, E_VIEW with `check` for a view that proves nothing,
        E_MISMATCH for a view of something else, and what the record's own contract raises.
        """
        asked = await self._open(ctx, challenge)
        if ctx.timestamp > asked.expires_at:
            raise _refused("E_TIME", "the challenge has expired", f"it ended at {format_time(asked.expires_at)}")
        said, verified, anchor = await self._told(ctx, view, asked.source, "view_outgoing", OutgoingView)
        sent = said.outgoing
        _require_same("challenge", sent.challenge, challenge)
        _require_same("destination", sent.destination, ctx.channel_id)
        for name in ("action", "record_type", "record_id", "purpose"):
            _require_same(name.replace("_", " "), getattr(sent, name), getattr(asked, name))
        if sent.state not in ("exported", "locked"):
            raise _refused("E_STATE", f"the record is {sent.state} at its source", "it no longer goes anywhere")
        arrival = Arrival(
            challenge=challenge,
            network=said.network,
            source=said.channel,
            epoch=anchor.statement.epoch,
            record_type=sent.record_type,
            record_id=sent.record_id,
            content_hash=hashlib.sha256(sent.content.encode()).hexdigest(),
            proof=verified.digest,
            endorsers=verified.endorsers,
            imported_at=ctx.timestamp,
            imported_by=ctx.identity.msp_id,
        )
        await self._receivable(sent.record_type, said.channel).receive(ctx, arrival, sent.content)
        closed = {"state": "imported", "closed_at": ctx.timestamp, "proof": verified.digest}
        await store.write(ctx, asked.model_copy(update=closed), store.CHALLENGE, challenge)
        await store.write(ctx, arrival, store.ARRIVAL, challenge)
        ctx.set_event("RecordImported", {"challenge": challenge})
        return arrival

    @transaction
    async def cancel(self, ctx: Context, challenge: Hex32, reason: ShortText) -> Challenge:
        """Close a challenge for good without an import.

        Called by the organisation that made it, by anyone once it has expired. Raises E_NOT_FOUND, E_NOT_REQUESTER,
        E_STATE.
        """
        asked = await self._open(ctx, challenge, also_after_expiry=True)
        closed = asked.model_copy(update={"state": "cancelled", "closed_at": ctx.timestamp, "reason": reason})
        await store.write(ctx, closed, store.CHALLENGE, challenge)
        ctx.set_event("ChallengeCancelled", {"challenge": challenge})
        return closed

    async def _open(self, ctx: Context, challenge: str, *, also_after_expiry: bool = False) -> Challenge:
        view = StubView(ctx.stub)
        asked = await store.require(view, Challenge, store.CHALLENGE, challenge)
        if not (also_after_expiry and ctx.timestamp > asked.expires_at):
            await require_active_caller(ctx, view)
            if asked.msp_id != ctx.identity.msp_id:
                raise _refused(
                    "E_NOT_REQUESTER",
                    "this is the challenge of another",
                    f"{asked.msp_id} made it",
                    challenge=challenge,
                )
        if asked.state != "open":
            raise _refused("E_STATE", f"the challenge is {asked.state}", "it is used once", challenge=challenge)
        return asked

    @query
    async def view_challenge(self, ctx: Context, challenge: Hex32) -> ChallengeView:
        """What this channel says of a challenge, for the source to check. Raises E_NOT_FOUND."""
        found = await store.require(StubView(ctx.stub), Challenge, store.CHALLENGE, challenge)
        return ChallengeView(network=self._network, channel=ctx.channel_id, challenge=found)

    @query
    async def arrival(self, ctx: Context, challenge: Hex32) -> Arrival:
        """Where an imported record came from. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Arrival, store.ARRIVAL, challenge)

    @query
    async def challenges(self, ctx: Context, bookmark: str = "") -> Page[Challenge]:
        """All challenges of this channel, by id."""
        return await store.page(ctx.stub, Challenge, store.CHALLENGE, bookmark=bookmark)

    # Source ----------------------------------------------------------------------------------------------------------

    @transaction
    async def send(self, ctx: Context, destination: ChannelName, view: bytes) -> Outgoing:
        """Send a record towards a challenge, against the destination's view of it. A moved record is locked.

        Who may call it is for the record's own contract to say. Raises E_NOT_ADMITTED, E_SUSPENDED, E_NO_ANCHOR, E_VIEW,
        E_MISMATCH, E_STATE for a challenge that is closed or was answered, E_TIME, E_KIND, and what that contract raises.
        """
        state = StubView(ctx.stub)
        await require_active_caller(ctx, state)
        said, _, _ = await self._told(ctx, view, destination, "view_challenge", ChallengeView)
        asked = said.challenge
        _require_same("source", asked.source, ctx.channel_id)
        if asked.state != "open":
            raise _refused("E_STATE", f"the challenge is {asked.state}", "it is used once", challenge=asked.id)
        if ctx.timestamp > asked.expires_at:
            raise _refused("E_TIME", "the challenge has expired", f"it ended at {format_time(asked.expires_at)}")
        if await store.read(state, Outgoing, store.OUTGOING, asked.id) is not None:
            raise _refused("E_STATE", "the challenge was answered already", "a challenge is answered once")
        kind = self._outgoing.get(asked.record_type)
        if kind is None or (asked.action == "move" and not kind.movable):
            raise _refused("E_KIND", f"no {asked.record_type} leaves this channel by {asked.action}", "no rule lets it")
        content = encode_record(await kind.send(ctx, asked, said.channel)).decode()
        sent = Outgoing(
            challenge=asked.id,
            action=asked.action,
            destination=said.channel,
            record_type=asked.record_type,
            record_id=asked.record_id,
            purpose=asked.purpose,
            content=content,
            state="locked" if asked.action == "move" else "exported",
            sent_at=ctx.timestamp,
            sent_by=ctx.identity.msp_id,
            transaction=ctx.transaction_id,
        )
        await store.write(ctx, sent, store.OUTGOING, asked.id)
        ctx.set_event("RecordSent", {"challenge": asked.id, "destination": said.channel})
        return sent

    @transaction
    async def finalise(self, ctx: Context, challenge: Hex32, view: bytes) -> Outgoing:
        """End the lock of a record that was imported: it lives at its destination. Anyone may call it.

        Raises E_NOT_FOUND, E_STATE, E_NO_ANCHOR, E_VIEW, E_MISMATCH.
        """
        return await self._settle(ctx, challenge, view, "imported", "finalised")

    @transaction
    async def release(self, ctx: Context, challenge: Hex32, view: bytes) -> Outgoing:
        """End the lock of a record whose challenge was cancelled: it lives here again. Anyone may call it.

        Raises E_NOT_FOUND, E_STATE, E_NO_ANCHOR, E_VIEW, E_MISMATCH.
        """
        return await self._settle(ctx, challenge, view, "cancelled", "released")

    async def _settle(
        self, ctx: Context, challenge: str, view: bytes, wanted: str, outcome: Literal["finalised", "released"]
    ) -> Outgoing:
        sent = await store.require(StubView(ctx.stub), Outgoing, store.OUTGOING, challenge)
        if sent.state != "locked":
            raise _refused(
                "E_STATE", f"the record is {sent.state}", "only a locked one is settled", challenge=challenge
            )
        said, _, _ = await self._told(ctx, view, sent.destination, "view_challenge", ChallengeView)
        _require_same("challenge", said.challenge.id, challenge)
        if said.challenge.state != wanted:
            raise _refused("E_STATE", f"the challenge is {said.challenge.state}", f"this takes one that is {wanted}")
        await self._outgoing[sent.record_type].settle(ctx, sent.record_id, outcome, sent.destination)
        settled = sent.model_copy(update={"state": outcome, "closed_at": ctx.timestamp})
        await store.write(ctx, settled, store.OUTGOING, challenge)
        ctx.set_event("RecordSettled", {"challenge": challenge, "outcome": outcome})
        return settled

    @query
    async def view_outgoing(self, ctx: Context, challenge: Hex32) -> OutgoingView:
        """What this channel says of a record that it sent, for the destination to check. Raises E_NOT_FOUND."""
        found = await store.require(StubView(ctx.stub), Outgoing, store.OUTGOING, challenge)
        return OutgoingView(network=self._network, channel=ctx.channel_id, outgoing=found)

    @query
    async def view_anchor(self, ctx: Context, epoch: Epoch) -> AnchorView:
        """What this channel says of itself from an epoch on, for others to follow. Raises E_NOT_FOUND."""
        found = await store.require(StubView(ctx.stub), Anchor, store.ANCHOR, ctx.channel_id, anchors.epoch_key(epoch))
        return AnchorView(network=self._network, channel=ctx.channel_id, anchor=found)

    # ------------------------------------------------------------------------------------------------------------------

    def _receivable(self, record_type: str, source: str) -> Receivable:
        kind = self._incoming.get(record_type)
        if kind is None or source not in kind.sources:
            raise _refused(
                "E_KIND",
                f"no {record_type} comes from {source}",
                "no contract here takes it in",
                record_type=record_type,
            )
        return kind

    async def _told(
        self, ctx: Context, view: bytes, channel: str, function: str, model: type[V]
    ) -> tuple[V, VerifiedView, Anchor]:
        """What another channel says, checked. Raises E_NO_ANCHOR, E_VIEW, E_MISMATCH."""
        anchor = await anchors.in_force(StubView(ctx.stub), channel, ctx.timestamp)
        try:
            verified = verify_view(
                view, anchors.trust(anchor.statement), function=f"Crossing:{function}", at=ctx.timestamp
            )
            said = model.model_validate_json(verified.payload)
        except ViewError as fault:
            raise _refused("E_VIEW", "the view proves nothing", fault.reason, check=fault.code) from None
        except ValidationError:
            raise _refused(
                "E_VIEW", "the view proves nothing", "its answer has another form", check="E_VIEW_FORM"
            ) from None
        _require_same("network", said.network, anchor.statement.network)
        _require_same("channel", said.channel, channel)
        return said, verified, anchor


def _require_same(what: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise _refused("E_MISMATCH", "the view is of something else", f"its {what} is another", field=what)


_REMEDIES: Final = {
    "E_ANCHOR": "propose the statement of the channel's newest epoch",
    "E_KIND": "ask for a record that may cross",
    "E_MISMATCH": "collect the view of this challenge",
    "E_NOT_REQUESTER": "ask it",
    "E_STATE": "make a new challenge",
    "E_TIME": "check the times, or make a new challenge",
    "E_UNKNOWN_WORD": "use a word of the code list",
    "E_VIEW": "collect it anew from peers of enough organisations",
}


def _refused(code: str, what: str, why: str, **fields: str) -> ContractError:
    return refusal(code, what, why, _REMEDIES[code], **fields)
