"""Typed client modules for chaincodes that describe themselves.

Contracts of the Node, Java and Go contract APIs, and of `sovchain.chaincode`, answer
`org.hyperledger.fabric:GetMetadata` with the names, parameters and results of their functions. `module_source` makes of
that a Python module with one class for each contract and a pydantic model for each object type:

    from city_assets import AssetTransfer

    assets = AssetTransfer(gateway.network("city").contract("assets"))
    asset = await assets.read_asset("a-17")
    done = await assets.transfer_asset("a-17", "Zunyi")

Text goes as it is and everything else as JSON, as those contract APIs read and write it.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from sovchain.client._text import printable
from sovchain.client.contract import Contract
from sovchain.client.errors import MetadataError

METADATA_FUNCTION: Final = "org.hyperledger.fabric:GetMetadata"
METADATA_MAX_BYTES: Final = 4 * 1024 * 1024
SYSTEM_CONTRACT: Final = "org.hyperledger.fabric"
_SCALARS: Final = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_SPECIAL: Final = {*dir(BaseModel), "self", "arguments", "hidden", "done", "result", "BaseModel", "ConfigDict", "Field", "TypeAdapter"} | {
    "Any", "Contract", "Submitted", "str", "int", "float", "bool", "list", "dict",
}  # fmt: skip
"""Names that mean something else where foreign ones would stand."""


async def fetch_metadata(contract: Contract) -> Mapping[str, Any]:
    """Ask a chaincode for its metadata. Raises MetadataError, EvaluateError, ConnectError, UnexpectedReply."""
    return parse_metadata(await contract.evaluate(METADATA_FUNCTION))


def parse_metadata(data: bytes | str) -> Mapping[str, Any]:
    """Read metadata from JSON. Raises MetadataError."""
    if len(data) > METADATA_MAX_BYTES:
        raise MetadataError(f"it has more than {METADATA_MAX_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        # Not as its cause: json's error holds the whole text, which may be anything.
        raise MetadataError("it is not JSON: the chaincode does not describe itself") from None
    if not isinstance(document, dict) or not isinstance(document.get("contracts"), dict):
        raise MetadataError("it has no contracts")
    return document


def module_source(metadata: Mapping[str, Any], *, chaincode: str) -> str:
    """The source of a typed client module. The same metadata make the same bytes.

    Raises:
        MetadataError: a name or a type in the metadata cannot be used.
    """
    return _Module(metadata, chaincode).source()


class _Module:
    def __init__(self, metadata: Mapping[str, Any], chaincode: str) -> None:
        self._contracts = metadata["contracts"]
        components = metadata.get("components") or {}
        schemas = components.get("schemas") if isinstance(components, dict) else None
        self._schemas: dict[str, Any] = schemas if isinstance(schemas, dict) else {}
        self._chaincode = chaincode
        self._models = {name: _class_name(name) for name in self._schemas}
        if len(set(self._models.values())) != len(self._models):
            raise MetadataError("two of its types would have the same name in Python")

    def source(self) -> str:
        parts = [
            f'"""A typed client of chaincode {_in_text(self._chaincode)}. Written by `sovchain client generate`."""',
            "",
            "from __future__ import annotations",
            "",
            "from typing import Any",
            "",
            "from pydantic import BaseModel, ConfigDict, Field, TypeAdapter",
            "",
            "from sovchain.client import Contract, Submitted",
            "",
            "",
            _HELPERS,
        ]
        for name in sorted(self._schemas):
            parts += ["", "", self._model(name)]
        taken = set(self._models.values())
        for name in sorted(self._contracts):
            if name != SYSTEM_CONTRACT:
                class_name = _class_name(name or self._chaincode)
                while class_name in taken:
                    class_name += "Contract"
                taken.add(class_name)
                parts += ["", "", self._contract(name, class_name)]
        source = "\n".join(parts) + "\n"
        try:
            ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise MetadataError("its names and types do not make a Python module") from error
        return source

    def _model(self, name: str) -> str:
        schema = self._schemas[name]
        properties = schema.get("properties") if isinstance(schema, dict) else None
        lines = [
            f"class {self._models[name]}(BaseModel):",
            f'    """{_in_text(_text(schema.get("description")) or name)}"""',
            "",
            '    model_config = ConfigDict(extra="allow", populate_by_name=True)',
        ]
        required = set(schema.get("required") or ()) if isinstance(schema, dict) else set()
        taken: set[str] = set()
        fields = [self._field(field, part, field in required, taken) for field, part in (properties or {}).items()]
        return "\n".join([*lines, *([""] if fields else []), *fields])

    def _field(self, name: str, schema: Any, required: bool, taken: set[str]) -> str:
        python = _identifier(name, taken)
        kind = self._type(schema)
        if not required and not kind.endswith("None"):
            kind += " | None"
        options = [] if required else ["default=None"]
        if python != name:
            options.append(f"alias={json.dumps(name)}")
        value = "" if required and python == name else f" = Field({', '.join(options)})"
        return f"    {python}: {kind}{value if options != ['default=None'] else ' = None'}"

    def _contract(self, name: str, class_name: str) -> str:
        contract = self._contracts[name]
        info = contract.get("info") if isinstance(contract, dict) else None
        title = _text((info or {}).get("description")) or _text((info or {}).get("title")) or name
        lines = [
            f"class {class_name}:",
            f'    """{_in_text(title or self._chaincode)}"""',
            "",
            "    def __init__(self, contract: Contract) -> None:",
            f'        """Take the chaincode on a channel: `gateway.network(...).contract({json.dumps(self._chaincode)})`."""',
            "        self._contract = contract",
        ]
        methods: set[str] = set()
        for transaction in (contract.get("transactions") or []) if isinstance(contract, dict) else []:
            lines += ["", self._method(name, transaction, methods)]
        return "\n".join(lines)

    def _method(self, contract: str, transaction: Any, taken: set[str]) -> str:
        name = _text(transaction.get("name")) if isinstance(transaction, dict) else ""
        if not name:
            raise MetadataError(f"contract {contract} has a function without a name")
        python = _identifier(_snake(name), taken)
        optional: set[str] = set(transaction.get("optional") or ())
        used: set[str] = set()
        none: set[str] = set()
        arguments = [self._argument(one, optional, used) for one in transaction.get("parameters") or []]
        transient = [self._argument(one, none, used) for one in transaction.get("transient") or []]
        signature = ["self", *(text for _, text, _ in arguments)]
        if transient:
            signature += ["*", *(text for _, text, _ in transient)]
        returns = self._returned(transaction.get("returns"))
        tags = {str(tag).lower() for tag in (transaction.get("tag") or transaction.get("tags") or [])}
        submits = not tags or bool(tags & {"submit", "submittx"})
        call = "submit" if submits else "evaluate"
        function = f"{contract}:{name}" if contract else name
        lines = [
            f"    async def {python}({', '.join(signature)}) -> {f'Submitted[{returns}]' if submits else returns}:",
            f'        """{_in_text(_text(transaction.get("description")) or f"{call} {function}")}"""',
            f"        arguments = _arguments([{', '.join(value for _, _, value in arguments)}])",
        ]
        passed = ""
        if transient:
            pairs = ", ".join(f"{json.dumps(wire)}: _encoded({value})" for wire, _, value in transient)
            lines.append(f"        hidden = {{{pairs}}}")
            passed = ", transient=hidden"
        answer = "" if returns == "None" and not submits else "done = "
        lines.append(f"        {answer}await self._contract.{call}({json.dumps(function)}, *arguments{passed})")
        if submits:
            decoded = f"_decoded({returns}, done.result)" if returns != "None" else "None"
            lines.append(f"        return Submitted({decoded}, done.transaction_id, done.block_number, done.code)")
        else:
            # With a type of its own: what is decoded at run time is `Any` to a type checker.
            lines += (
                ["        return None"]
                if returns == "None"
                else [
                    f"        result: {returns} = _decoded({returns}, done)",
                    "        return result",
                ]
            )
        return "\n".join(lines)

    def _argument(self, parameter: Any, optional: set[str], used: set[str]) -> tuple[str, str, str]:
        """Name on the wire, text of the parameter, and the expression of its value."""
        name = _text(parameter.get("name")) if isinstance(parameter, dict) else ""
        if not name:
            raise MetadataError("a parameter has no name")
        python = _identifier(name, used)
        kind = self._type(parameter.get("schema") or {})
        left_out = name in optional
        return name, f"{python}: {kind}{' | None = None' if left_out else ''}", python

    def _returned(self, returns: Any) -> str:
        if isinstance(returns, list):  # the Java API writes a list with one entry
            returns = returns[0] if returns else None
        if isinstance(returns, dict) and isinstance(returns.get("schema"), dict):
            returns = returns["schema"]
        return "None" if not isinstance(returns, dict) or not returns else self._type(returns)

    def _type(self, schema: Any) -> str:
        if not isinstance(schema, dict):
            return "Any"
        reference = schema.get("$ref")
        if isinstance(reference, str):
            name = reference.rsplit("/", 1)[-1]
            return self._models.get(name, "Any")
        kind = schema.get("type")
        if isinstance(kind, list):
            return " | ".join(dict.fromkeys(self._type({**schema, "type": one}) for one in kind)) or "Any"
        if kind == "array":
            return f"list[{self._type(schema.get('items'))}]"
        if kind == "object":
            more = schema.get("additionalProperties")
            return f"dict[str, {self._type(more)}]" if isinstance(more, dict) else "dict[str, Any]"
        return _SCALARS.get(str(kind), "Any")


_HELPERS = '''def _encoded(value: Any) -> str:
    """Text goes as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    return TypeAdapter(Any).dump_json(value, by_alias=True, exclude_none=True).decode()


def _arguments(values: list[Any]) -> list[str]:
    """The arguments as they travel; those at the end that were left out do not."""
    while values and values[-1] is None:
        values.pop()
    return [_encoded(value) for value in values]


def _decoded(kind: Any, data: bytes) -> Any:
    """A result of the declared type. Raises pydantic.ValidationError."""
    return data.decode() if kind is str else TypeAdapter(kind).validate_json(data)'''


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _in_text(text: str) -> str:
    """Foreign text inside a docstring: one line, and nothing that ends it."""
    return printable(text, 300).replace("\\", "\\\\").replace('"', "'")


def _identifier(name: str, taken: set[str] | None = None) -> str:
    """A foreign name as a Python one that is not `taken`. Raises MetadataError if nothing is left of it."""
    # Python reads identifiers in this normal form, so that two names may turn out to be one.
    wanted = unicodedata.normalize("NFKC", name)
    python = "".join(char if f"a{char}".isidentifier() else "_" for char in wanted).lstrip("_")
    if not python or len(python) > 200:
        raise MetadataError(f"the name {printable(name, 40)!r} cannot be one in Python")
    if not python.isidentifier():
        python = f"n{python}"
    while keyword.iskeyword(python) or python in _SPECIAL or python in (taken or ()):
        python += "_"
    if taken is not None:
        taken.add(python)
    return python


def _class_name(name: str) -> str:
    words = re.split(r"\W+|_", name.rsplit(".", 1)[-1])
    return _identifier("".join(word[:1].upper() + word[1:] for word in words if word) or name)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
