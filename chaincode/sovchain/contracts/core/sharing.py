"""Sharing: deposit, publish, request, decide, deliver, open, acknowledge.

Bytes travel in transient data and lie in the private collections of owner and grantee only. What a query returns from
there is sealed with the caller's one-time key (see `sealing`).
"""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import StringConstraints

from sovchain.chaincode import Context, Contract, ContractError, Transient, query, transaction
from sovchain.contracts.core import store
from sovchain.contracts.core.ballots import Seats
from sovchain.contracts.core.codes import WORD_PATTERN, is_within
from sovchain.contracts.core.effects import record_effects, require_may_derive, require_permit
from sovchain.contracts.core.guarding import guard_key
from sovchain.contracts.core.lineage import ancestors, out_of_circulation
from sovchain.contracts.core.projection import Grant, ProjectionError, check_projection, read_projection
from sovchain.contracts.core.receipts import (
    Decider,
    delivered_hash,
    make_receipt,
    payload_key,
    receipt_key,
    write_receipt,
)
from sovchain.contracts.core.records import (
    PAYLOAD_MAX_BYTES,
    SALT_BYTES,
    Acknowledgement,
    DataSet,
    Fields,
    Hex32,
    Page,
    Pointer,
    Processors,
    Publication,
    Receipt,
    Request,
    RowRules,
    ShortText,
    Word,
)
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active, require_active_caller, require_unsuspended
from sovchain.contracts.core.sealing import seal
from sovchain.contracts.core.standing import require_owner
from sovchain.contracts.core.store import StateView, StubView, identity_hash, implicit_collection

SUBJECTS_MAX: Final = 64
"""Most persons that one data set and its sources may be about, where they are named."""
COSIGN_WAIT: Final = timedelta(days=10)
"""How long a request waits for a co-signature before it can be denied for the lack of it."""
_WORD = re.compile(WORD_PATTERN, re.ASCII)

Destination = Annotated[str, StringConstraints(min_length=1, max_length=40)]


class Sharing(Contract):
    """One data set's way from its owner to a grantee, under law."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats

    @transaction
    async def deposit(self, ctx: Context, payload: Transient[bytes]) -> str:
        """Put salt (`SALT_BYTES`) and bytes into the caller's own collection; endorsed by the owner only.

        Returns the data set's id. Nothing is public but the hash that Fabric keeps for every private value. Raises
        E_NOT_ADMITTED, E_SUSPENDED, E_PAYLOAD.
        """
        owner = ctx.identity.msp_id
        await require_active_caller(ctx, StubView(ctx.stub))
        _check_payload(payload)
        dataset = ctx.transaction_id
        await ctx.stub.put_private_data(implicit_collection(owner), payload_key(dataset), payload)
        ctx.set_event("DataSetDeposited", {"dataset": dataset})
        return dataset

    @transaction
    async def publish(self, ctx: Context, dataset: Hex32, commitment: Hex32, entry: Publication) -> DataSet:
        """Make a deposited data set's catalogue entry public.

        `commitment` is the hex SHA-256 of salt and bytes. Raises E_NOT_ADMITTED, E_SUSPENDED, E_STATE, E_JURISDICTION
        when the entry names a jurisdiction outside the owner's, E_COMMITMENT when the deposit's hash differs, E_NOT_PERMITTED,
        E_REVOKED or E_EXPIRED for a source of another owner without a permit to derive that carries still.
        """
        owner = ctx.identity.msp_id
        view = StubView(ctx.stub)
        home = (await require_active_caller(ctx, view)).organisation.jurisdiction
        if not is_within(entry.jurisdiction, home):
            raise refusal(
                "E_JURISDICTION",
                f"the entry says {entry.jurisdiction}, the owner is registered in {home}",
                "the law of the owner's place cannot be left by naming another",
                "use a jurisdiction within it",
                home=home,
            )
        if await store.read(view, DataSet, store.DATASET, dataset) is not None:
            raise refusal(
                "E_STATE",
                "the data set is in the catalogue already",
                "an entry is not changed",
                "deposit it anew",
                dataset=dataset,
            )
        await self._check_deposit(ctx, owner, dataset, commitment)
        made_of = await ancestors(view, entry.sources)
        for one in made_of[: len(entry.sources)]:
            await require_may_derive(ctx, view, one, owner)
        source = out_of_circulation(made_of)
        if source is not None:
            raise refusal(
                "E_STATE",
                "a source was withdrawn",
                f"{source[:16]} is out of circulation",
                "make the product from other sources",
                source=source,
            )
        subjects = await _subjects(view, entry)
        published = DataSet(
            id=dataset,
            owner=owner,
            entry=entry,
            commitment=commitment,
            subjects=subjects,
            published_at=ctx.timestamp,
            changed_at=ctx.timestamp,
        )
        await store.write(ctx, published, store.DATASET, dataset)
        await guard_key(ctx, store.key(store.DATASET, dataset), owner, self._seats)
        for subject in subjects:
            await store.write(ctx, Pointer(request=dataset), store.ABOUT, subject, dataset)
        for source in entry.sources:
            await store.write(ctx, Pointer(request=dataset), store.PRODUCT, source, dataset)
        ctx.set_event("DataSetPublished", {"dataset": dataset})
        return published

    async def _check_deposit(self, ctx: Context, owner: str, dataset: str, commitment: str) -> None:
        kept = await ctx.stub.get_private_data_hash(implicit_collection(owner), payload_key(dataset))
        if kept is None:
            raise refusal(
                "E_NOT_FOUND",
                f"{owner} made no such deposit",
                "its transaction is not committed",
                "deposit first",
                dataset=dataset,
            )
        if kept.hex() != commitment:
            raise refusal(
                "E_COMMITMENT",
                "the commitment is not the hash of the deposit",
                "the entry would promise other bytes",
                "compute it over salt and bytes",
                dataset=dataset,
            )

    @transaction
    async def withdraw(self, ctx: Context, dataset: Hex32, reason: ShortText) -> str:
        """Take a data set out of circulation: no new permit, no further delivery. The entry stays on record.

        Called by the owner. Raises E_NOT_FOUND, E_NOT_OWNER, E_STATE.
        """
        found = await _own(ctx, StubView(ctx.stub), dataset)
        if found.state != "published":
            raise refusal(
                "E_STATE",
                "the data set is withdrawn already",
                "an earlier transaction did it",
                "nothing is left to do",
                dataset=dataset,
            )
        changed = {"state": "withdrawn", "changed_at": ctx.timestamp, "reason": reason}
        await store.write(ctx, found.model_copy(update=changed), store.DATASET, dataset)
        ctx.set_event("DataSetWithdrawn", {"dataset": dataset})
        return dataset

    @query
    async def dataset(self, ctx: Context, dataset: Hex32) -> DataSet:
        """A catalogue entry. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), DataSet, store.DATASET, dataset)

    @query
    async def datasets(self, ctx: Context, bookmark: str = "") -> Page[DataSet]:
        """All catalogue entries, by id."""
        return await store.page(ctx.stub, DataSet, store.DATASET, bookmark=bookmark)

    @transaction
    async def file_request(
        self,
        ctx: Context,
        dataset: Hex32,
        purpose: Word,
        salt: Hex32,
        action: Word = "read",
        legal_basis: Word = "unstated",
        destination: Destination | None = None,
        fields: Fields | None = None,
        processors: Processors | None = None,
        reference: Hex32 | None = None,
        rows: RowRules | None = None,
    ) -> str:
        """Put a request on file, with role and clearance from the caller's certificate. Returns the request's id.

        Anyone on the channel may ask, for any well-formed words: an unknown one is for `decide` to deny, on record.
        `fields` None asks for every column, `rows` None for every row; `reference` is the warrant or emergency that `legal_basis` rests on. `salt` is 32
        random bytes in hex. Raises E_NOT_FOUND for a data set that is not in the catalogue.
        """
        await store.require(StubView(ctx.stub), DataSet, store.DATASET, dataset)
        attributes = ctx.identity.attributes
        request = Request(
            id=ctx.transaction_id,
            dataset=dataset,
            msp_id=ctx.identity.msp_id,
            identity=identity_hash(ctx.identity.id),
            role=_word(attributes.get("role")),
            clearance=_word(attributes.get("clearance")),
            action=action,
            purpose=purpose,
            legal_basis=legal_basis,
            destination=destination,
            fields=fields,
            rows=rows,
            processors=processors,
            reference=reference,
            salt=salt,
            filed_at=ctx.timestamp,
        )
        await store.write(ctx, request, store.REQUEST, request.id)
        ctx.set_event("RequestFiled", {"dataset": dataset, "request": request.id})
        return request.id

    @transaction
    async def decide(self, ctx: Context, request: Hex32) -> Receipt:
        """Decide a request on file; anyone may trigger it. A denial is a success too: both write a receipt.

        Raises E_NOT_FOUND, E_STATE for a request that is decided already, E_TIME, and E_PENDING while nothing but a
        co-signature is missing that may still come (`COSIGN_WAIT` from its filing).
        """
        view = StubView(ctx.stub)
        if await view.get(receipt_key(request)) is not None:
            raise refusal(
                "E_STATE",
                "the request is decided already",
                "a request is decided once",
                "read its receipt, or file a new request",
                request=request,
            )
        filed, facts, receipt = await make_receipt(
            view,
            request,
            transaction_id=ctx.transaction_id,
            timestamp=ctx.timestamp,
            channel=ctx.channel_id,
            decider=Decider.of_caller(ctx.identity),
        )
        waits = receipt.code == "E_COSIGN" and not facts.evidence.cosign_refused
        if waits and ctx.timestamp < filed.filed_at + COSIGN_WAIT:
            raise refusal(
                "E_PENDING",
                "the request waits for a co-signature",
                receipt.reasons[0].detail or "it is missing",
                f"have {request} co-signed and decide it again",
                request=request,
            )
        await write_receipt(ctx, filed, receipt)
        await record_effects(ctx, filed, facts, receipt)
        ctx.set_event("RequestDecided", {"receipt": receipt.id, "request": request})
        return receipt

    @query
    async def request(self, ctx: Context, request: Hex32) -> Request:
        """A request on file. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Request, store.REQUEST, request)

    @query
    async def requests(self, ctx: Context, bookmark: str = "") -> Page[Request]:
        """All requests, by id, decided or not."""
        return await store.page(ctx.stub, Request, store.REQUEST, bookmark=bookmark)

    @query
    async def read_for_release(self, ctx: Context, request: Hex32, key: Transient[bytes]) -> bytes:
        """The owner's salt and bytes, sealed with `key` (32 random bytes, used once), if `deliver` may now be called.

        Called by the owner, on its own peer only: nothing leaves the owner's hands before a permit is committed. Raises
        what `deliver` raises, and E_KEY.
        """
        _, dataset, _ = await _releasable(ctx, StubView(ctx.stub), request)
        data = await ctx.stub.get_private_data(implicit_collection(dataset.owner), payload_key(dataset.id))
        if data is None:
            raise refusal(
                "E_NOT_FOUND",
                "the payload is not in the owner's collection",
                "this peer has no copy, or it was purged",
                "deposit it anew",
                dataset=dataset.id,
            )
        return _sealed(data, key)

    @transaction
    async def deliver(self, ctx: Context, request: Hex32, payload: Transient[bytes]) -> str:
        """Put salt and bytes into the grantee's collection after a committed permit; endorsed by the grantee only.

        Where the permit is for a part of the table, `payload` is the projection (see `projection`), and the grantee's peer
        checks that it is within the grant and within the catalogue's table. Called by the owner. Returns the request's id.
        Raises E_NOT_FOUND, E_NOT_OWNER, E_NOT_PERMITTED without a committed permit, E_STATE, E_NOT_ADMITTED, E_SUSPENDED,
        E_COMMITMENT for other bytes than were published, E_PROJECTION for a part that is more than was granted.
        """
        filed, dataset, grant = await _releasable(ctx, StubView(ctx.stub), request)
        if not grant.whole:
            _check_part(payload, dataset, request, grant)
        elif hashlib.sha256(payload).hexdigest() != dataset.commitment:
            raise refusal(
                "E_COMMITMENT",
                "these are not the bytes that were published",
                "their hash differs from the entry's",
                "deliver salt and bytes unchanged",
                request=request,
            )
        await ctx.stub.put_private_data(implicit_collection(filed.msp_id), payload_key(filed.dataset, request), payload)
        ctx.set_event("DataSetDelivered", {"request": request})
        return request

    @query
    async def open(self, ctx: Context, request: Hex32, key: Transient[bytes]) -> bytes:
        """The delivered salt and bytes, sealed with `key` (32 random bytes, used once). On the grantee's own peer only.

        Called by the grantee. Raises E_NOT_FOUND, E_NOT_GRANTEE, E_NOT_ADMITTED, E_SUSPENDED, E_NOT_PERMITTED,
        E_NOT_DELIVERED, E_KEY.
        """
        view = StubView(ctx.stub)
        filed = await _granted(ctx, view, request)
        dataset = await store.require(view, DataSet, store.DATASET, filed.dataset)
        await require_permit(ctx, view, filed, dataset)
        data = await ctx.stub.get_private_data(implicit_collection(filed.msp_id), payload_key(filed.dataset, request))
        if data is None:
            raise _not_delivered(request)
        return _sealed(data, key)

    @transaction
    async def acknowledge(self, ctx: Context, request: Hex32) -> Acknowledgement:
        """Confirm a delivery in public; every endorser compares the hashes in both parties' collections.

        Of a part of a table the hash is another one, which the acknowledgement puts on record: the grantee's peer found the
        part within its grant when it was delivered, and whoever is shown it can do so again.

        Called by the grantee. Raises E_NOT_FOUND, E_NOT_GRANTEE, E_NOT_ADMITTED, E_SUSPENDED, E_NOT_DELIVERED,
        E_STATE, E_COMMITMENT.
        """
        view = StubView(ctx.stub)
        filed = await _granted(ctx, view, request)
        dataset = await store.require(view, DataSet, store.DATASET, filed.dataset)
        if await store.read(view, Acknowledgement, store.ACKNOWLEDGEMENT, request) is not None:
            raise refusal(
                "E_STATE",
                "the delivery is acknowledged already",
                "an earlier transaction did it",
                "nothing is left to do",
                request=request,
            )
        received = await delivered_hash(ctx.stub, filed)
        if received is None:
            raise _not_delivered(request)
        receipt = await store.require(view, Receipt, store.RECEIPT, request)
        await self._check_deposit(ctx, dataset.owner, dataset.id, dataset.commitment)
        if Grant.of(receipt, dataset.entry).whole and received != dataset.commitment:
            raise refusal(
                "E_COMMITMENT",
                "the delivery is not what was published",
                "its hash differs from the entry's",
                "do not use it and tell the owner",
                request=request,
            )
        acknowledgement = Acknowledgement(
            request=request,
            msp_id=filed.msp_id,
            commitment=received,
            acknowledged_at=ctx.timestamp,
            transaction=ctx.transaction_id,
        )
        await store.write(ctx, acknowledgement, store.ACKNOWLEDGEMENT, request)
        ctx.set_event("DeliveryAcknowledged", {"request": request})
        return acknowledgement


def _word(value: str | None) -> str | None:
    """A certificate's attribute if it is a word at all: anything else counts as absent, and what is absent denies."""
    return value if value is not None and _WORD.fullmatch(value) else None


def _check_payload(payload: bytes) -> None:
    size = len(payload) - SALT_BYTES
    if size < 1:
        raise refusal(
            "E_PAYLOAD",
            "the payload is empty",
            "nothing follows the salt",
            f"send {SALT_BYTES} bytes of salt and then the data",
        )
    if size > PAYLOAD_MAX_BYTES:
        raise refusal(
            "E_PAYLOAD",
            f"the payload has {size} bytes",
            f"at most {PAYLOAD_MAX_BYTES} are taken",
            "share it in parts",
            limit_bytes=PAYLOAD_MAX_BYTES,
        )
    if len(set(payload[:SALT_BYTES])) == 1:
        raise refusal(
            "E_PAYLOAD",
            "the salt is one byte repeated",
            "without random salt the public hash gives the data away",
            "draw the salt at random",
        )


def _sealed(data: bytes, key: bytes) -> bytes:
    try:
        return seal(data, key)
    except ValueError as error:
        raise refusal(
            "E_KEY",
            "the bytes cannot be sealed",
            str(error),
            "send a fresh key with each call",
        ) from None


async def _own(ctx: Context, view: StateView, dataset: str) -> DataSet:
    found = await store.require(view, DataSet, store.DATASET, dataset)
    require_owner(ctx, found)
    return found


async def _granted(ctx: Context, view: StateView, request: str) -> Request:
    filed = await store.require(view, Request, store.REQUEST, request)
    if filed.msp_id != ctx.identity.msp_id:
        raise refusal(
            "E_NOT_GRANTEE",
            f"{ctx.identity.msp_id} may not do this",
            f"the request was filed by {filed.msp_id}",
            "file a request of its own",
            request=request,
        )
    await require_active_caller(ctx, view)
    return filed


async def _subjects(view: StateView, entry: Publication) -> tuple[str, ...]:
    """The persons that a data set is about: its own and those of its sources. Raises E_NOT_FOUND, E_LIMIT."""
    found = {entry.subject} if entry.subject is not None else set()
    for source in entry.sources:
        found |= set((await store.require(view, DataSet, store.DATASET, source)).subjects)
    if found and entry.personal == "none":
        raise refusal(
            "E_INPUT",
            "a product of personal data is personal",
            "its sources name the persons that they are about",
            "say personal or sensitive, or leave out sources from which nobody can be told any more",
        )
    if len(found) > SUBJECTS_MAX:
        raise refusal(
            "E_LIMIT",
            "the sources are about too many persons",
            f"at most {SUBJECTS_MAX} are named",
            "name fewer sources",
        )
    return tuple(sorted(found))


def _check_part(document: bytes, dataset: DataSet, request: str, grant: Grant) -> None:
    try:
        check_projection(
            read_projection(document), dataset=dataset.id, request=request, entry=dataset.entry, grant=grant
        )
    except ProjectionError as error:
        raise refusal(
            "E_PROJECTION",
            "this is no part of the table that was granted",
            str(error),
            "make the projection anew from the deposit and the receipt",
            request=request,
        ) from None


async def _releasable(ctx: Context, view: StateView, request: str) -> tuple[Request, DataSet, Grant]:
    """The request, the data set that its owner, the caller, may deliver now, and what of it."""
    filed = await store.require(view, Request, store.REQUEST, request)
    dataset = await _own(ctx, view, filed.dataset)
    await require_active_caller(ctx, view)
    receipt = await require_permit(ctx, view, filed, dataset)
    if dataset.state != "published":
        raise refusal(
            "E_STATE",
            "the data set was withdrawn",
            "nothing more is delivered of it",
            "publish it anew",
            request=request,
        )
    grant = Grant.of(receipt, dataset.entry)
    if not grant.whole and dataset.entry.table_root is None:
        raise refusal(
            "E_FIELDS",
            "the permit is for a part of the table only",
            f"it grants {', '.join(grant.fields)}, and the entry commits to the whole alone",
            "publish it anew with a table root",
            request=request,
        )
    await require_active(view, filed.msp_id)
    await require_unsuspended(view, filed.msp_id, filed.identity)
    if await delivered_hash(ctx.stub, filed) is not None:
        raise refusal(
            "E_STATE",
            "the request was delivered already",
            "an earlier transaction did it",
            "nothing is left to do",
            request=request,
        )
    return filed, dataset, grant


def _not_delivered(request: str) -> ContractError:
    return refusal(
        "E_NOT_DELIVERED",
        "there is nothing to open",
        "the data set was not delivered on this request",
        "ask its owner to release it",
        request=request,
    )
