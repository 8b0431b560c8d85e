"""Which chaincodes a channel has, and whether a peer can run them.

Mirrors core/chaincode/lifecycle/endorsement_info.go and cache.go: a chaincode is callable on a peer once its definition
is committed, the peer's organisation approved exactly this definition, and the approved package is installed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from sovchain.ledger.chainview import ChainView
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.package_store import PackageStore
from sovchain.ledger.state import Snapshot
from sovchain.protocol.lifecycle import (
    LIFECYCLE_NAMESPACE,
    ChaincodeDefinition,
    approval_mismatches,
    implicit_collection,
    read_approval,
    read_definition,
)

SYSTEM_CHAINCODE_VERSION: Final = "syscc"
SYSTEM_CHAINCODES: Final = frozenset({"_lifecycle", "cscc", "qscc"})
_MAX_CACHED: Final = 4_096

_K = TypeVar("_K")
_V = TypeVar("_V")


class DefinitionError(LedgerError):
    """A chaincode cannot be called on a peer; the text is Fabric's."""


@dataclass(frozen=True)
class EndorsementInfo:
    """What is needed to run a chaincode on one peer: the committed definition and the organisation's package."""

    definition: ChaincodeDefinition
    package_id: str


class Definitions:
    """Committed definitions and approvals as snapshots show them, remembered until a block changes one of the channel."""

    def __init__(self) -> None:
        self._committed: dict[tuple[str, str], tuple[int, ChaincodeDefinition | None]] = {}
        self._approved: dict[tuple[str, str, str], tuple[int, str | None]] = {}

    def committed(self, channel: ChainView, snapshot: Snapshot, name: str) -> ChaincodeDefinition | None:
        """Return the committed definition of a chaincode, None if the channel has none."""
        key = (channel.channel_id, name)
        cached = self._committed.get(key)
        if cached is not None and channel.same_definitions(cached[0], snapshot.height):
            return cached[1]
        definition = read_definition(lambda entry: snapshot.get(LIFECYCLE_NAMESPACE, entry), name)
        _remember(self._committed, key, (snapshot.height, definition))
        return definition

    def forget(self) -> None:
        """Forget everything: heights do not tell states apart any more after a channel went back."""
        self._committed.clear()
        self._approved.clear()

    def endorsement_info(
        self, channel: ChainView, snapshot: Snapshot, name: str, msp_id: str, packages: PackageStore
    ) -> EndorsementInfo:
        """Return what the peer of an organisation needs to run a chaincode.

        Raises:
            DefinitionError: it is not defined, not approved by the organisation, or not installed on its peer.
        """
        definition = self.committed(channel, snapshot, name)
        if definition is None:
            raise DefinitionError(f"chaincode {name} not found")
        package_id = self._package_id(channel, snapshot, definition, msp_id)
        if package_id is None:
            raise DefinitionError(
                f"chaincode definition for '{name}' at sequence {definition.sequence} on channel "
                f"'{channel.channel_id}' has not yet been approved by this org"
            )
        if packages.get(package_id) is None:
            raise DefinitionError(f"chaincode definition for '{name}' exists, but chaincode is not installed")
        return EndorsementInfo(definition, package_id)

    def is_callable(
        self, channel: ChainView, snapshot: Snapshot, name: str, msp_id: str, packages: PackageStore
    ) -> bool:
        """Whether the peer of an organisation can run a chaincode (what discovery calls "has it installed")."""
        if name in SYSTEM_CHAINCODES:
            return True
        try:
            self.endorsement_info(channel, snapshot, name, msp_id, packages)
        except DefinitionError:
            return False
        return True

    def _package_id(
        self, channel: ChainView, snapshot: Snapshot, definition: ChaincodeDefinition, msp_id: str
    ) -> str | None:
        """Return the package that the organisation approved for this definition, None without an approval of it."""
        key = (channel.channel_id, definition.name, msp_id)
        cached = self._approved.get(key)
        if cached is not None and channel.same_definitions(cached[0], snapshot.height):
            return cached[1]
        package_id = None
        if not approval_mismatches(approval_hashes(snapshot, msp_id), definition):
            approval = read_approval(_private_state(snapshot, msp_id), definition.name, definition.sequence)
            package_id = approval.package_id if approval is not None else None
        _remember(self._approved, key, (snapshot.height, package_id))
        return package_id


def approval_hashes(snapshot: Snapshot, msp_id: str) -> Callable[[str], bytes | None]:
    """Return a reader of the public hashes of an organisation's approvals."""
    collection = implicit_collection(msp_id)

    def read(key: str) -> bytes | None:
        return snapshot.hashed_value(LIFECYCLE_NAMESPACE, collection, hashlib.sha256(key.encode()).digest())

    return read


def _private_state(snapshot: Snapshot, msp_id: str) -> Callable[[str], bytes | None]:
    collection = implicit_collection(msp_id)

    def read(key: str) -> bytes | None:
        entry = snapshot.private(msp_id, LIFECYCLE_NAMESPACE, collection, key)
        return entry[0] if entry is not None else None

    return read


def _remember(cache: dict[_K, _V], key: _K, value: _V) -> None:
    if len(cache) >= _MAX_CACHED:
        cache.clear()  # names come from clients: the cache must not grow with what they invent
    cache[key] = value
