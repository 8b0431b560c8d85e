"""The chaincode of the soak: every call says in its result and in its event which call it was."""

from __future__ import annotations

import asyncio
import time

from sovchain.chaincode import Chaincode, Context, Contract, ContractError, transaction


class Soak(Contract):
    """Works, refuses and fails, with requests to the peer between."""

    @transaction
    async def work(self, ctx: Context, token: str, wait_ms: int) -> str:
        """Read and write an own key, with a pause between."""
        key = f"soak {token}"
        before = await ctx.stub.get_multiple([key, "nothing"])
        ctx.set_event("Worked", {"token": token})
        await asyncio.sleep(wait_ms / 1000)
        await ctx.stub.put_state(key, token.encode())
        after = await ctx.stub.get_state(key)
        if before != [None, None] or after is not None:
            raise AssertionError("a key of another call")
        return f"{token} {ctx.transaction_id}"

    @transaction
    def work_in_thread(self, ctx: Context, token: str, wait_ms: int) -> str:
        """The same, in a thread."""
        key = f"soak {token}"
        if ctx.blocking.get_state(key) is not None:
            raise AssertionError("a key of another call")
        ctx.set_event("Worked", {"token": token})
        time.sleep(wait_ms / 1000)
        ctx.blocking.put_state(key, token.encode())
        return f"{token} {ctx.transaction_id}"

    @transaction
    async def refuse(self, ctx: Context, token: str, wait_ms: int) -> str:
        """Write, set an event, then refuse with the token."""
        ctx.set_event("Refused", {"token": token})
        await ctx.stub.put_state(f"refused {token}", b"1")
        await asyncio.sleep(wait_ms / 1000)
        raise ContractError("E_TOLD", "as told", token=token)

    @transaction
    async def fail(self, ctx: Context, token: str, wait_ms: int) -> str:
        """Set an event, then fail."""
        ctx.set_event("Failed", {"token": token})
        await asyncio.sleep(wait_ms / 1000)
        raise RuntimeError(token)


chaincode = Chaincode([Soak()], "soak")
