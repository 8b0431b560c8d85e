"""One stream of filtered blocks that tells all pending submits of a channel what became of them.

It stands in for a CommitStatus call and a signature for each transaction, and holds none of the 500 places that a peer
has for calls of its gateway service. It is an economy, never a condition: whenever it cannot be relied on, those who
wait ask CommitStatus, which looks into the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from fabric_protos.peer import events_pb2
from google.protobuf.message import DecodeError

from sovchain.client._connection import Connection
from sovchain.client._endpoint import Endpoint
from sovchain.client._seek import NEWEST, seek_envelope
from sovchain.client._stream import StreamBroken, StreamCall
from sovchain.client.errors import GatewayClosed, IdentityError
from sovchain.client.identity import Identity
from sovchain.protocol.reasons import tells_reasons

IDLE_S: Final = 30.0
"""After this time without a pending submit the stream is ended; the next submit opens it again."""
PAUSE_FIRST_S, PAUSE_MOST_S = 0.5, 60.0
FOREIGN_MOST: Final = 50
"""Where a client's own transactions are fewer than one in so many, asking for each costs less than reading them all."""
_SAMPLE: Final = 2_000


@dataclass(frozen=True, slots=True)
class Told:
    """What a filtered block says of a transaction."""

    code: int
    block_number: int
    has_reason: bool = False
    """Whether the peer can be asked why it is not valid: a real one cannot."""


class Notice:
    """One transaction that is listened for."""

    def __init__(self, feed: CommitFeed, transaction_id: str) -> None:
        self._feed = feed
        self._id = transaction_id
        self.address: str = feed.address
        self.future: asyncio.Future[Told | None] = asyncio.get_running_loop().create_future()

    async def wait(self, timeout_s: float) -> Told | None:
        """What became of the transaction; None if that has to be asked for. Raises TimeoutError.

        May be called again after it was cancelled or ran out of time.
        """
        if not self.future.done():
            await asyncio.wait([self.future], timeout=timeout_s)
            if not self.future.done():
                raise TimeoutError
        return self.future.result()

    def discard(self) -> None:
        """Stop listening."""
        self._feed.discard(self._id)


class CommitFeed:
    """The stream of one channel. It runs while submits are pending, and a little longer."""

    def __init__(self, connection: Connection, identity: Identity, channel_id: str) -> None:
        self._connection = connection
        self._identity = identity
        self._channel_id = channel_id
        # Weak: a transaction that nobody can wait for any more is not listened for.
        self._waiting: WeakValueDictionary[str, Notice] = WeakValueDictionary()
        self._task: asyncio.Task[None] | None = None
        self._live = False
        self._ended = False
        self._not_before = 0.0
        self._pause_s = PAUSE_FIRST_S
        self._idle_since = time.monotonic()
        self._seen: deque[tuple[int, int]] = deque(maxlen=256)
        self.address: str = ""
        self.blocks: int = 0
        """Blocks that came, for tests and metrics."""

    def warm(self) -> None:
        """Have the stream opened, if it is not, before it is needed."""
        if self._task is None and time.monotonic() >= self._not_before and not self._connection.closed:
            self._idle_since = time.monotonic()
            self._ended = False
            self._task = asyncio.create_task(self._run())

    def expect(self, transaction_id: str) -> Notice | None:
        """Listen for a transaction that is about to be sent; None if its status has to be asked for."""
        self.warm()
        if not self._live:
            return None
        notice = self._waiting[transaction_id] = Notice(self, transaction_id)
        return notice

    def discard(self, transaction_id: str) -> None:
        """Stop listening for a transaction."""
        self._waiting.pop(transaction_id, None)
        self._idle_since = time.monotonic()

    async def close(self) -> None:
        """End the stream."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        pause_s = 0.0
        try:
            await self._follow()
        except (StreamBroken, GatewayClosed, IdentityError, DecodeError):
            # Those who wait ask CommitStatus, and hear from it what is wrong.
            pause_s = self._pause_s
            self._pause_s = min(self._pause_s * 2, PAUSE_MOST_S)
        finally:
            self._live = False
            self._task = None
            self._not_before = max(self._not_before, time.monotonic() + pause_s)
            waiting = list(self._waiting.values())
            self._waiting.clear()
            for notice in waiting:
                if not notice.future.done():
                    notice.future.set_result(None)

    async def _follow(self) -> None:
        """Read blocks until the stream breaks or is not worth its while.

        The newest block comes at once, and with it the certainty that no later one is missed.
        """
        endpoint = self._connection.order()[0]
        self.address = endpoint.address
        call = StreamCall(self._connection, endpoint, "/protos.Deliver/DeliverFiltered", of_gateway=False)
        certificate = self._connection.profile.client_certificate_pem
        idle = asyncio.create_task(self._end_when_idle(call))
        try:
            await call.open(await seek_envelope(self._identity, self._channel_id, NEWEST, None, certificate))
            while True:
                response = events_pb2.DeliverResponse.FromString(await call.read())
                if response.WhichOneof("Type") != "filtered_block":
                    raise DecodeError(f"status {response.status}")
                self._live = True
                self._pause_s = PAUSE_FIRST_S
                if not self._take(response.filtered_block, endpoint):
                    return
        except StreamBroken:
            if not self._ended:
                raise
        finally:
            idle.cancel()
            call.close()

    async def _end_when_idle(self, call: StreamCall) -> None:
        while self._waiting or time.monotonic() - self._idle_since < IDLE_S:  # noqa: ASYNC110 - time is what is waited for
            await asyncio.sleep(IDLE_S / 4)
        self._live = False
        self._ended = True
        call.close()

    def _take(self, block: events_pb2.FilteredBlock, endpoint: Endpoint) -> bool:
        """Tell those whose transactions are in a block. False if too few of them are this client's."""
        self.blocks += 1
        endpoint.heights[self._channel_id] = block.number
        own = 0
        reasons = tells_reasons(block)
        for transaction in block.filtered_transactions:
            notice = self._waiting.pop(transaction.txid, None)
            if notice is not None and not notice.future.done():
                own += 1
                notice.future.set_result(Told(transaction.tx_validation_code, block.number, reasons))
        if own:
            self._idle_since = time.monotonic()
        self._seen.append((len(block.filtered_transactions), own))
        everybody = sum(count for count, _ in self._seen)
        if everybody > _SAMPLE and everybody > FOREIGN_MOST * sum(count for _, count in self._seen):
            self._seen.clear()
            self._not_before = time.monotonic() + PAUSE_MOST_S
            return False
        return True
