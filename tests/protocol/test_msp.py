"""An MSP vouches for the identities that Fabric's would vouch for, and no other."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.msp import msp_principal_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from pki import Authority, pem

from sovchain.protocol.channelconfig import msp_config
from sovchain.protocol.crypto import low_s_certificate, verify
from sovchain.protocol.errors import ConfigError, InvalidIdentity, MalformedError
from sovchain.protocol.identity import ATTRIBUTES_OID, parse_identity, serialize_identity
from sovchain.protocol.msp import Msp, MspManager

ROOT = Authority("OrgMSP")
CLIENT = ROOT.issue("user1", "client")


def msp(**options: object) -> Msp:
    return Msp.from_config(msp_config("OrgMSP", [pem(ROOT.certificate)], **options))  # type: ignore[arg-type]  # test options


def role_principal(role: int, msp_id: str = "OrgMSP") -> msp_principal_pb2.MSPPrincipal:
    inner = msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=role)  # type: ignore[arg-type]  # plain numbers
    return msp_principal_pb2.MSPPrincipal(principal_classification=0, principal=inner.SerializeToString())


@pytest.mark.parametrize("role", ["client", "peer", "admin", "orderer"])
def test_the_node_unit_gives_the_role(role: str) -> None:
    identity = parse_identity(ROOT.issue("x", role).creator)
    assert msp().role(identity) == role
    names = {"member": 0, "admin": 1, "client": 2, "peer": 3, "orderer": 4}
    satisfied = {name for name, number in names.items() if msp().satisfies(identity, role_principal(number))}
    assert satisfied == {"member", role}
    assert not msp().satisfies(identity, role_principal(0, "OtherMSP"))


@pytest.mark.parametrize(
    ("units", "text"),
    [
        ((), "does not have an OU that resolves"),
        (("clerk",), "does not have an OU"),
        (("client", "peer"), "not a combination"),
    ],
)
def test_no_node_unit_or_two_is_no_identity(units: tuple[str, ...], text: str) -> None:
    with pytest.raises(InvalidIdentity, match=text):
        msp().validate(parse_identity(ROOT.issue("x", *units).creator))


def test_other_units_are_allowed_beside_the_node_unit() -> None:
    msp().validate(parse_identity(ROOT.issue("x", "client", "department1").creator))


def test_a_stranger_with_the_same_names_is_refused() -> None:
    with pytest.raises(InvalidIdentity, match="unknown authority"):
        msp().validate(parse_identity(Authority("OrgMSP").issue("user1", "client").creator))


def test_an_authority_is_no_identity() -> None:
    with pytest.raises(InvalidIdentity, match="Certificate Authority"):
        msp().validate(parse_identity(serialize_identity("OrgMSP", pem(ROOT.certificate))))


def test_a_root_with_an_intermediate_issues_no_identities() -> None:
    """core rule of msp/mspimpl.go: the issuer must be a leaf of the tree of authorities."""
    intermediate = Authority("OrgMSP", parent=ROOT)
    strict = msp(intermediates=[pem(intermediate.certificate)])
    strict.validate(parse_identity(intermediate.issue("user1", "client").creator))
    with pytest.raises(InvalidIdentity):
        strict.validate(parse_identity(CLIENT.creator))


def test_a_revoked_certificate_is_refused_and_only_that_one() -> None:
    other = ROOT.issue("user2", "client")
    revoking = msp(crls=[ROOT.revoke(other)])
    revoking.validate(parse_identity(CLIENT.creator))
    with pytest.raises(InvalidIdentity, match="revoked"):
        revoking.validate(parse_identity(other.creator))


def test_a_revocation_list_signed_by_somebody_else_revokes_nothing() -> None:
    forged = Authority("OrgMSP").revoke(CLIENT)
    msp(crls=[forged]).validate(parse_identity(CLIENT.creator))


def test_a_listed_administrator_needs_no_unit_when_units_are_off() -> None:
    admin = ROOT.issue("boss")
    listed = msp(admins=[pem(admin.certificate)], node_ous=False)
    assert listed.satisfies(parse_identity(admin.creator), role_principal(1))
    assert not listed.satisfies(parse_identity(CLIENT.creator), role_principal(1))


def test_identity_and_combined_principals() -> None:
    identity = parse_identity(CLIENT.creator)
    exact = msp_principal_pb2.MSPPrincipal(principal_classification=2, principal=CLIENT.creator)
    assert msp().satisfies(identity, exact)
    assert not msp().satisfies(parse_identity(ROOT.issue("other", "client").creator), exact)
    both = msp_principal_pb2.CombinedPrincipal(principals=[exact, role_principal(2)])
    neither = msp_principal_pb2.CombinedPrincipal(principals=[exact, role_principal(3)])
    for inner, expected in ((both, True), (neither, False), (msp_principal_pb2.CombinedPrincipal(), False)):
        combined = msp_principal_pb2.MSPPrincipal(principal_classification=4, principal=inner.SerializeToString())
        assert msp().satisfies(identity, combined) is expected


def test_attributes_come_from_the_extension_and_damaged_ones_are_none() -> None:
    for value, expected in (
        (json.dumps({"attrs": {"role": "analyst"}}).encode(), {"role": "analyst"}),
        (b"{", {}),
        (b'{"attrs": 3}', {}),
        (b"[]", {}),
    ):
        signer = ROOT.issue("x", "client", extension=x509.UnrecognizedExtension(ATTRIBUTES_OID, value))
        assert dict(parse_identity(signer.creator).attributes) == expected


def test_both_forms_of_a_certificate_signature_are_one_identity() -> None:
    """A certificate whose own signature is high-S is brought to low-S, so that it is not a second identity."""
    forms = {low_s_certificate(pem(ROOT.issue("x", "client").certificate)).signature for _ in range(8)}
    for signer in (ROOT.issue("x", "client") for _ in range(8)):
        fixed = low_s_certificate(pem(signer.certificate))
        fixed.verify_directly_issued_by(ROOT.certificate)
        assert (
            parse_identity(signer.creator).unique_id
            == parse_identity(serialize_identity("OrgMSP", pem(fixed))).unique_id
        )
    assert forms


def test_a_high_s_signature_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signature = CLIENT.sign(b"message")
    r, s = decode_dss_signature(signature)
    key = CLIENT.key.public_key()
    assert s <= order // 2
    assert verify(key, b"message", signature)
    assert not verify(key, b"message", encode_dss_signature(r, order - s))
    assert not verify(key, b"other", signature)
    assert not verify(key, b"message", b"\x30\x00")


def test_the_manager_refuses_unknown_organisations_and_rubbish() -> None:
    manager = MspManager([msp()])
    manager.validate(manager.deserialize(CLIENT.creator))
    with pytest.raises(InvalidIdentity, match="OtherMSP"):
        manager.deserialize(serialize_identity("OtherMSP", pem(CLIENT.certificate)))
    for rubbish in (
        b"",
        b"\xff" * 40,
        serialize_identity("OrgMSP", b"-----BEGIN"),
        serialize_identity("OrgMSP", b"x" * 70_000),
    ):
        with pytest.raises((InvalidIdentity, MalformedError)):
            manager.deserialize(rubbish)


def test_an_msp_without_usable_roots_is_a_configuration_error() -> None:
    for roots in ([], [pem(CLIENT.certificate)], [b"nothing"]):
        with pytest.raises(ConfigError):
            Msp.from_config(msp_config("OrgMSP", roots, node_ous=False))


_FLIPS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 7)), min_size=1, max_size=4)


@given(flips=_FLIPS, cut=st.none() | st.integers(0, 400))
@settings(max_examples=400, deadline=None)
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_damaged_certificate_is_malformed_or_invalid_and_nothing_else(
    flips: list[tuple[int, int]], cut: int | None
) -> None:
    """Names, keys and extensions are read long after the certificate; what cannot be read must be refused at once."""
    good = CLIENT.certificate.public_bytes(Encoding.DER)
    der = bytearray(good)
    for place, bit in flips:
        der[place % len(der)] ^= 1 << bit
    encoded = base64.encodebytes(bytes(der[:cut]))
    damaged = b"-----BEGIN CERTIFICATE-----\n" + encoded + b"-----END CERTIFICATE-----\n"
    try:
        identity = parse_identity(serialize_identity("OrgMSP", damaged))
    except MalformedError:
        return
    assert identity.client_id.startswith("x509::")
    assert identity.not_before
    assert identity.not_after
    assert identity.attributes is not None
    assert not identity.verify(b"message", b"signature")
    if bytes(der[:cut]) == good:
        msp().validate(identity)
    else:
        with pytest.raises(InvalidIdentity):
            msp().validate(identity)


def unit_principal(unit: str, certifiers: bytes) -> msp_principal_pb2.MSPPrincipal:
    inner = msp_principal_pb2.OrganizationUnit(
        msp_identifier="OrgMSP", organizational_unit_identifier=unit, certifiers_identifier=certifiers
    )
    return msp_principal_pb2.MSPPrincipal(principal_classification=1, principal=inner.SerializeToString())


def test_a_unit_counts_with_those_who_certified_it() -> None:
    """msp/mspimpl.go compares the certifiers' identifier; an empty one is no wildcard."""
    identity = parse_identity(ROOT.issue("x", "client", "department1").creator)
    certifiers = hashlib.sha256(low_s_certificate(pem(ROOT.certificate)).public_bytes(Encoding.DER)).digest()
    assert msp().satisfies(identity, unit_principal("department1", certifiers))
    assert not msp().satisfies(identity, unit_principal("department1", b""))
    assert not msp().satisfies(identity, unit_principal("department2", certifiers))


def test_whoever_is_named_is_enough_for_a_nominal_principal() -> None:
    """msp/mspimpl.go satisfiesPrincipalInternalV13 validates nothing for it."""
    for kind, wanted in ((0, True), (1, False)):
        inner = msp_principal_pb2.MSPIdentityAnonymity(anonymity_type=kind)  # type: ignore[arg-type]  # plain numbers
        principal = msp_principal_pb2.MSPPrincipal(principal_classification=3, principal=inner.SerializeToString())
        assert msp().satisfies(parse_identity(CLIENT.creator), principal) is wanted


def test_an_identity_of_nobody_s_authority_cannot_even_be_read() -> None:
    """msp/mspimpl.go sanitizeCert needs the issuer; so the identity counts as malformed, not as invalid."""
    stranger = Authority("OrgMSP").issue("user1", "client")
    with pytest.raises(InvalidIdentity, match="unknown authority"):
        MspManager([msp()]).deserialize(stranger.creator)


def test_an_authority_with_others_below_it_issues_no_identities() -> None:
    below = Authority("OrgMSP", parent=ROOT)
    config = msp_config("OrgMSP", [pem(ROOT.certificate)])
    config.intermediate_certs.append(pem(below.certificate))
    for role in ("client", "peer", "admin", "orderer"):
        getattr(config.fabric_node_ous, f"{role}_ou_identifier").certificate = pem(below.certificate)
    both = Msp.from_config(config)
    both.validate(parse_identity(below.issue("x", "client").creator))
    with pytest.raises(InvalidIdentity, match="Parent certificate should be a leaf"):
        both.validate(parse_identity(CLIENT.creator))
