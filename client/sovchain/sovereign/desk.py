"""What every scenario's wrapper has: the calls of one chaincode, and steps that come back with their transaction."""

from __future__ import annotations

from typing import Any, TypeVar

from sovchain.chaincode import Operation
from sovchain.client import Network
from sovchain.sovereign.calls import Calls, committed
from sovchain.sovereign.results import Committed, Recorded

R = TypeVar("R")


class Desk:
    """A channel's chaincode as one user works with it: the base class of the scenarios' wrappers.

    Each method of a wrapper may raise `ContractRefusal`, `InvalidInput`, and the client's `FabricError`s.
    """

    def __init__(self, network: Network, chaincode: str | None = None) -> None:
        """Args:
        network: the channel.
        chaincode: name of its chaincode; the channel's own name if not given.
        """
        self._network = network
        self._calls = Calls(network.contract(chaincode or network.name))

    async def reached(self, done: Committed) -> None:
        """Wait until this organisation's peer has what another one has committed."""
        await self._network.reached(done.block_number)

    async def _record(self, operation: Operation[..., R], *args: Any) -> Recorded[R]:
        done = await self._calls.submit_after_own(operation, *args)
        return Recorded(record=done.result, committed=committed(done))

    async def _told(self, msp_id: str, operation: Operation[..., Any], *args: Any) -> Committed:
        """Submit what only one organisation endorses, because it alone may see the transient data."""
        return committed(await self._calls.at(msp_id).submit_after_own(operation, *args))
