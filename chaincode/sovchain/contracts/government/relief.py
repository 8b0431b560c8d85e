"""Precise poverty relief: a household's way from its application to an approval that a bank on another channel pays.

The order of the steps, the two publicity periods, the hearing of objections and the personal answer of each level are those
of the registration procedure (village assembly, village publicity, township audit, second publicity, county approval) and
of the provincial regulation's articles 15 to 17. `Relief.life` is the whole of it, `Relief.hearing` that of an objection.

Nobody's name, number or account is in here. A household is a pseudonym that its authority computes with a key that stays in
the jurisdiction; its account is a salted hash, the one that the bank's own payee record must have.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Final, Literal, cast

from pydantic import Field

from sovchain.chaincode import Context, Contract, Given, Guard, StateMachine, To, attribute, guard, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.ballots import require_admin
from sovchain.contracts.core.crossing_records import Challenge
from sovchain.contracts.core.portable import Portable
from sovchain.contracts.core.records import Hex32, MspId, Page, Record, ShortText, Timestamp, Word, format_time
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.store import StubView, identity_hash
from sovchain.contracts.scenario import Scenario
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
Step = Literal["apply", "review", "publish", "audit", "approve", "reject", "send", "finalise", "release", "resolve"]
Office = Literal["clerk", "village", "notice", "township", "county"]
Fen = Annotated[int, Field(ge=1, le=10**15)]
"""Money in fen, the hundredth part of a yuan."""

_PERIODS: Final = ("publicity-1", "publicity-2")
_DECIDES: Final = {"publicity-1": "township", "publicity-2": "county"}
"""The office whose decision is due in a publicity: it also resolves what is objected."""


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


@guard("E_VOTES", "the count can be: no more votes than villagers, none below nothing")
def counted(ctx: Context, case: Case, given: Given) -> bool:
    """What was not counted right does not carry anything."""
    votes_for, votes_against, eligible = given["votes"]
    return min(votes_for, votes_against) >= 0 and bool(0 < votes_for + votes_against <= eligible)


@guard("E_VOTES", "more villagers voted for it than against it")
def agreed(ctx: Context, case: Case, given: Given) -> bool:
    """A tie does not carry."""
    return bool(given["votes"][0] > given["votes"][1])


@guard("E_SIGNER", "each level answers by another person")
def another_person(ctx: Context, case: Case, given: Given) -> bool:
    """By the client identity, not the MSP: one person with two certificates of one name is one person."""
    return all(one.identity != identity_hash(ctx.identity.id) for one in case.signatures)


@guard("E_PUBLICITY", "the publicity is over")
def publicity_over(ctx: Context, case: Case, given: Given) -> bool | str:
    """Its end was fixed when it began."""
    ends = case.publicity_ends
    return ends is not None and (ctx.timestamp >= ends or f"it ends at {format_time(ends)}")


@guard("E_OBJECTION", "no objection is open or upheld")
def unopposed(ctx: Context, case: Case, given: Given) -> bool | str:
    """An upheld one leaves rejection only."""
    standing = [one.state for one in given["objections"] if one.state != "dismissed"]
    return not standing or f"one is {standing[0]}"


@guard("E_BUDGET", "the budget reaches for one more grant")
def within_budget(ctx: Context, case: Case, given: Given) -> bool | str:
    """Over all approvals of the programme so far."""
    left = int(given["budget_fen"] - given["spent_fen"])
    return int(given["grant_fen"]) <= left or f"{left} fen are left of it"


@guard("E_STATE", "the case is in a publicity")
def in_publicity(ctx: Context, objection: Objection | None, given: Given) -> bool:
    """Before and after it there is nothing to object to."""
    return given["case"].state in _PERIODS


@guard("E_OFFICE", "the caller's office decides on the case next")
def due_office(ctx: Context, objection: Objection, given: Given) -> bool:
    """The township after the first publicity, the county after the second."""
    return ctx.identity.attributes.get("office") == _DECIDES.get(given["case"].state)


@guard("E_SIGNER", "the caller has signed no earlier step of the case")
def unsigned(ctx: Context, objection: Objection, given: Given) -> bool:
    """Whoever reviewed a case does not judge what is said against it."""
    return all(one.identity != identity_hash(ctx.identity.id) for one in given["case"].signatures)


def _to(state: State, office: Office, *guards: Guard) -> To:
    return To(state, attribute("office", office), guards, code="E_OFFICE")


class Relief(Contract):
    """Programmes and cases. Each deciding step is another person's, and each person answers with a signature."""

    life = StateMachine(
        Case,
        {
            (None, "apply"): _to("applied", "clerk"),
            ("applied", "review"): _to("reviewed", "village", counted, agreed, another_person),
            ("reviewed", "publish"): _to("publicity-1", "notice"),
            ("publicity-1", "audit"): _to("audited", "township", another_person, publicity_over, unopposed),
            ("audited", "publish"): _to("publicity-2", "notice"),
            ("publicity-2", "approve"): _to(
                "approved", "county", another_person, publicity_over, unopposed, within_budget
            ),
            ("approved", "send"): _to("sent", "county"),
            ("sent", "finalise"): To("ordered", text="by whoever proves the import"),
            ("sent", "release"): To("approved", text="by whoever proves the cancellation"),
            ("applied", "reject"): _to("rejected", "village", another_person),
            ("publicity-1", "reject"): _to("rejected", "township", another_person),
            ("publicity-2", "reject"): _to("rejected", "county", another_person),
        },
        title="case",
    )
    hearing = StateMachine(
        Objection,
        {
            (None, "object"): To("open", guards=(in_publicity,)),
            ("open", "dismiss"): To(
                "dismissed", attribute("office", "township", "county"), (due_office, unsigned), code="E_OFFICE"
            ),
            ("open", "uphold"): To(
                "upheld", attribute("office", "township", "county"), (due_office, unsigned), code="E_OFFICE"
            ),
        },
        title="objection",
    )

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
        await self.life.step(ctx, None, "apply")
        signature = await _signature(ctx, found, "apply", "clerk")
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
        votes = (votes_for, votes_against, eligible)
        return await self._step(ctx, case, "review", {"votes": votes}, {"votes": votes})

    @transaction
    async def publish(self, ctx: Context, case: Hex32) -> Case:
        """Begin the publicity that is due, in the village or after the township's audit. Called by a notice office.

        Raises E_OFFICE, E_AUTHORITY, E_STATE.
        """
        return await self._step(ctx, case, "publish")

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
        given = {"spent_fen": spent, "grant_fen": programme.grant_fen, "budget_fen": programme.budget_fen}
        approved = await self._step(ctx, case, "approve", given=given)
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
        await self.hearing.step(ctx, None, "object", {"case": found})
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
        programme = await store.require(view, Programme, PROGRAMME, found.programme)
        action = "uphold" if outcome == "upheld" else "dismiss"
        changes = {"finding": finding}
        resolved = await self.hearing.apply(ctx, raised, action, changes, {"case": found})
        signature = await _signature(ctx, programme, "resolve", _office(ctx), note=finding)
        resolved = resolved.model_copy(update={"signature": signature})
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
        changes: Given | None = None,
        given: Given | None = None,
        *,
        note: str = "",
    ) -> Case:
        view = StubView(ctx.stub)
        case = await self._case(ctx, case_id)
        programme = await store.require(view, Programme, PROGRAMME, case.programme)
        if ctx.identity.msp_id != programme.authority:
            raise _not_authority(programme.authority)
        objections = await store.scan(view, Objection, OBJECTION, case_id)
        changed = await self.life.apply(ctx, case, step, changes, {**(given or {}), "objections": objections})
        signature = await _signature(ctx, programme, step, _office(ctx), note=note)
        ends = ctx.timestamp + timedelta(seconds=programme.publicity_s) if changed.state in _PERIODS else None
        changed = changed.model_copy(update={"signatures": (*case.signatures, signature), "publicity_ends": ends})
        await store.write(ctx, changed, CASE, case_id)
        ctx.set_event("ReliefStep", {"case": case_id, "state": changed.state})
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
        sent = await Relief.life.apply(ctx, case, "send")
        signature = await _signature(ctx, programme, "send", "county")
        approved = next(one for one in reversed(case.signatures) if one.step == "approve")
        changed = sent.model_copy(update={"signatures": (*case.signatures, signature)})
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
        changed = await Relief.life.apply(ctx, case, "finalise" if outcome == "finalised" else "release")
        await store.write(ctx, changed, CASE, record_id)


def _office(ctx: Context) -> Office:
    return cast("Office", ctx.identity.attributes.get("office", ""))  # the table has let no other text through


async def _signature(ctx: Context, programme: Programme, step: Step, office: Office, *, note: str = "") -> Signature:
    """The caller's signature on a step that the table allows, if the caller may act and is of the authority."""
    await require_active_caller(ctx, StubView(ctx.stub))
    if ctx.identity.msp_id != programme.authority:
        raise _not_authority(programme.authority)
    return Signature(
        step=step,
        office=office,
        msp_id=ctx.identity.msp_id,
        identity=identity_hash(ctx.identity.id),
        at=ctx.timestamp,
        transaction=ctx.transaction_id,
        note=note,
    )


def _not_authority(authority: str) -> Exception:
    return refusal(
        "E_AUTHORITY", "this is not for the caller's organisation", f"{authority} runs the programme", "ask it"
    )


SCENARIO: Final = Scenario(
    "poverty-relief", "Precise poverty relief", (Relief(),), (Relief.life, Relief.hearing), outgoing=(ApprovalsOut(),)
)
