"""What persons may ask of whoever holds their data, and complaints: with statutory clocks that anyone can tick.

    filed ──answer──> fulfilled
      │ └───answer──> refused ──appeal──> appealed ──rule──> upheld
      └─tick─> overdue ──answer──> ...       │
                  └──appeal──────────────────┘ └──rule──> ordered ──answer──> fulfilled
                                                             └──tick──> defaulted ──answer──> fulfilled

Texts, with the name of whoever complains, lie in the handler's collection, answers in that of the subject's organisation; public are a
pseudonym, the kind, the clock and salted hashes. Rights requests have 30 days (GB/T 35273-2020, 8.7), complaints 15 working days, an
ordered answer 10 working days; all end on a working day of the handler's place by its enacted calendar.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from sovchain.chaincode import Context, Contract, Transient, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.calendar import days_after, working_days_after
from sovchain.contracts.core.order_records import Hold, Wallet
from sovchain.contracts.core.personal import authority, check_reader
from sovchain.contracts.core.records import (
    SALT_BYTES,
    DataSet,
    Hex32,
    LawTitle,
    MspId,
    RegisteredOrganisation,
    ShortText,
    format_time,
)
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.rights_records import HandlerRecord, RightsAnswer, RightsFiling, RightsRequest
from sovchain.contracts.core.sealing import seal
from sovchain.contracts.core.standing import ISSUERS, require_role
from sovchain.contracts.core.store import StateView, StubView, identity_hash, implicit_collection

RIGHTS_DAYS: Final = 30
"""Days that a handler has for a rights request."""
COMPLAINT_WORKING_DAYS: Final = 15
"""Working days that it has for a complaint."""
ORDERED_WORKING_DAYS: Final = 10
"""Working days that it has for what a ruling orders."""
TEXT_MAX_BYTES: Final = 1024 * 1024
"""Longest text of a request or an answer, without its salt."""
_OPEN: Final = ("filed", "overdue", "ordered", "defaulted")


class Rights(Contract):
    """Rights requests and complaints of data subjects."""

    @transaction
    async def send_text(self, ctx: Context, subject: Hex32, handler: MspId, text: Transient[bytes]) -> str:
        """As the subject, its guardian or heir: put salt and text into the handler's collection; endorsed by the handler only.

        Returns the request's id. Raises E_NOT_FOUND, E_NOT_SUBJECT, E_PAYLOAD.
        """
        await authority(ctx, StubView(ctx.stub), subject)
        _check_text(text)
        await ctx.stub.put_private_data(implicit_collection(handler), text_key(subject, ctx.transaction_id), text)
        return ctx.transaction_id

    @transaction
    async def file(
        self, ctx: Context, subject: Hex32, request: Hex32, commitment: Hex32, filing: RightsFiling
    ) -> RightsRequest:
        """Put a request on file whose text was sent; every peer compares its hash, and the clock starts.

        As the subject, its guardian or heir. Raises E_NOT_FOUND, E_NOT_SUBJECT, E_NOT_ADMITTED for a handler that is in no registry,
        E_INPUT for a data set that is not the handler's or not about the subject, E_COMMITMENT, E_STATE, E_CALENDAR.
        """
        view = StubView(ctx.stub)
        filed_by, _ = await authority(ctx, view, subject)
        if await store.read(view, RightsRequest, store.RIGHTS, subject, request) is not None:
            raise refusal("E_STATE", "it is on file already", "an earlier transaction did it", "nothing is left to do")
        organisation = await store.read(view, RegisteredOrganisation, store.ORGANISATION, filing.handler)
        if organisation is None:
            raise refusal(
                "E_NOT_ADMITTED",
                f"{filing.handler} cannot be asked",
                "it is not in the registry",
                "name an organisation of the registry",
            )
        await _check_dataset(view, filing, subject)
        await _check_sent(ctx, filing.handler, text_key(subject, request), commitment)
        place = organisation.organisation.jurisdiction
        if filing.kind == "complaint":
            due = await working_days_after(view, place, ctx.timestamp, COMPLAINT_WORKING_DAYS)
        else:
            due = await days_after(view, place, ctx.timestamp, RIGHTS_DAYS)
        filed = RightsRequest(
            id=request,
            subject=subject,
            filing=filing,
            jurisdiction=place,
            filed_by=filed_by,
            text=commitment,
            filed_at=ctx.timestamp,
            due=due,
            changed_at=ctx.timestamp,
        )
        await _count(ctx, view, filing.handler, filed=True)
        return await _put(ctx, filed, "RightsRequestFiled")

    @transaction
    async def send_answer(self, ctx: Context, subject: Hex32, request: Hex32, text: Transient[bytes]) -> str:
        """As the handler: put salt and text of an answer into the collection of the subject's organisation; endorsed by that one only.

        Returns the request's id. Raises E_NOT_FOUND, E_NOT_HANDLER, E_PAYLOAD.
        """
        view = StubView(ctx.stub)
        await _handled(ctx, view, subject, request)
        _check_text(text)
        wallet = await store.require(view, Wallet, store.WALLET, subject)
        await ctx.stub.put_private_data(implicit_collection(wallet.msp_id), answer_key(subject, request), text)
        return request

    @transaction
    async def answer(self, ctx: Context, subject: Hex32, request: Hex32, given: RightsAnswer) -> RightsRequest:
        """As the handler: answer a request whose answer's text was sent. A late answer is taken, and stays late on record.

        A fulfilled correction names the data set that replaces the wrong one, which must be withdrawn; a fulfilled deletion finds the
        data set purged by all of its holders; a fulfilled restriction or objection holds it until the subject frees it. What a
        ruling ordered cannot be refused. Raises E_NOT_FOUND, E_NOT_HANDLER, E_STATE, E_COMMITMENT.
        """
        view = StubView(ctx.stub)
        found = await _handled(ctx, view, subject, request)
        if given.outcome == "refused" and found.state in {"ordered", "defaulted"}:
            raise refusal("E_STATE", "it cannot be refused", "a ruling ordered it", "do what was ordered")
        wallet = await store.require(view, Wallet, store.WALLET, subject)
        await _check_sent(ctx, wallet.msp_id, answer_key(subject, request), given.text)
        if given.law is not None:
            await store.require(view, LawTitle, store.LAW_TITLE, given.law)
        if given.outcome == "fulfilled":
            await _fulfil(ctx, view, found, given)
        late = found.late or ctx.timestamp >= found.due
        if late and not found.late:
            await _count(ctx, view, found.filing.handler, late=True)
        stated = {"answer": given.text, "ground": given.ground, "law": given.law, "replacement": given.replacement}
        return await _move(ctx, found, given.outcome, late=late, **stated)

    @transaction
    async def tick(self, ctx: Context, subject: Hex32, request: Hex32) -> RightsRequest:
        """Find a request overdue, on record; anybody may. Raises E_NOT_FOUND, E_STATE while it is answered or not due."""
        view = StubView(ctx.stub)
        found = await store.require(view, RightsRequest, store.RIGHTS, subject, request)
        if found.state not in {"filed", "ordered"} or ctx.timestamp < found.due:
            raise refusal(
                "E_STATE",
                "the request is not newly overdue",
                f"it is {found.state}, and was or is due at {format_time(found.due)}",
                "nothing is left to do",
                request=request,
            )
        await _count(ctx, view, found.filing.handler, late=not found.late, defaulted=found.state == "ordered")
        return await _move(ctx, found, "overdue" if found.state == "filed" else "defaulted", late=True)

    @transaction
    async def appeal(self, ctx: Context, subject: Hex32, request: Hex32) -> RightsRequest:
        """As the subject, its guardian or heir: put what was refused, or not answered in time, before the regulator.

        Raises E_NOT_FOUND, E_NOT_SUBJECT, E_STATE.
        """
        view = StubView(ctx.stub)
        await authority(ctx, view, subject)
        found = await store.require(view, RightsRequest, store.RIGHTS, subject, request)
        if found.state not in {"refused", "overdue"}:
            raise _wrong_state(found, "only what was refused or is overdue is appealed")
        return await _move(ctx, found, "appealed")

    @transaction
    async def rule(
        self, ctx: Context, subject: Hex32, request: Hex32, decision: Literal["uphold", "order"], reason: ShortText
    ) -> RightsRequest:
        """As a judge or a supervisor of another organisation than the handler: uphold a refusal, or order what was asked for.

        Raises E_ROLE, E_NOT_FOUND, E_STATE, E_FOUR_EYES, E_CALENDAR.
        """
        view = StubView(ctx.stub)
        await require_role(ctx, view, *ISSUERS)
        found = await store.require(view, RightsRequest, store.RIGHTS, subject, request)
        if found.state != "appealed":
            raise _wrong_state(found, "only what was appealed is ruled on")
        if found.filing.handler == ctx.identity.msp_id:
            raise refusal("E_FOUR_EYES", "this takes two organisations", "the handler would rule", "ask another one")
        due = found.due
        if decision == "order":
            due = await working_days_after(view, found.jurisdiction, ctx.timestamp, ORDERED_WORKING_DAYS)
        state: Literal["ordered", "upheld"] = "ordered" if decision == "order" else "upheld"
        return await _move(ctx, found, state, due=due, ruling=reason, ruled_by=ctx.identity.msp_id)

    @transaction
    async def free(self, ctx: Context, subject: Hex32, request: Hex32) -> str:
        """As the subject, its guardian or heir: end a restriction that was granted. Raises E_NOT_FOUND, E_NOT_SUBJECT."""
        view = StubView(ctx.stub)
        await authority(ctx, view, subject)
        found = await store.require(view, RightsRequest, store.RIGHTS, subject, request)
        held = await store.require(view, Hold, store.HOLD, found.filing.dataset or "", request)
        await ctx.stub.delete_state(store.key(store.HOLD, held.target, request))
        return request

    @query
    async def read(self, ctx: Context, subject: Hex32, request: Hex32) -> RightsRequest:
        """A request on file. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), RightsRequest, store.RIGHTS, subject, request)

    @query
    async def listing(self, ctx: Context, subject: Hex32) -> list[RightsRequest]:
        """The requests that were filed for a subject."""
        return await store.scan(StubView(ctx.stub), RightsRequest, store.RIGHTS, subject)

    @query
    async def home(self, ctx: Context, subject: Hex32) -> str:
        """The organisation whose collection takes what is answered to a subject. Raises E_NOT_FOUND."""
        return (await store.require(StubView(ctx.stub), Wallet, store.WALLET, subject)).msp_id

    @query
    async def handler(self, ctx: Context, msp_id: MspId) -> HandlerRecord:
        """How an organisation deals with what persons ask of it."""
        found = await store.read(StubView(ctx.stub), HandlerRecord, store.HANDLER, msp_id)
        return found or HandlerRecord(handler=msp_id)

    @query
    async def read_text(self, ctx: Context, subject: Hex32, request: Hex32, key: Transient[bytes]) -> bytes:
        """As the handler, on its own peer: salt and text of a request, sealed with `key` (32 random bytes, used once).

        Raises E_NOT_FOUND, E_NOT_HANDLER, E_KEY.
        """
        view = StubView(ctx.stub)
        found = await store.require(view, RightsRequest, store.RIGHTS, subject, request)
        _require_handler(ctx, found)
        return _sealed(
            await ctx.stub.get_private_data(implicit_collection(found.filing.handler), text_key(subject, request)), key
        )

    @query
    async def read_answer(self, ctx: Context, subject: Hex32, request: Hex32, key: Transient[bytes]) -> bytes:
        """As the subject, its guardian, its heir or a supervisor, on the peer of the subject's organisation: salt and text of the answer,
        sealed with `key`. Raises E_NOT_FOUND, E_NOT_SUBJECT, E_KEY."""
        view = StubView(ctx.stub)
        await check_reader(ctx, view, subject)
        wallet = await store.require(view, Wallet, store.WALLET, subject)
        return _sealed(
            await ctx.stub.get_private_data(implicit_collection(wallet.msp_id), answer_key(subject, request)), key
        )


def text_key(subject: str, request: str) -> str:
    """Key of a request's text in the handler's private collection: nobody files it for another person."""
    return store.key(store.RIGHTS_TEXT, subject, request, "text")


def answer_key(subject: str, request: str) -> str:
    """Key of an answer's text in the private collection of the subject's organisation."""
    return store.key(store.RIGHTS_TEXT, subject, request, "answer")


def _check_text(text: bytes) -> None:
    size = len(text) - SALT_BYTES
    if not 1 <= size <= TEXT_MAX_BYTES or len(set(text[:SALT_BYTES])) == 1:
        raise refusal(
            "E_PAYLOAD",
            "the text cannot be taken",
            f"it needs {SALT_BYTES} random bytes and a text of 1 to {TEXT_MAX_BYTES}",
            "write it anew",
        )


async def _check_dataset(view: StateView, filing: RightsFiling, subject: str) -> None:
    if filing.dataset is None:
        return
    dataset = await store.require(view, DataSet, store.DATASET, filing.dataset)
    if dataset.owner != filing.handler or subject not in dataset.subjects:
        raise refusal(
            "E_INPUT",
            "the data set is not one that this can be asked about",
            f"it belongs to {dataset.owner}"
            if dataset.owner != filing.handler
            else "the catalogue does not say that it is about this person",
            "name its owner and a data set about the person, or complain",
            dataset=dataset.id,
        )


async def _check_sent(ctx: Context, msp_id: str, key: str, commitment: str) -> None:
    kept = await ctx.stub.get_private_data_hash(implicit_collection(msp_id), key)
    if kept is None or kept.hex() != commitment:
        raise refusal(
            "E_COMMITMENT",
            f"{msp_id} has no such text",
            "the hash in its collection is another one" if kept else "nothing was sent, or it is not committed yet",
            "send the text first",
        )


def _require_handler(ctx: Context, found: RightsRequest) -> None:
    if found.filing.handler != ctx.identity.msp_id:
        raise refusal(
            "E_NOT_HANDLER",
            f"{ctx.identity.msp_id} may not do this",
            f"{found.filing.handler} was asked",
            f"leave it to {found.filing.handler}",
            request=found.id,
        )


async def _handled(ctx: Context, view: StateView, subject: str, request: str) -> RightsRequest:
    """The request, which the caller's organisation has to answer still."""
    found = await store.require(view, RightsRequest, store.RIGHTS, subject, request)
    _require_handler(ctx, found)
    await require_active_caller(ctx, view)
    if found.state not in _OPEN:
        raise _wrong_state(found, "an answer is given once")
    return found


async def _fulfil(ctx: Context, view: StateView, found: RightsRequest, given: RightsAnswer) -> None:
    kind, target = found.filing.kind, found.filing.dataset
    if target is None:
        return
    dataset = await store.require(view, DataSet, store.DATASET, target)
    if kind == "erase" and dataset.state != "purged":
        raise refusal(
            "E_STATE",
            "the data set is not purged yet",
            "holders have still to confirm, or no purge is ordered",
            "order it and have each holder confirm",
            dataset=target,
        )
    if kind == "correct":
        await _check_replacement(view, dataset, given.replacement)
    if kind in {"restrict", "object"}:
        hold = Hold(
            id=found.id,
            target=target,
            issuer=ctx.identity.msp_id,
            identity=identity_hash(ctx.identity.id),
            reason=f"the person asked to {kind}",
            placed_at=ctx.timestamp,
        )
        await store.write(ctx, hold, store.HOLD, target, found.id)


async def _check_replacement(view: StateView, wrong: DataSet, replacement: str | None) -> None:
    right = await store.read(view, DataSet, store.DATASET, replacement) if replacement is not None else None
    if right is None or right.owner != wrong.owner or right.state != "published" or wrong.state == "published":
        raise refusal(
            "E_STATE",
            "nothing replaces the wrong data set",
            "a correction is a published data set of the same owner, and the wrong one is withdrawn",
            "share the right one, withdraw the wrong one, and name it",
            dataset=wrong.id,
        )


async def _count(
    ctx: Context, view: StateView, handler: str, *, filed: bool = False, late: bool = False, defaulted: bool = False
) -> None:
    """Count once in a transaction: it does not read its own writes."""
    record = await store.read(view, HandlerRecord, store.HANDLER, handler) or HandlerRecord(handler=handler)
    counted = HandlerRecord(
        handler=handler,
        filed=record.filed + filed,
        late=record.late + late,
        defaulted=record.defaulted + defaulted,
    )
    await store.write(ctx, counted, store.HANDLER, handler)


async def _move(ctx: Context, found: RightsRequest, state: str, **changes: Any) -> RightsRequest:
    moved = found.model_copy(update={"state": state, "changed_at": ctx.timestamp, **changes})
    return await _put(ctx, moved, "RightsRequestMoved")


async def _put(ctx: Context, request: RightsRequest, event: str) -> RightsRequest:
    await store.write(ctx, request, store.RIGHTS, request.subject, request.id)
    ctx.set_event(event, {"request": request.id, "state": request.state})
    return request


def _wrong_state(found: RightsRequest, why: str) -> Exception:
    return refusal("E_STATE", f"the request is {found.state}", why, "look at how it stands", request=found.id)


def _sealed(found: bytes | None, key: bytes) -> bytes:
    if found is None:
        raise refusal("E_NOT_FOUND", "there is no text", "none was sent, or this peer has no copy", "ask its sender")
    try:
        return seal(found, key)
    except ValueError as error:
        raise refusal("E_KEY", "it cannot be sealed", str(error), "send a fresh key with each call") from None
