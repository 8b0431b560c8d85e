"""Ballots: one vote from each class of seat, within a deadline. One organisation's vote short, nothing happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from sovchain.chaincode import Context
from sovchain.contracts.core import store
from sovchain.contracts.core.codes import CLASSES_OF_SEAT
from sovchain.contracts.core.records import Ballot, BallotView, Vote, format_time
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StubView, identity_hash

BALLOT_OPEN: Final = timedelta(days=30)
"""How long a ballot takes votes."""

Subject = Literal["admission", "law", "repeal", "anchor", "calendar"]
_CONTRACTS: Final[Mapping[Subject, str]] = {
    "admission": "Registry",
    "law": "Laws",
    "repeal": "Laws",
    "anchor": "Crossing",
    "calendar": "Calendars",
}


@dataclass(frozen=True)
class Seats:
    """The classes of seat of one channel: `legislator`, `regulator`, `sector`, and the MSP ids that fill each.

    Raises ValueError for a class without members, an unknown or missing class, or an organisation in two classes, which
    could pass a ballot with fewer organisations than there are classes.
    """

    members: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if set(self.members) != set(CLASSES_OF_SEAT):
            raise ValueError(f"seats need exactly the classes {', '.join(CLASSES_OF_SEAT)}")
        everyone = [msp_id for members in self.members.values() for msp_id in members]
        if not all(self.members.values()):
            raise ValueError("a class of seat has no member, so that no ballot could ever pass")
        if len(set(everyone)) != len(everyone):
            raise ValueError("an organisation has two seats")

    def seat_of(self, msp_id: str) -> str | None:
        """The class that an organisation votes for, None when it has no seat."""
        return next((seat for seat, members in self.members.items() if msp_id in members), None)


def require_admin(ctx: Context) -> None:
    """Raise E_ROLE unless the caller's certificate is that of an administrator (NodeOU `admin`)."""
    if ctx.identity.role != "admin":
        raise refusal(
            "E_ROLE",
            "only an administrator may do this",
            f"the caller is a {ctx.identity.role or 'user without a node role'}",
            "use the organisation's Admin identity",
            msp_id=ctx.identity.msp_id,
        )


def require_seat(ctx: Context, seats: Seats) -> str:
    """The class of seat that the calling administrator votes for. Raises E_ROLE, E_SEAT."""
    require_admin(ctx)
    seat = seats.seat_of(ctx.identity.msp_id)
    if seat is None:
        listed = "; ".join(f"{name}: {', '.join(members)}" for name, members in seats.members.items())
        raise refusal(
            "E_SEAT",
            f"{ctx.identity.msp_id} has no seat on this channel",
            f"seats are {listed}",
            "ask one of them",
            msp_id=ctx.identity.msp_id,
        )
    return seat


async def open_ballot(ctx: Context, seats: Seats, subject: Subject, title: str) -> Ballot:
    """Put a ballot on record. The proposer votes like everybody else, in a transaction of its own."""
    require_seat(ctx, seats)
    ballot = Ballot(
        id=ctx.transaction_id,
        subject=subject,
        title=title,
        proposed_by=ctx.identity.msp_id,
        proposed_at=ctx.timestamp,
        deadline=ctx.timestamp + BALLOT_OPEN,
    )
    await store.write(ctx, ballot, store.BALLOT, ballot.id)
    return ballot


async def cast_vote(ctx: Context, seats: Seats, ballot_id: str, subjects: tuple[Subject, ...]) -> BallotView:
    """Put the caller's vote on record. The ballot in the result is `passed` when this vote completed the quorum.

    Every class's vote is read, so that of two last votes in one block the second conflicts and is cast again.
    Raises E_ROLE, E_SEAT, E_NOT_FOUND, E_STATE, E_TIME.
    """
    seat = require_seat(ctx, seats)
    view = StubView(ctx.stub)
    ballot = await store.require(view, Ballot, store.BALLOT, ballot_id)
    _check_open(ctx, ballot, subjects)
    votes = await _votes(view, ballot_id)
    if seat in votes:
        raise refusal(
            "E_STATE",
            f"the {seat}'s vote was cast already",
            f"{votes[seat].msp_id} cast it at {format_time(votes[seat].cast_at)}",
            "nothing is left to do for this class",
            ballot=ballot_id,
            seat=seat,
        )
    votes[seat] = Vote(
        seat=seat,
        msp_id=ctx.identity.msp_id,
        identity=identity_hash(ctx.identity.id),
        cast_at=ctx.timestamp,
        transaction=ctx.transaction_id,
    )
    await store.write(ctx, votes[seat], store.VOTE, ballot_id, seat)
    if all(name in votes for name in CLASSES_OF_SEAT):
        ballot = ballot.model_copy(update={"state": "passed", "passed_at": ctx.timestamp})
        await store.write(ctx, ballot, store.BALLOT, ballot_id)
    return _view(ballot, votes)


async def read_ballot(view: store.StateView, ballot_id: str) -> BallotView:
    """A ballot with its votes. Raises E_NOT_FOUND."""
    return _view(await store.require(view, Ballot, store.BALLOT, ballot_id), await _votes(view, ballot_id))


def _check_open(ctx: Context, ballot: Ballot, subjects: tuple[Subject, ...]) -> None:
    if ballot.subject not in subjects:
        raise refusal(
            "E_INPUT",
            f"this is a ballot on {ballot.subject}",
            "it is voted on elsewhere",
            f"use {_CONTRACTS[ballot.subject]}:vote",
            ballot=ballot.id,
        )
    if ballot.state != "open":
        raise refusal(
            "E_STATE", "the ballot has passed", "it takes no more votes", "nothing is left to do", ballot=ballot.id
        )
    if ctx.timestamp < ballot.proposed_at:
        raise refusal(
            "E_TIME",
            "the vote is older than its ballot",
            "its transaction has an earlier time",
            "check the client's clock",
            ballot=ballot.id,
        )
    if ctx.timestamp > ballot.deadline:
        raise refusal(
            "E_STATE",
            "the ballot is closed",
            f"its deadline was {format_time(ballot.deadline)}",
            "propose it again",
            ballot=ballot.id,
        )


async def _votes(view: store.StateView, ballot_id: str) -> dict[str, Vote]:
    votes = {}
    for seat in CLASSES_OF_SEAT:
        vote = await store.read(view, Vote, store.VOTE, ballot_id, seat)
        if vote is not None:
            votes[seat] = vote
    return votes


def _view(ballot: Ballot, votes: Mapping[str, Vote]) -> BallotView:
    return BallotView(
        ballot=ballot,
        votes=tuple(votes[seat] for seat in CLASSES_OF_SEAT if seat in votes),
        missing=tuple(seat for seat in CLASSES_OF_SEAT if seat not in votes),
    )
