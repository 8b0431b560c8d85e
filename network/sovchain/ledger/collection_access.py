"""Member-only rules of private data collections, for the creator of a proposal.

Mirrors core/common/privdata/store.go RetrieveReadWritePermission.
"""

from __future__ import annotations

from dataclasses import dataclass

from sovchain.ledger.channel import Channel
from sovchain.ledger.errors import CollectionMissing
from sovchain.ledger.simulator import TxSimulator
from sovchain.protocol.errors import PolicyUnsatisfied, ProtocolError
from sovchain.protocol.lifecycle import implicit_collection_msp
from sovchain.protocol.policies import SignaturePolicy, SignedData


@dataclass(frozen=True)
class CreatorCollectionAccess:
    """What the signer of one proposal may do with the collections of a channel's chaincodes."""

    channel: Channel
    signed: SignedData

    def permissions(self, simulator: TxSimulator, namespace: str, collection: str) -> tuple[bool, bool]:
        """Return (may read, may write): everybody, unless the collection is for members only and the signer is none.

        Raises CollectionMissing if the chaincode has no such collection.
        """
        found = (simulator.collections(namespace) or {}).get(collection)
        if found is None:
            if implicit_collection_msp(collection) is not None:
                return True, True  # of an organisation that is not on the channel: the simulator refuses it
            text = f"collection {self.channel.channel_id}/{namespace}/{collection} could not be found"
            raise CollectionMissing(text, namespace, collection)
        config = found.config
        if not config.member_only_read and not config.member_only_write:
            return True, True
        policy = SignaturePolicy(config.member_orgs_policy.signature_policy, self.channel.bundle.msps)
        try:
            policy.evaluate([self.signed])
        except (PolicyUnsatisfied, ProtocolError):
            return not config.member_only_read, not config.member_only_write
        return True, True
