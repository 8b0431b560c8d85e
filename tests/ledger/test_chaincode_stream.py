"""How a chaincode's stream ends is told by what was read from it, whatever a write meets first."""

from __future__ import annotations

import asyncio

import pytest
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2

from sovchain.ledger.chaincode_stream import ChaincodeStream


class Broken(Exception):
    """What gRPC raises to the reader of a stream that was cut."""


class CutWhileWriting:
    """A transport of a chaincode that registers and dies before the answer is out."""

    def __init__(self) -> None:
        name = chaincode_pb2.ChaincodeID(name="permits:1")
        message = chaincode_shim_pb2.ChaincodeMessage
        self._frames = [message(type=message.REGISTER, payload=name.SerializeToString()).SerializeToString()]
        self._cut = asyncio.Event()

    async def read(self) -> object:
        if self._frames:
            return self._frames.pop()
        await self._cut.wait()
        raise Broken

    async def write(self, message: bytes, /) -> None:
        self._cut.set()
        raise asyncio.InvalidStateError("RPC already finished.")


async def test_a_write_to_a_call_that_has_ended_hides_no_reason() -> None:
    with pytest.raises(Broken):
        await ChaincodeStream(lambda _name: None).run(CutWhileWriting())
