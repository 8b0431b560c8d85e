"""What a committed permit brings with it besides its receipt: duties, notices, counters, a used warrant. And whether it
still carries a release when the time for that comes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sovchain.chaincode import Context
from sovchain.contracts.core import store
from sovchain.contracts.core.engine import decision_places
from sovchain.contracts.core.facts import DecisionInput, Evidence
from sovchain.contracts.core.gates import gate_faults, is_counted_export
from sovchain.contracts.core.gathering import gather, tally_year
from sovchain.contracts.core.order_records import Duty, Notice, Tally, Warrant
from sovchain.contracts.core.records import DataSet, Receipt, Request, format_time
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.standing import require_no_hold
from sovchain.contracts.core.store import StateView, StubView

_LASTING = {"E_CONSENT", "E_EMERGENCY"}
"""Gates that must hold at the release too, not only at the decision."""


async def record_effects(ctx: Context, request: Request, facts: DecisionInput, receipt: Receipt) -> None:
    """Write what follows from a receipt, in its own transaction. Nothing follows from a denial."""
    if receipt.decision != "permit":
        return
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
    await _count(ctx, request, facts)
    if request.legal_basis == "warrant" and request.reference is not None:
        warrant = await store.require(StubView(ctx.stub), Warrant, store.WARRANT, request.reference)
        used = warrant.model_copy(update={"used": warrant.used + 1})
        await store.write(ctx, used, store.WARRANT, warrant.id)


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

    Raises E_NOT_PERMITTED without one, or when what it rests on (a consent, an emergency) has ended; E_HELD; E_OVERDUE while a
    duty of it is overdue; E_STATE after the data set's class was raised. A consent that is revoked in the same block as a
    release makes the release conflict, because both touch the consent's key.
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
    await require_no_hold(view, dataset.id, *dataset.subjects)
    if dataset.raised_at is not None and receipt.decided_at < dataset.raised_at:
        raise refusal(
            "E_STATE",
            "the data set's class was raised after this permit",
            f"it is {dataset.entry.data_class} since {format_time(dataset.raised_at)}",
            "file a new request",
            request=request.id,
        )
    await _require_no_overdue_duty(ctx, view, request)
    if request.legal_basis in {"consent", "vital-interest"} or request.purpose == "emergency-response":
        facts = await gather(view, request, timestamp=ctx.timestamp, channel=ctx.channel_id)
        # What was counted with the permit is not counted again.
        facts = replace(facts, evidence=replace(facts.evidence, received_rows=Evidence().received_rows))
        ended = [detail for code, _, detail in gate_faults(facts, decision_places(facts)) if code in _LASTING]
        if ended:
            raise refusal(
                "E_NOT_PERMITTED",
                "what the permit rests on has ended",
                ended[0],
                "file a new request once there is a ground for it",
                request=request.id,
            )
    return receipt


async def _require_no_overdue_duty(ctx: Context, view: StateView, request: Request) -> None:
    for duty in await store.scan(view, Duty, store.DUTY, request.id):
        if duty.done_at is None and ctx.timestamp >= duty.due:
            raise refusal(
                "E_OVERDUE",
                f"the duty to {duty.kind} is overdue",
                f"it was due at {format_time(duty.due)}",
                "fulfil it first",
                request=request.id,
                kind=duty.kind,
            )
