"""Query results from a peer, frame by frame.

A peer packs up to 100 results into a frame and protects against phantoms what it has read, not what the contract has
seen; so the next frame is asked for only when the contract wants an item that is not here yet.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from fabric_protos.peer import chaincode_shim_pb2 as shim
from google.protobuf.message import DecodeError

from sovchain.chaincode.errors import StreamError
from sovchain.chaincode.stub import Items

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sovchain.chaincode.exchange import Exchange

T = TypeVar("T")
Kind = shim.ChaincodeMessage


class PeerItems(Items[T]):
    """One query of a transaction.

    Args:
        exchange: the transaction's conversation with the peer.
        kind: the request that opens the query; sent when the first item is asked for.
        payload: its payload.
        convert: makes an item of a result's bytes.
        before: called once before the query is opened.
    """

    def __init__(
        self,
        exchange: Exchange,
        kind: shim.ChaincodeMessage.Type.ValueType,
        payload: bytes,
        convert: Callable[[bytes], T],
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._exchange = exchange
        self._kind = kind
        self._payload = payload
        self._convert = convert
        self._before = before
        self._ready: deque[bytes] = deque()
        self._id = ""
        self._opened = False
        self._more = True
        self.metadata = b""
        """`QueryResponseMetadata` of the last frame; only pages have it."""

    async def __anext__(self) -> T:
        while not self._ready:
            if not self._more:
                raise StopAsyncIteration
            await self._fetch()
        return self._convert(self._ready.popleft())

    async def aclose(self) -> None:
        self._ready.clear()
        still_open, self._more = self._opened and self._more, False
        if still_open:
            await self._exchange.ask(Kind.QUERY_STATE_CLOSE, shim.QueryStateClose(id=self._id).SerializeToString())

    async def _fetch(self) -> None:
        try:
            if self._opened:
                request = shim.QueryStateNext(id=self._id).SerializeToString()
                answer = await self._exchange.ask(Kind.QUERY_STATE_NEXT, request)
            else:
                if self._before is not None:
                    await self._before()
                answer = await self._exchange.ask(self._kind, self._payload)
                self._opened = True
            frame = shim.QueryResponse.FromString(answer)
        except DecodeError:
            self._more = False
            raise StreamError("the peer sent bytes for a query that are no QueryResponse") from None
        except BaseException:
            self._more = False
            raise
        self._ready.extend(result.resultBytes for result in frame.results)
        self._id, self._more, self.metadata = frame.id, frame.has_more, frame.metadata or self.metadata
