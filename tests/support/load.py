"""Traffic on a network while something happens to it, what its clients were told, and what the blocks say of that."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.peer import transaction_pb2
from smallnetwork import PROBE, WIDE

from sovchain.client import CommitRejected, FabricError, Gateway, OutcomeUnknown, Submitted, Timeouts
from sovchain.network import Network
from sovchain.network.stored import stored_blocks
from sovchain.protocol.blocks import parse_block, transactions_filter
from sovchain.testing.conformance.chaincode import Probe

PATIENCE = Timeouts(connect_s=5, evaluate_s=5, endorse_s=5, submit_s=5, commit_s=15)

Write = Callable[[Gateway, int], Awaitable[Submitted[Any]]]


@dataclass
class Told:
    """What clients were told of each transaction, by its id; calls that ended before they had one are only counted."""

    outcomes: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, outcome: str, transaction_id: str = "") -> None:
        self.counts[outcome] += 1
        if transaction_id:
            self.outcomes[transaction_id] = outcome


async def write_probe(gateway: Gateway, number: int) -> Submitted[Any]:
    """Write a key of its own on the small network."""
    return await gateway.network(WIDE).contract(PROBE).submit(Probe.put, f"load{number:08}", b"value")


@asynccontextmanager
async def load(
    network: Network, told: Told, organizations: Sequence[str] = ("Alpha", "Beta", "Gamma"), write: Write = write_probe
) -> AsyncIterator[None]:
    """One worker for each organisation, each submitting one transaction after the other for the length of the block."""
    numbers = itertools.count(1)

    async def work(organization: str) -> None:
        while True:
            try:
                async with network.connect(organization, timeouts=PATIENCE) as gateway:
                    while True:
                        try:
                            done = await write(gateway, next(numbers))
                            told.note("committed", done.transaction_id)
                        except CommitRejected as error:
                            told.note("rejected", error.transaction_id)
                        except OutcomeUnknown as error:
                            told.note("unknown", error.transaction_id)
            except FabricError:
                told.note("not sent")
                await asyncio.sleep(0.2)

    tasks = [asyncio.create_task(work(name)) for name in organizations]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def more(told: Told, count: int, timeout_s: float = 90) -> None:
    """Wait until that many more transactions have committed: a fault without traffic shows nothing."""
    enough = told.counts["committed"] + count
    async with asyncio.timeout(timeout_s):
        while told.counts["committed"] < enough:
            await asyncio.sleep(0.05)


def codes(directory: Path, channel: str) -> dict[str, int]:
    """The validation code of every transaction in the blocks; the first one counts."""
    found: dict[str, int] = {}
    for raw in stored_blocks(directory, channel):
        block = parse_block(raw)
        for data, code in zip(block.data.data, transactions_filter(block), strict=True):
            payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(data).payload)
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
            found.setdefault(header.tx_id, code)
    return found


def wrong_outcomes(told: Told, there: dict[str, int]) -> dict[str, tuple[str, int | None]]:
    """The transactions of which clients were told something that the blocks contradict."""
    return {
        transaction_id: (outcome, there.get(transaction_id))
        for transaction_id, outcome in told.outcomes.items()
        if (outcome == "committed") != (there.get(transaction_id) == transaction_pb2.VALID) and outcome != "unknown"
    }
