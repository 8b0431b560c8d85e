"""Connecting: every reason why a gateway cannot be used is told in one documented word."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fakegateway import FakeGateway, LiveAuthority, host_names, key_pem, profile_of, signing_identity
from pki import pem

from sovchain.client import CertificateExpired, ConnectError, Gateway, ProfileContentError, SigningIdentity, Timeouts

QUICK = Timeouts(connect_s=0.6)


async def reason(profile: Mapping[str, Any], user: SigningIdentity, **options: Any) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        async with Gateway.connect(profile, user, timeouts=QUICK, **options):
            pass
    assert caught.value.endpoint in str(caught.value)
    return caught.value


async def test_refused_when_nothing_listens(authority: LiveAuthority, user: SigningIdentity) -> None:
    gateway = FakeGateway(authority)
    await gateway.start()
    await gateway.stop()
    error = await reason(profile_of(gateway), user)
    assert (error.reason, error.endpoint) == ("refused", gateway.address)


async def test_unresolved_when_the_name_is_not_known(fake: FakeGateway, user: SigningIdentity) -> None:
    assert (await reason(profile_of(fake, url="grpcs://nobody.invalid:7051"), user)).reason == "unresolved"


async def test_timeout_when_it_accepts_and_says_nothing(authority: LiveAuthority, user: SigningIdentity) -> None:
    silent = FakeGateway(authority)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent.port = listener.getsockname()[1]
        assert (await reason(profile_of(silent), user)).reason == "timeout"


async def test_untrusted_under_another_root(fake: FakeGateway, user: SigningIdentity) -> None:
    other = pem(LiveAuthority("Org1MSP").certificate)
    assert (await reason(profile_of(fake, root=other), user)).reason == "untrusted"


async def test_wrong_name_when_the_certificate_is_for_another_host(fake: FakeGateway, user: SigningIdentity) -> None:
    options = {"ssl-target-name-override": "peer9.example"}
    assert (await reason(profile_of(fake, grpcOptions=options), user)).reason == "wrong-name"


async def test_expired_when_the_tls_certificate_is(authority: LiveAuthority, user: SigningIdentity) -> None:
    gateway = FakeGateway(authority)
    gateway.peer = authority.between(-9, -2, "peer0", extension=host_names("localhost", "127.0.0.1"))
    async with gateway:
        assert (await reason(profile_of(gateway), user)).reason == "expired"


async def test_not_tls_when_the_server_speaks_plain_text(authority: LiveAuthority, user: SigningIdentity) -> None:
    async with FakeGateway(authority, tls=False) as gateway:
        profile = profile_of(gateway, url=f"grpcs://{gateway.address}")
        assert (await reason(profile, user)).reason == "not-tls"


async def test_plain_text_has_to_be_allowed(authority: LiveAuthority, user: SigningIdentity) -> None:
    async with FakeGateway(authority, tls=False) as gateway:
        assert (await reason(profile_of(gateway), user)).reason == "not-tls"
        async with Gateway.connect(profile_of(gateway), user, insecure=True) as connected:
            assert await connected.network("ch").contract("basic").evaluate("read") == b"read"


async def test_a_demanded_client_certificate(authority: LiveAuthority, user: SigningIdentity) -> None:
    client = authority.issue("tls client")
    async with FakeGateway(authority, client_root=pem(authority.certificate)) as gateway:
        assert (await reason(profile_of(gateway), user)).reason == "client-certificate"
        profile = {**profile_of(gateway)}
        cert, key = {"pem": pem(client.certificate).decode()}, {"pem": key_pem(client).decode()}
        profile["client"] = {"organization": "Org1", "tlsCerts": {"client": {"cert": cert, "key": key}}}
        async with Gateway.connect(profile, user) as connected:
            assert await connected.network("ch").contract("basic").evaluate("read") == b"read"


async def test_the_reason_of_each_gateway_is_told(
    fake: FakeGateway, authority: LiveAuthority, user: SigningIdentity
) -> None:
    gone = FakeGateway(authority)
    await gone.start()
    await gone.stop()
    error = await reason(profile_of(gone, fake, root=pem(LiveAuthority("x").certificate)), user)
    assert error.reasons == {gone.address: "refused", fake.address: "untrusted"}


async def test_calls_go_to_the_second_gateway_when_the_first_is_gone_and_stay_there(
    fake: FakeGateway, authority: LiveAuthority, user: SigningIdentity
) -> None:
    async with FakeGateway(authority) as second, Gateway.connect(profile_of(fake, second), user) as gateway:
        contract = gateway.network("ch").contract("basic")
        await contract.evaluate("read")
        first, other = (fake, second) if fake.requests else (second, fake)
        await first.stop()
        for _ in range(3):
            assert (await contract.submit("make")).result == b"done"
        assert len(other.requests["Submit"]) == 3
        await other.stop()
        with pytest.raises(ConnectError):
            await contract.evaluate("read")


async def test_a_gateway_that_restarts_on_its_port_is_used_again(fake: FakeGateway, user: SigningIdentity) -> None:
    async with Gateway.connect(profile_of(fake), user) as gateway:
        contract = gateway.network("ch").contract("basic")
        transaction = await contract.proposal("make").endorse()
        await fake.stop()
        submitting = asyncio.create_task(transaction.submit())
        await fake.start()
        assert (await (await submitting).committed()).result == b"done"


@pytest.mark.parametrize("days", [(-9, -2), (2, 9)], ids=["expired", "not yet valid"])
async def test_an_identity_that_is_not_valid_now_cannot_connect(
    fake: FakeGateway, authority: LiveAuthority, days: tuple[int, int]
) -> None:
    identity = signing_identity(authority.between(*days, "user"))
    with pytest.raises(CertificateExpired, match="expired at" if days[1] < 0 else "not valid before"):
        async with Gateway.connect(profile_of(fake), identity):
            pass
    assert identity.certificate.not_valid_after_utc - datetime.now(UTC) < timedelta(days=10)


async def test_an_identity_of_another_organisation_cannot_use_the_profile(fake: FakeGateway) -> None:
    with pytest.raises(ProfileContentError) as caught:
        async with Gateway.connect(profile_of(fake), signing_identity(LiveAuthority("Org2MSP").issue("user"))):
            pass
    assert caught.value.field == "organizations.Org1.mspid"
