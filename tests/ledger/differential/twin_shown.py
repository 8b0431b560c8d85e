"""Answers of peers as text, taken apart down to the keys that were read and written, so that a person sees a difference."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2


def apart(one: object, other: object) -> tuple[object, object]:
    """The lines of two answers that the other does not have; other things as they are."""
    if not isinstance(one, proposal_response_pb2.ProposalResponse) or not isinstance(
        other, proposal_response_pb2.ProposalResponse
    ):
        return _short(one), _short(other)
    lines = [*_lines(one), f"bytes {one.payload.hex()}" if one.payload else ""]
    others = [*_lines(other), f"bytes {other.payload.hex()}" if other.payload else ""]
    blocks = [block for block in SequenceMatcher(a=lines, b=others).get_opcodes() if block[0] != "equal"]
    first = [line for _, start, end, _, _ in blocks for line in lines[start:end]]
    second = [line for _, _, _, start, end in blocks for line in others[start:end]]
    if any(not line.startswith("bytes") for line in (*first, *second)):
        first = [line for line in first if not line.startswith("bytes")]
        second = [line for line in second if not line.startswith("bytes")]
    return first, second


def _short(thing: object) -> object:
    if isinstance(thing, proposal_response_pb2.ProposalResponse):
        return [line for line in _lines(thing) if line.startswith(("response", "endorser"))]
    return thing


def _lines(answer: proposal_response_pb2.ProposalResponse) -> list[str]:
    found = [
        f"response {answer.response.status} {answer.response.message!r} {answer.response.payload!r}",
        f"version {answer.version}",
        f"endorser {answer.endorsement.endorser[:12]!r}",
        f"has payload {bool(answer.payload)}",
        *(f"interest {_flat(call)}" for call in answer.interest.chaincodes),
    ]
    if not answer.payload:
        return found
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(answer.payload)
    action = proposal_pb2.ChaincodeAction.FromString(payload.extension)
    found.append(f"proposal hash {payload.proposal_hash.hex()}")
    found.append(f"event {action.events!r}")
    found.append(f"recorded response {_flat(action.response)} of {_flat(action.chaincode_id)}")
    for entry in rwset_pb2.TxReadWriteSet.FromString(action.results).ns_rwset:
        found.append(f"namespace {entry.namespace}")
        public = kv_rwset_pb2.KVRWSet.FromString(entry.rwset)
        for name in ("reads", "writes", "metadata_writes", "range_queries_info"):
            found += [f"{entry.namespace} {name} {_flat(item)}" for item in getattr(public, name)]
        for collection in entry.collection_hashed_rwset:
            hashed = kv_rwset_pb2.HashedRWSet.FromString(collection.hashed_rwset)
            where = f"{entry.namespace}/{collection.collection_name}"
            found.append(f"{where} hash {collection.pvt_rwset_hash.hex()}")
            for name in ("hashed_reads", "hashed_writes", "metadata_writes"):
                found += [f"{where} {name} {_flat(item)}" for item in getattr(hashed, name)]
    return found


def _flat(message: Any) -> str:
    return " ".join(str(message).split())
