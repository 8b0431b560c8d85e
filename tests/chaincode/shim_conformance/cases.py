"""What each request of a stub gives on Fabric, as scripts for the echo contract.

A case is a list of transactions that run one after the other, each committed if it is marked so. `X` stands for what differs
from run to run; `REFUSED` for an error of the shim or the peer, whose words are not compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from chaincodelab import COLLECTION as C
from chaincodelab import OTHER_CHANNEL

X: Final = "<anything>"
REFUSED: Final = {"error": X}
BIG: Final = "\U0001f600"  # after U+FFFD in UTF-8, before it in UTF-16
POLICY: Final = (
    "0a1d0a1b12190801120508001201001a0e0a0c0a064c61624d53501003"  # an ApplicationPolicy: any bytes will do for reading
)


@dataclass(frozen=True)
class Call:
    """One transaction: its steps, what they give, and whether it is committed."""

    steps: list[list[Any]]
    gives: list[Any]
    commit: bool = False


def keys(*names: str) -> list[list[str]]:
    return [[name, "v"] for name in names]


def puts(*names: str) -> Call:
    return Call([["put", name, "v"] for name in names], [None] * len(names), commit=True)


A, B = "\x00type\x00a\x00", "\x00type\x00a\x00b\x00"

CASES: Final[dict[str, list[Call]]] = {
    "a key that is not there": [Call([["get", "absent"], ["many", "absent", "also"]], [None, [None, None]])],
    "a read after a write gives what is committed": [
        Call([["put", "own", "new"], ["get", "own"], ["many", "own"]], [None, None, [None]], commit=True),
        Call(
            [["get", "own"], ["put", "own", "newer"], ["get", "own"], ["delete", "own"], ["get", "own"]],
            ["new", None, "new", None, "new"],
        ),
    ],
    "the last write to a key wins": [
        Call(
            [["put", "w1", "a"], ["delete", "w1"], ["delete", "w2"], ["put", "w2", "a"], ["put", "w2", "b"]],
            [None] * 5,
            commit=True,
        ),
        Call([["many", "w1", "w2"]], [[None, "b"]]),
    ],
    "a deleted key is gone": [
        puts("gone"),
        Call([["delete", "gone"], ["delete", "never was"]], [None, None], commit=True),
        Call([["get", "gone"]], [None]),
    ],
    "an empty value": [Call([["put", "void", ""]], [REFUSED])],
    "an empty key": [
        Call([["put", "", "v"]], [REFUSED]),
        Call([["get", ""]], [REFUSED]),
        Call([["delete", ""]], [REFUSED]),
    ],
    "a range is ordered by bytes and ends before its end": [
        puts("r1", "r2", "r3", f"r{BIG}", "r\ufffd"),
        Call(
            [["range", "r", "s"], ["range", "r1", "r3"], ["range", "r3", "r1"], ["range", "r2", "r2"]],
            [keys("r1", "r2", "r3", "r\ufffd", f"r{BIG}"), keys("r1", "r2"), [], []],
        ),
    ],
    "a range does not see the transaction's own writes": [
        puts("c1", "c2"),
        Call([["put", "c3", "v"], ["delete", "c1"], ["range", "c", "d"]], [None, None, keys("c1", "c2")]),
    ],
    "a range that is left early": [puts("l1", "l2", "l3"), Call([["range", "l", "m", 2]], [keys("l1", "l2")])],
    "a range over several frames": [
        puts(*(f"f{number:03}" for number in range(250))),
        Call([["range", "f", "g"]], [keys(*(f"f{number:03}" for number in range(250)))]),
        Call([["range", "f", "g", 101]], [keys(*(f"f{number:03}" for number in range(101)))]),
    ],
    "an open range starts after the composite keys": [
        Call([["put", "z\U0010fffe", "v"], ["put", A, "c"]], [None, None], commit=True),
        Call([["range", "z", ""], ["range", "", "\x02"]], [keys("z\U0010fffe"), []]),
    ],
    "a range must not begin among the composite keys": [Call([["range", "\x00", "a"]], [REFUSED])],
    "pages": [
        puts("p1", "p2", "p3", "p4", "p5"),
        Call([["range_page", "p", "q", 2, ""]], [[keys("p1", "p2"), 2, "p3"]]),
        Call([["range_page", "p", "q", 2, "p3"]], [[keys("p3", "p4"), 2, "p5"]]),
        Call([["range_page", "p", "q", 2, "p5"]], [[keys("p5"), 1, ""]]),
        Call([["range_page", "p", "q", 5, ""]], [[keys("p1", "p2", "p3", "p4", "p5"), 5, ""]]),
        Call([["range_page", "p", "q", 9, ""]], [[keys("p1", "p2", "p3", "p4", "p5"), 5, ""]]),
    ],
    "an empty page": [Call([["range_page", "q", "r", 2, ""]], [[[], 0, ""]])],
    "a page of no size": [puts("n1", "n2"), Call([["range_page", "n", "o", 0, ""]], [REFUSED])],
    "a page over several frames": [
        puts(*(f"F{number:03}" for number in range(250))),
        Call([["range_page", "F", "G", 220, ""]], [[keys(*(f"F{n:03}" for n in range(220))), 220, "F220"]]),
    ],
    "a page after a write": [Call([["put", "x", "v"], ["range_page", "p", "q", 2, ""]], [None, REFUSED])],
    "composite keys": [
        Call(
            [["composite", "type", ["a", "b"]], ["split", B], ["composite", "type", []]],
            [B, ["type", ["a", "b"]], "\x00type\x00"],
        ),
        Call([["put", A, "v"], ["put", B, "v"], ["put", "\x00type\x00ab\x00", "v"]], [None] * 3, commit=True),
        Call(
            [["partial", "type", ["a"]], ["partial", "type", []], ["partial", "typ", []]],
            [keys(A, B), keys(A, B, "\x00type\x00ab\x00"), []],
        ),
        Call([["partial_page", "type", [], 2, ""]], [[keys(A, B), 2, "\x00type\x00ab\x00"]]),
        Call([["partial_page", "type", [], 2, "\x00type\x00ab\x00"]], [[keys("\x00type\x00ab\x00"), 1, ""]]),
    ],
    "a composite key with U+0000": [
        Call(
            [["composite", "ty\x00pe", ["a"]], ["composite", "type", ["a\x00"]], ["partial", "t", ["\x00"]]],
            [REFUSED] * 3,
        )
    ],
    "a composite key with U+10FFFF": [
        Call([["composite", "type\U0010ffff", ["a"]], ["composite", "type", ["\U0010ffff"]]], [REFUSED] * 2)
    ],
    "a composite key with an empty part": [
        Call([["composite", "type", [""]], ["composite", "", []]], ["\x00type\x00\x00", "\x00\x00"])
    ],
    "history, newest first": [
        Call([["put", "h", "1"]], [None], commit=True),
        Call([["put", "h", "2"]], [None], commit=True),
        Call([["delete", "h"]], [None], commit=True),
        Call([["history", "h"], ["history", "h never"]], [[[X, "", True], [X, "2", False], [X, "1", False]], []]),
    ],
    "a rich query without CouchDB": [Call([["query", '{"selector":{}}']], [REFUSED])],
    "private data": [
        Call(
            [["pput", C, "k1", "v"], ["pput", C, "k2", "v"], ["pput", C, A, "v"], ["pget", C, "k1"]],
            [None, None, None, None],
            commit=True,
        ),
        Call(
            [["pget", C, "k1"], ["pget", C, "absent"], ["phash", C, "k1"], ["phash", C, "absent"], ["get", "k1"]],
            ["v", None, "4c94485e0c21ae6c41ce1dfe7b6bfaceea5ab68e40a2476f50208e526f506080", None, None],
        ),
        Call([["prange", C, "k", "l"], ["ppartial", C, "type", []]], [keys("k1", "k2"), keys(A)]),
        Call([["pdelete", C, "k1"], ["ppurge", C, "k2"], ["pget", C, "k1"]], [None, None, "v"], commit=True),
        Call(
            [["pget", C, "k1"], ["pget", C, "k2"], ["phash", C, "k2"], ["prange", C, "k", "l"]], [None, None, None, []]
        ),
    ],
    "private data without a collection": [
        Call([["pget", "", "k"]], [REFUSED]),
        Call([["pput", "", "k", "v"]], [REFUSED]),
        Call([["prange", "", "a", "b"]], [REFUSED]),
    ],
    "private data in an unknown collection": [Call([["pget", "none", "k"]], [REFUSED])],
    "a private range after a write": [Call([["put", "x", "v"], ["prange", C, "a", "b"]], [None, REFUSED])],
    "a private rich query without CouchDB": [Call([["pquery", C, '{"selector":{}}']], [REFUSED])],
    "endorsement policies of keys": [
        Call(
            [["put", "sbe", "v"], ["set_policy", "sbe", POLICY], ["get_policy", "sbe"]], [None, None, None], commit=True
        ),
        Call([["get_policy", "sbe"], ["get_policy", "absent"]], [POLICY, None]),
    ],
    "endorsement policies of private keys": [
        Call([["pput", C, "sbe", "v"], ["set_ppolicy", C, "sbe", POLICY]], [None, None], commit=True),
        Call([["get_ppolicy", C, "sbe"], ["get_ppolicy", C, "absent"]], [POLICY, None]),
    ],
    "the last event wins": [
        Call([["event", "First", "1"], ["event", "Second", "2"], ["put", "e", "v"]], [None] * 3, commit=True)
    ],
    "an event without a name": [Call([["event", "", "1"]], [REFUSED])],
    "another chaincode": [
        Call(
            [["invoke", "callee", ["add", "n"], ""], ["invoke", "callee", ["add", "n"], ""]], [[200, "1"], [200, "1"]]
        ),
        Call([["invoke", "callee", ["fail"], ""]], [[500, ""]]),
        Call([["invoke", "callee", ["add", "n"], OTHER_CHANNEL]], [[200, "1"]]),
    ],
    "a chaincode that is not there": [Call([["invoke", "nobody", ["add"], ""]], [REFUSED])],
    "a chaincode that calls itself": [Call([["invoke", "<itself>", ["empty"], ""]], [REFUSED])],
    "the call's input": [
        Call(
            [["channel"], ["txid"], ["timestamp"], ["creator"], ["binding"], ["proposal"], ["transient"]],
            ["<channel>", "<txid>", "<timestamp>", "<creator>", "<binding>", "<proposal>", {"a": "1", "b": "2"}],
        )
    ],
}

_NO_CHECK: Final = ["\x00ty\x00pe\x00a\x00", "\x00type\x00a\x00\x00", []]

DIFFERENCES: Final[dict[str, dict[str, list[list[Any]]]]] = {
    "node": {
        "an empty value": [[None]],
        "an empty key": [[None], [None], [None]],
        "an empty page": [[REFUSED]],
        "a page of no size": [[None, None], [REFUSED]],
        "a composite key with U+0000": [_NO_CHECK],
        "a composite key with U+10FFFF": [["\x00type\U0010ffff\x00a\x00", "\x00type\x00\U0010ffff\x00"]],
        "a composite key with an empty part": [[REFUSED, REFUSED]],
    },
    "go": {
        "an empty value": [[None]],
        "an empty key": [[REFUSED], [None], [None]],
        "a page of no size": [[None, None], [[keys("n1", "n2"), X, ""]]],
        "a chaincode that is not there": [[[500, X]]],
        "a chaincode that calls itself": [[[500, X]]],
    },
}
"""What the other shims give instead, by language and case; `docs/chaincode-runtime.md` says why."""
