"""Co-signatures before a decision and duties after it."""

from __future__ import annotations

from typing import Literal

from sovchain.chaincode import Context, Contract, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.ballots import Seats
from sovchain.contracts.core.order_records import Cosignature, Duty, Notice
from sovchain.contracts.core.records import DataSet, Hex32, MspId, Request, format_time
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.standing import ISSUERS, person_of, require_other_person, require_role
from sovchain.contracts.core.store import StubView, identity_hash


class Duties(Contract):
    """What persons must do before and after a permit."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats

    @transaction
    async def cosign(self, ctx: Context, request: Hex32, approve: bool) -> Cosignature:
        """Sign for or against a request on file, as a person: for the regulator, or for a joint owner of the data set.

        A peer's endorsement is a machine's; this is a human's. The caller and whoever filed the request must be bound to two
        persons and belong to two organisations. Once only. Raises E_ROLE, E_NOT_FOUND, E_STATE, E_FOUR_EYES.
        """
        view = StubView(ctx.stub)
        filed = await store.require(view, Request, store.REQUEST, request)
        dataset = await store.require(view, DataSet, store.DATASET, filed.dataset)
        caller = ctx.identity.msp_id
        if caller in dataset.entry.joint_owners:
            await require_active_caller(ctx, view)
            who = caller
        else:
            await require_role(ctx, view, *ISSUERS)
            who = self._seats.seat_of(caller) or ""
        if who != caller and who != "regulator":
            raise refusal(
                "E_ROLE",
                f"{caller} does not co-sign this",
                "the regulator and joint owners do",
                "ask one of them",
                msp_id=caller,
            )
        if caller == filed.msp_id:
            raise refusal("E_FOUR_EYES", "this takes two organisations", "the requester's would co-sign", "ask another")
        await require_other_person(ctx, view, await person_of(view, filed.msp_id, filed.identity))
        if await view.get(store.key(store.RECEIPT, request)) is not None:
            raise refusal("E_STATE", "the request is decided already", "a receipt is final", "nothing is left to do")
        if await store.read(view, Cosignature, store.COSIGNATURE, request, who) is not None:
            raise refusal("E_STATE", "it is signed already", f"by {who}", "nothing is left to do")
        signed = Cosignature(
            request=request,
            who=who,
            msp_id=caller,
            identity=identity_hash(ctx.identity.id),
            approve=approve,
            signed_at=ctx.timestamp,
        )
        await store.write(ctx, signed, store.COSIGNATURE, request, who)
        ctx.set_event("RequestCosigned", {"request": request, "who": who})
        return signed

    @transaction
    async def fulfil(self, ctx: Context, request: Hex32, kind: Literal["report", "delete"], evidence: Hex32) -> Duty:
        """As the grantee: fulfil a duty. `evidence` is the hash of the report, or of the protocol of deletion.

        A late one is taken too and ends the suspension; the alert stays. Raises E_NOT_FOUND, E_NOT_GRANTEE, E_STATE.
        """
        found = await store.require(StubView(ctx.stub), Duty, store.DUTY, request, kind)
        if found.msp_id != ctx.identity.msp_id:
            raise refusal(
                "E_NOT_GRANTEE",
                f"{ctx.identity.msp_id} may not do this",
                f"it is a duty of {found.msp_id}",
                f"ask {found.msp_id}",
                request=request,
            )
        if found.done_at is not None:
            raise refusal(
                "E_STATE", "the duty is fulfilled already", "an earlier transaction did it", "nothing is left"
            )
        done = found.model_copy(update={"done_at": ctx.timestamp, "evidence": evidence})
        await store.write(ctx, done, store.DUTY, request, kind)
        ctx.set_event("DutyFulfilled", {"kind": kind, "request": request})
        return done

    @transaction
    async def tick(self, ctx: Context, request: Hex32, kind: Literal["report", "delete"]) -> Duty:
        """Find a duty overdue, on record; anybody may. Raises E_NOT_FOUND, E_STATE when it is fulfilled or not due."""
        found = await store.require(StubView(ctx.stub), Duty, store.DUTY, request, kind)
        if found.done_at is not None or ctx.timestamp < found.due or found.alerted_at is not None:
            raise refusal(
                "E_STATE",
                "the duty is not newly overdue",
                f"it is due at {format_time(found.due)}, or fulfilled or found overdue before",
                "nothing is left to do",
                request=request,
            )
        alerted = found.model_copy(update={"alerted_at": ctx.timestamp})
        await store.write(ctx, alerted, store.DUTY, request, kind)
        ctx.set_event("DutyOverdue", {"kind": kind, "request": request})
        return alerted

    @query
    async def listing(self, ctx: Context, request: Hex32) -> list[Duty]:
        """The duties that the permit on a request brought with it."""
        return await store.scan(StubView(ctx.stub), Duty, store.DUTY, request)

    @query
    async def notices(self, ctx: Context, msp_id: MspId) -> list[Notice]:
        """The decisions that an organisation was told of."""
        return await store.scan(StubView(ctx.stub), Notice, store.NOTICE, msp_id)

    @query
    async def cosignatures(self, ctx: Context, request: Hex32) -> list[Cosignature]:
        """Who signed for or against a request."""
        return await store.scan(StubView(ctx.stub), Cosignature, store.COSIGNATURE, request)
