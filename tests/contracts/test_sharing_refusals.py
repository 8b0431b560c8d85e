"""Every step of sharing that must not be taken, and that nothing private becomes public on the way."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from memory_ledger import MemoryLedger, creator
from refusals import refused
from sharing_steps import MARKER, PAYLOAD, SALT, ask, delivered, entry, permitted, share

from sovchain.contracts.core import Receipts, Registry, Sharing
from sovchain.contracts.core.records import PAYLOAD_MAX_BYTES, AccessFilter

COMMITMENT = hashlib.sha256(PAYLOAD).hexdigest()
KEY = bytes(range(32))
UNKNOWN = "ab" * 32


async def suspend(ledger: MemoryLedger, name: str) -> None:
    await ledger.submit("Supervisor/admin", Registry.suspend, f"{name}MSP", "an investigation")


async def suspend_user(ledger: MemoryLedger, name: str, request: str) -> None:
    identity = (await ledger.evaluate(name, Sharing.request, request)).identity
    await ledger.submit("Supervisor/admin", Registry.suspend_identity, f"{name}MSP", identity, "a stolen key")


# Deposit and publish -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        (b"", "empty"),
        (bytes(range(32)), "empty"),
        (b"\x07" * 32 + b"a\n1\n", "one byte repeated"),
        (bytes(range(32)) + b"x" * (PAYLOAD_MAX_BYTES + 1), str(PAYLOAD_MAX_BYTES)),
    ],
)
async def test_a_payload_without_data_or_salt_or_above_the_limit_is_refused(
    governed: MemoryLedger, payload: bytes, word: str
) -> None:
    with refused("E_PAYLOAD", word):
        await governed.submit("Government", Sharing.deposit, payload)


async def test_the_largest_payload_is_taken(governed: MemoryLedger) -> None:
    await governed.submit("Government", Sharing.deposit, bytes(range(32)) + b"x" * PAYLOAD_MAX_BYTES)


async def test_only_a_deposit_of_ones_own_is_published_and_once(governed: MemoryLedger) -> None:
    dataset = await governed.submit("Government", Sharing.deposit, PAYLOAD)
    with refused("E_NOT_FOUND", "FinanceMSP made no such deposit"):
        await governed.submit("Finance", Sharing.publish, dataset, COMMITMENT, entry())
    with refused("E_NOT_FOUND"):
        await governed.submit("Government", Sharing.publish, UNKNOWN, COMMITMENT, entry())
    with refused("E_COMMITMENT"):
        await governed.submit("Government", Sharing.publish, dataset, UNKNOWN, entry())
    await governed.submit("Government", Sharing.publish, dataset, COMMITMENT, entry())
    with refused("E_STATE", "in the catalogue already"):
        await governed.submit("Government", Sharing.publish, dataset, COMMITMENT, entry())


@pytest.mark.parametrize("place", ["CN", "CN-GZ", "CN-GZ-520300", "SG", "CN-GZ-520102"])
async def test_an_owner_cannot_leave_the_law_of_its_place_by_naming_another(governed: MemoryLedger, place: str) -> None:
    dataset = await governed.submit("Government", Sharing.deposit, PAYLOAD)
    with refused("E_JURISDICTION", place):
        await governed.submit("Government", Sharing.publish, dataset, COMMITMENT, entry(jurisdiction=place))


async def test_who_is_not_in_the_registry_or_is_suspended_shares_nothing(governed: MemoryLedger) -> None:
    with refused("E_NOT_ADMITTED"):
        await governed.submit("Outsider", Sharing.deposit, PAYLOAD)
    dataset = await governed.submit("Government", Sharing.deposit, PAYLOAD)
    await suspend(governed, "Government")
    for operation, arguments in (
        (Sharing.deposit, (PAYLOAD,)),
        (Sharing.publish, (dataset, COMMITMENT, entry())),
    ):
        with refused("E_SUSPENDED", "an investigation"):
            await governed.submit("Government", operation, *arguments)


# Requests and decisions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "words", "code", "rule"),
    [
        ("Finance", {"purpose": "gossip"}, "E_UNKNOWN_WORD", "engine:unknown-purpose"),
        ("Finance", {"action": "steal"}, "E_UNKNOWN_WORD", "engine:unknown-action"),
        ("Finance", {"legal_basis": "because"}, "E_UNKNOWN_WORD", "engine:unknown-legal-basis"),
        ("Finance", {"purpose": "marketing"}, "E_DEFAULT_DENY", "engine:purpose-limit"),
        ("Finance", {"destination": "SG"}, "E_FORBIDDEN", "engine:residency"),
        ("Finance", {"destination": "CN-GΖ"}, "E_ATTRIBUTE", "engine:jurisdiction"),
        ("Finance", {"destination": "CN-GZ-520100 "}, "E_ATTRIBUTE", "engine:jurisdiction"),
        ("OverseasCarrier", {}, "E_FORBIDDEN", "engine:residency"),
        ("Outsider", {}, "E_NOT_REGISTERED", "engine:not-registered"),
    ],
)
async def test_what_the_law_does_not_know_or_permit_is_a_committed_denial(
    governed: MemoryLedger, who: str, words: dict[str, Any], code: str, rule: str
) -> None:
    request = await ask(governed, who, await share(governed), **words)
    receipt = await governed.submit(who, Sharing.decide, request)
    assert (receipt.decision, receipt.code) == ("deny", code), receipt.reasons
    assert rule in {reason.rule for reason in receipt.reasons}
    assert await governed.evaluate("Supervisor", Receipts.read, request) == receipt


@pytest.mark.parametrize(
    "words", [{"purpose": "Statistics"}, {"purpose": ""}, {"action": "re ad"}, {"salt": "5a"}, {"destination": ""}]
)
async def test_a_word_that_is_none_is_refused(governed: MemoryLedger, words: dict[str, str]) -> None:
    dataset = await share(governed)
    with refused("E_ARGUMENT"):
        await ask(governed, "Finance", dataset, **words)


async def test_a_request_is_decided_once_and_only_when_it_is_on_file(governed: MemoryLedger) -> None:
    with refused("E_NOT_FOUND"):
        await ask(governed, "Finance", UNKNOWN)
    with refused("E_NOT_FOUND"):
        await governed.submit("Finance", Sharing.decide, UNKNOWN)
    _, request = await permitted(governed)
    with refused("E_STATE", "decided already"):
        await governed.submit("Supervisor", Sharing.decide, request)


async def test_a_decision_is_not_dated_before_what_it_rests_on(governed: MemoryLedger) -> None:
    request = await ask(governed, "Finance", await share(governed))
    governed.now -= timedelta(seconds=30)
    with refused("E_TIME"):
        await governed.submit("Finance", Sharing.decide, request)


async def test_a_withdrawn_data_set_is_denied_whenever_it_was_asked_for(governed: MemoryLedger) -> None:
    dataset = await share(governed)
    before = await ask(governed, "Finance", dataset)
    with refused("E_NOT_OWNER", "GovernmentMSP"):
        await governed.submit("Finance", Sharing.withdraw, dataset, "a reason")
    with refused("E_NOT_FOUND"):
        await governed.submit("Government", Sharing.withdraw, UNKNOWN, "a reason")
    await governed.submit("Government", Sharing.withdraw, dataset, "outdated")
    with refused("E_STATE", "withdrawn already"):
        await governed.submit("Government", Sharing.withdraw, dataset, "outdated")
    for request in (before, await ask(governed, "Finance", dataset)):
        receipt = await governed.submit("Finance", Sharing.decide, request)
        assert (receipt.code, [reason.rule for reason in receipt.reasons]) == ("E_WITHDRAWN", ["engine:withdrawn"])


# Release -------------------------------------------------------------------------------------------------------------


async def no_release(ledger: MemoryLedger, who: str, request: str, code: str, *words: str) -> None:
    """Neither may the owner's bytes be read for release nor delivered."""
    with refused(code, *words):
        await ledger.evaluate(who, Sharing.read_for_release, request, KEY, peer="Government")
    with refused(code, *words):
        await ledger.submit(who, Sharing.deliver, request, PAYLOAD)


async def test_nothing_is_released_without_a_committed_permit(governed: MemoryLedger) -> None:
    dataset = await share(governed)
    await no_release(governed, "Government", UNKNOWN, "E_NOT_FOUND")
    undecided = await ask(governed, "Finance", dataset)
    await no_release(governed, "Government", undecided, "E_NOT_PERMITTED", "not decided")
    denied = await ask(governed, "Finance", dataset, "marketing")
    await governed.submit("Finance", Sharing.decide, denied)
    await no_release(governed, "Government", denied, "E_NOT_PERMITTED", "denied")
    assert not any("Finance" in collection for collection, _ in governed.private)


async def test_only_the_owner_releases_and_once(governed: MemoryLedger) -> None:
    _, request = await permitted(governed)
    for who in ("Finance", "Supervisor", "Outsider"):
        await no_release(governed, who, request, "E_NOT_OWNER")
    await governed.submit("Government", Sharing.deliver, request, PAYLOAD)
    await no_release(governed, "Government", request, "E_STATE", "delivered already")


async def test_a_permit_does_not_outlive_the_data_set_or_the_parties_standing(governed: MemoryLedger) -> None:
    dataset, withdrawn = await permitted(governed)
    await governed.submit("Government", Sharing.withdraw, dataset, "outdated")
    await no_release(governed, "Government", withdrawn, "E_STATE", "withdrawn")
    _, request = await permitted(governed)
    await suspend(governed, "Finance")
    await no_release(governed, "Government", request, "E_SUSPENDED", "FinanceMSP")


async def test_a_suspended_owner_releases_nothing(governed: MemoryLedger) -> None:
    _, request = await permitted(governed)
    await suspend(governed, "Government")
    await no_release(governed, "Government", request, "E_SUSPENDED", "GovernmentMSP")


async def test_nothing_is_released_to_a_suspended_identity_nor_opened_by_it(governed: MemoryLedger) -> None:
    _, opened = await delivered(governed)
    _, request = await permitted(governed)
    await suspend_user(governed, "Finance", request)
    await no_release(governed, "Government", request, "E_SUSPENDED", "identity")
    with refused("E_SUSPENDED", "identity"):
        await governed.evaluate("Finance", Sharing.open, opened, KEY, peer="Finance")
    with refused("E_SUSPENDED", "identity"):
        await governed.submit("Finance", Sharing.acknowledge, opened)
    with refused("E_SUSPENDED", "identity"):
        await governed.submit("Finance", Sharing.deposit, PAYLOAD)


@pytest.mark.parametrize(
    "payload", [PAYLOAD[:-1], PAYLOAD + b"\n", PAYLOAD[32:], bytes(32) + PAYLOAD[32:], b"", PAYLOAD[::-1]]
)
async def test_other_bytes_than_were_published_are_not_delivered(governed: MemoryLedger, payload: bytes) -> None:
    _, request = await permitted(governed)
    with refused("E_COMMITMENT"):
        await governed.submit("Government", Sharing.deliver, request, payload)


async def test_a_purged_payload_is_not_released(governed: MemoryLedger) -> None:
    _, request = await permitted(governed)
    governed.private.clear()
    with refused("E_NOT_FOUND", "collection"):
        await governed.evaluate("Government", Sharing.read_for_release, request, KEY, peer="Government")


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(32), b"\xff" * 32, bytes(range(33)), bytes(range(16))])
async def test_nothing_is_sealed_with_a_key_that_is_none(governed: MemoryLedger, key: bytes) -> None:
    _, request = await permitted(governed)
    with refused("E_KEY"):
        await governed.evaluate("Government", Sharing.read_for_release, request, key, peer="Government")
    await governed.submit("Government", Sharing.deliver, request, PAYLOAD)
    with refused("E_KEY"):
        await governed.evaluate("Finance", Sharing.open, request, key, peer="Finance")


# Open and acknowledge ------------------------------------------------------------------------------------------------


async def test_only_what_was_delivered_is_opened_and_acknowledged_by_its_grantee(governed: MemoryLedger) -> None:
    dataset = await share(governed)
    undecided = await ask(governed, "Finance", dataset)
    with refused("E_NOT_PERMITTED"):
        await governed.evaluate("Finance", Sharing.open, undecided, KEY, peer="Finance")
    with refused("E_NOT_DELIVERED"):
        await governed.submit("Finance", Sharing.acknowledge, undecided)
    _, request = await permitted(governed, dataset)
    with refused("E_NOT_DELIVERED"):
        await governed.evaluate("Finance", Sharing.open, request, KEY, peer="Finance")
    await governed.submit("Government", Sharing.deliver, request, PAYLOAD)
    for who in ("Government", "Logistics", "Outsider"):
        with refused("E_NOT_GRANTEE", "FinanceMSP"):
            await governed.evaluate(who, Sharing.open, request, KEY, peer=who)
        with refused("E_NOT_GRANTEE"):
            await governed.submit(who, Sharing.acknowledge, request)
    await governed.submit("Finance", Sharing.acknowledge, request)
    with refused("E_STATE", "acknowledged already"):
        await governed.submit("Finance", Sharing.acknowledge, request)


@pytest.mark.parametrize(("whose", "code"), [("Government", "E_COMMITMENT"), ("Finance", "E_COMMITMENT")])
async def test_a_delivery_is_acknowledged_only_while_both_collections_agree(
    governed: MemoryLedger, whose: str, code: str
) -> None:
    _, request = await delivered(governed)
    for place in governed.private:
        if whose in place[0]:
            governed.private[place] += b"more"
    with refused(code):
        await governed.submit("Finance", Sharing.acknowledge, request)


async def test_nothing_private_becomes_public(governed: MemoryLedger) -> None:
    """No write, event, argument or answer of any transaction holds a byte of the payload, nor its hash without salt."""
    _, request = await delivered(governed)
    await governed.submit("Finance", Sharing.acknowledge, request)
    await governed.evaluate("Supervisor", Receipts.who_saw, AccessFilter())
    bare = hashlib.sha256(PAYLOAD[32:]).hexdigest().encode()
    for transaction in governed.transactions:
        event = transaction.event[1] if transaction.event else b""
        for public in (*transaction.args, transaction.payload, event, *transaction.writes.values()):
            assert MARKER not in (public or b"")
            assert bare not in (public or b"")
    assert SALT in str(governed.state.values())  # the request's own salt is public: it hides the receipt's hash only


async def test_a_colleague_with_another_certificate_opens_for_the_same_organisation(governed: MemoryLedger) -> None:
    """A delivery is made to the organisation; the identity stays on record in the request."""
    _, request = await delivered(governed)
    colleague = creator("Finance", user="User2")
    assert await governed.evaluate(colleague, Sharing.open, request, KEY, peer="Finance")
