"""Records for contract methods without `async`: each request waits in the method's thread for its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sovchain.chaincode.records import PrivateRecords, Records
from sovchain.chaincode.stub import DEFAULT_PAGE_SIZE, Page

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sovchain.chaincode.blocking import Bridge

M = TypeVar("M", bound="BaseModel")


class BlockingRecords(Generic[M]):
    """The methods of `Records` under the same names; scans give lists."""

    def __init__(self, records: Records[M], bridge: Bridge) -> None:
        """Made by `Context.blocking_records`."""
        self._records = records
        self._bridge = bridge

    def get(self, *key: Any) -> M | None:
        """See `Records.get`."""
        return self._bridge.wait(self._records.get(*key))

    def require(self, *key: Any) -> M:
        """See `Records.require`."""
        return self._bridge.wait(self._records.require(*key))

    def get_many(self, keys: Sequence[Sequence[Any]]) -> list[M | None]:
        """See `Records.get_many`."""
        return self._bridge.wait(self._records.get_many(keys))

    def put(self, record: M) -> None:
        """See `Records.put`."""
        self._bridge.wait(self._records.put(record))

    def insert(self, record: M) -> None:
        """See `Records.insert`."""
        self._bridge.wait(self._records.insert(record))

    def delete(self, *key: Any) -> bool:
        """See `Records.delete`."""
        return self._bridge.wait(self._records.delete(*key))

    def iterate(self, *prefix: Any) -> list[M]:
        """See `Records.iterate`."""
        return self._bridge.wait(_all(self._records.iterate(*prefix)))

    def find(self, index: str, *values: Any) -> list[M]:
        """See `Records.find`."""
        return self._bridge.wait(_all(self._records.find(index, *values)))

    def matching(self, selector: Mapping[str, Any]) -> list[M]:
        """See `Records.matching`."""
        return self._bridge.wait(_all(self._records.matching(selector)))

    def page(self, *prefix: Any, size: int = DEFAULT_PAGE_SIZE, bookmark: str = "") -> Page[M]:
        """See `Records.page`."""
        return self._bridge.wait(self._records.page(*prefix, size=size, bookmark=bookmark))

    def find_page(self, index: str, *values: Any, size: int = DEFAULT_PAGE_SIZE, bookmark: str = "") -> Page[M]:
        """See `Records.find_page`."""
        return self._bridge.wait(self._records.find_page(index, *values, size=size, bookmark=bookmark))

    def set_endorsers(self, *key: Any, policy: bytes) -> None:
        """See `Records.set_endorsers`."""
        self._bridge.wait(self._records.set_endorsers(*key, policy=policy))


class BlockingPrivateRecords(BlockingRecords[M]):
    """The methods of `PrivateRecords` under the same names."""

    def __init__(self, records: PrivateRecords[M], bridge: Bridge) -> None:
        """Made by `Context.blocking_private_records`."""
        super().__init__(records, bridge)
        self._private = records

    def put(self, record: M, *, salt: bytes | None = None) -> None:
        """See `PrivateRecords.put`."""
        self._bridge.wait(self._private.put(record, salt=salt))

    def insert(self, record: M, *, salt: bytes | None = None) -> None:
        """See `PrivateRecords.insert`."""
        self._bridge.wait(self._private.insert(record, salt=salt))

    def hash(self, *key: Any) -> bytes | None:
        """See `PrivateRecords.hash`."""
        return self._bridge.wait(self._private.hash(*key))

    def purge(self, *key: Any) -> None:
        """See `PrivateRecords.purge`."""
        self._bridge.wait(self._private.purge(*key))


async def _all(found: AsyncIterator[M]) -> list[M]:
    return [record async for record in found]
