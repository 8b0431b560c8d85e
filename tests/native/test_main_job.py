"""The main job on real Fabric ends as it ends on the embedded ledger."""

from __future__ import annotations

from typing import Any

import pytest
from demonstration import essence, shown
from fabricprograms import fabric_programs


@pytest.fixture(scope="module")
def embedded() -> dict[str, Any]:
    return essence(shown())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", [pytest.param("2.5", marks=pytest.mark.long), "3.1"])
def test_the_demonstration_shows_the_same(version: str, embedded: dict[str, Any]) -> None:
    """Same steps, decisions and reasons; the auditor recomputes every receipt from the peers' own block files."""
    fabric_programs(version)
    native = shown("--runtime", "native", "--fabric-version", version)
    assert native["audit"]["flipped"]["findings"]
    assert essence(native) == embedded
