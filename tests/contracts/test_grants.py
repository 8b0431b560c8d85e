"""Permits in use: quotas, expiry, revocation, use reports, and products of sources that are withdrawn."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from law_world import BYTES, SPEC, LawWorld

from sovchain.contracts.core import Duties, Grants, Orders, Sharing
from sovchain.contracts.core.obligations import ObligationError, parse_obligations, united
from sovchain.contracts.core.sealing import unseal
from sovchain.testing import refused

KEY = bytes(range(32))
DAY = timedelta(days=1)
LAW = '@c("1") @obligations("{}") permit (principal, action, resource);'
REPORT = bytes(range(1, 33)) + b"marker-22d9 used for one table"


@pytest.fixture
async def world() -> LawWorld:
    return await LawWorld(SPEC.harness()).found()


async def granted(world: LawWorld, obligations: str = "", **changes: Any) -> tuple[str, str]:
    """A data set and a request on it that is permitted and delivered."""
    if obligations:
        await world.enact(LAW.format(obligations), version=2)
    dataset = await world.share(**changes)
    receipt = await world.ask("Finance", dataset)
    assert receipt.decision == "permit", receipt.reasons
    await world.deliver(receipt.request, "Finance")
    return dataset, receipt.request


async def opened(world: LawWorld, request: str) -> bytes:
    return unseal(await world.evaluate("Finance", Sharing.open, request, KEY), KEY)


# Quotas --------------------------------------------------------------------------------------------------------------


async def test_a_quota_counts_the_rows_of_each_grantee_in_its_period(world: LawWorld) -> None:
    dataset, _ = await granted(world, "quota(25, day); quota(40, month)")  # 10 rows each time
    assert (await world.ask("Finance", dataset)).decision == "permit"
    third = await world.ask("Finance", dataset)
    assert (third.code, "20 rows of at most 25 were permitted this day" in third.reasons[0].text()) == ("E_QUOTA", True)
    assert (await world.ask("Logistics", dataset)).decision == "permit", "another grantee has its own"
    assert (await world.ask("Finance", await world.share())).decision == "permit", "another data set counts apart"
    world.harness.now += DAY
    assert (await world.ask("Finance", dataset)).decision == "permit"
    assert (await world.ask("Finance", dataset)).decision == "permit"
    world.harness.now += DAY
    assert "of at most 40 were permitted this month" in (await world.ask("Finance", dataset)).reasons[0].text()
    world.harness.now += 31 * DAY
    assert (await world.ask("Finance", dataset)).decision == "permit"


async def test_two_permits_in_one_block_do_not_pass_a_quota_together(world: LawWorld) -> None:
    await world.enact(LAW.format("quota(10, day)"), version=2)
    dataset = await world.share()
    one, two = [await world.file("Finance", dataset) for _ in range(2)]
    calls = [("Finance", Sharing.decide, (request,)) for request in (one, two)]
    assert await world.together(*calls) == ["", "MVCC_READ_CONFLICT"]
    assert (await world.decide(two)).code == "E_QUOTA"


def test_of_several_quotas_the_smallest_of_each_period_counts() -> None:
    found = united(parse_obligations("quota(9, day); quota(5, day); quota(7, year); expires(P9D); expires(P3D)"))
    assert [(one.kind, one.rows_max, one.period, one.days) for one in found] == [
        ("quota", 5, "day", 0),
        ("quota", 7, "year", 0),
        ("expires", None, None, 3),
    ]
    for wrong in ("quota(5)", "quota(0, day)", "quota(5, week)", "quota(x, day)", "expires(P0D)", "expires(soon)"):
        with pytest.raises(ObligationError):
            parse_obligations(wrong)


# The end of a permit -------------------------------------------------------------------------------------------------


async def test_an_expired_permit_carries_nothing(world: LawWorld) -> None:
    _, request = await granted(world, "expires(P30D)")
    assert await opened(world, request) == BYTES
    receipt = await world.ask("Finance", await world.share())
    world.harness.now += 30 * DAY
    for step in (world.deliver(receipt.request, "Finance"), opened(world, request)):
        with refused("E_EXPIRED", "it carried until"):
            await step
    (problem,) = (await world.evaluate("Finance", Grants.state, request)).problems
    assert problem.startswith("E_EXPIRED")


@pytest.mark.parametrize("who", ["Government", "Supervisor"])
async def test_a_revoked_permit_carries_nothing_and_what_came_of_it_is_deleted(world: LawWorld, who: str) -> None:
    _, request = await granted(world)
    waiting = await world.ask("Finance", await world.share())
    assert (await world.evaluate("Finance", Grants.state, request)).problems == ()
    with refused("E_ROLE"):
        await world.submit("Finance", Grants.revoke, request, "not mine")
    for one in (request, waiting.request):
        await world.submit(who, Grants.revoke, one, "the contract ended")
        with refused("E_STATE"):
            await world.submit(who, Grants.revoke, one, "twice")
    for step in (world.deliver(waiting.request, "Finance"), opened(world, request)):
        with refused("E_REVOKED", "as the contract ended"):
            await step
    state = await world.evaluate("Finance", Grants.state, request)
    assert ([one.kind for one in state.duties], state.delivered) == (["delete"], True)
    assert not await world.evaluate("Finance", Duties.listing, waiting.request), "nothing was delivered on it"
    world.harness.now = state.duties[0].due
    assert (await world.submit("Overseas", Duties.tick, request, "delete")).alerted_at is not None


async def test_a_revocation_in_the_block_of_a_release_wins(world: LawWorld) -> None:
    receipt = await world.ask("Finance", await world.share())
    revoke = ("Government", Grants.revoke, (receipt.request, "a mistake"))
    deliver = ("Government", Sharing.deliver, (receipt.request, BYTES))
    assert await world.together(revoke, deliver) == ["", "MVCC_READ_CONFLICT"]


async def test_only_a_permit_is_revoked(world: LawWorld) -> None:
    denied = await world.ask("Finance", await world.share(), "fraud-prevention")
    with refused("E_STATE", "was denied"):
        await world.submit("Government", Grants.revoke, denied.request, "x")
    with refused("E_NOT_FOUND"):
        await world.submit("Government", Grants.revoke, "ab" * 32, "x")


# Use reports ---------------------------------------------------------------------------------------------------------


async def test_a_use_report_is_the_owners_alone_and_fulfils_the_duty(world: LawWorld) -> None:
    _, request = await granted(world, "report(P10D)")
    digest = hashlib.sha256(REPORT).hexdigest()
    with refused("E_COMMITMENT", "nothing was sent"):
        await world.submit("Finance", Grants.file_report, request, digest)
    for wrong in (b"", bytes(range(32)), b"\7" * 40):
        with refused("E_PAYLOAD"):
            await world.submit("Finance", Grants.send_report, request, wrong, endorsers=["Government"])
    with refused("E_NOT_GRANTEE"):
        await world.submit("Logistics", Grants.send_report, request, REPORT, endorsers=["Government"])
    await world.submit("Finance", Grants.send_report, request, REPORT, endorsers=["Government"])
    with refused("E_COMMITMENT", "another one"):
        await world.submit("Finance", Grants.file_report, request, "ab" * 32)
    await world.submit("Finance", Grants.file_report, request, digest)
    assert unseal(await world.evaluate("Government", Grants.read_report, request, KEY), KEY) == REPORT
    with refused("E_NOT_OWNER"):
        await world.evaluate("Finance", Grants.read_report, request, KEY)
    state = await world.evaluate("Overseas", Grants.state, request)
    assert state.reported_at is not None
    assert (state.duties[0].evidence, state.duties[0].done_at) == (digest, state.reported_at)
    kept = b"".join(entry[0] or b"" for one in world.harness.state.public.values() for entry in one.entries.values())
    said = b"".join(event.payload for event in world.harness.events)
    assert digest.encode() in kept
    assert b"marker-22d9" not in kept + said


# Lineage -------------------------------------------------------------------------------------------------------------


async def test_a_withdrawn_source_suspends_whatever_was_made_of_it(world: LawWorld) -> None:
    source = await world.share()
    await world.ask("Finance", source, action="derive")
    product = await world.share("Finance", sources=(source,))
    await world.ask("Logistics", product, action="derive")
    second = await world.share("Logistics", sources=(product,))
    unrelated = await world.share("Logistics")
    receipt = await world.ask("Government", second)
    assert await world.evaluate("Overseas", Grants.products, source) == [product]
    await world.submit("Government", Sharing.withdraw, source, "it was wrong")
    with refused("E_STATE", "a source of the data set was withdrawn"):
        await world.deliver(receipt.request, "Government", owner="Logistics")
    for suspended in (product, second):
        denied = await world.ask("Government", suspended)
        assert (denied.code, source[:16] in denied.reasons[0].text()) == ("E_WITHDRAWN", True)
    assert (await world.ask("Government", unrelated)).decision == "permit"
    with refused("E_STATE", "a source was withdrawn"):
        await world.share("Finance", sources=(product,))


async def test_a_product_of_anothers_data_takes_a_permit_to_derive_that_carries_still(world: LawWorld) -> None:
    source = await world.share()
    await world.ask("Finance", source)  # to read is not to derive
    with refused("E_NOT_PERMITTED", "no permit to derive"):
        await world.share("Finance", sources=(source,))
    receipt = await world.ask("Finance", source, action="derive")
    with refused("E_NOT_PERMITTED"):
        await world.share("Logistics", sources=(source,))
    await world.share("Finance", sources=(source,))
    await world.submit("Government", Grants.revoke, receipt.request, "the project ended")
    with refused("E_REVOKED"):
        await world.share("Finance", sources=(source,))


async def test_a_purge_of_a_source_suspends_its_products_too(world: LawWorld) -> None:
    source = await world.share()
    await world.ask("Finance", source, action="derive")
    product = await world.share("Finance", sources=(source,))
    await world.submit("Supervisor", Orders.order_purge, source, "order 9")
    assert (await world.ask("Logistics", product)).code == "E_WITHDRAWN"
