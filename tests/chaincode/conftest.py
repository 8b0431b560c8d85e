"""A peer and a chaincode on a stream, in both directions, for the tests of the runtime."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakepeer import CHAINCODE_ID, Connect, FakePeer

from sovchain.chaincode import Chaincode
from sovchain.chaincode.connect import PeerConnection
from sovchain.chaincode.server import ChaincodeService
from sovchain.network.runtimes.chaincodes import ChaincodeTls

sys.path.insert(0, str(Path(__file__).parent))

DIRECTIONS = ["the peer dials", "the chaincode dials"]


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
            # It fails where the test has broken the stream.
            await asyncio.wait_for(asyncio.gather(running, return_exceptions=True), 15)

    return connected


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ChaincodeTls:
    """Certificates of a peer and of a chaincode under one root."""
    return ChaincodeTls.create(tmp_path_factory.mktemp("tls") / "files", datetime.now(UTC))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> ChaincodeTls:
    """Certificates under another root."""
    return ChaincodeTls.create(tmp_path_factory.mktemp("stranger") / "files", datetime.now(UTC))
