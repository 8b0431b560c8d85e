"""The stub for contract methods without `async`: each request waits in the method's thread for its answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from sovchain.chaincode.errors import StubUseError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from sovchain.chaincode.stub import Items, KeyModification, KeyValue, Page, Response, Stub

T = TypeVar("T")


class BlockingItems(Generic[T]):
    """The results of a query for `for` and `with`; see `Items`."""

    def __init__(self, items: Items[T], bridge: Bridge) -> None:
        self._items = items
        self._bridge = bridge

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        found = self._bridge.wait(self._next())
        if not found:
            raise StopIteration
        return found[0]

    async def _next(self) -> list[T]:
        try:
            return [await anext(self._items)]
        except StopAsyncIteration:
            return []

    def close(self) -> None:
        """End the query."""
        self._bridge.wait(self._items.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Bridge:
    """Carries coroutines from a thread to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs on the loop.

        Raises:
            StubUseError: called on the thread of the loop, where it could only wait for itself.
        """
        if _running_here(self._loop):
            coroutine.close()
            raise StubUseError("the blocking stub is for methods without async: await the requests of ctx.stub instead")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class BlockingStub:
    """The requests of `Stub` under the same names, each waiting for its answer."""

    def __init__(self, stub: Stub, loop: asyncio.AbstractEventLoop) -> None:
        self._stub = stub
        self._bridge = Bridge(loop)

    @property
    def transaction_id(self) -> str:
        """See `Stub.transaction_id`."""
        return self._stub.transaction_id

    @property
    def channel_id(self) -> str:
        """See `Stub.channel_id`."""
        return self._stub.channel_id

    @property
    def timestamp(self) -> datetime:
        """See `Stub.timestamp`."""
        return self._stub.timestamp

    @property
    def creator(self) -> bytes:
        """See `Stub.creator`."""
        return self._stub.creator

    @property
    def args(self) -> tuple[bytes, ...]:
        """See `Stub.args`."""
        return self._stub.args

    @property
    def transient(self) -> Mapping[str, bytes]:
        """See `Stub.transient`."""
        return self._stub.transient

    @property
    def decorations(self) -> Mapping[str, bytes]:
        """See `Stub.decorations`."""
        return self._stub.decorations

    @property
    def signed_proposal(self) -> bytes:
        """See `Stub.signed_proposal`."""
        return self._stub.signed_proposal

    @property
    def binding(self) -> bytes:
        """See `Stub.binding`."""
        return self._stub.binding

    def get_state(self, key: str) -> bytes | None:
        """See `Stub.get_state`."""
        return self._bridge.wait(self._stub.get_state(key))

    def get_multiple(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Stub.get_multiple`."""
        return self._bridge.wait(self._stub.get_multiple(keys))

    def put_state(self, key: str, value: bytes) -> None:
        """See `Stub.put_state`."""
        self._bridge.wait(self._stub.put_state(key, value))

    def delete_state(self, key: str) -> None:
        """See `Stub.delete_state`."""
        self._bridge.wait(self._stub.delete_state(key))

    def range(self, start: str = "", end: str = "") -> BlockingItems[KeyValue]:
        """See `Stub.range`."""
        return BlockingItems(self._stub.range(start, end), self._bridge)

    def partial_composite_range(self, object_type: str, attributes: Sequence[str] = ()) -> BlockingItems[KeyValue]:
        """See `Stub.partial_composite_range`."""
        return BlockingItems(self._stub.partial_composite_range(object_type, attributes), self._bridge)

    def range_page(self, start: str = "", end: str = "", *, page_size: int = 100, bookmark: str = "") -> Page[KeyValue]:
        """See `Stub.range_page`."""
        return self._bridge.wait(self._stub.range_page(start, end, page_size=page_size, bookmark=bookmark))

    def partial_composite_page(
        self, object_type: str, attributes: Sequence[str] = (), *, page_size: int = 100, bookmark: str = ""
    ) -> Page[KeyValue]:
        """See `Stub.partial_composite_page`."""
        return self._bridge.wait(
            self._stub.partial_composite_page(object_type, attributes, page_size=page_size, bookmark=bookmark)
        )

    def composite_page(self, *, page_size: int = 100, bookmark: str = "") -> Page[KeyValue]:
        """See `Stub.composite_page`."""
        return self._bridge.wait(self._stub.composite_page(page_size=page_size, bookmark=bookmark))

    def history(self, key: str) -> BlockingItems[KeyModification]:
        """See `Stub.history`."""
        return BlockingItems(self._stub.history(key), self._bridge)

    def rich_query(self, query: str) -> BlockingItems[KeyValue]:
        """See `Stub.rich_query`."""
        return BlockingItems(self._stub.rich_query(query), self._bridge)

    def rich_query_page(self, query: str, *, page_size: int = 100, bookmark: str = "") -> Page[KeyValue]:
        """See `Stub.rich_query_page`."""
        return self._bridge.wait(self._stub.rich_query_page(query, page_size=page_size, bookmark=bookmark))

    def get_validation_parameter(self, key: str) -> bytes | None:
        """See `Stub.get_validation_parameter`."""
        return self._bridge.wait(self._stub.get_validation_parameter(key))

    def set_validation_parameter(self, key: str, policy: bytes) -> None:
        """See `Stub.set_validation_parameter`."""
        self._bridge.wait(self._stub.set_validation_parameter(key, policy))

    def get_private_data(self, collection: str, key: str) -> bytes | None:
        """See `Stub.get_private_data`."""
        return self._bridge.wait(self._stub.get_private_data(collection, key))

    def get_multiple_private(self, collection: str, keys: Sequence[str], *, checked: bool = True) -> list[bytes | None]:
        """See `Stub.get_multiple_private`."""
        return self._bridge.wait(self._stub.get_multiple_private(collection, keys, checked=checked))

    def put_private_data(self, collection: str, key: str, value: bytes) -> None:
        """See `Stub.put_private_data`."""
        self._bridge.wait(self._stub.put_private_data(collection, key, value))

    def delete_private_data(self, collection: str, key: str) -> None:
        """See `Stub.delete_private_data`."""
        self._bridge.wait(self._stub.delete_private_data(collection, key))

    def purge_private_data(self, collection: str, key: str) -> None:
        """See `Stub.purge_private_data`."""
        self._bridge.wait(self._stub.purge_private_data(collection, key))

    def get_private_data_hash(self, collection: str, key: str) -> bytes | None:
        """See `Stub.get_private_data_hash`."""
        return self._bridge.wait(self._stub.get_private_data_hash(collection, key))

    def private_range(self, collection: str, start: str = "", end: str = "") -> BlockingItems[KeyValue]:
        """See `Stub.private_range`."""
        return BlockingItems(self._stub.private_range(collection, start, end), self._bridge)

    def private_partial_composite_range(
        self, collection: str, object_type: str, attributes: Sequence[str] = ()
    ) -> BlockingItems[KeyValue]:
        """See `Stub.private_partial_composite_range`."""
        return BlockingItems(
            self._stub.private_partial_composite_range(collection, object_type, attributes), self._bridge
        )

    def private_rich_query(self, collection: str, query: str) -> BlockingItems[KeyValue]:
        """See `Stub.private_rich_query`."""
        return BlockingItems(self._stub.private_rich_query(collection, query), self._bridge)

    def get_private_validation_parameter(self, collection: str, key: str) -> bytes | None:
        """See `Stub.get_private_validation_parameter`."""
        return self._bridge.wait(self._stub.get_private_validation_parameter(collection, key))

    def set_private_validation_parameter(self, collection: str, key: str, policy: bytes) -> None:
        """See `Stub.set_private_validation_parameter`."""
        self._bridge.wait(self._stub.set_private_validation_parameter(collection, key, policy))

    def set_event(self, name: str, payload: bytes) -> None:
        """See `Stub.set_event`."""
        self._stub.set_event(name, payload)

    def invoke_chaincode(
        self, chaincode: str, args: Sequence[bytes], *, channel: str = "", check: bool = True
    ) -> Response:
        """See `Stub.invoke_chaincode`."""
        return self._bridge.wait(self._stub.invoke_chaincode(chaincode, args, channel=channel, check=check))


def _running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
