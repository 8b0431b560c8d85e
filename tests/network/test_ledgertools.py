"""The tools of an embedded ledger from the process that runs the network, from another one, and as commands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from sovchain.cli.commands import app
from sovchain.ledger.faults import FaultRefused
from sovchain.ledger.snapshots import SnapshotError
from sovchain.network import Network, default_topology
from sovchain.network.control import LedgerRequest, RemoteError, ask


@pytest_asyncio.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    """The default network without chaincodes."""
    topology = default_topology().model_copy(update={"chaincodes": ()})
    async with Network.up(topology, "embedded", tmp_path / "network") as up:
        yield up


async def sovchain(network: Network, *arguments: str | Path, code: int = 0) -> Any:
    command = ["ledger", *map(str, arguments), "--dir", str(network.directory), "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert done.exit_code == code, (command, done.output)
    # The network of this process logs to the same stream.
    lines = done.output.splitlines()
    return json.loads("\n".join(lines[min(at for at, line in enumerate(lines) if line in ("{", "[", "[]")) :]))


async def test_the_tools_do_the_same_here_and_from_another_process(network: Network) -> None:
    async with Network.attach(network.directory) as attached:
        taken = await attached.ledger.snapshot("clean")
        assert set(taken.channels) == {"government", "finance", "logistics"}
        assert await network.ledger.snapshots() == await attached.ledger.snapshots() == [taken]
        assert await attached.ledger.revert("clean") == taken
        assert (await attached.ledger.advance(90)).shift_s == 90
        assert (await network.ledger.time()).shift_s == 90
        chain = await attached.ledger.set_cutting("finance", held=True)
        assert chain.cutting.held
        assert (await network.ledger.chains())["finance"] == chain
        asked = await attached.ledger.add_fault("gateway.submit", "delay", delay_s=1.5, times=2)
        assert await network.ledger.faults() == asked
        assert await attached.ledger.clear_faults() == 1
        with pytest.raises(SnapshotError, match="no such snapshot"):
            await network.ledger.revert("other")
        with pytest.raises(RemoteError) as raised:
            await attached.ledger.revert("other")
        assert (raised.value.kind, raised.value.what) == ("SnapshotError", "cannot use snapshot 'other'")
        with pytest.raises(FaultRefused):
            await attached.ledger.add_fault("nowhere", "drop")
        await attached.ledger.drop_snapshot("clean")


async def test_requests_for_what_there_is_not_are_refused(network: Network) -> None:
    requests: dict[str, dict[str, Any]] = {
        "stop": {},
        "_channel": {"name": "finance"},
        "advance": {"seconds": "soon"},
        "snapshot": {"nome": "x"},
    }
    for do, arguments in requests.items():
        with pytest.raises(RemoteError):
            await ask(network.directory, LedgerRequest(do=do, arguments=arguments))


async def test_the_commands(network: Network, tmp_path: Path) -> None:
    assert (await sovchain(network, "snapshot", "clean"))["channels"]["finance"]["height"] == 1
    assert [one["name"] for one in await sovchain(network, "snapshots")] == ["clean"]
    assert (await sovchain(network, "advance", "1d12h"))["shift_s"] == 129_600
    await sovchain(network, "advance", "soon", code=2)
    assert (await sovchain(network, "revert", "clean"))["shift_s"] == 0
    await sovchain(network, "cutting", "--channel", "finance", "--hold")
    status = await sovchain(network, "status")
    assert status["channels"]["finance"]["cutting"]["held"]
    assert (await sovchain(network, "cut", "--channel", "finance"))["height"] == 1
    await sovchain(network, "fault", "ordering.batch", "reorder", "--channel", "finance")
    assert len((await sovchain(network, "faults"))["asked"]) == 1
    assert (await sovchain(network, "faults", "--clear"))["cleared"] == 1
    await sovchain(network, "dump", tmp_path / "dump")
    await sovchain(network, "load", tmp_path / "dump")
    assert (await sovchain(network, "export", "--channel", "finance", tmp_path / "blocks"))["blocks"] == 1
    assert (await sovchain(network, "import", "--channel", "finance", tmp_path / "blocks"))["height"] == 1
    await sovchain(network, "drop", "clean")
    refused = await sovchain(network, "revert", "clean", code=3)
    assert refused["error"]["what"] == "cannot use snapshot 'clean'"


async def test_peers_lag_and_nodes_end_by_command(network: Network) -> None:
    peer = network.topology.organization("Finance").peer_host
    node = network.topology.ordering_organizations[0].orderer_host
    lagging = await sovchain(network, "lag", peer, "--channel", "finance")
    assert (lagging["host"], lagging["lagging"]) == (peer, ["finance"])
    assert (await sovchain(network, "catch-up", peer))["lagging"] == []
    await sovchain(network, "end", node)
    states = {state["host"]: state for state in await sovchain(network, "nodes")}
    assert (states[node]["running"], states[node]["kind"], states[peer]["running"]) == (False, "orderer", True)
    await sovchain(network, "begin", node)
    assert all(state.running for state in await network.ledger.nodes())
    await sovchain(network, "lag", "nobody", code=3)
    await sovchain(network, "lag", peer, "--blocks", "99", code=3)
