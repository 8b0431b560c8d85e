"""Generated signature policies on a real peer: a key under each, written by generated signers."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2, policies_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import transaction_pb2
from fabricprograms import VERSIONS, fabric_programs
from policytrees import Tree, grow, holds, principal, rule
from twin import NAMES, Twin, steps, twin
from twin_generate import prepare
from twin_hostile import Parts
from twin_people import Person

from sovchain.protocol.proposals import transaction_id

ROLES = ("member", "admin", "client", "peer")
OF_A_TRANSACTION = 250
VALIDATION_PARAMETER = "VALIDATION_PARAMETER"
_CODES = transaction_pb2.TxValidationCode


class Keys:
    """Makes transactions out of one honest one: any writes, any signers."""

    def __init__(self, honest: common_pb2.Envelope, creator: Person) -> None:
        self._honest = honest
        self._creator = creator

    def transaction(self, written: kv_rwset_pb2.KVRWSet, endorsers: list[Person]) -> bytes:
        parts = Parts(self._honest)
        sets = rwset_pb2.TxReadWriteSet()
        sets.ns_rwset.add(namespace="cc", rwset=written.SerializeToString(deterministic=True))
        parts.result.results = sets.SerializeToString(deterministic=True)
        parts.signature_header.nonce = os.urandom(24)
        parts.channel_header.tx_id = transaction_id(parts.signature_header.nonce, parts.signature_header.creator)
        parts.action_header = parts.signature_header.SerializeToString(deterministic=True)
        parts.endorsers = endorsers
        return parts.seal(self._creator)


def signers(both: Twin, chance: random.Random) -> list[Person]:
    """Up to six of all sorts, some of them twice, some of whom no organisation vouches for."""
    people = both.people
    everybody = [*people.peer.values(), *people.user.values(), *people.admin.values()]
    return [chance.choice(everybody if chance.random() < 0.95 else people.odd) for _ in range(chance.randint(0, 6))]


async def compare(both: Twin, count: int, seed: int) -> Counter[str]:
    """Have `count` keys written under a policy of their own; how the real peer judged them.

    `Twin.order` compares each code, and the commit hash of each block, with those of the embedded ledger.
    """
    chance, creator, judged = random.Random(seed), both.people.user["One"], Counter[str]()
    endorsed = await both.propose(both.proposal(*steps(["put", "a", "b"]), creator=creator), case="honest")
    keys = Keys(both.envelope(endorsed, creator, NAMES), creator)
    pairs = [(name, role) for name in ("OneMSP", "TwoMSP", "ThreeMSP") for role in ROLES]
    while judged.total() < count:
        defining, writing, expected = kv_rwset_pb2.KVRWSet(), [], []
        for number in range(OF_A_TRANSACTION):
            leaves = [chance.choice(pairs) for _ in range(chance.randint(1, 5))]
            tree: Tree = grow(chance, len(leaves), 3)
            policy = policies_pb2.SignaturePolicyEnvelope(
                rule=rule(tree), identities=[principal(*leaf) for leaf in leaves]
            )
            key = f"policy {seed} {judged.total() + number:06}"
            defining.writes.add(key=key, value=b"1")
            metadata = defining.metadata_writes.add(key=key)
            metadata.entries.add(name=VALIDATION_PARAMETER, value=policy.SerializeToString())
            endorsers = signers(both, chance)
            written = kv_rwset_pb2.KVRWSet()
            written.writes.add(key=key, value=b"2")
            case = (tree, leaves, [(person.kind, person.msp_id) for person in endorsers])
            writing.append((keys.transaction(written, endorsers), case))
            expected.append(verdict(tree, leaves, endorsers))
        defined = await both.order([(keys.transaction(defining, list(both.people.peer.values())), "policies")])
        assert defined == [_CODES.VALID], defined
        codes = await both.order(writing)
        assert len(codes) == len(writing)
        for (_, case), code, told in zip(writing, codes, expected, strict=True):
            assert told is None or (code == _CODES.VALID) == told, (code, case)
        judged.update(_CODES.Name(code) for code in codes)  # type: ignore[arg-type]  # they are Fabric's
        assert not both.differences, both.differences[:3]
    return judged


def verdict(tree: Tree, leaves: list[tuple[str, str]], endorsers: list[Person]) -> bool | None:
    """What the small evaluator says; None where it does not know a signer."""
    roles = {"user": "client", "admin": "admin", "peer": "peer"}
    if any(person.kind not in roles for person in endorsers):
        return None

    def fits(person: Person, leaf: int) -> bool:
        msp_id, role = leaves[leaf]
        return person.msp_id == msp_id and role in ("member", roles[person.kind])

    return holds(tree, list({person.identity: person for person in endorsers}.values()), fits)


@pytest.fixture(params=[VERSIONS[-1], VERSIONS[0]])
def version(request: pytest.FixtureRequest) -> str:
    """A version of Fabric whose programs are here."""
    fabric_programs(request.param)
    return str(request.param)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_ten_thousand_policies_on_a_real_peer(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 10_000 if version == VERSIONS[-1] else 1_000
    async with twin(version, tmp_path / "network", batch=100) as both:
        await prepare(both)
        judged = await compare(both, count, seed=10)
    with capsys.disabled():
        print(f"\n{version}: {dict(judged)}, {both.compared['commit hash']} commit hashes")
    assert set(judged) == {"VALID", "ENDORSEMENT_POLICY_FAILURE"}
    assert min(judged.values()) > count / 10
