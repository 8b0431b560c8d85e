"""Whose endorsement a simulated transaction needs: chaincodes, collections and key-level policies that it touched.

Mirrors core/endorser/endorser.go buildChaincodeInterest and parseWritesetMetadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.peer import proposal_response_pb2

from sovchain.ledger.definitions import SYSTEM_CHAINCODES
from sovchain.ledger.simulator import VALIDATION_PARAMETER, SimulationResults
from sovchain.ledger.state import Snapshot
from sovchain.protocol.lifecycle import LEGACY_NAMESPACE
from sovchain.protocol.rwset import NamespaceRwSet, parse_rwset


def chaincode_interest(results: SimulationResults, snapshot: Snapshot) -> proposal_response_pb2.ChaincodeInterest:
    """Return the chaincode calls, collections and key policies that an endorsement plan must satisfy.

    `snapshot` is what was simulated on: it tells which of the written keys have a policy of their own.
    """
    required: dict[str, dict[str, bool]] = {}
    for namespace, collection in results.write_policies:
        required.setdefault(namespace, {"": False})[collection] = True
    key_policies: dict[str, list[bytes]] = {}
    if any(results.write_policies.values()):
        key_policies = _apply_key_policies(results, snapshot, required)
    for entry in rwset_pb2.TxReadWriteSet.FromString(results.public).ns_rwset:
        # What is only read needs the chaincode's policy too.
        required.setdefault(entry.namespace, {"": True})
    for namespace, collection in results.private_reads:
        required.setdefault(namespace, {})[collection] = True
    interest = proposal_response_pb2.ChaincodeInterest()
    for namespace in sorted(required.keys() - SYSTEM_CHAINCODES - {LEGACY_NAMESPACE}):
        calls = _calls(namespace, required[namespace], key_policies.get(namespace, []), results)
        interest.chaincodes.extend(calls)
    return interest


def _apply_key_policies(
    results: SimulationResults, snapshot: Snapshot, required: dict[str, dict[str, bool]]
) -> dict[str, list[bytes]]:
    """Return the policies of written keys by namespace, and drop from `required` where every written key has one."""
    found: dict[str, list[bytes]] = {}
    for entry in parse_rwset(results.public).namespaces:
        for collection, policies in _written_policies(entry, snapshot):
            required.setdefault(entry.namespace, {"": False})[collection] = not all(policies)
            found.setdefault(entry.namespace, []).extend(policy for policy in policies if policy)
    for collections in required.values():
        for collection in [name for name, needed in collections.items() if name and not needed]:
            del collections[collection]
    return {namespace: sorted(policies) for namespace, policies in found.items()}


def _written_policies(entry: NamespaceRwSet, snapshot: Snapshot) -> Iterator[tuple[str, list[bytes]]]:
    """Yield for public state ("") and each written collection the policies of its written keys, b"" for none."""
    keys = {write.key for write in entry.writes} | {write.key for write in entry.metadata_writes}
    if keys:
        yield "", [snapshot.metadata(entry.namespace, key).get(VALIDATION_PARAMETER, b"") for key in sorted(keys)]
    for collection in entry.collections:
        hashes = {write.key_hash for write in collection.writes}
        hashes |= {write.key_hash for write in collection.metadata_writes}
        if hashes:
            metadata = (snapshot.hashed_metadata(entry.namespace, collection.name, key) for key in sorted(hashes))
            yield collection.name, [entries.get(VALIDATION_PARAMETER, b"") for entries in metadata]


def _calls(
    namespace: str, required: Mapping[str, bool], key_policies: list[bytes], results: SimulationResults
) -> list[proposal_response_pb2.ChaincodeCall]:
    calls = []
    for collection in sorted(required):
        call = proposal_response_pb2.ChaincodeCall(name=namespace)
        if collection:
            call.collection_names.append(collection)
            call.no_private_reads = (namespace, collection) not in results.private_reads
        elif key_policies:
            for policy in key_policies:
                call.key_policies.add().MergeFromString(policy)
            call.disregard_namespace_policy = not required[""]
        elif not required[""]:
            continue
        calls.append(call)
    return calls
