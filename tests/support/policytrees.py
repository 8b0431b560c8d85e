"""Random signature policies, as trees, and the rule by which Fabric evaluates them, written down a second time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

Tree = int | tuple[int, list["Tree"]]
"""A leaf's number, or how many of which parts."""
_S = TypeVar("_S")


def grow(chance: random.Random, leaves: int, depth: int) -> Tree:
    """A random tree over this many leaves."""
    if depth == 0 or chance.random() < 0.35:
        return chance.randrange(leaves)
    parts = [grow(chance, leaves, depth - 1) for _ in range(chance.randint(1, 4))]
    return chance.randint(0, len(parts) + 1), parts


def rule(tree: Tree) -> policies_pb2.SignaturePolicy:
    """The same as Fabric writes it."""
    if isinstance(tree, int):
        return policies_pb2.SignaturePolicy(signed_by=tree)
    needed, parts = tree
    inner = policies_pb2.SignaturePolicy.NOutOf(n=needed, rules=[rule(part) for part in parts])
    return policies_pb2.SignaturePolicy(n_out_of=inner)


def principal(msp_id: str, role: str) -> msp_principal_pb2.MSPPrincipal:
    """Who has a role in an organisation."""
    wanted = msp_principal_pb2.MSPRole(
        msp_identifier=msp_id, role=msp_principal_pb2.MSPRole.MSPRoleType.Value(role.upper())
    )
    return msp_principal_pb2.MSPPrincipal(principal=wanted.SerializeToString())


def holds(tree: Tree, signers: Sequence[_S], fits: Callable[[_S, int], bool]) -> bool:
    """Whether the policy is met, by the rule of Fabric: greedily, left to right, each signer for one leaf.

    `fits` tells whether a signer is who a leaf asks for.
    """

    def walk(node: Tree, free: tuple[int, ...]) -> tuple[int, ...] | None:
        """The signers that are still free after the node is met; None if it is not."""
        if isinstance(node, int):
            for place in free:
                if fits(signers[place], node):
                    return tuple(other for other in free if other != place)
            return None
        needed, parts = node
        for part in parts:
            left = walk(part, free)
            if left is not None:
                free, needed = left, needed - 1
        return free if needed <= 0 else None

    return walk(tree, tuple(range(len(signers)))) is not None
