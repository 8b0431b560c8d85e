"""Faults on request: what a service or the ordering is to do wrong, where, and how often.

A fault names a point. Each time the ledger comes by that point, the first fault that fits what is happening there is
taken. Points and what can be asked for at them are in `POINTS`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

import grpc
import structlog
from pydantic import Field

from sovchain.ledger.errors import LedgerError
from sovchain.ledger.rpcstatus import StatusError

Action = Literal["drop", "delay", "error", "reorder"]
_SERVICE: Final[frozenset[Action]] = frozenset({"drop", "delay", "error"})
POINTS: Final[Mapping[str, frozenset[Action]]] = {
    "gateway.evaluate": _SERVICE,
    "gateway.endorse": _SERVICE,
    "gateway.submit": _SERVICE,
    "gateway.commit_status": _SERVICE,
    "gateway.chaincode_events": _SERVICE,
    "endorser.process_proposal": _SERVICE,
    "discovery.discover": _SERVICE,
    "deliver.block": _SERVICE,
    "broadcast.envelope": _SERVICE,
    "chaincode.execute": _SERVICE,
    "ordering.batch": frozenset({"drop", "delay", "reorder"}),
}
"""Where faults can be asked for, and which.

A service's point is passed with each request, `deliver.block` before each block is sent, `broadcast.envelope` with each
envelope on its way to the ordering (a gateway's included), `chaincode.execute` before each call of a chaincode, and
`ordering.batch` after envelopes were acknowledged and before they become a block. "drop" leaves a request without an
answer until its client gives up, and loses an acknowledged batch; "reorder" shuffles a batch, which consensus allows.
"""
MAX_FAULTS: Final = 1_000
_LONGEST_S: Final = 3_600.0
_log = structlog.get_logger("sovchain.ledger.faults")


class FaultRefused(LedgerError):
    """A fault cannot be asked for. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this fault cannot be asked for: {reason}; see sovchain.ledger.faults.POINTS")
        self.reason = reason


@dataclass(frozen=True)
class Fault:
    """One thing that is to go wrong.

    Attributes:
        point: where, one of `POINTS`.
        action: what.
        msp_id: only at the nodes of this organisation; empty: at all. The ordering is of no organisation.
        channel: only for this channel, at points that know one ("ordering.batch", "broadcast.envelope",
            "deliver.block", "chaincode.execute"); empty: for all.
        times: how often; None: until it is taken back.
        delay_s: seconds of a delay.
        code: gRPC code of an error, such as "UNAVAILABLE".
        text: text of an error.
    """

    point: str
    action: Action
    msp_id: str = ""
    channel: str = ""
    times: Annotated[int, Field(ge=1)] | None = None
    delay_s: Annotated[float, Field(ge=0, le=_LONGEST_S)] = 0.0
    code: str = "UNAVAILABLE"
    text: str = "fault on request"

    def check(self) -> None:
        """Raise FaultRefused if the point does not know the action, or the error has no such code."""
        actions = POINTS.get(self.point)
        if actions is None:
            raise FaultRefused(f"there is no point {self.point!r}; there are {', '.join(POINTS)}")
        if self.action not in actions:
            raise FaultRefused(f"{self.point} knows {', '.join(sorted(actions))}, not {self.action}")
        if self.action == "error" and (self.code not in grpc.StatusCode.__members__ or self.code == "OK"):
            raise FaultRefused(f"{self.code!r} is no gRPC code of a failure")
        if self.action == "delay" and not self.delay_s:
            raise FaultRefused("a delay takes its seconds")


class Dropped(Exception):
    """An acknowledged batch is to be lost."""


class Faults:
    """The faults that are asked for at present. For the event loop's thread."""

    def __init__(self) -> None:
        self._asked: list[Fault] = []
        self.taken = 0
        """How many faults have happened."""

    def __iter__(self) -> Any:
        return iter(tuple(self._asked))

    def add(self, fault: Fault) -> None:
        """Ask for a fault. Raises FaultRefused."""
        fault.check()
        if len(self._asked) >= MAX_FAULTS:
            raise FaultRefused(f"{MAX_FAULTS} are asked for already")
        self._asked.append(fault)

    def clear(self, point: str = "") -> int:
        """Take back the faults at a point, or all; return how many."""
        kept = [fault for fault in self._asked if point and fault.point != point]
        count = len(self._asked) - len(kept)
        self._asked = kept
        return count

    async def at(self, point: str, *, msp_id: str = "", channel: str = "") -> None:
        """Do what is asked for at a service's point. Raises StatusError for an error."""
        fault = self._take(point, msp_id, channel)
        if fault is None:
            return
        if fault.action == "error":
            raise StatusError(grpc.StatusCode[fault.code], fault.text)
        await asyncio.sleep(_LONGEST_S if fault.action == "drop" else fault.delay_s)
        if fault.action == "drop":
            raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, fault.text)

    async def at_batch(self, channel: str, batch: list[Any]) -> list[Any]:
        """Do what is asked for with an acknowledged batch; return what is left of it, in its new order."""
        fault = self._take("ordering.batch", "", channel)
        if fault is None:
            return batch
        if fault.action == "drop":
            return []
        if fault.action == "delay":
            await asyncio.sleep(fault.delay_s)
            return batch
        return random.Random(self.taken).sample(batch, len(batch))  # noqa: S311  an order, not a secret

    def _take(self, point: str, msp_id: str, channel: str) -> Fault | None:
        for position, fault in enumerate(self._asked):
            if fault.point == point and fault.msp_id in ("", msp_id) and fault.channel in ("", channel):
                if fault.times is not None:
                    self._asked[position] = replace(fault, times=fault.times - 1)
                    if fault.times == 1:
                        del self._asked[position]
                self.taken += 1
                _log.info("fault", point=point, action=fault.action, msp_id=msp_id, channel=channel)
                return fault
        return None
