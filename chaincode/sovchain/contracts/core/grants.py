"""What happens to a permit after it was given: use reports, revocation, and how it stands."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sovchain.chaincode import Context, Contract, Transient, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.effects import grant_faults
from sovchain.contracts.core.order_records import Duty, GrantState, Revocation, UseReport
from sovchain.contracts.core.receipts import delivered_hash
from sovchain.contracts.core.records import SALT_BYTES, DataSet, Hex32, Pointer, Receipt, Request, ShortText
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.sealing import seal
from sovchain.contracts.core.standing import ISSUERS, require_owner, require_role
from sovchain.contracts.core.store import StateView, StubView, identity_hash, implicit_collection

DELETE_AFTER_REVOCATION: Final = timedelta(days=10)
"""How long a grantee has to delete what a revoked permit had brought it."""
REPORT_MAX_BYTES: Final = 1024 * 1024
"""Longest use report, without its salt."""


class Grants(Contract):
    """Permits in use."""

    @transaction
    async def revoke(self, ctx: Context, request: Hex32, reason: ShortText) -> Revocation:
        """Revoke a permit: with the next block nothing more is released or opened on it. By the data set's owner, a judge or a
        supervisor. What was delivered must be deleted within `DELETE_AFTER_REVOCATION`.

        Raises E_NOT_FOUND, E_STATE, E_ROLE, E_NOT_ADMITTED, E_SUSPENDED.
        """
        view = StubView(ctx.stub)
        filed, dataset, _ = await _permit(view, request)
        if dataset.owner == ctx.identity.msp_id:
            await require_active_caller(ctx, view)
        else:
            await require_role(ctx, view, *ISSUERS)
        if await store.read(view, Revocation, store.REVOCATION, request) is not None:
            raise refusal("E_STATE", "it is revoked already", "an earlier transaction did it", "nothing is left to do")
        revocation = Revocation(
            request=request,
            revoked_by=ctx.identity.msp_id,
            identity=identity_hash(ctx.identity.id),
            reason=reason,
            revoked_at=ctx.timestamp,
        )
        await store.write(ctx, revocation, store.REVOCATION, request)
        if await delivered_hash(ctx.stub, filed) is not None:
            await _oblige_to_delete(ctx, view, filed)
        ctx.set_event("PermitRevoked", {"request": request})
        return revocation

    @query
    async def state(self, ctx: Context, request: Hex32) -> GrantState:
        """How a permit stands now: what stands against a release on it, and what the grantee owes. Raises E_NOT_FOUND, E_STATE."""
        view = StubView(ctx.stub)
        filed, dataset, receipt = await _permit(view, request)
        faults = [fault async for fault in grant_faults(ctx, view, filed, dataset, receipt)]
        report = await store.read(view, UseReport, store.USE_REPORT, request)
        return GrantState(
            request=request,
            dataset=dataset.id,
            grantee=filed.msp_id,
            permitted_at=receipt.decided_at,
            delivered=await delivered_hash(ctx.stub, filed) is not None,
            problems=tuple(f"{fault.code} {fault.message}" for fault in faults),
            duties=tuple(await store.scan(view, Duty, store.DUTY, request)),
            reported_at=report.filed_at if report else None,
        )

    @query
    async def products(self, ctx: Context, dataset: Hex32) -> list[str]:
        """The data sets that name this one as their source."""
        return [one.request for one in await store.scan(StubView(ctx.stub), Pointer, store.PRODUCT, dataset)]

    # -- use reports ---------------------------------------------------------------------------------------------------

    @transaction
    async def send_report(self, ctx: Context, request: Hex32, report: Transient[bytes]) -> str:
        """As the grantee: put a report on the use (salt and text) into the owner's collection; endorsed by the owner only.

        Returns the request's id. Raises E_NOT_FOUND, E_STATE, E_NOT_GRANTEE, E_NOT_ADMITTED, E_SUSPENDED, E_PAYLOAD.
        """
        view = StubView(ctx.stub)
        filed, dataset, _ = await _permit(view, request)
        await _require_grantee(ctx, view, filed)
        size = len(report) - SALT_BYTES
        if not 1 <= size <= REPORT_MAX_BYTES or len(set(report[:SALT_BYTES])) == 1:
            raise refusal(
                "E_PAYLOAD",
                "the report cannot be taken",
                f"it needs {SALT_BYTES} random bytes and a text of 1 to {REPORT_MAX_BYTES}",
                "write it anew",
            )
        await ctx.stub.put_private_data(implicit_collection(dataset.owner), report_key(request), report)
        return request

    @transaction
    async def file_report(self, ctx: Context, request: Hex32, commitment: Hex32) -> UseReport:
        """As the grantee: put on record that the report is with the owner; every peer compares its hash. It fulfils a duty to report.

        Raises E_NOT_FOUND, E_STATE, E_NOT_GRANTEE, E_NOT_ADMITTED, E_SUSPENDED, E_COMMITMENT.
        """
        view = StubView(ctx.stub)
        filed, dataset, _ = await _permit(view, request)
        await _require_grantee(ctx, view, filed)
        kept = await ctx.stub.get_private_data_hash(implicit_collection(dataset.owner), report_key(request))
        if kept is None or kept.hex() != commitment:
            raise refusal(
                "E_COMMITMENT",
                "the owner has no such report",
                "the hash in its collection is another one" if kept else "nothing was sent, or it is not committed yet",
                "send the report first",
                request=request,
            )
        report = UseReport(request=request, msp_id=filed.msp_id, commitment=commitment, filed_at=ctx.timestamp)
        await store.write(ctx, report, store.USE_REPORT, request)
        duty = await store.read(view, Duty, store.DUTY, request, "report")
        if duty is not None and duty.done_at is None:
            done = duty.model_copy(update={"done_at": ctx.timestamp, "evidence": commitment})
            await store.write(ctx, done, store.DUTY, request, "report")
        ctx.set_event("UseReported", {"request": request})
        return report

    @query
    async def read_report(self, ctx: Context, request: Hex32, key: Transient[bytes]) -> bytes:
        """As the owner, on its own peer: the report's salt and text, sealed with `key` (32 random bytes, used once).

        Raises E_NOT_FOUND, E_STATE, E_NOT_OWNER, E_KEY.
        """
        _, dataset, _ = await _permit(StubView(ctx.stub), request)
        require_owner(ctx, dataset)
        found = await ctx.stub.get_private_data(implicit_collection(dataset.owner), report_key(request))
        if found is None:
            raise refusal("E_NOT_FOUND", "there is no report", "the grantee has sent none", "ask the grantee for it")
        try:
            return seal(found, key)
        except ValueError as error:
            raise refusal("E_KEY", "it cannot be sealed", str(error), "send a fresh key with each call") from None


def report_key(request: str) -> str:
    """Key of a use report in the owner's private collection."""
    return store.key(store.USE_REPORT, request)


async def _permit(view: StateView, request: str) -> tuple[Request, DataSet, Receipt]:
    filed = await store.require(view, Request, store.REQUEST, request)
    receipt = await store.require(view, Receipt, store.RECEIPT, request)
    if receipt.decision != "permit":
        raise refusal("E_STATE", "the request was denied", "there is no permit", "read its receipt, which says why")
    return filed, await store.require(view, DataSet, store.DATASET, filed.dataset), receipt


async def _require_grantee(ctx: Context, view: StateView, filed: Request) -> None:
    if filed.msp_id != ctx.identity.msp_id:
        raise refusal(
            "E_NOT_GRANTEE",
            f"{ctx.identity.msp_id} may not do this",
            f"the request was filed by {filed.msp_id}",
            f"ask {filed.msp_id}",
            request=filed.id,
        )
    await require_active_caller(ctx, view)


async def _oblige_to_delete(ctx: Context, view: StateView, filed: Request) -> None:
    due = ctx.timestamp + DELETE_AFTER_REVOCATION
    duty = await store.read(view, Duty, store.DUTY, filed.id, "delete")
    if duty is not None and (duty.done_at is not None or duty.due <= due):
        return
    await store.write(
        ctx, Duty(request=filed.id, kind="delete", msp_id=filed.msp_id, due=due), store.DUTY, filed.id, "delete"
    )
