"""Rich queries in the contract harness: the answers of the embedded ledger, from records and from the stub."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from sovchain.chaincode import Chaincode, Context, Contract, Transient, query, record, transaction
from sovchain.client import EndorseError, EvaluateError
from sovchain.protocol.canonical import canonical_json
from sovchain.testing import ContractHarness


@record(key=("number",))
class Car(BaseModel):
    number: str
    owner: str
    doors: int


class Cars(Contract):
    @transaction
    async def put(self, ctx: Context, car: Car) -> None:
        await ctx.records(Car).put(car)

    @transaction
    async def keep(self, ctx: Context, key: str) -> None:
        await ctx.stub.put_state(key, b"{}")

    @query
    async def of(self, ctx: Context, owner: str) -> list[Car]:
        return [car async for car in ctx.records(Car).matching({"owner": owner})]

    @query
    async def page(self, ctx: Context, selector: str, bookmark: str) -> list[str]:
        page = await ctx.stub.rich_query_page(selector, page_size=2, bookmark=bookmark)
        return [*(item.value.decode() for item in page.items), page.bookmark]

    @transaction
    async def hide(self, ctx: Context, key: str, car: Transient[Car]) -> None:
        await ctx.stub.put_private_data(own(ctx), key, canonical_json(car.model_dump()))

    @query
    async def hidden_of(self, ctx: Context, owner: str) -> list[str]:
        selector = json.dumps({"selector": {"owner": owner}})
        return [item.key async for item in ctx.stub.private_rich_query(own(ctx), selector)]

    @transaction
    async def hidden_and_keep(self, ctx: Context, key: str) -> None:
        async for _ in ctx.stub.private_rich_query(own(ctx), '{"selector":{}}'):
            pass
        await ctx.stub.put_state(key, b"{}")


def own(ctx: Context) -> str:
    return f"_implicit_org_{ctx.identity.msp_id}"


CHAINCODE = Chaincode([Cars()])
BY_OWNER = {"META-INF/statedb/couchdb/indexes/o.json": b'{"index":{"fields":["owner"]},"ddoc":"o","name":"o"}'}


async def filled(harness: ContractHarness) -> None:
    caller = harness.caller("Org1")
    for number, owner, doors in (("1", "ann", 3), ("2", "bob", 5), ("3", "ann", 4)):
        await caller.submit(Cars.put, Car(number=number, owner=owner, doors=doors))


async def test_records_are_found_by_a_selector() -> None:
    harness = ContractHarness(CHAINCODE, state_database="couchdb")
    await filled(harness)
    found = await harness.caller("Org2").evaluate(Cars.of, "ann")
    assert [car.number for car in found] == ["1", "3"]


async def test_a_sort_by_an_index_comes_in_pages() -> None:
    harness = ContractHarness(CHAINCODE, state_database="couchdb", indexes=BY_OWNER)
    await filled(harness)
    caller = harness.caller("Org1")
    selector = '{"selector":{"owner":{"$gt":null}},"sort":[{"owner":"desc"}],"fields":["doors"]}'
    *first, bookmark = await caller.evaluate(Cars.page, selector, "")
    *second, _ = await caller.evaluate(Cars.page, selector, bookmark)
    assert first + second == ['{"doors":5}', '{"doors":4}', '{"doors":3}']


async def test_a_collection_is_asked_by_its_members_only_and_never_with_a_write() -> None:
    harness = ContractHarness(CHAINCODE, state_database="couchdb")
    for organization, key, owner in (("Org1", "a", "ann"), ("Org1", "b", "bob"), ("Org2", "c", "ann")):
        await harness.caller(organization).submit(Cars.hide, key, Car(number="1", owner=owner, doors=3))
    assert await harness.caller("Org1").evaluate(Cars.hidden_of, "ann") == ["a"]
    assert await harness.caller("Org2").evaluate(Cars.hidden_of, "ann") == ["c"]
    with pytest.raises(EndorseError, match=r"already performed queries on pvt data\. Writes are not allowed"):
        await harness.caller("Org1").submit(Cars.hidden_and_keep, "d")


async def test_without_couchdb_a_rich_query_is_refused_in_leveldbs_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal that a contract does not catch goes to the log of its process, not to the client."""
    harness = ContractHarness(CHAINCODE)
    with pytest.raises(EvaluateError, match="E_INTERNAL"):
        await harness.caller("Org1").evaluate(Cars.of, "ann")
    assert "ExecuteQuery not supported for leveldb" in capsys.readouterr().out
    with pytest.raises(EvaluateError, match="E_INTERNAL"):
        await harness.caller("Org1").evaluate(Cars.page, '{"selector":{}}', "")
    assert "ExecuteQueryWithMetadata not supported for leveldb" in capsys.readouterr().out


async def test_couchdbs_keys_are_refused() -> None:
    harness = ContractHarness(CHAINCODE, state_database="couchdb")
    with pytest.raises(EndorseError, match=r'cannot begin with "_"|E_INTERNAL'):
        await harness.caller("Org1").submit(Cars.keep, "_key")


def test_a_wrong_index_definition_is_named() -> None:
    with pytest.raises(ValueError, match=r"o\.json: Missing required key: fields"):
        ContractHarness(CHAINCODE, indexes={"META-INF/statedb/couchdb/indexes/o.json": b'{"index":{}}'})
