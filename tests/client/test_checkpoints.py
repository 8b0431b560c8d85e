"""A checkpoint is a place in the ledger or an error: never a wait for what will not come, never garbage."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from fabric_protos.gateway import gateway_pb2
from fakegateway import FakeGateway, Stream, block, block_of, events, filtered

from sovchain.client import CheckpointGone, Contract, FileCheckpointer, Gateway, MemoryCheckpointer, Position
from sovchain.client import _checkpoints as checks

A, B, C = "a" * 64, "b" * 64, "c" * 64


def asked(request: bytes) -> tuple[int, str]:
    signed = gateway_pb2.SignedChaincodeEventsRequest.FromString(request)
    inner = gateway_pb2.ChaincodeEventsRequest.FromString(signed.request)
    return inner.start_position.specified.number, inner.after_transaction_id


@pytest.mark.parametrize(
    ("place", "after"),
    [(A, A), (B, A), (C, C)],
    ids=["a transaction with an event", "an invalid one after it", "a later one with an event"],
)
async def test_a_place_is_put_in_terms_that_the_peer_finds(
    contract: Contract, fake: FakeGateway, place: str, after: str
) -> None:
    """Asked for events after a transaction that set none, a peer skips every event for ever."""
    fake.script("DeliverFiltered", Stream((block_of(5, (A, 0, True), (B, 11, True), (C, 0, True)),), hold=True))
    fake.script("ChaincodeEvents", Stream((events(6, "later"),), hold=True))
    async with contract.events(checkpoint=MemoryCheckpointer(Position(5, place))) as source:
        assert (await anext(source)).transaction_id == "later"
    assert asked(fake.requests["ChaincodeEvents"][0]) == (5, after)


async def test_without_an_event_before_it_the_whole_block_is_asked_for(contract: Contract, fake: FakeGateway) -> None:
    fake.script("DeliverFiltered", Stream((block_of(5, (A, 0, False), (B, 0, True)),), hold=True))
    fake.script("ChaincodeEvents", Stream((events(5, B),), hold=True))
    async with contract.events(checkpoint=MemoryCheckpointer(Position(5, A))) as source:
        assert (await anext(source)).transaction_id == B
    assert asked(fake.requests["ChaincodeEvents"][0]) == (5, "")


@pytest.mark.parametrize("kind", ["transaction", "block of events", "block of blocks"])
async def test_a_place_that_is_not_there_is_an_error_in_time(
    contract: Contract, gateway: Gateway, fake: FakeGateway, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LAG_S", 0.3)
    fake.height = 40
    fake.script("DeliverFiltered", Stream((block_of(5, (B, 0, True)),), hold=True))
    started = time.monotonic()
    checkpoint = MemoryCheckpointer(Position(5, A) if kind == "transaction" else Position(41))
    blocks = gateway.network("ch").blocks(checkpoint=checkpoint)
    source: Any = blocks if kind == "block of blocks" else contract.events(checkpoint=checkpoint)
    with pytest.raises(CheckpointGone) as caught:
        await anext(source)
    assert time.monotonic() - started < 5
    assert caught.value.height == 40
    assert "remove the checkpoint" in str(caught.value)


async def test_a_peer_that_lags_behind_the_checkpoint_is_given_time(contract: Contract, fake: FakeGateway) -> None:
    fake.height = 40
    fake.script("ChaincodeEvents", Stream((events(41, "next"),), hold=True))
    source = contract.events(checkpoint=MemoryCheckpointer(Position(41)))
    waiting = asyncio.ensure_future(anext(source))
    await fake.until("Evaluate", 2)
    fake.height = 41
    assert (await waiting).transaction_id == "next"
    await source.aclose()


async def test_blocks_go_on_at_a_checkpoint(gateway: Gateway, fake: FakeGateway) -> None:
    checkpoint = MemoryCheckpointer()
    fake.script("Deliver", Stream((block(5), block(6)), hold=True), Stream((block(6), block(7)), hold=True))
    network = gateway.network("ch")
    async with network.blocks(5, checkpoint=checkpoint) as source:
        assert [(await anext(source)).header.number for _ in range(2)] == [5, 6]
    assert await checkpoint.load() == Position(6), "block 6 was given, and nobody said that it was dealt with"
    async with network.blocks(5, checkpoint=checkpoint) as source:
        assert (await anext(source)).header.number == 6


async def test_block_zero_is_a_place_too(gateway: Gateway, fake: FakeGateway) -> None:
    fake.script("DeliverFiltered", Stream((filtered(0),), hold=True))
    async with gateway.network("ch").filtered_blocks(checkpoint=MemoryCheckpointer(Position(0))) as source:
        assert (await anext(source)).number == 0


async def _killed_writers(path: Path, kills: int, each: int = 40) -> None:
    """Writers are killed at random moments; after each the file is read. One process is forked for many kills."""
    last, writes = 0, 0
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, "-c", FORKER, str(path), str(last)], stdout=subprocess.PIPE)
        out, _ = process.communicate(timeout=60)
        for line in out.decode().splitlines():
            seen = json.loads(line)
            assert seen["transactionId"] == f"{int(seen['blockNumber']):064x}", "torn"
            assert int(seen["blockNumber"]) >= last, "went backwards"
            writes += int(seen["blockNumber"]) > last
            last = int(seen["blockNumber"])
    assert writes > kills * each // 4, "hardly anything was written"


FORKER = """
import asyncio, json, os, random, signal, sys, time
from pathlib import Path
from sovchain.client import FileCheckpointer, Position
path, number = sys.argv[1], int(sys.argv[2])

async def write(number):
    checkpoint = FileCheckpointer(path)
    while True:
        number += 1
        await checkpoint.save(Position(number, f"{number:064x}"))

for _ in range(40):
    child = os.fork()
    if child == 0:
        asyncio.run(write(number))
    time.sleep(random.uniform(0.002, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if Path(path).exists():
        found = asyncio.run(FileCheckpointer(path).load())
        number = found.block_number
        print(json.dumps({"blockNumber": found.block_number, "transactionId": found.transaction_id}))
"""


async def test_a_writer_that_is_killed_leaves_the_old_place_or_the_new_one(tmp_path: Path) -> None:
    """40 kills in the middle of writing as fast as it goes."""
    await _killed_writers(tmp_path / "checkpoint", 1)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_thousand_killed_writers_leave_no_garbage(tmp_path: Path) -> None:
    await _killed_writers(tmp_path / "checkpoint", 25)


async def test_a_full_disk_is_an_error_and_the_old_place_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sovchain.client import CheckpointError

    checkpoint = FileCheckpointer(tmp_path / "checkpoint")
    await checkpoint.save(Position(7, A))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        await checkpoint.save(Position(8, B))
    assert await checkpoint.load() == Position(7, A)


async def _cut_streams(contract: Contract, fake: FakeGateway, cuts: int) -> None:
    """A consumer with a checkpoint, whose stream is cut after 0 to 3 events each time."""
    order = random.Random(7)
    everything = [(number, f"{number}-{place}") for number in range(10, 10 + cuts) for place in range(2)]
    given = 0
    for _ in range(cuts):
        fake.script("ChaincodeEvents", _Resumable(everything, order.randrange(4)))
    fake.script("ChaincodeEvents", _Resumable(everything, len(everything), hold=True))
    got = []
    async with contract.events(start=10, checkpoint=MemoryCheckpointer()) as source:
        async for event in source:
            got.append((event.block_number, event.transaction_id))
            given += 1
            if given == len(everything):
                break
    assert got == everything, "missed, repeated or out of order"
    assert len(fake.requests["ChaincodeEvents"]) == cuts + 1


class _Resumable(Stream):
    """Answers as a peer does from where it is asked, and breaks after some events."""

    def __init__(self, everything: list[tuple[int, str]], count: int, *, hold: bool = False) -> None:
        super().__init__((), None if hold else grpc.StatusCode.UNAVAILABLE, hold=hold)
        self._everything, self._count = everything, count

    def from_request(self, request: bytes) -> tuple[bytes, ...]:
        number, after = asked(request)
        left = [one for one in self._everything if one[0] >= number]
        if after:
            left = left[[txid for _, txid in left].index(after) + 1 :]
        return tuple(events(number, txid) for number, txid in left[: self._count])


async def test_a_stream_that_is_cut_again_and_again_gives_every_event_once_and_in_order(
    contract: Contract, fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sovchain.client._stream.RECONNECT_PAUSES_S", (0.0,))
    monkeypatch.setattr("sovchain.client.events.ATTEMPTS_MAX", 10_000)
    await _cut_streams(contract, fake, 200)


@pytest.mark.long
async def test_a_thousand_cuts(contract: Contract, fake: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sovchain.client._stream.RECONNECT_PAUSES_S", (0.0,))
    monkeypatch.setattr("sovchain.client.events.ATTEMPTS_MAX", 10_000)
    await _cut_streams(contract, fake, 1000)
