"""One contract test runs on the harness, on the embedded ledger and on real peers, and comes to the same there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fabricprograms import fabric_programs
from lending import Lending, Note

from sovchain.client import CommitRejected
from sovchain.network.topology import Collection
from sovchain.testing import ContractSpec, ContractWorld, refused

HERE = Path(__file__)
LIBRARIAN = {"role": "librarian"}


@pytest.fixture(scope="session")
def contract_spec() -> ContractSpec:
    return ContractSpec(
        "lending:chaincode",
        organizations=("North", "South", "East"),
        collections=(Collection(name="remarks", members=("North", "South")),),
    )


async def test_lending(contract_world: ContractWorld) -> None:
    librarian, reader = contract_world.caller("North", attributes=LIBRARIAN), contract_world.caller("South")
    with refused("E_ACCESS", "role(librarian)"):
        await reader.submit(Lending.add, "Fables")
    for title in ("Fables", "Tales", "Verses"):
        assert (await librarian.submit(Lending.add, title)).result.owner == "NorthMSP"
    with refused("E_STATE", "exists already"):
        await librarian.submit(Lending.add, "Tales")
    await reader.submit(Lending.lend, "Tales")
    assert await reader.evaluate(Lending.held_by, "SouthMSP") == ["Tales"]
    assert await reader.evaluate(Lending.held_by, "NorthMSP") == ["Fables", "Verses"]
    with refused("E_STATE"):
        await librarian.submit(Lending.lend, "Tales")
    with refused("E_NOT_FOUND"):
        await reader.submit(Lending.bring, "Dreams")
    first, mark = await reader.evaluate(Lending.page)
    rest, end = await reader.evaluate(Lending.page, mark)
    assert (first, rest, end) == (["Fables", "Tales"], ["Verses"], "")


async def test_the_owner_endorses_what_was_brought_back(contract_world: ContractWorld) -> None:
    await contract_world.caller("North", attributes=LIBRARIAN).submit(Lending.add, "Fables")
    reader = contract_world.caller("South")
    await reader.submit(Lending.lend, "Fables")
    await reader.submit(Lending.bring, "Fables")
    with pytest.raises(CommitRejected, match="ENDORSEMENT_POLICY_FAILURE"):
        await contract_world.caller("South", endorsers=["South", "East"]).submit(Lending.lend, "Fables")
    assert (await reader.submit(Lending.lend, "Fables")).result.holder == "SouthMSP"


async def test_remarks_stay_private(contract_world: ContractWorld) -> None:
    north = contract_world.caller("North", endorsers=["North", "South"])
    await north.submit(Lending.remark, Note(title="Fables", text="torn"), b"0" * 16)
    assert await contract_world.caller("North").evaluate(Lending.remarks) == ["torn"]


async def test_a_test_begins_with_nothing(contract_world: ContractWorld) -> None:
    assert await contract_world.caller("North").evaluate(Lending.page) == ([], "")


def run_on(*options: str, selected: str, count: int) -> None:
    """These same tests in a run of their own, with other options."""
    paths = os.pathsep.join([str(HERE.parents[1] / "support"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE), "-k", selected, *options]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths}, timeout=280
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{count} passed" in done.stdout


def test_the_same_tests_pass_on_the_embedded_ledger() -> None:
    run_on("--contracts-on", "network", selected="test_lending or stay_private", count=2)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["2.5", "3.1"])
def test_the_same_tests_pass_on_real_peers(version: str) -> None:
    fabric_programs(version)
    options = ("--contracts-on", "network", "--fabric-runtime", "native", "--fabric-version", version)
    run_on(*options, selected="lending or owner_endorses or stay_private or begins_with_nothing", count=4)
