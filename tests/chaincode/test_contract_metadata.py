"""The metadata is valid against the schema that comes with Fabric's own contract API, and tells what a tool needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from namedcalls import Named
from pydantic import BaseModel, Field

from sovchain.chaincode import Chaincode, Context, Contract, Transient, msp, query, role, transaction
from sovchain.chaincode.metadata import METADATA_FUNCTION, metadata
from sovchain.contracts import finance, government, logistics
from sovchain.testing import ContractHarness

PACKAGE = "fabric-contract-api@2.5.8"


@pytest.fixture(scope="session")
def contract_schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The schema out of npm's fabric-contract-api."""
    if shutil.which("npm") is None:
        pytest.skip("missing program: npm: apt-get install npm")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--silent", PACKAGE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=90)
    if done.returncode != 0:
        pytest.skip(f"missing program: {PACKAGE}: npm pack cannot get it here")
    with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
        member = archive.extractfile("package/schema/contract-schema.json")
        assert member is not None
        found: dict[str, Any] = json.load(member)
    return found


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=20, pattern="^[a-z]+$")]
    weight_g: Annotated[int, Field(gt=0, lt=1000)]
    price: Decimal
    parts: list[Part] = []
    tags: dict[str, int] = {}
    color: Color = Color.RED
    note: str | None = None
    kind: Literal["a", "b"] = "a"
    none: Annotated[list[int], Field(max_length=0)] = []


@dataclass
class Pair:
    """Two parts."""

    left: Part
    right: Part | None


class Everything(Contract):
    """Has one of each.

    And more text.
    """

    version = "2.1"

    @transaction(requires=role("clerk") & ~msp("XMSP"))
    async def make(
        self,
        ctx: Context,
        part: Part,
        pairs: list[Pair],
        secret: Transient[bytes],
        at: datetime | None = None,
        mixed: int | str | Part | None = None,
        count: Annotated[int, Field(ge=1)] = 1,
        color: Color | None = None,
    ) -> Pair | None:
        """Make a thing.

        With more text.
        """

    @query
    async def read(self, ctx: Context, place: tuple[int, str], ok: bool, data: bytes) -> None:
        """Read a thing."""


CHAINCODE = Chaincode([Everything()], name="things", version="1.4")


@pytest.mark.parametrize(
    "chaincode",
    [CHAINCODE, finance.chaincode, government.chaincode, logistics.chaincode],
    ids=["everything", "finance", "government", "logistics"],
)
def test_it_is_valid_against_fabrics_schema(contract_schema: dict[str, Any], chaincode: Chaincode) -> None:
    jsonschema.Draft4Validator.check_schema(contract_schema)
    problems = list(jsonschema.Draft4Validator(contract_schema).iter_errors(metadata(chaincode)))
    assert [f"{list(found.absolute_path)}: {found.message[:200]}" for found in problems] == []


def test_the_schemas_in_it_are_valid_themselves_and_take_what_the_chaincode_takes() -> None:
    document = metadata(CHAINCODE)
    made = document["contracts"]["Everything"]["transactions"][0]
    part = {"name": "nut", "weight_g": 3, "price": "1.50"}
    values = {
        "part": [part, {**part, "note": None, "parts": [part]}],
        "pairs": [[{"left": part, "right": None}]],
        "at": ["2026-01-02T03:04:05Z", None],
        "mixed": [1, "x", part, None],
        "count": [1],
        "color": ["red", None],
    }
    for parameter in made["parameters"]:
        schema = {**parameter["schema"], "components": document["components"]}
        jsonschema.Draft4Validator.check_schema(schema)
        for value in values[parameter["name"]]:
            jsonschema.Draft4Validator(schema).validate(value)
    refused = {**made["parameters"][0]["schema"], "components": document["components"]}
    for wrong in (
        {},
        {**part, "weight_g": 0},
        {**part, "weight_g": 1000},
        {**part, "name": "NUT"},
        {**part, "kind": "c"},
    ):
        assert not jsonschema.Draft4Validator(refused).is_valid(wrong)


def test_it_says_who_may_call_what_with_which_arguments() -> None:
    document = metadata(CHAINCODE)
    contract = document["contracts"]["Everything"]
    make, read = contract["transactions"]
    assert document["info"] == {"title": "things", "version": "1.4"}
    assert contract["info"] == {"title": "Everything", "version": "2.1", "description": "Has one of each."}
    assert contract["default"] is True
    assert [one["name"] for one in make["parameters"]] == ["part", "pairs", "at", "mixed", "count", "color"]
    assert [one["name"] for one in make["transient"]] == ["secret"]
    assert make["optional"] == ["at", "mixed", "count", "color"]
    assert make["requires"] == "role(clerk) & ~msp(XMSP)"
    assert (make["description"], make["tags"]) == ("Make a thing.", ["SUBMIT", "submitTx"])
    assert "requires" not in read
    assert read["tags"] == ["EVALUATE", "evaluate"]


async def test_every_client_may_ask_for_it() -> None:
    harness = ContractHarness(CHAINCODE)
    payload = await harness.caller("Org2").evaluate(Named(METADATA_FUNCTION.decode()))
    assert json.loads(payload) == metadata(CHAINCODE)
