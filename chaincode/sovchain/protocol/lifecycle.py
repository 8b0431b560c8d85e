"""Chaincode definitions and approvals: the state of the `_lifecycle` namespace, and the policies that follow from it.

General layout: the values; names and their checks; the codec of the public definition; approvals in the implicit
collections; when one may approve or commit; policies. All functions take callables that read state, so that an
endorser that simulates, a committer and an auditor share them.
Mirrors core/chaincode/lifecycle/{lifecycle,serializer,scc,deployedcc_infoprovider}.go,
core/chaincode/implicitcollection/name.go and core/policy/application.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_config_pb2, msp_principal_pb2
from fabric_protos.peer import collection_pb2, policy_pb2
from fabric_protos.peer.lifecycle import chaincode_definition_pb2, db_pb2
from google.protobuf.message import DecodeError, Message

from sovchain.protocol import policydsl
from sovchain.protocol.errors import MalformedError, ProtocolError
from sovchain.protocol.policies import Policy, SignaturePolicy

if TYPE_CHECKING:
    from sovchain.protocol.channelconfig import ChannelBundle

__all__ = [
    "DEFAULT_ENDORSEMENT_POLICY",
    "LEGACY_NAMESPACE",
    "LIFECYCLE_ENDORSEMENT_POLICY",
    "LIFECYCLE_NAMESPACE",
    "NAMESPACES",
    "Approval",
    "ChaincodeDefinition",
    "GetState",
    "LifecycleError",
    "application_policy",
    "approval_changes",
    "approval_mismatches",
    "approval_writes",
    "check_approval",
    "check_names",
    "collection_policy",
    "commit_readiness",
    "definition_changes",
    "definition_writes",
    "endorsement_policy",
    "field_key",
    "implicit_collection",
    "implicit_collection_msp",
    "lifecycle_policy",
    "metadata_key",
    "read_approval",
    "read_definition",
    "read_sequence",
    "reference_application_policy",
    "signature_application_policy",
    "with_defaults",
]

LIFECYCLE_NAMESPACE = "_lifecycle"
LEGACY_NAMESPACE = "lscc"
"""Where definitions of Fabric 1.4 are kept; a peer looks there for what `_lifecycle` has not."""
NAMESPACES = "namespaces"
"""What the keys of definitions begin with."""
DEFAULT_ENDORSEMENT_POLICY = "/Channel/Application/Endorsement"
LIFECYCLE_ENDORSEMENT_POLICY = "/Channel/Application/LifecycleEndorsement"

GetState: TypeAlias = Callable[[str], "bytes | None"]
"""Reads the value of a key (or its hash, where said so); None if there is none."""

_SOURCES = "chaincode-sources"
_DEFINITION = "ChaincodeDefinition"
_PARAMETERS = "ChaincodeParameters"
_LOCAL_PACKAGE = "ChaincodeLocalPackage"
_IMPLICIT_PREFIX = "_implicit_org_"

_NAME = re.compile(r"[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*")
_VERSION = re.compile(r"[A-Za-z0-9_.+-]+")
_COLLECTION = re.compile(r"[A-Za-z0-9-]+([A-Za-z0-9_-]+)*")
_SYSTEM_NAMES = frozenset({"cscc", "escc", "lscc", "qscc", "vscc"})


class LifecycleError(ProtocolError):
    """A chaincode definition or approval was refused; the text is Fabric's."""


@dataclass(frozen=True)
class ChaincodeDefinition:
    """What the channel's organisations agree on about a chaincode.

    Attributes:
        name: Name under which it is invoked, and its namespace.
        version: Free text of its makers; not an order.
        sequence: 1 for the first definition, one more for each change.
        endorsement_policy: A marshalled peer.ApplicationPolicy; empty means the channel's default.
        collections: The explicit private data collections; None means none.
        init_required: Whether a first call with `is_init` must come before all others.
        endorsement_plugin: Empty means escc.
        validation_plugin: Empty means vscc.
    """

    name: str
    version: str
    sequence: int
    endorsement_policy: bytes = b""
    collections: collection_pb2.CollectionConfigPackage | None = field(default=None, hash=False)
    init_required: bool = False
    endorsement_plugin: str = ""
    validation_plugin: str = ""

    def collection(self, name: str) -> collection_pb2.StaticCollectionConfig | None:
        """Return the explicit collection of this name, or None."""
        for config in self.collections.config if self.collections is not None else ():
            if config.static_collection_config.name == name:
                return config.static_collection_config
        return None


@dataclass(frozen=True)
class Approval:
    """An organisation's approval: the definition, and the package that its peers run ("" = none)."""

    definition: ChaincodeDefinition
    package_id: str


# --- names -----------------------------------------------------------------------------------------------------------


def implicit_collection(msp_id: str) -> str:
    """Return the name of an organisation's implicit collection."""
    return _IMPLICIT_PREFIX + msp_id


def implicit_collection_msp(collection: str) -> str | None:
    """Return the MSP id if the name is that of an implicit collection, else None."""
    return collection[len(_IMPLICIT_PREFIX) :] if collection.startswith(_IMPLICIT_PREFIX) else None


def metadata_key(namespace: str, name: str) -> str:
    """Return the key of a structure's metadata (serializer.go MetadataKey)."""
    return f"{namespace}/metadata/{name}"


def field_key(namespace: str, name: str, field_name: str) -> str:
    """Return the key of one field of a structure (serializer.go FieldKey)."""
    return f"{namespace}/fields/{name}/{field_name}"


def with_defaults(definition: ChaincodeDefinition) -> ChaincodeDefinition:
    """Fill plugins and policy with Fabric's defaults (escc, vscc, /Channel/Application/Endorsement)."""
    return replace(
        definition,
        endorsement_plugin=definition.endorsement_plugin or "escc",
        validation_plugin=definition.validation_plugin or "vscc",
        endorsement_policy=definition.endorsement_policy or reference_application_policy(DEFAULT_ENDORSEMENT_POLICY),
    )


def check_names(definition: ChaincodeDefinition) -> None:
    """Check the chaincode's name and version, and its collections as far as that needs no channel.

    Raises LifecycleError with Fabric's text.
    """
    name, version = definition.name, definition.version
    if not _NAME.fullmatch(name):
        raise LifecycleError(
            f"invalid chaincode name '{name}'. Names can only consist of alphanumerics, '_', and '-' "
            "and can only begin with alphanumerics"
        )
    if name in _SYSTEM_NAMES:
        raise LifecycleError(f"chaincode name '{name}' is the name of a system chaincode")
    if not _VERSION.fullmatch(version):
        raise LifecycleError(
            f"invalid chaincode version '{version}'. Versions can only consist of alphanumerics, '_', '-', '+', and '.'"
        )
    seen: set[str] = set()
    for config in definition.collections.config if definition.collections is not None else ():
        _check_collection(config.static_collection_config, seen)


def _check_collection(config: collection_pb2.StaticCollectionConfig, seen: set[str]) -> None:
    name = config.name
    if not _COLLECTION.fullmatch(name):
        raise LifecycleError(
            f"invalid collection name '{name}'. Names can only consist of alphanumerics, '_', and '-' "
            "and cannot begin with '_'"
        )
    if name in seen:
        raise LifecycleError(f"collection-name: {name} -- found duplicate in collection configuration")
    seen.add(name)
    if config.maximum_peer_count < config.required_peer_count:
        raise LifecycleError(
            f"collection-name: {name} -- maximum peer count ({config.maximum_peer_count}) cannot be less than the "
            f"required peer count ({config.required_peer_count})"
        )
    if config.required_peer_count < 0:
        raise LifecycleError(
            f"collection-name: {name} -- requiredPeerCount ({config.required_peer_count}) cannot be less than zero"
        )
    if not config.HasField("member_orgs_policy"):
        raise LifecycleError(f"collection member policy is not set for collection '{name}'")
    if not config.member_orgs_policy.HasField("signature_policy"):
        raise LifecycleError(f"collection member org policy is empty for collection '{name}'")


# --- the public definition -------------------------------------------------------------------------------------------


def definition_writes(definition: ChaincodeDefinition) -> dict[str, bytes]:
    """Return every public key and value of a definition, as the commit of its first sequence writes them.

    Call :func:`with_defaults` first, as Fabric does.
    """
    return _structure_writes(NAMESPACES, definition.name, _DEFINITION, _definition_fields(definition))


def definition_changes(get: GetState, definition: ChaincodeDefinition) -> dict[str, bytes | None]:
    """Return only the keys that differ from what is stored (None: delete), as Fabric's serializer writes them.

    Raises MalformedError if the stored metadata is damaged.
    """
    return _structure_changes(get, NAMESPACES, definition.name, _DEFINITION, _definition_fields(definition))


def read_definition(get: GetState, name: str) -> ChaincodeDefinition | None:
    """Read a committed definition back. None if there is none; raises MalformedError if it is damaged."""
    metadata = _read_metadata(get, NAMESPACES, name)
    if metadata is None:
        return None
    if metadata.datatype != _DEFINITION:
        raise MalformedError(f"not a chaincode type: {metadata.datatype}")
    return _read_parameters(get, name, name, read_sequence(get, name))


def read_sequence(get: GetState, name: str) -> int:
    """Return the committed sequence; 0 if there is no definition. Raises MalformedError."""
    key = field_key(NAMESPACES, name, "Sequence")
    data = _read_field(get, key)
    if data.WhichOneof("Type") not in ("Int64", None):
        raise MalformedError(f"expected key {key} to encode a value of type Int64")
    return data.Int64


def _definition_fields(definition: ChaincodeDefinition) -> dict[str, db_pb2.StateData]:
    return {"Sequence": db_pb2.StateData(Int64=definition.sequence), **_parameter_fields(definition)}


def _parameter_fields(definition: ChaincodeDefinition) -> dict[str, db_pb2.StateData]:
    endorsement = chaincode_definition_pb2.ChaincodeEndorsementInfo(
        version=definition.version,
        init_required=definition.init_required,
        endorsement_plugin=definition.endorsement_plugin,
    )
    validation = chaincode_definition_pb2.ChaincodeValidationInfo(
        validation_plugin=definition.validation_plugin, validation_parameter=definition.endorsement_policy
    )
    collections = b"" if definition.collections is None else definition.collections.SerializeToString()
    return {
        "EndorsementInfo": db_pb2.StateData(Bytes=endorsement.SerializeToString()),
        "ValidationInfo": db_pb2.StateData(Bytes=validation.SerializeToString()),
        "Collections": db_pb2.StateData(Bytes=collections),
    }


def _read_parameters(get: GetState, name: str, stored_name: str, sequence: int) -> ChaincodeDefinition:
    endorsement = chaincode_definition_pb2.ChaincodeEndorsementInfo()
    validation = chaincode_definition_pb2.ChaincodeValidationInfo()
    collections = collection_pb2.CollectionConfigPackage()
    parts: tuple[tuple[str, Message], ...] = (
        ("EndorsementInfo", endorsement),
        ("ValidationInfo", validation),
        ("Collections", collections),
    )
    for field_name, message in parts:
        key = field_key(NAMESPACES, stored_name, field_name)
        data = _read_field(get, key)
        if data.WhichOneof("Type") not in ("Bytes", None):
            raise MalformedError(f"expected key {key} to encode a value of type []byte")
        try:
            message.ParseFromString(data.Bytes)
        except DecodeError as fault:
            raise MalformedError(f"could not unmarshal key {key} to {message.DESCRIPTOR.name}") from fault
    return ChaincodeDefinition(
        name=name,
        version=endorsement.version,
        sequence=sequence,
        endorsement_policy=validation.validation_parameter,
        collections=collections if collections.config else None,
        init_required=endorsement.init_required,
        endorsement_plugin=endorsement.endorsement_plugin,
        validation_plugin=validation.validation_plugin,
    )


# --- the serializer --------------------------------------------------------------------------------------------------


def _structure_writes(
    namespace: str, name: str, datatype: str, fields: Mapping[str, db_pb2.StateData]
) -> dict[str, bytes]:
    metadata = db_pb2.StateMetadata(datatype=datatype, fields=list(fields))
    writes = {metadata_key(namespace, name): metadata.SerializeToString()}
    for field_name, data in fields.items():
        writes[field_key(namespace, name, field_name)] = data.SerializeToString()
    return writes


def _structure_changes(
    get: GetState, namespace: str, name: str, datatype: str, fields: Mapping[str, db_pb2.StateData]
) -> dict[str, bytes | None]:
    """Serializer.Serialize: unchanged fields are not written again, fields that went away are deleted."""
    metadata = _read_metadata(get, namespace, name) or db_pb2.StateMetadata()
    stored = {key: get(key) for key in (field_key(namespace, name, old) for old in metadata.fields)}
    writes = _structure_writes(namespace, name, datatype, fields)
    new_metadata = writes.pop(metadata_key(namespace, name))
    changes: dict[str, bytes | None] = {}
    for key, value in writes.items():
        if key not in stored or stored.pop(key) != value:
            changes[key] = value
    if stored or metadata.datatype != datatype or len(metadata.fields) != len(fields):
        changes[metadata_key(namespace, name)] = new_metadata
    changes.update(dict.fromkeys(stored))
    return changes


def _read_metadata(get: GetState, namespace: str, name: str) -> db_pb2.StateMetadata | None:
    encoded = get(metadata_key(namespace, name))
    if encoded is None:
        return None
    try:
        return db_pb2.StateMetadata.FromString(encoded)
    except DecodeError as fault:
        raise MalformedError(f"could not unmarshal metadata for namespace {namespace}/{name}") from fault


def _read_field(get: GetState, key: str) -> db_pb2.StateData:
    try:
        return db_pb2.StateData.FromString(get(key) or b"")
    except DecodeError as fault:
        raise MalformedError(f"could not unmarshal state for key {key}") from fault


# --- approvals -------------------------------------------------------------------------------------------------------


def approval_writes(definition: ChaincodeDefinition, package_id: str) -> dict[str, bytes]:
    """Return every key and value of an approval in the organisation's implicit collection of `_lifecycle`.

    Args:
        definition: With defaults filled in.
        package_id: Of the package that the organisation's peers run; "" if they do not run it.
    """
    name = _private_name(definition)
    writes = _structure_writes(NAMESPACES, name, _PARAMETERS, _parameter_fields(definition))
    writes.update(_structure_writes(_SOURCES, name, _LOCAL_PACKAGE, _package_fields(package_id)))
    return writes


def approval_changes(
    get_private: GetState, definition: ChaincodeDefinition, package_id: str
) -> dict[str, bytes | None]:
    """Return only the keys of an approval that differ from what is stored (None: delete). Raises MalformedError."""
    name = _private_name(definition)
    changes = _structure_changes(get_private, NAMESPACES, name, _PARAMETERS, _parameter_fields(definition))
    changes.update(_structure_changes(get_private, _SOURCES, name, _LOCAL_PACKAGE, _package_fields(package_id)))
    return changes


def read_approval(get_private: GetState, name: str, sequence: int) -> Approval | None:
    """Read an approval back. None if there is none; raises MalformedError if it is damaged."""
    stored_name = f"{name}#{sequence}"
    metadata = _read_metadata(get_private, NAMESPACES, stored_name)
    if metadata is None:
        return None
    if metadata.datatype != _PARAMETERS:
        raise MalformedError(f"not a chaincode parameters type: {metadata.datatype}")
    definition = _read_parameters(get_private, name, stored_name, sequence)
    source = _read_metadata(get_private, _SOURCES, stored_name)
    if source is None:
        raise MalformedError(f"could not fetch chaincode-source metadata for {stored_name}")
    if source.datatype != _LOCAL_PACKAGE:
        raise MalformedError(f"not a chaincode local package type: {source.datatype}")
    key = field_key(_SOURCES, stored_name, "PackageID")
    data = _read_field(get_private, key)
    if data.WhichOneof("Type") not in ("String", None):
        raise MalformedError(f"expected key {key} to encode a value of type String")
    return Approval(definition, data.String)


def approval_mismatches(get_private_hash: GetState, definition: ChaincodeDefinition) -> list[str]:
    """Return in what an organisation's approval differs from a definition; empty if it approved exactly this.

    Args:
        get_private_hash: Reads the SHA-256 of a value in the organisation's implicit collection.
        definition: With defaults filled in.

    Returns:
        Names of fields, or only "ChaincodeParameters" if there is no approval for this sequence at all.
    """
    name = _private_name(definition)
    fields = _parameter_fields(definition)
    writes = _structure_writes(NAMESPACES, name, _PARAMETERS, fields)
    hashes = {key: get_private_hash(key) for key in writes}
    key = metadata_key(NAMESPACES, name)
    if hashes[key] != sha256(writes[key]).digest():
        return [_PARAMETERS]
    keys = {field_name: field_key(NAMESPACES, name, field_name) for field_name in fields}
    return [name for name, key in keys.items() if hashes[key] != sha256(writes[key]).digest()]


def _private_name(definition: ChaincodeDefinition) -> str:
    return f"{definition.name}#{definition.sequence}"


def _package_fields(package_id: str) -> dict[str, db_pb2.StateData]:
    return {"PackageID": db_pb2.StateData(String=package_id)}


# --- when one may approve or commit ----------------------------------------------------------------------------------


def check_approval(
    get_public: GetState, get_private: GetState, definition: ChaincodeDefinition, package_id: str
) -> None:
    """Check that an organisation may approve this definition now (ApproveChaincodeDefinitionForOrg).

    Args:
        get_public: Reads the public state of `_lifecycle`.
        get_private: Reads the organisation's implicit collection.
        definition: With defaults filled in.
        package_id: See :func:`approval_writes`.

    Raises:
        LifecycleError: With Fabric's text.
        MalformedError: If the stored state is damaged.
    """
    name, requested = definition.name, definition.sequence
    current = read_sequence(get_public, name)
    if current == requested == 0:
        raise LifecycleError("requested sequence is 0, but first definable sequence number is 1")
    if requested < current:
        raise LifecycleError(f"currently defined sequence {current} is larger than requested sequence {requested}")
    if requested > current + 1:
        raise LifecycleError(
            f"requested sequence {requested} is larger than the next available sequence number {current + 1}"
        )
    repeated = _is_approved(get_private, definition, package_id)
    if requested == current + 1:
        if repeated:
            raise LifecycleError(
                f"attempted to redefine uncommitted sequence ({requested}) for namespace {name} with unchanged content"
            )
        return
    committed = read_definition(get_public, name)
    if committed is None:
        raise LifecycleError(f"missing metadata for currently committed sequence number ({current})")
    difference = _difference(committed, definition)
    if difference:
        raise LifecycleError(
            f"attempted to redefine the current committed sequence ({current}) for namespace {name} "
            f"with different parameters: {difference}"
        )
    if repeated:
        raise LifecycleError(f"attempted to redefine the current committed sequence ({current}) for namespace {name}")


def commit_readiness(
    get_public: GetState, private_hashes: Mapping[str, GetState], definition: ChaincodeDefinition
) -> dict[str, list[str]]:
    """Return for each organisation in what its approval differs (empty: approved); see :func:`approval_mismatches`.

    Args:
        get_public: Reads the public state of `_lifecycle`.
        private_hashes: For each MSP id a reader of the hashes in its implicit collection.
        definition: With defaults filled in.

    Raises:
        LifecycleError: If the sequence is not the next one.
        MalformedError: If the stored state is damaged.
    """
    current = read_sequence(get_public, definition.name)
    if definition.sequence != current + 1:
        raise LifecycleError(
            f"requested sequence is {definition.sequence}, but new definition must be sequence {current + 1}"
        )
    return {msp_id: approval_mismatches(get_hash, definition) for msp_id, get_hash in private_hashes.items()}


def _is_approved(get_private: GetState, definition: ChaincodeDefinition, package_id: str) -> bool:
    approval = read_approval(get_private, definition.name, definition.sequence)
    return (
        approval is not None and not _difference(approval.definition, definition) and approval.package_id == package_id
    )


def _difference(expected: ChaincodeDefinition, passed: ChaincodeDefinition) -> str:
    """ChaincodeParameters.Equal: "" if nothing differs."""
    pairs: Sequence[tuple[str, str, str]] = (
        ("Version", expected.version, passed.version),
        ("EndorsementPlugin", expected.endorsement_plugin, passed.endorsement_plugin),
        ("InitRequired", str(expected.init_required).lower(), str(passed.init_required).lower()),
        ("ValidationPlugin", expected.validation_plugin, passed.validation_plugin),
        ("ValidationParameter", expected.endorsement_policy.hex(), passed.endorsement_policy.hex()),
    )
    for name, one, other in pairs:
        if one != other:
            return f"expected {name} '{one}' does not match passed {name} '{other}'"
    nothing = collection_pb2.CollectionConfigPackage()
    return "" if (expected.collections or nothing) == (passed.collections or nothing) else "Collections do not match"


# --- policies --------------------------------------------------------------------------------------------------------


def signature_application_policy(policy: str) -> bytes:
    """Return ApplicationPolicy bytes for a text such as "AND('AMSP.peer','BMSP.peer')". Raises PolicySyntaxError."""
    return policy_pb2.ApplicationPolicy(signature_policy=policydsl.parse(policy)).SerializeToString()


def reference_application_policy(path: str) -> bytes:
    """Return ApplicationPolicy bytes for a reference to a channel policy such as /Channel/Application/Endorsement."""
    return policy_pb2.ApplicationPolicy(channel_config_policy_reference=path).SerializeToString()


def application_policy(policy: bytes, bundle: ChannelBundle) -> Policy:
    """Return what ApplicationPolicy bytes mean under a channel configuration.

    A reference to a policy that does not exist gives one that always rejects. Raises MalformedError for bytes that
    are no policy, or one of an unknown type.
    """
    try:
        message = policy_pb2.ApplicationPolicy.FromString(policy)
    except DecodeError as fault:
        raise MalformedError("failed to unmarshal ApplicationPolicy bytes") from fault
    kind = message.WhichOneof("Type")
    if kind == "signature_policy":
        return SignaturePolicy(message.signature_policy, bundle.msps)
    if kind == "channel_config_policy_reference":
        return bundle.policies.get(message.channel_config_policy_reference)
    raise MalformedError("unsupported policy type: neither a signature policy nor a reference")


def endorsement_policy(definition: ChaincodeDefinition, bundle: ChannelBundle) -> Policy:
    """Return the endorsement policy of a definition. Raises MalformedError."""
    return application_policy(with_defaults(definition).endorsement_policy, bundle)


def lifecycle_policy(bundle: ChannelBundle) -> bytes:
    """Return the ApplicationPolicy that judges public writes to `_lifecycle`.

    /Channel/Application/LifecycleEndorsement if the channel defines it, else a member of the majority of the
    application organisations.
    """
    if "LifecycleEndorsement" in bundle.config.channel_group.groups["Application"].policies:
        return reference_application_policy(LIFECYCLE_ENDORSEMENT_POLICY)
    msp_ids = sorted(bundle.application_msp_ids)
    return _members_policy(msp_ids, len(msp_ids) // 2 + 1)


def collection_policy(definition: ChaincodeDefinition | None, collection: str, bundle: ChannelBundle) -> bytes:
    """Return the ApplicationPolicy that judges writes to a collection of a chaincode.

    Args:
        definition: The chaincode's definition; None for `_lifecycle`, which has only implicit collections.
        collection: Name of an implicit or explicit collection.
        bundle: The channel configuration.

    Raises:
        LifecycleError: If there is no such collection, or no organisation of the channel for an implicit one.
    """
    msp_id = implicit_collection_msp(collection)
    if msp_id is not None:
        return _implicit_policy(msp_id, bundle)
    config = None if definition is None else definition.collection(collection)
    if definition is None or config is None:
        raise LifecycleError(f"no such collection '{collection}'")
    if config.HasField("endorsement_policy"):
        return config.endorsement_policy.SerializeToString()
    return definition.endorsement_policy


def _implicit_policy(msp_id: str, bundle: ChannelBundle) -> bytes:
    for name, group in bundle.config.channel_group.groups["Application"].groups.items():
        if _group_msp_id(group.values["MSP"].value if "MSP" in group.values else b"") != msp_id:
            continue
        if "Endorsement" in group.policies:
            return reference_application_policy(f"/Channel/Application/{name}/Endorsement")
        return _members_policy([msp_id], 1)
    raise LifecycleError(f"no org found in channel with MSPID '{msp_id}'")


def _group_msp_id(encoded: bytes) -> str:
    try:
        config = msp_config_pb2.MSPConfig.FromString(encoded)
        return msp_config_pb2.FabricMSPConfig.FromString(config.config).name
    except DecodeError:
        return ""


def _members_policy(msp_ids: Sequence[str], threshold: int) -> bytes:
    """common/policydsl SignedByNOutOfGivenRole with role MEMBER."""
    role = msp_principal_pb2.MSPRole.MEMBER
    envelope = policies_pb2.SignaturePolicyEnvelope(
        rule=policies_pb2.SignaturePolicy(
            n_out_of=policies_pb2.SignaturePolicy.NOutOf(
                n=threshold,
                rules=[policies_pb2.SignaturePolicy(signed_by=position) for position in range(len(msp_ids))],
            )
        ),
        identities=[
            msp_principal_pb2.MSPPrincipal(
                principal_classification=msp_principal_pb2.MSPPrincipal.ROLE,
                principal=msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=role).SerializeToString(),
            )
            for msp_id in msp_ids
        ],
    )
    return policy_pb2.ApplicationPolicy(signature_policy=envelope).SerializeToString()
