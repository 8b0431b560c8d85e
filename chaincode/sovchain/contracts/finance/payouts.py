"""Payouts: approvals that came from the government channel, each paid once, by its bank, to the account it names.

The bank learns the account from the authority, in its own private collection; every peer compares the hash that Fabric keeps
of it with the one in the approval, so that another account cannot be paid and nobody else sees which it is.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from pydantic import ValidationError

from sovchain.chaincode import Context, Contract, Given, StateMachine, To, Transient, guard, holder, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.crossing_records import Arrival
from sovchain.contracts.core.portable import Receivable
from sovchain.contracts.core.records import SALT_BYTES, Hex32, MspId, Page, Record, ShortText, Timestamp, Word
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active, require_active_caller
from sovchain.contracts.core.store import StubView, implicit_collection
from sovchain.contracts.government.relief import Approval, Fen
from sovchain.contracts.scenario import Scenario
from sovchain.protocol.keys import composite_key

PAYOUT: Final = "payout"  # case id
PAYEE: Final = "payee"  # private; case id


class Payout(Record):
    """An approval as this channel holds it. `reference` is the bank's own, and names nobody."""

    case: Hex32
    programme: Word
    village: ShortText
    payee: Hex32
    bank: MspId
    amount_fen: Fen
    drill: bool
    challenge: Hex32
    proof: Hex32
    state: Literal["ordered", "paid", "confirmed"]
    ordered_at: Timestamp
    paid_at: Timestamp | None = None
    reference: str = ""
    confirmed_at: Timestamp | None = None
    confirmed_by: MspId | None = None


@guard("E_NO_PAYEE", "the bank was told the account")
def account_told(ctx: Context, payout: Payout, given: Given) -> bool:
    """By the authority, into the bank's own collection."""
    return given["kept"] is not None


@guard("E_COMMITMENT", "the account is the one that was approved")
def account_approved(ctx: Context, payout: Payout, given: Given) -> bool:
    """By the hash that Fabric keeps of what the bank was told."""
    return bool(given["kept"].hex() == payout.payee)


class Payouts(Contract):
    """Orders that are paid once."""

    life = StateMachine(
        Payout,
        {
            (None, "order"): To("ordered", text="by the proof of an approval"),
            ("ordered", "pay"): To("paid", holder("bank"), (account_told, account_approved), code="E_BANK"),
            ("paid", "confirm"): To("confirmed", ~holder("bank"), code="E_BANK"),
        },
        title="order",
    )

    @transaction
    async def tell_payee(self, ctx: Context, case: Hex32, payee: Transient[bytes]) -> str:
        """As the authority: put salt and account into the bank's collection; endorsed by the bank only.

        Raises E_NOT_FOUND, E_NOT_ADMITTED, E_SUSPENDED, E_COMMITMENT for another account than was approved.
        """
        view = StubView(ctx.stub)
        await require_active_caller(ctx, view)
        payout = await store.require(view, Payout, PAYOUT, case)
        if len(payee) <= SALT_BYTES or store.sha256_hex(payee) != payout.payee:
            raise _other_account(case)
        await ctx.stub.put_private_data(implicit_collection(payout.bank), payee_key(case), payee)
        ctx.set_event("PayeeTold", {"case": case})
        return case

    @transaction
    async def pay(self, ctx: Context, case: Hex32, reference: ShortText) -> Payout:
        """As the bank: put on record that the order was paid, once, to the account in its own collection.

        Raises E_NOT_FOUND, E_BANK, E_NOT_ADMITTED, E_SUSPENDED, E_STATE, E_NO_PAYEE, E_COMMITMENT.
        """
        view = StubView(ctx.stub)
        await require_active_caller(ctx, view)
        payout = await store.require(view, Payout, PAYOUT, case)
        kept = await ctx.stub.get_private_data_hash(implicit_collection(payout.bank), payee_key(case))
        changes = {"paid_at": ctx.timestamp, "reference": reference}
        paid = await self.life.apply(ctx, payout, "pay", changes, {"kept": kept})
        await store.write(ctx, paid, PAYOUT, case)
        ctx.set_event("PayoutMade", {"case": case})
        return paid

    @transaction
    async def confirm(self, ctx: Context, case: Hex32) -> Payout:
        """As another organisation than the bank, for the household: put on record that the money came.

        Raises E_NOT_FOUND, E_BANK, E_NOT_ADMITTED, E_SUSPENDED, E_STATE.
        """
        view = StubView(ctx.stub)
        await require_active_caller(ctx, view)
        payout = await store.require(view, Payout, PAYOUT, case)
        changes = {"confirmed_at": ctx.timestamp, "confirmed_by": ctx.identity.msp_id}
        confirmed = await self.life.apply(ctx, payout, "confirm", changes)
        await store.write(ctx, confirmed, PAYOUT, case)
        ctx.set_event("PayoutConfirmed", {"case": case})
        return confirmed

    @query
    async def payout(self, ctx: Context, case: Hex32) -> Payout:
        """An order and what came of it. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Payout, PAYOUT, case)

    @query
    async def payouts(self, ctx: Context, bookmark: str = "") -> Page[Payout]:
        """All orders, by case: the money's way on this channel, as everybody may see it."""
        return await store.page(ctx.stub, Payout, PAYOUT, bookmark=bookmark)


class ApprovalsIn(Receivable):
    """Approvals that come from the government channel, each once."""

    record_type: ClassVar[str] = "relief-approval"
    sources: ClassVar[tuple[str, ...]] = ("government",)

    async def receive(self, ctx: Context, arrival: Arrival, content: str) -> None:
        """Order the payment. Raises E_FORM, E_BANK, E_NOT_ADMITTED, E_SUSPENDED, E_STATE."""
        try:
            approval = Approval.model_validate_json(content)
        except ValidationError:
            raise refusal(
                "E_FORM", "the approval has another form", "its source speaks another version", "upgrade this channel"
            ) from None
        view = StubView(ctx.stub)
        if approval.bank != ctx.identity.msp_id or approval.case != arrival.record_id:
            raise refusal("E_BANK", "the approval is for another", f"{approval.bank} pays it", "leave it to that bank")
        await require_active(view, approval.bank)
        before = await store.read(view, Payout, PAYOUT, approval.case)
        await Payouts.life.step(ctx, before, "order")
        payout = Payout(
            case=approval.case,
            programme=approval.programme,
            village=approval.village,
            payee=approval.payee,
            bank=approval.bank,
            amount_fen=approval.amount_fen,
            drill=approval.drill,
            challenge=arrival.challenge,
            proof=arrival.proof,
            state="ordered",
            ordered_at=ctx.timestamp,
        )
        await store.write(ctx, payout, PAYOUT, approval.case)


def payee_key(case: str) -> str:
    """Key of a case's salt and account in its bank's collection."""
    return composite_key(PAYEE, [case])


def _other_account(case: str) -> Exception:
    return refusal(
        "E_COMMITMENT", "this is not the account that was approved", "its hash differs", "pay no other one", case=case
    )


SCENARIO: Final = Scenario(
    "poverty-relief", "Precise poverty relief", (Payouts(),), (Payouts.life,), incoming=(ApprovalsIn(),)
)
