"""Revoked certificates are refused by the MSP rules, whichever of a user's certificates is shown."""

from __future__ import annotations

import asyncio
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from fabric_protos.common import configtx_pb2
from fabric_protos.msp import msp_config_pb2
from fabricprograms import VERSIONS, fabric_programs

from sovchain.network import InstanceDamaged, NetworkError, UnknownName, default_topology
from sovchain.network.genesis import channel_definition, loopback_endpoints
from sovchain.network.material import LEAF_DAYS, Material, OrganizationMaterial
from sovchain.network.material_revocation import is_revoked, put_revocation_lists, revoke
from sovchain.network.runtimes import Site
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.configupdate import compute_update, required_policies
from sovchain.protocol.errors import InvalidIdentity
from sovchain.protocol.genesis import genesis_block
from sovchain.protocol.identity import parse_identity, serialize_identity
from sovchain.protocol.msp import Msp

TOPOLOGY = default_topology()
NOW = datetime.now(UTC)


@pytest.fixture
def material(tmp_path: Path) -> Material:
    return Material.create(TOPOLOGY, tmp_path / "network/organizations", NOW)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "network", TOPOLOGY, {}, {})


def accepts(part: OrganizationMaterial, certificate_pem: bytes) -> bool:
    try:
        Msp.from_config(part.msp_config).validate(parse_identity(serialize_identity(part.msp_id, certificate_pem)))
    except InvalidIdentity as error:
        assert "revoked" in str(error)
        return False
    return True


async def test_a_revoked_user_is_refused_with_every_certificate_it_had(material: Material, site: Site) -> None:
    finance = material.organization("Finance")
    first = finance.user("User1").certificate_pem
    assert finance.renew(NOW + timedelta(days=1), only=["User1"]) == ["User1@finance.guiyang.example"]
    second = finance.user("User1").certificate_pem
    assert first != second
    revoked = await revoke(site, finance, "User1", NOW)
    assert revoked.newly
    assert len(revoked.serials) == 2
    assert [accepts(finance, pem) for pem in (first, second, finance.user("Admin").certificate_pem)] == [
        False,
        False,
        True,
    ]
    again = await revoke(site, finance, "User1@finance.guiyang.example", NOW + timedelta(days=2))
    assert (again.newly, again.crl_pem) == (False, revoked.crl_pem)


async def test_lists_grow_and_are_signed_by_the_authority_for_all_folders(material: Material, site: Site) -> None:
    finance = material.organization("Finance")
    numbers = []
    for name in ("User1", finance.organization.all_nodes[0].host):
        crl = x509.load_pem_x509_crl((await revoke(site, finance, name, NOW)).crl_pem)
        numbers.append(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
        root = finance.certificate("ca/ca.finance.guiyang.example-cert.pem")
        assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]  # an elliptic curve key
        key = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        aki = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        assert aki == key
        for folder in (finance.folder, *(finance.folder / holder.folder for holder in finance.holders)):
            (file,) = (folder / "msp/crls").iterdir()
            assert x509.load_pem_x509_crl(file.read_bytes()) == crl
            assert file.stat().st_mode & 0o777 == 0o600
    assert numbers == [1, 2]
    assert len(crl) == 2


async def test_a_revoked_user_is_not_renewed(material: Material, site: Site) -> None:
    finance = material.organization("Finance")
    await revoke(site, finance, "User1", NOW)
    assert is_revoked(finance, finance.holder("User1"))
    assert not is_revoked(finance, finance.holder("Admin"))
    with pytest.raises(NetworkError, match="its certificate is revoked"):
        finance.renew(NOW, only=["User1"])
    renewed = finance.renew(NOW + timedelta(days=LEAF_DAYS - 5))
    assert "Admin@finance.guiyang.example" in renewed
    assert "User1@finance.guiyang.example" not in renewed


async def test_a_channel_s_copy_changes_by_the_organisation_s_own_word(material: Material, site: Site) -> None:
    finance = material.organization("Finance")
    endpoints = loopback_endpoints(TOPOLOGY, {node.host: 7000 for node in TOPOLOGY.nodes})
    definition = channel_definition(TOPOLOGY, material, endpoints, "finance")
    bundle = ChannelBundle.from_block(genesis_block(definition, timestamp=NOW, nonce=b"n" * 24))
    await revoke(site, finance, "User1", NOW)
    updated = configtx_pb2.Config()
    updated.CopyFrom(bundle.config)
    put_revocation_lists(updated.channel_group, finance)
    update = compute_update("finance", bundle.config, updated)
    assert set(required_policies(update, bundle).values()) == {"/Channel/Application/FinanceMSP/Admins"}
    value = updated.channel_group.groups["Application"].groups["FinanceMSP"].values["MSP"].value
    config = msp_config_pb2.FabricMSPConfig.FromString(msp_config_pb2.MSPConfig.FromString(value).config)
    assert config == finance.msp_config
    # A new channel begins with what is revoked already.
    later = channel_definition(TOPOLOGY, material, endpoints, "finance")
    assert next(o for o in later.application if o.msp_id == "FinanceMSP").msp_config == config


async def test_who_has_no_key_revokes_nothing(material: Material, site: Site) -> None:
    finance = material.organization("Finance")
    with pytest.raises(UnknownName):
        await revoke(site, finance, "Nobody", NOW)
    (finance.folder / "tlsca/priv_sk").unlink()
    with pytest.raises(NetworkError, match="where Finance keeps its keys"):
        await revoke(site, finance, "User1", NOW)


async def test_a_spoiled_list_is_named(material: Material, site: Site) -> None:
    finance = material.organization("Finance")
    await revoke(site, finance, "User1", NOW)
    (file,) = (finance.folder / "msp/crls").iterdir()
    file.write_bytes(b"spoiled")
    with pytest.raises(InstanceDamaged) as caught:
        await revoke(site, finance, "Admin", NOW)
    assert caught.value.path == file


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_peer_program_takes_a_folder_with_a_list(
    version: str, material: Material, site: Site, tmp_path: Path
) -> None:
    """`peer` sets up its local MSP from a folder before it connects, and says so when it cannot."""
    programs = await asyncio.to_thread(fabric_programs, version)
    finance = material.organization("Finance")
    (tmp_path / "core.yaml").write_text("peer:\n  BCCSP: {Default: SW, SW: {Hash: SHA2, Security: 256}}\n")

    def peer(user: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "FABRIC_CFG_PATH": str(tmp_path),
            "CORE_PEER_LOCALMSPID": finance.msp_id,
            "CORE_PEER_MSPCONFIGPATH": str(finance.user_msp(user)),
            "CORE_PEER_ADDRESS": "127.0.0.1:1",
            "CORE_PEER_CLIENT_CONNTIMEOUT": "100ms",
        }
        command = [programs["peer"], "channel", "list"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False).stderr

    await revoke(site, finance, "User1", NOW)
    assert "failed to create new connection" in peer("Admin")
    (file,) = (finance.user_msp("Admin") / "crls").iterdir()
    file.write_bytes(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    assert "could not parse RevocationList" in peer("Admin")
