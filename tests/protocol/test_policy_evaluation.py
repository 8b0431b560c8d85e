"""Signature policies against a small evaluator that shares no code with ours: random trees, random signers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2
from policytrees import grow, holds, principal, rule

from sovchain.protocol.errors import InvalidIdentity, PolicyUnsatisfied
from sovchain.protocol.policies import SignaturePolicy, SignedData

ORGANISATIONS = ("A", "B", "C")
ROLES = ("member", "admin", "client", "peer")


@dataclass(frozen=True)
class Signer:
    """Somebody with one role in one organisation; `name` tells those of one role apart."""

    organisation: str
    role: str
    name: int

    @property
    def unique_id(self) -> tuple[str, str]:
        return self.organisation, f"{self.role}{self.name}"

    @property
    def encoded(self) -> bytes:
        return f"{self.organisation}.{self.role}.{self.name}".encode()

    def verify(self, message: bytes, signature: bytes) -> bool:
        return signature == b"good"


class Msps:
    """Stands for the organisations' MSPs: who is what, without certificates."""

    def deserialize(self, identity: bytes) -> Any:
        organisation, role, name = identity.decode().split(".")
        if organisation not in ORGANISATIONS:
            raise InvalidIdentity("unknown")
        return Signer(organisation, role, int(name))

    def satisfies(self, identity: Any, principal: msp_principal_pb2.MSPPrincipal) -> bool:
        wanted = msp_principal_pb2.MSPRole.FromString(principal.principal)
        role = msp_principal_pb2.MSPRole.MSPRoleType.Name(wanted.role).lower()
        return identity.organisation == wanted.msp_identifier and role in ("member", identity.role)


PRINCIPALS = {(name, role): principal(name, role) for name in ORGANISATIONS for role in ROLES}


def compare(count: int, seed: int, signer_sets: int = 8) -> tuple[int, int]:
    """Compare `count` pairs of a policy and signers; how many held and how many did not."""
    chance, msps = random.Random(seed), Msps()
    everybody = [Signer(name, role, one) for name in ORGANISATIONS for role in ROLES[1:] for one in (0, 1)]
    strangers = [Signer("Nobody", "peer", 0)]
    held = failed = 0
    while held + failed < count:
        leaves = [chance.choice(list(PRINCIPALS)) for _ in range(chance.randint(1, 5))]
        tree = grow(chance, len(leaves), 3)
        envelope = policies_pb2.SignaturePolicyEnvelope(
            rule=rule(tree), identities=[PRINCIPALS[leaf] for leaf in leaves]
        )

        def fits(signer: Signer, leaf: int, leaves: list[tuple[str, str]] = leaves) -> bool:
            organisation, role = leaves[leaf]
            return signer.organisation == organisation and role in ("member", signer.role)

        policy = SignaturePolicy(envelope, msps)  # type: ignore[arg-type]  # what it needs of them
        for _ in range(signer_sets):
            signed = [
                (chance.choice(everybody if chance.random() < 0.95 else strangers), chance.random() < 0.9)
                for _ in range(chance.randint(0, 6))
            ]
            counted = list(dict.fromkeys(signer for signer, good in signed if good and signer.organisation != "Nobody"))
            data = [SignedData(b"m", signer.encoded, b"good" if good else b"bad") for signer, good in signed]
            try:
                policy.evaluate(data)
                answer = True
            except PolicyUnsatisfied:
                answer = False
            assert answer == holds(tree, counted, fits), (tree, leaves, signed)
            held, failed = held + answer, failed + (not answer)
    return held, failed


def test_policies_hold_as_the_small_evaluator_says() -> None:
    """Twenty thousand pairs; both answers occur often."""
    held, failed = compare(20_000, seed=1)
    assert min(held, failed) > 3_000


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_million_policies_hold_as_the_small_evaluator_says() -> None:
    """Another policy for each signer set."""
    held, failed = compare(1_000_000, seed=2, signer_sets=1)
    assert min(held, failed) > 100_000
