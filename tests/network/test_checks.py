"""Each rule finds what it is for, says what to do, and can be set aside only where that is meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovchain.network.checks import OVERRIDABLE, check, problems
from sovchain.network.errors import TopologyError
from sovchain.network.policychecks import satisfied_by
from sovchain.network.topology import Topology
from sovchain.protocol import policies, policydsl

NAMES = ("Alpha", "Beta", "Gamma", "Delta")
BOTH = "AND('AlphaMSP.peer', 'BetaMSP.peer')"


def network(**changes: Any) -> Topology:
    """Four organisations that all order, and one channel with them, with changes at the top."""
    document: dict[str, Any] = {
        "domain": "net.example",
        "organizations": [{"name": name} for name in NAMES],
        "ordering_organizations": [{"operator": name} for name in NAMES],
        "channels": [{"name": "shared", "members": NAMES}],
    }
    return Topology.model_validate(document | changes)


def channel(**changes: Any) -> Topology:
    return network(channels=[{"name": "shared", "members": NAMES} | changes])


def ordering(*nodes: int, **changes: Any) -> Topology:
    parts = [{"operator": name, "nodes": count} for name, count in zip(NAMES, nodes, strict=False)]
    return network(ordering_organizations=parts, **changes)


def chaincode(policy: str = BOTH, **changes: Any) -> Topology:
    spec = {"name": "notes", "module": "notes:notes", "channels": ["shared"], "endorsement_policy": policy}
    return network(chaincodes=[spec | changes])


def collection(**changes: Any) -> Topology:
    return chaincode(collections=[{"name": "pair", "members": ["Alpha", "Beta"]} | changes])


def named(*names: str) -> Topology:
    return network(
        organizations=[{"name": name} for name in (*NAMES, *names)],
    )


def test_a_network_that_breaks_no_rule_passes() -> None:
    assert problems(network()) == []
    assert problems(network(consensus="bft")) == []
    assert problems(collection(required_peer_count=1, endorsement_policy=BOTH)) == []
    assert problems(collection(members=["Alpha"], endorsement_policy="OR('AlphaMSP.peer')")) == []


CASES = [
    (channel(members=["Alpha", "Nobody"]), "unknown-name", "channels[0].members[1]", "Nobody"),
    (channel(orderers=["Alpha"]), "unknown-name", "channels[0].orderers[0]", "Alpha"),
    (channel(members=["Alpha", "Beta"], regulator="Gamma"), "unknown-name", "channels[0].regulator", "Gamma"),
    (channel(anchor_peers={"Alpha": ["peer1.alpha.net.example"]}), "unknown-name", "channels[0].anchor_peers.Alpha[0]", "peer1"),
    (channel(anchor_peers={"Nobody": []}), "unknown-name", "channels[0].anchor_peers.Nobody", "Nobody"),
    (network(ports={"fixed": {"peer9.alpha.net.example": 7051}}), "unknown-name", "ports.fixed.peer9.alpha.net.example", "peer9"),
    (network(channels=[{"name": "shared", "members": NAMES}] * 2), "twice", "channels[1].name", "'shared'"),
    (network(organizations=[{"name": name, "domain": "one.example"} for name in NAMES]), "twice", "organizations[1].domain", "one.example"),
    (network(organizations=[{"name": name, "msp_id": "MSP"} for name in NAMES]), "twice", "organizations[1].msp_id", "'MSP'"),
    (network(domain=""), "missing", "organizations[0].domain", "no domain"),
    (network(organizations=[{"name": name, "users": [{"name": "Clerk"}]} for name in NAMES]), "missing", "organizations[0].users", "admin"),
    (network(domain="a-domain-of-nearly-forty-letters.example", organizations=[{"name": name, "users": [{"name": "a-user-with-a-name-of-32-letters", "role": "admin"}]} for name in NAMES]), "too-long", "organizations[0].users[0].name", "64"),
    (named("A1pha"), "look-alike", "organizations[4].name", "'Alpha'"),
    (named("AlphA"), "look-alike", "organizations[4].name", "'Alpha'"),
    (channel(admins="OR('AlphaMSP.admin', 'BetaMSP.admin')"), "sole-policy", "channels[0].admins", "alone"),
    (channel(lifecycle_endorsement="OutOf(1, 'AlphaMSP.peer', 'BetaMSP.peer')"), "sole-policy", "channels[0].lifecycle_endorsement", "alone"),
    (channel(orderer_admins="OR('AlphaOrdererMSP.admin')"), "sole-policy", "channels[0].orderer_admins", "Alpha"),
    (chaincode("AND('AlphaMSP.peer', 'AlphaMSP.admin')"), "sole-policy", "chaincodes[0].endorsement_policy", "Alpha"),
    (chaincode("AND('AlphaMSP.peer', OR('AlphaMSP.client', 'BetaMSP.peer'))"), "sole-policy", "chaincodes[0].endorsement_policy", "Alpha"),
    (chaincode("AND('AlphaMSP.peer', 'OmegaMSP.peer')"), "policy", "chaincodes[0].endorsement_policy", "OmegaMSP"),
    (chaincode("AND('AlphaMSP.peer'"), "policy", "chaincodes[0].endorsement_policy", "cannot be read"),
    (ordering(3, 1, 1), "ordering-majority", "ordering_organizations", "Alpha runs 3 of the 5"),
    (ordering(2, 1, 1, 1, consensus="bft"), "ordering-majority", "ordering_organizations", "Alpha runs 2 of the 5"),
    (ordering(1, 1, 1, consensus="bft"), "bft-nodes", "ordering_organizations", "3 ordering nodes"),
    (network(consensus="bft", fabric_version="2.5"), "version", "consensus", "V3_0"),
    (channel(capabilities={"channel": "V3_0"}).model_copy(update={"fabric_version": "2.5"}), "version", "channels[0].capabilities.channel", "2.5"),
    (network(raft={"heartbeat_ticks": 10}), "timing", "raft.heartbeat_ticks", "election_ticks"),
    (network(consensus="bft", bft={"complain_ms": 100}), "timing", "bft.forward_ms", "complain_ms"),
    (channel(batch={"absolute_max_bytes": 4096}), "batch", "channels[0].batch.preferred_max_bytes", "larger"),
    (network(ports={"fixed": {"peer0.alpha.net.example": 7051, "peer0.beta.net.example": 7051}}), "ports", "ports.fixed.peer0.beta.net.example", "7051"),
    (network(organizations=[{"name": name, "peers": 16} for name in NAMES], ports={"base": 65000}, channels=[{"name": "shared", "members": NAMES}], ordering_organizations=[{"operator": name, "nodes": 16} for name in NAMES], state_database="couchdb", ), None, "", ""),
    (network(ports={"base": 65000}, organizations=[{"name": f"{a}{b}", "peers": 16} for a in "ABCDEF" for b in "uvxyz"], ordering_organizations=[{"operator": f"A{b}"} for b in "uvx"], channels=[{"name": "shared", "members": ["Au", "Av", "Ax"]}]), "ports", "ports.base", "65535"),
    (channel(acls={"qscc/Anything": "Readers"}), "acl", "channels[0].acls.qscc/Anything", "no resource"),
    (channel(read_only=["Nobody"]), "unknown-name", "channels[0].read_only[0]", "Nobody"),
    (channel(read_only=NAMES), "read-only", "channels[0].read_only", "send transactions"),
    (channel(acls={"qscc/GetChainInfo": "Everybody"}), "acl", "channels[0].acls.qscc/GetChainInfo", "no policy"),
    (collection(members=[]), "collection", "chaincodes[0].collections[0].members", "either"),
    (collection(members=[], policy=BOTH), "collection", "chaincodes[0].collections[0].policy", "who holds"),
    (collection(required_peer_count=2), "collection", "chaincodes[0].collections[0].required_peer_count", "only 1"),
    (collection(required_peer_count=1, max_peer_count=0), "collection", "chaincodes[0].collections[0].required_peer_count", "larger"),
    (collection(endorsement_policy="OR('AlphaMSP.peer', 'BetaMSP.peer')"), "sole-policy", "chaincodes[0].collections[0].endorsement_policy", "Alpha"),
]  # fmt: skip


@pytest.mark.parametrize(("topology", "rule", "key", "words"), CASES)
def test_a_broken_rule_is_found_at_its_key(topology: Topology, rule: str | None, key: str, words: str) -> None:
    if rule is None:
        assert problems(topology) == []
        return
    found = [problem for problem in problems(topology) if problem.rule == rule]
    assert found, problems(topology)
    assert found[0].key == key
    assert words in found[0].problem
    assert found[0].act
    with pytest.raises(TopologyError) as caught:
        check(topology)
    assert caught.value.problems


def test_only_the_two_rules_of_taste_can_be_set_aside() -> None:
    assert {"ordering-majority", "look-alike"} == OVERRIDABLE
    assert problems(ordering(3, 1, 1, accept=["ordering-majority"])) == []
    assert problems(named("A1pha").model_copy(update={"accept": ("look-alike",)})) == []
    with pytest.raises(ValueError, match="sole-policy"):
        network(accept=["sole-policy"])


def test_several_problems_are_told_at_once() -> None:
    broken = network(channels=[{"name": "shared", "members": [*NAMES, "Nobody"], "regulator": "Somebody"}])
    with pytest.raises(TopologyError) as caught:
        check(broken)
    assert [problem.key for problem in caught.value.problems] == ["channels[0].members[4]", "channels[0].regulator"]
    assert "1 more problem" in str(caught.value)


def test_a_policy_of_many_members_is_judged_quickly() -> None:
    """Listing the groups that satisfy 33 of 64 would take longer than anybody lives."""
    names = [f"Org{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(64)]
    large = network(
        organizations=[{"name": name} for name in names],
        ordering_organizations=[{"operator": name} for name in names],
        channels=[{"name": "shared", "members": names}],
        accept=["look-alike"],
    )
    assert problems(large) == []


principals = st.sampled_from(["'AMSP.peer'", "'AMSP.admin'", "'BMSP.peer'", "'CMSP.member'"])
texts = st.recursive(
    principals,
    lambda inner: st.lists(inner, min_size=1, max_size=4).flatmap(
        lambda parts: st.integers(1, len(parts)).map(lambda count: f"OutOf({count}, {', '.join(parts)})")
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(texts.filter(lambda text: text.startswith("OutOf")), st.sets(st.sampled_from(["AMSP", "BMSP", "CMSP"])))
def test_who_satisfies_a_policy_agrees_with_the_list_of_all_groups_that_do(text: str, group: set[str]) -> None:
    envelope = policydsl.parse(text)
    listed = any(minimal <= group for minimal in policies.satisfying_organisations(envelope))
    assert satisfied_by(envelope, group) == listed
