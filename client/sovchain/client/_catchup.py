"""Reading one's own writes: a peer is asked only once it has committed the last block that holds one."""

from __future__ import annotations

import asyncio
import time

from fabric_protos.peer import events_pb2
from google.protobuf.message import DecodeError

from sovchain.client._connection import Before
from sovchain.client._endpoint import CallFailed, Endpoint
from sovchain.client._seek import from_block, seek_envelope
from sovchain.client._stream import StreamBroken, StreamCall
from sovchain.client.errors import RpcFailure
from sovchain.client.session import Session


def catching_up(session: Session) -> Before:
    """What waits, before a call to a gateway, until its peer has reached the block of the client's last commit.

    The gateway evaluates on its own peer before any other (internal/pkg/gateway/registry.go sorter).
    """
    block_number = session.state.own_block

    async def wait(endpoint: Endpoint, timeout_s: float) -> None:
        if endpoint.heights.get(session.channel_id, 0) < block_number:
            await _reach(session, endpoint, block_number, timeout_s)

    return wait


async def _reach(session: Session, endpoint: Endpoint, block_number: int, timeout_s: float) -> None:
    started = time.monotonic()
    certificate = session.connection.profile.client_certificate_pem
    position = from_block(block_number)
    request = await seek_envelope(session.identity, session.channel_id, position, block_number, certificate)
    call = StreamCall(session.connection, endpoint, "/protos.Deliver/DeliverFiltered", of_gateway=False)
    try:
        async with asyncio.timeout(timeout_s):
            await call.open(request)
            response = events_pb2.DeliverResponse.FromString(await call.read())
        if response.WhichOneof("Type") == "filtered_block":
            session.committed(response.filtered_block.number, endpoint)
            return
        status, text = "FAILED_PRECONDITION", f"its blocks cannot be read (status {response.status})"
    except TimeoutError:
        status, text = "DEADLINE_EXCEEDED", f"its peer has not reached block {block_number} of the last commit"
    except StreamBroken as broken:
        raise CallFailed(broken.failure) from None
    except DecodeError:
        status, text = "INTERNAL", "its reply is no DeliverResponse"
    finally:
        call.close()
    raise CallFailed(RpcFailure(status, text, (), endpoint.address, time.monotonic() - started))
