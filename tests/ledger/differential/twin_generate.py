"""Random transactions of the differential tests: what honest and careless clients and chaincodes do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from fabric_protos.peer import collection_pb2
from twin import NAMES, Twin

from sovchain.protocol import policydsl
from sovchain.protocol.lifecycle import signature_application_policy

Step = list[Any]

# A real peer ends with a panic when one transaction of a block deletes a key and a later one writes only its metadata
# (validation/types.go applyWriteSet meets the nil value of the deletion). So no key may have both done to it.
MORTAL_KEYS = ["c", "d", "z~"]
GUARDED_KEYS = ["a", "b", "e", "long/key", "ünïcode", "0"]
KEYS = [*MORTAL_KEYS, *GUARDED_KEYS]
MORTAL_PRIVATE_KEYS = ["q", "r"]
GUARDED_PRIVATE_KEYS = ["p", "schlüssel"]
PRIVATE_KEYS = [*MORTAL_PRIVATE_KEYS, *GUARDED_PRIVATE_KEYS]
COLLECTIONS = ["pair", "strict", "signed", "brief", "_implicit_org_OneMSP", "_implicit_org_ThreeMSP"]
POLICY = "OutOf(2, 'OneMSP.peer', 'TwoMSP.peer', 'ThreeMSP.peer')"
KEY_POLICIES = [
    "OR('OneMSP.peer')",
    "AND('OneMSP.peer', 'TwoMSP.peer')",
    "AND('OneMSP.member', 'OneMSP.peer')",
    "OutOf(1, 'OneMSP.admin', 'TwoMSP.peer', 'ThreeMSP.peer')",
    "OutOf(2, AND('OneMSP.peer', 'TwoMSP.peer'), 'ThreeMSP.peer', 'OneMSP.member')",
    "AND('ThreeMSP.peer', 'NobodyMSP.peer')",
    "OutOf(0, 'OneMSP.peer')",
    "OutOf(3, 'OneMSP.peer', 'TwoMSP.peer')",
]


def key_policy(text: str) -> str:
    """A key's policy as hexadecimal bytes."""
    return policydsl.parse(text).SerializeToString(deterministic=True).hex()


def collections() -> collection_pb2.CollectionConfigPackage:
    """Collections of two members: plain, for members only, with an endorsement policy, and one that forgets."""
    package = collection_pb2.CollectionConfigPackage()
    members = policydsl.parse("OR('OneMSP.member', 'TwoMSP.member')")
    for name in ("pair", "strict", "signed", "brief"):
        config = package.config.add().static_collection_config
        config.name = name
        config.member_orgs_policy.signature_policy.CopyFrom(members)
        config.maximum_peer_count = 1
    package.config[1].static_collection_config.member_only_read = True
    package.config[1].static_collection_config.member_only_write = True
    signed = policydsl.parse("AND('OneMSP.peer', 'TwoMSP.peer')")
    package.config[2].static_collection_config.endorsement_policy.signature_policy.CopyFrom(signed)
    package.config[3].static_collection_config.block_to_live = 2
    return package


async def prepare(both: Twin) -> None:
    """Define the chaincodes that the generated transactions call."""
    package = both.chaincode.package_id
    await both.define("cc", package, signature_application_policy(POLICY), collections())
    await both.define("other", package, signature_application_policy("OR('OneMSP.peer', 'TwoMSP.peer')"))
    await both.define("begun", package, init_required=True)
    await both.define("far", package, channel="second")


class Generator:
    """Makes lists of steps. The same seed makes the same lists."""

    def __init__(self, seed: int, *, batches: bool) -> None:
        """`batches` tells whether the peers know the requests for many keys at once, which came with Fabric 3.1."""
        self.random = random.Random(seed)
        self._batches_known = batches
        self._kinds: list[tuple[int, Callable[[], list[Step]]]] = [
            (10, self._reads_and_writes),
            (4, self._ranges),
            (4, self._private),
            (3, self._policies),
            (2, self._calls),
            (2, self._pages),
            (2, self._batches),
            (2, self._odd),
            (1, self._histories),
            (1, self._statuses),
        ]

    def steps(self) -> list[Step]:
        """The steps of one transaction."""
        chance = self.random
        kinds = chance.choices([kind for _, kind in self._kinds], [weight for weight, _ in self._kinds], k=2)
        found = [step for kind in kinds[: chance.choice([1, 1, 2])] for step in kind()]
        if chance.random() < 0.1:
            found.append(["event", chance.choice(["Happened", "x" * 40]), chance.choice(["", "payload"])])
        if chance.random() < 0.2:
            found.insert(0, ["try"])
        return found if self._batches_known else [single for step in found for single in _singles(step)]

    def endorsers(self) -> list[str]:
        """Whose endorsements the transaction carries, in some order; more often enough than not."""
        return self.random.sample(NAMES, self.random.choice([1, 2, 2, 2, 3, 3]))

    def _key(self) -> str:
        return self.random.choice(KEYS)

    def _value(self) -> str:
        return self.random.choice(["1", "2", "x" * self.random.choice([3, 300])])

    def _mortal(self) -> str:
        return self.random.choice(MORTAL_KEYS)

    def _guarded(self) -> str:
        return self.random.choice(GUARDED_KEYS)

    def _reads_and_writes(self) -> list[Step]:
        found: list[Step] = []
        for _ in range(self.random.randint(1, 4)):
            found.append(
                self.random.choice(
                    [
                        ["get", self._key()],
                        ["put", self._key(), self._value()],
                        ["delete", self._mortal()],
                        ["put", self._mortal(), ""],
                        ["many", self.random.sample(KEYS, 3)],
                    ]
                )
            )
        return found

    def _ranges(self) -> list[Step]:
        start, end = sorted(self.random.sample(["", *KEYS, "zz"], 2))
        found: list[Step] = [["range", start, self.random.choice([end, ""])]]
        if self.random.random() < 0.3:
            found.append(["range", "many", "manz", "", self.random.choice([1, 2, -1])])
        if self.random.random() < 0.5:
            found.append(["put", self._key(), self._value()])
        if self.random.random() < 0.05:
            count = self.random.choice([40, 60, 130, 260])
            found.append(["batch", [["PUT_STATE", f"many{number:04}", "m", ""] for number in range(count)]])
        return found

    def _private(self) -> list[Step]:
        collection, found = self.random.choice(COLLECTIONS), list[Step]()
        for _ in range(self.random.randint(1, 3)):
            key = self.random.choice(PRIVATE_KEYS)
            found.append(
                self.random.choice(
                    [
                        ["put", key, self.random.choice(["s", "t" * 40]), collection],
                        ["secret", key, "value", collection],
                        ["get", key, collection],
                        ["digest", key, collection],
                        ["delete", self.random.choice(MORTAL_PRIVATE_KEYS), collection],
                        ["purge", self.random.choice(MORTAL_PRIVATE_KEYS), collection],
                        ["range", "", "", collection],
                        ["put", self._key(), "public"],
                    ]
                )
            )
        return found

    def _policies(self) -> list[Step]:
        policy = key_policy(self.random.choice([self.random.choice(KEY_POLICIES), self._any_policy(2)]))
        collection = self.random.choice(["", "", "pair", "signed"])
        key = self.random.choice(GUARDED_PRIVATE_KEYS) if collection else self._guarded()
        found: list[Step] = [["policy", key, policy, collection]]
        if self.random.random() < 0.4:
            found.insert(0, ["read policy", key, collection])
        if self.random.random() < 0.6:
            found.insert(self.random.randint(0, len(found)), ["put", key, "guarded", collection])
        if self.random.random() < 0.1:
            mortal = self.random.choice(MORTAL_PRIVATE_KEYS) if collection else self._mortal()
            found += [["policy", mortal, policy, collection], ["put", mortal, "guarded too", collection]]
        return found

    def _any_policy(self, depth: int) -> str:
        """A random tree over the roles of the three organisations."""
        if depth == 0:
            return (
                f"'{self.random.choice(NAMES)}MSP.{self.random.choice(['peer', 'peer', 'member', 'admin', 'client'])}'"
            )
        parts = [self._any_policy(self.random.randint(0, depth - 1)) for _ in range(self.random.randint(1, 3))]
        return f"OutOf({self.random.randint(0, len(parts))}, {', '.join(parts)})"

    def _calls(self) -> list[Step]:
        chaincode = self.random.choice(["other", "other", "cc", "far/second", "missing", "begun", "other/nowhere"])
        inner = [["get", self._key()], ["put", self._key(), "from a call"]]
        if self.random.random() < 0.2:
            inner.append(["status", self.random.choice([200, 399, 400, 500]), "inner"])
        return [["get", self._key()], ["call", chaincode, inner], ["put", self._key(), "after a call"]]

    def _pages(self) -> list[Step]:
        return [["page", "", "", self.random.choice([0, 1, 3, 200]), self.random.choice(["", "c", "zz"])]]

    def _batches(self) -> list[Step]:
        records = []
        for _ in range(self.random.randint(1, 6)):
            records.append(
                self.random.choice(
                    [
                        ["PUT_STATE", self._key(), self._value(), ""],
                        ["DEL_STATE", self._mortal(), "", ""],
                        ["PUT_STATE", self.random.choice(PRIVATE_KEYS), "b", "pair"],
                        ["PURGE_PRIVATE_DATA", self.random.choice(MORTAL_PRIVATE_KEYS), "", "pair"],
                        ["PUT_STATE_METADATA", self._guarded(), key_policy(KEY_POLICIES[0]), ""],
                    ]
                )
            )
        return [["batch", records], ["get", self._key()]]

    def _odd(self) -> list[Step]:
        return [
            ["try"],
            *self.random.sample(
                [
                    ["put", "", "no key"],
                    ["get", ""],
                    ["delete", ""],
                    ["get", "p", "nowhere"],
                    ["put", "p", "v", "nowhere"],
                    ["get", "", "pair"],
                    ["put", "", "v", "pair"],
                    ["query", "{}"],
                    ["query", "{}", "pair"],
                    ["range", "b", "a"],
                    ["range", "a", "a"],
                    ["range", "\x00", "\x01"],
                    ["put", "_under", "v"],
                    ["put", "\x00comp\x00k\x00", "v"],
                    ["digest", "p", ""],
                    ["digest", "p", "_implicit_org_TwoMSP"],
                    ["get", "p", "_implicit_org_NobodyMSP"],
                    ["policy", "gone", "", ""],
                    ["policy", "", key_policy(KEY_POLICIES[0]), ""],
                    ["read policy", "gone"],
                    ["purge", "q", ""],
                    ["page", "", "", 2, ""],
                    ["many", []],
                    ["many", ["p", "q"], "pair"],
                    ["many", ["p", ""]],
                    ["history", "nothing"],
                ],
                4,
            ),
        ]

    def _histories(self) -> list[Step]:
        return [["history", self._key()], ["get", self._key()]]

    def _statuses(self) -> list[Step]:
        status = self.random.choice([0, 1, 199, 200, 201, 399, 400, 404, 499, 500, 501, 9999, -1])
        return [["put", self._key(), "with a status"], ["event", "E", "e"], ["status", status, "said so"]]


def _singles(step: Step) -> list[Step]:
    """The same one key at a time."""
    if step[0] == "many":
        return [["get", key, *step[2:]] for key in step[1]]
    if step[0] != "batch":
        return [step]
    names = {"PUT_STATE": "put", "DEL_STATE": "delete", "PURGE_PRIVATE_DATA": "purge", "PUT_STATE_METADATA": "policy"}
    return [
        [names[kind], key, *([value] if kind.startswith("PUT") else []), collection]
        for kind, key, value, collection in step[1]
    ]
