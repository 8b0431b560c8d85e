"""What all steps of a call need, and what the calls of a channel share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sovchain.client._connection import Before, Connection
from sovchain.client._endpoint import CallFailed, Endpoint
from sovchain.client.errors import ConnectError, GatewayError
from sovchain.client.identity import Identity
from sovchain.client.options import Timeouts
from sovchain.client.retry import RetryPolicy
from sovchain.protocol.transactions import ParsedTransaction

if TYPE_CHECKING:
    from sovchain.client._commitfeed import CommitFeed
    from sovchain.client.journal import Journal

_NO_RETRY = RetryPolicy()


class EndorsementCheck(Protocol):
    """Judges the endorsements of a prepared transaction before it is signed."""

    async def check(self, session: Session, transaction: ParsedTransaction) -> None:
        """Raises EndorsementsInsufficient."""


@dataclass(slots=True)
class ChannelState:
    """What the calls on a channel share.

    Attributes:
        feed: tells of commits, None where CommitStatus is to be asked each time.
        own_block: the highest block with a transaction of this client; 0 for none.
    """

    feed: CommitFeed | None = None
    own_block: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """Who signs, over which connection, how long, and who shall endorse.

    `timeout_s` is one deadline over all steps of a call, None for the steps' own deadlines alone.
    """

    connection: Connection
    identity: Identity
    channel_id: str
    timeouts: Timeouts
    state: ChannelState = field(default_factory=ChannelState)
    organizations: tuple[str, ...] = ()
    timeout_s: float | None = None
    retry: RetryPolicy = _NO_RETRY
    journal: Journal | None = None
    check: EndorsementCheck | None = None
    read_own_writes: bool = False

    def end(self) -> float | None:
        """When a call that starts now must have ended."""
        return None if self.timeout_s is None else time.monotonic() + self.timeout_s

    async def call(
        self, method: str, request: bytes, timeout_s: float, *, before: Before | None = None
    ) -> tuple[bytes, Endpoint]:
        """A call to whichever gateway is available. Raises CallFailed, GatewayClosed."""
        pause_s = self.retry.overload_pause_s
        return await self.connection.call(method, request, timeout_s, overload_pause_s=pause_s, before=before)

    def committed(self, block_number: int, endpoint: Endpoint | None) -> None:
        """Note that a transaction of this client is in a block, as an endpoint's peer says."""
        self.state.own_block = max(self.state.own_block, block_number)
        if endpoint is not None:
            endpoint.heights[self.channel_id] = max(endpoint.heights.get(self.channel_id, 0), block_number)


def seconds_left(step_s: float, end: float | None) -> float:
    """Seconds for a step: its own deadline, or what is left of the call's."""
    return step_s if end is None else max(min(step_s, end - time.monotonic()), 0.001)


def public_error(
    kind: type[GatewayError], call: str, failed: CallFailed, transaction_id: str
) -> GatewayError | ConnectError:
    """The public error for a failed call: a gateway that cannot be reached is another matter than one that refuses."""
    failure = failed.failure
    if failure.status == "UNAVAILABLE" and failure.unsent:
        return ConnectError(
            f"{failure.endpoint} cannot be reached any more: check that the network is up",
            endpoint=failure.endpoint,
            reason="unreachable",
        )
    return kind(call, failure, transaction_id=transaction_id)
