"""The main job in containers ends as it ends on the embedded ledger."""

from __future__ import annotations

import pytest
from demonstration import essence, shown
from dockerimages import chaincode_image, docker_engine


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["3.1", pytest.param("2.5", marks=pytest.mark.long)])
def test_the_demonstration_shows_the_same(version: str) -> None:
    """Same steps, decisions and reasons; the auditor recomputes every receipt from the peers' own block files."""
    docker_engine(version)
    chaincode_image()
    seen = shown("--runtime", "docker", "--fabric-version", version)
    assert seen["audit"]["flipped"]["findings"]
    assert essence(seen) == essence(shown())
