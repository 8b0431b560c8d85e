"""One authority for all files, and a gateway with a client for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fakegateway import FakeGateway, LiveAuthority, profile_of, signing_identity

from sovchain.client import Contract, Gateway, SigningIdentity


@pytest.fixture(scope="session")
def authority() -> LiveAuthority:
    return LiveAuthority("Org1MSP")


@pytest.fixture(scope="session")
def user(authority: LiveAuthority) -> SigningIdentity:
    return signing_identity(authority.issue("user", "client"))


@pytest.fixture
async def fake(authority: LiveAuthority) -> AsyncIterator[FakeGateway]:
    async with FakeGateway(authority) as gateway:
        yield gateway


@pytest.fixture
async def gateway(fake: FakeGateway, user: SigningIdentity) -> AsyncIterator[Gateway]:
    async with Gateway.connect(profile_of(fake), user) as connected:
        yield connected


@pytest.fixture
def contract(gateway: Gateway) -> Contract:
    return gateway.network("ch").contract("basic")
