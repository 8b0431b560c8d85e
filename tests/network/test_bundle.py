"""Operators make their own keys, exchange what is public, and come to the same first blocks."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fabricca import server_program
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sovchain.network import Network, RuntimeUnavailable, UnknownName, default_topology
from sovchain.network.apply import plan
from sovchain.network.bundle import assemble, complete, create_bundle
from sovchain.network.definitions import (
    Definition,
    channels_of,
    check_definition,
    check_together,
    read_definition,
    topology_digest,
    write_definition,
)
from sovchain.network.errors import (
    BlocksDiffer,
    DefinitionRefused,
    DefinitionsMissing,
    DirectoryRefused,
    InstanceDamaged,
    KeysElsewhere,
    NetworkError,
    TopologyChanged,
)
from sovchain.network.instance import read_description
from sovchain.network.topology import Topology
from sovchain.protocol.blocks import parse_block
from sovchain.protocol.channelconfig import ChannelBundle

TOPOLOGY = default_topology()
NOW = datetime.now(UTC)
OPERATORS = [part.name for part in TOPOLOGY.organizations]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of each operator, defined and not exchanged."""
    root = tmp_path_factory.mktemp("operators")
    for index, name in enumerate(OPERATORS):
        asyncio.run(create_bundle(TOPOLOGY, name, root / name, f"10.77.0.{index + 1}", NOW))
    return root


@pytest.fixture(scope="module")
def definitions(world: Path) -> dict[str, Definition]:
    return {name: read_definition(world / name / f"definitions/{name}.json") for name in OPERATORS}


@pytest.fixture
def finance(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world / "Finance", tmp_path / "Finance")
    return tmp_path / "Finance"


def with_authority() -> Topology:
    """The default network; Finance's certificates come from a Fabric CA."""
    document = TOPOLOGY.model_dump(mode="json")
    document["organizations"][1]["certificate_authority"] = "fabric-ca"
    return Topology.model_validate(document)


async def test_an_operator_may_have_its_certificates_from_its_fabric_ca(tmp_path: Path) -> None:
    await asyncio.to_thread(server_program)
    topology = with_authority()
    await create_bundle(topology, "Finance", tmp_path / "Finance", "10.77.0.2", NOW)
    definition = read_definition(tmp_path / "Finance/definitions/Finance.json")
    check_definition(definition, topology, NOW)
    done = complete(tmp_path / "Finance", [], NOW)
    assert done.digests == {"Finance": definition.digest}
    description = read_description(tmp_path / "Finance")
    assert description is not None
    assert "ca.finance.guiyang.example" in description.ports
    assert not list((tmp_path / "Finance/run").glob("*.pid"))


def keys(directory: Path) -> set[str]:
    """Every private key in a directory, by its content, wherever it is."""
    found = set()
    for path in directory.rglob("*"):
        text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
        for part in text.split("-----BEGIN ")[1:]:
            if part.startswith(("PRIVATE KEY", "EC PRIVATE KEY")):
                found.add("".join(part.split("-----")[1].split()))
    return found


def test_all_operators_come_to_the_same_blocks_and_no_key_is_in_two_bundles(
    world: Path, definitions: dict[str, Definition], tmp_path: Path
) -> None:
    blocks: dict[str, set[str]] = {}
    for name in OPERATORS:
        shutil.copytree(world / name, tmp_path / name)
        alone = complete(tmp_path / name, [], NOW)
        assert alone.blocks == {}
        assert set(alone.missing) >= {"Supervisor", "Government"} - {name}
        others = [found for other, found in definitions.items() if other != name]
        done = complete(tmp_path / name, reversed(others), NOW + timedelta(hours=1))
        assert list(done.blocks) == channels_of(TOPOLOGY, name)
        for channel, digest in done.blocks.items():
            blocks.setdefault(channel, set()).add(digest)
        assert complete(tmp_path / name, others, NOW).blocks == done.blocks
    assert {channel: len(digests) for channel, digests in blocks.items()} == {c.name: 1 for c in TOPOLOGY.channels}
    assembled = assemble(TOPOLOGY, definitions.values(), tmp_path / "blocks", NOW)
    assert {channel: {digest} for channel, digest in assembled.items()} == blocks
    held = {name: keys(tmp_path / name) for name in OPERATORS}
    assert all(len(found) >= 8 for found in held.values())
    assert len(set().union(*held.values())) == sum(map(len, held.values()))
    assert not any("PRIVATE KEY" in definition.model_dump_json() for definition in definitions.values())


def test_a_block_names_everyone_s_addresses_and_roots(definitions: dict[str, Definition], tmp_path: Path) -> None:
    assemble(TOPOLOGY, definitions.values(), tmp_path / "blocks", NOW)
    bundle = ChannelBundle.from_block(parse_block((tmp_path / "blocks/logistics.block").read_bytes()))
    config = bundle.config.channel_group.SerializeToString()
    for name in ("Government", "Logistics", "Supervisor", "OverseasCarrier"):
        (entry, *_) = definitions[name].organizations
        assert entry.root.encode() in config
        assert entry.nodes[0].address.encode() in config


def test_only_the_operators_of_a_channel_are_needed(
    finance: Path, definitions: dict[str, Definition], tmp_path: Path
) -> None:
    some = [definitions[name] for name in ("Government", "Finance", "Supervisor")]
    assert list(assemble(TOPOLOGY, some, tmp_path / "blocks", NOW)) == ["finance"]
    with pytest.raises(DefinitionsMissing) as caught:
        assemble(TOPOLOGY, some[:1], tmp_path / "none", NOW)
    assert "Supervisor" in caught.value.operators
    assert complete(finance, some[:1], NOW).missing == ("Logistics", "OverseasCarrier", "Supervisor")


async def test_a_bundle_that_lacks_definitions_is_not_run(finance: Path) -> None:
    with pytest.raises(DefinitionsMissing, match="Government, Logistics") as caught:
        async with Network.up(None, None, finance):
            pytest.fail("it came up")
    assert "sovchain network bundle" in caught.value.remedy


def test_who_is_asked_to_act_for_another_says_whose_keys_are_where(
    finance: Path, definitions: dict[str, Definition]
) -> None:
    complete(finance, [found for name, found in definitions.items() if name != "Finance"], NOW)
    network = Network(finance, TOPOLOGY, operator="Finance")
    assert network.organizations == ["Finance"]
    assert network.channels == ["government", "finance"]
    assert network.identity("Finance").msp_id == "FinanceMSP"
    for act in (network.identity, network.profile, network.connect):
        with pytest.raises(KeysElsewhere, match="Government"):
            act("Government")


def test_blocks_of_another_operator_are_compared(
    finance: Path, definitions: dict[str, Definition], tmp_path: Path
) -> None:
    assemble(TOPOLOGY, definitions.values(), tmp_path / "blocks", NOW)
    others = [found for name, found in definitions.items() if name != "Finance"]
    complete(finance, others, NOW, tmp_path / "blocks")
    (tmp_path / "blocks/finance.block").write_bytes(b"another")
    with pytest.raises(BlocksDiffer, match="finance"):
        complete(finance, [], NOW, tmp_path / "blocks")


async def test_defining_again_keeps_what_is_there_and_another_s_directory_is_refused(finance: Path) -> None:
    before = {path: path.read_bytes() for path in finance.rglob("*") if path.is_file() and "run" not in path.parts}
    await create_bundle(TOPOLOGY, "Finance", finance, "10.9.9.9", NOW + timedelta(days=1))
    after = {path: path.read_bytes() for path in finance.rglob("*") if path.is_file() and "run" not in path.parts}
    assert before == after
    with pytest.raises(DirectoryRefused, match="not the bundle of Government"):
        await create_bundle(TOPOLOGY, "Government", finance, "10.9.9.9", NOW)
    other = TOPOLOGY.model_copy(update={"name": "another"})
    with pytest.raises(TopologyChanged):
        await create_bundle(other, "Finance", finance, "10.9.9.9", NOW)


async def test_an_interrupted_definition_goes_on_with_the_same_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(
            "sovchain.network.bundle.create_organization", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
        )
        with pytest.raises(OSError, match="full"):
            await create_bundle(TOPOLOGY, "Finance", tmp_path / "Finance", "10.77.0.2", NOW, first_port=9000)
    await create_bundle(TOPOLOGY, "Finance", tmp_path / "Finance", "10.9.9.9", NOW)
    definition = read_definition(tmp_path / "Finance/definitions/Finance.json")
    check_definition(definition, TOPOLOGY, NOW)
    assert definition.endpoints["peer0.finance.guiyang.example"] == ("10.77.0.2", 9000)


async def test_what_a_bundle_cannot_be_made_of_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        await create_bundle(TOPOLOGY, "Nobody", tmp_path / "x", "10.0.0.1", NOW)
    for address in ("0.0.0.0", "", "a b", "::1", "http://x", "ho_st"):
        with pytest.raises(NetworkError, match="cannot use the address"):
            await create_bundle(TOPOLOGY, "Finance", tmp_path / "x", address, NOW)
    with pytest.raises(RuntimeUnavailable, match="real nodes"):
        await create_bundle(TOPOLOGY, "Finance", tmp_path / "x", "10.0.0.1", NOW, runtime="embedded")
    assert not (tmp_path / "x").exists()
    with pytest.raises(DirectoryRefused, match="network define makes one"):
        complete(tmp_path / "empty", [], NOW)


def test_a_half_written_directory_is_named(finance: Path) -> None:
    path = finance / "definitions/Finance.json"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InstanceDamaged) as caught:
        complete(finance, [], NOW)
    assert caught.value.path == path


def change(definition: Definition, *path: str | int, to: Any) -> Definition:
    document = definition.model_dump(mode="json")
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return Definition.model_validate(document)


ENTRY = ("organizations", 0)
NODE = (*ENTRY, "nodes", 0)
SPOILED: dict[str, tuple[Callable[[Definition, Definition], Definition], str]] = {
    "another topology": (lambda own, _: change(own, "topology", to="0" * 64), "another topology"),
    "an unknown operator": (lambda own, _: change(own, "operator", to="Atlantis"), "no organisation Atlantis"),
    "the operator of another": (lambda own, _: change(own, "operator", to="Logistics"), "must define exactly Logistics"),
    "another MSP id": (lambda own, _: change(own, *ENTRY, "msp_id", to="FinanceMsp"), "MSP id FinanceMsp"),
    "another root": (
        lambda own, other: change(own, *ENTRY, "root", to=other.organizations[0].root),
        "certificate of peer0.finance",
    ),
    "a root that is none": (lambda own, _: change(own, *ENTRY, "root", to=own.organizations[0].nodes[0].certificate), "MSP of Finance"),
    "no certificate": (lambda own, _: change(own, *ENTRY, "root", to="x"), "MSP of Finance"),
    "one root for both": (lambda own, _: change(own, *ENTRY, "tls_root", to=own.organizations[0].root), "one root for"),
    "another TLS root": (
        lambda own, other: change(own, *ENTRY, "tls_root", to=other.organizations[0].tls_root),
        "of another authority",
    ),
    "another address": (lambda own, _: change(own, *NODE, "address", to="10.66.6.6"), "not for 10.66.6.6"),
    "another host": (lambda own, _: change(own, *NODE, "host", to="peer1.finance.guiyang.example"), "not those of the topology"),
    "a peer that is a client": (
        lambda own, other: change(own, *NODE, "certificate", to=other.organizations[0].nodes[0].certificate),
        "certificate of peer0.finance",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILED)
def test_a_definition_that_does_not_fit_is_refused_and_nothing_of_it_is_kept(
    kind: str, finance: Path, definitions: dict[str, Definition], tmp_path: Path
) -> None:
    spoil, why = SPOILED[kind]
    spoiled = spoil(definitions["Finance"], definitions["Logistics"])
    with pytest.raises(DefinitionRefused, match=why):
        check_definition(spoiled, TOPOLOGY, NOW)
    before = sorted(finance.rglob("*"))
    with pytest.raises(DefinitionRefused):
        complete(finance, [definitions["Government"], spoiled], NOW)
    assert sorted(finance.rglob("*")) == before


def test_an_expired_root_is_refused(definitions: dict[str, Definition]) -> None:
    with pytest.raises(DefinitionRefused, match="is valid from"):
        check_definition(definitions["Finance"], TOPOLOGY, NOW + timedelta(days=5000))


def test_two_definitions_with_one_address_root_or_operator_are_refused(
    finance: Path, definitions: dict[str, Definition]
) -> None:
    own, other = definitions["Finance"], definitions["Logistics"]
    for second, why in (
        (change(other, *NODE, "address", to="10.77.0.2"), "the address 10.77.0.2:7050"),
        (change(other, *ENTRY, "root", to=own.organizations[0].root), "a root of Logistics"),
        (own, "a definition of Finance"),
    ):
        with pytest.raises(DefinitionRefused, match=why):
            check_together([own, second])
    later = own.model_copy(update={"created_at": own.created_at + timedelta(seconds=1)})
    with pytest.raises(DefinitionRefused, match="another one is there already"):
        complete(finance, [later], NOW)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "json"),
        (b"[]", "the document"),
        (b"{}", "required"),
        (b"\xff\xfe", "json"),
        (b"x" * (4 * 1024 * 1024 + 1), "more than"),
        (b'{"note": "-----BEGIN PRIVATE KEY-----"}', "private key"),
        (b"[" * 100_000, "the document"),
    ],
)
def test_a_file_that_is_no_definition_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "definition.json"
    path.write_bytes(content)
    with pytest.raises(DefinitionRefused, match=why):
        read_definition(path)
    with pytest.raises(DefinitionRefused, match="cannot be read"):
        read_definition(tmp_path / "absent")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_definition_with_any_text_changed_is_refused_or_has_another_digest(
    data: st.DataObject, definitions: dict[str, Definition]
) -> None:
    document = json.loads(write_definition(definitions["Finance"]))
    text = json.dumps(document)
    position = data.draw(st.integers(0, len(text) - 1))
    spoiled = text[:position] + data.draw(st.characters(codec="utf-8")) + text[position + 1 :]
    try:
        found = Definition.model_validate_json(spoiled)
    except ValueError:
        return
    assert (found == definitions["Finance"]) == (found.digest == definitions["Finance"].digest)
    try:
        check_definition(found, TOPOLOGY, NOW)
    except DefinitionRefused:
        return


def test_the_digest_of_a_topology_is_that_of_what_all_must_agree_on() -> None:
    ports = TOPOLOGY.model_copy(update={"ports": TOPOLOGY.ports.model_copy(update={"base": 9000})})
    assert topology_digest(ports) == topology_digest(TOPOLOGY)
    assert topology_digest(TOPOLOGY.model_copy(update={"consensus": "bft"})) != topology_digest(TOPOLOGY)


def test_the_description_says_whose_bundle_it_is(finance: Path) -> None:
    description = read_description(finance)
    assert description is not None
    assert description.bundle is not None
    assert description.bundle.operator == "Finance"
    assert description.bundle.endpoints["peer0.finance.guiyang.example"] == ("10.77.0.2", 7050)


async def test_a_change_of_the_network_is_not_planned_from_one_operator_s_part(
    finance: Path, definitions: dict[str, Definition]
) -> None:
    complete(finance, [found for name, found in definitions.items() if name != "Finance"], NOW)
    description = read_description(finance)
    assert description is not None
    with pytest.raises(NetworkError, match="the nodes and keys of Finance alone"):
        await plan(finance, description, TOPOLOGY)
