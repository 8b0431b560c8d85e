"""Errors of the embedded ledger: one tree, rooted at `LedgerError`.

LedgerError
  StorageError                 a file of a channel cannot be used
    StorageVersionError        written in a format that this version does not read
    StorageCorrupt             its content contradicts itself
    ChannelExists              there is a channel in the directory already
    ChannelMissing             there is no channel in the directory
  GenesisRefused               the block given to start a channel from is not a genesis block
  BlockRefused                 a block that was ordered elsewhere is not the channel's next one
  OrderingRefused              an envelope was not accepted for ordering (status and text as an orderer gives them)
  ChannelStopped               the commit pipeline failed and the channel accepts nothing more
  ChannelClosed                the channel was closed while something was waited for
  ChannelReverted              the channel went back to an earlier state while something was waited for
  TransientRefused             private data was not accepted before an endorsement
  SimulationError              what a chaincode asked of the ledger is refused (Fabric's own text)
    CollectionMissing          the collection is not in the chaincode's definition
    PrivateDataUnavailable     this organisation lacks the private data that the public hash stands for
"""

from __future__ import annotations

from pathlib import Path


class LedgerError(Exception):
    """Root of what the embedded ledger raises."""


class StorageError(LedgerError):
    """A file of a channel cannot be used.

    `path` is the file or directory, `reason` says why in one sentence.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot use {path}: {reason}")
        self.path = path
        self.reason = reason


class StorageVersionError(StorageError):
    """A channel's files were written in another storage format.

    `found` is the format number in the file (0: not a ledger file at all), `supported` the one that this version reads.
    """

    def __init__(self, path: Path, found: int, supported: int) -> None:
        self.found = found
        self.supported = supported
        super().__init__(
            path,
            f"it has storage format {found} and this version of sovchain reads format {supported}; "
            "open it with the version that wrote it, or bring the network up in an empty directory",
        )


class StorageCorrupt(StorageError):
    """What is stored contradicts itself; `block` is the block at which that shows, if any."""

    def __init__(self, path: Path, reason: str, block: int | None = None) -> None:
        self.block = block
        at = "" if block is None else f" at block {block}"
        super().__init__(path, f"the stored ledger is damaged{at}: {reason}; restore the directory from a copy")


class ChannelExists(StorageError):
    """A channel was to be created where one is stored already."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "a channel is stored there already; open it instead of creating it")


class ChannelMissing(StorageError):
    """A channel was to be opened where none is stored."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "no channel is stored there; create it from its genesis block")


class GenesisRefused(LedgerError):
    """The block given to create a channel from cannot be its first block; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot create a channel from this block: {reason}; give the channel's genesis block")
        self.reason = reason


class BlockRefused(LedgerError):
    """A block that was ordered elsewhere cannot be appended.

    `channel_id` is the channel, `number` the block's number, `reason` says why.
    """

    def __init__(self, channel_id: str, number: int, reason: str) -> None:
        super().__init__(
            f"block {number} refused on channel {channel_id}: {reason}; give the blocks of this channel in their order"
        )
        self.channel_id = channel_id
        self.number = number
        self.reason = reason


class OrderingRefused(LedgerError):
    """An envelope was not accepted for ordering.

    `status` is a number of `common.Status` and `text` what goes into the broadcast response, as an orderer of Fabric
    gives them (`orderer/common/broadcast/broadcast.go`).
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class ChannelStopped(LedgerError):
    """The commit pipeline of a channel failed: nothing more is ordered or committed until the channel is opened again.

    What was committed before stands. `reason` names the failure; the failure itself is the exception's cause.
    """

    def __init__(self, channel_id: str, reason: str) -> None:
        super().__init__(
            f"channel {channel_id} has stopped: {reason}; what was committed before stands, restart the ledger"
        )
        self.channel_id = channel_id
        self.reason = reason


class ChannelClosed(LedgerError):
    """The channel was closed before what was waited for happened."""

    def __init__(self, channel_id: str) -> None:
        super().__init__(f"channel {channel_id} was closed; open it again and ask for the transaction's status")
        self.channel_id = channel_id


class ChannelReverted(LedgerError):
    """The channel went back to a snapshot while blocks or a transaction of what came after it were waited for."""

    def __init__(self, channel_id: str) -> None:
        super().__init__(f"channel {channel_id} went back to a snapshot; read its blocks anew and submit again")
        self.channel_id = channel_id


class TransientRefused(LedgerError):
    """Private data of a proposal was not accepted by an organisation's transient store.

    `limit` and `actual` are in bytes.
    """

    def __init__(self, msp_id: str, what: str, limit: int, actual: int) -> None:
        super().__init__(
            f"private data refused by the transient store of {msp_id}: {what} has {actual} bytes and the limit is "
            f"{limit}; submit or abandon what was endorsed before, or write less"
        )
        self.msp_id = msp_id
        self.limit = limit
        self.actual = actual


class SimulationError(LedgerError):
    """What a chaincode asked of the ledger is refused; the text is the one a peer of Fabric sends."""


class CollectionMissing(SimulationError):
    """The namespace has no such collection (`core/ledger/ledger_interface.go` InvalidCollNameError and its sibling)."""

    def __init__(self, text: str, namespace: str, collection: str) -> None:
        super().__init__(text)
        self.namespace = namespace
        self.collection = collection


class PrivateDataUnavailable(SimulationError):
    """This organisation does not hold the private value that the public hash stands for."""

    def __init__(self, text: str, namespace: str, collection: str) -> None:
        super().__init__(text)
        self.namespace = namespace
        self.collection = collection
