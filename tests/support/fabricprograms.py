"""Real Fabric programs for tests, where this machine has them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sovchain.network import ProgramsMissing, Topology, default_topology
from sovchain.network.runtimes.programs import Programs, find_programs

VERSIONS = ("2.5", "3.1")


def fabric_programs(version: str) -> Programs:
    """The programs of a version; the test is skipped when they are not on this machine."""
    try:
        return asyncio.run(find_programs(version))
    except ProgramsMissing:
        pytest.skip(
            f"missing program: peer and orderer of Fabric {version}: unpack the release of hyperledger/fabric"
            f" and name its bin folder in SOVCHAIN_FABRIC_BIN, or put it into ~/.cache/sovchain/fabric/VERSION/bin"
        )


def topology_file(folder: Path, version: str) -> Path:
    """The default network's topology for a version of Fabric, as a file."""
    topology: Topology = default_topology().model_copy(update={"fabric_version": version})
    path = folder / f"fabric-{version}.yaml"
    path.write_text(topology.model_dump_json())  # YAML is a superset of JSON
    return path
