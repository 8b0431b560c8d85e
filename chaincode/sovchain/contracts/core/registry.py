"""Registry of organisations: who is admitted, for which jurisdiction, up to which roles and clearance."""

from __future__ import annotations

from sovchain.chaincode import Context, Contract, query, transaction
from sovchain.contracts.core import ballots, store
from sovchain.contracts.core.ballots import Seats, require_admin, require_seat
from sovchain.contracts.core.records import (
    Admission,
    BallotView,
    Hex32,
    MspId,
    Organisation,
    Page,
    RegisteredOrganisation,
    ShortText,
    SuspendedIdentity,
)
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StateView, StubView, identity_hash

ADMISSIONS_MAX = 100
"""Most organisations of one ballot."""
GUARDIANS = ("legislator", "regulator")
"""Classes of seat that may suspend by themselves: suspension only narrows what may happen."""


class Registry(Contract):
    """Admission by ballot, suspension at once."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats

    @transaction
    async def propose_admission(self, ctx: Context, organisations: list[Organisation]) -> str:
        """Put organisations to the vote: new ones, changed ones, or suspended ones to be reinstated.

        Called by an admin of a seat. Returns the ballot's id. Raises E_ROLE, E_SEAT, E_INPUT.
        """
        ids = [organisation.msp_id for organisation in organisations]
        if not 1 <= len(ids) <= ADMISSIONS_MAX or len(set(ids)) != len(ids):
            raise refusal(
                "E_INPUT",
                f"these {len(ids)} organisations are no ballot",
                f"it admits 1 to {ADMISSIONS_MAX}, each once",
                "correct the list",
            )
        listed = ", ".join(ids)
        title = f"admission of {listed}"
        if len(title) > 200:
            title = f"admission of {len(ids)} organisations, {ids[0]} first"
        ballot = await ballots.open_ballot(ctx, self._seats, "admission", title)
        await store.write(ctx, Admission(organisations=tuple(organisations)), store.ADMISSION, ballot.id)
        ctx.set_event("AdmissionProposed", {"ballot": ballot.id})
        return ballot.id

    @transaction
    async def vote(self, ctx: Context, ballot: Hex32) -> BallotView:
        """Cast the vote of the caller's class of seat. The vote that completes the quorum admits the organisations.

        Called by an admin of a seat. Raises E_ROLE, E_SEAT, E_NOT_FOUND, E_STATE, E_TIME.
        """
        cast = await ballots.cast_vote(ctx, self._seats, ballot, ("admission",))
        if cast.ballot.state == "passed":
            await self._admit(ctx, ballot)
        ctx.set_event("OrganisationsAdmitted" if cast.ballot.state == "passed" else "Voted", {"ballot": ballot})
        return cast

    async def _admit(self, ctx: Context, ballot: str) -> None:
        view = StubView(ctx.stub)
        admission = await store.require(view, Admission, store.ADMISSION, ballot)
        for organisation in admission.organisations:
            before = await store.read(view, RegisteredOrganisation, store.ORGANISATION, organisation.msp_id)
            entry = RegisteredOrganisation(
                organisation=organisation,
                status="active",
                admitted_at=before.admitted_at if before else ctx.timestamp,
                changed_at=ctx.timestamp,
                ballot=ballot,
            )
            await store.write(ctx, entry, store.ORGANISATION, organisation.msp_id)

    @transaction
    async def suspend(self, ctx: Context, msp_id: MspId, reason: ShortText) -> str:
        """Suspend an organisation at once; a new admission reinstates it.

        Called by an admin of the legislator or the regulator. Raises E_ROLE, E_SEAT, E_NOT_FOUND, E_STATE.
        """
        if require_seat(ctx, self._seats) not in GUARDIANS:
            raise refusal(
                "E_SEAT",
                f"only {' and '.join(GUARDIANS)} suspend",
                "a suspension takes effect without a vote",
                "ask one of them",
                msp_id=ctx.identity.msp_id,
            )
        entry = await store.require(StubView(ctx.stub), RegisteredOrganisation, store.ORGANISATION, msp_id)
        if entry.status == "suspended":
            raise refusal(
                "E_STATE",
                f"{msp_id} is suspended already",
                "an earlier transaction did it",
                "nothing is left to do",
                msp_id=msp_id,
            )
        changed = {"status": "suspended", "changed_at": ctx.timestamp, "reason": reason}
        await store.write(ctx, entry.model_copy(update=changed), store.ORGANISATION, msp_id)
        ctx.set_event("OrganisationSuspended", {"msp_id": msp_id})
        return msp_id

    @transaction
    async def suspend_identity(self, ctx: Context, msp_id: MspId, identity: Hex32, reason: ShortText) -> str:
        """Suspend one identity, named by the SHA-256 of its client id, as requests and receipts name it.

        Called by an admin of its own organisation, of the legislator or of the regulator. Raises E_ROLE, E_SEAT.
        """
        require_admin(ctx)
        caller = ctx.identity.msp_id
        if caller != msp_id and self._seats.seat_of(caller) not in GUARDIANS:
            raise refusal(
                "E_SEAT",
                f"{caller} may not suspend this identity",
                f"it is one of {msp_id}",
                f"ask {msp_id} or the {' or the '.join(GUARDIANS)}",
                msp_id=caller,
            )
        entry = SuspendedIdentity(
            msp_id=msp_id, identity=identity, reason=reason, suspended_at=ctx.timestamp, suspended_by=caller
        )
        await store.write(ctx, entry, store.SUSPENDED_IDENTITY, msp_id, identity)
        ctx.set_event("IdentitySuspended", {"identity": identity, "msp_id": msp_id})
        return identity

    @query
    async def organisation(self, ctx: Context, msp_id: MspId) -> RegisteredOrganisation:
        """The entry of one organisation. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), RegisteredOrganisation, store.ORGANISATION, msp_id)

    @query
    async def organisations(self, ctx: Context, bookmark: str = "") -> Page[RegisteredOrganisation]:
        """All entries in the order of their MSP ids."""
        return await store.page(ctx.stub, RegisteredOrganisation, store.ORGANISATION, bookmark=bookmark)

    @query
    async def ballot(self, ctx: Context, ballot: Hex32) -> BallotView:
        """A ballot on admission, law or repeal, with its votes. Raises E_NOT_FOUND."""
        return await ballots.read_ballot(StubView(ctx.stub), ballot)

    @query
    async def seats(self, ctx: Context) -> dict[str, list[str]]:
        """The classes of seat on this channel and the MSP ids that fill each."""
        return {seat: list(members) for seat, members in self._seats.members.items()}


async def require_active(view: StateView, msp_id: str) -> RegisteredOrganisation:
    """The entry of an organisation that may act. Raises E_NOT_ADMITTED, E_SUSPENDED."""
    entry = await store.read(view, RegisteredOrganisation, store.ORGANISATION, msp_id)
    if entry is None:
        raise refusal(
            "E_NOT_ADMITTED",
            f"{msp_id} is not in the registry",
            "a member of the channel acts only once a ballot admitted it",
            "propose its admission",
            msp_id=msp_id,
        )
    if entry.status != "active":
        raise refusal(
            "E_SUSPENDED", f"{msp_id} is suspended", f"{entry.reason}", "a new admission reinstates it", msp_id=msp_id
        )
    return entry


async def require_unsuspended(view: StateView, msp_id: str, identity: str) -> None:
    """Raise E_SUSPENDED for an identity that may not act although its certificate is valid."""
    entry = await store.read(view, SuspendedIdentity, store.SUSPENDED_IDENTITY, msp_id, identity)
    if entry is not None:
        raise refusal(
            "E_SUSPENDED",
            f"the identity of {msp_id} is suspended",
            entry.reason,
            "use another identity of the organisation",
            msp_id=msp_id,
            identity=identity,
        )


async def require_active_caller(ctx: Context, view: StateView) -> RegisteredOrganisation:
    """The entry of the caller's organisation, if both it and the caller may act. Raises E_NOT_ADMITTED, E_SUSPENDED."""
    entry = await require_active(view, ctx.identity.msp_id)
    await require_unsuspended(view, ctx.identity.msp_id, identity_hash(ctx.identity.id))
    return entry
