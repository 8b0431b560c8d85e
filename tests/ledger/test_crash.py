"""The process is killed at any moment: what was announced is there, and state is exactly what the blocks say."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2
from ledger_world import CHAINCODE, World
from service_world import CHANNEL, services
from services_crash_child import LETTERS

from sovchain.ledger.channel import Channel
from sovchain.protocol.blocks import block_commit_hash, transactions_filter
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.commit import validate_block
from sovchain.protocol.crypto import sha256

CHILD = Path(__file__).with_name("ledger_crash_child.py")
SERVICES = Path(__file__).with_name("services_crash_child.py")
VALID = 0


@dataclass
class Crashes:
    """A stored channel, the credentials that its child processes use, and what they announced."""

    world: World
    directory: Path
    credentials: Path
    announced: list[tuple[str, int, int, int]]
    child: Path = CHILD

    def run(self, *failpoint: str, seconds: float = 0.0, early: bool = False) -> None:
        """Run a child until it dies at a failpoint, or is killed `seconds` after it is ready (`early`: after it began)."""
        command = [sys.executable, str(self.child), str(self.directory), str(self.credentials), *failpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            try:
                if not early:
                    assert child.stdout.readline() == "ready\n", child.stderr.read()
                if not failpoint:
                    time.sleep(seconds)
                    child.kill()
                output, errors = child.communicate(timeout=60)
            finally:
                child.kill()
            assert child.returncode == -9, errors
        for line in output.splitlines(keepends=True):
            if line.endswith("\n") and line != "ready\n":
                self.announced.append(tuple(json.loads(line)))

    @property
    def channel(self) -> Path:
        """Directory of the channel: the child's own, or one below that of a whole ledger."""
        return self.directory if self.child == CHILD else self.directory / "ledger" / CHANNEL

    async def check(self) -> int:
        """Reopen and compare with a replay of the blocks; gives the height."""
        channel = await self.world.open(self.channel)
        try:
            for transaction_id, code, block, _ in self.announced:
                assert channel.status(transaction_id) == (code, block)
            replay(channel, self.announced)
            return channel.height
        finally:
            await channel.close()


def replay(channel: Channel, announced: list[tuple[str, int, int, int]]) -> None:
    """State, index and private data must be what replaying the blocks gives."""
    from sovchain.audit.replay import ReplayedState

    state, previous, seen = ReplayedState(), None, dict[str, tuple[int, int]]()
    bundle = ChannelBundle.from_block(common_pb2.Block.FromString(channel.block(0) or b""))
    expected_private: dict[bytes, bytes] = {}
    for number in range(channel.height):
        block = common_pb2.Block.FromString(channel.block(number) or b"")
        commit = validate_block(
            block, bundle, state, transaction_exists=seen.__contains__, previous_commit_hash=previous
        )
        assert commit.filter == transactions_filter(block)
        assert commit.commit_hash == block_commit_hash(block)
        state.apply(commit.updates)
        for transaction, code in zip(commit.transactions, commit.codes, strict=True):
            assert transaction is not None
            seen.setdefault(transaction.transaction_id, (code, number))
        expected_private.update(
            {key_hash: write.value_hash or b"" for (_, _, key_hash), write in commit.updates.hashed.items()}
        )
        previous = commit.commit_hash or None
    compare(channel, state, seen, expected_private)
    for transaction_id, code, block_number, _ in announced:
        assert seen[transaction_id] == (code, block_number)


def compare(channel: Channel, state: object, seen: dict[str, tuple[int, int]], private: dict[bytes, bytes]) -> None:
    connection = channel._store.connection
    for namespace in (CHAINCODE, "letters", "_lifecycle", ""):
        stored = list(channel._reader.range(namespace, "", ""))
        assert stored == list(state.range(namespace, "", ""))  # type: ignore[attr-defined]
    rows = connection.execute("SELECT id, code, block FROM transactions").fetchall()
    assert {row[0]: row[1:] for row in rows} == {key: value for key, value in seen.items() if key}
    hashed = dict(connection.execute("SELECT key_hash, value_hash FROM hashed").fetchall())
    assert hashed == private
    store = channel._private["Org1MSP"]
    held = store._connection.execute("SELECT ns, coll, key_hash, value, block, tx FROM private_state").fetchall()
    assert {row[2]: sha256(row[3]) for row in held} == hashed
    for namespace, collection, key_hash, _, block, tx in held:
        version = channel._reader.hashed_version(namespace, collection, key_hash)
        assert version == (block, tx)
    assert store.missing() == []


@pytest.fixture
def crashes(world: World, tmp_path: Path) -> Crashes:
    async def prepare() -> None:
        channel = await world.create(tmp_path / "ch")
        await world.define(channel)
        await channel.close()

    asyncio.run(prepare())
    credentials = tmp_path / "credentials"
    world.save(credentials)
    return Crashes(world, tmp_path / "ch", credentials, [])


def test_killed_at_random_moments_nothing_announced_is_lost(crashes: Crashes) -> None:
    moments = random.Random(20240610)
    height = 2
    for _ in range(6):
        crashes.run(seconds=moments.uniform(0.0, 0.25))
        reached = asyncio.run(crashes.check())
        assert reached >= height
        height = reached
    assert len(crashes.announced) > 6, "the children must have committed something for this test to mean anything"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_hundreds_of_times_also_while_opening_nothing_announced_is_lost(
    crashes: Crashes, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = random.Random(20250711)
    height = 2
    for number in range(250):
        early = number % 3 == 0  # the second after the start has the imports, the opening and the first commits
        crashes.run(seconds=moments.uniform(0.0, 1.0 if early else 0.3), early=early)
        if number % 5 == 4:
            reached = asyncio.run(crashes.check())
            assert reached >= height
            height = reached
    assert len(crashes.announced) > 250
    with capsys.disabled():
        print(f"\n250 kills, {len(crashes.announced)} acknowledged commits in {height} blocks, none lost")


@pytest.fixture
def whole(tmp_path: Path) -> Crashes:
    """A whole ledger of one organisation with a chaincode that dials its peer; clients use its services."""
    world = World(("Org1MSP",))

    async def prepare() -> None:
        async with services(tmp_path / "net", world) as net:
            package_id = await net.install(LETTERS)
            await net.define("letters", package_id, "OR('Org1MSP.peer')")

    asyncio.run(prepare())
    credentials = tmp_path / "credentials"
    world.save(credentials)
    return Crashes(world, tmp_path / "net", credentials, [], SERVICES)


@pytest.mark.parametrize(
    "kills", [2, pytest.param(80, marks=[pytest.mark.long, pytest.mark.timeout(900)])], ids=["few", "many"]
)
def test_a_whole_ledger_killed_under_the_traffic_of_clients_keeps_what_they_were_told(
    whole: Crashes, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = random.Random(42)
    height = 0
    for _ in range(kills):
        whole.run(seconds=moments.uniform(0.05, 0.5))
        reached = asyncio.run(whole.check())
        assert reached >= height
        height = reached
    assert len(whole.announced) >= kills, "the clients must have been told of commits for this test to mean anything"
    with capsys.disabled():
        print(f"\n{kills} kills of a whole ledger, {len(whole.announced)} acknowledged commits, none lost")


POINTS = [
    "commit:before-begin",
    "commit:after-block",
    "commit:after-index",
    "commit:after-state",
    "commit:before-commit",
    "commit:after-commit",
    "transient:before-commit",
    "transient:after-commit",
    "private:before-begin",
    "private:before-commit",
    "private:after-commit",
]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_write_point_state_is_what_the_blocks_say(crashes: Crashes, point: str) -> None:
    crashes.run(point, "2")
    height = asyncio.run(crashes.check())
    assert height >= 2
