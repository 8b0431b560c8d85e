"""What a committed permit brings with it besides its receipt: duties, notices, counters, a used warrant. And whether it
still carries a release when the time for that comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

from sovchain.chaincode import Context, ContractError
from sovchain.contracts.core import store
from sovchain.contracts.core.engine import counted_rows, decision_places
from sovchain.contracts.core.facts import DecisionInput, Evidence
from sovchain.contracts.core.gates import gate_faults, is_counted_export
from sovchain.contracts.core.gathering import gather, tally_year, usage_day
from sovchain.contracts.core.lineage import ancestors, out_of_circulation
from sovchain.contracts.core.order_records import Duty, Notice, Revocation, Tally, Usage, Warrant
from sovchain.contracts.core.records import DataSet, Pointer, Receipt, Request, format_time
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.standing import require_no_hold
from sovchain.contracts.core.store import StateView, StubView

_LASTING = {"E_CONSENT", "E_EMERGENCY"}
"""Gates that must hold at the release too, not only at the decision."""


async def record_effects(ctx: Context, request: Request, facts: DecisionInput, receipt: Receipt) -> None:
    """Write what follows from a receipt, in its own transaction. Nothing follows from a denial."""
    if receipt.decision != "permit":
        return
    if request.action == "derive":
        await store.write(ctx, Pointer(request=request.id), store.MAY_DERIVE, request.dataset, request.msp_id)
    for one in receipt.obligations:
        kind = one.kind
        if kind == "report" or kind == "delete":
            due = receipt.decided_at + timedelta(days=one.days)
            duty = Duty(request=request.id, kind=kind, msp_id=request.msp_id, due=due)
            await store.write(ctx, duty, store.DUTY, request.id, kind)
        elif kind == "notify":
            for name in one.names:
                notice = Notice(request=request.id, msp_id=name, decided_at=receipt.decided_at)
                await store.write(ctx, notice, store.NOTICE, name, request.id)
    if any(one.kind == "quota" for one in receipt.obligations):
        await _count_usage(ctx, request, facts)
    await _count(ctx, request, facts)
    if request.legal_basis == "warrant" and request.reference is not None:
        warrant = await store.require(StubView(ctx.stub), Warrant, store.WARRANT, request.reference)
        used = warrant.model_copy(update={"used": warrant.used + 1})
        await store.write(ctx, used, store.WARRANT, warrant.id)


async def _count_usage(ctx: Context, request: Request, facts: DecisionInput) -> None:
    used, rows = facts.evidence.used_rows, counted_rows(facts.resource)
    usage = Usage(
        day=usage_day(facts.time),
        day_rows=used.get("day", 0) + rows,
        month_rows=used.get("month", 0) + rows,
        year_rows=used.get("year", 0) + rows,
    )
    await store.write(ctx, usage, store.USAGE, request.dataset, request.msp_id)


async def _count(ctx: Context, request: Request, facts: DecisionInput) -> None:
    resource, evidence = facts.resource, facts.evidence
    if resource is None or resource.personal == "none":
        return
    year = tally_year(facts.time)
    received = Tally(rows=evidence.received_rows + resource.rows)
    await store.write(ctx, received, store.RECEIVED, request.msp_id, resource.owner, year)
    if is_counted_export(facts, decision_places(facts)):
        exported = Tally(
            persons=evidence.exported_persons + resource.rows,
            sensitive=evidence.exported_sensitive + (resource.rows if resource.personal == "sensitive" else 0),
        )
        await store.write(ctx, exported, store.EXPORTED, resource.owner, year)


async def require_permit(ctx: Context, view: StateView, request: Request, dataset: DataSet) -> Receipt:
    """The permit on a request, if it carries a release now.

    Raises E_NOT_PERMITTED without one, or when what it rests on (a consent, an emergency) has ended; E_REVOKED, E_EXPIRED; E_HELD;
    E_OVERDUE while a duty of it is overdue; E_STATE after the data set's class was raised or a source was withdrawn. What ends a
    permit in the same block as a release makes the release conflict, because both touch one key.
    """
    receipt = await store.read(view, Receipt, store.RECEIPT, request.id)
    if receipt is None or receipt.decision != "permit":
        undecided = receipt is None
        raise refusal(
            "E_NOT_PERMITTED",
            "the request is not decided yet" if undecided else "the request was denied",
            "data move only after a committed permit",
            "have it decided first" if undecided else "read its receipt, which says why",
            request=request.id,
        )
    async for fault in grant_faults(ctx, view, request, dataset, receipt):
        raise fault
    return receipt


async def require_may_derive(ctx: Context, view: StateView, source: DataSet, msp_id: str) -> None:
    """Go on only when an organisation may make products of a data set: it owns it, or its permit to derive carries still.

    Raises E_NOT_PERMITTED, and what `require_permit` raises.
    """
    if source.owner == msp_id:
        return
    pointer = await store.read(view, Pointer, store.MAY_DERIVE, source.id, msp_id)
    if pointer is None:
        raise refusal(
            "E_NOT_PERMITTED",
            f"{msp_id} may not make a product of another's data set",
            f"{source.id[:16]} is {source.owner}'s, and no permit to derive was given",
            "ask for it with the action derive",
            dataset=source.id,
        )
    await require_permit(ctx, view, await store.require(view, Request, store.REQUEST, pointer.request), source)


async def grant_faults(
    ctx: Context, view: StateView, request: Request, dataset: DataSet, receipt: Receipt
) -> AsyncIterator[ContractError]:
    """Everything that stands against a release on a permit now, but for the data set's own withdrawal."""
    for ended in await _ended(ctx, view, request, receipt):
        yield ended
    try:
        await require_no_hold(view, dataset.id, *dataset.subjects)
    except ContractError as held:
        yield held
    source = out_of_circulation(await ancestors(view, dataset.entry.sources))
    if source is not None:
        yield refusal(
            "E_STATE",
            "a source of the data set was withdrawn",
            f"it was made from {source[:16]}, which is out of circulation",
            "publish a product of other sources",
            request=request.id,
            source=source,
        )
    if dataset.raised_at is not None and receipt.decided_at < dataset.raised_at:
        yield refusal(
            "E_STATE",
            "the data set's class was raised after this permit",
            f"it is {dataset.entry.data_class} since {format_time(dataset.raised_at)}",
            "file a new request",
            request=request.id,
        )
    for duty in await store.scan(view, Duty, store.DUTY, request.id):
        if duty.done_at is None and ctx.timestamp >= duty.due:
            yield refusal(
                "E_OVERDUE",
                f"the duty to {duty.kind} is overdue",
                f"it was due at {format_time(duty.due)}",
                "fulfil it first",
                request=request.id,
                kind=duty.kind,
            )
    for detail in await _ended_grounds(ctx, view, request):
        yield refusal(
            "E_NOT_PERMITTED",
            "what the permit rests on has ended",
            detail,
            "file a new request once there is a ground for it",
            request=request.id,
        )


async def _ended(ctx: Context, view: StateView, request: Request, receipt: Receipt) -> list[ContractError]:
    found = []
    revocation = await store.read(view, Revocation, store.REVOCATION, request.id)
    if revocation is not None:
        found.append(
            refusal(
                "E_REVOKED",
                "the permit was revoked",
                f"{revocation.revoked_by} revoked it as {revocation.reason}",
                "file a new request",
                request=request.id,
            )
        )
    for one in receipt.obligations:
        end = receipt.decided_at + timedelta(days=one.days)
        if one.kind == "expires" and ctx.timestamp >= end:
            found.append(
                refusal(
                    "E_EXPIRED",
                    "the permit has expired",
                    f"it carried until {format_time(end)}",
                    "file a new request",
                    request=request.id,
                )
            )
    return found


async def _ended_grounds(ctx: Context, view: StateView, request: Request) -> list[str]:
    if request.legal_basis not in {"consent", "vital-interest"} and request.purpose != "emergency-response":
        return []
    facts = await gather(view, request, timestamp=ctx.timestamp, channel=ctx.channel_id)
    # What was counted with the permit is not counted again.
    facts = replace(facts, evidence=replace(facts.evidence, received_rows=Evidence().received_rows))
    return [detail for code, _, detail in gate_faults(facts, decision_places(facts)) if code in _LASTING]
