"""The personal data service centre: whom data are about, what they consented to, and everything that was done with them.

A person is known by a pseudonym that is scoped by purpose, `HMAC-SHA-256(key of the purpose, identity number)`: the keys stay with
the centre, so that nobody joins two purposes and nobody tries out identity numbers. Neither keys nor numbers come here.
"""

from __future__ import annotations

from typing import Literal

from sovchain.chaincode import Context, Contract, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.order_records import (
    Consent,
    ConsentTerms,
    Representative,
    SubjectAccess,
    SubjectFile,
    Wallet,
    Warrant,
)
from sovchain.contracts.core.records import Hex32, MspId, Pointer, Receipt, Request, Timestamp
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.standing import require_role
from sovchain.contracts.core.store import StateView, StubView, identity_hash

REGISTRARS = ("caseworker", "official")
"""Roles that open wallets and record guardians, heirs and deaths."""
GivenBy = Literal["subject", "guardian", "heir"]


class PersonalData(Contract):
    """Wallets of data subjects."""

    @transaction
    async def open_wallet(self, ctx: Context, subject: Hex32, msp_id: MspId, identity: Hex32) -> Wallet:
        """Bind a pseudonym to the identity that acts for it; again for a new identity, when the subject's key rotates.

        The history stays with the pseudonym. Called by a caseworker or an official. Raises E_ROLE.
        """
        view = StubView(ctx.stub)
        await require_role(ctx, view, *REGISTRARS)
        before = await store.read(view, Wallet, store.WALLET, subject)
        wallet = Wallet(
            subject=subject,
            msp_id=msp_id,
            identity=identity,
            opened_at=before.opened_at if before else ctx.timestamp,
            changed_at=ctx.timestamp,
            died_at=before.died_at if before else None,
        )
        await store.write(ctx, wallet, store.WALLET, subject)
        ctx.set_event("WalletOpened", {"subject": subject})
        return wallet

    @transaction
    async def appoint(
        self,
        ctx: Context,
        subject: Hex32,
        msp_id: MspId,
        identity: Hex32,
        kind: Literal["guardian", "heir"],
        until: Timestamp,
    ) -> Representative:
        """Record who acts for a subject: a guardian until the majority, an heir after a death that is on record.

        Called by a caseworker or an official. Raises E_ROLE, E_NOT_FOUND, E_STATE.
        """
        view = StubView(ctx.stub)
        await require_role(ctx, view, *REGISTRARS)
        wallet = await store.require(view, Wallet, store.WALLET, subject)
        if (kind == "heir") != (wallet.died_at is not None):
            raise refusal(
                "E_STATE",
                f"the subject can have no {kind} now",
                "guardians act for the living, heirs after a death on record",
                "record the death first, or appoint the other",
            )
        one = Representative(
            subject=subject,
            msp_id=msp_id,
            identity=identity,
            kind=kind,
            until=until,
            appointed_at=ctx.timestamp,
            appointed_by=ctx.identity.msp_id,
        )
        await store.write(ctx, one, store.REPRESENTATIVE, subject, msp_id, identity)
        return one

    @transaction
    async def record_death(self, ctx: Context, subject: Hex32) -> Wallet:
        """Put a subject's death on record: every consent of the subject or a guardian ends with it.

        Called by a caseworker or an official. Raises E_ROLE, E_NOT_FOUND, E_STATE.
        """
        view = StubView(ctx.stub)
        await require_role(ctx, view, *REGISTRARS)
        wallet = await store.require(view, Wallet, store.WALLET, subject)
        if wallet.died_at is not None:
            raise refusal("E_STATE", "the death is on record", "an earlier transaction did it", "nothing is left to do")
        dead = wallet.model_copy(update={"died_at": ctx.timestamp, "changed_at": ctx.timestamp})
        await store.write(ctx, dead, store.WALLET, subject)
        return dead

    @transaction
    async def consent(self, ctx: Context, subject: Hex32, terms: ConsentTerms) -> Consent:
        """Consent to a use of the subject's data, as the subject, its guardian or its heir.

        A guardian's consent ends at the subject's majority. Raises E_NOT_FOUND, E_NOT_SUBJECT.
        """
        given_by, until = await authority(ctx, StubView(ctx.stub), subject)
        consent = Consent(
            id=ctx.transaction_id,
            subject=subject,
            terms=terms,
            given_by=given_by,
            identity=identity_hash(ctx.identity.id),
            given_at=ctx.timestamp,
            authority_until=until,
        )
        await store.write(ctx, consent, store.CONSENT, subject, consent.id)
        ctx.set_event("ConsentGiven", {"consent": consent.id})
        return consent

    @transaction
    async def revoke(self, ctx: Context, subject: Hex32, consent: Hex32) -> Consent:
        """Revoke a consent at any time. Whatever rests on it, products derived from the data too, ends with the next block.

        As the subject, its guardian or its heir. Raises E_NOT_FOUND, E_NOT_SUBJECT, E_STATE.
        """
        view = StubView(ctx.stub)
        await authority(ctx, view, subject)
        found = await store.require(view, Consent, store.CONSENT, subject, consent)
        if found.revoked_at is not None:
            raise refusal("E_STATE", "it is revoked already", "an earlier transaction did it", "nothing is left to do")
        revoked = found.model_copy(update={"revoked_at": ctx.timestamp})
        await store.write(ctx, revoked, store.CONSENT, subject, consent)
        ctx.set_event("ConsentRevoked", {"consent": consent})
        return revoked

    @query
    async def accesses(self, ctx: Context, subject: Hex32) -> list[SubjectAccess]:
        """Every decision on the subject's data, denials and emergencies too, in the order of data sets and decisions.

        What a sealed warrant led to is left out until its date. As the subject, its guardian or heir, or a supervisor. Raises
        E_NOT_FOUND, E_NOT_SUBJECT.
        """
        view = StubView(ctx.stub)
        supervising = await check_reader(ctx, view, subject)
        return await _accesses(ctx, view, subject, sealed_too=supervising)

    @query
    async def file(self, ctx: Context, subject: Hex32) -> SubjectFile:
        """Everything that the ledger holds about the subject, to take along (PIPL, article 45). Raises as `accesses`."""
        view = StubView(ctx.stub)
        supervising = await check_reader(ctx, view, subject)
        return SubjectFile(
            wallet=await store.require(view, Wallet, store.WALLET, subject),
            representatives=tuple(await store.scan(view, Representative, store.REPRESENTATIVE, subject)),
            consents=tuple(await store.scan(view, Consent, store.CONSENT, subject)),
            datasets=tuple(one.request for one in await store.scan(view, Pointer, store.ABOUT, subject)),
            accesses=tuple(await _accesses(ctx, view, subject, sealed_too=supervising)),
        )


async def authority(ctx: Context, view: StateView, subject: str) -> tuple[GivenBy, Timestamp | None]:
    """On whose authority the caller acts for a subject, and when that ends. Raises E_NOT_FOUND, E_NOT_SUBJECT."""
    wallet = await store.require(view, Wallet, store.WALLET, subject)
    caller = (ctx.identity.msp_id, identity_hash(ctx.identity.id))
    if caller == (wallet.msp_id, wallet.identity) and wallet.died_at is None:
        return "subject", None
    one = await store.read(view, Representative, store.REPRESENTATIVE, subject, *caller)
    if one is not None and ctx.timestamp < one.until and (one.kind == "heir") == (wallet.died_at is not None):
        return one.kind, one.until
    raise refusal(
        "E_NOT_SUBJECT",
        "the caller does not act for this person",
        "neither the wallet nor a guardianship or inheritance in force names the caller",
        "use the subject's own identity",
        subject=subject,
    )


async def check_reader(ctx: Context, view: StateView, subject: str) -> bool:
    """Whether the caller reads as a supervisor. Raises E_NOT_FOUND, E_NOT_SUBJECT."""
    if ctx.identity.attributes.get("role") in {"supervisor", "judge"}:
        await require_role(ctx, view, "supervisor", "judge")
        return True
    await authority(ctx, view, subject)
    return False


async def _accesses(ctx: Context, view: StateView, subject: str, *, sealed_too: bool) -> list[SubjectAccess]:
    found = []
    for about in await store.scan(view, Pointer, store.ABOUT, subject):
        for pointer in await store.scan(view, Pointer, store.DECIDED_ON, about.request):
            request = await store.require(view, Request, store.REQUEST, pointer.request)
            receipt = await store.require(view, Receipt, store.RECEIPT, pointer.request)
            if not sealed_too and await _is_sealed(ctx, view, request):
                continue
            found.append(
                SubjectAccess(
                    dataset=request.dataset,
                    request=request.id,
                    msp_id=request.msp_id,
                    action=request.action,
                    purpose=request.purpose,
                    legal_basis=request.legal_basis,
                    decision=receipt.decision,
                    code=receipt.code,
                    decided_at=receipt.decided_at,
                    emergency=request.legal_basis == "vital-interest" or request.purpose == "emergency-response",
                )
            )
    return found


async def _is_sealed(ctx: Context, view: StateView, request: Request) -> bool:
    if request.legal_basis != "warrant" or request.reference is None:
        return False
    warrant = await store.read(view, Warrant, store.WARRANT, request.reference)
    return warrant is not None and warrant.sealed_until is not None and ctx.timestamp < warrant.sealed_until
