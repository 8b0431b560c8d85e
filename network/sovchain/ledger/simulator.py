"""Simulation of one transaction on a snapshot: reads are recorded, writes are collected, nothing is changed.

The rules and texts are those of Fabric's simulator (`core/ledger/kvledger/txmgmt/txmgr/tx_simulator.go`,
`query_executor.go`). Nested chaincode calls on one channel share one simulator under different namespaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.ledger.rwset import rwset_pb2

from sovchain.ledger.collections import LIFECYCLE_NAMESPACE, Collection, collections_of
from sovchain.ledger.couchdb import CouchState, Index, QueryScanner, check_key, check_key_value
from sovchain.ledger.errors import CollectionMissing, PrivateDataUnavailable, SimulationError
from sovchain.ledger.state import Snapshot
from sovchain.ledger.storage import decode_metadata
from sovchain.protocol.crypto import sha256
from sovchain.protocol.rwset import RangeQuery, RangeResults, RwSetBuilder, Version

VALIDATION_PARAMETER = "VALIDATION_PARAMETER"
"""Metadata name of a key's endorsement policy (`peer.MetaDataKeys`)."""

_NO_METADATA: Mapping[str, bytes] = {}


@dataclass(frozen=True)
class SimulationResults:
    """What one simulation leaves.

    `public` is the marshalled `TxReadWriteSet` that goes into the endorsed payload. `private` is what the members
    of the collections must receive before the endorsement is returned (`Channel.store_private`), None without
    private writes. `private_reads` names the (namespace, collection) pairs whose private values were read, and
    `write_policies` maps (namespace, collection; "" for public state) to the key-level validation parameters of the
    written keys: a chaincode's interest in endorsement plans is made from both.
    """

    public: bytes
    private: rwset_pb2.TxPvtReadWriteSet | None
    private_reads: frozenset[tuple[str, str]]
    write_policies: Mapping[tuple[str, str], frozenset[bytes]]


class ResultsIterator:
    """Results of one range query, lowest key first, as (key, value).

    Each step of a public range is recorded in the read-write set when it is taken, so take no more steps than a peer
    would. `next_result()` gives None at the end, which records that the range was exhausted.
    """

    def __init__(
        self,
        results: Iterator[tuple[str, bytes, Version]],
        page_size: int = 0,
        record: Callable[[str, Version], None] | None = None,
        exhausted: Callable[[], None] | None = None,
    ) -> None:
        self._results = results
        self._left = page_size if page_size > 0 else -1
        self._record = record
        self._exhausted = exhausted

    def next_result(self) -> tuple[str, bytes] | None:
        """The next (key, value), or None at the end of the range or of the page."""
        row = next(self._results, None) if self._left else None
        if row is None:
            if self._exhausted is not None:
                self._exhausted()
            return None
        self._left -= 1
        key, value, version = row
        if self._record is not None:
            self._record(key, version)
        return key, value

    def bookmark_and_close(self) -> str:
        """Close, and give the key that the next page starts at ("" when there is none)."""
        row = next(self._results, None)
        self.close()
        return row[0] if row else ""

    def close(self) -> None:
        """Free what the query holds; there are no more results. May be called more than once."""
        close = getattr(self._results, "close", None)
        if close is not None:
            close()
        self._results = iter(())

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        while (result := self.next_result()) is not None:
            yield result


class QueryResults(ResultsIterator):
    """Results of one rich query; each key is recorded as read when its turn comes, and nothing protects the set of keys."""

    def __init__(self, scanner: QueryScanner, record: Callable[[str, Version], None] | None = None) -> None:
        super().__init__(scanner, record=record)
        self._scanner = scanner

    def bookmark_and_close(self) -> str:
        """Close, and give the bookmark of the next page."""
        self.close()
        return self._scanner.bookmark


class _RangeScan:
    """The record of one public range query: what was read of it so far."""

    def __init__(self, namespace: str, start: str, end: str) -> None:
        self.namespace = namespace
        self._start = start
        self._query_end = end
        self._end = ""
        self._exhausted = False
        self._results = RangeResults()

    def record(self, key: str, version: Version) -> None:
        """One more result. The last key read is the end for now: nobody knows whether the caller goes on."""
        self._results.add(key, version)
        self._end = key

    def exhausted(self) -> None:
        """There are no more results up to the end that was asked for."""
        self._exhausted = True
        self._end = self._query_end

    def query(self) -> RangeQuery:
        """What goes into the read-write set. Ends the recording."""
        reads, merkle = self._results.done()
        return RangeQuery(self._start, self._end, self._exhausted, reads, merkle)


class TxSimulator:
    """One transaction's reads and writes, seen by the peer of one organisation.

    Every method raises `SimulationError` with Fabric's text when a rule is broken. Made by `Channel.simulator`.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        msp_id: str,
        application_msp_ids: Iterable[str],
        transaction_id: str = "",
        couchdb: CouchState | None = None,
    ) -> None:
        """`couchdb` says that the peer keeps its state in CouchDB, which takes rich queries and refuses some keys."""
        self.snapshot = snapshot
        self.msp_id = msp_id
        self.transaction_id = transaction_id
        self._application_msp_ids = tuple(application_msp_ids)
        self._couchdb = couchdb
        self._unprotected: set[str] = set()
        self._builder = RwSetBuilder()
        self._scans: list[_RangeScan] = []
        self._iterators: list[ResultsIterator] = []
        self._collections: dict[str, Mapping[str, Collection] | None] = {}
        self._written: dict[tuple[str, str], set[str]] = {}
        self._private_reads: set[tuple[str, str]] = set()
        self._writes = False
        self._private_queries = False
        self._paginated_queries = False
        self._computed = False
        self._done = False

    # Public state -------------------------------------------------------------------------------------------------

    def get_state(self, namespace: str, key: str) -> bytes | None:
        """The committed value (never a write of this simulation), None if absent. Records the read."""
        self._check_done()
        self._check_key(key)
        entry = self.snapshot.entry(namespace, key)
        if entry is None:
            self._builder.add_read(namespace, key, None)
            return None
        self._builder.add_read(namespace, key, entry[2])
        return entry[0]

    def get_states(self, namespace: str, keys: Sequence[str]) -> list[bytes | None]:
        """`get_state` for each key, in order."""
        return [self.get_state(namespace, key) for key in keys]

    def put_state(self, namespace: str, key: str, value: bytes | None) -> None:
        """Write a value; an empty one is a delete."""
        self._check_write(key, value)
        self._builder.add_write(namespace, key, value)
        self._note_written(namespace, "", key)

    def delete_state(self, namespace: str, key: str) -> None:
        """Delete a key."""
        self.put_state(namespace, key, None)

    def get_state_metadata(self, namespace: str, key: str) -> Mapping[str, bytes]:
        """The key's committed metadata (empty if none). Records a read of the key."""
        self._check_done()
        entry = self.snapshot.entry(namespace, key)
        self._builder.add_read(namespace, key, entry[2] if entry else None)
        return decode_metadata(entry[1]) if entry else _NO_METADATA

    def put_state_metadata(self, namespace: str, key: str, metadata: Mapping[str, bytes] | None) -> None:
        """Replace the key's metadata; an empty mapping removes it."""
        self._check_write(key)
        self._builder.add_metadata_write(namespace, key, metadata)
        self._note_written(namespace, "", key)

    def delete_state_metadata(self, namespace: str, key: str) -> None:
        """Remove the key's metadata."""
        self.put_state_metadata(namespace, key, None)

    def get_range(self, namespace: str, start: str, end: str, *, page_size: int = 0) -> ResultsIterator:
        """Keys from `start` (inclusive) to `end` (exclusive); an empty bound is open. `page_size` above 0 pages.

        The chaincode's shim, not this method, keeps composite keys out of plain ranges. For a following page give the
        bookmark as `start`.
        """
        if page_size > 0:
            self._check_read_only("Paginated queries are supported only in a read-only transaction")
            self._paginated_queries = True
        self._check_done()
        scan = _RangeScan(namespace, start, end)
        self._scans.append(scan)
        rows = self.snapshot.range(namespace, start, end)
        return self._opened(ResultsIterator(rows, page_size, scan.record, scan.exhausted))

    def get_query(
        self, namespace: str, query: str, *, paginated: bool = False, page_size: int = 0, bookmark: str = ""
    ) -> ResultsIterator:
        """The keys whose values a selector matches; refused with LevelDB's text without CouchDB.

        `paginated` only in a transaction that writes nothing: then at most `page_size` results (0: all), behind `bookmark`.
        """
        if paginated:
            self._check_read_only("Paginated queries are supported only in a read-only transaction")
            self._paginated_queries = True
        self._check_done()
        couchdb = self._rich("ExecuteQueryWithMetadata" if paginated else "ExecuteQuery")
        self._unprotected.add("a rich query")

        def rows() -> Iterator[tuple[str, bytes, Version]]:
            return self.snapshot.range(namespace, "", "")

        scanner = QueryScanner(
            rows, self._indexes(namespace, ""), query, settings=couchdb, page_size=page_size, bookmark=bookmark
        )
        return self._opened(QueryResults(scanner, lambda key, version: self._builder.add_read(namespace, key, version)))

    def _rich(self, function: str) -> CouchState:
        if self._couchdb is None:
            raise SimulationError(f"{function} not supported for leveldb")
        return self._couchdb

    def _indexes(self, namespace: str, collection: str) -> Sequence[Index]:
        return self._couchdb.indexes(namespace, collection) if self._couchdb is not None else ()

    def history(self, namespace: str, key: str) -> Iterator[kv_query_result_pb2.KeyModification]:
        """What valid transactions did to a public key, newest first. Nothing is recorded."""
        self._check_done()
        self._unprotected.add("history")
        return self.snapshot.history(namespace, key)

    # Private data -------------------------------------------------------------------------------------------------

    def get_private(self, namespace: str, collection: str, key: str) -> bytes | None:
        """This organisation's private value; `PrivateDataUnavailable` if it lacks what the public hash stands for."""
        self._check_collection(namespace, collection)
        held = self.snapshot.private(self.msp_id, namespace, collection, key)
        version = held[1] if held else None
        public = self.snapshot.hashed_version(namespace, collection, sha256(key.encode()))
        if public != version:
            raise PrivateDataUnavailable(
                "private data matching public hash version is not available. "
                f"Public hash version = {_height(public)}, Private data version = {_height(version)}",
                namespace,
                collection,
            )
        self._builder.add_hashed_read(namespace, collection, key, version)
        self._private_reads.add((namespace, collection))
        return held[0] if held else None

    def get_privates(self, namespace: str, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        """Private values of several keys. As in Fabric, versions are not compared with the public hashes here."""
        self._check_collection(namespace, collection)
        values: list[bytes | None] = []
        for key in keys:
            held = self.snapshot.private(self.msp_id, namespace, collection, key)
            self._builder.add_hashed_read(namespace, collection, key, held[1] if held else None)
            self._private_reads.add((namespace, collection))
            values.append(held[0] if held else None)
        return values

    def get_private_hash(self, namespace: str, collection: str, key: str) -> bytes | None:
        """SHA-256 of the private value, from public state; members and non-members alike. Records a hashed read."""
        entry = self._hashed_entry(namespace, collection, key)
        return entry[0] if entry else None

    def put_private(self, namespace: str, collection: str, key: str, value: bytes | None) -> None:
        """Write a private value; an empty one is a delete."""
        self._check_collection_write(namespace, collection, key, value)
        self._builder.add_private_write(namespace, collection, key, value)

    def delete_private(self, namespace: str, collection: str, key: str) -> None:
        """Delete a private key."""
        self.put_private(namespace, collection, key, None)

    def purge_private(self, namespace: str, collection: str, key: str) -> None:
        """Delete a private key and erase it from the private stores at commit."""
        self._check_collection_write(namespace, collection, key)
        self._builder.add_private_purge(namespace, collection, key)

    def get_private_metadata(self, namespace: str, collection: str, key: str) -> Mapping[str, bytes]:
        """The private key's committed metadata. Records a hashed read of the key."""
        entry = self._hashed_entry(namespace, collection, key)
        return decode_metadata(entry[1]) if entry else _NO_METADATA

    def put_private_metadata(
        self, namespace: str, collection: str, key: str, metadata: Mapping[str, bytes] | None
    ) -> None:
        """Replace the private key's metadata; an empty mapping removes it."""
        self._check_collection_write(namespace, collection, key)
        self._builder.add_private_metadata_write(namespace, collection, key, metadata)

    def delete_private_metadata(self, namespace: str, collection: str, key: str) -> None:
        """Remove the private key's metadata."""
        self.put_private_metadata(namespace, collection, key, None)

    def get_private_range(self, namespace: str, collection: str, start: str, end: str) -> ResultsIterator:
        """Private keys in a range; only in a transaction that writes nothing. Nothing is recorded."""
        self._check_private_query()
        self._check_collection(namespace, collection)
        rows = self.snapshot.private_range(self.msp_id, namespace, collection, start, end)
        return self._opened(ResultsIterator(rows))

    def get_private_query(self, namespace: str, collection: str, query: str) -> ResultsIterator:
        """This organisation's private keys whose values a selector matches; as `get_private_range` and `get_query`."""
        self._check_private_query()
        self._check_collection(namespace, collection)
        couchdb = self._rich("ExecuteQuery")

        def rows() -> Iterator[tuple[str, bytes, Version]]:
            return self.snapshot.private_range(self.msp_id, namespace, collection, "", "")

        return self._opened(
            QueryResults(QueryScanner(rows, self._indexes(namespace, collection), query, settings=couchdb))
        )

    # End ------------------------------------------------------------------------------------------------------------

    def results(self) -> SimulationResults:
        """The read-write set, once. Ranges that are still open are recorded as far as they were read."""
        if self._computed:
            raise SimulationError("this function should only be called once on a transaction simulator instance")
        self._check_done()
        self._computed = True
        for scan in self._scans:
            self._builder.add_range_query(scan.namespace, scan.query())
        public, private = self._builder.results()
        return SimulationResults(public, private, frozenset(self._private_reads), self._write_policies())

    def done(self) -> None:
        """End the simulation and close its iterators (not the snapshot). May be called more than once."""
        self._done = True
        for iterator in self._iterators:
            iterator.close()
        self._iterators.clear()

    @property
    def unprotected(self) -> frozenset[str]:
        """What this transaction read and wrote after, though no check at commit protects it: rich queries, history."""
        return frozenset(self._unprotected) if self._writes else frozenset()

    # Rules --------------------------------------------------------------------------------------------------------

    def _check_done(self) -> None:
        if self._done:
            raise SimulationError("this instance should not be used after calling Done()")

    def _check_key(self, key: str) -> None:
        if self._couchdb is not None:
            check_key(key)

    def _check_write(self, key: str, value: bytes | None = None) -> None:
        self._check_done()
        if self._private_queries:
            raise self._unsupported("Transaction has already performed queries on pvt data. Writes are not allowed")
        if self._paginated_queries:
            raise self._unsupported("Transaction has already performed a paginated query. Writes are not allowed")
        self._writes = True
        if self._couchdb is not None:
            check_key_value(key, value)

    def _check_read_only(self, reason: str) -> None:
        if self._writes:
            raise self._unsupported(reason)

    def _check_private_query(self) -> None:
        self._check_read_only("Queries on pvt data is supported only in a read-only transaction")
        self._private_queries = True

    def _unsupported(self, reason: str) -> SimulationError:
        # The misspelling is Fabric's; programs match on this text.
        return SimulationError(f"txid [{self.transaction_id}]: unsuppored transaction. {reason}")

    def collections(self, namespace: str) -> Mapping[str, Collection] | None:
        """Collections of a chaincode by name, None if it is not defined; its definition counts as read."""
        self._check_done()
        if namespace not in self._collections:
            self._collections[namespace] = collections_of(
                namespace, lambda key: self.get_state(LIFECYCLE_NAMESPACE, key), self._application_msp_ids
            )
        return self._collections[namespace]

    def _check_collection(self, namespace: str, collection: str) -> None:
        """The collection must be in the chaincode's definition, whose keys are recorded as read, as Fabric does."""
        defined = self.collections(namespace)
        if defined is None:
            raise CollectionMissing(
                f"collection config not defined for chaincode [{namespace}], pass the collection configuration upon "
                "chaincode definition/instantiation",
                namespace,
                collection,
            )
        # Fabric's validator of names knows the empty one too (txmgr/collection_val.go populate).
        if collection and collection not in defined:
            text = f"collection [{collection}] not defined in the collection config for chaincode [{namespace}]"
            raise CollectionMissing(text, namespace, collection)

    def _check_collection_write(self, namespace: str, collection: str, key: str, value: bytes | None = None) -> None:
        self._check_collection(namespace, collection)
        self._check_write(key, value)
        self._note_written(namespace, collection, key)

    def _hashed_entry(self, namespace: str, collection: str, key: str) -> tuple[bytes, bytes | None, Version] | None:
        self._check_collection(namespace, collection)
        entry = self.snapshot.hashed_entry(namespace, collection, sha256(key.encode()))
        self._builder.add_hashed_read(namespace, collection, key, entry[2] if entry else None)
        return entry

    def _note_written(self, namespace: str, collection: str, key: str) -> None:
        self._written.setdefault((namespace, collection), set()).add(key)

    def _opened(self, iterator: ResultsIterator) -> ResultsIterator:
        self._iterators.append(iterator)
        return iterator

    def _write_policies(self) -> dict[tuple[str, str], frozenset[bytes]]:
        policies: dict[tuple[str, str], frozenset[bytes]] = {}
        for (namespace, collection), keys in self._written.items():
            found = set()
            for key in keys:
                if collection:
                    entry = self.snapshot.hashed_entry(namespace, collection, sha256(key.encode()))
                else:
                    entry = self.snapshot.entry(namespace, key)
                if entry is not None and entry[1] is not None:
                    found.add(decode_metadata(entry[1]).get(VALIDATION_PARAMETER, b""))
            policies[namespace, collection] = frozenset(found - {b""})
        return policies


def _height(version: Version | None) -> str:
    """A version as Fabric prints it (`core/ledger/internal/version/version.go`)."""
    return "<nil>" if version is None else f"{{BlockNum: {version.block}, TxNum: {version.tx}}}"
