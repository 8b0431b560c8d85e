"""A contract full of bugs: each transaction would make two peers differ. `# BUG: rule` names what the lint must say there.

It is also deployed on the embedded ledger, whose two instances find what shows between two processes of one machine.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import platform
import random
import secrets
import threading
import time as clock
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4 as new_id

from sovchain.chaincode import Chaincode, Context, Contract, transaction

COUNTS: dict[str, int] = {}
TOTAL = 0
NAMES = {"Guiyang", "Zunyi", "Anshun", "Bijie", "Tongren", "Kaili", "Duyun", "Xingyi"}
STEADY = sorted(NAMES)


@dataclass
class Ticket:
    id: str = field(default_factory=lambda: str(new_id()))  # BUG: uuid


class Planted(Contract):
    """One bug in each transaction, and `steady` without one."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @transaction
    async def steady(self, ctx: Context) -> str:
        for name in STEADY:
            await ctx.stub.put_state(name, ctx.timestamp.isoformat().encode())
        half = len(STEADY) // 2
        return ",".join(sorted(name for name in NAMES)) + str(half)

    @transaction
    async def clock_time(self, ctx: Context) -> None:
        await ctx.stub.put_state("k", str(clock.time_ns()).encode())  # BUG: clock

    @transaction
    async def clock_now(self, ctx: Context) -> None:
        await ctx.stub.put_state("k", dt.datetime.now(dt.UTC).isoformat().encode())  # BUG: clock

    @transaction
    async def clock_as_value(self, ctx: Context) -> None:
        now = partial(datetime.now, UTC)  # BUG: clock
        await ctx.stub.put_state("k", now().isoformat().encode())

    @transaction
    async def random_number(self, ctx: Context) -> None:
        await ctx.stub.put_state("k", str(random.randint(0, 2**60)).encode())  # BUG: random

    @transaction
    async def random_secret(self, ctx: Context) -> None:
        await ctx.stub.put_state("k", secrets.token_bytes(16))  # BUG: random

    @transaction
    async def random_bytes(self, ctx: Context) -> None:
        await ctx.stub.put_state("k", os.urandom(16))  # BUG: random

    @transaction
    async def uuid_default(self, ctx: Context) -> str:
        return Ticket().id

    @transaction
    async def uuid_here(self, ctx: Context) -> str:
        from uuid import uuid1

        return str(uuid1())  # BUG: uuid

    @transaction
    async def environment_variable(self, ctx: Context) -> str:
        return os.environ.get("HOME", "")  # BUG: environment

    @transaction
    async def environment_process(self, ctx: Context) -> int:
        return os.getpid()  # BUG: environment

    @transaction
    async def environment_host(self, ctx: Context) -> str:
        return platform.node()  # BUG: environment

    @transaction
    async def file_read(self, ctx: Context) -> str:
        with open("/proc/self/stat") as file:  # BUG: files
            return file.read()

    @transaction
    async def file_path(self, ctx: Context) -> bool:
        return Path("/etc/passwd").exists()  # BUG: files

    @transaction
    async def network_call(self, ctx: Context) -> str:
        try:
            return urlopen("http://127.0.0.1:9/", timeout=1).read().decode()  # BUG: network
        except OSError:
            return "down"

    @transaction
    async def thread_order(self, ctx: Context) -> list[str]:
        found: list[str] = []
        threads = [threading.Thread(target=found.append, args=(name,)) for name in STEADY]  # BUG: threads
        for thread in threads:
            thread.start()
            thread.join()
        return found

    @transaction
    async def task_order(self, ctx: Context) -> None:
        task = asyncio.create_task(ctx.stub.put_state("k", b"1"))  # BUG: threads
        await task

    @transaction
    async def set_loop(self, ctx: Context) -> list[str]:
        found = []
        for name in NAMES:  # BUG: set-order
            found.append(name)
        return found

    @transaction
    async def set_join(self, ctx: Context) -> str:
        wanted = NAMES - {"Kaili"}
        return ",".join(wanted)  # BUG: set-order

    @transaction
    async def set_pop(self, ctx: Context) -> str:
        left: set[str] = set(NAMES)
        return left.pop()  # BUG: set-order

    @transaction
    async def map_order(self, ctx: Context) -> None:
        for name, value in ctx.transient.items():  # BUG: map-order
            await ctx.stub.put_state(name, value)

    @transaction
    async def json_order(self, ctx: Context) -> None:
        await ctx.stub.put_state("k", json.dumps({"b": 1, "a": 2}).encode())  # BUG: map-order

    @transaction
    async def hash_value(self, ctx: Context) -> str:
        return str(hash("Guiyang"))  # BUG: hash-seed

    @transaction
    async def address(self, ctx: Context) -> str:
        return str(id(ctx))  # BUG: hash-seed

    @transaction
    async def float_division(self, ctx: Context, amount: int) -> str:
        return str(amount / 3)  # BUG: float

    @transaction
    async def float_constant(self, ctx: Context, amount: int) -> str:
        return str(int(amount * 0.13))  # BUG: float

    @transaction
    async def global_count(self, ctx: Context) -> int:
        global TOTAL
        TOTAL += 1  # BUG: globals
        return TOTAL

    @transaction
    async def global_cache(self, ctx: Context, key: str) -> int:
        COUNTS[key] = COUNTS.get(key, 0) + 1  # BUG: globals
        return COUNTS[key]

    @transaction
    async def own_cache(self, ctx: Context, key: str) -> int:
        self.seen.append(key)  # BUG: globals
        return len(self.seen)

    @transaction
    async def locale_zone(self, ctx: Context) -> str:
        return ctx.timestamp.astimezone().isoformat()  # BUG: locale

    @transaction
    async def dynamic_code(self, ctx: Context) -> int:
        return int(eval("1 + 1"))  # BUG: dynamic


chaincode = Chaincode([Planted()], name="planted")
