"""One table makes the checks, the docs, the diagrams and the negative tests of a state machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from sovchain.chaincode import (
    Chaincode,
    Context,
    Contract,
    DefinitionError,
    Given,
    StateMachine,
    To,
    guard,
    holder,
    msp,
    query,
    record,
    role,
    transaction,
    unit,
)
from sovchain.client import CommitRejected
from sovchain.protocol.policydsl import render
from sovchain.testing import ContractHarness, refused
from sovchain.testing.machines import NegativeCase, as_profile, check_refused, negative_cases, positive_cases


@record(key="number")
class Permit(BaseModel):
    number: str
    owner: str
    reviewer: str = "GovMSP"
    state: Literal["filed", "granted", "refused", "revoked"] = "filed"
    reason: str = ""


@guard("E_REASON", "a reason is given")
def with_reason(ctx: Context, permit: Any, given: Given) -> bool:
    return bool(given["reason"])


@guard("E_RUSH", "the reviewer has looked at it")
async def reviewed(ctx: Context, permit: Any, given: Given) -> bool:
    return await ctx.stub.get_state(f"review {permit.number}") is not None


clerk = role("clerk") & msp("GovMSP")


class Permits(Contract):
    """Permits that are filed, granted or refused, and may be revoked."""

    life = StateMachine(
        Permit,
        {
            (None, "file"): To("filed", msp("ShopMSP", "LabMSP"), text="a company asks"),
            ("filed", "grant"): To("granted", clerk, (reviewed,), endorsers=("GovMSP", holder("owner"))),
            ("filed", "refuse"): To("refused", clerk, (with_reason,)),
            ("filed", "withdraw"): To("refused", holder("owner"), code="E_NOT_OWNER"),
            ("granted", "revoke"): To("revoked", clerk | unit("admin"), (with_reason,)),
            ("granted", "withdraw"): To("revoked", holder("owner"), code="E_NOT_OWNER"),
        },
    )

    @transaction
    async def file(self, ctx: Context, number: str) -> Permit:
        return await self.life.advance(ctx, Permit(number=number, owner=ctx.identity.msp_id), "file")

    @transaction
    async def review(self, ctx: Context, number: str) -> None:
        await ctx.stub.put_state(f"review {number}", b"1")

    @transaction
    async def grant(self, ctx: Context, number: str) -> Permit:
        return await self.life.advance(ctx, await ctx.records(Permit).require(number), "grant")

    @transaction
    async def refuse(self, ctx: Context, number: str, reason: str) -> Permit:
        return await self._with_reason(ctx, number, "refuse", reason)

    @transaction
    async def revoke(self, ctx: Context, number: str, reason: str) -> Permit:
        return await self._with_reason(ctx, number, "revoke", reason)

    @transaction
    async def withdraw(self, ctx: Context, number: str) -> Permit:
        return await self.life.advance(ctx, await ctx.records(Permit).require(number), "withdraw")

    @transaction
    async def place(self, ctx: Context, permit: Permit) -> None:
        """Put a permit into a state, for tests."""
        await ctx.records(Permit).put(permit)

    @query
    async def read(self, ctx: Context, number: str) -> Permit:
        return await ctx.records(Permit).require(number)

    async def _with_reason(self, ctx: Context, number: str, action: str, reason: str) -> Permit:
        permit = await ctx.records(Permit).require(number)
        return await self.life.advance(ctx, permit, action, {"reason": reason}, {"reason": reason})


NUMBER = "P-1"
CALLS: Mapping[str, tuple[Any, ...]] = {
    "file": (Permits.file, NUMBER),
    "grant": (Permits.grant, NUMBER),
    "refuse": (Permits.refuse, NUMBER, "why"),
    "revoke": (Permits.revoke, NUMBER, "why"),
    "withdraw": (Permits.withdraw, NUMBER),
}


@pytest.fixture
def harness() -> ContractHarness:
    return ContractHarness(Chaincode([Permits()]), organizations=["Gov", "Shop", "Lab", "Stranger"])


async def place(harness: ContractHarness, state: str, holders: Mapping[str, str]) -> None:
    someone = harness.caller("Gov")
    fields = {"number": NUMBER, "owner": "LabMSP", "state": state} | holders
    await someone.submit(Permits.place, Permit.model_validate(fields))
    await someone.submit(Permits.review, NUMBER)


@pytest.mark.parametrize("case", negative_cases(Permits.life), ids=str)
async def test_what_the_table_does_not_have_is_refused(harness: ContractHarness, case: NegativeCase) -> None:
    await check_refused(harness, case, place, CALLS)


@pytest.mark.parametrize(("state", "action", "profile"), positive_cases(Permits.life), ids=str)
async def test_what_the_table_has_is_done(harness: ContractHarness, state: Any, action: str, profile: Any) -> None:
    if state is not None:
        await place(harness, state, dict.fromkeys(profile.holds, profile.msp_id))
    operation, *arguments = CALLS[action]
    await as_profile(harness, profile).submit(operation, *arguments)
    permit = await harness.caller("Gov").evaluate(Permits.read, NUMBER)
    assert permit.state == Permits.life.table[state, action].state


def test_the_negative_cases_are_every_pair_that_is_not_in_the_table_and_every_caller_that_may_not() -> None:
    cases = negative_cases(Permits.life)
    states, actions = (None, *Permits.life.states), Permits.life.actions
    pairs = {(state, action) for state in states for action in actions}
    assert {(case.state, case.action) for case in cases} == pairs
    missing = {(case.state, case.action) for case in cases if case.code in ("E_STATE", "E_NOT_FOUND")}
    assert missing == pairs - Permits.life.table.keys()
    grants = {str(case.caller) for case in cases if (case.state, case.action) == ("filed", "grant")}
    assert {"a stranger", "role=clerk", "GovMSP", "ShopMSP", "admin", "holder of owner", "ShopMSP role=clerk"} <= grants
    assert "GovMSP role=clerk" not in grants
    assert len(set(map(str, cases))) == len(cases)


async def test_whoever_may_never_act_does_not_learn_the_state(harness: ContractHarness) -> None:
    await place(harness, "revoked", {})
    with refused("E_ACCESS") as refusal:
        await harness.caller("Shop").submit(Permits.grant, NUMBER)
    assert "revoked" not in str(refusal.error)
    with refused("E_STATE", "the Permit is revoked; possible is nothing") as refusal:
        await harness.caller("Gov", attributes={"role": "clerk"}).submit(Permits.grant, NUMBER)
    assert refusal.fields == {"state": "revoked", "action": "grant"}


async def test_guards_hold_in_their_order_and_say_what_it_takes(harness: ContractHarness) -> None:
    one = harness.caller("Gov", attributes={"role": "clerk"})
    await harness.caller("Shop").submit(Permits.file, NUMBER)
    with refused("E_RUSH", "grant is not possible: it takes that the reviewer has looked at it"):
        await one.submit(Permits.grant, NUMBER)
    with refused("E_REASON"):
        await one.submit(Permits.refuse, NUMBER, "")
    assert (await one.submit(Permits.refuse, NUMBER, "late")).result.reason == "late"


async def test_what_exists_is_not_begun_again(harness: ContractHarness) -> None:
    await harness.caller("Shop").submit(Permits.file, NUMBER)
    with refused("E_STATE", "exists already"):
        await harness.caller("Lab").submit(Permits.file, NUMBER)


async def test_the_endorsers_of_a_row_guard_the_next_change(harness: ContractHarness) -> None:
    await place(harness, "filed", {"owner": "ShopMSP"})
    await harness.caller("Gov", attributes={"role": "clerk"}).submit(Permits.grant, NUMBER)
    key = next(key for key in harness.state.public["contract"].entries if "Permit" in key)
    policy = harness.state.metadata("contract", key)["VALIDATION_PARAMETER"]
    from fabric_protos.common import policies_pb2

    envelope = policies_pb2.SignaturePolicyEnvelope.FromString(policy)
    assert render(envelope) == "AND('GovMSP.peer', 'ShopMSP.peer')"
    others = harness.caller("Shop", endorsers=["Shop", "Lab", "Stranger"])
    with pytest.raises(CommitRejected, match="ENDORSEMENT_POLICY_FAILURE"):
        await others.submit(Permits.withdraw, NUMBER)
    await harness.caller("Shop", endorsers=["Shop", "Gov", "Lab"]).submit(Permits.withdraw, NUMBER)


def test_the_docs_show_the_whole_table() -> None:
    lines = Permits.life.markdown().splitlines()
    assert len(lines) == 2 + len(Permits.life.table)
    assert lines[2] == "| (none) | file | filed | `msp(ShopMSP, LabMSP)` |  |  |"
    assert lines[3] == (
        "| filed | grant | granted | `role(clerk) & msp(GovMSP)` | the reviewer has looked at it | GovMSP, holder(owner) |"
    )
    assert "\\|" in lines[6]


def test_the_diagrams_show_every_step_and_the_ends() -> None:
    mermaid = Permits.life.mermaid()
    assert mermaid.startswith("stateDiagram-v2\n    [*] --> filed: file\n    filed --> granted: grant\n")
    assert "    revoked --> [*]\n" in mermaid
    dot = Permits.life.dot()
    assert '    start -> "filed" [label="file"];' in dot
    assert '    "refused" [shape=doublecircle];' in dot


@pytest.mark.parametrize(
    ("table", "field", "text"),
    [
        ({("filed", "grant"): To("granted")}, "state", "no beginning"),
        (
            {(None, "file"): To("filed"), ("granted", "revoke"): To("revoked")},
            "state",
            "nothing leads to the state granted",
        ),
        ({(None, "file"): To("lost")}, "state", "cannot be lost"),
        ({(None, "file"): To("filed")}, "phase", "no field phase"),
    ],
)
def test_a_table_that_cannot_work_is_refused(table: Any, field: str, text: str) -> None:
    with pytest.raises(DefinitionError, match=text):
        StateMachine(Permit, table, field=field)
