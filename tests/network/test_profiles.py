"""Connection profiles are what official SDKs and this project's client read."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sovchain.client import Profile
from sovchain.network import default_topology
from sovchain.network.material import Material
from sovchain.network.ports import allocate, service_names
from sovchain.network.profiles import profile_path, write_profiles
from sovchain.network.runtimes import Site
from sovchain.network.topology import Topology

TOPOLOGY = default_topology()
PORTS = {part.peer_host: 20000 + index for index, part in enumerate(TOPOLOGY.organizations)}
PORTS |= {part.orderer_host: 20100 + index for index, part in enumerate(TOPOLOGY.ordering_organizations)}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material.create(TOPOLOGY, tmp_path_factory.mktemp("profiles") / "organizations", datetime.now(UTC))


@pytest.fixture(scope="module")
def folder(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("connections")
    write_profiles(Site(folder, TOPOLOGY, PORTS, {}), material, folder)
    return folder


def test_there_is_one_for_each_organisation_with_a_peer(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {f"{part.name}.json" for part in TOPOLOGY.organizations}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())


def test_a_profile_has_the_layout_of_fabrics_samples(folder: Path, material: Material) -> None:
    profile = json.loads(profile_path(folder, "Finance").read_text())
    assert profile["client"]["organization"] == "Finance"
    host = "peer0.finance.guiyang.example"
    assert profile["organizations"] == {"Finance": {"mspid": "FinanceMSP", "peers": [host]}}
    peer = profile["peers"][host]
    assert peer["url"] == f"grpcs://localhost:{PORTS[host]}"
    assert peer["tlsCACerts"]["pem"].encode() == material.organization("Finance").tls_root_pem
    assert peer["grpcOptions"] == {"ssl-target-name-override": host, "hostnameOverride": host}
    assert set(profile["channels"]) == {"government", "finance"}
    assert set(profile["channels"]["finance"]["orderers"]) == set(profile["orderers"])


def test_the_client_reads_it(folder: Path) -> None:
    for part in TOPOLOGY.organizations:
        profile = Profile.load(profile_path(folder, part.name))
        assert profile.msp_id == part.msp_id


def test_no_private_key_is_in_a_profile(folder: Path) -> None:
    assert not any("PRIVATE" in path.read_text() for path in folder.iterdir())


def test_profiles_that_are_right_are_left_alone_and_others_are_written_anew(folder: Path, material: Material) -> None:
    finance, government = profile_path(folder, "Finance"), profile_path(folder, "Government")
    before = finance.stat().st_mtime_ns
    content = government.read_bytes()
    government.write_bytes(b"{}")
    write_profiles(Site(folder, TOPOLOGY, PORTS, {}), material, folder)
    assert finance.stat().st_mtime_ns == before
    assert government.read_bytes() == content


def test_all_nodes_of_the_organisations_are_in_a_profile(tmp_path: Path) -> None:
    document = TOPOLOGY.model_dump(mode="json")
    document["organizations"][1]["peers"] = 2
    document["ordering_organizations"][1]["nodes"] = 2
    topology = Topology.model_validate(document)
    several = Material.create(topology, tmp_path / "organizations", datetime.now(UTC))
    ports = allocate(service_names(topology), 20000, {})
    write_profiles(Site(tmp_path, topology, ports, {}), several, tmp_path / "connections")
    path = profile_path(tmp_path / "connections", "Finance")
    profile = json.loads(path.read_text())
    hosts = ["peer0.finance.guiyang.example", "peer1.finance.guiyang.example"]
    assert profile["organizations"]["Finance"]["peers"] == hosts
    assert list(profile["peers"]) == list(profile["channels"]["finance"]["peers"]) == hosts
    assert profile["peers"][hosts[1]]["url"] == f"grpcs://localhost:{ports[hosts[1]]}"
    assert profile["channels"]["finance"]["orderers"] == list(profile["orderers"])
    assert len(profile["orderers"]) == 4
    assert Profile.load(path).msp_id == "FinanceMSP"
