"""A law that the government channel enacted binds on another channel from its proven import on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from memory_ledger import MemoryLedger, enact, law
from refusals import refused
from views import Crossings

from sovchain.contracts.core import Crossing, Laws
from sovchain.contracts.finance import chaincode as finance
from sovchain.contracts.government import chaincode as government

PERMIT = '@c("art. 1") permit(principal, action, resource);'


class World(Crossings):
    def __init__(self) -> None:
        super().__init__(MemoryLedger(government, "government"), MemoryLedger(finance, "finance"))
        self.government, self.finance = self.source, self.destination

    async def promulgated(self, record_id: str) -> None:
        challenge = await self.ask("Finance", "law", record_id, "supervision", "share")
        await self.government.submit("Finance", Crossing.send, "finance", await self.asked(challenge))
        await self.finance.submit("Finance", Crossing.accept, challenge, await self.sent(challenge))

    async def in_force(self) -> list[tuple[str, int]]:
        found = await self.finance.evaluate("Finance", Laws.in_force, "CN-GZ-520100")
        return [(one.header.law, one.header.version) for one in found]


@pytest.fixture
async def world() -> World:
    world = World()
    await world.pin()
    return world


async def test_a_law_binds_from_its_import_on(world: World) -> None:
    await enact(world.government, law(PERMIT))
    assert await world.in_force() == []
    before = world.finance.now
    await world.promulgated("T-1/1")
    assert await world.in_force() == [("T-1", 1)]
    assert await world.finance.evaluate("Finance", Laws.in_force, "CN-GZ-520100", before) == []
    (listed,) = (await world.finance.evaluate("Finance", Laws.listing)).items
    assert listed.state == "in force"


async def test_an_amendment_and_a_repeal_follow(world: World) -> None:
    await enact(world.government, law(PERMIT))
    await world.promulgated("T-1/1")
    await enact(world.government, law(PERMIT, version=2))
    await world.promulgated("T-1/2")
    assert await world.in_force() == [("T-1", 2)]
    with refused("E_STATE", "already"):
        await world.promulgated("T-1/2")
    ballot = await world.government.submit("Government/admin", Laws.propose_repeal, "T-1", world.government.now)
    for name in ("Government", "Supervisor", "Finance"):
        await world.government.submit(f"{name}/admin", Laws.vote, ballot)
    await world.promulgated("T-1/2")
    world.finance.now += timedelta(minutes=1)
    assert await world.in_force() == []


async def test_a_law_of_this_channel_is_not_replaced_by_another_text_under_its_name(world: World) -> None:
    await enact(world.finance, law('@c("art. 1") forbid(principal, action, resource);'))
    await enact(world.government, law(PERMIT))
    with refused("E_STATE", "version 1 already"):
        await world.promulgated("T-1/1")


async def test_a_draft_does_not_cross(world: World) -> None:
    await world.government.submit("Government/admin", Laws.propose, law(PERMIT))
    with refused("E_NOT_FOUND"):
        await world.promulgated("T-1/1")
