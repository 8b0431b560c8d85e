"""Merkle trees are RFC 6962's, and a part of the leaves with its siblings leads to the root of the whole."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sovchain.contracts.core.merkle import EMPTY, Frontier, MerkleError, leaf_hash, rebuild, siblings

# The certificate transparency project's reference inputs, with the roots that its own implementations test against.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:half]) + by_definition(leaves[half:])).digest()


def grown(leaves: list[bytes]) -> bytes:
    tree = Frontier()
    for leaf in leaves:
        tree.add(leaf_hash(leaf))
    return tree.root()


@pytest.mark.parametrize("size", ROOTS)
def test_the_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert grown([bytes.fromhex(one) for one in INPUTS[:size]]).hex() == ROOTS[size]


@given(st.lists(st.binary(max_size=4), max_size=40), st.data())
def test_a_part_with_its_siblings_leads_to_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    root = by_definition(leaves)
    assert grown(leaves) == root
    hashes = [leaf_hash(leaf) for leaf in leaves]
    chosen = sorted(data.draw(st.sets(st.integers(0, max(len(leaves) - 1, 0)), max_size=len(leaves)))) if leaves else []
    others = list(siblings(len(leaves), chosen, hashes.__getitem__))
    assert rebuild(len(leaves), chosen, hashes.__getitem__, iter(others)) == (root if leaves else EMPTY)
    if others:
        with pytest.raises(MerkleError, match="missing"):
            rebuild(len(leaves), chosen, hashes.__getitem__, iter(others[:-1]))
    if leaves:
        with pytest.raises(MerkleError, match="more hashes"):
            rebuild(len(leaves), chosen, hashes.__getitem__, iter([*others, EMPTY]))


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=2, max_size=20, unique=True))
def test_the_order_of_leaves_counts_and_a_node_is_no_leaf(leaves: list[bytes]) -> None:
    assert grown(leaves) != grown(leaves[::-1])
    joined = b"".join(leaf_hash(leaf) for leaf in leaves[:2])
    assert grown([joined]) != grown(leaves[:2])
