"""Merkle trees as in RFC 6962, section 2.1: leaves and nodes hash under different first bytes, and a tree of n leaves splits at
the largest power of two below n. Nothing here keeps more than one hash for each level of a tree.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Final

HASH_BYTES: Final = 32
EMPTY: Final = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


class MerkleError(ValueError):
    """Hashes that lead to no root."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node above two others."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that grows leaf by leaf, kept as the roots of its full subtrees."""

    def __init__(self) -> None:
        self._roots: list[tuple[int, bytes]] = []

    def add(self, leaf: bytes) -> None:
        """Append the hash of the next leaf."""
        size, joined = 1, leaf
        while self._roots and self._roots[-1][0] == size:
            joined = node_hash(self._roots.pop()[1], joined)
            size *= 2
        self._roots.append((size, joined))

    def root(self) -> bytes:
        """The root of all leaves so far."""
        if not self._roots:
            return EMPTY
        found = self._roots[-1][1]
        for _, left in reversed(self._roots[:-1]):
            found = node_hash(left, found)
        return found


def siblings(size: int, chosen: Sequence[int], leaf: Callable[[int], bytes]) -> Iterator[bytes]:
    """What the holder of the chosen leaves needs besides them to come to the root: the largest subtrees without any, in order.

    `chosen` are indices, ascending; `leaf` gives the hash of any leaf. Each leaf that is not chosen is asked for once.
    """
    for start, end in _gaps(0, size, chosen):
        frontier = Frontier()
        for index in range(start, end):
            frontier.add(leaf(index))
        yield frontier.root()


def rebuild(size: int, chosen: Sequence[int], leaf: Callable[[int], bytes], others: Iterator[bytes]) -> bytes:
    """The root that the chosen leaves and the hashes from `siblings` lead to. Raises MerkleError when hashes are missing or left."""
    if size == 0:
        return EMPTY
    found = _subtree(0, size, chosen, leaf, others)
    if next(others, None) is not None:
        raise MerkleError("there are more hashes than the tree has places for")
    return found


def _subtree(
    start: int, end: int, chosen: Sequence[int], leaf: Callable[[int], bytes], others: Iterator[bytes]
) -> bytes:
    inside = _count(start, end, chosen)
    if inside == 0:
        given = next(others, None)
        if given is None:
            raise MerkleError("a hash of the tree is missing")
        return given
    if inside == end - start:
        frontier = Frontier()
        for index in range(start, end):
            frontier.add(leaf(index))
        return frontier.root()
    middle = start + _split(end - start)
    return node_hash(_subtree(start, middle, chosen, leaf, others), _subtree(middle, end, chosen, leaf, others))


def _gaps(start: int, end: int, chosen: Sequence[int]) -> Iterator[tuple[int, int]]:
    inside = _count(start, end, chosen)
    if inside == end - start:
        return
    if inside == 0:
        yield start, end
        return
    middle = start + _split(end - start)
    yield from _gaps(start, middle, chosen)
    yield from _gaps(middle, end, chosen)


def _count(start: int, end: int, chosen: Sequence[int]) -> int:
    return bisect_left(chosen, end) - bisect_left(chosen, start)


def _split(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1
