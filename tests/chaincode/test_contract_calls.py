"""How a call finds its operation: contracts as namespaces, the default, names on the wire, hooks, unknown functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from namedcalls import Named

from sovchain.chaincode import (
    Chaincode,
    Context,
    Contract,
    ContractError,
    DefinitionError,
    Operation,
    query,
    role,
    transaction,
)
from sovchain.testing import ContractHarness, refused


class Recording(Contract):
    """Notes which of its hooks were called."""

    name = "rec"

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def before(self, ctx: Context, operation: Operation[..., Any]) -> None:
        self.calls.append(f"before {operation.name}")
        if ctx.transient.get("stop"):
            raise ContractError("E_STOPPED", "stopped before")

    async def after(self, ctx: Context, operation: Operation[..., Any], result: Any) -> None:
        self.calls.append(f"after {operation.name} {result}")
        if result == 13:
            raise ContractError("E_UNLUCKY", "refused after")

    async def unknown(self, ctx: Context, function: str, args: Sequence[bytes]) -> Any:
        self.calls.append(f"unknown {function}")
        if function == "nothing":
            return None
        await ctx.stub.put_state("seen", b"1")
        return {"function": function, "args": len(args)}

    @transaction
    async def put(self, ctx: Context, value: int) -> int:
        await ctx.stub.put_state("k", b"%d" % value)
        return value

    @query(name="readValue")
    async def read(self, ctx: Context) -> int:
        return int(await ctx.stub.get_state("k") or b"0")

    @transaction(requires=role("clerk"))
    async def guarded(self, ctx: Context) -> None: ...


class Plain(Contract):
    """Has no hooks."""

    @query
    async def who(self, ctx: Context) -> str:
        return "plain"


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
def harness(recording: Recording) -> ContractHarness:
    return ContractHarness(Chaincode([Plain(), recording], default="rec"))


async def test_hooks_run_around_an_operation(harness: ContractHarness, recording: Recording) -> None:
    await harness.caller("Org1").submit(Recording.put, 5)
    assert recording.calls == ["before rec:put", "after rec:put 5"]


async def test_a_hook_refuses_and_nothing_is_written(harness: ContractHarness, recording: Recording) -> None:
    one = harness.caller("Org1")
    with refused("E_UNLUCKY"):
        await one.submit(Recording.put, 13)
    with refused("E_STOPPED"):
        await one.submit(Named("rec:put"), b"4", stop=b"1")
    assert recording.calls == ["before rec:put", "after rec:put 13", "before rec:put"]
    assert harness.state.get("contract", "k") is None


async def test_no_hook_runs_for_a_caller_that_may_not(harness: ContractHarness, recording: Recording) -> None:
    with refused("E_ACCESS"):
        await harness.caller("Org1").submit(Recording.guarded)
    assert recording.calls == []


async def test_a_name_without_a_contract_goes_to_the_default(harness: ContractHarness) -> None:
    one = harness.caller("Org1")
    await one.submit(Named("put"), b"6")
    assert await one.evaluate(Named("readValue")) == b"6"
    assert await one.evaluate(Named("Plain:who")) == b"plain"
    assert Recording.read.name == "rec:readValue"
    assert await one.evaluate(Recording.read) == 6


async def test_the_method_name_is_no_function_when_the_wire_has_another(
    harness: ContractHarness, recording: Recording
) -> None:
    assert await harness.caller("Org1").evaluate(Named("rec:read")) == b'{"args":0,"function":"read"}'


async def test_an_unknown_function_goes_to_its_contract_which_may_write(
    harness: ContractHarness, recording: Recording
) -> None:
    done = await harness.caller("Org1").submit(Named("anything"), b"1", b"2")
    assert done.result == b'{"args":2,"function":"anything"}'
    assert done.writes() == {"seen": b"1"}
    assert (await harness.caller("Org1").submit(Named("nothing"))).result == b""
    assert recording.calls == ["unknown anything", "unknown nothing"]


@pytest.mark.parametrize(
    ("name", "listed"),
    [("Plain:SECRET", "Plain:who"), ("SECRET:who", "Plain, rec"), (":", "Plain, rec"), ("a:b:c", "Plain, rec")],
)
async def test_a_function_that_nobody_has_is_refused_with_what_there_is(
    harness: ContractHarness, name: str, listed: str
) -> None:
    with refused("E_FUNCTION", listed) as refusal:
        await harness.caller("Org1").evaluate(Named(name))
    assert "SECRET" not in str(refusal.error)


async def test_a_call_without_arguments_at_all_is_refused() -> None:
    one = ContractHarness(Chaincode([Plain()])).caller("Org1")
    with refused("E_FUNCTION"):
        await one.evaluate(Named(""))


def test_names_that_clash_or_cannot_be_called_are_refused() -> None:
    with pytest.raises(DefinitionError, match="Twice have the name who"):

        class Twice(Contract):
            @query(name="who")
            async def one(self, ctx: Context) -> None: ...

            @query
            async def who(self, ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="name of an operation"):

        class Colon(Contract):
            @query(name="a:b")
            async def one(self, ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="no contract Other"):
        Chaincode([Plain()], default="Other")
