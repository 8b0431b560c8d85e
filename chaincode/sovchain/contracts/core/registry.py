"""Registry of organisations: who is admitted, for which jurisdiction, up to which roles and clearance."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sovchain.chaincode import Context, Contract, query, transaction
from sovchain.contracts.core import ballots, store
from sovchain.contracts.core.ballots import Seats, require_admin, require_seat
from sovchain.contracts.core.codes import RESERVED_ROLES, ROLES, is_within, jurisdiction_path
from sovchain.contracts.core.order_records import Caller, Delegation, Person, SuspendedPlace
from sovchain.contracts.core.records import (
    Admission,
    BallotView,
    Hex32,
    JurisdictionCode,
    MspId,
    Organisation,
    Page,
    RegisteredOrganisation,
    ShortText,
    SuspendedIdentity,
    Timestamp,
    Word,
)
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StateView, StubView, identity_hash

ADMISSIONS_MAX = 100
"""Most organisations of one ballot."""
GUARDIANS = ("legislator", "regulator")
"""Classes of seat that may suspend by themselves: suspension only narrows what may happen."""


Depth = Annotated[int, Field(ge=0, le=2)]


class Registry(Contract):
    """Admission by ballot, suspension at once; roles lent from one organisation to another."""

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
        self._check_reserved_roles(organisations)
        listed = ", ".join(ids)
        title = f"admission of {listed}"
        if len(title) > 200:
            title = f"admission of {len(ids)} organisations, {ids[0]} first"
        ballot = await ballots.open_ballot(ctx, self._seats, "admission", title)
        await store.write(ctx, Admission(organisations=tuple(organisations)), store.ADMISSION, ballot.id)
        ctx.set_event("AdmissionProposed", {"ballot": ballot.id})
        return ballot.id

    def _check_reserved_roles(self, organisations: list[Organisation]) -> None:
        for organisation in organisations:
            reserved = sorted(RESERVED_ROLES & set(organisation.roles))
            if reserved and self._seats.seat_of(organisation.msp_id) not in GUARDIANS:
                raise refusal(
                    "E_INPUT",
                    f"{organisation.msp_id} cannot have the role {reserved[0]}",
                    f"only organisations of the {' and the '.join(GUARDIANS)} make orders",
                    "leave the role out",
                    msp_id=organisation.msp_id,
                )

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

    @transaction
    async def suspend_place(self, ctx: Context, jurisdiction: JurisdictionCode, reason: ShortText) -> str:
        """Suspend a jurisdiction with everything within it: no organisation registered there may act.

        Called by an admin of the legislator or the regulator. Raises E_ROLE, E_SEAT.
        """
        await self._set_place(ctx, jurisdiction, reason, suspended=True)
        return jurisdiction

    @transaction
    async def reinstate_place(self, ctx: Context, jurisdiction: JurisdictionCode, reason: ShortText) -> str:
        """End the suspension of a jurisdiction; one of a larger place that contains it stays.

        Called by an admin of the other one of legislator and regulator than suspended it. Raises E_ROLE, E_SEAT,
        E_NOT_FOUND, E_FOUR_EYES.
        """
        found = await store.require(StubView(ctx.stub), SuspendedPlace, store.SUSPENDED_PLACE, jurisdiction)
        if found.suspended and found.changed_by == ctx.identity.msp_id:
            raise refusal(
                "E_FOUR_EYES",
                f"{found.changed_by} cannot undo this by itself",
                "it ordered the suspension",
                "have the other guardian do it",
            )
        await self._set_place(ctx, jurisdiction, reason, suspended=False)
        return jurisdiction

    async def _set_place(self, ctx: Context, jurisdiction: str, reason: str, *, suspended: bool) -> None:
        if require_seat(ctx, self._seats) not in GUARDIANS:
            raise refusal(
                "E_SEAT",
                f"only {' and '.join(GUARDIANS)} suspend",
                "it takes effect without a vote",
                "ask one of them",
                msp_id=ctx.identity.msp_id,
            )
        entry = SuspendedPlace(
            jurisdiction=jurisdiction,
            suspended=suspended,
            reason=reason,
            changed_at=ctx.timestamp,
            changed_by=ctx.identity.msp_id,
        )
        await store.write(ctx, entry, store.SUSPENDED_PLACE, jurisdiction)
        ctx.set_event("PlaceSuspended" if suspended else "PlaceReinstated", {"jurisdiction": jurisdiction})

    @transaction
    async def bind_person(self, ctx: Context, identity: Hex32, person: Hex32) -> Person:
        """Bind one of the own organisation's identities to a person, by a pseudonym under the nation's key.

        An identity is bound once. Called by an admin of the identity's organisation. Raises E_ROLE, E_NOT_ADMITTED, E_STATE.
        """
        require_admin(ctx)
        view = StubView(ctx.stub)
        msp_id = ctx.identity.msp_id
        await require_active(view, msp_id)
        if await store.read(view, Person, store.PERSON, msp_id, identity) is not None:
            raise refusal(
                "E_STATE",
                "the identity is bound already",
                "it would change who signed what",
                "enrol another identity",
                identity=identity,
            )
        bound = Person(msp_id=msp_id, identity=identity, person=person, bound_at=ctx.timestamp, bound_by=msp_id)
        await store.write(ctx, bound, store.PERSON, msp_id, identity)
        return bound

    @query
    async def whoami(self, ctx: Context) -> Caller:
        """How the ledger knows the caller."""
        identity = identity_hash(ctx.identity.id)
        bound = await store.read(StubView(ctx.stub), Person, store.PERSON, ctx.identity.msp_id, identity)
        return Caller(
            msp_id=ctx.identity.msp_id,
            identity=identity,
            role=ctx.identity.attributes.get("role"),
            clearance=ctx.identity.attributes.get("clearance"),
            person=bound.person if bound else None,
        )

    @transaction
    async def delegate(
        self, ctx: Context, delegate: MspId, role: Word, depth: Depth, expires_at: Timestamp
    ) -> Delegation:
        """Lend a role to another organisation until a time; it may pass the role on `depth` times.

        Called by an admin of an organisation that has the role, or had it lent with depth left. Raises E_ROLE,
        E_NOT_ADMITTED, E_SUSPENDED, E_TIME, E_INPUT, E_DELEGATION.
        """
        require_admin(ctx)
        view = StubView(ctx.stub)
        delegator = ctx.identity.msp_id
        own = await require_active(view, delegator)
        await require_active(view, delegate)
        if role not in ROLES or role in RESERVED_ROLES or delegate == delegator:
            raise refusal(
                "E_INPUT",
                f"{role} cannot be lent to {delegate}",
                "unknown and reserved roles, and those of oneself, are not lent",
                "name another role or organisation",
            )
        if expires_at <= ctx.timestamp:
            raise refusal("E_TIME", "the delegation would be expired", "its end lies in the past", "choose a later one")
        if role not in own.organisation.roles:
            lent = await store.read(view, Delegation, store.DELEGATION, delegator, role)
            if lent is None or lent.revoked_at is not None or lent.depth <= depth or lent.expires_at < expires_at:
                raise refusal(
                    "E_DELEGATION",
                    f"{delegator} cannot lend {role} so",
                    "it neither has the role nor had it lent with that depth and for so long",
                    "lend it with less depth and a shorter time, or ask who has it",
                )
        made = Delegation(
            delegator=delegator,
            delegate=delegate,
            role=role,
            depth=depth,
            expires_at=expires_at,
            delegated_at=ctx.timestamp,
        )
        await store.write(ctx, made, store.DELEGATION, delegate, role)
        ctx.set_event("RoleDelegated", {"delegate": delegate, "delegator": delegator, "role": role})
        return made

    @transaction
    async def revoke_delegation(self, ctx: Context, delegate: MspId, role: Word) -> Delegation:
        """Take a lent role back at once, with whatever was passed on of it.

        Called by an admin of the delegator, or of the legislator or the regulator. Raises E_ROLE, E_SEAT, E_NOT_FOUND, E_STATE.
        """
        require_admin(ctx)
        found = await store.require(StubView(ctx.stub), Delegation, store.DELEGATION, delegate, role)
        caller = ctx.identity.msp_id
        if caller != found.delegator and self._seats.seat_of(caller) not in GUARDIANS:
            raise refusal(
                "E_SEAT",
                f"{caller} may not revoke this delegation",
                f"{found.delegator} made it",
                f"ask {found.delegator} or the {' or the '.join(GUARDIANS)}",
                msp_id=caller,
            )
        if found.revoked_at is not None:
            raise refusal("E_STATE", "it is revoked already", "an earlier transaction did it", "nothing is left to do")
        revoked = found.model_copy(update={"revoked_at": ctx.timestamp})
        await store.write(ctx, revoked, store.DELEGATION, delegate, role)
        ctx.set_event("DelegationRevoked", {"delegate": delegate, "role": role})
        return revoked

    @query
    async def delegation(self, ctx: Context, delegate: MspId, role: Word) -> Delegation:
        """The latest delegation of a role to an organisation. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Delegation, store.DELEGATION, delegate, role)

    @query
    async def within(self, ctx: Context, jurisdiction: JurisdictionCode) -> list[RegisteredOrganisation]:
        """The organisations registered in a jurisdiction or in a place within it."""
        everyone = await store.scan(StubView(ctx.stub), RegisteredOrganisation, store.ORGANISATION)
        return [one for one in everyone if is_within(one.organisation.jurisdiction, jurisdiction)]

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
    place = await suspended_place(view, entry.organisation.jurisdiction)
    if place is not None:
        raise refusal(
            "E_SUSPENDED",
            f"{msp_id} is suspended with {place.jurisdiction}",
            place.reason,
            "legislator or regulator reinstate the place",
            msp_id=msp_id,
        )
    return entry


async def suspended_place(view: StateView, jurisdiction: str) -> SuspendedPlace | None:
    """The largest suspended place that contains a jurisdiction, None when there is none."""
    for node in jurisdiction_path(jurisdiction):
        found = await store.read(view, SuspendedPlace, store.SUSPENDED_PLACE, node)
        if found is not None and found.suspended:
            return found
    return None


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
