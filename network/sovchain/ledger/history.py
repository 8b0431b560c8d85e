"""What one transaction did to one public key, read from its envelope in a block.

Mirrors `core/ledger/kvledger/history/query_executer.go`: the history index says which transactions wrote a key, the
values are in the blocks.
"""

from __future__ import annotations

from fabric_protos.common import common_pb2
from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.errors import LedgerError


def key_modification(envelope: bytes, namespace: str, key: str) -> kv_query_result_pb2.KeyModification:
    """The write of a key in the endorser transaction of a marshalled envelope.

    Raises `LedgerError` if the transaction does not write the key, which means that index and blocks disagree.
    """
    try:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
        header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        for write in _writes(payload.data, namespace):
            if write.key == key:
                return kv_query_result_pb2.KeyModification(
                    tx_id=header.tx_id,
                    value=write.value,
                    timestamp=header.timestamp if header.HasField("timestamp") else None,
                    is_delete=write.is_delete or not write.value,
                )
    except (DecodeError, IndexError) as error:
        raise LedgerError(f"a transaction in the history of {namespace}/{key!r} cannot be decoded: {error}") from error
    raise LedgerError(f"transaction {header.tx_id} is in the history of {namespace}/{key!r} and does not write it")


def _writes(transaction: bytes, namespace: str) -> list[kv_rwset_pb2.KVWrite]:
    action = transaction_pb2.Transaction.FromString(transaction).actions[0]
    payload = transaction_pb2.ChaincodeActionPayload.FromString(action.payload)
    response = proposal_response_pb2.ProposalResponsePayload.FromString(payload.action.proposal_response_payload)
    results = proposal_pb2.ChaincodeAction.FromString(response.extension).results
    for entry in rwset_pb2.TxReadWriteSet.FromString(results).ns_rwset:
        if entry.namespace == namespace:
            return list(kv_rwset_pb2.KVRWSet.FromString(entry.rwset).writes)
    return []
