"""Member-only rules of private data collections, for the creator of a proposal and for who follows blocks.

Mirrors core/common/privdata/store.go RetrieveReadWritePermission and core/peer/deliverevents.go getPrivateData.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.peer import collection_pb2

from sovchain.ledger.chainview import ChainView
from sovchain.ledger.collections import Collection
from sovchain.ledger.errors import CollectionMissing, LedgerError
from sovchain.ledger.simulator import TxSimulator
from sovchain.protocol.errors import PolicyUnsatisfied, ProtocolError
from sovchain.protocol.lifecycle import implicit_collection_msp
from sovchain.protocol.policies import SignaturePolicy, SignedData


@dataclass(frozen=True)
class CreatorCollectionAccess:
    """What the signer of one proposal may do with the collections of a channel's chaincodes."""

    channel: ChainView
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
        if _is_member(self.channel, config, self.signed):
            return True, True
        return not config.member_only_read, not config.member_only_write


def readable_private_data(
    channel: ChainView, msp_id: str, number: int, signed: SignedData
) -> dict[int, rwset_pb2.TxPvtReadWriteSet]:
    """What the peer of `msp_id` holds of a block's private data and the signer may read, by place in the block.

    A collection is as it was defined before the block. One that is not for members only is shown to whoever may read
    blocks at that peer, as it is by a real one.
    """
    found: dict[int, rwset_pb2.TxPvtReadWriteSet] = {}
    configs: dict[str, Mapping[str, Collection]] = {}
    for written in channel.private_written(msp_id, number):
        if written.namespace not in configs:
            configs[written.namespace] = channel.collections_before(written.namespace, number)
        collection = configs[written.namespace].get(written.collection)
        if collection is None:
            raise LedgerError(f"no collection config was found for collection {written.collection}")
        config = collection.config
        if config.member_only_read and not _is_member(channel, config, signed):
            continue
        transaction = found.setdefault(written.position, rwset_pb2.TxPvtReadWriteSet())
        namespaces = transaction.ns_pvt_rwset
        if not namespaces or namespaces[-1].namespace != written.namespace:
            namespaces.add(namespace=written.namespace)
        namespaces[-1].collection_pvt_rwset.add(collection_name=written.collection, rwset=written.write_set)
    return found


def _is_member(channel: ChainView, config: collection_pb2.StaticCollectionConfig, signed: SignedData) -> bool:
    try:
        SignaturePolicy(config.member_orgs_policy.signature_policy, channel.bundle.msps).evaluate([signed])
    except (PolicyUnsatisfied, ProtocolError):
        return False
    return True
