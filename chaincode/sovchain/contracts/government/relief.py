"""Precise poverty relief: a household's way from its application to an approval that a bank on another channel pays.

The order of the steps, the two publicity periods, the hearing of objections and the personal answer of each level are those
of the registration procedure (village assembly, village publicity, township audit, second publicity, county approval) and
of the provincial regulation's articles 15 to 17. `TABLE` is the whole of it.

Nobody's name, number or account is in here. A household is a pseudonym that its authority computes with a key that stays in
the jurisdiction; its account is a salted hash, the one that the bank's own payee record must have.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from sovchain.chaincode import Context, Contract, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.ballots import require_admin
from sovchain.contracts.core.crossing_records import Challenge
from sovchain.contracts.core.portable import Portable
from sovchain.contracts.core.records import Hex32, MspId, Page, Record, ShortText, Timestamp, Word, format_time
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.store import StubView, identity_hash
from sovchain.protocol.keys import composite_key

PUBLICITY_MIN: Final = timedelta(days=7)
"""Shortest publicity period of a programme that pays real money."""
PURPOSE: Final = "poverty-relief"

PROGRAMME: Final = "relief-programme"  # programme id
CASE: Final = "relief-case"  # case id
HOUSEHOLD: Final = "relief-household"  # pseudonym: the case that is open or was approved for it
OBJECTION: Final = "relief-objection"  # case id, objection id
SPENT: Final = "relief-spent"  # programme id, case id: an approval's amount

State = Literal[
    "applied", "reviewed", "publicity-1", "audited", "publicity-2", "approved", "sent", "ordered", "rejected"
]
Step = Literal[
    "apply", "review", "publish", "audit", "publish-again", "approve", "reject", "send", "finalise", "release"
]
Office = Literal["clerk", "village", "notice", "township", "county"]
Fen = Annotated[int, Field(ge=1, le=10**15)]
"""Money in fen, the hundredth part of a yuan."""

TABLE: Final[Mapping[tuple[State | None, Step], tuple[State, Office | None]]] = {
    (None, "apply"): ("applied", "clerk"),
    ("applied", "review"): ("reviewed", "village"),
    ("reviewed", "publish"): ("publicity-1", "notice"),
    ("publicity-1", "audit"): ("audited", "township"),
    ("audited", "publish-again"): ("publicity-2", "notice"),
    ("publicity-2", "approve"): ("approved", "county"),
    ("approved", "send"): ("sent", "county"),
    ("sent", "finalise"): ("ordered", None),
    ("sent", "release"): ("approved", None),
    ("applied", "reject"): ("rejected", "village"),
    ("publicity-1", "reject"): ("rejected", "township"),
    ("publicity-2", "reject"): ("rejected", "county"),
}
"""What may happen: (state, step) to (next state, office that takes the step; None: whoever proves that it is due)."""
_PERIODS: Final = ("publicity-1", "publicity-2")


class Programme(Record):
    """A relief programme. A drill has a shorter publicity and says so in everything that comes of it."""

    id: Word
    title: ShortText
    authority: MspId
    bank: MspId
    budget_fen: Fen
    grant_fen: Fen
    publicity_s: Annotated[int, Field(ge=1, le=365 * 86_400)]
    drill: bool = False
    opened_at: Timestamp | None = None


class Registration(Record):
    """The case that a household has."""

    case: Hex32


class Signature(Record):
    """One step of a case and who answers for it."""

    step: Step
    office: Office | None
    msp_id: MspId
    identity: Hex32
    at: Timestamp
    transaction: Hex32
    note: str = ""


class Case(Record):
    """One household's case in a programme. `payee` is the SHA-256 of salt and account."""

    id: Hex32
    programme: Word
    household: Hex32
    village: ShortText
    payee: Hex32
    state: State
    votes: tuple[int, int, int] | None = None
    publicity_ends: Timestamp | None = None
    signatures: tuple[Signature, ...] = ()


class Objection(Record):
    """An objection to a case in its publicity. While it is open the case does not move."""

    id: Hex32
    case: Hex32
    ground: ShortText
    raised_by: MspId
    raised_at: Timestamp
    state: Literal["open", "dismissed", "upheld"] = "open"
    finding: str = ""
    signature: Signature | None = None


class Approval(Record):
    """What crosses to the bank's channel: whom to pay, how much, and under which case; never why."""

    case: Hex32
    programme: Word
    village: ShortText
    payee: Hex32
    bank: MspId
    amount_fen: Fen
    drill: bool
    approved_at: Timestamp
    approved_by: Hex32


class Flow(Record):
    """What everybody may see of an approval: money and place, no household."""

    programme: Word
    case: Hex32
    village: ShortText
    amount_fen: Fen


class Relief(Contract):
    """Programmes and cases. Each deciding step is another person's, and each person answers with a signature."""

    @transaction
    async def open_programme(self, ctx: Context, programme: Programme) -> Programme:
        """Open a programme. Called by an admin of its authority. Raises E_ROLE, E_AUTHORITY, E_STATE, E_INPUT."""
        require_admin(ctx)
        view = StubView(ctx.stub)
        await require_active_caller(ctx, view)
        if programme.authority != ctx.identity.msp_id:
            raise _not_authority(programme.authority)
        if await store.read(view, Programme, PROGRAMME, programme.id) is not None:
            raise refusal(
                "E_STATE", f"programme {programme.id} is open already", "an id is used once", "use another id"
            )
        if programme.grant_fen > programme.budget_fen or programme.opened_at is not None:
            raise refusal(
                "E_INPUT",
                "the programme cannot be",
                "one grant is more than its budget, or it has a time",
                "correct it",
            )
        if not programme.drill and timedelta(seconds=programme.publicity_s) < PUBLICITY_MIN:
            raise refusal(
                "E_INPUT",
                "the publicity is too short",
                f"{PUBLICITY_MIN.days} days are the least",
                "make it longer, or call the programme a drill",
            )
        opened = programme.model_copy(update={"opened_at": ctx.timestamp})
        await store.write(ctx, opened, PROGRAMME, programme.id)
        ctx.set_event("ProgrammeOpened", {"programme": programme.id})
        return opened

    @transaction
    async def apply(self, ctx: Context, programme: Word, household: Hex32, village: ShortText, payee: Hex32) -> Case:
        """Put a household's application on record. Called by a clerk. Raises E_OFFICE, E_AUTHORITY, E_STATE."""
        view = StubView(ctx.stub)
        found = await store.require(view, Programme, PROGRAMME, programme)
        signature = await _signature(ctx, found, "apply", "clerk", ())
        other = await store.read(view, Registration, HOUSEHOLD, household)
        if other is not None:
            raise refusal(
                "E_STATE",
                "the household has a case already",
                "a household is registered once",
                "go on with that case",
                case=other.case,
            )
        case = Case(
            id=ctx.transaction_id,
            programme=programme,
            household=household,
            village=village,
            payee=payee,
            state="applied",
            signatures=(signature,),
        )
        await store.write(ctx, case, CASE, case.id)
        await store.write(ctx, Registration(case=case.id), HOUSEHOLD, household)
        ctx.set_event("ReliefApplied", {"case": case.id})
        return case

    @transaction
    async def review(self, ctx: Context, case: Hex32, votes_for: int, votes_against: int, eligible: int) -> Case:
        """Record the villagers' assembly. More votes for than against, and no more votes than villagers.

        Called by a village office. Raises E_OFFICE, E_AUTHORITY, E_SIGNER, E_STATE, E_VOTES.
        """
        if votes_for < 0 or votes_against < 0 or not 0 < votes_for + votes_against <= eligible:
            raise refusal(
                "E_VOTES",
                "the count cannot be",
                f"{votes_for} for and {votes_against} against of {eligible}",
                "count again",
            )
        if votes_for <= votes_against:
            raise refusal(
                "E_VOTES", "the assembly did not agree", f"{votes_for} for, {votes_against} against", "reject the case"
            )
        return await self._step(ctx, case, "review", votes=(votes_for, votes_against, eligible))

    @transaction
    async def publish(self, ctx: Context, case: Hex32) -> Case:
        """Begin the publicity that is due, in the village or after the township's audit. Called by a notice office.

        Raises E_OFFICE, E_AUTHORITY, E_STATE.
        """
        step: Step = "publish" if (await self._case(ctx, case)).state == "reviewed" else "publish-again"
        return await self._step(ctx, case, step)

    @transaction
    async def audit(self, ctx: Context, case: Hex32, finding: ShortText) -> Case:
        """The township's audit, once the first publicity is over and no objection is open.

        Raises E_OFFICE, E_AUTHORITY, E_SIGNER, E_STATE, E_PUBLICITY, E_OBJECTION.
        """
        return await self._step(ctx, case, "audit", note=finding)

    @transaction
    async def approve(self, ctx: Context, case: Hex32) -> Case:
        """The county's approval, once the second publicity is over and no objection is open.

        Raises E_OFFICE, E_AUTHORITY, E_SIGNER, E_STATE, E_PUBLICITY, E_OBJECTION, E_BUDGET.
        """
        view = StubView(ctx.stub)
        found = await self._case(ctx, case)
        programme = await store.require(view, Programme, PROGRAMME, found.programme)
        spent = sum(flow.amount_fen for flow in await store.scan(view, Flow, SPENT, programme.id))
        if spent + programme.grant_fen > programme.budget_fen:
            raise refusal(
                "E_BUDGET",
                "the budget does not reach",
                f"{programme.budget_fen - spent} fen are left of it",
                "open another programme",
            )
        approved = await self._step(ctx, case, "approve")
        flow = Flow(programme=programme.id, case=case, village=found.village, amount_fen=programme.grant_fen)
        await store.write(ctx, flow, SPENT, programme.id, case)
        return approved

    @transaction
    async def reject(self, ctx: Context, case: Hex32, reason: ShortText) -> Case:
        """End a case. Called by the office whose decision is due. Raises E_OFFICE, E_AUTHORITY, E_SIGNER, E_STATE."""
        rejected = await self._step(ctx, case, "reject", note=reason)
        await ctx.stub.delete_state(composite_key(HOUSEHOLD, [rejected.household]))
        return rejected

    @transaction
    async def object(self, ctx: Context, case: Hex32, ground: ShortText) -> Objection:
        """Object to a case in its publicity; the ground is public, so it names nobody. Called by anyone admitted.

        Raises E_NOT_ADMITTED, E_SUSPENDED, E_STATE.
        """
        view = StubView(ctx.stub)
        await require_active_caller(ctx, view)
        found = await self._case(ctx, case)
        if found.state not in _PERIODS:
            raise refusal(
                "E_STATE", f"the case is {found.state}", "objections are heard in a publicity", "appeal instead"
            )
        objection = Objection(
            id=ctx.transaction_id,
            case=case,
            ground=ground,
            raised_by=ctx.identity.msp_id,
            raised_at=ctx.timestamp,
        )
        await store.write(ctx, objection, OBJECTION, case, objection.id)
        ctx.set_event("ObjectionRaised", {"case": case, "objection": objection.id})
        return objection

    @transaction
    async def resolve(
        self, ctx: Context, case: Hex32, objection: Hex32, outcome: Literal["dismissed", "upheld"], finding: ShortText
    ) -> Objection:
        """Resolve an objection with a finding. Called by the office whose decision is due, by one who signed nothing yet.

        An upheld objection does not end the case by itself: the office that is due rejects it. Raises E_OFFICE,
        E_AUTHORITY, E_SIGNER, E_STATE, E_NOT_FOUND.
        """
        view = StubView(ctx.stub)
        found = await self._case(ctx, case)
        raised = await store.require(view, Objection, OBJECTION, case, objection)
        if raised.state != "open":
            raise refusal("E_STATE", f"the objection is {raised.state}", "it is resolved once", "nothing is left to do")
        office: Office = "township" if found.state == "publicity-1" else "county"
        programme = await store.require(view, Programme, PROGRAMME, found.programme)
        signature = await _signature(ctx, programme, "audit", office, found.signatures, note=finding)
        resolved = raised.model_copy(update={"state": outcome, "finding": finding, "signature": signature})
        await store.write(ctx, resolved, OBJECTION, case, objection)
        ctx.set_event("ObjectionResolved", {"case": case, "objection": objection, "outcome": outcome})
        return resolved

    @query
    async def case(self, ctx: Context, case: Hex32) -> Case:
        """A case with its signatures. Raises E_NOT_FOUND."""
        return await self._case(ctx, case)

    @query
    async def objections(self, ctx: Context, case: Hex32) -> list[Objection]:
        """The objections to a case, by id."""
        return await store.scan(StubView(ctx.stub), Objection, OBJECTION, case)

    @query
    async def programme(self, ctx: Context, programme: Word) -> Programme:
        """A programme. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Programme, PROGRAMME, programme)

    @query
    async def flow(self, ctx: Context, programme: Word, bookmark: str = "") -> Page[Flow]:
        """The money's way as everybody may see it: approvals of a programme by case."""
        return await store.page(ctx.stub, Flow, SPENT, programme, bookmark=bookmark)

    async def _case(self, ctx: Context, case: str) -> Case:
        return await store.require(StubView(ctx.stub), Case, CASE, case)

    async def _step(
        self,
        ctx: Context,
        case_id: str,
        step: Step,
        *,
        note: str = "",
        votes: tuple[int, int, int] | None = None,
    ) -> Case:
        view = StubView(ctx.stub)
        case = await self._case(ctx, case_id)
        state, office = _row(case, step)
        programme = await store.require(view, Programme, PROGRAMME, case.programme)
        signature = await _signature(ctx, programme, step, office, case.signatures, note=note)
        objections = await store.scan(view, Objection, OBJECTION, case_id)
        if step != "reject":
            _check_publicity(case, objections, ctx.timestamp)
        changed = case.model_copy(
            update={
                "state": state,
                "signatures": (*case.signatures, signature),
                "votes": votes or case.votes,
                "publicity_ends": ctx.timestamp + timedelta(seconds=programme.publicity_s)
                if state in _PERIODS
                else None,
            }
        )
        await store.write(ctx, changed, CASE, case_id)
        ctx.set_event("ReliefStep", {"case": case_id, "state": state})
        return changed


class ApprovalsOut(Portable):
    """Approvals that move to the bank's channel. A case is `sent` while its approval is on its way."""

    record_type: ClassVar[str] = "relief-approval"
    movable: ClassVar[bool] = True

    async def send(self, ctx: Context, challenge: Challenge, destination: str) -> Approval:
        """The approval of the case `record_id`, to the programme's bank only. Called by a county office.

        Raises E_PURPOSE, E_BANK, E_ACTION, E_OFFICE, E_AUTHORITY, E_STATE.
        """
        view = StubView(ctx.stub)
        case = await store.require(view, Case, CASE, challenge.record_id)
        programme = await store.require(view, Programme, PROGRAMME, case.programme)
        if challenge.purpose != PURPOSE:
            raise refusal("E_PURPOSE", "the approval is not for this", f"it serves {PURPOSE}", "ask for that purpose")
        if challenge.action != "move":
            raise refusal("E_ACTION", "an approval is not copied", "two copies could be paid twice", "ask for a move")
        if challenge.msp_id != programme.bank:
            raise refusal(
                "E_BANK", "the approval goes to another", f"{programme.bank} pays this programme", "let it ask"
            )
        state, office = _row(case, "send")
        signature = await _signature(ctx, programme, "send", office, ())
        approved = next(one for one in reversed(case.signatures) if one.step == "approve")
        changed = case.model_copy(update={"state": state, "signatures": (*case.signatures, signature)})
        await store.write(ctx, changed, CASE, case.id)
        return Approval(
            case=case.id,
            programme=programme.id,
            village=case.village,
            payee=case.payee,
            bank=programme.bank,
            amount_fen=programme.grant_fen,
            drill=programme.drill,
            approved_at=approved.at,
            approved_by=approved.identity,
        )

    async def settle(
        self, ctx: Context, record_id: str, outcome: Literal["finalised", "released"], destination: str
    ) -> None:
        """Order the payment of a case, or hold its approval again. Raises E_STATE."""
        case = await store.require(StubView(ctx.stub), Case, CASE, record_id)
        state, _ = _row(case, "finalise" if outcome == "finalised" else "release")
        await store.write(ctx, case.model_copy(update={"state": state}), CASE, record_id)


def _row(case: Case, step: Step) -> tuple[State, Office | None]:
    found = TABLE.get((case.state, step))
    if found is None:
        due = sorted(name for state, name in TABLE if state == case.state)
        raise refusal(
            "E_STATE",
            f"{step} is not possible now",
            f"the case is {case.state}",
            f"what may follow is {', '.join(due) or 'nothing'}",
            case=case.id,
            state=case.state,
        )
    return found


def _check_publicity(case: Case, objections: list[Objection], at: datetime) -> None:
    if case.state not in _PERIODS:
        return
    assert case.publicity_ends is not None
    if at < case.publicity_ends:
        raise refusal(
            "E_PUBLICITY",
            "the publicity is not over",
            f"it ends at {format_time(case.publicity_ends)}",
            "wait until then",
            case=case.id,
        )
    standing = [one.state for one in objections if one.state in ("open", "upheld")]
    if standing:
        raise refusal(
            "E_OBJECTION",
            f"an objection is {standing[0]}",
            "while one stands the case does not move",
            "resolve it, or reject the case",
            case=case.id,
        )


async def _signature(
    ctx: Context,
    programme: Programme,
    step: Step,
    office: Office | None,
    earlier: tuple[Signature, ...],
    *,
    note: str = "",
) -> Signature:
    """The caller's signature on a step, if his office takes it and he has signed no earlier one.

    A notice office publishes twice: it decides nothing.
    """
    await require_active_caller(ctx, StubView(ctx.stub))
    if ctx.identity.msp_id != programme.authority:
        raise _not_authority(programme.authority)
    held = ctx.identity.attributes.get("office", "")
    if held != office:
        raise refusal(
            "E_OFFICE",
            f"{step} is not for this office",
            f"it is for {office}",
            "let that office sign",
            office=str(office),
        )
    identity = identity_hash(ctx.identity.id)
    if office != "notice" and any(one.identity == identity for one in earlier):
        raise refusal(
            "E_SIGNER",
            "this person has signed this case before",
            "each level answers by another person",
            "let another one sign",
        )
    return Signature(
        step=step,
        office=office,
        msp_id=ctx.identity.msp_id,
        identity=identity,
        at=ctx.timestamp,
        transaction=ctx.transaction_id,
        note=note,
    )


def _not_authority(authority: str) -> Exception:
    return refusal(
        "E_AUTHORITY", "this is not for the caller's organisation", f"{authority} runs the programme", "ask it"
    )
