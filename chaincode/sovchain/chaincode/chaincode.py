"""A chaincode: contracts under one roof, and the way from a call to its response."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sovchain.chaincode.context import Context
from sovchain.chaincode.contract import Contract
from sovchain.chaincode.determinism.guard import MODES, guard_modules, watching
from sovchain.chaincode.errors import (
    E_FUNCTION,
    E_INTERNAL,
    STATUS_FAILED,
    STATUS_OK,
    STATUS_REFUSED,
    ArgumentError,
    ChaincodeError,
    ContractError,
    DefinitionError,
    ResultError,
)
from sovchain.chaincode.metadata import METADATA_FUNCTION, metadata_json
from sovchain.chaincode.stub import Response
from sovchain.chaincode.values import encode_value
from sovchain.chaincode.workers import Workers
from sovchain.rpc.log import Log, frames

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sovchain.chaincode.determinism.guard import DeterminismMode
    from sovchain.chaincode.operation import Operation
    from sovchain.chaincode.stub import Stub

MAX_ARGUMENT_BYTES = 8 * 1024 * 1024
"""Most bytes of all arguments together. An orderer takes no transaction over 10 MiB unless configured otherwise."""
MAX_TRANSIENT_ENTRIES = 64
MAX_TRANSIENT_BYTES = 32 * 1024 * 1024
"""Most bytes of all transient values together."""
MAX_RESULT_BYTES = 32 * 1024 * 1024

log = Log("sovchain.chaincode")


class Chaincode:
    """What a chaincode module exposes as `chaincode`.

    Args:
        contracts: the contracts that it serves.
        name: name for logs and metadata; the names of the contracts joined by `+` if not given.
        version: version for metadata.
        default: name of the contract that a call without a contract's name goes to; the first if not given.
        determinism: what happens when a contract uses a clock, randomness, the environment, files, the network, threads or
            hash values while a transaction runs: "refuse" with E_DETERMINISM, "warn" in the log, or "off".

    Raises:
        DefinitionError: no contract, two of one name, no contract of the default's name, or another mode.
    """

    def __init__(
        self,
        contracts: Sequence[Contract],
        name: str | None = None,
        *,
        version: str = "",
        default: str | None = None,
        determinism: DeterminismMode = "off",
    ) -> None:
        if not contracts:
            raise DefinitionError("a chaincode has at least one contract")
        self.contracts: dict[str, Contract] = {}
        operations: dict[str, Operation[..., Any]] = {}
        for contract in contracts:
            if not isinstance(contract, Contract):
                raise DefinitionError("a chaincode is made of instances of classes derived from Contract")
            if contract.name in self.contracts:
                raise DefinitionError(f"two contracts of the chaincode have the name {contract.name}")
            self.contracts[contract.name] = contract
            operations.update((operation.name, operation) for operation in type(contract).operations().values())
        self.name = name or "+".join(self.contracts)
        self.version = version
        self.default = default or contracts[0].name
        if self.default not in self.contracts:
            raise DefinitionError(f"the chaincode has no contract {self.default} to be its default")
        self.determinism: DeterminismMode = "off"
        self.guard(determinism)
        self._operations = MappingProxyType(operations)
        self._workers = Workers(f"contract {self.name}")
        self._with_transient = frozenset(
            operation.name
            for operation in operations.values()
            if any(parameter.transient for parameter in operation.parameters)
        )

    @property
    def operations(self) -> Mapping[str, Operation[..., Any]]:
        """Every operation by its name on the wire."""
        return self._operations

    def guard(self, mode: DeterminismMode) -> None:
        """Turn the determinism guard on, for whoever runs the chaincode. A stricter mode that it has already stays.

        Raises:
            DefinitionError: another mode.
        """
        if mode not in MODES:
            raise DefinitionError(f"determinism is one of {', '.join(MODES)}")
        if MODES.index(mode) <= MODES.index(self.determinism):
            return
        self.determinism = mode
        guard_modules(type(contract).__module__ for contract in self.contracts.values())

    async def invoke(self, stub: Stub) -> Response:
        """Serve one call: find the operation, decode, run, encode.

        Every outcome is a response: 200 with the result, 400 for a refusal (`ContractError`), 500 for anything else,
        which is logged under the reference that the message gives. Only cancellation is raised.
        """
        operation = None
        try:
            if stub.args and stub.args[0] == METADATA_FUNCTION:
                return Response(STATUS_OK, payload=metadata_json(self))
            _check_arguments(stub)
            contract, function = self._contract(stub.args)
            operation = self._operations.get(f"{contract.name}:{function}")
            if operation is None or operation.name in self._with_transient:
                _check_transient(stub)
            if self.determinism == "off":
                return await self._answer(stub, contract, function, operation)
            with watching(self.determinism, stub.transaction_id):
                return await self._answer(stub, contract, function, operation)
        except ContractError as error:
            return self._refused(stub, operation, error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return _failed(stub, operation, error)
        except BaseException as error:  # SystemExit of a contract must not end the process of all others
            return _failed(stub, operation, error)

    def close(self) -> None:
        """Give back the threads. The chaincode may be used again."""
        self._workers.close()

    def _contract(self, args: Sequence[bytes]) -> tuple[Contract, str]:
        """The contract that a call is for, and the function in it. Raises ContractError E_FUNCTION."""
        name, colon, function = (args[0].decode("utf-8", "replace") if args else "").rpartition(":")
        found = self.contracts.get(name if colon else self.default)
        if found is None:
            raise ContractError(E_FUNCTION, f"the chaincode has no such contract; it has {', '.join(self.contracts)}")
        return found, function

    async def _answer(
        self, stub: Stub, contract: Contract, function: str, operation: Operation[..., Any] | None
    ) -> Response:
        if operation is None:
            return Response(STATUS_OK, payload=await self._run_unknown(stub, contract, function))
        return Response(STATUS_OK, payload=await self._run(stub, operation))

    async def _run_unknown(self, stub: Stub, contract: Contract, function: str) -> bytes:
        result = await contract.unknown(Context(stub), function, stub.args[1:])
        return b"" if result is None else _bounded(encode_value(result))

    async def _run(self, stub: Stub, operation: Operation[..., Any]) -> bytes:
        stub.read_only = operation.readonly
        context = Context(stub)
        if operation.requires is not None:
            operation.requires.check(context.identity, operation.name)
        # The transient map is inside the proposal, which is not taken apart unless somebody asks for a part of it.
        transient = stub.transient if operation.name in self._with_transient else {}
        parameters = operation.decode_call(stub.args[1:], transient)
        contract = self.contracts[operation.contract]
        method = getattr(contract, operation.attribute)
        await contract.before(context, operation)
        if inspect.iscoroutinefunction(method):
            result = await method(context, **parameters)
        else:
            result = await self._workers.run(lambda: method(context, **parameters))
            if inspect.isawaitable(result):
                result = await result
        await contract.after(context, operation, result)
        return _bounded(operation.result.encode_result(result))

    def _refused(self, stub: Stub, operation: Operation[..., Any] | None, error: ContractError) -> Response:
        try:
            message = error.response_message()
        except Exception as fault:  # fields that are no JSON are the contract's fault, not the client's
            return _failed(stub, operation, fault)
        if log.debugs:
            log.debug("call refused", code=error.code, **_call(stub, operation))
        return Response(STATUS_REFUSED, message)


def _bounded(payload: bytes) -> bytes:
    if len(payload) > MAX_RESULT_BYTES:
        raise ResultError(f"the result has {len(payload)} bytes, at most {MAX_RESULT_BYTES} are possible")
    return payload


def _check_arguments(stub: Stub) -> None:
    total = sum(map(len, stub.args))
    if total > MAX_ARGUMENT_BYTES:
        raise ArgumentError(None, f"the arguments have {total} bytes, at most {MAX_ARGUMENT_BYTES} are possible")


def _check_transient(stub: Stub) -> None:
    if len(stub.transient) > MAX_TRANSIENT_ENTRIES:
        raise ArgumentError(None, f"the transient map has more than {MAX_TRANSIENT_ENTRIES} entries")
    total = sum(map(len, stub.transient.values()))
    if total > MAX_TRANSIENT_BYTES:
        raise ArgumentError(
            None, f"the transient values have {total} bytes, at most {MAX_TRANSIENT_BYTES} are possible"
        )


def _failed(stub: Stub, operation: Operation[..., Any] | None, error: BaseException) -> Response:
    """The response to an unforeseen failure. The reference is the same on every peer, as a response should be."""
    reference = hashlib.sha256(f"{stub.channel_id}/{stub.transaction_id}".encode()).hexdigest()[:8]
    text = str(error) if isinstance(error, ChaincodeError) else None
    log.error("call failed", reference=reference, error=text, trace=frames(error), **_call(stub, operation))
    return Response(STATUS_FAILED, f"{E_INTERNAL}: internal error, reference {reference}")


def _call(stub: Stub, operation: Operation[..., Any] | None) -> dict[str, Any]:
    return {
        "channel": stub.channel_id,
        "transaction_id": stub.transaction_id,
        "operation": None if operation is None else operation.name,
    }
