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
    alone = [found for found in envelopes if found[1][0] in ALONE]
    await both.order([found for found in envelopes if found[1][0] not in ALONE])
    for one in alone:
        await both.order([one])
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


def _envelopes(both: Twin, generator: Generator, endorsed: Endorsed, creator: Person, case: object) -> list[Any]:
    """The transaction of an endorsed proposal, perhaps spoilt, perhaps more than once."""
    chance = generator.random
    names = [name for name in generator.endorsers() if name in endorsed.answers] or list(endorsed.answers)
    # Payloads may differ where an organisation lacks private data: a client takes equal ones.
    first = endorsed.answers[names[0]].payload
    names = [name for name in names if endorsed.answers[name].payload == first]
    good = both.envelope(endorsed, creator, names)
    found = []
    spoilt = chance.random()
    # A transaction that changes a key's policy and fails before policies are looked at keeps a real peer waiting for ever
    # when a later one of the block writes that key (statebased/vpmanagerimpl.go: nobody signals its result).
    if spoilt < 0.35 and not _changes_policies(good):
        # Fabric 2.5 ends with a panic at several of these even in a block of their own.
        newest = both.site.topology.fabric_version == "3.1"
        kind = chance.choice([kind for kind in ENVELOPES if newest or kind not in ALONE])
        parts = Parts(good)
        parts.endorsers = [both.people.peer[name] for name in names]
        ENVELOPES[kind](parts, chance)
        if parts.keeps_hash and kind != "hash":
            parts.endorsers = None
        if kind == "hash":
            parts.response.proposal_hash = b"h" * 32
        found.append((parts.seal(creator), (kind, names, case)))
    elif 0.35 <= spoilt < 0.45:
        parts = Parts(good)
        strangers = chance.sample([*both.people.odd, *both.people.good], 2)
        parts.endorsers = [*strangers, *(both.people.peer[name] for name in names)]
        chance.shuffle(parts.endorsers)
        kinds = [(person.kind, person.msp_id) for person in parts.endorsers]
        found.append((parts.seal(creator), ("strangers", kinds, case)))
    elif 0.45 <= spoilt < 0.5:
        person = chance.choice([*both.people.odd, *both.people.good])
        signature = chance.choice([person.sign, creator.sign_high])
        envelope = common_pb2.Envelope(payload=good.payload, signature=signature(good.payload))
        found.append((envelope.SerializeToString(), ("signer", person.kind, person.msp_id, case)))
    if not found or chance.random() < 0.3:
        found.append((good.SerializeToString(), (names, case)))
        while chance.random() < 0.06:
            found.append((good.SerializeToString(), ("again", names, case)))
    return found


def _changes_policies(envelope: common_pb2.Envelope) -> bool:
    for entry in Parts(envelope).rwset().ns_rwset:
        if kv_rwset_pb2.KVRWSet.FromString(entry.rwset).metadata_writes:
            return True
        for collection in entry.collection_hashed_rwset:
            if kv_rwset_pb2.HashedRWSet.FromString(collection.hashed_rwset).metadata_writes:
                return True
    return False
