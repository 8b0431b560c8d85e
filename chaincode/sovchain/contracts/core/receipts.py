"""Receipts: how one is made, how anyone makes it again from ledger data, and the listings of who saw what."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sovchain.chaincode import ClientIdentity, Context, Contract, Stub, query
from sovchain.contracts.core import store
from sovchain.contracts.core.engine import Decision, decide
from sovchain.contracts.core.facts import DecisionInput
from sovchain.contracts.core.gathering import gather
from sovchain.contracts.core.records import (
    ALGORITHMS,
    ENGINE_VERSION,
    Access,
    AccessFilter,
    Acknowledgement,
    DataSet,
    Hex32,
    Page,
    Pointer,
    Receipt,
    Request,
    format_time,
)
from sovchain.contracts.core.store import StateView, StubView, encode_record, identity_hash, implicit_collection
from sovchain.protocol.identity import parse_identity
from sovchain.protocol.keys import KeyFormatError, composite_key, split_composite_key


@dataclass(frozen=True)
class Decider:
    """Who triggered a decision: organisation, and the SHA-256 of the client id. It has no influence on the outcome."""

    msp_id: str
    identity: str

    @classmethod
    def of(cls, creator: bytes) -> Decider:
        """The decider that a transaction's creator bytes (a serialized identity) stand for. Raises MalformedError."""
        identity = parse_identity(creator)
        return cls(identity.msp_id, identity_hash(identity.client_id))

    @classmethod
    def of_caller(cls, identity: ClientIdentity) -> Decider:
        """The decider that the running call's identity stands for."""
        return cls(identity.msp_id, identity_hash(identity.id))


def receipt_key(request_id: str) -> str:
    """State key of the receipt on a request."""
    return composite_key(store.RECEIPT, [request_id])


def request_of_receipt_key(key: str) -> str | None:
    """The request id in a receipt's state key, None when the key is not one of a receipt."""
    try:
        kind, components = split_composite_key(key)
    except KeyFormatError:  # any other chaincode of the channel may write such a key
        return None
    return components[0] if kind == store.RECEIPT and len(components) == 1 else None


def build_receipt(
    request: Request, decision: Decision, *, transaction_id: str, timestamp: datetime, decider: Decider
) -> Receipt:
    """The receipt for a decision. Equal arguments give equal bytes."""
    return Receipt(
        id=transaction_id,
        request=request.id,
        decision=decision.decision,
        code=decision.code,
        reasons=decision.reasons,
        obligations=decision.obligations,
        fields=decision.fields,
        masks=decision.masks,
        rows=decision.rows,
        law_set_hash=decision.law_set_hash,
        request_hash=hashlib.sha256(encode_record(request)).hexdigest(),
        decided_at=timestamp,
        decided_by=decider.msp_id,
        decider=decider.identity,
        engine_version=ENGINE_VERSION,
        algorithms=ALGORITHMS,
    )


async def make_receipt(
    view: StateView, request_id: str, *, transaction_id: str, timestamp: datetime, channel: str, decider: Decider
) -> tuple[Request, DecisionInput, Receipt]:
    """Gather, decide, build: the one way in which contract and auditor come to a receipt.

    Raises ContractError E_NOT_FOUND, E_TIME.
    """
    request = await store.require(view, Request, store.REQUEST, request_id)
    facts = await gather(view, request, timestamp=timestamp, channel=channel)
    decision = decide(facts)
    receipt = build_receipt(request, decision, transaction_id=transaction_id, timestamp=timestamp, decider=decider)
    return request, facts, receipt


async def recompute_receipt(
    view: StateView, request_id: str, *, transaction_id: str, timestamp: datetime, channel: str, decider: Decider
) -> bytes:
    """The bytes that the receipt on `request_id` must have, computed again from the state before its transaction.

    `transaction_id`, `timestamp`, `channel` and `decider` are those of the transaction that decided. Raises
    ContractError when the state holds no such request or it could not be decided then.
    """
    _, _, receipt = await make_receipt(
        view, request_id, transaction_id=transaction_id, timestamp=timestamp, channel=channel, decider=decider
    )
    return encode_record(receipt)


async def write_receipt(ctx: Context, request: Request, receipt: Receipt) -> None:
    """Put a receipt and its two index entries into public state."""
    moment = format_time(receipt.decided_at)
    pointer = Pointer(request=request.id)
    await store.write(ctx, receipt, store.RECEIPT, request.id)
    await store.write(ctx, pointer, store.DECIDED, moment, request.id)
    await store.write(ctx, pointer, store.DECIDED_ON, request.dataset, moment, request.id)


class Receipts(Contract):
    """Decisions and what came of them, for everyone on the channel."""

    @query
    async def read(self, ctx: Context, request: Hex32) -> Receipt:
        """The receipt on a request. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Receipt, store.RECEIPT, request)

    @query
    async def acknowledgement(self, ctx: Context, request: Hex32) -> Acknowledgement:
        """The acknowledgement of a delivery. Raises E_NOT_FOUND."""
        return await store.require(StubView(ctx.stub), Acknowledgement, store.ACKNOWLEDGEMENT, request)

    @query
    async def listing(self, ctx: Context, chosen: AccessFilter, bookmark: str = "") -> Page[Receipt]:
        """Receipts in the order of their decisions.

        A page may hold fewer than `PAGE_MAX`, or none, and not be the last.
        """
        found, following = await _decisions(ctx.stub, chosen, bookmark)
        return Page(items=tuple(receipt for _, receipt in found), bookmark=following)

    @query
    async def who_saw(self, ctx: Context, chosen: AccessFilter, bookmark: str = "") -> Page[Access]:
        """Decisions with request, data set, delivery and acknowledgement, in the order of the decisions.

        A page may hold fewer than `PAGE_MAX`, or none, and not be the last.
        """
        found, following = await _decisions(ctx.stub, chosen, bookmark)
        return Page(items=tuple([await _access(ctx.stub, *one) for one in found]), bookmark=following)


async def _decisions(stub: Stub, chosen: AccessFilter, bookmark: str) -> tuple[list[tuple[Request, Receipt]], str]:
    """One page of the index with the decisions that match, and the bookmark of the next page."""
    prefix = (store.DECIDED,) if chosen.dataset is None else (store.DECIDED_ON, chosen.dataset)
    pointers = await store.page(stub, Pointer, *prefix, bookmark=bookmark)
    view, found = StubView(stub), []
    for pointer in pointers.items:
        request = await store.require(view, Request, store.REQUEST, pointer.request)
        receipt = await store.require(view, Receipt, store.RECEIPT, pointer.request)
        if chosen.msp_id in {None, request.msp_id} and chosen.decision in {None, receipt.decision}:
            found.append((request, receipt))
    return found, pointers.bookmark


async def _access(stub: Stub, request: Request, receipt: Receipt) -> Access:
    view = StubView(stub)
    dataset = await store.require(view, DataSet, store.DATASET, request.dataset)
    acknowledged = await store.read(view, Acknowledgement, store.ACKNOWLEDGEMENT, request.id)
    return Access(
        dataset=dataset.id,
        dataset_name=dataset.entry.name,
        owner=dataset.owner,
        request=request.id,
        msp_id=request.msp_id,
        identity=request.identity,
        action=request.action,
        purpose=request.purpose,
        filed_at=request.filed_at,
        receipt=receipt.id,
        decision=receipt.decision,
        code=receipt.code,
        reasons=receipt.reasons,
        decided_at=receipt.decided_at,
        delivered=await delivered_hash(stub, request) is not None,
        acknowledged_at=acknowledged.acknowledged_at if acknowledged else None,
    )


def payload_key(dataset: str, request: str | None = None) -> str:
    """Key of a payload in a private collection: the owner's by data set, a grantee's by data set and request."""
    return composite_key(store.PAYLOAD, [dataset] if request is None else [dataset, request])


async def delivered_hash(stub: Stub, request: Request) -> str | None:
    """Hex SHA-256 of what lies in the grantee's collection for a request, None before the delivery.

    Every peer of the channel knows it.
    """
    found = await stub.get_private_data_hash(
        implicit_collection(request.msp_id), payload_key(request.dataset, request.id)
    )
    return found.hex() if found else None
