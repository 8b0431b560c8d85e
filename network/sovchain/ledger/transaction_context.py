"""What a chaincode may ask of the ledger during one transaction: the requests of the peer-chaincode stream.

Mirrors the request handlers of core/chaincode/handler.go, core/chaincode/transaction_context.go and
core/chaincode/query_response_generator.go. Invoking another chaincode is the stream's business (`chaincode_stream`),
since it alone waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim

from sovchain.ledger.errors import SimulationError
from sovchain.ledger.simulator import ResultsIterator, TxSimulator

RESULTS_PER_FRAME: Final = 100
"""Query results in one frame to the chaincode; core/chaincode/chaincode_support.go MaxResultLimit."""
TOTAL_QUERY_LIMIT: Final = 100_000
"""Results of one query altogether; beyond it the query ends, as with ledger.state.totalQueryLimit of core.yaml."""
MAX_OPEN_QUERIES: Final = 1_000
"""Queries that one transaction may hold open at a time."""
MAX_KEYS_PER_REQUEST: Final = 1_000
"""Keys of one GET_STATE_MULTIPLE and records of one WRITE_BATCH_STATE, as announced in the handshake."""

_INIT_REFUSAL = "private data APIs are not allowed in chaincode Init()"
_Message = shim.ChaincodeMessage


class CollectionAccess(Protocol):
    """Tells whether the proposal's creator may read or write a collection of one namespace."""

    def permissions(self, simulator: TxSimulator, namespace: str, collection: str) -> tuple[bool, bool]:
        """Return (may read, may write); what is looked up counts as read by the simulator. Raises SimulationError if there is no such collection."""
        ...


@dataclass
class _OpenQuery:
    """An open query: encoded results, the one that was read ahead, and how many were returned so far."""

    results: Iterator[bytes]
    close: Callable[[], str]
    limit: int
    paginated: bool
    returned: int = 0
    pending: list[bytes] = field(default_factory=list)


@dataclass
class TransactionContext:
    """One transaction on one stream: which simulator its requests go to, and its open queries.

    Attributes:
        channel_id: channel of the transaction; with `transaction_id` the key of the context.
        namespace: the chaincode's own name: all its state is below it.
        simulator: collects reads and writes; shared with the callers in a nested invocation on one channel.
        access: member-only rules of collections, for this proposal's creator.
        is_init: the chaincode runs its Init function, where private data is not available.
        instance: which instance of a chaincode runs this simulation (0 primary, 1 replica).
    """

    channel_id: str
    transaction_id: str
    namespace: str
    simulator: TxSimulator
    access: CollectionAccess
    is_init: bool = False
    instance: int = 0
    _queries: dict[str, _OpenQuery] = field(default_factory=dict, repr=False)
    _permissions: dict[str, tuple[bool, bool]] = field(default_factory=dict, repr=False)
    _next_query: int = 0

    def handle(self, message_type: int, payload: bytes) -> bytes:
        """Answer one request; the result is the payload of the RESPONSE frame.

        Raises SimulationError with Fabric's text when the request is refused, DecodeError when it is malformed and
        KeyError when no request has this type.
        """
        return _HANDLERS[message_type](self, payload)

    def close(self) -> None:
        """Close the queries that the chaincode left open."""
        for query in self._queries.values():
            query.close()
        self._queries.clear()

    # Keys -------------------------------------------------------------------------------------------------------

    def _get_state(self, payload: bytes) -> bytes:
        request = shim.GetState.FromString(payload)
        if request.collection:
            self._require_read(request.collection)
            value = self.simulator.get_private(self.namespace, request.collection, request.key)
        else:
            value = self.simulator.get_state(self.namespace, request.key)
        return value or b""

    def _get_states(self, payload: bytes) -> bytes:
        request = shim.GetStateMultiple.FromString(payload)
        if len(request.keys) > MAX_KEYS_PER_REQUEST:
            raise SimulationError(
                f"{len(request.keys)} keys in one request, at most {MAX_KEYS_PER_REQUEST} are allowed"
            )
        if request.collection:
            self._require_read(request.collection)
            values = self.simulator.get_privates(self.namespace, request.collection, request.keys)
        else:
            values = self.simulator.get_states(self.namespace, request.keys)
        return shim.GetStateMultipleResult(values=[value or b"" for value in values]).SerializeToString()

    def _get_private_hash(self, payload: bytes) -> bytes:
        request = shim.GetState.FromString(payload)
        self._refuse_in_init()
        return self.simulator.get_private_hash(self.namespace, request.collection, request.key) or b""

    def _put_state(self, payload: bytes) -> bytes:
        request = shim.PutState.FromString(payload)
        self._put(request.collection, request.key, request.value)
        return b""

    def _delete_state(self, payload: bytes) -> bytes:
        request = shim.DelState.FromString(payload)
        self._delete(request.collection, request.key)
        return b""

    def _purge_private(self, payload: bytes) -> bytes:
        request = shim.DelState.FromString(payload)  # same fields on the wire as PurgePrivateState
        self._purge(request.collection, request.key)
        return b""

    def _write_batch(self, payload: bytes) -> bytes:
        batch = shim.WriteBatchState.FromString(payload)
        if len(batch.rec) > MAX_KEYS_PER_REQUEST:
            raise SimulationError(f"{len(batch.rec)} records in one batch, at most {MAX_KEYS_PER_REQUEST} are allowed")
        for record in batch.rec:
            if record.type == shim.WriteRecord.PUT_STATE:
                self._put(record.collection, record.key, record.value)
            elif record.type == shim.WriteRecord.DEL_STATE:
                self._delete(record.collection, record.key)
            elif record.type == shim.WriteRecord.PURGE_PRIVATE_DATA:
                self._purge(record.collection, record.key)
            elif record.type == shim.WriteRecord.PUT_STATE_METADATA:
                self._put_metadata(record.collection, record.key, record.metadata)
            else:
                raise SimulationError("unknown operation type")
        return b""

    def _get_metadata(self, payload: bytes) -> bytes:
        request = shim.GetStateMetadata.FromString(payload)
        if request.collection:
            self._require_read(request.collection)
            metadata = self.simulator.get_private_metadata(self.namespace, request.collection, request.key)
        else:
            metadata = self.simulator.get_state_metadata(self.namespace, request.key)
        entries = [shim.StateMetadata(metakey=name, value=value) for name, value in sorted(metadata.items())]
        return shim.StateMetadataResult(entries=entries).SerializeToString()

    def _put_metadata_request(self, payload: bytes) -> bytes:
        request = shim.PutStateMetadata.FromString(payload)
        self._put_metadata(request.collection, request.key, request.metadata)
        return b""

    def _put(self, collection: str, key: str, value: bytes) -> None:
        if collection:
            self._require_write(collection)
            self.simulator.put_private(self.namespace, collection, key, value)
        else:
            self.simulator.put_state(self.namespace, key, value)

    def _delete(self, collection: str, key: str) -> None:
        if collection:
            self._require_write(collection)
            self.simulator.delete_private(self.namespace, collection, key)
        else:
            self.simulator.delete_state(self.namespace, key)

    def _purge(self, collection: str, key: str) -> None:
        if not collection:
            raise SimulationError("only applicable for private data")
        self._require_write(collection)
        self.simulator.purge_private(self.namespace, collection, key)

    def _put_metadata(self, collection: str, key: str, entry: shim.StateMetadata) -> None:
        metadata: Mapping[str, bytes] = {entry.metakey: entry.value}
        if collection:
            self._require_write(collection)
            self.simulator.put_private_metadata(self.namespace, collection, key, metadata)
        else:
            self.simulator.put_state_metadata(self.namespace, key, metadata)

    # Queries ----------------------------------------------------------------------------------------------------

    def _get_range(self, payload: bytes) -> bytes:
        request = shim.GetStateByRange.FromString(payload)
        page = shim.QueryMetadata.FromString(request.metadata)
        if page.pageSize < 0:
            raise SimulationError("page size must not be negative")
        if request.collection:
            self._require_read(request.collection)
            found = self.simulator.get_private_range(
                self.namespace, request.collection, request.startKey, request.endKey
            )
            return self._open(found, TOTAL_QUERY_LIMIT, paginated=False)
        paginated = page.pageSize > 0 or page.bookmark != ""
        if not paginated:
            found = self.simulator.get_range(self.namespace, request.startKey, request.endKey)
            return self._open(found, TOTAL_QUERY_LIMIT, paginated=False)
        limit = min(page.pageSize or TOTAL_QUERY_LIMIT, TOTAL_QUERY_LIMIT)
        start = page.bookmark or request.startKey
        found = self.simulator.get_range(self.namespace, start, request.endKey, page_size=limit)
        return self._open(found, limit, paginated=True)

    def _get_query(self, payload: bytes) -> bytes:
        request = shim.GetQueryResult.FromString(payload)
        found: ResultsIterator
        if request.collection:
            self._require_read(request.collection)
            found = self.simulator.get_private_query(self.namespace, request.collection, request.query)
            return self._open(found, TOTAL_QUERY_LIMIT, paginated=False)
        page = shim.QueryMetadata.FromString(request.metadata)
        if page.pageSize < 0:
            raise SimulationError("page size must not be negative")
        paginated = page.pageSize > 0 or page.bookmark != ""
        found = self.simulator.get_query(
            self.namespace, request.query, paginated=paginated, page_size=page.pageSize, bookmark=page.bookmark
        )
        limit = min(page.pageSize or TOTAL_QUERY_LIMIT, TOTAL_QUERY_LIMIT)
        return self._open(found, limit, paginated=paginated)

    def _get_history(self, payload: bytes) -> bytes:
        request = shim.GetHistoryForKey.FromString(payload)
        modifications = self.simulator.history(self.namespace, request.key)
        encoded = (modification.SerializeToString() for modification in modifications)
        return self._start(_OpenQuery(encoded, lambda: "", TOTAL_QUERY_LIMIT, paginated=False))

    def _next(self, payload: bytes) -> bytes:
        query_id = shim.QueryStateNext.FromString(payload).id
        query = self._queries.get(query_id)
        if query is None:
            raise SimulationError("query iterator not found")
        return self._frame(query_id, query)

    def _close_query(self, payload: bytes) -> bytes:
        query_id = shim.QueryStateClose.FromString(payload).id
        query = self._queries.pop(query_id, None)
        if query is not None:
            query.close()
        return shim.QueryResponse(has_more=False, id=query_id).SerializeToString()

    def _open(self, found: ResultsIterator, limit: int, *, paginated: bool) -> bytes:
        def close() -> str:
            if paginated:
                return found.bookmark_and_close()
            found.close()
            return ""

        return self._start(_OpenQuery(self._encoded(found), close, limit, paginated))

    def _encoded(self, found: ResultsIterator) -> Iterator[bytes]:
        while (result := found.next_result()) is not None:
            pair = kv_query_result_pb2.KV(namespace=self.namespace, key=result[0], value=result[1])
            yield pair.SerializeToString()

    def _start(self, query: _OpenQuery) -> bytes:
        if len(self._queries) >= MAX_OPEN_QUERIES:
            query.close()
            raise SimulationError(f"more than {MAX_OPEN_QUERIES} open queries in one transaction, close them after use")
        self._next_query += 1
        query_id = str(self._next_query)
        self._queries[query_id] = query
        return self._frame(query_id, query)

    def _frame(self, query_id: str, query: _OpenQuery) -> bytes:
        """Return the next frame of results; one more result is read ahead, as the peer does, to know has_more."""
        try:
            while query.returned < query.limit:
                result = next(query.results, None)
                if result is None:
                    break
                query.returned += 1
                if not query.paginated and len(query.pending) == RESULTS_PER_FRAME:
                    batch, query.pending = query.pending, [result]
                    return _query_response(query_id, batch, has_more=True)
                query.pending.append(result)
        except SimulationError:
            self._end(query_id)
            raise
        batch, query.pending = query.pending, []
        bookmark = self._end(query_id)
        metadata = b""
        if query.paginated:
            page = shim.QueryResponseMetadata(fetched_records_count=query.returned, bookmark=bookmark)
            metadata = page.SerializeToString()
        return _query_response(query_id, batch, has_more=False, metadata=metadata)

    def _end(self, query_id: str) -> str:
        query = self._queries.pop(query_id, None)
        return query.close() if query is not None else ""

    # Permissions ------------------------------------------------------------------------------------------------

    def _refuse_in_init(self) -> None:
        if self.is_init:
            raise SimulationError(_INIT_REFUSAL)

    def _permission(self, collection: str) -> tuple[bool, bool]:
        self._refuse_in_init()
        permissions = self._permissions.get(collection)
        if permissions is None:
            permissions = self._permissions[collection] = self.access.permissions(
                self.simulator, self.namespace, collection
            )
        return permissions

    def _require_read(self, collection: str) -> None:
        if not self._permission(collection)[0]:
            raise SimulationError(_member_refusal("read", self.namespace, collection))

    def _require_write(self, collection: str) -> None:
        if not self._permission(collection)[1]:
            raise SimulationError(_member_refusal("write", self.namespace, collection))


def _member_refusal(access: str, namespace: str, collection: str) -> str:
    return (
        f"tx creator does not have {access} access permission on privatedata in chaincodeName:{namespace} "
        f"collectionName: {collection}"
    )


def _query_response(query_id: str, results: list[bytes], *, has_more: bool, metadata: bytes = b"") -> bytes:
    return shim.QueryResponse(
        results=[shim.QueryResultBytes(resultBytes=result) for result in results],
        has_more=has_more,
        id=query_id,
        metadata=metadata,
    ).SerializeToString()


_HANDLERS: Final[Mapping[int, Callable[[TransactionContext, bytes], bytes]]] = {
    _Message.GET_STATE: TransactionContext._get_state,
    _Message.GET_STATE_MULTIPLE: TransactionContext._get_states,
    _Message.GET_PRIVATE_DATA_HASH: TransactionContext._get_private_hash,
    _Message.PUT_STATE: TransactionContext._put_state,
    _Message.DEL_STATE: TransactionContext._delete_state,
    _Message.PURGE_PRIVATE_DATA: TransactionContext._purge_private,
    _Message.WRITE_BATCH_STATE: TransactionContext._write_batch,
    _Message.GET_STATE_METADATA: TransactionContext._get_metadata,
    _Message.PUT_STATE_METADATA: TransactionContext._put_metadata_request,
    _Message.GET_STATE_BY_RANGE: TransactionContext._get_range,
    _Message.GET_QUERY_RESULT: TransactionContext._get_query,
    _Message.GET_HISTORY_FOR_KEY: TransactionContext._get_history,
    _Message.QUERY_STATE_NEXT: TransactionContext._next,
    _Message.QUERY_STATE_CLOSE: TransactionContext._close_query,
}
