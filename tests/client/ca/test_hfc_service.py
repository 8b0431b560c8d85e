"""hfc's CA service against the real server, beside the genuine package where it is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fabricca import Server, fabric_ca

from sovchain.client.ca import CaNotTrusted
from sovchain.client.hfc import CAService, CaServiceError, Enrollment, HfcError, ca_service
from sovchain.network.authorities import REGISTRAR

CALLS = Path(__file__).parents[2] / "support/hfc_ca_calls.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that also takes the tokens of Fabric CA 1.3, which are all that the genuine package can make."""
    folder = tmp_path_factory.mktemp("fabric-ca")
    with fabric_ca(folder, FABRIC_CA_SERVER_COMPATIBILITY_MODE_V1_3="true") as running:
        yield running


@pytest.fixture
def roots(server: Server, tmp_path: Path) -> Path:
    path = tmp_path / "tls-root.pem"
    path.write_bytes(server.tls_roots)
    return path


@pytest.fixture
def service(server: Server, roots: Path) -> CAService:
    return ca_service(server.url, ca_certs_path=roots)


def run_calls(python: str, module: str, task: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [python, str(CALLS), module, json.dumps(task)], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_its_calls_give_what_hfcs_callers_expect(server: Server, roots: Path) -> None:
    task = {"url": server.url, "roots": str(roots), "id": REGISTRAR, "secret": server.secret, "prefix": "ours"}
    seen = run_calls(sys.executable, "sovchain.client.hfc", task)
    assert (seen["secret"], seen["chosen"]) == (True, "ours-pw")
    assert (seen["cert_is_bytes"], seen["chain_is_bytes"], seen["new_key"]) == (True, True, True)
    assert seen["revoked"] == {"certificates": ["AKI", "Serial"], "crl": True}
    assert seen["one"] == {"success": True, "id": "ours-b", "errors": []}
    assert seen["missing"]["success"] is False
    assert seen["wrong"] == "ValueError"


def test_the_genuine_package_gives_the_same(server: Server, roots: Path) -> None:
    python = os.environ.get("SOVCHAIN_HFC_PYTHON")
    if not python:
        pytest.skip(
            "missing program: fabric-sdk-py 1.0.0: make an environment of Python 3.9 or 3.10,"
            ' pip install "fabric-sdk-py==1.0.0" "protobuf<3.21", and name its python in SOVCHAIN_HFC_PYTHON'
        )
    task = {"url": server.url, "roots": str(roots), "id": REGISTRAR, "secret": server.secret}
    theirs = run_calls(python, "hfc.fabric_ca.caservice", {**task, "prefix": "same"})
    ours = run_calls(sys.executable, "sovchain.client.hfc", {**task, "prefix": "mine"})
    changed = json.loads(json.dumps(theirs).replace("same", "mine"))
    assert ours == changed


def test_a_request_that_the_caller_made_is_certified_for_its_key(server: Server, service: CAService) -> None:
    admin = service.enroll(REGISTRAR, server.secret)
    secret = admin.register("own-key")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "own-key")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    enrolled = service.enroll("own-key", secret, csr=csr)
    assert enrolled.private_key is None
    assert x509.load_pem_x509_certificate(enrolled.cert).public_key() == key.public_key()
    with pytest.raises(HfcError, match="private_key"):
        service.reenroll(enrolled)
    enrolled.private_key = key
    assert service.reenroll(enrolled).cert != enrolled.cert


async def test_it_can_be_called_where_a_loop_is_running(server: Server, service: CAService) -> None:
    assert isinstance(service.enroll(REGISTRAR, server.secret), Enrollment)
    await asyncio.sleep(0)


def test_identities_affiliations_and_certificates_are_administered(server: Server, service: CAService) -> None:
    admin = service.enroll(REGISTRAR, server.secret)
    identities, affiliations = service.newIdentityService(), service.newAffiliationService()
    assert identities.create(admin, "clerk", "pw") == "pw"
    assert identities.update("clerk", admin, maxEnrollments=3)["result"]["max_enrollments"] == 3
    assert "clerk" in {one["id"] for one in identities.getAll(admin)["result"]["identities"]}
    assert affiliations.create(admin, "guiyang.tax", force=True)["success"]
    assert affiliations.getOne("guiyang.tax", admin)["result"]["name"] == "guiyang.tax"
    assert affiliations.update("guiyang.tax", admin, "guiyang.treasury")["success"]
    assert affiliations.getAll(admin)["success"]
    assert affiliations.delete("guiyang.treasury", admin)["success"]
    service.enroll("clerk", "pw")
    found = service.newCertificateService().getCertificates(admin, id="clerk", notrevoked=True)
    assert len(found["result"]["certs"]) == 1
    assert identities.delete("clerk", admin)["success"]


def test_secrets_go_nowhere_else(server: Server, tmp_path: Path) -> None:
    with pytest.raises(HfcError, match="https"):
        ca_service("http://ca.example:7054")
    with pytest.raises(HfcError, match="roots"):
        ca_service(server.url, ca_certs_path=tmp_path / "nowhere.pem")
    other = tmp_path / "other.pem"
    other.write_bytes(server.part.root_pem)
    with pytest.raises(CaNotTrusted) as untrusted:
        ca_service(server.url, ca_certs_path=other).enroll(REGISTRAR, "MARKER-secret")
    with pytest.raises(CaServiceError) as needed:
        ca_service(server.url).enroll("", "MARKER-secret")
    assert "MARKER" not in f"{untrusted.value!r}{needed.value!r}"
