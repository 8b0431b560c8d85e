"""The chaincode of the tests that run a process."""

from __future__ import annotations

import time

from sovchain.chaincode import Chaincode, Context, Contract, query, transaction


class Process(Contract):
    """Answers at once, after the peer, or never."""

    @query
    async def ping(self, ctx: Context) -> str:
        """Answer."""
        return "pong"

    @transaction
    async def own(self, ctx: Context) -> None:
        """Read an own write."""
        await ctx.stub.put_state("k", b"v")
        await ctx.stub.get_state("k")

    @query
    async def wait(self, ctx: Context) -> str:
        """Answer after the peer has."""
        await ctx.stub.get_state("k")
        return "done"

    @query
    def sleep(self, ctx: Context) -> None:
        """Do not answer for long."""
        time.sleep(60)


chaincode = Chaincode([Process()], "process")
