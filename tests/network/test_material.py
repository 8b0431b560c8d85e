"""The key material is what cryptogen would have made: its folders, its profiles, accepted by the MSP rules."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from fabricprograms import VERSIONS, fabric_programs

from sovchain.network import InstanceDamaged, UnknownName, default_topology
from sovchain.network.certificates import ATTRIBUTES_OID, names_of
from sovchain.network.errors import AuthorityExpired
from sovchain.network.material import AUTHORITY_DAYS, LEAF_DAYS, RENEW_WITHIN, Material, create_organization
from sovchain.network.material_layout import holders
from sovchain.network.topology import Topology
from sovchain.protocol.crypto import load_private_key, sign, verify
from sovchain.protocol.errors import InvalidIdentity
from sovchain.protocol.identity import parse_identity, serialize_identity
from sovchain.protocol.msp import Msp

TOPOLOGY = default_topology()
NOW = datetime.now(UTC)
HOLDERS = sum(len(holders(part)) for part in TOPOLOGY.everyone)
HALF_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551 // 2


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material.create(TOPOLOGY, tmp_path_factory.mktemp("material") / "organizations", NOW)


def certificates(root: Path) -> list[tuple[Path, x509.Certificate]]:
    found = [*root.rglob("*.pem"), *root.rglob("*.crt")]
    return [(path, x509.load_pem_x509_certificate(path.read_bytes())) for path in found]


def test_folders_and_files_are_named_as_cryptogen_names_them(material: Material) -> None:
    peer = "peerOrganizations/finance.guiyang.example"
    host = f"{peer}/peers/peer0.finance.guiyang.example"
    user = f"{peer}/users/User1@finance.guiyang.example"
    orderer = "ordererOrganizations/orderer.finance.guiyang.example"
    node = f"{orderer}/orderers/orderer.finance.guiyang.example"
    for name in (
        f"{peer}/ca/ca.finance.guiyang.example-cert.pem",
        f"{peer}/ca/priv_sk",
        f"{peer}/tlsca/tlsca.finance.guiyang.example-cert.pem",
        f"{peer}/tlsca/priv_sk",
        f"{peer}/msp/cacerts/ca.finance.guiyang.example-cert.pem",
        f"{peer}/msp/tlscacerts/tlsca.finance.guiyang.example-cert.pem",
        f"{peer}/msp/config.yaml",
        f"{host}/msp/signcerts/peer0.finance.guiyang.example-cert.pem",
        f"{host}/msp/keystore/priv_sk",
        f"{host}/msp/cacerts/ca.finance.guiyang.example-cert.pem",
        f"{host}/msp/config.yaml",
        f"{host}/tls/ca.crt",
        f"{host}/tls/server.crt",
        f"{host}/tls/server.key",
        f"{user}/msp/signcerts/User1@finance.guiyang.example-cert.pem",
        f"{user}/msp/keystore/priv_sk",
        f"{user}/tls/client.crt",
        f"{user}/tls/client.key",
        f"{peer}/users/Admin@finance.guiyang.example/msp/keystore/priv_sk",
        f"{orderer}/users/Admin@orderer.finance.guiyang.example/msp/keystore/priv_sk",
        f"{node}/msp/signcerts/orderer.finance.guiyang.example-cert.pem",
        f"{node}/tls/server.key",
    ):
        assert (material.root / name).is_file(), name
    assert (material.root / f"{host}/msp/admincerts").is_dir()


def test_everything_is_for_its_owner_only(material: Material) -> None:
    for path in [material.root, *material.root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_config_yaml_names_the_four_units(material: Material) -> None:
    for path in material.root.rglob("config.yaml"):
        units = yaml.safe_load(path.read_text())["NodeOUs"]
        assert units["Enable"] is True
        for role in ("client", "peer", "admin", "orderer"):
            entry = units[f"{role.capitalize()}OUIdentifier"]
            assert entry["OrganizationalUnitIdentifier"] == role
            assert (path.parent / entry["Certificate"]).is_file()


def test_every_key_belongs_to_the_certificate_beside_it(material: Material) -> None:
    pairs = [
        *((key.parent.parent / "signcerts", key) for key in material.root.rglob("keystore/priv_sk")),
        *((key.parent, key) for key in material.root.rglob("*ca/priv_sk")),
        *((key.with_suffix(".crt"), key) for key in material.root.rglob("*.key")),
    ]
    assert len(pairs) > 40
    for place, key in pairs:
        (certificate,) = [place] if place.is_file() else place.glob("*.pem")
        private = load_private_key(key.read_bytes())
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        assert isinstance(private.curve, ec.SECP256R1)
        public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert verify(public, b"message", sign(private, b"message"))


@pytest.mark.parametrize(
    ("organization", "user", "role"),
    [("Finance", "Admin", "admin"), ("Finance", "User1", "client"), ("OverseasCarrier", "User1", "client")],
)
def test_the_msp_accepts_users_in_their_roles(material: Material, organization: str, user: str, role: str) -> None:
    part = material.organization(organization)
    identity = parse_identity(serialize_identity(part.msp_id, part.user(user).certificate_pem))
    msp = Msp.from_config(part.msp_config)
    msp.validate(identity)
    assert msp.role(identity) == role
    expected = TOPOLOGY.organization(organization).user(user).attributes
    assert {name: identity.attributes[name] for name in expected} == dict(expected)
    assert identity.attributes["hf.EnrollmentID"] == user
    assert identity.attributes["hf.Type"] == role


@pytest.mark.parametrize(("organization", "role"), [("Supervisor", "peer"), ("SupervisorOrderer", "orderer")])
def test_the_msp_accepts_nodes_in_their_roles(material: Material, organization: str, role: str) -> None:
    part = material.organization(organization)
    identity = parse_identity(serialize_identity(part.msp_id, part.node().certificate_pem))
    msp = Msp.from_config(part.msp_config)
    msp.validate(identity)
    assert msp.role(identity) == role


def test_the_msp_refuses_another_organisation_and_a_tls_certificate(material: Material) -> None:
    finance, government = material.organization("Finance"), material.organization("Government")
    msp = Msp.from_config(finance.msp_config)
    for certificate in (government.user("User1").certificate_pem, finance.node().tls_certificate_pem):
        with pytest.raises(InvalidIdentity):
            msp.validate(parse_identity(serialize_identity(finance.msp_id, certificate)))


def test_certificates_have_the_profiles_of_cryptogen(material: Material) -> None:
    for path, certificate in certificates(material.root):
        extensions = {extension.oid: extension for extension in certificate.extensions}
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        authority = (
            "cacerts" in path.parts
            or "tlscacerts" in path.parts
            or path.parent.name in ("ca", "tlsca")
            or path.name == "ca.crt"
        )
        transport = path.suffix == ".crt" or "tls" in path.parent.name
        assert usage.critical, path
        assert constraints.critical, path
        assert constraints.value.ca == authority, path
        assert usage.value.digital_signature
        assert usage.value.key_cert_sign == authority
        assert usage.value.key_encipherment == (authority or transport)
        assert (x509.SubjectKeyIdentifier.oid in extensions) == authority
        assert (x509.AuthorityKeyIdentifier.oid in extensions) == (not authority)
        assert (x509.ExtendedKeyUsage.oid in extensions) == (authority or transport)
        assert (ATTRIBUTES_OID in extensions) == (not authority and not transport)
        assert certificate.not_valid_before_utc < NOW
        if not authority:
            assert certificate.not_valid_after_utc < NOW + timedelta(days=LEAF_DAYS)


def test_every_certificate_is_signed_with_low_s(material: Material) -> None:
    for path, certificate in certificates(material.root):
        assert decode_dss_signature(certificate.signature)[1] <= HALF_ORDER, path


def test_tls_certificates_of_nodes_name_host_and_loopback_and_those_of_users_nothing(material: Material) -> None:
    for path in material.root.rglob("server.crt"):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        host = path.parent.parent.name
        assert names.get_values_for_type(x509.DNSName) == [host, "localhost"]
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    for path in material.root.rglob("client.crt"):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        with pytest.raises(x509.ExtensionNotFound):
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_enrolment_and_tls_have_different_roots_with_different_names(material: Material) -> None:
    names = set()
    for part in material.organizations.values():
        for pem in (part.root_pem, part.tls_root_pem):
            certificate = x509.load_pem_x509_certificate(pem)
            names.add(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    assert len(names) == 2 * len(material.organizations)


def test_openssl_verifies_every_chain(material: Material) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("missing program: openssl: apt-get install openssl")
    checked = 0
    for part in material.organizations.values():
        enrolment = [str(path) for path in part.folder.rglob("signcerts/*.pem")]
        servers, clients = ([str(path) for path in part.folder.rglob(name)] for name in ("server.crt", "client.crt"))
        roots = (f"ca/ca.{part.organization.domain}-cert.pem", f"tlsca/tlsca.{part.organization.domain}-cert.pem")
        for root, purpose, files in (
            (roots[0], [], enrolment),
            (roots[1], ["-purpose", "sslserver", "-verify_hostname", "localhost"], servers),
            (roots[1], ["-purpose", "sslclient"], clients),
        ):
            command = [openssl, "verify", "-x509_strict", *purpose, "-CAfile", str(part.folder / root), *files]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            checked += done.stdout.count(": OK")
    assert checked == 2 * HOLDERS


def test_the_whole_tree_is_made_in_a_moment(tmp_path: Path) -> None:
    """150 ms is the share of the start that keys may take; the best of three leaves out what else the machine does."""
    taken = []
    for turn in range(3):
        started = time.process_time()
        Material.create(TOPOLOGY, tmp_path / f"{turn}", NOW)
        taken.append(time.process_time() - started)
    assert min(taken) < 0.15, taken


def test_an_existing_tree_is_kept(material: Material) -> None:
    before = {path: path.read_bytes() for path in material.root.rglob("*") if path.is_file()}
    again = Material.create(TOPOLOGY, material.root, NOW + timedelta(days=1))
    assert again.renew(NOW) == []
    assert {path: path.read_bytes() for path in material.root.rglob("*") if path.is_file()} == before


def test_an_interrupted_tree_leaves_nothing_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.open, [100]

    def failing(*arguments: object, **options: object) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(OSError, match="No space"):
        Material.create(TOPOLOGY, tmp_path / "organizations", NOW)
    assert not (tmp_path / "organizations").exists()


def test_certificates_that_end_soon_are_renewed_with_their_keys(tmp_path: Path) -> None:
    material = Material.create(TOPOLOGY, tmp_path / "organizations", NOW)
    finance = material.organization("Finance")
    before, node = finance.user("User1"), finance.node()
    later = NOW + timedelta(days=LEAF_DAYS) - RENEW_WITHIN + timedelta(days=1)
    renewed = Material(TOPOLOGY, material.root).renew(later)
    assert len(renewed) == HOLDERS
    after, node_after = finance.user("User1"), finance.node()
    assert after.private_key_pem == before.private_key_pem
    assert after.certificate_pem != before.certificate_pem
    assert node_after.tls_private_key_pem == node.tls_private_key_pem
    old, new = (x509.load_pem_x509_certificate(part.certificate_pem) for part in (before, after))
    assert new.not_valid_after_utc > later + RENEW_WITHIN
    assert (new.subject, new.public_key()) == (old.subject, old.public_key())
    identity = parse_identity(serialize_identity(finance.msp_id, after.certificate_pem))
    assert identity.attributes == parse_identity(serialize_identity(finance.msp_id, before.certificate_pem)).attributes
    Msp.from_config(finance.msp_config).validate(identity)
    assert Material(TOPOLOGY, material.root).renew(later) == []


def test_a_missing_key_and_a_spoiled_certificate_are_named(tmp_path: Path) -> None:
    material = Material.create(TOPOLOGY, tmp_path / "network/organizations", NOW)
    finance = material.organization("Finance")
    key = finance.user_msp("User1") / "keystore/priv_sk"
    key.unlink()
    with pytest.raises(InstanceDamaged) as caught:
        finance.user("User1")
    assert caught.value.path == key
    assert caught.value.directory == tmp_path / "network"
    certificate = next((finance.folder / "peers").rglob("signcerts/*.pem"))
    certificate.write_bytes(b"spoiled")
    with pytest.raises(InstanceDamaged) as caught:
        finance.renew(NOW)
    assert caught.value.path == certificate


def test_private_keys_are_left_out_of_reprs(material: Material) -> None:
    part = material.organization("Finance")
    assert "PRIVATE KEY" not in repr(part.user("User1")) + repr(part.node())
    key = load_private_key(part.user("User1").private_key_pem)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert text == part.user("User1").private_key_pem


def test_every_node_of_an_organisation_has_a_folder_and_keys_of_its_own(tmp_path: Path) -> None:
    document = TOPOLOGY.model_dump(mode="json")
    document["organizations"][1]["peers"] = 2
    document["ordering_organizations"][1]["nodes"] = 2
    topology = Topology.model_validate(document)
    several = Material.create(topology, tmp_path / "organizations", NOW)
    for name, kind in (("Finance", "peer"), ("FinanceOrderer", "orderer")):
        part = several.organization(name)
        first, second = part.nodes()
        assert part.node() == first
        assert first.private_key_pem != second.private_key_pem
        for node in (first, second):
            folder = part.node_folder(node.host)
            assert folder.parent.name == f"{kind}s"
            assert (folder / "tls/server.crt").read_bytes() == node.tls_certificate_pem
            names = x509.load_pem_x509_certificate(node.tls_certificate_pem).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
            assert names.value.get_values_for_type(x509.DNSName) == [node.host, "localhost"]
            identity = parse_identity(serialize_identity(part.msp_id, node.certificate_pem))
            assert Msp.from_config(part.msp_config).role(identity) == kind
        with pytest.raises(UnknownName, match=second.host):
            part.node("peer9.nowhere.example")
    later = NOW + timedelta(days=LEAF_DAYS)
    renewed = several.renew(later)
    assert {"peer1.finance.guiyang.example", "orderer1.orderer.finance.guiyang.example"} <= set(renewed)


def test_a_tree_of_one_organisation_is_what_the_tree_of_all_has_for_it(material: Material, tmp_path: Path) -> None:
    organization = TOPOLOGY.organization("Finance")
    host = organization.peer_host
    own = create_organization(organization, tmp_path / "organizations", NOW, {host: ["10.1.2.3", "peer.finance.cn"]})
    whole = material.organization("Finance")
    names = [{str(p.relative_to(part.folder)) for p in part.folder.rglob("*")} for part in (own, whole)]
    assert names[0] == names[1]
    assert [path.name for path in (tmp_path / "organizations").iterdir()] == ["peerOrganizations"]
    server = own.certificate(f"peers/{host}/tls/server.crt")
    assert names_of(server) == (host, "localhost", "127.0.0.1", "10.1.2.3", "peer.finance.cn")
    assert own.renew(NOW, only=[host]) == [host]
    assert names_of(own.certificate(f"peers/{host}/tls/server.crt")) == names_of(server)
    assert create_organization(organization, tmp_path / "organizations", NOW).root_pem == own.root_pem


def test_a_key_of_another_authority_is_found_before_anything_is_signed(tmp_path: Path) -> None:
    material = Material.create(TOPOLOGY, tmp_path / "network/organizations", NOW)
    finance, government = material.organization("Finance"), material.organization("Government")
    (finance.folder / "ca/priv_sk").write_bytes((government.folder / "ca/priv_sk").read_bytes())
    with pytest.raises(InstanceDamaged, match="not the key of") as caught:
        finance.renew(NOW, only=["User1"])
    assert caught.value.path == finance.folder / "ca/priv_sk"


def test_nothing_is_certified_by_a_root_that_has_ended(tmp_path: Path) -> None:
    material = Material.create(TOPOLOGY, tmp_path / "network/organizations", NOW)
    later = NOW + timedelta(days=AUTHORITY_DAYS + 1)
    with pytest.raises(AuthorityExpired, match="its root for identities ended at") as caught:
        material.organization("Finance").renew(later)
    assert caught.value.organization == "Finance"
    before = {path: path.read_bytes() for path in material.root.rglob("*") if path.is_file()}
    with pytest.raises(AuthorityExpired):
        material.renew(later)
    assert {path: path.read_bytes() for path in material.root.rglob("*") if path.is_file()} == before


CRYPTO_CONFIG = """
OrdererOrgs:
  - {Name: Orderer, Domain: orderer.finance.guiyang.example, EnableNodeOUs: true, Specs: [{Hostname: orderer}]}
PeerOrgs:
  - {Name: Finance, Domain: finance.guiyang.example, EnableNodeOUs: true, Template: {Count: 1}, Users: {Count: 1}}
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_cryptogen_makes_the_same_folders_and_profiles(version: str, material: Material, tmp_path: Path) -> None:
    """The genuine program, asked for the same organisation: same names, same extensions, criticality and usages."""
    program = fabric_programs(version).folder / "cryptogen"
    if not program.exists():
        pytest.skip("missing program: cryptogen: it comes with the release of hyperledger/fabric")
    (tmp_path / "crypto-config.yaml").write_text(CRYPTO_CONFIG)
    command = [program, "generate", "--config", tmp_path / "crypto-config.yaml", "--output", tmp_path / "theirs"]
    subprocess.run(command, check=True, capture_output=True)
    theirs = tmp_path / "theirs/peerOrganizations/finance.guiyang.example"
    ours = material.organization("Finance").folder

    def names(root: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*")}

    # Theirs puts the administrator's certificate in no admincerts with NodeOUs either.
    assert names(ours) == names(theirs)

    def profile(path: Path) -> object:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = [e.value for e in certificate.extensions if isinstance(e.value, x509.ExtendedKeyUsage)]
        names = [e.value.get_values_for_type(x509.DNSName) for e in certificate.extensions
                 if isinstance(e.value, x509.SubjectAlternativeName)]  # fmt: skip
        units = [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
        return (
            {(e.oid.dotted_string, e.critical) for e in certificate.extensions if e.oid != ATTRIBUTES_OID},
            (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign, usage.crl_sign),
            {oid.dotted_string for found in extended for oid in found},
            units,
            {name for found in names for name in found if name.endswith("example")},
        )

    compared = 0
    for path in theirs.rglob("*"):
        if path.suffix in (".pem", ".crt"):
            own = ours / path.relative_to(theirs)
            if path.name == "client.crt":
                continue  # theirs names the user as a host, with which it would pass for a server
            assert profile(own) == profile(path), path
            compared += 1
    assert compared > 15


def test_under_bft_the_certificates_that_channels_name_stay(tmp_path: Path) -> None:
    """Fabric compares a block's signers with the very certificates of the configuration, whatever their end."""
    bft = TOPOLOGY.model_copy(update={"consensus": "bft"})
    material = Material.create(bft, tmp_path / "organizations", NOW)
    orderer = material.organization("FinanceOrderer")
    before = orderer.node()
    renewed = material.renew(NOW + timedelta(days=LEAF_DAYS) - RENEW_WITHIN + timedelta(days=1))
    assert orderer.node().host in renewed
    after = orderer.node()
    assert after.certificate_pem == before.certificate_pem
    assert after.tls_certificate_pem != before.tls_certificate_pem
    assert after.tls_private_key_pem == before.tls_private_key_pem
    assert material.renew(NOW + timedelta(days=LEAF_DAYS) - RENEW_WITHIN + timedelta(days=1)) == []
