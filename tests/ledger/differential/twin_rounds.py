"""Rounds of random input: proposals to both sides, then their transactions, spoilt or not, in the same blocks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from twin import Endorsed, Twin, steps
from twin_generate import Generator
from twin_hostile import ALONE, ENVELOPES, Parts, spoil_proposal
from twin_people import Person

CALLED = ["cc"] * 12 + ["other"] * 3 + ["begun", "missing"]


async def rounds(both: Twin, count: int, seed: int, size: int = 40) -> None:
    """Send at least `count` transactions, `size` in each round."""
    generator = Generator(seed, batches=both.site.topology.fabric_version == "3.1")
    sent = 0
    while sent < count:
        sent += await _round(both, generator, size)


async def _round(both: Twin, generator: Generator, size: int) -> int:
    chance = generator.random
    made = await asyncio.gather(*(_propose(both, generator) for _ in range(size)))
    envelopes = [found for one in made if one is not None for found in _envelopes(both, generator, *one)]
    chance.shuffle(envelopes)
    await both.order([(content, case) for content, case, alone in envelopes if not alone])
    for content, case, alone in envelopes:
        if alone:
            await both.order([(content, case)])
    return len(envelopes)


async def _propose(both: Twin, generator: Generator) -> tuple[Endorsed, Person, object] | None:
    chance = generator.random
    creator = chance.choice(both.people.odd if chance.random() < 0.08 else both.people.good)
    plan = generator.steps()
    chaincode = chance.choice(CALLED)
    transient = {"value": bytes([chance.randrange(256) for _ in range(8)])} if chance.random() < 0.5 else {}
    is_init = chance.random() < 0.02
    signed = both.proposal(*steps(*plan), creator=creator, chaincode=chaincode, transient=transient, is_init=is_init)
    case: object = (creator.kind, creator.msp_id, chaincode, is_init, json.dumps(plan)[:600])
    if chance.random() < 0.08:
        kind, signed = spoil_proposal(signed, creator, chance, windowed=both.site.topology.fabric_version == "3.1")
        await both.propose(signed, case=(kind, case))
        return None
    endorsed = await both.propose(signed, case=case)
    return (endorsed, creator, case) if endorsed.answers else None


def _envelopes(
    both: Twin, generator: Generator, endorsed: Endorsed, creator: Person, case: object
) -> list[tuple[bytes, Any, bool]]:
    """The transaction of an endorsed proposal, perhaps spoilt, perhaps more than once.

    With each: its case, and whether it needs a block of its own, because real peers wait for ever when they meet it in
    the company of others. A transaction that changes a key's policy and whose policies are not looked at keeps a later
    one of the block that writes the key waiting (statebased/vpmanagerimpl.go: nobody signals its result): when it fails
    before that, when its block is not the first with it, or when another namespace of it fails first.
    """
    chance = generator.random
    names = [name for name in generator.endorsers() if name in endorsed.answers] or list(endorsed.answers)
    # Payloads may differ where an organisation lacks private data: a client takes equal ones.
    first = endorsed.answers[names[0]].payload
    names = [name for name in names if endorsed.answers[name].payload == first]
    good = both.envelope(endorsed, creator, names)
    awaited, several = _policy_changes(good)
    found: list[tuple[bytes, Any, bool]] = []
    spoilt = chance.random()
    if spoilt < 0.35:
        # Fabric 2.5 ends with a panic at several of these even in a block of their own.
        newest = both.site.topology.fabric_version == "3.1"
        kind = chance.choice([kind for kind in ENVELOPES if newest or kind not in ALONE])
        parts = Parts(good)
        parts.endorsers = [both.people.peer[name] for name in names]
        if kind == "other namespace":
            parts.endorsers = list(both.people.peer.values())
        ENVELOPES[kind](parts, chance)
        if parts.keeps_hash and kind != "hash":
            parts.endorsers = None
        if kind == "hash":
            parts.response.proposal_hash = b"h" * 32
        sealed = parts.seal(creator)
        # These two may change a policy where the good one does not; the others may be beyond decoding.
        changed = kind.startswith("odd ") and _policy_changes(common_pb2.Envelope.FromString(sealed))[0]
        found.append((sealed, (kind, names, case), awaited or changed or kind in ALONE))
    elif spoilt < 0.45:
        parts = Parts(good)
        strangers = chance.sample([*both.people.odd, *both.people.good], 2)
        parts.endorsers = [*strangers, *(both.people.peer[name] for name in names)]
        chance.shuffle(parts.endorsers)
        kinds = [(person.kind, person.msp_id) for person in parts.endorsers]
        found.append((parts.seal(creator), ("strangers", kinds, case), several))
    elif spoilt < 0.5:
        person = chance.choice([*both.people.odd, *both.people.good])
        signature = chance.choice([person.sign, creator.sign_high])
        envelope = common_pb2.Envelope(payload=good.payload, signature=signature(good.payload))
        found.append((envelope.SerializeToString(), ("signer", person.kind, person.msp_id, case), awaited))
    if not found or chance.random() < 0.3:
        # Its spoilt copy may have come in an earlier block.
        found.append((good.SerializeToString(), (names, case), several or (awaited and bool(found))))
        while chance.random() < 0.06:
            found.append((good.SerializeToString(), ("again", names, case), awaited))
    return found


def _policy_changes(envelope: common_pb2.Envelope) -> tuple[bool, bool]:
    """Whether a transaction changes the policy of a key, and whether it touches several chaincodes besides."""
    namespaces = {entry.namespace for entry in Parts(envelope).rwset().ns_rwset} - {"_lifecycle"}
    for entry in Parts(envelope).rwset().ns_rwset:
        hashed = [kv_rwset_pb2.HashedRWSet.FromString(part.hashed_rwset) for part in entry.collection_hashed_rwset]
        if kv_rwset_pb2.KVRWSet.FromString(entry.rwset).metadata_writes or any(one.metadata_writes for one in hashed):
            return True, len(namespaces) > 1
    return False, False
