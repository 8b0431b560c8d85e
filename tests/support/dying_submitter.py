"""A process that submits once under an idempotency key and is killed at a given moment. Arguments: one JSON document."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from sovchain.client import Gateway, RetryPolicy, SigningIdentity, SqliteJournal
from sovchain.client.observe import Observation


class Killer:
    """Ends the process, as a power cut would, before the call that it is told."""

    def __init__(self, call: str) -> None:
        self._call = call

    def begin(self, name: str, attributes: Mapping[str, str]) -> Observation:
        if name == self._call:
            os.kill(os.getpid(), signal.SIGKILL)
        return Silent()


class Silent:
    """Watches nothing."""

    metadata: tuple[tuple[str, str], ...] = ()

    def end(self, status: str, elapsed_s: float) -> None:
        pass


async def main(task: dict[str, Any]) -> None:
    identity = SigningIdentity.from_pem("Org1MSP", task["certificate"], task["key"])
    journal = SqliteJournal(task["journal"])
    observers = [Killer(task["die_before"])]
    async with Gateway.connect(
        task["profile"],
        identity,
        journal=journal,
        retry=RetryPolicy(ask_s=0.2),
        commit_stream=False,
        observers=observers,
    ) as gateway:
        done = await gateway.network("ch").contract("basic").submit_once(task["once"], "make", "a")
        print(done.transaction_id)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
