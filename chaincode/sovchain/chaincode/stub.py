"""What a contract may ask of the ledger in one transaction.

`Stub` is the interface; `sovchain.chaincode.peerstub.PeerStub` answers it over the stream to a peer, and a test may
answer it from memory. The rules are Fabric's: reads give what is committed and never the transaction's own writes;
writes take effect when the transaction is committed and found valid.

Mirrors fabric-chaincode-go/shim/interfaces.go (ChaincodeStubInterface).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Self, TypeVar

from sovchain.chaincode.errors import NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

T_co = TypeVar("T_co", covariant=True)

DEFAULT_PAGE_SIZE = 100


class KeyValue(NamedTuple):
    """One key of a scan with its committed value."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class KeyModification:
    """One committed change of a key, from `Stub.history`. `value` is None for a deletion."""

    transaction_id: str
    value: bytes | None
    timestamp: datetime
    deleted: bool


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """One page of a scan.

    Attributes:
        items: what it holds.
        bookmark: starts the next page; empty after the last one.
        fetched: the peer's own count of the items (`fetched_records_count`).
    """

    items: tuple[T_co, ...]
    bookmark: str
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """What a chaincode answers: a status below 400 is endorsed."""

    status: int
    message: str = ""
    payload: bytes = b""


class Items(ABC, Generic[T_co]):
    """The results of a query, fetched from the peer only as the contract asks for them.

    Use it with `async for`. A loop that runs to the end closes it; a loop that is left early should be inside
    `async with`, so that the peer need not keep the query open until the transaction ends.
    """

    @abstractmethod
    async def __anext__(self) -> T_co: ...

    @abstractmethod
    async def aclose(self) -> None:
        """End the query. May be called more than once."""

    async def take(self, limit: int) -> list[T_co]:
        """At most `limit` further items; ends the query."""
        found: list[T_co] = []
        async with self:
            while len(found) < limit:
                try:
                    found.append(await anext(self))
                except StopAsyncIteration:
                    break
        return found

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Stub(ABC):
    """One transaction's view of the ledger, its input and its output.

    Keys are non-empty text without lone surrogates. Values are bytes; an empty value is refused, because Fabric would
    record it as a deletion. All methods raise `LedgerError` when the peer refuses, and `StubUseError` for a request
    that could not be right.
    """

    read_only: bool = False
    """Set while a `@query` runs: writes and events raise `StubUseError`."""

    # -- the transaction ---------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def transaction_id(self) -> str:
        """Hexadecimal SHA-256 that names the transaction."""

    @property
    @abstractmethod
    def channel_id(self) -> str:
        """The channel whose ledger this transaction sees."""

    @property
    @abstractmethod
    def timestamp(self) -> datetime:
        """The time that the client wrote into the proposal, in UTC; the same on every endorsing peer."""

    @property
    @abstractmethod
    def creator(self) -> bytes:
        """The client's marshalled `SerializedIdentity`."""

    @property
    @abstractmethod
    def args(self) -> tuple[bytes, ...]:
        """The arguments of the call; the first is the function's name."""

    @property
    @abstractmethod
    def transient(self) -> Mapping[str, bytes]:
        """What the client sent beside the proposal; it is never recorded."""

    @property
    def decorations(self) -> Mapping[str, bytes]:
        """What the peer's decorators added to the input."""
        return {}

    @property
    def signed_proposal(self) -> bytes:
        """The marshalled `SignedProposal` as the client signed it."""
        raise NotSupportedError("this stub was not made from a signed proposal")

    @property
    def binding(self) -> bytes:
        """SHA-256 of nonce, creator and epoch: ties transient data to this one proposal."""
        raise NotSupportedError("this stub was not made from a signed proposal")

    # -- public state ------------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_state(self, key: str) -> bytes | None:
        """The committed value of `key`, or None. The read is recorded with its version."""

    async def get_multiple(self, keys: Sequence[str]) -> list[bytes | None]:
        """The committed values of `keys` in their order: one request where the peer offers that."""
        return [await self.get_state(key) for key in keys]

    @abstractmethod
    async def put_state(self, key: str, value: bytes) -> None:
        """Write `value` under `key` if the transaction is committed as valid.

        Raises:
            StubUseError: key or value is empty, or the operation is a query.
        """

    @abstractmethod
    async def delete_state(self, key: str) -> None:
        """Delete `key` if the transaction is committed as valid."""

    @abstractmethod
    def range(self, start: str = "", end: str = "") -> Items[KeyValue]:
        """The keys from `start` (inclusive) to `end` (exclusive) in byte order; an empty bound is open.

        Composite keys are not part of it. The scan is checked again when the transaction is committed (phantom
        protection), as far as the peer has read, which may be up to one frame (100 keys) further than the contract.
        A peer ends a scan silently at its `totalQueryLimit`: scan what may be larger by pages.
        """

    @abstractmethod
    def partial_composite_range(self, object_type: str, attributes: Sequence[str] = ()) -> Items[KeyValue]:
        """The composite keys of `object_type` whose first attributes are `attributes`."""

    async def range_page(
        self, start: str = "", end: str = "", *, page_size: int = DEFAULT_PAGE_SIZE, bookmark: str = ""
    ) -> Page[KeyValue]:
        """One page of `range`. Not protected against phantoms, and refused together with writes."""
        raise NotSupportedError("this stub has no pages: use range")

    async def partial_composite_page(
        self,
        object_type: str,
        attributes: Sequence[str] = (),
        *,
        page_size: int = DEFAULT_PAGE_SIZE,
        bookmark: str = "",
    ) -> Page[KeyValue]:
        """One page of `partial_composite_range`, under the conditions of `range_page`."""
        raise NotSupportedError("this stub has no pages: use partial_composite_range")

    async def composite_page(self, *, page_size: int = DEFAULT_PAGE_SIZE, bookmark: str = "") -> Page[KeyValue]:
        """One page of all composite keys, of whatever type, under the conditions of `range_page`."""
        raise NotSupportedError("this stub has no pages: use partial_composite_range")

    def rich_query(self, query: str) -> Items[KeyValue]:
        """The results of a CouchDB selector. Each result is recorded as a read; new matches are not noticed."""
        raise NotSupportedError("this stub has no rich queries: use ranges over composite keys")

    async def rich_query_page(
        self, query: str, *, page_size: int = DEFAULT_PAGE_SIZE, bookmark: str = ""
    ) -> Page[KeyValue]:
        """One page of `rich_query`."""
        raise NotSupportedError("this stub has no rich queries: use ranges over composite keys")

    def history(self, key: str) -> Items[KeyModification]:
        """The committed changes of a public key, newest first. Nothing is recorded, so nothing protects the result."""
        raise NotSupportedError("this stub has no history")

    async def get_validation_parameter(self, key: str) -> bytes | None:
        """The key's own endorsement policy (`ApplicationPolicy` or `SignaturePolicyEnvelope` bytes), or None."""
        raise NotSupportedError("this stub has no endorsement policies of keys")

    async def set_validation_parameter(self, key: str, policy: bytes) -> None:
        """Set the key's own endorsement policy; the next transaction that writes the key must satisfy it."""
        raise NotSupportedError("this stub has no endorsement policies of keys")

    # -- private data ------------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_private_data(self, collection: str, key: str) -> bytes | None:
        """The committed private value of `key`, or None; only peers of the collection's members have it."""

    async def get_multiple_private(
        self, collection: str, keys: Sequence[str], *, checked: bool = True
    ) -> list[bytes | None]:
        """The committed private values of `keys` in their order.

        Args:
            collection: the collection.
            keys: the keys.
            checked: read each key by itself, so that a peer that lacks a value says so. Without it one request reads many
                keys where the peer offers that; but then Fabric does not compare the private values with their hashes, and
                a value that the peer has not received yet reads as absent (txmgr/query_executor.go).
        """
        return [await self.get_private_data(collection, key) for key in keys]

    @abstractmethod
    async def put_private_data(self, collection: str, key: str, value: bytes) -> None:
        """Write a private value; its hash, and only that, goes onto the ledger."""

    @abstractmethod
    async def delete_private_data(self, collection: str, key: str) -> None:
        """Delete a private value."""

    @abstractmethod
    async def get_private_data_hash(self, collection: str, key: str) -> bytes | None:
        """SHA-256 of the committed private value, or None; every peer of the channel has it."""

    async def purge_private_data(self, collection: str, key: str) -> None:
        """Delete a private value together with its history in the private stores; hashes stay on the ledger."""
        raise NotSupportedError("this stub does not purge")

    def private_range(self, collection: str, start: str = "", end: str = "") -> Items[KeyValue]:
        """`range` over a collection. Refused together with writes and without protection against phantoms."""
        raise NotSupportedError("this stub has no private ranges")

    def private_partial_composite_range(
        self, collection: str, object_type: str, attributes: Sequence[str] = ()
    ) -> Items[KeyValue]:
        """`partial_composite_range` over a collection, under the conditions of `private_range`."""
        raise NotSupportedError("this stub has no private ranges")

    def private_rich_query(self, collection: str, query: str) -> Items[KeyValue]:
        """`rich_query` over a collection. Refused together with writes; nothing protects its results."""
        raise NotSupportedError("this stub has no private rich queries: use private_range")

    async def get_private_validation_parameter(self, collection: str, key: str) -> bytes | None:
        """The private key's own endorsement policy, or None."""
        raise NotSupportedError("this stub has no endorsement policies of keys")

    async def set_private_validation_parameter(self, collection: str, key: str, policy: bytes) -> None:
        """Set the private key's own endorsement policy."""
        raise NotSupportedError("this stub has no endorsement policies of keys")

    # -- output ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def set_event(self, name: str, payload: bytes) -> None:
        """Attach an event to the transaction. There is one; the last call wins; a refused transaction has none.

        Raises:
            StubUseError: the name is empty, or the operation is a query.
        """

    async def invoke_chaincode(
        self, chaincode: str, args: Sequence[bytes], *, channel: str = "", check: bool = True
    ) -> Response:
        """Call another chaincode in the same transaction.

        On the same channel its reads and writes become part of this transaction. On another channel its writes are
        thrown away and its reads are not protected.

        Raises:
            CalledChaincodeError: its status is 400 or more and `check` is set.
        """
        raise NotSupportedError("this stub calls no other chaincode")

    # -- composite keys ----------------------------------------------------------------------------------------------

    @staticmethod
    def composite_key(object_type: str, attributes: Sequence[str]) -> str:
        """U+0000, the object type, and each attribute, each followed by U+0000.

        Raises:
            ProtocolError: a part is not UTF-8 or holds U+0000 or U+10FFFF.
        """
        from sovchain.protocol.keys import composite_key

        return composite_key(object_type, attributes)

    @staticmethod
    def split_composite_key(key: str) -> tuple[str, list[str]]:
        """The object type and the attributes of a composite key.

        Raises:
            ProtocolError: `key` is not a composite key.
        """
        from sovchain.protocol.keys import split_composite_key

        return split_composite_key(key)
