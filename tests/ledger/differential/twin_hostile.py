"""Proposals and envelopes that no honest client makes: each takes a good one and spoils one thing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from twin_people import Person

from sovchain.protocol.proposals import proposal_hash

GARBAGE = b"\x0a\xff\x01"
UNKNOWN_FIELD = b"\xfa\x3e\x03odd"
"""Field 1007, which no message of Fabric has."""


class Parts:
    """An envelope taken apart. Change what you like; `seal` puts it together and signs it."""

    def __init__(self, envelope: common_pb2.Envelope) -> None:
        self.payload = common_pb2.Payload.FromString(envelope.payload)
        self.channel_header = common_pb2.ChannelHeader.FromString(self.payload.header.channel_header)
        self.signature_header = common_pb2.SignatureHeader.FromString(self.payload.header.signature_header)
        self.transaction = transaction_pb2.Transaction.FromString(self.payload.data)
        self.action_header = self.transaction.actions[0].header
        self.action = transaction_pb2.ChaincodeActionPayload.FromString(self.transaction.actions[0].payload)
        self.response = proposal_response_pb2.ProposalResponsePayload.FromString(
            self.action.action.proposal_response_payload
        )
        self.result = proposal_pb2.ChaincodeAction.FromString(self.response.extension)
        self.extension = proposal_pb2.ChaincodeHeaderExtension.FromString(self.channel_header.extension)
        self.replaced: dict[str, bytes] = {}
        self.keeps_hash = False
        self.keeps_endorsements = False
        self.endorsers: list[Person] | None = None
        self.high_s = False

    def rwset(self) -> rwset_pb2.TxReadWriteSet:
        return rwset_pb2.TxReadWriteSet.FromString(self.result.results)

    def seal(self, creator: Person) -> bytes:
        """Put the parts together, endorsed anew by `endorsers` (if any) and signed by the creator."""
        self.channel_header.extension = self._bytes("extension", self.extension)
        channel_header = self._bytes("channel_header", self.channel_header)
        signature_header = self._bytes("signature_header", self.signature_header)
        action_header = self.replaced.get("action_header", self.action_header)
        self.response.extension = self._bytes("result", self.result)
        if not self.keeps_hash:
            self.response.proposal_hash = proposal_hash(
                channel_header, action_header, self.action.chaincode_proposal_payload
            )
        response = self._bytes("response", self.response)
        self.action.action.proposal_response_payload = response
        if self.endorsers is not None:
            del self.action.action.endorsements[:]
            for person in self.endorsers:
                message = response + person.identity
                signature = person.sign_high(message) if self.high_s else person.sign(message)
                self.action.action.endorsements.add(endorser=person.identity, signature=signature)
        if self.transaction.actions:
            self.transaction.actions[0].header = action_header
            self.transaction.actions[0].payload = self._bytes("action", self.action)
        self.payload.data = self._bytes("transaction", self.transaction)
        self.payload.header.channel_header = channel_header
        self.payload.header.signature_header = signature_header
        payload = self._bytes("payload", self.payload)
        return common_pb2.Envelope(payload=payload, signature=creator.sign(payload)).SerializeToString()

    def _bytes(self, name: str, message: Any) -> bytes:
        return self.replaced.get(name, message.SerializeToString(deterministic=True))


Spoil = Callable[[Parts, random.Random], None]


def _set(path: str, *values: Any) -> Spoil:
    """Give a field, such as "channel_header.epoch", one of the values."""

    def spoil(parts: Parts, chance: random.Random) -> None:
        *way, last = path.split(".")
        target: Any = parts
        for name in way:
            target = getattr(target, name)
        setattr(target, last, chance.choice(values))

    return spoil


def _clear(path: str) -> Spoil:
    def spoil(parts: Parts, chance: random.Random) -> None:
        *way, last = path.split(".")
        target: Any = parts
        for name in way:
            target = getattr(target, name)
        target.ClearField(last)

    return spoil


def _replace(*names: str, content: bytes = GARBAGE) -> Spoil:
    """Put garbage, or other content, in the place of one of these messages."""

    def spoil(parts: Parts, chance: random.Random) -> None:
        parts.replaced[chance.choice(names)] = content

    return spoil


def _append_unknown(name: str) -> Spoil:
    def spoil(parts: Parts, chance: random.Random) -> None:
        parts.replaced[name] = getattr(parts, name).SerializeToString() + UNKNOWN_FIELD

    return spoil


def _two_actions(parts: Parts, chance: random.Random) -> None:
    parts.transaction.actions.add().CopyFrom(parts.transaction.actions[0])


def _no_actions(parts: Parts, chance: random.Random) -> None:
    del parts.transaction.actions[:]


def _no_endorsements(parts: Parts, chance: random.Random) -> None:
    parts.endorsers = []


def _spoilt_endorsement(parts: Parts, chance: random.Random) -> None:
    chosen = chance.choice(parts.action.action.endorsements)
    chance.choice(
        [
            lambda: setattr(chosen, "signature", chosen.signature[:-1]),
            lambda: setattr(chosen, "signature", b""),
            lambda: setattr(chosen, "endorser", b""),
            lambda: setattr(chosen, "endorser", GARBAGE),
            lambda: setattr(chosen, "signature", GARBAGE),
        ]
    )()
    parts.keeps_hash = True


def _repeated_endorsement(parts: Parts, chance: random.Random) -> None:
    first = parts.action.action.endorsements[0]
    for _ in range(chance.choice([1, 2])):
        parts.action.action.endorsements.add().CopyFrom(first)
    if chance.random() < 0.5:
        del parts.action.action.endorsements[1:-1]
    parts.keeps_hash = True


def _other_event(parts: Parts, chance: random.Random) -> None:
    event = chaincode_event_pb2.ChaincodeEvent(
        chaincode_id=chance.choice(["cc", "other", ""]),
        tx_id=chance.choice([parts.channel_header.tx_id, "", "other"]),
        event_name=chance.choice(["", "E"]),
    )
    parts.result.events = event.SerializeToString()


def _change_rwset(change: Callable[[rwset_pb2.TxReadWriteSet, random.Random], None]) -> Spoil:
    def spoil(parts: Parts, chance: random.Random) -> None:
        sets = parts.rwset()
        change(sets, chance)
        parts.result.results = sets.SerializeToString()

    return spoil


def _writes(namespace: str, *writes: kv_rwset_pb2.KVWrite) -> rwset_pb2.NsReadWriteSet:
    return rwset_pb2.NsReadWriteSet(namespace=namespace, rwset=kv_rwset_pb2.KVRWSet(writes=writes).SerializeToString())


def _repeat_namespace(sets: rwset_pb2.TxReadWriteSet, chance: random.Random) -> None:
    sets.ns_rwset.append(sets.ns_rwset[-1])


def _other_namespace(sets: rwset_pb2.TxReadWriteSet, chance: random.Random) -> None:
    name = chance.choice(["other", "missing", "", "far", "begun", "qscc", "cscc", "lscc", "cc\x00", "CC"])
    if name in {entry.namespace for entry in sets.ns_rwset}:
        return
    # Fabric looks at the namespaces in the random order of a Go map and takes the first failure's code
    # (plugindispatcher/dispatcher.go Dispatch): where two fail in different ways, its peers differ from each other. So
    # this namespace is the only one that can fail; who sends it has all organisations endorse.
    for entry in sets.ns_rwset:
        public = kv_rwset_pb2.KVRWSet.FromString(entry.rwset)
        del public.writes[:], public.metadata_writes[:]
        entry.rwset = public.SerializeToString()
        del entry.collection_hashed_rwset[:]
    sets.ns_rwset.append(_writes(name, kv_rwset_pb2.KVWrite(key="k", value=b"v")))


def _odd_writes(sets: rwset_pb2.TxReadWriteSet, chance: random.Random) -> None:
    entry = sets.ns_rwset[-1]
    public = kv_rwset_pb2.KVRWSet.FromString(entry.rwset)
    # What is deleted here gets no metadata anywhere: see twin_generate.MORTAL_KEYS.
    chance.choice(
        [
            lambda: public.writes.add(key="", value=b"v"),
            lambda: public.writes.add(key="_x", value=b"v"),
            lambda: public.writes.add(key="vanished", is_delete=True, value=b"v"),
            lambda: public.writes.add(key="vanished"),
            lambda: (public.writes.add(key="w", value=b"1"), public.writes.add(key="w", value=b"2")),
            lambda: (public.writes.add(key="vanished", value=b"1"), public.writes.add(key="gone", is_delete=True)),
            lambda: public.writes.add(key="w\x00", value=b"v"),
            lambda: public.metadata_writes.add(key="w"),
            lambda: public.metadata_writes.add(key="nowhere").entries.add(name="OTHER", value=b"x"),
            lambda: (public.writes.add(key="w", value=b"1"), public.metadata_writes.add(key="w")),
            lambda: (
                public.metadata_writes.add(key="w").entries.add(name="A", value=b"x"),
                public.metadata_writes.add(key="w").entries.add(name="B", value=b"y"),
            ),
        ]
    )()
    entry.rwset = public.SerializeToString()


def _odd_reads(sets: rwset_pb2.TxReadWriteSet, chance: random.Random) -> None:
    entry = sets.ns_rwset[-1]
    public = kv_rwset_pb2.KVRWSet.FromString(entry.rwset)
    read = public.reads.add(key=chance.choice(["a", "b", "never", ""]))
    if chance.random() < 0.8:
        read.version.block_num, read.version.tx_num = chance.choice([0, 1, 3, 2**40]), chance.choice([0, 1, 2**33])
    if chance.random() < 0.3:
        public.reads.add().CopyFrom(read)
    entry.rwset = public.SerializeToString()


def _odd_ranges(sets: rwset_pb2.TxReadWriteSet, chance: random.Random) -> None:
    entry = sets.ns_rwset[-1]
    public = kv_rwset_pb2.KVRWSet.FromString(entry.rwset)
    info = public.range_queries_info.add(
        start_key=chance.choice(["", "a", "z"]),
        end_key=chance.choice(["", "a", "c", "never"]),
        itr_exhausted=chance.random() < 0.5,
    )
    kind = chance.random()
    if kind < 0.4:
        reads = info.raw_reads.kv_reads
        for key in chance.sample(["a", "b", "c"], chance.randint(0, 2)):
            reads.add(key=key).version.block_num = chance.choice([1, 2, 50])
    elif kind < 0.7:
        hashes = info.reads_merkle_hashes
        hashes.max_degree, hashes.max_level = chance.choice([2, 3, 50]), chance.choice([1, 2])
        hashes.max_level_hashes.append(b"h" * 32)
    else:
        info.raw_reads.SetInParent()
    entry.rwset = public.SerializeToString()


def _odd_collections(sets: rwset_pb2.TxReadWriteSet, chance: random.Random) -> None:
    # A peer reads of a chaincode that is not defined in the namespace lscc, which has no collections: see below.
    defined = [entry for entry in sets.ns_rwset if entry.namespace in ("begun", "cc", "other")]
    if not defined:
        return
    entry = defined[-1]
    hashed = kv_rwset_pb2.HashedRWSet()
    kind = chance.randint(0, 3)
    # A peer that commits a transaction which reads or writes in an unknown collection ends with a panic when it looks for
    # its private data (gossip/privdata/coordinator.go).
    known = ["_implicit_org_OneMSP", *(["pair", "signed"] if entry.namespace == "cc" else [])]
    collection = entry.collection_hashed_rwset.add(collection_name=chance.choice(known))
    if kind == 0:
        hashed.hashed_writes.add(key_hash=b"k" * 32, value_hash=b"v" * 32)
    elif kind == 1:
        hashed.hashed_reads.add(key_hash=b"k" * 32).version.block_num = chance.choice([1, 9])
    elif kind == 2:
        hashed.metadata_writes.add(key_hash=b"k" * 32).entries.add(name="N", value=b"v")
    else:
        hashed.hashed_writes.add(key_hash=b"k" * 32, is_delete=True, is_purge=chance.random() < 0.5)
    collection.hashed_rwset = hashed.SerializeToString()
    collection.pvt_rwset_hash = b"" if chance.random() < 0.3 else b"n" * 32


def _garbage_rwset(sets: rwset_pb2.TxReadWriteSet, chance: random.Random) -> None:
    sets.ns_rwset[-1].rwset = GARBAGE


def _data_model(sets: rwset_pb2.TxReadWriteSet, chance: random.Random) -> None:
    sets.data_model = 1  # type: ignore[assignment]  # no such model


ENVELOPES: dict[str, Spoil] = {
    "type": _set("channel_header.type", 0, 5, 6, 7, 99),
    "epoch": _set("channel_header.epoch", 1, 2**63),
    "version": _set("channel_header.version", 1, -1),
    "no time": _clear("channel_header.timestamp"),
    "tls hash": _set("channel_header.tls_cert_hash", b"x"),
    "transaction id": _set("channel_header.tx_id", "", "00", "f" * 64),
    "nonce": _set("signature_header.nonce", b"", b"other"),
    "extension": _replace("extension", content=GARBAGE),
    "no extension": _replace("extension", content=b""),
    "other chaincode": _set("extension.chaincode_id.name", "other", "", "missing"),
    "chaincode version": _set("extension.chaincode_id.version", "9"),
    "chaincode path": _set("extension.chaincode_id.path", "p"),
    "result chaincode": _set("result.chaincode_id.name", "other", "", "missing"),
    "result version": _set("result.chaincode_id.version", "", "9.9"),
    "no result chaincode": _clear("result.chaincode_id"),
    "response status": _set("result.response.status", 0, 400, 500),
    "no response": _clear("result.response"),
    "no events": _set("result.events", GARBAGE),
    "event": _other_event,
    "two actions": _two_actions,
    "no endorsements": _no_endorsements,
    "endorsement": _spoilt_endorsement,
    "repeated endorsement": _repeated_endorsement,
    "action header": _replace("action_header"),
    "no action header": _replace("action_header", content=b""),
    "garbage": _replace("transaction", "action", "response", "result"),
    # Without an action's payload, every peer ends with a panic (common/validation/msgvalidation.go).
    "nothing": _replace("transaction", "response", "result", "payload", content=b""),
    "no actions": _no_actions,
    "results": _set("result.results", GARBAGE, b""),
    "proposal payload": _set("action.chaincode_proposal_payload", b"", GARBAGE, b"\x0a\x01x"),
    "hash": _set("keeps_hash", True),
    "unknown field in the channel header": _append_unknown("channel_header"),
    "unknown field in the transaction": _append_unknown("transaction"),
    "unknown field in the action": _append_unknown("action"),
    "unknown field in the response": _append_unknown("response"),
    "unknown field in the result": _append_unknown("result"),
    "unknown field in the payload": _append_unknown("payload"),
    "repeated namespace": _change_rwset(_repeat_namespace),
    "other namespace": _change_rwset(_other_namespace),
    "odd writes": _change_rwset(_odd_writes),
    "odd reads": _change_rwset(_odd_reads),
    "odd ranges": _change_rwset(_odd_ranges),
    "odd collections": _change_rwset(_odd_collections),
    "garbage rwset": _change_rwset(_garbage_rwset),
    "data model": _change_rwset(_data_model),
    "high s": _set("high_s", True),
}


ALONE = ("garbage", "nothing", "no actions", "results", "garbage rwset")
"""Kinds that need a block of their own, because real peers do not survive them in the company of a valid transaction.

One without an action ends every peer with a panic (statebased/validator_keylevel.go extractDependenciesForTx takes the
first action unseen); one that cannot be decoded makes those after it wait for ever (the same function returns without
telling them that it has looked).
"""


def spoil_proposal(
    signed: proposal_pb2.SignedProposal, creator: Person, chance: random.Random, *, windowed: bool
) -> tuple[str, Any]:
    """A proposal with one thing wrong, signed again unless the signature is what is wrong.

    `windowed` tells whether the peers look at the client's clock, as they do from Fabric 3 on.
    """
    proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
    header = common_pb2.Header.FromString(proposal.header)
    channel_header = common_pb2.ChannelHeader.FromString(header.channel_header)
    signature_header = common_pb2.SignatureHeader.FromString(header.signature_header)
    payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
    spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input)
    kind = chance.choice([kind for kind in PROPOSALS if windowed or kind not in TIMED])
    simple: dict[str, Callable[[], object]] = {
        "type": lambda: setattr(channel_header, "type", chance.choice([0, 1, 2, 4, 5, 99])),
        "epoch": lambda: setattr(channel_header, "epoch", 1),
        "channel": lambda: setattr(channel_header, "channel_id", chance.choice(["", "nowhere", "second", "x" * 300])),
        "late": lambda: channel_header.timestamp.FromSeconds(chance.choice([0, 1_000_000_000, 4_000_000_000])),
        "no time": lambda: channel_header.ClearField("timestamp"),
        "bad time": lambda: setattr(channel_header.timestamp, "nanos", -1),
        "transaction id": lambda: setattr(channel_header, "tx_id", chance.choice(["", "00"])),
        "nonce": lambda: setattr(signature_header, "nonce", b""),
        "creator": lambda: setattr(signature_header, "creator", chance.choice([b"", GARBAGE])),
        "extension": lambda: setattr(channel_header, "extension", chance.choice([b"", GARBAGE, b"\x12\x00"])),
        "no spec": lambda: spec.ClearField("chaincode_spec"),
        "no input": lambda: spec.chaincode_spec.ClearField("input"),
        "no arguments": lambda: spec.chaincode_spec.input.ClearField("args"),
        "spec name": lambda: setattr(spec.chaincode_spec.chaincode_id, "name", "other"),
        "spec type": lambda: setattr(spec.chaincode_spec, "type", chance.choice([1, 2, 3, 4])),
        "init": lambda: setattr(spec.chaincode_spec.input, "is_init", True),
        "decorations": lambda: spec.chaincode_spec.input.decorations.update({"d": b"x"}),
        "header version": lambda: setattr(channel_header, "version", 3),
    }
    if kind in simple:
        simple[kind]()
    payload.input = GARBAGE if kind == "garbage input" else spec.SerializeToString(deterministic=True)
    proposal.payload = GARBAGE if kind == "garbage payload" else payload.SerializeToString(deterministic=True)
    header.channel_header = GARBAGE if kind == "garbage channel header" else channel_header.SerializeToString()
    header.signature_header = GARBAGE if kind == "garbage signature header" else signature_header.SerializeToString()
    proposal.header = GARBAGE if kind == "garbage header" else header.SerializeToString()
    if kind == "no header":
        proposal.header = b""
    content = proposal.SerializeToString()
    if kind == "garbage":
        content = GARBAGE
    if kind == "empty":
        content = b""
    if kind == "unknown field":
        content += UNKNOWN_FIELD
    signature = {"no signature": b"", "bad signature": creator.sign(b"other")}.get(kind) or creator.sign(content)
    if kind == "high s":
        signature = creator.sign_high(content)
    if kind == "no signature":
        signature = b""
    return kind, proposal_pb2.SignedProposal(proposal_bytes=content, signature=signature)


TIMED = ("late", "no time", "bad time", "garbage channel header", "no header", "empty")
PROPOSALS = [
    "type", "epoch", "channel", "late", "no time", "bad time", "transaction id", "nonce", "creator", "extension",
    "no spec", "no input", "no arguments", "spec name", "spec type", "init", "decorations", "header version",
    "garbage input", "garbage payload", "garbage channel header", "garbage signature header", "garbage header",
    "no header", "garbage", "empty", "unknown field", "no signature", "bad signature", "high s",
]  # fmt: skip
