"""A flipped bit anywhere in what a ledger stores is found and named, or changes nothing that can be read."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from ledger_world import CHAINCODE, World, put

from sovchain.ledger.check import check_channel
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.simulator import TxSimulator

COLLECTION = "_implicit_org_Org1MSP"


async def fill(world: World, directory: Path, left: Path) -> None:
    """A channel with all kinds of rows: as a killed process leaves it in `left`, closed in `directory`."""
    channel = await world.create(directory)
    await world.define(channel)

    def hide(key: str, value: bytes) -> object:
        def script(simulator: TxSimulator) -> None:
            simulator.put_private(CHAINCODE, COLLECTION, key, value)

        return script

    for number in range(6):
        await world.submit(channel, put(f"k{number}", b"value %d" % number))
    for number in range(3):
        await world.submit(channel, hide(f"p{number}", b"secret %d" % number), endorsers=["Org1MSP"])  # type: ignore[arg-type]

    def remove(simulator: TxSimulator) -> None:
        simulator.delete_private(CHAINCODE, COLLECTION, "p0")
        simulator.purge_private(CHAINCODE, COLLECTION, "p1")

    await world.submit(channel, remove, endorsers=["Org1MSP"])
    await world.submit(channel, put("k0", b"endorsed by nobody who counts"), endorsers=[])
    # Private data of a transaction that has not come yet.
    await world.endorse(channel, hide("waiting", b"waits"), endorsers=["Org1MSP"])  # type: ignore[arg-type]
    shutil.copytree(directory, left)
    await channel.close()


def content(directory: Path) -> dict[str, list[str]]:
    """Everything that SQL reads from a channel's files, read from a copy."""
    found = {}
    for path in sorted(directory.rglob("*.sqlite")):
        with closing(sqlite3.connect(path)) as connection:
            found[path.name] = list(connection.iterdump())
            found[f"{path.name} format"] = [
                str(connection.execute(f"PRAGMA {name}").fetchone()) for name in ("user_version", "application_id")
            ]
    return found


def files(directory: Path) -> list[Path]:
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())


def flip(path: Path, chance: random.Random) -> int:
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data))
    data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return place


async def opening_fails(world: World, directory: Path) -> str:
    """The file that is named when the channel is opened; "" if it opens."""
    try:
        channel = await world.open(directory)
    except LedgerError as error:
        assert str(directory) in str(error), "the damaged file must be named"
        return str(error)
    await channel.close()
    return ""


async def flips(world: World, tmp_path: Path, count: int) -> Counter[str]:
    """Flip `count` bits, one in a fresh copy each, evenly over the files; how each was found."""
    chance, outcomes = random.Random(20251125), Counter[str]()
    states = {"closed": tmp_path / "closed", "killed": tmp_path / "killed"}
    await fill(world, states["closed"], states["killed"])
    for directory in states.values():
        assert check_channel(directory) == []
    whole = {}
    for state, directory in states.items():
        copy = shutil.copytree(directory, tmp_path / f"{state} read")
        whole[state] = content(copy)
    places = [(state, path) for state, directory in states.items() for path in files(directory)]
    for number in range(count):
        state, path = places[number % len(places)]
        if not (states[state] / path).stat().st_size:
            continue
        copy = tmp_path / "flipped"
        shutil.copytree(states[state], copy)
        place = flip(copy / path, chance)
        kind = f"{state} {path.name.replace('Org1MSP', 'Org').replace('Org2MSP', 'Org').replace('Org3MSP', 'Org')}"
        read = shutil.copytree(copy, tmp_path / "read")
        try:
            faults = await asyncio.to_thread(check_channel, copy)
            if faults:
                assert all(fault.path.is_relative_to(copy) for fault in faults)
                outcomes[f"{kind}: found"] += 1
            elif await opening_fails(world, copy):
                outcomes[f"{kind}: found on opening"] += 1
            else:
                assert content(read) == whole[state], f"{kind}, byte {place}: not found, and what is read is another"
                outcomes[f"{kind}: nothing reads it"] += 1
        finally:
            shutil.rmtree(copy)
            shutil.rmtree(read)
    return outcomes


async def test_flipped_bits_are_found(world: World, tmp_path: Path) -> None:
    outcomes = await flips(world, tmp_path, 26)
    assert sum(count for kind, count in outcomes.items() if "found" in kind) > 8


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_thousands_of_flipped_bits_are_found(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = await flips(world, tmp_path, 3_000)
    with capsys.disabled():
        for kind in sorted(outcomes):
            print(f"\n{kind}: {outcomes[kind]}", end="")
    # SQLite makes the index of a write-ahead log anew. Of a closed file every byte counts, of what a killed process left
    # those that SQLite reads: not the pages that the log replaces, and not the space within a page that holds nothing.
    unread = {kind.rpartition(":")[0] for kind in outcomes if "nothing" in kind}
    assert unread <= {
        *(f"{state} {file}.sqlite-shm" for state in ("closed", "killed") for file in ("Org", "ledger")),
        *(f"killed {file}.sqlite" for file in ("Org", "ledger")),
    }
