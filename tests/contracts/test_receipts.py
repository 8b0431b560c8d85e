"""Receipts: complete, salted, listed page by page, and found out by an auditor when they are not what they must be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from audited import altered, audit
from memory_ledger import MemoryLedger, creator, enact, law
from refusals import refused
from sharing_steps import ask, delivered, permitted, share

from sovchain.contracts.core import Laws, Receipts, Registry, Sharing
from sovchain.contracts.core.engine import law_set_hash
from sovchain.contracts.core.lawreview import law_version
from sovchain.contracts.core.receipts import receipt_key, request_of_receipt_key
from sovchain.contracts.core.records import PAGE_MAX, AccessFilter, EnactedLaw, Receipt
from sovchain.contracts.core.store import encode_record

ALL = AccessFilter()


async def deny(ledger: MemoryLedger, who: str | bytes = "Finance", **words: Any) -> Receipt:
    request = await ask(ledger, who, await share(ledger), **words)
    receipt = await ledger.submit("Supervisor", Sharing.decide, request)
    assert isinstance(receipt, Receipt)
    assert receipt.decision == "deny"
    return receipt


# Content -------------------------------------------------------------------------------------------------------------


async def test_a_receipt_says_who_decided_what_when_by_which_law(governed: MemoryLedger) -> None:
    dataset = await share(governed)
    request = await ask(governed, "Finance", dataset)
    receipt = await governed.submit("Supervisor", Sharing.decide, request)
    transaction = governed.transactions[-1]
    assert (receipt.id, receipt.request, receipt.decided_at) == (transaction.transaction_id, request, governed.now)
    assert (receipt.decided_by, receipt.decision, receipt.code) == ("SupervisorMSP", "permit", "")
    assert receipt.algorithms["hash"] == "SHA-256"
    filed = await governed.evaluate("Finance", Sharing.request, request)
    assert receipt.request_hash == hashlib.sha256(encode_record(filed)).hexdigest()
    enacted = [
        EnactedLaw.model_validate_json(value)
        for key, value in governed.state.items()
        if key.startswith("\x00enacted\x00")
    ]
    assert receipt.law_set_hash == law_set_hash([law_version(one) for one in enacted])
    assert transaction.event is not None
    assert transaction.event[0] == "RequestDecided"
    stored = governed.state[receipt_key(request)]
    assert json.loads(stored)["request_hash"] == receipt.request_hash
    assert stored == encode_record(receipt)


async def test_equal_requests_have_different_hashes_because_of_their_salt(governed: MemoryLedger) -> None:
    """Who knows purpose and parties still cannot tell a receipt's request without its salt."""
    dataset = await share(governed)
    request = await ask(governed, "Finance", dataset)
    filed = await governed.evaluate("Finance", Sharing.request, request)
    same = filed.model_copy(update={"salt": "5b" * 32})
    hashes = {hashlib.sha256(encode_record(one)).hexdigest() for one in (filed, same)}
    assert len(hashes) == 2
    receipt = await governed.submit("Finance", Sharing.decide, request)
    assert receipt.request_hash in hashes
    assert filed.salt not in encode_record(receipt).decode()


# Listings ------------------------------------------------------------------------------------------------------------


async def test_listings_filter_by_data_set_organisation_and_decision(governed: MemoryLedger) -> None:
    dataset, request = await delivered(governed)
    other = await share(governed)
    denied = []
    for who, which in (("Finance", other), ("OverseasCarrier", dataset)):
        denied.append(await ask(governed, who, which, "marketing"))
        await governed.submit(who, Sharing.decide, denied[-1])
    for chosen, expected in (
        (ALL, [request, *denied]),
        (AccessFilter(dataset=dataset), [request, denied[1]]),
        (AccessFilter(dataset=other), [denied[0]]),
        (AccessFilter(msp_id="FinanceMSP"), [request, denied[0]]),
        (AccessFilter(decision="deny"), denied),
        (AccessFilter(dataset=dataset, msp_id="FinanceMSP", decision="deny"), []),
        (AccessFilter(dataset="ab" * 32), []),
    ):
        for listing in (Receipts.listing, Receipts.who_saw):
            found = await governed.evaluate("Supervisor", listing, chosen)
            assert [one.request for one in found.items] == expected
            assert found.bookmark == ""
    rows = (await governed.evaluate("Supervisor", Receipts.who_saw, ALL)).items
    assert [(row.delivered, row.acknowledged_at) for row in rows] == [(True, None), (False, None), (False, None)]


async def test_listings_go_on_over_pages_in_the_order_of_the_decisions(governed: MemoryLedger) -> None:
    """A page counts decisions before it filters them, so that one may be empty and not the last."""
    dataset = await share(governed)
    other = await share(governed)
    expected = []
    for number in range(PAGE_MAX + 3):
        which = other if number == PAGE_MAX + 1 else dataset
        expected.append(await ask(governed, "Finance", which, "statistics" if number % 2 else "marketing"))
        await governed.submit("Finance", Sharing.decide, expected[-1])
    for listing in (Receipts.listing, Receipts.who_saw):
        first = await governed.evaluate("Finance", listing, ALL)
        second = await governed.evaluate("Finance", listing, ALL, first.bookmark)
        assert (len(first.items), len(second.items), second.bookmark) == (PAGE_MAX, 3, "")
        assert [one.request for one in (*first.items, *second.items)] == expected
    of_other = await governed.evaluate("Finance", Receipts.listing, AccessFilter(dataset=other))
    assert [one.request for one in of_other.items] == [expected[PAGE_MAX + 1]]
    nobody = await governed.evaluate("Finance", Receipts.listing, AccessFilter(msp_id="LogisticsMSP"))
    assert nobody.items == ()
    assert nobody.bookmark
    requests = await governed.evaluate("Finance", Sharing.requests)
    rest = await governed.evaluate("Finance", Sharing.requests, requests.bookmark)
    assert {one.id for one in (*requests.items, *rest.items)} == set(expected)


async def test_a_bookmark_of_another_listing_is_refused(governed: MemoryLedger) -> None:
    """It would lead into records of another kind, or past the filter by data set."""
    dataset, _ = await permitted(governed)
    other, _ = await permitted(governed)
    low, high = sorted((dataset, other))
    for bookmark in ("\x00", "\x00ballot\x00", f"\x00decided-on\x00{low}\x00", "x", "\U0010ffff"):
        with refused("E_BOOKMARK"):
            await governed.evaluate("Finance", Receipts.listing, AccessFilter(dataset=high), bookmark)
    for listing in (Sharing.datasets, Sharing.requests, Registry.organisations, Laws.listing):
        with refused("E_BOOKMARK"):
            await governed.evaluate("Finance", listing, "\x00ballot\x00")


# Audit ---------------------------------------------------------------------------------------------------------------


async def permit_of_finance(ledger: MemoryLedger) -> None:
    await permitted(ledger)


async def denial_by_clause(ledger: MemoryLedger) -> None:
    assert (await deny(ledger, destination="SG")).code == "E_FORBIDDEN"


async def denial_of_words(ledger: MemoryLedger) -> None:
    await deny(ledger, purpose="gossip", action="steal")


async def denial_of_a_stranger(ledger: MemoryLedger) -> None:
    await deny(ledger, "Outsider")


async def denial_of_the_suspended(ledger: MemoryLedger) -> None:
    await ledger.submit("Supervisor/admin", Registry.suspend, "FinanceMSP", "a reason")
    await deny(ledger)


async def denial_without_attributes(ledger: MemoryLedger) -> None:
    await deny(ledger, creator("Finance", role=None, clearance=None))


async def denial_of_what_was_withdrawn(ledger: MemoryLedger) -> None:
    dataset = await share(ledger)
    request = await ask(ledger, "Finance", dataset)
    await ledger.submit("Government", Sharing.withdraw, dataset, "outdated")
    await ledger.submit("Finance", Sharing.decide, request)


async def denial_by_a_new_law(ledger: MemoryLedger) -> None:
    await enact(ledger, law('@c("a")\nforbid (principal, action, resource);', jurisdiction="CN"))
    await deny(ledger)


KINDS = (
    permit_of_finance,
    denial_by_clause,
    denial_of_words,
    denial_of_a_stranger,
    denial_of_the_suspended,
    denial_without_attributes,
    denial_of_what_was_withdrawn,
    denial_by_a_new_law,
)


@pytest.mark.parametrize("happens", KINDS)
async def test_an_auditor_computes_every_kind_of_receipt_again(
    governed: MemoryLedger, happens: Callable[..., Any]
) -> None:
    await happens(governed)
    checks = audit(governed)
    assert [check.recomputed for check in checks] == [True], checks
    assert all(check.reasons for check in checks)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("decision", "permit"),
        ("code", ""),
        ("reasons", []),
        ("law_set_hash", "00" * 32),
        ("request_hash", "00" * 32),
        ("decided_at", "2026-03-02T07:00:00.000000Z"),
        ("decided_by", "GovernmentMSP"),
        ("decider", "00" * 32),
        ("id", "00" * 32),
        ("request", "00" * 32),
        ("engine_version", "0"),
        ("surplus", 1),
        ("algorithms", {}),
    ],
)
async def test_an_auditor_finds_a_receipt_that_says_something_else(
    governed: MemoryLedger, field: str, value: object
) -> None:
    await deny(governed, destination="SG")
    (check,) = audit(governed, lambda committed: altered(committed, lambda receipt: {**receipt, field: value}))
    assert not check.recomputed
    assert check.reasons


@pytest.mark.parametrize("written", [None, b"", b"{", b"[]", b"\xff", b"null"])
async def test_an_auditor_finds_a_receipt_that_was_deleted_or_is_none(
    governed: MemoryLedger, written: bytes | None
) -> None:
    receipt = await deny(governed, purpose="marketing")
    (check,) = audit(governed, lambda committed: altered(committed, written=written))
    assert not check.recomputed
    assert check.request == receipt.request
    assert any("cannot be recomputed" in reason for reason in check.reasons)


async def test_an_auditor_finds_the_same_bytes_written_otherwise(governed: MemoryLedger) -> None:
    """Canonical JSON has one form: the same content with a blank in it is not the receipt."""
    receipt = await deny(governed, purpose="marketing")
    loose = json.dumps(json.loads(encode_record(receipt))).encode()
    (check,) = audit(governed, lambda committed: altered(committed, written=loose))
    assert not check.recomputed


async def test_an_auditor_finds_a_receipt_without_a_request(governed: MemoryLedger) -> None:
    await deny(governed, purpose="marketing")
    (check,) = audit(governed, without="\x00request\x00")
    assert not check.recomputed
    assert "there is no request" in check.reasons[-1]


@pytest.mark.parametrize(
    "key",
    ["\x00receipt\x00", "\x00receipt\x00abc", "\x00receipt\x00a\x00b\x00", "receipt", "\x00receipts\x00a\x00", "\x00"],
)
def test_a_key_that_only_looks_like_a_receipts_is_none(key: str) -> None:
    """Other chaincodes write what keys they like; none of them may stop an audit."""
    assert request_of_receipt_key(key) is None


def test_a_receipts_key_leads_to_its_request() -> None:
    assert request_of_receipt_key(receipt_key("ab" * 32)) == "ab" * 32
