"""The chaincode that the conformance tests call: each function does one thing that a stub offers.

It imports only what a chaincode image holds, so it runs on every runtime. It is deployed under several names with
different endorsement policies (`topology`).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel

from sovchain.chaincode import Chaincode, Context, Contract, ContractError, LedgerError, Transient, query, transaction
from sovchain.protocol import policydsl

MISSING = "E_MISSING"
"""Code of the refusal for a key that has no value."""
LEDGER = "E_LEDGER"
"""Code of the refusal that repeats what the peer said."""


class Entry(BaseModel):
    """A key and its value as text."""

    key: str
    value: str


class Listing(BaseModel):
    """One page of a scan."""

    entries: list[Entry]
    bookmark: str


class Change(BaseModel):
    """One entry of a key's history. `value` is empty for a deletion."""

    transaction_id: str
    value: str
    deleted: bool


class Caller(BaseModel):
    """What a chaincode sees of the client."""

    msp_id: str
    id: str
    role: str
    attributes: dict[str, str]


class Probe(Contract):
    """One function for each thing that a stub offers."""

    # -- keys --------------------------------------------------------------------------------------------------------

    @transaction
    async def put(self, ctx: Context, key: str, value: bytes) -> None:
        """Write without reading."""
        await ctx.stub.put_state(key, value)

    @transaction
    async def put_many(self, ctx: Context, keys: list[str], value: bytes) -> int:
        """Write the same value under several keys; return their number."""
        for key in keys:
            await ctx.stub.put_state(key, value)
        return len(keys)

    @query
    async def get(self, ctx: Context, key: str) -> bytes:
        """Return the committed value; refuse with E_MISSING if there is none."""
        return _there(await ctx.stub.get_state(key), key)

    @transaction
    async def delete(self, ctx: Context, key: str) -> None:
        """Delete without reading."""
        await ctx.stub.delete_state(key)

    @transaction
    async def add(self, ctx: Context, key: str, amount: int) -> int:
        """Read a number (0 if there is none), write the sum, return it."""
        total = int(await ctx.stub.get_state(key) or b"0") + amount
        await ctx.stub.put_state(key, str(total).encode())
        return total

    @transaction
    async def write_then_read(self, ctx: Context, key: str, value: bytes) -> bytes:
        """Write, then return what a read of the same key gives: the committed value, or nothing."""
        await ctx.stub.put_state(key, value)
        return await ctx.stub.get_state(key) or b""

    # -- arguments and results ---------------------------------------------------------------------------------------

    @query
    async def echo(self, ctx: Context, data: bytes) -> bytes:
        """Return the argument."""
        return data

    @query
    async def caller(self, ctx: Context) -> Caller:
        """Return who calls."""
        identity = ctx.identity
        return Caller(
            msp_id=identity.msp_id, id=identity.id, role=identity.role or "", attributes=dict(identity.attributes)
        )

    @query
    async def digest(self, ctx: Context, secret: Transient[bytes]) -> str:
        """Return the SHA-256 of transient data."""
        return hashlib.sha256(secret).hexdigest()

    @transaction
    async def keep_digest(self, ctx: Context, key: str, secret: Transient[bytes]) -> None:
        """Write the SHA-256 of transient data."""
        await ctx.stub.put_state(key, hashlib.sha256(secret).hexdigest().encode())

    @transaction
    async def refuse(self, ctx: Context, key: str, code: str, text: str) -> None:
        """Write, then refuse."""
        await ctx.stub.put_state(key, b"never")
        raise ContractError(code, text, key=key)

    @transaction
    async def fail(self, ctx: Context, key: str) -> None:
        """Write, then fail in a way that the contract did not foresee."""
        await ctx.stub.put_state(key, b"never")
        raise RuntimeError("the conformance chaincode fails on purpose")

    @transaction
    async def differ(self, ctx: Context, key: str) -> None:
        """Write something else on each peer, as no chaincode should."""
        await ctx.stub.put_state(key, secrets.token_bytes(16))

    # -- scans -------------------------------------------------------------------------------------------------------

    @query
    async def scan(self, ctx: Context, start: str, end: str) -> list[Entry]:
        """Return the keys from `start` to before `end`."""
        return [_entry(item.key, item.value) async for item in ctx.stub.range(start, end)]

    @query
    async def keys(self, ctx: Context, start: str, end: str) -> list[str]:
        """Return the keys from `start` to before `end`, without their values."""
        return [item.key async for item in ctx.stub.range(start, end)]

    @query
    async def page(self, ctx: Context, start: str, end: str, size: int, bookmark: str) -> Listing:
        """Return one page of a scan."""
        found = await ctx.stub.range_page(start, end, page_size=size, bookmark=bookmark)
        return Listing(entries=[_entry(*item) for item in found.items], bookmark=found.bookmark)

    @transaction
    async def page_and_put(self, ctx: Context, start: str, end: str, key: str) -> None:
        """Read a page and write, which a peer refuses."""
        await ctx.stub.range_page(start, end, page_size=1)
        with _repeating_the_peer():
            await ctx.stub.put_state(key, b"never")

    @transaction
    async def count(self, ctx: Context, start: str, end: str, into: str) -> int:
        """Count the keys of a range and write their number."""
        number = 0
        async for _ in ctx.stub.range(start, end):
            number += 1
        await ctx.stub.put_state(into, str(number).encode())
        return number

    @transaction
    async def put_composite(self, ctx: Context, object_type: str, attributes: list[str], value: bytes) -> None:
        """Write under a composite key."""
        await ctx.stub.put_state(ctx.stub.composite_key(object_type, attributes), value)

    @query
    async def scan_composite(self, ctx: Context, object_type: str, attributes: list[str]) -> list[list[str]]:
        """Return the attributes of the composite keys that begin with these."""
        return [
            ctx.stub.split_composite_key(item.key)[1]
            async for item in ctx.stub.partial_composite_range(object_type, attributes)
        ]

    @query
    async def history(self, ctx: Context, key: str) -> list[Change]:
        """Return the key's history, newest first."""
        return [
            Change(transaction_id=item.transaction_id, value=(item.value or b"").decode(), deleted=item.deleted)
            async for item in ctx.stub.history(key)
        ]

    @query
    async def rich(self, ctx: Context, selector: str) -> list[Entry]:
        """Return the results of a rich query."""
        with _repeating_the_peer():
            return [_entry(item.key, item.value) async for item in ctx.stub.rich_query(selector)]

    # -- private data ------------------------------------------------------------------------------------------------

    @transaction
    async def put_private(self, ctx: Context, collection: str, key: str, value: Transient[bytes]) -> None:
        """Write a private value."""
        with _repeating_the_peer():
            await ctx.stub.put_private_data(collection, key, value)

    @transaction
    async def put_private_each(self, ctx: Context, collections: list[str], key: str, value: Transient[bytes]) -> None:
        """Write a private value into several collections at once."""
        with _repeating_the_peer():
            for collection in collections:
                await ctx.stub.put_private_data(collection, key, value)

    @query
    async def get_private(self, ctx: Context, collection: str, key: str) -> bytes:
        """Return a private value; refuse with E_MISSING if there is none."""
        with _repeating_the_peer():
            return _there(await ctx.stub.get_private_data(collection, key), key)

    @query
    async def private_hash(self, ctx: Context, collection: str, key: str) -> bytes:
        """Return the hash of a private value; refuse with E_MISSING if there is none."""
        return _there(await ctx.stub.get_private_data_hash(collection, key), key)

    @query
    async def scan_private(self, ctx: Context, collection: str, start: str, end: str) -> list[Entry]:
        """Return the private keys from `start` to before `end`."""
        return [_entry(item.key, item.value) async for item in ctx.stub.private_range(collection, start, end)]

    @transaction
    async def scan_private_and_put(self, ctx: Context, collection: str, start: str, end: str, key: str) -> None:
        """Scan private keys and write, which a peer refuses."""
        async for _ in ctx.stub.private_range(collection, start, end):
            pass
        with _repeating_the_peer():
            await ctx.stub.put_state(key, b"never")

    @transaction
    async def delete_private(self, ctx: Context, collection: str, key: str) -> None:
        """Delete a private value."""
        await ctx.stub.delete_private_data(collection, key)

    @transaction
    async def purge_private(self, ctx: Context, collection: str, key: str) -> None:
        """Delete a private value and its history."""
        await ctx.stub.purge_private_data(collection, key)

    # -- policies of keys, events, other chaincodes ------------------------------------------------------------------

    @transaction
    async def protect(self, ctx: Context, key: str, policy: str) -> None:
        """Give a key an endorsement policy of its own, in Fabric's policy language."""
        envelope = policydsl.parse(policy)
        await ctx.stub.set_validation_parameter(key, envelope.SerializeToString(deterministic=True))

    @query
    async def protection(self, ctx: Context, key: str) -> bytes:
        """Return the key's own endorsement policy, empty if it has none."""
        return await ctx.stub.get_validation_parameter(key) or b""

    @transaction
    async def announce(self, ctx: Context, key: str, name: str, payload: bytes) -> None:
        """Write the payload and set an event that carries it."""
        await ctx.stub.put_state(key, payload)
        ctx.set_event(name, payload)

    @transaction
    async def announce_sum(self, ctx: Context, key: str, amount: int) -> None:
        """As `add`, with an event."""
        total = int(await ctx.stub.get_state(key) or b"0") + amount
        await ctx.stub.put_state(key, str(total).encode())
        ctx.set_event("sum", str(total).encode())

    @transaction
    async def call(self, ctx: Context, chaincode: str, function: str, arguments: list[str], channel: str) -> bytes:
        """Call a function of another chaincode, on this channel if `channel` is empty; return its result."""
        sent = [function.encode(), *(argument.encode() for argument in arguments)]
        return (await ctx.stub.invoke_chaincode(chaincode, sent, channel=channel)).payload


@contextmanager
def _repeating_the_peer() -> Iterator[None]:
    """Tell the client what the peer answered; by itself a contract keeps that to its log."""
    try:
        yield
    except LedgerError as error:
        raise ContractError(LEDGER, error.text) from error


def _there(value: bytes | None, key: str) -> bytes:
    if value is None:
        raise ContractError(MISSING, "the key has no value", key=key)
    return value


def _entry(key: str, value: bytes) -> Entry:
    return Entry(key=key, value=value.decode())


chaincode = Chaincode([Probe()], name="probe")
