"""When a law decides: enacted by the quorum, from its date, until it is superseded or repealed."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from memory_ledger import CITY, LAW, START, MemoryLedger, admit_everyone, enact, law
from refusals import refused
from sharing_steps import ask, share

from sovchain.contracts.core import Laws, Sharing
from sovchain.contracts.core.law import LAWS_MAX
from sovchain.contracts.core.records import LawView, Receipt

PERMIT = '@c("art. 1")\npermit (principal, action, resource);'
FORBID = '@c("art. 2")\nforbid (principal, action, resource);'
NARROW = '@c("art. 3")\npermit (principal, action, resource) when { context.purpose == Purpose::"statistics" };'


@pytest.fixture
async def admitted(ledger: MemoryLedger) -> MemoryLedger:
    """Everybody is admitted and no law is in force."""
    await admit_everyone(ledger)
    return ledger


async def decided(ledger: MemoryLedger, request: str | None = None) -> Receipt:
    request = request or await ask(ledger, "Finance", await share(ledger))
    receipt = await ledger.submit("Finance", Sharing.decide, request)
    assert isinstance(receipt, Receipt)
    return receipt


async def propose(ledger: MemoryLedger, text: str) -> str:
    return str((await ledger.submit("Government/admin", Laws.propose, text)).ballot)


async def repeal(ledger: MemoryLedger, name: str, at: datetime, voters: tuple[str, ...]) -> str:
    ballot = str(await ledger.submit("Supervisor/admin", Laws.propose_repeal, name, at))
    for voter in voters:
        await ledger.submit(f"{voter}/admin", Laws.vote, ballot)
    return ballot


async def listed(ledger: MemoryLedger) -> list[LawView]:
    found = (await ledger.evaluate("Finance", Laws.listing)).items
    return sorted(found, key=lambda one: (one.header.law, one.header.version))


QUORUM = ("Government", "Supervisor", "Finance")


@pytest.mark.parametrize("missing", QUORUM)
async def test_a_law_that_is_one_vote_short_never_decides(admitted: MemoryLedger, missing: str) -> None:
    ballot = await propose(admitted, law(PERMIT))
    for voter in QUORUM:
        if voter != missing:
            await admitted.submit(f"{voter}/admin", Laws.vote, ballot)
    receipt = await decided(admitted)
    assert (receipt.code, [reason.law for reason in receipt.reasons]) == ("E_DEFAULT_DENY", [None])
    (view,) = await listed(admitted)
    assert (view.state, len(view.missing)) == ("proposed", 1)
    admitted.now += timedelta(days=31)
    with refused("E_STATE", "closed"):
        await admitted.submit(f"{missing}/admin", Laws.vote, ballot)
    assert (await decided(admitted)).decision == "deny"


async def test_only_an_administrator_of_a_seat_proposes_law_or_repeal(governed: MemoryLedger) -> None:
    for who, code in (("Government", "E_ROLE"), ("Logistics/admin", "E_SEAT"), ("OverseasCarrier/admin", "E_SEAT")):
        with refused(code):
            await governed.submit(who, Laws.propose, law(PERMIT))
        with refused(code):
            await governed.submit(who, Laws.propose_repeal, "GY-DS-2026", START)


async def test_an_invalid_law_is_refused_with_its_place_and_leaves_nothing(admitted: MemoryLedger) -> None:
    before = dict(admitted.state)
    with refused("E_LAW", "line 9, column 1") as caught:
        await propose(admitted, law(PERMIT).replace("permit", "permitt"))
    assert (caught.value.fields["line"], caught.value.fields["column"]) == (9, 1)
    assert admitted.state == before


async def test_a_law_decides_from_its_date_and_by_the_time_of_the_decision(admitted: MemoryLedger) -> None:
    begins = START + timedelta(days=10)
    await enact(admitted, law(PERMIT, effective_from=begins.isoformat()))
    early = await ask(admitted, "Finance", await share(admitted))
    late = await ask(admitted, "Finance", await share(admitted))
    assert (await listed(admitted))[0].state == "enacted"
    admitted.now = begins - timedelta(seconds=2)
    assert (await decided(admitted, early)).decision == "deny"
    admitted.now = begins - timedelta(seconds=1)  # the transaction takes a second
    assert (await decided(admitted, late)).decision == "permit"
    assert (await listed(admitted))[0].state == "in force"


async def test_a_law_is_not_in_force_before_it_was_enacted_whatever_its_date_says(admitted: MemoryLedger) -> None:
    await enact(admitted, law(PERMIT, effective_from="2020-01-01T00:00:00Z"))
    enacted = admitted.now
    for moment, count in ((enacted - timedelta(microseconds=1), 0), (enacted, 1)):
        assert len(await admitted.evaluate("Finance", Laws.in_force, CITY, moment)) == count


async def test_the_version_in_force_at_the_time_of_the_transaction_decides(admitted: MemoryLedger) -> None:
    begins = START + timedelta(days=10)
    await enact(admitted, law(PERMIT))
    await enact(admitted, law(FORBID, version=2, effective_from=begins.isoformat()))
    first = await decided(admitted)
    admitted.now = begins
    second = await decided(admitted)
    assert [(one.decision, one.reasons[0].version, one.reasons[0].clause) for one in (first, second)] == [
        ("permit", 1, "art. 1"),
        ("deny", 2, "art. 2"),
    ]
    assert first.law_set_hash != second.law_set_hash
    assert [view.state for view in await listed(admitted)] == ["superseded", "in force"]


async def test_versions_only_rise_and_an_id_stands_for_one_jurisdiction(admitted: MemoryLedger) -> None:
    await enact(admitted, law(PERMIT, version=3))
    for version in (1, 3):
        with refused("E_STATE", "use 4"):
            await propose(admitted, law(FORBID, version=version))
    with refused("E_STATE", CITY):
        await propose(admitted, law(PERMIT, version=4, jurisdiction="CN-GZ"))


async def test_of_two_drafts_of_one_version_only_one_is_enacted(admitted: MemoryLedger) -> None:
    one, other = await propose(admitted, law(PERMIT)), await propose(admitted, law(FORBID))
    for ballot in (one, other):
        for voter in QUORUM[:2]:
            await admitted.submit(f"{voter}/admin", Laws.vote, ballot)
    await admitted.submit("Finance/admin", Laws.vote, one)
    with refused("E_STATE", "version 1 already"):
        await admitted.submit("Finance/admin", Laws.vote, other)
    assert (await decided(admitted)).decision == "permit"


async def test_a_lower_level_narrows_and_never_widens(admitted: MemoryLedger) -> None:
    await enact(admitted, law(NARROW, law_id="N-1", jurisdiction="CN"))
    await enact(admitted, law(PERMIT, law_id="C-1"))
    receipt = await decided(admitted)  # for credit assessment, which the nation's law does not name
    assert (receipt.decision, receipt.code) == ("deny", "E_DEFAULT_DENY")
    allowed = await ask(admitted, "Finance", await share(admitted), "statistics")
    assert (await decided(admitted, allowed)).decision == "permit"
    await enact(admitted, law(FORBID, law_id="P-1", jurisdiction="CN-GZ"))
    narrowed = await ask(admitted, "Finance", await share(admitted), "statistics")
    assert (await decided(admitted, narrowed)).code == "E_FORBIDDEN"
    found = await admitted.evaluate("Finance", Laws.in_force, CITY)
    assert [one.header.level for one in found] == ["nation", "province", "city"]


async def test_a_law_of_another_place_does_not_decide(admitted: MemoryLedger) -> None:
    await enact(admitted, law(PERMIT, jurisdiction="CN-GZ-520300"))
    assert (await decided(admitted)).decision == "deny"


async def test_a_repeal_takes_the_quorum_and_its_date(governed: MemoryLedger) -> None:
    ends = START + timedelta(days=5)
    ballot = await repeal(governed, "GY-DS-2026", ends, QUORUM[:2])
    governed.now = ends
    assert (await decided(governed)).decision == "permit"
    ends = START + timedelta(days=6)
    await repeal(governed, "GY-DS-2026", ends, QUORUM)
    assert (await decided(governed)).decision == "permit"
    governed.now = ends
    assert (await decided(governed)).code == "E_DEFAULT_DENY"
    assert [(view.state, view.repealed_from) for view in await listed(governed)] == [("repealed", ends)]
    assert await governed.evaluate("Finance", Laws.text, (await listed(governed))[0].text_hash) == LAW
    # The first ballot, completed late, cannot end the law in the past.
    await governed.submit("Finance/admin", Laws.vote, ballot)
    assert (await listed(governed))[0].repealed_from == ends


async def test_a_repeal_never_reaches_back(governed: MemoryLedger) -> None:
    await repeal(governed, "GY-DS-2026", START - timedelta(days=300), QUORUM)
    assert (await listed(governed))[0].repealed_from == governed.now


async def test_a_repeal_ends_what_its_voters_saw(admitted: MemoryLedger) -> None:
    with refused("E_NOT_FOUND"):
        await admitted.submit("Government/admin", Laws.propose_repeal, "T-1", START)
    await enact(admitted, law(PERMIT))
    ballot = await repeal(admitted, "T-1", START, QUORUM[:2])
    await enact(admitted, law(NARROW, version=2))
    with refused("E_STATE", "amended to version 2"):
        await admitted.submit("Finance/admin", Laws.vote, ballot)


async def test_a_repeal_brings_no_older_version_back_and_a_new_one_may_follow(admitted: MemoryLedger) -> None:
    await enact(admitted, law(PERMIT))
    await enact(admitted, law(PERMIT, version=2))
    await repeal(admitted, "T-1", START, QUORUM)
    assert (await decided(admitted)).decision == "deny"
    await enact(admitted, law(PERMIT, version=3))
    assert (await decided(admitted)).reasons[0].version == 3


async def test_a_jurisdiction_has_laws_to_the_limit_and_no_more(admitted: MemoryLedger) -> None:
    for number in range(LAWS_MAX):
        await enact(admitted, law(PERMIT, law_id=f"T-{number}"))
    with refused("E_LIMIT", str(LAWS_MAX)):
        await enact(admitted, law(PERMIT, law_id="T-MORE"))
    await enact(admitted, law(PERMIT, law_id="T-0", version=2))
    assert (await decided(admitted)).decision == "permit"


async def test_a_law_whose_text_is_gone_from_state_denies(governed: MemoryLedger) -> None:
    for key in [key for key in governed.state if key.startswith("\x00law-text\x00")]:
        del governed.state[key]
    assert (await decided(governed)).code == "E_INDETERMINATE"
