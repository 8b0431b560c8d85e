"""State as typed records: what `ctx.records(Model)` and `ctx.private_records(Model, collection)` give.

As everywhere on Fabric, reads give what is committed and never the transaction's own writes; indexes are kept in step all
the same when one transaction writes a record twice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from sovchain.chaincode import exacttext
from sovchain.chaincode.bookmarks import Listing
from sovchain.chaincode.errors import E_EXISTS, E_NOT_FOUND, ContractError, RecordError, StubUseError
from sovchain.chaincode.recordtypes import SALT_FIELD, VERSION_FIELD, RecordType, record_type
from sovchain.chaincode.stub import DEFAULT_PAGE_SIZE, Items, KeyValue, Page
from sovchain.protocol.canonical import canonical_json, parse_json
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.keys import composite_key, split_composite_key

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sovchain.chaincode.stub import Stub

M = TypeVar("M", bound="BaseModel")

INDEX_VALUE = b"\x00"
"""What stands under an index entry, as Fabric's samples write it."""
MIN_SALT_BYTES = 16

Written = dict[tuple[str, str], frozenset[str]]
"""The index entries that a record has after this transaction's own writes, by collection and key."""


class Records(Generic[M]):
    """The records of one model in public state. Made by `Context.records`.

    Values of key fields are given in the order of the model's `key`. All methods raise `RecordError` when what is stored
    cannot be read as the model, and `LedgerError` or `StubUseError` as the stub does.
    """

    def __init__(self, stub: Stub, model: type[M], written: Written) -> None:
        self._stub = stub
        self._model = model
        self._type = record_type(model)
        self._written = written

    @property
    def type(self) -> RecordType:
        """What the model's declaration says."""
        return self._type

    def key(self, *key: Any) -> str:
        """The key in state of a record."""
        if len(key) != len(self._type.key):
            raise RecordError(f"record {self._type.name} is named by {', '.join(self._type.key)}: {len(key)} given")
        return _composite(self._type.name, self._type.key_parts(key))

    async def get(self, *key: Any) -> M | None:
        """The committed record, or None. An older version is migrated in memory."""
        raw = await self._read(self.key(*key))
        return None if raw is None else self._decode(raw)

    async def require(self, *key: Any) -> M:
        """The committed record.

        Raises:
            ContractError: E_NOT_FOUND.
        """
        found = await self.get(*key)
        if found is None:
            raise self._refused(E_NOT_FOUND, f"there is no {self._type.name} with this key", key)
        return found

    async def get_many(self, keys: Sequence[Sequence[Any]]) -> list[M | None]:
        """The committed records of several keys in their order, in one request where the peer offers that."""
        found = await self._read_many([self.key(*key) for key in keys])
        return [None if raw is None else self._decode(raw) for raw in found]

    async def put(self, record: M) -> None:
        """Write a record, new or not, and move its index entries.

        With indexes it reads the committed record first, so that of two transactions that change it at the same time
        one is found invalid; without, it is a blind write.
        """
        await self._store(record)

    async def insert(self, record: M) -> None:
        """Write a record that must be new.

        Raises:
            ContractError: E_EXISTS.
        """
        values = [getattr(record, field) for field in self._type.key]
        if await self._read(self.key(*values)) is not None:
            raise self._refused(E_EXISTS, f"there is a {self._type.name} with this key already", values)
        await self._store(record)

    async def delete(self, *key: Any) -> bool:
        """Delete a record with its index entries; say whether it was there.

        The committed record is read, so of two transactions that change it at the same time one is found invalid.
        """
        name = self.key(*key)
        raw = await self._read(name)
        for entry in sorted((await self._entries_before(name, raw))[0]):
            await self._remove(entry)
        self._written[self._place, name] = frozenset()
        await self._remove(name)
        return raw is not None

    async def iterate(self, *prefix: Any) -> AsyncIterator[M]:
        """The records in the order of their keys; with values, those whose first key fields are these.

        A peer ends a scan silently at its `totalQueryLimit`: read what may be larger by pages.
        """
        async with self._range(self._type.name, self._type.key_parts(prefix)) as items:
            async for item in items:
                yield self._decode(item.value)

    async def find(self, index: str, *values: Any) -> AsyncIterator[M]:
        """The records whose first indexed fields are these, in the order of the index."""
        async with self._range(self._type.index_name(index), self._type.index_parts(index, values)) as items:
            async for item in items:
                yield self._decode(await self._indexed(item.key))

    async def matching(self, selector: Mapping[str, Any]) -> AsyncIterator[M]:
        """The records that a CouchDB selector matches, in the order of their keys; needs peers with CouchDB.

        New matches are not noticed at commit, so let no decision rest on them. Raises what `Stub.rich_query` raises.
        """
        prefix = _composite(self._type.name, ())
        ours = {"_id": {"$gte": prefix, "$lt": f"{prefix}\U0010ffff"}}
        query = json.dumps({"selector": {"$and": [ours, selector]}}, allow_nan=False)
        async with self._rich(query) as items:
            async for item in items:
                yield self._decode(item.value)

    async def page(self, *prefix: Any, size: int = DEFAULT_PAGE_SIZE, bookmark: str = "") -> Page[M]:
        """One page of `iterate`, for queries: Fabric refuses pages in a transaction that writes.

        Args:
            prefix: values of the first key fields.
            size: most records of the page.
            bookmark: of the page before; empty for the first. It stays good when the chaincode is upgraded.

        Raises:
            ContractError: E_BOOKMARK for a bookmark of another listing.
        """
        listing = Listing(self._place, self._type.name, self._type.key_parts(prefix))
        found, following = await self._page(listing, size, bookmark)
        return Page(tuple(self._decode(item.value) for item in found), following)

    async def find_page(self, index: str, *values: Any, size: int = DEFAULT_PAGE_SIZE, bookmark: str = "") -> Page[M]:
        """One page of `find`, under the conditions of `page`."""
        listing = Listing(self._place, self._type.index_name(index), self._type.index_parts(index, values))
        found, following = await self._page(listing, size, bookmark)
        raws = await self._read_many([self._record_key(item.key) for item in found])
        return Page(tuple(self._decode(self._present(raw)) for raw in raws), following)

    async def outdated(self, *, size: int = DEFAULT_PAGE_SIZE, bookmark: str = "") -> Page[tuple[str, ...]]:
        """Which records are stored in an older version, as parts of their keys for `refresh`; by pages, for queries."""
        listing = Listing(self._place, self._type.name, [])
        found, following = await self._page(listing, size, bookmark)
        old = [item.key for item in found if self._document(item.value)[1] < self._type.version]
        return Page(tuple(tuple(split_composite_key(key)[1]) for key in old), following)

    async def refresh(self, parts: Sequence[Sequence[str]]) -> int:
        """Write records again in the current version with all their index entries; say how many.

        After an upgrade that adds an index or a version: a query lists `outdated` records, a transaction refreshes them.
        """
        names = [_composite(self._type.name, [*one]) for one in parts]
        count = 0
        for raw in await self._read_many(names):
            if raw is not None:
                await self._store(self._decode(raw), salt=self._document(raw)[2])
                count += 1
        return count

    async def set_endorsers(self, *key: Any, policy: bytes) -> None:
        """Set the record's own endorsement policy: the next transaction that writes it must satisfy it.

        Args:
            key: values of the key fields.
            policy: a marshalled `SignaturePolicyEnvelope`, such as `endorsed_by` makes.
        """
        await self._stub.set_validation_parameter(self.key(*key), policy)

    async def endorsers(self, *key: Any) -> bytes | None:
        """The record's own endorsement policy, or None."""
        return await self._stub.get_validation_parameter(self.key(*key))

    # -- bytes -----------------------------------------------------------------------------------------------------

    async def _store(self, record: M, *, salt: str | None = None) -> None:
        name = self.key(*(getattr(record, field) for field in self._type.key))
        raw = self._encode(record, salt)
        if self._type.indexes:
            entries = frozenset(_composite(kind, parts) for kind, parts in self._type.index_entries(record))
            before, complete = await self._entries_before(name, None)
            for entry in sorted(before - entries):
                await self._remove(entry)
            for entry in sorted(entries - before if complete else entries):
                await self._write(entry, INDEX_VALUE)
            self._written[self._place, name] = entries
        await self._write(name, raw)

    async def _entries_before(self, name: str, raw: bytes | None) -> tuple[frozenset[str], bool]:
        """The index entries that a record may have now, and whether all of them exist.

        They are those of this transaction's own writes, else of the committed record. Entries of a record in an older
        version need not exist, since its contract may not have had the index.
        """
        if not self._type.indexes:
            return frozenset(), True
        known = self._written.get((self._place, name))
        if known is not None:
            return known, True
        raw = raw if raw is not None else await self._read(name)
        if raw is None:
            return frozenset(), True
        entries = frozenset(_composite(kind, parts) for kind, parts in self._type.index_entries(self._decode(raw)))
        return entries, self._document(raw)[1] == self._type.version

    def _encode(self, record: M, salt: str | None) -> bytes:
        from pydantic_core import PydanticSerializationError

        if type(record) is not self._model:
            raise RecordError(f"a {type(record).__name__} is no record {self._type.name}")
        try:
            document = record.model_dump(mode="json", by_alias=True, warnings="error")
            if exacttext.model_concerns(self._model):
                document = exacttext.outgoing(record.model_dump(by_alias=True, warnings="error"), document)
            if self._type.version > 1:
                document[VERSION_FIELD] = self._type.version
            if salt is not None:
                document[SALT_FIELD] = salt
            return canonical_json(document)
        except (PydanticSerializationError, UnicodeEncodeError):
            raise RecordError(f"a field of the record {self._type.name} is not of its declared type") from None
        except ProtocolError as error:
            raise RecordError(f"the record {self._type.name} cannot be kept in state: {error}") from None
        except exacttext.Mismatch as error:
            raise RecordError(f"the record {self._type.name} cannot be kept in state: a field {error}") from None

    def _document(self, raw: bytes) -> tuple[dict[str, Any], int, str | None]:
        try:
            document = parse_json(raw)
        except ProtocolError:
            document = None
        if not isinstance(document, dict):
            raise RecordError(f"what is stored as {self._type.name} is no JSON object")
        version, salt = document.pop(VERSION_FIELD, 1), document.pop(SALT_FIELD, None)
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise RecordError(f"what is stored as {self._type.name} has no version")
        return cast("dict[str, Any]", document), version, cast("str | None", salt)

    def _decode(self, raw: bytes) -> M:
        from pydantic import ValidationError

        from sovchain.chaincode.values import describe

        document, version, _ = self._document(raw)
        document = self._type.current(document, version)
        try:
            # Through JSON, since strict reading takes times and enums from their texts only there.
            return self._model.model_validate_json(canonical_json(document), strict=True)
        except (ValidationError, ProtocolError) as error:
            known = frozenset(self._model.model_fields)
            why = describe(error, known) if isinstance(error, ValidationError) else "is no JSON"
            raise RecordError(f"what is stored as {self._type.name} {why}") from None

    def _present(self, raw: bytes | None) -> bytes:
        if raw is None:
            raise RecordError(f"an index of {self._type.name} names a record that is not there")
        return raw

    async def _indexed(self, entry: str) -> bytes:
        return self._present(await self._read(self._record_key(entry)))

    def _record_key(self, entry: str) -> str:
        return _composite(self._type.name, split_composite_key(entry)[1][-len(self._type.key) :])

    def _refused(self, code: str, text: str, key: Sequence[Any]) -> ContractError:
        return ContractError(code, text, record=self._type.name, key=self._type.key_parts(key))

    # -- where they lie ---------------------------------------------------------------------------------------------

    _place = ""

    async def _read(self, key: str) -> bytes | None:
        return await self._stub.get_state(key)

    async def _read_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._stub.get_multiple(keys)

    async def _write(self, key: str, value: bytes) -> None:
        await self._stub.put_state(key, value)

    async def _remove(self, key: str) -> None:
        await self._stub.delete_state(key)

    def _range(self, kind: str, parts: Sequence[str]) -> Items[KeyValue]:
        return self._stub.partial_composite_range(kind, parts)

    def _rich(self, query: str) -> Items[KeyValue]:
        return self._stub.rich_query(query)

    async def _page(self, listing: Listing, size: int, bookmark: str) -> tuple[Sequence[KeyValue], str]:
        start = listing.start(bookmark)
        found = await self._stub.partial_composite_page(listing.kind, listing.prefix, page_size=size, bookmark=start)
        return found.items, listing.bookmark(found.bookmark)


class PrivateRecords(Records[M]):
    """The records of one model in a private collection. Made by `Context.private_records`.

    Only the collection's members hold them; everybody sees the hashes of keys and values. A value that could be guessed
    is given a salt of at least 16 random bytes that the client sends in the transient map.
    """

    def __init__(self, stub: Stub, model: type[M], written: Written, collection: str) -> None:
        super().__init__(stub, model, written)
        self._place = collection

    async def put(self, record: M, *, salt: bytes | None = None) -> None:
        """Write a record, new or not. `salt` keeps its hash from being guessed; without one an older salt is dropped."""
        await self._store(record, salt=_salt(salt))

    async def insert(self, record: M, *, salt: bytes | None = None) -> None:
        """Write a record that must be new. Raises ContractError E_EXISTS."""
        values = [getattr(record, field) for field in self._type.key]
        if await self.hash(*values) is not None:
            raise self._refused(E_EXISTS, f"there is a {self._type.name} with this key already", values)
        await self._store(record, salt=_salt(salt))

    async def hash(self, *key: Any) -> bytes | None:
        """SHA-256 of the stored value, or None; every peer of the channel has it."""
        return await self._stub.get_private_data_hash(self._place, self.key(*key))

    async def purge(self, *key: Any) -> None:
        """Delete a record with its index entries, together with their history in the private stores."""
        name = self.key(*key)
        for entry in sorted((await self._entries_before(name, None))[0]):
            await self._stub.purge_private_data(self._place, entry)
        self._written[self._place, name] = frozenset()
        await self._stub.purge_private_data(self._place, name)

    async def set_endorsers(self, *key: Any, policy: bytes) -> None:
        """As `Records.set_endorsers`."""
        await self._stub.set_private_validation_parameter(self._place, self.key(*key), policy)

    async def endorsers(self, *key: Any) -> bytes | None:
        """As `Records.endorsers`."""
        return await self._stub.get_private_validation_parameter(self._place, self.key(*key))

    def _refused(self, code: str, text: str, key: Sequence[Any]) -> ContractError:
        return ContractError(code, text, record=self._type.name)  # the key is private too

    async def _read(self, key: str) -> bytes | None:
        return await self._stub.get_private_data(self._place, key)

    async def _read_many(self, keys: Sequence[str]) -> list[bytes | None]:
        # One by one: a peer compares each value with its public hash only then (txmgr/query_executor.go).
        return [await self._read(key) for key in keys]

    async def _write(self, key: str, value: bytes) -> None:
        await self._stub.put_private_data(self._place, key, value)

    async def _remove(self, key: str) -> None:
        await self._stub.delete_private_data(self._place, key)

    def _range(self, kind: str, parts: Sequence[str]) -> Items[KeyValue]:
        return self._stub.private_partial_composite_range(self._place, kind, parts)

    def _rich(self, query: str) -> Items[KeyValue]:
        return self._stub.private_rich_query(self._place, query)

    async def _page(self, listing: Listing, size: int, bookmark: str) -> tuple[Sequence[KeyValue], str]:
        """Fabric has no pages of private data (fabric#4197): the scan skips what came before."""
        if size < 1:
            raise StubUseError("a page has at least one record")
        start = listing.start(bookmark)
        found: list[KeyValue] = []
        async with self._range(listing.kind, listing.prefix) as items:
            async for item in items:
                if item.key < start:
                    continue
                if len(found) == size:
                    return found, listing.bookmark(item.key)
                found.append(item)
        return found, ""


def endorsed_by(*msp_ids: str) -> bytes:
    """The endorsement policy of a key that takes a peer of every one of these MSPs.

    The same bytes as the state-based helper of Go makes (fabric-chaincode-go/pkg/statebased/statebasedimpl.go).
    """
    from sovchain.protocol.policydsl import parse

    names = sorted(set(msp_ids))
    if not names:
        raise RecordError("an endorsement policy names at least one MSP")
    parts = ", ".join(f"'{name}.peer'" for name in names)
    return parse(f"OutOf({len(names)}, {parts})").SerializeToString(deterministic=True)


def _salt(salt: bytes | None) -> str | None:
    if salt is None:
        return None
    if len(salt) < MIN_SALT_BYTES:
        raise RecordError(f"a salt has at least {MIN_SALT_BYTES} random bytes")
    return salt.hex()


def _composite(kind: str, parts: Sequence[str]) -> str:
    try:
        return composite_key(kind, parts)
    except ProtocolError:
        raise RecordError(
            f"a value cannot be part of a key of {kind}: it holds U+0000, U+10FFFF or a lone surrogate"
        ) from None
