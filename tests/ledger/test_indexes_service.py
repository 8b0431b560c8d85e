"""Index definitions in an installed package, on a running ledger: what they allow, for whom, and after an upgrade."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim
from ledger_world import World
from raw_chaincode import Answer, Stub
from service_world import Services, services

from sovchain.protocol.packages import build_ccaas_package

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOLDER = "META-INF/statedb/couchdb"
BY_PRICE = {"index": {"fields": ["price"]}, "ddoc": "by-price", "name": "by-price", "type": "json"}
SORTED = json.dumps({"selector": {"price": {"$gt": 0}}, "sort": [{"price": "asc"}]})


async def query(stub: Stub) -> Answer:
    """The keys that a rich query finds, in its order. Arguments: the query, and a collection."""
    text, collection = stub.args
    request = shim.GetQueryResult(query=text.decode(), collection=collection.decode())
    found = shim.QueryResponse.FromString(
        await stub.ask(shim.ChaincodeMessage.GET_QUERY_RESULT, request.SerializeToString())
    )
    keys = [kv_query_result_pb2.KV.FromString(entry.resultBytes).key for entry in found.results]
    return Answer(json.dumps(keys).encode())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """A ledger that behaves as with CouchDB, and a chaincode without indexes whose keys are out of their prices' order."""
    world = World(("Org1MSP",))
    async with services(tmp_path_factory.mktemp("net"), world, state_database="couchdb") as running:
        chaincode = await running.deploy("cc", "OR('Org1MSP.peer')")
        chaincode.functions["query"] = query
        for key, price in (("a", 3), ("b", 1), ("c", 2)):
            await running.transact("put", key, json.dumps({"price": price}))
        yield running


async def upgrade(net: Services, sequence: int, files: dict[str, bytes]) -> None:
    """Install a package with these files for the same chaincode process, approve and commit it."""
    chaincode = net.chaincodes["cc"]
    connection = {
        "address": chaincode.address, "dial_timeout": "3s", "tls_required": True, "root_cert": net.tls.root_pem.decode(),
    }  # fmt: skip
    chaincode.package_id = await net.install(build_ccaas_package(f"cc{sequence}", connection, files))
    await net.define("cc", chaincode.package_id, "OR('Org1MSP.peer')", sequence=sequence)


async def asked(net: Services, text: str, collection: str = "") -> tuple[int, str]:
    response = (await net.process(net.proposal("query", text, collection)[1])).response
    return response.status, response.message or response.payload.decode()


async def test_a_sort_is_refused_until_the_package_brings_its_index_and_again_without_it(net: Services) -> None:
    status, said = await asked(net, SORTED)
    assert status == 500
    assert "no_usable_index" in said
    await upgrade(net, 2, {f"{FOLDER}/indexes/price.json": json.dumps(BY_PRICE).encode()})
    assert await asked(net, SORTED) == (200, '["b", "c", "a"]')
    # An index of a collection is none of the public state, and the definition in force decides.
    await upgrade(net, 3, {f"{FOLDER}/collections/mine/indexes/price.json": json.dumps(BY_PRICE).encode()})
    assert (await asked(net, SORTED))[0] == 500


async def test_a_definition_that_is_no_index_is_left_out_and_the_rest_works(net: Services) -> None:
    await upgrade(net, 4, {
        f"{FOLDER}/indexes/wrong.json": b'{"index": {}}', f"{FOLDER}/indexes/price.json": json.dumps(BY_PRICE).encode(),
    })  # fmt: skip
    assert await asked(net, SORTED) == (200, '["b", "c", "a"]')
