"""The hfc facade: hfc's names, parameters and return shapes over the gateway, beside the genuine package where it is."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sovchain.client.hfc
from sovchain.client import EvaluateError
from sovchain.client.hfc import Client, GoneInGateway, HfcError
from sovchain.testing.conformance.chaincode import Probe
from sovchain.testing.conformance.topology import WIDE
from sovchain.testing.conformance.world import ConformanceNetwork, World

pytestmark = pytest.mark.xdist_group("conformance")
CALLS = Path(__file__).parents[1] / "support/hfc_calls.py"


def hfc_profile(network: ConformanceNetwork, folder: Path) -> tuple[Path, dict[str, str]]:
    """A profile in hfc's form of all three organisations, and the names of their peers."""
    document: dict[str, Any] = {
        "name": "conformance", "client": {"credentialStore": {"path": str(folder / "store"), "cryptoStore": {"path": str(folder)}}},
        "organizations": {}, "peers": {}, "orderers": {}, "certificateAuthorities": {},
    }  # fmt: skip
    names: dict[str, str] = {}
    for name in ("Alpha", "Beta", "Gamma"):
        source = json.loads((network.directory / f"connections/{name}.json").read_text())
        domain = network.topology.organization(name).domain
        msp = network.directory / f"organizations/peerOrganizations/{domain}/users/User1@{domain}/msp"
        (certificate,), (key,) = (msp / "signcerts").iterdir(), (msp / "keystore").iterdir()
        (peer,) = source["organizations"][name]["peers"]
        bundle = source["peers"][peer]
        root = folder / f"{name}.pem"
        root.write_text(bundle["tlsCACerts"]["pem"])
        document["organizations"][name] = {
            "mspid": f"{name}MSP",
            "peers": [peer],
            "certificateAuthorities": [],
            "users": {"User1": {"cert": str(certificate), "private_key": str(key)}},
        }
        document["peers"][peer] = {
            "url": bundle["url"].replace("grpcs://", ""),
            "eventUrl": bundle["url"].replace("grpcs://", ""),
            "grpcOptions": {"grpc.ssl_target_name_override": peer},
            "tlsCACerts": {"path": str(root)},
        }
        for orderer, entry in source.get("orderers", {}).items():
            path = folder / f"{orderer}.pem"
            path.write_text(entry["tlsCACerts"]["pem"])
            document["orderers"][orderer] = {
                "url": entry["url"].replace("grpcs://", ""),
                "grpcOptions": {"grpc.ssl_target_name_override": orderer},
                "tlsCACerts": {"path": str(path)},
            }
        names[name] = peer
    path = folder / "network.json"
    path.write_text(json.dumps(document))
    return path, names


async def task_of(world: World, network: ConformanceNetwork, folder: Path) -> dict[str, Any]:
    done = await world.submit(Probe.announce, world.key("seen"), "made", b"payload")
    profile, peers = hfc_profile(network, folder)
    return {
        "profile": str(profile),
        "peers": peers,
        "channel": WIDE,
        "key": world.key("sum"),
        "block": done.block_number,
        "transaction": done.transaction_id,
    }


def differences(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Where two documents differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted(ours.keys() | theirs.keys())
        return [text for key in keys for text in differences(ours.get(key), theirs.get(key), f"{place}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [text for number, pair in pairs for text in differences(*pair, f"{place}[{number}]")]
    return [] if ours == theirs else [f"{place}: {ours!r} instead of {theirs!r}"]


def run_calls(python: str, module: str, task: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [python, str(CALLS), module, json.dumps(task)], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def genuine() -> str:
    """The interpreter that has the genuine package; the test is skipped where there is none."""
    python = os.environ.get("SOVCHAIN_HFC_PYTHON")
    if not python:
        pytest.skip(
            "missing program: fabric-sdk-py 1.0.0: make an environment of Python 3.9 or 3.10,"
            ' pip install "fabric-sdk-py==1.0.0" "protobuf<3.21" "cryptography<36", and name its python in SOVCHAIN_HFC_PYTHON'
        )
    return python


async def test_its_calls_give_what_hfcs_callers_expect(conformance_network: ConformanceNetwork, tmp_path: Path) -> None:
    async with conformance_network.open() as world:
        task = await task_of(world, conformance_network, tmp_path)
        seen = await asyncio.to_thread(run_calls, sys.executable, "sovchain.client.hfc", task)
    assert (seen["query"], seen["invoke"]) == ("conga", "5")
    assert "E_CONGA" in seen["refusal"]
    assert seen["block"]["header"]["number"] == task["block"]
    assert seen["by_txid"] == seen["block"]
    envelope = seen["transaction"]["transaction_envelope"]
    assert envelope in seen["block"]["data"]["data"]
    assert envelope["payload"]["header"]["channel_header"]["type_string"] == "ENDORSER_TRANSACTION"
    assert set(seen["channels"]) == {"wide", "narrow"}
    config = seen["genesis"]["data"]["data"][0]["payload"]["data"]["config"]["channel_group"]
    alpha = config["groups"]["Application"]["groups"]["AlphaMSP"]
    assert alpha["values"]["MSP"]["value"]["config"]["name"] == "AlphaMSP"
    assert alpha["policies"]["Admins"]["policy"]["value"]["identities"][0]["principal"]["role"] == "ADMIN"
    assert config["groups"]["Orderer"]["values"]["BatchSize"]["value"]["max_message_count"] > 0
    assert len(seen["config"]) == 1
    assert seen["names"][3:] == [None, None]
    for filtered, heard in zip((True, False), seen["hub"], strict=True):
        assert [one[0] for one in heard] == ["block", "transaction", "event"]
        assert heard[1][1:] == [task["transaction"], "VALID", task["block"]]
        assert heard[2][2] == ("" if filtered else b"payload".hex())


async def test_the_genuine_package_gives_the_same(conformance_network: ConformanceNetwork, tmp_path: Path) -> None:
    """It has its own interpreter: pysha3 does not build from Python 3.11 on, and its protobuf is 3.20."""
    python = genuine()
    async with conformance_network.open() as world:
        task = await task_of(world, conformance_network, tmp_path)
        theirs = await asyncio.to_thread(run_calls, python, "hfc.fabric", task)
        ours = await asyncio.to_thread(
            run_calls, sys.executable, "sovchain.client.hfc", {**task, "key": world.key("other")}
        )
    for name in (
        "query",
        "invoke",
        "refusal",
        "info",
        "transaction",
        "block",
        "by_txid",
        "channels",
        "names",
        "genesis",
        "config",
        "hub",
    ):
        assert differences(ours[name], theirs[name]) == [], name


async def test_an_event_hub_calls_back_for_blocks_transactions_and_events(
    conformance_network: ConformanceNetwork, tmp_path: Path
) -> None:
    async with conformance_network.open() as world:
        profile, peers = hfc_profile(conformance_network, tmp_path)
        cli = Client(net_profile=profile)
        channel = cli.new_channel(WIDE)
        user = cli.get_user("Alpha", "User1")
        assert user is not None
        done = await world.submit(Probe.announce, world.key(), world.key("made"), b"payload")
        for filtered in (True, False):
            hub = channel.newChannelEventHub(peers["Alpha"], user)
            seen: list[Any] = []
            hub.registerBlockEvent(onEvent=lambda block, seen=seen: seen.append(("block", block)))
            hub.registerTxEvent(done.transaction_id, onEvent=lambda *found, seen=seen: seen.append(("tx", *found)))
            hub.registerChaincodeEvent(
                "probe", f"^{world.key('made')}$", onEvent=lambda *found, seen=seen: seen.append(("event", *found))
            )
            await asyncio.wait_for(hub.connect(filtered, start=done.block_number, stop=done.block_number), 30)
            kinds = [one[0] for one in seen]
            assert kinds == ["block", "tx", "event"]
            assert seen[1][1:] == (done.transaction_id, "VALID", done.block_number)
            assert seen[2][1]["payload"] == (b"" if filtered else b"payload")
        await cli.close_grpc_channels()


async def test_errors_are_errors_and_what_is_gone_says_what_to_use(
    conformance_network: ConformanceNetwork, tmp_path: Path
) -> None:
    profile, peers = hfc_profile(conformance_network, tmp_path)
    cli = Client(net_profile=profile)
    cli.new_channel(WIDE)
    user = cli.get_user("Alpha", "User1")
    assert user is not None
    with pytest.raises(EvaluateError):
        await cli.chaincode_query(user, WIDE, [peers["Alpha"]], ["none"], "probe", fcn="Probe:get")
    for call in (
        cli.chaincode_query(user, WIDE, ["nobody"], [], "probe"),
        cli.chaincode_query(user, "unknown", [peers["Alpha"]], [], "probe"),
        cli.chaincode_query(user, WIDE, [], [], "probe"),
    ):
        with pytest.raises(HfcError):
            await call
    with pytest.raises(GoneInGateway, match=r"Network\.deploy"):
        await cli.chaincode_install(user, [], "path", "cc", "1")
    with pytest.raises(HfcError):
        Client(net_profile=tmp_path / "nowhere.json")
    await cli.close_grpc_channels()


def listed() -> dict[str, dict[str, str]]:
    """What the migration page says: class -> method -> same, changed or gone."""
    found: dict[str, dict[str, str]] = {}
    kind = ""
    for line in (Path(__file__).parents[2] / "docs/client/hfc.md").read_text().splitlines():
        if line.startswith("#"):
            kind = line.lstrip("# ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            for name in re.findall(r"`(\w+)`", cells[0]):
                assert name not in found.setdefault(kind, {}), (kind, name)
                found[kind][name] = cells[1]
            assert cells[2] or cells[1] == "same", f"{cells[0]}: a reason is missing"
    return found


SURFACE: dict[str, dict[str, list[str] | None]] = json.loads((Path(__file__).parent / "hfc_surface.json").read_text())


def test_the_page_lists_every_public_method_and_nothing_else() -> None:
    assert {kind: set(methods) for kind, methods in listed().items()} == {
        kind: set(methods) for kind, methods in SURFACE.items()
    }
    assert {status for methods in listed().values() for status in methods.values()} == {"same", "changed", "gone"}


@pytest.mark.parametrize("kind", SURFACE)
def test_what_is_the_same_or_changed_has_hfcs_parameters_and_what_is_gone_says_so(kind: str) -> None:
    facade = getattr(sovchain.client.hfc, kind, None)
    for name, status in listed()[kind].items():
        value = getattr(facade, name, None)
        parameters = SURFACE[kind][name]
        if status == "gone":
            if value is not None:
                with pytest.raises(GoneInGateway, match=name):
                    asyncio.run(value(None))
        elif parameters is not None:
            assert list(inspect.signature(value).parameters)[1:] == parameters, name  # type: ignore[arg-type]
        else:
            source = inspect.getsource(facade)  # type: ignore[arg-type]
            assert value is not None or re.search(rf"\b(self\.)?{name}(:| =)", source), name


def test_the_surface_is_that_of_the_genuine_package() -> None:
    python = genuine()
    support = Path(__file__).parents[1] / "support/hfc_surface.py"
    done = subprocess.run([python, str(support)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == SURFACE
