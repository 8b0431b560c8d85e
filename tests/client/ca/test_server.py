"""The Fabric CA client against the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fabricca import Server, fabric_ca, launch
from softhsm import PIN, TOKEN, generate_in_hsm, softhsm_library

from sovchain.client.ca import (
    Attribute,
    CaAlreadyThere,
    CaAuthenticationFailed,
    CaCode,
    CaError,
    CaNotAllowed,
    CaNotFound,
    CaNotTrusted,
    CaRefused,
    CaRequestError,
    CertificateAuthority,
    CertificateQuery,
    Enrollment,
    Registrar,
)
from sovchain.client.hsm import HsmKey
from sovchain.client.identity import SigningIdentity
from sovchain.network.authorities import REGISTRAR
from sovchain.network.certificates import CertificateAuthority as Root
from sovchain.network.certificates import Validity
from sovchain.protocol.identity import parse_identity, serialize_identity
from sovchain.protocol.msp import Msp


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with fabric_ca(tmp_path_factory.mktemp("fabric-ca")) as running:
        yield running


@pytest.fixture
async def ca(server: Server) -> AsyncIterator[CertificateAuthority]:
    async with CertificateAuthority.connect(server.url, tls_roots=server.tls_roots) as authority:
        yield authority


@pytest.fixture
async def registrar(ca: CertificateAuthority, server: Server) -> Registrar:
    return ca.registrar(await ca.enroll(REGISTRAR, server.secret))


async def new(ca: CertificateAuthority, registrar: Registrar, name: str, **options: object) -> Enrollment:
    return await ca.enroll(name, await registrar.register(name, **options))  # type: ignore[arg-type]  # passed through


def units(certificate: x509.Certificate) -> list[str]:
    return [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]


async def test_it_tells_name_chain_and_version(ca: CertificateAuthority, server: Server) -> None:
    info = await ca.info()
    assert info.name == "ca.finance.example"
    assert info.version.startswith("v1.5.")
    assert x509.load_pem_x509_certificate(info.chain_pem) == x509.load_pem_x509_certificate(server.part.root_pem)


async def test_an_enrolled_identity_is_a_member_with_its_role_and_attributes(
    ca: CertificateAuthority, registrar: Registrar, server: Server
) -> None:
    claims = [Attribute("clearance", "core", True), Attribute("salary", "1", False)]
    for role in ("client", "admin", "peer", "orderer"):
        enrolled = await new(ca, registrar, f"member-{role}", type=role, attributes=claims)
        identity = parse_identity(serialize_identity("FinanceMSP", enrolled.certificate_pem))
        msp = Msp.from_config(server.part.msp_config)
        msp.validate(identity)
        assert msp.role(identity) == role
        assert units(enrolled.certificate) == [role]
        expected = {"hf.EnrollmentID": f"member-{role}", "hf.Type": role, "hf.Affiliation": "", "clearance": "core"}
        assert identity.attributes == expected
        assert isinstance(enrolled.identity("FinanceMSP"), SigningIdentity)


async def test_attributes_are_those_that_were_asked_for(ca: CertificateAuthority, registrar: Registrar) -> None:
    claims = [Attribute("clearance", "core", True), Attribute("salary", "1", False)]
    secret = await registrar.register("chooser", attributes=claims)
    enrolled = await ca.enroll("chooser", secret, attributes={"salary": False, "absent": True})
    extension = enrolled.certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")).value
    assert isinstance(extension, x509.UnrecognizedExtension)
    assert json.loads(extension.value) == {"attrs": {"salary": "1"}}
    with pytest.raises(CaRefused, match="absent"):
        await ca.enroll("chooser", secret, attributes=["absent"])


async def test_the_tls_authority_certifies_host_names(server: Server) -> None:
    async with CertificateAuthority.connect(
        server.url, name="tlsca.finance.example", tls_roots=server.tls_roots
    ) as tls:
        registrar = tls.registrar(await tls.enroll(REGISTRAR, server.secret))
        secret = await registrar.register("peer0.finance.example", type="peer")
        hosts = ["peer0.finance.example", "localhost", "127.0.0.1"]
        enrolled = await tls.enroll("peer0.finance.example", secret, profile="tls", hosts=hosts)
        names = enrolled.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(name.value) for name in names] == hosts
        enrolled.certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(server.tls_roots))


async def test_re_enrolling_gives_a_new_certificate_for_a_new_or_the_same_key(
    ca: CertificateAuthority, registrar: Registrar
) -> None:
    first = await new(ca, registrar, "again")
    second = await ca.reenroll(first)
    third = await ca.reenroll(second, key=second.key)
    assert first.certificate.public_key() != second.certificate.public_key()
    assert second.certificate.public_key() == third.certificate.public_key()
    assert len({found.certificate.serial_number for found in (first, second, third)}) == 3
    assert await ca.renew(third) is third
    assert await ca.renew(third, within=timedelta(days=400)) is not third


async def test_p_384_keys_are_certified(ca: CertificateAuthority, registrar: Registrar) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    enrolled = await ca.enroll("wide", await registrar.register("wide"), key=key)
    assert (await ca.reenroll(enrolled)).certificate.subject == enrolled.certificate.subject


async def test_a_revoked_certificate_is_on_the_list_and_asks_for_nothing_more(
    ca: CertificateAuthority, registrar: Registrar, server: Server
) -> None:
    gone, kept = await new(ca, registrar, "gone"), await new(ca, registrar, "kept")
    revoked = await registrar.revoke_certificate(gone.certificate_pem, reason="keycompromise", with_crl=True)
    serial = gone.certificate.serial_number
    assert [int(found, 16) for _, found in revoked.certificates] == [serial]
    for pem in (revoked.crl_pem, await registrar.crl()):
        assert pem is not None
        crl = x509.load_pem_x509_crl(pem)
        assert crl.get_revoked_certificate_by_serial_number(serial) is not None
        assert crl.get_revoked_certificate_by_serial_number(kept.certificate.serial_number) is None
    assert revoked.crl_pem is not None
    config = server.part.msp_config
    config.revocation_list.append(revoked.crl_pem)
    msp = Msp.from_config(config)
    msp.validate(parse_identity(serialize_identity("FinanceMSP", kept.certificate_pem)))
    with pytest.raises(Exception, match="revoked"):
        msp.validate(parse_identity(serialize_identity("FinanceMSP", gone.certificate_pem)))
    with pytest.raises(CaAuthenticationFailed):
        await ca.reenroll(gone)
    with pytest.raises(CaAlreadyThere) as caught:
        await registrar.revoke_certificate(gone.certificate_pem)
    assert caught.value.code == CaCode.CERT_ALREADY_REVOKED


async def test_a_revoked_identity_cannot_enrol_again(ca: CertificateAuthority, registrar: Registrar) -> None:
    secret = await registrar.register("leaver")
    await ca.enroll("leaver", secret)
    assert len((await registrar.revoke("leaver", reason="cessationofoperation")).certificates) == 1
    with pytest.raises(CaAuthenticationFailed):
        await ca.enroll("leaver", secret)


async def test_certificates_are_listed_by_identity_and_state(ca: CertificateAuthority, registrar: Registrar) -> None:
    first = await new(ca, registrar, "listed")
    second = await ca.reenroll(first)
    await registrar.revoke_certificate(first.certificate_pem)
    everything = await registrar.certificates(CertificateQuery("listed"))
    assert {x509.load_pem_x509_certificate(pem).serial_number for pem in everything} == {
        first.certificate.serial_number,
        second.certificate.serial_number,
    }
    valid = await registrar.certificates(CertificateQuery("listed", not_revoked=True, not_expired=True))
    assert [x509.load_pem_x509_certificate(pem) for pem in valid] == [second.certificate]
    now = datetime.now(UTC)
    lately = CertificateQuery("listed", revoked=(now - timedelta(hours=1), now + timedelta(hours=1)))
    assert [x509.load_pem_x509_certificate(pem) for pem in await registrar.certificates(lately)] == [first.certificate]


async def test_identities_are_added_modified_listed_and_removed(ca: CertificateAuthority, registrar: Registrar) -> None:
    secret = await registrar.add_identity("odd name+1@x", attributes=[Attribute("a", "1", True)], max_enrollments=3)
    found = await registrar.identity("odd name+1@x")
    assert (found.type, found.max_enrollments, found.attribute("a")) == ("client", 3, "1")
    changed = await registrar.modify_identity("odd name+1@x", attributes=[Attribute("a", "2", True)], secret="other")
    assert changed.attribute("a") == "2"
    with pytest.raises(CaAuthenticationFailed):
        await ca.enroll("odd name+1@x", secret)
    await ca.enroll("odd name+1@x", "other")
    assert "odd name+1@x" in {identity.enrollment_id for identity in await registrar.identities()}
    assert (await registrar.remove_identity("odd name+1@x")).enrollment_id == "odd name+1@x"
    with pytest.raises(CaNotFound):
        await registrar.identity("odd name+1@x")


async def test_affiliations_are_a_tree_that_identities_belong_to(
    ca: CertificateAuthority, registrar: Registrar
) -> None:
    await registrar.add_affiliation("guiyang.finance.audit", force=True)
    with pytest.raises(CaAlreadyThere):
        await registrar.add_affiliation("guiyang.finance")
    assert "guiyang.finance.audit" in (await registrar.affiliations()).names()
    enrolled = await new(ca, registrar, "auditor", affiliation="guiyang.finance.audit")
    assert set(units(enrolled.certificate)) == {"client", "guiyang", "finance", "audit"}
    moved = await registrar.modify_affiliation("guiyang.finance", "guiyang.treasury", force=True)
    assert "auditor" in {found.enrollment_id for found in (await registrar.identities())}
    assert "guiyang.treasury" in moved.names()
    await registrar.remove_affiliation("guiyang.treasury.audit", force=True)
    assert (await registrar.affiliation("guiyang")).names() == ["guiyang", "guiyang.treasury"]
    with pytest.raises(CaNotFound):
        await registrar.affiliation("guiyang.nowhere")


async def test_an_unknown_affiliation_and_a_second_registration_are_refused(registrar: Registrar) -> None:
    with pytest.raises(CaNotAllowed, match="affiliation that exists") as caught:
        await registrar.register("nobody", affiliation="atlantis")
    # The server does not tell what there is.
    assert (caught.value.status, caught.value.code) == (403, CaCode.AUTHORIZATION_FAILURE)
    await registrar.register("twice")
    with pytest.raises(CaAlreadyThere) as again:
        await registrar.register("twice")
    assert again.value.code == CaCode.DUP_IDENTITY_REG


async def test_who_is_no_registrar_may_not_register_revoke_or_list(
    ca: CertificateAuthority, registrar: Registrar
) -> None:
    plain = ca.registrar(await new(ca, registrar, "plain"))
    for attempt in (
        plain.register("friend"), plain.revoke("registrar"), plain.crl(), plain.identities(), plain.affiliations(),
        plain.certificates(),
    ):  # fmt: skip
        with pytest.raises(CaNotAllowed) as caught:
            await attempt
        assert caught.value.code == CaCode.AUTHORIZATION_FAILURE


async def test_a_wrong_secret_is_refused_and_ten_close_the_identity(
    ca: CertificateAuthority, registrar: Registrar
) -> None:
    secret = await registrar.register("forgetful")
    for _ in range(10):
        with pytest.raises(CaAuthenticationFailed) as caught:
            await ca.enroll("forgetful", "MARKER-wrong")
        assert caught.value.code == CaCode.AUTHENTICATION_FAILURE
        assert "MARKER" not in f"{caught.value!r} {caught.value}"
    with pytest.raises(CaAuthenticationFailed) as locked:
        await ca.enroll("forgetful", secret)
    assert locked.value.code == CaCode.PASSWORD_ATTEMPTS
    assert "new secret" in locked.value.remedy


async def test_a_certificate_of_another_authority_asks_for_nothing(ca: CertificateAuthority) -> None:
    now = datetime.now(UTC)
    other = Root.create("ca.finance.example", "finance.example", "CN", Validity.starting(now, days=10))
    forged = other.enroll(REGISTRAR, "client", "CN", Validity.starting(now, days=1), {})
    identity = SigningIdentity.from_pem("FinanceMSP", forged.certificate_pem, forged.private_key_pem)
    with pytest.raises(CaAuthenticationFailed):
        await ca.registrar(identity).identities()


async def test_an_unknown_authority_of_the_server_is_named(server: Server) -> None:
    async with CertificateAuthority.connect(server.url, name="nowhere", tls_roots=server.tls_roots) as other:
        with pytest.raises(CaNotFound) as caught:
            await other.info()
    assert caught.value.code == CaCode.CA_NOT_FOUND


async def test_a_wrong_root_and_a_wrong_name_are_not_trusted(server: Server) -> None:
    for url, roots in (
        (server.url, server.part.root_pem),
        (server.url.replace("localhost", "127.0.0.2"), server.tls_roots),
    ):
        async with CertificateAuthority.connect(url, tls_roots=roots) as authority:
            with pytest.raises(CaError) as caught:
                await authority.enroll(REGISTRAR, server.secret)
        if "localhost" in url:
            assert isinstance(caught.value, CaNotTrusted)
        assert server.secret not in str(caught.value)


def test_a_server_whose_root_has_expired_does_not_start(tmp_path: Path) -> None:
    server = launch(tmp_path, datetime.now(UTC) - timedelta(days=4000))
    assert server.process.wait(20) != 0
    assert "expired" in (server.home / "log").read_text()


async def test_the_secret_and_the_keys_stay_out_of_reprs(ca: CertificateAuthority, registrar: Registrar) -> None:
    enrolled = await new(ca, registrar, "quiet")
    assert "PRIVATE" not in repr(enrolled)
    assert "BEGIN" not in repr(enrolled)


async def test_what_cannot_be_asked_is_said_before_anything_is_sent(ca: CertificateAuthority) -> None:
    for attempt in (
        ca.enroll("a:b", "x"), ca.enroll("", "x"), ca.enroll("x" * 65, "x"), ca.enroll("x", "x", hosts=["bäd host"]),
    ):  # fmt: skip
        with pytest.raises(CaRequestError) as caught:
            await attempt
        assert caught.value.field in ("enrollment_id", "hosts")
    for url, roots in (("http://localhost:1", b"x"), ("https://localhost:1", b""), ("localhost:1", b"x")):
        with pytest.raises(CaRequestError):
            async with CertificateAuthority.connect(url, tls_roots=roots):
                pass
    with pytest.raises(CaRequestError, match="tls_roots"):
        async with CertificateAuthority.connect("https://localhost:1", tls_roots=b"no certificate"):
            pass


async def test_a_key_in_an_hsm_is_enrolled_and_renewed_without_leaving_it(
    ca: CertificateAuthority, registrar: Registrar, server: Server
) -> None:
    """The request is signed in the HSM, and so is the token by which the next certificate is asked for."""
    library = softhsm_library()
    await asyncio.to_thread(generate_in_hsm, library, "enrolled", "secp256r1")
    secret = await registrar.register("keeper", attributes=[Attribute("hf.Registrar.Roles", "client")])
    async with HsmKey.open(library, token_label=TOKEN, pin=PIN, key_label="enrolled") as key:
        request = await key.signing_request("keeper", hosts=["keeper.finance.example"])
        first = await ca.certify(request, secret)
        identity = key.identity("FinanceMSP", first.certificate_pem)
        Msp.from_config(server.part.msp_config).validate(parse_identity(identity.creator))
        second = await ca.certify(request, identity)
        assert second.certificate.serial_number != first.certificate.serial_number
        assert second.certificate.public_key() == first.certificate.public_key() == identity.public_key
        renewed = key.identity("FinanceMSP", second.certificate_pem)
        assert await ca.registrar(renewed).register("kept-by-hsm")
        with pytest.raises(CaAuthenticationFailed):
            await ca.certify(request, "wrong")
        with pytest.raises(CaRequestError):
            await ca.certify(first.certificate_pem, secret)
        with pytest.raises(CaRequestError):
            await key.signing_request("")
