"""The pytest plugin that comes with sovchain.

    fabric               a running network for your tests, with keys or a channel that no other test uses
    fabric_network       the network itself, one for each run and runtime
    fabric_topology      override it to test on a topology of your own
    fabric_clean         the same network, gone back after the test to what it was when it came up (embedded ledger)
    fabric_services      its containers, as pytest-docker has them
    conformance_network  the network of the conformance tests
    contract_world       where a contract is tested: in the process, or on a network with `--contracts-on network`
    contract_spec        override it to say which contract
    sovchain_network     directory of a running default network on the embedded ledger

Options: `--fabric-runtime`, `--fabric-version`, `--fabric-consensus`, `--contracts-on`. Guides: docs/testing.md,
docs/contracts/testing.md.

Every pytest session imports this module, so it imports nothing heavy.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sovchain.testing.variant import HARNESS, Variant, add_options, contract_variants, variants

if TYPE_CHECKING:
    from pytest_docker.plugin import Services

    from sovchain.network import Topology
    from sovchain.testing.conformance.world import ConformanceNetwork
    from sovchain.testing.hosted import HostedNetwork
    from sovchain.testing.isolation import Fabric
    from sovchain.testing.worlds import ContractSpec, ContractWorld, WorldPool

_MARKERS = (
    "fabric_channel(like): the test gets a channel of its own, `fabric.channel`, like this channel of the topology",
    "fabric_not_implemented(runtime, reason, raises): the test cannot pass on this runtime yet, and fails once it does",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses a network once for each combination of the options."""
    if "contract_variant" in metafunc.fixturenames:
        chosen = contract_variants(metafunc.config)
        metafunc.parametrize("contract_variant", chosen, ids=str, indirect=True, scope="session")
    for name, consensus in (("fabric_variant", False), ("conformance_variant", True)):
        if name in metafunc.fixturenames:
            chosen = variants(metafunc.config, consensus=consensus)
            metafunc.parametrize(name, chosen, ids=str, indirect=True, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Find out which of the tests that are left want a channel of their own."""
    if any(item.get_closest_marker("fabric_channel") for item in items):
        from sovchain.testing.isolation import reserve_channels

        reserve_channels(config, items)


@pytest.fixture(scope="session")
def fabric_variant(request: pytest.FixtureRequest) -> Variant:
    """What the network of `fabric` runs on."""
    variant: Variant = request.param
    return variant


@pytest.fixture(scope="session")
def conformance_variant(request: pytest.FixtureRequest) -> Variant:
    """What the network of the conformance tests runs on."""
    variant: Variant = request.param
    return variant


@pytest.fixture(scope="session")
def fabric_topology() -> Topology | Path | str | None:
    """The topology of `fabric`: None for the default one. Override it with a topology or the path of a YAML file."""
    return None


@pytest.fixture(scope="session")
def fabric_network(
    fabric_variant: Variant,
    fabric_topology: Topology | Path | str | None,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[HostedNetwork]:
    """A network in a process of its own, for the whole run; each worker of pytest-xdist has its own."""
    from sovchain.testing.hosted import HostedNetwork
    from sovchain.testing.isolation import topology_for

    topology = topology_for(fabric_topology, fabric_variant.fabric_version, request.config, str(fabric_variant))
    directory = tmp_path_factory.mktemp("fabric") / "network"
    with _up(HostedNetwork(directory, fabric_variant.runtime, topology)) as network:
        yield network


@pytest.fixture
def fabric(fabric_network: HostedNetwork, request: pytest.FixtureRequest) -> Fabric:
    """A running network (`sovchain.testing.Fabric`) with a place that no other test uses."""
    from sovchain.testing.isolation import Fabric, channel_of, namespace_of

    return Fabric(fabric_network, namespace_of(request.node), channel_of(request.node))


@pytest.fixture(scope="session")
def _fabric_snapshot(fabric_network: HostedNetwork) -> str:
    if fabric_network.runtime != "embedded":
        pytest.skip(f"fabric_clean goes back to a snapshot, which the {fabric_network.runtime} runtime has none of")
    name = f"pytest-{secrets.token_hex(4)}"
    fabric_network.snapshot(name)
    return name


@pytest.fixture
def fabric_clean(fabric: Fabric, _fabric_snapshot: str) -> Iterator[Fabric]:
    """The network with nothing on it but what it came up with: blocks, state, private data and time go back after the test.

    Going back takes milliseconds. Tests of `fabric` that ran before the first one of these leave their traces; use one of
    the two fixtures in a run. Skipped on other runtimes.
    """
    yield fabric
    fabric.network.revert(_fabric_snapshot)


@pytest.fixture(scope="session")
def contract_variant(request: pytest.FixtureRequest) -> Variant:
    """What `contract_world` runs on."""
    variant: Variant = request.param
    return variant


@pytest.fixture(scope="session")
def contract_spec() -> ContractSpec:
    """Which contract `contract_world` tests. Override it."""
    pytest.fail("override the fixture contract_spec with a ContractSpec that says which contract is tested", False)


@pytest.fixture(scope="session")
def _contract_pool(
    contract_variant: Variant, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[WorldPool | None]:
    if contract_variant.runtime == HARNESS:
        yield None
        return
    from sovchain.testing.worlds import WorldPool

    asking = sum("contract_world" in getattr(item, "fixturenames", ()) for item in request.session.items)
    folder = tmp_path_factory.mktemp("contracts")
    pool = WorldPool(folder, contract_variant.runtime, contract_variant.fabric_version, asking)
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture
def contract_world(_contract_pool: WorldPool | None, contract_spec: ContractSpec) -> ContractWorld:
    """Where a contract is tested: a harness or, with `--contracts-on network`, a network; nothing is there yet."""
    if _contract_pool is None:
        return contract_spec.harness()
    from sovchain.testing.hosted import HostFailed

    try:
        return _contract_pool.take(contract_spec)
    except HostFailed as error:
        problem = str(error)
    pytest.fail(f"the network of the contract did not come up: {problem}", pytrace=False)


@pytest.fixture(scope="session")
def fabric_services(fabric_network: HostedNetwork) -> Services:
    """The containers of the network of `fabric` on the docker runtime, as pytest-docker has them.

    `port_for`, `wait_until_responsive`, and any Compose command. Tests that ask for them are skipped on other runtimes.
    """
    if fabric_network.runtime != "docker":
        pytest.skip(f"a network on the {fabric_network.runtime} runtime has no containers")
    pytest.importorskip("pytest_docker", reason="missing program: pytest-docker: pip install pytest-docker")
    from sovchain.testing.containers import services_of

    return services_of(fabric_network.directory)


@pytest.fixture(scope="session")
def conformance_network(
    conformance_variant: Variant, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConformanceNetwork]:
    """The network of the conformance tests (`sovchain.testing.conformance.ConformanceNetwork`).

    Override it to run them on a network of your own.
    """
    from sovchain.testing.conformance.topology import conformance_topology
    from sovchain.testing.conformance.world import ConformanceNetwork

    assert conformance_variant.fabric_version is not None
    assert conformance_variant.consensus is not None
    topology = conformance_topology(conformance_variant.fabric_version, conformance_variant.consensus)
    directory = tmp_path_factory.mktemp("conformance") / "network"
    network = ConformanceNetwork(directory, conformance_variant.runtime, topology)
    with _up(network):
        yield network


@contextmanager
def _up(network: HostedNetwork) -> Iterator[HostedNetwork]:
    """Bring a network up for the length of the block; say in one line why that cannot be."""
    from sovchain.testing.hosted import HostFailed

    problem = None
    try:
        network.start()
    except HostFailed as error:
        problem = str(error)
    if problem is not None:
        pytest.fail(f"the network did not come up on the {network.runtime} runtime: {problem}", pytrace=False)
    try:
        yield network
    finally:
        network.stop()


@pytest.fixture(autouse=True)
def _expected_gaps(request: pytest.FixtureRequest) -> None:
    """Expect the failure of tests that are marked as not implemented on the runtime at hand."""
    if request.node.get_closest_marker("fabric_not_implemented") is None:
        return
    from sovchain.testing.conformance.gaps import gap_marks

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
