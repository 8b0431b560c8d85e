"""Orders: holds and lifts, corrections, changes of class, purges with confirmations. Each stays on record.

None of them is an administrator's back door: an order forbids or destroys, it never permits; a payload is destroyed only by
its holders' own peers; and whatever an order changes, a new transaction says so and cites it.
"""

from __future__ import annotations

from typing import Literal

from sovchain.chaincode import Context, Contract, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.codes import class_rank
from sovchain.contracts.core.order_records import Correction, Hold, Order, Purge, Reclassification
from sovchain.contracts.core.receipts import delivered_hash, payload_key
from sovchain.contracts.core.records import DataClass, DataSet, Hex32, Page, Pointer, Request, ShortText
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.standing import ISSUERS, require_no_hold, require_owner, require_role
from sovchain.contracts.core.store import StateView, StubView, identity_hash, implicit_collection

Kind = Literal["hold", "lift", "purge", "correct", "reclassify"]


class Orders(Contract):
    """Orders of courts and of the regulator."""

    @transaction
    async def hold(self, ctx: Context, target: Hex32, reason: ShortText) -> Hold:
        """Hold a data set, or everything about a person (by pseudonym): no decision permits, nothing is delivered or opened.

        Called by a judge or a supervisor. Raises E_ROLE, E_NOT_ADMITTED, E_SUSPENDED.
        """
        await require_role(ctx, StubView(ctx.stub), *ISSUERS)
        hold = Hold(
            id=ctx.transaction_id,
            target=target,
            issuer=ctx.identity.msp_id,
            identity=identity_hash(ctx.identity.id),
            reason=reason,
            placed_at=ctx.timestamp,
        )
        await store.write(ctx, hold, store.HOLD, target, hold.id)
        await _record(ctx, "hold", target, reason)
        return hold

    @transaction
    async def lift(self, ctx: Context, target: Hex32, order: Hex32, reason: ShortText) -> Order:
        """Lift a hold; only the organisation that ordered it may. Raises E_ROLE, E_NOT_FOUND, E_NOT_ISSUER."""
        view = StubView(ctx.stub)
        await require_role(ctx, view, *ISSUERS)
        held = await store.require(view, Hold, store.HOLD, target, order)
        if held.issuer != ctx.identity.msp_id:
            raise refusal(
                "E_NOT_ISSUER",
                f"{ctx.identity.msp_id} cannot lift this hold",
                f"{held.issuer} ordered it",
                f"ask {held.issuer}",
                issuer=held.issuer,
            )
        await ctx.stub.delete_state(store.key(store.HOLD, target, order))
        return await _record(ctx, "lift", target, reason)

    @query
    async def holds(self, ctx: Context, target: Hex32) -> list[Hold]:
        """The holds in force on a data set or a person."""
        return await store.scan(StubView(ctx.stub), Hold, store.HOLD, target)

    @query
    async def order(self, ctx: Context, order: Hex32) -> Order:
        """An order on record. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Order, store.ORDER, order)

    @query
    async def listing(self, ctx: Context, bookmark: str = "") -> Page[Order]:
        """All orders, by id."""
        return await store.page(ctx.stub, Order, store.ORDER, bookmark=bookmark)

    @transaction
    async def correct(self, ctx: Context, target: Hex32, reason: ShortText, replacement: Hex32 | None = None) -> Order:
        """Mark a record (by its id) as wrong and name what replaces it, if anything. The record itself stays as it was.

        Called by a judge or a supervisor. Raises E_ROLE.
        """
        await require_role(ctx, StubView(ctx.stub), *ISSUERS)
        correction = Correction(target=target, replacement=replacement, order=ctx.transaction_id)
        await store.write(ctx, correction, store.CORRECTION, target, ctx.transaction_id)
        return await _record(ctx, "correct", target, reason)

    @query
    async def corrections(self, ctx: Context, target: Hex32) -> list[Correction]:
        """What was found wrong with a record."""
        return await store.scan(StubView(ctx.stub), Correction, store.CORRECTION, target)

    @transaction
    async def raise_class(self, ctx: Context, dataset: Hex32, data_class: DataClass, reason: ShortText) -> DataSet:
        """Raise a data set's class at once: every permit so far ends with it. By the owner, a judge or a supervisor.

        Raises E_NOT_FOUND, E_STATE for a class that is not higher, E_ROLE.
        """
        view = StubView(ctx.stub)
        found = await _in_circulation(view, dataset)
        if found.owner == ctx.identity.msp_id:
            await require_active_caller(ctx, view)
        else:
            await require_role(ctx, view, *ISSUERS)
        if class_rank(data_class) <= class_rank(found.entry.data_class):
            raise _not_that_way(found, data_class, "higher", "propose to lower it")
        await _record(ctx, "reclassify", dataset, reason)
        return await _reclassified(ctx, found, data_class, raised=True)

    @transaction
    async def propose_lower_class(self, ctx: Context, dataset: Hex32, data_class: DataClass) -> Reclassification:
        """As the owner: propose to lower a data set's class. Raises E_NOT_FOUND, E_NOT_OWNER, E_STATE."""
        view = StubView(ctx.stub)
        found = await _in_circulation(view, dataset)
        await require_active_caller(ctx, view)
        require_owner(ctx, found)
        if class_rank(data_class) >= class_rank(found.entry.data_class):
            raise _not_that_way(found, data_class, "lower", "raise it")
        proposal = Reclassification(
            dataset=dataset, data_class=data_class, proposed_by=ctx.identity.msp_id, proposed_at=ctx.timestamp
        )
        await store.write(ctx, proposal, store.RECLASSIFICATION, dataset)
        return proposal

    @transaction
    async def confirm_lower_class(self, ctx: Context, dataset: Hex32, reason: ShortText) -> DataSet:
        """As a judge or a supervisor of another organisation: lower a class as its owner proposed.

        Raises E_ROLE, E_NOT_FOUND, E_FOUR_EYES.
        """
        view = StubView(ctx.stub)
        await require_role(ctx, view, *ISSUERS)
        found = await _in_circulation(view, dataset)
        proposal = await store.require(view, Reclassification, store.RECLASSIFICATION, dataset)
        if proposal.proposed_by == ctx.identity.msp_id:
            raise refusal("E_FOUR_EYES", "this takes two organisations", "the owner confirms itself", "ask another one")
        await ctx.stub.delete_state(store.key(store.RECLASSIFICATION, dataset))
        await _record(ctx, "reclassify", dataset, reason)
        return await _reclassified(ctx, found, proposal.data_class, raised=False)

    # -- purge ---------------------------------------------------------------------------------------------------------

    @transaction
    async def order_purge(self, ctx: Context, dataset: Hex32, reason: ShortText) -> Purge:
        """Order that a payload is destroyed wherever it lies. By its owner, a judge or a supervisor.

        From now on nothing more is permitted or delivered of it. Raises E_NOT_FOUND, E_HELD, E_STATE, E_ROLE.
        """
        view = StubView(ctx.stub)
        found = await store.require(view, DataSet, store.DATASET, dataset)
        if found.owner == ctx.identity.msp_id:
            await require_active_caller(ctx, view)
        else:
            await require_role(ctx, view, *ISSUERS)
        await require_no_hold(view, dataset, *found.subjects)
        if await store.read(view, Purge, store.PURGE, dataset) is not None:
            raise refusal(
                "E_STATE", "a purge is ordered already", "an earlier transaction did it", "have its holders confirm"
            )
        holders = {found.owner}
        for request in await _requests(view, dataset):
            if await delivered_hash(ctx.stub, request) is not None:
                holders.add(request.msp_id)
        purge = Purge(
            dataset=dataset, order=ctx.transaction_id, holders=tuple(sorted(holders)), ordered_at=ctx.timestamp
        )
        await store.write(ctx, purge, store.PURGE, dataset)
        await _record(ctx, "purge", dataset, reason)
        changed = {"state": "withdrawn", "changed_at": ctx.timestamp, "reason": reason}
        await store.write(ctx, found.model_copy(update=changed), store.DATASET, dataset)
        return purge

    @transaction
    async def purge(self, ctx: Context, dataset: Hex32) -> str:
        """As a holder, endorsed by it alone: destroy what its collection has of a data set. Idempotent.

        Touches nothing but the holder's collection, so that no other peer's signature is needed. Raises E_NOT_FOUND without
        an order, E_HELD.
        """
        view = StubView(ctx.stub)
        await store.require(view, Purge, store.PURGE, dataset)
        found = await store.require(view, DataSet, store.DATASET, dataset)
        await require_no_hold(view, dataset, *found.subjects)
        holder = ctx.identity.msp_id
        for key in await _keys(view, found, holder):
            await ctx.stub.purge_private_data(implicit_collection(holder), key)
        return dataset

    @transaction
    async def confirm_purge(self, ctx: Context, dataset: Hex32) -> Purge:
        """As a holder: confirm that its payload is gone; every peer checks that no hash of it is left.

        The last confirmation closes the purge and leaves a tombstone in the catalogue. Idempotent. Raises E_NOT_FOUND,
        E_NOT_GRANTEE for an organisation that holds nothing, E_STATE while the payload is there.
        """
        view = StubView(ctx.stub)
        purge = await store.require(view, Purge, store.PURGE, dataset)
        found = await store.require(view, DataSet, store.DATASET, dataset)
        holder = ctx.identity.msp_id
        if holder not in purge.holders:
            raise refusal(
                "E_NOT_GRANTEE",
                f"{holder} holds nothing of it",
                f"holders are {', '.join(purge.holders)}",
                "nothing is left to do",
            )
        for key in await _keys(view, found, holder):
            if await ctx.stub.get_private_data_hash(implicit_collection(holder), key) is not None:
                raise refusal("E_STATE", "the payload is still there", "its hash is on every peer", "purge it first")
        confirmed = tuple(sorted({*purge.confirmed, holder}))
        closed = purge.closed_at or (ctx.timestamp if confirmed == purge.holders else None)
        done = purge.model_copy(update={"confirmed": confirmed, "closed_at": closed})
        await store.write(ctx, done, store.PURGE, dataset)
        if closed is not None and found.state != "purged":
            tombstone = {"state": "purged", "changed_at": ctx.timestamp}
            await store.write(ctx, found.model_copy(update=tombstone), store.DATASET, dataset)
        return done

    @query
    async def purge_status(self, ctx: Context, dataset: Hex32) -> Purge:
        """How a purge stands: who held the payload, and who has confirmed. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Purge, store.PURGE, dataset)


async def _record(ctx: Context, kind: Kind, target: str, reason: str) -> Order:
    order = Order(
        id=ctx.transaction_id,
        kind=kind,
        target=target,
        issuer=ctx.identity.msp_id,
        identity=identity_hash(ctx.identity.id),
        reason=reason,
        ordered_at=ctx.timestamp,
    )
    await store.write(ctx, order, store.ORDER, order.id)
    ctx.set_event("Ordered", {"kind": kind, "order": order.id})
    return order


async def _in_circulation(view: StateView, dataset: str) -> DataSet:
    found = await store.require(view, DataSet, store.DATASET, dataset)
    if found.state != "published":
        raise refusal("E_STATE", f"the data set is {found.state}", "its class matters no more", "nothing is left to do")
    return found


async def _reclassified(ctx: Context, found: DataSet, data_class: DataClass, *, raised: bool) -> DataSet:
    changed = found.model_copy(
        update={
            "entry": found.entry.model_copy(update={"data_class": data_class}),
            "changed_at": ctx.timestamp,
            "raised_at": ctx.timestamp if raised else found.raised_at,
        }
    )
    await store.write(ctx, changed, store.DATASET, found.id)
    return changed


def _not_that_way(found: DataSet, data_class: str, way: str, do: str) -> Exception:
    return refusal(
        "E_STATE", f"{data_class} is not {way}", f"the data set is {found.entry.data_class}", do, dataset=found.id
    )


async def _requests(view: StateView, dataset: str) -> list[Request]:
    """The decided requests on a data set."""
    pointers = await store.scan(view, Pointer, store.DECIDED_ON, dataset)
    return [await store.require(view, Request, store.REQUEST, pointer.request) for pointer in pointers]


async def _keys(view: StateView, found: DataSet, holder: str) -> list[str]:
    """Every key that a data set's payload may have in a holder's collection, whether it is there or not.

    A purge names them all each time: a transaction without any write would fall under the chaincode's own policy.
    """
    own = [payload_key(found.id)] if holder == found.owner else []
    return [*own, *(payload_key(found.id, one.id) for one in await _requests(view, found.id) if one.msp_id == holder)]
