"""The pytest plugin that comes with sovchain.

    fabric               a running network for your tests, and keys or a channel that no other test uses
    fabric_network       the network itself, one for each run and runtime
    fabric_topology      override it to test on a topology of your own
    conformance_network  the network of the conformance tests
    sovchain_network     directory of a running default network on the embedded ledger

Options: `--fabric-runtime`, `--fabric-version`, `--fabric-consensus`. See docs/testing.md.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sovchain.testing.variant import Variant

_GAP_MARKER = (
    "fabric_not_implemented(runtime, reason, raises): the test cannot pass on this runtime yet, and fails once it does"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose what the networks run on."""
    group = parser.getgroup("fabric", "Hyperledger Fabric networks (sovchain)")
    group.addoption(
        "--fabric-runtime",
        action="append",
        choices=("embedded", "native", "docker"),
        help="what test networks run on; may be given several times, then each test runs on each (default: embedded)",
    )
    group.addoption(
        "--fabric-version",
        action="append",
        choices=("2.5", "3.1"),
        help="Fabric version of the test networks; may be given several times (default: 3.1)",
    )
    group.addoption(
        "--fabric-consensus",
        action="append",
        choices=("raft", "bft"),
        help="consensus of the conformance network; may be given several times (default: raft)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", _GAP_MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses a network once for each combination of the options."""
    if "fabric_variant" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    variants = [
        Variant(*choice)
        for choice in itertools.product(
            option("--fabric-runtime") or ["embedded"],
            option("--fabric-version") or ["3.1"],
            option("--fabric-consensus") or ["raft"],
        )
    ]
    metafunc.parametrize("fabric_variant", variants, ids=str, indirect=True, scope="session")


@pytest.fixture(scope="session")
def fabric_variant(request: pytest.FixtureRequest) -> Variant:
    """Runtime, Fabric version and consensus that the test runs on."""
    variant: Variant = request.param
    return variant


@pytest.fixture(scope="session")
def conformance_network(fabric_variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The network of the conformance tests (`sovchain.testing.conformance.ConformanceNetwork`).

    Override it to run them on a network of your own.
    """
    from sovchain.testing.conformance.topology import conformance_topology
    from sovchain.testing.conformance.world import ConformanceNetwork

    directory = tmp_path_factory.mktemp("conformance") / "network"
    topology = conformance_topology(fabric_variant.fabric_version, fabric_variant.consensus)
    with ConformanceNetwork(directory, fabric_variant.runtime, topology) as network:
        yield network


@pytest.fixture(autouse=True)
def _expected_gaps(request: pytest.FixtureRequest) -> None:
    """Expect the failure of tests that are marked as not implemented on the runtime at hand."""
    from sovchain.testing.conformance.gaps import MARKER, gap_marks

    if request.node.get_closest_marker(MARKER) is None:
        return
    for mark in gap_marks(request.node, request.getfixturevalue("conformance_network").runtime):
        request.node.add_marker(mark)


@pytest.fixture(scope="session")
def sovchain_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a running default network on the embedded ledger, in a process of its own."""
    directory = tmp_path_factory.mktemp("sovchain") / "network"
    command = [sys.executable, "-m", "sovchain.cli"]
    done = subprocess.run(  # noqa: S603  our own command
        [*command, "up", "--detach", "--json", "--dir", str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        problem = json.loads(done.stdout)["error"]
        pytest.fail(f"the network did not come up: {problem['what']}: {problem['why']}", pytrace=False)
    try:
        yield directory
    finally:
        subprocess.run([*command, "down", "--dir", str(directory)], capture_output=True, check=False)  # noqa: S603
