"""The echo contract for our own runtime; `echo.js` and `echo.go` are its twins for the shims of Node and Go.

`run` takes a list of steps, each a request of the stub with its arguments, and returns what each gave: text, null for
absent, a list for several, and `{"error": text}` where the stub or the peer refused. The other functions are what
`scripts/bench chaincode` measures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from fabric_protos.msp import identities_pb2
from fabric_protos.peer import proposal_pb2

from sovchain.chaincode import Chaincode, Context, Contract, Items, KeyValue, Page, Stub, query, transaction

Step = Callable[..., Awaitable[Any]]


class Steps:
    """One method for each step."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub

    async def get(self, key: str) -> str | None:
        return _text(await self.stub.get_state(key))

    async def many(self, *keys: str) -> list[str | None]:
        return [_text(value) for value in await self.stub.get_multiple(keys)]

    async def put(self, key: str, value: str) -> None:
        await self.stub.put_state(key, value.encode())

    async def delete(self, key: str) -> None:
        await self.stub.delete_state(key)

    async def range(self, start: str, end: str, limit: int = 1_000_000) -> list[list[str]]:
        return await _take(self.stub.range(start, end), limit)

    async def partial(self, object_type: str, attributes: list[str]) -> list[list[str]]:
        return await _take(self.stub.partial_composite_range(object_type, attributes))

    async def range_page(self, start: str, end: str, size: int, bookmark: str) -> list[Any]:
        return _page(await self.stub.range_page(start, end, page_size=size, bookmark=bookmark))

    async def partial_page(self, object_type: str, attributes: list[str], size: int, bookmark: str) -> list[Any]:
        return _page(await self.stub.partial_composite_page(object_type, attributes, page_size=size, bookmark=bookmark))

    async def query(self, query: str) -> list[list[str]]:
        return await _take(self.stub.rich_query(query))

    async def history(self, key: str) -> list[list[Any]]:
        async with self.stub.history(key) as found:
            return [[change.transaction_id, _text(change.value) or "", change.deleted] async for change in found]

    async def composite(self, object_type: str, attributes: list[str]) -> str:
        return self.stub.composite_key(object_type, attributes)

    async def split(self, key: str) -> list[Any]:
        object_type, attributes = self.stub.split_composite_key(key)
        return [object_type, attributes]

    async def pget(self, collection: str, key: str) -> str | None:
        return _text(await self.stub.get_private_data(collection, key))

    async def pput(self, collection: str, key: str, value: str) -> None:
        await self.stub.put_private_data(collection, key, value.encode())

    async def pdelete(self, collection: str, key: str) -> None:
        await self.stub.delete_private_data(collection, key)

    async def ppurge(self, collection: str, key: str) -> None:
        await self.stub.purge_private_data(collection, key)

    async def phash(self, collection: str, key: str) -> str | None:
        return _hex(await self.stub.get_private_data_hash(collection, key))

    async def prange(self, collection: str, start: str, end: str) -> list[list[str]]:
        return await _take(self.stub.private_range(collection, start, end))

    async def ppartial(self, collection: str, object_type: str, attributes: list[str]) -> list[list[str]]:
        return await _take(self.stub.private_partial_composite_range(collection, object_type, attributes))

    async def pquery(self, collection: str, query: str) -> list[list[str]]:
        return await _take(self.stub.private_rich_query(collection, query))

    async def set_policy(self, key: str, policy: str) -> None:
        await self.stub.set_validation_parameter(key, bytes.fromhex(policy))

    async def get_policy(self, key: str) -> str | None:
        return _hex(await self.stub.get_validation_parameter(key))

    async def set_ppolicy(self, collection: str, key: str, policy: str) -> None:
        await self.stub.set_private_validation_parameter(collection, key, bytes.fromhex(policy))

    async def get_ppolicy(self, collection: str, key: str) -> str | None:
        return _hex(await self.stub.get_private_validation_parameter(collection, key))

    async def event(self, name: str, payload: str) -> None:
        self.stub.set_event(name, payload.encode())

    async def invoke(self, chaincode: str, args: list[str], channel: str) -> list[Any]:
        answer = await self.stub.invoke_chaincode(chaincode, [a.encode() for a in args], channel=channel, check=False)
        return [answer.status, _text(answer.payload) or ""]

    async def transient(self) -> dict[str, str]:
        return {name: value.decode() for name, value in sorted(self.stub.transient.items())}

    async def args(self) -> list[str]:
        return [arg.decode() for arg in self.stub.args]

    async def channel(self) -> str:
        return self.stub.channel_id

    async def txid(self) -> str:
        return self.stub.transaction_id

    async def creator(self) -> list[str]:
        identity = identities_pb2.SerializedIdentity.FromString(self.stub.creator)
        return [identity.mspid, hashlib.sha256(identity.id_bytes).hexdigest()]

    async def timestamp(self) -> int:
        """Milliseconds since 1970."""
        return int(self.stub.timestamp.timestamp() * 1000)

    async def binding(self) -> str:
        return self.stub.binding.hex()

    async def proposal(self) -> str:
        """SHA-256 of the proposal that the client signed."""
        signed = proposal_pb2.SignedProposal.FromString(self.stub.signed_proposal)
        return hashlib.sha256(signed.proposal_bytes).hexdigest()


class Echo(Contract):
    """Does what it is told, step by step."""

    @transaction
    async def run(self, ctx: Context, steps: str) -> str:
        """Run steps and return their results, both as JSON."""
        known, results = Steps(ctx.stub), []
        for name, *arguments in json.loads(steps):
            step: Step = getattr(known, name)
            try:
                results.append(await step(*arguments))
            except Exception as error:
                results.append({"error": str(error)})
        return json.dumps(results)

    @transaction
    async def fail(self, ctx: Context) -> None:
        """Write, set an event and fail."""
        await ctx.stub.put_state("failed", b"1")
        ctx.stub.set_event("Failed", b"1")
        raise RuntimeError("as told")

    @query
    async def empty(self, ctx: Context) -> None:
        """Do nothing."""

    @transaction
    async def add(self, ctx: Context, key: str) -> str:
        """Read a number, write the next one."""
        value = int(await ctx.stub.get_state(key) or b"0") + 1
        await ctx.stub.put_state(key, str(value).encode())
        return str(value)

    @transaction
    async def write(self, ctx: Context, prefix: str, count: int) -> None:
        """Write `count` keys."""
        for number in range(count):
            await ctx.stub.put_state(f"{prefix}{number:06}", b"value %06d" % number)

    @query
    async def read(self, ctx: Context, prefix: str, count: int) -> str:
        """Read `count` keys and return how many are there."""
        found = await ctx.stub.get_multiple([f"{prefix}{number:06}" for number in range(count)])
        return str(sum(value is not None for value in found))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


async def _take(items: Items[KeyValue], limit: int = 1_000_000) -> list[list[str]]:
    return [[item.key, item.value.decode()] for item in await items.take(limit)]


def _page(page: Page[KeyValue]) -> list[Any]:
    return [[[item.key, item.value.decode()] for item in page.items], page.fetched, page.bookmark]


chaincode = Chaincode([Echo()], "echo")
