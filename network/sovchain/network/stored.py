"""The blocks that the nodes of a network have stored in its directory, read without the nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sovchain.network.errors import DirectoryRefused
from sovchain.network.instance import read_status
from sovchain.protocol.blockfile import read_peer_blocks

_EMBEDDED: Final = "ledger/*/ledger.sqlite"
_NATIVE: Final = "nodes/*/data/ledgersData/chains/chains/*/blockfile_000000"


def stored_channels(directory: Path) -> list[str]:
    """Names of the channels of which blocks are stored, sorted."""
    return sorted({path.parent.name for pattern in (_EMBEDDED, _NATIVE) for path in directory.glob(pattern)})


def stored_blocks(directory: Path, channel: str) -> Iterator[bytes]:
    """The blocks of a channel (common.Block), in order.

    Where several peers keep the channel, those of the peer that has most: another one may be a block behind.

    Raises:
        sovchain.ledger.storage.StorageError, MalformedError, OSError: what is stored cannot be read.
    """
    embedded = directory / "ledger" / channel / "ledger.sqlite"
    if embedded.exists():
        from sovchain.ledger.storage import read_blocks

        return read_blocks(embedded)
    folders = [path.parent for path in directory.glob(_NATIVE) if path.parent.name == channel]
    return _peer_blocks(max(folders, key=_size))


def stored_faults(directory: Path, channel: str) -> list[str]:
    """What of a channel is stored otherwise than its blocks say: index, state, history, private data, unused bytes.

    Empty where Fabric's own programs keep the channel, whose files are not ours to judge.
    """
    embedded = directory / "ledger" / channel
    if not (embedded / "ledger.sqlite").exists():
        return []
    from sovchain.ledger.check import check_channel

    return [str(fault) for fault in check_channel(embedded, in_use=_is_running(directory))]


def _is_running(directory: Path) -> bool:
    try:
        return read_status(directory).state != "down"
    except DirectoryRefused:
        return False  # a copy of what the nodes keep, without the network around it


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _peer_blocks(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("blockfile_*")):
        with path.open("rb") as file:
            for block in read_peer_blocks(file):
                yield block.SerializeToString(deterministic=True)
