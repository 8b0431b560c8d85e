"""Warrants, and emergencies that suspend themselves when nobody reviews them in time."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import Field

from sovchain.chaincode import Context, Contract, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.order_records import Emergency, OpenEmergency, Warrant, WarrantScope
from sovchain.contracts.core.records import DataSet, Hex32, ShortText, Timestamp
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.standing import (
    ISSUERS,
    latest_emergency,
    own_person,
    person_of,
    require_other_person,
    require_role,
)
from sovchain.contracts.core.store import StubView, identity_hash

REVIEW_TIME: Final = timedelta(hours=72)
"""How long after its declaration an emergency must be reviewed."""
Uses = Annotated[int, Field(ge=1, le=1000)]


class Warrants(Contract):
    """Leave that one person asks for and another one gives, and access before anybody could be asked."""

    @transaction
    async def request(self, ctx: Context, scope: WarrantScope, reason: ShortText) -> Warrant:
        """Ask for a warrant. The caller's identity must be bound to a person. Raises E_NOT_ADMITTED, E_SUSPENDED,
        E_NOT_FOUND, E_FOUR_EYES."""
        view = StubView(ctx.stub)
        await require_active_caller(ctx, view)
        await store.require(view, DataSet, store.DATASET, scope.dataset)
        warrant = Warrant(
            id=ctx.transaction_id,
            dataset=scope.dataset,
            grantee=ctx.identity.msp_id,
            purpose=scope.purpose,
            actions=scope.actions,
            reason=reason,
            requester=identity_hash(ctx.identity.id),
            requester_person=await own_person(ctx, view),
            requested_at=ctx.timestamp,
        )
        await store.write(ctx, warrant, store.WARRANT, warrant.id)
        ctx.set_event("WarrantRequested", {"warrant": warrant.id})
        return warrant

    @transaction
    async def issue(
        self, ctx: Context, warrant: Hex32, uses: Uses, expires_at: Timestamp, sealed_until: Timestamp | None = None
    ) -> Warrant:
        """As a judge, another person than asked for it: issue a warrant for so many uses until a time.

        Until `sealed_until` the data's subject does not see its uses. Raises E_ROLE, E_NOT_FOUND, E_STATE, E_TIME,
        E_FOUR_EYES.
        """
        view = StubView(ctx.stub)
        await require_role(ctx, view, "judge")
        found = await store.require(view, Warrant, store.WARRANT, warrant)
        if found.issued_at is not None:
            raise refusal("E_STATE", "the warrant is issued already", "it is issued once", "ask for another")
        if expires_at <= ctx.timestamp:
            raise refusal("E_TIME", "the warrant would be expired", "its end lies in the past", "choose a later one")
        person = await require_other_person(ctx, view, found.requester_person)
        issued = found.model_copy(
            update={
                "issuer": ctx.identity.msp_id,
                "issuer_person": person,
                "issued_at": ctx.timestamp,
                "expires_at": expires_at,
                "sealed_until": sealed_until,
                "uses_max": uses,
            }
        )
        await store.write(ctx, issued, store.WARRANT, warrant)
        ctx.set_event("WarrantIssued", {"warrant": warrant})
        return issued

    @query
    async def read(self, ctx: Context, warrant: Hex32) -> Warrant:
        """A warrant. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Warrant, store.WARRANT, warrant)

    @transaction
    async def break_glass(self, ctx: Context, dataset: Hex32, reason: ShortText) -> Emergency:
        """Declare an emergency: requests may then rest on it. Law must still permit them, and a review must follow.

        Raises E_NOT_ADMITTED, E_SUSPENDED, E_NOT_FOUND, and E_STATE while an earlier one of the caller is not reviewed.
        """
        view = StubView(ctx.stub)
        await require_active_caller(ctx, view)
        await store.require(view, DataSet, store.DATASET, dataset)
        identity = identity_hash(ctx.identity.id)
        latest = await latest_emergency(view, ctx.identity.msp_id, identity)
        if latest is not None and latest.review is None:
            raise refusal(
                "E_STATE",
                "an earlier emergency is not reviewed",
                f"it is {latest.id[:16]}",
                "have it reviewed first",
                emergency=latest.id,
            )
        emergency = Emergency(
            id=ctx.transaction_id,
            dataset=dataset,
            msp_id=ctx.identity.msp_id,
            identity=identity,
            reason=reason,
            declared_at=ctx.timestamp,
            review_by=ctx.timestamp + REVIEW_TIME,
        )
        await store.write(ctx, emergency, store.EMERGENCY, emergency.id)
        await store.write(
            ctx, OpenEmergency(emergency=emergency.id), store.OPEN_EMERGENCY, emergency.msp_id, emergency.identity
        )
        ctx.set_event("EmergencyDeclared", {"emergency": emergency.id})
        return emergency

    @transaction
    async def review(self, ctx: Context, emergency: Hex32, finding: Literal["justified", "abuse"]) -> Emergency:
        """As a judge or a supervisor, another person than declared it: find it justified or an abuse.

        A late review lifts the suspension; an abuse keeps whoever declared it suspended. Raises E_ROLE, E_NOT_FOUND,
        E_STATE, E_FOUR_EYES.
        """
        view = StubView(ctx.stub)
        await require_role(ctx, view, *ISSUERS)
        found = await store.require(view, Emergency, store.EMERGENCY, emergency)
        if found.review is not None:
            raise refusal("E_STATE", "the emergency is reviewed already", f"as {found.review}", "nothing is left to do")
        await require_other_person(ctx, view, await person_of(view, found.msp_id, found.identity))
        reviewed = found.model_copy(
            update={"review": finding, "reviewed_at": ctx.timestamp, "reviewer": ctx.identity.msp_id}
        )
        await store.write(ctx, reviewed, store.EMERGENCY, emergency)
        ctx.set_event("EmergencyReviewed", {"emergency": emergency})
        return reviewed

    @query
    async def emergency(self, ctx: Context, emergency: Hex32) -> Emergency:
        """An emergency. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Emergency, store.EMERGENCY, emergency)
