"""Where two simulations of one proposal differ, by name: never a value, which may be private.

Mirrors internal/pkg/gateway/diff.go, which logs the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sovchain.ledger.errors import LedgerError
from sovchain.ledger.simulation import Simulation
from sovchain.protocol.rwset import HashedCollection, NamespaceRwSet, RwSet, parse_rwset

_SHOWN_KEY_CHARACTERS = 120


@dataclass(frozen=True)
class Difference:
    """One place in which two simulations differ.

    Attributes:
        part: "write", "read", "metadata", "range", "collection", "response" or "event".
        namespace: chaincode whose state it is; "" for response and event.
        key: the key, the collection's name for private data, "start..end" for a range; "" for response and event.
    """

    part: str
    namespace: str = ""
    key: str = ""

    def __str__(self) -> str:
        if not self.namespace:
            return f"the {self.part}"
        subject = {"metadata": "the metadata of key", "range": "the range", "collection": "the private collection"}
        return f"{subject.get(self.part, f'the {self.part} of key')} {_shown(self.key)} in namespace {self.namespace}"


class NonDeterminismError(LedgerError):
    """Two simulations of one proposal had different outcomes, so no two peers could be relied on to agree.

    Attributes:
        chaincode: the chaincode that was called.
        difference: the first place that differs.
    """

    def __init__(self, chaincode: str, difference: Difference) -> None:
        super().__init__(
            f"chaincode {chaincode} is not deterministic: two simulations of this proposal differ in {difference}; "
            "use the transaction's time and no randomness, and iterate in a fixed order"
        )
        self.chaincode = chaincode
        self.difference = difference


def first_difference(one: Simulation, other: Simulation) -> Difference | None:
    """Return the first difference of two simulations of one proposal: writes first, then reads, event and response."""
    if one.same_as(other):
        return None
    if one.results is not None and other.results is not None and one.results.public != other.results.public:
        found = next(_differences(parse_rwset(one.results.public), parse_rwset(other.results.public)), None)
        if found is not None:
            return found
    if one.event != other.event:
        return Difference("event")
    return Difference("response")


def _differences(one: RwSet, other: RwSet) -> Iterator[Difference]:
    left = {entry.namespace: entry for entry in one.namespaces}
    right = {entry.namespace: entry for entry in other.namespaces}
    namespaces = sorted(left.keys() | right.keys())
    pairs = [(name, left.get(name, NamespaceRwSet(name)), right.get(name, NamespaceRwSet(name))) for name in namespaces]
    for name, a, b in pairs:
        yield from _changed("write", name, {w.key: w for w in a.writes}, {w.key: w for w in b.writes})
        yield from _changed(
            "metadata", name, {w.key: w for w in a.metadata_writes}, {w.key: w for w in b.metadata_writes}
        )
        yield from _changed("collection", name, _collections(a), _collections(b))
    for name, a, b in pairs:
        yield from _changed("read", name, {r.key: r for r in a.reads}, {r.key: r for r in b.reads})
        ranges = ({f"{q.start}..{q.end}": q for q in entry.range_queries} for entry in (a, b))
        yield from _changed("range", name, *ranges)


def _changed(part: str, namespace: str, one: Mapping[str, object], other: Mapping[str, object]) -> Iterator[Difference]:
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            yield Difference(part, namespace, key)
    if one.keys() == other.keys() and list(one) != list(other):
        yield Difference(part, namespace, next(a for a, b in zip(one, other, strict=True) if a != b))


def _collections(entry: NamespaceRwSet) -> dict[str, HashedCollection]:
    return {collection.name: collection for collection in entry.collections}


def _shown(key: str) -> str:
    """Return a key for people: a composite key as its parts in brackets, unprintable characters escaped, shortened."""
    if key.startswith("\x00") and key.endswith("\x00"):
        shown = "[" + ", ".join(part.encode("unicode_escape").decode() for part in key[1:-1].split("\x00")) + "]"
    else:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in key)
    return shown if len(shown) <= _SHOWN_KEY_CHARACTERS else shown[:_SHOWN_KEY_CHARACTERS] + "…"
