"""Typed clients are made of what chaincodes say of themselves: right for honest metadata, refused or harmless for any other."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovchain.client import MetadataError
from sovchain.client.generate import fetch_metadata, module_source, parse_metadata
from sovchain.testing.conformance.world import ConformanceNetwork

NODE_METADATA: dict[str, Any] = {
    "$schema": "https://hyperledger.github.io/fabric-chaincode-node/main/api/contract-schema.json",
    "contracts": {
        "AssetTransferContract": {
            "name": "AssetTransferContract",
            "contractInstance": {"name": "AssetTransferContract", "default": True},
            "transactions": [
                {"tag": ["SUBMIT", "submitTx"], "parameters": [
                    {"name": "id", "description": "", "schema": {"type": "string"}},
                    {"name": "AppraisedValue", "schema": {"type": "number"}},
                    {"name": "asset", "schema": {"$ref": "#/components/schemas/Asset"}},
                ], "name": "CreateAsset"},
                {"tag": [], "parameters": [{"name": "id", "schema": {"type": "string"}}],
                 "returns": {"type": "string"}, "name": "ReadAsset"},
                {"tag": ["EVALUATE"], "parameters": [],
                 "returns": {"type": "array", "items": {"$ref": "#/components/schemas/Asset"}}, "name": "GetAllAssets"},
                {"tag": ["EVALUATE"], "parameters": [{"name": "class", "schema": {"type": "boolean"}}],
                 "returns": [{"name": "success", "schema": {"type": "boolean"}}], "name": "AssetExists"},
            ],
            "info": {"title": "AssetTransfer", "description": 'Smart contract """for trading assets\\'},
        },
        "org.hyperledger.fabric": {"name": "org.hyperledger.fabric", "transactions": [{"name": "GetMetadata"}]},
    },
    "info": {"title": "", "version": "1.0"},
    "components": {"schemas": {"Asset": {
        "$id": "Asset", "type": "object", "additionalProperties": False, "required": ["ID"],
        "properties": {"ID": {"type": "string"}, "Size": {"type": "number"}, "docType": {"type": "string"}},
    }}},
}  # fmt: skip


def load(source: str) -> ModuleType:
    module = ModuleType("generated_client")
    sys.modules["generated_client"] = module  # pydantic looks annotations up there
    exec(compile(source, "generated_client.py", "exec"), module.__dict__)
    return module


def test_a_contract_of_the_node_api_becomes_a_class_that_type_checkers_accept(tmp_path: Path) -> None:
    source = module_source(parse_metadata(json.dumps(NODE_METADATA)), chaincode="basic")
    assert source == module_source(NODE_METADATA, chaincode="basic"), "the same metadata make the same bytes"
    module = load(source)
    contract = module.AssetTransferContract
    assert {name for name in vars(contract) if not name.startswith("_")} == {
        "create_asset", "read_asset", "get_all_assets", "asset_exists",
    }  # fmt: skip
    path = tmp_path / "basic_client.py"
    path.write_text(source)
    use = tmp_path / "use.py"
    use.write_text(
        "from basic_client import Asset, AssetTransferContract\n"
        "async def f(c: AssetTransferContract) -> None:\n"
        "    assets: list[Asset] = await c.get_all_assets()\n"
        "    exists: bool = await c.asset_exists(True)\n"
        "    done = await c.create_asset('a', 7, assets[0])\n"
        "    print(exists, done.block_number)\n"
        "    await c.read_asset(7)  # an error\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", "", "use.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1, done.stdout + done.stderr
    assert "use.py:7" in errors[0]


class Recorder:
    """Stands in for a contract."""

    def __init__(self, *results: bytes) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._results = list(results)

    async def evaluate(self, function: str, *arguments: str, **options: Any) -> bytes:
        self.calls.append((function, *arguments))
        return self._results.pop(0)


async def test_text_goes_as_it_is_and_everything_else_as_json() -> None:
    module = load(module_source(NODE_METADATA, chaincode="basic"))
    recorder = Recorder(b'[{"ID":"a","Size":3}]', b"true", b"plain text")
    client = module.AssetTransferContract(recorder)
    (asset,) = await client.get_all_assets()
    assert (asset.ID, asset.Size, asset.docType) == ("a", 3.0, None)
    assert await client.asset_exists(False) is True
    assert recorder.calls[-1] == ("AssetTransferContract:AssetExists", "false")


async def test_it_calls_a_real_chaincode_by_its_own_metadata(conformance_network: ConformanceNetwork) -> None:
    async with conformance_network.open() as world:
        contract = world.alpha.contract()
        module = load(module_source(await fetch_metadata(contract), chaincode="probe"))
        probe = module.Probe(contract)
        done = await probe.add(world.key(), 5)
        assert done.result == 5
        assert (await probe.add(world.key(), 2)).result == 7
        entries = await probe.scan(world.key(), world.key("~"))
        assert [entry.value for entry in entries] == ["7"]
        assert len(await probe.digest(secret="hidden")) == 64


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", b"[]", b"{}", b'{"contracts": []}', b"[" * 100_000, b'{"contracts": 7}']
)
def test_what_is_no_metadata_is_refused(data: bytes) -> None:
    with pytest.raises(MetadataError):
        parse_metadata(data)


names = st.text(max_size=20) | st.sampled_from(["class", "self", "a-b", "Ünïcode", '"""', "\\", "1x", "import os"])
schema = st.recursive(
    st.sampled_from(
        [{"type": "string"}, {"type": "integer"}, {}, {"$ref": "#/components/schemas/A"}, {"type": ["null"]}]
    ),
    lambda inner: st.builds(lambda items: {"type": "array", "items": items}, inner),
    max_leaves=4,
)
transactions = st.fixed_dictionaries(
    {
        "name": names,
        "description": names,
        "tag": st.lists(st.sampled_from(["submit", "EVALUATE"])),
        "parameters": st.lists(
            st.fixed_dictionaries({"name": names, "schema": schema}), max_size=3, unique_by=lambda p: p["name"]
        ),
        "returns": schema,
    }
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(names, st.fixed_dictionaries({"transactions": st.lists(transactions, max_size=3)}), max_size=2),
    st.dictionaries(
        st.just("A") | names,
        st.fixed_dictionaries({"properties": st.dictionaries(names, schema, max_size=3)}),
        max_size=2,
    ),
    names,
)
def test_whatever_the_metadata_say_the_module_holds_nothing_but_classes(
    contracts: dict[str, Any], schemas: dict[str, Any], chaincode: str
) -> None:
    """A chaincode is not trusted: its names and texts become identifiers and docstrings, or a MetadataError."""
    try:
        source = module_source({"contracts": contracts, "components": {"schemas": schemas}}, chaincode=chaincode)
    except MetadataError:
        return
    tree = ast.parse(source)
    allowed = (ast.ClassDef, ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Expr)
    assert all(isinstance(node, allowed) for node in tree.body)
    imports = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imports == ["__future__", "typing", "pydantic", "sovchain.client"]
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))
