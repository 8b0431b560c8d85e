"""Who gets into the registry, who votes, and what a certificate may not claim."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from memory_ledger import CITY, ORGANISATIONS, MemoryLedger, admit_everyone, creator, organisation
from pydantic import ValidationError
from refusals import refused
from sharing_steps import ask, share

from sovchain.contracts import government
from sovchain.contracts.core import Laws, Registry, Seats, Sharing
from sovchain.contracts.core.ballots import BALLOT_OPEN
from sovchain.contracts.core.records import Organisation

EVERYONE = list(ORGANISATIONS.values())
SEATS = ("Government", "Supervisor", "Finance")


async def proposed(ledger: MemoryLedger, entries: list[Organisation] | None = None) -> str:
    return str(await ledger.submit("Government/admin", Registry.propose_admission, entries or EVERYONE))


async def vote(ledger: MemoryLedger, who: str, ballot: str) -> Any:
    return await ledger.submit(f"{who}/admin", Registry.vote, ballot)


async def identity_of_requester(ledger: MemoryLedger, who: str | bytes, dataset: str) -> str:
    request = await ask(ledger, who, dataset)
    return str((await ledger.evaluate("Finance", Sharing.request, request)).identity)


# Seats and quorum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"legislator": ("A",), "regulator": ("B",)}, "exactly the classes"),
        ({"legislator": ("A",), "regulator": ("B",), "sector": ("C",), "press": ("D",)}, "exactly the classes"),
        ({"legislator": ("A",), "regulator": ("B",), "sector": ()}, "no member"),
        ({"legislator": ("A",), "regulator": ("B",), "sector": ("A",)}, "two seats"),
        ({"legislator": ("A",), "regulator": ("B",), "sector": ("C", "C")}, "two seats"),
    ],
)
def test_seats_that_could_pass_a_ballot_too_easily_or_never_are_no_seats(
    members: dict[str, tuple[str, ...]], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        Seats(members)


async def test_nobody_is_in_the_registry_before_a_ballot_passed(ledger: MemoryLedger) -> None:
    ballot = await proposed(ledger)
    for name in SEATS[:2]:
        view = await vote(ledger, name, ballot)
        assert view.ballot.state == "open"
        assert (await ledger.evaluate("Finance", Registry.organisations)).items == ()
        with refused("E_NOT_ADMITTED"):
            await ledger.submit("Government", Sharing.deposit, bytes(range(40)))
    assert view.missing == ("sector",)
    passed = await vote(ledger, "Finance", ballot)
    assert (passed.ballot.state, passed.missing) == ("passed", ())
    assert passed.ballot.passed_at == ledger.now
    listed = (await ledger.evaluate("Finance", Registry.organisations)).items
    assert [entry.organisation.msp_id for entry in listed] == sorted(entry.msp_id for entry in EVERYONE)
    assert {(entry.status, entry.ballot) for entry in listed} == {("active", ballot)}


async def test_two_organisations_of_one_class_are_one_vote() -> None:
    """On the government channel Finance and Logistics share the sector's seat."""
    ledger = MemoryLedger(government.chaincode, "government")
    ballot = await proposed(ledger)
    await vote(ledger, "Finance", ballot)
    with refused("E_STATE", "FinanceMSP cast it"):
        await vote(ledger, "Logistics", ballot)
    await vote(ledger, "Government", ballot)
    view = await ledger.evaluate("Finance", Registry.ballot, ballot)
    assert (view.ballot.state, view.missing) == ("open", ("regulator",))


@pytest.mark.parametrize("who", SEATS)
async def test_no_organisation_passes_a_ballot_alone(ledger: MemoryLedger, who: str) -> None:
    """Not even with several administrators."""
    ballot = str(await ledger.submit(f"{who}/admin", Registry.propose_admission, EVERYONE))
    await vote(ledger, who, ballot)
    for caller in (creator(who, "admin"), creator(who, "admin", role="auditor")):
        with refused("E_STATE", "vote was cast already"):
            await ledger.submit(caller, Registry.vote, ballot)
    assert (await ledger.evaluate(who, Registry.ballot, ballot)).ballot.state == "open"


@pytest.mark.parametrize("unit", ["client", "peer", "orderer"])
async def test_only_an_administrator_proposes_votes_and_suspends(ledger: MemoryLedger, unit: str) -> None:
    await admit_everyone(ledger)
    ballot = await proposed(ledger)
    caller = creator("Government", unit)
    for operation, arguments in (
        (Registry.propose_admission, (EVERYONE,)),
        (Registry.vote, (ballot,)),
        (Registry.suspend, ("FinanceMSP", "a reason")),
        (Registry.suspend_identity, ("FinanceMSP", "ab" * 32, "a reason")),
    ):
        with refused("E_ROLE"):
            await ledger.submit(caller, operation, *arguments)
    assert (await ledger.evaluate("Finance", Registry.ballot, ballot)).votes == ()


async def test_an_organisation_without_a_seat_neither_proposes_nor_votes(ledger: MemoryLedger) -> None:
    ballot = await proposed(ledger)
    with refused("E_SEAT", "FinanceMSP"):
        await vote(ledger, "Logistics", ballot)
    with refused("E_SEAT"):
        await ledger.submit("OverseasCarrier/admin", Registry.propose_admission, EVERYONE)


async def test_a_ballot_that_is_unknown_passed_closed_or_on_something_else_takes_no_vote(ledger: MemoryLedger) -> None:
    with refused("E_NOT_FOUND"):
        await vote(ledger, "Finance", "ab" * 32)
    with refused("E_ARGUMENT"):
        await vote(ledger, "Finance", "AB" * 32)
    passed = await proposed(ledger)
    for name in SEATS:
        await vote(ledger, name, passed)
    with refused("E_STATE", "has passed"):
        await vote(ledger, "Finance", passed)
    with refused("E_INPUT", "Registry:vote"):
        await ledger.submit("Finance/admin", Laws.vote, passed)


@pytest.mark.parametrize(("late_s", "taken"), [(-1, True), (0, True), (1, False)])
async def test_a_ballot_takes_votes_until_its_very_deadline(ledger: MemoryLedger, late_s: int, taken: bool) -> None:
    ballot = await proposed(ledger)
    for name in SEATS[:2]:
        await vote(ledger, name, ballot)
    opened = (await ledger.evaluate("Finance", Registry.ballot, ballot)).ballot
    assert opened.deadline == opened.proposed_at + BALLOT_OPEN
    ledger.now = opened.deadline + timedelta(seconds=late_s - 1)  # the vote itself takes a second
    if taken:
        assert (await vote(ledger, "Finance", ballot)).ballot.state == "passed"
    else:
        with refused("E_STATE", "closed"):
            await vote(ledger, "Finance", ballot)
        assert (await ledger.evaluate("Finance", Registry.organisations)).items == ()


async def test_a_vote_dated_before_its_ballot_is_refused(ledger: MemoryLedger) -> None:
    ballot = await proposed(ledger)
    ledger.now -= timedelta(minutes=1)
    with refused("E_TIME"):
        await vote(ledger, "Finance", ballot)


# Entries -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [[], [EVERYONE[0], EVERYONE[0]]])
async def test_a_ballot_admits_each_organisation_once_and_at_least_one(
    ledger: MemoryLedger, entries: list[Organisation]
) -> None:
    with refused("E_INPUT"):
        await ledger.submit("Government/admin", Registry.propose_admission, entries)


async def test_a_ballot_admits_a_hundred_organisations_and_not_one_more(ledger: MemoryLedger) -> None:
    many = [organisation(f"Org{number:03d}", CITY, "analyst", "general") for number in range(101)]
    with refused("E_INPUT", "101"):
        await ledger.submit("Government/admin", Registry.propose_admission, many)
    ballot = await proposed(ledger, many[:100])
    assert "100 organisations" in (await ledger.evaluate("Finance", Registry.ballot, ballot)).ballot.title


@pytest.mark.parametrize(
    "changes",
    [
        {"msp_id": "FinаnceMSP"},  # a Cyrillic letter
        {"msp_id": "FinanceMSP\n"},
        {"msp_id": " FinanceMSP"},
        {"msp_id": "Finance\u200bMSP"},
        {"msp_id": ""},
        {"jurisdiction": "CN-GΖ"},  # a Greek letter
        {"jurisdiction": "cn-gz"},
        {"jurisdiction": "CN-GZ-520100-1"},
        {"roles": ("analyst", "king")},
        {"roles": ("analyst", "analyst")},
        {"clearance": "secret"},
        {"legal_id": "９１５２"},
        {"name": "Finance\u202eknaB"},  # shows as another name
        {"name": "Finance\u200b"},
        {"name": "Finance\u2028Bank"},
        {"name": "Finance\x85Bank"},
        {"name": ""},
        {"name": " Finance"},
        {"surplus": 1},
    ],
)
def test_an_entry_that_looks_like_another_or_says_the_unknown_is_none(changes: dict[str, Any]) -> None:
    stated = ORGANISATIONS["Finance"].model_dump() | changes
    with pytest.raises(ValidationError):
        Organisation.model_validate(stated)


async def test_a_later_ballot_changes_an_entry_and_keeps_the_day_of_admission(governed: MemoryLedger) -> None:
    before = await governed.evaluate("Finance", Registry.organisation, "FinanceMSP")
    ballot = await proposed(governed, [organisation("Finance", CITY, "analyst", "general")])
    for name in SEATS:
        await vote(governed, name, ballot)
    after = await governed.evaluate("Finance", Registry.organisation, "FinanceMSP")
    assert (after.organisation.clearance, after.admitted_at, after.ballot) == ("general", before.admitted_at, ballot)
    assert after.changed_at > before.changed_at


# Ceilings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "data_class", "code"),
    [
        ({}, "important", "E_PENDING"),  # nothing but the regulator's signature is missing
        (
            {"clearance": "core"},
            "core",
            "E_FORBIDDEN",
        ),  # and E_CLEARANCE among the reasons: the registry says important
        ({"clearance": "core"}, "important", "E_PENDING"),
        ({}, "general", ""),
        ({"clearance": "general"}, "important", "E_CLEARANCE"),  # a lower claim counts
        ({"clearance": None}, "general", "E_ATTRIBUTE"),
        ({"clearance": "CORE"}, "general", "E_ATTRIBUTE"),
        ({"clearance": "general "}, "general", "E_ATTRIBUTE"),
        ({"role": None}, "general", "E_ATTRIBUTE"),
        ({"role": "supervisor"}, "general", "E_ATTRIBUTE"),  # a role that the registry does not give Finance
        ({"role": "analyst,official"}, "general", "E_ATTRIBUTE"),
        ({"role": "anаlyst"}, "general", "E_ATTRIBUTE"),  # a Cyrillic letter
    ],
)
async def test_a_certificate_counts_as_far_as_the_registry_allows(
    governed: MemoryLedger, claims: dict[str, str | None], data_class: str, code: str
) -> None:
    dataset = await share(governed, data_class=data_class)
    request = await ask(governed, creator("Finance", **claims), dataset)
    if code == "E_PENDING":
        with refused(code, "the co-signature of regulator is missing"):
            await governed.submit("Supervisor", Sharing.decide, request)
        return
    receipt = await governed.submit("Supervisor", Sharing.decide, request)
    assert (receipt.code, receipt.decision) == (code, "deny" if code else "permit"), receipt.reasons
    if data_class == "core":
        assert "engine:clearance" in {reason.rule for reason in receipt.reasons}


# Suspension ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guardian", ["Government", "Supervisor"])
async def test_a_guardian_suspends_an_organisation_and_a_ballot_reinstates_it(
    governed: MemoryLedger, guardian: str
) -> None:
    dataset = await share(governed)
    filed = await ask(governed, "Finance", dataset)
    await governed.submit(f"{guardian}/admin", Registry.suspend, "FinanceMSP", "an investigation")
    receipt = await governed.submit("Finance", Sharing.decide, filed)
    assert (receipt.decision, receipt.code) == ("deny", "E_SUSPENDED")
    with refused("E_SUSPENDED", "an investigation"):
        await governed.submit("Finance", Sharing.deposit, bytes(range(40)))
    with refused("E_STATE", "suspended already"):
        await governed.submit(f"{guardian}/admin", Registry.suspend, "FinanceMSP", "again")
    await admit_everyone(governed)
    again = await ask(governed, "Finance", dataset)
    assert (await governed.submit("Finance", Sharing.decide, again)).decision == "permit"


async def test_the_sector_suspends_no_organisation_and_nobody_an_unknown_one(governed: MemoryLedger) -> None:
    with refused("E_SEAT"):
        await governed.submit("Finance/admin", Registry.suspend, "GovernmentMSP", "a reason")
    with refused("E_SEAT"):
        await governed.submit("Logistics/admin", Registry.suspend, "GovernmentMSP", "a reason")
    with refused("E_NOT_FOUND"):
        await governed.submit("Supervisor/admin", Registry.suspend, "NobodyMSP", "a reason")


async def test_a_suspended_identity_is_denied_while_its_colleague_is_not(governed: MemoryLedger) -> None:
    dataset = await share(governed)
    suspect, colleague = creator("Finance"), creator("Finance", user="User2")
    identity = await identity_of_requester(governed, suspect, dataset)
    with refused("E_SEAT"):
        await governed.submit("Logistics/admin", Registry.suspend_identity, "FinanceMSP", identity, "a reason")
    await governed.submit("Finance/admin", Registry.suspend_identity, "FinanceMSP", identity, "left the company")
    receipts = [
        await governed.submit(who, Sharing.decide, await ask(governed, who, dataset)) for who in (suspect, colleague)
    ]
    assert [receipt.code for receipt in receipts] == ["E_SUSPENDED", ""]
