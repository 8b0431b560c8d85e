"""A chaincode whose every request to the peer a test writes down: one list of steps for each transaction.

The first argument of a proposal is "run", the second a JSON list of steps such as ["put", "k", "v"]. What the peer
answers becomes the chaincode's payload, so that equal payloads mean equal answers. A step that the peer refuses ends the
transaction with status 500 and the peer's text, unless ["try"] is among the steps.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fabric_protos.peer import chaincode_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim
from raw_chaincode import Answer, Kind, Refused, Stub

Step = list[Any]


async def run(stub: Stub) -> Answer:
    """Do the steps of one transaction."""
    steps: list[Step] = json.loads(stub.args[0])
    forgiving = ["try"] in steps
    said: list[object] = []
    answer = Answer()
    for name, *arguments in [step for step in steps if step != ["try"]]:
        if name == "status":
            answer.status, answer.message = arguments
        elif name == "event":
            answer.event = (arguments[0], arguments[1].encode())
        else:
            try:
                said.append(await _STEPS[name](stub, *arguments))
            except Refused as refusal:
                if not forgiving:
                    raise
                said.append({"refused": str(refusal)})
    answer.payload = json.dumps(said, sort_keys=True).encode()
    return answer


async def _get(stub: Stub, key: str, collection: str = "") -> str:
    return (await stub.get(key, collection)).hex()


async def _many(stub: Stub, keys: list[str], collection: str = "") -> list[str]:
    request = shim.GetStateMultiple(keys=keys, collection=collection)
    answer = await stub.ask(Kind.GET_STATE_MULTIPLE, request.SerializeToString())
    return [value.hex() for value in shim.GetStateMultipleResult.FromString(answer).values]


async def _put(stub: Stub, key: str, value: str, collection: str = "") -> None:
    await stub.put(key, value.encode(), collection)


async def _secret(stub: Stub, key: str, name: str, collection: str) -> None:
    await stub.put(key, stub.transient.get(name, b"none"), collection)


async def _delete(stub: Stub, key: str, collection: str = "") -> None:
    await stub.ask(Kind.DEL_STATE, shim.DelState(key=key, collection=collection).SerializeToString())


async def _purge(stub: Stub, key: str, collection: str) -> None:
    await stub.ask(Kind.PURGE_PRIVATE_DATA, shim.DelState(key=key, collection=collection).SerializeToString())


async def _digest(stub: Stub, key: str, collection: str) -> str:
    request = shim.GetState(key=key, collection=collection)
    return (await stub.ask(Kind.GET_PRIVATE_DATA_HASH, request.SerializeToString())).hex()


async def _policy(stub: Stub, key: str, policy: str, collection: str = "") -> None:
    metadata = shim.StateMetadata(metakey="VALIDATION_PARAMETER", value=bytes.fromhex(policy))
    request = shim.PutStateMetadata(key=key, collection=collection, metadata=metadata)
    await stub.ask(Kind.PUT_STATE_METADATA, request.SerializeToString())


async def _read_policy(stub: Stub, key: str, collection: str = "") -> list[list[str]]:
    request = shim.GetStateMetadata(key=key, collection=collection)
    answer = shim.StateMetadataResult.FromString(await stub.ask(Kind.GET_STATE_METADATA, request.SerializeToString()))
    return [[entry.metakey, entry.value.hex()] for entry in answer.entries]


async def _batch(stub: Stub, records: list[list[str]]) -> None:
    kinds = shim.WriteRecord.Type
    batch = shim.WriteBatchState()
    for kind, key, value, collection in records:
        record = batch.rec.add(key=key, collection=collection, type=kinds.Value(kind))
        if kind == "PUT_STATE_METADATA":
            record.metadata.metakey, record.metadata.value = "VALIDATION_PARAMETER", bytes.fromhex(value)
        else:
            record.value = value.encode()
    await stub.ask(Kind.WRITE_BATCH_STATE, batch.SerializeToString())


async def _range(stub: Stub, start: str, end: str, collection: str = "", limit: int = -1) -> list[object]:
    request = shim.GetStateByRange(startKey=start, endKey=end, collection=collection)
    return await _results(stub, Kind.GET_STATE_BY_RANGE, request.SerializeToString(), limit)


async def _page(stub: Stub, start: str, end: str, size: int, bookmark: str) -> list[object]:
    metadata = shim.QueryMetadata(pageSize=size, bookmark=bookmark)
    request = shim.GetStateByRange(startKey=start, endKey=end, metadata=metadata.SerializeToString())
    return await _results(stub, Kind.GET_STATE_BY_RANGE, request.SerializeToString(), -1)


async def _query(stub: Stub, query: str, collection: str = "") -> list[object]:
    request = shim.GetQueryResult(query=query, collection=collection)
    return await _results(stub, Kind.GET_QUERY_RESULT, request.SerializeToString(), -1)


async def _history(stub: Stub, key: str) -> list[object]:
    request = shim.GetHistoryForKey(key=key)
    return await _results(stub, Kind.GET_HISTORY_FOR_KEY, request.SerializeToString(), -1)


async def _results(stub: Stub, kind: Any, request: bytes, limit: int) -> list[object]:
    """Read the frames of a query until there are no more or `limit` of them were read; then close it."""
    said: list[object] = []
    response = shim.QueryResponse.FromString(await stub.ask(kind, request))
    frames = 1
    while True:
        said.extend(item.resultBytes.hex() for item in response.results)
        if response.metadata:
            said.append({"metadata": response.metadata.hex()})
        if not response.has_more or frames == limit:
            break
        more = shim.QueryStateNext(id=response.id).SerializeToString()
        response = shim.QueryResponse.FromString(await stub.ask(Kind.QUERY_STATE_NEXT, more))
        frames += 1
    await stub.ask(Kind.QUERY_STATE_CLOSE, shim.QueryStateClose(id=response.id).SerializeToString())
    return said


async def _call(stub: Stub, chaincode: str, steps: list[Step]) -> object:
    """Call a chaincode, "name" or "name/channel", with steps of its own."""
    specification = chaincode_pb2.ChaincodeSpec(
        chaincode_id=chaincode_pb2.ChaincodeID(name=chaincode),
        input=chaincode_pb2.ChaincodeInput(args=[b"run", json.dumps(steps).encode()]),
    )
    inner = Kind.FromString(await stub.ask(Kind.INVOKE_CHAINCODE, specification.SerializeToString()))
    if inner.type != Kind.COMPLETED:
        return {"type": inner.type, "text": inner.payload.decode()}
    response = proposal_response_pb2.Response.FromString(inner.payload)
    return [response.status, response.message, response.payload.decode()]


_STEPS: dict[str, Callable[..., Awaitable[object]]] = {
    "get": _get,
    "many": _many,
    "put": _put,
    "secret": _secret,
    "delete": _delete,
    "purge": _purge,
    "digest": _digest,
    "policy": _policy,
    "read policy": _read_policy,
    "batch": _batch,
    "range": _range,
    "page": _page,
    "query": _query,
    "history": _history,
    "call": _call,
}
