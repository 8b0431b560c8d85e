"""Notices when a transaction reads what it has written itself.

Fabric gives such a read the committed value, as if nothing had been written (core/ledger/kvledger/txmgmt/txmgr, the
simulator reads through to the state database). People who come from other databases expect the new value; so a test, or a
running chaincode while it is being tested, can be told of each such read.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

from sovchain.chaincode.errors import StubUseError
from sovchain.rpc.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterable

OwnReadsMode = Literal["silent", "warn", "refuse"]
"""What happens when a transaction reads a key that it has written: nothing, a warning, or `StubUseError`."""
OWN_READS_VARIABLE = "SOVCHAIN_OWN_READS"
"""Environment variable that sets the mode of a chaincode that `python -m sovchain.chaincode` runs."""

log = Log("sovchain.chaincode.ownreads")


class OwnReadWarning(UserWarning):
    """A transaction read a key that it had written, and was given the committed value."""


class OwnReads:
    """The keys that one transaction has written.

    Args:
        mode: what to do about a read of one of them.
        transaction_id: for the log.
    """

    def __init__(self, mode: OwnReadsMode, transaction_id: str) -> None:
        self._mode = mode
        self._transaction_id = transaction_id
        self._written: dict[str, set[str]] = {}

    def wrote(self, collection: str, key: str) -> None:
        """A key was written or deleted; the collection of public state is ""."""
        self._written.setdefault(collection, set()).add(key)

    def reads(self, collection: str, keys: Iterable[str]) -> None:
        """Keys are about to be read. Raises StubUseError in the mode `refuse`."""
        written = self._written.get(collection)
        if written and not written.isdisjoint(keys):
            self._tell(collection, "a key that it has written")

    def scans(self, collection: str, start: str, end: str) -> None:
        """The keys from `start` to before `end` are about to be read. Raises StubUseError in the mode `refuse`."""
        written = self._written.get(collection)
        if written and any(start <= key and (not end or key < end) for key in written):
            self._tell(collection, "a range in which it has written")

    def _tell(self, collection: str, what: str) -> None:
        where = f"collection {collection}" if collection else "the public state"
        text = (
            f"the transaction reads {what}, in {where}: fabric answers with what was committed before the transaction; "
            "keep the new value in a variable"
        )
        if self._mode == "refuse":
            raise StubUseError(text)
        # Neither key nor value: both may be private.
        log.warning("own write read", transaction_id=self._transaction_id, collection=collection)
        warnings.warn(text, OwnReadWarning, stacklevel=4)
