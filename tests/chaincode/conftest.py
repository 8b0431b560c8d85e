"""A peer and a chaincode on a stream, in both directions, for the tests of the runtime."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest
from fakepeer import FakePeer

from sovchain.chaincode import Chaincode
from sovchain.chaincode.connect import PeerConnection
from sovchain.chaincode.server import ChaincodeService
from sovchain.network.runtimes.chaincodes import ChaincodeTls

CHAINCODE_ID = "test_1.0:abc"
DIRECTIONS = ["the peer dials", "the chaincode dials"]

Connect: TypeAlias = Callable[..., AbstractAsyncContextManager[FakePeer]]


@pytest.fixture(params=DIRECTIONS)
def connect(request: pytest.FixtureRequest) -> Connect:
    """`connect(chaincode, peer, **options)`: the two on one stream; options go to the service or the connection."""

    @asynccontextmanager
    async def connected(chaincode: Chaincode, peer: FakePeer | None = None, **options: Any) -> AsyncIterator[FakePeer]:
        peer = peer or FakePeer()
        if request.param == "the peer dials":
            service = ChaincodeService(chaincode, CHAINCODE_ID, "127.0.0.1:0", **options)
            await service.start()
            try:
                async with peer.dial(service.address):
                    yield peer
            finally:
                await service.stop(0.5)
            return
        async with peer.listen() as address:
            connection = PeerConnection(chaincode, CHAINCODE_ID, address, **options)
            running = asyncio.create_task(connection.run())
            await asyncio.wait_for(peer.ready.wait(), 10)
            yield peer
            await connection.stop(0.5)
            await asyncio.wait_for(running, 15)

    return connected


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ChaincodeTls:
    """Certificates of a peer and of a chaincode under one root."""
    return ChaincodeTls.create(tmp_path_factory.mktemp("tls") / "files", datetime.now(UTC))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> ChaincodeTls:
    """Certificates under another root."""
    return ChaincodeTls.create(tmp_path_factory.mktemp("stranger") / "files", datetime.now(UTC))
