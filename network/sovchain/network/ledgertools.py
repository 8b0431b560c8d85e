"""What only the embedded ledger offers, from the process that runs the network or from another one.

The methods are those of `sovchain.ledger.tools.LedgerTools`. In the process that runs the network they raise what those
raise (a `sovchain.ledger.errors.LedgerError`); from another one RemoteError, whose `kind` is the name of that error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError, validate_call
from pydantic_core import to_jsonable_python

from sovchain.ledger.cutting import Cutting
from sovchain.ledger.faults import Action, Fault
from sovchain.ledger.snapshots import LedgerSnapshot
from sovchain.ledger.tools import Chain, LedgerTime, LedgerTools, NodeState, operation
from sovchain.network.control import LedgerRequest, ask
from sovchain.network.errors import NetworkError

_T = TypeVar("_T")
_SNAPSHOT: Final = TypeAdapter(LedgerSnapshot)
_SNAPSHOTS: Final = TypeAdapter(list[LedgerSnapshot])
_TIME: Final = TypeAdapter(LedgerTime)
_CHAIN: Final = TypeAdapter(Chain)
_CHAINS: Final = TypeAdapter(dict[str, Chain])
_FAULTS: Final = TypeAdapter(list[Fault])
_NODE: Final = TypeAdapter(NodeState)
_NODES: Final = TypeAdapter(list[NodeState])
_COUNT: Final = TypeAdapter(int)
_NOTHING: Final = TypeAdapter(None)


class NetworkLedger:
    """The tools of a network's embedded ledger. `Network.ledger` makes it."""

    def __init__(self, directory: Path, tools: Callable[[], LedgerTools] | None) -> None:
        """`tools` gives those of this process; None: another process runs the network in `directory`."""
        self._directory = directory
        self._tools = tools

    async def snapshot(self, name: str) -> LedgerSnapshot:
        """Keep all that is committed now, on all channels, under a name. Raises SnapshotError."""
        return await self._do(_SNAPSHOT, "snapshot", name=name)

    async def revert(self, name: str) -> LedgerSnapshot:
        """Go back to a snapshot: blocks, state, private data, installed packages and time. It stays.

        What is pending is dropped; streams of blocks and events end. Raises SnapshotError.
        """
        return await self._do(_SNAPSHOT, "revert", name=name)

    async def snapshots(self) -> list[LedgerSnapshot]:
        """The snapshots, oldest first."""
        return await self._do(_SNAPSHOTS, "snapshots")

    async def drop_snapshot(self, name: str) -> None:
        """Delete a snapshot. Raises SnapshotError."""
        await self._do(_NOTHING, "drop_snapshot", name=name)

    async def dump(self, path: Path | str) -> LedgerSnapshot:
        """Write all that is committed now into a new file, which holds private data (mode 0600). Raises DumpError."""
        return await self._do(_SNAPSHOT, "dump", path=_absolute(path))

    async def load(self, path: Path | str) -> LedgerSnapshot:
        """Take over what a dump holds instead of what is here, which is lost. Raises DumpError, SnapshotError."""
        return await self._do(_SNAPSHOT, "load", path=_absolute(path))

    async def time(self) -> LedgerTime:
        """The ledger's time, and how far it is ahead."""
        return await self._do(_TIME, "time")

    async def advance(self, seconds: float) -> LedgerTime:
        """Move the ledger's time forward: certificates end, and contracts are told a later time. Raises TimeRefused."""
        return await self._do(_TIME, "advance", seconds=seconds)

    async def chains(self) -> dict[str, Chain]:
        """The channels with their heights, what is pending, and what overrides their batch settings."""
        return await self._do(_CHAINS, "chains")

    async def cut(self, channel: str) -> int:
        """Cut a block from what is pending; return the height once it is committed. Raises ChannelUnknownError."""
        return await self._do(_COUNT, "cut", channel=channel)

    async def set_cutting(
        self,
        channel: str,
        *,
        held: bool = False,
        max_message_count: int | None = None,
        preferred_max_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> Chain:
        """Override when a channel's blocks are cut (see `Cutting`), until the process ends; without arguments as configured.

        Raises ChannelUnknownError.
        """
        cutting = Cutting(held, max_message_count, preferred_max_bytes, timeout_s)
        return await self._do(_CHAIN, "set_cutting", channel=channel, cutting=cutting)

    async def export_blocks(self, channel: str, folder: Path | str, start: int = 0, stop: int | None = None) -> int:
        """Write blocks into a new folder as `<number>.block`; return how many. Raises ChannelUnknownError."""
        place = _absolute(folder)
        return await self._do(_COUNT, "export_blocks", channel=channel, folder=place, start=start, stop=stop)

    async def import_blocks(self, channel: str, paths: Sequence[Path | str]) -> int:
        """Judge and append blocks of the same channel on another network, in this order; return the height.

        Raises BlockRefused, ChannelUnknownError.
        """
        places = [_absolute(path) for path in paths]
        return await self._do(_COUNT, "import_blocks", channel=channel, paths=places)

    async def nodes(self) -> list[NodeState]:
        """The peers, then the ordering nodes, with what they have of their channels."""
        return await self._do(_NODES, "nodes")

    async def lag(self, peer: str, *, blocks: int | None = None, channel: str = "") -> NodeState:
        """Have a peer fall behind: it stays `blocks` blocks behind, or at the block that it has now.

        On a channel, or on all of its channels; until `catch_up`. Raises NodeUnknownError, ChannelUnknownError.
        """
        return await self._do(_NODE, "lag", peer=peer, blocks=blocks, channel=channel)

    async def catch_up(self, peer: str, *, channel: str = "") -> NodeState:
        """Have a peer that lags catch up. Raises NodeUnknownError, ChannelUnknownError."""
        return await self._do(_NODE, "catch_up", peer=peer, channel=channel)

    async def end_node(self, host: str) -> list[NodeState]:
        """End a peer or an ordering node at once, as when its process dies. Raises NodeUnknownError.

        A channel whose ordering nodes do not run in their majority is not ordered.
        """
        return await self._do(_NODES, "end_node", host=host)

    async def begin_node(self, host: str) -> list[NodeState]:
        """Start a node that was ended. Raises NodeUnknownError."""
        return await self._do(_NODES, "begin_node", host=host)

    async def add_fault(self, point: str, action: Action, **options: Any) -> list[Fault]:
        """Ask for a fault (`sovchain.ledger.faults.Fault`, whose fields are the options); return all. Raises FaultRefused."""
        fault = Fault(point, action, **options)
        fault.check()
        return await self._do(_FAULTS, "add_fault", fault=fault)

    async def faults(self) -> list[Fault]:
        """The faults that are asked for."""
        return await self._do(_FAULTS, "faults")

    async def clear_faults(self, point: str = "") -> int:
        """Take back the faults at a point, or all; return how many."""
        return await self._do(_COUNT, "clear_faults", point=point)

    async def _do(self, kind: TypeAdapter[_T], do: str, **arguments: Any) -> _T:
        request = LedgerRequest(do=do, arguments=to_jsonable_python(arguments))
        if self._tools is None:
            result = await ask(self._directory, request)
        else:
            result = await perform(self._tools(), request)
        return kind.validate_python(result["result"])


def _absolute(path: Path | str) -> Path:
    """The path as another process finds it."""
    return Path(os.path.abspath(path))


async def perform(tools: LedgerTools, request: LedgerRequest) -> dict[str, Any]:
    """Do what a request asks for. Raises LedgerError, and NetworkError for arguments that the method does not take."""
    method = validate_call(operation(tools, request.do))
    try:
        result = await method(**request.arguments)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise NetworkError(
            f"the ledger cannot {request.do}",
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lower(),
            "correct the value",
        ) from None
    return {"result": to_jsonable_python(result)}
