"""Endorsement policies: whether those who signed a transaction were entitled to its writes.

For every namespace that a transaction writes to, and the one that it invoked: the policy of each written key if it
has one, else that of its collection, else that of the chaincode.
Mirrors core/committer/txvalidator/v20/plugindispatcher/dispatcher.go (which namespaces),
core/handlers/validation/builtin/v20/validation_logic.go and core/common/validation/statebased/{v20,
validator_keylevel,vpmanagerimpl}.go (which policies).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from fabric_protos.common import policies_pb2
from fabric_protos.peer import policy_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from sovchain.protocol import lifecycle, policydsl
from sovchain.protocol.errors import InvalidIdentity, MalformedError, PolicyUnsatisfied, ProtocolError
from sovchain.protocol.identity import Identity
from sovchain.protocol.msp import MspManager
from sovchain.protocol.policies import Policy, SignaturePolicy, SignedData, verified_identities
from sovchain.protocol.rwset import NamespaceRwSet
from sovchain.protocol.transactions import ParsedTransaction
from sovchain.protocol.worldstate import StateReader

if TYPE_CHECKING:
    from sovchain.protocol.channelconfig import ChannelBundle

__all__ = [
    "VALIDATION_PARAMETER",
    "EndorsementError",
    "EndorsementValidator",
    "endorsement_data",
    "usable_identity",
    "usable_signatures",
]

VALIDATION_PARAMETER = "VALIDATION_PARAMETER"
"""Name of the metadata entry that holds a key's own endorsement policy: a marshalled SignaturePolicyEnvelope."""

_EXPLAINED_PRINCIPALS_MAX = 12
_CODES = transaction_pb2.TxValidationCode


class EndorsementError(ProtocolError):
    """A transaction's endorsements do not entitle it to its writes.

    Attributes:
        code: ENDORSEMENT_POLICY_FAILURE, or INVALID_CHAINCODE or INVALID_OTHER_REASON if there is no policy to ask.
        reason: Which policy was not met and who signed, in plain words.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def endorsement_data(transaction: ParsedTransaction) -> list[SignedData]:
    """Return what each endorser signed: the response payload followed by its own identity."""
    payload = transaction.response_payload
    return [
        SignedData(message=payload + entry.endorser, identity=entry.endorser, signature=entry.signature)
        for entry in transaction.endorsements
    ]


def usable_identity(serialized: bytes, msps: MspManager) -> Identity:
    """Return an identity whose key can verify something. Raises InvalidIdentity.

    The key of a certificate is only decoded when it is used; in a spoiled certificate that may fail, and then the
    identity must count as little as one that cannot be decoded at all.
    """
    identity = msps.deserialize(serialized)
    try:
        _ = identity.public_key
    except (MalformedError, ValueError, UnsupportedAlgorithm) as fault:
        raise InvalidIdentity(f"the certificate's key cannot be used: {fault}") from fault
    return identity


def usable_signatures(signed: Iterable[SignedData], msps: MspManager) -> list[SignedData]:
    """Return the entries whose identity is usable; the others cannot count in any policy."""
    usable: list[SignedData] = []
    for entry in signed:
        try:
            usable_identity(entry.identity, msps)
        except InvalidIdentity:
            continue
        usable.append(entry)
    return usable


class _Signatures:
    """The endorsements of one transaction; each signature is verified once, whatever the number of policies."""

    def __init__(self, transaction: ParsedTransaction, bundle: ChannelBundle) -> None:
        self._bundle = bundle
        self._answers: dict[bytes, str] = {}
        self._count = len(transaction.endorsements)
        self.signed = usable_signatures(endorsement_data(transaction), bundle.msps)

    @cached_property
    def identities(self) -> list[Identity]:
        """Whose signatures are good."""
        return verified_identities(self.signed, self._bundle.msps)

    def fault(self, key: bytes, policy: Policy) -> str:
        """Return why the policy is not met; "" if it is. `key` identifies the policy."""
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = self._evaluate(policy)
        return answer

    def _evaluate(self, policy: Policy) -> str:
        try:
            policy.evaluate_identities(self.identities)
        except PolicyUnsatisfied as fault:
            return str(fault)
        return ""

    def describe(self) -> str:
        """Return who signed, for a person to read."""
        names: list[str] = []
        for identity in self.identities:
            try:
                role = self._bundle.msps.msp(identity.msp_id).role(identity)
            except ProtocolError as fault:
                names.append(f"{identity.msp_id} (not valid: {fault})")
            else:
                names.append(f"{identity.msp_id} ({role})" if role else identity.msp_id)
        bad = self._count - len(self.identities)
        if bad:
            names.append(f"{bad} unknown, repeated or bad")
        return ", ".join(names) or "nobody"


class EndorsementValidator:
    """Judges the endorsements of one block's transactions, in their order.

    Args:
        bundle: The channel configuration before the block.
        state: The committed state before the block: definitions and the keys' own policies are read from it.
    """

    def __init__(self, bundle: ChannelBundle, state: StateReader) -> None:
        self._bundle = bundle
        self._state = state
        self._policies: dict[bytes, Policy | str] = {}
        self._chaincodes: dict[str, tuple[bytes, lifecycle.ChaincodeDefinition | None]] = {}
        # Keys whose own policy an earlier transaction of the block changed: the old one no longer counts, and the
        # new one not yet.
        self._changed: dict[tuple[str, str, str | bytes], int] = {}

    def validate(self, position: int, transaction: ParsedTransaction) -> None:
        """Judge one transaction. Raises EndorsementError."""
        signatures = _Signatures(transaction, self._bundle)
        written = sorted(
            entry.namespace
            for entry in transaction.rwset.namespaces
            if entry.namespace != transaction.chaincode and entry.has_writes
        )
        for name in (transaction.chaincode, *written):
            accesses = transaction.rwset.namespace(name) or NamespaceRwSet(name)
            self._validate_namespace(accesses, signatures)
            self._note_changes(accesses, position)

    def _validate_namespace(self, accesses: NamespaceRwSet, signatures: _Signatures) -> None:
        name = accesses.namespace
        chaincode_policy, definition = self._chaincode(name)
        checked: set[str] = set()
        is_any_checked = False
        for collection, key in _written_keys(accesses):
            own_policy = self._own_policy(name, collection, key)
            if own_policy:
                self._require(own_policy, f"{_describe_key(key)} of '{name}'", signatures)
                is_any_checked = True
            elif collection not in checked:
                checked.add(collection)
                is_any_checked = True
                if collection:
                    policy, label = self._collection_policy(definition, collection), f"collection '{collection}' of "
                else:
                    policy, label = chaincode_policy, ""
                self._require(policy, f"{label}chaincode '{name}'", signatures)
        if not is_any_checked:
            self._require(chaincode_policy, f"chaincode '{name}'", signatures)

    def _note_changes(self, accesses: NamespaceRwSet, position: int) -> None:
        name = accesses.namespace
        for write in accesses.metadata_writes:
            self._changed.setdefault((name, "", write.key), position)
        for collection in accesses.collections:
            for hashed_write in collection.metadata_writes:
                self._changed.setdefault((name, collection.name, hashed_write.key_hash), position)

    def _own_policy(self, namespace: str, collection: str, key: str | bytes) -> bytes:
        """Return the ApplicationPolicy of a key; empty if it has none of its own."""
        earlier = self._changed.get((namespace, collection, key))
        if earlier is not None:
            raise EndorsementError(
                _CODES.ENDORSEMENT_POLICY_FAILURE,
                f"the endorsement policy of {_describe_key(key)} of '{namespace}' was changed by transaction "
                f"{earlier}, earlier in this block: submit again after it is committed",
            )
        if isinstance(key, str):
            metadata = self._state.metadata(namespace, key)
        else:
            metadata = self._state.hashed_metadata(namespace, collection, key) if collection else {}
        parameter = metadata.get(VALIDATION_PARAMETER)
        if not parameter:
            return b""
        try:
            envelope = policies_pb2.SignaturePolicyEnvelope.FromString(parameter)
        except DecodeError as fault:
            # Fabric stops the channel here; refusing the write is the answer that fails closed and goes on.
            raise EndorsementError(
                _CODES.ENDORSEMENT_POLICY_FAILURE,
                f"the endorsement policy of {_describe_key(key)} of '{namespace}' cannot be decoded",
            ) from fault
        return policy_pb2.ApplicationPolicy(signature_policy=envelope).SerializeToString()

    def _chaincode(self, name: str) -> tuple[bytes, lifecycle.ChaincodeDefinition | None]:
        """Return policy and definition of a chaincode; `_lifecycle` has no definition."""
        known = self._chaincodes.get(name)
        if known is None:
            if name == lifecycle.LIFECYCLE_NAMESPACE:
                known = lifecycle.lifecycle_policy(self._bundle), None
            else:
                definition = self._definition(name)
                known = definition.endorsement_policy, definition
            self._chaincodes[name] = known
        return known

    def _definition(self, name: str) -> lifecycle.ChaincodeDefinition:
        def get(key: str) -> bytes | None:
            return self._state.get(lifecycle.LIFECYCLE_NAMESPACE, key)

        try:
            definition = lifecycle.read_definition(get, name)
        except MalformedError as fault:
            raise EndorsementError(
                _CODES.INVALID_CHAINCODE, f"the definition of chaincode '{name}' is damaged: {fault}"
            ) from fault
        if definition is None:
            raise EndorsementError(_CODES.INVALID_CHAINCODE, f"chaincode '{name}' is not defined on this channel")
        if not definition.validation_plugin or not definition.endorsement_policy:
            raise EndorsementError(
                _CODES.INVALID_CHAINCODE, f"the definition of chaincode '{name}' has no validation plugin or no policy"
            )
        if definition.validation_plugin != "vscc":
            raise EndorsementError(
                _CODES.INVALID_OTHER_REASON,
                f"chaincode '{name}' wants validation plugin '{definition.validation_plugin}', but there is only vscc",
            )
        return definition

    def _collection_policy(self, definition: lifecycle.ChaincodeDefinition | None, collection: str) -> bytes:
        try:
            return lifecycle.collection_policy(definition, collection, self._bundle)
        except lifecycle.LifecycleError as fault:
            raise EndorsementError(_CODES.ENDORSEMENT_POLICY_FAILURE, str(fault)) from fault

    def _require(self, encoded: bytes, subject: str, signatures: _Signatures) -> None:
        policy = self._policies.get(encoded)
        if policy is None:
            try:
                policy = lifecycle.application_policy(encoded, self._bundle)
            except ProtocolError as fault:
                policy = str(fault)
            self._policies[encoded] = policy
        fault_text = policy if isinstance(policy, str) else signatures.fault(encoded, policy)
        if fault_text:
            raise EndorsementError(
                _CODES.ENDORSEMENT_POLICY_FAILURE,
                f"endorsement policy of {subject} was not met: {_describe_policy(encoded)}: {fault_text}; "
                f"signed by: {signatures.describe()}{_describe_missing(policy, signatures)}",
            )


def _written_keys(accesses: NamespaceRwSet) -> Iterator[tuple[str, str | bytes]]:
    """Yield (collection, key) in Fabric's order; the collection is empty for public keys."""
    for write in accesses.writes:
        yield "", write.key
    for metadata_write in accesses.metadata_writes:
        yield "", metadata_write.key
    for collection in accesses.collections:
        for hashed_write in collection.writes:
            yield collection.name, hashed_write.key_hash
    for collection in accesses.collections:
        for hashed_metadata_write in collection.metadata_writes:
            yield collection.name, hashed_metadata_write.key_hash


def _describe_key(key: str | bytes) -> str:
    return f"key {key!r}" if isinstance(key, str) else f"the private key with hash {key.hex()}"


def _describe_missing(policy: Policy | str, signatures: _Signatures) -> str:
    """Whose signatures would have been enough, with those that are there; nothing where that would take long to find."""
    if not isinstance(policy, SignaturePolicy) or len(policy.envelope.identities) > _EXPLAINED_PRINCIPALS_MAX:
        return ""
    there = {identity.msp_id for identity in signatures.identities}
    wanted = {needed - there for needed in policy.satisfying_organisations()}
    if not wanted:
        return "; no signatures could meet it"
    if frozenset() in wanted:
        return "; those organisations are enough, but not in these roles or so few times"
    fewest = min(len(missing) for missing in wanted)
    choices = sorted(" and ".join(sorted(missing)) for missing in wanted if len(missing) == fewest)
    return f"; missing: {' or '.join(choices)}"


def _describe_policy(encoded: bytes) -> str:
    try:
        message = policy_pb2.ApplicationPolicy.FromString(encoded)
        if message.HasField("signature_policy"):
            return policydsl.render(message.signature_policy)
    except (DecodeError, ProtocolError):
        return "a policy that cannot be rendered"
    return message.channel_config_policy_reference or "an empty policy"
