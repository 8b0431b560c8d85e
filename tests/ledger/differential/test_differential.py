"""What the embedded ledger answers, orders, validates and commits is what real Fabric does with the same input."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fabricprograms import VERSIONS, fabric_programs
from twin import Twin, twin
from twin_generate import prepare
from twin_rounds import rounds

SHORT, LONG = 160, 20_000


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """A version of Fabric whose programs are here."""
    fabric_programs(request.param)
    return str(request.param)


@pytest.fixture
async def both(version: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Twin]:
    """A real network of this version and an embedded ledger that follows it, with the chaincodes defined."""
    async with twin(version, tmp_path_factory.mktemp("twin") / "network") as made:
        await prepare(made)
        yield made


def agreed(both: Twin) -> None:
    """Fail with the first differences, if there are any."""
    shown = "\n".join(str(difference) for difference in both.differences[:5])
    assert not both.differences, f"{len(both.differences)} differences\n{shown}"


async def test_random_transactions(both: Twin) -> None:
    """Lifecycle and random input, honest and hostile: a few hundred answers, codes and commit hashes."""
    await rounds(both, SHORT, seed=2026)
    agreed(both)
    assert both.compared["answer"] > SHORT
    assert both.compared["code"] >= SHORT
    assert len(both.codes) >= 6, both.codes


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
async def test_twenty_thousand_transactions(both: Twin) -> None:
    """The same at length; seeds as they come."""
    done = 0
    while done < LONG:
        await rounds(both, 1_000, seed=done + 1)
        done = both.compared["code"]
        agreed(both)
