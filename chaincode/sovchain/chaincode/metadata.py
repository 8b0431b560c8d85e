"""The contract metadata that `org.hyperledger.fabric:GetMetadata` returns, for tools in any language.

The document is valid against the contract schema of Fabric's Node and Go contract APIs
(fabric-chaincode-node/apis/fabric-contract-api/schema/contract-schema.json, JSON Schema draft 4). That schema knows no
`anyOf`, so a union of unlike types is described in words and left open, which is wider, never narrower, than what the
chaincode takes. What the schema has no place for stands beside it in each transaction:

    transient   names and schemas of the parameters that travel in the transient map: they are no arguments
    requires    what the caller must be
    optional    names of the arguments that may be left out, from the end
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sovchain.chaincode.schemas import draft4, object_type

if TYPE_CHECKING:
    from sovchain.chaincode.chaincode import Chaincode
    from sovchain.chaincode.operation import Operation, Parameter
    from sovchain.chaincode.values import Codec

METADATA_FUNCTION = b"org.hyperledger.fabric:GetMetadata"
SCHEMA_ADDRESS = "https://hyperledger.github.io/fabric-chaincode-node/main/api/contract-schema.json"


def metadata_json(chaincode: Chaincode) -> bytes:
    """The metadata of a chaincode as canonical JSON."""
    from sovchain.protocol.canonical import canonical_json

    return canonical_json(metadata(chaincode))


def metadata(chaincode: Chaincode) -> dict[str, Any]:
    """The metadata of a chaincode."""
    schemas = _Schemas(chaincode)
    contracts = {
        name: {
            "name": name,
            "default": name == chaincode.default,
            "info": {
                "title": name,
                "version": contract.version or chaincode.version,
                "description": _summary(type(contract)),
            },
            "transactions": [_transaction(operation, schemas) for operation in type(contract).operations().values()],
        }
        for name, contract in chaincode.contracts.items()
    }
    return {
        "$schema": SCHEMA_ADDRESS,
        "info": {"title": chaincode.name, "version": chaincode.version},
        "contracts": contracts,
        "components": {"schemas": schemas.components},
    }


class _Schemas:
    """The schemas of all codecs, made together so that two models of one name get two names."""

    def __init__(self, chaincode: Chaincode) -> None:
        from pydantic import TypeAdapter

        self._made: dict[Codec[Any], dict[str, Any]] = {}
        adapters: list[tuple[Codec[Any], Literal["validation", "serialization"], TypeAdapter[Any]]] = []
        for operation in chaincode.operations.values():
            for codec in [*(parameter.codec for parameter in operation.parameters), operation.result]:
                schema = codec.schema()
                if isinstance(schema, dict):
                    self._made[codec] = draft4(schema)
                else:
                    adapters.append((codec, "serialization" if codec is operation.result else "validation", schema))
        made, rest = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")
        self._made.update((key[0], draft4(schema)) for key, schema in made.items())
        self.components = {name: object_type(name, schema) for name, schema in rest.get("$defs", {}).items()}

    def of(self, codec: Codec[Any]) -> dict[str, Any]:
        return self._made[codec]


def _transaction(operation: Operation[..., Any], schemas: _Schemas) -> dict[str, Any]:
    tags = ["EVALUATE", "evaluate"] if operation.readonly else ["SUBMIT", "submitTx"]
    described: dict[str, Any] = {
        "name": operation.method,
        "description": operation.description,
        "parameters": [_parameter(one, schemas) for one in operation.parameters if not one.transient],
        "returns": schemas.of(operation.result),
        "tag": tags,  # the name in the schema
        "tags": tags,  # the name that the Node and Go contract APIs write
    }
    transient = [_parameter(one, schemas) for one in operation.parameters if one.transient]
    optional = [one.name for one in operation.parameters if not one.required and not one.transient]
    if transient:
        described["transient"] = transient
    if optional:
        described["optional"] = optional
    if operation.requires is not None:
        described["requires"] = str(operation.requires)
    return described


def _parameter(parameter: Parameter, schemas: _Schemas) -> dict[str, Any]:
    return {"name": parameter.name, "schema": schemas.of(parameter.codec), "required": parameter.required}


def _summary(contract: type) -> str:
    return (contract.__doc__ or "").strip().split("\n")[0]
