"""A chaincode that dials its peer; `python -m sovchain.chaincode connect client_mode_chaincode` runs it."""

from __future__ import annotations

from sovchain.chaincode import Chaincode, Context, Contract, query, transaction


class Letters(Contract):
    """Stores text."""

    @transaction
    async def put(self, ctx: Context, key: str, value: str) -> str:
        """Store a text."""
        await ctx.stub.put_state(key, value.encode())
        return value

    @query
    async def get(self, ctx: Context, key: str) -> str:
        """Read a text."""
        return (await ctx.stub.get_state(key) or b"").decode()

    @transaction
    async def members(self, ctx: Context, key: str) -> list[str]:
        """Store the members of a set in the order of their hashes, which differs from process to process."""
        found = list({f"member{number}" for number in range(40)})
        await ctx.stub.put_state(key, " ".join(found).encode())
        return []


chaincode = Chaincode([Letters()], name="letters")
