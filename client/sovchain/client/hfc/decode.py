"""Blocks as the dictionaries that hfc's callers know (its BlockDecoder)."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    events_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

from sovchain.client.commit import code_name
from sovchain.client.hfc.configuration import decode_config_envelope, decode_config_update_envelope
from sovchain.client.hfc.headers import TYPES, decode_header, decode_identity, decode_signature_header


def decode_block(data: bytes) -> dict[str, Any]:
    """A block. Raises google.protobuf.message.DecodeError."""
    block = common_pb2.Block.FromString(data)
    return decoded(block)


def decoded(block: common_pb2.Block) -> dict[str, Any]:
    """A block that is parsed already."""
    return {
        "header": {
            "number": block.header.number,
            "previous_hash": binascii.b2a_hex(block.header.previous_hash),
            "data_hash": binascii.b2a_hex(block.header.data_hash),
        },
        "data": {"data": [decode_envelope(common_pb2.Envelope.FromString(item)) for item in block.data.data]},
        "metadata": {"metadata": _metadata(list(block.metadata.metadata))},
    }


def decode_filtered(block: events_pb2.FilteredBlock) -> dict[str, Any]:
    """A filtered block."""
    return {
        "channel_id": block.channel_id,
        "number": block.number,
        "filtered_transactions": [
            {
                "txid": one.txid,
                "type": TYPES.get(one.type, "UNKNOWN_TYPE"),
                "tx_validation_code": code_name(one.tx_validation_code),
                "transaction_actions": {
                    "chaincode_actions": [
                        {"chaincode_event": _event(action.chaincode_event)}
                        for action in one.transaction_actions.chaincode_actions
                    ]
                },
            }
            for one in block.filtered_transactions
        ],
    }


def decode_envelope(envelope: common_pb2.Envelope) -> dict[str, Any]:
    """An envelope: header, and an endorsed transaction, a configuration or an update of one; others are {}, as with hfc."""
    payload = common_pb2.Payload.FromString(envelope.payload)
    header = decode_header(payload.header)
    kind = header["channel_header"]["type"]
    header["channel_header"]["type_string"] = TYPES.get(kind, "UNKNOWN_TYPE")
    decoder = _DATA.get(kind)
    data = {} if decoder is None else decoder(payload.data)
    return {"signature": envelope.signature, "payload": {"header": header, "data": data}}


def _actions(data: bytes) -> dict[str, Any]:
    actions = transaction_pb2.Transaction.FromString(data).actions
    return {
        "actions": [
            {"header": decode_signature_header(action.header), "payload": _action_payload(action.payload)}
            for action in actions
        ]
    }


_DATA: Final[Mapping[int, Callable[[bytes], dict[str, Any]]]] = {
    common_pb2.CONFIG: decode_config_envelope,
    common_pb2.CONFIG_UPDATE: decode_config_update_envelope,
    common_pb2.ENDORSER_TRANSACTION: _actions,
}


def _action_payload(data: bytes) -> dict[str, Any]:
    payload = transaction_pb2.ChaincodeActionPayload.FromString(data)
    proposed = proposal_pb2.ChaincodeProposalPayload.FromString(payload.chaincode_proposal_payload)
    return {
        "chaincode_proposal_payload": {"input": proposed.input},
        "action": {
            "proposal_response_payload": _response_payload(payload.action.proposal_response_payload),
            "endorsements": [
                {"endorser": decode_identity(one.endorser), "signature": one.signature}
                for one in payload.action.endorsements
            ],
        },
    }


def _response_payload(data: bytes) -> dict[str, Any]:
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(data)
    action = proposal_pb2.ChaincodeAction.FromString(payload.extension)
    chaincode = action.chaincode_id
    return {
        "proposal_hash": binascii.b2a_hex(payload.proposal_hash),
        "extension": {
            "results": _read_write_sets(action.results),
            "events": _event(chaincode_event_pb2.ChaincodeEvent.FromString(action.events)),
            "response": {
                "status": action.response.status,
                "message": action.response.message,
                "payload": action.response.payload,
            },
            "chaincode_id": {"path": chaincode.path, "name": chaincode.name, "version": chaincode.version},
        },
    }


def _event(event: chaincode_event_pb2.ChaincodeEvent) -> dict[str, Any]:
    return {
        "chaincode_id": event.chaincode_id,
        "tx_id": event.tx_id,
        "event_name": event.event_name,
        "payload": event.payload,
    }


def _read_write_sets(data: bytes) -> dict[str, Any]:
    sets = rwset_pb2.TxReadWriteSet.FromString(data)
    return {
        "data_model": sets.data_model,
        "ns_rwset": [
            {"namespace": one.namespace, "rwset": _key_values(kv_rwset_pb2.KVRWSet.FromString(one.rwset))}
            for one in sets.ns_rwset
        ],
    }


def _key_values(found: kv_rwset_pb2.KVRWSet) -> dict[str, Any]:
    return {
        "reads": [_read(read) for read in found.reads],
        "range_queries_info": [
            {
                "start_key": one.start_key,
                "end_key": one.end_key,
                "itr_exhausted": one.itr_exhausted,
                "raw_reads": {"kv_reads": [_read(read) for read in one.raw_reads.kv_reads]},
                "reads_merkle_hashes": {
                    "max_degree": one.reads_merkle_hashes.max_degree,
                    "max_level": one.reads_merkle_hashes.max_level,
                    "max_level_hashes": list(one.reads_merkle_hashes.max_level_hashes),
                },
            }
            for one in found.range_queries_info
        ],
        "writes": [{"key": one.key, "is_delete": one.is_delete, "value": one.value} for one in found.writes],
    }


def _read(read: kv_rwset_pb2.KVRead) -> dict[str, Any]:
    version = read.version
    numbers = {"block_num": str(version.block_num), "tx_num": str(version.tx_num)}
    return {"key": read.key, "version": numbers if read.HasField("version") else None}


def _metadata(parts: list[bytes]) -> list[Any]:
    """Signatures, the last config block, and the validation codes."""
    if len(parts) <= common_pb2.TRANSACTIONS_FILTER:
        return []
    signatures = common_pb2.Metadata.FromString(parts[common_pb2.SIGNATURES])
    last: dict[str, Any] = {"value": {"index": 0, "signatures": []}}
    if parts[common_pb2.LAST_CONFIG]:
        found = common_pb2.Metadata.FromString(parts[common_pb2.LAST_CONFIG])
        last["value"]["index"] = common_pb2.LastConfig.FromString(found.value).index
        last["signatures"] = _metadata_signatures(found)
    return [
        {"value": signatures.value, "signatures": _metadata_signatures(signatures)},
        last,
        list(parts[common_pb2.TRANSACTIONS_FILTER]) or None,
    ]


def _metadata_signatures(metadata: common_pb2.Metadata) -> list[dict[str, Any]]:
    return [
        {"signature_header": decode_signature_header(one.signature_header), "signature": one.signature}
        for one in metadata.signatures
    ]
