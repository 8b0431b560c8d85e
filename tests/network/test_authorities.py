"""Fabric CA servers of a network: configured, started, used for every node and user, and clear about what is wrong."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from fabricca import free_ports, server_program

from sovchain.client.ca import CaAuthenticationFailed, CaError
from sovchain.network import InstanceDamaged, NodeFailed, ProgramsMissing, default_topology, material_enrolment
from sovchain.network.authorities import (
    PROGRAM,
    AuthorityPlace,
    AuthorityServers,
    authority_files,
    connect_authority,
    registrar_secret,
)
from sovchain.network.material import Material, OrganizationMaterial
from sovchain.network.material_revocation import is_revoked, revoke
from sovchain.network.ports import authority_ports
from sovchain.network.runtimes import Site
from sovchain.network.runtimes.programs import FOLDER_VARIABLE
from sovchain.network.topology import Topology
from sovchain.protocol.errors import InvalidIdentity
from sovchain.protocol.identity import parse_identity, serialize_identity
from sovchain.protocol.msp import Msp

NOW = datetime.now(UTC)


def topology() -> Topology:
    document = default_topology().model_dump(mode="json")
    document["organizations"][1]["certificate_authority"] = "fabric-ca"
    return Topology.model_validate(document)


def site_in(directory: Path) -> Site:
    names = [name for part in topology().everyone for name in authority_ports(part).values()]
    return Site(directory, topology(), dict(zip(names, free_ports(len(names)), strict=True)), {})


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Site, Material]]:
    """Finance's server, which answers."""
    await asyncio.to_thread(server_program)
    site = site_in(tmp_path / "network")
    material = Material.create(topology(), site.directory / "organizations", NOW)
    for folder in ("logs", "run"):
        (site.directory / folder).mkdir()
    servers = AuthorityServers()
    try:
        await servers.start(site, material)
        yield site, material
    finally:
        await servers.stop()


def accepts(part: OrganizationMaterial, name: str) -> str:
    """The role in which the organisation's MSP accepts a node or user; the reason why it does not."""
    certificate = part.read(part.holder(name).certificate_file)
    identity = parse_identity(serialize_identity(part.msp_id, certificate))
    msp = Msp.from_config(part.msp_config)
    try:
        msp.validate(identity)
    except InvalidIdentity as error:
        return str(error)
    return str(msp.role(identity))


async def test_every_node_and_user_is_enrolled_renewed_and_revoked(running: tuple[Site, Material]) -> None:
    site, material = running
    finance = material.organization("Finance")
    host = finance.organization.all_nodes[0].host
    assert not (finance.folder / "users").exists()
    done = await material_enrolment.complete(site, material)
    assert set(done) == {host, "Admin@finance.guiyang.example", "User1@finance.guiyang.example"}
    assert [accepts(finance, name) for name in (host, "Admin", "User1")] == ["peer", "admin", "client"]
    generated = material.organization("Logistics")
    domains = (finance.organization.domain, generated.organization.domain)

    def names(part: OrganizationMaterial) -> set[str]:
        kept = {path for path in part.folder.rglob("*") if "authority" not in path.parts}
        return {str(path.relative_to(part.folder)).replace(part.organization.domain, "DOMAIN") for path in kept}

    assert len(set(domains)) == 2
    assert names(finance) == names(generated)

    # A start that was interrupted goes on, and one that was not changes nothing.
    assert await material_enrolment.complete(site, material) == []
    shutil.rmtree(finance.folder / "users/User1@finance.guiyang.example")
    assert await material_enrolment.complete(site, material) == ["User1@finance.guiyang.example"]

    before = finance.node()
    assert await material_enrolment.renew(site, material, NOW) == []
    renewed = await material_enrolment.renew(site, material, NOW + timedelta(days=350))
    assert set(renewed) == set(done)
    after = finance.node()
    assert after.private_key_pem == before.private_key_pem
    assert after.tls_private_key_pem == before.tls_private_key_pem
    assert after.certificate_pem != before.certificate_pem
    assert accepts(finance, host) == "peer"

    revoked = await revoke(site, finance, "User1", NOW)
    assert len(revoked.serials) == 2
    # Another list of the same would be another change of every channel.
    again = await revoke(site, finance, "User1", NOW)
    assert (again.newly, again.crl_pem) == (False, revoked.crl_pem)
    assert is_revoked(finance, finance.holder("User1"))
    assert "revoked" in accepts(finance, "User1")
    assert accepts(finance, "Admin") == "admin"
    shutil.rmtree(finance.folder / "users/User1@finance.guiyang.example")
    with pytest.raises(CaAuthenticationFailed):
        await material_enrolment.complete(site, material)


async def test_a_server_started_again_knows_whom_it_knew(running: tuple[Site, Material]) -> None:
    site, material = running
    await material_enrolment.complete(site, material)
    servers = AuthorityServers()
    other = Site(site.directory, site.topology, site_in(site.directory).ports, {})
    try:
        # Another server on the same home, as after a kill.
        await servers.start(other, material)
        async with connect_authority(other, material.organization("Finance")) as authority:
            registrar = authority.registrar(
                await authority.enroll("registrar", registrar_secret(material.organization("Finance")))
            )
            assert "User1" in {identity.enrollment_id for identity in await registrar.identities()}
    finally:
        await servers.stop()


async def test_an_expired_root_is_said_by_name(tmp_path: Path) -> None:
    await asyncio.to_thread(server_program)
    site = site_in(tmp_path / "network")
    material = Material.create(topology(), site.directory / "organizations", NOW - timedelta(days=5000))
    for folder in ("logs", "run"):
        (site.directory / folder).mkdir()
    servers = AuthorityServers()
    try:
        with pytest.raises(NodeFailed, match="expired") as caught:
            await servers.start(site, material)
        assert caught.value.host == "ca.finance.guiyang.example"
        assert caught.value.log.exists()
    finally:
        await servers.stop()


async def test_a_key_of_another_root_is_said_by_name(tmp_path: Path) -> None:
    await asyncio.to_thread(server_program)
    site = site_in(tmp_path / "network")
    material = Material.create(topology(), site.directory / "organizations", NOW)
    for folder in ("logs", "run"):
        (site.directory / folder).mkdir()
    finance, government = material.organization("Finance"), material.organization("Government")
    (finance.folder / "ca/priv_sk").write_bytes((government.folder / "ca/priv_sk").read_bytes())
    servers = AuthorityServers()
    try:
        with pytest.raises((NodeFailed, InstanceDamaged)):
            await servers.start(site, material)
    finally:
        await servers.stop()


async def test_a_server_that_is_down_is_a_typed_error(tmp_path: Path) -> None:
    site = site_in(tmp_path / "network")
    material = Material.create(topology(), site.directory / "organizations", NOW)
    with pytest.raises(CaError, match="does not answer") as caught:
        await material_enrolment.complete(site, material)
    assert registrar_secret(material.organization("Finance")) not in str(caught.value)
    (material.organization("Finance").folder / "authority/registrar").unlink()
    with pytest.raises(InstanceDamaged, match="registrar"):
        await material_enrolment.complete(site, material)


async def test_a_missing_program_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sovchain.network.runtimes.programs.CACHE", tmp_path / "cache")
    site = site_in(tmp_path / "network")
    material = Material.create(topology(), site.directory / "organizations", NOW)
    with pytest.raises(ProgramsMissing, match="Fabric CA") as caught:
        await AuthorityServers().start(site, material)
    assert str(tmp_path) in caught.value.why
    assert "hyperledger/fabric-ca" in caught.value.remedy
    assert "certificate_authority" in caught.value.remedy


def test_the_configuration_is_for_any_place_and_has_tls_and_no_bootstrap_on_the_command_line() -> None:
    place = AuthorityPlace("0.0.0.0", 7054, 9443, "/organization", "/home")
    files = {name: yaml.safe_load(text) for name, text in authority_files("x.example", "s3cret", place).items()}
    server, tls = (files[name] for name in ("fabric-ca-server-config.yaml", "tlsca/fabric-ca-server-config.yaml"))
    assert server["tls"]["enabled"] is server["operations"]["tls"]["enabled"] is True
    assert server["cafiles"] == ["/home/tlsca/fabric-ca-server-config.yaml"]
    assert server["ca"]["keyfile"] == "/organization/ca/priv_sk"
    assert tls["ca"] == {
        "name": "tlsca.x.example",
        "keyfile": "/organization/tlsca/priv_sk",
        "certfile": "/organization/tlsca/tlsca.x.example-cert.pem",
        "chainfile": "/organization/tlsca/tlsca.x.example-cert.pem",
    }
    assert server["signing"]["profiles"] == {}
    assert "server auth" not in server["signing"]["default"]["usage"]
    assert "server auth" in tls["signing"]["profiles"]["tls"]["usage"]
    assert PROGRAM == "fabric-ca-server"
