"""The stub whose answers come from a peer.

Mirrors fabric-chaincode-go/shim/stub.go and handler.go.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.ledger.queryresult import kv_query_result_pb2 as results
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim
from google.protobuf.message import DecodeError

from sovchain.chaincode.batch import MIN_BATCH_RECORDS, WriteBatch
from sovchain.chaincode.errors import CalledChaincodeError, LedgerError, NotSupportedError, StreamError, StubUseError
from sovchain.chaincode.items import PeerItems
from sovchain.chaincode.ownreads import OwnReads, OwnReadsMode
from sovchain.chaincode.stub import DEFAULT_PAGE_SIZE, KeyModification, KeyValue, Page, Response, Stub
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.keys import MAX_UNICODE, MIN_UNICODE, partial_composite_range, simple_range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.message import Message

    from sovchain.chaincode.exchange import Exchange
    from sovchain.chaincode.stub import Items

M = TypeVar("M", bound="Message")
Kind = shim.ChaincodeMessage

VALIDATION_PARAMETER = "VALIDATION_PARAMETER"
"""Name under which Fabric keeps a key's own endorsement policy (fabric-protos, MetaDataKeys)."""
MAX_PAGE_SIZE = 10_000
MAX_VALUE_BYTES = 99 * 1024 * 1024
"""Largest value: it fits into one message, with its key. Orderers take far less unless configured otherwise (10 MiB)."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Offers:
    """What a peer said in READY that it can do; zero stands for no."""

    write_batch: int = 0
    get_multiple: int = 0

    @classmethod
    def parse(cls, payload: bytes) -> Offers:
        """Read the payload of READY; a peer before 3.0 sends none.

        Raises:
            StreamError: the payload is no ChaincodeAdditionalParams.
        """
        said = _parse(chaincode_pb2.ChaincodeAdditionalParams, payload, "READY")
        return cls(
            write_batch=max(said.max_size_write_batch, MIN_BATCH_RECORDS) if said.use_write_batch else 0,
            get_multiple=max(said.max_size_get_multiple_keys, MIN_BATCH_RECORDS) if said.use_get_multiple_keys else 0,
        )


@dataclass(frozen=True, slots=True)
class StubOptions:
    """How stubs behave.

    Attributes:
        own_reads: what happens when a transaction reads a key that it has written itself.
    """

    own_reads: OwnReadsMode = "silent"


@dataclass(frozen=True, slots=True)
class _Proposal:
    creator: bytes
    nonce: bytes
    epoch: int
    timestamp: datetime
    transient: Mapping[str, bytes]


class PeerStub(Stub):
    """One transaction as a peer sent it.

    Args:
        message: the INIT or TRANSACTION frame.
        exchange: the way back to the peer.
        offers: what the peer can do.
        options: how the stub behaves.

    Raises:
        StreamError: the frame's payload is no ChaincodeInput.
    """

    def __init__(
        self, message: shim.ChaincodeMessage, exchange: Exchange, offers: Offers, options: StubOptions | None = None
    ) -> None:
        self._exchange = exchange
        mode = "silent" if options is None else options.own_reads
        self._own = None if mode == "silent" else OwnReads(mode, exchange.transaction_id)
        self._offers = offers
        self._signed = message.proposal if message.HasField("proposal") else None
        self._input = _parse(chaincode_pb2.ChaincodeInput, message.payload, "the transaction")
        self._args = tuple(self._input.args)
        self._batch = WriteBatch()
        self.is_init = message.type == Kind.INIT or self._input.is_init
        self.event: chaincode_event_pb2.ChaincodeEvent | None = None

    # -- the transaction ---------------------------------------------------------------------------------------------

    @property
    def transaction_id(self) -> str:
        return self._exchange.transaction_id

    @property
    def channel_id(self) -> str:
        return self._exchange.channel_id

    @property
    def timestamp(self) -> datetime:
        return self._proposal.timestamp

    @property
    def creator(self) -> bytes:
        return self._proposal.creator

    @property
    def args(self) -> tuple[bytes, ...]:
        return self._args

    @property
    def transient(self) -> Mapping[str, bytes]:
        return self._proposal.transient if self._signed is not None else {}

    @property
    def decorations(self) -> Mapping[str, bytes]:
        return MappingProxyType(dict(self._input.decorations))

    @property
    def signed_proposal(self) -> bytes:
        if self._signed is None:
            raise NotSupportedError("the peer sent no proposal with this transaction")
        return self._signed.SerializeToString()

    @property
    def binding(self) -> bytes:
        said = self._proposal
        return hashlib.sha256(said.nonce + said.creator + said.epoch.to_bytes(8, "little")).digest()

    @cached_property
    def _proposal(self) -> _Proposal:
        if self._signed is None:
            raise NotSupportedError("the peer sent no proposal with this transaction")
        proposal = _parse(proposal_pb2.Proposal, self._signed.proposal_bytes, "the proposal")
        header = _parse(common_pb2.Header, proposal.header, "the proposal's header")
        channel = _parse(common_pb2.ChannelHeader, header.channel_header, "the proposal's channel header")
        signature = _parse(common_pb2.SignatureHeader, header.signature_header, "the proposal's signature header")
        payload = _parse(proposal_pb2.ChaincodeProposalPayload, proposal.payload, "the proposal's payload")
        return _Proposal(
            creator=signature.creator,
            nonce=signature.nonce,
            epoch=channel.epoch,
            timestamp=_moment(channel.timestamp.seconds, channel.timestamp.nanos),
            transient=MappingProxyType(dict(payload.TransientMap)),
        )

    # -- public state ------------------------------------------------------------------------------------------------

    async def get_state(self, key: str) -> bytes | None:
        return await self._get("", key)

    async def get_multiple(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._get_multiple("", [_key(key) for key in keys])

    async def _get_multiple(self, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        size = self._offers.get_multiple
        if not size:
            return [await self._get(collection, key) for key in keys]
        if self._own is not None:
            self._own.reads(collection, keys)
        found: list[bytes | None] = []
        for at in range(0, len(keys), size):
            chunk = keys[at : at + size]
            payload = shim.GetStateMultiple(keys=chunk, collection=collection).SerializeToString()
            answer = await self._exchange.ask(Kind.GET_STATE_MULTIPLE, payload)
            values = _parse(shim.GetStateMultipleResult, answer, "GET_STATE_MULTIPLE").values
            if len(values) != len(chunk):
                # A failing state database shows itself only by missing values (txmgr/query_executor.go).
                raise LedgerError("GET_STATE_MULTIPLE", f"{len(chunk)} keys asked for, {len(values)} values answered")
            found.extend(value or None for value in values)
        return found

    async def put_state(self, key: str, value: bytes) -> None:
        await self._put("", key, value)

    async def delete_state(self, key: str) -> None:
        await self._delete("", key, shim.WriteRecord.DEL_STATE)

    def range(self, start: str = "", end: str = "") -> Items[KeyValue]:
        return self._scan("", *_simple_range(start, end))

    def partial_composite_range(self, object_type: str, attributes: Sequence[str] = ()) -> Items[KeyValue]:
        return self._scan("", *_composite_range(object_type, attributes))

    async def range_page(
        self, start: str = "", end: str = "", *, page_size: int = DEFAULT_PAGE_SIZE, bookmark: str = ""
    ) -> Page[KeyValue]:
        return await self._page_of_range(*_simple_range(start, end), page_size, bookmark)

    async def partial_composite_page(
        self,
        object_type: str,
        attributes: Sequence[str] = (),
        *,
        page_size: int = DEFAULT_PAGE_SIZE,
        bookmark: str = "",
    ) -> Page[KeyValue]:
        return await self._page_of_range(*_composite_range(object_type, attributes), page_size, bookmark)

    async def composite_page(self, *, page_size: int = DEFAULT_PAGE_SIZE, bookmark: str = "") -> Page[KeyValue]:
        return await self._page_of_range(MIN_UNICODE, MIN_UNICODE + MAX_UNICODE, page_size, bookmark)

    def rich_query(self, query: str) -> Items[KeyValue]:
        return self._query("", query)

    async def rich_query_page(
        self, query: str, *, page_size: int = DEFAULT_PAGE_SIZE, bookmark: str = ""
    ) -> Page[KeyValue]:
        request = shim.GetQueryResult(query=query, metadata=_paging(page_size, bookmark))
        return await self._page(Kind.GET_QUERY_RESULT, request.SerializeToString())

    def history(self, key: str) -> Items[KeyModification]:
        payload = shim.GetHistoryForKey(key=_key(key)).SerializeToString()
        return PeerItems(self._exchange, Kind.GET_HISTORY_FOR_KEY, payload, _modification)

    async def get_validation_parameter(self, key: str) -> bytes | None:
        return await self._get_policy("", key)

    async def set_validation_parameter(self, key: str, policy: bytes) -> None:
        await self._set_policy("", key, policy)

    # -- private data ------------------------------------------------------------------------------------------------

    async def get_private_data(self, collection: str, key: str) -> bytes | None:
        return await self._get(_collection(collection), key)

    async def get_multiple_private(
        self, collection: str, keys: Sequence[str], *, checked: bool = True
    ) -> list[bytes | None]:
        _collection(collection)
        wanted = [_key(key) for key in keys]
        if checked:
            return [await self._get(collection, key) for key in wanted]
        return await self._get_multiple(collection, wanted)

    async def put_private_data(self, collection: str, key: str, value: bytes) -> None:
        await self._put(_collection(collection), key, value)

    async def delete_private_data(self, collection: str, key: str) -> None:
        await self._delete(_collection(collection), key, shim.WriteRecord.DEL_STATE)

    async def purge_private_data(self, collection: str, key: str) -> None:
        await self._delete(_collection(collection), key, shim.WriteRecord.PURGE_PRIVATE_DATA)

    async def get_private_data_hash(self, collection: str, key: str) -> bytes | None:
        request = shim.GetState(key=_key(key), collection=_collection(collection))
        return await self._exchange.ask(Kind.GET_PRIVATE_DATA_HASH, request.SerializeToString()) or None

    def private_range(self, collection: str, start: str = "", end: str = "") -> Items[KeyValue]:
        return self._scan(_collection(collection), *_simple_range(start, end))

    def private_partial_composite_range(
        self, collection: str, object_type: str, attributes: Sequence[str] = ()
    ) -> Items[KeyValue]:
        return self._scan(_collection(collection), *_composite_range(object_type, attributes))

    def private_rich_query(self, collection: str, query: str) -> Items[KeyValue]:
        return self._query(_collection(collection), query)

    async def get_private_validation_parameter(self, collection: str, key: str) -> bytes | None:
        return await self._get_policy(_collection(collection), key)

    async def set_private_validation_parameter(self, collection: str, key: str, policy: bytes) -> None:
        await self._set_policy(_collection(collection), key, policy)

    # -- output ------------------------------------------------------------------------------------------------------

    def set_event(self, name: str, payload: bytes) -> None:
        self._may_write("an event")
        if not name:
            raise StubUseError("an event has a name")
        self.event = chaincode_event_pb2.ChaincodeEvent(event_name=_text(name, "the event's name"), payload=payload)

    async def invoke_chaincode(
        self, chaincode: str, args: Sequence[bytes], *, channel: str = "", check: bool = True
    ) -> Response:
        # The callee's queries may be refused because of this transaction's writes, so the peer must know them.
        await self.flush()
        spec = chaincode_pb2.ChaincodeSpec(
            chaincode_id=chaincode_pb2.ChaincodeID(name=f"{chaincode}/{channel}" if channel else chaincode),
            input=chaincode_pb2.ChaincodeInput(args=args),
        )
        answer = await self._exchange.ask(Kind.INVOKE_CHAINCODE, spec.SerializeToString())
        inner = _parse(shim.ChaincodeMessage, answer, "INVOKE_CHAINCODE")
        if inner.type != Kind.COMPLETED:
            raise LedgerError("INVOKE_CHAINCODE", inner.payload.decode("utf-8", "replace"))
        said = _parse(proposal_response_pb2.Response, inner.payload, "INVOKE_CHAINCODE")
        if check and said.status >= 400:
            raise CalledChaincodeError(chaincode, said.status, said.message)
        return Response(said.status, said.message, said.payload)

    async def flush(self) -> None:
        """Send the writes that wait. The runtime calls it at the end of the transaction.

        Raises:
            LedgerError: the peer refused a write.
        """
        if not len(self._batch):
            return
        for payload in self._batch.take(self._offers.write_batch):
            await self._exchange.ask(Kind.WRITE_BATCH_STATE, payload)

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _get(self, collection: str, key: str) -> bytes | None:
        request = shim.GetState(key=_key(key), collection=collection)
        if self._own is not None:
            self._own.reads(collection, (key,))
        return await self._exchange.ask(Kind.GET_STATE, request.SerializeToString()) or None

    async def _put(self, collection: str, key: str, value: bytes) -> None:
        self._may_write("a value")
        _key(key)
        if not isinstance(value, bytes):
            raise StubUseError(f"a value is bytes, not {type(value).__name__}")
        if not value:
            raise StubUseError(
                "a value has at least one byte, because fabric records an empty value as a deletion: "
                "delete the key, or write a value that stands for empty"
            )
        if len(value) > MAX_VALUE_BYTES:
            raise StubUseError(
                f"a value has {len(value)} bytes, at most {MAX_VALUE_BYTES} fit into a message to the peer"
            )
        if self._own is not None:
            self._own.wrote(collection, key)
        if self._offers.write_batch:
            kind = shim.WriteRecord.PUT_STATE
            await self._write(shim.WriteRecord(key=key, value=value, collection=collection, type=kind))
        else:
            request = shim.PutState(key=key, value=value, collection=collection)
            await self._exchange.ask(Kind.PUT_STATE, request.SerializeToString())

    async def _delete(self, collection: str, key: str, kind: shim.WriteRecord.Type.ValueType) -> None:
        self._may_write("a deletion")
        _key(key)
        if self._own is not None:
            self._own.wrote(collection, key)
        if self._offers.write_batch:
            await self._write(shim.WriteRecord(key=key, collection=collection, type=kind))
        else:
            purge = kind == shim.WriteRecord.PURGE_PRIVATE_DATA
            request = shim.DelState(key=key, collection=collection)
            await self._exchange.ask(Kind.PURGE_PRIVATE_DATA if purge else Kind.DEL_STATE, request.SerializeToString())

    async def _set_policy(self, collection: str, key: str, policy: bytes) -> None:
        self._may_write("an endorsement policy")
        _key(key)
        metadata = shim.StateMetadata(metakey=VALIDATION_PARAMETER, value=policy)
        if self._offers.write_batch:
            kind = shim.WriteRecord.PUT_STATE_METADATA
            await self._write(shim.WriteRecord(key=key, collection=collection, metadata=metadata, type=kind))
        else:
            request = shim.PutStateMetadata(key=key, collection=collection, metadata=metadata)
            await self._exchange.ask(Kind.PUT_STATE_METADATA, request.SerializeToString())

    async def _get_policy(self, collection: str, key: str) -> bytes | None:
        request = shim.GetStateMetadata(key=_key(key), collection=collection)
        answer = await self._exchange.ask(Kind.GET_STATE_METADATA, request.SerializeToString())
        for entry in _parse(shim.StateMetadataResult, answer, "GET_STATE_METADATA").entries:
            if entry.metakey == VALIDATION_PARAMETER:
                return entry.value or None
        return None

    async def _write(self, record: shim.WriteRecord) -> None:
        self._batch.add(record)
        if self._batch.full:
            await self.flush()

    def _scan(self, collection: str, start: str, end: str) -> Items[KeyValue]:
        if self._own is not None:
            self._own.scans(collection, start, end)
        request = shim.GetStateByRange(startKey=start, endKey=end, collection=collection)
        # The peer refuses private scans after writes, so it must see the writes before the scan.
        before = self.flush if collection else None
        return PeerItems(self._exchange, Kind.GET_STATE_BY_RANGE, request.SerializeToString(), _key_value, before)

    def _query(self, collection: str, query: str) -> Items[KeyValue]:
        request = shim.GetQueryResult(query=_text(query, "the query"), collection=collection)
        before = self.flush if collection else None
        return PeerItems(self._exchange, Kind.GET_QUERY_RESULT, request.SerializeToString(), _key_value, before)

    async def _page_of_range(self, start: str, end: str, page_size: int, bookmark: str) -> Page[KeyValue]:
        request = shim.GetStateByRange(startKey=start, endKey=end, metadata=_paging(page_size, bookmark))
        return await self._page(Kind.GET_STATE_BY_RANGE, request.SerializeToString())

    async def _page(self, kind: shim.ChaincodeMessage.Type.ValueType, payload: bytes) -> Page[KeyValue]:
        await self.flush()
        items = PeerItems(self._exchange, kind, payload, _key_value)
        found = await items.take(MAX_PAGE_SIZE)
        metadata = _parse(shim.QueryResponseMetadata, items.metadata, "the page")
        return Page(tuple(found), metadata.bookmark, metadata.fetched_records_count)

    def _may_write(self, what: str) -> None:
        if self.read_only:
            raise StubUseError(f"a query writes nothing, not even {what}: make the method a @transaction")


def _parse(kind: type[M], data: bytes, what: str) -> M:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise StreamError(f"the peer sent bytes for {what} that are no {kind.__name__}") from None


def _moment(seconds: int, nanos: int) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError:
        raise StreamError("the proposal's timestamp is outside the years 1 to 9999") from None


def _key_value(data: bytes) -> KeyValue:
    item = _parse(results.KV, data, "a result")
    return KeyValue(item.key, item.value)


def _modification(data: bytes) -> KeyModification:
    item = _parse(results.KeyModification, data, "a result")
    moment = _moment(item.timestamp.seconds, item.timestamp.nanos)
    return KeyModification(item.tx_id, None if item.is_delete else item.value, moment, item.is_delete)


def _paging(page_size: int, bookmark: str) -> bytes:
    if not 0 < page_size <= MAX_PAGE_SIZE:
        raise StubUseError(f"a page has 1 to {MAX_PAGE_SIZE} items")
    return shim.QueryMetadata(pageSize=page_size, bookmark=_text(bookmark, "the bookmark")).SerializeToString()


def _simple_range(start: str, end: str) -> tuple[str, str]:
    return _bounds(lambda: simple_range(start, end))


def _composite_range(object_type: str, attributes: Sequence[str]) -> tuple[str, str]:
    return _bounds(lambda: partial_composite_range(object_type, attributes))


def _bounds(compute: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    try:
        return compute()
    except ProtocolError as error:
        raise StubUseError(f"these bounds are not possible: {error}") from None


def _key(key: str) -> str:
    if not key:
        raise StubUseError("a key has at least one character")
    return _text(key, "a key")


def _collection(name: str) -> str:
    if not name:
        raise StubUseError("a collection has a name")
    return _text(name, "a collection's name")


def _text(text: str, what: str) -> str:
    if not isinstance(text, str):
        raise StubUseError(f"{what} is text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StubUseError(f"{what} holds a lone surrogate, which UTF-8 cannot carry") from None
    return text
