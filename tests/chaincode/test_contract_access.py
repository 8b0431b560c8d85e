"""Access is decided by the caller's certificate, before anything else, and a refusal tells what is required and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sovchain.chaincode import (
    Chaincode,
    Context,
    Contract,
    DefinitionError,
    Requirement,
    attribute,
    holder,
    msp,
    query,
    role,
    transaction,
    unit,
)
from sovchain.chaincode.context import ClientIdentity
from sovchain.protocol.identity import parse_identity
from sovchain.testing import ContractHarness, refused
from sovchain.testing.harness_identity import identity


class Desk(Contract):
    """Registers letters."""

    ran = False

    @transaction(requires=role("clerk", "chief") & msp("GovMSP"))
    async def register(self, ctx: Context, number: int) -> int:
        Desk.ran = True
        return number

    @query(requires=unit("admin") | attribute("audit"))
    def inspect(self, ctx: Context) -> str:
        return ctx.identity.msp_id

    @transaction
    async def open(self, ctx: Context) -> None: ...


class StateDesk(Desk):
    """The same, for two organisations only."""

    requires = msp("GovMSP", "LabMSP")


@pytest.fixture
def harness() -> ContractHarness:
    Desk.ran = False
    return ContractHarness(Chaincode([Desk(), StateDesk()]), organizations=["Gov", "Lab", "Shop"])


async def test_the_required_caller_is_admitted(harness: ContractHarness) -> None:
    chief = harness.caller("Gov", attributes={"role": "chief"})
    assert (await chief.submit(Desk.register, 3)).result == 3
    assert await harness.caller("Shop", unit="admin").evaluate(Desk.inspect) == "ShopMSP"
    assert await harness.caller("Shop", attributes={"audit": ""}).evaluate(Desk.inspect) == "ShopMSP"


@pytest.mark.parametrize("attributes", [{}, {"role": "visitor"}, {"role": "Clerk"}, {"role": ""}, {"Role": "clerk"}])
async def test_a_caller_without_the_role_is_refused_before_the_method_runs(
    harness: ContractHarness, attributes: dict[str, str]
) -> None:
    with refused("E_ACCESS", "it requires role(clerk, chief) & msp(GovMSP)") as refusal:
        await harness.caller("Gov", attributes=attributes).submit(Desk.register, 3)
    assert not Desk.ran
    assert refusal.fields == {"requires": "role(clerk, chief) & msp(GovMSP)"}


async def test_a_refusal_repeats_nothing_of_the_caller_nor_of_the_call(harness: ContractHarness) -> None:
    stranger = harness.caller("Shop", "Wang", attributes={"role": "SECRET-ROLE"})
    with refused("E_ACCESS") as refusal:
        await stranger.submit(Desk.register, 424242)
    for leak in ("Shop", "Wang", "SECRET", "424242"):
        assert leak not in str(refusal.error)


async def test_access_is_decided_before_arguments_are_looked_at(harness: ContractHarness) -> None:
    class Other(Contract):
        name = "Desk"

        @transaction
        async def register(self, ctx: Context, number: str) -> int: ...

    with refused("E_ACCESS"):
        await harness.caller("Shop").submit(Other.register, "not a number")


async def test_the_requirement_of_the_contract_comes_on_top(harness: ContractHarness) -> None:
    assert str(StateDesk.register.requires) == "msp(GovMSP, LabMSP) & role(clerk, chief) & msp(GovMSP)"
    assert Desk.open.requires is None
    await harness.caller("Shop").submit(Desk.open)
    await harness.caller("Lab").submit(StateDesk.open)
    with refused("E_ACCESS"):
        await harness.caller("Shop").submit(StateDesk.open)


def caller(msp_id: str = "GovMSP", unit: str = "client", **attributes: str) -> ClientIdentity:
    return ClientIdentity(parse_identity(identity(msp_id, "User1", unit, tuple(attributes.items()))))


def requirements() -> st.SearchStrategy[tuple[Requirement, object]]:
    """A requirement with the Boolean function of (is clerk, is of GovMSP) that it stands for."""
    leaves = st.sampled_from([(role("clerk"), lambda c, g: c), (msp("GovMSP"), lambda c, g: g)])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(
                lambda p: (p[0][0] & p[1][0], lambda c, g, p=p: p[0][1](c, g) and p[1][1](c, g))
            ),
            st.tuples(inner, inner).map(
                lambda p: (p[0][0] | p[1][0], lambda c, g, p=p: p[0][1](c, g) or p[1][1](c, g))
            ),
            inner.map(lambda p: (~p[0], lambda c, g, p=p: not p[1](c, g))),
        ),
        max_leaves=8,
    )


@given(requirements(), st.booleans(), st.booleans())
def test_combinations_mean_what_they_say(pair: tuple[Requirement, object], clerk: bool, gov: bool) -> None:
    requirement, means = pair
    someone = caller("GovMSP" if gov else "LabMSP", **({"role": "clerk"} if clerk else {}))
    assert requirement.met_by(someone) == means(clerk, gov)  # type: ignore[operator]  # a function of two Booleans


@given(requirements(), st.booleans(), st.booleans())
def test_the_text_of_a_combination_reads_as_python_does(
    pair: tuple[Requirement, object], clerk: bool, gov: bool
) -> None:
    """`&` binds stronger than `|`, `~` stronger than both, and brackets stand where these would mislead."""
    text = str(pair[0]).replace("role(clerk)", "clerk").replace("msp(GovMSP)", "gov").replace("~", " not ")
    words = text.replace("&", " and ").replace("|", " or ")
    assert eval(words, {"clerk": clerk, "gov": gov}) == pair[1](clerk, gov)  # type: ignore[operator]


def test_a_holder_is_the_msp_in_a_field_of_the_record() -> None:
    class Note:
        custodian = "GovMSP"

    assert holder("custodian").met_by(caller(), Note())
    assert not holder("custodian").met_by(caller("LabMSP"), Note())
    assert not holder("custodian").met_by(caller())
    assert not holder("owner").met_by(caller(), Note())


def test_requirements_are_not_combined_with_words() -> None:
    with pytest.raises(TypeError, match="&"):
        _ = role("clerk") and msp("GovMSP")
    with pytest.raises(DefinitionError):
        role("clerk") & "GovMSP"  # type: ignore[operator]
    for nothing in (role, msp, unit):
        with pytest.raises(DefinitionError):
            nothing()
        with pytest.raises(DefinitionError):
            nothing("")
