"""The system chaincode `_lifecycle`: install packages, approve and commit chaincode definitions, query them.

Mirrors core/chaincode/lifecycle/scc.go and lifecycle.go. What is stored, and every rule about it, is in
`sovchain.protocol.lifecycle`; this module reads and writes it through a simulator, so that approvals and commits are
endorsed, ordered and validated like every transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from fabric_protos.peer import proposal_response_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from google.protobuf.message import DecodeError, Message

from sovchain.ledger.access import AccessDeniedError
from sovchain.ledger.chainview import ChainView
from sovchain.ledger.collection_checks import check_collections
from sovchain.ledger.definitions import DefinitionError
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.package_store import PackageMissingError
from sovchain.ledger.simulator import TxSimulator
from sovchain.ledger.system_call import NOT_FOUND, SystemCall, failure, success
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.lifecycle import (
    LEGACY_NAMESPACE,
    LIFECYCLE_NAMESPACE,
    Approval,
    ChaincodeDefinition,
    approval_changes,
    approval_mismatches,
    check_approval,
    check_names,
    commit_readiness,
    definition_changes,
    implicit_collection,
    read_approval,
    read_definition,
    read_sequence,
    with_defaults,
)

_METADATA_PREFIX: Final = "namespaces/metadata/"
_LAST_OF_PREFIX: Final = "\x7f"


class NamespaceNotDefinedError(LedgerError):
    """The channel has no definition of this chaincode; the text is Fabric's."""

    def __init__(self, name: str) -> None:
        super().__init__(f"namespace {name} is not defined")
        self.name = name


class RefusedError(LedgerError):
    """A lifecycle operation is refused; the text is Fabric's."""


@dataclass(frozen=True)
class _Operation:
    """One function: its argument message, what runs it, and whether it concerns a channel (else the peer only)."""

    arguments: type[Message]
    run: Callable[[SystemCall, Any], Awaitable[Message]]
    needs_admin_of_peer: bool


async def invoke(call: SystemCall) -> proposal_response_pb2.Response:
    """Run one function of `_lifecycle`: args are its name and a serialised argument message."""
    if not call.arguments:
        return failure("lifecycle scc must be invoked with arguments")
    if len(call.arguments) != 2:
        return failure(f"lifecycle scc operations require exactly two arguments but received {len(call.arguments)}")
    function = call.arguments[0].decode("utf-8", "replace")
    try:
        operation = _authorized(call, function)
    except AccessDeniedError as error:
        return failure(f"Failed to authorize invocation due to failed ACL check: {error}")
    prefix = f"failed to invoke backing implementation of '{function}': "
    try:
        arguments = operation.arguments.FromString(call.arguments[1])
        result = await operation.run(call, arguments)
    except (NamespaceNotDefinedError, PackageMissingError) as error:
        return failure(str(error), NOT_FOUND)
    except DecodeError:
        return failure(f"{prefix}could not decode input arg for {function}")
    except (LedgerError, ProtocolError) as error:
        return failure(f"{prefix}{error}")
    return success(result.SerializeToString(deterministic=True))


def _authorized(call: SystemCall, function: str) -> _Operation:
    operation = _OPERATIONS.get(function)
    if operation is None:
        raise AccessDeniedError(f"Unmapped policy for {LIFECYCLE_NAMESPACE}/{function}")
    if operation.needs_admin_of_peer:
        call.peer.local.authorize("Admins", call.signed)
    elif call.channel is None:
        raise AccessDeniedError(
            "Invalid channel ID name during check policy on signed data. Name must be different from nil."
        )
    else:
        call.registry.access(call.channel).authorize(f"{LIFECYCLE_NAMESPACE}/{function}", call.signed)
    return operation


# State of the namespace through a simulator ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _State:
    """The lifecycle's state of one channel, seen by one transaction."""

    channel: ChainView
    simulator: TxSimulator
    msp_id: str

    @classmethod
    def of(cls, call: SystemCall) -> _State:
        if call.channel is None or call.simulator is None:
            raise RefusedError("no application config for channel ''")
        return cls(call.channel, call.simulator, call.peer.msp_id)

    def public(self, key: str) -> bytes | None:
        return self.simulator.get_state(LIFECYCLE_NAMESPACE, key)

    def private(self, key: str) -> bytes | None:
        return self.simulator.get_private(LIFECYCLE_NAMESPACE, implicit_collection(self.msp_id), key)

    def hashes(self, msp_id: str) -> Callable[[str], bytes | None]:
        collection = implicit_collection(msp_id)
        return lambda key: self.simulator.get_private_hash(LIFECYCLE_NAMESPACE, collection, key)

    def write(self, changes: Mapping[str, bytes | None]) -> None:
        for key, value in changes.items():
            if value is None:
                self.simulator.delete_state(LIFECYCLE_NAMESPACE, key)
            else:
                self.simulator.put_state(LIFECYCLE_NAMESPACE, key, value)

    def write_private(self, changes: Mapping[str, bytes | None]) -> None:
        collection = implicit_collection(self.msp_id)
        for key, value in changes.items():
            if value is None:
                self.simulator.delete_private(LIFECYCLE_NAMESPACE, collection, key)
            else:
                self.simulator.put_private(LIFECYCLE_NAMESPACE, collection, key, value)

    def mismatches(self, definition: ChaincodeDefinition) -> dict[str, list[str]]:
        """Return for each organisation in which fields its approval differs from a definition."""
        return {
            msp_id: approval_mismatches(self.hashes(msp_id), definition)
            for msp_id in self.channel.bundle.application_msp_ids
        }


# Packages -------------------------------------------------------------------------------------------------------------


async def _install(call: SystemCall, arguments: lifecycle_pb2.InstallChaincodeArgs) -> Message:
    try:
        package = call.peer.packages.install(arguments.chaincode_install_package)
    except ProtocolError as error:
        raise RefusedError(f"could not parse as a chaincode install package: {error}") from error
    return lifecycle_pb2.InstallChaincodeResult(package_id=package.package_id, label=package.label)


async def _query_installed(call: SystemCall, arguments: lifecycle_pb2.QueryInstalledChaincodeArgs) -> Message:
    package = call.peer.packages.get(arguments.package_id)
    if package is None:
        raise PackageMissingError(arguments.package_id)
    result = lifecycle_pb2.QueryInstalledChaincodeResult(package_id=package.package_id, label=package.label)
    for channel_id, used in (await _references(call)).get(package.package_id, {}).items():
        for definition in used:
            result.references[channel_id].chaincodes.add(name=definition.name, version=definition.version)
    return result


async def _query_all_installed(call: SystemCall, _: lifecycle_pb2.QueryInstalledChaincodesArgs) -> Message:
    references = await _references(call)
    result = lifecycle_pb2.QueryInstalledChaincodesResult()
    for package in call.peer.packages:
        entry = result.installed_chaincodes.add(package_id=package.package_id, label=package.label)
        for channel_id, used in references.get(package.package_id, {}).items():
            for definition in used:
                entry.references[channel_id].chaincodes.add(name=definition.name, version=definition.version)
    return result


async def _installed_package(call: SystemCall, arguments: lifecycle_pb2.GetInstalledChaincodePackageArgs) -> Message:
    content = call.peer.packages.read(arguments.package_id)
    return lifecycle_pb2.GetInstalledChaincodePackageResult(chaincode_install_package=content)


async def _references(call: SystemCall) -> dict[str, dict[str, list[ChaincodeDefinition]]]:
    """Return for each package id of the peer the definitions that use it, by channel."""
    references: dict[str, dict[str, list[ChaincodeDefinition]]] = {}
    registry, peer = call.registry, call.peer
    for channel_id in sorted(registry.channels):
        channel = registry.channel_of(peer, channel_id)
        if channel is None:
            continue
        with await channel.snapshot() as snapshot:
            entries = snapshot.range(LIFECYCLE_NAMESPACE, _METADATA_PREFIX, _METADATA_PREFIX + _LAST_OF_PREFIX)
            for name in [key.removeprefix(_METADATA_PREFIX) for key, _, _ in entries]:
                try:
                    info = registry.definitions.endorsement_info(channel, snapshot, name, peer.msp_id, peer.packages)
                except DefinitionError:
                    continue  # defined on the channel, but not run by this peer
                references.setdefault(info.package_id, {}).setdefault(channel_id, []).append(info.definition)
    return references


# Approvals ------------------------------------------------------------------------------------------------------------


async def _approve(call: SystemCall, arguments: lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs) -> Message:
    state = _State.of(call)
    definition = _definition(arguments)
    _validate(state, definition)
    definition = with_defaults(definition)
    package_id = arguments.source.local_package.package_id
    check_approval(state.public, state.private, definition, package_id)
    state.write_private(approval_changes(state.private, definition, package_id))
    return lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgResult()


async def _query_approved(call: SystemCall, arguments: lifecycle_pb2.QueryApprovedChaincodeDefinitionArgs) -> Message:
    state = _State.of(call)
    sequence = arguments.sequence
    approval = None
    if sequence:
        approval = read_approval(state.private, arguments.name, sequence)
    else:
        sequence = read_sequence(state.public, arguments.name)
        approval = read_approval(state.private, arguments.name, sequence + 1)
        if approval is None:
            approval = read_approval(state.private, arguments.name, sequence)
    if approval is None:
        raise RefusedError(
            f"could not fetch approved chaincode definition (name: '{arguments.name}', sequence: '{sequence}') "
            f"on channel '{state.channel.channel_id}'"
        )
    result = lifecycle_pb2.QueryApprovedChaincodeDefinitionResult()
    _fill(result, approval.definition)
    _fill_source(result.source, approval)
    return result


async def _query_all_approved(call: SystemCall, _: lifecycle_pb2.QueryApprovedChaincodeDefinitionsArgs) -> Message:
    state = _State.of(call)
    collection = implicit_collection(state.msp_id)
    entries = state.simulator.get_private_range(
        LIFECYCLE_NAMESPACE, collection, _METADATA_PREFIX, _METADATA_PREFIX + _LAST_OF_PREFIX
    )
    result = lifecycle_pb2.QueryApprovedChaincodeDefinitionsResult()
    for key, _value in entries:
        name, _separator, sequence = key.removeprefix(_METADATA_PREFIX).rpartition("#")
        if not sequence.isdigit():
            raise RefusedError(f"invalid private name format: {key.removeprefix(_METADATA_PREFIX)}")
        approval = read_approval(state.private, name, int(sequence))
        if approval is not None:
            entry = result.approved_chaincode_definitions.add(name=name)
            _fill(entry, approval.definition)
            _fill_source(entry.source, approval)
    return result


# Definitions ----------------------------------------------------------------------------------------------------------


async def _check_commit_readiness(call: SystemCall, arguments: lifecycle_pb2.CheckCommitReadinessArgs) -> Message:
    mismatches = _readiness(_State.of(call), with_defaults(_definition(arguments)))
    result = lifecycle_pb2.CheckCommitReadinessResult(
        approvals={msp_id: not fields for msp_id, fields in mismatches.items()}
    )
    for msp_id, fields in mismatches.items():
        if fields:
            result.mismatches[msp_id].items.extend(fields)
    return result


async def _commit(call: SystemCall, arguments: lifecycle_pb2.CommitChaincodeDefinitionArgs) -> Message:
    state = _State.of(call)
    definition = _definition(arguments)
    _validate(state, definition)
    definition = with_defaults(definition)
    mismatches = _readiness(state, definition)
    if state.msp_id not in mismatches:
        raise RefusedError("impossibly, this peer's org is processing requests for a channel it is not a member of")
    if mismatches[state.msp_id]:
        raise RefusedError(f"chaincode definition not agreed to by this org ({state.msp_id})")
    state.write(definition_changes(state.public, definition))
    return lifecycle_pb2.CommitChaincodeDefinitionResult()


async def _query_definition(call: SystemCall, arguments: lifecycle_pb2.QueryChaincodeDefinitionArgs) -> Message:
    state = _State.of(call)
    definition = read_definition(state.public, arguments.name)
    if definition is None:
        raise NamespaceNotDefinedError(arguments.name)
    result = lifecycle_pb2.QueryChaincodeDefinitionResult(
        approvals={msp_id: not fields for msp_id, fields in state.mismatches(definition).items()}
    )
    _fill(result, definition)
    return result


async def _query_all_definitions(call: SystemCall, _: lifecycle_pb2.QueryChaincodeDefinitionsArgs) -> Message:
    state = _State.of(call)
    entries = state.simulator.get_range(LIFECYCLE_NAMESPACE, _METADATA_PREFIX, _METADATA_PREFIX + _LAST_OF_PREFIX)
    result = lifecycle_pb2.QueryChaincodeDefinitionsResult()
    for key, _value in entries:
        name = key.removeprefix(_METADATA_PREFIX)
        definition = read_definition(state.public, name)
        if definition is not None:
            _fill(result.chaincode_definitions.add(name=name), definition)
    return result


def _readiness(state: _State, definition: ChaincodeDefinition) -> dict[str, list[str]]:
    hashes = {msp_id: state.hashes(msp_id) for msp_id in state.channel.bundle.application_msp_ids}
    return commit_readiness(state.public, hashes, definition)


def _validate(state: _State, definition: ChaincodeDefinition) -> None:
    try:
        check_names(definition)
        committed = read_definition(state.public, definition.name)
        if committed is None:
            state.simulator.get_state(LEGACY_NAMESPACE, definition.name)
        check_collections(definition.collections, state.channel.bundle, committed)
    except (LedgerError, ProtocolError) as error:
        raise RefusedError(f"error validating chaincode definition: {error}") from error


def _definition(arguments: Any) -> ChaincodeDefinition:
    """Return the definition in an argument message; all of them name its fields alike."""
    return ChaincodeDefinition(
        name=arguments.name,
        version=arguments.version,
        sequence=arguments.sequence,
        endorsement_policy=arguments.validation_parameter,
        collections=arguments.collections if arguments.HasField("collections") else None,
        init_required=arguments.init_required,
        endorsement_plugin=arguments.endorsement_plugin,
        validation_plugin=arguments.validation_plugin,
    )


def _fill(result: Any, definition: ChaincodeDefinition) -> None:
    """Copy a definition into a result message; all of them name its fields alike."""
    result.sequence = definition.sequence
    result.version = definition.version
    result.endorsement_plugin = definition.endorsement_plugin
    result.validation_plugin = definition.validation_plugin
    result.validation_parameter = definition.endorsement_policy
    result.init_required = definition.init_required
    if definition.collections is not None:
        result.collections.CopyFrom(definition.collections)


def _fill_source(source: lifecycle_pb2.ChaincodeSource, approval: Approval) -> None:
    if approval.package_id:
        source.local_package.package_id = approval.package_id
    else:
        source.unavailable.SetInParent()


def _operation(arguments: type[Message], run: object, *, admin: bool) -> _Operation:
    return _Operation(arguments, cast("Callable[[SystemCall, Any], Awaitable[Message]]", run), admin)


_OPERATIONS: Final[Mapping[str, _Operation]] = {
    "InstallChaincode": _operation(lifecycle_pb2.InstallChaincodeArgs, _install, admin=True),
    "QueryInstalledChaincode": _operation(lifecycle_pb2.QueryInstalledChaincodeArgs, _query_installed, admin=True),
    "QueryInstalledChaincodes": _operation(
        lifecycle_pb2.QueryInstalledChaincodesArgs, _query_all_installed, admin=True
    ),
    "GetInstalledChaincodePackage": _operation(
        lifecycle_pb2.GetInstalledChaincodePackageArgs, _installed_package, admin=True
    ),
    "ApproveChaincodeDefinitionForMyOrg": _operation(
        lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs, _approve, admin=True
    ),
    "QueryApprovedChaincodeDefinition": _operation(
        lifecycle_pb2.QueryApprovedChaincodeDefinitionArgs, _query_approved, admin=True
    ),
    "QueryApprovedChaincodeDefinitions": _operation(
        lifecycle_pb2.QueryApprovedChaincodeDefinitionsArgs, _query_all_approved, admin=True
    ),
    "CheckCommitReadiness": _operation(lifecycle_pb2.CheckCommitReadinessArgs, _check_commit_readiness, admin=False),
    "CommitChaincodeDefinition": _operation(lifecycle_pb2.CommitChaincodeDefinitionArgs, _commit, admin=False),
    "QueryChaincodeDefinition": _operation(lifecycle_pb2.QueryChaincodeDefinitionArgs, _query_definition, admin=False),
    "QueryChaincodeDefinitions": _operation(
        lifecycle_pb2.QueryChaincodeDefinitionsArgs, _query_all_definitions, admin=False
    ),
}
