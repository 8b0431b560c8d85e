"""The conversation of one transaction with the peer.

A peer admits one outstanding request for each channel and transaction; a second one it logs and drops without any
reply (fabric/core/chaincode/handler.go registerTxid). So requests wait here in the order in which they were made,
and the next one goes out when the answer to the last has come, even if nobody waits for that answer any more.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING

from fabric_protos.peer import chaincode_shim_pb2 as shim

from sovchain.chaincode.errors import LedgerError, StreamError, StubUseError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FRAME_BYTES = 100 * 1024 * 1024
"""Largest message on the stream, either way (fabric-chaincode-go/shim/internal/client.go)."""
MAX_PAYLOAD_BYTES = MAX_FRAME_BYTES - 64 * 1024
"""Largest payload that leaves room for the rest of its message."""


class Exchange:
    """Requests of one transaction, one at a time, first come, first served.

    Args:
        channel_id: the channel.
        transaction_id: the transaction.
        send: queues a message for the stream; called on the event loop.
        deadline: when the transaction's time is over, on the clock of the event loop.
        awaited: an answer to an earlier use of the same key is still to come, and must be let pass first.
    """

    def __init__(
        self,
        channel_id: str,
        transaction_id: str,
        send: Callable[[shim.ChaincodeMessage], None],
        *,
        deadline: float = math.inf,
        awaited: bool = False,
    ) -> None:
        self.channel_id = channel_id
        self.transaction_id = transaction_id
        self.deadline = deadline
        self._send = send
        self._waiting: deque[tuple[shim.ChaincodeMessage, asyncio.Future[bytes]]] = deque()
        self._outstanding = awaited
        self._current: asyncio.Future[bytes] | None = None
        self._kind = shim.ChaincodeMessage.UNDEFINED
        self._closed: str | None = None
        self.given_up = False
        """Set when the transaction was answered without its contract, or sent again: this run is no longer answered."""

    @property
    def outstanding(self) -> bool:
        """Whether an answer is still to come."""
        return self._outstanding

    async def ask(self, kind: shim.ChaincodeMessage.Type.ValueType, payload: bytes) -> bytes:
        """Send a request in its turn and return the payload of the answer.

        Raises:
            LedgerError: the peer answered ERROR.
            StubUseError: the transaction is over, or the request is too large for the stream.
            StreamError: the stream ended before the answer came.
        """
        if self._closed is not None:
            raise StubUseError(self._closed)
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise StubUseError(f"a request has {len(payload)} bytes, the stream takes {MAX_PAYLOAD_BYTES}")
        message = shim.ChaincodeMessage(
            type=kind, payload=payload, txid=self.transaction_id, channel_id=self.channel_id
        )
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, answer))
        self._next()
        return await answer

    def answer(self, message: shim.ChaincodeMessage) -> None:
        """Take a RESPONSE or an ERROR of the peer for this transaction; without an open request it is ignored."""
        if not self._outstanding:
            return
        current, self._current, self._outstanding = self._current, None, False
        if current is not None and not current.done():
            if message.type == shim.ChaincodeMessage.RESPONSE:
                current.set_result(message.payload)
            else:
                kind = shim.ChaincodeMessage.Type.Name(self._kind)
                current.set_exception(LedgerError(kind, message.payload.decode("utf-8", "replace")))
        self._next()

    def close(self, reason: str, *, lost: bool = False) -> None:
        """Refuse further requests and fail those that wait.

        Args:
            reason: what later requests are told.
            lost: the stream is gone: requests that wait fail with StreamError.
        """
        self._closed = reason
        waiting = [answer for _, answer in self._waiting]
        self._waiting.clear()
        if self._current is not None:
            waiting.append(self._current)
            self._current = None
        for answer in waiting:
            if not answer.done():
                answer.set_exception(StreamError(reason) if lost else StubUseError(reason))
                answer.exception()  # marks it as seen: nobody may be waiting

    def _next(self) -> None:
        while not self._outstanding and self._waiting:
            message, answer = self._waiting.popleft()
            if answer.done():
                continue
            self._outstanding, self._current, self._kind = True, answer, message.type
            self._send(message)
