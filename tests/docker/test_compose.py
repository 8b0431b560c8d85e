"""The Compose file of a network: accepted by Compose, in the part of its language that versions 1 and 2 share."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerimages import docker_engine

from sovchain.network import NetworkError, Topology, default_topology
from sovchain.network.files import write_file
from sovchain.network.material import Material
from sovchain.network.ports import allocate
from sovchain.network.runtimes import Site, create_runtime
from sovchain.network.runtimes.chaincodes import served_by
from sovchain.network.runtimes.compose import ComposeFile, project_name
from sovchain.network.runtimes.docker_code import further_code
from sovchain.network.runtimes.docker_images import Images
from sovchain.network.runtimes.docker_monitoring import add_monitoring, metrics_root
from sovchain.network.runtimes.docker_services import Containers, chaincode_packages, node_service
from sovchain.network.topology import ChaincodeSpec

NOW = datetime(2026, 11, 1, tzinfo=UTC)
REFUSED_BY_ONE = {
    # docker-compose 1.29 knows none of these, Compose 2 complains of the first.
    "version", "name", "include", "attach", "develop", "start_interval", "required", "subpath", "create_host_path",
}  # fmt: skip


def filled(directory: Path, topology: Topology) -> ComposeFile:
    """The Compose file of a network whose certificates are all there."""
    runtime = create_runtime("docker")
    ports = allocate(runtime.services(topology), 21_000, {})
    site = Site(directory, topology, ports, runtime.endpoints(topology, ports))
    material = Material.create(topology, directory / "organizations", NOW)
    file = ComposeFile("10001:10001")
    containers = Containers(site, Images.choose(topology.fabric_version, {}), file, metrics_root(site, NOW))
    for organization in topology.organizations:
        chaincode_packages(site, organization, NOW)
        containers.add_chaincodes(organization, further_code(topology.chaincodes), served_by(topology, organization))
    for part in material.organizations.values():
        if part.organization.certificate_authority == "fabric-ca":
            containers.add_authority(part)
            continue  # its nodes have no certificates before the server has given them some
        for node in part.organization.all_nodes:
            containers.add_node(part, node)
    add_monitoring(file, site, material, containers.images)
    return file


def everything() -> Topology:
    """The default network with all that a topology may ask for besides."""
    topology = default_topology()
    organizations = list(topology.organizations)
    organizations[1] = organizations[1].model_copy(update={"certificate_authority": "fabric-ca"})
    return topology.model_copy(update={"state_database": "couchdb", "organizations": tuple(organizations)})


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from keys(entry)
    if isinstance(value, list):
        for entry in value:
            yield from keys(entry)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compose") / "a $dollar and a space"


@pytest.fixture(scope="module")
def file(directory: Path) -> ComposeFile:
    return filled(directory, everything())


def test_compose_accepts_it_and_reads_what_was_meant(directory: Path, file: ComposeFile) -> None:
    """Also where the path has a dollar sign, which Compose would replace."""
    engine = docker_engine()
    path = directory / "compose.yaml"
    write_file(path, file.text("head"))
    profiles = [word for name in ("ca", "couchdb", "monitoring") for word in ("--profile", name)]
    command = [*engine.compose, "-p", "x", "-f", str(path), *profiles, "config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)
    assert read["services"].keys() == file.services.keys()
    volumes = {entry["driver_opts"]["device"].replace("$$", "$") for entry in read["volumes"].values()}
    assert volumes == {str(folder) for folder in file.folders}
    test = read["services"]["peer0_government_guiyang_example"]["healthcheck"]["test"]
    assert "[[ $line == HTTP/* ]]" in test[-1].replace("$$", "$")


def test_it_keeps_to_what_both_versions_understand(file: ComposeFile) -> None:
    document = yaml.safe_load(file.text("head"))
    assert document.keys() == {"services", "networks", "volumes"}
    assert not set(keys(document)) & REFUSED_BY_ONE
    for service in document["services"].values():
        assert all(isinstance(entry, str) for entry in service.get("ports", []) + service.get("env_file", []))
        assert not isinstance(service.get("depends_on"), dict)


def test_databases_authorities_and_watchers_wait_for_their_profile(file: ComposeFile) -> None:
    profiles = {name: service.get("profiles") for name, service in file.services.items()}
    assert profiles["ca.Finance"] == ["ca"]
    assert profiles["couchdb.peer0_government_guiyang_example"] == ["couchdb"]
    assert profiles["prometheus"] == profiles["grafana"] == ["monitoring"]
    assert {name for name, chosen in profiles.items() if chosen is None and "_" not in name} == {
        f"chaincode.{organization.name}" for organization in default_topology().organizations
    }


def test_a_chaincode_that_comes_later_has_a_container_and_a_name_of_its_own(directory: Path) -> None:
    """Its name goes with its port, which stays when one container serves all: so the package stays the same."""
    topology = default_topology()
    runtime = create_runtime("docker")
    ports = allocate(runtime.services(topology), 22_000, {})
    site = Site(directory / "later", topology, ports, runtime.endpoints(topology, ports))
    organization = topology.organization("Government")
    packages = chaincode_packages(site, organization, NOW)
    file = ComposeFile("10001:10001")
    containers = Containers(site, Images.choose("3.1", {}), file, metrics_root(site, NOW))
    served = served_by(topology, organization)
    first = containers.add_chaincodes(organization, {}, served[:1])
    second = containers.add_chaincodes(organization, {}, served[1:], further=True)
    assert (first, second) == ("chaincode.Government", f"chaincode.Government.{served[1][0].label}")
    names = [file.services[name]["networks"]["nodes"]["aliases"] for name in (first, second)]
    assert names[1] == [f"{ports[port]}.chaincode.{organization.domain}" for _, port in served[1:]]
    assert not set(names[0]) & set(names[1])
    assert chaincode_packages(site, organization, NOW) == packages


def test_a_service_is_taken_out_with_its_volumes(directory: Path, file: ComposeFile) -> None:
    copy = filled(directory, everything())
    assert copy.remove("peer0_logistics_guiyang_example") == ["data.peer0_logistics_guiyang_example"]
    document = yaml.safe_load(copy.text("head"))
    assert file.services.keys() - document["services"].keys() == {"peer0_logistics_guiyang_example"}
    assert "data.peer0_logistics_guiyang_example" not in document["volumes"]


def test_every_image_has_a_full_version(file: ComposeFile) -> None:
    for service in file.services.values():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), service["image"]


def test_no_secret_is_in_the_file_or_readable_by_others(directory: Path, file: ComposeFile) -> None:
    text = file.text("head").decode()
    accounts = [*directory.rglob("account.env"), *directory.rglob("grafana.env")]
    assert len(accounts) == 5
    for path in accounts:
        assert path.read_text().strip().rpartition("=")[2] not in text
    for path in directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_peer_keeps_its_state_in_its_own_couchdb(directory: Path, file: ComposeFile) -> None:
    """With its own account; only the network's containers reach it."""
    host = "peer0.logistics.guiyang.example"
    config = yaml.safe_load((directory / f"nodes/{host}/config/core.yaml").read_text())
    state = config["ledger"]["state"]
    assert state["stateDatabase"] == "CouchDB"
    assert state["couchDBConfig"]["couchDBAddress"] == f"couchdb.{host}:5984"
    account = dict(line.split("=") for line in (directory / f"nodes/{host}/couchdb/account.env").read_text().split())
    assert state["couchDBConfig"]["username"] == account["COUCHDB_USER"]
    assert state["couchDBConfig"]["password"] == account["COUCHDB_PASSWORD"]
    service = file.services[f"couchdb.{node_service(host)}"]
    assert "ports" not in service
    assert service["networks"] == {"nodes": {"aliases": [f"couchdb.{host}"]}}


def test_projects_differ_by_directory_and_are_names() -> None:
    names = [project_name(Path(path)) for path in ("/a/network", "/b/network", "/a/Ne Tz_werk!", "/")]
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"sovchain-[a-z0-9-]+", name) for name in names)
    assert project_name(Path("/a/network")) == names[0]


def test_images_of_other_registries_are_named_in_the_environment() -> None:
    own = Images.choose("2.5", {"SOVCHAIN_IMAGE_PEER": "registry.city.example:5000/fabric/peer:2.5.16@sha256:ab"})
    assert own.peer == "registry.city.example:5000/fabric/peer:2.5.16@sha256:ab"
    assert own.orderer == "hyperledger/fabric-orderer:2.5.16"
    with pytest.raises(NetworkError, match="SOVCHAIN_IMAGE_CA holds it"):
        Images.choose("3.1", {"SOVCHAIN_IMAGE_CA": "no image; rm -rf"})


def test_code_that_is_in_no_image_is_taken_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rooms").mkdir()
    (tmp_path / "rooms/__init__.py").touch()
    (tmp_path / "rooms/bookings.py").touch()
    (tmp_path / "single.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))

    def spec(module: str) -> ChaincodeSpec:
        return ChaincodeSpec(name="c", module=module, channels=("a",), endorsement_policy="OR('AMSP.peer')")

    modules = (
        "rooms.bookings:x",
        "single:x",
        "sovchain.contracts.finance:x",
        "sovchain.testing.conformance.chaincode:x",
    )
    found = further_code(spec(module) for module in modules)
    assert found.pop("/opt/contracts/sovchain/testing").joinpath("conformance/chaincode.py").exists()
    assert found == {"/opt/contracts/rooms": tmp_path / "rooms", "/opt/contracts/single.py": tmp_path / "single.py"}
    with pytest.raises(NetworkError, match=r"there is no module nowhere\.at\.all"):
        further_code([spec("nowhere.at.all:x")])
