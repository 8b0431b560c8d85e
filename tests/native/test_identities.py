"""Certificates from a Fabric CA and from generated authorities on real peers: used, renewed, revoked, exported."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from commandline import Sovchain
from cryptography import x509
from fabricca import server_program
from fabricprograms import fabric_programs

from sovchain.client import Gateway
from sovchain.client.wallet import Wallet
from sovchain.network import default_topology
from sovchain.network.material import Material
from sovchain.network.topology import Topology

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 180
"""How long a command may take on a machine that does much else."""
WAYBILL = {
    "consignor": "Guiyang Tea", "consignee": "Zunyi Stores", "origin": "Guiyang", "destination": "Zunyi",
    "goods": "tea", "packages": 1, "weight_kg": 10,
}  # fmt: skip


def topology() -> Topology:
    """The default network; Logistics and one of the ordering organisations have a Fabric CA."""
    document = default_topology().model_dump(mode="json")
    document["organizations"][2]["certificate_authority"] = "fabric-ca"
    document["ordering_organizations"][1]["certificate_authority"] = "fabric-ca"
    for organization in document["organizations"]:
        organization["users"].append({**organization["users"][1], "name": "Leaver"})
    return Topology.model_validate(document)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sovchain]:
    fabric_programs("3.1")
    server_program()
    folder = tmp_path_factory.mktemp("identities")
    file = folder / "topology.yaml"
    file.write_text(topology().model_dump_json())
    sovchain = Sovchain(folder / "network")
    try:
        done = sovchain.run("up", "--detach", "--runtime", "native", "--topology", file, timeout_s=PATIENCE_S)
        assert done.code == 0, done.out + done.err
        yield sovchain
    finally:
        sovchain.down()


def ok(network: Sovchain, *arguments: str | Path) -> Any:
    """Run a command with --json, expect success, give the document."""
    done = network.run(*arguments, "--json", timeout_s=PATIENCE_S)
    assert done.code == 0, (arguments, done.out, done.err)
    return done.json


def seats(network: Sovchain, who: str) -> tuple[int, str]:
    done = network.run("evaluate", "logistics", "Registry:seats", "--as", who, timeout_s=PATIENCE_S)
    return done.code, done.err


def test_an_organisation_with_a_fabric_ca_transacts_on_real_peers(network: Sovchain) -> None:
    issued = ok(
        network,
        "submit",
        "logistics",
        "Waybills:issue",
        json.dumps({**WAYBILL, "number": "GY-00000001"}),
        "--as",
        "Logistics",
    )
    assert issued["block"] > 0
    seen = {(row["organization"], row["name"]): row for row in ok(network, "identity", "list")}
    assert seen["Logistics", "User1"]["issuer"] == "fabric-ca"
    assert seen["FinanceOrderer", "orderer.finance.guiyang.example"]["role"] == "orderer"
    material = Material(topology(), network.directory / "organizations").organization("Logistics")
    certificate = x509.load_pem_x509_certificate(material.user("User1").certificate_pem)
    extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")).value
    assert isinstance(extension, x509.UnrecognizedExtension)
    attributes = json.loads(extension.value)["attrs"]
    assert attributes == {
        "clearance": "important", "role": "operator", "hf.EnrollmentID": "User1", "hf.Type": "client",
        "hf.Affiliation": "",
    }  # fmt: skip
    secret = (material.folder / "authority/registrar").read_bytes()
    for path in network.directory.rglob("*"):
        if path.is_file() and "authorities" not in path.parts and path.name != "registrar":
            assert secret not in path.read_bytes(), path


@pytest.mark.parametrize("organization", [pytest.param("Government", marks=pytest.mark.long), "Logistics"])
def test_a_revoked_user_s_proposals_are_refused_and_others_are_not(network: Sovchain, organization: str) -> None:
    assert seats(network, f"{organization}/Leaver")[0] == 0
    done = ok(network, "identity", "revoke", "Leaver", "--org", organization, "--reason", "cessationofoperation")
    assert done["newly"]
    assert "logistics" in done["channels"]
    code, said = seats(network, f"{organization}/Leaver")
    assert code == 1
    assert "access denied" in said, said
    assert seats(network, f"{organization}/User1")[0] == 0
    again = ok(network, "identity", "revoke", "Leaver", "--org", organization)
    assert (again["newly"], again["channels"]) == (False, done["channels"])
    (row,) = (row for row in ok(network, "identity", "list", "--org", organization) if row["name"] == "Leaver")
    assert row["revoked"]
    refused = network.run("identity", "renew", "Leaver", "--org", organization)
    assert refused.code != 0
    assert "its certificate is revoked" in refused.err


@pytest.mark.parametrize("organization", ["Supervisor", "Logistics"])
def test_a_renewed_user_goes_on_with_its_key(network: Sovchain, organization: str) -> None:
    part = Material(topology(), network.directory / "organizations").organization(organization)
    before = part.user("User1")
    assert "User1" in ok(network, "identity", "renew", "User1", "--org", organization)["renewed"]
    after = part.user("User1")
    assert (after.private_key_pem, after.certificate_pem != before.certificate_pem) == (before.private_key_pem, True)
    assert seats(network, organization)[0] == 0


async def test_a_client_works_from_the_exported_folder_alone(network: Sovchain, tmp_path: Path) -> None:
    output = tmp_path / "client"
    done = ok(network, "network", "export", "--org", "Logistics", "--user", "User1", "--output", output)
    assert datetime.fromisoformat(done["ends_at"]) > datetime.now(UTC)
    async with Gateway.connect(output / "connection.json", Wallet.node(output / "wallet").get("User1")) as gateway:
        assert await gateway.network("logistics").contract("logistics").evaluate("Registry:seats")
    assert all(path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o600 for path in output.rglob("*"))
    keys = [path for path in output.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert keys == [output / "wallet/User1.id"]


def test_an_export_may_have_no_key_or_encrypted_ones(network: Sovchain, tmp_path: Path) -> None:
    public = tmp_path / "public.zip"
    ok(network, "network", "export", "--org", "Finance", "--output", public)
    with zipfile.ZipFile(public) as archive:
        assert set(archive.namelist()) == {"connection.json", "tls-roots.pem", "README.txt"}
        assert not any(b"PRIVATE KEY" in archive.read(name) for name in archive.namelist())
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    secret = tmp_path / "secret"
    ok(
        network,
        "network",
        "export",
        "--org",
        "Finance",
        "--user",
        "User1",
        "--output",
        secret,
        "--password-file",
        password,
    )
    assert Wallet.node(secret / "wallet", password=lambda: "correct horse").get("User1").msp_id == "FinanceMSP"
    again = network.run("network", "export", "--org", "Finance", "--output", secret)
    assert again.code != 0
    assert "it exists" in again.err


def test_unknown_names_and_reasons_are_said(network: Sovchain) -> None:
    for arguments, why in (
        (("identity", "revoke", "Nobody", "--org", "Finance"), "unknown node or user"),
        (("identity", "revoke", "User1", "--org", "Nobody"), "unknown organization"),
        (("identity", "revoke", "User1", "--org", "Finance", "--reason", "dislike"), "keycompromise"),
        (("network", "export", "--org", "Finance", "--user", "Nobody", "--output", "/nonexistent/x"), "unknown user"),
    ):
        done = network.run(*arguments)
        assert done.code != 0
        assert why in done.err, done.err


@pytest.mark.long
def test_a_fabric_ca_that_is_down_is_said_and_all_comes_up_again(network: Sovchain) -> None:
    before = {row["name"]: row["ends_at"] for row in ok(network, "identity", "list", "--org", "Logistics")}
    network.down()
    done = network.run("identity", "renew", "User1", "--org", "Logistics")
    assert done.code == 3
    assert "does not answer" in done.err
    done = network.run("identity", "list", "--org", "Logistics")
    assert done.code == 0
    assert network.run("up", "--detach", timeout_s=PATIENCE_S).code == 0
    assert {row["name"]: row["ends_at"] for row in ok(network, "identity", "list", "--org", "Logistics")} == before
    assert seats(network, "Logistics")[0] == 0
    # The node's own folder counts now too, and the channel's copy has stayed.
    assert seats(network, "Logistics/Leaver")[0] == 1
