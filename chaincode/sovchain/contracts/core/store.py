"""Where records lie in the world state, and how they are read and written.

Every key is composite, so that one kind of record can never be mistaken for another and ranges follow whole components.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Final, Protocol, TypeVar

from pydantic import BaseModel

from sovchain.chaincode import Context, Stub
from sovchain.contracts.core.records import PAGE_MAX, Page, Record
from sovchain.contracts.core.refusal import refusal
from sovchain.protocol.canonical import canonical_json
from sovchain.protocol.keys import composite_key, partial_composite_range, split_composite_key

# Each kind of key with the components that follow it.
ORGANISATION: Final = "organisation"  # msp id
SUSPENDED_IDENTITY: Final = "suspended-identity"  # msp id, identity
BALLOT: Final = "ballot"  # ballot id
VOTE: Final = "vote"  # ballot id, class of seat
ADMISSION: Final = "admission"  # ballot id
LAW_TITLE: Final = "law-title"  # law id
LAW_DRAFT: Final = "law-draft"  # ballot id
LAW_TEXT: Final = "law-text"  # text hash
REPEAL: Final = "repeal"  # ballot id
ENACTED: Final = "enacted"  # jurisdiction, law id, version as six digits
DATASET: Final = "dataset"  # data set id
REQUEST: Final = "request"  # request id
RECEIPT: Final = "receipt"  # request id
DECIDED: Final = "decided"  # time, request id: an index in the order of the decisions
DECIDED_ON: Final = "decided-on"  # data set id, time, request id: the same for one data set
ACKNOWLEDGEMENT: Final = "acknowledgement"  # request id
ANCHOR_PROPOSAL: Final = "anchor-proposal"  # ballot id
ANCHOR: Final = "anchor"  # channel, epoch as four digits
CHALLENGE: Final = "challenge"  # challenge id
ARRIVAL: Final = "arrival"  # challenge id
CALENDAR_DRAFT: Final = "calendar-draft"  # ballot id
CALENDAR: Final = "calendar"  # jurisdiction, year
PERSON: Final = "person"  # msp id, identity
DELEGATION: Final = "delegation"  # delegate's msp id, role
SUSPENDED_PLACE: Final = "suspended-place"  # jurisdiction
HOLD: Final = "hold"  # data set id or pseudonym, order id
ORDER: Final = "order"  # order id
CORRECTION: Final = "correction"  # target, order id
RECLASSIFICATION: Final = "reclassification"  # data set id
PURGE: Final = "purge"  # data set id
WARRANT: Final = "warrant"  # warrant id
EMERGENCY: Final = "emergency"  # emergency id
OPEN_EMERGENCY: Final = "open-emergency"  # msp id, identity
COSIGNATURE: Final = "cosignature"  # request id, who
DUTY: Final = "duty"  # request id, kind
NOTICE: Final = "notice"  # msp id, request id
EXPORTED: Final = "exported"  # owner's msp id, year
RECEIVED: Final = "received"  # requester's msp id, owner's msp id, year
WALLET: Final = "wallet"  # pseudonym
REPRESENTATIVE: Final = "representative"  # pseudonym, msp id, identity
CONSENT: Final = "consent"  # pseudonym, consent id
ABOUT: Final = "about"  # pseudonym, data set id
OUTGOING: Final = "outgoing"  # challenge id
REVOCATION: Final = "revocation"  # request id
USE_REPORT: Final = "use-report"  # request id; private too, in the owner's collection
USAGE: Final = "usage"  # data set id, grantee's msp id
MAY_DERIVE: Final = "may-derive"  # data set id, grantee's msp id: its latest permit to make products
PRODUCT: Final = "product"  # source's data set id, product's data set id
RIGHTS: Final = "rights"  # pseudonym, request id
RIGHTS_TEXT: Final = "rights-text"  # private; pseudonym, request id, "text" or "answer"
HANDLER: Final = "handler"  # msp id
PAYLOAD: Final = "payload"  # private; owner's: data set id; grantee's: data set id, request id

R = TypeVar("R", bound=Record)


class StateView(Protocol):
    """Committed public state of one chaincode, as a transaction sees it and as an auditor replays it."""

    async def get(self, key: str) -> bytes | None:
        """Value of a key, None when it is absent."""
        ...

    def range(self, start: str, end: str) -> AsyncIterator[tuple[str, bytes]]:
        """Keys from `start` (inclusive) to `end` (exclusive) in the ledger's order."""
        ...


class StubView:
    """The state that a running transaction sees. Reads go into its read set, so that a conflict is found at commit."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    async def get(self, key: str) -> bytes | None:
        """Value of a key, None when it is absent."""
        return await self._stub.get_state(key)

    async def range(self, start: str, end: str) -> AsyncIterator[tuple[str, bytes]]:
        """All keys under one composite prefix: the only ranges that contracts read.

        Raises ValueError for other bounds than `partial_composite_range` gives.
        """
        kind, attributes = split_composite_key(start)
        if (start, end) != partial_composite_range(kind, attributes):
            raise ValueError("a transaction reads ranges of whole composite prefixes only")
        async with self._stub.partial_composite_range(kind, attributes) as items:
            async for key, value in items:
                yield key, value


def implicit_collection(msp_id: str) -> str:
    """Name of the private collection that every organisation has (core/chaincode/implicitcollection/collection.go)."""
    return f"_implicit_org_{msp_id}"


def sha256_hex(data: bytes) -> str:
    """Hex SHA-256: what Fabric keeps in public of a private value."""
    return hashlib.sha256(data).hexdigest()


def identity_hash(client_id: str) -> str:
    """Hex SHA-256 of a client id. It shortens; it hides nothing, as the certificate is in the transaction."""
    return hashlib.sha256(client_id.encode("utf-8", "surrogatepass")).hexdigest()


def key(kind: str, *components: str) -> str:
    """The state key of a record."""
    return composite_key(kind, components)


def encode_record(record: BaseModel) -> bytes:
    """The canonical JSON of a record; absent values are left out."""
    return canonical_json(record.model_dump(mode="json", exclude_none=True))


async def read(view: StateView, model: type[R], kind: str, *components: str) -> R | None:
    """The record under a key, None when there is none."""
    raw = await view.get(composite_key(kind, components))
    return None if raw is None else model.model_validate_json(raw)


async def require(view: StateView, model: type[R], kind: str, *components: str) -> R:
    """The record under a key. Raises ContractError E_NOT_FOUND."""
    found = await read(view, model, kind, *components)
    if found is None:
        raise refusal(
            "E_NOT_FOUND",
            f"there is no {kind} {' '.join(components)}",
            "it was never committed on this channel",
            "check the id and the channel",
            kind=kind,
            id=components[-1],
        )
    return found


async def scan(view: StateView, model: type[R], kind: str, *components: str) -> list[R]:
    """All records under a prefix, in the order of their keys."""
    return [
        model.model_validate_json(value) async for _, value in view.range(*partial_composite_range(kind, components))
    ]


async def write(ctx: Context, record: Record, kind: str, *components: str) -> None:
    """Put a record into public state."""
    await ctx.stub.put_state(composite_key(kind, components), encode_record(record))


async def page(stub: Stub, model: type[R], kind: str, *components: str, bookmark: str) -> Page[R]:
    """One page of the records under a prefix, `PAGE_MAX` at most, for queries.

    Raises ContractError E_BOOKMARK for a bookmark of another listing, which would lead to records of other kinds.
    """
    if bookmark and not bookmark.startswith(composite_key(kind, components)):
        raise refusal(
            "E_BOOKMARK",
            "the bookmark does not belong to this listing",
            "it leads to other records",
            "use the one that the page before came with, or none",
        )
    found = await stub.partial_composite_page(kind, components, page_size=PAGE_MAX, bookmark=bookmark)
    return Page(items=tuple(model.model_validate_json(value) for _, value in found.items), bookmark=found.bookmark)
