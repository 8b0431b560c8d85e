"""Endorsement policies in the harness: who endorsed is known by name, so that nothing needs to be signed.

Which policy counts for which key is decided by `sovchain.protocol.endorsement`; here only the last step differs: a policy is
met if the organisations that endorsed are enough for it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from fabric_protos.peer import policy_pb2, transaction_pb2

from sovchain.protocol.endorsement import EndorsementError, EndorsementValidator
from sovchain.protocol.lifecycle import implicit_collection_msp, signature_application_policy
from sovchain.protocol.policies import satisfying_organisations

if TYPE_CHECKING:
    from sovchain.protocol.lifecycle import ChaincodeDefinition
    from sovchain.protocol.rwset import RwSet
    from sovchain.protocol.worldstate import StateReader

EndorsementFault = EndorsementError


class Endorsers(EndorsementValidator):
    """Judges the endorsements of one block by the names of those who endorsed."""

    def __init__(self, state: StateReader) -> None:
        # There is no channel configuration: what would read it is overridden.
        super().__init__(cast("Any", SimpleNamespace(msps=None)), state)
        self._endorsers: frozenset[str] = frozenset()

    def check(self, position: int, chaincode: str, rwset: RwSet, endorsers: frozenset[str]) -> None:
        """Judge one transaction. Raises EndorsementFault."""
        self._endorsers = endorsers
        transaction = SimpleNamespace(chaincode=chaincode, rwset=rwset, endorsements=(), response_payload=b"")
        self.validate(position, cast("Any", transaction))

    def _collection_policy(self, definition: ChaincodeDefinition | None, collection: str) -> bytes:
        owner = implicit_collection_msp(collection)
        if owner is not None:
            return signature_application_policy(f"OR('{owner}.member')")
        config = None if definition is None else definition.collection(collection)
        if definition is None or config is None:
            raise EndorsementError(
                transaction_pb2.TxValidationCode.ENDORSEMENT_POLICY_FAILURE, f"no such collection '{collection}'"
            )
        has_own = config.HasField("endorsement_policy")
        return config.endorsement_policy.SerializeToString() if has_own else definition.endorsement_policy

    def _require(self, encoded: bytes, subject: str, signatures: Any) -> None:
        envelope = policy_pb2.ApplicationPolicy.FromString(encoded).signature_policy
        if not any(enough <= self._endorsers for enough in satisfying_organisations(envelope)):
            raise EndorsementError(
                transaction_pb2.TxValidationCode.ENDORSEMENT_POLICY_FAILURE,
                f"endorsement policy of {subject} was not met by {', '.join(sorted(self._endorsers))}",
            )
