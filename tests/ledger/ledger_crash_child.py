"""Commits transactions in a loop and prints each one whose commit was announced, until it is killed.

    python ledger_crash_child.py DIRECTORY CREDENTIALS [FAILPOINT SKIP]

With a failpoint the process kills itself there, after passing it SKIP times.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from ledger_world import CHAINCODE, World

from sovchain.ledger.database import set_failpoint
from sovchain.ledger.simulator import TxSimulator

COLLECTION = "_implicit_org_Org1MSP"


def die_at(point: str, skip: int) -> None:
    left = skip

    def hook(name: str) -> None:
        nonlocal left
        if name == point:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    set_failpoint(hook)


async def main(directory: Path, credentials: Path) -> None:
    world = World.load(credentials)
    channel = await world.open(directory)
    print("ready", flush=True)
    number = channel.height * 1000

    async def one(number: int) -> None:
        def script(simulator: TxSimulator) -> None:
            count = int(simulator.get_state(CHAINCODE, f"c{number % 5}") or b"0")
            simulator.put_state(CHAINCODE, f"c{number % 5}", b"%d" % (count + 1))
            simulator.put_state(CHAINCODE, f"k{number}", b"%d" % number)
            simulator.put_private(CHAINCODE, COLLECTION, f"p{number}", b"secret %d" % number)

        endorsed = await world.endorse(channel, script, endorsers=["Org1MSP"])
        await channel.order(endorsed.envelope)
        code, block = await channel.wait_for_commit(endorsed.transaction_id)
        print(json.dumps([endorsed.transaction_id, code, block, number]), flush=True)

    while True:
        await asyncio.gather(*(one(number + offset) for offset in range(3)))
        number += 3


if __name__ == "__main__":
    if len(sys.argv) > 3:
        die_at(sys.argv[3], int(sys.argv[4]))
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
