"""Why a transaction is valid or not is told from the blocks: by the function, and by `sovchain explain`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from commandline import Sovchain
from ledger_world import World, increment, put

from sovchain.audit import explain
from sovchain.network.stored import stored_blocks

CHANNEL = "testchannel"
POLICY = "AND('Org1MSP.peer', OR('Org2MSP.peer', 'Org3MSP.peer'))"


@pytest.fixture
async def ids(world: World, tmp_path: Path) -> dict[str, str]:
    """A stored channel with a transaction of each outcome, by a name for it."""
    channel = await world.create(tmp_path / "ledger" / CHANNEL)
    try:
        await world.define(channel, policy=POLICY)
        found = {"good": (await world.submit(channel, put("crate", b"full")))[0]}
        found["one organisation"] = (await world.submit(channel, put("crate", b"x"), endorsers=["Org1MSP"]))[0]
        first, second = [await world.endorse(channel, increment("count")) for _ in range(2)]
        await channel.order(first.envelope)
        await channel.order(second.envelope)
        await channel.wait_for_commit(second.transaction_id)
        found["counted"], found["late"] = first.transaction_id, second.transaction_id
    finally:
        await channel.close()
    return found


async def told(directory: Path, transaction_id: str) -> tuple[str, str]:
    found = await asyncio.to_thread(explain, stored_blocks(directory, CHANNEL), transaction_id)
    assert found is not None
    assert found.code == found.recorded
    assert found.transaction_id == transaction_id
    return found.code, found.reason


async def test_the_reason_names_clause_signers_and_conflicts(ids: dict[str, str], tmp_path: Path) -> None:
    assert await told(tmp_path, ids["good"]) == ("VALID", "")
    code, reason = await told(tmp_path, ids["one organisation"])
    assert code == "ENDORSEMENT_POLICY_FAILURE"
    assert "AND('Org1MSP.peer', OR('Org2MSP.peer', 'Org3MSP.peer'))" in reason
    assert "signed by: Org1MSP (peer); missing: Org2MSP or Org3MSP" in reason
    code, reason = await told(tmp_path, ids["late"])
    assert code == "MVCC_READ_CONFLICT"
    assert "key 'count' of 'cc'" in reason
    assert ids["counted"] in reason or "was read at no version but is at version" in reason
    assert explain(stored_blocks(tmp_path, CHANNEL), "0" * 64) is None


async def test_the_command_says_it_and_exits_accordingly(ids: dict[str, str], tmp_path: Path) -> None:
    sovchain = Sovchain(tmp_path)
    good = await asyncio.to_thread(sovchain.run, "explain", ids["good"])
    assert good.code == 0, good
    assert "VALID: transaction 0 of block 2 on channel testchannel" in good.out
    bad = await asyncio.to_thread(sovchain.run, "explain", ids["one organisation"], "--json")
    assert bad.code == 1
    assert bad.json["code"] == "ENDORSEMENT_POLICY_FAILURE"
    assert bad.json["endorsers"] == ["Org1MSP"]
    missing = await asyncio.to_thread(sovchain.run, "explain", "f" * 64)
    assert missing.code == 2
    assert "no stored block has it" in missing.err
