"""The contract metadata that `org.hyperledger.fabric:GetMetadata` returns.

The document has the shape of fabric-chaincode-node/apis/fabric-contract-api/schema/contract-schema.json: `info`,
`contracts` with their transactions, and `components.schemas`. Parameters that travel in the transient map carry
`"transient": true` beside name and schema, and are not counted among the arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sovchain.chaincode.chaincode import Chaincode
    from sovchain.chaincode.operation import Operation
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
            "info": {"title": name, "version": chaincode.version, "description": _summary(type(contract))},
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

        self._plain: dict[Codec[Any], dict[str, Any]] = {}
        adapters: list[tuple[Codec[Any], Literal["validation", "serialization"], TypeAdapter[Any]]] = []
        for operation in chaincode.operations.values():
            for codec in [*(parameter.codec for parameter in operation.parameters), operation.result]:
                schema = codec.schema()
                if isinstance(schema, dict):
                    self._plain[codec] = schema
                else:
                    adapters.append((codec, "serialization" if codec is operation.result else "validation", schema))
        made, rest = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")
        self._made = {key[0]: schema for key, schema in made.items()}
        self.components: dict[str, Any] = rest.get("$defs", {})

    def of(self, codec: Codec[Any]) -> dict[str, Any]:
        return self._plain.get(codec) or self._made[codec]


def _transaction(operation: Operation[..., Any], schemas: _Schemas) -> dict[str, Any]:
    parameters = []
    for parameter in operation.parameters:
        described: dict[str, Any] = {"name": parameter.name, "schema": schemas.of(parameter.codec)}
        if parameter.transient:
            described["transient"] = True
        if not parameter.required:
            described["required"] = False
        parameters.append(described)
    return {
        "name": operation.method,
        "description": operation.description,
        "parameters": parameters,
        "returns": schemas.of(operation.result),
        "tags": ["EVALUATE", "evaluate"] if operation.readonly else ["SUBMIT", "submitTx"],
    }


def _summary(contract: type) -> str:
    return (contract.__doc__ or "").strip().split("\n")[0]
