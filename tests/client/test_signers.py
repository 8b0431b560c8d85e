"""Who signs: local keys of every kind that Fabric takes, functions, and HSMs. Whatever they give, low s goes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakegateway import FakeGateway, LiveAuthority, profile_of
from softhsm import generate_in_hsm, softhsm_library

from sovchain.client import ExternalIdentity, Gateway, HsmError, IdentityError, SignatureRefused, SigningIdentity
from sovchain.client.hsm import HsmKey
from sovchain.protocol.crypto import sign, verify

KEYS: dict[str, Callable[[], Any]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": Ed25519PrivateKey.generate,
}


def certify(authority: LiveAuthority, key: Any) -> bytes:
    """A certificate of this key, in PEM."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "user")])
    builder = authority._builder(subject, key, authority.certificate.subject)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def high_s(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """A signature that Fabric refuses although it is mathematically good."""
    order = {256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551}[key.key_size]
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return utils.encode_dss_signature(r, max(s, order - s))


@pytest.mark.parametrize("kind", KEYS)
async def test_local_keys_of_every_kind_sign(authority: LiveAuthority, fake: FakeGateway, kind: str) -> None:
    key = KEYS[kind]()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    identity = SigningIdentity.from_pem("Org1MSP", certify(authority, key.public_key()), pem)
    async with Gateway.connect(profile_of(fake), identity) as gateway:
        proposal = gateway.network("ch").contract("basic").proposal("read", "a")
        await proposal.evaluate()
    signature = await identity.sign_async(proposal.message)
    assert verify(key.public_key(), proposal.message, signature)


@pytest.mark.parametrize("form", ["der", "raw", "high"])
async def test_a_function_may_give_der_raw_numbers_or_a_high_s(authority: LiveAuthority, form: str) -> None:
    """Of 200 signatures about half come with a high s; none goes out with one."""
    key = KEYS["P-256"]()

    async def service(message: bytes) -> bytes:
        if form == "high":
            return high_s(key, message)
        made = key.sign(message, ec.ECDSA(hashes.SHA256()))
        if form == "der":
            return made
        r, s = utils.decode_dss_signature(made)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    identity = ExternalIdentity("Org1MSP", certify(authority, key.public_key()), service)
    for number in range(200):
        message = b"m%d" % number
        assert verify(key.public_key(), message, await identity.sign_async(message))


async def test_a_plain_function_over_digests_is_taken_too(authority: LiveAuthority) -> None:
    key = KEYS["P-384"]()
    prehashed = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    identity = ExternalIdentity(
        "Org1MSP", certify(authority, key.public_key()), lambda digest: key.sign(digest, prehashed), digest=True
    )
    assert verify(key.public_key(), b"m", await identity.sign_async(b"m"))


async def test_digests_are_not_for_ed25519(authority: LiveAuthority) -> None:
    with pytest.raises(IdentityError, match="whole messages"):
        ExternalIdentity(
            "Org1MSP", certify(authority, KEYS["Ed25519"]().public_key()), lambda digest: digest, digest=True
        )


async def test_what_a_signer_gets_wrong_is_an_error_before_anything_is_sent(
    authority: LiveAuthority, fake: FakeGateway
) -> None:
    key, other = KEYS["P-256"](), KEYS["P-256"]()
    certificate = certify(authority, key.public_key())

    async def fails(message: bytes) -> bytes:
        raise ConnectionError("MARKER-of-the-key-service")

    async def hangs(message: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    for signer, timeout_s, words in (
        (lambda message: sign(other, message), 10.0, "certificate's key"),
        (lambda message: b"\x30\x01", 10.0, "cannot be read"),
        (lambda message: b"", 10.0, "cannot be read"),
        (fails, 10.0, "ConnectionError"),
        (hangs, 0.05, "within 0.05 s"),
    ):
        identity = ExternalIdentity("Org1MSP", certificate, signer, timeout_s=timeout_s)
        async with Gateway.connect(profile_of(fake), identity) as gateway:
            with pytest.raises(SignatureRefused, match=words) as caught:
                await gateway.network("ch").contract("basic").submit("make")
            assert "MARKER" not in str(caught.value)
    assert not any(fake.requests[method] for method in ("Evaluate", "Endorse", "Submit"))


@pytest.fixture
def softhsm() -> str:
    return softhsm_library()


@pytest.mark.parametrize(("curve", "count"), [("secp256r1", 300), ("secp384r1", 40)])
async def test_a_key_in_an_hsm_signs_with_low_s_always(
    authority: LiveAuthority, softhsm: str, fake: FakeGateway, curve: str, count: int
) -> None:
    """SoftHSM gives a high s every other time: without the correction one in 2**300 runs would pass."""
    public = await asyncio.to_thread(generate_in_hsm, softhsm, curve, curve)
    certificate = certify(authority, public)
    async with HsmKey.open(softhsm, token_label="city", pin="4711", key_label=curve) as key:
        identity = key.identity("Org1MSP", certificate)
        raw = [await key.sign(b"m%d" % number) for number in range(20)]
        assert {len(signature) for signature in raw} == {2 * (public.key_size // 8)}
        for number in range(count):
            message = b"m%d" % number
            assert verify(public, message, await identity.sign_async(message))
        async with Gateway.connect(profile_of(fake), identity) as gateway:
            done = await gateway.network("ch").contract("basic").submit("make", "a")
            assert done.result == b"done"
    async with HsmKey.open(softhsm, token_label="city", pin="4711", key_id=curve.encode()) as again:
        assert verify(public, b"m", await again.identity("Org1MSP", certificate).sign_async(b"m"))


async def test_hsm_errors_say_what_is_wrong_and_never_the_pin(softhsm: str) -> None:
    for arguments, words in (
        ({"token_label": "other", "pin": "4711", "key_label": "x"}, "token 'other'"),
        ({"token_label": "city", "pin": "999999", "key_label": "x"}, "the PIN"),
        ({"token_label": "city", "pin": "4711", "key_label": "nobody"}, "no such private key"),
        ({"token_label": "city", "pin": "4711"}, "label or its id"),
    ):
        with pytest.raises(HsmError, match=words) as caught:
            async with HsmKey.open(softhsm, **arguments):
                pass
        assert "999999" not in repr(caught.value)
    with pytest.raises(HsmError, match="cannot be opened"):
        async with HsmKey.open("/nowhere.so", token_label="city", pin="4711", key_label="x"):
            pass
